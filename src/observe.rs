//! Reads what is due and keeps the view of it. Holds reading calls only: nothing here can change anything.
//!
//! Each reading is a task of its own with a deadline; a failed one becomes data. What arrives is laid into
//! [`Observed`] without ever lowering what exists by a failure or by a list alone.

mod apply;
mod billing;
mod directory;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use tokio::task::{JoinError, JoinSet};

use crate::budget::{Budget, Capacity, Purpose, can_wait};
use crate::clock::Clock;
use crate::cost::Resources;
use crate::github::{GithubReader, GithubReaders};
use crate::ids::{
    AccountName, AppId, ClassName, CredentialName, Deployment, ImageId, OurName, RepoName, RunId, RunnerId, SandboxId,
    SecretId, TaskId,
};
use crate::modal::ModalReader;
use crate::plan::Policy;
use crate::poll::{self, Due, Read};
use crate::state::{Creating, Observed, Origin, OurSandbox, Owner, OwnerView, Scope};

pub use read::Arrival;

/// The readers, and what they need to know.
#[derive(Debug)]
pub struct Readers {
    /// Per account.
    pub github: BTreeMap<AccountName, GithubReaders>,
    /// Modal.
    pub modal: ModalReader,
    /// The App's id, once it is known.
    pub app: Mutex<Option<AppId>>,
    /// The most pages of one run list.
    pub runs_pages_max: u32,
    /// The rules, for which credential reads what.
    pub policy: Policy,
    /// Time.
    pub clock: Clock,
}

impl Readers {
    /// What reads with a credential.
    pub fn github_of(&self, credential: &CredentialName) -> Option<GithubReader> {
        Some(self.github.get(credential.account())?.get(credential))
    }

    /// What reads with each credential in use.
    pub fn all_github(&self) -> impl Iterator<Item = GithubReader> {
        self.github.values().flat_map(GithubReaders::all)
    }
}

/// A sandbox that one of our creates made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its id.
    pub id: SandboxId,
    /// For what it was made.
    pub origin: Origin,
    /// The Secret that holds its JIT config, where it needed one.
    pub secret: Option<SecretId>,
    /// The registration that it was made with.
    pub runner: Option<RunnerId>,
    /// What it was made from.
    pub image: Option<ImageId>,
    /// What runs it, where the create's answer said so.
    pub task: Option<TaskId>,
}

/// What was observed so far, and the readings under way.
#[derive(Debug)]
pub struct View {
    /// The data.
    pub observed: Observed,
    readers: Arc<Readers>,
    deployment: Deployment,
    /// Repositories by the value of their tag.
    scopes_by_tag: BTreeMap<(String, String), Scope>,
    /// Repositories that a pattern means and another account serves, each told of once.
    doubled: BTreeSet<Scope>,
    /// So that the sandboxes of a class share its name.
    classes_by_tag: BTreeMap<String, ClassName>,
    tasks: JoinSet<Arrival>,
    /// Readings under way, each with its credential.
    under_way: BTreeMap<Read, Option<CredentialName>>,
    arrived: Vec<Arrival>,
    /// When the next reading is admitted, where one was due and not admitted.
    admitted_at: Option<DateTime<Utc>>,
}

impl View {
    /// Knows the allowed repositories, and nothing of them.
    pub fn new(readers: Readers, policy: &Policy) -> Self {
        let mut observed = Observed::default();
        let mut scopes_by_tag = BTreeMap::new();
        for scope in policy.scopes() {
            scopes_by_tag.insert((scope.account.to_string(), scope.repo.as_tag()), scope.clone());
            let registry = policy.registry(&scope);
            observed.add(scope, registry);
        }
        for (account, policy) in &policy.accounts {
            for login in policy.patterns.owners() {
                let owner = Owner { account: account.clone(), login: Arc::clone(login) };
                observed.owners.insert(owner, OwnerView::default());
            }
        }
        Self {
            observed,
            readers: Arc::new(readers),
            deployment: policy.deployment.clone(),
            scopes_by_tag,
            doubled: BTreeSet::new(),
            classes_by_tag: policy.classes.iter().map(|class| (class_tag(&class.name), class.name.clone())).collect(),
            tasks: JoinSet::new(),
            under_way: BTreeMap::new(),
            arrived: Vec::new(),
            admitted_at: None,
        }
    }

