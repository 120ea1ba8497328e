//! What may be asked of GitHub, and when (pure).
//!
//! One [`Budget`] per credential keeps the accounts: the primary quota per hour, points per minute (a read costs 1, a
//! write 5) and mutations per minute. Every request is charged before it is sent; what the answers say corrects the
//! accounts. Readings are spread evenly over time, at the rate that the scarcer of quota and points affords, and
//! within it those that refresh what is known have a share. Invariant: no clock is read here, `now` is always an
//! argument.

mod account;
mod creates;
mod quota;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use self::account::{Account, Pace};
use self::quota::Quotas;
use crate::mutant::{self, Mutant};

pub use self::creates::CreateBudget;
pub use self::quota::{Answered, RateHeaders, Unchanged};

/// What a request is for; decides what it costs and how urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Generate a JIT config.
    Mint,
    /// Delete a runner registration.
    Deregister,
    /// Ask for a token of an installation.
    Token,
    /// A run list, or a run by its id.
    RunList,
    /// A run list that cannot wait: it was never read, or not for too long.
    UrgentRunList,
    /// A run list that somebody said has changed.
    HintedRunList,
    /// A run list before its time, where there is room.
    EarlyRunList,
    /// The first reading of a run's jobs.
    FirstJobs,
    /// A further reading of a run's jobs, of which somebody said that they have changed.
    HintedJobs,
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
            Self::Mint | Self::Deregister | Self::Token => true,
            Self::RunList
            | Self::UrgentRunList
            | Self::HintedRunList
            | Self::EarlyRunList
            | Self::FirstJobs
            | Self::HintedJobs
            | Self::Jobs
            | Self::Runners
            | Self::Sweep
            | Self::Other => false,
        }
    }

    /// When it goes before its turn among the readings: those that wait for theirs wait the longer for it.
    fn borrows(self) -> Borrows {
        match self {
            Self::Mint | Self::Deregister | Self::Token | Self::UrgentRunList | Self::FirstJobs | Self::Other => {
                Borrows::Always
            }
            Self::HintedRunList | Self::HintedJobs => Borrows::WithinShare,
            Self::RunList | Self::EarlyRunList | Self::Jobs | Self::Runners | Self::Sweep => Borrows::Never,
        }
    }
}

/// When a reading goes before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Borrows {
    Always,
    /// While the share of hints lasts: as many may come as anybody sends, and each alone looks worth while.
    WithinShare,
    Never,
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

/// What a credential affords, for whoever decides what to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Readings, spread evenly.
    pub reads_per_second: f64,
    /// What a `304` costs.
    pub unchanged: Unchanged,
}

impl Capacity {
    /// What is planned where nothing but the points per minute is known.
    pub fn of_points(points_per_minute: f64) -> Self {
        Self { reads_per_second: points_per_minute * READ_SHARE / 60.0, unchanged: Unchanged::Unknown }
    }

    /// What of it run lists get at least.
    pub fn lists_per_second(self) -> f64 {
        self.reads_per_second * (1.0 - REFRESH_SHARE - SWEEP_SHARE)
    }

    /// What of it sweeps get at most.
    pub fn sweeps_per_second(self) -> f64 {
        self.reads_per_second * SWEEP_SHARE
    }

    /// Whether what a list costs depends on nothing but how often it is read.
    pub fn charges_unchanged(self) -> bool {
        self.unchanged == Unchanged::Charged
    }
}

/// Readings are planned with this part of the points: the rest is for writes, and GitHub also limits the time that it
/// takes to answer, which at this rate may be twice its usual 0.1 s (GitHub: REST API rate limits, CPU time).
const READ_SHARE: f64 = 0.5;
/// Readings that refresh what is known have this part of all before run lists; beyond it they come after them.
const REFRESH_SHARE: f64 = 0.2;
/// Sweeps for old runs have at most this part of all.
const SWEEP_SHARE: f64 = 0.05;
/// Readings before their turn, because somebody said that there is news, have at most this part of all: the rest tells
/// what nobody says.
const HINT_SHARE: f64 = 0.5;
/// What was not used for so long may be read at once.
const READS_SAVED_SECS: f64 = 60.0;
/// The same for what has only a share.
const SHARE_SAVED_SECS: f64 = 60.0;
/// What was borrowed delays other readings for so long at most.
const DEBT_SECS: f64 = 60.0;

