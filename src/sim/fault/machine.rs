//! What befalls the machine or the process of a controller.
//!
//! The World only says that it is due: between two calls, which it counts like those of any other fault. Whoever runs
//! the controller carries it out, and learns of it by [`World::befallen`] or [`World::take_befallen`]: `demo` does, and
//! so do tests. `simulate` runs no controller and refuses the names ([`World::refuse_mishaps`]).

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Fault, InvalidFault};
use crate::sim::draws::{Purpose, Seed, seconds};
use crate::sim::history::{Operation, What};
use crate::sim::jobs::Time;
use crate::sim::world::{State, World};

/// From when on it may happen where nothing else is said: the work is under way then.
const FROM_SECS: f64 = 60.0;
/// The chance of each call where nothing else is said, so that it hits another moment of the work with every seed.
const RATE: f64 = 0.02;
/// Keeps the draws apart from those of other faults.
const DRAWS: u64 = 1 << 63;

listed_enum! {
    /// Something that befalls a machine or a process. After all but the second controller, the controller is killed
    /// and started again.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Mishap {
        /// Nothing else.
        ControllerKilled,
        /// Another controller with the same configuration is started beside it, and stays.
        SecondController,
        /// The machine's clock jumps ahead by an hour.
        ClockHourAhead,
        /// The machine's clock jumps back by an hour.
        ClockHourBehind,
        /// The machine's clock jumps ahead by a day.
        ClockDayAhead,
        /// The machine's clock jumps back by a day.
        ClockDayBehind,
        /// The state directory is gone.
        StateLost,
        /// Of each file in the state directory half is left.
        StateCorrupt,
        /// The files in the state directory are of a later version.
        StateFromFuture,
        /// The files in the state directory can be read, and none can be written any more.
        StateReadOnly,
        /// The files in the state directory are empty, and nothing can be written any more.
        StateFull,
    }
}

impl Mishap {
    /// Its name, as it stands in scenarios and in the history.
    pub fn name(self) -> &'static str {
        self.told().0
    }

    /// What happens, in a sentence.
    pub fn description(self) -> &'static str {
        self.told().1
    }

    /// The one of a name.
    pub(super) fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mishap| mishap.name() == name)
    }

    fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::ControllerKilled => {
                ("controller_killed", "The controller is killed between two of its calls, and started again.")
            }
            Self::SecondController => {
                ("second_controller", "A second controller with the same configuration is started beside the first.")
            }
            Self::ClockHourAhead => ("clock_hour_ahead", "The machine's clock jumps ahead by an hour."),
            Self::ClockHourBehind => ("clock_hour_behind", "The machine's clock jumps back by an hour."),
            Self::ClockDayAhead => ("clock_day_ahead", "The machine's clock jumps ahead by a day."),
            Self::ClockDayBehind => ("clock_day_behind", "The machine's clock jumps back by a day."),
            Self::StateLost => ("state_lost", "The state directory is gone."),
            Self::StateCorrupt => ("state_corrupt", "Of each file in the state directory half is left."),
            Self::StateFromFuture => ("state_from_future", "The files in the state directory are of a later version."),
            Self::StateReadOnly => {
                ("state_read_only", "The state directory can be read, and nothing can be written there any more.")
            }
            Self::StateFull => {
                ("state_full", "The files in the state directory are empty, and nothing can be written any more.")
            }
        }
    }

    /// By how much the machine's clock jumps.
    pub fn clock_jump(self) -> TimeDelta {
        match self {
            Self::ClockHourAhead => TimeDelta::hours(1),
            Self::ClockHourBehind => TimeDelta::hours(-1),
            Self::ClockDayAhead => TimeDelta::days(1),
            Self::ClockDayBehind => TimeDelta::days(-1),
            Self::ControllerKilled
            | Self::SecondController
            | Self::StateLost
            | Self::StateCorrupt
            | Self::StateFromFuture
            | Self::StateReadOnly
            | Self::StateFull => TimeDelta::zero(),
        }
    }

    /// How often it happens where nothing else is said. What makes later saves fail shows at a further start.
    fn times(self) -> u32 {
        match self {
            Self::ControllerKilled => 3,
            Self::StateFromFuture | Self::StateReadOnly | Self::StateFull => 2,
            Self::SecondController
            | Self::ClockHourAhead
            | Self::ClockHourBehind
            | Self::ClockDayAhead
            | Self::ClockDayBehind
            | Self::StateLost
            | Self::StateCorrupt => 1,
        }
    }
}

