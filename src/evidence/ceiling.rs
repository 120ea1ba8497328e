//! How many sandboxes Modal has room for (pure), as far as its refusals tell.
//!
//! Modal names neither its limit on running containers nor what others use of it: a create that has no room is
//! answered with `RESOURCE_EXHAUSTED` and no time to wait. A registration was made for it by then, so what cannot be
//! created must not be tried. What lived when it was refused fits; one more is tried after a pause that grows.
//!
//! What lived is not known either: that one has ended shows seconds later, and another may have come in its place by then.
//! So where sandboxes end there is more room than was known only if one list shows more of them.

use chrono::{DateTime, TimeDelta, Utc};

use super::Evidence;
use crate::act::{Effect, Outcome};
use crate::error::ErrorClass;
use crate::plan::Policy;
use crate::retry::{self, Growth};
use crate::state::{Observed, OurSandbox};

/// Between tries for one more. A single refusal may be a mishap; room that somebody else needs for long is asked for
/// every five minutes.
const TRY_AGAIN: Growth =
    Growth { first: std::time::Duration::from_secs(5), longest: std::time::Duration::from_secs(300) };
/// What was not confirmed for so long says nothing about now: others may have left.
const FORGET_AFTER: TimeDelta = TimeDelta::minutes(30);

/// For so long after an end that was seen there may be others that were not: lists lag, and are read every few seconds.
const ENDING: TimeDelta = TimeDelta::seconds(60);

/// The room that Modal was seen to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// So many sandboxes of ours lived at once.
    sandboxes: u32,
    /// How many more are tried together, once it is time.
    step: u32,
    /// Refusals since more than that last fit.
    refusals: u32,
    refused_at: DateTime<Utc>,
}

impl Ceiling {
    /// When more than were seen to fit may be tried.
    pub fn again_at(&self) -> DateTime<Utc> {
        let pause = TimeDelta::from_std(retry::delay(TRY_AGAIN, self.refusals)).unwrap_or(TimeDelta::MAX);
        self.refused_at + pause
    }

    /// How many sandboxes and creates there may be at the time.
    pub fn admits(&self, now: DateTime<Utc>) -> u32 {
        if now < self.again_at() { self.sandboxes } else { self.sandboxes.saturating_add(self.step) }
    }

    /// Takes how many live for certain: what lives at the same time fits, and where that is more than was known, more still
    /// is tried.
    fn grow(&mut self, live: u32, now: DateTime<Utc>) {
        if live <= self.sandboxes {
            return;
        }
        if now >= self.again_at() {
            self.step = self.step.saturating_mul(2);
            self.refusals = 1;
        }
        self.sandboxes = live;
    }
}

impl Evidence {
    /// The room that Modal has for sandboxes without a GPU; none where nothing was refused lately.
    ///
    /// One with a GPU is never refused for it: Modal has it wait for a machine.
    pub fn ceiling(&self) -> Option<&Ceiling> {
        self.ceiling.as_ref()
    }

    /// Takes which creates were refused, and what lives.
    pub(super) fn learn_ceiling(
        &mut self,
        observed: &Observed,
        policy: &Policy,
        outcomes: &[Outcome],
        now: DateTime<Utc>,
    ) {
        let is_refused = outcomes.iter().any(|outcome| is_without_room(&outcome.effect, policy));
        if !is_refused && self.ceiling.is_none() {
            return;
        }
        if is_refused {
            // What was under way together is refused together: that is one refusal.
            let known = self.ceiling.take().filter(|known| now - known.refused_at < FORGET_AFTER);
            let is_news = known.as_ref().is_none_or(|known| now >= known.again_at());
            let refusals = known.as_ref().map_or(0, |known| known.refusals).saturating_add(u32::from(is_news));
            let live = count(observed, |_| true);
            let sandboxes = known.map_or(live, |known| known.sandboxes.min(live));
            self.ceiling = Some(Ceiling { sandboxes, step: 1, refusals, refused_at: now });
        } else if let Some(known) = &mut self.ceiling {
            let read_at = observed.fleet.read.times().map(|read| read.began);
            let is_ending = has_ended_lately(observed, now);
            known.grow(count(observed, |sandbox| !is_ending || Some(sandbox.seen_at) == read_at), now);
            if now - known.refused_at >= FORGET_AFTER {
                self.ceiling = None;
            }
        }
    }
}

/// Whether sandboxes end these days, so that some may have that are not known to.
fn has_ended_lately(observed: &Observed, now: DateTime<Utc>) -> bool {
    let ends = observed.fleet.sandboxes.values().filter_map(|sandbox| sandbox.ended.as_ref());
    ends.into_iter().any(|ended| now - ended.at < ENDING)
}

/// How many sandboxes have a machine, as far as is known, of those that are meant.
fn count(observed: &Observed, is_meant: impl Fn(&OurSandbox) -> bool) -> u32 {
    let has_machine = |sandbox: &&OurSandbox| sandbox.ended.is_none() && sandbox.is_scheduled && is_meant(sandbox);
    u32::try_from(observed.fleet.sandboxes.values().filter(has_machine).count()).unwrap_or(u32::MAX)
}

/// Whether Modal refused a create, and not because of its rate: for that it tells how long to wait.
pub(super) fn is_without_room(effect: &Effect, policy: &Policy) -> bool {
    let Effect::CreateFailed { origin, failure, .. } = effect else { return false };
    let has_gpu = policy.class(&origin.class).is_some_and(|class| class.gpu.is_some());
    failure.class == ErrorClass::RateLimited && failure.retry_after.is_none() && !has_gpu
}
