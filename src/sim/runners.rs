//! Runner registrations, their connections and their ends.

use std::sync::Arc;

use chrono::TimeDelta;

use super::draws::{Purpose, seconds};
use super::engine::Due;
use super::fault::{FaultMode, Strike};
use super::github::Product;
use super::history::{Cause, Operation, RemovalReason, What, fingerprint};
use super::jit;
use super::jobs::{JobState, RepoKey, Time};
use super::sandboxes::{End, SandboxKey};
use super::world::State;
use crate::ids::Labels;

/// A registration: its repository and its id there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunnerKey {
    pub(super) repo: RepoKey,
    pub(super) id: u64,
}

/// Whether a registration ends with its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// A JIT runner: one job.
    Ephemeral,
    /// Somebody's permanent runner.
    Permanent,
}

/// What a runner is doing for a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) job: u64,
    /// When lists begin to show it as busy.
    pub(super) busy_from: Time,
}

/// A registered runner.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) lifetime: Lifetime,
    /// Its runner group; 1 in a repository.
    pub(super) group: u64,
    /// Where it was registered.
    pub(super) product: Product,
    pub(super) sandbox: Option<SandboxKey>,
    pub(super) claim: Option<Claim>,
    /// Until when a fault lets it get no job.
    pub(super) withheld_until: Option<Time>,
    /// Whether a fault has chosen the age at which it gets a job.
    is_aged: bool,
    /// From when on its JIT config is refused.
    config_until: Time,
    visible_at: Time,
    online_at: Option<Time>,
    offline_at: Option<Time>,
    removed_at: Option<Time>,
    gone_at: Option<Time>,
}

/// Whether a runner has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// It has not connected yet.
    Never,
    /// It is connected.
    Online,
    /// It was connected.
    Gone,
}

/// A runner as a list shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunnerView<'a> {
    pub(super) runner: &'a Runner,
    pub(super) connection: Connection,
    pub(super) is_busy: bool,
}

impl RunnerView<'_> {
    pub(super) fn is_online(&self) -> bool {
        self.connection == Connection::Online
    }
}

impl Runner {
    /// Whether its registration exists.
    pub(super) fn is_registered(&self) -> bool {
        self.removed_at.is_none()
    }

    /// Whether it listens and has no job.
    fn is_unclaimed(&self) -> bool {
        self.is_registered() && self.online_at.is_some() && self.offline_at.is_none() && self.claim.is_none()
    }

    /// Whether it could take a job.
    pub(super) fn is_idle(&self, now: Time) -> bool {
        self.is_unclaimed() && self.withheld_until.is_none_or(|until| until <= now)
    }

    pub(super) fn online_at(&self) -> Option<Time> {
        self.online_at
    }

    pub(super) fn is_aged(&self) -> bool {
        self.is_aged
    }

    /// How a list shows it that is as of `when`; none where it does not.
    pub(super) fn at(&self, when: Time) -> Option<RunnerView<'_>> {
        let is_listed = self.visible_at <= when && self.gone_at.is_none_or(|gone| gone > when);
        is_listed.then(|| self.view(when))
    }

    /// How a look-up by its id shows it at `now`.
    pub(super) fn view(&self, now: Time) -> RunnerView<'_> {
        let is_before = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let connection = match (is_before(self.online_at), is_before(self.offline_at)) {
            (false, _) => Connection::Never,
            (true, false) => Connection::Online,
            (true, true) => Connection::Gone,
        };
        let is_busy = self.claim.is_some_and(|claim| claim.busy_from <= now);
        RunnerView { runner: self, connection, is_busy }
    }
}

/// Why a registration is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MintRefusal {
    /// The name is taken.
    NameTaken,
}

/// What is asked of a mint, checked.
#[derive(Debug, Clone)]
pub(super) struct MintRequest {
    pub(super) name: String,
    pub(super) labels: Vec<String>,
    pub(super) work_folder: String,
    /// The runner group.
    pub(super) group: u64,
}

