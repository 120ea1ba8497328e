//! Which images bring runners online (pure): a new one is tried beside the last that did, and given up where its first
//! runners do not come.
//!
//! Classes that share an image learn of it one by one: what keeps the runners of one from GitHub, such as its network, is
//! no fault of the image.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::feedback::image_of;
use super::{Evidence, Lesson};
use crate::class::{RunnerClass, SandboxOptions};
use crate::ids::{ClassName, Fingerprint, ImageId, OurName};
use crate::plan::Policy;
use crate::retry::{self, Growth};
use crate::runner::RunnerVersion;
use crate::state::{ImageState, Observed, OurSandbox};

/// So many starts in a row of a new image may fail: one may be bad luck.
const STARTS_MAX: usize = 3;
/// And so many where the image before does not start either: then it may be neither, and the class's breaker counts on.
const STARTS_AGAIN_MAX: usize = 1;
/// How long an image is held back whose first runners did not come online: what kept them may be gone after an hour, and
/// what is gone on trying costs three sandboxes and minutes of waiting each time.
const TRY_AGAIN: Growth =
    Growth { first: std::time::Duration::from_secs(3_600), longest: std::time::Duration::from_secs(86_400) };
/// Of how many classes and images it is remembered.
const KEPT_MAX: usize = 1_000;

/// An image with which a runner of a class came online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodImage {
    /// The image.
    pub image: ImageId,
    /// The runner in it, where that is known.
    pub runner: Option<RunnerVersion>,
    /// Stands for what starts of the class needed of it: it takes the place of no image of which they need anything else.
    #[serde(default)]
    pub needs: Option<Fingerprint>,
}

/// Stands for what a start of a class needs of its image.
fn needs(class: &RunnerClass, policy: &Policy) -> Fingerprint {
    let SandboxOptions { docker, user, .. } = &class.options;
    Fingerprint::of(&format!("{docker:?} {user:?} {}", policy.runner_dir))
}

/// An image whose first runners did not come online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldImage {
    /// How often that happened.
    times: u32,
    /// When it last did.
    at: DateTime<Utc>,
}

impl HeldImage {
    fn until(self) -> DateTime<Utc> {
        self.at + TimeDelta::from_std(retry::delay(TRY_AGAIN, self.times)).unwrap_or(TimeDelta::MAX)
    }
}

/// What is known of the images of classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Images {
    good: BTreeMap<ClassName, GoodImage>,
    /// By what stands for the image, see [`Images::key`].
    held: Vec<(ClassName, ImageId, HeldImage)>,
    /// What images were made of that have another id each time.
    made_of: Vec<(ImageId, Fingerprint)>,
    /// Starts in a row that failed of an image on trial; a restart gives it a new chance.
    #[serde(skip)]
    failed: BTreeMap<(ClassName, ImageId), BTreeSet<OurName>>,
    /// What classes gave up, until a runner of theirs comes online again.
    #[serde(skip)]
    given_up: BTreeMap<ClassName, ImageId>,
    /// Images that Modal may not have any more, until that is known.
    #[serde(skip)]
    doubted: BTreeMap<ClassName, ImageId>,
}

/// What a failed start is put down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The class.
    Class,
    /// Its image.
    Image,
    /// Its image, which is held back from now on.
    Held,
    /// Likewise, and perhaps wrongly: the image before did not start either.
    HeldAgain,
}

impl Images {
    /// The last image with which a runner of a class came online, unless Modal may not have it any more.
    pub fn good(&self, class: &ClassName) -> Option<&GoodImage> {
        self.good.get(class).filter(|good| self.doubted.get(class) != Some(&good.image))
    }

    /// Whether no runner of a class has come online with an image, and one has with another.
    pub fn is_on_trial(&self, class: &ClassName, image: &ImageId) -> bool {
        self.good(class).is_some_and(|good| self.key(&good.image) != self.key(image))
    }

    /// An image was made.
    pub fn made(&mut self, image: &ImageId, made_of: Option<Fingerprint>) {
        if let Some(made_of) = made_of.filter(|_| self.made_of.iter().all(|(known, _)| known != image)) {
            self.made_of.push((image.clone(), made_of));
            self.made_of.drain(..self.made_of.len().saturating_sub(KEPT_MAX));
        }
    }

