//! What is known of the Secrets of sandboxes.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::AGREEMENT_APART;
use crate::ids::SecretId;
use crate::modal::Deletion;
use crate::state::Fleet;

/// Whether a Secret is still there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretState {
    /// It may be.
    #[default]
    MayExist,
    /// Modal did not know it; one such answer proves nothing (design rule I).
    NotThere {
        /// When it first said so.
        since: DateTime<Utc>,
    },
    /// It was deleted.
    Deleted,
}

impl SecretState {
    /// Whether it is time to delete it.
    pub fn is_due(self, now: DateTime<Utc>) -> bool {
        match self {
            Self::MayExist => true,
            Self::NotThere { since } => now - since >= AGREEMENT_APART,
            Self::Deleted => false,
        }
    }

    pub(super) fn after(self, found: Deletion, now: DateTime<Utc>) -> Self {
        match (found, self) {
            (Deletion::Done, _) | (_, Self::Deleted) => Self::Deleted,
            (Deletion::NotThere, Self::NotThere { since }) if now - since >= AGREEMENT_APART => Self::Deleted,
            (Deletion::NotThere, Self::NotThere { since }) => Self::NotThere { since },
            (Deletion::NotThere, Self::MayExist) => Self::NotThere { since: now },
        }
    }
}

/// Secrets that were deleted, or not found, by id: a name may be used again.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<SecretId, SecretState>);

impl Secrets {
    /// Whether a Secret is still there.
    pub fn state(&self, secret: &SecretId) -> SecretState {
        self.0.get(secret).copied().unwrap_or_default()
    }

    /// Takes the answer to a deletion.
    pub(super) fn learn(&mut self, secret: &SecretId, found: Deletion, now: DateTime<Utc>) {
        let state = self.state(secret).after(found, now);
        self.0.insert(secret.clone(), state);
    }

    /// Drops what belongs to no sandbox in view.
    pub(super) fn forget(&mut self, fleet: &Fleet) {
        let of_sandboxes = fleet.sandboxes.values().filter_map(|sandbox| sandbox.secret.as_ref());
        let in_view: BTreeSet<&SecretId> = of_sandboxes.chain(fleet.ended_secrets.keys()).collect();
        self.0.retain(|secret, _| in_view.contains(secret));
    }
}
