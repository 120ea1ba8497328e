//! What polling costs, and what it sees in time.

use std::time::Duration;

use sandrunner::http::webhook::Hint;
use sandrunner::ids::RunId;
use sandrunner::sim::{Operation, Profile, Scenario, Service, What};
use serde_json::{Value, json};

use crate::lab::{Keeping, Lab, Next, Outcome, epoch};

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
}

#[tokio::test(start_paused = true)]
async fn two_hundred_ghost_runs_do_not_hide_a_live_job() {
    let ghosts = (0..200_u64).map(|repo| json!({ "id": FIRST_RUN + repo, "ghost": "queued", "age_secs": 86_400.0 }));
    let mut jobs: Vec<Value> = (0..200).map(|repo| job(repo, 0, repo, 0.0, 1.0)).collect();
    let arrivals = [1_200.0, 1_503.0];
    jobs.push(job(1_000, 0, 7, arrivals[0], 60.0));
    jobs.push(job(1_001, 0, 250, arrivals[1], 60.0));
    let day = scenario(json!({ "repos": repos(300), "jobs": jobs, "runs": ghosts.collect::<Vec<Value>>() }));
    let interval = Duration::from_secs(60);
    let lab = Lab::new(Profile::calm(), day, 1).configure(|config| config.reconcile.interval = interval);
    let outcome = lab.run(Duration::from_secs(1_800), |_| false).await;
    for (run, arrival) in [1_000, 1_001].into_iter().zip(arrivals) {
        let waited = seen(&outcome, run, arrival);
        assert!(waited.is_some_and(|waited| waited <= 120.0), "{waited:?}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_kept_pages_reads_in_full_only_what_changed() {
    let jobs: Vec<Value> = (0..100).map(|repo| job(repo, 0, repo, 0.0, 30.0)).collect();
    let day = scenario(json!({ "repos": repos(100), "jobs": jobs }));
    let killed_at = 1_500;
    for (keeping, most) in [(Keeping::All, 20), (Keeping::Nothing, 300)] {
        let lab = Lab::new(Profile::calm(), day.clone(), 1).keeping(keeping);
        let mut is_killed = false;
        let next = |world: &sandrunner::sim::World| {
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
    let next = |world: &sandrunner::sim::World| {
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
