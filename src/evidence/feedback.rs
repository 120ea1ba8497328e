//! Claim feedback (design rule C, pure): what runners that got no job, or never came online, tell.
//!
//! GitHub does not say why a queued job is given to nobody: `max-parallel`, a closed runner group, a ghost.
//! So the jobs that were queued while a runner waited in vain are no longer trusted to need a runner each.
//! Nothing here ever leads to a deletion; it only holds back creates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::images::Blame;
use super::{Evidence, GivenUp, Lesson, NameEvidence, Phase};
use crate::ids::{ClassName, Fingerprint, ImageId, OurName};
use crate::mutant::{self, Mutant};
use crate::plan::{Policy, SandboxState, state_of};
use crate::retry;
use crate::runner::Exit;
use crate::state::{
    ImageState, JobStatus, Observed, OurSandbox, Registry, RepoView, RunStatus, RunView, SandboxEnd, SandboxResult,
    Scope, WorkflowJob,
};

/// A job for which this many runners waited in vain is a ghost.
pub const GHOST_AFTER: u32 = 3;
/// After this long a ghost is looked at again although nothing about its run changed, each time after twice as long:
/// what kept it from several runners may have been something else. A real one costs a few runners on its first day.
const GHOST_AGAIN: (TimeDelta, TimeDelta) = (TimeDelta::hours(1), TimeDelta::days(1));
/// After so many looks the pause is at its longest.
const LOOKS_MAX: u32 = 5;
/// A breaker never blocks a group that had a claim within this time.
pub const CLAIM_HOLDS: TimeDelta = TimeDelta::minutes(10);
/// The time in which claims are counted to see how fast a group takes runners.
const CLAIMS_COUNT: TimeDelta = TimeDelta::seconds(60);
/// No more of them are remembered.
const CLAIMS_MAX: usize = 1_000;
/// This many starts of a class in a row may fail before its breaker opens: one may be bad luck.
const FAILED_STARTS_MAX: u32 = 3;

/// Failures in a row of one thing, which keep further creates back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// How many.
    pub failures: u32,
    /// When the last one was seen.
    pub failed_at: DateTime<Utc>,
    /// What it was, as a metric label.
    pub reason: String,
    /// How many open it.
    opens_at: u32,
}

impl Breaker {
    /// When the next probe may start; none while it is closed.
    pub fn again_at(&self) -> Option<DateTime<Utc>> {
        let open = (self.failures + 1).checked_sub(self.opens_at).filter(|open| *open > 0)?;
        let pause = TimeDelta::from_std(retry::delay(retry::PROBE, open)).unwrap_or(TimeDelta::MAX);
        Some(self.failed_at + pause)
    }

    /// Whether a job that was taken at `claimed` shows that runners serve all the same. Of a version that GitHub refuses it
    /// shows nothing: runners that came online before go on. One that comes online later closes the breaker.
    pub fn is_outweighed(&self, claimed: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        now - claimed < CLAIM_HOLDS && self.reason != Exit::VersionRefused.as_str()
    }

    /// Open, after so many failures, and admits a probe at once.
    fn due(failures: u32, reason: &str, now: DateTime<Utc>) -> Self {
        let pause = TimeDelta::from_std(retry::delay(retry::PROBE, failures)).unwrap_or(TimeDelta::MAX);
        Self { failures, failed_at: now - pause, reason: reason.to_owned(), opens_at: 1 }
    }

    /// Counts a failure of something that began at `began`: what was under way together fails together.
    fn count(breaker: &mut Option<Self>, opens_at: u32, reason: &str, began: DateTime<Utc>, now: DateTime<Utc>) {
        let known = breaker.as_ref();
        if known.is_some_and(|known| known.again_at().is_some() && began <= known.failed_at) {
            return;
        }
        let failures = known.map_or(0, |known| known.failures).saturating_add(1);
        *breaker = Some(Self { failures, failed_at: now, reason: reason.to_owned(), opens_at });
    }
}

