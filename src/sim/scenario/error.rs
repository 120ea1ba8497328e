//! Why a scenario cannot be played.

use std::path::PathBuf;

use crate::ids::InvalidId;
use crate::sim::fault::InvalidFault;
use crate::sim::profile::InvalidProfile;

/// A scenario that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is no scenario.
    #[error("{path} is no scenario: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A repository is not written as `owner/name`.
    #[error("the scenario names a repository that cannot be")]
    Repo(#[from] InvalidId),
    /// A job of the scenario cannot be.
    #[error("job {job} of the scenario: {reason}")]
    Job {
        /// The job's id.
        job: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A run of the scenario cannot be.
    #[error("run {run} of the scenario: {reason}")]
    Run {
        /// The run's id.
        run: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The App cannot be given a repository of somebody else.
    #[error("the App at {owner} cannot be given {repo}, which is not of {owner}")]
    Installation {
        /// Where it is installed.
        owner: String,
        /// The repository.
        repo: String,
    },
    /// A runner group cannot be.
    #[error("runner group {group} of {organization}: {reason}")]
    Group {
        /// The organization.
        organization: String,
        /// The group's id.
        group: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The profile's overrides cannot be used.
    #[error("the scenario's profile cannot be used")]
    Profile(#[from] InvalidProfile),
    /// A fault of the scenario cannot happen.
    #[error("the scenario's faults cannot be used")]
    Fault(#[from] InvalidFault),
}
