//! Limits, and the fair share of what is short.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::demand::{Group, Groups, Need, Queued, skip_of};
use super::images::check_version;
use super::machine::Machines;
use super::supply::{Supply, entry};
use super::{Action, Context, Create, Limit, Plan, SkipReason};
use crate::class::{Machine, RunnerClass};
use crate::cost::Known;
use crate::ids::{ClassName, CredentialName, ImageId, OurName, RunId};
use crate::mutant::{self, Mutant};
use crate::state::{ImageState, Origin, Registry, Scope};
use chrono::{DateTime, Utc};

/// How old Modal's list may be before creates wait for a newer one, in intervals.
const FLEET_AGE_INTERVALS: i32 = 6;

/// How often it is looked whether the spend limit of Modal's workspace is still reached.
const SPENT_AGAIN: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// Turns needs into creates, most entitled repository first, until a limit stops them.
///
/// What is short is shared: the repository with the fewest living sandboxes is next, with the oldest need
/// first among equals, so that a matrix of a thousand jobs does not starve a repository with one.
pub(super) fn admit<'a>(
    needs: Vec<Need<'_>>,
    groups: &Groups<'a>,
    supply: &Supply<'a>,
    context: &Context<'a>,
    plan: &mut Plan,
) {
    let mut room = Room::new(supply, groups, context);
    let mut by_repo: Vec<Vec<Need<'_>>> = supply.live_by_repo.iter().map(|_| Vec::new()).collect();
    for need in needs {
        by_repo[need.queued.repo.0].push(need);
    }
    let mut turns = BinaryHeap::new();
    let mut waiting: Vec<std::vec::IntoIter<Need<'_>>> = Vec::new();
    for (mut needs, live) in by_repo.into_iter().zip(&supply.live_by_repo) {
        needs.sort_unstable_by_key(|need| (need.queued.since, need.queued.job));
        turns.extend(needs.first().map(|need| Reverse((*live, need.queued.since, waiting.len()))));
        waiting.push(needs.into_iter());
    }
    while let Some(Reverse((live, _, index))) = turns.pop() {
        let needs = &mut waiting[index];
        let mut granted = live;
        for need in needs.by_ref() {
            let group = groups.get(need.group);
            match room.admit(&need, group, context) {
                Ok(machine) => {
                    plan.actions.push(Action::Create(create(&need, machine, groups, context)));
                    granted += 1;
                    break;
                }
                Err((reason, again_at)) => {
                    note_waiting(group, &need.queued, &reason, context, plan);
                    plan.skips.push(skip_of(group, &need.queued, reason, again_at));
                }
            }
        }
        if let Some(next) = needs.as_slice().first() {
            turns.push(Reverse((granted, next.queued.since, index)));
        }
    }
}

/// Remembers what a refused need waits for, where something can be done about it.
fn note_waiting(group: &Group<'_>, queued: &Queued<'_>, reason: &SkipReason, context: &Context<'_>, plan: &mut Plan) {
    if *reason == SkipReason::GithubBudget {
        *entry(&mut plan.waits_for_mints, &context.policy.credential_of(group.registry)) += 1;
    }
    if *reason != SkipReason::ImageBuilding {
        return;
    }
    let class = &group.class.name;
    let is_building = matches!(context.observed.images.get(class), Some(ImageState::Building { .. }));
    let is_it = |action: &Action| matches!(action, Action::PrepareImage { class: planned, .. } if planned == class);
    if !is_building && !plan.actions.iter().any(is_it) {
        plan.actions.push(Action::PrepareImage { class: class.clone(), scope: queued.scope.clone(), replaces: None });
    }
}

/// The runner group that a runner joins; that of an organization was looked at before.
fn runner_group_id(registry: &Registry, context: &Context<'_>) -> u64 {
    let of_org =
        || context.observed.registries.get(registry).and_then(|view| view.group.as_ref()).map(|group| group.id);
    match registry {
        Registry::Repo(scope) => context.policy.accounts.get(&scope.account).map(|account| account.runner_group_id),
        Registry::Org(_) => of_org(),
    }
    .unwrap_or(1)
}

fn create(need: &Need<'_>, machine: Machine, groups: &Groups<'_>, context: &Context<'_>) -> Create {
    let group = groups.get(need.group);
    let prices = context.observed.spend.prices.get(&group.class.name);
    let price = prices.and_then(|prices| prices.get(&machine)).copied();
    Create {
        name: OurName {
            job: need.queued.job,
            attempt: need.attempt,
            deployment: context.policy.deployment.clone(),
            account: group.registry.account().clone(),
        },
        origin: Origin {
            scope: need.queued.scope.clone(),
            run: need.queued.run,
            class: group.class.name.clone(),
            group: group.labels.fingerprint(),
            machine,
        },
        labels: group.labels.clone(),
        runner_group_id: runner_group_id(group.registry, context),
        workflow: workflow(need.queued.scope, need.queued.run, context),
        price,
    }
}

