//! What befalls the controller's machine, by name: the work is done all the same, and the checker has nothing to say.

use std::time::Duration;

use sandrunner::sim::{ControllerChange, Mishap, Profile, Scenario, What, World};
use serde_json::{Value, json};

use crate::checker::{Rules, check};
use crate::lab::{Keeping, Lab, Outcome, SECRETS, is_done_and_clean};

const HOURS_3: Duration = Duration::from_secs(3 * 3600);
/// For how long nothing may be changed at the end.
const QUIET_SECS: i64 = 4 * 60;

/// Jobs that come over ten minutes, and a fault as a scenario file names it.
fn scenario(fault: &Value) -> Scenario {
    let job = |index: u32| {
        json!({ "id": 5_000_000_000 + u64::from(index), "run": 6_000_000_000 + u64::from(index / 4), "repo": "acme/web",
            "labels": ["self-hosted", "modal"], "duration_secs": 100, "arrival_secs": 10 + index / 4 * 120 })
    };
    let jobs: Vec<Value> = (0..20).map(job).collect();
    let scenario = json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs, "faults": [fault] });
    serde_json::from_value(scenario).expect("a scenario")
}

async fn run(fault: &Value, seed: u64) -> Outcome {
    let lab = Lab::new(Profile::realistic(), scenario(fault), seed).keeping(Keeping::All);
    let mut quiet_from = None;
    let is_over = |world: &World| {
        if !is_done_and_clean(world) {
            return false;
        }
        let now = world.clock().now();
        (now - *quiet_from.get_or_insert(now)).num_seconds() > QUIET_SECS
    };
    lab.run(HOURS_3, is_over).await
}

/// How often it happened.
fn struck(outcome: &Outcome, mishap: Mishap) -> usize {
    outcome.times(|what| matches!(what, What::MachineStruck { mishap: struck, .. } if *struck == mishap)).len()
}

/// The history as it is written down.
fn lines(outcome: &Outcome) -> String {
    outcome.history.iter().map(|event| serde_json::to_string(event).expect("an event") + "\n").collect()
}

fn judge(outcome: &Outcome, mishap: Mishap, seed: u64) {
    let what = format!("{} with seed {seed}", mishap.name());
    let report = &outcome.report;
    assert_eq!((report.jobs_expected, report.jobs_completed), (20, 20), "{what}: {}", outcome.summary());
    let controllers = if mishap == Mishap::SecondController { 2 } else { 1 };
    let violations = check(&lines(outcome), Rules { controllers, ..Rules::default() });
    assert!(violations.is_empty(), "{what}: {violations:#?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_befalls_the_machine_the_work_is_done_and_nothing_is_left() {
    for mishap in Mishap::ALL.iter().copied() {
        for seed in 1..=3 {
            let outcome = run(&json!(mishap.name()), seed).await;
            assert!(struck(&outcome, mishap) > 0, "{} did not happen", mishap.name());
            judge(&outcome, mishap, seed);
        }
    }
}

/// How often a controller was started, or killed at a call.
fn lives(outcome: &Outcome) -> (usize, usize) {
    let started =
        outcome.times(|what| matches!(what, What::ControllerChanged { change: ControllerChange::Started, .. }));
    (started.len(), outcome.times(|what| matches!(what, What::ClientKilled { .. })).len())
}

#[tokio::test(start_paused = true)]
async fn a_controller_dies_of_every_mishap_but_the_second_one() {
    for mishap in Mishap::ALL.iter().copied() {
        let outcome = run(&json!({ "name": mishap.name(), "times": 2, "rate": 0.05 }), 1).await;
        assert_eq!(struck(&outcome, mishap), 2, "{}", mishap.name());
        let deaths = if mishap == Mishap::SecondController { 0 } else { 2 };
        assert_eq!(lives(&outcome), (3, deaths), "{}", mishap.name());
    }
}

#[tokio::test(start_paused = true)]
async fn kills_between_calls_in_a_row_end_in_peace() {
    // Each life makes some calls before the next kill.
    for seed in 1..=5 {
        let outcome = run(&json!({ "name": "controller_killed", "times": 20, "rate": 0.1 }), seed).await;
        assert_eq!(struck(&outcome, Mishap::ControllerKilled), 20);
        judge(&outcome, Mishap::ControllerKilled, seed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_befell_no_machine_yet_is_taken_out_with_all_faults() {
    let lab = Lab::new(Profile::calm(), scenario(&json!({ "name": "state_lost", "rate": 1.0 })), 1);
    lab.world.clear_faults();
    let outcome = lab.run(HOURS_3, is_done_and_clean).await;
    assert_eq!(struck(&outcome, Mishap::StateLost), 0);
}

#[tokio::test(start_paused = true)]
async fn the_checker_finds_a_secret_that_the_lab_uses() {
    assert!(SECRETS.iter().all(|secret| Rules::default().canaries.contains(&(*secret).to_owned())));
    // As the label of a job, which the history tells.
    for secret in SECRETS {
        let mut scenario = scenario(&json!("controller_killed"));
        scenario.jobs[0].labels.push(secret.to_owned());
        let lab = Lab::new(Profile::calm(), scenario, 1);
        let outcome = lab.run(Duration::from_secs(300), |_| false).await;
        let found = check(&lines(&outcome), Rules::default());
        assert!(found.iter().any(|violation| violation.invariant == "secret"), "{found:#?}");
    }
}
