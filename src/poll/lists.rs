//! Which run list is read next.
//!
//! Where an account affords to read every list each interval, that is what happens. Where it does not, the next list is
//! the one with the largest `rate · age²`: what its jobs are expected to have waited since it was last read. For
//! constant rates that reads each list in proportion to the root of its rate, which is the least mean wait that a
//! number of readings can buy; in proportion to the rate itself would be no better than one after the other. No list
//! gets older than the longest interval: those go first, and need at most half of what lists get.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::read::{Depth, Rank, Read};
use super::{Schedule, delta, means};
use crate::budget::{Capacity, Purpose};
use crate::ids::CredentialName;
use crate::plan::Policy;
use crate::state::{Activity, Hints, Observed, RepoView, Scope};

/// In which order run lists are read where not all can be read each interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOrder {
    /// By what their jobs are expected to have waited.
    #[default]
    Index,
    /// The oldest first: what the other order is compared with.
    Uniform,
}

/// New jobs come where jobs were: for this long a repository is read twice per interval, where there is room.
const STAYS_ACTIVE: TimeDelta = TimeDelta::minutes(10);
/// How often all pages with active runs are read, not only those with new ones; and where lists are short.
const DEEP_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::seconds(60), TimeDelta::minutes(10));
/// How often the runs of a repository are listed that cannot have new ones.
const PAUSED_AGAIN: TimeDelta = TimeDelta::minutes(15);
/// A run list this many intervals old goes before everything else of its account.
const NEGLECTED_INTERVALS: i32 = 3;
/// Where not every list can be read each interval, one may still be read this often within it.
const READINGS_PER_INTERVAL: i32 = 5;
/// What no list may be older than needs at most this part of what lists get: above it the index has no say.
const FLOOR_SHARE: f64 = 0.5;
/// Within this time a run that somebody spoke of is expected to be listed.
const HINTED_SECS: f64 = 60.0;
/// More than one pass starts of one account.
const AT_A_TIME: usize = 32;
/// No list waits longer, however little can be read.
const LONGEST: f64 = 86_400.0;

/// How old so many lists get at least where those that are too old use their whole part of the readings.
pub fn least_longest(lists: usize, capacity: Capacity) -> TimeDelta {
    let secs = number(lists) / (capacity.lists_per_second() * FLOOR_SHARE).max(1e-9);
    // What is exact on paper may be a little more by a rounding error.
    seconds((secs.min(LONGEST) - 1e-6).ceil())
}

/// The shortest interval in which so many lists can all be read.
pub fn least_interval(lists: usize, capacity: Capacity) -> TimeDelta {
    seconds((number(lists) / capacity.lists_per_second().max(1e-9)).min(LONGEST).ceil())
}

/// A credential with more run lists than can be read within `reconcile.max_interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// How many lists.
    pub lists: usize,
    /// Within what time they can be read.
    pub least: TimeDelta,
}

/// How many run lists each credential reads.
pub fn lists_of(observed: &Observed, policy: &Policy) -> BTreeMap<CredentialName, usize> {
    let mut lists = BTreeMap::new();
    for (scope, _) in observed.served() {
        *lists.entry(policy.credential(scope)).or_default() += 1;
    }
    lists
}

/// The credentials that cannot read their run lists within the longest interval: the start refuses that for the
/// repositories that are named; others come while the daemon runs.
pub fn shortfalls(
    lists: &BTreeMap<CredentialName, usize>,
    policy: &Policy,
    capacities: &BTreeMap<CredentialName, Capacity>,
) -> BTreeMap<CredentialName, Shortfall> {
    let shortfall = |(credential, lists): (&CredentialName, &usize)| {
        let capacity = means(capacities, credential);
        let least = least_longest(*lists, capacity);
        let is_short = !is_roomy(*lists, delta(policy.interval), capacity) && least > delta(policy.max_interval);
        is_short.then(|| (credential.clone(), Shortfall { lists: *lists, least }))
    };
    lists.iter().filter_map(shortfall).collect()
}

/// Whether so many lists can all be read every interval.
fn is_roomy(lists: usize, interval: TimeDelta, capacity: Capacity) -> bool {
    number(lists) / interval.as_seconds_f64().max(0.001) <= capacity.lists_per_second()
}

/// How the lists of one account are read.
#[derive(Debug, Clone, Copy)]
struct Tempo {
    /// Whether each can be read every interval.
    is_roomy: bool,
    /// None is older than this, if that is possible.
    longest: TimeDelta,
    /// New runs a second in an average repository.
    average: f64,
}

