//! What can be asked for: a fault by name, in full, or as knobs that differ for a while.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::catalogue::NamedFault;
use super::machine::{MachineFault, Mishap};
use super::{Fault, FaultMode, InvalidFault, wrong_limits};
use crate::sim::history::Operation;
use crate::sim::profile::Profile;

/// A fault as it is asked for: a name of the catalogue, or `operation` and `mode`, or `knobs`, or the name of a
/// [`Mishap`]. What is stated beside a name replaces what the catalogue says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct FaultRequest {
    /// A name of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where; beside a name, the one of its places that is meant; beside a [`Mishap`], before which calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FaultMode>,
    /// Knobs of the profile and what they are meanwhile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub knobs: BTreeMap<String, Value>,
    /// How often; by default once, and without limit where `rate` or `until_secs` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many calls go well before (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// The chance of each call to go wrong (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// When it begins, in seconds from its being put in (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_secs: Option<f64>,
    /// When it ends, in seconds from its being put in (default never).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_secs: Option<f64>,
    /// A duration, where the mode has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The HTTP status or gRPC code, where the mode has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The one repository that it concerns (default all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The one process that it concerns, by its number as a client (default all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<u32>,
}

/// What a request comes to.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) faults: Vec<Fault>,
    pub(super) mishap: Option<MachineFault>,
    pub(super) knobs: BTreeMap<String, Value>,
    pub(super) from_secs: f64,
    pub(super) until_secs: Option<f64>,
}

impl From<Fault> for FaultRequest {
    fn from(fault: Fault) -> Self {
        Self {
            name: (!fault.name.is_empty()).then(|| fault.name.to_owned()),
            operation: Some(fault.operation),
            mode: Some(fault.mode),
            knobs: BTreeMap::new(),
            times: Some(fault.times),
            after: Some(fault.after),
            rate: Some(fault.rate),
            from_secs: Some(fault.from_secs),
            until_secs: fault.until_secs,
            seconds: fault.seconds,
            status: fault.status,
            repo: fault.repo,
            client: fault.client,
        }
    }
}

impl From<&str> for FaultRequest {
    fn from(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }
}

impl FaultRequest {
    /// Refuses what could never take effect.
    pub(in crate::sim) fn check(&self) -> Result<(), InvalidFault> {
        self.resolved().map(|_| ())
    }

    pub(super) fn resolved(&self) -> Result<Resolved, InvalidFault> {
        if let Some(mishap) = self.name.as_deref().and_then(Mishap::find) {
            return self.of_machine(mishap);
        }
        let incomplete = |reason| Err(InvalidFault::Incomplete(reason));
        let mut knobs = self.knobs.clone();
        let mut until_secs = self.until_secs;
        let faults = match (&self.name, self.operation, self.mode) {
            (Some(name), operation, mode) => {
                let named = NamedFault::find(name)?;
                let is_meant = |fault: &Fault| {
                    operation.is_none_or(|operation| fault.operation == operation)
                        && mode.is_none_or(|mode| fault.mode == mode)
                };
                let faults: Vec<Fault> = named.faults().filter(is_meant).collect();
                if faults.is_empty() && named.knobs.is_empty() {
                    return incomplete("the named fault does not happen at this operation or in this mode");
                }
                for (knob, value) in named.knob_values() {
                    knobs.entry(knob.to_owned()).or_insert(value);
                }
                until_secs = until_secs.or(named.knobs_until_secs);
                faults
            }
            (None, Some(operation), Some(mode)) => {
                let is_limited_otherwise = self.rate.is_some() || self.until_secs.is_some();
                let times = if is_limited_otherwise { Fault::UNLIMITED } else { 1 };
                vec![Fault { times, ..Fault::new(operation, mode) }]
            }
            (None, None, None) if !knobs.is_empty() => Vec::new(),
            (None, _, _) => return incomplete("a fault needs `name`, or `operation` and `mode`, or `knobs`"),
        };
        Profile::realistic().overridden(&knobs)?;
        let faults = faults.into_iter().map(|fault| self.applied_to(fault).checked()).collect::<Result<_, _>>()?;
        Ok(Resolved { faults, mishap: None, knobs, from_secs: self.from_secs.unwrap_or_default(), until_secs })
    }

