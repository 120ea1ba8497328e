//! Which image each class is served with: the one that is wanted, or the last that brought its runners online.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{error, info, warn};

use super::Controller;
use crate::act::{BuiltImage, NotMade};
use crate::class::{ImageSource, RunnerClass};
use crate::error::ErrorClass;
use crate::evidence::{GoodImage, Learned};
use crate::ids::{ClassName, ImageId};
use crate::metrics;
use crate::plan::Action;
use crate::runner::RunnerVersion;
use crate::state::{ImageState, Overdue, Rebuilds, Setbacks};

/// How long a build may be under way before the wanted image is asked for once more: as long as the longest build.
const UNDER_WAY: TimeDelta = TimeDelta::hours(1);
/// Why a class is served with an earlier image while the wanted one is made for the first time.
const BEING_MADE: &str = "the wanted image is being made";

impl Controller {
    /// Notes which images are being made. What serves meanwhile is the image in use; after a start it is the last with
    /// which runners of the class came online.
    pub(super) fn start_images(&mut self, now: DateTime<Utc>) {
        let actions = self.plan.actions.iter().filter_map(|action| match action {
            Action::PrepareImage { class, replaces, .. } => Some((class.clone(), replaces.is_some())),
            Action::Create(_) | Action::Deregister { .. } | Action::Terminate { .. } | Action::DeleteSecret { .. } => {
                None
            }
        });
        let actions: Vec<(ClassName, bool)> = actions.collect();
        for (class, is_anew) in actions {
            let Some(source) = self.policy.class(&class).map(|class| class.image.clone()) else { continue };
            if is_anew {
                let observed = &mut self.view.observed;
                let before = observed.rebuilds.get(&source).copied();
                observed.rebuilds.insert(source, Rebuilds::next(before, now));
                continue;
            }
            if self.view.observed.images.get(&class).and_then(ImageState::id).is_some() {
                self.view.observed.renewed_at.insert(source.clone(), now);
            }
            for name in self.classes_of(&source) {
                self.start_image(&name, now);
            }
        }
    }

    fn start_image(&mut self, class: &ClassName, now: DateTime<Utc>) {
        let again_at = now + UNDER_WAY;
        let failures = match self.view.observed.images.get(class) {
            Some(ImageState::Ready(_)) => {
                if let Some(overdue) = self.view.observed.overdue.get_mut(class) {
                    (overdue.again_at, overdue.held) = (again_at, None);
                }
                return;
            }
            Some(state) => state.failures(),
            None => Setbacks::default(),
        };
        let Some(good) = self.good_image(class, now).filter(|_| failures == Setbacks::default()) else {
            self.view.observed.images.insert(class.clone(), ImageState::Building { failures });
            return;
        };
        info!(%class, image_id = %good.image, "the last image that brought runners online serves while the wanted one is looked up");
        self.serve_with(class, good);
        let overdue = Overdue { why: BEING_MADE.into(), failures: Setbacks::default(), again_at, held: None };
        self.view.observed.overdue.insert(class.clone(), overdue);
    }

    /// Takes what the making of an image came to: other classes than those of the source see nothing of it.
    pub(super) fn take_image(
        &mut self,
        source: &ImageSource,
        result: &Result<BuiltImage, NotMade>,
        replaces: Option<&ImageId>,
        now: DateTime<Utc>,
    ) {
        for class in self.classes_of(source) {
            match result {
                Ok(built) => {
                    self.evidence.images.looked_up(&class, Some(&built.image));
                    self.evidence.images.made(&built.image, built.made_of);
                    self.switch(&class, built, now);
                }
                Err(failure) => {
                    if !failure.may_pass() {
                        self.evidence.images.looked_up(&class, None);
                    }
                    self.image_failed(&class, failure, replaces, now);
                }
            }
        }
    }

    /// Uses an image that was made, unless it is known not to bring runners of the class online, and another one does.
    fn switch(&mut self, class: &ClassName, built: &BuiltImage, now: DateTime<Utc>) {
        let until = self.evidence.images.held_until(class, &built.image, now);
        let good = self.good_image(class, now).filter(|good| good.image != built.image);
        if let Some((again_at, good)) = until.zip(good) {
            self.serve_with(class, good);
            self.hold_back(class, &built.image, again_at);
            return;
        }
        let observed = &mut self.view.observed;
        observed.overdue.remove(class);
        observed.images.insert(class.clone(), ImageState::Ready(built.image.clone()));
        self.note_runner(class, built.runner);
    }

    fn image_failed(&mut self, class: &ClassName, failure: &NotMade, replaces: Option<&ImageId>, now: DateTime<Utc>) {
        let observed = &mut self.view.observed;
        let message = &failure.message;
        match observed.images.get(class) {
            // What was made anew in vain is looked at again by its own clock.
            Some(ImageState::Ready(_)) if replaces.is_some() => {}
            Some(ImageState::Ready(image)) => {
                let before = observed.overdue.get(class).map(|late| late.failures).unwrap_or_default();
                let (failures, again_at) = failure.after(before, now);
                let Setbacks { passing, lasting } = failures;
                warn!(%class, image_id = %image, passing, lasting, "the wanted image could not be made; an earlier one serves on");
                let overdue = Overdue { why: Arc::clone(message), failures, again_at, held: None };
                observed.overdue.insert(class.clone(), overdue);
            }
            state => {
                let (failures, again_at) = failure.after(state.map(ImageState::failures).unwrap_or_default(), now);
                let failed = ImageState::Failed { message: Arc::clone(message), failures, again_at };
                observed.images.insert(class.clone(), failed);
            }
        }
    }

