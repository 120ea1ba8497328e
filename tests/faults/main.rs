//! The controller under every fault: enumerated at every call, and drawn from seeds. The judge is the checker of
//! `tests/checker`, which reads nothing but the simulators' history.
//!
//! A program of its own, because it takes arguments and uses all cores:
//!
//! ```text
//! cargo test --test faults                                          what is bounded: cases, a part of everything
//! cargo test --profile sim --test faults -- enumerate               every fault at every call, and pairs
//! cargo test --profile sim --test faults -- swarm --seeds 10000     so many seeds, from --from on
//! cargo test --profile sim --test faults -- seed 17                 one seed again
//! cargo test --profile sim --test faults -- wide 17                 the same without names of faults and limits of kinds
//! cargo test --profile sim --test faults -- plain 17                and without what some seeds have beside
//! cargo test --profile sim --test faults -- plan "one mint#1=error" one plan again
//! cargo test --profile sim --features mutants --test faults -- mutants   whether known-bad controllers are told
//! ```
//!
//! `seed`, `wide`, `plain` and `plan` take `--history FILE`, which `check-history` reads too, and `--log FILE` for what the
//! controllers log. `enumerate` takes `--scenario NAME`,
//! `--limit N` (plans per operation and mode), `--pairs N` (every N-th pair; 0 none) and `--drawn N` (pairs that are
//! drawn). `mutants` takes the names
//! of some variants, and `--seeds N` (default 500); `seed` and `plan` take `--variant NAME` to see one of them fail. `--threads N` is for all.
//! The profile `sim` is optimised and keeps every assertion.
//!
//! What ever failed is kept in `cases.txt`, by the arguments that replay it, and is played first every time.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for people, which tells how long it took"
)]

mod base;
#[expect(dead_code, reason = "what other users need of it")]
#[path = "../checker/checker.rs"]
mod checker;
mod enumerate;
mod flavour;
#[expect(dead_code, reason = "what other tests need of the lab")]
#[path = "../lab/lab.rs"]
mod lab;
#[expect(dead_code, reason = "what other tests need of it")]
#[path = "../lab/log.rs"]
mod log;
#[cfg(feature = "mutants")]
mod mutants;
mod nudge;
mod plan;
mod run;
mod setup;
mod swarm;
mod wide;
mod work;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use base::BASES;
use enumerate::{Chain, Reference, Tally};
use plan::Plan;
use run::{Keep, Run};
use swarm::{Breadth, Twice};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Everything that ever failed.
const CASES: &str = include_str!("cases.txt");
/// In every scenario one of so many harms is done, whether or not it was done before.
const SHARES: usize = 32;
/// So many pairs of any two harms are drawn for each scenario.
const DRAWN: usize = 100;
/// How many failures are named again at the end.
const SHOWN: usize = 50;

/// The arguments behind the command.
#[derive(Debug)]
struct Options {
    threads: usize,
    values: BTreeMap<String, String>,
    words: Vec<String>,
}

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self { threads: 2, values: BTreeMap::new(), words: Vec::new() };
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                None => options.words.push(argument),
                Some(name) => {
                    let value = arguments.next_if(|next| !next.starts_with("--")).unwrap_or_default();
                    options.values.insert(name.to_owned(), value);
                }
            }
        }
        options.threads = options.number("threads", 2);
        options
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.values.get(name).map(|text| text.parse()) {
            Some(Ok(number)) => number,
            Some(Err(_)) => panic!("--{name} takes a number"),
            None => default,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::read(std::env::args().skip(1));
    let begin = Instant::now();
    let tally = match options.words.first().map(String::as_str) {
        Some("enumerate") => enumerate(&options),
        Some("swarm") => {
            swarm::seeds(options.number("from", 1), options.number("seeds", 1_000), options.threads, Twice::No)
        }
        Some(word @ ("seed" | "wide" | "plain")) => {
            let number = options.words.get(1).map(String::as_str).unwrap_or_default();
            return again(&options, |keep| seed(word, number, keep));
        }
        Some("plan") => return again(&options, |keep| enumerate::run(&parsed(&options.words[1..].join(" ")), keep)),
        #[cfg(feature = "mutants")]
        Some("mutants") => return mutants::run(&options),
        #[cfg(not(feature = "mutants"))]
        Some("mutants") => panic!("the variants are there with --features mutants only"),
        // Whatever else a test runner passes does not concern this one test.
        Some(_) | None => bounded(&options),
    };
    report(&tally, begin)
}

/// Plays a seed with everything, or with less.
fn seed(word: &str, number: &str, keep: Keep) -> Run {
    let breadth = match word {
        "plain" => Breadth::Plain,
        "wide" => Breadth::Wide,
        _ => Breadth::Full,
    };
    let number = number.parse().unwrap_or_else(|_| panic!("`{word}` takes a number"));
    swarm::run(number, breadth, keep)
}

