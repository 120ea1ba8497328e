//! What should be: queued jobs counted per group, and which of them need a new runner.

use chrono::{DateTime, TimeDelta, Utc};
use rustc_hash::FxHashMap;

use super::supply::{Supply, entry};
use super::{Context, Plan, Skip, SkipReason};
use crate::class::{self, NoClass, RunnerClass};
use crate::evidence::{ADVANCED_HOLDS, ATTEMPTS_MAX};
use crate::ids::{Fingerprint, JobId, Labels, RunId};
use crate::retry;
use crate::state::{JobStatus, Origin, RepoView, RunStatus, Scope, WorkflowJob};

/// The place of a group in [`Groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(usize);

/// Queued jobs of one scope with one label set.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The place of its repository among all.
    pub(super) repo: usize,
    pub(super) scope: &'a Scope,
    pub(super) labels: &'a Labels,
    pub(super) class: &'a RunnerClass,
    /// In the order of their ids.
    pub(super) queued: Vec<Queued>,
    /// Jobs that the last job reading shows as queued, and whose run has completed since: they were taken, or
    /// cancelled.
    pub(super) taken: usize,
    /// When the oldest of the job readings began that show its queued jobs.
    read_since: Option<DateTime<Utc>>,
}

/// A queued job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queued {
    pub(super) job: JobId,
    pub(super) run: RunId,
    pub(super) since: DateTime<Utc>,
}

/// A queued job that needs a new runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) group: GroupId,
    pub(super) queued: Queued,
    pub(super) attempt: u32,
}

/// All groups with queued jobs.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    pub(super) all: Vec<Group<'a>>,
    by_key: FxHashMap<(&'a Scope, Fingerprint), GroupId>,
    by_job: FxHashMap<JobId, (GroupId, RunId)>,
}

impl<'a> Groups<'a> {
    pub(super) fn get(&self, id: GroupId) -> &Group<'a> {
        &self.all[id.0]
    }

    fn add(
        &mut self,
        repo: usize,
        key: (&'a Scope, Fingerprint),
        labels: &'a Labels,
        class: &'a RunnerClass,
    ) -> GroupId {
        let id = GroupId(self.all.len());
        self.all.push(Group { repo, scope: key.0, labels, class, queued: Vec::new(), taken: 0, read_since: None });
        self.by_key.insert(key, id);
        id
    }

    /// The group that a sandbox of this origin can serve.
    pub(super) fn id(&self, origin: &Origin) -> Option<GroupId> {
        self.by_key.get(&(&origin.scope, origin.group)).copied()
    }

    /// The group and run of a queued job.
    pub(super) fn of_job(&self, scope: &Scope, job: JobId) -> Option<(GroupId, RunId)> {
        self.by_job.get(&job).copied().filter(|(group, _)| self.get(*group).scope == scope)
    }

    /// When the oldest reading began that the group's demand rests on.
    pub(super) fn read_since(&self, id: GroupId) -> Option<DateTime<Utc>> {
        self.get(id).read_since
    }
}

/// Sorts every queued job into its group; jobs without a class are skipped with their reason.
pub(super) fn groups<'a>(context: &Context<'a>, plan: &mut Plan) -> Groups<'a> {
    let mut groups = Groups::default();
    let runs = context.observed.repos.values().flat_map(|repo| repo.runs.values());
    let jobs = runs.map(|run| run.jobs.len()).sum();
    groups.by_job.reserve(jobs);
    plan.skips.reserve(jobs);
    let mut resolved = FxHashMap::default();
    for (index, (scope, repo)) in context.observed.repos.iter().enumerate() {
        if context.policy.classes.iter().any(|class| !class.repos.is_empty()) {
            // Then the class depends on the repository too.
            resolved.clear();
        }
        add_repo(&mut groups, (index, scope, repo), &mut resolved, context, plan);
    }
    for (scope, repo) in &context.observed.repos {
        count_taken(&mut groups, scope, repo);
    }
    for group in &mut groups.all {
        group.queued.sort_unstable();
        let tally = entry(&mut plan.tally, &group.class.name);
        let count = u32::try_from(group.queued.len()).unwrap_or(u32::MAX);
        *entry(&mut tally.queued, &group.scope.repo) += count;
        let oldest = group.queued.iter().map(|queued| queued.since).min();
        tally.oldest_queued = tally.oldest_queued.into_iter().chain(oldest).min();
    }
    groups
}

fn count_taken(groups: &mut Groups<'_>, scope: &Scope, repo: &RepoView) {
    let completed = repo.runs.values().filter(|run| run.run.status == RunStatus::Completed);
    for job in completed.flat_map(|run| run.jobs.values()).filter(|job| job.status == JobStatus::Queued) {
        if let Some(id) = groups.by_key.get(&(scope, job.labels.fingerprint())) {
            groups.all[id.0].taken += 1;
        }
    }
}

