//! What a scenario says about organizations.

use serde::{Deserialize, Serialize};

/// An organization in which runners can be registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioOrganization {
    /// Its login.
    pub name: String,
    /// Its runner groups.
    pub groups: Vec<ScenarioGroup>,
}

/// A runner group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioGroup {
    /// Its id; unique within the organization.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// The repositories whose jobs its runners take; absent for all.
    #[serde(default)]
    pub repos: Option<Vec<String>>,
    /// Whether public ones are among them (default false, as on GitHub).
    #[serde(default)]
    pub public_repos: bool,
    /// The workflows whose jobs its runners take, as `owner/name/path@ref`; absent for all.
    #[serde(default)]
    pub workflows: Option<Vec<String>>,
}

impl ScenarioGroup {
    /// Whether its runners take jobs of a repository, named in whatever case, as far as its name goes.
    pub(in crate::sim) fn names(&self, repo: &str) -> bool {
        self.repos.as_ref().is_none_or(|repos| repos.iter().any(|name| name.eq_ignore_ascii_case(repo)))
    }

    /// Whether its runners take jobs of a workflow of a repository, as of a branch.
    pub(in crate::sim) fn runs(&self, repo: &str, path: &str, branch: &str) -> bool {
        let is_it = |selected: &String| {
            let Some((file, at)) = selected.split_once('@') else { return false };
            let in_repo = file.get(..repo.len()).is_some_and(|name| name.eq_ignore_ascii_case(repo));
            in_repo
                && file[repo.len()..].strip_prefix('/') == Some(path)
                && (at == branch || at == format!("refs/heads/{branch}"))
        };
        self.workflows.as_ref().is_none_or(|selected| selected.iter().any(is_it))
    }
}
