//! Carries out a plan: everything that creates, terminates or deletes is here, and nothing decides here.
//!
//! Each action is a task of its own with one [`Outcome`]. An action may be refused because the same one is
//! under way; it is never replaced by another.

mod create;
mod image;
mod outcome;
mod proof;
mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use tokio::task::JoinSet;
use tracing::{Instrument, info, info_span, warn};

use crate::budget::Purpose;
use crate::class::{ImageSource, RunnerClass};
use crate::clock::Clock;
use crate::config::RunnerSettings;
use crate::error::{CallFailure, ErrorClass};
use crate::evidence::Failing;
use crate::github::{Deregistered, GithubWriter, GithubWriters};
use crate::ids::{AccountName, AppId, ClassName, ImageId, OurName, RunnerId, SecretId, VolumeId};
use crate::modal::{Deletion, ModalWriter};
use crate::plan::{Action, DeregisterReason, Plan, Policy, SecretLook};
use crate::retry;
use crate::state::{Creating, Origin, Registry};

pub(crate) use image::REGISTRY_KEYS;
pub use image::{Anew, Builder, ImageMaker, Order, Telling, layers_for_people};
pub use outcome::{BuiltImage, Effect, NotMade, Outcome};
pub use proof::{PROOF_LABEL, Proof, Proving, prove};

/// The writers, and what actions need to know.
#[derive(Debug)]
pub struct Writers {
    /// Per account.
    pub github: BTreeMap<AccountName, GithubWriters>,
    /// Builds images.
    pub images: ImageMaker,
    /// Modal.
    pub modal: ModalWriter,
    /// The rules, for classes and runner groups.
    pub policy: Policy,
    /// What runs in the sandboxes.
    pub runner: RunnerSettings,
    /// Time.
    pub clock: Clock,
}

impl Writers {
    /// What registers and deletes runners in a place.
    fn github_of(&self, registry: &Registry) -> Result<GithubWriter, CallFailure> {
        let account = registry.account();
        let writers = self.github.get(account).ok_or_else(|| unknown_account(account))?;
        Ok(writers.get(&self.policy.credential_of(registry)))
    }
}

/// The most terminations and deletions at a time: cleaning up must not crowd out creating.
const CLEANING_AT_A_TIME: usize = 8;

/// What is under way, so that it is not started twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Create(OurName),
    Image(ImageSource),
    Deregister(OurName),
    Terminate(OurName),
    Secret(SecretId),
}

/// Ids of what creates need, looked up once.
#[derive(Debug, Default)]
struct Known {
    app: Option<AppId>,
    secrets: BTreeMap<String, SecretId>,
    volumes: BTreeMap<String, VolumeId>,
}

/// Actions under way.
#[derive(Debug)]
pub struct Actor {
    writers: Arc<Writers>,
    known: Arc<Mutex<Known>>,
    tasks: JoinSet<(Key, Outcome)>,
    under_way: BTreeSet<Key>,
    /// Creates under way: supply that no list shows yet.
    creating: BTreeMap<OurName, Creating>,
    finished: Vec<Outcome>,
    failing: BTreeMap<Key, Failing>,
}

impl Actor {
    /// Has nothing under way.
    pub fn new(writers: Writers) -> Self {
        Self {
            writers: Arc::new(writers),
            known: Arc::default(),
            tasks: JoinSet::new(),
            under_way: BTreeSet::new(),
            creating: BTreeMap::new(),
            finished: Vec::new(),
            failing: BTreeMap::new(),
        }
    }

    /// Starts every action of the plan that is not under way, and returns the creates among them.
    pub fn start(
        &mut self,
        plan: &Plan,
        images: &BTreeMap<ClassName, ImageId>,
        now: DateTime<Utc>,
    ) -> Vec<(OurName, Origin)> {
        let mut started = Vec::new();
        for action in &plan.actions {
            let Some(key) = self.key(action) else { continue };
            if !self.may_start(&key, action, now) || !self.under_way.insert(key.clone()) {
                continue;
            }
            if let Action::Create(create) = action {
                self.creating.insert(
                    create.name.clone(),
                    Creating { origin: create.origin.clone(), since: now, asked_at: None },
                );
                started.push((create.name.clone(), create.origin.clone()));
            }
            let task = Task {
                writers: Arc::clone(&self.writers),
                known: Arc::clone(&self.known),
                image: image_of(action, images),
                action: action.clone(),
            };
            let span = info_span!("action", kind = action.labels().0);
            self.tasks.spawn(async move { (key, task.run().await) }.instrument(span));
        }
        started
    }

