//! The append-only history of a World: every call and every change, with its time.
//!
//! It holds fingerprints of tokens and of JIT configs, never the secrets themselves.

mod event;
mod operation;

use std::fmt;
use std::io::Write;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

pub use event::{Cause, ControllerChange, Event, LimitKind, RemovalReason, StatedLimits, What};
pub use operation::{Operation, Service};

/// All events so far, and where they are written to as they happen.
#[derive(Default)]
pub(super) struct History {
    events: Vec<Event>,
    writer: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl History {
    pub(super) fn push(&mut self, at: DateTime<Utc>, what: What) {
        let event = Event { seq: self.events.len() as u64, at, what };
        if let Some(writer) = &mut self.writer
            && let Err(error) = write_line(writer, &event)
        {
            // The World goes on: what is written down is for people, or judged by its absence.
            tracing::error!(%error, "the history is written no further");
            self.writer = None;
        }
        self.events.push(event);
    }

    /// The events from number `since` on.
    pub(super) fn since(&self, since: u64) -> &[Event] {
        let from = usize::try_from(since).unwrap_or(usize::MAX).min(self.events.len());
        &self.events[from..]
    }

    /// Writes all events so far, and each further one as it happens.
    pub(super) fn write_to(&mut self, mut writer: Box<dyn Write + Send>) -> std::io::Result<()> {
        for event in &self.events {
            write_line(&mut writer, event)?;
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// One event as a line, flushed, so that whoever is killed loses at most the line that is being written.
fn write_line(writer: &mut impl Write, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    writer.flush()
}

/// Sixteen hexadecimal digits that stand for a secret.
pub(super) fn fingerprint(secret: &str) -> String {
    hex::encode(&Sha256::digest(secret.as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn events_are_numbered_and_survive_json() {
        let mut history = History::default();
        let at = DateTime::UNIX_EPOCH;
        history.push(at, What::ClockAdvanced { seconds: 1.5 });
        history.push(at, What::SandboxScheduled { sandbox: "sb-1".into() });
        assert_eq!(history.since(1)[0].seq, 1);
        assert!(history.since(9).is_empty());
        let line = serde_json::to_string(&history.since(1)[0]).unwrap();
        assert!(line.contains(r#""event":"sandbox_scheduled""#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), history.since(1)[0]);
    }

    /// Shares what is written to it.
    #[derive(Clone, Default)]
    struct Paper(Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_history_is_written_from_its_begin_and_as_it_grows() {
        let (mut history, paper, at) = (History::default(), Paper::default(), DateTime::UNIX_EPOCH);
        history.push(at, What::ClockAdvanced { seconds: 1.0 });
        history.write_to(Box::new(paper.clone())).unwrap();
        history.push(at, What::ClockAdvanced { seconds: 2.0 });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, history.since(0));
    }

    #[test]
    fn a_fingerprint_hides_the_secret() {
        let print = fingerprint("ghp_secret");
        assert_eq!(print.len(), 16);
        assert!(!print.contains("secret"));
    }
}