/// A mishap that befell the machine of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Befallen {
    /// The process by its number as a client; 0 where that is not known.
    pub client: u32,
    /// What happened.
    pub mishap: Mishap,
}

/// A mishap with its limits, which are those of [`Fault`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MachineFault {
    pub(super) mishap: Mishap,
    pub(super) times: u32,
    pub(super) after: u32,
    pub(super) rate: f64,
    pub(super) from_secs: f64,
    pub(super) until_secs: Option<f64>,
    pub(super) client: Option<u32>,
    /// The calls before which it may happen; none for any.
    pub(super) operation: Option<Operation>,
}

impl MachineFault {
    /// With the limits that it has where nothing else is said.
    pub(super) fn new(mishap: Mishap) -> Self {
        let times = mishap.times();
        Self {
            mishap,
            times,
            after: 0,
            rate: RATE,
            from_secs: FROM_SECS,
            until_secs: None,
            client: None,
            operation: None,
        }
    }
}

#[derive(Debug)]
struct Awaited {
    fault: MachineFault,
    from: Time,
    until: Option<Time>,
    serial: u64,
    calls: u64,
}

/// The mishaps that wait for a call, and those that nobody has carried out yet.
#[derive(Debug, Default)]
pub(in crate::sim) struct Mishaps {
    awaited: Vec<Awaited>,
    added: u64,
    befallen: VecDeque<Befallen>,
    news: Arc<Notify>,
    /// Nobody here runs a controller.
    are_refused: bool,
}

impl Mishaps {
    pub(super) fn add(&mut self, fault: MachineFault, now: Time) -> Result<(), InvalidFault> {
        if self.are_refused {
            return Err(InvalidFault::NoMachine { mishap: fault.mishap });
        }
        self.added += 1;
        let at = |secs| now + seconds(secs);
        let (from, until) = (at(fault.from_secs), fault.until_secs.map(at));
        self.awaited.push(Awaited { fault, from, until, serial: self.added, calls: 0 });
        Ok(())
    }

    /// Takes out what waits. What befell is still to be carried out.
    pub(super) fn clear(&mut self) {
        self.awaited.clear();
    }

    /// Counts a call, and tells what befalls the machine that it comes from.
    fn strike(&mut self, (client, operation): (u32, Operation), now: Time, seed: Seed) -> Option<Mishap> {
        self.awaited.retain(|awaited| awaited.until.is_none_or(|until| now < until));
        let index = self.awaited.iter_mut().position(|Awaited { fault, from, serial, calls, .. }| {
            let is_other = |meant| meant != operation && Some(meant) != operation.group();
            if *from > now || fault.client.is_some_and(|meant| meant != client) || fault.operation.is_some_and(is_other)
            {
                return false;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return false;
            }
            *calls += 1;
            let key = DRAWS | *serial << 40 | *calls;
            fault.rate >= 1.0 || seed.stream(Purpose::Fault, key).chance(fault.rate)
        })?;
        let fault = &mut self.awaited[index].fault;
        let mishap = fault.mishap;
        if fault.times != Fault::UNLIMITED {
            fault.times -= 1;
            if fault.times == 0 {
                self.awaited.remove(index);
            }
        }
        Some(mishap)
    }
}

impl State {
    /// Lets befall the machine of `client` what is due before a call of its.
    pub(in crate::sim) fn befall(&mut self, client: u32, operation: Operation) -> Option<Mishap> {
        if self.mishaps.awaited.is_empty() {
            return None;
        }
        let mishap = self.mishaps.strike((client, operation), self.now, self.seed)?;
        self.record(What::MachineStruck { client, mishap });
        self.mishaps.befallen.push_back(Befallen { client, mishap });
        self.mishaps.news.notify_one();
        Some(mishap)
    }
}

