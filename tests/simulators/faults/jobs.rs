//! Jobs that do not go to the runner that waits for them.

use sandrunner::sim::{Fault, FaultMode, FaultRequest, Hold, Operation, Profile, What, World};
use serde_json::{Value, json};

use super::{once, pass, strikes};
use crate::github::{JOBS, RUNNERS, RUNS, ask, get, ids};
use crate::modal::Modal;
use crate::{FAILURE, PLAIN, SUCCESS, job, jobs, start, world};

/// Status and runner of each listed job.
async fn listed(world: &World) -> Vec<(String, Option<String>)> {
    let body = get(world, JOBS).await.body;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let jobs = body["jobs"].as_array().unwrap();
    jobs.iter().map(|job| (text(&job["status"]).unwrap(), text(&job["runner_name"]))).collect()
}

async fn statuses(world: &World) -> Vec<String> {
    listed(world).await.into_iter().map(|(status, _)| status).collect()
}

/// A job that one of our runners runs.
fn run_by(attempt: u32) -> (String, Option<String>) {
    ("in_progress".to_owned(), Some(format!("sr-main-gh-5000000000-{attempt}")))
}

fn holds(world: &World) -> Vec<Option<Hold>> {
    let events = world.history(0).into_iter();
    events.filter_map(|event| if let What::JobHeld { why, .. } = event.what { Some(why) } else { None }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_be_given_nothing_and_the_next_one_takes_the_job() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    once(&world, Operation::Assign, FaultMode::Withheld);
    let idle = start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 100.0).await;
    assert_eq!(statuses(&world).await, ["queued"]);
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["status"], "online");
    start(&world, &mut modal, 2, &PLAIN).await;
    pass(&world, 10.0).await;
    assert_eq!(listed(&world).await, [run_by(2)]);
    assert_eq!(modal.wait(&idle, 300.0).await, (FAILURE, 64));
}

