//! What may be asked of GitHub, and when (pure).
//!
//! One [`Budget`] per credential keeps three accounts: the primary quota per hour, points per minute
//! (a read costs 1, a write 5) and mutations per minute. Every request is charged before it is sent; what
//! the answers say corrects the accounts. Invariant: no clock is read here, `now` is always an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::mutant::{self, Mutant};

/// What a request is for; decides what it costs and how urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Generate a JIT config.
    Mint,
    /// Delete a runner registration.
    Deregister,
    /// A run list, or a run by its id.
    RunList,
    /// A run list before its time, where there is room.
    EarlyRunList,
    /// The first reading of a run's jobs.
    FirstJobs,
    /// A further reading of a run's jobs.
    Jobs,
    /// The registered runners.
    Runners,
    /// A filtered list that looks for old runs.
    Sweep,
    /// Anything else, such as the runner's releases.
    Other,
}

impl Purpose {
    /// Points of the secondary limit: 5 for a write, 1 for a read (GitHub: REST API rate limits).
    pub fn points(self) -> f64 {
        if self.is_mutation() { 5.0 } else { 1.0 }
    }

    /// Whether the request changes something.
    pub fn is_mutation(self) -> bool {
        match self {
            Self::Mint | Self::Deregister => true,
            Self::RunList
            | Self::EarlyRunList
            | Self::FirstJobs
            | Self::Jobs
            | Self::Runners
            | Self::Sweep
            | Self::Other => false,
        }
    }
}

/// The configured limits of a credential.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetLimits {
    /// Points per minute (default 900).
    pub points_per_minute: f64,
    /// Writes per minute (default 90).
    pub mutations_per_minute: f64,
    /// Requests of the primary quota that only writes may use up.
    pub primary_reserve: u32,
}

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

/// A token bucket that may go into debt; a minute never sees more than its limit.
#[derive(Debug, Clone, PartialEq)]
struct Account {
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
    fn new(per_minute: f64) -> Self {
        Self { per_minute, factor: 1.0, tokens: Self::burst(per_minute), at: None }
    }

    fn burst(per_minute: f64) -> f64 {
        (per_minute * BURST_SHARE).max(1.0)
    }

    fn rate_per_second(&self) -> f64 {
        ((self.per_minute - Self::burst(self.per_minute)) / 60.0 * self.factor).max(0.001)
    }

    fn refill(&mut self, now: DateTime<Utc>) {
        let elapsed = self.at.map_or(0.0, |at| seconds(now - at));
        // A clock that stands still or steps back refills nothing.
        if elapsed > 0.0 || self.at.is_none() {
            self.tokens = (self.tokens + elapsed.max(0.0) * self.rate_per_second()).min(Self::burst(self.per_minute));
            self.at = Some(now);
        }
    }

    /// Takes `points` and tells how long to wait until they are covered.
    fn take(&mut self, points: f64, now: DateTime<Utc>) -> f64 {
        self.refill(now);
        self.tokens -= points;
        (-self.tokens / self.rate_per_second()).max(0.0)
    }

    fn has(&mut self, points: f64, now: DateTime<Utc>) -> bool {
        self.refill(now);
        // An account smaller than one request would otherwise never admit it.
        self.tokens >= points.min(Self::burst(self.per_minute)) - 1e-9
    }

    /// How many requests of `points` could start at once.
    fn admits(&mut self, points: f64, now: DateTime<Utc>) -> u32 {
        self.refill(now);
        let whole = ((self.tokens + 1e-9) / points).floor().max(0.0);
        let at_least = u32::from(self.has(points, now));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a minute's points")]
        (whole.min(f64::from(u16::MAX)) as u32).max(at_least)
    }

    fn halve(&mut self) {
        self.factor = (self.factor / 2.0).max(1.0 / 16.0);
    }

    fn recover(&mut self) {
        self.factor = (self.factor * RECOVERY_PER_ANSWER).min(1.0);
    }
}

/// After a secondary limit the rate comes back over about 700 answers per halving: slowly, and only while
/// answers come.
const RECOVERY_PER_ANSWER: f64 = 1.001;

/// The least wait after a secondary limit that names none (GitHub: best practices, "at least one minute").
const SECONDARY_WAIT: Duration = Duration::from_secs(60);
/// The longest such wait after repeated limits.
const SECONDARY_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// While writes wait, reading gets at most this part of the points.
const READ_SHARE_WHILE_MINTING: f64 = 0.5;
/// Readings that only refresh what is known get at most this part of the points while writes wait.
const REFRESH_SHARE_WHILE_MINTING: f64 = 0.02;

