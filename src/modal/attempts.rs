//! When a call is repeated and when it is given up (`modal-api.md` §4): pure, asks no clock.
//!
//! Only the quick repetitions of the official clients live here; the slow ones lie across passes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use uuid::Uuid;

use super::error::{Refusal, Replies};
use crate::error::ErrorClass;

/// How often a call is repeated after transient errors.
pub(super) const RETRIES_MAX: u32 = 3;

/// The wait before the first repetition; doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest wait between two repetitions.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// The shortest time worth giving to an attempt: less is a deadline that passed, up to a timer's rounding.
const ATTEMPT_MIN: Duration = Duration::from_millis(50);

/// How long and how often one call is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The deadline of one attempt.
    pub(super) per_attempt: Duration,
    /// The deadline of all attempts together, waits that Modal asked for not counted.
    pub(super) in_all: Duration,
    /// How often it is repeated after transient errors.
    pub(super) retries: u32,
    /// How long after its begin the call may still wait because Modal asked for it.
    pub(super) throttle_wait: Duration,
}

/// The attempts of one logical call.
#[derive(Debug)]
pub(super) struct Attempts {
    patience: Patience,
    key: MetadataValue<Ascii>,
    began: DateTime<Utc>,
    transient: u32,
    throttled: u32,
    waited_for_modal: Duration,
    replies: Replies,
}

impl Attempts {
    pub(super) fn new(patience: Patience, now: DateTime<Utc>) -> Self {
        let key = Uuid::new_v4().to_string().try_into().expect("a UUID is ASCII");
        Self {
            patience,
            key,
            began: now,
            transient: 0,
            throttled: 0,
            waited_for_modal: Duration::ZERO,
            replies: Replies::All,
        }
    }

    /// The deadline of the attempt that starts now.
    pub(super) fn limit(&self, now: DateTime<Utc>) -> Duration {
        self.patience.per_attempt.min(self.left(now)).max(ATTEMPT_MIN)
    }

    /// Whether an attempt ended so that it may have had its effect.
    pub(super) fn replies(&self) -> Replies {
        self.replies
    }

    /// Adds the headers by which Modal recognizes repetitions.
    pub(super) fn describe(&self, metadata: &mut MetadataMap, now: DateTime<Utc>) {
        metadata.insert("x-idempotency-key", self.key.clone());
        metadata.insert("x-retry-attempt", self.transient.into());
        metadata.insert("x-throttle-retry-attempt", self.throttled.into());
        let delay: MetadataValue<Ascii> =
            format!("{:.3}", self.elapsed(now).as_secs_f64()).try_into().expect("a number is ASCII");
        if self.throttled > 0 {
            metadata.insert("x-throttle-retry-delay", delay.clone());
        }
        if self.transient + self.throttled > 0 {
            metadata.insert("x-retry-delay", delay);
        }
    }

    /// How long to wait before the next attempt; none if the call is to be given up.
    pub(super) fn after(&mut self, refusal: &Refusal, now: DateTime<Utc>) -> Option<Duration> {
        if refusal.class() == ErrorClass::Unavailable {
            self.replies = Replies::SomeLost;
        }
        if let Some(delay) = refusal.retry_after() {
            // Whatever the code says: Modal directs this repetition.
            if self.elapsed(now).saturating_add(delay) >= self.patience.throttle_wait {
                return None;
            }
            self.throttled += 1;
            self.waited_for_modal += delay;
            return Some(delay);
        }
        if !refusal.is_transient() || self.transient >= self.patience.retries {
            return None;
        }
        let delay = (FIRST_DELAY * 2_u32.saturating_pow(self.transient)).min(DELAY_MAX);
        if self.left(now) < delay + ATTEMPT_MIN {
            return None;
        }
        self.transient += 1;
        Some(delay)
    }

    fn left(&self, now: DateTime<Utc>) -> Duration {
        self.patience.in_all.saturating_sub(self.elapsed(now).saturating_sub(self.waited_for_modal))
    }

