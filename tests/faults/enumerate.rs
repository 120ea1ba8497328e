//! Every fault at every call of the base scenarios, and pairs of them on the smallest.
//!
//! A fault-free run of a base scenario is the reference: it tells which calls are made, and how many of each
//! until everything is done and a minute longer. Then each operation goes wrong in each mode that applies to
//! it, at its first call, its second, and so on: a *chain* of plans, which ends with the last call of the
//! reference at which the mode can strike. A process is killed likewise at every step of every call, and its machine is
//! befallen by each mishap before the calls that stand for all.
//!
//! That is full for each mode by itself. Its flavours (a status, a duration: see `flavour.rs`) are tried at the calls
//! that stand for all that see the same state: of each operation the first call in each phase of the reference, where a
//! phase ends with a change of a job, a runner or a sandbox.
//!
//! Pairs are of two kinds. All pairs of the harms in `PAIRED` and `STARTS`, one mode for each thing that a
//! caller can be made to believe, and of kills, at the calls that stand for all, are tried in full. Of all others,
//! any mode or flavour at any call with any other at any other, there are millions: a sample is drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::TimeDelta;
use fastrand::Rng;
use sandrunner::sim::{CrashPhase, Fault, FaultMode, Mishap, Operation};

use crate::base::Base;
use crate::checker::Violation;
use crate::flavour::{CONDITIONAL, Flavour};
use crate::lab::Next;
use crate::plan::{Harm, Placed, Plan};
use crate::run::{Called, Keep, Run, SWEPT, Terms, play};
use crate::setup::Setup;
use crate::work;

/// How long after everything is done calls are still places for a fault.
const TAIL_SECS: f64 = 60.0;

/// How one fault is judged: what it costs is the longest pause that a failure of any kind may put in.
pub(crate) fn terms(harms: usize, setup: &Setup) -> Terms {
    // Where every list costs, leftovers of a process that died are looked for every six hours. A job that a fourth runner
    // waited for in vain is looked at again after two, and its run after nearly one more.
    let hours = if setup.profile.github_charges_unchanged { 8 } else { 5 };
    let harms = i32::try_from(harms).unwrap_or(1);
    Terms {
        recover_within: TimeDelta::minutes(6) * harms,
        serve_within: TimeDelta::minutes(4) + setup.sold_out_for(),
        swept_within: SWEPT,
        quiet: TimeDelta::minutes(3),
        limit: Duration::from_secs(hours * 3_600),
        at_least: TimeDelta::zero(),
        keep: Keep::No,
    }
}

/// The arguments that replay a plan.
struct Replay<'a>(&'a Plan);

impl fmt::Display for Replay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan \"{}\"", self.0)
    }
}

/// Runs a plan.
pub(crate) fn run(plan: &Plan, keep: Keep) -> Run {
    let setup = plan.setup();
    let terms = Terms { keep, ..terms(plan.harms.len() + setup.scenario.faults.len(), &setup) };
    play(&setup, &terms, |world| plan.put_in(world), |_, _| Next::GoOn)
}

/// What an enumeration came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) plans: u64,
    pub(crate) simulated_secs: f64,
    /// How often each harm was done to each operation.
    pub(crate) fired: BTreeMap<(Operation, Harm), u64>,
    /// What ought to have been done and was not.
    pub(crate) unfired: BTreeSet<String>,
    pub(crate) failures: Vec<Failure>,
    /// How long after the faults of each seed everything was done and clean, in seconds.
    pub(crate) settled: Vec<f64>,
}

