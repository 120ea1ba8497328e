//! Logs of the last builds of images, one file each, for people.
//!
//! Nothing reads them but `sandrunner image`. A directory that cannot be written keeps nothing, and no build waits for it
//! for longer than a second.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::PATIENCE;
use super::mask::masked;
use super::place::Place;
use crate::ids::{Deployment, ImageId};

/// Of how many builds the logs are kept.
const BUILDS_MAX: usize = 20;
/// How much of the end of a log is kept, in bytes.
pub const LOG_BYTES_MAX: usize = 256 * 1024;
/// The longest first line of a file; whoever wrote a longer one was not this program.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How many builds may begin in the same millisecond.
const NAMES_MAX: u32 = 100;
/// The end of a file's name.
const SUFFIX: &str = ".log";

/// What a build came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The image, as people call it.
    pub image: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// How many layers were built rather than known.
    pub layers_built: usize,
    /// What came of it.
    pub image_id: Option<ImageId>,
    /// Why nothing came of it.
    pub problem: Option<String>,
}

/// A build whose log is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptBuild {
    /// What it came to.
    pub record: BuildRecord,
    /// The end of its log.
    pub log: String,
}

/// The directory that holds them.
#[derive(Debug, Clone)]
pub struct BuildLogs {
    dir: PathBuf,
}

impl BuildLogs {
    /// Those of a deployment in a state directory; nothing is touched.
    pub fn new(state_dir: &Path, deployment: &Deployment) -> Self {
        Self { dir: state_dir.join(format!("builds-{deployment}")) }
    }

