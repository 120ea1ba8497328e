//! Keeps what the operator holds back over a restart.
//!
//! It is the one file here that is an order and no memory: it is written before the order is answered, and whoever gave
//! the order is told where that fails.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::PATIENCE;
use super::place::Place;
use crate::ids::Deployment;
use crate::pause::{Pause, Pauses};

/// More than thousands of repositories by name.
const LONGEST: usize = 4 * 1024 * 1024;

/// The file, and how it is written.
#[derive(Debug, Clone)]
pub struct PauseKeeper(Arc<Place>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    pauses: Vec<Pause>,
}

/// Reads what an earlier process was told to hold back.
pub async fn open_pauses(dir: &Path, deployment: &Deployment) -> (Pauses, PauseKeeper) {
    let keeper = PauseKeeper(Arc::new(Place::new(dir, "pauses", deployment)));
    let path = keeper.0.path.display().to_string();
    let reading = keeper.clone();
    match beside(move || reading.read()).await {
        Ok(pauses) => {
            for pause in pauses.all() {
                info!(held = %pause.held, since = %pause.since, "held back by an earlier order; {}", pause.held.resumed_by());
            }
            (pauses, keeper)
        }
        Err(error) => {
            warn!(%path, %error, "what was paused is not known, and goes on: pause it again");
            (Pauses::default(), keeper)
        }
    }
}

impl PauseKeeper {
    /// Keeps them for the next start.
    ///
    /// # Errors
    /// [`io::Error`] where that fails, or takes too long.
    pub async fn save(&self, pauses: &Pauses) -> io::Result<()> {
        let text = serde_json::to_vec(&Document { pauses: pauses.all() })?;
        let keeper = self.clone();
        beside(move || keeper.0.replace(&text)).await
    }

    fn read(&self) -> io::Result<Pauses> {
        let Some(text) = self.0.read(LONGEST)? else { return Ok(Pauses::default()) };
        let document: Document = serde_json::from_slice(&text)?;
        Ok(document.pauses.into_iter().collect())
    }
}

/// Does work with a disk that may not answer.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let mut task = JoinSet::new();
    task.spawn_blocking(work);
    match timeout(PATIENCE, task.join_next()).await {
        Ok(Some(done)) => done.map_err(io::Error::other)?,
        Ok(None) | Err(_) => {
            Err(io::Error::other(format!("no answer within {}", humantime::format_duration(PATIENCE))))
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::ids::ClassName;
    use crate::pause::{Held, Order};

    #[tokio::test]
    async fn what_is_held_back_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let deployment = "main".parse().unwrap();
        let (mut pauses, keeper) = open_pauses(dir.path(), &deployment).await;
        assert_eq!(pauses, Pauses::default());
        for held in [Held::Class(ClassName::new("gpu:t4")), Held::Repo("acme/web".parse().unwrap()), Held::All] {
            pauses.take(&Order::Pause(held), DateTime::UNIX_EPOCH);
        }
        keeper.save(&pauses).await.unwrap();
        assert_eq!(open_pauses(dir.path(), &deployment).await.0, pauses);
        std::fs::write(dir.path().join("pauses-main.json"), "{").unwrap();
        assert_eq!(open_pauses(dir.path(), &deployment).await.0, Pauses::default());
        let nowhere = PauseKeeper(Arc::new(Place::new(&dir.path().join("pauses-main.json"), "pauses", &deployment)));
        assert!(nowhere.save(&pauses).await.is_err());
    }
}
