//! Every answer of the simulated GitHub validates against GitHub's own description of its API.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::time::Duration;

use axum::body::Body;
use chrono::DateTime;
use http::Request;
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sandrunner::clock::Clock;
use sandrunner::sim::{
    APP_ID, APP_KEY, Fault, FaultMode, FaultRequest, Operation, Profile, RepoAbout, Rerun, Scenario, Visibility, World,
};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Turns `OpenAPI` 3.0's `nullable` into JSON Schema and drops examples, which are no schemas.
fn convert(schema: Value) -> Value {
    match schema {
        Value::Array(items) => items.into_iter().map(convert).collect(),
        Value::Object(mut fields) => {
            fields.remove("example");
            // Under `properties` a field may itself be called `examples`; only a schema's own is dropped.
            fields.remove("examples");
            let is_nullable = fields.remove("nullable") == Some(Value::Bool(true));
            let mut fields: serde_json::Map<String, Value> =
                fields.into_iter().map(|(key, value)| (key, convert(value))).collect();
            if !is_nullable {
                return Value::Object(fields);
            }
            match fields.get("type").cloned() {
                Some(Value::String(name)) => {
                    fields.insert("type".to_owned(), json!([name, "null"]));
                    if let Some(Value::Array(values)) = fields.get_mut("enum") {
                        values.push(Value::Null);
                    }
                    Value::Object(fields)
                }
                _ => json!({ "anyOf": [fields, { "type": "null" }] }),
            }
        }
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    }
}

struct Description(Value);

impl Description {
    fn load() -> Self {
        Self(serde_json::from_str(include_str!("data/github-openapi-subset.json")).unwrap())
    }

    /// The schema of an answer; none where it has no body.
    fn schema(&self, method: &str, path: &str, status: u16) -> Option<Value> {
        let operation = &self.0["paths"][path][method]["responses"];
        let mut response = &operation[status.to_string()];
        assert!(response.is_object(), "{method} {path} does not answer {status}");
        if let Some(reference) = response["$ref"].as_str() {
            response = self.0.pointer(reference.trim_start_matches('#')).unwrap();
        }
        let schema = response.pointer("/content/application~1json/schema")?;
        let mut schema = convert(schema.clone());
        schema["components"] = convert(self.0["components"].clone());
        schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
        Some(schema)
    }

    fn problems(&self, method: &str, path: &str, status: u16, body: &[u8]) -> Vec<String> {
        let Some(schema) = self.schema(method, path, status) else {
            return if body.is_empty() { Vec::new() } else { vec!["a body where there is none".to_owned()] };
        };
        let validator = jsonschema::draft7::new(&schema).unwrap();
        let value: Value = serde_json::from_slice(body).unwrap();
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }
}

struct Simulated {
    world: World,
    description: Description,
}

impl Simulated {
    fn new() -> Self {
        let scenario: Scenario = serde_json::from_value(json!({
            "repos": [{ "name": "acme/web" }],
            "organizations": [{ "name": "acme", "groups": [
                { "id": 1, "name": "Default" },
                { "id": 4, "name": "Modal", "repos": ["acme/web"] },
                { "id": 7, "name": "Few", "visibility": "private" },
            ] }],
            "foreign_runners": [{ "repo": "acme/web", "name": "box", "labels": ["self-hosted", "box"] }],
            "jobs": [
                { "id": 5_000_000_001_u64, "run": 6_000_000_001_u64, "repo": "acme/web", "labels": ["modal"], "duration_secs": 30 },
                { "id": 5_000_000_002_u64, "run": 6_000_000_001_u64, "repo": "acme/web", "labels": ["ubuntu-latest"], "duration_secs": 10 },
                { "id": 5_000_000_003_u64, "run": 6_000_000_001_u64, "repo": "acme/web", "labels": ["box"], "duration_secs": 600, "attempt": 1 },
                { "id": 5_000_000_004_u64, "run": 6_000_000_002_u64, "repo": "acme/web", "labels": ["modal"], "duration_secs": 1, "cancel_secs": 5 },
                { "id": 5_000_000_005_u64, "run": 6_000_000_003_u64, "repo": "acme/web", "labels": ["modal"], "duration_secs": 1, "waiting_secs": 9_000 },
            ],
        }))
        .unwrap();
        let profile = Profile { step_secs: Some(15.0), ..Profile::calm() };
        let clock = Clock::scaled(DateTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000), 1.0);
        Self { world: World::new(profile, scenario, 1, clock), description: Description::load() }
    }

    /// Asks, checks the answer against the description of `template`, and gives status and body.
    async fn ask(&self, method: &str, template: &str, path: &str, body: &Value) -> (u16, Value) {
        self.ask_with(method, template, path, ("t", body)).await
    }

    /// The same with a token.
    async fn ask_with(&self, method: &str, template: &str, path: &str, (token, body): (&str, &Value)) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("user-agent", "test")
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        let response = self.world.github_service().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let problems = self.description.problems(&method.to_lowercase(), template, status, &bytes);
        assert!(problems.is_empty(), "{method} {path} answers {status}: {problems:#?}");
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, template: &str, path: &str) -> Value {
        let (status, body) = self.ask("GET", template, path, &Value::Null).await;
        assert_eq!(status, 200, "{path}");
        body
    }
}

