//! What owners and GitHub itself change, by the control interface.

use sandrunner::sim::{Profile, What, World};
use serde_json::{Value, json};

use crate::github::{RUNS, TOKEN, ask, get};
use crate::{job, jobs, world};

/// Status and message of the answer to a call of the control interface.
async fn told(world: &World, method: &str, path: &str, body: &Value) -> (u16, String) {
    let reply = ask(world, method, path, &[], body).await;
    (reply.status, reply.body["message"].as_str().unwrap_or_default().to_owned())
}

async fn shown(world: &World, path: &str) -> Value {
    let reply = ask(world, "GET", path, &[], &Value::Null).await;
    assert_eq!(reply.status, 200, "{path}");
    reply.body
}

fn scenario() -> Value {
    json!({
        "repos": [{ "name": "Acme/web" }, { "name": "acme/api" }, { "name": "beta/tool" }],
        "organizations": [{ "name": "acme", "groups": [{ "id": 1, "name": "Default" }, { "id": 4, "name": "Modal" }] }],
    })
}

const DONE: (u16, &str) = (204, "");

fn is(answer: &(u16, String), expected: (u16, &str)) {
    assert_eq!((answer.0, answer.1.as_str()), expected);
}

#[tokio::test(start_paused = true)]
async fn repositories_are_added_and_changed() {
    let world = world(Profile::calm(), scenario());
    let new = json!({ "name": "acme/new", "about": { "visibility": "public" } });
    is(&told(&world, "POST", "/_sim/repos", &new).await, DONE);
    is(&told(&world, "POST", "/_sim/repos", &new).await, (422, "there already is the repository `acme/new`"));
    assert_eq!(told(&world, "POST", "/_sim/repos", &json!({ "name": "new" })).await.0, 422);
    let visibility = async |repo: &str| get(&world, &format!("/repos/{repo}")).await.body["visibility"].clone();
    assert_eq!(visibility("acme/new").await, "public");
    for (change, field, value) in [
        (json!({ "visibility": "internal" }), "visibility", json!("internal")),
        (json!({ "archived": true }), "archived", json!(true)),
        (json!({ "archived": false, "disabled": true }), "disabled", json!(true)),
    ] {
        is(&told(&world, "PATCH", "/_sim/repos/acme/web", &change).await, DONE);
        assert_eq!(get(&world, "/repos/acme/web").await.body[field], value);
    }
    assert_eq!(get(&world, "/repos/acme/web").await.body["archived"], false);
    is(&told(&world, "PATCH", "/_sim/repos/acme/web", &json!({ "name": "acme/site" })).await, DONE);
    assert_eq!((get(&world, "/repos/acme/web").await.status, get(&world, "/repos/acme/site").await.status), (301, 200));
    let taken = told(&world, "PATCH", "/_sim/repos/acme/site", &json!({ "name": "ACME/api" })).await;
    is(&taken, (422, "there already is the repository `ACME/api`"));
    for (deleted, status) in [(true, 404), (false, 200)] {
        is(&told(&world, "PATCH", "/_sim/repos/acme/api", &json!({ "deleted": deleted })).await, DONE);
        assert_eq!(get(&world, "/repos/acme/api").await.status, status);
    }
    let repos = shown(&world, "/_sim/repos").await;
    assert_eq!(
        repos[0],
        json!({ "name": "acme/site", "visibility": "internal", "archived": false, "disabled": true, "fork": false,
            "deleted": false, "former_names": ["acme/web"] })
    );
    assert_eq!(repos.as_array().unwrap().len(), 4, "an organization is none");
}