/// Readings that refresh what is known have this part of the points before run lists; beyond it they come
/// after them.
const REFRESH_SHARE: f64 = 0.2;
/// There is room for what can wait while this part of the burst is left.
const ROOM_SHARE: f64 = 0.6;

/// The accounts of one credential.
#[derive(Debug, Clone)]
pub struct Budget {
    limits: BudgetLimits,
    points: Account,
    mutations: Account,
    reads_while_minting: Account,
    refreshes_while_minting: Account,
    refreshes: Account,
    is_minting: bool,
    primary: BTreeMap<String, RateHeaders>,
    held_until: Option<DateTime<Utc>>,
    secondary_in_a_row: u32,
    peak: PointsPeak,
}

/// Points spent per minute, to show the peak.
#[derive(Debug, Clone, Default)]
struct PointsPeak {
    minute: i64,
    points: f64,
    peak: f64,
}

impl Budget {
    /// Full accounts.
    pub fn new(limits: BudgetLimits) -> Self {
        Self {
            points: Account::new(limits.points_per_minute),
            mutations: Account::new(limits.mutations_per_minute),
            reads_while_minting: Account::new(limits.points_per_minute * READ_SHARE_WHILE_MINTING),
            refreshes_while_minting: Account::new(limits.points_per_minute * REFRESH_SHARE_WHILE_MINTING),
            refreshes: Account::new(limits.points_per_minute * REFRESH_SHARE),
            is_minting: false,
            primary: BTreeMap::new(),
            held_until: None,
            secondary_in_a_row: 0,
            peak: PointsPeak::default(),
            limits,
        }
    }

    /// Tells how many creates wait for points; while there are any, reading leaves them their share.
    pub fn set_waiting_mints(&mut self, waiting: usize) {
        self.is_minting = waiting > 0;
    }

    /// Charges one request and tells when it may be sent; a time not after `now` means at once.
    pub fn reserve(&mut self, purpose: Purpose, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut wait = self.points.take(purpose.points(), now);
        if purpose.is_mutation() {
            wait = wait.max(self.mutations.take(1.0, now));
        } else {
            if is_refresh(purpose) {
                self.refreshes.take(1.0, now);
            }
            if self.is_minting {
                self.reads_while_minting.take(1.0, now);
                if is_refresh(purpose) {
                    self.refreshes_while_minting.take(1.0, now);
                }
            }
        }
        for headers in self.primary.values_mut() {
            headers.remaining = headers.remaining.saturating_sub(1);
        }
        self.count_peak(purpose, now);
        let paced = now + delta(Duration::from_secs_f64(wait));
        self.held_until.map_or(paced, |held| paced.max(held))
    }

    /// Whether a request could be sent now without waiting.
    pub fn admits(&mut self, purpose: Purpose, now: DateTime<Utc>) -> bool {
        if self.held_until.is_some_and(|held| now < held) || !self.points.has(purpose.points(), now) {
            return false;
        }
        if purpose.is_mutation() {
            return self.mutations.has(1.0, now) && self.primary_left(now) > 0;
        }
        if purpose == Purpose::EarlyRunList && !self.has_room(now) {
            return false;
        }
        let has_share = !self.is_minting
            || (self.reads_while_minting.has(1.0, now)
                && (!is_refresh(purpose) || self.refreshes_while_minting.has(1.0, now)));
        has_share && self.primary_left(now) > self.limits.primary_reserve
    }

    /// Whether less was spent than an even rate would have spent: of the burst, and of the hourly quota.
    fn has_room(&mut self, now: DateTime<Utc>) -> bool {
        let is_rested = self.points.has(Account::burst(self.limits.points_per_minute) * ROOM_SHARE, now);
        let is_ahead = self.primary.values().filter(|headers| headers.reset > now).all(|headers| {
            let left = seconds(headers.reset - now) / 3600.0;
            f64::from(headers.remaining) >= f64::from(headers.limit) * left
        });
        is_rested && !self.is_minting && is_ahead
    }

