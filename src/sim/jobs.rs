//! Repositories, runs and jobs: what is, and what it was at any earlier moment.
//!
//! Each change keeps its time, so that a list that lags can show exactly the state of a moment ago.

mod course;
mod hold;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::draws::seconds;
use super::engine::Due;
use super::runners::{Runner, RunnerKey};
use super::scenario::{Conclusion, ScenarioJob, ScenarioRun};
use super::world::State;
use crate::ids::Labels;

pub(super) use hold::Held;
pub use hold::Hold;

/// A moment on the World's clock.
pub(super) type Time = DateTime<Utc>;

/// The index of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RepoKey(pub(super) usize);

/// A repository.
#[derive(Debug)]
pub(super) struct Repo {
    /// `owner/name` as written in the scenario.
    pub(super) full_name: String,
    /// The same in lower case, as it stands in the history.
    pub(super) name: Arc<str>,
    /// Its runs in the order of their creation.
    pub(super) runs: Vec<u64>,
    /// How often any of them has changed.
    pub(super) changes: u64,
    /// Its queued jobs, the oldest first.
    pub(super) queued: BTreeSet<(Time, u64)>,
    /// Its runners, also those that lists may still show.
    pub(super) runners: BTreeMap<u64, Runner>,
    /// The id of the next runner; ids are unique within the repository only.
    pub(super) next_runner: u64,
    /// Its description as GitHub shows it inside of other objects.
    pub(super) body: serde_json::Value,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    Waiting,
    Queued,
    InProgress,
    Completed(Conclusion),
}

/// What runs a job.
#[derive(Debug, Clone)]
pub(super) struct Taker {
    pub(super) runner_id: u64,
    pub(super) runner_name: String,
    /// None for a runner of GitHub's own.
    pub(super) key: Option<RunnerKey>,
}

/// A job with its history.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: ScenarioJob,
    pub(super) labels: Labels,
    pub(super) repo: RepoKey,
    /// The moment from which its arrival counts.
    base: Time,
    states: Vec<(Time, JobState)>,
    pub(super) taker: Option<Taker>,
    /// A second runner that GitHub gave it to by mistake.
    pub(super) second_taker: Option<RunnerKey>,
    /// What keeps it from every runner while it is listed as queued.
    pub(super) hold: Option<Held>,
    /// Whether its sandbox died under it; it shows as running until GitHub notices.
    pub(super) is_lost: bool,
}

/// A job as it was at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobView<'a> {
    pub(super) job: &'a Job,
    pub(super) state: JobState,
    pub(super) created_at: Time,
    pub(super) started_at: Option<Time>,
    pub(super) completed_at: Option<Time>,
}

impl Job {
    /// Its state; none before it appears.
    pub(super) fn state(&self) -> Option<JobState> {
        self.states.last().map(|(_, state)| *state)
    }

    /// What it was at `when`; none before it appeared.
    pub(super) fn at(&self, when: Time) -> Option<JobView<'_>> {
        let known = self.states.partition_point(|(at, _)| *at <= when);
        let past = &self.states[..known];
        let (_, state) = *past.last()?;
        let since = |wanted: fn(JobState) -> bool| past.iter().find(|(_, state)| wanted(*state)).map(|(at, _)| *at);
        Some(JobView {
            job: self,
            state,
            created_at: past[0].0,
            started_at: since(|state| state == JobState::InProgress),
            completed_at: since(|state| matches!(state, JobState::Completed(_))),
        })
    }

    /// Whether a runner is one of those that have it.
    pub(super) fn is_run_by(&self, key: RunnerKey) -> bool {
        self.taker.as_ref().and_then(|taker| taker.key) == Some(key) || self.second_taker == Some(key)
    }

    fn is_completed(&self) -> bool {
        matches!(self.state(), Some(JobState::Completed(_)))
    }

    fn arrives_at(&self) -> Time {
        self.base + seconds(self.spec.arrival_secs)
    }

    fn is_hosted(&self) -> bool {
        self.labels.iter().any(|label| ["ubuntu-", "windows-", "macos-"].iter().any(|os| label.starts_with(os)))
    }
}

