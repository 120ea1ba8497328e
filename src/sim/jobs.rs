//! Repositories, runs and jobs: what is, and what it was at any earlier moment.
//!
//! Each change keeps its time, so that a list that lags can show exactly the state of a moment ago.

mod course;
mod hold;
mod rerun;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::draws::seconds;
use super::engine::Due;
use super::runners::{Runner, RunnerKey};
use super::scenario::{
    Conclusion, RepoAbout, ScenarioGroup, ScenarioJob, ScenarioOrganization, ScenarioRun, Visibility,
};
use super::world::State;
use crate::ids::Labels;

pub(super) use hold::Held;
pub use hold::Hold;
pub use rerun::Rerun;

/// A moment on the World's clock.
pub(super) type Time = DateTime<Utc>;

/// The index of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RepoKey(pub(super) usize);

/// The branch of every run.
pub(super) const BRANCH: &str = "main";
/// The workflow of runs of which the scenario says none.
const WORKFLOW: &str = ".github/workflows/ci.yml";

/// A repository.
#[derive(Debug)]
pub(super) struct Repo {
    /// `owner/name` as written in the scenario.
    pub(super) full_name: String,
    /// The same in lower case, as it stands in the history.
    pub(super) name: Arc<str>,
    /// Its runs in the order of their creation.
    pub(super) runs: Vec<u64>,
    /// How often any of them has changed.
    pub(super) changes: u64,
    /// Its queued jobs, the oldest first.
    pub(super) queued: BTreeSet<(Time, u64)>,
    /// Its runners, also those that lists may still show.
    pub(super) runners: BTreeMap<u64, Runner>,
    /// The id of the next runner; ids are unique within the repository only.
    pub(super) next_runner: u64,
    /// The runner groups of an organization, which stands here for the runners that are registered in it.
    pub(super) groups: Vec<ScenarioGroup>,
    /// Its description as GitHub shows it inside of other objects.
    pub(super) body: serde_json::Value,
    /// The same of a stranger's fork of it.
    pub(super) fork: serde_json::Value,
    /// What GitHub says of the repository itself.
    pub(super) about: RepoAbout,
    /// Whether it is gone.
    pub(super) is_deleted: bool,
}

impl Repo {
    /// Its owner, or the organization that it stands for, as it is written.
    pub(super) fn owner(&self) -> &str {
        self.full_name.split('/').next().unwrap_or(&self.full_name)
    }

    /// Whether it stands for an organization.
    pub(super) fn is_organization(&self) -> bool {
        !self.full_name.contains('/')
    }
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    Waiting,
    Queued,
    InProgress,
    Completed(Conclusion),
}

/// What runs a job.
#[derive(Debug, Clone)]
pub(super) struct Taker {
    pub(super) runner_id: u64,
    pub(super) runner_name: String,
    /// None for a runner of GitHub's own.
    pub(super) key: Option<RunnerKey>,
}

/// A job with its history.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: ScenarioJob,
    pub(super) labels: Labels,
    pub(super) repo: RepoKey,
    /// The moment from which its arrival counts.
    base: Time,
    states: Vec<(Time, JobState)>,
    pub(super) taker: Option<Taker>,
    /// A second runner that GitHub gave it to by mistake.
    pub(super) second_taker: Option<RunnerKey>,
    /// How long after it was taken its first step begins.
    pub(super) hook_late: TimeDelta,
    /// What keeps it from every runner while it is listed as queued.
    pub(super) hold: Option<Held>,
    /// Whether its sandbox died under it; it shows as running until GitHub notices.
    pub(super) is_lost: bool,
}

/// A job as it was at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobView<'a> {
    pub(super) job: &'a Job,
    pub(super) state: JobState,
    pub(super) created_at: Time,
    pub(super) started_at: Option<Time>,
    pub(super) completed_at: Option<Time>,
}

impl Job {
    /// One that is to come; `base` is the moment from which its arrival counts.
    fn new(spec: ScenarioJob, repo: RepoKey, base: Time) -> Self {
        Self {
            labels: Labels::new(&spec.labels),
            spec,
            repo,
            base,
            states: Vec::new(),
            taker: None,
            second_taker: None,
            hook_late: TimeDelta::zero(),
            hold: None,
            is_lost: false,
        }
    }

    /// Its state; none before it appears.
    pub(super) fn state(&self) -> Option<JobState> {
        self.states.last().map(|(_, state)| *state)
    }

