//! The clients of one account: one for a token, one per owner for a GitHub App.
//!
//! Quotas and `ETags` belong to an installation of an App, so each has a client of its own; all share the
//! connections of the account.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use octocrab::Octocrab;

use super::app::{App, AppFacts};
use super::client::Client;
use super::source::{Installation, Personal, Signer, Source};
use super::token::Token;
use super::{GithubAuth, GithubError, GithubReader, GithubSettings, GithubWriter};
use crate::clock::Clock;
use crate::ids::CredentialName;
use crate::mutant::{self, Mutant};
use crate::state::Installed;

/// The clients of one account.
pub(super) enum Account {
    /// A token's.
    One(Arc<Client>),
    /// An App's.
    PerOwner(Box<PerOwner>),
}

/// The clients of an App and of its installations, each made when it is first asked for.
pub(super) struct PerOwner {
    app: Arc<App>,
    octocrab: Octocrab,
    settings: GithubSettings,
    clock: Clock,
    made: Mutex<BTreeMap<Arc<str>, Arc<Client>>>,
}

impl Account {
    pub(super) fn new(octocrab: Octocrab, settings: GithubSettings, clock: Clock) -> Result<Self, GithubError> {
        let name = CredentialName::of_account(settings.account.clone());
        let source = match &settings.auth {
            GithubAuth::Token(token) => Source::Personal(Personal::new(checked(&settings, token, &clock)?)),
            GithubAuth::App { id, key } => Source::App(Signer::new(id.clone(), key.clone(), settings.api_url.clone())),
        };
        let is_app = matches!(source, Source::App(_));
        let client = Client::new(octocrab.clone(), source, name, &settings, clock.clone());
        if !is_app {
            return Ok(Self::One(client.into()));
        }
        let app = App::new(client, settings.api_url.clone(), clock.clone()).into();
        Ok(Self::PerOwner(Box::new(PerOwner { app, octocrab, settings, clock, made: Mutex::default() })))
    }

    /// The client of a credential of this account.
    fn client(&self, credential: &CredentialName) -> Arc<Client> {
        match self {
            Self::One(client) => Arc::clone(client),
            Self::PerOwner(all) => match credential.owner() {
                Some(owner) => all.client(owner),
                None => Arc::clone(&all.app.client),
            },
        }
    }

    /// Every client that was asked for, the App's own first.
    fn clients(&self) -> Vec<Arc<Client>> {
        match self {
            Self::One(client) => vec![Arc::clone(client)],
            Self::PerOwner(all) => {
                let made = all.made.lock().unwrap_or_else(PoisonError::into_inner);
                [&all.app.client].into_iter().chain(made.values()).map(Arc::clone).collect()
            }
        }
    }
}

impl PerOwner {
    fn client(&self, owner: &str) -> Arc<Client> {
        // A map that is only added to.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(owner) {
            return Arc::clone(client);
        }
        let owner: Arc<str> = owner.into();
        let source = Source::Installation(Installation::new(Arc::clone(&self.app), Arc::clone(&owner)));
        let name = CredentialName::of_installation(self.settings.account.clone(), &owner);
        let mut client = Client::new(self.octocrab.clone(), source, name, &self.settings, self.clock.clone());
        if mutant::is(Mutant::CacheKeyWithoutCredential) {
            client.caches = Arc::clone(&self.app.client.caches);
        }
        let client = Arc::new(client);
        made.insert(owner, Arc::clone(&client));
        client
    }
}

/// A personal token that has the form it needs.
fn checked(settings: &GithubSettings, token: &secrecy::SecretString, clock: &Clock) -> Result<Token, GithubError> {
    let text = secrecy::ExposeSecret::expose_secret(token);
    let problem = "must be a GitHub token: visible ASCII characters without spaces, such as `github_pat_…`";
    let token = Token::new(&settings.api_url, text, clock.now(), None);
    token.ok_or(GithubError::Settings { key: "token", problem })
}

/// Reads with the credentials of one account; clones share everything, also with its writers.
#[derive(Clone)]
pub struct GithubReaders(Arc<Account>);

/// Writes with the credentials of one account; clones share everything, also with its readers.
#[derive(Clone)]
pub struct GithubWriters(Arc<Account>);

impl fmt::Debug for GithubReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl fmt::Debug for GithubWriters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.clients().iter().map(|client| client.name())).finish()
    }
}

pub(super) fn share(account: Account) -> (GithubReaders, GithubWriters) {
    let account = Arc::new(account);
    (GithubReaders(Arc::clone(&account)), GithubWriters(account))
}

impl GithubReaders {
    /// The reader of a credential of this account; a token has but one.
    pub fn get(&self, credential: &CredentialName) -> GithubReader {
        GithubReader::new(self.0.client(credential))
    }

    /// The readers of all credentials that are in use.
    pub fn all(&self) -> Vec<GithubReader> {
        self.0.clients().into_iter().map(GithubReader::new).collect()
    }

    /// Takes over what is known of each credential's limits from clients with the same credentials.
    pub(crate) fn adopt(&self, former: &Self) {
        for client in former.0.clients() {
            let known = client.budget().lock().unwrap_or_else(PoisonError::into_inner).clone();
            let budget = self.0.client(client.name()).budget();
            budget.lock().unwrap_or_else(PoisonError::into_inner).adopt(known);
        }
    }

    /// Lists where the account's App is installed; nowhere for a token.
    ///
    /// # Errors
    /// [`GithubError`] where not all of it could be read.
    pub async fn installations(&self) -> Result<Vec<Installed>, GithubError> {
        match &*self.0 {
            Account::One(_) => Ok(Vec::new()),
            Account::PerOwner(all) => all.app.list().await,
        }
    }
}

impl GithubReaders {
    /// What the account's GitHub App is; none for a token.
    ///
    /// # Errors
    /// [`GithubError`] where GitHub does not tell.
    pub async fn app(&self) -> Result<Option<AppFacts>, GithubError> {
        match &*self.0 {
            Account::One(_) => Ok(None),
            Account::PerOwner(all) => all.app.about().await.map(Some),
        }
    }
}

impl GithubWriters {
    /// The writer of a credential of this account; a token has but one.
    pub fn get(&self, credential: &CredentialName) -> GithubWriter {
        GithubWriter::new(self.0.client(credential))
    }
}
