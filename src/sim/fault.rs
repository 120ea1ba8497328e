//! Faults that can be put into the simulated services: named operations times modes.

use serde::{Deserialize, Serialize};

use super::history::Operation;

/// When a call is carried out that a fault has put off, where the fault does not say.
pub(super) const LATE_SECS: f64 = 20.0;
/// How much longer a slow answer takes where the fault does not say.
pub(super) const SLOW_SECS: f64 = 30.0;

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultMode {
    /// Nothing is applied; GitHub answers 502 (or `status`), Modal `UNAVAILABLE` (or the code in `status`).
    /// For `image_build`: the build fails.
    Error,
    /// It is applied, and the answer gets lost: GitHub answers 502 after 10 s (or `seconds`), Modal
    /// `UNAVAILABLE` (after `seconds`).
    ReplyLost,
    /// The answer is that of [`FaultMode::Error`], at once; `seconds` (default 20) later it is applied all
    /// the same.
    AppliedLate,
    /// The answer takes `seconds` (default 30) longer.
    Slow,
    /// A rate-limit answer, with a wait of `seconds` (default 60 at GitHub, 1.5 at Modal).
    RateLimited,
    /// GitHub answers 401, Modal `UNAUTHENTICATED`.
    Unauthorized,
    /// GitHub answers 404, Modal `NOT_FOUND`.
    NotFound,
    /// A list is answered as if there were nothing.
    Empty,
    /// GitHub's body is cut in the middle.
    Truncated,
    /// For `boot`: the runner never connects and the sandbox ends with exit code 66.
    RegistrationFailed,
    /// For `boot`: GitHub refuses the runner's version; exit code 65.
    VersionRefused,
    /// For `boot`: the runner crashes before it connects; exit code 68.
    Crash,
    /// For `boot`: the sandbox lives and its runner never connects.
    NeverOnline,
    /// For `boot`: the runner connects `seconds` (default 240) late.
    SlowBoot,
    /// For `boot`: Modal ends the sandbox `seconds` (default 30) after its runner connected.
    Preempted,
}

/// A fault: at the operation's next `times` calls after the first `after`, it goes wrong in this mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where.
    pub operation: Operation,
    /// How.
    pub mode: FaultMode,
    /// How often (default 1).
    #[serde(default = "once")]
    pub times: u32,
    /// How many calls go well before (default 0).
    #[serde(default)]
    pub after: u32,
    /// A duration, where the mode has one.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// The HTTP status or gRPC code of [`FaultMode::Error`].
    #[serde(default)]
    pub status: Option<u16>,
}

fn once() -> u32 {
    1
}

/// A fault that cannot happen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the fault {operation:?}/{mode:?} cannot happen: {reason}")]
pub struct InvalidFault {
    operation: Operation,
    mode: FaultMode,
    reason: &'static str,
}

impl Fault {
    /// A fault that happens once, at the next call.
    pub fn new(operation: Operation, mode: FaultMode) -> Self {
        Self { operation, mode, times: 1, after: 0, seconds: None, status: None }
    }

    /// Refuses what would never take effect.
    pub(super) fn checked(self) -> Result<Self, InvalidFault> {
        let invalid = |reason| Err(InvalidFault { operation: self.operation, mode: self.mode, reason });
        let is_boot = self.operation == Operation::Boot;
        if is_boot != self.mode.is_of_boot() {
            return invalid("modes of the runner's start go with the operation `boot`, and only they");
        }
        if self.operation == Operation::ImageBuild && self.mode != FaultMode::Error {
            return invalid("an image build can only fail: mode `error`");
        }
        let is_list = matches!(
            self.operation,
            Operation::ListRuns | Operation::ListJobs | Operation::ListRunners | Operation::ListSandboxes
        );
        if self.mode == FaultMode::Empty && !is_list {
            return invalid("only lists can be empty: list_runs, list_jobs, list_runners, list_sandboxes");
        }
        if self.mode == FaultMode::Truncated && self.operation > Operation::Unknown {
            return invalid("only GitHub's answers can be truncated");
        }
        if self.times == 0 || self.seconds.is_some_and(|secs| !secs.is_finite() || secs < 0.0) {
            return invalid("`times` must be at least 1 and `seconds` not negative");
        }
        Ok(self)
    }
}

impl FaultMode {
    fn is_of_boot(self) -> bool {
        match self {
            Self::RegistrationFailed
            | Self::VersionRefused
            | Self::Crash
            | Self::NeverOnline
            | Self::SlowBoot
            | Self::Preempted => true,
            Self::Error
            | Self::ReplyLost
            | Self::AppliedLate
            | Self::Slow
            | Self::RateLimited
            | Self::Unauthorized
            | Self::NotFound
            | Self::Empty
            | Self::Truncated => false,
        }
    }
}

/// What a struck fault does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Strike {
    pub(super) mode: FaultMode,
    pub(super) seconds: Option<f64>,
    pub(super) status: Option<u16>,
}

impl Strike {
    /// The duration, or what the mode takes where none is given.
    pub(super) fn seconds_or(self, default: f64) -> f64 {
        self.seconds.unwrap_or(default)
    }
}

/// The faults that wait for their operation.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Counts one call of `operation` and tells whether it goes wrong; the oldest fault strikes first.
    pub(super) fn strike(&mut self, operation: Operation) -> Option<Strike> {
        let group = operation.group();
        let index = self.0.iter_mut().position(|fault| {
            let is_meant = fault.operation == operation || Some(fault.operation) == group;
            let is_due = is_meant && fault.after == 0;
            if is_meant {
                fault.after = fault.after.saturating_sub(1);
            }
            is_due
        })?;
        let fault = &mut self.0[index];
        let strike = Strike { mode: fault.mode, seconds: fault.seconds, status: fault.status };
        fault.times -= 1;
        if fault.times == 0 {
            self.0.remove(index);
        }
        Some(strike)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_its_operation_as_often_as_stated() {
        let mut faults = Faults::default();
        faults.add(Fault { times: 2, after: 1, ..Fault::new(Operation::Mint, FaultMode::Error) });
        assert_eq!(faults.strike(Operation::ListRuns), None);
        assert_eq!(faults.strike(Operation::Mint), None);
        assert_eq!(faults.strike(Operation::Mint).unwrap().mode, FaultMode::Error);
        assert!(faults.strike(Operation::Mint).is_some());
        assert_eq!(faults.strike(Operation::Mint), None);
    }

    #[test]
    fn a_group_means_the_calls_of_one_service() {
        let mut faults = Faults::default();
        faults.add(Fault::new(Operation::Modal, FaultMode::Error));
        assert_eq!(faults.strike(Operation::Mint), None);
        assert_eq!(faults.strike(Operation::Boot), None);
        assert!(faults.strike(Operation::Wait).is_some());
    }

    #[test]
    fn faults_that_could_not_happen_are_refused() {
        for (operation, mode) in [
            (Operation::Boot, FaultMode::Error),
            (Operation::Mint, FaultMode::Crash),
            (Operation::Mint, FaultMode::Empty),
            (Operation::Create, FaultMode::Truncated),
            (Operation::ImageBuild, FaultMode::Slow),
        ] {
            assert!(Fault::new(operation, mode).checked().is_err(), "{operation:?} {mode:?}");
        }
        assert!(Fault::new(Operation::ListRuns, FaultMode::Empty).checked().is_ok());
    }
}
