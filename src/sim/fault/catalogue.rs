//! The faults that have a name.
//!
//! Each name states what goes wrong, where, and how far: its default limits leave room for the work to go on, so
//! that a demo with the fault still ends. A [`FaultRequest`](super::FaultRequest) may replace the limits.

mod github;
mod modal;
mod sandboxes;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Fault, FaultMode, InvalidFault, Mishap};
use crate::sim::history::Operation;

/// One operation and mode of a named fault, with its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultPart {
    /// Where.
    pub operation: Operation,
    /// How.
    pub mode: FaultMode,
    times: u32,
    after: u32,
    rate: f64,
    until_secs: Option<f64>,
    seconds: Option<f64>,
    status: Option<u16>,
}

/// Once, at the next call.
const fn at(operation: Operation, mode: FaultMode) -> FaultPart {
    FaultPart { operation, mode, times: 1, after: 0, rate: 1.0, until_secs: None, seconds: None, status: None }
}

impl FaultPart {
    /// So often.
    const fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// After so many calls that go well.
    const fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    /// At each call with this chance.
    const fn rate(self, rate: f64) -> Self {
        Self { rate, times: Fault::UNLIMITED, ..self }
    }

    /// At each call for so many seconds.
    const fn lasting(self, secs: f64) -> Self {
        Self { until_secs: Some(secs), times: Fault::UNLIMITED, ..self }
    }

    /// With this duration.
    const fn seconds(self, seconds: f64) -> Self {
        Self { seconds: Some(seconds), ..self }
    }

    /// With this HTTP status or gRPC code.
    const fn status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }
}

/// A fault of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedFault {
    /// Its name.
    pub name: &'static str,
    /// What goes wrong, in a sentence.
    pub description: &'static str,
    /// Where and how.
    pub parts: &'static [FaultPart],
    /// Knobs that differ meanwhile, each with its value as JSON.
    pub knobs: &'static [(&'static str, &'static str)],
    /// How long the knobs differ; absent means until all faults are taken out.
    pub knobs_until_secs: Option<f64>,
}

/// A fault without knobs.
const fn named(name: &'static str, description: &'static str, parts: &'static [FaultPart]) -> NamedFault {
    NamedFault { name, description, parts, knobs: &[], knobs_until_secs: None }
}

/// A fault of knobs alone.
const fn turned(
    name: &'static str,
    description: &'static str,
    knobs: &'static [(&'static str, &'static str)],
    knobs_until_secs: Option<f64>,
) -> NamedFault {
    NamedFault { name, description, parts: &[], knobs, knobs_until_secs }
}

/// How many names are offered in place of an unknown one.
const NEAR_NAMES: usize = 4;

impl NamedFault {
    /// All of them: GitHub's side, Modal's, and what happens in sandboxes.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        github::FAULTS.iter().chain(modal::FAULTS).chain(sandboxes::FAULTS)
    }

    /// The one of a name.
    ///
    /// # Errors
    /// [`InvalidFault::UnknownName`] with the names that are like it.
    pub fn find(name: &str) -> Result<&'static Self, InvalidFault> {
        let found = Self::all().find(|fault| fault.name == name);
        found.ok_or_else(|| InvalidFault::UnknownName { name: name.to_owned(), near: near(name) })
    }

    /// The operations at which it happens.
    pub fn operations(&self) -> BTreeSet<Operation> {
        self.parts.iter().map(|part| part.operation).collect()
    }

    /// Its faults with their default limits.
    pub fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        self.parts.iter().map(|part| {
            let FaultPart { operation, mode, times, after, rate, until_secs, seconds, status } = *part;
            let name = self.name;
            Fault { times, after, rate, until_secs, seconds, status, name, ..Fault::new(operation, mode) }
        })
    }

    pub(super) fn knob_values(&self) -> impl Iterator<Item = (&'static str, Value)> + '_ {
        self.knobs.iter().map(|(knob, json)| (*knob, serde_json::from_str(json).unwrap_or(Value::Null)))
    }
}

/// Names that share a word with an unknown one or differ from it by little, the nearest first.
fn near(name: &str) -> Vec<&'static str> {
    let asked = name.to_lowercase();
    let words: BTreeSet<&str> = asked.split(['_', '-', ' ']).filter(|word| word.len() > 2).collect();
    let known = NamedFault::all().map(|fault| fault.name).chain(Mishap::ALL.iter().map(|mishap| mishap.name()));
    let mut found: Vec<(usize, &str)> = known
        .map(|known| (distance(&asked, known), known))
        .filter(|(far, known)| {
            let limit = asked.len().max(known.len()) / 3;
            *far <= limit || known.split('_').any(|word| words.contains(word))
        })
        .collect();
    found.sort_unstable();
    found.truncate(NEAR_NAMES);
    found.into_iter().map(|(_, known)| known).collect()
}

/// Levenshtein's distance between two texts.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::FaultRequest;
    use super::*;

    #[test]
    fn every_named_fault_can_be_put_in_and_says_what_it_does() {
        let mut names = BTreeSet::new();
        for fault in NamedFault::all() {
            assert!(names.insert(fault.name), "{} is there twice", fault.name);
            assert!(fault.name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_'));
            assert!(fault.description.ends_with('.'), "{}", fault.name);
            let is_some = !fault.parts.is_empty() || !fault.knobs.is_empty();
            assert!(is_some, "{} does nothing", fault.name);
            assert!(fault.knobs.iter().all(|(_, json)| serde_json::from_str::<Value>(json).is_ok()), "{}", fault.name);
            FaultRequest::from(fault.name).check().unwrap_or_else(|error| panic!("{}: {error}", fault.name));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_its_like() {
        assert_eq!(near("mint_reply_lose")[0], "mint_reply_lost");
        assert_eq!(near("zzzzzzzzzzzz"), [""; 0]);
        assert!(near("mint").iter().all(|name| name.contains("mint")));
    }
}
