//! Makes images ready: for the first sandbox of a class, for a newer runner, and on the command line.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::{BuiltImage, Effect, NotMade, Task};
use crate::class::{ImageBase, ImageRecipe, ImageSource};
use crate::clock::Clock;
use crate::config::{RunnerReleaseChoice, RunnerSettings};
use crate::error::{CallFailure, ErrorClass, redact};
use crate::github::{GithubReaders, RunnerRelease};
use crate::ids::{AccountName, AppId, Fingerprint, ImageId, SecretId};
use crate::modal::{
    self, Base, BuildProgress, DOWNLOAD_TOKEN, ImageDefinition, ModalError, ModalWriter, Rebuilt, RunnerContents,
    Steps, Tools,
};
use crate::plan::Policy;
use crate::state::Scope;
use crate::state_dir::{BuildLogs, BuildRecord, LOG_BYTES_MAX, masked};

/// What must be in the Secret that a private registry is asked with (modal-api.md §7.5).
pub(crate) const REGISTRY_KEYS: [&str; 2] = ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"];

/// Builds images.
#[derive(Debug)]
pub struct ImageMaker {
    /// Modal.
    pub modal: ModalWriter,
    /// To ask for the runner's newest release.
    pub releases: BTreeMap<AccountName, GithubReaders>,
    /// The rules, for accounts.
    pub policy: Policy,
    /// Which runner goes into images, and where to.
    pub runner: RunnerSettings,
    /// Time.
    pub clock: Clock,
    /// Where logs of builds are kept; none where nothing is.
    pub build_logs: Option<BuildLogs>,
    /// Who it is.
    pub builder: Builder,
}

/// Whether an image is built although Modal knows its definition.
#[derive(Debug)]
pub enum Anew<'a> {
    /// What was built is used.
    No,
    /// Every layer is built: what a tag or a package means may have changed. One that is in several images is built once.
    Yes(&'a mut Rebuilt),
}

/// Who builds. A build that needs a token keeps it in a Secret of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// The daemon, which makes each image once at a time.
    Daemon,
    /// A command, which may run beside it.
    Command,
}

/// How loudly a build tells what its program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Each line in the log, for somebody who waits.
    Lines,
    /// Lines for those who look for faults only.
    Quiet,
}

/// How an image is to be made.
#[derive(Debug)]
pub struct Order<'a> {
    /// A repository that waits for it: GitHub is asked there first for the runner's release.
    pub scope: Option<&'a Scope>,
    /// Whether what is known is built again.
    pub anew: Anew<'a>,
    /// What is told meanwhile.
    pub telling: Telling,
}

pub(super) async fn prepare(task: &Task, source: &ImageSource, scope: &Scope, replaces: Option<&ImageId>) -> Effect {
    let mut rebuilt = Rebuilt::default();
    let anew = if replaces.is_some() { Anew::Yes(&mut rebuilt) } else { Anew::No };
    let order = Order { scope: Some(scope), anew, telling: Telling::Quiet };
    let result = match task.app().await {
        Ok(app) => task.writers.images.make(&app, source, order).await,
        Err(failure) => Err(failure.into()),
    };
    Effect::Image { source: source.clone(), result, replaces: replaces.cloned() }
}

/// The lines of each layer, for people who want to know what an image is made of. The runner's own are told in words: they
/// name the release that GitHub offers at the time of the build.
///
/// # Errors
/// [`ModalError::Definition`] where something of it has a form that could be more than it says.
pub fn layers_for_people(source: &ImageSource, runner: &RunnerSettings) -> Result<Vec<Vec<String>>, ModalError> {
    let definition = definition(source, None, None)?;
    let mut layers: Vec<Vec<String>> = definition.commands().into_iter().map(<[String]>::to_vec).collect();
    if source.gets_runner() {
        layers.last_mut().map(Vec::pop);
        let release = match &runner.release {
            RunnerReleaseChoice::Auto => "the release that GitHub offers".to_owned(),
            RunnerReleaseChoice::Pinned { version, .. } => format!("release {version}"),
        };
        layers.push(vec![format!("(GitHub's runner, {release}, checked by its SHA-256, in {})", runner.dir)]);
    }
    Ok(layers)
}

