//! The demo's workload: several repositories, a few of them busy, and jobs of every kind.

use super::draws::{Draw, Purpose, Seed};
use super::profile::Lognormal;
use super::scenario::{Conclusion, ForeignRunner, ForeignSandbox, RepoAbout, Scenario, ScenarioJob, ScenarioRepo};

/// Ids start above 2^32, as GitHub's do today.
const FIRST_RUN: u64 = 17_000_000_000;
const FIRST_JOB: u64 = 48_000_000_000;
/// How long jobs run; none longer than [`LONGEST_SECS`].
const DURATION: Lognormal = Lognormal { median_secs: 90.0, p95_secs: 360.0 };
const LONGEST_SECS: f64 = 1_200.0;
const SHORTEST_SECS: f64 = 5.0;
/// 1,000 jobs arrive within an hour, 30 within three minutes.
const HOUR_JOBS: f64 = 1_000.0;
const ARRIVAL_EXPONENT: f64 = 0.854;
/// How much busier the busiest repositories are: the logarithms of the rates have this deviation.
const ACTIVITY_DEVIATION: f64 = 1.5;
/// How often a run follows close on the one before.
const CLUSTER_SHARE: f64 = 0.3;
const CLUSTER_SECS: f64 = 20.0;
/// How often a run of several jobs has a second stage.
const SECOND_STAGE_SHARE: f64 = 0.25;
/// How often a run has 1, 2, … 6 jobs, in percent.
const RUN_SIZES: [usize; 6] = [40, 20, 15, 10, 8, 7];
/// One job in so many, in addition, asks for GitHub's own runners, and one for a repository that is not allowed.
const HOSTED_PER: usize = 20;
const NOT_ALLOWED_PER: usize = 25;
/// From so many repositories on, a foreign runner takes plain jobs in the quietest one.
const REPOS_WITH_RIVAL: usize = 10;

/// What the jobs of a run ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Gpu,
    PerRun,
    Hosted,
}

impl Kind {
    /// 70 % plain, 10 % GPU, 20 % with a label of their own. A whole run is of one kind, as a workflow is.
    fn draw(draw: &mut Draw) -> Self {
        match draw.index(10) {
            0 => Self::Gpu,
            1 | 2 => Self::PerRun,
            _ => Self::Plain,
        }
    }

    fn labels(self, run: u64, index: usize) -> Vec<String> {
        let own = match self {
            Self::Hosted => return vec!["ubuntu-latest".to_owned()],
            Self::Plain => None,
            Self::Gpu => Some("gpu:a100".to_owned()),
            Self::PerRun => Some(format!("job-{run}-{index}")),
        };
        ["self-hosted", "modal"].into_iter().map(str::to_owned).chain(own).collect()
    }
}

/// A run before its jobs have ids.
struct RunPlan {
    repo: String,
    arrival_secs: f64,
    size: usize,
    kind: Kind,
}

struct Generator {
    draw: Draw,
    jobs: Vec<ScenarioJob>,
    runs: u64,
    span_secs: f64,
}

impl Generator {
    fn arrival(&mut self) -> f64 {
        self.draw.share() * self.span_secs
    }

    fn size(&mut self) -> usize {
        let mut left = self.draw.index(100);
        for (index, share) in RUN_SIZES.iter().enumerate() {
            if left < *share {
                return index + 1;
            }
            left -= share;
        }
        RUN_SIZES.len()
    }

    fn add_run(&mut self, plan: &RunPlan) {
        let run = FIRST_RUN + self.runs;
        self.runs += 1;
        let has_second_stage = plan.size > 1 && self.draw.chance(SECOND_STAGE_SHARE);
        let first_stage = if has_second_stage { 1 + self.draw.index(plan.size - 1) } else { plan.size };
        for index in 0..plan.size {
            let duration = self.draw.lognormal_secs(DURATION).clamp(SHORTEST_SECS, LONGEST_SECS);
            self.jobs.push(ScenarioJob {
                id: FIRST_JOB + self.jobs.len() as u64,
                run,
                attempt: 1,
                repo: plan.repo.clone(),
                name: format!("job {}", index + 1),
                labels: plan.kind.labels(run, index),
                arrival_secs: millis(plan.arrival_secs),
                duration_secs: millis(duration),
                stage: u32::from(index >= first_stage),
                waiting_secs: 0.0,
                cancel_secs: None,
                conclusion: if self.draw.chance(0.1) { Conclusion::Failure } else { Conclusion::Success },
            });
        }
    }
}

/// To the millisecond, so that a scenario file stays readable.
fn millis(secs: f64) -> f64 {
    (secs * 1e3).round() / 1e3
}

impl Scenario {
    /// The demo's workload: exactly `jobs` jobs to serve in `repos` allow-listed repositories, and in addition
    /// some jobs for GitHub's own runners, some in repositories that are not allow-listed, foreign sandboxes,
    /// and from ten repositories on a foreign runner that competes for plain jobs in the quietest one.
    pub fn generate(jobs: usize, repos: usize, seed: u64) -> Self {
        let repos = repos.max(1);
        let mut draw = Seed::new(seed).stream(Purpose::Generate, 0);
        let names: Vec<String> = (1..=repos).map(|index| format!("acme/service-{index:02}")).collect();
        let weights: Vec<f64> = names.iter().map(|_| (ACTIVITY_DEVIATION * draw.normal()).exp()).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of jobs is far below 2^53")]
        let span_secs = (3_600.0 * (jobs as f64 / HOUR_JOBS).powf(ARRIVAL_EXPONENT)).max(20.0);
        let mut generator = Generator { draw, jobs: Vec::new(), runs: 0, span_secs };
        generator.add_served(jobs, &names, &weights);
        let closed = ["acme/closed-1", "acme/closed-2"];
        if jobs > 0 {
            generator.add_unserved(jobs, &names, &closed);
        }
        let mut repos: Vec<ScenarioRepo> = names
            .iter()
            .map(|name| ScenarioRepo { name: name.clone(), allowed: true, about: RepoAbout::default() })
            .collect();
        repos.extend(closed.iter().map(|name| ScenarioRepo {
            name: (*name).to_owned(),
            allowed: false,
            about: RepoAbout::default(),
        }));
        let mut scenario = Self {
            name: format!("{jobs} jobs in {} repositories, seed {seed}", names.len()),
            repos,
            jobs: generator.jobs,
            ..Self::default()
        };
        scenario.add_foreign(&names, &weights);
        scenario
    }

