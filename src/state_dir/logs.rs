//! What sandboxes printed that ended without serving, fetched once after their end and kept in a bounded folder.
//!
//! Nothing waits for it and nothing depends on it: a fetch that fails leaves a file with the reason alone until it is tried
//! again, and a disk that cannot be written to is one warning.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::PATIENCE;
use super::mask::masked;
use super::place::Place;
use crate::clock::Clock;
use crate::error::{CallFailure, ErrorChain, ErrorClass};
use crate::evidence::NO_CAPACITY;
use crate::ids::{AppId, Deployment, JobId, OurName, SandboxId, TaskId};
use crate::modal::{ModalReader, OutputOf};
use crate::runner::Exit;
use crate::state::Origin;

/// How much of the output of one sandbox is kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// How much is kept of what Modal says of an end, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The bounds of the folder: what is worth least goes first, and of that what was kept first.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// No more wait to be fetched; of a flood of ends the last ones are worth as much as the first.
const WAITING_MAX: usize = FILES_MAX;
/// Between two fetches: at most 30 a minute, one at a time.
const FETCH_EVERY: TimeDelta = TimeDelta::seconds(2);
/// After the end of a sandbox its last lines may still be on their way.
const SETTLE: TimeDelta = TimeDelta::seconds(5);
/// How often a fetch is tried that fails in passing, and the pause before the next.
const TRIES: (u32, TimeDelta) = (3, TimeDelta::seconds(60));
/// How far the times of output and of sandboxes may differ.
const LEEWAY: TimeDelta = TimeDelta::minutes(1);

/// The end of a file's name, and of that of one that is being written.
const SUFFIX: &str = ".log";
const UNFINISHED: &str = ".new";
/// The key in the head of a file that says why its sandbox ended.
const REASON: &str = "reason";

/// A sandbox that ended without serving, or by a failure.
#[derive(Debug, Clone)]
pub struct DeadSandbox {
    /// Its name.
    pub name: OurName,
    /// Its id.
    pub sandbox: SandboxId,
    /// What ran it.
    pub task: Option<TaskId>,
    /// For what it was made.
    pub origin: Origin,
    /// When it was created, by Modal's clock.
    pub created_at: DateTime<Utc>,
    /// When its end was seen.
    pub ended_at: DateTime<Utc>,
    /// Why it ended.
    pub reason: &'static str,
    /// What Modal says about that.
    pub message: String,
}

/// Fetches and keeps, one sandbox at a time, beside the loop.
#[derive(Debug)]
pub struct LogKeeper {
    work: Arc<Work>,
    waiting: VecDeque<Waiting>,
    /// At most one.
    at_work: JoinSet<io::Result<Fetched>>,
    /// What that fetches.
    fetching: Option<Waiting>,
    due: DateTime<Utc>,
    /// Whether the last file could not be written.
    is_failing: bool,
}

/// A sandbox whose output is to be fetched.
#[derive(Debug, Clone)]
struct Waiting {
    dead: DeadSandbox,
    /// How often that failed.
    failures: u32,
    due: DateTime<Utc>,
}

/// What came of a fetch; there is a file in any case.
#[derive(Debug)]
enum Fetched {
    /// All that there is.
    Kept(PathBuf),
    /// It failed, and may not the next time.
    NotYet,
}

#[derive(Debug)]
struct Work {
    reader: ModalReader,
    clock: Clock,
    folder: PathBuf,
    app: Mutex<Option<AppId>>,
}

/// A keeper for the folder of a deployment in `dir`; nothing is touched yet.
pub fn open_logs(dir: &Path, deployment: &Deployment, reader: ModalReader, clock: Clock) -> LogKeeper {
    let folder = dir.join(format!("logs-{deployment}"));
    LogKeeper {
        work: Arc::new(Work { reader, clock, folder, app: Mutex::default() }),
        waiting: VecDeque::new(),
        at_work: JoinSet::new(),
        fetching: None,
        due: DateTime::UNIX_EPOCH,
        is_failing: false,
    }
}

