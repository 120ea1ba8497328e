//! The history's lines as the checker reads them: its own structs, which know only the fields it judges by.
//!
//! What it does not know is passed over, so that a history may hold more than is judged.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

/// A moment on the clock of the simulated world.
pub(crate) type Time = DateTime<Utc>;

/// One line.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    /// Its number.
    pub(crate) seq: u64,
    /// When it happened.
    pub(crate) at: Time,
    /// What happened.
    pub(crate) what: What,
}

/// What happened, as far as it is judged.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum What {
    Began {
        #[serde(default)]
        repos: Vec<String>,
        #[serde(default)]
        organizations: Vec<String>,
        profile: Profile,
    },
    LimitsStated {
        limits: Limits,
    },
    ControllerChanged {
        #[serde(default)]
        client: u32,
        change: Change,
    },
    ClientKilled {
        client: u32,
    },
    Call(Call),
    JobQueued {
        job: u64,
        run: u64,
        #[serde(default)]
        attempt: u32,
        repo: String,
        labels: Vec<String>,
        skip: Option<String>,
    },
    JobHeld {
        job: u64,
        why: Option<String>,
    },
    JobAssigned {
        job: u64,
        runner: String,
        repo: String,
    },
    JobCompleted {
        job: u64,
        #[serde(default)]
        cause: String,
    },
    RunnerRegistered {
        repo: String,
        runner_id: u64,
        runner: String,
        labels: Vec<String>,
        config: String,
    },
    RunnerOnline {
        repo: String,
        runner: String,
    },
    RunnerDeleteAsked {
        repo: String,
        runner: String,
    },
    RunnerRemoved {
        repo: String,
        runner: String,
    },
    SecretChanged {
        secret: String,
        exists: bool,
    },
    SandboxCreated {
        sandbox: String,
        name: String,
        gpu: bool,
        /// How many; older histories do not tell.
        #[serde(default)]
        gpus: u32,
        config: Option<String>,
        #[serde(default)]
        tags: BTreeMap<String, String>,
        #[serde(default)]
        timeout_secs: u32,
    },
    SandboxScheduled {
        sandbox: String,
    },
    TerminateAsked {
        sandbox: String,
        name: String,
        job: Option<u64>,
    },
    SandboxEnded {
        sandbox: String,
        /// Modal's number for it.
        #[serde(default)]
        status: i32,
    },
    FaultStruck {
        operation: Operation,
        mode: String,
    },
    FaultsCleared,
    KnobsChanged {
        knobs: BTreeMap<String, serde_json::Value>,
    },
    /// What is not judged.
    #[serde(other)]
    Other,
}

/// How the services behave, as far as it decides what a controller can know and what it may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Profile {
    pub(crate) github_list_lag_secs: f64,
    pub(crate) filtered_list_omits: f64,
    pub(crate) modal_list_lag_secs: f64,
    pub(crate) runner_visible_secs: [f64; 2],
    pub(crate) read_latency_secs: f64,
    pub(crate) write_latency_secs: f64,
    pub(crate) modal_latency_secs: f64,
    pub(crate) github_requests_per_hour: u32,
    pub(crate) github_used_before: u32,
    pub(crate) github_first_hour_secs: f64,
    pub(crate) github_charges_unchanged: bool,
    pub(crate) github_points_per_minute: u32,
    pub(crate) github_mutations_per_minute: u32,
    pub(crate) github_list_page: usize,
    pub(crate) modal_creates_per_second: f64,
    pub(crate) modal_create_burst: u32,
}

impl Default for Profile {
    /// No lag, and the limits of the real services.
    fn default() -> Self {
        Self {
            github_list_lag_secs: 0.0,
            filtered_list_omits: 0.0,
            modal_list_lag_secs: 0.0,
            runner_visible_secs: [0.0, 0.0],
            read_latency_secs: 0.1,
            write_latency_secs: 0.25,
            modal_latency_secs: 0.15,
            github_requests_per_hour: 5_000,
            github_used_before: 0,
            github_first_hour_secs: 3_600.0,
            github_charges_unchanged: false,
            github_points_per_minute: 900,
            github_mutations_per_minute: 180,
            github_list_page: 100,
            modal_creates_per_second: 5.0,
            modal_create_burst: 150,
        }
    }
}

/// The operator's limits; what is absent is not limited.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Limits {
    pub(crate) sandboxes: Option<u32>,
    pub(crate) sandboxes_per_repo: Option<u32>,
    #[serde(default)]
    pub(crate) classes: BTreeMap<String, u32>,
    pub(crate) gpus: Option<u32>,
}

