//! What an action came to: for the evidence, the view, metrics and people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::class::ImageSource;
use crate::error::CallFailure;
use crate::ids::{Fingerprint, ImageId, OurName, RunnerId, SandboxId, SecretId, TaskId};
use crate::modal::Deletion;
use crate::plan::DeregisterReason;
use crate::retry::{self, Growth};
use crate::runner::RunnerVersion;
use crate::state::{Origin, Setbacks};

/// What an action came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The kind of action, a metric label.
    pub action: &'static str,
    /// Why it was done, a metric label.
    pub reason: &'static str,
    /// What it changed.
    pub effect: Effect,
    /// How long it took.
    pub took: Duration,
}

/// An image that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image.
    pub image: ImageId,
    /// The runner that was put into it; none where somebody else did.
    pub runner: Option<RunnerVersion>,
    /// Stands for what it was made of, where that has another id at Modal each time it is made.
    pub made_of: Option<Fingerprint>,
}

/// Why an image could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMade {
    /// The reason, with the end of the build's log.
    pub message: Arc<str>,
    /// How the pauses grow after which it is tried again.
    pub pauses: Growth,
}

impl NotMade {
    /// It stays so until somebody mends something, or costs a build to find out.
    pub fn lasting(message: impl Into<Arc<str>>) -> Self {
        Self { message: message.into(), pauses: retry::IMAGE }
    }

    /// Whether it passes by itself, so that it tells nothing of the image.
    pub fn may_pass(&self) -> bool {
        self.pauses == retry::READ
    }

    /// What it adds to those `before`, and when the image is asked for again.
    pub fn after(&self, before: Setbacks, now: DateTime<Utc>) -> (Setbacks, DateTime<Utc>) {
        let mut failures = before;
        let alike = if self.may_pass() { &mut failures.passing } else { &mut failures.lasting };
        *alike = alike.saturating_add(1);
        let pause = TimeDelta::from_std(retry::delay(self.pauses, *alike)).unwrap_or(TimeDelta::MAX);
        (failures, now + pause)
    }
}

/// A call failed, without which nothing is built.
impl From<CallFailure> for NotMade {
    fn from(failure: CallFailure) -> Self {
        let pauses = if failure.class.may_pass() { retry::READ } else { retry::IMAGE };
        Self { message: failure.message.into(), pauses }
    }
}

impl fmt::Display for NotMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What an action changed, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A runner was registered and its sandbox created.
    Created {
        /// The name of both.
        name: OurName,
        /// For what.
        origin: Origin,
        /// The registration.
        runner: RunnerId,
        /// The sandbox.
        sandbox: SandboxId,
        /// What runs it, where Modal said so.
        task: Option<TaskId>,
        /// The Secret with its JIT config, where it needed one.
        secret: Option<SecretId>,
        /// What the sandbox was made from.
        image: ImageId,
    },
    /// What its sandbox needs is not to be had: no runner was registered.
    NotPrepared {
        /// The name it would have.
        name: OurName,
        /// For what.
        origin: Origin,
        /// Why.
        failure: CallFailure,
    },
    /// No runner was registered; or one may be, whose config is lost.
    MintFailed {
        /// The name it would have.
        name: OurName,
        /// For what.
        origin: Origin,
        /// Why.
        failure: CallFailure,
    },
    /// Somebody else registered a runner of that name: its sandbox may be about to appear.
    NameTaken {
        /// The name.
        name: OurName,
        /// For what.
        origin: Origin,
    },
    /// The runner was registered and its sandbox surely not created.
    CreateFailed {
        /// The name of both.
        name: OurName,
        /// For what.
        origin: Origin,
        /// The registration, which becomes stale.
        runner: RunnerId,
        /// Why.
        failure: CallFailure,
    },
    /// The runner was registered and its sandbox may have been created.
    MaybeCreated {
        /// The name of both.
        name: OurName,
        /// For what.
        origin: Origin,
        /// The registration.
        runner: RunnerId,
        /// Why that is not known.
        failure: CallFailure,
    },
    /// GitHub no longer knows the runner, and gives it no work.
    Deregistered {
        /// Its name.
        name: OurName,
        /// Its id.
        runner: RunnerId,
        /// Why it was deleted.
        reason: DeregisterReason,
    },
    /// Modal said that it knows no Secret of the registration, which is kept until it says so again.
    SecretDenied {
        /// Its name.
        name: OurName,
        /// Its id.
        runner: RunnerId,
    },
    /// The runner is kept because its sandbox lives, which Modal's lists lack.
    StillLives {
        /// Its name.
        name: OurName,
        /// Its id.
        runner: RunnerId,
    },
    /// GitHub keeps the runner because it runs a job.
    StillRunning {
        /// Its name.
        name: OurName,
        /// Its id.
        runner: RunnerId,
    },
    /// Modal was asked to end the sandbox.
    Terminated {
        /// Its name.
        name: OurName,
    },
    /// The Secret is gone, or was not there.
    SecretDeleted {
        /// The name of its sandbox.
        name: OurName,
        /// Its id.
        secret: SecretId,
        /// What was found.
        found: Deletion,
    },
    /// An image is ready, or is not.
    Image {
        /// Its source.
        source: ImageSource,
        /// The image, or why there is none.
        result: Result<BuiltImage, NotMade>,
        /// The one that it was made anew in place of.
        replaces: Option<ImageId>,
    },
    /// Nothing is known to have changed.
    Failed {
        /// Why.
        failure: CallFailure,
    },
}