impl LogKeeper {
    /// Takes a sandbox whose output is to be fetched, and tells where it will be found.
    pub fn take(&mut self, dead: DeadSandbox) -> PathBuf {
        let path = self.work.path(&dead.name);
        let due = dead.ended_at + SETTLE;
        self.waiting.push_back(Waiting { dead, failures: 0, due });
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
        }
        path
    }

    /// Starts a fetch where one is due and none is under way. Called by every pass; never waits.
    pub fn offer(&mut self, now: DateTime<Utc>) {
        while let Some(result) = self.at_work.try_join_next() {
            self.note(result, now);
        }
        if !self.at_work.is_empty() || now < self.due {
            return;
        }
        let next = self.waiting.iter().position(|waiting| now >= waiting.due);
        if let Some(waiting) = next.and_then(|next| self.waiting.remove(next)) {
            self.due = now + FETCH_EVERY;
            self.fetching = Some(waiting.clone());
            let work = Arc::clone(&self.work);
            self.at_work.spawn(async move { work.keep(waiting.dead).await });
        }
    }

    /// Writes at least why those ended that wait to be fetched: nobody will fetch what they printed.
    pub async fn finish(mut self) {
        let fetched = timeout(PATIENCE, async { while self.at_work.join_next().await.is_some() {} });
        let is_cut_off = fetched.await.is_err();
        self.at_work.abort_all();
        let cut_off = self.fetching.filter(|_| is_cut_off);
        let waiting = cut_off.into_iter().chain(self.waiting);
        let left: Vec<DeadSandbox> = waiting.filter(|it| it.failures == 0).map(|it| it.dead).collect();
        let work = Arc::clone(&self.work);
        let written = tokio::task::spawn_blocking(move || {
            let output = "(sandrunner was stopped before it was fetched)\n";
            left.iter().try_for_each(|dead| work.write(dead, output).map(|_| ()))
        });
        let written = timeout(PATIENCE, written).await.map_err(io::Error::other);
        if let Err(error) = written.and_then(|written| written.map_err(io::Error::other)?) {
            warn!(folder = %self.work.folder.display(), error = %ErrorChain(&error), "why the last sandboxes ended is not kept");
        }
    }

    fn note(&mut self, result: Result<io::Result<Fetched>, JoinError>, now: DateTime<Utc>) {
        let fetched = self.fetching.take();
        match result.map_err(io::Error::other).and_then(|kept| kept) {
            Ok(Fetched::NotYet) => {
                let (tries, pause) = TRIES;
                let again = fetched.map(|it| Waiting { failures: it.failures + 1, due: now + pause, ..it });
                self.waiting.extend(again.filter(|again| again.failures < tries));
            }
            Ok(Fetched::Kept(path)) => {
                debug!(path = %path.display(), "kept what a sandbox printed");
                if std::mem::take(&mut self.is_failing) {
                    info!("what sandboxes print is kept again");
                }
            }
            Err(error) => {
                let folder = self.work.folder.display();
                if std::mem::replace(&mut self.is_failing, true) {
                    debug!(%folder, error = %ErrorChain(&error), "what a sandbox printed is not kept");
                } else {
                    warn!(%folder, error = %ErrorChain(&error), "what sandboxes print is not kept; make room or let this process write there");
                }
            }
        }
    }
}

impl Work {
    fn path(&self, name: &OurName) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }

    async fn keep(self: Arc<Self>, dead: DeadSandbox) -> io::Result<Fetched> {
        let output = self.output(&dead).await;
        let may_come = output.as_ref().is_err_and(|failure| failure.class.may_pass());
        let output = match output {
            Ok(output) if output.is_empty() => "(Modal has no output of it)\n".to_owned(),
            Ok(output) => output,
            Err(failure) => format!("(its output cannot be fetched: {failure})\n"),
        };
        let written = tokio::task::spawn_blocking(move || {
            let path = self.write(&dead, &output)?;
            prune(&self.folder).map(|()| path)
        });
        let path = written.await.map_err(io::Error::other)??;
        Ok(if may_come { Fetched::NotYet } else { Fetched::Kept(path) })
    }

    fn write(&self, dead: &DeadSandbox, output: &str) -> io::Result<PathBuf> {
        let path = self.path(&dead.name);
        Place::at(&self.folder, &path).replace(document(dead, output).as_bytes())?;
        Ok(path)
    }

    async fn output(&self, dead: &DeadSandbox) -> Result<String, CallFailure> {
        let known = self.app.lock().expect("no holder of the App's id panics").clone();
        let app = match known {
            Some(app) => app,
            None => match self.reader.lookup_app().await? {
                Some(app) => app,
                None => return Ok(String::new()),
            },
        };
        *self.app.lock().expect("no holder of the App's id panics") = Some(app.clone());
        let until = self.clock.now() + self.clock.skew() + LEEWAY;
        let (sandbox, task) = (dead.sandbox.clone(), dead.task.clone());
        let of = OutputOf { sandbox, task, since: dead.created_at - LEEWAY, until };
        let output = self.reader.output(&app, &of, OUTPUT_BYTES_MAX).await.map_err(CallFailure::from);
        if output.as_ref().is_err_and(|failure| failure.class == ErrorClass::NotFound) {
            // It may have been made anew under another id.
            *self.app.lock().expect("no holder of the App's id panics") = None;
        }
        output
    }
}

