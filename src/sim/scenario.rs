//! What happens in a World without anyone's doing: repositories, jobs, other people's runners and sandboxes.

mod error;
mod expected;
mod foreign;
mod installation;
mod job;
mod organization;
mod repo;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault::FaultRequest;
use super::profile::Profile;
use crate::ids::RepoName;

pub use error::ScenarioError;
pub use expected::SkipReason;
pub use foreign::{ForeignRunner, ForeignSandbox};
pub use installation::ScenarioInstallation;
pub use job::{Conclusion, ScenarioJob};
pub use organization::{GroupVisibility, ScenarioGroup, ScenarioOrganization};
pub use repo::{RepoAbout, ScenarioRepo, Visibility};
pub use run::{BeyondLimit, Ghost, ScenarioRun};

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

/// A registry, or a part of one, that shows its images to one user alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRegistry {
    /// How references to its images begin, such as `ghcr.io/acme`.
    pub prefix: String,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
}

/// A Secret that somebody stored in Modal's workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioSecret {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub values: BTreeMap<String, String>,
}

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
    /// Images that somebody made in Modal's workspace before, by their ids (`im-…`); no fault takes them away, as nobody
    /// could make one again under its id.
    #[serde(default)]
    pub images: Vec<String>,
    /// Registries that ask for credentials; all others are public.
    #[serde(default)]
    pub private_registries: Vec<ScenarioRegistry>,
    /// Secrets that somebody stored in Modal's workspace before.
    #[serde(default)]
    pub secrets: Vec<ScenarioSecret>,
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

/// The default of keys that are on unless stated otherwise.
fn yes() -> bool {
    true
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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    #[test]
    fn what_cannot_be_of_groups_installations_and_runs_is_told() {
        let run = |fields: Value| {
            let mut run = json!({ "id": 2, "repo": "acme/web" });
            run.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({ "runs": [run] })
        };
        let group = json!({ "id": 4, "name": "Modal", "visibility": "selected" });
        for (scenario, problem) in [
            (
                json!({ "organizations": [{ "name": "acme", "groups": [group] }] }),
                "runner group 4 of acme: `selected` needs `repos`",
            ),
            (
                json!({ "installations": [{ "owner": "acme", "repos": ["Acme/web", "beta/api"] }] }),
                "the App at acme cannot be given beta/api, which is not of acme",
            ),
            (
                run(json!({ "beyond_limit": "unlisted" })),
                "run 2 of the scenario: `beyond_limit` is said of runs with `max_parallel`",
            ),
            (run(json!({ "fork_gone": true })), "run 2 of the scenario: `fork_gone` is said of runs with `fork`"),
        ] {
            let scenario: Scenario = serde_json::from_value(scenario).unwrap();
            assert_eq!(scenario.check().unwrap_err().to_string(), problem);
        }
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
