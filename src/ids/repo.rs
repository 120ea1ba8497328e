//! Names of repositories and organizations, as GitHub writes them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::InvalidId;
use super::fingerprint::fingerprint;

/// A part of the name of a repository.
fn is_repo_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 100
        && !part.bytes().all(|b| b == b'.')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The login of a user or an organization, which holds no dot.
pub(super) fn is_owner(text: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
