//! What polling costs, and what it sees in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sandrunner::config::OrganizationConfig;
use sandrunner::http::webhook::Hint;
use sandrunner::ids::RunId;
use sandrunner::sim::{Fault, FaultMode, Operation, Profile, Scenario, Service, What, World};
use serde_json::{Value, json};

use crate::lab::{Keeping, Lab, Next, Outcome, epoch, is_done_and_clean};

const FIRST_RUN: u64 = 6_000_000_000;

fn name(repo: u64) -> String {
    format!("acme/repo-{repo:03}")
}

fn repos(count: u64) -> Vec<Value> {
    (0..count).map(|repo| json!({ "name": name(repo) })).collect()
}

fn job(run: u64, index: u64, repo: u64, arrival: f64, duration: f64) -> Value {
    json!({ "id": 5_000_000_000 + run * 10 + index, "run": FIRST_RUN + run, "repo": name(repo),
        "labels": ["self-hosted", "modal"], "arrival_secs": arrival, "duration_secs": duration })
}

fn scenario(value: Value) -> Scenario {
    serde_json::from_value(value).expect("a scenario")
}

/// Calls of GitHub from one second to another that cost a primary request.
fn charged(outcome: &Outcome, from: f64, to: f64) -> Vec<Operation> {
    let is_within = |at: f64| (from..to).contains(&at);
    let events = outcome.history.iter().filter(|event| is_within((event.at - epoch()).as_seconds_f64()));
    events
        .filter_map(|event| match &event.what {
            What::Call { service: Service::Github, operation, status, .. } if *status != 304 => Some(*operation),
            _ => None,
        })
        .collect()
}

/// When the jobs of a run were first listed after it came, in seconds since then.
fn seen(outcome: &Outcome, run: u64, since: f64) -> Option<f64> {
    let run = (FIRST_RUN + run).to_string();
    let looks = outcome.times(
        |what| matches!(what, What::Call { operation: Operation::ListJobs, status: 200, target, .. } if *target == run),
    );
    looks.into_iter().find(|at| *at >= since).map(|at| at - since)
}

#[tokio::test(start_paused = true)]
async fn ten_active_runs_in_twenty_repositories_cost_a_third_of_the_hourly_quota() {
    // Ten repositories have one run after the other, of six minutes and three jobs.
    let runs = (0..10_u64).flat_map(|repo| (0..10_u64).map(move |turn| (repo, turn)));
    let jobs = runs.flat_map(|(repo, turn)| {
        let arrival = f64::from(u32::try_from(turn * 360 + repo * 17).expect("an hour"));
        (0..3).map(move |index| job(repo * 100 + turn, index, repo, arrival, 340.0))
    });
    let day = scenario(json!({ "repos": repos(20), "jobs": jobs.collect::<Vec<Value>>() }));
    let profile = Profile { step_secs: Some(15.0), ..Profile::calm() };
    let outcome = Lab::new(profile, day, 1).run(Duration::from_secs(3_600), |_| false).await;
    let calls = charged(&outcome, 0.0, 3_600.0);
    println!("{} requests charged in the hour", calls.len());
    assert!(calls.len() <= 1_700, "{} charged: {}", calls.len(), outcome.summary());
    assert_eq!(outcome.report.github_rate_limited, 0);
    // Not by looking seldom, nor because little was going on.
    let lists = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListRuns, .. })).len();
    assert!(lists >= 20 * 360, "{lists} lists: {}", outcome.summary());
    let active = active_runs(&outcome, 3_600.0);
    assert!(active >= 9.5, "{active} active runs: {}", outcome.summary());
}

