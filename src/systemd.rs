//! Tells systemd how the daemon fares: ready, alive, reloading, stopping, and how much it knows.
//!
//! It speaks only where systemd listens (`NOTIFY_SOCKET`). Ready and alive are told by nothing but an answer of the
//! controller: a loop that is stuck answers nobody, and systemd's watchdog restarts the daemon.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{sleep, timeout};

use crate::controller::{Asker, Question};
use crate::status::Coverage;

/// How often the controller is asked, at the most; a watchdog may need it more often.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The same while not everything was read yet, so that whoever watches a start sees it proceed.
const ASK_EVERY_AT_FIRST: Duration = Duration::from_secs(1);
/// How long an answer may take before it is asked anew.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How many beats fit into the time that a watchdog allows: two may be late.
const BEATS: u32 = 3;
/// How much is told of why a reload was refused; systemd shows one line.
const REFUSAL_MAX: usize = 400;

/// systemd, where it started this process and wants to be told.
#[derive(Debug)]
pub struct Manager {
    watchdog: Option<Duration>,
    /// Why the last reload was refused.
    refusal: Mutex<Option<String>>,
}

/// What is told as `STATUS=`: the same as at `/readyz`, on one line.
#[derive(Debug)]
struct Line<'a> {
    coverage: &'a Coverage,
    refusal: Option<&'a str>,
}

impl Manager {
    /// Reads what systemd asks for from the environment.
    pub fn of_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), refusal: Mutex::default() }
    }

    /// Tells that the loop runs, at its first answer, and from then on that it lives and how much it knows.
    pub async fn attend(&self, controller: &Asker) -> Infallible {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            std::future::pending::<()>().await;
        }
        self.beat(controller, tell).await
    }

    async fn beat(&self, controller: &Asker, tell: impl Fn(&[NotifyState<'_>])) -> Infallible {
        let (mut is_ready, mut told) = (false, String::new());
        loop {
            let coverage = timeout(ANSWER_LIMIT, controller.ask(Question::Coverage)).await.ok().flatten();
            if let Some(coverage) = &coverage {
                let line = self.line(coverage);
                let mut states = Vec::new();
                if !is_ready {
                    states.push(NotifyState::Ready);
                }
                states.push(NotifyState::Watchdog);
                if line != told {
                    states.push(NotifyState::Status(&line));
                }
                tell(&states);
                (is_ready, told) = (true, line);
            }
            let often =
                if coverage.is_some_and(|coverage| coverage.is_ready()) { ASK_EVERY } else { ASK_EVERY_AT_FIRST };
            sleep(self.watchdog.map_or(often, |limit| often.min(limit / BEATS))).await;
        }
    }

    fn line(&self, coverage: &Coverage) -> String {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        Line { coverage, refusal: refusal.as_deref() }.to_string()
    }

    /// Tells that the configuration is read anew.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration anew")]),
            Err(error) => tracing::debug!(%error, "there is no monotonic time"),
        }
    }

    /// Tells that the configuration that was read is in use from here on; the loop's first answer tells that it is ready.
    pub fn reloaded(&self) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells that the reload is over, that it changed nothing, and why.
    pub fn refused(&self, why: &impl fmt::Display) {
        let why: String =
            why.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(REFUSAL_MAX).collect();
        tell(&[NotifyState::Ready, NotifyState::Status(&refusal_text(&why))]);
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Tells that nothing more is started.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping; running jobs go on")]);
    }
}

fn refusal_text(why: &str) -> String {
    format!("the last reload was refused, the configuration before it is in use: {why}")
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Coverage { modal_known_at, modal_failure, repositories, repositories_known, unreachable, .. } =
            self.coverage;
        f.write_str(if self.coverage.is_ready() { "ready" } else { "reading" })?;
        write!(f, ": {repositories_known} of {repositories} repositories known")?;
        if let Some(repo) = unreachable.keys().next() {
            write!(f, ", {} unreachable (such as {repo})", unreachable.len())?;
        }
        match (modal_known_at, modal_failure) {
            (Some(_), None) => f.write_str(", Modal known")?,
            (Some(_), Some(_)) => f.write_str(", Modal known, its last reading failed")?,
            (None, Some(_)) => f.write_str(", Modal cannot be read")?,
            (None, None) => f.write_str(", Modal not read yet")?,
        }
        match self.refusal {
            Some(why) => write!(f, "; {}", refusal_text(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    /// What a manager with a watchdog of nine seconds hears within a minute of a controller that answers for so long.
    async fn heard(answers_for: Duration) -> Vec<String> {
        let (asker, mut questions) = Asker::new(1);
        let manager = Manager { watchdog: Some(Duration::from_secs(9)), refusal: Mutex::default() };
        let heard = Mutex::new(Vec::new());
        let controller = async {
            while let Some(question) = questions.recv().await {
                if let Question::Coverage(answer) = question {
                    drop(answer.send(Coverage { modal_known_at: Some(DateTime::UNIX_EPOCH), ..Coverage::default() }));
                }
            }
        };
        let tell = |states: &[NotifyState<'_>]| {
            let mut heard = heard.lock().unwrap();
            heard.extend(states.iter().map(ToString::to_string));
        };
        let stuck = async {
            let _ = timeout(answers_for, controller).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            never = manager.beat(&asker, tell) => match never {},
            () = stuck => {}
            () = sleep(Duration::from_secs(59)) => {}
        }
        heard.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_stuck_lets_the_watchdog_run_out() {
        let beats = |heard: &[String]| heard.iter().filter(|state| *state == "WATCHDOG=1").count();
        let alive = heard(Duration::from_secs(60)).await;
        assert_eq!(beats(&alive), 20);
        assert_eq!(alive.iter().filter(|state| *state == "READY=1").count(), 1);
        assert_eq!(alive.iter().filter(|state| state.starts_with("STATUS=ready")).count(), 1);
        let stuck = heard(Duration::from_secs(10)).await;
        assert_eq!(beats(&stuck), 4);
    }

    fn line(coverage: &Coverage, refusal: Option<&str>) -> String {
        Line { coverage, refusal }.to_string()
    }

    #[test]
    fn the_status_tells_how_much_is_known_on_one_line() {
        let mut coverage = Coverage { repositories: 3, repositories_known: 1, ..Coverage::default() };
        assert_eq!(line(&coverage, None), "reading: 1 of 3 repositories known, Modal not read yet");
        coverage.modal_failure = Some("no answer".to_owned());
        assert_eq!(line(&coverage, None), "reading: 1 of 3 repositories known, Modal cannot be read");
        coverage.modal_known_at = Some(DateTime::UNIX_EPOCH);
        coverage.unreachable.insert("acme/gone".parse().unwrap(), "not found".to_owned());
        coverage.repositories_known = 2;
        assert_eq!(
            line(&coverage, None),
            "ready: 2 of 3 repositories known, 1 unreachable (such as acme/gone), Modal known, its last reading failed"
        );
        coverage.modal_failure = None;
        coverage.unreachable.clear();
        assert_eq!(
            line(&coverage, Some("`mode` is wrong")),
            "reading: 2 of 3 repositories known, Modal known; the last reload was refused, the configuration before it is in \
             use: `mode` is wrong"
        );
    }
}