    /// In whole milliseconds, which is how deadlines are printed.
    fn elapsed(&self, now: DateTime<Utc>) -> Duration {
        let millis = (now - self.began).num_milliseconds();
        Duration::from_millis(millis.try_into().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tonic::{Code, Status};

    use super::super::api;
    use super::super::operation::Operation;
    use super::*;

    const PATIENCE: Patience = Patience {
        per_attempt: Duration::from_secs(30),
        in_all: Duration::from_secs(30),
        retries: RETRIES_MAX,
        throttle_wait: Duration::from_secs(30),
    };

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    fn refused(code: Code) -> Refusal {
        Refusal::new(Operation::CREATE_V2, &Status::new(code, "no"), [])
    }

    fn throttled(secs: f32) -> Refusal {
        let policy = api::RpcRetryPolicy { retry_after_secs: secs }.encode_to_vec();
        let detail = prost_types::Any { type_url: "x/modal.client.RPCRetryPolicy".to_owned(), value: policy };
        let details = api::RpcStatus { details: vec![detail], ..Default::default() }.encode_to_vec();
        let status = Status::with_details(Code::ResourceExhausted, "slow down", details.into());
        Refusal::new(Operation::CREATE_V2, &status, [])
    }

    #[test]
    fn transient_errors_are_retried_three_times_at_once() {
        let mut attempts = Attempts::new(PATIENCE, at(0));
        let waits: Vec<_> = (0..4).map(|_| attempts.after(&refused(Code::Unavailable), at(0))).collect();
        let millis = |n| Some(Duration::from_millis(n));
        assert_eq!(waits, [millis(100), millis(200), millis(400), None]);
        assert_eq!(attempts.replies(), Replies::SomeLost);
    }

    #[test]
    fn an_answer_of_modals_is_final() {
        for code in [Code::ResourceExhausted, Code::AlreadyExists, Code::InvalidArgument, Code::PermissionDenied] {
            let mut attempts = Attempts::new(PATIENCE, at(0));
            assert_eq!(attempts.after(&refused(code), at(0)), None, "{code:?}");
            assert_eq!(attempts.replies(), Replies::All, "{code:?}");
        }
    }

    #[test]
    fn modal_directs_repetitions_without_number_but_not_without_end() {
        let mut attempts = Attempts::new(PATIENCE, at(0));
        for n in 0..14 {
            assert_eq!(attempts.after(&throttled(2.0), at(n * 2000)), Some(Duration::from_secs(2)), "{n}");
        }
        assert_eq!(attempts.after(&throttled(2.0), at(28_000)), None, "28 s + 2 s reaches the limit");
        let mut off = Attempts::new(Patience { throttle_wait: Duration::ZERO, ..PATIENCE }, at(0));
        assert_eq!(off.after(&throttled(0.1), at(0)), None);
    }

    #[test]
    fn a_passed_deadline_is_not_tried_again() {
        let mut attempts = Attempts::new(PATIENCE, at(0));
        assert_eq!(attempts.after(&refused(Code::DeadlineExceeded), at(30_000)), None);
        let mut attempts = Attempts::new(PATIENCE, at(0));
        assert_eq!(attempts.limit(at(0)), Duration::from_secs(30));
        assert!(attempts.after(&refused(Code::Unavailable), at(20_000)).is_some());
        assert_eq!(attempts.limit(at(20_100)), Duration::from_millis(9_900));
    }

    #[test]
    fn waits_that_modal_asked_for_do_not_shorten_the_attempts() {
        let mut attempts = Attempts::new(PATIENCE, at(0));
        attempts.after(&throttled(25.0), at(0)).unwrap();
        assert_eq!(attempts.limit(at(25_000)), Duration::from_secs(30));
    }

    #[test]
    fn the_headers_keep_the_key_and_count_both_kinds() {
        let mut attempts = Attempts::new(PATIENCE, at(0));
        let headers = |attempts: &Attempts, now| {
            let mut metadata = MetadataMap::new();
            attempts.describe(&mut metadata, at(now));
            metadata
        };
        let first = headers(&attempts, 0);
        assert_eq!(first.get("x-retry-attempt").unwrap(), "0");
        assert!(first.get("x-retry-delay").is_none() && first.get("x-throttle-retry-delay").is_none());
        attempts.after(&refused(Code::Internal), at(0)).unwrap();
        let second = headers(&attempts, 100);
        assert_eq!(second.get("x-retry-attempt").unwrap(), "1");
        assert_eq!(second.get("x-retry-delay").unwrap(), "0.100");
        assert_eq!(second.get("x-idempotency-key"), first.get("x-idempotency-key"));
        attempts.after(&throttled(1.5), at(100)).unwrap();
        let third = headers(&attempts, 1600);
        assert_eq!(third.get("x-throttle-retry-attempt").unwrap(), "1");
        assert_eq!(third.get("x-throttle-retry-delay").unwrap(), "1.600");
    }
}