    /// What it was at `when`; none before it appeared.
    pub(super) fn at(&self, when: Time) -> Option<JobView<'_>> {
        let known = self.states.partition_point(|(at, _)| *at <= when);
        let past = &self.states[..known];
        let (_, state) = *past.last()?;
        let since = |wanted: fn(JobState) -> bool| past.iter().find(|(_, state)| wanted(*state)).map(|(at, _)| *at);
        Some(JobView {
            job: self,
            state,
            created_at: past[0].0,
            started_at: since(|state| state == JobState::InProgress),
            completed_at: since(|state| matches!(state, JobState::Completed(_))),
        })
    }

    /// Whether a runner is one of those that have it.
    pub(super) fn is_run_by(&self, key: RunnerKey) -> bool {
        self.taker.as_ref().and_then(|taker| taker.key) == Some(key) || self.second_taker == Some(key)
    }

    fn is_completed(&self) -> bool {
        matches!(self.state(), Some(JobState::Completed(_)))
    }

    fn arrives_at(&self) -> Time {
        self.base + seconds(self.spec.arrival_secs)
    }

    fn is_hosted(&self) -> bool {
        self.labels.iter().any(|label| ["ubuntu-", "windows-", "macos-"].iter().any(|os| label.starts_with(os)))
    }
}

/// The status of a run: that of its least advanced job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunStatus {
    Queued,
    Waiting,
    InProgress,
    Completed(Conclusion),
}

/// A change of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunChange {
    pub(super) at: Time,
    pub(super) attempt: u32,
    pub(super) attempt_started_at: Time,
    pub(super) status: RunStatus,
}

/// A run with its history.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: u64,
    pub(super) number: usize,
    pub(super) repo: RepoKey,
    pub(super) jobs: Vec<u64>,
    /// Those that are not listed yet, because others have to end before.
    unlisted: Vec<u64>,
    /// What the scenario says about it.
    pub(super) spec: Option<ScenarioRun>,
    changes: Vec<RunChange>,
}

impl Run {
    /// When it was created; only a run that has appeared is in a repository's list.
    pub(super) fn created_at(&self) -> Option<Time> {
        self.changes.first().map(|change| change.at)
    }

    /// Its last change up to `when`.
    pub(super) fn at(&self, when: Time) -> Option<&RunChange> {
        let known = self.changes.partition_point(|change| change.at <= when);
        self.changes[..known].last()
    }

    /// Its workflow as GitHub shows it.
    pub(super) fn workflow(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.workflow.as_deref()).unwrap_or(WORKFLOW)
    }

    /// How long before its appearance it was created.
    fn age(&self) -> TimeDelta {
        seconds(self.spec.as_ref().map_or(0.0, |spec| spec.age_secs))
    }
}

impl State {
    pub(super) fn repo_key(&mut self, full_name: &str) -> RepoKey {
        let name = full_name.to_lowercase();
        if let Some(key) = self.repo_by_name.get(name.as_str()) {
            return *key;
        }
        let key = RepoKey(self.repos.len());
        let name: Arc<str> = name.into();
        self.repos.push(Repo {
            full_name: full_name.to_owned(),
            name: Arc::clone(&name),
            runs: Vec::new(),
            changes: 0,
            queued: BTreeSet::new(),
            runners: BTreeMap::new(),
            next_runner: 1,
            groups: Vec::new(),
            body: super::github::repository_body(full_name, FIRST_REPO_ID + key.0 as u64, &RepoAbout::default()),
            fork: super::github::repository_body(
                &fork_name(full_name),
                FIRST_FORK_ID + key.0 as u64,
                &RepoAbout::default(),
            ),
            about: RepoAbout::default(),
            is_deleted: false,
        });
        self.repo_by_name.insert(name, key);
        key
    }

    /// Adds an organization, as a place where runners are registered.
    pub(super) fn add_organization(&mut self, organization: &ScenarioOrganization) {
        let key = self.repo_key(&organization.name);
        self.repo_mut(key).groups.clone_from(&organization.groups);
    }

    /// Where runners can be registered that take jobs of a repository: in it, and in its organization.
    pub(super) fn registries_of(&self, repo: RepoKey) -> impl Iterator<Item = RepoKey> {
        let owner = self.repo(repo).name.split_once('/').map(|(owner, _)| owner);
        let organization = owner.and_then(|owner| self.repo_by_name.get(owner)).copied();
        [repo].into_iter().chain(organization)
    }