    /// Starts the readings that are due, as far as their accounts admit them.
    pub fn refresh(&mut self, due: Vec<Due>, now: DateTime<Utc>) {
        let mut refused: BTreeSet<(CredentialName, Purpose)> = BTreeSet::new();
        let mut started: BTreeMap<CredentialName, u32> = BTreeMap::new();
        for Due { read, purpose, .. } in self.in_turn(due, now) {
            let key = read.key();
            if self.under_way.contains_key(&key) {
                continue;
            }
            let credential = read.credential(&self.readers.policy);
            if let Some(credential) = &credential {
                let refusal = (credential.clone(), purpose);
                if refused.contains(&refusal) {
                    continue;
                }
                let others = started.entry(credential.clone()).or_default();
                if !self.admits(credential, purpose, *others, now) {
                    refused.insert(refusal);
                    continue;
                }
                *others += 1;
            }
            self.under_way.insert(key, credential);
            self.note_asked(&read, now);
            let known = self.known_runs(&read);
            let deployment = self.deployment.clone();
            let versions = self.observed.runner_versions();
            let ended_since = read::ended_since(&self.observed, &self.readers.policy, now);
            let asked = read::Asked { read, purpose, known, deployment, versions, ended_since };
            self.tasks.spawn(read::read(Arc::clone(&self.readers), asked));
        }
        // What has only a share, or waits for room, is tried in the next pass, whenever that is.
        let waiting = refused.iter().filter(|(_, purpose)| !can_wait(*purpose));
        let budgets = waiting.filter_map(|(credential, _)| Some(self.readers.github_of(credential)?.budget()));
        self.admitted_at = budgets.map(|budget| lock(&budget).next_read(now)).min();
    }

    /// When the next reading is admitted, where one was due in the last pass and not admitted.
    pub fn admitted_at(&self) -> Option<DateTime<Utc>> {
        self.admitted_at
    }

    /// What readings each credential affords.
    pub fn capacities(&self, now: DateTime<Utc>) -> BTreeMap<CredentialName, Capacity> {
        let readers = self.readers.all_github();
        readers.map(|reader| (reader.credential().clone(), lock(&reader.budget()).capacity(now))).collect()
    }

    /// What each credential is planned to afford by its configuration.
    pub fn planned_capacities(&self) -> BTreeMap<CredentialName, Capacity> {
        let readers = self.readers.all_github();
        readers.map(|reader| (reader.credential().clone(), lock(&reader.budget()).planned())).collect()
    }

    /// Takes a hint that something happened to a run: it is read sooner than it would be, and decides nothing. Where the
    /// repository is meant and not known yet, that is the list that should show it; one that is not meant does nothing.
    pub fn nudge(&mut self, repo: &RepoName, run: RunId, now: DateTime<Utc>) {
        let observed = &mut self.observed;
        let mut is_known = false;
        for account in self.readers.policy.accounts.keys() {
            let scope = Scope { account: account.clone(), repo: repo.clone() };
            if let Some(repo) = observed.repos.get_mut(&scope).filter(|repo| repo.gone_since.is_none()) {
                repo.hints.add(run, now);
                is_known = true;
            }
        }
        for (account, patterns) in self.readers.policy.accounts.iter().filter(|_| !is_known) {
            if patterns.serves(repo) {
                let owner = Owner { account: account.clone(), login: repo.owner().into() };
                if let Some(owner) = observed.owners.get_mut(&owner) {
                    owner.hinted_at = Some(now);
                } else if let Some(app) = observed.apps.get_mut(account) {
                    app.hinted_at = Some(now);
                }
            }
        }
    }

