//! What the daemon keeps over a restart, and that no trouble with the place it keeps it in stops it.

#![expect(clippy::print_stdout, reason = "a test that cannot run here says why")]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::process::{BOUND, Ended, LOOK_EVERY, REPO, Sandrunner, Simulation, http, number, small};

const FILE: &str = "evidence-main.json";

fn variables(simulation: &Simulation, dir: &Path) -> Vec<(String, String)> {
    let dir = dir.to_str().unwrap();
    simulation.variables(&[("SANDRUNNER__STATE_DIR", dir), ("SANDRUNNER__RECONCILE__INTERVAL", "1s")])
}

async fn text(address: &str, path: &str) -> String {
    http().get(format!("http://{address}{path}")).send().await.unwrap().text().await.unwrap()
}

/// Waits for a status of the daemon.
async fn status(address: &str, is_reached: impl Fn(&Value) -> bool) -> Value {
    let reached = timeout(BOUND, async {
        loop {
            let status: Value = serde_json::from_str(&text(address, "/api/v1/status").await).unwrap();
            if is_reached(&status) {
                return status;
            }
            sleep(LOOK_EVERY).await;
        }
    });
    reached.await.expect("the status is reached")
}

/// The warnings that speak of the state directory.
fn warnings(ended: &Ended, dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let is_ours = |line: &&str| line.contains(" WARN ") && line.contains(dir);
    ended.stderr.lines().filter(is_ours).map(str::to_owned).collect()
}

/// Runs a daemon until one more job of the World is done, and ends it.
async fn one_job(simulation: &Simulation, daemon: Sandrunner, done: u64) -> Ended {
    simulation.reaches(BOUND, |state| number(state, "jobs_completed") == done).await;
    let ended = daemon.interrupted().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    ended
}

async fn add_job(simulation: &Simulation, index: u64) {
    let job = json!({ "id": 5_000_001_000 + index, "run": 6_000_001_000 + index, "repo": REPO,
        "labels": ["self-hosted", "modal", format!("job-{index}")], "duration_secs": 1 });
    simulation.tell("/_sim/jobs", &json!({ "jobs": [job] })).await;
}

/// What is told where nothing can be kept: of the daemon's own file always, of the others where there is something to keep.
const TROUBLES: [&str; 6] = [
    "nothing is kept for a restart",
    "pages of lists are not kept",
    "the log of a build is not kept",
    "costs are not kept",
    "the cost files cannot be read",
    "what sandboxes print is not kept",
];

#[tokio::test]
async fn jobs_are_served_whatever_stands_in_the_place_of_the_file() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let newer = r#"{"version":1000,"rows":[]}"#;
    // What stands there, what is said about it, and whether it is replaced.
    let troubles: [(Option<&str>, &[&str], bool); 5] = [
        (None, &[], true),
        (Some(""), &["it is empty", "replaced"], true),
        (Some("{\"version\":1,\"sha256\":\"0\",\"evidence\":{}}"), &["checksum", "replaced"], true),
        (Some("\u{1b}[31m\nERROR forged"), &["not of the expected form (line 1, column 1)"], true),
        (Some(newer), &["it is of version 1000", "move the file away"], false),
    ];
    for (index, (content, says, is_replaced)) in (1..).zip(troubles) {
        let dir = folder.path().join(format!("state-{index}"));
        fs::create_dir(&dir).unwrap();
        if let Some(content) = content {
            fs::write(dir.join(FILE), content).unwrap();
        }
        add_job(&simulation, index).await;
        let daemon = Sandrunner::start(&["run"], &variables(&simulation, &dir));
        let ended = one_job(&simulation, daemon, index).await;
        let warnings = warnings(&ended, &dir);
        assert_eq!(warnings.len(), usize::from(!says.is_empty()), "{content:?}: {warnings:#?}");
        for part in says {
            assert!(warnings[0].contains(part), "`{part}` is missing in {warnings:#?}");
        }
        let kept = fs::read_to_string(dir.join(FILE)).unwrap();
        assert_eq!(kept.contains("\"sha256\""), is_replaced, "{content:?}: {kept}");
        assert!(is_replaced || kept == newer, "{kept}");
    }
}

