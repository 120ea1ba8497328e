//! Single calls of GitHub's that go wrong.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sandrunner::sim::{
    APP_ID, APP_KEY, Fault, FaultMode, FaultRequest, LimitKind, Operation, Profile, Service, What, World,
};
use serde_json::{Value, json};

use super::{once, pass, strikes};
use crate::github::{JOBS, RUNNERS, RUNS, TOKEN, ask, delete_runner, get, get_known, mint, try_ask};
use crate::modal::Modal;
use crate::{PLAIN, job, jobs, start, world};

/// A token that the App of the World signs, and one of its installation.
async fn app_tokens(world: &World) -> (String, String) {
    let now = world.clock().now().timestamp();
    let claims = json!({ "iss": APP_ID, "iat": now - 60, "exp": now + 540 });
    let key = EncodingKey::from_rsa_pem(APP_KEY.as_bytes()).unwrap();
    let of_app = format!("Bearer {}", jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap());
    let headers = [("authorization", of_app.as_str())];
    let all = ask(world, "GET", "/app/installations", &headers, &Value::Null).await.body;
    let path = format!("/app/installations/{}/access_tokens", all[0]["id"]);
    let given = ask(world, "POST", &path, &headers, &json!({})).await.body;
    let of_installation = format!("Bearer {}", given["token"].as_str().unwrap());
    (of_app, of_installation)
}

