//! Runs drawn from a seed: a workload, limits, faults at rates, kills; then no faults, and everything must come
//! to its end and to rest.

use std::time::Duration;

use chrono::TimeDelta;
use fastrand::Rng;
use sandrunner::sim::{Crash, CrashPhase, Fault, FaultMode, FaultRequest, Operation, Profile, Scenario, World};
use serde_json::json;

use crate::enumerate::Tally;
use crate::lab::{Keeping, Next};
use crate::run::{Keep, Run, SWEPT, Terms, play};
use crate::setup::Setup;
use crate::wide::{fill, furnish, shorten, widen};
use crate::work;

/// What a seed comes to.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) setup: Setup,
    /// How long things go wrong.
    pub(crate) phase_secs: f64,
    pub(crate) faults: Vec<FaultRequest>,
    /// When processes are killed at one of their next calls, in seconds, latest first.
    pub(crate) crashes: Vec<(f64, Crash)>,
}

/// What is drawn for a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breadth {
    /// A personal token, runners of repositories, no webhook, many requests.
    Plain,
    /// Of some seeds more than that.
    Wide,
    /// Of some seeds also faults by their names, limits of GPUs and of a class, GPUs and room that Modal is short of, an image
    /// of steps, and what sandboxes cost.
    Full,
}

/// After so many seeds it is told how far a swarm is.
const TOLD_EVERY: usize = 500;
/// The least and the most that a rate is, drawn evenly on a scale of powers.
const RATES: (f64, f64) = (0.01, 0.5);

fn draw(seed: u64, breadth: Breadth) -> Drawn {
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
        ..Setup::calm(json!({}))
    };
    let faults = faults(&mut rng, phase_secs);
    let mut crashes: Vec<(f64, Crash)> =
        (0..rng.usize(..4)).map(|_| crash(&mut rng, controllers, phase_secs)).collect();
    crashes.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Drawn last, so that everything else of a seed is what it was before.
    setup.keeping = keeping(&mut rng, seed, kills + crashes.len());
    let mut drawn = Drawn { setup, phase_secs, faults, crashes };
    if breadth != Breadth::Plain {
        widen(seed, &mut drawn);
    }
    if breadth == Breadth::Full {
        fill(seed, &mut drawn);
        shorten(seed, &mut drawn);
        furnish(seed, &mut drawn);
    }
    drawn
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
        faults.push(lasting(rng, &PLACES, phase_secs));
    }
    for _ in 0..rng.usize(..9) {
        faults.push(brief(rng, &PLACES, phase_secs));
    }
    if rng.u8(..5) == 0 {
        let knobs = json!({ "knobs": { "github_list_lag_secs": rng.u8(10..=90), "busy_lag_secs": [0, 120] } });
        let lag: FaultRequest = serde_json::from_value(knobs).expect("a request");
        faults.push(FaultRequest { until_secs: Some(phase_secs), ..lag });
    }
    faults
}

/// A fault that strikes again and again.
pub(crate) fn lasting(rng: &mut Rng, places: &[Operation], phase_secs: f64) -> FaultRequest {
    let (operation, mode) = harm(rng, places);
    let (least, most) = (RATES.0.ln(), RATES.1.ln());
    let rate = (least + rng.f64() * (most - least)).exp();
    let fault = Fault { times: Fault::UNLIMITED, rate, ..Fault::new(operation, mode) };
    FaultRequest { until_secs: Some(phase_secs), ..fault.into() }
}

/// A fault that strikes a few times.
pub(crate) fn brief(rng: &mut Rng, places: &[Operation], phase_secs: f64) -> FaultRequest {
    let (operation, mode) = harm(rng, places);
    let fault = Fault { times: rng.u32(1..=3), from_secs: rng.f64() * phase_secs, ..Fault::new(operation, mode) };
    FaultRequest { until_secs: Some(phase_secs), ..fault.into() }
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

fn harm(rng: &mut Rng, places: &[Operation]) -> (Operation, FaultMode) {
    let operation = places[rng.usize(..places.len())];
    let modes: Vec<FaultMode> = FaultMode::ALL.iter().copied().filter(|mode| mode.applies_to(operation)).collect();
    (operation, modes[rng.usize(..modes.len())])
}

fn crash(rng: &mut Rng, controllers: u32, phase_secs: f64) -> (f64, Crash) {
    let operations = [None, None, Some(Operation::Mint), Some(Operation::Create), Some(Operation::DeleteRunner)];
    let client = rng.u32(1..=controllers);
    let operation = operations[rng.usize(..operations.len())];
    crash_at(rng, (client, operation), phase_secs)
}

/// Kills a client at its next call of that operation.
pub(crate) fn crash_at(rng: &mut Rng, (client, operation): (u32, Option<Operation>), phase_secs: f64) -> (f64, Crash) {
    let phase = CrashPhase::ALL[rng.usize(..CrashPhase::ALL.len())];
    (rng.f64() * phase_secs, Crash { client, operation, nth: 1, phase })
}

/// Recovery may take the longest pause that refusals put in; what runners that waited in vain add, the checker knows.
fn terms(phase_secs: f64, profile: &Profile, keep: Keep) -> Terms {
    Terms {
        recover_within: TimeDelta::minutes(15),
        serve_within: TimeDelta::minutes(10),
        // What GitHub's index lacks is there at the next sweep.
        swept_within: SWEPT * if profile.filtered_list_omits > 0.0 { 3 } else { 1 },
        quiet: TimeDelta::minutes(5),
        limit: Duration::from_secs(8 * 3_600),
        #[expect(clippy::cast_possible_truncation, reason = "a phase of minutes")]
        at_least: TimeDelta::seconds(phase_secs as i64 + 1),
        keep,
    }
}

/// Plays a seed.
pub(crate) fn run(seed: u64, breadth: Breadth, keep: Keep) -> Run {
    let Drawn { setup, phase_secs, faults, mut crashes } = draw(seed, breadth);
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
    play(&setup, &terms(phase_secs, &setup.profile, keep), prepare, meddle)
}

/// Plays seeds; those whose history differs between two runs fail as well where `twice` says so.
pub(crate) fn seeds(from: u64, count: u64, threads: usize, twice: Twice) -> Tally {
    let seeds: Vec<u64> = (from..from + count).collect();
    let mut tally = Tally::default();
    for part in seeds.chunks(TOLD_EVERY) {
        let runs = work::map(part, threads, |seed| {
            let again = (twice == Twice::Yes).then(|| run(*seed, Breadth::Full, Keep::No).hash);
            (run(*seed, Breadth::Full, Keep::No).told(&format_args!("seed {seed}")), again)
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
