//! How far the services' time is from ours (pure): told by the dates of their answers.

use chrono::{DateTime, TimeDelta, Utc};

/// A date names a whole second, so it may be this much older than its answer.
const DATE_STEP: TimeDelta = TimeDelta::seconds(1);
/// Differences up to this are left alone: servers differ among themselves, and nothing here is so exact.
const TOLERANCE: TimeDelta = TimeDelta::seconds(2);
/// An exchange that took longer says too little about when its answer was dated.
const LONGEST_EXCHANGE: TimeDelta = TimeDelta::seconds(10);

/// What is believed, and what one answer said otherwise.
#[derive(Debug, Default)]
pub(super) struct Skew {
    believed: TimeDelta,
    /// A single answer may carry a wrong date; two that agree are believed.
    claimed: Option<TimeDelta>,
}

impl Skew {
    /// How far the services are ahead of us.
    pub(super) fn believed(&self) -> TimeDelta {
        self.believed
    }

    /// Takes the date of an answer whose request was sent at `sent` and answered at `received`, by our clock.
    /// Returns the skew where it is a new one.
    pub(super) fn learn(
        &mut self,
        date: DateTime<Utc>,
        sent: DateTime<Utc>,
        received: DateTime<Utc>,
    ) -> Option<TimeDelta> {
        // It was dated between both moments, so its skew lies between both differences.
        let (least, most) = (date - received - TOLERANCE, date + DATE_STEP - sent + TOLERANCE);
        if (least..=most).contains(&self.believed) {
            self.claimed = None;
            return None;
        }
        if received - sent > LONGEST_EXCHANGE {
            return None;
        }
        let middle = sent + (received - sent) / 2;
        let measured = date + DATE_STEP / 2 - middle;
        if self.claimed.is_some_and(|claimed| (measured - claimed).abs() <= TOLERANCE) {
            *self = Self { believed: measured, claimed: None };
            return Some(measured);
        }
        self.claimed = Some(measured);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(secs)
    }

    const HOUR: i64 = 3_600;

    #[test]
    fn two_answers_that_agree_are_believed_and_one_is_not() {
        let mut skew = Skew::default();
        assert_eq!(skew.learn(at(HOUR), at(0), at(1)), None);
        assert_eq!(skew.believed(), TimeDelta::zero());
        let learned = skew.learn(at(HOUR + 5), at(5), at(6)).unwrap();
        assert_eq!((learned, learned), (skew.believed(), TimeDelta::seconds(HOUR)));
        // The same again is no news, and a single odd date changes nothing.
        assert_eq!(skew.learn(at(HOUR + 9), at(9), at(9)), None);
        assert_eq!(skew.learn(at(20), at(20), at(20)), None);
        assert_eq!(skew.learn(at(HOUR + 30), at(30), at(30)), None);
        assert_eq!(skew.learn(at(40), at(40), at(40)), None);
        assert_eq!(skew.believed(), TimeDelta::seconds(HOUR));
    }

    #[test]
    fn an_answer_that_was_long_under_way_says_nothing_else() {
        let mut skew = Skew::default();
        for _ in 0..5 {
            // Dated when it was sent off, received half a minute later.
            assert_eq!(skew.learn(at(100), at(100), at(130)), None);
            assert_eq!(skew.learn(at(HOUR), at(0), at(30)), None);
        }
        assert_eq!(skew.believed(), TimeDelta::zero());
    }

    #[test]
    fn a_clock_that_fell_behind_or_ran_ahead_by_a_day_is_noticed() {
        for days in [-1, 1] {
            let mut skew = Skew::default();
            let off = days * 24 * HOUR;
            assert!(skew.learn(at(off), at(0), at(0)).is_none() && skew.learn(at(off + 1), at(1), at(1)).is_some());
            assert!((skew.believed() - TimeDelta::days(days)).abs() <= TimeDelta::seconds(1));
        }
    }
}
