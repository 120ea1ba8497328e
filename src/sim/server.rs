//! Serves a World over TCP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Extension;
use futures::TryStreamExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

use super::client::{Caller, Client};
use super::connection::Connection;
use super::world::World;

/// How long requests that are under way may take at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Running servers. Dropping them stops all at once.
#[derive(Debug)]
pub struct Servers {
    github: SocketAddr,
    modal: SocketAddr,
    /// Where each process is served that is told from others.
    clients: Vec<(SocketAddr, SocketAddr)>,
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

    /// The addresses of both sides for each process that [`Servers::tell_apart`] was told of, in that order.
    pub fn clients(&self) -> &[(SocketAddr, SocketAddr)] {
        &self.clients
    }

    /// Serves one process on free ports of loopback: whatever calls there has its number in the history.
    ///
    /// # Errors
    /// Where no address can be bound.
    pub async fn tell_apart(&mut self, client: &Client) -> io::Result<()> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = self.bind(client.world(), client.caller(), any, any).await?;
        self.clients.push(bound);
        Ok(())
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

    async fn bind(
        &mut self,
        world: &World,
        caller: Caller,
        github: SocketAddr,
        modal: SocketAddr,
    ) -> io::Result<(SocketAddr, SocketAddr)> {
        let github_listener = TcpListener::bind(github).await?;
        let modal_listener = TcpListener::bind(modal).await?;
        let bound = (github_listener.local_addr()?, modal_listener.local_addr()?);
        let router = world.github_service().layer(Extension(caller.clone()));
        let until = stopped(self.stop.clone());
        self.tasks.spawn(async move { axum::serve(github_listener, router).with_graceful_shutdown(until).await });
        let service = world.modal_service();
        let until = stopped(self.stop.clone());
        let connections = TcpListenerStream::new(modal_listener).map_ok(Connection::new);
        self.tasks.spawn(async move {
            tonic::transport::Server::builder()
                .layer(MapRequestLayer::new(move |request| caller.calls(request)))
                .add_service(service)
                .serve_with_incoming_shutdown(connections, until)
                .await
                .map_err(io::Error::other)
        });
        Ok(bound)
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
    let (stop, tasks) = (CancellationToken::new(), JoinSet::new());
    let mut servers = Servers { github, modal, clients: Vec::new(), stop, tasks };
    (servers.github, servers.modal) = servers.bind(&world, Caller::default(), github, modal).await?;
    Ok(servers)
}

async fn stopped(stop: CancellationToken) {
    stop.cancelled().await;
}
