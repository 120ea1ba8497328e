//! The rate limits of both services.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use super::draws::seconds;
use super::history::LimitKind;
use super::profile::Profile;

/// The length of GitHub's primary window.
const HOUR: TimeDelta = TimeDelta::hours(1);
/// What an installation's quota grows to at most (GitHub: REST API rate limits).
const GROWN: u32 = 12_500;
/// So many requests of one token are answered at a time (GitHub: REST API rate limits).
const CONCURRENT: usize = 100;
/// The length of GitHub's secondary windows, which slide.
const MINUTE: TimeDelta = TimeDelta::seconds(60);
/// For so long after a limit that a fault has made, calls may come that were sent before its answer arrived.
const UNDER_WAY: TimeDelta = TimeDelta::seconds(5);

/// Whether GitHub takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is taken.
    Allowed,
    /// The requests of the hour are used up.
    Primary,
    /// Too many points or writes in a minute, or requests at a time; also while an earlier `retry-after` runs.
    Secondary {
        /// Seconds to wait.
        retry_after: u32,
    },
    /// A limit that a fault has made still runs.
    Injected {
        /// Its form.
        form: LimitForm,
        /// Seconds to wait.
        wait: u32,
        /// Whether the call may have been sent before the limit was known.
        is_under_way: bool,
    },
}

/// How a limit that a fault has made is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitForm {
    /// 403 or 429.
    pub(super) status: u16,
    pub(super) kind: LimitKind,
    pub(super) says: Says,
}

/// What a limit says of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Nothing,
    /// The one thing that GitHub says: a primary limit its reset, a secondary one `retry-after`.
    When,
    /// A reset and `retry-after`.
    Both,
}

/// A limit that runs.
#[derive(Debug, Clone, Copy)]
struct Hold {
    began: DateTime<Utc>,
    until: DateTime<Utc>,
    /// None where it is GitHub's own.
    form: Option<LimitForm>,
}

/// What GitHub's rate-limit headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) limit: u32,
    pub(super) used: u32,
    pub(super) reset: DateTime<Utc>,
}

