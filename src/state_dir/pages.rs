//! The file that keeps pages of GitHub's lists, so that a restart reads in full only what has changed meanwhile.

use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::PATIENCE;
use super::place::Place;
use crate::error::ErrorChain;
use crate::github::{self, GithubReader, UnusablePages};
use crate::ids::Deployment;

/// A page that changed between two saves is read in full once more after a kill; a save writes some megabytes.
const SAVE_EVERY: TimeDelta = TimeDelta::minutes(2);

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Unusable(UnusablePages),
}

/// Saves the cached pages of some clients now and then, one save at a time, beside the loop.
#[derive(Debug)]
pub struct PagesKeeper {
    place: Arc<Place>,
    readers: Arc<[GithubReader]>,
    /// At most one.
    saving: JoinSet<io::Result<()>>,
    /// How often pages had changed when the last save began.
    saved: u64,
    due: DateTime<Utc>,
    has_failed: bool,
}

/// Lays the pages that an earlier process kept in `dir` into the clients' caches. Whatever is wrong with the file, it
/// costs requests and nothing else.
pub async fn open_pages(
    dir: &Path,
    deployment: &Deployment,
    readers: Vec<GithubReader>,
    now: DateTime<Utc>,
) -> PagesKeeper {
    let (place, readers) = (Arc::new(Place::new(dir, "pages", deployment)), Arc::<[GithubReader]>::from(readers));
    let path = place.path.display();
    let mut task = JoinSet::new();
    let (from, into) = (Arc::clone(&place), Arc::clone(&readers));
    task.spawn_blocking(move || read(&from, &into));
    match timeout(PATIENCE, task.join_next()).await {
        Ok(Some(Ok(Ok(pages)))) => info!(%path, pages, "read the kept pages of lists"),
        Ok(Some(Ok(Err(error)))) => {
            let error = ErrorChain(&error);
            warn!(%path, %error, "started without the kept pages of lists; the file is replaced, nothing is to be done");
        }
        // What it still reads is of use later.
        Ok(Some(Err(_)) | None) | Err(_) => warn!(%path, "did not wait for the kept pages of lists"),
    }
    task.detach_all();
    let saved = github::page_changes(&readers);
    PagesKeeper { place, readers, saving: JoinSet::new(), saved, due: now + SAVE_EVERY, has_failed: false }
}

fn read(place: &Place, readers: &[GithubReader]) -> Result<usize, ReadError> {
    let Some(text) = place.read(github::PAGES_LONGEST).map_err(ReadError::Read)? else { return Ok(0) };
    let text = std::str::from_utf8(&text).map_err(|_| ReadError::Unusable(UnusablePages::Malformed))?;
    github::restore_pages(text, readers).map_err(ReadError::Unusable)
}

impl PagesKeeper {
    /// Starts a save where one is due, none is under way and pages have changed. Called by every pass; never waits.
    pub fn offer(&mut self, now: DateTime<Utc>) {
        if let Some(result) = self.saving.try_join_next() {
            self.take(result.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
        if self.saving.is_empty() && now >= self.due {
            self.due = now + SAVE_EVERY;
            self.start();
        }
    }

    /// Saves a last time, and waits a short time for that.
    pub async fn finish(mut self) {
        let last = timeout(PATIENCE, async {
            while self.saving.join_next().await.is_some() {}
            self.start();
            if let Some(result) = self.saving.join_next().await {
                self.take(result.unwrap_or_else(|error| Err(io::Error::other(error))));
            }
        });
        if last.await.is_err() {
            warn!(path = %self.place.path.display(), "the last save of lists did not end in time");
        }
    }

    fn start(&mut self) {
        let changes = github::page_changes(&self.readers);
        if changes == self.saved {
            return;
        }
        self.saved = changes;
        let (place, readers) = (Arc::clone(&self.place), Arc::clone(&self.readers));
        self.saving.spawn_blocking(move || match github::keep_pages(&readers) {
            Some(text) => place.replace(text.as_bytes()),
            None => Ok(()),
        });
    }

    fn take(&mut self, result: io::Result<()>) {
        let path = self.place.path.display();
        match result {
            Ok(()) => self.has_failed = false,
            Err(error) if self.has_failed => debug!(%path, %error, "pages of lists are not kept"),
            Err(error) => {
                self.has_failed = true;
                warn!(%path, %error, "pages of lists are not kept for a restart; tried again");
            }
        }
    }
}