    fn of_machine(&self, mishap: Mishap) -> Result<Resolved, InvalidFault> {
        let Self { name: _, operation, mode, knobs, seconds, status, repo, .. } = self;
        let is_of_calls = mode.is_some() || seconds.is_some() || status.is_some();
        if is_of_calls || repo.is_some() || !knobs.is_empty() {
            let takes = "what befalls a machine takes `operation`, `times`, `after`, `rate`, `from_secs`, `until_secs` and \
                         `client`";
            return Err(InvalidFault::Incomplete(takes));
        }
        if operation.is_some_and(|operation| !operation.is_call() && !operation.is_group()) {
            return Err(InvalidFault::Incomplete("what befalls a machine does so before a call"));
        }
        let usual = MachineFault::new(mishap);
        let fault = MachineFault {
            mishap,
            times: self.times.unwrap_or(usual.times),
            after: self.after.unwrap_or(usual.after),
            rate: self.rate.unwrap_or(usual.rate),
            from_secs: self.from_secs.unwrap_or(usual.from_secs),
            until_secs: self.until_secs.or(usual.until_secs),
            client: self.client.or(usual.client),
            operation: *operation,
        };
        if let Some(reason) = wrong_limits(fault.times, fault.rate, fault.from_secs, fault.until_secs) {
            return Err(InvalidFault::Incomplete(reason));
        }
        let mishap = Some(fault);
        Ok(Resolved { faults: Vec::new(), mishap, knobs: BTreeMap::new(), from_secs: 0.0, until_secs: None })
    }

    /// The fault with what is stated here.
    fn applied_to(&self, fault: Fault) -> Fault {
        Fault {
            times: self.times.unwrap_or(fault.times),
            after: self.after.unwrap_or(fault.after),
            rate: self.rate.unwrap_or(fault.rate),
            from_secs: self.from_secs.unwrap_or(fault.from_secs),
            until_secs: self.until_secs.or(fault.until_secs),
            seconds: self.seconds.or(fault.seconds),
            status: self.status.or(fault.status),
            repo: self.repo.clone().or(fault.repo),
            client: self.client.or(fault.client),
            ..fault
        }
    }
}

impl<'de> Deserialize<'de> for FaultRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrTable)
    }
}

impl Serialize for FaultRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Reads a text as a name, and a table field by field.
struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = FaultRequest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a fault, or a fault")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<FaultRequest, E> {
        Ok(FaultRequest::from(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FaultRequest, A::Error> {
        FaultRequest::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(request: Value) -> Result<Vec<Fault>, String> {
        let request: FaultRequest = serde_json::from_value(request).map_err(|error| error.to_string())?;
        let text = serde_json::to_value(&request).unwrap();
        assert_eq!(serde_json::from_value::<FaultRequest>(text).unwrap(), request);
        request.resolved().map(|resolved| resolved.faults).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fault_is_asked_for_by_name_or_in_full() {
        let named = faults(json!("mint_reply_lost")).unwrap();
        assert_eq!((named[0].operation, named[0].mode), (Operation::Mint, FaultMode::ReplyLost));
        assert_eq!(named[0].name, "mint_reply_lost");
        let changed = faults(json!({ "name": "mint_reply_lost", "times": 7, "repo": "acme/web" })).unwrap();
        assert_eq!((changed[0].times, changed[0].repo.as_deref()), (7, Some("acme/web")));
        let full = faults(json!({ "operation": "mint", "mode": "error", "status": 503 })).unwrap();
        assert_eq!((full[0].times, full[0].status), (1, Some(503)));
        let lasting = faults(json!({ "operation": "mint", "mode": "error", "until_secs": 60 })).unwrap();
        assert_eq!(lasting[0].times, Fault::UNLIMITED);
    }

    #[test]
    fn what_befalls_a_machine_is_asked_for_by_its_name() {
        let request: FaultRequest = serde_json::from_value(json!({ "name": "clock_day_ahead", "times": 3 })).unwrap();
        let mishap = request.resolved().unwrap().mishap.unwrap();
        assert_eq!(mishap, MachineFault { times: 3, ..MachineFault::new(Mishap::ClockDayAhead) });
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        let refused = |request| faults(request).unwrap_err();
        let unknown = refused(json!("mint_replay_lost"));
        assert!(unknown.starts_with("`mint_replay_lost` is no fault, but there is `mint_reply_lost`"), "{unknown}");
        assert!(refused(json!({ "operation": "mint" })).contains("`operation` and `mode`"));
        assert!(refused(json!({ "name": "mint_reply_lost", "operation": "list_runs" })).contains("does not happen"));
        assert!(refused(json!({ "knobs": { "busy": 1 } })).contains("knobs"));
        assert!(refused(json!({ "operation": "mint", "mode": "error", "often": 1 })).contains("often"));
        assert!(refused(json!(7)).contains("the name of a fault"));
        assert!(
            refused(json!({ "name": "state_lost", "seconds": 3 })).contains("what befalls a machine takes `operation`")
        );
        // It does not begin earlier than that by itself.
        assert!(refused(json!({ "name": "state_lost", "until_secs": 30 })).contains("`until_secs` must be after it"));
        assert!(refused(json!("state_loss")).contains("`state_lost`"));
    }
}
