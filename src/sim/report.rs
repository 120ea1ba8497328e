//! Judges a run by the World's history alone.

mod tally;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::history::{Cause, Event};
use super::scenario::{Scenario, SkipReason};
use tally::Tally;

/// How long jobs waited, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PickupSeconds {
    /// Half waited at most this long.
    pub p50: f64,
    /// 95 % waited at most this long.
    pub p95: f64,
    /// The longest wait.
    pub max: f64,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// The profile by which the services behaved.
    pub profile: String,
    /// Jobs that should be served: those of the scenario's rule that were not cancelled before a runner
    /// took them.
    pub jobs_expected: usize,
    /// Of those, how many ran to their end.
    pub jobs_completed: usize,
    /// Jobs that should not be served, by reason.
    pub jobs_skipped: BTreeMap<SkipReason, usize>,
    /// Jobs that should have been served and were cancelled while queued.
    pub jobs_cancelled: usize,
    /// Jobs that were lost because Modal ended their sandbox by itself; they are not expected to complete.
    pub jobs_preempted: usize,
    /// Sandboxes of ours that were created.
    pub sandboxes_created: usize,
    /// Sandboxes of ours that live.
    pub sandboxes_live_at_end: usize,
    /// Registrations of ours that exist.
    pub runners_left_at_end: usize,
    /// Modal Secrets that exist, each with a JIT config.
    pub secrets_left_at_end: usize,
    /// Sandboxes of ours that ended without ever being given a job.
    pub surplus_runners: usize,
    /// How many of them are explained, and by what: `larger_label_set`, `foreign_take`, `cancellation`,
    /// `failed_start`, `fault`. Counted per repository and label set.
    pub surplus_explained: BTreeMap<&'static str, usize>,
    /// Sandboxes that were terminated while they ran a job.
    pub claimed_sandboxes_terminated: usize,
    /// Calls that deleted or terminated something that is not ours.
    pub foreign_touched: usize,
    /// From a job's being queued to its assignment, without the boot of the sandbox that took it.
    pub pickup_seconds: PickupSeconds,
    /// The same with the boot.
    pub pickup_with_boot_seconds: PickupSeconds,
    /// Calls of GitHub.
    pub github_requests: usize,
    /// Calls of GitHub that were answered with 304.
    pub github_not_modified: usize,
    /// Calls of GitHub that were answered with a rate limit.
    pub github_rate_limited: usize,
    /// The most points of one token in any 60 s.
    pub github_points_per_minute_peak: u32,
    /// Calls of Modal.
    pub modal_requests: usize,
    /// From the first event to the last, on the World's clock.
    pub virtual_seconds: f64,
    /// What must not happen and did, each with the ids it concerns.
    pub violations: Vec<String>,
}

impl Report {
    /// Judges a history against what its scenario expects.
    pub fn from_history(events: &[Event], scenario: &Scenario) -> Self {
        let mut tally = Tally::default();
        for event in events {
            tally.take(event);
        }
        let mut report = Self {
            sandboxes_created: tally.sandboxes.values().filter(|sandbox| sandbox.is_ours()).count(),
            claimed_sandboxes_terminated: tally.claimed_terminated.len(),
            foreign_touched: tally.foreign_touched.len(),
            github_requests: tally.github_requests,
            github_not_modified: tally.github_not_modified,
            github_rate_limited: tally.github_rate_limited,
            github_points_per_minute_peak: tally.points.peak,
            modal_requests: tally.modal_requests,
            secrets_left_at_end: tally.secrets.len(),
            virtual_seconds: tally.span_seconds(),
            ..Self::default()
        };
        report.judge_jobs(&tally, scenario);
        report.judge_leftovers(&tally);
        report.judge_surplus(&tally);
        report.judge_pickup(&tally, scenario);
        report.judge_calls(&tally, scenario);
        report
    }

