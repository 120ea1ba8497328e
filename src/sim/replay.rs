//! Scenarios from real input: jobs as GitHub itself writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::scenario::{Conclusion, RepoAbout, Scenario, ScenarioJob, ScenarioRepo};

/// A longer time without any work is cut.
const LONGEST_GAP: TimeDelta = TimeDelta::minutes(10);
/// What is left of a gap that is cut.
const CUT_GAP: TimeDelta = TimeDelta::minutes(1);
/// How long a job runs whose end is not known.
const DEFAULT_DURATION_SECS: f64 = 60.0;

/// Input that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file holds none of the accepted forms.
    #[error(
        "{path} cannot be replayed: {reason}; accepted are the JSON of `gh api …/actions/runs/ID/jobs`, JSON lines of \
         jobs, and `workflow_job` webhook payloads"
    )]
    NotReplayable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing in the input is a job that ever was queued.
    #[error("the input holds no job that was ever queued ({skipped} objects were skipped)")]
    NoJobs {
        /// How many objects were no demand.
        skipped: usize,
    },
    /// A mapping of labels is not written as `from=to`.
    #[error("`{0}` is no mapping of labels; write `from=to`, such as `ubuntu-latest=modal`")]
    Mapping(String),
}

/// What was read, and what was left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The jobs as a scenario; every repository is allow-listed.
    pub scenario: Scenario,
    /// Objects without demand: pings, other files of a folder, jobs that were skipped or only ever waited.
    pub skipped: usize,
    /// How much time without work was cut out.
    pub cut_seconds: f64,
}

/// A job as GitHub writes it in the API and in webhooks. Old payloads lack fields.
#[derive(Debug, Clone, Deserialize)]
struct RawJob {
    id: u64,
    run_id: u64,
    run_attempt: Option<u32>,
    run_url: Option<String>,
    html_url: Option<String>,
    name: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    created_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    #[serde(default)]
    labels: Vec<String>,
    runner_id: Option<u64>,
    runner_name: Option<String>,
}

/// How far a job is known to have come; a later state outweighs an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    /// It never waited for a runner.
    Never,
    /// It waited for a runner.
    Queued,
    /// A runner took it.
    Taken,
}

/// What all sightings of one job come to.
#[derive(Debug)]
struct Sighted {
    raw: RawJob,
    repo: String,
    created_at: DateTime<Utc>,
    /// Start and end of the latest sighting that has both.
    ran: Option<(DateTime<Utc>, DateTime<Utc>)>,
    demand: Demand,
    conclusion: Option<String>,
    ended_at: Option<DateTime<Utc>>,
}

impl Replay {
    /// Reads files and folders; `mappings` (`from=to`) replace labels, where `to` becomes `self-hosted` and `to`.
    ///
    /// # Errors
    /// [`ReplayError`] naming the file and what is wrong with it.
    pub fn read<P: AsRef<Path>>(paths: &[P], mappings: &[String]) -> Result<Self, ReplayError> {
        let mappings = parse_mappings(mappings)?;
        let mut reader = Reader::default();
        for path in paths {
            reader.read_path(path.as_ref())?;
        }
        reader.finish(&mappings)
    }
}

fn parse_mappings(mappings: &[String]) -> Result<BTreeMap<String, String>, ReplayError> {
    let parse = |mapping: &String| {
        let (from, to) = mapping.split_once('=').filter(|(from, to)| !from.is_empty() && !to.is_empty())?;
        Some((from.to_lowercase(), to.to_owned()))
    };
    mappings.iter().map(|mapping| parse(mapping).ok_or_else(|| ReplayError::Mapping(mapping.clone()))).collect()
}

#[derive(Debug, Default)]
struct Reader {
    jobs: BTreeMap<u64, Sighted>,
    skipped: usize,
}

impl Reader {
    fn read_path(&mut self, path: &Path) -> Result<(), ReplayError> {
        let read = |source| ReplayError::Read { path: path.to_owned(), source };
        if !path.is_dir() {
            let text = std::fs::read_to_string(path).map_err(read)?;
            return self.read_text(path, &text);
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(read)? {
            files.push(entry.map_err(read)?.path());
        }
        files.sort();
        for file in files {
            let is_json = file.extension().is_some_and(|extension| extension == "json" || extension == "jsonl");
            if is_json {
                let text = std::fs::read_to_string(&file)
                    .map_err(|source| ReplayError::Read { path: file.clone(), source })?;
                self.read_text(&file, &text)?;
            } else {
                // A folder of payloads may hold a README and the like.
                self.skipped += 1;
            }
        }
        Ok(())
    }

    /// One or several JSON values: a file of JSON lines is nothing else.
    fn read_text(&mut self, path: &Path, text: &str) -> Result<(), ReplayError> {
        let refuse = |reason: String| ReplayError::NotReplayable { path: path.to_owned(), reason };
        let mut values = 0;
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let value = value.map_err(|error| refuse(format!("it is not JSON: {error}")))?;
            self.read_value(&value).map_err(refuse)?;
            values += 1;
        }
        if values == 0 { Err(refuse("it is empty".to_owned())) } else { Ok(()) }
    }

