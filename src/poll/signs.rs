//! What was observed that makes readings due.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::evidence::{Evidence, NameEvidence, end_reason};
use crate::ids::{OurName, RunId};
use crate::runner::Exit;
use crate::state::{
    Connection, JobStatus, Observed, OurSandbox, Registry, RegistryView, RepoView, RunView, Scope, WorkflowJob,
};

/// A registration that a failed create left appears in lists within this time: they lag, and GitHub may still
/// carry out a request that it answered with an error.
const LEFTOVER_APPEARS: TimeDelta = TimeDelta::minutes(2);

/// Registries with a sandbox that is not known to be claimed, or that ended without serving while its
/// registration was not looked at since; and those with a registration that a failed create may have left.
pub(super) fn unsettled<'a>(observed: &'a Observed, evidence: &'a Evidence) -> BTreeSet<&'a Registry> {
    let is_unsettled = |name: &OurName, sandbox: &OurSandbox| match &sandbox.ended {
        None => evidence.names.get(name).is_none_or(|known| known.claim.is_none()),
        Some(ended) => {
            let view = observed.registry(&sandbox.origin.scope).map(|(_, view)| view);
            let is_read = view.and_then(|view| view.runners_read.known_at).is_some_and(|at| at > ended.at);
            let is_listed = view.is_some_and(|view| view.runners.contains_key(name));
            end_reason(ended.result.as_ref()) != Exit::Served.as_str() && (!is_read || is_listed)
        }
    };
    let may_be_left = |known: &&NameEvidence| {
        let view = known.origin.as_ref().and_then(|origin| observed.registry(&origin.scope));
        let read_at = view.and_then(|(_, view)| view.runners_read.known_at);
        known.fenced_at.is_none()
            && known.left_at.is_some_and(|left| read_at.is_none_or(|read| read < left + LEFTOVER_APPEARS))
    };
    let left = evidence.names.values().filter(may_be_left).filter_map(|known| Some(&known.origin.as_ref()?.scope));
    let sandboxes = observed.fleet.sandboxes.iter();
    let unclaimed = sandboxes.filter(|(name, sandbox)| is_unsettled(name, sandbox));
    let scopes = unclaimed.map(|(_, sandbox)| &sandbox.origin.scope).chain(left);
    scopes.filter_map(|scope| observed.registry(scope)).map(|(registry, _)| registry).collect()
}

/// When the last runner of a registry was deregistered whose sandbox lives: it can be ended when no job read since
/// then names it.
pub(super) fn fences<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeMap<&'a Registry, DateTime<Utc>> {
    let mut fences = BTreeMap::new();
    for (name, sandbox) in observed.fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()) {
        let known = evidence.names.get(name).filter(|known| known.terminated_at.is_none());
        let registry = observed.registry(&sandbox.origin.scope);
        if let Some((fenced, (registry, _))) = known.and_then(|known| known.fenced_at).zip(registry) {
            let last = fences.entry(registry).or_insert(fenced);
            *last = fenced.max(*last);
        }
    }
    fences
}

/// Until when the last runner waited, or waits, that was made for a job of a run and is not known to have taken one:
/// what came of it shows in a later reading of the jobs only.
pub(super) fn trials<'a>(observed: &'a Observed, evidence: &Evidence) -> BTreeMap<(&'a Scope, RunId), DateTime<Utc>> {
    let mut trials = BTreeMap::new();
    for (name, sandbox) in &observed.fleet.sandboxes {
        if evidence.names.get(name).is_none_or(|known| known.claim.is_none()) {
            let until = sandbox.ended.as_ref().map_or(DateTime::<Utc>::MAX_UTC, |ended| ended.at);
            let last = trials.entry((&sandbox.origin.scope, sandbox.origin.run)).or_insert(until);
            *last = until.max(*last);
        }
    }
    trials
}

/// Whether nothing of a run moves, as far as was read: no runner is being tried on it, and each job has ended, or is
/// queued although a runner waited for it in vain.
pub(super) fn is_stuck(run: &RunView, tried_until: Option<DateTime<Utc>>, evidence: &Evidence) -> bool {
    let is_tried = tried_until.is_some_and(|until| run.jobs_read.known_at.is_none_or(|read| read < until));
    let is_over = |job: &WorkflowJob| match job.status {
        JobStatus::Completed => true,
        JobStatus::Queued => evidence.jobs.get(&job.id).is_some_and(|known| !known.waiting.is_trusted()),
        JobStatus::InProgress
        | JobStatus::Waiting
        | JobStatus::Pending
        | JobStatus::Requested
        | JobStatus::Other(_) => false,
    };
    !is_tried && run.jobs.values().all(is_over)
}

/// Whether a registration may have to be deleted soon, or was shown a moment ago and a single list lacks it.
pub(super) fn has_leftover(view: &RegistryView, observed: &Observed) -> bool {
    let is_leftover = |name: &OurName| !observed.fleet.sandboxes.contains_key(name);
    let is_lacked_once = view.lacked_at.is_some_and(|at| view.runners_read.known_at.is_none_or(|read| read <= at));
    is_lacked_once
        || view.runners.iter().any(|(name, runner)| is_leftover(name) && runner.connection != Connection::Online)
}

/// Registries of which something may be created soon.
pub(super) fn wanting(observed: &Observed) -> BTreeSet<&Registry> {
    let has_queued =
        |repo: &&RepoView| repo.runs.values().any(|run| run.jobs.values().any(|job| job.status == JobStatus::Queued));
    let is_unread = |repo: &&RepoView| {
        observed.registries.get(&repo.registry).is_some_and(|view| view.runners_read.known_at.is_none())
    };
    observed.repos.values().filter(is_unread).filter(has_queued).map(|repo| &repo.registry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_list_lacks_is_looked_for_once_more() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let (observed, mut view) = (Observed::default(), RegistryView::default());
        view.runners_read.succeeded(at(60));
        assert!(!has_leftover(&view, &observed));
        view.lacked_at = Some(at(60));
        assert!(has_leftover(&view, &observed));
        view.runners_read.succeeded(at(120));
        assert!(!has_leftover(&view, &observed), "two lists agree");
    }
}
