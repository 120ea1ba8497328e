//! Cached pages as text that survives a restart (pure).
//!
//! The text only saves requests: a page that it holds is never used before GitHub has said, by its `ETag`, that it is
//! still true. It holds ids, statuses, labels, times, the names of runners and repositories, of active runs the workflow
//! and its branch, and for a credential a part of its hash; no token, no name of a job, and nothing else of what GitHub
//! sends. Pages of other credentials than the one that asks are never found, as their keys differ. The checksum protects from accidents, not from whoever may write the file.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::etag::{Credential, EtagCache, Page, PageCaches, PageKey};
use super::wire;
use crate::class::Risks;
use crate::ids::{Fingerprint, JobId, Labels, RunId, RunnerId};
use crate::runner::RunnerVersion;
use crate::state::{Connection, RepoFacts, Runner, Workflow, WorkflowJob, WorkflowRun};

/// Raised where a text of before can't be read any more.
const VERSION: u64 = 1;
/// The longest text that is read, and about what full caches take.
pub const LONGEST: usize = 32 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Document<'a> {
    version: u64,
    sha256: String,
    #[serde(borrow)]
    pages: &'a RawValue,
}

/// One page of a list.
#[derive(Serialize, Deserialize)]
struct KeptPage<T> {
    credential: Fingerprint,
    path: String,
    etag: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    rows: Vec<T>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Pages {
    runs: Vec<KeptPage<KeptRun>>,
    jobs: Vec<KeptPage<KeptJob>>,
    runners: Vec<KeptPage<KeptRunner>>,
    repos: Vec<KeptPage<RepoFacts>>,
}

/// Id, attempt, status, creation and last change in milliseconds since 1970, whether strangers have a hand in it, and what
/// it runs, which earlier texts lack.
#[derive(Serialize, Deserialize)]
struct KeptRun(
    u64,
    u32,
    String,
    Option<i64>,
    Option<i64>,
    Risks,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<Workflow>,
);

#[derive(Serialize, Deserialize)]
struct KeptJob {
    id: u64,
    run: u64,
    attempt: u32,
    status: String,
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runner_id: Option<u64>,
    /// Created, started, completed.
    times: [Option<i64>; 3],
}

#[derive(Serialize, Deserialize)]
struct KeptRunner {
    id: u64,
    name: String,
    online: Option<bool>,
    busy: bool,
    labels: Option<Fingerprint>,
    #[serde(default)]
    version: Option<RunnerVersion>,
}

/// A row that can be kept.
trait Keep: Sized {
    type Kept;
    fn keep(&self) -> Self::Kept;
    fn believe(kept: Self::Kept) -> Self;
}

fn millis(at: Option<DateTime<Utc>>) -> Option<i64> {
    at.map(|at| at.timestamp_millis())
}

fn time(millis: Option<i64>) -> Option<DateTime<Utc>> {
    millis.and_then(DateTime::from_timestamp_millis)
}

impl Keep for WorkflowRun {
    type Kept = KeptRun;

    fn keep(&self) -> KeptRun {
        let Self { id, attempt, status, created_at, updated_at, risks, workflow } = self;
        let status = wire::run_status_word(status).to_owned();
        let workflow = workflow.as_deref().cloned();
        KeptRun(id.0, *attempt, status, millis(*created_at), millis(*updated_at), *risks, workflow)
    }

    fn believe(KeptRun(id, attempt, status, created_at, updated_at, risks, workflow): KeptRun) -> Self {
        let (created_at, updated_at) = (time(created_at), time(updated_at));
        let (status, workflow) = (wire::run_status(Some(status)), workflow.map(Arc::new));
        Self { id: RunId(id), attempt, status, created_at, updated_at, risks, workflow }
    }
}

impl Keep for WorkflowJob {
    type Kept = KeptJob;

