//! What Modal's workspace may use, and uses.

use chrono::{DateTime, TimeDelta, Utc};

use super::ReadState;

/// For how long it is believed that the spend limit is reached where no reading says it again: then a create tells.
const SPENT_HOLDS: TimeDelta = TimeDelta::minutes(30);

/// For how long it is believed how many GPUs are in use; while they are short it is read once a minute.
const GPUS_HOLD: TimeDelta = TimeDelta::minutes(2);

/// The quota of the environment that holds our sandboxes, as Modal states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The environment.
    pub environment: String,
    /// The most containers at a time, of whomever; none where Modal states no limit.
    pub max_tasks: Option<u32>,
    /// Those that run.
    pub tasks: u32,
    /// The most GPUs at a time, of whomever; none where Modal states no limit.
    pub max_gpus: Option<u32>,
    /// Those in use.
    pub gpus: u32,
    /// Whether the spend limit of the cycle is reached, so that Modal starts nothing more.
    pub spend: Spend,
}

/// How the spend limit stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spend {
    /// There is money left.
    #[default]
    Within,
    /// There is none.
    LimitReached,
}

/// The quota with its reading.
#[derive(Debug, Clone, Default)]
pub struct QuotaView {
    /// How it was read.
    pub read: ReadState,
    /// As last read.
    pub known: Option<Quota>,
}

impl QuotaView {
    /// Whether a reading says that the spend limit is reached, and none since that it is not.
    pub fn is_spent(&self, now: DateTime<Utc>) -> bool {
        let is_fresh = self.read.known_at.is_some_and(|at| now - at < SPENT_HOLDS);
        is_fresh && self.known.as_ref().is_some_and(|quota| quota.spend == Spend::LimitReached)
    }

    /// How many GPUs are in use, and may be, where a fresh reading says that there is no room for so many more.
    pub fn gpus_without_room(&self, more: u32, now: DateTime<Utc>) -> Option<(u32, u32)> {
        let is_fresh = self.read.known_at.is_some_and(|at| now - at < GPUS_HOLD);
        let quota = self.known.as_ref().filter(|_| is_fresh)?;
        let most = quota.max_gpus?;
        (quota.gpus.saturating_add(more) > most).then_some((quota.gpus, most))
    }
}
