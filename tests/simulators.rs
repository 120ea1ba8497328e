//! Both simulators driven as a client would: in process under a paused clock, and once over TCP.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use chrono::DateTime;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use sandrunner::clock::Clock;
use sandrunner::sim::{
    Fault, FaultMode, LimitKind, Operation, Profile, Scenario, ScenarioJob, Service, Span, What, World, serve,
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tower::ServiceExt;
use tower::util::BoxCloneService;

use api::modal_client_client::ModalClientClient;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated from api.proto"
)]
mod api {
    tonic::include_proto!("modal.client");
}

fn clock() -> Clock {
    Clock::scaled(DateTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000), 1.0)
}

fn world(profile: Profile, scenario: Value) -> World {
    let scenario: Scenario = serde_json::from_value(scenario).unwrap();
    World::try_new(profile, scenario, 1, clock()).unwrap()
}

/// One run of plain jobs in `acme/web`, all at once.
fn jobs(count: u64) -> Value {
    let jobs: Vec<Value> = (0..count).map(|index| job(5_000_000_000 + index, &["self-hosted", "modal"])).collect();
    json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })
}

fn job(id: u64, labels: &[&str]) -> Value {
    json!({ "id": id, "run": 6_000_000_000_u64, "repo": "acme/web", "labels": labels, "duration_secs": 60 })
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("user-agent", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = world.github_service().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Reply { status: parts.status.as_u16(), headers: parts.headers, body }
}

const TOKEN: (&str, &str) = ("authorization", "Bearer ghp_test");
const RUNS: &str = "/repos/acme/web/actions/runs";
const JOBS: &str = "/repos/acme/web/actions/runs/6000000000/jobs?per_page=100";
const RUNNERS: &str = "/repos/acme/web/actions/runners";

async fn get(world: &World, path: &str) -> Reply {
    ask(world, "GET", path, &[TOKEN], &Value::Null).await
}

async fn mint(world: &World, name: &str, labels: &[&str]) -> Reply {
    let body = json!({ "name": name, "runner_group_id": 1, "labels": labels });
    ask(world, "POST", &format!("{RUNNERS}/generate-jitconfig"), &[TOKEN], &body).await
}

async fn delete_runner(world: &World, id: &Value) -> u16 {
    ask(world, "DELETE", &format!("{RUNNERS}/{id}"), &[TOKEN], &Value::Null).await.status
}

fn config_of(minted: &Reply) -> String {
    assert_eq!(minted.status, 201, "{}", minted.body);
    minted.body["encoded_jit_config"].as_str().unwrap().to_owned()
}

type InProcess = BoxCloneService<Request<tonic::body::Body>, http::Response<tonic::body::Body>, Infallible>;

/// Modal's side as a client without a socket, with what it has looked up.
struct Modal {
    client: ModalClientClient<InProcess>,
    auth_token: String,
    app_id: String,
    image_id: String,
}

fn signed<T>(message: T, auth_token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let headers = [
        ("x-modal-token-id", "ak-test"),
        ("x-modal-token-secret", "as-test"),
        ("x-modal-client-type", "9"),
        ("x-modal-client-version", "1.0.0"),
        ("x-modal-auth-token", auth_token),
    ];
    for (name, value) in headers {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

impl Modal {
    /// Looks up the App and builds the image, as a controller does at its start.
    async fn connect(world: &World) -> Self {
        let mut client = ModalClientClient::new(BoxCloneService::new(world.modal_service()));
        let token = client.auth_token_get(signed(api::AuthTokenGetRequest {}, "")).await.unwrap().into_inner().token;
        let app = api::AppGetOrCreateRequest {
            app_name: "sandrunner".to_owned(),
            object_creation_type: 1,
            ..api::AppGetOrCreateRequest::default()
        };
        let app_id = client.app_get_or_create(signed(app, &token)).await.unwrap().into_inner().app_id;
        let mut modal = Self { client, auth_token: token, app_id, image_id: String::new() };
        modal.image_id = modal.build_image("RUN true").await.unwrap();
        modal
    }

    async fn build_image(&mut self, command: &str) -> Result<String, String> {
        let request = api::ImageGetOrCreateRequest {
            image: Some(api::Image {
                dockerfile_commands: vec!["FROM ubuntu:24.04".to_owned(), command.to_owned()],
                ..api::Image::default()
            }),
            app_id: self.app_id.clone(),
            builder_version: "2025.06".to_owned(),
            ..api::ImageGetOrCreateRequest::default()
        };
        let created = self.client.image_get_or_create(self.signed(request)).await.unwrap().into_inner();
        let mut result = created.result;
        let mut last_entry_id = String::new();
        while result.is_none() {
            let join = api::ImageJoinStreamingRequest {
                image_id: created.image_id.clone(),
                timeout: 55.0,
                last_entry_id: last_entry_id.clone(),
                include_logs_for_finished: false,
            };
            let mut stream = self.client.image_join_streaming(self.signed(join)).await.unwrap().into_inner();
            while let Some(part) = stream.message().await.unwrap() {
                if !part.entry_id.is_empty() {
                    last_entry_id = part.entry_id;
                }
                result = part.result.or(result);
            }
        }
        let result = result.unwrap();
        if result.status == 1 { Ok(created.image_id) } else { Err(result.exception) }
    }

    fn signed<T>(&self, message: T) -> tonic::Request<T> {
        signed(message, &self.auth_token)
    }

    fn definition(&self, name: &str) -> api::Sandbox {
        api::Sandbox {
            entrypoint_args: vec!["bash".to_owned()],
            image_id: self.image_id.clone(),
            timeout_secs: 3_600,
            name: Some(name.to_owned()),
            ..api::Sandbox::default()
        }
    }

    async fn create(&mut self, name: &str, config: &str) -> Result<String, Status> {
        let environment = HashMap::from([("SANDRUNNER_JITCONFIG".to_owned(), config.to_owned())]);
        let request = api::SandboxCreateV2Request {
            app_id: self.app_id.clone(),
            definition: Some(self.definition(name)),
            tags: vec![api::SandboxTag { tag_name: "deployment".to_owned(), tag_value: "main".to_owned() }],
            secret_sources: vec![api::SecretSource {
                source: Some(api::secret_source::Source::Env(api::StringMap { contents: environment })),
            }],
        };
        let created = self.client.sandbox_create_v2(self.signed(request)).await?;
        Ok(created.into_inner().sandbox_id)
    }

    async fn list(&mut self, before_timestamp: f64) -> Vec<api::SandboxInfo> {
        let request = api::SandboxListRequest {
            app_id: self.app_id.clone(),
            before_timestamp,
            ..api::SandboxListRequest::default()
        };
        self.client.sandbox_list_v2(self.signed(request)).await.unwrap().into_inner().sandboxes
    }

    /// Status and exit code; 0 and 0 while it lives.
    async fn wait(&mut self, sandbox_id: &str, timeout: f32) -> (i32, i32) {
        let request = api::SandboxWaitRequest { sandbox_id: sandbox_id.to_owned(), timeout };
        let waited = self.client.sandbox_wait_v2(self.signed(request)).await.unwrap().into_inner();
        let result = waited.result.unwrap();
        (result.status, result.exitcode)
    }

    async fn terminate(&mut self, sandbox_id: &str) {
        let request = api::SandboxTerminateRequest { sandbox_id: sandbox_id.to_owned() };
        self.client.sandbox_terminate_v2(self.signed(request)).await.unwrap();
    }
}

const SUCCESS: i32 = 1;
const FAILURE: i32 = 2;
const TERMINATED: i32 = 3;
const PLAIN: [&str; 2] = ["self-hosted", "modal"];

/// Mints and creates one runner of a name of ours, and gives the sandbox's id.
async fn start(world: &World, modal: &mut Modal, attempt: u32, labels: &[&str]) -> String {
    let name = format!("sr-main-gh-5000000000-{attempt}");
    let config = config_of(&mint(world, &name, labels).await);
    modal.create(&name, &config).await.unwrap()
}

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
async fn lists_are_paged_with_links_and_sizes_are_clamped() {
    let world = world(Profile::calm(), jobs(250));
    let first = get(&world, "/repos/acme/web/actions/runs/6000000000/jobs?per_page=500").await;
    assert_eq!(first.body["total_count"], 250);
    assert_eq!(first.body["jobs"].as_array().unwrap().len(), 100);
    let link = first.header("link").unwrap();
    assert!(
        link.contains("jobs?per_page=500&page=2>; rel=\"next\"") && link.contains("page=3>; rel=\"last\""),
        "{link}"
    );
    let last = get(&world, "/api/v3/repos/acme/web/actions/runs/6000000000/jobs?per_page=100&page=3").await;
    assert_eq!(last.body["jobs"].as_array().unwrap().len(), 50);
    assert!(!last.header("link").unwrap().contains("next"));
    assert_eq!(get(&world, "/repos/acme/web/actions/runs?status=completed").await.body["total_count"], 0);
    assert_eq!(get(&world, "/repos/acme/web/actions/runs?status=queued").await.body["total_count"], 1);
    assert_eq!(get(&world, "/repos/acme/none/actions/runs").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn unchanged_answers_cost_no_quota_and_etags_belong_to_a_token() {
    let world = world(Profile::calm(), jobs(1));
    let first = get(&world, RUNS).await;
    let etag = first.header("etag").unwrap().to_owned();
    assert!(etag.starts_with("W/"));
    assert_eq!(first.header("x-ratelimit-used"), Some("1"));
    let again = ask(&world, "GET", RUNS, &[TOKEN, ("if-none-match", &etag)], &Value::Null).await;
    assert_eq!((again.status, again.header("x-ratelimit-used")), (304, Some("1")));
    assert_eq!(again.body, Value::Null);
    let other = [("authorization", "token ghp_other"), ("if-none-match", &etag)];
    assert_eq!(ask(&world, "GET", RUNS, &other, &Value::Null).await.status, 200);
    assert!(first.header("date").is_some() && first.header("x-github-request-id").is_some());
    let report = world.report();
    assert_eq!((report.github_requests, report.github_not_modified), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn missing_and_revoked_credentials_are_refused() {
    let world = world(Profile::calm(), jobs(0));
    assert_eq!(ask(&world, "GET", RUNS, &[], &Value::Null).await.status, 401);
    assert_eq!(get(&world, RUNS).await.status, 200);
    world.revoke_token("ghp_test");
    let refused = get(&world, RUNS).await;
    assert_eq!((refused.status, refused.body["message"].as_str()), (401, Some("Bad credentials")));
    let mut client = ModalClientClient::new(BoxCloneService::new(world.modal_service()));
    let unsigned = client.auth_token_get(api::AuthTokenGetRequest {}).await.unwrap_err();
    assert_eq!(unsigned.code(), Code::Unauthenticated);
    let no_auth_token = client.sandbox_list_v2(signed(api::SandboxListRequest::default(), "a.b.c")).await.unwrap_err();
    assert_eq!(no_auth_token.code(), Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn both_limits_of_github_are_enforced_with_their_headers() {
    let profile = Profile { github_points_per_minute: 20, github_requests_per_hour: 30, ..Profile::calm() };
    let world = world(profile, jobs(0));
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 201);
    for _ in 0..2 {
        assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 409);
    }
    for _ in 0..5 {
        assert_eq!(get(&world, RUNS).await.status, 200);
    }
    let limited = get(&world, RUNS).await;
    assert_eq!((limited.status, limited.header("retry-after")), (403, Some("60")));
    assert_ne!(limited.header("x-ratelimit-remaining"), Some("0"));
    for _ in 0..3 {
        world.clock().sleep(Duration::from_secs(90)).await;
        for _ in 0..8 {
            get(&world, RUNS).await;
        }
    }
    let exhausted = get(&world, RUNS).await;
    assert_eq!((exhausted.status, exhausted.header("x-ratelimit-remaining")), (403, Some("0")));
    assert_eq!(exhausted.header("retry-after"), None);
    let limits: Vec<_> = world
        .history(0)
        .into_iter()
        .filter_map(|event| if let What::Call { limited, .. } = event.what { limited } else { None })
        .collect();
    assert_eq!(limits.first(), Some(&LimitKind::Secondary));
    assert_eq!(limits.last(), Some(&LimitKind::Primary));
    let report = world.report();
    assert_eq!(report.github_rate_limited, limits.len());
    assert_eq!(report.github_points_per_minute_peak, 20);
    assert!(report.violations.iter().any(|text| text.contains("a rate limit was hit")));
}

#[tokio::test(start_paused = true)]
async fn modal_limits_creations_and_keeps_names_unique_while_they_live() {
    let profile = Profile { modal_create_burst: 2, modal_creates_per_second: 0.1, ..Profile::calm() };
    let world = world(profile, jobs(0));
    let mut modal = Modal::connect(&world).await;
    let first = modal.create("sr-main-gh-1-1", "x").await.unwrap();
    assert_eq!(modal.create("sr-main-gh-1-1", "x").await.unwrap_err().code(), Code::AlreadyExists);
    let limited = modal.create("sr-main-gh-1-2", "x").await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted);
    let status: api::RpcStatus = prost::Message::decode(limited.details()).unwrap();
    assert!(status.details[0].type_url.ends_with("/modal.client.RPCRetryPolicy"));
    let policy: api::RpcRetryPolicy = prost::Message::decode(&status.details[0].value[..]).unwrap();
    assert!((9.0..=10.0).contains(&policy.retry_after_secs), "{policy:?}");
    assert_eq!(modal.wait(&first, 30.0).await, (FAILURE, 66));
    world.clock().sleep(Duration::from_secs(10)).await;
    assert!(modal.create("sr-main-gh-1-1", "x").await.is_ok(), "the name is free again");
}

#[tokio::test(start_paused = true)]
async fn modal_lists_newest_first_in_pages_until_an_empty_one() {
    let profile =
        Profile { modal_list_page: 4, boot: sandrunner::sim::Lognormal::constant(1_000.0), ..Profile::calm() };
    let mut scenario = jobs(0);
    scenario["foreign_sandboxes"] = json!([{ "name": "notebook", "tags": { "team": "data" } }]);
    let world = world(profile, scenario);
    let mut modal = Modal::connect(&world).await;
    let mut made = Vec::new();
    for index in 1..=9 {
        made.push(modal.create(&format!("sr-main-gh-{index}-1"), "x").await.unwrap());
    }
    let (mut seen, mut before) = (Vec::new(), 0.0);
    loop {
        let page = modal.list(before).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        before = last.created_at;
        seen.extend(page);
    }
    let ids: Vec<_> = seen.iter().map(|info| info.id.clone()).collect();
    assert_eq!(ids.len(), 10);
    made.reverse();
    assert_eq!(ids[..9], made);
    assert_eq!((seen[9].name.as_str(), seen[9].tags[0].tag_value.as_str()), ("notebook", "data"));
    modal.terminate(&ids[9]).await;
    assert_eq!(world.report().foreign_touched, 1);
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
        env_dict: HashMap::from([("SANDRUNNER_JITCONFIG".to_owned(), config)]),
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
async fn a_sandbox_without_network_never_registers() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    let config = config_of(&mint(&world, "sr-main-gh-1-1", &PLAIN).await);
    let environment = HashMap::from([("SANDRUNNER_JITCONFIG".to_owned(), config)]);
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
async fn filtered_run_lists_come_from_an_index_that_leaves_runs_out() {
    let profile = Profile { filtered_list_omits: 0.5, ..Profile::calm() };
    let world = world(profile, jobs(1));
    let mut seen = 0;
    for _ in 0..40 {
        seen += get(&world, "/repos/acme/web/actions/runs?status=queued").await.body["total_count"].as_u64().unwrap();
        assert_eq!(get(&world, RUNS).await.body["total_count"], 1);
    }
    assert!((5..=35).contains(&seen), "{seen} of 40 filtered lists showed the run");
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

#[tokio::test(start_paused = true)]
async fn realistic_lists_lag_and_go_backwards_but_not_beyond_their_bound() {
    let world = world(Profile { github_points_per_minute: 10_000, ..Profile::realistic() }, jobs(0));
    let added: Vec<ScenarioJob> = (0..60)
        .map(|index| {
            let mut job = job(5_000_000_000 + index, &["modal"]);
            job["arrival_secs"] = json!(index);
            serde_json::from_value(job).unwrap()
        })
        .collect();
    let began = world.clock().now();
    world.add_jobs(added).unwrap();
    let (mut last, mut went_back, mut late) = (0, false, 0);
    world.clock().sleep(Duration::from_secs(11)).await;
    for _ in 0..90 {
        let asked = (world.clock().now() - began).num_seconds().unsigned_abs();
        let seen = get(&world, JOBS).await.body["total_count"].as_u64().unwrap();
        assert!(seen + 10 >= asked.min(60), "{seen} jobs seen after {asked} s");
        went_back |= seen < last;
        late += u32::from(seen + 3 < asked.min(60));
        last = seen;
        world.clock().sleep(Duration::from_millis(400)).await;
    }
    assert!(went_back, "no list was older than the one before");
    assert!((1..60).contains(&late), "{late} of 90 lists were late");
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
