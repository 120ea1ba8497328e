//! Lays a reading into the data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use chrono::{DateTime, TimeDelta, Utc};

use super::read::{Arrival, Found, Releases};
use super::{Made, View, class_of_tag, tag};
use crate::class::{Gpu, Machine};
use crate::cost::Resources;
use crate::error::{CallFailure, ErrorClass};
use crate::evidence::{AGREEMENT_APART, end_reason};
use crate::github::RunList;
use crate::ids::{ClassName, OurName, RunId, RunnerId, SandboxId, SecretId};
use crate::modal::SandboxFate;
use crate::mutant::{self, Mutant};
use crate::poll::{Breadth, Depth, Read};
use crate::runner::Exit;
use crate::state::{
    Connection, Ended, Fleet, ImageState, JobStatus, NeedsJobs, Observed, Org, Origin, OurSandbox, Quota, ReachesBack,
    ReadState, ReadTimes, Reading, Registry, RepoView, RunStatus, RunView, Runner, RunnerGroup, Sandbox, Spend,
    WorkflowJob, WorkflowRun,
};

/// How long an ended sandbox stays in the data, so that its end is seen and weighed: longer than readings of jobs are
/// believed that are older than it (`plan::demand`, at the longest interval), or the jobs it served would be served again.
const ENDED_STAYS: TimeDelta = TimeDelta::minutes(25);
/// How long a name may have an unseen sandbox (design rule F).
const UNSURE_STAYS: TimeDelta = TimeDelta::minutes(3);
/// A run can be re-run for this long (GitHub: re-running workflows, 30 days).
const RERUN_LIMIT: TimeDelta = TimeDelta::days(30);

/// Drops what is over: ended sandboxes, doubts that expired, completed runs whose end was read.
pub(super) fn forget_past(observed: &mut Observed, now: DateTime<Utc>) {
    let fleet = &mut observed.fleet;
    let stays = |sandbox: &OurSandbox| sandbox.ended.as_ref().is_none_or(|ended| now - ended.at < ENDED_STAYS);
    fleet.sandboxes.retain(|_, sandbox| stays(sandbox));
    fleet.replaced.retain(|_, sandbox| stays(sandbox));
    fleet.unsure.retain(|_, creating| now - creating.since < UNSURE_STAYS);
    for repo in observed.repos.values_mut() {
        repo.runs.retain(|_, run| run.run.status != RunStatus::Completed || run.needs_jobs != NeedsJobs::InTurn);
    }
}

/// Makes room for a sandbox whose name another one had before it, by whomever: that one has ended, Modal has no two of one
/// name alive.
pub(super) fn replace_earlier(
    fleet: &mut Fleet,
    name: &OurName,
    (id, created_at): (&SandboxId, DateTime<Utc>),
    began_at: DateTime<Utc>,
) {
    let is_earlier = |known: &OurSandbox| known.id != *id && known.created_at < created_at;
    if fleet.sandboxes.get(name).is_some_and(is_earlier)
        && let Some(mut earlier) = fleet.sandboxes.remove(name)
    {
        earlier.ended.get_or_insert(Ended { at: began_at, result: None });
        fleet.replaced.insert(name.clone(), earlier);
    }
}