impl Schedule {
    /// Adds the run lists of all accounts that are due.
    pub(super) fn run_lists(
        &mut self,
        observed: &Observed,
        policy: &Policy,
        capacities: &BTreeMap<CredentialName, Capacity>,
    ) {
        self.paused_lists(observed);
        let all: Vec<(&Scope, &RepoView)> = observed.served().collect();
        // They are in the order of their credentials.
        for repos in all.chunk_by(|a, b| policy.share_credential(a.0, b.0)) {
            let tempo = self.tempo(repos, policy, means(capacities, &policy.credential(repos[0].0)));
            let mut candidates = Vec::new();
            for (scope, repo) in repos.iter().copied() {
                self.hinted_list(scope, repo, tempo);
                if self.overdue_list(scope, repo, tempo) {
                    continue;
                }
                if tempo.is_roomy {
                    self.list_in_turn(scope, repo);
                } else if self.is_due(&repo.runs_read, self.interval / READINGS_PER_INTERVAL) {
                    candidates.push((self.score(repo, tempo, policy.list_order), scope, repo));
                }
            }
            if candidates.len() > AT_A_TIME {
                candidates.select_nth_unstable_by(AT_A_TIME, |a, b| b.0.total_cmp(&a.0));
                candidates.truncate(AT_A_TIME);
            }
            for (score, scope, repo) in candidates {
                let read = Read::Runs(scope.clone(), self.depth(repo, DEEP_AGAIN.1));
                self.add(read, Purpose::RunList, Rank::Runs, repo.runs_read.tried_at);
                self.score_last(score);
            }
        }
    }

    /// Lists of repositories that cannot have new runs. Where lists are short each counts as one of which nothing is known:
    /// its runs may end, and something of ours run in them.
    fn paused_lists(&mut self, observed: &Observed) {
        for (scope, repo) in observed.repos.iter().filter(|(scope, repo)| repo.pause(&scope.repo).is_some()) {
            if self.is_due(&repo.runs_read, PAUSED_AGAIN) {
                let read = Read::Runs(scope.clone(), Depth::Active);
                let age = self.age(repo);
                self.add(read, Purpose::RunList, Rank::Runs, repo.runs_read.tried_at);
                self.score_last(Activity::average([].into_iter(), self.now) * age * age);
            }
        }
    }

    fn tempo(&self, repos: &[(&Scope, &RepoView)], policy: &Policy, capacity: Capacity) -> Tempo {
        Tempo {
            is_roomy: is_roomy(repos.len(), self.interval, capacity),
            longest: delta(policy.max_interval).max(least_longest(repos.len(), capacity)),
            average: Activity::average(repos.iter().map(|(_, repo)| &repo.activity), self.now),
        }
    }

    /// A list that somebody said has changed, unless it was read since: beside its turn, whichever is admitted first.
    ///
    /// Where lists are short it is read for runs that are new only: of others their jobs tell.
    fn hinted_list(&mut self, scope: &Scope, repo: &RepoView, tempo: Tempo) {
        if repo.hints.is_empty() {
            return;
        }
        let tried = repo.runs_read.tried_at;
        let hints = repo.hints.iter().filter(|(run, _)| tempo.is_roomy || !repo.runs.contains_key(run));
        let Some(since) = hints.map(|(_, at)| at).filter(|at| tried.is_none_or(|tried| tried < *at)).min() else {
            return;
        };
        if Hints::may_ask(tried, self.now) && self.is_due(&repo.runs_read, TimeDelta::zero()) {
            self.add(Read::Runs(scope.clone(), Depth::New), Purpose::HintedRunList, Rank::First, Some(since));
        }
    }

    /// A list that was never read, or not for too long.
    fn overdue_list(&mut self, scope: &Scope, repo: &RepoView, tempo: Tempo) -> bool {
        let tried = repo.runs_read.tried_at;
        let longest = if tempo.is_roomy { self.interval * NEGLECTED_INTERVALS } else { tempo.longest };
        if tried.is_some_and(|at| self.now - at < longest) {
            return false;
        }
        if self.is_due(&repo.runs_read, longest) {
            let read = Read::Runs(scope.clone(), self.depth(repo, DEEP_AGAIN.0));
            self.add(read, Purpose::UrgentRunList, Rank::Neglected, tried);
        }
        true
    }

