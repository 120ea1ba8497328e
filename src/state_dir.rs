//! The state directory: the file in it that keeps [`Evidence`] over a restart, as well as that goes, the one that
//! keeps pages of lists, and those that say what sandboxes have cost; beside them the logs of the last builds of images, and
//! a folder with what dead sandboxes printed.
//!
//! Each file is read once, at the start, and written off the loop. Invariant: whatever is wrong with the file, its directory
//! or the disk, the daemon runs; a pass never waits for either, and the start only for a second. Each trouble is one
//! warning. What the file holds is for [`kept`] to judge.

mod book;
mod builds;
#[cfg(feature = "sim")]
mod harm;
mod logs;
mod mask;
mod pages;
mod pauses;
mod place;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::place::Place;
use crate::error::ErrorChain;
use crate::evidence::Evidence;
use crate::evidence::kept::{self, Unusable};
use crate::ids::{Deployment, Fingerprint};
use crate::metrics::{self, Save};
use crate::retry::{self, Growth};

pub use self::book::{BookError, BookKeeper, Costs, open_book, read_costs};
pub use self::builds::{BuildLogs, BuildRecord, KeptBuild, LOG_BYTES_MAX};
#[cfg(feature = "sim")]
pub use self::harm::harm;
pub use self::logs::{DeadSandbox, KeptLog, LogKeeper, Which, kept_logs, open_logs};
pub use self::pages::{PagesKeeper, open_pages};
pub use self::pauses::{PauseKeeper, open_pauses};

/// A text that other people's programs wrote, as it may be stored and shown.
pub fn masked(text: &str) -> String {
    mask::masked(text)
}

/// What happens between two saves is lost by a kill; it costs requests, nothing else.
const SAVE_EVERY: TimeDelta = TimeDelta::seconds(10);
/// Between saves that fail.
const SAVE_AGAIN: Growth = Growth { first: Duration::from_secs(10), longest: Duration::from_secs(600) };
/// How long the start waits for the file, and the end for the last save. A disk that does not answer by then will not.
const PATIENCE: Duration = Duration::from_secs(1);
/// `SIGXFSZ`, by this number on every Linux but MIPS.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// The file, and how it is written.
#[derive(Debug)]
struct StateFile {
    place: Place,
    settings: Fingerprint,
}

