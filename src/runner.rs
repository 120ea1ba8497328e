//! What runs inside a sandbox: the supervisor script, what it reads from its environment, and the exit codes by which
//! it says why it ended. It never talks to GitHub or Modal; the runner's own listener does.

mod version;

pub use version::{InvalidVersion, RunnerVersion, VersionNotice};

/// The supervisor script: bash and coreutils are all it needs.
///
/// It ends the sandbox when no job comes or when the runner ends, and never while a job runs. The just-in-time config
/// it was given is in no argument list, in no environment but the listener's, and in no file it writes.
pub const SUPERVISOR: &str = include_str!("runner/supervisor.sh");

/// The arguments a sandbox is started with.
///
/// The script starts itself once more from its own text, so it has to come by `bash -c`, not as a file.
pub const ENTRYPOINT: [&str; 3] = ["bash", "-c", SUPERVISOR];

/// Modal limits all arguments of a sandbox to 64 KiB together; most of that is left to spare.
const _: () = assert!(SUPERVISOR.len() < 16 * 1024);

/// The user of the image as whom jobs run where they are not to run as root.
pub const RUN_AS_USER: &str = "runner";

/// Names of the environment variables that the supervisor reads; none of them reaches a job.
pub mod variable {
    /// The encoded just-in-time config, a secret; required.
    pub const JIT_CONFIG: &str = "SANDRUNNER_JITCONFIG";
    /// The folder the runner is installed in; default `/opt/actions-runner`.
    pub const RUNNER_DIR: &str = "SANDRUNNER_RUNNER_DIR";
    /// How long a connected runner waits for a job, in seconds; default 300.
    pub const IDLE_TIMEOUT_SECS: &str = "SANDRUNNER_IDLE_TIMEOUT_SECS";
    /// How long the runner may take to connect to GitHub, in seconds; default 180.
    pub const START_TIMEOUT_SECS: &str = "SANDRUNNER_START_TIMEOUT_SECS";
    /// How long a listener that was asked to end may take, in seconds, before it is killed; default 30.
    ///
    /// A listener whose job still runs is never killed.
    pub const STOP_GRACE_SECS: &str = "SANDRUNNER_STOP_GRACE_SECS";
    /// The repositories whose jobs the runner takes, as `owner/name` or `owner/prefix-*` with spaces between them, and
    /// with `!` before what the others mean and is not taken; required.
    pub const REPOSITORIES: &str = "SANDRUNNER_REPOSITORIES";
    /// `1` refuses jobs of pull requests from other repositories; default `0`.
    pub const TRUSTED_ONLY: &str = "SANDRUNNER_TRUSTED_ONLY";
    /// `gvisor` or `vm` starts Docker's daemon in that way; default none.
    pub const DOCKER: &str = "SANDRUNNER_DOCKER";
    /// The user as whom the runner and its jobs run; default the one that the sandbox starts as, root.
    pub const RUN_AS: &str = "SANDRUNNER_RUN_AS";
    /// What the job's "Set up job" step shows about its machine, written into the runner's `.setup_info` with
    /// [`SETUP_INFO_REGION`] replaced.
    pub const SETUP_INFO: &str = "SANDRUNNER_SETUP_INFO";
    /// Stands for the region in which the sandbox runs, which Modal tells inside it alone.
    pub const SETUP_INFO_REGION: &str = "{region}";
}

/// Why a sandbox ended, as its supervisor says by its exit code.
///
/// The codes lie above 63 (the shell's and the runner's own stay below) and below 126 (the shell's
/// codes for "cannot execute" and signals).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// A job started, with whatever result (0).
    Served,
    /// No job came within the idle limit, or GitHub removed the registration while it was idle (64).
    Unclaimed,
    /// GitHub refuses the runner's version (65).
    VersionRefused,
    /// The runner never connected: bad or used configuration, no runner in the image, no network (66).
    RegistrationFailed,
    /// A job came and was refused before its first step: another repository's, or a fork's (67).
    PolicyRefused,
    /// The runner ended in a way that fits none of the others (68).
    Crashed,
    /// The sandbox was asked to end before a job started (69).
    Stopped,
    /// Anything else, such as a kill from outside.
    Other(i32),
}

impl Exit {
    /// Reads an exit code.
    pub fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Served,
            64 => Self::Unclaimed,
            65 => Self::VersionRefused,
            66 => Self::RegistrationFailed,
            67 => Self::PolicyRefused,
            68 => Self::Crashed,
            69 => Self::Stopped,
            other => Self::Other(other),
        }
    }

    /// The reason as a metric label and a log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Unclaimed => "unclaimed",
            Self::VersionRefused => "version_refused",
            Self::RegistrationFailed => "registration_failed",
            Self::PolicyRefused => "policy_refused",
            Self::Crashed => "crashed",
            Self::Stopped => "stopped",
            Self::Other(_) => "other",
        }
    }
}
