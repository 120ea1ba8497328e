//! What keeps a queued job from every runner: faults, ghosts of the scenario, and the limits of its run.

use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Job, JobState, Time};
use crate::sim::draws::{Purpose, seconds};
use crate::sim::engine::Due;
use crate::sim::fault::FaultMode;
use crate::sim::history::{Cause, Operation, What};
use crate::sim::scenario::{BeyondLimit, Conclusion, Ghost, ScenarioRun};
use crate::sim::world::State;

/// Why a queued job is given to no runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// A runner has been chosen and has not taken it yet.
    Promised,
    /// Another job of its run is running.
    RunBusy,
    /// It is listed as queued and is no job.
    Ghost,
    /// Its run has completed without it.
    RunCompleted,
}

/// A hold that is in force.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Held {
    pub(in crate::sim) why: Hold,
    /// When it ends by itself; the end of time for a ghost of the scenario.
    until: Option<Time>,
}

/// When a foreign runner takes a job where the fault does not say.
const FOREIGN_SECS: f64 = 5.0;
/// How old a run of long ago is where the fault does not say.
const GHOST_AGE_SECS: f64 = 90.0 * 86_400.0;
/// The ids of jobs that faults invent, and the first id of their runs: low, as those of long ago are.
const INVENTED_JOBS: Range<u64> = 800_000_000..900_000_000;
const INVENTED_RUN: u64 = 700_000_000;
/// When GitHub gives up a job that nobody took (24 h).
const QUEUE_LIMIT_SECS: f64 = 86_400.0;

impl Job {
    /// Whether a fault holds it that has an end.
    fn is_held_by_fault(&self) -> bool {
        self.hold.is_some_and(|held| held.why != Hold::Promised && held.until != Some(DateTime::<Utc>::MAX_UTC))
    }

    /// Whether its run has completed without it.
    pub(super) fn is_in_completed_run(&self) -> bool {
        self.hold.is_some_and(|held| held.why == Hold::RunCompleted)
    }
}

impl State {
    pub(in crate::sim) fn hold_job(&mut self, id: u64, why: Hold, until: Option<Time>) {
        self.job_mut(id).hold = Some(Held { why, until });
        if self.jobs[&id].state() == Some(JobState::Queued) {
            self.record_hold(id);
        }
        if let Some(until) = until.filter(|until| *until < DateTime::<Utc>::MAX_UTC) {
            self.schedule(until, Due::HoldEnds(id));
        }
    }

    /// Makes a job that is about to be queued a ghost, where the scenario says so.
    pub(super) fn hold_by_scenario(&mut self, id: u64) {
        let ghost = self.runs[&self.jobs[&id].spec.run].spec.as_ref().and_then(|spec| spec.ghost);
        let why = match ghost {
            None | Some(Ghost::UnfinishedRun) => return,
            Some(Ghost::Queued) => Hold::Ghost,
            Some(Ghost::CompletedRun) => Hold::RunCompleted,
        };
        let until = if INVENTED_JOBS.contains(&id) { None } else { Some(DateTime::<Utc>::MAX_UTC) };
        self.hold_job(id, why, until);
    }

    /// Lets a fault decide about a job that is about to be queued.
    pub(super) fn hold_by_fault(&mut self, id: u64) {
        let job = &self.jobs[&id];
        if job.is_hosted() || job.hold.is_some() {
            return;
        }
        let repo = Arc::clone(&self.repo(job.repo).name);
        let Some(strike) = self.strike(Operation::Queue, &repo) else { return };
        let until = strike.seconds.map(|secs| self.now + seconds(secs)).or(strike.until);
        if strike.mode == FaultMode::OldGhost {
            self.invent_ghost(id, strike.seconds_or(GHOST_AGE_SECS));
        } else if strike.mode == FaultMode::TakenByForeign {
            self.schedule(self.now + seconds(strike.seconds_or(FOREIGN_SECS)), Due::JobTakenElsewhere(id));
        } else if strike.mode == FaultMode::RunCompleted {
            let limit = self.now + seconds(QUEUE_LIMIT_SECS);
            self.hold_job(id, Hold::RunCompleted, Some(until.unwrap_or(limit)));
        } else {
            self.hold_job(id, Hold::Ghost, until);
        }
    }

    /// Adds a run of long ago with a job like this one, which will never run.
    fn invent_ghost(&mut self, like: u64, age_secs: f64) {
        let (repo, mut spec) = (self.jobs[&like].repo, self.jobs[&like].spec.clone());
        let number = self.jobs.range(INVENTED_JOBS).count() as u64;
        (spec.id, spec.run) = (INVENTED_JOBS.start + number, INVENTED_RUN + number);
        (spec.arrival_secs, spec.waiting_secs, spec.cancel_secs, spec.stage) = (0.0, 0.0, None, 0);
        let ghost = Some(Ghost::Queued);
        self.run_entry(spec.run, repo).spec =
            Some(ScenarioRun { id: spec.run, age_secs, ghost, ..ScenarioRun::default() });
        self.add_jobs(&[spec], self.now);
    }