impl View {
    pub(super) fn apply(&mut self, arrival: Arrival, now: DateTime<Utc>) {
        let Arrival { read, times, result } = arrival;
        let began_at = times.began;
        match (read, result) {
            (Read::Fleet, Found::Fleet(reading)) => self.apply_fleet(reading, times, now),
            (Read::Ended, Found::Ended(reading)) => self.apply_ended(reading, began_at),
            (Read::Quota, Found::Quota(found)) => self.apply_quota(found, began_at),
            (Read::Rates, Found::Rates(found)) => self.apply_rates(found, began_at),
            (Read::Sandbox(name, id), Found::Sandbox(fate)) => self.apply_fate(&name, &id, fate, times),
            (Read::Named(name), Found::Named(found)) => self.apply_named(&name, found, now),
            (Read::Installations(account), Found::Installations(found)) => {
                self.apply_installations(&account, found, began_at);
            }
            (Read::Directory(owner), Found::Directory(reading)) => self.apply_directory(&owner, reading, times),
            (Read::Releases(registry), Found::Releases(found)) => self.apply_releases(&registry, found, began_at),
            (Read::Repo(scope), Found::Repo(found)) => self.apply_repo(&scope, found, began_at),
            (Read::Runs(scope, depth), Found::Runs(reading)) => {
                if let Some(repo) = self.observed.repos.get_mut(&scope) {
                    if let Some(failure) = reading.failure() {
                        warn_once(&repo.runs_read, failure, &scope, "cannot read the run list");
                    }
                    let was_refused = repo.runs_read.is_refused();
                    apply_runs(repo, reading, depth, began_at, now + self.observed.skew);
                    if was_refused
                        && !repo.runs_read.is_refused()
                        && let Some(view) = self.observed.registries.get_mut(&repo.registry)
                    {
                        view.runners_read.resume();
                    }
                }
            }
            (Read::Run(scope, id), Found::Run(found)) => {
                if let Some(repo) = self.observed.repos.get_mut(&scope) {
                    apply_run(repo, id, found, times);
                }
            }
            (Read::Jobs(scope, id), Found::Jobs(reading)) => {
                if let Some(repo) = self.observed.repos.get_mut(&scope) {
                    apply_jobs(repo, id, reading, times);
                }
            }
            (Read::Runners(registry), Found::Runners(reading)) => self.apply_runners(&registry, reading, times),
            (Read::Group(org), Found::Group(found)) => self.apply_group(org, found, began_at),
            (Read::Sweep(scope, breadth), Found::Sweep(reading)) => {
                if let Some(repo) = self.observed.repos.get_mut(&scope) {
                    if let Some(failure) = reading.failure() {
                        warn_once(swept(repo, breadth), failure, &scope, "a sweep for old runs is incomplete");
                    }
                    apply_sweep(repo, &reading, breadth, began_at);
                }
            }
            // A reading finds its own kind by construction.
            (_, _) => {}
        }
    }

    fn apply_fleet(&mut self, reading: Reading<Vec<Sandbox>>, times: ReadTimes, now: DateTime<Utc>) {
        let began_at = times.began;
        if let Some(failure) = reading.failure().filter(|_| self.observed.fleet.read.failures == 0) {
            tracing::warn!(error = %failure, "the list of sandboxes is incomplete");
        }
        let seen = reading.seen().map(Vec::as_slice).unwrap_or_default();
        let listed = self.apply_sandboxes(seen.iter(), began_at);
        let fleet = &mut self.observed.fleet;
        match reading {
            Reading::Known(seen) => {
                let was_refused = fleet.read.is_refused();
                fleet.read.answered(times);
                if was_refused {
                    fleet.ended_read.resume();
                }
                let alive: BTreeSet<&SandboxId> = seen.iter().map(|sandbox| &sandbox.id).collect();
                fleet.unreadable.retain(|id, _| alive.contains(id));
                for (name, sandbox) in &mut fleet.sandboxes {
                    if sandbox.ended.is_none() && !listed.contains(name) {
                        sandbox.missing_since.get_or_insert(now);
                        if mutant::is(Mutant::MissingIsGone) {
                            sandbox.ended = Some(Ended { at: now, result: None });
                        }
                    }
                }
            }
            Reading::Partial { missing: failure, .. } | Reading::Unknown(failure) => {
                fleet.read.failed(began_at, failure);
            }
        }
    }

