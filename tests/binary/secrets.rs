//! No secret leaves the daemon, whatever goes wrong and however much it is asked to log.

mod echo;
mod panic;
mod search;

use std::fs;
use std::time::Duration;

use sandrunner::cli::demo;
use sandrunner::sim::{APP_ID, APP_KEY};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{BOUND, REPO, Sandrunner, Simulation, config, http, number, small};
use search::{DOWNLOAD_TOKEN, JIT_CONFIG, Places, TOKENS, found, in_sandboxes};

/// Everything, also of the libraries whose noise is off unless it is asked for.
const EVERYTHING: &str = "trace,hyper=trace,h2=trace,tower=trace,octocrab=trace,tokio_cron_scheduler=trace";
const LOG_EVERYTHING: (&str, &str) = ("SANDRUNNER__LOG__LEVEL", EVERYTHING);
const LOG_JSON: (&str, &str) = ("SANDRUNNER__LOG__FORMAT", "json");
const LOOK_OFTEN: (&str, &str) = ("SANDRUNNER__RECONCILE__INTERVAL", "1s");

fn variables(simulation: &Simulation, extra: &[(&str, &str)]) -> Vec<(String, String)> {
    let all: Vec<(&str, &str)> =
        TOKENS.into_iter().chain([LOG_EVERYTHING, LOOK_OFTEN]).chain(extra.iter().copied()).collect();
    simulation.variables(&all)
}

/// A World with jobs that run for long enough to be looked at, one of them on a GPU.
async fn world(folder: &TempDir) -> Simulation {
    let mut scenario = serde_json::to_value(small(3)).unwrap();
    scenario["jobs"][2]["labels"] = json!(["modal", "gpu:t4"]);
    for job in scenario["jobs"].as_array_mut().unwrap() {
        job["duration_secs"] = json!(4);
    }
    let simulation =
        Simulation::start(folder, &serde_json::from_value(scenario).unwrap(), &["--profile", "calm"]).await;
    // What is looked for is what this World hands out.
    assert!(jit_config(&simulation).await.starts_with(JIT_CONFIG));
    simulation
}

async fn jit_config(simulation: &Simulation) -> String {
    let url = simulation.url(&format!("/repos/{REPO}/actions/runners/generate-jitconfig"));
    let body = json!({ "name": "canary-1", "runner_group_id": 1, "labels": ["other"] }).to_string();
    let request = http().post(url).header("authorization", "Bearer other").header("user-agent", "test").body(body);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["encoded_jit_config"].as_str().unwrap().to_owned()
}

async fn fault(simulation: &Simulation, fault: Value) {
    let request = http().post(simulation.url("/_sim/faults")).body(fault.to_string());
    request.send().await.unwrap().error_for_status().unwrap();
}

fn holds(places: &Places, place: &str, control: &str) -> bool {
    places[place].iter().any(|text| text.contains(control))
}

/// Where a daemon that started serves, from a line of either format.
async fn address(daemon: &mut Sandrunner) -> String {
    daemon.logged("is_acting").await.trim_matches(|c: char| !c.is_ascii_digit()).to_owned()
}

/// Runs a daemon until its jobs are done, and collects all that can be seen of it.
async fn seen(simulation: &Simulation, arguments: &[&str], extra: &[(&str, &str)], folder: &TempDir) -> Places {
    let limit = Duration::from_secs(90);
    let mut daemon = Sandrunner::start(arguments, &variables(simulation, extra));
    let address = address(&mut daemon).await;
    simulation.reaches(limit, |state| number(state, "jobs_in_progress") > 0).await;
    let mut places = Places::from([("sandboxes", in_sandboxes(simulation).await)]);
    simulation.reaches(limit, |state| number(state, "jobs_completed") == 3).await;
    search::deliver(&mut places, &address).await;
    search::look(&mut places, &daemon, &address).await;
    search::end(&mut places, daemon, &folder.path().join("state")).await;
    places
}

#[tokio::test]
async fn no_secret_is_anywhere_at_the_highest_log_level() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    let state = folder.path().join("state");
    let places = seen(&simulation, &["run", "--state-dir", state.to_str().unwrap()], &[], &folder).await;
    assert!(holds(&places, "metrics", "sandrunner_webhook_deliveries_total{result=\"nudged\"} 2"), "{places:#?}");
    assert!(holds(&places, "metrics", "sandrunner_webhook_deliveries_total{result=\"signature\"} 2"), "{places:#?}");
    // What is no secret stands there, from our own lines and from those of libraries.
    for control in [REPO, "TRACE", "frame=Headers", "created sandbox"] {
        assert!(holds(&places, "output", control), "without `{control}` this shows nothing");
    }
    assert_eq!(found(&places), []);
}

