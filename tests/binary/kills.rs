//! The daemon under SIGKILL at random points, beside a second one, and behind connections that stand half open. The
//! judge is the checker of `tests/checker`, which reads the file that `simulate --history` writes, and nothing else.
//!
//! What belongs to every change is small and cut off before everything is cleaned up: a registration that a kill left
//! without a sandbox is kept for five minutes. All of it, with a release binary:
//!
//! ```text
//! cargo build --release
//! SANDRUNNER_BINARY=target/release/sandrunner cargo test --test binary -- --ignored --nocapture kills::
//! ```
//!
//! A campaign is drawn from its seed, as far as real processes repeat; `SANDRUNNER_SEED` sets the first one.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it tells its figures, and real processes take real time"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use fastrand::Rng;
use sandrunner::sim::Scenario;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::checker::{self, Rules, Violation};
use crate::process::{LOOK_EVERY, Sandrunner, Simulation, Variables, number};
use crate::proxy::{Held, Proxy};
use crate::restart::in_flight;

const REPOS: [&str; 3] = ["acme/web", "acme/api", "widgets/cli"];
/// `limits.max_sandboxes`, so low that it is reached.
const SANDBOXES_MAX: u32 = 10;
/// From the last harm to the last job in the small form: several times what it takes on an idle machine.
const SERVED_WITHIN: Duration = Duration::from_secs(120);
/// From the last harm to the end of the last leftover: its grace, its readings, and as much again.
const CLEAN_WITHIN: Duration = Duration::from_secs(9 * 60);
/// How long the last calls of a process that was killed may still take effect: several times their latency.
const LAST_EFFECTS: Duration = Duration::from_secs(1);
/// How long nothing may change in the end.
const QUIET: Duration = Duration::from_secs(40);
/// Before that: a second daemon may still find out for itself that the last leftover is gone.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// How far a campaign goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Until every job is served that no cut-off create holds back.
    Served,
    /// Until nothing is left over and nothing happens any more.
    Quiet,
}

/// What the daemons of one World go through.
#[derive(Debug, Clone, Copy)]
struct Campaign {
    seed: u64,
    kills: u32,
    daemons: usize,
    /// How often connections stand half open, and how long at most.
    stalls: u32,
    longest_stall_secs: f64,
    extent: Extent,
}

impl Campaign {
    /// Every life reads everything once, and no process knows what another one, or its own earlier life, asked with
    /// the same token. So that they stay within GitHub's limits together, a second daemon needs more time.
    fn slowness(&self) -> f64 {
        if self.daemons > 1 { 3.0 } else { 1.0 }
    }

    fn points_per_minute(&self) -> u32 {
        if self.daemons > 1 { 300 } else { 900 }
    }
}

/// What came of it.
#[derive(Debug)]
struct Played {
    violations: Vec<Violation>,
    jobs: u64,
    completed: u64,
    /// Registrations that had no sandbox after the last harm.
    cut_creates: usize,
    /// None where that was not reached in time.
    settled_after: Option<Duration>,
}

/// A daemon with what it is started with.
struct Daemon {
    /// By which the history tells it from others, from 1.
    number: usize,
    process: Option<Sandrunner>,
    state_dir: PathBuf,
    config: String,
    variables: Variables,
    /// What its earlier lives logged.
    log: String,
}

impl Daemon {
    fn start(&mut self) {
        let state_dir = self.state_dir.to_str().unwrap();
        let arguments = ["run", "--config", &self.config, "--state-dir", state_dir];
        self.process = Some(Sandrunner::start(&arguments, &self.variables));
    }

    /// Kills it, harms what it kept now and then, and starts it again.
    async fn restart(&mut self, simulation: &Simulation, rng: &mut Rng) {
        let process = self.process.take().unwrap();
        self.log.push_str(&process.log());
        process.kill().await;
        note(simulation, self.number, "killed").await;
        lose(&self.state_dir, rng);
        note(simulation, self.number, "started").await;
        self.start();
    }
}

/// Tells the history what happens to a daemon.
async fn note(simulation: &Simulation, number: usize, change: &str) {
    simulation.tell("/_sim/controllers", &json!({ "client": number, "change": change })).await;
}

