//! Names and ids, checked where they enter.
//!
//! A repository or label is compared without regard to case, as GitHub does; both are folded here once.

mod credential;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

pub use credential::CredentialName;

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
    /// A Modal image's id.
    ImageId
}
text_id! {
    /// A Modal App's id.
    AppId
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

/// The longest short name, in bytes.
const SHORT_MAX: usize = 12;

fn is_short_name(text: &str) -> bool {
    (1..=SHORT_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        // Held in place, filled up with zeros, because names with two of them are compared by the thousands.
        #[derive(Clone)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The name as text.
            ///
            /// # Panics
            /// Never: the constructor admits only ASCII.
            pub fn as_str(&self) -> &str {
                let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(SHORT_MAX);
                std::str::from_utf8(&self.0[..end]).expect("the constructor admits only ASCII")
            }

            /// A number in the order of the texts.
            fn rank(&self) -> u128 {
                u128::from_be_bytes(self.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.rank() == other.rank()
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.rank().cmp(&other.rank())
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.rank().hash(state);
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if !is_short_name(text) {
                    return Err(InvalidId { value: text.to_owned(), expected: $expected });
                }
                let mut bytes = [0; 16];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

short_name! {
    /// The name of one installation of Sandrunner; part of every name it gives.
    Deployment, "a deployment name: 1 to 12 characters of a-z and 0-9"
}
short_name! {
    /// The name of one configured GitHub account; part of every name it gives.
    AccountName, "an account name: 1 to 12 characters of a-z and 0-9"
}

/// A part of the name of a repository.
fn is_repo_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 100
        && !part.bytes().all(|b| b == b'.')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The login of a user or an organization, which holds no dot.
fn is_owner(text: &str) -> bool {
    is_repo_part(text) && !text.contains('.')
}

/// A repository, `owner/name`, folded to lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RepoName(Arc<str>);

/// The longest value of a Modal tag.
const TAG_MAX: usize = 63;

impl RepoName {
    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The owner, a user or an organization.
    ///
    /// # Panics
    /// Never: the constructor checks for the slash.
    pub fn owner(&self) -> &str {
        self.0.split_once('/').expect("the constructor checks for the slash").0
    }

    /// The name without the owner.
    ///
    /// # Panics
    /// Never: the constructor checks for the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').expect("the constructor checks for the slash").1
    }

    /// The repository as the value of a Modal tag, which may hold no slash and at most 63 characters.
    ///
    /// An owner holds no dot, so the first dot stands for the slash. A longer name is cut and closed with
    /// a fingerprint: it is compared with the tags of known repositories, never taken apart.
    pub fn as_tag(&self) -> String {
        let plain = self.0.replacen('/', ".", 1);
        if plain.len() <= TAG_MAX { plain } else { format!("{}.{}", &plain[..46], fingerprint(&[&self.0])) }
    }

    /// The repository of such a tag; none where it may have been cut.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let repo: Self = tag.replacen('.', "/", 1).parse().ok()?;
        (tag.len() < TAG_MAX).then_some(repo)
    }
}

impl FromStr for RepoName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            Some((owner, name)) if is_owner(owner) && is_repo_part(name) => Ok(Self(text.to_ascii_lowercase().into())),
            Some(_) | None => Err(InvalidId { value: text.to_owned(), expected: "a repository: owner/name" }),
        }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The login of an organization, folded to lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrgName(Arc<str>);

impl OrgName {
    /// The login.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OrgName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let is_login = (1..=100).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if is_login {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(InvalidId { value: text.to_owned(), expected: "an organization's login" })
        }
    }
}

impl TryFrom<String> for OrgName {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<OrgName> for String {
    fn from(name: OrgName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for OrgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The set of labels of a job, folded to lower case, sorted, without repetition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    fingerprint: Fingerprint,
    labels: Arc<[Box<str>]>,
}

/// Sixteen hexadecimal digits that stand for a text or a set of texts, such as labels in tags and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Stands for one text.
    pub fn of(text: &str) -> Self {
        fingerprint(&[text])
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId { value: text.to_owned(), expected: "a fingerprint: 16 hexadecimal digits" };
        if text.len() != 16 {
            return Err(invalid());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| invalid())
    }
}

impl Labels {
    /// Folds, sorts and removes repetitions.
    pub fn new<T: AsRef<str>>(labels: impl IntoIterator<Item = T>) -> Self {
        let mut labels: Vec<Box<str>> =
            labels.into_iter().map(|label| label.as_ref().to_lowercase().into_boxed_str()).collect();
        labels.sort();
        labels.dedup();
        let fingerprint = fingerprint(&labels.iter().map(|label| &**label).collect::<Vec<_>>());
        Self { fingerprint, labels: labels.into() }
    }

    /// What stands for this set in tags.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| &**label)
    }

    /// Whether `label` (in lower case) is one of them.
    pub fn contains(&self, label: &str) -> bool {
        self.labels.binary_search_by(|have| (**have).cmp(label)).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Whether a runner with these labels may take a job that asks for `asked`.
    pub fn covers(&self, asked: &Self) -> bool {
        asked.iter().all(|label| self.contains(label))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.labels.join(","))
    }
}

