//! GitHub's answers as they come, and what is kept of them.
//!
//! Everything that GitHub's description or its practice lets be absent, null or new is taken so: only an
//! id is needed. What cannot be read is counted, never taken for absent.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::Malformed;
use super::etag::{EtagCache, PageCaches};
use crate::class::{Risk, Risks};
use crate::ids::{JobId, Labels, RepositoryId, RunId, RunnerId};
use crate::state::{
    Connection, JobStatus, RepoFacts, RunStatus, Runner, Visibility, Workflow, WorkflowFile, WorkflowJob, WorkflowRun,
    WrittenIn,
};

/// What a list is made of.
pub(super) trait Row: Clone + Send + Sync + 'static {
    /// Whether a list of them may come without a count.
    const MAY_BE_BARE: bool = false;

    /// Reads one row.
    fn read(row: &str) -> serde_json::Result<Self>;
    /// The id by which a row seen on two pages is one.
    fn id(&self) -> u64;
    /// Where pages of such rows are kept.
    fn cache(caches: &PageCaches) -> &EtagCache<Self>;
}

/// A list answer; the rows stay text, so that one odd row does not cost the others.
#[derive(Deserialize)]
struct ListBody<'a> {
    #[serde(borrow, rename = "workflow_runs", alias = "jobs", alias = "runners", alias = "repositories")]
    rows: Vec<&'a RawValue>,
}

/// Reads the rows of a list; those that cannot be read are counted and reported once.
pub(super) fn read_list<T: Row>(body: &[u8], subject: &str) -> Result<(Arc<[T]>, usize), Malformed> {
    // An organization's repositories come as a bare array.
    let is_array = body.trim_ascii_start().first() == Some(&b'[') && T::MAY_BE_BARE;
    let list = if is_array {
        serde_json::from_slice(body).map(|rows| ListBody { rows })
    } else {
        serde_json::from_slice(body)
    };
    let list = list.map_err(|error| Malformed::json("the list", &error))?;
    let mut rows = Vec::with_capacity(list.rows.len());
    let mut unreadable = 0;
    let mut first_error = None;
    for row in list.rows {
        match T::read(row.get()) {
            Ok(row) => rows.push(row),
            Err(error) => {
                unreadable += 1;
                first_error.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_error {
        tracing::warn!(subject, unreadable, %error, "left out rows of GitHub's answer that cannot be read");
    }
    Ok((rows.into(), unreadable))
}

#[derive(Deserialize)]
struct WireRun<'a> {
    id: u64,
    run_attempt: Option<u32>,
    status: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    repository: Option<WireRunRepo>,
    /// Null where the fork that it came from is gone.
    head_repository: Option<WireRunRepo>,
    path: Option<String>,
    head_branch: Option<String>,
    #[serde(borrow)]
    referenced_workflows: Option<&'a RawValue>,
}

/// A repository as it stands in a run.
#[derive(Deserialize)]
struct WireRunRepo {
    id: Option<u64>,
    private: Option<bool>,
}

impl WireRun<'_> {
    /// What GitHub does not say is taken as a risk.
    fn risks(&self) -> Risks {
        let id = |repo: &Option<WireRunRepo>| repo.as_ref().and_then(|repo| repo.id);
        let is_own = id(&self.repository).is_some() && id(&self.repository) == id(&self.head_repository);
        let is_private = self.repository.as_ref().and_then(|repo| repo.private) == Some(true);
        Risks::of([(!is_own).then_some(Risk::Fork), (!is_private).then_some(Risk::Public)])
    }

    fn workflow(&self) -> Option<Workflow> {
        let called = self.referenced_workflows.and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).ok());
        let jobs = if called.is_some_and(|called| called.is_empty()) { WrittenIn::Own } else { WrittenIn::OthersToo };
        let file = WorkflowFile::read(self.path.as_deref()?)?;
        Some(Workflow { file, branch: self.head_branch.clone(), jobs })
    }
}