/// What is known of the jobs and runners of one label set in one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEvidence {
    /// When one of its jobs was last taken by a runner of ours.
    pub claimed_at: Option<DateTime<Utc>>,
    /// When jobs of it were taken by runners of ours in the last minute, the oldest first.
    claims: VecDeque<DateTime<Utc>>,
    /// When one of its jobs was last seen to have ended: what kept others back may be gone.
    pub freed_at: Option<DateTime<Utc>>,
    /// Runners in a row that waited in vain.
    pub breaker: Option<Breaker>,
    seen_at: Option<DateTime<Utc>>,
}

impl GroupEvidence {
    /// Whether it had a claim a short time ago.
    pub fn is_claimed_lately(&self, now: DateTime<Utc>) -> bool {
        self.claimed_at.is_some_and(|at| now - at < CLAIM_HOLDS)
    }

    /// How many of its jobs were taken in the last minute.
    pub fn claims_lately(&self, now: DateTime<Utc>) -> usize {
        self.claims.iter().filter(|at| now - **at < CLAIMS_COUNT).count()
    }

    fn claimed(&mut self, now: DateTime<Utc>) {
        self.claimed_at = Some(now);
        self.claims.retain(|at| now - *at < CLAIMS_COUNT);
        if self.claims.len() < CLAIMS_MAX {
            self.claims.push_back(now);
        }
    }

    /// When jobs that are not known to be claimable may have a further runner: none for at once.
    pub fn probe_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let breaker = self.breaker.as_ref()?;
        let has_news = self.is_claimed_lately(now) || self.freed_at.is_some_and(|at| at > breaker.failed_at);
        breaker.again_at().filter(|at| !has_news && *at > now)
    }
}

/// What a run looked like when a job of it became a ghost; any change makes it worth another look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStamp {
    status: RunStatus,
    attempt: u32,
    updated_at: Option<DateTime<Utc>>,
}

impl RunStamp {
    fn of(run: &RunView) -> Self {
        Self { status: run.run.status.clone(), attempt: run.run.attempt, updated_at: run.run.updated_at }
    }
}

/// What is known of a job that stays queued although runners waited for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Since when it is not known to be claimable: a runner of its group waited in vain while it was queued.
    pub unproven_since: Option<DateTime<Utc>>,
    /// Runners made for it that ended without a job.
    pub unclaimed: u32,
    /// How often it was looked at again.
    looks: u32,
    /// Learned again from the count after a restart.
    #[serde(skip)]
    ghost: Option<(DateTime<Utc>, RunStamp)>,
}

impl Waiting {
    /// Since when it is a ghost: listed as queued, and given to nobody.
    pub fn ghost_since(&self) -> Option<DateTime<Utc>> {
        self.ghost.as_ref().map(|(at, _)| *at)
    }

    /// Whether nothing speaks against its being given to a runner.
    pub fn is_trusted(&self) -> bool {
        self.unproven_since.is_none() && self.ghost.is_none()
    }

    /// What of it is believed after a restart.
    pub(super) fn believed(&self, now: DateTime<Utc>) -> Self {
        let Self { unproven_since, unclaimed, looks, ghost: _ } = self;
        let unproven_since = unproven_since.map(|at| at.min(now));
        Self { unproven_since, unclaimed: (*unclaimed).min(GHOST_AFTER), looks: (*looks).min(LOOKS_MAX), ghost: None }
    }

    /// When a ghost is looked at again if nothing changes.
    pub fn ghost_again_at(&self) -> Option<DateTime<Utc>> {
        let pause = GHOST_AGAIN.0 * (1 << self.looks.min(LOOKS_MAX));
        self.ghost_since().map(|at| at + pause.min(GHOST_AGAIN.1))
    }

    /// Makes it a ghost after enough runners, and one more runner worth it when its run changed.
    fn look(&mut self, run: &RunView, now: DateTime<Utc>) {
        let stamp = RunStamp::of(run);
        if let Some((_, known)) = &self.ghost {
            let is_worth_it = *known != stamp || self.ghost_again_at().is_some_and(|at| now >= at);
            if is_worth_it && !mutant::is(Mutant::GhostForEver) {
                self.ghost = None;
                self.unclaimed = GHOST_AFTER - 1;
                self.looks = (self.looks + 1).min(LOOKS_MAX);
            }
        } else if self.unclaimed >= GHOST_AFTER {
            self.ghost = Some((now, stamp));
        }
    }
}