    /// Takes listed sandboxes, and returns the names of those that are ours.
    pub(super) fn apply_sandboxes<'a>(
        &mut self,
        seen: impl Iterator<Item = &'a Sandbox>,
        began_at: DateTime<Utc>,
    ) -> BTreeSet<OurName> {
        let mut listed = BTreeSet::new();
        for sandbox in seen {
            match self.ours(sandbox) {
                Ok((name, origin)) => {
                    listed.insert(name.clone());
                    // Its repository may have been found meanwhile.
                    self.observed.fleet.unreadable.remove(&sandbox.id);
                    self.apply_listed(name, origin, sandbox, began_at);
                }
                Err(reason) => {
                    let class = sandbox.tags.get(tag::CLASS).and_then(|class| self.classes_by_tag.get(class));
                    let gpus = self.machine(sandbox, class).gpus();
                    if self.observed.fleet.unreadable.insert(sandbox.id.clone(), gpus).is_none() {
                        tracing::warn!(sandbox_id = %sandbox.id, reason, "a sandbox with our tag cannot be read");
                    }
                }
            }
        }
        listed
    }

    fn apply_listed(&mut self, name: OurName, origin: Origin, listed: &Sandbox, began_at: DateTime<Utc>) {
        let fleet = &mut self.observed.fleet;
        if mutant::is(Mutant::ListedNotCounted) && !fleet.sandboxes.contains_key(&name) {
            return;
        }
        fleet.unsure.remove(&name);
        let secret = listed.tags.get(tag::SECRET).map(|secret| SecretId::new(secret.as_str()));
        let runner = listed.tags.get(tag::RUNNER).and_then(|runner| runner.parse().ok()).map(RunnerId);
        replace_earlier(fleet, &name, (&listed.id, listed.created_at), began_at);
        let sandbox = fleet.sandboxes.entry(name).or_insert_with(|| OurSandbox {
            id: listed.id.clone(),
            origin,
            created_at: listed.created_at,
            is_scheduled: false,
            scheduled_at: None,
            started_at: None,
            secret: secret.clone(),
            runner,
            image: listed.image.clone(),
            task: listed.task.clone(),
            resources: listed.resources.clone(),
            seen_at: began_at,
            missing_since: None,
            asked_at: None,
            unknown_since: None,
            ended: None,
        });
        // A list that lags shows ended sandboxes as living; an end is final.
        if sandbox.ended.is_some() || sandbox.id != listed.id {
            return;
        }
        sandbox.secret = sandbox.secret.take().or(secret);
        sandbox.runner = sandbox.runner.or(runner);
        sandbox.image = sandbox.image.take().or_else(|| listed.image.clone());
        sandbox.task = sandbox.task.take().or_else(|| listed.task.clone());
        if sandbox.resources == Resources::default() {
            sandbox.resources = listed.resources.clone();
        }
        if listed.is_scheduled && !sandbox.is_scheduled {
            (sandbox.is_scheduled, sandbox.scheduled_at) = (true, Some(began_at));
        }
        sandbox.started_at = sandbox.started_at.or(listed.started_at);
        sandbox.seen_at = sandbox.seen_at.max(began_at);
        (sandbox.missing_since, sandbox.unknown_since) = (None, None);
        if let Some(result) = &listed.result {
            sandbox.ended = Some(Ended { at: began_at, result: Some(result.clone()) });
        }
    }

    /// Reads the tags of a sandbox that carries our deployment's tag.
    pub(super) fn ours(&self, sandbox: &Sandbox) -> Result<(OurName, Origin), String> {
        let name: OurName = sandbox.name.parse().map_err(|error| format!("its name: {error}"))?;
        if name.deployment != self.deployment {
            return Err(format!("its name `{name}` is of another deployment"));
        }
        let value = |key: &str| sandbox.tags.get(key).ok_or_else(|| format!("it has no tag `{key}`"));
        let scope = self
            .scope_of_tags(value(tag::ACCOUNT)?, value(tag::REPO)?)
            .ok_or_else(|| format!("its repository `{}` is not allowed", sandbox.tags[tag::REPO]))?;
        let run = value(tag::RUN)?.parse().map_err(|_| "its tag `run` is no number".to_owned())?;
        let group = value(tag::GROUP)?.parse().map_err(|error| format!("its tag `group`: {error}"))?;
        let class = value(tag::CLASS)?;
        let class = self.classes_by_tag.get(class).cloned().unwrap_or_else(|| class_of_tag(class));
        let machine = self.machine(sandbox, Some(&class));
        Ok((name, Origin { scope, run: RunId(run), class, group, machine }))
    }

    /// What a listed sandbox was asked for on. One of the older interface has a GPU, whether or not a tag says which.
    fn machine(&self, sandbox: &Sandbox, class: Option<&ClassName>) -> Machine {
        let regions = sandbox.tags.get(tag::REGIONS).map(|tag| Machine::regions_of_tag(tag)).unwrap_or_default();
        let of_class = || class.and_then(|class| self.readers.policy.class(class)?.gpu.clone());
        let unknown = || Gpu { name: "UNKNOWN".to_owned(), count: 1 };
        let told = sandbox.tags.get(tag::GPU).and_then(|tag| Gpu::from_tag(tag));
        let gpu = told.or_else(|| sandbox.id.is_v1().then(|| of_class().unwrap_or_else(unknown)));
        Machine { gpu, regions }
    }

    fn apply_quota(&mut self, found: Result<Quota, CallFailure>, began_at: DateTime<Utc>) {
        let view = &mut self.observed.quota;
        match found {
            Ok(quota) => {
                let was_spent = view.known.as_ref().is_some_and(|known| known.spend == Spend::LimitReached);
                match (was_spent, quota.spend) {
                    (false, Spend::LimitReached) => tracing::error!(
                        environment = quota.environment,
                        "Modal's spend limit is reached: it starts nothing more until that is raised, or the cycle ends"
                    ),
                    (true, Spend::Within) => tracing::info!("Modal's spend limit is no longer reached"),
                    (true, Spend::LimitReached) | (false, Spend::Within) => {}
                }
                view.read.succeeded(began_at);
                view.known = Some(quota);
            }
            Err(failure) => {
                if view.read.failures == 0 {
                    tracing::debug!(error = %failure, "cannot read Modal's quota");
                }
                view.read.failed(began_at, failure);
            }
        }
    }

    fn apply_fate(&mut self, name: &OurName, id: &SandboxId, fate: Result<SandboxFate, CallFailure>, times: ReadTimes) {
        let Some(sandbox) = self.observed.fleet.sandboxes.get_mut(name).filter(|sandbox| sandbox.id == *id) else {
            return;
        };
        match fate {
            Ok(SandboxFate::Running) => {
                (sandbox.seen_at, sandbox.unknown_since) = (sandbox.seen_at.max(times.began), None);
            }
            Ok(SandboxFate::Ended(result)) => sandbox.ended = Some(Ended { at: times.answered, result: Some(result) }),
            // One such answer proves nothing (design rule I).
            Ok(SandboxFate::Gone) => {
                let since = *sandbox.unknown_since.get_or_insert(times.answered);
                if times.began - since >= AGREEMENT_APART || mutant::is(Mutant::OneDenialIsGone) {
                    sandbox.ended = Some(Ended { at: times.answered, result: None });
                }
            }
            Err(error) => {
                tracing::warn!(%error, runner_name = %name, sandbox_id = %id, "cannot look a sandbox up");
            }
        }
    }

    fn apply_named(&mut self, name: &OurName, found: Result<Option<SandboxId>, CallFailure>, now: DateTime<Utc>) {
        match found {
            Ok(Some(id)) => {
                if let Some(creating) = self.observed.fleet.unsure.get(name).cloned() {
                    tracing::info!(runner_name = %name, sandbox_id = %id, "found the sandbox of a lost create");
                    self.created(
                        name,
                        Made { id, origin: creating.origin, secret: None, runner: None, image: None, task: None },
                        now,
                    );
                }
            }
            // It may still appear; the doubt expires by itself.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, runner_name = %name, "cannot look a sandbox up by its name"),
        }
    }

    fn apply_group(&mut self, org: Org, found: Result<Option<RunnerGroup>, CallFailure>, began_at: DateTime<Utc>) {
        let registry = Registry::Org(org);
        let Some(view) = self.observed.registries.get_mut(&registry) else { return };
        match found {
            Ok(group) => {
                view.group_read.succeeded(began_at);
                view.group = group;
            }
            Err(failure) => {
                warn_once(&view.group_read, &failure, &registry, "cannot read the runner group");
                view.group_read.failed(began_at, failure);
            }
        }
    }

    fn apply_releases(&mut self, registry: &Registry, found: Result<Releases, CallFailure>, began_at: DateTime<Utc>) {
        let used = self.observed.runner_versions();
        let view = self.observed.releases.entry(registry.account().clone()).or_default();
        let failure = match found {
            Ok(Releases { offered, notices, missing }) => {
                view.offered = Some(offered);
                view.notices.retain(|version, _| used.contains(version));
                view.notices.extend(notices);
                missing
            }
            Err(failure) => Some(failure),
        };
        match failure {
            Some(failure) => {
                warn_once(&view.read, &failure, registry, "cannot read the releases of the runner");
                view.read.failed(began_at, failure);
            }
            None => view.read.succeeded(began_at),
        }
        for version in used {
            if let Some(ends_at) = view.refused_at(version).filter(|at| *at - began_at < WARN_BEFORE_END) {
                let offered = view.offered.map(tracing::field::display);
                tracing::warn!(%version, %ends_at, offered, "GitHub soon takes no runners of a version that is in use");
            }
        }
    }

    fn apply_runners(&mut self, registry: &Registry, reading: Reading<Vec<Runner>>, times: ReadTimes) {
        let began_at = times.began;
        let deployment = self.deployment.clone();
        let Some(view) = self.observed.registries.get_mut(registry) else { return };
        let runners = match reading {
            Reading::Known(runners) => {
                view.runners_read.answered(times);
                runners
            }
            Reading::Partial { missing: failure, .. } | Reading::Unknown(failure) => {
                warn_once(&view.runners_read, &failure, registry, "cannot read the runners");
                view.runners_read.failed(began_at, failure);
                return;
            }
        };
        let count = runners.len();
        let before = std::mem::take(&mut view.runners);
        let (runners_in_use, images) = (&mut self.observed.runners_in_use, &self.observed.images);
        view.runners = runners
            .into_iter()
            .filter_map(|runner| Some((runner.name.parse::<OurName>().ok()?, runner)))
            .filter(|(name, _)| name.deployment == deployment || mutant::is(Mutant::OtherDeploymentIsOurs))
            .filter(|(name, _)| name.account == *registry.account())
            .collect();
        view.foreign_runners = count - view.runners.len();
        if lacks_leftover(&before, &view.runners, &self.observed.fleet.sandboxes) {
            view.lacked_at = Some(began_at);
        }
        view.missing.retain(|name, (_, since)| !view.runners.contains_key(name) && began_at - *since < AGREEMENT_APART);
        let missing = before.into_iter().filter(|(name, _)| !view.runners.contains_key(name));
        view.missing.extend(missing.map(|(name, runner)| (name, (runner, times.answered))));
        // What is in an image that we did not define shows only so.
        for (name, runner) in &view.runners {
            let sandbox = self.observed.fleet.sandboxes.get(name);
            // One that was made from an earlier image goes on after that was replaced.
            let is_of_today = |sandbox: &&OurSandbox| {
                let image = images.get(&sandbox.origin.class).and_then(ImageState::id);
                sandbox.image.is_none() || sandbox.image.as_ref() == image
            };
            let class = sandbox.filter(is_of_today).map(|sandbox| &sandbox.origin.class);
            let is_unknown =
                |class: &&ClassName| self.readers.policy.class(class).is_some_and(|class| !class.image.gets_runner());
            if let (Some(class), Some(version)) = (class.filter(is_unknown), runner.version) {
                runners_in_use.insert(class.clone(), version);
            }
        }
    }
}

