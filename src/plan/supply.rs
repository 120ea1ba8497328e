//! What is there: the state of every sandbox of ours, and how many runners each group can count on.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rustc_hash::FxHashMap;

use super::demand::{GroupId, Groups, InOrder, Namesake, Place, RegistryId, RepoId};
use super::{Context, Joined, Plan};
use crate::class::{ClassClocks, Machine};
use crate::evidence::NameEvidence;
use crate::ids::{ClassName, Fingerprint, JobId, OurName, RunId, RunnerId};
use crate::mutant::{self, Mutant};
use crate::state::{Connection, Observed, OurSandbox, Registry, RegistryView, Runner};

/// How far behind a job listing may be: a claim seen elsewhere is believed by a job reading only if that is
/// at least this much newer.
pub(crate) const LISTS_LAG: TimeDelta = TimeDelta::seconds(15);
/// How long a registration without a sandbox counts as a sandbox about to appear (design rule F).
const CREATING_HOLDS: TimeDelta = TimeDelta::minutes(3);
/// A sandbox that a list still shows this long after it was asked to terminate has not ended: lists lag by less,
/// and an answer can be wrong.
const ENDING_HOLDS: TimeDelta = TimeDelta::seconds(60);

/// The life of a sandbox, derived from evidence and never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Asked for; not seen yet.
    Creating,
    /// Modal has not placed it on a machine.
    Unscheduled,
    /// It lives; its runner was not seen online.
    Starting,
    /// Its runner is online, no job is known.
    Idle,
    /// A job names its runner, or it was seen busy.
    Claimed,
    /// Its runner did not come online in time, or it was never placed.
    Failed,
    /// Asked to terminate.
    Ending,
}

impl SandboxState {
    /// Every state, for metrics that show zero.
    pub const ALL: [Self; 7] =
        [Self::Creating, Self::Unscheduled, Self::Starting, Self::Idle, Self::Claimed, Self::Failed, Self::Ending];

    /// The state as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Unscheduled => "unscheduled",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Claimed => "claimed",
            Self::Failed => "failed",
            Self::Ending => "ending",
        }
    }

    /// Whether it can still take a queued job.
    fn is_supply(self) -> bool {
        match self {
            Self::Creating | Self::Unscheduled | Self::Starting | Self::Idle => true,
            Self::Claimed => mutant::is(Mutant::ClaimedIsSupply),
            Self::Failed | Self::Ending => false,
        }
    }
}

/// The state of a living sandbox; Modal's times are ahead of ours by `skew`.
pub fn state_of(
    sandbox: &OurSandbox,
    evidence: Option<&NameEvidence>,
    clocks: Option<&ClassClocks>,
    skew: TimeDelta,
    now: DateTime<Utc>,
) -> SandboxState {
    if evidence.and_then(|evidence| evidence.terminated_at).is_some_and(|at| sandbox.seen_at < at + ENDING_HOLDS) {
        return SandboxState::Ending;
    }
    let has_job = |evidence: &NameEvidence| evidence.claim.is_some() || evidence.busy_at.is_some();
    if evidence.is_some_and(|evidence| has_job(evidence) || evidence.is_kept(now)) {
        return SandboxState::Claimed;
    }
    if evidence.is_some_and(|evidence| evidence.online_at.is_some()) {
        return SandboxState::Idle;
    }
    // What counts is when Modal last said that it lives: where it misses from a list it may have ended. Asked about one
    // sandbox Modal does not say whether it has a machine, so that a list has to show that it has none.
    if !sandbox.is_scheduled {
        let limit = clocks.map(|clocks| clocks.schedule_timeout);
        let is_failed = sandbox.missing_since.is_none() && is_overdue(sandbox.created(skew), limit, sandbox.seen_at);
        return if is_failed { SandboxState::Failed } else { SandboxState::Unscheduled };
    }
    let started = sandbox.started(skew);
    let limit = clocks.map(|clocks| clocks.start_timeout);
    // Only readings that agree, the last after the limit, prove that the runner did not come online in time.
    let is_read_since = evidence
        .and_then(|evidence| evidence.never_online)
        .is_some_and(|agreement| agreement.is_firm() && is_overdue(started, limit, agreement.last));
    let is_failed =
        is_overdue(started, limit, sandbox.seen_at) && is_read_since && !mutant::is(Mutant::NeverOnlineIsSupply);
    if is_failed { SandboxState::Failed } else { SandboxState::Starting }
}

