//! Limits, and the fair share of what is short.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::demand::{Group, Groups, Need, Queued, skip_of};
use super::images::check_version;
use super::supply::{Supply, entry};
use super::{Action, Context, Create, Limit, Plan, SkipReason};
use crate::ids::{ClassName, CredentialName, ImageId, OurName};
use crate::mutant::{self, Mutant};
use crate::state::{ImageState, Origin, Registry};
use chrono::{DateTime, Utc};

/// How old Modal's list may be before creates wait for a newer one, in intervals.
const FLEET_AGE_INTERVALS: i32 = 6;

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
                Ok(()) => {
                    plan.actions.push(Action::Create(create(&need, groups, context)));
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

fn create(need: &Need<'_>, groups: &Groups<'_>, context: &Context<'_>) -> Create {
    let group = groups.get(need.group);
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
        },
        labels: group.labels.clone(),
        runner_group_id: runner_group_id(group.registry, context),
    }
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
        let gpus_of = |class: &ClassName| context.policy.class(class).map_or(0, crate::class::RunnerClass::gpus);
        Self {
            live: supply.live,
            by_repo: supply.live_by_repo.clone(),
            gpus: supply.classes().map(|(class, live)| gpus_of(class) * live).sum(),
            by_class: supply.classes().collect(),
            refused: vec![None; groups.all.len()],
            mints: admission.mints.iter().map(|(credential, mints)| (credential, mints.now)).collect(),
            creates: admission.creates.now,
            starting: supply.starting().map(|class| Probe { class, image: image_of(class) }).collect(),
            probed: BTreeSet::new(),
        }
    }

    /// Takes room for one create of the group, or says what stops it.
    fn admit(&mut self, need: &Need<'_>, group: &Group<'a>, context: &Context<'a>) -> Result<(), Refusal> {
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
        let counts_gpus = class.gpus() > 0 && !mutant::is(Mutant::GpuLimitIgnored);
        if counts_gpus && self.gpus + class.gpus() > limits.gpus {
            return at_limit(Limit::Gpus(limits.gpus));
        }
        let ceiling = context.evidence.ceiling().filter(|_| class.gpus() == 0);
        if let Some(ceiling) = ceiling.filter(|ceiling| self.live >= ceiling.admits(context.now)) {
            let again = ceiling.again_at().max(soon);
            return Err((SkipReason::AtLimit(Limit::Modal(ceiling.admits(context.now))), again));
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
        self.gpus += class.gpus();
        self.probed.extend(probe);
        Ok(())
    }

    /// The probe that this create would be: an open breaker admits one at a time.
    fn probe(&self, group: &Group<'a>, context: &Context<'a>) -> Result<Option<Probe<'a>>, Refusal> {
        let Context { observed, evidence, now, .. } = *context;
        let class = &group.class.name;
        let image = observed.images.get(class).and_then(ImageState::id);
        let Some(breaker) = evidence.breaker_of_class(class, image) else { return Ok(None) };
        if group.feedback(context).is_some_and(|known| known.is_claimed_lately(now)) {
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

/// What keeps a group from any create, whatever room there is.
fn refused(group: &Group<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let Context { observed, evidence, now, .. } = *context;
    let soon = context.soon;
    let fleet = &observed.fleet.read;
    let oldest = (soon - now) * FLEET_AGE_INTERVALS;
    if fleet.known_at.is_none_or(|at| now - at > oldest) {
        let why = fleet.failure.as_ref().map_or_else(|| "it was not read yet".to_owned(), ToString::to_string);
        return Err((SkipReason::FleetUnknown(why), soon));
    }
    let failing = [None, Some(group.labels.fingerprint())].into_iter().find_map(|labels| {
        evidence.mint_failures.get(&(group.registry.clone(), labels)).filter(|failing| failing.again_at > now)
    });
    if let Some(failing) = failing {
        return Err((SkipReason::MintRefused(failing.failure.message.clone()), failing.again_at));
    }
    let class = &group.class.name;
    if let Some(failing) = evidence.create_failures.get(class).filter(|failing| failing.again_at > now) {
        return Err((SkipReason::CreateRefused(failing.failure.message.clone()), failing.again_at));
    }
    match observed.images.get(class) {
        Some(ImageState::Ready(_)) => check_version(group, context),
        Some(ImageState::Building { .. }) | None => Err((SkipReason::ImageBuilding, soon)),
        Some(ImageState::Failed { message, failures, at }) => {
            let pause = crate::retry::delay(crate::retry::IMAGE, *failures);
            let again = *at + chrono::TimeDelta::from_std(pause).unwrap_or(chrono::TimeDelta::MAX);
            if again <= now {
                return Err((SkipReason::ImageBuilding, soon));
            }
            Err((SkipReason::ImageFailed(message.clone()), again))
        }
    }
}
