//! Names of credentials.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::repo::is_owner;
use super::{AccountName, InvalidId};

/// The name of one credential, by which quotas, cached pages and clients are kept apart: the account, or for a GitHub
/// App the account and the owner that it is installed at.
///
/// There is one per account, or one per owner of its repositories, so that it can be a metric label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName {
    account: AccountName,
    owner: Option<Arc<str>>,
}

impl CredentialName {
    /// The one credential of an account.
    pub fn of_account(account: AccountName) -> Self {
        Self { account, owner: None }
    }

    /// The installation of an account's App at an owner, a user or an organization, whose case does not matter.
    pub fn of_installation(account: AccountName, owner: &str) -> Self {
        Self { account, owner: Some(owner.to_ascii_lowercase().into()) }
    }

    /// The account it belongs to.
    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// The owner that the account's App is installed at, in lower case; none for the one credential of an account.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }
}

impl FromStr for CredentialName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = |_| InvalidId { value: text.to_owned(), expected: "a credential: account, or account/owner" };
        match text.split_once('/') {
            None => Ok(Self::of_account(text.parse().map_err(invalid)?)),
            Some((account, owner)) if is_owner(owner) => {
                Ok(Self::of_installation(account.parse().map_err(invalid)?, owner))
            }
            Some(_) => Err(InvalidId { value: text.to_owned(), expected: "a credential: account, or account/owner" }),
        }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            None => write!(f, "{}", self.account),
            Some(owner) => write!(f, "{}/{owner}", self.account),
        }
    }
}

impl Serialize for CredentialName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
