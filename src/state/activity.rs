//! How often new demand comes to a repository, as far as it was seen, and where somebody said that there is some.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::RunId;

/// New runs come where runs were: what one excites decays over this time (measured CI: clusters, some minutes apart).
const EXCITED_SECS: f64 = 600.0;
/// How many further runs a run announces: a cluster has about four.
const FOLLOWING: f64 = 0.75;
/// So many runs at once announce no more than these.
const EXCITED_MAX: f64 = 3.0;
/// What was seen counts against so many seconds of an average repository.
const PRIOR_SECS: f64 = 6.0 * 3600.0;
/// What is assumed of a repository before anything was seen: six runs a day.
const PRIOR_RATE: f64 = 6.0 / 86_400.0;

/// What was seen to come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activity {
    since: Option<DateTime<Utc>>,
    seen: f64,
    excited: f64,
    excited_at: Option<DateTime<Utc>>,
}

impl Activity {
    /// Notes a reading that began at `at` and showed so many new runs.
    pub fn read(&mut self, new_runs: usize, at: DateTime<Utc>) {
        if self.since.is_none() {
            // What is there at first came over a time that nobody knows.
            self.since = Some(at);
            self.excite(new_runs, at);
        } else if new_runs > 0 {
            self.seen += number(new_runs);
            self.excite(new_runs, at);
        }
    }

    fn excite(&mut self, new_runs: usize, at: DateTime<Utc>) {
        self.excited = (self.excited_at(at) + number(new_runs)).min(EXCITED_MAX);
        self.excited_at = Some(at);
    }

    fn excited_at(&self, now: DateTime<Utc>) -> f64 {
        let elapsed = self.excited_at.map_or(0.0, |at| seconds(now - at).max(0.0));
        if self.excited > 0.0 { self.excited * (-elapsed / EXCITED_SECS).exp() } else { 0.0 }
    }

    /// How many new runs a second are expected, where an average repository has `average`.
    pub fn rate(&self, average: f64, now: DateTime<Utc>) -> f64 {
        let watched = self.watched_secs(now);
        let slow = (self.seen + average * PRIOR_SECS) / (PRIOR_SECS + watched);
        slow + self.excited_at(now) / EXCITED_SECS * FOLLOWING
    }

    fn watched_secs(&self, now: DateTime<Utc>) -> f64 {
        self.since.map_or(0.0, |since| seconds(now - since).max(0.0))
    }

    /// How many new runs a second an average repository of these has.
    pub fn average<'a>(all: impl Iterator<Item = &'a Self>, now: DateTime<Utc>) -> f64 {
        let (seen, watched) = all.fold((0.0, 0.0), |(seen, watched), activity| {
            (seen + activity.seen + PRIOR_RATE * PRIOR_SECS, watched + PRIOR_SECS + activity.watched_secs(now))
        });
        if watched > 0.0 { seen / watched } else { PRIOR_RATE }
    }
}

/// At most so many runs of a repository are remembered that somebody spoke of: its run list is read in any case. Of more
/// the ones spoken of last are worth most.
const HINTS_MAX: usize = 20;
/// In a repository nothing is read more often than this for a hint.
const COALESCED: TimeDelta = TimeDelta::seconds(1);

/// Runs that somebody said have changed, and since when that is to be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    runs: BTreeMap<RunId, DateTime<Utc>>,
    asked_at: Option<DateTime<Utc>>,
}

impl Hints {
    /// Takes a hint.
    pub fn add(&mut self, run: RunId, now: DateTime<Utc>) {
        self.runs.insert(run, now);
        if self.runs.len() > HINTS_MAX
            && let Some(oldest) = self.runs.iter().map(|(run, at)| (*at, *run)).min()
        {
            self.runs.remove(&oldest.1);
        }
    }

    /// Every run that is still to be looked at, with the time of its hint.
    pub fn iter(&self) -> impl Iterator<Item = (RunId, DateTime<Utc>)> {
        self.runs.iter().map(|(run, at)| (*run, *at))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Notes that a run was seen by a reading that began at `began_at`, or cannot be seen.
    pub fn seen(&mut self, run: RunId, began_at: DateTime<Utc>) {
        if self.runs.get(&run).is_some_and(|at| *at <= began_at) {
            self.runs.remove(&run);
        }
    }

    /// Whether one more reading is due for hints, beside what was read at `tried_at`.
    pub fn may_ask(tried_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        tried_at.is_none_or(|at| now - at >= COALESCED)
    }

    /// Notes that a run that no list showed was looked up.
    pub fn asked(&mut self, now: DateTime<Utc>) {
        self.asked_at = Some(now);
    }

    /// When one was last looked up.
    pub fn asked_at(&self) -> Option<DateTime<Utc>> {
        self.asked_at
    }
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.as_seconds_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs on some pages")]
fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12
    }

    #[test]
    fn a_repository_of_which_nothing_is_known_is_an_average_one() {
        let (new, average) = (Activity::default(), 1e-4);
        assert!(close(new.rate(average, at(0)), average));
        let mut quiet = Activity::default();
        quiet.read(0, at(0));
        assert!(close(quiet.rate(average, at(6 * 3600)), average / 2.0), "six quiet hours weigh as much");
        let alone = Activity::average([&new].into_iter(), at(0));
        assert!(close(alone, PRIOR_RATE));
    }

    #[test]
    fn a_run_announces_others_for_some_minutes() {
        let mut activity = Activity::default();
        activity.read(0, at(0));
        let before = activity.rate(1e-4, at(100));
        activity.read(1, at(100));
        let excited = activity.rate(1e-4, at(100)) - before;
        assert!((0.75 / 600.0..0.85 / 600.0).contains(&excited), "{excited}");
        let slow = (1.0 + 1e-4 * PRIOR_SECS) / (PRIOR_SECS + 700.0);
        assert!(close(activity.rate(1e-4, at(700)), slow + 0.75 / 600.0 * (-1.0_f64).exp()));
        activity.read(100, at(800));
        assert!(activity.rate(1e-4, at(800)) < (101.0 + 1e-4 * PRIOR_SECS) / PRIOR_SECS + 3.0 * 0.75 / 600.0);
    }

    #[test]
    fn what_is_there_at_first_is_no_rate() {
        let mut activity = Activity::default();
        activity.read(50, at(0));
        assert!(close(activity.rate(1e-4, at(1_000_000)), 1e-4 * PRIOR_SECS / (PRIOR_SECS + 1e6)));
    }

    #[test]
    fn a_hint_stands_until_a_later_reading_shows_its_run() {
        let mut hints = Hints::default();
        hints.add(RunId(7), at(10));
        hints.seen(RunId(7), at(9));
        assert_eq!(hints.iter().collect::<Vec<_>>(), [(RunId(7), at(10))]);
        hints.seen(RunId(7), at(10));
        assert!(hints.is_empty());
        for run in 0..100 {
            hints.add(RunId(run), at(11));
        }
        assert_eq!(hints.iter().count(), HINTS_MAX);
        hints.add(RunId(1_000), at(12));
        assert!(hints.iter().count() == HINTS_MAX && hints.iter().any(|(run, _)| run == RunId(1_000)), "the last one");
    }
}
