//! What the controllers of a run write to their log.

use std::io;
use std::sync::{Arc, Mutex};

use crate::checker::CANARIES;
use tracing::Level;
use tracing::subscriber::DefaultGuard;

/// The log of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Takes what this thread writes, and with it every controller of a run, as long as the guard is there.
    pub(crate) fn begin(&self, level: Level) -> DefaultGuard {
        let log = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_max_level(level).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// The lines that hold a text.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let written = self.0.lock().expect("no holder panics");
        let written = String::from_utf8_lossy(&written);
        written.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

/// Runs something with everything logged that there is to log, and fails where a secret is in it.
pub(crate) async fn keeping_secrets<T>(what: &str, run: impl Future<Output = T>) -> T {
    let log = Log::default();
    let guard = log.begin(Level::TRACE);
    let outcome = run.await;
    drop(guard);
    assert!(!log.lines("sandrunner").is_empty(), "{what}: nothing is logged");
    for secret in CANARIES {
        let leaked = log.lines(secret);
        assert!(leaked.is_empty(), "{what}: {secret} is logged: {}", leaked[0]);
    }
    outcome
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no holder panics").extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
