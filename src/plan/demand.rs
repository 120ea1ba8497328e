//! What should be: queued jobs counted per group, and which of them need a new runner.

use chrono::{DateTime, TimeDelta, Utc};
use rustc_hash::FxHashMap;

use super::supply::entry;
use super::{Context, Plan, Skip, SkipReason, beside};
use crate::class::{self, NoClass, RunnerClass};
use crate::evidence::{ADVANCED_HOLDS, ATTEMPTS_MAX, JobEvidence};
use crate::ids::{Fingerprint, JobId, Labels, OurName, RunId};
use crate::retry;
use crate::state::{JobStatus, Origin, RepoView, RunStatus, RunView, Scope, WorkflowJob};

/// The place of a group in [`Groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(pub(super) usize);

/// The place of a repository among the observed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RepoId(pub(super) usize);

/// Queued jobs of one scope with one label set.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) repo: RepoId,
    pub(super) scope: &'a Scope,
    pub(super) labels: &'a Labels,
    pub(super) class: &'a RunnerClass,
    /// In the order of their ids.
    pub(super) queued: Vec<Queued<'a>>,
    /// Jobs that the last job reading shows as queued, and whose run has completed since: they were taken, or
    /// cancelled.
    pub(super) taken: usize,
    /// Unclaimed runners.
    pub(super) unclaimed: u32,
    /// When the oldest of the job readings began that show its queued jobs.
    read_since: Option<DateTime<Utc>>,
}

/// A queued job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued<'a> {
    pub(super) job: JobId,
    pub(super) run: RunId,
    pub(super) since: DateTime<Utc>,
    known: Option<&'a JobEvidence>,
    namesake: Namesake,
}

/// Whether a sandbox that was made for a job is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Namesake {
    /// None is.
    None,
    /// One is, which took another job or failed.
    Occupied,
    /// One is that can still take a job.
    Waiting,
}

/// A queued job that needs a new runner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a> {
    pub(super) group: GroupId,
    pub(super) queued: Queued<'a>,
    pub(super) attempt: u32,
}

/// What the label sets of a repository come to: few, so they are searched one by one.
type Resolved = Vec<(Fingerprint, Result<GroupId, NoClass>)>;

/// All groups with queued jobs.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    pub(super) all: Vec<Group<'a>>,
    by_repo: Vec<Resolved>,
    repos: FxHashMap<&'a Scope, RepoId>,
    /// Where each queued job is, in the order of their ids.
    by_job: Vec<(JobId, Place)>,
}

/// The place of a queued job: its group, and where in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(GroupId, usize);

impl<'a> Groups<'a> {
    pub(super) fn get(&self, id: GroupId) -> &Group<'a> {
        &self.all[id.0]
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> &mut Group<'a> {
        &mut self.all[id.0]
    }

    fn add(&mut self, repo: RepoId, scope: &'a Scope, labels: &'a Labels, class: &'a RunnerClass) -> GroupId {
        let id = GroupId(self.all.len());
        let group = Group { repo, scope, labels, class, queued: Vec::new(), taken: 0, unclaimed: 0, read_since: None };
        self.all.push(group);
        id
    }

    /// The repository of that scope.
    pub(super) fn repo(&self, scope: &Scope) -> Option<RepoId> {
        self.repos.get(scope).copied()
    }

    /// The group of a repository's label set.
    pub(super) fn id(&self, repo: Option<RepoId>, labels: Fingerprint) -> Option<GroupId> {
        let resolved = &self.by_repo[repo?.0];
        let (_, group) = resolved.iter().find(|(fingerprint, _)| *fingerprint == labels)?;
        group.as_ref().ok().copied()
    }

    /// The group that a sandbox of this origin can serve.
    pub(super) fn of_origin(&self, origin: &Origin) -> Option<GroupId> {
        self.id(self.repo(&origin.scope), origin.group)
    }

    /// The queued job that a name was given for.
    pub(super) fn of_name(&self, name: &OurName) -> Option<Place> {
        let first = self.by_job.partition_point(|(job, _)| *job < name.job);
        let same = self.by_job[first..].iter().take_while(|(job, _)| *job == name.job);
        same.map(|(_, place)| *place).find(|place| self.get(place.0).scope.account == name.account)
    }

    /// The group and run of a queued job.
    pub(super) fn at(&self, place: Place) -> (GroupId, RunId) {
        (place.0, self.get(place.0).queued[place.1].run)
    }

    /// Notes a sandbox that was made for a queued job.
    pub(super) fn note(&mut self, place: Option<Place>, namesake: Namesake) {
        if let Some(Place(group, at)) = place {
            let queued = &mut self.all[group.0].queued[at];
            queued.namesake = queued.namesake.max(namesake);
        }
    }

    /// When the oldest reading began that the group's demand rests on.
    pub(super) fn read_since(&self, id: GroupId) -> Option<DateTime<Utc>> {
        self.get(id).read_since
    }
}

