//! Tells in plain words what a job waits for, since when, what was tried, and what happens next (pure).
//!
//! It decides nothing: it tells what the last plan says, with what was observed around it.

mod asked;
mod why;

use std::collections::VecDeque;
use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use asked::Asked;

use crate::evidence::Evidence;
use crate::ids::{ClassName, JobId, OurName, RepoName, RunId};
use crate::plan::{Action, Plan, Policy, state_of};
use crate::state::{JobStatus, Observed, RepoView, RunStatus, RunView, Scope, WorkflowJob};

use self::why::Why;

/// The most jobs that are told of one by one.
const JOBS_MAX: usize = 50;
/// How many failures of a class, or of a job's runners, are told.
const FAILURES_MAX: usize = 3;

/// What an explanation is made from.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What was observed.
    pub observed: &'a Observed,
    /// What was learned.
    pub evidence: &'a Evidence,
    /// The last plan.
    pub plan: &'a Plan,
    /// The rules.
    pub policy: &'a Policy,
    /// The last sandboxes that ended without serving, newest last.
    pub ends: &'a VecDeque<RecentEnd>,
    /// The time.
    pub now: DateTime<Utc>,
}

/// A sandbox that ended without serving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentEnd {
    /// When that was known.
    pub at: DateTime<Utc>,
    /// Its name.
    pub runner: OurName,
    /// Its class.
    pub class: ClassName,
    /// Why, as a word.
    pub reason: String,
    /// What Modal says.
    pub message: String,
    /// The last lines that it printed, where they were kept and may be told.
    #[serde(default)]
    pub printed: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub asked: String,
    /// When it was answered.
    pub now: DateTime<Utc>,
    /// The jobs, in the order of their ids.
    pub jobs: Vec<JobExplanation>,
    /// What is to be said beside: why nothing is known, or how much is not.
    pub notes: Vec<String>,
}

/// What is to be said of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExplanation {
    /// Its repository.
    pub repo: RepoName,
    /// Its run.
    pub run_id: RunId,
    /// Its id.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// What `runs-on` asks for.
    pub labels: String,
    /// Its class.
    pub class: Option<ClassName>,
    /// How it fares, as a word: the reason of a skip, or what became of it.
    pub state: String,
    /// What it waits for, or what became of it.
    pub what: String,
    /// More of that, a sentence each.
    pub details: Vec<String>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// What was tried for it, a sentence each.
    pub tried: Vec<String>,
    /// The failures that keep it waiting, newest last.
    pub failures: Vec<RecentEnd>,
    /// What happens next.
    pub next: String,
    /// When it is looked at again.
    pub again_at: Option<DateTime<Utc>>,
    /// What a person can do.
    pub remedy: Option<String>,
}

/// Explains a job, or the jobs of a run.
pub fn explain(asked: &Asked, known: &Known<'_>) -> Explanation {
    let found = found(asked, known);
    let mut notes = Vec::new();
    if found.is_empty() {
        notes.push(absence(asked, known));
    }
    if found.len() > JOBS_MAX {
        notes.push(format!("these are the first {JOBS_MAX} of its {} jobs", found.len()));
    }
    let repos: std::collections::BTreeSet<&Scope> = found.iter().map(|found| found.scope).collect();
    notes.extend(repos.into_iter().filter_map(|scope| sight(scope, known.observed.repos.get(scope)?)));
    let modal = &known.observed.fleet.read;
    if let (false, Some(failure)) = (found.is_empty(), &modal.failure) {
        notes.push(format!("Modal's list was not read, the last time: {failure}"));
    }
    let jobs = found.iter().take(JOBS_MAX).map(|found| told(found, known)).collect();
    Explanation { asked: asked.to_string(), now: known.now, jobs, notes }
}

/// A job that was read.
struct Found<'a> {
    scope: &'a Scope,
    run: &'a RunView,
    job: &'a WorkflowJob,
}

