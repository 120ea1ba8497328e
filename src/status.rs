//! What the controller knows and does, as one document for programs and people.

mod coverage;
mod github;
mod modal;
mod recent;
mod spend;
mod timeline;

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::class::RunnerClass;
use crate::error::ErrorClass;
use crate::evidence::Evidence;
use crate::github::CredentialState;
use crate::ids::{ClassName, CredentialName, JobId, RepoName, RunId};
use crate::observe::View;
use crate::pause::Pause;
use crate::plan::{Action, Plan, Policy, SandboxState, state_of};
use crate::poll::{self, Shortfall};
use crate::state::ImageState;

pub use coverage::Coverage;
pub(crate) use coverage::coverage;
pub use modal::ModalStatus;

pub use github::{AccountStatus, CredentialKind, InstallationStatus, OrganizationStatus, RunnerGroupStatus};
pub use spend::{ClassSpend, SpendStatus};
pub use timeline::{Point, Timeline};

/// The most jobs that are listed one by one; the counts are always whole.
const JOBS_MAX: usize = 500;

/// The answer of `/api/v1/status`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The version of this program.
    pub version: &'static str,
    /// The time of the answer.
    pub now: DateTime<Utc>,
    /// Whether Modal and every reachable repository have been read.
    pub coverage: Coverage,
    /// The last pass.
    pub last_pass: Option<PassStatus>,
    /// What the operator holds back.
    pub pauses: Vec<Pause>,
    /// Sandboxes that live or are asked for, and how many may.
    pub sandboxes: SandboxesStatus,
    /// Per class.
    pub classes: BTreeMap<ClassName, ClassStatus>,
    /// Per repository and class, where there is or was anything.
    pub groups: Vec<GroupStatus>,
    /// How many queued jobs got nothing in the last pass, by reason.
    pub skipped: BTreeMap<&'static str, u32>,
    /// The first of them.
    pub jobs: Vec<JobStatus>,
    /// What the last pass planned.
    pub planned: Vec<String>,
    /// What the last actions came to, newest last.
    pub recent: Vec<RecentAction>,
    /// From queued to started, of the last jobs that our runners took.
    pub pickup_seconds: PickupStatus,
    /// Repositories that are looked at seldom, and why: archived, renamed, gone, hidden, or refused.
    pub paused: BTreeMap<RepoName, String>,
    /// What Modal's workspace may use, and uses.
    pub modal: ModalStatus,
    /// GitHub accounts.
    pub accounts: Vec<AccountStatus>,
    /// Organizations in which runners are registered.
    pub organizations: Vec<OrganizationStatus>,
    /// Owners whose repositories are listed for a pattern.
    pub owners: Vec<OwnerStatus>,
    /// How GitHub's credentials fare.
    pub credentials: Vec<CredentialStatus>,
    /// What is left of GitHub's limits.
    pub budgets: Vec<BudgetStatus>,
    /// What was spent today, and how much may be.
    pub spend: SpendStatus,
    /// How often old runs are looked for, in seconds.
    pub sweep_interval_seconds: i64,
}

/// One pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PassStatus {
    /// When it began.
    pub at: DateTime<Utc>,
    /// How long it took.
    pub seconds: f64,
}

/// How many sandboxes there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SandboxesStatus {
    /// Those that live or are asked for.
    pub live: u32,
    /// `limits.max_sandboxes`.
    pub limit: u32,
}

/// What keeps a class from creates, because its runners did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerStatus {
    /// What happened last.
    pub reason: String,
    /// How often in a row.
    pub failures: u32,
    /// When the next one is tried.
    pub again_at: DateTime<Utc>,
}

/// What an action came to.
#[derive(Debug, Clone, Serialize)]
pub struct RecentAction {
    /// When that was known.
    pub at: DateTime<Utc>,
    /// The action with its result.
    pub text: String,
    /// What it rests on.
    pub evidence: String,
}

/// Quantiles of the time from queued to started.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PickupStatus {
    /// How many jobs they rest on.
    pub jobs: usize,
    /// Half started within this time.
    pub p50: Option<f64>,
    /// 95 % started within this time.
    pub p95: Option<f64>,
}