/// A plan that broke an invariant.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The arguments that replay it.
    pub(crate) replay: String,
    pub(crate) violations: Vec<Violation>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.plans += other.plans;
        self.simulated_secs += other.simulated_secs;
        for (harm, count) in other.fired {
            *self.fired.entry(harm).or_default() += count;
        }
        self.unfired.extend(other.unfired);
        self.failures.extend(other.failures);
        self.settled.extend(other.settled);
    }

    fn take(&mut self, plan: &Plan, run: Run) {
        self.take_case(&Replay(plan).to_string(), run);
    }

    /// Takes a run, with the arguments that replay it.
    pub(crate) fn take_case(&mut self, replay: &str, run: Run) {
        self.plans += 1;
        self.simulated_secs += run.simulated_secs;
        if !run.violations.is_empty() {
            self.failures.push(Failure { replay: replay.to_owned(), violations: run.violations });
        }
    }

    /// Notes every mode that applies to an operation of the controller's and never struck it.
    pub(crate) fn require_every_mode(&mut self) {
        let reached = |operation: &Operation| self.fired.keys().any(|(harmed, _)| harmed == operation);
        let unreached = OPERATIONS.iter().filter(|operation| !reached(operation));
        let mut unfired: Vec<String> =
            unreached.map(|it| format!("{it:?} in any scenario, whatever is done")).collect();
        for (operation, mode) in Fault::pairs().filter(|(operation, _)| reached(operation)) {
            if !OPERATIONS.contains(&operation) {
                unfired.push(format!("{operation:?} is harmed, and no operation of the controller's"));
            }
            if mode == FaultMode::WrongNotModified && !CONDITIONAL.contains(&operation) {
                continue;
            }
            if !self.fired.contains_key(&(operation, Harm::Fault(mode.into()))) {
                unfired.push(format!("{operation:?} {mode:?} in any scenario"));
            }
        }
        for operation in OPERATIONS.iter().filter(|operation| operation.is_call() && reached(operation)) {
            let left = Mishap::ALL.iter().filter(|it| !self.fired.contains_key(&(*operation, Harm::Mishap(**it))));
            unfired.extend(left.map(|mishap| format!("{} before {operation:?} in any scenario", mishap.name())));
        }
        self.unfired.extend(unfired);
    }
}

/// A call of a reference run.
#[derive(Debug, Clone, Copy)]
struct Place {
    operation: Operation,
    phase: usize,
    /// Which call of the first controller's to the operation it is; none where it is another's.
    nth: Option<u32>,
    /// Which it is of those that the scenario's own faults leave alone; none where it is not among them.
    free: Option<u32>,
}

/// Everything that the controller asks for, and what happens to what it has asked for. Each is harmed in some scenario,
/// in every mode.
const OPERATIONS: &[Operation] = &[
    Operation::ListRuns,
    Operation::GetRun,
    Operation::ListJobs,
    Operation::GetRepo,
    Operation::ListInstallations,
    Operation::InstallationToken,
    Operation::ListInstallationRepos,
    Operation::ListOrgRepos,
    Operation::ListRunners,
    Operation::ListGroups,
    Operation::ListGroupRepos,
    Operation::DeleteRunner,
    Operation::Mint,
    Operation::Downloads,
    Operation::Deprecation,
    Operation::AuthToken,
    Operation::App,
    Operation::Environment,
    Operation::Image,
    Operation::ImageLog,
    Operation::Secret,
    Operation::SecretDelete,
    Operation::Create,
    Operation::ListSandboxes,
    Operation::SandboxByName,
    Operation::Hello,
    Operation::Environments,
    Operation::Wait,
    Operation::Terminate,
    Operation::GetTags,
    Operation::Rates,
    Operation::Volume,
    Operation::Logs,
    Operation::Boot,
    Operation::ImageBuild,
    Operation::Queue,
    Operation::Connect,
    Operation::Assign,
];

/// A base scenario and its reference run.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) base: &'static Base,
    pub(crate) run: Run,
}

impl Reference {
    /// Plays a base scenario without further faults.
    pub(crate) fn of(base: &'static Base) -> Self {
        Self { base, run: run(&Plan { base, harms: Vec::new() }, Keep::No) }
    }

    /// The faults of the scenario itself that did not strike as often as they should.
    pub(crate) fn idle_faults(&self) -> Vec<String> {
        let own = self.base.setup().scenario.faults;
        let times = own.iter().filter_map(|own| Some(((own.operation?, own.mode), own.times.unwrap_or(1))));
        let idle = times.filter(|(what, times)| self.run.struck.get(what).unwrap_or(&0) < times);
        idle.map(|((operation, mode), _)| format!("{}: {operation:?} {mode:?} of its own", self.base.name)).collect()
    }

