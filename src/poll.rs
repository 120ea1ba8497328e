//! What to read next (pure).
//!
//! [`due`] looks at the age of everything known and lists the readings that are due, most urgent first. How
//! many of them start is up to the budgets. Nothing is remembered here: a reading that did not start is due
//! again in the next pass.

mod directory;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::budget::Purpose;
use crate::evidence::{Evidence, NameEvidence, end_reason};
use crate::ids::{AccountName, CredentialName, OurName, RunId, SandboxId};
use crate::mutant::{self, Mutant};
use crate::plan::{LISTS_LAG, Policy};
use crate::retry;
use crate::runner::Exit;
use crate::state::{
    Connection, JobStatus, NeedsJobs, Observed, Org, OurSandbox, Owner, ReachesBack, ReadState, Registry, RegistryView,
    RepoView, RunStatus, RunView, Scope, WorkflowJob,
};

/// How often the jobs of a run are read while some of them have a runner and others wait for those to be
/// claimed.
const GROWING_AGAIN: TimeDelta = TimeDelta::seconds(20);
/// How often the jobs of a run are read while all that are queued have a runner.
const UNCLAIMED_AGAIN: TimeDelta = TimeDelta::seconds(45);
/// How often the jobs of a run are read in which nothing waits for us.
const RUNNING_AGAIN: TimeDelta = TimeDelta::seconds(120);
/// New jobs come where jobs were: for this long a repository is read twice per interval, where there is room.
const STAYS_ACTIVE: TimeDelta = TimeDelta::minutes(10);
/// A repository is not read more often than this, however much GitHub tells of it.
const NUDGES_APART: TimeDelta = TimeDelta::seconds(1);
/// How often all pages with active runs are read, not only those with new ones.
const DEEP_AGAIN: TimeDelta = TimeDelta::seconds(60);
/// How often a run is read by its id when the list's pages do not show it.
const UNLISTED_AGAIN: TimeDelta = TimeDelta::seconds(120);
/// A run that shows no job, or says queued and shows no queued job, is read again after a fifth of the time
/// since it changed, between these bounds: its jobs lag behind, or it is a ghost (GitHub: runs that stay
/// queued for months). One with completed jobs only, or with queued ones beside for which runners waited in
/// vain, is read ever less in the same way, but not more often than others: the change that would make it
/// worth while shows in the run itself.
const JOBLESS_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::seconds(3), TimeDelta::hours(1));
/// How often runners are read while one of ours is not known to be claimed.
const RUNNERS_AGAIN: TimeDelta = TimeDelta::seconds(60);
/// A registration that a failed create left appears in lists within this time: they lag, and GitHub may still
/// carry out a request that it answered with an error.
const LEFTOVER_APPEARS: TimeDelta = TimeDelta::minutes(2);
/// How often runners are read for leftovers.
const LEFTOVERS_AGAIN: TimeDelta = TimeDelta::hours(1);
/// How often the runner group of an organization is looked at.
const GROUP_AGAIN: TimeDelta = TimeDelta::hours(1);
/// How long the turn of a repository lasts whose runners were never read; each has one in every such hour.
const LEFTOVERS_TURN: TimeDelta = TimeDelta::minutes(5);
/// How long a new sandbox may be missing from lists before it is looked up by its id.
const NEW_SANDBOX: TimeDelta = TimeDelta::seconds(20);
/// How often a sandbox that lists lack is looked up, and a name that may have one.
const CONFIRM_AGAIN: TimeDelta = TimeDelta::seconds(10);
/// How often ended sandboxes are listed.
const ENDED_AGAIN: TimeDelta = TimeDelta::minutes(10);
/// How often the runs of a repository are listed that cannot have new ones.
const PAUSED_AGAIN: TimeDelta = TimeDelta::minutes(15);
/// Statuses that the sweep asks for: an old run that is re-run or approved shows one of them.
pub const SWEPT: [RunStatus; 2] = [RunStatus::Queued, RunStatus::Waiting];
/// The bounds of the sweep's interval.
const SWEEP_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(10), TimeDelta::hours(6));
/// The part of an account's points that sweeps may use.
const SWEEP_SHARE: f64 = 0.05;
/// A run list this many intervals old goes before everything else of its account.
const NEGLECTED_INTERVALS: i32 = 3;

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// Modal's list of our sandboxes.
    Fleet,
    /// Modal's list of our sandboxes that ended lately.
    Ended,
    /// A sandbox by its id.
    Sandbox(OurName, SandboxId),
    /// A sandbox by its name.
    Named(OurName),
    /// Where an account's GitHub App is installed.
    Installations(AccountName),
    /// The repositories of an owner.
    Directory(Owner),
    /// What GitHub says of a repository.
    Repo(Scope),
    /// The run list of a repository.
    Runs(Scope, Depth),
    /// A run by its id.
    Run(Scope, RunId),
    /// The jobs of a run.
    Jobs(Scope, RunId),
    /// The runners that are registered in one place.
    Runners(Registry),
    /// The runner group of an organization that new runners join.
    Group(Org),
    /// The runs of a repository with one of the statuses [`SWEPT`].
    Sweep(Scope),
}

