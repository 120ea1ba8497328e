//! The token of an App rotates every 48 minutes, and with it each page's `ETag`: what has to be read in full again is
//! spread, and nothing waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use sandrunner::config::GithubConfig;
use sandrunner::sim::{APP_ID, APP_KEY, Operation, Profile, Scenario, What};
use serde_json::{Value, json};

use crate::lab::{Lab, Outcome, epoch};

/// The first repositories have jobs, all others nothing that changes.
const BUSY: u64 = 20;
const FIRST_JOB: u64 = 5_000_000_000;
/// How long the readings are to take together at least, and how long two tokens are used side by side at most.
const SPREAD: f64 = 600.0;
const HAND_OVER: f64 = 660.0;
/// The longest that an idle list may be unread.
const READ_AGAIN: f64 = 180.0;

fn name(repo: u64) -> String {
    format!("acme/repo-{repo:03}")
}

/// A short job every 20 s, of each busy repository in turn.
fn scenario(repos: u64, until: u32) -> Scenario {
    let repos: Vec<Value> = (0..repos).map(|repo| json!({ "name": name(repo) })).collect();
    let arrivals = (300..until).step_by(20).zip(0_u64..);
    let jobs = arrivals.map(|(at, index)| {
        json!({ "id": FIRST_JOB + index, "run": 6_000_000_000 + index, "repo": name(index % BUSY),
            "labels": ["self-hosted", "modal"], "arrival_secs": at, "duration_secs": 45 })
    });
    serde_json::from_value(json!({ "repos": repos, "jobs": jobs.collect::<Vec<Value>>() })).expect("a scenario")
}

/// When the list of each idle repository was read in full from a moment on, in order.
fn full_readings(outcome: &Outcome, repos: u64, from: f64) -> BTreeMap<String, Vec<f64>> {
    let mut full: BTreeMap<String, Vec<f64>> = (BUSY..repos).map(|repo| (name(repo), Vec::new())).collect();
    for event in &outcome.history {
        let at = (event.at - epoch()).as_seconds_f64();
        if let What::Call { operation: Operation::ListRuns, status: 200, subject, target, .. } = &event.what
            && at >= from
            && target.is_empty()
            && let Some(times) = full.get_mut(subject)
        {
            times.push(at);
        }
    }
    full
}

/// How long a job waited.
#[derive(Debug, Clone, Copy)]
struct Wait {
    queued: f64,
    /// Until its run's jobs were listed.
    seen: f64,
    /// Until a runner was minted for it.
    minted: f64,
}

fn waits(outcome: &Outcome) -> Vec<Wait> {
    let mut queued: BTreeMap<u64, (u64, f64)> = BTreeMap::new();
    let mut seen: BTreeMap<u64, f64> = BTreeMap::new();
    let mut waits = Vec::new();
    for event in &outcome.history {
        let at = (event.at - epoch()).as_seconds_f64();
        match &event.what {
            What::JobQueued { job, run, .. } => drop(queued.insert(*job, (*run, at))),
            What::Call { operation: Operation::ListJobs, status: 200, target, .. } => {
                seen.entry(target.parse().expect("a run's id")).or_insert(at);
            }
            What::RunnerRegistered { runner, .. } => {
                let job = runner.split('-').nth(3).and_then(|job| job.parse().ok()).expect("our form");
                let (run, queued) = queued[&job];
                waits.push(Wait { queued, seen: seen[&run], minted: at });
            }
            _ => {}
        }
    }
    waits
}

fn mean(of: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = of.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
    sum / count
}

async fn check(repos: u64, interval: Duration) {
    let lab = Lab::new(Profile::calm(), scenario(repos, 3_600), 1).configure(|config| {
        config.reconcile.interval = interval;
        config.github = vec![GithubConfig {
            app_id: Some(APP_ID.to_owned()),
            private_key: Some(APP_KEY.to_owned().into()),
            allowed_repos: vec!["acme/*".to_owned()],
            ..GithubConfig::default()
        }];
    });
    let outcome = lab.run(Duration::from_secs(3_760), |_| false).await;
    let tokens =
        outcome.times(|what| matches!(what, What::Call { operation: Operation::InstallationToken, status: 201, .. }));
    assert_eq!(tokens.len(), 2, "{}", outcome.summary());
    let rotated = tokens[1];

    let full = full_readings(&outcome, repos, rotated);
    let odd: Vec<_> = full.iter().filter(|(_, times)| times.len() != 1).collect();
    assert!(odd.is_empty(), "each list is read in full once: {odd:?}");
    let mut times: Vec<f64> = full.into_values().flatten().map(|at| at - rotated).collect();
    times.sort_by(f64::total_cmp);
    let (first, last) = (times[0], times[times.len() - 1]);
    let in_minute = |from: f64| times.iter().filter(|at| (from..from + 60.0).contains(*at)).count();
    let most = (0..20).map(|minute| in_minute(60.0 * f64::from(minute))).max().unwrap_or(0);
    println!(
        "{} lists read anew from {first:.0} s to {last:.0} s after the rotation, at most {most} a minute",
        times.len()
    );
    assert!(last - first >= SPREAD && last <= HAND_OVER + READ_AGAIN, "{first} to {last}");
    assert!(most <= times.len() / 4, "{most} in a minute");

    let (during, before): (Vec<Wait>, Vec<Wait>) = waits(&outcome)
        .into_iter()
        .filter(|wait| wait.queued >= 600.0 && wait.queued < rotated + HAND_OVER + READ_AGAIN)
        .partition(|wait| wait.queued >= rotated - READ_AGAIN);
    let longest = |waits: &[Wait]| waits.iter().map(|wait| wait.minted - wait.seen).fold(0.0, f64::max);
    let average = |waits: &[Wait]| mean(waits.iter().map(|wait| wait.minted - wait.queued));
    println!(
        "mints at most {:.2} s after the reading, before {:.2} s; {:.1} s after the job, before {:.1} s; {} and {} jobs",
        longest(&during),
        longest(&before),
        average(&during),
        average(&before),
        during.len(),
        before.len()
    );
    assert!(during.len() >= 40 && before.len() >= 90, "{}", outcome.summary());
    assert!(longest(&during) <= longest(&before) + 0.1, "{}", outcome.summary());
    assert!(average(&during) <= average(&before) * 1.25, "{}", outcome.summary());
    assert!(outcome.report.violations.is_empty() && outcome.report.github_rate_limited == 0, "{}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn what_a_rotation_of_the_token_makes_read_anew_is_spread_and_delays_no_mint() {
    check(200, Duration::from_secs(120)).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "half a minute: cargo test --profile sim --test simulation -- --ignored rotation::"]
async fn what_a_rotation_makes_read_anew_of_many_repositories_is_spread_and_delays_no_mint() {
    check(500, Duration::from_secs(120)).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "a minute: cargo test --profile sim --test simulation -- --ignored rotation::"]
async fn a_rotation_delays_nothing_where_not_every_list_can_be_read_each_interval() {
    check(500, Duration::from_secs(10)).await;
}