/// Who made a call; 0 where that is not known.
fn caller(call: &Value) -> usize {
    call["client"].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

/// Leaves the state directory as it is in most cases; else empties it, or leaves half of a file in it.
fn lose(state_dir: &Path, rng: &mut Rng) {
    let file = state_dir.join("evidence-main.json");
    match rng.u8(..8) {
        // It may not be there yet.
        0 | 1 => drop(fs::remove_dir_all(state_dir)),
        2 => {
            if let Ok(kept) = fs::read(&file) {
                fs::write(&file, &kept[..kept.len() / 2]).unwrap();
            }
        }
        _ => {}
    }
}

/// Repositories without jobs, with a runner and a sandbox of others; only times are shorter than the realistic ones.
fn scenario() -> Scenario {
    let scenario = json!({
        "repos": REPOS.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "foreign_runners": [{ "repo": REPOS[0], "name": "builder-1", "labels": ["self-hosted", "arm"] }],
        "foreign_sandboxes": [{ "name": "notebook" }],
        "profile": { "image_build_secs": 1.0, "boot": { "median_secs": 1.0, "p95_secs": 3.0 },
            "idle_removal_secs": [8, 15], "offline_lag_secs": [0, 5], "busy_lag_secs": [0, 10],
            "github_list_lag_secs": 4.0, "modal_list_lag_secs": 4.0, "linger_secs": [0.5, 2.0] },
    });
    serde_json::from_value(scenario).unwrap()
}

/// The jobs of a World, added as it goes on.
struct Jobs {
    rng: Rng,
    added: u64,
    runs: u64,
}

impl Jobs {
    /// Adds a run with a few jobs; half of the runs have a label set of their own.
    async fn add(&mut self, simulation: &Simulation, repo: &str, spread_secs: f64) {
        let run = 6_000_000_000 + self.runs;
        let mut labels = vec!["self-hosted".to_owned(), "modal".to_owned()];
        if self.rng.bool() {
            labels.push(format!("job-{run}"));
        }
        let jobs: Vec<Value> = (0..self.rng.u64(1..=3))
            .map(|index| {
                json!({ "id": 5_000_000_000 + self.added + index, "run": run, "repo": repo, "labels": labels,
                    "arrival_secs": self.rng.f64() * spread_secs, "duration_secs": self.rng.u8(1..=5) })
            })
            .collect();
        self.added += u64::try_from(jobs.len()).unwrap();
        self.runs += 1;
        simulation.tell("/_sim/jobs", &json!({ "jobs": jobs })).await;
    }
}

/// The times between kills: some before a process has looked at anything, some in the middle of its work.
fn gap_secs(rng: &mut Rng) -> f64 {
    let longest = [0.3, 1.5, 4.0][rng.usize(..3)];
    rng.f64() * longest
}

/// Holds back what one side or both say on some connections of the first daemon, then lets it through, or resets.
async fn stall(simulation: &Simulation, proxies: &[Proxy], longest_secs: f64, rng: &mut Rng) {
    // GitHub's connections, Modal's, or both.
    let which = rng.u8(1..=3);
    let held = [Held::Calls, Held::Answers, Held::Both][rng.usize(..3)];
    let stalled = || proxies.iter().enumerate().filter(|(index, _)| which & (1 << index) != 0).map(|(_, proxy)| proxy);
    note(simulation, 1, "cut_off").await;
    stalled().for_each(|proxy| proxy.hold(held));
    sleep(Duration::from_secs_f64(longest_secs * (0.3 + 0.7 * rng.f64()))).await;
    let is_reset = rng.bool();
    stalled().for_each(|proxy| if is_reset { proxy.reset() } else { proxy.hold(Held::None) });
    note(simulation, 1, "connected").await;
}

async fn play(campaign: Campaign) -> Played {
    let Campaign { seed, kills, stalls, longest_stall_secs, extent, .. } = campaign;
    let mut rng = Rng::with_seed(seed);
    let folder = TempDir::new().unwrap();
    let history = folder.path().join("history.jsonl");
    let (seed_text, count) = (seed.to_string(), campaign.daemons.to_string());
    let given = ["--profile", "realistic", "--seed", &seed_text, "--controllers", &count, "--history"];
    let arguments: Vec<&str> = given.into_iter().chain(history.to_str()).collect();
    let mut simulation = Simulation::start(&folder, &scenario(), &arguments).await;
    simulation.tell("/_sim/limits", &json!({ "sandboxes": SANDBOXES_MAX })).await;
    let mut proxies = Vec::new();
    let mut daemons = Vec::new();
    for number in 1..=campaign.daemons {
        let mut services = simulation.of_controller(number).await;
        if stalls > 0 && number == 1 {
            for service in &mut services {
                proxies.push(Proxy::before(service).await);
                *service = proxies[proxies.len() - 1].url();
            }
        }
        daemons.push(daemon(number, services, &campaign, &folder, &simulation));
    }
    let mut jobs = Jobs { rng: rng.fork(), added: 0, runs: 0 };
    let harms = kills.max(stalls);
    for harm in 0..harms {
        let repo = REPOS[rng.usize(..REPOS.len())];
        let gap_secs = gap_secs(&mut rng) * campaign.slowness();
        jobs.add(&simulation, repo, gap_secs).await;
        sleep(Duration::from_secs_f64(gap_secs)).await;
        // Both spread evenly over the harms.
        let is_turn = |of: u32| harm * of / harms != (harm + 1) * of / harms;
        if is_turn(stalls) {
            stall(&simulation, &proxies, longest_stall_secs, &mut rng).await;
        }
        if is_turn(kills) {
            let victim = rng.usize(..daemons.len());
            daemons[victim].restart(&simulation, &mut rng).await;
        }
    }
    for repo in REPOS {
        jobs.add(&simulation, repo, 1.0).await;
    }
    let (cut_creates, settled_after) = settle(&simulation, extent).await;
    let logs = finish(daemons, &simulation, extent).await;
    let completed = number(&simulation.report().await, "jobs_completed");
    drop(simulation);
    let history_text = fs::read_to_string(&history).unwrap();
    let lines = history_text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["what"].take());
    let callers: BTreeSet<usize> = lines.filter(|what| what["event"] == "call").map(|what| caller(&what)).collect();
    assert!(callers.into_iter().eq(1..=campaign.daemons), "each daemon is told from others");
    let violations = checker::check(&history_text, rules(&campaign));
    if !violations.is_empty() || settled_after.is_none() {
        keep(seed, &history, &logs);
    }
    Played { violations, jobs: jobs.added, completed, cut_creates, settled_after }
}