    /// Whether its machine may be befallen: what can be written no more accounts nothing.
    fn can_befall(&self) -> bool {
        !self.base.setup().is_accounted
    }

    /// The calls at which something may go wrong.
    fn calls(&self) -> Vec<Place> {
        let until = self.run.converged_at.unwrap_or(f64::INFINITY) + TAIL_SECS;
        let mut counts: BTreeMap<Operation, (u32, u32)> = BTreeMap::new();
        let calls = self.run.calls.iter().filter(|call| call.at <= until);
        let place = |call: &Called| {
            let (nth, free) = counts.entry(call.operation).or_default();
            // It is the first controller that is killed, while a fault strikes whoever calls.
            *nth += u32::from(call.client == 1);
            *free += u32::from(!call.is_struck);
            let nth = (call.client == 1).then_some(*nth);
            let free = (!call.is_struck).then_some(*free);
            Place { operation: call.operation, phase: call.phase, nth, free }
        };
        calls.map(place).collect()
    }

    /// The calls that stand for all that see the same state.
    fn places(&self) -> Vec<Place> {
        let mut seen = BTreeSet::new();
        let mut places = self.calls();
        places.retain(|place| seen.insert((place.operation, place.phase)));
        places.sort_by_key(|place| place.operation);
        places
    }

    /// Every way in which every operation of this scenario can be harmed.
    pub(crate) fn chains(&self) -> Vec<Chain> {
        let (calls, places) = (self.calls(), self.places());
        let free = |places: &[Place], operation: Operation| -> Vec<u32> {
            places.iter().filter(|place| place.operation == operation).filter_map(|place| place.free).collect()
        };
        let mut chains = Vec::new();
        let mut add = |operation, harm, calls: Option<Vec<u32>>| {
            if calls.as_ref().is_none_or(|calls| !calls.is_empty()) {
                chains.push(Chain { base: self.base, operation, harm, calls });
            }
        };
        for (operation, mode) in Fault::pairs() {
            // What is no call happens as often as it happens.
            add(operation, Harm::Fault(mode.into()), operation.is_call().then(|| free(&calls, operation)));
        }
        for operation in Operation::ALL.iter().copied().filter(|operation| !operation.is_group()) {
            for flavour in Flavour::of_operation(operation) {
                let is_countable = operation.is_call() && strikes_any_call(flavour.mode);
                let is_there = !operation.is_call() || !free(&calls, operation).is_empty();
                if is_there {
                    add(operation, Harm::Fault(flavour), is_countable.then(|| free(&places, operation)));
                }
            }
            for phase in CrashPhase::ALL.iter().filter(|_| operation.is_call()) {
                let of_operation = calls.iter().filter(|place| place.operation == operation);
                add(operation, Harm::Kill(*phase), Some(of_operation.filter_map(|place| place.nth).collect()));
            }
            for mishap in Mishap::ALL.iter().filter(|_| operation.is_call() && self.can_befall()) {
                let of_operation = places.iter().filter(|place| place.operation == operation);
                add(operation, Harm::Mishap(*mishap), Some(of_operation.filter_map(|place| place.nth).collect()));
            }
        }
        chains
    }

    /// Pairs of harms at the places that stand for all.
    pub(crate) fn pairs(&self) -> Vec<Plan> {
        let mut harms: Vec<Placed> = Vec::new();
        for Place { operation, nth, free, .. } in self.places() {
            let modes = PAIRED.iter().filter(|mode| mode.applies_to(operation));
            let faults =
                free.into_iter().flat_map(|nth| modes.clone().map(move |mode| (nth, Harm::Fault((*mode).into()))));
            let kills =
                nth.into_iter().flat_map(|nth| CrashPhase::ALL.iter().map(move |phase| (nth, Harm::Kill(*phase))));
            harms.extend(faults.chain(kills).map(|(nth, harm)| Placed { operation, nth, harm }));
        }
        let starts =
            STARTS.iter().map(|mode| Placed { operation: Operation::Boot, nth: 1, harm: Harm::Fault((*mode).into()) });
        harms.extend(starts);
        let mut plans = Vec::new();
        for (index, first) in harms.iter().enumerate() {
            let rest = harms[index + 1..].iter().filter(|second| can_follow(*first, **second));
            plans.extend(rest.map(|second| Plan { base: self.base, harms: vec![*first, *second] }));
        }
        plans
    }
}

