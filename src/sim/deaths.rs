//! How faults keep sandboxes from starting, and end them in each part of their lives.

use chrono::TimeDelta;

use super::draws::seconds;
use super::engine::Due;
use super::fault::{FaultMode, Strike};
use super::jobs::Time;
use super::runners::RunnerKey;
use super::sandboxes::{End, Sandbox, SandboxKey};
use super::world::State;
use crate::modal::api::generic_result::GenericStatus;

/// From its coming online to the death of an idle runner's sandbox, where the fault does not say: before a job
/// is given to it.
const IDLE_SECS: f64 = 0.2;
/// From its taking a job to the death of a working runner's sandbox where the fault does not say.
const WORKING_SECS: f64 = 5.0;
/// From its start to the timeout of a sandbox where the fault does not say.
const TIMEOUT_SECS: f64 = 60.0;
/// From its coming online to the preemption of a sandbox where the fault does not say.
const PREEMPTED_SECS: f64 = 30.0;

impl End {
    /// It did not start.
    fn init_failure() -> Self {
        Self { status: GenericStatus::InitFailure, exit_code: 0, message: "simulated fault: it could not be started" }
    }

    /// Modal's own fault.
    fn internal_failure() -> Self {
        Self { status: GenericStatus::InternalFailure, exit_code: 0, message: "simulated fault: its machine failed" }
    }

    /// It used more memory than it may.
    fn out_of_memory() -> Self {
        Self { status: GenericStatus::KernelOomKill, exit_code: 137, message: "simulated fault: out of memory" }
    }
}

impl State {
    fn boot_fault(&self, key: SandboxKey, modes: &[FaultMode]) -> Option<Strike> {
        self.sandbox(key).boot_fault.filter(|fault| modes.contains(&fault.mode))
    }

    /// Whether a sandbox is never placed on a machine, or never started there.
    pub(super) fn never_starts(&self, key: SandboxKey) -> bool {
        self.boot_fault(key, &[FaultMode::NeverStarted]).is_some()
    }

    /// Whether a sandbox fails before it is started, at the time when it would have been half done.
    pub(super) fn fails_before_start(&mut self, key: SandboxKey, placed_at: Time, starting: TimeDelta) -> bool {
        let fails = self.boot_fault(key, &[FaultMode::InitFailed]).is_some();
        if fails {
            self.schedule(placed_at + starting / 2, Due::SandboxEnds(key, End::init_failure()));
        }
        fails
    }

    /// A sandbox has a time to start, and its runner one to come online.
    pub(super) fn dies_starting(&mut self, key: SandboxKey, started_at: Time, online_at: Time) {
        let Some(fault) = self.boot_fault(key, &[FaultMode::DiesBooting, FaultMode::TimesOut]) else { return };
        let (at, end) = if fault.mode == FaultMode::TimesOut {
            (started_at + seconds(fault.seconds_or(TIMEOUT_SECS)), End::timeout())
        } else {
            (started_at + (online_at - started_at) / 2, End::internal_failure())
        };
        self.schedule(at, Due::SandboxEnds(key, end));
    }

    /// The runner in a sandbox has come online.
    pub(super) fn dies_online(&mut self, key: SandboxKey) {
        let Some(fault) = self.boot_fault(key, &[FaultMode::Preempted, FaultMode::DiesIdle]) else { return };
        if fault.mode == FaultMode::Preempted {
            let at = self.now + seconds(fault.seconds_or(PREEMPTED_SECS));
            return self.schedule(at, Due::SandboxEnds(key, End::terminated()));
        }
        self.postpone(fault.seconds_or(IDLE_SECS), move |state| {
            if state.job_in(key).is_none() {
                state.end_sandbox(key, End::internal_failure());
            }
        });
    }

    /// A runner has taken a job.
    pub(super) fn dies_working(&mut self, runner: RunnerKey) {
        let Some(key) = self.runner(runner).and_then(|runner| runner.sandbox) else { return };
        let Some(fault) = self.boot_fault(key, &[FaultMode::DiesWorking, FaultMode::OutOfMemory]) else { return };
        let end = if fault.mode == FaultMode::OutOfMemory { End::out_of_memory() } else { End::internal_failure() };
        let at = self.now + seconds(fault.seconds_or(WORKING_SECS));
        self.schedule(at, Due::SandboxEnds(key, end));
    }

    /// How the program in a sandbox ends that got no job.
    pub(super) fn unclaimed_end(&self, key: SandboxKey) -> End {
        let is_told_wrongly = self.boot_fault(key, &[FaultMode::ExitsZero]).is_some();
        if is_told_wrongly { End::served() } else { End::unclaimed() }
    }

    /// How many containers run in Modal's workspace, and how many GPUs they have.
    pub(super) fn in_use(&self) -> (u32, u32) {
        let running = self.live.iter().map(|key| self.sandbox(*key)).filter(|sandbox| sandbox.scheduled_at.is_some());
        running.fold((0, 0), |(containers, gpus), sandbox| (containers + 1, gpus + sandbox.gpus))
    }

    /// Whether Modal's workspace has room for one more sandbox, with so many GPUs.
    pub(super) fn has_capacity(&self, gpus: u32) -> bool {
        let (containers, in_use) = self.in_use();
        let is_within = |limit: Option<u32>, count: u32| limit.is_none_or(|limit| count <= limit);
        is_within(self.profile.modal_max_containers, containers + 1)
            && (gpus == 0 || is_within(self.profile.modal_max_gpus, in_use + gpus))
    }

    /// Whether Modal has no machine of the kind that a sandbox asks for, wherever it may be.
    pub(super) fn is_sold_out(&self, sandbox: &Sandbox) -> bool {
        let is_listed = |kind: &str| self.profile.modal_gpus_sold_out.iter().any(|listed| listed == kind);
        let in_region = |region: &String| is_listed(&format!("{}@{region}", sandbox.gpu));
        is_listed(&sandbox.gpu) || (!sandbox.regions.is_empty() && sandbox.regions.iter().all(in_region))
    }
}