fn is_overdue(since: DateTime<Utc>, limit: Option<std::time::Duration>, at: DateTime<Utc>) -> bool {
    limit.and_then(|limit| TimeDelta::from_std(limit).ok()).is_some_and(|limit| at - since > limit)
}

/// What counts against demand and limits.
#[derive(Debug, Default)]
pub(super) struct Supply<'a> {
    /// Runners that can take a job or have one, per group and run.
    pub(super) by_run: FxHashMap<(GroupId, RunId), u32>,
    /// Living sandboxes and creates, in all.
    pub(super) live: u32,
    /// The GPUs that they have, or wait for.
    pub(super) gpus: u32,
    /// Those of them that are not placed.
    pub(super) gpus_waiting: u32,
    /// What sandboxes wait for that may be placed in time, by the job that they were made for, and since when.
    pub(super) unscheduled: BTreeMap<JobId, (&'a Machine, DateTime<Utc>)>,
    /// The same as `live` per repository.
    pub(super) live_by_repo: Vec<u32>,
    /// And per class: those of the policy in their order, then those that it has no more.
    pub(super) live_by_class: Vec<ClassCount<'a>>,
    /// Sandboxes that failed to start, or were never placed.
    pub(super) failed: Vec<(&'a OurName, &'a OurSandbox, Option<&'a NameEvidence>)>,
    /// Registrations that readings agree on to be offline and without a living sandbox.
    pub(super) stale: FxHashMap<&'a OurName, &'a NameEvidence>,
    /// Registered runners that run no job.
    pub(super) idle: Vec<Registration<'a>>,
    /// Names with a Secret that may have to be deleted.
    pub(super) with_secret: Vec<(&'a OurName, &'a OurSandbox, Option<&'a NameEvidence>)>,
}

/// A registered runner that runs no job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration<'a> {
    pub(super) at: &'a Registry,
    pub(super) view: &'a RegistryView,
    registry: RegistryId,
    pub(super) name: &'a OurName,
    pub(super) runner: RunnerId,
    pub(super) labels: Option<Fingerprint>,
    pub(super) is_offline: bool,
}

/// Living sandboxes of a class.
#[derive(Debug)]
pub(super) struct ClassCount<'a> {
    name: &'a ClassName,
    clocks: Option<&'a ClassClocks>,
    by_state: [u32; SandboxState::ALL.len()],
}

impl<'a> ClassCount<'a> {
    fn new(name: &'a ClassName, clocks: Option<&'a ClassClocks>) -> Self {
        Self { name, clocks, by_state: [0; SandboxState::ALL.len()] }
    }

    /// In whatever state.
    pub(super) fn live(&self) -> u32 {
        self.by_state.iter().sum()
    }

    /// Not known to be online.
    fn starting(&self) -> u32 {
        let states = [SandboxState::Creating, SandboxState::Unscheduled, SandboxState::Starting];
        states.iter().map(|state| self.by_state[*state as usize]).sum()
    }

    /// With a job.
    pub(super) fn claimed(&self) -> u32 {
        self.by_state[SandboxState::Claimed as usize]
    }
}

/// Counts every sandbox, create and registration of ours.
pub(super) fn count<'a>(context: &Context<'a>, groups: &mut Groups<'_>, plan: &mut Plan) -> Supply<'a> {
    let Context { observed, policy, .. } = *context;
    let classes = policy.classes.iter().map(|class| ClassCount::new(&class.name, Some(&class.clocks)));
    let mut supply = Supply {
        // What carries our tag and cannot be read takes room all the same.
        live: u32::try_from(observed.fleet.unreadable.len()).unwrap_or(u32::MAX),
        gpus: observed.fleet.unreadable.values().sum(),
        live_by_repo: vec![0; observed.repos.len()],
        live_by_class: classes.collect(),
        ..Supply::default()
    };
    count_sandboxes(context, groups, &mut supply);
    let unsure = observed.fleet.unsure.iter().filter(|(name, _)| !observed.in_flight.contains_key(*name));
    for (name, creating) in observed.in_flight.iter().chain(unsure) {
        if !observed.fleet.sandboxes.contains_key(name) {
            let place = groups.of_name(name);
            let class = supply.class(&creating.origin.class);
            if !mutant::is(Mutant::LimitWithoutInFlight) {
                let gpus = creating.origin.machine.gpus();
                supply.add_live(class, groups.repo(&creating.origin.scope), SandboxState::Creating, gpus);
            }
            groups.note(place, Namesake::Occupied);
            supply.add_unclaimed(groups.of_origin(&creating.origin), creating.origin.run, place, groups);
        }
    }
    for (index, (at, view)) in observed.registries.iter().enumerate() {
        let idle = view.runners.iter().filter(|(_, runner)| !runner.is_busy);
        supply.idle.extend(idle.map(|(name, runner)| Registration {
            at,
            view,
            registry: RegistryId(index),
            name,
            runner: runner.id,
            labels: runner.labels,
            is_offline: runner.connection == Connection::Offline,
        }));
    }
    count_registrations(context, groups, &mut supply);
    for class in supply.live_by_class.iter().filter(|class| class.live() > 0) {
        let counts = SandboxState::ALL.into_iter().zip(class.by_state).filter(|(_, count)| *count > 0);
        entry(&mut plan.tally, class.name).sandboxes.extend(counts);
    }
    supply
}

