//! `sandrunner demo`: the unchanged controller against the simulated services, with a workload.

mod faults;
mod host;
mod screen;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::host::Host;
use super::{Failure, say, simulate, stopped};
use crate::class::RunnerClass;
use crate::clock::Clock;
use crate::config::{Config, Environment, GithubConfig, LimitsConfig, LogFormat, ModalConfig, Settings};
use crate::observe::class_tag;
use crate::plan::Policy;
use crate::sim::{APP_ID, APP_KEY, Profile, Replay, Report, Scenario, Servers, StatedLimits, World, serve};
use crate::{metrics, telemetry};

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
pub struct DemoArguments {
    /// How many jobs the workload has that are to be served.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    jobs: u32,
    /// Over how many repositories they are spread.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    repos: u32,
    /// The seed of everything that is left to chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many times faster than real time it runs.
    #[arg(long, default_value_t = 10.0, value_parser = speed)]
    speed: f64,
    /// How the services behave: `realistic` or `calm`.
    #[arg(long, default_value = "realistic")]
    profile: String,
    /// A scenario instead of the generated workload (TOML or JSON).
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    scenario: Option<PathBuf>,
    /// Real jobs instead: files or folders of `gh api …/actions/runs/ID/jobs`, JSON lines of jobs, or
    /// `workflow_job` webhook payloads.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    replay: Vec<PathBuf>,
    /// Read a label of replayed jobs as another, such as `ubuntu-latest=modal`.
    #[arg(long, value_name = "FROM=TO", requires = "replay")]
    map_label: Vec<String>,
    /// Faults of the services, and what befalls the controller's machine, by name; `list` prints all names with what
    /// they do.
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    faults: Vec<String>,
    /// Use a GitHub App with two installations instead of a token.
    #[arg(long)]
    app: bool,
    /// End when every job that is to be served is done and everything is cleaned up.
    #[arg(long)]
    exit: bool,
    /// Print one JSON object at the end, and nothing else on standard output.
    #[arg(long)]
    json: bool,
    /// Write every call and every change to this file as it happens, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// What the controller logs to standard error, such as `info`.
    #[arg(long, default_value = "off", value_name = "LEVEL")]
    log: String,
}

/// What the demo asks with: GitHub's token, Modal's token id and its secret. Nothing may show them.
pub const CREDENTIALS: [&str; 3] = ["ghp_demo4hv6", "ak-demo8qs1", "as-demo2jn7"];

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.1..=1_000.0).contains(&speed) => Ok(speed),
        Ok(_) | Err(_) => Err("must be a number between 0.1 and 1000".to_owned()),
    }
}

/// How often the screen is drawn and the end is looked for, in real time.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// After the last expected job is done, leftovers have this long to go: longer than every grace and timeout, and than the
/// hour after a start within which the runners of every repository are looked at.
const CLEANING_LIMIT: TimeDelta = TimeDelta::minutes(80);
/// The demo gives up when no job has ended for this long.
const STALLED_LIMIT: TimeDelta = TimeDelta::hours(3);

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    report: Report,
    seed: u64,
    speed: f64,
    wall_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<ReplayAnswer>,
    /// Faults that were asked for and never took effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults_idle: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ReplayAnswer {
    objects_skipped: usize,
    seconds_cut: f64,
}