/// How far a run list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// While pages hold new active runs.
    New,
    /// While pages hold active runs.
    Active,
}

impl Read {
    /// Whose budget it is charged to; none where it goes to Modal.
    pub fn credential(&self, policy: &Policy) -> Option<CredentialName> {
        match self {
            Self::Fleet | Self::Ended | Self::Sandbox(..) | Self::Named(_) => None,
            Self::Installations(account) => Some(CredentialName::of_account(account.clone())),
            Self::Directory(owner) => Some(policy.credential_at(&owner.account, &owner.login)),
            Self::Repo(scope)
            | Self::Runs(scope, _)
            | Self::Run(scope, _)
            | Self::Jobs(scope, _)
            | Self::Sweep(scope) => Some(policy.credential(scope)),
            Self::Runners(registry) => Some(policy.credential_of(registry)),
            Self::Group(org) => Some(policy.credential_at(&org.account, org.name.as_str())),
        }
    }

    /// What identifies it among the readings under way: two depths of one list are one.
    #[must_use]
    pub fn key(&self) -> Self {
        match self {
            Self::Runs(scope, _) => Self::Runs(scope.clone(), Depth::New),
            Self::Fleet
            | Self::Ended
            | Self::Sandbox(..)
            | Self::Named(_)
            | Self::Installations(_)
            | Self::Directory(_)
            | Self::Repo(_)
            | Self::Run(..)
            | Self::Jobs(..)
            | Self::Runners(_)
            | Self::Group(_)
            | Self::Sweep(_) => self.clone(),
        }
    }
}

/// A reading that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What to read.
    pub read: Read,
    /// What it is charged as.
    pub purpose: Purpose,
    rank: Rank,
    since: DateTime<Utc>,
}

impl Due {
    /// Whether it goes before everything else: it costs GitHub nothing.
    pub fn is_urgent(&self) -> bool {
        self.rank == Rank::Modal
    }
}

/// What goes first where not everything can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Modal,
    Directory,
    FirstJobs,
    Neglected,
    Runs,
    Jobs,
    Runners,
    Sweep,
    Facts,
    Early,
}

/// How often what is known of a run is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As often as others.
    Usual,
    /// Ever less: nothing of it moves.
    Slowing,
}

