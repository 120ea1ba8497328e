//! A day of 500 repositories, of which few are busy, played with the real controller in virtual time.
//!
//! ```text
//! cargo test --test day                                   three hours of fewer repositories, against bars of their own
//! cargo test --profile sim --test day -- full             all days and allowances, against the bars
//! cargo test --profile sim --test day -- one --seed 11 --allowance hour|minute [--order uniform] [--nudged] [--hours 4]
//! ```

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a program for people, which tells how long it took and looks at few kinds of events"
)]

#[expect(dead_code, reason = "what other tests need of the lab")]
#[path = "../lab/lab.rs"]
mod lab;
mod play;
mod workload;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use play::{Allowance, Figures, Setting};
use sandrunner::poll::ListOrder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Published, and further ones.
const SEEDS: [u64; 4] = [11, 17, 23, 42];
/// The configured longest interval.
const MAX_INTERVAL_SECS: f64 = 900.0;

/// About ninety repositories have runs that their first page does not show; a twentieth of 5,000 requests an hour is about
/// 5,000 sweeps a day.
const SWEEPS_LEAST: f64 = 3_000.0;

/// What a day has to keep to.
struct Bars {
    mean: f64,
    nudged: f64,
    /// How much shorter the mean wait is than where the oldest list is always the next.
    gain: f64,
    charged: u32,
    /// How long it takes to read every list once.
    period_secs: f64,
}

impl Bars {
    fn of(seed: u64, allowance: Allowance) -> Self {
        let gain = if seed == 11 { 3.7 } else { 2.5 };
        match allowance {
            Allowance::PerHour => {
                let mean = if seed == 11 { 62.0 } else { 92.0 };
                Self { mean, nudged: 5.3, gain, charged: 5_000, period_secs: 400.0 }
            }
            Allowance::PerMinute => {
                let mean = if seed == 11 { 10.0 } else { 15.0 };
                Self { mean, nudged: 2.4, gain, charged: 3_300, period_secs: 67.0 }
            }
        }
    }
}

/// Counts what is not kept to, and tells of it.
#[derive(Default)]
struct Verdict {
    failed: u32,
}

impl Verdict {
    fn least(&mut self, what: &str, value: f64, least: f64) {
        let word = if value >= least { "" } else { " NOT KEPT" };
        println!("  {what}: {value:.2} >= {least:.2}{word}");
        self.failed += u32::from(!word.is_empty());
    }

    fn most(&mut self, what: &str, value: f64, most: f64) {
        let word = if value <= most { "" } else { " NOT KEPT" };
        println!("  {what}: {value:.2} <= {most:.2}{word}");
        self.failed += u32::from(!word.is_empty());
    }

    fn code(&self) -> ExitCode {
        println!("{} bars not kept", self.failed);
        ExitCode::from(u8::from(self.failed > 0))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("one") => {
            let figures = run(setting(&words[1..]));
            println!("{:#?}", figures.calls);
            ExitCode::SUCCESS
        }
        Some("full") => full(),
        // Whatever else a test runner passes does not concern this one test.
        Some(_) | None => bounded(),
    }
}

fn setting(words: &[String]) -> Setting {
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for (index, word) in words.iter().enumerate() {
        if let Some(name) = word.strip_prefix("--") {
            values.insert(name, words.get(index + 1).map_or("", String::as_str));
        }
    }
    Setting {
        seed: values.get("seed").map_or(11, |seed| seed.parse().expect("--seed takes a number")),
        hours: values.get("hours").map_or(24.0, |hours| hours.parse().expect("--hours takes a number")),
        repos: values.get("repos").map_or(workload::REPOS, |repos| repos.parse().expect("--repos takes a number")),
        allowance: if values.get("allowance") == Some(&"hour") { Allowance::PerHour } else { Allowance::PerMinute },
        order: if values.get("order") == Some(&"uniform") { ListOrder::Uniform } else { ListOrder::Index },
        nudged: values.contains_key("nudged"),
    }
}

