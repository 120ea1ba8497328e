//! Names of the calls, for errors, logs and metrics.

use std::fmt;
use std::time::Duration;

/// The calls of GitHub's REST API that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `GET /app/installations`.
    ListInstallations,
    /// `POST /app/installations/{id}/access_tokens`.
    CreateInstallationToken,
    /// `GET /installation/repositories`.
    ListInstallationRepos,
    /// `GET /orgs/{org}/repos`.
    ListOrgRepos,
    /// `GET /repos/{owner}/{repo}`.
    GetRepo,
    /// `GET …/actions/runs`.
    ListRuns,
    /// `GET …/actions/runs?status=…`.
    SweepRuns,
    /// `GET …/actions/runs/{id}`.
    GetRun,
    /// `GET …/actions/runs/{id}/jobs`.
    ListJobs,
    /// `GET …/actions/runners`.
    ListRunners,
    /// `GET …/actions/runner-groups`.
    ListRunnerGroups,
    /// `GET …/actions/runner-groups/{id}/repositories`.
    ListGroupRepositories,
    /// `GET …/actions/runners/downloads`.
    ListRunnerReleases,
    /// `GET …/actions/runners/deprecations/{version}`.
    GetRunnerDeprecation,
    /// `POST …/actions/runners/generate-jitconfig`.
    GenerateJitConfig,
    /// `DELETE …/actions/runners/{id}`.
    DeleteRunner,
}

/// GitHub ends a request after 10 s by itself; what is longer is the way there and the body.
const READ_DEADLINE: Duration = Duration::from_secs(20);
/// Longer than for a read: what is given up here may have registered a runner all the same.
const MINT_DEADLINE: Duration = Duration::from_secs(30);

impl Operation {
    /// The operation as a metric label and a log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ListInstallations => "list_installations",
            Self::CreateInstallationToken => "create_installation_token",
            Self::ListInstallationRepos => "list_installation_repos",
            Self::ListOrgRepos => "list_org_repos",
            Self::GetRepo => "get_repo",
            Self::ListRuns => "list_runs",
            Self::SweepRuns => "sweep_runs",
            Self::GetRun => "get_run",
            Self::ListJobs => "list_jobs",
            Self::ListRunners => "list_runners",
            Self::ListRunnerGroups => "list_runner_groups",
            Self::ListGroupRepositories => "list_group_repositories",
            Self::ListRunnerReleases => "list_runner_releases",
            Self::GetRunnerDeprecation => "get_runner_deprecation",
            Self::GenerateJitConfig => "generate_jit_config",
            Self::DeleteRunner => "delete_runner",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::ListInstallations => "list the installations of",
            Self::CreateInstallationToken => "get a token for the GitHub App at",
            Self::ListInstallationRepos | Self::ListOrgRepos | Self::ListGroupRepositories => {
                "list the repositories of"
            }
            Self::GetRepo => "look at",
            Self::ListRuns => "list the workflow runs of",
            Self::SweepRuns => "list the workflow runs by status of",
            Self::GetRun => "read",
            Self::ListJobs => "list the jobs of",
            Self::ListRunners => "list the runners of",
            Self::ListRunnerGroups => "list the runner groups of",
            Self::ListRunnerReleases => "list the runner releases for",
            Self::GetRunnerDeprecation => "ask for the end of",
            Self::GenerateJitConfig => "generate a JIT config for",
            Self::DeleteRunner => "delete",
        }
    }

    /// The permission that the call needs in a repository, or an organization, as GitHub names it.
    pub(super) fn permission(self) -> &'static str {
        match self {
            Self::ListRuns | Self::SweepRuns | Self::GetRun | Self::ListJobs => "actions=read",
            Self::ListRunners | Self::ListRunnerReleases | Self::GetRunnerDeprecation => "administration=read",
            Self::ListRunnerGroups | Self::ListGroupRepositories => "organization_self_hosted_runners=read",
            Self::GenerateJitConfig | Self::DeleteRunner => "administration=write",
            Self::ListInstallations
            | Self::CreateInstallationToken
            | Self::ListInstallationRepos
            | Self::ListOrgRepos
            | Self::GetRepo => "metadata=read",
        }
    }

    /// Whether the App asks for itself.
    pub(super) fn is_of_app(self) -> bool {
        matches!(self, Self::ListInstallations | Self::CreateInstallationToken)
    }

    pub(super) fn deadline(self) -> Duration {
        match self {
            Self::GenerateJitConfig => MINT_DEADLINE,
            Self::ListInstallations
            | Self::CreateInstallationToken
            | Self::ListInstallationRepos
            | Self::ListOrgRepos
            | Self::GetRepo
            | Self::ListRuns
            | Self::SweepRuns
            | Self::GetRun
            | Self::ListJobs
            | Self::ListRunners
            | Self::ListRunnerGroups
            | Self::ListGroupRepositories
            | Self::ListRunnerReleases
            | Self::GetRunnerDeprecation
            | Self::DeleteRunner => READ_DEADLINE,
        }
    }
}

/// One call: what is done, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is done.
    pub operation: Operation,
    /// The repository, or the thing within it.
    pub subject: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation.verb(), self.subject)
    }
}
