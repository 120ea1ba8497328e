//! Evidence as text that survives a restart (pure): what is kept, and what of it is believed.
//!
//! The text only saves requests, time and probes. It is believed as far as it holds something back: ages, attempts,
//! sightings of a runner at work. What brings a deletion nearer is not in it at all: agreeing readings, answered
//! deletions, ids by which something could be deleted. So whatever it says, even if it is a lie with the right
//! checksum, no registration and no sandbox is destroyed before two readings of the process that destroys agree; of
//! the grace of design rule I only the time that an earlier process had the registration in view is carried over, so that a
//! clock that jumps over a restart makes none old. A Secret is deleted on the word of an earlier process that its runner was
//! online. An image of an earlier process serves while the wanted one is made. The checksum protects from accidents, not
//! from whoever may write the file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Claim, Evidence, Images, JobEvidence, NameEvidence};
use crate::ids::{ClassName, Fingerprint, JobId, OurName, RunId};
use crate::runner::RunnerVersion;
use crate::state::Scope;

/// Raised where a text of before can't be read any more, or would mean something else. A field that is added needs
/// no new version: it has a default, and older programs overlook it.
const VERSION: u64 = 1;

/// The longest text in bytes. A job with its sandbox takes about 700, so this is far more than any installation has.
pub const LONGEST: usize = 64 * 1024 * 1024;

/// No registration is older after a restart; nothing asks for more.
const REGISTERED_MAX: TimeDelta = TimeDelta::days(1);

/// No count goes higher: an absurd one must not run into the end of its type later.
const COUNT_MAX: u32 = 1_000_000;

/// Why a text can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is longer than [`LONGEST`].
    #[error("it is longer than {} MiB", LONGEST / (1024 * 1024))]
    TooLong,
    /// It is cut, or something else.
    #[error("it is not of the expected form (line {line}, column {column})")]
    Malformed {
        /// Where, from 1; 0 where the place is not known.
        line: usize,
        /// Where, from 1; 0 where the place is not known.
        column: usize,
    },
    /// It was changed since it was written.
    #[error("its checksum does not fit its content")]
    Checksum,
    /// A newer program wrote it.
    #[error("it is of version {version}, and this program knows none above {VERSION}")]
    Newer {
        /// The version of its form.
        version: u64,
    },
}

impl Unusable {
    /// Whether it holds nothing that another program could use.
    pub fn is_worthless(self) -> bool {
        match self {
            Self::Empty | Self::TooLong | Self::Malformed { .. } | Self::Checksum => true,
            Self::Newer { .. } => false,
        }
    }

    fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    version: u64,
    sha256: String,
    evidence: &'a RawValue,
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

#[derive(Deserialize)]
struct Body<'a> {
    sha256: String,
    #[serde(borrow)]
    evidence: &'a RawValue,
}

/// What is kept of [`Evidence`].
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept<'a> {
    /// Stands for what the operator had set when this was learned.
    settings: Option<Fingerprint>,
    jobs: Cow<'a, BTreeMap<JobId, JobEvidence>>,
    names: Cow<'a, BTreeMap<OurName, NameEvidence>>,
    proven: Cow<'a, BTreeSet<ClassName>>,
    parallel: Vec<Parallel>,
    newer_since: Cow<'a, BTreeMap<RunnerVersion, DateTime<Utc>>>,
    images: Cow<'a, Images>,
}

/// How many jobs of a run and label set ran at the same time.
#[derive(Serialize, Deserialize)]
struct Parallel {
    scope: Scope,
    group: Fingerprint,
    run: RunId,
    count: u32,
}