/// How a deletion ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deletion {
    Deleted,
    /// It runs a job.
    Busy(String),
    NotFound,
}

/// How late a runner is listed where the fault does not say.
const VISIBLE_LATE_SECS: f64 = 60.0;
/// When GitHub removes an idle runner where the fault does not say.
const REMOVED_IDLE_SECS: f64 = 120.0;
/// How long a registration that is gone is kept for lists that lag.
const KEPT_FOR_LISTS: TimeDelta = TimeDelta::minutes(5);

impl State {
    pub(super) fn runner(&self, key: RunnerKey) -> Option<&Runner> {
        self.repo(key.repo).runners.get(&key.id)
    }

    pub(super) fn runner_mut(&mut self, key: RunnerKey) -> Option<&mut Runner> {
        self.repo_mut(key.repo).runners.get_mut(&key.id)
    }

    /// Registers a runner and writes its JIT config.
    pub(super) fn mint(
        &mut self,
        repo: RepoKey,
        request: &MintRequest,
        product: Product,
    ) -> Result<(u64, String), MintRefusal> {
        let now = self.now;
        let is_taken = |runner: &Runner| runner.is_registered() && runner.name.eq_ignore_ascii_case(&request.name);
        if self.repo(repo).runners.values().any(is_taken) {
            return Err(MintRefusal::NameTaken);
        }
        let is_old = |runner: &Runner| runner.gone_at.is_some_and(|gone| now - gone >= KEPT_FOR_LISTS);
        let keys = self.repo(repo).runners.keys().map(|id| RunnerKey { repo, id: *id });
        let old = |key: &RunnerKey| self.runner(*key).is_some_and(is_old) && !self.is_working(*key);
        let old: Vec<u64> = keys.filter(old).map(|key| key.id).collect();
        self.repo_mut(repo).runners.retain(|id, _| old.binary_search(id).is_err());
        let key = self.register(repo, &request.name, Labels::new(&request.labels), Lifetime::Ephemeral);
        if let Some(runner) = self.runner_mut(key) {
            (runner.group, runner.product) = (request.group, product);
        }
        self.minted += 1;
        let mut draw = self.seed.stream(Purpose::Identity, self.minted);
        let credential = draw.text(b"0123456789abcdef", 32);
        let full_name = self.repo(repo).full_name.clone();
        let registration = jit::Registration {
            runner_id: key.id,
            runner_name: &request.name,
            repo: &full_name,
            work_folder: &request.work_folder,
            credential: &credential,
        };
        let config = jit::encode(&registration, &mut draw);
        let runner = self.runner(key).expect("it was just registered");
        let what = What::RunnerRegistered {
            repo: Arc::clone(&self.repo(repo).name),
            runner_id: key.id,
            runner: request.name.clone(),
            labels: runner.labels.iter().map(str::to_owned).collect(),
            config: fingerprint(&credential),
        };
        self.credentials.insert(credential, key);
        self.record(what);
        self.schedule(now + seconds(self.profile.unused_registration_secs), Due::RegistrationExpires(key));
        Ok((key.id, config))
    }

    pub(super) fn register(&mut self, repo: RepoKey, name: &str, labels: Labels, lifetime: Lifetime) -> RunnerKey {
        let now = self.now;
        let id = self.repo(repo).next_runner;
        let late = self.runner_draw(RunnerKey { repo, id }, 0).span(self.profile.runner_visible_secs);
        let valid_for = seconds(self.profile.jit_config_secs);
        let entry = self.repo_mut(repo);
        entry.next_runner += 1;
        let runner = Runner {
            id,
            name: name.to_owned(),
            labels,
            lifetime,
            group: 1,
            product: Product::Cloud,
            sandbox: None,
            claim: None,
            withheld_until: None,
            is_aged: false,
            config_until: now + valid_for,
            visible_at: now + late,
            online_at: None,
            offline_at: None,
            removed_at: None,
            gone_at: None,
        };
        entry.runners.insert(id, runner);
        RunnerKey { repo, id }
    }

