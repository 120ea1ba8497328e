//! What was observed that makes readings due.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::evidence::{ADVANCED_HOLDS, Evidence, NameEvidence, end_reason};
use crate::ids::{Fingerprint, OurName, RunId};
use crate::plan::{LISTS_LAG, may_have_served};
use crate::runner::Exit;
use crate::state::{
    Connection, JobStatus, Observed, OurSandbox, Registry, RegistryView, RepoView, RunStatus, RunView, Runner, Scope,
    WorkflowJob,
};

/// A registration that a failed create left appears in lists within this time: they lag, and GitHub may still
/// carry out a request that it answered with an error.
const LEFTOVER_APPEARS: TimeDelta = TimeDelta::minutes(2);

/// Registries with a sandbox that is not known to be claimed, or that ended without serving while its
/// registration was not looked at since; and those with a registration that a failed create may have left.
pub(super) fn unsettled<'a>(observed: &'a Observed, evidence: &'a Evidence) -> BTreeSet<&'a Registry> {
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
pub(super) fn fences<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeMap<&'a Registry, DateTime<Utc>> {
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
pub(super) fn trials<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeMap<(&'a Scope, RunId), DateTime<Utc>> {
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

/// Where runners are registered, and with which labels.
type Group<'a> = (&'a Registry, Fingerprint);

/// A run with queued jobs for none of which a runner was made; those read the longest ago come first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Untried<'a> {
    read_at: DateTime<Utc>,
    scope: &'a Scope,
    run: RunId,
}

/// When a list has to be read that tells whether a job is queued again which was seen beyond that, less what lists lag.
pub(super) fn advanced(run: &RunView, evidence: &Evidence) -> Option<DateTime<Utc>> {
    let queued = run.jobs.values().filter(|job| job.status == JobStatus::Queued);
    let advanced = queued.filter_map(|job| evidence.jobs.get(&job.id)?.advanced_at);
    let is_unread = |at: &DateTime<Utc>| run.jobs_read.known_at.is_none_or(|read| read - *at < ADVANCED_HOLDS);
    advanced.filter(is_unread).max().map(|at| at + ADVANCED_HOLDS - LISTS_LAG)
}

/// Where else it may show which jobs runners took that ended unseen, since when: GitHub gives a runner any job of its
/// labels, and its end counts as supply until that is known. Of each group these are as many runs that nothing was made
/// for as there are such runners, those read the longest ago; so many are read within `pace`.
pub(super) fn suspects<'a>(
    observed: &'a Observed,
    evidence: &Evidence,
    pace: TimeDelta,
    now: DateTime<Utc>,
) -> BTreeMap<(&'a Scope, RunId), DateTime<Utc>> {
    let mut ends: BTreeMap<Group<'_>, Vec<DateTime<Utc>>> = BTreeMap::new();
    // What is known of a name is of its last registration.
    let known_of = |name, runner| {
        let last = observed.fleet.sandboxes.get(name).is_none_or(|last| last.runner == runner);
        evidence.names.get(name).filter(|_| last)
    };
    for (name, sandbox) in observed.fleet.sandboxes.iter().chain(&observed.fleet.replaced) {
        let Some(ended) = sandbox.ended.as_ref().filter(|ended| ended.at + LISTS_LAG <= now) else { continue };
        let origin = &sandbox.origin;
        // The run that it was made for comes first.
        let own = observed.repos.get(&origin.scope).and_then(|repo| repo.runs.get(&origin.run));
        let is_read = own.is_none_or(|run| run.jobs_read.known_at.is_some_and(|at| at >= ended.at + LISTS_LAG));
        let known = known_of(name, sandbox.runner);
        if is_read && known.is_none_or(|known| known.claim.is_none()) && may_have_served(sandbox, known) {
            let Some((registry, _)) = observed.registry(&origin.scope) else { continue };
            ends.entry((registry, origin.group)).or_default().push(ended.at);
        }
    }
    let mut runs: BTreeMap<Group<'_>, Vec<Untried<'_>>> = BTreeMap::new();
    for (scope, repo) in observed.repos.iter().filter(|_| !ends.is_empty()) {
        for run in repo.runs.values().filter(|run| run.run.status != RunStatus::Completed) {
            let Some(read_at) = run.jobs_read.known_at else { continue };
            for labels in untried(run, evidence) {
                if ends.contains_key(&(&repo.registry, labels)) {
                    runs.entry((&repo.registry, labels)).or_default().push(Untried { read_at, scope, run: run.run.id });
                }
            }
        }
    }
    let mut suspects = BTreeMap::new();
    for (group, mut runs) in runs {
        let ends = &ends[&group];
        let last = ends.iter().max().copied().unwrap_or(now);
        let recent = runs.iter().filter(|run| now - run.read_at < pace).count();
        runs.sort_unstable();
        let unread = runs.into_iter().take_while(|run| run.read_at < last + LISTS_LAG);
        suspects.extend(unread.take(ends.len().saturating_sub(recent)).map(|run| ((run.scope, run.run), last)));
    }
    suspects
}

