//! What was left behind: by cancelled jobs, by deaths of the controller, by services that did not answer.

use sandrunner::config::ClassConfig;
use sandrunner::sim::{Crash, CrashPhase, FaultMode, Operation, RemovalReason};
use serde_json::json;

use crate::case::{Case, Story, TIMED_OUT, job, with};

/// ARC#4091: a job was cancelled before its runner existed, and the runner leaked.
///
/// Required: the surplus runner ends itself at the idle limit of five minutes, without anybody's doing, and its
/// registration is deleted within five minutes more.
#[tokio::test(start_paused = true)]
async fn incident_arc_4091_cancelled_before_the_runner() {
    let cancelled = with(job(0, 60.0), &json!({ "cancel_secs": 6 }));
    let story = Case::of(vec![cancelled]).run().await;
    let creates = story.creates();
    assert_eq!((creates.len(), story.taken(0).len()), (1, 0), "{}", story.told());
    let (name, online) = (&creates[0].name, story.online(&creates[0].name));
    assert!(online > story.queued(0) + 6.0, "it was cancelled before");
    let ended = story.ended(name)[0];
    assert!(ended.0 - online <= 301.0 && ended.2 == 64, "{}", story.told());
    assert!(story.terminations().is_empty());
    let (removed, reason) = story.removed(name).unwrap();
    assert!(removed - ended.0 <= 300.0 && reason == RemovalReason::Deleted, "{}", story.told());
}

/// runner#4248: registration tokens and JIT configs are good for an hour, and some were made ahead and kept longer.
///
/// Required: a config is minted when there is room for its sandbox, and used at once. Three pairs of jobs run one after
/// the other for 50 minutes each under a limit of two, and configs are good for half a minute: each is used within two
/// seconds, and none is made in vain, though Modal has every other create wait.
#[tokio::test(start_paused = true)]
async fn incident_runner_4248_jit_config_expired() {
    let story = Case::run_of(6, 3_000.0)
        .configure(|config| {
            config.limits.max_sandboxes = 2;
            (config.modal.creates_per_second, config.modal.create_burst) = (1.0, 1);
        })
        .knob("jit_config_secs", json!(30))
        .knob("modal_creates_per_second", json!(1.0))
        .knob("modal_create_burst", json!(1))
        .run()
        .await;
    let (mints, creates) = (story.mints(), story.creates());
    assert_eq!((mints.len(), creates.len()), (6, 6), "{}", story.told());
    for create in &creates {
        let mint = mints.iter().find(|mint| mint.config == create.config).unwrap();
        assert!(create.at - mint.at <= 2.0, "{}", story.told());
        assert_eq!(story.ended(&create.name)[0].2, 0, "{}", story.told());
    }
    let last = (0..6).map(|number| story.taken(number)[0].0 - story.queued(number)).fold(0.0, f64::max);
    assert!((6_000.0..6_100.0).contains(&last), "the last job waited {last} s");
}

/// A controller that dies at one call of the cleaning up of a sandbox whose runner never comes online.
async fn killed_at(operation: Operation, phase: CrashPhase) -> Story {
    let crash = Crash { client: 1, operation: Some(operation), nth: 1, phase };
    let story = Case::run_of(1, 60.0)
        .at_most(1)
        .fault(json!({ "name": "runner_never_online", "times": 1 }))
        .crash(crash)
        .recovers_within(900)
        .run()
        .await;
    assert_eq!((story.struck(FaultMode::NeverOnline).len(), story.killed().len()), (1, 1));
    story
}

/// terraform-aws#5453: a process died between marking a machine as its own to end and ending it; the mark stayed, and
/// the machine as well.
///
/// Required: nothing is marked, everything follows from the lists. The controller dies at each step of ending a sandbox
/// that takes the only place there is: its next life ends it within eleven minutes, and the job is served.
#[tokio::test(start_paused = true)]
async fn incident_terraform_aws_5453_terminating_for_ever() {
    for operation in [Operation::DeleteRunner, Operation::Terminate] {
        for phase in CrashPhase::ALL.iter().copied() {
            let story = killed_at(operation, phase).await;
            let first = &story.creates()[0].name;
            let (killed, ended) = (story.killed()[0], story.ended(first)[0].0);
            assert!(ended - killed <= 660.0, "{operation:?} {phase:?}: {}", story.told());
            story.served_within(0, ended - story.queued(0) + 60.0);
        }
    }
}

/// terraform-aws#4724: a look at GitHub failed, so an orphan was left alone, for ever.
///
/// Required: unknown is not kept for ever. GitHub's list of runners fails for hours, so that nothing can be proven of a
/// sandbox whose runner never comes online, and nothing is ended; but it was made with an end of its own.
#[tokio::test(start_paused = true)]
async fn incident_terraform_aws_4724_fetch_fails() {
    let minutes = |minutes: u64| Some(std::time::Duration::from_secs(minutes * 60));
    let class = ClassConfig { timeout: minutes(30), ..serde_json::from_value(json!({ "name": "short" })).unwrap() };
    let story = Case::run_of(1, 60.0)
        .configure(|config| config.runner_classes = vec![class])
        .fault(json!({ "name": "runner_never_online", "times": 1 }))
        .fault_at(60.0, json!({ "operation": "list_runners", "mode": "error", "until_secs": 6_000 }))
        .recovers_within(900)
        .run()
        .await;
    assert!(story.struck(FaultMode::Error).len() >= 10);
    let first = &story.creates()[0];
    let (ended, status, _) = story.ended(&first.name)[0];
    // 30 min of job, 2 to be placed, 3 to start, 5 to idle, 5 to spare.
    assert_eq!(status, TIMED_OUT, "{}", story.told());
    assert!(ended - first.at <= 45.0 * 60.0 + 5.0, "{}", story.told());
    assert!(story.terminations().is_empty(), "{}", story.told());
    story.served_within(0, f64::INFINITY);
}

/// garm#401: the power went, and rows stayed `pending` for machines that had never been made.
///
/// Required: an intent is worth nothing without what the lists say. The controller is killed around the registration
/// and around the create, with its memory on disk or without: the job is served within seven minutes, and nothing of
/// the attempt that came to nothing is left.
#[tokio::test(start_paused = true)]
async fn incident_garm_401_pending_for_ever() {
    for operation in [Operation::Mint, Operation::Create] {
        for (phase, is_kept) in [
            (CrashPhase::BeforeSend, true),
            (CrashPhase::BeforeSend, false),
            (CrashPhase::AfterApplied, true),
            (CrashPhase::AfterApplied, false),
        ] {
            let crash = Crash { client: 1, operation: Some(operation), nth: 1, phase };
            let case = Case::run_of(1, 60.0).at_most(1).crash(crash).recovers_within(420);
            let case = if is_kept { case.with_state_dir() } else { case };
            let story = case.run().await;
            let what = format!("{operation:?} {phase:?} {is_kept}");
            assert_eq!(story.killed().len(), 1, "{what}");
            assert!(story.taken(0)[0].0 - story.killed()[0] <= 420.0, "{what}: {}", story.told());
            assert_eq!(story.creates().len(), 1, "{what}: {}", story.told());
        }
    }
}
