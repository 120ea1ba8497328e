//! Controllers on a machine whose clock is wrong, jumps, or stands still for hours.
//!
//! Intervals follow the monotonic clock, so a jump alone changes nothing. A wrong clock shows where a service's
//! own times are compared with ours: the age of a sandbox that an earlier controller started.

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::sim::{Fault, FaultMode, Lognormal, Operation, Profile, Scenario, What};
use serde_json::{Value, json};

use crate::lab::{Lab, Next, Outcome, is_done_and_clean};

const HOURS_3: Duration = Duration::from_secs(3 * 3600);
const JOBS: u32 = 12;

/// Jobs of a few minutes, all at once.
fn jobs() -> Scenario {
    let job = |index: u32| {
        json!({ "id": 5_000_000_000 + u64::from(index), "run": 6_000_000_000_u64, "repo": "acme/web",
            "labels": ["self-hosted", "modal"], "duration_secs": 300 })
    };
    let jobs: Vec<Value> = (0..JOBS).map(job).collect();
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })).expect("a scenario")
}

/// Sandboxes whose runners take a minute and a half to come online.
fn slow_starts() -> Profile {
    Profile { boot: Lognormal::constant(90.0), ..Profile::calm() }
}

fn lab(wall_ahead: TimeDelta) -> Lab {
    Lab::new(slow_starts(), jobs(), 1).wall_ahead(wall_ahead)
}

/// An hour and a day, either way.
fn offsets() -> [TimeDelta; 4] {
    [TimeDelta::hours(-1), TimeDelta::hours(1), TimeDelta::days(-1), TimeDelta::days(1)]
}

/// Does something once at a time, and ends when all is done and clean.
async fn once_at(lab: Lab, secs: i64, what: &[Next]) -> Outcome {
    let at = lab.clock.now() + TimeDelta::seconds(secs);
    let clock = lab.clock.clone();
    let mut left = what.iter().copied();
    lab.drive(HOURS_3, Duration::from_secs(1), move |world| {
        if clock.now() >= at
            && let Some(next) = left.next()
        {
            return next;
        }
        if is_done_and_clean(world) { Next::End } else { Next::GoOn }
    })
    .await
}

fn check(outcome: &Outcome, creates: usize, what: &str) {
    let report = &outcome.report;
    assert!(report.violations.is_empty(), "{what}: {}", outcome.summary());
    assert_eq!(report.jobs_completed, report.jobs_expected, "{what}: {}", outcome.summary());
    assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0), "{what}: {}", outcome.summary());
    let made = outcome.times(|it| matches!(it, What::SandboxCreated { .. })).len();
    assert_eq!(made, creates, "{what}: {}", outcome.summary());
}

/// One sandbox per job.
const ALL: usize = JOBS as usize;

#[tokio::test(start_paused = true)]
async fn a_controller_started_with_a_wrong_clock_takes_over_what_is_starting() {
    for ahead in offsets() {
        let outcome = once_at(lab(ahead), 60, &[Next::Kill]).await;
        check(&outcome, ALL, &format!("ahead by {ahead}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_changes_nothing_and_the_next_start_bears_it() {
    for by in offsets() {
        let jumped = once_at(lab(TimeDelta::zero()), 60, &[Next::Jump(by)]).await;
        check(&jumped, ALL, &format!("jump by {by}"));
        let restarted = once_at(lab(TimeDelta::zero()), 60, &[Next::Jump(by), Next::Kill]).await;
        check(&restarted, ALL, &format!("jump by {by} and restart"));
    }
}

/// How long the jobs waited at most, in seconds.
fn longest_wait(outcome: &Outcome) -> f64 {
    let taken = outcome.times(|it| matches!(it, What::JobAssigned { .. }));
    taken.into_iter().fold(0.0, f64::max)
}

#[tokio::test(start_paused = true)]
async fn a_start_that_failed_is_noticed_in_time_whatever_the_clock_shows() {
    let mut waits = Vec::new();
    for ahead in [TimeDelta::zero()].into_iter().chain(offsets()) {
        let lab = lab(ahead);
        let fault = Fault { times: 2, ..Fault::new(Operation::Boot, FaultMode::NeverOnline) };
        lab.world.add_fault(fault).expect("a fault");
        let outcome = once_at(lab, 0, &[]).await;
        check(&outcome, ALL + 2, &format!("ahead by {ahead}"));
        waits.push(longest_wait(&outcome));
    }
    let usual = waits[0];
    assert!(waits.iter().all(|wait| (wait - usual).abs() <= 60.0), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_for_hours_goes_on_where_the_world_is() {
    let lab = lab(TimeDelta::zero());
    // The first sandbox that is made after the machine came back fails to start.
    let fault = Fault { after: JOBS, ..Fault::new(Operation::Boot, FaultMode::NeverOnline) };
    lab.world.add_fault(fault).expect("a fault");
    let mut late = jobs().jobs.swap_remove(0);
    (late.id, late.run, late.arrival_secs) = (5_100_000_000, 6_100_000_000, 7_500.0);
    lab.world.add_jobs(vec![late]).expect("a job");
    let outcome = once_at(lab, 60, &[Next::Suspend(Duration::from_secs(2 * 3600))]).await;
    check(&outcome, ALL + 2, "suspended");
    let wait = longest_wait(&outcome) - 7_500.0;
    assert!(wait < 900.0, "a job waited {wait} s although its sandbox had failed");
}
