//! Which repositories there are: those named in the configuration, and those that lists show and a pattern means.
//!
//! What a list lacks goes on being served until a second list agrees, and its sandboxes are counted as long as they
//! live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::View;
use super::read::Listing;
use crate::error::CallFailure;
use crate::evidence::AGREEMENT_APART;
use crate::ids::{AccountName, RepoName, RepositoryId};
use crate::state::{Installed, Observed, Owner, OwnerView, ReadTimes, Reading, Registry, RepoFacts, Scope};

/// How long a repository that is gone stays in view, so that people see why nothing of it is served.
const GONE_STAYS: TimeDelta = TimeDelta::hours(1);

/// Drops repositories that are gone, once nothing of ours is left there.
pub(super) fn forget_gone(observed: &mut Observed, now: DateTime<Utc>) {
    let sandboxes = &observed.fleet.sandboxes;
    let unsure = &observed.fleet.unsure;
    let registries = &mut observed.registries;
    observed.repos.retain(|scope, repo| {
        let is_over = repo.gone_since.is_some_and(|since| now - since >= GONE_STAYS);
        let own = Registry::Repo(scope.clone());
        let is_kept = !is_over
            || registries.get(&own).is_some_and(|view| !view.runners.is_empty())
            || sandboxes.values().any(|sandbox| sandbox.origin.scope == *scope)
            || unsure.values().any(|creating| creating.origin.scope == *scope);
        if !is_kept {
            registries.remove(&own);
        }
        is_kept
    });
}

impl View {
    /// Takes where an App is installed.
    pub(super) fn apply_installations(
        &mut self,
        account: &AccountName,
        found: Result<Vec<Installed>, CallFailure>,
        began_at: DateTime<Utc>,
    ) {
        let policy = &self.readers.policy;
        let app = self.observed.apps.entry(account.clone()).or_default();
        let installed = match found {
            Ok(installed) => installed,
            Err(failure) => {
                if app.read.failures == 0 {
                    tracing::warn!(%account, error = %failure, "cannot list where the GitHub App is installed");
                }
                app.read.failed(began_at, failure);
                return;
            }
        };
        app.read.succeeded(began_at);
        let listed = installed.iter().map(|one| (Arc::clone(&one.owner), one.clone())).collect();
        if app.changed_at.is_none() || app.installed != listed {
            (app.changed_at, app.installed) = (Some(began_at), listed);
        }
        if !policy.accounts.get(account).is_some_and(|account| account.patterns.is_for_all_owners()) {
            return;
        }
        for one in installed.into_iter().filter(|one| !one.is_suspended) {
            let owner = Owner { account: account.clone(), login: one.owner };
            self.observed.owners.entry(owner).or_default();
        }
    }

    /// Takes a list of an owner's repositories.
    pub(super) fn apply_directory(&mut self, owner: &Owner, reading: Reading<Vec<RepoFacts>>, times: ReadTimes) {
        let began_at = times.began;
        let view = self.observed.owners.entry(owner.clone()).or_default();
        let (listed, is_whole) = match reading {
            Reading::Known(listed) => {
                view.read.succeeded(began_at);
                (listed, Listing::Whole)
            }
            Reading::Partial { seen, missing } => {
                warn_once(view, owner, &missing);
                view.read.failed(began_at, missing);
                (seen, Listing::Part)
            }
            Reading::Unknown(failure) => {
                warn_once(view, owner, &failure);
                view.read.failed(began_at, failure);
                return;
            }
        };
        let readers = Arc::clone(&self.readers);
        let Some(account) = readers.policy.accounts.get(&owner.account) else { return };
        let of_owner = listed.into_iter().filter(|facts| facts.name.owner() == &*owner.login);
        let listed: BTreeMap<RepoName, RepoFacts> = of_owner.map(|facts| (facts.name.clone(), facts)).collect();
        let mut served: BTreeSet<RepoName> = listed.keys().filter(|name| account.serves(name)).cloned().collect();
        let view = self.observed.owners.entry(owner.clone()).or_default();
        if is_whole == Listing::Part {
            served.extend(view.served.iter().cloned());
        }
        if view.changed_at.is_none() || view.served != served {
            (view.changed_at, view.served) = (Some(began_at), served);
        }
        if is_whole == Listing::Whole {
            self.miss(owner, &listed, times);
        }
        for (name, facts) in listed {
            if account.serves(&name) {
                self.admit(&Scope { account: owner.account.clone(), repo: name }, facts, began_at);
            }
        }
    }

