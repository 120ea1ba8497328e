//! Claim feedback (design rule C): how many runners of a run may be there before GitHub has shown that it gives
//! jobs to so many at the same time.

use rustc_hash::FxHashMap;

use super::demand::{GroupId, Groups, Need, skip_of};
use super::supply::Supply;
use super::{Context, Plan, SkipReason};
use crate::ids::{ClassName, RunId};
use crate::state::ImageState;

/// The most runners
///
/// - per run and label set while runners of the group wait in vain;
/// - per label set while the image of their class has never served;
/// - per class while none of its runners has come online: GitHub may refuse the version of its image.
const UNPROVEN_WAVE: u32 = 3;
/// So many jobs that ran at the same time are no small `max-parallel`.
const MANY: u32 = 4;

/// Keeps the needs that their wave admits.
pub(super) fn within_waves<'a>(
    needs: Vec<Need<'a>>,
    groups: &Groups<'a>,
    supply: &Supply<'_>,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Vec<Need<'a>> {
    /// How many runners of a run are there, and how many may be.
    struct Wave {
        runners: u32,
        size: u32,
    }
    let mut waves: FxHashMap<(GroupId, RunId), Wave> = FxHashMap::default();
    let mut trials: FxHashMap<&ClassName, Option<Trial>> = FxHashMap::default();
    let mut admitted = Vec::with_capacity(needs.len());
    for need in needs {
        let key = (need.group, need.queued.run);
        let wave = waves.entry(key).or_insert_with(|| Wave {
            runners: supply.by_run.get(&key).copied().unwrap_or(0),
            size: size(&need, groups, context),
        });
        let class = &groups.get(need.group).class.name;
        let trial = trials.entry(class).or_insert_with(|| Trial::of(class, supply, context));
        let is_on_trial = trial.as_ref().is_some_and(|trial| !trial.admits(need.group, groups));
        if is_on_trial || wave.runners >= wave.size {
            let wave = if is_on_trial { UNPROVEN_WAVE } else { wave.size };
            let reason = SkipReason::FirstWave { wave };
            plan.skips.push(skip_of(groups.get(need.group), &need.queued, reason, context.soon));
        } else {
            wave.runners += 1;
            if let Some(trial) = trial {
                trial.take(need.group);
            }
            admitted.push(need);
        }
    }
    admitted
}

/// Whether the image of a class has served, since the start or in a sandbox that lives.
fn is_proven(class: &ClassName, supply: &Supply<'_>, context: &Context<'_>) -> bool {
    context.evidence.proven.contains(class) || supply.has_claimed(class)
}

/// A class whose image has never served, or is a new one of which no runner has come online.
struct Trial {
    /// Its runners that start; none once one of the image has come online.
    starting: Option<u32>,
    /// Runners that are planned now.
    planned: FxHashMap<GroupId, u32>,
}

impl Trial {
    /// None where the image has served, and is that with which runners come online.
    fn of(class: &ClassName, supply: &Supply<'_>, context: &Context<'_>) -> Option<Self> {
        let image = context.observed.images.get(class).and_then(ImageState::id);
        // What runs of the image before says nothing of this one.
        let is_new = image.is_some_and(|image| context.evidence.images.is_on_trial(class, image));
        let starting = (is_new || !supply.has_started(class)).then(|| supply.starting_of(class));
        (is_new || !is_proven(class, supply, context)).then(|| Self { starting, planned: FxHashMap::default() })
    }

    fn admits(&self, group: GroupId, groups: &Groups<'_>) -> bool {
        let planned = self.planned.get(&group).copied().unwrap_or(0);
        self.starting.is_none_or(|starting| starting < UNPROVEN_WAVE)
            && groups.get(group).unclaimed + planned < UNPROVEN_WAVE
    }

    fn take(&mut self, group: GroupId) {
        *self.planned.entry(group).or_default() += 1;
        self.starting = self.starting.map(|starting| starting + 1);
    }
}

/// The wave of a run and label set: so many waiting ones to begin with; once as many ran at the same time, twice
/// as many waiting ones as run.
fn size(need: &Need<'_>, groups: &Groups<'_>, context: &Context<'_>) -> u32 {
    let Context { evidence, policy, now, .. } = *context;
    let group = groups.get(need.group);
    let first = if group.class.gpu.is_some() { policy.waves.first_gpu } else { policy.waves.first };
    let feedback = group.feedback(context);
    let waits_in_vain = feedback.is_some_and(|known| known.breaker.is_some() && !known.is_claimed_lately(now));
    let first = if waits_in_vain { first.min(UNPROVEN_WAVE) } else { first };
    let key = (need.queued.scope.clone(), group.labels.fingerprint(), need.queued.run);
    let parallel = evidence.parallel.get(&key).copied().unwrap_or(0);
    if parallel < first { first + parallel } else { parallel.saturating_mul(if parallel < MANY { 2 } else { 3 }) }
}
