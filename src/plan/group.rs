//! Whether runners of an organization's runner group may be made for a repository.
//!
//! A runner of a group takes jobs of every repository that the group admits. So the group has to admit the repository,
//! else its jobs stay queued for ever, which GitHub does not say; and no repository that is not allowed, else strangers
//! get our runners.

use std::sync::Arc;

use crate::class::{Risk, Risks};
use crate::ids::RepoName;
use crate::plan::Policy;
use crate::state::{AdmittedRepos, Org, RegistryView, Scope};

/// How many repositories a reason names.
const NAMED: usize = 3;

/// Why no runner of the group is made for a run of a repository; none where one may be.
pub(super) fn refusal(
    org: &Org,
    view: &RegistryView,
    scope: &Scope,
    risks: Risks,
    policy: &Policy,
) -> Option<Arc<str>> {
    let Some(wanted) = policy.runner_group(org) else {
        return Some(format!("organization {} has no runner group in the configuration", org.name).into());
    };
    let Some(group) = &view.group else {
        let text = match (&view.group_read.failure, view.group_read.known_at) {
            (Some(failure), _) => format!("cannot read the runner groups of organization {}: {failure}", org.name),
            (None, Some(_)) => format!("organization {} has no runner group {wanted}", org.name),
            (None, None) => format!("the runner groups of organization {} were not read yet", org.name),
        };
        return Some(text.into());
    };
    let name = &group.name;
    match &group.admits {
        AdmittedRepos::Selected(repos) => {
            let account = policy.accounts.get(&org.account);
            let mut strangers = repos.iter().filter(|repo| account.is_none_or(|account| !account.serves(repo)));
            if let Some(first) = strangers.next() {
                let more: Vec<&str> = strangers.map(RepoName::as_str).take(NAMED - 1).collect();
                let named = [&[first.as_str()], &more[..]].concat().join(", ");
                let text = format!(
                    "runner group `{name}` also admits {named}, which allowed_repos lacks: their jobs could take our runners"
                );
                return Some(text.into());
            }
            if !repos.contains(&scope.repo) {
                return Some(format!("runner group `{name}` does not admit {}", scope.repo).into());
            }
        }
        AdmittedRepos::All | AdmittedRepos::Private if serves_all(org, policy) => {}
        AdmittedRepos::All | AdmittedRepos::Private => {
            let text = format!(
                "runner group `{name}` admits repositories of {} without naming them: select those in allowed_repos, or allow \"{}/*\"",
                org.name, org.name
            );
            return Some(text.into());
        }
    }
    let is_shut = risks.contains(Risk::Public) && !group.allows_public;
    is_shut.then(|| format!("runner group `{name}` does not admit public repositories").into())
}

/// Whether no repository of the organization is a stranger.
fn serves_all(org: &Org, policy: &Policy) -> bool {
    policy.accounts.get(&org.account).is_some_and(|account| account.patterns.admit_all_of(org.name.as_str()))
}
