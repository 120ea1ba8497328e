//! The control interface, and both services over TCP.

mod github;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use sandrunner::clock::Clock;
use sandrunner::sim::{Profile, Service, What, World, serve};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::api::modal_client_client::ModalClientClient;
use crate::github::{RUNS, ask, get, mint};
use crate::modal::signed;
use crate::{PLAIN, clock, job, jobs, world};

#[tokio::test(start_paused = true)]
async fn the_control_interface_adds_jobs_moves_the_clock_and_shows_the_truth() {
    let world = world(Profile::calm(), json!({ "repos": [{ "name": "acme/web" }] }));
    let post = |path: &'static str, body: Value| {
        let world = world.clone();
        async move { ask(&world, "POST", path, &[], &body).await }
    };
    let added = post("/_sim/jobs", json!({ "jobs": [job(5_000_000_000, &["ubuntu-latest"])] })).await;
    assert_eq!(added.status, 204);
    let twice = post("/_sim/jobs", json!({ "jobs": [job(5_000_000_000, &["ubuntu-latest"])] })).await;
    assert_eq!(
        (twice.status, twice.body["message"].as_str()),
        (422, Some("job 5000000000 of the scenario: its id is taken"))
    );
    assert_eq!(post("/_sim/clock", json!({ "advance_seconds": 120 })).await.status, 200);
    assert_eq!(post("/_sim/clock", json!({ "advance_seconds": -1 })).await.status, 422);
    assert_eq!(post("/_sim/faults", json!({ "operation": "mint", "mode": "reply_lost" })).await.status, 204);
    assert_eq!(post("/_sim/faults", json!({ "operation": "mint", "mode": "crash" })).await.status, 422);
    let state = ask(&world, "GET", "/_sim/state", &[], &Value::Null).await.body;
    assert_eq!((&state["jobs_completed"], &state["jobs_queued"]), (&json!(1), &json!(0)));
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 502);
    assert_eq!(post("/_sim/revoke", json!({ "token": "ghp_test" })).await.status, 204);
    assert_eq!(get(&world, RUNS).await.status, 401);
    let since = world.history(0).len() - 1;
    let request = Request::get(format!("/_sim/history?since={since}")).body(Body::empty()).unwrap();
    let response = world.github_service().oneshot(request).await.unwrap();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let lines: Vec<Value> = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["what"]["operation"], &lines[0]["what"]["status"]), (&json!("list_runs"), &json!(401)));
    assert_eq!(post("/_sim/clock", json!({ "advance": 1 })).await.status, 422);
}

#[tokio::test]
async fn both_are_served_over_tcp_and_stop_when_told() {
    let world =
        World::new(Profile::calm(), serde_json::from_value(jobs(1)).unwrap(), 1, Clock::scaled(clock().now(), 50.0));
    let free = "127.0.0.1:0".parse().unwrap();
    let servers = serve(world.clone(), free, free).await.unwrap();
    let client = reqwest::Client::builder().user_agent("test").no_proxy().build().unwrap();
    let base = format!("http://{}", servers.github());
    let runs: Value = serde_json::from_str(
        &client.get(format!("{base}{RUNS}")).bearer_auth("ghp_test").send().await.unwrap().text().await.unwrap(),
    )
    .unwrap();
    assert_eq!(runs["total_count"], 1);
    let channel =
        tonic::transport::Endpoint::new(format!("http://{}", servers.modal())).unwrap().connect().await.unwrap();
    let mut modal = ModalClientClient::new(channel);
    let hello = modal.client_hello(signed((), "")).await.unwrap().into_inner();
    assert_eq!(hello.image_builder_version, "2025.06");
    let calls = world.history(0);
    let services: Vec<_> = calls
        .iter()
        .filter_map(|event| if let What::Call { service, .. } = &event.what { Some(*service) } else { None })
        .collect();
    assert_eq!(services, [Service::Github, Service::Modal]);
    servers.shutdown().await.unwrap();
    assert!(client.get(format!("{base}{RUNS}")).send().await.is_err());
}