/// The label sets of the queued jobs of a run for none of which a runner was made.
fn untried(run: &RunView, evidence: &Evidence) -> BTreeSet<Fingerprint> {
    let queued = || run.jobs.values().filter(|job| job.status == JobStatus::Queued);
    let is_tried = |job: &WorkflowJob| evidence.jobs.get(&job.id).is_some_and(|known| known.attempt > 0);
    if queued().any(is_tried) {
        return BTreeSet::new();
    }
    queued().map(|job| job.labels.fingerprint()).collect()
}

/// Whether nothing of a run moves, as far as was read: no runner is being tried on it, and each job has ended, or is
/// queued although a runner waited for it in vain.
pub(super) fn is_stuck(run: &RunView, tried_until: Option<DateTime<Utc>>, evidence: &Evidence) -> bool {
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

/// Whether a registration may have to be deleted soon, or was shown a moment ago and a single list lacks it, or seems to
/// run in a sandbox that no list shows: until it is gone, it takes room.
pub(super) fn has_leftover(view: &RegistryView, observed: &Observed, evidence: &Evidence) -> bool {
    let read_at = view.runners_read.known_at;
    let is_over = |name: &OurName| evidence.names.get(name).is_some_and(|known| known.has_ended_since(read_at));
    let is_leftover = |name: &OurName, runner: &Runner| {
        !observed.fleet.sandboxes.contains_key(name) && (runner.connection != Connection::Online || !is_over(name))
    };
    let is_lacked_once = view.lacked_at.is_some_and(|at| view.runners_read.known_at.is_none_or(|read| read <= at));
    is_lacked_once || view.runners.iter().any(|(name, runner)| is_leftover(name, runner))
}

/// Registries that were never read, in which something may be created soon, or may be left of an earlier process.
pub(super) fn wanting<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeSet<&'a Registry> {
    let has_queued =
        |repo: &&RepoView| repo.runs.values().any(|run| run.jobs.values().any(|job| job.status == JobStatus::Queued));
    let is_unread = |repo: &&RepoView| {
        observed.registries.get(&repo.registry).is_some_and(|view| view.runners_read.known_at.is_none())
    };
    let of_jobs = observed.repos.values().filter(has_queued);
    let remembered = evidence.names.values().filter(|known| known.fenced_at.is_none());
    let scopes = remembered.filter_map(|known| Some(&known.origin.as_ref()?.scope));
    let of_names = scopes.filter_map(|scope| observed.repos.get(scope));
    of_jobs.chain(of_names).filter(is_unread).map(|repo| &repo.registry).collect()
}

#[cfg(test)]
mod tests {
    use super::super::lists::tests::policy;
    use super::super::{Breadth, Read, due};
    use super::*;
    use crate::budget::{Capacity, Unchanged};
    use crate::class::Risks;
    use crate::ids::{ClassName, JobId, Labels, RunnerId, SandboxId};
    use crate::state::{
        Ended, NeedsJobs, Origin, ReachesBack, ReadState, ReadTimes, SandboxEnd, SandboxResult, WorkflowRun,
    };

