//! What to read next (pure).
//!
//! [`due`] looks at the age of everything known and lists the readings that are due, most urgent first. How
//! many of them start is up to the budgets. Nothing is remembered here: a reading that did not start is due
//! again in the next pass.

mod directory;
mod lists;
mod read;
mod signs;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use self::read::Rank;
use self::signs::{advanced, fences, has_leftover, is_stuck, suspects, trials, unsettled, wanting};
use crate::budget::{Capacity, Purpose};
use crate::evidence::Evidence;
use crate::ids::CredentialName;
use crate::mutant::{self, Mutant};
use crate::plan::{LISTS_LAG, Policy, group_holds_jobs};
use crate::retry;
use crate::state::{
    Hints, JobStatus, NeedsJobs, Observed, OurSandbox, ReachesBack, ReadState, Registry, RegistryView, RepoView,
    RunStatus, RunView, Scope,
};

pub use self::lists::{ListOrder, Shortfall, least_interval, least_longest, lists_of, shortfalls};
pub use self::read::{Breadth, Depth, Due, Read, shared};

/// How often the jobs of a run are read while some of them have a runner and others wait for those to be
/// claimed.
const GROWING_AGAIN: TimeDelta = TimeDelta::seconds(20);
/// How often the jobs of a run are read while all that are queued have a runner.
const UNCLAIMED_AGAIN: TimeDelta = TimeDelta::seconds(45);
/// How often the jobs of a run are read in which nothing waits for us; and where that costs a request even if nothing
/// has changed (simulated day of 500 repositories: every 60 s instead doubles the mean wait of new runs).
const RUNNING_AGAIN: Costly = Costly { free: TimeDelta::seconds(120), charged: TimeDelta::seconds(600) };
/// How often a run is read by its id when the list's pages do not show it.
const UNLISTED_AGAIN: Costly = Costly { free: TimeDelta::seconds(120), charged: TimeDelta::seconds(600) };
/// A run that shows no job, or says queued and shows no queued job, is read again after a fifth of the time
/// since it changed, between these bounds: its jobs lag behind, or it is a ghost (GitHub: runs that stay
/// queued for months). One with completed jobs only, or with queued ones beside for which runners waited in
/// vain, is read ever less in the same way, but not more often than others: the change that would make it
/// worth while shows in the run itself.
const JOBLESS_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::seconds(3), TimeDelta::hours(1));
/// How often runners are read while one of ours is not known to be claimed.
const RUNNERS_AGAIN: Costly = Costly { free: TimeDelta::seconds(60), charged: TimeDelta::seconds(120) };
/// How often runners are read for leftovers.
const LEFTOVERS_AGAIN: Costly = Costly { free: TimeDelta::hours(1), charged: TimeDelta::hours(6) };
/// How often the runner group of an organization is looked at; and where it keeps jobs waiting.
const GROUP_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::hours(1), TimeDelta::minutes(5));
/// How long the turn of a repository lasts whose runners were never read; each has one in every such hour.
const LEFTOVERS_TURN: TimeDelta = TimeDelta::minutes(10);
/// How long a new sandbox may be missing from lists before it is looked up by its id.
const NEW_SANDBOX: TimeDelta = TimeDelta::seconds(20);
/// How often a sandbox that lists lack is looked up, and a name that may have one.
const CONFIRM_AGAIN: TimeDelta = TimeDelta::seconds(10);
/// How often ended sandboxes are listed; and while some of ours are not accounted.
const ENDED_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(10), TimeDelta::minutes(1));
/// How often Modal's quota is read; and how often where it may tell why Modal creates nothing.
const QUOTA_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(10), TimeDelta::minutes(1));
/// How often Modal's rates are read.
const RATES_AGAIN: TimeDelta = TimeDelta::hours(24);
/// At the soonest where Modal refuses to tell them; and where that failed for a reason that passes.
const RATES_MISSING_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(10), TimeDelta::minutes(1));
/// What is accounted waits for the rates so many times.
const RATES_AWAITED: u32 = 3;
/// The bounds of the sweep's interval; rare statuses are swept for with the longest.
const SWEEP_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::minutes(10), TimeDelta::hours(6));
/// A repository is due for a sweep before its interval ends by this part of it: it waits for its turn among others.
const SWEPT_AHEAD: i32 = 10;
/// Rare statuses get at most this part of the sweeps.
const RARE_SHARE: f64 = 0.5;