/// A file as it is kept: lines of `key: value`, an empty one, then the output.
fn document(dead: &DeadSandbox, output: &str) -> String {
    let DeadSandbox { name, sandbox, task: _, origin, created_at: _, ended_at, reason, message } = dead;
    let head = [
        ("runner", name.to_string()),
        ("sandbox", sandbox.to_string()),
        ("class", origin.class.to_string()),
        ("repository", origin.scope.repo.to_string()),
        ("run", origin.run.to_string()),
        ("job", name.job.to_string()),
        ("ended", ended_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        (REASON, (*reason).to_owned()),
        ("message", beginning(message, MESSAGE_BYTES_MAX).replace('\n', " ")),
    ];
    let head = head.into_iter().filter(|(_, value)| !value.is_empty());
    let head = head.map(|(key, value)| format!("{key}: {value}\n")).collect::<Vec<_>>().concat();
    // What is masked may be longer than what it was.
    let output = masked(output);
    let from = output.len().saturating_sub(OUTPUT_BYTES_MAX);
    let from = (from..output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(output.len());
    format!("{}\n{}", masked(&head), &output[from..])
}

/// At most so many bytes of a text.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// Removes what is worth least, until the folder is within its bounds, and what a kill left unfinished.
fn prune(folder: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if data.is_file() && name.ends_with(SUFFIX) {
            files.push((data.modified()?, entry.path(), data.len()));
        } else if data.is_file() && name.ends_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    let mut bytes: u64 = files.iter().map(|(_, _, length)| length).sum();
    let mut count = files.len();
    if count <= FILES_MAX && bytes <= BYTES_MAX {
        return Ok(());
    }
    let by_worth = files.into_iter().map(|file| Ok((worth(&file.1)?, file)));
    let mut by_worth = by_worth.collect::<io::Result<Vec<_>>>()?;
    by_worth.sort();
    for (_, (_, path, length)) in by_worth {
        if count <= FILES_MAX && bytes <= BYTES_MAX {
            break;
        }
        fs::remove_file(path)?;
        count -= 1;
        bytes -= length;
    }
    Ok(())
}

/// What a file is worth to whoever looks for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Its sandbox ended without a job, as may be, or never ran.
    Little,
    Much,
}

fn worth(path: &Path) -> io::Result<Worth> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    let reason = head.lines().find_map(|line| line.strip_prefix(REASON)?.strip_prefix(": "));
    let usual = [Exit::Unclaimed.as_str(), Exit::Stopped.as_str(), NO_CAPACITY];
    Ok(if reason.is_some_and(|reason| usual.contains(&reason)) { Worth::Little } else { Worth::Much })
}

/// What was kept of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLog {
    /// Its name.
    pub name: OurName,
    /// The lines of `key: value` before the output.
    pub head: Vec<(String, String)>,
    /// All of it.
    pub text: String,
}

impl KeptLog {
    /// The value of a key; empty where there is none.
    pub fn value(&self, key: &str) -> &str {
        self.head.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }
}

/// Which of the kept logs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Each of them.
    All,
    /// That of a name.
    Name(OurName),
    /// Those of sandboxes that were made for a job.
    Job(JobId),
}

/// Reads what is kept in `dir`, of whatever deployments, the oldest end first; files that are none of ours are left out.
///
/// # Errors
/// [`io::Error`] where the directory or a file of it cannot be read; a directory that is not there holds nothing.
pub fn kept_logs(dir: &Path, which: &Which) -> io::Result<Vec<KeptLog>> {
    let mut kept = Vec::new();
    for folder in listed(dir)? {
        let is_ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("logs-"));
        if !is_ours || !folder.is_dir() {
            continue;
        }
        for path in listed(&folder)? {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = file.strip_suffix(SUFFIX).and_then(|name| name.parse::<OurName>().ok()) else { continue };
            let is_wanted = match which {
                Which::All => true,
                Which::Name(wanted) => *wanted == name,
                Which::Job(job) => *job == name.job,
            };
            if is_wanted {
                let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
                let lines = text.lines().take_while(|line| !line.is_empty());
                let head = lines.filter_map(|line| line.split_once(": "));
                let head = head.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                kept.push(KeptLog { name, head, text });
            }
        }
    }
    kept.sort_by(|one, other| (one.value("ended"), &one.name).cmp(&(other.value("ended"), &other.name)));
    Ok(kept)
}

