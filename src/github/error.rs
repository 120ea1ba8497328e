//! Why a call to GitHub failed, and what that means for the next attempt.
//!
//! No error holds a token, a JIT config or a body: only the status, GitHub's own message and its headers.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::call::{Call, Operation};
use super::rate::{self, Limit};
use crate::clock::Elapsed;
use crate::error::{CallFailure, ErrorChain, ErrorClass, redact};
use crate::ids::{Labels, RunnerId};

/// A call to GitHub that failed, or a client that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// A setting cannot be used.
    #[error("`{key}` {problem}")]
    Settings {
        /// The setting.
        key: &'static str,
        /// What it must be.
        problem: &'static str,
    },
    /// The HTTP client cannot be made, for instance without any trusted certificate.
    #[error("cannot make an HTTP client for GitHub")]
    Transport {
        /// What is missing.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing was sent, because GitHub limits the credential.
    #[error("cannot {call}: nothing is sent while GitHub limits this credential, for another {}s", wait.as_secs())]
    Held {
        /// The call.
        call: Call,
        /// How long the limit lasts.
        wait: Duration,
    },
    /// Nothing was sent, because no token is to be had.
    #[error("cannot {call}")]
    NoToken {
        /// The call.
        call: Call,
        /// Why there is none.
        #[source]
        source: CallFailure,
    },
    /// GitHub answered with a refusal.
    #[error("cannot {call}: {refusal}")]
    Refused {
        /// The call.
        call: Call,
        /// The answer.
        refusal: Box<Refusal>,
    },
    /// No answer came in time.
    #[error("cannot {call}")]
    TimedOut {
        /// The call.
        call: Call,
        /// The deadline.
        #[source]
        source: Elapsed,
    },
    /// The way to GitHub broke, or its answer was cut or too long.
    #[error("cannot {call}: no whole answer from GitHub")]
    NoAnswer {
        /// The call.
        call: Call,
        /// What broke.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// GitHub answered something else than its description promises.
    #[error("cannot {call}: the answer cannot be read{}", RequestId(request_id.as_deref()))]
    Unreadable {
        /// The call.
        call: Call,
        /// `X-GitHub-Request-Id`.
        request_id: Option<String>,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// A runner was registered, but with other labels: it would take other jobs.
    #[error("cannot {call}: runner {runner_id} was registered with the labels [{actual}], not [{wanted}]")]
    OtherLabels {
        /// The call.
        call: Call,
        /// The runner, which stays registered.
        runner_id: RunnerId,
        /// The labels asked for.
        wanted: Labels,
        /// The labels it has.
        actual: Labels,
    },
}

/// What is wrong with an answer; never a part of it, as that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no JSON, or not of the promised form.
    #[error("{what} is not of the promised form (line {line}, column {column})")]
    Json {
        /// Which part.
        what: &'static str,
        /// Where, from 1; 0 where the place is not known.
        line: usize,
        /// Where, from 1; 0 where the place is not known.
        column: usize,
    },
    /// The JIT config is no base64.
    #[error("the JIT config is not base64")]
    Base64,
    /// The JIT config is an empty object.
    #[error("the JIT config holds no files")]
    NoFiles,
    /// It says that nothing changed, although nothing was known.
    #[error("it says `not modified` to a request that named no version")]
    NotModified,
    /// A repository's name is of another form.
    #[error("it names a repository that cannot be")]
    Repository,
    /// The list has more pages than can be.
    #[error("the list does not end")]
    Endless,
    /// The token is none that a request could be sent with, or has no end.
    #[error("the token cannot be used")]
    Token,
    /// There is no runner for our platform in the list of releases.
    #[error("it lists no usable runner for linux and x64")]
    NoRelease,
}

impl Malformed {
    pub(super) fn json(what: &'static str, error: &serde_json::Error) -> Self {
        Self::Json { what, line: error.line(), column: error.column() }
    }
}

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// GitHub's message, with the details it gives.
    pub message: String,
    /// `X-GitHub-Request-Id`, which GitHub's support asks for.
    pub request_id: Option<String>,
    /// What the refusal means for the next attempt.
    pub class: ErrorClass,
    /// How long GitHub asks to wait.
    pub retry_after: Option<Duration>,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitHub answered {}: {}", self.status, self.message)?;
        RequestId(self.request_id.as_deref()).fmt(f)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// Prints a request id in brackets, if there is one.
struct RequestId<'a>(Option<&'a str>);

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |id| write!(f, " (request {id})"))
    }
}

/// `X-GitHub-Request-Id`.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    text_header(headers, "x-github-request-id")
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(one_line).filter(|text| !text.is_empty())
}

