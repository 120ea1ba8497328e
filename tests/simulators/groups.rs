//! Runner groups: what they say of themselves, and whose jobs their runners take.

use std::time::Duration;

use sandrunner::sim::{Profile, World};
use serde_json::{Value, json};

use crate::github::{TOKEN, ask, config_of, get};
use crate::modal::Modal;
use crate::{job, world};

const GROUPS: &str = "/orgs/acme/actions/runner-groups";

/// A job in `acme/web`, a repository of somebody else's in the organization, and a runner group.
fn scenario(group: &Value) -> Value {
    let mut with_group = json!({ "id": 4, "name": "Modal" });
    with_group.as_object_mut().unwrap().extend(group.as_object().unwrap().clone());
    json!({
        "repos": [{ "name": "acme/web" }, { "name": "acme/open", "about": { "visibility": "public" } }],
        "organizations": [{ "name": "Acme", "groups": [{ "id": 1, "name": "Default" }, with_group] }],
        "jobs": [job(5_000_000_000, &["modal"])],
    })
}

/// Starts a runner of the group, and lets it wait.
async fn start_runner(world: &World) {
    let mut modal = Modal::connect(world).await;
    let body = json!({ "name": "sr-main-gh-5000000000-1", "runner_group_id": 4, "labels": ["modal"] });
    let minted = ask(world, "POST", "/orgs/acme/actions/runners/generate-jitconfig", &[TOKEN], &body).await;
    modal.create("sr-main-gh-5000000000-1", &config_of(&minted)).await.unwrap();
    world.clock().sleep(Duration::from_secs(20)).await;
}

fn change(world: &World, change: Value) {
    world.change_group("acme", 4, &serde_json::from_value(change).unwrap()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_group_says_whom_it_admits() {
    for (group, visibility, status) in [
        (json!({}), "all", 404),
        (json!({ "visibility": "private" }), "private", 404),
        (json!({ "repos": ["acme/web"] }), "selected", 200),
    ] {
        let world = world(Profile::calm(), scenario(&group));
        assert_eq!(get(&world, GROUPS).await.body["runner_groups"][1]["visibility"], visibility);
        assert_eq!(get(&world, &format!("{GROUPS}/4/repositories")).await.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_takes_a_job_as_soon_as_its_group_admits_it() {
    for open in [json!({ "repos": ["acme/web"] }), json!({ "visibility": "private" })] {
        let world = world(Profile::calm(), scenario(&json!({ "repos": [] })));
        start_runner(&world).await;
        assert_eq!(world.summary().jobs_in_progress, 0);
        change(&world, open.clone());
        world.clock().sleep(Duration::from_secs(2)).await;
        assert_eq!(world.summary().jobs_in_progress, 1, "{open}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_takes_a_job_as_soon_as_its_group_admits_its_workflow() {
    let other = json!(["acme/web/.github/workflows/deploy.yml@main"]);
    for open in [json!(["acme/web/.github/workflows/ci.yml@main"]), Value::Null] {
        let world = world(Profile::calm(), scenario(&json!({ "workflows": other })));
        start_runner(&world).await;
        assert_eq!(world.summary().jobs_in_progress, 0);
        change(&world, json!({ "workflows": open }));
        world.clock().sleep(Duration::from_secs(2)).await;
        assert_eq!(world.summary().jobs_in_progress, 1, "{open}");
        let listed = get(&world, GROUPS).await.body["runner_groups"][1].clone();
        let shown = (&listed["restricted_to_workflows"], &listed["selected_workflows"]);
        let is_kept = open.is_array();
        assert_eq!(shown, (&json!(is_kept), &if is_kept { open } else { json!([]) }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_public_repository_is_admitted_by_its_flag_or_when_it_is_public_no_longer() {
    let mut scenario = scenario(&json!({}));
    scenario["repos"][0]["about"] = json!({ "visibility": "public" });
    for step in [true, false] {
        let world = world(Profile::calm(), scenario.clone());
        start_runner(&world).await;
        assert_eq!(world.summary().jobs_in_progress, 0, "no group admits public repositories by itself");
        if step {
            change(&world, json!({ "public_repos": true }));
        } else {
            let change = serde_json::from_value(json!({ "visibility": "private" })).unwrap();
            world.change_repo("acme/web", &change).unwrap();
        }
        world.clock().sleep(Duration::from_secs(2)).await;
        assert_eq!(world.summary().jobs_in_progress, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_names_a_repository_under_its_new_name() {
    let world = world(Profile::calm(), scenario(&json!({ "repos": ["acme/web"] })));
    world.rename_repo("acme/web", "acme/site");
    let listed = get(&world, &format!("{GROUPS}/4/repositories")).await.body;
    assert_eq!(listed["repositories"][0]["full_name"], "acme/site");
}
