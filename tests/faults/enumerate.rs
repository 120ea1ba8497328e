//! Every fault at every call of the base scenarios, and pairs of them on the smallest.
//!
//! A fault-free run of a base scenario is the reference: it tells which calls are made, and how many of each
//! until everything is done and a minute longer. Then each operation goes wrong in each mode that applies to
//! it, at its first call, its second, and so on: a *chain* of plans, which ends with the last call of the
//! reference at which the mode can strike. A process is killed likewise at every step of every call.
//!
//! For pairs, calls that see the same state count as one: of each operation the first call in each phase of the
//! reference, where a phase ends with a change of a job, a runner or a sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::sim::{CrashPhase, Fault, FaultMode, Operation};

use crate::base::Base;
use crate::checker::Violation;
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
        serve_within: TimeDelta::minutes(4),
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
    let setup = plan.base.setup();
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
            // The controller asks for these without an ETag, or, for a repository, first without one and not again
            // within the hours that a plan lasts.
            let is_conditional = !matches!(
                operation,
                Operation::GetRun
                    | Operation::Downloads
                    | Operation::Deprecation
                    | Operation::GetRepo
                    | Operation::ListInstallations
                    | Operation::ListGroups
                    | Operation::ListGroupRepos
            );
            if mode == FaultMode::WrongNotModified && !is_conditional {
                continue;
            }
            if !self.fired.contains_key(&(operation, Harm::Fault(mode))) {
                unfired.push(format!("{operation:?} {mode:?} in any scenario"));
            }
        }
        self.unfired.extend(unfired);
    }
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
    Operation::Wait,
    Operation::Terminate,
    Operation::GetTags,
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

    /// How many calls of each operation are places for harm.
    fn calls(&self, is_meant: impl Fn(&Called) -> bool) -> BTreeMap<Operation, u32> {
        let until = self.run.converged_at.unwrap_or(f64::INFINITY) + TAIL_SECS;
        let mut calls = BTreeMap::new();
        for call in self.run.calls.iter().filter(|call| call.at <= until && is_meant(call)) {
            *calls.entry(call.operation).or_default() += 1;
        }
        calls
    }

    /// Every way in which every operation of this scenario can be harmed.
    pub(crate) fn chains(&self) -> Vec<Chain> {
        // A fault strikes whoever calls, and it is the first controller that is killed.
        let (calls, own) = (self.calls(|_| true), self.calls(|call| call.client == 1));
        let faults = Fault::pairs().map(|(operation, mode)| {
            // What is no call happens as often as it happens.
            let most = if operation.is_call() { calls.get(&operation).copied().unwrap_or(0) } else { u32::MAX };
            (operation, Harm::Fault(mode), most)
        });
        let kills = own
            .iter()
            .flat_map(|(operation, most)| CrashPhase::ALL.iter().map(|phase| (*operation, Harm::Kill(*phase), *most)));
        let all = faults.chain(kills).filter(|(.., most)| *most > 0);
        all.map(|(operation, harm, most)| Chain { base: self.base, operation, harm, most }).collect()
    }

    /// The calls that stand for all that see the same state.
    fn places(&self) -> BTreeSet<(Operation, u32)> {
        let until = self.run.converged_at.unwrap_or(f64::INFINITY) + TAIL_SECS;
        let (mut counts, mut seen, mut places) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for call in self.run.calls.iter().filter(|call| call.at <= until) {
            let nth = counts.entry(call.operation).or_insert(0);
            *nth += 1;
            if seen.insert((call.operation, call.phase)) {
                places.insert((call.operation, *nth));
            }
        }
        places
    }

    /// Every pair of harms at the places that stand for all.
    pub(crate) fn pairs(&self) -> Vec<Plan> {
        let mut harms: Vec<Placed> = Vec::new();
        for (operation, nth) in self.places() {
            let faults = PAIRED.iter().filter(|mode| mode.applies_to(operation)).map(|mode| Harm::Fault(*mode));
            let kills = CrashPhase::ALL.iter().map(|phase| Harm::Kill(*phase));
            harms.extend(faults.chain(kills).map(|harm| Placed { operation, nth, harm }));
        }
        let starts = STARTS.iter().map(|mode| Placed { operation: Operation::Boot, nth: 1, harm: Harm::Fault(*mode) });
        harms.extend(starts);
        let mut plans = Vec::new();
        for (index, first) in harms.iter().enumerate() {
            let rest = harms[index + 1..].iter().filter(|second| can_follow(*first, **second));
            plans.extend(rest.map(|second| Plan { base: self.base, harms: vec![*first, *second] }));
        }
        plans
    }
}

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

