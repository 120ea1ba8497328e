//! What lists show, in which pages, and how late.

use std::time::Duration;

use sandrunner::sim::{Profile, ScenarioJob};
use serde_json::{Value, json};

use crate::github::{JOBS, RUNS, TOKEN, ask, get};
use crate::modal::Modal;
use crate::{job, jobs, world};

#[tokio::test(start_paused = true)]
async fn lists_are_paged_with_links_and_sizes_are_clamped() {
    let world = world(Profile::calm(), jobs(250));
    let first = get(&world, "/repos/acme/web/actions/runs/6000000000/jobs?per_page=500").await;
    assert_eq!(first.body["total_count"], 250);
    assert_eq!(first.body["jobs"].as_array().unwrap().len(), 100);
    let link = first.header("link").unwrap();
    assert!(
        link.contains("jobs?per_page=500&page=2>; rel=\"next\"") && link.contains("page=3>; rel=\"last\""),
        "{link}"
    );
    let last = get(&world, "/api/v3/repos/acme/web/actions/runs/6000000000/jobs?per_page=100&page=3").await;
    assert_eq!(last.body["jobs"].as_array().unwrap().len(), 50);
    assert!(!last.header("link").unwrap().contains("next"));
    assert_eq!(get(&world, "/repos/acme/web/actions/runs?status=completed").await.body["total_count"], 0);
    assert_eq!(get(&world, "/repos/acme/web/actions/runs?status=queued").await.body["total_count"], 1);
    assert_eq!(get(&world, "/repos/acme/none/actions/runs").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn unchanged_answers_cost_no_quota_and_etags_belong_to_a_token() {
    let world = world(Profile::calm(), jobs(1));
    let first = get(&world, RUNS).await;
    let etag = first.header("etag").unwrap().to_owned();
    assert!(etag.starts_with("W/"));
    assert_eq!(first.header("x-ratelimit-used"), Some("1"));
    let again = ask(&world, "GET", RUNS, &[TOKEN, ("if-none-match", &etag)], &Value::Null).await;
    assert_eq!((again.status, again.header("x-ratelimit-used")), (304, Some("1")));
    assert_eq!(again.body, Value::Null);
    let other = [("authorization", "token ghp_other"), ("if-none-match", &etag)];
    assert_eq!(ask(&world, "GET", RUNS, &other, &Value::Null).await.status, 200);
    assert!(first.header("date").is_some() && first.header("x-github-request-id").is_some());
    let report = world.report();
    assert_eq!((report.github_requests, report.github_not_modified), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn filtered_run_lists_come_from_an_index_that_leaves_runs_out() {
    let profile = Profile { filtered_list_omits: 0.5, ..Profile::calm() };
    let world = world(profile, jobs(1));
    let mut seen = 0;
    for _ in 0..40 {
        seen += get(&world, "/repos/acme/web/actions/runs?status=queued").await.body["total_count"].as_u64().unwrap();
        assert_eq!(get(&world, RUNS).await.body["total_count"], 1);
    }
    assert!((5..=35).contains(&seen), "{seen} of 40 filtered lists showed the run");
}

#[tokio::test(start_paused = true)]
async fn realistic_lists_lag_and_go_backwards_but_not_beyond_their_bound() {
    let world = world(Profile { github_points_per_minute: 10_000, ..Profile::realistic() }, jobs(0));
    let added: Vec<ScenarioJob> = (0..60)
        .map(|index| {
            let mut job = job(5_000_000_000 + index, &["modal"]);
            job["arrival_secs"] = json!(index);
            serde_json::from_value(job).unwrap()
        })
        .collect();
    let began = world.clock().now();
    world.add_jobs(added).unwrap();
    let (mut last, mut went_back, mut late) = (0, false, 0);
    world.clock().sleep(Duration::from_secs(11)).await;
    for _ in 0..90 {
        let asked = (world.clock().now() - began).num_seconds().unsigned_abs();
        let seen = get(&world, JOBS).await.body["total_count"].as_u64().unwrap();
        assert!(seen + 10 >= asked.min(60), "{seen} jobs seen after {asked} s");
        went_back |= seen < last;
        late += u32::from(seen + 3 < asked.min(60));
        last = seen;
        world.clock().sleep(Duration::from_millis(400)).await;
    }
    assert!(went_back, "no list was older than the one before");
    assert!((1..60).contains(&late), "{late} of 90 lists were late");
}

#[tokio::test(start_paused = true)]
async fn modal_lists_newest_first_in_pages_until_an_empty_one() {
    let profile =
        Profile { modal_list_page: 4, boot: sandrunner::sim::Lognormal::constant(1_000.0), ..Profile::calm() };
    let mut scenario = jobs(0);
    scenario["foreign_sandboxes"] = json!([{ "name": "notebook", "tags": { "team": "data" } }]);
    let world = world(profile, scenario);
    let mut modal = Modal::connect(&world).await;
    let mut made = Vec::new();
    for index in 1..=9 {
        made.push(modal.create(&format!("sr-main-gh-{index}-1"), "x").await.unwrap());
    }
    let (mut seen, mut before) = (Vec::new(), 0.0);
    loop {
        let page = modal.list(before).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        before = last.created_at;
        seen.extend(page);
    }
    let ids: Vec<_> = seen.iter().map(|info| info.id.clone()).collect();
    assert_eq!(ids.len(), 10);
    made.reverse();
    assert_eq!(ids[..9], made);
    assert_eq!((seen[9].name.as_str(), seen[9].tags[0].tag_value.as_str()), ("notebook", "data"));
    modal.terminate(&ids[9]).await;
    assert_eq!(world.report().foreign_touched, 1);
}
