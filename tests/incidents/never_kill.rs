//! Runners that were ended while they had a job, or were about to get one.

use sandrunner::sim::{FaultMode, Operation};
use serde_json::json;

use crate::case::{Case, JOB, Story, job, with};

/// That no sandbox was terminated, and that all of so many jobs ran to their ends on the first runner that took them.
fn all_ran(story: &Story, jobs: u64) {
    assert!(story.terminations().is_empty(), "{}", story.told());
    for number in 0..jobs {
        story.served_within(number, f64::INFINITY);
        assert_eq!(story.taken(number).len(), 1, "job {number}: {}", story.told());
    }
}

/// How often a call was answered between two moments.
fn calls_between(story: &Story, operation: Operation, from: f64, until: f64) -> usize {
    story.calls(operation).iter().filter(|(at, ..)| (from..until).contains(at)).count()
}

/// terraform-aws#5085: a runner was looked at, found idle, given a job, and terminated 13 s later.
///
/// Required: nothing that was read is acted upon alone. A runner that no list shows looks like a failed start for five
/// minutes; seconds before its registration is deleted it gets a job, and the lists of jobs are down. GitHub's refusal
/// of the deletion is what saves it.
#[tokio::test(start_paused = true)]
async fn incident_terraform_aws_5085_assigned_before_terminate() {
    let story = Case::run_of(1, 900.0)
        .at_most(1)
        .fault(json!({ "operation": "mint", "mode": "visible_late", "seconds": 3_600 }))
        .fault(json!({ "operation": "assign", "mode": "assigned_at_age", "seconds": 290 }))
        .fault_at(60.0, json!({ "operation": "list_jobs", "mode": "error", "until_secs": 540 }))
        .run()
        .await;
    let name = story.creates()[0].name.clone();
    let taken = story.taken(0)[0];
    assert!((289.0..291.0).contains(&(taken.0 - story.online(&name))), "{}", story.told());
    let refused = story.deletes().into_iter().find(|(_, runner, deleted)| *runner == name && !deleted);
    assert!(refused.is_some_and(|(at, ..)| (0.0..30.0).contains(&(at - taken.0))), "{}", story.told());
    all_ran(&story, 1);
    assert_eq!(taken.1, name);
}

/// terraform-aws#5228: `busy` was false for up to a minute after the start of jobs and again in the middle of them, and
/// `DELETE` of such runners was carried out; 14 jobs were killed.
///
/// Required: neither the flag nor an answered `DELETE` is proof. All runners are listed offline and idle for the whole
/// time, the jobs cannot be read until all of their registrations were deleted with 204, and all 14 jobs run to their
/// ends.
#[tokio::test(start_paused = true)]
async fn incident_terraform_aws_5228_busy_is_false() {
    let warm_up = with(job(20, 20.0), &json!({ "run": 7_000_000_001_u64, "arrival_secs": 5 }));
    let jobs = (0..14).map(|number| with(job(number, 1_200.0), &json!({ "arrival_secs": 120 }))).chain([warm_up]);
    let story = Case::of(jobs.collect())
        .at_most(14)
        .knob("busy_lag_secs", json!([3_600, 3_600]))
        .fault(json!({ "operation": "list_runners", "mode": "online_hidden", "until_secs": 1_500 }))
        .fault_at(130.0, json!({ "operation": "list_jobs", "mode": "error", "until_secs": 500 }))
        .fault(json!({ "operation": "delete_runner", "mode": "deleted_while_busy", "times": 14 }))
        .run()
        .await;
    assert_eq!(story.struck(FaultMode::DeletedWhileBusy).len(), 14, "{}", story.told());
    assert!(story.deletes().iter().all(|(at, name, deleted)| {
        let taken = (0..14).flat_map(|number| story.taken(number)).find(|(_, runner)| runner == name);
        *deleted && taken.is_none_or(|(taken, _)| taken < *at)
    }));
    all_ran(&story, 14);
}

/// terraform-aws#4391, #3802: the list of runners did not show those that had just registered, so their machines were
/// taken for orphans and killed.
///
/// Required: absence from a list is not absence. Runners that no list shows for four minutes are neither ended nor
/// replaced, and take their jobs.
#[tokio::test(start_paused = true)]
async fn incident_terraform_aws_4391_not_listed_yet() {
    let story = Case::run_of(3, 300.0)
        .fault(json!({ "operation": "mint", "mode": "visible_late", "seconds": 240, "times": 3 }))
        .fault(json!({ "operation": "assign", "mode": "assigned_at_age", "seconds": 160, "times": 3 }))
        .run()
        .await;
    assert_eq!(story.struck(FaultMode::VisibleLate).len(), 3);
    let online = story.online(&story.creates()[2].name);
    let unseen = calls_between(&story, Operation::ListRunners, online, story.taken(0)[0].0);
    assert!(unseen >= 2, "the runners were looked for {unseen} times");
    story.nothing_ended();
    all_ran(&story, 3);
    assert_eq!(story.mints().len(), 3, "{}", story.told());
}

/// garm#834: a runner was missing from GitHub's list, was removed for it, and had taken a job four seconds before.
///
/// Required: a runner that was seen online is left alone, however often it is missing. For two minutes the list is
/// empty, again and again, and the job comes at the end of them.
#[tokio::test(start_paused = true)]
async fn incident_garm_834_missing_runner_takes_a_job() {
    let story = Case::run_of(1, 600.0)
        .fault(json!({ "operation": "assign", "mode": "assigned_at_age", "seconds": 250 }))
        .fault_at(115.0, json!({ "operation": "list_runners", "mode": "empty", "until_secs": 400 }))
        .run()
        .await;
    let (taken, name) = story.taken(0)[0];
    let missing = story.struck(FaultMode::Empty);
    assert!(missing.iter().filter(|at| **at < taken).count() >= 2, "{}", story.told());
    assert!(calls_between(&story, Operation::ListRunners, story.online(name), missing[0]) > 0, "it was seen online");
    story.nothing_ended();
    all_ran(&story, 1);
    assert_eq!(story.mints().len(), 1, "{}", story.told());
}

