//! What GitHub's headers say about its limits and its clock, and about the end of a token (pure).
//!
//! Waits are measured against the `Date` of the answer, GitHub's own clock, and only then put on ours: a
//! machine whose clock is wrong waits as long as one whose clock is right.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use crate::budget::RateHeaders;

/// GitHub's longest window is an hour. A header that asks for more is broken, and asking again once an
/// hour harms nobody.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The two kinds of limit that an answer can report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// Too much in a short time; how long to wait, where GitHub says it.
    Secondary(Option<Duration>),
    /// The quota of the hour is used up, for so long.
    Primary(Duration),
}

impl Limit {
    /// Tells a rate limit from the other meanings of 403 (GitHub: REST API rate limits, "exceeding the rate limit").
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, message: &str, now: DateTime<Utc>) -> Option<Self> {
        if !matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
            return None;
        }
        if headers.contains_key(RETRY_AFTER) {
            return Some(Self::Secondary(retry_after(headers)));
        }
        if number(headers, "x-ratelimit-remaining") == Some(0) {
            // Without a usable reset the wait is that of a secondary limit, which grows.
            return Some(until_reset(headers, now).map_or(Self::Secondary(None), Self::Primary));
        }
        // The words alone tell a limit of either kind from a missing permission where something on the way has
        // dropped the headers.
        let text = message.to_lowercase();
        let is_limit =
            status == StatusCode::TOO_MANY_REQUESTS || text.contains("rate limit") || text.contains("abuse detection");
        is_limit.then_some(Self::Secondary(None))
    }

    /// How long GitHub asks to wait, where it says so.
    pub(super) fn wait(self) -> Option<Duration> {
        match self {
            Self::Secondary(wait) => wait,
            Self::Primary(wait) => Some(wait),
        }
    }
}

/// `Retry-After` in seconds; GitHub does not use its other form, a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = u64::try_from(number(headers, "retry-after")?).ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// The primary quota after this answer, its reset put on our clock; none where GitHub states none.
pub fn quota(headers: &HeaderMap, now: DateTime<Utc>) -> Option<RateHeaders> {
    let count = |name| number(headers, name).and_then(|count| u32::try_from(count).ok());
    let resource = headers.get("x-ratelimit-resource").and_then(|value| value.to_str().ok());
    Some(RateHeaders {
        resource: resource.unwrap_or("core").to_owned(),
        limit: count("x-ratelimit-limit")?,
        remaining: count("x-ratelimit-remaining")?,
        reset: now + TimeDelta::from_std(until_reset(headers, now)?).ok()?,
    })
}

/// How long the window of the primary quota lasts by GitHub's clock; by ours where the answer has no date.
fn until_reset(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let reset = DateTime::from_timestamp(number(headers, "x-ratelimit-reset")?, 0)?;
    let asked = date(headers).unwrap_or(now);
    Some((reset - asked).to_std().unwrap_or_default().min(LONGEST_WAIT))
}

/// When GitHub sent the answer, by its own clock.
pub(super) fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let date = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(date.to_utc())
}

/// When a personal token ends, put on our clock; none where it has no end, or GitHub does not say.
///
/// GitHub names the header in its changelog of 2021-07-26. It writes `2026-12-01 10:00:00 UTC`, and for some tokens
/// `2026-12-01 10:00:00 +0100`, as clients of others found (google/go-github#2649).
pub(super) fn token_end(headers: &HeaderMap, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let text = headers.get("github-authentication-token-expiration")?.to_str().ok()?.trim();
    let ends = match text.strip_suffix(" UTC") {
        Some(time) => NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").ok()?.and_utc(),
        None => DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S %z").ok()?.to_utc(),
    };
    Some(now + (ends - date(headers).unwrap_or(now)))
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn limit(status: u16, pairs: &[(&'static str, &'static str)], message: &str) -> Option<Limit> {
        Limit::of(StatusCode::from_u16(status).unwrap(), &headers(pairs), message, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_signals_of_a_limit_are_read_in_githubs_order() {
        let exhausted =
            [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "100"), ("date", "Thu, 01 Jan 1970 00:01:00 GMT")];
        assert_eq!(limit(403, &exhausted, ""), Some(Limit::Primary(Duration::from_secs(40))));
        let both = [exhausted[0], exhausted[1], ("retry-after", "7")];
        assert_eq!(limit(429, &both, ""), Some(Limit::Secondary(Some(Duration::from_secs(7)))));
        let left = [("x-ratelimit-remaining", "4000")];
        assert_eq!(limit(403, &left, "You have exceeded a secondary rate limit."), Some(Limit::Secondary(None)));
        assert_eq!(limit(403, &[], "You have triggered an abuse detection mechanism."), Some(Limit::Secondary(None)));
        assert_eq!(limit(429, &left, ""), Some(Limit::Secondary(None)));
        assert_eq!(limit(403, &[], "API rate limit exceeded for user ID 1."), Some(Limit::Secondary(None)));
        assert_eq!(limit(403, &left, "Resource not accessible by integration"), None);
        assert_eq!(limit(500, &both, ""), None);
    }

    #[test]
    fn absurd_waits_are_bounded() {
        let hour = Duration::from_secs(3600);
        assert_eq!(limit(403, &[("retry-after", "9223372036854775807")], ""), Some(Limit::Secondary(Some(hour))));
        assert_eq!(limit(403, &[("retry-after", "soon")], ""), Some(Limit::Secondary(None)));
        let far = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99999999999")];
        assert_eq!(limit(403, &far, ""), Some(Limit::Primary(hour)));
        assert_eq!(limit(403, &[("x-ratelimit-remaining", "0")], ""), Some(Limit::Secondary(None)));
    }

    #[test]
    fn the_reset_of_the_quota_is_put_on_our_clock() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let stated = headers(&[
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "4999"),
            ("x-ratelimit-reset", "100"),
            ("x-ratelimit-resource", "actions_runner_registration"),
            ("date", "Thu, 01 Jan 1970 00:01:00 GMT"),
        ]);
        let quota = quota(&stated, now).unwrap();
        assert_eq!((quota.limit, quota.remaining, quota.reset - now), (5_000, 4_999, TimeDelta::seconds(40)));
        assert_eq!(quota.resource, "actions_runner_registration");
        assert_eq!(super::quota(&headers(&[("x-ratelimit-limit", "5000")]), now), None);
    }
    #[test]
    fn the_end_of_a_token_is_read_in_both_its_forms_and_put_on_our_clock() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let end = |text: &'static str| {
            let date = ("date", "Thu, 01 Jan 1970 00:01:00 GMT");
            token_end(&headers(&[("github-authentication-token-expiration", text), date]), now).map(|end| end - now)
        };
        assert_eq!(end("1970-01-02 00:01:00 UTC"), Some(TimeDelta::days(1)));
        assert_eq!(end("1970-01-02 02:01:00 +0200"), Some(TimeDelta::days(1)));
        assert_eq!((end("never"), end(""), end("2026-13-01 00:00:00 UTC")), (None, None, None));
        assert_eq!(token_end(&HeaderMap::new(), now), None);
    }
}