    /// What stands for an image: its id, or what it was made of where the same has another id each time.
    fn key(&self, image: &ImageId) -> ImageId {
        let made_of = self.made_of.iter().find(|(known, _)| known == image);
        made_of.map_or_else(|| image.clone(), |(_, made_of)| ImageId::new(made_of.to_string()))
    }

    /// Until when an image is held back from a class; none where it is not.
    pub fn held_until(&self, class: &ClassName, image: &ImageId, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let key = self.key(image);
        let held = self.held.iter().find(|(of, id, _)| *of == *class && *id == key);
        held.map(|(_, _, held)| held.until()).filter(|until| *until > now)
    }

    /// Modal may not have an image any more: it serves nobody until the wanted one was looked up.
    pub fn doubt(&mut self, class: &ClassName, image: &ImageId) {
        self.doubted.insert(class.clone(), image.clone());
    }

    /// The wanted image was looked up. Where it is not the one in doubt, that is taken for gone.
    pub fn looked_up(&mut self, class: &ClassName, image: Option<&ImageId>) {
        if let Some(doubted) = self.doubted.remove(class).filter(|doubted| Some(doubted) != image) {
            self.good.retain(|of, good| of != class || good.image != doubted);
        }
    }

    /// A runner of the class came online with an image.
    pub(super) fn came_online(&mut self, class: &ClassName, good: GoodImage) {
        self.came_online_with(class, &good.image);
        self.good.insert(class.clone(), good);
    }

    fn came_online_with(&mut self, class: &ClassName, image: &ImageId) {
        let key = self.key(image);
        self.failed.retain(|(of, id), _| *of != *class || *id != key);
        self.held.retain(|(of, id, _)| *of != *class || *id != key);
        self.given_up.remove(class);
    }

    /// A start of the class failed with a new image, while there is another to go back to. Each sandbox counts once.
    fn start_failed(&mut self, class: &ClassName, image: &ImageId, name: &OurName, now: DateTime<Utc>) -> Blame {
        if self.held_until(class, image, now).is_some() {
            return Blame::Image;
        }
        let most = if self.given_up.contains_key(class) { STARTS_AGAIN_MAX } else { STARTS_MAX };
        if !self.failed_often(class, image, name, most) {
            return Blame::Class;
        }
        let key = self.key(image);
        let known = self.held.iter().position(|(of, id, _)| *of == *class && *id == key);
        let times = known.map_or(0, |index| self.held.remove(index).2.times).saturating_add(1);
        self.held.push((class.clone(), key.clone(), HeldImage { times, at: now }));
        self.held.drain(..self.held.len().saturating_sub(KEPT_MAX));
        match self.given_up.insert(class.clone(), key) {
            None => Blame::Held,
            Some(_) => Blame::HeldAgain,
        }
    }

    /// A start failed with the image that the class went back to. Where none of its first ones comes online either, what
    /// keeps them is not the image that was given up: that one is no longer held back.
    fn start_failed_after_all(&mut self, class: &ClassName, image: &ImageId, name: &OurName) {
        let Some(given_up) = self.given_up.get(class).cloned() else { return };
        if self.failed_often(class, image, name, STARTS_MAX) {
            let held = self.held.iter_mut().find(|(of, id, _)| *of == *class && *id == given_up);
            if let Some((_, _, held)) = held {
                *held = HeldImage { times: held.times.saturating_sub(1), at: DateTime::UNIX_EPOCH };
            }
        }
    }

    /// Counts a start that failed; whether there are so many in a row.
    fn failed_often(&mut self, class: &ClassName, image: &ImageId, name: &OurName, most: usize) -> bool {
        let key = (class.clone(), self.key(image));
        let failed = self.failed.entry(key.clone()).or_default();
        failed.insert(name.clone());
        let is_often = failed.len() >= most;
        if is_often {
            self.failed.remove(&key);
        }
        is_often
    }

