//! The cost files: one line for each sandbox that ended, one file for each month. Lines are only ever added; a line that
//! was cut off, by a crash or a full disk, costs that line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Months, TimeDelta, Utc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::PATIENCE as WRITING_PATIENCE;
use crate::cost::{Entry, Line, Reach, month};
use crate::error::ErrorChain;
use crate::ids::{Deployment, SandboxId};
use crate::metrics;
use crate::retry::{self, Growth};

/// Files of months before that are deleted.
const KEPT: Months = Months::new(13);
/// How far back a start reads: lists of ended sandboxes reach back no further.
const READ_BACK: TimeDelta = TimeDelta::days(8);
/// Between writes that fail.
const WRITE_AGAIN: Growth = Growth { first: Duration::from_secs(10), longest: Duration::from_secs(600) };
/// Entries that wait for a disk that takes none; what is beyond is read from Modal at the next start.
const WAITING_MAX: usize = 100_000;
/// How long a start waits for the files, of which some may be large.
const READING_PATIENCE: Duration = Duration::from_secs(10);
/// The longest line that is read; ours have some hundred bytes.
const LINE_MAX: u64 = 64 * 1024;

/// Why no cost file was read.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// There is no such directory.
    #[error("there is no state directory {}: has the daemon run with it?", .0.display())]
    NoDirectory(PathBuf),
    /// A file or the directory cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What some cost files hold.
#[derive(Debug, Default)]
pub struct Costs {
    /// The entries, each sandbox once.
    pub entries: Vec<Entry>,
    /// How many files there are.
    pub files: usize,
    /// Lines that are none.
    pub unreadable: u64,
    /// Lines of a later version of this program.
    pub later: u64,
}

impl Costs {
    fn read_file(&mut self, path: &Path, since: DateTime<Utc>, ids: &mut BTreeSet<SandboxId>) -> io::Result<()> {
        let mut file = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        while file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? > 0 {
            let text = std::str::from_utf8(&line).map(|text| text.trim_end_matches('\n'));
            match text.map_or(Line::Unreadable, Line::read) {
                Line::Entry(entry) if entry.ended >= since && ids.insert(entry.id.clone()) => self.entries.push(*entry),
                Line::Entry(_) => {}
                Line::Later => self.later += 1,
                Line::Unreadable => self.unreadable += u64::from(text != Ok("")),
            }
            line.clear();
        }
        Ok(())
    }
}

/// Where the files of a deployment are.
#[derive(Debug, Clone)]
struct Place {
    dir: PathBuf,
    prefix: String,
}

impl Place {
    fn new(dir: &Path, deployment: &Deployment) -> Self {
        Self { dir: dir.to_owned(), prefix: format!("cost-{deployment}-") }
    }

    fn path(&self, month: &str) -> PathBuf {
        self.dir.join(format!("{}{month}.jsonl", self.prefix))
    }

    /// The months of which there is a file, in order.
    fn months(&self) -> io::Result<BTreeSet<String>> {
        let mut months = BTreeSet::new();
        for file in fs::read_dir(&self.dir)? {
            let name = file?.file_name();
            let month = name.to_str().and_then(|name| name.strip_prefix(&self.prefix)?.strip_suffix(".jsonl"));
            months.extend(month.filter(|month| is_month(month)).map(str::to_owned));
        }
        Ok(months)
    }

    fn read_since(&self, since: DateTime<Utc>) -> Result<Costs, BookError> {
        let mut costs = Costs::default();
        let mut ids: BTreeSet<SandboxId> = BTreeSet::new();
        let months = self.months().map_err(|source| {
            let dir = self.dir.clone();
            let is_absent = matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
            if is_absent { BookError::NoDirectory(dir) } else { BookError::Read { path: dir, source } }
        })?;
        costs.files = months.len();
        for month in months.range(month(since)..) {
            let path = self.path(month);
            let read = costs.read_file(&path, since, &mut ids);
            read.map_err(|source| BookError::Read { path, source })?;
        }
        Ok(costs)
    }

