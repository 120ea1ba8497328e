//! How fast sandboxes are created where Modal's rate is the only limit.

use std::time::Duration;

use sandrunner::sim::{Operation, Profile, Scenario, ScenarioJob, ScenarioRepo, What, World};
use serde_json::json;

use crate::lab::Lab;

const JOBS: u64 = 1_000;
/// When they are queued: the image has served by then.
const AT: f64 = 60.0;
/// A hundred and fifty at once, the rest at five a second.
const LEAST_SECS: f64 = 170.0;

fn job(id: u64, arrival: f64) -> ScenarioJob {
    let job = json!({ "id": id, "run": id, "repo": "acme/web", "labels": ["self-hosted", "modal"],
        "arrival_secs": arrival, "duration_secs": if id == 1 { 30 } else { 900 } });
    serde_json::from_value(job).expect("a job")
}

#[tokio::test(start_paused = true)]
async fn a_thousand_creates_take_what_modals_rate_makes_them_take_and_none_is_refused() {
    let jobs = std::iter::once(job(1, 1.0)).chain((0..JOBS).map(|index| job(1_000 + index, AT)));
    let scenario =
        Scenario { repos: vec![ScenarioRepo::served("acme/web")], jobs: jobs.collect(), ..Scenario::default() };
    // GitHub has no limits here, and calls take the time that they take.
    let profile = Profile {
        github_requests_per_hour: 10_000_000,
        github_points_per_minute: 1_000_000,
        github_mutations_per_minute: 1_000_000,
        image_build_secs: 5.0,
        ..Profile::calm()
    };
    let is_over = |world: &World| world.summary().jobs_in_progress as u64 == JOBS;
    let lab = Lab::new(profile, scenario, 3).configure(|config| {
        for account in &mut config.github {
            account.points_per_minute = 100_000;
            account.mutations_per_minute = 100_000;
            account.max_in_flight = 90;
        }
        assert_eq!((config.modal.creates_per_second.to_bits(), config.modal.create_burst), (5.0_f64.to_bits(), 150));
    });
    let outcome = lab.run(Duration::from_secs(1_200), is_over).await;
    let created = outcome.times(|what| matches!(what, What::SandboxCreated { .. }));
    let seen = outcome.times(|what| matches!(what, What::Call { operation: Operation::ListJobs, .. }));
    let began = seen.into_iter().find(|at| *at >= AT).expect("the burst was seen");
    let last = created.iter().copied().fold(0.0, f64::max);
    println!("the last of {} creates came {:.1} s after the burst was seen", created.len(), last - began);
    assert_eq!(created.len() as u64, JOBS + 1, "{}", outcome.summary());
    assert!(last - began <= 1.05 * LEAST_SECS, "{} s: {}", last - began, outcome.summary());
    let refused = outcome.times(|what| matches!(what, What::Call { operation: Operation::Create, status: 8, .. }));
    assert!(refused.is_empty(), "refused at {refused:?}");
}