    fn read_value(&mut self, value: &Value) -> Result<(), String> {
        if let Some(jobs) = value.get("jobs").and_then(Value::as_array) {
            return jobs.iter().try_for_each(|job| self.read_job(job, None, None));
        }
        if let Some(values) = value.as_array() {
            // `gh api --paginate --slurp` writes an array of pages.
            return values.iter().try_for_each(|value| self.read_value(value));
        }
        if let Some(job) = value.get("workflow_job") {
            let repo = value.pointer("/repository/full_name").and_then(Value::as_str);
            return self.read_job(job, repo, value.get("action").and_then(Value::as_str));
        }
        if value.get("zen").is_some() && value.get("hook_id").is_some() {
            self.skipped += 1;
            return Ok(());
        }
        if value.get("run_id").is_some() {
            return self.read_job(value, None, None);
        }
        Err("it holds neither jobs nor a `workflow_job` payload".to_owned())
    }

    fn read_job(&mut self, value: &Value, repo: Option<&str>, action: Option<&str>) -> Result<(), String> {
        let raw: RawJob = serde_json::from_value(value.clone()).map_err(|error| format!("a job is odd: {error}"))?;
        let id = raw.id;
        let Some(repo) = repo.map(str::to_owned).or_else(|| repo_of(&raw)) else {
            return Err(format!("job {id} does not tell its repository"));
        };
        let Some(created_at) = raw.created_at.or(raw.started_at) else {
            return Err(format!("job {id} does not tell when it was created"));
        };
        self.sight(raw, repo, created_at, action);
        Ok(())
    }

    fn sight(&mut self, raw: RawJob, repo: String, created_at: DateTime<Utc>, action: Option<&str>) {
        let (demand, ran) = (demand_of(&raw, action), ran(&raw));
        let (ended_at, conclusion) = (raw.completed_at, raw.conclusion.clone());
        let entry = self.jobs.entry(raw.id).or_insert_with(|| Sighted {
            raw,
            repo,
            created_at,
            ran: None,
            demand: Demand::Never,
            conclusion: None,
            ended_at: None,
        });
        entry.created_at = entry.created_at.min(created_at);
        entry.demand = entry.demand.max(demand);
        entry.ran = ran.or(entry.ran);
        entry.ended_at = ended_at.or(entry.ended_at);
        entry.conclusion = conclusion.or(entry.conclusion.take());
    }

    fn finish(self, mappings: &BTreeMap<String, String>) -> Result<Replay, ReplayError> {
        let (mut jobs, others): (Vec<Sighted>, Vec<Sighted>) = self.jobs.into_values().partition(Sighted::is_demand);
        let skipped = self.skipped + others.len();
        if jobs.is_empty() {
            return Err(ReplayError::NoJobs { skipped });
        }
        jobs.sort_by_key(|job| (job.created_at, job.raw.id));
        let (starts, cut) = without_gaps(&jobs);
        let repos: BTreeSet<String> = jobs.iter().map(|job| job.repo.clone()).collect();
        let jobs = jobs.iter().zip(starts).map(|(job, start)| job.scenario_job(start, mappings)).collect();
        let scenario = Scenario {
            name: "replay".to_owned(),
            repos: repos
                .into_iter()
                .map(|name| ScenarioRepo { name, allowed: true, about: RepoAbout::default() })
                .collect(),
            jobs,
            ..Scenario::default()
        };
        Ok(Replay { scenario, skipped, cut_seconds: cut.as_seconds_f64() })
    }
}

/// What one sighting proves. A queued payload may name a runner that never took the job; only a later state
/// proves one. An approved job is announced as `queued` while its status still says `waiting`.
fn demand_of(raw: &RawJob, action: Option<&str>) -> Demand {
    let names_runner = raw.runner_name.as_ref().is_some_and(|name| !name.is_empty()) || raw.runner_id.unwrap_or(0) > 0;
    let was_cancelled = raw.conclusion.as_deref() == Some("cancelled");
    match (raw.status.as_deref().unwrap_or_default(), action) {
        ("in_progress", _) | (_, Some("in_progress")) => Demand::Taken,
        ("completed", _) if names_runner => Demand::Taken,
        ("completed", _) if was_cancelled => Demand::Queued,
        ("queued", _) | (_, Some("queued")) => Demand::Queued,
        _ => Demand::Never,
    }
}