    fn judge_jobs(&mut self, tally: &Tally, scenario: &Scenario) {
        for (job, skip) in scenario.judged_jobs() {
            if let Some(reason) = skip {
                *self.jobs_skipped.entry(reason).or_default() += 1;
                let is_strange = matches!(reason, SkipReason::Fork | SkipReason::PublicRepo);
                if is_strange && tally.ran_with_us(job.id) {
                    self.violations.push(format!("job {} of {} ran although it is not trusted", job.id, job.repo));
                }
                continue;
            }
            match tally.jobs.get(&job.id).and_then(|seen| seen.cause) {
                Some(Cause::CancelledQueued) => self.jobs_cancelled += 1,
                Some(Cause::Ran | Cause::CancelledRunning) => {
                    self.jobs_expected += 1;
                    self.jobs_completed += 1;
                }
                Some(Cause::Refused) => {
                    self.jobs_expected += 1;
                    self.violations.push(format!("job {} of {} was refused by its sandbox", job.id, job.repo));
                }
                Some(Cause::RunnerLost) if tally.was_preempted(job.id) => self.jobs_preempted += 1,
                Some(Cause::RunnerLost) => {
                    self.jobs_expected += 1;
                    self.violations.push(format!("job {} of {} was lost with its runner", job.id, job.repo));
                }
                None => {
                    self.jobs_expected += 1;
                    self.violations.push(format!("job {} of {} was expected and did not complete", job.id, job.repo));
                }
            }
        }
    }

    fn judge_leftovers(&mut self, tally: &Tally) {
        for (id, sandbox) in tally.sandboxes.iter().filter(|(_, sandbox)| sandbox.is_ours() && !sandbox.has_ended()) {
            self.sandboxes_live_at_end += 1;
            self.violations.push(format!("sandbox {id} ({}) is alive at the end", sandbox.name));
        }
        for ((repo, name), _) in tally.runners.iter().filter(|(_, runner)| runner.is_ours && !runner.is_removed()) {
            self.runners_left_at_end += 1;
            self.violations.push(format!("runner {name} of {repo} is registered at the end"));
        }
        for text in &tally.claimed_terminated {
            self.violations.push(format!("a sandbox was terminated while it ran a job: {text}"));
        }
        for text in &tally.foreign_touched {
            self.violations.push(format!("something foreign was touched: {text}"));
        }
    }

    fn judge_surplus(&mut self, tally: &Tally) {
        let mut unexplained = tally.surplus();
        self.surplus_runners = unexplained.values().map(Vec::len).sum();
        for (group, names) in &mut unexplained {
            for (kind, count) in tally.excuses(group) {
                let covered = count.min(names.len());
                names.truncate(names.len() - covered);
                if covered > 0 {
                    *self.surplus_explained.entry(kind).or_default() += covered;
                }
            }
        }
        for ((repo, labels), names) in unexplained.iter().filter(|(_, names)| !names.is_empty()) {
            let names = names.join(", ");
            self.violations.push(format!("surplus in {repo} [{labels}] that nothing explains: {names}"));
        }
    }

    fn judge_pickup(&mut self, tally: &Tally, scenario: &Scenario) {
        let expected = scenario.expected_jobs();
        let (mut bare, mut with_boot) = (Vec::new(), Vec::new());
        for (_, job) in tally.jobs.iter().filter(|(id, _)| expected.contains(id)) {
            if let Some(wait) = tally.pickup(job) {
                bare.push(wait.without_boot);
                with_boot.push(wait.with_boot);
            }
        }
        self.pickup_seconds = percentiles(bare);
        self.pickup_with_boot_seconds = percentiles(with_boot);
    }

    fn judge_calls(&mut self, tally: &Tally, scenario: &Scenario) {
        for text in &tally.limited {
            self.violations.push(format!("a rate limit was hit: {text}"));
        }
        for (config, sandboxes) in &tally.configs {
            let put_off = sandboxes.first().and_then(|name| tally.put_off.get(name)).copied().unwrap_or_default();
            if sandboxes.len() <= 1 + put_off {
                continue;
            }
            self.violations.push(format!("JIT config {config} was used by {}", sandboxes.join(", ")));
        }
        for text in &tally.doubled_names {
            self.violations.push(format!("two live sandboxes of one name: {text}"));
        }
        let mut allowed: BTreeSet<String> = scenario.allowed_repos().iter().map(ToString::to_string).collect();
        allowed.extend(scenario.organizations.iter().map(|organization| organization.name.to_lowercase()));
        for ((repo, name), _) in tally.runners.iter().filter(|((repo, _), _)| !allowed.contains(&**repo)) {
            self.violations.push(format!("runner {name} was minted for {repo}, which is not allowed"));
        }
    }
}

