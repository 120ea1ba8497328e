//! The difference between what should be and what is (pure).
//!
//! [`plan`] looks at everything that was observed and returns what to do, and for every queued job that
//! gets nothing the reason. Invariant: no client, no tokio, no clock, no random source. The same input
//! gives the same plan.

mod claims;
mod demand;
mod display;
mod group;
mod images;
mod limits;
mod machine;
mod reap;
mod supply;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::allow::RepoPatterns;
use crate::class::{Machine, NoClass, RunnerClass};
use crate::cost::{Prices, Usd};
use crate::evidence::Evidence;
use crate::github::is_enterprise_server;
use crate::ids::{
    AccountName, ClassName, CredentialName, Deployment, ImageId, JobId, Labels, OrgName, OurName, RepoName, RunId,
    RunnerId, SandboxId, SecretId,
};
use crate::pause::Pause;
use crate::poll::ListOrder;
use crate::runner::RunnerVersion;
use crate::state::{Observed, Org, Origin, Registry, Scope};

pub(crate) use group::{Joining, admitted_by_any, refusal as group_refusal};
pub use group::{group_holds_jobs, workflow_doubt};
pub use machine::machine_choice;
pub(crate) use supply::{LISTS_LAG, may_have_served};
pub use supply::{SandboxState, state_of};

/// The rules that the operator gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The name of this installation.
    pub deployment: Deployment,
    /// The label by which a job asks for a sandbox, in lower case.
    pub required_label: String,
    /// The accounts and what they serve.
    pub accounts: BTreeMap<AccountName, AccountPolicy>,
    /// The classes, in the order in which they are tried.
    pub classes: Vec<RunnerClass>,
    /// How much may run.
    pub limits: Limits,
    /// How fast a run's runners grow before one of them took a job.
    pub waves: Waves,
    /// How long a runner may wait before its group's queued jobs are no longer trusted to be claimable
    /// (default 90 s).
    pub claim_window: Duration,
    /// How often everything is looked at.
    pub interval: Duration,
    /// What no run list may be older than where not all can be read each interval.
    pub max_interval: Duration,
    /// Which run list is read next then.
    pub list_order: ListOrder,
    /// Whether the default image holds whatever release of the runner GitHub offers.
    pub follows_releases: bool,
    /// Where the runner is in every image.
    pub runner_dir: String,
    /// What sandboxes cost where Modal does not tell.
    pub prices: Prices,
}

/// What one GitHub account serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountPolicy {
    /// Where it stands among the accounts of the configuration.
    pub order: usize,
    /// Address of the REST API: repositories of one name are one only there.
    pub host: String,
    /// The allowed repositories that are named.
    pub repos: BTreeSet<RepoName>,
    /// Patterns for others.
    pub patterns: RepoPatterns,
    /// The runner group of new runners of repositories.
    pub runner_group_id: u64,
    /// Organizations whose repositories get runners of the organization, with the group that these join.
    pub organizations: BTreeMap<OrgName, RunnerGroupChoice>,
    /// What it is asked with.
    pub credentials: Credentials,
}

/// The credentials of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// One for all its repositories: a token.
    One,
    /// One for each owner of its repositories: the installations of a GitHub App.
    PerOwner,
}

/// How the operator names a runner group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerGroupChoice {
    /// By its name.
    Name(String),
    /// By its id.
    Id(u64),
}

impl std::fmt::Display for RunnerGroupChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// How much may run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sandboxes in all.
    pub sandboxes: u32,
    /// Sandboxes of one repository.
    pub sandboxes_per_repo: Option<u32>,
    /// GPUs in all.
    pub gpus: u32,
    /// US dollars a day, from midnight to midnight UTC.
    pub spend_per_day: Option<Usd>,
}

/// The most unclaimed runners per run and label set at first (design rule C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waves {
    /// For a class without a GPU.
    pub first: u32,
    /// For a class with a GPU.
    pub first_gpu: u32,
}

impl Policy {
    /// The class of that name.
    pub fn class(&self, name: &ClassName) -> Option<&RunnerClass> {
        self.classes.iter().find(|class| class.name == *name)
    }