    /// How many readings that refresh what is known go before further run lists now.
    pub fn refreshes_due(&mut self, now: DateTime<Utc>) -> u32 {
        if self.refreshes.has(1.0, now) { self.refreshes.admits(1.0, now) } else { 0 }
    }

    /// How many JIT configs could be minted now without waiting.
    pub fn mints_admitted(&mut self, now: DateTime<Utc>) -> u32 {
        if !self.admits(Purpose::Mint, now) {
            return 0;
        }
        self.points.admits(Purpose::Mint.points(), now).min(self.mutations.admits(1.0, now)).min(self.primary_left(now))
    }

    /// When the next mint will be admitted; `now` where it is already.
    pub fn next_mint(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        if self.admits(Purpose::Mint, now) {
            return now;
        }
        let mut after = self.clone();
        let paced = after.reserve(Purpose::Mint, now);
        if self.primary_left(now) == 0 {
            return self.primary.values().map(|headers| headers.reset).max().unwrap_or(paced).max(paced);
        }
        paced
    }

    /// Corrects the accounts by the headers of an answer that was no rate limit.
    pub fn answered(&mut self, headers: Option<RateHeaders>) {
        self.secondary_in_a_row = 0;
        self.points.recover();
        self.mutations.recover();
        if let Some(headers) = headers {
            self.primary.insert(headers.resource.clone(), headers);
        }
    }

    /// Holds the credential after a secondary limit.
    pub fn limited_secondary(&mut self, retry_after: Option<Duration>, now: DateTime<Utc>) {
        if let (Some(_), wait) = (self.held_until(now), retry_after.unwrap_or(SECONDARY_WAIT)) {
            // Requests that were under way together are refused together: that is one refusal.
            self.hold(now + delta(wait));
            return;
        }
        let doubled = SECONDARY_WAIT.saturating_mul(1 << self.secondary_in_a_row.min(8)).min(SECONDARY_WAIT_MAX);
        self.secondary_in_a_row += 1;
        self.points.halve();
        self.mutations.halve();
        self.hold(now + delta(retry_after.unwrap_or(doubled)));
    }

    /// Holds the credential after the primary limit until its window ends.
    pub fn limited_primary(&mut self, reset: DateTime<Utc>) {
        self.hold(reset + TimeDelta::seconds(1));
    }

    fn hold(&mut self, until: DateTime<Utc>) {
        if mutant::is(Mutant::HoldIgnored) {
            return;
        }
        self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
    }

    /// Until when nothing is sent, where that is after `now`.
    pub fn held_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.held_until.filter(|held| *held > now)
    }

    /// The primary quota of every resource as last stated.
    pub fn primary(&self) -> impl Iterator<Item = &RateHeaders> {
        self.primary.values()
    }

    /// The most points spent in one minute of the clock.
    pub fn peak_points_per_minute(&self) -> f64 {
        self.peak.peak.max(self.peak.points)
    }

    /// What is left of the scarcest quota; an unknown quota is taken as large.
    fn primary_left(&self, now: DateTime<Utc>) -> u32 {
        self.primary
            .values()
            .filter(|headers| headers.reset > now)
            .map(|headers| headers.remaining)
            .min()
            .unwrap_or(u32::MAX)
    }

    fn count_peak(&mut self, purpose: Purpose, now: DateTime<Utc>) {
        let minute = now.timestamp().div_euclid(60);
        if minute != self.peak.minute {
            self.peak.peak = self.peak.peak.max(self.peak.points);
            self.peak.minute = minute;
            self.peak.points = 0.0;
        }
        self.peak.points += purpose.points();
    }
}

/// Whether a reading only refreshes what is known.
pub(crate) fn is_refresh(purpose: Purpose) -> bool {
    match purpose {
        Purpose::EarlyRunList | Purpose::Jobs | Purpose::Runners | Purpose::Sweep => true,
        Purpose::Mint | Purpose::Deregister | Purpose::RunList | Purpose::FirstJobs | Purpose::Other => false,
    }
}

/// The creates that Modal takes: a rate with a burst (default 5/s, 20).
#[derive(Debug, Clone)]
pub struct CreateBudget {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Option<DateTime<Utc>>,
    held_until: Option<DateTime<Utc>>,
}

