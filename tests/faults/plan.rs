//! What is done to a base scenario: faults and kills, each at one call.
//!
//! A plan is written as `one mint#1=reply_lost create#2!after_applied`: the scenario, then for each fault the
//! operation, which of its calls (counted from 1, only those at which the fault can strike), and `=` the mode of
//! the fault or `!` the step at which the process is killed or `~` what befalls its machine before. A mode may be followed
//! by a status and a duration: `one mint#1=refused:409 create#1=slow:200s mint#2~clock_hour_ahead`.

use std::fmt;
use std::str::FromStr;

use sandrunner::sim::{Crash, CrashPhase, Fault, FaultRequest, Mishap, Operation, World};
use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

use crate::base::Base;
use crate::flavour::Flavour;
use crate::lab::Keeping;
use crate::setup::Setup;

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// A fault.
    Fault(Flavour),
    /// The process that calls is killed.
    Kill(CrashPhase),
    /// Something befalls its machine.
    Mishap(Mishap),
}

impl Harm {
    /// Whether it is a mode with parameters.
    pub(crate) fn is_flavoured(self) -> bool {
        matches!(self, Self::Fault(flavour) if flavour != flavour.mode.into())
    }
}

/// One thing that goes wrong, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Placed {
    pub(crate) operation: Operation,
    /// Which call, from 1.
    pub(crate) nth: u32,
    pub(crate) harm: Harm,
}

/// A base scenario and what goes wrong in it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) base: &'static Base,
    pub(crate) harms: Vec<Placed>,
}

impl Plan {
    /// The base scenario with what the plan needs of the controllers.
    pub(crate) fn setup(&self) -> Setup {
        let mut setup = self.base.setup();
        let mishaps = || {
            self.harms.iter().filter_map(|placed| match placed.harm {
                Harm::Mishap(mishap) => Some(mishap),
                Harm::Fault(_) | Harm::Kill(_) => None,
            })
        };
        let joining = mishaps().filter(|mishap| *mishap == Mishap::SecondController).count();
        setup.joining = u32::try_from(joining).unwrap_or(u32::MAX);
        if mishaps().next().is_some() && setup.keeping == Keeping::Nothing {
            setup.keeping = Keeping::All;
        }
        setup
    }

    /// Puts everything into the World.
    pub(crate) fn put_in(&self, world: &World) {
        let mut harms = self.harms.clone();
        harms.sort_unstable_by_key(|placed| placed.nth);
        for (index, placed) in harms.iter().enumerate() {
            let Placed { operation, nth, harm } = *placed;
            match harm {
                Harm::Fault(flavour) => {
                    // A call that an earlier fault strikes is not counted for the later one.
                    let struck = |earlier: &&Placed| {
                        earlier.operation == operation && matches!(earlier.harm, Harm::Fault(_)) && earlier.nth < nth
                    };
                    let before = u32::try_from(harms[..index].iter().filter(struck).count()).unwrap_or(u32::MAX);
                    let fault = Fault { after: nth - 1 - before, ..flavour.at(operation) };
                    world.add_fault(fault).expect("only faults that can happen are planned");
                }
                Harm::Mishap(mishap) => {
                    let request = FaultRequest {
                        operation: Some(operation),
                        times: Some(1),
                        after: Some(nth - 1),
                        rate: Some(1.0),
                        from_secs: Some(0.0),
                        client: Some(1),
                        ..mishap.name().into()
                    };
                    world.add_fault(request).expect("it is put before a call");
                }
                Harm::Kill(phase) => {
                    world.crash_at(Crash { client: 1, operation: Some(operation), nth, phase });
                }
            }
        }
    }
}

/// The name of a variant, as serde writes it.
pub(crate) fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let name: StrDeserializer<'_, Error> = serde::de::IntoDeserializer::into_deserializer(text);
    T::deserialize(name).map_err(|error| format!("`{text}`: {error}"))
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, nth, harm } = self;
        write!(f, "{}#{nth}", operation.name())?;
        match harm {
            Harm::Fault(flavour) => write!(f, "={flavour}"),
            Harm::Kill(phase) => write!(f, "!{}", phase_name(*phase)),
            Harm::Mishap(mishap) => write!(f, "~{}", mishap.name()),
        }
    }
}

fn phase_name(phase: CrashPhase) -> String {
    serde_json::to_value(phase).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.name)?;
        self.harms.iter().try_for_each(|placed| write!(f, " {placed}"))
    }
}

impl FromStr for Placed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not of the form mint#1=reply_lost or mint#1!after_applied");
        let (operation, rest) = text.split_once('#').ok_or_else(wrong)?;
        let at = rest.find(['=', '!', '~']).ok_or_else(wrong)?;
        let (nth, name) = (rest[..at].parse().map_err(|_| wrong())?, &rest[at + 1..]);
        let harm = match rest.as_bytes()[at] {
            b'=' => Harm::Fault(name.parse()?),
            b'!' => Harm::Kill(named(name)?),
            _ => Harm::Mishap(named(name)?),
        };
        if nth == 0 { Err(wrong()) } else { Ok(Self { operation: named(operation)?, nth, harm }) }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or("a plan begins with its scenario")?;
        let base = Base::find(name).ok_or_else(|| format!("`{name}` is no base scenario"))?;
        Ok(Self { base, harms: words.map(str::parse).collect::<Result<_, _>>()? })
    }
}
