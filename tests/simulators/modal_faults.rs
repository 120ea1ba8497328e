//! How Modal's calls and lists go wrong.

use std::time::Duration;

use sandrunner::sim::{
    Fault, FaultMode, FaultRequest, LimitKind, Lognormal, NamedFault, Operation, Profile, What, World,
};
use serde_json::json;
use tonic::{Code, Response, Status};

use crate::github::{RUNNERS, RUNS, TOKEN, ask, config_of, get, mint};
use crate::modal::{InProcess, Modal};
use crate::{PLAIN, TERMINATED, api, jobs, start, world};

/// Sandboxes whose runners take their time.
fn slow() -> Profile {
    Profile { boot: Lognormal::constant(3_000.0), ..Profile::calm() }
}

fn put(world: &World, operation: Operation, mode: FaultMode) {
    world.add_fault(Fault::new(operation, mode)).unwrap();
}

async fn hello(modal: &mut Modal) -> Result<Response<api::ClientHelloResponse>, Status> {
    let request = modal.signed(());
    modal.client.client_hello(request).await
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_break_before_or_after_a_call_was_applied() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    put(&world, Operation::Create, FaultMode::Cut);
    let cut = modal.create("sr-main-gh-1-1", "x").await.unwrap_err();
    assert_eq!((cut.code(), modal.list(0.0).await.len()), (Code::Unknown, 0), "{cut:?}");
    put(&world, Operation::Create, FaultMode::CutAfter);
    let cut = modal.create("sr-main-gh-1-1", "x").await.unwrap_err();
    assert_eq!((cut.code(), modal.list(0.0).await.len()), (Code::Unknown, 1), "{cut:?}");
    put(&world, Operation::Hello, FaultMode::Silent);
    let silent = tokio::time::timeout(Duration::from_secs(599), hello(&mut modal)).await;
    assert!(silent.is_err(), "it was answered after all: {silent:?}");
}

#[tokio::test(start_paused = true)]
async fn half_an_answer_is_none() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    put(&world, Operation::Create, FaultMode::Truncated);
    assert_eq!(modal.create("sr-main-gh-1-1", "x").await.unwrap_err().code(), Code::Internal);
    assert_eq!(modal.list(0.0).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn warnings_stand_in_the_trailers_of_answers_and_of_refusals() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    world.add_fault(Fault { times: 2, ..Fault::new(Operation::Modal, FaultMode::Warned) }).unwrap();
    let warned = hello(&mut modal).await.unwrap();
    assert!(warned.metadata().get("x-modal-warning").unwrap().to_str().unwrap().contains("please%20upgrade"));
    let request = api::SecretDeleteRequest { secret_id: "st-unknown".to_owned() };
    let refused = modal.client.secret_delete(modal.signed(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.metadata().contains_key("x-modal-warning"));
    let plain = hello(&mut modal).await.unwrap();
    assert!(!plain.metadata().contains_key("x-modal-warning"));
}

#[tokio::test(start_paused = true)]
async fn resource_exhausted_tells_the_wait_or_does_not() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    for (name, has_detail) in [("modal_throttled_long", true), ("modal_exhausted", false)] {
        world.add_fault(FaultRequest { times: Some(1), rate: Some(1.0), ..FaultRequest::from(name) }).unwrap();
        let limited = modal.create("sr-main-gh-1-1", "x").await.unwrap_err();
        assert_eq!((limited.code(), limited.details().is_empty()), (Code::ResourceExhausted, !has_detail), "{name}");
    }
    assert!(modal.create("sr-main-gh-1-1", "x").await.is_ok());
}

