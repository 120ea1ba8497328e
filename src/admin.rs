//! The admin socket: where the commands of this program reach a daemon on the same machine.
//!
//! It is a unix socket that only its owner (and root) can open, and the one way to give a running daemon an order: what
//! listens on the network changes nothing. One connection carries one question and its answer, each a line of JSON. No
//! secret is asked for, and none is in an answer.

mod client;

use std::convert::Infallible;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::controller::{Asker, Question};
use crate::explain::{Asked, Explanation};
use crate::ids::OurName;
use crate::pause::{Order, Pause, Pauses};
use crate::state_dir::{PauseKeeper, Which, kept_logs};

pub use client::{AdminError, ask};

/// The longest question.
const QUESTION_BYTES_MAX: u64 = 4 * 1024;
/// How long a question may take to arrive, its answer to be found, and to be taken.
const LIMIT: Duration = Duration::from_secs(5);
/// Connections at a time; there are few people.
const CONNECTIONS: usize = 16;
/// How many of the last lines of a dead sandbox are told.
const PRINTED_MAX: usize = 5;
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a daemon is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// All that it knows and does.
    Status,
    /// What a job or run waits for, by its id or address.
    Explain(String),
    /// To hold something back, or let it go on.
    Order(Order),
}

/// What is held back after an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Everything that is.
    pub pauses: Vec<Pause>,
    /// Why it would not be after a restart.
    pub not_kept: Option<String>,
}

/// What a daemon answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// What was asked for.
    Ok(Box<RawValue>),
    /// Why that cannot be answered or done.
    Error(String),
}

/// Answers at the socket.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    controller: Asker,
    /// None where nothing is kept for the next start.
    keeper: Option<PauseKeeper>,
    /// Where what dead sandboxes printed is.
    state_dir: Option<PathBuf>,
}

/// Listens at a path, for its owner alone; a socket that a daemon left there which is gone is replaced.
///
/// # Errors
/// [`io::Error`] where that cannot be, or a daemon answers there.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(ErrorKind::AddrInUse, "another daemon answers there")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        Err(error) => return Err(error),
    }
    // Nobody knows it under this name before it is theirs to open.
    let mut name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let listener = UnixListener::bind(&temporary)?;
    let placed =
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        // The error is told in any case.
        let _ = fs::remove_file(&temporary);
    }
    placed.and_then(|()| listener.set_nonblocking(true)).map(|()| listener)
}

/// Where a daemon that systemd started has its socket, and where commands look for it where nothing says more.
pub fn default_path() -> PathBuf {
    PathBuf::from("/run/sandrunner/admin.sock")
}

impl Admin {
    /// Answers at a socket, by asking the controller; what is held back is kept by `keeper`, and what dead sandboxes
    /// printed is looked for in `state_dir`.
    pub fn new(
        listener: UnixListener,
        controller: Asker,
        keeper: Option<PauseKeeper>,
        state_dir: Option<PathBuf>,
    ) -> Self {
        Self { listener, shared: Arc::new(Shared { controller, keeper, state_dir }) }
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// The system's error where nobody can be waited for.
    pub async fn serve(self) -> io::Result<Infallible> {
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            let accepted = listener.accept().await;
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&self.shared);
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = shared.attend(stream).await {
                            tracing::debug!(%error, "a connection to the admin socket ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection to the admin socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Shared {
    async fn attend(&self, mut stream: tokio::net::UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.split();
        let mut line = String::new();
        timeout(LIMIT, BufReader::new(reader.take(QUESTION_BYTES_MAX)).read_line(&mut line)).await??;
        let reply = match serde_json::from_str(&line) {
            Ok(request) => match timeout(LIMIT, self.answer(request)).await {
                Ok(Ok(answer)) => Reply::Ok(answer),
                Ok(Err(why)) => Reply::Error(why),
                Err(_) => Reply::Error("the controller does not answer".to_owned()),
            },
            Err(error) => Reply::Error(format!("not a question that this version knows: {error}")),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        timeout(LIMIT, writer.write_all(&text)).await?
    }

    async fn answer(&self, request: Request) -> Result<Box<RawValue>, String> {
        match request {
            Request::Status => raw(&self.ask(Question::Status).await?),
            Request::Explain(text) => raw(&self.explain(&text).await?),
            Request::Order(order) => raw(&self.order(order).await?),
        }
    }

    async fn ask<T>(&self, question: impl FnOnce(tokio::sync::oneshot::Sender<T>) -> Question) -> Result<T, String> {
        self.controller.ask(question).await.ok_or_else(|| "the controller is stopping".to_owned())
    }

    /// With the last lines of what failed sandboxes printed.
    async fn explain(&self, text: &str) -> Result<Explanation, String> {
        let asked = text.parse::<Asked>().map_err(|error| error.to_string())?;
        let mut explanation = self.ask(|answer| Question::Explain(asked, answer)).await?;
        if let Some(dir) = self.state_dir.clone() {
            let mut reading = JoinSet::new();
            reading.spawn_blocking(move || {
                let failures = explanation.jobs.iter_mut().flat_map(|job| &mut job.failures);
                failures.for_each(|failure| failure.printed = printed(&dir, &failure.runner));
                explanation
            });
            explanation = reading.join_next().await.and_then(Result::ok).ok_or("the state directory cannot be read")?;
        }
        Ok(explanation)
    }

    /// The order holds from here on; it is answered once it is kept.
    async fn order(&self, order: Order) -> Result<Ordered, String> {
        let pauses: Pauses = self.ask(|answer| Question::Order(order, answer)).await??;
        let not_kept = match &self.keeper {
            Some(keeper) => keeper.save(&pauses).await.err().map(|error| error.to_string()),
            None => Some("there is no state_dir".to_owned()),
        };
        if let Some(error) = &not_kept {
            tracing::warn!(%error, "what is held back goes on after a restart");
        }
        Ok(Ordered { pauses: pauses.all(), not_kept })
    }
}

/// The last lines of what a sandbox printed, as far as it was kept; without it the rest is told.
fn printed(dir: &Path, runner: &OurName) -> Vec<String> {
    let logs = kept_logs(dir, &Which::Name(runner.clone())).unwrap_or_default();
    let text = logs.last().and_then(|log| log.text.split_once("\n\n")).map_or("", |(_, printed)| printed);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(PRINTED_MAX)..].iter().map(|line| (*line).to_owned()).collect()
}

fn raw(answer: &impl Serialize) -> Result<Box<RawValue>, String> {
    serde_json::value::to_raw_value(answer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_can_open_the_socket_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        let _second = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(bind(&folder.path().join("absent").join("admin.sock")).is_err());
    }

    #[tokio::test]
    async fn what_is_no_question_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (asker, questions) = Asker::new(1);
        drop(questions);
        let admin = Admin::new(bind(&path).unwrap(), asker, None, None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { admin.serve().await.map(|never| match never {}) });
        let said = async |line: &str| {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(said("{\"order\":{\"kill\":\"all\"}}").await.contains("not a question that this version knows"));
        assert!(said("\"status\"").await.contains("the controller is stopping"));
        assert!(said("").await.contains("not a question"));
    }
}
