//! Which jobs of a scenario are expected to be served.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Ghost, Scenario, ScenarioJob, ScenarioRepo, Visibility};

/// Why a job is not expected to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its repository is not allow-listed.
    RepoNotAllowed,
    /// It does not ask for us: the opt-in label is missing.
    NoOptInLabel,
    /// It asks for something that no built-in class offers.
    UnknownLabel,
    /// Its run comes from a fork, which no built-in class serves.
    Fork,
    /// Its repository is public, which no built-in class serves.
    PublicRepo,
    /// It is listed as queued and is no job.
    GhostJob,
}

/// The label by which a job asks for us.
const OPT_IN_LABEL: &str = "modal";
/// Labels that every runner of ours implies.
const IMPLIED_LABELS: [&str; 4] = ["self-hosted", "linux", "x64", OPT_IN_LABEL];
/// Labels of the built-in GPU classes.
const GPU_LABELS: [&str; 5] = ["gpu:t4", "gpu:l4", "gpu:a100", "gpu:a100-80gb", "gpu:h100"];

impl Scenario {
    /// Why a job is not expected to be served; absent where it is expected.
    ///
    /// The rule is the scenario's own and follows the documented defaults: an allow-listed repository, the
    /// opt-in label, and beyond it only implied labels, one built-in GPU label, or per-run labels `job-…`.
    pub fn skip_reason(&self, job: &ScenarioJob) -> Option<SkipReason> {
        self.skip_reason_among(job, &self.allowed_names())
    }

    /// Every job with the reason why it is not expected to be served; none where it is.
    pub(in crate::sim) fn judged_jobs(&self) -> impl Iterator<Item = (&ScenarioJob, Option<SkipReason>)> {
        let allowed = self.allowed_names();
        self.jobs.iter().map(move |job| (job, self.skip_reason_among(job, &allowed)))
    }

    fn skip_reason_among(&self, job: &ScenarioJob, allowed: &BTreeSet<String>) -> Option<SkipReason> {
        let is_ghost = || self.runs.iter().any(|run| run.id == job.run && run.ghost.is_some_and(Ghost::has_ghost_jobs));
        let is_public = || {
            let is_it = |repo: &&ScenarioRepo| repo.name.eq_ignore_ascii_case(&job.repo);
            self.repos.iter().filter(is_it).any(|repo| repo.about.visibility == Visibility::Public)
        };
        skip_reason(job, allowed)
            .or_else(|| self.is_of_fork(job).then_some(SkipReason::Fork))
            .or_else(|| is_public().then_some(SkipReason::PublicRepo))
            .or_else(|| is_ghost().then_some(SkipReason::GhostJob))
    }

    fn is_of_fork(&self, job: &ScenarioJob) -> bool {
        self.runs.iter().any(|run| run.id == job.run && run.fork)
    }

    fn allowed_names(&self) -> BTreeSet<String> {
        self.repos.iter().filter(|repo| repo.allowed).map(|repo| repo.name.to_lowercase()).collect()
    }

    /// The ids of the jobs that are expected to be served.
    pub fn expected_jobs(&self) -> BTreeSet<u64> {
        self.judged_jobs().filter(|(_, reason)| reason.is_none()).map(|(job, _)| job.id).collect()
    }
}

fn skip_reason(job: &ScenarioJob, allowed: &BTreeSet<String>) -> Option<SkipReason> {
    if !allowed.contains(&job.repo.to_lowercase()) {
        return Some(SkipReason::RepoNotAllowed);
    }
    let labels: BTreeSet<String> = job.labels.iter().map(|label| label.to_lowercase()).collect();
    if !labels.contains(OPT_IN_LABEL) {
        return Some(SkipReason::NoOptInLabel);
    }
    let gpus = labels.iter().filter(|label| GPU_LABELS.contains(&label.as_str())).count();
    let is_served = |label: &String| {
        IMPLIED_LABELS.contains(&label.as_str())
            || GPU_LABELS.contains(&label.as_str())
            || label.strip_prefix("job-").is_some()
    };
    (gpus > 1 || !labels.iter().all(is_served)).then_some(SkipReason::UnknownLabel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::Conclusion;

    fn job(repo: &str, labels: &[&str]) -> ScenarioJob {
        ScenarioJob {
            id: 5_000_000_001,
            run: 5_000_000_000,
            attempt: 1,
            repo: repo.to_owned(),
            name: "job".to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            arrival_secs: 0.0,
            duration_secs: 60.0,
            stage: 0,
            waiting_secs: 0.0,
            cancel_secs: None,
            conclusion: Conclusion::Success,
        }
    }

    #[test]
    fn the_scenario_says_which_jobs_are_expected_and_why_others_are_not() {
        let scenario = Scenario {
            repos: vec![
                ScenarioRepo::served("Acme/web"),
                ScenarioRepo { allowed: false, ..ScenarioRepo::served("acme/secret") },
                ScenarioRepo::served("acme/open").public(),
            ],
            ..Scenario::default()
        };
        let reason = |repo: &str, labels: &[&str]| scenario.skip_reason(&job(repo, labels));
        assert_eq!(reason("acme/web", &["Self-Hosted", "Modal"]), None);
        assert_eq!(reason("acme/web", &["self-hosted", "modal", "gpu:a100"]), None);
        assert_eq!(reason("acme/web", &["modal", "job-7-0", "linux", "x64"]), None);
        assert_eq!(reason("acme/web", &["modal", "gpu:a100", "gpu:t4"]), Some(SkipReason::UnknownLabel));
        assert_eq!(reason("acme/web", &["modal", "windows"]), Some(SkipReason::UnknownLabel));
        assert_eq!(reason("acme/web", &["ubuntu-latest"]), Some(SkipReason::NoOptInLabel));
        assert_eq!(reason("acme/secret", &["modal"]), Some(SkipReason::RepoNotAllowed));
        assert_eq!(reason("acme/other", &["modal"]), Some(SkipReason::RepoNotAllowed));
        assert_eq!(reason("acme/open", &["modal"]), Some(SkipReason::PublicRepo));
    }
}
