//! The words for each reason why a job gets nothing: what it waits for, who is in the way, what comes next, and what a
//! person can do.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::{Known, RecentEnd, at_text, failures_of, span};
use crate::class::{NoClass, Risk};
use crate::ids::OurName;
use crate::pause::Pause;
use crate::plan::{Limit, SandboxState, Skip, SkipReason, state_of};
use crate::state::{Origin, OurSandbox, WorkflowJob};

/// How many of something are named before the rest is counted.
const NAMED: usize = 5;

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) what: String,
    pub(super) details: Vec<String>,
    pub(super) failures: Vec<RecentEnd>,
    pub(super) next: String,
    pub(super) remedy: Option<String>,
}

impl Why {
    pub(super) fn new(what: &str, next: &str) -> Self {
        Self { what: what.to_owned(), details: Vec::new(), failures: Vec::new(), next: next.to_owned(), remedy: None }
    }

    fn with(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    pub(super) fn with_remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }

    fn with_failures(mut self, failures: Vec<RecentEnd>) -> Self {
        self.failures = failures;
        self
    }
}

/// The words for a job that got nothing.
pub(super) fn of(skip: &Skip, job: &WorkflowJob, known: &Known<'_>) -> Why {
    let what = skip.reason.to_string();
    match &skip.reason {
        SkipReason::NoClass(reason) => no_class(reason, &what, known),
        SkipReason::AlreadyServed => Why::new(&what, "GitHub gives it to the first of them that is free").with(supply(skip, job, known)),
        SkipReason::Unscheduled { since, .. } => {
            let class = skip.class.as_ref().and_then(|class| known.policy.class(class));
            let limit = class.and_then(|class| TimeDelta::from_std(class.clocks.schedule_timeout).ok());
            let until = limit.map(|limit| format!("it is given up {}", at_text(*since + limit, known.now)));
            Why::new(&what, "Modal places the sandbox, or it is given up and the next GPU of gpu_fallback is asked for")
                .with(until)
                .with_remedy("name other GPUs in gpu_fallback of its class, or fewer regions")
        }
        SkipReason::SeenInProgress => {
            Why::new(&what, "a list of jobs that GitHub made a minute later is believed").with(supply(skip, job, known))
        }
        SkipReason::Outdated => Why::new(&what, "its run is read first; then it gets a runner, if it is still queued").with(heard(skip, known)),
        SkipReason::Paused(Pause { held, .. }) => {
            Why::new(&what, "nothing, until it goes on").with_remedy(&format!("`{}`", held.resumed_by()))
        }
        SkipReason::FleetUnknown(_) => Why::new(&what, "Modal's list is read again, every few seconds; nothing is created blindly")
            .with_remedy("look at Modal's status page and, in `sandrunner status`, at whether its token is refused"),
        SkipReason::RunnerGroup(_) => Why::new(&what, "the runner group is read again every few minutes")
            .with_remedy("change the runner group in the settings of the organization, or `organizations` in the configuration"),
        SkipReason::ImageBuilding => Why::new(&what, "it gets a runner once the image is there; a first build takes minutes")
            .with_remedy("`sandrunner image list` shows the build"),
        SkipReason::ImageFailed(_) => {
            Why::new(&what, "the build is tried again").with_remedy("`sandrunner image show` prints the end of its log")
        }
        SkipReason::RunnerVersion { .. } => Why::new(&what, "another image is made or looked up for it")
            .with_remedy("set runner.version = \"auto\", or put a newer runner behind the same tag"),
        SkipReason::SpendUnknown(_) => Why::new(&what, "what was spent is read; without a price it stays so")
            .with_remedy("state the price of the GPU in cost.gpus, where that is what is missing"),
        SkipReason::AtLimit(limit) => at_limit(*limit, skip, known),
        SkipReason::FirstWave { .. } => Why::new(&what, "as soon as GitHub gives a job to one of them, twice as many may wait")
            .with(supply(skip, job, known))
            .with_remedy("where they wait although jobs are queued, look at max-parallel and the runner group on GitHub"),
        SkipReason::Unproven => Why::new(&what, "one further runner at a time tries it; a job of its run that ends opens the way at once")
            .with_remedy("max-parallel and concurrency of its workflow, and the runner group, are what keeps GitHub from giving jobs out"),
        SkipReason::GhostJob => Why::new(&what, "it is tried again when its run changes, and more and more seldom beside")
            .with_remedy("cancel its run on GitHub and start it again"),
        SkipReason::Breaker { .. } => {
            let failures = failures_of(skip.class.as_ref(), known);
            Why::new(&what, "one sandbox tries it; one that comes online closes the breaker")
                .with_failures(failures)
                .with_remedy("`sandrunner logs` shows what those sandboxes printed")
        }
        SkipReason::Fruitless { .. } => Why::new(&what, "one further runner is made, after a pause that doubles")
            .with_remedy(&format!("`sandrunner logs {}` shows what they printed", skip.job)),
        SkipReason::MachinesLost { .. } => Why::new(&what, "one further runner is made, after a pause that doubles")
            .with_remedy("machines with a GPU may be taken away at any time; another GPU or region may last longer"),
        SkipReason::MintRefused(_) => Why::new(&what, "it is tried again").with_remedy(
            "give the token or App *Administration: write* on the repository, and allow self-hosted runners there",
        ),
        SkipReason::CreateRefused(_) => Why::new(&what, "it is tried again, more and more seldom")
            .with_remedy("the text is Modal's; the class's image, volumes, secrets or GPU are what it may mean"),
        SkipReason::ModalSpendLimit => Why::new(&what, "it is looked at every minute").with_remedy("raise the limit in Modal's settings"),
        SkipReason::GithubBudget => budget(skip, &what, known),
        SkipReason::ModalRate => Why::new(&what, "in seconds").with_remedy("creates_per_second and create_burst in [modal], if Modal gives more"),
    }
}

