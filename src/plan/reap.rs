//! What may be destroyed, and nothing else (design rules D, G, I).

use chrono::{DateTime, TimeDelta, Utc};

use super::supply::{Registration, Supply};
use super::{Action, Context, DeregisterReason, LISTS_LAG, Plan, SecretLook, TerminateReason};
use crate::evidence::{AGREEMENT_APART, NameEvidence};
use crate::ids::{JobId, OurName, SecretId};
use crate::mutant::{self, Mutant};
use crate::state::{Connection, JobStatus, OurSandbox, ReachesBack, ReadState, Registry, RunView};

/// Nothing is destroyed before it was known for this long.
const GRACE: TimeDelta = TimeDelta::minutes(5);
/// After GitHub confirmed that a runner gets no more work, this long passes before its sandbox is ended: a
/// job may have been given to it in the same moment.
const SETTLE: TimeDelta = TimeDelta::seconds(90);
/// A list that began this long after GitHub confirmed that a runner gets no more work shows whether its sandbox was
/// placed by then.
const STILL_UNPLACED: TimeDelta = TimeDelta::seconds(60);
/// No Secret is deleted before its sandbox is this old: a first request to store it, whose answer was lost, may take
/// effect later than the one that was answered, and would store it again. Nothing would lead to that one.
const STORED_WITHIN: TimeDelta = TimeDelta::seconds(60);

/// Adds everything that may be cleaned up.
pub(super) fn reap(supply: &Supply<'_>, context: &Context<'_>, plan: &mut Plan) {
    for (name, sandbox, evidence) in &supply.failed {
        plan.actions.extend(failed_start(name, sandbox, *evidence, context));
    }
    for (name, sandbox, evidence) in &supply.with_secret {
        plan.actions.extend(sandbox.secret.as_ref().and_then(|id| secret(name, id, sandbox, *evidence, context)));
    }
    let fleet = &context.observed.fleet;
    let is_known = |name: &OurName, id: &SecretId| {
        fleet.sandboxes.get(name).is_some_and(|sandbox| sandbox.secret.as_ref() == Some(id))
    };
    for (id, ended) in fleet.ended_secrets.iter().filter(|(id, ended)| !is_known(&ended.name, id)) {
        plan.actions.extend(delete_secret(&ended.name, id, ended.created_at, context));
    }
    // Few registrations are ever stale, and many are offline while their sandboxes start.
    let offline = supply.idle.iter().filter(|registration| registration.is_offline && !supply.stale.is_empty());
    for registration @ Registration { at, view, name, .. } in offline {
        let Some(evidence) = supply.stale.get(name) else { continue };
        // After an answered DELETE only a newer reading shows whether it is still there.
        let is_unread =
            evidence.fenced_at.is_some_and(|at| view.runners_read.known_at.is_none_or(|read| read < at + SETTLE));
        if is_stale(name, at, evidence, context) && !is_unread && !evidence.is_kept(context.now) {
            plan.actions.extend(deregister(registration, context));
        }
    }
    let is_surplus =
        |idle: &&Registration<'_>| !idle.is_offline && is_old(context.evidence.names.get(idle.name), context);
    plan.actions.extend(
        supply
            .idle
            .iter()
            .filter(|_| mutant::is(Mutant::BusyTrusted))
            .filter(is_surplus)
            .filter_map(|idle| deregister(idle, context)),
    );
}

/// Deletes a registration that is of no use, unless the second look for its Secret comes too early.
fn deregister(registration: &Registration<'_>, context: &Context<'_>) -> Option<Action> {
    let Registration { at, name, runner, .. } = *registration;
    let known = context.evidence.names.get(name);
    let class = known.and_then(|known| known.origin.as_ref()).and_then(|origin| context.policy.class(&origin.class));
    let may_have_secret = class.map_or(context.policy.has_gpus(), |class| class.gpu.is_some());
    let secret = match known.and_then(|known| known.secret_denied_at) {
        _ if !may_have_secret => SecretLook::None,
        None => SecretLook::First,
        Some(at) if context.now - at >= AGREEMENT_APART => SecretLook::Again,
        Some(_) => return None,
    };
    let (name, registry) = (name.clone(), at.clone());
    Some(Action::Deregister { name, registry, runner, reason: DeregisterReason::Stale, secret })
}

