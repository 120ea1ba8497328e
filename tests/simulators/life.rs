//! What becomes of jobs, runners and sandboxes.

use std::collections::HashMap;
use std::time::Duration;

use sandrunner::sim::{Profile, Scenario, Span, World};
use serde_json::{Value, json};
use tonic::Code;

use crate::github::{JOBS, RUNNERS, RUNS, TOKEN, ask, config_of, delete_runner, get, mint};
use crate::modal::Modal;
use crate::{FAILURE, PLAIN, SUCCESS, TERMINATED, api, clock, job, jobs, start, world};

#[tokio::test(start_paused = true)]
async fn a_job_flows_from_the_queue_through_a_sandbox_to_its_end() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    let listed = get(&world, JOBS).await.body;
    assert_eq!(listed["jobs"][0]["status"], "queued");
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["status"], "offline");
    world.clock().sleep(Duration::from_secs(6)).await;
    let listed = get(&world, JOBS).await.body;
    assert_eq!(listed["jobs"][0]["status"], "in_progress");
    assert_eq!(listed["jobs"][0]["runner_name"], "sr-main-gh-5000000000-1");
    let runner = get(&world, RUNNERS).await.body["runners"][0].clone();
    assert_eq!((&runner["status"], &runner["busy"]), (&json!("online"), &json!(true)));
    assert_eq!(delete_runner(&world, &runner["id"]).await, 422);
    assert_eq!(modal.wait(&sandbox, 0.0).await, (0, 0));
    assert_eq!(modal.wait(&sandbox, 300.0).await, (SUCCESS, 0));
    assert_eq!(get(&world, RUNS).await.body["workflow_runs"][0]["status"], "completed");
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    let report = world.report();
    assert_eq!((report.jobs_expected, report.jobs_completed, report.violations.len()), (1, 1, 0), "{report:?}");
    assert_eq!((report.sandboxes_created, report.surplus_runners), (1, 0));
    // One second passes between the runner's coming online and the assignment, the rest is the image build.
    assert!(report.pickup_with_boot_seconds.max - report.pickup_seconds.max > 2.9, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_config_works_once() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let config = config_of(&mint(&world, "sr-main-gh-1-1", &PLAIN).await);
    let first = modal.create("sr-main-gh-1-1", &config).await.unwrap();
    world.clock().sleep(Duration::from_secs(5)).await;
    let second = modal.create("sr-main-gh-1-2", &config).await.unwrap();
    assert_eq!(modal.wait(&second, 30.0).await, (FAILURE, 66));
    assert_eq!(modal.wait(&first, 0.0).await, (0, 0));
    let broken = modal.create("sr-main-gh-1-3", "bm8gY29uZmln").await.unwrap();
    assert_eq!(modal.wait(&broken, 30.0).await, (FAILURE, 66));
    let violations = world.report().violations;
    assert!(
        violations.iter().any(|text| text.contains("was used by sr-main-gh-1-1, sr-main-gh-1-2")),
        "{violations:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_runner_ends_at_its_limit_and_its_registration_stays() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    assert_eq!(modal.wait(&sandbox, 290.0).await, (0, 0));
    assert_eq!(modal.wait(&sandbox, 30.0).await, (FAILURE, 64));
    let runner = get(&world, RUNNERS).await.body["runners"][0].clone();
    assert_eq!(runner["status"], "offline");
    let report = world.report();
    assert_eq!((report.surplus_runners, report.runners_left_at_end), (1, 1));
    assert!(report.violations.iter().any(|text| text.contains("that nothing explains")), "{:?}", report.violations);
    assert_eq!(delete_runner(&world, &runner["id"]).await, 204);
    assert_eq!(delete_runner(&world, &runner["id"]).await, 404);
}

#[tokio::test(start_paused = true)]
async fn github_removes_idle_runners_where_the_profile_says_so() {
    let profile = Profile { idle_removal_secs: Some(Span::new(120.0, 120.0)), ..Profile::calm() };
    let world = world(profile, jobs(0));
    let mut modal = Modal::connect(&world).await;
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    assert_eq!(modal.wait(&sandbox, 100.0).await, (0, 0));
    assert_eq!(modal.wait(&sandbox, 60.0).await, (FAILURE, 64));
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
}

#[tokio::test(start_paused = true)]
async fn deleting_an_idle_runner_ends_its_listener_and_blocks_a_late_one() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let online = start(&world, &mut modal, 1, &PLAIN).await;
    world.clock().sleep(Duration::from_secs(5)).await;
    let late = start(&world, &mut modal, 2, &PLAIN).await;
    for id in [json!(1), json!(2)] {
        assert_eq!(delete_runner(&world, &id).await, 204);
    }
    assert_eq!(modal.wait(&online, 30.0).await, (FAILURE, 64));
    assert_eq!(modal.wait(&late, 30.0).await, (FAILURE, 66));
}

