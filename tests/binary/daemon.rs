//! What a running daemon answers, and how it starts and stops.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::process::{BOUND, REPO, Sandrunner, Simulation, config, http, number, small};

async fn daemon(simulation: &Simulation, extra: &[(&str, &str)]) -> (Sandrunner, String) {
    let mut daemon = Sandrunner::start(&["run"], &simulation.variables(extra));
    let address = daemon.logged("address=").await;
    (daemon, address)
}

async fn ask(address: &str, path: &str) -> (StatusCode, String) {
    let response = http().get(format!("http://{address}{path}")).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// The names of all metrics, as the source states them.
fn metric_names() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/metrics.rs");
    source.lines().filter_map(|line| line.strip_prefix("const ")?.split('"').nth(1)).collect()
}

/// The text of `/metrics`, once every metric has its help, its type and a value.
async fn whole_metrics(address: &str) -> String {
    let names = metric_names();
    assert!(names.len() > 20 && names.contains("sandrunner_queued_jobs"), "{names:?}");
    let mut last = (Vec::new(), String::new());
    let whole = timeout(BOUND, async {
        loop {
            let (code, text) = ask(address, "/metrics").await;
            assert_eq!(code, StatusCode::OK);
            let is_there = |name: &&str| {
                [format!("# HELP {name} "), format!("# TYPE {name} "), format!("\n{name}")]
                    .iter()
                    .all(|part| text.contains(part))
            };
            let missing: Vec<&str> = names.iter().copied().filter(|name| !is_there(name)).collect();
            if missing.is_empty() {
                return text;
            }
            last = (missing, text);
            sleep(Duration::from_millis(100)).await;
        }
    });
    let whole = whole.await;
    whole.unwrap_or_else(|_| panic!("missing {:#?} in\n{}", last.0, last.1))
}

#[tokio::test]
async fn a_running_daemon_answers_and_an_interrupt_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = small(2);
    scenario.profile.insert("personal_token_secs".to_owned(), 1_000_000.into());
    let simulation = Simulation::start(&folder, &scenario, &["--profile", "calm"]).await;
    // Without a limit there is no metric of it.
    let far = "[[runner_classes]]\nname = \"far\"\nlabels = [\"far\"]\ngpu = \"X1\"\nregions = [\"eu\"]\nspend_per_day = 1000\n";
    let path = config(&folder, far);
    let variables = simulation.variables(&[("SANDRUNNER__RECONCILE__INTERVAL", "1s")]);
    let mut daemon = Sandrunner::start(&["run", "--config", &path], &variables);
    let address = daemon.logged("address=").await;
    simulation.reaches(BOUND, |state| number(state, "jobs_completed") == 2).await;
    assert_eq!(ask(&address, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    assert_eq!(ask(&address, "/readyz").await.0, StatusCode::OK);
    assert_eq!(ask(&address, "/nothing").await.0, StatusCode::NOT_FOUND);
    let (code, text) = ask(&address, "/api/v1/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, number(&status["coverage"], "repositories_known")), (StatusCode::OK, 1));
    assert_eq!(status["groups"][0]["repo"], REPO);
    let metrics = whole_metrics(&address).await;
    for line in [
        "sandrunner_build_info{version=",
        "sandrunner_actions_total{action=\"create\",",
        "sandrunner_sandboxes{class=\"default\",state=\"claimed\"}",
        "sandrunner_spend_dollars_today{repo=\"acme/web\",class=\"default\"} 0.",
        "sandrunner_spend_limit_dollars{class=\"far\"} 1000",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let left = metrics
        .split("sandrunner_github_token_left_seconds{credential=\"gh\"} ")
        .nth(1)
        .and_then(|rest| rest.lines().next().and_then(|left| left.parse::<f64>().ok()));
    assert!(left.is_some_and(|left| (900_000.0..=1_000_001.0).contains(&left)), "{left:?} in\n{metrics}");
    let ended = daemon.interrupted().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:#?}");
    for told in ["stopping", "no price for this GPU: unless Modal tells one", "cost.region_factor is 1"] {
        assert!(ended.stderr.contains(told), "{told}: {ended:#?}");
    }
}

#[tokio::test]
async fn a_daemon_that_has_read_nothing_is_healthy_and_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let (daemon, address) = daemon(&simulation, &[("MODAL_SERVER_URL", "http://127.0.0.1:9")]).await;
    assert_eq!(ask(&address, "/healthz").await.0, StatusCode::OK);
    let (code, text) = ask(&address, "/readyz").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(serde_json::from_str::<Value>(&text).unwrap()["modal_known_at"].is_null(), "{text}");
    assert_eq!(daemon.interrupted().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_second_daemon_at_one_address_is_told_why_it_cannot_start() {
    let folder = tempfile::tempdir().unwrap();
    let simulation = Simulation::start(&folder, &small(0), &["--profile", "calm"]).await;
    let (_first, address) = daemon(&simulation, &[]).await;
    let variables = simulation.variables(&[("SANDRUNNER__HTTP__LISTEN", &address)]);
    let ended = Sandrunner::start(&["run"], &variables).ended(Duration::from_secs(10)).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    for part in [address.as_str(), "another daemon", "`http.listen`"] {
        assert!(ended.stderr.contains(part), "`{part}` is missing in: {}", ended.stderr);
    }
}