/// A Secret is needed until the runner has read it.
fn secret(
    name: &OurName,
    id: &SecretId,
    sandbox: &OurSandbox,
    evidence: Option<&NameEvidence>,
    context: &Context<'_>,
) -> Option<Action> {
    // That Modal does not know the sandbox is no proof that it has ended.
    let has_ended =
        sandbox.ended.as_ref().is_some_and(|ended| ended.result.is_some() || context.now - ended.at >= GRACE);
    let is_read =
        has_ended || evidence.is_some_and(|evidence| evidence.online_at.is_some() || evidence.claim.is_some());
    let is_read = (is_read || mutant::is(Mutant::SecretDeletedEarly)) && !mutant::is(Mutant::SecretsKept);
    is_read.then(|| delete_secret(name, id, sandbox.created_at, context)).flatten()
}

/// Deletes the Secret of a sandbox that was created at `created` by Modal's clock, unless that was done or is too early.
fn delete_secret(name: &OurName, id: &SecretId, created: DateTime<Utc>, context: &Context<'_>) -> Option<Action> {
    let state = context.evidence.secrets.state(id);
    let created = created - context.observed.skew;
    let is_settled = context.now - created >= STORED_WITHIN || mutant::is(Mutant::SecretDeletedEarly);
    (is_settled && state.is_due(context.now)).then(|| Action::DeleteSecret { name: name.clone(), secret: id.clone() })
}

/// A registration of ours that no sandbox can use, as firmly agreed readings say.
fn is_stale(name: &OurName, registry: &Registry, evidence: &NameEvidence, context: &Context<'_>) -> bool {
    let is_hasty = mutant::is(Mutant::GraceIgnored) || mutant::is(Mutant::ReapAtFirstMiss);
    if !is_old(Some(evidence), context) && !is_hasty {
        return false;
    }
    let is_alive = context.observed.fleet.sandboxes.get(name).is_some_and(|sandbox| sandbox.ended.is_none());
    let is_wanted = context.observed.in_flight.contains_key(name) || context.observed.fleet.unsure.contains_key(name);
    !is_alive && !is_wanted && !evidence.claim.is_some_and(|claim| is_open(claim.job, registry, context))
}

/// Whether a registration is known for long enough to be destroyed.
fn is_old(evidence: Option<&NameEvidence>, context: &Context<'_>) -> bool {
    evidence.and_then(|evidence| evidence.registered_at).is_some_and(|at| context.now - at >= GRACE)
}

/// Whether a job that a runner took is not known to have ended.
fn is_open(job: JobId, registry: &Registry, context: &Context<'_>) -> bool {
    let runs = context.observed.repos_of(registry).flat_map(|(_, repo)| repo.runs.values());
    runs.filter_map(|run| run.jobs.get(&job)).any(|job| job.status != JobStatus::Completed)
}

