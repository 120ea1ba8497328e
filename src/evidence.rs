//! What earlier passes taught (pure): first and last sightings, agreeing readings, attempts, claims.
//!
//! Invariant: losing it never leads to a wrong deletion (design rule K). Everything here only delays
//! destruction, or saves a create. [`kept`] says what of it survives a restart.

pub mod kept;

mod ceiling;
mod end;
mod feedback;
mod images;
mod name;
mod secrets;
mod shortage;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::act::{Effect, Outcome};
use crate::class::Machine;
use crate::error::{CallFailure, ErrorClass};
use crate::ids::{AccountName, ClassName, Fingerprint, ImageId, JobId, OurName, RunId, RunnerId};
use crate::plan::{LISTS_LAG, Policy};
use crate::retry;
use crate::runner::RunnerVersion;
use crate::state::{
    Connection, JobStatus, Observed, Origin, OurSandbox, ReadTimes, Registry, RegistryView, RepoView, Runner, Scope,
    WorkflowJob,
};

pub use ceiling::Ceiling;
pub use end::{END_REASONS, INIT_FAILURE, INTERNAL_FAILURE, NO_CAPACITY, PREEMPTED, end_reason, is_infrastructure};

use feedback::image_of;
pub use feedback::{Breaker, CLAIM_HOLDS, GHOST_AFTER, GroupEvidence, RunStamp, Waiting};
pub use images::{GoodImage, HeldImage, Images};
use name::is_another;
pub use name::{AGREEMENT_APART, Agreement, Claim, GivenUp, NameEvidence};
pub use secrets::{SecretState, Secrets};
pub use shortage::Shortage;

/// How much later a list must be read that shows a job as queued which was seen in progress, to be believed.
///
/// Lists lag and may go back by seconds; GitHub itself queues a job again only after its runner did not
/// take it for 60 s (GitHub: about self-hosted runners).
pub const ADVANCED_HOLDS: TimeDelta = TimeDelta::seconds(60);
/// Fruitless attempts for a job before further ones become probes with growing pauses.
pub const ATTEMPTS_MAX: u32 = 3;
/// Attempts for a job that ended with Modal's machines, likewise: these are no fault of the job or its class, so more of
/// them are worth it.
pub const MACHINES_LOST_MAX: u32 = 10;
/// For how long traces of another process mean that it may still be at work.
const COMPANY_HOLDS: TimeDelta = TimeDelta::minutes(5);
/// How long something unseen is remembered.
const FORGET_AFTER: TimeDelta = TimeDelta::minutes(30);

/// Of how many versions of the runner it is remembered when a newer one came.
const VERSIONS_KEPT: usize = 100;
/// How often that is looked at.
const FORGET_EVERY: TimeDelta = TimeDelta::minutes(1);

/// The memory between passes.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// By job.
    pub jobs: BTreeMap<JobId, JobEvidence>,
    /// By name of sandbox and runner.
    pub names: BTreeMap<OurName, NameEvidence>,
    /// Classes whose image has served a job.
    pub proven: BTreeSet<ClassName>,
    /// How many jobs of a run and label set our runners ran at the same time, at the most.
    pub parallel: BTreeMap<(Scope, Fingerprint, RunId), u32>,
    /// By group.
    pub groups: BTreeMap<(Registry, Fingerprint), GroupEvidence>,
    /// When a runner of a class last came online, since the start.
    pub started_at: BTreeMap<ClassName, DateTime<Utc>>,
    /// Classes whose runners did not come online.
    pub failed_starts: BTreeMap<ClassName, Breaker>,
    /// Images whose runner version GitHub refused.
    pub refused_images: BTreeMap<ImageId, Breaker>,
    /// Images with which runners of classes came online, and such with which they did not.
    pub images: Images,
    /// Since when it is known that there is a newer runner than one in use.
    pub newer_since: BTreeMap<RunnerVersion, DateTime<Utc>>,
    /// How many sandboxes served a job, since the start.
    pub served: BTreeMap<(Scope, ClassName), u64>,
    /// Where no runner could be registered; with a label set where GitHub refused just that.
    pub mint_failures: BTreeMap<(Registry, Option<Fingerprint>), Failing>,
    /// Classes of which no sandbox could be created.
    pub create_failures: BTreeMap<ClassName, Failing>,
    /// When something last showed another process of this deployment at work: a second controller, or the one before
    /// this one.
    others_at: Option<DateTime<Utc>>,
    /// What came of deleting Secrets.
    pub secrets: Secrets,
    ceiling: Option<Ceiling>,
    shortages: BTreeMap<(ClassName, Machine), Shortage>,
    /// When Modal last refused a create for want of something: its quota may tell of what.
    pub refused_at: Option<DateTime<Utc>>,
    jobs_learned_at: BTreeMap<(Scope, RunId), DateTime<Utc>>,
    runners_learned_at: BTreeMap<Registry, DateTime<Utc>>,
    forgot_at: Option<DateTime<Utc>>,
}