fn no_class(reason: &NoClass, what: &str, known: &Known<'_>) -> Why {
    let nothing = "nothing: it is left alone until its labels or the configuration change";
    match reason {
        NoClass::NotOptedIn => {
            let label = &known.policy.required_label;
            Why::new(what, nothing).with_remedy(&format!("add `{label}` to its runs-on, if it is meant for a sandbox"))
        }
        NoClass::Refused { class, risk } => Why::new(what, nothing).with_remedy(&match risk {
            Risk::Fork => format!("allow_forks = true in class {class}, if strangers may run code there"),
            Risk::Public => format!("allow_public_repos = true in class {class}, if strangers may run code there"),
        }),
        NoClass::NoMatch { nearest, fails_on } => {
            let class = nearest.as_ref().and_then(|name| known.policy.class(name));
            let offers = class.map(|class| {
                let labels = if class.labels.is_empty() {
                    "no labels of its own".to_owned()
                } else {
                    format!("`{}`", class.labels)
                };
                format!("class {} offers {labels}, beside those that every class does", class.name)
            });
            Why::new(what, nothing)
                .with(offers)
                .with_remedy(&format!("take `{fails_on}` out of its runs-on, or add a class that offers it"))
        }
    }
}

/// The sandboxes that can take a job.
fn supply(skip: &Skip, job: &WorkflowJob, known: &Known<'_>) -> Vec<String> {
    let group = job.labels.fingerprint();
    let is_for_it = |origin: &Origin| {
        origin.group == group && known.policy.registry(&origin.scope) == known.policy.registry(&skip.scope)
    };
    let observed = known.observed;
    let living = living(known).filter(|(_, sandbox, _)| is_for_it(&sandbox.origin));
    let living = living.filter(|(_, _, state)| match state {
        SandboxState::Creating | SandboxState::Unscheduled | SandboxState::Starting | SandboxState::Idle => true,
        SandboxState::Claimed | SandboxState::Failed | SandboxState::Ending => false,
    });
    let living = living.map(|(name, sandbox, state)| {
        let age = span(known.now - sandbox.created(observed.skew));
        format!("{name} ({}) is {}, {age} old", sandbox.id, state.as_str())
    });
    let asked =
        observed.in_flight.iter().chain(&observed.fleet.unsure).filter(|(_, creating)| is_for_it(&creating.origin));
    let asked =
        asked.map(|(name, creating)| format!("{name} is asked for, since {}", span(known.now - creating.since)));
    named(living.chain(asked).collect())
}

/// The first of them, and how many more there are.
fn named(mut all: Vec<String>) -> Vec<String> {
    if let Some(more) = all.len().checked_sub(NAMED).filter(|more| *more > 0) {
        all.truncate(NAMED);
        all.push(format!("and {more} more"));
    }
    all
}

fn living<'a>(known: &Known<'a>) -> impl Iterator<Item = (&'a OurName, &'a OurSandbox, SandboxState)> {
    let Known { observed, evidence, policy, now, .. } = *known;
    observed.fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()).map(move |(name, sandbox)| {
        let clocks = policy.class(&sandbox.origin.class).map(|class| &class.clocks);
        (name, sandbox, state_of(sandbox, evidence.names.get(name), clocks, observed.skew, now))
    })
}

