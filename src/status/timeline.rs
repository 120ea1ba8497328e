//! How the last hours went (pure): queue depth, sandboxes and pick-up times, a point for each two minutes.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

/// What a point stands for.
const POINT: TimeDelta = TimeDelta::minutes(2);
/// Six hours of them.
const POINTS_MAX: usize = 180;

/// Two minutes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// When they began.
    pub at: DateTime<Utc>,
    /// The most jobs that were queued at a time.
    pub queued: u32,
    /// The most sandboxes that lived at a time.
    pub sandboxes: u32,
    /// The longest time from queued to started, in seconds, of the jobs that started; none where none did.
    pub pickup_seconds: Option<f64>,
}

/// The last hours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline(VecDeque<Point>);

impl Timeline {
    /// Notes how it stands.
    pub fn note(&mut self, queued: u32, sandboxes: u32, now: DateTime<Utc>) {
        let is_current = |point: &&mut Point| now - point.at < POINT && now >= point.at;
        if let Some(point) = self.0.back_mut().filter(is_current) {
            point.queued = point.queued.max(queued);
            point.sandboxes = point.sandboxes.max(sandboxes);
            return;
        }
        self.0.push_back(Point { at: now, queued, sandboxes, pickup_seconds: None });
        while self.0.len() > POINTS_MAX {
            self.0.pop_front();
        }
    }

    /// Notes a job that started so many seconds after it was queued.
    pub fn note_pickup(&mut self, seconds: f64) {
        if let Some(point) = self.0.back_mut() {
            point.pickup_seconds = Some(point.pickup_seconds.unwrap_or(0.0).max(seconds));
        }
    }

    /// The points, oldest first.
    pub fn points(&self) -> Vec<Point> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_most_of_two_minutes_and_hours_are_kept() {
        let mut timeline = Timeline::default();
        let at = |secs: i64| DateTime::UNIX_EPOCH + TimeDelta::seconds(secs);
        timeline.note_pickup(1.0);
        timeline.note(3, 1, at(0));
        timeline.note(1, 2, at(119));
        for seconds in [7.0, 5.0] {
            timeline.note_pickup(seconds);
        }
        timeline.note(0, 0, at(120));
        let point = |secs, queued, sandboxes, pickup_seconds| Point { at: at(secs), queued, sandboxes, pickup_seconds };
        assert_eq!(timeline.points(), [point(0, 3, 2, Some(7.0)), point(120, 0, 0, None)]);
        for minutes in 4..2_000 {
            timeline.note(0, 0, at(minutes * 60));
        }
        assert_eq!(timeline.points().len(), POINTS_MAX);
        assert!(timeline.points()[0].at > at(120));
    }
}