    /// Moves readings that only refresh what is known before all others, as far as their share goes: where run
    /// lists and first readings alone exceed the budget, they would otherwise never be done.
    fn in_turn(&self, due: Vec<Due>, now: DateTime<Utc>) -> Vec<Due> {
        let mut shares: BTreeMap<CredentialName, u32> = BTreeMap::new();
        for reader in self.readers.all_github() {
            shares.insert(reader.credential().clone(), lock(&reader.budget()).refreshes_due(now));
        }
        let (urgent, rest): (Vec<Due>, Vec<Due>) = due.into_iter().partition(Due::is_urgent);
        let (early, rest) = poll::shared(rest, |due| {
            let Some(credential) = due.read.credential(&self.readers.policy) else { return false };
            let Some(share) = shares.get_mut(&credential).filter(|share| **share > 0) else { return false };
            // Sweeps wait for an account of their own as well, and are the oldest then: others take their turn.
            let can_start =
                !self.under_way.contains_key(&due.read.key()) && self.admits(&credential, due.purpose, 0, now);
            *share -= u32::from(can_start);
            can_start
        });
        urgent.into_iter().chain(early).chain(rest).collect()
    }

    /// Whether a request could be sent now beside `others` that this pass has started: each is charged a moment
    /// later, by itself. Those under way are few, as more would only wait for a connection.
    fn admits(&self, credential: &CredentialName, purpose: Purpose, others: u32, now: DateTime<Utc>) -> bool {
        self.readers.github_of(credential).is_some_and(|reader| {
            let admits = lock(&reader.budget()).admits_beside(purpose, others, now);
            let under_way = self.under_way.values().filter(|with| with.as_ref() == Some(credential)).count();
            admits && under_way < READS_AT_A_TIME
        })
    }

    /// Remembers when something was looked up, so that it is not looked up again at once.
    fn note_asked(&mut self, read: &Read, now: DateTime<Utc>) {
        let observed = &mut self.observed;
        let asked_at = match read {
            Read::Sandbox(name, _) => observed.fleet.sandboxes.get_mut(name).map(|sandbox| &mut sandbox.asked_at),
            Read::Named(name) => observed.fleet.unsure.get_mut(name).map(|creating| &mut creating.asked_at),
            Read::Run(scope, run) => observed.repos.get_mut(scope).and_then(|repo| {
                if !repo.runs.contains_key(run) {
                    repo.hints.asked(now);
                }
                repo.runs.get_mut(run).map(|run| &mut run.asked_at)
            }),
            Read::Fleet
            | Read::Ended
            | Read::Quota
            | Read::Rates
            | Read::Installations(_)
            | Read::Directory(_)
            | Read::Repo(_)
            | Read::Releases(_)
            | Read::Runs(..)
            | Read::Jobs(..)
            | Read::Runners(_)
            | Read::Group(_)
            | Read::Sweep(..) => None,
        };
        if let Some(asked_at) = asked_at {
            *asked_at = Some(now);
        }
    }

    fn known_runs(&self, read: &Read) -> BTreeSet<RunId> {
        match read {
            Read::Runs(scope, _) => {
                self.observed.repos.get(scope).map(|repo| repo.runs.keys().copied().collect()).unwrap_or_default()
            }
            Read::Fleet
            | Read::Ended
            | Read::Quota
            | Read::Rates
            | Read::Sandbox(..)
            | Read::Named(_)
            | Read::Installations(_)
            | Read::Directory(_)
            | Read::Repo(_)
            | Read::Releases(_)
            | Read::Run(..)
            | Read::Jobs(..)
            | Read::Runners(_)
            | Read::Group(_)
            | Read::Sweep(..) => BTreeSet::new(),
        }
    }