impl Effect {
    /// What [`Effect::result`] can give for an action beside `ok` and classes of errors, for metrics that show zero.
    pub fn results_of(action: &str) -> &'static [&'static str] {
        match action {
            "create" => &["name_taken", "unknown"],
            "prepare_image" => &["failed"],
            "deregister" => &["still_running", "still_lives", "secret_denied"],
            _ => &[],
        }
    }

    /// The result as a metric label.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Created { .. }
            | Self::Deregistered { .. }
            | Self::Terminated { .. }
            | Self::SecretDeleted { .. }
            | Self::Image { result: Ok(_), .. } => "ok",
            Self::NameTaken { .. } => "name_taken",
            Self::StillRunning { .. } => "still_running",
            Self::StillLives { .. } => "still_lives",
            Self::SecretDenied { .. } => "secret_denied",
            Self::MaybeCreated { .. } => "unknown",
            Self::Image { result: Err(_), .. } => "failed",
            Self::NotPrepared { failure, .. }
            | Self::MintFailed { failure, .. }
            | Self::CreateFailed { failure, .. }
            | Self::Failed { failure } => failure.class.as_str(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, effect, took, .. } = self;
        match effect {
            Effect::Created { name, origin, .. } => write!(f, "{action} {name} in {}", origin.scope)?,
            Effect::NotPrepared { name, origin, failure }
            | Effect::MintFailed { name, origin, failure }
            | Effect::CreateFailed { name, origin, failure, .. }
            | Effect::MaybeCreated { name, origin, failure, .. } => {
                write!(f, "{action} {name} in {}: {failure}", origin.scope)?;
            }
            Effect::NameTaken { name, origin } => write!(f, "{action} {name} in {}: the name is taken", origin.scope)?,
            Effect::Deregistered { name, .. } | Effect::Terminated { name } | Effect::SecretDeleted { name, .. } => {
                write!(f, "{action} {name}")?;
            }
            Effect::SecretDenied { name, .. } => write!(f, "{action} {name}: its Secret is looked for once more")?,
            Effect::StillRunning { name, .. } => write!(f, "{action} {name}: it runs a job")?,
            Effect::StillLives { name, .. } => write!(f, "{action} {name}: its sandbox lives")?,
            Effect::Image { result: Ok(built), .. } => write!(f, "{action}: {}", built.image)?,
            Effect::Image { result: Err(error), .. } => write!(f, "{action}: {error}")?,
            Effect::Failed { failure } => write!(f, "{action}: {failure}")?,
        }
        write!(f, " ({:.1} s)", took.as_secs_f64())
    }
}