/// One repository and class.
#[derive(Debug, Clone, Serialize)]
pub struct GroupStatus {
    /// The repository.
    pub repo: RepoName,
    /// The class.
    pub class: ClassName,
    /// Queued jobs.
    pub queued: u32,
    /// Sandboxes on their way: asked for, not placed, or without their runner online.
    pub starting: u32,
    /// Sandboxes whose runner waits.
    pub idle: u32,
    /// Sandboxes whose runner has a job.
    pub claimed: u32,
    /// Sandboxes that ended after a job, since the start.
    pub served: u64,
}

/// One class.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ClassStatus {
    /// Queued jobs.
    pub queued: u32,
    /// Age of the oldest of them, in seconds.
    pub oldest_queued_seconds: Option<i64>,
    /// Living sandboxes per state.
    pub sandboxes: BTreeMap<SandboxState, u32>,
    /// Its `max_sandboxes`.
    pub limit: Option<u32>,
    /// What keeps it from creates, where its runners did not start.
    pub breaker: Option<BreakerStatus>,
    /// The state of its image.
    pub image: Option<String>,
    /// Why that is an earlier one than is wanted, and when the wanted one is asked for again.
    pub image_overdue: Option<OverdueStatus>,
    /// The machine that its next sandbox is asked for on, where it has a GPU.
    pub machine: Option<String>,
    /// Machines of its that Modal is short of, and when each is tried again.
    pub short_of: BTreeMap<String, DateTime<Utc>>,
}

/// A class is served with an earlier image than is wanted.
#[derive(Debug, Clone, Serialize)]
pub struct OverdueStatus {
    /// Why, with the end of the build's log.
    pub why: String,
    /// When the wanted one is asked for again.
    pub again_at: DateTime<Utc>,
}

/// A queued job that got nothing in the last pass.
#[derive(Debug, Clone, Serialize)]
pub struct JobStatus {
    /// Its repository.
    pub repo: RepoName,
    /// Its run.
    pub run_id: RunId,
    /// Its id.
    pub job_id: JobId,
    /// Its class.
    pub class: Option<ClassName>,
    /// Why, as a word.
    pub reason: &'static str,
    /// Why, for people.
    pub text: String,
    /// When it is looked at again.
    pub again_at: DateTime<Utc>,
    /// Since when it is known to be queued.
    pub queued_since: Option<DateTime<Utc>>,
}

/// An owner whose repositories are listed.
#[derive(Debug, Clone, Serialize)]
pub struct OwnerStatus {
    /// The account and the owner.
    pub owner: String,
    /// How many of its repositories are served.
    pub served: usize,
    /// When they were last listed.
    pub known_at: Option<DateTime<Utc>>,
    /// Why they cannot be listed.
    pub problem: Option<String>,
}

/// One credential.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialStatus {
    /// Its name.
    pub credential: CredentialName,
    /// How many run lists it reads.
    pub repositories: usize,
    /// Why they are read more seldom than `reconcile.max_interval` says, where they are too many for that.
    pub interval_problem: Option<String>,
    /// When its token ends, where that is known.
    pub token_ends: Option<DateTime<Utc>>,
    /// Until when nothing is sent with it.
    pub held_until: Option<DateTime<Utc>>,
    /// What last went wrong with it.
    pub last_failure: Option<String>,
    /// When that was.
    pub failed_at: Option<DateTime<Utc>>,
    /// Whether the installation is suspended, where it is one of a GitHub App.
    pub is_suspended: Option<bool>,
}

/// One quota of one credential.
#[derive(Debug, Clone, Serialize)]
pub struct BudgetStatus {
    /// The credential.
    pub credential: CredentialName,
    /// GitHub's name of the quota.
    pub resource: String,
    /// Requests per hour.
    pub limit: u32,
    /// What is left.
    pub remaining: u32,
    /// When it is full again.
    pub reset: DateTime<Utc>,
    /// Until when GitHub asked us to send nothing.
    pub held_until: Option<DateTime<Utc>>,
}

/// What a status is made from.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What was observed.
    pub view: &'a View,
    /// What was learned.
    pub evidence: &'a Evidence,
    /// The last plan.
    pub plan: &'a Plan,
    /// The rules.
    pub policy: &'a Policy,
    /// The last actions.
    pub recent: &'a VecDeque<RecentAction>,
    /// The last times from queued to started, in seconds.
    pub pickups: &'a VecDeque<f64>,
    /// The last pass.
    pub last_pass: Option<PassStatus>,
}

