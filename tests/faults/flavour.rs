//! How exactly a fault goes wrong: its mode, a status and a duration where they are not the mode's own, and for how many
//! calls in a row.
//!
//! Written as `error:503`, `slow:200s`, `rate_limited:429:60s` or `wrong_not_modified*3`. What goes into plans beside each mode by itself is
//! what the faults of the catalogue say, and several ages of everything that lags.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sandrunner::sim::{Fault, FaultMode, NamedFault, Operation};

use crate::enumerate::Tally;
use crate::plan::{Harm, named};

/// Modes that would last until all faults are taken out.
const LASTING: [FaultMode; 3] = [FaultMode::Ghost, FaultMode::RunCompleted, FaultMode::Withheld];
/// How long they last.
const LASTING_SECS: f64 = 600.0;
/// Limits that do not say how long they last. They are met with pauses that double, so that a long one costs longer than
/// single faults may; here each lasts for its minute.
const UNSAID: [FaultMode; 2] = [FaultMode::RateLimitedBare, FaultMode::PrimaryLimitedBare];
/// Modes in which something is shown, or happens, some time late; each draws how late where it is not said.
const LATE: [FaultMode; 3] = [FaultMode::Stale, FaultMode::BusyLate, FaultMode::TakenLate];
/// How late: less than a look takes, one or two looks, as long as a job lasts, and nearly as long as it can be.
const LATE_SECS: [f64; 4] = [5.0, 20.0, 50.0, 110.0];
/// A mode that is said not to last as long.
const TAKEN_LATE_SECS_MAX: f64 = 60.0;

/// What the controller asks for with the ETag of what it read before.
pub(crate) const CONDITIONAL: [Operation; 5] = [
    Operation::ListRuns,
    Operation::ListJobs,
    Operation::ListRunners,
    Operation::ListInstallationRepos,
    Operation::ListOrgRepos,
];
/// Nothing has changed, GitHub says so often: one such answer may well be true.
const UNCHANGED_TIMES: u32 = 3;

/// A mode with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flavour {
    pub(crate) mode: FaultMode,
    /// The HTTP status or gRPC code.
    status: Option<u16>,
    /// The duration.
    millis: Option<u32>,
    /// How many calls in a row it strikes.
    times: u32,
}

impl From<FaultMode> for Flavour {
    fn from(mode: FaultMode) -> Self {
        Self { mode, status: None, millis: None, times: 1 }
    }
}

impl Flavour {
    fn of(fault: &Fault) -> Self {
        let has_its_own = LASTING.contains(&fault.mode) || UNSAID.contains(&fault.mode);
        let secs = fault.seconds.filter(|_| !has_its_own);
        Self { status: fault.status, ..Self::from(fault.mode) }.lasting(secs)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "durations of at most hours")]
    fn lasting(self, secs: Option<f64>) -> Self {
        Self { millis: secs.map(|secs| (secs * 1e3).round() as u32), ..self }
    }

    fn is_plain(self) -> bool {
        self == Self::from(self.mode)
    }

    /// The fault that strikes an operation so.
    pub(crate) fn at(self, operation: Operation) -> Fault {
        let Self { mode, status, millis, times } = self;
        let said = millis.map(|millis| f64::from(millis) / 1e3);
        let seconds = said.or_else(|| LASTING.contains(&mode).then_some(LASTING_SECS));
        Fault { status, seconds, times, ..Fault::new(operation, mode) }
    }

    /// The ways in which an operation goes wrong beside each mode by itself.
    pub(crate) fn of_operation(operation: Operation) -> BTreeSet<Self> {
        let is_meant = |fault: &Fault| {
            let is_of_group = || {
                fault.operation.is_group() && operation.is_call() && fault.operation.service() == operation.service()
            };
            (fault.operation == operation || is_of_group()) && fault.mode.applies_to(operation)
        };
        let told = NamedFault::all().flat_map(NamedFault::faults).filter(is_meant).map(|fault| Self::of(&fault));
        let late = LATE.iter().filter(|mode| mode.applies_to(operation));
        let ages = late.flat_map(|mode| {
            let is_too_long = |secs: &f64| *mode == FaultMode::TakenLate && *secs > TAKEN_LATE_SECS_MAX;
            let secs = LATE_SECS.into_iter().filter(move |secs| !is_too_long(secs));
            secs.map(|secs| Self::from(*mode).lasting(Some(secs)))
        });
        let unchanged = Self { times: UNCHANGED_TIMES, ..Self::from(FaultMode::WrongNotModified) };
        let in_a_row = CONDITIONAL.contains(&operation).then_some(unchanged);
        told.chain(ages).chain(in_a_row).filter(|flavour| !flavour.is_plain()).collect()
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mode.name())?;
        if let Some(status) = self.status {
            write!(f, ":{status}")?;
        }
        if let Some(millis) = self.millis {
            write!(f, ":{}s", f64::from(millis) / 1e3)?;
        }
        if self.times == 1 { Ok(()) } else { write!(f, "*{}", self.times) }
    }
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (form, times) = text.split_once('*').unwrap_or((text, "1"));
        let times = times.parse().map_err(|_| format!("`{times}` in `{text}` is no number of calls"))?;
        let mut words = form.split(':');
        let mut flavour = Self { times, ..Self::from(named::<FaultMode>(words.next().unwrap_or_default())?) };
        for word in words {
            let wrong = || format!("`{word}` in `{text}` is neither a status nor a duration such as `90s`");
            match word.strip_suffix('s') {
                Some(secs) => flavour = flavour.lasting(Some(secs.parse().map_err(|_| wrong())?)),
                None => flavour.status = Some(word.parse().map_err(|_| wrong())?),
            }
        }
        Ok(flavour)
    }
}

impl Tally {
    /// Notes every flavour of an operation that was harmed at all, and never struck it.
    pub(crate) fn require_every_flavour(&mut self) {
        let harmed: BTreeSet<Operation> = self.fired.keys().map(|(operation, _)| *operation).collect();
        for operation in harmed {
            for flavour in Flavour::of_operation(operation) {
                if !self.fired.contains_key(&(operation, Harm::Fault(flavour))) {
                    self.unfired.insert(format!("{operation:?} {flavour} in any scenario"));
                }
            }
        }
    }
}
