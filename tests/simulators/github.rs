//! A client of the simulated GitHub.

use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use sandrunner::sim::World;
use serde_json::{Value, json};
use tower::ServiceExt;

#[derive(Debug)]
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

/// The answer; an error where the connection is cut.
pub(crate) async fn try_ask(
    world: &World,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Reply, axum::Error> {
    let mut request = Request::builder().method(method).uri(path).header("user-agent", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = world.github_service().oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
}

pub(crate) async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
    try_ask(world, method, path, headers, body).await.unwrap()
}

pub(crate) const TOKEN: (&str, &str) = ("authorization", "Bearer ghp_test");
pub(crate) const RUNS: &str = "/repos/acme/web/actions/runs";
pub(crate) const JOBS: &str = "/repos/acme/web/actions/runs/6000000000/jobs?per_page=100";
pub(crate) const RUNNERS: &str = "/repos/acme/web/actions/runners";

pub(crate) async fn get(world: &World, path: &str) -> Reply {
    ask(world, "GET", path, &[TOKEN], &Value::Null).await
}

/// The answer to a request that states the version it knows.
pub(crate) async fn get_known(world: &World, path: &str, etag: &str) -> Reply {
    ask(world, "GET", path, &[TOKEN, ("if-none-match", etag)], &Value::Null).await
}

/// The ids of a list's entries, in its order.
pub(crate) fn ids(reply: &Reply, key: &str) -> Vec<u64> {
    let entries = reply.body[key].as_array().unwrap_or_else(|| panic!("{reply:?}"));
    entries.iter().map(|entry| entry["id"].as_u64().unwrap()).collect()
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
