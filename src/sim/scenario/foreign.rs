//! What a scenario says about runners and sandboxes of others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::yes;

/// A self-hosted runner of someone else. While it is online it takes every job that its labels cover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignRunner {
    /// Its repository.
    pub repo: String,
    /// Its name; must not have the form of a name of ours.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Whether it is connected, all the time, or never (default true).
    #[serde(default = "yes")]
    pub online: bool,
}

/// A sandbox of someone else in the same App, without tags of ours. It lives as long as the World.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignSandbox {
    /// Its name; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}