/// The file name of the workflow of a run, in the form of a tag.
fn workflow(scope: &Scope, run: RunId, context: &Context<'_>) -> Option<String> {
    let run = context.observed.repos.get(scope)?.runs.get(&run)?;
    run.run.workflow.as_ref()?.file.as_tag()
}

/// What is left of every limit.
#[derive(Debug)]
struct Room<'a> {
    live: u32,
    by_repo: Vec<u32>,
    /// What keeps whole groups from any create.
    refused: Vec<Option<Result<(), Refusal>>>,
    by_class: BTreeMap<&'a ClassName, u32>,
    gpus: u32,
    /// Those of them that are not placed.
    gpus_waiting: u32,
    machines: Machines,
    mints: BTreeMap<&'a CredentialName, u32>,
    creates: u32,
    /// Probes that earlier passes started, by what they try.
    starting: BTreeSet<Probe<'a>>,
    /// Probes of this plan.
    probed: BTreeSet<Probe<'a>>,
}

/// What a create tries while a breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Probe<'a> {
    class: &'a ClassName,
    image: Option<&'a ImageId>,
}

pub(super) type Refusal = (SkipReason, DateTime<Utc>);

impl<'a> Room<'a> {
    fn new(supply: &Supply<'a>, groups: &Groups<'_>, context: &Context<'a>) -> Self {
        let admission = &context.observed.admission;
        let image_of = |class: &ClassName| context.observed.images.get(class).and_then(ImageState::id);
        Self {
            live: supply.live,
            by_repo: supply.live_by_repo.clone(),
            gpus: supply.gpus,
            gpus_waiting: supply.gpus_waiting,
            machines: Machines::new(context),
            by_class: supply.classes().collect(),
            refused: vec![None; groups.all.len()],
            mints: admission.mints.iter().map(|(credential, mints)| (credential, mints.now)).collect(),
            creates: admission.creates.now,
            starting: supply.starting().map(|class| Probe { class, image: image_of(class) }).collect(),
            probed: BTreeSet::new(),
        }
    }

    /// Takes room for one create of the group, or says what stops it.
    fn admit(&mut self, need: &Need<'_>, group: &Group<'a>, context: &Context<'a>) -> Result<Machine, Refusal> {
        if let Some(pause) = context.observed.pauses.of(&group.class.name, &need.queued.scope.repo) {
            return Err((SkipReason::Paused(pause), context.soon));
        }
        self.refused[need.group.0].get_or_insert_with(|| refused(group, context)).clone()?;
        let probe = self.probe(group, context)?;
        let soon = context.soon;
        let limits = context.policy.limits;
        let class = group.class;
        let at_limit = |limit| Err((SkipReason::AtLimit(limit), soon));
        if self.live >= limits.sandboxes {
            return at_limit(Limit::Sandboxes(limits.sandboxes));
        }
        let in_repo = &mut self.by_repo[need.queued.repo.0];
        let per_repo = limits.sandboxes_per_repo.filter(|_| !mutant::is(Mutant::RepoLimitIgnored));
        if let Some(limit) = per_repo.filter(|limit| *in_repo >= *limit) {
            return at_limit(Limit::SandboxesPerRepo(limit));
        }
        let in_class = self.by_class.entry(&class.name).or_default();
        let per_class = class.max_sandboxes.filter(|_| !mutant::is(Mutant::ClassLimitIgnored));
        if let Some(limit) = per_class.filter(|limit| *in_class >= *limit) {
            return at_limit(Limit::Class(limit));
        }
        let machine = self.machines.choose(class, context);
        check_price(class, &machine, context)?;
        let counts_gpus = machine.gpu.is_some() && !mutant::is(Mutant::GpuLimitIgnored);
        if counts_gpus && self.gpus + machine.gpus() > limits.gpus {
            return at_limit(Limit::Gpus { limit: limits.gpus, waiting: self.gpus_waiting });
        }
        if let Some((used, most)) = context.observed.quota.gpus_without_room(machine.gpus(), context.now)
            && machine.gpu.is_some()
        {
            return at_limit(Limit::ModalGpus { used, most });
        }
        if machine.gpu.is_none() {
            within_ceiling(self.live, context)?;
        }
        let admission = &context.observed.admission;
        if self.creates == 0 {
            return Err((SkipReason::ModalRate, admission.creates.next.unwrap_or(soon)));
        }
        let credential = context.policy.credential_of(group.registry);
        let Some(mints) = self.mints.get_mut(&credential).filter(|mints| **mints > 0) else {
            let next = admission.mints.get(&credential).and_then(|mints| mints.next);
            return Err((SkipReason::GithubBudget, next.unwrap_or(soon)));
        };
        *mints -= 1;
        *in_repo += 1;
        *in_class += 1;
        self.creates -= 1;
        self.live += 1;
        self.gpus += machine.gpus();
        self.machines.take(class, &machine, context.evidence);
        self.probed.extend(probe);
        Ok(machine)
    }