/// However long the interval is: what has a pace of its own, such as jobs and sweeps, is to come in time.
const LONGEST_SLEEP: TimeDelta = TimeDelta::seconds(5);

/// A time between readings, by what a reading costs that shows nothing new.
#[derive(Debug, Clone, Copy)]
struct Costly {
    free: TimeDelta,
    charged: TimeDelta,
}

impl Costly {
    fn at(self, capacity: Capacity) -> TimeDelta {
        if capacity.charges_unchanged() { self.charged } else { self.free }
    }
}

/// How often what is known of a run is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tendency {
    /// As often as others.
    Usual,
    /// Ever less: nothing of it moves.
    Slowing,
}

/// What a credential affords; one whose budget is not known affords what little the others do.
fn means(capacities: &BTreeMap<CredentialName, Capacity>, credential: &CredentialName) -> Capacity {
    capacities.get(credential).copied().unwrap_or(Capacity::of_points(60.0))
}

/// Everything that is due, most urgent first.
pub fn due(
    observed: &Observed,
    evidence: &Evidence,
    policy: &Policy,
    capacities: &BTreeMap<CredentialName, Capacity>,
    now: DateTime<Utc>,
) -> Vec<Due> {
    let mut all = Schedule { due: Vec::new(), now, interval: delta(policy.interval) };
    all.fleet(observed, evidence);
    all.ended(observed, policy);
    all.quota(observed, evidence, policy);
    all.directories(observed, policy);
    all.facts(observed, policy, capacities);
    all.releases(observed);
    all.run_lists(observed, policy, capacities);
    let sweeps = sweep_intervals(observed, policy, capacities);
    let mut last: Option<(&Scope, Capacity, TimeDelta)> = None;
    let unsettled = unsettled(observed, evidence);
    let (fences, trials) = (fences(observed, evidence), trials(observed, evidence));
    let suspects = suspects(observed, evidence, GROWING_AGAIN, now);
    for (scope, repo) in &observed.repos {
        // They are in the order of their credentials.
        let (_, capacity, sweep) = *match &mut last {
            Some(same) if policy.share_credential(same.0, scope) => same,
            other => {
                let credential = policy.credential(scope);
                let sweep = sweeps.get(&credential).copied().unwrap_or(SWEEP_AGAIN.1);
                other.insert((scope, means(capacities, &credential), sweep))
            }
        };
        let fence = fences.get(&repo.registry).copied();
        for run in repo.runs.values() {
            let tried_until = trials.get(&(scope, run.run.id)).copied();
            // What the last of its runners did before it ended shows in a later reading, and until then it holds a job.
            let ended = tried_until.filter(|until| *until < DateTime::<Utc>::MAX_UTC);
            let tendency = if is_stuck(run, tried_until, evidence) { Tendency::Slowing } else { Tendency::Usual };
            all.run(scope, (repo, run), tendency, capacity);
            let suspect = suspects.get(&(scope, run.run.id)).copied();
            let advanced = advanced(run, evidence);
            all.jobs(
                scope,
                run,
                [fence, ended, suspect, advanced],
                &Weighing { tendency, evidence, capacity, hints: &repo.hints },
            );
        }
        all.hinted_run(scope, repo);
        all.sweep(scope, repo, sweep, fence);
    }
    let wanting = wanting(observed, evidence);
    let mut last: Option<(&Scope, Capacity)> = None;
    for (index, (registry, view)) in observed.registries.iter().enumerate() {
        all.group(registry, view, observed, policy);
        // Those of repositories are in the order of their credentials as well.
        let capacity = match (registry, last) {
            (Registry::Repo(scope), Some((before, capacity))) if policy.share_credential(before, scope) => capacity,
            _ => means(capacities, &policy.credential_of(registry)),
        };
        if let Registry::Repo(scope) = registry {
            last = Some((scope, capacity));
        }
        let is_first = view.runners_read.known_at.is_none() && wanting.contains(registry);
        let may_matter = unsettled.contains(registry) || is_first || has_leftover(view, observed, evidence);
        if may_matter && !mutant::is(Mutant::LeftoversUnread) {
            all.runners(registry, view, RUNNERS_AGAIN.at(capacity));
        } else {
            let is_read = || observed.repos_of(registry).any(|(_, repo)| repo.runs_read.known_at.is_some());
            all.leftovers(registry, (view, index), is_read, LEFTOVERS_AGAIN.at(capacity));
        }
    }
    all.due.sort_by(Due::order);
    alternate(all.due)
}

