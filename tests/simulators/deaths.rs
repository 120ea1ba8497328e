//! Sandboxes that are kept from starting, or die in some part of their lives.

use std::time::Duration;

use sandrunner::sim::{Cause, Fault, FaultMode, Operation, Profile, What, World};
use serde_json::json;

use crate::github::{JOBS, config_of, get, mint};
use crate::modal::Modal;
use crate::{PLAIN, TERMINATED, api, jobs, start, world};

const TIMEOUT: i32 = 4;
const INIT_FAILURE: i32 = 5;
const INTERNAL_FAILURE: i32 = 6;
const KERNEL_OOM_KILL: i32 = 10;

/// Whether a runner ever came online, and a job was ever given to it.
fn was_online_and_given(world: &World) -> (bool, bool) {
    let history = world.history(0);
    let has = |is: fn(&What) -> bool| history.iter().any(|event| is(&event.what));
    (has(|what| matches!(what, What::RunnerOnline { .. })), has(|what| matches!(what, What::JobAssigned { .. })))
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_dies_in_each_part_of_its_life() {
    for (mode, end, was) in [
        (FaultMode::InitFailed, (INIT_FAILURE, 0), (false, false)),
        (FaultMode::DiesBooting, (INTERNAL_FAILURE, 0), (false, false)),
        (FaultMode::DiesIdle, (INTERNAL_FAILURE, 0), (true, false)),
        (FaultMode::DiesWorking, (INTERNAL_FAILURE, 0), (true, true)),
        (FaultMode::OutOfMemory, (KERNEL_OOM_KILL, 137), (true, true)),
        (FaultMode::Preempted, (TERMINATED, 0), (true, true)),
        (FaultMode::TimesOut, (TIMEOUT, 0), (true, true)),
    ] {
        let world = world(Profile::calm(), jobs(1));
        let mut modal = Modal::connect(&world).await;
        world.add_fault(Fault { seconds: None, ..Fault::new(Operation::Boot, mode) }).unwrap();
        let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
        assert_eq!(modal.wait(&sandbox, 120.0).await, end, "{mode:?}");
        assert_eq!(was_online_and_given(&world), was, "{mode:?}");
        world.clock().sleep(Duration::from_secs(700)).await;
        let lost =
            |event: &sandrunner::sim::Event| matches!(event.what, What::JobCompleted { cause: Cause::RunnerLost, .. });
        assert_eq!(world.history(0).iter().any(lost), was.1, "{mode:?}: a job that ran fails, one that did not waits");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_is_never_started_stays_so_in_both_generations() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault(Fault { times: 2, ..Fault::new(Operation::Boot, FaultMode::NeverStarted) }).unwrap();
    let plain = start(&world, &mut modal, 1, &PLAIN).await;
    let config = config_of(&mint(&world, "sr-main-gh-5000000000-2", &PLAIN).await);
    let secret = api::SecretGetOrCreateRequest {
        object_creation_type: 5,
        env_dict: std::collections::HashMap::from([
            ("SANDRUNNER_JITCONFIG".to_owned(), config),
            ("SANDRUNNER_REPOSITORIES".to_owned(), "acme/web".to_owned()),
        ]),
        ..Default::default()
    };
    let secret = modal.client.secret_get_or_create(modal.signed(secret)).await.unwrap().into_inner().secret_id;
    let gpu = api::GpuConfig { count: 1, gpu_type: "T4".to_owned() };
    let request = api::SandboxCreateRequest {
        app_id: modal.app_id.clone(),
        definition: Some(api::Sandbox {
            resources: Some(api::Resources { gpu_config: Some(gpu), ..Default::default() }),
            secret_ids: vec![secret],
            ..modal.definition("sr-main-gh-5000000000-2")
        }),
        ..Default::default()
    };
    let queued = modal.client.sandbox_create(modal.signed(request)).await.unwrap().into_inner().sandbox_id;
    world.clock().sleep(Duration::from_secs(1_000)).await;
    let listed = modal.list(0.0).await;
    let task = |id: &str| listed.iter().find(|info| info.id == id).unwrap().task_info.clone().unwrap();
    assert!(task(&plain).id.ends_with('V') && task(&plain).started_at == 0.0);
    assert!(task(&queued).id.is_empty() && task(&queued).started_at == 0.0);
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["status"], json!("queued"));
    modal.terminate(&plain).await;
    assert_eq!(modal.wait(&plain, 30.0).await.0, TERMINATED);
}
