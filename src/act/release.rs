//! Which release of the runner goes into an image.

use std::collections::BTreeMap;

use super::{ImageMaker, NotMade};
use crate::config::RunnerReleaseChoice;
use crate::error::{CallFailure, ErrorClass};
use crate::github::{GithubReaders, RunnerRelease};
use crate::ids::{AccountName, CredentialName, OrgName};
use crate::plan::AccountPolicy;
use crate::state::{Org, Reading, Registry, Scope};

/// In so many places one credential asks: the first may be gone, or not be given to it.
const PLACES_MAX: u32 = 3;

impl ImageMaker {
    /// The release that the configuration asks for.
    pub(super) async fn wanted_release(&self, scope: Option<&Scope>) -> Result<RunnerRelease, NotMade> {
        let wanted = &self.runner.release;
        let release = match wanted {
            RunnerReleaseChoice::Pinned { version, sha256: Some(sha256) } => RunnerRelease {
                download_url: format!(
                    "https://github.com/actions/runner/releases/download/v{version}/actions-runner-linux-x64-{version}.tar.gz"
                ),
                version: *version,
                sha256: Some(sha256.clone()),
                download_token: None,
            },
            RunnerReleaseChoice::Auto | RunnerReleaseChoice::Pinned { sha256: None, .. } => self.offered(scope).await?,
        };
        match wanted {
            RunnerReleaseChoice::Pinned { version, .. } if *version != release.version => {
                Err(NotMade::lasting(format!(
                    "GitHub offers runner {}, not {version}: set `runner.sha256` to the checksum of {version}, or `runner.version = \"auto\"`",
                    release.version
                )))
            }
            RunnerReleaseChoice::Pinned { .. } | RunnerReleaseChoice::Auto => Ok(release),
        }
    }

    /// The release that GitHub offers where the first runner is registered of which it tells: that which waits, or any
    /// organization or repository that is named, or, where none is, one that a pattern means.
    async fn offered(&self, scope: Option<&Scope>) -> Result<RunnerRelease, NotMade> {
        let mut asked: BTreeMap<CredentialName, u32> = BTreeMap::new();
        let mut places = self.places(scope);
        if places.is_empty() {
            places.extend(self.listed_place().await?);
        }
        let mut last = CallFailure {
            class: ErrorClass::NotFound,
            message:
                "no repository and no organization is named to ask in, and none is found that a pattern means; pin \
                      `runner.version` and `runner.sha256`"
                    .to_owned(),
            retry_after: None,
        };
        for place in places {
            let credential = self.policy.credential_of(&place);
            let times = asked.entry(credential.clone()).or_default();
            let Some(readers) = self.releases.get(place.account()).filter(|_| *times < PLACES_MAX) else { continue };
            match readers.get(&credential).runner_release(&place).await {
                Ok(release) => return Ok(release),
                Err(error) => last = error.into(),
            }
            let is_about_the_place =
                matches!(last.class, ErrorClass::NotFound | ErrorClass::Forbidden | ErrorClass::Policy);
            *times = if is_about_the_place { *times + 1 } else { PLACES_MAX };
        }
        let message = format!("cannot learn the runner's release from GitHub: {last}");
        Err(CallFailure { message, ..last }.into())
    }

    /// Where GitHub can be asked for the runner's release, in this order.
    fn places(&self, scope: Option<&Scope>) -> Vec<Registry> {
        let policy = &self.policy;
        let of_scopes = scope.cloned().into_iter().chain(policy.scopes()).map(|scope| policy.registry(&scope));
        let mut places: Vec<Registry> = of_scopes.collect();
        for (account, known) in &policy.accounts {
            let org = |name: &OrgName| Registry::Org(Org { account: account.clone(), name: name.clone() });
            places.extend(known.organizations.keys().map(org));
        }
        places
    }

    /// Where the first repository is that a pattern means, as the daemon finds it.
    async fn listed_place(&self) -> Result<Option<Registry>, NotMade> {
        for (account, known) in &self.policy.accounts {
            let Some(readers) = self.releases.get(account) else { continue };
            for owner in owners(known, readers).await? {
                if let Some(place) = self.place_of(account, known, &owner).await? {
                    return Ok(Some(place));
                }
            }
        }
        Ok(None)
    }

    async fn place_of(
        &self,
        account: &AccountName,
        known: &AccountPolicy,
        owner: &str,
    ) -> Result<Option<Registry>, NotMade> {
        let credential = self.policy.credential_at(account, owner);
        let Some(readers) = self.releases.get(account) else { return Ok(None) };
        let reader = readers.get(&credential);
        let listed = match credential.owner() {
            Some(_) => reader.list_installation_repos().await,
            None => reader.list_org_repos(owner).await,
        };
        let repos = match listed {
            Reading::Known(repos) | Reading::Partial { seen: repos, .. } => repos,
            Reading::Unknown(failure) => return Err(failure.into()),
        };
        let found = repos.into_iter().find(|repo| !repo.is_archived && !repo.is_disabled && known.serves(&repo.name));
        Ok(found.map(|repo| self.policy.registry(&Scope { account: account.clone(), repo: repo.name })))
    }
}

/// The owners whose repositories patterns mean.
async fn owners(account: &AccountPolicy, readers: &GithubReaders) -> Result<Vec<String>, NotMade> {
    let mut owners: Vec<String> = account.patterns.owners().into_iter().map(ToString::to_string).collect();
    if account.patterns.is_for_all_owners() {
        let installed = readers.installations().await.map_err(CallFailure::from)?;
        owners.extend(installed.iter().filter(|it| !it.is_suspended).map(|it| it.owner.to_string()));
    }
    Ok(owners)
}
