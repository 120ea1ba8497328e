//! Lists that showed too little, or too much.

use std::time::Duration;

use sandrunner::sim::{FaultMode, Operation, What};
use serde_json::{Value, json};

use crate::case::{Case, JOB, REPO, RUN, Story, job, with};

const DAY: f64 = 86_400.0;
/// How often is looked where that does not matter: the fewer looks, the faster the test.
const MINUTE: Duration = Duration::from_secs(60);

/// A run that is not the one of the jobs.
fn run(number: u64) -> u64 {
    RUN - 1_000 + number
}

/// Runs in which nothing can be served, all of that age.
fn runs(numbers: std::ops::Range<u64>, ghost: &str, age_secs: f64) -> Vec<Value> {
    numbers.map(|number| json!({ "id": run(number), "age_secs": age_secs, "ghost": ghost })).collect()
}

/// How many calls of an operation were about one of so many odd runs, from a moment on.
fn calls_for(story: &Story, operation: Operation, runs: u64, from: f64) -> usize {
    let is_odd = |target: &str| (0..runs).any(|number| target == run(number).to_string());
    story.calls(operation).iter().filter(|(at, _, target)| *at >= from && is_odd(target)).count()
}

/// ARC#362: the list of queued runs had a total of 0 while runs were queued, so nothing was started.
///
/// Required: runs are looked for in the unfiltered list, and one empty answer lowers nothing. The filtered lists omit
/// every run and the unfiltered one is empty twice a minute while the runner starts: the job is served by that runner.
#[tokio::test(start_paused = true)]
async fn incident_arc_362_empty_list_of_queued_runs() {
    let empty = json!({ "operation": "list_runs", "mode": "empty", "rate": 0.3, "until_secs": 120 });
    let story = Case::run_of(1, 60.0)
        .knob("filtered_list_omits", json!(1.0))
        .knob("boot", json!({ "median_secs": 60, "p95_secs": 60 }))
        .fault_at(40.0, empty)
        .run()
        .await;
    let (taken, name) = story.taken(0)[0];
    assert!(story.struck(FaultMode::Empty).iter().filter(|at| **at < taken).count() >= 2, "{}", story.told());
    assert!(story.creates()[0].at - story.queued(0) <= 15.0, "{}", story.told());
    assert_eq!((story.mints().len(), name), (1, story.creates()[0].name.as_str()), "{}", story.told());
    story.nothing_ended();
}

/// zephyr#52061: 64 runs stayed queued, some for 15 months, and counted as demand all that time.
///
/// Required: what waits in vain is held back after a try. 64 ghosts of 15 months cost a few probes between them in
/// hours, ever fewer, and three requests each in the fourth; and a real job with the same labels that comes in between has
/// its runner in two minutes, one of which is the interval.
#[tokio::test(start_paused = true)]
async fn incident_zephyr_52061_runs_queued_for_months() {
    let ghost = |number| with(job(100 + number, 60.0), &json!({ "run": run(number), "arrival_secs": 0 }));
    let real = with(job(0, 60.0), &json!({ "arrival_secs": 3.0 * 3_600.0 }));
    let story = Case::of((0..64).map(ghost).chain([real]).collect())
        .part("runs", json!(runs(0..64, "queued", 450.0 * DAY)))
        .configure(|config| config.reconcile.interval = MINUTE)
        .lasts(4.0 * 3_600.0)
        .run()
        .await;
    story.served_within(0, 120.0);
    let created = |from: f64, until: f64| story.creates().iter().filter(|it| (from..until).contains(&it.at)).count();
    let ghosts = [created(0.0, 600.0), created(600.0, 7_200.0), created(7_200.0, 3.0 * 3_600.0)];
    assert!(
        (3..=5).contains(&ghosts[0]) && ghosts[1] <= 6 && ghosts[2] <= 3,
        "{ghosts:?} runners for ghosts\n{}",
        story.told()
    );
    let cost = [Operation::ListJobs, Operation::GetRun].map(|of| calls_for(&story, of, 64, 3.0 * 3_600.0));
    assert!(cost[0] + cost[1] <= 3 * 64, "64 ghosts cost {cost:?} requests in the fourth hour");
}

/// runner#3872, CoursIA#13579, keda#8123, open-bank-oss#6472: runs that say `queued` or `in_progress` for ever, with no
/// job or with completed ones only, cannot be cancelled, and cost a request per poll each.
///
/// Required: they are never demand, and are looked at again at growing intervals, up to an hour: 20 runs of each kind,
/// which have been so for half a year, cost two requests each in an hour at the most.
#[tokio::test(start_paused = true)]
async fn incident_runner_3872_ghost_runs() {
    let age = 180.0 * DAY;
    let jobless = (0..20).map(|number| json!({ "id": run(number), "repo": REPO, "age_secs": age }));
    let finished = (20..40).map(|number| {
        with(job(100 + number, 1.0), &json!({ "run": run(number), "arrival_secs": 0, "labels": ["ubuntu-latest"] }))
    });
    let real = with(job(0, 60.0), &json!({ "arrival_secs": 2.0 * 3_600.0 }));
    let odd: Vec<Value> = jobless.chain(runs(20..40, "unfinished_run", age)).collect();
    let story = Case::of(finished.chain([real]).collect())
        .part("runs", json!(odd))
        .configure(|config| config.reconcile.interval = MINUTE)
        .lasts(4.0 * 3_600.0)
        .run()
        .await;
    for numbers in [0..20, 20..40] {
        let targets: Vec<String> = numbers.map(|number| run(number).to_string()).collect();
        let calls = story.calls(Operation::ListJobs);
        let is_read = |target: &String| calls.iter().any(|(_, _, read)| read == target);
        assert!(targets.iter().all(is_read), "they are looked at");
    }
    let hour = 3.0 * 3_600.0;
    let cost = calls_for(&story, Operation::ListJobs, 40, hour) + calls_for(&story, Operation::GetRun, 40, hour);
    assert!(cost <= 2 * 40, "40 ghosts cost {cost} requests in the fourth hour");
    assert_eq!(story.creates().len(), 1, "{}", story.told());
    story.served_within(0, 90.0);
}