    /// Exit codes of the supervisor.
    const SERVED: i32 = 0;
    const UNCLAIMED: i32 = 64;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn scope() -> Scope {
        Scope { account: "gh".parse().unwrap(), repo: "acme/web".parse().unwrap() }
    }

    /// A run in progress with one queued job of the same number.
    fn run(number: u64, label: &str, read_at: i64) -> RunView {
        let id = RunId(number);
        let job = WorkflowJob {
            id: JobId(number),
            run_id: id,
            run_attempt: 1,
            status: JobStatus::Queued,
            labels: Labels::new([label.to_owned()]),
            runner_name: None,
            runner_id: None,
            created_at: None,
            started_at: None,
            completed_at: None,
            name: "test".into(),
        };
        let status = RunStatus::InProgress;
        let mut view = RunView {
            run: WorkflowRun {
                id,
                attempt: 1,
                status,
                created_at: None,
                updated_at: None,
                workflow: None,
                risks: Risks::NONE,
            },
            first_listed_at: at(0),
            changed_at: at(0),
            listed_at: at(0),
            asked_at: None,
            gone_at: None,
            jobs: BTreeMap::from([(job.id, job)]),
            jobs_read: ReadState::default(),
            needs_jobs: NeedsJobs::InTurn,
            emptied_at: None,
            partly_read: BTreeMap::new(),
        };
        view.jobs_read.succeeded(at(read_at));
        view
    }

    /// One that was made for the run and ended at a time with an exit code.
    fn ended(number: u64, ended_at: i64, exit_code: i32) -> (OurName, OurSandbox) {
        let result = SandboxResult { status: SandboxEnd::Failure, exit_code, message: String::new() };
        let sandbox = OurSandbox {
            id: SandboxId::new(format!("sb-{number}")),
            origin: Origin {
                scope: scope(),
                run: RunId(number),
                class: ClassName::new("cpu"),
                group: Labels::new(["modal".to_owned()]).fingerprint(),
                machine: crate::class::Machine::default(),
            },
            created_at: at(0),
            is_scheduled: true,
            scheduled_at: None,
            started_at: None,
            secret: None,
            runner: None,
            image: None,
            task: None,
            resources: crate::cost::Resources::default(),
            seen_at: at(0),
            missing_since: None,
            asked_at: None,
            unknown_since: None,
            ended: Some(Ended { at: at(ended_at), result: Some(result) }),
        };
        (format!("sr-main-gh-{number}-1").parse().unwrap(), sandbox)
    }

    #[test]
    fn runners_are_read_again_a_minute_after_the_answer() {
        let mut observed = Observed::default();
        let registry = Registry::Repo(scope());
        observed.add(scope(), registry.clone());
        observed.fleet.read.succeeded(at(0));
        let times = ReadTimes { began: at(0), answered: at(15) };
        observed.registries.get_mut(&registry).unwrap().runners_read.answered(times);
        let (name, sandbox) = ended(1, 0, SERVED);
        observed.fleet.sandboxes.insert(name, OurSandbox { ended: None, ..sandbox });
        let is_due = |now: i64| {
            let capacity = Capacity { reads_per_second: 10.0, unchanged: Unchanged::Free };
            let capacities = BTreeMap::from([("gh".parse().unwrap(), capacity)]);
            let due = due(&observed, &Evidence::default(), &policy(), &capacities, at(now));
            due.iter().any(|due| matches!(due.read, Read::Runners(_)))
        };
        assert_eq!([74, 75].map(is_due), [false, true]);
    }

