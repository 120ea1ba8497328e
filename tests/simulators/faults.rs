//! Faults: how they are put in and taken out, and that each takes effect.

mod calls;
mod jobs;
mod lists;
mod registrations;

use std::time::Duration;

use sandrunner::sim::{Fault, FaultMode, FaultRequest, Mishap, NamedFault, Operation, Profile, What, World};
use serde_json::{Value, json};
use tonic::Code;

use crate::github::{JOBS, RUNNERS, RUNS, ask, config_of, get, mint};
use crate::modal::Modal;
use crate::{FAILURE, PLAIN, TERMINATED, api, jobs as plain_jobs, start, world};

/// What has struck, in order.
fn strikes(world: &World) -> Vec<(Operation, FaultMode)> {
    let events = world.history(0).into_iter();
    events
        .filter_map(|event| {
            let What::FaultStruck { operation, mode, .. } = event.what else { return None };
            Some((operation, mode))
        })
        .collect()
}

/// Puts a fault in that strikes once.
fn once(world: &World, operation: Operation, mode: FaultMode) {
    world.add_fault(Fault::new(operation, mode)).unwrap();
}

/// Lets time pass.
async fn pass(world: &World, secs: f64) {
    world.clock().sleep(Duration::from_secs_f64(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn a_mint_whose_answer_is_lost_is_registered_all_the_same() {
    let world = world(Profile::calm(), plain_jobs(0));
    world.add_fault(Fault::new(Operation::Mint, FaultMode::ReplyLost)).unwrap();
    let before = world.clock().now();
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 502);
    assert!((world.clock().now() - before).num_seconds() >= 10);
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 409);
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_applied_after_its_error() {
    let world = world(Profile::calm(), plain_jobs(0));
    let mut modal = Modal::connect(&world).await;
    let config = config_of(&mint(&world, "sr-main-gh-1-1", &PLAIN).await);
    for operation in [Operation::Mint, Operation::Create] {
        world.add_fault(Fault { seconds: Some(5.0), ..Fault::new(operation, FaultMode::AppliedLate) }).unwrap();
    }
    assert_eq!(mint(&world, "sr-main-gh-1-2", &PLAIN).await.status, 502);
    assert_eq!(modal.create("sr-main-gh-1-1", &config).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
    assert!(modal.list(0.0).await.is_empty());
    world.clock().sleep(Duration::from_secs(6)).await;
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 2);
    assert_eq!(modal.list(0.0).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn faults_strike_where_they_are_put() {
    let world = world(Profile::calm(), plain_jobs(1));
    let mut modal = Modal::connect(&world).await;
    let put = |operation, mode| world.add_fault(Fault::new(operation, mode)).unwrap();
    put(Operation::ListRuns, FaultMode::Empty);
    assert_eq!(get(&world, RUNS).await.body["total_count"], 0);
    assert_eq!(get(&world, RUNS).await.body["total_count"], 1);
    put(Operation::ListJobs, FaultMode::Truncated);
    assert_eq!(get(&world, JOBS).await.body, Value::Null, "half of a body is no JSON");
    put(Operation::Create, FaultMode::ReplyLost);
    let config = config_of(&mint(&world, "sr-main-gh-1-1", &PLAIN).await);
    assert_eq!(modal.create("sr-main-gh-1-1", &config).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(modal.create("sr-main-gh-1-1", &config).await.unwrap_err().code(), Code::AlreadyExists);
    for (mode, code) in [(FaultMode::VersionRefused, 65), (FaultMode::RegistrationFailed, 66), (FaultMode::Crash, 68)] {
        put(Operation::Boot, mode);
        let sandbox = start(&world, &mut modal, u32::try_from(code).unwrap(), &["other"]).await;
        assert_eq!(modal.wait(&sandbox, 60.0).await, (FAILURE, code));
    }
    put(Operation::Boot, FaultMode::Preempted);
    let sandbox = start(&world, &mut modal, 9, &["other"]).await;
    assert_eq!(modal.wait(&sandbox, 60.0).await.0, TERMINATED);
    put(Operation::ImageBuild, FaultMode::Error);
    assert!(modal.build_image("RUN false").await.unwrap_err().contains("the build failed"));
    assert!(modal.build_image("RUN true").await.is_ok(), "an image that is built stays built");
    put(Operation::ListSandboxes, FaultMode::RateLimited);
    let request = api::SandboxListRequest::default();
    let limited = modal.client.sandbox_list_v2(modal.signed(request)).await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted);
}

#[tokio::test(start_paused = true)]
async fn a_named_fault_of_a_scenario_strikes_and_the_history_tells_its_name() {
    let mut scenario = plain_jobs(1);
    scenario["faults"] = json!(["mint_409", { "name": "mint_reply_cut", "times": 1, "repo": "acme/api" }]);
    let world = world(Profile::calm(), scenario);
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 409);
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    let struck = world.history(0).into_iter().find_map(|event| {
        let What::FaultStruck { fault, subject, .. } = event.what else { return None };
        Some((fault, subject))
    });
    assert_eq!(struck, Some(("mint_409".into(), "acme/web".into())));
}

#[tokio::test(start_paused = true)]
async fn faults_last_for_their_span_and_end_when_they_are_taken_out() {
    let world = world(Profile::calm(), plain_jobs(0));
    let outage = FaultRequest { from_secs: Some(60.0), until_secs: Some(120.0), ..FaultRequest::from("github_outage") };
    world.add_fault(outage).unwrap();
    world.add_fault(FaultRequest { until_secs: Some(300.0), ..FaultRequest::from("token_revoked") }).unwrap();
    world.clear_faults();
    assert_eq!(get(&world, RUNS).await.status, 200);
    world.add_fault(FaultRequest { from_secs: Some(60.0), ..FaultRequest::from("github_outage") }).unwrap();
    assert_eq!(get(&world, RUNS).await.status, 200);
    pass(&world, 61.0).await;
    assert_eq!(get(&world, RUNS).await.status, 503);
    pass(&world, 1_800.0).await;
    assert_eq!(get(&world, RUNS).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_fault_has_put_off_happens_although_faults_have_ended() {
    let world = world(Profile::calm(), plain_jobs(0));
    once(&world, Operation::Mint, FaultMode::AppliedLate);
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 502);
    world.clear_faults();
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    pass(&world, 21.0).await;
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
}

#[tokio::test(start_paused = true)]
async fn knobs_differ_for_their_span() {
    let world = world(Profile::calm(), plain_jobs(0));
    let knobs = json!({ "knobs": { "read_latency_secs": 5 }, "from_secs": 10, "until_secs": 60 });
    world.add_fault(serde_json::from_value::<FaultRequest>(knobs).unwrap()).unwrap();
    let latency = async |world: &World| {
        let before = world.clock().now();
        get(world, RUNS).await;
        (world.clock().now() - before).num_seconds()
    };
    assert_eq!(latency(&world).await, 0);
    pass(&world, 10.0).await;
    assert_eq!(latency(&world).await, 5);
    pass(&world, 50.0).await;
    assert_eq!(latency(&world).await, 0);
    let knobs = json!({ "knobs": { "read_latency_secs": 7 } });
    world.add_fault(serde_json::from_value::<FaultRequest>(knobs).unwrap()).unwrap();
    assert_eq!(latency(&world).await, 7);
    world.clear_faults();
    assert_eq!(latency(&world).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_control_interface_lists_puts_in_and_takes_out_faults() {
    let world = world(Profile::calm(), plain_jobs(0));
    let control = async |method: &str, body: Value| ask(&world, method, "/_sim/faults", &[], &body).await;
    let listed = control("GET", Value::Null).await.body;
    assert_eq!(listed["faults"].as_array().unwrap().len(), NamedFault::all().count() + Mishap::ALL.len());
    assert_eq!(listed["faults"][0]["operations"], json!(["mint"]));
    assert_eq!(control("POST", json!("github_outage")).await.status, 204);
    assert_eq!(get(&world, RUNS).await.status, 503);
    assert_eq!(control("DELETE", Value::Null).await.status, 204);
    assert_eq!(get(&world, RUNS).await.status, 200);
    assert_eq!(control("POST", json!({ "name": "mint_403", "times": 2 })).await.status, 204);
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 403);
    let refused = control("POST", json!("github_outrage")).await;
    let message = refused.body["message"].as_str().unwrap().to_owned();
    assert_eq!(refused.status, 422);
    assert!(message.contains("`github_outrage` is no fault, but there is `github_outage`"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults() {
    async fn play(seed: u64) -> Vec<String> {
        let scenario = serde_json::from_value(plain_jobs(4)).unwrap();
        let world = World::new(Profile::realistic(), scenario, seed, crate::clock());
        let mut modal = Modal::connect(&world).await;
        // What lets nothing through would leave nothing to compare.
        let is_total =
            |name: &str| ["github_", "limit", "repo_", "token_", "actions_"].iter().any(|part| name.contains(part));
        for fault in NamedFault::all().filter(|fault| !is_total(fault.name)) {
            world.add_fault(FaultRequest { rate: Some(0.3), ..FaultRequest::from(fault.name) }).unwrap();
        }
        for attempt in 1..=20 {
            let name = format!("sr-main-gh-1-{attempt}");
            let body = json!({ "name": name, "runner_group_id": 1, "labels": PLAIN });
            let path = format!("{RUNNERS}/generate-jitconfig");
            let minted = crate::github::try_ask(&world, "POST", &path, &[crate::github::TOKEN], &body).await;
            let config = minted.ok().and_then(|reply| Some(reply.body["encoded_jit_config"].as_str()?.to_owned()));
            if let Some(config) = config {
                let _lost = modal.create(&name, &config).await;
            }
            for path in [RUNS, JOBS, RUNNERS] {
                let _cut = crate::github::try_ask(&world, "GET", path, &[crate::github::TOKEN], &Value::Null).await;
            }
            pass(&world, 60.0).await;
        }
        world.history(0).iter().map(|event| serde_json::to_string(event).unwrap()).collect()
    }
    let first = play(1).await;
    let struck = first.iter().filter(|line| line.contains("fault_struck")).count();
    assert!(struck > 20, "{struck}");
    assert_eq!(first, play(1).await);
    assert_ne!(first, play(2).await);
}