    fn add_foreign(&mut self, names: &[String], weights: &[f64]) {
        let quietest = (0..names.len()).min_by(|a, b| weights[*a].total_cmp(&weights[*b])).unwrap_or_default();
        let runner = |name: &str, labels: &[&str]| ForeignRunner {
            repo: names[quietest].clone(),
            name: name.to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            online: true,
        };
        self.foreign_runners = vec![runner("build-box-1", &["self-hosted", "linux", "x64", "build-box"])];
        if names.len() >= REPOS_WITH_RIVAL {
            self.foreign_runners.push(runner("build-box-2", &["self-hosted", "modal"]));
        }
        let sandbox = |name: &str| ForeignSandbox { name: name.to_owned(), ..ForeignSandbox::default() };
        self.foreign_sandboxes = vec![sandbox("notebook"), sandbox("sr-looks-like-ours"), sandbox("")];
    }
}

impl Generator {
    fn add_served(&mut self, jobs: usize, names: &[String], weights: &[f64]) {
        let total: f64 = weights.iter().sum();
        let mut left = jobs;
        let mut before = None;
        while left > 0 {
            let size = self.size().min(left);
            left -= size;
            let arrival_secs = match before {
                Some(before) if self.draw.chance(CLUSTER_SHARE) => before + self.draw.share() * CLUSTER_SECS,
                Some(_) | None => self.arrival(),
            };
            before = Some(arrival_secs);
            let mut point = self.draw.share() * total;
            let chosen = weights.iter().position(|weight| {
                point -= weight;
                point <= 0.0
            });
            let repo = names[chosen.unwrap_or(names.len() - 1)].clone();
            let kind = Kind::draw(&mut self.draw);
            self.add_run(&RunPlan { repo, arrival_secs, size, kind });
        }
    }

    fn add_unserved(&mut self, jobs: usize, names: &[String], closed: &[&str]) {
        for _ in 0..jobs.div_ceil(HOSTED_PER) {
            let repo = names[self.draw.index(names.len())].clone();
            let arrival_secs = self.arrival();
            self.add_run(&RunPlan { repo, arrival_secs, size: 1, kind: Kind::Hosted });
        }
        for _ in 0..jobs.div_ceil(NOT_ALLOWED_PER) {
            let repo = closed[self.draw.index(closed.len())].to_owned();
            let arrival_secs = self.arrival();
            self.add_run(&RunPlan { repo, arrival_secs, size: 1, kind: Kind::Plain });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sim::scenario::SkipReason;

    #[test]
    fn the_workload_has_its_stated_mix() {
        let scenario = Scenario::generate(1_000, 50, 1);
        scenario.check().unwrap();
        assert_eq!(scenario.expected_jobs().len(), 1_000);
        assert_eq!(scenario.allowed_repos().len(), 50);
        let share = |wanted: fn(&str) -> bool| {
            scenario.jobs.iter().filter(|job| job.labels.iter().any(|label| wanted(label))).count()
        };
        let (gpu, per_run) = (share(|label| label.starts_with("gpu:")), share(|label| label.starts_with("job-")));
        assert!((60..=140).contains(&gpu), "{gpu} GPU jobs");
        assert!((140..=260).contains(&per_run), "{per_run} jobs with a label of their own");
        let skipped = |reason| scenario.jobs.iter().filter(|job| scenario.skip_reason(job) == Some(reason)).count();
        assert_eq!(skipped(SkipReason::NoOptInLabel), 50);
        assert_eq!(skipped(SkipReason::RepoNotAllowed), 40);
        assert!(scenario.jobs.iter().all(|job| job.id > 1 << 32 && job.run > 1 << 32));
        assert!(scenario.jobs.iter().any(|job| job.stage == 1));
    }

    #[test]
    fn activity_is_uneven_and_arrivals_fill_the_hour() {
        let scenario = Scenario::generate(1_000, 50, 2);
        let mut per_repo: BTreeMap<&str, usize> = BTreeMap::new();
        for job in &scenario.jobs {
            *per_repo.entry(&job.repo).or_default() += 1;
        }
        let mut counts: Vec<usize> = per_repo.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert!(counts[..5].iter().sum::<usize>() > 300, "the busiest five have {:?}", &counts[..5]);
        let latest = |jobs| Scenario::generate(jobs, 5, 3).jobs.iter().map(|job| job.arrival_secs).fold(0.0, f64::max);
        assert!((3_300.0..=3_700.0).contains(&latest(1_000)));
        assert!((90.0..=220.0).contains(&latest(30)), "{}", latest(30));
    }

    #[test]
    fn the_same_seed_gives_the_same_workload() {
        assert_eq!(Scenario::generate(40, 4, 7), Scenario::generate(40, 4, 7));
        assert_ne!(Scenario::generate(40, 4, 7), Scenario::generate(40, 4, 8));
        assert!(Scenario::generate(0, 0, 1).jobs.is_empty());
    }
}
