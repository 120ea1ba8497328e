//! The course of a job: it appears, is queued, taken, and ends.

use std::sync::Arc;

use super::{Job, JobState, Taker, Time};
use crate::sim::draws::{Purpose, seconds};
use crate::sim::engine::Due;
use crate::sim::history::{Cause, What};
use crate::sim::runners::RunnerKey;
use crate::sim::scenario::Conclusion;
use crate::sim::world::State;

/// When the hook in a sandbox has looked at a job.
const HOOK_SECS: f64 = 2.0;

impl State {
    pub(in crate::sim) fn job_appears(&mut self, id: u64) {
        let waiting = self.jobs[&id].spec.waiting_secs;
        if waiting > 0.0 {
            self.change_job(id, JobState::Waiting);
            self.schedule(self.now + seconds(waiting), Due::JobQueues(id));
        } else {
            self.job_queues(id);
        }
    }

    pub(in crate::sim) fn job_queues(&mut self, id: u64) {
        if self.jobs[&id].is_completed() {
            return;
        }
        if self.is_kept_unlisted(id) {
            return;
        }
        self.hold_by_scenario(id);
        self.hold_by_fault(id);
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
            skip: self.scenario.skip_reason(&job.spec),
        };
        self.record(what);
        self.record_hold(id);
        let queued_at = self.jobs[&id].states.last().map_or(now, |(at, _)| *at);
        self.repo_mut(repo).queued.insert((queued_at, id));
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

    pub(in crate::sim) fn job_cancelled(&mut self, id: u64) {
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

    pub(in crate::sim) fn job_starts_hosted(&mut self, id: u64) {
        if self.jobs[&id].state() == Some(JobState::Queued) {
            let runner_id = HOSTED_RUNNER_ID + id % 1_000;
            let runner_name = format!("GitHub Actions {runner_id}");
            self.start_job(id, Taker { runner_id, runner_name, key: None });
        }
    }

    /// Gives a queued job to its taker.
    pub(in crate::sim) fn start_job(&mut self, id: u64, taker: Taker) {
        let now = self.now;
        let is_refused = taker.key.is_some_and(|key| self.is_refused(key, id));
        self.record_assignment(id, taker.runner_name.clone(), taker.key);
        self.leave_queue(id);
        self.job_mut(id).taker = Some(taker);
        self.change_job(id, JobState::InProgress);
        let job = &self.jobs[&id];
        let lasts = if is_refused { HOOK_SECS } else { job.spec.duration_secs };
        self.schedule(now + job.hook_late + seconds(lasts), Due::JobEnds(id));
    }

    pub(in crate::sim) fn record_assignment(&mut self, id: u64, runner: String, key: Option<RunnerKey>) {
        let sandbox = key.and_then(|key| self.runner(key)).and_then(|runner| runner.sandbox);
        let what = What::JobAssigned {
            job: id,
            repo: Arc::clone(&self.repo(self.jobs[&id].repo).name),
            runner,
            sandbox: sandbox.map(|key| Arc::clone(&self.sandbox(key).id)),
        };
        self.record(what);
    }

    fn leave_queue(&mut self, id: u64) {
        let job = &self.jobs[&id];
        let queued_at = job.states.iter().rev().find(|(_, state)| *state == JobState::Queued).map(|(at, _)| *at);
        let repo = job.repo;
        if let Some(at) = queued_at {
            self.repo_mut(repo).queued.remove(&(at, id));
        }
    }

    pub(in crate::sim) fn job_ends(&mut self, id: u64) {
        let job = &self.jobs[&id];
        if job.state() == Some(JobState::InProgress) && !job.is_lost {
            let conclusion = job.spec.conclusion;
            let taker = job.taker.as_ref().and_then(|taker| taker.key);
            if taker.is_some_and(|key| self.is_refused(key, id)) {
                self.finish_job(id, Conclusion::Failure, Cause::Refused);
            } else {
                self.finish_job(id, conclusion, Cause::Ran);
            }
        }
    }

    /// A runner of a running job is gone: the other one goes on, or the job is lost.
    pub(in crate::sim) fn lose_runner_of(&mut self, id: u64, key: RunnerKey) {
        let job = self.job_mut(id);
        let first = job.taker.as_ref().and_then(|taker| taker.key);
        let second = job.second_taker.take();
        if let Some(runner) = self.runner_mut(key).filter(|_| second.is_some()) {
            // The job is the other's alone; GitHub lists this one as offline.
            runner.claim = None;
        }
        match second {
            Some(other) if first == Some(key) => {
                let runner_name = self.runner(other).map(|runner| runner.name.clone()).unwrap_or_default();
                self.job_mut(id).taker = Some(Taker { runner_id: other.id, runner_name, key: Some(other) });
            }
            Some(_) => {}
            None => self.lose_job(id),
        }
    }

    /// Marks a running job as lost with its sandbox; GitHub notices later.
    fn lose_job(&mut self, id: u64) {
        self.job_mut(id).is_lost = true;
        let wait = self.seed.stream(Purpose::LostJob, id).span(self.profile.lost_job_secs);
        self.schedule(self.now + wait, Due::JobLost(id));
    }

    pub(in crate::sim) fn finish_job(&mut self, id: u64, conclusion: Conclusion, cause: Cause) {
        self.leave_queue(id);
        self.change_job(id, JobState::Completed(conclusion));
        let job = &self.jobs[&id];
        let repo = Arc::clone(&self.repo(job.repo).name);
        let takers = [job.taker.as_ref().and_then(|taker| taker.key), job.second_taker];
        let run = job.spec.run;
        self.record(What::JobCompleted { job: id, repo, conclusion, cause });
        for key in takers.into_iter().flatten() {
            self.release_runner(key, cause);
        }
        self.job_mut(id).hold = None;
        self.open_next_stage(id);
        self.wake_run(run);
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
}

/// Ids of GitHub's own runners start here, apart from those of self-hosted ones.
const HOSTED_RUNNER_ID: u64 = 1_000_000_000;
