//! Lists that are not what is.

use sandrunner::sim::{Fault, FaultMode, Operation, Profile, World};
use serde_json::{Value, json};

use super::{once, pass, strikes};
use crate::github::{JOBS, RUNNERS, RUNS, Reply, get, ids, mint};
use crate::modal::Modal;
use crate::{PLAIN, jobs, start, world};

/// A World with five runs of a job each, and five runners.
async fn five() -> World {
    let job = |n: u64| {
        json!({ "id": 5_000_000_000 + n, "run": 6_000_000_000 + n, "repo": "acme/web", "labels": PLAIN,
            "duration_secs": 60 })
    };
    let mut all: Vec<Value> = (0..5).map(job).collect();
    // The first run has five jobs of its own.
    all.extend((10..14).map(|n| {
        let mut more = job(n);
        more["run"] = json!(6_000_000_000_u64);
        more
    }));
    let profile = Profile { github_list_page: 2, ..Profile::calm() };
    let world = world(profile, json!({ "repos": [{ "name": "acme/web" }], "jobs": all }));
    for n in 0..5 {
        mint(&world, &format!("sr-main-gh-{n}-1"), &["other"]).await;
    }
    world
}

const LISTS: [(Operation, &str, &str); 3] = [
    (Operation::ListRuns, RUNS, "workflow_runs"),
    (Operation::ListJobs, JOBS, "jobs"),
    (Operation::ListRunners, RUNNERS, "runners"),
];

/// A page of a list.
async fn page(world: &World, path: &str, key: &str, number: u32) -> Vec<u64> {
    let joint = if path.contains('?') { '&' } else { '?' };
    ids(&get(world, &format!("{path}{joint}page={number}")).await, key)
}

