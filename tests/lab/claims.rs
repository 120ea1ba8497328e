//! Claim feedback and breakers (design rule C) end to end: how many runners jobs get that GitHub gives to nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use sandrunner::sim::{Event, FaultRequest, Operation, Profile, Scenario, What, World};
use sandrunner::status::Status;
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use crate::lab::{Lab, Next, Outcome, epoch, is_done_and_clean};

type Answer = Receiver<Status>;

/// What holds for one seed may be luck.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;

/// The defaults of the clocks, and more than any runner takes to come online, in seconds.
const CLAIM_WINDOW: f64 = 90.0;
const IDLE_LIMIT: f64 = 300.0;
const BOOT: f64 = 60.0;
const HOUR: f64 = 3_600.0;
const HOURS_8: Duration = Duration::from_secs(8 * 3_600);

/// So many jobs of one run and label set, all at once, of which GitHub runs `max_parallel` at a time.
fn jobs(count: u64, max_parallel: Option<u32>) -> Scenario {
    let job = |index: u64| {
        json!({ "id": 5_000_000_000 + index, "run": 6_000_000_000_u64, "repo": "acme/web",
            "labels": ["self-hosted", "modal"], "duration_secs": 60, "arrival_secs": 30 })
    };
    let jobs: Vec<Value> = (0..count).map(job).collect();
    let run = json!({ "id": 6_000_000_000_u64, "max_parallel": max_parallel });
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs, "runs": [run] }))
        .expect("a scenario")
}

/// The runners at a moment, from their registrations on.
#[derive(Debug, Clone, Copy)]
struct Supply {
    at: f64,
    claimed: usize,
    unclaimed: usize,
}

/// How the supply changed.
#[expect(clippy::wildcard_enum_match_arm, reason = "other events change no supply")]
fn supply(history: &[Event]) -> Vec<Supply> {
    let (mut live, mut claimed) = (BTreeSet::new(), BTreeSet::new());
    let mut changes = Vec::new();
    for event in history {
        match &event.what {
            What::RunnerRegistered { runner, .. } => drop(live.insert(runner.clone())),
            What::JobAssigned { runner, .. } => drop(claimed.insert(runner.clone())),
            What::SandboxEnded { name, .. } => drop(live.remove(name)),
            What::RunnerRemoved { runner, .. } => drop(live.remove(runner)),
            _ => continue,
        }
        let claimed = live.intersection(&claimed).count();
        let at = (event.at - epoch()).as_seconds_f64();
        changes.push(Supply { at, claimed, unclaimed: live.len() - claimed });
    }
    changes
}

fn creates(outcome: &Outcome) -> Vec<f64> {
    outcome.times(|what| matches!(what, What::SandboxCreated { .. }))
}

fn mints(outcome: &Outcome) -> Vec<f64> {
    outcome.times(|what| matches!(what, What::RunnerRegistered { .. }))
}

/// The most unclaimed runners at a time, from one moment to another.
fn peak(supply: &[Supply], from: f64, to: f64) -> usize {
    let within = supply.iter().filter(|it| it.at >= from && it.at < to);
    within.map(|it| it.unclaimed).max().unwrap_or(0)
}

/// Two Worlds in ten without lag, the others as bad as the real ones.
fn profile(seed: u64) -> Profile {
    if seed.is_multiple_of(5) { Profile::calm() } else { Profile::realistic() }
}

/// A run in which GitHub gives out one of many jobs at a time, all listed as queued.
async fn max_parallel_one(first_wave: u32, seed: u64) -> (Outcome, Vec<Supply>) {
    let lab =
        Lab::new(profile(seed), jobs(51, Some(1)), seed).configure(|config| config.reconcile.first_wave = first_wave);
    let outcome = lab.run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 51, "seed {seed}: {}", outcome.summary());
    let supply = supply(&outcome.history);
    (outcome, supply)
}

