//! What should be: queued jobs counted per group, and which of them need a new runner.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use rustc_hash::FxHashMap;

use super::group::{self, Joining};
use super::supply::{Supply, entry};
use super::{Context, Plan, Skip, SkipReason, beside};
use crate::class::{self, NoClass, Risks, RunnerClass};
use crate::evidence::{ADVANCED_HOLDS, ATTEMPTS_MAX, GroupEvidence, JobEvidence, MACHINES_LOST_MAX, Phase, end_reason};
use crate::ids::{Fingerprint, JobId, Labels, OurName, RunId};
use crate::mutant::{self, Mutant};
use crate::retry;
use crate::runner::Exit;
use crate::state::{Ended, JobStatus, Origin, Registry, RunStatus, RunView, Scope, Workflow};

/// How long what GitHub showed of a run is believed where the last reading of it failed; two intervals, if that is more.
const OUTDATED_AFTER: TimeDelta = TimeDelta::minutes(3);
/// The same where it was not read since: there was too much to read, or GitHub had asked to wait.
const UNREAD_OUTDATED_AFTER: TimeDelta = TimeDelta::minutes(12);

/// How long a job that was given to a runner of ours, which lives or has served, is not believed to be queued again.
const TAKEN_HOLDS: TimeDelta = TimeDelta::minutes(10);

/// The place of a group in [`Groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(pub(super) usize);

/// The place of a repository among the observed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RepoId(pub(super) usize);

/// The place of a registry among the observed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RegistryId(pub(super) usize);

/// Queued jobs with one label set whose runners are registered in one place.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) registry: &'a Registry,
    pub(super) labels: &'a Labels,
    pub(super) class: &'a RunnerClass,
    /// In the order of their ids.
    pub(super) queued: Vec<Queued<'a>>,
    /// Jobs that the last job reading shows as queued, and whose run has completed since: they were taken, or
    /// cancelled.
    pub(super) taken: usize,
    /// Unclaimed runners.
    pub(super) unclaimed: u32,
    /// When the oldest of the job readings began that show its queued jobs: those that are to be served, and those that
    /// may be tried.
    read_since: [Option<DateTime<Utc>>; 2],
}

/// A queued job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued<'a> {
    pub(super) repo: RepoId,
    pub(super) scope: &'a Scope,
    pub(super) job: JobId,
    pub(super) run: RunId,
    pub(super) since: DateTime<Utc>,
    known: Option<&'a JobEvidence>,
    standing: Standing,
    namesake: Namesake,
}

impl Group<'_> {
    /// What waiting for jobs of this group came to.
    pub(super) fn feedback<'b>(&self, context: &Context<'b>) -> Option<&'b GroupEvidence> {
        let known = &context.evidence.groups;
        if known.is_empty() { None } else { known.get(&(self.registry.clone(), self.labels.fingerprint())) }
    }

    /// How many jobs of one of its runs were run at the same time, at the most.
    fn parallel(&self, context: &Context<'_>) -> usize {
        let labels = self.labels.fingerprint();
        let runs: BTreeSet<(&Scope, RunId)> = self.queued.iter().map(|queued| (queued.scope, queued.run)).collect();
        let known = runs
            .into_iter()
            .filter_map(|(scope, run)| context.evidence.parallel.get(&(scope.clone(), labels, run)).copied());
        known.max().map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    fn count(&self, standing: Standing) -> usize {
        self.queued.iter().filter(|queued| queued.standing == standing).count()
    }
}

/// How much a queued job is trusted to be one that GitHub gives to a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Nothing speaks against it.
    Proven,
    /// A runner of its group waited in vain while it was queued.
    Unproven,
    /// The newest reading that shows it is too old: GitHub was not heard for a while.
    Outdated,
    /// Several runners that were made for it did.
    Ghost,
}

