//! Plays a day and measures it by the simulators' history: nothing that the controller says of itself counts.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use sandrunner::http::webhook::Hint;
use sandrunner::ids::RunId;
use sandrunner::poll::ListOrder;
use sandrunner::sim::{Event, Operation, Profile, Service, What, World};

use crate::lab::{Lab, Next, Nudges, Outcome, epoch};
use crate::workload;

/// What GitHub allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// 5,000 requests an hour, of which an unchanged list takes one.
    PerHour,
    /// 450 points a minute, while an unchanged list takes none of the 5,000 requests an hour.
    PerMinute,
}

/// A day to be played.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) hours: f64,
    pub(crate) repos: usize,
    pub(crate) allowance: Allowance,
    pub(crate) order: ListOrder,
    pub(crate) nudged: bool,
}

/// What a day came to.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// From queued to seen, in seconds, sorted.
    pub(crate) waits: Vec<f64>,
    /// The same of second stages.
    pub(crate) second_waits: Vec<f64>,
    /// For how long nobody had looked at them when the day ended: runs that were never looked at.
    pub(crate) unseen: Vec<f64>,
    /// The most requests that were charged in an hour of the clock, and in any 60 minutes.
    pub(crate) charged_peak: u32,
    pub(crate) charged_any_hour: u32,
    /// The most points in a minute of the clock.
    pub(crate) points_peak: u32,
    /// The most points per minute, writes included, on average over an hour of the clock.
    pub(crate) points_mean: f64,
    /// Calls that swept for old runs.
    pub(crate) sweeps: usize,
    pub(crate) limited: usize,
    pub(crate) calls: BTreeMap<String, usize>,
}

impl Figures {
    pub(crate) fn mean(&self) -> f64 {
        mean(&self.waits)
    }