/// When its run was last read, and why not since.
fn heard(skip: &Skip, known: &Known<'_>) -> Option<String> {
    let run = known.observed.repos.get(&skip.scope)?.runs.get(&skip.run)?;
    let at = run.jobs_read.known_at.map_or_else(|| "never".to_owned(), |at| at_text(at, known.now));
    let why = run.jobs_read.failure.as_ref().map_or_else(String::new, |failure| format!("; since then: {failure}"));
    Some(format!("the jobs of its run were last read {at}{why}"))
}

/// A limit, and who holds it.
fn at_limit(limit: Limit, skip: &Skip, known: &Known<'_>) -> Why {
    let what = limit.to_string();
    let frees =
        "the next sandbox that ends makes room; what is short goes to the repository with fewest sandboxes first";
    let is_of_class = |origin: &Origin| Some(&origin.class) == skip.class.as_ref();
    let by_repo = |origin: &Origin| origin.scope.repo.to_string();
    let by_class = |origin: &Origin| format!("class {}", origin.class);
    match limit {
        Limit::Sandboxes(_) => {
            Why::new(&what, frees).with(holders(known, |_| true, by_repo)).with_remedy("raise limits.max_sandboxes")
        }
        Limit::SandboxesPerRepo(_) => {
            let holders = holders(known, |origin| origin.scope == skip.scope, by_class);
            Why::new(&what, frees).with(holders).with_remedy("raise limits.max_sandboxes_per_repo")
        }
        Limit::Class(_) => Why::new(&what, frees)
            .with(holders(known, is_of_class, by_repo))
            .with_remedy("raise max_sandboxes of its class"),
        Limit::Gpus { .. } => {
            let holders = holders(known, |origin| origin.machine.gpu.is_some(), by_class);
            Why::new(&what, frees).with(holders).with_remedy("raise limits.max_gpus")
        }
        Limit::ModalGpus { .. } => {
            let holders = holders(known, |origin| origin.machine.gpu.is_some(), by_class);
            Why::new(&what, "Modal's quota is looked at again")
                .with(holders)
                .with_remedy("ask Modal for more, or use fewer elsewhere")
        }
        Limit::Modal { .. } => Why::new(&what, "one more is tried after a pause")
            .with(holders(known, |_| true, by_repo))
            .with_remedy("ask Modal for more"),
        Limit::SpendPerDay(_) => Why::new(&what, "it goes on at midnight UTC")
            .with(spenders(known))
            .with_remedy("raise limits.spend_per_day"),
        Limit::ClassSpendPerDay(_) => {
            Why::new(&what, "it goes on at midnight UTC").with_remedy("raise spend_per_day of its class")
        }
    }
}

/// Who has the sandboxes that count, most first.
fn holders(known: &Known<'_>, counts: impl Fn(&Origin) -> bool, whose: impl Fn(&Origin) -> String) -> Option<String> {
    let observed = known.observed;
    let alive =
        observed.fleet.sandboxes.values().filter(|sandbox| sandbox.ended.is_none()).map(|sandbox| &sandbox.origin);
    let asked = observed.in_flight.values().chain(observed.fleet.unsure.values()).map(|creating| &creating.origin);
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for origin in alive.chain(asked).filter(|origin| counts(origin)) {
        *by.entry(whose(origin)).or_default() += 1;
    }
    most_first(by.into_iter().map(|(whose, count)| (whose, count.to_string(), count)).collect())
        .map(|list| format!("held by {list}"))
}

/// What cost most today.
fn spenders(known: &Known<'_>) -> Option<String> {
    let by = known.observed.spend.by_class.iter();
    let by = by.map(|(class, spent)| (format!("class {class}"), format!("{spent} USD"), *spent));
    most_first(by.collect()).map(|list| format!("spent by {list}"))
}

fn most_first<T: Ord>(mut all: Vec<(String, String, T)>) -> Option<String> {
    all.sort_by(|one, other| other.2.cmp(&one.2).then_with(|| one.0.cmp(&other.0)));
    let list = named(all.into_iter().map(|(whose, amount, _)| format!("{whose} ({amount})")).collect());
    (!list.is_empty()).then(|| list.join(", "))
}

fn budget(skip: &Skip, what: &str, known: &Known<'_>) -> Why {
    let credential = known.policy.credential_of(&known.policy.registry(&skip.scope));
    let waiting = known.plan.waits_for_mints.get(&credential).copied().unwrap_or(0);
    Why::new(what, "it gets a runner as soon as GitHub's rate allows, the oldest job first")
        .with([format!("{waiting} registrations wait for the budget of {credential}")])
        .with_remedy("points_per_minute and mutations_per_minute of the account, if nothing else uses its token; a GitHub App has more")
}
