//! What owners of repositories, organizations and the App change at GitHub, and GitHub itself.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{changed, parsed, refusal};
use crate::sim::app::InstallationChange;
use crate::sim::groups::GroupChange;
use crate::sim::jobs::Rerun;
use crate::sim::releases::{NewRelease, ReleaseChange};
use crate::sim::repos::RepoChange;
use crate::sim::scenario::ScenarioRepo;
use crate::sim::world::World;

/// A token, or the tokens of the App at an owner, that GitHub shall refuse.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    token: Option<String>,
    owner: Option<String>,
    /// From when on, in seconds from now.
    #[serde(default)]
    in_secs: f64,
}

/// Where to install the App.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    owner: String,
}

/// A run to run again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RerunAsked {
    run: u64,
    jobs: Rerun,
}

pub(super) fn routes() -> Router<World> {
    Router::new()
        .route("/_sim/revoke", post(revoke))
        .route("/_sim/repos", get(repos).post(add_repo))
        .route("/_sim/repos/{owner}/{name}", patch(change_repo))
        .route("/_sim/installations", get(installations).post(install))
        .route("/_sim/installations/{owner}", patch(change_installation).delete(uninstall))
        .route("/_sim/organizations", get(organizations))
        .route("/_sim/organizations/{organization}/groups/{group}", patch(change_group))
        .route("/_sim/releases", get(releases).post(publish_release))
        .route("/_sim/releases/{version}", patch(change_release))
        .route("/_sim/reruns", post(rerun))
}

async fn revoke(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |Revoke { token, owner, in_secs }: Revoke| match (token, owner) {
        _ if !in_secs.is_finite() || in_secs < 0.0 => refusal("`in_secs` must not be negative"),
        (Some(token), None) => {
            world.revoke_token_in(&token, in_secs);
            StatusCode::NO_CONTENT.into_response()
        }
        (None, Some(owner)) => changed(world.end_app_tokens(&owner, in_secs)),
        (Some(_), Some(_)) | (None, None) => refusal("state a `token`, or the `owner` at which the App's are meant"),
    })
}

async fn repos(State(world): State<World>) -> Response {
    Json(world.told_repos()).into_response()
}

async fn add_repo(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |repo: ScenarioRepo| changed(world.add_repo(repo)))
}

async fn change_repo(State(world): State<World>, Path((owner, name)): Path<(String, String)>, body: Bytes) -> Response {
    parsed(&body, |change: RepoChange| changed(world.change_repo(&format!("{owner}/{name}"), &change)))
}

async fn installations(State(world): State<World>) -> Response {
    Json(world.told_installations()).into_response()
}

async fn install(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |Install { owner }: Install| changed(world.install_app(&owner)))
}

async fn change_installation(State(world): State<World>, Path(owner): Path<String>, body: Bytes) -> Response {
    parsed(&body, |change: InstallationChange| changed(world.change_installation(&owner, &change)))
}

async fn uninstall(State(world): State<World>, Path(owner): Path<String>) -> Response {
    changed(world.remove_installation(&owner))
}

async fn organizations(State(world): State<World>) -> Response {
    Json(world.told_organizations()).into_response()
}

async fn change_group(
    State(world): State<World>,
    Path((organization, group)): Path<(String, u64)>,
    body: Bytes,
) -> Response {
    parsed(&body, |change: GroupChange| changed(world.change_group(&organization, group, &change)))
}

async fn releases(State(world): State<World>) -> Response {
    Json(world.told_releases()).into_response()
}

async fn publish_release(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |release: NewRelease| changed(world.publish_release(release)))
}

async fn change_release(State(world): State<World>, Path(version): Path<String>, body: Bytes) -> Response {
    parsed(&body, |change: ReleaseChange| changed(world.change_release(&version, &change)))
}

async fn rerun(State(world): State<World>, body: Bytes) -> Response {
    parsed(&body, |RerunAsked { run, jobs }: RerunAsked| match world.rerun(run, jobs) {
        Ok(attempt) => Json(json!({ "attempt": attempt })).into_response(),
        Err(error) => changed(Err(error)),
    })
}
