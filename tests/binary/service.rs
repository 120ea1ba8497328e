//! The daemon as a service: what it tells systemd, how it takes a changed configuration, how it stops, and what its
//! operator can order it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, timeout};

use crate::process::{BOUND, Ended, REPO, Sandrunner, Simulation, config, http, number, small};

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

/// A daemon with an admin socket, and its commands.
struct Service {
    daemon: Sandrunner,
    socket: String,
}

impl Service {
    async fn start(folder: &TempDir, simulation: &Simulation) -> Self {
        let socket = folder.path().join("admin.sock").to_str().unwrap().to_owned();
        let state_dir = folder.path().join("state");
        let extra = [
            ("SANDRUNNER__ADMIN_SOCKET", socket.as_str()),
            ("SANDRUNNER__STATE_DIR", state_dir.to_str().unwrap()),
            ("SANDRUNNER__RECONCILE__INTERVAL", "1s"),
        ];
        let mut daemon = Sandrunner::start(&["run"], &simulation.variables(&extra));
        daemon.logged("address=").await;
        Self { daemon, socket }
    }

    /// Runs a command that asks the daemon; it needs no credentials.
    async fn command(&self, arguments: &[&str]) -> Ended {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--socket", &self.socket]).collect();
        Sandrunner::start(&arguments, &[]).ended(BOUND).await
    }

    /// The same, and what it printed.
    async fn said(&self, arguments: &[&str]) -> String {
        let ended = self.command(arguments).await;
        assert!(ended.status.success(), "{arguments:?}: {ended:#?}");
        ended.stdout
    }
}

#[tokio::test]
async fn what_is_paused_gets_nothing_until_it_goes_on_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let service = Service::start(&folder, &simulation).await;
    assert!(service.said(&["pause", "--repo", REPO]).await.contains("repository acme/web is paused"));
    let refused = service.command(&["pause", "--class", "gpuu"]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("there is no class `gpuu`; there are gpu:t4, "), "{refused:#?}");
    let job = serde_json::json!({ "jobs": [{ "id": 5_000_000_100_u64, "run": 6_000_000_100_u64, "repo": REPO,
        "labels": ["self-hosted", "modal"], "duration_secs": 1 }] });
    simulation.tell("/_sim/jobs", &job).await;
    let is_held = async |service: &Service| {
        timeout(BOUND, async {
            loop {
                let whole: Value = serde_json::from_str(&service.said(&["status", "--json"]).await).unwrap();
                if whole["skipped"]["paused"] == 1 {
                    break;
                }
            }
        })
        .await
        .expect("it is held back");
    };
    is_held(&service).await;
    let screen = service.said(&["status"]).await;
    assert!(screen.contains("paused   repository acme/web for ") && screen.contains("1 paused"), "{screen}");
    assert!(service.daemon.interrupted().await.status.success());

    let service = Service::start(&folder, &simulation).await;
    is_held(&service).await;
    let both = service.command(&["resume", "--class", "default"]).await;
    assert!(both.stderr.contains("class default is not held back by itself"), "{both:#?}");
    assert!(service.said(&["resume"]).await.contains("everything goes on"));
    simulation.reaches(BOUND, |state| number(state, "jobs_completed") == 1).await;
    let drained = service.said(&["drain"]).await;
    assert!(drained.contains("drained: no sandbox is left"), "{drained}");
    assert!(service.daemon.interrupted().await.status.success());
    let gone = Sandrunner::start(&["status", "--socket", &service.socket], &[]).ended(BOUND).await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(gone.stderr.contains("no daemon answers at"), "{gone:#?}");
}

#[tokio::test]
async fn the_page_tells_people_what_the_status_tells_programs() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = small(1);
    scenario.jobs[0].labels = ["self-hosted", "modal", "<b>odd</b>"].map(str::to_owned).into();
    let simulation = Simulation::start(&folder, &scenario, &["--profile", "calm"]).await;
    let mut daemon = Sandrunner::start(&["run"], &simulation.variables(&[]));
    let address = daemon.logged("address=").await;
    let get = async |path: &str| http().get(format!("http://{address}{path}")).send().await.unwrap();
    let whole = timeout(BOUND, async {
        loop {
            let page = get("/").await;
            let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
            assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self';"), "{policy}");
            let page = page.text().await.unwrap();
            if page.contains("no_matching_class") {
                return page;
            }
        }
    });
    let page = whole.await.expect("the job is on the page");
    assert!(page.contains("&lt;b&gt;odd&lt;/b&gt;") && !page.contains("<b>odd"), "{page}");
    let asked =
        get("/?job=https%3A%2F%2Fgithub.com%2Facme%2Fweb%2Factions%2Fruns%2F6000000000").await.text().await.unwrap();
    assert!(asked.contains("take `&lt;b&gt;odd&lt;/b&gt;` out of its runs-on"), "{asked}");
    let wrong = get("/?job=%3Cscript%3E").await.text().await.unwrap();
    assert!(wrong.contains("`&lt;script&gt;` is not the id of a job or run"), "{wrong}");
    for (path, kind) in [("/style.css", "text/css"), ("/script.js", "text/javascript")] {
        let file = get(path).await;
        assert_eq!((file.status().as_u16(), &file.headers()["content-type"]), (200, &kind.parse().unwrap()));
    }
    assert!(daemon.interrupted().await.status.success());
}

#[tokio::test]
async fn a_job_is_explained_by_the_daemon_or_by_one_look() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = small(2);
    scenario.jobs[0].labels = ["self-hosted", "modal", "gpu:t4000"].map(str::to_owned).into();
    scenario.jobs[1].duration_secs = 3_600.0;
    let simulation = Simulation::start(&folder, &scenario, &["--profile", "calm"]).await;
    let url = "https://github.com/acme/web/actions/runs/6000000000";
    let alone = ["explain", "5000000000", "--socket", "/nowhere/admin.sock"];
    let alone = Sandrunner::start(&alone, &simulation.variables(&[])).ended(BOUND).await;
    assert!(alone.status.success() && alone.stdout.contains("no daemon answers"), "{alone:#?}");
    assert!(alone.stdout.contains("no_matching_class: no class serves it: the nearest, "), "{alone:#?}");
    let service = Service::start(&folder, &simulation).await;
    simulation.reaches(BOUND, |state| number(state, "jobs_in_progress") == 1).await;
    let both = timeout(BOUND, async {
        loop {
            let said = service.said(&["explain", url]).await;
            if said.contains("it is served by sandbox") {
                return said;
            }
        }
    });
    let both = both.await.expect("the claim is seen");
    for told in [
        "job 5000000000",
        "take `gpu:t4000` out of its runs-on",
        "job 5000000001",
        "(runner sr-main-gh-5000000001-1, class default)",
    ] {
        assert!(both.contains(told), "{told}: {both}");
    }
    let json: Value = serde_json::from_str(&service.said(&["explain", "--json", "5000000001"]).await).unwrap();
    assert_eq!(json["jobs"][0]["state"], "in_progress");
    let absent = service.command(&["explain", "https://github.com/acme/api/actions/runs/1"]).await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(absent.stdout.contains("acme/api is not among the repositories that are served"), "{absent:#?}");
    let odd = service.command(&["explain", "acme/web"]).await;
    assert_eq!(odd.status.code(), Some(2), "{odd:#?}");
    assert!(service.daemon.interrupted().await.status.success());
}
