//! What a line of the history can tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Operation, Service};
use crate::sim::client::CrashPhase;
use crate::sim::fault::{FaultMode, Mishap};
use crate::sim::jobs::Hold;
use crate::sim::profile::Profile;
use crate::sim::scenario::{Conclusion, SkipReason};

/// Which limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// GitHub's requests per hour.
    Primary,
    /// GitHub's points or writes per minute.
    Secondary,
    /// Modal's creations per second.
    Creates,
    /// Modal's running containers in the workspace.
    Capacity,
    /// None: a fault made it look so.
    Injected,
}

/// Why a job completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It ran to its end.
    Ran,
    /// It was cancelled before a runner took it.
    CancelledQueued,
    /// It was cancelled while it ran.
    CancelledRunning,
    /// Its runner vanished.
    RunnerLost,
    /// The hook of its runner refused it before its first step.
    Refused,
}

/// Why a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// Its one job is over.
    JobDone,
    /// GitHub removed it because it was idle.
    Idle,
    /// `DELETE runner`.
    Deleted,
    /// It was not used for a day.
    Expired,
    /// It vanished in the middle of its job.
    Lost,
    /// It was given a job and failed to take it.
    NotTaken,
}

/// The operator's limits, as whoever runs a controller states them; the World does not enforce them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedLimits {
    /// The most sandboxes at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<u32>,
    /// The most of one repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes_per_repo: Option<u32>,
    /// The most of a class, by the class's tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, u32>,
    /// The most GPUs at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// What happened to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControllerChange {
    /// It was started.
    Started,
    /// It was told to stop.
    Stopped,
    /// It was killed in the middle of its work.
    Killed,
    /// What lies between it and the services holds calls or answers back; they may still arrive, or be lost.
    CutOff,
    /// Nothing between it and the services holds anything back any more.
    Connected,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the events from 0.
    pub seq: u64,
    /// When it happened, on the World's clock.
    pub at: DateTime<Utc>,
    /// What happened.
    pub what: What,
}

