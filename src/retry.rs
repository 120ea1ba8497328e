//! When to try again: the one user of the crate `backoff`, taken as a pure source of delays.
//!
//! Retries live across passes. A delay that the service asked for wins over a computed one.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

use crate::error::{CallFailure, ErrorClass};

/// After this many failures in a row the delay no longer grows.
const STEPS_MAX: u32 = 16;

/// How the delays of one kind of work grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The first delay.
    pub first: Duration,
    /// The longest delay.
    pub longest: Duration,
}

/// Reads that failed for reasons that pass by themselves.
pub const READ: Growth = Growth { first: Duration::from_secs(2), longest: Duration::from_secs(60) };
/// Reads that failed for reasons that a person must remove.
pub const REFUSED: Growth = Growth { first: Duration::from_secs(60), longest: Duration::from_secs(15 * 60) };
/// Further attempts for a job whose runners did not start, after the attempt limit.
pub const PROBE: Growth = Growth { first: Duration::from_secs(60), longest: Duration::from_secs(60 * 60) };
/// Builds of an image.
pub const IMAGE: Growth = Growth { first: Duration::from_secs(30), longest: Duration::from_secs(30 * 60) };

/// The longest wait that a service's word is taken for.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The delay after `failures` failures in a row; none after zero. It doubles from the first to the longest.
pub fn delay(growth: Growth, failures: u32) -> Duration {
    // Without jitter: the callers' times differ by themselves, and a pass must be repeatable.
    let mut delays = ExponentialBackoff {
        current_interval: growth.first,
        initial_interval: growth.first,
        randomization_factor: 0.0,
        multiplier: 2.0,
        max_interval: growth.longest,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    let mut delay = Duration::ZERO;
    for _ in 0..failures.min(STEPS_MAX) {
        delay = delays.next_backoff().unwrap_or(growth.longest);
    }
    // Also with a factor of zero the crate adds a random part of a nanosecond, which rounds up at times.
    Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

/// How the delays grow before a read is repeated that failed for such a reason.
pub fn read_growth(class: ErrorClass) -> Growth {
    match class {
        ErrorClass::Unauthorized
        | ErrorClass::Forbidden
        | ErrorClass::Policy
        | ErrorClass::NotFound
        | ErrorClass::Invalid => REFUSED,
        ErrorClass::Conflict
        | ErrorClass::RateLimited
        | ErrorClass::Unavailable
        | ErrorClass::Unreadable
        | ErrorClass::Unsent => READ,
    }
}

/// The delay before a read is repeated after `failure`, the `failures`-th of its kind in a row.
pub fn read_again(failure: &CallFailure, failures: u32) -> Duration {
    let growth = read_growth(failure.class);
    let computed = delay(growth, failures);
    failure.retry_after.map_or(computed, |asked| asked.clamp(growth.first, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let seconds: Vec<u64> = (0..8).map(|failures| delay(PROBE, failures).as_secs()).collect();
        assert_eq!(seconds, [0, 60, 120, 240, 480, 960, 1920, 3600]);
        assert_eq!(delay(PROBE, u32::MAX), PROBE.longest);
    }

    #[test]
    fn a_delay_is_the_same_each_time() {
        let day = Growth { first: Duration::from_secs(3_600), longest: Duration::from_secs(24 * 3_600) };
        assert!((0..20_000).all(|_| delay(day, 9) == day.longest));
    }

    #[test]
    fn a_failure_of_another_kind_begins_anew() {
        let failure = |class| CallFailure { class, message: "no".into(), retry_after: None };
        let mut read = crate::state::ReadState::default();
        let counts = [ErrorClass::Unavailable, ErrorClass::RateLimited, ErrorClass::Policy, ErrorClass::Forbidden];
        let counted = counts.map(|class| {
            read.failed(chrono::DateTime::UNIX_EPOCH, failure(class));
            read.failures
        });
        assert_eq!(counted, [1, 2, 1, 2]);
    }

    #[test]
    fn what_is_answered_beside_it_ends_the_pause_after_refusals_alone() {
        let counted = |class| {
            let mut read = crate::state::ReadState::default();
            let failure = CallFailure { class, message: "no".into(), retry_after: None };
            (0..5).for_each(|_| read.failed(chrono::DateTime::UNIX_EPOCH, failure.clone()));
            read.resume();
            read.failures
        };
        assert_eq!([ErrorClass::Policy, ErrorClass::Unavailable].map(counted), [1, 5]);
    }

    #[test]
    fn what_the_service_asks_for_wins() {
        let failure = CallFailure {
            class: ErrorClass::RateLimited,
            message: "slow down".into(),
            retry_after: Some(Duration::from_secs(700)),
        };
        assert_eq!(read_again(&failure, 1), Duration::from_secs(700));
        let absurd = CallFailure { retry_after: Some(Duration::MAX), ..failure };
        assert_eq!(read_again(&absurd, 1), LONGEST);
    }
}