#[tokio::test(start_paused = true)]
async fn pages_after_the_first_may_be_missing_fail_shift_or_repeat() {
    for (operation, path, key) in LISTS {
        let world = five().await;
        let first = page(&world, path, key, 1).await;
        let second = page(&world, path, key, 2).await;
        let third = page(&world, path, key, 3).await;
        assert_eq!((first.len(), second.len(), third.len()), (2, 2, 1), "{operation:?}");
        once(&world, operation, FaultMode::PageSkips);
        assert_eq!(page(&world, path, key, 1).await, first, "the first page is never struck");
        assert_eq!(page(&world, path, key, 2).await, [second[1], third[0]]);
        once(&world, operation, FaultMode::PageShowsTwice);
        assert_eq!(page(&world, path, key, 2).await, [first[1], second[0]]);
        once(&world, operation, FaultMode::PageRepeats);
        assert_eq!(page(&world, path, key, 2).await, first);
        once(&world, operation, FaultMode::PageMissing);
        assert_eq!(page(&world, path, key, 2).await, [0; 0]);
        once(&world, operation, FaultMode::PageError);
        let joint = if path.contains('?') { '&' } else { '?' };
        assert_eq!(get(&world, &format!("{path}{joint}page=2")).await.status, 502);
        assert_eq!(page(&world, path, key, 2).await, second);
        assert_eq!(strikes(&world).len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_entry_may_be_missing_from_one_answer() {
    for (operation, path, key) in LISTS {
        let world = five().await;
        let whole = page(&world, path, key, 1).await;
        once(&world, operation, FaultMode::Flapping);
        let seen = page(&world, path, key, 1).await;
        assert_eq!(seen.len(), 1, "{operation:?}");
        assert!(whole.contains(&seen[0]));
        assert_eq!(page(&world, path, key, 1).await, whole, "it is back in the next");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_may_be_empty_though_there_is_much() {
    for (operation, path, key) in LISTS {
        let world = five().await;
        once(&world, operation, FaultMode::Empty);
        let empty = get(&world, path).await;
        assert_eq!((empty.status, &empty.body["total_count"], ids(&empty, key).len()), (200, &json!(0), 0));
        assert_eq!(get(&world, path).await.body["total_count"], 5);
    }
}

/// The names on an answer that lists places.
fn names(reply: &Reply, key: &str) -> Vec<String> {
    let rows = if key.is_empty() { &reply.body } else { &reply.body[key] };
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_of_repositories_and_groups_go_wrong_like_others() {
    let groups = json!([{ "id": 1, "name": "Default" }, { "id": 4, "name": "gpu", "repos": ["acme/web", "acme/api"] }]);
    let scenario = json!({ "repos": [{ "name": "acme/web" }, { "name": "acme/api" }],
        "organizations": [{ "name": "acme", "groups": groups }] });
    for (operation, path, key, all) in [
        (Operation::ListOrgRepos, "/orgs/acme/repos", "", ["web", "api"]),
        (Operation::ListGroups, "/orgs/acme/actions/runner-groups", "runner_groups", ["Default", "gpu"]),
        (Operation::ListGroupRepos, "/orgs/acme/actions/runner-groups/4/repositories", "repositories", ["web", "api"]),
    ] {
        let small = world(Profile { github_list_page: 1, ..Profile::calm() }, scenario.clone());
        let second = format!("{path}?page=2");
        assert_eq!(names(&get(&small, path).await, key), all[..1], "{operation:?}");
        assert_eq!(names(&get(&small, &second).await, key), all[1..], "the organization itself is no repository");
        once(&small, operation, FaultMode::PageRepeats);
        assert_eq!(names(&get(&small, &second).await, key), all[..1]);
        let large = world(Profile::calm(), scenario.clone());
        once(&large, operation, FaultMode::Flapping);
        assert_eq!(names(&get(&large, path).await, key).len(), 1);
        once(&large, operation, FaultMode::Empty);
        assert_eq!(names(&get(&large, path).await, key).len(), 0);
        assert_eq!(names(&get(&large, path).await, key), all);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_may_be_as_it_was() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 10.0).await;
    let stale = |operation, secs| {
        let fault = Fault { seconds: Some(secs), ..Fault::new(operation, FaultMode::Stale) };
        world.add_fault(fault).unwrap();
    };
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["status"], "in_progress");
    stale(Operation::ListJobs, 10.0);
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["status"], "queued");
    stale(Operation::ListRuns, 10.0);
    assert_eq!(get(&world, RUNS).await.body["workflow_runs"][0]["status"], "queued");
    stale(Operation::ListRuns, 120.0);
    assert_eq!(get(&world, RUNS).await.body["total_count"], 0);
    stale(Operation::ListRunners, 10.0);
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["status"], "offline");
    pass(&world, 60.0).await;
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    stale(Operation::ListRunners, 30.0);
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["busy"], true, "a runner that is gone still works there");
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_stale_list_is_drawn_where_it_is_not_stated() {
    let profile = Profile { github_points_per_minute: 10_000, ..Profile::calm() };
    let jobs: Vec<Value> = (0..200_u64)
        .map(|n| {
            json!({ "id": 5_000_000_000 + n, "run": 6_000_000_000_u64, "repo": "acme/web", "labels": ["modal"],
                "duration_secs": 60, "arrival_secs": n })
        })
        .collect();
    let world = world(profile, json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs }));
    pass(&world, 199.5).await;
    let stale = Fault { times: Fault::UNLIMITED, ..Fault::new(Operation::ListJobs, FaultMode::Stale) };
    world.add_fault(stale).unwrap();
    let mut ages = Vec::new();
    for _ in 0..40 {
        ages.push(200 - get(&world, JOBS).await.body["total_count"].as_u64().unwrap());
    }
    assert!(ages.iter().all(|age| *age <= 121), "{ages:?}");
    assert!(ages.iter().any(|age| *age < 40) && ages.iter().any(|age| *age > 80), "{ages:?}");
}

#[tokio::test(start_paused = true)]
async fn working_runners_may_be_shown_idle_or_offline() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    start(&world, &mut modal, 1, &PLAIN).await;
    once(&world, Operation::ListRunners, FaultMode::BusyHidden);
    once(&world, Operation::ListRunners, FaultMode::OnlineHidden);
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["status"], "offline");
    assert_eq!(strikes(&world), [], "there is nothing to hide yet");
    pass(&world, 10.0).await;
    let mut shown = Vec::new();
    for _ in 0..3 {
        let runner = get(&world, RUNNERS).await.body["runners"][0].clone();
        shown.push((runner["status"].as_str().unwrap().to_owned(), runner["busy"] == true));
    }
    let online = || "online".to_owned();
    assert_eq!(shown, [(online(), false), ("offline".to_owned(), true), (online(), true)]);
}