    pub(crate) fn quantile(&self, part: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let index = (self.waits.len() as f64 * part).ceil() as usize;
        self.waits.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn longest(&self) -> f64 {
        self.waits.last().copied().unwrap_or(f64::NAN)
    }

    /// How many runs were never looked at although there was so much time.
    pub(crate) fn overdue(&self, secs: f64) -> usize {
        self.unseen.iter().filter(|unseen| **unseen > secs).count()
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "mean {:.1} p50 {:.1} p95 {:.1} p99 {:.1} max {:.1} s; second stages {:.1} s; {} unseen; {} charged in the peak hour of the clock and {} in any, {} points in the peak minute, {:.0} a minute in the peak hour; {} sweeps; {} limited",
            self.mean(),
            self.quantile(0.5),
            self.quantile(0.95),
            self.quantile(0.99),
            self.longest(),
            mean(&self.second_waits),
            self.unseen.len(),
            self.charged_peak,
            self.charged_any_hour,
            self.points_peak,
            self.points_mean,
            self.sweeps,
            self.limited,
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len() as f64
}

fn profile(allowance: Allowance, requests_per_hour: u32) -> Profile {
    Profile {
        github_charges_unchanged: allowance == Allowance::PerHour,
        github_points_per_minute: 900,
        github_requests_per_hour: requests_per_hour,
        // A running job's list changes with its steps.
        step_secs: Some(15.0),
        boot: Profile::realistic().boot,
        ..Profile::calm()
    }
}

/// Plays a day.
pub(crate) async fn play(setting: Setting) -> Figures {
    let (scenario, arrivals) = workload::day(setting.seed, setting.hours, setting.repos);
    // Fewer repositories have less, in proportion.
    let requests = u32::try_from(10 * setting.repos).expect("a small number");
    let lab = Lab::new(profile(setting.allowance, requests), scenario, setting.seed).list_order(setting.order);
    let lab = lab.configure(|config| config.github[0].primary_reserve = requests / 10);
    let limit = Duration::from_secs_f64(setting.hours * 3600.0);
    let mut webhooks = Webhooks::new(lab.nudges(), setting.seed);
    let pause = if setting.nudged { Duration::from_millis(250) } else { Duration::from_secs(600) };
    let next = |world: &World| {
        if setting.nudged {
            webhooks.deliver(world);
        }
        Next::GoOn
    };
    let outcome = lab.drive(limit, pause, next).await;
    figures(&outcome, &arrivals, limit.as_secs_f64())
}

/// Delivers what GitHub would: for each change of a job its run, some seconds later, and not always. What happens to the
/// jobs of a run at one moment is late, or lost, together.
struct Webhooks {
    nudges: Nudges,
    draw: fastrand::Rng,
    read: u64,
    runs: BTreeMap<u64, u64>,
    /// In milliseconds from the start, the earliest last.
    under_way: BinaryHeap<(std::cmp::Reverse<i64>, u64, String)>,
}

/// How many deliveries are lost, and how late the others are on average.
const LOST: f64 = 0.02;
const LATE_SECS: f64 = 2.0;

impl Webhooks {
    fn new(nudges: Nudges, seed: u64) -> Self {
        let (runs, under_way) = (BTreeMap::new(), BinaryHeap::new());
        Self { nudges, draw: fastrand::Rng::with_seed(seed), read: 0, runs, under_way }
    }

    fn deliver(&mut self, world: &World) {
        let events = world.history(self.read);
        self.read += events.len() as u64;
        let mut drawn = BTreeSet::new();
        for event in &events {
            let (job, repo) = match &event.what {
                What::JobQueued { job, run, repo, .. } => {
                    self.runs.insert(*job, *run);
                    (job, repo)
                }
                What::JobAssigned { job, repo, .. } | What::JobCompleted { job, repo, .. } => (job, repo),
                _ => continue,
            };
            // The days before are over.
            let Some(run) = self.runs.get(job).copied().filter(|run| *run >= workload::FIRST_RUN) else { continue };
            if drawn.insert((run, event.at)) && self.draw.f64() >= LOST {
                let late = -(1.0 - self.draw.f64()).ln() * LATE_SECS;
                #[expect(clippy::cast_possible_truncation, reason = "seconds")]
                let at = (event.at - epoch()).num_milliseconds() + (late * 1e3) as i64;
                self.under_way.push((std::cmp::Reverse(at), run, repo.to_string()));
            }
        }
        let now = (world.clock().now() - epoch()).num_milliseconds();
        while let Some((_, run, repo)) = self.under_way.peek().filter(|first| first.0.0 <= now).cloned() {
            self.under_way.pop();
            self.nudges.give(Hint { repo: repo.parse().expect("a repository"), run: RunId(run) });
        }
    }
}

fn seconds(event: &Event) -> f64 {
    (event.at - epoch()).as_seconds_f64()
}

/// The most of these times, which are sorted, that lie within one hour.
fn most_in_an_hour(times: &[f64]) -> u32 {
    let within = |(index, from): (usize, &f64)| times[index..].partition_point(|at| at - from < 3_600.0);
    u32::try_from(times.iter().enumerate().map(within).max().unwrap_or_default()).expect("a small number")
}

fn figures(outcome: &Outcome, arrivals: &BTreeMap<u64, f64>, end: f64) -> Figures {
    let mut looks: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let (mut hours, mut minutes): (BTreeMap<i64, u32>, BTreeMap<i64, u32>) = (BTreeMap::new(), BTreeMap::new());
    let mut points_by_hour: BTreeMap<i64, u32> = BTreeMap::new();
    let mut second: BTreeMap<u64, f64> = BTreeMap::new();
    let (mut limited, mut sweeps, mut paid) = (0, 0, Vec::new());
    let charges = outcome.history.iter().find_map(|event| match &event.what {
        What::Began { profile, .. } => Some(profile.github_charges_unchanged),
        _ => None,
    });
    for event in &outcome.history {
        let at = seconds(event);
        match &event.what {
            What::Call { service: Service::Github, operation, status, points, target, limited: limit, .. } => {
                limited += usize::from(limit.is_some());
                #[expect(clippy::cast_possible_truncation, reason = "a day")]
                let second_of_day = at as i64;
                if *status != 304 || charges == Some(true) {
                    paid.push(at);
                    *hours.entry(second_of_day / 3600).or_default() += 1;
                }
                *minutes.entry(second_of_day / 60).or_default() += points;
                *points_by_hour.entry(second_of_day / 3600).or_default() += points;
                sweeps += usize::from(*operation == Operation::ListRuns && !target.is_empty());
                if *operation == Operation::ListJobs && (*status == 200 || *status == 304) {
                    looks.entry(target.parse().expect("a run's id")).or_default().push(at);
                }
            }
            What::JobQueued { run, .. } if arrivals.get(run).is_some_and(|arrival| at > arrival + 1.0) => {
                second.entry(*run).or_insert(at);
            }
            _ => {}
        }
    }
    let seen = |run: &u64, since: f64| looks.get(run)?.iter().copied().find(|at| *at >= since).map(|at| at - since);
    let mut waits: Vec<f64> = arrivals.iter().filter_map(|(run, since)| seen(run, *since)).collect();
    waits.sort_by(f64::total_cmp);
    Figures {
        unseen: arrivals
            .iter()
            .filter(|(run, since)| seen(run, **since).is_none())
            .map(|(_, since)| end - since)
            .collect(),
        waits,
        second_waits: second.iter().filter_map(|(run, since)| seen(run, *since)).collect(),
        charged_peak: hours.values().copied().max().unwrap_or_default(),
        charged_any_hour: most_in_an_hour(&paid),
        points_peak: minutes.values().copied().max().unwrap_or_default(),
        points_mean: f64::from(points_by_hour.values().copied().max().unwrap_or_default()) / 60.0,
        sweeps,
        limited,
        calls: outcome.calls(Service::Github),
    }
}
