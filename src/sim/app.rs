//! The one GitHub App of a World: where it is installed, what it was granted, and the tokens that were given out.

mod installation;
mod permission;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::draws::seconds;
use super::history::fingerprint;
use super::jobs::{Repo, RepoKey, Time};
use super::limits::GithubLimiter;
use super::world::State;

pub use installation::InstallationChange;
pub use permission::{Access, Grants, Permission};

pub(super) use permission::Need;

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
/// An installation's quota grows from so many repositories on (GitHub: REST API rate limits).
const REPOS_WITHOUT_GROWTH: usize = 20;

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
    /// The repositories that it was given; none for all.
    pub(super) repos: Option<BTreeSet<RepoKey>>,
    pub(super) grants: Grants,
}

impl Installation {
    /// For all repositories of an owner, with all permissions.
    fn whole(owner: &str) -> Self {
        Self { owner: owner.to_owned(), suspended_at: None, repos: None, grants: Permission::all_granted() }
    }
}

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody that GitHub takes, and why not.
    Nobody(&'static str),
    /// A personal token: every text that is nothing else is one.
    Person,
    /// The App itself.
    App,
    /// One of its installations.
    Installation(u64),
}

/// GitHub's answer to a token that it does not know.
pub(super) const BAD_CREDENTIALS: &str = "Bad credentials";
/// GitHub's answer where something else than a token of the App is needed, or it was not signed by it.
pub(super) const NOT_DECODED: &str = "A JSON web token could not be decoded";

#[derive(Deserialize)]
struct Claims {
    iss: String,
    iat: i64,
    exp: i64,
}

impl State {
    /// Tells who sends a request with that token.
    pub(super) fn who(&self, token: &str) -> Who {
        if token.starts_with("ghs_") {
            let known = self.app.tokens.get(fingerprint(token).as_str());
            let valid = known.filter(|(id, until)| *until > self.now && self.app.installed.contains_key(id));
            return valid.map_or(Who::Nobody(BAD_CREDENTIALS), |(id, _)| Who::Installation(*id));
        }
        if token.starts_with("ey") && token.matches('.').count() == 2 {
            return self.refusal_of_app(token).map_or(Who::App, Who::Nobody);
        }
        if self.personal_token_end().is_some_and(|end| end <= self.now) {
            Who::Nobody(BAD_CREDENTIALS)
        } else {
            Who::Person
        }
    }

    /// When personal tokens end, where they do.
    pub(super) fn personal_token_end(&self) -> Option<Time> {
        self.profile.personal_token_secs.map(|secs| self.start + seconds(secs))
    }

    /// Why a token that the App should have signed is not taken; none where it is.
    fn refusal_of_app(&self, token: &str) -> Option<&'static str> {
        let mut validation = Validation::new(Algorithm::RS256);
        // By the World's clock, not the machine's.
        validation.validate_exp = false;
        let key = DecodingKey::from_rsa_pem(PUBLIC_KEY.as_bytes()).ok().filter(|_| !self.app.is_keyless);
        let Some(Ok(decoded)) = key.map(|key| jsonwebtoken::decode::<Claims>(token, &key, &validation)) else {
            return Some(NOT_DECODED);
        };
        let Claims { iss, iat, exp } = decoded.claims;
        let now = self.now.timestamp();
        if iss != APP_ID && iss != APP_CLIENT_ID {
            Some(NOT_DECODED)
        } else if iat > now + AHEAD.num_seconds() {
            Some("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
        } else if exp <= now {
            Some(
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
            )
        } else if exp - now > LONGEST_JWT.num_seconds() {
            Some("'Expiration time' claim ('exp') is too far in the future")
        } else {
            None
        }
    }

    /// The installation of that id.
    pub(super) fn installation(&self, id: u64) -> Option<&Installation> {
        self.app.installed.get(&id)
    }

    /// All installations, in the order of their ids.
    pub(super) fn installations(&self) -> impl Iterator<Item = (u64, &Installation)> {
        self.app.installed.iter().map(|(id, installation)| (*id, installation))
    }

    /// The repositories that an installation was given and that are there.
    pub(super) fn repos_given(&self, installation: u64) -> impl Iterator<Item = &Repo> {
        let keys = (0..self.repos.len()).map(RepoKey);
        keys.filter(move |key| self.is_given(installation, *key)).map(|key| self.repo(key))
    }

    /// Whether an installation was given a repository, or is in the organization.
    pub(super) fn is_given(&self, installation: u64, key: RepoKey) -> bool {
        let Some(installation) = self.installation(installation) else { return false };
        let repo = self.repo(key);
        repo.owner().eq_ignore_ascii_case(&installation.owner)
            && (repo.is_organization() || installation.repos.as_ref().is_none_or(|repos| repos.contains(&key)))
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
        let repos = self.repos_given(installation).filter(|repo| !repo.is_organization() && !repo.is_deleted).count();
        let beyond = u32::try_from(repos.saturating_sub(REPOS_WITHOUT_GROWTH)).unwrap_or(u32::MAX);
        let limiter = self.tokens.entry(Self::account_of(installation).into());
        limiter.or_insert_with(|| GithubLimiter::new(now, &self.profile)).repos_beyond = beyond;
        (token, until)
    }

    /// What stands for an installation among those whose requests are counted: it has one quota, whichever of its
    /// tokens is sent.
    pub(super) fn account_of(installation: u64) -> String {
        format!("installation-{installation}")
    }

    /// Refuses a token, a person's or one that was given out, from `secs` on.
    pub(super) fn revoke(&mut self, token: &str, secs: f64) {
        let (print, end) = (fingerprint(token), self.now + seconds(secs));
        match self.app.tokens.get_mut(print.as_str()) {
            Some((_, until)) => *until = end.min(*until),
            None => drop(self.revoked.insert(print.into(), end)),
        }
    }

    /// Lets tokens that were given out end, those of one installation or all, after `secs` at the latest.
    pub(super) fn end_tokens(&mut self, of: Option<u64>, secs: f64) {
        let end = self.now + seconds(secs);
        for (_, until) in self.app.tokens.values_mut().filter(|(id, _)| of.is_none_or(|of| of == *id)) {
            *until = end.min(*until);
        }
    }
}
