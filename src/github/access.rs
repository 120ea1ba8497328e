//! What a credential may do, as far as GitHub tells without anything being changed.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::GithubError;
use super::call::{Call, Operation};
use super::client::Request;
use super::error::Malformed;
use super::pages::unreadable;
use super::reader::{GithubReader, runners_path};
use crate::budget::Purpose;
use crate::error::ErrorClass;
use crate::ids::RepoName;
use crate::state::Registry;

/// What kind of token a text is, by its beginning (GitHub docs: about authentication, token formats).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A fine-grained personal token, with permissions.
    FineGrained,
    /// A classic personal token, with scopes.
    Classic,
    /// What a GitHub App has got for an hour.
    Installation,
    /// Some other text.
    Other,
}

impl TokenKind {
    /// Looks at how the token begins.
    pub fn of(token: &SecretString) -> Self {
        let text = token.expose_secret().trim();
        let begins = |beginning: &str| text.starts_with(beginning);
        if begins("github_pat_") {
            Self::FineGrained
        } else if begins("ghp_") {
            Self::Classic
        } else if begins("ghs_") {
            Self::Installation
        } else {
            Self::Other
        }
    }
}

/// The requests of an hour, as `/rate_limit` tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourlyQuota {
    /// How many there are.
    pub limit: u32,
    /// How many are left.
    pub remaining: u32,
}

/// What GitHub says of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenAccess {
    /// The scopes of a classic token; none for any other.
    pub scopes: Option<BTreeSet<String>>,
    /// Its quota; none where there is no limit, as at most Enterprise Servers.
    pub quota: Option<HourlyQuota>,
    /// When it ends, by our clock, where GitHub says so.
    pub ends: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct LimitsBody {
    resources: Resources,
}

#[derive(Deserialize)]
struct Resources {
    core: Core,
}

#[derive(Deserialize)]
struct Core {
    limit: u32,
    remaining: u32,
}

#[derive(Deserialize)]
struct ActionsBody {
    enabled: bool,
}

impl GithubReader {
    /// Reads what GitHub says of the token itself.
    ///
    /// # Errors
    /// [`GithubError`] where it is refused, or GitHub does not answer.
    pub async fn access(&self) -> Result<TokenAccess, GithubError> {
        let call = Call::new(Operation::GetRateLimit, self.credential().to_string());
        let request = Request::Get { path: "/rate_limit", known: None };
        let answer = match self.client().send(&call, Purpose::Other, request).await {
            Ok(answer) => answer,
            // Where nothing is limited there is no such path.
            Err(error) if error.class() == ErrorClass::NotFound => return Ok(self.with_end(TokenAccess::default())),
            Err(error) => return Err(error),
        };
        let body: LimitsBody = serde_json::from_slice(&answer.body)
            .map_err(|error| unreadable(&call, &answer, Malformed::json("the limits", &error)))?;
        let Core { limit, remaining } = body.resources.core;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|value| value.to_str().ok());
        Ok(self.with_end(TokenAccess {
            scopes: scopes.map(read_scopes),
            quota: Some(HourlyQuota { limit, remaining }),
            ends: None,
        }))
    }

    fn with_end(&self, access: TokenAccess) -> TokenAccess {
        TokenAccess { ends: self.state().token_ends, ..access }
    }

    /// Whether Actions are enabled in a repository.
    ///
    /// # Errors
    /// [`GithubError`], of class `Forbidden` where the credential may not read that.
    pub async fn actions_enabled(&self, repo: &RepoName) -> Result<bool, GithubError> {
        let call = Call::new(Operation::GetActionsPermissions, repo.to_string());
        let path = format!("/repos/{repo}/actions/permissions");
        let answer = self.client().send(&call, Purpose::Other, Request::Get { path: &path, known: None }).await?;
        let body: ActionsBody = serde_json::from_slice(&answer.body)
            .map_err(|error| unreadable(&call, &answer, Malformed::json("the settings", &error)))?;
        Ok(body.enabled)
    }

    /// Asks for the newest run of a repository, to see whether it may be read.
    ///
    /// # Errors
    /// [`GithubError`] with the reason.
    pub async fn try_runs(&self, repo: &RepoName) -> Result<(), GithubError> {
        let call = Call::new(Operation::ListRuns, repo.to_string());
        let path = format!("/repos/{repo}/actions/runs?exclude_pull_requests=true&per_page=1");
        self.client().send(&call, Purpose::Other, Request::Get { path: &path, known: None }).await.map(drop)
    }

    /// Asks for one runner of a place, to see whether they may be read.
    ///
    /// # Errors
    /// [`GithubError`] with the reason.
    pub async fn try_runners(&self, registry: &Registry) -> Result<(), GithubError> {
        let call = Call::at(registry, Operation::ListRunners, registry.to_string());
        let path = format!("{}?per_page=1", runners_path(registry));
        self.client().send(&call, Purpose::Other, Request::Get { path: &path, known: None }).await.map(drop)
    }

    /// How far GitHub's time is ahead of ours: zero until two of its answers have agreed on something else.
    pub fn skew(&self) -> TimeDelta {
        self.client().skew()
    }
}

fn read_scopes(text: &str) -> BTreeSet<String> {
    text.split(',').map(|scope| scope.trim().to_owned()).filter(|scope| !scope.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_token_is_told_by_its_beginning() {
        let kind = |text: &str| TokenKind::of(&text.to_owned().into());
        assert_eq!(kind("github_pat_11AB"), TokenKind::FineGrained);
        assert_eq!(kind(" ghp_x\n"), TokenKind::Classic);
        assert_eq!(kind("ghs_x"), TokenKind::Installation);
        assert_eq!((kind("simulated"), kind("")), (TokenKind::Other, TokenKind::Other));
    }

    #[test]
    fn scopes_are_read_whatever_the_spaces() {
        assert_eq!(read_scopes("repo,  admin:org"), ["admin:org", "repo"].map(str::to_owned).into());
        assert!(read_scopes("").is_empty());
    }
}
