//! What a scenario says about the App.

use serde::{Deserialize, Serialize};

use super::ScenarioError;
use crate::ids::RepoName;
use crate::sim::app::{Grants, Permission};

/// The App at one owner, where something about it is special. At every other owner of a repository it is installed for
/// all repositories, with the permissions that Sandrunner needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioInstallation {
    /// The owner's login.
    pub owner: String,
    /// The repositories that it was given; absent for all, those that come later included.
    #[serde(default)]
    pub repos: Option<Vec<String>>,
    /// Whether the owner has suspended it (default false).
    #[serde(default)]
    pub suspended: bool,
    /// What the owner has granted (default all that Sandrunner needs).
    #[serde(default = "Permission::all_granted")]
    pub permissions: Grants,
}

impl ScenarioInstallation {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        for name in self.repos.iter().flatten() {
            let repo: RepoName = name.parse()?;
            if !repo.owner().eq_ignore_ascii_case(&self.owner) {
                return Err(ScenarioError::Installation { owner: self.owner.clone(), repo: name.clone() });
            }
        }
        Ok(())
    }
}
