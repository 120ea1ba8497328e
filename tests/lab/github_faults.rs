//! Every named fault of GitHub's, and of both services, one at a time.

use std::time::Duration;

use sandrunner::sim::{FaultMode, NamedFault, Operation, Profile, Scenario, Span, What};
use serde_json::{Value, json};

use crate::lab::{Lab, Outcome, app_account, is_done_and_clean};
use crate::log::keeping_secrets;
use crate::modal_faults::{is_modals, judge};

const HOURS_6: Duration = Duration::from_secs(6 * 3600);
/// How long the work of a run takes at most beside what its fault lasts.
const USUAL_SECS: f64 = 2_400.0;

/// Whether a fault is played here: all that are not Modal's alone, and runners that GitHub does not admit.
fn is_githubs(fault: &NamedFault) -> bool {
    !is_modals(fault) || fault.name.starts_with("runner_")
}

/// A matrix, single jobs later on, and one with a label more.
fn jobs() -> Scenario {
    let plain = ["self-hosted", "modal"];
    let job = |id: u64, run: u64, labels: &[&str], arrival: u32| {
        json!({ "id": 5_000_000_000 + id, "run": 6_000_000_000 + run, "repo": "acme/web", "labels": labels,
            "duration_secs": 90, "arrival_secs": arrival })
    };
    let mut jobs: Vec<Value> = (0..6).map(|index| job(index, 1, &plain, 20)).collect();
    // What asked for a label more goes away, and leaves its runner to the next plain job.
    let mut larger = job(10, 2, &["self-hosted", "modal", "job-2-0"], 130);
    larger["cancel_secs"] = json!(25);
    jobs.push(larger);
    jobs.extend((11..18).map(|index| job(index, index, &plain, 60 * u32::try_from(index - 10).expect("few"))));
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })).expect("a scenario")
}

/// One job that runs for long while lists show its runner offline and idle, and no job: its registration is deleted.
fn unseen() -> (Profile, Scenario) {
    let job = json!({ "id": 5_000_000_000_u64, "run": 6_000_000_000_u64, "repo": "acme/web",
        "labels": ["self-hosted", "modal"], "duration_secs": 500, "arrival_secs": 5 });
    let faults = json!([
        { "operation": "list_runners", "mode": "online_hidden", "until_secs": 700 },
        { "operation": "list_jobs", "mode": "error", "from_secs": 100, "until_secs": 450 },
    ]);
    let scenario = json!({ "repos": [{ "name": "acme/web" }], "jobs": [job], "faults": faults });
    let profile = Profile { busy_lag_secs: Span::new(3_600.0, 3_600.0), image_build_secs: 45.0, ..Profile::calm() };
    (profile, serde_json::from_value(scenario).expect("a scenario"))
}

async fn run(fault: &NamedFault) -> Outcome {
    let needs_busy = fault.parts.iter().any(|part| part.mode == FaultMode::DeletedWhileBusy);
    let (profile, scenario) = if needs_busy { unseen() } else { (Profile::realistic(), jobs()) };
    let mut lab = Lab::new(profile, scenario, 1);
    if fault.name.starts_with("app_") {
        lab = lab.configure(|config| config.github = vec![app_account("gh", &["acme/web"])]);
    }
    lab.world.add_fault(fault.name).expect("a named fault");
    if fault.operations().contains(&Operation::DeleteRunner) && !needs_busy {
        // A registration that nobody uses is deleted.
        lab.world.add_fault("runner_never_online").expect("a named fault");
    }
    lab.run(HOURS_6, is_done_and_clean).await
}

fn has_struck(outcome: &Outcome, fault: &NamedFault) -> bool {
    let is_it = |what: &What| matches!(what, What::FaultStruck { fault: name, .. } if **name == *fault.name);
    !outcome.times(is_it).is_empty()
}

#[tokio::test(start_paused = true)]
async fn every_named_fault_of_githubs_strikes_and_ends_in_peace() {
    for fault in NamedFault::all().filter(|fault| is_githubs(fault)) {
        let outcome = Box::pin(keeping_secrets(fault.name, run(fault))).await;
        let (name, report) = (fault.name, &outcome.report);
        assert!(has_struck(&outcome, fault), "{name} did not take effect: {}", outcome.summary());
        assert!(report.violations.is_empty(), "{name}: {}", outcome.summary());
        judge(&outcome, name);
        assert_eq!(report.jobs_completed, report.jobs_expected, "{name}: {}", outcome.summary());
        assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0), "{name}: {}", outcome.summary());
        // What lasts for an hour holds some jobs back for as long.
        let lasts = fault.faults().flat_map(|part| part.until_secs.into_iter().chain(part.seconds)).fold(0.0, f64::max);
        assert!(report.virtual_seconds < USUAL_SECS + lasts, "{name}: {}", outcome.summary());
    }
}
