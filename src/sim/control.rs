//! The control interface on GitHub's side, under `/_sim`: adds jobs, adds and clears faults, moves the clock, changes
//! what owners and GitHub itself change, shows the truth.

mod github;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::change::ChangeError;
use super::fault::{FaultRequest, Mishap, NamedFault};
use super::history::{ControllerChange, StatedLimits};
use super::scenario::{ScenarioJob, ScenarioRun};
use super::world::World;
use crate::error::ErrorChain;

/// Runs and jobs to add; their arrivals count from now.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJobs {
    #[serde(default)]
    runs: Vec<ScenarioRun>,
    #[serde(default)]
    jobs: Vec<ScenarioJob>,
}

/// How far to move the clock.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: f64,
}

/// What happened to a controller.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerNote {
    #[serde(default)]
    client: u32,
    change: ControllerChange,
}

pub(super) fn routes() -> Router<World> {
    Router::new()
        .route("/_sim/jobs", post(add_jobs))
        .route("/_sim/faults", get(catalogue).post(add_fault).delete(clear_faults))
        .route("/_sim/limits", post(state_limits))
        .route("/_sim/controllers", post(note_controller))
        .route("/_sim/clock", post(advance))
        .route("/_sim/history", get(history))
        .route("/_sim/state", get(state))
        .route("/_sim/report", get(report))
        .merge(github::routes())
        // Else it would be taken for a call of GitHub's.
        .route("/_sim/{*path}", any(nothing))
}

async fn nothing(Path(path): Path<String>) -> Response {
    told(StatusCode::NOT_FOUND, &format!("the control interface has no `/_sim/{path}`"))
}

/// Reads a body whatever its content type says, so that plain `curl -d` works.
fn parsed<T: DeserializeOwned>(body: &Bytes, then: impl FnOnce(T) -> Response) -> Response {
    match serde_json::from_slice(body) {
        Ok(asked) => then(asked),
        Err(error) => refusal(&error.to_string()),
    }
}

async fn add_jobs(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |new: NewJobs| answer(world.add_runs(new.runs, new.jobs)))
}

async fn add_fault(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |fault: FaultRequest| answer(world.add_fault(fault)))
}

async fn clear_faults(State(world): State<World>) -> StatusCode {
    world.clear_faults();
    StatusCode::NO_CONTENT
}

async fn catalogue() -> Response {
    let of_services = NamedFault::all()
        .map(|fault| json!({ "name": fault.name, "description": fault.description, "operations": fault.operations() }));
    let of_machines = Mishap::ALL
        .iter()
        .map(|mishap| json!({ "name": mishap.name(), "description": mishap.description(), "operations": [] }));
    let faults: Vec<_> = of_services.chain(of_machines).collect();
    Json(json!({ "faults": faults })).into_response()
}

async fn state_limits(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |limits: StatedLimits| {
        world.state_limits(limits);
        StatusCode::NO_CONTENT.into_response()
    })
}

async fn note_controller(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |note: ControllerNote| {
        world.note_controller(note.client, note.change);
        StatusCode::NO_CONTENT.into_response()
    })
}

async fn advance(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |advance: Advance| match Duration::try_from_secs_f64(advance.advance_seconds) {
        Ok(by) => {
            world.advance(by);
            Json(json!({ "now": world.clock().now() })).into_response()
        }
        Err(error) => refusal(&format!("advance_seconds: {error}")),
    })
}

async fn history(State(world): State<World>, Query(query): Query<BTreeMap<String, u64>>) -> Response {
    let mut lines = String::new();
    for event in world.history(query.get("since").copied().unwrap_or_default()) {
        lines.push_str(&serde_json::to_string(&event).expect("events hold nothing that JSON cannot"));
        lines.push('\n');
    }
    ([(header::CONTENT_TYPE, "application/jsonl")], lines).into_response()
}

async fn state(State(world): State<World>) -> Response {
    Json(world.summary()).into_response()
}

async fn report(State(world): State<World>) -> Response {
    Json(world.report()).into_response()
}

fn answer<E: std::error::Error + 'static>(result: Result<(), E>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refusal(&ErrorChain(&error).to_string()),
    }
}

/// The answer to a change: 404 where it names something that is not there.
fn changed(result: Result<(), ChangeError>) -> Response {
    match result {
        Err(error @ ChangeError::Unknown { .. }) => told(StatusCode::NOT_FOUND, &error.to_string()),
        other => answer(other),
    }
}

fn refusal(reason: &str) -> Response {
    told(StatusCode::UNPROCESSABLE_ENTITY, reason)
}

fn told(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}