/// Writes what is to be kept. `settings` stands for what the operator set, see [`decode`].
///
/// # Errors
/// [`Unusable::TooLong`] where the text would be too long to be read again.
///
/// # Panics
/// Never: there is nothing in it that JSON cannot say.
pub fn encode(evidence: &Evidence, settings: Fingerprint) -> Result<String, Unusable> {
    // Every field is named, so that for a new one it is decided here whether it is kept.
    let Evidence {
        jobs,
        names,
        proven,
        parallel,
        newer_since,
        images,
        groups: _,          // a restart is how an operator says: try again
        started_at: _,      // what is kept of the names tells
        failed_starts: _,   // likewise
        refused_images: _,  // likewise
        served: _,          // counts from the start of a process
        mint_failures: _,   // as with breakers
        create_failures: _, // likewise
        ceiling: _,         // likewise
        shortages: _,       // likewise
        refused_at: _,      // likewise
        jobs_learned_at: _, // readings of this process
        runners_learned_at: _,
        others_at: _, // the next readings tell
        secrets: _,   // what is gone is not found again
        forgot_at: _,
    } = evidence;
    let parallel = parallel.iter().map(|((scope, group, run), count)| Parallel {
        scope: scope.clone(),
        group: *group,
        run: *run,
        count: *count,
    });
    let kept = Kept {
        settings: Some(settings),
        jobs: Cow::Borrowed(jobs),
        names: Cow::Borrowed(names),
        proven: Cow::Borrowed(proven),
        parallel: parallel.collect(),
        newer_since: Cow::Borrowed(newer_since),
        images: Cow::Borrowed(images),
    };
    let evidence = serde_json::value::to_raw_value(&kept).expect("there is nothing in it that JSON cannot say");
    let document = Document { version: VERSION, sha256: checksum(VERSION, evidence.get()), evidence: &evidence };
    let text = serde_json::to_string(&document).expect("there is nothing in it that JSON cannot say");
    if text.len() > LONGEST { Err(Unusable::TooLong) } else { Ok(text) }
}

/// Reads what was kept, as far as it is believed at the time `now`.
///
/// What was learned under other `settings` may no longer be true and is forgotten: fruitless attempts, images that
/// served, and such whose runners did not come online. No time is later than `now`, whatever clock it was written by, so that none holds anything up for ever.
///
/// # Errors
/// [`Unusable`] where it is not what [`encode`] wrote.
pub fn decode(text: &[u8], settings: Fingerprint, now: DateTime<Utc>) -> Result<Evidence, Unusable> {
    if text.is_empty() {
        return Err(Unusable::Empty);
    }
    if text.len() > LONGEST {
        return Err(Unusable::TooLong);
    }
    let Head { version } = serde_json::from_slice(text).map_err(|error| Unusable::malformed(&error))?;
    if version > VERSION {
        return Err(Unusable::Newer { version });
    }
    let Body { sha256, evidence } = serde_json::from_slice(text).map_err(|error| Unusable::malformed(&error))?;
    if sha256 != checksum(version, evidence.get()) {
        return Err(Unusable::Checksum);
    }
    let kept: Kept<'_> = serde_json::from_str(evidence.get()).map_err(|error| Unusable::malformed(&error))?;
    Ok(kept.believed(settings, now))
}

fn checksum(version: u64, evidence: &str) -> String {
    hex::encode(Sha256::new().chain_update(version.to_be_bytes()).chain_update(evidence).finalize())
}

impl Kept<'_> {
    fn believed(self, settings: Fingerprint, now: DateTime<Utc>) -> Evidence {
        let is_as_set = self.settings == Some(settings);
        let jobs = self.jobs.into_owned().into_iter().map(|(id, job)| {
            let mut job = believed_job(&job, now);
            if !is_as_set {
                (job.fruitless, job.fruitless_at, job.waiting.unclaimed) = (0, None, 0);
                (job.machines_lost, job.machine_lost_at) = (0, None);
            }
            (id, job)
        });
        let mut started_at = BTreeMap::new();
        for (at, origin) in self.names.values().filter_map(|known| known.start_learned_at.zip(known.origin.as_ref())) {
            let last = started_at.entry(origin.class.clone()).or_insert(at.min(now));
            *last = at.min(now).max(*last);
        }
        let names = self.names.into_owned().into_iter().map(|(name, known)| (name, believed_name(known, now)));
        let parallel = self.parallel.into_iter();
        let images = self.images.into_owned().believed(now);
        Evidence {
            jobs: jobs.collect(),
            names: names.collect(),
            started_at,
            proven: if is_as_set { self.proven.into_owned() } else { BTreeSet::new() },
            parallel: parallel.map(|of| ((of.scope, of.group, of.run), of.count.min(COUNT_MAX))).collect(),
            newer_since: self.newer_since.iter().map(|(version, since)| (*version, (*since).min(now))).collect(),
            // One that is not there any more is told by the first create, and made again.
            images: if is_as_set { images } else { images.with_nothing_held() },
            // What is still there has a moment to be seen again, however long nobody looked.
            forgot_at: Some(now),
            ..Evidence::default()
        }
    }
}