    /// Adds lines to a file: all of them, or, as far as the disk lets it, none.
    fn append(&self, month: &str, lines: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path(month))?;
        let length = file.seek(SeekFrom::End(0))?;
        let written = close_last_line(&mut file, length)
            .and_then(|()| file.write_all(lines.as_bytes()))
            .and_then(|()| file.sync_data());
        if written.is_err() {
            // What was written of it takes room; a reader tolerates what stays.
            let _ = if length > 0 { file.set_len(length) } else { fs::remove_file(self.path(month)) };
        }
        written
    }

    fn delete_before(&self, month: &str) -> io::Result<()> {
        for old in self.months()?.range(..month.to_owned()) {
            fs::remove_file(self.path(old))?;
        }
        Ok(())
    }
}

/// What was cut off is a line by itself.
fn close_last_line(file: &mut File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Whether a text has the form `2026-11`.
fn is_month(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 7 && bytes.iter().enumerate().all(|(at, b)| if at == 4 { *b == b'-' } else { b.is_ascii_digit() })
}

/// Reads what sandboxes have cost that ended since a time.
///
/// # Errors
/// [`BookError`] where there is no such directory, or a file cannot be read.
pub fn read_costs(dir: &Path, deployment: &Deployment, since: DateTime<Utc>) -> Result<Costs, BookError> {
    Place::new(dir, deployment).read_since(since)
}

/// Adds entries to the cost files, one write at a time, beside the loop.
#[derive(Debug)]
pub struct BookKeeper {
    place: Arc<Place>,
    /// What is to be written.
    waiting: Vec<Entry>,
    /// At most one; what it did not write comes back.
    writing: JoinSet<Result<(), (Vec<Entry>, io::Error)>>,
    due: DateTime<Utc>,
    failures: u32,
    /// The month in which old files were looked for.
    tidied: Option<String>,
}

/// Reads what was accounted lately, and how far back lists have to reach. Whatever is wrong with the files, it is
/// read from Modal again as far as that still shows it.
pub async fn open_book(dir: &Path, deployment: &Deployment, now: DateTime<Utc>) -> (Vec<Entry>, Reach, BookKeeper) {
    let place = Arc::new(Place::new(dir, deployment));
    let mut task = JoinSet::new();
    let reading = Arc::clone(&place);
    task.spawn_blocking(move || reading.read_since(now - READ_BACK));
    let path = place.path("*");
    let path = path.display();
    let costs = match timeout(READING_PATIENCE, task.join_next()).await {
        Ok(Some(Ok(Ok(costs)))) => costs,
        // The first write makes it.
        Ok(Some(Ok(Err(BookError::NoDirectory(_))))) => Costs::default(),
        Ok(Some(Ok(Err(error)))) => {
            warn!(%path, error = %ErrorChain(&error), "the cost files cannot be read: their last days are read from Modal");
            Costs::default()
        }
        Ok(Some(Err(_)) | None) | Err(_) => {
            warn!(%path, "did not wait for the cost files: their last days are read from Modal");
            Costs::default()
        }
    };
    task.detach_all();
    if costs.unreadable > 0 {
        warn!(%path, lines = costs.unreadable, "lines of the cost files are cut off or none of ours; the others count");
    }
    let last = costs.entries.iter().map(|entry| entry.ended).max().filter(|_| costs.unreadable == 0);
    let reach = last.map_or(Reach::AllThereIs, Reach::After);
    info!(%path, entries = costs.entries.len(), "read what sandboxes of the last days have cost");
    let keeper =
        BookKeeper { place, waiting: Vec::new(), writing: JoinSet::new(), due: now, failures: 0, tidied: None };
    (costs.entries, reach, keeper)
}

impl BookKeeper {
    /// Takes entries, and starts a write where there is something to write and none is under way. Called by every pass;
    /// never waits.
    pub fn offer(&mut self, entries: Vec<Entry>, now: DateTime<Utc>) {
        self.waiting.extend(entries);
        if let Some(result) = self.writing.try_join_next() {
            self.take(result.unwrap_or_else(|error| Err((Vec::new(), io::Error::other(error)))), now);
        }
        if self.writing.is_empty() && now >= self.due && !self.waiting.is_empty() {
            self.start(now);
        }
    }

    /// Writes what waits a last time, and waits a short time for that.
    pub async fn finish(mut self, now: DateTime<Utc>) {
        let last = timeout(WRITING_PATIENCE, async {
            for _ in 0..2 {
                if let Some(result) = self.writing.join_next().await {
                    self.take(result.unwrap_or_else(|error| Err((Vec::new(), io::Error::other(error)))), now);
                }
                if !self.waiting.is_empty() {
                    self.start(now);
                }
            }
            while self.writing.join_next().await.is_some() {}
        });
        if last.await.is_err() {
            warn!(path = %self.place.dir.display(), "the last costs were not written in time; they are read from Modal again");
        }
    }

    fn start(&mut self, now: DateTime<Utc>) {
        let entries = std::mem::take(&mut self.waiting);
        // By Modal's times: a clock of ours that is years ahead deletes nothing.
        let last = entries.iter().map(|entry| entry.ended).max().unwrap_or(now).min(now);
        let this = month(last);
        let oldest = (self.tidied.as_ref() != Some(&this)).then(|| last.checked_sub_months(KEPT).map(month)).flatten();
        self.tidied = Some(this);
        let place = Arc::clone(&self.place);
        self.writing.spawn_blocking(move || {
            if let Some(Err(error)) = oldest.map(|oldest| place.delete_before(&oldest)) {
                debug!(%error, "old cost files are not deleted");
            }
            write(&place, entries)
        });
    }

    fn take(&mut self, result: Result<(), (Vec<Entry>, io::Error)>, now: DateTime<Utc>) {
        let path = self.place.dir.display();
        let Err((unwritten, error)) = result else {
            if self.failures > 0 {
                info!(%path, "costs are kept again");
            }
            self.failures = 0;
            return;
        };
        metrics::cost_file_failed();
        self.failures = self.failures.saturating_add(1);
        self.due = now + TimeDelta::from_std(retry::delay(WRITE_AGAIN, self.failures)).unwrap_or(TimeDelta::MAX);
        let error = ErrorChain(&error);
        if self.failures == 1 {
            warn!(%path, %error, "costs are not kept; make room or let this process write there; tried again");
        } else {
            debug!(%path, %error, failures = self.failures, "costs are not kept");
        }
        self.waiting.splice(0..0, unwritten);
        self.waiting.truncate(WAITING_MAX);
    }
}

/// Adds each entry to the file of its month; gives back what could not be written.
fn write(place: &Place, entries: Vec<Entry>) -> Result<(), (Vec<Entry>, io::Error)> {
    let mut by_month: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        by_month.entry(month(entry.ended)).or_default().push(entry);
    }
    while let Some((month, entries)) = by_month.pop_first() {
        let lines: serde_json::Result<Vec<String>> = entries.iter().map(|entry| Ok(entry.to_line()? + "\n")).collect();
        let written = lines.map_err(io::Error::other).and_then(|lines| place.append(&month, &lines.concat()));
        if let Err(error) = written {
            return Err((entries.into_iter().chain(by_month.into_values().flatten()).collect(), error));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClassName;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn entry(id: &str, ended: &str) -> Entry {
        Entry {
            id: SandboxId::new(id),
            name: String::new(),
            account: "gh".to_owned(),
            repo: "acme/web".to_owned(),
            workflow: None,
            class: ClassName::new("default"),
            gpu: None,
            started: Some(at(ended) - TimeDelta::minutes(1)),
            ended: at(ended),
            usd: "0.01".parse().unwrap(),
            estimate: false,
        }
    }

    fn main() -> Deployment {
        "main".parse().unwrap()
    }

    fn ids(dir: &Path, since: &str) -> Vec<String> {
        let costs = read_costs(dir, &main(), at(since)).unwrap();
        costs.entries.iter().map(|entry| entry.id.to_string()).collect()
    }

    #[tokio::test]
    async fn entries_are_kept_by_month_and_old_months_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let now = at("2026-11-22T12:00:00Z");
        let (entries, reach, mut keeper) = open_book(dir.path(), &main(), now).await;
        assert_eq!((entries.len(), reach), (0, Reach::AllThereIs));
        for old in
            ["cost-main-2025-09.jsonl", "cost-main-2025-10.jsonl", "cost-other-2020-01.jsonl", "cost-main-x.jsonl"]
        {
            fs::write(dir.path().join(old), "").unwrap();
        }
        keeper.offer(vec![entry("sb-1", "2026-10-31T23:59:00Z"), entry("sb-2", "2026-11-20T00:00:00Z")], now);
        keeper.offer(vec![entry("sb-3", "2026-11-21T00:00:00Z")], now);
        keeper.finish(now).await;
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "cost-main-2025-10.jsonl",
                "cost-main-2026-10.jsonl",
                "cost-main-2026-11.jsonl",
                "cost-main-x.jsonl",
                "cost-other-2020-01.jsonl"
            ]
        );
        assert_eq!(ids(dir.path(), "2026-01-01T00:00:00Z"), ["sb-1", "sb-2", "sb-3"]);
        assert_eq!(ids(dir.path(), "2026-11-20T12:00:00Z"), ["sb-3"]);
        let (entries, reach, _) = open_book(dir.path(), &main(), now).await;
        assert_eq!((entries.len(), reach), (2, Reach::After(at("2026-11-21T00:00:00Z"))));
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_costs_that_line_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (now, file) = (at("2026-11-22T12:00:00Z"), dir.path().join("cost-main-2026-11.jsonl"));
        let line = |id| entry(id, "2026-11-21T00:00:00Z").to_line().unwrap();
        let later = line("sb-9").replace("\"v\":1", "\"v\":7");
        fs::write(&file, format!("{}\n{}\n{later}\n{}", line("sb-1"), line("sb-1"), &line("sb-2")[..40])).unwrap();
        let (entries, _, mut keeper) = open_book(dir.path(), &main(), now).await;
        assert_eq!(entries.len(), 1, "each sandbox once");
        keeper.offer(vec![entry("sb-3", "2026-11-22T00:00:00Z")], now);
        keeper.finish(now).await;
        let costs = read_costs(dir.path(), &main(), at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(ids(dir.path(), "2026-01-01T00:00:00Z"), ["sb-1", "sb-3"]);
        assert_eq!((costs.unreadable, costs.later), (1, 1));
    }

    #[tokio::test]
    async fn what_a_disk_does_not_take_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let (now, file) = (at("2026-11-22T12:00:00Z"), dir.path().join("cost-main-2026-11.jsonl"));
        let (_, _, mut keeper) = open_book(dir.path(), &main(), now).await;
        // Whoever runs the tests may write anywhere, so that permissions stop nothing.
        fs::create_dir_all(file.join("taken")).unwrap();
        keeper.offer(vec![entry("sb-1", "2026-10-31T00:00:00Z"), entry("sb-2", "2026-11-22T00:00:00Z")], now);
        while keeper.failures == 0 {
            tokio::task::yield_now().await;
            keeper.offer(Vec::new(), now);
        }
        fs::remove_dir_all(&file).unwrap();
        keeper.offer(vec![entry("sb-3", "2026-11-22T01:00:00Z")], now);
        assert!(keeper.writing.is_empty(), "not at once again");
        keeper.offer(Vec::new(), now + TimeDelta::seconds(10));
        keeper.finish(now).await;
        assert_eq!(ids(dir.path(), "2026-01-01T00:00:00Z"), ["sb-1", "sb-2", "sb-3"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_path_and_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cost-main-2026-11.jsonl");
        fs::write(&file, b"{\"v\":1,\xff}\n\n").unwrap();
        assert_eq!(read_costs(dir.path(), &main(), at("2026-01-01T00:00:00Z")).unwrap().unreadable, 1, "no text");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let error = read_costs(dir.path(), &main(), at("2026-01-01T00:00:00Z")).unwrap_err();
        let told = ErrorChain(&error).to_string();
        assert!(told.contains("cost-main-2026-11.jsonl") && told.contains("directory"), "{told}");
        // Neither there nor readable are two things: a name that is too long is no answer to the question.
        let error = read_costs(&dir.path().join("x".repeat(300)), &main(), at("2026-01-01T00:00:00Z")).unwrap_err();
        assert!(matches!(error, BookError::Read { .. }), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        let told = read_costs(&missing, &main(), at("2026-01-01T00:00:00Z")).unwrap_err().to_string();
        assert!(told.contains("none: has the daemon run with it?"), "{told}");
        assert_eq!(read_costs(dir.path(), &main(), at("2026-01-01T00:00:00Z")).unwrap().files, 0);
    }
}
