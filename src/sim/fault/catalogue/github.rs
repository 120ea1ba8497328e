//! What goes wrong at GitHub.

use super::{NamedFault, at, named, turned};
use crate::sim::fault::FaultMode as Mode;
use crate::sim::history::Operation as Op;

/// How often a fault of single calls strikes that would end the work if it struck all.
const SOMETIMES: f64 = 0.1;
/// How often a fault of lists strikes.
const OFTEN: f64 = 0.3;
/// How long a fault lasts that stops the work while it does.
const WHILE_SECS: f64 = 900.0;

pub(super) const FAULTS: &[NamedFault] = &[
    // Writes whose outcome is not what the answer says.
    named(
        "mint_reply_lost",
        "A runner is registered, and the answer with its JIT config gets lost: 502 after 10 s.",
        &[at(Op::Mint, Mode::ReplyLost).times(3)],
    ),
    named(
        "mint_reply_cut",
        "A runner is registered, and the connection is cut before the answer.",
        &[at(Op::Mint, Mode::CutAfter).times(3)],
    ),
    named(
        "mint_applied_late",
        "GitHub fails to register a runner and registers it 20 s later all the same.",
        &[at(Op::Mint, Mode::AppliedLate).times(3)],
    ),
    named(
        "delete_reply_lost",
        "A runner is deleted, and the answer gets lost: 502 after 10 s.",
        &[at(Op::DeleteRunner, Mode::ReplyLost).times(3)],
    ),
    named(
        "delete_reply_cut",
        "A runner is deleted, and the connection is cut before the answer.",
        &[at(Op::DeleteRunner, Mode::CutAfter).times(3)],
    ),
    named(
        "delete_applied_late",
        "GitHub fails to delete a runner and deletes it 20 s later all the same.",
        &[at(Op::DeleteRunner, Mode::AppliedLate).times(3)],
    ),
    named(
        "delete_204_while_busy",
        "`DELETE` of a runner that runs a job answers 204; the job goes on.",
        &[at(Op::DeleteRunner, Mode::DeletedWhileBusy).times(3)],
    ),
    named(
        "delete_404_while_busy",
        "`DELETE` of a runner that runs a job answers 404; the job goes on.",
        &[at(Op::DeleteRunner, Mode::DeletedWhileBusy).status(404).times(3)],
    ),
    named(
        "delete_422",
        "`DELETE` of a runner answers 422 (still running a job), whatever it does.",
        &[at(Op::DeleteRunner, Mode::Refused).status(422).times(3)],
    ),
    // The tokens of a GitHub App.
    named(
        "app_token_failed",
        "GitHub fails to give out a token for an installation of the App.",
        &[at(Op::InstallationToken, Mode::Error).times(3)],
    ),
    named(
        "app_token_lost",
        "GitHub gives out a token for an installation of the App, and the answer gets lost: 502 after 10 s.",
        &[at(Op::InstallationToken, Mode::ReplyLost).times(3)],
    ),
    named(
        "app_token_slow",
        "GitHub takes 15 s to give out a token for an installation of the App.",
        &[at(Op::InstallationToken, Mode::Slow).seconds(15.0).times(5)],
    ),
    named(
        "app_tokens_revoked",
        "All tokens of the App's installations are refused from one moment on, before their time.",
        &[at(Op::ListRuns, Mode::TokensExpired).after(50).times(3)],
    ),
    named(
        "mint_409",
        "GitHub says that a runner's name is taken, though it is not.",
        &[at(Op::Mint, Mode::Refused).status(409).times(3)],
    ),
    named(
        "mint_403",
        "GitHub says that the token may not register a runner.",
        &[at(Op::Mint, Mode::Refused).status(403).times(3)],
    ),
    named(
        "mint_404",
        "GitHub knows no such repository when a runner is to be registered.",
        &[at(Op::Mint, Mode::Refused).status(404).times(3)],
    ),
    named(
        "mint_422",
        "GitHub cannot make sense of a request to register a runner.",
        &[at(Op::Mint, Mode::Refused).status(422).times(3)],
    ),
    // Outages.
    named(
        "github_errors",
        "Every tenth call of GitHub's is answered with 502.",
        &[at(Op::Github, Mode::Error).rate(SOMETIMES)],
    ),
    named(
        "github_outage",
        "GitHub answers 503 to everything for half an hour.",
        &[at(Op::Github, Mode::Error).status(503).lasting(1_800.0)],
    ),
    named(
        "github_cut",
        "The connection of every tenth call of GitHub's is cut without an answer.",
        &[at(Op::Github, Mode::Cut).rate(SOMETIMES)],
    ),
    named(
        "github_partition",
        "GitHub cannot be reached for a quarter of an hour: every connection is cut.",
        &[at(Op::Github, Mode::Cut).lasting(WHILE_SECS)],
    ),
    named(
        "github_blackhole",
        "GitHub swallows everything for a quarter of an hour: nothing is answered.",
        &[at(Op::Github, Mode::Silent).lasting(WHILE_SECS)],
    ),
    named(
        "github_slow",
        "Every tenth answer of GitHub's comes 60 s late, after the client has given up.",
        &[at(Op::Github, Mode::Slow).seconds(60.0).rate(SOMETIMES)],
    ),
    // Limits.
    named(
        "primary_limit_403",
        "The requests of the hour are used up: 403 with the time of the reset, 10 min ahead.",
        &[at(Op::Github, Mode::PrimaryLimited).seconds(600.0)],
    ),
    named(
        "primary_limit_429",
        "The requests of the hour are used up: 429 with the time of the reset, 10 min ahead.",
        &[at(Op::Github, Mode::PrimaryLimited).seconds(600.0).status(429)],
    ),
    named(
        "primary_limit_retry_after",
        "The requests of the hour are used up: 403 with the time of the reset and `retry-after`, 10 min ahead.",
        &[at(Op::Github, Mode::PrimaryLimitedTwice).seconds(600.0)],
    ),
    named(
        "primary_limit_retry_after_429",
        "The requests of the hour are used up: 429 with the time of the reset and `retry-after`, 10 min ahead.",
        &[at(Op::Github, Mode::PrimaryLimitedTwice).seconds(600.0).status(429)],
    ),
    named(
        "primary_limit_bare",
        "The requests of the hour are used up: 403 without any header of the limit, for 10 min.",
        &[at(Op::Github, Mode::PrimaryLimitedBare).seconds(600.0)],
    ),
    named(
        "primary_limit_bare_429",
        "The requests of the hour are used up: 429 without any header of the limit, for 10 min.",
        &[at(Op::Github, Mode::PrimaryLimitedBare).seconds(600.0).status(429)],
    ),
    named(
        "secondary_limit_403",
        "A secondary limit: 403 with `retry-after: 60`.",
        &[at(Op::Github, Mode::RateLimited).seconds(60.0)],
    ),
    named(
        "secondary_limit_429",
        "A secondary limit: 429 with `retry-after: 60`.",
        &[at(Op::Github, Mode::RateLimited).seconds(60.0).status(429)],
    ),
    named(
        "secondary_limit_bare",
        "A secondary limit that says not how long: 403 without `retry-after`, for 60 s.",
        &[at(Op::Github, Mode::RateLimitedBare).seconds(60.0)],
    ),
    named(
        "secondary_limit_bare_429",
        "A secondary limit that says not how long: 429 without `retry-after`, for 60 s.",
        &[at(Op::Github, Mode::RateLimitedBare).seconds(60.0).status(429)],
    ),
    // Access.
    named(
        "token_rejected",
        "GitHub rejects the token once, in the middle of things: 401.",
        &[at(Op::Github, Mode::Unauthorized)],
    ),
    named(
        "token_revoked",
        "GitHub rejects the token for ten minutes, as if it had expired: 401.",
        &[at(Op::Github, Mode::Unauthorized).lasting(600.0)],
    ),
    named(
        "repo_not_found",
        "The repositories are not found for ten minutes: 404.",
        &[at(Op::Github, Mode::NotFound).lasting(600.0)],
    ),
    named(
        "repo_moved",
        "The repositories have another name for ten minutes: 301.",
        &[at(Op::Github, Mode::Refused).status(301).lasting(600.0)],
    ),
    named(
        "repo_blocked",
        "The repositories are blocked for legal reasons for ten minutes: 451.",
        &[at(Op::Github, Mode::Refused).status(451).lasting(600.0)],
    ),
    named(
        "actions_disabled",
        "Actions and self-hosted runners are disabled for ten minutes: 403.",
        &[at(Op::Github, Mode::ActionsDisabled).lasting(600.0)],
    ),
    // Lists that are not what is.
    named(
        "empty_list",
        "A list is answered with 200 and nothing in it.",
        &[
            at(Op::ListRuns, Mode::Empty).rate(SOMETIMES),
            at(Op::ListJobs, Mode::Empty).rate(SOMETIMES),
            at(Op::ListRunners, Mode::Empty).rate(SOMETIMES),
        ],
    ),
    named(
        "run_list_stale",
        "The list of runs is as it was 1 to 120 s ago.",
        &[at(Op::ListRuns, Mode::Stale).rate(OFTEN)],
    ),
    named(
        "job_list_stale",
        "The list of a run's jobs is as it was 1 to 120 s ago.",
        &[at(Op::ListJobs, Mode::Stale).rate(OFTEN)],
    ),
    named(
        "runner_list_stale",
        "The list of runners is as it was 1 to 120 s ago.",
        &[at(Op::ListRunners, Mode::Stale).rate(OFTEN)],
    ),
    named(
        "run_list_flaps",
        "A run is missing from one answer and back in the next.",
        &[at(Op::ListRuns, Mode::Flapping).rate(OFTEN)],
    ),
    named(
        "job_list_flaps",
        "A job is missing from one answer and back in the next.",
        &[at(Op::ListJobs, Mode::Flapping).rate(OFTEN)],
    ),
    named(
        "runner_list_flaps",
        "A runner is missing from one answer and back in the next.",
        &[at(Op::ListRunners, Mode::Flapping).rate(OFTEN)],
    ),
    paged(
        "page_missing",
        "A page after the first is empty.",
        &[
            at(Op::ListRuns, Mode::PageMissing).rate(OFTEN),
            at(Op::ListJobs, Mode::PageMissing).rate(OFTEN),
            at(Op::ListRunners, Mode::PageMissing).rate(OFTEN),
        ],
    ),
    paged(
        "page_error",
        "A page after the first is answered with 502.",
        &[
            at(Op::ListRuns, Mode::PageError).rate(OFTEN),
            at(Op::ListJobs, Mode::PageError).rate(OFTEN),
            at(Op::ListRunners, Mode::PageError).rate(OFTEN),
        ],
    ),
    paged(
        "page_skips_one",
        "An entry leaves a list between two pages, so that the next page skips another.",
        &[
            at(Op::ListRuns, Mode::PageSkips).rate(OFTEN),
            at(Op::ListJobs, Mode::PageSkips).rate(OFTEN),
            at(Op::ListRunners, Mode::PageSkips).rate(OFTEN),
        ],
    ),
    paged(
        "page_shows_one_twice",
        "An entry comes into a list between two pages, so that the next page repeats another.",
        &[
            at(Op::ListRuns, Mode::PageShowsTwice).rate(OFTEN),
            at(Op::ListJobs, Mode::PageShowsTwice).rate(OFTEN),
            at(Op::ListRunners, Mode::PageShowsTwice).rate(OFTEN),
        ],
    ),
    paged(
        "page_repeated",
        "A page after the first shows the page before once more.",
        &[
            at(Op::ListRuns, Mode::PageRepeats).rate(OFTEN),
            at(Op::ListJobs, Mode::PageRepeats).rate(OFTEN),
            at(Op::ListRunners, Mode::PageRepeats).rate(OFTEN),
        ],
    ),
    named(
        "wrong_304",
        "A request with an ETag is answered with 304, whatever has changed.",
        &[at(Op::Github, Mode::WrongNotModified).rate(OFTEN)],
    ),
    named(
        "bare_304",
        "A request without an ETag is answered with 304.",
        &[at(Op::Github, Mode::BareNotModified).rate(SOMETIMES)],
    ),
    named(
        "truncated_body",
        "An answer's body is cut in the middle.",
        &[at(Op::Github, Mode::Truncated).rate(SOMETIMES)],
    ),
    named(
        "malformed_body",
        "An answer is a page for people where JSON was promised.",
        &[at(Op::Github, Mode::Malformed).rate(SOMETIMES)],
    ),
    named(
        "unfamiliar_body",
        "An answer has unknown fields, nulls, and an entry in an unknown state.",
        &[at(Op::Github, Mode::Unfamiliar).rate(OFTEN)],
    ),
    // Runners.
    named(
        "busy_late",
        "A runner is shown busy 0 to 120 s after it took its job.",
        &[at(Op::Assign, Mode::BusyLate).times(u32::MAX)],
    ),
    named(
        "busy_flips",
        "Runners are shown idle in the middle of their jobs.",
        &[at(Op::ListRunners, Mode::BusyHidden).rate(OFTEN)],
    ),
    named(
        "online_flips",
        "Runners that are online are shown offline.",
        &[at(Op::ListRunners, Mode::OnlineHidden).rate(OFTEN)],
    ),
    named(
        "runner_visible_late",
        "A runner appears in lists a minute after its registration.",
        &[at(Op::Mint, Mode::VisibleLate).seconds(60.0).times(u32::MAX)],
    ),
    named(
        "runner_never_registers",
        "The program in a sandbox cannot register its runner and ends.",
        &[at(Op::Boot, Mode::RegistrationFailed).times(3)],
    ),
    named(
        "runner_version_refused",
        "GitHub refuses the version of every runner for a quarter of an hour.",
        &[at(Op::Boot, Mode::VersionRefused).lasting(WHILE_SECS)],
    ),
    named(
        "jit_config_expired",
        "A JIT config is too old when its runner uses it.",
        &[at(Op::Mint, Mode::Expired).times(3)],
    ),
    named(
        "jit_config_corrupt",
        "GitHub hands out a JIT config that is none.",
        &[at(Op::Mint, Mode::ConfigCorrupt).times(3)],
    ),
    named(
        "idle_runner_removed",
        "GitHub removes a runner that has been idle for two minutes.",
        &[at(Op::Connect, Mode::RemovedIdle).seconds(120.0).times(u32::MAX)],
    ),
    named(
        "runner_never_claimed",
        "A runner is online and idle, and GitHub gives it no job.",
        &[at(Op::Assign, Mode::Withheld).times(3)],
    ),
    named(
        "closed_runner_group",
        "GitHub gives no job to any runner for a quarter of an hour.",
        &[at(Op::Assign, Mode::Withheld).lasting(WHILE_SECS)],
    ),
    named(
        "acquisition_lost",
        "A runner loses its registration over a job that goes to another, and listens on.",
        &[at(Op::Assign, Mode::AcquisitionLost).times(3)],
    ),
    // Jobs.
    named(
        "assigned_at_idle_limit",
        "A runner gets a job half a second before its idle limit of 5 min, and not earlier.",
        &[at(Op::Assign, Mode::AssignedAtAge).seconds(299.5).lasting(3_600.0)],
    ),
    named(
        "job_taken_late",
        "A runner takes its job 0 to 60 s after GitHub chose it; until then the job is listed as queued.",
        &[at(Op::Assign, Mode::TakenLate).rate(OFTEN)],
    ),
    named(
        "hook_late",
        "The job-started hook of a runner fires 0 to 60 s after it took its job.",
        &[at(Op::Assign, Mode::HookLate).times(u32::MAX)],
    ),
    named(
        "job_assigned_twice",
        "GitHub gives one job to two runners.",
        &[at(Op::Assign, Mode::AssignedTwice).times(3)],
    ),
    named(
        "job_taken_by_larger",
        "A job goes to an idle runner of ours with more labels than it asks for.",
        &[at(Op::Assign, Mode::TakenByLarger).times(u32::MAX)],
    ),
    named(
        "job_taken_by_foreign",
        "A runner of somebody else takes a job: while ours starts, or from under it.",
        &[at(Op::Queue, Mode::TakenByForeign).rate(SOMETIMES), at(Op::Assign, Mode::TakenByForeign).rate(SOMETIMES)],
    ),
    named(
        "max_parallel",
        "GitHub runs one job of a run at a time and lists the others as queued, for an hour.",
        &[at(Op::Assign, Mode::HeldBack).lasting(3_600.0)],
    ),
    named(
        "ghost_job",
        "A job is listed as queued and given to nobody for an hour.",
        &[at(Op::Queue, Mode::Ghost).seconds(3_600.0).times(3)],
    ),
    named(
        "old_ghost_run",
        "With a job comes a run of three months ago whose job is listed as queued and never runs.",
        &[at(Op::Queue, Mode::OldGhost).times(5)],
    ),
    named(
        "job_in_completed_run",
        "A run completes with a job queued in it; GitHub cancels the job 20 min later.",
        &[at(Op::Queue, Mode::RunCompleted).times(3).seconds(1_200.0)],
    ),
];

/// Faults of pages after the first, for which pages must be small.
const fn paged(name: &'static str, description: &'static str, parts: &'static [super::FaultPart]) -> NamedFault {
    NamedFault { parts, ..turned(name, description, &[("github_list_page", "3")], None) }
}
