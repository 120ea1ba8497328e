//! The primary quota per hour, as the headers of answers state it.
//!
//! What a `304` costs is not assumed: two answers that state the same number of requests used show that one of them
//! was free, and where each states a number of its own, each was charged.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Purpose, seconds};

/// The primary quota as an answer's headers state it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateHeaders {
    /// `x-ratelimit-resource`.
    pub resource: String,
    /// `x-ratelimit-limit`.
    pub limit: u32,
    /// `x-ratelimit-remaining`.
    pub remaining: u32,
    /// `x-ratelimit-reset`.
    pub reset: DateTime<Utc>,
}

/// An answer that was no rate limit, as far as it concerns the accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What was asked for.
    pub purpose: Purpose,
    /// Whether it was `304 Not Modified`.
    pub is_unchanged: bool,
    /// What its headers state.
    pub quota: Option<RateHeaders>,
}

/// What a `304` costs of the primary quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unchanged {
    /// No answer has shown it yet: it is planned as if it cost a request.
    #[default]
    Unknown,
    /// Nothing.
    Free,
    /// A request.
    Charged,
}

/// So many answers are remembered by the number of requests that they stated: more than are ever under way.
const REMEMBERED: usize = 64;
/// So many `304`s in a row, each with a number of its own, were charged. Somebody else who uses the credential as
/// often as this looks the same, and leaves as little.
const CHARGED_IN_A_ROW: u32 = 8;
/// Windows that end this close together are one: the end is stated to the second and put on our clock.
const SAME_WINDOW: TimeDelta = TimeDelta::seconds(30);
/// How much one answer moves the part of the readings that are charged.
const SHARE_PER_ANSWER: f64 = 0.005;
/// The part at first, before anything was read.
const FIRST_SHARE: f64 = 0.1;
/// The part is never taken as less, so that the quota is not planned away when everything changes at once.
const LEAST_SHARE: f64 = 0.02;
/// What was kept for writes and used by them is free for reading, but this part.
const RESERVE_ALWAYS: f64 = 0.2;
/// The quota is not spread over less than this: its end is known to the second.
const SHORTEST_SPREAD_SECS: f64 = 10.0;
/// Writes of less than this say nothing of how many will follow.
const SHORTEST_TENDENCY_SECS: f64 = 600.0;
/// The length of a window (GitHub: primary rate limits).
const WINDOW_SECS: f64 = 3600.0;

/// What is known of the quotas of one credential.
#[derive(Debug, Clone)]
pub(super) struct Quotas {
    stated: BTreeMap<String, RateHeaders>,
    /// What readings draw from, as the last of them stated.
    of_reads: Option<String>,
    /// What writes draw from.
    of_writes: Option<String>,
    /// Writes in the window of the readings' quota.
    writes: u32,
    unchanged: Unchanged,
    /// The last numbers of requests used that answers to readings stated, in one window.
    used: VecDeque<u32>,
    own_in_a_row: u32,
    charged_share: f64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            stated: BTreeMap::new(),
            of_reads: None,
            of_writes: None,
            writes: 0,
            unchanged: Unchanged::Unknown,
            used: VecDeque::new(),
            own_in_a_row: 0,
            charged_share: FIRST_SHARE,
        }
    }
}

impl Quotas {
    /// Takes what an answer states.
    pub(super) fn learn(&mut self, answered: Answered) {
        let Answered { purpose, is_unchanged, quota } = answered;
        // Each that takes its turn counts, also the first of its kind: they are planned as one.
        if !purpose.is_mutation() {
            let charged = if is_unchanged { 0.0 } else { 1.0 };
            self.charged_share += (charged - self.charged_share) * SHARE_PER_ANSWER;
        }
        let Some(quota) = quota else { return };
        if purpose.is_mutation() {
            self.of_writes = Some(quota.resource.clone());
        } else {
            let is_new = self
                .stated
                .get(&quota.resource)
                .is_none_or(|before| before.limit != quota.limit || (before.reset - quota.reset).abs() > SAME_WINDOW);
            if is_new || self.of_reads.as_ref() != Some(&quota.resource) {
                self.used.clear();
                self.own_in_a_row = 0;
                self.writes = 0;
            }
            match self.saw_before(&quota) {
                Some(true) => (self.unchanged, self.own_in_a_row) = (Unchanged::Free, 0),
                Some(false) if is_unchanged => {
                    self.own_in_a_row += 1;
                    if self.own_in_a_row >= CHARGED_IN_A_ROW {
                        self.unchanged = Unchanged::Charged;
                    }
                }
                Some(false) | None => {}
            }
            self.of_reads = Some(quota.resource.clone());
        }
        self.stated.insert(quota.resource.clone(), quota);
    }

