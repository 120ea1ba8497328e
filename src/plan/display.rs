//! Plans and reasons as text for people, and reasons as metric labels.

use std::fmt;

use super::{Action, Create, DeregisterReason, Limit, Plan, Skip, SkipReason, TerminateReason};
use crate::class::NoClass;
use crate::pause::Pause;

impl SkipReason {
    /// Every label that [`SkipReason::as_str`] can give, for metrics that show zero.
    pub const LABELS: [&'static str; 26] = [
        "not_opted_in",
        "not_trusted",
        "no_matching_class",
        "already_served",
        "unscheduled",
        "seen_in_progress",
        "outdated",
        "paused",
        "fleet_unknown",
        "runner_group",
        "image_building",
        "image_failed",
        "runner_version",
        "spend_unknown",
        "at_limit",
        "first_wave",
        "unproven",
        "ghost_job",
        "breaker",
        "fruitless",
        "machines_lost",
        "mint_refused",
        "create_refused",
        "modal_spend_limit",
        "github_budget",
        "modal_rate",
    ];

    /// Those of [`SkipReason::LABELS`] that are of jobs for which no class, or none yet, is looked for.
    pub const WITHOUT_CLASS: [&'static str; 5] =
        ["not_opted_in", "not_trusted", "no_matching_class", "seen_in_progress", "runner_group"];

    /// The reason as a metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoClass(NoClass::NotOptedIn) => "not_opted_in",
            Self::NoClass(NoClass::Refused { .. }) => "not_trusted",
            Self::NoClass(NoClass::NoMatch { .. }) => "no_matching_class",
            Self::AlreadyServed => "already_served",
            Self::Unscheduled { .. } => "unscheduled",
            Self::SeenInProgress => "seen_in_progress",
            Self::Outdated => "outdated",
            Self::Paused(_) => "paused",
            Self::FleetUnknown(_) => "fleet_unknown",
            Self::RunnerGroup(_) => "runner_group",
            Self::ImageBuilding => "image_building",
            Self::ImageFailed(_) => "image_failed",
            Self::RunnerVersion { .. } => "runner_version",
            Self::SpendUnknown(_) => "spend_unknown",
            Self::AtLimit(_) => "at_limit",
            Self::FirstWave { .. } => "first_wave",
            Self::Unproven => "unproven",
            Self::GhostJob => "ghost_job",
            Self::Breaker { .. } => "breaker",
            Self::Fruitless { .. } => "fruitless",
            Self::MachinesLost { .. } => "machines_lost",
            Self::MintRefused(_) => "mint_refused",
            Self::CreateRefused(_) => "create_refused",
            Self::ModalSpendLimit => "modal_spend_limit",
            Self::GithubBudget => "github_budget",
            Self::ModalRate => "modal_rate",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoClass(reason) => reason.fmt(f),
            Self::AlreadyServed => f.write_str("a runner that can take it starts or waits"),
            Self::Unscheduled { machine, since } => {
                write!(f, "its sandbox waits for Modal to have a machine with {machine}, since {since}")
            }
            Self::SeenInProgress => f.write_str("it was seen in progress a moment ago"),
            Self::Outdated => {
                f.write_str("GitHub was not heard for minutes; whether it is still queued is asked first")
            }
            Self::Paused(Pause { held, since }) => {
                write!(f, "{held} is paused since {since}: `{}` lets it go on", held.resumed_by())
            }
            Self::FleetUnknown(why) => write!(f, "the list of sandboxes is not known: {why}"),
            Self::RunnerGroup(reason) => f.write_str(reason),
            Self::ImageBuilding => f.write_str("the image of its class is being made"),
            Self::ImageFailed(why) => write!(f, "the image of its class could not be made: {why}"),
            Self::RunnerVersion { version, since } => write!(
                f,
                "GitHub takes no runners of version {version} since {since}: set `runner.version = \"auto\"`, or put a \
                 newer runner into the image of its class (behind a tag of a registry it is found by itself)"
            ),
            Self::SpendUnknown(why) => {
                write!(f, "there is a spend_per_day, and what is spent is not known: {why}")
            }
            Self::AtLimit(limit) => limit.fmt(f),
            Self::FirstWave { wave } => {
                write!(
                    f,
                    "{wave} runners of its run, or of an image that never served, are there, and GitHub has not yet \
                     given jobs to so many at once"
                )
            }
            Self::Unproven => f.write_str(
                "a runner waited for it in vain (max-parallel? a runner group without its repository?); \
                 it waits for the next probe",
            ),
            Self::GhostJob => f.write_str("GitHub lists it as queued, and gave it to none of several runners"),
            Self::Breaker { reason, failures } => {
                write!(f, "the last {failures} runners of its class or image did not start ({reason})")
            }
            Self::Fruitless { attempts } => write!(f, "{attempts} runners for it ended without serving a job"),
            Self::MachinesLost { machines } => {
                write!(f, "{machines} machines of Modal's failed or were taken away under runners for it")
            }
            Self::MintRefused(why) => write!(f, "GitHub registers no runner: {why}"),
            Self::CreateRefused(why) => write!(f, "Modal creates no sandbox: {why}"),
            Self::ModalSpendLimit => f.write_str(
                "Modal starts nothing more: the spend limit of the workspace or its environment is reached; raise it \
                 in Modal's settings, or wait for the next billing cycle",
            ),
            Self::GithubBudget => f.write_str("the GitHub budget admits no registration yet"),
            Self::ModalRate => f.write_str("Modal's rate of creates admits none yet"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandboxes(limit) => write!(f, "at limit: limits.max_sandboxes = {limit}"),
            Self::SandboxesPerRepo(limit) => write!(f, "at limit: limits.max_sandboxes_per_repo = {limit}"),
            Self::Class(limit) => write!(f, "at limit: max_sandboxes = {limit} of its class"),
            Self::Gpus { limit, waiting: 0 } => write!(f, "at limit: limits.max_gpus = {limit}"),
            Self::Gpus { limit, waiting } => write!(
                f,
                "at limit: limits.max_gpus = {limit} ({waiting} are of sandboxes that wait for a machine or are given up)"
            ),
            Self::ModalGpus { used, most } => {
                write!(f, "at limit: Modal's GPU quota: its workspace uses {used} of {most} GPUs")
            }
            Self::Modal { sandboxes, tasks } => {
                write!(f, "at limit: Modal has room for {sandboxes} sandboxes, and refused a further one")?;
                tasks.map_or(Ok(()), |(used, most)| write!(f, " (its workspace runs {used} of {most} containers)"))
            }
            Self::SpendPerDay(limit) => {
                write!(
                    f,
                    "at limit: limits.spend_per_day = {limit} USD are spent; running jobs finish, and midnight UTC resets it"
                )
            }
            Self::ClassSpendPerDay(limit) => {
                write!(
                    f,
                    "at limit: spend_per_day = {limit} USD of its class are spent; running jobs finish, and midnight UTC resets it"
                )
            }
        }
    }
}

