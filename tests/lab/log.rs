//! What the controllers of a run write to their log.

use std::io;
use std::sync::{Arc, Mutex};

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

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no holder panics").extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
