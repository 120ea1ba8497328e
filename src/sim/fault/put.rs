//! How faults get into a World, strike, and are taken out again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::request::Resolved;
use super::{FaultMode, FaultRequest, InvalidFault, Site, Strike};
use crate::sim::draws::seconds;
use crate::sim::engine::Due;
use crate::sim::history::{Operation, What};
use crate::sim::profile::Profile;
use crate::sim::world::State;

/// The profile as the World began with it, and the knobs that differ at present, in the order of their change.
#[derive(Debug)]
pub(in crate::sim) struct Knobs {
    profile: Profile,
    changes: BTreeMap<u64, Change>,
    added: u64,
}

#[derive(Debug)]
struct Change {
    values: BTreeMap<String, Value>,
    has_begun: bool,
}

impl Knobs {
    pub(in crate::sim) fn new(profile: Profile) -> Self {
        Self { profile, changes: BTreeMap::new(), added: 0 }
    }
}

impl State {
    /// Counts one use of `operation` in `repo`, and tells the fault that strikes it.
    pub(in crate::sim) fn strike(&mut self, operation: Operation, repo: &str) -> Option<Strike> {
        self.strike_where(operation, repo, |_, _| true)
    }

    /// The same for modes that can take effect at this very use only.
    pub(in crate::sim) fn strike_where(
        &mut self,
        operation: Operation,
        repo: &str,
        can: impl Fn(&Self, FaultMode) -> bool,
    ) -> Option<Strike> {
        if self.faults.is_empty() {
            return None;
        }
        // Whether one can strike is for the rest of the state to say.
        let mut faults = std::mem::take(&mut self.faults);
        let strike =
            faults.strike(Site { operation, repo, client: self.caller }, self.now, self.seed, |mode| can(self, mode));
        self.faults = faults;
        let (mode, fault) = (strike?.mode, Arc::from(strike?.name));
        self.record(What::FaultStruck { operation, mode, fault, subject: repo.into() });
        strike
    }

    /// Puts in what is asked for; nothing where it cannot be.
    pub(in crate::sim) fn put_in(&mut self, request: &FaultRequest) -> Result<(), InvalidFault> {
        let Resolved { faults, mishap, knobs, from_secs, until_secs } = request.resolved()?;
        let now = self.now;
        if let Some(mishap) = mishap {
            self.mishaps.add(mishap, now)?;
        }
        for fault in faults {
            self.record(What::FaultAdded { operation: fault.operation, mode: fault.mode, fault: fault.name.into() });
            self.faults.add(fault, now);
        }
        if !knobs.is_empty() {
            self.knobs.added += 1;
            let id = self.knobs.added;
            self.knobs.changes.insert(id, Change { values: knobs, has_begun: false });
            self.schedule(now + seconds(from_secs), Due::KnobsChange(id));
            if let Some(until) = until_secs {
                self.schedule(now + seconds(until), Due::KnobsReturn(id));
            }
            self.advance(now);
        }
        Ok(())
    }

    /// Takes all faults out. What one has already brought about takes its course.
    pub(in crate::sim) fn clear_faults(&mut self) {
        self.faults.clear();
        self.mishaps.clear();
        self.release_all();
        if !std::mem::take(&mut self.knobs.changes).is_empty() {
            self.turn_knobs();
        }
        self.record(What::FaultsCleared);
        self.advance(self.now);
    }

    pub(in crate::sim) fn change_knobs(&mut self, id: u64) {
        if let Some(change) = self.knobs.changes.get_mut(&id) {
            change.has_begun = true;
            self.turn_knobs();
        }
    }

    pub(in crate::sim) fn return_knobs(&mut self, id: u64) {
        if self.knobs.changes.remove(&id).is_some() {
            self.turn_knobs();
        }
    }

    fn turn_knobs(&mut self) {
        let begun = self.knobs.changes.values().filter(|change| change.has_begun);
        let knobs: BTreeMap<String, Value> = begun.flat_map(|change| change.values.clone()).collect();
        // Each change is possible by itself; two that are not together leave the profile as it began.
        self.profile = self.knobs.profile.clone().overridden(&knobs).unwrap_or_else(|_| self.knobs.profile.clone());
        self.record(What::KnobsChanged { knobs });
    }
}
