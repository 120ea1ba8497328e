//! What was spent today, and how much may be.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::cost::{Known, Usd};
use crate::ids::ClassName;
use crate::plan::Policy;
use crate::state::Observed;

/// US dollars, by our own account of what sandboxes cost.
#[derive(Debug, Clone, Serialize)]
pub struct SpendStatus {
    /// Whether it is known what was spent today before the start.
    pub is_known: bool,
    /// Since midnight UTC.
    pub today: f64,
    /// Per hour, of what runs.
    pub per_hour: f64,
    /// `limits.spend_per_day`.
    pub limit: Option<f64>,
    /// When the day ends, and with it what was spent in it.
    pub resets_at: DateTime<Utc>,
    /// What of Modal's rates could not be understood, so that `[cost]` counts for it; none where Modal told no rates.
    pub rates_of_table: Option<Vec<String>>,
    /// Per class that has a limit or cost anything.
    pub classes: BTreeMap<ClassName, ClassSpend>,
}

/// US dollars of one class.
#[derive(Debug, Clone, Serialize)]
pub struct ClassSpend {
    /// Since midnight UTC.
    pub today: f64,
    /// Per hour, of what runs.
    pub per_hour: f64,
    /// Its `spend_per_day`.
    pub limit: Option<f64>,
    /// What one of its sandboxes costs per hour; none where that is not known.
    pub price: Option<f64>,
}

impl SpendStatus {
    pub(super) fn new(observed: &Observed, policy: &Policy) -> Self {
        let spend = &observed.spend;
        let limits = policy.classes.iter().filter(|class| class.spend_per_day.is_some()).map(|class| &class.name);
        let names = spend.by_class.keys().chain(spend.rate.keys()).chain(limits);
        let of = |name: &ClassName| ClassSpend {
            today: spend.of_class(name).dollars(),
            per_hour: spend.rate.get(name).copied().unwrap_or_default().dollars(),
            limit: policy.class(name).and_then(|class| class.spend_per_day).map(Usd::dollars),
            price: policy.class(name).and_then(|class| spend.price(class)).map(Usd::dollars),
        };
        Self {
            is_known: spend.known == Known::Yes,
            today: spend.total.dollars(),
            per_hour: spend.rate_in_all().dollars(),
            limit: policy.limits.spend_per_day.map(Usd::dollars),
            resets_at: spend.day_ends_at,
            rates_of_table: observed.rates.rates.is_some().then(|| observed.rates.of_table.iter().cloned().collect()),
            classes: names.map(|name| (name.clone(), of(name))).collect(),
        }
    }
}
