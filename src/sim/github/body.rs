//! GitHub's objects as it writes them.

use serde::Serialize;
use serde_json::{Value, json};

use super::Page;
use crate::sim::history::fingerprint;
use crate::sim::jobs::{BRANCH, JobState, JobView, Repo, Run, RunChange, RunStatus, Time};
use crate::sim::runners::{Connection, Lifetime, RunnerView};
use crate::sim::scenario::{Conclusion, GroupVisibility, RepoAbout, ScenarioGroup, Visibility};

const API: &str = "https://api.github.com";
const WEB: &str = "https://github.com";

/// A time as GitHub writes it: to the second, in UTC.
pub(super) fn stamp(at: Time) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn sha(of: u64) -> String {
    let part = fingerprint(&of.to_string());
    format!("{part}{part}{}", &part[..8])
}

/// A repository as it stands inside of other objects.
pub(in crate::sim) fn repository_body(full_name: &str, id: u64, about: &RepoAbout) -> Value {
    let (owner, name) = full_name.split_once('/').unwrap_or((full_name, ""));
    let url = format!("{API}/repos/{full_name}");
    let mut body = json!({
        "id": id,
        "node_id": format!("R_{id}"),
        "name": name,
        "full_name": full_name,
        "private": about.visibility != Visibility::Public,
        "owner": user_body(owner),
        "html_url": format!("{WEB}/{full_name}"),
        "description": null,
        "fork": about.fork,
        "url": url,
    });
    let fields = body.as_object_mut().expect("it was written as an object");
    for (key, path) in REPOSITORY_URLS {
        fields.insert(format!("{key}_url"), format!("{url}/{path}").into());
    }
    body
}

/// The links of a repository: the field without `_url`, and the path.
const REPOSITORY_URLS: [(&str, &str); 36] = [
    ("archive", "{archive_format}{/ref}"),
    ("assignees", "assignees{/user}"),
    ("blobs", "git/blobs{/sha}"),
    ("branches", "branches{/branch}"),
    ("collaborators", "collaborators{/collaborator}"),
    ("comments", "comments{/number}"),
    ("commits", "commits{/sha}"),
    ("compare", "compare/{base}...{head}"),
    ("contents", "contents/{+path}"),
    ("contributors", "contributors"),
    ("deployments", "deployments"),
    ("downloads", "downloads"),
    ("events", "events"),
    ("forks", "forks"),
    ("git_commits", "git/commits{/sha}"),
    ("git_refs", "git/refs{/sha}"),
    ("git_tags", "git/tags{/sha}"),
    ("hooks", "hooks"),
    ("issue_comment", "issues/comments{/number}"),
    ("issue_events", "issues/events{/number}"),
    ("issues", "issues{/number}"),
    ("keys", "keys{/key_id}"),
    ("labels", "labels{/name}"),
    ("languages", "languages"),
    ("merges", "merges"),
    ("milestones", "milestones{/number}"),
    ("notifications", "notifications{?since,all,participating}"),
    ("pulls", "pulls{/number}"),
    ("releases", "releases{/id}"),
    ("stargazers", "stargazers"),
    ("statuses", "statuses/{sha}"),
    ("subscribers", "subscribers"),
    ("subscription", "subscription"),
    ("tags", "tags"),
    ("teams", "teams"),
    ("trees", "git/trees{/sha}"),
];

pub(super) fn user_body(login: &str) -> Value {
    let url = format!("{API}/users/{login}");
    json!({
        "login": login,
        "id": 1_000_000,
        "node_id": format!("O_{login}"),
        "avatar_url": "https://avatars.githubusercontent.com/u/1000000?v=4",
        "gravatar_id": "",
        "url": url,
        "html_url": format!("{WEB}/{login}"),
        "followers_url": format!("{url}/followers"),
        "following_url": format!("{url}/following{{/other_user}}"),
        "gists_url": format!("{url}/gists{{/gist_id}}"),
        "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{url}/subscriptions"),
        "organizations_url": format!("{url}/orgs"),
        "repos_url": format!("{url}/repos"),
        "events_url": format!("{url}/events{{/privacy}}"),
        "received_events_url": format!("{url}/received_events"),
        "type": "Organization",
        "site_admin": false,
    })
}

/// Whether Actions are enabled in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    Enabled,
    Disabled,
}

