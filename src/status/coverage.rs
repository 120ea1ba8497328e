//! How much of the world was read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ids::RepoName;
use crate::observe::View;

/// How much of the world is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// When Modal's list was last read completely.
    pub modal_known_at: Option<DateTime<Utc>>,
    /// Why it was not, the last time.
    pub modal_failure: Option<String>,
    /// Allowed repositories.
    pub repositories: u32,
    /// Those whose run list was read at least once.
    pub repositories_known: u32,
    /// Lists of repositories that were not asked for yet.
    pub directories_unread: u32,
    /// Active runs whose jobs are not known.
    pub runs_unread: u32,
    /// Those that cannot be read, and why.
    pub unreachable: BTreeMap<RepoName, String>,
}

impl Coverage {
    /// Ready: Modal is known, it is known which repositories there are, and each is known or known to be unreachable.
    pub fn is_ready(&self) -> bool {
        let unreachable = u32::try_from(self.unreachable.len()).unwrap_or(u32::MAX);
        self.modal_known_at.is_some()
            && self.directories_unread == 0
            && self.repositories_known + unreachable >= self.repositories
    }
}

/// How much of the world is known.
pub(crate) fn coverage(view: &View) -> Coverage {
    let repos = &view.observed.repos;
    let known = repos.values().filter(|repo| repo.runs_read.known_at.is_some()).count();
    let runs = repos.values().flat_map(|repo| repo.runs.values());
    let unread = runs.filter(|run| run.jobs_read.known_at.is_none()).count();
    let unreachable = repos.iter().filter(|(_, repo)| repo.runs_read.known_at.is_none()).filter_map(|(scope, repo)| {
        repo.runs_read.failure.as_ref().map(|failure| (scope.repo.clone(), failure.message.clone()))
    });
    Coverage {
        modal_known_at: view.observed.fleet.read.known_at,
        modal_failure: view.observed.fleet.read.failure.as_ref().map(|failure| failure.message.clone()),
        repositories: u32::try_from(repos.len()).unwrap_or(u32::MAX),
        repositories_known: u32::try_from(known).unwrap_or(u32::MAX),
        directories_unread: directories_unread(view),
        runs_unread: u32::try_from(unread).unwrap_or(u32::MAX),
        unreachable: unreachable.collect(),
    }
}

/// Owners whose repositories were never asked for, and Apps of which it is not known yet what they were given.
fn directories_unread(view: &View) -> u32 {
    let owners = view.observed.owners.values().filter(|owner| owner.read.tried_at.is_none()).count();
    let accounts = view.readers().policy.accounts.iter().filter(|(_, account)| account.patterns.is_for_all_owners());
    let is_unread = |name| view.observed.apps.get(name).is_none_or(|app| app.read.tried_at.is_none());
    let apps = accounts.filter(|(name, _)| is_unread(*name)).count();
    u32::try_from(owners + apps).unwrap_or(u32::MAX)
}
