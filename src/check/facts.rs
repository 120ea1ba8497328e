//! What was found out, as plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};

use crate::act::Proof;
use crate::error::{CallFailure, ErrorChain, ErrorClass};
use crate::github::{AppFacts, GithubError, Refusal, TokenAccess};
use crate::ids::{AccountName, CredentialName, ImageId, RepoName};
use crate::modal::ModalError;
use crate::runner::{RunnerVersion, VersionNotice};
use crate::state::{Installed, Org, Quota, Registry, RepoFacts, RunnerGroup, Scope};
use crate::state_dir::BuildRecord;

/// What a service told, or why it did not.
pub type Told<T> = Result<T, Failed>;

/// A call that failed, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What the failure means.
    pub class: ErrorClass,
    /// What happened, in one line.
    pub said: String,
    /// What to do about it, where the service's answer tells.
    pub remedy: Option<String>,
}

impl Failed {
    /// What to do about it, in one sentence.
    pub fn fix(&self) -> String {
        self.remedy.clone().unwrap_or_else(|| {
            match self.class {
                ErrorClass::Unauthorized => "check that the token is whole, not expired and not revoked",
                ErrorClass::Forbidden => "give the credential the permission that it lacks",
                ErrorClass::Policy => "enable Actions and self-hosted runners in the repository's settings",
                ErrorClass::NotFound => "check its name, and that the credential may see it",
                ErrorClass::Conflict => "check again: another check was under way at the same moment",
                ErrorClass::Invalid => "correct what the answer names",
                ErrorClass::RateLimited => "wait until the limit is over, and check again",
                ErrorClass::Unavailable | ErrorClass::Unsent => {
                    "look at this machine's way to the service (name server, proxy, firewall) and at the service's status \
                     page, and check again"
                }
                ErrorClass::Unreadable => "check that the address is that of the service, and check again",
            }
            .to_owned()
        })
    }

    /// Whether an organization refuses this machine's address.
    pub fn is_of_address(&self) -> bool {
        let text = self.said.to_lowercase();
        self.class == ErrorClass::Forbidden && (text.contains("ip address") || text.contains("ip allow list"))
    }
}

impl From<GithubError> for Failed {
    fn from(error: GithubError) -> Self {
        let class = error.class();
        if let GithubError::Refused { call, refusal } = error {
            let Refusal { remedy, .. } = &*refusal;
            let remedy = remedy.clone();
            let said = format!("cannot {call}: {}", Refusal { remedy: None, ..*refusal });
            return Self { class, said, remedy };
        }
        Self { class, said: ErrorChain(&error).to_string(), remedy: None }
    }
}

impl From<ModalError> for Failed {
    fn from(error: ModalError) -> Self {
        Self { class: error.class(), said: ErrorChain(&error).to_string(), remedy: None }
    }
}

impl From<CallFailure> for Failed {
    fn from(failure: CallFailure) -> Self {
        Self { class: failure.class, said: failure.message, remedy: None }
    }
}

/// Everything that was found out.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When that was.
    pub now: DateTime<Utc>,
    /// Of each account.
    pub accounts: BTreeMap<AccountName, AccountFacts>,
    /// Of each credential.
    pub credentials: BTreeMap<CredentialName, CredentialFacts>,
    /// Of each repository that is served; none of those whose credential does not work.
    pub repos: BTreeMap<Scope, RepoChecked>,
    /// What the patterns for an owner's repositories mean, by account and owner.
    pub patterns: BTreeMap<(AccountName, String), Told<Vec<RepoName>>>,
    /// Of each place where runners are registered.
    pub proofs: BTreeMap<Registry, ProofFacts>,
    /// The runner group of each organization.
    pub groups: BTreeMap<Org, GroupFacts>,
    /// The runner's release, where one was asked for.
    pub releases: BTreeMap<AccountName, Told<ReleaseFacts>>,
    /// Of Modal.
    pub modal: ModalFacts,
    /// The addresses of hosts that a network of addresses may shut out.
    pub addresses: BTreeMap<String, Result<Vec<IpAddr>, String>>,
}

/// What was found out of an account.
#[derive(Debug, Clone, Default)]
pub struct AccountFacts {
    /// Its GitHub App and where that is installed; none for a token.
    pub app: Option<Told<(AppFacts, Vec<Installed>)>>,
    /// How far GitHub's clock is ahead of ours; none where it did not answer.
    pub skew: Option<TimeDelta>,
}

/// What was found out of a credential.
#[derive(Debug, Clone)]
pub struct CredentialFacts {
    /// What GitHub says of its token.
    pub access: Told<TokenAccess>,
}

/// What was found out of a repository.
#[derive(Debug, Clone)]
pub struct RepoChecked {
    /// What GitHub says of it.
    pub facts: Told<RepoFacts>,
    /// Whether its runs can be read.
    pub runs: Told<()>,
    /// Whether Actions are enabled.
    pub actions: Told<bool>,
}

/// What shows whether runners can be registered and deleted.
#[derive(Debug, Clone)]
pub enum ProofFacts {
    /// One was.
    Done,
    /// None was registered.
    Refused(Failed),
    /// One was registered, or may have been, and may still be there.
    Left {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// It was not tried. Whether runners can be listed there.
    NotTried(Told<()>, NotTried),
}

/// Why it was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTried {
    /// Nothing is to be written.
    ReadOnly,
    /// It was tried in enough other places with the same credential.
    TriedElsewhere,
    /// The runner group that it would join is not known.
    NoGroup,
}

impl From<Proof> for ProofFacts {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Done => Self::Done,
            Proof::NotRegistered(error) => Self::Refused(error.into()),
            Proof::NotDeleted { name, why } => Self::Left { name: name.to_string(), why },
        }
    }
}

/// The runner group of an organization, with whom it admits; none where there is no such group.
pub type GroupFacts = Told<Option<RunnerGroup>>;

/// What GitHub says of the runner's releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// The one that it offers.
    pub offered: RunnerVersion,
    /// Until when it takes the one that is pinned; none where none is.
    pub notice: Option<Told<VersionNotice>>,
}

/// What was found out of Modal.
#[derive(Debug, Clone)]
pub struct ModalFacts {
    /// Whether it takes the token.
    pub token: Told<()>,
    /// The environments of the workspace, and ours among them.
    pub environments: Told<(Vec<Quota>, Option<Quota>)>,
    /// Whether the App is there.
    pub app: Told<bool>,
    /// Whether images that are named by their ids are there.
    pub images: BTreeMap<ImageId, Told<bool>>,
    /// Whether Secrets are there with what they must hold; by their names.
    pub secrets: BTreeMap<String, Told<()>>,
    /// The last build of each image, as far as a state directory tells.
    pub builds: BTreeMap<String, BuildRecord>,
}
