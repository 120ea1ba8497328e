//! A TCP proxy whose connections can stand half open: it stops forwarding in a direction and closes nothing, and
//! later goes on or resets. Nothing tells either side what happened.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which side's words are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    None,
    Calls,
    Answers,
    Both,
}

/// What goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    held: Held,
    /// Connections of an earlier era are reset.
    era: u32,
}

/// Forwards every connection to one address. Dropping it cuts all of them.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port, for a server that is given as `http://host:port`.
    pub(crate) async fn before(url: &str) -> Self {
        let server: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (flow, seen) = watch::channel(Flow { held: Held::None, era: 0 });
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, server, seen.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, flow, _accepting: accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops forwarding what a side says, and keeps it; or forwards what was kept, and all that follows.
    pub(crate) fn hold(&self, held: Held) {
        self.flow.send_modify(|flow| flow.held = held);
    }

    /// Resets every connection: what was kept is lost. New ones go through.
    pub(crate) fn reset(&self) {
        self.flow.send_modify(|flow| *flow = Flow { held: Held::None, era: flow.era + 1 });
    }
}

async fn forward(client: TcpStream, server: SocketAddr, flow: watch::Receiver<Flow>) {
    let era = flow.borrow().era;
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut eras = flow.clone();
    tokio::select! {
        // Neither protocol here goes on after one side has ended.
        () = pump(&mut from_client, &mut to_server, flow.clone(), |flow| matches!(flow.held, Held::None | Held::Answers)) => {}
        () = pump(&mut from_server, &mut to_client, flow.clone(), |flow| matches!(flow.held, Held::None | Held::Calls)) => {}
        _ = eras.wait_for(|flow| flow.era != era) => {
            for half in [&to_client, &to_server] {
                // With this a close says "reset", not "that was all". It fails where the connection is gone already.
                let _ = half.as_ref().set_zero_linger();
            }
        }
    }
}

/// Forwards one direction until it ends.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    is_open: fn(&Flow) -> bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if flow.wait_for(is_open).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