    /// Whether any class asks for a GPU.
    pub fn has_gpus(&self) -> bool {
        self.classes.iter().any(|class| class.gpu.is_some())
    }

    /// Whether what was spent may stop creates.
    pub fn limits_spend(&self) -> bool {
        self.limits.spend_per_day.is_some() || self.classes.iter().any(|class| class.spend_per_day.is_some())
    }

    /// The runner group that runners of an organization join.
    pub fn runner_group(&self, org: &Org) -> Option<&RunnerGroupChoice> {
        self.accounts.get(&org.account)?.organizations.get(&org.name)
    }

    /// Where the runners of a repository are registered.
    pub fn registry(&self, scope: &Scope) -> Registry {
        let organizations = self.accounts.get(&scope.account).map(|account| &account.organizations);
        let org = organizations.into_iter().flat_map(BTreeMap::keys).find(|org| org.as_str() == scope.repo.owner());
        match org {
            Some(name) => Registry::Org(Org { account: scope.account.clone(), name: name.clone() }),
            None => Registry::Repo(scope.clone()),
        }
    }

    /// The credential by which runners are read, registered and deleted.
    pub fn credential_of(&self, registry: &Registry) -> CredentialName {
        match registry {
            Registry::Repo(scope) => self.credential(scope),
            Registry::Org(org) => self.credential_at(&org.account, org.name.as_str()),
        }
    }

    /// The credential by which a repository is read and written.
    pub fn credential(&self, scope: &Scope) -> CredentialName {
        self.credential_at(&scope.account, scope.repo.owner())
    }

    /// Whether two repositories are read and written by one credential.
    pub fn share_credential(&self, one: &Scope, other: &Scope) -> bool {
        let is_one = || {
            let credentials = self.accounts.get(&one.account).map(|policy| policy.credentials);
            credentials != Some(Credentials::PerOwner)
        };
        one.account == other.account && (is_one() || one.repo.owner() == other.repo.owner())
    }

    /// The credential by which an owner's things are read and written.
    pub fn credential_at(&self, account: &AccountName, owner: &str) -> CredentialName {
        match self.accounts.get(account).map(|policy| policy.credentials) {
            Some(Credentials::PerOwner) => CredentialName::of_installation(account.clone(), owner),
            Some(Credentials::One) | None => CredentialName::of_account(account.clone()),
        }
    }

    /// Every repository that is named; lists show others.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.accounts.iter().flat_map(|(account, policy)| {
            policy.repos.iter().map(|repo| Scope { account: account.clone(), repo: repo.clone() })
        })
    }
}

impl AccountPolicy {
    /// Whether it serves a repository: by its name, or by a pattern.
    pub fn serves(&self, repo: &RepoName) -> bool {
        self.repos.contains(repo) || self.patterns.admit(repo)
    }

    /// Whether GitHub takes no runner that old there; it does not always say so.
    pub fn is_below_floor(&self, version: RunnerVersion) -> bool {
        version < RunnerVersion::FLOOR && !is_enterprise_server(&self.host)
    }
}

/// Register a runner and create the sandbox that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The name of both.
    pub name: OurName,
    /// For what.
    pub origin: Origin,
    /// The labels of the runner: exactly those of the job.
    pub labels: Labels,
    /// The runner group that it joins.
    pub runner_group_id: u64,
    /// The file name of the job's workflow, in the form of a tag; none where it is not known.
    pub workflow: Option<String>,
    /// What its sandbox costs per hour; none where that is not known.
    pub price: Option<Usd>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Register a runner and create its sandbox.
    Create(Create),
    /// Make the image of a class ready.
    PrepareImage {
        /// The class.
        class: ClassName,
        /// A repository that waits for it: GitHub is asked there for the runner's release.
        scope: Scope,
        /// The image that it has, where that is made anew although nothing of it is missing.
        replaces: Option<ImageId>,
    },
    /// Delete the registration of a runner.
    Deregister {
        /// Its name.
        name: OurName,
        /// Where it is registered.
        registry: Registry,
        /// Its id.
        runner: RunnerId,
        /// Why.
        reason: DeregisterReason,
        /// Whether a Secret is looked for first: nothing leads to it once the registration is gone.
        secret: SecretLook,
    },
    /// Terminate a sandbox.
    Terminate {
        /// Its name.
        name: OurName,
        /// Its id.
        sandbox: SandboxId,
        /// Why.
        reason: TerminateReason,
    },
    /// Delete the Secret of a sandbox, which it no longer needs.
    DeleteSecret {
        /// The name of the sandbox.
        name: OurName,
        /// The Secret.
        secret: SecretId,
    },
}

