//! Runs drawn from a seed: a workload, limits, faults at rates, kills; then no faults, and everything must come
//! to its end and to rest.

use std::time::Duration;

use chrono::TimeDelta;
use fastrand::Rng;
use sandrunner::sim::{Crash, CrashPhase, Fault, FaultMode, FaultRequest, Operation, Profile, Scenario, World};
use serde_json::json;

use crate::base::Setup;
use crate::enumerate::Tally;
use crate::lab::{Keeping, Next};
use crate::run::{Keep, Run, Terms, play};
use crate::work;

/// What a seed comes to.
#[derive(Debug)]
struct Drawn {
    setup: Setup,
    /// How long things go wrong.
    phase_secs: f64,
    faults: Vec<FaultRequest>,
    /// When processes are killed at one of their next calls, in seconds, latest first.
    crashes: Vec<(f64, Crash)>,
}

/// After so many seeds it is told how far a swarm is.
const TOLD_EVERY: usize = 500;
/// The least and the most that a rate is, drawn evenly on a scale of powers.
const RATES: (f64, f64) = (0.01, 0.5);

fn draw(seed: u64) -> Drawn {
    let mut rng = Rng::with_seed(seed);
    let (jobs, repos) = (rng.usize(2..=20), rng.usize(1..=4));
    let controllers = if rng.u8(..8) == 0 { 2 } else { 1 };
    let phase_secs = f64::from(rng.u16(300..1_500));
    let mut kills_at: Vec<f64> = (0..rng.usize(..4)).map(|_| rng.f64() * phase_secs).collect();
    kills_at.sort_by(f64::total_cmp);
    let kills = kills_at.len();
    let mut setup = Setup {
        profile: profile(&mut rng),
        scenario: Scenario::generate(jobs, repos, seed),
        seed,
        max_sandboxes: if rng.bool() { rng.u32(2..=12) } else { 100 },
        max_sandboxes_per_repo: (rng.u8(..3) == 0).then(|| rng.u32(1..=6)),
        controllers,
        kills_at,
        keeping: Keeping::Nothing,
    };
    let faults = faults(&mut rng, phase_secs);
    let mut crashes: Vec<(f64, Crash)> =
        (0..rng.usize(..4)).map(|_| crash(&mut rng, controllers, phase_secs)).collect();
    crashes.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Drawn last, so that everything else of a seed is what it was before.
    setup.keeping = keeping(&mut rng, seed, kills + crashes.len());
    Drawn { setup, phase_secs, faults, crashes }
}

/// Half of the seeds with kills keep nothing over them, the others all, or what is left.
fn keeping(rng: &mut Rng, seed: u64, kills: usize) -> Keeping {
    match rng.u8(..4) {
        2 if kills > 0 => Keeping::All,
        3 if kills > 0 => Keeping::ByTurns(seed),
        _ => Keeping::Nothing,
    }
}

/// Three in four Worlds are as bad as the real ones; the lists of some are worse.
fn profile(rng: &mut Rng) -> Profile {
    if rng.u8(..4) == 0 {
        return Profile::calm();
    }
    let mut profile = Profile::realistic();
    if rng.u8(..4) == 0 {
        profile.github_list_lag_secs = f64::from(rng.u8(10..=40));
        profile.modal_list_lag_secs = f64::from(rng.u8(10..=30));
    }
    if rng.u8(..4) == 0 {
        profile.github_list_page = rng.u32(1..=5);
        profile.modal_list_page = rng.u32(1..=5);
    }
    profile
}

fn faults(rng: &mut Rng, phase_secs: f64) -> Vec<FaultRequest> {
    let mut faults = Vec::new();
    for _ in 0..rng.usize(..9) {
        let (operation, mode) = harm(rng);
        let (least, most) = (RATES.0.ln(), RATES.1.ln());
        let rate = (least + rng.f64() * (most - least)).exp();
        let fault = Fault { times: Fault::UNLIMITED, rate, ..Fault::new(operation, mode) };
        faults.push(FaultRequest { until_secs: Some(phase_secs), ..fault.into() });
    }
    for _ in 0..rng.usize(..9) {
        let (operation, mode) = harm(rng);
        let fault = Fault { times: rng.u32(1..=3), from_secs: rng.f64() * phase_secs, ..Fault::new(operation, mode) };
        faults.push(FaultRequest { until_secs: Some(phase_secs), ..fault.into() });
    }
    if rng.u8(..5) == 0 {
        let knobs = json!({ "knobs": { "github_list_lag_secs": rng.u8(10..=90), "busy_lag_secs": [0, 120] } });
        let lag: FaultRequest = serde_json::from_value(knobs).expect("a request");
        faults.push(FaultRequest { until_secs: Some(phase_secs), ..lag });
    }
    faults
}