fn found<'a>(asked: &Asked, known: &Known<'a>) -> Vec<Found<'a>> {
    let is_there = |scope: &Scope| match asked {
        Asked::Id(_) => true,
        Asked::Job { repo, .. } | Asked::Run { repo, .. } => scope.repo == *repo,
    };
    let repos = known.observed.repos.iter().filter(|(scope, _)| is_there(scope));
    let jobs = repos.flat_map(|(scope, repo)| {
        repo.runs.values().flat_map(move |run| run.jobs.values().map(move |job| Found { scope, run, job }))
    });
    let jobs: Vec<Found<'a>> = jobs.collect();
    let is_job = |id: u64| jobs.iter().any(|found| found.job.id.0 == id);
    let is_meant = |found: &Found<'_>| match asked {
        Asked::Id(id) if is_job(*id) => found.job.id.0 == *id,
        Asked::Id(run) | Asked::Run { run, .. } => found.job.run_id.0 == *run,
        Asked::Job { job, .. } => found.job.id.0 == *job,
    };
    let meant: Vec<bool> = jobs.iter().map(is_meant).collect();
    let mut found: Vec<Found<'a>> = jobs.into_iter().zip(meant).filter_map(|(found, is)| is.then_some(found)).collect();
    found.sort_by_key(|found| found.job.id);
    found
}

/// Why nothing is known of what is asked about.
fn absence(asked: &Asked, known: &Known<'_>) -> String {
    let (repo, run) = match asked {
        Asked::Id(id) => {
            return format!(
                "no job and no run with the id {id} was read: either its repository is not among those that are served, or it \
                 is over, or GitHub's lists do not show it yet. Its address instead of the id tells more"
            );
        }
        Asked::Job { repo, .. } => (repo, None),
        Asked::Run { repo, run } => (repo, Some(RunId(*run))),
    };
    let mut views = known.observed.repos.iter().filter(|(scope, _)| scope.repo == *repo);
    let Some((scope, view)) = views.next() else {
        return format!(
            "{repo} is not among the repositories that are served, so none of its jobs is read: add it to `allowed_repos` of an \
             account that can read it"
        );
    };
    if let Some(sight) = sight(scope, view) {
        return sight;
    }
    match run.and_then(|run| view.runs.get(&run)) {
        Some(run) => run.jobs_read.failure.as_ref().map_or_else(
            || "its jobs were not read yet; that is due".to_owned(),
            |failure| format!("its jobs could not be read: {failure}"),
        ),
        None => format!(
            "it is not among what was read of {repo}, last {}: it is over since long, or GitHub's list does not show it yet",
            view.runs_read.known_at.map_or_else(|| "never".to_owned(), |at| at_text(at, known.now))
        ),
    }
}

/// Why a repository is not seen as it is.
fn sight(scope: &Scope, view: &RepoView) -> Option<String> {
    let repo = &scope.repo;
    if let Some(pause) = view.pause(repo) {
        return Some(format!("{repo} is looked at seldom: {pause}"));
    }
    match (&view.runs_read.known_at, &view.runs_read.failure) {
        (_, None) if view.runs_read.known_at.is_some() => None,
        (Some(_), Some(failure)) => {
            Some(format!("the last reading of {repo} failed, so this may have changed: {failure}"))
        }
        (None, Some(failure)) => Some(format!("{repo} could not be read: {failure}")),
        (_, None) => Some(format!("{repo} was not read yet; that is due")),
    }
}

fn told(found: &Found<'_>, known: &Known<'_>) -> JobExplanation {
    let Found { scope, job, .. } = found;
    let history = known.evidence.jobs.get(&job.id);
    let (state, why, class, again_at) = standing(found, known);
    let since = match job.status {
        JobStatus::InProgress => job.started_at,
        JobStatus::Completed => job.completed_at,
        JobStatus::Queued | JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested | JobStatus::Other(_) => {
            history.map(|history| history.first_queued).or(job.created_at)
        }
    };
    JobExplanation {
        repo: scope.repo.clone(),
        run_id: job.run_id,
        job_id: job.id,
        name: job.name.clone(),
        labels: job.labels.to_string(),
        class,
        state,
        what: why.what,
        details: why.details,
        since,
        tried: tried(job.id, known),
        failures: why.failures,
        next: why.next,
        again_at,
        remedy: why.remedy,
    }
}