#[tokio::test]
async fn no_secret_of_a_github_app_is_anywhere_also_while_its_tokens_fail() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    let faults = [
        ("list_installations", "error"),
        ("installation_token", "truncated"),
        ("installation_token", "malformed"),
        ("get_repo", "malformed"),
    ];
    for (operation, mode) in faults {
        fault(&simulation, json!({ "operation": operation, "mode": mode })).await;
    }
    let state = folder.path().join("state");
    let app = [("GITHUB_APP_ID", APP_ID), ("GITHUB_APP_KEY", APP_KEY)];
    let places = seen(&simulation, &["run", "--state-dir", state.to_str().unwrap()], &app, &folder).await;
    for control in ["no token for this installation", "created sandbox", "cannot list the installations"] {
        assert!(holds(&places, "output", control), "without `{control}` this shows nothing");
    }
    assert_eq!(found(&places), []);
}

/// The address of the simulated Enterprise Server, after a look at what it gives out.
async fn enterprise_server(simulation: &Simulation) -> String {
    let server = simulation.url("/api/v3");
    let url = format!("{server}/repos/{REPO}/actions/runners/downloads");
    let request = http().get(url).header("authorization", "Bearer other").header("user-agent", "test");
    let releases: Value = request.send().await.unwrap().json().await.unwrap();
    assert!(releases[0]["temp_download_token"].as_str().unwrap().starts_with(DOWNLOAD_TOKEN), "{releases:#}");
    server
}

#[tokio::test]
async fn no_token_of_an_enterprise_server_is_anywhere_also_while_the_image_fails() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    let server = enterprise_server(&simulation).await;
    fault(&simulation, json!({ "operation": "image_build", "mode": "error" })).await;
    let state = folder.path().join("state");
    let arguments = ["run", "--state-dir", state.to_str().unwrap()];
    let places = seen(&simulation, &arguments, &[("GITHUB_API_URL", &server)], &folder).await;
    let history = simulation.history().await;
    let answered = |operation: &str, status: u16| {
        history.iter().filter(|what| what["operation"] == operation && what["status"] == status).count()
    };
    // One is for the job on a GPU.
    assert!(answered("downloads", 200) > 0 && answered("secret", 0) > 1, "no token was given on: {history:#?}");
    assert_eq!(found(&places), []);
}

#[tokio::test]
async fn no_secret_is_anywhere_while_everything_fails() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    // Answers that are refused, cut, late for their purpose or lost, at every call that carries a secret or gets one.
    let faults = [
        ("list_runs", "error"),
        ("list_runs", "truncated"),
        ("list_jobs", "truncated"),
        ("list_runners", "error"),
        ("mint", "error"),
        ("mint", "truncated"),
        ("auth_token", "error"),
        ("list_sandboxes", "unauthorized"),
        ("image", "error"),
        ("secret", "error"),
        ("create", "error"),
        ("create", "rate_limited"),
    ];
    for (operation, mode) in faults {
        fault(&simulation, json!({ "operation": operation, "mode": mode })).await;
    }
    let state = folder.path().join("state");
    let places = seen(&simulation, &["run", "--state-dir", state.to_str().unwrap()], &[LOG_JSON], &folder).await;
    let struck = simulation.history().await.iter().filter(|what| what["event"] == "fault_struck").count();
    assert_eq!(struck, faults.len());
    for control in ["GitHub answered 5", "the answer cannot be read", "\"level\":\"TRACE\""] {
        assert!(holds(&places, "output", control), "without `{control}` this shows nothing");
    }
    assert_eq!(found(&places), []);
}