    /// The first runners of a new image did not come online: the class is served with the last that did again. Sandboxes
    /// of the new one are left alone.
    pub(super) fn go_back(&mut self, learned: &Learned, now: DateTime<Utc>) {
        for (class, image) in &learned.held_images {
            let is_used = self.view.observed.images.get(class).and_then(ImageState::id) == Some(image);
            let Some(source) = self.policy.class(class).map(|class| class.image.clone()).filter(|_| is_used) else {
                continue;
            };
            let until = self.evidence.images.held_until(class, image, now);
            let Some((again_at, good)) = until.zip(self.good_image(class, now)) else { continue };
            error!(
                %class, source = %source, image_id = %image, back_to = %good.image, %again_at,
                "the first runners of a new image did not come online: the class goes back to the image before; look at its \
                 steps or its base (`sandrunner image show`), or wait until it is tried again"
            );
            metrics::went_back(class);
            self.serve_with(class, good);
            self.hold_back(class, image, again_at);
        }
    }

    fn hold_back(&mut self, class: &ClassName, image: &ImageId, again_at: DateTime<Utc>) {
        let why = format!("the first runners of the wanted image {image} did not come online");
        let overdue = Overdue { why: why.into(), failures: Setbacks::default(), again_at, held: Some(image.clone()) };
        self.view.observed.overdue.insert(class.clone(), overdue);
    }

    /// A create was refused for something that is not there, or not as it should be: it may be the image. Which answer
    /// Modal gives for which cause is not known, so the image is looked up again, or made again, for this class alone: one
    /// whose own Volume, Secret or machine is refused takes nothing from others with the same image.
    ///
    /// A definition that is refused once more after that is refused for something else. Where an earlier image stands in, it
    /// is taken for gone only when Modal misses something for the second time, with everything else looked up anew.
    pub(super) fn doubt_image(&mut self, class: &ClassName, answer: ErrorClass, now: DateTime<Utc>) {
        let failing = self.evidence.create_failures.get(class);
        let before = failing.map(|failing| failing.failure.class);
        if answer == ErrorClass::Invalid && before == Some(ErrorClass::Invalid) {
            return;
        }
        let is_again = before == Some(answer) && failing.is_some_and(|failing| failing.again_at <= now);
        let observed = &mut self.view.observed;
        if observed.overdue.contains_key(class) && !(answer == ErrorClass::NotFound && is_again) {
            return;
        }
        if let Some(image) = observed.images.get(class).and_then(ImageState::id) {
            self.evidence.images.doubt(class, image);
            observed.overdue.remove(class);
            observed.images.remove(class);
        }
    }

    /// The last image that brought runners of a class online, where it can stand in for what the class asks for.
    fn good_image(&self, class: &ClassName, now: DateTime<Utc>) -> Option<GoodImage> {
        let class = self.policy.class(class)?;
        self.evidence.stand_in(class, &self.view.observed, &self.policy, now).cloned()
    }

    fn serve_with(&mut self, class: &ClassName, good: GoodImage) {
        self.view.observed.images.insert(class.clone(), ImageState::Ready(good.image));
        self.note_runner(class, good.runner);
    }

    /// Notes which runner is in the image of a class; one that we did not put there is found by its registrations.
    fn note_runner(&mut self, class: &ClassName, runner: Option<RunnerVersion>) {
        let runners = &mut self.view.observed.runners_in_use;
        match runner {
            Some(version) => runners.insert(class.clone(), version),
            None => runners.remove(class),
        };
    }

    fn classes_of(&self, source: &ImageSource) -> Vec<ClassName> {
        let classes = self.policy.classes.iter().filter(|class| class.image == *source);
        classes.map(|class| class.name.clone()).collect()
    }

    /// GitHub refuses the runner of an image: where the image follows GitHub's releases, it is made again with the one that
    /// is offered now. An image that comes out the same keeps its breaker.
    pub(super) fn renew_refused_images(&mut self, learned: &Learned) {
        if !self.policy.follows_releases {
            return;
        }
        let gets_runner = |class: &ClassName| self.policy.class(class).is_some_and(|class| class.image.gets_runner());
        let is_refused = |image: &ImageState| image.id().is_some_and(|id| learned.refused_images.contains(id));
        self.view.observed.images.retain(|class, image| !gets_runner(class) || !is_refused(image));
    }

    /// Once GitHub takes the runner of an image, the next refusal is looked into at once again.
    pub(super) fn forget_rebuilds(&mut self, now: DateTime<Utc>) {
        let observed = &self.view.observed;
        let is_refused = |class: &RunnerClass| {
            let image = observed.images.get(&class.name).and_then(ImageState::id);
            image.is_some_and(|image| self.evidence.refused_images.contains_key(image))
                || self
                    .policy
                    .accounts
                    .keys()
                    .any(|account| observed.refused_version(account, &class.name, now).is_some())
        };
        let refused: BTreeSet<&ImageSource> =
            self.policy.classes.iter().filter(|class| is_refused(class)).map(|class| &class.image).collect();
        self.view.observed.rebuilds.retain(|source, _| refused.contains(source));
    }
}
