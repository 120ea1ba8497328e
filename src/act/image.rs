//! Makes the image of a class ready.

use std::iter;

use super::{BuiltImage, Effect, Task};
use crate::class::{ImageSource, RunnerClass};
use crate::config::RunnerReleaseChoice;
use crate::error::CallFailure;
use crate::github::RunnerRelease;
use crate::ids::ImageId;
use crate::modal::{self, BuildProgress, ImageDefinition};
use crate::runner::RunnerVersion;
use crate::state::Scope;

pub(super) async fn prepare(task: &Task, class: &RunnerClass, scope: &Scope) -> Effect {
    let source = class.image.clone();
    let result = build(task, &source, scope).await;
    Effect::Image { source, result }
}

async fn build(task: &Task, source: &ImageSource, scope: &Scope) -> Result<BuiltImage, String> {
    let app = task.app().await.map_err(|failure| failure.message)?;
    let (definition, runner) = match source {
        ImageSource::Default => {
            let (definition, runner) = default_definition(task, scope).await?;
            (definition, Some(runner))
        }
        ImageSource::Registry(reference) => (ImageDefinition::registry_layers(reference).map_err(text)?, None),
        ImageSource::Existing(id) => (ImageDefinition::Existing(ImageId::new(id.as_str())), None),
    };
    let progress = |progress: BuildProgress| match progress {
        BuildProgress::Known { layer, layers } => tracing::debug!(layer, layers, "the image's layer exists"),
        BuildProgress::Building { layer, layers } => tracing::info!(layer, layers, "building the image's layer"),
        BuildProgress::Log(line) => tracing::debug!(line = line.trim_end(), "image build"),
    };
    let image = modal::build(&task.writers.modal, &app, &definition, progress).await.map_err(text)?;
    Ok(BuiltImage { image, runner })
}

fn text(error: modal::ModalError) -> String {
    let log = error.build_log().map(|log| format!("\nthe end of its log:\n{log}")).unwrap_or_default();
    format!("{}{log}", CallFailure::from(error))
}

/// The image that Sandrunner defines, with the release that the configuration asks for.
async fn default_definition(task: &Task, scope: &Scope) -> Result<(ImageDefinition, RunnerVersion), String> {
    let wanted = &task.writers.runner.release;
    let release = match wanted {
        RunnerReleaseChoice::Pinned { version, sha256: Some(sha256) } => RunnerRelease {
            download_url: format!(
                "https://github.com/actions/runner/releases/download/v{version}/actions-runner-linux-x64-{version}.tar.gz"
            ),
            version: *version,
            sha256: Some(sha256.clone()),
        },
        RunnerReleaseChoice::Auto | RunnerReleaseChoice::Pinned { sha256: None, .. } => offered(task, scope).await?,
    };
    if let RunnerReleaseChoice::Pinned { version, .. } = wanted
        && *version != release.version
    {
        return Err(format!(
            "GitHub offers runner {}, not {version}: set `runner.sha256` to the checksum of {version}, or `runner.version = \"auto\"`",
            release.version
        ));
    }
    let Some(sha256) = release.sha256 else {
        return Err(format!(
            "GitHub gives no checksum for runner {}: pin `runner.version` and `runner.sha256`",
            release.version
        ));
    };
    let version = release.version.to_string();
    ImageDefinition::default_layers(&version, &sha256, &release.download_url, &task.writers.runner.dir)
        .map(|definition| (definition, release.version))
        .map_err(text)
}

/// The release that GitHub offers to the first repository that tells it: that which waits, or any that is named.
async fn offered(task: &Task, scope: &Scope) -> Result<RunnerRelease, String> {
    let mut last = String::new();
    for scope in iter::once(scope.clone()).chain(task.writers.policy.scopes()) {
        let Some(readers) = task.writers.releases.get(&scope.account) else { continue };
        match readers.get(&task.writers.policy.credential(&scope)).runner_release(&scope.repo).await {
            Ok(release) => return Ok(release),
            Err(error) => last = CallFailure::from(error).message,
        }
    }
    Err(format!("cannot learn the runner's release from GitHub: {last}"))
}