/// The Actions settings of a repository.
pub(super) fn actions_permissions(actions: Actions) -> Vec<u8> {
    let body = match actions {
        Actions::Enabled => json!({ "enabled": true, "allowed_actions": "all", "sha_pinning_required": false }),
        Actions::Disabled => json!({ "enabled": false }),
    };
    body.to_string().into_bytes()
}

/// A repository as it is shown by itself.
pub(super) fn full_repository(repo: &Repo, created_at: Time) -> Value {
    let mut body = repo.body.clone();
    let fields = body.as_object_mut().expect("a repository is written as an object");
    let name = &repo.full_name;
    let more = json!({
        "clone_url": format!("{WEB}/{name}.git"),
        "git_url": format!("git://github.com/{name}.git"),
        "ssh_url": format!("git@github.com:{name}.git"),
        "svn_url": format!("{WEB}/{name}"),
        "mirror_url": null,
        "homepage": null,
        "language": null,
        "license": null,
        "default_branch": "main",
        "forks": 0,
        "forks_count": 0,
        "open_issues": 0,
        "open_issues_count": 0,
        "size": 0,
        "stargazers_count": 0,
        "watchers": 0,
        "watchers_count": 0,
        "network_count": 0,
        "subscribers_count": 0,
        "has_issues": true,
        "has_projects": true,
        "has_wiki": true,
        "has_pages": false,
        "has_discussions": false,
        "has_downloads": true,
        "archived": repo.about.archived,
        "disabled": repo.about.disabled,
        "visibility": repo.about.visibility,
        "pushed_at": stamp(created_at),
        "created_at": stamp(created_at),
        "updated_at": stamp(created_at),
        "permissions": {"admin": true, "maintain": true, "push": true, "triage": true, "pull": true},
    });
    let Value::Object(more) = more else { unreachable!("it was written as an object") };
    fields.extend(more);
    body
}

/// A workflow run.
#[derive(Debug, Serialize)]
pub(super) struct RunBody<'a> {
    id: u64,
    name: &'static str,
    node_id: String,
    head_branch: &'static str,
    head_sha: String,
    path: &'a str,
    display_title: String,
    run_number: usize,
    event: &'static str,
    status: &'static str,
    conclusion: Option<&'static str>,
    workflow_id: u64,
    url: String,
    html_url: String,
    pull_requests: [(); 0],
    created_at: String,
    updated_at: String,
    run_attempt: u32,
    run_started_at: String,
    previous_attempt_url: Option<String>,
    jobs_url: String,
    logs_url: String,
    check_suite_url: String,
    artifacts_url: String,
    cancel_url: String,
    rerun_url: String,
    workflow_url: String,
    referenced_workflows: [(); 0],
    head_commit: Option<()>,
    repository: &'a Value,
    /// Null where the fork is gone.
    head_repository: Option<&'a Value>,
}

/// The name of a run status in a filter and in an object.
pub(super) fn status_name(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => "queued",
        RunStatus::Waiting => "waiting",
        RunStatus::InProgress => "in_progress",
        RunStatus::Completed(_) => "completed",
    }
}

pub(super) fn conclusion_name(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Success => "success",
        Conclusion::Failure => "failure",
        Conclusion::Cancelled => "cancelled",
    }
}

impl<'a> RunBody<'a> {
    pub(super) fn new(run: &'a Run, change: &RunChange, created_at: Time, repo: &'a Repo) -> Self {
        let id = run.id;
        let repo_url = format!("{API}/repos/{}", repo.full_name);
        let url = format!("{repo_url}/actions/runs/{id}");
        let conclusion = match change.status {
            RunStatus::Completed(conclusion) => Some(conclusion_name(conclusion)),
            RunStatus::Queued | RunStatus::Waiting | RunStatus::InProgress => None,
        };
        let before = change.attempt.checked_sub(1).filter(|before| *before > 0);
        let spec = run.spec.as_ref();
        let is_of_fork = spec.is_some_and(|spec| spec.fork);
        let fork = (!spec.is_some_and(|spec| spec.fork_gone)).then_some(&repo.fork);
        Self {
            id,
            name: "CI",
            node_id: format!("WFR_{id}"),
            head_branch: BRANCH,
            head_sha: sha(id),
            path: run.workflow(),
            display_title: format!("Run {id}"),
            run_number: run.number,
            event: if is_of_fork { "pull_request" } else { "push" },
            status: status_name(change.status),
            conclusion,
            workflow_id: 7_000_000,
            html_url: format!("{WEB}/{}/actions/runs/{id}", repo.full_name),
            pull_requests: [],
            created_at: stamp(created_at),
            updated_at: stamp(change.at),
            run_attempt: change.attempt,
            run_started_at: stamp(change.attempt_started_at),
            previous_attempt_url: before.map(|before| format!("{url}/attempts/{before}")),
            jobs_url: format!("{url}/jobs"),
            logs_url: format!("{url}/logs"),
            check_suite_url: format!("{repo_url}/check-suites/{id}"),
            artifacts_url: format!("{url}/artifacts"),
            cancel_url: format!("{url}/cancel"),
            rerun_url: format!("{url}/rerun"),
            workflow_url: format!("{repo_url}/actions/workflows/7000000"),
            referenced_workflows: [],
            head_commit: None,
            repository: &repo.body,
            head_repository: if is_of_fork { fork } else { Some(&repo.body) },
            url,
        }
    }
}

