//! Which endpoint a request means.

use http::Method;

use crate::sim::app::{Access, Need, Permission};
use crate::sim::history::Operation;

/// An endpoint with what its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Runs(String),
    Run(String, u64),
    Jobs(String, u64),
    Job(String, u64),
    Repo(String),
    ActionsPermissions(String),
    Runners(String),
    Runner(String, u64),
    DeleteRunner(String, u64),
    Mint(String),
    Downloads(String),
    Deprecation(String, String),
    Groups(String),
    GroupRepos(String, u64),
    App,
    Installations,
    InstallationToken(u64),
    InstallationRepos,
    OrgRepos(String),
    RateLimit,
    Unknown,
}

impl Route {
    /// Reads method and path; the prefix of GitHub Enterprise Server, `/api/v3`, may stand before it.
    pub(super) fn parse(method: &Method, path: &str) -> Self {
        let path = path.strip_prefix("/api/v3").unwrap_or(path);
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match (method.as_str(), &segments[..]) {
            ("GET", ["rate_limit"]) => return Self::RateLimit,
            ("GET", ["app"]) => return Self::App,
            ("GET", ["app", "installations"]) => return Self::Installations,
            ("POST", ["app", "installations", id, "access_tokens"]) => return numbered(id, Self::InstallationToken),
            ("GET", ["installation", "repositories"]) => return Self::InstallationRepos,
            ("GET", ["orgs", owner, "repos"]) => return Self::OrgRepos((*owner).to_owned()),
            _ => {}
        }
        let (repo, rest) = match &segments[..] {
            ["repos", owner, name, rest @ ..] => (format!("{owner}/{name}"), rest),
            ["orgs", name, "actions", "runner-groups"] if method == Method::GET => {
                return Self::Groups((*name).to_owned());
            }
            ["orgs", name, "actions", "runner-groups", id, "repositories"] if method == Method::GET => {
                return numbered(id, |id| Self::GroupRepos((*name).to_owned(), id));
            }
            // Of an organization only its runners are asked for here, which stand beside those of its repositories.
            ["orgs", name, "actions", "runners", ..] => ((*name).to_owned(), &segments[2..]),
            _ => return Self::Unknown,
        };
        match (method.as_str(), rest) {
            ("GET", []) => Self::Repo(repo),
            ("GET", ["actions", "permissions"]) => Self::ActionsPermissions(repo),
            ("GET", ["actions", "runs"]) => Self::Runs(repo),
            ("GET", ["actions", "runs", run]) => numbered(run, |run| Self::Run(repo, run)),
            ("GET", ["actions", "runs", run, "jobs"]) => numbered(run, |run| Self::Jobs(repo, run)),
            ("GET", ["actions", "jobs", job]) => numbered(job, |job| Self::Job(repo, job)),
            ("GET", ["actions", "runners"]) => Self::Runners(repo),
            ("GET", ["actions", "runners", "downloads"]) => Self::Downloads(repo),
            ("GET", ["actions", "runners", "deprecations", version]) => Self::Deprecation(repo, (*version).to_owned()),
            ("POST", ["actions", "runners", "generate-jitconfig"]) => Self::Mint(repo),
            ("GET", ["actions", "runners", runner]) => numbered(runner, |runner| Self::Runner(repo, runner)),
            ("DELETE", ["actions", "runners", runner]) => numbered(runner, |runner| Self::DeleteRunner(repo, runner)),
            _ => Self::Unknown,
        }
    }

    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Runs(_) => Operation::ListRuns,
            Self::Run(..) => Operation::GetRun,
            Self::Jobs(..) => Operation::ListJobs,
            Self::Job(..) => Operation::GetJob,
            Self::Repo(_) => Operation::GetRepo,
            Self::ActionsPermissions(_) => Operation::GetActionsPermissions,
            Self::App => Operation::GetApp,
            Self::Runners(_) => Operation::ListRunners,
            Self::Runner(..) => Operation::GetRunner,
            Self::DeleteRunner(..) => Operation::DeleteRunner,
            Self::Mint(_) => Operation::Mint,
            Self::Downloads(_) => Operation::Downloads,
            Self::Deprecation(..) => Operation::Deprecation,
            Self::Groups(_) => Operation::ListGroups,
            Self::GroupRepos(..) => Operation::ListGroupRepos,
            Self::Installations => Operation::ListInstallations,
            Self::InstallationToken(_) => Operation::InstallationToken,
            Self::InstallationRepos => Operation::ListInstallationRepos,
            Self::OrgRepos(_) => Operation::ListOrgRepos,
            Self::RateLimit => Operation::RateLimit,
            Self::Unknown => Operation::Unknown,
        }
    }

    /// What an App must have been granted for it by the owner; none where it needs nothing but to see the repository.
    pub(super) fn needs(&self) -> Option<Need> {
        let (permission, access) = match self {
            Self::Runs(_) | Self::Run(..) | Self::Jobs(..) | Self::Job(..) => (Permission::Actions, Access::Read),
            Self::Runners(at) | Self::Runner(at, _) | Self::Downloads(at) | Self::Deprecation(at, _) => {
                (of_runners(at), Access::Read)
            }
            Self::ActionsPermissions(_) => (Permission::Administration, Access::Read),
            Self::Mint(at) | Self::DeleteRunner(at, _) => (of_runners(at), Access::Write),
            Self::Groups(_) | Self::GroupRepos(..) => (Permission::OrganizationSelfHostedRunners, Access::Read),
            Self::Repo(_)
            | Self::App
            | Self::Installations
            | Self::InstallationToken(_)
            | Self::InstallationRepos
            | Self::OrgRepos(_)
            | Self::RateLimit
            | Self::Unknown => return None,
        };
        Some(Need { permission, access })
    }

    /// The repository that the path names, in lower case; empty where it names none.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Runs(repo)
            | Self::Run(repo, _)
            | Self::Jobs(repo, _)
            | Self::Job(repo, _)
            | Self::Repo(repo)
            | Self::ActionsPermissions(repo)
            | Self::Runners(repo)
            | Self::Runner(repo, _)
            | Self::DeleteRunner(repo, _)
            | Self::Mint(repo)
            | Self::Groups(repo)
            | Self::GroupRepos(repo, _)
            | Self::Deprecation(repo, _)
            | Self::Downloads(repo) => repo.to_lowercase(),
            Self::App
            | Self::Installations
            | Self::InstallationToken(_)
            | Self::InstallationRepos
            | Self::OrgRepos(_)
            | Self::RateLimit
            | Self::Unknown => String::new(),
        }
    }

    /// The id within the repository that the path names.
    pub(super) fn id(&self) -> Option<u64> {
        match self {
            Self::Run(_, id)
            | Self::Jobs(_, id)
            | Self::Job(_, id)
            | Self::Runner(_, id)
            | Self::GroupRepos(_, id)
            | Self::DeleteRunner(_, id)
            | Self::InstallationToken(id) => Some(*id),
            Self::Runs(_)
            | Self::Repo(_)
            | Self::ActionsPermissions(_)
            | Self::Runners(_)
            | Self::Mint(_)
            | Self::Groups(_)
            | Self::Downloads(_)
            | Self::Deprecation(..)
            | Self::App
            | Self::Installations
            | Self::InstallationRepos
            | Self::OrgRepos(_)
            | Self::RateLimit
            | Self::Unknown => None,
        }
    }
}