    /// A list of an account that affords to read each every interval.
    fn list_in_turn(&mut self, scope: &Scope, repo: &RepoView) {
        let tried = repo.runs_read.tried_at;
        if self.is_due(&repo.runs_read, self.interval) {
            let read = Read::Runs(scope.clone(), self.depth(repo, DEEP_AGAIN.0));
            self.add(read, Purpose::RunList, Rank::Runs, tried);
        } else if repo.active_at.is_some_and(|at| self.now - at < STAYS_ACTIVE)
            && self.is_due(&repo.runs_read, self.interval / 2)
        {
            // It puts off the reading in turn, so it is as deep.
            let read = Read::Runs(scope.clone(), self.depth(repo, DEEP_AGAIN.0));
            self.add(read, Purpose::EarlyRunList, Rank::Early, tried);
        }
    }

    fn depth(&self, repo: &RepoView, again: TimeDelta) -> Depth {
        let is_deep = repo.deep_read_at.is_none_or(|at| self.now - at >= again);
        if is_deep { Depth::Active } else { Depth::New }
    }

    fn score_last(&mut self, score: f64) {
        if let Some(due) = self.due.last_mut() {
            due.score = score;
        }
    }

    /// How long ago the list of a repository was read, in seconds.
    fn age(&self, repo: &RepoView) -> f64 {
        repo.runs_read.tried_at.map_or(LONGEST, |at| (self.now - at).as_seconds_f64())
    }

    fn score(&self, repo: &RepoView, tempo: Tempo, order: ListOrder) -> f64 {
        let age = self.age(repo);
        match order {
            ListOrder::Index => {
                let hinted = number(repo.hints.iter().count()) / HINTED_SECS;
                (repo.activity.rate(tempo.average, self.now) + hinted) * age * age
            }
            ListOrder::Uniform => age,
        }
    }
}

/// Whole seconds.
pub(super) fn seconds(secs: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, reason = "a day at most")]
    TimeDelta::seconds(secs as i64)
}

