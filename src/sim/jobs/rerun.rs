//! Re-runs: another attempt of a run, with jobs of new ids.

use chrono::TimeDelta;
use serde::Deserialize;

use super::{Job, JobState, RunStatus};
use crate::sim::change::ChangeError;
use crate::sim::scenario::{Conclusion, ScenarioJob};
use crate::sim::world::{State, World};

/// So often a run can be run again, and for so long after its creation (GitHub docs: re-running workflows and jobs).
const RERUNS_MAX: u32 = 50;
const RERUN_WITHIN: TimeDelta = TimeDelta::days(30);

/// Which jobs of a run to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rerun {
    /// All.
    All,
    /// Those that did not succeed; the others are listed again, completed.
    Failed,
}

impl State {
    /// Begins the next attempt of a run, which keeps its place in lists.
    fn rerun(&mut self, run: u64, which: Rerun) -> Result<u32, ChangeError> {
        let attempt = self.check_rerun(run)?;
        let before: Vec<ScenarioJob> = self.attempt_jobs(run, attempt - 1).map(|job| job.spec.clone()).collect();
        let next = self.jobs.keys().next_back().map_or(1, |last| last + 1);
        let (mut again, mut carried) = (Vec::new(), Vec::new());
        for (spec, id) in before.into_iter().zip(next..) {
            let has_succeeded = self.jobs[&spec.id].state() == Some(JobState::Completed(Conclusion::Success));
            let spec = ScenarioJob { id, attempt, arrival_secs: 0.0, cancel_secs: None, ..spec };
            if which == Rerun::Failed && has_succeeded { carried.push(spec) } else { again.push(spec) }
        }
        if again.is_empty() {
            return Err(ChangeError::impossible(format!("run {run}"), "none of its jobs has failed"));
        }
        let now = self.now;
        // Stages are counted among these alone: the others are over.
        self.add_jobs(&again, now);
        self.scenario.jobs.extend(again);
        self.advance(now);
        for spec in carried {
            self.carry(spec);
        }
        Ok(attempt)
    }

    /// The number of the next attempt of a run.
    fn check_rerun(&self, run: u64) -> Result<u32, ChangeError> {
        let impossible = |reason: &str| Err(ChangeError::impossible(format!("run {run}"), reason));
        let Some(known) = self.runs.get(&run) else {
            return Err(ChangeError::unknown("run", &run.to_string(), self.runs.keys().map(ToString::to_string)));
        };
        match (known.at(self.now), known.created_at()) {
            (Some(change), Some(created_at)) if matches!(change.status, RunStatus::Completed(_)) => {
                if self.now - created_at > RERUN_WITHIN {
                    impossible("it is more than 30 days old")
                } else if change.attempt > RERUNS_MAX {
                    impossible("it was run again 50 times")
                } else {
                    Ok(change.attempt + 1)
                }
            }
            _ => impossible("it has not completed"),
        }
    }

    /// Lists a job that has succeeded once more: as it was, under another id.
    fn carry(&mut self, spec: ScenarioJob) {
        let repo = self.repo_key(&spec.repo);
        let states = vec![(self.now, JobState::Completed(Conclusion::Success))];
        let job = Job { states, ..Job::new(spec, repo, self.now) };
        let (run, attempt, id) = (job.spec.run, job.spec.attempt, job.spec.id);
        self.run_entry(run, repo).jobs.push(id);
        self.jobs.insert(id, job);
        self.refresh_run(run, attempt);
    }
}

impl World {
    /// Runs a completed run again, and gives the number of its attempt.
    ///
    /// # Errors
    /// [`ChangeError`] where there is no such run, or GitHub would not run it again.
    pub fn rerun(&self, run: u64, which: Rerun) -> Result<u32, ChangeError> {
        self.with(|state| state.rerun(run, which))
    }
}