/// Finds the jobs of names that are asked for in order.
#[derive(Debug, Default)]
pub(super) struct InOrder(usize);

impl InOrder {
    pub(super) fn of_name(&mut self, name: &OurName, groups: &Groups<'_>) -> Option<Place> {
        let rest = &groups.by_job[self.0..];
        self.0 += rest.iter().take_while(|(job, _)| *job < name.job).count();
        groups.by_job[self.0..]
            .iter()
            .take_while(|(job, _)| *job == name.job)
            .map(|(_, place)| *place)
            .find(|place| groups.get(place.0).scope.account == name.account)
    }
}

/// A job that is listed as queued.
#[derive(Debug, Clone, Copy)]
struct Listed<'a> {
    repo: RepoId,
    scope: &'a Scope,
    run: &'a RunView,
    job: &'a WorkflowJob,
}

/// Sorts every queued job into its group; jobs without a class are skipped with their reason.
pub(super) fn groups<'a>(context: &Context<'a>, plan: &mut Plan) -> Groups<'a> {
    let observed = context.observed;
    let listed = listed(context);
    plan.skips.reserve(listed.len());
    let mut groups = Groups {
        by_repo: observed.repos.keys().map(|_| Vec::new()).collect(),
        repos: observed.repos.keys().enumerate().map(|(index, scope)| (scope, RepoId(index))).collect(),
        by_job: Vec::with_capacity(listed.len()),
        all: Vec::new(),
    };
    let mut resolver = Resolver::new(context);
    let mut evidence = context.evidence.jobs.iter().peekable();
    for listed in &listed {
        let known = beside(&mut evidence, &listed.job.id);
        if let Err(reason) = add_job(&mut groups, listed, known, &mut resolver) {
            plan.skips.push(skip(listed, reason, context.soon()));
        }
    }
    for (scope, repo) in &observed.repos {
        count_taken(&mut groups, scope, repo);
    }
    for group in &groups.all {
        let tally = entry(&mut plan.tally, &group.class.name);
        let count = u32::try_from(group.queued.len()).unwrap_or(u32::MAX);
        *entry(&mut tally.queued, &group.scope.repo) += count;
        let oldest = group.queued.iter().map(|queued| queued.since).min();
        tally.oldest_queued = tally.oldest_queued.into_iter().chain(oldest).min();
    }
    groups
}

/// Every job that is listed as queued, in the order of the ids, so that what is known of them is found beside.
fn listed<'a>(context: &Context<'a>) -> Vec<Listed<'a>> {
    let mut listed = Vec::new();
    for (index, (scope, repo)) in context.observed.repos.iter().enumerate() {
        // Nothing in a completed run is demand: its jobs may say queued for ever.
        for run in repo.runs.values().filter(|run| run.run.status != RunStatus::Completed) {
            let queued = run.jobs.values().filter(|job| job.status == JobStatus::Queued);
            listed.extend(queued.map(|job| Listed { repo: RepoId(index), scope, run, job }));
        }
    }
    listed.sort_unstable_by_key(|listed| (listed.job.id, listed.repo));
    listed
}

fn count_taken(groups: &mut Groups<'_>, scope: &Scope, repo: &RepoView) {
    let completed = repo.runs.values().filter(|run| run.run.status == RunStatus::Completed);
    for job in completed.flat_map(|run| run.jobs.values()).filter(|job| job.status == JobStatus::Queued) {
        if let Some(id) = groups.id(groups.repo(scope), job.labels.fingerprint()) {
            groups.get_mut(id).taken += 1;
        }
    }
}

