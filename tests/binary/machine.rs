//! What befalls the machine of a controller, by name: the demo carries it out and serves its jobs all the same, and
//! `simulate`, which runs no controller, refuses it.

use std::fs;
use std::time::Duration;

use sandrunner::sim::Mishap;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::checker::{self, Rules};
use crate::process::{BOUND, REPO, Sandrunner, Simulation, http, small};

/// Longer than any of the demos takes on a busy machine.
const DEMO_WITHIN: Duration = Duration::from_secs(120);
const JOBS: u64 = 10;

/// Jobs that come over five minutes.
fn scenario(folder: &TempDir) -> String {
    let mut scenario = serde_json::to_value(small(JOBS)).unwrap();
    for (index, job) in scenario["jobs"].as_array_mut().unwrap().iter_mut().enumerate() {
        (job["arrival_secs"], job["duration_secs"]) = (json!(30 * index), json!(60));
    }
    let path = folder.path().join("scenario.json");
    fs::write(&path, scenario.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What the daemon says of it after its next start.
fn says(mishap: Mishap) -> &'static [&'static str] {
    match mishap {
        Mishap::ControllerKilled | Mishap::SecondController => &[],
        Mishap::ClockHourAhead => &["this machine's clock differs from GitHub's behind_seconds=-3"],
        Mishap::ClockHourBehind => &["this machine's clock differs from GitHub's behind_seconds=3"],
        Mishap::ClockDayAhead => &["this machine's clock differs from GitHub's behind_seconds=-8"],
        Mishap::ClockDayBehind => &["this machine's clock differs from GitHub's behind_seconds=8"],
        Mishap::StateLost => &["nothing was kept yet"],
        Mishap::StateCorrupt => &["not of the expected form", "the file is replaced"],
        Mishap::StateFromFuture => &["it is of version 1000", "move the file away"],
        Mishap::StateReadOnly => &["nothing is kept for a restart"],
        Mishap::StateFull => &["it is empty", "nothing is kept for a restart"],
    }
}

async fn demo(mishap: Mishap) {
    let (folder, name) = (TempDir::new().unwrap(), mishap.name());
    let history = folder.path().join("history.jsonl");
    let given = ["demo", "--scenario", &scenario(&folder), "--faults", name, "--exit", "--json"];
    let rest = ["--profile", "calm", "--speed", "60", "--log", "info", "--history", history.to_str().unwrap()];
    let all: Vec<&str> = given.into_iter().chain(rest).collect();
    let ended = Sandrunner::start(&all, &[]).ended(DEMO_WITHIN).await;
    assert_eq!(ended.status.code(), Some(0), "{name}: {ended:#?}");
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["jobs_completed"], JOBS, "{name}: {ended:#?}");
    let history = fs::read_to_string(history).unwrap();
    let struck = history.matches(&format!("\"machine_struck\",\"mishap\":\"{name}\"")).count();
    let started = history.matches("\"change\":\"started\"").count();
    assert!(struck > 0 && started == 1 + struck, "{name}: {struck} times, {started} starts: {ended:#?}");
    for part in says(mishap) {
        assert!(ended.stderr.contains(part), "{name}: `{part}` is missing in\n{}", ended.stderr);
    }
    // The demo ends when all is clean, before anything has been quiet for long.
    let controllers = if mishap == Mishap::SecondController { 2 } else { 1 };
    let violations = checker::check(&history, Rules { controllers, quiet: None, ..Rules::default() });
    assert!(violations.is_empty(), "{name}: {violations:#?}");
}

#[tokio::test]
async fn a_demo_serves_its_jobs_whatever_befalls_its_machine() {
    for some in Mishap::ALL.chunks(4) {
        futures::future::join_all(some.iter().map(|mishap| demo(*mishap))).await;
    }
}

#[tokio::test]
async fn a_mishap_can_be_put_into_a_running_demo() {
    let folder = TempDir::new().unwrap();
    let arguments = ["demo", "--scenario", &scenario(&folder), "--profile", "calm", "--speed", "10", "--log", "info"];
    let mut demo = Sandrunner::start(&arguments, &[]);
    let status = demo.printed("status:  ").await;
    let control = demo.printed("control: ").await;
    let url = format!("{}/_sim/faults", control.split("/_sim").next().unwrap());
    let mishap = json!({ "name": "state_from_future", "rate": 1.0, "times": 1, "from_secs": 0 }).to_string();
    http().post(url).body(mishap).send().await.unwrap().error_for_status().unwrap();
    demo.logged("it is of version 1000").await;
    // The next life answers where the first one did.
    let answered = http().get(status).send().await.unwrap().error_for_status().unwrap();
    assert!(answered.json::<Value>().await.unwrap()["coverage"].is_object());
    assert_eq!(demo.interrupted().await.status.code(), Some(0));
}

#[tokio::test]
async fn simulators_without_a_controller_refuse_what_befalls_its_machine() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("faulty.toml");
    fs::write(&path, format!("faults = [\"state_full\"]\n[[repos]]\nname = \"{REPO}\"\n")).unwrap();
    let ended = Sandrunner::start(&["simulate", "--scenario", path.to_str().unwrap()], &[]).ended(BOUND).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{ended:#?}");
    assert!(ended.stderr.contains("`sandrunner demo --faults state_full` runs one"), "{ended:#?}");
    let simulation = Simulation::start(&folder, &small(0), &[]).await;
    for mishap in Mishap::ALL {
        let request = http().post(simulation.url("/_sim/faults")).body(json!(mishap.name()).to_string());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 422, "{mishap:?}");
        let message = answer.json::<Value>().await.unwrap()["message"].to_string();
        assert!(message.contains("sandrunner demo --faults"), "{message}");
    }
}
