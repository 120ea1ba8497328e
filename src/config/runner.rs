//! What `[runner]` means.

use std::collections::BTreeMap;

use super::RunnerConfig;
use super::load::ConfigError;
use super::value::{bad, check_env_name};
use crate::github::is_enterprise_server;
use crate::ids::AccountName;
use crate::plan::AccountPolicy;
use crate::runner::RunnerVersion;

/// What runs in the sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerSettings {
    /// The release of the default image.
    pub release: RunnerReleaseChoice,
    /// Where the runner is in every image.
    pub dir: String,
}

/// Which release of the runner the default image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerReleaseChoice {
    /// What GitHub asks for at the time of the build.
    Auto,
    /// A version; the checksum comes from GitHub where it still offers that version.
    Pinned {
        /// The version.
        version: RunnerVersion,
        /// The archive's SHA-256, in hexadecimal digits.
        sha256: Option<String>,
    },
}

pub(super) fn settings(
    runner: &RunnerConfig,
    accounts: &BTreeMap<AccountName, AccountPolicy>,
) -> Result<RunnerSettings, ConfigError> {
    let is_sha = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    for name in runner.env.keys() {
        check_env_name("runner.env", name, &runner.plain_env)?;
    }
    if let Some(sha) = runner.sha256.as_deref().filter(|sha| !is_sha(sha)) {
        return Err(bad("runner.sha256", format!("`{sha}`"), "must be 64 hexadecimal digits"));
    }
    let release = match (runner.version.as_str(), &runner.sha256) {
        ("auto", None) => RunnerReleaseChoice::Auto,
        ("auto", Some(_)) => {
            return Err(bad("runner.sha256", "set", "belongs to a pinned runner.version; remove it for `auto`"));
        }
        (version, sha256) => {
            let remedy = "must be `auto` or a version such as 2.336.0";
            let parsed = version.parse().map_err(|_| bad("runner.version", format!("`{version}`"), remedy))?;
            check_floor(parsed, accounts)?;
            RunnerReleaseChoice::Pinned { version: parsed, sha256: sha256.as_ref().map(|sha| sha.to_lowercase()) }
        }
    };
    let is_dir = runner.dir.starts_with('/')
        && runner.dir.len() > 1
        && runner.dir.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if !is_dir {
        return Err(bad(
            "runner.dir",
            format!("`{}`", runner.dir),
            "must be an absolute path of letters, digits, `/`, `.`, `_`, `-`",
        ));
    }
    Ok(RunnerSettings { release, dir: runner.dir.clone() })
}

/// An Enterprise Server takes older runners; everybody else's GitHub registers none.
fn check_floor(version: RunnerVersion, accounts: &BTreeMap<AccountName, AccountPolicy>) -> Result<(), ConfigError> {
    if version >= RunnerVersion::FLOOR || accounts.values().all(|account| is_enterprise_server(&account.host)) {
        return Ok(());
    }
    let remedy = format!("GitHub registers no runner older than {}: set a newer one, or `auto`", RunnerVersion::FLOOR);
    Err(bad("runner.version", format!("`{version}`"), remedy))
}