fn add_job<'a>(
    groups: &mut Groups<'a>,
    listed: &Listed<'a>,
    known: Option<&'a JobEvidence>,
    resolver: &mut Resolver<'a>,
) -> Result<(), SkipReason> {
    let now = resolver.context.now;
    let Listed { repo, scope, run, job } = *listed;
    if known.and_then(|known| known.advanced_at).is_some_and(|at| now - at < ADVANCED_HOLDS) {
        return Err(SkipReason::SeenInProgress);
    }
    let labels = job.labels.fingerprint();
    let resolved = groups.by_repo[repo.0].iter().find(|(fingerprint, _)| *fingerprint == labels);
    let id = if let Some((_, resolved)) = resolved {
        resolved.clone()
    } else {
        let id = resolver.class(listed).map(|class| groups.add(repo, scope, &job.labels, class));
        groups.by_repo[repo.0].push((labels, id.clone()));
        id
    };
    let id = id.map_err(SkipReason::NoClass)?;
    let group = groups.get_mut(id);
    let since = known.map_or(now, |known| known.first_queued);
    let place = Place(id, group.queued.len());
    group.queued.push(Queued { job: job.id, run: job.run_id, since, known, namesake: Namesake::None });
    let read = run.jobs_read.known_at.or(run.jobs_read.tried_at);
    group.read_since = group.read_since.into_iter().chain(read).min();
    groups.by_job.push((job.id, place));
    Ok(())
}

/// The classes of label sets, each looked for once.
struct Resolver<'a> {
    context: Context<'a>,
    /// By repository too where a class serves only some.
    known: FxHashMap<(Option<RepoId>, Fingerprint), Result<&'a RunnerClass, NoClass>>,
    depends_on_repo: bool,
}

impl<'a> Resolver<'a> {
    fn new(context: &Context<'a>) -> Self {
        let depends_on_repo = context.policy.classes.iter().any(|class| !class.repos.is_empty());
        Self { context: *context, known: FxHashMap::default(), depends_on_repo }
    }

    fn class(&mut self, listed: &Listed<'a>) -> Result<&'a RunnerClass, NoClass> {
        let Listed { repo, scope, job, .. } = *listed;
        let policy = self.context.policy;
        let key = (self.depends_on_repo.then_some(repo), job.labels.fingerprint());
        let resolve = || class::resolve(&policy.classes, &policy.required_label, &job.labels, &scope.repo);
        self.known.entry(key).or_insert_with(resolve).clone()
    }
}

/// The queued jobs of each group beyond its supply: `create = queued − (starting + idle)`, design rule A.
pub(super) fn needs<'a>(groups: &Groups<'a>, context: &Context<'_>, plan: &mut Plan) -> Vec<Need<'a>> {
    let mut needs = Vec::new();
    for (index, group) in groups.all.iter().enumerate() {
        let mut missing = group.queued.len().saturating_sub(group.unclaimed as usize);
        // The lowest ids without a living name come first; then those whose namesake took another job.
        for namesake in [Namesake::None, Namesake::Occupied, Namesake::Waiting] {
            for queued in group.queued.iter().filter(|queued| queued.namesake == namesake) {
                if missing == 0 {
                    plan.skips.push(skip_of(group, queued, SkipReason::AlreadyServed, context.soon()));
                    continue;
                }
                missing -= 1;
                match attempt(queued, context.now) {
                    Ok(attempt) => needs.push(Need { group: GroupId(index), queued: *queued, attempt }),
                    Err((reason, again)) => plan.skips.push(skip_of(group, queued, reason, again)),
                }
            }
        }
    }
    needs
}

/// The next attempt for a job, or since too many were fruitless the time of the next probe.
fn attempt(queued: &Queued<'_>, now: DateTime<Utc>) -> Result<u32, (SkipReason, DateTime<Utc>)> {
    let Some(job) = queued.known else { return Ok(1) };
    if let Some(at) = job.fruitless_at.filter(|_| job.fruitless >= ATTEMPTS_MAX) {
        let pause = retry::delay(retry::PROBE, job.fruitless - ATTEMPTS_MAX + 1);
        let again = at + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        if again > now {
            return Err((SkipReason::Fruitless { attempts: job.fruitless }, again));
        }
    }
    Ok(job.attempt + 1)
}

/// A listed job without a group.
fn skip(listed: &Listed<'_>, reason: SkipReason, again_at: DateTime<Utc>) -> Skip {
    Skip { scope: listed.scope.clone(), run: listed.job.run_id, job: listed.job.id, class: None, reason, again_at }
}

/// A queued job of a group that gets nothing.
pub(super) fn skip_of(group: &Group<'_>, queued: &Queued<'_>, reason: SkipReason, again_at: DateTime<Utc>) -> Skip {
    Skip {
        scope: group.scope.clone(),
        run: queued.run,
        job: queued.job,
        class: Some(group.class.name.clone()),
        reason,
        again_at,
    }
}
