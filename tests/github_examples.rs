//! The GitHub client against GitHub's own examples, and against every value that GitHub's description allows.
//!
//! The examples and schemas come from the official `OpenAPI` description, the webhook payloads from
//! Octokit's examples (`tests/data`, each with its notice).

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeMap;

use axum::response::IntoResponse;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::DateTime;
use http::StatusCode;
use sandrunner::budget::{BudgetLimits, Purpose};
use sandrunner::clock::Clock;
use sandrunner::error::ErrorClass;
use sandrunner::github::{
    GithubAuth, GithubError, GithubReader, GithubSettings, GithubWriter, MintRequest, Paging, connect_with_service,
    parse_job,
};
use sandrunner::ids::{JobId, Labels, RepoName, RunId, RunnerId};
use sandrunner::state::{Connection, JobStatus, Reading, Registry, RunStatus, Scope};
use serde_json::{Value, json};

fn description() -> Value {
    let text = std::fs::read_to_string("tests/data/github-openapi-subset.json").unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Follows a reference within the description.
fn resolve<'a>(description: &'a Value, mut node: &'a Value) -> &'a Value {
    while let Some(reference) = node.get("$ref") {
        node = description.pointer(reference.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
    }
    node
}

/// All examples of an answer of one operation, each once.
fn examples(description: &Value, method: &str, path: &str, status: &str) -> Vec<Value> {
    let response = resolve(description, &description["paths"][path][method]["responses"][status]);
    let mut examples: Vec<Value> = Vec::new();
    for media_type in response["content"].as_object().unwrap().values() {
        for example in media_type["examples"].as_object().into_iter().flatten() {
            let value = resolve(description, example.1)["value"].clone();
            if !examples.contains(&value) {
                examples.push(value);
            }
        }
    }
    assert!(!examples.is_empty(), "{method} {path} has no example for {status}");
    examples
}

/// A client of a GitHub that answers everything with `body`.
fn answering(status: u16, body: Value) -> (GithubReader, GithubWriter) {
    let status = StatusCode::from_u16(status).unwrap();
    let router = Router::new().fallback(move || std::future::ready((status, Json(body)).into_response()));
    let settings = GithubSettings {
        account: "gh1".parse().unwrap(),
        api_url: "https://api.github.com".to_owned(),
        auth: GithubAuth::Token("github_pat_x".into()),
        limits: BudgetLimits { points_per_minute: 900.0, mutations_per_minute: 90.0, primary_reserve: 100 },
        max_in_flight: 8,
    };
    let clients = connect_with_service(router, settings, Clock::scaled(DateTime::UNIX_EPOCH, 1.0)).unwrap();
    let gh = "gh1".parse().unwrap();
    (clients.0.get(&gh), clients.1.get(&gh))
}

fn repo() -> RepoName {
    "octo-org/octo-repo".parse().unwrap()
}

/// Where its runners are registered.
fn registry() -> Registry {
    Registry::Repo(Scope { account: "gh".parse().unwrap(), repo: repo() })
}

fn known<T: std::fmt::Debug>(reading: Reading<T>) -> T {
    let Reading::Known(seen) = reading else { panic!("{reading:?}") };
    seen
}

const RUNS: &str = "/repos/{owner}/{repo}/actions/runs";
const RUNNERS: &str = "/repos/{owner}/{repo}/actions/runners";

#[tokio::test(start_paused = true)]
async fn the_examples_of_runs_are_read() {
    let description = description();
    for example in examples(&description, "get", RUNS, "200") {
        let (reader, _) = answering(200, example.clone());
        let list = known(reader.list_runs(&repo(), Purpose::RunList, 1, |_| Paging::Continue).await);
        assert_eq!(list.runs.len(), example["workflow_runs"].as_array().unwrap().len());
        let run = &list.runs[0];
        assert_eq!((run.id, &run.status), (RunId(30_433_642), &RunStatus::Queued));
        assert_eq!(run.created_at.unwrap().to_rfc3339(), "2020-01-22T19:33:08+00:00");
        assert_eq!(known(reader.list_runs_by_status(&repo(), &RunStatus::Queued).await).runs, list.runs);
    }
    for example in examples(&description, "get", &format!("{RUNS}/{{run_id}}"), "200") {
        let (reader, _) = answering(200, example);
        let run = reader.run(&repo(), RunId(30_433_642)).await.unwrap().unwrap();
        assert_eq!((run.id, run.attempt, run.status), (RunId(30_433_642), 1, RunStatus::Queued));
    }
}

#[tokio::test(start_paused = true)]
async fn the_examples_of_jobs_are_read() {
    for example in examples(&description(), "get", &format!("{RUNS}/{{run_id}}/jobs"), "200") {
        let (reader, _) = answering(200, example.clone());
        let jobs = known(reader.list_jobs(&repo(), RunId(29_679_449), Purpose::Jobs).await).unwrap();
        assert_eq!(jobs.len(), example["jobs"].as_array().unwrap().len());
        let job = &jobs[0];
        assert_eq!((job.id, job.run_id, &job.status), (JobId(399_444_496), RunId(29_679_449), &JobStatus::Completed));
        assert_eq!(job.labels, Labels::new(["self-hosted", "foo", "bar"]));
        assert_eq!((job.runner_name.as_deref(), job.name.as_str()), (Some("my runner"), "build"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_examples_of_runners_are_read() {
    for example in examples(&description(), "get", RUNNERS, "200") {
        let (reader, _) = answering(200, example);
        let runners = known(reader.list_runners(&registry()).await);
        let seen: Vec<_> =
            runners.iter().map(|r| (r.id.0, r.name.as_str(), r.connection == Connection::Online, r.is_busy)).collect();
        assert_eq!(seen, [(23, "linux_runner", true, true), (24, "mac_runner", false, false)]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_examples_of_releases_are_read() {
    for example in examples(&description(), "get", &format!("{RUNNERS}/downloads"), "200") {
        let (reader, _) = answering(200, example);
        let release = reader.runner_release(&registry()).await.unwrap();
        assert_eq!((release.version.to_string().as_str(), release.sha256), ("2.164.0", None));
        assert!(release.download_url.ends_with("/v2.164.0/actions-runner-linux-x64-2.164.0.tar.gz"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_examples_of_jit_configs_are_read() {
    for mut example in examples(&description(), "post", &format!("{RUNNERS}/generate-jitconfig"), "201") {
        let labels = Labels::new(["self-hosted", "x64", "macos", "no-gpu"]);
        let request = MintRequest { name: "New runner", runner_group_id: 1, labels: &labels, work_folder: "_work" };
        let (_, writer) = answering(201, example.clone());
        let error = writer.generate_jit_config(&registry(), request).await.unwrap_err();
        assert!(matches!(error, GithubError::Unreadable { .. }), "the example's config is a placeholder: {error}");
        example["encoded_jit_config"] = BASE64_STANDARD.encode(r#"{".runner": "e30="}"#).into();
        let (_, writer) = answering(201, example);
        assert_eq!(writer.generate_jit_config(&registry(), request).await.unwrap().runner_id, RunnerId(23));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_of_errors_are_read_in_both_forms_that_github_describes() {
    // `basic-error` and `validation-error-simple`, whose `errors` are texts.
    let (_, writer) = answering(409, json!({ "message": "Already exists", "documentation_url": "u", "status": "409" }));
    let labels = Labels::new(["modal"]);
    let request = MintRequest { name: "r", runner_group_id: 1, labels: &labels, work_folder: "_work" };
    let error = writer.generate_jit_config(&registry(), request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    let body = json!({ "message": "Validation Failed", "documentation_url": "u", "errors": ["still running a job"] });
    let (_, writer) = answering(422, body);
    let outcome = writer.delete_runner(&registry(), RunnerId(1)).await.unwrap();
    assert_eq!(outcome, sandrunner::github::Deregistered::StillRunning);
}

/// Copies of a valid row, each with one member that GitHub's description lets be null, absent, or another word.
fn variations(description: &Value, schema: &str, row: &Value) -> Vec<Value> {
    let schema = &description["components"]["schemas"][schema];
    let required: Vec<&str> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let mut rows = Vec::new();
    for (member, own) in schema["properties"].as_object().unwrap() {
        let own = resolve(description, own);
        if own["nullable"] == true {
            rows.push(with(row, member, Value::Null));
        }
        if !required.contains(&member.as_str()) {
            let mut without = row.clone();
            without.as_object_mut().unwrap().remove(member);
            rows.push(without);
        }
        for word in own["enum"].as_array().into_iter().flatten() {
            rows.push(with(row, member, word.clone()));
        }
    }
    rows.push(with(row, "status", json!("a status that GitHub adds")));
    rows.push(with(row, "conclusion", json!("startup_failure")));
    rows.push(with(row, "a_member_that_github_adds", json!({ "deep": [null] })));
    rows
}

fn with(row: &Value, member: &str, value: Value) -> Value {
    let mut row = row.clone();
    row[member] = value;
    row
}

/// Gives each row an id of its own, above 2^53: what does not fit a double must not be rounded.
fn numbered(rows: &mut [Value]) -> Vec<u64> {
    let ids: Vec<u64> = (0..rows.len() as u64).map(|n| 9_223_372_036_854_775_807 - n).collect();
    for (row, id) in rows.iter_mut().zip(&ids) {
        row["id"] = (*id).into();
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn every_null_absence_and_word_that_github_allows_is_read() {
    let description = description();
    let first = |path: &str, member: &str| examples(&description, "get", path, "200")[0][member][0].clone();

    let mut rows = variations(&description, "workflow-run", &first(RUNS, "workflow_runs"));
    let ids = numbered(&mut rows);
    assert!(rows.len() > 20, "{}", rows.len());
    let (reader, _) = answering(200, json!({ "total_count": 1, "workflow_runs": rows }));
    let list = known(reader.list_runs(&repo(), Purpose::RunList, 1, |_| Paging::Continue).await);
    assert_eq!(list.runs.iter().map(|run| run.id.0).collect::<Vec<_>>(), ids);

    let mut rows = variations(&description, "job", &first(&format!("{RUNS}/{{run_id}}/jobs"), "jobs"));
    let ids = numbered(&mut rows);
    assert!(rows.len() > 20, "{}", rows.len());
    let (reader, _) = answering(200, json!({ "total_count": 1, "jobs": rows }));
    let jobs = known(reader.list_jobs(&repo(), RunId(29_679_449), Purpose::Jobs).await).unwrap();
    assert_eq!(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), ids);
    for status in [JobStatus::Queued, JobStatus::Waiting, JobStatus::Pending, JobStatus::Requested] {
        assert!(jobs.iter().any(|job| job.status == status), "{status:?} is one of the words of the description");
    }

    let mut rows = variations(&description, "runner", &first(RUNNERS, "runners"));
    let ids = numbered(&mut rows);
    let (reader, _) = answering(200, json!({ "total_count": 1, "runners": rows }));
    let runners = known(reader.list_runners(&registry()).await);
    assert_eq!(runners.iter().map(|runner| runner.id.0).collect::<Vec<_>>(), ids);
}

#[test]
fn every_webhook_payload_holds_a_job_that_is_read() {
    let mut seen = BTreeMap::new();
    for entry in std::fs::read_dir("tests/data/webhooks").unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !file.starts_with("workflow_job.") {
            continue;
        }
        let payload: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let job = parse_job(&payload["workflow_job"].to_string()).unwrap();
        assert_eq!(json!(job.id.0), payload["workflow_job"]["id"]);
        let told = format!("{:?} {} {:?} {}", job.status, job.labels, job.runner_name, job.run_attempt);
        seen.insert(file, told);
    }
    let expected = [
        ("workflow_job.completed.failure.json", r#"Completed ubuntu-latest Some("GitHub Actions 5") 1"#),
        ("workflow_job.completed.success.json", r#"Completed ubuntu-latest Some("GitHub Actions 5") 1"#),
        ("workflow_job.in_progress.hosted.2023.json", r#"InProgress ubuntu-latest Some("GitHub Actions 6") 1"#),
        ("workflow_job.in_progress.self-hosted.2021.json", r#"InProgress db-app,dc-03,gpu Some("my runner") 1"#),
        ("workflow_job.queued.after-approval.self-hosted.json", "Waiting k8s,self-hosted None 1"),
        ("workflow_job.queued.hosted.json", "Queued ubuntu-latest None 1"),
        ("workflow_job.waiting.self-hosted.json", "Waiting k8s,self-hosted None 1"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(file, told)| (file.to_owned(), told.to_owned())).into();
    assert_eq!(seen, expected);
}