/// Everything that is due, most urgent first.
pub fn due(
    observed: &Observed,
    evidence: &Evidence,
    policy: &Policy,
    points_per_minute: f64,
    now: DateTime<Utc>,
) -> Vec<Due> {
    let mut all = Schedule { due: Vec::new(), now, interval: delta(policy.interval) };
    all.fleet(observed, evidence);
    all.ended(observed, policy);
    all.directories(observed, policy);
    all.facts(observed, policy);
    let sweep = sweep_interval(observed, points_per_minute);
    let unsettled = unsettled(observed, evidence);
    let (fences, trials) = (fences(observed, evidence), trials(observed, evidence));
    for (scope, repo) in &observed.repos {
        let fence = fences.get(&repo.registry).copied();
        for run in repo.runs.values() {
            let pace = if is_stuck(run, trials.get(&(scope, run.run.id)).copied(), evidence) {
                Pace::Slowing
            } else {
                Pace::Usual
            };
            all.run(scope, run, pace);
            all.jobs(scope, run, fence, (pace, evidence));
        }
        all.runs(scope, repo);
        all.sweep(scope, repo, sweep);
    }
    let wanting = wanting(observed);
    for (index, (registry, view)) in observed.registries.iter().enumerate() {
        all.group(registry, view);
        let is_first = view.runners_read.known_at.is_none() && wanting.contains(registry);
        let may_matter = unsettled.contains(registry) || is_first || has_leftover(view, observed);
        if may_matter && !mutant::is(Mutant::LeftoversUnread) {
            all.runners(registry, view, RUNNERS_AGAIN);
        } else {
            // Spread over the hour, so that a start does not read every repository at once.
            let since_turn =
                (now.timestamp() - i64::try_from(index * 37).unwrap_or(0)).rem_euclid(LEFTOVERS_AGAIN.num_seconds());
            let is_read = || observed.repos_of(registry).any(|(_, repo)| repo.runs_read.known_at.is_some());
            let is_turn = since_turn < LEFTOVERS_TURN.num_seconds() && is_read();
            if view.runners_read.known_at.is_some() || is_turn {
                all.runners(registry, view, LEFTOVERS_AGAIN);
            }
        }
    }
    all.due.sort_by(|a, b| (a.rank, a.since, &a.read).cmp(&(b.rank, b.since, &b.read)));
    alternate(all.due)
}

/// First job readings and neglected run lists take turns: neither may keep the other from being read at all.
fn alternate(due: Vec<Due>) -> Vec<Due> {
    let (modal, rest): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.rank == Rank::Modal);
    let (first_jobs, rest): (Vec<Due>, Vec<Due>) = rest.into_iter().partition(|due| due.rank == Rank::FirstJobs);
    let (neglected, rest): (Vec<Due>, Vec<Due>) = rest.into_iter().partition(|due| due.rank == Rank::Neglected);
    let (mut first_jobs, mut neglected) = (first_jobs.into_iter(), neglected.into_iter());
    let mut order = modal;
    loop {
        let pair = (first_jobs.next(), neglected.next());
        if pair == (None, None) {
            break;
        }
        order.extend(pair.0);
        order.extend(pair.1);
    }
    order.extend(rest);
    order
}

/// When something will be due next at the latest, where nothing changes.
pub fn next(observed: &Observed, policy: &Policy, now: DateTime<Utc>) -> DateTime<Utc> {
    let interval = delta(policy.interval);
    let lists = observed.served().map(|(_, repo)| &repo.runs_read).chain([&observed.fleet.read]);
    let next = lists.map(|read| again_at(read, interval)).min().unwrap_or(now);
    next.clamp(now + interval / 100, now + interval / 10)
}

/// When something read in this way is due again, with its failures taken into account.
fn again_at(read: &ReadState, again: TimeDelta) -> DateTime<Utc> {
    match (&read.failure, read.tried_at, read.known_at) {
        (Some(failure), Some(tried), _) => tried + delta(retry::read_again(failure, read.failures)),
        (_, _, Some(known)) => known + again,
        (_, _, None) => DateTime::UNIX_EPOCH,
    }
}

/// How long lists take to sweep within their share; also shown to people.
pub fn sweep_interval(observed: &Observed, points_per_minute: f64) -> TimeDelta {
    let lists =
        observed.repos.values().filter(|repo| repo.reaches_back == ReachesBack::NotEnough).count() * SWEPT.len();
    let per_minute = (points_per_minute * SWEEP_SHARE).max(0.1);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a number of lists, and of seconds"
    )]
    let seconds = (lists as f64 / per_minute * 60.0) as i64;
    TimeDelta::seconds(seconds).clamp(SWEEP_AGAIN.0, SWEEP_AGAIN.1)
}