fn definition(
    source: &ImageSource,
    runner: Option<&RunnerContents<'_>>,
    registry_secret: Option<&SecretId>,
) -> Result<ImageDefinition, ModalError> {
    let tools = |has_docker: bool| if has_docker { Tools::WithDocker } else { Tools::Usual };
    let (id, no_env) = (ImageId::new(""), BTreeMap::new());
    let no_steps = Steps { apt: &[], env: &no_env, run: &[] };
    match source {
        ImageSource::Default { has_docker } => {
            ImageDefinition::made(Base::Default(tools(*has_docker)), no_steps, runner)
        }
        ImageSource::Registry(reference) => ImageDefinition::registry_layers(reference),
        ImageSource::Existing(id) => ImageDefinition::made(Base::Existing(&ImageId::new(id.as_str())), no_steps, None),
        ImageSource::Recipe(recipe) => {
            let ImageRecipe { base, apt, env, run, .. } = &**recipe;
            let id = if let ImageBase::Existing(id) = base { ImageId::new(id.as_str()) } else { id };
            let base = match base {
                ImageBase::Default { has_docker } => Base::Default(tools(*has_docker)),
                ImageBase::Registry(reference) => Base::Registry { reference, secret: registry_secret },
                ImageBase::Existing(_) => Base::Existing(&id),
            };
            ImageDefinition::made(base, Steps { apt, env, run }, runner)
        }
    }
}

impl ImageMaker {
    /// Makes sure that an image exists, building what is missing, and keeps the log of what was built.
    ///
    /// The token of a download that has to be authorized stands in a Secret while the runner's layer is built. The Secret is
    /// part of the layer's definition, so that this layer is built anew at each start: it is deleted all the same, as nobody
    /// needs it.
    ///
    /// # Errors
    /// Why there is none, with the end of the build's log.
    pub async fn make(&self, app: &AppId, source: &ImageSource, order: Order<'_>) -> Result<BuiltImage, NotMade> {
        let release = if source.gets_runner() { Some(self.wanted_release(order.scope).await?) } else { None };
        let registry_secret = self.registry_secret(source).await?;
        let token = release.as_ref().and_then(|release| release.download_token.as_ref());
        let secret = match token {
            Some(token) => Some(self.store(source, token).await?),
            None => None,
        };
        let began = self.clock.now();
        let mut scribe = Scribe { source, telling: order.telling, hidden: token, text: String::new(), layers: 0 };
        let defined = match &release {
            Some(release) => self.with_runner(source, release, secret.as_ref(), registry_secret.as_ref()),
            None => definition(source, None, registry_secret.as_ref()).map_err(|error| not_made(error, None)),
        };
        let mut made_of = None;
        let made = match defined {
            Ok(definition) => {
                // The Secret is in the definition.
                made_of = secret.as_ref().map(|_| definition.fingerprint());
                let progress = |step| scribe.take(step);
                let made = match order.anew {
                    Anew::No => modal::build(&self.modal, app, &definition, progress).await,
                    Anew::Yes(rebuilt) => modal::rebuild(&self.modal, app, &definition, rebuilt, progress).await,
                };
                made.map_err(|error| not_made(error, token))
            }
            Err(problem) => Err(problem),
        };
        if let Some(secret) = &secret {
            self.forget(secret).await;
        }
        self.keep(scribe, began, &made).await;
        Ok(BuiltImage { image: made?, runner: release.map(|release| release.version), made_of })
    }

    fn with_runner(
        &self,
        source: &ImageSource,
        release: &RunnerRelease,
        token: Option<&SecretId>,
        registry_secret: Option<&SecretId>,
    ) -> Result<ImageDefinition, NotMade> {
        let Some(sha256) = &release.sha256 else {
            return Err(NotMade::lasting(format!(
                "GitHub gives no checksum for runner {}: pin `runner.version` and `runner.sha256`",
                release.version
            )));
        };
        let contents = RunnerContents {
            version: &release.version.to_string(),
            sha256,
            download_url: &release.download_url,
            dir: &self.runner.dir,
            token,
        };
        definition(source, Some(&contents), registry_secret).map_err(|error| not_made(error, None))
    }

    /// The Secret that the registry of a private base is asked with.
    async fn registry_secret(&self, source: &ImageSource) -> Result<Option<SecretId>, NotMade> {
        let ImageSource::Recipe(recipe) = source else { return Ok(None) };
        let Some(name) = &recipe.registry_secret else { return Ok(None) };
        let found = self.modal.find_secret_with(name, &REGISTRY_KEYS).await.map_err(CallFailure::from);
        found.map(Some).map_err(|failure| {
            let message = if failure.class == ErrorClass::NotFound {
                format!(
                    "there is no Modal Secret `{name}`, or it lacks one of REGISTRY_USERNAME and REGISTRY_PASSWORD: make \
                     it in the workspace, or take `registry_secret` out of image `{}` ({failure})",
                    recipe.name
                )
            } else {
                format!("Modal Secret `{name}` must hold REGISTRY_USERNAME and REGISTRY_PASSWORD: {failure}")
            };
            NotMade::from(CallFailure { message, ..failure })
        })
    }