/// What is known of a job beyond its last reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvidence {
    /// When it was first seen queued: its age counts from here.
    pub first_queued: DateTime<Utc>,
    /// When it was last seen beyond queued.
    pub advanced_at: Option<DateTime<Utc>>,
    /// The highest attempt that was used in a name.
    pub attempt: u32,
    /// Attempts that ended without serving anything.
    pub fruitless: u32,
    /// When the last of them ended.
    pub fruitless_at: Option<DateTime<Utc>>,
    /// Attempts that ended with Modal's machine, which failed or was taken away; they are no fruitless ones.
    #[serde(default)]
    pub machines_lost: u32,
    /// When the last of these ended.
    #[serde(default)]
    pub machine_lost_at: Option<DateTime<Utc>>,
    /// How far the last of the fruitless ones came.
    #[serde(default)]
    pub came: Phase,
    /// What came of waiting for it to be given to a runner.
    #[serde(default)]
    pub waiting: Waiting,
    /// The runner of ours that it was given to.
    #[serde(default)]
    pub taken_by: Option<OurName>,
    #[serde(default)]
    has_ended: bool,
    seen_at: DateTime<Utc>,
}

/// How far a runner came that served nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It never came online.
    Start,
    /// It did.
    #[default]
    Online,
}

/// Failures in a row of the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// How many.
    pub failures: u32,
    /// The last one.
    pub failure: CallFailure,
    /// Before this time it is not tried again.
    pub again_at: DateTime<Utc>,
}

/// A job that one of our runners took, with the times of its legs by our clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pickup {
    /// The class of the runner.
    pub class: Option<ClassName>,
    /// When GitHub queued the job.
    pub queued_at: Option<DateTime<Utc>>,
    /// When we first saw it.
    pub seen_at: DateTime<Utc>,
    /// When the sandbox that took it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When its runner was first seen online.
    pub online_at: Option<DateTime<Utc>>,
    /// When the job started.
    pub started_at: Option<DateTime<Utc>>,
    /// Whether its runner was made for another label set.
    pub is_cross_class: CrossClass,
}

/// Whether a runner took a job of another label set than its own (design rule A).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossClass {
    /// The runner's own label set, or unknown.
    No,
    /// A smaller one.
    Yes,
}

/// What a pass learned that is worth a metric or a log line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Jobs that our runners took.
    pub pickups: Vec<Pickup>,
    /// Sandboxes that ended, with their class and reason.
    pub ends: Vec<(OurName, ClassName, &'static str)>,
    /// Machines that Modal is short of, which it was not known to be.
    pub shortages: Vec<(ClassName, Machine)>,
    /// Images whose runner GitHub refused.
    pub refused_images: BTreeSet<ImageId>,
    /// New images whose first runners did not come online, with the class whose runners they were.
    pub held_images: Vec<(ClassName, ImageId)>,
}

/// What one round of learning looks at, and what comes of it.
struct Lesson<'a> {
    observed: &'a Observed,
    policy: &'a Policy,
    now: DateTime<Utc>,
    learned: Learned,
}