    /// Waits until a reading has arrived; for ever where none is under way.
    pub async fn arrival(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(arrival)) => self.arrived.push(arrival),
            Some(Err(error)) => self.start_over(&error),
            None => std::future::pending().await,
        }
    }

    /// A reading that panicked is due again; which one it was is not known, so all are forgotten.
    fn start_over(&mut self, error: &JoinError) {
        tracing::error!(%error, "a reading panicked");
        self.tasks = JoinSet::new();
        self.under_way.clear();
    }

    /// Lays everything that has arrived into the data.
    pub fn take_arrived(&mut self, now: DateTime<Utc>) {
        while let Some(joined) = self.tasks.try_join_next() {
            match joined {
                Ok(arrival) => self.arrived.push(arrival),
                Err(error) => self.start_over(&error),
            }
        }
        self.observed.skew = self.readers.clock.skew();
        apply::forget_past(&mut self.observed, now);
        directory::forget_gone(&mut self.observed, now);
        for arrival in std::mem::take(&mut self.arrived) {
            self.under_way.remove(&arrival.read.key());
            self.apply(arrival, now);
        }
    }

    /// Takes the sandbox that one of our creates made, before any list shows it.
    pub fn created(&mut self, name: &OurName, made: Made, now: DateTime<Utc>) {
        let Made { id, origin, secret, runner, image, task } = made;
        let created_at = now + self.observed.skew;
        self.observed.fleet.unsure.remove(name);
        apply::replace_earlier(&mut self.observed.fleet, name, (&id, created_at), now);
        let sandbox = OurSandbox {
            is_scheduled: !id.is_v1(),
            id,
            origin,
            created_at,
            scheduled_at: None,
            started_at: None,
            secret,
            runner,
            image,
            task,
            resources: Resources::default(),
            seen_at: now,
            missing_since: None,
            asked_at: None,
            unknown_since: None,
            ended: None,
        };
        self.observed.fleet.sandboxes.insert(name.clone(), sandbox);
    }

    /// Remembers a name that may have a sandbox.
    pub fn unsure(&mut self, name: &OurName, origin: Origin, now: DateTime<Utc>) {
        if !self.observed.fleet.sandboxes.contains_key(name) {
            self.observed.fleet.unsure.insert(name.clone(), Creating { origin, since: now, asked_at: None });
        }
    }

    /// Whether any reading is under way.
    pub fn is_reading(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// The readers, to ask for counts and budgets.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }
}

fn lock(budget: &Arc<Mutex<Budget>>) -> MutexGuard<'_, Budget> {
    budget.lock().expect("no holder of the budget panics")
}

/// The most readings of one credential under way: more would only wait for a connection.
const READS_AT_A_TIME: usize = 16;

/// The value of a tag for a class: its name without the colon, which tags may not hold.
pub fn class_tag(class: &ClassName) -> String {
    class.as_str().replace(':', "..")
}

/// The class of a tag.
fn class_of_tag(tag: &str) -> ClassName {
    ClassName::new(tag.replace("..", ":"))
}

/// The names of the tags that every sandbox of ours carries.
pub mod tag {
    /// Whose it is: the deployment.
    pub const DEPLOYMENT: &str = "sandrunner";
    /// The GitHub account.
    pub const ACCOUNT: &str = "account";
    /// The repository, see [`crate::ids::RepoName::as_tag`].
    pub const REPO: &str = "repo";
    /// The run of the job that caused it.
    pub const RUN: &str = "run";
    /// The job that caused it.
    pub const JOB: &str = "job";
    /// Its class.
    pub const CLASS: &str = "class";
    /// The fingerprint of its runner's labels.
    pub const GROUP: &str = "group";
    /// The Secret that holds its JIT config.
    pub const SECRET: &str = "secret";
    /// Its GPU and how many, see [`crate::class::Gpu::as_tag`]: limits count what is in use also after a restart.
    pub const GPU: &str = "gpu";
    /// The regions that it was asked for in, see [`crate::class::Machine::regions_tag`].
    pub const REGIONS: &str = "regions";
    /// The file name of the workflow of the job that caused it, where that is known.
    pub const WORKFLOW: &str = "workflow";
    /// The id of its registration: whoever finds the sandbox can fence it, also once GitHub lists its runner no more.
    pub const RUNNER: &str = "runner";
}