    fn keep(&self) -> KeptJob {
        let Self {
            id,
            run_id,
            run_attempt,
            status,
            labels,
            runner_name,
            runner_id,
            created_at,
            started_at,
            completed_at,
            // A text of the workflow's author, which nothing is decided by.
            name: _,
        } = self;
        KeptJob {
            id: id.0,
            run: run_id.0,
            attempt: *run_attempt,
            status: wire::job_status_word(status).to_owned(),
            labels: labels.iter().map(str::to_owned).collect(),
            runner: runner_name.clone(),
            runner_id: runner_id.map(|id| id.0),
            times: [millis(*created_at), millis(*started_at), millis(*completed_at)],
        }
    }

    fn believe(kept: KeptJob) -> Self {
        let KeptJob { id, run, attempt, status, labels, runner, runner_id, times } = kept;
        let [created_at, started_at, completed_at] = times.map(time);
        Self {
            id: JobId(id),
            run_id: RunId(run),
            run_attempt: attempt,
            status: wire::job_status(Some(status)),
            labels: Labels::new(labels),
            runner_name: runner,
            runner_id: runner_id.map(RunnerId),
            created_at,
            started_at,
            completed_at,
            name: String::new(),
        }
    }
}

impl Keep for Runner {
    type Kept = KeptRunner;

    fn keep(&self) -> KeptRunner {
        let Self { id, name, connection, is_busy, labels, version } = self;
        let online = match connection {
            Connection::Online => Some(true),
            Connection::Offline => Some(false),
            Connection::Unknown => None,
        };
        KeptRunner { id: id.0, name: name.clone(), online, busy: *is_busy, labels: *labels, version: *version }
    }

    fn believe(kept: KeptRunner) -> Self {
        let KeptRunner { id, name, online, busy, labels, version } = kept;
        let connection = match online {
            Some(true) => Connection::Online,
            Some(false) => Connection::Offline,
            None => Connection::Unknown,
        };
        Self { id: RunnerId(id), name, connection, is_busy: busy, labels, version }
    }
}

impl Keep for RepoFacts {
    type Kept = Self;

    fn keep(&self) -> Self {
        self.clone()
    }

    fn believe(kept: Self) -> Self {
        kept
    }
}

/// Writes the pages of some clients; none where the text would be too long to be read again.
///
/// # Panics
/// Never: there is nothing in it that JSON cannot say.
pub(super) fn encode<'a>(all: impl Iterator<Item = &'a PageCaches>) -> Option<String> {
    let mut pages = Pages::default();
    for caches in all {
        let PageCaches { runs, jobs, runners, repos } = caches;
        pages.runs.extend(keep(runs));
        pages.jobs.extend(keep(jobs));
        pages.runners.extend(keep(runners));
        pages.repos.extend(keep(repos));
    }
    let pages = serde_json::value::to_raw_value(&pages).expect("there is nothing in it that JSON cannot say");
    let document = Document { version: VERSION, sha256: checksum(pages.get()), pages: &pages };
    let text = serde_json::to_string(&document).expect("there is nothing in it that JSON cannot say");
    (text.len() <= LONGEST).then_some(text)
}

/// In the order of their keys, so that the same pages are the same text.
fn keep<T: Keep>(cache: &EtagCache<T>) -> Vec<KeptPage<T::Kept>> {
    let mut pages: Vec<KeptPage<T::Kept>> = Vec::new();
    cache.each(|key, cached| {
        // What was left out of a page is not in its rows either.
        if let Some(etag) = cached.etag.to_str().ok().filter(|_| cached.page.unreadable == 0) {
            pages.push(KeptPage {
                credential: key.credential.fingerprint(),
                path: key.path.to_string(),
                etag: etag.to_owned(),
                more: cached.page.has_next,
                rows: cached.page.rows.iter().map(T::keep).collect(),
            });
        }
    });
    pages.sort_by(|a, b| (a.credential, &a.path).cmp(&(b.credential, &b.path)));
    pages
}

/// Why a text can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusablePages {
    /// It is cut, or something else.
    #[error("it is not of the expected form")]
    Malformed,
    /// It was changed since it was written.
    #[error("its checksum does not fit its content")]
    Checksum,
    /// Another program wrote it.
    #[error("it is of version {0}, and this program knows {VERSION}")]
    Version(u64),
}