    #[test]
    fn what_a_runner_took_of_another_run_is_looked_for_in_the_runs_of_its_labels() {
        let mut observed = Observed::default();
        let registry = Registry::Repo(scope());
        observed.add(scope(), registry);
        let runs = [run(1, "modal", 200), run(2, "modal", 90), run(3, "modal", 80), run(4, "other", 10)];
        let tried = run(5, "modal", 70);
        let repo = observed.repos.get_mut(&scope()).unwrap();
        repo.runs = runs.into_iter().chain([tried]).map(|run| (run.run.id, run)).collect();
        let mut evidence = Evidence::default();
        for tried in [1, 5] {
            let name = format!("sr-main-gh-{tried}-1").parse().unwrap();
            evidence.started(&name, &ended(tried, 100, SERVED).1.origin, at(0));
        }
        observed.fleet.sandboxes.extend([ended(1, 100, SERVED)]);
        let suspects = |observed: &Observed, now| -> Vec<u64> {
            let pace = TimeDelta::seconds(20);
            suspects(observed, &evidence, pace, at(now)).into_keys().map(|(_, run)| run.0).collect()
        };
        assert_eq!(suspects(&observed, 110), [0; 0], "the lists may lag");
        assert_eq!(suspects(&observed, 210), [3], "of its labels, without a runner of its own, read the longest ago");
        let read = |observed: &mut Observed, run: u64, read_at| {
            let run = observed.repos.get_mut(&scope()).unwrap().runs.get_mut(&RunId(run)).unwrap();
            run.jobs_read.succeeded(at(read_at));
        };
        read(&mut observed, 3, 210);
        assert_eq!(suspects(&observed, 211), [0; 0], "one at a time");
        assert_eq!(suspects(&observed, 230), [2]);
        observed.fleet.sandboxes.extend([ended(6, 100, SERVED)]);
        assert_eq!(suspects(&observed, 211), [2], "as many as runners");
        observed.fleet.sandboxes.clear();
        observed.fleet.sandboxes.extend([ended(1, 100, UNCLAIMED)]);
        assert_eq!(suspects(&observed, 230), [0; 0], "it took none");
    }

    #[test]
    fn the_jobs_of_a_run_are_due_where_a_runner_of_another_may_have_taken_one() {
        let mut observed = Observed::default();
        observed.add(scope(), Registry::Repo(scope()));
        let repo = observed.repos.get_mut(&scope()).unwrap();
        repo.runs = [run(1, "modal", 130), run(2, "modal", 80)].into_iter().map(|run| (run.run.id, run)).collect();
        let mut evidence = Evidence::default();
        let (name, sandbox) = ended(1, 100, SERVED);
        evidence.started(&name, &sandbox.origin, at(0));
        let is_due = |observed: &Observed| {
            let due = due(observed, &evidence, &policy(), &BTreeMap::new(), at(140));
            due.iter().any(|due| due.read == Read::Jobs(scope(), RunId(2)))
        };
        assert!(!is_due(&observed), "it was read a minute ago");
        observed.fleet.sandboxes.insert(name, sandbox);
        assert!(is_due(&observed));
    }

    #[test]
    fn a_job_that_went_back_to_queued_is_looked_at_once_more_when_that_can_be_believed() {
        let mut observed = Observed::default();
        observed.add(scope(), Registry::Repo(scope()));
        let repo = observed.repos.get_mut(&scope()).unwrap();
        repo.runs = [run(1, "modal", 110)].into_iter().map(|run| (run.run.id, run)).collect();
        let mut evidence = Evidence::default();
        let (name, sandbox) = ended(1, 90, SERVED);
        evidence.started(&name, &sandbox.origin, at(0));
        let known = evidence.jobs.get_mut(&JobId(1)).unwrap();
        (known.attempt, known.advanced_at) = (0, Some(at(100)));
        let is_due = |evidence: &Evidence, now: i64| {
            let due = due(&observed, evidence, &policy(), &BTreeMap::new(), at(now));
            due.iter().any(|due| due.read == Read::Jobs(scope(), RunId(1)))
        };
        assert_eq!([159, 160].map(|now| is_due(&evidence, now)), [false, true]);
        evidence.jobs.get_mut(&JobId(1)).unwrap().advanced_at = Some(at(50));
        assert!(!is_due(&evidence, 160), "it was read a minute after that");
    }

