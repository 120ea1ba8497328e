//! What was observed: plain data, each reading with its completeness and its time.
//!
//! Invariant: no client, no clock and no random source is imported here. Wire types end at the boundary
//! modules; everything below is ours.

mod activity;
mod billing;
mod directory;
mod images;
mod quota;
mod releases;
mod workflow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::class::{ImageSource, Machine, Risks};
use crate::cost::{self, Resources};
use crate::error::CallFailure;
use crate::ids::{
    AccountName, ClassName, CredentialName, Fingerprint, ImageId, JobId, Labels, OrgName, OurName, RepoName, RunId,
    RunnerId, SandboxId, SecretId, TaskId,
};
use crate::pause::Pauses;
use crate::retry;
use crate::runner::RunnerVersion;

pub use activity::{Activity, Hints};
pub use billing::{EndedSandbox, RatesView};
pub use directory::{AppView, Installed, Owner, OwnerView, Pause, Permissions, RepoFacts, Visibility};
pub use images::{ImageState, Overdue, Setbacks};
pub use quota::{Quota, QuotaView, Spend};
pub use releases::{Rebuilds, ReleaseView};
pub use workflow::{AdmittedWorkflows, Fit, SelectedWorkflow, Workflow, WorkflowFile, WrittenIn};

/// How a read ended. Unknown is not empty, and partial is not all (design rule B).
#[derive(Debug, Clone, PartialEq)]
pub enum Reading<T> {
    /// Everything was read.
    Known(T),
    /// Something was read, and something is missing.
    Partial {
        /// What was read.
        seen: T,
        /// Why the rest is missing.
        missing: CallFailure,
    },
    /// Nothing was read.
    Unknown(CallFailure),
}

impl<T> Reading<T> {
    /// What was read, complete or not.
    pub fn seen(&self) -> Option<&T> {
        match self {
            Self::Known(seen) | Self::Partial { seen, .. } => Some(seen),
            Self::Unknown(_) => None,
        }
    }

    /// What is wrong with it, if anything.
    pub fn failure(&self) -> Option<&CallFailure> {
        match self {
            Self::Known(_) => None,
            Self::Partial { missing, .. } => Some(missing),
            Self::Unknown(failure) => Some(failure),
        }
    }
}

/// A repository together with the account it is read with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The configured GitHub account.
    pub account: AccountName,
    /// The repository in which runners are registered.
    pub repo: RepoName,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.repo.fmt(f)
    }
}

/// An organization together with the account that it is reached with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Org {
    /// The configured GitHub account.
    pub account: AccountName,
    /// The organization in which runners are registered.
    pub name: OrgName,
}

/// Where runners are registered, and so which jobs they may be given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    /// In a repository: its jobs alone.
    Repo(Scope),
    /// In a runner group of an organization: jobs of every repository that the group admits.
    Org(Org),
}

impl Registry {
    /// The configured GitHub account.
    pub fn account(&self) -> &AccountName {
        match self {
            Self::Repo(scope) => &scope.account,
            Self::Org(org) => &org.account,
        }
    }
}

impl std::fmt::Display for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Repo(scope) => scope.fmt(f),
            Self::Org(org) => write!(f, "organization {}", org.name),
        }
    }
}

/// The status of a workflow run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunStatus {
    /// At least one job is queued.
    Queued,
    /// At least one job runs, none is queued.
    InProgress,
    /// A job waits for an environment; others may be queued.
    Waiting,
    /// Blocked by a concurrency group.
    Pending,
    /// Just created.
    Requested,
    /// All jobs ended. Final for this attempt.
    Completed,
    /// Anything GitHub adds; looked at like an active run.
    Other(String),
}

