//! A client of the simulated GitHub.

use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use sandrunner::sim::World;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
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

pub(crate) const TOKEN: (&str, &str) = ("authorization", "Bearer ghp_test");
pub(crate) const RUNS: &str = "/repos/acme/web/actions/runs";
pub(crate) const JOBS: &str = "/repos/acme/web/actions/runs/6000000000/jobs?per_page=100";
pub(crate) const RUNNERS: &str = "/repos/acme/web/actions/runners";

pub(crate) async fn get(world: &World, path: &str) -> Reply {
    ask(world, "GET", path, &[TOKEN], &Value::Null).await
}

pub(crate) async fn mint(world: &World, name: &str, labels: &[&str]) -> Reply {
    let body = json!({ "name": name, "runner_group_id": 1, "labels": labels });
    ask(world, "POST", &format!("{RUNNERS}/generate-jitconfig"), &[TOKEN], &body).await
}

pub(crate) async fn delete_runner(world: &World, id: &Value) -> u16 {
    ask(world, "DELETE", &format!("{RUNNERS}/{id}"), &[TOKEN], &Value::Null).await.status
}

pub(crate) fn config_of(minted: &Reply) -> String {
    assert_eq!(minted.status, 201, "{}", minted.body);
    minted.body["encoded_jit_config"].as_str().unwrap().to_owned()
}
