//! What goes wrong at Modal and in its sandboxes.

use super::{NamedFault, at, named};
use crate::sim::fault::FaultMode as Mode;
use crate::sim::history::Operation as Op;

pub(super) const FAULTS: &[NamedFault] = &[
    named(
        "create_reply_lost",
        "A sandbox is created, and the answer gets lost.",
        &[at(Op::Create, Mode::ReplyLost).times(3)],
    ),
    named(
        "create_applied_late",
        "Modal refuses to create a sandbox and creates it 20 s later all the same.",
        &[at(Op::Create, Mode::AppliedLate).times(3)],
    ),
    named(
        "runner_never_online",
        "A sandbox lives and its runner never connects.",
        &[at(Op::Boot, Mode::NeverOnline).times(3)],
    ),
    named(
        "sandbox_preempted",
        "Modal ends a sandbox 30 s after its runner came online.",
        &[at(Op::Boot, Mode::Preempted).times(3)],
    ),
];