fn has_no_connection(runner: &Runner) -> bool {
    runner.connection != Connection::Online && !runner.is_busy
}

/// Whether a list lacks a registration that the one before showed unconnected, and that may be left over. That of a runner
/// which served is removed by GitHub: to look for it again costs a reading for every job.
fn lacks_leftover(
    before: &BTreeMap<OurName, Runner>,
    listed: &BTreeMap<OurName, Runner>,
    sandboxes: &BTreeMap<OurName, OurSandbox>,
) -> bool {
    let mut lacking = before.iter().filter(|(name, runner)| !listed.contains_key(name) && has_no_connection(runner));
    lacking.any(|(name, _)| is_left(sandboxes.get(name)))
}

/// Whether a registration outlives its sandbox, as far as is known: GitHub removes that of a runner which served.
fn is_left(sandbox: Option<&OurSandbox>) -> bool {
    let Some(sandbox) = sandbox else { return true };
    sandbox.ended.as_ref().is_some_and(|ended| end_reason(ended.result.as_ref()) != Exit::Served.as_str())
}

/// How long before GitHub refuses a version that is told every hour (GitHub: a release has to be installed within 30 days).
const WARN_BEFORE_END: TimeDelta = TimeDelta::days(10);

/// The first failure in a row is a warning; the rest is in the metrics.
pub(super) fn warn_once(state: &ReadState, failure: &CallFailure, place: &dyn Display, what: &str) {
    if state.failures == 0 {
        tracing::warn!(repo = %place, error = %failure, "{what}");
    }
}