/// A workflow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRun {
    /// Its id.
    pub id: RunId,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// Its status.
    pub status: RunStatus,
    /// When it was created; stays the same over re-runs.
    pub created_at: Option<DateTime<Utc>>,
    /// When GitHub last changed it; a hint only.
    pub updated_at: Option<DateTime<Utc>>,
    /// Whether strangers may have a hand in what it runs.
    pub risks: Risks,
    /// What it runs, where GitHub says so; not kept of a completed run.
    pub workflow: Option<Arc<Workflow>>,
}

/// The status of a workflow job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobStatus {
    /// Waits for a runner: the only status that is demand.
    Queued,
    /// Runs.
    InProgress,
    /// Ended.
    Completed,
    /// Waits for an environment.
    Waiting,
    /// Blocked by a concurrency group.
    Pending,
    /// Just created.
    Requested,
    /// Anything GitHub adds; no demand.
    Other(String),
}

/// A workflow job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowJob {
    /// Its id.
    pub id: JobId,
    /// The run it belongs to.
    pub run_id: RunId,
    /// The attempt of the run it belongs to.
    pub run_attempt: u32,
    /// Its status.
    pub status: JobStatus,
    /// What `runs-on` asks for.
    pub labels: Labels,
    /// The name of the runner it was given to. Kept only where the job is not queued: a queued job has
    /// been seen with a runner in GitHub's own examples.
    pub runner_name: Option<String>,
    /// The id of that runner, where GitHub says it.
    pub runner_id: Option<RunnerId>,
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When it started; meaningless while it is queued.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// Its name.
    pub name: String,
}

/// A registered runner, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its id within the scope.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// Whether GitHub says that it is connected: a hint.
    pub connection: Connection,
    /// Whether GitHub says that it runs a job: a hint, late by up to minutes and wrong at times.
    pub is_busy: bool,
    /// The fingerprint of its labels; none where GitHub lists none. It adds none of its own to those asked for.
    pub labels: Option<Fingerprint>,
    /// Its version, where GitHub tells it: from its first connection on.
    pub version: Option<RunnerVersion>,
}

/// Whether a runner is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It is.
    Online,
    /// It is not.
    Offline,
    /// GitHub says something else: it may be.
    Unknown,
}

/// A sandbox as Modal lists it, ours or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its name; empty where it has none.
    pub name: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Whether it was placed on a machine; a V2 sandbox always is.
    pub is_scheduled: bool,
    /// When it started to run.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Its resources.
    pub resources: Resources,
    /// What it was made from.
    pub image: Option<ImageId>,
    /// What runs it; its output goes by that.
    pub task: Option<TaskId>,
    /// How it ended; none while it lives.
    pub result: Option<SandboxResult>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxResult {
    /// The end as Modal names it.
    pub status: SandboxEnd,
    /// The exit code of its entry point.
    pub exit_code: i32,
    /// What Modal says about a failure.
    pub message: String,
}

/// The statuses of Modal's `GenericResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SandboxEnd {
    /// The entry point ended with code 0.
    Success,
    /// The entry point ended with another code.
    Failure,
    /// Ended from outside: `SandboxTerminate`, a signal, preemption.
    Terminated,
    /// Modal's `timeout_secs` passed.
    Timeout,
    /// It did not start: image, mount or secret.
    InitFailure,
    /// Modal's own fault.
    InternalFailure,
    /// Modal's idle timeout, which we never set.
    IdleTimeout,
    /// Out of memory, in one of three forms.
    OutOfMemory,
    /// Anything Modal adds.
    Other(i32),
}

impl SandboxEnd {
    /// Whether only a sandbox that has a machine ends like that.
    fn needs_machine(self) -> bool {
        match self {
            Self::Success | Self::Failure | Self::InitFailure | Self::IdleTimeout | Self::OutOfMemory => true,
            Self::Terminated | Self::Timeout | Self::InternalFailure | Self::Other(_) => false,
        }
    }
}

