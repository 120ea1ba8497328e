//! What was observed: plain data, each reading with its completeness and its time.
//!
//! Invariant: no client, no clock and no random source is imported here. Wire types end at the boundary
//! modules; everything below is ours.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::CallFailure;
use crate::ids::{AccountName, JobId, Labels, RepoName, RunId, RunnerId, SandboxId};

/// How a read ended. Unknown is not empty, and partial is not all (design rule B).
#[derive(Debug, Clone, PartialEq)]
pub enum Reading<T> {
    /// Everything was read.
    Known(T),
    /// Something was read, and something is missing.
    Partial {
        /// What was read.
        seen: T,
        /// Why the rest is missing.
        missing: CallFailure,
    },
    /// Nothing was read.
    Unknown(CallFailure),
}

impl<T> Reading<T> {
    /// What was read, complete or not.
    pub fn seen(&self) -> Option<&T> {
        match self {
            Self::Known(seen) | Self::Partial { seen, .. } => Some(seen),
            Self::Unknown(_) => None,
        }
    }

    /// What is wrong with it, if anything.
    pub fn failure(&self) -> Option<&CallFailure> {
        match self {
            Self::Known(_) => None,
            Self::Partial { missing, .. } => Some(missing),
            Self::Unknown(failure) => Some(failure),
        }
    }
}

/// A repository together with the account it is read with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Scope {
    /// The configured GitHub account.
    pub account: AccountName,
    /// The repository in which runners are registered.
    pub repo: RepoName,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.repo.fmt(f)
    }
}

/// The status of a workflow run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunStatus {
    /// At least one job is queued.
    Queued,
    /// At least one job runs, none is queued.
    InProgress,
    /// A job waits for an environment; others may be queued.
    Waiting,
    /// Blocked by a concurrency group.
    Pending,
    /// Just created.
    Requested,
    /// All jobs ended. Final for this attempt.
    Completed,
    /// Anything GitHub adds; looked at like an active run.
    Other(String),
}

/// A workflow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRun {
    /// Its id.
    pub id: RunId,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// Its status.
    pub status: RunStatus,
    /// When it was created; stays the same over re-runs.
    pub created_at: Option<DateTime<Utc>>,
    /// When GitHub last changed it; a hint only.
    pub updated_at: Option<DateTime<Utc>>,
}

/// The status of a workflow job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobStatus {
    /// Waits for a runner: the only status that is demand.
    Queued,
    /// Runs.
    InProgress,
    /// Ended.
    Completed,
    /// Waits for an environment.
    Waiting,
    /// Blocked by a concurrency group.
    Pending,
    /// Just created.
    Requested,
    /// Anything GitHub adds; no demand.
    Other(String),
}

/// A workflow job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowJob {
    /// Its id.
    pub id: JobId,
    /// The run it belongs to.
    pub run_id: RunId,
    /// The attempt of the run it belongs to.
    pub run_attempt: u32,
    /// Its status.
    pub status: JobStatus,
    /// What `runs-on` asks for.
    pub labels: Labels,
    /// The name of the runner it was given to. Kept only where the job is not queued: a queued job has
    /// been seen with a runner in GitHub's own examples.
    pub runner_name: Option<String>,
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When it started; meaningless while it is queued.
    pub started_at: Option<DateTime<Utc>>,
    /// Its name.
    pub name: String,
}

/// A registered runner, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its id within the scope.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// Whether GitHub says that it is connected: a hint.
    pub is_online: bool,
    /// Whether GitHub says that it runs a job: a hint, late by up to minutes and wrong at times.
    pub is_busy: bool,
}

/// A sandbox as Modal lists it, ours or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its name; empty where it has none.
    pub name: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Whether it was placed on a machine; a V2 sandbox always is.
    pub is_scheduled: bool,
    /// When it started to run.
    pub started_at: Option<DateTime<Utc>>,
    /// How it ended; none while it lives.
    pub result: Option<SandboxResult>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxResult {
    /// The end as Modal names it.
    pub status: SandboxEnd,
    /// The exit code of its entry point.
    pub exit_code: i32,
    /// What Modal says about a failure.
    pub message: String,
}

/// The statuses of Modal's `GenericResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SandboxEnd {
    /// The entry point ended with code 0.
    Success,
    /// The entry point ended with another code.
    Failure,
    /// Ended from outside: `SandboxTerminate`, a signal, preemption.
    Terminated,
    /// Modal's `timeout_secs` passed.
    Timeout,
    /// It did not start: image, mount or secret.
    InitFailure,
    /// Modal's own fault.
    InternalFailure,
    /// Modal's idle timeout, which we never set.
    IdleTimeout,
    /// Out of memory, in one of three forms.
    OutOfMemory,
    /// Anything Modal adds.
    Other(i32),
}