#[tokio::test(start_paused = true)]
async fn installations_are_suspended_changed_removed_and_come_back() {
    let world = world(Profile::calm(), scenario());
    let at = async |index: usize| shown(&world, "/_sim/installations").await[index].clone();
    let first = at(0).await;
    assert_eq!(
        (&first["owner"], &first["repos"], &first["suspended_at"]),
        (&json!("Acme"), &Value::Null, &Value::Null)
    );
    let permissions =
        json!({ "actions": "read", "administration": "write", "organization_self_hosted_runners": "write" });
    assert_eq!(first["permissions"], permissions);
    let change = async |body: Value| told(&world, "PATCH", "/_sim/installations/acme", &body).await;
    is(&change(json!({ "suspended": true })).await, DONE);
    assert!(at(0).await["suspended_at"].is_string());
    is(
        &change(json!({ "suspended": false, "repos": ["acme/web"], "permissions": { "administration": null } })).await,
        DONE,
    );
    let changed = at(0).await;
    assert_eq!((&changed["suspended_at"], &changed["repos"]), (&Value::Null, &json!(["Acme/web"])));
    assert_eq!(changed["permissions"]["administration"], Value::Null);
    is(&change(json!({ "repos": ["beta/tool"] })).await, (422, "the App at acme: beta/tool is not of acme"));
    let unknown = "there is no repository `acme/x`; there is `Acme/web`, `acme/api`, `beta/tool`";
    is(&change(json!({ "suspended": true, "repos": ["acme/x"] })).await, (404, unknown));
    assert_eq!(at(0).await["suspended_at"], Value::Null, "of a change that is refused nothing is made");
    let (status, message) = change(json!({ "permissions": { "admin": "read" } })).await;
    assert!(status == 422 && message.contains("unknown variant `admin`"), "{message}");
    is(&told(&world, "DELETE", "/_sim/installations/acme", &Value::Null).await, DONE);
    let gone = told(&world, "DELETE", "/_sim/installations/acme", &Value::Null).await;
    is(&gone, (404, "there is no installation of the App at `acme`; there is `beta`"));
    is(&told(&world, "POST", "/_sim/installations", &json!({ "owner": "acme" })).await, DONE);
    is(
        &told(&world, "POST", "/_sim/installations", &json!({ "owner": "ACME" })).await,
        (422, "there already is the installation of the App at `ACME`"),
    );
    assert_ne!(at(1).await["id"], first["id"], "anew is with another id");
    is(&told(&world, "POST", "/_sim/revoke", &json!({ "owner": "acme", "in_secs": 5 })).await, DONE);
    let both = told(&world, "POST", "/_sim/revoke", &json!({ "owner": "acme", "token": "t" })).await;
    assert!(both.0 == 422 && both.1.contains("`token`"), "{}", both.1);
    assert_eq!(told(&world, "POST", "/_sim/revoke", &json!({ "token": "t", "in_secs": -1 })).await.0, 422);
}

