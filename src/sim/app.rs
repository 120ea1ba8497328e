//! The one GitHub App of a World: where it is installed, and the tokens that were given out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::draws::seconds;
use super::history::fingerprint;
use super::jobs::Time;
use super::world::{State, World};

/// The id of the App.
pub const APP_ID: &str = "4711";
/// Its client id, which stands for it as well.
pub const APP_CLIENT_ID: &str = "Iv23simulated";
/// Its private key, which everybody knows: it was made for tests.
pub const APP_KEY: &str = include_str!("../../tests/data/github-app/test-key.pkcs1.pem");
/// The public half of that key, by which the simulated GitHub knows the App.
const PUBLIC_KEY: &str = include_str!("../../tests/data/github-app/test-key.public.pem");

/// GitHub takes no token of an App that lasts longer.
const LONGEST_JWT: TimeDelta = TimeDelta::minutes(10);
/// How far a clock may be ahead of GitHub's.
const AHEAD: TimeDelta = TimeDelta::seconds(5);

/// The App.
#[derive(Debug, Default)]
pub(super) struct SimulatedApp {
    /// Its installations by their ids.
    installed: BTreeMap<u64, Installation>,
    /// The tokens that can be used, by their fingerprints: whose, and until when.
    tokens: BTreeMap<Arc<str>, (u64, Time)>,
    issued: u64,
    /// Whether its key was deleted.
    is_keyless: bool,
}

/// The App at one owner.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    /// As the owner writes it.
    pub(super) owner: String,
    pub(super) suspended_at: Option<Time>,
}

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody that GitHub knows.
    Nobody,
    /// A personal token: every text that is nothing else is one.
    Person,
    /// The App itself.
    App,
    /// One of its installations.
    Installation(u64),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
    exp: i64,
}

impl State {
    /// Installs the App at every owner of a repository.
    pub(super) fn install_app(&mut self) {
        let owners: BTreeSet<&str> = self.repos.iter().filter_map(|repo| repo.full_name.split('/').next()).collect();
        let installed = owners
            .into_iter()
            .zip(FIRST_INSTALLATION..)
            .map(|(owner, id)| (id, Installation { owner: owner.to_owned(), suspended_at: None }));
        self.app.installed = installed.collect();
    }

    /// Tells who sends a request with that token.
    pub(super) fn who(&self, token: &str) -> Who {
        if token.starts_with("ghs_") {
            let known = self.app.tokens.get(fingerprint(token).as_str());
            let valid = known.filter(|(id, until)| *until > self.now && self.app.installed.contains_key(id));
            return valid.map_or(Who::Nobody, |(id, _)| Who::Installation(*id));
        }
        if token.starts_with("ey") && token.matches('.').count() == 2 {
            return if self.is_of_app(token) { Who::App } else { Who::Nobody };
        }
        if self.personal_token_end().is_some_and(|end| end <= self.now) { Who::Nobody } else { Who::Person }
    }

    /// When personal tokens end, where they do.
    pub(super) fn personal_token_end(&self) -> Option<Time> {
        self.profile.personal_token_secs.map(|secs| self.start + seconds(secs))
    }

    fn is_of_app(&self, token: &str) -> bool {
        let mut validation = Validation::new(Algorithm::RS256);
        // By the World's clock, not the machine's.
        validation.validate_exp = false;
        let Ok(key) = DecodingKey::from_rsa_pem(PUBLIC_KEY.as_bytes()) else { return false };
        let Ok(decoded) = jsonwebtoken::decode::<Claims>(token, &key, &validation) else { return false };
        let Claims { iss, iat, exp } = decoded.claims;
        let now = self.now.timestamp();
        !self.app.is_keyless
            && (iss == APP_ID || iss == APP_CLIENT_ID)
            && iat <= now + AHEAD.num_seconds()
            && exp > now
            && exp - now <= LONGEST_JWT.num_seconds()
    }

    /// The installation of that id.
    pub(super) fn installation(&self, id: u64) -> Option<&Installation> {
        self.app.installed.get(&id)
    }

    /// All installations, in the order of their ids.
    pub(super) fn installations(&self) -> impl Iterator<Item = (u64, &Installation)> {
        self.app.installed.iter().map(|(id, installation)| (*id, installation))
    }

    /// Gives out a token of an installation: long, as GitHub's newer ones are, and different each time.
    pub(super) fn issue_token(&mut self, installation: u64) -> (String, Time) {
        self.app.issued += 1;
        let part = fingerprint(&format!("{installation} {} {:?}", self.app.issued, self.seed));
        let token = format!("ghs_{}", part.repeat(32));
        let until = self.now + seconds(self.profile.installation_token_secs);
        let now = self.now;
        self.app.tokens.retain(|_, (_, until)| *until > now);
        self.app.tokens.insert(fingerprint(&token).into(), (installation, until));
        (token, until)
    }

    /// Refuses all tokens that were given out so far.
    pub(super) fn revoke_app_tokens(&mut self) {
        self.app.tokens.clear();
    }

    fn installations_at(&mut self, owner: &str) -> Vec<u64> {
        let at_owner = self.app.installed.iter().filter(|(_, known)| known.owner.eq_ignore_ascii_case(owner));
        at_owner.map(|(id, _)| *id).collect()
    }
}

/// The id of the first installation.
const FIRST_INSTALLATION: u64 = 60_000_001;

impl World {
    /// Refuses all tokens of the App that were given out so far.
    pub fn revoke_app_tokens(&self) {
        self.with(State::revoke_app_tokens);
    }

    /// Suspends the App's installation at an owner.
    pub fn suspend_app(&self, owner: &str) {
        self.with(|state| {
            let now = state.now;
            for id in state.installations_at(owner) {
                if let Some(installation) = state.app.installed.get_mut(&id) {
                    installation.suspended_at = Some(now);
                }
            }
        });
    }

    /// Ends such a suspension.
    pub fn unsuspend_app(&self, owner: &str) {
        self.with(|state| {
            for id in state.installations_at(owner) {
                if let Some(installation) = state.app.installed.get_mut(&id) {
                    installation.suspended_at = None;
                }
            }
        });
    }

    /// Removes the App from an owner.
    pub fn uninstall_app(&self, owner: &str) {
        self.with(|state| {
            for id in state.installations_at(owner) {
                state.app.installed.remove(&id);
            }
        });
    }

    /// Installs the App at an owner, anew where it was: with another id.
    pub fn reinstall_app(&self, owner: &str) {
        self.uninstall_app(owner);
        self.with(|state| {
            let id = state.app.installed.keys().next_back().map_or(FIRST_INSTALLATION, |last| last + 1_000);
            state.app.installed.insert(id, Installation { owner: owner.to_owned(), suspended_at: None });
        });
    }

    /// Deletes the App's key, as its owner does after a leak; tokens that were given out go on.
    pub fn delete_app_key(&self) {
        self.with(|state| state.app.is_keyless = true);
    }
}
