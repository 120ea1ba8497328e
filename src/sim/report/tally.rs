//! What a history says, counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::{Labels, OurName};
use crate::sim::fault::FaultMode;
use crate::sim::history::{Cause, Event, LimitKind, Operation, RemovalReason, Service, What};

type Time = DateTime<Utc>;

/// A repository and a label set.
pub(super) type Group = (Arc<str>, Labels);

/// A runner that did not come online for so long counts as a failed start even if nobody says so.
const SLOW_START: TimeDelta = TimeDelta::seconds(120);

/// Modal's statuses of sandboxes that it ended, be it from outside: terminated, not started, a failure of its
/// own, and the three of memory.
const ENDED_BY_MODAL: [i32; 6] = [3, 5, 6, 8, 9, 10];
/// Modal's status of a sandbox that reached its timeout.
const TIMEOUT: i32 = 4;

/// A job as the history tells it.
#[derive(Debug)]
pub(super) struct SeenJob {
    group: Group,
    queued_at: Time,
    assigned: Option<Assigned>,
    pub(super) cause: Option<Cause>,
}

#[derive(Debug)]
struct Assigned {
    at: Time,
    runner: String,
    sandbox: Option<Arc<str>>,
}

/// A sandbox as the history tells it.
#[derive(Debug)]
pub(super) struct SeenSandbox {
    pub(super) name: String,
    config: Option<String>,
    created_at: Time,
    online_at: Option<Time>,
    ended_at: Option<Time>,
    end: SandboxEnd,
    has_served: bool,
}

/// Who ended a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SandboxEnd {
    /// The program in it, or the timeout that was asked for.
    Itself,
    /// Somebody asked for it.
    Asked,
    /// Modal, unasked.
    Modal,
}

impl SeenSandbox {
    pub(super) fn is_ours(&self) -> bool {
        is_ours(&self.name)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended_at.is_some()
    }
}

/// A registration that was minted.
#[derive(Debug)]
pub(super) struct SeenRunner {
    pub(super) is_ours: bool,
    labels: Labels,
    removal: Option<RemovalReason>,
}

impl SeenRunner {
    pub(super) fn is_removed(&self) -> bool {
        self.removal.is_some()
    }
}

/// How long a job waited.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wait {
    pub(super) without_boot: f64,
    pub(super) with_boot: f64,
}

/// Points of each token in the last 60 s, and the most there ever were.
#[derive(Debug, Default)]
pub(super) struct Points {
    windows: BTreeMap<Arc<str>, Window>,
    pub(super) peak: u32,
}

/// The points of a minute, and their sum.
#[derive(Debug, Default)]
struct Window {
    spent: VecDeque<(Time, u32)>,
    sum: u32,
}

impl Points {
    fn add(&mut self, token: &Arc<str>, points: u32, at: Time) {
        let window = self.windows.entry(Arc::clone(token)).or_default();
        window.spent.push_back((at, points));
        window.sum += points;
        while let Some((_, old)) = window.spent.front().filter(|(then, _)| at - *then >= TimeDelta::seconds(60)) {
            window.sum -= old;
            window.spent.pop_front();
        }
        self.peak = self.peak.max(window.sum);
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) jobs: BTreeMap<u64, SeenJob>,
    pub(super) sandboxes: BTreeMap<Arc<str>, SeenSandbox>,
    pub(super) runners: BTreeMap<(Arc<str>, String), SeenRunner>,
    /// Which sandboxes were created with a config, by its fingerprint.
    pub(super) configs: BTreeMap<String, Vec<String>>,
    /// How many creates under a name are carried out after Modal has refused them: their client may send them again.
    pub(super) put_off: BTreeMap<String, usize>,
    /// Whether the next create is one of them.
    puts_off_next: bool,
    /// Which group a config was minted for.
    config_groups: BTreeMap<String, (Arc<str>, String)>,
    pub(super) claimed_terminated: Vec<String>,
    pub(super) foreign_touched: Vec<String>,
    pub(super) doubled_names: Vec<String>,
    pub(super) limited: Vec<String>,
    pub(super) points: Points,
    pub(super) github_requests: usize,
    pub(super) github_not_modified: usize,
    pub(super) github_rate_limited: usize,
    pub(super) modal_requests: usize,
    /// The repositories in which a fault took effect; the empty one stands for all.
    faulted: BTreeSet<Arc<str>>,
    /// Sandboxes that a fault lets reach their timeout too early, and that have not ended yet.
    early_timeouts: usize,
    /// Secrets that exist.
    pub(super) secrets: BTreeSet<String>,
    live_names: BTreeMap<String, Arc<str>>,
    /// Where runners are registered instead of in their repositories.
    organizations: BTreeSet<Arc<str>>,
    first_at: Option<Time>,
    last_at: Option<Time>,
}