fn listed(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Machine;
    use crate::ids::{ClassName, Labels, RunId};
    use crate::state::Scope;

    fn dead(name: &str) -> DeadSandbox {
        DeadSandbox {
            name: name.parse().unwrap(),
            sandbox: SandboxId::new("sb-1"),
            task: None,
            origin: Origin {
                scope: Scope { account: "gh".parse().unwrap(), repo: "acme/web".parse().unwrap() },
                run: RunId(5),
                class: ClassName::new("default"),
                group: Labels::new(["modal"]).fingerprint(),
                machine: Machine::default(),
            },
            created_at: DateTime::UNIX_EPOCH,
            ended_at: DateTime::UNIX_EPOCH + TimeDelta::days(20_000),
            reason: "registration_failed",
            message: String::new(),
        }
    }

    fn write(folder: &Path, dead: &DeadSandbox, output: &str) {
        let path = folder.join(format!("{}{SUFFIX}", dead.name));
        Place::at(folder, &path).replace(document(dead, output).as_bytes()).unwrap();
    }

    #[test]
    fn what_is_kept_is_found_by_name_and_by_job() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept_logs(&dir.path().join("absent"), &Which::All).unwrap(), []);
        let folder = dir.path().join("logs-main");
        for name in ["sr-main-gh-7-1", "sr-main-gh-7-2", "sr-main-gh-8-1"] {
            write(&folder, &dead(name), "first line\nwith ghp_0123456789abcdefABCD\n");
        }
        fs::write(folder.join("notes.log"), "of somebody").unwrap();
        fs::write(dir.path().join("evidence-main.json"), "{}").unwrap();
        let names = |which: &Which| -> Vec<String> {
            kept_logs(dir.path(), which).unwrap().iter().map(|log| log.name.to_string()).collect()
        };
        assert_eq!(names(&Which::All), ["sr-main-gh-7-1", "sr-main-gh-7-2", "sr-main-gh-8-1"]);
        assert_eq!(names(&Which::Job(JobId(7))), ["sr-main-gh-7-1", "sr-main-gh-7-2"]);
        let name = Which::Name("sr-main-gh-8-1".parse().unwrap());
        let [log] = &kept_logs(dir.path(), &name).unwrap()[..] else { panic!("one is of that name") };
        assert_eq!((log.value("reason"), log.value("run"), log.value("message")), ("registration_failed", "5", ""));
        assert!(log.text.ends_with("\n\nfirst line\nwith [redacted]\n"), "{}", log.text);
    }

    #[test]
    fn what_modal_says_is_cut() {
        let dead = DeadSandbox { message: "ä".repeat(3_000), ..dead("sr-main-gh-7-1") };
        let text = document(&dead, "");
        assert_eq!(text.matches('ä').count(), MESSAGE_BYTES_MAX / 2);
    }

    #[test]
    fn the_folder_keeps_its_bounds_and_loses_what_is_worth_least_and_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let output = "x y\n".repeat(OUTPUT_BYTES_MAX / 2);
        let oldest = SystemTime::UNIX_EPOCH;
        fs::write(dir.path().join("sr-main-gh-1-1.new"), "half").unwrap();
        for job in 1..=210_u64 {
            let reason = match job {
                100 => "unclaimed",
                150 => "stopped",
                200 => "no_capacity",
                _ => "crashed",
            };
            write(dir.path(), &DeadSandbox { reason, ..dead(&format!("sr-main-gh-{job}-1")) }, &output);
            let file =
                fs::File::options().append(true).open(dir.path().join(format!("sr-main-gh-{job}-1.log"))).unwrap();
            file.set_modified(oldest + std::time::Duration::from_secs(job)).unwrap();
        }
        prune(dir.path()).unwrap();
        let mut jobs: Vec<u64> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| {
                entry.unwrap().file_name().to_string_lossy().trim_end_matches(SUFFIX).parse::<OurName>().unwrap()
            })
            .map(|name| name.job.0)
            .collect();
        jobs.sort_unstable();
        let expected = (8..=210).filter(|job| ![100, 150, 200].contains(job)).collect::<Vec<u64>>();
        assert_eq!(jobs, expected);
        let one = fs::metadata(dir.path().join("sr-main-gh-11-1.log")).unwrap().len();
        assert!(one > 60 * 1024 && one * FILES_MAX as u64 <= BYTES_MAX, "{one} bytes");
    }
}