impl Reference {
    /// So many pairs of any two harms of the chains, at any of their calls, drawn from a seed that is always the same.
    pub(crate) fn drawn_pairs(&self, count: usize) -> Vec<Plan> {
        let (chains, mut rng) = (self.chains(), Rng::with_seed(PAIRS_SEED));
        let mut draw = || {
            let chain = &chains[rng.usize(..chains.len())];
            let nth = match &chain.calls {
                Some(calls) => calls[rng.usize(..calls.len())],
                None => rng.u32(1..=UNCOUNTED_MOST),
            };
            Placed { operation: chain.operation, nth, harm: chain.harm }
        };
        let pairs = std::iter::repeat_with(|| (draw(), draw())).filter(|(first, second)| can_follow(*first, *second));
        pairs.take(count).map(|(first, second)| Plan { base: self.base, harms: vec![first, second] }).collect()
    }
}

/// Where the drawn pairs come from.
const PAIRS_SEED: u64 = 0x5eed;
/// Of what is not counted beforehand one of the first so many is drawn.
const UNCOUNTED_MOST: u32 = 3;

/// Two harms to one call are one.
fn can_follow(first: Placed, second: Placed) -> bool {
    (first.operation, first.nth) != (second.operation, second.nth)
}

/// The modes that go into pairs: one for each thing that a caller can be made to believe.
const PAIRED: &[FaultMode] = &[
    FaultMode::Error,
    FaultMode::ReplyLost,
    FaultMode::AppliedLate,
    FaultMode::Slow,
    FaultMode::RateLimited,
    FaultMode::NotFound,
    FaultMode::Empty,
    FaultMode::Stale,
];

/// The ways in which a start fails that go into pairs.
const STARTS: &[FaultMode] = &[FaultMode::RegistrationFailed, FaultMode::NeverOnline, FaultMode::SlowBoot];

/// Whether a mode strikes whatever call it is put at.
fn strikes_any_call(mode: FaultMode) -> bool {
    matches!(
        mode,
        FaultMode::Error
            | FaultMode::ReplyLost
            | FaultMode::AppliedLate
            | FaultMode::Slow
            | FaultMode::RateLimited
            | FaultMode::Unauthorized
            | FaultMode::NotFound
            | FaultMode::Empty
            | FaultMode::Cut
            | FaultMode::Refused
            | FaultMode::Stale
    )
}

/// One harm to one operation, call after call.
#[derive(Debug)]
pub(crate) struct Chain {
    base: &'static Base,
    operation: Operation,
    harm: Harm,
    /// The calls of the reference that it is done to; none where they are not known beforehand.
    calls: Option<Vec<u32>>,
}

impl Chain {
    /// What is done to what.
    pub(crate) fn kind(&self) -> (Operation, Harm) {
        (self.operation, self.harm)
    }

