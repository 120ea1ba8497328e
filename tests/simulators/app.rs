//! The GitHub App: who is taken for it, and what its installations may do.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sandrunner::sim::{APP_ID, APP_KEY, Access, Permission, Profile, World};
use serde_json::{Value, json};

use crate::github::{RUNS, Reply, ask};
use crate::world;

const RUNNERS: &str = "/repos/acme/web/actions/runners";
const MINT: &str = "/repos/acme/web/actions/runners/generate-jitconfig";
const ORG_MINT: &str = "/orgs/acme/actions/runners/generate-jitconfig";
const GROUPS: &str = "/orgs/acme/actions/runner-groups";

/// Asks with a token.
async fn with(world: &World, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    ask(world, method, path, &[("authorization", &format!("Bearer {token}"))], body).await
}

async fn get(world: &World, token: &str, path: &str) -> Reply {
    with(world, token, "GET", path, &Value::Null).await
}

/// A token that the App signs.
fn signed(iss: &str, iat: i64, exp: i64, key: &str) -> String {
    let claims = json!({ "iss": iss, "iat": iat, "exp": exp });
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap()
}

fn now(world: &World) -> i64 {
    world.clock().now().timestamp()
}

fn app_token(world: &World) -> String {
    signed(APP_ID, now(world) - 60, now(world) + 540, APP_KEY)
}

/// A token of the App's installation at an owner.
async fn token_at(world: &World, owner: &str) -> String {
    let app = app_token(world);
    let installations = get(world, &app, "/app/installations").await.body;
    let mut all = installations.as_array().unwrap().iter();
    let id = &all.find(|one| one["account"]["login"] == owner).unwrap()["id"];
    let given = with(world, &app, "POST", &format!("/app/installations/{id}/access_tokens"), &json!({})).await;
    assert_eq!(given.status, 201, "{}", given.body);
    given.body["token"].as_str().unwrap().to_owned()
}

fn mint(name: &str) -> Value {
    json!({ "name": name, "runner_group_id": 1, "labels": ["modal"] })
}