#[tokio::test(start_paused = true)]
async fn a_terminated_sandbox_loses_its_job_and_that_is_a_violation() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    world.clock().sleep(Duration::from_secs(10)).await;
    modal.terminate(&sandbox).await;
    assert_eq!(modal.wait(&sandbox, 30.0).await.0, TERMINATED);
    let listed = get(&world, JOBS).await.body;
    assert_eq!(listed["jobs"][0]["status"], "in_progress", "GitHub notices a lost runner late");
    assert_eq!(delete_runner(&world, &json!(1)).await, 422);
    world.clock().sleep(Duration::from_secs(610)).await;
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["conclusion"], "failure");
    let report = world.report();
    assert_eq!((report.claimed_sandboxes_terminated, report.jobs_completed), (1, 0));
    assert!(report.violations.iter().any(|text| text.contains("lost with its runner")), "{:?}", report.violations);
}

#[tokio::test(start_paused = true)]
async fn a_runner_with_more_labels_may_take_a_smaller_job() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    let gpu = start(&world, &mut modal, 1, &["self-hosted", "modal", "gpu:a100"]).await;
    world.clock().sleep(Duration::from_secs(2)).await;
    let plain = start(&world, &mut modal, 2, &PLAIN).await;
    let other = start(&world, &mut modal, 3, &["self-hosted", "other"]).await;
    assert_eq!(modal.wait(&gpu, 300.0).await, (SUCCESS, 0));
    assert_eq!(modal.wait(&plain, 600.0).await, (FAILURE, 64));
    assert_eq!(modal.wait(&other, 600.0).await, (FAILURE, 64));
    let report = world.report();
    assert_eq!(report.surplus_runners, 2);
    assert_eq!(report.surplus_explained.get("larger_label_set"), Some(&1), "{report:?}");
    let unexplained: Vec<_> = report.violations.iter().filter(|text| text.contains("that nothing explains")).collect();
    assert_eq!(unexplained.len(), 1, "{unexplained:?}");
    assert!(unexplained[0].contains("[other,self-hosted]"), "{unexplained:?}");
}

