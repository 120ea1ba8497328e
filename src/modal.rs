//! Modal's gRPC API: sandboxes, their images and their Secrets.
//!
//! Reading and writing are two types over one connection, so that whoever is given a [`ModalReader`] alone
//! can change nothing. Every call has a deadline and the quick repetitions of Modal's own clients; slower
//! ones are the caller's. Wire types end here, and no secret is ever printed.

mod attempts;
mod auth;
mod billing;
mod call;
mod error;
mod image;
mod listing;
mod operation;
mod reader;
mod spec;
mod transport;
mod warnings;
mod wire;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use secrecy::SecretString;
use tonic::Status;
use tonic::codegen::StdError;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tower::ServiceExt;

use self::call::Caller;
use self::transport::ModalService;
use crate::clock::Clock;

pub use self::billing::Billed;
pub use self::error::{ModalError, Refusal, Replies, retry_after};
pub use self::image::{
    Base, BuildProgress, DOWNLOAD_TOKEN, ImageDefinition, Rebuilt, RunnerContents, Steps, Tools, build, rebuild,
};
pub use self::operation::Operation;
pub use self::reader::{ModalReader, NameOf, OutputOf, SandboxFate};
pub use self::spec::{Gpu, Mount, SandboxNetwork, SandboxSpec};
pub(crate) use self::transport::zero_requests;
pub use self::wire::Generation;
pub use self::writer::{CreatedSandbox, Deletion, ModalWriter, Origin};

#[allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::clone_on_ref_ptr,
    reason = "generated from api.proto"
)]
pub(crate) mod api {
    tonic::include_proto!("modal.client");
}

/// The flow-control window of a stream and of the connection, as in the official clients.
const WINDOW_BYTES: u32 = 64 << 20;

/// How to reach Modal and as whom.
#[derive(Debug, Clone)]
pub struct ModalSettings {
    /// `https://host[:port]`, or `http://host:port` for HTTP/2 without TLS.
    pub server_url: String,
    /// The token's id, `ak-…`.
    pub token_id: SecretString,
    /// The token's secret, `as-…`.
    pub token_secret: SecretString,
    /// The App that holds the sandboxes: the scope of their names and of listings.
    pub app_name: String,
    /// The environment; empty for the token's default.
    pub environment: String,
    /// The number of Modal's `ClientType` that this client goes by.
    pub client_type: u32,
    /// The version of Modal's Python client that this client behaves like.
    pub client_version: String,
    /// The version of Modal's image builder; none for the environment's own.
    pub image_builder_version: Option<String>,
    /// How long after its begin a call still waits because Modal asks it to; zero for not at all.
    pub max_throttle_wait: Duration,
}

impl ModalSettings {
    /// The settings for Modal itself and the token's default environment, shaped like Modal's client for Go.
    pub fn new(token_id: SecretString, token_secret: SecretString, app_name: &str) -> Self {
        Self {
            server_url: "https://api.modal.com".to_owned(),
            token_id,
            token_secret,
            app_name: app_name.to_owned(),
            environment: String::new(),
            client_type: 9,
            client_version: "1.0.0".to_owned(),
            image_builder_version: None,
            max_throttle_wait: Duration::from_secs(30),
        }
    }
}

/// Prepares a connection over the network; it is made when the first call needs it.
///
/// # Errors
/// [`ModalError::Setting`] where a setting cannot be used.
///
/// # Panics
/// Outside a tokio runtime, which the connection runs on.
pub fn connect(settings: ModalSettings, clock: Clock) -> Result<(ModalReader, ModalWriter), ModalError> {
    let channel = channel(&settings.server_url)?;
    connect_with_service(channel, settings, clock)
}

/// Connects to a service in process, such as a simulated Modal.
///
/// # Errors
/// [`ModalError::Setting`] where a setting cannot be used.
pub fn connect_with_service<S>(
    service: S,
    settings: ModalSettings,
    clock: Clock,
) -> Result<(ModalReader, ModalWriter), ModalError>
where
    S: tower::Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>,
    S: Clone + Send + Sync + 'static,
    S::Error: Into<StdError> + 'static,
    S::Future: Send + 'static,
{
    let service = ModalService::new(service.map_err(|error| Status::from_error(error.into())));
    let caller = Arc::new(Caller::new(service, settings, clock)?);
    let reader = ModalReader::new(caller);
    Ok((reader.clone(), ModalWriter::new(reader)))
}

/// A channel that recovers from whatever happens to a connection.
///
/// The connector is given because tonic's own leaves the TLS handshake outside the connect timeout: a
/// handshake that stalls then blocks every later call. Keep-alive finds connections that went silent. There
/// is no timeout of the channel's own: calls differ in how long they may take, and each has a deadline.
fn channel(server_url: &str) -> Result<Channel, ModalError> {
    let invalid = |error: tonic::transport::Error| ModalError::Setting {
        name: "server_url",
        problem: format!("`{server_url}`: {}", crate::error::ErrorChain(&error)),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    let mut endpoint = Endpoint::from_shared(server_url.to_owned())
        .and_then(|endpoint| endpoint.user_agent(concat!("sandrunner/", env!("CARGO_PKG_VERSION"))))
        .map_err(invalid)?
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    if server_url.starts_with("https:") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(invalid)?;
    }
    Ok(endpoint.connect_with_connector_lazy(tcp))
}