/// The reason of a runner that did not come online in time.
const NOT_ONLINE: &str = "not_online";

/// How a start failed.
struct FailedStart {
    suspect: Suspect,
    /// As a metric label.
    reason: &'static str,
}

/// What may have kept a runner from coming online.
enum Suspect {
    /// Its image, among other things.
    Image,
    /// Nothing that lies in the image.
    Class,
}

/// Runners of one label set that waited in vain.
struct Waits {
    /// When each began to wait.
    began: Vec<DateTime<Utc>>,
    /// How long a wait is in vain.
    window: TimeDelta,
    labels: Fingerprint,
}

/// When runners of a group began to wait in vain, per group.
type InVain<'a> = BTreeMap<(&'a Registry, Fingerprint), Vec<DateTime<Utc>>>;

impl Evidence {
    /// A runner of ours took a job.
    pub(super) fn learn_group_claim(&mut self, registry: &Registry, job: &WorkflowJob, now: DateTime<Utc>) {
        let group = self.groups.entry((registry.clone(), job.labels.fingerprint())).or_default();
        group.claimed(now);
        group.breaker = None;
        group.seen_at = Some(now);
    }

    /// A job of a group ended.
    pub(super) fn learn_freed(&mut self, registry: &Registry, job: &WorkflowJob, now: DateTime<Utc>) {
        if let Some(group) = self.groups.get_mut(&(registry.clone(), job.labels.fingerprint())) {
            group.freed_at = Some(now);
        }
    }

    /// How many jobs of a run and label set our runners ran at the same time, at the most.
    pub(super) fn learn_parallel(&mut self, scope: &Scope, run: &RunView, is_ours: impl Fn(&WorkflowJob) -> bool) {
        let mut edges: BTreeMap<Fingerprint, Vec<(DateTime<Utc>, i32)>> = BTreeMap::new();
        for job in run.jobs.values() {
            let is_begun = matches!(job.status, JobStatus::InProgress | JobStatus::Completed);
            if let Some(started) = job.started_at.filter(|_| is_begun && is_ours(job)) {
                let edges = edges.entry(job.labels.fingerprint()).or_default();
                edges.push((started, 1));
                // At the same second one ends before the next begins.
                edges.extend(job.completed_at.map(|ended| (ended.max(started), -1)));
            }
        }
        for (labels, mut edges) in edges {
            edges.sort_unstable();
            let at_once = edges.iter().scan(0, |running, (_, step)| {
                *running += step;
                Some(*running)
            });
            let most = u32::try_from(at_once.max().unwrap_or(0)).unwrap_or(0);
            let known = self.parallel.entry((scope.clone(), labels, run.run.id)).or_default();
            *known = most.max(*known);
        }
    }

    /// Looks at what is known of the queued jobs of a run after a new reading.
    pub(super) fn learn_ghosts(&mut self, run: &RunView, now: DateTime<Utc>) {
        for job in run.jobs.values().filter(|job| job.status == JobStatus::Queued) {
            if let Some(known) = self.jobs.get_mut(&job.id) {
                known.waiting.look(run, now);
            }
        }
    }

    /// Runners that waited for longer than the claim window while jobs of their group stayed queued: exactly
    /// those jobs are unproven from then on.
    pub(super) fn learn_in_vain(&mut self, observed: &Observed, policy: &Policy, now: DateTime<Utc>) {
        let window = TimeDelta::from_std(policy.claim_window).unwrap_or(TimeDelta::MAX);
        for ((registry, labels), mut began) in self.in_vain(observed, window, now) {
            // A runner that seems to wait may have taken a job that was not read since.
            let read_at = self.all_read_at(observed, registry, labels);
            began.retain(|began| read_at.is_some_and(|read| read >= *began + window));
            let waits = Waits { began, window, labels };
            let repos = observed.repos_of(registry).map(|(_, repo)| self.mark_unproven(repo, &waits, now));
            let Some(began) = repos.max().flatten() else { continue };
            let group = self.groups.entry((registry.clone(), labels)).or_default();
            group.seen_at = Some(now);
            Breaker::count(&mut group.breaker, 1, Exit::Unclaimed.as_str(), began, now);
        }
    }