impl Standing {
    fn of(known: Option<&JobEvidence>) -> Self {
        match known.map(|known| &known.waiting) {
            Some(waiting) if waiting.ghost_since().is_some() => Self::Ghost,
            Some(waiting) if waiting.unproven_since.is_some() => Self::Unproven,
            Some(_) | None => Self::Proven,
        }
    }
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

/// The groups of a registry: few, so they are searched one by one.
type OfRegistry = Vec<(Fingerprint, GroupId)>;
/// What the label sets of a repository, by the risks of runs, come to; likewise.
type Resolved = Vec<((Fingerprint, Risks), Result<GroupId, NoClass>)>;

/// All groups with queued jobs.
#[derive(Debug, Default)]
pub(super) struct Groups<'a> {
    pub(super) all: Vec<Group<'a>>,
    by_repo: Vec<Resolved>,
    by_registry: Vec<OfRegistry>,
    repos: FxHashMap<&'a Scope, (RepoId, RegistryId)>,
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

    fn add(
        &mut self,
        (id, registry): (RegistryId, &'a Registry),
        labels: &'a Labels,
        class: &'a RunnerClass,
    ) -> GroupId {
        let group = GroupId(self.all.len());
        let queued = Vec::new();
        self.all.push(Group { registry, labels, class, queued, taken: 0, unclaimed: 0, read_since: [None; 2] });
        self.by_registry[id.0].push((labels.fingerprint(), group));
        group
    }

    /// The repository of that scope.
    pub(super) fn repo(&self, scope: &Scope) -> Option<RepoId> {
        self.repos.get(scope).map(|(repo, _)| *repo)
    }

    /// Where the runners of that repository are registered.
    pub(super) fn registry(&self, scope: &Scope) -> Option<RegistryId> {
        self.repos.get(scope).map(|(_, registry)| *registry)
    }

    /// The place of a registry.
    pub(super) fn registry_of(&self, registry: &Registry, context: &Context<'_>) -> Option<RegistryId> {
        context.observed.repos_of(registry).find_map(|(scope, _)| self.registry(scope))
    }

    /// The group of a registry's label set; of several classes that serve it, for different runs, the first.
    pub(super) fn id(&self, registry: Option<RegistryId>, labels: Fingerprint) -> Option<GroupId> {
        self.with_labels(registry?, labels).next()
    }

    fn with_labels(&self, registry: RegistryId, labels: Fingerprint) -> impl Iterator<Item = GroupId> {
        let is_asked = move |fingerprint: Fingerprint| fingerprint == labels || mutant::is(Mutant::LabelsIgnored);
        let of_registry = self.by_registry[registry.0].iter();
        of_registry.filter(move |(fingerprint, _)| is_asked(*fingerprint)).map(|(_, group)| *group)
    }

    /// The group that a sandbox of this origin can serve.
    pub(super) fn of_origin(&self, origin: &Origin) -> Option<GroupId> {
        let registry = self.registry(&origin.scope)?;
        let of_class = self.with_labels(registry, origin.group).find(|id| self.get(*id).class.name == origin.class);
        of_class.or_else(|| self.id(Some(registry), origin.group))
    }

    /// The queued job that a name was given for.
    pub(super) fn of_name(&self, name: &OurName) -> Option<Place> {
        let first = self.by_job.partition_point(|(job, _)| *job < name.job);
        let same = self.by_job[first..].iter().take_while(|(job, _)| *job == name.job);
        same.map(|(_, place)| *place).find(|place| *self.get(place.0).registry.account() == name.account)
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
        let [proven, unproven] = self.get(id).read_since;
        proven.or(unproven)
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
            .find(|place| *groups.get(place.0).registry.account() == name.account)
    }
}

/// A job that is listed as queued, with what its group has to know: all of it is at hand when it is read.
#[derive(Debug, Clone, Copy)]
struct Listed<'a> {
    repo: RepoId,
    registry: (RegistryId, &'a Registry),
    scope: &'a Scope,
    job: JobId,
    run: RunId,
    labels: &'a Labels,
    fingerprint: Fingerprint,
    risks: Risks,
    workflow: Option<&'a Workflow>,
    read_at: Option<DateTime<Utc>>,
    is_outdated: bool,
}

/// Sorts every queued job into its group; jobs without a class are skipped with their reason.
pub(super) fn groups<'a>(context: &Context<'a>, plan: &mut Plan) -> Groups<'a> {
    let observed = context.observed;
    let registries: FxHashMap<&Registry, RegistryId> =
        observed.registries.keys().enumerate().map(|(index, registry)| (registry, RegistryId(index))).collect();
    let (listed, taken) = listed(context, &registries);
    plan.skips.reserve(listed.len());
    let repos = observed.repos.iter().enumerate();
    let mut groups = Groups {
        by_repo: vec![Vec::new(); observed.repos.len()],
        by_registry: vec![Vec::new(); registries.len()],
        repos: repos.map(|(index, (scope, repo))| (scope, (RepoId(index), registries[&repo.registry]))).collect(),
        by_job: Vec::with_capacity(listed.len()),
        all: Vec::new(),
    };
    let mut resolver = Resolver::new(context);
    let mut evidence = context.evidence.jobs.iter().peekable();
    // In the order of the ids, so that what is known of the jobs is found beside.
    let mut order: Vec<(JobId, usize)> = listed.iter().enumerate().map(|(at, listed)| (listed.job, at)).collect();
    order.sort_unstable();
    for (job, at) in order {
        let known = beside(&mut evidence, &job);
        if let Err(reason) = add_job(&mut groups, &listed[at], known, &mut resolver) {
            plan.skips.push(skip(&listed[at], reason, context.soon));
        }
    }
    for (registry, labels) in taken {
        if let Some(id) = groups.id(Some(registry), labels) {
            groups.get_mut(id).taken += 1;
        }
    }
    for group in &groups.all {
        let tally = entry(&mut plan.tally, &group.class.name);
        for queued in &group.queued {
            *entry(&mut tally.queued, &queued.scope.repo) += 1;
        }
        let oldest = group.queued.iter().map(|queued| queued.since).min();
        tally.oldest_queued = earlier(tally.oldest_queued, oldest);
    }
    groups
}