#[tokio::test]
async fn jobs_are_served_where_nothing_can_be_kept() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let full = folder.path().join("full");
    // A file in the place of the directory, a file system that takes no directory, and one that takes no byte.
    let troubles = [(file.as_path(), ""), (Path::new("/proc/sandrunner-state"), ""), (&full, "ulimit -f 0; ")];
    for (index, (dir, limit)) in (1..).zip(troubles) {
        add_job(&simulation, index).await;
        let mut daemon = Sandrunner::start_limited(limit, &["run"], &variables(&simulation, dir));
        let address = daemon.logged("address=").await;
        simulation.reaches(BOUND, |state| number(state, "jobs_completed") == index).await;
        let metrics = text(&address, "/metrics").await;
        let failed = metrics.lines().find(|line| line.starts_with("sandrunner_state_saves_total{result=\"failed\"}"));
        assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{dir:?}: {failed:?}");
        let ended = one_job(&simulation, daemon, index).await;
        let warnings = warnings(&ended, dir);
        assert!(warnings.iter().any(|line| line.contains(TROUBLES[0])), "{dir:?}: {warnings:#?}");
        check_told_once(&warnings);
    }
    assert_eq!(bytes_in(&full), 0, "a part of a file takes room");
}

/// There is one warning for each kind of file, however often it was tried, and no other.
fn check_told_once(warnings: &[String]) {
    let told = TROUBLES.map(|what| warnings.iter().filter(|line| line.contains(what)).count());
    assert!(told.iter().all(|count| *count <= 1), "{warnings:#?}");
    assert_eq!(warnings.len(), told.iter().sum::<usize>(), "{warnings:#?}");
}

/// How many bytes the files in a folder and below it have.
fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_in(&path) } else { fs::metadata(&path).unwrap().len() }).sum()
}

/// The commands that start a program where `dir` is a file system of its own, which `commands` prepare; none where this
/// user may not mount any.
fn mounted(commands: &str) -> Option<String> {
    let inside = |commands: &str| format!("exec unshare -rm /bin/bash -c '{commands} exec \"$0\" \"$@\"'");
    let may_mount = inside("mount -t tmpfs none /tmp &&");
    let tried = std::process::Command::new("/bin/bash").args(["-c", &format!("{may_mount} /bin/true")]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        println!("skipped: this user may not mount a file system");
        return None;
    }
    Some(format!("{} \"$0\" \"$@\";", inside(&format!("set -e; {commands}"))))
}

/// A daemon that finds an old file in a directory where nothing can be written serves a job, and says why it keeps
/// nothing.
async fn old_file_in(simulation: &Simulation, dir: &Path, limits: &str, (done, why): (u64, &str)) {
    let old = fs::read(dir.join(FILE)).unwrap();
    add_job(simulation, done).await;
    let mut daemon = Sandrunner::start_limited(limits, &["run"], &variables(simulation, dir));
    let address = daemon.logged("address=").await;
    assert!(daemon.log().contains("read what was kept"), "{}", daemon.log());
    simulation.reaches(BOUND, |state| number(state, "jobs_completed") == done).await;
    let metrics = text(&address, "/metrics").await;
    let failed = metrics.lines().find(|line| line.starts_with("sandrunner_state_saves_total{result=\"failed\"}"));
    assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{why}: {failed:?}");
    // As the daemon sees it.
    let seen = Path::new("/proc").join(daemon.id().to_string()).join("root").join(dir.strip_prefix("/").unwrap());
    assert_eq!(fs::read(seen.join(FILE)).unwrap(), old);
    assert!(!seen.join(format!("{FILE}.new")).exists(), "a part of the file takes room");
    let ended = one_job(simulation, daemon, done).await;
    let warnings = warnings(&ended, dir);
    let is_told = |line: &&String| line.contains("nothing is kept for a restart") && line.contains(why);
    assert_eq!(warnings.iter().filter(is_told).count(), 1, "{warnings:#?}");
    check_told_once(&warnings);
}

