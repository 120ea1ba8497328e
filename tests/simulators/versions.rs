//! Versions of the runner, at github.com and at an Enterprise Server.

use sandrunner::sim::{Profile, World};
use serde_json::{Value, json};

use crate::github::{RUNS, TOKEN, ask, config_of, get};
use crate::modal::Modal;
use crate::{PLAIN, SUCCESS, jobs, world};

const RUNNERS: &str = "/repos/acme/web/actions/runners";

/// How a sandbox ends whose image holds that version of the runner, registered under a path.
async fn end_of(world: &World, version: &str, prefix: &str) -> (i32, i32) {
    let mut modal = Modal::connect(world).await;
    let archive = format!(
        "https://github.com/actions/runner/releases/download/v{version}/actions-runner-linux-x64-{version}.tar.gz"
    );
    modal.image_id = modal.build_image(&format!("RUN curl '{archive}'")).await.unwrap();
    let body = json!({ "name": "sr-main-gh-1-1", "runner_group_id": 1, "labels": PLAIN });
    let minted = ask(world, "POST", &format!("{prefix}{RUNNERS}/generate-jitconfig"), &[TOKEN], &body).await;
    let id = modal.create("sr-main-gh-1-1", &config_of(&minted)).await.unwrap();
    modal.wait(&id, 300.0).await
}

async fn notice(world: &World, version: &str) -> Value {
    get(world, &format!("{RUNNERS}/deprecations/{version}")).await.body["runtime_deprecates_at"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_version_below_githubs_floor_never_gets_a_job() {
    let world = || world(Profile::calm(), jobs(1));
    assert_eq!(end_of(&world(), "2.328.9", "").await.1, 65);
    assert_eq!(end_of(&world(), "2.329.0", "").await, (SUCCESS, 0));
    assert_eq!(end_of(&world(), "2.328.9", "/api/v3").await, (SUCCESS, 0), "an Enterprise Server takes them");
    assert!(notice(&world(), "2.328.9").await.is_string());
    assert_eq!(notice(&world(), "2.329.0").await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_published_and_the_one_before_refused() {
    let world = world(Profile::calm(), jobs(1));
    let offered = || async { get(&world, &format!("{RUNNERS}/downloads")).await.body[0]["filename"].clone() };
    let filename = |version: &str| json!(format!("actions-runner-linux-x64-{version}.tar.gz"));
    let publish = |version: &str, in_secs: f64| {
        world.publish_release(serde_json::from_value(json!({ "version": version, "in_secs": in_secs })).unwrap())
    };
    publish("2.340.0", 60.0).unwrap();
    assert_eq!(offered().await, filename("2.336.0"));
    world.clock().sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(offered().await, filename("2.340.0"));
    for odd in ["2.340.0", "2.339.9", "2.341"] {
        assert!(publish(odd, 0.0).is_err(), "{odd}");
    }
    let refuse = |version: &str, secs: Value| {
        world.change_release(version, &serde_json::from_value(json!({ "refused_in_secs": secs })).unwrap())
    };
    assert_eq!(notice(&world, "2.336.0").await, Value::Null);
    refuse("2.336.0", json!(0)).unwrap();
    assert!(notice(&world, "2.336.0").await.is_string());
    assert_eq!(end_of(&world, "2.336.0", "").await.1, 65);
    refuse("2.336.0", Value::Null).unwrap();
    assert_eq!(notice(&world, "2.336.0").await, Value::Null);
    let unknown = refuse("2.3.0", json!(0)).unwrap_err().to_string();
    assert_eq!(unknown, "there is no release of the runner `2.3.0`; there is `2.336.0`, `2.340.0`");
}

#[tokio::test(start_paused = true)]
async fn an_enterprise_server_has_no_limits_and_its_own_ways() {
    let profile = Profile { github_requests_per_hour: 2, github_points_per_minute: 3, ..Profile::calm() };
    let world = world(profile, jobs(1));
    for _ in 0..5 {
        let reply = get(&world, &format!("/api/v3{RUNS}")).await;
        assert_eq!((reply.status, reply.header("x-github-enterprise-version")), (200, Some("3.19.0")));
        assert_eq!(reply.header("x-ratelimit-remaining"), None);
    }
    assert_eq!(get(&world, &format!("/api/v3{RUNNERS}/deprecations/2.336.0")).await.status, 404);
    assert_eq!(get(&world, &format!("{RUNNERS}/deprecations/2.336.0")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_is_archived_or_disabled_registers_no_runner() {
    let world = world(Profile::calm(), jobs(1));
    let body = json!({ "name": "sr-main-gh-1-1", "runner_group_id": 1, "labels": PLAIN });
    let mint = || ask(&world, "POST", "/repos/acme/web/actions/runners/generate-jitconfig", &[TOKEN], &body);
    for key in ["archived", "disabled"] {
        world.change_repo("acme/web", &serde_json::from_value(json!({ key: true })).unwrap()).unwrap();
        let refused = mint().await;
        assert_eq!(refused.status, 403);
        assert!(refused.body["message"].as_str().unwrap().contains(key), "{}", refused.body);
        world.change_repo("acme/web", &serde_json::from_value(json!({ key: false })).unwrap()).unwrap();
    }
    assert_eq!(mint().await.status, 201);
}
