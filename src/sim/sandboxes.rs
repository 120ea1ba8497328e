//! Sandboxes: creation, the start of the runner in them, and their ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;

use super::draws::{Purpose, seconds};
use super::engine::Due;
use super::fault::{FaultMode, Strike};
use super::history::{Operation, What, fingerprint};
use super::jit;
use super::jobs::Time;
use super::runners::RunnerKey;
use super::world::State;
use crate::modal::api::generic_result::GenericStatus;

/// The index of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SandboxKey(pub(super) usize);

/// Which of Modal's two interfaces made a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    V1,
    V2,
}

/// How a sandbox ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct End {
    pub(super) status: GenericStatus,
    pub(super) exit_code: i32,
    pub(super) message: &'static str,
}

impl End {
    fn exit(exit_code: i32) -> Self {
        let status = if exit_code == 0 { GenericStatus::Success } else { GenericStatus::Failure };
        Self { status, exit_code, message: "" }
    }

    /// A job ran.
    pub(super) fn served() -> Self {
        Self::exit(0)
    }

    /// The hook refused the job that came.
    pub(super) fn refused() -> Self {
        Self::exit(67)
    }

    /// No job came, or GitHub removed the registration.
    pub(super) fn unclaimed() -> Self {
        Self::exit(64)
    }

    /// Its time is over.
    pub(super) fn timeout() -> Self {
        Self { status: GenericStatus::Timeout, exit_code: 0, message: "the sandbox reached its timeout" }
    }

    /// Ended from outside. Which exit code Modal states then is not known; 0 is the least helpful one.
    pub(super) fn terminated() -> Self {
        Self { status: GenericStatus::Terminated, exit_code: 0, message: "" }
    }
}

/// A sandbox with its history.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) id: Arc<str>,
    pub(super) app_id: String,
    pub(super) name: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) generation: Generation,
    pub(super) image_id: String,
    pub(super) gpu: String,
    /// How many of them.
    pub(super) gpus: u32,
    /// As asked for; 0 where nothing was.
    pub(super) milli_cpu: u32,
    pub(super) memory_mb: u32,
    pub(super) regions: Vec<String>,
    pub(super) timeout_secs: u32,
    pub(super) task_id: String,
    pub(super) created_at: Time,
    pub(super) scheduled_at: Option<Time>,
    pub(super) started_at: Option<Time>,
    pub(super) ended: Option<(Time, End)>,
    /// The registration that its JIT config belongs to; `None` where it holds no valid config.
    pub(super) registration: Option<RunnerKey>,
    /// Whether a JIT config was in its environment.
    has_config: bool,
    idle_limit: TimeDelta,
    admits: Admits,
    pub(super) boot_fault: Option<Strike>,
    /// What it printed, in the order of its times.
    pub(super) output: Vec<(Time, String)>,
}

impl Sandbox {
    /// Whether it has not ended by `when`.
    pub(super) fn is_alive_at(&self, when: Time) -> bool {
        self.ended.is_none_or(|(at, _)| at > when)
    }

    /// Whether it is alive.
    pub(super) fn is_alive(&self) -> bool {
        self.ended.is_none()
    }
}

/// Which jobs the hook in a sandbox lets run.
#[derive(Debug, Default)]
struct Admits {
    /// Their repositories, in lower case: names, patterns, and with `!` before them exceptions.
    repositories: Vec<String>,
    /// Whether they must not come from a fork.
    is_trusted_only: bool,
}

impl Admits {
    fn of(environment: &BTreeMap<String, String>) -> Self {
        let repositories = environment.get(REPOSITORIES).map(|names| names.to_lowercase()).unwrap_or_default();
        Self {
            repositories: repositories.split_whitespace().map(str::to_owned).collect(),
            is_trusted_only: environment.get(TRUSTED_ONLY).is_some_and(|value| value == "1"),
        }
    }

    fn has(&self, repo: &str) -> bool {
        let (excluded, served): (Vec<&str>, Vec<&str>) =
            self.repositories.iter().map(String::as_str).partition(|entry| entry.starts_with('!'));
        served.iter().any(|entry| is_like(repo, entry)) && !excluded.iter().any(|entry| is_like(repo, &entry[1..]))
    }
}

/// Whether a text is of a pattern, in which a star stands for any text.
fn is_like(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(first) else { return false };
    let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.any(|at| is_like(&text[at..], rest))
}