fn add_repo<'a>(
    groups: &mut Groups<'a>,
    (index, scope, repo): (usize, &'a Scope, &'a RepoView),
    resolved: &mut FxHashMap<Fingerprint, Result<&'a RunnerClass, NoClass>>,
    context: &Context<'a>,
    plan: &mut Plan,
) {
    let Context { evidence, policy, now, .. } = *context;
    // Nothing in a completed run is demand: its jobs may say queued for ever.
    for run in repo.runs.values().filter(|run| run.run.status != RunStatus::Completed) {
        for job in run.jobs.values().filter(|job| job.status == JobStatus::Queued) {
            let known = evidence.jobs.get(&job.id);
            if known.and_then(|known| known.advanced_at).is_some_and(|at| now - at < ADVANCED_HOLDS) {
                plan.skips.push(skip(scope, job, None, SkipReason::SeenInProgress, context.soon()));
                continue;
            }
            let key = (scope, job.labels.fingerprint());
            let id = if let Some(id) = groups.by_key.get(&key) {
                *id
            } else {
                let class = resolved.entry(key.1).or_insert_with(|| {
                    class::resolve(&policy.classes, &policy.required_label, &job.labels, &scope.repo)
                });
                match class {
                    Ok(class) => groups.add(index, key, &job.labels, class),
                    Err(reason) => {
                        let reason = SkipReason::NoClass(reason.clone());
                        plan.skips.push(skip(scope, job, None, reason, context.soon()));
                        continue;
                    }
                }
            };
            let group = &mut groups.all[id.0];
            let since = known.map_or(now, |known| known.first_queued);
            group.queued.push(Queued { job: job.id, run: job.run_id, since });
            let read = run.jobs_read.known_at.or(run.jobs_read.tried_at);
            group.read_since = group.read_since.into_iter().chain(read).min();
            groups.by_job.insert(job.id, (id, job.run_id));
        }
    }
}

/// The queued jobs of each group beyond its supply: `create = queued − (starting + idle)`, design rule A.
pub(super) fn needs(groups: &Groups<'_>, supply: &Supply<'_>, context: &Context<'_>, plan: &mut Plan) -> Vec<Need> {
    let mut needs = Vec::new();
    for (index, group) in groups.all.iter().enumerate() {
        let id = GroupId(index);
        let supplied = supply.unclaimed.get(&id).copied().unwrap_or(0) as usize;
        let mut missing = group.queued.len().saturating_sub(supplied);
        // The lowest ids without a living name come first; then those whose namesake took another job.
        let (named, unnamed): (Vec<&Queued>, Vec<&Queued>) =
            group.queued.iter().partition(|queued| supply.named.contains(&queued.job));
        let (occupied, free): (Vec<&Queued>, Vec<&Queued>) =
            unnamed.into_iter().partition(|queued| supply.occupied.contains(&queued.job));
        for queued in free.into_iter().chain(occupied).chain(named) {
            if missing == 0 {
                plan.skips.push(skip_of(group, queued, SkipReason::AlreadyServed, context.soon()));
                continue;
            }
            missing -= 1;
            match attempt(queued, context) {
                Ok(attempt) => needs.push(Need { group: id, queued: *queued, attempt }),
                Err((reason, again)) => plan.skips.push(skip_of(group, queued, reason, again)),
            }
        }
    }
    needs
}

/// The next attempt for a job, or since too many were fruitless the time of the next probe.
fn attempt(queued: &Queued, context: &Context<'_>) -> Result<u32, (SkipReason, DateTime<Utc>)> {
    let Some(job) = context.evidence.jobs.get(&queued.job) else { return Ok(1) };
    if let Some(at) = job.fruitless_at.filter(|_| job.fruitless >= ATTEMPTS_MAX) {
        let pause = retry::delay(retry::PROBE, job.fruitless - ATTEMPTS_MAX + 1);
        let again = at + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        if again > context.now {
            return Err((SkipReason::Fruitless { attempts: job.fruitless }, again));
        }
    }
    Ok(job.attempt + 1)
}

fn skip(
    scope: &Scope,
    job: &WorkflowJob,
    class: Option<&RunnerClass>,
    reason: SkipReason,
    again_at: DateTime<Utc>,
) -> Skip {
    Skip {
        scope: scope.clone(),
        run: job.run_id,
        job: job.id,
        class: class.map(|class| class.name.clone()),
        reason,
        again_at,
    }
}

/// A queued job of a group that gets nothing.
pub(super) fn skip_of(group: &Group<'_>, queued: &Queued, reason: SkipReason, again_at: DateTime<Utc>) -> Skip {
    Skip {
        scope: group.scope.clone(),
        run: queued.run,
        job: queued.job,
        class: Some(group.class.name.clone()),
        reason,
        again_at,
    }
}