fn count_sandboxes<'a>(context: &Context<'a>, groups: &mut Groups<'_>, supply: &mut Supply<'a>) {
    let Context { observed, evidence, now, .. } = *context;
    let mut jobs = InOrder::default();
    let mut unread: BTreeMap<GroupId, Vec<(RunId, Option<Place>)>> = BTreeMap::new();
    let mut unlisted = Vec::new();
    for (name, evidence, sandbox) in Joined::new(&evidence.names, &observed.fleet.sandboxes) {
        if let Some(evidence) = evidence.filter(|known| known.stale.is_some_and(|agreement| agreement.is_firm())) {
            supply.stale.insert(name, evidence);
        }
        let Some(sandbox) = sandbox else {
            unlisted.extend(evidence.filter(|known| known.registered_at.is_some()).map(|known| (name, known)));
            continue;
        };
        let place = jobs.of_name(name, groups);
        let repo = groups.repo(&sandbox.origin.scope);
        let group = groups.of_origin(&sandbox.origin);
        if sandbox.secret.is_some() {
            supply.with_secret.push((name, sandbox, evidence));
        }
        // It may have run a job that the last job reading still shows as queued.
        let served_unread = |ended: &OurSandbox, known| {
            let is_read =
                |at| group.and_then(|group| groups.read_since(group)).is_some_and(|read| read >= at + LISTS_LAG);
            ended.ended.as_ref().is_some_and(|it| !is_read(it.at)) && may_have_served(ended, known)
        };
        // A name is one registration, whichever of its sandboxes used it.
        let has_served = served_unread(sandbox, evidence)
            || observed
                .fleet
                .replaced
                .get(name)
                .is_some_and(|before| served_unread(before, evidence.filter(|_| before.runner == sandbox.runner)));
        let served = group.filter(|_| has_served).map(|group| (group, (sandbox.origin.run, place)));
        if sandbox.ended.is_some() {
            if let Some((group, served)) = served {
                unread.entry(group).or_default().push(served);
            }
            continue;
        }
        let class = supply.class(&sandbox.origin.class);
        let state = state_of(sandbox, evidence, supply.live_by_class[class].clocks, observed.skew, now);
        let is_over = matches!(state, SandboxState::Failed | SandboxState::Ending);
        if !is_over || !mutant::is(Mutant::EndingTakesNoRoom) {
            supply.add_live(class, repo, state, sandbox.origin.machine.gpus());
        }
        supply.note_waiting(name, sandbox, state, observed.skew);
        groups.note(place, Namesake::Occupied);
        if state == SandboxState::Failed {
            supply.failed.push((name, sandbox, evidence));
        }
        // Once Modal places one that was given up, its runner finds its registration gone.
        let is_shut_out = evidence.is_some_and(NameEvidence::is_shut_out);
        if state.is_supply() && !is_shut_out || is_claimed_unread(state, evidence, group, groups) {
            supply.add_unclaimed(group, sandbox.origin.run, place, groups);
        } else if let Some((group, served)) = served {
            unread.entry(group).or_default().push(served);
        } else if let Some(group) = group.filter(|_| state == SandboxState::Claimed) {
            *supply.by_run.entry((group, sandbox.origin.run)).or_default() += 1;
        }
    }
    count_unlisted(&unlisted, context, groups, supply);
    for (group, ended) in unread {
        // Each job that was taken since its reading accounts for one of them.
        for (run, place) in ended.into_iter().skip(groups.get(group).taken) {
            supply.add_unclaimed(Some(group), run, place, groups);
        }
    }
}

