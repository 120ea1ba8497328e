//! What a scenario says about a repository.

use serde::{Deserialize, Serialize};

use super::yes;

/// A repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRepo {
    /// `owner/name`.
    pub name: String,
    /// Whether the controller is meant to serve it (default true).
    #[serde(default = "yes")]
    pub allowed: bool,
    /// What GitHub says of it.
    #[serde(default)]
    pub about: RepoAbout,
}

impl ScenarioRepo {
    /// A private repository that the controller is meant to serve.
    pub fn served(name: impl Into<String>) -> Self {
        Self { name: name.into(), allowed: true, about: RepoAbout::default() }
    }

    /// The same for everybody to read.
    #[must_use]
    pub fn public(self) -> Self {
        Self { about: RepoAbout { visibility: Visibility::Public, ..self.about }, ..self }
    }
}

/// Who may see a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Those who were given access.
    #[default]
    Private,
    /// All members of the enterprise.
    Internal,
    /// Everybody.
    Public,
}

/// What GitHub says of a repository itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "GitHub's own fields")]
pub struct RepoAbout {
    /// Who may see it (default private).
    pub visibility: Visibility,
    /// Whether it is read-only (default false).
    pub archived: bool,
    /// Whether GitHub has disabled it (default false).
    pub disabled: bool,
    /// Whether it is a fork of another (default false).
    pub fork: bool,
}
