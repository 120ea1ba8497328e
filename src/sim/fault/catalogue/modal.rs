//! What goes wrong at Modal.

use super::{NamedFault, at, named, turned};
use crate::sim::fault::FaultMode as Mode;
use crate::sim::history::Operation as Op;

/// How often a fault of single calls strikes that would end the work if it struck all.
const SOMETIMES: f64 = 0.1;
/// How often a fault of lists strikes.
const OFTEN: f64 = 0.3;
/// How long a fault lasts that stops the work while it does.
const WHILE_SECS: f64 = 900.0;

// Status codes of gRPC.
const UNKNOWN: u16 = 2;
const DEADLINE_EXCEEDED: u16 = 4;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const FAILED_PRECONDITION: u16 = 9;
const INTERNAL: u16 = 13;

pub(super) const FAULTS: &[NamedFault] = &[
    // Writes whose outcome is not what the answer says.
    named(
        "create_reply_lost",
        "A sandbox is created, and the answer gets lost: UNAVAILABLE.",
        &[at(Op::Create, Mode::ReplyLost).times(3)],
    ),
    named(
        "create_reply_cut",
        "A sandbox is created, and the connection breaks before the answer.",
        &[at(Op::Create, Mode::CutAfter).times(3)],
    ),
    named(
        "create_reply_slow",
        "A sandbox is created, and the answer comes after the client has given up.",
        &[at(Op::Create, Mode::Slow).seconds(200.0).times(3)],
    ),
    named(
        "create_applied_late",
        "Modal refuses to create a sandbox and creates it 20 s later all the same.",
        &[at(Op::Create, Mode::AppliedLate).times(3)],
    ),
    named(
        "create_applied_after_giving_up",
        "Modal refuses to create a sandbox and creates it five minutes later all the same.",
        &[at(Op::Create, Mode::AppliedLate).seconds(300.0).times(3)],
    ),
    named(
        "secret_create_reply_lost",
        "A Secret is created, and the answer gets lost.",
        &[at(Op::Secret, Mode::ReplyLost).times(3)],
    ),
    named(
        "secret_create_applied_late",
        "Modal refuses to create a Secret and creates it 20 s later all the same.",
        &[at(Op::Secret, Mode::AppliedLate).times(3)],
    ),
    named(
        "secret_delete_reply_lost",
        "A Secret is deleted, and the answer gets lost.",
        &[at(Op::SecretDelete, Mode::ReplyLost).times(3)],
    ),
    named(
        "secret_delete_applied_late",
        "Modal refuses to delete a Secret and deletes it 20 s later all the same.",
        &[at(Op::SecretDelete, Mode::AppliedLate).times(3)],
    ),
    named(
        "terminate_reply_lost",
        "A sandbox is terminated, and the answer gets lost.",
        &[at(Op::Terminate, Mode::ReplyLost).times(3)],
    ),
    named(
        "terminate_applied_late",
        "Modal refuses to terminate a sandbox and terminates it 20 s later all the same.",
        &[at(Op::Terminate, Mode::AppliedLate).times(3)],
    ),
    // Errors, cuts and silence.
    named(
        "modal_unavailable",
        "Every tenth call of Modal's is answered with UNAVAILABLE.",
        &[at(Op::Modal, Mode::Error).rate(SOMETIMES)],
    ),
    named(
        "modal_internal",
        "Every tenth call of Modal's is answered with INTERNAL.",
        &[at(Op::Modal, Mode::Error).status(INTERNAL).rate(SOMETIMES)],
    ),
    named(
        "modal_unknown",
        "Every tenth call of Modal's is answered with UNKNOWN.",
        &[at(Op::Modal, Mode::Error).status(UNKNOWN).rate(SOMETIMES)],
    ),
    named(
        "modal_deadline",
        "Every tenth call of Modal's is answered with DEADLINE_EXCEEDED.",
        &[at(Op::Modal, Mode::Error).status(DEADLINE_EXCEEDED).rate(SOMETIMES)],
    ),
    named(
        "modal_outage",
        "Modal answers UNAVAILABLE to everything for 15 minutes.",
        &[at(Op::Modal, Mode::Error).lasting(WHILE_SECS)],
    ),
    named(
        "modal_cut",
        "The connection breaks under every tenth call of Modal's, without a status.",
        &[at(Op::Modal, Mode::Cut).rate(SOMETIMES)],
    ),
    named(
        "modal_partition",
        "Nothing reaches Modal for 15 minutes: connections break.",
        &[at(Op::Modal, Mode::Cut).lasting(WHILE_SECS)],
    ),
    named(
        "modal_silent",
        "Nothing reaches Modal for 15 minutes: calls get no answer at all.",
        &[at(Op::Modal, Mode::Silent).lasting(WHILE_SECS)],
    ),
    named(
        "modal_slow",
        "Every tenth answer of Modal's comes 200 s late, after the client has given up.",
        &[at(Op::Modal, Mode::Slow).seconds(200.0).rate(SOMETIMES)],
    ),
    named(
        "modal_truncated",
        "Of every tenth answer of Modal's one half arrives.",
        &[at(Op::Modal, Mode::Truncated).rate(SOMETIMES)],
    ),
    // Limits.
    named(
        "modal_throttled",
        "A third of the creates are refused with RESOURCE_EXHAUSTED and the time to wait.",
        &[at(Op::Create, Mode::RateLimited).rate(OFTEN)],
    ),
    named(
        "modal_throttled_long",
        "A create is refused with RESOURCE_EXHAUSTED and five minutes to wait.",
        &[at(Op::Create, Mode::RateLimited).seconds(300.0).times(3)],
    ),
    named(
        "modal_exhausted",
        "A third of the creates are refused with RESOURCE_EXHAUSTED that says not how long to wait.",
        &[at(Op::Create, Mode::Error).status(RESOURCE_EXHAUSTED).rate(OFTEN)],
    ),
    named(
        "modal_calls_throttled",
        "Every tenth call of Modal's is refused with RESOURCE_EXHAUSTED and the time to wait.",
        &[at(Op::Modal, Mode::RateLimited).rate(SOMETIMES)],
    ),
    turned(
        "modal_at_capacity",
        "For 15 minutes the workspace may run three sandboxes, one of them with a GPU.",
        &[("modal_max_containers", "3"), ("modal_max_gpus", "1")],
        Some(WHILE_SECS),
    ),
    turned(
        "modal_spend_limit",
        "For 15 minutes the spend limit of Modal's workspace is reached, and it creates nothing.",
        &[("modal_spend_limit_reached", "true")],
        Some(WHILE_SECS),
    ),
    turned(
        "gpu_sold_out",
        "For 15 minutes Modal has no machine with a T4.",
        &[("modal_gpus_sold_out", "[\"T4\"]")],
        Some(WHILE_SECS),
    ),
    // Lists.
    named("modal_list_empty", "A list of sandboxes is empty.", &[at(Op::ListSandboxes, Mode::Empty).rate(OFTEN)]),
    named(
        "modal_list_stale",
        "A third of the lists of sandboxes are 1 to 120 s old.",
        &[at(Op::ListSandboxes, Mode::Stale).rate(OFTEN)],
    ),
    named(
        "modal_list_flapping",
        "A third of the lists of sandboxes lack one.",
        &[at(Op::ListSandboxes, Mode::Flapping).rate(OFTEN)],
    ),
    named(
        "modal_list_shows_ended",
        "Sandboxes that ended in the last minute are listed as if they ran.",
        &[at(Op::ListSandboxes, Mode::EndedListed).rate(OFTEN)],
    ),
    paged(
        "modal_page_error",
        "A third of the later pages fail.",
        &[at(Op::ListSandboxes, Mode::PageError).rate(OFTEN)],
    ),
    paged(
        "modal_page_missing",
        "A third of the later pages are empty.",
        &[at(Op::ListSandboxes, Mode::PageMissing).rate(OFTEN)],
    ),
    paged(
        "modal_page_skips",
        "A third of the later pages begin one sandbox too late.",
        &[at(Op::ListSandboxes, Mode::PageSkips).rate(OFTEN)],
    ),
    paged(
        "modal_page_shows_twice",
        "A third of the later pages begin with the sandbox that ended the one before.",
        &[at(Op::ListSandboxes, Mode::PageShowsTwice).rate(OFTEN)],
    ),
    paged(
        "modal_page_repeats",
        "A third of the later pages are the first one again.",
        &[at(Op::ListSandboxes, Mode::PageRepeats).rate(OFTEN)],
    ),
    turned(
        "modal_page_edge_ties",
        "Sandboxes of the same ten seconds have one time of creation, and lists lose some at the edges of pages.",
        &[("modal_list_page", "2"), ("modal_created_at_step_secs", "10")],
        None,
    ),
    // Credentials.
    named(
        "modal_token_revoked",
        "Modal refuses the credentials for 15 minutes: UNAUTHENTICATED.",
        &[at(Op::Modal, Mode::Unauthorized).lasting(WHILE_SECS)],
    ),
    named(
        "modal_token_denied",
        "Modal denies the credentials everything for 15 minutes: PERMISSION_DENIED.",
        &[at(Op::Modal, Mode::Error).status(PERMISSION_DENIED).lasting(WHILE_SECS)],
    ),
    named(
        "modal_auth_tokens_expired",
        "All auth tokens expire before their time, every now and then.",
        &[at(Op::Modal, Mode::TokensExpired).rate(0.05)],
    ),
    turned(
        "modal_auth_tokens_short",
        "An auth token of Modal's can be used for ten seconds.",
        &[("modal_auth_token_secs", "10")],
        None,
    ),
    // Objects that go away.
    named("images_gone", "All images are gone, and creates do not find theirs.", &[at(Op::Create, Mode::ImagesGone)]),
    named(
        "images_unbuilt",
        "All images count as not built, and creates are refused: FAILED_PRECONDITION.",
        &[at(Op::Create, Mode::ImagesGone).status(FAILED_PRECONDITION)],
    ),
    named(
        "image_refused",
        "Creates are refused because of their image: FAILED_PRECONDITION.",
        &[at(Op::Create, Mode::Error).status(FAILED_PRECONDITION).times(3)],
    ),
    named("image_build_fails", "An image cannot be built.", &[at(Op::ImageBuild, Mode::Error).times(2)]),
    named(
        "image_pull_denied",
        "A registry refuses the credentials with which it is asked for the base of an image.",
        &[at(Op::ImageBuild, Mode::Unauthorized).times(2)],
    ),
    named(
        "image_never_registers",
        "For ten minutes no runner connects that is made from an image that was just built.",
        &[at(Op::ImageBuild, Mode::NeverOnline).seconds(600.0)],
    ),
    named(
        "image_runners_give_up",
        "For ten minutes runners give up that are made from an image that was just built: exit code 66.",
        &[at(Op::ImageBuild, Mode::RegistrationFailed).seconds(600.0)],
    ),
    named("image_log_cut", "The connection breaks under the log of a build.", &[at(Op::ImageLog, Mode::Cut).times(2)]),
    named("image_log_half", "Of the log of a build one half arrives.", &[at(Op::ImageLog, Mode::Truncated).times(2)]),
    named(
        "app_stopped",
        "Somebody stops the App at a look at its sandboxes: they all end, and creates do not find it.",
        &[AT_A_LATER_LIST],
    ),
    // What may be, and is not known of Modal.
    named(
        "modal_warnings",
        "Every tenth answer of Modal's carries a warning.",
        &[at(Op::Modal, Mode::Warned).rate(SOMETIMES)],
    ),
    turned(
        "modal_keeps_idempotency_keys",
        "Modal answers a repeated call as it answered the first.",
        &[("modal_keeps_idempotency_keys", "true")],
        None,
    ),
];

/// The App is stopped once, when there is likely to be something in it.
const AT_A_LATER_LIST: super::FaultPart = at(Op::ListSandboxes, Mode::AppStopped).after(12);

/// Faults of pages after the first, for which pages must be small.
const fn paged(name: &'static str, description: &'static str, parts: &'static [super::FaultPart]) -> NamedFault {
    NamedFault { parts, ..turned(name, description, &[("modal_list_page", "2")], None) }
}