fn is_ours(name: &str) -> bool {
    name.parse::<OurName>().is_ok()
}

fn secs(span: TimeDelta) -> f64 {
    span.as_seconds_f64()
}

impl Tally {
    /// Where the runners of a repository are registered.
    fn registry(&self, repo: &Arc<str>) -> Arc<str> {
        let owner = repo.split_once('/').and_then(|(owner, _)| self.organizations.get(owner));
        Arc::clone(owner.unwrap_or(repo))
    }

    pub(super) fn take(&mut self, event: &Event) {
        let at = event.at;
        self.first_at.get_or_insert(at);
        self.last_at = Some(at);
        match &event.what {
            What::Call { .. } => self.take_call(at, &event.what),
            What::JobQueued { job, repo, labels, .. } => {
                let group = (self.registry(repo), Labels::new(labels));
                self.jobs.insert(*job, SeenJob { group, queued_at: at, assigned: None, cause: None });
            }
            What::JobAssigned { job, runner, sandbox, .. } => {
                self.take_assignment(*job, Assigned { at, runner: runner.clone(), sandbox: sandbox.clone() });
            }
            What::JobCompleted { job, cause, .. } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.cause = Some(*cause);
                }
            }
            What::RunnerRegistered { repo, runner, labels, config, .. } => {
                self.config_groups.insert(config.clone(), (Arc::clone(repo), runner.clone()));
                let labels = Labels::new(labels);
                let seen = SeenRunner { is_ours: is_ours(runner), labels, removal: None };
                self.runners.insert((Arc::clone(repo), runner.clone()), seen);
            }
            What::RunnerOnline { sandbox, .. } => {
                if let Some(sandbox) = sandbox.as_ref().and_then(|id| self.sandboxes.get_mut(id)) {
                    sandbox.online_at = Some(at);
                }
            }
            What::RunnerDeleteAsked { repo, runner, .. } => {
                if !is_ours(runner) {
                    self.foreign_touched.push(format!("DELETE of runner {runner} of {repo}"));
                }
            }
            What::RunnerRemoved { repo, runner, reason } => {
                if let Some(seen) = self.runners.get_mut(&(Arc::clone(repo), runner.clone())) {
                    seen.removal = Some(*reason);
                }
            }
            What::SandboxCreated { .. } | What::TerminateAsked { .. } | What::SandboxEnded { .. } => {
                self.take_sandbox(at, &event.what);
            }
            What::SecretChanged { secret, exists } => {
                if *exists {
                    self.secrets.insert(secret.clone());
                } else {
                    self.secrets.remove(secret);
                }
            }
            What::FaultStruck { subject, mode, operation, .. } => {
                self.early_timeouts += usize::from(*mode == FaultMode::TimesOut);
                self.puts_off_next |= (*operation, *mode) == (Operation::Create, FaultMode::AppliedLate);
                self.faulted.insert(Arc::clone(subject));
            }
            // All repositories: whatever was under way on the machine.
            What::MachineStruck { .. } => drop(self.faulted.insert("".into())),
            What::Began { organizations, .. } => self.organizations.extend(organizations.iter().cloned()),
            What::LimitsStated { .. }
            | What::ControllerChanged { .. }
            | What::SandboxScheduled { .. }
            | What::JobHeld { .. }
            | What::ClientKilled { .. }
            | What::FaultAdded { .. }
            | What::KnobsChanged { .. }
            | What::FaultsCleared
            | What::SettingChanged { .. }
            | What::ClockAdvanced { .. } => {}
        }
    }

    fn take_call(&mut self, at: Time, call: &What) {
        let What::Call { service, operation, status, points, token, limited, subject, target, .. } = call else {
            return;
        };
        if *operation == Operation::Create && mem::take(&mut self.puts_off_next) {
            *self.put_off.entry(target.clone()).or_default() += 1;
        }
        // The workspace's capacity is met, not overrun: nobody tells it beforehand.
        if let Some(kind) = limited.filter(|kind| !matches!(kind, LimitKind::Injected | LimitKind::Capacity)) {
            self.limited.push(format!("{kind:?} at {operation:?} {subject}").to_lowercase());
        }
        match service {
            Service::Modal => self.modal_requests += 1,
            Service::Github => {
                self.github_requests += 1;
                self.github_not_modified += usize::from(*status == 304);
                self.github_rate_limited += usize::from(limited.is_some());
                self.points.add(token, *points, at);
            }
        }
    }

    fn take_assignment(&mut self, job: u64, assigned: Assigned) {
        if let Some(sandbox) = assigned.sandbox.as_ref().and_then(|id| self.sandboxes.get_mut(id)) {
            sandbox.has_served = true;
        }
        if let Some(job) = self.jobs.get_mut(&job) {
            job.assigned = Some(assigned);
        }
    }

    fn take_sandbox(&mut self, at: Time, what: &What) {
        match what {
            What::SandboxCreated { sandbox, name, config, .. } => {
                if let Some(config) = config {
                    self.configs.entry(config.clone()).or_default().push(name.clone());
                }
                if let Some(other) = self.live_names.insert(name.clone(), Arc::clone(sandbox)).filter(|_| is_ours(name))
                {
                    self.doubled_names.push(format!("{name}: {other} and {sandbox}"));
                }
                let seen = SeenSandbox {
                    name: name.clone(),
                    config: config.clone(),
                    created_at: at,
                    online_at: None,
                    ended_at: None,
                    end: SandboxEnd::Itself,
                    has_served: false,
                };
                self.sandboxes.insert(Arc::clone(sandbox), seen);
            }
            What::TerminateAsked { sandbox, name, job } => {
                if let Some(seen) = self.sandboxes.get_mut(sandbox) {
                    seen.end = SandboxEnd::Asked;
                }
                if !is_ours(name) {
                    self.foreign_touched.push(format!("SandboxTerminate of {sandbox} ({name})"));
                }
                if let Some(job) = job {
                    self.claimed_terminated.push(format!("{sandbox} ({name}), job {job}"));
                }
            }
            What::SandboxEnded { sandbox, name, status, .. } => {
                if self.live_names.get(name) == Some(sandbox) {
                    self.live_names.remove(name);
                }
                if let Some(seen) = self.sandboxes.get_mut(sandbox) {
                    seen.ended_at = Some(at);
                    let is_early = *status == TIMEOUT && self.early_timeouts > 0;
                    self.early_timeouts -= usize::from(is_early);
                    if seen.end == SandboxEnd::Itself && (is_early || ENDED_BY_MODAL.contains(status)) {
                        seen.end = SandboxEnd::Modal;
                    }
                }
            }
            What::Began { .. }
            | What::LimitsStated { .. }
            | What::ControllerChanged { .. }
            | What::Call { .. }
            | What::JobQueued { .. }
            | What::JobAssigned { .. }
            | What::JobCompleted { .. }
            | What::RunnerRegistered { .. }
            | What::RunnerOnline { .. }
            | What::RunnerDeleteAsked { .. }
            | What::RunnerRemoved { .. }
            | What::SecretChanged { .. }
            | What::SandboxScheduled { .. }
            | What::JobHeld { .. }
            | What::ClientKilled { .. }
            | What::FaultAdded { .. }
            | What::FaultStruck { .. }
            | What::MachineStruck { .. }
            | What::KnobsChanged { .. }
            | What::FaultsCleared
            | What::SettingChanged { .. }
            | What::ClockAdvanced { .. } => {}
        }
    }

    /// Whether a job ran to its end in a sandbox of ours.
    pub(super) fn ran_with_us(&self, job: u64) -> bool {
        let job = self.jobs.get(&job).filter(|job| job.cause == Some(Cause::Ran));
        job.and_then(|job| job.assigned.as_ref()).is_some_and(|assigned| is_ours(&assigned.runner))
    }

    /// Whether a job was lost because Modal ended its sandbox by itself.
    pub(super) fn was_preempted(&self, job: u64) -> bool {
        let assigned = self.jobs.get(&job).and_then(|job| job.assigned.as_ref());
        let sandbox = assigned.and_then(|assigned| self.sandboxes.get(assigned.sandbox.as_ref()?));
        sandbox.is_some_and(|sandbox| sandbox.end == SandboxEnd::Modal)
    }

    pub(super) fn span_seconds(&self) -> f64 {
        self.first_at.zip(self.last_at).map_or(0.0, |(first, last)| secs(last - first))
    }

    fn registration(&self, sandbox: &SeenSandbox) -> Option<(&(Arc<str>, String), &SeenRunner)> {
        let key = self.config_groups.get(sandbox.config.as_ref()?)?;
        Some((key, self.runners.get(key)?))
    }

    /// The group that a sandbox was made for; one whose config is unknown forms a group of its own.
    fn group_of(&self, sandbox: &SeenSandbox) -> Group {
        let known = self.registration(sandbox).map(|((repo, _), runner)| (Arc::clone(repo), runner.labels.clone()));
        known.unwrap_or_else(|| ("unknown".into(), Labels::new([""; 0])))
    }

    /// The names of the sandboxes that ended without a job, by group.
    pub(super) fn surplus(&self) -> BTreeMap<Group, Vec<String>> {
        let mut groups: BTreeMap<Group, Vec<String>> = BTreeMap::new();
        for sandbox in self.sandboxes.values().filter(|it| it.is_ours() && it.has_ended() && !it.has_served) {
            groups.entry(self.group_of(sandbox)).or_default().push(sandbox.name.clone());
        }
        groups
    }

    /// What can explain surplus in a group, and how often it happened. A fault explains any number: the report
    /// then counts surplus and leaves its judgement to others.
    pub(super) fn excuses(&self, group: &Group) -> [(&'static str, usize); 5] {
        let (mut larger, mut foreign, mut cancelled) = (0, 0, 0);
        for job in self.jobs.values().filter(|job| job.group == *group) {
            cancelled += usize::from(job.cause == Some(Cause::CancelledQueued));
            let Some(assigned) = &job.assigned else { continue };
            let taker = self.runners.get(&(Arc::clone(&group.0), assigned.runner.clone()));
            match taker.filter(|runner| runner.is_ours) {
                None => foreign += 1,
                Some(runner) => larger += usize::from(runner.labels != group.1),
            }
        }
        let failed =
            self.sandboxes.values().filter(|it| self.is_failed_start(it) && self.group_of(it) == *group).count();
        let is_faulted = self.faulted.contains(&group.0) || self.faulted.contains("");
        let faults = if is_faulted { usize::MAX } else { 0 };
        [
            ("failed_start", failed),
            ("larger_label_set", larger),
            ("foreign_take", foreign),
            ("cancellation", cancelled),
            ("fault", faults),
        ]
    }

    /// A start that failed by itself: its runner never came online, or only after [`SLOW_START`]. One whose
    /// registration was deleted early is no failed start but somebody's change of mind.
    fn is_failed_start(&self, sandbox: &SeenSandbox) -> bool {
        if !sandbox.is_ours() {
            return false;
        }
        let until = sandbox.online_at.or(sandbox.ended_at);
        let is_slow = until.is_some_and(|until| until - sandbox.created_at >= SLOW_START);
        let is_deleted =
            self.registration(sandbox).is_some_and(|(_, runner)| runner.removal == Some(RemovalReason::Deleted));
        is_slow || (sandbox.online_at.is_none() && sandbox.has_ended() && !is_deleted)
    }

    /// How long a job waited for a sandbox's runner; none where it was not given to one of ours.
    ///
    /// Only the part of the boot that lies in the job's wait is taken off: a runner that was online before
    /// the job was queued has no boot to excuse the wait with.
    pub(super) fn pickup(&self, job: &SeenJob) -> Option<Wait> {
        let assigned = job.assigned.as_ref()?;
        let sandbox = self.sandboxes.get(assigned.sandbox.as_ref()?).filter(|sandbox| sandbox.is_ours())?;
        let with_boot = secs(assigned.at - job.queued_at);
        let boot = secs(sandbox.online_at? - sandbox.created_at.max(job.queued_at)).max(0.0);
        Some(Wait { without_boot: (with_boot - boot).max(0.0), with_boot })
    }
}