#[tokio::test]
async fn an_old_file_is_used_where_nothing_can_be_written_any_more() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("state");
    let (at, copy) = (dir.display(), folder.path().join("copy"));
    let read_only = format!("mount --bind {at} {at}; mount -o remount,bind,ro {at};");
    let full = format!(
        "cp -r {at} {0}; mount -t tmpfs -o size=64k none {at}; cp {0}/{FILE} {at}; \
         ! dd if=/dev/zero of={at}/rest 2>/dev/null;",
        copy.display()
    );
    let (Some(read_only), Some(full)) = (mounted(&read_only), mounted(&full)) else { return };
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    add_job(&simulation, 1).await;
    one_job(&simulation, Sandrunner::start(&["run"], &variables(&simulation, &dir)), 1).await;
    old_file_in(&simulation, &dir, &read_only, (2, "Read-only file system")).await;
    old_file_in(&simulation, &dir, &full, (3, "No space left on device")).await;
}

#[tokio::test]
async fn what_can_be_kept_again_is_kept_again() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let dir = folder.path().join("state");
    fs::write(&dir, "").unwrap();
    let mut daemon = Sandrunner::start(&["run"], &variables(&simulation, &dir));
    daemon.logged("nothing is kept for a restart").await;
    fs::remove_file(&dir).unwrap();
    daemon.logged("kept again").await;
    assert!(dir.join(FILE).exists());
    // Nobody misses what is taken away.
    fs::remove_dir_all(&dir).unwrap();
    add_job(&simulation, 1).await;
    let ended = one_job(&simulation, daemon, 1).await;
    assert_eq!(warnings(&ended, &dir).len(), 1, "{ended:#?}");
    assert!(dir.join(FILE).exists());
}

/// Changes the file as if more had happened, and gives it the checksum that goes with that.
fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut document: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    change(&mut document["evidence"]);
    let evidence = document["evidence"].to_string();
    let sha256 = hex::encode(Sha256::new().chain_update(1_u64.to_be_bytes()).chain_update(&evidence).finalize());
    fs::write(file, format!(r#"{{"version":1,"sha256":"{sha256}","evidence":{evidence}}}"#)).unwrap();
}

#[tokio::test]
async fn attempts_and_first_sightings_survive_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut scenario = serde_json::to_value(small(1)).unwrap();
    scenario["jobs"][0]["labels"] = json!(["modal", "gpu:t4"]);
    let scenario = serde_json::from_value(scenario).unwrap();
    let simulation = Simulation::start(&folder, &scenario, &["--profile", "calm"]).await;
    let dir = folder.path().join("state");
    let variables = variables(&simulation, &dir);
    let limited = [&variables[..], &[("SANDRUNNER__LIMITS__MAX_GPUS".to_owned(), "0".to_owned())]].concat();
    let job = async |arguments: &[&str], variables: &[(String, String)]| {
        let mut daemon = Sandrunner::start(arguments, variables);
        let address = daemon.logged("address=").await;
        // Other reasons come before, until everything was read once.
        let job =
            status(&address, |status| ["at_limit", "fruitless"].contains(&reason(status))).await["jobs"][0].clone();
        assert_eq!(daemon.interrupted().await.status.code(), Some(0));
        job
    };
    let before = job(&["run"], &limited).await;
    let after = job(&["run"], &limited).await;
    assert_eq!(before["reason"], "at_limit");
    assert_eq!(after["queued_since"], before["queued_since"]);
    let nowhere = job(&["run", "--state-dir", ""], &limited).await;
    assert_ne!(nowhere["queued_since"], before["queued_since"]);

    change(&dir.join(FILE), |evidence| {
        let job = evidence["jobs"].as_object_mut().unwrap().values_mut().next().unwrap();
        job["fruitless_at"] = job["seen_at"].clone();
        (job["fruitless"], job["attempt"]) = (json!(3), json!(3));
    });
    let fruitless = job(&["run"], &variables).await;
    assert_eq!(
        (&fruitless["reason"], number(&simulation.report().await, "sandboxes_created")),
        (&"fruitless".into(), 0)
    );
    let served = Sandrunner::start(&["run", "--state-dir", ""], &variables);
    one_job(&simulation, served, 1).await;
}

/// Why the first job in the status gets nothing.
fn reason(status: &Value) -> &str {
    status["jobs"][0]["reason"].as_str().unwrap_or_default()
}