/// Whether the Secret of a registration is looked for by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretLook {
    /// There can be none, or its sandbox leads to it.
    None,
    /// It is; that Modal knows none proves nothing yet (design rule I).
    First,
    /// It is once more.
    Again,
}

/// Why a registration is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeregisterReason {
    /// It has no sandbox, in two known readings, for at least five minutes.
    Stale,
    /// Its sandbox did not bring it online in time.
    FailedStart,
    /// Modal did not place its sandbox on a machine in time.
    NoCapacity,
}

/// Why a sandbox is terminated. There is no other reason (design rule D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TerminateReason {
    /// Its runner never came online; it is fenced, and no job names it.
    FailedStart,
    /// Modal never placed it on a machine.
    NoCapacity,
}

/// A queued job that gets nothing in this pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Its repository.
    pub scope: Scope,
    /// Its run.
    pub run: RunId,
    /// The job.
    pub job: JobId,
    /// Its class, where it has one.
    pub class: Option<ClassName>,
    /// Why.
    pub reason: SkipReason,
    /// When it is looked at again.
    pub again_at: DateTime<Utc>,
}

/// Why a queued job gets nothing in this pass: the whole list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// No class serves it.
    NoClass(NoClass),
    /// A runner that can take it starts or waits.
    AlreadyServed,
    /// Its sandbox waits for a machine.
    Unscheduled {
        /// For which.
        machine: Machine,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// Its last reading says queued, an earlier one said in progress: it waits for a second opinion.
    SeenInProgress,
    /// The newest reading that shows it queued is from before a long pause.
    Outdated,
    /// The operator holds it back.
    Paused(Pause),
    /// Modal's list was not read yet, or not for too long.
    FleetUnknown(String),
    /// The runner group that its runner would join does not suit.
    RunnerGroup(Arc<str>),
    /// The image of its class is being made.
    ImageBuilding,
    /// The image of its class could not be made.
    ImageFailed(Arc<str>),
    /// GitHub takes no runners of the version that is in the image of its class.
    RunnerVersion {
        /// The version.
        version: RunnerVersion,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// There is a limit to what may be spent, and what was spent today is not known yet, or what a sandbox would cost.
    SpendUnknown(String),
    /// A limit is reached.
    AtLimit(Limit),
    /// As many runners of its run are there as its wave admits.
    FirstWave {
        /// How many may be.
        wave: u32,
    },
    /// A runner waited in vain while it was queued: it waits for the next probe of its group.
    Unproven,
    /// Several runners that were made for it waited in vain: GitHub lists it as queued and gives it to nobody.
    GhostJob,
    /// Runners of its class did not start, or GitHub refuses the runner version of its image.
    Breaker {
        /// What happened last, as the end of a sandbox is named.
        reason: Arc<str>,
        /// How often in a row.
        failures: u32,
    },
    /// Runners for it ended without serving; the next attempt is a probe.
    Fruitless {
        /// How many.
        attempts: u32,
    },
    /// Modal's machines failed or were taken away under its runners; the next attempt is a probe.
    MachinesLost {
        /// How many.
        machines: u32,
    },
    /// GitHub refuses to register a runner in its repository.
    MintRefused(String),
    /// Modal refuses to create a sandbox of its class.
    CreateRefused(String),
    /// The spend limit of Modal's workspace is reached.
    ModalSpendLimit,
    /// The GitHub budget of its account admits no further registration.
    GithubBudget,
    /// Modal's rate of creates admits no further one.
    ModalRate,
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// `limits.max_sandboxes`.
    Sandboxes(u32),
    /// `limits.max_sandboxes_per_repo`.
    SandboxesPerRepo(u32),
    /// The class's `max_sandboxes`.
    Class(u32),
    /// `limits.max_gpus`.
    Gpus {
        /// The limit.
        limit: u32,
        /// How many are asked for by sandboxes that have no machine yet, or are given up for that.
        waiting: u32,
    },
    /// The GPUs that Modal lets its workspace use.
    ModalGpus {
        /// How many are in use, by whomever.
        used: u32,
        /// How many may be.
        most: u32,
    },
    /// What Modal has room for: it refused a further one.
    Modal {
        /// How many sandboxes.
        sandboxes: u32,
        /// How many containers its workspace runs, of whomever, and may, where Modal has said so.
        tasks: Option<(u32, u32)>,
    },
    /// `limits.spend_per_day`.
    SpendPerDay(Usd),
    /// The class's `spend_per_day`.
    ClassSpendPerDay(Usd),
}

/// Counts of one class, for metrics and people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Queued jobs per repository.
    pub queued: BTreeMap<RepoName, u32>,
    /// Since when the oldest of them is queued.
    pub oldest_queued: Option<DateTime<Utc>>,
    /// Living sandboxes per state.
    pub sandboxes: BTreeMap<SandboxState, u32>,
}