/// Registries with a sandbox that is not known to be claimed, or that ended without serving while its
/// registration was not looked at since; and those with a registration that a failed create may have left.
fn unsettled<'a>(observed: &'a Observed, evidence: &'a Evidence) -> BTreeSet<&'a Registry> {
    let is_unsettled = |name: &OurName, sandbox: &OurSandbox| match &sandbox.ended {
        None => evidence.names.get(name).is_none_or(|known| known.claim.is_none()),
        Some(ended) => {
            let view = observed.registry(&sandbox.origin.scope).map(|(_, view)| view);
            let is_read = view.and_then(|view| view.runners_read.known_at).is_some_and(|at| at > ended.at);
            let is_listed = view.is_some_and(|view| view.runners.contains_key(name));
            end_reason(ended.result.as_ref()) != Exit::Served.as_str() && (!is_read || is_listed)
        }
    };
    let may_be_left = |known: &&NameEvidence| {
        let view = known.origin.as_ref().and_then(|origin| observed.registry(&origin.scope));
        let read_at = view.and_then(|(_, view)| view.runners_read.known_at);
        known.fenced_at.is_none()
            && known.left_at.is_some_and(|left| read_at.is_none_or(|read| read < left + LEFTOVER_APPEARS))
    };
    let left = evidence.names.values().filter(may_be_left).filter_map(|known| Some(&known.origin.as_ref()?.scope));
    let sandboxes = observed.fleet.sandboxes.iter();
    let unclaimed = sandboxes.filter(|(name, sandbox)| is_unsettled(name, sandbox));
    let scopes = unclaimed.map(|(_, sandbox)| &sandbox.origin.scope).chain(left);
    scopes.filter_map(|scope| observed.registry(scope)).map(|(registry, _)| registry).collect()
}

/// When the last runner of a registry was deregistered whose sandbox lives: it can be ended when no job read since
/// then names it.
fn fences<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeMap<&'a Registry, DateTime<Utc>> {
    let mut fences = BTreeMap::new();
    for (name, sandbox) in observed.fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()) {
        let known = evidence.names.get(name).filter(|known| known.terminated_at.is_none());
        let registry = observed.registry(&sandbox.origin.scope);
        if let Some((fenced, (registry, _))) = known.and_then(|known| known.fenced_at).zip(registry) {
            let last = fences.entry(registry).or_insert(fenced);
            *last = fenced.max(*last);
        }
    }
    fences
}

/// Until when the last runner waited, or waits, that was made for a job of a run and is not known to have taken one:
/// what came of it shows in a later reading of the jobs only.
fn trials<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeMap<(&'a Scope, RunId), DateTime<Utc>> {
    let mut trials = BTreeMap::new();
    for (name, sandbox) in &observed.fleet.sandboxes {
        if evidence.names.get(name).is_none_or(|known| known.claim.is_none()) {
            let until = sandbox.ended.as_ref().map_or(DateTime::<Utc>::MAX_UTC, |ended| ended.at);
            let last = trials.entry((&sandbox.origin.scope, sandbox.origin.run)).or_insert(until);
            *last = until.max(*last);
        }
    }
    trials
}

/// Whether nothing of a run moves, as far as was read: no runner is being tried on it, and each job has ended, or is
/// queued although a runner waited for it in vain.
fn is_stuck(run: &RunView, tried_until: Option<DateTime<Utc>>, evidence: &Evidence) -> bool {
    let is_tried = tried_until.is_some_and(|until| run.jobs_read.known_at.is_none_or(|read| read < until));
    let is_over = |job: &WorkflowJob| match job.status {
        JobStatus::Completed => true,
        JobStatus::Queued => evidence.jobs.get(&job.id).is_some_and(|known| !known.waiting.is_trusted()),
        JobStatus::InProgress
        | JobStatus::Waiting
        | JobStatus::Pending
        | JobStatus::Requested
        | JobStatus::Other(_) => false,
    };
    !is_tried && run.jobs.values().all(is_over)
}

/// Whether a registration may have to be deleted soon.
fn has_leftover(view: &RegistryView, observed: &Observed) -> bool {
    let is_leftover = |name: &OurName| !observed.fleet.sandboxes.contains_key(name);
    view.runners.iter().any(|(name, runner)| is_leftover(name) && runner.connection != Connection::Online)
}

/// Registries of which something may be created soon.
fn wanting(observed: &Observed) -> BTreeSet<&Registry> {
    let has_queued =
        |repo: &&RepoView| repo.runs.values().any(|run| run.jobs.values().any(|job| job.status == JobStatus::Queued));
    let is_unread = |repo: &&RepoView| {
        observed.registries.get(&repo.registry).is_some_and(|view| view.runners_read.known_at.is_none())
    };
    observed.repos.values().filter(is_unread).filter(has_queued).map(|repo| &repo.registry).collect()
}