    #[test]
    fn after_a_fence_old_runs_are_swept_for_the_job_of_that_runner() {
        let mut observed = Observed::default();
        observed.add(scope(), Registry::Repo(scope()));
        let repo = observed.repos.get_mut(&scope()).unwrap();
        repo.reaches_back = ReachesBack::NotEnough;
        repo.swept.succeeded(at(80));
        repo.swept_rare.succeeded(at(90));
        let (name, mut sandbox) = ended(1, 100, SERVED);
        sandbox.ended = None;
        observed.fleet.sandboxes.insert(name.clone(), sandbox.clone());
        let mut evidence = Evidence::default();
        evidence.started(&name, &sandbox.origin, at(0));
        let sweeps = |observed: &Observed, evidence: &Evidence, now| -> Vec<Breadth> {
            let due = due(observed, evidence, &policy(), &BTreeMap::new(), at(now));
            due.into_iter()
                .filter_map(|due| if let Read::Sweep(_, breadth) = due.read { Some(breadth) } else { None })
                .collect()
        };
        assert_eq!(sweeps(&observed, &evidence, 200), []);
        evidence.names.get_mut(&name).unwrap().fenced_at = Some(at(100));
        assert_eq!(sweeps(&observed, &evidence, 105), [], "the lists may lag");
        assert_eq!(sweeps(&observed, &evidence, 200), [Breadth::Usual, Breadth::Rare]);
        let repo = observed.repos.get_mut(&scope()).unwrap();
        repo.swept.succeeded(at(150));
        repo.swept_rare.succeeded(at(150));
        assert_eq!(sweeps(&observed, &evidence, 200), []);
    }

    #[test]
    fn what_an_earlier_process_made_is_looked_for_at_once() {
        let mut observed = Observed::default();
        let registry = Registry::Repo(scope());
        observed.add(scope(), registry.clone());
        let mut evidence = Evidence::default();
        assert!(wanting(&observed, &evidence).is_empty());
        let (name, sandbox) = ended(1, 100, SERVED);
        evidence.started(&name, &sandbox.origin, at(0));
        assert_eq!(wanting(&observed, &evidence), BTreeSet::from([&registry]));
        observed.registries.get_mut(&registry).unwrap().runners_read.succeeded(at(10));
        assert!(wanting(&observed, &evidence).is_empty(), "it was looked for");
    }

    #[test]
    fn what_one_list_lacks_is_looked_for_once_more() {
        let (observed, mut view) = (Observed::default(), RegistryView::default());
        let has_leftover = |view: &RegistryView| has_leftover(view, &observed, &Evidence::default());
        view.runners_read.succeeded(at(60));
        assert!(!has_leftover(&view));
        view.lacked_at = Some(at(60));
        assert!(has_leftover(&view));
        view.runners_read.succeeded(at(120));
        assert!(!has_leftover(&view), "two lists agree");
    }

    #[test]
    fn a_runner_whose_sandbox_no_list_shows_is_looked_for_until_it_is_gone() {
        let (mut observed, mut evidence, mut view) =
            (Observed::default(), Evidence::default(), RegistryView::default());
        view.runners_read.succeeded(at(60));
        let (name, sandbox) = ended(1, 100, SERVED);
        let runner = Runner {
            id: RunnerId(1),
            name: name.to_string(),
            connection: Connection::Online,
            is_busy: true,
            labels: None,
            version: None,
        };
        view.runners.insert(name.clone(), runner);
        assert!(has_leftover(&view, &observed, &evidence), "it takes room");
        evidence.started(&name, &sandbox.origin, at(0));
        evidence.names.get_mut(&name).unwrap().ended_at = Some(at(100));
        assert!(!has_leftover(&view, &observed, &evidence), "that was before its sandbox ended");
        view.runners_read.succeeded(at(120));
        assert!(has_leftover(&view, &observed, &evidence));
        observed.fleet.sandboxes.insert(name, sandbox);
        assert!(!has_leftover(&view, &observed, &evidence));
    }
}