    /// Whether an action may start now: not right after it failed, and cleaning up only beside creating.
    fn may_start(&self, key: &Key, action: &Action, now: DateTime<Utc>) -> bool {
        if self.failing.get(key).is_some_and(|failing| failing.again_at > now) {
            return false;
        }
        let cleaning = self.under_way.iter().filter(|key| !matches!(key, Key::Create(_) | Key::Image(_))).count();
        match action {
            Action::Create(_) | Action::PrepareImage { .. } => true,
            Action::Terminate { .. } | Action::DeleteSecret { .. } => cleaning < CLEANING_AT_A_TIME,
            Action::Deregister { registry, .. } => {
                cleaning < CLEANING_AT_A_TIME
                    && self.writers.github_of(registry).is_ok_and(|github| {
                        let deleting = self.under_way.iter().filter(|key| matches!(key, Key::Deregister(_))).count();
                        let budget = github.budget();
                        let admits =
                            budget.lock().expect("no holder of the budget panics").admits(Purpose::Deregister, now);
                        admits && deleting == 0
                    })
            }
        }
    }

    fn key(&self, action: &Action) -> Option<Key> {
        Some(match action {
            Action::Create(create) => Key::Create(create.name.clone()),
            Action::PrepareImage { class, .. } => Key::Image(self.writers.policy.class(class)?.image.clone()),
            Action::Deregister { name, .. } => Key::Deregister(name.clone()),
            Action::Terminate { name, .. } => Key::Terminate(name.clone()),
            Action::DeleteSecret { secret, .. } => Key::Secret(secret.clone()),
        })
    }

    /// Waits until an action has finished; for ever where none is under way.
    pub async fn finish(&mut self) {
        match self.tasks.join_next().await {
            Some(done) => self.note(done),
            None => std::future::pending().await,
        }
    }

    /// Everything that finished since the last call.
    pub fn finished(&mut self) -> Vec<Outcome> {
        while let Some(done) = self.tasks.try_join_next() {
            self.note(done);
        }
        std::mem::take(&mut self.finished)
    }

    fn note(&mut self, done: Result<(Key, Outcome), tokio::task::JoinError>) {
        match done {
            Ok((key, outcome)) => {
                if let Key::Create(name) = &key {
                    self.creating.remove(name);
                }
                self.under_way.remove(&key);
                self.note_failure(key, &outcome.effect);
                self.finished.push(outcome);
            }
            // Actions catch their own panics; what is left is the end of the runtime.
            Err(error) => {
                warn!(%error, "an action was cut off");
            }
        }
    }

    /// What failed is tried again after a pause that grows.
    fn note_failure(&mut self, key: Key, effect: &Effect) {
        let Effect::Failed { failure } = effect else {
            self.failing.remove(&key);
            return;
        };
        let failures = self.failing.get(&key).map_or(0, |failing| failing.failures).saturating_add(1);
        let pause = chrono::TimeDelta::from_std(retry::read_again(failure, failures)).unwrap_or(chrono::TimeDelta::MAX);
        let again_at = self.writers.clock.now() + pause;
        self.failing.insert(key, Failing { failures, failure: failure.clone(), again_at });
        let longest = chrono::TimeDelta::from_std(retry::LONGEST).unwrap_or(chrono::TimeDelta::MAX);
        let now = self.writers.clock.now();
        self.failing.retain(|_, failing| now - failing.again_at < longest);
    }

    /// Forgets the ids of the App, of Secrets and of Volumes, because Modal does not know one of them any more.
    ///
    /// # Panics
    /// Never: no holder of them panics.
    pub fn forget_ids(&self) {
        *self.known.lock().expect("no holder of the ids panics") = Known::default();
    }

    /// Creates under way.
    pub fn creating(&self) -> &BTreeMap<OurName, Creating> {
        &self.creating
    }

    /// Whether a stop need wait for nothing: the build of an image goes on by itself and is joined again.
    pub fn is_idle(&self) -> bool {
        self.under_way.iter().all(|key| matches!(key, Key::Image(_)))
    }
}

fn image_of(action: &Action, images: &BTreeMap<ClassName, ImageId>) -> Option<ImageId> {
    match action {
        Action::Create(create) => images.get(&create.origin.class).cloned(),
        Action::PrepareImage { .. }
        | Action::Deregister { .. }
        | Action::Terminate { .. }
        | Action::DeleteSecret { .. } => None,
    }
}