#[tokio::test(start_paused = true)]
async fn a_personal_token_may_end_in_its_time() {
    let world = world(Profile::calm(), jobs(0));
    is(&told(&world, "POST", "/_sim/revoke", &json!({ "token": "ghp_test", "in_secs": 30 })).await, DONE);
    assert_eq!(ask(&world, "GET", RUNS, &[TOKEN], &Value::Null).await.status, 200);
    world.clock().sleep(std::time::Duration::from_secs(30)).await;
    assert_eq!(ask(&world, "GET", RUNS, &[TOKEN], &Value::Null).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn runner_groups_are_changed() {
    let world = world(Profile::calm(), scenario());
    let path = "/_sim/organizations/ACME/groups/4";
    let change = async |body: Value| told(&world, "PATCH", path, &body).await;
    let group = async || shown(&world, "/_sim/organizations").await[0]["groups"][1].clone();
    is(&change(json!({ "repos": ["acme/web"], "public_repos": true, "name": "GPUs" })).await, DONE);
    let mut expected = json!({ "id": 4, "name": "GPUs", "visibility": "selected", "repos": ["acme/web"],
        "public_repos": true, "workflows": null });
    assert_eq!(group().await, expected);
    for workflows in [json!(["acme/web/.github/workflows/ci.yml@main"]), json!([]), Value::Null] {
        is(&change(json!({ "workflows": workflows })).await, DONE);
        expected["workflows"] = workflows;
        assert_eq!(group().await, expected);
    }
    is(&change(json!({ "visibility": "all" })).await, DONE);
    assert_eq!((&group().await["visibility"], &group().await["repos"]), (&json!("all"), &Value::Null));
    is(&change(json!({ "visibility": "selected" })).await, (422, "runner group 4 of ACME: `selected` needs `repos`"));
    is(
        &change(json!({ "visibility": "private", "repos": ["acme/web"] })).await,
        (422, "runner group 4 of ACME: `repos` are stated for `selected` only"),
    );
    assert_eq!(change(json!({ "repos": ["acme/none"] })).await.0, 404);
    let other = told(&world, "PATCH", "/_sim/organizations/acme/groups/9", &json!({})).await;
    is(&other, (404, "there is no runner group `9`; there is `1`, `4`"));
    let other = told(&world, "PATCH", "/_sim/organizations/beta/groups/4", &json!({})).await;
    is(&other, (404, "there is no organization with runner groups `beta`; there is `acme`"));
}

#[tokio::test(start_paused = true)]
async fn releases_are_published_and_refused() {
    let world = world(Profile::calm(), scenario());
    is(&told(&world, "POST", "/_sim/releases", &json!({ "version": "2.340.0" })).await, DONE);
    is(&told(&world, "PATCH", "/_sim/releases/2.336.0", &json!({ "refused_in_secs": 0 })).await, DONE);
    let releases = shown(&world, "/_sim/releases").await;
    assert_eq!(releases["offered"], "2.340.0");
    let refused: Vec<_> =
        releases["releases"].as_array().unwrap().iter().map(|one| one["refused_at"].is_string()).collect();
    assert_eq!(refused, [true, false]);
    let older = told(&world, "POST", "/_sim/releases", &json!({ "version": "2.339.0" })).await;
    is(&older, (422, "release `2.339.0` of the runner: it must be newer than all others"));
    assert_eq!(told(&world, "PATCH", "/_sim/releases/1.0.0", &json!({ "refused_in_secs": 0 })).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn runs_are_run_again() {
    let scenario = json!({ "repos": [{ "name": "acme/web" }], "jobs": [job(5_000_000_000, &["ubuntu-latest"])] });
    let world = world(Profile::calm(), scenario);
    let rerun = json!({ "run": 6_000_000_000_u64, "jobs": "all" });
    is(&told(&world, "POST", "/_sim/reruns", &rerun).await, (422, "run 6000000000: it has not completed"));
    world.clock().sleep(std::time::Duration::from_secs(100)).await;
    let reply = ask(&world, "POST", "/_sim/reruns", &[], &rerun).await;
    assert_eq!((reply.status, &reply.body["attempt"]), (200, &json!(2)));
    assert_eq!(get(&world, RUNS).await.body["workflow_runs"][0]["run_attempt"], 2);
    let unknown = told(&world, "POST", "/_sim/reruns", &json!({ "run": 7, "jobs": "failed" })).await;
    is(&unknown, (404, "there is no run `7`; there is `6000000000`"));
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_and_paths_are_refused_and_changes_are_in_the_history() {
    let world = world(Profile::calm(), scenario());
    for (method, path) in [
        ("POST", "/_sim/repos"),
        ("PATCH", "/_sim/repos/acme/web"),
        ("POST", "/_sim/installations"),
        ("PATCH", "/_sim/installations/acme"),
        ("PATCH", "/_sim/organizations/acme/groups/4"),
        ("POST", "/_sim/releases"),
        ("PATCH", "/_sim/releases/2.336.0"),
        ("POST", "/_sim/reruns"),
        ("POST", "/_sim/revoke"),
    ] {
        let (status, message) = told(&world, method, path, &json!({ "archive": true })).await;
        assert!(status == 422 && message.contains("unknown field `archive`"), "{method} {path}: {message}");
    }
    is(&told(&world, "GET", "/_sim/repo", &Value::Null).await, (404, "the control interface has no `/_sim/repo`"));
    assert_eq!(told(&world, "DELETE", "/_sim/repos", &Value::Null).await.0, 405);
    let before = world.history(0).len();
    is(&told(&world, "PATCH", "/_sim/repos/acme/web", &json!({ "archived": true, "deleted": true })).await, DONE);
    is(&told(&world, "PATCH", "/_sim/installations/acme", &json!({ "suspended": true })).await, DONE);
    let changes = world.history(u64::try_from(before).unwrap()).into_iter().map(|event| {
        let What::SettingChanged { subject, setting, value } = event.what else { panic!("{event:?}") };
        format!("{subject} {setting} {value}")
    });
    let about = r#"acme/web about {"archived":true,"disabled":false,"fork":false,"visibility":"private"}"#;
    assert_eq!(changes.collect::<Vec<_>>(), [about, "acme/web deleted true", "the App at acme suspended true"]);
}
