//! Versions of the runner application, and until when GitHub takes them.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A release of the runner application, such as `2.336.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RunnerVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

/// Not three numbers with dots between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be three numbers, such as 2.336.0")]
pub struct InvalidVersion;

impl RunnerVersion {
    /// What is older registers nowhere but at an Enterprise Server (GitHub's changelog: minimum version enforcement of
    /// self-hosted runners, in force since 2026-09-25).
    pub const FLOOR: Self = Self { major: 2, minor: 329, patch: 0 };
    /// Since when that is so.
    pub const FLOOR_SINCE: DateTime<Utc> = DateTime::from_timestamp(1_790_294_400, 0).expect("2026-09-25");
}

impl FromStr for RunnerVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
        let number = |part: &str| Some(part).filter(is_number).and_then(|part| part.parse().ok()).ok_or(InvalidVersion);
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(InvalidVersion).and_then(number);
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_none() { Ok(version) } else { Err(InvalidVersion) }
    }
}

impl fmt::Display for RunnerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<RunnerVersion> for String {
    fn from(version: RunnerVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for RunnerVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Until when GitHub takes runners of a version; none where it set no date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VersionNotice {
    /// From then on none is registered.
    pub registers_until: Option<DateTime<Utc>>,
    /// From then on none gets a job.
    pub runs_until: Option<DateTime<Utc>>,
}

impl VersionNotice {
    /// From when on a new runner of the version is of no use.
    pub fn refused_at(&self) -> Option<DateTime<Utc>> {
        self.registers_until.into_iter().chain(self.runs_until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers_in_their_order() {
        let version = |text: &str| text.parse::<RunnerVersion>();
        assert_eq!(version("2.329.0"), Ok(RunnerVersion::FLOOR));
        assert_eq!(version("2.329.0").unwrap().to_string(), "2.329.0");
        assert!(version("2.1000.0").unwrap() > version("2.999.9").unwrap());
        for wrong in ["", "2", "2.329", "2.329.0.1", "2.329.x", "v2.329.0", "2.+329.0", "2..0", "2.329.4294967296"] {
            assert_eq!(version(wrong), Err(InvalidVersion), "{wrong}");
        }
    }

    #[test]
    fn the_earlier_of_two_dates_counts() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0);
        let notice = |registers_until, runs_until| VersionNotice { registers_until, runs_until }.refused_at();
        assert_eq!(notice(None, None), None);
        assert_eq!(notice(None, at(7)), at(7));
        assert_eq!(notice(at(9), at(7)), at(7));
        assert_eq!(notice(at(3), at(7)), at(3));
    }
}