#[tokio::test(start_paused = true)]
async fn later_stages_cancellations_and_reruns_appear_at_their_time() {
    let job = |id: u64, more: Value| {
        let mut job = json!({ "id": id, "run": 6_000_000_000_u64, "repo": "acme/web", "labels": ["ubuntu-latest"], "duration_secs": 30 });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    };
    let world = world(
        Profile::calm(),
        json!({ "repos": [{ "name": "acme/web" }], "jobs": [
            job(5_000_000_001, json!({})),
            job(5_000_000_002, json!({ "stage": 1 })),
            job(5_000_000_003, json!({ "stage": 1, "cancel_secs": 1 })),
            job(5_000_000_004, json!({ "attempt": 2, "arrival_secs": 3_600 })),
        ]}),
    );
    assert_eq!(get(&world, JOBS).await.body["total_count"], 1);
    world.clock().sleep(Duration::from_secs(36)).await;
    let listed = get(&world, JOBS).await.body;
    let seen: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(|job| job["conclusion"].as_str()).collect();
    assert_eq!(seen, [Some("success"), None, Some("cancelled")]);
    world.clock().sleep(Duration::from_secs(600)).await;
    let before = get(&world, RUNS).await.body["workflow_runs"][0].clone();
    assert_eq!((&before["status"], &before["run_attempt"]), (&json!("completed"), &json!(1)));
    world.clock().sleep(Duration::from_secs(3_000)).await;
    let after = get(&world, RUNS).await.body["workflow_runs"][0].clone();
    assert_eq!((&after["run_attempt"], &after["created_at"]), (&json!(2), &before["created_at"]));
    assert_ne!(after["updated_at"], before["updated_at"]);
    assert_eq!(get(&world, JOBS).await.body["total_count"], 1, "only the newest attempt by default");
    assert_eq!(get(&world, &format!("{JOBS}&filter=all")).await.body["total_count"], 4);
}