/// One harm to one operation, call after call.
#[derive(Debug)]
pub(crate) struct Chain {
    base: &'static Base,
    operation: Operation,
    harm: Harm,
    /// The calls of the reference.
    most: u32,
}

impl Chain {
    /// What is done to what.
    pub(crate) fn kind(&self) -> (Operation, Harm) {
        (self.operation, self.harm)
    }

    /// From one plan to the next so many calls are passed over.
    fn step(&self, limit: u32) -> u32 {
        if self.most == u32::MAX { 1 } else { self.most.div_ceil(limit.max(1)).max(1) }
    }

    /// How many plans it has, where all its calls are known.
    fn length(&self, limit: u32) -> u32 {
        self.most.div_ceil(self.step(limit))
    }

    /// Runs the plans of the chain, at most `limit` of them, spread evenly.
    pub(crate) fn run(&self, limit: u32) -> Tally {
        let mut tally = Tally::default();
        let step = self.step(limit);
        let mut nth = 1;
        while nth <= self.most && tally.plans < u64::from(limit) {
            let Self { base, operation, harm, .. } = *self;
            let plan = Plan { base, harms: vec![Placed { operation, nth, harm }] };
            let run = run(&plan, Keep::No).told(&Replay(&plan));
            if !fired(&plan, &run) {
                break;
            }
            *tally.fired.entry((operation, harm)).or_default() += 1;
            tally.take(&plan, run);
            nth += step;
        }
        tally
    }

    /// Its plan for the call after so many `parts` of all; where it is not known how many there are, for one more call.
    #[cfg(feature = "mutants")]
    pub(crate) fn plan(&self, part: u32, parts: u32) -> Option<Plan> {
        let Self { base, operation, harm, most } = *self;
        let nth = if most == u32::MAX { part } else { most * part / parts } + 1;
        (part == 0 || nth > 1).then(|| Plan { base, harms: vec![Placed { operation, nth, harm }] })
    }

    /// Whether it must fire at every one of its calls.
    fn is_certain(&self) -> bool {
        let is_any_call = |mode: FaultMode| {
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
        };
        match self.harm {
            Harm::Fault(mode) => self.operation.is_call() && is_any_call(mode),
            Harm::Kill(_) => true,
        }
    }
}

/// Whether everything that was planned happened.
fn fired(plan: &Plan, run: &Run) -> bool {
    let mut wanted: BTreeMap<(Operation, Option<FaultMode>), u32> = BTreeMap::new();
    let own = plan.base.setup().scenario.faults;
    for (operation, mode, times) in
        own.iter().filter_map(|own| Some((own.operation?, own.mode?, own.times.unwrap_or(1))))
    {
        *wanted.entry((operation, Some(mode))).or_default() += times;
    }
    for placed in &plan.harms {
        let key = match placed.harm {
            Harm::Fault(mode) => (placed.operation, Some(mode)),
            Harm::Kill(_) => (placed.operation, None),
        };
        *wanted.entry(key).or_default() += 1;
    }
    let is_planned = |key: &(Operation, Option<FaultMode>)| {
        plan.harms.iter().any(|placed| match placed.harm {
            Harm::Fault(mode) => (placed.operation, Some(mode)) == *key,
            Harm::Kill(_) => (placed.operation, None) == *key,
        })
    };
    wanted.iter().filter(|(key, _)| is_planned(key)).all(|(key, count)| run.struck.get(key).unwrap_or(&0) >= count)
}

/// Runs chains of a base scenario, each at most `limit` plans long.
pub(crate) fn singles(chains: &[Chain], limit: u32, threads: usize) -> Tally {
    let mut tally = Tally::default();
    for (chain, part) in chains.iter().zip(work::map(chains, threads, |chain| chain.run(limit))) {
        if chain.is_certain() && part.plans < u64::from(chain.length(limit)) {
            let Chain { base, operation, harm, .. } = chain;
            let (done, most) = (part.plans, chain.length(limit));
            tally.unfired.insert(format!("{}: {operation:?} {harm:?} at {done} of {most} calls", base.name));
        }
        tally.add(part);
    }
    tally
}

/// Runs pairs of a base scenario: every `every`-th.
pub(crate) fn pairs(reference: &Reference, every: usize, threads: usize) -> Tally {
    let plans: Vec<Plan> = reference.pairs().into_iter().step_by(every.max(1)).collect();
    let mut tally = Tally::default();
    for (plan, run) in plans.iter().zip(work::map(&plans, threads, |plan| run(plan, Keep::No).told(&Replay(plan)))) {
        tally.take(plan, run);
    }
    tally
}