/// When a completed job ran.
fn ran(raw: &RawJob) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let is_over = raw.status.as_deref() == Some("completed") && demand_of(raw, None) == Demand::Taken;
    raw.started_at.zip(raw.completed_at).filter(|_| is_over)
}

/// The repository in a job's links.
fn repo_of(raw: &RawJob) -> Option<String> {
    let after = |url: &Option<String>, mark: &str| {
        let (_, rest) = url.as_ref()?.split_once(mark)?;
        let mut parts = rest.split('/');
        Some(format!("{}/{}", parts.next()?, parts.next()?))
    };
    after(&raw.run_url, "/repos/").or_else(|| after(&raw.html_url, "://github.com/"))
}

/// When each job starts once long gaps are cut out, and how much was cut. The jobs must be in order.
fn without_gaps(jobs: &[Sighted]) -> (Vec<TimeDelta>, TimeDelta) {
    let Some(first) = jobs.first() else { return (Vec::new(), TimeDelta::zero()) };
    let mut cut = TimeDelta::zero();
    let mut busy_until = first.created_at;
    let starts = jobs
        .iter()
        .map(|job| {
            let gap = job.created_at - busy_until;
            if gap > LONGEST_GAP {
                cut += gap - CUT_GAP;
            }
            let work = super::draws::seconds(job.duration_secs());
            busy_until = busy_until.max(job.created_at + work);
            job.created_at - first.created_at - cut
        })
        .collect();
    (starts, cut)
}

impl Sighted {
    fn is_demand(&self) -> bool {
        self.demand > Demand::Never && self.conclusion.as_deref() != Some("skipped")
    }

    fn duration_secs(&self) -> f64 {
        let ran = self.ran.map(|(start, end)| (end - start).as_seconds_f64()).filter(|secs| *secs >= 0.0);
        ran.unwrap_or(DEFAULT_DURATION_SECS)
    }

    fn scenario_job(&self, start: TimeDelta, mappings: &BTreeMap<String, String>) -> ScenarioJob {
        let was_cancelled = self.conclusion.as_deref() == Some("cancelled");
        let waited = self.ended_at.map(|end| (end - self.created_at).as_seconds_f64().max(0.0));
        ScenarioJob {
            id: self.raw.id,
            run: self.raw.run_id,
            attempt: self.raw.run_attempt.unwrap_or(1).max(1),
            repo: self.repo.clone(),
            name: self.raw.name.clone().unwrap_or_else(|| format!("job {}", self.raw.id)),
            labels: mapped(&self.raw.labels, mappings),
            arrival_secs: start.as_seconds_f64(),
            duration_secs: self.duration_secs(),
            stage: 0,
            waiting_secs: 0.0,
            cancel_secs: waited.filter(|_| was_cancelled && self.demand < Demand::Taken),
            conclusion: match self.conclusion.as_deref() {
                None | Some("success" | "neutral") => Conclusion::Success,
                Some("cancelled") => Conclusion::Cancelled,
                Some(_) => Conclusion::Failure,
            },
        }
    }
}