fn apply_runs(
    repo: &mut RepoView,
    reading: Reading<RunList>,
    depth: Depth,
    began_at: DateTime<Utc>,
    github_now: DateTime<Utc>,
) {
    let list = match reading {
        Reading::Known(list) => {
            let was_refused = repo.runs_read.is_refused();
            repo.runs_read.succeeded(began_at);
            if was_refused {
                for run in repo.runs.values_mut() {
                    run.jobs_read.resume();
                }
            }
            if depth == Depth::Active {
                repo.deep_read_at = Some(began_at);
            }
            list
        }
        Reading::Partial { seen, missing } => {
            repo.runs_read.failed(began_at, missing);
            seen
        }
        Reading::Unknown(failure) => {
            repo.runs_read.failed(began_at, failure);
            return;
        }
    };
    // Only the pages with all active runs tell; a look at the newest runs reads less.
    let oldest = list.runs.iter().filter_map(|run| run.created_at).min();
    let reaches_back = list.reaches_end || oldest.is_some_and(|oldest| github_now - oldest > RERUN_LIMIT);
    if depth == Depth::Active {
        repo.reaches_back = if reaches_back { ReachesBack::Enough } else { ReachesBack::NotEnough };
    }
    if list.runs.iter().any(|run| run.status != RunStatus::Completed) {
        repo.active_at = Some(began_at);
    }
    let mut new_runs = 0;
    for run in list.runs {
        repo.hints.seen(run.id, began_at);
        new_runs += usize::from(listed(repo, run, began_at));
    }
    repo.activity.read(new_runs, began_at);
}