impl DeregisterReason {
    /// The reason as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::FailedStart => "failed_start",
            Self::NoCapacity => "no_capacity",
        }
    }
}

impl TerminateReason {
    /// The reason as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailedStart => "failed_start",
            Self::NoCapacity => "no_capacity",
        }
    }
}

impl Action {
    /// Every pair that [`Action::labels`] can give, for metrics that show zero.
    pub const LABELS: [(&'static str, &'static str); 8] = [
        ("create", "queued"),
        ("prepare_image", "queued"),
        ("deregister", "stale"),
        ("deregister", "failed_start"),
        ("deregister", "no_capacity"),
        ("terminate", "failed_start"),
        ("terminate", "no_capacity"),
        ("delete_secret", "read"),
    ];

    /// The kind of action and its reason, as metric labels.
    pub fn labels(&self) -> (&'static str, &'static str) {
        match self {
            Self::Create(_) => ("create", "queued"),
            Self::PrepareImage { .. } => ("prepare_image", "queued"),
            Self::Deregister { reason, .. } => ("deregister", reason.as_str()),
            Self::Terminate { reason, .. } => ("terminate", reason.as_str()),
            Self::DeleteSecret { .. } => ("delete_secret", "read"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(create) => {
                let Create { name, origin, labels, .. } = create;
                write!(
                    f,
                    "create {name} for job {} of {}: class {}, labels {labels}",
                    name.job, origin.scope, origin.class
                )?;
                if origin.machine.gpu.is_some() { write!(f, ", on {}", origin.machine) } else { Ok(()) }
            }
            Self::PrepareImage { class, replaces: None, .. } => write!(f, "prepare the image of class {class}"),
            Self::PrepareImage { class, replaces: Some(image), .. } => {
                write!(f, "prepare the image of class {class} anew, in place of {image}")
            }
            Self::Deregister { name, registry, reason, .. } => {
                write!(f, "deregister {name} in {registry}: {}", reason.as_str())
            }
            Self::Terminate { name, sandbox, reason } => write!(f, "terminate {name} ({sandbox}): {}", reason.as_str()),
            Self::DeleteSecret { name, .. } => write!(f, "delete the secret of {name}"),
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip job {} of {}: {}", self.job, self.scope, self.reason)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        for skip in &self.skips {
            writeln!(f, "{skip}")?;
        }
        Ok(())
    }
}