/// Lays the pages of a text that belong to `credential` into its caches, and tells how many there were.
pub(super) fn decode(text: &str, caches: &[(Credential, &PageCaches)]) -> Result<usize, UnusablePages> {
    let Document { version, sha256, pages } = serde_json::from_str(text).map_err(|_| UnusablePages::Malformed)?;
    if version != VERSION {
        return Err(UnusablePages::Version(version));
    }
    if sha256 != checksum(pages.get()) {
        return Err(UnusablePages::Checksum);
    }
    let Pages { runs, jobs, runners, repos } =
        serde_json::from_str(pages.get()).map_err(|_| UnusablePages::Malformed)?;
    let count = believe(runs, caches, |caches| &caches.runs)
        + believe(jobs, caches, |caches| &caches.jobs)
        + believe(runners, caches, |caches| &caches.runners)
        + believe(repos, caches, |caches| &caches.repos);
    Ok(count)
}

fn believe<T: Keep>(
    pages: Vec<KeptPage<T::Kept>>,
    caches: &[(Credential, &PageCaches)],
    cache: impl Fn(&PageCaches) -> &EtagCache<T>,
) -> usize {
    let mut count = 0;
    for KeptPage { credential, path, etag, more, rows } in pages {
        let owner = caches.iter().find(|(owner, _)| owner.fingerprint() == credential);
        let (Some((owner, caches)), Ok(etag)) = (owner, HeaderValue::from_str(&etag)) else { continue };
        let rows = rows.into_iter().map(T::believe).collect();
        let key = PageKey::new(*owner, &path);
        cache(caches).put(key, etag, Page { rows, unreadable: 0, has_next: more });
        count += 1;
    }
    count
}

