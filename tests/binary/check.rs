//! `sandrunner check` against the simulated services: what it prints, how it ends, and that nothing stays.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{BOUND, Ended, LOOK_EVERY, REPO, Sandrunner, Simulation, config, small};

/// A configuration of which there is nothing to warn.
fn configured(folder: &TempDir, more: &str) -> String {
    config(folder, &format!("[limits]\nspend_per_day = 50\n{more}"))
}

async fn check(simulation: &Simulation, arguments: &[&str], extra: &[(&str, &str)]) -> Ended {
    let all: Vec<&str> = ["check"].into_iter().chain(arguments.iter().copied()).collect();
    Sandrunner::start(&all, &simulation.variables(extra)).ended(BOUND).await
}

/// The JSON, and the checks of a name.
fn told(ended: &Ended, name: &str) -> (Value, Vec<Value>) {
    let document: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    let all = document["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name).cloned().collect();
    (document, all)
}

/// The names of the checks that fail, each with its fix.
fn failures(document: &Value) -> Vec<(String, String)> {
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let all = document["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "failure");
    all.map(|check| (text(check, "name"), text(check, "fix"))).collect()
}

#[tokio::test]
async fn a_setup_that_suits_is_green_and_nothing_stays() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(1), &["--profile", "calm"]).await;
    let path = configured(&folder, "");
    let ended = check(&simulation, &["--config", &path], &[]).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:#?}");
    for line in [
        "ok       config ",
        "ok       register_runners   acme/web: a runner was registered and deleted",
        "0 warn, 0 fail",
    ] {
        assert!(ended.stdout.contains(line), "`{line}` is missing in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
    let json = check(&simulation, &["--config", &path, "--json"], &[]).await;
    let (document, checks) = told(&json, "repository");
    assert_eq!((&document["result"], document["failures"].as_u64()), (&json!("ok"), Some(0)), "{document:#}");
    assert_eq!((checks.len(), &checks[0]["subject"], &checks[0]["fix"]), (1, &json!(REPO), &Value::Null));

    // Two runners came and went; nothing else was made.
    let history = simulation.history().await;
    let count = |event: &str| history.iter().filter(|what| what["event"] == event).count();
    assert_eq!((count("runner_registered"), count("runner_removed")), (2, 2), "{history:#?}");
    let made = ["image", "create", "volume", "terminate", "secret_delete"];
    let is_made = |what: &&Value| {
        let (operation, status) = (what["operation"].as_str().unwrap_or_default(), what["status"].as_u64());
        // An App that is only looked up is not found; one that is made would be.
        made.contains(&operation) || (operation == "app" && status != Some(5)) || what["event"] == "secret_changed"
    };
    assert_eq!(history.iter().filter(is_made).collect::<Vec<_>>(), [&Value::Null; 0]);
}

#[tokio::test]
async fn a_warning_ends_with_one_and_a_failure_with_two() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let path = configured(&folder, "");

    let warned = check(&simulation, &["--read-only"], &[]).await;
    assert_eq!(warned.status.code(), Some(1), "{warned:#?}");
    assert!(warned.stdout.contains("fix: set limits.spend_per_day"), "{}", warned.stdout);
    assert!(warned.stdout.contains("skipped  register_runners"), "{}", warned.stdout);

    simulation.revoke("revoked").await;
    let arguments = ["--config", &path, "--json"];
    let ended = check(&simulation, &arguments, &[("GITHUB_TOKEN", "revoked")]).await;
    let (document, _) = told(&ended, "credential");
    assert_eq!((ended.status.code(), &document["result"]), (Some(2), &json!("failure")), "{document:#}");
    let fix = "check that the token is whole, not expired and not revoked";
    assert_eq!(failures(&document), [("credential".to_owned(), fix.to_owned())]);

    let ended = check(&simulation, &arguments, &[("ALLOWED_REPOS", "acme/web,acme/none")]).await;
    let (document, repos) = told(&ended, "repository");
    assert_eq!((ended.status.code(), repos.len()), (Some(2), 2), "{document:#}");
    let failed = failures(&document);
    assert!(failed.len() == 1 && failed[0].1.contains("check its name"), "{failed:?}");

    simulation.tell("/_sim/faults", &json!({ "operation": "modal", "mode": "unauthorized" })).await;
    let ended = check(&simulation, &arguments, &[]).await;
    let (document, _) = told(&ended, "modal_token");
    assert_eq!(ended.status.code(), Some(2), "{document:#}");
    let failed = failures(&document);
    assert!(
        failed.len() == 1 && failed[0].1.contains("make a token in the settings of the Modal workspace"),
        "{failed:?}"
    );
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_a_failed_check() {
    let folder = TempDir::new().unwrap();
    let path = config(&folder, "[reconcile]\nspeed = 3\n");
    for (arguments, variables, text, fix) in [
        (vec!["--config", path.as_str()], vec![], "speed", "config.toml.example"),
        (vec!["--config", "/nowhere.toml"], vec![], "cannot read the configuration file /nowhere.toml", "--config"),
        (vec![], vec![("ALLOWED_REPOS", "acme")], "`acme`", "owner/name"),
    ] {
        let all: Vec<&str> = ["check", "--json"].into_iter().chain(arguments).collect();
        let variables: Vec<(String, String)> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let ended = Sandrunner::start(&all, &variables).ended(BOUND).await;
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        let (document, checks) = told(&ended, "config");
        assert_eq!((document["checks"].as_array().unwrap().len(), checks.len()), (1, 1), "{document:#}");
        assert!(checks[0]["text"].as_str().unwrap().contains(text), "{document:#}");
        assert!(checks[0]["fix"].as_str().unwrap().contains(fix), "{document:#}");
    }
}

#[tokio::test]
async fn an_interrupt_waits_for_the_runner_to_be_deleted() {
    let folder = TempDir::new().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    simulation.tell("/_sim/faults", &json!({ "operation": "mint", "mode": "slow", "seconds": 3 })).await;
    let path = configured(&folder, "");
    let check = Sandrunner::start(&["check", "--config", &path], &simulation.variables(&[]));
    let runners = |history: &[Value], event: &str| history.iter().filter(|what| what["event"] == event).count();
    let registered = tokio::time::timeout(BOUND, async {
        while runners(&simulation.history().await, "runner_registered") == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    registered.await.unwrap();
    let ended = check.interrupted().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{ended:#?}");
    assert!(ended.stderr.contains("interrupted"), "{ended:#?}");
    let history = simulation.history().await;
    assert_eq!((runners(&history, "runner_registered"), runners(&history, "runner_removed")), (1, 1), "{history:#?}");
}