/// All days with either allowance, two at a time.
fn full() -> ExitCode {
    let mut verdict = Verdict::default();
    for seed in SEEDS {
        for allowance in [Allowance::PerHour, Allowance::PerMinute] {
            let index = Setting {
                seed,
                hours: 24.0,
                repos: workload::REPOS,
                allowance,
                order: ListOrder::Index,
                nudged: false,
            };
            let settings = [index, Setting { order: ListOrder::Uniform, ..index }, Setting { nudged: true, ..index }];
            let [index, uniform, nudged] = side_by_side(settings);
            let bars = Bars::of(seed, allowance);
            verdict.most("mean wait", index.mean(), bars.mean);
            verdict.least("gain over the oldest list first", uniform.mean() / index.mean(), bars.gain);
            verdict.most("p99 to that of the oldest list first", index.quantile(0.99) / uniform.quantile(0.99), 1.4);
            verdict.most("longest wait", index.longest(), MAX_INTERVAL_SECS + bars.period_secs);
            verdict.most("longest wait with nudges", nudged.longest(), MAX_INTERVAL_SECS + bars.period_secs);
            verdict.most("mean wait with nudges", nudged.mean(), bars.nudged);
            let overdue = [&index, &uniform, &nudged].map(|day| day.overdue(MAX_INTERVAL_SECS + bars.period_secs));
            verdict.most("runs never seen", number(overdue.iter().sum()), 0.0);
            // GitHub counts by the hour of the clock; the other bar is for any.
            let charged = |day: &Figures| match allowance {
                Allowance::PerHour => day.charged_peak,
                Allowance::PerMinute => day.charged_any_hour,
            };
            let charged = charged(&index).max(charged(&nudged));
            verdict.most("charged in the peak hour", f64::from(charged), f64::from(bars.charged));
            verdict.most("points in the peak minute", f64::from(index.points_peak.max(nudged.points_peak)), 900.0);
            if allowance == Allowance::PerMinute {
                verdict.most("points a minute in the peak hour", index.points_mean.max(nudged.points_mean), 450.0);
            }
            verdict.least("sweeps", number(index.sweeps.min(nudged.sweeps)), SWEEPS_LEAST);
            let limited = index.limited + uniform.limited + nudged.limited;
            verdict.most("requests refused for a limit", number(limited), 0.0);
        }
    }
    verdict.code()
}

/// Three hours of a fifth of the repositories, with a fifth of the quota.
fn bounded() -> ExitCode {
    let mut verdict = Verdict::default();
    let (mut means, mut uniform_means) = (0.0, 0.0);
    for seed in SEEDS {
        let index = Setting {
            seed,
            hours: 3.0,
            repos: workload::REPOS / 5,
            allowance: Allowance::PerHour,
            order: ListOrder::Index,
            nudged: false,
        };
        let [index, uniform] = side_by_side([index, Setting { order: ListOrder::Uniform, ..index }]);
        verdict.most("longest wait", index.longest(), MAX_INTERVAL_SECS + 400.0);
        verdict.most("charged in the peak hour", f64::from(index.charged_peak), 1_000.0);
        verdict.most("requests refused for a limit", number(index.limited + uniform.limited), 0.0);
        verdict.most("runs never seen", number(index.overdue(MAX_INTERVAL_SECS + 400.0)), 0.0);
        verdict.least("sweeps", number(index.sweeps), 60.0);
        means += index.mean();
        uniform_means += uniform.mean();
    }
    // So early in the day little is known of the repositories, and the jobs of one seed are too few to tell a change.
    verdict.most("mean wait over all seeds", means / 4.0, 110.0);
    verdict.least("gain over the oldest list first", uniform_means / means, 2.3);
    verdict.code()
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn number(count: usize) -> f64 {
    count as f64
}

/// Plays some days at the same time.
fn side_by_side<const N: usize>(settings: [Setting; N]) -> [Figures; N] {
    std::thread::scope(|scope| {
        let runs = settings.map(|setting| scope.spawn(move || run(setting)));
        runs.map(|run| run.join().expect("a day that is played to its end"))
    })
}

fn run(setting: Setting) -> Figures {
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let figures = runtime.expect("a runtime").block_on(play::play(setting));
    println!("{setting:?}: {}; {:.0} s", figures.line(), begin.elapsed().as_secs_f64());
    figures
}
