//! Whether the judge tells known-bad controllers from the real one: each variant of `sandrunner::mutant` has to
//! break an invariant in a run in which the real controller does not.
//!
//! The runs come cheapest first, and the first that shows the variant is enough: the base scenarios alone, a
//! few seeds, every fault at its first call, then at calls spread over the run, further seeds, and some of the pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use sandrunner::mutant::{self, Mutant};

use crate::base::{BASES, Base};
use crate::enumerate::{self, Chain, Reference};
use crate::plan::Plan;
use crate::run::{Keep, Run};
use crate::swarm::Breadth;
use crate::{Options, swarm, work};

/// The seeds within which a variant has to be caught where no enumerated run shows it.
const SEEDS: u64 = 500;
/// So many of them come early: they hold more than most single faults.
const FEW_SEEDS: u64 = 25;
/// Calls of each kind are harmed at the ends of so many parts of a run.
const PARTS: u32 = 4;
/// One in so many pairs is tried.
const PAIRS_EVERY: usize = 10;

enum Trial {
    Plan(Plan),
    Seed(u64),
}

impl Trial {
    fn play(&self, mutant: Option<Mutant>) -> Run {
        // A run stays on its thread.
        mutant::choose(mutant);
        let run = match self {
            Self::Plan(plan) => enumerate::run(plan, Keep::No),
            Self::Seed(seed) => swarm::run(*seed, Breadth::Full, Keep::No),
        };
        mutant::choose(None);
        run
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(plan) => write!(f, "plan \"{plan}\""),
            Self::Seed(seed) => write!(f, "seed {seed}"),
        }
    }
}

/// What all variants share: the fault-free runs, and what the real controller breaks.
struct Hunt {
    references: Vec<Reference>,
    chains: Vec<Chain>,
    seeds: u64,
    broken: Mutex<BTreeMap<String, BTreeSet<&'static str>>>,
}

/// How a variant was caught.
struct Catch {
    by: String,
    invariant: &'static str,
    text: String,
}

impl Hunt {
    fn new(threads: usize, seeds: u64) -> Self {
        let bases: Vec<&'static Base> = BASES.iter().collect();
        let references = work::map(&bases, threads, |base| Reference::of(base));
        let chains = references.iter().flat_map(Reference::chains).collect();
        Self { references, chains, seeds, broken: Mutex::default() }
    }

    /// Every run that may show a variant.
    fn trials(&self) -> impl Iterator<Item = Trial> {
        let alone = BASES.iter().map(|base| Plan { base, harms: Vec::new() });
        let first = self.chains.iter().filter_map(|chain| chain.plan(0, PARTS));
        let spread = (1..PARTS).flat_map(|part| self.chains.iter().filter_map(move |chain| chain.plan(part, PARTS)));
        let pairs =
            self.references.iter().take(2).flat_map(|reference| reference.pairs().into_iter().step_by(PAIRS_EVERY));
        let few = self.seeds.min(FEW_SEEDS);
        let (some, more) = ((1..=few).map(Trial::Seed), (few + 1..=self.seeds).map(Trial::Seed));
        let placed = first.chain(spread).map(Trial::Plan);
        alone.map(Trial::Plan).chain(some).chain(placed).chain(more).chain(pairs.map(Trial::Plan))
    }

    /// What breaks in a run of the real controller.
    fn broken(&self, trial: &Trial) -> BTreeSet<&'static str> {
        let case = trial.to_string();
        let known = || self.broken.lock().expect("no holder panics").get(&case).cloned();
        if let Some(known) = known() {
            return known;
        }
        let broken: BTreeSet<&'static str> =
            trial.play(None).violations.iter().map(|violation| violation.invariant).collect();
        self.broken.lock().expect("no holder panics").insert(case, broken.clone());
        broken
    }

    /// Looks for the first run that shows a variant, and says how many it took.
    fn look(&self, mutant: Mutant) -> (u32, Option<Catch>) {
        let mut tried = 0;
        for trial in self.trials() {
            tried += 1;
            let violations = trial.play(Some(mutant)).violations;
            if violations.is_empty() {
                continue;
            }
            let broken = self.broken(&trial);
            let new = violations.into_iter().find(|violation| !broken.contains(violation.invariant));
            if let Some(violation) = new {
                let catch = Catch { by: trial.to_string(), invariant: violation.invariant, text: violation.text };
                return (tried, Some(catch));
            }
        }
        (tried, None)
    }
}

/// The variant of a name.
fn find(wanted: &str) -> Mutant {
    let found = Mutant::ALL.iter().find(|mutant| name(**mutant) == wanted);
    *found.unwrap_or_else(|| panic!("there is no variant {wanted}; there are {:?}", Mutant::ALL))
}

fn name(mutant: Mutant) -> String {
    format!("{mutant:?}")
}

/// Makes what runs on this thread the variant of that name.
pub(crate) fn choose(wanted: Option<&String>) {
    mutant::choose(wanted.map(|wanted| find(wanted)));
}

/// Looks for each variant of the names asked for, or all, and prints what showed it; fails where one is not shown.
pub(crate) fn run(options: &Options) -> ExitCode {
    let threads = options.threads;
    let names = options.words[1..].iter();
    let mut mutants: Vec<Mutant> = names.map(|wanted| find(wanted)).collect();
    if mutants.is_empty() {
        mutants.extend(Mutant::ALL);
    }
    let begin = Instant::now();
    let hunt = Hunt::new(threads, options.number("seeds", SEEDS));
    println!("{:<24} {:>5}  {:<24} caught by", "variant", "runs", "invariant");
    let survivors = work::map(&mutants, threads, |mutant| {
        let (tried, catch) = hunt.look(*mutant);
        let name = name(*mutant);
        match &catch {
            Some(Catch { by, invariant, text }) => {
                println!("{name:<24} {tried:>5}  {invariant:<24} {by}\n{:>32} {text}", "");
            }
            None => println!("{name:<24} {tried:>5}  SURVIVED"),
        }
        catch.is_none()
    });
    let survived = survivors.into_iter().filter(|survived| *survived).count();
    println!("{} variants, {survived} survived; {:.0} s", mutants.len(), begin.elapsed().as_secs_f64());
    ExitCode::from(u8::from(survived > 0))
}
