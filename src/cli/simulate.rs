//! `sandrunner simulate`: both simulators alone, until stopped.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::clock::Clock;
use crate::sim::{APP_ID, APP_KEY, InvalidProfile, Profile, Scenario, ScenarioError, Servers, World, serve};

/// What `sandrunner simulate` takes.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Address of the simulated GitHub and of the control interface; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub github: SocketAddr,
    /// Address of the simulated Modal; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub modal: SocketAddr,
    /// File with repositories, jobs, faults and knobs (TOML, or JSON where it ends in .json)
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// How many times faster than real time the clock runs
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = parse_speed)]
    pub speed: f64,
    /// How the services behave: calm or realistic
    #[arg(long, value_name = "NAME", default_value = "realistic")]
    pub profile: String,
    /// Seed of everything that is left to chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Print the environment for the GitHub App of the simulated GitHub instead of that for a token
    #[arg(long)]
    pub app: bool,
    /// Serve so many controllers beside at addresses of their own, so that the history tells them apart
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    pub controllers: u32,
    /// Write every call and every change to this file as it happens, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
}

/// Why the simulators cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The profile is not known.
    #[error("cannot use `--profile`")]
    Profile(#[from] InvalidProfile),
    /// The scenario cannot be played.
    #[error("cannot use the scenario")]
    Scenario(#[from] ScenarioError),
    /// An address cannot be bound, or a server failed.
    #[error("cannot serve GitHub on {github} and Modal on {modal}")]
    Serve {
        /// The address asked for.
        github: SocketAddr,
        /// The address asked for.
        modal: SocketAddr,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The history cannot be written.
    #[error("cannot write the history to {path}")]
    History {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The addresses cannot be printed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.01..=10_000.0).contains(&speed) { Ok(speed) } else { Err("must be 0.01 to 10000".to_owned()) }
}

/// Serves both simulators and prints how to use them, until `stop` is ready.
///
/// # Errors
/// [`SimulateError`] where the scenario cannot be played or the servers cannot run.
pub async fn run(args: SimulateArgs, stop: impl Future<Output = ()>, mut out: impl Write) -> Result<(), SimulateError> {
    let clock = if (args.speed - 1.0).abs() < f64::EPSILON {
        Clock::system()
    } else {
        Clock::scaled(Clock::system().now(), args.speed)
    };
    let scenario = args.scenario.as_deref().map(Scenario::load).transpose()?.unwrap_or_default();
    let world = World::try_new(Profile::named(&args.profile)?, scenario, args.seed, clock)?;
    world.refuse_mishaps().map_err(ScenarioError::from)?;
    if let Some(path) = &args.history {
        write_history(&world, path)?;
    }
    let credentials = if args.app {
        format!("export GITHUB_APP_ID={APP_ID}\nexport GITHUB_APP_KEY='{}'\n", APP_KEY.trim())
    } else {
        "export GITHUB_TOKEN=simulated\n".to_owned()
    };
    let failed = |source| SimulateError::Serve { github: args.github, modal: args.modal, source };
    let mut servers = serve(world.clone(), args.github, args.modal).await.map_err(failed)?;
    for number in 1..=args.controllers {
        servers.tell_apart(&world.client(number)).await.map_err(failed)?;
    }
    out.write_all(instructions(&world, &servers, &credentials).as_bytes())
        .and_then(|()| out.flush())
        .map_err(SimulateError::Output)?;
    tokio::select! {
        ended = servers.failed() => ended.map_err(failed),
        () = stop => servers.shutdown().await.map_err(failed),
    }
}

/// Writes the history of a World to a file, from its begin and as it grows.
///
/// # Errors
/// [`SimulateError::History`] where the file cannot be made or written.
pub(super) fn write_history(world: &World, path: &Path) -> Result<(), SimulateError> {
    let written = File::create(path).and_then(|file| world.write_history(file));
    written.map_err(|source| SimulateError::History { path: path.to_owned(), source })
}

/// The environment that points Sandrunner, or an official client, at the simulators.
fn instructions(world: &World, servers: &Servers, credentials: &str) -> String {
    let (github, modal) = (servers.github(), servers.modal());
    let clients: Vec<String> = servers
        .clients()
        .iter()
        .zip(1_u32..)
        .map(|((github, modal), number)| {
            format!("# Controller {number}: GITHUB_API_URL=http://{github} MODAL_SERVER_URL=http://{modal}\n")
        })
        .collect();
    let repos: Vec<String> = world.scenario().allowed_repos().iter().map(ToString::to_string).collect();
    format!(
        "# The simulated GitHub and Modal run until Ctrl-C. Any text is accepted as a token.\n\
         export GITHUB_API_URL=http://{github}\n\
         {credentials}\
         export ALLOWED_REPOS={}\n\
         export MODAL_SERVER_URL=http://{modal}\n\
         export MODAL_TOKEN_ID=ak-simulated\n\
         export MODAL_TOKEN_SECRET=as-simulated\n\
         {}\
         # Control: GET http://{github}/_sim/state, /_sim/report, /_sim/history?since=N;\n\
         # POST /_sim/jobs, /_sim/reruns, /_sim/faults (GET lists them, DELETE takes all out), /_sim/revoke,\n\
         # /_sim/limits, /_sim/controllers, /_sim/clock {{\"advance_seconds\": 60}};\n\
         # GET and change (see the README) /_sim/repos, /_sim/installations, /_sim/organizations, /_sim/releases\n",
        repos.join(","),
        clients.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorChain;

    fn args() -> SimulateArgs {
        SimulateArgs {
            github: "127.0.0.1:0".parse().unwrap(),
            modal: "127.0.0.1:0".parse().unwrap(),
            scenario: None,
            speed: 1.0,
            profile: "calm".to_owned(),
            seed: 1,
            app: false,
            controllers: 0,
            history: None,
        }
    }

    #[tokio::test]
    async fn it_says_where_it_serves_and_ends_when_told() {
        let mut out = Vec::new();
        run(args(), async {}, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("export GITHUB_API_URL=http://127.0.0.1:"), "{text}");
        assert!(!text.contains(":0\n"), "{text}");
        let mut out = Vec::new();
        run(SimulateArgs { app: true, ..args() }, async {}, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("export GITHUB_APP_KEY='-----BEGIN") && !text.contains("GITHUB_TOKEN"), "{text}");
        assert!(!text.contains("# Controller"), "{text}");
        let mut out = Vec::new();
        run(SimulateArgs { controllers: 2, ..args() }, async {}, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("# Controller 2: GITHUB_API_URL=http://127.0.0.1:"), "{text}");
    }

    #[tokio::test]
    async fn the_history_is_written_to_the_file_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        run(SimulateArgs { history: Some(path.clone()), ..args() }, async {}, Vec::new()).await.unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with(r#"{"seq":0,"#) && text.contains(r#""event":"began""#), "{text}");
        let nowhere = Some(dir.path().join("no/such/folder"));
        let error = run(SimulateArgs { history: nowhere, ..args() }, async {}, Vec::new()).await.unwrap_err();
        assert!(matches!(error, SimulateError::History { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn what_befalls_the_machine_of_a_controller_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scenario.toml");
        std::fs::write(&path, "faults = [\"clock_day_ahead\"]\n").unwrap();
        let args = SimulateArgs { scenario: Some(path), ..args() };
        let error = run(args, std::future::pending(), Vec::new()).await.unwrap_err();
        let text = ErrorChain(&error).to_string();
        assert!(text.contains("`sandrunner demo --faults clock_day_ahead` runs one"), "{text}");
    }

    #[tokio::test]
    async fn an_unknown_profile_is_refused_before_anything_is_bound() {
        let args = SimulateArgs { profile: "wild".to_owned(), ..args() };
        let error = run(args, std::future::pending(), Vec::new()).await.unwrap_err();
        assert!(matches!(error, SimulateError::Profile(_)), "{error:?}");
        assert!(parse_speed("0").is_err() && parse_speed("x").is_err() && parse_speed("60").is_ok());
    }
}
