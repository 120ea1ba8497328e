//! Judges a run by the simulators' history alone.
//!
//! It reads JSON lines and shares no type and no code with the controller or the simulators: what a name of
//! ours looks like, when a sandbox may be ended and how many runners a job may get is stated here a second
//! time. Each module states the invariants it judges, what they allow, and why.
//!
//! | Module | Invariants, by the name under which they are reported |
//! |---|---|
//! | [`limits`] | `limits`, `lifetime` |
//! | [`needs`] | `one_runner_per_need`, `runners_without_need`, `in_vain`, `labels`, `allow_list`, `blind` |
//! | [`destroy`] | `claimed_terminated`, `foreign`, `destroyed_unproven` |
//! | [`jit`] | `config_reused`, `config_old`, `name_twice`, `mint_lost` |
//! | [`budget`] | `budget`, `held`, `repeated` |
//! | [`serve`] | `served_late`, `unserved`, `refused`, `stranger_ran`, `left_over`, `silence` |
//! | [`overdue`] | `kept_late` |
//! | here | `secret`, `unreadable` |

#![expect(clippy::wildcard_enum_match_arm, reason = "each invariant concerns a few kinds of events")]

mod book;
mod budget;
mod destroy;
mod entries;
mod event;
mod jit;
mod limits;
mod needs;
mod overdue;
mod readings;
mod serve;

use std::fmt;

use chrono::TimeDelta;

use book::Book;
use budget::Budgets;
use event::{Line, Time};
use jit::Jit;
use serve::Serving;

pub(crate) use event::Limits;

/// What a run is judged by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Limits beside those that the history states.
    pub(crate) limits: Limits,
    /// What names of ours look like.
    pub(crate) names: OurNames,
    /// How many controllers run at a time (default 1).
    pub(crate) controllers: usize,
    /// The clocks of the runner classes.
    pub(crate) clocks: Clocks,
    /// How long a job may wait with nothing in its way (default 4 min): an interval, the lag of the lists, a
    /// boot, and the claims of two waves.
    pub(crate) serve_within: TimeDelta,
    /// How long a run may go unread beside (default 0): the longest interval of an operator whose quota does not
    /// allow to read every list each interval.
    pub(crate) unread_within: TimeDelta,
    /// The same for a re-run in a repository with more runs than a page of the list holds (default 10 min): it keeps its
    /// place behind the newer ones, and shows in the next sweep.
    pub(crate) swept_within: TimeDelta,
    /// How long after the last fault this begins to count (default 0).
    pub(crate) recover_within: TimeDelta,
    /// For how long nothing may be changed before the end (default 3 min); absent where the run was cut off.
    pub(crate) quiet: Option<TimeDelta>,
    /// Texts that must not occur (default [`CANARIES`]).
    pub(crate) canaries: Vec<String>,
}

/// What the controllers of the tests ask with, and how begin: every JIT config, every auth token of Modal's, every token of
/// an installation, the assertion of an App, and its private key.
pub(crate) const CANARIES: [&str; 8] = [
    "ghp_canary7rk2",
    "ak-canary9xw4",
    "as-canary5tz8",
    "eyIuY3JlZGVudGlhbHMi",
    "eyJhbGciOiJIUzI1NiIs",
    "ghs_",
    "eyJ0eXAiOiJKV1Qi",
    "-----BEGIN",
];

impl Default for Rules {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            names: OurNames { deployment: "main".to_owned(), account: "gh".to_owned() },
            controllers: 1,
            clocks: Clocks { start: TimeDelta::minutes(3), schedule: TimeDelta::minutes(15) },
            serve_within: TimeDelta::minutes(4),
            unread_within: TimeDelta::zero(),
            swept_within: TimeDelta::minutes(10),
            recover_within: TimeDelta::zero(),
            quiet: Some(TimeDelta::minutes(3)),
            canaries: CANARIES.map(str::to_owned).to_vec(),
        }
    }
}

/// The limits after which a start counts as failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// From a sandbox's start to its runner's being online.
    pub(crate) start: TimeDelta,
    /// From a GPU sandbox's creation to its being placed on a machine.
    pub(crate) schedule: TimeDelta,
}