    /// Whether an answer in this window stated the same number of requests used. Every charged request is told a number
    /// of its own, until none remain.
    fn saw_before(&mut self, quota: &RateHeaders) -> Option<bool> {
        let used = quota.limit.saturating_sub(quota.remaining);
        let is_known = self.used.contains(&used);
        self.used.push_back(used);
        if self.used.len() > REMEMBERED {
            self.used.pop_front();
        }
        (quota.remaining > 0).then_some(is_known)
    }

    /// Counts a request that is about to be sent: until its answer comes, it is taken as charged.
    pub(super) fn sent(&mut self, purpose: Purpose) {
        if purpose.is_mutation() {
            self.writes = self.writes.saturating_add(1);
        }
        // Only its own: another quota is not stated anew by its answer.
        let resource = self.resource(purpose).cloned();
        if let Some(stated) = resource.and_then(|resource| self.stated.get_mut(&resource)) {
            stated.remaining = stated.remaining.saturating_sub(1);
        }
    }

    /// What requests of that kind draw from; what readings do, where no write was answered yet.
    fn resource(&self, purpose: Purpose) -> Option<&String> {
        let of_writes = self.of_writes.as_ref().filter(|_| purpose.is_mutation());
        of_writes.or(self.of_reads.as_ref())
    }

    /// What a `304` costs.
    pub(super) fn unchanged(&self) -> Unchanged {
        self.unchanged
    }

    /// Every quota as last stated.
    pub(super) fn stated(&self) -> impl Iterator<Item = &RateHeaders> {
        self.stated.values()
    }

    /// What is left for requests of that kind; an unknown quota is taken as large.
    pub(super) fn left(&self, purpose: Purpose, now: DateTime<Utc>) -> u32 {
        let stated = self.resource(purpose).and_then(|resource| self.stated.get(resource));
        stated.filter(|stated| stated.reset > now).map_or(u32::MAX, |stated| stated.remaining)
    }

    /// When writes have a quota again, where it is used up.
    pub(super) fn writes_again_at(&self) -> Option<DateTime<Utc>> {
        let resource = self.of_writes.as_ref().or(self.of_reads.as_ref())?;
        self.stated.get(resource).map(|stated| stated.reset)
    }

    /// What of a reserve for writes is still kept: what they used of it in this window has served its end.
    pub(super) fn kept(&self, reserve: u32) -> f64 {
        (f64::from(reserve) - self.written()).max(f64::from(reserve) * RESERVE_ALWAYS)
    }

    /// How many requests writes took of the readings' quota in this window.
    fn written(&self) -> f64 {
        let is_shared = self.of_writes.is_none() || self.of_writes == self.of_reads;
        if is_shared { f64::from(self.writes) } else { 0.0 }
    }

    /// How many more writes there will be in a window of which so much is left, if they go on as they did.
    fn writes_expected(&self, left_secs: f64) -> f64 {
        self.written() * left_secs / (WINDOW_SECS - left_secs).max(SHORTEST_TENDENCY_SECS)
    }