/// Takes a run as a list or a look-up showed it, and tells whether it is active and new.
fn listed(repo: &mut RepoView, run: WorkflowRun, began_at: DateTime<Utc>) -> bool {
    let Some(view) = repo.runs.get_mut(&run.id) else {
        let is_active = run.status != RunStatus::Completed;
        if is_active {
            let view = RunView {
                first_listed_at: began_at,
                changed_at: began_at,
                listed_at: began_at,
                asked_at: None,
                gone_at: None,
                jobs: BTreeMap::new(),
                jobs_read: ReadState::default(),
                needs_jobs: NeedsJobs::Now,
                emptied_at: None,
                partly_read: BTreeMap::new(),
                run,
            };
            repo.runs.insert(view.run.id, view);
        }
        return is_active;
    };
    // Lists lag; what an earlier reading showed of a newer state stands.
    if view.listed_at > began_at || view.run.updated_at > run.updated_at || view.run.attempt > run.attempt {
        return false;
    }
    let has_changed =
        (&view.run.status, view.run.updated_at, view.run.attempt) != (&run.status, run.updated_at, run.attempt);
    let had_queued = view.jobs.values().any(|job| job.status == JobStatus::Queued);
    let is_past_queue = matches!(run.status, RunStatus::InProgress | RunStatus::Completed);
    if has_changed && !is_past_queue {
        view.needs_jobs = NeedsJobs::Now;
    } else if has_changed && had_queued && view.needs_jobs == NeedsJobs::InTurn {
        // No new demand, but news of the runners that took it.
        view.needs_jobs = NeedsJobs::Soon;
    }
    if has_changed {
        view.changed_at = began_at;
    }
    view.listed_at = began_at;
    view.run = run;
    false
}

fn apply_run(repo: &mut RepoView, id: RunId, found: Result<Option<WorkflowRun>, CallFailure>, times: ReadTimes) {
    // Found or not, nobody waits for it any longer.
    repo.hints.seen(id, times.began);
    match found {
        Ok(Some(run)) => {
            listed(repo, run, times.began);
        }
        Ok(None) => not_found(repo, id, times),
        Err(failure) => tracing::debug!(run_id = id.0, error = %failure, "cannot look a run up"),
    }
}

fn apply_jobs(repo: &mut RepoView, id: RunId, reading: Reading<Option<Vec<WorkflowJob>>>, times: ReadTimes) {
    let began_at = times.began;
    repo.hints.seen(id, began_at);
    let Some(run) = repo.runs.get_mut(&id) else { return };
    match reading {
        Reading::Known(None) => not_found(repo, id, times),
        // An empty answer lowers nothing until a later one agrees.
        Reading::Known(Some(jobs)) if jobs.is_empty() && !run.jobs.is_empty() && !is_agreed(run, began_at) => {
            run.emptied_at.get_or_insert(times.answered);
            let message = format!("run {id} shows no job any more");
            run.jobs_read.failed(began_at, CallFailure { class: ErrorClass::Unreadable, message, retry_after: None });
        }
        Reading::Known(Some(jobs)) => {
            if run.emptied_at.take().is_some() {
                run.changed_at = began_at;
            }
            run.gone_at = None;
            run.jobs = jobs.into_iter().map(|job| (job.id, job)).collect();
            run.jobs_read.answered(times);
            run.partly_read.clear();
            run.needs_jobs = NeedsJobs::InTurn;
        }
        Reading::Partial { seen, missing } => {
            // What is missing may still be there: only add and update.
            for job in seen.into_iter().flatten() {
                run.partly_read.insert(job.id, began_at);
                run.jobs.insert(job.id, job);
            }
            run.jobs_read.failed(began_at, missing);
            run.needs_jobs = NeedsJobs::InTurn;
        }
        Reading::Unknown(failure) => run.jobs_read.failed(began_at, failure),
    }
}

/// Whether an earlier answer that showed no job is old enough for another one to prove something (design rule I).
fn is_agreed(run: &RunView, began_at: DateTime<Utc>) -> bool {
    run.emptied_at.is_some_and(|at| began_at - at >= AGREEMENT_APART)
}

