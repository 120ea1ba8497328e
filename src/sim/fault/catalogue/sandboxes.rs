//! What goes wrong in sandboxes.

use super::{NamedFault, at, named};
use crate::sim::fault::FaultMode as Mode;
use crate::sim::history::Operation as Op;

pub(super) const FAULTS: &[NamedFault] = &[
    named(
        "runner_never_online",
        "A sandbox lives and its runner never connects.",
        &[at(Op::Boot, Mode::NeverOnline).times(3)],
    ),
    named(
        "runner_online_late",
        "A runner connects four minutes late, after its start is given up.",
        &[at(Op::Boot, Mode::SlowBoot).times(3)],
    ),
    named(
        "runner_crashes",
        "A runner crashes before it connects: exit code 68.",
        &[at(Op::Boot, Mode::Crash).times(3)],
    ),
    named(
        "sandbox_never_started",
        "A sandbox is never started, or waits for a machine with a GPU for ever.",
        &[at(Op::Boot, Mode::NeverStarted).times(3)],
    ),
    named("sandbox_init_fails", "A sandbox fails before it is started.", &[at(Op::Boot, Mode::InitFailed).times(3)]),
    named(
        "sandbox_dies_booting",
        "A sandbox dies before its runner is online.",
        &[at(Op::Boot, Mode::DiesBooting).times(3)],
    ),
    named(
        "sandbox_dies_idle",
        "A sandbox dies when its runner is online and has no job yet.",
        &[at(Op::Boot, Mode::DiesIdle).times(3)],
    ),
    named(
        "sandbox_dies_working",
        "A sandbox dies in the middle of a job.",
        &[at(Op::Boot, Mode::DiesWorking).times(3)],
    ),
    named(
        "sandbox_out_of_memory",
        "A sandbox is killed in the middle of a job for its use of memory.",
        &[at(Op::Boot, Mode::OutOfMemory).times(3)],
    ),
    named(
        "sandbox_times_out",
        "A sandbox reaches its timeout a minute after its start.",
        &[at(Op::Boot, Mode::TimesOut).times(3)],
    ),
    named(
        "sandbox_preempted",
        "Modal ends a sandbox 30 s after its runner came online.",
        &[at(Op::Boot, Mode::Preempted).times(3)],
    ),
    named(
        "removed_runner_exits_0",
        "GitHub removes a runner that has been idle for two minutes, and its sandbox ends as if a job had run.",
        &[at(Op::Boot, Mode::ExitsZero).times(3), at(Op::Connect, Mode::RemovedIdle).seconds(120.0).times(3)],
    ),
];