impl CreateBudget {
    /// A full bucket.
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst: f64::from(burst), tokens: f64::from(burst), at: None, held_until: None }
    }

    fn refill(&mut self, now: DateTime<Utc>) {
        let elapsed = self.at.map_or(0.0, |at| seconds(now - at)).max(0.0);
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }

    /// How many creates could start now.
    pub fn admitted(&mut self, now: DateTime<Utc>) -> u32 {
        if self.held_until.is_some_and(|held| now < held) {
            return 0;
        }
        self.refill(now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the burst")]
        let whole = (self.tokens + 1e-9).floor().max(0.0) as u32;
        whole
    }

    /// Charges one create.
    pub fn take(&mut self, now: DateTime<Utc>) {
        self.refill(now);
        self.tokens -= 1.0;
    }

    /// Holds all creates after Modal asked to slow down.
    pub fn hold(&mut self, until: DateTime<Utc>) {
        self.held_until = Some(self.held_until.map_or(until, |held| held.max(until)));
    }

    /// When the next create will be admitted; `now` where it is already.
    pub fn next(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.refill(now);
        let missing = (1.0 - self.tokens).max(0.0);
        let paced = now + delta(Duration::from_secs_f64(missing / self.per_second.max(0.001)));
        self.held_until.map_or(paced, |held| paced.max(held))
    }
}

fn seconds(delta: TimeDelta) -> f64 {
    delta.as_seconds_f64()
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + delta(Duration::from_secs_f64(seconds))
    }

    fn budget() -> Budget {
        Budget::new(BudgetLimits { points_per_minute: 900.0, mutations_per_minute: 180.0, primary_reserve: 100 })
    }

    #[test]
    fn no_minute_sees_more_than_its_points_however_hard_it_is_pressed() {
        let mut budget = budget();
        let sent: Vec<f64> = (0..2_000).map(|_| seconds(budget.reserve(Purpose::RunList, at(0.0)) - at(0.0))).collect();
        for (index, start) in sent.iter().enumerate() {
            let in_window = sent[index..].iter().take_while(|t| **t < start + 60.0).count();
            assert!(in_window <= 900, "{in_window} points in the minute from {start}");
        }
    }

    #[test]
    fn mints_are_paced_by_the_scarcer_account() {
        let mut budget = budget();
        let last = (0..1_000).map(|_| budget.reserve(Purpose::Mint, at(0.0))).max().unwrap();
        let ideal = 5.0 * 1_000.0 / 15.0;
        assert!(seconds(last - at(0.0)) <= ideal * 1.03, "{last}");
    }

    #[test]
    fn reading_leaves_half_to_mints_that_wait() {
        let mut budget = budget();
        budget.set_waiting_mints(1);
        let mut reads = 0;
        for tick in 0..600 {
            let now = at(f64::from(tick) / 10.0);
            while budget.admits(Purpose::FirstJobs, now) {
                budget.reserve(Purpose::FirstJobs, now);
                reads += 1;
            }
        }
        assert!((430..=460).contains(&reads), "{reads}");
    }

    #[test]
    fn the_reserve_of_the_primary_quota_is_kept_for_writes() {
        let mut budget = budget();
        let headers = RateHeaders { resource: "core".into(), limit: 5_000, remaining: 100, reset: at(1_000.0) };
        budget.answered(Some(headers));
        assert!(!budget.admits(Purpose::RunList, at(1.0)));
        assert!(budget.admits(Purpose::Mint, at(1.0)));
        assert!(budget.admits(Purpose::RunList, at(1_000.5)));
    }

    #[test]
    fn a_secondary_limit_holds_everything_as_long_as_github_asks() {
        let mut budget = budget();
        budget.limited_secondary(Some(Duration::from_secs(30)), at(0.0));
        assert!(!budget.admits(Purpose::Mint, at(29.0)) && budget.admits(Purpose::Mint, at(31.0)));
        budget.limited_secondary(None, at(31.0));
        // What was under way together is refused together: that is one refusal.
        budget.limited_secondary(None, at(31.5));
        assert_eq!(budget.held_until(at(32.0)), Some(at(31.0 + 120.0)), "the second in a row doubles");
    }

    #[test]
    fn creates_follow_their_rate_and_burst() {
        let mut creates = CreateBudget::new(5.0, 20);
        let mut started = 0;
        for tick in 0..=100 {
            let now = at(f64::from(tick) / 10.0);
            while creates.admitted(now) > 0 {
                creates.take(now);
                started += 1;
            }
        }
        assert_eq!(started, 70, "the burst of 20 and 5 a second over 10 s");
    }
}