/// First readings and neglected run lists take turns: neither may keep the other from being read at all.
fn alternate(due: Vec<Due>) -> Vec<Due> {
    let (modal, rest): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.rank == Rank::Modal);
    let (first, rest): (Vec<Due>, Vec<Due>) = rest.into_iter().partition(|due| due.rank == Rank::First);
    let (neglected, rest): (Vec<Due>, Vec<Due>) = rest.into_iter().partition(|due| due.rank == Rank::Neglected);
    let (mut first, mut neglected) = (first.into_iter(), neglected.into_iter());
    let mut order = modal;
    loop {
        let pair = (first.next(), neglected.next());
        if pair == (None, None) {
            break;
        }
        order.extend(pair.0);
        order.extend(pair.1);
    }
    order.extend(rest);
    order
}

/// When something will be due next at the latest, where nothing changes; `admitted` is when the next reading is that
/// was due and not admitted.
pub fn next(
    observed: &Observed,
    policy: &Policy,
    admitted: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    let interval = delta(policy.interval);
    let fleet = again_at(&observed.fleet.read, interval);
    let lists = || observed.served().map(|(_, repo)| again_at(&repo.runs_read, interval)).min().unwrap_or(now);
    let next = admitted.unwrap_or_else(lists).min(fleet);
    let longest = (interval / 10).min(LONGEST_SLEEP);
    next.clamp(now + longest / 10, now + longest)
}

/// When something read in this way is due again, with its failures taken into account.
fn again_at(read: &ReadState, again: TimeDelta) -> DateTime<Utc> {
    match (&read.failure, read.tried_at, read.known_at) {
        (Some(failure), Some(tried), _) => tried + delta(retry::read_again(failure, read.failures)),
        (_, _, Some(known)) => known + again,
        (_, _, None) => DateTime::UNIX_EPOCH,
    }
}

/// Within what time each repository is swept, by credential, as the share of sweeps allows; also shown to people.
pub fn sweep_intervals(
    observed: &Observed,
    policy: &Policy,
    capacities: &BTreeMap<CredentialName, Capacity>,
) -> BTreeMap<CredentialName, TimeDelta> {
    let mut repos: BTreeMap<CredentialName, usize> = BTreeMap::new();
    for (scope, _) in observed.repos.iter().filter(|(_, repo)| repo.reaches_back == ReachesBack::NotEnough) {
        *repos.entry(policy.credential(scope)).or_default() += 1;
    }
    let interval = |credential: &CredentialName| {
        let repos = repos.get(credential).copied().unwrap_or(0);
        let lists = |breadth: Breadth| lists::number(repos * breadth.statuses().len());
        let all = means(capacities, credential).sweeps_per_second();
        let rare = (lists(Breadth::Rare) / SWEEP_AGAIN.1.as_seconds_f64()).min(all * RARE_SHARE);
        let secs = lists(Breadth::Usual) / (all - rare).max(1e-3);
        let ahead = f64::from(SWEPT_AHEAD);
        lists::seconds(secs * ahead / (ahead - 1.0)).clamp(SWEEP_AGAIN.0, SWEEP_AGAIN.1)
    };
    capacities.keys().map(|credential| (credential.clone(), interval(credential))).collect()
}