#[tokio::test(start_paused = true)]
async fn a_closed_runner_group_gives_nothing_until_it_opens() {
    for is_cleared in [false, true] {
        let world = world(Profile::calm(), jobs(2));
        let mut modal = Modal::connect(&world).await;
        world.add_fault(FaultRequest { until_secs: Some(200.0), ..FaultRequest::from("closed_runner_group") }).unwrap();
        for attempt in 1..=2 {
            start(&world, &mut modal, attempt, &PLAIN).await;
        }
        pass(&world, 100.0).await;
        assert_eq!(statuses(&world).await, ["queued", "queued"]);
        if is_cleared {
            world.clear_faults();
        } else {
            pass(&world, 100.0).await;
        }
        pass(&world, 2.0).await;
        assert_eq!(statuses(&world).await, ["in_progress", "in_progress"], "cleared: {is_cleared}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_may_come_just_before_the_idle_limit() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("assigned_at_idle_limit").unwrap();
    let sandbox = start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 300.0).await;
    assert_eq!(statuses(&world).await, ["queued"]);
    pass(&world, 2.5).await;
    assert_eq!(statuses(&world).await, ["in_progress"]);
    assert_eq!(modal.wait(&sandbox, 20.0).await, (0, 0), "its limit has passed and it works");
    assert_eq!(modal.wait(&sandbox, 60.0).await, (SUCCESS, 0));
    let events = world.history(0);
    let at = |wanted: fn(&What) -> bool| events.iter().find(|event| wanted(&event.what)).unwrap().at;
    let online = at(|what| matches!(what, What::RunnerOnline { .. }));
    let assigned = at(|what| matches!(what, What::JobAssigned { .. }));
    assert_eq!((assigned - online).num_milliseconds(), 299_500);
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_take_its_job_late_or_never() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    let late = |secs| Fault { seconds: Some(secs), ..Fault::new(Operation::Assign, FaultMode::TakenLate) };
    world.add_fault(late(30.0)).unwrap();
    let first = start(&world, &mut modal, 1, &PLAIN).await;
    start(&world, &mut modal, 2, &PLAIN).await;
    pass(&world, 20.0).await;
    assert_eq!(statuses(&world).await, ["queued"], "nobody else gets it meanwhile");
    modal.terminate(&first).await;
    pass(&world, 20.0).await;
    assert_eq!(listed(&world).await, [run_by(2)], "its runner is gone");
    assert_eq!(holds(&world), [Some(Hold::Promised), None]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_takes_a_promised_job_if_it_can() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault(Fault { seconds: Some(30.0), ..Fault::new(Operation::Assign, FaultMode::TakenLate) }).unwrap();
    start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 20.0).await;
    assert_eq!(statuses(&world).await, ["queued"]);
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["busy"], false);
    pass(&world, 20.0).await;
    assert_eq!(listed(&world).await, [run_by(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_lose_its_registration_over_a_job() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault(FaultRequest { times: Some(1), ..FaultRequest::from("acquisition_lost") }).unwrap();
    let first = start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 10.0).await;
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0);
    assert_eq!(statuses(&world).await, ["queued"]);
    assert_eq!(modal.wait(&first, 100.0).await, (0, 0), "it listens on");
    start(&world, &mut modal, 2, &PLAIN).await;
    pass(&world, 10.0).await;
    assert_eq!(listed(&world).await, [run_by(2)]);
    assert_eq!(modal.wait(&first, 300.0).await, (FAILURE, 64));
}

/// Two idle runners, the second of which has one more label, and then one job.
async fn two_runners_and_a_job(fault: &str) -> (World, Modal) {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    start(&world, &mut modal, 1, &PLAIN).await;
    start(&world, &mut modal, 2, &["self-hosted", "modal", "gpu:t4"]).await;
    pass(&world, 10.0).await;
    world.add_fault(FaultRequest { rate: Some(1.0), ..FaultRequest::from(fault) }).unwrap();
    world.add_jobs(vec![serde_json::from_value(job(5_000_000_000, &PLAIN)).unwrap()]).unwrap();
    pass(&world, 2.0).await;
    (world, modal)
}

#[tokio::test(start_paused = true)]
async fn a_job_may_be_given_to_two_runners() {
    let (world, _modal) = two_runners_and_a_job("job_assigned_twice").await;
    assert_eq!(listed(&world).await, [run_by(1)]);
    let runners = get(&world, RUNNERS).await.body["runners"].clone();
    assert_eq!((&runners[0]["busy"], &runners[1]["busy"]), (&json!(true), &json!(true)));
    pass(&world, 70.0).await;
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 0, "both are done with it");
    assert_eq!(world.summary().sandboxes_live, 0);
    assert_eq!(world.report().violations, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_comes_later_may_be_given_a_job_that_is_taken() {
    let world = world(Profile::calm(), jobs(2));
    let mut modal = Modal::connect(&world).await;
    once(&world, Operation::Assign, FaultMode::AssignedTwice);
    for attempt in 1..=2 {
        start(&world, &mut modal, attempt, &PLAIN).await;
        pass(&world, 10.0).await;
    }
    assert_eq!(statuses(&world).await, ["in_progress", "queued"], "the second job still waits");
    let runners = get(&world, RUNNERS).await.body["runners"].clone();
    assert_eq!((&runners[0]["busy"], &runners[1]["busy"]), (&json!(true), &json!(true)));
    start(&world, &mut modal, 3, &PLAIN).await;
    pass(&world, 10.0).await;
    assert_eq!(listed(&world).await, [run_by(1), run_by(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_two_runners_is_lost_with_the_last_of_them() {
    let (world, mut modal) = two_runners_and_a_job("job_assigned_twice").await;
    let sandboxes = modal.list(0.0).await;
    let of = |attempt| sandboxes.iter().find(|info| run_by(attempt).1.as_ref() == Some(&info.name)).unwrap().id.clone();
    modal.terminate(&of(1)).await;
    pass(&world, 5.0).await;
    assert_eq!(listed(&world).await, [run_by(2)]);
    modal.terminate(&of(2)).await;
    pass(&world, 700.0).await;
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["conclusion"], "failure");
}

#[tokio::test(start_paused = true)]
async fn a_job_may_go_to_a_larger_runner_or_to_a_foreign_one() {
    let (world, _modal) = two_runners_and_a_job("job_taken_by_larger").await;
    assert_eq!(listed(&world).await, [run_by(2)]);
    let (world, _modal) = two_runners_and_a_job("job_taken_by_foreign").await;
    let taken = [("in_progress".to_owned(), Some("elsewhere-5000000000".to_owned()))];
    assert_eq!(listed(&world).await, taken);
    assert_eq!(get(&world, RUNNERS).await.body["total_count"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_runner_may_take_a_job_while_ours_starts() {
    let mut scenario = jobs(1);
    scenario["faults"] = json!([{ "name": "job_taken_by_foreign", "operation": "queue", "times": 1, "rate": 1 }]);
    let world = world(Profile::calm(), scenario);
    pass(&world, 4.0).await;
    assert_eq!(statuses(&world).await, ["queued"]);
    pass(&world, 2.0).await;
    assert_eq!(statuses(&world).await, ["in_progress"]);
    assert_eq!(strikes(&world), [(Operation::Queue, FaultMode::TakenByForeign)]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_may_fire_late() {
    let completed = async |late: Option<f64>, secs: f64| {
        let world = world(Profile::calm(), jobs(1));
        if late.is_some() {
            world.add_fault(Fault { seconds: late, ..Fault::new(Operation::Assign, FaultMode::HookLate) }).unwrap();
        }
        start(&world, &mut Modal::connect(&world).await, 1, &PLAIN).await;
        pass(&world, 20.0).await;
        assert_eq!(statuses(&world).await, ["in_progress"]);
        pass(&world, secs).await;
        world.summary().jobs_completed
    };
    assert_eq!([completed(None, 60.0).await, completed(Some(40.0), 60.0).await], [1, 0]);
    assert_eq!(completed(Some(40.0), 100.0).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_be_shown_busy_late() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    world.add_fault(Fault { seconds: Some(40.0), ..Fault::new(Operation::Assign, FaultMode::BusyLate) }).unwrap();
    start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 30.0).await;
    assert_eq!(statuses(&world).await, ["in_progress"]);
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["busy"], false);
    pass(&world, 20.0).await;
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["busy"], true);
}

/// Runs three jobs of a run with three runners, and tells the most that ran at a time and when all were done.
async fn most_at_a_time(scenario: Value, fault: Option<&str>) -> (usize, bool) {
    let world = world(Profile::calm(), scenario);
    if let Some(fault) = fault {
        world.add_fault(fault).unwrap();
    }
    let mut modal = Modal::connect(&world).await;
    for attempt in 1..=3 {
        start(&world, &mut modal, attempt, &PLAIN).await;
    }
    let mut most = 0;
    for _ in 0..25 {
        pass(&world, 10.0).await;
        most = most.max(statuses(&world).await.iter().filter(|status| *status == "in_progress").count());
    }
    (most, world.summary().jobs_completed == 3)
}

#[tokio::test(start_paused = true)]
async fn max_parallel_holds_jobs_back_that_are_listed_as_queued() {
    assert_eq!(most_at_a_time(jobs(3), None).await, (3, true));
    assert_eq!(most_at_a_time(jobs(3), Some("max_parallel")).await, (1, true));
    let mut scenario = jobs(3);
    scenario["runs"] = json!([{ "id": 6_000_000_000_u64, "max_parallel": 2 }]);
    assert_eq!(most_at_a_time(scenario, None).await, (2, true));
}

#[tokio::test(start_paused = true)]
async fn a_ghost_of_a_fault_becomes_a_job_when_faults_end() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("ghost_job").unwrap();
    world.add_jobs(vec![serde_json::from_value(job(5_000_000_000, &PLAIN)).unwrap()]).unwrap();
    start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 100.0).await;
    assert_eq!(statuses(&world).await, ["queued"]);
    assert_eq!(get(&world, RUNS).await.body["workflow_runs"][0]["status"], "queued");
    world.clear_faults();
    pass(&world, 2.0).await;
    assert_eq!(statuses(&world).await, ["in_progress"]);
    assert_eq!(holds(&world), [Some(Hold::Ghost), None]);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_long_ago_may_come_with_a_job() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("old_ghost_run").unwrap();
    world.add_jobs(vec![serde_json::from_value(job(5_000_000_000, &PLAIN)).unwrap()]).unwrap();
    for attempt in 1..=2 {
        start(&world, &mut modal, attempt, &PLAIN).await;
    }
    pass(&world, 100.0).await;
    let runs = get(&world, RUNS).await.body["workflow_runs"].clone();
    assert_eq!((&runs[0]["status"], &runs[1]["status"]), (&json!("completed"), &json!("queued")));
    let created: chrono::DateTime<chrono::Utc> = runs[1]["created_at"].as_str().unwrap().parse().unwrap();
    assert_eq!((world.clock().now() - created).num_days(), 90);
    let path = format!("{RUNS}/{}/jobs", runs[1]["id"]);
    let ghost = async || get(&world, &path).await.body["jobs"][0].clone();
    assert_eq!((&ghost().await["status"], &ghost().await["labels"]), (&json!("queued"), &json!(PLAIN)));
    world.clear_faults();
    pass(&world, 1.0).await;
    assert_eq!(ghost().await["conclusion"], "cancelled");
    let report = world.report();
    assert_eq!((report.jobs_expected, report.jobs_completed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_may_complete_with_a_job_queued_in_it() {
    let world = world(Profile::calm(), jobs(0));
    let mut modal = Modal::connect(&world).await;
    world.add_fault("job_in_completed_run").unwrap();
    world.add_jobs(vec![serde_json::from_value(job(5_000_000_000, &PLAIN)).unwrap()]).unwrap();
    start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 100.0).await;
    assert_eq!(statuses(&world).await, ["queued"]);
    let run = get(&world, RUNS).await.body["workflow_runs"][0].clone();
    assert_eq!((&run["status"], &run["conclusion"]), (&json!("completed"), &json!("failure")));
    world.clear_faults();
    pass(&world, 1.0).await;
    assert_eq!(get(&world, JOBS).await.body["jobs"][0]["conclusion"], "cancelled");
    assert_eq!(get(&world, RUNNERS).await.body["runners"][0]["busy"], false);
}

#[tokio::test(start_paused = true)]
async fn a_scenario_has_ghosts_and_runs_of_long_ago() {
    const MONTHS: f64 = 90.0 * 86_400.0;
    let in_run = |id: u64, run: u64| {
        let mut job = job(id, &PLAIN);
        job["run"] = json!(run);
        job
    };
    let scenario = json!({
        "repos": [{ "name": "acme/web" }],
        "jobs": [in_run(1, 11), in_run(2, 12), in_run(3, 13), in_run(4, 14)],
        "runs": [
            { "id": 12, "ghost": "queued", "age_secs": MONTHS },
            { "id": 13, "ghost": "completed_run", "age_secs": 2.0 * MONTHS },
            { "id": 14, "age_secs": 86_400.0 },
            { "id": 15, "repo": "acme/web", "age_secs": 3.0 * MONTHS },
        ],
    });
    let world = world(Profile::calm(), scenario);
    let mut modal = Modal::connect(&world).await;
    let runs = get(&world, RUNS).await;
    assert_eq!(ids(&runs, "workflow_runs"), [11, 14, 12, 13, 15], "the newest first");
    let statuses: Vec<_> = runs.body["workflow_runs"].as_array().unwrap().iter().map(|run| &run["status"]).collect();
    assert_eq!(statuses, ["queued", "queued", "queued", "completed", "queued"]);
    let of_run = async |run: u64| get(&world, &format!("{RUNS}/{run}/jobs")).await.body;
    let old = of_run(12).await["jobs"][0].clone();
    let created: chrono::DateTime<chrono::Utc> = old["created_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(((world.clock().now() - created).num_days(), &old["status"]), (90, &json!("queued")));
    assert_eq!(of_run(15).await["total_count"], 0);
    for attempt in 1..=4 {
        start(&world, &mut modal, attempt, &PLAIN).await;
    }
    pass(&world, 600.0).await;
    for (run, status) in [(11, "completed"), (12, "queued"), (13, "queued"), (14, "completed")] {
        assert_eq!(of_run(run).await["jobs"][0]["status"], status, "run {run}");
    }
    world.clear_faults();
    pass(&world, 60.0).await;
    assert_eq!(of_run(12).await["jobs"][0]["status"], "queued", "a ghost of the scenario stays one");
    let report = world.report();
    assert_eq!((report.jobs_expected, report.jobs_completed), (2, 2));
    assert_eq!(report.jobs_skipped.values().sum::<usize>(), 2);
}

#[tokio::test(start_paused = true)]
async fn runs_are_added_by_the_control_interface_and_checked() {
    let world = world(Profile::calm(), jobs(0));
    let post = async |body: Value| ask(&world, "POST", "/_sim/jobs", &[], &body).await;
    let job = job(5_000_000_000, &PLAIN);
    let run = |more: Value| {
        let mut run = json!({ "id": 6_000_000_000_u64 });
        run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run
    };
    for (wrong, reason) in [
        (json!({ "max_parallel": 0 }), "`max_parallel` must be at least 1"),
        (json!({ "age_secs": -1 }), "`age_secs` must not be negative"),
        (json!({ "repo": "acme/web" }), "`repo` is stated for a run without jobs"),
    ] {
        let refused = post(json!({ "runs": [run(wrong)], "jobs": [job] })).await;
        let message = refused.body["message"].as_str().unwrap().to_owned();
        assert!(refused.status == 422 && message.contains(reason), "{message}");
    }
    let ghost = json!({ "runs": [run(json!({ "ghost": "queued" }))], "jobs": [job] });
    assert_eq!(post(ghost.clone()).await.status, 204);
    assert_eq!(post(ghost).await.status, 422);
    assert_eq!(holds(&world), [Some(Hold::Ghost)]);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_runner_has_died_is_given_to_no_second_one() {
    let world = world(Profile::calm(), jobs(1));
    let mut modal = Modal::connect(&world).await;
    let first = start(&world, &mut modal, 1, &PLAIN).await;
    pass(&world, 10.0).await;
    modal.terminate(&first).await;
    pass(&world, 5.0).await;
    once(&world, Operation::Assign, FaultMode::AssignedTwice);
    let second = start(&world, &mut modal, 2, &PLAIN).await;
    pass(&world, 10.0).await;
    assert_eq!((strikes(&world), listed(&world).await), (vec![], vec![run_by(1)]));
    assert_eq!(modal.wait(&second, 400.0).await, (FAILURE, 64), "it gets no job and ends by itself");
}