impl Serialize for Labels {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// The first 64 bits of a SHA-256 over the parts, each closed by a zero byte.
fn fingerprint(parts: &[&str]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    Fingerprint(u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes")))
}

/// The name that we give to a sandbox and to its runner: `sr-<deployment>-<account>-<job id>-<attempt>`.
///
/// It says for which job the sandbox was made, not which job it will run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OurName {
    /// The job that caused the create.
    pub job: JobId,
    /// Counts the creates for that job, from 1.
    pub attempt: u32,
    /// The installation that made it.
    pub deployment: Deployment,
    /// The GitHub account it is registered with.
    pub account: AccountName,
}

impl FromStr for OurName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            value: text.to_owned(),
            expected: "a name of ours: sr-<deployment>-<account>-<job>-<attempt>",
        };
        let parts: Vec<&str> = text.split('-').collect();
        let ["sr", deployment, account, job, attempt] = parts[..] else { return Err(invalid()) };
        Ok(Self {
            deployment: deployment.parse().map_err(|_| invalid())?,
            account: account.parse().map_err(|_| invalid())?,
            job: JobId(canonical_number(job).ok_or_else(invalid)?),
            attempt: canonical_number(attempt).and_then(|n| u32::try_from(n).ok()).ok_or_else(invalid)?,
        })
    }
}

/// A number above zero written as we write it: no sign, no leading zero.
fn canonical_number(text: &str) -> Option<u64> {
    let is_canonical = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if is_canonical { text.parse().ok() } else { None }
}

impl fmt::Display for OurName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sr-{}-{}-{}-{}", self.deployment, self.account, self.job, self.attempt)
    }
}

impl Serialize for OurName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_ours_is_a_full_match() {
        let name: OurName = "sr-main-gh1-9876543210-2".parse().unwrap();
        assert_eq!(name.to_string(), "sr-main-gh1-9876543210-2");
        for foreign in [
            "sr-main-gh1-1",
            "sr-main-gh1-1-2-3",
            "xsr-main-gh1-1-2",
            "sr-Main-gh1-1-2",
            "sr-main-gh1-01-2",
            "sr-main-gh1-1-0",
            "sr-main-gh1-+1-2",
            "sr-main--1-2",
            "sr-main-gh1-1-2 ",
            "sr-main-gh1-99999999999999999999999-2",
        ] {
            assert!(foreign.parse::<OurName>().is_err(), "{foreign} must not be ours");
        }
    }

    #[test]
    fn short_names_are_ordered_like_their_texts() {
        let texts = ["0", "1a", "a", "a0", "aa", "aaaaaaaaaaaa", "b", "z9"];
        let names: Vec<AccountName> = texts.iter().map(|text| text.parse().unwrap()).collect();
        assert!(names.is_sorted() && names.iter().zip(texts).all(|(name, text)| name.as_str() == text));
        assert!("aaaaaaaaaaaaa".parse::<AccountName>().is_err() && "".parse::<Deployment>().is_err());
    }

    #[test]
    fn a_credential_is_an_account_or_one_of_its_owners() {
        let name = |text: &str| text.parse::<CredentialName>();
        assert_eq!(name("gh").unwrap(), CredentialName::of_account("gh".parse().unwrap()));
        let installation = CredentialName::of_installation("gh".parse().unwrap(), "Acme");
        assert_eq!((installation.to_string().as_str(), installation.owner()), ("gh/acme", Some("acme")));
        assert_eq!(name("gh/ACME").unwrap(), installation);
        for odd in ["", "GH", "gh/", "gh/a.b", "gh/a/b", "/acme"] {
            assert!(name(odd).is_err(), "{odd} must be refused");
        }
    }

    #[test]
    fn repositories_fold_case_and_refuse_odd_forms() {
        let repo: RepoName = "Acme/Web.App".parse().unwrap();
        assert_eq!((repo.as_str(), repo.owner(), repo.name()), ("acme/web.app", "acme", "web.app"));
        for odd in ["acme", "acme/", "/web", "acme/web/x", "acme/we b", "acme/..", "a.b/c", "acme/*"] {
            assert!(odd.parse::<RepoName>().is_err(), "{odd} must be refused");
        }
    }

    #[test]
    fn a_repository_tag_is_short_and_unambiguous() {
        let tag = |text: &str| text.parse::<RepoName>().unwrap().as_tag();
        assert_eq!(tag("acme/web"), "acme.web");
        let back = |tag: &str| RepoName::from_tag(tag).map(|repo| repo.to_string());
        assert_eq!(back("acme.web.app").as_deref(), Some("acme/web.app"));
        assert_eq!((back(&tag(&format!("acme/{}", "x".repeat(90)))), back("acme")), (None, None));
        let long = format!("acme/{}", "x".repeat(90));
        let longer = format!("acme/{}y", "x".repeat(90));
        assert_eq!(tag(&long).len(), 63);
        assert_ne!(tag(&long), tag(&longer));
    }

    #[test]
    fn labels_are_a_set_without_case() {
        let labels = Labels::new(["Modal", "self-hosted", "modal"]);
        assert_eq!(labels, Labels::new(["self-hosted", "modal"]));
        assert_ne!(labels.fingerprint(), Labels::new(["self-hosted"]).fingerprint());
        assert!(labels.covers(&Labels::new(["MODAL"])) && !Labels::new(["modal"]).covers(&labels));
        assert_eq!(labels.fingerprint().to_string().parse::<Fingerprint>().unwrap(), labels.fingerprint());
    }

    #[test]
    fn the_generation_of_a_sandbox_is_read_from_its_id() {
        assert!(SandboxId::new("sb-0123456789abcdefghijAB").is_v1());
        assert!(!SandboxId::new("sb-01ARZ3NDEKTSV4RRFFQ69G5FAV").is_v1());
        assert!(!SandboxId::new("sb-0123456789abcdefghij-B").is_v1());
    }
}