/// Everything that is observed, as the planner sees it.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Every allowed repository: those that are named, and those that lists show and a pattern means.
    pub repos: BTreeMap<Scope, RepoView>,
    /// Where their runners are registered.
    pub registries: BTreeMap<Registry, RegistryView>,
    /// Owners whose repositories are listed.
    pub owners: BTreeMap<Owner, OwnerView>,
    /// GitHub Apps.
    pub apps: BTreeMap<AccountName, AppView>,
    /// Our sandboxes.
    pub fleet: Fleet,
    /// What Modal's workspace may use, and uses.
    pub quota: QuotaView,
    /// Creates that are being carried out.
    pub in_flight: BTreeMap<OurName, Creating>,
    /// The image of each class.
    pub images: BTreeMap<ClassName, ImageState>,
    /// The runner that is in the image of a class, where that is known.
    pub runners_in_use: BTreeMap<ClassName, RunnerVersion>,
    /// Classes whose image is an earlier one than is wanted.
    pub overdue: BTreeMap<ClassName, Overdue>,
    /// When images that Sandrunner puts the runner into were last made anew for a newer one.
    pub renewed_at: BTreeMap<ImageSource, DateTime<Utc>>,
    /// Images of registries that were made anew because GitHub refuses the runner in them.
    pub rebuilds: BTreeMap<ImageSource, Rebuilds>,
    /// What GitHub says of the runner's releases.
    pub releases: BTreeMap<AccountName, ReleaseView>,
    /// What the limiters would let start.
    pub admission: Admission,
    /// What Modal takes for sandboxes.
    pub rates: RatesView,
    /// What was spent today.
    pub spend: cost::Spend,
    /// How far the times that services state are ahead of ours.
    pub skew: TimeDelta,
    /// What the operator holds back.
    pub pauses: Pauses,
}

impl Observed {
    /// Knows a repository, and nothing of it.
    pub fn add(&mut self, scope: Scope, registry: Registry) {
        self.registries.entry(registry.clone()).or_default();
        self.repos.entry(scope).or_insert_with(|| RepoView::new(registry));
    }

    /// Where the runners of a repository are registered; none where it is not known.
    pub fn registry(&self, scope: &Scope) -> Option<(&Registry, &RegistryView)> {
        self.registries.get_key_value(&self.repos.get(scope)?.registry)
    }

    /// The repositories whose runners are registered there.
    pub fn repos_of<'a>(&'a self, registry: &'a Registry) -> impl Iterator<Item = (&'a Scope, &'a RepoView)> {
        let (one, several) = match registry {
            Registry::Repo(scope) => (self.repos.get_key_value(scope), None),
            Registry::Org(_) => (None, Some(self.repos.iter().filter(move |(_, repo)| repo.registry == *registry))),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

/// The runners that are registered in one place.
#[derive(Debug, Clone, Default)]
pub struct RegistryView {
    /// Those that are ours.
    pub runners: BTreeMap<OurName, Runner>,
    /// Those that the last list lacked and one before it showed, with when that was answered: believed gone when a list a
    /// minute later agrees (design rule B).
    pub missing: BTreeMap<OurName, (Runner, DateTime<Utc>)>,
    /// How many are not ours.
    pub foreign_runners: usize,
    /// How they were read.
    pub runners_read: ReadState,
    /// When a list first lacked a registration of ours that the one before had shown unconnected: lists flap, so that a
    /// further one has to agree.
    pub lacked_at: Option<DateTime<Utc>>,
    /// In an organization: the runner group that new runners join; none where there is none of that name or id.
    pub group: Option<RunnerGroup>,
    /// How it was read.
    pub group_read: ReadState,
}

/// A runner group of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerGroup {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whose jobs its runners take.
    pub admits: AdmittedRepos,
    /// Whether public repositories are among them.
    pub allows_public: bool,
    /// Which of their workflows.
    pub workflows: AdmittedWorkflows,
}

/// Whose jobs the runners of a group take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmittedRepos {
    /// Those of all repositories, or GitHub does not say.
    All,
    /// Those of private ones.
    Private,
    /// Those of some.
    Selected(BTreeSet<RepoName>),
}

