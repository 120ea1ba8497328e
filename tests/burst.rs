//! A burst of a thousand jobs in one repository, with GitHub's and Modal's limits on, in virtual time.
//!
//! No controller can mint faster than GitHub's points allow: five for each mint and one for each reading that
//! cannot be avoided, at 15 points per second. The bound is that time and a tenth.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and tells its figures")]

#[expect(dead_code, reason = "what other tests need of the lab")]
#[path = "lab/lab.rs"]
mod lab;

use std::time::Duration;

use lab::{Lab, Outcome};
use sandrunner::sim::{Operation, Profile, Scenario, ScenarioJob, ScenarioRepo, What, World};

const JOBS: u64 = 1_000;
/// The burst comes at several moments of the interval, after the daemon has looked around.
const BURSTS_AT: [f64; 3] = [61.0, 64.0, 67.0];
/// A repository with one job comes in the middle of it.
const NEWCOMER_AT: f64 = 200.0;
const NEWCOMER: &str = "acme/small";

fn repo(name: &str) -> ScenarioRepo {
    ScenarioRepo::served(name)
}

fn job(id: u64, run: u64, repo: &str, arrival: f64) -> ScenarioJob {
    let text = format!(
        r#"{{"id": {id}, "run": {run}, "repo": "{repo}", "labels": ["self-hosted", "modal"], "arrival_secs": {arrival}, "duration_secs": 120}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// A first job proves the image; the burst follows as runs of equal size.
fn scenario(runs: u64, at: f64) -> Scenario {
    let base = 50_000_000_000;
    let mut jobs = vec![job(base, base, "acme/big", 1.0)];
    jobs.extend((0..JOBS).map(|index| job(base + 1 + index, base + 1 + index % runs, "acme/big", at)));
    jobs.push(job(base + 5_000, base + 5_000, NEWCOMER, NEWCOMER_AT));
    Scenario { repos: vec![repo("acme/big"), repo(NEWCOMER)], jobs, ..Scenario::default() }
}

/// Limits as GitHub's and Modal's, their usual delays, no lag: the bound leaves no room for luck.
fn profile() -> Profile {
    Profile {
        github_points_per_minute: 900,
        github_mutations_per_minute: 180,
        modal_creates_per_second: 5.0,
        modal_create_burst: 150,
        boot: Profile::realistic().boot,
        image_build_secs: 10.0,
        ..Profile::calm()
    }
}

async fn run(runs: u64, at: f64) -> Outcome {
    let done = |world: &World| world.summary().expected_jobs_open == 0;
    Lab::new(profile(), scenario(runs, at), 11).run(Duration::from_secs(3_600), done).await
}

fn check(outcome: &Outcome, at: f64, least_readings: f64) {
    let mints = outcome.times(|what| matches!(what, What::RunnerRegistered { .. }));
    let last_mint = mints.iter().copied().fold(0.0, f64::max) - at;
    let least = (5.0 * f64::from(u32::try_from(mints.len()).unwrap()) + least_readings) / 15.0;
    println!("last mint after {last_mint:.1} s, least possible {least:.1} s, ratio {:.3}", last_mint / least);
    assert_eq!(outcome.report.github_rate_limited, 0, "{}", outcome.summary());
    assert_eq!(outcome.report.jobs_completed as u64, JOBS + 2, "{}", outcome.summary());
    assert!(
        last_mint <= 1.10 * least,
        "last mint after {last_mint} s, least possible {least} s\n{}",
        outcome.summary()
    );
    check_newcomer(outcome);
}

/// The one-job repository does not wait behind the burst.
fn check_newcomer(outcome: &Outcome) {
    let seen = outcome.times(
        |what| matches!(what, What::Call { operation: Operation::ListJobs, subject, .. } if subject == NEWCOMER),
    );
    let created =
        outcome.times(|what| matches!(what, What::SandboxCreated { name, .. } if name.contains("-50000005000-")));
    let seen = seen.iter().copied().find(|at| *at >= NEWCOMER_AT).expect("its jobs were read");
    let waited = created[0] - seen;
    println!("the newcomer's create was answered {waited:.1} s after its job was seen");
    assert!(waited <= 5.0, "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn four_runs_of_250_jobs_are_minted_as_fast_as_the_limits_allow() {
    for at in BURSTS_AT {
        check(&run(4, at).await, at, 13.0);
    }
}

/// Each for itself, so that they are played side by side.
async fn a_thousand_runs_of_one_job(at: f64) {
    check(&run(1_000, at).await, at, 1_010.0);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_runs_of_one_job_are_minted_as_fast_as_the_limits_allow() {
    a_thousand_runs_of_one_job(BURSTS_AT[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_runs_that_come_later_in_the_interval_are_too() {
    a_thousand_runs_of_one_job(BURSTS_AT[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_runs_that_come_late_in_the_interval_are_too() {
    a_thousand_runs_of_one_job(BURSTS_AT[2]).await;
}