/// One action with what it needs.
struct Task {
    writers: Arc<Writers>,
    known: Arc<Mutex<Known>>,
    image: Option<ImageId>,
    action: Action,
}

impl Task {
    async fn run(self) -> Outcome {
        let clock = self.writers.clock.clone();
        let began = clock.now();
        let (action, reason) = self.action.labels();
        let acted = AssertUnwindSafe(self.act()).catch_unwind().await;
        let effect = acted.unwrap_or_else(|_| self.broken_off());
        let took = (clock.now() - began).to_std().unwrap_or_default();
        log(&self.action, &effect, took);
        Outcome { action, reason, effect, took }
    }

    async fn act(&self) -> Effect {
        match &self.action {
            Action::Create(create) => create::create(self, create).await,
            Action::PrepareImage { class, scope, replaces } => match self.writers.policy.class(class) {
                Some(class) => image::prepare(self, &class.image, scope, replaces.as_ref()).await,
                None => Effect::Failed { failure: unknown_class(class) },
            },
            Action::Deregister { name, registry, runner, reason, secret } => {
                match self.is_in_use(name, *reason).await {
                    Ok(true) => return Effect::StillLives { name: name.clone(), runner: *runner },
                    Ok(false) => {}
                    Err(failure) => return Effect::Failed { failure },
                }
                match self.delete_secret_of(name, *runner, *secret).await {
                    Ok(Deletion::NotThere) if *secret == SecretLook::First => {
                        Effect::SecretDenied { name: name.clone(), runner: *runner }
                    }
                    Ok(_) => self.deregister(name, registry, *runner, *reason).await,
                    Err(failure) => Effect::Failed { failure },
                }
            }
            Action::Terminate { name, sandbox, .. } => match self.writers.modal.terminate(sandbox).await {
                Ok(()) => Effect::Terminated { name: name.clone() },
                Err(error) => Effect::Failed { failure: error.into() },
            },
            Action::DeleteSecret { name, secret } => match self.writers.modal.delete_secret(secret).await {
                Ok(found) => Effect::SecretDeleted { name: name.clone(), secret: secret.clone(), found },
                Err(error) => Effect::Failed { failure: error.into() },
            },
        }
    }

    /// What an action came to that panicked. An image that is not told to have failed would count as being made for ever.
    fn broken_off(&self) -> Effect {
        let source = match &self.action {
            Action::PrepareImage { class, .. } => self.writers.policy.class(class).map(|class| class.image.clone()),
            Action::Create(_) | Action::Deregister { .. } | Action::Terminate { .. } | Action::DeleteSecret { .. } => {
                None
            }
        };
        match source {
            Some(source) => Effect::Image { source, result: Err(NotMade::lasting(panicked().message)), replaces: None },
            None => Effect::Failed { failure: panicked() },
        }
    }

    /// Whether a sandbox lives that Modal's lists do not show: they may lack one again and again, where several were created
    /// at the same moment.
    async fn is_in_use(&self, name: &OurName, reason: DeregisterReason) -> Result<bool, CallFailure> {
        match reason {
            DeregisterReason::Stale => Ok(self.writers.modal.find_living(&name.to_string()).await?.is_some()),
            DeregisterReason::FailedStart | DeregisterReason::NoCapacity => Ok(false),
        }
    }

    /// Deletes the Secret that a create may have left: after the registration nothing would lead to it any more.
    async fn delete_secret_of(
        &self,
        name: &OurName,
        runner: RunnerId,
        look: SecretLook,
    ) -> Result<Deletion, CallFailure> {
        if look == SecretLook::None {
            return Ok(Deletion::Done);
        }
        let deleted = self.writers.modal.delete_secret_named(&create::secret_name(name, runner)).await;
        match deleted.map_err(CallFailure::from) {
            Err(failure) if failure.class.may_pass() => Err(failure),
            Ok(found) => Ok(found),
            // Whoever may not look Secrets up made none.
            Err(_) => Ok(Deletion::Done),
        }
    }

    async fn deregister(
        &self,
        name: &OurName,
        registry: &Registry,
        runner: RunnerId,
        reason: DeregisterReason,
    ) -> Effect {
        let github = match self.writers.github_of(registry) {
            Ok(github) => github,
            Err(failure) => return Effect::Failed { failure },
        };
        match github.delete_runner(registry, runner).await {
            Ok(Deregistered::Gone) => Effect::Deregistered { name: name.clone(), runner, reason },
            Ok(Deregistered::StillRunning) => Effect::StillRunning { name: name.clone(), runner },
            Err(error) => Effect::Failed { failure: error.into() },
        }
    }