/// Asks for a call of an operation, on a page after the first where there are pages.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is no call of GitHub's is not asked for")]
async fn call(
    world: &World,
    operation: Operation,
    etag: Option<&str>,
    (of_app, of_installation): &(String, String),
) -> Result<(), axum::Error> {
    let token = match operation {
        Operation::GetApp | Operation::ListInstallations | Operation::InstallationToken => {
            ("authorization", of_app.as_str())
        }
        Operation::ListInstallationRepos => ("authorization", of_installation.as_str()),
        _ => TOKEN,
    };
    let mut headers = vec![token];
    headers.extend(etag.map(|etag| ("if-none-match", etag)));
    let repo = "/repos/acme/web";
    let config = json!({ "name": "sr-main-gh-7-1", "runner_group_id": 1, "labels": PLAIN });
    let (method, path, body) = match operation {
        Operation::ListRuns => ("GET", format!("{RUNS}?page=2"), Value::Null),
        Operation::GetRun => ("GET", format!("{RUNS}/6000000000"), Value::Null),
        Operation::ListJobs => ("GET", format!("{JOBS}&page=2"), Value::Null),
        Operation::GetJob => ("GET", format!("{repo}/actions/jobs/5000000000"), Value::Null),
        Operation::GetRepo => ("GET", repo.to_owned(), Value::Null),
        Operation::GetActionsPermissions => ("GET", format!("{repo}/actions/permissions"), Value::Null),
        Operation::GetApp => ("GET", "/app".to_owned(), Value::Null),
        Operation::ListRunners => ("GET", format!("{RUNNERS}?page=2"), Value::Null),
        Operation::GetRunner => ("GET", format!("{RUNNERS}/1"), Value::Null),
        Operation::DeleteRunner => ("DELETE", format!("{RUNNERS}/1"), Value::Null),
        Operation::Mint => ("POST", format!("{RUNNERS}/generate-jitconfig"), config),
        Operation::Downloads => ("GET", format!("{RUNNERS}/downloads"), Value::Null),
        Operation::Deprecation => ("GET", format!("{RUNNERS}/deprecations/2.336.0"), Value::Null),
        Operation::ListInstallations => ("GET", "/app/installations?page=2".to_owned(), Value::Null),
        Operation::InstallationToken => ("POST", "/app/installations/1/access_tokens".to_owned(), Value::Null),
        Operation::ListInstallationRepos => ("GET", "/installation/repositories?page=2".to_owned(), Value::Null),
        Operation::ListOrgRepos => ("GET", "/orgs/acme/repos?page=2".to_owned(), Value::Null),
        Operation::ListGroups => ("GET", "/orgs/acme/actions/runner-groups?page=2".to_owned(), Value::Null),
        Operation::ListGroupRepos => {
            ("GET", "/orgs/acme/actions/runner-groups/4/repositories?page=2".to_owned(), Value::Null)
        }
        Operation::RateLimit => ("GET", "/rate_limit".to_owned(), Value::Null),
        _ => ("GET", "/unknown".to_owned(), Value::Null),
    };
    try_ask(world, method, &path, &headers, &body).await.map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn every_mode_strikes_at_every_call_of_github_that_it_applies_to() {
    let is_called = |operation: Operation| operation.is_call() && operation.service() == Some(Service::Github);
    let pairs: BTreeSet<(Operation, FaultMode)> =
        Fault::pairs().filter(|(operation, _)| is_called(*operation)).collect();
    assert!(pairs.len() > 200, "{}", pairs.len());
    let mut struck = BTreeSet::new();
    for (operation, mode) in &pairs {
        // One runner works; lists have more than one page.
        let mut scenario = jobs(3);
        let groups =
            json!([{ "id": 1, "name": "Default" }, { "id": 4, "name": "gpu", "repos": ["acme/web", "acme/api"] }]);
        scenario["repos"] = json!([{ "name": "acme/web" }, { "name": "acme/api" }]);
        scenario["organizations"] = json!([{ "name": "acme", "groups": groups }]);
        let world = world(Profile { github_list_page: 1, ..Profile::calm() }, scenario);
        let mut modal = Modal::connect(&world).await;
        start(&world, &mut modal, 1, &PLAIN).await;
        pass(&world, 10.0).await;
        let tokens = app_tokens(&world).await;
        once(&world, *operation, *mode);
        let is_conditional = *mode == FaultMode::WrongNotModified;
        let _cut = call(&world, *operation, is_conditional.then_some("W/\"old\""), &tokens).await;
        struck.extend(strikes(&world));
    }
    assert_eq!(pairs.difference(&struck).collect::<Vec<_>>(), [&(Operation::Mint, FaultMode::Error); 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_gives_no_answer_and_may_have_been_too_late() {
    let world = world(Profile::calm(), jobs(0));
    let post = |name: &str| {
        let body = json!({ "name": name, "runner_group_id": 1, "labels": PLAIN });
        let world = world.clone();
        async move { try_ask(&world, "POST", &format!("{RUNNERS}/generate-jitconfig"), &[TOKEN], &body).await }
    };
    once(&world, Operation::Mint, FaultMode::Cut);
    once(&world, Operation::Mint, FaultMode::CutAfter);
    assert!(post("sr-main-gh-1-1").await.is_err());
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    assert!(post("sr-main-gh-1-1").await.is_err());
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1);
    world.add_fault(Fault { seconds: Some(45.0), ..Fault::new(Operation::ListRuns, FaultMode::Silent) }).unwrap();
    let before = world.clock().now();
    assert!(try_ask(&world, "GET", RUNS, &[TOKEN], &Value::Null).await.is_err());
    assert_eq!((world.clock().now() - before).num_seconds(), 45);
    let statuses: Vec<u16> = world
        .history(0)
        .into_iter()
        .filter_map(|event| if let What::Call { status, .. } = event.what { Some(status) } else { None })
        .collect();
    assert_eq!(statuses, [0, 200, 0, 200, 0]);
}

#[tokio::test]
async fn over_tcp_the_connection_is_closed_without_an_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = world(Profile::calm(), jobs(0));
    world.add_fault("github_partition").unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let servers = sandrunner::sim::serve(world, free, free).await.unwrap();
    let mut connection = tokio::net::TcpStream::connect(servers.github()).await.unwrap();
    let request = format!("GET {RUNS} HTTP/1.1\r\nhost: x\r\nuser-agent: test\r\nauthorization: Bearer t\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _reset = connection.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_late_answers_take_their_time() {
    let world = world(Profile::calm(), jobs(0));
    world.add_fault(FaultRequest { rate: Some(1.0), ..FaultRequest::from("github_slow") }).unwrap();
    let before = world.clock().now();
    assert_eq!(get(&world, RUNS).await.status, 200);
    assert_eq!((world.clock().now() - before).num_seconds(), 60);
    world.clear_faults();
    world.add_fault("github_blackhole").unwrap();
    assert!(try_ask(&world, "GET", RUNS, &[TOKEN], &Value::Null).await.is_err());
}

/// Status, `retry-after`, what remains, and whether there is any header of the limit.
async fn limited(world: &World) -> (u16, Option<String>, Option<String>, bool) {
    let reply = get(world, RUNS).await;
    let header = |name| reply.header(name).map(str::to_owned);
    let has_headers = reply.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit"));
    (reply.status, header("retry-after"), header("x-ratelimit-remaining"), has_headers)
}

#[tokio::test(start_paused = true)]
async fn every_form_of_limit_is_told_in_its_own_way_and_lasts() {
    let remaining = Some("5000".to_owned());
    let wait = |secs: u32| Some(secs.to_string());
    for (name, secs, first, then) in [
        ("secondary_limit_403", 60.0, (403, wait(60), remaining.clone(), true), (403, wait(51))),
        ("secondary_limit_429", 60.0, (429, wait(60), remaining.clone(), true), (429, wait(51))),
        ("secondary_limit_bare", 60.0, (403, None, remaining.clone(), true), (403, None)),
        ("secondary_limit_bare_429", 60.0, (429, None, remaining, true), (429, None)),
        ("primary_limit_403", 600.0, (403, None, wait(0), true), (403, None)),
        ("primary_limit_429", 600.0, (429, None, wait(0), true), (429, None)),
        ("primary_limit_retry_after", 600.0, (403, wait(600), wait(0), true), (403, wait(591))),
        ("primary_limit_retry_after_429", 600.0, (429, wait(600), wait(0), true), (429, wait(591))),
        ("primary_limit_bare", 600.0, (403, None, None, false), (403, None)),
        ("primary_limit_bare_429", 600.0, (429, None, None, false), (429, None)),
    ] {
        let world = world(Profile { read_latency_secs: 0.02, ..Profile::calm() }, jobs(0));
        world.add_fault(name).unwrap();
        let told = limited(&world).await;
        assert_eq!(told, first, "{name}");
        let reset = get(&world, "/rate_limit").await;
        let is_primary = name.starts_with("primary");
        assert_eq!(reset.status == 200, is_primary, "{name}: the state of the limits can be asked for");
        pass(&world, 10.0).await;
        let (status, retry_after, ..) = limited(&world).await;
        assert_eq!(status, then.0, "{name}");
        assert_eq!(retry_after.is_some(), then.1.is_some(), "{name}");
        pass(&world, secs - 9.0).await;
        assert_eq!(limited(&world).await.0, 200, "{name}");
        let kinds: Vec<LimitKind> = world
            .history(0)
            .into_iter()
            .filter_map(|event| if let What::Call { limited, .. } = event.what { limited } else { None })
            .collect();
        let kept = match (name.contains("bare"), is_primary) {
            (true, _) => LimitKind::Injected,
            (false, true) => LimitKind::Primary,
            (false, false) => LimitKind::Secondary,
        };
        assert_eq!((kinds.first(), kinds.last()), (Some(&LimitKind::Injected), Some(&kept)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_reset_of_a_primary_limit_is_stated_and_true() {
    let world = world(Profile::calm(), jobs(0));
    world.add_fault("primary_limit_403").unwrap();
    let reply = get(&world, RUNS).await;
    let reset: i64 = reply.header("x-ratelimit-reset").unwrap().parse().unwrap();
    let left = reset - world.clock().now().timestamp();
    assert!((598..=601).contains(&left), "{left} s");
}

#[tokio::test(start_paused = true)]
async fn refusals_come_in_githubs_words_and_change_nothing() {
    let world = world(Profile::calm(), jobs(0));
    for (name, status, words) in [
        ("mint_403", 403, "Resource not accessible by personal access token"),
        ("mint_404", 404, "Not Found"),
        ("mint_409", 409, "Already exists - A runner with the name sr-main-gh-1-1 already exists."),
        ("mint_422", 422, "Invalid request."),
        ("actions_disabled", 403, "Repository level self-hosted runners are disabled on this repository."),
        ("token_rejected", 401, "Bad credentials"),
        ("token_revoked", 401, "Bad credentials"),
        ("repo_not_found", 404, "Not Found"),
        ("repo_moved", 301, "Moved Permanently"),
        ("repo_blocked", 451, "Repository access blocked"),
    ] {
        world.add_fault(name).unwrap();
        let refused = mint(&world, "sr-main-gh-1-1", &PLAIN).await;
        assert_eq!((refused.status, refused.body["message"].as_str()), (status, Some(words)), "{name}");
        world.clear_faults();
    }
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    world.add_fault("actions_disabled").unwrap();
    assert_eq!(get(&world, RUNS).await.body["message"], "GitHub Actions is disabled on this repository.");
    world.clear_faults();
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.status, 201);
    world.add_fault("delete_422").unwrap();
    assert_eq!(delete_runner(&world, &json!(1)).await, 422);
    world.clear_faults();
    assert_eq!(delete_runner(&world, &json!(1)).await, 204);
}

#[tokio::test(start_paused = true)]
async fn a_304_may_hide_a_change_or_answer_a_request_that_knows_nothing() {
    let world = world(Profile::calm(), jobs(0));
    let etag = get(&world, RUNS).await.header("etag").unwrap().to_owned();
    world.add_jobs(vec![serde_json::from_value(job(5_000_000_000, &PLAIN)).unwrap()]).unwrap();
    once(&world, Operation::ListRuns, FaultMode::WrongNotModified);
    assert_eq!(get(&world, RUNS).await.status, 200, "only a request with an ETag is struck");
    let hidden = get_known(&world, RUNS, &etag).await;
    assert_eq!((hidden.status, &hidden.body), (304, &Value::Null));
    assert_eq!(get_known(&world, RUNS, &etag).await.body["total_count"], 1);
    once(&world, Operation::ListRuns, FaultMode::BareNotModified);
    assert_eq!(get_known(&world, RUNS, &etag).await.status, 200, "only a request without an ETag is struck");
    assert_eq!(get(&world, RUNS).await.status, 304);
}

#[tokio::test(start_paused = true)]
async fn bodies_may_be_cut_replaced_or_from_the_future() {
    let world = world(Profile::calm(), jobs(2));
    once(&world, Operation::ListJobs, FaultMode::Truncated);
    assert_eq!(get(&world, JOBS).await.body, Value::Null, "half of a body is no JSON");
    once(&world, Operation::ListJobs, FaultMode::Malformed);
    let page = get(&world, JOBS).await;
    assert_eq!((page.status, page.body), (200, Value::Null));
    once(&world, Operation::ListJobs, FaultMode::Unfamiliar);
    let listed = get(&world, JOBS).await.body;
    let statuses: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(|job| job["status"].as_str()).collect();
    assert_eq!(statuses, [Some("hibernating"), Some("queued")]);
    assert!(listed["x_novelty"].is_object() && listed["jobs"][1]["x_novelty"].is_object());
    assert_eq!(listed["jobs"][1]["head_branch"], Value::Null);
    once(&world, Operation::Mint, FaultMode::Malformed);
    assert_eq!(mint(&world, "sr-main-gh-1-1", &PLAIN).await.body, Value::Null);
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 1, "what was answered badly was done");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_may_be_done_although_its_answer_is_lost_or_wrong() {
    let world = world(Profile::calm(), jobs(0));
    for name in ["delete_reply_lost", "delete_applied_late", "delete_reply_cut"] {
        let runner = mint(&world, &format!("sr-main-gh-1-{}", name.len()), &PLAIN).await.body["runner"]["id"].clone();
        world.add_fault(FaultRequest { times: Some(1), ..FaultRequest::from(name) }).unwrap();
        let path = format!("{RUNNERS}/{runner}");
        let answer = try_ask(&world, "DELETE", &path, &[TOKEN], &Value::Null).await;
        assert_eq!(answer.ok().map(|reply| reply.status), (name != "delete_reply_cut").then_some(502), "{name}");
        pass(&world, 21.0).await;
        assert_eq!(ask(&world, "GET", &path, &[TOKEN], &Value::Null).await.status, 404, "{name}");
    }
}