impl Evidence {
    /// Takes what was observed and what the actions came to.
    pub fn learn(&mut self, observed: &Observed, policy: &Policy, outcomes: &[Outcome], now: DateTime<Utc>) -> Learned {
        let mut lesson = Lesson { observed, policy, now, learned: Learned::default() };
        for outcome in outcomes {
            self.learn_outcome(outcome, policy, now);
        }
        self.learn_ceiling(observed, policy, outcomes, now);
        for (name, sandbox) in &observed.fleet.sandboxes {
            self.learn_sandbox(name, sandbox, &mut lesson);
        }
        for (scope, repo) in &observed.repos {
            self.learn_jobs(scope, repo, &mut lesson);
        }
        for (registry, view) in &observed.registries {
            self.learn_runners(registry, view, &lesson);
        }
        self.learn_overdue(&mut lesson);
        self.learn_in_vain(observed, policy, now);
        self.learn_versions(observed, now);
        self.forget(observed, now);
        lesson.learned
    }

    fn learn_versions(&mut self, observed: &Observed, now: DateTime<Utc>) {
        let Some(newest) = observed.newest_release() else { return };
        for version in observed.runners_in_use.values().filter(|version| **version < newest) {
            self.newer_since.entry(*version).or_insert(now);
        }
        while self.newer_since.len() > VERSIONS_KEPT {
            self.newer_since.pop_first();
        }
    }

    /// Whether another process of this deployment was at work a short time ago.
    pub fn is_in_company(&self, now: DateTime<Utc>) -> bool {
        self.others_at.is_some_and(|at| now - at < COMPANY_HOLDS)
    }

    /// Notes that a create was started, so that its name is never used again.
    pub fn started(&mut self, name: &OurName, origin: &Origin, now: DateTime<Utc>) {
        let job = self.job(name.job, now);
        job.attempt = job.attempt.max(name.attempt);
        // Whatever is known of the name is of an earlier use, which nothing had told of when the number was chosen.
        *self.name(name, now) =
            NameEvidence { origin: Some(origin.clone()), seen_at: Some(now), ..NameEvidence::default() };
    }

    fn job(&mut self, id: JobId, now: DateTime<Utc>) -> &mut JobEvidence {
        self.jobs.entry(id).or_insert(JobEvidence {
            first_queued: now,
            advanced_at: None,
            attempt: 0,
            fruitless: 0,
            fruitless_at: None,
            machines_lost: 0,
            machine_lost_at: None,
            came: Phase::Online,
            waiting: Waiting::default(),
            taken_by: None,
            has_ended: false,
            seen_at: now,
        })
    }

    /// Counts an attempt for a job that served nothing.
    fn fruitless(&mut self, job: JobId, phase: Phase, now: DateTime<Utc>) {
        let job = self.job(job, now);
        job.came = phase;
        job.fruitless = job.fruitless.saturating_add(1);
        job.fruitless_at = Some(now);
    }

    /// Counts an attempt for a job that ended with its machine.
    fn lost_machine(&mut self, job: JobId, now: DateTime<Utc>) {
        let job = self.job(job, now);
        job.machines_lost = job.machines_lost.saturating_add(1);
        job.machine_lost_at = Some(now);
    }

    fn name(&mut self, name: &OurName, now: DateTime<Utc>) -> &mut NameEvidence {
        if !self.names.contains_key(name) {
            self.names.insert(name.clone(), NameEvidence::default());
        }
        let evidence = self.names.get_mut(name).expect("it was inserted above");
        evidence.seen_at = Some(now);
        evidence
    }

    /// A name, of which this is the registration.
    fn registration(&mut self, name: &OurName, runner: RunnerId, now: DateTime<Utc>) -> &mut NameEvidence {
        let evidence = self.name(name, now);
        evidence.take_registration(runner);
        evidence
    }

    /// A name whose registration we made.
    fn registered(&mut self, name: &OurName, runner: RunnerId, now: DateTime<Utc>) -> &mut NameEvidence {
        let evidence = self.registration(name, runner, now);
        evidence.see_registration(now);
        evidence
    }

