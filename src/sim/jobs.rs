//! Repositories, runs and jobs: what is, and what it was at any earlier moment.
//!
//! Each change keeps its time, so that a list that lags can show exactly the state of a moment ago.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::draws::{Purpose, seconds};
use super::engine::Due;
use super::history::{Cause, What};
use super::runners::{Runner, RunnerKey};
use super::scenario::{Conclusion, ScenarioJob};
use super::world::State;
use crate::ids::Labels;

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
            let number = self.runs.len() + 1;
            let run = self.runs.entry(spec.run).or_insert_with(|| Run {
                id: spec.run,
                number,
                repo,
                jobs: Vec::new(),
                changes: Vec::new(),
            });
            run.jobs.push(spec.id);
            let labels = Labels::new(&spec.labels);
            let job = Job { spec: spec.clone(), labels, repo, base, states: Vec::new(), taker: None, is_lost: false };
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
        let now = self.now;
        self.job_mut(id).states.push((now, state));
        self.refresh_run(self.jobs[&id].spec.run, self.jobs[&id].spec.attempt);
    }

    pub(super) fn job_appears(&mut self, id: u64) {
        let waiting = self.jobs[&id].spec.waiting_secs;
        if waiting > 0.0 {
            self.change_job(id, JobState::Waiting);
            self.schedule(self.now + seconds(waiting), Due::JobQueues(id));
        } else {
            self.job_queues(id);
        }
    }

    pub(super) fn job_queues(&mut self, id: u64) {
        if self.jobs[&id].is_completed() {
            return;
        }
        self.change_job(id, JobState::Queued);
        let now = self.now;
        let job = &self.jobs[&id];
        let (repo, is_hosted, cancel) = (job.repo, job.is_hosted(), job.spec.cancel_secs);
        let what = What::JobQueued {
            job: id,
            run: job.spec.run,
            attempt: job.spec.attempt,
            repo: Arc::clone(&self.repo(repo).name),
            labels: job.spec.labels.clone(),
        };
        self.record(what);
        self.repo_mut(repo).queued.insert((now, id));
        if let Some(after) = cancel {
            self.schedule(now + seconds(after), Due::JobCancelled(id));
        }
        if is_hosted {
            let wait = self.seed.stream(Purpose::Hosted, id).span(self.profile.hosted_start_secs);
            self.schedule(now + wait, Due::JobStartsHosted(id));
        } else {
            let wait = self.seed.stream(Purpose::Assignment, id).span(self.profile.assignment_secs);
            self.schedule(now + wait, Due::JobMatches(id));
        }
    }

    pub(super) fn job_cancelled(&mut self, id: u64) {
        match self.jobs[&id].state() {
            Some(JobState::Waiting | JobState::Queued) => {
                self.finish_job(id, Conclusion::Cancelled, Cause::CancelledQueued);
            }
            Some(JobState::InProgress) if !self.jobs[&id].is_lost => {
                self.finish_job(id, Conclusion::Cancelled, Cause::CancelledRunning);
            }
            Some(JobState::InProgress | JobState::Completed(_)) | None => {}
        }
    }

    pub(super) fn job_starts_hosted(&mut self, id: u64) {
        if self.jobs[&id].state() == Some(JobState::Queued) {
            let runner_id = HOSTED_RUNNER_ID + id % 1_000;
            let runner_name = format!("GitHub Actions {runner_id}");
            self.start_job(id, Taker { runner_id, runner_name, key: None });
        }
    }

    /// Gives a queued job to its taker.
    pub(super) fn start_job(&mut self, id: u64, taker: Taker) {
        let now = self.now;
        let repo = self.jobs[&id].repo;
        let sandbox = taker.key.and_then(|key| self.runner(key)).and_then(|runner| runner.sandbox);
        let what = What::JobAssigned {
            job: id,
            repo: Arc::clone(&self.repo(repo).name),
            runner: taker.runner_name.clone(),
            sandbox: sandbox.map(|key| Arc::clone(&self.sandbox(key).id)),
        };
        self.record(what);
        self.leave_queue(id);
        self.job_mut(id).taker = Some(taker);
        self.change_job(id, JobState::InProgress);
        self.schedule(now + seconds(self.jobs[&id].spec.duration_secs), Due::JobEnds(id));
    }

    fn leave_queue(&mut self, id: u64) {
        let job = &self.jobs[&id];
        let queued_at = job.states.iter().rev().find(|(_, state)| *state == JobState::Queued).map(|(at, _)| *at);
        let repo = job.repo;
        if let Some(at) = queued_at {
            self.repo_mut(repo).queued.remove(&(at, id));
        }
    }

    pub(super) fn job_ends(&mut self, id: u64) {
        let job = &self.jobs[&id];
        if job.state() == Some(JobState::InProgress) && !job.is_lost {
            let conclusion = job.spec.conclusion;
            self.finish_job(id, conclusion, Cause::Ran);
        }
    }

    /// Marks a running job as lost with its sandbox; GitHub notices later.
    pub(super) fn lose_job(&mut self, id: u64) {
        self.job_mut(id).is_lost = true;
        let wait = self.seed.stream(Purpose::LostJob, id).span(self.profile.lost_job_secs);
        self.schedule(self.now + wait, Due::JobLost(id));
    }

    pub(super) fn finish_job(&mut self, id: u64, conclusion: Conclusion, cause: Cause) {
        self.leave_queue(id);
        self.change_job(id, JobState::Completed(conclusion));
        let job = &self.jobs[&id];
        let repo = Arc::clone(&self.repo(job.repo).name);
        let key = job.taker.as_ref().and_then(|taker| taker.key);
        self.record(What::JobCompleted { job: id, repo, conclusion, cause });
        if let Some(key) = key {
            self.release_runner(key, cause);
        }
        self.open_next_stage(id);
    }

    fn open_next_stage(&mut self, id: u64) {
        let done = &self.jobs[&id];
        let (run, attempt) = (done.spec.run, done.spec.attempt);
        let open = |job: &&Job| !job.is_completed();
        let Some(next) = self.attempt_jobs(run, attempt).filter(open).map(|job| job.spec.stage).min() else {
            return;
        };
        if next <= done.spec.stage {
            return;
        }
        let wait = self.seed.stream(Purpose::Needs, id).span(self.profile.needs_secs);
        let due: Vec<(Time, u64)> = self
            .attempt_jobs(run, attempt)
            .filter(|job| job.spec.stage == next && job.states.is_empty())
            .map(|job| (job.arrives_at().max(self.now + wait), job.spec.id))
            .collect();
        for (at, job) in due {
            self.schedule(at, Due::JobAppears(job));
        }
    }

    /// Derives the status of a run from its jobs.
    fn refresh_run(&mut self, run: u64, attempt: u32) {
        let now = self.now;
        let status = self.derived_status(run, attempt);
        let entry = self.runs.get_mut(&run).expect("a job's run is added with it");
        let last = entry.changes.last().copied();
        if last.is_some_and(|last| attempt < last.attempt || (attempt == last.attempt && status == last.status)) {
            return;
        }
        let attempt_started_at =
            last.filter(|last| last.attempt == attempt).map_or(now, |last| last.attempt_started_at);
        entry.changes.push(RunChange { at: now, attempt, attempt_started_at, status });
        if last.is_none() {
            let repo = entry.repo;
            self.repo_mut(repo).runs.push(run);
        }
    }

    fn derived_status(&self, run: u64, attempt: u32) -> RunStatus {
        let mut status = None;
        let mut conclusion = Conclusion::Success;
        for job in self.attempt_jobs(run, attempt) {
            let (rank, seen) = match job.state() {
                Some(JobState::Queued) => (0, RunStatus::Queued),
                Some(JobState::Waiting) => (1, RunStatus::Waiting),
                Some(JobState::InProgress) | None => (2, RunStatus::InProgress),
                Some(JobState::Completed(ended)) => {
                    if conclusion == Conclusion::Success {
                        conclusion = ended;
                    }
                    continue;
                }
            };
            if status.is_none_or(|(least, _)| rank < least) {
                status = Some((rank, seen));
            }
        }
        status.map_or(RunStatus::Completed(conclusion), |(_, seen)| seen)
    }
}

/// Ids of repositories start here; they mean nothing.
const FIRST_REPO_ID: u64 = 600_000_000;
/// Ids of GitHub's own runners start here, apart from those of self-hosted ones.
const HOSTED_RUNNER_ID: u64 = 1_000_000_000;
