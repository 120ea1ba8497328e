//! GitHub's REST API: runs, jobs and runners are read, JIT configs are generated, runners are deleted.
//!
//! [`GithubReader`] holds only calls that change nothing; the two that do are on [`GithubWriter`], so that
//! a mode that must not act is given no writer. Both share one client per credential: its budget, its
//! limit of requests in flight and its cached pages.
//!
//! Every request is charged to the budget before it is sent and has a deadline. Nothing here retries,
//! sleeps through a rate limit, follows a redirect or a link that GitHub sent, or serves a cached page
//! without asking GitHub whether it is still true.

pub mod answers;
mod call;
mod client;
mod error;
mod etag;
mod kept;
mod pages;
mod rate;
mod reader;
mod transport;
mod wire;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use secrecy::{ExposeSecret, SecretString};

use crate::budget::BudgetLimits;
use crate::clock::Clock;
use crate::error::redact;
use crate::ids::AccountName;

pub use self::call::{Call, Operation};
pub use self::client::RequestCounts;
pub use self::error::{GithubError, Malformed, Refusal};
pub use self::kept::{LONGEST as PAGES_LONGEST, UnusablePages};
pub use self::reader::{GithubReader, Paging, RunList, RunnerRelease};
pub use self::wire::parse_job;
pub use self::writer::{Deregistered, GithubWriter, MintRequest, Minted};

use self::client::Client;

/// What is needed to talk to GitHub with one credential.
#[derive(Debug, Clone)]
pub struct GithubSettings {
    /// The configured account, a label of metrics.
    pub account: AccountName,
    /// The base of the REST API: `https://api.github.com`, or `https://HOST/api/v3` for an Enterprise Server.
    pub api_url: String,
    /// A personal access token; white space around it is ignored.
    pub token: SecretString,
    /// What the credential may be asked.
    pub limits: BudgetLimits,
    /// The most requests under way at once (default 8; GitHub bears 100, and asks for few).
    pub max_in_flight: usize,
}

/// Makes a client that reaches GitHub over the network.
///
/// # Errors
/// [`GithubError::Settings`] where the address or the token cannot be used.
///
/// # Panics
/// Outside a tokio runtime: octocrab starts a task of its own.
pub fn connect(settings: GithubSettings, clock: Clock) -> Result<(GithubReader, GithubWriter), GithubError> {
    let checked = Checked::new(&settings)?;
    transport::refuse_plain_http(&checked.base)?;
    let octocrab = transport::over_network(checked.base.clone(), &checked.token)?;
    Ok(share(Client::new(octocrab, checked, settings, clock)))
}

/// Makes a client that hands its requests to a service within this process, such as an axum `Router`.
///
/// # Errors
/// [`GithubError::Settings`] where the address or the token cannot be used.
///
/// # Panics
/// Outside a tokio runtime: octocrab starts a task of its own.
pub fn connect_with_service<S>(
    service: S,
    settings: GithubSettings,
    clock: Clock,
) -> Result<(GithubReader, GithubWriter), GithubError>
where
    S: tower::Service<Request<axum::body::Body>, Response = Response<axum::body::Body>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let checked = Checked::new(&settings)?;
    let octocrab = transport::in_process(service, checked.base.clone(), &checked.token);
    Ok(share(Client::new(octocrab, checked, settings, clock)))
}

fn share(client: Client) -> (GithubReader, GithubWriter) {
    let client = Arc::new(client);
    (GithubReader::new(Arc::clone(&client)), GithubWriter::new(client))
}

/// The cached pages of some clients as text, for the next process; none where that would be too long.
pub fn keep_pages(readers: &[GithubReader]) -> Option<String> {
    kept::encode(readers.iter().map(|reader| &reader.client().caches))
}

/// Lays pages that an earlier process kept into the caches of the clients that read them, and tells how many there
/// were. Each is used only after GitHub has said that it is still true.
///
/// # Errors
/// [`UnusablePages`] where the text is not what [`keep_pages`] wrote.
pub fn restore_pages(text: &str, readers: &[GithubReader]) -> Result<usize, UnusablePages> {
    let caches: Vec<_> = readers.iter().map(|reader| (reader.client().credential, &reader.client().caches)).collect();
    kept::decode(text, &caches)
}

/// How often any cached page of some clients has changed.
pub fn page_changes(readers: &[GithubReader]) -> u64 {
    readers.iter().map(|reader| reader.client().caches.changes()).sum()
}

/// An address and a token that have the form they need.
struct Checked {
    base: Uri,
    token: SecretString,
    credential: etag::Credential,
}

impl Checked {
    fn new(settings: &GithubSettings) -> Result<Self, GithubError> {
        let base = transport::parse_base(&settings.api_url)?;
        let token = settings.token.expose_secret().trim();
        // octocrab panics on a token that makes no header.
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = "must be a GitHub token: visible ASCII characters without spaces, such as `github_pat_…`";
            return Err(GithubError::Settings { key: "token", problem });
        }
        if settings.max_in_flight == 0 {
            return Err(GithubError::Settings { key: "max_in_flight", problem: "must be at least 1" });
        }
        let credential = etag::Credential::new(&settings.api_url, token);
        Ok(Self { base, token: token.into(), credential })
    }
}

/// A whole answer: a refusal never gets this far.
struct Answer {
    status: http::StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Takes the credential out of headers that repeat it, as a careless proxy may: some of them are logged.
    fn new(status: http::StatusCode, mut headers: http::HeaderMap, body: Bytes, token: &SecretString) -> Self {
        for value in headers.values_mut() {
            let hidden = value.to_str().ok().map(|text| redact(text, token.expose_secret()));
            if let Some(hidden) = hidden.and_then(|text| text.parse().ok()) {
                *value = hidden;
            }
        }
        Self { status, headers, body }
    }

    fn request_id(&self) -> Option<String> {
        error::request_id(&self.headers)
    }

    fn etag(&self) -> Option<&HeaderValue> {
        self.headers.get(http::header::ETAG)
    }
}