impl Limits {
    /// Takes every limit that `other` states.
    pub(crate) fn override_with(&mut self, other: Self) {
        self.sandboxes = other.sandboxes.or(self.sandboxes);
        self.sandboxes_per_repo = other.sandboxes_per_repo.or(self.sandboxes_per_repo);
        self.gpus = other.gpus.or(self.gpus);
        self.classes.extend(other.classes);
    }
}

/// What happened to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Started,
    Stopped,
    Killed,
    /// Calls and answers may be held back, or lost, between it and the services.
    CutOff,
    /// They are no longer.
    Connected,
}

/// Which service a call went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Service {
    Github,
    Modal,
}

/// The operations that are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    ListRuns,
    GetRun,
    ListJobs,
    ListRunners,
    DeleteRunner,
    Mint,
    RateLimit,
    App,
    Create,
    ListSandboxes,
    Wait,
    Terminate,
    Secret,
    SecretDelete,
    SetTags,
    ImageLog,
    /// Any other.
    #[serde(other)]
    Other,
}

impl Operation {
    /// Whether it changes something that a controller at rest leaves alone.
    pub(crate) fn is_mutation(self) -> bool {
        matches!(
            self,
            Self::DeleteRunner
                | Self::Mint
                | Self::Create
                | Self::Terminate
                | Self::Secret
                | Self::SecretDelete
                | Self::SetTags
                // An image is being made.
                | Self::ImageLog
        )
    }
}

/// A call with its answer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Call {
    pub(crate) service: Service,
    pub(crate) operation: Operation,
    pub(crate) status: u16,
    pub(crate) points: u32,
    pub(crate) token: String,
    pub(crate) limited: Option<String>,
    #[serde(default)]
    pub(crate) subject: String,
    #[serde(default)]
    pub(crate) target: String,
    pub(crate) wait_secs: Option<f64>,
    #[serde(default)]
    pub(crate) delay_secs: f64,
    pub(crate) page: Option<usize>,
    #[serde(default)]
    pub(crate) more: bool,
    /// The quota of an hour, where it is more than the profile's.
    pub(crate) quota: Option<u32>,
    #[serde(default)]
    pub(crate) client: u32,
    /// The fault that struck it; put together from the line before.
    #[serde(skip)]
    pub(crate) fault: Option<String>,
}

/// gRPC's codes that are told apart.
pub(crate) mod code {
    pub(crate) const OK: u16 = 0;
    pub(crate) const UNKNOWN: u16 = 2;
    pub(crate) const DEADLINE_EXCEEDED: u16 = 4;
    pub(crate) const NOT_FOUND: u16 = 5;
    pub(crate) const ALREADY_EXISTS: u16 = 6;
    pub(crate) const INTERNAL: u16 = 13;
    pub(crate) const UNAVAILABLE: u16 = 14;
    /// GitHub's: a runner of that name is registered.
    pub(crate) const CONFLICT: u16 = 409;
}

impl Call {
    /// Whether it was answered with what was asked for, so that it can be read.
    pub(crate) fn is_answered(&self) -> bool {
        // Answers that are no answers: cut, a page for people, a config that is none, "not modified" to who knows
        // nothing.
        let is_spoilt =
            matches!(self.fault.as_deref(), Some("truncated" | "malformed" | "config_corrupt" | "bare_not_modified"));
        !is_spoilt
            && match self.service {
                Service::Github => matches!(self.status, 200..=299 | 304),
                Service::Modal => self.status == code::OK,
            }
    }

    /// Whether the caller cannot know if it was carried out.
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self.service {
            Service::Github => self.status >= 500 || matches!(self.status, 0 | 408),
            Service::Modal => {
                matches!(self.status, code::UNKNOWN | code::DEADLINE_EXCEEDED | code::INTERNAL | code::UNAVAILABLE)
            }
        }
    }
}

/// Who makes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// A process.
    Client(u32),
    /// Processes that cannot be told apart: their calls came over a socket.
    Unknown,
}

impl Caller {
    /// The one of a number; 0 where it is not known.
    pub(crate) fn of(client: u32) -> Self {
        if client > 0 { Self::Client(client) } else { Self::Unknown }
    }
}

impl Call {
    pub(crate) fn caller(&self) -> Caller {
        Caller::of(self.client)
    }
}

/// A number of seconds, to the millisecond.
pub(crate) fn seconds(secs: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range of i64 saturates")]
    TimeDelta::milliseconds((secs * 1e3).round() as i64)
}