impl Refusal {
    /// Reads an answer that is no success; `token` is not repeated even if the answer does.
    pub(super) fn read(call: &Call, answer: &super::Answer, token: &str, now: DateTime<Utc>) -> (Self, Option<Limit>) {
        let message = message(answer.status, &answer.body, token);
        let limit = Limit::of(answer.status, &answer.headers, &message, now);
        let class = if limit.is_some() { ErrorClass::RateLimited } else { class(answer.status, &message) };
        let refusal = Self {
            status: answer.status.as_u16(),
            request_id: answer.request_id(),
            class,
            retry_after: limit.map_or_else(|| rate::retry_after(&answer.headers), Limit::wait),
            remedy: remedy(call, class, answer, &message),
            message,
        };
        (refusal, limit)
    }
}

/// The class of a refusal that is no rate limit.
fn class(status: StatusCode, message: &str) -> ErrorClass {
    match status.as_u16() {
        300..=399 => ErrorClass::Policy,
        401 => ErrorClass::Unauthorized,
        403 if is_policy(message) => ErrorClass::Policy,
        403 => ErrorClass::Forbidden,
        404 => ErrorClass::NotFound,
        409 => ErrorClass::Conflict,
        408 | 500.. => ErrorClass::Unavailable,
        // Also 410: of a version of the API that is no more, which says nothing of what was asked for.
        _ => ErrorClass::Invalid,
    }
}

/// Whether the repository refuses, rather than the credential.
fn is_policy(message: &str) -> bool {
    let text = message.to_lowercase();
    let of_repository = ["runners are disabled", "actions is disabled", "repository has been", "was archived"];
    of_repository.iter().any(|part| text.contains(part))
}

fn remedy(call: &Call, class: ErrorClass, answer: &super::Answer, message: &str) -> Option<String> {
    let text = message.to_lowercase();
    match class {
        ErrorClass::Unauthorized if call.operation.is_of_app() => {
            Some("check that `app_id` and the private key belong together, and that the key was not deleted".to_owned())
        }
        ErrorClass::Forbidden if text.contains("suspended") => {
            Some("the owner of the organization can end the suspension of the GitHub App".to_owned())
        }
        ErrorClass::Forbidden if text.contains("ip address") || text.contains("ip allow list") => {
            Some("add this machine's address to the organization's IP allow list".to_owned())
        }
        ErrorClass::Forbidden if text.contains("saml") || answer.headers.contains_key("x-github-sso") => Some(
            "the organization asks for single sign-on: authorize the token for it (in the token's settings, Configure SSO)"
                .to_owned(),
        ),
        ErrorClass::Unauthorized => Some("check that the token is whole, not expired and not revoked".to_owned()),
        ErrorClass::Forbidden => {
            let accepted = text_header(&answer.headers, "x-accepted-github-permissions");
            let needed = accepted.map_or_else(|| call.permission(), |needed| format!("permission `{needed}`"));
            Some(format!("the token needs the {needed}"))
        }
        ErrorClass::Policy if answer.status.is_redirection() => {
            Some("the repository was renamed or moved: change its name in the configuration".to_owned())
        }
        ErrorClass::Policy => Some("enable Actions and self-hosted runners in the repository's settings".to_owned()),
        ErrorClass::NotFound if call.operation == Operation::ListOrgRepos => Some(
            "only an organization's repositories can be listed with a token: name those of a user one by one"
                .to_owned(),
        ),
        ErrorClass::NotFound => Some(format!("check its name, and that the token may see it ({})", call.permission())),
        ErrorClass::Conflict
        | ErrorClass::Invalid
        | ErrorClass::RateLimited
        | ErrorClass::Unavailable
        | ErrorClass::Unreadable
        | ErrorClass::Unsent => None,
    }
}

/// GitHub's error body, as far as it is one.
#[derive(Deserialize)]
struct ErrorBody {
    message: String,
    #[serde(default)]
    errors: serde_json::Value,
}

/// The longest message that is kept; GitHub's own are shorter.
const LONGEST_MESSAGE: usize = 300;

/// GitHub's message with its details; the status in words where a proxy answered something else.
fn message(status: StatusCode, body: &[u8], token: &str) -> String {
    let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else {
        let words = status.canonical_reason().unwrap_or("unknown status");
        return if body.is_empty() { words.to_owned() } else { format!("{words}, in a body that is not GitHub's") };
    };
    let details: Vec<String> = match body.errors.as_array() {
        Some(errors) => errors.iter().filter_map(detail).collect(),
        None => detail(&body.errors).into_iter().collect(),
    };
    let text = if details.is_empty() { body.message } else { format!("{}: {}", body.message, details.join(", ")) };
    one_line(&redact(&text, token))
}

