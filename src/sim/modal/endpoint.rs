//! Modal's side on the wire: answers that break on their way, and warnings in the trailers.
//!
//! A call says by marks in its headers what shall become of its answer; they are taken off here.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::NamedService;
use tower::Service;

use super::ModalService;
use crate::modal::api::modal_client_server::ModalClientServer;
use crate::sim::connection::Reset;

/// What becomes of an answer; a value of the mark's.
const FATE: &str = "x-sim-fate";
/// What Modal tells its clients in passing (`modal-api.md` §2.2): it stands in the trailers.
const WARNING: &str = "x-modal-warning";

/// What becomes of an answer on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives.
    #[default]
    Whole,
    /// The connection breaks before it: there is no status.
    Cut,
    /// Half of each message arrives.
    Half,
}

impl Fate {
    fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Cut => Some("cut"),
            Self::Half => Some("half"),
        }
    }

    /// Marks an answer.
    pub(super) fn mark(self, metadata: &mut MetadataMap) {
        if let Some(value) = self.as_str() {
            metadata.insert(FATE, MetadataValue::from_static(value));
        }
    }

    fn take(headers: &mut HeaderMap) -> Self {
        let value = headers.remove(FATE);
        let is = |fate: Self| value.as_ref().map(HeaderValue::as_bytes) == fate.as_str().map(str::as_bytes);
        [Self::Cut, Self::Half].into_iter().find(|fate| is(*fate)).unwrap_or_default()
    }
}

/// Marks an answer with a warning, percent-encoded as Modal sends it.
pub(super) fn warn(metadata: &mut MetadataMap, text: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let encoded: String = text
        .bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if let Ok(value) = encoded.parse() {
        metadata.insert(WARNING, value);
    }
}

/// Modal's side of a World as a tower service, in process or behind a server.
#[derive(Debug, Clone)]
pub struct ModalEndpoint {
    server: ModalClientServer<ModalService>,
}

impl ModalEndpoint {
    pub(super) fn new(server: ModalClientServer<ModalService>) -> Self {
        Self { server }
    }
}

impl NamedService for ModalEndpoint {
    const NAME: &'static str = <ModalClientServer<ModalService> as NamedService>::NAME;
}

impl Service<Request<Body>> for ModalEndpoint {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.server, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<Reset>().cloned();
        let answer = self.server.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            let fate = Fate::take(answer.headers_mut());
            if let Some(connection) = connection.filter(|_| fate == Fate::Cut) {
                connection.throw();
                // With the connection ends what is under way on it, this included.
                std::future::pending::<()>().await;
            }
            Ok(on_the_wire(answer, fate))
        })
    }
}

fn on_the_wire(mut answer: Response<Body>, fate: Fate) -> Response<Body> {
    match fate {
        Fate::Whole => {}
        Fate::Cut => return cut(),
        Fate::Half => return answer.map(|body| Body::new(body.map_frame(|frame| frame.map_data(|data| half(&data))))),
    }
    if answer.headers().contains_key("grpc-status") {
        // An answer without a body is all trailers already.
        return answer;
    }
    match answer.headers_mut().remove(WARNING) {
        Some(warning) => answer.map(|body| with_trailer(body, warning)),
        None => answer,
    }
}

/// Without a connection that could break, the answer does: its headers came, and no more.
fn cut() -> Response<Body> {
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    let body = axum::body::Body::from_stream(tokio_stream::once(Err::<Bytes, io::Error>(reset)));
    let mut answer = Response::new(Body::new(body));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn half(data: &Bytes) -> Bytes {
    data.slice(..data.len() / 2)
}

fn with_trailer(body: Body, warning: HeaderValue) -> Body {
    Body::new(body.map_frame(move |mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            trailers.insert(WARNING, warning.clone());
        }
        frame
    }))
}
