//! Asks GitHub: first what each credential is, then everything about the places that it reaches.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join, join_all};

use super::{Context, Writes};
use crate::act::{self, Proof, Proving};
use crate::check::credentials::owners;
use crate::check::facts::{
    AccountFacts, CredentialFacts, Failed, GroupFacts, NotTried, ProofFacts, ReleaseFacts, RepoChecked, Told,
};
use crate::config::{Mode, RunnerReleaseChoice};
use crate::github::{GithubReader, GithubReaders, GithubWriters};
use crate::ids::{AccountName, CredentialName, RepoName};
use crate::plan::{AccountPolicy, Credentials};
use crate::state::{Installed, Org, Reading, Registry, Scope};

/// So many runners are registered with one credential: its permissions are the same everywhere, and each costs two writes.
const PROOFS_MAX: usize = 10;

/// In so many places GitHub is asked for the runner's release.
const RELEASE_PLACES_MAX: usize = 3;

/// What was found out of GitHub.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) accounts: BTreeMap<AccountName, AccountFacts>,
    pub(super) credentials: BTreeMap<CredentialName, CredentialFacts>,
    pub(super) repos: BTreeMap<Scope, RepoChecked>,
    pub(super) patterns: BTreeMap<(AccountName, String), Told<Vec<RepoName>>>,
    pub(super) proofs: BTreeMap<Registry, ProofFacts>,
    pub(super) groups: BTreeMap<Org, GroupFacts>,
    pub(super) releases: BTreeMap<AccountName, Told<ReleaseFacts>>,
}

pub(super) async fn gather(context: &Context<'_>) -> Gathered {
    let policy = &context.settings.policy;
    let accounts = policy.accounts.iter().filter_map(|(name, policy)| {
        let (readers, writers) = context.clients.github.get(policy.order)?;
        Some(Account { context, name, policy, readers, writers })
    });
    let all = join_all(accounts.map(Account::gather)).await;
    all.into_iter().fold(Gathered::default(), |mut all, one| {
        all.accounts.extend(one.accounts);
        all.credentials.extend(one.credentials);
        all.repos.extend(one.repos);
        all.patterns.extend(one.patterns);
        all.proofs.extend(one.proofs);
        all.groups.extend(one.groups);
        all.releases.extend(one.releases);
        all
    })
}

/// An account with what asks in its name.
#[derive(Clone, Copy)]
struct Account<'a> {
    context: &'a Context<'a>,
    name: &'a AccountName,
    policy: &'a AccountPolicy,
    readers: &'a GithubReaders,
    writers: &'a GithubWriters,
}