/// One entry of `errors`: a text, or an object with a message or with a field and a code.
fn detail(error: &serde_json::Value) -> Option<String> {
    let member = |name| error.get(name).and_then(serde_json::Value::as_str);
    error
        .as_str()
        .or_else(|| member("message"))
        .map(str::to_owned)
        .or_else(|| Some(format!("{} {}", member("field")?, member("code")?)))
}

/// Bounds a text of others and takes out what could forge lines in a log.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_MESSAGE).collect()
}

impl GithubError {
    /// Whether GitHub refuses the token that the request was sent with.
    pub(super) fn refuses_token(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.status == 401)
    }

    /// What the failure means for the next attempt.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Settings { .. } | Self::Transport { .. } => ErrorClass::Invalid,
            Self::Held { .. } => ErrorClass::RateLimited,
            Self::NoToken { source, .. } => source.class.before_the_call(),
            Self::Refused { refusal, .. } => refusal.class,
            Self::TimedOut { .. } | Self::NoAnswer { .. } => ErrorClass::Unavailable,
            Self::Unreadable { .. } | Self::OtherLabels { .. } => ErrorClass::Unreadable,
        }
    }

    /// How long GitHub asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Held { wait, .. } => Some(*wait),
            Self::NoToken { source, .. } => source.retry_after,
            Self::Refused { refusal, .. } => refusal.retry_after,
            Self::Settings { .. }
            | Self::Transport { .. }
            | Self::TimedOut { .. }
            | Self::NoAnswer { .. }
            | Self::Unreadable { .. }
            | Self::OtherLabels { .. } => None,
        }
    }
}

impl From<GithubError> for CallFailure {
    fn from(error: GithubError) -> Self {
        Self { class: error.class(), retry_after: error.retry_after(), message: ErrorChain(&error).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Answer;
    use super::*;

    fn refusal(status: u16, body: &'static str) -> Refusal {
        let call = Call::new(Operation::ListJobs, "run 7 of acme/web");
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
        Refusal::read(&call, &answer, "ghp_0123456789", DateTime::UNIX_EPOCH).0
    }

    #[test]
    fn the_meanings_of_403_are_told_apart() {
        let class = |message: &str| class(StatusCode::FORBIDDEN, message);
        assert_eq!(class("Resource not accessible by personal access token"), ErrorClass::Forbidden);
        assert_eq!(class("Repository level self-hosted runners are disabled on this repository"), ErrorClass::Policy);
        assert_eq!(class("GitHub Actions is disabled on this repository."), ErrorClass::Policy);
        assert_eq!(class("This repository has been disabled."), ErrorClass::Policy);
        assert_eq!(class("Repository was archived so is read-only."), ErrorClass::Policy);
        assert_eq!(class("your IP address is not permitted to access this resource"), ErrorClass::Forbidden);
    }

    #[test]
    fn a_token_that_single_sign_on_keeps_out_is_to_be_authorized_and_needs_no_other_permission() {
        let saml = r#"{"message":"Resource protected by organization SAML enforcement. You must grant your Personal Access token access to this organization."}"#;
        let told = refusal(403, saml);
        assert_eq!(told.class, ErrorClass::Forbidden);
        let remedy = told.remedy.unwrap();
        assert!(remedy.contains("single sign-on") && !remedy.contains("permission"), "{remedy}");
        let other = refusal(403, r#"{"message":"Resource not accessible by personal access token"}"#);
        assert!(other.remedy.unwrap().contains("permission"));
    }

    #[test]
    fn every_form_of_error_body_gives_one_line() {
        let message = |body| refusal(422, body).message;
        assert_eq!(message(r#"{"message":"Invalid","errors":["a","b"]}"#), "Invalid: a, b");
        assert_eq!(
            message(r#"{"message":"Invalid","errors":[{"field":"name","code":"missing"},7]}"#),
            "Invalid: name missing"
        );
        assert_eq!(message(r#"{"message":"Invalid","errors":"odd\nline"}"#), "Invalid: odd line");
        assert_eq!(message("<html>"), "Unprocessable Entity, in a body that is not GitHub's");
        assert_eq!(message(""), "Unprocessable Entity");
        assert_eq!(
            message(r#"{"message":"no ghp\u005f0123456789","errors":["ghp_0123456789"]}"#),
            "no [redacted]: [redacted]"
        );
    }

    #[test]
    fn a_refusal_reads_as_one_sentence_with_its_remedy() {
        assert_eq!(
            refusal(404, r#"{"message":"Not Found"}"#).to_string(),
            "GitHub answered 404: Not Found; check its name, and that the token may see it (repository permission `actions=read`)"
        );
    }
}