    /// Notes which of an owner's repositories a whole list lacks.
    fn miss(&mut self, owner: &Owner, listed: &BTreeMap<RepoName, RepoFacts>, times: ReadTimes) {
        let by_id: BTreeMap<RepositoryId, &RepoFacts> = listed.values().map(|facts| (facts.id, facts)).collect();
        let named = self.readers.policy.accounts.get(&owner.account).map(|account| &account.repos);
        let of_owner = self.observed.repos.iter_mut().filter(|(scope, _)| {
            scope.account == owner.account && scope.repo.owner() == &*owner.login && !listed.contains_key(&scope.repo)
        });
        for (scope, repo) in of_owner {
            // It may have another name: that is no news of an absence.
            let renamed = repo.facts.as_ref().and_then(|facts| by_id.get(&facts.id));
            if let Some(renamed) = renamed {
                repo.facts = Some((*renamed).clone());
            }
            let is_named = named.is_some_and(|named| named.contains(&scope.repo));
            if is_named || repo.gone_since.is_some() {
                continue;
            }
            let since = *repo.unlisted_since.get_or_insert(times.answered);
            if times.began - since >= AGREEMENT_APART {
                tracing::info!(repo = %scope.repo, "the repository is no longer listed");
                repo.gone_since = Some(times.began);
            }
        }
    }

    /// Takes a repository that is listed and served.
    fn admit(&mut self, scope: &Scope, facts: RepoFacts, began_at: DateTime<Utc>) {
        let is_known = self.observed.repos.get(scope).is_some_and(|repo| repo.gone_since.is_none());
        if !is_known && !self.is_first(scope, began_at) {
            return;
        }
        let tag = (scope.account.to_string(), scope.repo.as_tag());
        let is_new = self.scopes_by_tag.insert(tag, scope.clone()).is_none();
        if is_new {
            tracing::debug!(repo = %scope.repo, "found a repository to serve");
        }
        let registry = self.readers.policy.registry(scope);
        self.observed.add(scope.clone(), registry);
        let Some(repo) = self.observed.repos.get_mut(scope) else { return };
        (repo.unlisted_since, repo.gone_since) = (None, None);
        repo.facts = Some(facts);
        repo.facts_read.succeeded(began_at);
    }

    /// Whether no other account serves the repository: one that names it, or that stands before in the configuration.
    /// Of one that stands behind it is taken away.
    fn is_first(&mut self, scope: &Scope, now: DateTime<Utc>) -> bool {
        let policy = &self.readers.policy;
        let Some(own) = policy.accounts.get(&scope.account) else { return false };
        let others = policy.accounts.iter().filter(|(name, other)| **name != scope.account && other.host == own.host);
        for (name, other) in others {
            let theirs = Scope { account: name.clone(), repo: scope.repo.clone() };
            let Some(repo) = self.observed.repos.get_mut(&theirs).filter(|repo| repo.gone_since.is_none()) else {
                continue;
            };
            if other.repos.contains(&scope.repo) || other.order < own.order {
                if self.doubled.insert(scope.clone()) {
                    tracing::warn!(repo = %scope.repo, account = %scope.account, served_by = %name,
                        "two accounts mean the same repository");
                }
                return false;
            }
            repo.gone_since = Some(now);
        }
        true
    }

    /// Takes what GitHub says of a single repository.
    pub(super) fn apply_repo(&mut self, scope: &Scope, found: Result<RepoFacts, CallFailure>, began_at: DateTime<Utc>) {
        let Some(repo) = self.observed.repos.get_mut(scope) else { return };
        match found {
            Ok(facts) => {
                repo.facts = Some(facts);
                repo.facts_read.succeeded(began_at);
            }
            Err(failure) => repo.facts_read.failed(began_at, failure),
        }
    }

    /// The repository that tags name, where the configuration means it: its list may not have been read yet.
    pub(super) fn scope_of_tags(&self, account: &str, repo: &str) -> Option<Scope> {
        let known = self.scopes_by_tag.get(&(account.to_owned(), repo.to_owned()));
        known.cloned().or_else(|| {
            let scope = Scope { account: account.parse().ok()?, repo: RepoName::from_tag(repo)? };
            let is_meant = self.readers.policy.accounts.get(&scope.account)?.serves(&scope.repo);
            is_meant.then_some(scope)
        })
    }
}

/// The first failure in a row is a warning; the status tells of the others.
fn warn_once(view: &OwnerView, owner: &Owner, failure: &CallFailure) {
    if view.read.failures == 0 {
        tracing::warn!(%owner, error = %failure, "cannot list the repositories");
    }
}
