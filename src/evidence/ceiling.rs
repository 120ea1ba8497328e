//! How many sandboxes Modal has room for (pure), as far as its refusals tell.
//!
//! Modal names neither its limit on running containers nor what others use of it: a create that has no room is
//! answered with `RESOURCE_EXHAUSTED` and no time to wait. A registration was made for it by then, so what cannot be
//! created must not be tried. What lived when it was refused fits; one more is tried after a pause that grows.

use chrono::{DateTime, TimeDelta, Utc};

use super::Evidence;
use crate::act::{Effect, Outcome};
use crate::error::ErrorClass;
use crate::plan::Policy;
use crate::retry::{self, Growth};
use crate::state::Observed;

/// Between tries for one more. A single refusal may be a mishap; room that somebody else needs for long is asked for
/// every five minutes.
const TRY_AGAIN: Growth =
    Growth { first: std::time::Duration::from_secs(5), longest: std::time::Duration::from_secs(300) };
/// What was not confirmed for so long says nothing about now: others may have left.
const FORGET_AFTER: TimeDelta = TimeDelta::minutes(30);

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

    /// Takes how many live: what lives fits, and where that is more than was known, more still is tried.
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
        let live = observed.fleet.sandboxes.values().filter(|it| it.ended.is_none() && it.is_scheduled).count();
        let live = u32::try_from(live).unwrap_or(u32::MAX);
        if is_refused {
            // What was under way together is refused together: that is one refusal.
            let known = self.ceiling.take().filter(|known| now - known.refused_at < FORGET_AFTER);
            let is_news = known.as_ref().is_none_or(|known| now >= known.again_at());
            let refusals = known.map_or(0, |known| known.refusals).saturating_add(u32::from(is_news));
            self.ceiling = Some(Ceiling { sandboxes: live, step: 1, refusals, refused_at: now });
        } else if let Some(known) = &mut self.ceiling {
            known.grow(live, now);
            if now - known.refused_at >= FORGET_AFTER {
                self.ceiling = None;
            }
        }
    }
}

/// Whether Modal refused a create, and not because of its rate: for that it tells how long to wait.
pub(super) fn is_without_room(effect: &Effect, policy: &Policy) -> bool {
    let Effect::CreateFailed { origin, failure, .. } = effect else { return false };
    let has_gpu = policy.class(&origin.class).is_some_and(|class| class.gpus() > 0);
    failure.class == ErrorClass::RateLimited && failure.retry_after.is_none() && !has_gpu
}
