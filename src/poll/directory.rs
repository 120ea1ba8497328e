//! When it is asked which repositories there are, and what GitHub says of them (pure).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::lists::number;
use super::read::{Rank, Read};
use super::{Costly, Schedule, means};
use crate::budget::{Capacity, Purpose};
use crate::evidence::AGREEMENT_APART;
use crate::ids::{AccountName, CredentialName};
use crate::plan::{Credentials, Policy};
use crate::state::{AppView, Observed, Owner, ReadState, RepoView, Scope};

/// How often it is asked at least where Apps are installed, and for lists of repositories.
const DIRECTORY_AGAIN: TimeDelta = TimeDelta::hours(1);
/// How often it is asked what GitHub says of a repository that no list shows.
const FACTS_AGAIN: Costly = Costly { free: TimeDelta::hours(1), charged: TimeDelta::hours(24) };
/// How often it is asked which release of the runner is offered, and until when others are taken.
const RELEASES_AGAIN: TimeDelta = TimeDelta::hours(1);
/// The same while nothing is known of a version that is in use.
const NEW_VERSION_AGAIN: TimeDelta = TimeDelta::minutes(1);
/// How far apart such questions are at least, so that a start does not ask all at once.
const FACTS_APART_SECS: f64 = 2.0;
/// What part of all readings they may be: they only tell why a repository is quiet, or its list is refused.
const FACTS_SHARE: f64 = 0.01;
/// The same where readings that show nothing new cost nothing.
const FACTS_SHARE_FREE: f64 = 0.05;
/// The most such questions at a time.
const FACTS_AT_ONCE: usize = 16;

/// A repository, and when it was last asked for.
type Asked<'a> = (Option<DateTime<Utc>>, &'a Scope);

impl Schedule {
    /// Where Apps are installed, and lists of repositories.
    pub(super) fn directories(&mut self, observed: &Observed, policy: &Policy) {
        for (account, _) in policy.accounts.iter().filter(|(_, account)| account.credentials == Credentials::PerOwner) {
            let app = observed.apps.get(account);
            let is_due = |app: &AppView| {
                let is_doubted = is_hinted(app.hinted_at, &app.read);
                let again = again(app.changed_at, &app.read);
                self.is_due(&app.read, if is_doubted { AGREEMENT_APART } else { again })
            };
            if app.is_none_or(is_due) {
                let tried = app.and_then(|app| app.read.tried_at);
                self.add(Read::Installations(account.clone()), Purpose::Other, Rank::Directory, tried);
            }
        }
        let doubted: BTreeSet<(&AccountName, &str)> = observed
            .repos
            .iter()
            .filter(|(_, repo)| repo.unlisted_since.is_some() && repo.gone_since.is_none())
            .map(|(scope, _)| (&scope.account, scope.repo.owner()))
            .collect();
        for (owner, view) in &observed.owners {
            let is_doubted =
                doubted.contains(&(&owner.account, &*owner.login)) || is_hinted(view.hinted_at, &view.read);
            let again = again(view.changed_at, &view.read);
            if self.is_due(&view.read, if is_doubted { AGREEMENT_APART } else { again }) {
                self.add(Read::Directory(owner.clone()), Purpose::Other, Rank::Directory, view.read.tried_at);
            }
        }
    }

    /// The runner's releases, asked for where the runners of the first repository of an account are registered that can be
    /// read, from the first image on.
    pub(super) fn releases(&mut self, observed: &Observed) {
        if observed.runners_in_use.is_empty() {
            return;
        }
        let mut asked: BTreeSet<&AccountName> = BTreeSet::new();
        for (scope, repo) in observed.served().filter(|(_, repo)| repo.runs_read.known_at.is_some()) {
            if !asked.insert(&scope.account) {
                continue;
            }
            let view = observed.releases.get(&scope.account);
            let is_known = |version| view.is_some_and(|view| view.notices.contains_key(version));
            let again = if observed.runners_in_use.values().all(is_known) { RELEASES_AGAIN } else { NEW_VERSION_AGAIN };
            if view.is_none_or(|view| self.is_due(&view.read, again)) {
                let tried = view.and_then(|view| view.read.tried_at);
                self.add(Read::Releases(repo.registry.clone()), Purpose::Other, Rank::Facts, tried);
            }
        }
    }

