//! Runner groups as the owners of organizations change them.

use serde::Deserialize;
use serde_json::{Value, json};

use super::change::{ChangeError, stated};
use super::history::What;
use super::jobs::RepoKey;
use super::runners::RunnerKey;
use super::scenario::{GroupVisibility, ScenarioGroup};
use super::world::{State, World};

/// What an owner changes about a runner group; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupChange {
    /// Its name.
    pub name: Option<String>,
    /// Which repositories it admits.
    pub visibility: Option<GroupVisibility>,
    /// The repositories that it names, instead of those before.
    pub repos: Option<Vec<String>>,
    /// Whether it admits public ones.
    pub public_repos: Option<bool>,
    /// The workflows that it is kept to, as `owner/name/path@ref`; `Some(None)` (null) for all.
    #[serde(deserialize_with = "stated")]
    pub workflows: Option<Option<Vec<String>>>,
}

impl State {
    fn find_organization(&self, name: &str) -> Result<RepoKey, ChangeError> {
        let found = self.repo_by_name.get(name.to_lowercase().as_str()).copied();
        found.filter(|key| self.repo(*key).is_organization()).ok_or_else(|| {
            let known = self.repos.iter().filter(|repo| repo.is_organization());
            ChangeError::unknown("organization with runner groups", name, known.map(|repo| repo.full_name.clone()))
        })
    }

    fn change_group(&mut self, organization: &str, id: u64, change: &GroupChange) -> Result<(), ChangeError> {
        let key = self.find_organization(organization)?;
        let groups = &self.repo(key).groups;
        let index = groups.iter().position(|group| group.id == id).ok_or_else(|| {
            let known = groups.iter().map(|group| group.id.to_string());
            ChangeError::unknown("runner group", &id.to_string(), known)
        })?;
        let group = changed(&groups[index], change);
        let subject = format!("runner group {id} of {organization}");
        if let Some(problem) = group.problem() {
            return Err(ChangeError::impossible(subject, problem));
        }
        for name in change.repos.iter().flatten() {
            self.find_repo(name)?;
        }
        self.record(What::SettingChanged { subject: subject.into(), setting: "group".to_owned(), value: json!(group) });
        self.repo_mut(key).groups[index] = group;
        self.offer_all(key);
        Ok(())
    }

    /// Lets all runners that are registered there look for a job: they may reach others than before.
    pub(super) fn offer_all(&mut self, place: RepoKey) {
        let ids: Vec<u64> = self.repo(place).runners.keys().copied().collect();
        for id in ids {
            self.schedule_offer(RunnerKey { repo: place, id });
        }
    }

    fn told_organizations(&self) -> Value {
        let organizations = self.repos.iter().filter(|repo| repo.is_organization());
        organizations.map(|repo| json!({ "name": repo.full_name, "groups": repo.groups })).collect()
    }
}

fn changed(group: &ScenarioGroup, change: &GroupChange) -> ScenarioGroup {
    let GroupChange { name, visibility, repos, public_repos, workflows } = change;
    // What is said of the one decides the other.
    let (visibility, repos) = match (visibility, repos) {
        (None, None) => (group.visibility, group.repos.clone()),
        (None | Some(GroupVisibility::Selected), Some(repos)) => (Some(GroupVisibility::Selected), Some(repos.clone())),
        (Some(GroupVisibility::Selected), None) => (Some(GroupVisibility::Selected), group.repos.clone()),
        (Some(visibility), repos) => (Some(*visibility), repos.clone()),
    };
    ScenarioGroup {
        id: group.id,
        name: name.clone().unwrap_or_else(|| group.name.clone()),
        visibility,
        repos,
        public_repos: public_repos.unwrap_or(group.public_repos),
        workflows: workflows.clone().unwrap_or_else(|| group.workflows.clone()),
    }
}

impl World {
    /// Changes something about a runner group of an organization.
    ///
    /// # Errors
    /// [`ChangeError`] where there is no such organization, group or repository, or the group cannot be so.
    pub fn change_group(&self, organization: &str, id: u64, change: &GroupChange) -> Result<(), ChangeError> {
        self.with(|state| state.change_group(organization, id, change))
    }

    /// The organizations with their runner groups, for a person.
    pub(super) fn told_organizations(&self) -> Value {
        self.with(|state| state.told_organizations())
    }
}
