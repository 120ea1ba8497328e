//! Claim feedback (design rule C): how many runners of a run may wait for their first job.

use rustc_hash::FxHashMap;

use super::demand::{GroupId, Groups, Need, skip_of};
use super::supply::Supply;
use super::{Context, Plan, SkipReason};
use crate::ids::RunId;

/// The most unclaimed runners per run and label set while the image of their class has never served.
const UNPROVEN_WAVE: u32 = 3;

/// Keeps the needs that their wave admits.
pub(super) fn within_waves<'a>(
    needs: Vec<Need<'a>>,
    groups: &Groups<'a>,
    supply: &Supply<'_>,
    context: &Context<'_>,
    plan: &mut Plan,
) -> Vec<Need<'a>> {
    /// How many runners of a run wait, and how many may.
    struct Wave {
        unclaimed: u32,
        size: u32,
    }
    let mut waves: FxHashMap<(GroupId, RunId), Wave> = FxHashMap::default();
    let mut admitted = Vec::with_capacity(needs.len());
    for need in needs {
        let key = (need.group, need.queued.run);
        let wave = waves.entry(key).or_insert_with(|| Wave {
            unclaimed: supply.unclaimed_by_run.get(&key).copied().unwrap_or(0),
            size: wave(need.group, need.queued.run, groups, supply, context),
        });
        if wave.unclaimed < wave.size {
            wave.unclaimed += 1;
            admitted.push(need);
        } else {
            let reason = SkipReason::FirstWave { wave: wave.size };
            plan.skips.push(skip_of(groups.get(need.group), &need.queued, reason, context.soon()));
        }
    }
    admitted
}

/// The wave of a run and label set: it doubles each time that as many runners were claimed as it held.
fn wave(id: GroupId, run: RunId, groups: &Groups<'_>, supply: &Supply<'_>, context: &Context<'_>) -> u32 {
    let Context { evidence, policy, .. } = *context;
    let group = groups.get(id);
    let first = if group.class.gpu.is_some() { policy.waves.first_gpu } else { policy.waves.first };
    let is_proven = evidence.proven.contains(&group.class.name) || supply.has_claimed(&group.class.name);
    let mut wave = if is_proven { first } else { first.min(UNPROVEN_WAVE) };
    let key = (group.scope.clone(), group.labels.fingerprint(), run);
    let mut claimed = evidence.claims.get(&key).copied().unwrap_or(0);
    while claimed >= wave && wave < u32::MAX / 2 {
        claimed -= wave;
        wave *= 2;
    }
    wave
}