/// garm#455, pytorch/test-infra#6473: surplus idle runners were removed by looking at them first, and some had a job by
/// the time they were removed.
///
/// Required: registered runners are not scaled down from outside. Four of five jobs are cancelled while their runners
/// start, so that four are surplus, and new jobs come three minutes later, which lists do not show as taken for a
/// minute: the surplus serves them all.
#[tokio::test(start_paused = true)]
async fn incident_garm_455_idle_scale_down() {
    let cancelled = (0..4).map(|number| with(job(number, 60.0), &json!({ "cancel_secs": 14 })));
    let later =
        (10..14).map(|number| with(job(number, 240.0), &json!({ "run": 7_000_000_001_u64, "arrival_secs": 240 })));
    let story = Case::of(cancelled.chain([job(4, 60.0)]).chain(later).collect())
        .knob("busy_lag_secs", json!([60, 60]))
        .knob("boot", json!({ "median_secs": 12, "p95_secs": 12 }))
        .run()
        .await;
    let surplus = (0..4).filter(|number| story.taken(*number).is_empty()).count();
    assert!(surplus >= 2, "{}", story.told());
    let before: Vec<_> = story.creates().into_iter().filter(|create| create.at < 200.0).collect();
    let reused = (10..14).filter(|number| before.iter().any(|create| create.name == story.taken(*number)[0].1)).count();
    assert_eq!(reused, before.len() - 1, "{}", story.told());
    assert!(story.terminations().is_empty());
    let had_ended = |name: &str, asked: f64| story.ended(name).iter().any(|(ended, ..)| *ended <= asked);
    assert!(story.deletes().iter().all(|(asked, name, _)| had_ended(name, *asked)), "{}", story.told());
    (10..14).for_each(|number| story.served_within(number, 60.0));
}

/// runs-on#538: a new release shut machines down while jobs ran on them.
///
/// Required: a controller that knows nothing ends nothing that may work. It is killed with ten jobs running, and its
/// next life finds the jobs unreadable and all runners offline and idle for ten minutes: GitHub refuses each deletion
/// that it tries, and that is enough.
#[tokio::test(start_paused = true)]
async fn incident_runs_on_538_shut_down_while_running() {
    let story = Case::run_of(10, 1_500.0)
        .kill_at(180.0)
        .knob("busy_lag_secs", json!([3_600, 3_600]))
        .fault_at(175.0, json!({ "operation": "list_runners", "mode": "online_hidden", "until_secs": 900 }))
        .fault_at(175.0, json!({ "operation": "list_jobs", "mode": "error", "until_secs": 900 }))
        .run()
        .await;
    let hidden = story.struck(FaultMode::OnlineHidden);
    assert!(hidden.len() >= 5, "{}", story.told());
    assert!((0..10).all(|number| story.taken(number)[0].0 < 175.0));
    assert!(story.deletes().iter().all(|(_, _, deleted)| !deleted), "{}", story.told());
    all_ran(&story, 10);
    assert_eq!(story.creates().len(), 10, "{}", story.told());
}

/// ARC#4000: an idle runner was removed five seconds after it began to listen; GitHub can need a minute to give it a job
/// (community#209463).
///
/// Required: a grace of two minutes at least. GitHub needs 110 s to give a job to its runner: the runner is still there,
/// and none was made beside it.
#[tokio::test(start_paused = true)]
async fn incident_arc_4000_removed_after_5_seconds() {
    let late = json!({ "operation": "assign", "mode": "assigned_at_age", "seconds": 110 });
    let story = Case::run_of(1, 60.0).fault(late).run().await;
    let name = story.creates()[0].name.clone();
    assert!(story.taken(0)[0].0 - story.online(&name) >= 109.0, "{}", story.told());
    assert_eq!((story.taken(0)[0].1, story.mints().len()), (name.as_str(), 1), "{}", story.told());
    story.nothing_ended();
    all_ran(&story, 1);
}

/// ARC#3581, #3516: runners that took long to start were scaled down meanwhile.
///
/// Required: starting is a state of its own with a limit of its own. Four runners need two and a half minutes, and
/// the lists of runs and jobs are empty nearly all of that time: nothing is ended, nothing is made twice.
#[tokio::test(start_paused = true)]
async fn incident_arc_3581_scale_down_of_slow_starts() {
    let empty = |list: &str| json!({ "operation": list, "mode": "empty", "until_secs": 100 });
    let story = Case::run_of(4, 120.0)
        .fault(json!({ "operation": "boot", "mode": "slow_boot", "seconds": 150, "times": 4 }))
        .fault_at(70.0, empty("list_runs"))
        .fault_at(70.0, empty("list_jobs"))
        .run()
        .await;
    assert_eq!(story.struck(FaultMode::SlowBoot).len(), 4);
    let online: Vec<f64> = story.creates().iter().map(|create| story.online(&create.name)).collect();
    let empty = story.struck(FaultMode::Empty);
    assert!(empty.len() >= 5 && empty.iter().all(|at| online.iter().all(|online| at < online)), "{}", story.told());
    story.nothing_ended();
    all_ran(&story, 4);
    assert_eq!(story.mints().len(), 4, "{}", story.told());
    assert!(story.taken(0)[0].1.contains(&JOB.to_string()));
}