#[expect(clippy::cast_precision_loss, reason = "a number of lists")]
pub(super) fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::read::Due;
    use super::super::{due, next, sweep_intervals};
    use super::*;
    use crate::budget::Unchanged;
    use crate::evidence::Evidence;
    use crate::ids::RunId;
    use crate::plan::{Limits, Waves};
    use crate::state::{ReachesBack, Registry};
    use chrono::{DateTime, Utc};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(365) + TimeDelta::seconds(seconds)
    }

    pub(in crate::poll) fn policy() -> Policy {
        Policy {
            deployment: "main".parse().unwrap(),
            required_label: "modal".into(),
            accounts: BTreeMap::new(),
            classes: Vec::new(),
            limits: Limits { sandboxes: 1, sandboxes_per_repo: None, gpus: 0, spend_per_day: None },
            waves: Waves { first: 1, first_gpu: 1 },
            claim_window: Duration::from_secs(90),
            interval: Duration::from_secs(10),
            max_interval: Duration::from_secs(900),
            list_order: ListOrder::Index,
            follows_releases: false,
            runner_dir: String::new(),
            prices: crate::cost::Prices::default(),
        }
    }

    fn scope(number: usize) -> Scope {
        Scope { account: "gh".parse().unwrap(), repo: format!("acme/repo-{number:03}").parse().unwrap() }
    }

    /// Repositories whose lists were read so many seconds before `at(0)`.
    fn read_before(ages: &[i64]) -> Observed {
        let mut observed = Observed::default();
        observed.fleet.read.succeeded(at(0));
        for (number, age) in ages.iter().enumerate() {
            let registry = Registry::Repo(scope(number));
            observed.add(scope(number), registry.clone());
            observed.registries.get_mut(&registry).unwrap().runners_read.succeeded(at(0));
            let repo = observed.repos.get_mut(&scope(number)).unwrap();
            repo.runs_read.succeeded(at(-age));
            repo.deep_read_at = Some(at(0));
        }
        observed
    }

    fn capacities(reads_per_second: f64) -> BTreeMap<CredentialName, Capacity> {
        BTreeMap::from([("gh".parse().unwrap(), Capacity { reads_per_second, unchanged: Unchanged::Charged })])
    }

    /// The numbers of the repositories whose lists are due, in order, with what they are charged as.
    fn lists(observed: &Observed, policy: &Policy, reads_per_second: f64, now: i64) -> Vec<(usize, Purpose)> {
        let due = due(observed, &Evidence::default(), policy, &capacities(reads_per_second), at(now));
        let number = |scope: &Scope| scope.repo.as_str().rsplit('-').next().unwrap().parse().unwrap();
        let list = |due: &Due| {
            let Read::Runs(scope, _) = &due.read else { return None };
            Some((number(scope), due.purpose))
        };
        due.iter().filter_map(list).collect()
    }

    #[test]
    fn where_the_budget_allows_it_every_list_is_read_each_interval() {
        let observed = read_before(&[5, 10, 29, 31]);
        let due = lists(&observed, &policy(), 1.0, 0);
        assert_eq!(due, [(3, Purpose::UrgentRunList), (2, Purpose::RunList), (1, Purpose::RunList)]);
        assert_eq!(lists(&observed, &policy(), 1.0, 5).len(), 4);
    }

    #[test]
    fn all_pages_with_active_runs_are_read_each_minute_although_a_list_is_always_read_early() {
        let mut observed = read_before(&[5]);
        let repo = observed.repos.get_mut(&scope(0)).unwrap();
        repo.active_at = Some(at(0));
        let depth = |observed: &Observed| {
            let due = due(observed, &Evidence::default(), &policy(), &capacities(10.0), at(0));
            due.into_iter().find_map(|due| if let Read::Runs(_, depth) = due.read { Some(depth) } else { None })
        };
        assert_eq!(depth(&observed), Some(Depth::New));
        observed.repos.get_mut(&scope(0)).unwrap().deep_read_at = Some(at(-60));
        assert_eq!(depth(&observed), Some(Depth::Active));
    }

    #[test]
    fn where_it_does_not_the_longest_expected_wait_goes_first() {
        let mut observed = read_before(&[1, 20, 30, 40, 30]);
        observed.repos.get_mut(&scope(1)).unwrap().activity.read(2, at(-20));
        let order = |policy: &Policy| -> Vec<usize> {
            lists(&observed, policy, 0.5, 0).into_iter().map(|(number, _)| number).collect()
        };
        assert_eq!(order(&policy()), [1, 3, 2, 4], "the first was read too short a time ago");
        assert_eq!(order(&Policy { list_order: ListOrder::Uniform, ..policy() }), [3, 2, 4, 1]);
    }

    #[test]
    fn no_list_gets_older_than_the_longest_interval() {
        let mut observed = read_before(&[300; 20]);
        observed.repos.get_mut(&scope(3)).unwrap().runs_read.succeeded(at(-900));
        observed.repos.get_mut(&scope(4)).unwrap().runs_read = crate::state::ReadState::default();
        for number in 10..20 {
            observed.repos.get_mut(&scope(number)).unwrap().activity.read(3, at(-300));
        }
        let first = &lists(&observed, &policy(), 0.2, 0)[..3];
        assert_eq!(first[..2], [(4, Purpose::UrgentRunList), (3, Purpose::UrgentRunList)]);
        assert_eq!(first[2].1, Purpose::RunList);
    }

    #[test]
    fn a_paused_repository_has_its_turn_among_lists_that_are_short() {
        let mut observed = read_before(&[300; 40]);
        observed.repos.get_mut(&scope(7)).unwrap().gone_since = Some(at(-5_000));
        let place = |observed: &Observed, now| {
            lists(observed, &policy(), 0.2, now)
                .iter()
                .position(|(number, purpose)| (*number, *purpose) == (7, Purpose::RunList))
        };
        assert_eq!(place(&observed, 0), None, "it is read seldom");
        observed.repos.get_mut(&scope(7)).unwrap().runs_read.succeeded(at(-900));
        assert_eq!(place(&observed, 0), Some(0), "and as others of that age");
    }

    #[test]
    fn what_is_too_old_takes_at_most_half_of_what_lists_get() {
        let hourly = Capacity { reads_per_second: 5_000.0 / 3_600.0, unchanged: Unchanged::Charged };
        assert_eq!(least_longest(500, hourly), TimeDelta::seconds(960));
        assert_eq!(least_longest(500, Capacity::of_points(900.0)), TimeDelta::seconds(178));
        let nothing = Capacity { reads_per_second: 0.0, ..hourly };
        assert_eq!(least_longest(1, nothing), TimeDelta::days(1));
    }

    #[test]
    fn more_lists_than_can_be_read_within_the_longest_interval_are_a_shortfall() {
        let short = |lists: usize, interval: u64, longest: u64| {
            let durations = (Duration::from_secs(interval), Duration::from_secs(longest));
            let policy = Policy { interval: durations.0, max_interval: durations.1, ..policy() };
            let credential: CredentialName = "gh".parse().unwrap();
            let capacities = [(credential.clone(), Capacity::of_points(900.0))].into();
            shortfalls(&[(credential.clone(), lists)].into(), &policy, &capacities).remove(&credential)
        };
        assert_eq!((short(500, 10, 178), short(500, 10, 900)), (None, None));
        assert_eq!(short(501, 10, 178), Some(Shortfall { lists: 501, least: TimeDelta::seconds(179) }));
        assert_eq!(short(56, 10, 10), None, "each is read every interval");
        assert_eq!(lists_of(&read_before(&[1, 2]), &policy()), [("gh".parse().unwrap(), 2)].into());
    }

    #[test]
    fn what_old_runs_seldom_show_takes_at_most_half_of_the_sweeps() {
        let interval = |repos: usize, reads_per_second: f64| {
            let mut observed = read_before(&vec![0; repos]);
            observed.repos.values_mut().for_each(|repo| repo.reaches_back = ReachesBack::NotEnough);
            let intervals = sweep_intervals(&observed, &policy(), &capacities(reads_per_second));
            intervals.into_values().map(|interval| interval.num_seconds()).collect::<Vec<_>>()
        };
        let hourly = 5_000.0 / 3_600.0;
        assert_eq!([0, 1, 1_000].map(|repos| interval(repos, hourly)), [[600], [600], [21_600]]);
        // Of sweeps, a twentieth of all, usual ones get what rare ones leave: 300 / (0.375 - 450 / 21,600) / 0.9 s.
        assert_eq!(interval(150, 7.5), [941]);
        // 600 / (5,000 / 3,600 / 40) / 0.9 s.
        assert_eq!(interval(300, hourly), [19_200]);
    }

    #[test]
    fn a_hint_makes_a_list_due_at_once_and_once() {
        let mut observed = read_before(&[4, 4]);
        observed.repos.get_mut(&scope(1)).unwrap().hints.add(RunId(7), at(0));
        assert_eq!(lists(&observed, &policy(), 0.1, 0)[0], (1, Purpose::HintedRunList));
        let hinted = observed.repos.get_mut(&scope(1)).unwrap();
        hinted.runs_read.succeeded(at(0));
        assert!(lists(&observed, &policy(), 0.1, 1).iter().all(|(number, _)| *number != 1), "it was read since");
        observed.repos.get_mut(&scope(1)).unwrap().hints.add(RunId(8), at(0) + TimeDelta::milliseconds(400));
        let soon = lists(&observed, &policy(), 0.1, 0);
        assert!(soon.iter().all(|(number, _)| *number != 1), "not within a second of the last");
        assert_eq!(lists(&observed, &policy(), 0.1, 1)[0], (1, Purpose::HintedRunList));
    }

    #[test]
    fn a_run_that_somebody_spoke_of_and_no_list_shows_is_looked_up() {
        let mut observed = read_before(&[0]);
        observed.repos.get_mut(&scope(0)).unwrap().hints.add(RunId(7), at(-5));
        let is_asked = |observed: &Observed| {
            let due = due(observed, &Evidence::default(), &policy(), &capacities(1.0), at(0));
            due.iter().any(|due| due.read == Read::Run(scope(0), RunId(7)))
        };
        assert!(is_asked(&observed));
        let repo = observed.repos.get_mut(&scope(0)).unwrap();
        repo.hints.asked(at(0));
        assert!(!is_asked(&observed), "at most once a second");
        observed.repos.get_mut(&scope(0)).unwrap().hints.seen(RunId(7), at(0));
        assert!(!is_asked(&observed));
    }

    #[test]
    fn the_loop_sleeps_until_the_next_reading_is_admitted() {
        let observed = read_before(&[60, 60]);
        let until = |admitted: Option<i64>, policy: &Policy| {
            let admitted = admitted.map(|millis| at(0) + TimeDelta::milliseconds(millis));
            (next(&observed, policy, admitted, at(0)) - at(0)).num_milliseconds()
        };
        assert_eq!([None, Some(400), Some(5_000)].map(|admitted| until(admitted, &policy())), [100, 400, 1_000]);
        let slow = Policy { interval: Duration::from_secs(600), ..policy() };
        assert_eq!(until(None, &slow), 5_000, "a long interval makes nothing else late");
    }
}
