//! Which machines Modal is short of (pure): it places no sandbox on one within the time that its class allows, or refuses it.
//!
//! Modal does not say what it has. A sandbox with a GPU waits for a machine, and how long it waited is all that is known;
//! where the workspace may not use more GPUs, it waits for that.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Evidence, Lesson};
use crate::class::{Machine, RunnerClass};
use crate::error::{CallFailure, ErrorClass};
use crate::ids::ClassName;
use crate::plan::Policy;
use crate::retry::{self, Growth};
use crate::state::{Origin, OurSandbox};

/// Before a machine is tried again that Modal was short of: a job waits for as long as the class allows, if it still is.
const TRY_AGAIN: Growth =
    Growth { first: std::time::Duration::from_secs(600), longest: std::time::Duration::from_secs(3600) };
/// For how long after it could have been tried again a shortage says something: longer than any `schedule_timeout`.
const FORGET_AFTER: TimeDelta = TimeDelta::hours(3);

/// A machine that Modal was seen to be short of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// How often in a row.
    pub failures: u32,
    /// When a list last showed a sandbox that had waited too long, or one was refused.
    pub seen_at: DateTime<Utc>,
    /// Whether one was refused.
    pub is_refusal: bool,
}

impl Shortage {
    /// When one sandbox may try it again.
    pub fn again_at(&self) -> DateTime<Utc> {
        let pause = TimeDelta::from_std(retry::delay(TRY_AGAIN, self.failures)).unwrap_or(TimeDelta::MAX);
        self.seen_at + pause
    }
}

/// Whether a sandbox without a machine was still seen after the time that its class allows for that.
pub(super) fn has_waited_too_long(sandbox: &OurSandbox, lesson: &Lesson<'_>) -> bool {
    let limit = lesson.policy.class(&sandbox.origin.class).map(|class| class.clocks.schedule_timeout);
    let limit = limit.and_then(|limit| TimeDelta::from_std(limit).ok());
    limit.is_some_and(|limit| sandbox.seen_at - sandbox.created(lesson.observed.skew) > limit)
}

impl Evidence {
    /// What is known of a machine that Modal was short of for a class; none where it was not.
    pub fn shortage(&self, class: &ClassName, machine: &Machine) -> Option<&Shortage> {
        if self.shortages.is_empty() { None } else { self.shortages.get(&(class.clone(), machine.clone())) }
    }

    /// Whether Modal was short of any machine.
    pub fn has_shortages(&self) -> bool {
        !self.shortages.is_empty()
    }

    /// Takes how long a living sandbox has waited for its machine.
    pub(super) fn learn_placement(&mut self, sandbox: &OurSandbox, lesson: &mut Lesson<'_>) {
        let origin = &sandbox.origin;
        if origin.machine.gpu.is_none() || sandbox.ended.is_some() {
            return;
        }
        let known = self.shortage(&origin.class, &origin.machine);
        if sandbox.is_scheduled {
            let is_news = |known: &Shortage| sandbox.scheduled_at.is_some_and(|at| at > known.seen_at);
            if known.is_some_and(is_news) {
                self.shortages.remove(&(origin.class.clone(), origin.machine.clone()));
            }
            return;
        }
        let created = sandbox.created(lesson.observed.skew);
        let is_late = sandbox.missing_since.is_none() && has_waited_too_long(sandbox, lesson);
        // What waited together was short of the same.
        let is_quota = || lesson.observed.quota.gpus_without_room(origin.machine.gpus(), lesson.now).is_some();
        if !is_late || is_quota() || known.is_some_and(|known| created <= known.seen_at) {
            return;
        }
        self.note_shortage(origin, Shortage { failures: 1, seen_at: sandbox.seen_at, is_refusal: false });
        lesson.learned.shortages.push((origin.class.clone(), origin.machine.clone()));
    }

    /// Takes that Modal refused a machine: the next one of the class is asked for, and this one again after a pause.
    pub(super) fn learn_refused_machine(&mut self, origin: &Origin, now: DateTime<Utc>) {
        // What was under way together is refused together.
        if self.shortage(&origin.class, &origin.machine).is_none_or(|known| known.again_at() <= now) {
            self.note_shortage(origin, Shortage { failures: 1, seen_at: now, is_refusal: true });
        }
    }

    /// Whether a refused create tells only of its machine: one that its class falls back to, which this workspace may not
    /// have or Modal does not know. Whatever else is wrong with the class, its first choice tells.
    ///
    /// An image that is gone or not built is refused likewise, and how Modal refuses a machine is not known: what it finds
    /// wrong or missing is the machine only where it says so once more, when the image has been looked up again.
    pub fn is_refused_machine(
        &self,
        origin: &Origin,
        failure: &CallFailure,
        policy: &Policy,
        now: DateTime<Utc>,
    ) -> bool {
        let before = self.create_failures.get(&origin.class).filter(|before| before.again_at <= now);
        let is_refused = match failure.class {
            ErrorClass::Forbidden => true,
            ErrorClass::Invalid | ErrorClass::NotFound => {
                before.is_some_and(|before| before.failure.class == failure.class)
            }
            ErrorClass::Unauthorized
            | ErrorClass::Policy
            | ErrorClass::Conflict
            | ErrorClass::RateLimited
            | ErrorClass::Unavailable
            | ErrorClass::Unreadable
            | ErrorClass::Unsent => false,
        };
        let machines = policy.class(&origin.class).filter(|_| is_refused).map(RunnerClass::machines);
        machines.is_some_and(|machines| machines.iter().skip(1).any(|machine| *machine == origin.machine))
    }

    /// Takes one more shortage of a machine.
    fn note_shortage(&mut self, origin: &Origin, mut shortage: Shortage) {
        let known = self.shortage(&origin.class, &origin.machine);
        shortage.failures = shortage.failures.saturating_add(known.map_or(0, |known| known.failures));
        self.shortages.insert((origin.class.clone(), origin.machine.clone()), shortage);
    }

    /// Drops what says nothing any more.
    pub(super) fn forget_shortages(&mut self, now: DateTime<Utc>) {
        self.shortages.retain(|_, known| now - known.again_at() < FORGET_AFTER);
    }
}