    fn learn_outcome(&mut self, outcome: &Outcome, policy: &Policy, now: DateTime<Utc>) {
        let Outcome { effect, .. } = outcome;
        match effect {
            Effect::Created { name, origin, runner, .. } => {
                let registry = policy.registry(&origin.scope);
                self.mint_failures.remove(&(registry.clone(), None));
                self.mint_failures.remove(&(registry, Some(origin.group)));
                self.create_failures.remove(&origin.class);
                self.registered(name, *runner, now).created_at = Some(now);
            }
            Effect::NotPrepared { name, origin, failure } => {
                self.name(name, now).origin = None;
                note_failure(&mut self.create_failures, &origin.class, failure, now);
            }
            Effect::MintFailed { name, origin, failure } => {
                let evidence = self.name(name, now);
                if failure.class.may_have_taken_effect() {
                    (evidence.left_at, evidence.is_mint_unanswered) = (Some(now), true);
                } else {
                    // We made none: one of that name is another process's, and its sandbox may be about to appear.
                    evidence.origin = None;
                }
                let labels = (failure.class == ErrorClass::Invalid).then_some(origin.group);
                note_failure(&mut self.mint_failures, &(policy.registry(&origin.scope), labels), failure, now);
            }
            Effect::CreateFailed { name, origin, runner, failure } => {
                self.registered(name, *runner, now).left_at = Some(now);
                if self.is_refused_machine(origin, failure, policy, now) {
                    self.learn_refused_machine(origin, now);
                    return;
                }
                if failure.class != ErrorClass::RateLimited {
                    self.fruitless(name.job, Phase::Start, now);
                }
                if failure.class == ErrorClass::RateLimited && failure.retry_after.is_none() {
                    self.refused_at = Some(now);
                }
                if !ceiling::is_without_room(effect, policy) {
                    note_failure(&mut self.create_failures, &origin.class, failure, now);
                }
            }
            Effect::Deregistered { name, runner, reason } => {
                let evidence = self.registration(name, *runner, now);
                evidence.fenced_at = Some(now);
                // Modal may yet place it, and its runner cannot register then: that is not what it was given up for.
                evidence.given_up = evidence.given_up.or(GivenUp::by(*reason));
            }
            Effect::SecretDenied { name, runner } => {
                let evidence = self.registration(name, *runner, now);
                evidence.secret_denied_at.get_or_insert(now);
            }
            Effect::StillLives { name, runner } => self.registration(name, *runner, now).stale = None,
            Effect::StillRunning { name, runner } => self.registration(name, *runner, now).kept_at = Some(now),
            Effect::Terminated { name } => self.name(name, now).terminated_at = Some(now),
            Effect::SecretDeleted { secret, found, .. } => self.secrets.learn(secret, *found, now),
            // Both stand in the fleet as unsure; if no sandbox comes, the registration is left over.
            Effect::NameTaken { name, .. } => {
                self.others_at = Some(now);
                self.name(name, now).left_at = Some(now);
            }
            Effect::MaybeCreated { name, runner, .. } => self.registered(name, *runner, now).left_at = Some(now),
            Effect::Image { result: Ok(built), replaces: Some(before), .. } => {
                self.learn_rebuilt(before, &built.image, now);
            }
            // Images have a state of their own.
            Effect::Image { .. } | Effect::Failed { .. } => {}
        }
    }