    /// What GitHub says of repositories that no list shows: the oldest answers first, at an even rate per credential.
    pub(super) fn facts(
        &mut self,
        observed: &Observed,
        policy: &Policy,
        capacities: &BTreeMap<CredentialName, Capacity>,
    ) {
        let all: Vec<(&Scope, &RepoView)> = observed.repos.iter().collect();
        let mut directory: Option<(Owner, Option<&ReadState>)> = None;
        // They are in the order of their credentials, and of their owners.
        for repos in all.chunk_by(|a, b| policy.share_credential(a.0, b.0)) {
            let means = means(capacities, &policy.credential(repos[0].0));
            let again = FACTS_AGAIN.at(means);
            let mut due: Vec<Asked<'_>> = Vec::new();
            for (scope, repo) in repos.iter().copied() {
                if repo.runs_read.tried_at.is_none() || !self.is_due(&repo.facts_read, again) {
                    continue;
                }
                let directory = match &directory {
                    Some((owner, read)) if owner.account == scope.account && *owner.login == *scope.repo.owner() => {
                        *read
                    }
                    _ => {
                        let owner = Owner { account: scope.account.clone(), login: scope.repo.owner().into() };
                        let read = observed.owners.get(&owner).map(|owner| &owner.read);
                        directory.insert((owner, read)).1
                    }
                };
                let is_listed = directory
                    .is_some_and(|read| read.failure.is_none() && (read.known_at.is_none() || repo.facts.is_some()));
                if !is_listed {
                    due.push((repo.facts_read.tried_at, scope));
                }
            }
            due.sort_unstable();
            let share = if means.charges_unchanged() { FACTS_SHARE } else { FACTS_SHARE_FREE };
            let apart = 1.0 / (means.reads_per_second * share).max(1e-3);
            // What has gathered since the last answer: passes may be far apart.
            let last = repos.iter().filter_map(|(_, repo)| repo.facts_read.tried_at).max();
            let gathered = last.map_or(1.0, |at| (self.now - at).as_seconds_f64() / apart.max(FACTS_APART_SECS));
            let is_earned = |count: &usize| number(*count) <= gathered;
            let count = (1..=FACTS_AT_ONCE).take_while(is_earned).count();
            for (tried, scope) in due.into_iter().take(count) {
                self.add(Read::Repo(scope.clone()), Purpose::Other, Rank::Facts, tried);
            }
        }
    }
}

/// Whether somebody told of a place since the list was read that should show it.
fn is_hinted(at: Option<DateTime<Utc>>, read: &ReadState) -> bool {
    at.is_some_and(|at| read.tried_at.is_none_or(|tried| tried < at))
}

/// After what time a list of places is read again: it is believed for as long as it has said the same. What a wrong answer
/// lacked, and be it all, would wait for an hour, unknown.
fn again(changed_at: Option<DateTime<Utc>>, read: &ReadState) -> TimeDelta {
    let same_for = read.known_at.zip(changed_at).map_or(TimeDelta::zero(), |(known, changed)| known - changed);
    same_for.clamp(AGREEMENT_APART, DIRECTORY_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_believed_for_as_long_as_it_has_said_the_same() {
        let at = |seconds: i64| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let mut read = ReadState::default();
        let mut times = vec![0];
        while times[times.len() - 1] < 3 * 3_600 {
            let last = times[times.len() - 1];
            read.succeeded(at(last));
            times.push(last + again(Some(at(0)), &read).num_seconds());
        }
        assert_eq!(times, [0, 60, 120, 240, 480, 960, 1_920, 3_840, 7_440, 11_040]);
        read.succeeded(at(11_040));
        assert_eq!(again(Some(at(11_040)), &read), TimeDelta::minutes(1));
    }
}
