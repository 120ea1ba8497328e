//! Faults: how they are put in, and what they do.

use std::time::Duration;

use sandrunner::sim::{Fault, FaultMode, Operation, Profile};
use serde_json::Value;
use tonic::Code;

use crate::github::{JOBS, RUNNERS, RUNS, config_of, get, mint};
use crate::modal::Modal;
use crate::{FAILURE, PLAIN, TERMINATED, api, jobs, start, world};

#[tokio::test(start_paused = true)]
async fn a_mint_whose_answer_is_lost_is_registered_all_the_same() {
    let world = world(Profile::calm(), jobs(0));
    world.add_fault(Fault::new(Operation::Mint, FaultMode::ReplyLost)).unwrap();
    let before = world.clock().now();
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 502);
    assert!((world.clock().now() - before).num_seconds() >= 10);
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 409);
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_applied_after_its_error() {
    let world = world(Profile::calm(), jobs(0));
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
    let world = world(Profile::calm(), jobs(1));
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
