//! Credentials and rate limits.

use std::time::Duration;

use sandrunner::sim::{LimitKind, Profile, What};
use serde_json::Value;
use tonic::Code;
use tower::util::BoxCloneService;

use crate::api::modal_client_client::ModalClientClient;
use crate::github::{RUNS, ask, get, mint};
use crate::modal::{Modal, signed};
use crate::{FAILURE, PLAIN, api, jobs, world};

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