impl World {
    /// What befell the machine of a controller and was not taken yet.
    pub fn take_befallen(&self) -> Option<Befallen> {
        self.with(|state| state.mishaps.befallen.pop_front())
    }

    /// Waits for what befalls the machine of a controller next.
    pub async fn befallen(&self) -> Befallen {
        let news = self.with(|state| Arc::clone(&state.mishaps.news));
        loop {
            if let Some(befallen) = self.take_befallen() {
                return befallen;
            }
            news.notified().await;
        }
    }

    /// Says that nobody here runs a controller: what could befall its machine is refused from now on.
    ///
    /// # Errors
    /// [`InvalidFault::NoMachine`] where something of the kind waits already.
    pub fn refuse_mishaps(&self) -> Result<(), InvalidFault> {
        self.with(|state| {
            state.mishaps.are_refused = true;
            let waiting = state.mishaps.awaited.first().map(|awaited| awaited.fault.mishap);
            waiting.map_or(Ok(()), |mishap| Err(InvalidFault::NoMachine { mishap }))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::DateTime;

    use super::super::NamedFault;
    use super::*;

    fn with(fault: MachineFault) -> Mishaps {
        let mut mishaps = Mishaps::default();
        mishaps.add(fault, DateTime::UNIX_EPOCH).unwrap();
        mishaps
    }

    /// Whether something happens before a call at a second.
    fn strikes(mishaps: &mut Mishaps, client: u32, second: i64) -> bool {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        mishaps.strike((client, Operation::Create), now, Seed::new(1)).is_some()
    }

    #[test]
    fn every_mishap_has_a_name_that_nothing_else_has() {
        let mut names: BTreeSet<&str> = NamedFault::all().map(|fault| fault.name).collect();
        for mishap in Mishap::ALL {
            assert!(names.insert(mishap.name()), "{mishap:?}");
            assert_eq!(serde_json::to_value(mishap).unwrap(), mishap.name());
            assert_eq!(Mishap::find(mishap.name()), Some(*mishap));
            assert!(mishap.description().ends_with('.'), "{mishap:?}");
        }
    }

    #[test]
    fn it_happens_within_its_limits() {
        let fault = MachineFault {
            times: 2,
            after: 1,
            rate: 1.0,
            from_secs: 10.0,
            until_secs: Some(20.0),
            client: Some(2),
            ..MachineFault::new(Mishap::ControllerKilled)
        };
        let mut mishaps = with(fault.clone());
        let calls = [(2, 9), (1, 10), (2, 10), (2, 11), (2, 12), (2, 13)];
        let struck = calls.map(|(client, second)| strikes(&mut mishaps, client, second));
        assert_eq!(struck, [false, false, false, true, true, false]);
        assert!(!strikes(&mut with(MachineFault { after: 0, ..fault }), 2, 20));
    }

    #[test]
    fn it_happens_before_the_calls_that_are_meant() {
        let before = |operation| {
            let fault = MachineFault { operation: Some(operation), ..MachineFault::new(Mishap::StateLost) };
            strikes(&mut with(MachineFault { rate: 1.0, ..fault }), 1, 60)
        };
        assert_eq!([Operation::Create, Operation::Modal, Operation::Mint].map(before), [true, true, false]);
    }

    #[test]
    fn a_chance_per_call_hits_as_often_as_stated() {
        let fault = MachineFault { times: Fault::UNLIMITED, rate: 0.1, ..MachineFault::new(Mishap::StateLost) };
        let mut mishaps = with(fault);
        let struck = (0..1_000).filter(|_| strikes(&mut mishaps, 1, 60)).count();
        assert!((70..130).contains(&struck), "{struck}");
    }

    #[test]
    fn where_nobody_runs_a_controller_nothing_befalls_its_machine() {
        let mut mishaps = Mishaps { are_refused: true, ..Mishaps::default() };
        let refused = mishaps.add(MachineFault::new(Mishap::StateFull), DateTime::UNIX_EPOCH).unwrap_err();
        assert!(refused.to_string().contains("sandrunner demo --faults state_full"), "{refused}");
    }
}