/// What is asked of a create, with the environment put together.
#[derive(Debug)]
pub(super) struct NewSandbox {
    pub(super) app_id: String,
    pub(super) name: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) generation: Generation,
    pub(super) image_id: String,
    pub(super) gpu: String,
    pub(super) gpus: u32,
    pub(super) milli_cpu: u32,
    pub(super) memory_mb: u32,
    pub(super) regions: Vec<String>,
    pub(super) timeout_secs: u32,
    pub(super) environment: BTreeMap<String, String>,
    /// Whether its network is blocked, so that its runner cannot reach GitHub.
    pub(super) is_offline: bool,
}

/// The environment variable that carries the JIT config.
const JIT_CONFIG: &str = "SANDRUNNER_JITCONFIG";
/// The environment variable that states the idle limit in seconds.
const IDLE_LIMIT: &str = "SANDRUNNER_IDLE_TIMEOUT_SECS";
/// The environment variables that state whose jobs may run.
const REPOSITORIES: &str = "SANDRUNNER_REPOSITORIES";
const TRUSTED_ONLY: &str = "SANDRUNNER_TRUSTED_ONLY";
/// The idle limit where none is stated.
const DEFAULT_IDLE_LIMIT_SECS: i64 = 300;
/// The part of a boot that passes before Modal says that the sandbox has started.
const START_SHARE: i32 = 3;
/// How much older than they should be lists may be because of a fault.
const STALEST: TimeDelta = TimeDelta::minutes(5);
/// How often Modal looks for room for a sandbox that waits.
const LOOK_FOR_ROOM: TimeDelta = TimeDelta::seconds(1);
/// How long a runner tries before it gives up a refused registration.
const REFUSED_AFTER: TimeDelta = TimeDelta::seconds(2);

/// What the runner prints that does not start, by the exit code of its sandbox.
fn failure_told(code: i32) -> &'static str {
    match code {
        65 => "Runner version is deprecated and cannot receive messages.\n",
        66 => "Failed to create a session. The runner registration has been deleted from the server.\n",
        _ => "An error occurred: the runner crashed.\n",
    }
}