    fn learn_sandbox(&mut self, name: &OurName, sandbox: &OurSandbox, lesson: &mut Lesson<'_>) {
        let now = lesson.now;
        self.learn_placement(sandbox, lesson);
        let mut is_known = false;
        if let Some(known) = self.names.get_mut(name) {
            // The sandbox itself says with which registration it was made.
            let runner = sandbox.runner.filter(|runner| is_another(known.runner_id, Some(*runner)));
            if let Some(runner) = runner.filter(|_| sandbox.ended.is_none()) {
                // Ours is not used twice: another process has used the name again.
                if known.runner_id.is_some() && !lesson.observed.in_flight.contains_key(name) {
                    self.others_at = Some(now);
                }
                known.take_registration(runner);
            }
            if sandbox.ended.is_none() {
                // A list from before it was made, or one that lacks it, says nothing of it.
                let since = sandbox.created(lesson.observed.skew);
                let shown =
                    lesson.observed.fleet.read.times().filter(|read| (since..=sandbox.seen_at).contains(&read.began));
                known.living = shown.map(|read| Agreement::extended(known.living, read)).or(known.living);
            }
            is_known = known.origin.is_some();
            if sandbox.ended.is_none() && is_known {
                known.seen_at = Some(now);
                return;
            }
        }
        let job = self.job(name.job, now);
        job.attempt = job.attempt.max(name.attempt);
        if !is_known {
            self.others_at = Some(now);
        }
        let evidence = self.name(name, now);
        evidence.origin.get_or_insert_with(|| sandbox.origin.clone());
        let Some(ended) = &sandbox.ended else { return };
        // What ended with another registration has nothing to do with this one.
        if evidence.ended_at.is_some() || is_another(evidence.runner_id, sandbox.runner) {
            return;
        }
        evidence.ended_at = Some(ended.at);
        self.learn_end(name, sandbox, ended, lesson);
    }

    fn learn_jobs(&mut self, scope: &Scope, repo: &RepoView, lesson: &mut Lesson<'_>) {
        let now = lesson.now;
        for run in repo.runs.values() {
            // A reading is known by when it began; passes that ran while it was under way did not see it.
            let reading = run.jobs_read.tried_at;
            let key = (scope.clone(), run.run.id);
            if reading.is_none() || self.jobs_learned_at.get(&key).copied() == reading {
                continue;
            }
            self.jobs_learned_at.extend(reading.map(|at| (key, at)));
            self.learn_parallel(scope, run, |job| ours(job, &scope.account, lesson.policy).is_some());
            self.learn_ghosts(run, now);
            for job in run.jobs.values() {
                let evidence = self.job(job.id, now);
                evidence.seen_at = now;
                match job.status {
                    JobStatus::InProgress | JobStatus::Completed => {
                        evidence.advanced_at = Some(now);
                        let first_queued = evidence.first_queued;
                        if job.status == JobStatus::Completed && !std::mem::replace(&mut evidence.has_ended, true) {
                            self.learn_freed(&repo.registry, job, now);
                        }
                        let pickup = self.learn_claim(&repo.registry, job, first_queued, lesson);
                        lesson.learned.pickups.extend(pickup);
                    }
                    JobStatus::Queued
                    | JobStatus::Waiting
                    | JobStatus::Pending
                    | JobStatus::Requested
                    | JobStatus::Other(_) => {}
                }
            }
        }
    }

    fn learn_claim(
        &mut self,
        registry: &Registry,
        job: &WorkflowJob,
        first_queued: DateTime<Utc>,
        lesson: &Lesson<'_>,
    ) -> Option<Pickup> {
        let now = lesson.now;
        let name = ours(job, registry.account(), lesson.policy)?;
        let evidence = self.name(&name, now);
        if evidence.claim.is_some() {
            return None;
        }
        let is_of_another = is_another(evidence.runner_id, job.runner_id);
        // The name is used up, also where nothing else of it is left: a second runner of that name would pass for
        // the one that took this job.
        let made_for = self.job(name.job, now);
        made_for.attempt = made_for.attempt.max(name.attempt);
        if is_of_another {
            return None;
        }
        self.learn_group_claim(registry, job, now);
        let evidence = self.name(&name, now);
        evidence.claim = Some(Claim { job: job.id, runner: job.runner_id, at: now });
        self.job(job.id, now).taken_by = Some(name.clone());
        let evidence = self.name(&name, now);
        let (origin, is_start_learned) = (evidence.origin.clone(), evidence.start_learned_at.is_some());
        let pickup = Pickup {
            class: origin.as_ref().map(|origin| origin.class.clone()),
            queued_at: job.created_at.map(|at| at - lesson.observed.skew),
            seen_at: first_queued,
            created_at: evidence.created_at,
            online_at: evidence.online_at,
            started_at: job.started_at.map(|at| at - lesson.observed.skew),
            is_cross_class: match &origin {
                Some(origin) if origin.group != job.labels.fingerprint() => CrossClass::Yes,
                Some(_) | None => CrossClass::No,
            },
        };
        if let Some(origin) = origin {
            match lesson.observed.fleet.sandboxes.get(&name) {
                _ if is_start_learned => {}
                Some(sandbox) => self.learn_start(&name, sandbox, lesson),
                None => self.class_started(&origin.class, now),
            }
            self.proven.insert(origin.class);
        }
        Some(pickup)
    }

