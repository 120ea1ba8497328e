//! The runner's releases, and which of them GitHub still takes.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::draws::seconds;
use super::history::fingerprint;
use super::jobs::Time;
use super::runners::Runner;
use super::sandboxes::SandboxKey;
use super::scenario::{ScenarioImage, ScenarioRelease};
use super::world::State;

/// How a token for a download begins, so that it is found wherever it should not be.
const DOWNLOAD_TOKEN: &str = "simdownload-";
/// For how long one can be used.
const DOWNLOAD_TOKEN_LIFE: TimeDelta = TimeDelta::minutes(10);

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
        let release = releases.find(|release| release.version == version)?;
        release.refused_secs.map(|secs| self.after(secs))
    }

    /// Whether GitHub refuses the runner in a sandbox for its version.
    pub(super) fn is_version_refused(&self, key: SandboxKey) -> bool {
        let version = self.version_in(&self.sandbox(key).image_id);
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
}
