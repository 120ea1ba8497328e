//! What GitHub's webhook tells of the jobs of a run: some of it late, twice, in another order, or never, and now and then
//! of what nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use sandrunner::http::webhook::Hint;
use sandrunner::ids::{RepoName, RunId};
use sandrunner::sim::What;

use crate::lab::Nudges;

/// What part comes once more, and what part is of a run or a repository that nobody knows.
const AGAIN: f64 = 0.1;
const UNKNOWN: f64 = 0.05;
/// How late a delivery is at most, and one that comes again.
const LATE_SECS: (f64, f64) = (30.0, 600.0);

/// Brings the nudges to the first controller.
pub(crate) struct Messenger {
    nudges: Nudges,
    /// What part gets lost; none where there is no webhook.
    lost: Option<f64>,
    rng: Rng,
    runs: BTreeMap<u64, u64>,
    under_way: Vec<(DateTime<Utc>, Hint)>,
}

impl Messenger {
    pub(crate) fn new(nudges: Nudges, lost: Option<f64>, seed: u64) -> Self {
        Self { nudges, lost, rng: Rng::with_seed(seed), runs: BTreeMap::new(), under_way: Vec::new() }
    }

    /// Sends off what GitHub tells of a job that was queued, taken or has ended.
    #[expect(clippy::wildcard_enum_match_arm, reason = "GitHub tells of jobs only")]
    pub(crate) fn tell(&mut self, what: &What, at: DateTime<Utc>) {
        let Some(lost) = self.lost else { return };
        let (job, repo) = match what {
            What::JobQueued { job, run, repo, .. } => {
                self.runs.insert(*job, *run);
                (job, repo)
            }
            What::JobAssigned { job, repo, .. } | What::JobCompleted { job, repo, .. } => (job, repo),
            _ => return,
        };
        let Some(hint) = self.hint(*job, repo) else { return };
        if self.rng.f64() >= lost {
            self.send(hint.clone(), at, LATE_SECS.0);
        }
        if self.rng.f64() < AGAIN {
            self.send(hint.clone(), at, LATE_SECS.1);
        }
        if self.rng.f64() < UNKNOWN {
            self.send(Hint { run: RunId(1), ..hint.clone() }, at, LATE_SECS.0);
            let repo: RepoName = "elsewhere/unknown".parse().expect("a name");
            self.send(Hint { repo, ..hint }, at, LATE_SECS.0);
        }
    }

    fn send(&mut self, hint: Hint, at: DateTime<Utc>, latest: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "minutes")]
        let late = TimeDelta::milliseconds((self.rng.f64() * latest * 1e3) as i64);
        self.under_way.push((at + late, hint));
    }

    /// Delivers what has arrived by now.
    pub(crate) fn deliver(&mut self, now: DateTime<Utc>) {
        for (_, hint) in self.under_way.extract_if(.., |(at, _)| *at <= now) {
            self.nudges.give(hint);
        }
    }

    fn hint(&self, job: u64, repo: &Arc<str>) -> Option<Hint> {
        Some(Hint { repo: repo.parse().ok()?, run: RunId(*self.runs.get(&job)?) })
    }
}
