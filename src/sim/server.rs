//! Serves a World over TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::world::World;

/// How long requests that are under way may take at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Two running servers. Dropping them stops both at once.
#[derive(Debug)]
pub struct Servers {
    github: SocketAddr,
    modal: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<io::Result<()>>,
}

impl Servers {
    /// The address of GitHub's side and of the control interface.
    pub fn github(&self) -> SocketAddr {
        self.github
    }

    /// The address of Modal's side.
    pub fn modal(&self) -> SocketAddr {
        self.modal
    }

    /// Takes no more connections, lets requests finish for a moment, and ends.
    ///
    /// # Errors
    /// The first error of a server.
    pub async fn shutdown(mut self) -> io::Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(DRAIN, self.join()).await;
        // What still hangs after the drain is cut off with the tasks.
        ended.unwrap_or(Ok(()))
    }

    /// Waits until a server fails; without a failure it never returns before [`Servers::shutdown`].
    ///
    /// # Errors
    /// The error of the server.
    pub async fn failed(&mut self) -> io::Result<()> {
        self.join().await
    }

    async fn join(&mut self) -> io::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

/// Binds both addresses and serves the World on them; port 0 takes a free one.
///
/// # Errors
/// Where an address cannot be bound.
pub async fn serve(world: World, github: SocketAddr, modal: SocketAddr) -> io::Result<Servers> {
    let github_listener = TcpListener::bind(github).await?;
    let modal_listener = TcpListener::bind(modal).await?;
    let stop = CancellationToken::new();
    let mut servers = Servers {
        github: github_listener.local_addr()?,
        modal: modal_listener.local_addr()?,
        stop: stop.clone(),
        tasks: JoinSet::new(),
    };
    let router = world.github_service();
    let until = stopped(stop.clone());
    servers.tasks.spawn(async move { axum::serve(github_listener, router).with_graceful_shutdown(until).await });
    let service = world.modal_service();
    let until = stopped(stop);
    let connections = TcpListenerStream::new(modal_listener).map_ok(Connection::new);
    servers.tasks.spawn(async move {
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(connections, until)
            .await
            .map_err(io::Error::other)
    });
    Ok(servers)
}

async fn stopped(stop: CancellationToken) {
    stop.cancelled().await;
}
