//! GitHub's REST API: runs, jobs and runners are read, JIT configs are generated, runners are deleted.
//!
//! [`GithubReader`] holds only calls that change nothing; the two that do are on [`GithubWriter`], so that
//! a mode that must not act is given no writer. Both share one client per credential: its budget, its
//! limit of requests in flight and its cached pages. A personal token is one credential; a GitHub App has one
//! for each owner that it is installed at.
//!
//! Every request is charged to the budget before it is sent and has a deadline. Nothing here retries (but for
//! a token that GitHub refuses, where there is a newer one), sleeps through a rate limit, follows a redirect or
//! a link that GitHub sent, or serves a cached page without asking GitHub whether it is still true.

mod access;
mod accounts;
pub mod answers;
mod app;
mod call;
mod client;
mod directory;
mod error;
mod etag;
mod groups;
mod jwt;
mod kept;
mod pages;
mod rate;
mod reader;
mod releases;
mod source;
mod token;
mod transport;
mod wire;
mod writer;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use secrecy::{ExposeSecret, SecretString};

use crate::budget::BudgetLimits;
use crate::clock::Clock;
use crate::error::redact;
use crate::ids::AccountName;

pub use self::access::{HourlyQuota, TokenAccess, TokenKind};
pub use self::accounts::{GithubReaders, GithubWriters};
pub use self::app::AppFacts;
pub use self::call::{Call, Operation};
pub use self::client::{CredentialState, RequestCounts};
pub use self::error::{GithubError, Malformed, Refusal};
pub use self::jwt::{AppKey, InvalidKey};
pub use self::kept::{LONGEST as PAGES_LONGEST, UnusablePages};
pub use self::reader::{GithubReader, Paging, RunList};
pub use self::releases::RunnerRelease;
pub use self::wire::parse_job;
pub use self::writer::{Deregistered, GithubWriter, MintRequest, Minted};

use self::accounts::Account;

/// What is needed to talk to GitHub with the credentials of one account.
#[derive(Debug, Clone)]
pub struct GithubSettings {
    /// The configured account.
    pub account: AccountName,
    /// The base of the REST API: `https://api.github.com`, or `https://HOST/api/v3` for an Enterprise Server.
    pub api_url: String,
    /// What it is asked with.
    pub auth: GithubAuth,
    /// What each credential may be asked.
    pub limits: BudgetLimits,
    /// The most requests of each credential under way at once (default 8; GitHub bears 100, and asks for few).
    pub max_in_flight: usize,
}

impl GithubSettings {
    /// Whether both ask as the same account with the same credentials.
    pub(crate) fn is_same_credential(&self, other: &Self) -> bool {
        self.account == other.account && self.api_url == other.api_url && self.auth.is_same(&other.auth)
    }

    /// Whether both may ask equally much.
    pub(crate) fn has_same_limits(&self, other: &Self) -> bool {
        let Self { account: _, api_url: _, auth: _, limits, max_in_flight } = self;
        *limits == other.limits && *max_in_flight == other.max_in_flight
    }
}

/// Whether an address of the REST API is that of an Enterprise Server (GitHub: REST API of Enterprise Server).
pub fn is_enterprise_server(api_url: &str) -> bool {
    api_url.trim_end_matches('/').ends_with("/api/v3")
}

/// What GitHub is asked with.
#[derive(Debug, Clone)]
pub enum GithubAuth {
    /// A personal access token; white space around it is ignored.
    Token(SecretString),
    /// A GitHub App, whose installations each have a token of their own.
    App {
        /// Its id, or its client id.
        id: String,
        /// Its private key.
        key: AppKey,
    },
}

impl GithubAuth {
    /// Whether GitHub sees the same token, or the same App by the same id.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::App { id, .. }, Self::App { id: other, .. }) => id == other,
            (Self::Token(_) | Self::App { .. }, _) => self.is_same(other),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(token), Self::Token(other)) => token.expose_secret().trim() == other.expose_secret().trim(),
            (Self::App { id, key }, Self::App { id: other_id, key: other_key }) => {
                id == other_id && key.is_same(other_key)
            }
            (Self::Token(_) | Self::App { .. }, _) => false,
        }
    }
}

/// Makes the clients of an account, which reach GitHub over the network. Nothing is sent before the first call.
///
/// # Errors
/// [`GithubError::Settings`] where the address or the token cannot be used.
///
/// # Panics
/// Outside a tokio runtime: octocrab starts a task of its own.
pub fn connect(settings: GithubSettings, clock: Clock) -> Result<(GithubReaders, GithubWriters), GithubError> {
    let base = check(&settings)?;
    transport::refuse_plain_http(&base)?;
    let octocrab = transport::over_network(base)?;
    Ok(accounts::share(Account::new(octocrab, settings, clock)?))
}

/// Makes the clients of an account, which hand their requests to a service within this process, such as an axum `Router`.
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
) -> Result<(GithubReaders, GithubWriters), GithubError>
where
    S: tower::Service<Request<axum::body::Body>, Response = Response<axum::body::Body>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let octocrab = transport::in_process(service, check(&settings)?);
    Ok(accounts::share(Account::new(octocrab, settings, clock)?))
}

/// The cached pages of some clients as text, for the next process; none where that would be too long. Those of a GitHub
/// App are left out: the next process has other tokens, and with them other `ETags`.
pub fn keep_pages(readers: &[GithubReader]) -> Option<String> {
    let clients = readers.iter().map(GithubReader::client).filter(|client| client.identity().is_some());
    kept::encode(clients.map(|client| &*client.caches))
}

/// Lays pages that an earlier process kept into the caches of the clients that read them, and tells how many there
/// were. Each is used only after GitHub has said that it is still true.
///
/// # Errors
/// [`UnusablePages`] where the text is not what [`keep_pages`] wrote.
pub fn restore_pages(text: &str, readers: &[GithubReader]) -> Result<usize, UnusablePages> {
    let clients = readers.iter().map(GithubReader::client);
    let caches: Vec<_> = clients.filter_map(|client| Some((client.identity()?, &*client.caches))).collect();
    kept::decode(text, &caches)
}

/// What a process keeps that lays kept pages into the cache of one client, with this address and token, and reads nothing
/// (pure): how many pages there were, and the text, which is none where it would be too long.
///
/// # Errors
/// As [`restore_pages`].
pub fn pages_kept_again(text: &str, api_url: &str, token: &str) -> Result<(usize, Option<String>), UnusablePages> {
    let caches = etag::PageCaches::default();
    let count = kept::decode(text, &[(etag::Credential::new(api_url, token), &caches)])?;
    Ok((count, kept::encode([&caches].into_iter())))
}

/// How often any cached page of some clients has changed that is kept.
pub fn page_changes(readers: &[GithubReader]) -> u64 {
    let clients = readers.iter().map(GithubReader::client).filter(|client| client.identity().is_some());
    clients.map(|client| client.caches.changes()).sum()
}

/// Checks what can be checked without asking.
fn check(settings: &GithubSettings) -> Result<Uri, GithubError> {
    if settings.max_in_flight == 0 {
        return Err(GithubError::Settings { key: "max_in_flight", problem: "must be at least 1" });
    }
    transport::parse_base(&settings.api_url)
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