const BASE32: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl State {
    pub(super) fn sandbox(&self, key: SandboxKey) -> &Sandbox {
        &self.sandboxes[key.0]
    }

    fn sandbox_draw(&self, key: SandboxKey, purpose: Purpose) -> super::draws::Draw {
        self.seed.stream(purpose, key.0 as u64)
    }

    pub(super) fn sandbox_by_id(&self, id: &str) -> Option<SandboxKey> {
        self.sandbox_by_id.get(id).copied()
    }

    /// Live sandboxes and those that a lagging or stale list may still show, newest first.
    pub(super) fn recently_alive(&mut self) -> impl Iterator<Item = &Sandbox> {
        let oldest = self.now - seconds(self.profile.modal_list_lag_secs) - STALEST;
        let sandboxes = &self.sandboxes;
        self.listed.retain(|key| sandboxes[key.0].ended.is_none_or(|(at, _)| at >= oldest));
        self.listed.iter().rev().map(|key| &sandboxes[key.0])
    }

    /// The live sandbox of a name in an App.
    pub(super) fn live_sandbox(&self, app_id: &str, name: &str) -> Option<SandboxKey> {
        self.live.iter().copied().find(|key| {
            let sandbox = self.sandbox(*key);
            sandbox.app_id == app_id && sandbox.name == name
        })
    }

    /// Creates a sandbox; its name has been found free.
    pub(super) fn create_sandbox(&mut self, new: NewSandbox) -> SandboxKey {
        let key = SandboxKey(self.sandboxes.len());
        let credential = new.environment.get(JIT_CONFIG).map(|config| jit::credential(config).unwrap_or_default());
        let reachable = credential.as_ref().filter(|_| !new.is_offline);
        let registration = reachable.and_then(|secret| self.credentials.get(secret).copied());
        let idle_secs = new.environment.get(IDLE_LIMIT).and_then(|secs| secs.parse().ok());
        let repo = registration.map(|runner| Arc::clone(&self.repo(runner.repo).name)).unwrap_or_default();
        let is_runner = credential.is_some();
        let boot_fault = if is_runner { self.strike(Operation::Boot, &repo) } else { None };
        let of_image = is_runner && boot_fault.is_none();
        let boot_fault = if of_image { self.strike_of_image(&new.image_id) } else { boot_fault };
        let (id, task_id) = self.sandbox_ids(key, new.generation);
        let sandbox = Sandbox {
            id: id.into(),
            app_id: new.app_id,
            name: new.name,
            tags: new.tags,
            generation: new.generation,
            image_id: new.image_id,
            gpu: new.gpu,
            gpus: new.gpus,
            milli_cpu: new.milli_cpu,
            memory_mb: new.memory_mb,
            regions: new.regions,
            timeout_secs: new.timeout_secs,
            task_id,
            created_at: self.creation_time(),
            scheduled_at: None,
            started_at: None,
            ended: None,
            registration,
            has_config: credential.is_some(),
            admits: Admits::of(&new.environment),
            idle_limit: TimeDelta::seconds(idle_secs.unwrap_or(DEFAULT_IDLE_LIMIT_SECS)),
            boot_fault,
            output: Vec::new(),
        };
        self.record(What::SandboxCreated {
            sandbox: Arc::clone(&sandbox.id),
            name: sandbox.name.clone(),
            gpu: !sandbox.gpu.is_empty(),
            config: credential.as_deref().map(fingerprint),
            tags: sandbox.tags.clone(),
            timeout_secs: sandbox.timeout_secs,
            gpus: sandbox.gpus,
        });
        self.sandbox_by_id.insert(Arc::clone(&sandbox.id), key);
        self.sandboxes.push(sandbox);
        self.live.insert(key);
        self.listed.insert(key);
        self.place_sandbox(key);
        key
    }

    /// Modal stamps creations to the microsecond, so no two have the same time.
    fn creation_time(&self) -> Time {
        let after = self.sandboxes.last().map(|last| last.created_at + TimeDelta::microseconds(1));
        after.map_or(self.now, |after| after.max(self.now))
    }

    fn sandbox_ids(&self, key: SandboxKey, generation: Generation) -> (String, String) {
        let mut draw = self.sandbox_draw(key, Purpose::Identity);
        match generation {
            Generation::V1 => (format!("sb-{}", draw.text(BASE62, 22)), format!("ta-{}", draw.text(BASE62, 22))),
            // A ULID: 48 bits of time, then chance; 26 characters.
            Generation::V2 => {
                let millis = u64::try_from(self.now.timestamp_millis()).unwrap_or_default();
                let time: String = (0..10)
                    .rev()
                    .map(|digit| char::from(BASE32[usize::try_from(millis >> (5 * digit) & 31).unwrap_or_default()]))
                    .collect();
                (format!("sb-{time}{}", draw.text(BASE32, 16)), format!("ta-{}V", draw.text(BASE32, 25)))
            }
        }
    }

    fn place_sandbox(&mut self, key: SandboxKey) {
        match self.sandbox(key).generation {
            Generation::V2 => self.sandbox_placed(key),
            Generation::V1 if self.never_starts(key) => {}
            Generation::V1 => {
                let wait = self.sandbox_draw(key, Purpose::Schedule).lognormal(self.profile.gpu_schedule);
                self.schedule(self.now + wait, Due::SandboxScheduled(key));
            }
        }
    }

    pub(super) fn sandbox_scheduled(&mut self, key: SandboxKey) {
        if self.sandbox(key).is_alive() {
            if !self.has_capacity(self.sandbox(key).gpus) || self.is_sold_out(self.sandbox(key)) {
                return self.schedule(self.now + LOOK_FOR_ROOM, Due::SandboxScheduled(key));
            }
            self.record(What::SandboxScheduled { sandbox: Arc::clone(&self.sandbox(key).id) });
            self.sandbox_placed(key);
        }
    }

    fn sandbox_placed(&mut self, key: SandboxKey) {
        let now = self.now.max(self.sandbox(key).created_at);
        let mut boot = self.sandbox_draw(key, Purpose::Boot).lognormal(self.profile.boot);
        let started_at = now + boot / START_SHARE;
        self.sandboxes[key.0].scheduled_at = Some(now);
        if self.never_starts(key) || self.fails_before_start(key, now, started_at - now) {
            return;
        }
        let sandbox = &mut self.sandboxes[key.0];
        sandbox.started_at = Some(started_at);
        let (has_config, fault) = (sandbox.has_config, sandbox.boot_fault);
        let timeout = TimeDelta::seconds(i64::from(sandbox.timeout_secs));
        self.schedule(started_at + timeout, Due::SandboxEnds(key, End::timeout()));
        let slow = fault.filter(|fault| fault.mode == FaultMode::SlowBoot);
        boot += seconds(slow.map_or(0.0, |fault| fault.seconds_or(240.0)));
        if has_config && fault.is_none_or(|fault| fault.mode != FaultMode::NeverOnline) {
            self.schedule(now + boot, Due::SandboxBoots(key));
        }
        self.dies_starting(key, started_at, now + boot);
    }

    /// The runner in the sandbox tries to connect.
    pub(super) fn sandbox_boots(&mut self, key: SandboxKey) {
        let sandbox = self.sandbox(key);
        if !sandbox.is_alive() {
            return;
        }
        let (registration, idle_limit, fault) = (sandbox.registration, sandbox.idle_limit, sandbox.boot_fault);
        let failed = match fault.map(|fault| fault.mode) {
            Some(FaultMode::RegistrationFailed) => Some(66),
            Some(FaultMode::VersionRefused) => Some(65),
            Some(FaultMode::Crash) => Some(fault.and_then(|fault| fault.status).map_or(68, i32::from)),
            Some(_) | None => self.is_version_refused(key).then_some(65),
        };
        if let Some(code) = failed {
            self.print(key, failure_told(code));
            return self.end_sandbox(key, End::exit(code));
        }
        if !registration.is_some_and(|runner| self.connect(runner, Some(key))) {
            self.print(key, failure_told(66));
            return self.schedule(self.now + REFUSED_AFTER, Due::SandboxEnds(key, End::exit(66)));
        }
        self.print(key, "\n√ Connected to GitHub\n\nListening for Jobs\n");
        self.schedule(self.now + idle_limit, Due::SandboxIdles(key));
        self.dies_online(key);
    }

    fn print(&mut self, key: SandboxKey, text: &str) {
        let now = self.now;
        self.sandboxes[key.0].output.push((now, text.to_owned()));
    }

    /// The job that runs in a sandbox.
    pub(super) fn job_in(&self, key: SandboxKey) -> Option<u64> {
        let registration = self.sandbox(key).registration.filter(|runner| self.is_working(*runner))?;
        let runner = self.runner(registration).filter(|runner| runner.sandbox == Some(key))?;
        runner.claim.map(|claim| claim.job)
    }

    /// Whether the hook in the sandbox of a runner refuses a job before its first step.
    pub(super) fn is_refused(&self, key: RunnerKey, job: u64) -> bool {
        let Some(sandbox) = self.runner(key).and_then(|runner| runner.sandbox) else { return false };
        let (admits, job) = (&self.sandbox(sandbox).admits, &self.jobs[&job]);
        let is_of_fork = self.runs[&job.spec.run].spec.as_ref().is_some_and(|spec| spec.fork);
        let name = &self.repo(job.repo).name;
        (admits.is_trusted_only && is_of_fork) || !admits.has(name)
    }

    /// The idle limit of the program in the sandbox: it ends by itself where no job has started.
    pub(super) fn sandbox_idles(&mut self, key: SandboxKey) {
        if self.job_in(key).is_none() {
            self.end_sandbox(key, self.unclaimed_end(key));
        }
    }

    /// `SandboxTerminate`: asked now, carried out a little later. Gives the result of a sandbox that has
    /// ended before.
    pub(super) fn terminate_sandbox(&mut self, key: SandboxKey) -> Option<End> {
        if let Some((_, end)) = self.sandbox(key).ended {
            return Some(end);
        }
        self.record(What::TerminateAsked {
            sandbox: Arc::clone(&self.sandbox(key).id),
            name: self.sandbox(key).name.clone(),
            job: self.job_in(key),
        });
        let wait = self.sandbox_draw(key, Purpose::Terminate).span(self.profile.terminate_secs);
        self.schedule(self.now + wait, Due::SandboxEnds(key, End::terminated()));
        None
    }

    pub(super) fn end_sandbox(&mut self, key: SandboxKey, end: End) {
        let now = self.now;
        let sandbox = &mut self.sandboxes[key.0];
        if sandbox.ended.is_some() {
            return;
        }
        if matches!(end.status, GenericStatus::Success | GenericStatus::Failure) {
            let told = format!("sandrunner: the listener ended, this sandbox with {}\n", end.exit_code);
            sandbox.output.push((now, told));
        }
        sandbox.ended = Some((now, end));
        // It would have started later.
        sandbox.started_at = sandbox.started_at.filter(|at| *at <= now);
        let registration = sandbox.registration;
        let dollars = self.dollars(self.sandbox(key));
        let sandbox = self.sandbox(key);
        let what = What::SandboxEnded {
            sandbox: Arc::clone(&sandbox.id),
            name: sandbox.name.clone(),
            status: end.status as i32,
            exit_code: end.exit_code,
            dollars,
        };
        self.live.remove(&key);
        self.record(what);
        let connected = registration.filter(|runner| self.runner(*runner).is_some_and(|it| it.sandbox == Some(key)));
        if let Some(runner) = connected {
            self.disconnect(runner);
        }
    }
}
