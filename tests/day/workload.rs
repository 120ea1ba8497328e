//! A day of workflow runs in 500 repositories, from a file that `tests/data/days/generate.py` wrote.

use std::collections::BTreeMap;
use std::path::Path;

use sandrunner::sim::{RepoAbout, Scenario, ScenarioJob, ScenarioRepo, ScenarioRun};
use serde_json::json;

/// How many repositories there are; most are idle for days.
pub(crate) const REPOS: usize = 500;
/// Ids start above 2^32, as GitHub's do today.
pub(crate) const FIRST_RUN: u64 = 17_000_000_000;
const FIRST_JOB: u64 = 48_000_000_000;
/// Those of the days before.
const FIRST_PAST_RUN: u64 = 16_000_000_000;
const FIRST_PAST_JOB: u64 = 47_000_000_000;
/// Runs can be run again for so long (GitHub: re-running workflows).
const REMEMBERED_DAYS: u32 = 30;
/// Two pages of a list: what is beyond them no list of the day shows.
const PAST_MAX: u32 = 200;

/// A run of the file.
#[derive(Debug, Clone, Copy)]
struct Line {
    repo: usize,
    arrival_secs: f64,
    seconds: f64,
    jobs: u64,
    second_stage: u64,
}

impl Line {
    fn parse(line: &str) -> Self {
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        let &[repo, tenths, seconds, jobs, second_stage] = numbers.as_slice() else { panic!("five numbers: {line}") };
        #[expect(clippy::cast_precision_loss, reason = "a day has 864,000 tenths of a second")]
        let (arrival_secs, seconds) = (tenths as f64 / 10.0, seconds as f64);
        Self { repo: usize::try_from(repo).expect("a small number"), arrival_secs, seconds, jobs, second_stage }
    }

    /// Jobs of a stage end one after the other; the last one when the stage does.
    #[expect(clippy::cast_precision_loss, reason = "a run has few jobs")]
    fn job(&self, run: u64, id: u64, index: u64) -> ScenarioJob {
        let first = self.jobs - self.second_stage;
        let (stage, place, size) =
            if index < first { (0, index, first) } else { (1, index - first, self.second_stage) };
        let stages = if self.second_stage > 0 { 2.0 } else { 1.0 };
        let part = 0.5 + 0.5 * (place + 1) as f64 / size as f64;
        let text = json!({ "id": id, "run": run, "repo": name(self.repo), "labels": ["self-hosted", "modal"],
            "arrival_secs": self.arrival_secs, "duration_secs": self.seconds / stages * part, "stage": stage });
        serde_json::from_value(text).expect("a job")
    }
}

/// Repositories stand in the lists by chance, not by how busy they are.
fn name(repo: usize) -> String {
    format!("acme/repo-{:03}", repo * 263 % REPOS)
}

/// Completed runs of the last 30 days, on each of which there were as many as on the day itself: as far as two pages of a
/// list show them.
fn past(repo: usize, daily: u32, first: u64) -> impl Iterator<Item = (ScenarioRun, ScenarioJob)> {
    let all = daily * REMEMBERED_DAYS;
    (0..all.min(PAST_MAX)).zip(first..).map(move |(index, number)| {
        let run = FIRST_PAST_RUN + number;
        let age_secs = f64::from(REMEMBERED_DAYS) * 86_400.0 * (f64::from(index) + 0.5) / f64::from(all);
        // Nothing of it ever moves.
        let about = json!({ "id": run, "age_secs": age_secs, "ghost": "completed_run" });
        let job = json!({ "id": FIRST_PAST_JOB + number, "run": run, "repo": name(repo), "labels": ["ubuntu-latest"],
            "duration_secs": 1 });
        (serde_json::from_value(about).expect("a run"), serde_json::from_value(job).expect("a job"))
    })
}

/// What happens on the day of a seed, up to an hour and in the first so many repositories; and when each run comes, in
/// seconds.
pub(crate) fn day(seed: u64, hours: f64, repos: usize) -> (Scenario, BTreeMap<u64, f64>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/days/{seed}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<Line> = text.lines().filter(|line| !line.starts_with('#')).map(Line::parse).collect();
    let (mut runs, mut jobs, mut arrivals) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut daily: BTreeMap<usize, u32> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.repo < repos) {
        *daily.entry(line.repo).or_default() += 1;
    }
    for (repo, daily) in daily {
        let first = jobs.len() as u64;
        for (run, job) in past(repo, daily, first) {
            runs.push(run);
            jobs.push(job);
        }
    }
    let is_played = |line: &Line| line.arrival_secs < hours * 3600.0 && line.repo < repos;
    for (line, run) in lines.into_iter().filter(is_played).zip(FIRST_RUN..) {
        arrivals.insert(run, line.arrival_secs);
        jobs.extend((0..line.jobs).map(|index| line.job(run, FIRST_JOB + run % FIRST_RUN * 100 + index, index)));
    }
    let repos =
        (0..repos).map(|repo| ScenarioRepo { name: name(repo), allowed: true, about: RepoAbout::default() }).collect();
    (Scenario { repos, runs, jobs, ..Scenario::default() }, arrivals)
}