/// Why a save failed.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("it would be unusable")]
    Unusable(#[source] Unusable),
    #[error("it cannot be written")]
    Write(#[source] io::Error),
    #[error("the save broke")]
    Broken(#[source] JoinError),
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it was not read within {}", humantime::format_duration(PATIENCE))]
    TooSlow,
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// Saves evidence now and then, one save at a time, beside the loop.
#[derive(Debug)]
pub struct Keeper {
    file: Arc<StateFile>,
    /// At most one.
    saving: JoinSet<Result<Fingerprint, SaveError>>,
    /// What the file holds, where this process wrote it.
    saved: Option<Fingerprint>,
    due: DateTime<Utc>,
    failures: u32,
}

/// Reads what an earlier process kept in `dir`; the keeper is none where its file must not be written over.
///
/// `settings` stands for what the operator set, see [`kept::decode`].
pub async fn open(
    dir: &Path,
    deployment: &Deployment,
    settings: Fingerprint,
    now: DateTime<Utc>,
) -> (Evidence, Option<Keeper>) {
    // Without a handler the signal of a file that grows beyond its limit ends the process; with one the write fails.
    // Registered once, it stays.
    if let Err(error) = signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED)) {
        debug!(%error, "a limit on file sizes would end this process");
    }
    let file = Arc::new(StateFile::new(dir, deployment, settings));
    let path = file.place.path.display();
    let (evidence, is_writable) = match read(&file, now).await {
        Ok(Some(evidence)) => {
            info!(%path, jobs = evidence.jobs.len(), "read what was kept");
            (evidence, true)
        }
        Ok(None) => {
            info!(%path, "nothing was kept yet");
            (Evidence::default(), true)
        }
        Err(ReadError::Unusable(unusable)) if unusable.is_worthless() => {
            warn!(%path, error = %unusable, "started without what was kept; the file is replaced, nothing is to be done");
            (Evidence::default(), true)
        }
        Err(error) => {
            let error = ErrorChain(&error);
            warn!(%path, %error, "started without what was kept, and nothing is kept: move the file away, or set another state_dir, and restart");
            (Evidence::default(), false)
        }
    };
    let keeper = is_writable.then(|| Keeper {
        file: Arc::clone(&file),
        saving: JoinSet::new(),
        saved: None,
        due: now,
        failures: 0,
    });
    (evidence, keeper)
}

async fn read(file: &Arc<StateFile>, now: DateTime<Utc>) -> Result<Option<Evidence>, ReadError> {
    let reading = Arc::clone(file);
    let mut task = JoinSet::new();
    task.spawn_blocking(move || reading.read(now));
    match timeout(PATIENCE, task.join_next()).await {
        Ok(Some(Ok(read))) => read,
        Ok(Some(Err(error))) => Err(ReadError::Read(io::Error::other(error))),
        Ok(None) | Err(_) => Err(ReadError::TooSlow),
    }
}

impl Keeper {
    /// Starts a save where one is due and none is under way. Called by every pass; never waits.
    pub fn offer(&mut self, evidence: &Evidence, now: DateTime<Utc>) {
        if let Some(result) = self.saving.try_join_next() {
            self.take(result, now);
        }
        if self.saving.is_empty() && now >= self.due {
            self.due = now + SAVE_EVERY;
            self.start(evidence);
        }
    }

    /// Whether a save is under way.
    pub fn is_saving(&self) -> bool {
        !self.saving.is_empty()
    }

    /// Saves a last time, and waits a short time for that.
    pub async fn finish(mut self, evidence: &Evidence, now: DateTime<Utc>) {
        let last = timeout(PATIENCE, async {
            if let Some(result) = self.saving.join_next().await {
                self.take(result, now);
            }
            self.start(evidence);
            if let Some(result) = self.saving.join_next().await {
                self.take(result, now);
            }
        });
        if last.await.is_err() {
            warn!(path = %self.file.place.path.display(), "the last save did not end in time");
        }
    }

    fn start(&mut self, evidence: &Evidence) {
        let (file, evidence, saved) = (Arc::clone(&self.file), evidence.clone(), self.saved);
        self.saving.spawn_blocking(move || file.save(&evidence, saved));
    }

    fn take(&mut self, result: Result<Result<Fingerprint, SaveError>, JoinError>, now: DateTime<Utc>) {
        let path = self.file.place.path.display();
        match result.unwrap_or_else(|error| Err(SaveError::Broken(error))) {
            Ok(saved) => {
                metrics::saved(Save::Ok);
                if self.failures > 0 {
                    info!(%path, "kept again");
                }
                (self.saved, self.failures) = (Some(saved), 0);
            }
            Err(error) => {
                metrics::saved(Save::Failed);
                self.failures = self.failures.saturating_add(1);
                let pause = retry::delay(SAVE_AGAIN, self.failures);
                self.due = now + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
                let error = ErrorChain(&error);
                if self.failures == 1 {
                    warn!(%path, %error, "nothing is kept for a restart; make room or let this process write there; tried again");
                } else {
                    debug!(%path, %error, failures = self.failures, "nothing is kept for a restart");
                }
            }
        }
    }
}

impl StateFile {
    fn new(dir: &Path, deployment: &Deployment, settings: Fingerprint) -> Self {
        Self { place: Place::new(dir, "evidence", deployment), settings }
    }

    fn read(&self, now: DateTime<Utc>) -> Result<Option<Evidence>, ReadError> {
        match self.place.read(kept::LONGEST) {
            Ok(Some(text)) => Ok(Some(kept::decode(&text, self.settings, now)?)),
            Ok(None) => Ok(None),
            Err(error) => Err(ReadError::Read(error)),
        }
    }

    /// Writes the evidence unless it is what was `saved` before; returns what stands for it.
    fn save(&self, evidence: &Evidence, saved: Option<Fingerprint>) -> Result<Fingerprint, SaveError> {
        let text = kept::encode(evidence, self.settings).map_err(SaveError::Unusable)?;
        let fingerprint = Fingerprint::of(&text);
        if saved != Some(fingerprint) {
            self.place.replace(text.as_bytes()).map_err(SaveError::Write)?;
        }
        Ok(fingerprint)
    }
}