/// The steps to end a sandbox whose runner never came online: fence, settle, look again, terminate.
fn failed_start(
    name: &OurName,
    sandbox: &OurSandbox,
    evidence: Option<&NameEvidence>,
    context: &Context<'_>,
) -> Option<Action> {
    let terminate = |reason| Action::Terminate { name: name.clone(), sandbox: sandbox.id.clone(), reason };
    if !sandbox.is_scheduled {
        return never_placed(name, sandbox, evidence, context);
    }
    let (registry, view) = context.observed.registry(&sandbox.origin.scope)?;
    let evidence = evidence?;
    let started = sandbox.started(context.observed.skew);
    let is_firm = evidence.has_failed_to_start();
    if context.now - started < GRACE || !is_firm || view.runners_read.failure.is_some() || evidence.is_kept(context.now)
    {
        return None;
    }
    if let Some(fenced) = evidence.fenced_at.or_else(|| mutant::is(Mutant::TerminatedUnfenced).then_some(started)) {
        let is_settled = mutant::is(Mutant::TerminatedUnsettled)
            || context.now - fenced >= SETTLE && is_unclaimed_since(name, registry, fenced, context);
        return is_settled.then(|| terminate(TerminateReason::FailedStart));
    }
    // Absence from a list is no fence: GitHub must answer a DELETE. Without an id to delete, Modal's own
    // time limit ends the sandbox.
    let listed = view.runners.get(name);
    let runner = listed.map(|runner| runner.id).or(evidence.runner_id).or(sandbox.runner)?;
    let may_work = listed.is_some_and(|runner| runner.is_busy || runner.connection != Connection::Offline);
    (!may_work).then(|| Action::Deregister {
        name: name.clone(),
        registry: registry.clone(),
        runner,
        reason: DeregisterReason::FailedStart,
        secret: SecretLook::None,
    })
}

/// The steps to end a sandbox that Modal has waiting for a machine: fence, then terminate where a list from after that
/// still shows it without one. Lists lag, so it may have been placed, and given a job, since the last one.
fn never_placed(
    name: &OurName,
    sandbox: &OurSandbox,
    evidence: Option<&NameEvidence>,
    context: &Context<'_>,
) -> Option<Action> {
    let registry = context.observed.registry(&sandbox.origin.scope);
    let listed = registry.and_then(|(_, view)| view.runners.get(name));
    let runner = sandbox.runner.or(listed.map(|runner| runner.id)).or(evidence.and_then(|known| known.runner_id));
    let fenced = evidence.and_then(|known| known.fenced_at);
    match (fenced, runner, registry) {
        _ if mutant::is(Mutant::TerminatedUnfenced) => {}
        (Some(fenced), ..) if sandbox.seen_at >= fenced + STILL_UNPLACED => {}
        // Where it is registered is not known: it can be given a job, and nothing can be done about that.
        (Some(_), ..) | (None, _, None) => return None,
        (None, Some(runner), Some((registry, view))) => {
            let is_firm = evidence.is_some_and(NameEvidence::has_failed_to_start);
            let is_old = context.now - sandbox.created(context.observed.skew) >= GRACE;
            return (is_firm && is_old && view.runners_read.failure.is_none()).then(|| Action::Deregister {
                name: name.clone(),
                registry: registry.clone(),
                runner,
                reason: DeregisterReason::NoCapacity,
                secret: SecretLook::None,
            });
        }
        // It was never registered, as far as anyone knows.
        (None, None, Some(_)) => {}
    }
    Some(Action::Terminate { name: name.clone(), sandbox: sandbox.id.clone(), reason: TerminateReason::NoCapacity })
}

/// Whether every active run whose jobs this runner could have been given is known, was read completely since, and no job
/// names it.
fn is_unclaimed_since(name: &OurName, registry: &Registry, since: DateTime<Utc>, context: &Context<'_>) -> bool {
    // Lists lag: one that began right after the fence may show the time before it.
    let is_read =
        |state: &ReadState| state.failure.is_none() && state.known_at.is_some_and(|at| at >= since + LISTS_LAG);
    let name = name.to_string();
    context.observed.repos_of(registry).all(|(_, repo)| {
        let is_elsewhere =
            |run: &RunView| run.jobs.values().all(|job| job.runner_name.as_deref() != Some(name.as_str()));
        // An old run that was re-run shows in a sweep alone.
        let is_swept =
            repo.reaches_back != ReachesBack::NotEnough || [&repo.swept, &repo.swept_rare].into_iter().all(is_read);
        repo.deep_read_at.is_some()
            && is_swept
            && is_read(&repo.runs_read)
            && repo.runs.values().all(|run| is_read(&run.jobs_read) && is_elsewhere(run))
    })
}
