//! A connection over TCP that a fault can reset, with everything that is under way on it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

/// Resets one connection; every request on it carries a clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Reset(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    is_thrown: AtomicBool,
    /// The connection's task, which always waits to read.
    reader: AtomicWaker,
}

impl Reset {
    pub(super) fn throw(&self) {
        self.0.is_thrown.store(true, Ordering::Release);
        self.0.reader.wake();
    }
}

/// A stream of bytes that breaks once its switch is thrown.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    reset: Reset,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, reset: Reset::default() }
    }

    /// Fails where the switch is thrown. The peer is told by a reset, not by an orderly end.
    fn check(&self) -> io::Result<()> {
        if !self.reset.0.is_thrown.load(Ordering::Acquire) {
            return Ok(());
        }
        self.stream.set_zero_linger()?;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Connected for Connection {
    type ConnectInfo = Reset;

    fn connect_info(&self) -> Reset {
        self.reset.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reset.0.reader.register(cx.waker());
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