/// The permission for runners of a repository or an organization.
fn of_runners(place: &str) -> Permission {
    if place.contains('/') { Permission::Administration } else { Permission::OrganizationSelfHostedRunners }
}

fn numbered(text: &str, route: impl FnOnce(u64) -> Route) -> Route {
    text.parse().map_or(Route::Unknown, route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_found_by_method_and_path() {
        let parse = |method: &str, path: &str| Route::parse(&method.parse().unwrap(), path);
        let repo = || "Acme/web".to_owned();
        assert_eq!(parse("GET", "/repos/Acme/web/actions/runs"), Route::Runs(repo()));
        assert_eq!(parse("GET", "/api/v3/repos/Acme/web/actions/runs/7/jobs"), Route::Jobs(repo(), 7));
        assert_eq!(parse("GET", "/repos/Acme/web/actions/runners/downloads"), Route::Downloads(repo()));
        assert_eq!(parse("DELETE", "/repos/Acme/web/actions/runners/7"), Route::DeleteRunner(repo(), 7));
        assert_eq!(parse("GET", "/repos/Acme/web/actions/runs/"), Route::Unknown);
        assert_eq!(parse("POST", "/repos/Acme/web/actions/runs"), Route::Unknown);
        assert_eq!(parse("GET", "/orgs/acme/actions/runners"), Route::Runners("acme".to_owned()));
        assert_eq!(parse("GET", "/orgs/acme/actions/runs"), Route::Unknown);
        assert_eq!(parse("GET", "/orgs/acme/actions/runner-groups/4/repositories").id(), Some(4));
        assert_eq!(parse("GET", "/repos/Acme/web/actions/permissions"), Route::ActionsPermissions(repo()));
        assert_eq!((parse("GET", "/app"), parse("POST", "/app")), (Route::App, Route::Unknown));
        assert_eq!(parse("GET", "/orgs/acme/repos"), Route::OrgRepos("acme".to_owned()));
        assert_eq!(parse("POST", "/app/installations/7/access_tokens"), Route::InstallationToken(7));
        assert_eq!(parse("GET", "/app/installations/7/access_tokens"), Route::Unknown);
        assert_eq!(parse("GET", "/repos/Acme/web/actions/runs/7/jobs").id(), Some(7));
    }
}
