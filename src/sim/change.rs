//! What all changes of a World from outside have in common: how they are read, and why they cannot be made.

use std::fmt;

use serde::{Deserialize, Deserializer};

use crate::ids::InvalidId;

/// A change of a World that cannot be made; nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is nothing of that name.
    #[error("there is no {kind} `{name}`{}", Known(known))]
    Unknown {
        /// What was looked for.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The name is taken.
    #[error("there already is the {kind} `{name}`")]
    Taken {
        /// What was to be added.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A repository is not written as `owner/name`.
    #[error("the repository cannot be called that")]
    Repo(#[from] InvalidId),
    /// It cannot be so.
    #[error("{subject}: {reason}")]
    Impossible {
        /// What was to be changed.
        subject: String,
        /// Why it cannot be.
        reason: String,
    },
}

impl ChangeError {
    pub(super) fn unknown(kind: &'static str, name: &str, known: impl IntoIterator<Item = String>) -> Self {
        Self::Unknown { kind, name: name.to_owned(), known: known.into_iter().collect() }
    }

    pub(super) fn impossible(subject: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Impossible { subject: subject.to_string(), reason: reason.into() }
    }
}

/// A null that stands there is another thing than nothing.
pub(super) fn stated<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// How many names are told of those there are.
const TOLD: usize = 5;

/// Prints what there is, if there is anything.
struct Known<'a>(&'a [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<String> = self.0.iter().take(TOLD).map(|name| format!("`{name}`")).collect();
        match (told.is_empty(), self.0.len().saturating_sub(TOLD)) {
            (true, _) => Ok(()),
            (false, 0) => write!(f, "; there is {}", told.join(", ")),
            (false, more) => write!(f, "; there is {} and {more} more", told.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let text =
            |count: usize| ChangeError::unknown("repository", "a/b", (0..count).map(|n| format!("a/{n}"))).to_string();
        assert_eq!(text(0), "there is no repository `a/b`");
        assert_eq!(text(2), "there is no repository `a/b`; there is `a/0`, `a/1`");
        assert!(text(7).ends_with("`a/4` and 2 more"), "{}", text(7));
    }
}