    /// Whether a runner takes jobs of a repository.
    pub(super) fn is_in_reach(&self, key: RunnerKey, repo: RepoKey) -> bool {
        if key.repo == repo {
            return true;
        }
        let (place, repo) = (self.repo(key.repo), self.repo(repo));
        let is_own = repo.name.split_once('/').is_some_and(|(owner, _)| *owner == *place.name);
        is_own
            && self.group_of(key).is_some_and(|group| {
                group.names(&repo.name) && (group.public_repos || repo.about.visibility != Visibility::Public)
            })
    }

    /// The runner group of a runner of an organization.
    fn group_of(&self, key: RunnerKey) -> Option<&ScenarioGroup> {
        let group = self.runner(key)?.group;
        self.repo(key.repo).groups.iter().find(|known| known.id == group)
    }

    /// Whether the group of a runner is not kept to other workflows than that of a job.
    pub(super) fn runs_workflow_of(&self, key: RunnerKey, job: u64) -> bool {
        let Job { spec, repo, .. } = &self.jobs[&job];
        let shown = self.runs[&spec.run].workflow();
        let path = shown.split_once('@').map_or(shown, |(path, _)| path);
        self.group_of(key).is_none_or(|group| group.runs(&self.repo(*repo).name, path, BRANCH))
    }

    /// The queued jobs that a runner could be given, the oldest first.
    pub(super) fn queued_for(&self, key: RunnerKey) -> Vec<u64> {
        let place = self.repo(key.repo);
        if place.groups.is_empty() {
            return place.queued.iter().map(|(_, job)| *job).collect();
        }
        let keys = (0..self.repos.len()).map(RepoKey).filter(|repo| self.is_in_reach(key, *repo));
        let mut queued: Vec<(Time, u64)> = keys.flat_map(|repo| self.repo(repo).queued.iter().copied()).collect();
        queued.sort_unstable();
        queued.into_iter().map(|(_, job)| job).filter(|job| self.runs_workflow_of(key, *job)).collect()
    }

    pub(super) fn repo(&self, key: RepoKey) -> &Repo {
        &self.repos[key.0]
    }

    pub(super) fn repo_mut(&mut self, key: RepoKey) -> &mut Repo {
        &mut self.repos[key.0]
    }

    /// Adds jobs whose arrivals count from `base`.
    pub(super) fn add_jobs(&mut self, specs: &[ScenarioJob], base: Time) {
        for spec in specs {
            let repo = self.repo_key(&spec.repo);
            self.run_entry(spec.run, repo).jobs.push(spec.id);
            self.jobs.insert(spec.id, Job::new(spec.clone(), repo, base));
        }
        for spec in specs {
            let first = self.attempt_jobs(spec.run, spec.attempt).map(|job| job.spec.stage).min();
            if first == Some(spec.stage) {
                self.schedule(self.jobs[&spec.id].arrives_at(), Due::JobAppears(spec.id));
            }
        }
    }

    fn attempt_jobs(&self, run: u64, attempt: u32) -> impl Iterator<Item = &Job> {
        let jobs = self.runs.get(&run).map_or(&[][..], |run| &run.jobs);
        jobs.iter().map(|id| &self.jobs[id]).filter(move |job| job.spec.attempt == attempt)
    }

    pub(in crate::sim) fn job_mut(&mut self, id: u64) -> &mut Job {
        self.jobs.get_mut(&id).expect("jobs are never removed")
    }

    fn change_job(&mut self, id: u64, state: JobState) {
        let is_early = matches!(state, JobState::Waiting | JobState::Queued);
        let age = if is_early { self.runs[&self.jobs[&id].spec.run].age() } else { TimeDelta::zero() };
        let at = self.now - age;
        self.job_mut(id).states.push((at, state));
        self.refresh_run(self.jobs[&id].spec.run, self.jobs[&id].spec.attempt);
    }
}

/// Ids of repositories start here, those of their forks behind; they mean nothing.
pub(super) const FIRST_REPO_ID: u64 = 600_000_000;
const FIRST_FORK_ID: u64 = 610_000_000;

/// What a stranger's fork of a repository is called.
fn fork_name(full_name: &str) -> String {
    let (_, name) = full_name.split_once('/').unwrap_or(("", full_name));
    format!("stranger/{name}")
}
