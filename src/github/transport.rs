//! How requests reach GitHub: octocrab's layers over reqwest, or over a service within this process.
//!
//! No layer here repeats a request or keeps an answer, and no redirect is followed: the token goes to the
//! configured host and nowhere else.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::service::middleware::reqwest_connector::ReqwestConnector;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::Service;

use super::GithubError;

type BoxError = Box<dyn Error + Send + Sync>;

/// How long a connection may take, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that went dead under a request is noticed after both together, within the request's
/// deadline; otherwise HTTP/2 would give it to every following request until the kernel gives up.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// GitHub answers 403 to requests without a user agent.
const AGENT: &str = concat!("sandrunner/", env!("CARGO_PKG_VERSION"));

/// Checks the form of the API's address.
pub(super) fn parse_base(api_url: &str) -> Result<Uri, GithubError> {
    let refused = |problem| Err(GithubError::Settings { key: "api_url", problem });
    let Ok(base) = api_url.trim_end_matches('/').parse::<Uri>() else {
        return refused("must be an address such as `https://api.github.com`");
    };
    if !matches!(base.scheme_str(), Some("http" | "https")) {
        return refused("must begin with `https://`");
    }
    if base.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refused("must hold no user name or password: credentials have their own keys");
    }
    if base.query().is_some() {
        return refused("must hold no query");
    }
    Ok(base)
}

/// Over plain HTTP anybody on the way could read the token.
pub(super) fn refuse_plain_http(base: &Uri) -> Result<(), GithubError> {
    if base.scheme_str() == Some("http") && !is_loopback(base) {
        return Err(GithubError::Settings { key: "api_url", problem: "must begin with `https://`" });
    }
    Ok(())
}

fn is_loopback(base: &Uri) -> bool {
    base.host().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// A client over HTTPS, with gzip and the proxies of the environment.
pub(super) fn over_network(base: Uri) -> Result<Octocrab, GithubError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .gzip(true)
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(&base) {
        // No proxy can reach this machine's own loopback.
        builder = builder.no_proxy();
    }
    let http = builder.build().map_err(|source| GithubError::Transport { source })?;
    Ok(build(ReqwestConnector::new(http), base))
}

/// A client over a service within this process; requests and answers still are what would go over a wire.
pub(super) fn in_process<S>(service: S, base: Uri) -> Octocrab
where
    S: Service<Request<axum::body::Body>, Response = Response<axum::body::Body>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    build(InProcess(service), base)
}

/// Adds what every request has, but for the credential: each client has its own.
fn build<S, B>(service: S, base: Uri) -> Octocrab
where
    S: Service<Request<OctoBody>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: axum::body::HttpBody<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    let headers = vec![
        (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
        (USER_AGENT, HeaderValue::from_static(AGENT)),
    ];
    let built: Result<Octocrab, Infallible> = OctocrabBuilder::new_empty()
        .with_service(service)
        .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
        .with_layer(&BaseUriLayer::new(base))
        .with_auth(AuthState::None)
        .build();
    match built {
        Ok(octocrab) => octocrab,
        Err(never) => match never {},
    }
}

/// A service of this process as octocrab takes it: the whole body at once, as a streamed one is not `Sync`.
struct InProcess<S>(S);

impl<S> Service<Request<OctoBody>> for InProcess<S>
where
    S: Service<Request<axum::body::Body>, Response = Response<axum::body::Body>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        let answer = self.0.call(request.map(axum::body::Body::new));
        Box::pin(async move {
            let (parts, body) = answer.await.map_err(Into::into)?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            Ok(Response::from_parts(parts, Full::new(bytes)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_would_leak_the_token_is_refused() {
        for odd in ["", "api.github.com", "ftp://github.com", "https://me:pw@api.github.com", "https://h/?a=b"] {
            assert!(parse_base(odd).is_err(), "{odd} must be refused");
        }
        let plain = |url: &str| refuse_plain_http(&parse_base(url).unwrap()).is_ok();
        assert!(
            plain("https://ghe.acme.example/api/v3/") && plain("http://127.0.0.1:8080") && plain("http://[::1]:80")
        );
        assert!(!plain("http://api.github.com") && !plain("http://127.0.0.1.evil.example"));
    }
}
