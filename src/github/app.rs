//! A GitHub App: where it is installed, and the tokens of its installations.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::{Call, Operation};
use super::client::{Client, Request};
use super::error::Malformed;
use super::pages::{names_next, unreadable};
use super::rate;
use super::token::Token;
use super::{Answer, GithubError};
use crate::budget::Purpose;
use crate::clock::Clock;
use crate::error::{CallFailure, ErrorClass};
use crate::state::{Installed, Permissions};

/// An App may be installed at more owners than these; nobody's configuration names so many.
const INSTALLATION_PAGES_MAX: u32 = 30;

/// An App with what is known of its installations.
#[derive(Debug)]
pub(super) struct App {
    /// Asks with the App's own tokens.
    pub(super) client: Arc<Client>,
    api_url: String,
    clock: Clock,
    installed: Mutex<Option<BTreeMap<Arc<str>, Installed>>>,
    /// Whoever holds it asks where the App is installed; all others take what that came to.
    turn: tokio::sync::Mutex<()>,
}

/// A token that is on its way; boxed, because to fetch one is itself a request of a client that needs a token.
type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Token, CallFailure>> + Send + 'a>>;

/// What an installation is looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// What was listed before, where it is there.
    Known,
    /// A new list.
    Anew,
}

impl App {
    pub(super) fn new(client: Client, api_url: String, clock: Clock) -> Self {
        let turn = tokio::sync::Mutex::default();
        Self { client: client.into(), api_url, clock, installed: Mutex::default(), turn }
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<Arc<str>, Installed>>> {
        // It is replaced as a whole.
        self.installed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists where the App is installed.
    ///
    /// # Errors
    /// [`GithubError`] where a page cannot be read, or the list goes on after 30 pages: a part of it proves nothing of the
    /// rest.
    pub(super) async fn list(&self) -> Result<Vec<Installed>, GithubError> {
        let call = Call::new(Operation::ListInstallations, "the GitHub App");
        let mut all = BTreeMap::new();
        for number in 1..=INSTALLATION_PAGES_MAX {
            let path = format!("/app/installations?per_page=100&page={number}");
            let answer = self.client.send(&call, Purpose::Other, Request::Get { path: &path, known: None }).await?;
            let rows = read_installations(&answer).map_err(|malformed| unreadable(&call, &answer, malformed))?;
            all.extend(rows.into_iter().map(|installed| (Arc::clone(&installed.owner), installed)));
            if names_next(&answer.headers) != Some(true) {
                *self.lock() = Some(all.clone());
                return Ok(all.into_values().collect());
            }
        }
        // What was seen is true all the same.
        *self.lock() = Some(all);
        Err(GithubError::Unreadable { call, request_id: None, source: Malformed::Endless })
    }

    /// Reads what the App is, and asks of whoever installs it.
    ///
    /// # Errors
    /// [`GithubError`]
    pub(super) async fn about(&self) -> Result<AppFacts, GithubError> {
        let call = Call::new(Operation::GetApp, "the GitHub App");
        let answer = self.client.send(&call, Purpose::Other, Request::Get { path: "/app", known: None }).await?;
        let app: WireApp = serde_json::from_slice(&answer.body)
            .map_err(|error| unreadable(&call, &answer, Malformed::json("the App", &error)))?;
        Ok(AppFacts { name: app.name, permissions: app.permissions })
    }

    /// Asks for a new token of the installation at `owner`.
    ///
    /// # Errors
    /// [`CallFailure`] with what to do about it.
    pub(super) fn token_of<'a>(&'a self, owner: &'a str) -> Fetched<'a> {
        Box::pin(self.new_token_of(owner))
    }

    async fn new_token_of(&self, owner: &str) -> Result<Token, CallFailure> {
        let installed = self.find(owner, Look::Known).await?;
        let error = match self.fetch(&installed).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        if error.class() != ErrorClass::NotFound {
            return Err(error.into());
        }
        // An App that was installed anew has another id.
        let again = self.find(owner, Look::Anew).await?;
        if again.id == installed.id {
            return Err(CallFailure { class: ErrorClass::Forbidden, ..error.into() });
        }
        self.fetch(&again).await.map_err(|error| {
            let failure = CallFailure::from(error);
            let class = if failure.class == ErrorClass::NotFound { ErrorClass::Forbidden } else { failure.class };
            CallFailure { class, ..failure }
        })
    }

    async fn find(&self, owner: &str, look: Look) -> Result<Installed, CallFailure> {
        let known = |app: &Self| app.lock().as_ref().and_then(|all| all.get(owner)).cloned();
        let usable = |installed: &Installed| look == Look::Known && !installed.is_suspended;
        if let Some(installed) = known(self).filter(usable) {
            return Ok(installed);
        }
        let listed = {
            let _turn = self.turn.lock().await;
            // Somebody else may have listed them meanwhile.
            if known(self).as_ref().is_some_and(usable) { Ok(()) } else { self.list().await.map(drop) }
        };
        if let Err(error) = listed
            && !(matches!(error, GithubError::Unreadable { source: Malformed::Endless, .. }) && known(self).is_some())
        {
            return Err(error.into());
        }
        let refused = |message: String| CallFailure { class: ErrorClass::Forbidden, message, retry_after: None };
        match known(self) {
            Some(installed) if !installed.is_suspended => Ok(installed),
            Some(_) => Err(refused(format!(
                "the installation of the GitHub App at `{owner}` is suspended: its owner can end that"
            ))),
            None => Err(refused(format!(
                "the GitHub App is not installed at `{owner}`: install it there, for the repositories to be served"
            ))),
        }
    }

    async fn fetch(&self, installed: &Installed) -> Result<Token, GithubError> {
        let call = Call::new(Operation::CreateInstallationToken, installed.owner.to_string());
        let path = format!("/app/installations/{}/access_tokens", installed.id);
        let body = serde_json::json!({});
        let answer = self.client.send(&call, Purpose::Token, Request::Post { path: &path, body: &body }).await?;
        read_token(&answer, &self.api_url, &self.clock).map_err(|malformed| unreadable(&call, &answer, malformed))
    }
}

/// A GitHub App as GitHub describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppFacts {
    /// Its name, as people read it.
    pub name: String,
    /// What it asks of whoever installs it.
    pub permissions: Permissions,
}

#[derive(Deserialize)]
struct WireApp {
    name: String,
    permissions: Permissions,
}

#[derive(Deserialize)]
struct WireInstallation {
    id: u64,
    account: Option<WireAccount>,
    suspended_at: Option<String>,
    #[serde(default)]
    permissions: Permissions,
}

#[derive(Deserialize)]
struct WireAccount {
    /// An enterprise has none.
    login: Option<String>,
}

fn read_installations(answer: &Answer) -> Result<Vec<Installed>, Malformed> {
    let rows: Vec<&RawValue> =
        serde_json::from_slice(&answer.body).map_err(|error| Malformed::json("the list", &error))?;
    let read = |row: &RawValue| -> Option<Installed> {
        let WireInstallation { id, account, suspended_at, permissions } = serde_json::from_str(row.get()).ok()?;
        let owner = account?.login?.to_ascii_lowercase().into();
        Some(Installed { owner, id, is_suspended: suspended_at.is_some(), permissions })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

#[derive(Deserialize)]
struct WireToken {
    token: SecretString,
    expires_at: String,
}

/// Puts the end of the token's life on our clock, by the date of the same answer where it has one.
fn read_token(answer: &Answer, api_url: &str, clock: &Clock) -> Result<Token, Malformed> {
    let WireToken { token, expires_at } =
        serde_json::from_slice(&answer.body).map_err(|error| Malformed::json("the token", &error))?;
    let ends: DateTime<Utc> = DateTime::parse_from_rfc3339(&expires_at).map_err(|_| Malformed::Token)?.to_utc();
    let now = clock.now();
    let github_now = rate::date(&answer.headers).unwrap_or_else(|| now + clock.skew());
    Token::new(api_url, token.expose_secret(), now, Some(now + (ends - github_now))).ok_or(Malformed::Token)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn answer(body: &str) -> Answer {
        let headers = HeaderMap::from_iter([(http::header::DATE, "Thu, 01 Jan 1970 01:00:00 GMT".parse().unwrap())]);
        Answer { status: StatusCode::OK, headers, body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn installations_are_known_by_their_owner_and_odd_ones_left_out() {
        let body = r#"[{"id": 7, "account": {"login": "Acme"}, "suspended_at": null},
            {"id": 8, "account": {"login": "beta"}, "suspended_at": "2026-01-01T00:00:00Z"},
            {"id": 9, "account": {"slug": "an-enterprise"}}, {"id": "x"}, {"id": 10, "account": null}]"#;
        let read = read_installations(&answer(body)).unwrap();
        let told: Vec<_> = read.iter().map(|i| (&*i.owner, i.id, i.is_suspended)).collect();
        assert_eq!(told, [("acme", 7, false), ("beta", 8, true)]);
        assert!(read_installations(&answer("{}")).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_by_our_clock_however_far_githubs_is_ahead() {
        // GitHub's clock is an hour ahead.
        let clock = Clock::scaled(DateTime::UNIX_EPOCH, 1.0);
        let body = r#"{"token": "ghs_canary0123", "expires_at": "1970-01-01T02:00:00Z", "permissions": {}}"#;
        let token = read_token(&answer(body), "https://api.github.com", &clock).unwrap();
        assert_eq!(token.ends.map(|ends| (ends - clock.now()).num_seconds()), Some(3_600));
        for odd in
            ["{}", r#"{"token": "a b", "expires_at": "1970-01-01T02:00:00Z"}"#, r#"{"token":"a","expires_at":"x"}"#]
        {
            let malformed = read_token(&answer(odd), "https://api.github.com", &clock).unwrap_err();
            assert!(!malformed.to_string().contains("a b"));
        }
    }
}
