//! What is going to happen, in the order of time.
//!
//! Nothing here runs in the background: whoever asks the World something first lets everything happen
//! that was due until then.

use std::fmt;

use super::draws::seconds;
use super::history::Cause;
use super::jobs::Time;
use super::runners::RunnerKey;
use super::sandboxes::{End, SandboxKey};
use super::scenario::Conclusion;
use super::world::State;

/// Something that happens by itself at its time, if it still can.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Due {
    JobAppears(u64),
    JobQueues(u64),
    JobMatches(u64),
    JobStartsHosted(u64),
    JobCancelled(u64),
    JobEnds(u64),
    JobLost(u64),
    /// A runner takes the job that was promised to it.
    JobTaken(u64, RunnerKey),
    JobTakenElsewhere(u64),
    HoldEnds(u64),
    RunnerOffered(RunnerKey),
    RunnerIdles(RunnerKey),
    RegistrationExpires(RunnerKey),
    SandboxScheduled(SandboxKey),
    SandboxBoots(SandboxKey),
    SandboxIdles(SandboxKey),
    SandboxEnds(SandboxKey, End),
    /// A call that a fault has put off is carried out.
    Postponed(u64),
    /// Knobs begin to differ, and are as before again.
    KnobsChange(u64),
    KnobsReturn(u64),
}

/// A call to be carried out later.
pub(super) struct Postponed(Box<dyn FnOnce(&mut State) + Send>);

impl fmt::Debug for Postponed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postponed")
    }
}

impl State {
    /// Plans something; what is due at the same time happens in the order in which it was planned.
    pub(super) fn schedule(&mut self, at: Time, due: Due) {
        self.planned += 1;
        self.due.insert((at.max(self.now), self.planned), due);
    }

    /// Carries out a call after `secs`, with nobody left who waits for its answer.
    pub(super) fn postpone(&mut self, secs: f64, call: impl FnOnce(&mut Self) + Send + 'static) {
        let id = self.planned;
        self.postponed.insert(id, Postponed(Box::new(call)));
        self.schedule(self.now + seconds(secs), Due::Postponed(id));
    }

    /// Lets everything happen that is due until `now`.
    pub(super) fn advance(&mut self, now: Time) {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), due) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(due);
        }
        self.now = self.now.max(now);
    }

    /// When the next thing happens.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::JobAppears(job) => self.job_appears(job),
            Due::JobQueues(job) => self.job_queues(job),
            Due::JobMatches(job) => self.match_job(job),
            Due::JobStartsHosted(job) => self.job_starts_hosted(job),
            Due::JobCancelled(job) => self.job_cancelled(job),
            Due::JobEnds(job) => self.job_ends(job),
            Due::JobLost(job) => self.finish_job(job, Conclusion::Failure, Cause::RunnerLost),
            Due::JobTaken(job, runner) => self.take_promised(job, runner),
            Due::JobTakenElsewhere(job) => self.take_by_foreign(job),
            Due::HoldEnds(job) => self.end_hold(job),
            Due::RunnerOffered(runner) => self.offer_runner(runner),
            Due::RunnerIdles(runner) => self.remove_idle_runner(runner),
            Due::RegistrationExpires(runner) => self.expire_registration(runner),
            Due::SandboxScheduled(sandbox) => self.sandbox_scheduled(sandbox),
            Due::SandboxBoots(sandbox) => self.sandbox_boots(sandbox),
            Due::SandboxIdles(sandbox) => self.sandbox_idles(sandbox),
            Due::SandboxEnds(sandbox, end) => self.end_sandbox(sandbox, end),
            Due::KnobsChange(id) => self.change_knobs(id),
            Due::KnobsReturn(id) => self.return_knobs(id),
            Due::Postponed(id) => {
                if let Some(Postponed(call)) = self.postponed.remove(&id) {
                    call(self);
                }
            }
        }
    }
}
