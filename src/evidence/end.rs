//! Why sandboxes ended, and what is learned of it (pure).

use chrono::TimeDelta;

use super::shortage::has_waited_too_long;
use super::{Evidence, GivenUp, Lesson, NameEvidence, Phase};
use crate::class::{Machine, RunnerClass};
use crate::ids::OurName;
use crate::runner::Exit;
use crate::state::{Ended, Origin, OurSandbox, SandboxEnd, SandboxResult};

/// The reason of a sandbox that Modal could not start.
pub const INIT_FAILURE: &str = "init_failure";
/// The reason of a sandbox whose machine failed.
pub const INTERNAL_FAILURE: &str = "internal_failure";
/// The reason of a sandbox whose machine Modal took away.
pub const PREEMPTED: &str = "preempted";
/// The reason of a sandbox that Modal did not place on a machine in time.
pub const NO_CAPACITY: &str = "no_capacity";

/// Every reason for which a sandbox can end, for metrics that show zero.
pub const END_REASONS: [&str; 17] = [
    "served",
    "unclaimed",
    "version_refused",
    "registration_failed",
    "policy_refused",
    "crashed",
    "stopped",
    "terminated",
    "timeout",
    INIT_FAILURE,
    "idle_timeout",
    "out_of_memory",
    "other",
    NO_CAPACITY,
    PREEMPTED,
    INTERNAL_FAILURE,
    "gone",
];

impl Evidence {
    /// Takes the end of a sandbox, the first time that it is seen.
    pub(super) fn learn_end(&mut self, name: &OurName, sandbox: &OurSandbox, ended: &Ended, lesson: &mut Lesson<'_>) {
        let now = lesson.now;
        let evidence = self.name(name, now).clone();
        let has_served = evidence.claim.is_some() || evidence.busy_at.is_some() || evidence.is_kept(now);
        let reason = reason_of(sandbox, ended, &evidence, lesson);
        lesson.learned.ends.push((name.clone(), sandbox.origin.class.clone(), reason));
        if has_served || reason == Exit::Served.as_str() {
            let key = (sandbox.origin.scope.clone(), sandbox.origin.class.clone());
            *self.served.entry(key).or_default() += 1;
        } else if reason == Exit::Unclaimed.as_str() {
            self.job(name.job, now).waiting.unclaimed += 1;
            if evidence.start_learned_at.is_none() {
                self.learn_start(name, sandbox, lesson);
            }
        } else if reason == NO_CAPACITY && (sandbox.was_placed() || self.is_next_elsewhere(&sandbox.origin, lesson)) {
            // That it was placed too late tells nothing of it; and the next one has a machine of another kind.
        } else {
            let phase = if evidence.online_at.is_none() { Phase::Start } else { Phase::Online };
            match evidence.overdue_at {
                // It was counted then.
                Some(_) => {}
                None if is_infrastructure(reason) => self.lost_machine(name.job, now),
                None => self.fruitless(name.job, phase, now),
            }
            self.learn_fruitless_end(name, sandbox, &evidence, lesson);
        }
    }

    /// Whether Modal is short of this machine, and not of another one of the class.
    fn is_next_elsewhere(&self, origin: &Origin, lesson: &Lesson<'_>) -> bool {
        let Origin { class, machine, .. } = origin;
        let is_short =
            |machine: &Machine| self.shortage(class, machine).is_some_and(|known| known.again_at() > lesson.now);
        let mut others = lesson.policy.class(class).map(RunnerClass::machines).unwrap_or_default().into_iter();
        self.shortage(class, machine).is_some() && others.any(|other| other != *machine && !is_short(&other))
    }
}

/// Why a sandbox ended, with what is known beside Modal's word: whether we ended it, and whether Modal may take a machine
/// away. It does so only with those that have a GPU (Modal's guide on preemption); how it says so is not known.
///
/// No controller ends one that waits for a machine before it has waited too long: one that ended sooner was placed, and
/// taken away again, between two lists; or a person ended it.
fn reason_of(sandbox: &OurSandbox, ended: &Ended, evidence: &NameEvidence, lesson: &Lesson<'_>) -> &'static str {
    let reason = end_reason(ended.result.as_ref());
    let is_terminated = ended.result.as_ref().is_some_and(|result| result.status == SandboxEnd::Terminated);
    let is_ours = evidence.is_given_up();
    let has_run = evidence.online_at.is_some() || evidence.busy_at.is_some() || evidence.claim.is_some();
    let was_waiting = is_terminated && !has_run && !sandbox.was_placed();
    // Whatever it ended with: its runner could not register any more.
    let was_late = evidence.given_up == Some(GivenUp::Unplaced) && !has_run && reason != Exit::Served.as_str();
    if was_late || was_waiting && (is_ours || has_waited_too_long(sandbox, lesson)) {
        return NO_CAPACITY;
    }
    let class = lesson.policy.class(&sandbox.origin.class);
    let limit = class.and_then(|class| TimeDelta::from_std(class.clocks.start_timeout).ok());
    // Any controller ends what has not come online by then.
    let may_start = limit.is_some_and(|limit| ended.at - sandbox.started(lesson.observed.skew) <= limit);
    let may_be_taken = has_run || was_waiting || may_start;
    let has_gpu = sandbox.origin.machine.gpu.is_some();
    if is_terminated && !is_ours && has_gpu && may_be_taken { PREEMPTED } else { reason }
}

/// Whether Modal's machine is to blame for an end, and neither the sandbox nor its job.
pub fn is_infrastructure(reason: &str) -> bool {
    [PREEMPTED, INTERNAL_FAILURE].contains(&reason)
}

/// Why a sandbox ended, as a metric label.
pub fn end_reason(result: Option<&SandboxResult>) -> &'static str {
    let Some(result) = result else { return "gone" };
    match result.status {
        SandboxEnd::Success | SandboxEnd::Failure => Exit::from_code(result.exit_code).as_str(),
        SandboxEnd::Terminated => "terminated",
        SandboxEnd::Timeout => "timeout",
        SandboxEnd::InitFailure => INIT_FAILURE,
        SandboxEnd::InternalFailure => INTERNAL_FAILURE,
        SandboxEnd::IdleTimeout => "idle_timeout",
        SandboxEnd::OutOfMemory => "out_of_memory",
        SandboxEnd::Other(_) => "other",
    }
}