/// A registration that has no sandbox yet may be another controller's create in flight, or our own from
/// before a restart. Its runner may even be online before Modal's list, which lags, shows its sandbox.
fn count_registrations(context: &Context<'_>, groups: &mut Groups<'_>, supply: &mut Supply<'_>) {
    let Context { observed, evidence, now, .. } = *context;
    let idle: Vec<_> = supply.idle.iter().map(|it| (it.at, it.registry, it.name, it.labels)).collect();
    let missing = observed.registries.iter().enumerate().flat_map(|(index, (place, view))| {
        // One that we deleted is gone.
        let is_fenced = |name: &OurName| evidence.names.get(name).is_some_and(|known| known.fenced_at.is_some());
        let missing = view.missing.iter().filter(move |(name, (runner, _))| !runner.is_busy && !is_fenced(name));
        missing.map(move |(name, (runner, _))| (place, RegistryId(index), name, runner.labels))
    });
    for (place, registry, name, labels) in idle.into_iter().chain(missing) {
        let is_seen = observed.fleet.sandboxes.contains_key(name)
            || observed.in_flight.contains_key(name)
            || observed.fleet.unsure.contains_key(name);
        let known = evidence.names.get(name);
        let since = known.and_then(|known| known.registered_at);
        // A name that we used ourselves has an outcome; only a name of unknown making is waited for.
        let is_ours_here = known
            .is_some_and(|known| known.origin.is_some() && !(known.is_mint_unanswered && evidence.is_in_company(now)));
        if is_seen || is_ours_here || since.is_none_or(|since| now - since >= CREATING_HOLDS) {
            continue;
        }
        // Another runner may have taken the job that it was made for; it takes one with the same labels then.
        let made_for = groups.of_name(name).filter(|job| groups.get(groups.at(*job).0).registry == place);
        match (made_for, labels.and_then(|labels| groups.id(Some(registry), labels))) {
            (Some(job), _) => {
                let (group, run) = groups.at(job);
                supply.add_unclaimed(Some(group), run, Some(job), groups);
            }
            (None, Some(group)) => groups.get_mut(group).unclaimed += 1,
            (None, None) => {}
        }
    }
}

