//! Repositories as their owners change them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::change::ChangeError;
use super::github::repository_body;
use super::history::What;
use super::jobs::{FIRST_REPO_ID, RepoKey};
use super::scenario::{RepoAbout, ScenarioRepo, Visibility};
use super::world::{State, World};
use crate::ids::RepoName;

/// What an owner changes about a repository; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepoChange {
    /// Its name, with its owner.
    pub name: Option<String>,
    /// Who may see it.
    pub visibility: Option<Visibility>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// Whether GitHub has disabled it.
    pub disabled: Option<bool>,
    /// Whether it is gone.
    pub deleted: Option<bool>,
}

impl State {
    /// The repository of that name, a deleted one included.
    pub(super) fn find_repo(&self, name: &str) -> Result<RepoKey, ChangeError> {
        let found = self.repo_by_name.get(name.to_lowercase().as_str()).copied();
        found.filter(|key| !self.repo(*key).is_organization()).ok_or_else(|| {
            let known = self.repos.iter().filter(|repo| !repo.is_organization());
            ChangeError::unknown("repository", name, known.map(|repo| repo.full_name.clone()))
        })
    }

    fn add_repo(&mut self, repo: ScenarioRepo) -> Result<(), ChangeError> {
        repo.name.parse::<RepoName>()?;
        if self.find_repo(&repo.name).is_ok() {
            return Err(ChangeError::Taken { kind: "repository", name: repo.name });
        }
        let key = self.repo_key(&repo.name);
        self.set_about(key, repo.about.clone());
        self.note_repo(key, "about", json!(repo.about));
        self.scenario.repos.push(repo);
        Ok(())
    }

    fn change_repo(&mut self, name: &str, change: &RepoChange) -> Result<(), ChangeError> {
        let RepoChange { name: new_name, visibility, archived, disabled, deleted } = change;
        let key = self.find_repo(name)?;
        if let Some(new_name) = new_name {
            self.check_new_name(key, new_name)?;
        }
        let about = &self.repo(key).about;
        let about = RepoAbout {
            visibility: visibility.unwrap_or(about.visibility),
            archived: archived.unwrap_or(about.archived),
            disabled: disabled.unwrap_or(about.disabled),
            fork: about.fork,
        };
        if about != self.repo(key).about {
            self.note_repo(key, "about", json!(about));
            self.set_about(key, about);
            let places: Vec<RepoKey> = self.registries_of(key).collect();
            for place in places {
                self.offer_all(place);
            }
        }
        if let Some(deleted) = deleted {
            self.note_repo(key, "deleted", (*deleted).into());
            self.repo_mut(key).is_deleted = *deleted;
        }
        if let Some(new_name) = new_name {
            self.rename(key, new_name);
        }
        Ok(())
    }

    fn check_new_name(&self, key: RepoKey, name: &str) -> Result<(), ChangeError> {
        name.parse::<RepoName>()?;
        match self.find_repo(name) {
            Ok(other) if other != key => Err(ChangeError::Taken { kind: "repository", name: name.to_owned() }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Notes what was done about a repository.
    fn note_repo(&mut self, key: RepoKey, setting: &str, value: Value) {
        let subject = Arc::clone(&self.repo(key).name);
        self.record(What::SettingChanged { subject, setting: setting.to_owned(), value });
    }

    /// Changes what GitHub says of a repository.
    pub(super) fn set_about(&mut self, key: RepoKey, about: RepoAbout) {
        let repo = self.repo_mut(key);
        repo.body = repository_body(&repo.full_name, FIRST_REPO_ID + key.0 as u64, &about);
        repo.about = about;
        // Its runs show it.
        repo.changes += 1;
    }

    /// Gives a repository another name; whoever asks for the old one is told that it has moved.
    fn rename(&mut self, key: RepoKey, full_name: &str) {
        self.note_repo(key, "name", full_name.into());
        let name: Arc<str> = full_name.to_lowercase().into();
        let repo = self.repo_mut(key);
        let before = std::mem::replace(&mut repo.name, Arc::clone(&name));
        full_name.clone_into(&mut repo.full_name);
        self.repo_by_name.remove(&before);
        self.repo_by_name.insert(name, key);
        let groups = self.repos.iter_mut().flat_map(|place| &mut place.groups);
        for named in groups.flat_map(|group| group.repos.iter_mut().flatten()) {
            if named.eq_ignore_ascii_case(&before) {
                full_name.clone_into(named);
            }
        }
        self.moved.insert(before, key);
        let about = self.repo(key).about.clone();
        self.set_about(key, about);
    }

    /// The repositories as they are, for a person.
    fn told_repos(&self) -> Value {
        let told = self.repos.iter().enumerate().filter(|(_, repo)| !repo.is_organization()).map(|(index, repo)| {
            let RepoAbout { visibility, archived, disabled, fork } = &repo.about;
            let former = self.moved.iter().filter(|(name, key)| **key == RepoKey(index) && **name != repo.name);
            let former: Vec<&Arc<str>> = former.map(|(name, _)| name).collect();
            json!({
                "name": repo.full_name,
                "visibility": visibility,
                "archived": archived,
                "disabled": disabled,
                "fork": fork,
                "deleted": repo.is_deleted,
                "former_names": former,
            })
        });
        told.collect()
    }
}

impl World {
    /// Adds a repository.
    ///
    /// # Errors
    /// [`ChangeError`] where its name is taken, or is none.
    pub fn add_repo(&self, repo: ScenarioRepo) -> Result<(), ChangeError> {
        self.with(|state| state.add_repo(repo))
    }

    /// Changes something about a repository.
    ///
    /// # Errors
    /// [`ChangeError`] where there is none of that name, or its new name is taken.
    pub fn change_repo(&self, full_name: &str, change: &RepoChange) -> Result<(), ChangeError> {
        self.with(|state| state.change_repo(full_name, change))
    }

    /// The repositories, for a person.
    pub(super) fn told_repos(&self) -> Value {
        self.with(|state| state.told_repos())
    }

    /// Changes what GitHub says of a repository, which is made if it is new.
    pub fn set_repo(&self, full_name: &str, about: RepoAbout) {
        self.with(|state| {
            let key = state.repo_key(full_name);
            state.note_repo(key, "about", json!(about));
            state.set_about(key, about);
        });
    }

    /// Gives a repository another name.
    pub fn rename_repo(&self, from: &str, to: &str) {
        self.with(|state| {
            let key = state.repo_key(from);
            state.rename(key, to);
        });
    }

    /// Deletes a repository, where there is one.
    pub fn delete_repo(&self, full_name: &str) {
        // Nothing else can be wrong with it than that there is none.
        let _ = self.change_repo(full_name, &RepoChange { deleted: Some(true), ..RepoChange::default() });
    }

    /// Brings a deleted repository back.
    pub fn restore_repo(&self, full_name: &str) {
        let _ = self.change_repo(full_name, &RepoChange { deleted: Some(false), ..RepoChange::default() });
    }
}