    /// The time of a hold has come. A job without a run is cancelled, any other is offered again.
    pub(in crate::sim) fn end_hold(&mut self, id: u64) {
        let Some(held) = self.jobs[&id].hold.filter(|held| held.until.is_none_or(|until| until <= self.now)) else {
            return;
        };
        if held.why == Hold::RunCompleted || INVENTED_JOBS.contains(&id) {
            return self.finish_job(id, Conclusion::Cancelled, Cause::CancelledQueued);
        }
        self.drop_hold(id);
        self.match_job(id);
    }

    /// Ends every hold that a fault has made, in a moment.
    pub(in crate::sim) fn release_holds(&mut self) {
        let held: Vec<u64> = self.jobs.iter().filter(|(_, job)| job.is_held_by_fault()).map(|(id, _)| *id).collect();
        for id in held {
            let now = self.now;
            if let Some(held) = &mut self.job_mut(id).hold {
                held.until = Some(now);
            }
            self.schedule(now, Due::HoldEnds(id));
        }
    }

    pub(in crate::sim) fn drop_hold(&mut self, id: u64) {
        if self.job_mut(id).hold.take().is_some() {
            let repo = Arc::clone(&self.repo(self.jobs[&id].repo).name);
            self.record(What::JobHeld { job: id, repo, why: None });
        }
    }

    pub(super) fn record_hold(&mut self, id: u64) {
        let job = &self.jobs[&id];
        if let Some(held) = job.hold {
            let repo = Arc::clone(&self.repo(job.repo).name);
            self.record(What::JobHeld { job: id, repo, why: Some(held.why) });
        }
    }

    /// How many jobs run of the run that a job belongs to.
    pub(in crate::sim) fn running_in_run(&self, id: u64) -> usize {
        let spec = &self.jobs[&id].spec;
        self.attempt_jobs(spec.run, spec.attempt).filter(|job| job.state() == Some(JobState::InProgress)).count()
    }

    /// Whether `max-parallel` of its run lets a job start.
    pub(in crate::sim) fn has_room_in_run(&self, id: u64) -> bool {
        let limit = self.max_parallel(self.jobs[&id].spec.run);
        limit.is_none_or(|limit| self.running_in_run(id) < limit)
    }

    /// Whether a job that is about to be queued is not listed yet, as many of its run being as may run at a time.
    pub(super) fn is_kept_unlisted(&mut self, id: u64) -> bool {
        let is_kept = self.has_to_wait_unlisted(id);
        if is_kept && let Some(run) = self.runs.get_mut(&self.jobs[&id].spec.run) {
            run.unlisted.push(id);
        }
        is_kept
    }

    fn has_to_wait_unlisted(&self, id: u64) -> bool {
        let spec = &self.jobs[&id].spec;
        let said = self.runs[&spec.run].spec.as_ref().map(|run| run.beyond_limit);
        let limit = self.max_parallel(spec.run).filter(|_| said == Some(BeyondLimit::Unlisted));
        let is_open = |job: &&Job| matches!(job.state(), Some(JobState::Queued | JobState::InProgress));
        limit.is_some_and(|limit| self.attempt_jobs(spec.run, spec.attempt).filter(is_open).count() >= limit)
    }

    fn max_parallel(&self, run: u64) -> Option<usize> {
        let limit = self.runs[&run].spec.as_ref().and_then(|spec| spec.max_parallel)?;
        usize::try_from(limit).ok()
    }

    /// Lists jobs of a run that were not, as far as may run.
    fn list_unlisted(&mut self, run: u64) {
        let unlisted = self.runs.get_mut(&run).map(|run| std::mem::take(&mut run.unlisted));
        for id in unlisted.into_iter().flatten() {
            self.job_queues(id);
        }
    }

    /// A job of the run has ended: those that waited for it are offered.
    pub(super) fn wake_run(&mut self, run: u64) {
        self.list_unlisted(run);
        let is_limited = self.max_parallel(run).is_some();
        let queued = |job: &&u64| self.jobs[*job].state() == Some(JobState::Queued);
        let waiting: Vec<u64> = self.runs[&run].jobs.iter().filter(queued).copied().collect();
        for id in waiting {
            let is_held = self.jobs[&id].hold.is_some_and(|held| held.why == Hold::RunBusy);
            if is_held {
                self.drop_hold(id);
            }
            if is_held || is_limited {
                let wait = self.seed.stream(Purpose::Assignment, id).span(self.profile.assignment_secs);
                self.schedule(self.now + wait, Due::JobMatches(id));
            }
        }
    }
}