/// Every job that is listed as queued; and the label sets of those whose run has completed since.
fn listed<'a>(
    context: &Context<'a>,
    registries: &FxHashMap<&Registry, RegistryId>,
) -> (Vec<Listed<'a>>, Vec<(RegistryId, Fingerprint)>) {
    let (mut listed, mut taken) = (Vec::new(), Vec::new());
    for (index, (scope, view)) in context.observed.repos.iter().enumerate() {
        let (repo, registry) = (RepoId(index), registries[&view.registry]);
        for run in view.runs.values() {
            for job in run.jobs.values().filter(|job| job.status == JobStatus::Queued) {
                let fingerprint = job.labels.fingerprint();
                let read_at = run.job_read_at(job.id);
                if run.run.status == RunStatus::Completed {
                    // Nothing in a completed run is demand: its jobs may say queued for ever.
                    taken.push((registry, fingerprint));
                } else {
                    listed.push(Listed {
                        repo,
                        registry: (registry, &view.registry),
                        scope,
                        job: job.id,
                        run: job.run_id,
                        labels: &job.labels,
                        fingerprint,
                        risks: run.run.risks,
                        workflow: run.run.workflow.as_deref(),
                        read_at,
                        is_outdated: is_outdated(run, read_at, context),
                    });
                }
            }
        }
    }
    (listed, taken)
}

/// Whether what is known of a job is from before a pause in which much may have changed: its run was not read since.
fn is_outdated(run: &RunView, read_at: Option<DateTime<Utc>>, context: &Context<'_>) -> bool {
    let interval = TimeDelta::from_std(context.policy.interval).unwrap_or(TimeDelta::MAX);
    let after = if run.jobs_read.failure.is_some() { OUTDATED_AFTER } else { UNREAD_OUTDATED_AFTER };
    read_at.is_some_and(|at| context.now - at >= after.max(interval * 2))
}