impl Row for WorkflowRun {
    fn read(row: &str) -> serde_json::Result<Self> {
        let wire: WireRun<'_> = serde_json::from_str(row)?;
        let (risks, workflow) = (wire.risks(), wire.workflow());
        let WireRun {
            id,
            run_attempt,
            status,
            created_at,
            updated_at,
            repository: _,
            head_repository: _,
            path: _,
            head_branch: _,
            referenced_workflows: _,
        } = wire;
        let status = run_status(status);
        Ok(Self {
            risks,
            // Nothing in a completed run is demand, and there are many.
            workflow: workflow.filter(|_| status != RunStatus::Completed).map(Arc::new),
            id: RunId(id),
            attempt: run_attempt.unwrap_or(1),
            status,
            created_at: time(created_at),
            updated_at: time(updated_at),
        })
    }

    fn id(&self) -> u64 {
        self.id.0
    }

    fn cache(caches: &PageCaches) -> &EtagCache<Self> {
        &caches.runs
    }
}

#[derive(Deserialize)]
struct WireJob {
    id: u64,
    run_id: u64,
    run_attempt: Option<u32>,
    status: Option<String>,
    labels: Option<Vec<String>>,
    runner_id: Option<serde_json::Value>,
    runner_name: Option<String>,
    created_at: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    name: Option<String>,
}

impl Row for WorkflowJob {
    fn read(row: &str) -> serde_json::Result<Self> {
        let wire: WireJob = serde_json::from_str(row)?;
        let status = job_status(wire.status);
        // An empty name means none, as null does, and so does an id of 0.
        let runner_name = wire.runner_name.filter(|name| !name.is_empty() && status != JobStatus::Queued);
        let runner_id = wire.runner_id.as_ref().and_then(serde_json::Value::as_u64);
        Ok(Self {
            id: JobId(wire.id),
            run_id: RunId(wire.run_id),
            run_attempt: wire.run_attempt.unwrap_or(1),
            status,
            labels: Labels::new(wire.labels.unwrap_or_default()),
            runner_id: runner_id.filter(|id| *id != 0 && runner_name.is_some()).map(RunnerId),
            runner_name,
            created_at: time(wire.created_at),
            started_at: time(wire.started_at),
            completed_at: time(wire.completed_at),
            name: wire.name.unwrap_or_default(),
        })
    }

    fn id(&self) -> u64 {
        self.id.0
    }

    fn cache(caches: &PageCaches) -> &EtagCache<Self> {
        &caches.jobs
    }
}

#[derive(Deserialize)]
struct WireRunner {
    id: u64,
    name: String,
    status: Option<String>,
    busy: Option<bool>,
    labels: Option<Vec<WireLabel>>,
    version: Option<String>,
}

impl Row for Runner {
    fn read(row: &str) -> serde_json::Result<Self> {
        let WireRunner { id, name, status, busy, labels, version } = serde_json::from_str(row)?;
        let labels = Labels::new(labels.into_iter().flatten().map(|label| label.name));
        Ok(Self {
            id: RunnerId(id),
            name,
            connection: match status.as_deref() {
                Some("online") => Connection::Online,
                Some("offline") | None => Connection::Offline,
                Some(_) => Connection::Unknown,
            },
            is_busy: busy.unwrap_or(false),
            labels: (labels.iter().next().is_some()).then(|| labels.fingerprint()),
            version: version.and_then(|version| version.parse().ok()),
        })
    }

    fn id(&self) -> u64 {
        self.id.0
    }

    fn cache(caches: &PageCaches) -> &EtagCache<Self> {
        &caches.runners
    }
}

#[derive(Deserialize)]
struct WireRepo {
    id: u64,
    full_name: String,
    private: Option<bool>,
    visibility: Option<String>,
    archived: Option<bool>,
    disabled: Option<bool>,
    fork: Option<bool>,
}