/// A workflow job.
#[derive(Debug, Serialize)]
pub(super) struct JobBody<'a> {
    id: u64,
    run_id: u64,
    workflow_name: &'static str,
    head_branch: &'static str,
    run_url: String,
    run_attempt: u32,
    node_id: String,
    head_sha: String,
    url: String,
    html_url: String,
    status: &'static str,
    conclusion: Option<&'static str>,
    created_at: String,
    started_at: String,
    completed_at: Option<String>,
    name: &'a str,
    steps: Vec<Value>,
    check_run_url: String,
    labels: &'a [String],
    runner_id: Option<u64>,
    runner_name: Option<&'a str>,
    runner_group_id: Option<u64>,
    runner_group_name: Option<&'static str>,
}

impl<'a> JobBody<'a> {
    /// The job as it was; `when` and `step_secs` decide how many of its steps are shown.
    pub(super) fn new(view: JobView<'a>, repo: &Repo, when: Time, step_secs: Option<f64>) -> Self {
        let spec = &view.job.spec;
        let (id, run) = (spec.id, spec.run);
        let repo_url = format!("{API}/repos/{}", repo.full_name);
        let (status, conclusion) = match view.state {
            JobState::Waiting => ("waiting", None),
            JobState::Queued => ("queued", None),
            JobState::InProgress => ("in_progress", None),
            JobState::Completed(conclusion) => ("completed", Some(conclusion_name(conclusion))),
        };
        let taker = view.started_at.and(view.job.taker.as_ref());
        let is_hosted = taker.is_some_and(|taker| taker.key.is_none());
        Self {
            id,
            run_id: run,
            workflow_name: "CI",
            head_branch: BRANCH,
            run_url: format!("{repo_url}/actions/runs/{run}"),
            run_attempt: spec.attempt,
            node_id: format!("CR_{id}"),
            head_sha: sha(run),
            url: format!("{repo_url}/actions/jobs/{id}"),
            html_url: format!("{WEB}/{}/actions/runs/{run}/job/{id}", repo.full_name),
            status,
            conclusion,
            created_at: stamp(view.created_at),
            // GitHub states the creation here while nothing has started.
            started_at: stamp(view.started_at.unwrap_or(view.created_at)),
            completed_at: view.completed_at.map(stamp),
            name: &spec.name,
            steps: steps(view, when, step_secs),
            check_run_url: format!("{repo_url}/check-runs/{id}"),
            labels: &spec.labels,
            runner_id: taker.map(|taker| taker.runner_id),
            runner_name: taker.map(|taker| taker.runner_name.as_str()),
            runner_group_id: taker.map(|_| if is_hosted { 2 } else { 1 }),
            runner_group_name: taker.map(|_| if is_hosted { "GitHub Actions" } else { "Default" }),
        }
    }
}

/// The most steps that a job has.
const MAX_STEPS: u32 = 10;