    /// How many readings a second use up, at the end of the window, what is not kept; none where nothing is known.
    pub(super) fn reads_per_second(&self, reserve: u32, now: DateTime<Utc>) -> Option<f64> {
        let stated = self.stated.get(self.of_reads.as_ref()?)?;
        let (left, kept, over_secs) = if stated.reset > now {
            let left_secs = seconds(stated.reset - now).max(SHORTEST_SPREAD_SECS);
            (stated.remaining, self.kept(reserve).max(self.writes_expected(left_secs)), left_secs)
        } else {
            (stated.limit, f64::from(reserve), WINDOW_SECS)
        };
        let charged = match self.unchanged {
            Unchanged::Free => self.charged_share.max(LEAST_SHARE),
            Unchanged::Unknown | Unchanged::Charged => 1.0,
        };
        Some((f64::from(left) - kept).max(0.0) / over_secs / charged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn read(quotas: &mut Quotas, status: u16, used: u32) {
        let quota = RateHeaders { resource: "core".into(), limit: 5_000, remaining: 5_000 - used, reset: at(3_600) };
        quotas.learn(Answered { purpose: Purpose::RunList, is_unchanged: status == 304, quota: Some(quota) });
    }

    #[test]
    fn two_answers_with_the_same_number_show_that_one_was_free() {
        let mut quotas = Quotas::default();
        for used in [1, 3, 2] {
            read(&mut quotas, 200, used);
            assert_eq!(quotas.unchanged(), Unchanged::Unknown);
        }
        read(&mut quotas, 304, 3);
        assert_eq!(quotas.unchanged(), Unchanged::Free);
    }

    #[test]
    fn answers_that_each_have_a_number_of_their_own_were_charged() {
        let mut quotas = Quotas::default();
        for used in 1..=8 {
            read(&mut quotas, 304, used);
        }
        assert_eq!(quotas.unchanged(), Unchanged::Charged);
        read(&mut quotas, 304, 8);
        assert_eq!(quotas.unchanged(), Unchanged::Free, "also where GitHub changes its mind");
    }

    #[test]
    fn writes_of_the_rest_of_the_hour_are_foreseen_by_those_so_far() {
        let mut quotas = Quotas::default();
        read(&mut quotas, 200, 0);
        let per_hour = |quotas: &Quotas, now| quotas.reads_per_second(500, at(now)).unwrap() * 3_600.0;
        assert!((per_hour(&quotas, 0) - 4_500.0).abs() < 1.0);
        for _ in 0..300 {
            quotas.sent(Purpose::Mint);
        }
        let half = per_hour(&quotas, 1_800) / 2.0;
        assert!((half - (4_700.0 - 300.0)).abs() < 1.0, "as many again: {half}");
        for _ in 0..700 {
            quotas.sent(Purpose::Mint);
        }
        let half = per_hour(&quotas, 1_800) / 2.0;
        assert!((half - (4_000.0 - 1_000.0)).abs() < 1.0, "{half}");
    }

    #[test]
    fn readings_use_up_nothing_of_a_quota_that_only_writes_draw_from() {
        let mut quotas = Quotas::default();
        read(&mut quotas, 200, 1_000);
        quotas.sent(Purpose::Mint);
        assert_eq!(quotas.left(Purpose::Mint, at(0)), 3_999, "until it is known, writes draw from what readings do");
        let of_mints = RateHeaders { resource: "mints".into(), limit: 10_000, remaining: 50, reset: at(3_600) };
        quotas.learn(Answered { purpose: Purpose::Mint, is_unchanged: false, quota: Some(of_mints) });
        for _ in 0..100 {
            quotas.sent(Purpose::RunList);
        }
        quotas.sent(Purpose::Mint);
        assert_eq!([Purpose::Mint, Purpose::RunList].map(|purpose| quotas.left(purpose, at(0))), [49, 3_899]);
    }

    #[test]
    fn numbers_of_another_hour_are_not_compared() {
        let mut quotas = Quotas::default();
        read(&mut quotas, 304, 1);
        let quota = RateHeaders { resource: "core".into(), limit: 5_000, remaining: 4_999, reset: at(7_200) };
        quotas.learn(Answered { purpose: Purpose::RunList, is_unchanged: true, quota: Some(quota) });
        assert_eq!(quotas.unchanged(), Unchanged::Unknown);
    }

    #[test]
    fn what_is_left_is_spread_over_the_rest_of_the_hour() {
        let mut quotas = Quotas::default();
        assert_eq!(quotas.reads_per_second(500, at(0)), None);
        read(&mut quotas, 200, 1_400);
        assert_eq!(quotas.reads_per_second(500, at(500)), Some(1.0), "3,100 in 3,100 s");
        assert_eq!(quotas.reads_per_second(500, at(2_050)), Some(2.0));
        assert_eq!(quotas.reads_per_second(3_600, at(500)), Some(0.0), "the rest is kept for writes");
        assert_eq!(quotas.reads_per_second(500, at(3_600)), Some(1.25), "a new hour");
    }

    #[test]
    fn writes_use_what_is_kept_for_them_first() {
        let mut quotas = Quotas::default();
        read(&mut quotas, 200, 1_400);
        for _ in 0..300 {
            quotas.sent(Purpose::Mint);
        }
        assert_eq!(
            (quotas.left(Purpose::RunList, at(3_100)), quotas.reads_per_second(500, at(3_100))),
            (3_300, Some(6.2))
        );
    }

    #[test]
    fn where_unchanged_lists_are_free_only_what_changes_is_planned() {
        let mut quotas = Quotas::default();
        for _ in 0..2_000 {
            read(&mut quotas, 304, 1_400);
        }
        let rate = quotas.reads_per_second(500, at(500)).unwrap();
        assert!((rate - 50.0).abs() < 1e-6, "{rate}");
    }
}
