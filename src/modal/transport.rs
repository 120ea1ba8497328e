//! One attempt of one call: the headers that every call carries, the deadline, the count, the warnings.
//!
//! It never repeats anything.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;

use super::ModalSettings;
use super::api::modal_client_client::ModalClientClient;
use super::error::{ModalError, Refusal, code_name};
use super::operation::Operation;
use super::warnings::Warnings;
use crate::clock::Clock;

/// The metric that counts calls; labels `operation` and `result`.
const REQUESTS: &str = "sandrunner_modal_requests_total";
/// What calls come to in usual times, and when Modal or the way to it is in trouble.
const USUAL_CODES: [Code; 8] = [
    Code::Ok,
    Code::Unavailable,
    Code::DeadlineExceeded,
    Code::Internal,
    Code::Unknown,
    Code::ResourceExhausted,
    Code::Unauthenticated,
    Code::PermissionDenied,
];

/// Shows each method as not called yet, so that its first failure is a rise.
pub(crate) fn zero_requests() {
    for operation in Operation::METHODS {
        for code in USUAL_CODES {
            metrics::counter!(REQUESTS, "operation" => operation.rpc(), "result" => code_name(code)).absolute(0);
        }
    }
}

/// The service that calls go to, over the network or in process.
pub(super) type ModalService =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, Status>;

/// The generated client on it.
pub(super) type Client = ModalClientClient<ModalService>;

/// The largest message, as in the official clients; tonic's own limit of 4 MiB is too small for them.
const MESSAGE_BYTES_MAX: usize = 100 << 20;

/// What all attempts share.
pub(super) struct Transport {
    client: Client,
    metadata: MetadataMap,
    secrets: Arc<[SecretString]>,
    pub(super) clock: Clock,
    pub(super) warnings: Warnings,
}

impl Transport {
    pub(super) fn new(service: ModalService, settings: &ModalSettings, clock: Clock) -> Result<Self, ModalError> {
        let secrets: Arc<[SecretString]> = [settings.token_id.clone(), settings.token_secret.clone()].into();
        Ok(Self {
            client: Client::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX),
            metadata: common_metadata(settings)?,
            warnings: Warnings::new(Arc::clone(&secrets)),
            secrets,
            clock,
        })
    }

    /// A request with the headers of every call.
    pub(super) fn request<Q>(&self, message: Q) -> tonic::Request<Q> {
        tonic::Request::from_parts(self.metadata.clone(), http::Extensions::default(), message)
    }

    /// Sends one request and waits for the answer for at most `limit`.
    pub(super) async fn attempt<Q, R, F, Fut>(
        &self,
        operation: Operation,
        limit: Duration,
        request: tonic::Request<Q>,
        send: F,
    ) -> Result<R, Refusal>
    where
        F: FnOnce(Client, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        // Boxed, because it is large and a part of every future up to the caller's task.
        let exchange = Box::pin(send(self.client.clone(), request));
        let answer = self.clock.deadline(limit, exchange).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(Status::deadline_exceeded(elapsed.to_string())));
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        metrics::counter!(REQUESTS, "operation" => operation.rpc(), "result" => code_name(code)).increment(1);
        match answer {
            Ok(response) => {
                self.warnings.note_trailers(response.metadata());
                Ok(response.into_inner())
            }
            Err(status) => Err(self.refusal(operation, &status)),
        }
    }

    /// What matters of a status, without the token.
    pub(super) fn refusal(&self, operation: Operation, status: &Status) -> Refusal {
        self.warnings.note_trailers(status.metadata());
        Refusal::new(operation, status, self.secrets.iter().map(ExposeSecret::expose_secret))
    }
}

/// The headers of every call, in the shape of Modal's own clients that are not Python's.
fn common_metadata(settings: &ModalSettings) -> Result<MetadataMap, ModalError> {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-modal-token-id", secret("token_id", &settings.token_id)?);
    metadata.insert("x-modal-token-secret", secret("token_secret", &settings.token_secret)?);
    metadata.insert("x-modal-client-type", settings.client_type.into());
    metadata.insert("x-modal-client-version", ascii("client_version", &settings.client_version)?);
    let library = concat!("sandrunner/", env!("CARGO_PKG_VERSION"));
    metadata.insert("x-modal-libmodal-version", MetadataValue::from_static(library));
    metadata.insert("x-modal-host", ascii("server_url", &host(&settings.server_url)?)?);
    Ok(metadata)
}

/// The host of the server's address, which must be plain `https://host[:port]` or `http://host:port`.
fn host(server_url: &str) -> Result<String, ModalError> {
    let invalid = || ModalError::Setting {
        name: "server_url",
        problem: format!("`{server_url}` is not an address such as https://api.modal.com"),
    };
    let uri: Uri = server_url.parse().map_err(|_| invalid())?;
    let is_plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    uri.host().filter(|host| is_plain && !host.is_empty()).map(str::to_owned).ok_or_else(invalid)
}

fn ascii(name: &'static str, value: &str) -> Result<MetadataValue<Ascii>, ModalError> {
    let problem = || "it is empty or holds characters other than printable ASCII".to_owned();
    let parsed = if value.is_empty() { None } else { MetadataValue::try_from(value).ok() };
    parsed.ok_or_else(|| ModalError::Setting { name, problem: problem() })
}

fn secret(name: &'static str, value: &SecretString) -> Result<MetadataValue<Ascii>, ModalError> {
    let mut value = ascii(name, value.expose_secret())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server_url: &str, secret: &str) -> ModalSettings {
        let mut settings = ModalSettings::new("ak-1".into(), secret.into(), "sandrunner");
        server_url.clone_into(&mut settings.server_url);
        settings
    }

    #[test]
    fn every_call_names_client_and_host_and_hides_the_token() {
        let metadata = common_metadata(&settings("http://127.0.0.1:9000", "as-very-secret")).unwrap();
        assert_eq!(metadata.get("x-modal-client-type").unwrap(), "9");
        assert_eq!(metadata.get("x-modal-client-version").unwrap(), "1.0.0");
        assert_eq!(metadata.get("x-modal-host").unwrap(), "127.0.0.1");
        assert_eq!(metadata.get("x-modal-token-secret").unwrap(), "as-very-secret");
        assert!(!format!("{metadata:?}").contains("as-very-secret"));
    }

    #[test]
    fn unusable_settings_are_named_without_their_secrets() {
        for url in ["", "api.modal.com", "ftp://api.modal.com", "https://u:p@api.modal.com", "https://a.b/path"] {
            let error = common_metadata(&settings(url, "as-1")).unwrap_err();
            assert!(error.to_string().contains("server_url"), "{url}: {error}");
        }
        let error = common_metadata(&settings("https://api.modal.com", "as-1\n")).unwrap_err().to_string();
        assert!(error.contains("token_secret") && !error.contains("as-1"), "{error}");
    }
}
