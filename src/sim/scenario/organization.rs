//! What a scenario says about organizations.

use serde::{Deserialize, Serialize};

use super::ScenarioError;

/// An organization in which runners can be registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioOrganization {
    /// Its login.
    pub name: String,
    /// Its runner groups.
    pub groups: Vec<ScenarioGroup>,
}

impl ScenarioOrganization {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let wrong = self.groups.iter().find_map(|group| Some((group.id, group.problem()?)));
        wrong.map_or(Ok(()), |(group, reason)| {
            Err(ScenarioError::Group { organization: self.name.clone(), group, reason })
        })
    }
}

/// Which repositories a runner group admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupVisibility {
    /// All of the organization.
    All,
    /// Those that are not public.
    Private,
    /// Those that it names.
    Selected,
}

/// A runner group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioGroup {
    /// Its id; unique within the organization.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Which repositories it admits (default those in `repos`, or all where that is absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<GroupVisibility>,
    /// The repositories whose jobs its runners take; stated where they are selected, and only there.
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
    /// Which repositories it admits.
    pub(in crate::sim) fn visibility(&self) -> GroupVisibility {
        let default = if self.repos.is_some() { GroupVisibility::Selected } else { GroupVisibility::All };
        self.visibility.unwrap_or(default)
    }

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

    /// What is wrong with it.
    pub(in crate::sim) fn problem(&self) -> Option<&'static str> {
        match (self.visibility(), &self.repos) {
            (GroupVisibility::Selected, None) => Some("`selected` needs `repos`"),
            (GroupVisibility::All | GroupVisibility::Private, Some(_)) => {
                Some("`repos` are stated for `selected` only")
            }
            (GroupVisibility::Private, None) if self.public_repos => Some("`private` admits no `public_repos`"),
            (GroupVisibility::Selected, Some(_)) | (GroupVisibility::All | GroupVisibility::Private, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn group(fields: &Value) -> ScenarioGroup {
        let mut body = json!({ "id": 4, "name": "Modal" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn a_group_names_repositories_where_they_are_selected_and_only_there() {
        let problem = |fields| group(&fields).problem();
        assert_eq!(problem(json!({ "visibility": "selected" })), Some("`selected` needs `repos`"));
        let stated = problem(json!({ "visibility": "all", "repos": [] }));
        assert_eq!(stated, Some("`repos` are stated for `selected` only"));
        assert_eq!(problem(json!({ "repos": [] })), None);
        let public = problem(json!({ "visibility": "private", "public_repos": true }));
        assert_eq!(public, Some("`private` admits no `public_repos`"));
        assert_eq!(problem(json!({ "visibility": "private" })), None);
    }
}
