//! What happens in a World without anyone's doing: repositories, jobs, other people's runners and sandboxes.

mod installation;
mod organization;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::{FaultRequest, InvalidFault};
use super::profile::{InvalidProfile, Profile};
use crate::ids::{InvalidId, RepoName};

pub use installation::ScenarioInstallation;
pub use organization::{GroupVisibility, ScenarioGroup, ScenarioOrganization};
pub use run::{BeyondLimit, Ghost, ScenarioRun};

/// A scenario that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read the scenario {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is no scenario.
    #[error("{path} is no scenario: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A repository is not written as `owner/name`.
    #[error("the scenario names a repository that cannot be")]
    Repo(#[from] InvalidId),
    /// A job of the scenario cannot be.
    #[error("job {job} of the scenario: {reason}")]
    Job {
        /// The job's id.
        job: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A run of the scenario cannot be.
    #[error("run {run} of the scenario: {reason}")]
    Run {
        /// The run's id.
        run: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The App cannot be given a repository of somebody else.
    #[error("the App at {owner} cannot be given {repo}, which is not of {owner}")]
    Installation {
        /// Where it is installed.
        owner: String,
        /// The repository.
        repo: String,
    },
    /// A runner group cannot be.
    #[error("runner group {group} of {organization}: {reason}")]
    Group {
        /// The organization.
        organization: String,
        /// The group's id.
        group: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The profile's overrides cannot be used.
    #[error("the scenario's profile cannot be used")]
    Profile(#[from] InvalidProfile),
    /// A fault of the scenario cannot happen.
    #[error("the scenario's faults cannot be used")]
    Fault(#[from] InvalidFault),
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRepo {
    /// `owner/name`.
    pub name: String,
    /// Whether the controller is meant to serve it (default true).
    #[serde(default = "yes")]
    pub allowed: bool,
    /// What GitHub says of it.
    #[serde(default)]
    pub about: RepoAbout,
}

impl ScenarioRepo {
    /// A private repository that the controller is meant to serve.
    pub fn served(name: impl Into<String>) -> Self {
        Self { name: name.into(), allowed: true, about: RepoAbout::default() }
    }

    /// The same for everybody to read.
    #[must_use]
    pub fn public(self) -> Self {
        Self { about: RepoAbout { visibility: Visibility::Public, ..self.about }, ..self }
    }
}

/// Who may see a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Those who were given access.
    #[default]
    Private,
    /// All members of the enterprise.
    Internal,
    /// Everybody.
    Public,
}

/// What GitHub says of a repository itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "GitHub's own fields")]
pub struct RepoAbout {
    /// Who may see it (default private).
    pub visibility: Visibility,
    /// Whether it is read-only (default false).
    pub archived: bool,
    /// Whether GitHub has disabled it (default false).
    pub disabled: bool,
    /// Whether it is a fork of another (default false).
    pub fork: bool,
}

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

/// A release of the runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRelease {
    /// Its version, such as `2.337.0`.
    pub version: String,
    /// From when on it is offered, in seconds from the start (default 0).
    #[serde(default)]
    pub offered_secs: f64,
    /// From when on GitHub neither registers it nor gives it jobs; absent means never.
    #[serde(default)]
    pub refused_secs: Option<f64>,
}

/// What is behind a reference of a registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioImage {
    /// The reference, such as `ghcr.io/acme/runner:1`.
    pub reference: String,
    /// The version of the runner in the image.
    pub runner: String,
    /// From when on it is there, in seconds from the start (default 0); a later one takes the place of an earlier one.
    #[serde(default)]
    pub from_secs: f64,
}

/// A self-hosted runner of someone else. While it is online it takes every job that its labels cover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignRunner {
    /// Its repository.
    pub repo: String,
    /// Its name; must not have the form of a name of ours.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Whether it is connected, all the time, or never (default true).
    #[serde(default = "yes")]
    pub online: bool,
}

/// A sandbox of someone else in the same App, without tags of ours. It lives as long as the World.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignSandbox {
    /// Its name; empty where it has none.
    #[serde(default)]
    pub name: String,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

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

/// Everything that happens in a World, and how its services behave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, for reports.
    #[serde(default)]
    pub name: String,
    /// The repositories. A job's repository that is missing here exists and is not allow-listed.
    #[serde(default)]
    pub repos: Vec<ScenarioRepo>,
    /// Organizations with runner groups of their own; any other has none.
    #[serde(default)]
    pub organizations: Vec<ScenarioOrganization>,
    /// The GitHub App where something about it is special.
    #[serde(default)]
    pub installations: Vec<ScenarioInstallation>,
    /// Owners that are users; all others are organizations.
    #[serde(default)]
    pub users: Vec<String>,
    /// The jobs.
    #[serde(default)]
    pub jobs: Vec<ScenarioJob>,
    /// Runs of which there is more to say than their jobs do.
    #[serde(default)]
    pub runs: Vec<ScenarioRun>,
    /// Releases of the runner, each newer than the one before; until the first, the profile's is offered.
    #[serde(default)]
    pub runner_releases: Vec<ScenarioRelease>,
    /// Images in registries, each later than the one before of the same reference.
    #[serde(default)]
    pub registry_images: Vec<ScenarioImage>,
    /// Other people's runners.
    #[serde(default)]
    pub foreign_runners: Vec<ForeignRunner>,
    /// Other people's sandboxes.
    #[serde(default)]
    pub foreign_sandboxes: Vec<ForeignSandbox>,
    /// Knobs of the [`Profile`] that this scenario replaces.
    #[serde(default)]
    pub profile: BTreeMap<String, Value>,
    /// Faults that are there from the start, each by its name or as a table.
    #[serde(default)]
    pub faults: Vec<FaultRequest>,
}

fn yes() -> bool {
    true
}

fn first() -> u32 {
    1
}

fn job_name() -> String {
    "job".to_owned()
}

impl Scenario {
    /// Reads a scenario from a file: JSON where its name ends in `.json`, TOML otherwise.
    ///
    /// # Errors
    /// [`ScenarioError`] naming the file, the line and what is wrong.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let parsed: Result<Self, String> = if is_json {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        let scenario = parsed.map_err(|reason| ScenarioError::Parse { path: path.to_owned(), reason })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks what the format alone cannot.
    ///
    /// # Errors
    /// [`ScenarioError`] for the first thing that cannot be.
    pub fn check(&self) -> Result<(), ScenarioError> {
        for repo in &self.repos {
            repo.name.parse::<RepoName>()?;
        }
        let mut seen = BTreeSet::new();
        for job in &self.jobs {
            job.repo.parse::<RepoName>()?;
            job.check()?;
            if !seen.insert(job.id) {
                return Err(ScenarioError::Job { job: job.id, reason: "its id is used twice" });
            }
        }
        self.check_runs()?;
        for runner in &self.foreign_runners {
            runner.repo.parse::<RepoName>()?;
        }
        for organization in &self.organizations {
            organization.check()?;
        }
        for installation in &self.installations {
            installation.check()?;
        }
        Profile::realistic().overridden(&self.profile)?;
        for fault in &self.faults {
            fault.check()?;
        }
        Ok(())
    }

    fn check_runs(&self) -> Result<(), ScenarioError> {
        let with_jobs: BTreeSet<u64> = self.jobs.iter().map(|job| job.run).collect();
        for run in &self.runs {
            if let Some(repo) = &run.repo {
                repo.parse::<RepoName>()?;
            }
            if let Some(reason) = run.problem(&with_jobs) {
                return Err(ScenarioError::Run { run: run.id, reason });
            }
        }
        Ok(())
    }

    /// The repositories that the controller is meant to serve.
    pub fn allowed_repos(&self) -> Vec<RepoName> {
        let mut names: Vec<RepoName> =
            self.repos.iter().filter(|repo| repo.allowed).filter_map(|repo| repo.name.parse().ok()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Why a job is not expected to be served; absent where it is expected.
    ///
    /// The rule is the scenario's own and follows the documented defaults: an allow-listed repository, the
    /// opt-in label, and beyond it only implied labels, one built-in GPU label, or per-run labels `job-…`.
    pub fn skip_reason(&self, job: &ScenarioJob) -> Option<SkipReason> {
        self.skip_reason_among(job, &self.allowed_names())
    }

    /// Every job with the reason why it is not expected to be served; none where it is.
    pub(super) fn judged_jobs(&self) -> impl Iterator<Item = (&ScenarioJob, Option<SkipReason>)> {
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

impl ScenarioJob {
    fn check(&self) -> Result<(), ScenarioError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_scenario_is_read_from_toml_and_json_and_told_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Scenario::load(&path)
        };
        let toml = "[[repos]]\nname = \"acme/web\"\n[[jobs]]\nid = 1\nrun = 2\nrepo = \"acme/web\"\n\
                    labels = [\"modal\"]\nduration_secs = 3\n[profile]\nget = 1\n";
        let error = write("bad.toml", toml).unwrap_err();
        assert!(chain(&error).contains("no knob `get`"), "{error}");
        let scenario = write("good.toml", toml.trim_end_matches("[profile]\nget = 1\n")).unwrap();
        assert_eq!((scenario.jobs[0].attempt, scenario.expected_jobs().len()), (1, 1));
        let faults = "faults = [\n \"mint_reply_lost\",\n \
                      { name = \"run_list_stale\", seconds = 90, rate = 0.5, until_secs = 3600 },\n \
                      { operation = \"mint\", mode = \"error\", status = 503, times = 2, after = 1 },\n \
                      { knobs = { github_list_lag_secs = 60 }, from_secs = 120, until_secs = 600 },\n]\n\
                      [[runs]]\nid = 2\nmax_parallel = 1\n";
        let scenario =
            write("faults.toml", &format!("{faults}{}", toml.trim_end_matches("[profile]\nget = 1\n"))).unwrap();
        assert_eq!((scenario.faults.len(), scenario.runs[0].max_parallel), (4, Some(1)));
        let error = write("unknown.toml", "faults = [\"mint_lots\"]\n").unwrap_err();
        assert!(chain(&error).contains("`mint_lots` is no fault, but there is `mint_"), "{}", chain(&error));
        let error = write("bad.json", r#"{"jobz": []}"#).unwrap_err().to_string();
        assert!(error.contains("jobz"), "{error}");
        let error = write(
            "twice.json",
            r#"{"jobs": [{"id":1,"run":1,"repo":"a/b","labels":[],"duration_secs":1},
            {"id":1,"run":1,"repo":"a/b","labels":[],"duration_secs":1}]}"#,
        );
        assert_eq!(error.unwrap_err().to_string(), "job 1 of the scenario: its id is used twice");
    }

    fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}