impl Row for RepoFacts {
    const MAY_BE_BARE: bool = true;

    fn read(row: &str) -> serde_json::Result<Self> {
        let WireRepo { id, full_name, private, visibility, archived, disabled, fork } = serde_json::from_str(row)?;
        let visibility = match (visibility.as_deref(), private) {
            (Some("public"), _) | (_, Some(false)) => Visibility::Public,
            (Some("internal"), _) => Visibility::Internal,
            (Some("private"), _) | (_, Some(true)) => Visibility::Private,
            // Unknown is not private.
            (_, None) => return Err(serde::de::Error::custom("it does not say whether it is private")),
        };
        Ok(Self {
            id: RepositoryId(id),
            name: full_name.parse().map_err(serde::de::Error::custom)?,
            visibility,
            is_archived: archived.unwrap_or(false),
            is_disabled: disabled.unwrap_or(false),
            is_fork: fork.unwrap_or(false),
        })
    }

    fn id(&self) -> u64 {
        self.id.0
    }

    fn cache(caches: &PageCaches) -> &EtagCache<Self> {
        &caches.repos
    }
}

/// Reads one workflow job as GitHub writes it, in a list or in a `workflow_job` webhook.
///
/// # Errors
/// Where the text is no JSON, or a member has another type than GitHub describes, or an id is missing.
pub fn parse_job(json: &str) -> serde_json::Result<WorkflowJob> {
    WorkflowJob::read(json)
}

/// A status that is missing, which GitHub's description allows for runs.
const NO_STATUS: &str = "null";

pub(super) fn run_status(status: Option<String>) -> RunStatus {
    let status = status.unwrap_or_else(|| NO_STATUS.to_owned());
    match status.as_str() {
        "queued" => RunStatus::Queued,
        "in_progress" => RunStatus::InProgress,
        "waiting" => RunStatus::Waiting,
        "pending" => RunStatus::Pending,
        "requested" => RunStatus::Requested,
        "completed" => RunStatus::Completed,
        _ => RunStatus::Other(status),
    }
}

pub(super) fn job_status(status: Option<String>) -> JobStatus {
    let status = status.unwrap_or_else(|| NO_STATUS.to_owned());
    match status.as_str() {
        "queued" => JobStatus::Queued,
        "in_progress" => JobStatus::InProgress,
        "completed" => JobStatus::Completed,
        "waiting" => JobStatus::Waiting,
        "pending" => JobStatus::Pending,
        "requested" => JobStatus::Requested,
        _ => JobStatus::Other(status),
    }
}

/// The word that means a status.
pub(super) fn run_status_word(status: &RunStatus) -> &str {
    match status {
        RunStatus::Queued => "queued",
        RunStatus::InProgress => "in_progress",
        RunStatus::Waiting => "waiting",
        RunStatus::Pending => "pending",
        RunStatus::Requested => "requested",
        RunStatus::Completed => "completed",
        RunStatus::Other(word) => word,
    }
}

/// The word that means a status.
pub(super) fn job_status_word(status: &JobStatus) -> &str {
    match status {
        JobStatus::Queued => "queued",
        JobStatus::InProgress => "in_progress",
        JobStatus::Completed => "completed",
        JobStatus::Waiting => "waiting",
        JobStatus::Pending => "pending",
        JobStatus::Requested => "requested",
        JobStatus::Other(word) => word,
    }
}

/// The word by which run lists are filtered; none for a status that GitHub added, which it may not know there.
pub(super) fn status_filter(status: &RunStatus) -> Option<&'static str> {
    match status {
        RunStatus::Queued => Some("queued"),
        RunStatus::InProgress => Some("in_progress"),
        RunStatus::Waiting => Some("waiting"),
        RunStatus::Pending => Some("pending"),
        RunStatus::Requested => Some("requested"),
        RunStatus::Completed => Some("completed"),
        RunStatus::Other(_) => None,
    }
}