/// A run that was deleted holds no demand; but one answer that hides it proves nothing.
fn not_found(repo: &mut RepoView, id: RunId, times: ReadTimes) {
    let Some(run) = repo.runs.get_mut(&id) else { return };
    let first = *run.gone_at.get_or_insert(times.answered);
    let failure =
        CallFailure { class: ErrorClass::NotFound, message: format!("run {id} is not found"), retry_after: None };
    run.jobs_read.failed(times.began, failure);
    if times.began - first >= AGREEMENT_APART {
        repo.runs.remove(&id);
        // Where a list still shows it, it is no more gone than that.
        repo.deep_read_at = None;
    }
}

fn swept(repo: &mut RepoView, breadth: Breadth) -> &mut ReadState {
    match breadth {
        Breadth::Usual => &mut repo.swept,
        Breadth::Rare => &mut repo.swept_rare,
    }
}

fn apply_sweep(repo: &mut RepoView, reading: &Reading<Vec<WorkflowRun>>, breadth: Breadth, began_at: DateTime<Utc>) {
    match reading.failure() {
        // What is missing is soon asked for again.
        Some(failure) => swept(repo, breadth).failed(began_at, failure.clone()),
        None => swept(repo, breadth).succeeded(began_at),
    }
    for run in reading.seen().into_iter().flatten() {
        // The index lags: only runs that are new to us are taken from it.
        if !repo.runs.contains_key(&run.id) {
            listed(repo, run.clone(), began_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Risks;
    use crate::ids::{JobId, Labels};
    use crate::state::{SandboxEnd, SandboxResult, Scope};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn read(seconds: i64) -> ReadTimes {
        ReadTimes { began: at(seconds), answered: at(seconds) }
    }

    fn repo() -> RepoView {
        let scope = Scope { account: "gh".parse().unwrap(), repo: "acme/web".parse().unwrap() };
        RepoView::new(Registry::Repo(scope))
    }

    fn run(id: u64) -> WorkflowRun {
        WorkflowRun {
            id: RunId(id),
            attempt: 1,
            status: RunStatus::Queued,
            created_at: None,
            updated_at: None,
            risks: Risks::NONE,
            workflow: None,
        }
    }

    fn sandbox(exit_code: Option<i32>) -> OurSandbox {
        OurSandbox {
            id: SandboxId::new("sb-1"),
            origin: Origin {
                scope: Scope { account: "gh".parse().unwrap(), repo: "acme/web".parse().unwrap() },
                run: RunId(1),
                class: ClassName::new("cpu"),
                group: Labels::new(["modal"]).fingerprint(),
                machine: Machine::default(),
            },
            created_at: at(0),
            is_scheduled: true,
            scheduled_at: None,
            started_at: None,
            secret: None,
            runner: None,
            image: None,
            task: None,
            resources: Resources::default(),
            seen_at: at(0),
            missing_since: None,
            asked_at: None,
            unknown_since: None,
            ended: exit_code.map(|exit_code| Ended {
                at: at(0),
                result: Some(SandboxResult { status: SandboxEnd::Failure, exit_code, message: String::new() }),
            }),
        }
    }

    #[test]
    fn a_registration_that_a_list_lacks_matters_where_it_may_be_left_over() {
        let name: OurName = "sr-main-gh-7-1".parse().unwrap();
        let runner = |connection| Runner {
            id: RunnerId(1),
            name: name.to_string(),
            connection,
            is_busy: false,
            labels: None,
            version: None,
        };
        let before = |connection| BTreeMap::from([(name.clone(), runner(connection))]);
        let (offline, nothing) = (before(Connection::Offline), BTreeMap::new());
        let of = |exit_code| BTreeMap::from([(name.clone(), sandbox(exit_code))]);
        let unserved = Some(64);
        assert!(lacks_leftover(&offline, &nothing, &BTreeMap::new()), "it has no sandbox");
        assert!(lacks_leftover(&offline, &nothing, &of(unserved)));
        assert!(!lacks_leftover(&offline, &nothing, &of(None)), "its sandbox lives");
        assert!(!lacks_leftover(&offline, &nothing, &of(Some(0))), "it served");
        assert!(!lacks_leftover(&before(Connection::Online), &nothing, &of(unserved)));
        assert!(!lacks_leftover(&offline, &offline, &of(unserved)), "it is listed");
    }

    #[test]
    fn a_sweep_that_failed_halfway_keeps_what_it_saw_and_is_due_again() {
        let mut repo = repo();
        let missing =
            CallFailure { class: ErrorClass::Unavailable, message: "connection reset".to_owned(), retry_after: None };
        apply_sweep(&mut repo, &Reading::Partial { seen: vec![run(1)], missing }, Breadth::Rare, at(0));
        assert!(repo.runs.contains_key(&RunId(1)));
        assert_eq!((repo.swept_rare.known_at, repo.swept_rare.failures, repo.swept.failures), (None, 1, 0));
        apply_sweep(&mut repo, &Reading::Known(vec![run(2)]), Breadth::Rare, at(9));
        assert!(repo.runs.contains_key(&RunId(1)) && repo.runs.contains_key(&RunId(2)), "a sweep only adds");
        assert_eq!((repo.swept_rare.known_at, repo.swept_rare.failures, repo.swept.known_at), (Some(at(9)), 0, None));
    }

    #[test]
    fn jobs_that_were_refused_are_asked_for_again_once_the_run_list_is_answered() {
        let failed = |class| CallFailure { class, message: "no".to_owned(), retry_after: None };
        let failures = |list: ErrorClass| {
            let mut repo = repo();
            listed(&mut repo, run(1), at(0));
            for _ in 0..5 {
                repo.runs.get_mut(&RunId(1)).unwrap().jobs_read.failed(at(0), failed(ErrorClass::Policy));
            }
            repo.runs_read.failed(at(0), failed(list));
            let list = RunList { runs: vec![run(1)], reaches_end: true, is_unchanged: false };
            apply_runs(&mut repo, Reading::Known(list), Depth::Active, at(9), at(9));
            repo.runs[&RunId(1)].jobs_read.failures
        };
        assert_eq!(failures(ErrorClass::Policy), 1);
        assert_eq!(failures(ErrorClass::Unavailable), 5, "a lasting refusal of one list is not asked every interval");
    }

    #[test]
    fn all_lists_are_read_after_a_run_was_not_found_twice() {
        let mut repo = repo();
        listed(&mut repo, run(1), at(0));
        repo.deep_read_at = Some(at(0));
        apply_jobs(&mut repo, RunId(1), Reading::Known(None), read(1));
        assert!(repo.runs.contains_key(&RunId(1)) && repo.deep_read_at.is_some());
        apply_jobs(&mut repo, RunId(1), Reading::Known(None), read(61));
        assert!(!repo.runs.contains_key(&RunId(1)) && repo.deep_read_at.is_none());
    }

    #[test]
    fn a_run_loses_its_jobs_only_by_two_answers_a_minute_apart() {
        let mut repo = repo();
        listed(&mut repo, run(1), at(0));
        let job = WorkflowJob {
            id: JobId(7),
            run_id: RunId(1),
            run_attempt: 1,
            status: JobStatus::Queued,
            labels: Labels::new(["modal"]),
            runner_name: None,
            runner_id: None,
            created_at: None,
            started_at: None,
            completed_at: None,
            name: String::new(),
        };
        apply_jobs(&mut repo, RunId(1), Reading::Known(Some(vec![job])), read(1));
        let mut shows = |seconds: i64| {
            apply_jobs(&mut repo, RunId(1), Reading::Known(Some(Vec::new())), read(seconds));
            let run = &repo.runs[&RunId(1)];
            (run.jobs.len(), run.jobs_read.failures, run.changed_at == at(seconds))
        };
        assert_eq!(shows(100), (1, 1, false));
        assert_eq!(shows(159), (1, 2, false));
        assert_eq!(shows(160), (0, 0, true));
    }

    #[test]
    fn a_sandbox_whose_name_another_one_has_is_kept_as_long_as_any_that_ended() {
        for (exit_code, ended_at) in [(Some(0), at(0)), (None, at(50))] {
            let name: OurName = "sr-main-gh-7-1".parse().unwrap();
            let mut observed = Observed::default();
            observed.fleet.sandboxes.insert(name.clone(), sandbox(exit_code));
            let mut replace = |id: &str, created: i64| {
                replace_earlier(&mut observed.fleet, &name, (&SandboxId::new(id), at(created)), at(50));
                observed.fleet.sandboxes.len()
            };
            assert_eq!([replace("sb-1", 0), replace("sb-2", -1), replace("sb-2", 40)], [1, 1, 0]);
            let kept = observed.fleet.replaced[&name].ended.clone().unwrap();
            assert_eq!((kept.at, kept.result.is_some()), (ended_at, exit_code.is_some()));
            for (after, left) in [(ENDED_STAYS - TimeDelta::seconds(1), 1), (ENDED_STAYS, 0)] {
                forget_past(&mut observed, ended_at + after);
                assert_eq!(observed.fleet.replaced.len(), left);
            }
        }
    }
}