    fn in_vain<'a>(&self, observed: &'a Observed, window: TimeDelta, now: DateTime<Utc>) -> InVain<'a> {
        let mut in_vain = InVain::new();
        for (name, sandbox) in &observed.fleet.sandboxes {
            let Some(evidence) = self.names.get(name) else { continue };
            let Some(began) = waits_since(sandbox, evidence) else { continue };
            let until = sandbox.ended.as_ref().map_or(now, |ended| ended.at);
            if until - began >= window {
                let registry = observed.registry(&sandbox.origin.scope).map(|(registry, _)| registry);
                if let Some(registry) = registry {
                    in_vain.entry((registry, sandbox.origin.group)).or_default().push(began);
                }
            }
        }
        in_vain
    }

    /// When the oldest of the readings began that show queued jobs of a label set, those left out that are not trusted to
    /// be given to anyone; the end of time where there is no other, none where one was never read completely.
    fn all_read_at(&self, observed: &Observed, registry: &Registry, labels: Fingerprint) -> Option<DateTime<Utc>> {
        let is_open = |job: &WorkflowJob| {
            job.status == JobStatus::Queued
                && job.labels.fingerprint() == labels
                && self.jobs.get(&job.id).is_none_or(|known| known.waiting.is_trusted())
        };
        let runs = observed.repos_of(registry).flat_map(|(_, repo)| repo.runs.values());
        let open = runs.filter(|run| run.run.status != RunStatus::Completed && run.jobs.values().any(is_open));
        open.map(|run| run.jobs_read.known_at).min().unwrap_or(Some(DateTime::<Utc>::MAX_UTC))
    }

    /// Marks the jobs that were queued during the whole window of one of the waits, and returns the beginning
    /// of the last of these.
    fn mark_unproven(&mut self, repo: &RepoView, waits: &Waits, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut last = None;
        for run in repo.runs.values().filter(|run| run.run.status != RunStatus::Completed) {
            let Some(read_at) = run.jobs_read.known_at else { continue };
            // The last wait whose window this reading covers.
            let covered = waits.began.iter().copied().filter(|began| read_at >= *began + waits.window);
            let Some(began) = covered.max() else { continue };
            let queued = run.jobs.values().filter(|job| job.status == JobStatus::Queued);
            for job in queued.filter(|job| job.labels.fingerprint() == waits.labels) {
                let Some(known) = self.jobs.get_mut(&job.id).filter(|known| known.first_queued <= began) else {
                    continue;
                };
                known.waiting.unproven_since.get_or_insert(now);
                last = last.max(Some(began));
            }
        }
        last
    }

    /// A sandbox ended without serving.
    pub(super) fn learn_fruitless_end(
        &mut self,
        name: &OurName,
        sandbox: &OurSandbox,
        evidence: &NameEvidence,
        lesson: &mut Lesson<'_>,
    ) {
        let (observed, now) = (lesson.observed, lesson.now);
        let Some(result) = sandbox.ended.as_ref().and_then(|ended| ended.result.as_ref()) else { return };
        let exit = match result.status {
            SandboxEnd::Success | SandboxEnd::Failure => Exit::from_code(result.exit_code),
            SandboxEnd::InitFailure
            | SandboxEnd::InternalFailure
            | SandboxEnd::OutOfMemory
            | SandboxEnd::Terminated
            | SandboxEnd::Timeout
            | SandboxEnd::IdleTimeout
            | SandboxEnd::Other(_) => Exit::Other(0),
        };
        let began = sandbox.created(observed.skew);
        if exit == Exit::VersionRefused {
            if let Some(image) = image_of(sandbox, observed) {
                lesson.learned.refused_images.insert(image.clone());
                let mut breaker = self.refused_images.remove(image);
                Breaker::count(&mut breaker, 1, exit.as_str(), began, now);
                self.refused_images.extend(breaker.map(|breaker| (image.clone(), breaker)));
            }
            return;
        }
        let is_failed_start =
            ended_by_itself(sandbox, result, exit) || (evidence.terminated_at.is_some() && sandbox.is_scheduled);
        if !is_failed_start || evidence.online_at.is_some() || evidence.overdue_at.is_some() {
            return;
        }
        // What Modal itself broke, or never placed, says nothing of the image.
        let may_be_its_images =
            !matches!(result.status, SandboxEnd::InternalFailure | SandboxEnd::Other(_)) && sandbox.was_placed();
        let suspect = if may_be_its_images { Suspect::Image } else { Suspect::Class };
        let failed = FailedStart { suspect, reason: super::end_reason(Some(result)) };
        self.learn_failed_start(name, sandbox, &failed, lesson);
    }

    /// Sandboxes whose runners did not come online in time. Their end is not waited for: it takes minutes, and where GitHub
    /// says that a runner has a job it may never come, while others are made in their place.
    pub(super) fn learn_overdue(&mut self, lesson: &mut Lesson<'_>) {
        let observed = lesson.observed;
        for (name, sandbox) in observed.fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()) {
            // Once Modal places one that was given up, its runner finds its registration gone.
            let is_open =
                |known: &&NameEvidence| known.overdue_at.is_none() && known.given_up != Some(GivenUp::Unplaced);
            let Some(known) = self.names.get(name).filter(is_open) else { continue };
            let clocks = lesson.policy.class(&sandbox.origin.class).map(|class| &class.clocks);
            let state = state_of(sandbox, Some(known), clocks, observed.skew, lesson.now);
            if state == SandboxState::Failed && sandbox.is_scheduled {
                self.name(name, lesson.now).overdue_at = Some(lesson.now);
                self.fruitless(name.job, Phase::Start, lesson.now);
                let failed = FailedStart { suspect: Suspect::Image, reason: NOT_ONLINE };
                self.learn_failed_start(name, sandbox, &failed, lesson);
            }
        }
    }

    /// A runner did not come online.
    fn learn_failed_start(
        &mut self,
        name: &OurName,
        sandbox: &OurSandbox,
        failed: &FailedStart,
        lesson: &mut Lesson<'_>,
    ) {
        let (observed, now) = (lesson.observed, lesson.now);
        let class = &sandbox.origin.class;
        let in_use = observed.images.get(class).and_then(ImageState::id);
        let is_of_today = sandbox.image.is_none() || in_use.is_none() || sandbox.image.as_ref() == in_use;
        if !is_of_today {
            return;
        }
        let blame = match failed.suspect {
            Suspect::Image => self.blame(name, sandbox, lesson),
            Suspect::Class => Blame::Class,
        };
        if matches!(blame, Blame::Class | Blame::HeldAgain) {
            let mut breaker = self.failed_starts.remove(class);
            let began = sandbox.created(observed.skew);
            Breaker::count(&mut breaker, FAILED_STARTS_MAX, failed.reason, began, now);
            self.failed_starts.extend(breaker.map(|breaker| (class.clone(), breaker)));
        }
    }

    /// A runner was first found to be, or to have been, online: its class starts, its image brings runners online, and
    /// GitHub took the version in it after its sandbox had started; when exactly no list tells. One that stays online says
    /// nothing of those that start later.
    pub(super) fn learn_start(&mut self, name: &OurName, sandbox: &OurSandbox, lesson: &Lesson<'_>) {
        let evidence = self.name(name, lesson.now);
        evidence.start_learned_at = Some(lesson.now);
        if evidence.overdue_at.take().is_some() {
            // It only came late.
            let job = self.job(name.job, lesson.now);
            job.fruitless = job.fruitless.saturating_sub(1);
        }
        let class = &sandbox.origin.class;
        self.class_started(class, lesson.now);
        if let Some(image) = image_of(sandbox, lesson.observed) {
            let started = sandbox.started(lesson.observed.skew);
            if self.refused_images.get(image).is_some_and(|refused| refused.failed_at < started) {
                self.refused_images.remove(image);
            }
            self.learn_image(class, image, lesson);
        }
    }

    /// A runner of a class came online.
    pub(super) fn class_started(&mut self, class: &ClassName, now: DateTime<Utc>) {
        *self.started_at.entry(class.clone()).or_insert(now) = now;
        self.failed_starts.remove(class);
    }

    /// An image was made anew because GitHub refuses the runner in it: whether it takes that of the new one is tried once, and
    /// at once. One that came out the same tells nothing.
    pub(super) fn learn_rebuilt(&mut self, before: &ImageId, image: &ImageId, now: DateTime<Utc>) {
        if before != image {
            let failures = self.refused_images.remove(before).map_or(1, |breaker| breaker.failures);
            self.refused_images.insert(image.clone(), Breaker::due(failures, Exit::VersionRefused.as_str(), now));
        }
    }

    /// The open breaker that keeps a class from creates: its own, or that of its image.
    pub fn breaker_of_class(&self, class: &ClassName, image: Option<&ImageId>) -> Option<&Breaker> {
        let of_image = image.and_then(|image| self.refused_images.get(image));
        of_image.into_iter().chain(self.failed_starts.get(class)).find(|breaker| breaker.again_at().is_some())
    }

    /// Drops what belongs to nothing in view any more.
    pub(super) fn forget_feedback(&mut self, observed: &Observed, is_fresh: impl Fn(DateTime<Utc>) -> bool) {
        let queued: BTreeSet<(&Registry, Fingerprint)> = observed
            .repos
            .values()
            .flat_map(|repo| {
                repo.runs.values().flat_map(move |run| run.jobs.values().map(move |job| (&repo.registry, job)))
            })
            .filter(|(_, job)| job.status == JobStatus::Queued)
            .map(|(registry, job)| (registry, job.labels.fingerprint()))
            .collect();
        self.groups.retain(|(registry, labels), group| {
            group.seen_at.is_some_and(&is_fresh) || queued.contains(&(registry, *labels))
        });
    }
}