    /// What of it is believed after a restart, of which no time is later than `now`.
    pub(super) fn believed(self, now: DateTime<Utc>) -> Self {
        let Self { mut good, mut held, mut made_of, failed: _, given_up: _, doubted: _ } = self;
        while good.len() > KEPT_MAX {
            good.pop_last();
        }
        held.truncate(KEPT_MAX);
        made_of.truncate(KEPT_MAX);
        for (_, _, held) in &mut held {
            held.at = held.at.min(now);
        }
        Self { good, held, made_of, ..Self::default() }
    }

    /// What kept the runners of images from coming online may be mended: nothing is held back any more.
    pub(super) fn with_nothing_held(self) -> Self {
        Self { held: Vec::new(), ..self }
    }
}

impl Evidence {
    /// The last image that brought runners of a class online, where it can stand in for the one that is wanted: a start
    /// needs the same of it, and GitHub takes the runner in it.
    pub fn stand_in(
        &self,
        class: &RunnerClass,
        observed: &Observed,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> Option<&GoodImage> {
        let good = self.images.good(&class.name).filter(|good| good.needs == Some(needs(class, policy)))?;
        let is_refused = |version| {
            let mut accounts = policy.accounts.iter();
            accounts.any(|(name, account)| {
                account.is_below_floor(version) || observed.refused_since(name, version, now).is_some()
            })
        };
        let is_taken = !self.refused_images.contains_key(&good.image) && !good.runner.is_some_and(is_refused);
        is_taken.then_some(good)
    }

    /// Counts a start that failed, and says what it is put down to. Where its image is held back because of it, the class
    /// may start again with the one before.
    pub(super) fn blame(&mut self, name: &OurName, sandbox: &OurSandbox, lesson: &mut Lesson<'_>) -> Blame {
        let Lesson { observed, policy, now, .. } = *lesson;
        let class = &sandbox.origin.class;
        let Some(image) = image_of(sandbox, observed) else { return Blame::Class };
        if self.images.good(class).is_some() && !self.images.is_on_trial(class, image) {
            self.images.start_failed_after_all(class, image, name);
            return Blame::Class;
        }
        if policy.class(class).is_none_or(|class| self.stand_in(class, observed, policy, now).is_none()) {
            return Blame::Class;
        }
        let blame = self.images.start_failed(class, image, name, now);
        if matches!(blame, Blame::Held | Blame::HeldAgain) {
            lesson.learned.held_images.push((class.clone(), image.clone()));
        }
        if blame == Blame::Held {
            self.failed_starts.remove(class);
        }
        blame
    }

    /// A runner came online: its image is one that brings runners online, where it is the one in use. One of before says
    /// nothing new, unless it was given up: then it is asked for again.
    pub(super) fn learn_image(&mut self, class: &ClassName, image: &ImageId, lesson: &Lesson<'_>) {
        let Lesson { observed, policy, .. } = *lesson;
        if observed.images.get(class).and_then(ImageState::id) == Some(image) {
            let runner = observed.runners_in_use.get(class).copied();
            let needs = policy.class(class).map(|class| needs(class, policy));
            self.images.came_online(class, GoodImage { image: image.clone(), runner, needs });
        } else {
            self.images.came_online_with(class, image);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
    }

    fn good(image: &str) -> GoodImage {
        GoodImage { image: ImageId::new(image), runner: None, needs: None }
    }

    fn name(job: u32) -> OurName {
        format!("sr-main-gh-{}-1", job + 1).parse().unwrap()
    }

    #[test]
    fn an_image_is_held_back_for_longer_each_time_until_a_runner_of_it_comes_online() {
        let (class, old, new) = (ClassName::new("own"), ImageId::new("im-1"), ImageId::new("im-2"));
        let mut images = Images::default();
        images.came_online(&class, good("im-1"));
        let mut now = 0;
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            let blamed = [0, 1, 1, 2, 3].map(|job| images.start_failed(&class, &new, &name(job), at(now)));
            let expected = [Blame::Class, Blame::Class, Blame::Class, Blame::Held, Blame::Image];
            assert_eq!(blamed, expected, "each sandbox counts once");
            assert_eq!(images.held_until(&class, &new, at(now)), Some(at(now + hours * 3_600)));
            assert_eq!(images.held_until(&ClassName::new("other"), &new, at(now)), None);
            now += hours * 3_600;
            assert_eq!(images.held_until(&class, &new, at(now)), None, "its time has come");
            images.came_online(&class, good("im-1"));
        }
        images.came_online(&class, good("im-2"));
        assert!(images.held.is_empty() && images.is_on_trial(&class, &old));
    }

    #[test]
    fn a_start_that_succeeds_begins_the_count_anew() {
        let (class, new) = (ClassName::new("own"), ImageId::new("im-2"));
        let mut images = Images::default();
        images.came_online(&class, good("im-1"));
        let blamed = |images: &mut Images, job| images.start_failed(&class, &new, &name(job), at(0));
        assert_eq!([0, 1].map(|job| blamed(&mut images, job)), [Blame::Class; 2]);
        images.came_online(&class, good("im-2"));
        images.came_online(&class, good("im-1"));
        assert_eq!(blamed(&mut images, 2), Blame::Class);
    }

    #[test]
    fn where_the_image_before_does_not_start_either_nothing_is_held_against_the_new_one() {
        let (class, old, new) = (ClassName::new("own"), ImageId::new("im-1"), ImageId::new("im-2"));
        let mut images = Images::default();
        images.came_online(&class, good("im-1"));
        assert_eq!([0, 1, 2].map(|job| images.start_failed(&class, &new, &name(job), at(0)))[2], Blame::Held);
        let held = |images: &Images| images.held_until(&class, &new, at(0)).is_some();
        for (job, expected) in [(3, true), (4, true), (4, true), (5, false)] {
            images.start_failed_after_all(&class, &old, &name(job));
            assert_eq!(held(&images), expected, "job {job}");
        }
        // They take turns until a runner comes online.
        assert_eq!(images.start_failed(&class, &new, &name(6), at(0)), Blame::HeldAgain);
        assert_eq!(images.held_until(&class, &new, at(0)), Some(at(3_600)), "the first time does not count");
        images.came_online(&class, good("im-1"));
        (7..20).for_each(|job| images.start_failed_after_all(&class, &old, &name(job)));
        assert!(held(&images), "it did come online");
    }

    #[test]
    fn what_has_another_id_each_time_it_is_made_is_held_back_all_the_same() {
        let (class, made_of) = (ClassName::new("own"), ["old", "new"].map(Fingerprint::of));
        let mut images = Images::default();
        for (image, made_of) in [("im-1", 0), ("im-2", 0), ("im-3", 1), ("im-4", 1)].map(|(id, of)| (id, made_of[of])) {
            images.made(&ImageId::new(image), Some(made_of));
        }
        images.came_online(&class, good("im-1"));
        assert!(!images.is_on_trial(&class, &ImageId::new("im-2")), "it is the same");
        let [new, newer] = ["im-3", "im-4"].map(ImageId::new);
        assert_eq!([0, 1, 2].map(|job| images.start_failed(&class, &new, &name(job), at(0)))[2], Blame::Held);
        let mut after = images.believed(at(0));
        assert_eq!(after.held_until(&class, &newer, at(0)), Some(at(3_600)));
        after.came_online(&class, good("im-4"));
        assert_eq!(after.held_until(&class, &new, at(0)), None);
    }

    #[test]
    fn an_image_in_doubt_serves_nobody_until_the_wanted_one_was_looked_up() {
        let (class, image) = (ClassName::new("own"), ImageId::new("im-1"));
        for (found, is_kept) in [(Some("im-1"), true), (Some("im-2"), false), (None, false)] {
            let mut images = Images::default();
            images.came_online(&class, good("im-1"));
            images.looked_up(&class, Some(&ImageId::new("im-2")));
            assert!(images.good(&class).is_some(), "nothing was in doubt");
            images.doubt(&class, &image);
            assert_eq!(images.good(&class), None);
            images.looked_up(&class, found.map(ImageId::new).as_ref());
            assert_eq!(images.good(&class).is_some(), is_kept, "{found:?}");
        }
    }
}
