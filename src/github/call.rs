//! Names of the calls, for errors, logs and metrics.

use std::fmt;
use std::time::Duration;

use crate::state::Registry;

/// The calls of GitHub's REST API that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `GET /app`.
    GetApp,
    /// `GET /app/installations`.
    ListInstallations,
    /// `POST /app/installations/{id}/access_tokens`.
    CreateInstallationToken,
    /// `GET /installation/repositories`.
    ListInstallationRepos,
    /// `GET /orgs/{org}/repos`.
    ListOrgRepos,
    /// `GET /rate_limit`.
    GetRateLimit,
    /// `GET /repos/{owner}/{repo}`.
    GetRepo,
    /// `GET …/actions/permissions`.
    GetActionsPermissions,
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
    /// What every credential is used for, for metrics that show zero.
    pub(super) const USUAL: [Self; 8] = [
        Self::ListRuns,
        Self::SweepRuns,
        Self::GetRun,
        Self::ListJobs,
        Self::ListRunners,
        Self::ListRunnerReleases,
        Self::GenerateJitConfig,
        Self::DeleteRunner,
    ];

    /// The operation as a metric label and a log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GetApp => "get_app",
            Self::ListInstallations => "list_installations",
            Self::CreateInstallationToken => "create_installation_token",
            Self::ListInstallationRepos => "list_installation_repos",
            Self::ListOrgRepos => "list_org_repos",
            Self::GetRateLimit => "get_rate_limit",
            Self::GetRepo => "get_repo",
            Self::GetActionsPermissions => "get_actions_permissions",
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
            Self::GetRateLimit => "read the rate limits of",
            Self::GetRepo => "look at",
            Self::GetActionsPermissions => "read the Actions settings of",
            Self::ListRuns => "list the workflow runs of",
            Self::SweepRuns => "list the workflow runs by status of",
            Self::GetApp | Self::GetRun => "read",
            Self::ListJobs => "list the jobs of",
            Self::ListRunners => "list the runners of",
            Self::ListRunnerGroups => "list the runner groups of",
            Self::ListRunnerReleases => "list the runner releases for",
            Self::GetRunnerDeprecation => "ask for the end of",
            Self::GenerateJitConfig => "generate a JIT config for",
            Self::DeleteRunner => "delete",
        }
    }

    /// Whether the App asks for itself.
    pub(super) fn is_of_app(self) -> bool {
        matches!(self, Self::GetApp | Self::ListInstallations | Self::CreateInstallationToken)
    }

    pub(super) fn deadline(self) -> Duration {
        match self {
            Self::GenerateJitConfig => MINT_DEADLINE,
            Self::GetApp
            | Self::ListInstallations
            | Self::CreateInstallationToken
            | Self::ListInstallationRepos
            | Self::ListOrgRepos
            | Self::GetRateLimit
            | Self::GetRepo
            | Self::GetActionsPermissions
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
    level: Level,
}

/// By whom the permission for a call is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Repository,
    Organization,
}

impl Call {
    /// A call that needs a permission in a repository, if any.
    pub fn new(operation: Operation, subject: impl Into<String>) -> Self {
        Self { operation, subject: subject.into(), level: Level::Repository }
    }

    /// A call that concerns runners which are registered in that place.
    pub(super) fn at(registry: &Registry, operation: Operation, subject: impl Into<String>) -> Self {
        let level = match registry {
            Registry::Repo(_) => Level::Repository,
            Registry::Org(_) => Level::Organization,
        };
        Self { level, ..Self::new(operation, subject) }
    }

    /// The permission that the call needs, as GitHub names it, and where.
    pub(super) fn permission(&self) -> String {
        let of_runners = match self.level {
            Level::Repository => "administration",
            Level::Organization => "organization_self_hosted_runners",
        };
        let (name, access) = match self.operation {
            Operation::ListRuns | Operation::SweepRuns | Operation::GetRun | Operation::ListJobs => ("actions", "read"),
            Operation::ListRunners | Operation::ListRunnerReleases | Operation::GetRunnerDeprecation => {
                (of_runners, "read")
            }
            Operation::ListRunnerGroups | Operation::ListGroupRepositories => {
                ("organization_self_hosted_runners", "read")
            }
            Operation::GenerateJitConfig | Operation::DeleteRunner => (of_runners, "write"),
            Operation::GetActionsPermissions => ("administration", "read"),
            Operation::GetApp
            | Operation::ListInstallations
            | Operation::CreateInstallationToken
            | Operation::ListInstallationRepos
            | Operation::ListOrgRepos
            | Operation::GetRateLimit
            | Operation::GetRepo => ("metadata", "read"),
        };
        let level = if name.starts_with("organization") { "organization" } else { "repository" };
        format!("{level} permission `{name}={access}`")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation.verb(), self.subject)
    }
}