/// Runs the demo.
///
/// # Panics
/// Never: the addresses it parses are its own.
///
/// # Errors
/// [`Failure`] where it cannot start; a broken invariant is exit code 1 without an error.
pub async fn run(arguments: DemoArguments) -> Result<ExitCode, Failure> {
    if arguments.faults.iter().any(|name| name == "list") {
        say(&faults::catalogue())?;
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start(LogFormat::Text, &arguments.log).map_err(Failure::usage)?;
    let (scenario, replay) = scenario(&arguments)?;
    let profile = Profile::named(&arguments.profile).map_err(Failure::usage)?;
    let clock = Clock::scaled(Clock::system().now(), arguments.speed);
    let world = World::try_new(profile, scenario, arguments.seed, clock.clone()).map_err(Failure::usage)?;
    for name in &arguments.faults {
        world.add_fault(name.as_str()).map_err(Failure::usage)?;
    }
    if let Some(path) = &arguments.history {
        simulate::write_history(&world, path).map_err(Failure::work)?;
    }
    let any = "127.0.0.1:0".parse().expect("an address");
    let servers = serve(world.clone(), any, any).await.map_err(Failure::work)?;
    let settings = settings(&world, &servers, &arguments)?;
    let metrics = metrics::install().map_err(Failure::work)?;
    world.state_limits(stated_limits(&settings));
    let began = Instant::now();
    let stop = CancellationToken::new();
    let host = Host::start(world.clone(), settings, metrics, stop.clone()).await.map_err(Failure::work)?;
    let address = host.address();
    let watched = async {
        watch(&arguments, &world, &servers, &address).await;
        let report = world.report();
        stop.cancel();
        Ok(report)
    };
    let (report, ()) = tokio::try_join!(watched, host.run()).map_err(Failure::work)?;
    servers.shutdown().await.map_err(Failure::work)?;
    let wall_seconds = began.elapsed().as_secs_f64();
    let has_held = report.violations.is_empty();
    let faults_idle = faults::idle(&arguments.faults, &world.history(0));
    let answer = Answer { report, seed: arguments.seed, speed: arguments.speed, wall_seconds, replay, faults_idle };
    if arguments.json {
        say(&serde_json::to_string_pretty(&answer).map_err(Failure::work)?)?;
    } else {
        screen::summary(&answer.report, wall_seconds);
        if !answer.faults_idle.is_empty() {
            say(&format!("never took effect, as what they strike did not happen: {}", answer.faults_idle.join(", ")))?;
        }
    }
    // Ended by hand, the workload is not done, and that is no failure.
    Ok(if has_held || !arguments.exit { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn scenario(arguments: &DemoArguments) -> Result<(Scenario, Option<ReplayAnswer>), Failure> {
    if let Some(path) = &arguments.scenario {
        return Ok((Scenario::load(path).map_err(Failure::usage)?, None));
    }
    if arguments.replay.is_empty() {
        let scenario = Scenario::generate(arguments.jobs as usize, arguments.repos as usize, arguments.seed);
        return Ok((if arguments.app { of_two_owners(scenario) } else { scenario }, None));
    }
    let Replay { scenario, skipped, cut_seconds } =
        Replay::read(&arguments.replay, &arguments.map_label).map_err(Failure::usage)?;
    Ok((scenario, Some(ReplayAnswer { objects_skipped: skipped, seconds_cut: cut_seconds })))
}

/// Gives every second repository another owner, at which the App has an installation of its own.
fn of_two_owners(mut scenario: Scenario) -> Scenario {
    let moved: BTreeSet<String> = scenario.repos.iter().skip(1).step_by(2).map(|repo| repo.name.clone()).collect();
    let move_it = |name: &mut String| {
        if moved.contains(name.as_str()) {
            *name = name.replacen("acme/", "beta/", 1);
        }
    };
    scenario.repos.iter_mut().for_each(|repo| move_it(&mut repo.name));
    scenario.jobs.iter_mut().for_each(|job| move_it(&mut job.repo));
    scenario.runs.iter_mut().filter_map(|run| run.repo.as_mut()).for_each(move_it);
    scenario.foreign_runners.iter_mut().for_each(|runner| move_it(&mut runner.repo));
    scenario
}

/// The configuration of an operator who has much room: only addresses and credentials differ from real ones.
fn settings(world: &World, servers: &Servers, arguments: &DemoArguments) -> Result<Settings, Failure> {
    let [github_token, token_id, token_secret] = CREDENTIALS.map(|secret| Some(secret.to_owned().into()));
    let mut config = Config {
        github: vec![GithubConfig {
            api_url: Some(format!("http://{}", servers.github())),
            token: github_token.filter(|_| !arguments.app),
            app_id: arguments.app.then(|| APP_ID.to_owned()),
            private_key: arguments.app.then(|| APP_KEY.to_owned().into()),
            allowed_repos: world.scenario().allowed_repos().iter().map(ToString::to_string).collect(),
            mutations_per_minute: 180,
            ..GithubConfig::default()
        }],
        modal: ModalConfig {
            server_url: format!("http://{}", servers.modal()),
            token_id,
            token_secret,
            ..ModalConfig::default()
        },
        limits: LimitsConfig { max_sandboxes: 5_000, max_gpus: 1_000, ..LimitsConfig::default() },
        ..Config::default()
    };
    "127.0.0.1:0".clone_into(&mut config.http.listen);
    Settings::new(&config, &Environment::new()).map_err(Failure::usage)
}

/// The limits that the history is judged by.
fn stated_limits(settings: &Settings) -> StatedLimits {
    let Policy { limits, classes, .. } = &settings.policy;
    let of_class = |class: &RunnerClass| Some((class_tag(&class.name), class.max_sandboxes?));
    StatedLimits {
        sandboxes: Some(limits.sandboxes),
        sandboxes_per_repo: limits.sandboxes_per_repo,
        classes: classes.iter().filter_map(of_class).collect(),
        gpus: Some(limits.gpus),
    }
}

/// Shows what happens, until the workload is done or someone stops it.
async fn watch(arguments: &DemoArguments, world: &World, servers: &Servers, address: &str) {
    // Before anything tells that Ctrl-C ends it.
    let stopped = stopped();
    let mut screen = screen::Screen::new(address, !arguments.json && std::io::stdout().is_terminal());
    if !arguments.json {
        screen.greet(world, servers);
    }
    let mut end = End::default();
    let ended = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if arguments.json {
                screen.progress(world);
            } else {
                screen.draw(world).await;
            }
            if arguments.exit && end.is_reached(world, world.clock().now()) {
                return;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = stopped => {}
    }
}

/// When the demo is over.
#[derive(Debug, Default)]
struct End {
    open: Option<(usize, DateTime<Utc>)>,
    done_at: Option<DateTime<Utc>>,
}

impl End {
    fn is_reached(&mut self, world: &World, now: DateTime<Utc>) -> bool {
        let summary = world.summary();
        let open = summary.expected_jobs_open;
        if open > 0 {
            let unchanged_since = match self.open {
                Some((before, since)) if before == open && summary.jobs_in_progress == 0 && summary.jobs_queued > 0 => {
                    since
                }
                Some(_) | None => now,
            };
            self.open = Some((open, unchanged_since));
            return now - unchanged_since > STALLED_LIMIT;
        }
        let done_at = *self.done_at.get_or_insert(now);
        let report = world.report();
        let is_clean = report.sandboxes_live_at_end == 0 && report.runners_left_at_end == 0;
        is_clean || now - done_at > CLEANING_LIMIT
    }
}
