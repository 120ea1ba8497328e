//! The one source of time.
//!
//! Everything that waits or asks for the time goes through a [`Clock`], so that the demo can run faster
//! than real time and tests can run under tokio's paused clock. It follows the monotonic clock: the machine's
//! wall clock is read once, at the start, and a jump of it changes nothing here.
//!
//! That one reading may have been wrong, and a machine that was suspended falls behind. So what a service
//! says of its own times is never compared with [`Clock::now`] alone: [`Clock::skew`] tells how far the
//! services are ahead, learned from the dates of their answers.

mod skew;

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use self::skew::Skew;

/// The smallest real time that a deadline of an exchange over a socket is shortened to by a fast clock.
///
/// Sockets work in real time, whatever the speed of the clock: at 60 times, 20 s would be a third of a
/// second, which a busy machine exceeds without any fault.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(5);

/// A clock that may run faster than real time and may be moved forward.
#[derive(Clone, Debug)]
pub struct Clock {
    epoch: DateTime<Utc>,
    start: Instant,
    speed: f64,
    advanced_ms: Arc<AtomicI64>,
    /// How far the clock of this machine is ahead of what all share.
    ahead_ms: Arc<AtomicI64>,
    skew: Arc<Mutex<Skew>>,
}

/// A deadline passed before the work was done.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {}", humantime::format_duration(*.limit))]
pub struct Elapsed {
    /// The deadline that passed.
    pub limit: Duration,
}

impl Clock {
    /// Starts a clock at the machine's time that runs in real time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's time")]
    pub fn system() -> Self {
        Self::scaled(Utc::now(), 1.0)
    }

    /// Starts a clock at `epoch` that runs `speed` times faster than real time.
    ///
    /// # Panics
    /// Where `speed` is not above zero.
    pub fn scaled(epoch: DateTime<Utc>, speed: f64) -> Self {
        assert!(speed > 0.0, "a clock must move forward");
        Self {
            epoch,
            start: Instant::now(),
            speed,
            advanced_ms: Arc::default(),
            ahead_ms: Arc::default(),
            skew: Arc::default(),
        }
    }

    /// The clock of a machine whose time is `ahead` of this one's. Both run at one speed and are moved forward
    /// together; what either learns of the services' time is its own.
    #[must_use]
    pub fn on_machine(&self, ahead: TimeDelta) -> Self {
        let ahead_ms = Arc::new(AtomicI64::new(ahead.num_milliseconds()));
        Self { ahead_ms, ..self.for_another_service() }
    }

    /// The same clock for a service whose time may differ from that of the others: what is learned of it is its own.
    #[must_use]
    pub fn for_another_service(&self) -> Self {
        Self { skew: Arc::default(), ..self.clone() }
    }

    /// Sets this machine's clock off by `by` against all others, for every holder of a clone: a machine that
    /// was suspended falls behind.
    pub fn shift(&self, by: TimeDelta) {
        self.ahead_ms.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
    }

    /// How many times faster than real time this clock runs.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        let elapsed = self.start.elapsed().mul_f64(self.speed);
        self.epoch
            + TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX)
            + TimeDelta::milliseconds(self.advanced_ms.load(Ordering::Relaxed))
            + TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// How far the services' time is ahead of [`Clock::now`], as far as it is known; zero at first.
    pub fn skew(&self) -> TimeDelta {
        self.lock_skew().believed()
    }

    /// Takes the date of a service's answer that came just now, to a request sent at `sent` by this clock.
    /// Returns the skew where that makes it a new one; within two seconds it stays as it is.
    pub fn learn_date(&self, date: DateTime<Utc>, sent: DateTime<Utc>) -> Option<TimeDelta> {
        let received = self.now();
        self.lock_skew().learn(date, sent, received)
    }

    fn lock_skew(&self) -> MutexGuard<'_, Skew> {
        // Two numbers, which a panic cannot leave half written.
        self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the clock forward at once, for every holder of a clone.
    pub fn advance(&self, by: Duration) {
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.advanced_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Waits for `duration` of this clock's time.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration.div_f64(self.speed)).await;
    }

    /// Waits until this clock shows `when`; returns at once where it already does.
    pub async fn sleep_until(&self, when: DateTime<Utc>) {
        if let Ok(left) = (when - self.now()).to_std() {
            self.sleep(left).await;
        }
    }

    /// Runs `work`, an exchange with another process, and gives up after `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] with the limit, when it passed first.
    pub async fn deadline<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        let real = limit.div_f64(self.speed).max(SHORTEST_DEADLINE.min(limit));
        tokio::time::timeout(real, work).await.map_err(|_| Elapsed { limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_one_service_says_nothing_of_another() {
        let clock = Clock::scaled(DateTime::UNIX_EPOCH + TimeDelta::days(1), 1.0);
        let other = clock.for_another_service();
        for _ in 0..2 {
            let now = clock.now();
            other.learn_date(now + TimeDelta::minutes(10), now);
        }
        assert_eq!((clock.skew().num_minutes(), other.skew().num_minutes()), (0, 10));
        clock.shift(TimeDelta::hours(-1));
        assert_eq!(clock.now(), other.now(), "they are one machine's");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_sleeps_less_real_time() {
        let clock = Clock::scaled(DateTime::UNIX_EPOCH, 60.0);
        let before = Instant::now();
        clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(before.elapsed().as_secs(), 1);
        assert!((clock.now() - DateTime::UNIX_EPOCH).num_seconds() >= 60);
    }

    #[tokio::test(start_paused = true)]
    async fn advancing_moves_every_clone() {
        let clock = Clock::scaled(DateTime::UNIX_EPOCH, 1.0);
        clock.clone().advance(Duration::from_secs(3600));
        assert_eq!((clock.now() - DateTime::UNIX_EPOCH).num_seconds(), 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn machines_differ_and_learn_of_the_services_on_their_own() {
        let services = Clock::scaled(DateTime::UNIX_EPOCH, 1.0);
        let machine = services.on_machine(TimeDelta::hours(1));
        services.advance(Duration::from_secs(60));
        assert_eq!(machine.now() - services.now(), TimeDelta::hours(1));
        machine.clone().shift(-TimeDelta::hours(3));
        assert_eq!(machine.now() - services.now(), -TimeDelta::hours(2));
        for _ in 0..2 {
            machine.learn_date(services.now(), machine.now());
        }
        assert!((machine.skew() - TimeDelta::hours(2)).abs() <= TimeDelta::seconds(1));
        assert_eq!(services.skew(), TimeDelta::zero());
    }
}