    /// Keeps a log, and no more than the last twenty in all. A failure is told and changes nothing else.
    pub async fn keep(&self, record: BuildRecord, log: String) {
        let logs = self.clone();
        let mut task = JoinSet::new();
        task.spawn_blocking(move || logs.write(record, &log));
        let problem = match timeout(PATIENCE, task.join_next()).await {
            Ok(Some(Ok(Ok(())))) => return,
            Ok(Some(Ok(Err(error)))) => error.to_string(),
            Ok(Some(Err(error))) => error.to_string(),
            Ok(None) | Err(_) => "the disk does not answer".to_owned(),
        };
        warn!(dir = %self.dir.display(), problem, "the log of a build is not kept");
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn write(&self, record: BuildRecord, log: &str) -> io::Result<()> {
        let path = self.free_path(record.began)?;
        let record = BuildRecord { problem: record.problem.as_deref().map(masked), ..record };
        let head = serde_json::to_string(&record).map_err(io::Error::other)?;
        let log = masked(log);
        let from =
            (log.len().saturating_sub(LOG_BYTES_MAX)..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
        Place::at(&self.dir, &path).replace(format!("{head}\n{}", &log[from..]).as_bytes())?;
        self.prune(&path)
    }

    /// A name that nothing has yet.
    fn free_path(&self, began: DateTime<Utc>) -> io::Result<PathBuf> {
        let path = |number| self.dir.join(format!("{}-{number:02}{SUFFIX}", began.format("%Y%m%dT%H%M%S%3fZ")));
        let free = (0..NAMES_MAX).map(path).find(|path| !path.exists());
        free.ok_or_else(|| io::Error::other("no name is free"))
    }

    /// Removes what is more than is to be kept besides the `newest`: first what was written when the clock ran ahead, then
    /// what is oldest.
    fn prune(&self, newest: &Path) -> io::Result<()> {
        let mut files = self.files()?;
        let now = fs::metadata(newest)?.modified()?;
        files.retain(|(_, path)| path != newest);
        files.sort_by_key(|(written, path)| (*written <= now, *written, path.clone()));
        for (_, path) in &files[..(files.len() + 1).saturating_sub(BUILDS_MAX)] {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// The files, and when each was written, the oldest first.
    fn files(&self) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_file() && entry.file_name().to_string_lossy().ends_with(SUFFIX) {
                files.push((data.modified()?, entry.path()));
            }
        }
        files.sort();
        Ok(files)
    }

    /// All that are kept, the newest first; what is no log of ours is left out.
    ///
    /// # Errors
    /// Where the directory cannot be read; one that is not there holds none.
    pub fn list(&self) -> io::Result<Vec<KeptBuild>> {
        Ok(self.files()?.iter().rev().filter_map(|(_, path)| read(path).ok().flatten()).collect())
    }
}

/// A log; none where it is not of ours.
fn read(path: &Path) -> io::Result<Option<KeptBuild>> {
    let longest = HEAD_BYTES_MAX + LOG_BYTES_MAX;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(longest as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, log)) = text.split_once('\n') else { return Ok(None) };
    let record = serde_json::from_str(head).ok();
    Ok(record.map(|record| KeptBuild { record, log: masked(log) }))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn record(second: i64) -> BuildRecord {
        BuildRecord {
            image: "default".to_owned(),
            began: DateTime::UNIX_EPOCH + TimeDelta::seconds(second),
            took_seconds: 1.5,
            layers_built: 1,
            image_id: Some(ImageId::new("im-1")),
            problem: None,
        }
    }

    #[tokio::test]
    async fn the_last_builds_are_kept_and_no_more_than_the_end_of_each_log() {
        let dir = tempfile::tempdir().unwrap();
        let logs = BuildLogs::new(dir.path(), &"main".parse().unwrap());
        assert_eq!(logs.list().unwrap(), []);
        for second in 0..30 {
            logs.keep(record(second / 2), format!("log {second}\n")).await;
        }
        let kept = logs.list().unwrap();
        assert_eq!(kept.len(), BUILDS_MAX);
        assert_eq!((kept[0].log.as_str(), kept[19].log.as_str()), ("log 29\n", "log 10\n"));
        assert_eq!(kept[0].record, record(14));
        logs.keep(record(99), format!("{}ö the end", "ö".repeat(LOG_BYTES_MAX))).await;
        let longest = &logs.list().unwrap()[0].log;
        assert!(longest.len() <= LOG_BYTES_MAX && longest.ends_with("ö the end"), "{}", longest.len());
        assert_eq!(fs::read_dir(&logs.dir).unwrap().count(), BUILDS_MAX, "nothing else is left there");
        // Whatever else is there is none of ours.
        fs::write(logs.dir.join("zzz.log"), "not ours").unwrap();
        fs::write(logs.dir.join("notes.txt"), "not ours").unwrap();
        assert_eq!(logs.list().unwrap().len(), BUILDS_MAX);
    }

    #[tokio::test]
    async fn a_clock_that_ran_ahead_costs_none_of_the_logs_since() {
        let dir = tempfile::tempdir().unwrap();
        let logs = BuildLogs::new(dir.path(), &"main".parse().unwrap());
        let day = std::time::Duration::from_secs(86_400);
        for second in 0..15 {
            logs.keep(record(1_000_000 + second), format!("ahead {second}")).await;
        }
        for (written, path) in logs.files().unwrap() {
            fs::File::options().append(true).open(path).unwrap().set_modified(written + day).unwrap();
        }
        for second in 0..15 {
            logs.keep(record(second), format!("since {second}")).await;
        }
        let kept = logs.list().unwrap();
        assert_eq!(kept.len(), BUILDS_MAX);
        assert_eq!(kept.iter().filter(|build| build.log.starts_with("since")).count(), 15);
    }

    #[tokio::test]
    async fn what_looks_like_a_secret_is_neither_kept_nor_shown() {
        let dir = tempfile::tempdir().unwrap();
        let logs = BuildLogs::new(dir.path(), &"main".parse().unwrap());
        let token = "ghp_0123456789abcdefABCD";
        let failed = BuildRecord { problem: Some(format!("no: {token}")), ..record(1) };
        logs.keep(failed, format!("with {token}\n")).await;
        let [build] = &logs.list().unwrap()[..] else { panic!("one is kept") };
        assert_eq!(
            (build.log.as_str(), build.record.problem.as_deref()),
            ("with [redacted]\n", Some("no: [redacted]"))
        );
        let file = logs.files().unwrap().remove(0).1;
        assert!(!fs::read_to_string(&file).unwrap().contains(token));
        // One that an earlier program kept.
        let head = serde_json::to_string(&record(2)).unwrap();
        fs::write(&file, format!("{head}\nwith {token}\n")).unwrap();
        assert_eq!(logs.list().unwrap()[0].log, "with [redacted]\n");
    }

    #[tokio::test]
    async fn where_nothing_can_be_kept_nothing_else_happens() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("builds-main"), "in the way").unwrap();
        let logs = BuildLogs::new(dir.path(), &"main".parse().unwrap());
        logs.keep(record(1), "log".to_owned()).await;
        assert!(logs.list().is_err());
    }
}
