//! Jobs that waited although a runner could have been had.

use sandrunner::sim::{Crash, CrashPhase, FaultMode, Operation, RemovalReason};
use serde_json::json;

use crate::case::{Case, Story};

/// runs-on#546: GitHub registered two runners and the answers were lost; the repeated requests got 409 and were given
/// up, and two of eight jobs waited for minutes, because a machine counted as assigned to each.
///
/// Required: the need is counted, not the assignment. The next name is used at once, every job is served in half a
/// minute by a runner of its own, and what is left of the lost registrations is deleted, as no sandbox uses it.
#[tokio::test(start_paused = true)]
async fn incident_runs_on_546_mint_reply_lost() {
    let story = Case::run_of(8, 120.0).fault(json!({ "name": "mint_reply_lost", "times": 2 })).run().await;
    assert_eq!(story.struck(FaultMode::ReplyLost).len(), 2);
    for number in 0..8 {
        story.served_within(number, 40.0);
        assert_eq!(story.taken(number).len(), 1, "job {number}");
    }
    let lost: Vec<String> = story.mints()[..2].iter().map(|mint| mint.name.clone()).collect();
    assert_eq!((story.mints().len(), story.creates().len()), (10, 8), "{}", story.told());
    for name in lost {
        assert!(story.creates().iter().all(|create| create.name != name), "{name} was used");
        assert_eq!(story.removed(&name).unwrap().1, RemovalReason::Deleted, "{name}");
    }
}

/// runs-on#546 to its end: the name of the lost registration is asked for once more, by a process that does not know
/// of it, and GitHub answers 409.
///
/// Required: a 409 says that the name is used, and no more. The controller is killed when GitHub has registered the
/// runner and is started again with nothing but a list that does not show it yet: its mint is refused, nothing is
/// deleted for it, the next name serves the job when no sandbox has come for three minutes, and the first
/// registration is deleted then.
#[tokio::test(start_paused = true)]
async fn incident_runs_on_546_name_taken() {
    let crash = Crash { client: 1, operation: Some(Operation::Mint), nth: 1, phase: CrashPhase::AfterApplied };
    let unseen = json!({ "operation": "mint", "mode": "visible_late", "seconds": 30 });
    let story = Case::run_of(1, 60.0).fault(unseen).crash(crash).recovers_within(420).run().await;
    assert_eq!(story.killed().len(), 1);
    let calls = story.calls(Operation::Mint);
    let statuses: Vec<u16> = calls.iter().map(|(_, status, _)| *status).collect();
    // The answer to the first was under way when its process died.
    assert_eq!(statuses, [201, 409, 201], "{}", story.told());
    let mints = story.mints();
    let (lost, used) = (&mints[0], &mints[1]);
    assert!((180.0..200.0).contains(&(used.at - calls[1].0)), "{}", story.told());
    assert_eq!(story.creates().iter().map(|create| &create.config).collect::<Vec<_>>(), [&used.config]);
    assert_eq!(story.taken(0)[0].1, used.name);
    let (deleted, reason) = story.removed(&lost.name).unwrap();
    assert!(deleted > used.at && reason == RemovalReason::Deleted, "{}", story.told());
}

/// The first sandbox of a job takes nine minutes to start, under a limit of so many sandboxes.
async fn slow_start(sandboxes: u32) -> Story {
    let slow = json!({ "operation": "boot", "mode": "slow_boot", "seconds": 540 });
    let story = Case::run_of(1, 60.0).at_most(sandboxes).fault(slow).recovers_within(600).run().await;
    assert_eq!(story.struck(FaultMode::SlowBoot).len(), 1);
    story
}