/// What is known of one repository.
#[derive(Debug, Clone)]
pub struct RepoView {
    /// Where its runners are registered.
    pub registry: Registry,
    /// Its runs that are not completed.
    pub runs: BTreeMap<RunId, RunView>,
    /// How its run list was read.
    pub runs_read: ReadState,
    /// When it was last seen to have an active run.
    pub active_at: Option<DateTime<Utc>>,
    /// When all pages that hold active runs were last read.
    pub deep_read_at: Option<DateTime<Utc>>,
    /// Whether its runs go back so far that nothing older can be re-run, or the list's end was read.
    pub reaches_back: ReachesBack,
    /// How the filtered lists were swept, where that is needed.
    pub swept: ReadState,
    /// The same of statuses that old runs seldom show.
    pub swept_rare: ReadState,
    /// How often new runs come.
    pub activity: Activity,
    /// Runs that somebody said have changed.
    pub hints: Hints,
    /// What GitHub says of the repository itself; none where that is not known yet.
    pub facts: Option<RepoFacts>,
    /// How that was read.
    pub facts_read: ReadState,
    /// Since when lists lack it that should show it.
    pub unlisted_since: Option<DateTime<Utc>>,
    /// Since when a second list agrees with that, or another account serves it.
    pub gone_since: Option<DateTime<Utc>>,
}

impl RepoView {
    /// Nothing is known.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            runs: BTreeMap::new(),
            runs_read: ReadState::default(),
            active_at: None,
            deep_read_at: None,
            reaches_back: ReachesBack::Unknown,
            swept: ReadState::default(),
            swept_rare: ReadState::default(),
            activity: Activity::default(),
            hints: Hints::default(),
            facts: None,
            facts_read: ReadState::default(),
            unlisted_since: None,
            gone_since: None,
        }
    }

    /// Why the repository is looked at seldom, where it is.
    pub fn pause(&self, name: &RepoName) -> Option<Pause> {
        let facts = self.facts.as_ref();
        let renamed = facts.filter(|facts| facts.name != *name).map(|facts| Pause::Renamed(facts.name.clone()));
        renamed.or_else(|| match facts {
            _ if self.gone_since.is_some() => Some(Pause::Gone),
            Some(facts) if facts.is_disabled => Some(Pause::Disabled),
            Some(facts) if facts.is_archived => Some(Pause::Archived),
            Some(_) | None => None,
        })
    }
}

impl Observed {
    /// The repositories that are looked at as often as they should be.
    pub fn served(&self) -> impl Iterator<Item = (&Scope, &RepoView)> {
        self.repos.iter().filter(|(scope, repo)| repo.pause(&scope.repo).is_none())
    }
}

/// Whether the pages that were read hold every run that could become active again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReachesBack {
    /// The list was not read.
    #[default]
    Unknown,
    /// The list's end was read, or a run older than GitHub's limit for re-runs.
    Enough,
    /// Older runs may be re-run unseen; the slow sweep looks for them.
    NotEnough,
}

/// What a reading shows is from between these two times: the request may have waited before it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTimes {
    /// When it was asked for. It shows nothing older.
    pub began: DateTime<Utc>,
    /// When its answer was there. It shows nothing newer.
    pub answered: DateTime<Utc>,
}

/// When something was read, and what went wrong since.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadState {
    /// When the last complete reading began.
    pub known_at: Option<DateTime<Utc>>,
    /// When its answer was there: what it shows may be as new as that.
    pub answered_at: Option<DateTime<Utc>>,
    /// When the last attempt began.
    pub tried_at: Option<DateTime<Utc>>,
    /// Why the last attempt was not complete.
    pub failure: Option<CallFailure>,
    /// Incomplete attempts in a row that failed for the same kind of reason.
    pub failures: u32,
}