// Every field is named in these, so that for a new one it is decided whether and how it is believed.

fn believed_job(job: &JobEvidence, now: DateTime<Utc>) -> JobEvidence {
    let JobEvidence {
        first_queued,
        advanced_at,
        attempt,
        fruitless,
        fruitless_at,
        machines_lost,
        machine_lost_at,
        came,
        ref waiting,
        ref taken_by,
        has_ended,
        seen_at,
    } = *job;
    JobEvidence {
        first_queued: first_queued.min(now),
        advanced_at: past(advanced_at, now),
        attempt: attempt.min(COUNT_MAX),
        fruitless: fruitless.min(COUNT_MAX),
        fruitless_at: past(fruitless_at, now),
        machines_lost: machines_lost.min(COUNT_MAX),
        machine_lost_at: past(machine_lost_at, now),
        came,
        waiting: waiting.believed(now),
        taken_by: taken_by.clone(),
        has_ended,
        seen_at: seen_at.min(now),
    }
}

fn believed_name(known: NameEvidence, now: DateTime<Utc>) -> NameEvidence {
    let NameEvidence {
        origin,
        runner_id: _, // an id is taken from GitHub's own list, where it stands with its name
        registered_at,
        registered_as,
        registration_seen_at,
        created_at,
        online_at,
        start_learned_at,
        busy_at,
        kept_at,
        claim,
        stale: _,        // these five are proofs of another process
        never_online: _, //
        living: _,       //
        fenced_at: _,    //
        given_up,        // says why it ended, and what counts as an attempt
        terminated_at: _,
        is_mint_unanswered: _, // what is there is read anew
        secret_denied_at: _,
        left_at,
        overdue_at,
        ended_at,
        seen_at,
    } = known;
    // The clock may have jumped since: what counts is for how long an earlier process had it in view.
    let seen_for = registered_at.filter(|_| registered_as.is_some()).map(|first| {
        let age = registration_seen_at.map_or(TimeDelta::zero(), |last| last - first);
        age.clamp(TimeDelta::zero(), REGISTERED_MAX)
    });
    NameEvidence {
        // A create whose answer this program did not live to see may yet appear: it counts like anybody's.
        origin: origin.filter(|_| created_at.is_some()),
        created_at: past(created_at, now),
        online_at: past(online_at, now),
        start_learned_at: past(start_learned_at, now),
        busy_at: past(busy_at, now),
        kept_at: past(kept_at, now),
        claim: claim.map(|Claim { job, runner, at }| Claim { job, runner, at: at.min(now) }),
        left_at: past(left_at, now),
        overdue_at: past(overdue_at, now),
        ended_at: past(ended_at, now),
        seen_at: past(seen_at, now),
        runner_id: None,
        registered_at: seen_for.map(|age| now - age),
        registered_as,
        registration_seen_at: seen_for.map(|_| now),
        stale: None,
        never_online: None,
        living: None,
        fenced_at: None,
        given_up,
        terminated_at: None,
        is_mint_unanswered: false,
        secret_denied_at: None,
    }
}

fn past(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    at.map(|at| at.min(now))
}