/// What can happen. Repositories are written in lower case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named like what they hold; the variants say when")]
pub enum What {
    /// The World began. `repos` are the allow-listed ones.
    Began {
        /// What all chance comes from.
        seed: u64,
        /// The repositories that are to be served.
        repos: Vec<Arc<str>>,
        /// Organizations in which runners are registered, instead of their repositories.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        organizations: Vec<Arc<str>>,
        /// How the services behave.
        profile: Box<Profile>,
    },
    /// The limits that the run is judged by from now on.
    LimitsStated { limits: StatedLimits },
    /// A controller was started, stopped or killed by whoever runs it.
    ControllerChanged {
        #[serde(skip_serializing_if = "is_unknown", default)]
        client: u32,
        change: ControllerChange,
    },
    /// A service was called. `status` is GitHub's HTTP status, 0 where it answers nothing, or Modal's gRPC code;
    /// `client` is the number of the process that called, where it has one, `subject` the repository, `target`
    /// what the call is about within it: an id, or the name that is asked for. `wait_secs` is how long the answer
    /// asks to wait, `delay_secs` by how much it is late. A list has the number of its page, and `more` where a
    /// further page follows. `quota` is the token's quota of an hour where it is more than the profile's.
    Call {
        service: Service,
        operation: Operation,
        status: u16,
        points: u32,
        token: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        limited: Option<LimitKind>,
        #[serde(skip_serializing_if = "String::is_empty", default)]
        subject: String,
        #[serde(skip_serializing_if = "is_unknown", default)]
        client: u32,
        #[serde(skip_serializing_if = "String::is_empty", default)]
        target: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        wait_secs: Option<f64>,
        #[serde(skip_serializing_if = "is_none_at_all", default)]
        delay_secs: f64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        page: Option<usize>,
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        more: bool,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        quota: Option<u32>,
    },
    /// A job became demand; `skip` says why it is not expected to be served, where it is not.
    JobQueued {
        job: u64,
        run: u64,
        attempt: u32,
        repo: Arc<str>,
        labels: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        skip: Option<SkipReason>,
    },
    /// Something keeps a queued job from every runner, or with `why` absent no longer does.
    JobHeld {
        job: u64,
        repo: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        why: Option<Hold>,
    },
    /// A runner took a job; `sandbox` is absent for a runner that none of the sandboxes holds.
    JobAssigned { job: u64, repo: Arc<str>, runner: String, sandbox: Option<Arc<str>> },
    /// A job ended.
    JobCompleted { job: u64, repo: Arc<str>, conclusion: Conclusion, cause: Cause },
    /// A JIT config was minted; `config` is its fingerprint.
    RunnerRegistered { repo: Arc<str>, runner_id: u64, runner: String, labels: Vec<String>, config: String },
    /// A runner connected.
    RunnerOnline { repo: Arc<str>, runner: String, sandbox: Option<Arc<str>> },
    /// `DELETE runner` was asked for; `deleted` tells whether it was carried out.
    RunnerDeleteAsked { repo: Arc<str>, runner: String, deleted: bool },
    /// A registration ended.
    RunnerRemoved { repo: Arc<str>, runner: String, reason: RemovalReason },
    /// A Secret was created or deleted in Modal.
    SecretChanged { secret: String, exists: bool },
    /// A sandbox was created, with so many GPUs; `config` is the fingerprint of the JIT config in its environment.
    SandboxCreated {
        sandbox: Arc<str>,
        name: String,
        gpu: bool,
        config: Option<String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        tags: BTreeMap<String, String>,
        #[serde(default)]
        timeout_secs: u32,
        #[serde(skip_serializing_if = "is_unknown", default)]
        gpus: u32,
    },
    /// A GPU sandbox was placed on a machine.
    SandboxScheduled { sandbox: Arc<str> },
    /// `SandboxTerminate` was asked for, of a sandbox that was alive; `job` is what ran in it.
    TerminateAsked { sandbox: Arc<str>, name: String, job: Option<u64> },
    /// A sandbox ended with Modal's `status` and an exit code.
    SandboxEnded {
        sandbox: Arc<str>,
        name: String,
        status: i32,
        exit_code: i32,
        /// What it has cost, by Modal's own account.
        #[serde(default)]
        dollars: f64,
    },
    /// A process was killed at a call of its own.
    ClientKilled { client: u32, operation: Operation, phase: CrashPhase },
    /// A fault was put in; `fault` is its name in the catalogue.
    FaultAdded {
        operation: Operation,
        mode: FaultMode,
        #[serde(skip_serializing_if = "str::is_empty", default)]
        fault: Arc<str>,
    },
    /// A fault took effect at this operation; `subject` is the repository it concerns.
    FaultStruck {
        operation: Operation,
        mode: FaultMode,
        #[serde(skip_serializing_if = "str::is_empty", default)]
        fault: Arc<str>,
        #[serde(skip_serializing_if = "str::is_empty", default)]
        subject: Arc<str>,
    },
    /// Something befell the machine of the process `client`, between two calls; whoever runs it carries it out.
    MachineStruck {
        #[serde(skip_serializing_if = "is_unknown", default)]
        client: u32,
        mishap: Mishap,
    },
    /// Faults changed how the services behave; `knobs` are those that differ from the profile since then.
    KnobsChanged { knobs: BTreeMap<String, Value> },
    /// All faults were taken out.
    FaultsCleared,
    /// Somebody has changed something at GitHub that no call of a controller's does: `setting` of `subject` is `value`.
    SettingChanged { subject: Arc<str>, setting: String, value: Value },
    /// The clock was moved forward from outside.
    ClockAdvanced { seconds: f64 },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unknown(client: &u32) -> bool {
    *client == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_at_all(secs: &f64) -> bool {
    *secs == 0.0
}
