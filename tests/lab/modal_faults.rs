//! Every named fault of Modal's and of sandboxes, one at a time.

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::sim::{Fault, FaultMode, Lognormal, NamedFault, Operation, Profile, Scenario, What};
use serde_json::{Value, json};

use crate::checker::{Rules, check};
use crate::lab::{Lab, Outcome, is_done_and_clean};
use crate::log::keeping_secrets;

const HOURS_6: Duration = Duration::from_secs(6 * 3600);

/// A matrix, a few single jobs later on, and one for a GPU.
fn jobs() -> Scenario {
    let plain = ["self-hosted", "modal"];
    let job = |id: u64, run: u64, repo: &str, labels: &[&str], arrival: u32| {
        json!({ "id": 5_000_000_000 + id, "run": 6_000_000_000 + run, "repo": repo, "labels": labels,
            "duration_secs": 90, "arrival_secs": arrival })
    };
    let mut jobs: Vec<Value> = (0..6).map(|index| job(index, 1, "acme/web", &plain, 20)).collect();
    jobs.extend([job(10, 2, "acme/api", &plain, 60), job(11, 3, "acme/api", &plain, 150)]);
    jobs.push(job(12, 4, "acme/web", &["self-hosted", "modal", "gpu:t4"], 40));
    let repos = json!([{ "name": "acme/web" }, { "name": "acme/api" }]);
    serde_json::from_value(json!({ "repos": repos, "jobs": jobs })).expect("a scenario")
}

/// Whether a fault is Modal's or a sandbox's.
pub(crate) fn is_modals(fault: &NamedFault) -> bool {
    let operations = fault.operations();
    let knobs = fault.knobs.iter().all(|(knob, _)| knob.starts_with("modal_"));
    knobs && operations.iter().all(|operation| *operation >= Operation::Modal && *operation <= Operation::ImageBuild)
}

async fn run(fault: &NamedFault) -> Outcome {
    let lab = Lab::new(Profile::realistic(), jobs(), 1);
    lab.world.add_fault(fault.name).expect("a named fault");
    if fault.operations().contains(&Operation::Terminate) {
        // Only a sandbox whose runner never came online is ever terminated.
        lab.world.add_fault("runner_never_online").expect("a named fault");
    }
    lab.run(HOURS_6, is_done_and_clean).await
}

/// The independent checker has nothing to say of it either.
pub(crate) fn judge(outcome: &Outcome, what: &str) {
    let lines: String =
        outcome.history.iter().map(|event| serde_json::to_string(event).expect("an event") + "\n").collect();
    let (recover_within, serve_within) = (TimeDelta::minutes(15), TimeDelta::minutes(10));
    let violations = check(&lines, Rules { recover_within, serve_within, quiet: None, ..Rules::default() });
    assert!(violations.is_empty(), "{what}: {violations:#?}");
}

/// Whether the fault itself took effect, beside those that only lead to it.
fn has_struck(outcome: &Outcome, fault: &NamedFault) -> bool {
    let is_it = |what: &What| {
        let is_struck = matches!(what, What::FaultStruck { fault: name, .. } if **name == *fault.name);
        let is_turned = || matches!(what, What::KnobsChanged { knobs } if !knobs.is_empty());
        is_struck || (fault.parts.is_empty() && is_turned())
    };
    !outcome.times(is_it).is_empty()
}

#[tokio::test(start_paused = true)]
async fn every_named_fault_strikes_and_ends_in_peace() {
    for fault in NamedFault::all().filter(|fault| is_modals(fault)) {
        let outcome = Box::pin(keeping_secrets(fault.name, run(fault))).await;
        let (name, report) = (fault.name, &outcome.report);
        assert!(has_struck(&outcome, fault), "{name} did not take effect: {}", outcome.summary());
        assert!(report.violations.is_empty(), "{name}: {}", outcome.summary());
        judge(&outcome, name);
        assert_eq!(report.jobs_completed, report.jobs_expected, "{name}: {}", outcome.summary());
        assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0), "{name}: {}", outcome.summary());
        assert!(report.virtual_seconds < 2_400.0, "{name}: {}", outcome.summary());
        assert_eq!(report.secrets_left_at_end, 0, "{name}: {}", outcome.summary());
    }
}