struct Schedule {
    due: Vec<Due>,
    now: DateTime<Utc>,
    interval: TimeDelta,
}

impl Schedule {
    fn add(&mut self, read: Read, purpose: Purpose, rank: Rank, since: Option<DateTime<Utc>>) {
        self.due.push(Due { read, purpose, rank, since: since.unwrap_or(DateTime::UNIX_EPOCH) });
    }

    fn is_due(&self, read: &ReadState, again: TimeDelta) -> bool {
        self.now >= again_at(read, again)
    }

    fn fleet(&mut self, observed: &Observed, evidence: &Evidence) {
        if self.is_due(&observed.fleet.read, self.interval) {
            self.add(Read::Fleet, Purpose::Other, Rank::Modal, observed.fleet.read.tried_at);
        }
        for (name, sandbox) in &observed.fleet.sandboxes {
            let is_claimed = || evidence.names.get(name).is_some_and(|known| known.claim.is_some());
            if self.needs_confirmation(sandbox, observed.skew, is_claimed) {
                self.add(
                    Read::Sandbox(name.clone(), sandbox.id.clone()),
                    Purpose::Other,
                    Rank::Modal,
                    sandbox.missing_since,
                );
            }
        }
        for (name, creating) in &observed.fleet.unsure {
            if self.now - creating.asked_at.unwrap_or(creating.since) >= CONFIRM_AGAIN {
                self.add(Read::Named(name.clone()), Purpose::Other, Rank::Modal, Some(creating.since));
            }
        }
    }

    /// Ended sandboxes matter only where they may have left something.
    fn ended(&mut self, observed: &Observed, policy: &Policy) {
        let read = &observed.fleet.ended_read;
        if policy.has_gpus() && self.is_due(read, ENDED_AGAIN) {
            self.add(Read::Ended, Purpose::Other, Rank::Modal, read.tried_at);
        }
    }

    /// One that had a job is no longer too new for lists.
    fn needs_confirmation(&self, sandbox: &OurSandbox, skew: TimeDelta, is_claimed: impl Fn() -> bool) -> bool {
        sandbox.ended.is_none()
            && sandbox.missing_since.is_some()
            && (self.now - sandbox.created(skew) >= NEW_SANDBOX || is_claimed())
            && sandbox.asked_at.is_none_or(|at| self.now - at >= CONFIRM_AGAIN)
    }

    /// Whether GitHub told of news since the list was last asked for, and that is not just now.
    fn is_nudged(&self, repo: &RepoView) -> bool {
        let asked = repo.runs_read.tried_at;
        repo.runs_read.failure.is_none()
            && repo.nudged_at.is_some_and(|nudged| asked.is_none_or(|asked| asked < nudged))
            && asked.is_none_or(|asked| self.now - asked >= NUDGES_APART)
    }

    fn runs(&mut self, scope: &Scope, repo: &RepoView) {
        if repo.pause(&scope.repo).is_some() {
            if self.is_due(&repo.runs_read, PAUSED_AGAIN) {
                let tried = repo.runs_read.tried_at;
                self.add(Read::Runs(scope.clone(), Depth::Active), Purpose::RunList, Rank::Runs, tried);
            }
        } else if self.is_due(&repo.runs_read, self.interval) || self.is_nudged(repo) {
            let is_deep = repo.deep_read_at.is_none_or(|at| self.now - at >= DEEP_AGAIN);
            let depth = if is_deep { Depth::Active } else { Depth::New };
            let tried = repo.runs_read.tried_at;
            let is_neglected = tried.is_some_and(|at| self.now - at >= self.interval * NEGLECTED_INTERVALS);
            let rank = if is_neglected || tried.is_none() { Rank::Neglected } else { Rank::Runs };
            self.add(Read::Runs(scope.clone(), depth), Purpose::RunList, rank, tried);
        } else if repo.active_at.is_some_and(|at| self.now - at < STAYS_ACTIVE)
            && self.is_due(&repo.runs_read, self.interval / 2)
        {
            self.add(
                Read::Runs(scope.clone(), Depth::New),
                Purpose::EarlyRunList,
                Rank::Early,
                repo.runs_read.tried_at,
            );
        }
    }

