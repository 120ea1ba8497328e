//! The client against the simulated GitHub, within this process and on a paused clock.

use std::time::Duration;

use chrono::DateTime;
use sandrunner::budget::{BudgetLimits, Purpose};
use sandrunner::clock::Clock;
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::github::{
    Deregistered, GithubAuth, GithubError, GithubReader, GithubSettings, GithubWriter, MintRequest, Minted, Paging,
    RequestCounts, connect_with_service,
};
use sandrunner::ids::{Labels, RepoName, RunId, RunnerId};
use sandrunner::sim::{
    Fault, FaultMode, ForeignRunner, Operation, Profile, Scenario, ScenarioJob, ScenarioRepo, World,
};
use sandrunner::state::{Connection, JobStatus, Reading, Registry, RunStatus, Runner, Scope, WorkflowJob};
use serde_json::json;

use crate::script::{TOKEN, unknown};

/// A World and a client that talks to its GitHub.
pub(crate) struct Simulated {
    pub(crate) world: World,
    pub(crate) reader: GithubReader,
    writer: GithubWriter,
}

impl Simulated {
    pub(crate) fn start(scenario: Scenario) -> Self {
        Self::with_profile(scenario, Profile::calm())
    }

    fn with_profile(scenario: Scenario, profile: Profile) -> Self {
        let clock = Clock::scaled(DateTime::from_timestamp(1_800_000_000, 0).unwrap(), 1.0);
        let world = World::new(profile, scenario, 7, clock.clone());
        let settings = GithubSettings {
            account: "gh1".parse().unwrap(),
            api_url: "https://api.github.com".to_owned(),
            auth: GithubAuth::Token(TOKEN.into()),
            limits: BudgetLimits { points_per_minute: 900.0, mutations_per_minute: 180.0, primary_reserve: 100 },
            max_in_flight: 8,
        };
        let (readers, writers) = connect_with_service(world.github_service(), settings, clock).unwrap();
        let gh = "gh1".parse().unwrap();
        let (reader, writer) = (readers.get(&gh), writers.get(&gh));
        Self { world, reader, writer }
    }

    fn fault(&self, operation: Operation, mode: FaultMode) {
        self.world.add_fault(Fault::new(operation, mode)).unwrap();
    }

    pub(crate) async fn mint(&self, name: &str) -> Result<Minted, GithubError> {
        let labels = Labels::new(["modal", "self-hosted"]);
        let request = MintRequest { name, runner_group_id: 1, labels: &labels, work_folder: "_work" };
        self.writer.generate_jit_config(&registry(), request).await
    }

    pub(crate) async fn jobs(&self, run: u64) -> Vec<WorkflowJob> {
        let reading = self.reader.list_jobs(&repo(), RunId(run), Purpose::Jobs).await;
        let Reading::Known(Some(jobs)) = reading else { panic!("{reading:?}") };
        jobs
    }

    pub(crate) async fn runners(&self) -> Vec<Runner> {
        let reading = self.reader.list_runners(&registry()).await;
        let Reading::Known(runners) = reading else { panic!("{reading:?}") };
        runners
    }

    async fn run_ids(&self) -> Vec<u64> {
        let reading = self.reader.list_runs(&repo(), Purpose::RunList, 15, |_| Paging::Continue).await;
        let Reading::Known(list) = reading else { panic!("{reading:?}") };
        assert!(list.reaches_end);
        list.runs.iter().map(|run| run.id.0).collect()
    }
}

pub(crate) fn repo() -> RepoName {
    "acme/web".parse().unwrap()
}

/// Where its runners are registered.
pub(crate) fn registry() -> Registry {
    Registry::Repo(Scope { account: "gh".parse().unwrap(), repo: repo() })
}

pub(crate) const RUN: u64 = 5_000_000_000;

/// A queued job, the n-th of `run`.
pub(crate) fn job(run: u64, n: u64) -> ScenarioJob {
    let job = json!({ "id": 10 * RUN + n, "run": run, "repo": "acme/web", "labels": ["self-hosted", "modal"], "duration_secs": 60 });
    serde_json::from_value(job).unwrap()
}

pub(crate) fn scenario(jobs: impl IntoIterator<Item = ScenarioJob>) -> Scenario {
    Scenario { repos: vec![ScenarioRepo::served("acme/web")], jobs: jobs.into_iter().collect(), ..Scenario::default() }
}