/// ARC#4602: a container needed nine minutes to start and its runner never registered, but it counted as a live
/// replica: the job behind it waited for 54 minutes.
///
/// Required: what does not register within the start limit of three minutes stops counting and is replaced a minute
/// later at most; where the limit has no room for both, as soon as it can be ended safely (five minutes of grace, a
/// reading, a minute and a half of settling).
#[tokio::test(start_paused = true)]
async fn incident_arc_4602_phantom_replica() {
    for (limit, within) in [(2, 260.0), (1, 480.0)] {
        let story = slow_start(limit).await;
        story.served_within(0, within);
        let creates = story.creates();
        assert_eq!(creates.len(), 2, "{}", story.told());
        assert_eq!(story.taken(0), [(story.taken(0)[0].0, creates[1].name.as_str())]);
        assert_eq!(story.terminations()[0].1, creates[0].name, "{}", story.told());
        assert!(story.terminations()[0].0 - creates[0].at < 480.0, "{}", story.told());
    }
}

/// ARC#4588: a pod was lost and made again with the JIT config that it had used; its runner was refused, and the
/// replacement sat there as a zombie for an hour.
///
/// Required: a config is used once. What replaces a lost sandbox has a registration, a name and a config of its own,
/// a minute after the loss at most.
#[tokio::test(start_paused = true)]
async fn incident_arc_4588_used_jit_config() {
    for lost in ["sandbox_dies_idle", "sandbox_dies_booting"] {
        let story = Case::run_of(1, 60.0).fault(json!({ "name": lost, "times": 1 })).run().await;
        let (mints, creates) = (story.mints(), story.creates());
        assert_eq!((mints.len(), creates.len()), (2, 2), "{lost}: {}", story.told());
        let died = story.ended(&creates[0].name)[0].0;
        assert!(creates[1].at - died <= 60.0, "{lost}: {}", story.told());
        assert_ne!((&creates[0].name, &creates[0].config), (&creates[1].name, &creates[1].config));
        assert_eq!(creates[1].config, mints[1].config);
        assert_eq!(story.taken(0)[0].1, creates[1].name, "{lost}: {}", story.told());
    }
}

/// ARC#4197, #4121, #4138: pods were gone, and their objects said `Running` for hours; nothing replaced them.
///
/// Required: what is there is read again, never remembered as true. Two sandboxes vanish one after the other without a
/// word, under a limit of one, and Modal lists each as running for another minute: its place is free half a minute
/// after the list is right.
#[tokio::test(start_paused = true)]
async fn incident_arc_4197_gone_and_still_running() {
    let ended_listed =
        json!({ "operation": "list_sandboxes", "mode": "ended_listed", "seconds": 60, "until_secs": 900 });
    let vanishes = json!({ "name": "sandbox_dies_idle", "times": 2 });
    let story = Case::run_of(1, 60.0).at_most(1).fault(vanishes).fault(ended_listed).recovers_within(600).run().await;
    assert!(!story.struck(FaultMode::EndedListed).is_empty());
    assert_eq!(story.struck(FaultMode::DiesIdle).len(), 2);
    let creates = story.creates();
    assert_eq!(creates.len(), 3, "{}", story.told());
    for pair in creates.windows(2) {
        let died = story.ended(&pair[0].name)[0].0;
        assert!((died..died + 95.0).contains(&pair[1].at), "{}", story.told());
    }
    assert_eq!(story.taken(0)[0].1, creates[2].name);
}

/// runner#4617: an ephemeral runner lost the race for its job, and with it its registration, and listened on for ever.
///
/// Required: its sandbox is gone at the idle limit of five minutes, ended by itself; until then it holds no job back
/// for longer, and nobody terminates it, because a missing registration alone proves nothing.
#[tokio::test(start_paused = true)]
async fn incident_runner_4617_lost_acquisition() {
    let story = Case::run_of(2, 120.0)
        .fault(json!({ "name": "acquisition_lost", "times": 1 }))
        .recovers_within(300)
        .run()
        .await;
    assert_eq!(story.struck(FaultMode::AcquisitionLost).len(), 1);
    let mints = story.mints();
    let loser = mints.iter().find(|mint| story.removed(&mint.name).is_some_and(|it| it.1 == RemovalReason::NotTaken));
    let loser = &loser.unwrap().name;
    let ended = story.ended(loser);
    assert_eq!(ended.len(), 1);
    assert!(ended[0].0 - story.online(loser) <= 305.0 && ended[0].2 == 64, "{}", story.told());
    assert!(story.terminations().is_empty());
    story.served_within(0, 30.0);
    story.served_within(1, 360.0);
}

