//! What the parts of the controller need to know of a failed call, whichever service it went to.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What a failure means for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// The credential is refused (401): nothing works until someone changes it.
    Unauthorized,
    /// The credential lacks a permission (403).
    Forbidden,
    /// The repository refuses: Actions or self-hosted runners are disabled, archived (403).
    Policy,
    /// There is no such thing, or it is hidden from this credential.
    NotFound,
    /// The name is taken (409, `ALREADY_EXISTS`).
    Conflict,
    /// The request itself is wrong (422, `INVALID_ARGUMENT`): repeating it does not help.
    Invalid,
    /// The service asks to slow down.
    RateLimited,
    /// The service or the way to it is broken; whether the call took effect is not known.
    Unavailable,
    /// An answer that cannot be read.
    Unreadable,
    /// The call was not made, because one that must precede it failed so that it may succeed later.
    Unsent,
}

impl ErrorClass {
    /// Every class, for metrics that show zero.
    pub const ALL: [Self; 10] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::Policy,
        Self::NotFound,
        Self::Conflict,
        Self::Invalid,
        Self::RateLimited,
        Self::Unavailable,
        Self::Unreadable,
        Self::Unsent,
    ];

    /// The class as a metric label and a log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Policy => "policy",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Unreadable => "unreadable",
            Self::Unsent => "unsent",
        }
    }

    /// Whether a call that failed so may have taken effect all the same.
    pub fn may_have_taken_effect(self) -> bool {
        match self {
            Self::Unavailable | Self::Unreadable => true,
            Self::Unauthorized
            | Self::Forbidden
            | Self::Policy
            | Self::NotFound
            | Self::Conflict
            | Self::Invalid
            | Self::RateLimited
            | Self::Unsent => false,
        }
    }

    /// Whether it passes by itself, so that the same call may succeed later.
    pub fn may_pass(self) -> bool {
        self.may_have_taken_effect() || matches!(self, Self::RateLimited | Self::Unsent)
    }

    /// What the failure of a call means for another one that was to follow it.
    #[must_use]
    pub fn before_the_call(self) -> Self {
        if self.may_have_taken_effect() { Self::Unsent } else { self }
    }
}

/// A failed call, reduced to what decisions and people need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// What it means for the next attempt.
    pub class: ErrorClass,
    /// The whole chain of causes as one line, free of secrets.
    pub message: String,
    /// How long the service asked to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CallFailure {}

/// The text without a secret that it repeats, as a careless proxy or service may.
///
/// Short secrets are left alone: replacing "1" or "true" would destroy the text and hide nothing.
pub(crate) fn redact(text: &str, secret: &str) -> String {
    if secret.len() < 8 { text.to_owned() } else { text.replace(secret, "[redacted]") }
}

/// Prints an error with all its causes, separated by colons, each once.
#[derive(Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Libraries differ in whether Display repeats the cause.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}
