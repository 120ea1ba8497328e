//! The daemon's own HTTP server: metrics, health, status. It changes nothing.

pub mod webhook;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::controller::StatusRequest;
use crate::status::Status;

/// How long an answer waits for the controller.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What the handlers need.
#[derive(Debug, Clone)]
struct Shared {
    metrics: PrometheusHandle,
    controller: mpsc::Sender<StatusRequest>,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The system's error where the address cannot be used.
    pub async fn bind(
        address: SocketAddr,
        metrics: PrometheusHandle,
        controller: mpsc::Sender<StatusRequest>,
    ) -> io::Result<Self> {
        let router = Router::new()
            .route("/metrics", get(render_metrics))
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/api/v1/status", get(status))
            .with_state(Shared { metrics, controller });
        Ok(Self { listener: TcpListener::bind(address).await?, router })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// The system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    /// The system's error.
    pub async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        axum::serve(self.listener, self.router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

async fn ask(shared: &Shared) -> Option<Status> {
    let (question, answer) = oneshot::channel();
    shared.controller.send(question).await.ok()?;
    answer.await.ok()
}

async fn asked(shared: &Shared) -> Result<Status, Response> {
    match tokio::time::timeout(ANSWER_LIMIT, ask(shared)).await {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err((StatusCode::SERVICE_UNAVAILABLE, "the controller is stopping\n").into_response()),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the controller does not answer\n").into_response()),
    }
}

async fn render_metrics(State(shared): State<Shared>) -> Response {
    // Without upkeep the samples of histograms pile up between scrapes.
    shared.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render()).into_response()
}

/// Healthy: the loop answers.
async fn health(State(shared): State<Shared>) -> Response {
    match asked(&shared).await {
        Ok(_) => "ok\n".into_response(),
        Err(response) => response,
    }
}

/// Ready: everything that can be read has been read once.
async fn ready(State(shared): State<Shared>) -> Response {
    match asked(&shared).await {
        Ok(status) => {
            let code = if status.coverage.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (code, axum::Json(status.coverage)).into_response()
        }
        Err(response) => response,
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    match asked(&shared).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(response) => response,
    }
}