/// The steps that have begun; the last one runs as long as the job does.
fn steps(view: JobView<'_>, when: Time, step_secs: Option<f64>) -> Vec<Value> {
    let (Some(started_at), Some(secs)) = (view.started_at, step_secs) else { return Vec::new() };
    let elapsed = (view.completed_at.unwrap_or(when).min(when) - started_at).as_seconds_f64().max(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a step count saturates")]
    let begun = ((elapsed / secs) as u32).min(MAX_STEPS - 1) + 1;
    (1..=begun)
        .map(|number| {
            let is_over = number < begun || view.completed_at.is_some();
            let at = started_at + crate::sim::draws::seconds(secs * f64::from(number - 1));
            json!({
                "name": format!("Step {number}"),
                "status": if is_over { "completed" } else { "in_progress" },
                "conclusion": is_over.then_some("success"),
                "number": number,
                "started_at": stamp(at),
            })
        })
        .collect()
}

/// A runner; its system and version are known once it has connected.
pub(super) fn runner_body(view: RunnerView<'_>, version: &str) -> Value {
    let labels: Vec<Value> = view
        .runner
        .labels
        .iter()
        .enumerate()
        .map(|(index, name)| json!({ "id": index + 1, "name": name, "type": "custom" }))
        .collect();
    let is_known = view.connection != Connection::Never;
    json!({
        "id": view.runner.id,
        "runner_group_id": view.runner.group,
        "name": view.runner.name,
        "os": if is_known { "Linux" } else { "unknown" },
        "status": if view.connection == Connection::Online { "online" } else { "offline" },
        "busy": view.is_busy,
        "labels": labels,
        "ephemeral": view.runner.lifetime == Lifetime::Ephemeral,
        "version": is_known.then_some(version),
    })
}

/// A runner group of an organization.
pub(super) fn group_body(organization: &str, group: &ScenarioGroup) -> Value {
    let url = format!("{API}/orgs/{organization}/actions/runner-groups/{}", group.id);
    let mut body = json!({
        "id": group.id,
        "name": group.name,
        "visibility": group.visibility(),
        "default": group.id == 1,
        "runners_url": format!("{url}/runners"),
        "hosted_runners_url": format!("{url}/hosted-runners"),
        "inherited": false,
        "allows_public_repositories": group.public_repos,
        "workflow_restrictions_read_only": false,
        "restricted_to_workflows": group.workflows.is_some(),
        "selected_workflows": group.workflows.as_deref().unwrap_or_default(),
    });
    if group.visibility() == GroupVisibility::Selected {
        body["selected_repositories_url"] = format!("{url}/repositories").into();
    }
    body
}

/// The releases of the runner, as GitHub offers them, or an Enterprise Server with a token for the download from it.
pub(super) fn downloads(version: &str, server: Option<(&str, &str)>) -> Value {
    let web = server.map_or_else(|| WEB.to_owned(), |(host, _)| format!("https://{host}"));
    let builds =
        [("linux", "x64", "tar.gz"), ("linux", "arm64", "tar.gz"), ("osx", "arm64", "tar.gz"), ("win", "x64", "zip")];
    builds
        .iter()
        .map(|(os, architecture, extension)| {
            let filename = format!("actions-runner-{os}-{architecture}-{version}.{extension}");
            let part = fingerprint(&filename);
            let mut entry = json!({
                "os": os,
                "architecture": architecture,
                "download_url": format!("{web}/actions/runner/releases/download/v{version}/{filename}"),
                "filename": filename,
                "sha256_checksum": part.repeat(4),
            });
            if let Some((_, token)) = server {
                entry["temp_download_token"] = token.into();
            }
            entry
        })
        .collect()
}

/// A list: its key, how many there are, and a page of them.
pub(super) fn list<T: Serialize>(key: &str, total: usize, items: &[T]) -> Vec<u8> {
    let items = serde_json::to_string(items).expect("answers hold nothing that JSON cannot");
    format!(r#"{{"total_count":{total},"{key}":{items}}}"#).into_bytes()
}

/// An error as GitHub writes it.
pub(super) fn error(status: u16, message: &str) -> Vec<u8> {
    json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.to_string() })
        .to_string()
        .into_bytes()
}

/// The `Link` header of a page; none where it is the only one.
pub(super) fn link(page: Page, total: usize, url_of: impl Fn(usize) -> String) -> Option<String> {
    let last = total.div_ceil(page.size).max(1);
    let mut links = Vec::new();
    if page.number > 1 {
        links.push(format!("<{}>; rel=\"prev\"", url_of(page.number - 1)));
    }
    if page.number < last {
        links.push(format!("<{}>; rel=\"next\"", url_of(page.number + 1)));
        links.push(format!("<{}>; rel=\"last\"", url_of(last)));
    }
    if page.number > 1 {
        links.push(format!("<{}>; rel=\"first\"", url_of(1)));
    }
    (!links.is_empty()).then(|| links.join(", "))
}