#[tokio::test(start_paused = true)]
async fn a_gpu_sandbox_waits_for_a_machine_and_reads_its_config_from_a_secret() {
    let world = world(
        Profile::calm(),
        json!({ "repos": [{ "name": "acme/web" }], "jobs": [job(5_000_000_000, &["modal", "gpu:a100"])] }),
    );
    let mut modal = Modal::connect(&world).await;
    let config = config_of(&mint(&world, "sr-main-gh-5000000000-1", &["modal", "gpu:a100"]).await);
    let secret = api::SecretGetOrCreateRequest {
        object_creation_type: 5,
        env_dict: HashMap::from([
            ("SANDRUNNER_JITCONFIG".to_owned(), config),
            ("SANDRUNNER_REPOSITORIES".to_owned(), "acme/web".to_owned()),
        ]),
        ..api::SecretGetOrCreateRequest::default()
    };
    let secret_id = modal.client.secret_get_or_create(modal.signed(secret)).await.unwrap().into_inner().secret_id;
    let mut definition = modal.definition("sr-main-gh-5000000000-1");
    definition.secret_ids = vec![secret_id.clone()];
    definition.resources = Some(api::Resources {
        gpu_config: Some(api::GpuConfig { count: 1, gpu_type: "A100".to_owned() }),
        ..api::Resources::default()
    });
    let request = api::SandboxCreateV2Request {
        app_id: modal.app_id.clone(),
        definition: Some(definition.clone()),
        ..api::SandboxCreateV2Request::default()
    };
    let refused = modal.client.sandbox_create_v2(modal.signed(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let request =
        api::SandboxCreateRequest { app_id: modal.app_id.clone(), definition: Some(definition), tags: Vec::new() };
    let id = modal.client.sandbox_create(modal.signed(request)).await.unwrap().into_inner().sandbox_id;
    assert!(sandrunner::ids::SandboxId::new(id.as_str()).is_v1());
    let task = |id: &str| api::SandboxGetTaskIdRequest { sandbox_id: id.to_owned(), timeout: None };
    assert_eq!(modal.client.sandbox_get_task_id(modal.signed(task(&id))).await.unwrap().into_inner().task_id, None);
    world.clock().sleep(Duration::from_secs(6)).await;
    assert!(modal.client.sandbox_get_task_id(modal.signed(task(&id))).await.unwrap().into_inner().task_id.is_some());
    let delete = api::SecretDeleteRequest { secret_id };
    modal.client.secret_delete(modal.signed(delete.clone())).await.unwrap();
    assert_eq!(modal.client.secret_delete(modal.signed(delete)).await.unwrap_err().code(), Code::NotFound);
    let wait = api::SandboxWaitRequest { sandbox_id: id.clone(), timeout: 300.0 };
    let waited = modal.client.sandbox_wait(modal.signed(wait.clone())).await.unwrap().into_inner();
    assert_eq!(waited.result.unwrap().status, SUCCESS);
    let wrong_form = modal.client.sandbox_wait_v2(modal.signed(wait)).await.unwrap_err();
    assert_eq!(wrong_form.code(), Code::NotFound);
    assert_eq!(world.summary().secrets, 0);
    assert_eq!(world.report().violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_create_lists_the_secrets_of_its_sources_or_none() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let mut secrets = Vec::new();
    for name in ["one", "two"] {
        let secret = api::SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            object_creation_type: 1,
            ..api::SecretGetOrCreateRequest::default()
        };
        secrets.push(modal.client.secret_get_or_create(modal.signed(secret)).await.unwrap().into_inner().secret_id);
    }
    let request = |modal: &Modal, name: &str, listed: &[&String]| api::SandboxCreateV2Request {
        app_id: modal.app_id.clone(),
        definition: Some(api::Sandbox {
            secret_ids: listed.iter().map(|id| (*id).clone()).collect(),
            ..modal.definition(name)
        }),
        secret_sources: secrets
            .iter()
            .map(|id| api::SecretSource { source: Some(api::secret_source::Source::SecretId(id.clone())) })
            .collect(),
        ..api::SandboxCreateV2Request::default()
    };
    for (name, listed) in [("all", &[&secrets[0], &secrets[1]][..]), ("none", &[])] {
        let request = request(&modal, name, listed);
        modal.client.sandbox_create_v2(modal.signed(request)).await.unwrap();
    }
    for listed in [&[&secrets[0]][..], &[&secrets[1], &secrets[0]], &[&secrets[0], &secrets[1], &secrets[1]]] {
        let request = request(&modal, "other", listed);
        let refused = modal.client.sandbox_create_v2(modal.signed(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_without_network_never_registers() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let config = config_of(&mint(&world, "sr-main-gh-1-1", &PLAIN).await);
    let environment = HashMap::from([
        ("SANDRUNNER_JITCONFIG".to_owned(), config),
        ("SANDRUNNER_REPOSITORIES".to_owned(), "acme/web".to_owned()),
    ]);
    let mut definition = modal.definition("sr-main-gh-1-1");
    definition.network_access = Some(api::NetworkAccess { network_access_type: 2, ..api::NetworkAccess::default() });
    let request = api::SandboxCreateV2Request {
        app_id: modal.app_id.clone(),
        definition: Some(definition),
        secret_sources: vec![api::SecretSource {
            source: Some(api::secret_source::Source::Env(api::StringMap { contents: environment })),
        }],
        ..api::SandboxCreateV2Request::default()
    };
    let id = modal.client.sandbox_create_v2(modal.signed(request)).await.unwrap().into_inner().sandbox_id;
    assert_eq!(modal.wait(&id, 60.0).await, (FAILURE, 66));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_and_the_same_calls_give_the_same_history() {
    async fn play(seed: u64) -> Vec<String> {
        let world = World::new(Profile::realistic(), Scenario::generate(30, 3, 5), seed, clock());
        let mut modal = Modal::connect(&world).await;
        for index in 1..=5 {
            let path = "/repos/acme/service-01/actions/runners/generate-jitconfig";
            let name = format!("sr-main-gh-{index}-1");
            let body = json!({ "name": name, "runner_group_id": 1, "labels": PLAIN });
            let minted = ask(&world, "POST", path, &[TOKEN], &body).await;
            modal.create(&name, &config_of(&minted)).await.unwrap();
            modal.list(0.0).await;
        }
        world.clock().sleep(Duration::from_secs(900)).await;
        get(&world, "/repos/acme/service-01/actions/runs").await;
        world.history(0).iter().map(|event| serde_json::to_string(event).unwrap()).collect()
    }
    let first = play(1).await;
    assert!(first.iter().any(|line| line.contains("job_assigned") && line.contains("sr-main-gh-")));
    assert_eq!(first, play(1).await);
    assert_ne!(first, play(2).await);
}
