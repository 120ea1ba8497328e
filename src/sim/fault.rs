//! Faults that can be put into the simulated services: operations times modes, by themselves or by name.
//!
//! A [`Fault`] strikes calls of one [`Operation`] (or of a whole service) in one [`FaultMode`]. It is limited by
//! a count, by calls that go well before, by a span of time, by a repository, by the process that calls and by a chance per call, which is
//! drawn from the World's seed. What is put in is a [`FaultRequest`]: a name of the catalogue, or the fault in
//! full, or knobs of the [`Profile`](super::Profile) that differ for a while. The same form stands in a scenario:
//!
//! ```toml
//! faults = [
//!     "mint_reply_lost",
//!     { name = "run_list_stale", seconds = 90, rate = 0.5, until_secs = 3600 },
//!     { operation = "delete_runner", mode = "error", status = 503, times = 2, after = 1 },
//!     { knobs = { github_list_lag_secs = 60 }, from_secs = 120, until_secs = 600 },
//! ]
//! ```
//!
//! and in `POST /_sim/faults`; `demo --faults NAME,NAME` takes names, and `demo --faults list` prints the catalogue.
//! Every strike is a line of the history. Taking all faults out ends no effect that has already begun. What befalls the
//! machine of a controller has names of the same kind, see [`Mishap`].

mod active;
mod catalogue;
mod machine;
mod mode;
mod put;
mod request;

pub use catalogue::{FaultPart, NamedFault};
pub use machine::{Befallen, Mishap};
pub use mode::FaultMode;
pub use request::FaultRequest;

pub(super) use active::{Faults, Site, Strike};
pub(super) use machine::Mishaps;
pub(super) use put::Knobs;

use super::history::Operation;
use super::profile::InvalidProfile;

/// When a call is carried out that a fault has put off, where the fault does not say.
pub(super) const LATE_SECS: f64 = 20.0;
/// How much longer a slow answer takes where the fault does not say.
pub(super) const SLOW_SECS: f64 = 30.0;

/// A fault: at calls of the operation, as far as its limits allow, it goes wrong in this mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Where.
    pub operation: Operation,
    /// How.
    pub mode: FaultMode,
    /// How often, or [`Fault::UNLIMITED`].
    pub times: u32,
    /// How many calls go well before.
    pub after: u32,
    /// The chance of each call to go wrong, above 0 and at most 1.
    pub rate: f64,
    /// When it begins, in seconds from its being put in.
    pub from_secs: f64,
    /// When it ends, in seconds from its being put in; absent means never.
    pub until_secs: Option<f64>,
    /// A duration, where the mode has one.
    pub seconds: Option<f64>,
    /// The HTTP status or gRPC code, where the mode has one.
    pub status: Option<u16>,
    /// The one repository that it concerns; absent means all. Only what happens at GitHub knows a repository.
    pub repo: Option<String>,
    /// The one process that it concerns, by its number as a client of the World; absent means all.
    pub client: Option<u32>,
    /// Its name in the catalogue; empty where it has none.
    pub name: &'static str,
}

/// A fault that cannot happen.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFault {
    /// No fault has this name.
    #[error("`{name}` is no fault{}; `sandrunner demo --faults list` prints all names", Near(near))]
    UnknownName {
        /// The name.
        name: String,
        /// Names like it.
        near: Vec<&'static str>,
    },
    /// It says too little or too much.
    #[error("{0}")]
    Incomplete(&'static str),
    /// It would never take effect.
    #[error("the fault {operation:?}/{mode:?} cannot happen: {reason}")]
    Impossible {
        /// Where.
        operation: Operation,
        /// How.
        mode: FaultMode,
        /// Why not.
        reason: &'static str,
    },
    /// It befalls the machine of a controller, and none is run here.
    #[error("no controller runs here that `{0}` could befall: `sandrunner demo --faults {0}` runs one", mishap.name())]
    NoMachine {
        /// What does.
        mishap: Mishap,
    },
    /// It changes a knob in a way that cannot be.
    #[error("the fault's knobs cannot be used")]
    Knobs(#[from] InvalidProfile),
}

/// Prints names that may have been meant.
struct Near<'a>(&'a [&'static str]);

impl std::fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", but there is `{}`", self.0.join("`, `")) }
    }
}

