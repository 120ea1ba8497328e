//! Which repositories there are, whose they are, and what GitHub says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::ReadState;
use crate::ids::{AccountName, RepoName, RepositoryId};

/// An owner of repositories, as one account sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The configured GitHub account.
    pub account: AccountName,
    /// The user or organization, in lower case.
    pub login: Arc<str>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.account, self.login)
    }
}

/// Who may see a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody: strangers can open pull requests.
    Public,
    /// All members of its enterprise.
    Internal,
    /// Those who were given access.
    Private,
}

/// What GitHub says of a repository itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct RepoFacts {
    /// Its id, which it keeps under another name.
    pub id: RepositoryId,
    /// Its name.
    pub name: RepoName,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether it is read-only.
    pub is_archived: bool,
    /// Whether GitHub has disabled it.
    pub is_disabled: bool,
    /// Whether it is a fork of another repository.
    pub is_fork: bool,
}

/// Why a repository is looked at seldom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pause {
    /// Its owner made it read-only.
    Archived,
    /// GitHub disabled it.
    Disabled,
    /// It has another name.
    Renamed(RepoName),
    /// Lists no longer show it, or another account serves it.
    Gone,
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Archived => f.write_str("it is archived"),
            Self::Disabled => f.write_str("GitHub has disabled it"),
            Self::Renamed(name) => write!(f, "it is now called {name}"),
            Self::Gone => f.write_str("it is no longer listed"),
        }
    }
}

/// How an owner's repositories were listed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnerView {
    /// How the list was read.
    pub read: ReadState,
    /// When it last named others than before: an answer that was wrong is found out the sooner.
    pub changed_at: Option<DateTime<Utc>>,
    /// Those of them that are served.
    pub served: BTreeSet<RepoName>,
    /// When somebody last told of one that is meant and was not listed.
    pub hinted_at: Option<DateTime<Utc>>,
}

/// What is known of an account's GitHub App.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AppView {
    /// How its installations were listed.
    pub read: ReadState,
    /// When the list last was another than before.
    pub changed_at: Option<DateTime<Utc>>,
    /// Where it is installed.
    pub installed: BTreeMap<Arc<str>, Installed>,
    /// When somebody last told of a repository that is meant, whose owner was not listed.
    pub hinted_at: Option<DateTime<Utc>>,
}

/// Where a GitHub App is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The owner, a user or an organization, in lower case.
    pub owner: Arc<str>,
    /// The installation; an App that is installed anew has another one.
    pub id: u64,
    /// Whether the owner, or GitHub, has suspended it.
    pub is_suspended: bool,
    /// What its owner has granted.
    pub permissions: Permissions,
}

/// Permissions by GitHub's names of them, each with how far it goes, such as `administration` with `write`.
pub type Permissions = BTreeMap<Arc<str>, Arc<str>>;
