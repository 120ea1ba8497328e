//! What a scenario says about whole runs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What is wrong with the jobs of a run, or with the run itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ghost {
    /// It is queued for ever.
    Queued,
    /// The same, while its run has completed.
    CompletedRun,
    /// It runs like any other, and its run says `in_progress` for ever after.
    UnfinishedRun,
}

impl Ghost {
    /// Whether the jobs of the run are ghosts themselves.
    pub(in crate::sim) fn has_ghost_jobs(self) -> bool {
        match self {
            Self::Queued | Self::CompletedRun => true,
            Self::UnfinishedRun => false,
        }
    }
}

/// How jobs look that `max-parallel` keeps from running; of GitHub both is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeyondLimit {
    /// They are listed as queued.
    #[default]
    Queued,
    /// They are not listed until they may run.
    Unlisted,
}

/// A run, where there is more to say of it than its jobs do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "keys of a scenario, each of which may be left out")]
pub struct ScenarioRun {
    /// Its id, as its jobs state it.
    pub id: u64,
    /// The repository of a run without jobs, which is queued for ever; absent for a run that has jobs.
    #[serde(default)]
    pub repo: Option<String>,
    /// How many of its jobs run at a time (default no limit).
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// How jobs beyond it look meanwhile (default queued).
    #[serde(default)]
    pub beyond_limit: BeyondLimit,
    /// How long before its first job's arrival it was created, its jobs with it (default 0).
    #[serde(default)]
    pub age_secs: f64,
    /// Whether its commits come from a fork (default false).
    #[serde(default)]
    pub fork: bool,
    /// Whether that fork was deleted since, so that GitHub no longer names it (default false).
    #[serde(default)]
    pub fork_gone: bool,
    /// Its workflow, as GitHub shows it: the path, with `@` and the branch after it or without (default
    /// `.github/workflows/ci.yml`).
    #[serde(default)]
    pub workflow: Option<String>,
    /// Its jobs are ghosts: listed and never given to a runner; or it is one itself.
    #[serde(default)]
    pub ghost: Option<Ghost>,
}

impl ScenarioRun {
    /// What is wrong with it, in a scenario with jobs of these runs.
    pub(super) fn problem(&self, with_jobs: &BTreeSet<u64>) -> Option<&'static str> {
        if self.repo.is_some() == with_jobs.contains(&self.id) {
            return Some("`repo` is stated for a run without jobs, and only for one");
        }
        if self.max_parallel == Some(0) {
            return Some("`max_parallel` must be at least 1");
        }
        if self.beyond_limit == BeyondLimit::Unlisted && self.max_parallel.is_none() {
            return Some("`beyond_limit` is said of runs with `max_parallel`");
        }
        if self.fork_gone && !self.fork {
            return Some("`fork_gone` is said of runs with `fork`");
        }
        (!self.age_secs.is_finite() || self.age_secs < 0.0).then_some("`age_secs` must not be negative")
    }
}
