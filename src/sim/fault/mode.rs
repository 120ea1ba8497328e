//! How an operation can go wrong, and which operations can go wrong so.

use serde::{Deserialize, Serialize};

use crate::sim::history::{Operation, Service};

listed_enum! {
    /// How an operation goes wrong.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum FaultMode {
        // Calls of both services.
        /// Nothing is applied; GitHub answers 502 (or `status`), Modal `UNAVAILABLE` (or the code in `status`).
        /// For `image_build`: the build fails.
        Error,
        /// It is applied, and the answer gets lost: GitHub answers 502 after 10 s (or `seconds`), Modal
        /// `UNAVAILABLE` (after `seconds`).
        ReplyLost,
        /// The answer is that of [`FaultMode::Error`], at once; `seconds` (default 20) later it is applied all
        /// the same.
        AppliedLate,
        /// It is applied, and the answer takes `seconds` (default 30) longer.
        Slow,
        /// A rate-limit answer, with a wait of `seconds` (default 60 at GitHub, 1.5 at Modal). GitHub answers
        /// with 403 (or `status`), and refuses all calls of the credential for as long.
        RateLimited,
        /// GitHub answers 401, Modal `UNAUTHENTICATED`. For `image_build`: the registry shows the base to nobody with such
        /// credentials, and the build fails.
        Unauthorized,
        /// GitHub answers 404, Modal `NOT_FOUND`.
        NotFound,
        /// Nothing is applied, and the connection is cut without an answer.
        Cut,
        /// It is applied, and the connection is cut without an answer.
        CutAfter,
        /// Nothing is applied, and nothing is answered for `seconds` (default 600).
        Silent,
        /// GitHub's body is cut in the middle; of each of Modal's messages one half arrives.
        Truncated,

        // Calls of Modal's.
        /// It is answered well, with a warning for the client.
        Warned,
        /// All auth tokens that were given out before are refused from then on; for `list_runs` those of the
        /// installations of a GitHub App, before the call is answered.
        TokensExpired,
        /// All images that were made here are gone, before the call is answered: creates find none, or with `status` 9 one that is
        /// not built (`FAILED_PRECONDITION`).
        ImagesGone,
        /// The Apps are stopped, and with them all their sandboxes, before the call is answered.
        AppStopped,

        // Calls of GitHub's.
        /// A secondary limit that says not how long to wait: 403 (or `status`) without `retry-after`; all calls
        /// of the credential are refused so for `seconds` (default 60).
        RateLimitedBare,
        /// The requests of the hour are used up until `seconds` from now (default the end of the hour): 403 (or
        /// `status`) with `x-ratelimit-remaining: 0` and the time of the reset.
        PrimaryLimited,
        /// The same with `retry-after` beside.
        PrimaryLimitedTwice,
        /// The same without any header of the limit, for `seconds` (default 60).
        PrimaryLimitedBare,
        /// GitHub refuses with `status` (default 422 for a write, 403 for a read) and applies nothing.
        Refused,
        /// GitHub answers 403 because Actions, or self-hosted runners, are disabled in the repository.
        ActionsDisabled,
        /// GitHub's answer is a page for people where JSON was promised.
        Malformed,
        /// GitHub's answer has fields, nulls and values that its description does not know.
        Unfamiliar,
        /// A request that states an ETag is answered with 304, whatever has changed.
        WrongNotModified,
        /// A request that states no ETag is answered with 304.
        BareNotModified,

        // Lists.
        /// A list is answered as if there were nothing.
        Empty,
        /// A list is answered as it was `seconds` ago (default 1 to 120).
        Stale,
        /// One entry is missing from the answer.
        Flapping,
        /// A page after the first is empty.
        PageMissing,
        /// A page after the first is answered with 502 (or `status`).
        PageError,
        /// A page after the first begins one entry too late, as if one had left since the page before.
        PageSkips,
        /// A page after the first begins one entry too early, as if one had come since the page before.
        PageShowsTwice,
        /// A page after the first shows the page before once more.
        PageRepeats,
        /// Sandboxes that ended less than `seconds` (default 60) ago are shown as if they ran.
        EndedListed,
        /// Runners that run a job are shown idle.
        BusyHidden,
        /// Runners that are online are shown offline.
        OnlineHidden,

        // Registrations.
        /// For `mint`: the runner appears in lists `seconds` (default 60) later.
        VisibleLate,
        /// For `mint`: the JIT config is refused from `seconds` (default 0) after the mint on.
        Expired,
        /// For `mint`: the answer holds a JIT config that is none.
        ConfigCorrupt,
        /// For `delete_runner`: a runner that runs a job is deleted, with 204 (or `status`); its job goes on.
        DeletedWhileBusy,
        /// For `connect`: GitHub removes the runner when it has been idle for `seconds` (default 120).
        RemovedIdle,

        // Jobs and runners.
        /// For `assign`: the runner gets no job as long as the fault lasts, or for `seconds`.
        Withheld,
        /// For `assign`: the runner gets a job when it has been online for `seconds` (default 299.5) at last.
        AssignedAtAge,
        /// For `assign`: the runner takes the job only `seconds` (default 0 to 60) later; until then the job is
        /// listed as queued, and nobody else gets it.
        TakenLate,
        /// For `assign`: the runner loses its registration over the job, which goes to another; its listener
        /// goes on.
        AcquisitionLost,
        /// For `assign`: a second idle runner gets the same job.
        AssignedTwice,
        /// For `assign`: the job goes to a runner with more labels than it asks for.
        TakenByLarger,
        /// For `assign`: the job goes to somebody else's runner instead. For `queue`: it does `seconds` (default
        /// 5) after it was queued, if it is queued then.
        TakenByForeign,
        /// For `assign`: the job is held back, listed as queued, until another job of its run has ended.
        HeldBack,
        /// For `assign`: the runner is shown busy `seconds` (default 0 to 120) late.
        BusyLate,
        /// For `assign`: the job-started hook fires, and with it the job's first step begins, `seconds` (default 0 to 60)
        /// after the runner took the job. The runner has said by then that it runs one.
        HookLate,
        /// For `queue`: the job is listed as queued and given to nobody as long as the fault lasts, or for
        /// `seconds`.
        Ghost,
        /// For `queue`: the run completes with the job queued in it, which is given to nobody; after `seconds`
        /// (default a day), or with the fault, it is cancelled.
        RunCompleted,
        /// For `queue`: a run of `seconds` ago (default 90 days) appears with it, whose one job is like it, listed
        /// as queued and given to nobody; when faults are taken out, it is cancelled.
        OldGhost,

        // The start of the runner in a sandbox.
        /// For `boot`: the runner never connects and the sandbox ends with exit code 66. For `image_build`: so do all of the
        /// image that are created within `seconds` (default 900) of the begin of its build.
        RegistrationFailed,
        /// For `boot`: GitHub refuses the runner's version; exit code 65.
        VersionRefused,
        /// For `boot`: the runner crashes before it connects; exit code 68 (or `status`). For `image_build`: so do all of the
        /// image that are created within `seconds` (default 900) of the begin of its build.
        Crash,
        /// For `boot`: the sandbox lives and its runner never connects. For `image_build`: so do all of the image that are
        /// created within `seconds` (default 900) of the begin of its build.
        NeverOnline,
        /// For `boot`: the runner connects `seconds` (default 240) late.
        SlowBoot,
        /// For `boot`: Modal ends the sandbox `seconds` (default 30) after its runner connected.
        Preempted,
        /// For `boot`: the sandbox is never started; one with a GPU is never placed on a machine.
        NeverStarted,
        /// For `boot`: the sandbox fails before it is started.
        InitFailed,
        /// For `boot`: the sandbox dies of a failure of Modal's between its start and its runner's coming online.
        DiesBooting,
        /// For `boot`: the sandbox dies `seconds` (default 0.2) after its runner came online, if it runs no job.
        DiesIdle,
        /// For `boot`: the sandbox dies `seconds` (default 5) after its runner took a job.
        DiesWorking,
        /// For `boot`: the sandbox is killed for its use of memory `seconds` (default 5) after its runner took a job.
        OutOfMemory,
        /// For `boot`: the sandbox reaches its timeout `seconds` (default 60) after its start.
        TimesOut,
        /// For `boot`: where no job came, or GitHub removed the runner, the sandbox ends with exit code 0, as if one
        /// had run.
        ExitsZero,
    }
}

