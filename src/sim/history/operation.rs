//! What can be asked of the two services, and what else can go wrong.

use serde::{Deserialize, Serialize};

/// Which of the two services was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// GitHub's REST API.
    Github,
    /// Modal's gRPC API.
    Modal,
}

listed_enum! {
/// What was asked for; also the place at which a fault can be put.
///
/// The V1 and V2 forms of a Modal call are one operation. The order matters: GitHub's calls, then Modal's,
/// then what is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Any call of GitHub's; only for faults.
    Github,
    /// The run list of a repository.
    ListRuns,
    /// A run by its id.
    GetRun,
    /// The jobs of a run.
    ListJobs,
    /// A job by its id.
    GetJob,
    /// A repository.
    GetRepo,
    /// The Actions settings of a repository.
    GetActionsPermissions,
    /// What the App is.
    GetApp,
    /// The installations of the App.
    ListInstallations,
    /// A token for an installation of the App.
    InstallationToken,
    /// The repositories of an installation.
    ListInstallationRepos,
    /// The repositories of an organization.
    ListOrgRepos,
    /// The runners of a repository.
    ListRunners,
    /// A runner by its id.
    GetRunner,
    /// `GET …/actions/runner-groups`.
    ListGroups,
    /// `GET …/actions/runner-groups/{id}/repositories`.
    ListGroupRepos,
    /// Deletes a runner's registration.
    DeleteRunner,
    /// Generates a JIT config.
    Mint,
    /// The runner's releases.
    Downloads,
    /// Until when a release of the runner is taken.
    Deprecation,
    /// The state of the rate limits.
    RateLimit,
    /// A path or method that GitHub does not have here.
    Unknown,
    /// Any call of Modal's; only for faults.
    Modal,
    /// `ClientHello`.
    Hello,
    /// `AuthTokenGet`.
    AuthToken,
    /// `AppGetOrCreate`.
    App,
    /// `EnvironmentGetOrCreate`.
    Environment,
    /// `ImageGetOrCreate`.
    Image,
    /// `ImageJoinStreaming`.
    ImageLog,
    /// `ImageFromId`.
    ImageFromId,
    /// `SecretGetOrCreate`.
    Secret,
    /// `SecretDelete`.
    SecretDelete,
    /// `VolumeGetOrCreate`.
    Volume,
    /// `SandboxCreate` and `SandboxCreateV2`.
    Create,
    /// `SandboxList` and `SandboxListV2`.
    ListSandboxes,
    /// `SandboxGetFromName` and `SandboxGetFromNameV2`.
    SandboxByName,
    /// `SandboxWait` and `SandboxWaitV2`.
    Wait,
    /// `SandboxTerminate` and `SandboxTerminateV2`.
    Terminate,
    /// `SandboxTagsSet` and `SandboxTagsSetV2`.
    SetTags,
    /// `SandboxTagsGet` and `SandboxTagsGetV2`.
    GetTags,
    /// `SandboxGetTaskId`.
    TaskId,
    /// `EnvironmentList`.
    Environments,
    /// `AppFetchLogs`.
    Logs,
    /// `WorkspaceBillingRates`.
    Rates,
    /// `WorkspaceBillingReport`.
    Bill,
    /// The start of the runner in a sandbox; only for faults.
    Boot,
    /// The build of an image; only for faults.
    ImageBuild,
    /// A job is queued; only for faults.
    Queue,
    /// A runner connects to GitHub; only for faults.
    Connect,
    /// GitHub gives a job to a runner; only for faults.
    Assign,
}
}

impl Operation {
    /// Its name, as it stands in scenarios and in the history.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether it stands for every call of a service.
    pub fn is_group(self) -> bool {
        matches!(self, Self::Github | Self::Modal)
    }

    /// The service that is called; none for what is no call.
    pub fn service(self) -> Option<Service> {
        if self >= Self::Boot {
            None
        } else if self < Self::Modal {
            Some(Service::Github)
        } else {
            Some(Service::Modal)
        }
    }

    /// What stands for any call of the same service; none for what is no call.
    pub(in crate::sim) fn group(self) -> Option<Self> {
        self.service().map(|service| match service {
            Service::Github => Self::Github,
            Service::Modal => Self::Modal,
        })
    }

    /// Whether it is a call by itself, rather than a group of calls or something that happens.
    pub fn is_call(self) -> bool {
        self.service().is_some() && !self.is_group()
    }

    /// Whether it is a call that changes something.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::DeleteRunner
                | Self::Mint
                | Self::App
                | Self::Image
                | Self::Secret
                | Self::SecretDelete
                | Self::Volume
                | Self::Create
                | Self::Terminate
                | Self::SetTags
        )
    }

    /// Whether it is a call that lists things.
    pub fn is_list(self) -> bool {
        self.lists_what_moves()
            || matches!(
                self,
                Self::ListInstallations
                    | Self::ListInstallationRepos
                    | Self::ListOrgRepos
                    | Self::ListGroups
                    | Self::ListGroupRepos
            )
    }

    /// Whether it lists what comes and goes by itself, so that an answer may show an earlier moment.
    pub fn lists_what_moves(self) -> bool {
        matches!(self, Self::ListRuns | Self::ListJobs | Self::ListRunners | Self::ListSandboxes)
    }
}
