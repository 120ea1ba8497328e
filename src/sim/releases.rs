//! The runner's releases, and which of them GitHub still takes.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::{Value, json};

use super::change::{ChangeError, stated};
use super::draws::seconds;
use super::github::Product;
use super::history::{What, fingerprint};
use super::jobs::Time;
use super::runners::Runner;
use super::sandboxes::SandboxKey;
use super::scenario::{ScenarioImage, ScenarioRelease};
use super::world::{State, World};

/// GitHub registers no older runner (GitHub changelog: minimum version enforcement).
const OLDEST: Version = [2, 329, 0];

/// How a token for a download begins, so that it is found wherever it should not be.
const DOWNLOAD_TOKEN: &str = "simdownload-";
/// For how long one can be used.
const DOWNLOAD_TOKEN_LIFE: TimeDelta = TimeDelta::minutes(10);

type Version = [u64; 3];

/// A release that is published.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRelease {
    /// Its version, newer than all others.
    pub version: String,
    /// From when on it is offered, in seconds from now (default 0).
    #[serde(default)]
    pub in_secs: f64,
}

/// What GitHub says of a release; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseChange {
    /// From when on it is refused, in seconds from now; `Some(None)` (null) takes it for good.
    #[serde(deserialize_with = "stated")]
    pub refused_in_secs: Option<Option<f64>>,
}

impl State {
    /// Gives out a token for a download from an Enterprise Server, another one each time.
    pub(super) fn issue_download_token(&mut self) -> String {
        let number = self.download_tokens.len();
        let token = format!("{DOWNLOAD_TOKEN}{}", fingerprint(&format!("{number} {:?}", self.seed)));
        self.download_tokens.insert(token.clone(), self.now + DOWNLOAD_TOKEN_LIFE);
        token
    }

    /// Whether a command that downloads the runner from an Enterprise Server is refused, by what it finds in its
    /// environment; or shows the token to whoever reads the image's definition.
    pub(super) fn is_download_refused(&self, command: &str, environment: &BTreeMap<String, String>) -> bool {
        if !command.contains("actions-runner-linux-x64-") || command.contains("'https://github.com/") {
            return false;
        }
        let is_sent = |(name, value): (&String, &String)| {
            let header = format!("printf 'Authorization: Bearer %s\\n' \"${name}\" | curl ");
            command.contains(&header) && self.download_tokens.get(value).is_some_and(|until| *until > self.now)
        };
        command.contains(DOWNLOAD_TOKEN) || !environment.iter().any(is_sent)
    }

    /// The release that GitHub offers now.
    pub(super) fn offered_release(&self) -> &str {
        let is_out = |release: &&ScenarioRelease| self.after(release.offered_secs) <= self.now;
        let newest = self.scenario.runner_releases.iter().rfind(is_out);
        newest.map_or(&self.profile.runner_version, |release| &release.version)
    }

    /// From when on GitHub refuses a version; none where it has set no date.
    pub(super) fn refused_from(&self, version: &str) -> Option<Time> {
        let mut releases = self.scenario.runner_releases.iter();
        let refused = releases.find(|release| release.version == version).and_then(|release| release.refused_secs);
        let is_too_old = parsed(version).is_some_and(|version| version < OLDEST);
        if is_too_old { Some(self.start) } else { refused.map(|secs| self.after(secs)) }
    }

    /// Whether GitHub refuses the runner in a sandbox for its version; an Enterprise Server refuses none.
    pub(super) fn is_version_refused(&self, key: SandboxKey) -> bool {
        let sandbox = self.sandbox(key);
        let is_enforced = |runner: &Runner| runner.product == Product::Cloud;
        let registered = sandbox.registration.and_then(|key| self.runner(key));
        let version = self.version_in(&sandbox.image_id).filter(|_| registered.is_none_or(is_enforced));
        version.and_then(|version| self.refused_from(version)).is_some_and(|from| from <= self.now)
    }

    /// The version of a runner: that in the image of its sandbox, or the one offered.
    pub(super) fn version_of(&self, runner: &Runner) -> &str {
        let image = runner.sandbox.map(|key| &*self.sandbox(key).image_id);
        image.and_then(|image| self.version_in(image)).unwrap_or_else(|| self.offered_release())
    }

    /// The runner in the image of a registry that some commands begin with, as it is there now.
    pub(super) fn runner_behind(&self, commands: &[String]) -> Option<String> {
        let reference = commands.first()?.strip_prefix("FROM ")?;
        let is_there = |image: &&ScenarioImage| image.reference == reference && self.after(image.from_secs) <= self.now;
        self.scenario.registry_images.iter().rfind(is_there).map(|image| image.runner.clone())
    }

