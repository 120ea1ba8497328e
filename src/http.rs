//! The daemon's own HTTP server: metrics, health, status, and GitHub's nudges. It changes nothing.
//!
//! It has a thread of its own, so that however many requests come, the controller keeps its turn. Connections, and the
//! time that a request's head may take, are bounded.

pub mod endpoint;
mod page;
pub mod webhook;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::endpoint::Endpoint;
use self::page::Page;
use crate::controller::{Asker, Question};
use crate::explain::Asked;
use crate::metrics;

/// How long an answer waits for the controller.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the head of a request may take to arrive, and a connection may be idle.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// What is kept of a connection's input at most before it is looked at; the head of a request must fit. All together may
/// take 8 MB, with the server's own default of 400 KB each they could take 100.
const BUFFER: usize = 32 * 1024;
/// The pause after a connection that could not be accepted, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the handlers need.
#[derive(Debug, Clone)]
struct Shared {
    metrics: PrometheusHandle,
    controller: Asker,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Serves at `listener`; `endpoint` takes GitHub's deliveries, where a secret is configured.
    ///
    /// # Errors
    /// The system's error where the listener cannot be used.
    pub fn new(
        listener: TcpListener,
        metrics: PrometheusHandle,
        controller: Asker,
        endpoint: Option<Endpoint>,
    ) -> io::Result<Self> {
        let router = Router::new()
            .route("/", get(show))
            .route("/style.css", get(async || page::file("text/css", page::STYLE)))
            .route("/script.js", get(async || page::file("text/javascript", page::SCRIPT)))
            .route("/metrics", get(render_metrics))
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/api/v1/status", get(status))
            .with_state(Shared { metrics, controller });
        let router = router.merge(endpoint.map(Endpoint::router).unwrap_or_default());
        listener.set_nonblocking(true)?;
        Ok(Self { listener, router })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// The system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on a thread of its own until `stop` is cancelled; the receiver hears the end.
    ///
    /// # Errors
    /// The system's error where there can be no thread or it cannot wait for connections.
    pub fn start(self, stop: CancellationToken) -> io::Result<oneshot::Receiver<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(self.serve(stop)) {
                tracing::error!(%error, "the HTTP server failed");
            }
            // Whoever waited may have gone on.
            let _ = ended.send(());
        })?;
        Ok(end)
    }

    async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(BUFFER);
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, stream) = tokio::select! {
                () = stop.cancelled() => break,
                (permit, accepted) = next => (permit, accepted.map(|(stream, _)| stream)),
            };
            while connections.try_join_next().is_some() {}
            match stream {
                Ok(stream) => {
                    let connection =
                        builder.serve_connection(io_of(stream), TowerToHyperService::new(self.router.clone()));
                    let connection = graceful.watch(connection.into_owned());
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = connection.await {
                            tracing::debug!(error, "a connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        graceful.shutdown().await;
        Ok(())
    }
}

/// Answers go out at once, however short they are.
fn io_of(stream: TcpStream) -> TokioIo<TcpStream> {
    // It only costs time where the system refuses.
    let _ = stream.set_nodelay(true);
    TokioIo::new(stream)
}

async fn ask<T>(shared: &Shared, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Response> {
    match tokio::time::timeout(ANSWER_LIMIT, shared.controller.ask(question)).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err((StatusCode::SERVICE_UNAVAILABLE, "the controller is stopping\n").into_response()),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the controller does not answer\n").into_response()),
    }
}

async fn render_metrics(State(shared): State<Shared>) -> Response {
    // Without upkeep the samples of histograms pile up between scrapes.
    shared.metrics.run_upkeep();
    metrics::meter_process();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render()).into_response()
}

/// Healthy: the loop answers.
async fn health(State(shared): State<Shared>) -> Response {
    match ask(&shared, Question::Coverage).await {
        Ok(_) => "ok\n".into_response(),
        Err(response) => response,
    }
}

/// Ready: everything that can be read has been read once.
async fn ready(State(shared): State<Shared>) -> Response {
    match ask(&shared, Question::Coverage).await {
        Ok(coverage) => {
            let code = if coverage.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (code, axum::Json(coverage)).into_response()
        }
        Err(response) => response,
    }
}

/// What the page is asked for.
#[derive(Debug, Deserialize)]
struct Asking {
    job: Option<String>,
}

/// The page for people.
async fn show(State(shared): State<Shared>, Query(Asking { job }): Query<Asking>) -> Response {
    let (status, points) = match ask(&shared, Question::Story).await {
        Ok(story) => story,
        Err(response) => return response,
    };
    let job = job.filter(|job| !job.trim().is_empty());
    let explained = match job.as_deref().map(str::parse::<Asked>) {
        Some(Ok(asked)) => match ask(&shared, |answer| Question::Explain(asked, answer)).await {
            Ok(explanation) => Some(Ok(explanation)),
            Err(response) => return response,
        },
        Some(Err(error)) => Some(Err(error.to_string())),
        None => None,
    };
    let explained = job.as_deref().zip(explained);
    Page { status: &status, points: &points, explained }.answer()
}

async fn status(State(shared): State<Shared>) -> Response {
    match ask(&shared, Question::Status).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(response) => response,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Ipv4Addr;

    use axum::http::Request;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    /// The first line of the answer to a request with a head of about that length; empty where the connection ends.
    fn answer(address: SocketAddr, length: usize) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let padding = "x".repeat(length);
        let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nPadding: {padding}\r\n\r\n");
        let mut answer = String::new();
        // The server may end the connection before it has taken everything.
        if stream.write_all(request.as_bytes()).is_ok() {
            let _ = stream.read_to_string(&mut answer);
        }
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn github_can_deliver_only_where_a_secret_is_set() {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let status = async |endpoint: Option<Endpoint>| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let server = Server::new(listener, handle.clone(), Asker::new(1).0, endpoint).unwrap();
            let request = Request::post("/webhooks/github").body(axum::body::Body::empty()).unwrap();
            server.router.oneshot(request).await.unwrap().status()
        };
        assert_eq!(status(None).await, StatusCode::NOT_FOUND);
        let secrets = webhook::Secrets::new("a secret".into(), None);
        let with = Endpoint::new(secrets, tokio::sync::mpsc::channel(1).0);
        assert_ne!(status(Some(with)).await, StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_connection_keeps_no_more_of_a_head_than_its_buffer() {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        let (asker, _questions) = Asker::new(1);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Server::new(listener, handle, asker, None).unwrap();
        let (address, stop) = (server.address().unwrap(), CancellationToken::new());
        let _end = server.start(stop.clone()).unwrap();
        assert_eq!(answer(address, BUFFER / 2), "HTTP/1.1 200 OK");
        assert_ne!(answer(address, BUFFER * 2), "HTTP/1.1 200 OK");
        stop.cancel();
    }
}