/// Keeps what tells why a campaign went wrong.
fn keep(seed: u64, history: &Path, logs: &[String]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = folder.join(format!("kills-{seed}.jsonl"));
    fs::copy(history, &kept).unwrap();
    for (index, log) in logs.iter().enumerate() {
        fs::write(folder.join(format!("kills-{seed}-{index}.log")), log).unwrap();
    }
    println!("seed {seed}: the history is kept in {}, and logs beside it", kept.display());
    for log in logs {
        let last: Vec<&str> = log.lines().rev().take(40).collect();
        last.iter().rev().for_each(|line| println!("{line}"));
    }
}

fn daemon(
    number: usize,
    [github, modal]: [String; 2],
    campaign: &Campaign,
    folder: &TempDir,
    simulation: &Simulation,
) -> Daemon {
    let limit = SANDBOXES_MAX.to_string();
    let mut variables = simulation
        .variables(&[("SANDRUNNER__RECONCILE__INTERVAL", "1s"), ("SANDRUNNER__LIMITS__MAX_SANDBOXES", &limit)]);
    for (name, value) in &mut variables {
        match name.as_str() {
            "GITHUB_API_URL" => value.clone_from(&github),
            "MODAL_SERVER_URL" => value.clone_from(&modal),
            _ => {}
        }
    }
    let points = campaign.points_per_minute();
    let text = format!("[[github]]\nmutations_per_minute = 90\npoints_per_minute = {points}\n");
    let config = crate::process::config(folder, &text);
    let state_dir = folder.path().join(format!("state-{number}"));
    let mut daemon = Daemon { number, process: None, state_dir, config, variables, log: String::new() };
    daemon.start();
    daemon
}