    /// Stores a download's token under a name that no other build uses meanwhile, and that the next one of the same image
    /// finds: what a process that died has left is replaced.
    async fn store(&self, source: &ImageSource, token: &SecretString) -> Result<SecretId, NotMade> {
        let builder = match self.builder {
            Builder::Daemon => "daemon",
            Builder::Command => "command",
        };
        let image = Fingerprint::of(&source.to_string());
        let name = format!("sandrunner-{}-download-{image}-{builder}", self.policy.deployment);
        let env = [(DOWNLOAD_TOKEN.to_owned(), token.clone())];
        self.modal.store_secret(&name, &env).await.map_err(|error| not_made(error, Some(token)))
    }

    async fn forget(&self, secret: &SecretId) {
        if let Err(error) = self.modal.delete_secret(secret).await {
            let error = CallFailure::from(error);
            tracing::warn!(%error, "the Secret of a build is left behind until the next one; its token soon opens nothing");
        }
    }

    /// Keeps what a build wrote; nothing where nothing was built.
    async fn keep(&self, scribe: Scribe<'_>, began: chrono::DateTime<chrono::Utc>, made: &Result<ImageId, NotMade>) {
        let Some(logs) = self.build_logs.as_ref().filter(|_| scribe.layers > 0) else { return };
        let record = BuildRecord {
            image: scribe.source.to_string(),
            began,
            took_seconds: (self.clock.now() - began).as_seconds_f64(),
            layers_built: scribe.layers,
            image_id: made.as_ref().ok().cloned(),
            problem: made.as_ref().err().map(|problem| problem.message.lines().next().unwrap_or_default().to_owned()),
        };
        logs.keep(record, scribe.text).await;
    }
}

/// Writes down what happens during a build, but for a secret that the builder knows.
struct Scribe<'a> {
    source: &'a ImageSource,
    telling: Telling,
    hidden: Option<&'a SecretString>,
    text: String,
    /// How many were built.
    layers: usize,
}

impl Scribe<'_> {
    fn take(&mut self, step: BuildProgress) {
        let image = self.source;
        match step {
            BuildProgress::Known { layer, layers } if self.telling == Telling::Lines => {
                tracing::info!(%image, layer, layers, "the image's layer exists");
            }
            BuildProgress::Known { layer, layers } => {
                tracing::debug!(%image, layer, layers, "the image's layer exists");
            }
            BuildProgress::Building { layer, layers } => {
                self.layers += 1;
                self.write(&format!("--- layer {layer} of {layers}\n"));
                tracing::info!(%image, layer, layers, "building the image's layer");
            }
            BuildProgress::Log(piece) => {
                let piece = without(&piece, self.hidden);
                self.write(&piece);
                for line in masked(&piece).lines().map(str::trim_end).filter(|line| !line.is_empty()) {
                    match self.telling {
                        Telling::Lines => tracing::info!(%image, line, "image build"),
                        Telling::Quiet => tracing::debug!(%image, line, "image build"),
                    }
                }
            }
        }
    }

    /// Keeps the end of it: twice as much as is kept in all, so that it is cut seldom.
    fn write(&mut self, piece: &str) {
        self.text.push_str(piece);
        if self.text.len() > 2 * LOG_BYTES_MAX {
            let excess = self.text.len() - LOG_BYTES_MAX;
            let cut = (excess..self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(self.text.len());
            self.text.drain(..cut);
        }
    }
}

fn not_made(error: ModalError, hidden: Option<&SecretString>) -> NotMade {
    let log = error.build_log().map(|log| format!("\nthe end of its log:\n{log}"));
    let failure = CallFailure::from(error);
    let message = masked(&without(&format!("{failure}{}", log.as_deref().unwrap_or_default()), hidden));
    // A build costs minutes, whatever broke it.
    if log.is_some() { NotMade::lasting(message) } else { CallFailure { message, ..failure }.into() }
}

fn without(text: &str, hidden: Option<&SecretString>) -> String {
    hidden.map_or_else(|| text.to_owned(), |hidden| redact(text, hidden.expose_secret()))
}
