//! Readings, and their order.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::budget::{Purpose, is_refresh};
use crate::ids::{AccountName, CredentialName, OurName, RunId, SandboxId};
use crate::plan::Policy;
use crate::state::{Org, Owner, Registry, RunStatus, Scope};

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// Modal's list of our sandboxes.
    Fleet,
    /// Modal's list of our sandboxes that ended lately.
    Ended,
    /// What Modal's workspace may use, and uses.
    Quota,
    /// What Modal takes for sandboxes.
    Rates,
    /// A sandbox by its id.
    Sandbox(OurName, SandboxId),
    /// A sandbox by its name.
    Named(OurName),
    /// Where an account's GitHub App is installed.
    Installations(AccountName),
    /// The repositories of an owner.
    Directory(Owner),
    /// What GitHub says of a repository.
    Repo(Scope),
    /// The releases of the runner that an account is offered, asked for where some of its runners are registered.
    Releases(Registry),
    /// The run list of a repository.
    Runs(Scope, Depth),
    /// A run by its id.
    Run(Scope, RunId),
    /// The jobs of a run.
    Jobs(Scope, RunId),
    /// The runners that are registered in one place.
    Runners(Registry),
    /// The runner group of an organization that new runners join.
    Group(Org),
    /// The runs of a repository with certain statuses.
    Sweep(Scope, Breadth),
}

/// How far a run list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// While pages hold new active runs.
    New,
    /// While pages hold active runs.
    Active,
}

/// Which statuses a sweep asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breadth {
    /// Those that an old run shows that is re-run or approved.
    Usual,
    /// The others of a run that has not ended.
    Rare,
}

impl Breadth {
    /// The statuses.
    pub fn statuses(self) -> &'static [RunStatus] {
        match self {
            Self::Usual => &[RunStatus::Queued, RunStatus::Waiting],
            Self::Rare => &[RunStatus::InProgress, RunStatus::Pending, RunStatus::Requested],
        }
    }
}

impl Read {
    /// Whose budget it is charged to; none where it goes to Modal.
    pub fn credential(&self, policy: &Policy) -> Option<CredentialName> {
        match self {
            Self::Fleet | Self::Ended | Self::Quota | Self::Rates | Self::Sandbox(..) | Self::Named(_) => None,
            Self::Installations(account) => Some(CredentialName::of_account(account.clone())),
            Self::Directory(owner) => Some(policy.credential_at(&owner.account, &owner.login)),
            Self::Repo(scope)
            | Self::Runs(scope, _)
            | Self::Run(scope, _)
            | Self::Jobs(scope, _)
            | Self::Sweep(scope, _) => Some(policy.credential(scope)),
            Self::Runners(registry) | Self::Releases(registry) => Some(policy.credential_of(registry)),
            Self::Group(org) => Some(policy.credential_at(&org.account, org.name.as_str())),
        }
    }

    /// What identifies it among the readings under way: two depths of one list are one, and so are two breadths.
    #[must_use]
    pub fn key(&self) -> Self {
        match self {
            Self::Runs(scope, _) => Self::Runs(scope.clone(), Depth::New),
            Self::Sweep(scope, _) => Self::Sweep(scope.clone(), Breadth::Usual),
            Self::Fleet
            | Self::Ended
            | Self::Quota
            | Self::Rates
            | Self::Sandbox(..)
            | Self::Named(_)
            | Self::Installations(_)
            | Self::Directory(_)
            | Self::Repo(_)
            | Self::Releases(_)
            | Self::Group(_)
            | Self::Run(..)
            | Self::Jobs(..)
            | Self::Runners(_) => self.clone(),
        }
    }
}

/// A reading that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// What to read.
    pub read: Read,
    /// What it is charged as.
    pub purpose: Purpose,
    pub(super) rank: Rank,
    /// Of those of a rank the largest goes first.
    pub(super) score: f64,
    /// Then the oldest.
    pub(super) since: DateTime<Utc>,
}

impl Due {
    /// Whether it goes before everything else: it costs GitHub nothing.
    pub fn is_urgent(&self) -> bool {
        self.rank == Rank::Modal
    }

    /// What goes first where not everything can be read.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let by_score = || other.score.total_cmp(&self.score);
        let rest = || (self.since, &self.read).cmp(&(other.since, &other.read));
        self.rank.cmp(&other.rank).then_with(by_score).then_with(rest)
    }
}

/// Takes those out of `due` that only refresh what is known and have a share, and gives both parts in their order.
///
/// The oldest are asked first whether they have one: jobs, which are read most often, would otherwise leave nothing to
/// runners and sweeps. Sweeps for what is rare come after all others here as well.
pub fn shared(due: Vec<Due>, mut has_share: impl FnMut(&Due) -> bool) -> (Vec<Due>, Vec<Due>) {
    let mut turns: Vec<usize> = (0..due.len()).filter(|index| is_refresh(due[*index].purpose)).collect();
    turns.sort_by_key(|index| (due[*index].rank == Rank::RareSweep, due[*index].since));
    let early: BTreeSet<usize> = turns.into_iter().filter(|index| has_share(&due[*index])).collect();
    let (early, rest): (Vec<_>, Vec<_>) = due.into_iter().enumerate().partition(|(index, _)| early.contains(index));
    let bare = |part: Vec<(usize, Due)>| part.into_iter().map(|(_, due)| due).collect();
    (bare(early), bare(rest))
}

/// What goes first where not everything can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Modal,
    Directory,
    First,
    Neglected,
    Runs,
    Jobs,
    Runners,
    Sweep,
    RareSweep,
    Facts,
    Early,
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::ids::RunId;

    #[test]
    fn what_is_shared_goes_to_the_oldest_readings_and_leaves_the_others_in_order() {
        let scope: Scope = Scope { account: "gh".parse().unwrap(), repo: "acme/web".parse().unwrap() };
        let due = |read, purpose, rank, age| {
            let since = DateTime::UNIX_EPOCH - TimeDelta::seconds(age);
            Due { read, purpose, rank, score: 0.0, since }
        };
        let jobs = |run, age| due(Read::Jobs(scope.clone(), RunId(run)), Purpose::Jobs, Rank::Jobs, age);
        let list = due(Read::Runs(scope.clone(), Depth::New), Purpose::RunList, Rank::Runs, 900);
        let runners = due(Read::Runners(Registry::Repo(scope.clone())), Purpose::Runners, Rank::Runners, 130);
        let sweep = due(Read::Sweep(scope.clone(), Breadth::Usual), Purpose::Sweep, Rank::Sweep, 700);
        let rare = due(Read::Sweep(scope.clone(), Breadth::Rare), Purpose::Sweep, Rank::RareSweep, 7_000);
        let all = vec![list.clone(), jobs(1, 60), jobs(2, 50), runners.clone(), sweep.clone(), rare.clone()];
        let mut share = 2;
        let has_share = |_: &Due| {
            share -= 1;
            share >= 0
        };
        assert_eq!(shared(all, has_share), (vec![runners, sweep], vec![list, jobs(1, 60), jobs(2, 50), rare]));
    }
}