fn add_job<'a>(
    groups: &mut Groups<'a>,
    listed: &Listed<'a>,
    known: Option<&'a JobEvidence>,
    resolver: &mut Resolver<'a>,
) -> Result<(), SkipReason> {
    let now = resolver.context.now;
    let Listed { repo, registry, scope, job, run, labels, fingerprint, risks, workflow, read_at, is_outdated } =
        *listed;
    let is_held = |at: DateTime<Utc>| {
        // Only a list that was read long enough after it shows it queued again: they lag.
        read_at.is_none_or(|read| read - at < ADVANCED_HOLDS)
            || has_runner(known, &resolver.context) && now - at < TAKEN_HOLDS
    };
    if known.and_then(|known| known.advanced_at).is_some_and(is_held) {
        return Err(SkipReason::SeenInProgress);
    }
    let of_repo = &groups.by_repo[repo.0];
    let id = if let Some((_, id)) = of_repo.iter().find(|(known, _)| *known == (fingerprint, risks)) {
        id.clone()
    } else {
        let id = resolver.class(listed).map(|class| {
            let same = groups.with_labels(registry.0, fingerprint).find(|id| groups.get(*id).class.name == class.name);
            same.unwrap_or_else(|| groups.add(registry, labels, class))
        });
        groups.by_repo[repo.0].push(((fingerprint, risks), id.clone()));
        id
    };
    let id = id.map_err(SkipReason::NoClass)?;
    let joining = Joining { repo: &scope.repo, risks, workflow, admitted: groups.get(id).class.admits };
    if let Registry::Org(org) = registry.1
        && let Some(view) = resolver.context.observed.registries.get(registry.1)
        && let Some(reason) = group::refusal(org, view, joining, resolver.context.policy)
    {
        return Err(SkipReason::RunnerGroup(reason));
    }
    let group = groups.get_mut(id);
    let since = known.map_or(now, |known| known.first_queued);
    let place = Place(id, group.queued.len());
    let standing = match Standing::of(known) {
        Standing::Proven | Standing::Unproven if is_outdated => Standing::Outdated,
        standing @ (Standing::Proven | Standing::Unproven | Standing::Outdated | Standing::Ghost) => standing,
    };
    group.queued.push(Queued { repo, scope, job, run, since, known, standing, namesake: Namesake::None });
    let [proven, unproven] = &mut group.read_since;
    match standing {
        Standing::Proven => *proven = earlier(*proven, read_at),
        Standing::Unproven => *unproven = earlier(*unproven, read_at),
        // Nothing is made for these, so nothing has to have been read of them.
        Standing::Outdated | Standing::Ghost => {}
    }
    groups.by_job.push((job, place));
    Ok(())
}

/// Whether the runner of ours that a job was given to lives, or has done a job.
fn has_runner(known: Option<&JobEvidence>, context: &Context<'_>) -> bool {
    let taken_by = known.and_then(|known| known.taken_by.as_ref());
    let sandbox = taken_by.and_then(|name| context.observed.fleet.sandboxes.get(name));
    let has_served = |ended: &Ended| end_reason(ended.result.as_ref()) == Exit::Served.as_str();
    sandbox.is_some_and(|sandbox| sandbox.ended.as_ref().is_none_or(has_served))
}

/// The earlier of two times, where they are known.
fn earlier(one: Option<DateTime<Utc>>, other: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The classes of label sets, each looked for once.
struct Resolver<'a> {
    context: Context<'a>,
    /// By repository too where a class serves only some.
    known: FxHashMap<(Option<RepoId>, Fingerprint, Risks), Result<&'a RunnerClass, NoClass>>,
    depends_on_repo: bool,
}

impl<'a> Resolver<'a> {
    fn new(context: &Context<'a>) -> Self {
        let depends_on_repo = context.policy.classes.iter().any(|class| !class.repos.is_empty());
        Self { context: *context, known: FxHashMap::default(), depends_on_repo }
    }