/// A time is never worth a row: one that cannot be read is taken as unknown.
pub(super) fn time(text: Option<String>) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(&text?).ok().map(|time| time.to_utc())
}

/// The answer of `generate-jitconfig`.
#[derive(Deserialize)]
pub(super) struct JitConfigBody {
    pub(super) runner: WireRegistered,
    pub(super) encoded_jit_config: SecretString,
}

/// The runner that was registered.
#[derive(Deserialize)]
pub(super) struct WireRegistered {
    pub(super) id: u64,
    #[serde(default)]
    labels: Vec<WireLabel>,
}

#[derive(Deserialize)]
struct WireLabel {
    name: String,
}

impl WireRegistered {
    pub(super) fn labels(&self) -> Labels {
        Labels::new(self.labels.iter().map(|label| &label.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_needs_no_more_than_its_ids() {
        let run = WorkflowRun::read(r#"{"id": 9007199254740993, "status": null, "created_at": "yesterday"}"#).unwrap();
        assert_eq!((run.id, run.attempt, run.created_at), (RunId(9_007_199_254_740_993), 1, None));
        assert_eq!(run.status, RunStatus::Other("null".into()));
        let job = parse_job(r#"{"id": 1, "run_id": 2, "labels": null, "runner_name": null}"#).unwrap();
        assert_eq!((job.labels.len(), job.runner_name, job.name.as_str()), (0, None, ""));
        assert!(parse_job(r#"{"id": 1}"#).is_err() && parse_job(r#"{"id": -1, "run_id": 2}"#).is_err());
    }

    #[test]
    fn a_run_is_trusted_only_where_github_says_whose_it_is() {
        let risks = |repositories: &str| WorkflowRun::read(&format!(r#"{{"id":1{repositories}}}"#)).unwrap().risks;
        let (fork, public) = (Risks::NONE.with(Risk::Fork), Risks::NONE.with(Risk::Public));
        let own = r#","head_repository":{"id":7,"private":true}"#;
        assert_eq!(risks(&format!(r#","repository":{{"id":7,"private":true}}{own}"#)), Risks::NONE);
        assert_eq!(risks(&format!(r#","repository":{{"id":7,"private":false}}{own}"#)), public);
        assert_eq!(risks(&format!(r#","repository":{{"id":8,"private":true}}{own}"#)), fork);
        assert_eq!(risks(r#","repository":{"id":8,"private":true},"head_repository":null"#), fork);
        assert_eq!(risks(r#","repository":{"private":true},"head_repository":{"private":true}"#), fork);
        assert_eq!(risks(""), fork.with(Risk::Public));
    }

    #[test]
    fn a_run_that_goes_on_tells_its_workflow_and_whether_all_its_jobs_are_written_there() {
        let read = |rest: &str| WorkflowRun::read(&format!(r#"{{"id":1,"status":"queued"{rest}}}"#)).unwrap().workflow;
        let path = r#","path":".github/workflows/ci.yml@main","head_branch":"dev""#;
        let workflow = read(&format!(r#"{path},"referenced_workflows": [ ]"#)).unwrap();
        let told = (workflow.file.to_string(), workflow.branch.as_deref(), workflow.jobs);
        assert_eq!(told, (".github/workflows/ci.yml@main".to_owned(), Some("dev"), WrittenIn::Own));
        for others in [
            "",
            r#","referenced_workflows":null"#,
            r#","referenced_workflows":[{"path":"x"}]"#,
            r#","referenced_workflows":7"#,
        ] {
            assert_eq!(read(&format!("{path}{others}")).unwrap().jobs, WrittenIn::OthersToo, "{others}");
        }
        assert_eq!((read(""), read(r#","path":"dynamic/pages""#)), (None, None));
        let completed = format!(r#"{{"id":1,"status":"completed"{path}}}"#);
        assert_eq!(WorkflowRun::read(&completed).unwrap().workflow, None);
    }

    #[test]
    fn a_queued_job_has_no_runner_whatever_github_says() {
        let with = |status: &str, name: &str| {
            let json = format!(r#"{{"id":1,"run_id":2,"status":"{status}","runner_id":5,"runner_name":"{name}"}}"#);
            parse_job(&json).unwrap().runner_name
        };
        assert_eq!(with("queued", "GitHub Actions 5"), None);
        assert_eq!(with("in_progress", ""), None);
        assert_eq!(with("in_progress", "sr-main-gh1-1-1").as_deref(), Some("sr-main-gh1-1-1"));
        assert_eq!(with("completed", "sr-main-gh1-1-1").as_deref(), Some("sr-main-gh1-1-1"));
        let id = |status: &str, id: &str| {
            let json = format!(r#"{{"id":1,"run_id":2,"status":"{status}","runner_id":{id},"runner_name":"one"}}"#);
            parse_job(&json).unwrap().runner_id
        };
        assert_eq!((id("in_progress", "5"), id("queued", "5")), (Some(RunnerId(5)), None));
        assert_eq!((id("in_progress", "0"), id("completed", "null"), id("completed", "\"5\"")), (None, None, None));
    }

    #[test]
    fn odd_rows_are_counted_and_cost_no_other() {
        let body =
            br#"{"total_count": 4, "jobs": [{"id": 1, "run_id": 9}, {"id": "x"}, null, {"id": 4, "run_id": 9}]}"#;
        let (jobs, unreadable) = read_list::<WorkflowJob>(body, "test").unwrap();
        assert_eq!((jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), unreadable), (vec![1, 4], 2));
        for odd in [&b"{}"[..], b"[]", b"{\"jobs\": null}", b"<html>", b""] {
            assert!(read_list::<WorkflowJob>(odd, "test").is_err());
        }
    }

    #[test]
    fn a_status_that_github_adds_keeps_its_word() {
        assert_eq!(run_status(Some("paused".into())), RunStatus::Other("paused".into()));
        assert_eq!(job_status(Some("startup_failure".into())), JobStatus::Other("startup_failure".into()));
        let connection =
            |status: &str| Runner::read(&format!(r#"{{"id":1,"name":"r","status":{status}}}"#)).unwrap().connection;
        assert_eq!(
            [connection("\"online\""), connection("\"active\""), connection("\"offline\""), connection("null")],
            [Connection::Online, Connection::Unknown, Connection::Offline, Connection::Offline]
        );
    }

    #[test]
    fn a_repository_of_which_nobody_says_whether_it_is_private_is_not_read() {
        let read = |more: &str| RepoFacts::read(&format!(r#"{{"id": 7, "full_name": "Acme/Web"{more}}}"#));
        let visibility = |more: &str| read(more).unwrap().visibility;
        assert!(read("").is_err() && read(r#", "visibility": "secret""#).is_err());
        assert_eq!(visibility(r#", "private": true"#), Visibility::Private);
        assert_eq!(visibility(r#", "private": false, "visibility": null"#), Visibility::Public);
        assert_eq!(visibility(r#", "private": true, "visibility": "internal""#), Visibility::Internal);
        let facts = read(r#", "private": true, "archived": true, "fork": true"#).unwrap();
        assert_eq!(
            (facts.name.as_str(), facts.is_archived, facts.is_disabled, facts.is_fork),
            ("acme/web", true, false, true)
        );
        let (rows, _) =
            read_list::<RepoFacts>(br#" [{"id": 7, "full_name": "a/b", "private": true}, 3]"#, "test").unwrap();
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn times_come_with_fractions_and_offsets() {
        let read = |text: &str| time(Some(text.to_owned())).map(|time| time.timestamp());
        assert_eq!(read("2020-01-20T09:42:40.000-08:00"), read("2020-01-20T17:42:40Z"));
        assert_eq!(read(""), None);
    }
}
