//! How commands reach the running daemon.

use std::path::PathBuf;

use clap::Args;
use serde::de::DeserializeOwned;

use super::{ConfigArguments, Failure};
use crate::admin::{self, Request};

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct AdminArguments {
    #[command(flatten)]
    pub(super) config: ConfigArguments,
    /// The daemon's admin socket, in place of that of the configuration.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl AdminArguments {
    /// The socket: the one that is named, else that of the configuration, else that of the systemd unit.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let configured = self.config.admin_socket().map_err(Failure::usage)?;
        Ok(configured.unwrap_or_else(admin::default_path))
    }

    /// Asks the daemon.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        admin::ask(&self.path()?, request).await.map_err(Failure::work)
    }
}
