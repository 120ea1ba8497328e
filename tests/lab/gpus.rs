//! GPUs that Modal has none of, machines that it takes away, what its workspace may spend, and what dead sandboxes printed.

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::sim::{Fault, FaultMode, Operation, Profile, Scenario, What, World};
use sandrunner::state_dir::{Which, kept_logs};
use serde_json::{Value, json};
use tracing::Level;

use crate::checker::{Clocks, Rules, check};
use crate::lab::{Keeping, Lab, Next, Outcome, epoch, is_done_and_clean};
use crate::log::Log;

const HOURS_6: Duration = Duration::from_secs(6 * 3600);

/// Calm services, at which an image is soon built.
fn calm() -> Profile {
    Profile { image_build_secs: 1.0, ..Profile::calm() }
}

/// Jobs of class `train` that arrive at such seconds, and faults as a scenario file writes them.
fn scenario(arrivals: &[u32], faults: &Value) -> Scenario {
    let job = |(index, arrival): (usize, &u32)| {
        json!({ "id": 5_000_000_001 + index as u64, "run": 6_000_000_001 + index as u64, "repo": "acme/web",
            "labels": ["self-hosted", "modal", "job-train"], "duration_secs": 30, "arrival_secs": arrival })
    };
    let jobs: Vec<Value> = arrivals.iter().enumerate().map(job).collect();
    let scenario = json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs, "faults": faults });
    serde_json::from_value(scenario).expect("a scenario")
}

/// A World in which class `train` has such keys, beside its name, its label and a short patience.
fn lab(profile: Profile, scenario: Scenario, keys: &Value) -> Lab {
    let mut class = json!({ "name": "train", "labels": ["job-train"], "schedule_timeout": "2m" });
    class.as_object_mut().expect("a table").extend(keys.as_object().expect("a table").clone());
    Lab::new(profile, scenario, 1)
        .configure(|config| config.runner_classes = vec![serde_json::from_value(class).expect("a class")])
}