    /// The App that holds our sandboxes, looked up or created once.
    async fn app(&self) -> Result<AppId, CallFailure> {
        let known = self.known().app.clone();
        if let Some(app) = known {
            return Ok(app);
        }
        let app = self.writers.modal.ensure_app().await?;
        self.known().app = Some(app.clone());
        Ok(app)
    }

    /// A Secret that somebody stored under a name, looked up once.
    async fn secret(&self, name: &str) -> Result<SecretId, CallFailure> {
        let known = self.known().secrets.get(name).cloned();
        if let Some(secret) = known {
            return Ok(secret);
        }
        let secret = self.writers.modal.find_secret(name).await?;
        self.known().secrets.insert(name.to_owned(), secret.clone());
        Ok(secret)
    }

    /// The Volume of a name, looked up or created once.
    async fn volume(&self, name: &str) -> Result<VolumeId, CallFailure> {
        let known = self.known().volumes.get(name).cloned();
        if let Some(volume) = known {
            return Ok(volume);
        }
        let volume = self.writers.modal.ensure_volume(name).await?;
        self.known().volumes.insert(name.to_owned(), volume.clone());
        Ok(volume)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of the ids panics")
    }
}

/// What it did is not known; the lists will tell.
fn panicked() -> CallFailure {
    CallFailure { class: ErrorClass::Unavailable, message: "the action panicked".to_owned(), retry_after: None }
}

fn unknown_account(name: &AccountName) -> CallFailure {
    CallFailure { class: ErrorClass::Invalid, message: format!("there is no account `{name}`"), retry_after: None }
}

fn unknown_class(class: &ClassName) -> CallFailure {
    CallFailure { class: ErrorClass::Invalid, message: format!("there is no class `{class}`"), retry_after: None }
}

fn log(action: &Action, effect: &Effect, took: Duration) {
    let elapsed_seconds = took.as_secs_f64();
    match effect {
        Effect::Created { name, origin, sandbox, .. } => info!(
            repo = %origin.scope.repo, job_id = name.job.0, run_id = origin.run.0, runner_name = %name,
            sandbox_id = %sandbox, elapsed_seconds, "created sandbox"
        ),
        Effect::NotPrepared { name, origin, failure }
        | Effect::MintFailed { name, origin, failure }
        | Effect::CreateFailed { name, origin, failure, .. }
        | Effect::MaybeCreated { name, origin, failure, .. } => warn!(
            repo = %origin.scope.repo, job_id = name.job.0, run_id = origin.run.0, runner_name = %name,
            elapsed_seconds, error = %failure, result = effect.result(), "create failed"
        ),
        Effect::NameTaken { name, origin } => {
            info!(repo = %origin.scope.repo, job_id = name.job.0, runner_name = %name, "the runner's name is taken");
        }
        Effect::SecretDenied { name, .. } => tracing::debug!(runner_name = %name, "no Secret is known"),
        Effect::StillLives { name, .. } => {
            tracing::debug!(runner_name = %name, "its sandbox lives, although Modal's lists lack it: the runner is kept");
        }
        Effect::Deregistered { name, .. } | Effect::StillRunning { name, .. } => {
            info!(runner_name = %name, reason = action.labels().1, result = effect.result(), elapsed_seconds, "deregistered runner");
        }
        Effect::Terminated { name } => {
            info!(runner_name = %name, reason = action.labels().1, elapsed_seconds, "terminated sandbox");
        }
        Effect::SecretDeleted { name, found, .. } => tracing::debug!(runner_name = %name, ?found, "deleted secret"),
        Effect::Image { result: Ok(built), .. } => {
            let runner_version = built.runner.map(tracing::field::display);
            info!(image_id = %built.image, runner_version, elapsed_seconds, "the image is ready");
        }
        Effect::Image { result: Err(error), .. } => {
            warn!(%error, elapsed_seconds, "the image could not be made");
        }
        Effect::Failed { failure } => warn!(action = %action, error = %failure, elapsed_seconds, "an action failed"),
    }
}

/// The class of a create; it was planned from the same policy.
fn class_of<'a>(policy: &'a Policy, origin: &Origin) -> Option<&'a RunnerClass> {
    policy.class(&origin.class)
}