impl FaultMode {
    /// Its name, as it stands in scenarios and in the history.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether an operation can go wrong so; for a group, whether any operation in it can.
    pub fn applies_to(self, operation: Operation) -> bool {
        if operation.is_group() {
            let mut calls = Operation::ALL.iter().filter(|call| call.is_call() && call.group() == Some(operation));
            return calls.any(|call| self.applies_to(*call));
        }
        let is_github = operation.is_call() && operation.service() == Some(Service::Github);
        let is_modal = operation.is_call() && operation.service() == Some(Service::Modal);
        // A deletion is answered without a body.
        let has_body = is_github && operation != Operation::DeleteRunner;
        match self {
            Self::Error | Self::Unauthorized => operation.is_call() || operation == Operation::ImageBuild,
            Self::ReplyLost | Self::Slow | Self::RateLimited | Self::NotFound | Self::Cut | Self::Silent => {
                operation.is_call()
            }
            Self::AppliedLate | Self::CutAfter => operation.is_write(),
            Self::TokensExpired => is_modal || operation == Operation::ListRuns,
            Self::Warned | Self::ImagesGone | Self::AppStopped => is_modal,
            Self::RateLimitedBare
            | Self::PrimaryLimited
            | Self::PrimaryLimitedTwice
            | Self::PrimaryLimitedBare
            | Self::Refused => is_github,
            Self::ActionsDisabled => is_github && !matches!(operation, Operation::RateLimit | Operation::Unknown),
            Self::Truncated => has_body || is_modal,
            Self::Malformed | Self::Unfamiliar => has_body,
            Self::WrongNotModified | Self::BareNotModified => {
                let is_never_cached =
                    matches!(operation, Operation::InstallationToken | Operation::RateLimit | Operation::Unknown);
                has_body && !operation.is_write() && !is_never_cached
            }
            Self::Stale => operation.lists_what_moves(),
            Self::Empty
            | Self::Flapping
            | Self::PageMissing
            | Self::PageError
            | Self::PageSkips
            | Self::PageShowsTwice
            | Self::PageRepeats => operation.is_list(),
            Self::EndedListed => operation == Operation::ListSandboxes,
            Self::BusyHidden | Self::OnlineHidden => operation == Operation::ListRunners,
            Self::VisibleLate | Self::Expired | Self::ConfigCorrupt => operation == Operation::Mint,
            Self::DeletedWhileBusy => operation == Operation::DeleteRunner,
            Self::RemovedIdle => operation == Operation::Connect,
            Self::TakenByForeign => matches!(operation, Operation::Assign | Operation::Queue),
            Self::Withheld
            | Self::AssignedAtAge
            | Self::TakenLate
            | Self::AcquisitionLost
            | Self::AssignedTwice
            | Self::TakenByLarger
            | Self::HeldBack
            | Self::BusyLate
            | Self::HookLate => operation == Operation::Assign,
            Self::Ghost | Self::RunCompleted | Self::OldGhost => operation == Operation::Queue,
            Self::RegistrationFailed | Self::NeverOnline | Self::Crash => {
                matches!(operation, Operation::Boot | Operation::ImageBuild)
            }
            Self::VersionRefused
            | Self::SlowBoot
            | Self::Preempted
            | Self::NeverStarted
            | Self::InitFailed
            | Self::DiesBooting
            | Self::DiesIdle
            | Self::DiesWorking
            | Self::OutOfMemory
            | Self::TimesOut
            | Self::ExitsZero => operation == Operation::Boot,
        }
    }
}
