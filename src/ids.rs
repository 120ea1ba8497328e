//! Names and ids, checked where they enter.
//!
//! A repository or label is compared without regard to case, as GitHub does; both are folded here once.

mod credential;
mod fingerprint;
mod labels;
mod our_name;
mod repo;
mod short_name;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

pub use credential::CredentialName;
pub use fingerprint::Fingerprint;
pub use labels::Labels;
pub use our_name::OurName;
pub use repo::{OrgName, RepoName};
pub use short_name::{AccountName, Deployment};

/// A text that does not have the form that its name or id needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct InvalidId {
    /// The text as given.
    pub value: String,
    /// What was expected, with the form.
    pub expected: &'static str,
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Reads the text that `Display` writes, with the checks of where the name first entered.
macro_rules! deserialize_checked {
    ($($name:ident),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

deserialize_checked!(AccountName, CredentialName, RepoName, Fingerprint, OurName);

number_id! {
    /// A workflow job's id; new for every attempt of a run.
    JobId
}
number_id! {
    /// A workflow run's id; the same over all its attempts.
    RunId
}
number_id! {
    /// A repository's id, which stays the same when it is renamed.
    RepositoryId
}
number_id! {
    /// A runner registration's id, unique within its scope.
    RunnerId
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the id as the service gave it; ids of others have no form that could be relied on.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_id! {
    /// A Modal sandbox's id.
    SandboxId
}
text_id! {
    /// A Modal Secret's id.
    SecretId
}
text_id! {
    /// A Modal Volume's id.
    VolumeId
}
text_id! {
    /// A Modal image's id.
    ImageId
}
text_id! {
    /// A Modal App's id.
    AppId
}
text_id! {
    /// The id of what runs a Modal sandbox on a machine.
    TaskId
}
text_id! {
    /// The name of a runner class.
    ClassName
}

impl SandboxId {
    /// Whether Modal made this sandbox with its older interface (V1): `sb-` and 22 letters or digits.
    /// Anything else is V2 (source: the official clients, `modal-api.md` §5).
    pub fn is_v1(&self) -> bool {
        self.0
            .strip_prefix("sb-")
            .is_some_and(|rest| rest.len() == 22 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_of_a_sandbox_is_read_from_its_id() {
        assert!(SandboxId::new("sb-0123456789abcdefghijAB").is_v1());
        assert!(!SandboxId::new("sb-01ARZ3NDEKTSV4RRFFQ69G5FAV").is_v1());
        assert!(!SandboxId::new("sb-0123456789abcdefghij-B").is_v1());
    }
}