/// The form of the names of ours: `sr-<deployment>-<account>-<job id>-<attempt>`.
#[derive(Debug, Clone)]
pub(crate) struct OurNames {
    /// The deployment.
    pub(crate) deployment: String,
    /// The account.
    pub(crate) account: String,
}

impl OurNames {
    /// The job that a name of ours is made for; none where it is not ours.
    pub(crate) fn job_of(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix("sr-")?.strip_prefix(self.deployment.as_str())?.strip_prefix('-')?;
        let (job, attempt) = rest.strip_prefix(self.account.as_str())?.strip_prefix('-')?.split_once('-')?;
        let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
        number(attempt).filter(|attempt| *attempt > 0)?;
        number(job)
    }
}

/// Something that must not happen and did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Violation {
    /// The invariant.
    pub(crate) invariant: &'static str,
    /// The events that it concerns.
    pub(crate) events: Vec<u64>,
    /// When.
    pub(crate) at: Time,
    /// What.
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, events, at, text } = self;
        let events: Vec<String> = events.iter().map(|seq| format!("#{seq}")).collect();
        write!(f, "{invariant}: {text} ({}, {})", at.format("%H:%M:%S%.3f"), events.join(" "))
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, invariant: &'static str, events: &[u64], at: Time, text: String) {
        self.0.push(Violation { invariant, events: events.to_vec(), at, text });
    }
}

/// Judges a history, line by line.
#[derive(Debug)]
pub(crate) struct Checker {
    rules: Rules,
    book: Book,
    jit: Jit,
    budgets: Budgets,
    serving: Serving,
    found: Found,
    lines: u64,
}

impl Checker {
    /// Knows nothing of the run.
    pub(crate) fn new(rules: Rules) -> Self {
        let book = Book::new(&rules);
        Self {
            rules,
            book,
            jit: Jit::default(),
            budgets: Budgets::default(),
            serving: Serving::default(),
            found: Found::default(),
            lines: 0,
        }
    }

    /// Takes the next line.
    pub(crate) fn take(&mut self, text: &str) {
        for canary in self.rules.canaries.iter().filter(|canary| text.contains(canary.as_str())) {
            // The canary itself is a secret.
            let text = format!("line {} holds a secret of {} characters", self.lines, canary.len());
            self.found.add("secret", &[self.lines], self.book.now, text);
        }
        let number = self.lines;
        self.lines += 1;
        match serde_json::from_str(text) {
            Ok(line) => self.see(line),
            Err(error) => {
                self.found.add("unreadable", &[number], self.book.now, format!("line {number}: {error}"));
            }
        }
    }

    fn see(&mut self, mut line: Line) {
        let Self { rules, book, jit, budgets, serving, found, .. } = self;
        book.take(&mut line);
        limits::see(&line, book, rules, found);
        needs::see(&line, book, rules, found);
        destroy::see(&line, book, rules, found);
        jit.see(&line, book, found);
        budgets.see(&line, book, found);
        serving.see(&line, book, rules, found);
    }

    /// Judges what is left at `end`; without it, at the last line.
    pub(crate) fn finish(mut self, end: Option<Time>) -> Vec<Violation> {
        let end = end.unwrap_or(self.book.now);
        if self.rules.quiet.is_some() {
            jit::at_end(end, &self.book, &mut self.found);
        }
        self.serving.at_end(end, &self.book, &self.rules, &mut self.found);
        overdue::at_end(end, &self.book, &self.rules, &mut self.found);
        self.found.0
    }
}

/// Judges a whole history; an unfinished last line is passed over, as a kill leaves it.
pub(crate) fn check(history: &str, rules: Rules) -> Vec<Violation> {
    let mut checker = Checker::new(rules);
    for line in history.split_inclusive('\n').filter(|line| line.ends_with('\n') && !line.trim().is_empty()) {
        checker.take(line.trim_end());
    }
    checker.finish(None)
}

/// Where texts hold secrets: for each, the number of the text and of the canary.
pub(crate) fn leaks(texts: &[&str], canaries: &[&str]) -> Vec<(usize, usize)> {
    let hits = texts.iter().enumerate().flat_map(|(text_number, text)| {
        let is_in = move |(number, canary): (usize, &&str)| text.contains(*canary).then_some((text_number, number));
        canaries.iter().enumerate().filter_map(is_in)
    });
    hits.collect()
}
