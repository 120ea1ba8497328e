//! The calls that change nothing.

use std::sync::{Arc, Mutex};

use super::GithubError;
use super::call::{Call, Operation};
use super::client::{Client, CredentialState, RequestCounts};
use super::pages::{List, Listed};
use super::wire;
use crate::budget::{Budget, Purpose};
use crate::error::ErrorClass;
use crate::ids::{CredentialName, RepoName, RunId};
use crate::state::{Reading, Registry, RunStatus, Runner, WorkflowJob, WorkflowRun};

/// A filtered run list ends at 1,000 results (GitHub API: actions/workflow-runs).
const SWEEP_PAGES_MAX: u32 = 10;

/// 3,000 jobs: twelve full matrices in one run.
const JOB_PAGES_MAX: u32 = 30;

/// 3,000 runners in one repository, ten times what a repository is worth by default.
const RUNNER_PAGES_MAX: u32 = 30;

/// Whether a further page is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// Read the next page, if there is one.
    Continue,
    /// What was read is enough.
    Stop,
}

/// The runs of a repository, newest first, as far as they were read.
#[expect(clippy::struct_excessive_bools, reason = "two facts that have nothing to do with each other")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunList {
    /// The runs, each once.
    pub runs: Vec<WorkflowRun>,
    /// Whether the oldest run is among them.
    pub reaches_end: bool,
    /// Whether GitHub said of every page that it is as it was at the last reading.
    pub is_unchanged: bool,
}

impl From<Listed<WorkflowRun>> for RunList {
    fn from(listed: Listed<WorkflowRun>) -> Self {
        Self { runs: listed.rows, reaches_end: listed.reaches_end, is_unchanged: listed.is_unchanged }
    }
}

/// Reads runs, jobs and runners with one credential; clones share everything.
#[derive(Clone)]
pub struct GithubReader {
    pub(super) client: Arc<Client>,
}

impl std::fmt::Debug for GithubReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GithubReader").field("credential", self.credential()).finish_non_exhaustive()
    }
}

impl GithubReader {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The name of the credential that is used.
    pub fn credential(&self) -> &CredentialName {
        self.client.name()
    }

    /// The accounts of the credential, by which to decide what may be asked next.
    pub fn budget(&self) -> Arc<Mutex<Budget>> {
        self.client.budget()
    }

    /// How the credential fares.
    pub fn state(&self) -> CredentialState {
        self.client.state()
    }

    /// How many requests were sent so far, by readers and writers of this credential.
    pub fn counts(&self) -> RequestCounts {
        self.client.counts()
    }

    /// Lists runs, newest first and unfiltered: filtered lists come from an index that lags and omits.
    ///
    /// `stop` is given each page; after `max_pages` nothing more is read, and that is no failure.
    pub async fn list_runs(
        &self,
        repo: &RepoName,
        purpose: Purpose,
        max_pages: u32,
        stop: impl FnMut(&[WorkflowRun]) -> Paging + Send,
    ) -> Reading<RunList> {
        let list = List {
            call: Call::new(Operation::ListRuns, repo.to_string()),
            purpose,
            path: format!("/repos/{repo}/actions/runs?exclude_pull_requests=true&per_page=100"),
            max_pages,
        };
        match self.client.read_list(&list, stop).await {
            Ok(listed) => listed.into_reading(RunList::from),
            Err(error) => Reading::Unknown(error.into()),
        }
    }

    /// Lists the runs that GitHub's index knows with `status`; a run that is not there proves nothing.
    ///
    /// For a status that GitHub cannot filter by, the list is empty.
    pub async fn list_runs_by_status(&self, repo: &RepoName, status: &RunStatus) -> Reading<RunList> {
        let Some(filter) = wire::status_filter(status) else {
            return Reading::Known(RunList { runs: Vec::new(), reaches_end: true, is_unchanged: true });
        };
        let list = List {
            call: Call::new(Operation::SweepRuns, repo.to_string()),
            purpose: Purpose::Sweep,
            path: format!("/repos/{repo}/actions/runs?exclude_pull_requests=true&status={filter}&per_page=100"),
            max_pages: SWEEP_PAGES_MAX,
        };
        match self.client.read_list(&list, |_: &[WorkflowRun]| Paging::Continue).await {
            Ok(listed) => listed.into_reading(RunList::from),
            Err(error) => Reading::Unknown(error.into()),
        }
    }

    /// Reads one run; none where there is no such run, or the repository is hidden from the credential.
    ///
    /// # Errors
    /// [`GithubError`], of any class but [`ErrorClass::NotFound`].
    pub async fn run(&self, repo: &RepoName, run: RunId) -> Result<Option<WorkflowRun>, GithubError> {
        let call = Call::new(Operation::GetRun, format!("run {run} of {repo}"));
        let path = format!("/repos/{repo}/actions/runs/{run}?exclude_pull_requests=true");
        match self.client.read_one(&call, Purpose::Jobs, &path).await {
            Ok(run) => Ok(Some(run)),
            Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists all jobs of a run's newest attempt.
    ///
    /// None where there is no such run, or the repository is hidden from the credential: that is not an
    /// empty list.
    pub async fn list_jobs(&self, repo: &RepoName, run: RunId, purpose: Purpose) -> Reading<Option<Vec<WorkflowJob>>> {
        let list = List {
            call: Call::new(Operation::ListJobs, format!("run {run} of {repo}")),
            purpose,
            path: format!("/repos/{repo}/actions/runs/{run}/jobs?filter=latest&per_page=100"),
            max_pages: JOB_PAGES_MAX,
        };
        match self.client.read_list(&list, |_: &[WorkflowJob]| Paging::Continue).await {
            Ok(listed) => listed.or_cut(&list).into_reading(|listed| Some(listed.rows)),
            Err(error) if error.class() == ErrorClass::NotFound => Reading::Known(None),
            Err(error) => Reading::Unknown(error.into()),
        }
    }

    /// Lists all runners that are registered in one place, of whomever they are.
    ///
    /// A runner that goes while pages are read pulls another one over the edge between two pages: that one
    /// is missing from this reading, and is there in the next.
    pub async fn list_runners(&self, registry: &Registry) -> Reading<Vec<Runner>> {
        let list = List {
            call: Call::at(registry, Operation::ListRunners, registry.to_string()),
            purpose: Purpose::Runners,
            path: format!("{}?per_page=100", runners_path(registry)),
            max_pages: RUNNER_PAGES_MAX,
        };
        match self.client.read_list(&list, |_: &[Runner]| Paging::Continue).await {
            Ok(listed) => listed.or_cut(&list).into_reading(|listed| listed.rows),
            Err(error) => Reading::Unknown(error.into()),
        }
    }
}

/// Where runners are listed, registered and deleted.
pub(super) fn runners_path(registry: &Registry) -> String {
    match registry {
        Registry::Repo(scope) => format!("/repos/{}/actions/runners", scope.repo),
        Registry::Org(org) => format!("/orgs/{}/actions/runners", org.name),
    }
}
