//! The daemon as a service: what it tells systemd, how it takes a changed configuration, and how it stops.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, timeout};

use crate::process::{BOUND, Sandrunner, Simulation, config, http, number, small};

/// The end of a notify socket at which systemd listens.
struct Notified {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Notified {
    fn new(folder: &TempDir) -> Self {
        let path = folder.path().join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), path, heard: Vec::new() }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The next line that begins so. Others before it are passed over.
    async fn next(&mut self, prefix: &str) -> String {
        let found = timeout(BOUND, async {
            loop {
                if let Some(at) = self.heard.iter().position(|line| line.starts_with(prefix)) {
                    return self.heard.drain(..=at).next_back().unwrap();
                }
                let mut text = vec![0; 4_096];
                let length = self.socket.recv(&mut text).await.unwrap();
                let text = String::from_utf8(text[..length].to_vec()).unwrap();
                self.heard.extend(text.lines().map(str::to_owned));
            }
        });
        found.await.unwrap_or_else(|_| panic!("systemd heard no `{prefix}`, but {:?}", self.heard))
    }
}

async fn signal(daemon: &Sandrunner, name: &str) {
    let id = daemon.id().to_string();
    let sent = tokio::process::Command::new("kill").args([name, &id]).status().await.unwrap();
    assert!(sent.success());
}

async fn status(address: &str) -> Value {
    let answer = http().get(format!("http://{address}/api/v1/status")).send().await.unwrap();
    answer.error_for_status().unwrap().json().await.unwrap()
}

#[tokio::test]
async fn systemd_is_told_of_readiness_life_reload_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(1), &["--profile", "calm"]).await;
    let mut systemd = Notified::new(&folder);
    let path = config(&folder, "[limits]\nmax_sandboxes = 5\n");
    let variables = simulation.variables(&[("NOTIFY_SOCKET", systemd.path()), ("WATCHDOG_USEC", "1500000")]);
    let mut daemon = Sandrunner::start(&["run", "--config", &path], &variables);
    let address = daemon.logged("address=").await;
    systemd.next("READY=1").await;
    assert_eq!(systemd.next("STATUS=ready").await, "STATUS=ready: 1 of 1 repositories known, Modal known");
    for _ in 0..3 {
        systemd.next("WATCHDOG=1").await;
    }
    assert_eq!(number(&status(&address).await["sandboxes"], "limit"), 5);

    // What is wrong changes nothing.
    config(&folder, "[limits]\nmax_sandboxes = 0\n");
    signal(&daemon, "-HUP").await;
    systemd.next("RELOADING=1").await;
    assert!(systemd.next("MONOTONIC_USEC=").await.len() > "MONOTONIC_USEC=1".len());
    systemd.next("READY=1").await;
    let refusal = systemd.next("STATUS=").await;
    assert!(
        refusal.contains("the last reload was refused") && refusal.contains("`limits.max_sandboxes` is 0"),
        "{refusal}"
    );
    daemon.logged("the reload was refused").await;
    assert_eq!(number(&status(&address).await["sandboxes"], "limit"), 5);
    systemd.next("WATCHDOG=1").await;

    // What is right is used, at the same address.
    config(&folder, "[limits]\nmax_sandboxes = 7\n[log]\nlevel = \"debug\"\n");
    signal(&daemon, "-HUP").await;
    systemd.next("RELOADING=1").await;
    systemd.next("READY=1").await;
    assert_eq!(number(&status(&address).await["sandboxes"], "limit"), 7);
    daemon.logged("DEBUG").await;
    simulation.reaches(BOUND, |state| number(state, "jobs_completed") == 1).await;

    let asked = Instant::now();
    signal(&daemon, "-TERM").await;
    systemd.next("STOPPING=1").await;
    let ended = daemon.ended(Duration::from_secs(10)).await;
    assert!(ended.status.success() && asked.elapsed() < Duration::from_secs(10), "{ended:#?}");
}

#[tokio::test]
async fn an_outage_of_a_service_is_told_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let mut systemd = Notified::new(&folder);
    let gone = "http://127.0.0.1:9";
    let variables = simulation.variables(&[
        ("NOTIFY_SOCKET", systemd.path()),
        ("WATCHDOG_USEC", "1500000"),
        ("MODAL_SERVER_URL", gone),
    ]);
    let daemon = Sandrunner::start(&["run"], &variables);
    systemd.next("READY=1").await;
    systemd.next("STATUS=reading: 1 of 1 repositories known, Modal cannot be read").await;
    for _ in 0..3 {
        systemd.next("WATCHDOG=1").await;
    }
    assert!(daemon.interrupted().await.status.success());
}
