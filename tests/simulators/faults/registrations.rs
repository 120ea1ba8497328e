//! Registrations that are not what they seem.

use sandrunner::sim::{Fault, FaultMode, FaultRequest, Operation, Profile, What};
use serde_json::{Value, json};

use super::{once, pass};
use crate::github::{JOBS, RUNNERS, TOKEN, ask, config_of, delete_runner, get, mint};
use crate::modal::Modal;
use crate::{FAILURE, PLAIN, SUCCESS, jobs, start, world};

#[tokio::test(start_paused = true)]
async fn a_working_runner_may_be_deleted_and_works_on() {
    for (name, status) in [("delete_204_while_busy", 204), ("delete_404_while_busy", 404)] {
        let world = world(Profile::calm(), jobs(1));
        let mut modal = Modal::connect(&world).await;
        world.add_fault(FaultRequest { times: Some(1), ..FaultRequest::from(name) }).unwrap();
        let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
        let idle = mint(&world, "sr-main-gh-9-1", &["other"]).await.body["runner"]["id"].clone();
        pass(&world, 10.0).await;
        assert_eq!(delete_runner(&world, &idle).await, 204, "an idle runner is deleted as always");
        assert_eq!(delete_runner(&world, &json!(1)).await, status, "{name}");
        assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
        assert_eq!(get(&world, JOBS).await.body["jobs"][0]["status"], "in_progress");
        assert_eq!(modal.wait(&sandbox, 20.0).await, (0, 0));
        assert_eq!(modal.wait(&sandbox, 300.0).await, (SUCCESS, 0));
        assert_eq!(get(&world, JOBS).await.body["jobs"][0]["conclusion"], "success");
        assert_eq!(world.report().violations, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_runner_that_works_is_still_known_to_work() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("delete_204_while_busy").unwrap();
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 10.0).await;
    assert_eq!(delete_runner(&world, &json!(1)).await, 204);
    modal.terminate(&sandbox).await;
    let asked = world.history(0).into_iter().find_map(|event| {
        let What::TerminateAsked { job, .. } = event.what else { return None };
        Some(job)
    });
    assert_eq!(asked, Some(Some(5_000_000_000)), "terminating it costs the job");
    pass(&world, 700.0).await;
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["conclusion"], "failure");
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_appear_in_lists_late() {
    let world = world(Profile::calm(), jobs(0));
    world.add_fault("runner_visible_late").unwrap();
    let runner = mint(&world, "sr-main-gh-1-1", &PLAIN).await.body["runner"]["id"].clone();
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    let by_id = ask(&world, "GET", &format!("{RUNNERS}/{runner}"), &[TOKEN], &Value::Null).await;
    assert_eq!(by_id.status, 200, "by its id it is found at once");
    pass(&world, 61.0).await;
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_config_may_be_too_old_or_none() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    once(&world, Operation::Mint, FaultMode::Expired);
    let refused = start(&world, &mut modal, 1, &PLAIN).await;
    assert_eq!(modal.wait(&refused, 60.0).await, (FAILURE, 66));
    let old = config_of(&mint(&world, "sr-main-gh-1-2", &PLAIN).await);
    pass(&world, 3_601.0).await;
    // Its own token has lasted an hour, too.
    let mut modal = Modal::connect(&world).await;
    let refused = modal.create("sr-main-gh-1-2", &old).await.unwrap();
    assert_eq!(modal.wait(&refused, 60.0).await, (FAILURE, 66), "an hour is the most");
    once(&world, Operation::Mint, FaultMode::ConfigCorrupt);
    let minted = mint(&world, "sr-main-gh-1-3", &PLAIN).await;
    assert_eq!(minted.status, 201);
    let config = minted.body["encoded_jit_config"].as_str().unwrap();
    assert!(config.contains('-'), "no base64 has a hyphen");
    let broken = modal.create("sr-main-gh-1-3", config).await.unwrap();
    assert_eq!(modal.wait(&broken, 60.0).await, (FAILURE, 66));
}

#[tokio::test(start_paused = true)]
async fn github_may_remove_an_idle_runner() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    world.add_fault(Fault { seconds: Some(150.0), ..Fault::new(Operation::Connect, FaultMode::RemovedIdle) }).unwrap();
    let removed = start(&world, &mut modal, 1, &PLAIN).await;
    let other = start(&world, &mut modal, 2, &PLAIN).await;
    assert_eq!(modal.wait(&removed, 140.0).await, (0, 0));
    assert_eq!(modal.wait(&removed, 20.0).await, (FAILURE, 64));
    assert_eq!(modal.wait(&other, 60.0).await, (0, 0));
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_be_refused_when_it_starts() {
    for (name, code) in [("runner_never_registers", 66), ("runner_version_refused", 65)] {
        let world = world(Profile::calm(), jobs(1));
        let mut modal = Modal::connect(&world).await;
        world.add_fault(name).unwrap();
        let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
        assert_eq!(modal.wait(&sandbox, 60.0).await, (FAILURE, code), "{name}");
        assert_eq!(get(&world, JOBS).await.body["jobs"][0]["status"], "queued");
        assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["status"], "offline");
    }
}