fn parsed(text: &str) -> Plan {
    text.trim_matches('"').parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Plays one run and tells what happens in it.
fn again(options: &Options, play: impl Fn(Keep) -> Run) -> ExitCode {
    #[cfg(feature = "mutants")]
    mutants::choose(options.values.get("variant"));
    let log = log::Log::default();
    let logging = options.values.contains_key("log").then(|| log.begin(tracing::Level::DEBUG));
    let run = play(Keep::Yes);
    drop(logging);
    if let Some(path) = options.values.get("log") {
        std::fs::write(path, log.lines("").join("\n")).expect("the log can be written");
    }
    for violation in &run.violations {
        println!("{violation}");
    }
    if let Some(path) = options.values.get("history") {
        std::fs::write(path, &run.history).expect("the history can be written");
    }
    let struck: u32 = run.struck.values().sum();
    println!(
        "{} violations; {struck} faults and kills; done after {:?} s of {:.0}; history {:016x}",
        run.violations.len(),
        run.converged_at,
        run.simulated_secs,
        run.hash
    );
    ExitCode::from(u8::from(!run.violations.is_empty()))
}

/// The part that every change has to pass: each harm to each operation once, in the first scenario that shows it,
/// and a share of them in every other.
fn bounded(options: &Options) -> Tally {
    let mut tally = cases(options.threads);
    for (turn, base) in BASES.iter().enumerate() {
        let reference = Reference::of(base);
        tally.unfired.extend(reference.idle_faults());
        let chains = reference.chains().into_iter().enumerate();
        let is_missing = |chain: &Chain| !tally.fired.contains_key(&chain.kind());
        let part = chains.filter(|(index, chain)| is_missing(chain) || index % SHARES == turn % SHARES);
        let part: Vec<Chain> = part.map(|(_, chain)| chain).collect();
        tally.add(enumerate::singles(&part, 1, options.threads));
    }
    tally.require_every_mode();
    tally.require_every_flavour();
    tally.add(swarm::seeds(1, 10, options.threads, Twice::Yes));
    tally.add(swarm::seeds(11, options.number("seeds", 20), options.threads, Twice::No));
    tally
}

fn cases(threads: usize) -> Tally {
    let lines: Vec<&str> =
        CASES.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let runs = work::map(&lines, threads, |line| match line.split_once(' ') {
        Some((word @ ("seed" | "wide" | "plain"), number)) => seed(word, number, Keep::No).told(line),
        Some(("plan", plan)) => enumerate::run(&parsed(plan), Keep::No).told(line),
        Some(_) | None => panic!("`{line}` is no case"),
    });
    let mut tally = Tally::default();
    for (line, run) in lines.iter().zip(runs) {
        tally.take_case(line, run);
    }
    tally
}

fn enumerate(options: &Options) -> Tally {
    let (limit, pairs) = (options.number("limit", u32::MAX), options.number("pairs", 1));
    let drawn = options.number("drawn", DRAWN);
    let wanted = options.values.get("scenario");
    let bases = BASES.iter().filter(|base| wanted.is_none_or(|wanted| wanted == base.name));
    let mut tally = Tally::default();
    for (index, base) in bases.enumerate() {
        let begin = Instant::now();
        let reference = Reference::of(base);
        let mut part = enumerate::singles(&reference.chains(), limit, options.threads);
        part.unfired.extend(reference.idle_faults());
        let singles = part.plans;
        let flavoured: u64 =
            part.fired.iter().filter(|((_, harm), _)| harm.is_flavoured()).map(|(_, count)| count).sum();
        let mut both_in_full = 0;
        if pairs > 0 && index < 2 {
            let plans: Vec<Plan> = reference.pairs().into_iter().step_by(pairs).collect();
            let (all, struck) = enumerate::pairs(&plans, options.threads);
            part.add(all);
            both_in_full = struck;
        }
        let in_full = part.plans - singles;
        let (sample, both) = enumerate::pairs(&reference.drawn_pairs(drawn), options.threads);
        part.add(sample);
        println!(
            "{}: {singles} plans of one fault ({flavoured} with parameters), {in_full} of two (both happened in {both_in_full}), \
             {drawn} of any two that were drawn (both happened in {both}), {} failed, {:.0} s ({})",
            base.name,
            part.failures.len(),
            begin.elapsed().as_secs_f64(),
            base.about
        );
        tally.add(part);
    }
    if wanted.is_none() {
        tally.require_every_mode();
        tally.require_every_flavour();
    }
    tally
}

fn report(tally: &Tally, begin: Instant) -> ExitCode {
    for failure in tally.failures.iter().take(SHOWN) {
        println!("failed: {}", failure.replay);
    }
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for violation in tally.failures.iter().flat_map(|failure| &failure.violations) {
        *kinds.entry(violation.invariant).or_default() += 1;
    }
    for unfired in &tally.unfired {
        println!("did not happen: {unfired}");
    }
    if !tally.settled.is_empty() {
        let mut settled = tally.settled.clone();
        settled.sort_by(f64::total_cmp);
        let at = |share: usize| settled[(settled.len() * share / 1_000).min(settled.len() - 1)];
        println!(
            "{} seeds done and clean after the last fault: half within {:.0} s, 99 % within {:.0} s, all within {:.0} s",
            settled.len(),
            at(500),
            at(990),
            at(1_000)
        );
    }
    let wall = begin.elapsed().as_secs_f64();
    println!(
        "{} plans, {} failed {kinds:?}, {} kinds of harm done {} times, {} left undone; {wall:.0} s, {:.0} simulated seconds per second",
        tally.plans,
        tally.failures.len(),
        tally.fired.len(),
        tally.fired.values().sum::<u64>(),
        tally.unfired.len(),
        tally.simulated_secs / wall
    );
    ExitCode::from(u8::from(!tally.failures.is_empty() || !tally.unfired.is_empty()))
}
