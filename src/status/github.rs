//! GitHub's side of the status: accounts with their installations, and organizations with their runner groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::class::{Risk, Risks};
use crate::ids::{AccountName, RepoName};
use crate::observe::View;
use crate::plan::{
    AccountPolicy, Credentials, Joining, Plan, Policy, RunnerGroupChoice, SkipReason, admitted_by_any, group_refusal,
};
use crate::state::{
    AdmittedRepos, AdmittedWorkflows, Org, Registry, RegistryView, RepoView, RunnerGroup, Scope, SelectedWorkflow,
    Visibility,
};

/// The most problems of one organization that are told.
const PROBLEMS_MAX: usize = 10;

/// One account of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountStatus {
    /// Its name.
    pub account: AccountName,
    /// Where it is.
    pub host: String,
    /// What it is reached with.
    pub credential: CredentialKind,
    /// Where its GitHub App is installed.
    pub installations: Vec<InstallationStatus>,
    /// When these were last listed.
    pub installations_known_at: Option<DateTime<Utc>>,
    /// Why they cannot be listed.
    pub problem: Option<String>,
}

/// What an account is reached with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A personal token.
    Token,
    /// A GitHub App, with a token per owner.
    App,
}

/// A GitHub App at one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstallationStatus {
    /// The owner.
    pub owner: Arc<str>,
    /// The installation's id.
    pub id: u64,
    /// Whether it is suspended.
    pub is_suspended: bool,
}

/// An organization in which runners are registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrganizationStatus {
    /// The account that it is reached with.
    pub account: AccountName,
    /// Its login.
    pub organization: String,
    /// The runner group that the configuration wants: its name, or its id.
    pub wanted_group: String,
    /// That group, as it was last read.
    pub group: Option<RunnerGroupStatus>,
    /// When the organization's groups were last read.
    pub known_at: Option<DateTime<Utc>>,
    /// When that was last tried.
    pub tried_at: Option<DateTime<Utc>>,
    /// Why jobs of its repositories get no runner, the first reasons of several.
    pub problems: Vec<Arc<str>>,
}

/// A runner group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerGroupStatus {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whose jobs its runners take: `all`, `private` or `selected` repositories.
    pub admits: &'static str,
    /// Those that are selected.
    pub repositories: Vec<RepoName>,
    /// Whether public ones are among them.
    pub allows_public: bool,
    /// The workflows whose jobs its runners take, as GitHub names them; absent for all.
    pub workflows: Option<Vec<String>>,
}

/// Every account with what is known of its credential.
pub(super) fn accounts(view: &View, policy: &Policy) -> Vec<AccountStatus> {
    let told = policy.accounts.iter().map(|(account, AccountPolicy { host, credentials, .. })| {
        let app = view.observed.apps.get(account);
        let installed = app.into_iter().flat_map(|app| app.installed.values());
        let installations = installed.map(|one| InstallationStatus {
            owner: Arc::clone(&one.owner),
            id: one.id,
            is_suspended: one.is_suspended,
        });
        AccountStatus {
            account: account.clone(),
            host: host.clone(),
            credential: match credentials {
                Credentials::One => CredentialKind::Token,
                Credentials::PerOwner => CredentialKind::App,
            },
            installations: installations.collect(),
            installations_known_at: app.and_then(|app| app.read.known_at),
            problem: app.and_then(|app| app.read.failure.as_ref()).map(|failure| failure.message.clone()),
        }
    });
    told.collect()
}

/// Every organization in which runners are registered.
pub(super) fn organizations(view: &View, plan: &Plan, policy: &Policy) -> Vec<OrganizationStatus> {
    let wanted = policy.accounts.iter().flat_map(|(account, policy)| {
        let orgs = policy.organizations.iter();
        orgs.map(|(name, choice)| (Org { account: account.clone(), name: name.clone() }, choice))
    });
    wanted.map(|(org, choice)| organization(org, choice, (view, plan), policy)).collect()
}

fn organization(
    org: Org,
    choice: &RunnerGroupChoice,
    (view, plan): (&View, &Plan),
    policy: &Policy,
) -> OrganizationStatus {
    let registry = Registry::Org(org.clone());
    // Without a repository there is nothing to register a runner for.
    let unknown = RegistryView::default();
    let known = view.observed.registries.get(&registry).unwrap_or(&unknown);
    let repos: BTreeMap<&Scope, &RepoView> = view.observed.repos_of(&registry).collect();
    let admitted = admitted_by_any(policy);
    let of_repos = repos.iter().filter_map(|(scope, repo)| {
        let joining = Joining { repo: &scope.repo, risks: risks(repo), workflow: None, admitted };
        group_refusal(&org, known, joining, policy)
    });
    // Which workflow is refused is known only where a job waits.
    let of_jobs = plan.skips.iter().filter(|skip| repos.contains_key(&skip.scope)).filter_map(|skip| {
        if let SkipReason::RunnerGroup(reason) = &skip.reason { Some(Arc::clone(reason)) } else { None }
    });
    let problems: BTreeSet<Arc<str>> = of_repos.chain(of_jobs).collect();
    OrganizationStatus {
        organization: org.name.to_string(),
        account: org.account,
        wanted_group: match choice {
            RunnerGroupChoice::Name(name) => name.clone(),
            RunnerGroupChoice::Id(id) => id.to_string(),
        },
        group: known.group.as_ref().map(runner_group),
        known_at: known.group_read.known_at,
        tried_at: known.group_read.tried_at,
        problems: problems.into_iter().take(PROBLEMS_MAX).collect(),
    }
}

/// The risk of every run of a repository; what is not known of it is no problem of its group.
fn risks(repo: &RepoView) -> Risks {
    let is_public = repo.facts.as_ref().is_some_and(|facts| facts.visibility == Visibility::Public);
    Risks::of([is_public.then_some(Risk::Public)])
}

fn runner_group(group: &RunnerGroup) -> RunnerGroupStatus {
    let RunnerGroup { id, name, admits, allows_public, workflows } = group;
    let (admits, repositories) = match admits {
        AdmittedRepos::All => ("all", Vec::new()),
        AdmittedRepos::Private => ("private", Vec::new()),
        AdmittedRepos::Selected(repos) => ("selected", repos.iter().cloned().collect()),
    };
    let workflows = match workflows {
        AdmittedWorkflows::All => None,
        AdmittedWorkflows::Selected(selected) => Some(selected.iter().map(SelectedWorkflow::to_string).collect()),
    };
    RunnerGroupStatus { id: *id, name: name.clone(), admits, repositories, allows_public: *allows_public, workflows }
}