/// The least wait after a secondary limit that names none (GitHub: best practices, "at least one minute").
const SECONDARY_WAIT: Duration = Duration::from_secs(60);
/// The longest such wait after repeated limits.
const SECONDARY_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// While writes wait, reading gets at most this part of the points.
const READ_SHARE_WHILE_MINTING: f64 = 0.5;
/// Readings that only refresh what is known get at most this part of the points while writes wait.
const REFRESH_SHARE_WHILE_MINTING: f64 = 0.02;
/// There is room for what can wait while what comes in within so long is left.
const ROOM_SECS: f64 = 1.2;

/// The accounts of one credential.
#[derive(Debug, Clone)]
pub struct Budget {
    limits: BudgetLimits,
    points: Account,
    mutations: Account,
    reads_while_minting: Account,
    refreshes_while_minting: Account,
    reads: Pace,
    refreshes: Pace,
    sweeps: Pace,
    hints: Pace,
    is_minting: bool,
    quotas: Quotas,
    held_until: Option<DateTime<Utc>>,
    used_up_until: Option<DateTime<Utc>>,
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
            reads: Pace::default(),
            refreshes: Pace::default(),
            sweeps: Pace::default(),
            hints: Pace::default(),
            is_minting: false,
            quotas: Quotas::default(),
            held_until: None,
            used_up_until: None,
            secondary_in_a_row: 0,
            peak: PointsPeak::default(),
            limits,
        }
    }

    /// Takes over what GitHub's answers told another budget of the same credential, which had other limits.
    pub(crate) fn adopt(&mut self, former: Self) {
        let Self { points, mutations, quotas, held_until, used_up_until, secondary_in_a_row, .. } = former;
        self.points.slow_as(&points);
        self.mutations.slow_as(&mutations);
        *self = Self { quotas, held_until, used_up_until, secondary_in_a_row, ..self.clone() };
    }

    /// Tells how many creates wait for points; while there are any, reading leaves them their share.
    pub fn set_waiting_mints(&mut self, waiting: usize) {
        self.is_minting = waiting > 0;
    }

    fn kept_for_writes(&self) -> u32 {
        if mutant::is(Mutant::ReserveIgnored) { 0 } else { self.limits.primary_reserve }
    }

    /// What readings it affords.
    pub fn capacity(&self, now: DateTime<Utc>) -> Capacity {
        Capacity { reads_per_second: self.reads_per_second(now), unchanged: self.quotas.unchanged() }
    }

    /// What they are planned to be, whatever GitHub's answers have made of it for a while.
    pub fn planned(&self) -> Capacity {
        Capacity::of_points(self.limits.points_per_minute)
    }

    fn reads_per_second(&self, now: DateTime<Utc>) -> f64 {
        let planned = self.limits.points_per_minute * READ_SHARE * self.points.factor() / 60.0;
        let quota = self.quotas.reads_per_second(self.kept_for_writes(), now);
        quota.map_or(planned, |quota| quota.min(planned))
    }

    fn refill(&mut self, now: DateTime<Utc>) {
        let rate = self.reads_per_second(now);
        let most = |rate: f64, saved_secs: f64| (rate * saved_secs).max(2.0);
        self.reads.refill(rate, most(rate, READS_SAVED_SECS), now);
        self.refreshes.refill(rate * REFRESH_SHARE, most(rate * REFRESH_SHARE, SHARE_SAVED_SECS), now);
        self.sweeps.refill(rate * SWEEP_SHARE, most(rate * SWEEP_SHARE, SHARE_SAVED_SECS), now);
        self.hints.refill(rate * HINT_SHARE, most(rate * HINT_SHARE, SHARE_SAVED_SECS), now);
    }

    /// Charges one request and tells when it may be sent; a time not after `now` means at once.
    pub fn reserve(&mut self, purpose: Purpose, now: DateTime<Utc>) -> DateTime<Utc> {
        let mut wait = self.points.take(purpose.points(), now);
        if purpose.is_mutation() {
            wait = wait.max(self.mutations.take(1.0, now));
        } else {
            self.refill(now);
            let debt = self.reads_per_second(now) * DEBT_SECS;
            self.reads.take(debt);
            if is_refresh(purpose) {
                self.refreshes.take(debt * REFRESH_SHARE);
            }
            if purpose == Purpose::Sweep {
                self.sweeps.take(debt * SWEEP_SHARE);
            }
            if purpose.borrows() == Borrows::WithinShare || purpose == Purpose::FirstJobs {
                self.hints.take(debt * HINT_SHARE);
            }
            if self.is_minting {
                self.reads_while_minting.take(1.0, now);
                if is_refresh(purpose) {
                    self.refreshes_while_minting.take(1.0, now);
                }
            }
        }
        self.quotas.sent(purpose);
        self.count_peak(purpose, now);
        let paced = now + delta(Duration::from_secs_f64(wait));
        self.held_until.map_or(paced, |held| paced.max(held))
    }

    /// Whether a request could be sent now without waiting.
    pub fn admits(&mut self, purpose: Purpose, now: DateTime<Utc>) -> bool {
        self.admits_beside(purpose, 0, now)
    }

    /// The same beside readings that are about to be sent and not charged yet.
    pub fn admits_beside(&mut self, purpose: Purpose, others: u32, now: DateTime<Utc>) -> bool {
        let others = f64::from(others);
        if self.held_until.is_some_and(|held| now < held) || !self.points.has(purpose.points() + others, now) {
            return false;
        }
        if purpose.is_mutation() {
            return self.mutations.has(1.0, now) && self.quotas.left(purpose, now) > 0;
        }
        self.refill(now);
        let has_turn = match purpose.borrows() {
            Borrows::Always => true,
            Borrows::WithinShare => self.hints.has(1.0 + others),
            Borrows::Never => self.reads.has(1.0 + others),
        };
        if (purpose == Purpose::EarlyRunList && !self.has_room(others, now))
            || (purpose == Purpose::Sweep && !self.sweeps.has(1.0))
        {
            return false;
        }
        let has_share = !self.is_minting
            || (self.reads_while_minting.has(1.0 + others, now)
                && (!is_refresh(purpose) || self.refreshes_while_minting.has(1.0, now)));
        let left = f64::from(self.quotas.left(purpose, now));
        has_turn && has_share && left - others > self.quotas.kept(self.kept_for_writes())
    }

    /// Whether less was spent than an even rate would have spent: of what may be saved, and of the hourly quota.
    fn has_room(&mut self, others: f64, now: DateTime<Utc>) -> bool {
        let rate = self.reads_per_second(now);
        let is_rested = self.reads.has(others + (rate * ROOM_SECS).max(1.0));
        let is_ahead = self.quotas.stated().filter(|stated| stated.reset > now).all(|stated| {
            let left = seconds(stated.reset - now) / 3600.0;
            f64::from(stated.remaining) >= f64::from(stated.limit) * left
        });
        is_rested && !self.is_minting && is_ahead
    }

    /// How many readings that refresh what is known go before further run lists now.
    pub fn refreshes_due(&mut self, now: DateTime<Utc>) -> u32 {
        self.refill(now);
        (1..=REFRESHES_AT_ONCE).take_while(|count| self.refreshes.has(f64::from(*count))).last().unwrap_or(0)
    }

    /// When the next reading is admitted that waits for its turn; for ever where something else is in its way.
    pub fn next_read(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.refill(now);
        let secs = self.reads.seconds_until_one(self.reads_per_second(now)).min(LONGEST_PAUSE_SECS);
        let paced = now + delta(Duration::from_secs_f64(secs));
        let at = self.held_until.map_or(paced, |held| paced.max(held));
        if at > now { at } else { DateTime::<Utc>::MAX_UTC }
    }

    /// How many JIT configs could be minted now without waiting.
    pub fn mints_admitted(&mut self, now: DateTime<Utc>) -> u32 {
        if !self.admits(Purpose::Mint, now) {
            return 0;
        }
        let left = self.quotas.left(Purpose::Mint, now);
        self.points.admits(Purpose::Mint.points(), now).min(self.mutations.admits(1.0, now)).min(left)
    }

    /// When the next mint will be admitted; `now` where it is already.
    pub fn next_mint(&mut self, now: DateTime<Utc>) -> DateTime<Utc> {
        if self.admits(Purpose::Mint, now) {
            return now;
        }
        let mut after = self.clone();
        let paced = after.reserve(Purpose::Mint, now);
        if self.quotas.left(Purpose::Mint, now) == 0 {
            return self.quotas.writes_again_at().unwrap_or(paced).max(paced);
        }
        paced
    }

    /// Corrects the accounts by an answer that was no rate limit.
    pub fn answered(&mut self, answered: Answered, now: DateTime<Utc>) {
        // What is answered during a hold was sent before it, and says nothing of what is admitted afterwards.
        if self.held_until(now).is_none() {
            self.secondary_in_a_row = 0;
            self.points.recover();
            self.mutations.recover();
        }
        self.quotas.learn(answered);
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
        self.used_up_until = Some(reset);
        self.hold(reset + TimeDelta::seconds(1));
    }

    /// Whether GitHub refused something because nothing is left of the primary quota: what it stated before does not count.
    pub fn is_used_up(&self, now: DateTime<Utc>) -> bool {
        self.used_up_until.is_some_and(|reset| now < reset)
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
        self.quotas.stated()
    }

    /// The most points spent in one minute of the clock.
    pub fn peak_points_per_minute(&self) -> f64 {
        self.peak.peak.max(self.peak.points)
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

/// More readings than one pass starts.
const REFRESHES_AT_ONCE: u32 = 16;
/// A quota that is used up has a new window within the hour.
const LONGEST_PAUSE_SECS: f64 = 3600.0;

/// Whether a reading only refreshes what is known.
pub(crate) fn is_refresh(purpose: Purpose) -> bool {
    match purpose {
        Purpose::Jobs | Purpose::Runners | Purpose::Sweep => true,
        Purpose::Mint
        | Purpose::Deregister
        | Purpose::Token
        | Purpose::RunList
        | Purpose::UrgentRunList
        | Purpose::HintedRunList
        | Purpose::EarlyRunList
        | Purpose::FirstJobs
        | Purpose::HintedJobs
        | Purpose::Other => false,
    }
}

/// Whether a reading has only a share of the others, or waits for room.
pub(crate) fn can_wait(purpose: Purpose) -> bool {
    is_refresh(purpose) || purpose == Purpose::EarlyRunList || purpose.borrows() == Borrows::WithinShare
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
    fn a_refusal_for_want_of_quota_holds_until_its_window_ends() {
        let mut budget = budget();
        assert!(!budget.is_used_up(at(0.0)));
        budget.limited_primary(at(600.0));
        assert!(budget.is_used_up(at(599.0)) && !budget.is_used_up(at(600.0)));
        assert_eq!(budget.held_until(at(0.0)), Some(at(601.0)));
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
    fn answers_to_what_was_sent_before_a_hold_do_not_shorten_the_next() {
        let mut budget = budget();
        let success = || Answered { purpose: Purpose::RunList, is_unchanged: false, quota: None };
        budget.limited_secondary(None, at(0.0));
        budget.answered(success(), at(1.0));
        budget.limited_secondary(None, at(61.0));
        assert_eq!(budget.held_until(at(62.0)), Some(at(61.0 + 120.0)), "twice as long");
        budget.answered(success(), at(182.0));
        budget.limited_secondary(None, at(183.0));
        assert_eq!(budget.held_until(at(184.0)), Some(at(183.0 + 60.0)));
    }

    #[test]
    fn the_reserve_of_the_primary_quota_is_kept_for_writes() {
        let mut budget = budget();
        let headers = RateHeaders { resource: "core".into(), limit: 5_000, remaining: 100, reset: at(1_000.0) };
        let answered = Answered { purpose: Purpose::RunList, is_unchanged: false, quota: Some(headers) };
        budget.answered(answered, at(0.0));
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
}