/// Where faults are put in: what happens most, and whole services.
const PLACES: [Operation; 18] = [
    Operation::Github,
    Operation::ListRuns,
    Operation::ListJobs,
    Operation::ListRunners,
    Operation::Mint,
    Operation::DeleteRunner,
    Operation::Modal,
    Operation::ListSandboxes,
    Operation::Create,
    Operation::Wait,
    Operation::SandboxByName,
    Operation::Secret,
    Operation::SecretDelete,
    Operation::Terminate,
    Operation::Boot,
    Operation::Connect,
    Operation::Assign,
    Operation::Queue,
];

fn harm(rng: &mut Rng) -> (Operation, FaultMode) {
    let operation = PLACES[rng.usize(..PLACES.len())];
    let modes: Vec<FaultMode> = FaultMode::ALL.iter().copied().filter(|mode| mode.applies_to(operation)).collect();
    (operation, modes[rng.usize(..modes.len())])
}

fn crash(rng: &mut Rng, controllers: u32, phase_secs: f64) -> (f64, Crash) {
    let operations = [None, None, Some(Operation::Mint), Some(Operation::Create), Some(Operation::DeleteRunner)];
    let crash = Crash {
        client: rng.u32(1..=controllers),
        operation: operations[rng.usize(..operations.len())],
        nth: 1,
        phase: CrashPhase::ALL[rng.usize(..CrashPhase::ALL.len())],
    };
    (rng.f64() * phase_secs, crash)
}

/// Recovery may take the longest pause that failures can put in: an hour, after many failed starts.
fn terms(phase_secs: f64, keep: Keep) -> Terms {
    Terms {
        recover_within: TimeDelta::minutes(75),
        serve_within: TimeDelta::minutes(10),
        quiet: TimeDelta::minutes(5),
        limit: Duration::from_secs(8 * 3_600),
        #[expect(clippy::cast_possible_truncation, reason = "a phase of minutes")]
        at_least: TimeDelta::seconds(phase_secs as i64 + 1),
        keep,
    }
}

/// Plays a seed.
pub(crate) fn run(seed: u64, keep: Keep) -> Run {
    let Drawn { setup, phase_secs, faults, mut crashes } = draw(seed);
    let mut is_calm = false;
    let prepare = |world: &World| {
        for fault in &faults {
            world.add_fault(fault.clone()).expect("only faults that can happen are drawn");
        }
    };
    let meddle = |world: &World, now: f64| {
        while let Some((_, crash)) = crashes.pop_if(|(at, _)| *at <= now && now < phase_secs) {
            world.crash_at(crash);
        }
        if now >= phase_secs && !is_calm {
            is_calm = true;
            world.clear_faults();
        }
        Next::GoOn
    };
    play(&setup, &terms(phase_secs, keep), prepare, meddle)
}

/// Plays seeds; those whose history differs between two runs fail as well where `twice` says so.
pub(crate) fn seeds(from: u64, count: u64, threads: usize, twice: Twice) -> Tally {
    let seeds: Vec<u64> = (from..from + count).collect();
    let mut tally = Tally::default();
    for part in seeds.chunks(TOLD_EVERY) {
        let runs = work::map(part, threads, |seed| {
            let again = (twice == Twice::Yes).then(|| run(*seed, Keep::No).hash);
            (run(*seed, Keep::No).told(&format_args!("seed {seed}")), again)
        });
        for (seed, (run, again)) in part.iter().zip(runs) {
            if again.is_some_and(|again| again != run.hash) {
                tally.unfired.insert(format!("seed {seed} does not repeat: {:x} and {again:x?}", run.hash));
            }
            tally.settled.extend(run.settled_secs);
            tally.take_case(&format!("seed {seed}"), run);
        }
        if seeds.len() > TOLD_EVERY {
            println!("{} of {} seeds, {} failed", tally.plans, seeds.len(), tally.failures.len());
        }
    }
    tally
}

/// Whether each seed is played twice, to see that it repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twice {
    No,
    Yes,
}