fn checksum(pages: &str) -> String {
    hex::encode(Sha256::new().chain_update(VERSION.to_be_bytes()).chain_update(pages).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{JobStatus, RunStatus, WorkflowFile, WrittenIn};

    const URL: &str = "https://api.github.com";

    fn at(secs: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(secs, 0)
    }

    fn run(status: RunStatus) -> WorkflowRun {
        let file = WorkflowFile::read("acme/web/.github/workflows/ci.yml@main").unwrap();
        let workflow = Workflow { file, branch: Some("main".into()), jobs: WrittenIn::Own };
        WorkflowRun {
            id: RunId(7),
            attempt: 2,
            workflow: (status == RunStatus::Queued).then(|| workflow.into()),
            status,
            created_at: at(5),
            updated_at: None,
            risks: Risks::default(),
        }
    }

    fn job() -> WorkflowJob {
        WorkflowJob {
            id: JobId(9),
            run_id: RunId(7),
            run_attempt: 2,
            status: JobStatus::InProgress,
            labels: Labels::new(["modal", "gpu:t4"]),
            runner_name: Some("sr-main-gh-9-1".into()),
            runner_id: Some(RunnerId(3)),
            created_at: at(5),
            started_at: at(6),
            completed_at: None,
            name: "says ghp_secret".into(),
        }
    }

    fn runner(labels: Option<Fingerprint>) -> Runner {
        Runner {
            id: RunnerId(3),
            name: "build-box".into(),
            connection: Connection::Unknown,
            is_busy: true,
            labels,
            version: None,
        }
    }

    fn key(token: &str, path: &str) -> PageKey {
        PageKey::new(Credential::new(URL, token), path)
    }

    fn page<T>(rows: Vec<T>) -> Page<T> {
        Page { rows: rows.into(), unreadable: 0, has_next: true }
    }

    fn filled() -> PageCaches {
        let caches = PageCaches::default();
        let etag = || HeaderValue::from_static("W/\"1\"");
        let runs = vec![run(RunStatus::Queued), run(RunStatus::Other("new".into()))];
        caches.runs.put(key("ghp_canary", "/runs"), etag(), page(runs));
        caches.runs.put(key("ghp_canary", "/spoilt"), etag(), Page { unreadable: 1, ..page(Vec::new()) });
        caches.jobs.put(key("ghp_canary", "/jobs"), etag(), page(vec![job()]));
        let runners = vec![runner(None), runner(Some(Fingerprint::of("x")))];
        caches.runners.put(key("ghp_canary", "/runners"), etag(), page(runners));
        caches
    }

    fn read(text: &str, token: &str) -> (Result<usize, UnusablePages>, PageCaches) {
        let caches = PageCaches::default();
        let count = decode(text, &[(Credential::new(URL, token), &caches)]);
        (count, caches)
    }

    #[test]
    fn what_is_kept_is_read_again_and_holds_no_secret() {
        let text = encode([&filled()].into_iter()).unwrap();
        assert!(!text.contains("ghp_") && !text.contains("canary"), "{text}");
        let (count, caches) = read(&text, "ghp_canary");
        assert_eq!(count, Ok(3));
        let runs = caches.runs.get(&key("ghp_canary", "/runs")).unwrap();
        assert_eq!(&*runs.page.rows, [run(RunStatus::Queued), run(RunStatus::Other("new".into()))]);
        assert_eq!((runs.etag.as_bytes(), runs.page.has_next), (&b"W/\"1\""[..], true));
        let jobs = caches.jobs.get(&key("ghp_canary", "/jobs")).unwrap();
        assert_eq!(&*jobs.page.rows, [WorkflowJob { name: String::new(), ..job() }]);
        let runners = caches.runners.get(&key("ghp_canary", "/runners")).unwrap();
        assert_eq!(&*runners.page.rows, [runner(None), runner(Some(Fingerprint::of("x")))]);
        assert!(caches.runs.get(&key("ghp_canary", "/spoilt")).is_none());
        assert_eq!(encode([&caches].into_iter()).unwrap(), text, "the same pages are the same text");
    }

    #[test]
    fn a_run_of_an_earlier_text_has_no_workflow() {
        let kept: KeptRun = serde_json::from_str(r#"[7, 2, "queued", 5000, null, 0]"#).unwrap();
        assert_eq!(WorkflowRun::believe(kept), WorkflowRun { workflow: None, ..run(RunStatus::Queued) });
    }

    #[test]
    fn a_text_that_was_written_before_is_read() {
        let (_, caches) = read(include_str!("../../fuzz/corpus/pages_file/document"), "ghp_fuzz");
        let rows = |rows: Option<usize>| rows.expect("it is believed");
        let path = |path| key("ghp_fuzz", path);
        let runs = caches.runs.get(&path("/repos/acme/web/actions/runs?per_page=100"));
        assert_eq!(rows(runs.map(|cached| cached.page.rows.len())), 2);
        let runners = caches.runners.get(&path("/repos/acme/web/actions/runners"));
        assert_eq!(rows(runners.map(|cached| cached.page.rows.len())), 2);
        assert_eq!(rows(caches.jobs.get(&path("/repos/acme/web/actions/runs/7/jobs")).map(|it| it.page.rows.len())), 1);
        assert_eq!(rows(caches.repos.get(&path("/orgs/acme/repos?per_page=100")).map(|it| it.page.rows.len())), 1);
    }

    #[test]
    fn pages_of_another_credential_are_not_used() {
        let text = encode([&filled()].into_iter()).unwrap();
        let (count, caches) = read(&text, "ghp_other");
        assert_eq!(count, Ok(0));
        assert!(caches.runs.get(&key("ghp_canary", "/runs")).is_none());
    }

    #[test]
    fn what_is_not_as_it_was_written_is_not_used() {
        let text = encode([&filled()].into_iter()).unwrap();
        let changed = text.replace("in_progress", "completed_x");
        assert_eq!(read(&changed, "ghp_canary").0, Err(UnusablePages::Checksum));
        assert_eq!(read(&text[..text.len() / 2], "ghp_canary").0, Err(UnusablePages::Malformed));
        assert_eq!(read("", "ghp_canary").0, Err(UnusablePages::Malformed));
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert_eq!(read(&newer, "ghp_canary").0, Err(UnusablePages::Version(2)));
    }
}
