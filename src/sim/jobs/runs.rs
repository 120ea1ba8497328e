//! Runs: their place in lists, what the scenario says of them, and their status, which follows from their jobs.

use std::collections::BTreeMap;

use super::{JobState, RepoKey, Run, RunChange, RunStatus, Time};
use crate::sim::scenario::{Conclusion, Ghost, Scenario};
use crate::sim::world::State;

impl State {
    /// A run, which is new where it is not known.
    pub(super) fn run_entry(&mut self, id: u64, repo: RepoKey) -> &mut Run {
        let number = self.runs.len() + 1;
        let new = || Run { id, number, repo, jobs: Vec::new(), unlisted: Vec::new(), spec: None, changes: Vec::new() };
        self.runs.entry(id).or_insert_with(new)
    }

    /// Adds what a scenario says about runs, before their jobs are added. A run that names its repository has none.
    pub(in crate::sim) fn add_runs(&mut self, scenario: &Scenario) {
        let repos: BTreeMap<u64, &str> = scenario.jobs.iter().map(|job| (job.run, job.repo.as_str())).collect();
        for spec in &scenario.runs {
            let Some(name) = spec.repo.as_deref().or_else(|| repos.get(&spec.id).copied()) else { continue };
            let repo = self.repo_key(name);
            let now = self.now;
            let run = self.run_entry(spec.id, repo);
            run.spec = Some(spec.clone());
            let at = now - run.age();
            if spec.repo.is_some() {
                run.changes.push(RunChange { at, attempt: 1, attempt_started_at: at, status: RunStatus::Queued });
                self.list_run(spec.id, at);
            }
        }
    }

    /// Derives the status of a run from its jobs.
    pub(super) fn refresh_run(&mut self, run: u64, attempt: u32) {
        let status = self.derived_status(run, attempt);
        let is_first = self.runs[&run].changes.is_empty();
        let now = if is_first { self.now - self.runs[&run].age() } else { self.now };
        let entry = self.runs.get_mut(&run).expect("a job's run is added with it");
        let last = entry.changes.last().copied();
        if last.is_some_and(|last| attempt < last.attempt || (attempt == last.attempt && status == last.status)) {
            return;
        }
        let attempt_started_at =
            last.filter(|last| last.attempt == attempt).map_or(now, |last| last.attempt_started_at);
        entry.changes.push(RunChange { at: now, attempt, attempt_started_at, status });
        let repo = entry.repo;
        self.repo_mut(repo).changes += 1;
        if last.is_none() {
            self.list_run(run, now);
        }
    }

    /// Puts a run in the list of its repository, by the time of its creation.
    fn list_run(&mut self, run: u64, created_at: Time) {
        let repo = self.runs[&run].repo;
        let listed = &self.repo(repo).runs;
        let is_older = |id: &u64| self.runs[id].created_at().is_some_and(|at| at <= created_at);
        let place = listed.partition_point(is_older);
        self.repo_mut(repo).runs.insert(place, run);
        self.repo_mut(repo).changes += 1;
    }

    fn derived_status(&self, run: u64, attempt: u32) -> RunStatus {
        let mut status = None;
        let mut conclusion = Conclusion::Success;
        for job in self.attempt_jobs(run, attempt) {
            if job.is_in_completed_run() {
                conclusion = Conclusion::Failure;
                continue;
            }
            let (rank, seen) = match job.state() {
                Some(JobState::Queued) => (0, RunStatus::Queued),
                Some(JobState::Waiting) => (1, RunStatus::Waiting),
                Some(JobState::InProgress) | None => (2, RunStatus::InProgress),
                Some(JobState::Completed(ended)) => {
                    if conclusion == Conclusion::Success {
                        conclusion = ended;
                    }
                    continue;
                }
            };
            if status.is_none_or(|(least, _)| rank < least) {
                status = Some((rank, seen));
            }
        }
        let ghost = self.runs[&run].spec.as_ref().and_then(|spec| spec.ghost);
        let at_end =
            if ghost == Some(Ghost::UnfinishedRun) { RunStatus::InProgress } else { RunStatus::Completed(conclusion) };
        status.map_or(at_end, |(_, seen)| seen)
    }
}