/// How many runs had queued or running jobs, on average until a time.
fn active_runs(outcome: &Outcome, until: f64) -> f64 {
    let mut spans: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    let mut run_of: BTreeMap<u64, u64> = BTreeMap::new();
    for event in &outcome.history {
        let at = (event.at - epoch()).as_seconds_f64();
        match &event.what {
            What::JobQueued { job, run, .. } => {
                run_of.insert(*job, *run);
                // It lasts until the end, unless its jobs tell otherwise.
                spans.entry(*run).or_insert((at, until));
            }
            What::JobCompleted { job, .. } => {
                spans.entry(run_of[job]).and_modify(|span| span.1 = at);
            }
            _ => {}
        }
    }
    spans.values().map(|(from, to)| to - from).sum::<f64>() / until
}

/// Runs of yesterday that never end, each in a repository of its own, and their jobs: most are queued with a job that
/// nobody gets, some without any, and some say `in_progress` after their jobs have ended.
fn ghosts(count: u64) -> (Vec<Value>, Vec<Value>) {
    let ghost = |repo: u64| {
        let mut run = json!({ "id": FIRST_RUN + repo, "ghost": "queued", "age_secs": 86_400.0 });
        match repo % 5 {
            3 => run["repo"] = name(repo).into(),
            4 => run["ghost"] = "unfinished_run".into(),
            _ => {}
        }
        run
    };
    let job = |repo: u64| {
        let mut job = job(repo, 0, repo, 0.0, 1.0);
        if repo % 5 == 4 {
            job["labels"] = json!(["ubuntu-latest"]);
        }
        job
    };
    ((0..count).map(ghost).collect(), (0..count).filter(|repo| repo % 5 != 3).map(job).collect())
}

/// An organization with ghosts in two thirds of its repositories, whose lists are all read every `interval`, which is
/// about the shortest that the budget allows: each of eight live jobs is to be seen within two.
async fn check_ghosts(count: u64, interval: u32) {
    let (runs, mut jobs) = ghosts(count * 2 / 3);
    // In repositories with a ghost and without, from when every list was read once.
    let at = |index: u32| f64::from(interval) * (2.5 + 1.4 * f64::from(index));
    let live: Vec<(u64, u64, f64)> =
        (0..8_u32).map(|index| (1_000 + u64::from(index), (u64::from(index) * 37 + 3) % count, at(index))).collect();
    jobs.extend(live.iter().map(|(run, repo, arrival)| job(*run, 0, *repo, *arrival, 300.0)));
    let names: Vec<String> = (0..count).map(name).collect();
    let groups = json!([{ "id": 1, "name": "Default" }, { "id": 4, "name": "Modal", "repos": names }]);
    let organizations = json!([{ "name": "acme", "groups": groups }]);
    let day = scenario(json!({ "repos": repos(count), "jobs": jobs, "runs": runs, "organizations": organizations }));
    let lab = Lab::new(Profile::calm(), day, 1).configure(|config| {
        config.reconcile.interval = Duration::from_secs(interval.into());
        let group = Some("Modal".to_owned());
        config.github[0].organizations =
            vec![OrganizationConfig { name: "acme".into(), runner_group: group, runner_group_id: None }];
    });
    let until = Duration::from_secs((interval * 14 + 60).into());
    let outcome = lab.run(until, |_| false).await;
    let waits: Vec<_> = live.iter().map(|(run, _, arrival)| seen(&outcome, *run, *arrival)).collect();
    println!("of {count} repositories, read every {interval} s: seen after {waits:.0?} s");
    let is_in_time = |waited: &Option<f64>| waited.is_some_and(|waited| waited <= f64::from(2 * interval));
    assert!(waits.iter().all(is_in_time), "{waits:?}: {}", outcome.summary());
    let taken = outcome.times(|what| matches!(what, What::JobAssigned { sandbox: Some(_), .. })).len();
    assert_eq!(taken, live.len(), "{}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn ghost_runs_do_not_hide_a_live_job_of_an_organization() {
    check_ghosts(60, 12).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "a minute: cargo test --profile sim --test simulation -- --ignored polling::"]
async fn two_hundred_ghost_runs_do_not_hide_a_live_job_of_an_organization() {
    check_ghosts(300, 60).await;
}

/// The sweeps for runs of a status: of which repository, and when.
fn sweeps<'a>(outcome: &'a Outcome, status: &str) -> impl Iterator<Item = (&'a str, f64)> {
    outcome.history.iter().filter_map(move |event| match &event.what {
        What::Call { operation: Operation::ListRuns, subject, target, .. } if target == status => {
            Some((subject.as_str(), (event.at - epoch()).as_seconds_f64()))
        }
        _ => None,
    })
}

