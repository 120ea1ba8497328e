//! What is known of one of our names, which its sandbox and its registration share.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{JobId, RunnerId};
use crate::mutant::{self, Mutant};
use crate::plan::{DeregisterReason, LISTS_LAG};
use crate::state::{Origin, ReadTimes};

/// Two readings agree only if they lie this far apart (design rule I).
pub const AGREEMENT_APART: TimeDelta = TimeDelta::seconds(60);
/// How long it is believed that a runner runs a job because GitHub refused to delete it.
const KEPT_HOLDS: TimeDelta = TimeDelta::minutes(5);

/// What is known of a name beyond the last readings.
///
/// What brings a deletion nearer is not kept over a restart (`skip`): the process that destroys proves it itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameEvidence {
    /// For what its sandbox was made.
    pub origin: Option<Origin>,
    /// Its registration.
    #[serde(skip)]
    pub runner_id: Option<RunnerId>,
    /// When its registration was first seen, or made by us.
    pub registered_at: Option<DateTime<Utc>>,
    /// Which one that was: no other is as old.
    pub registered_as: Option<RunnerId>,
    /// When it was last seen: how old it is after a restart, by whatever clock the next process has.
    pub registration_seen_at: Option<DateTime<Utc>>,
    /// When its create was answered.
    pub created_at: Option<DateTime<Utc>>,
    /// When its runner was first seen online.
    pub online_at: Option<DateTime<Utc>>,
    /// When it was learned what follows for its class and image from its runner's coming online.
    pub start_learned_at: Option<DateTime<Utc>>,
    /// When its runner was last seen busy.
    pub busy_at: Option<DateTime<Utc>>,
    /// When GitHub last refused to delete its registration, because it runs a job.
    pub kept_at: Option<DateTime<Utc>>,
    /// The job that it took.
    pub claim: Option<Claim>,
    /// Readings that agree that the registration is there, offline, and has no living sandbox.
    #[serde(skip)]
    pub stale: Option<Agreement>,
    /// Lists of runners that agree that its runner never came online.
    #[serde(skip)]
    pub never_online: Option<Agreement>,
    /// Lists of sandboxes since it was made that agree that its sandbox lives.
    #[serde(skip)]
    pub living: Option<Agreement>,
    /// When GitHub confirmed that it sends no more work.
    #[serde(skip)]
    pub fenced_at: Option<DateTime<Utc>>,
    /// Why we gave its sandbox up, from that time on. It tells why the sandbox ended, and nothing is destroyed for it.
    pub given_up: Option<GivenUp>,
    /// When its sandbox was asked to terminate.
    #[serde(skip)]
    pub terminated_at: Option<DateTime<Utc>>,
    /// When a create of ours ended without a known sandbox: its registration may be left over.
    pub left_at: Option<DateTime<Utc>>,
    /// When Modal first said that it knows no Secret of its registration.
    #[serde(skip)]
    pub secret_denied_at: Option<DateTime<Utc>>,
    /// Whether nothing told what came of registering it: a registration of that name may be ours, or another process's.
    #[serde(skip)]
    pub is_mint_unanswered: bool,
    /// When its runner was found not to have come online in time; that is counted then, and not again at its end.
    pub overdue_at: Option<DateTime<Utc>>,
    /// When its sandbox was seen to have ended; what came of it is counted then.
    pub ended_at: Option<DateTime<Utc>>,
    pub(super) seen_at: Option<DateTime<Utc>>,
}

impl NameEvidence {
    /// Whether GitHub's refusal to delete its registration still counts: it has been seen to refuse for eleven
    /// minutes after the job had died (actions/runner#4598), so it is asked again.
    pub fn is_kept(&self, now: DateTime<Utc>) -> bool {
        self.kept_at.is_some_and(|at| now - at < KEPT_HOLDS)
    }

    /// Whether we began to end its sandbox.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_some() || self.fenced_at.is_some() || self.terminated_at.is_some()
    }

    /// Whether its registration was deleted before its runner came online: it can take no job any more.
    pub fn is_shut_out(&self) -> bool {
        (self.fenced_at.is_some() || self.given_up.is_some()) && self.online_at.is_none()
    }

    /// Whether both lists agree that its sandbox lives and its runner never came online (design rules B and I).
    pub fn has_failed_to_start(&self) -> bool {
        [self.never_online, self.living].into_iter().all(|agreed| agreed.is_some_and(|agreed| agreed.is_firm()))
    }

    /// Whether a list of runners that was read then says nothing of its runner: its sandbox ended about that time, or later.
    pub(crate) fn has_ended_since(&self, read_at: Option<DateTime<Utc>>) -> bool {
        self.ended_at.is_some_and(|ended| read_at.is_none_or(|at| at < ended + LISTS_LAG))
    }

    /// The name is that of this registration. Another process, or one that had lost what it knew, may have used it
    /// before: then what is known is of another one.
    pub(super) fn take_registration(&mut self, runner: RunnerId) {
        let claim = self.claim.filter(|claim| !is_another(claim.runner, Some(runner)));
        let known = self.runner_id.replace(runner).or(self.registered_as);
        if is_another(known, Some(runner)) {
            let (origin, runner_id, seen_at) = (self.origin.take(), self.runner_id, self.seen_at);
            *self = Self { origin, runner_id, seen_at, ..Self::default() };
        }
        (self.claim, self.registered_as) = (claim, Some(runner));
    }

    /// Its registration is there, or was just made.
    pub(super) fn see_registration(&mut self, now: DateTime<Utc>) {
        self.registered_at.get_or_insert(now);
        self.registration_seen_at = Some(now);
    }
}

/// Why we gave a sandbox up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenUp {
    /// Modal did not place it on a machine in time.
    Unplaced,
    /// Its runner did not come online in time.
    FailedStart,
}

impl GivenUp {
    /// What deleting a registration for that reason says of its sandbox.
    pub(super) fn by(reason: DeregisterReason) -> Option<Self> {
        match reason {
            DeregisterReason::NoCapacity => Some(Self::Unplaced),
            DeregisterReason::FailedStart => Some(Self::FailedStart),
            DeregisterReason::Stale => None,
        }
    }
}

/// A job that was given to a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// The registration that it was given to, where GitHub says it.
    #[serde(default)]
    pub runner: Option<RunnerId>,
    /// When that was first seen.
    pub at: DateTime<Utc>,
}

/// Known readings that say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// When the first one was answered: it may show what was so then.
    pub first: DateTime<Utc>,
    /// When the last one began.
    pub last: DateTime<Utc>,
}

impl Agreement {
    /// Whether two readings lie far enough apart.
    pub fn is_firm(&self) -> bool {
        self.last - self.first >= AGREEMENT_APART || mutant::is(Mutant::ReapAtFirstMiss)
    }

    pub(super) fn extended(agreement: Option<Self>, read: ReadTimes) -> Self {
        Self::extended_by_both(agreement, [read, read])
    }

    /// With a reading of each of two lists: it is firm where each was read twice, far enough apart.
    pub(super) fn extended_by_both(agreement: Option<Self>, [one, other]: [ReadTimes; 2]) -> Self {
        let (began, answered) = (one.began.min(other.began), one.answered.max(other.answered));
        agreement
            .map_or(Self { first: answered, last: began }, |agreed| Self { last: agreed.last.max(began), ..agreed })
    }
}

/// Whether two registrations are known, and are not the same.
pub(super) fn is_another(one: Option<RunnerId>, other: Option<RunnerId>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}