/// Waits for the end that is asked for; returns how many creates were cut off, and how long it took.
async fn settle(simulation: &Simulation, extent: Extent) -> (usize, Option<Duration>) {
    let limit = if extent == Extent::Served { SERVED_WITHIN } else { CLEAN_WITHIN };
    let began = Instant::now();
    // What was on its way to the services while its process was killed still takes effect.
    sleep(LAST_EFFECTS).await;
    let known = in_flight(&simulation.history().await);
    loop {
        // A create that was under way and not cut off has its sandbox by and by.
        let now = in_flight(&simulation.history().await);
        let cut_creates = known.intersection(&now).count();
        let state = simulation.state().await;
        let is_over = match extent {
            Extent::Served => number(&state, "expected_jobs_open") <= u64::try_from(cut_creates).unwrap(),
            // The foreign runner and the foreign sandbox are there for ever.
            Extent::Quiet => {
                ["expected_jobs_open", "runners", "sandboxes_live"].map(|key| number(&state, key)) == [0, 1, 1]
            }
        };
        if is_over {
            return (cut_creates, Some(began.elapsed()));
        }
        if began.elapsed() > limit {
            println!("not reached: {state}");
            return (cut_creates, None);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Lets the daemons go on through the quiet window, stops them, and returns what they logged.
async fn finish(daemons: Vec<Daemon>, simulation: &Simulation, extent: Extent) -> Vec<String> {
    if extent == Extent::Quiet {
        // The checker judges what happens meanwhile.
        sleep(LAST_WORDS + QUIET).await;
    }
    let mut logs = Vec::new();
    for daemon in daemons {
        let ended = daemon.process.unwrap().interrupted().await;
        assert!(ended.status.success(), "a daemon that was not killed ended by itself: {ended:#?}");
        logs.push(daemon.log + &ended.stderr);
        // The last line tells when it was over.
        note(simulation, daemon.number, "stopped").await;
    }
    logs
}

fn rules(campaign: &Campaign) -> Rules {
    let quiet = TimeDelta::from_std(QUIET).unwrap();
    Rules {
        controllers: campaign.daemons,
        // Failures of calls in a row put in pauses of up to a minute.
        recover_within: TimeDelta::minutes(1),
        quiet: (campaign.extent == Extent::Quiet).then_some(quiet),
        ..Rules::default()
    }
}

/// Plays campaigns side by side, tells their figures, and fails where one was judged to be wrong.
async fn run(campaigns: Vec<Campaign>) {
    let played = futures::future::join_all(campaigns.iter().map(|campaign| play(*campaign))).await;
    let mut wrong = Vec::new();
    for (campaign, played) in campaigns.iter().zip(played) {
        let Campaign { seed, kills, daemons, stalls, extent, .. } = *campaign;
        let Played { violations, jobs, completed, cut_creates, settled_after } = played;
        println!(
            "seed {seed}: {kills} kills of {daemons} daemons, {stalls} stalls, {completed} of {jobs} jobs served, \
             {cut_creates} creates cut off; over {:.0} s after the last harm; {} violations",
            settled_after.map_or(f64::INFINITY, |after| after.as_secs_f64()),
            violations.len()
        );
        wrong.extend(violations.iter().map(|violation| format!("seed {seed}: {violation}")));
        if settled_after.is_none() || (extent == Extent::Quiet && completed != jobs) {
            wrong.push(format!("seed {seed} did not converge"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The first seed, which the environment may set.
fn first_seed() -> u64 {
    std::env::var("SANDRUNNER_SEED").ok().map_or(1, |seed| seed.parse().unwrap())
}

/// The small form, which ends when every job is served.
const SMALL: Campaign =
    Campaign { seed: 1, kills: 6, daemons: 1, stalls: 0, longest_stall_secs: 6.0, extent: Extent::Served };

#[tokio::test]
async fn kills_a_second_daemon_and_half_open_connections_break_no_rule() {
    let first = Campaign { seed: first_seed(), ..SMALL };
    let pair = Campaign { seed: first.seed + 1, kills: 4, daemons: 2, ..SMALL };
    let half_open = Campaign { seed: first.seed + 2, kills: 0, stalls: 3, ..SMALL };
    run(vec![first, pair, half_open]).await;
}

#[tokio::test]
#[ignore = "ten minutes: cargo test --test binary -- --ignored --nocapture kills::"]
async fn two_hundred_kills_converge() {
    let campaign = |index: u64| Campaign {
        seed: first_seed() + 100 + index,
        kills: 25,
        daemons: if index % 4 == 1 { 2 } else { 1 },
        stalls: if index % 4 == 2 { 3 } else { 0 },
        // Longer than any deadline of reading and minting.
        longest_stall_secs: 40.0,
        extent: Extent::Quiet,
    };
    run((0..8).map(campaign).collect()).await;
}