/// runner#4726: GitHub removed idle JIT runners after some minutes, and their processes ended with code 0, as after a
/// job; whoever took that for the end of the job never served it.
///
/// Required: the end of a sandbox says nothing about a job, whatever its code. The job is still queued, so it is
/// counted and served again, by the next registration, two minutes after the removal at most.
#[tokio::test(start_paused = true)]
async fn incident_runner_4726_exit_0_without_a_job() {
    let withheld = json!({ "name": "runner_never_claimed", "times": 1 });
    let removed = json!({ "name": "removed_runner_exits_0", "times": 1 });
    let story = Case::run_of(1, 60.0).fault(withheld).fault(removed).run().await;
    assert_eq!((story.struck(FaultMode::ExitsZero).len(), story.struck(FaultMode::Withheld).len()), (1, 1));
    let first = &story.creates()[0].name;
    let (removed, reason) = story.removed(first).unwrap();
    assert_eq!(reason, RemovalReason::Idle);
    assert!(matches!(story.ended(first)[..], [(_, 1, 0)]), "{}", story.told());
    assert!(story.taken(0)[0].0 - removed <= 120.0, "{}", story.told());
    assert_eq!(story.taken(0)[0].1, story.creates()[1].name);
    assert_eq!(story.mints().len(), 2, "{}", story.told());
}

/// ARC#3953: once a day, a runner was told that it did not exist just after it began to listen.
///
/// Required: the attempt ends at once instead of sitting there, and the job has another runner within a minute.
#[tokio::test(start_paused = true)]
async fn incident_arc_3953_runner_not_found() {
    let removed = json!({ "operation": "connect", "mode": "removed_idle", "seconds": 0.5 });
    let story = Case::run_of(1, 60.0).fault(removed).run().await;
    assert_eq!(story.struck(FaultMode::RemovedIdle).len(), 1);
    let creates = story.creates();
    let (removed, _) = story.removed(&creates[0].name).unwrap();
    assert!(removed - story.online(&creates[0].name) < 1.0);
    assert!(story.ended(&creates[0].name)[0].0 - removed < 5.0, "{}", story.told());
    assert_eq!((creates.len(), story.taken(0)[0].1), (2, creates[1].name.as_str()), "{}", story.told());
    assert!(story.taken(0)[0].0 - removed <= 60.0, "{}", story.told());
}

/// GitHub's availability report for May 2025: after a failover jobs were given to two runners each, and a fifth of all
/// jobs was late.
///
/// Required: a job that two runners have keeps nobody else waiting, and is not wedged on its second runner: every
/// other job has a runner within five minutes of the last mix-up, and all runners end.
#[tokio::test(start_paused = true)]
async fn incident_github_2025_05_job_for_two_runners() {
    let story = Case::run_of(6, 90.0)
        .fault(json!({ "name": "job_assigned_twice", "times": 3 }))
        .recovers_within(300)
        .run()
        .await;
    assert_eq!(story.struck(FaultMode::AssignedTwice).len(), 3);
    let doubled = (0..6).filter(|number| story.taken(*number).len() == 2).count();
    assert_eq!(doubled, 3, "{}", story.told());
    let last = story.struck(FaultMode::AssignedTwice)[2];
    for number in 0..6 {
        assert!(story.taken(number)[0].0 - last <= 300.0, "{}", story.told());
        story.served_within(number, f64::INFINITY);
    }
    assert_eq!(story.creates().len(), 9, "{}", story.told());
    assert!(story.terminations().is_empty());
}
