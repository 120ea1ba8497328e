//! Runner registrations, their connections, and which runner gets which job.

use std::sync::Arc;

use chrono::TimeDelta;

use super::draws::{Purpose, seconds};
use super::engine::Due;
use super::history::{Cause, RemovalReason, What, fingerprint};
use super::jit;
use super::jobs::{JobState, RepoKey, Taker, Time};
use super::profile::Assignment;
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
    busy_from: Time,
}

/// A registered runner.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) lifetime: Lifetime,
    pub(super) sandbox: Option<SandboxKey>,
    pub(super) claim: Option<Claim>,
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

impl Runner {
    /// Whether its registration exists.
    pub(super) fn is_registered(&self) -> bool {
        self.removed_at.is_none()
    }

    /// Whether it listens and could take a job.
    fn is_idle(&self) -> bool {
        self.is_registered() && self.online_at.is_some() && self.offline_at.is_none() && self.claim.is_none()
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
}

/// How a deletion ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deletion {
    Deleted,
    /// It runs a job.
    Busy(String),
    NotFound,
}

/// How long a registration that is gone is kept for lists that lag.
const KEPT_FOR_LISTS: TimeDelta = TimeDelta::minutes(5);

impl State {
    pub(super) fn runner(&self, key: RunnerKey) -> Option<&Runner> {
        self.repo(key.repo).runners.get(&key.id)
    }

    fn runner_mut(&mut self, key: RunnerKey) -> Option<&mut Runner> {
        self.repo_mut(key.repo).runners.get_mut(&key.id)
    }

    /// Registers a runner and writes its JIT config.
    pub(super) fn mint(&mut self, repo: RepoKey, request: &MintRequest) -> Result<(u64, String), MintRefusal> {
        let now = self.now;
        let is_taken = |runner: &Runner| runner.is_registered() && runner.name.eq_ignore_ascii_case(&request.name);
        if self.repo(repo).runners.values().any(is_taken) {
            return Err(MintRefusal::NameTaken);
        }
        self.repo_mut(repo).runners.retain(|_, runner| runner.gone_at.is_none_or(|gone| now - gone < KEPT_FOR_LISTS));
        let key = self.register(repo, &request.name, Labels::new(&request.labels), Lifetime::Ephemeral);
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
        let entry = self.repo_mut(repo);
        entry.next_runner += 1;
        let runner = Runner {
            id,
            name: name.to_owned(),
            labels,
            lifetime,
            sandbox: None,
            claim: None,
            visible_at: now + late,
            online_at: None,
            offline_at: None,
            removed_at: None,
            gone_at: None,
        };
        entry.runners.insert(id, runner);
        RunnerKey { repo, id }
    }

    fn runner_draw(&self, key: RunnerKey, question: u64) -> super::draws::Draw {
        self.seed.stream(Purpose::Runner, (key.repo.0 as u64) << 40 | key.id << 4 | question)
    }

    /// A runner connects; refused where its registration is gone or used.
    pub(super) fn connect(&mut self, key: RunnerKey, sandbox: Option<SandboxKey>) -> bool {
        let now = self.now;
        let Some(runner) = self.runner_mut(key).filter(|runner| runner.is_registered() && runner.online_at.is_none())
        else {
            return false;
        };
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
        if let (Lifetime::Ephemeral, Some(span)) = (lifetime, self.profile.idle_removal_secs) {
            let idle = self.runner_draw(key, 1).span(span);
            self.schedule(now + idle, Due::RunnerIdles(key));
        }
        true
    }

    fn schedule_offer(&mut self, key: RunnerKey) {
        let wait = self.runner_draw(key, 2).span(self.profile.assignment_secs);
        self.schedule(self.now + wait, Due::RunnerOffered(key));
    }

    /// Looks for a runner for a queued job.
    pub(super) fn match_job(&mut self, id: u64) {
        let job = &self.jobs[&id];
        if job.state() != Some(JobState::Queued) {
            return;
        }
        let repo = job.repo;
        let mut able: Vec<(Option<Time>, u64)> = self
            .repo(repo)
            .runners
            .values()
            .filter(|runner| runner.is_idle() && runner.labels.covers(&job.labels))
            .map(|runner| (runner.online_at, runner.id))
            .collect();
        if able.is_empty() {
            return;
        }
        able.sort_unstable();
        let chosen = match self.profile.assignment {
            Assignment::Random => self.seed.stream(Purpose::Assignment, !id).index(able.len()),
            Assignment::OldestFirst => 0,
        };
        self.give_job(id, RunnerKey { repo, id: able[chosen].1 });
    }

    /// Looks for a job for an idle runner: the oldest that its labels cover.
    pub(super) fn offer_runner(&mut self, key: RunnerKey) {
        let Some(runner) = self.runner(key).filter(|runner| runner.is_idle()) else { return };
        let queued = &self.repo(key.repo).queued;
        let job = queued.iter().map(|(_, id)| *id).find(|id| runner.labels.covers(&self.jobs[id].labels));
        if let Some(job) = job {
            self.give_job(job, key);
        }
    }

    fn give_job(&mut self, job: u64, key: RunnerKey) {
        let busy_from = self.now + self.runner_draw(key, 3).span(self.profile.busy_lag_secs);
        let runner = self.runner_mut(key).expect("the caller has just seen it idle");
        runner.claim = Some(Claim { job, busy_from });
        let taker = Taker { runner_id: runner.id, runner_name: runner.name.clone(), key: Some(key) };
        self.start_job(job, taker);
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
            (Lifetime::Ephemeral, Cause::Ran | Cause::CancelledQueued | Cause::CancelledRunning) => {
                self.remove_runner(key, RemovalReason::JobDone);
                if let Some(sandbox) = sandbox {
                    self.schedule(self.now + TimeDelta::seconds(1), Due::SandboxEnds(sandbox, End::served()));
                }
            }
        }
    }

    fn remove_runner(&mut self, key: RunnerKey, reason: RemovalReason) {
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
        if self.runner(key).is_some_and(Runner::is_idle) {
            self.remove_runner(key, RemovalReason::Idle);
            self.end_removed_listener(key);
        }
    }

    /// GitHub removes a registration that was never used.
    pub(super) fn expire_registration(&mut self, key: RunnerKey) {
        if self.runner(key).is_some_and(|runner| runner.is_registered() && runner.claim.is_none() && !runner.is_idle())
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

    fn end_removed_listener(&mut self, key: RunnerKey) {
        if let Some(sandbox) = self.runner(key).and_then(|runner| runner.sandbox) {
            let wait = self.seed.stream(Purpose::Removal, sandbox.0 as u64).span(self.profile.removed_exit_secs);
            self.schedule(self.now + wait, Due::SandboxEnds(sandbox, End::unclaimed()));
        }
    }

    /// The sandbox of a runner is gone, and the runner with it.
    pub(super) fn disconnect(&mut self, key: RunnerKey) {
        let offline_at = self.now + self.runner_draw(key, 5).span(self.profile.offline_lag_secs);
        let Some(runner) = self.runner_mut(key).filter(|runner| runner.is_registered()) else { return };
        runner.offline_at = Some(offline_at);
        if let Some(claim) = runner.claim {
            self.lose_job(claim.job);
        }
    }
}