/// A runner that is online runs in a sandbox, whether or not Modal's list shows it: it takes room. A list of runners that
/// is no newer than the end of that sandbox says nothing.
fn count_unlisted<'a>(
    unlisted: &[(&OurName, &'a NameEvidence)],
    context: &Context<'a>,
    groups: &Groups<'_>,
    supply: &mut Supply<'a>,
) {
    let Observed { registries, fleet, in_flight, .. } = context.observed;
    for (name, known) in unlisted {
        let scope = known.origin.as_ref().map(|origin| &origin.scope);
        let made_in = scope.and_then(|scope| context.observed.registry(scope));
        let find = |(registry, view): (&'a Registry, &'a RegistryView)| {
            let listed = view.runners.get(*name).filter(|_| !known.has_ended_since(view.runners_read.known_at));
            Some((registry, listed?))
        };
        // Where it is not known in which place it was made, each is looked through.
        let listed = made_in.map_or_else(|| registries.iter().find_map(find), find);
        let is_up = |runner: &Runner| runner.connection != Connection::Offline || runner.is_busy;
        let Some((registry, runner)) = listed.filter(|(_, runner)| is_up(runner)) else { continue };
        if in_flight.contains_key(*name) || fleet.unsure.contains_key(*name) {
            continue;
        }
        // Of a runner of an organization whose making is not known nobody can say for which repository it was made.
        let scope = match registry {
            Registry::Repo(scope) => Some(scope),
            Registry::Org(_) => scope,
        };
        let place = scope.and_then(|scope| groups.repo(scope));
        let group = runner.labels.and_then(|labels| groups.id(groups.registry_of(registry, context), labels));
        let class = known.origin.as_ref().map(|origin| &origin.class);
        let class = class.or_else(|| group.map(|group| &groups.get(group).class.name));
        let state = if runner.is_busy { SandboxState::Claimed } else { SandboxState::Idle };
        let class = class.and_then(|class| context.policy.class(class));
        let of_class = class.and_then(|class| class.gpu.as_ref()).map_or(0, |gpu| gpu.count);
        let gpus = known.origin.as_ref().map_or(0, |origin| origin.machine.gpus()).max(of_class);
        match class.map(|class| supply.class(&class.name)) {
            Some(class) => supply.add_live(class, place, state, gpus),
            None => supply.add_live_of_no_class(place, gpus),
        }
    }
}

/// Whether it may have taken a job that no reading shows: a sandbox that was killed says nothing of that.
pub(crate) fn may_have_served(sandbox: &OurSandbox, evidence: Option<&NameEvidence>) -> bool {
    if evidence.is_some_and(|evidence| evidence.claim.is_some()) || mutant::is(Mutant::EndedServedNothing) {
        return false;
    }
    let reason = sandbox.ended.as_ref().map(|ended| crate::evidence::end_reason(ended.result.as_ref()));
    let is_without_job =
        matches!(reason, Some("unclaimed" | "version_refused" | "registration_failed" | "stopped" | "init_failure"));
    !is_without_job || evidence.is_some_and(|evidence| evidence.busy_at.is_some() || evidence.kept_at.is_some())
}

/// A runner that was seen busy, while no job reading is new enough to show which job it took.
fn is_claimed_unread(
    state: SandboxState,
    evidence: Option<&NameEvidence>,
    group: Option<GroupId>,
    groups: &Groups<'_>,
) -> bool {
    let Some(evidence) = evidence.filter(|evidence| state == SandboxState::Claimed && evidence.claim.is_none()) else {
        return false;
    };
    let Some((busy_at, group)) = evidence.busy_at.zip(group) else { return false };
    groups.read_since(group).is_none_or(|read| read < busy_at + LISTS_LAG) && !mutant::is(Mutant::BusyLeavesAtOnce)
}

impl<'a> Supply<'a> {
    /// The place of a class in `live_by_class`.
    fn class(&mut self, name: &'a ClassName) -> usize {
        // There are few.
        if let Some(at) = self.live_by_class.iter().position(|class| class.name == name) {
            return at;
        }
        self.live_by_class.push(ClassCount::new(name, None));
        self.live_by_class.len() - 1
    }

    fn add_live(&mut self, class: usize, repo: Option<RepoId>, state: SandboxState, gpus: u32) {
        self.live_by_class[class].by_state[state as usize] += 1;
        self.add_live_of_no_class(repo, gpus);
    }

    /// Notes that a sandbox waits for its GPUs.
    fn note_waiting(&mut self, name: &OurName, sandbox: &'a OurSandbox, state: SandboxState, skew: TimeDelta) {
        let machine = &sandbox.origin.machine;
        if sandbox.is_scheduled || machine.gpu.is_none() {
            return;
        }
        self.gpus_waiting = self.gpus_waiting.saturating_add(machine.gpus());
        if state == SandboxState::Unscheduled {
            self.unscheduled.insert(name.job, (machine, sandbox.created(skew)));
        }
    }

    fn add_live_of_no_class(&mut self, repo: Option<RepoId>, gpus: u32) {
        self.gpus = self.gpus.saturating_add(gpus);
        self.live += 1;
        if let Some(repo) = repo {
            self.live_by_repo[repo.0] += 1;
        }
    }

    /// Whether a sandbox of the class lives and has a job.
    pub(super) fn has_claimed(&self, name: &ClassName) -> bool {
        self.live_by_class.iter().any(|class| class.name == name && class.claimed() > 0)
    }

    /// Whether a sandbox of the class lives whose runner came online.
    pub(super) fn has_started(&self, name: &ClassName) -> bool {
        let started = |class: &ClassCount<'_>| class.claimed() + class.by_state[SandboxState::Idle as usize];
        self.live_by_class.iter().any(|class| class.name == name && started(class) > 0)
    }

    /// How many runners of the class start.
    pub(super) fn starting_of(&self, name: &ClassName) -> u32 {
        self.live_by_class.iter().filter(|class| class.name == name).map(ClassCount::starting).sum()
    }

    /// Classes of which a runner starts.
    pub(super) fn starting(&self) -> impl Iterator<Item = &'a ClassName> {
        self.live_by_class.iter().filter(|class| class.starting() > 0).map(|class| class.name)
    }

    /// Living sandboxes and creates per class, those without any left out.
    pub(super) fn classes(&self) -> impl Iterator<Item = (&'a ClassName, u32)> {
        self.live_by_class.iter().map(|class| (class.name, class.live()))
    }

    fn add_unclaimed(&mut self, group: Option<GroupId>, run: RunId, place: Option<Place>, groups: &mut Groups<'_>) {
        let Some(group) = group else { return };
        groups.get_mut(group).unclaimed += 1;
        *self.by_run.entry((group, run)).or_default() += 1;
        groups.note(place, Namesake::Waiting);
    }
}

/// The entry of `key`, which is cloned only where it is new.
pub(super) fn entry<'a, K: Ord + Clone, V: Default>(map: &'a mut BTreeMap<K, V>, key: &K) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key).expect("it was inserted above")
}