impl ReadState {
    /// Notes a complete reading that took no time.
    pub fn succeeded(&mut self, at: DateTime<Utc>) {
        self.answered(ReadTimes { began: at, answered: at });
    }

    /// Notes a complete reading.
    pub fn answered(&mut self, ReadTimes { began, answered }: ReadTimes) {
        *self = Self {
            known_at: Some(began),
            answered_at: Some(answered),
            tried_at: Some(began),
            failure: None,
            failures: 0,
        };
    }

    /// Between which times the last complete reading was made.
    pub fn times(&self) -> Option<ReadTimes> {
        Some(ReadTimes { began: self.known_at?, answered: self.answered_at? })
    }

    /// Whether it last failed for a reason that a person must remove.
    pub fn is_refused(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| retry::read_growth(failure.class) == retry::REFUSED)
    }

    /// What was refused beside it is answered again: where it was refused, it is tried as after a first refusal.
    pub fn resume(&mut self) {
        if self.is_refused() {
            self.failures = 1;
        }
    }

    /// Notes an attempt that began at `at` and is not complete.
    pub fn failed(&mut self, at: DateTime<Utc>, failure: CallFailure) {
        let kind = |failure: &CallFailure| retry::read_growth(failure.class);
        let is_alike = self.failure.as_ref().is_some_and(|before| kind(before) == kind(&failure));
        self.failures = if is_alike { self.failures.saturating_add(1) } else { 1 };
        self.tried_at = Some(at);
        self.failure = Some(failure);
    }
}

/// An active run with its jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunView {
    /// The run as last listed.
    pub run: WorkflowRun,
    /// When it was first listed.
    pub first_listed_at: DateTime<Utc>,
    /// When a list first showed it as it is.
    pub changed_at: DateTime<Utc>,
    /// When it was last listed.
    pub listed_at: DateTime<Utc>,
    /// When it was last looked up by its id.
    pub asked_at: Option<DateTime<Utc>>,
    /// When it was first not found: believed when that is so a minute later.
    pub gone_at: Option<DateTime<Utc>>,
    /// The jobs of its newest attempt.
    pub jobs: BTreeMap<JobId, WorkflowJob>,
    /// How its jobs were read.
    pub jobs_read: ReadState,
    /// Whether something changed since its jobs were read, so that they are read at once.
    pub needs_jobs: NeedsJobs,
    /// When its jobs were first read as an empty list although there were some: believed when read again.
    pub emptied_at: Option<DateTime<Utc>>,
    /// Jobs that a reading showed which was not complete, and when it began; nothing after a complete one.
    pub partly_read: BTreeMap<JobId, DateTime<Utc>>,
}

impl RunView {
    /// When the newest reading began that showed a job.
    pub fn job_read_at(&self, job: JobId) -> Option<DateTime<Utc>> {
        self.partly_read.get(&job).copied().or(self.jobs_read.known_at)
    }
}

/// Why the jobs of a run are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedsJobs {
    /// It is new, or it shows signs of a new queued job.
    Now,
    /// A queued job of it may have been taken.
    Soon,
    /// It is read again in its turn.
    InTurn,
}

/// For what a sandbox was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where its runner is registered.
    pub scope: Scope,
    /// The run of the job that caused it.
    pub run: RunId,
    /// Its class.
    pub class: ClassName,
    /// The label set of its runner.
    pub group: Fingerprint,
    /// What it was asked for on.
    #[serde(default, skip_serializing_if = "Machine::is_any")]
    pub machine: Machine,
}

