//! The runner's releases, and which of them GitHub still takes.

use super::draws::seconds;
use super::jobs::Time;
use super::runners::Runner;
use super::sandboxes::SandboxKey;
use super::scenario::ScenarioRelease;
use super::world::State;

impl State {
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

    fn version_in(&self, image: &str) -> Option<&str> {
        self.objects.runner_in(image)
    }

    fn after(&self, secs: f64) -> Time {
        self.start + seconds(secs)
    }
}
