//! What was spent today, and what it rests on.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Usd;
use crate::class::{Machine, RunnerClass};
use crate::ids::ClassName;

/// For whom a sandbox ran.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payer {
    /// The repository; empty where it is not known.
    pub repo: String,
    /// The class.
    pub class: ClassName,
}

/// Whether it is known what was spent before this process began to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Known {
    /// Modal's list of ended sandboxes was not read yet: it is not nothing that was spent.
    #[default]
    NotYet,
    /// It was, once at least.
    Yes,
}

/// What was spent today, which ends at midnight UTC: what ended sandboxes cost within it, and what the living have cost so
/// far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spend {
    /// Whether the amounts are all there is.
    pub known: Known,
    /// In all.
    pub total: Usd,
    /// By class.
    pub by_class: BTreeMap<ClassName, Usd>,
    /// By repository and class.
    pub by_payer: BTreeMap<Payer, Usd>,
    /// What the living cost per hour, by class.
    pub rate: BTreeMap<ClassName, Usd>,
    /// What a sandbox costs per hour, by class and by the machines that it may be on; none where that is not known.
    pub prices: BTreeMap<ClassName, BTreeMap<Machine, Usd>>,
    /// When the day ends, by our clock.
    pub day_ends_at: DateTime<Utc>,
    /// From when on sandboxes are to be listed that ended, by Modal's clock; none where all are accounted.
    pub list_since: Option<DateTime<Utc>>,
}

impl Spend {
    /// Adds an amount of today.
    pub(super) fn add(&mut self, payer: Payer, usd: Usd) {
        self.total += usd;
        *self.by_class.entry(payer.class.clone()).or_default() += usd;
        *self.by_payer.entry(payer).or_default() += usd;
    }

    /// What a sandbox of a class costs per hour on its first choice of machine; none where that is not known.
    pub fn price(&self, class: &RunnerClass) -> Option<Usd> {
        let first = class.machines().into_iter().next()?;
        self.prices.get(&class.name)?.get(&first).copied()
    }

    /// What a class has cost today.
    pub fn of_class(&self, class: &ClassName) -> Usd {
        self.by_class.get(class).copied().unwrap_or_default()
    }

    /// What all that lives costs per hour.
    pub fn rate_in_all(&self) -> Usd {
        self.rate.values().copied().sum()
    }
}