/// The longest time between two sweeps of a repository for queued runs, of which the first came after `from`.
fn longest_between_sweeps(outcome: &Outcome, from: f64) -> f64 {
    let mut last: BTreeMap<&str, f64> = BTreeMap::new();
    let pairs = sweeps(outcome, "queued").filter_map(|(repo, at)| Some((last.insert(repo, at)?, at)));
    pairs.filter(|(before, _)| *before >= from).map(|(before, at)| at - before).fold(0.0, f64::max)
}

/// Repositories whose pages hold two runs: each has three, of the last days, of which the oldest is re-run where
/// `reruns` say so, so many seconds from the start.
fn with_reruns(count: u64, reruns: &[(u64, f64)]) -> Scenario {
    let ages = (0..count).flat_map(|repo| (0..3_u64).map(move |age| (repo, age)));
    let run =
        |(repo, age): (u64, u64)| json!({ "id": FIRST_RUN + repo * 10 + age, "age_secs": 86_400 * (9 * age + 1) });
    let past = |(repo, age): (u64, u64)| {
        let mut job = job(repo * 10 + age, 0, repo, 0.0, 1.0);
        job["labels"] = json!(["ubuntu-latest"]);
        job
    };
    let rerun = |(repo, at): &(u64, f64)| {
        let mut job = job(repo * 10 + 2, 1, *repo, *at, 60.0);
        job["attempt"] = 2.into();
        job
    };
    let jobs: Vec<Value> = ages.clone().map(past).chain(reruns.iter().map(rerun)).collect();
    scenario(json!({ "repos": repos(count), "runs": ages.map(run).collect::<Vec<Value>>(), "jobs": jobs }))
}

/// Re-runs of runs that no page shows, in repositories of an account with so many points a minute: each is to be found
/// within `interval`.
async fn check_reruns(count: u64, points_per_minute: u32, reruns: &[(u64, f64)], interval: f64) {
    let profile = Profile { github_list_page: 2, ..Profile::calm() };
    let lab = Lab::new(profile, with_reruns(count, reruns), 1).configure(|config| {
        config.reconcile.interval = Duration::from_secs(600);
        config.github[0].points_per_minute = points_per_minute;
    });
    let (first, last) = (reruns[0].1, reruns[reruns.len() - 1].1);
    let outcome = lab.run(Duration::from_secs_f64(last + 1_500.0), |_| false).await;
    let waits: Vec<_> = reruns.iter().map(|(repo, at)| seen(&outcome, repo * 10 + 2, *at)).collect();
    let gap = longest_between_sweeps(&outcome, first);
    println!("{count} repositories: found after {waits:.0?} s, at most {gap:.0} s between two sweeps of one");
    let is_in_time = |waited: &Option<f64>| waited.is_some_and(|waited| waited <= interval);
    assert!(waits.iter().all(is_in_time), "{waits:?}: {}", outcome.summary());
    assert!(gap <= interval, "{gap}: {}", outcome.summary());
    let rare = sweeps(&outcome, "in_progress").map(|(repo, _)| repo).collect::<BTreeSet<&str>>();
    assert_eq!(u64::try_from(rare.len()).ok(), Some(count), "what is rare is looked for too: {}", outcome.summary());
    let beyond = outcome.times(|what| {
        matches!(what, What::Call { operation: Operation::ListRuns, page: Some(2..), target, .. } if target.is_empty())
    });
    assert!(beyond.iter().all(|at| *at < 600.0), "no other list shows it: {beyond:?}");
    assert_eq!(outcome.report.jobs_completed, reruns.len(), "{}", outcome.summary());
}