    fn version_in(&self, image: &str) -> Option<&str> {
        self.objects.runner_in(image)
    }

    fn after(&self, secs: f64) -> Time {
        self.start + seconds(secs)
    }

    fn since_start(&self) -> f64 {
        (self.now - self.start).as_seconds_f64()
    }

    fn publish(&mut self, release: NewRelease) -> Result<(), ChangeError> {
        let NewRelease { version, in_secs } = release;
        let newest = self.scenario.runner_releases.iter().map(|release| &release.version);
        let newest = newest.chain([&self.profile.runner_version]).filter_map(|version| parsed(version)).max();
        let subject = || format!("release `{version}` of the runner");
        match parsed(&version) {
            None => Err(ChangeError::impossible(subject(), "a version is three numbers, such as 2.340.0")),
            Some(parsed) if Some(parsed) <= newest => {
                Err(ChangeError::impossible(subject(), "it must be newer than all others"))
            }
            Some(_) if !is_span(in_secs) => Err(ChangeError::impossible(subject(), "`in_secs` must not be negative")),
            Some(_) => {
                let offered_secs = self.since_start() + in_secs;
                let value = self.after(offered_secs);
                self.note_release(&version, "offered_at", json!(value));
                self.scenario.runner_releases.push(ScenarioRelease { version, offered_secs, refused_secs: None });
                Ok(())
            }
        }
    }

    /// Lets the one that the profile offers stand among the others.
    pub(super) fn know_first_release(&mut self) {
        let version = &self.profile.runner_version;
        if !self.scenario.runner_releases.iter().any(|release| release.version == *version) {
            let first = ScenarioRelease { version: version.clone(), offered_secs: 0.0, refused_secs: None };
            self.scenario.runner_releases.insert(0, first);
        }
    }

    fn change_release(&mut self, version: &str, change: &ReleaseChange) -> Result<(), ChangeError> {
        let ReleaseChange { refused_in_secs } = change;
        if refused_in_secs.flatten().is_some_and(|secs| !is_span(secs)) {
            let subject = format!("release `{version}` of the runner");
            return Err(ChangeError::impossible(subject, "`refused_in_secs` must not be negative"));
        }
        let now = self.since_start();
        let releases = &mut self.scenario.runner_releases;
        let Some(index) = releases.iter().position(|release| release.version == version) else {
            let known = releases.iter().map(|release| release.version.clone());
            return Err(ChangeError::unknown("release of the runner", version, known));
        };
        if let Some(refused_in_secs) = refused_in_secs {
            releases[index].refused_secs = refused_in_secs.map(|secs| now + secs);
            let value = self.refused_from(version);
            self.note_release(version, "refused_at", json!(value));
        }
        Ok(())
    }

    fn note_release(&mut self, version: &str, setting: &str, value: Value) {
        let subject = format!("runner {version}").into();
        self.record(What::SettingChanged { subject, setting: setting.to_owned(), value });
    }

    fn told_releases(&self) -> Value {
        let told = self.scenario.runner_releases.iter().map(|release| {
            let ScenarioRelease { version, offered_secs, refused_secs: _ } = release;
            json!({
                "version": version,
                "offered_at": self.after(*offered_secs),
                "refused_at": self.refused_from(version),
            })
        });
        json!({ "offered": self.offered_release(), "releases": told.collect::<Vec<_>>() })
    }
}

fn parsed(version: &str) -> Option<Version> {
    let parts: Option<Vec<u64>> = version.split('.').map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}

fn is_span(secs: f64) -> bool {
    secs.is_finite() && secs >= 0.0
}

impl World {
    /// Publishes a release of the runner.
    ///
    /// # Errors
    /// [`ChangeError`] where it is no version, or not newer than all others.
    pub fn publish_release(&self, release: NewRelease) -> Result<(), ChangeError> {
        self.with(|state| state.publish(release))
    }

    /// Changes what GitHub says of a release.
    ///
    /// # Errors
    /// [`ChangeError`] where there is none of that version.
    pub fn change_release(&self, version: &str, change: &ReleaseChange) -> Result<(), ChangeError> {
        self.with(|state| state.change_release(version, change))
    }

    /// The releases of the runner, for a person.
    pub(super) fn told_releases(&self) -> Value {
        self.with(|state| state.told_releases())
    }
}
