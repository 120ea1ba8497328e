//! Claim feedback (design rule C): how many runners of a run may be there before GitHub has shown that it gives
//! jobs to so many at the same time.

use rustc_hash::FxHashMap;

use super::demand::{GroupId, Groups, Need, skip_of};
use super::supply::Supply;
use super::{Context, Plan, SkipReason};
use crate::ids::RunId;

/// The most runners per run and label set while the image of their class has never served, or while runners of
/// the group wait in vain.
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
    let mut admitted = Vec::with_capacity(needs.len());
    for need in needs {
        let key = (need.group, need.queued.run);
        let wave = waves.entry(key).or_insert_with(|| Wave {
            runners: supply.by_run.get(&key).copied().unwrap_or(0),
            size: size(need.group, need.queued.run, groups, supply, context),
        });
        if wave.runners < wave.size {
            wave.runners += 1;
            admitted.push(need);
        } else {
            let reason = SkipReason::FirstWave { wave: wave.size };
            plan.skips.push(skip_of(groups.get(need.group), &need.queued, reason, context.soon));
        }
    }
    admitted
}

/// The wave of a run and label set: so many waiting ones to begin with; once as many ran at the same time, twice
/// as many waiting ones as run.
fn size(id: GroupId, run: RunId, groups: &Groups<'_>, supply: &Supply<'_>, context: &Context<'_>) -> u32 {
    let Context { evidence, policy, now, .. } = *context;
    let group = groups.get(id);
    let first = if group.class.gpu.is_some() { policy.waves.first_gpu } else { policy.waves.first };
    let feedback = group.feedback(context);
    let waits_in_vain = feedback.is_some_and(|known| known.breaker.is_some() && !known.is_claimed_lately(now));
    let is_proven = evidence.proven.contains(&group.class.name) || supply.has_claimed(&group.class.name);
    let first = if is_proven && !waits_in_vain { first } else { first.min(UNPROVEN_WAVE) };
    let key = (group.scope.clone(), group.labels.fingerprint(), run);
    let parallel = evidence.parallel.get(&key).copied().unwrap_or(0);
    if parallel < first { first + parallel } else { parallel.saturating_mul(if parallel < MANY { 2 } else { 3 }) }
}
