//! Runs the daemons of the demo in this process, and does to them what befalls their machine.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::daemon::{Clients, Daemon, StartError};
use crate::sim::{ControllerChange, Mishap, World};
use crate::state_dir;

/// How long the address of a daemon that was killed may stay taken, and how often it is tried meanwhile.
const FREE_WITHIN: Duration = Duration::from_secs(5);
const TRY_EVERY: Duration = Duration::from_millis(50);

/// What keeps the demo from going on.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot make a folder for the state at {path}")]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot do `{}` to the state directory", mishap.name())]
    Harm {
        mishap: Mishap,
        #[source]
        source: io::Error,
    },
    #[error("what was done to the state directory broke")]
    Broken(#[from] JoinError),
}

/// The machines of the demo: one with the daemon that is shown, and one more for each that is started beside it.
#[derive(Debug)]
pub(super) struct Host {
    world: World,
    settings: Settings,
    metrics: PrometheusHandle,
    states: Folder,
    /// How far the wall clock of the first machine is ahead.
    wall_ahead: TimeDelta,
    shown: JoinSet<()>,
    others: JoinSet<()>,
    stop: CancellationToken,
}

impl Host {
    /// Starts the daemon; `stop` ends it and all that are started later.
    pub(super) async fn start(
        world: World,
        mut settings: Settings,
        metrics: PrometheusHandle,
        stop: CancellationToken,
    ) -> Result<Self, HostError> {
        let states = Folder::new()?;
        settings.state_dir = Some(states.path.join("1"));
        let (shown, others) = (JoinSet::new(), JoinSet::new());
        let mut host = Self { world, settings, metrics, states, wall_ahead: TimeDelta::zero(), shown, others, stop };
        host.run_shown().await?;
        Ok(host)
    }

    /// Where the daemon that is shown answers, in this and every further life.
    pub(super) fn address(&self) -> String {
        self.settings.listen.to_string()
    }

    /// Carries out what befalls, until all are stopped.
    pub(super) async fn run(mut self) -> Result<(), HostError> {
        loop {
            let befallen = tokio::select! {
                () = self.stop.cancelled() => break,
                befallen = self.world.befallen() => befallen,
            };
            if befallen.mishap == Mishap::SecondController {
                self.run_another().await?;
            } else {
                self.restart(befallen.mishap).await?;
            }
        }
        while self.shown.join_next().await.is_some() {}
        while self.others.join_next().await.is_some() {}
        Ok(())
    }

    /// Kills the daemon that is shown, and starts it again in what the mishap leaves.
    async fn restart(&mut self, mishap: Mishap) -> Result<(), HostError> {
        self.world.note_controller(0, ControllerChange::Killed);
        self.shown.shutdown().await;
        // A save that was under way would have died with the process.
        tokio::time::sleep(TRY_EVERY).await;
        self.wall_ahead += mishap.clock_jump();
        let (dir, deployment) = (self.states.path.join("1"), self.settings.policy.deployment.clone());
        let harmed = spawn_blocking(move || state_dir::harm(&dir, &deployment, mishap)).await?;
        harmed.map_err(|source| HostError::Harm { mishap, source })?;
        self.run_shown().await
    }

    async fn run_shown(&mut self) -> Result<(), HostError> {
        let clock = self.world.clock().on_machine(self.wall_ahead);
        let mut tries = FREE_WITHIN.as_millis() / TRY_EVERY.as_millis();
        let daemon = loop {
            let clients = Clients::connect(&self.settings, &clock)?;
            match Daemon::new(&self.settings, clients, clock.clone(), Some(self.metrics.clone())).await {
                Err(StartError::Listen { .. }) if tries > 0 => tries -= 1,
                started => break started?,
            }
            tokio::time::sleep(TRY_EVERY).await;
        };
        self.settings.listen = daemon.address().unwrap_or(self.settings.listen);
        self.world.note_controller(0, ControllerChange::Started);
        let stopped = self.stop.clone().cancelled_owned();
        self.shown.spawn(async move { drop(Box::pin(daemon.run(stopped)).await) });
        Ok(())
    }

    /// Starts one more daemon with the same configuration on a machine of its own. It serves no metrics, of which a
    /// process has one set.
    async fn run_another(&mut self) -> Result<(), HostError> {
        let number = self.others.len() + 2;
        let settings = Settings { state_dir: Some(self.states.path.join(number.to_string())), ..self.settings.clone() };
        let clock = self.world.clock().on_machine(TimeDelta::zero());
        let daemon = Daemon::new(&settings, Clients::connect(&settings, &clock)?, clock, None).await?;
        self.world.note_controller(0, ControllerChange::Started);
        let stopped = self.stop.clone().cancelled_owned();
        self.others.spawn(async move { drop(Box::pin(daemon.run(stopped)).await) });
        Ok(())
    }
}

/// How many demos may leave folders of the same number before the next one gives up.
const FOLDERS_MAX: u32 = 1_000;

/// A folder that is gone with its value.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Result<Self, HostError> {
        // In containers that share the folder, all may have the same number.
        let mut number = 0;
        loop {
            let path = std::env::temp_dir().join(format!("sandrunner-demo-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists && number < FOLDERS_MAX => number += 1,
                Err(source) => return Err(HostError::Folder { path, source }),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed harms nobody.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
