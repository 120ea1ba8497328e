//! Where the App is installed, and what owners do about it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Access, Installation, Permission};
use crate::sim::change::{ChangeError, stated};
use crate::sim::history::What;
use crate::sim::jobs::{Repo, RepoKey};
use crate::sim::scenario::ScenarioInstallation;
use crate::sim::world::{State, World};

/// The id of the first installation.
const FIRST_INSTALLATION: u64 = 60_000_001;

/// What an owner changes about the App; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstallationChange {
    /// Whether it is suspended.
    pub suspended: Option<bool>,
    /// The repositories that it is given, instead of those before; `Some(None)` (null) gives it all.
    #[serde(deserialize_with = "stated")]
    pub repos: Option<Option<Vec<String>>>,
    /// Permissions that are granted, each so far, or with `None` (null) withdrawn.
    pub permissions: BTreeMap<Permission, Option<Access>>,
}

impl State {
    /// Installs the App at every owner of a repository, as the scenario says.
    pub(in crate::sim) fn install_app(&mut self, special: &[ScenarioInstallation]) {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for owner in self.repos.iter().map(Repo::owner).chain(special.iter().map(|one| one.owner.as_str())) {
            owners.entry(owner.to_lowercase()).or_insert_with(|| owner.to_owned());
        }
        for (owner, id) in owners.into_values().zip(FIRST_INSTALLATION..) {
            let said = special.iter().find(|one| one.owner.eq_ignore_ascii_case(&owner));
            let installation = said.map_or_else(|| Installation::whole(&owner), |said| self.installed_as(said));
            self.app.installed.insert(id, installation);
        }
    }

    fn installed_as(&mut self, said: &ScenarioInstallation) -> Installation {
        let ScenarioInstallation { owner, repos, suspended, permissions } = said;
        let keys = repos.as_ref().map(|repos| repos.iter().map(|name| self.repo_key(name)).collect());
        Installation {
            owner: owner.clone(),
            suspended_at: suspended.then_some(self.now),
            repos: keys,
            grants: permissions.clone(),
        }
    }

    /// The id of the installation at an owner.
    fn installation_at(&self, owner: &str) -> Result<u64, ChangeError> {
        let mut all = self.installations();
        let found = all.find(|(_, installation)| installation.owner.eq_ignore_ascii_case(owner)).map(|(id, _)| id);
        found.ok_or_else(|| {
            let owners = self.installations().map(|(_, installation)| installation.owner.clone());
            ChangeError::unknown("installation of the App at", owner, owners)
        })
    }

    /// Notes what an owner has done about the App.
    fn note_installation(&mut self, owner: &str, setting: &str, value: Value) {
        let subject = format!("the App at {owner}").into();
        self.record(What::SettingChanged { subject, setting: setting.to_owned(), value });
    }

    fn change_installation(&mut self, owner: &str, change: &InstallationChange) -> Result<(), ChangeError> {
        let InstallationChange { suspended, repos, permissions } = change;
        let id = self.installation_at(owner)?;
        let given = match repos {
            None => None,
            Some(None) => Some(None),
            Some(Some(names)) => Some(Some(self.repos_of_owner(owner, names)?)),
        };
        let now = self.now;
        let installation = self.app.installed.get_mut(&id).expect("it was just found");
        if let Some(suspended) = suspended {
            installation.suspended_at = suspended.then(|| installation.suspended_at.unwrap_or(now));
        }
        if let Some(given) = given {
            installation.repos = given;
        }
        for (permission, access) in permissions {
            match access {
                Some(access) => installation.grants.insert(*permission, *access),
                None => installation.grants.remove(permission),
            };
        }
        let noted = [
            ("suspended", suspended.map(Value::from)),
            ("repos", repos.as_ref().map(|repos| json!(repos))),
            ("permissions", (!permissions.is_empty()).then(|| json!(permissions))),
        ];
        for (setting, value) in noted {
            if let Some(value) = value {
                self.note_installation(owner, setting, value);
            }
        }
        Ok(())
    }

    /// The repositories of these names, all of which must be the owner's.
    fn repos_of_owner(&self, owner: &str, names: &[String]) -> Result<BTreeSet<RepoKey>, ChangeError> {
        let mut keys = BTreeSet::new();
        for name in names {
            let key = self.find_repo(name)?;
            if !self.repo(key).owner().eq_ignore_ascii_case(owner) {
                return Err(ChangeError::impossible(
                    format!("the App at {owner}"),
                    format!("{name} is not of {owner}"),
                ));
            }
            keys.insert(key);
        }
        Ok(keys)
    }

