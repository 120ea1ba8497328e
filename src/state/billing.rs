//! What Modal says of sandboxes that ended, and of what it takes for them.

use chrono::{DateTime, Utc};

use super::ReadState;
use crate::cost::{Rates, Resources, Unrecognised};
use crate::ids::{ClassName, SandboxId};

/// A sandbox with our deployment's tag that ended. Its repository may be none of ours any more; it has cost something
/// all the same. Times are Modal's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its name.
    pub name: String,
    /// The GitHub account; empty where it is not told.
    pub account: String,
    /// The repository; empty where it is not told.
    pub repo: String,
    /// The file name of the workflow, where it is told.
    pub workflow: Option<String>,
    /// Its class.
    pub class: ClassName,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it started to run; none where it never did.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, where that is told.
    pub finished_at: Option<DateTime<Utc>>,
    /// Its resources, as far as they are told.
    pub resources: Resources,
}

/// Modal's rates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RatesView {
    /// How they were read.
    pub read: ReadState,
    /// What counts: what Modal told, and the configured table where that could not be understood; none before.
    pub rates: Option<Rates>,
    /// What is of the table.
    pub of_table: Unrecognised,
}