/// By what it is decided how often the jobs of a run are read.
struct Weighing<'a> {
    tendency: Tendency,
    evidence: &'a Evidence,
    capacity: Capacity,
    hints: &'a Hints,
}

struct Schedule {
    due: Vec<Due>,
    now: DateTime<Utc>,
    interval: TimeDelta,
}

impl Schedule {
    fn add(&mut self, read: Read, purpose: Purpose, rank: Rank, since: Option<DateTime<Utc>>) {
        let since = since.unwrap_or(DateTime::UNIX_EPOCH);
        self.due.push(Due { read, purpose, rank, score: 0.0, since });
    }

    fn is_due(&self, read: &ReadState, again: TimeDelta) -> bool {
        match (&read.failure, read.known_at) {
            // The same as below, without a sum for each of many repositories.
            (None, Some(known)) => self.now.signed_duration_since(known) >= again,
            _ => self.now >= again_at(read, again),
        }
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

    /// Ended sandboxes matter where they may have left something, and until they are accounted: when a list arrives, by
    /// Modal's rates, so Modal has to have told those before, or refused to.
    fn ended(&mut self, observed: &Observed, policy: &Policy) {
        let rates = &observed.rates.read;
        let again = match &rates.failure {
            None => RATES_AGAIN,
            Some(_) if rates.is_refused() => RATES_MISSING_AGAIN.0,
            Some(_) => RATES_MISSING_AGAIN.1,
        };
        let accounts = observed.spend.list_since.is_some();
        let is_due = rates.tried_at.is_none_or(|at| self.now - at >= again);
        if (accounts || rates.known_at.is_some()) && is_due {
            self.add(Read::Rates, Purpose::Other, Rank::Modal, rates.tried_at);
        }
        let is_told = rates.known_at.is_some() || rates.is_refused() || rates.failures >= RATES_AWAITED;
        let read = &observed.fleet.ended_read;
        let again = match (accounts, policy.has_gpus()) {
            (true, _) if !is_told => return,
            (true, _) => ENDED_AGAIN.1,
            (false, true) => ENDED_AGAIN.0,
            (false, false) => return,
        };
        if self.is_due(read, again) {
            self.add(Read::Ended, Purpose::Other, Rank::Modal, read.tried_at);
        }
    }

    fn quota(&mut self, observed: &Observed, evidence: &Evidence, policy: &Policy) {
        let read = &observed.quota.read;
        let (usual, sooner) = QUOTA_AGAIN;
        let is_unexplained = evidence.refused_at.is_some_and(|refused| read.known_at.is_none_or(|at| at < refused));
        // Whether Modal is short of a machine, or the workspace may not use more, has to be known once it is too late.
        let waits = |sandbox: &OurSandbox| {
            let limit = policy.class(&sandbox.origin.class).map(|class| class.clocks.schedule_timeout);
            sandbox.ended.is_none()
                && !sandbox.is_scheduled
                && limit.is_some_and(|limit| self.now - sandbox.created(observed.skew) >= delta(limit) / 2)
        };
        let are_gpus_short = observed.quota.gpus_without_room(1, self.now).is_some()
            || policy.has_gpus() && observed.fleet.sandboxes.values().any(waits);
        let is_of_interest = is_unexplained || are_gpus_short || observed.quota.is_spent(self.now);
        let again = if is_of_interest { sooner } else { usual };
        // Nothing depends on it, so a failure is as good as an answer.
        if read.tried_at.is_none_or(|at| self.now - at >= again) {
            self.add(Read::Quota, Purpose::Other, Rank::Modal, read.tried_at);
        }
    }

    /// One that had a job is no longer too new for lists.
    fn needs_confirmation(&self, sandbox: &OurSandbox, skew: TimeDelta, is_claimed: impl Fn() -> bool) -> bool {
        sandbox.ended.is_none()
            && sandbox.missing_since.is_some()
            && (self.now - sandbox.created(skew) >= NEW_SANDBOX || is_claimed())
            && sandbox.asked_at.is_none_or(|at| self.now - at >= CONFIRM_AGAIN)
    }

    /// A run that the list's pages do not show.
    fn run(&mut self, scope: &Scope, (repo, run): (&RepoView, &RunView), tendency: Tendency, capacity: Capacity) {
        let is_unlisted = repo.runs_read.known_at.is_some_and(|at| at > run.listed_at);
        let looked_at = run.listed_at.max(run.asked_at.unwrap_or(run.listed_at));
        let again = self.paced(run, tendency, UNLISTED_AGAIN.at(capacity));
        if run.run.status != RunStatus::Completed && is_unlisted && self.now - looked_at >= again {
            self.add(Read::Run(scope.clone(), run.run.id), Purpose::Jobs, Rank::Jobs, Some(run.listed_at));
        }
    }

    /// A run that somebody spoke of and that a list read since does not show, such as an old one that is re-run.
    fn hinted_run(&mut self, scope: &Scope, repo: &RepoView) {
        let is_read_since = |at: DateTime<Utc>| repo.runs_read.known_at.is_some_and(|read| read >= at);
        let unknown = repo.hints.iter().find(|(run, at)| !repo.runs.contains_key(run) && is_read_since(*at));
        if let Some((run, at)) = unknown.filter(|_| Hints::may_ask(repo.hints.asked_at(), self.now)) {
            self.add(Read::Run(scope.clone(), run), Purpose::Jobs, Rank::Jobs, Some(at));
        }
    }

    /// The jobs of a run, which are to be read after each of the `marks`.
    fn jobs(&mut self, scope: &Scope, run: &RunView, marks: [Option<DateTime<Utc>>; 4], weighing: &Weighing<'_>) {
        let read = Read::Jobs(scope.clone(), run.run.id);
        let (known_at, tried_at) = (run.jobs_read.known_at, run.jobs_read.tried_at);
        let hint = weighing.hints.iter().find(|(hinted, _)| *hinted == run.run.id).map(|(_, at)| at);
        let is_hinted =
            hint.is_some_and(|at| tried_at.is_none_or(|tried| tried < at)) && Hints::may_ask(tried_at, self.now);
        let is_first = known_at.is_none() || run.needs_jobs == NeedsJobs::Now;
        let shown = marks.into_iter().flatten().map(|mark| mark + LISTS_LAG).filter(|at| *at <= self.now).max();
        let is_asked = shown > known_at || run.needs_jobs == NeedsJobs::Soon || is_hinted;
        let usual = || self.paced(run, weighing.tendency, self.jobs_again(run, weighing));
        let again = if is_asked { TimeDelta::zero() } else { usual() };
        if is_first && self.is_due(&run.jobs_read, TimeDelta::zero()) {
            self.add(read, Purpose::FirstJobs, Rank::First, Some(run.first_listed_at));
            return;
        }
        if is_hinted && self.is_due(&run.jobs_read, TimeDelta::zero()) {
            // Beside its turn: whichever is admitted first.
            self.add(read.clone(), Purpose::HintedJobs, Rank::First, hint);
        }
        if self.is_due(&run.jobs_read, again) {
            // What lets a run grow is worth as much as a first reading.
            let purpose = if again == GROWING_AGAIN { Purpose::FirstJobs } else { Purpose::Jobs };
            self.add(read, purpose, Rank::Jobs, known_at);
        }
    }

    fn jobs_again(&self, run: &RunView, weighing: &Weighing<'_>) -> TimeDelta {
        let mut queued = run.jobs.values().filter(|job| job.status == JobStatus::Queued).peekable();
        let says_queued = run.run.status == RunStatus::Queued;
        if run.jobs.is_empty() || (says_queued && queued.peek().is_none()) {
            // The jobs lag behind the run, or it is a ghost.
            return self.since_change(run);
        }
        let attempts = queued.map(|job| weighing.evidence.jobs.get(&job.id).map_or(0, |known| known.attempt));
        let (served, unserved): (Vec<u32>, Vec<u32>) = attempts.partition(|attempt| *attempt > 0);
        match (served.is_empty(), unserved.is_empty()) {
            (false, false) => GROWING_AGAIN,
            (false, true) => UNCLAIMED_AGAIN,
            (true, _) => RUNNING_AGAIN.at(weighing.capacity),
        }
    }

    /// What would be read again after `again`, by its tendency.
    fn paced(&self, run: &RunView, tendency: Tendency, again: TimeDelta) -> TimeDelta {
        match tendency {
            Tendency::Usual => again,
            Tendency::Slowing => again.max(self.since_change(run)),
        }
    }

    /// A fifth of the time since a run changed, within bounds.
    fn since_change(&self, run: &RunView) -> TimeDelta {
        ((self.now - run.changed_at) / 5).clamp(JOBLESS_AGAIN.0, JOBLESS_AGAIN.1)
    }

    fn runners(&mut self, registry: &Registry, view: &RegistryView, again: TimeDelta) {
        // Readings agree from the answer on: asked for sooner, the next one would prove nothing.
        let is_apart = view.runners_read.answered_at.is_none_or(|at| self.now - at >= again);
        if is_apart && self.is_due(&view.runners_read, again) {
            self.add(Read::Runners(registry.clone()), Purpose::Runners, Rank::Runners, view.runners_read.tried_at);
        }
    }

    fn group(&mut self, registry: &Registry, view: &RegistryView, observed: &Observed, policy: &Policy) {
        let Registry::Org(org) = registry else { return };
        let (usual, sooner) = GROUP_AGAIN;
        let is_due_sooner =
            || self.is_due(&view.group_read, sooner) && group_holds_jobs(registry, view, observed, policy);
        if self.is_due(&view.group_read, usual) || is_due_sooner() {
            self.add(Read::Group(org.clone()), Purpose::Runners, Rank::Runners, view.group_read.tried_at);
        }
    }

    /// Spread over the time between two turns, so that a start does not read every repository at once.
    fn leftovers(
        &mut self,
        registry: &Registry,
        (view, index): (&RegistryView, usize),
        is_read: impl Fn() -> bool,
        again: TimeDelta,
    ) {
        let turn = i64::try_from(index * 37).unwrap_or(0);
        let since_turn = (self.now.timestamp() - turn).rem_euclid(again.num_seconds());
        let is_turn = since_turn < LEFTOVERS_TURN.num_seconds() && is_read();
        if view.runners_read.known_at.is_some() || is_turn {
            self.runners(registry, view, again);
        }
    }

    /// What an old run seldom shows is looked for when nothing else is to be swept: it must not make the rest late. After a
    /// fence both are looked for: any run may have the job of that runner.
    fn sweep(&mut self, scope: &Scope, repo: &RepoView, again: TimeDelta, fence: Option<DateTime<Utc>>) {
        if repo.reaches_back != ReachesBack::NotEnough || mutant::is(Mutant::SweepsLeftOut) {
            return;
        }
        for (breadth, read, again, rank) in [
            (Breadth::Usual, &repo.swept, again - again / SWEPT_AHEAD, Rank::Sweep),
            (Breadth::Rare, &repo.swept_rare, SWEEP_AGAIN.1, Rank::RareSweep),
        ] {
            let shown = fence.map(|fence| fence + LISTS_LAG).filter(|shown| *shown <= self.now);
            let is_asked = shown.is_some_and(|shown| read.known_at.is_none_or(|known| known < shown));
            if self.is_due(read, if is_asked { TimeDelta::zero() } else { again }) {
                self.add(Read::Sweep(scope.clone(), breadth), Purpose::Sweep, rank, read.tried_at);
            }
        }
    }
}

fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