#[tokio::test(start_paused = true)]
async fn a_matrix_that_runs_one_job_at_a_time_gets_its_first_wave_and_then_one_runner_beyond_the_claimed() {
    for seed in SEEDS {
        let (outcome, supply) = max_parallel_one(20, seed).await;
        // Runners of the first wave end by themselves, at the latest at their idle limit.
        let first_wave_gone = mints(&outcome)[0] + CLAIM_WINDOW + IDLE_LIMIT + BOOT;
        assert!(peak(&supply, 0.0, first_wave_gone) <= 21, "seed {seed}: {}", outcome.summary());
        let later = supply.iter().filter(|it| it.at >= first_wave_gone);
        assert!(later.map(|it| it.unclaimed).max() <= Some(1), "seed {seed}: {supply:?}");
        // None is made in the meantime, because what waits is more than what is asked for.
        assert!(mints(&outcome).len() <= 51 + 20, "seed {seed}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_first_wave_of_one_no_more_than_two_runners_wait_at_a_time() {
    for seed in SEEDS {
        let (outcome, supply) = max_parallel_one(1, seed).await;
        assert!(supply.iter().all(|it| it.unclaimed + it.claimed <= 2), "seed {seed}: {supply:?}");
        assert_eq!(outcome.report.surplus_runners, 0, "seed {seed}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_matrix_that_runs_ten_jobs_at_a_time_is_kept_busy_after_the_first_wave_waited_in_vain() {
    let outcome = Lab::new(Profile::realistic(), jobs(100, Some(10)), 1).run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 100, "{}", outcome.summary());
    let ends = outcome.times(|what| matches!(what, What::JobCompleted { .. }));
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    println!("100 jobs of a minute, ten at a time: {:.0} s, {} registrations", last - first, mints(&outcome).len());
    // Ten minutes where each end is followed by a start at once; the runner of every start has to boot.
    assert!(last - first <= 3.0 * 600.0, "{} s: {}", last - first, outcome.summary());
    assert!(mints(&outcome).len() <= 100 + 30, "{}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn after_a_stall_of_github_s_a_matrix_is_served_as_fast_as_before() {
    let lab = Lab::new(Profile::realistic(), jobs(200, None), 1);
    // Jobs stay queued for four minutes although runners wait for them.
    let stall = json!({ "operation": "assign", "mode": "withheld", "until_secs": 270, "times": 1_000_000 });
    lab.world.add_fault(serde_json::from_value::<FaultRequest>(stall).expect("a request")).expect("a fault");
    let outcome = lab.run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 200, "{}", outcome.summary());
    let last = outcome.times(|what| matches!(what, What::JobCompleted { .. })).into_iter().fold(0.0, f64::max);
    println!("200 jobs of a minute, {:.0} s after a stall of four minutes", last - 270.0);
    assert!(last - 270.0 <= 1_200.0, "{last} s: {}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn where_github_offers_a_newer_runner_the_refused_image_is_made_again() {
    let lab = Lab::new(Profile::realistic(), jobs(6, None), 1);
    // The old version is refused until the new one is offered; then nothing says so but a new image.
    let refused = json!({ "operation": "boot", "mode": "version_refused", "times": 2 });
    let newer = json!({ "knobs": { "runner_version": "2.999.0" }, "from_secs": 30 });
    for fault in [refused, newer] {
        lab.world.add_fault(serde_json::from_value::<FaultRequest>(fault).expect("a request")).expect("a fault");
    }
    let outcome = lab.run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 6, "{}", outcome.summary());
    let built = outcome.times(|what| matches!(what, What::Call { operation: Operation::Image, .. }));
    assert!(built.iter().any(|at| *at > 45.0), "images were asked for at {built:?}: {}", outcome.summary());
    let last = outcome.times(|what| matches!(what, What::JobCompleted { .. })).into_iter().fold(0.0, f64::max);
    assert!(last < 300.0, "a new image has no breaker, so nothing waits for a probe: {last} s");
}

/// What a run under a lasting fault came to.
struct Faulty {
    outcome: Outcome,
    /// Reasons that the status gave meanwhile, of jobs that got nothing.
    reasons: BTreeSet<String>,
    /// When the fault was taken away.
    cleared_at: f64,
}

/// Lets faults last for an hour, asking for the status every minute, and then takes them away.
async fn under(faults: &[FaultRequest], count: u64, seed: u64) -> Faulty {
    let lab = Lab::new(profile(seed), jobs(count, None), seed);
    for fault in faults {
        let lasting = FaultRequest { until_secs: Some(8.0 * HOUR), ..fault.clone() };
        lab.world.add_fault(lasting).expect("a fault");
    }
    let (questions, clock) = (lab.questions(), lab.clock.clone());
    let (mut reasons, mut asked, mut cleared_at) = (BTreeSet::new(), None, None);
    let next = |world: &World| {
        let now = (clock.now() - epoch()).as_seconds_f64();
        let status = asked.replace(questions.ask()).and_then(|mut answer: Answer| answer.try_recv().ok());
        reasons.extend(
            status.into_iter().flat_map(|status| status.jobs).map(|job| format!("{}: {}", job.reason, job.text)),
        );
        if now >= HOUR && cleared_at.is_none() {
            world.clear_faults();
            cleared_at = Some(now);
        }
        if cleared_at.is_some() && is_done_and_clean(world) { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(HOURS_8, Duration::from_secs(10), next).await;
    let completed = outcome.report.jobs_completed;
    assert_eq!(u64::try_from(completed).ok(), Some(count), "{faults:?}, seed {seed}: {}", outcome.summary());
    Faulty { outcome, reasons, cleared_at: cleared_at.expect("it lasts longer than an hour") }
}

/// Creates before the first pause of a minute, and in all until the fault was taken away.
fn creates_under(faulty: &Faulty) -> (usize, usize) {
    let creates: Vec<f64> = mints(&faulty.outcome).into_iter().filter(|at| *at < faulty.cleared_at).collect();
    let first = creates.windows(2).position(|pair| pair[1] - pair[0] >= 60.0).map_or(creates.len(), |at| at + 1);
    (first, creates.len())
}

/// Everything is served once the next probe has come, which waits for an hour at most after an hour of failures.
fn check_recovery(faulty: &Faulty, fault: &str, seed: u64) {
    let last = faulty.outcome.times(|what| matches!(what, What::JobCompleted { .. })).into_iter().fold(0.0, f64::max);
    let took = last - faulty.cleared_at;
    assert!(took < 1.5 * HOUR, "{fault}, seed {seed}: {took} s until all was served");
}

#[tokio::test(start_paused = true)]
async fn a_refused_runner_version_costs_three_creates_and_probes_and_the_status_says_why() {
    for seed in SEEDS {
        let faulty = under(&["runner_version_refused".into()], 20, seed).await;
        let (first, all) = creates_under(&faulty);
        let told = || format!("seed {seed}: {first} creates at first, {all} in all: {}", faulty.outcome.summary());
        // The pauses between probes double from one minute on: six of them in an hour.
        assert!(first <= 3 && all <= 3 + 6, "{}", told());
        let is_it = |reason: &String| reason.starts_with("breaker: ") && reason.contains("version_refused");
        assert!(faulty.reasons.iter().any(is_it), "seed {seed}: {:#?}", faulty.reasons);
        check_recovery(&faulty, "runner_version_refused", seed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_runner_group_costs_three_creates_and_probes_and_the_status_says_why() {
    for seed in SEEDS {
        let faulty = under(&["closed_runner_group".into()], 20, seed).await;
        let (first, all) = creates_under(&faulty);
        let told = || format!("seed {seed}: {first} creates at first, {all} in all: {}", faulty.outcome.summary());
        assert!(first <= 3 && all <= 3 + 6, "{}", told());
        let is_it = |reason: &String| reason.starts_with("unproven: ");
        assert!(faulty.reasons.iter().any(is_it), "seed {seed}: {:#?}", faulty.reasons);
        check_recovery(&faulty, "closed_runner_group", seed);
    }
}

#[tokio::test(start_paused = true)]
async fn runners_that_never_come_online_cost_a_first_wave_and_probes_also_where_none_can_be_removed() {
    let lasting = [json!({ "operation": "boot", "mode": "never_online" }), json!({ "name": "delete_422" })];
    let lasting = lasting.map(|fault| serde_json::from_value::<FaultRequest>(fault).expect("a request"));
    for lasting in [&lasting[..1], &lasting] {
        for seed in SEEDS {
            let faulty = under(lasting, 20, seed).await;
            let (first, all) = creates_under(&faulty);
            let told = || format!("seed {seed}: {first} creates at first, {all} in all: {}", faulty.outcome.summary());
            // Two may be replaced before the third is given up.
            assert!(first <= 3 && all <= 3 + 2 + 6, "{lasting:?}, {}", told());
            let is_it = |reason: &String| reason.starts_with("breaker: ") && reason.contains("not_online");
            assert!(faulty.reasons.iter().any(is_it), "seed {seed}: {:#?}", faulty.reasons);
            check_recovery(&faulty, "runner_never_online", seed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_modal_has_no_more_room_hardly_a_registration_is_made_in_vain() {
    for (room, jobs_count) in [(10_u32, 60_u32), (3, 30)] {
        for seed in SEEDS {
            let profile = Profile { modal_max_containers: Some(room), ..Profile::realistic() };
            let outcome = Lab::new(profile, jobs(jobs_count.into(), None), seed).run(HOURS_8, is_done_and_clean).await;
            let (mints, creates) = (mints(&outcome).len(), creates(&outcome).len());
            let told = format!(
                "room for {room}, seed {seed}: {mints} registrations, {creates} sandboxes: {}",
                outcome.summary()
            );
            assert_eq!(u32::try_from(outcome.report.jobs_completed).ok(), Some(jobs_count), "{told}");
            // The wave that finds the limit, and a try now and then for one more.
            assert!(mints - creates <= 20, "{told}");
            // The room is used: no job takes much longer than its share of it.
            let ideal = 60.0 * f64::from(jobs_count) / f64::from(room);
            assert!(outcome.report.virtual_seconds < 3.0 * ideal + 900.0, "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn room_that_is_given_back_is_found_again() {
    let lab = Lab::new(Profile::realistic(), jobs(40, None), 1);
    let tight = json!({ "knobs": { "modal_max_containers": 2 }, "until_secs": 600 });
    lab.world.add_fault(serde_json::from_value::<FaultRequest>(tight).expect("a request")).expect("a knob");
    let outcome = lab.run(HOURS_8, is_done_and_clean).await;
    let last = outcome.times(|what| matches!(what, What::JobCompleted { .. })).into_iter().fold(0.0, f64::max);
    assert_eq!(outcome.report.jobs_completed, 40, "{}", outcome.summary());
    // Five minutes until it is tried again, and a few more for all that wait.
    assert!(last < 600.0 + 300.0 + 300.0, "the last job ended after {last} s: {}", outcome.summary());
}

/// Figures for people: what lasting faults cost over two hours.
#[tokio::test(start_paused = true)]
#[ignore = "a measurement for people: cargo test --release --test simulation -- --ignored --nocapture claims::"]
async fn measure_surplus_creates_under_lasting_faults() {
    for fault in ["runner_version_refused", "closed_runner_group", "assigned_at_idle_limit"] {
        let lab = Lab::new(Profile::realistic(), jobs(40, None), 1);
        lab.world.add_fault(FaultRequest { until_secs: Some(2.0 * HOUR), ..fault.into() }).expect("a named fault");
        let outcome = lab.run(HOURS_8, is_done_and_clean).await;
        let early = creates(&outcome).into_iter().filter(|at| *at < 2.0 * HOUR).count();
        println!(
            "{fault}: {early} creates in two hours, {} in all for 40 jobs, {} surplus, over after {:.0} s",
            creates(&outcome).len(),
            outcome.report.surplus_runners,
            outcome.report.virtual_seconds
        );
    }
}