/// The status of a run: that of its least advanced job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunStatus {
    Queued,
    Waiting,
    InProgress,
    Completed(Conclusion),
}

/// A change of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunChange {
    pub(super) at: Time,
    pub(super) attempt: u32,
    pub(super) attempt_started_at: Time,
    pub(super) status: RunStatus,
}

/// A run with its history.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) number: usize,
    pub(super) repo: RepoKey,
    pub(super) jobs: Vec<u64>,
    /// What the scenario says about it.
    pub(super) spec: Option<ScenarioRun>,
    changes: Vec<RunChange>,
}

impl Run {
    /// When it was created; only a run that has appeared is in a repository's list.
    pub(super) fn created_at(&self) -> Option<Time> {
        self.changes.first().map(|change| change.at)
    }

    /// Its last change up to `when`.
    pub(super) fn at(&self, when: Time) -> Option<&RunChange> {
        let known = self.changes.partition_point(|change| change.at <= when);
        self.changes[..known].last()
    }

    /// How long before its appearance it was created.
    fn age(&self) -> TimeDelta {
        seconds(self.spec.as_ref().map_or(0.0, |spec| spec.age_secs))
    }
}

impl State {
    pub(super) fn repo_key(&mut self, full_name: &str) -> RepoKey {
        let name = full_name.to_lowercase();
        if let Some(key) = self.repo_by_name.get(name.as_str()) {
            return *key;
        }
        let key = RepoKey(self.repos.len());
        let name: Arc<str> = name.into();
        self.repos.push(Repo {
            full_name: full_name.to_owned(),
            name: Arc::clone(&name),
            runs: Vec::new(),
            changes: 0,
            queued: BTreeSet::new(),
            runners: BTreeMap::new(),
            next_runner: 1,
            body: super::github::repository_body(full_name, FIRST_REPO_ID + key.0 as u64),
        });
        self.repo_by_name.insert(name, key);
        key
    }

    pub(super) fn repo(&self, key: RepoKey) -> &Repo {
        &self.repos[key.0]
    }

    pub(super) fn repo_mut(&mut self, key: RepoKey) -> &mut Repo {
        &mut self.repos[key.0]
    }

    /// Adds jobs whose arrivals count from `base`.
    pub(super) fn add_jobs(&mut self, specs: &[ScenarioJob], base: Time) {
        for spec in specs {
            let repo = self.repo_key(&spec.repo);
            self.run_entry(spec.run, repo).jobs.push(spec.id);
            let job = Job {
                spec: spec.clone(),
                labels: Labels::new(&spec.labels),
                repo,
                base,
                states: Vec::new(),
                taker: None,
                second_taker: None,
                hold: None,
                is_lost: false,
            };
            self.jobs.insert(spec.id, job);
        }
        for spec in specs {
            let first = self.attempt_jobs(spec.run, spec.attempt).map(|job| job.spec.stage).min();
            if first == Some(spec.stage) {
                self.schedule(self.jobs[&spec.id].arrives_at(), Due::JobAppears(spec.id));
            }
        }
    }

    fn attempt_jobs(&self, run: u64, attempt: u32) -> impl Iterator<Item = &Job> {
        let jobs = self.runs.get(&run).map_or(&[][..], |run| &run.jobs);
        jobs.iter().map(|id| &self.jobs[id]).filter(move |job| job.spec.attempt == attempt)
    }

    fn job_mut(&mut self, id: u64) -> &mut Job {
        self.jobs.get_mut(&id).expect("jobs are never removed")
    }

    fn change_job(&mut self, id: u64, state: JobState) {
        let is_early = matches!(state, JobState::Waiting | JobState::Queued);
        let age = if is_early { self.runs[&self.jobs[&id].spec.run].age() } else { TimeDelta::zero() };
        let at = self.now - age;
        self.job_mut(id).states.push((at, state));
        self.refresh_run(self.jobs[&id].spec.run, self.jobs[&id].spec.attempt);
    }
}

/// Ids of repositories start here; they mean nothing.
const FIRST_REPO_ID: u64 = 600_000_000;