#[tokio::test]
async fn a_secret_that_is_planted_is_found_in_every_place() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    let [(_, github), (_, modal_id), (_, modal_secret), (_, webhook), (_, previous)] = TOKENS;
    // As the name of a class, of a repository that is not there, and in a path.
    let class =
        |labels: &str| format!("[[runner_classes]]\nname = \"{github}{}\"\nlabels = [{labels}]\n", labels.len().min(1));
    let file = config(&folder, &format!("{}{}", class(""), class("\"gpu:t4\"")));
    let state = folder.path().join("state").join(modal_secret);
    let repos = format!("{REPO},acme/{modal_id},acme/{webhook},acme/{previous},acme/{DOWNLOAD_TOKEN}x");
    let arguments = ["run", "--config", &file, "--state-dir", state.to_str().unwrap()];
    let places = seen(&simulation, &arguments, &[LOG_JSON, ("ALLOWED_REPOS", &repos)], &folder).await;
    let found = found(&places);
    for place in ["sandboxes", "metrics", "status", "state"] {
        assert!(found.contains(&(place, "GITHUB_TOKEN")), "nothing was found in {place}: {found:?}");
    }
    for place in ["ready", "output"] {
        for secret in ["MODAL_TOKEN_ID", TOKENS[3].0, TOKENS[4].0, "download token"] {
            assert!(found.contains(&(place, secret)), "no {secret} was found in {place}: {found:?}");
        }
    }
    for place in ["arguments", "output"] {
        assert!(found.contains(&(place, "MODAL_TOKEN_SECRET")), "nothing was found in {place}: {found:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_repeated() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    simulation.revoke(TOKENS[0].1).await;
    fault(&simulation, json!({ "operation": "modal", "mode": "unauthorized", "times": 1_000 })).await;
    let mut daemon = Sandrunner::start(&["run"], &variables(&simulation, &[]));
    let address = address(&mut daemon).await;
    daemon.logged("check that the token is whole").await;
    daemon.logged("check Modal's token id and token secret").await;
    let mut places = Places::new();
    search::look(&mut places, &daemon, &address).await;
    search::end(&mut places, daemon, folder.path()).await;
    for arguments in [&["plan", "--timeout", "5s"][..], &["plan", "--timeout", "5s", "--json"]] {
        let ended = Sandrunner::start(arguments, &variables(&simulation, &[])).ended(BOUND).await;
        assert!(ended.stdout.contains("check that the token is whole"), "{ended:#?}");
        places.entry("output").or_default().extend([ended.stdout, ended.stderr]);
    }
    assert_eq!(found(&places), []);
}

#[tokio::test]
async fn an_answer_that_repeats_a_secret_is_told_without_it() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    let (url, _server) = echo::serve().await;
    let extra = [("GITHUB_API_URL", url.as_str()), ("MODAL_SERVER_URL", &url), LOG_JSON];
    let mut daemon = Sandrunner::start(&["run"], &variables(&simulation, &extra));
    daemon.logged("started").await;
    daemon.logged("GitHub answered 403").await;
    daemon.logged("permission_denied").await;
    let log = daemon.log();
    assert!(log.contains("echo of Bearer [redacted]") && log.contains("echo of [redacted]"), "{log}");
    let mut places = Places::new();
    search::end(&mut places, daemon, folder.path()).await;
    assert_eq!(found(&places), []);
}

/// A demo that logs everything while its services and its machine go wrong, and all that it leaves.
async fn demo_places(folder: &TempDir, repo: &str, arguments: &[&str]) -> Places {
    let mut scenario = serde_json::to_value(small(6)).unwrap();
    scenario["repos"] = json!([{ "name": REPO }, { "name": repo }]);
    for (index, job) in scenario["jobs"].as_array_mut().unwrap().iter_mut().enumerate() {
        (job["arrival_secs"], job["duration_secs"]) = (json!(60 * index), json!(60));
    }
    scenario["jobs"][5]["labels"] = json!(["modal", "gpu:t4"]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (scenario_file, history) = (file("scenario.json"), file("history.jsonl"));
    fs::write(&scenario_file, scenario.to_string()).unwrap();
    let given = ["demo", "--scenario", &scenario_file, "--exit", "--json", "--speed", "60", "--log", EVERYTHING];
    let all: Vec<&str> = given.into_iter().chain(["--history", &history]).chain(arguments.iter().copied()).collect();
    let ended = Sandrunner::start(&all, &[]).ended(Duration::from_secs(120)).await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stdout);
    let places = Places::from([
        ("output", vec![ended.stdout, ended.stderr]),
        ("history", vec![fs::read_to_string(history).unwrap()]),
    ]);
    for control in ["TRACE", "created sandbox", "\"jobs_completed\": 6"] {
        assert!(holds(&places, "output", control), "without `{control}` this shows nothing");
    }
    places
}

#[tokio::test]
async fn no_secret_is_in_what_a_demo_with_faults_logs() {
    let token = ["--faults", "mint_reply_lost,create_reply_lost,modal_auth_tokens_expired,controller_killed"];
    let app = ["--app", "--faults", "app_token_lost,secret_create_reply_lost,state_corrupt"];
    for arguments in [&token[..], &app] {
        let places = demo_places(&TempDir::new().unwrap(), "acme/api", arguments).await;
        for name in arguments.last().unwrap().split(',') {
            let is_strike = |line: &str| line.contains("_struck\"") && line.contains(&format!("\"{name}\""));
            assert!(places["history"][0].lines().any(is_strike), "{name} did not happen");
        }
        assert_eq!(found(&places), []);
    }
}

#[tokio::test]
async fn a_secret_that_is_planted_in_a_demo_is_found() {
    let repo = format!("acme/{}", demo::CREDENTIALS[0]);
    let places = demo_places(&TempDir::new().unwrap(), &repo, &[]).await;
    let everywhere = ["history", "output"].map(|place| (place, "credential of the demo"));
    assert_eq!(found(&places), everywhere);
}