impl Quota {
    pub(super) fn remaining(self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// GitHub's accounts of one token.
#[derive(Debug)]
pub(super) struct GithubLimiter {
    window: DateTime<Utc>,
    used: u32,
    points: VecDeque<(DateTime<Utc>, u32)>,
    points_sum: u32,
    writes: VecDeque<DateTime<Utc>>,
    /// When requests that are being answered will have been.
    answered_at: Vec<DateTime<Utc>>,
    hold: Option<Hold>,
    /// How many repositories the quota grows by.
    pub(super) repos_beyond: u32,
}

impl GithubLimiter {
    /// Accounts of which the first window is as the profile says.
    pub(super) fn new(now: DateTime<Utc>, profile: &Profile) -> Self {
        Self {
            window: now + seconds(profile.github_first_hour_secs) - HOUR,
            used: profile.github_used_before,
            points: VecDeque::new(),
            points_sum: 0,
            writes: VecDeque::new(),
            answered_at: Vec::new(),
            hold: None,
            repos_beyond: 0,
        }
    }

    /// Requests per hour.
    pub(super) fn limit(&self, profile: &Profile) -> u32 {
        let base = profile.github_requests_per_hour;
        let grown = base.saturating_add(self.repos_beyond.saturating_mul(profile.github_requests_per_repo));
        grown.min(base.max(GROWN))
    }

    fn slide(&mut self, now: DateTime<Utc>) {
        while now - self.window >= HOUR {
            self.window += HOUR;
            self.used = 0;
        }
        while self.points.front().is_some_and(|(at, _)| now - *at >= MINUTE) {
            let (_, points) = self.points.pop_front().expect("the front was just seen");
            self.points_sum -= points;
        }
        while self.writes.front().is_some_and(|at| now - *at >= MINUTE) {
            self.writes.pop_front();
        }
        self.answered_at.retain(|at| *at > now);
    }

    /// Takes or refuses a request of `points`; a request of more than one point is a write. A refused
    /// request costs nothing more, but the hold of its refusal goes on.
    pub(super) fn admit(&mut self, points: u32, now: DateTime<Utc>, profile: &Profile) -> Verdict {
        self.slide(now);
        let hold = self.hold.filter(|hold| hold.until > now);
        let wait = hold.map_or(0, |hold| u32::try_from((hold.until - now).num_seconds()).unwrap_or(u32::MAX));
        let wait = wait.saturating_add(1);
        if let Some((began, form)) = hold.and_then(|hold| Some((hold.began, hold.form?))) {
            return Verdict::Injected { form, wait, is_under_way: now - began <= UNDER_WAY };
        }
        if self.used >= self.limit(profile) {
            return Verdict::Primary;
        }
        if hold.is_some() {
            return Verdict::Secondary { retry_after: wait };
        }
        let is_write = points > 1;
        let writes = u32::try_from(self.writes.len()).unwrap_or(u32::MAX);
        let is_over = self.points_sum + points > profile.github_points_per_minute
            || (is_write && writes >= profile.github_mutations_per_minute)
            || self.answered_at.len() >= CONCURRENT;
        if is_over {
            return self.hold(profile.github_retry_after_secs, now);
        }
        self.points.push_back((now, points));
        self.points_sum += points;
        if is_write {
            self.writes.push_back(now);
        }
        Verdict::Allowed
    }

    fn hold(&mut self, secs: u32, now: DateTime<Utc>) -> Verdict {
        self.hold = Some(Hold { began: now, until: now + TimeDelta::seconds(i64::from(secs)), form: None });
        Verdict::Secondary { retry_after: secs }
    }

    /// Refuses everything for a while, as a fault wants it; `None` is the end of the hour. Gives the seconds to
    /// wait.
    pub(super) fn hold_by_fault(&mut self, secs: Option<f64>, form: LimitForm, now: DateTime<Utc>) -> u32 {
        self.slide(now);
        let until = secs.map_or(self.window + HOUR, |secs| now + seconds(secs.ceil()));
        if form.kind == LimitKind::Primary && form.says != Says::Nothing {
            // The headers of all answers follow from the account.
            self.window = until - HOUR;
            self.used = u32::MAX;
        }
        self.hold = Some(Hold { began: now, until, form: Some(form) });
        u32::try_from((until - now).num_seconds()).unwrap_or_default()
    }

    /// Notes when a request that was taken will have been answered.
    pub(super) fn is_answered_at(&mut self, at: DateTime<Utc>) {
        self.answered_at.push(at);
    }

    /// Charges the primary account; a 304 is not charged.
    pub(super) fn charge(&mut self) {
        self.used = self.used.saturating_add(1);
    }

    /// What the headers say.
    pub(super) fn quota(&mut self, now: DateTime<Utc>, profile: &Profile) -> Quota {
        self.slide(now);
        let limit = self.limit(profile);
        Quota { limit, used: self.used.min(limit), reset: self.window + HOUR }
    }
}

/// Modal's bucket of sandbox creations.
#[derive(Debug)]
pub(super) struct CreateLimiter {
    tokens: f64,
    at: DateTime<Utc>,
}

impl CreateLimiter {
    pub(super) fn new(now: DateTime<Utc>, profile: &Profile) -> Self {
        Self { tokens: f64::from(profile.modal_create_burst), at: now }
    }

    /// Takes one creation, or says how long to wait.
    pub(super) fn admit(&mut self, now: DateTime<Utc>, profile: &Profile) -> Result<(), TimeDelta> {
        let elapsed = (now - self.at).as_seconds_f64().max(0.0);
        self.at = self.at.max(now);
        self.tokens =
            (self.tokens + elapsed * profile.modal_creates_per_second).min(f64::from(profile.modal_create_burst));
        // A refill that is exact on paper may fall short by a rounding error.
        if self.tokens >= 1.0 - 1e-6 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(seconds((1.0 - self.tokens) / profile.modal_creates_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(secs)
    }

    fn profile() -> Profile {
        Profile {
            github_requests_per_hour: 20,
            github_points_per_minute: 12,
            github_mutations_per_minute: 2,
            ..Profile::calm()
        }
    }

    #[test]
    fn points_are_counted_in_a_minute_that_slides() {
        let profile = profile();
        let mut limiter = GithubLimiter::new(at(0), &profile);
        for second in 0..12 {
            assert_eq!(limiter.admit(1, at(second), &profile), Verdict::Allowed);
        }
        assert_eq!(limiter.admit(1, at(59), &profile), Verdict::Secondary { retry_after: 60 });
        assert_eq!(limiter.admit(1, at(61), &profile), Verdict::Secondary { retry_after: 59 });
        assert_eq!(limiter.admit(1, at(119), &profile), Verdict::Allowed);
    }

    #[test]
    fn writes_have_a_limit_of_their_own() {
        let profile = profile();
        let mut limiter = GithubLimiter::new(at(0), &profile);
        assert_eq!(limiter.admit(5, at(0), &profile), Verdict::Allowed);
        assert_eq!(limiter.admit(5, at(1), &profile), Verdict::Allowed);
        assert_eq!(limiter.admit(5, at(2), &profile), Verdict::Secondary { retry_after: 60 });
    }

    #[test]
    fn a_hundred_requests_are_answered_at_a_time() {
        let profile = Profile { github_points_per_minute: 1_000, ..Profile::calm() };
        let mut limiter = GithubLimiter::new(at(0), &profile);
        for _ in 0..CONCURRENT {
            assert_eq!(limiter.admit(1, at(0), &profile), Verdict::Allowed);
            limiter.is_answered_at(at(1));
        }
        assert_eq!(limiter.admit(1, at(0), &profile), Verdict::Secondary { retry_after: 60 });
        assert_eq!(limiter.admit(1, at(61), &profile), Verdict::Allowed);
    }

    #[test]
    fn a_quota_grows_with_repositories_up_to_its_bound() {
        let profile = Profile::calm();
        let limit = |repos_beyond| {
            let mut limiter = GithubLimiter { repos_beyond, ..GithubLimiter::new(at(0), &profile) };
            limiter.quota(at(0), &profile).limit
        };
        assert_eq!([0, 1, 80, 150, 10_000].map(limit), [5_000, 5_050, 9_000, 12_500, 12_500]);
    }

    #[test]
    fn the_hour_is_a_fixed_window() {
        let profile = profile();
        let mut limiter = GithubLimiter::new(at(0), &profile);
        for _ in 0..20 {
            limiter.charge();
        }
        assert_eq!(limiter.admit(1, at(3_599), &profile), Verdict::Primary);
        assert_eq!(limiter.quota(at(3_599), &profile), Quota { limit: 20, used: 20, reset: at(3_600) });
        assert_eq!(limiter.admit(1, at(3_600), &profile), Verdict::Allowed);
        assert_eq!(limiter.quota(at(3_600), &profile).remaining(), 20);
    }

    #[test]
    fn somebody_else_may_have_used_most_of_the_first_hour() {
        let profile = Profile { github_used_before: 18, github_first_hour_secs: 600.0, ..profile() };
        let mut limiter = GithubLimiter::new(at(0), &profile);
        for _ in 0..2 {
            assert_eq!(limiter.admit(1, at(1), &profile), Verdict::Allowed);
            limiter.charge();
        }
        assert_eq!(limiter.admit(1, at(599), &profile), Verdict::Primary);
        assert_eq!(limiter.quota(at(599), &profile), Quota { limit: 20, used: 20, reset: at(600) });
        assert_eq!(limiter.quota(at(600), &profile), Quota { limit: 20, used: 0, reset: at(4_200) });
    }

    #[test]
    fn creations_come_in_a_burst_and_then_at_their_rate() {
        let profile = Profile { modal_create_burst: 3, modal_creates_per_second: 2.0, ..Profile::calm() };
        let mut limiter = CreateLimiter::new(at(0), &profile);
        for _ in 0..3 {
            assert_eq!(limiter.admit(at(0), &profile), Ok(()));
        }
        assert_eq!(limiter.admit(at(0), &profile), Err(TimeDelta::milliseconds(500)));
        assert_eq!(limiter.admit(at(1), &profile), Ok(()));
        assert_eq!(limiter.admit(at(1), &profile), Ok(()));
        assert!(limiter.admit(at(1), &profile).is_err());
    }
}