/// So many re-runs, one after the other, from when it is known that GitHub charges nothing for what is unchanged, and for
/// longer than it takes until rare statuses are swept for again.
fn reruns_of_a_day(count: u32, repos: u64) -> Vec<(u64, f64)> {
    let at = |index: u32| 2_800.0 + 24_000.0 * f64::from(index) / f64::from(count);
    (0..count).map(|index| (u64::from(index) * 7 % repos, at(index))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rerun_of_a_run_beyond_the_pages_that_are_read_is_found_within_one_sweep_interval() {
    // Ten minutes at least.
    check_reruns(1, 900, &[(0, 700.0)], 600.0).await;
    // Sweeps have a twentieth of the 1.5 readings a second. They read two lists of each repository, and three more every
    // six hours, and are a tenth of the interval ahead: 60 / (0.075 - 90 / 21,600) / 0.9 s.
    check_reruns(30, 180, &reruns_of_a_day(10, 30), 941.0).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "half a minute: cargo test --profile sim --test simulation -- --ignored polling::"]
async fn reruns_in_many_repositories_are_found_within_one_sweep_interval() {
    check_reruns(150, 900, &reruns_of_a_day(20, 150), 941.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_kept_pages_reads_in_full_only_what_changed() {
    let jobs: Vec<Value> = (0..100).map(|repo| job(repo, 0, repo, 0.0, 30.0)).collect();
    let day = scenario(json!({ "repos": repos(100), "jobs": jobs }));
    let killed_at = 1_500;
    for (keeping, most) in [(Keeping::All, 20), (Keeping::Nothing, 300)] {
        let lab = Lab::new(Profile::calm(), day.clone(), 1).keeping(keeping);
        let mut is_killed = false;
        let next = |world: &World| {
            let is_time = (world.clock().now() - epoch()).num_seconds() >= killed_at && !is_killed;
            is_killed |= is_time;
            if is_time { Next::Kill } else { Next::GoOn }
        };
        let outcome = lab.drive(Duration::from_secs(1_800), Duration::from_secs(1), next).await;
        let calls = charged(&outcome, 1_500.0, 1_800.0).len();
        println!("{calls} requests charged after the restart with {keeping:?} kept");
        assert!(calls <= most && (keeping == Keeping::All || calls >= 100), "{calls} charged: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn mints_go_on_where_reading_has_used_up_its_part_of_the_quota() {
    // The quota of the hour is so small that reading ends before it does.
    let jobs: Vec<Value> = (0..30)
        .map(|run| job(run, 0, run % 3, 600.0 + 30.0 * f64::from(u32::try_from(run).expect("few")), 20.0))
        .collect();
    let day = scenario(json!({ "repos": repos(3), "jobs": jobs }));
    let profile = Profile { github_requests_per_hour: 300, github_charges_unchanged: true, ..Profile::calm() };
    let lab = Lab::new(profile, day, 1).configure(|config| config.github[0].primary_reserve = 100);
    let outcome = lab.run(Duration::from_secs(3_600), |_| false).await;
    assert_eq!(outcome.report.github_rate_limited, 0, "{}", outcome.summary());
    let mints = outcome.times(|what| matches!(what, What::RunnerRegistered { .. }));
    assert!(mints.len() >= 30, "{} mints: {}", mints.len(), outcome.summary());
    let calls = charged(&outcome, 0.0, 3_600.0);
    let reads = calls.iter().filter(|call| !call.is_write()).count();
    assert!(reads <= 210, "{reads} readings: {}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn a_nudge_shows_a_run_at_once_and_one_of_an_unknown_repository_nothing() {
    let day = scenario(json!({ "repos": repos(3), "jobs": [job(1, 0, 1, 333.0, 60.0)] }));
    let lab =
        Lab::new(Profile::calm(), day, 1).configure(|config| config.reconcile.interval = Duration::from_secs(300));
    let nudges = lab.nudges();
    let mut given = 0;
    let next = |world: &World| {
        let second = (world.clock().now() - epoch()).num_seconds();
        let hint = |repo: &str| Hint { repo: repo.parse().expect("a name"), run: RunId(FIRST_RUN + 1) };
        if second >= 200 && given == 0 {
            nudges.give(hint("acme/unknown"));
            given = 1;
        } else if second >= 335 && given == 1 {
            (0..50).for_each(|_| nudges.give(hint("acme/repo-001")));
            given = 2;
        }
        Next::GoOn
    };
    let outcome = lab.drive(Duration::from_secs(420), Duration::from_millis(500), next).await;
    let waited = seen(&outcome, 1, 333.0);
    assert!(waited.is_some_and(|waited| waited <= 4.0), "{waited:?}: {}", outcome.summary());
    let around = |from: f64, to: f64| {
        let calls = outcome.times(|what| matches!(what, What::Call { service: Service::Github, .. }));
        calls.into_iter().filter(|at| (from..to).contains(at)).count()
    };
    assert_eq!(around(199.0, 230.0), 0, "nothing is read for a repository that is not served");
    assert!(around(335.0, 336.0) <= 8, "fifty nudges are one");
}

/// Whether GitHub's webhooks arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Webhooks {
    Arrive,
    GetLost,
}

/// Plays some jobs, with a nudge for each change of one or with none; tells the names of all runners and how long jobs
/// waited for one on average.
async fn served(webhooks: Webhooks) -> (BTreeSet<String>, f64) {
    let jobs: Vec<Value> =
        (0_u32..12).map(|run| job(run.into(), 0, u64::from(run) % 3, 61.0 * f64::from(run), 90.0)).collect();
    let day = scenario(json!({ "repos": repos(3), "jobs": jobs }));
    let lab = Lab::new(Profile::calm(), day, 1).configure(|config| config.reconcile.interval = Duration::from_secs(60));
    let (nudges, mut read) = (lab.nudges(), 0);
    let next = |world: &World| {
        for event in &world.history(read) {
            read += 1;
            if let What::JobQueued { repo, job, .. }
            | What::JobAssigned { repo, job, .. }
            | What::JobCompleted { repo, job, .. } = &event.what
                && webhooks == Webhooks::Arrive
            {
                let run = RunId(FIRST_RUN + (job - 5_000_000_000) / 10);
                nudges.give(Hint { repo: repo.parse().expect("a name"), run });
            }
        }
        if is_done_and_clean(world) { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(Duration::from_secs(7_200), Duration::from_secs(1), next).await;
    assert!(outcome.report.violations.is_empty(), "{}", outcome.summary());
    let names = outcome.history.iter().filter_map(|event| match &event.what {
        What::RunnerRegistered { runner, .. } => Some(runner.clone()),
        _ => None,
    });
    let waits: Vec<f64> = outcome.times(|what| matches!(what, What::JobAssigned { .. }));
    let arrivals: f64 = outcome.times(|what| matches!(what, What::JobQueued { .. })).iter().sum();
    (names.collect(), (waits.iter().sum::<f64>() - arrivals) / 12.0)
}

#[tokio::test(start_paused = true)]
async fn without_any_nudge_the_same_is_served_only_later() {
    let ((nudged, soon), (polled, late)) = (served(Webhooks::Arrive).await, served(Webhooks::GetLost).await);
    assert_eq!((&nudged, nudged.len()), (&polled, 12));
    assert!(soon + 15.0 < late && late < 90.0, "{soon} s and {late} s");
}

#[tokio::test(start_paused = true)]
async fn what_the_first_list_of_repositories_lacked_is_found_within_minutes() {
    for mode in [FaultMode::Empty, FaultMode::Flapping] {
        let day = scenario(json!({ "repos": repos(2), "jobs": [job(1, 0, 0, 5.0, 60.0), job(2, 0, 1, 5.0, 60.0)] }));
        let lab = Lab::new(Profile::calm(), day, 1)
            .configure(|config| config.github[0].allowed_repos = vec!["acme/*".to_owned()]);
        lab.world.add_fault(Fault::new(Operation::ListOrgRepos, mode)).expect("a fault");
        let outcome = lab.run(Duration::from_secs(2 * 3_600), |_| false).await;
        let waited = [seen(&outcome, 1, 5.0), seen(&outcome, 2, 5.0)];
        assert!(waited.iter().all(|waited| waited.is_some_and(|waited| waited <= 120.0)), "{mode:?}: {waited:?}");
        let lists = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListOrgRepos, .. }));
        assert!(lists.len() <= 10, "and then ever more seldom: {lists:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_group_that_did_not_suit_is_looked_at_again_within_minutes() {
    for (operation, mode) in
        [(Operation::ListGroups, FaultMode::Empty), (Operation::ListGroupRepos, FaultMode::Flapping)]
    {
        let groups = json!([{ "id": 4, "name": "Modal", "repos": [name(0)] }]);
        let organizations = json!([{ "name": "acme", "groups": groups }]);
        let jobs = json!([job(1, 0, 0, 5.0, 60.0)]);
        let day = scenario(json!({ "repos": repos(1), "jobs": jobs, "organizations": organizations }));
        let lab = Lab::new(Profile::calm(), day, 1).configure(|config| {
            let group = Some("Modal".to_owned());
            config.github[0].organizations =
                vec![OrganizationConfig { name: "acme".to_owned(), runner_group: group, runner_group_id: None }];
        });
        lab.world.add_fault(Fault::new(operation, mode)).expect("a fault");
        let outcome = lab.run(Duration::from_secs(2 * 3_600), |_| false).await;
        let mints = outcome.times(|what| matches!(what, What::RunnerRegistered { .. }));
        assert!(mints.first().is_some_and(|at| *at < 400.0), "{operation:?}: {mints:?}");
        let looks = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListGroups, .. }));
        assert!(looks.len() <= 4, "and then every hour: {looks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn runners_are_read_although_jobs_alone_would_use_up_what_is_read_again() {
    // A sandbox that never starts is replaced when two lists of the runners agree that its runner is not online.
    let day = scenario(json!({ "repos": repos(1), "jobs": [job(1, 0, 0, 5.0, 60.0)] }));
    let profile = Profile { github_requests_per_hour: 300, github_charges_unchanged: true, ..Profile::calm() };
    let lab = Lab::new(profile, day, 1).configure(|config| {
        config.github[0].primary_reserve = 30;
        config.limits.max_sandboxes = 1;
    });
    lab.world.add_fault(Fault::new(Operation::Boot, FaultMode::NeverStarted)).expect("a fault");
    let outcome = lab.run(Duration::from_secs(3_600), |_| false).await;
    let reads = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListRunners, .. }));
    assert!(reads.len() >= 5, "{reads:?}");
    assert_eq!(outcome.report.jobs_completed, 1, "{}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn jobs_are_read_again_while_many_sweeps_wait_for_their_part_of_the_quota() {
    // Two runs in each repository, of which a page shows one; and one that takes long.
    let hosted = |repo: u64, number: u64| {
        let id = 8_000_000_000 + repo * 10 + number;
        json!({ "id": id, "run": id, "repo": name(repo), "labels": ["ubuntu-latest"], "duration_secs": 1 })
    };
    let mut jobs: Vec<Value> = (0..40_u64).flat_map(|repo| [hosted(repo, 0), hosted(repo, 1)]).collect();
    jobs.push(job(1, 0, 0, 5.0, 3_300.0));
    let day = scenario(json!({ "repos": repos(40), "jobs": jobs }));
    let profile = Profile {
        github_requests_per_hour: 600,
        github_charges_unchanged: true,
        github_list_page: 1,
        ..Profile::calm()
    };
    let lab = Lab::new(profile, day, 1).configure(|config| config.github[0].primary_reserve = 60);
    let outcome = lab.run(Duration::from_secs(3_600), |_| false).await;
    let reads = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListJobs, .. }));
    let again = reads.iter().filter(|at| (600.0..3_300.0).contains(*at)).count();
    assert!(again >= 3, "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_runs_that_wait_in_vain_keep_no_list_from_being_read() {
    let jobs: Vec<Value> = (0..250_u32).map(|run| job(run.into(), 0, 0, f64::from(run), 60.0)).collect();
    let faults = json!([{ "operation": "boot", "mode": "never_online", "until_secs": 3_600.0 }]);
    let day = scenario(json!({ "repos": repos(1), "jobs": jobs, "faults": faults }));
    let outcome = Lab::new(Profile::realistic(), day, 1).run(Duration::from_secs(3_600), |_| false).await;
    let lists = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListRuns, .. }));
    let gap = lists.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(lists.len() > 300 && gap < 30.0, "{} lists, {gap} s apart: {}", lists.len(), outcome.summary());
}