/// Labels after the mapping; a mapped label also asks for a self-hosted runner.
fn mapped(labels: &[String], mappings: &BTreeMap<String, String>) -> Vec<String> {
    let mut result: Vec<String> = Vec::new();
    let mut add = |label: &str| {
        if !result.iter().any(|have| have.eq_ignore_ascii_case(label)) {
            result.push(label.to_owned());
        }
    };
    for label in labels {
        match mappings.get(&label.to_lowercase()) {
            Some(to) => {
                add("self-hosted");
                add(to);
            }
            None => add(label),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, text: &str, mappings: &[&str]) -> Result<Replay, ReplayError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mappings: Vec<String> = mappings.iter().map(|mapping| (*mapping).to_owned()).collect();
        Replay::read(&[path], &mappings)
    }

    fn job(id: u64, created: &str, started: &str, completed: &str) -> Value {
        json!({
            "id": id, "run_id": 7, "run_attempt": 2, "name": "test", "status": "completed", "conclusion": "success",
            "run_url": "https://api.github.com/repos/Acme/Web/actions/runs/7", "labels": ["Ubuntu-Latest"],
            "created_at": created, "started_at": started, "completed_at": completed, "runner_id": 1, "runner_name": "x",
        })
    }

    #[test]
    fn the_listing_of_a_run_keeps_times_labels_and_attempts() {
        let jobs = json!({ "total_count": 2, "jobs": [
            job(11, "2026-01-01T10:00:00Z", "2026-01-01T10:00:05Z", "2026-01-01T10:01:05Z"),
            job(12, "2026-01-01T10:00:30Z", "2026-01-01T10:00:31Z", "2026-01-01T10:00:41Z"),
        ]});
        let replay = read("jobs.json", &jobs.to_string(), &["ubuntu-latest=modal"]).unwrap();
        let [first, second] = &replay.scenario.jobs[..] else { panic!("{replay:?}") };
        assert_eq!((first.arrival_secs, first.duration_secs, first.attempt), (0.0, 60.0, 2));
        assert_eq!((second.arrival_secs, second.duration_secs), (30.0, 10.0));
        assert_eq!(first.labels, ["self-hosted", "modal"]);
        assert_eq!(first.repo, "Acme/Web");
        assert_eq!(replay.scenario.expected_jobs().len(), 2);
    }

    #[test]
    fn long_gaps_without_work_are_cut() {
        let lines = [
            job(11, "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T10:05:00Z"),
            job(12, "2026-01-01T10:10:00Z", "2026-01-01T10:10:00Z", "2026-01-01T10:11:00Z"),
            job(13, "2026-01-02T10:11:00Z", "2026-01-02T10:11:00Z", "2026-01-02T10:12:00Z"),
        ];
        let text = lines.map(|line| line.to_string()).join("\n");
        let replay = read("jobs.jsonl", &text, &[]).unwrap();
        let starts: Vec<f64> = replay.scenario.jobs.iter().map(|job| job.arrival_secs).collect();
        assert_eq!(starts, [0.0, 600.0, 660.0 + 60.0]);
        assert_eq!(replay.cut_seconds.to_bits(), (86_400.0_f64 - 60.0).to_bits());
    }

    #[test]
    fn what_never_was_demand_is_left_out_and_counted() {
        let mut skipped = job(12, "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z");
        skipped["conclusion"] = "skipped".into();
        skipped["runner_id"] = Value::Null;
        skipped["runner_name"] = Value::Null;
        let mut waiting = job(13, "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z");
        waiting["status"] = "waiting".into();
        let mut cancelled = skipped.clone();
        cancelled["id"] = 14.into();
        cancelled["conclusion"] = "cancelled".into();
        cancelled["completed_at"] = "2026-01-01T10:00:40Z".into();
        let replay = read("jobs.json", &json!([skipped, waiting, cancelled]).to_string(), &[]).unwrap();
        assert_eq!(replay.skipped, 2);
        let [only] = &replay.scenario.jobs[..] else { panic!("{replay:?}") };
        assert_eq!((only.id, only.cancel_secs), (14, Some(40.0)));
    }

    #[test]
    fn other_files_are_refused_with_name_and_reason() {
        let refused = |name: &str, text: &str| read(name, text, &[]).unwrap_err().to_string();
        let message = refused("other.json", r#"{"a": 1}"#);
        assert!(message.contains("other.json cannot be replayed: it holds neither jobs"), "{message}");
        assert!(refused("text.json", "hello").contains("it is not JSON"));
        assert!(refused("empty.json", "").contains("it is empty"));
        assert!(refused("job.json", r#"{"run_id": 7}"#).contains("missing field `id`"));
        assert!(matches!(read("a.json", "{}", &["modal"]), Err(ReplayError::Mapping(text)) if text == "modal"));
    }

    #[test]
    fn recorded_payloads_of_one_job_are_merged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/webhooks");
        let mappings = ["ubuntu-latest=modal".to_owned(), "k8s=modal".to_owned()];
        let replay = Replay::read(&[folder], &mappings).unwrap();
        // One payload was sent before an approval, one file is a ping, one a README.
        assert_eq!(replay.skipped, 2);
        let ids: Vec<u64> = replay.scenario.jobs.iter().map(|job| job.id).collect();
        assert_eq!(ids, [2_832_853_555, 289_782_451, 12_877_621_891, 14_541_957_942]);
        let merged = &replay.scenario.jobs[1];
        assert_eq!((merged.duration_secs, merged.labels.join(",").as_str()), (198.0, "self-hosted,modal"));
        assert_eq!(replay.scenario.expected_jobs().len(), 3);
        assert!(replay.scenario.jobs.iter().all(|job| job.arrival_secs < 600.0));
    }
}