impl Account<'_> {
    async fn gather(self) -> Gathered {
        let progress = self.context.progress;
        let app = progress.step(self.app()).await;
        let credentials = self.credentials(app.as_ref()).await;
        let is_taken =
            |credential: &CredentialName| credentials.get(credential).is_some_and(|facts| facts.access.is_ok());
        let installed = app.as_ref().and_then(|told| told.as_ref().ok()).map(|(_, installed)| installed.clone());
        let patterns = self.patterns(&installed.unwrap_or_default(), is_taken).await;
        let meant = patterns.values().filter_map(|told| told.as_ref().ok()).flatten();
        let scopes: BTreeSet<Scope> = self.policy.repos.iter().chain(meant).map(|repo| self.scope(repo)).collect();
        let scopes: BTreeSet<Scope> =
            scopes.into_iter().filter(|scope| is_taken(&self.context.settings.policy.credential(scope))).collect();
        let orgs: Vec<Org> = self.policy.organizations.keys().map(|name| self.org(name.clone())).collect();
        let orgs = orgs.into_iter().filter(|org| is_taken(&self.credential_of(&Registry::Org(org.clone()))));
        let groups = join_all(orgs.map(|org| self.group(org)));
        let repos = join_all(scopes.iter().map(|scope| self.repo(scope.clone())));
        let (repos, groups) = join(repos, groups).await;
        let (repos, groups): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (repos.into_iter().collect(), groups.into_iter().collect());
        let places = self.places(&repos, &groups);
        let (proofs, release) = join(self.proofs(&places, &groups), progress.step(self.release(&places))).await;
        let has_answered = credentials.values().any(|facts| facts.access.is_ok());
        let skew =
            has_answered.then(|| self.readers.all().iter().map(GithubReader::skew).max_by_key(chrono::TimeDelta::abs));
        let facts = AccountFacts { app, skew: skew.flatten() };
        Gathered {
            accounts: [(self.name.clone(), facts)].into(),
            credentials,
            repos,
            patterns,
            proofs,
            groups,
            releases: release.map(|told| (self.name.clone(), told)).into_iter().collect(),
        }
    }

    fn scope(&self, repo: &RepoName) -> Scope {
        Scope { account: self.name.clone(), repo: repo.clone() }
    }

    fn org(&self, name: crate::ids::OrgName) -> Org {
        Org { account: self.name.clone(), name }
    }

    fn credential_of(&self, registry: &Registry) -> CredentialName {
        self.context.settings.policy.credential_of(registry)
    }

    fn reader(&self, registry: &Registry) -> GithubReader {
        self.readers.get(&self.credential_of(registry))
    }

    async fn app(self) -> Option<Told<(crate::github::AppFacts, Vec<Installed>)>> {
        let app = match self.readers.app().await {
            Ok(app) => app?,
            Err(error) => return Some(Err(error.into())),
        };
        Some(self.readers.installations().await.map(|installed| (app, installed)).map_err(Failed::from))
    }

    /// Asks with every credential that there is.
    async fn credentials(
        self,
        app: Option<&Told<(crate::github::AppFacts, Vec<Installed>)>>,
    ) -> BTreeMap<CredentialName, CredentialFacts> {
        let names: Vec<CredentialName> = match (self.policy.credentials, app) {
            (Credentials::One, _) => vec![CredentialName::of_account(self.name.clone())],
            (Credentials::PerOwner, Some(Ok((_, installed)))) => {
                let usable: Vec<Installed> = installed.iter().filter(|one| !one.is_suspended).cloned().collect();
                let is_there = |owner: &String| usable.iter().any(|one| *one.owner == **owner);
                let owners = owners(self.policy, &usable).into_iter().filter(is_there);
                owners.map(|owner| CredentialName::of_installation(self.name.clone(), &owner)).collect()
            }
            (Credentials::PerOwner, Some(Err(_)) | None) => Vec::new(),
        };
        let ask = |name: CredentialName| async move {
            let access = self.context.progress.step(self.readers.get(&name).access()).await.map_err(Failed::from);
            (name, CredentialFacts { access })
        };
        join_all(names.into_iter().map(ask)).await.into_iter().collect()
    }

    /// What the patterns mean, by owner, where the owner's credential is taken.
    async fn patterns(
        self,
        installed: &[Installed],
        is_taken: impl Fn(&CredentialName) -> bool,
    ) -> BTreeMap<(AccountName, String), Told<Vec<RepoName>>> {
        let policy = &self.context.settings.policy;
        let owners = owners(self.policy, installed).into_iter().filter(|owner| {
            let has_some = self.policy.patterns.of_owner(owner).any(|pattern| !pattern.starts_with('!'));
            has_some && is_taken(&policy.credential_at(self.name, owner))
        });
        let list = |owner: String| async move {
            let told = self.context.progress.step(self.list(&owner)).await;
            ((self.name.clone(), owner), told)
        };
        join_all(owners.map(list)).await.into_iter().collect()
    }

    async fn list(self, owner: &str) -> Told<Vec<RepoName>> {
        let credential = self.context.settings.policy.credential_at(self.name, owner);
        let reader = self.readers.get(&credential);
        let listed = match credential.owner() {
            Some(_) => reader.list_installation_repos().await,
            None => reader.list_org_repos(owner).await,
        };
        let all = match listed {
            Reading::Known(all) => all,
            Reading::Partial { missing, .. } | Reading::Unknown(missing) => return Err(missing.into()),
        };
        let is_served = |repo: &crate::state::RepoFacts| {
            // Those that are named are looked at by their names.
            self.policy.patterns.admit(&repo.name) && !repo.is_archived && !repo.is_disabled
        };
        Ok(all.into_iter().filter(is_served).map(|repo| repo.name).collect())
    }

    async fn repo(self, scope: Scope) -> (Scope, RepoChecked) {
        let reader = self.readers.get(&self.context.settings.policy.credential(&scope));
        let look = async {
            let facts = reader.repo(&scope.repo).await.map_err(Failed::from);
            if let Err(failed) = &facts {
                return RepoChecked { runs: Err(failed.clone()), actions: Err(failed.clone()), facts };
            }
            let runs = async { reader.try_runs(&scope.repo).await.map_err(Failed::from) };
            let actions = async { reader.actions_enabled(&scope.repo).await.map_err(Failed::from) };
            let (runs, actions) = join(runs, actions).await;
            RepoChecked { facts, runs, actions }
        };
        let checked = Box::pin(self.context.progress.step(look)).await;
        (scope, checked)
    }

    async fn group(self, org: Org) -> (Org, GroupFacts) {
        let reader = self.reader(&Registry::Org(org.clone()));
        let look = async {
            match self.policy.organizations.get(&org.name) {
                Some(choice) => reader.runner_group(&org.name, choice).await.map_err(Failed::from),
                None => Ok(None),
            }
        };
        let told = self.context.progress.step(look).await;
        (org, told)
    }

    /// Where runners are registered, of what can be reached.
    fn places(&self, repos: &BTreeMap<Scope, RepoChecked>, groups: &BTreeMap<Org, GroupFacts>) -> Vec<Registry> {
        let policy = &self.context.settings.policy;
        let can_run = |repo: &RepoChecked| repo.facts.as_ref().is_ok_and(|it| !it.is_archived && !it.is_disabled);
        let of_repos = repos.iter().filter(|(_, repo)| can_run(repo)).map(|(scope, _)| policy.registry(scope));
        let of_orgs = groups.keys().map(|org| Registry::Org(org.clone()));
        let all: BTreeSet<Registry> = of_repos.chain(of_orgs).collect();
        all.into_iter().collect()
    }

    async fn proofs(self, places: &[Registry], groups: &BTreeMap<Org, GroupFacts>) -> BTreeMap<Registry, ProofFacts> {
        let mut tried: BTreeMap<CredentialName, usize> = BTreeMap::new();
        let mut all = Vec::new();
        for registry in places {
            let group = match registry {
                Registry::Repo(_) => Some(self.policy.runner_group_id),
                Registry::Org(org) => groups.get(org).and_then(|told| Some(told.as_ref().ok()?.as_ref()?.id)),
            };
            let tried = tried.entry(self.credential_of(registry)).or_default();
            let plan = match group {
                _ if self.writes() == Writes::None => Err(NotTried::ReadOnly),
                None => Err(NotTried::NoGroup),
                Some(_) if *tried >= PROOFS_MAX => Err(NotTried::TriedElsewhere),
                Some(group) => {
                    *tried += 1;
                    Ok(group)
                }
            };
            all.push(self.context.progress.step(self.proof(registry.clone(), plan)));
        }
        join_all(all).await.into_iter().collect()
    }

    /// A mode that changes nothing does not prove that it could.
    fn writes(&self) -> Writes {
        match self.context.settings.mode {
            Mode::Act => self.context.writes,
            Mode::Observe => Writes::None,
        }
    }

    async fn proof(self, registry: Registry, plan: Result<u64, NotTried>) -> (Registry, ProofFacts) {
        let reader = self.reader(&registry);
        let listed = reader.try_runners(&registry).await.map_err(Failed::from);
        let runner_group_id = match (plan, &listed) {
            (Ok(group), Ok(())) => group,
            (Ok(_), Err(_)) => return (registry, ProofFacts::NotTried(listed, NotTried::NoGroup)),
            (Err(why), _) => return (registry, ProofFacts::NotTried(listed, why)),
        };
        let proving = Proving {
            runner_group_id,
            deployment: self.context.settings.policy.deployment.clone(),
            reader,
            writer: self.writers.get(&self.credential_of(&registry)),
            clock: self.context.clock.clone(),
            registry: registry.clone(),
        };
        // A task of its own comes to its end also where this future is dropped.
        let proof = self.context.proofs.spawn(act::prove(proving)).await;
        let proof = proof.map_or_else(
            |error| ProofFacts::Left { name: "of the proof".to_owned(), why: error.to_string() },
            |proof: Proof| proof.into(),
        );
        (registry, proof)
    }

    /// The release that GitHub offers, where runners of ours go into images; none where there is no place to ask in.
    async fn release(self, places: &[Registry]) -> Option<Told<ReleaseFacts>> {
        let settings = self.context.settings;
        if !settings.images.iter().any(crate::class::ImageSource::gets_runner) {
            return None;
        }
        let mut last = None;
        for registry in places.iter().take(RELEASE_PLACES_MAX) {
            let reader = self.reader(registry);
            let offered = match reader.runner_release(registry).await {
                Ok(release) => release.version,
                Err(error) => {
                    last = Some(Err(Failed::from(error)));
                    continue;
                }
            };
            let notice = match &settings.runner.release {
                RunnerReleaseChoice::Pinned { version, .. } => {
                    Some(reader.runner_notice(registry, *version).await.map_err(Failed::from))
                }
                RunnerReleaseChoice::Auto => None,
            };
            return Some(Ok(ReleaseFacts { offered, notice }));
        }
        last
    }
}