/// The longest time for which a repository's list was not read, from a time to another.
fn longest_gap(outcome: &Outcome, repos: u64, (from, to): (f64, f64)) -> f64 {
    let mut reads: BTreeMap<String, Vec<f64>> = (0..repos).map(|repo| (name(repo), vec![from])).collect();
    for event in &outcome.history {
        let at = (event.at - epoch()).as_seconds_f64();
        if let What::Call { operation: Operation::ListRuns, status: 200 | 304, subject, target, .. } = &event.what
            && target.is_empty()
            && (from..to).contains(&at)
        {
            reads.get_mut(subject).expect("a repository").push(at);
        }
    }
    let gap = |mut times: Vec<f64>| {
        times.push(to);
        times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    };
    reads.into_values().map(gap).fold(0.0, f64::max)
}

#[tokio::test(start_paused = true)]
async fn nudges_of_many_jobs_use_up_no_hour_and_keep_no_list_from_being_read() {
    // A quarter of two thousand jobs an hour, with a quarter of the quota: half of the repositories have no jobs.
    let jobs = (0..150_u64).flat_map(|run| {
        let arrival = 24.0 * f64::from(u32::try_from(run).expect("few"));
        (0..4).map(move |index| {
            job(run, index, run % 3, arrival, 40.0 + 15.0 * f64::from(u32::try_from(index).expect("few")))
        })
    });
    let day = scenario(json!({ "repos": repos(6), "jobs": jobs.collect::<Vec<Value>>() }));
    let profile = Profile { github_requests_per_hour: 1_250, step_secs: Some(15.0), ..Profile::calm() };
    let lab = Lab::new(profile, day, 1).configure(|config| config.github[0].primary_reserve = 125);
    let (nudges, mut read) = (lab.nudges(), 0);
    let next = |world: &World| {
        for event in &world.history(read) {
            read += 1;
            if let What::JobQueued { repo, job, .. }
            | What::JobAssigned { repo, job, .. }
            | What::JobCompleted { repo, job, .. } = &event.what
            {
                let run = RunId(FIRST_RUN + (job - 5_000_000_000) / 10);
                nudges.give(Hint { repo: repo.parse().expect("a name"), run });
            }
        }
        Next::GoOn
    };
    let outcome = lab.drive(Duration::from_secs(3_600), Duration::from_millis(500), next).await;
    let calls = charged(&outcome, 0.0, 3_600.0);
    let reads = calls.iter().filter(|call| !call.is_write()).count();
    let gap = longest_gap(&outcome, 6, (0.0, 3_600.0));
    println!("{} charged, of which {reads} readings; at most {gap:.0} s between two lists", calls.len());
    assert_eq!(outcome.report.github_rate_limited, 0, "{}", outcome.summary());
    assert!(calls.len() <= 1_240, "{} charged: {}", calls.len(), outcome.summary());
    // The longest that any list may wait: `reconcile.max_interval`.
    assert!(gap <= 900.0, "{gap}: {}", outcome.summary());
    assert!(outcome.report.jobs_completed >= 580, "{}", outcome.summary());
}