/// Sandboxes as the list shows them, newest first, over all pages; at most `pages` of them.
async fn names(modal: &mut Modal, pages: usize) -> Vec<String> {
    let (mut seen, mut before) = (Vec::new(), 0.0);
    for _ in 0..pages {
        let page = modal.list(before).await;
        let Some(last) = page.last() else { break };
        before = last.created_at;
        seen.extend(page.into_iter().map(|info| info.name));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn lists_may_be_old_or_lack_an_entry() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    for name in ["a", "b", "c"] {
        modal.create(name, "x").await.unwrap();
        world.clock().sleep(Duration::from_secs(10)).await;
    }
    let stale = Fault { seconds: Some(25.0), ..Fault::new(Operation::ListSandboxes, FaultMode::Stale) };
    world.add_fault(stale).unwrap();
    assert_eq!(names(&mut modal, 1).await, ["a"]);
    put(&world, Operation::ListSandboxes, FaultMode::Flapping);
    assert_eq!(names(&mut modal, 1).await.len(), 2);
    put(&world, Operation::ListSandboxes, FaultMode::Empty);
    assert!(names(&mut modal, 1).await.is_empty());
    assert_eq!(names(&mut modal, 1).await, ["c", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn ended_sandboxes_may_still_be_listed_as_running() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let sandbox = modal.create("a", "x").await.unwrap();
    modal.terminate(&sandbox).await;
    assert_eq!(modal.wait(&sandbox, 30.0).await.0, TERMINATED);
    world.clock().sleep(Duration::from_secs(30)).await;
    assert!(names(&mut modal, 1).await.is_empty());
    put(&world, Operation::ListSandboxes, FaultMode::EndedListed);
    let listed = modal.list(0.0).await;
    assert_eq!(listed[0].task_info.as_ref().unwrap().result.as_ref().unwrap().status, 0);
    world.clock().sleep(Duration::from_secs(60)).await;
    put(&world, Operation::ListSandboxes, FaultMode::EndedListed);
    assert!(names(&mut modal, 1).await.is_empty(), "it ended long ago");
}

#[tokio::test(start_paused = true)]
async fn later_pages_go_wrong_in_their_ways() {
    let world = world(Profile { modal_list_page: 2, ..slow() }, jobs(0));
    let mut modal = Modal::connect(&world).await;
    for name in ["a", "b", "c", "d", "e"] {
        modal.create(name, "x").await.unwrap();
    }
    for (mode, seen) in [
        (FaultMode::PageMissing, ["e", "d"].as_slice()),
        (FaultMode::PageSkips, &["e", "d", "b", "a"]),
        (FaultMode::PageShowsTwice, &["e", "d", "d", "c", "b", "a"]),
        (FaultMode::PageRepeats, &["e", "d", "e", "d", "c", "b", "a"]),
    ] {
        put(&world, Operation::ListSandboxes, mode);
        assert_eq!(names(&mut modal, 9).await, seen, "{mode:?}");
    }
    put(&world, Operation::ListSandboxes, FaultMode::PageError);
    let first = modal.list(0.0).await;
    let later = api::SandboxListRequest { before_timestamp: first[1].created_at, ..Default::default() };
    assert_eq!(modal.client.sandbox_list_v2(modal.signed(later)).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn equal_times_at_the_edge_of_a_page_are_lost() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("modal_page_edge_ties").unwrap();
    for name in ["a", "b", "c"] {
        modal.create(name, "x").await.unwrap();
    }
    assert_eq!(names(&mut modal, 9).await, ["c", "b"], "all three were created in the same step");
    world.clear_faults();
    assert_eq!(names(&mut modal, 9).await, ["c", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn auth_tokens_may_expire_early_and_credentials_be_revoked() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let code = |result: Result<String, Status>| result.err().map(|status| status.code());
    put(&world, Operation::Hello, FaultMode::TokensExpired);
    assert!(hello(&mut modal).await.is_ok(), "it needs no auth token");
    assert_eq!(code(modal.create("a", "x").await), Some(Code::Unauthenticated));
    let renewed = modal.client.auth_token_get(modal.signed(api::AuthTokenGetRequest {})).await.unwrap();
    modal.auth_token = renewed.into_inner().token;
    assert_eq!(code(modal.create("a", "x").await), None);
    world.add_fault("modal_token_revoked").unwrap();
    assert_eq!(hello(&mut modal).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(code(modal.create("b", "x").await), Some(Code::Unauthenticated));
    world.clock().sleep(Duration::from_secs(900)).await;
    assert_eq!(code(modal.create("b", "x").await), None);
    world.add_fault("modal_auth_tokens_short").unwrap();
    let short = modal.client.auth_token_get(modal.signed(api::AuthTokenGetRequest {})).await.unwrap();
    modal.auth_token = short.into_inner().token;
    world.clock().sleep(Duration::from_secs(11)).await;
    assert_eq!(code(modal.create("c", "x").await), Some(Code::Unauthenticated));
}

#[tokio::test(start_paused = true)]
async fn images_and_apps_may_go_away() {
    let world = world(slow(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let sandbox = modal.create("a", "x").await.unwrap();
    put(&world, Operation::Create, FaultMode::ImagesGone);
    assert_eq!(modal.create("b", "x").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(modal.wait(&sandbox, 0.0).await, (0, 0), "what runs goes on");
    let image = modal.image_id.clone();
    modal.image_id = modal.build_image("RUN true").await.unwrap();
    assert_ne!(modal.image_id, image);
    assert!(modal.create("b", "x").await.is_ok());
    put(&world, Operation::Hello, FaultMode::AppStopped);
    hello(&mut modal).await.unwrap();
    assert_eq!(modal.wait(&sandbox, 0.0).await.0, TERMINATED);
    assert!(modal.list(0.0).await.is_empty());
    assert_eq!(modal.create("c", "x").await.unwrap_err().code(), Code::NotFound);
    let (image, auth_token) = (modal.image_id, modal.auth_token);
    let mut modal = Modal::connect(&world).await;
    (modal.image_id, modal.auth_token) = (image, auth_token);
    assert!(modal.create("c", "x").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_full_workspace_refuses_sandboxes_and_lets_those_with_a_gpu_wait() {
    let world = world(Profile { modal_max_containers: Some(1), modal_max_gpus: Some(1), ..slow() }, jobs(0));
    let mut modal = Modal::connect(&world).await;
    let gpu = |modal: &Modal, name: &str| api::SandboxCreateRequest {
        app_id: modal.app_id.clone(),
        definition: Some(api::Sandbox {
            resources: Some(api::Resources {
                gpu_config: Some(api::GpuConfig { count: 1, gpu_type: "T4".to_owned() }),
                ..api::Resources::default()
            }),
            ..modal.definition(name)
        }),
        ..api::SandboxCreateRequest::default()
    };
    let first = modal.create("a", "x").await.unwrap();
    let refused = modal.create("b", "x").await.unwrap_err();
    assert!(refused.code() == Code::ResourceExhausted && refused.details().is_empty(), "{refused:?}");
    let met =
        |event: &sandrunner::sim::Event| matches!(event.what, What::Call { limited: Some(LimitKind::Capacity), .. });
    assert!(world.history(0).iter().any(met));
    let request = gpu(&modal, "c");
    let queued = modal.client.sandbox_create(modal.signed(request)).await.unwrap().into_inner().sandbox_id;
    world.clock().sleep(Duration::from_secs(60)).await;
    let task = async |modal: &mut Modal| {
        let request = api::SandboxGetTaskIdRequest { sandbox_id: queued.clone(), ..Default::default() };
        modal.client.sandbox_get_task_id(modal.signed(request)).await.unwrap().into_inner().task_id
    };
    assert_eq!(task(&mut modal).await, None);
    modal.terminate(&first).await;
    world.clock().sleep(Duration::from_secs(5)).await;
    assert!(task(&mut modal).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_is_answered_again_where_modal_keeps_keys() {
    for keeps in [false, true] {
        let world = world(Profile { modal_keeps_idempotency_keys: keeps, ..slow() }, jobs(0));
        let mut modal = Modal::connect(&world).await;
        let mut create = async |key: &str| {
            let request = api::SecretGetOrCreateRequest { object_creation_type: 5, ..Default::default() };
            let mut request = modal.signed(request);
            request.metadata_mut().insert("x-idempotency-key", key.parse().unwrap());
            modal.client.secret_get_or_create(request).await.unwrap().into_inner().secret_id
        };
        let made = [create("k1").await, create("k1").await, create("k2").await];
        assert_eq!((made[0] == made[1], made[0] == made[2]), (keeps, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_may_concern_one_of_several_processes() {
    let world = world(slow(), jobs(1));
    let (one, other) = (world.client(1), world.client(2));
    let cut = |operation| Fault { times: Fault::UNLIMITED, client: Some(1), ..Fault::new(operation, FaultMode::Cut) };
    world.add_fault(cut(Operation::Modal)).unwrap();
    world.add_fault(cut(Operation::Github)).unwrap();
    for (client, works) in [(one, false), (other, true)] {
        let service = InProcess::new(client.modal_service());
        let mut modal = api::modal_client_client::ModalClientClient::new(service);
        let answer = modal.client_hello(crate::modal::signed((), "")).await;
        assert_eq!(answer.is_ok(), works, "{answer:?}");
        let request = http::Request::get(RUNS).header(TOKEN.0, TOKEN.1).header("user-agent", "test");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::oneshot(client.github_service(), request).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await;
        assert_eq!(body.is_ok(), works);
    }
    assert_eq!(ask(&world, "GET", RUNS, &[TOKEN], &json!(null)).await.status, 200, "nobody in particular calls");
}

#[tokio::test(start_paused = true)]
async fn every_named_fault_of_modals_calls_gives_the_same_history_twice() {
    for fault in NamedFault::all().filter(|fault| fault.operations().iter().all(|it| *it >= Operation::Modal)) {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let world = world(Profile::realistic(), jobs(3));
            let mut modal = Modal::connect(&world).await;
            world.add_fault(fault.name).unwrap();
            for attempt in 1..=3 {
                let minted = mint(&world, &format!("sr-main-gh-5000000000-{attempt}"), &PLAIN).await;
                let config = config_of(&minted);
                let create = modal.create("sr-main-gh-5000000000-1", &config);
                // Some answers never come, and some are refusals: the history tells.
                drop(tokio::time::timeout(Duration::from_secs(30), create).await);
                world.clock().sleep(Duration::from_secs(20)).await;
                get(&world, RUNNERS).await;
            }
            runs.push(world.history(0));
        }
        assert_eq!(runs[0], runs[1], "{}", fault.name);
    }
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_job_survives_what_may_be_of_modal() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("modal_warnings").unwrap();
    world.add_fault("modal_keeps_idempotency_keys").unwrap();
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    assert_eq!(modal.wait(&sandbox, 300.0).await.0, 1);
}