/// How a job fares.
fn standing(found: &Found<'_>, known: &Known<'_>) -> (String, Why, Option<ClassName>, Option<DateTime<Utc>>) {
    let Found { scope, run, job } = found;
    let plain = |state: &str, why: Why| (state.to_owned(), why, None, None);
    let nothing = "nothing is to be done";
    match &job.status {
        JobStatus::Completed => plain("completed", Why::new("it is over", nothing)),
        JobStatus::InProgress => plain("in_progress", in_progress(job, known)),
        JobStatus::Queued if run.run.status == RunStatus::Completed => {
            plain("completed", Why::new("its run is over, though GitHub's list of its jobs still says queued", nothing))
        }
        JobStatus::Queued => queued(scope, job, known),
        JobStatus::Waiting | JobStatus::Pending | JobStatus::Requested => plain(
            "not_queued",
            Why::new(
                "GitHub has not queued it: it waits for an approval, an environment, another job or a concurrency group",
                "it gets a runner once GitHub queues it",
            )
            .with_remedy("look at its run on GitHub"),
        ),
        JobStatus::Other(status) => plain("not_queued", Why::new(&format!("GitHub says that it is `{status}`"), "it waits to be queued")),
    }
}

fn queued(
    scope: &Scope,
    job: &WorkflowJob,
    known: &Known<'_>,
) -> (String, Why, Option<ClassName>, Option<DateTime<Utc>>) {
    if let Some(skip) = known.plan.skips.iter().find(|skip| skip.job == job.id && skip.scope == *scope) {
        let why = why::of(skip, job, known);
        return (skip.reason.as_str().to_owned(), why, skip.class.clone(), Some(skip.again_at));
    }
    let create = known.plan.actions.iter().find_map(|action| match action {
        Action::Create(create) if create.name.job == job.id && create.origin.scope == *scope => Some(create),
        Action::Create(_)
        | Action::PrepareImage { .. }
        | Action::Deregister { .. }
        | Action::Terminate { .. }
        | Action::DeleteSecret { .. } => None,
    });
    match create {
        Some(create) => {
            let what = format!("a runner is registered and a sandbox created for it: {}", create.name);
            let why =
                Why::new(&what, "GitHub gives it to that runner, or to another one with its labels, once it is online");
            ("creating".to_owned(), why, Some(create.origin.class.clone()), None)
        }
        None => ("unplanned".to_owned(), Why::new("it was read a moment ago", "the next pass decides"), None, None),
    }
}

fn in_progress(job: &WorkflowJob, known: &Known<'_>) -> Why {
    let name = job.runner_name.as_deref().unwrap_or("a runner that GitHub does not name");
    let ours = name.parse::<OurName>().ok().and_then(|name| known.observed.fleet.sandboxes.get_key_value(&name));
    match ours {
        Some((name, sandbox)) => {
            let class = &sandbox.origin.class;
            let mut why = Why::new(
                &format!("it is served by sandbox {} (runner {name}, class {class})", sandbox.id),
                "it runs to its end",
            );
            if name.job != job.id {
                why.details.push(format!(
                    "that sandbox was made for job {}; GitHub gives a job to any free runner with its labels",
                    name.job
                ));
            }
            why
        }
        None => Why::new(&format!("it runs on {name}, which is none of our sandboxes that live"), "it runs to its end"),
    }
}

