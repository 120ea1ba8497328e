//! Which lists a controller read, and when: complete ones only, put together from their pages.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::book::Mark;
use super::event::{Call, Caller, Operation, Service, Time, code, seconds};

/// No client waits longer for the answer to a reading.
const PATIENCE_SECS: f64 = 20.0;

/// A complete reading of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// When its first page was answered.
    pub(crate) began: Time,
    /// When the answer to its last page was there.
    pub(crate) ended: Time,
    /// Whether a fault changed what it shows, so that its reader cannot know better.
    pub(crate) is_true: bool,
}

/// A list: the operation, the repository, and the run or the filter.
type List = (Operation, String, String);

/// The readings of every list by everyone, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    complete: BTreeMap<(Caller, List), Vec<Reading>>,
    /// Readings that have pages to come.
    open: BTreeMap<(Caller, List), Reading>,
    /// When the first page of a list was last answered: what it shows is known, although the rest is not.
    begun: BTreeMap<(Caller, List), Time>,
}

impl Readings {
    /// Takes an answer.
    pub(crate) fn take(&mut self, mark: Mark, call: &Call) {
        // Sandboxes live in Apps: that there is no App is the whole list of them.
        let is_no_app = call.operation == Operation::App && call.status == code::NOT_FOUND;
        let (operation, page) = match call.page {
            Some(page) => (call.operation, page),
            None if is_no_app => (Operation::ListSandboxes, 1),
            None => return,
        };
        let list = (operation, call.subject.clone(), call.target.clone());
        let key = (call.caller(), list);
        let before = self.open.remove(&key);
        if !(call.is_answered() || is_no_app) || call.delay_secs >= PATIENCE_SECS {
            // Modal's clients ask for the same page again.
            if let Some(before) = before.filter(|_| call.service == Service::Modal) {
                self.open.insert(key, before);
            }
            return;
        }
        let is_true = call.fault.is_none() || call.fault.as_deref() == Some("slow");
        let ended = mark.at + seconds(call.delay_secs);
        let first = Reading { began: mark.at, ended, is_true };
        if page == 1 {
            self.begun.insert(key.clone(), mark.at);
        }
        let reading = match (page, before) {
            (1, _) => first,
            (_, Some(before)) => Reading { began: before.began, ended, is_true: is_true && before.is_true },
            // The page before was not answered.
            (_, None) => return,
        };
        if call.more {
            self.open.insert(key, reading);
        } else {
            self.complete.entry(key).or_default().push(reading);
        }
    }

    /// What one caller has read.
    pub(crate) fn by(&self, caller: Caller) -> Known<'_> {
        Known { readings: self, caller }
    }
}

/// The readings of one caller.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    readings: &'a Readings,
    caller: Caller,
}

impl<'a> Known<'a> {
    /// The complete readings of a list: its operation, its repository, and its run or filter.
    pub(crate) fn of(&self, (operation, subject, target): (Operation, &str, &str)) -> &'a [Reading] {
        let key = (self.caller, (operation, subject.to_owned(), target.to_owned()));
        self.readings.complete.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// When the first page of a list was last answered.
    pub(crate) fn begun(&self, (operation, subject, target): (Operation, &str, &str)) -> Option<Time> {
        self.readings.begun.get(&(self.caller, (operation, subject.to_owned(), target.to_owned()))).copied()
    }

    /// When the last true reading began that had ended by `by`.
    pub(crate) fn last_true(&self, list: (Operation, &str, &str), by: Time) -> Option<Time> {
        let known = |reading: &&Reading| reading.is_true && reading.ended <= by;
        self.of(list).iter().rev().find(known).map(|reading| reading.began)
    }

    /// Whether two readings of a list lie `apart`, the first not before `since`, the second ended by `by`.
    pub(crate) fn agree(&self, list: (Operation, &str, &str), since: Time, by: Time, apart: TimeDelta) -> bool {
        let mut between = self.of(list).iter().filter(|reading| reading.began >= since && reading.ended <= by);
        let first = between.next();
        let newest = between.next_back();
        first.zip(newest).is_some_and(|(first, newest)| newest.began - first.began >= apart)
    }
}
