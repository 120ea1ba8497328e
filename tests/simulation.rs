//! The unchanged controller against the simulated services, in virtual time.

#![expect(
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "tests tell their figures and look at few kinds of events"
)]

#[path = "lab/accounts.rs"]
mod accounts;
#[expect(dead_code, reason = "what other users need of it")]
#[path = "checker/checker.rs"]
mod checker;
#[path = "lab/claims.rs"]
mod claims;
#[path = "lab/clock.rs"]
mod clock;
#[path = "lab/cost.rs"]
mod cost;
#[path = "lab/crash.rs"]
mod crash;
#[path = "lab/creates.rs"]
mod creates;
#[path = "lab/github_faults.rs"]
mod github_faults;
#[path = "lab/gpus.rs"]
mod gpus;
#[path = "lab/idle.rs"]
mod idle;
#[path = "lab/images.rs"]
mod images;
#[path = "lab/kill.rs"]
mod kill;
#[expect(dead_code, reason = "what other tests need of the lab")]
#[path = "lab/lab.rs"]
mod lab;
#[path = "lab/log.rs"]
mod log;
#[path = "lab/machine.rs"]
mod machine;
#[path = "lab/modal_faults.rs"]
mod modal_faults;
#[path = "lab/options.rs"]
mod options;
#[path = "lab/organization.rs"]
mod organization;
#[path = "lab/pair.rs"]
mod pair;
#[path = "lab/polling.rs"]
mod polling;
#[path = "lab/releases.rs"]
mod releases;
#[path = "lab/rotation.rs"]
mod rotation;
#[path = "lab/trust.rs"]
mod trust;

use std::path::Path;
use std::time::Duration;

use lab::{Lab, Outcome, is_done_and_clean};
use sandrunner::sim::{Profile, Replay, Scenario};

const HOURS_3: Duration = Duration::from_secs(3 * 3600);

async fn run(profile: Profile, scenario: Scenario, seed: u64) -> Outcome {
    Lab::new(profile, scenario, seed).run(HOURS_3, is_done_and_clean).await
}

fn check(outcome: &Outcome) {
    let report = &outcome.report;
    assert!(report.violations.is_empty(), "{}", outcome.summary());
    assert!(report.jobs_expected > 0 && report.jobs_completed == report.jobs_expected, "{}", outcome.summary());
    assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0));
    assert_eq!((report.claimed_sandboxes_terminated, report.foreign_touched, report.github_rate_limited), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn recorded_webhooks_are_replayed_to_completion() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/webhooks");
    let mappings = ["ubuntu-latest=modal".to_owned(), "k8s=modal".to_owned()];
    let replay = Replay::read(&[path], &mappings).unwrap();
    check(&run(Profile::realistic(), replay.scenario, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_mixed_workload_is_served_on_the_realistic_profile() {
    for seed in 1..=3 {
        let outcome = run(Profile::realistic(), Scenario::generate(120, 10, seed), seed).await;
        check(&outcome);
        assert!(outcome.report.surplus_runners * 20 <= 120, "seed {seed}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let lines = |outcome: &Outcome| -> Vec<String> {
        outcome.history.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
    };
    let first = run(Profile::realistic(), Scenario::generate(30, 4, 7), 7).await;
    let second = run(Profile::realistic(), Scenario::generate(30, 4, 7), 7).await;
    let (first, second) = (lines(&first), lines(&second));
    let different = first.iter().zip(&second).position(|(a, b)| a != b);
    assert_eq!(different, None, "{:?}", different.map(|index| (&first[index], &second[index])));
    assert_eq!(first.len(), second.len());
}

#[tokio::test(start_paused = true)]
#[ignore = "a measurement for people: cargo test --release --test simulation -- --ignored --nocapture"]
async fn measure_the_demo_of_a_thousand_jobs() {
    let outcome = run(Profile::realistic(), Scenario::generate(1_000, 50, 1), 1).await;
    println!("{}", outcome.summary());
    let lines: Vec<String> = outcome.history.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/history.jsonl"), lines.join("\n")).unwrap();
}
