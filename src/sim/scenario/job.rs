//! What a scenario says about a job.

use serde::{Deserialize, Serialize};

use super::ScenarioError;

/// How a job ends that runs to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// All steps passed.
    #[default]
    Success,
    /// A step failed.
    Failure,
    /// It was cancelled.
    Cancelled,
}

/// A workflow job as it would happen if it got a runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioJob {
    /// Its id; unique.
    pub id: u64,
    /// The run it belongs to.
    pub run: u64,
    /// The attempt of the run, from 1 (default 1).
    #[serde(default = "first")]
    pub attempt: u32,
    /// The repository.
    pub repo: String,
    /// Its name (default `job`).
    #[serde(default = "job_name")]
    pub name: String,
    /// What `runs-on` asks for.
    pub labels: Vec<String>,
    /// When it appears, in seconds from the start.
    #[serde(default)]
    pub arrival_secs: f64,
    /// How long it runs.
    pub duration_secs: f64,
    /// Jobs of a later stage appear when all jobs of the stage before have completed, whatever their
    /// result, and not before their own arrival (default 0).
    #[serde(default)]
    pub stage: u32,
    /// How long it is `waiting` for an approval before it is queued (default 0).
    #[serde(default)]
    pub waiting_secs: f64,
    /// When it is cancelled, in seconds from its being queued; absent means never.
    #[serde(default)]
    pub cancel_secs: Option<f64>,
    /// How it ends if it runs to its end (default success).
    #[serde(default)]
    pub conclusion: Conclusion,
}

fn first() -> u32 {
    1
}

fn job_name() -> String {
    "job".to_owned()
}

impl ScenarioJob {
    /// Checks what the format alone cannot.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let invalid = |reason| Err(ScenarioError::Job { job: self.id, reason });
        let is_span = |secs: f64| secs.is_finite() && secs >= 0.0;
        if !is_span(self.arrival_secs) || !is_span(self.duration_secs) || !is_span(self.waiting_secs) {
            return invalid("`arrival_secs`, `duration_secs` and `waiting_secs` must not be negative");
        }
        if self.cancel_secs.is_some_and(|secs| !is_span(secs)) {
            return invalid("`cancel_secs` must not be negative");
        }
        if self.attempt == 0 {
            return invalid("`attempt` counts from 1");
        }
        Ok(())
    }
}