impl Fault {
    /// A fault that strikes as often as its other limits allow.
    pub const UNLIMITED: u32 = u32::MAX;

    /// A fault that happens once, at the next call.
    pub fn new(operation: Operation, mode: FaultMode) -> Self {
        Self {
            operation,
            mode,
            times: 1,
            after: 0,
            rate: 1.0,
            from_secs: 0.0,
            until_secs: None,
            seconds: None,
            status: None,
            repo: None,
            client: None,
            name: "",
        }
    }

    /// Every pair of an operation and a mode that can happen, groups of operations left out.
    pub fn pairs() -> impl Iterator<Item = (Operation, FaultMode)> {
        let single = Operation::ALL.iter().copied().filter(|operation| !operation.is_group());
        single.flat_map(|operation| {
            let modes = FaultMode::ALL.iter().copied();
            modes.filter(move |mode| mode.applies_to(operation)).map(move |mode| (operation, mode))
        })
    }

    /// Refuses what would never take effect.
    fn checked(self) -> Result<Self, InvalidFault> {
        let (operation, mode) = (self.operation, self.mode);
        let invalid = |reason| Err(InvalidFault::Impossible { operation, mode, reason });
        if !mode.applies_to(operation) {
            return invalid("the mode does not apply to the operation");
        }
        if self.seconds.is_some_and(|secs| !is_span(secs)) {
            return invalid("`seconds` must not be negative");
        }
        if let Some(reason) = wrong_limits(self.times, self.rate, self.from_secs, self.until_secs) {
            return invalid(reason);
        }
        if self.repo.is_some() && operation.service() == Some(super::history::Service::Modal) {
            return invalid("calls of Modal's know no `repo`");
        }
        Ok(self)
    }
}

fn is_span(secs: f64) -> bool {
    secs.is_finite() && secs >= 0.0
}

/// Why with these limits it would never take effect, if so.
fn wrong_limits(times: u32, rate: f64, from_secs: f64, until_secs: Option<f64>) -> Option<&'static str> {
    if times == 0 {
        return Some("`times` must be at least 1");
    }
    if rate.is_nan() || rate <= 0.0 || rate > 1.0 {
        return Some("`rate` must be above 0 and at most 1");
    }
    if !is_span(from_secs) || until_secs.is_some_and(|until| !is_span(until) || until <= from_secs) {
        return Some("`from_secs` must not be negative, and `until_secs` must be after it");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_could_not_happen_are_refused() {
        for (operation, mode) in [
            (Operation::Boot, FaultMode::Error),
            (Operation::Mint, FaultMode::Crash),
            (Operation::Mint, FaultMode::Empty),
            (Operation::Create, FaultMode::Malformed),
            (Operation::ImageBuild, FaultMode::Slow),
            (Operation::ListRuns, FaultMode::AppliedLate),
        ] {
            assert!(Fault::new(operation, mode).checked().is_err(), "{operation:?} {mode:?}");
        }
        assert!(Fault::new(Operation::ListRuns, FaultMode::Empty).checked().is_ok());
        let fault = || Fault::new(Operation::ListRuns, FaultMode::Error);
        assert!(Fault { rate: 0.0, ..fault() }.checked().is_err());
        assert!(Fault { from_secs: 5.0, until_secs: Some(5.0), ..fault() }.checked().is_err());
        let of_modal = Fault { repo: Some("acme/web".to_owned()), ..Fault::new(Operation::Create, FaultMode::Error) };
        assert!(of_modal.checked().is_err());
    }

    #[test]
    fn every_mode_can_happen_somewhere_and_every_operation_can_go_wrong() {
        for mode in FaultMode::ALL {
            assert!(Fault::pairs().any(|(_, possible)| possible == *mode), "{mode:?} can happen nowhere");
        }
        for operation in Operation::ALL.iter().filter(|operation| !operation.is_group()) {
            assert!(Fault::pairs().any(|(place, _)| place == *operation), "{operation:?} cannot go wrong");
        }
    }
}