    fn class(&mut self, listed: &Listed<'a>) -> Result<&'a RunnerClass, NoClass> {
        let Listed { repo, scope, labels, fingerprint, risks, .. } = *listed;
        let policy = self.context.policy;
        let key = (self.depends_on_repo.then_some(repo), fingerprint, risks);
        let resolve = || class::resolve(&policy.classes, &policy.required_label, (labels, risks), &scope.repo);
        self.known.entry(key).or_insert_with(resolve).clone()
    }
}

/// The queued jobs of each group beyond its supply: `create = queued − (starting + idle)`, design rule A.
///
/// Jobs that are not known to be claimable count as one, the next probe; ghosts count as none.
pub(super) fn needs<'a>(
    groups: &mut Groups<'a>,
    supply: &Supply<'_>,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Vec<Need<'a>> {
    let mut needs = Vec::new();
    for (index, group) in groups.all.iter_mut().enumerate() {
        let feedback = group.feedback(context);
        let probe_at = feedback.and_then(|known| known.probe_at(context.now));
        let lately = feedback.map_or(0, |known| known.claims_lately(context.now));
        let admitted = if probe_at.is_none() { group.parallel(context).min(lately).max(1) } else { 0 };
        let probes = group.count(Standing::Unproven).min(admitted);
        let mut missing = (group.count(Standing::Proven) + probes).saturating_sub(group.unclaimed as usize);
        let mut probes = probes.min(missing);
        // Runners are made for the lowest ids without a living name first, then for those whose namesake took
        // another job; for jobs that may not be claimable last.
        group.queued.sort_by_key(|queued| (queued.standing, queued.namesake));
        for queued in &group.queued {
            if let Some((mut reason, again)) = refused(queued, missing, probes, probe_at, context) {
                if let Some((machine, since)) = supply.unscheduled.get(&queued.job)
                    && reason == SkipReason::AlreadyServed
                {
                    reason = SkipReason::Unscheduled { machine: (*machine).clone(), since: *since };
                }
                plan.skips.push(skip_of(group, queued, reason, again));
                continue;
            }
            missing -= 1;
            probes -= usize::from(queued.standing == Standing::Unproven);
            match attempt(queued, group.class, context) {
                Ok(attempt) => needs.push(Need { group: GroupId(index), queued: *queued, attempt }),
                Err((reason, again)) => plan.skips.push(skip_of(group, queued, reason, again)),
            }
        }
    }
    needs
}

/// Why no runner is made for a queued job, with so many runners missing and so many probes admitted.
fn refused(
    queued: &Queued<'_>,
    missing: usize,
    probes: usize,
    probe_at: Option<DateTime<Utc>>,
    context: &Context<'_>,
) -> Option<(SkipReason, DateTime<Utc>)> {
    match queued.standing {
        Standing::Ghost => {
            let again = queued.known.and_then(|known| known.waiting.ghost_again_at());
            Some((SkipReason::GhostJob, again.unwrap_or(context.soon)))
        }
        Standing::Outdated => Some((SkipReason::Outdated, context.soon)),
        Standing::Unproven if probes == 0 => Some((SkipReason::Unproven, probe_at.unwrap_or(context.soon))),
        Standing::Proven | Standing::Unproven if missing == 0 => Some((SkipReason::AlreadyServed, context.soon)),
        Standing::Proven | Standing::Unproven => None,
    }
}

/// The next attempt for a job, or since too many were fruitless the time of the next probe.
fn attempt(
    queued: &Queued<'_>,
    class: &RunnerClass,
    context: &Context<'_>,
) -> Result<u32, (SkipReason, DateTime<Utc>)> {
    let now = context.now;
    let Some(job) = queued.known else { return Ok(1) };
    // What kept its runners from starting may be over: one of the class has started since.
    let is_over = |at: DateTime<Utc>| {
        job.came == Phase::Start && context.evidence.started_at.get(&class.name).is_some_and(|started| *started > at)
    };
    let (attempts, machines) = (job.fruitless, job.machines_lost);
    let fruitless_at = job.fruitless_at.filter(|at| !is_over(*at));
    let ends = [
        (attempts, ATTEMPTS_MAX, fruitless_at, SkipReason::Fruitless { attempts }),
        (machines, MACHINES_LOST_MAX, job.machine_lost_at, SkipReason::MachinesLost { machines }),
    ];
    for (count, most, last, reason) in ends {
        let Some(last) = last.filter(|_| count >= most) else { continue };
        let pause = retry::delay(retry::PROBE, count - most + 1);
        let again = last + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
        if again > now {
            return Err((reason, again));
        }
    }
    // The number comes from names that somebody else may have given.
    let next = job.attempt.saturating_add(1);
    Ok(if mutant::is(Mutant::AttemptNotAdvanced) { job.attempt.max(1) } else { next })
}

/// A listed job without a group.
fn skip(listed: &Listed<'_>, reason: SkipReason, again_at: DateTime<Utc>) -> Skip {
    Skip { scope: listed.scope.clone(), run: listed.run, job: listed.job, class: None, reason, again_at }
}

/// A queued job of a group that gets nothing.
pub(super) fn skip_of(group: &Group<'_>, queued: &Queued<'_>, reason: SkipReason, again_at: DateTime<Utc>) -> Skip {
    Skip {
        scope: queued.scope.clone(),
        run: queued.run,
        job: queued.job,
        class: Some(group.class.name.clone()),
        reason,
        again_at,
    }
}
