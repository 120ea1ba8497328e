//! The name that we give to what we make.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::{AccountName, Deployment, InvalidId, JobId};

/// The name that we give to a sandbox and to its runner: `sr-<deployment>-<account>-<job id>-<attempt>`.
///
/// It says for which job the sandbox was made, not which job it will run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OurName {
    /// The job that caused the create.
    pub job: JobId,
    /// Counts the creates for that job, from 1.
    pub attempt: u32,
    /// The installation that made it.
    pub deployment: Deployment,
    /// The GitHub account it is registered with.
    pub account: AccountName,
}

impl FromStr for OurName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            value: text.to_owned(),
            expected: "a name of ours: sr-<deployment>-<account>-<job>-<attempt>",
        };
        let parts: Vec<&str> = text.split('-').collect();
        let ["sr", deployment, account, job, attempt] = parts[..] else { return Err(invalid()) };
        Ok(Self {
            deployment: deployment.parse().map_err(|_| invalid())?,
            account: account.parse().map_err(|_| invalid())?,
            job: JobId(canonical_number(job).ok_or_else(invalid)?),
            attempt: canonical_number(attempt).and_then(|n| u32::try_from(n).ok()).ok_or_else(invalid)?,
        })
    }
}

/// A number above zero written as we write it: no sign, no leading zero.
fn canonical_number(text: &str) -> Option<u64> {
    let is_canonical = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if is_canonical { text.parse().ok() } else { None }
}

impl fmt::Display for OurName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sr-{}-{}-{}-{}", self.deployment, self.account, self.job, self.attempt)
    }
}

impl Serialize for OurName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_ours_is_a_full_match() {
        let name: OurName = "sr-main-gh1-9876543210-2".parse().unwrap();
        assert_eq!(name.to_string(), "sr-main-gh1-9876543210-2");
        for foreign in [
            "sr-main-gh1-1",
            "sr-main-gh1-1-2-3",
            "xsr-main-gh1-1-2",
            "sr-Main-gh1-1-2",
            "sr-main-gh1-01-2",
            "sr-main-gh1-1-0",
            "sr-main-gh1-+1-2",
            "sr-main--1-2",
            "sr-main-gh1-1-2 ",
            "sr-main-gh1-99999999999999999999999-2",
        ] {
            assert!(foreign.parse::<OurName>().is_err(), "{foreign} must not be ours");
        }
    }
}
