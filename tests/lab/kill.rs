//! A controller that is killed at the worst moments and started again knows nothing, and converges.

use std::collections::BTreeSet;
use std::time::Duration;

use sandrunner::sim::{Profile, Scenario, What, World};

use crate::lab::{Keeping, Lab, Next, Outcome, is_done_and_clean};

const HOURS_3: Duration = Duration::from_secs(3 * 3600);
/// More kills would leave no time to work between them.
const KILLS_MAX: usize = 8;
/// So many looks at the World lie between two kills at least.
const LOOKS_BETWEEN: usize = 150;

/// Whether a runner is registered whose sandbox has not been created.
fn has_create_under_way(world: &World) -> bool {
    let mut open = BTreeSet::new();
    for event in world.history(0) {
        if let What::RunnerRegistered { runner, .. } = event.what {
            open.insert(runner);
        } else if let What::SandboxCreated { name: ended, .. } | What::RunnerRemoved { runner: ended, .. } = event.what
        {
            open.remove(&ended);
        }
    }
    !open.is_empty()
}

/// Kills the controller whenever `is_moment`, and returns how often that was.
async fn killed(seed: u64, keeping: Keeping, is_moment: impl Fn(&World) -> bool) -> (Outcome, usize) {
    let (mut kills, mut looks) = (0, 0);
    let lab = Lab::new(Profile::realistic(), Scenario::generate(60, 6, seed), seed).keeping(keeping);
    let outcome = lab.drive(HOURS_3, Duration::from_millis(100), |world| {
        looks += 1;
        if kills < KILLS_MAX && looks >= LOOKS_BETWEEN && is_moment(world) {
            looks = 0;
            kills += 1;
            return Next::Kill;
        }
        if is_done_and_clean(world) { Next::End } else { Next::GoOn }
    });
    (outcome.await, kills)
}

fn check(seed: u64, (outcome, kills): &(Outcome, usize)) {
    let report = &outcome.report;
    let jobs = (report.jobs_expected, report.jobs_completed);
    assert!(*kills > 2, "seed {seed}: only {kills} kills");
    assert!(jobs.0 > 0 && jobs.0 == jobs.1, "seed {seed}, {kills} kills: {}", outcome.summary());
    assert!(report.violations.is_empty(), "seed {seed}, {kills} kills: {}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn kills_between_registration_and_create_lose_no_job_and_leave_nothing() {
    for seed in 1..=2 {
        check(seed, &killed(seed, Keeping::Nothing, has_create_under_way).await);
    }
}

#[tokio::test(start_paused = true)]
async fn kills_at_any_moment_lose_no_job_and_leave_nothing() {
    for seed in 3..=4 {
        check(seed, &killed(seed, Keeping::Nothing, |world| world.summary().expected_jobs_open > 0).await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_or_lost_over_kills_changes_nothing_about_the_end() {
    for (seed, keeping) in [(5, Keeping::All), (6, Keeping::ByTurns(6)), (7, Keeping::ByTurns(7))] {
        check(seed, &killed(seed, keeping, has_create_under_way).await);
    }
}
