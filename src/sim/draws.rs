//! Chance that can be repeated: every draw comes from its own stream, found by purpose and key.
//!
//! Because no two decisions share a stream, what happens to one sandbox does not depend on how many
//! requests came before: the same seed gives the same boot times to the same creates.

use chrono::TimeDelta;

use super::profile::{Lognormal, Span};

/// What a stream of draws decides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Assignment = 1,
    Hosted = 2,
    Needs = 3,
    Boot = 4,
    Schedule = 5,
    Runner = 6,
    Removal = 7,
    LostJob = 8,
    Terminate = 9,
    GithubLag = 10,
    ModalLag = 11,
    Omission = 12,
    Identity = 13,
    Generate = 14,
    Fault = 15,
    FaultDraw = 16,
}

/// The seed of a World.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of one decision.
    pub(super) fn stream(self, purpose: Purpose, key: u64) -> Draw {
        let mixed = mix(self.0 ^ mix(purpose as u64 ^ mix(key)));
        Draw(fastrand::Rng::with_seed(mixed))
    }
}

/// The finalizer of splitmix64: neighbouring keys give unrelated streams.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One stream of draws.
#[derive(Debug)]
pub(super) struct Draw(fastrand::Rng);

impl Draw {
    /// Even in 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        self.0.f64()
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    /// One of `count` indices; `count` must not be 0.
    pub(super) fn index(&mut self, count: usize) -> usize {
        self.0.usize(..count)
    }

    /// Even between the bounds.
    pub(super) fn span(&mut self, span: Span) -> TimeDelta {
        seconds(span.min + self.share() * (span.max - span.min))
    }

    /// Mostly small, at most `max_secs`: the lag of a list.
    pub(super) fn lag(&mut self, max_secs: f64) -> TimeDelta {
        seconds(max_secs * self.share().powi(3))
    }

    /// From a lognormal distribution.
    pub(super) fn lognormal(&mut self, wanted: Lognormal) -> TimeDelta {
        seconds(self.lognormal_secs(wanted))
    }

    /// From a lognormal distribution, in seconds.
    pub(super) fn lognormal_secs(&mut self, wanted: Lognormal) -> f64 {
        let sigma = (wanted.p95_secs / wanted.median_secs).ln() / Z95;
        wanted.median_secs * (sigma * self.normal()).exp()
    }

    /// From the standard normal distribution (Box and Muller's method).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }

    /// A text of `length` characters of `alphabet`, which must be ASCII.
    pub(super) fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(alphabet[self.index(alphabet.len())])).collect()
    }
}

/// The 95th percentile of the standard normal distribution.
const Z95: f64 = 1.644_853_626_951_472_2;

/// A number of seconds, to the microsecond.
pub(super) fn seconds(secs: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range of i64 saturates")]
    TimeDelta::microseconds((secs * 1e6).round() as i64)
}

/// A time as seconds since the epoch, as Modal writes it.
pub(super) fn epoch_seconds(at: chrono::DateTime<chrono::Utc>) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit 53 bits")]
    let micros = at.timestamp_micros() as f64;
    micros / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_stream_gives_the_same_draws_and_others_do_not() {
        let first = |seed, key| Seed::new(seed).stream(Purpose::Boot, key).share();
        assert_eq!(first(1, 2).to_bits(), first(1, 2).to_bits());
        assert_ne!(first(1, 2).to_bits(), first(1, 3).to_bits());
        assert_ne!(first(1, 2).to_bits(), first(2, 2).to_bits());
    }

    #[test]
    fn boot_times_have_the_stated_median_and_p95() {
        let wanted = Lognormal { median_secs: 2.7, p95_secs: 11.8 };
        let mut draws: Vec<f64> =
            (0..10_000).map(|key| Seed::new(7).stream(Purpose::Boot, key).lognormal_secs(wanted)).collect();
        draws.sort_by(f64::total_cmp);
        assert!((draws[5_000] - 2.7).abs() < 0.15, "median {}", draws[5_000]);
        assert!((draws[9_500] - 11.8).abs() < 0.8, "p95 {}", draws[9_500]);
    }

    #[test]
    fn most_lists_are_fresh_and_none_is_later_than_the_bound() {
        let lags: Vec<f64> =
            (0..1_000).map(|key| Seed::new(7).stream(Purpose::GithubLag, key).lag(10.0).as_seconds_f64()).collect();
        assert!(lags.iter().all(|lag| (0.0..=10.0).contains(lag)));
        assert!(lags.iter().filter(|lag| **lag < 1.25).count() > 450);
        assert!(lags.iter().any(|lag| *lag > 8.0));
    }
}
