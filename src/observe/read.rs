//! One reading, from the request to its result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Readers, tag};
use crate::budget::Purpose;
use crate::error::{CallFailure, ErrorClass};
use crate::github::{GithubReader, Paging, RunList};
use crate::ids::{AccountName, AppId, Deployment, RunId, SandboxId};
use crate::modal::SandboxFate;
use crate::mutant::{self, Mutant};
use crate::plan::Policy;
use crate::poll::{Breadth, Depth, Read};
use crate::runner::{RunnerVersion, VersionNotice};
use crate::state::{
    Installed, Observed, Org, Owner, Quota, ReadTimes, Reading, Registry, RepoFacts, RunStatus, Runner, RunnerGroup,
    Sandbox, Scope, WorkflowJob, WorkflowRun,
};

/// For their Secrets, ended sandboxes are listed if they were created since so long ago: until the runner is online there
/// is a Secret to delete, so a process that died within that time is what may have left one.
pub(super) const ENDED_SINCE: TimeDelta = TimeDelta::hours(1);

/// A reading that ended.
#[derive(Debug)]
pub struct Arrival {
    /// What was read.
    pub read: Read,
    /// Between which times it was made.
    pub times: ReadTimes,
    /// What it showed.
    pub(super) result: Found,
}

/// What a reading showed.
#[derive(Debug)]
pub(super) enum Found {
    Fleet(Reading<Vec<Sandbox>>),
    Ended(Reading<Vec<Sandbox>>),
    Quota(Result<Quota, CallFailure>),
    Rates(Result<BTreeMap<String, String>, CallFailure>),
    Sandbox(Result<SandboxFate, CallFailure>),
    Named(Result<Option<SandboxId>, CallFailure>),
    Installations(Result<Vec<Installed>, CallFailure>),
    Directory(Reading<Vec<RepoFacts>>),
    Repo(Result<RepoFacts, CallFailure>),
    Releases(Result<Releases, CallFailure>),
    Runs(Reading<RunList>),
    Run(Result<Option<WorkflowRun>, CallFailure>),
    Jobs(Reading<Option<Vec<WorkflowJob>>>),
    Runners(Reading<Vec<Runner>>),
    Group(Result<Option<RunnerGroup>, CallFailure>),
    Sweep(Reading<Vec<WorkflowRun>>),
}

/// What GitHub says of the runner's releases.
#[derive(Debug)]
pub(super) struct Releases {
    pub(super) offered: RunnerVersion,
    /// Of those that are in use, as far as it answered.
    pub(super) notices: BTreeMap<RunnerVersion, VersionNotice>,
    /// Why it did not answer for all.
    pub(super) missing: Option<CallFailure>,
}

/// What is asked for, and what the reading needs to know.
pub(super) struct Asked {
    pub(super) read: Read,
    pub(super) purpose: Purpose,
    /// The runs of the repository that are known.
    pub(super) known: BTreeSet<RunId>,
    pub(super) deployment: Deployment,
    /// The versions of the runner that are in use.
    pub(super) versions: BTreeSet<RunnerVersion>,
    /// From when on sandboxes are listed that ended, by Modal's clock.
    pub(super) ended_since: DateTime<Utc>,
}

/// Whether a list of repositories was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// What it lacks is not there.
    Whole,
    /// What it lacks may be there.
    Part,
}

/// Carries out one reading.
pub(super) async fn read(readers: Arc<Readers>, asked: Asked) -> Arrival {
    let Asked { read, purpose, known, deployment, versions, ended_since } = asked;
    let began_at = readers.clock.now();
    let result = match &read {
        Read::Fleet => Found::Fleet(fleet(&readers, &deployment).await),
        Read::Ended => Found::Ended(ended(&readers, &deployment, ended_since).await),
        Read::Quota => Found::Quota(quota(&readers).await),
        Read::Rates => Found::Rates(readers.modal.billing_rates().await.map_err(CallFailure::from)),
        Read::Sandbox(_, id) => Found::Sandbox(readers.modal.wait(id, Duration::ZERO).await.map_err(CallFailure::from)),
        Read::Named(name) => {
            Found::Named(readers.modal.find_living(&name.to_string()).await.map_err(CallFailure::from))
        }
        Read::Installations(account) => Found::Installations(installations(&readers, account).await),
        Read::Directory(owner) => Found::Directory(directory(&readers, owner).await),
        Read::Repo(scope) => Found::Repo(github(&readers, scope).repo(&scope.repo).await.map_err(CallFailure::from)),
        Read::Releases(registry) => Found::Releases(releases(&github_at(&readers, registry), registry, versions).await),
        Read::Runs(scope, depth) => Found::Runs(runs(&readers, scope, (*depth, purpose), &known).await),
        Read::Run(scope, run) => {
            Found::Run(github(&readers, scope).run(&scope.repo, *run).await.map_err(CallFailure::from))
        }
        Read::Jobs(scope, run) => Found::Jobs(github(&readers, scope).list_jobs(&scope.repo, *run, purpose).await),
        Read::Runners(registry) => Found::Runners(github_at(&readers, registry).list_runners(registry).await),
        Read::Group(org) => Found::Group(group(&readers, org).await),
        Read::Sweep(scope, breadth) => Found::Sweep(sweep(&github(&readers, scope), scope, *breadth).await),
    };
    Arrival { read, times: ReadTimes { began: began_at, answered: readers.clock.now() }, result }
}

/// What reads where runners are registered.
fn github_at(readers: &Readers, registry: &Registry) -> GithubReader {
    let credential = readers.policy.credential_of(registry);
    readers.github_of(&credential).expect("registries come from the configured accounts, each with a reader")
}

