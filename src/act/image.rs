//! Makes the image of a class ready.

use std::collections::BTreeSet;
use std::iter;

use secrecy::{ExposeSecret, SecretString};

use super::{BuiltImage, Effect, Task};
use crate::class::{ImageSource, RunnerClass};
use crate::config::RunnerReleaseChoice;
use crate::error::{CallFailure, redact};
use crate::github::RunnerRelease;
use crate::ids::{AppId, ImageId, SecretId};
use crate::modal::{self, BuildProgress, DOWNLOAD_TOKEN, ImageDefinition, ModalError, RunnerContents, Tools};
use crate::state::Scope;

pub(super) async fn prepare(task: &Task, class: &RunnerClass, scope: &Scope, replaces: Option<&ImageId>) -> Effect {
    let source = class.image.clone();
    let result = build(task, &source, scope, replaces).await;
    Effect::Image { source, result, replaces: replaces.cloned() }
}

async fn build(
    task: &Task,
    source: &ImageSource,
    scope: &Scope,
    replaces: Option<&ImageId>,
) -> Result<BuiltImage, String> {
    let app = task.app().await.map_err(|failure| failure.message)?;
    let definition = match source {
        ImageSource::Default { has_docker } => {
            let tools = if *has_docker { Tools::WithDocker } else { Tools::Usual };
            return default_image(task, &app, &wanted_release(task, scope).await?, tools).await;
        }
        ImageSource::Registry(reference) => {
            ImageDefinition::registry_layers(reference).map_err(|error| text(error, None))?
        }
        ImageSource::Existing(id) => ImageDefinition::Existing(ImageId::new(id.as_str())),
    };
    let image = match replaces {
        Some(_) => modal::rebuild(&task.writers.modal, &app, &definition, |step| tell(step, None)).await,
        None => modal::build(&task.writers.modal, &app, &definition, |step| tell(step, None)).await,
    };
    Ok(BuiltImage { image: image.map_err(|error| text(error, None))?, runner: None })
}

/// Logs what happens during a build, but for a secret that the builder knows.
fn tell(step: BuildProgress, hidden: Option<&SecretString>) {
    match step {
        BuildProgress::Known { layer, layers } => tracing::debug!(layer, layers, "the image's layer exists"),
        BuildProgress::Building { layer, layers } => tracing::info!(layer, layers, "building the image's layer"),
        BuildProgress::Log(line) => tracing::debug!(line = without(line.trim_end(), hidden), "image build"),
    }
}

fn text(error: ModalError, hidden: Option<&SecretString>) -> String {
    let log = error.build_log().map(|log| format!("\nthe end of its log:\n{log}")).unwrap_or_default();
    without(&format!("{}{log}", CallFailure::from(error)), hidden)
}

fn without(text: &str, hidden: Option<&SecretString>) -> String {
    hidden.map_or_else(|| text.to_owned(), |hidden| redact(text, hidden.expose_secret()))
}

/// The image that Sandrunner defines, with a release of the runner.
///
/// The token of a download that has to be authorized stands in a Secret while the layer is built. The Secret is part of the
/// layer's definition, so that this layer is built anew at each start: it is deleted all the same, as nobody needs it.
async fn default_image(task: &Task, app: &AppId, release: &RunnerRelease, tools: Tools) -> Result<BuiltImage, String> {
    let Some(sha256) = &release.sha256 else {
        return Err(format!(
            "GitHub gives no checksum for runner {}: pin `runner.version` and `runner.sha256`",
            release.version
        ));
    };
    let token = release.download_token.as_ref();
    let secret = match token {
        Some(token) => Some(store(task, token).await?),
        None => None,
    };
    let contents = RunnerContents {
        version: &release.version.to_string(),
        sha256,
        download_url: &release.download_url,
        dir: &task.writers.runner.dir,
        token: secret.as_ref(),
    };
    let defined = ImageDefinition::default_layers(&contents, tools);
    let made = match defined {
        Ok(definition) => modal::build(&task.writers.modal, app, &definition, |step| tell(step, token)).await,
        Err(error) => Err(error),
    };
    if let Some(secret) = &secret {
        forget(task, secret).await;
    }
    Ok(BuiltImage { image: made.map_err(|error| text(error, token))?, runner: Some(release.version) })
}

/// Stores a download's token under a name of its own: what a process that died has left is replaced.
async fn store(task: &Task, token: &SecretString) -> Result<SecretId, String> {
    let name = format!("sandrunner-{}-download", task.writers.policy.deployment);
    let env = [(DOWNLOAD_TOKEN.to_owned(), token.clone())];
    task.writers.modal.store_secret(&name, &env).await.map_err(|error| text(error, Some(token)))
}

async fn forget(task: &Task, secret: &SecretId) {
    if let Err(error) = task.writers.modal.delete_secret(secret).await {
        let error = CallFailure::from(error);
        tracing::warn!(%error, "the Secret of a build is left behind until the next one; its token soon opens nothing");
    }
}

/// The release that the configuration asks for.
async fn wanted_release(task: &Task, scope: &Scope) -> Result<RunnerRelease, String> {
    let wanted = &task.writers.runner.release;
    let release = match wanted {
        RunnerReleaseChoice::Pinned { version, sha256: Some(sha256) } => RunnerRelease {
            download_url: format!(
                "https://github.com/actions/runner/releases/download/v{version}/actions-runner-linux-x64-{version}.tar.gz"
            ),
            version: *version,
            sha256: Some(sha256.clone()),
            download_token: None,
        },
        RunnerReleaseChoice::Auto | RunnerReleaseChoice::Pinned { sha256: None, .. } => offered(task, scope).await?,
    };
    match wanted {
        RunnerReleaseChoice::Pinned { version, .. } if *version != release.version => Err(format!(
            "GitHub offers runner {}, not {version}: set `runner.sha256` to the checksum of {version}, or `runner.version = \"auto\"`",
            release.version
        )),
        RunnerReleaseChoice::Pinned { .. } | RunnerReleaseChoice::Auto => Ok(release),
    }
}

/// The release that GitHub offers where the first runner is registered of which it tells: that which waits, or any of a
/// repository that is named.
async fn offered(task: &Task, scope: &Scope) -> Result<RunnerRelease, String> {
    let mut last = String::new();
    let policy = &task.writers.policy;
    let mut asked = BTreeSet::new();
    for registry in iter::once(scope.clone()).chain(policy.scopes()).map(|scope| policy.registry(&scope)) {
        if !asked.insert(registry.clone()) {
            continue;
        }
        let Some(readers) = task.writers.releases.get(registry.account()) else { continue };
        match readers.get(&policy.credential_of(&registry)).runner_release(&registry).await {
            Ok(release) => return Ok(release),
            Err(error) => last = CallFailure::from(error).message,
        }
    }
    Err(format!("cannot learn the runner's release from GitHub: {last}"))
}
