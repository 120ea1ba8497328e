//! The runner in the images: what GitHub refuses, and what is made anew.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::demand::Group;
use super::limits::Refusal;
use super::{Action, Context, Plan, Skip, SkipReason};
use crate::class::RunnerClass;
use crate::ids::{AccountName, ClassName, ImageId, RepoName};
use crate::runner::{Exit, RunnerVersion};
use crate::state::ImageState;

/// How often a refused version is looked at again: GitHub moves its dates at times.
const REFUSED_AGAIN: TimeDelta = TimeDelta::minutes(10);
/// How long after an image was made anew it is tried again, successful or not.
const RENEW_AGAIN: TimeDelta = TimeDelta::hours(1);

/// Holds creates back whose runners GitHub says it refuses: they would start, get nothing and cost money.
pub(super) fn check_version(group: &Group<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let (account, class) = (group.registry.account(), &group.class.name);
    let of_release = context.observed.refused_version(account, class, context.now);
    match of_release.or_else(|| below_floor(account, class, context)) {
        Some((version, since)) => Err((SkipReason::RunnerVersion { version, since }, context.now + REFUSED_AGAIN)),
        None => Ok(()),
    }
}

/// The version in the image of a class, where GitHub takes none that old.
fn below_floor(
    account: &AccountName,
    class: &ClassName,
    context: &Context<'_>,
) -> Option<(RunnerVersion, DateTime<Utc>)> {
    let version = *context.observed.runners_in_use.get(class)?;
    let is_refused = context.policy.accounts.get(account)?.is_below_floor(version);
    is_refused.then_some((version, RunnerVersion::FLOOR_SINCE))
}

/// Where GitHub offers a newer runner than an image holds that Sandrunner puts it into, that image is made anew; the present
/// one serves meanwhile, and afterwards where the new one could not be made. Each image has a clock of its own.
pub(super) fn renew(context: &Context<'_>, plan: &mut Plan) {
    let Context { observed, policy, now, .. } = *context;
    let Some(offered) = observed.newest_release().filter(|_| policy.follows_releases) else { return };
    let is_asked = |account: &_| observed.releases.get(account).is_some_and(|view| view.offered == Some(offered));
    let scope = observed.served().map(|(scope, _)| scope).find(|scope| is_asked(&scope.account));
    let Some(scope) = scope else { return };
    let is_old = |class: &&RunnerClass| {
        class.image.gets_runner()
            && matches!(observed.images.get(&class.name), Some(ImageState::Ready(_)))
            && observed.runners_in_use.get(&class.name).is_some_and(|version| *version < offered)
    };
    let mut renewed = BTreeSet::new();
    for class in policy.classes.iter().filter(is_old) {
        let is_due = observed.renewed_at.get(&class.image).is_none_or(|at| now - *at >= RENEW_AGAIN);
        // Classes with the same image share it.
        if is_due && renewed.insert(&class.image) {
            let (class, scope) = (class.name.clone(), scope.clone());
            plan.actions.push(Action::PrepareImage { class, scope, replaces: None });
        }
    }
}

/// Where a class is served with an earlier image than is wanted, the wanted one is asked for again when its time has come, or
/// once a runner of it has come online after all.
pub(super) fn catch_up(context: &Context<'_>, plan: &mut Plan) {
    let Context { observed, evidence, policy, now, .. } = *context;
    let is_free = |class: &ClassName, held: &Option<ImageId>| {
        held.as_ref().is_some_and(|image| evidence.images.held_until(class, image, now).is_none())
    };
    let due = observed.overdue.iter().filter(|(class, late)| late.again_at <= now || is_free(class, &late.held));
    for class in due.filter_map(|(class, _)| policy.class(class)) {
        let is_its = |repo: &RepoName| class.repos.is_empty() || class.repos.contains(repo);
        let Some((scope, _)) = observed.served().find(|(scope, _)| is_its(&scope.repo)) else { continue };
        let is_it = |action: &Action| {
            matches!(action, Action::PrepareImage { class: planned, .. }
                if policy.class(planned).is_some_and(|planned| planned.image == class.image))
        };
        if !plan.actions.iter().any(is_it) {
            let (class, scope) = (class.name.clone(), scope.clone());
            plan.actions.push(Action::PrepareImage { class, scope, replaces: None });
        }
    }
}

/// Where jobs wait because GitHub refuses the runner of an image that its owner keeps in a registry, the image is made anew
/// from time to time: whoever puts a newer runner behind the same tag need do nothing here.
pub(super) fn look_again(context: &Context<'_>, plan: &mut Plan) {
    let Context { observed, policy, now, .. } = *context;
    let mut looked_at = BTreeSet::new();
    for class in policy.classes.iter().filter(|class| class.image.may_move()) {
        let Some(image) = observed.images.get(&class.name).and_then(ImageState::id) else { continue };
        let is_due = observed.rebuilds.get(&class.image).is_none_or(|rebuilds| rebuilds.again_at() <= now);
        let is_held = |skip: &&Skip| skip.class.as_ref() == Some(&class.name) && tells_refusal(&skip.reason);
        let Some(held) = plan.skips.iter().find(is_held).filter(|_| is_due) else { continue };
        let scope = held.scope.clone();
        // Classes with the same image share it.
        if looked_at.insert(&class.image) {
            let replaces = Some(image.clone());
            plan.actions.push(Action::PrepareImage { class: class.name.clone(), scope, replaces });
        }
    }
}

/// Whether a job waits because GitHub refuses a version of the runner.
fn tells_refusal(reason: &SkipReason) -> bool {
    match reason {
        SkipReason::RunnerVersion { .. } => true,
        SkipReason::Breaker { reason, .. } => **reason == *Exit::VersionRefused.as_str(),
        SkipReason::NoClass(_)
        | SkipReason::AlreadyServed
        | SkipReason::Unscheduled { .. }
        | SkipReason::SeenInProgress
        | SkipReason::Outdated
        | SkipReason::Paused(_)
        | SkipReason::FleetUnknown(_)
        | SkipReason::RunnerGroup(_)
        | SkipReason::ImageBuilding
        | SkipReason::ImageFailed(_)
        | SkipReason::SpendUnknown(_)
        | SkipReason::AtLimit(_)
        | SkipReason::FirstWave { .. }
        | SkipReason::Unproven
        | SkipReason::GhostJob
        | SkipReason::Fruitless { .. }
        | SkipReason::MachinesLost { .. }
        | SkipReason::MintRefused(_)
        | SkipReason::CreateRefused(_)
        | SkipReason::ModalSpendLimit
        | SkipReason::GithubBudget
        | SkipReason::ModalRate => false,
    }
}