fn github(readers: &Readers, scope: &Scope) -> GithubReader {
    let credential = readers.policy.credential(scope);
    readers.github_of(&credential).expect("scopes come from the configured accounts, each with a reader")
}

/// Where the account's GitHub App is installed; nowhere where it has none.
async fn installations(readers: &Readers, account: &AccountName) -> Result<Vec<Installed>, CallFailure> {
    match readers.github.get(account) {
        Some(readers) => Ok(readers.installations().await?),
        None => Ok(Vec::new()),
    }
}

/// The repositories of an owner that the credential can see.
async fn directory(readers: &Readers, owner: &Owner) -> Reading<Vec<RepoFacts>> {
    let credential = readers.policy.credential_at(&owner.account, &owner.login);
    let reader = readers.github_of(&credential).expect("owners come from the configured accounts, each with readers");
    match credential.owner() {
        Some(_) => reader.list_installation_repos().await,
        None => reader.list_org_repos(&owner.login).await,
    }
}

/// The App that holds our sandboxes, if there is one.
async fn app(readers: &Readers) -> Result<Option<AppId>, CallFailure> {
    let known = readers.app.lock().expect("no holder of the App's id panics").clone();
    match known {
        Some(app) => Ok(Some(app)),
        None => Ok(readers.modal.lookup_app().await?),
    }
}

async fn fleet(readers: &Readers, deployment: &Deployment) -> Reading<Vec<Sandbox>> {
    let app = match app(readers).await {
        Ok(Some(app)) => app,
        // Without the App there is no sandbox of ours.
        Ok(None) => return Reading::Known(Vec::new()),
        Err(failure) => return Reading::Unknown(failure),
    };
    let reading = readers.modal.list_sandboxes(&app, &our_tags(deployment)).await;
    // An App that was stopped and made again, by whomever, has another id; whether Modal says so of the old one
    // or shows it empty is not known.
    let is_gone = match &reading {
        Reading::Known(seen) => seen.is_empty(),
        Reading::Partial { .. } | Reading::Unknown(_) => {
            reading.failure().is_some_and(|failure| failure.class == ErrorClass::NotFound)
        }
    };
    *readers.app.lock().expect("no holder of the App's id panics") = (!is_gone).then_some(app);
    reading
}

/// The quota, after a greeting: Modal tells there of clients that it will soon refuse, which is logged once.
async fn quota(readers: &Readers) -> Result<Quota, CallFailure> {
    readers.modal.hello().await?;
    Ok(readers.modal.quota().await?)
}

async fn ended(readers: &Readers, deployment: &Deployment, since: DateTime<Utc>) -> Reading<Vec<Sandbox>> {
    match app(readers).await {
        Ok(Some(app)) => readers.modal.list_ended_sandboxes(&app, &our_tags(deployment), since).await,
        Ok(None) => Reading::Known(Vec::new()),
        Err(failure) => Reading::Unknown(failure),
    }
}

/// From when on sandboxes are listed that ended: back to all that are not accounted, and to those with Secrets.
pub(super) fn ended_since(observed: &Observed, policy: &Policy, now: DateTime<Utc>) -> DateTime<Utc> {
    let for_secrets = now + observed.skew - ENDED_SINCE;
    match observed.spend.list_since {
        Some(since) if policy.has_gpus() => since.min(for_secrets),
        Some(since) => since,
        None => for_secrets,
    }
}

fn our_tags(deployment: &Deployment) -> BTreeMap<String, String> {
    BTreeMap::from([(tag::DEPLOYMENT.to_owned(), deployment.to_string())])
}

async fn runs(
    readers: &Readers,
    scope: &Scope,
    (depth, purpose): (Depth, Purpose),
    known: &BTreeSet<RunId>,
) -> Reading<RunList> {
    if mutant::is(Mutant::FilteredListOnly) {
        return github(readers, scope).list_runs_by_status(&scope.repo, &RunStatus::Queued).await;
    }
    let is_worth_more =
        |run: &WorkflowRun| run.status != RunStatus::Completed && (depth == Depth::Active || !known.contains(&run.id));
    let paging = |page: &[WorkflowRun]| if page.iter().any(is_worth_more) { Paging::Continue } else { Paging::Stop };
    github(readers, scope).list_runs(&scope.repo, purpose, readers.runs_pages_max, paging).await
}

async fn group(readers: &Readers, org: &Org) -> Result<Option<RunnerGroup>, CallFailure> {
    match readers.policy.runner_group(org) {
        Some(choice) => Ok(github_at(readers, &Registry::Org(org.clone())).runner_group(&org.name, choice).await?),
        None => Ok(None),
    }
}

async fn releases(
    reader: &GithubReader,
    registry: &Registry,
    versions: BTreeSet<RunnerVersion>,
) -> Result<Releases, CallFailure> {
    let offered = reader.runner_release(registry).await?.version;
    let mut releases = Releases { offered, notices: BTreeMap::new(), missing: None };
    for version in versions {
        match reader.runner_notice(registry, version).await {
            Ok(notice) => {
                releases.notices.insert(version, notice);
            }
            Err(error) => releases.missing = Some(error.into()),
        }
    }
    Ok(releases)
}

/// A sweep only adds: what its lists lack is no news. What it saw before a failure is as good as the rest.
async fn sweep(reader: &GithubReader, scope: &Scope, breadth: Breadth) -> Reading<Vec<WorkflowRun>> {
    let mut seen = Vec::new();
    for status in breadth.statuses() {
        match reader.list_runs_by_status(&scope.repo, status).await {
            Reading::Known(list) => seen.extend(list.runs),
            Reading::Partial { seen: list, missing } => {
                seen.extend(list.runs);
                return Reading::Partial { seen, missing };
            }
            Reading::Unknown(missing) => return Reading::Partial { seen, missing },
        }
    }
    Reading::Known(seen)
}
