//! What sandboxes cost, and how much may be spent (pure).
//!
//! A sandbox costs the time that it ran, by the price of the machine that was asked for. Modal's list of ended
//! sandboxes is what counts: its times, its resources, its tags. An [`Entry`] is one ended sandbox in the cost file,
//! [`Ledger`] turns readings into entries and into what was spent today. Invariant: no client, no file and no clock is
//! here.
//!
//! It is an account of what was asked for: Modal bills what was used where that is more, and knows discounts.

mod entry;
mod ledger;
mod rates;
mod spend;
mod summary;

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use chrono::TimeDelta;
use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::entry::{Entry, Line, month};
pub use self::ledger::{Ledger, Reach};
pub use self::rates::{CPU_PRICE, GPU_PRICES, MEMORY_PRICE, Prices, Rates, Resources, Unrecognised, gpu_key};
pub use self::spend::{Known, Payer, Spend};
pub use self::summary::{By, Row, Summary};

/// An amount of US dollars, or of US dollars per hour; never negative, exact to 12 decimal places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(Decimal);

/// A text or a number that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of US dollars from 0 to 1000000000")]
pub struct InvalidUsd(String);

/// Places after the point that are kept: a second of the cheapest sandbox costs about 0.000005 USD.
const PLACES: u32 = 12;
/// More than anybody spends; below it nothing that is computed here overflows.
const MOST: i64 = 1_000_000_000;
const MICROS_PER_HOUR: i64 = 3_600_000_000;

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(Decimal::ZERO);

    fn new(amount: Decimal) -> Option<Self> {
        let is_one = !amount.is_sign_negative() && amount <= Decimal::from(MOST);
        (is_one || amount.is_zero())
            .then(|| Self(amount.round_dp_with_strategy(PLACES, RoundingStrategy::MidpointAwayFromZero).normalize()))
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The nearest binary number, for gauges and JSON.
    pub fn dollars(self) -> f64 {
        self.0.to_f64().unwrap_or_default()
    }

    /// What a price per hour comes to in `time`; nothing where that is negative.
    #[must_use]
    pub fn for_time(self, time: TimeDelta) -> Self {
        let micros = time.num_microseconds().unwrap_or(i64::MAX).max(0);
        self.times(Decimal::from(micros) / Decimal::from(MICROS_PER_HOUR))
    }

    /// The part of it that `part` is of `whole`; all where that is nothing.
    #[must_use]
    pub fn share(self, part: TimeDelta, whole: TimeDelta) -> Self {
        let micros = |time: TimeDelta| Decimal::from(time.num_microseconds().unwrap_or(i64::MAX).max(0));
        if whole <= TimeDelta::zero() || part >= whole { self } else { self.times(micros(part) / micros(whole)) }
    }

    /// So many times as much; the most that can be told where that is too much.
    #[must_use]
    pub fn times(self, factor: Decimal) -> Self {
        self.0.checked_mul(factor).and_then(Self::new).unwrap_or(Self(Decimal::from(MOST)))
    }

    /// Whether one is at most `times` as much as the other.
    fn is_near(self, other: Self, times: u32) -> bool {
        self <= other.times(times.into()) && other <= self.times(times.into())
    }
}

impl TryFrom<f64> for Usd {
    type Error = InvalidUsd;

    /// Takes a number as a person writes it: 0.1 is a tenth.
    fn try_from(number: f64) -> Result<Self, InvalidUsd> {
        let decimal = Decimal::try_from(number).ok();
        decimal.and_then(Self::new).ok_or_else(|| InvalidUsd(number.to_string()))
    }
}

impl FromStr for Usd {
    type Err = InvalidUsd;

    fn from_str(text: &str) -> Result<Self, InvalidUsd> {
        let decimal = text.trim().parse().or_else(|_| Decimal::from_scientific(text.trim())).ok();
        decimal.and_then(Self::new).ok_or_else(|| InvalidUsd(text.to_owned()))
    }
}

/// As many places as there are, and at least two; a stated precision rounds.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = f.precision().unwrap_or_else(|| usize::try_from(self.0.scale()).unwrap_or(0).max(2));
        let places = u32::try_from(places).unwrap_or(PLACES);
        let mut rounded = self.0.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero);
        rounded.rescale(places);
        f.pad_integral(true, "", &rounded.to_string())
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.0.checked_add(other.0).and_then(Self::new).unwrap_or(Self(Decimal::from(MOST)))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_exact_and_never_negative() {
        assert_eq!(usd("0.1") + usd("0.2"), usd("0.3"));
        assert_eq!(Usd::try_from(0.141_912).unwrap(), usd("0.141912"));
        assert_eq!(usd("1E-3"), usd("0.001"));
        for bad in ["-1", "one", "", "NaN", "1e40", "1000000001"] {
            assert!(bad.parse::<Usd>().is_err(), "{bad}");
        }
        assert!(Usd::try_from(f64::INFINITY).is_err() && Usd::try_from(-0.5).is_err());
    }

    #[test]
    fn a_price_is_for_an_hour_and_time_counts_to_the_microsecond() {
        assert_eq!(usd("3.6").for_time(TimeDelta::seconds(1)), usd("0.001"));
        assert_eq!(usd("3600").for_time(TimeDelta::microseconds(1)), usd("0.000001"));
        assert_eq!(usd("3.6").for_time(TimeDelta::seconds(-1)), Usd::ZERO);
        assert_eq!(usd("1000000000").for_time(TimeDelta::MAX), usd("1000000000"), "nothing overflows");
    }

    #[test]
    fn a_share_is_of_time() {
        let part = |part, whole| usd("6").share(TimeDelta::hours(part), TimeDelta::hours(whole));
        assert_eq!([part(1, 3), part(0, 3), part(3, 3), part(0, 0)], [usd("2"), Usd::ZERO, usd("6"), usd("6")]);
    }

    #[test]
    fn an_amount_is_shown_like_money() {
        let shown = ["5", "0.1", "0.001234", "12.5"].map(|text| usd(text).to_string());
        assert_eq!(shown, ["5.00", "0.10", "0.001234", "12.50"]);
        assert_eq!(format!("{:.2}|{:>7.2}", usd("0.005"), usd("1.5")), "0.01|   1.50");
        assert_eq!(serde_json::to_string(&usd("0.25")).unwrap(), "\"0.25\"");
    }
}