/// What to do, and why the rest is not done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps; creates in the order in which they are due.
    pub actions: Vec<Action>,
    /// Every queued job without a create.
    pub skips: Vec<Skip>,
    /// Counts per class.
    pub tally: BTreeMap<ClassName, Tally>,
    /// How many creates wait for the GitHub budget of a credential.
    pub waits_for_mints: BTreeMap<CredentialName, usize>,
}

/// Plans one pass.
pub fn plan(observed: &Observed, evidence: &Evidence, policy: &Policy, now: DateTime<Utc>) -> Plan {
    let soon = now + TimeDelta::from_std(policy.interval).unwrap_or(TimeDelta::MAX);
    let context = Context { observed, evidence, policy, now, soon };
    let mut plan = Plan::default();
    let mut groups = demand::groups(&context, &mut plan);
    let supply = supply::count(&context, &mut groups, &mut plan);
    let needs = demand::needs(&mut groups, &supply, &context, &mut plan);
    let needs = claims::within_waves(needs, &groups, &supply, &context, &mut plan);
    limits::admit(needs, &groups, &supply, &context, &mut plan);
    images::renew(&context, &mut plan);
    images::look_again(&context, &mut plan);
    images::catch_up(&context, &mut plan);
    reap::reap(&supply, &context, &mut plan);
    plan
}

/// What every step of the plan looks at.
#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    observed: &'a Observed,
    evidence: &'a Evidence,
    policy: &'a Policy,
    now: DateTime<Utc>,
    /// When a job is looked at again where nothing tells a better time.
    soon: DateTime<Utc>,
}

/// What stands beside a key in a map, where keys are asked for in their order: one walk joins two maps.
fn beside<'a, K: Ord, V>(map: &mut Peekable<btree_map::Iter<'a, K, V>>, key: &K) -> Option<&'a V> {
    loop {
        let (known, value) = map.peek()?;
        match (*known).cmp(key) {
            Ordering::Less => map.next(),
            Ordering::Equal => return Some(value),
            Ordering::Greater => return None,
        };
    }
}

/// Two maps walked as one, in the order of their keys.
struct Joined<'a, K, A, B> {
    one: Peekable<btree_map::Iter<'a, K, A>>,
    other: Peekable<btree_map::Iter<'a, K, B>>,
}

impl<'a, K: Ord, A, B> Joined<'a, K, A, B> {
    fn new(one: &'a BTreeMap<K, A>, other: &'a BTreeMap<K, B>) -> Self {
        Self { one: one.iter().peekable(), other: other.iter().peekable() }
    }
}

impl<'a, K: Ord, A, B> Iterator for Joined<'a, K, A, B> {
    type Item = (&'a K, Option<&'a A>, Option<&'a B>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.one.peek(), self.other.peek()) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let one = if order.is_le() { self.one.next() } else { None };
        let other = if order.is_ge() { self.other.next() } else { None };
        let key = one.map(|(key, _)| key).or(other.map(|(key, _)| key))?;
        Some((key, one.map(|(_, value)| value), other.map(|(_, value)| value)))
    }
}
