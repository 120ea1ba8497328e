//! What a pass tells in the log of sandboxes that failed, machines that are not to be had, and jobs that last long.

use chrono::{DateTime, Utc};

use super::Controller;
use crate::evidence::{Evidence, Learned, is_infrastructure};
use crate::explain::RecentEnd;
use crate::plan::{Policy, machine_choice};
use crate::runner::Exit;
use crate::state::Observed;
use crate::state_dir::{DeadSandbox, masked};

/// From this part of its longest time on a job is told of.
const LONG_JOB: f64 = 0.9;

impl Controller {
    /// Tells of sandboxes that ended without serving, or by a failure, and has what they printed kept.
    pub(super) fn tell_ends(&mut self, learned: &Learned, now: DateTime<Utc>) {
        for (name, class, reason) in learned.ends.iter().filter(|(_, _, reason)| *reason != Exit::Served.as_str()) {
            let Some(sandbox) = self.view.observed.fleet.sandboxes.get(name) else { continue };
            let message = sandbox.ended.as_ref().and_then(|ended| ended.result.as_ref());
            let message = message.map(|result| result.message.clone()).unwrap_or_default();
            let dead = DeadSandbox {
                name: name.clone(),
                sandbox: sandbox.id.clone(),
                task: sandbox.task.clone(),
                origin: sandbox.origin.clone(),
                created_at: sandbox.created_at,
                ended_at: now,
                reason,
                message: message.clone(),
            };
            self.ends.push_back(RecentEnd {
                at: now,
                runner: name.clone(),
                class: class.clone(),
                reason: (*reason).to_owned(),
                message: masked(&message),
                printed: Vec::new(),
            });
            let path = self.logs.as_mut().map(|logs| logs.take(dead));
            let output = path.as_ref().map(|path| tracing::field::display(path.display()));
            let (repo, job_id, run_id) = (&sandbox.origin.scope.repo, name.job.0, sandbox.origin.run.0);
            // That nobody needs a runner any more is no failure, and that it was asked to end none of its own.
            let is_usual = [Exit::Unclaimed, Exit::Stopped].iter().any(|exit| exit.as_str() == *reason);
            if is_infrastructure(reason) {
                tracing::warn!(
                    %repo, job_id, run_id, runner_name = %name, sandbox_id = %sandbox.id, %class, reason, message, output,
                    "Modal's machine failed or was taken away: its job, if it had one, fails at GitHub and has to be re-run"
                );
            } else if is_usual {
                tracing::info!(
                    %repo, job_id, run_id, runner_name = %name, sandbox_id = %sandbox.id, %class, reason, output,
                    "a sandbox ended without a job"
                );
            } else {
                tracing::warn!(
                    %repo, job_id, run_id, runner_name = %name, sandbox_id = %sandbox.id, %class, reason, message, output,
                    "a sandbox failed"
                );
            }
        }
    }

    /// GitHub does not tell for how long a job may run, so a job that outlasts its class shows only when it nearly does.
    pub(super) fn tell_long_jobs(&mut self, now: DateTime<Utc>) {
        let Observed { fleet, skew, .. } = &self.view.observed;
        for (name, sandbox) in fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()) {
            let clocks = self.policy.class(&sandbox.origin.class).map(|class| class.clocks);
            let claim = self.evidence.names.get(name).and_then(|known| known.claim);
            let (Some(clocks), Some(claim)) = (clocks, claim) else { continue };
            let lives = (now - sandbox.started(*skew)).to_std().unwrap_or_default();
            if lives >= clocks.timeout.mul_f64(LONG_JOB) && self.long_jobs.insert(name.clone()) {
                tracing::warn!(
                    repo = %sandbox.origin.scope.repo, job_id = claim.job.0, runner_name = %name,
                    class = %sandbox.origin.class, running_seconds = lives.as_secs(),
                    timeout_seconds = clocks.timeout.as_secs(),
                    ends_after_seconds = clocks.sandbox_timeout().as_secs(),
                    "a job nears the longest time of its class: Modal will end its sandbox; raise the class's `timeout`, \
                     or lower `timeout-minutes` in the workflow"
                );
            }
        }
        self.long_jobs.retain(|name| fleet.sandboxes.get(name).is_some_and(|sandbox| sandbox.ended.is_none()));
    }
}

/// Tells of machines that Modal is short of, and what is tried next.
pub(super) fn tell_shortages(learned: &Learned, evidence: &Evidence, policy: &Policy, now: DateTime<Utc>) {
    for (class, machine) in &learned.shortages {
        let Some(class) = policy.class(class) else { continue };
        let next = class.machines().swap_remove(machine_choice(class, evidence, now));
        let again_at =
            evidence.shortage(&class.name, machine).map(|shortage| tracing::field::display(shortage.again_at()));
        tracing::warn!(
            class = %class.name, %machine, %next, again_at, schedule_timeout_seconds = class.clocks.schedule_timeout.as_secs(),
            "Modal placed no sandbox on such a machine in time"
        );
    }
}
