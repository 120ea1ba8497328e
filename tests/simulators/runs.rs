//! Runs: of forks, run again, and with a limit to their jobs.

use std::time::Duration;

use sandrunner::sim::{Profile, Rerun, World};
use serde_json::{Value, json};

use crate::github::{JOBS, RUNS, get, ids};
use crate::{job, jobs, world};

const RUN: u64 = 6_000_000_000;

async fn pass(world: &World, secs: u64) {
    world.clock().sleep(Duration::from_secs(secs)).await;
}

/// Statuses and attempts of the jobs of the run, in the order of the list.
async fn listed(world: &World, query: &str) -> Vec<(String, u64)> {
    let body = get(world, &format!("{JOBS}{query}")).await.body;
    let told = |job: &Value| (job["status"].as_str().unwrap().to_owned(), job["run_attempt"].as_u64().unwrap());
    body["jobs"].as_array().unwrap().iter().map(told).collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_fork_names_it_until_it_is_gone() {
    for (run, head) in [
        (json!({ "id": RUN }), Some("acme/web")),
        (json!({ "id": RUN, "fork": true }), Some("stranger/web")),
        (json!({ "id": RUN, "fork": true, "fork_gone": true }), None),
    ] {
        let is_of_fork = run["fork"] == true;
        let mut scenario = jobs(1);
        scenario["runs"] = json!([run]);
        let world = world(Profile::calm(), scenario);
        let run = get(&world, RUNS).await.body["workflow_runs"][0].clone();
        assert_eq!(run["head_repository"]["full_name"].as_str(), head);
        assert_eq!(run["repository"]["full_name"], "acme/web");
        assert_eq!(run["event"], if is_of_fork { "pull_request" } else { "push" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_changes_changes_in_its_runs_as_well() {
    let world = world(Profile::calm(), jobs(1));
    let is_private = || async { get(&world, RUNS).await.body["workflow_runs"][0]["repository"]["private"].clone() };
    assert_eq!(is_private().await, true);
    let change = serde_json::from_value(json!({ "visibility": "public" })).unwrap();
    world.change_repo("acme/web", &change).unwrap();
    assert_eq!(is_private().await, false);
}

/// A run of GitHub's own runners, with a job that fails and one that does not, and a newer run above it.
async fn completed() -> World {
    let hosted = |id: u64| job(id, &["ubuntu-latest"]);
    let mut failing = hosted(5_000_000_001);
    failing["conclusion"] = json!("failure");
    let mut newer = hosted(5_000_000_002);
    (newer["run"], newer["arrival_secs"]) = (json!(RUN + 1), json!(10));
    let scenario = json!({ "repos": [{ "name": "acme/web" }], "jobs": [hosted(5_000_000_000), failing, newer] });
    let world = world(Profile::calm(), scenario);
    pass(&world, 100).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_run_again_keeps_its_id_and_place_and_gets_new_jobs() {
    let world = completed().await;
    let before = get(&world, RUNS).await.body["workflow_runs"][1].clone();
    assert_eq!(
        (&before["id"], &before["status"], &before["run_attempt"]),
        (&json!(RUN), &json!("completed"), &json!(1))
    );
    assert_eq!(world.rerun(RUN, Rerun::All).unwrap(), 2);
    let list = get(&world, RUNS).await;
    assert_eq!(ids(&list, "workflow_runs"), [RUN + 1, RUN], "it does not move");
    let after = list.body["workflow_runs"][1].clone();
    assert_eq!((&after["status"], &after["run_attempt"]), (&json!("queued"), &json!(2)));
    assert_eq!(after["created_at"], before["created_at"]);
    assert_ne!(after["run_started_at"], before["run_started_at"]);
    assert!(after["previous_attempt_url"].as_str().unwrap().ends_with(&format!("/runs/{RUN}/attempts/1")));
    let both = |status: &str, attempt| [(status.to_owned(), attempt), (status.to_owned(), attempt)];
    assert_eq!(listed(&world, "").await, both("queued", 2));
    assert_eq!(listed(&world, "&filter=all").await, [both("completed", 1), both("queued", 2)].concat());
    let all = ids(&get(&world, &format!("{JOBS}&filter=all")).await, "jobs");
    assert_eq!(all, [5_000_000_000, 5_000_000_001, 5_000_000_003, 5_000_000_004]);
    pass(&world, 100).await;
    assert_eq!(listed(&world, "").await, both("completed", 2));
    assert_eq!(world.report().jobs_completed, 0, "GitHub's own runners are not ours");
}

#[tokio::test(start_paused = true)]
async fn where_failed_jobs_are_run_again_the_others_are_listed_again_under_new_ids() {
    let world = completed().await;
    assert_eq!(world.rerun(RUN, Rerun::Failed).unwrap(), 2);
    let list = get(&world, JOBS).await;
    let told = list.body["jobs"].as_array().unwrap().iter();
    let told: Vec<_> = told.map(|job| (job["id"].as_u64().unwrap(), &job["status"], &job["conclusion"])).collect();
    assert_eq!(
        told,
        [(5_000_000_004, &json!("queued"), &Value::Null), (5_000_000_003, &json!("completed"), &json!("success")),]
    );
    pass(&world, 100).await;
    let run = get(&world, RUNS).await.body["workflow_runs"][1].clone();
    assert_eq!(
        (&run["status"], &run["conclusion"], &run["run_attempt"]),
        (&json!("completed"), &json!("failure"), &json!(2))
    );
    assert_eq!(world.rerun(RUN, Rerun::Failed).unwrap(), 3, "and again");
    assert_eq!(listed(&world, "").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_run_again_only_when_it_has_completed_and_within_thirty_days() {
    let world = completed().await;
    let refused = |run, which| world.rerun(run, which).unwrap_err().to_string();
    assert_eq!(refused(RUN + 1, Rerun::Failed), "run 6000000001: none of its jobs has failed");
    assert_eq!(refused(9, Rerun::All), "there is no run `9`; there is `6000000000`, `6000000001`");
    world.rerun(RUN, Rerun::All).unwrap();
    assert_eq!(refused(RUN, Rerun::All), "run 6000000000: it has not completed");
    world.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(refused(RUN, Rerun::All), "run 6000000000: it is more than 30 days old");
}

#[tokio::test(start_paused = true)]
async fn jobs_beyond_max_parallel_may_be_listed_only_when_they_may_run() {
    let hosted: Vec<Value> = (0..3).map(|n| job(5_000_000_000 + n, &["ubuntu-latest"])).collect();
    let runs = json!([{ "id": RUN, "max_parallel": 1, "beyond_limit": "unlisted" }]);
    let world = world(Profile::calm(), json!({ "repos": [{ "name": "acme/web" }], "jobs": hosted, "runs": runs }));
    let status = || async { get(&world, RUNS).await.body["workflow_runs"][0]["status"].clone() };
    for done in 0..3 {
        let statuses: Vec<String> = listed(&world, "").await.into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [vec!["completed"; done], vec!["queued"]].concat());
        assert_eq!(status().await, "queued");
        pass(&world, 4).await;
        assert_eq!(status().await, "in_progress");
        pass(&world, 59).await;
    }
    assert_eq!((status().await, world.summary().jobs_completed), (json!("completed"), 3));
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_not_played_is_refused_rather_than_passed_over() {
    let world = world(Profile::calm(), jobs(1));
    let refused = get(&world, &format!("{RUNS}?created=%3E2026-01-01")).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body["message"].as_str().unwrap().contains("`created`"), "{}", refused.body);
}