/// tuist#12673: a run failed to start and was `completed`, and a job in it stayed `queued`.
///
/// Required: a job counts only while its run is not completed. One run was completed before it was ever seen; another
/// one completes with a job queued in it for which a runner is there: that runner is the last one, for
/// the hours until GitHub gives the job up.
#[tokio::test(start_paused = true)]
async fn incident_tuist_12673_job_in_a_completed_run() {
    let hosted = with(job(2, 100.0), &json!({ "labels": ["ubuntu-latest"] }));
    let dead = with(job(100, 60.0), &json!({ "run": run(0), "arrival_secs": 0 }));
    let real = with(job(3, 60.0), &json!({ "run": RUN + 1, "arrival_secs": 1_800 }));
    let story = Case::of(vec![job(1, 60.0), hosted, dead, real])
        .part("runs", json!(runs(0..1, "completed_run", 3_600.0)))
        .fault(json!({ "name": "job_in_completed_run", "times": 1, "seconds": 6_000 }))
        .configure(|config| config.reconcile.interval = Duration::from_secs(20))
        .lasts(2.0 * 3_600.0)
        .run()
        .await;
    assert_eq!(story.struck(FaultMode::RunCompleted).len(), 1);
    assert!(story.taken(1).is_empty() && story.taken(100).is_empty());
    let completed = story.queued(1) + 110.0;
    let creates = story.creates();
    assert!(creates.iter().any(|create| create.name.contains(&(JOB + 1).to_string())), "{}", story.told());
    let late: Vec<_> = creates.iter().filter(|create| create.at > completed).collect();
    assert!(matches!(late[..], [only] if only.name.contains(&(JOB + 3).to_string())), "{}", story.told());
    story.served_within(3, 60.0);
}

/// So many foreign runners, runs and jobs of others, among which ours are last.
async fn among(others: u64, pages: Option<Value>) -> Story {
    let hosted = |id: u64, run: u64, arrival_secs: f64| {
        json!({ "id": JOB + id, "run": run, "repo": REPO, "labels": ["ubuntu-latest"], "arrival_secs": arrival_secs,
            "duration_secs": 400 })
    };
    let beside = (0..others).map(|number| hosted(1_000 - others + number, RUN, 30.0));
    let newer = (0..others).map(|number| hosted(2_000 + number, RUN + 1 + number, 30.5));
    let ours = with(job(1_001, 60.0), &json!({}));
    let boxes: Vec<Value> = (0..others)
        .map(|number| json!({ "repo": REPO, "name": format!("box-{number}"), "labels": ["metal"] }))
        .collect();
    let crash = sandrunner::sim::Crash {
        client: 1,
        operation: Some(Operation::Mint),
        nth: 1,
        phase: sandrunner::sim::CrashPhase::AfterApplied,
    };
    let case = Case::of(beside.chain(newer).chain([ours]).collect())
        .part("foreign_runners", json!(boxes))
        .configure(|config| config.reconcile.interval = Duration::from_secs(30))
        .recovers_within(420)
        .crash(crash);
    let case = pages.into_iter().fold(case, Case::fault);
    case.run().await
}

/// ec2-action-builder#57: the runner was looked for on the first page only.
///
/// Required: every list is read to its end, whatever its length and though its pages shift meanwhile. Runs, jobs of
/// the run and runners are others' up to the last one, and the controller dies between the registration of its first
/// runner and the answer: it finds the job, and finds and deletes what it left, on the last page.
#[tokio::test(start_paused = true)]
async fn incident_ec2_action_builder_57_first_page_only() {
    let skips = json!({ "name": "page_skips_one", "rate": 0.3, "until_secs": 900 });
    let twice = json!({ "name": "page_shows_one_twice", "rate": 0.3, "until_secs": 900 });
    let whole = [0, 1, 99, 100, 250].map(|others| (others, None));
    // These make the pages small: four of each list.
    for (others, fault) in whole.into_iter().chain([(10, Some(skips)), (10, Some(twice))]) {
        let story = among(others, fault.clone()).await;
        let left = story.mints()[0].name.clone();
        assert_eq!(story.killed().len(), 1);
        assert!(story.creates().iter().all(|create| create.name != left));
        assert!(
            story.deletes().iter().any(|(_, name, deleted)| *name == left && *deleted),
            "{others}: {}",
            story.told()
        );
        story.served_within(1_001, 300.0);
        let pages = usize::try_from((others + 1).div_ceil(100)).unwrap();
        for list in [Operation::ListRuns, Operation::ListJobs, Operation::ListRunners] {
            assert!(story.pages(list) >= pages, "{others}: {list:?}");
        }
        let struck = |mode| story.struck(mode).len();
        assert!(fault.is_none() || struck(FaultMode::PageSkips) + struck(FaultMode::PageShowsTwice) > 0);
    }
}

impl Story {
    /// The last page of a list that was read.
    fn pages(&self, of: Operation) -> usize {
        let pages = self.all(|_, what| match what {
            What::Call { operation, page, status: 200, .. } if *operation == of => *page,
            _ => None,
        });
        pages.into_iter().max().unwrap_or_default()
    }
}
