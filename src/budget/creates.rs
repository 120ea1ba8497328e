//! The creates that Modal takes.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{delta, seconds};

/// The creates that Modal takes: a rate with a burst (default 5/s, 150).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_follow_their_rate_and_burst() {
        let mut creates = CreateBudget::new(5.0, 20);
        let mut started = 0;
        for tick in 0..=100 {
            let now = DateTime::UNIX_EPOCH + delta(Duration::from_millis(tick * 100));
            while creates.admitted(now) > 0 {
                creates.take(now);
                started += 1;
            }
        }
        assert_eq!(started, 70, "the burst of 20 and 5 a second over 10 s");
    }
}
