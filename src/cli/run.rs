//! `sandrunner run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::{ConfigArguments, Failure, stopped};
use crate::clock::Clock;
use crate::config::Mode;
use crate::daemon::{Clients, Daemon};
use crate::{metrics, telemetry};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where what was learned is kept over a restart, in place of `state_dir`; empty for nowhere.
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    state_dir: Option<PathBuf>,
}

/// Runs the daemon until Ctrl-C or SIGTERM; a second signal ends it at once.
///
/// # Errors
/// [`Failure`] where it cannot start.
pub async fn run(arguments: RunArguments) -> Result<ExitCode, Failure> {
    let mut settings = arguments.config.load().map_err(Failure::usage)?;
    if let Some(dir) = arguments.state_dir {
        settings.state_dir = Some(dir).filter(|dir| !dir.as_os_str().is_empty());
    }
    telemetry::start(settings.log_format, &settings.log_level).map_err(Failure::usage)?;
    let clock = Clock::system();
    // First, so that what the clients count is there before they do.
    let metrics = metrics::install().map_err(Failure::work)?;
    let clients = Clients::connect(&settings, &clock).map_err(Failure::work)?;
    let daemon = Daemon::new(&settings, clients, clock, Some(metrics)).await.map_err(Failure::work)?;
    let address = daemon.address().map(|address| address.to_string()).unwrap_or_default();
    let is_acting = settings.mode == Mode::Act;
    let (first, stop) = (stopped(), stopped());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), is_acting, %address, "started");
    let run = daemon.run(async {
        stop.await;
        tracing::info!("stopping; running jobs go on, and a second signal ends this at once");
    });
    tokio::select! {
        () = run => {}
        () = async { first.await; stopped().await } => tracing::warn!("ended by a second signal"),
    }
    Ok(ExitCode::SUCCESS)
}