fn scenario(installations: &Value) -> Value {
    json!({
        "repos": [{ "name": "acme/web" }, { "name": "acme/api" }, { "name": "acme/open", "about": { "visibility": "public" } }],
        "organizations": [{ "name": "acme", "groups": [{ "id": 1, "name": "Default" }] }],
        "installations": installations,
    })
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_app_is_taken_within_its_times_and_refused_in_githubs_words() {
    let world = world(Profile::calm(), scenario(&json!([])));
    let now = now(&world);
    let refused = |token: String| {
        let world = world.clone();
        async move {
            let reply = get(&world, &token, "/app/installations").await;
            assert_eq!(reply.status, 401);
            reply.body["message"].as_str().unwrap().to_owned()
        }
    };
    assert_eq!(get(&world, &signed(APP_ID, now + 4, now + 600, APP_KEY), "/app/installations").await.status, 200);
    let expired = refused(signed(APP_ID, now - 600, now, APP_KEY)).await;
    assert!(expired.starts_with("'Expiration time' claim ('exp') must be"), "{expired}");
    let long = refused(signed(APP_ID, now - 60, now + 601, APP_KEY)).await;
    assert_eq!(long, "'Expiration time' claim ('exp') is too far in the future");
    let early = refused(signed(APP_ID, now + 6, now + 540, APP_KEY)).await;
    assert!(early.starts_with("'Issued at' claim ('iat')"), "{early}");
    let other_key = include_str!("../data/github-app/test-key.other.pem");
    for token in [signed(APP_ID, now, now + 60, other_key), signed("4712", now, now + 60, APP_KEY)] {
        assert_eq!(refused(token).await, "A JSON web token could not be decoded");
    }
    world.delete_app_key();
    assert_eq!(refused(app_token(&world)).await, "A JSON web token could not be decoded");
}

#[tokio::test(start_paused = true)]
async fn each_call_needs_its_permission_and_says_which() {
    let world = world(Profile::calm(), scenario(&json!([{ "owner": "acme", "permissions": {} }])));
    let token = token_at(&world, "acme").await;
    let grant = |permissions: Value| {
        let change = serde_json::from_value(json!({ "permissions": permissions })).unwrap();
        world.change_installation("acme", &change).unwrap();
    };
    let calls = [
        ("GET", RUNS, "actions=read", 200),
        ("GET", RUNNERS, "administration=read", 200),
        ("POST", MINT, "administration=write", 201),
        ("GET", GROUPS, "organization_self_hosted_runners=read", 200),
        ("POST", ORG_MINT, "organization_self_hosted_runners=write", 201),
    ];
    for (index, (method, path, need, status)) in calls.into_iter().enumerate() {
        let (permission, access) = need.split_once('=').unwrap();
        let body = if method == "POST" { mint(&format!("runner-{index}")) } else { Value::Null };
        let refused = with(&world, &token, method, path, &body).await;
        let message = refused.body["message"].as_str();
        assert_eq!((refused.status, message), (403, Some("Resource not accessible by integration")), "{path}");
        assert_eq!(refused.header("x-accepted-github-permissions"), Some(need));
        grant(json!({ permission: access }));
        assert_eq!(with(&world, &token, method, path, &body).await.status, status, "{path}");
        grant(json!({ permission: null }));
        assert_eq!(with(&world, &token, method, path, &body).await.status, 403, "{path}");
    }
    grant(json!({ "administration": "read" }));
    assert_eq!(with(&world, &token, "POST", MINT, &mint("runner-9")).await.status, 403, "to look is not to change");
    // Runs of public repositories are everybody's, and what a repository is needs nothing.
    assert_eq!(get(&world, &token, "/repos/acme/open/actions/runs").await.status, 200);
    assert_eq!(get(&world, &token, "/repos/acme/web").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_installation_sees_the_repositories_that_it_was_given() {
    let world = world(Profile::calm(), scenario(&json!([{ "owner": "Acme", "repos": ["acme/web"] }])));
    let token = token_at(&world, "Acme").await;
    let given = || async {
        let listed = get(&world, &token, "/installation/repositories").await.body;
        let names = listed["repositories"].as_array().unwrap().iter();
        let names: Vec<String> = names.map(|repo| repo["name"].as_str().unwrap().to_owned()).collect();
        (listed["repository_selection"].clone(), names)
    };
    assert_eq!(given().await, (json!("selected"), vec!["web".to_owned()]));
    assert_eq!(get(&world, &token, "/repos/acme/api").await.status, 404);
    assert_eq!(get(&world, &token, "/repos/acme/api/actions/runs").await.status, 404);
    let change = serde_json::from_value(json!({ "repos": ["acme/web", "acme/API"] })).unwrap();
    world.change_installation("acme", &change).unwrap();
    assert_eq!(given().await.1, ["web", "api"]);
    assert_eq!(get(&world, &token, "/repos/acme/api").await.status, 200);
    let change = serde_json::from_value(json!({ "repos": null })).unwrap();
    world.change_installation("acme", &change).unwrap();
    assert_eq!((given().await.0, given().await.1.len()), (json!("all"), 3));
    let repo = serde_json::from_value(json!({ "name": "acme/later" })).unwrap();
    world.add_repo(repo).unwrap();
    assert_eq!(given().await.1.len(), 4, "all are also those that come later");
}

#[tokio::test(start_paused = true)]
async fn the_quota_of_an_installation_grows_with_its_repositories() {
    let repos: Vec<Value> =
        (0..30).map(|n| json!({ "name": format!("acme/repo-{n}") })).chain([json!({ "name": "beta/api" })]).collect();
    let world = world(Profile::calm(), json!({ "repos": repos }));
    let mut limits = Vec::new();
    for (owner, path) in [("acme", "/repos/acme/repo-1"), ("beta", "/repos/beta/api")] {
        let token = token_at(&world, owner).await;
        let reply = get(&world, &token, path).await;
        limits.push(reply.header("x-ratelimit-limit").map(str::to_owned));
    }
    assert_eq!(limits, [Some("5500".to_owned()), Some("5000".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn tokens_end_at_once_or_in_their_time_and_others_go_on() {
    let world = world(Profile::calm(), json!({ "repos": [{ "name": "acme/web" }, { "name": "beta/api" }] }));
    let (acme, beta) = (token_at(&world, "acme").await, token_at(&world, "beta").await);
    let status = |token: &str, path: &'static str| {
        let (world, token) = (world.clone(), token.to_owned());
        async move { get(&world, &token, path).await.status }
    };
    world.end_app_tokens("ACME", 60.0).unwrap();
    assert_eq!(status(&acme, "/repos/acme/web").await, 200);
    world.clock().sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&acme, "/repos/acme/web").await, 401);
    assert_eq!(status(&beta, "/repos/beta/api").await, 200);
    world.revoke_token(&beta);
    assert_eq!(status(&beta, "/repos/beta/api").await, 401, "by its text as well");
    let (first, second) = (token_at(&world, "acme").await, token_at(&world, "acme").await);
    world.revoke_token_in(&first, 0.0);
    assert_eq!((status(&first, "/repos/acme/web").await, status(&second, "/repos/acme/web").await), (401, 200));
    world.revoke_app_tokens();
    assert_eq!(status(&second, "/repos/acme/web").await, 401);
}

#[tokio::test(start_paused = true)]
async fn a_personal_token_may_do_what_it_was_made_for_and_a_classic_one_states_its_scopes() {
    let permissions = [(Permission::Actions, Access::Read), (Permission::Administration, Access::Read)];
    let profile = Profile { personal_token_permissions: Some(permissions.into()), ..Profile::calm() };
    let world = world(profile, scenario(&json!([])));
    let token = "github_pat_1";
    assert_eq!(get(&world, token, RUNNERS).await.status, 200);
    assert_eq!(get(&world, token, "/repos/acme/web/actions/permissions").await.body["enabled"], true);
    let refused = with(&world, token, "POST", MINT, &mint("sr-main-gh-1-1")).await;
    let message = refused.body["message"].as_str().unwrap();
    assert_eq!((refused.status, message), (403, "Resource not accessible by personal access token"));
    assert_eq!(get(&world, token, GROUPS).await.status, 403);

    let scopes = async |token: &str| {
        let reply = get(&world, token, "/rate_limit").await;
        reply.headers.get("x-oauth-scopes").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!((scopes("ghp_1").await.as_deref(), scopes(token).await), (Some("admin:org, repo"), None));
}