    pub(super) fn runner_draw(&self, key: RunnerKey, question: u64) -> super::draws::Draw {
        self.seed.stream(Purpose::Runner, (key.repo.0 as u64) << 40 | key.id << 4 | question)
    }

    /// Changes a registration that was just made as a fault wants it.
    pub(super) fn spoil_registration(&mut self, key: RunnerKey, strike: Strike) {
        let now = self.now;
        let Some(runner) = self.runner_mut(key) else { return };
        if strike.mode == FaultMode::VisibleLate {
            runner.visible_at = now + seconds(strike.seconds_or(VISIBLE_LATE_SECS));
        } else if strike.mode == FaultMode::Expired {
            runner.config_until = now + seconds(strike.seconds_or(0.0));
        }
    }

    pub(super) fn mark_aged(&mut self, key: RunnerKey) {
        if let Some(runner) = self.runner_mut(key) {
            runner.is_aged = true;
        }
    }

    /// Whether it runs a job, registered or not.
    pub(super) fn is_working(&self, key: RunnerKey) -> bool {
        let job = self.runner(key).and_then(|runner| runner.claim).map(|claim| &self.jobs[&claim.job]);
        job.is_some_and(|job| job.state() == Some(JobState::InProgress) && job.is_run_by(key))
    }

    /// A runner connects; refused where its registration is gone or used, or its config is too old.
    pub(super) fn connect(&mut self, key: RunnerKey, sandbox: Option<SandboxKey>) -> bool {
        let now = self.now;
        let can = |runner: &&mut Runner| {
            let is_in_time = runner.lifetime == Lifetime::Permanent || now < runner.config_until;
            runner.is_registered() && runner.online_at.is_none() && is_in_time
        };
        let Some(runner) = self.runner_mut(key).filter(can) else { return false };
        runner.online_at = Some(now);
        runner.sandbox = sandbox;
        let name = runner.name.clone();
        let lifetime = runner.lifetime;
        let what = What::RunnerOnline {
            repo: Arc::clone(&self.repo(key.repo).name),
            runner: name,
            sandbox: sandbox.map(|sandbox| Arc::clone(&self.sandbox(sandbox).id)),
        };
        self.record(what);
        self.schedule_offer(key);
        if lifetime == Lifetime::Ephemeral {
            self.plan_idle_removal(key);
        }
        true
    }

    fn plan_idle_removal(&mut self, key: RunnerKey) {
        let now = self.now;
        if let Some(span) = self.profile.idle_removal_secs {
            let idle = self.runner_draw(key, 1).span(span);
            self.schedule(now + idle, Due::RunnerIdles(key));
        }
        let repo = Arc::clone(&self.repo(key.repo).name);
        if let Some(strike) = self.strike(Operation::Connect, &repo) {
            self.schedule(now + seconds(strike.seconds_or(REMOVED_IDLE_SECS)), Due::RunnerIdles(key));
        }
    }

    /// Lets a runner look for a job soon.
    pub(super) fn schedule_offer(&mut self, key: RunnerKey) {
        let wait = self.runner_draw(key, 2).span(self.profile.assignment_secs);
        self.schedule(self.now + wait, Due::RunnerOffered(key));
    }

    /// The runner's job is over.
    pub(super) fn release_runner(&mut self, key: RunnerKey, cause: Cause) {
        let Some(runner) = self.runner_mut(key) else { return };
        let sandbox = runner.sandbox;
        match (runner.lifetime, cause) {
            (Lifetime::Permanent, _) => {
                runner.claim = None;
                self.schedule_offer(key);
            }
            (Lifetime::Ephemeral, Cause::RunnerLost) => self.remove_runner(key, RemovalReason::Lost),
            (Lifetime::Ephemeral, Cause::Ran | Cause::Refused | Cause::CancelledQueued | Cause::CancelledRunning) => {
                self.remove_runner(key, RemovalReason::JobDone);
                let end = if cause == Cause::Refused { End::refused() } else { End::served() };
                if let Some(sandbox) = sandbox {
                    self.schedule(self.now + TimeDelta::seconds(1), Due::SandboxEnds(sandbox, end));
                }
            }
        }
    }