    fn learn_runners(&mut self, registry: &Registry, view: &RegistryView, lesson: &Lesson<'_>) {
        let (observed, now) = (lesson.observed, lesson.now);
        let Some(read) = view.runners_read.times().filter(|read| self.runners_learned(registry, read.began)) else {
            return;
        };
        for (name, runner) in &view.runners {
            self.learn_runner(name, runner, read, lesson);
        }
        let absent: Vec<OurName> = observed
            .fleet
            .sandboxes
            .iter()
            .filter(|(name, sandbox)| {
                let is_there = observed.registry(&sandbox.origin.scope).is_some_and(|(there, _)| there == registry);
                is_there && sandbox.ended.is_none() && !view.runners.contains_key(*name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in absent {
            let evidence = self.name(&name, now);
            if evidence.online_at.is_none() {
                evidence.never_online = Some(Agreement::extended(evidence.never_online, read));
            }
        }
        self.runners_learned_at.insert(registry.clone(), read.began);
    }

    fn learn_runner(&mut self, name: &OurName, runner: &Runner, read: ReadTimes, lesson: &Lesson<'_>) {
        let (observed, now) = (lesson.observed, lesson.now);
        let job = self.job(name.job, now);
        job.attempt = job.attempt.max(name.attempt);
        let sandbox = observed.fleet.sandboxes.get(name);
        let is_alive = sandbox.is_some_and(|sandbox| sandbox.ended.is_none());
        if is_alive && sandbox.is_some_and(|sandbox| is_another(sandbox.runner, Some(runner.id))) {
            // A list from before the name was used again.
            return;
        }
        let is_wanted = is_alive || observed.in_flight.contains_key(name) || observed.fleet.unsure.contains_key(name);
        let both_read = observed.fleet.read.times().map(|fleet| [fleet, read]);
        let is_online = runner.connection == Connection::Online || runner.is_busy;
        let evidence = self.name(name, now);
        let is_new = evidence.origin.is_none() && evidence.registered_at.is_none();
        let is_again = is_another(evidence.registered_as, Some(runner.id)) && !observed.in_flight.contains_key(name);
        let is_anothers = is_new || is_again;
        evidence.take_registration(runner.id);
        evidence.see_registration(now);
        if runner.is_busy {
            evidence.busy_at.get_or_insert(read.began);
        }
        if is_online {
            evidence.online_at.get_or_insert(read.began);
            evidence.stale = None;
            evidence.never_online = None;
        } else if runner.connection == Connection::Unknown {
            // It may be connected: nothing is destroyed for it, and nothing that it may still need.
            (evidence.stale, evidence.never_online) = (None, None);
        } else if is_wanted {
            evidence.stale = None;
            if evidence.online_at.is_none() {
                evidence.never_online = Some(Agreement::extended(evidence.never_online, read));
            }
        } else if let Some(both) = both_read
            && evidence.registered_at.is_some_and(|known| both.iter().all(|read| known <= read.began))
        {
            evidence.stale = Some(Agreement::extended_by_both(evidence.stale, both));
        }
        let is_start_learned = evidence.start_learned_at.is_some();
        if is_anothers {
            self.others_at = Some(now);
        }
        let is_its = |sandbox: &&OurSandbox| !is_another(sandbox.runner, Some(runner.id));
        let Some(sandbox) = sandbox.filter(is_its).filter(|_| is_online) else { return };
        let class = &sandbox.origin.class;
        if !is_start_learned {
            self.learn_start(name, sandbox, lesson);
        } else if let Some(image) = image_of(sandbox, observed).filter(|_| self.images.good(class).is_none()) {
            self.learn_image(class, image, lesson);
        }
    }

    fn runners_learned(&self, registry: &Registry, read_at: DateTime<Utc>) -> bool {
        self.runners_learned_at.get(registry).is_none_or(|learned| *learned < read_at)
    }

    /// Once a minute: drops what was not seen for long and is not in view.
    fn forget(&mut self, observed: &Observed, now: DateTime<Utc>) {
        if self.forgot_at.is_some_and(|at| now - at < FORGET_EVERY) {
            return;
        }
        self.forgot_at = Some(now);
        let runs = || observed.repos.iter().flat_map(|(scope, repo)| repo.runs.keys().map(move |run| (scope, run)));
        let active: BTreeSet<(&Scope, &RunId)> = runs().collect();
        let jobs = observed.repos.values().flat_map(|repo| repo.runs.values()).flat_map(|run| run.jobs.keys());
        let jobs: BTreeSet<&JobId> = jobs.collect();
        let is_fresh = |seen: DateTime<Utc>| now - seen < FORGET_AFTER;
        self.jobs.retain(|id, job| is_fresh(job.seen_at) || jobs.contains(id));
        self.forget_names(observed, is_fresh);
        // What was not read yet is not empty.
        let is_unread = |scope: &Scope| observed.repos.get(scope).is_some_and(|repo| repo.runs_read.known_at.is_none());
        self.parallel.retain(|(scope, _, run), _| active.contains(&(scope, run)) || is_unread(scope));
        self.forget_feedback(observed, is_fresh);
        self.secrets.forget(&observed.fleet);
        self.forget_shortages(now);
        self.jobs_learned_at.retain(|(scope, run), _| active.contains(&(scope, run)));
    }
}

impl Evidence {
    /// What a create left shows in a list of runners alone: until one was read since, it may be there.
    fn forget_names(&mut self, observed: &Observed, is_fresh: impl Fn(DateTime<Utc>) -> bool) {
        let listed: BTreeSet<&OurName> = observed.registries.values().flat_map(|view| view.runners.keys()).collect();
        let is_unread = |known: &NameEvidence| {
            let view = known.origin.as_ref().and_then(|origin| observed.registry(&origin.scope)).map(|(_, view)| view);
            let read_at = view.and_then(|view| view.runners_read.known_at);
            let is_since = |left: DateTime<Utc>| read_at.is_none_or(|read| read < left + LISTS_LAG);
            view.is_some() && known.fenced_at.is_none() && known.left_at.is_some_and(is_since)
        };
        self.names
            .retain(|name, known| known.seen_at.is_some_and(&is_fresh) || listed.contains(name) || is_unread(known));
    }
}

/// The runner of ours that a job was given to.
fn ours(job: &WorkflowJob, account: &AccountName, policy: &Policy) -> Option<OurName> {
    let name: OurName = job.runner_name.as_deref()?.parse().ok()?;
    (name.deployment == policy.deployment && name.account == *account).then_some(name)
}

fn note_failure<K: Ord + Clone>(
    failing: &mut BTreeMap<K, Failing>,
    key: &K,
    failure: &CallFailure,
    now: DateTime<Utc>,
) {
    // What was under way together fails together: that is one failure.
    if failing.get(key).is_some_and(|failing| failing.again_at > now) {
        return;
    }
    let failures = failing.get(key).map_or(0, |failing| failing.failures).saturating_add(1);
    let again_at = now + TimeDelta::from_std(retry::read_again(failure, failures)).unwrap_or(TimeDelta::MAX);
    failing.insert(key.clone(), Failing { failures, failure: failure.clone(), again_at });
}
