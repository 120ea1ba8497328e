//! What GitHub's webhook tells of the jobs of a run, as far as it does not get lost on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use sandrunner::http::webhook::Hint;
use sandrunner::ids::RunId;
use sandrunner::sim::What;

use crate::lab::Nudges;

/// Brings the nudges to the first controller.
pub(crate) struct Messenger {
    nudges: Nudges,
    /// What part gets lost; none where there is no webhook.
    lost: Option<f64>,
    rng: Rng,
    runs: BTreeMap<u64, u64>,
}

impl Messenger {
    pub(crate) fn new(nudges: Nudges, lost: Option<f64>, seed: u64) -> Self {
        Self { nudges, lost, rng: Rng::with_seed(seed), runs: BTreeMap::new() }
    }

    /// Tells of a job that was queued, taken or has ended.
    #[expect(clippy::wildcard_enum_match_arm, reason = "GitHub tells of jobs only")]
    pub(crate) fn tell(&mut self, what: &What) {
        let Some(lost) = self.lost else { return };
        let (job, repo) = match what {
            What::JobQueued { job, run, repo, .. } => {
                self.runs.insert(*job, *run);
                (job, repo)
            }
            What::JobAssigned { job, repo, .. } | What::JobCompleted { job, repo, .. } => (job, repo),
            _ => return,
        };
        let is_lost = self.rng.f64() < lost;
        if let Some(hint) = self.hint(*job, repo).filter(|_| !is_lost) {
            self.nudges.give(hint);
        }
    }

    fn hint(&self, job: u64, repo: &Arc<str>) -> Option<Hint> {
        Some(Hint { repo: repo.parse().ok()?, run: RunId(*self.runs.get(&job)?) })
    }
}