    /// The calls of at most `limit` plans, spread evenly.
    fn calls(&self, limit: u32) -> Box<dyn Iterator<Item = u32> + '_> {
        let limit = limit.max(1) as usize;
        match &self.calls {
            None => Box::new((1..).take(limit)),
            Some(calls) => Box::new(calls.iter().copied().step_by(calls.len().div_ceil(limit).max(1))),
        }
    }

    fn plan_at(&self, nth: u32) -> Plan {
        let Self { base, operation, harm, .. } = *self;
        Plan { base, harms: vec![Placed { operation, nth, harm }] }
    }

    /// Runs the plans of the chain, at most `limit` of them, spread evenly.
    pub(crate) fn run(&self, limit: u32) -> Tally {
        let mut tally = Tally::default();
        for nth in self.calls(limit) {
            let plan = self.plan_at(nth);
            let run = run(&plan, Keep::No).told(&Replay(&plan));
            if !fired(&plan, &run) {
                // What is sure to happen at a call is missing at one alone: that which was under way at a kill of the
                // scenario's own.
                if self.is_certain() {
                    continue;
                }
                break;
            }
            *tally.fired.entry(self.kind()).or_default() += 1;
            tally.take(&plan, run);
        }
        tally
    }

    /// Its plan for the call after so many `parts` of all; where it is not known how many there are, for one more call.
    #[cfg(feature = "mutants")]
    pub(crate) fn plan(&self, part: u32, parts: u32) -> Option<Plan> {
        let Some(calls) = &self.calls else { return Some(self.plan_at(part + 1)) };
        let index = calls.len() * part as usize / parts as usize;
        (part == 0 || index > 0).then(|| self.plan_at(calls[index]))
    }

    /// How many calls may be under way at the scenario's own kills: no reply of theirs comes.
    fn cut_off(&self) -> usize {
        match self.harm {
            Harm::Kill(_) | Harm::Mishap(_) => self.base.setup().kills_at.len(),
            Harm::Fault(_) => 0,
        }
    }

    /// Whether it must fire at every one of its calls.
    fn is_certain(&self) -> bool {
        match self.harm {
            Harm::Fault(flavour) => self.operation.is_call() && strikes_any_call(flavour.mode),
            Harm::Kill(_) | Harm::Mishap(_) => true,
        }
    }
}

/// Whether everything that was planned happened.
fn fired(plan: &Plan, run: &Run) -> bool {
    let mut wanted: BTreeMap<Harmed, u32> = BTreeMap::new();
    let own = plan.base.setup().scenario.faults;
    for (operation, mode, times) in
        own.iter().filter_map(|own| Some((own.operation?, own.mode?, own.times.unwrap_or(1))))
    {
        *wanted.entry(Harmed::Call(operation, Some(mode))).or_default() += times;
    }
    let planned: BTreeSet<Harmed> = plan.harms.iter().map(|placed| Harmed::of(*placed)).collect();
    for placed in &plan.harms {
        *wanted.entry(Harmed::of(*placed)).or_default() += 1;
    }
    wanted.retain(|harmed, _| planned.contains(harmed));
    wanted.iter().all(|(harmed, count)| harmed.times(run) >= *count)
}

/// What a harm shows itself by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harmed {
    /// A fault at a call, or a kill.
    Call(Operation, Option<FaultMode>),
    Machine(Mishap),
}

impl Harmed {
    fn of(placed: Placed) -> Self {
        match placed.harm {
            Harm::Fault(flavour) => Self::Call(placed.operation, Some(flavour.mode)),
            Harm::Kill(_) => Self::Call(placed.operation, None),
            Harm::Mishap(mishap) => Self::Machine(mishap),
        }
    }

    /// How often it was done in a run.
    fn times(self, run: &Run) -> u32 {
        match self {
            Self::Call(operation, mode) => run.struck.get(&(operation, mode)),
            Self::Machine(mishap) => run.befallen.get(&mishap),
        }
        .copied()
        .unwrap_or_default()
    }
}

/// Runs chains of a base scenario, each at most `limit` plans long.
pub(crate) fn singles(chains: &[Chain], limit: u32, threads: usize) -> Tally {
    let mut tally = Tally::default();
    for (chain, part) in chains.iter().zip(work::map(chains, threads, |chain| chain.run(limit))) {
        let most = if chain.is_certain() { chain.calls(limit).count() } else { 0 };
        if part.plans < most.saturating_sub(chain.cut_off()) as u64 {
            let Chain { base, operation, harm, .. } = chain;
            tally.unfired.insert(format!("{}: {operation:?} {harm:?} at {} of {most} calls", base.name, part.plans));
        }
        tally.add(part);
    }
    tally
}

/// Runs plans of two harms each; tells as well in how many of them both happened.
pub(crate) fn pairs(plans: &[Plan], threads: usize) -> (Tally, usize) {
    let (mut tally, mut both) = (Tally::default(), 0);
    for (plan, run) in plans.iter().zip(work::map(plans, threads, |plan| run(plan, Keep::No).told(&Replay(plan)))) {
        both += usize::from(fired(plan, &run));
        tally.take(plan, run);
    }
    (tally, both)
}