/// What sandboxes were asked for on, and when.
fn asked(outcome: &Outcome) -> Vec<(f64, String)> {
    let of = |what: &What| match what {
        What::SandboxCreated { tags, .. } => {
            let tag = |name: &str| tags.get(name).cloned();
            Some([tag("gpu"), tag("regions")].into_iter().flatten().collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    let told = outcome.history.iter().filter_map(|event| Some((event.at, of(&event.what)?)));
    told.map(|(at, on)| ((at - epoch()).as_seconds_f64(), on)).collect()
}

fn machines(outcome: &Outcome) -> Vec<String> {
    asked(outcome).into_iter().map(|(_, on)| on).collect()
}

/// All was served and is gone, and the checker has nothing to say.
fn judge(outcome: &Outcome) {
    let report = &outcome.report;
    assert_eq!(report.jobs_completed, report.jobs_expected, "{}", outcome.summary());
    assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0), "{}", outcome.summary());
    assert!(report.violations.is_empty(), "{}", outcome.summary());
    let lines: String =
        outcome.history.iter().map(|event| serde_json::to_string(event).expect("an event") + "\n").collect();
    let patience = Clocks { schedule: TimeDelta::minutes(2), ..Rules::default().clocks };
    let mut violations = check(&lines, Rules { clocks: patience, ..Rules::default() });
    // That Modal has no machine of a kind is in the way of a job, and not known to the checker.
    violations.retain(|violation| violation.invariant != "served_late");
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Whether all is done and gone, and nothing was changed for a while.
fn is_quiet() -> impl FnMut(&World) -> bool {
    let mut since = None;
    move |world| {
        if !is_done_and_clean(world) {
            return false;
        }
        let now = world.clock().now();
        (now - *since.get_or_insert(now)).num_seconds() > 240
    }
}

#[tokio::test(start_paused = true)]
async fn a_gpu_that_modal_has_none_of_is_replaced_by_the_next_and_tried_again_after_a_pause() {
    let log = Log::default();
    let _logs = log.begin(Level::WARN);
    // H100s are sold out for a while: the second job comes within the pause, the third after it and in vain, the last
    // after the next pause, when there are some again.
    let sold_out = json!([{ "knobs": { "modal_gpus_sold_out": ["H100"] }, "until_secs": 1_500 }]);
    let keys = json!({ "gpu": "h100", "gpu_fallback": ["a100-80gb:2", "l40s"] });
    let lab = lab(calm(), scenario(&[5, 300, 900, 2_600], &sold_out), &keys);
    let outcome = lab.run(HOURS_6, is_quiet()).await;
    judge(&outcome);
    let asked = asked(&outcome);
    let expected = ["1.H100", "2.A100-80GB", "2.A100-80GB", "1.H100", "2.A100-80GB", "1.H100"];
    assert_eq!(machines(&outcome), expected, "{asked:?}");
    assert!((125.0..165.0).contains(&asked[1].0), "after two minutes: {asked:?}");
    assert!((300.0..315.0).contains(&asked[2].0), "at once: {asked:?}");
    assert!((1_015.0..1_050.0).contains(&asked[4].0), "after two minutes: {asked:?}");
    let times = |is_it: fn(&What) -> bool| outcome.times(is_it).len();
    let fenced = times(|what| matches!(what, What::RunnerDeleteAsked { .. }));
    let ended = times(|what| matches!(what, What::TerminateAsked { .. }));
    assert_eq!((fenced, ended), (2, 2), "those that were never placed: {}", outcome.summary());
    let told = log.lines("Modal placed no sandbox on such a machine in time");
    assert!(told.len() == 2 && told[0].contains("machine=H100 next=A100-80GB:2"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn after_all_gpus_of_a_region_come_those_of_the_next() {
    let profile = Profile { modal_gpus_sold_out: ["H100@us-east", "L40S@us-east"].map(str::to_owned).into(), ..calm() };
    let keys = json!({ "gpu": "h100", "gpu_fallback": ["l40s"], "regions": ["us-east"], "region_fallback": ["eu"] });
    let outcome = lab(profile, scenario(&[5], &json!([])), &keys).run(HOURS_6, is_quiet()).await;
    judge(&outcome);
    assert_eq!(machines(&outcome), ["1.H100 us-east", "1.L40S us-east", "1.H100 eu"]);
}

#[tokio::test(start_paused = true)]
async fn a_gpu_that_modal_refuses_is_passed_over_and_the_image_of_the_class_stays() {
    let profile = Profile { modal_gpus_sold_out: vec!["H100".to_owned()], ..calm() };
    let keys = json!({ "gpu": "h100", "gpu_fallback": ["b200", "l40s"] });
    // What Modal finds wrong or missing may be the image, which is looked up before the machine is blamed.
    for (status, times, gpu, within) in [
        (7, 1, "L40S", 170.0),
        (3, 1, "B200", 280.0),
        (3, 2, "L40S", 400.0),
        (5, 1, "B200", 280.0),
        (5, 2, "L40S", 400.0),
    ] {
        let lab = lab(profile.clone(), scenario(&[5], &json!([])), &keys);
        let refused =
            Fault { status: Some(status), times, from_secs: 60.0, ..Fault::new(Operation::Create, FaultMode::Error) };
        lab.world.add_fault(refused).expect("a fault");
        let outcome = lab.run(HOURS_6, is_quiet()).await;
        judge(&outcome);
        assert_eq!(machines(&outcome), ["1.H100".to_owned(), format!("1.{gpu}")], "status {status}, {times} times");
        let last = asked(&outcome)[1].0;
        assert!((125.0..within).contains(&last), "status {status}, {times} times: {last}");
        let builds = outcome.times(|what| matches!(what, What::Call { operation: Operation::ImageBuild, .. }));
        assert!(builds.iter().all(|at| *at < 60.0), "status {status}: {builds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_workspace_may_use_no_more_gpus_no_machine_is_blamed() {
    let log = Log::default();
    let _logs = log.begin(Level::WARN);
    let profile = Profile { modal_max_gpus: Some(1), ..calm() };
    let mut scenario = scenario(&[5, 10], &json!([]));
    scenario.jobs[0].duration_secs = 1_200.0;
    let lab = lab(profile, scenario, &json!({ "gpu": "t4", "gpu_fallback": ["l4"] }));
    let (questions, mut asked_at, mut is_over) = (lab.questions(), None, is_quiet());
    let next = |world: &World| {
        let seconds = (world.clock().now() - epoch()).num_seconds();
        if seconds >= 700 && asked_at.is_none() {
            asked_at = Some(questions.ask());
        }
        if is_over(world) { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(HOURS_6, Duration::from_secs(1), next).await;
    judge(&outcome);
    assert_eq!(machines(&outcome), ["1.T4"; 3], "one ran, one waited in vain, one served once there was room");
    assert!((1_200.0..1_350.0).contains(&asked(&outcome)[2].0), "{:?}", asked(&outcome));
    assert!(log.lines("Modal placed no sandbox on such a machine in time").is_empty());
    let status = asked_at.expect("it was asked").await.expect("it is answered");
    let [job] = &status.jobs[..] else { panic!("{:?}", status.jobs) };
    assert_eq!(job.text, "at limit: Modal's GPU quota: its workspace uses 1 of 1 GPUs");
}

#[tokio::test(start_paused = true)]
async fn gpus_in_use_are_counted_after_a_restart_as_before() {
    // Four GPUs may be used, and each sandbox has two of the second choice.
    let profile = Profile { modal_gpus_sold_out: vec!["H100".to_owned()], ..calm() };
    let mut scenario = scenario(&[5, 5, 5, 5], &json!([]));
    scenario.jobs.iter_mut().for_each(|job| job.duration_secs = 900.0);
    let keys = json!({ "gpu": "h100", "gpu_fallback": ["a100:2"] });
    let lab = lab(profile, scenario, &keys).configure(|config| config.limits.max_gpus = 4);
    let mut most = 0;
    let mut kills = [600, 700, 800].into_iter().peekable();
    let next = |world: &World| {
        let seconds = (world.clock().now() - epoch()).num_seconds();
        if is_done_and_clean(world) {
            return Next::End;
        }
        if kills.peek().is_some_and(|at| *at <= seconds) {
            kills.next();
            return Next::Kill;
        }
        Next::GoOn
    };
    let outcome = lab.drive(HOURS_6, Duration::from_secs(1), next).await;
    assert_eq!(outcome.report.jobs_completed, 4, "{}", outcome.summary());
    let mut in_use: Vec<(String, u32)> = Vec::new();
    for event in &outcome.history {
        match &event.what {
            What::SandboxCreated { sandbox, tags, .. } => {
                let gpus = tags
                    .get("gpu")
                    .and_then(|tag| tag.split_once('.'))
                    .map_or(0, |(count, _)| count.parse().expect("a count"));
                in_use.push((sandbox.to_string(), gpus));
                most = most.max(in_use.iter().map(|(_, gpus)| gpus).sum::<u32>());
            }
            What::SandboxEnded { sandbox, .. } => in_use.retain(|(id, _)| **id != **sandbox),
            _ => {}
        }
    }
    assert_eq!(most, 4, "{}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_modal_takes_away_is_told_and_its_need_served_anew() {
    let log = Log::default();
    let _logs = log.begin(Level::WARN);
    let lab = lab(calm(), scenario(&[5, 10, 15], &json!([])), &json!({ "gpu": "t4" }));
    // Before a job is given to it, so that the job stays queued.
    let preempted = Fault { times: 3, seconds: Some(0.2), ..Fault::new(Operation::Boot, FaultMode::Preempted) };
    lab.world.add_fault(preempted).expect("a fault");
    let outcome = lab.run(HOURS_6, is_quiet()).await;
    judge(&outcome);
    assert_eq!(machines(&outcome).len(), 6, "each job's first sandbox was taken away: {}", outcome.summary());
    assert!(outcome.report.pickup_seconds.max < 60.0, "no breaker opened: {}", outcome.summary());
    let told = log.lines("Modal's machine failed or was taken away");
    assert!(told.len() == 3 && told.iter().all(|line| line.contains("reason=\"preempted\"")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn where_modals_spend_limit_is_reached_nothing_is_tried_and_the_reason_is_told() {
    let lab = lab(calm(), scenario(&[5, 100, 200], &json!(["modal_spend_limit"])), &json!({}));
    let (questions, mut asked) = (lab.questions(), None);
    let next = |world: &World| {
        let seconds = (world.clock().now() - epoch()).num_seconds();
        if seconds >= 300 && asked.is_none() {
            asked = Some(questions.ask());
        }
        if is_done_and_clean(world) { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(HOURS_6, Duration::from_secs(1), next).await;
    assert_eq!(outcome.report.jobs_completed, 3, "{}", outcome.summary());
    assert!(outcome.report.virtual_seconds < 1_100.0, "{}", outcome.summary());
    let status = asked.expect("it was asked").await.expect("it is answered");
    assert!(
        status.modal.spend_limit_reached && status.modal.environment.as_deref() == Some("main"),
        "{:?}",
        status.modal
    );
    assert_eq!(status.jobs.iter().map(|job| job.reason).collect::<Vec<_>>(), ["modal_spend_limit"; 3]);
    let refused = outcome.times(|what| matches!(what, What::Call { operation: Operation::Create, status: 8, .. }));
    assert!(refused.len() <= 1, "{refused:?}");
    let read = outcome.times(|what| matches!(what, What::Call { operation: Operation::Environments, .. }));
    let gaps = read.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.into_iter().all(|gap| gap >= 59.0) && read.len() >= 10, "once a minute: {read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_create_is_explained_by_the_quota() {
    let profile = Profile { modal_max_containers: Some(1), ..calm() };
    let lab = lab(profile, scenario(&[5, 20, 20], &json!([])), &json!({}));
    let (questions, mut asked) = (lab.questions(), None);
    let next = |world: &World| {
        let seconds = (world.clock().now() - epoch()).num_seconds();
        // The quota is read again once a minute has passed since the first reading.
        if seconds >= 75 && asked.is_none() {
            asked = Some(questions.ask());
        }
        if is_done_and_clean(world) { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(HOURS_6, Duration::from_secs(1), next).await;
    assert_eq!(outcome.report.jobs_completed, 3, "{}", outcome.summary());
    let status = asked.expect("it was asked").await.expect("it is answered");
    assert_eq!((status.modal.max_tasks, status.modal.max_gpus), (Some(1), None));
    let told = status
        .jobs
        .iter()
        .find(|job| job.reason == "at_limit")
        .unwrap_or_else(|| panic!("one waits for room: {:?}", status.jobs));
    assert!(told.text.ends_with("(its workspace runs 1 of 1 containers)"), "{}", told.text);
}

#[tokio::test(start_paused = true)]
async fn what_a_sandbox_printed_that_served_nothing_is_kept_and_the_log_tells_where() {
    for gpu in [json!({}), json!({ "gpu": "t4" })] {
        let log = Log::default();
        let _logs = log.begin(Level::WARN);
        let lab = lab(calm(), scenario(&[5], &json!([])), &gpu).keeping(Keeping::All);
        lab.world.add_fault(Fault::new(Operation::Boot, FaultMode::Crash)).expect("a fault");
        let dir = lab.state_dir(1);
        let mut kept = Vec::new();
        let next = |world: &World| {
            if is_done_and_clean(world) && (world.clock().now() - epoch()).num_seconds() > 200 {
                kept = kept_logs(&dir, &Which::All).expect("it can be read");
                return Next::End;
            }
            Next::GoOn
        };
        let outcome = lab.drive(HOURS_6, Duration::from_secs(1), next).await;
        let [crashed] = &kept[..] else { panic!("{kept:?}: {}", outcome.summary()) };
        assert_eq!((crashed.value("reason"), crashed.value("job")), ("crashed", "5000000001"));
        assert!(crashed.text.contains("\n\nAn error occurred: the runner crashed.\n"), "{}", crashed.text);
        let fetched = outcome.times(|what| matches!(what, What::Call { operation: Operation::Logs, .. }));
        assert_eq!(fetched.len(), 1, "once: {fetched:?}");
        let told = log.lines("a sandbox failed");
        let path = dir.join("logs-main").join(format!("{}.log", crashed.name));
        assert!(told.len() == 1 && told[0].contains(&path.display().to_string()), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn output_that_cannot_be_fetched_at_first_is_fetched_later_and_at_a_stop_the_reason_is_kept() {
    let place = tempfile::tempdir().expect("a scratch directory");
    // Each fetch repeats a call three times.
    for (failures, is_stopped, expected) in
        [(4, false, "the runner crashed"), (12, false, "cannot be fetched"), (0, true, "was stopped before")]
    {
        let log = Log::default();
        let _logs = log.begin(Level::WARN);
        let dir = place.path().join(expected);
        let lab = lab(calm(), scenario(&[5], &json!([])), &json!({})).keeping_in(&dir);
        lab.world.add_fault(Fault::new(Operation::Boot, FaultMode::Crash)).expect("a fault");
        if failures > 0 {
            let lost = Fault { times: failures, status: Some(14), ..Fault::new(Operation::Logs, FaultMode::Error) };
            lab.world.add_fault(lost).expect("a fault");
        }
        let is_over = |world: &World| {
            let is_told = !log.lines("a sandbox failed").is_empty();
            is_told && (is_stopped || (world.clock().now() - epoch()).num_seconds() > 400)
        };
        let outcome = lab.run(HOURS_6, is_over).await;
        let kept = kept_logs(&dir, &Which::All).expect("it can be read");
        let [crashed] = &kept[..] else { panic!("{kept:?}: {}", outcome.summary()) };
        assert_eq!(crashed.value("reason"), "crashed");
        assert!(crashed.text.contains(expected), "{}", crashed.text);
        let fetched = outcome.times(|what| matches!(what, What::Call { operation: Operation::Logs, .. }));
        assert_eq!(
            fetched.len(),
            [0, 5, 12][(usize::from(!is_stopped)) * (1 + usize::from(failures == 12))],
            "{fetched:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_cannot_be_written_to_is_one_warning_and_nothing_else() {
    let log = Log::default();
    let _logs = log.begin(Level::WARN);
    let lab = lab(calm(), scenario(&[5, 6, 7], &json!([])), &json!({})).keeping(Keeping::All);
    lab.world.add_fault(Fault { times: 3, ..Fault::new(Operation::Boot, FaultMode::Crash) }).expect("a fault");
    let dir = lab.state_dir(1);
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    std::fs::write(dir.join("logs-main"), "no folder").expect("a scratch directory");
    let outcome = lab.run(HOURS_6, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 3, "{}", outcome.summary());
    let told = log.lines("what sandboxes print is not kept");
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nears_the_longest_time_of_its_class_is_told_of_once() {
    let log = Log::default();
    let _logs = log.begin(Level::WARN);
    let mut scenario = scenario(&[5, 6], &json!([]));
    (scenario.jobs[0].duration_secs, scenario.jobs[1].duration_secs) = (590.0, 400.0);
    let outcome = lab(calm(), scenario, &json!({ "timeout": "10m" })).run(HOURS_6, is_quiet()).await;
    judge(&outcome);
    let told = log.lines("a job nears the longest time of its class");
    assert!(told.len() == 1 && told[0].contains("job_id=5000000001"), "{told:?}");
}
