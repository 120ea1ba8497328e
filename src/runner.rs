//! What runs inside a sandbox: the supervisor script and the exit codes by which it says why it ended.

/// The supervisor script, passed as `bash -c` in the entry point.
pub const SUPERVISOR: &str = include_str!("runner/supervisor.sh");

/// Why a sandbox ended, as its supervisor says by its exit code.
///
/// The codes lie above 63 (the shell's and the runner's own stay below) and below 126 (the shell's
/// codes for "cannot execute" and signals).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// A job ran, with whatever result (0).
    Served,
    /// No job came within the idle limit, or GitHub removed the registration while it was idle (64).
    Unclaimed,
    /// GitHub refuses the runner's version (65).
    VersionRefused,
    /// The runner never connected: bad or used configuration, no network (66).
    RegistrationFailed,
    /// The job-started hook refused the job (67).
    PolicyRefused,
    /// The runner ended in a way that fits none of the others (68).
    Crashed,
    /// The sandbox was asked to end (69).
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