/// Our sandboxes.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// How Modal's list was read.
    pub read: ReadState,
    /// Every sandbox of ours that was seen, ended ones for some minutes longer.
    pub sandboxes: BTreeMap<OurName, OurSandbox>,
    /// The one that had a name before the one in `sandboxes`, ended, for as long: Modal may carry a create out twice, and
    /// either may have served.
    pub replaced: BTreeMap<OurName, OurSandbox>,
    /// Names that may have a sandbox that was not seen.
    pub unsure: BTreeMap<OurName, Creating>,
    /// Sandboxes with our deployment's tag that cannot be read, with their GPUs: counted, never touched.
    pub unreadable: BTreeMap<SandboxId, u32>,
    /// How Modal's list of ended sandboxes was read.
    pub ended_read: ReadState,
    /// Secrets of sandboxes that ended lately: a process that was killed meanwhile did not see their end.
    pub ended_secrets: BTreeMap<SecretId, EndedSecret>,
    /// What the last such list showed, until it is accounted.
    pub ended: Vec<EndedSandbox>,
}

/// A Secret of a sandbox that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSecret {
    /// The name of the sandbox.
    pub name: OurName,
    /// When the sandbox was created, by Modal's clock.
    pub created_at: DateTime<Utc>,
}

/// A create that may have made a sandbox that was not seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creating {
    /// For what.
    pub origin: Origin,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When its name was last looked up.
    pub asked_at: Option<DateTime<Utc>>,
}

/// A sandbox of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct OurSandbox {
    /// Its id.
    pub id: SandboxId,
    /// For what it was made.
    pub origin: Origin,
    /// When it was created, by Modal's clock.
    pub created_at: DateTime<Utc>,
    /// Whether it was placed on a machine.
    pub is_scheduled: bool,
    /// Since when a list shows that, by our clock: it may have waited long.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When it started to run, by Modal's clock.
    pub started_at: Option<DateTime<Utc>>,
    /// The Secret that holds its JIT config, where it needed one.
    pub secret: Option<SecretId>,
    /// The registration that it was made with.
    pub runner: Option<RunnerId>,
    /// What it was made from: no longer the image of its class where that was made anew since.
    pub image: Option<ImageId>,
    /// What runs it, where Modal has said so.
    pub task: Option<TaskId>,
    /// Its resources, as far as they were listed.
    pub resources: Resources,
    /// When it was last seen alive.
    pub seen_at: DateTime<Utc>,
    /// Since when lists lack it, without proof of its end.
    pub missing_since: Option<DateTime<Utc>>,
    /// When it was last looked up by its id.
    pub asked_at: Option<DateTime<Utc>>,
    /// Since when Modal says that it does not know it, without proof of its end.
    pub unknown_since: Option<DateTime<Utc>>,
    /// Its end.
    pub ended: Option<Ended>,
}

impl OurSandbox {
    /// Whether it is known to have been placed on a machine: a list has shown that, or its end does. One that was placed
    /// and ended between two lists is seen without a machine to the last.
    pub fn was_placed(&self) -> bool {
        let result = self.ended.as_ref().and_then(|ended| ended.result.as_ref());
        self.is_scheduled || result.is_some_and(|result| result.status.needs_machine())
    }

    /// When it was created by our clock, which Modal's is ahead of by `skew`.
    pub fn created(&self, skew: TimeDelta) -> DateTime<Utc> {
        self.created_at - skew
    }

    /// When it started by our clock; where Modal does not say, when it was placed, or created.
    pub fn started(&self, skew: TimeDelta) -> DateTime<Utc> {
        let started = self.started_at.map(|at| at - skew).or(self.scheduled_at);
        started.unwrap_or_else(|| self.created(skew))
    }
}

/// The end of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When we learned of it.
    pub at: DateTime<Utc>,
    /// How it ended; none where Modal no longer knows it.
    pub result: Option<SandboxResult>,
}

/// What the limiters would let start in this pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Mints per credential, and when the next one is admitted.
    pub mints: BTreeMap<CredentialName, Allowance>,
    /// Creates that Modal's rate allows.
    pub creates: Allowance,
}

/// A number of actions that may start now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How many.
    pub now: u32,
    /// When the next one may start, where none may now.
    pub next: Option<DateTime<Utc>>,
}