    /// The probe that this create would be: an open breaker admits one at a time.
    fn probe(&self, group: &Group<'a>, context: &Context<'a>) -> Result<Option<Probe<'a>>, Refusal> {
        let Context { observed, evidence, now, .. } = *context;
        let class = &group.class.name;
        let image = observed.images.get(class).and_then(ImageState::id);
        let Some(breaker) = evidence.breaker_of_class(class, image) else { return Ok(None) };
        let claimed_at = group.feedback(context).and_then(|known| known.claimed_at);
        if claimed_at.is_some_and(|at| breaker.is_outweighed(at, now)) {
            return Ok(None);
        }
        let again = breaker.again_at().unwrap_or(now);
        let probe = Probe { class, image };
        let is_probed = self.probed.contains(&probe) || self.starting.contains(&probe);
        if again > now || is_probed {
            let reason = SkipReason::Breaker { reason: breaker.reason.as_str().into(), failures: breaker.failures };
            return Err((reason, again.max(context.soon)));
        }
        Ok(Some(probe))
    }
}

/// Whether Modal has room for one more sandbox without a GPU, as far as its refusals tell.
fn within_ceiling(live: u32, context: &Context<'_>) -> Result<(), Refusal> {
    let Some(ceiling) = context.evidence.ceiling() else { return Ok(()) };
    let sandboxes = ceiling.admits(context.now);
    if live < sandboxes {
        return Ok(());
    }
    let quota = context.observed.quota.known.as_ref();
    let tasks = quota.and_then(|quota| Some((quota.tasks, quota.max_tasks?)));
    Err((SkipReason::AtLimit(Limit::Modal { sandboxes, tasks }), ceiling.again_at().max(context.soon)))
}

/// Stops creates where what was spent today has reached a limit, or is not known yet; what runs goes on.
fn check_spend(group: &Group<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let spend = &context.observed.spend;
    let of_class = group
        .class
        .spend_per_day
        .map(|limit| (spend.of_class(&group.class.name), limit, Limit::ClassSpendPerDay(limit)));
    let in_all = context.policy.limits.spend_per_day.map(|limit| (spend.total, limit, Limit::SpendPerDay(limit)));
    for (spent, limit, reached) in [in_all, of_class].into_iter().flatten() {
        if spent >= limit {
            return Err((SkipReason::AtLimit(reached), spend.day_ends_at.max(context.soon)));
        }
        if spend.known == Known::NotYet {
            let failure = context.observed.fleet.ended_read.failure.as_ref();
            let why =
                failure.map_or_else(|| "Modal's list of ended sandboxes is being read".to_owned(), ToString::to_string);
            return Err((SkipReason::SpendUnknown(why), context.soon));
        }
    }
    Ok(())
}

/// Stops a create on a machine whose price is not known, where what is spent has a limit: it would reach none.
fn check_price(class: &RunnerClass, machine: &Machine, context: &Context<'_>) -> Result<(), Refusal> {
    let is_limited = context.policy.limits.spend_per_day.or(class.spend_per_day).is_some();
    let prices = context.observed.spend.prices.get(&class.name);
    if !is_limited || prices.is_some_and(|prices| prices.contains_key(machine)) {
        return Ok(());
    }
    let gpu = machine.gpu.as_ref().map_or("(none)", |gpu| gpu.name.as_str());
    let why = format!("no price for GPU {gpu}: set cost.gpus.{gpu}, or `price` of class `{}`", class.name);
    Err((SkipReason::SpendUnknown(why), context.soon))
}

/// What keeps a group from any create, whatever room there is.
fn refused(group: &Group<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let Context { observed, evidence, now, .. } = *context;
    let soon = context.soon;
    let fleet = &observed.fleet.read;
    let oldest = (soon - now) * FLEET_AGE_INTERVALS;
    if fleet.known_at.is_none_or(|at| now - at > oldest) && !mutant::is(Mutant::FleetUnread) {
        let why = fleet.failure.as_ref().map_or_else(|| "it was not read yet".to_owned(), ToString::to_string);
        return Err((SkipReason::FleetUnknown(why), soon));
    }
    check_spend(group, context)?;
    let failing = [None, Some(group.labels.fingerprint())].into_iter().find_map(|labels| {
        evidence.mint_failures.get(&(group.registry.clone(), labels)).filter(|failing| failing.again_at > now)
    });
    if let Some(failing) = failing {
        return Err((SkipReason::MintRefused(failing.failure.message.clone()), failing.again_at));
    }
    if observed.quota.is_spent(now) {
        return Err((SkipReason::ModalSpendLimit, soon + SPENT_AGAIN));
    }
    let class = &group.class.name;
    if let Some(failing) = evidence.create_failures.get(class).filter(|failing| failing.again_at > now) {
        return Err((SkipReason::CreateRefused(failing.failure.message.clone()), failing.again_at));
    }
    match observed.images.get(class) {
        Some(ImageState::Ready(_)) => check_version(group, context),
        Some(ImageState::Building { .. }) | None => Err((SkipReason::ImageBuilding, soon)),
        Some(ImageState::Failed { again_at, .. }) if *again_at <= now => Err((SkipReason::ImageBuilding, soon)),
        Some(ImageState::Failed { message, again_at, .. }) => {
            Err((SkipReason::ImageFailed(Arc::clone(message)), *again_at))
        }
    }
}