    fn uninstall(&mut self, owner: &str) -> Result<(), ChangeError> {
        let id = self.installation_at(owner)?;
        self.app.installed.remove(&id);
        self.note_installation(owner, "installed", false.into());
        Ok(())
    }

    fn install(&mut self, owner: &str) {
        let id = self.app.installed.keys().next_back().map_or(FIRST_INSTALLATION, |last| last + 1_000);
        self.app.installed.insert(id, Installation::whole(owner));
        self.note_installation(owner, "installed", true.into());
    }

    /// The installations as they are, for a person.
    fn told_installations(&self) -> Value {
        let told = self.installations().map(|(id, installation)| {
            let Installation { owner, suspended_at, repos, grants } = installation;
            let repos =
                repos.as_ref().map(|keys| keys.iter().map(|key| &self.repo(*key).full_name).collect::<Vec<_>>());
            let ends = self.app.tokens.values().filter(|(of, until)| *of == id && *until > self.now);
            let ends: Vec<_> = ends.map(|(_, until)| *until).collect();
            json!({
                "id": id,
                "owner": owner,
                "suspended_at": suspended_at,
                "repos": repos,
                "permissions": grants,
                "tokens_end_at": ends,
            })
        });
        told.collect()
    }
}

impl World {
    /// Changes something about the App at an owner.
    ///
    /// # Errors
    /// [`ChangeError`] where it is not installed there, or a repository is not there.
    pub fn change_installation(&self, owner: &str, change: &InstallationChange) -> Result<(), ChangeError> {
        self.with(|state| state.change_installation(owner, change))
    }

    /// Installs the App at an owner, for all repositories and with all permissions.
    ///
    /// # Errors
    /// [`ChangeError`] where it is there already.
    pub fn install_app(&self, owner: &str) -> Result<(), ChangeError> {
        self.with(|state| {
            if state.installation_at(owner).is_ok() {
                return Err(ChangeError::Taken { kind: "installation of the App at", name: owner.to_owned() });
            }
            state.install(owner);
            Ok(())
        })
    }

    /// Removes the App from an owner.
    ///
    /// # Errors
    /// [`ChangeError`] where it is not installed there.
    pub(in crate::sim) fn remove_installation(&self, owner: &str) -> Result<(), ChangeError> {
        self.with(|state| state.uninstall(owner))
    }

    /// Lets the tokens of the App's installation at an owner end, after `secs` at the latest.
    ///
    /// # Errors
    /// [`ChangeError`] where it is not installed there.
    pub fn end_app_tokens(&self, owner: &str, secs: f64) -> Result<(), ChangeError> {
        self.with(|state| {
            let id = state.installation_at(owner)?;
            state.end_tokens(Some(id), secs);
            state.note_installation(owner, "tokens_end_in_secs", secs.into());
            Ok(())
        })
    }

    /// Where the App is installed, for a person.
    pub(in crate::sim) fn told_installations(&self) -> Value {
        self.with(|state| state.told_installations())
    }

    /// Refuses all tokens of the App that were given out so far.
    pub fn revoke_app_tokens(&self) {
        self.with(|state| state.end_tokens(None, 0.0));
    }

    /// Suspends the App's installation at an owner, where there is one.
    pub fn suspend_app(&self, owner: &str) {
        let change = InstallationChange { suspended: Some(true), ..InstallationChange::default() };
        // Nothing else can be wrong with it than that there is none.
        let _ = self.change_installation(owner, &change);
    }

    /// Ends such a suspension.
    pub fn unsuspend_app(&self, owner: &str) {
        let change = InstallationChange { suspended: Some(false), ..InstallationChange::default() };
        let _ = self.change_installation(owner, &change);
    }

    /// Removes the App from an owner, where it is installed.
    pub fn uninstall_app(&self, owner: &str) {
        let _ = self.remove_installation(owner);
    }

    /// Installs the App at an owner, anew where it was: with another id.
    pub fn reinstall_app(&self, owner: &str) {
        self.uninstall_app(owner);
        self.with(|state| state.install(owner));
    }

    /// Deletes the App's key, as its owner does after a leak; tokens that were given out go on.
    pub fn delete_app_key(&self) {
        self.with(|state| state.app.is_keyless = true);
    }
}
