//! Where nothing happens, nothing is charged.

use std::time::Duration;

use sandrunner::sim::{Operation, Profile, Scenario, Service, What};
use serde_json::{Value, json};

use crate::lab::{Lab, Outcome};

const REPOS: u64 = 500;

/// Repositories in which nobody asks for us; every second one has a run of the past.
fn idle() -> Scenario {
    let name = |index: u64| format!("acme/repo-{index:03}");
    let repos: Vec<Value> = (0..REPOS).map(|index| json!({ "name": name(index) })).collect();
    let job = |index: u64| {
        json!({ "id": 5_000_000_000 + index, "run": 6_000_000_000 + index, "repo": name(index),
            "labels": ["ubuntu-latest"], "duration_secs": 1 })
    };
    let jobs: Vec<Value> = (0..REPOS).step_by(2).map(job).collect();
    serde_json::from_value(json!({ "repos": repos, "jobs": jobs })).expect("a scenario")
}

/// Calls of GitHub in the virtual hour number `hour`: their number, and those that cost a primary request.
fn hour(outcome: &Outcome, hour: u32) -> (usize, Vec<(Operation, u16)>) {
    let span = f64::from(hour) * 3600.0..f64::from(hour + 1) * 3600.0;
    let events =
        outcome.history.iter().filter(|event| span.contains(&(event.at - crate::lab::epoch()).as_seconds_f64()));
    let calls: Vec<(Operation, u16)> = events
        .filter_map(|event| {
            let What::Call { service: Service::Github, operation, status, .. } = &event.what else { return None };
            Some((*operation, *status))
        })
        .collect();
    (calls.len(), calls.into_iter().filter(|(_, status)| *status != 304).collect())
}

/// The first hour reads everything once; runners are read once an hour, spread over it.
async fn check(interval: Duration, least_calls: usize) {
    let lab = Lab::new(Profile::calm(), idle(), 1).configure(|config| config.reconcile.interval = interval);
    let outcome = lab.run(Duration::from_secs(2 * 3600), |_| false).await;
    let (_, first) = hour(&outcome, 0);
    for operation in [Operation::ListRuns, Operation::ListRunners] {
        let read = first.iter().filter(|call| **call == (operation, 200)).count();
        assert!(read >= 500, "only {read} first readings of {operation:?}");
    }
    let (calls, charged) = hour(&outcome, 1);
    assert!(calls >= least_calls, "only {calls} calls in an hour");
    assert_eq!(charged, [], "of {calls} calls");
    assert_eq!(outcome.report.github_rate_limited, 0, "{}", outcome.summary());
    assert_eq!((outcome.report.sandboxes_created, outcome.report.runners_left_at_end), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn five_hundred_idle_repositories_cost_no_primary_request() {
    check(Duration::from_secs(300), 12 * 500).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "the same at the default interval: cargo test --release --test simulation -- --ignored idle"]
async fn five_hundred_idle_repositories_cost_no_primary_request_at_the_default_interval() {
    // Reading is planned with half of the 900 points a minute.
    check(Duration::from_secs(10), 25_000).await;
}
