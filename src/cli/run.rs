//! `sandrunner run`: the daemon.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArguments, Failure, stopped};
use crate::clock::Clock;
use crate::config::{ConfigError, LogFormat, Mode, Settings};
use crate::controller::Handover;
use crate::daemon::{Clients, Connected, Listeners, Prepared, StartError};
use crate::error::ErrorChain;
use crate::systemd::Manager;
use crate::telemetry::{Filter, InvalidFilter, LogFilter};
use crate::{metrics, telemetry};

/// How long a stop takes at most, whatever does not answer: actions under way get most of it.
const STOP_LIMIT: Duration = Duration::from_millis(9_500);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Where what was learned is kept over a restart, in place of `state_dir`; empty for nowhere.
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    state_dir: Option<PathBuf>,
}

/// Why a configuration that was changed is not used.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What every daemon of this process is made with.
struct Host {
    arguments: RunArguments,
    clock: Clock,
    metrics: PrometheusHandle,
    manager: Manager,
    log_filter: LogFilter,
    log_format: LogFormat,
}

/// What a daemon that runs leaves to the one after it.
#[derive(Default)]
struct Former {
    listeners: Listeners,
    connected: Connected,
}

/// What ends a daemon, or has another one follow it.
struct Orders {
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    reload: Signal,
}

/// Runs the daemon until Ctrl-C or SIGTERM; a second signal ends it at once. SIGHUP has it read its configuration anew.
///
/// # Errors
/// [`Failure`] where it cannot start.
pub async fn run(arguments: RunArguments) -> Result<ExitCode, Failure> {
    let settings = arguments.load().map_err(Failure::usage)?;
    let log_filter = telemetry::start(settings.log_format, &settings.log_level).map_err(Failure::usage)?;
    let (first, last, stop) = (stopped(), stopped(), stopped());
    let mut orders = Orders { stop: Box::pin(stop), reload: signal(SignalKind::hangup()).map_err(Failure::work)? };
    let host = Host {
        arguments,
        clock: Clock::system(),
        metrics: metrics::install().map_err(Failure::work)?,
        manager: Manager::of_environment(),
        log_filter,
        log_format: settings.log_format,
    };
    let prepared = host.prepare(settings, &Former::default()).map_err(Failure::work)?;
    tokio::select! {
        () = host.serve(prepared, &mut orders) => {}
        () = async { first.await; stopped().await } => tracing::warn!("ended by a second signal"),
        () = async { last.await; tokio::time::sleep(STOP_LIMIT).await } => {
            tracing::warn!("ended with something that did not answer in time");
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl RunArguments {
    fn load(&self) -> Result<Settings, ConfigError> {
        let mut settings = self.config.load()?;
        if let Some(dir) = &self.state_dir {
            settings.state_dir = Some(dir.clone()).filter(|dir| !dir.as_os_str().is_empty());
        }
        Ok(settings)
    }
}

impl Host {
    fn prepare(&self, settings: Settings, former: &Former) -> Result<Prepared, StartError> {
        let clients = Clients::connect_after(&former.connected, &settings, &self.clock)?;
        Prepared::new(settings, clients, self.clock.clone(), Some(self.metrics.clone()), &former.listeners)
    }

    /// Runs one daemon after the other, each with the configuration that was valid when it began.
    async fn serve(&self, prepared: Prepared, orders: &mut Orders) {
        let (mut next, mut handover) = (Some(prepared), Handover::default());
        while let Some(prepared) = next {
            let is_acting = prepared.mode() == Mode::Act;
            let mut daemon = prepared.open(handover).await;
            let address = daemon.address().map(|address| address.to_string()).unwrap_or_default();
            let asker = daemon.asker();
            let former = Former { listeners: daemon.take_listeners(), connected: daemon.connected() };
            tracing::info!(version = env!("CARGO_PKG_VERSION"), is_acting, %address, "started");
            (next, handover) = tokio::select! {
                left = daemon.run(self.wait(orders, &former)) => left,
                never = self.manager.attend(&asker) => match never {},
            };
            former.listeners.remove(next.as_ref());
        }
    }

    /// Waits for the end, which is none, or for a configuration that can be used.
    async fn wait(&self, orders: &mut Orders, former: &Former) -> Option<Prepared> {
        loop {
            tokio::select! {
                biased;
                () = &mut orders.stop => {
                    self.manager.stopping();
                    tracing::info!("stopping; running jobs go on, and a second signal ends this at once");
                    return None;
                }
                Some(()) = orders.reload.recv() => match self.reload(former) {
                    Ok(prepared) => return Some(prepared),
                    Err(error) => {
                        let error = ErrorChain(&error);
                        self.manager.refused(&error);
                        tracing::error!(%error, "the reload was refused; the configuration before it is in use");
                    }
                }
            }
        }
    }

    /// Reads the configuration anew, and does of it what can fail. Nothing is changed where anything does.
    fn reload(&self, former: &Former) -> Result<Prepared, ReloadError> {
        self.manager.reloading();
        let settings = self.arguments.load()?;
        let filter = Filter::parse(&settings.log_level)?;
        let log_format = settings.log_format;
        let prepared = self.prepare(settings, former)?;
        self.log_filter.set(filter);
        self.manager.reloaded();
        tracing::info!("the configuration was read anew; what is under way is finished first");
        if log_format != self.log_format {
            tracing::warn!("log.format is as it was until a restart");
        }
        Ok(prepared)
    }
}
