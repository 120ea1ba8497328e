//! The controller is killed at a call: before it is sent, after it was applied, after its answer.

use std::time::Duration;

use sandrunner::sim::{Crash, CrashPhase, Operation, Profile, Scenario, Span, What};
use serde_json::json;

use crate::lab::{Lab, Outcome, is_done_and_clean};

/// One job, for a GPU where that is asked for.
fn job(labels: &[&str]) -> Scenario {
    let job = json!({ "id": 5_000_000_000_u64, "run": 6_000_000_000_u64, "repo": "acme/web",
        "labels": labels, "duration_secs": 60, "arrival_secs": 30 });
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": [job] })).expect("a scenario")
}

async fn killed(crash: Crash, labels: &[&str]) -> Outcome {
    let lab = Lab::new(Profile::calm(), job(labels), 1);
    lab.world.crash_at(crash);
    let outcome = lab.run(Duration::from_secs(2 * 3600), is_done_and_clean).await;
    let kills = outcome.times(|what| matches!(what, What::ClientKilled { .. }));
    assert_eq!(kills.len(), 1, "{crash:?}: {}", outcome.summary());
    assert_eq!(outcome.report.jobs_completed, 1, "{crash:?}: {}", outcome.summary());
    assert!(outcome.report.violations.is_empty(), "{crash:?}: {}", outcome.summary());
    assert_eq!(outcome.report.secrets_left_at_end, 0, "{crash:?}: {}", outcome.summary());
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_call_of_a_job_converges() {
    for phase in CrashPhase::ALL.iter().copied() {
        for nth in 1..=40 {
            killed(Crash { client: 1, operation: None, nth, phase }, &["self-hosted", "modal"]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_each_write_of_a_gpu_job_converges() {
    for operation in [Operation::Mint, Operation::Secret, Operation::Create, Operation::SecretDelete] {
        for phase in CrashPhase::ALL.iter().copied() {
            let crash = Crash { client: 1, operation: Some(operation), nth: 1, phase };
            killed(crash, &["self-hosted", "modal", "gpu:t4"]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_step_decides_whether_the_call_took_effect() {
    for phase in CrashPhase::ALL.iter().copied() {
        let crash = Crash { client: 1, operation: Some(Operation::Create), nth: 1, phase };
        let outcome = killed(crash, &["self-hosted", "modal"]).await;
        let killed_at = outcome.times(|what| matches!(what, What::ClientKilled { .. }))[0];
        let created_at = outcome.times(|what| matches!(what, What::SandboxCreated { .. }))[0];
        assert_eq!(created_at <= killed_at, phase != CrashPhase::BeforeSend, "{}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_was_not_listed_when_its_name_was_found_taken_is_removed_within_minutes() {
    let profile = Profile { runner_visible_secs: Span::new(20.0, 20.0), image_build_secs: 1.0, ..Profile::calm() };
    let mut scenario = job(&["self-hosted", "modal"]);
    // Nothing else makes anybody look at the runners of the repository again.
    scenario.jobs[0].cancel_secs = Some(30.0);
    let lab = Lab::new(profile, scenario, 1);
    lab.world.crash_at(Crash { client: 1, operation: Some(Operation::Mint), nth: 1, phase: CrashPhase::AfterReply });
    let outcome = lab.run(Duration::from_secs(2 * 3600), is_done_and_clean).await;
    let taken = |what: &What| matches!(what, What::Call { operation: Operation::Mint, status: 409, .. });
    assert_eq!(outcome.times(taken).len(), 1, "{}", outcome.summary());
    assert!(outcome.report.virtual_seconds < 900.0, "{}", outcome.summary());
}