    /// A run that the list's pages do not show.
    fn run(&mut self, scope: &Scope, run: &RunView, pace: Pace) {
        let looked_at = run.listed_at.max(run.asked_at.unwrap_or(run.listed_at));
        let again = self.paced(run, pace, UNLISTED_AGAIN);
        if run.run.status != RunStatus::Completed && self.now - looked_at >= again {
            self.add(Read::Run(scope.clone(), run.run.id), Purpose::Jobs, Rank::Jobs, Some(run.listed_at));
        }
    }

    fn jobs(
        &mut self,
        scope: &Scope,
        run: &RunView,
        fence: Option<DateTime<Utc>>,
        (pace, evidence): (Pace, &Evidence),
    ) {
        let read = Read::Jobs(scope.clone(), run.run.id);
        let is_first = run.jobs_read.known_at.is_none() || run.needs_jobs == NeedsJobs::Now;
        let fence = fence.map(|fenced| fenced + LISTS_LAG).filter(|at| *at <= self.now);
        let is_asked = fence > run.jobs_read.known_at || run.needs_jobs == NeedsJobs::Soon;
        let again = if is_asked { TimeDelta::zero() } else { self.paced(run, pace, self.jobs_again(run, evidence)) };
        if is_first && self.is_due(&run.jobs_read, TimeDelta::zero()) {
            self.add(read, Purpose::FirstJobs, Rank::FirstJobs, Some(run.first_listed_at));
        } else if self.is_due(&run.jobs_read, again) {
            // What lets a run grow is worth as much as a first reading.
            let purpose = if again == GROWING_AGAIN { Purpose::FirstJobs } else { Purpose::Jobs };
            self.add(read, purpose, Rank::Jobs, run.jobs_read.known_at);
        }
    }

    fn jobs_again(&self, run: &RunView, evidence: &Evidence) -> TimeDelta {
        let mut queued = run.jobs.values().filter(|job| job.status == JobStatus::Queued).peekable();
        let says_queued = run.run.status == RunStatus::Queued;
        if run.jobs.is_empty() || (says_queued && queued.peek().is_none()) {
            // The jobs lag behind the run, or it is a ghost.
            return self.since_change(run);
        }
        let attempts = queued.map(|job| evidence.jobs.get(&job.id).map_or(0, |known| known.attempt));
        let (served, unserved): (Vec<u32>, Vec<u32>) = attempts.partition(|attempt| *attempt > 0);
        match (served.is_empty(), unserved.is_empty()) {
            (false, false) => GROWING_AGAIN,
            (false, true) => UNCLAIMED_AGAIN,
            (true, _) => RUNNING_AGAIN,
        }
    }

    /// What would be read again after `again`, at its pace.
    fn paced(&self, run: &RunView, pace: Pace, again: TimeDelta) -> TimeDelta {
        match pace {
            Pace::Usual => again,
            Pace::Slowing => again.max(self.since_change(run)),
        }
    }

    /// A fifth of the time since a run changed, within bounds.
    fn since_change(&self, run: &RunView) -> TimeDelta {
        ((self.now - run.changed_at) / 5).clamp(JOBLESS_AGAIN.0, JOBLESS_AGAIN.1)
    }

    fn runners(&mut self, registry: &Registry, view: &RegistryView, again: TimeDelta) {
        if self.is_due(&view.runners_read, again) {
            self.add(Read::Runners(registry.clone()), Purpose::Runners, Rank::Runners, view.runners_read.tried_at);
        }
    }

    fn group(&mut self, registry: &Registry, view: &RegistryView) {
        if let Registry::Org(org) = registry
            && self.is_due(&view.group_read, GROUP_AGAIN)
        {
            self.add(Read::Group(org.clone()), Purpose::Runners, Rank::Runners, view.group_read.tried_at);
        }
    }

    fn sweep(&mut self, scope: &Scope, repo: &RepoView, again: TimeDelta) {
        let is_needed = repo.reaches_back == ReachesBack::NotEnough;
        if is_needed && repo.swept_at.is_none_or(|at| self.now - at >= again) {
            self.add(Read::Sweep(scope.clone()), Purpose::Sweep, Rank::Sweep, repo.swept_at);
        }
    }
}

fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
