//! Accounts: what comes in at a rate and may be spent.

use chrono::{DateTime, Utc};

use super::seconds;

/// A token bucket that may go into debt; a minute never sees more than its limit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Account {
    per_minute: f64,
    /// What of the configured rate is in force, lowered by secondary-limit answers.
    factor: f64,
    tokens: f64,
    at: Option<DateTime<Utc>>,
}

/// The part of a minute's allowance that may be spent at once.
///
/// Any window of 60 s sees at most the burst plus a minute's refill, so both together make the limit.
const BURST_SHARE: f64 = 1.0 / 60.0;

impl Account {
    pub(super) fn new(per_minute: f64) -> Self {
        Self { per_minute, factor: 1.0, tokens: Self::burst(per_minute), at: None }
    }

    pub(super) fn burst(per_minute: f64) -> f64 {
        (per_minute * BURST_SHARE).max(1.0)
    }

    pub(super) fn rate_per_second(&self) -> f64 {
        ((self.per_minute - Self::burst(self.per_minute)) / 60.0 * self.factor).max(0.001)
    }

    pub(super) fn refill(&mut self, now: DateTime<Utc>) {
        let elapsed = self.at.map_or(0.0, |at| seconds(now - at));
        // A clock that stands still or steps back refills nothing.
        if elapsed > 0.0 || self.at.is_none() {
            self.tokens = (self.tokens + elapsed.max(0.0) * self.rate_per_second()).min(Self::burst(self.per_minute));
            self.at = Some(now);
        }
    }

    /// Takes `points` and tells how long to wait until they are covered.
    pub(super) fn take(&mut self, points: f64, now: DateTime<Utc>) -> f64 {
        self.refill(now);
        self.tokens -= points;
        (-self.tokens / self.rate_per_second()).max(0.0)
    }

    pub(super) fn has(&mut self, points: f64, now: DateTime<Utc>) -> bool {
        self.refill(now);
        // An account smaller than one request would otherwise never admit it.
        self.tokens >= points.min(Self::burst(self.per_minute)) - 1e-9
    }

    /// How many requests of `points` could start at once.
    pub(super) fn admits(&mut self, points: f64, now: DateTime<Utc>) -> u32 {
        self.refill(now);
        let whole = ((self.tokens + 1e-9) / points).floor().max(0.0);
        let at_least = u32::from(self.has(points, now));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a minute's points")]
        (whole.min(f64::from(u16::MAX)) as u32).max(at_least)
    }

    /// What of the configured rate is in force.
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    /// Goes on with the part of its rate that is in force in another one.
    pub(super) fn slow_as(&mut self, other: &Self) {
        self.factor = other.factor;
    }

    pub(super) fn halve(&mut self) {
        self.factor = (self.factor / 2.0).max(1.0 / 16.0);
    }

    pub(super) fn recover(&mut self) {
        self.factor = (self.factor * RECOVERY_PER_ANSWER).min(1.0);
    }
}

/// After a secondary limit the rate comes back over about 700 answers per halving: slowly, and only while
/// answers come.
const RECOVERY_PER_ANSWER: f64 = 1.001;

/// Requests that are spread over time, at a rate that others set and that may change at any moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pace {
    tokens: f64,
    at: Option<DateTime<Utc>>,
}

impl Pace {
    /// Adds what has come in since the last time, and keeps at most `most` of it.
    pub(super) fn refill(&mut self, per_second: f64, most: f64, now: DateTime<Utc>) {
        let elapsed = self.at.map_or(f64::INFINITY, |at| seconds(now - at));
        // A clock that stands still or steps back refills nothing.
        if elapsed > 0.0 {
            self.tokens = (self.tokens + elapsed * per_second).min(most);
            self.at = Some(now);
        }
    }

    /// Whether `tokens` may be spent.
    pub(super) fn has(&self, tokens: f64) -> bool {
        self.tokens >= tokens - 1e-9
    }

    /// Spends one, and owes at most `debt` afterwards: what is owed beyond it is given.
    pub(super) fn take(&mut self, debt: f64) {
        self.tokens = (self.tokens - 1.0).max(-debt);
    }

    /// How many seconds pass until there is one.
    pub(super) fn seconds_until_one(&self, per_second: f64) -> f64 {
        ((1.0 - self.tokens) / per_second.max(1e-6)).max(0.0)
    }
}