/// One job of ten minutes.
fn one_job() -> Scenario {
    let job = json!({ "id": 5_000_000_000_u64, "run": 6_000_000_000_u64, "repo": "acme/web",
        "labels": ["self-hosted", "modal"], "duration_secs": 60, "arrival_secs": 20 });
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": [job] })).expect("a scenario")
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_a_failed_create_left_is_removed_within_minutes() {
    let exhausted = Fault { status: Some(8), ..Fault::new(Operation::Create, FaultMode::Error) };
    let refused = Fault { status: Some(3), ..Fault::new(Operation::Create, FaultMode::Error) };
    let lost = Fault::new(Operation::Mint, FaultMode::ReplyLost);
    let late = Fault::new(Operation::Mint, FaultMode::AppliedLate);
    for fault in [exhausted, refused, lost, late] {
        let lab = Lab::new(Profile::realistic(), one_job(), 1);
        let what = format!("{:?} {:?} {:?}", fault.operation, fault.mode, fault.status);
        lab.world.add_fault(fault).expect("a fault");
        let outcome = lab.run(HOURS_6, is_done_and_clean).await;
        assert_eq!(outcome.report.jobs_completed, 1, "{what}: {}", outcome.summary());
        assert!(outcome.report.virtual_seconds < 900.0, "{what}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn sandboxes_of_an_app_that_was_made_again_are_seen_in_its_list() {
    let mut scenario = one_job();
    let mut later = scenario.jobs[0].clone();
    (later.id, later.run, later.arrival_secs, later.duration_secs) = (5_000_000_001, 6_000_000_001, 400.0, 1_800.0);
    scenario.jobs.push(later);
    let lab = Lab::new(Profile::calm(), scenario, 1);
    let stopped = Fault { from_secs: 200.0, ..Fault::new(Operation::ListSandboxes, FaultMode::AppStopped) };
    lab.world.add_fault(stopped).expect("a fault");
    let outcome = lab.run(HOURS_6, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 2, "{}", outcome.summary());
    // One that no list shows is looked up by its id, again and again.
    let looked_up = outcome.times(|what| matches!(what, What::Call { operation: Operation::Wait, .. })).len();
    assert!(looked_up <= 5, "{looked_up} look-ups by id: {}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_gone_is_built_again_however_modal_says_it() {
    for name in ["images_gone", "images_unbuilt"] {
        let lab = Lab::new(Profile::realistic(), one_job(), 1);
        lab.world.add_fault(name).expect("a named fault");
        let outcome = lab.run(HOURS_6, is_done_and_clean).await;
        assert_eq!(outcome.report.jobs_completed, 1, "{name}: {}", outcome.summary());
        assert!(outcome.report.virtual_seconds < 900.0, "{name}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_placed_at_the_last_moment_keeps_its_job() {
    let job = |id: u64| {
        json!({ "id": 5_000_000_000 + id, "run": 6_000_000_000_u64, "repo": "acme/web",
            "labels": ["self-hosted", "modal", "gpu:t4"], "duration_secs": 90, "arrival_secs": id })
    };
    let jobs: Vec<Value> = (0..4).map(job).collect();
    let scenario: Scenario =
        serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })).expect("a scenario");
    let mut placed_late = 0;
    for seed in 1..=20 {
        // GPU classes give up after a quarter of an hour; Modal's list lags by up to ten seconds.
        let gpu_schedule = Lognormal { median_secs: 897.0, p95_secs: 903.0 };
        let profile = Profile { gpu_schedule, boot: Lognormal::constant(2.0), ..Profile::realistic() };
        let outcome = Lab::new(profile, scenario.clone(), seed).run(HOURS_6, is_done_and_clean).await;
        let report = &outcome.report;
        assert_eq!((report.claimed_sandboxes_terminated, report.jobs_completed), (0, 4), "{}", outcome.summary());
        placed_late += outcome.times(|what| matches!(what, What::RunnerDeleteAsked { .. })).len();
    }
    assert!(placed_late > 0, "no seed came near the limit");
}