const RUNS: &str = "/repos/{owner}/{repo}/actions/runs";
const RUN: &str = "/repos/{owner}/{repo}/actions/runs/{run_id}";
const JOBS: &str = "/repos/{owner}/{repo}/actions/runs/{run_id}/jobs";
const JOB: &str = "/repos/{owner}/{repo}/actions/jobs/{job_id}";
const RUNNERS: &str = "/repos/{owner}/{repo}/actions/runners";
const RUNNER: &str = "/repos/{owner}/{repo}/actions/runners/{runner_id}";
const MINT: &str = "/repos/{owner}/{repo}/actions/runners/generate-jitconfig";

#[tokio::test(start_paused = true)]
async fn reading_endpoints_answer_as_described() {
    let sim = Simulated::new();
    sim.world.advance(Duration::from_secs(60));
    let runs = sim.get(RUNS, "/repos/acme/web/actions/runs?per_page=100").await;
    let statuses: Vec<_> = runs["workflow_runs"].as_array().unwrap().iter().map(|run| &run["status"]).collect();
    assert_eq!(statuses, ["waiting", "completed", "queued"]);
    let jobs = sim.get(JOBS, "/repos/acme/web/actions/runs/6000000001/jobs").await;
    let statuses: Vec<_> = jobs["jobs"].as_array().unwrap().iter().map(|job| &job["status"]).collect();
    assert_eq!(statuses, ["queued", "completed", "in_progress"]);
    assert_eq!(jobs["jobs"][0]["runner_id"], Value::Null);
    assert_eq!(jobs["jobs"][2]["steps"].as_array().unwrap().len(), 4);
    let cancelled = sim.get(JOBS, "/repos/acme/web/actions/runs/6000000002/jobs").await;
    assert_eq!(cancelled["jobs"][0]["conclusion"], "cancelled");
    sim.get(JOBS, "/repos/acme/web/actions/runs/6000000003/jobs?filter=all").await;
    sim.get(RUN, "/repos/acme/web/actions/runs/6000000001").await;
    sim.get(JOB, "/repos/acme/web/actions/jobs/5000000001").await;
    let runners = sim.get(RUNNERS, "/repos/acme/web/actions/runners").await;
    assert_eq!(runners["runners"][0]["busy"], true);
    sim.get(RUNNER, "/repos/acme/web/actions/runners/1").await;
    let downloads =
        sim.get("/repos/{owner}/{repo}/actions/runners/downloads", "/repos/acme/web/actions/runners/downloads").await;
    assert_eq!(downloads[0]["sha256_checksum"].as_str().unwrap().len(), 64);
    let notice = "/repos/{owner}/{repo}/actions/runners/deprecations/{version}";
    let notice = sim.get(notice, "/repos/acme/web/actions/runners/deprecations/2.330.0").await;
    assert_eq!(notice["runner_version"], "2.330.0");
    sim.get("/repos/{owner}/{repo}", "/repos/acme/web").await;
    sim.get("/rate_limit", "/rate_limit").await;
    let (template, path) = ("/repos/{owner}/{repo}/actions/permissions", "/repos/acme/web/actions/permissions");
    assert_eq!(sim.get(template, path).await["enabled"], true);
    sim.world.add_fault(Fault::new(Operation::GetActionsPermissions, FaultMode::ActionsDisabled)).unwrap();
    assert_eq!(sim.get(template, path).await["enabled"], false);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_run_again_is_shown_as_described() {
    let sim = Simulated::new();
    let job = |id: u64, conclusion: &str| {
        json!({ "id": id, "run": 7_000_000_000_u64, "repo": "acme/web", "labels": ["ubuntu-latest"],
            "duration_secs": 1, "conclusion": conclusion })
    };
    let jobs = json!([job(5_100_000_001, "success"), job(5_100_000_002, "failure")]);
    sim.world.add_jobs(serde_json::from_value(jobs).unwrap()).unwrap();
    sim.world.advance(Duration::from_secs(60));
    sim.world.rerun(7_000_000_000, Rerun::Failed).unwrap();
    assert_eq!(sim.get(RUN, "/repos/acme/web/actions/runs/7000000000").await["run_attempt"], 2);
    let jobs = sim.get(JOBS, "/repos/acme/web/actions/runs/7000000000/jobs").await;
    let statuses: Vec<_> = jobs["jobs"].as_array().unwrap().iter().map(|job| &job["status"]).collect();
    assert_eq!(statuses, ["queued", "completed"]);
    assert_eq!(sim.get(JOBS, "/repos/acme/web/actions/runs/7000000000/jobs?filter=all").await["total_count"], 4);
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_organizations_answer_as_described() {
    let sim = Simulated::new();
    let all = "/orgs/{org}/actions/runner-groups";
    let groups = sim.get(all, "/orgs/Acme/actions/runner-groups?per_page=100").await;
    let names: Vec<_> = groups["runner_groups"].as_array().unwrap().iter().map(|group| &group["visibility"]).collect();
    assert_eq!(names, ["all", "selected", "private"]);
    let template = format!("{all}/{{runner_group_id}}/repositories");
    let repos = sim.get(&template, "/orgs/acme/actions/runner-groups/4/repositories").await;
    assert_eq!(repos["repositories"][0]["full_name"], "acme/web");
    let template = "/orgs/{org}/actions/runners/generate-jitconfig";
    let path = "/orgs/acme/actions/runners/generate-jitconfig";
    let mint = |group: u64| json!({ "name": "sr-a-b-1-1", "runner_group_id": group, "labels": ["modal"] });
    let (status, minted) = sim.ask("POST", template, path, &mint(4)).await;
    assert_eq!((status, &minted["runner"]["runner_group_id"]), (201, &json!(4)));
    assert_eq!(sim.ask("POST", template, path, &mint(9)).await.0, 404);
    let runners = sim.get("/orgs/{org}/actions/runners", "/orgs/acme/actions/runners").await;
    assert_eq!(runners["total_count"], 1);
    let runner = format!("/orgs/acme/actions/runners/{}", minted["runner"]["id"]);
    assert_eq!(sim.ask("DELETE", "/orgs/{org}/actions/runners/{runner_id}", &runner, &Value::Null).await.0, 204);
    // What is the organization's is no repository's.
    assert_eq!(sim.get(RUNNERS, "/repos/acme/web/actions/runners").await["total_count"], 1);
}

#[tokio::test(start_paused = true)]
async fn writing_endpoints_answer_as_described() {
    let sim = Simulated::new();
    let mint = |name: &str, labels: Value| json!({ "name": name, "runner_group_id": 1, "labels": labels });
    let path = "/repos/acme/web/actions/runners/generate-jitconfig";
    let (status, minted) = sim.ask("POST", MINT, path, &mint("sr-a-b-1-1", json!(["Modal", "self-hosted"]))).await;
    assert_eq!(
        (status, &minted["runner"]["status"], &minted["runner"]["os"]),
        (201, &json!("offline"), &json!("unknown"))
    );
    let labels: Vec<_> = minted["runner"]["labels"].as_array().unwrap().iter().map(|label| &label["name"]).collect();
    assert_eq!(labels, ["modal", "self-hosted"]);
    assert_eq!(sim.ask("POST", MINT, path, &mint("sr-a-b-1-1", json!(["modal"]))).await.0, 409);
    assert_eq!(sim.ask("POST", MINT, path, &mint("sr-a-b-1-2", json!([]))).await.0, 422);
    let group = json!({ "name": "x", "runner_group_id": 9, "labels": ["modal"] });
    assert_eq!(sim.ask("POST", MINT, path, &group).await.0, 404);
    let runner = format!("/repos/acme/web/actions/runners/{}", minted["runner"]["id"]);
    assert_eq!(sim.ask("DELETE", RUNNER, &runner, &Value::Null).await.0, 204);
    // The foreign runner runs a job once it has been given one.
    sim.world.advance(Duration::from_secs(5));
    let (status, refusal) = sim.ask("DELETE", RUNNER, "/repos/acme/web/actions/runners/1", &Value::Null).await;
    assert_eq!(status, 422);
    assert!(refusal["message"].as_str().unwrap().contains("is still running a job"));
}

#[tokio::test(start_paused = true)]
async fn what_a_github_app_asks_is_answered_as_described() {
    let sim = Simulated::new();
    sim.world.set_repo("acme/old", RepoAbout { archived: true, fork: true, ..RepoAbout::default() });
    sim.world.set_repo("acme/open", RepoAbout { visibility: Visibility::Public, ..RepoAbout::default() });
    let repos = sim.get("/orgs/{org}/repos", "/orgs/acme/repos?per_page=2").await;
    assert_eq!(repos.as_array().unwrap().len(), 2);
    assert_eq!(sim.get("/repos/{owner}/{repo}", "/repos/acme/old").await["archived"], true);
    sim.world.rename_repo("acme/open", "acme/opened");
    assert_eq!(sim.ask("GET", "/repos/{owner}/{repo}", "/repos/acme/open", &Value::Null).await.0, 301);
    assert_eq!(sim.get("/repos/{owner}/{repo}", "/repos/acme/opened").await["visibility"], "public");

    let (status, app) = sim.ask_with("GET", "/app", "/app", (&app_token(&sim), &Value::Null)).await;
    assert_eq!((status, &app["permissions"]["administration"]), (200, &json!("write")));

    sim.world.suspend_app("acme");
    let (status, installations) =
        sim.ask_with("GET", "/app/installations", "/app/installations", (&app_token(&sim), &json!({}))).await;
    assert_eq!((status, installations[0]["suspended_at"].is_string()), (200, true));
    let path = format!("/app/installations/{}/access_tokens", installations[0]["id"]);
    let template = "/app/installations/{installation_id}/access_tokens";
    assert_eq!(sim.ask_with("POST", template, &path, (&app_token(&sim), &json!({}))).await.0, 403);
    sim.world.unsuspend_app("acme");
    let (status, given) = sim.ask_with("POST", template, &path, (&app_token(&sim), &json!({}))).await;
    assert_eq!(status, 201);
    let token = given["token"].as_str().unwrap();
    assert!(token.starts_with("ghs_") && token.len() > 500, "GitHub's newer tokens are long");
    let path = "/installation/repositories";
    let (_, repos) = sim.ask_with("GET", path, path, (token, &Value::Null)).await;
    assert_eq!(repos["total_count"], 3, "the organization itself is none");
    assert_eq!(sim.ask_with("GET", path, path, ("ghs_unknown", &Value::Null)).await.0, 401);
    let gone = "/app/installations/1/access_tokens";
    assert_eq!(sim.ask_with("POST", template, gone, (&app_token(&sim), &json!({}))).await.0, 404);
}

/// A token that the App signs.
fn app_token(sim: &Simulated) -> String {
    let now = sim.world.clock().now().timestamp();
    let claims = json!({ "iss": APP_ID, "iat": now - 60, "exp": now + 540 });
    let key = EncodingKey::from_rsa_pem(APP_KEY.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
}

#[tokio::test(start_paused = true)]
async fn lists_that_are_not_true_are_answered_as_described_all_the_same() {
    let sim = Simulated::new();
    sim.world.advance(Duration::from_secs(60));
    let lists = [
        (Operation::ListRuns, RUNS, "/repos/acme/web/actions/runs?per_page=1&page=2"),
        (Operation::ListJobs, JOBS, "/repos/acme/web/actions/runs/6000000001/jobs?per_page=1&page=2"),
        (Operation::ListRunners, RUNNERS, "/repos/acme/web/actions/runners?per_page=1&page=2"),
    ];
    let untrue = [
        FaultMode::Empty,
        FaultMode::Stale,
        FaultMode::Flapping,
        FaultMode::PageMissing,
        FaultMode::PageSkips,
        FaultMode::PageShowsTwice,
        FaultMode::PageRepeats,
        FaultMode::BusyHidden,
        FaultMode::OnlineHidden,
    ];
    for (operation, template, path) in lists {
        for mode in untrue.into_iter().filter(|mode| mode.applies_to(operation)) {
            sim.world.add_fault(Fault::new(operation, mode)).unwrap();
            sim.get(template, path).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_reason_are_answered_as_described() {
    let sim = Simulated::new();
    let mint = json!({ "name": "sr-a-b-1-1", "runner_group_id": 1, "labels": ["modal"] });
    let path = "/repos/acme/web/actions/runners/generate-jitconfig";
    for (name, status) in [("mint_404", 404), ("mint_409", 409), ("mint_422", 422)] {
        sim.world.add_fault(FaultRequest { times: Some(1), ..FaultRequest::from(name) }).unwrap();
        assert_eq!(sim.ask("POST", MINT, path, &mint).await.0, status, "{name}");
    }
    for name in ["jit_config_expired", "runner_visible_late"] {
        sim.world.add_fault(name).unwrap();
    }
    assert_eq!(sim.ask("POST", MINT, path, &mint).await.0, 201);
    sim.world.advance(Duration::from_secs(5));
    for (name, runner, status) in [("delete_422", 2, 422), ("delete_204_while_busy", 1, 204)] {
        sim.world.add_fault(FaultRequest { times: Some(1), ..FaultRequest::from(name) }).unwrap();
        let path = format!("/repos/acme/web/actions/runners/{runner}");
        assert_eq!(sim.ask("DELETE", RUNNER, &path, &Value::Null).await.0, status, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn ghosts_and_old_runs_are_shown_as_described() {
    let sim = Simulated::new();
    let job =
        |id: u64| json!({ "id": id, "run": id + 1_000, "repo": "acme/web", "labels": ["modal"], "duration_secs": 1 });
    let runs = json!([
        { "id": 1_001, "ghost": "queued", "age_secs": 5_000_000 },
        { "id": 1_002, "ghost": "completed_run" },
        { "id": 1_003, "repo": "acme/web", "age_secs": 9_000_000 },
    ]);
    let jobs = serde_json::from_value(json!([job(1), job(2)])).unwrap();
    sim.world.add_runs(serde_json::from_value(runs).unwrap(), jobs).unwrap();
    let listed = sim.get(RUNS, "/repos/acme/web/actions/runs?per_page=100").await;
    assert_eq!(listed["total_count"], 6);
    for run in 1_001..=1_003 {
        sim.get(RUN, &format!("/repos/acme/web/actions/runs/{run}")).await;
        sim.get(JOBS, &format!("/repos/acme/web/actions/runs/{run}/jobs")).await;
    }
}

#[test]
fn the_check_finds_what_does_not_fit() {
    let description = Description::load();
    let wrong = br#"{"total_count": "1", "jobs": []}"#;
    let problems = description.problems("get", JOBS, 200, wrong);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!description.problems("get", RUN, 200, b"{}").is_empty());
}
