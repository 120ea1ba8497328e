//! Runner groups of organizations.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::GithubError;
use super::call::{Call, Operation};
use super::client::{Client, Request};
use super::error::Malformed;
use super::pages::{names_next, unreadable};
use super::reader::GithubReader;
use crate::budget::Purpose;
use crate::ids::{OrgName, RepoName};
use crate::plan::RunnerGroupChoice;
use crate::state::{AdmittedRepos, AdmittedWorkflows, RunnerGroup, SelectedWorkflow};

/// The most pages of a list, 100 entries each.
const PAGES_MAX: u32 = 20;

#[derive(Deserialize)]
struct GroupsBody {
    runner_groups: Vec<WireGroup>,
}

#[derive(Deserialize)]
struct WireGroup {
    id: u64,
    name: String,
    visibility: Option<String>,
    allows_public_repositories: Option<bool>,
    restricted_to_workflows: Option<bool>,
    /// Without meaning where it is not restricted.
    selected_workflows: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RepositoriesBody {
    repositories: Vec<WireRepository>,
}

#[derive(Deserialize)]
struct WireRepository {
    full_name: String,
}

impl GithubReader {
    /// Finds a runner group of an organization, with the repositories that it admits; none where there is no such group.
    ///
    /// # Errors
    /// [`GithubError`], also where a list goes on after 20 pages.
    pub async fn runner_group(
        &self,
        org: &OrgName,
        choice: &RunnerGroupChoice,
    ) -> Result<Option<RunnerGroup>, GithubError> {
        let call = Call::new(Operation::ListRunnerGroups, format!("organization {org}"));
        let path = format!("/orgs/{org}/actions/runner-groups?per_page=100");
        let is_it = |group: &WireGroup| match choice {
            RunnerGroupChoice::Name(name) => group.name == *name,
            RunnerGroupChoice::Id(id) => group.id == *id,
        };
        let groups = read_all(self.client(), &call, &path, |body: GroupsBody| body.runner_groups).await?;
        let Some(group) = groups.into_iter().find(is_it) else { return Ok(None) };
        let WireGroup { id, name, visibility, allows_public_repositories, restricted_to_workflows, selected_workflows } =
            group;
        // A restriction to what GitHub does not say is none that could be judged.
        let selected = selected_workflows.filter(|_| restricted_to_workflows == Some(true));
        let workflows = selected.map_or(AdmittedWorkflows::All, |selected| {
            AdmittedWorkflows::Selected(selected.iter().map(|text| SelectedWorkflow::read(text)).collect())
        });
        let admits = match visibility.as_deref() {
            Some("selected") => AdmittedRepos::Selected(self.repositories_of_group(org, id).await?),
            Some("private") => AdmittedRepos::Private,
            Some(_) | None => AdmittedRepos::All,
        };
        let allows_public = allows_public_repositories.unwrap_or(false);
        Ok(Some(RunnerGroup { id, name, admits, allows_public, workflows }))
    }

    async fn repositories_of_group(&self, org: &OrgName, group: u64) -> Result<BTreeSet<RepoName>, GithubError> {
        let subject = format!("runner group {group} of organization {org}");
        let call = Call::new(Operation::ListGroupRepositories, subject);
        let path = format!("/orgs/{org}/actions/runner-groups/{group}/repositories?per_page=100");
        let repositories = read_all(self.client(), &call, &path, |body: RepositoriesBody| body.repositories).await?;
        // One that cannot be read must not get lost: it is none that is allowed.
        let name = |repository: WireRepository| repository.full_name.parse();
        let names: Result<_, _> = repositories.into_iter().map(name).collect();
        names.map_err(|_| GithubError::Unreadable { call, request_id: None, source: Malformed::Repository })
    }
}

/// Reads all pages of a list, of which nothing is kept.
async fn read_all<B: DeserializeOwned, T>(
    client: &Client,
    call: &Call,
    path: &str,
    take: impl Fn(B) -> Vec<T>,
) -> Result<Vec<T>, GithubError> {
    let mut rows = Vec::new();
    for number in 1..=PAGES_MAX {
        let path = format!("{path}&page={number}");
        let answer = client.send(call, Purpose::Runners, Request::Get { path: &path, known: None }).await?;
        let body = serde_json::from_slice(&answer.body)
            .map_err(|error| unreadable(call, &answer, Malformed::json("the list", &error)))?;
        rows.extend(take(body));
        if names_next(&answer.headers) != Some(true) {
            return Ok(rows);
        }
    }
    Err(GithubError::Unreadable { call: call.clone(), request_id: None, source: Malformed::Endless })
}
