//! Asks a daemon on the same machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Reply, Request};

/// Longer than the daemon takes to give up.
const LIMIT: Duration = Duration::from_secs(20);
/// The longest answer: a status of hundreds of repositories and jobs takes a part of it.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error("no daemon answers at {}: is it running, and are you root or its user? Name another socket with --socket", .path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not answer.
    #[error("the daemon at {} did not answer", .path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not do that.
    #[error("{0}")]
    Refused(String),
    /// It is of another version.
    #[error("the daemon's answer is not understood: is it of another version?")]
    Unreadable(#[source] serde_json::Error),
}

/// Asks the daemon whose socket that is.
///
/// # Errors
/// [`AdminError`] where it is not there, does not answer, or refuses.
pub async fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, AdminError> {
    let absent = |source| AdminError::Absent { path: path.to_owned(), source };
    let silent = |source| AdminError::Silent { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await.map_err(absent)?;
    let text = timeout(LIMIT, exchange(stream, request)).await.map_err(|_| silent(io::ErrorKind::TimedOut.into()))?;
    match serde_json::from_slice(&text.map_err(silent)?).map_err(AdminError::Unreadable)? {
        Reply::Ok(answer) => serde_json::from_str(answer.get()).map_err(AdminError::Unreadable),
        Reply::Error(why) => Err(AdminError::Refused(why)),
    }
}

async fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}