    pub(super) fn remove_runner(&mut self, key: RunnerKey, reason: RemovalReason) {
        let now = self.now;
        let linger = self.runner_draw(key, 4).span(self.profile.linger_secs);
        let Some(runner) = self.runner_mut(key).filter(|runner| runner.is_registered()) else { return };
        runner.removed_at = Some(now);
        runner.gone_at = Some(now + linger);
        let name = runner.name.clone();
        let repo = Arc::clone(&self.repo(key.repo).name);
        self.record(What::RunnerRemoved { repo, runner: name, reason });
    }

    /// GitHub removes a runner that got no job; its listener ends soon.
    pub(super) fn remove_idle_runner(&mut self, key: RunnerKey) {
        if self.runner(key).is_some_and(Runner::is_unclaimed) {
            self.remove_runner(key, RemovalReason::Idle);
            self.end_removed_listener(key);
        }
    }

    /// GitHub removes a registration that was never used.
    pub(super) fn expire_registration(&mut self, key: RunnerKey) {
        if self
            .runner(key)
            .is_some_and(|runner| runner.is_registered() && runner.claim.is_none() && !runner.is_unclaimed())
        {
            self.remove_runner(key, RemovalReason::Expired);
        }
    }

    /// `DELETE runner`: no more work for it; refused while it runs a job.
    pub(super) fn delete_runner(&mut self, key: RunnerKey) -> Deletion {
        let Some(runner) = self.runner(key).filter(|runner| runner.is_registered()) else {
            return Deletion::NotFound;
        };
        let name = runner.name.clone();
        let deleted = runner.claim.is_none();
        let repo = Arc::clone(&self.repo(key.repo).name);
        self.record(What::RunnerDeleteAsked { repo, runner: name.clone(), deleted });
        if !deleted {
            return Deletion::Busy(name);
        }
        self.remove_runner(key, RemovalReason::Deleted);
        self.end_removed_listener(key);
        Deletion::Deleted
    }

    /// `DELETE runner` of a runner that runs a job, carried out all the same: the registration goes, the job goes on.
    pub(super) fn delete_working_runner(&mut self, key: RunnerKey) {
        let Some(runner) = self.runner(key).filter(|runner| runner.is_registered()) else { return };
        let (repo, runner) = (Arc::clone(&self.repo(key.repo).name), runner.name.clone());
        self.record(What::RunnerDeleteAsked { repo, runner, deleted: true });
        self.remove_runner(key, RemovalReason::Deleted);
    }

    fn end_removed_listener(&mut self, key: RunnerKey) {
        if let Some(sandbox) = self.runner(key).and_then(|runner| runner.sandbox) {
            let wait = self.seed.stream(Purpose::Removal, sandbox.0 as u64).span(self.profile.removed_exit_secs);
            self.schedule(self.now + wait, Due::SandboxEnds(sandbox, self.unclaimed_end(sandbox)));
        }
    }

    /// The sandbox of a runner is gone, and the runner with it.
    pub(super) fn disconnect(&mut self, key: RunnerKey) {
        let offline_at = self.now + self.runner_draw(key, 5).span(self.profile.offline_lag_secs);
        let is_working = self.is_working(key);
        let Some(runner) = self.runner_mut(key) else { return };
        runner.offline_at = Some(offline_at);
        if let Some(claim) = runner.claim.filter(|_| is_working) {
            self.lose_runner_of(claim.job, key);
        }
    }
}