impl Status {
    /// Describes what is known now and what the last pass planned.
    pub fn new(subject: &Subject<'_>, now: DateTime<Utc>) -> Self {
        let Subject { view, evidence, plan, policy, recent, pickups, last_pass } = *subject;
        let mut skipped = BTreeMap::new();
        for skip in &plan.skips {
            *skipped.entry(skip.reason.as_str()).or_default() += 1;
        }
        let jobs = plan.skips.iter().take(JOBS_MAX).map(|skip| JobStatus {
            repo: skip.scope.repo.clone(),
            run_id: skip.run,
            job_id: skip.job,
            class: skip.class.clone(),
            reason: skip.reason.as_str(),
            text: skip.reason.to_string(),
            again_at: skip.again_at,
            queued_since: evidence.jobs.get(&skip.job).map(|job| job.first_queued),
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now,
            coverage: coverage(view),
            last_pass,
            pauses: view.observed.pauses.all(),
            sandboxes: SandboxesStatus { live: live(plan), limit: policy.limits.sandboxes },
            classes: policy
                .classes
                .iter()
                .map(|class| (class.name.clone(), class_status(class, subject, now)))
                .collect(),
            skipped,
            jobs: jobs.collect(),
            planned: plan.actions.iter().take(JOBS_MAX).map(Action::to_string).collect(),
            groups: groups(subject, now),
            recent: recent.iter().cloned().collect(),
            pickup_seconds: quantiles(pickups),
            paused: paused(view),
            modal: modal::quota(view, now),
            accounts: github::accounts(view, policy),
            organizations: github::organizations(view, plan, policy),
            owners: owners(view),
            credentials: credentials(view, policy),
            budgets: budgets(view, now),
            spend: SpendStatus::new(&view.observed, policy),
            sweep_interval_seconds: sweep_interval(view, now).num_seconds(),
        }
    }
}

/// How many sandboxes live or are asked for.
pub(crate) fn live(plan: &Plan) -> u32 {
    plan.tally.values().flat_map(|tally| tally.sandboxes.values()).sum()
}

fn breaker(class: &ClassName, subject: &Subject<'_>) -> Option<BreakerStatus> {
    let image = subject.view.observed.images.get(class).and_then(ImageState::id);
    let breaker = subject.evidence.breaker_of_class(class, image)?;
    Some(BreakerStatus { reason: breaker.reason.clone(), failures: breaker.failures, again_at: breaker.again_at()? })
}

/// The longest of any account.
fn sweep_interval(view: &View, now: DateTime<Utc>) -> TimeDelta {
    let intervals = poll::sweep_intervals(&view.observed, &view.readers().policy, &view.capacities(now));
    intervals.into_values().max().unwrap_or_default()
}

fn class_status(class: &RunnerClass, subject: &Subject<'_>, now: DateTime<Utc>) -> ClassStatus {
    let Subject { view, evidence, plan, .. } = *subject;
    let tally = plan.tally.get(&class.name);
    let (machine, short_of) = modal::machines(class, evidence, now);
    ClassStatus {
        machine,
        short_of,
        limit: class.max_sandboxes,
        breaker: breaker(&class.name, subject),
        queued: tally.map_or(0, |tally| tally.queued.values().sum()),
        oldest_queued_seconds: tally.and_then(|tally| tally.oldest_queued).map(|since| (now - since).num_seconds()),
        sandboxes: tally.map(|tally| tally.sandboxes.clone()).unwrap_or_default(),
        image: view.observed.images.get(&class.name).map(|image| match image {
            ImageState::Building { .. } => "building".to_owned(),
            ImageState::Ready(id) => id.to_string(),
            ImageState::Failed { message, .. } => format!("failed: {message}"),
        }),
        image_overdue: view
            .observed
            .overdue
            .get(&class.name)
            .map(|late| OverdueStatus { why: late.why.to_string(), again_at: late.again_at }),
    }
}

fn paused(view: &View) -> BTreeMap<RepoName, String> {
    let told = view.observed.repos.iter().filter_map(|(scope, repo)| {
        let refused = || {
            let failure = repo.runs_read.failure.as_ref()?;
            let is_lasting = matches!(failure.class, ErrorClass::Policy | ErrorClass::NotFound | ErrorClass::Forbidden);
            is_lasting.then(|| failure.message.clone())
        };
        let why = repo.pause(&scope.repo).map(|pause| pause.to_string()).or_else(refused)?;
        Some((scope.repo.clone(), why))
    });
    told.collect()
}

fn owners(view: &View) -> Vec<OwnerStatus> {
    let told = view.observed.owners.iter().map(|(owner, known)| OwnerStatus {
        owner: owner.to_string(),
        served: known.served.len(),
        known_at: known.read.known_at,
        problem: known.read.failure.as_ref().map(|failure| failure.message.clone()),
    });
    told.collect()
}

fn credentials(view: &View, policy: &Policy) -> Vec<CredentialStatus> {
    let lists = poll::lists_of(&view.observed, policy);
    let shortfalls = poll::shortfalls(&lists, policy, &view.planned_capacities());
    let told = view.readers().all_github().map(|reader| {
        let CredentialState { last_failure, held_until, token_ends } = reader.state();
        let credential = reader.credential().clone();
        let app = view.observed.apps.get(credential.account());
        let installed = credential.owner().and_then(|owner| app?.installed.get(owner));
        let (failed_at, last_failure) = last_failure.unzip();
        let is_suspended = installed.map(|installed| installed.is_suspended);
        CredentialStatus {
            repositories: lists.get(&credential).copied().unwrap_or(0),
            interval_problem: shortfalls.get(&credential).map(|shortfall| interval_problem(*shortfall, policy)),
            credential,
            token_ends,
            held_until,
            last_failure,
            failed_at,
            is_suspended,
        }
    });
    told.collect()
}

fn interval_problem(Shortfall { lists, least }: Shortfall, policy: &Policy) -> String {
    let text = |duration| humantime::format_duration(duration);
    format!(
        "reconcile.max_interval = {} is too short for {lists} repositories: they can be read within {}. Raise it, or \
         points_per_minute, or narrow allowed_repos",
        text(policy.max_interval),
        text(least.to_std().unwrap_or_default())
    )
}

fn budgets(view: &View, now: DateTime<Utc>) -> Vec<BudgetStatus> {
    let mut all = Vec::new();
    for reader in view.readers().all_github() {
        let budget = reader.budget();
        let budget = budget.lock().expect("no holder of the budget panics");
        all.extend(budget.primary().map(|quota| BudgetStatus {
            credential: reader.credential().clone(),
            resource: quota.resource.clone(),
            limit: quota.limit,
            remaining: quota.remaining,
            reset: quota.reset,
            held_until: budget.held_until(now),
        }));
    }
    all
}

fn groups(subject: &Subject<'_>, now: DateTime<Utc>) -> Vec<GroupStatus> {
    let Subject { view, evidence, plan, policy, .. } = *subject;
    let mut groups: BTreeMap<(RepoName, ClassName), GroupStatus> = BTreeMap::new();
    let mut group = |repo: &RepoName, class: &ClassName, change: &dyn Fn(&mut GroupStatus)| {
        let empty = GroupStatus {
            repo: repo.clone(),
            class: class.clone(),
            queued: 0,
            starting: 0,
            idle: 0,
            claimed: 0,
            served: 0,
        };
        change(groups.entry((repo.clone(), class.clone())).or_insert(empty));
    };
    for (class, tally) in &plan.tally {
        for (repo, queued) in &tally.queued {
            group(repo, class, &|status| status.queued += queued);
        }
    }
    for (name, sandbox) in view.observed.fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()) {
        let clocks = policy.class(&sandbox.origin.class).map(|class| &class.clocks);
        let state = state_of(sandbox, evidence.names.get(name), clocks, view.observed.skew, now);
        group(&sandbox.origin.scope.repo, &sandbox.origin.class, &|status| match state {
            SandboxState::Creating | SandboxState::Unscheduled | SandboxState::Starting => status.starting += 1,
            SandboxState::Idle => status.idle += 1,
            SandboxState::Claimed => status.claimed += 1,
            SandboxState::Failed | SandboxState::Ending => {}
        });
    }
    for creating in view.observed.in_flight.values() {
        group(&creating.origin.scope.repo, &creating.origin.class, &|status| status.starting += 1);
    }
    for ((scope, class), served) in &evidence.served {
        group(&scope.repo, class, &|status| status.served += served);
    }
    groups.into_values().collect()
}

fn quantiles(seconds: &VecDeque<f64>) -> PickupStatus {
    let mut sorted: Vec<f64> = seconds.iter().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    PickupStatus { jobs: sorted.len(), p50: at(50), p95: at(95) }
}