/// The nearest-rank percentiles.
fn percentiles(mut values: Vec<f64>) -> PickupSeconds {
    values.sort_by(f64::total_cmp);
    let rank = |percent: usize| {
        let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
        values.get(index).copied().unwrap_or_default()
    };
    PickupSeconds { p50: rank(50), p95: rank(95), max: rank(100) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::{DateTime, TimeDelta};

    use super::super::fault::FaultMode;
    use super::super::history::{LimitKind, Operation, RemovalReason, Service, What};
    use super::super::scenario::{Conclusion, ScenarioJob, ScenarioRepo};
    use super::*;

    const JOB: u64 = 5_000_000_000;

    /// A history written by hand: each event with its second.
    fn report(events: Vec<(i64, What)>, jobs: u64) -> Report {
        let events: Vec<Event> = events
            .into_iter()
            .zip(0..)
            .map(|((second, what), seq)| Event { seq, at: DateTime::UNIX_EPOCH + TimeDelta::seconds(second), what })
            .collect();
        let job = |id| ScenarioJob {
            id,
            run: 1,
            attempt: 1,
            repo: "acme/web".to_owned(),
            name: "job".to_owned(),
            labels: vec!["modal".to_owned()],
            arrival_secs: 0.0,
            duration_secs: 1.0,
            stage: 0,
            waiting_secs: 0.0,
            cancel_secs: None,
            conclusion: Conclusion::Success,
        };
        let scenario = Scenario {
            repos: vec![ScenarioRepo::served("acme/web")],
            jobs: (JOB..JOB + jobs).map(job).collect(),
            ..Scenario::default()
        };
        Report::from_history(&events, &scenario)
    }

    fn repo() -> Arc<str> {
        "acme/web".into()
    }

    fn queued(job: u64) -> What {
        What::JobQueued { job, run: 1, attempt: 1, repo: repo(), labels: vec!["modal".to_owned()], skip: None }
    }

    fn registered(runner: &str) -> What {
        let labels = vec!["modal".to_owned()];
        What::RunnerRegistered {
            repo: repo(),
            runner_id: 1,
            runner: runner.to_owned(),
            labels,
            config: runner.to_owned(),
        }
    }

    fn created(sandbox: &str, name: &str) -> What {
        let config = Some(name.to_owned());
        What::SandboxCreated {
            sandbox: sandbox.into(),
            name: name.to_owned(),
            gpu: false,
            gpus: 0,
            config,
            tags: BTreeMap::new(),
            timeout_secs: 0,
        }
    }

    fn online(sandbox: &str, runner: &str) -> What {
        What::RunnerOnline { repo: repo(), runner: runner.to_owned(), sandbox: Some(sandbox.into()) }
    }

    fn assigned(job: u64, sandbox: &str, runner: &str) -> What {
        What::JobAssigned { job, repo: repo(), runner: runner.to_owned(), sandbox: Some(sandbox.into()) }
    }

    fn completed(job: u64, cause: Cause) -> What {
        What::JobCompleted { job, repo: repo(), conclusion: Conclusion::Success, cause }
    }

    fn removed(runner: &str, reason: RemovalReason) -> What {
        What::RunnerRemoved { repo: repo(), runner: runner.to_owned(), reason }
    }

    fn ended(sandbox: &str, name: &str, status: i32) -> What {
        What::SandboxEnded { sandbox: sandbox.into(), name: name.to_owned(), status, exit_code: 0, dollars: 0.0 }
    }

    const ONE: &str = "sr-a-b-1-1";
    const TWO: &str = "sr-a-b-2-1";

    #[test]
    fn pickup_is_counted_with_and_without_the_boot_of_the_sandbox_that_took_the_job() {
        let report = report(
            vec![
                (0, queued(JOB)),
                (10, registered(ONE)),
                (10, created("sb-1", ONE)),
                (25, online("sb-1", ONE)),
                (26, assigned(JOB, "sb-1", ONE)),
                (90, completed(JOB, Cause::Ran)),
                (90, removed(ONE, RemovalReason::JobDone)),
                (91, ended("sb-1", ONE, 1)),
            ],
            1,
        );
        assert_eq!(report.violations, Vec::<String>::new());
        assert_eq!(report.pickup_seconds, PickupSeconds { p50: 11.0, p95: 11.0, max: 11.0 });
        assert_eq!(report.pickup_with_boot_seconds, PickupSeconds { p50: 26.0, p95: 26.0, max: 26.0 });
        assert_eq!((report.virtual_seconds, report.jobs_completed), (91.0, 1));
    }

    /// A create of Modal's, as it was answered.
    fn create_call(name: &str, status: u16) -> What {
        What::Call {
            service: Service::Modal,
            operation: Operation::Create,
            status,
            points: 0,
            token: "a".into(),
            limited: None,
            subject: String::new(),
            client: 0,
            target: name.to_owned(),
            wait_secs: None,
            delay_secs: 0.0,
            page: None,
            more: false,
            quota: None,
        }
    }

    #[test]
    fn a_config_is_used_again_by_modal_alone_where_it_carries_a_refused_create_out() {
        let struck = What::FaultStruck {
            operation: Operation::Create,
            mode: FaultMode::AppliedLate,
            subject: "".into(),
            fault: "late".into(),
        };
        let twice = |first: Vec<(i64, What)>| {
            let creates = [(2, created("sb-1", ONE)), (2, create_call(ONE, 0)), (9, ended("sb-1", ONE, 1))];
            let late = [(300, created("sb-2", ONE)), (310, ended("sb-2", ONE, 1))];
            report([vec![(0, registered(ONE))], first, creates.to_vec(), late.to_vec()].concat(), 0)
        };
        let is_reused = |report: &Report| report.violations.iter().any(|text| text.starts_with("JIT config"));
        assert!(!is_reused(&twice(vec![(1, struck.clone()), (1, create_call(ONE, 14))])));
        assert!(is_reused(&twice(vec![(1, struck), (1, create_call(TWO, 14))])), "another's create was put off");
        assert!(is_reused(&twice(vec![(1, create_call(ONE, 14))])), "a refusal alone is none");
    }

    #[test]
    fn what_is_left_and_what_is_lost_is_a_violation_each() {
        let terminated = What::TerminateAsked { sandbox: "sb-1".into(), name: ONE.to_owned(), job: Some(JOB) };
        let foreign = What::TerminateAsked { sandbox: "sb-9".into(), name: "notebook".to_owned(), job: None };
        let deleted = What::RunnerDeleteAsked { repo: repo(), runner: "box".to_owned(), deleted: true };
        let report = report(
            vec![
                (0, queued(JOB)),
                (0, registered(ONE)),
                (0, created("sb-1", ONE)),
                (1, created("sb-2", ONE)),
                (5, online("sb-1", ONE)),
                (6, assigned(JOB, "sb-1", ONE)),
                (7, terminated),
                (8, foreign),
                (8, deleted),
                (9, ended("sb-1", ONE, 3)),
                (600, completed(JOB, Cause::RunnerLost)),
            ],
            2,
        );
        let all = report.violations.join("\n");
        for expected in [
            "job 5000000000 of acme/web was lost with its runner",
            "job 5000000001 of acme/web was expected and did not complete",
            "sandbox sb-2 (sr-a-b-1-1) is alive at the end",
            "runner sr-a-b-1-1 of acme/web is registered at the end",
            "terminated while it ran a job: sb-1 (sr-a-b-1-1), job 5000000000",
            "touched: SandboxTerminate of sb-9 (notebook)",
            "touched: DELETE of runner box of acme/web",
            "JIT config sr-a-b-1-1 was used by sr-a-b-1-1, sr-a-b-1-1",
            "two live sandboxes of one name: sr-a-b-1-1: sb-1 and sb-2",
        ] {
            assert!(all.contains(expected), "{expected} is missing in\n{all}");
        }
        assert_eq!((report.foreign_touched, report.claimed_sandboxes_terminated), (2, 1));
    }

    #[test]
    fn a_preempted_job_is_nobodys_fault() {
        let report = report(
            vec![
                (0, queued(JOB)),
                (0, registered(ONE)),
                (0, created("sb-1", ONE)),
                (5, online("sb-1", ONE)),
                (6, assigned(JOB, "sb-1", ONE)),
                (9, ended("sb-1", ONE, 3)),
                (600, completed(JOB, Cause::RunnerLost)),
                (600, removed(ONE, RemovalReason::Lost)),
            ],
            1,
        );
        assert_eq!((report.jobs_expected, report.jobs_preempted), (0, 1));
        assert_eq!(report.violations, Vec::<String>::new());
    }

    /// Two sandboxes for one queued job: the first serves it, the second ends unused.
    fn surplus(more: Vec<(i64, What)>) -> Report {
        let mut events = vec![
            (0, queued(JOB)),
            (0, registered(ONE)),
            (0, registered(TWO)),
            (0, created("sb-1", ONE)),
            (0, created("sb-2", TWO)),
            (5, online("sb-1", ONE)),
            (6, assigned(JOB, "sb-1", ONE)),
            (7, completed(JOB, Cause::Ran)),
            (7, removed(ONE, RemovalReason::JobDone)),
            (8, ended("sb-1", ONE, 1)),
        ];
        events.extend(more);
        report(events, 1)
    }

    #[test]
    fn surplus_must_be_explained() {
        let idle = |reason| vec![(9, online("sb-2", TWO)), (300, removed(TWO, reason)), (301, ended("sb-2", TWO, 2))];
        let unexplained = surplus(idle(RemovalReason::Idle));
        assert_eq!(unexplained.surplus_runners, 1);
        assert_eq!(unexplained.violations, ["surplus in acme/web [modal] that nothing explains: sr-a-b-2-1"]);
        let failed = surplus(vec![(30, removed(TWO, RemovalReason::Expired)), (30, ended("sb-2", TWO, 2))]);
        assert_eq!(failed.surplus_explained.get("failed_start"), Some(&1));
        let deleted_early = surplus(vec![(30, removed(TWO, RemovalReason::Deleted)), (30, ended("sb-2", TWO, 2))]);
        assert_eq!(deleted_early.violations.len(), 1, "{:?}", deleted_early.violations);
        let mut cancelled = vec![(8, queued(JOB + 1)), (9, completed(JOB + 1, Cause::CancelledQueued))];
        cancelled.extend(idle(RemovalReason::Idle));
        assert_eq!(surplus(cancelled).surplus_explained.get("cancellation"), Some(&1));
        let taken = What::JobAssigned { job: JOB + 1, repo: repo(), runner: "box".to_owned(), sandbox: None };
        let mut foreign = vec![(8, queued(JOB + 1)), (9, taken)];
        foreign.extend(idle(RemovalReason::Idle));
        assert_eq!(surplus(foreign).surplus_explained.get("foreign_take"), Some(&1));
        let struck = |subject: &str| {
            let (operation, mode) = (Operation::Assign, FaultMode::Withheld);
            let mut events = idle(RemovalReason::Idle);
            events.push((8, What::FaultStruck { operation, mode, fault: "".into(), subject: subject.into() }));
            surplus(events)
        };
        assert_eq!(struck("acme/web").surplus_explained.get("fault"), Some(&1));
        assert_eq!(struck("acme/api").violations.len(), 1, "a fault elsewhere explains nothing");
    }

    #[test]
    fn calls_are_counted_by_token_and_minute() {
        let call = |status, points, token: &str, limited| What::Call {
            service: Service::Github,
            operation: Operation::ListRuns,
            status,
            points,
            token: token.into(),
            limited,
            subject: "acme/web".to_owned(),
            client: 0,
            target: String::new(),
            wait_secs: None,
            delay_secs: 0.0,
            page: None,
            more: false,
            quota: None,
        };
        let report = report(
            vec![
                (0, call(200, 5, "a", None)),
                (1, call(304, 1, "b", None)),
                (59, call(304, 5, "a", None)),
                (60, call(200, 1, "a", None)),
                (61, call(403, 0, "a", Some(LimitKind::Secondary))),
                (62, call(403, 0, "a", Some(LimitKind::Injected))),
            ],
            0,
        );
        assert_eq!((report.github_requests, report.github_not_modified), (6, 2));
        assert_eq!((report.github_points_per_minute_peak, report.github_rate_limited), (10, 2));
        assert_eq!(report.violations, ["a rate limit was hit: secondary at listruns acme/web"]);
    }

    #[test]
    fn a_mint_outside_of_the_allowed_repositories_is_a_violation() {
        let registered = What::RunnerRegistered {
            repo: "acme/closed".into(),
            runner_id: 1,
            runner: ONE.to_owned(),
            labels: vec!["modal".to_owned()],
            config: "c".to_owned(),
        };
        let removed =
            What::RunnerRemoved { repo: "acme/closed".into(), runner: ONE.to_owned(), reason: RemovalReason::Deleted };
        let report = report(vec![(0, registered), (1, removed)], 0);
        assert_eq!(report.violations, ["runner sr-a-b-1-1 was minted for acme/closed, which is not allowed"]);
    }
}