/// Whether a sandbox ended by itself, or by what Modal found wrong with it. Whatever its first process ended with: where the
/// image lacks bash, there is nobody to say more.
fn ended_by_itself(sandbox: &OurSandbox, result: &SandboxResult, exit: Exit) -> bool {
    match result.status {
        SandboxEnd::Success | SandboxEnd::Failure => match exit {
            Exit::RegistrationFailed | Exit::Crashed | Exit::Other(_) => true,
            Exit::Served | Exit::Unclaimed | Exit::VersionRefused | Exit::PolicyRefused | Exit::Stopped => false,
        },
        SandboxEnd::InitFailure | SandboxEnd::OutOfMemory | SandboxEnd::IdleTimeout => true,
        SandboxEnd::Timeout => sandbox.is_scheduled,
        // A machine with a GPU may be taken away at any time, or never be there: neither tells anything of the class.
        SandboxEnd::InternalFailure | SandboxEnd::Other(_) => sandbox.origin.machine.gpu.is_none(),
        SandboxEnd::Terminated => false,
    }
}

/// What a sandbox was made from; where that is not known, the image that its class has now.
pub(super) fn image_of<'a>(sandbox: &'a OurSandbox, observed: &'a Observed) -> Option<&'a ImageId> {
    sandbox.image.as_ref().or_else(|| observed.images.get(&sandbox.origin.class)?.id())
}

/// Since when a runner waits, or waited until it ended, without a job.
fn waits_since(sandbox: &OurSandbox, evidence: &NameEvidence) -> Option<DateTime<Utc>> {
    if evidence.claim.is_some() || evidence.busy_at.is_some() || evidence.terminated_at.is_some() {
        return None;
    }
    let has_ended_unclaimed = sandbox.ended.as_ref().is_some_and(|ended| {
        ended.result.as_ref().is_some_and(|result| {
            result.status == SandboxEnd::Failure && Exit::from_code(result.exit_code) == Exit::Unclaimed
        })
    });
    match &sandbox.ended {
        None => evidence.online_at,
        // Jobs that were queued when the sandbox started were queued during the whole wait.
        Some(_) if has_ended_unclaimed => evidence.online_at.or(sandbox.started_at),
        Some(_) => None,
    }
}