/// What was made for a job so far.
fn tried(job: JobId, known: &Known<'_>) -> Vec<String> {
    let mut tried = Vec::new();
    let made = known.observed.fleet.sandboxes.iter().filter(|(name, _)| name.job == job);
    for (name, sandbox) in made {
        let clocks = known.policy.class(&sandbox.origin.class).map(|class| &class.clocks);
        let evidence = known.evidence.names.get(name);
        let created = at_text(sandbox.created(known.observed.skew), known.now);
        match &sandbox.ended {
            None => {
                let state = state_of(sandbox, evidence, clocks, known.observed.skew, known.now).as_str();
                tried.push(format!("{name} ({}) is {state}, created {created}", sandbox.id));
            }
            Some(ended) => {
                let reason = crate::evidence::end_reason(ended.result.as_ref());
                tried.push(format!("{name} ({}) ended {}: {reason}", sandbox.id, at_text(ended.at, known.now)));
            }
        }
    }
    let is_in_view = |name: &OurName| known.observed.fleet.sandboxes.contains_key(name);
    for end in known.ends.iter().filter(|end| end.runner.job == job && !is_in_view(&end.runner)) {
        tried.push(format!("{} ended {}: {}", end.runner, at_text(end.at, known.now), end.reason));
    }
    if let Some(history) = known.evidence.jobs.get(&job) {
        let counts = [
            (history.fruitless, "ended without serving"),
            (history.machines_lost, "were lost with Modal's machines"),
            (history.waiting.unclaimed, "waited for it in vain"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        tried.extend(counts.map(|(count, what)| format!("{count} of the runners that were made for it {what}")));
    }
    tried
}

/// A time, and how far it is away.
fn at_text(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let text = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let away = if at > now { format!("in {}", span(at - now)) } else { format!("{} ago", span(now - at)) };
    format!("{text} ({away})")
}

/// A time span in two units at most.
pub fn span(span: TimeDelta) -> String {
    let secs = span.num_seconds().max(0);
    match (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, job) in self.jobs.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            job.write(f, self.now)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

impl JobExplanation {
    fn write(&self, f: &mut fmt::Formatter<'_>, now: DateTime<Utc>) -> fmt::Result {
        let Self { repo, run_id, job_id, name, labels, .. } = self;
        let class = self.class.as_ref().map_or_else(String::new, |class| format!(", class {class}"));
        writeln!(f, "job {job_id} ({name}) of {repo}, run {run_id}: {labels}{class}")?;
        writeln!(f, "  {}: {}", self.state, self.what)?;
        for detail in &self.details {
            writeln!(f, "    {detail}")?;
        }
        if let Some(since) = self.since {
            writeln!(f, "  since: {}", at_text(since, now))?;
        }
        for tried in &self.tried {
            writeln!(f, "  tried: {tried}")?;
        }
        for RecentEnd { at, runner, reason, message, printed, .. } in &self.failures {
            let message = if message.is_empty() { String::new() } else { format!(", {message}") };
            writeln!(f, "  failed: {runner}, {}: {reason}{message}", at_text(*at, now))?;
            for line in printed {
                writeln!(f, "    | {line}")?;
            }
        }
        let again = self.again_at.map_or_else(String::new, |at| format!(", looked at again {}", at_text(at, now)));
        writeln!(f, "  next: {}{again}", self.next)?;
        match &self.remedy {
            Some(remedy) => writeln!(f, "  what you can do: {remedy}"),
            None => Ok(()),
        }
    }
}

/// The failures of a class that matter while its runners do not start.
fn failures_of(class: Option<&ClassName>, known: &Known<'_>) -> Vec<RecentEnd> {
    let of_class = known.ends.iter().rev().filter(|end| class == Some(&end.class) && end.is_failure());
    let mut failures: Vec<RecentEnd> = of_class.take(FAILURES_MAX).cloned().collect();
    failures.reverse();
    failures
}

impl RecentEnd {
    /// Whether something went wrong: that no job came, or that it was asked to end, is usual.
    fn is_failure(&self) -> bool {
        use crate::runner::Exit;
        ![Exit::Served, Exit::Unclaimed, Exit::Stopped].iter().any(|exit| exit.as_str() == self.reason)
    }
}