#[tokio::test(start_paused = true)]
async fn lists_of_every_length_are_read_to_their_end() {
    for total in [0_u64, 1, 100, 101, 250] {
        let pages = total.max(1).div_ceil(100);
        let in_one_run = Simulated::start(scenario((0..total).map(|n| job(RUN, n))));
        if total > 0 {
            let mut jobs: Vec<u64> = in_one_run.jobs(RUN).await.iter().map(|job| job.id.0 - 10 * RUN).collect();
            jobs.sort_unstable();
            assert_eq!(jobs, (0..total).collect::<Vec<_>>());
            assert_eq!(in_one_run.reader.counts().requests, pages);
        }
        let in_own_runs = Simulated::start(scenario((0..total).map(|n| job(RUN + n, n))));
        let mut runs = in_own_runs.run_ids().await;
        runs.sort_unstable();
        assert_eq!(runs, (0..total).map(|n| RUN + n).collect::<Vec<_>>());
        assert_eq!(in_own_runs.reader.counts().requests, pages);

        let foreign = |n| ForeignRunner {
            repo: "acme/web".to_owned(),
            name: format!("theirs-{n}"),
            labels: vec!["x".to_owned()],
            online: true,
        };
        let with_runners =
            Simulated::start(Scenario { foreign_runners: (0..total).map(foreign).collect(), ..scenario([]) });
        let runners = with_runners.runners().await;
        assert_eq!(runners.len() as u64, total);
        assert!(runners.iter().all(|runner| runner.connection == Connection::Online && !runner.is_busy));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_repository_costs_no_quota() {
    let github = Simulated::start(scenario((0..150).map(|n| job(RUN + n, n))));
    let first = github.run_ids().await;
    let used =
        |github: &Simulated| github.reader.budget().lock().unwrap().primary().map(|q| q.remaining).min().unwrap();
    let before = used(&github);
    for _ in 0..10 {
        assert_eq!(github.run_ids().await, first);
    }
    assert_eq!(github.reader.counts(), RequestCounts { requests: 22, not_modified: 20 });
    assert_eq!(used(&github), before);

    github.world.add_jobs(vec![job(RUN + 150, 150)]).unwrap();
    let second = github.run_ids().await;
    assert_eq!((second.len(), second[0]), (151, RUN + 150), "the newest is first");
    assert_eq!(github.reader.counts().not_modified, 20);
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_registration_is_seen() {
    let github = Simulated::start(scenario([job(RUN, 1)]));
    let minted = github.mint("sr-main-gh1-1-1").await.unwrap();
    let runners = github.runners().await;
    assert_eq!(
        (runners[0].id, runners[0].name.as_str(), runners[0].connection == Connection::Online),
        (minted.runner_id, "sr-main-gh1-1-1", false)
    );
    let taken = github.mint("sr-main-gh1-1-1").await.unwrap_err();
    assert_eq!((taken.class(), taken.class().may_have_taken_effect()), (ErrorClass::Conflict, false));
    assert_eq!(github.writer.delete_runner(&registry(), minted.runner_id).await.unwrap(), Deregistered::Gone);
    assert_eq!(github.runners().await, []);
    assert_eq!(
        github.writer.delete_runner(&registry(), minted.runner_id).await.unwrap(),
        Deregistered::Gone,
        "404 is as good"
    );
}

#[tokio::test(start_paused = true)]
async fn a_runner_with_a_job_is_not_deleted() {
    let runner = ForeignRunner {
        repo: "acme/web".into(),
        name: "theirs".into(),
        labels: vec!["self-hosted".into(), "modal".into()],
        online: true,
    };
    let github = Simulated::start(Scenario { foreign_runners: vec![runner], ..scenario([job(RUN, 1)]) });
    github.world.clock().sleep(Duration::from_secs(5)).await;
    let jobs = github.jobs(RUN).await;
    assert_eq!((&jobs[0].status, jobs[0].runner_name.as_deref()), (&JobStatus::InProgress, Some("theirs")));
    let runner = github.runners().await.remove(0);
    assert!(runner.is_busy);
    assert_eq!(github.writer.delete_runner(&registry(), runner.id).await.unwrap(), Deregistered::StillRunning);
    assert_eq!(github.runners().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mint_whose_answer_was_lost_left_a_runner() {
    for (mode, seconds) in [(FaultMode::ReplyLost, None), (FaultMode::Slow, Some(60.0)), (FaultMode::Truncated, None)] {
        let github = Simulated::start(scenario([]));
        github.world.add_fault(Fault { seconds, ..Fault::new(Operation::Mint, mode) }).unwrap();
        let error = github.mint("sr-main-gh1-1-1").await.unwrap_err();
        assert!(error.class().may_have_taken_effect(), "{error}");
        assert_eq!(github.reader.counts().requests, 1, "nothing is repeated");
        assert_eq!(github.runners().await[0].name, "sr-main-gh1-1-1");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_classed() {
    let github = Simulated::start(scenario([job(RUN, 1)]));
    let list = async || unknown(github.reader.list_runs(&repo(), Purpose::RunList, 15, |_| Paging::Continue).await);
    github.fault(Operation::ListRuns, FaultMode::Error);
    assert_eq!(list().await.class, ErrorClass::Unavailable);
    github.fault(Operation::ListRuns, FaultMode::NotFound);
    assert_eq!(list().await.class, ErrorClass::NotFound);
    github.fault(Operation::ListRuns, FaultMode::Truncated);
    assert_eq!(list().await.class, ErrorClass::Unreadable);
    github.world.revoke_token(TOKEN);
    let failure: CallFailure = list().await;
    assert_eq!(failure.class, ErrorClass::Unauthorized);
    assert!(failure.message.contains("Bad credentials (request SIM:"), "{failure}");
    let other = Scope { account: "gh".parse().unwrap(), repo: "acme/elsewhere".parse().unwrap() };
    let hidden = Simulated::start(scenario([]));
    assert_eq!(unknown(hidden.reader.list_runners(&Registry::Repo(other)).await).class, ErrorClass::NotFound);
    assert_eq!(hidden.reader.run(&repo(), RunId(1)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_secondary_limit_is_waited_out() {
    let github = Simulated::start(scenario([job(RUN, 1)]));
    github.fault(Operation::ListRuns, FaultMode::RateLimited);
    let failure = unknown(github.reader.list_runs(&repo(), Purpose::RunList, 1, |_| Paging::Stop).await);
    assert_eq!((failure.class, failure.retry_after), (ErrorClass::RateLimited, Some(Duration::from_secs(60))));
    let clock = github.world.clock().clone();
    let held = github.reader.budget().lock().unwrap().held_until(clock.now()).unwrap();
    clock.sleep_until(held).await;
    assert_eq!(github.run_ids().await, [RUN], "the first request after the wait is answered");
}

#[tokio::test(start_paused = true)]
async fn the_primary_limit_is_waited_out() {
    let profile = Profile { github_requests_per_hour: 5, ..Profile::calm() };
    let github = Simulated::with_profile(scenario([job(RUN, 1)]), profile);
    // One that is read again costs nothing where it did not change.
    for other in 1..=5 {
        assert!(github.reader.run(&repo(), RunId(RUN + other)).await.unwrap().is_none());
    }
    let refused = github.reader.run(&repo(), RunId(RUN)).await.unwrap_err();
    let wait = refused.retry_after().unwrap();
    assert_eq!(refused.class(), ErrorClass::RateLimited);
    assert!(wait > Duration::from_secs(3_500) && wait <= Duration::from_secs(3_600), "{wait:?}");
    let clock = github.world.clock().clone();
    let held = github.reader.budget().lock().unwrap().held_until(clock.now()).unwrap();
    clock.sleep_until(held).await;
    assert!(github.reader.run(&repo(), RunId(RUN)).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn however_hard_it_is_pressed_github_has_nothing_to_limit() {
    let github = Simulated::start(scenario([job(RUN, 1)]));
    let mints = (0..400).map(|n| {
        let github = &github;
        async move { github.mint(&format!("sr-main-gh1-{}-1", n + 1)).await }
    });
    let reads = (0..1_000).map(|_| github.run_ids());
    let (minted, read) =
        futures::future::join(futures::future::join_all(mints), futures::future::join_all(reads)).await;
    assert!(minted.iter().all(Result::is_ok) && read.iter().all(|runs| runs == &[RUN]));
    assert_eq!(github.reader.counts().requests, 1_400);
}

#[tokio::test(start_paused = true)]
async fn runs_are_found_by_status_and_by_id_and_the_release_is_read() {
    let github = Simulated::start(scenario([job(RUN, 1), job(RUN + 1, 2)]));
    let queued = github.reader.list_runs_by_status(&repo(), &RunStatus::Queued).await;
    assert_eq!(queued.seen().unwrap().runs.len(), 2);
    let waiting = github.reader.list_runs_by_status(&repo(), &RunStatus::Waiting).await;
    assert_eq!(waiting.seen().unwrap().runs.len(), 0);
    assert_eq!(github.reader.run(&repo(), RunId(RUN)).await.unwrap().unwrap().status, RunStatus::Queued);
    let release = github.reader.runner_release(&registry()).await.unwrap();
    assert_eq!(release.version.to_string(), Profile::calm().runner_version);
    assert_ne!(github.mint("sr-main-gh1-1-1").await.unwrap().runner_id, RunnerId(0));
}
