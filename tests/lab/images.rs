//! Images of the configuration's own: steps, private registries, builds that fail, and images whose runners do not come.

use std::collections::BTreeMap;
use std::time::Duration;

use sandrunner::config::Config;
use sandrunner::sim::{Fault, FaultMode, Operation, Profile, Scenario, What, World};
use sandrunner::status::Status;
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use crate::lab::{Keeping, Lab, Next, Outcome, epoch, is_done_and_clean};

type Answer = Receiver<Status>;

const HOUR: f64 = 3_600.0;

/// Jobs of a minute, each with a label of its own class or without one, at some times.
fn jobs(own: &[f64], others: &[f64]) -> Value {
    let of = |labels: &'static [&'static str], first: u64, times: &[f64]| -> Vec<Value> {
        let job = |(index, at): (u64, &f64)| {
            json!({ "id": first + index, "run": first + 1_000 + index, "repo": "acme/web", "labels": labels,
                "duration_secs": 60, "arrival_secs": at })
        };
        (0_u64..).zip(times).map(job).collect()
    };
    let mut jobs = of(&["self-hosted", "modal", "job-own"], 5_000_000_000, own);
    jobs.extend(of(&["self-hosted", "modal"], 5_000_100_000, others));
    json!(jobs)
}

fn scenario(jobs: &Value, more: &Value) -> Scenario {
    let mut scenario = json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs });
    scenario.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
    serde_json::from_value(scenario).expect("a scenario")
}

/// A class `own` with an image of that name, by a label that the scenario expects to be served.
fn with_image(image: &Value) -> impl Fn(&mut Config) {
    let mut table = json!({ "name": "own" });
    table.as_object_mut().expect("a table").extend(image.as_object().expect("a table").clone());
    move |config| {
        config.images = vec![serde_json::from_value(table.clone()).expect("an image")];
        let class = json!({ "name": "own", "labels": ["job-own"], "image": "own" });
        config.runner_classes = vec![serde_json::from_value(class).expect("a class")];
    }
}

/// When each layer that was built was first asked after, in seconds.
fn builds(outcome: &Outcome) -> Vec<f64> {
    let mut first: BTreeMap<String, f64> = BTreeMap::new();
    for event in &outcome.history {
        if let What::Call { operation: Operation::ImageLog, target, .. } = &event.what {
            first.entry(target.clone()).or_insert((event.at - epoch()).as_seconds_f64());
        }
    }
    let mut times: Vec<f64> = first.into_values().collect();
    times.sort_by(f64::total_cmp);
    times
}

fn calls(outcome: &Outcome, wanted: Operation) -> usize {
    outcome.times(|what| matches!(what, What::Call { operation, .. } if *operation == wanted)).len()
}

/// Runs until a time, and asks for the status at some others.
async fn asked(lab: Lab, until: f64, at: &[f64]) -> (Outcome, Vec<Status>) {
    let questions = lab.questions();
    let (mut waiting, mut answers): (Vec<f64>, Vec<Answer>) = (at.to_vec(), Vec::new());
    let next = |world: &World| {
        let now = (world.clock().now() - epoch()).as_seconds_f64();
        if waiting.first().is_some_and(|at| *at <= now) {
            waiting.remove(0);
            answers.push(questions.ask());
        }
        if now >= until { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(Duration::from_secs(24 * 3_600), Duration::from_secs(5), next).await;
    let mut told = Vec::new();
    for answer in answers {
        told.push(answer.await.expect("it is answered"));
    }
    (outcome, told)
}

#[tokio::test(start_paused = true)]
async fn a_class_is_served_with_steps_on_each_kind_of_base() {
    for image in [
        json!({ "apt": ["nodejs"], "env": { "PATH": "/opt/x:$PATH" }, "run": ["npm i -g pnpm", "true"] }),
        json!({ "base": "debian:13", "run": ["true"] }),
        json!({ "base": "im-base", "apt": ["make"] }),
        json!({ "base": "im-base", "runner": false }),
        json!({ "base": "ghcr.io/acme/runner:1", "runner": false }),
    ] {
        let more = json!({ "images": ["im-base"],
            "registry_images": [{ "reference": "ghcr.io/acme/runner:1", "runner": "2.336.0" }] });
        let lab = Lab::new(Profile::calm(), scenario(&jobs(&[5.0], &[5.0]), &more), 1).configure(with_image(&image));
        let outcome = lab.run(Duration::from_secs(3_600), is_done_and_clean).await;
        assert_eq!(outcome.report.jobs_completed, 2, "{image}: {}", outcome.summary());
        assert!(outcome.report.violations.is_empty(), "{image}: {}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_private_registry_is_asked_with_the_secret_that_is_named() {
    let values = |password: &str| json!({ "REGISTRY_USERNAME": "acme", "REGISTRY_PASSWORD": password });
    let more = json!({
        "private_registries": [{ "prefix": "ghcr.io/acme", "username": "acme", "password": "right" }],
        "secrets": [{ "name": "right", "values": values("right") }, { "name": "wrong", "values": values("wrong") },
            { "name": "half", "values": { "REGISTRY_USERNAME": "acme" } }],
    });
    for (secret, told) in [
        (Some("right"), ""),
        (Some("wrong"), "pull access denied for ghcr.io/acme/base:1"),
        (None, "pull access denied for ghcr.io/acme/base:1"),
        (Some("half"), "must hold REGISTRY_USERNAME and REGISTRY_PASSWORD"),
        (Some("none"), "there is no Modal Secret `none`"),
    ] {
        let image = json!({ "base": "ghcr.io/acme/base:1", "registry_secret": secret });
        let lab = Lab::new(Profile::calm(), scenario(&jobs(&[5.0], &[5.0]), &more), 1).configure(with_image(&image));
        let (outcome, status) = asked(lab, 400.0, &[300.0]).await;
        assert_eq!(outcome.report.jobs_completed, if told.is_empty() { 2 } else { 1 }, "{}", outcome.summary());
        let skipped: Vec<String> = status[0].jobs.iter().map(|job| job.text.clone()).collect();
        assert!(skipped.concat().contains(told), "{secret:?}: {skipped:?}");
        assert_eq!(outcome.report.secrets_left_at_end, 0, "{}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_always_fails_holds_up_nobody_else_and_is_built_once_per_step_of_its_pauses() {
    let others: Vec<f64> = (0..110).map(|index| 5.0 + f64::from(index) * 60.0).collect();
    let run = |own: &[f64], command: &str| {
        let lab = Lab::new(Profile::calm(), scenario(&jobs(own, &others), &json!({})), 1);
        asked(lab.configure(with_image(&json!({ "run": ["true", command] }))), 2.0 * HOUR, &[1.9 * HOUR])
    };
    let own = [5.0, 600.0, 3_000.0];
    let (failing, status) = run(&own, "echo before && false").await;
    let (calm, _) = run(&[], "true").await;
    assert_eq!(failing.report.jobs_completed, others.len(), "{}", failing.summary());
    // From queued to given to a runner, but for the first, which waits for the image of all.
    let waits = |outcome: &Outcome| -> Vec<f64> {
        let given = outcome.times(|what| matches!(what, What::JobAssigned { .. }));
        let mut waits: Vec<f64> = given.iter().zip(&others).map(|(given, queued)| given - queued).skip(1).collect();
        waits.sort_by(f64::total_cmp);
        waits
    };
    let (with, without) = (waits(&failing), waits(&calm));
    assert_eq!((with.len(), without.len()), (others.len() - 1, others.len() - 1));
    let mean = |waits: &[f64]| waits.iter().sum::<f64>() / f64::from(u32::try_from(waits.len()).expect("some"));
    let figures = |waits: &[f64]| (mean(waits), waits[waits.len() * 95 / 100], waits[waits.len() - 1]);
    let ((mean, p95, max), (mean_calm, p95_calm, max_calm)) = (figures(&with), figures(&without));
    println!(
        "others wait {mean:.2} s, p95 {p95:.2}, max {max:.2}; without it {mean_calm:.2}, {p95_calm:.2}, {max_calm:.2}"
    );
    // Looks are every ten seconds: when they fall differs between the runs, how long jobs wait for them does not.
    assert!(mean < mean_calm + 0.5 && p95 < p95_calm + 1.0 && max < max_calm + 2.0, "{with:?} against {without:?}");

    // Two layers of the default image, then one attempt at the steps after each pause.
    let attempts: Vec<f64> = builds(&failing)[2..].to_vec();
    let pauses = [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1_800.0, 1_800.0];
    assert!((7..=9).contains(&attempts.len()), "{attempts:?}");
    let gaps: Vec<f64> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().zip(pauses).all(|(gap, pause)| *gap >= pause), "{gaps:?}");

    let own_class = status[0].classes.iter().find(|(name, _)| name.as_str() == "own").expect("the class").1;
    let image = own_class.image.clone().unwrap_or_default();
    assert!(
        image.contains("step 3 ended with exit code 1") && image.contains("=> RUN echo before && false"),
        "{image}"
    );
    let reasons: Vec<&str> = status[0].jobs.iter().map(|job| job.reason).collect();
    assert_eq!(reasons, ["image_failed"; 3]);
}

/// Runners that do not come online, by what their image does to them.
fn faulty(mode: FaultMode) -> Fault {
    Fault::new(Operation::ImageBuild, mode)
}

/// A release an hour after the start, whose image is made within the second hour, and jobs all the while.
fn renewed(fault: Fault) -> Lab {
    let arrivals: Vec<f64> = (0..50).map(|index| 5.0 + f64::from(index) * 300.0).collect();
    let releases = json!({ "runner_releases": [{ "version": "2.336.0" },
        { "version": "2.337.0", "offered_secs": 1_800 }] });
    let lab = Lab::new(Profile::calm(), scenario(&jobs(&[], &arrivals), &releases), 1);
    // After both layers of the first image.
    let fault = Fault { after: 2, seconds: Some(1_800.0), ..fault };
    lab.world.add_fault(fault).expect("a fault");
    lab
}

/// When sandboxes of the new image were created whose runners did not come, in seconds.
fn in_vain(outcome: &Outcome) -> Vec<f64> {
    outcome.times(|what| matches!(what, What::FaultStruck { operation: Operation::Boot, .. }))
}

#[tokio::test(start_paused = true)]
async fn a_new_image_whose_first_runners_do_not_register_gives_way_to_the_one_before_for_an_hour() {
    let no_bash = Fault { status: Some(127), ..faulty(FaultMode::Crash) };
    for fault in [faulty(FaultMode::NeverOnline), faulty(FaultMode::RegistrationFailed), no_bash] {
        let mode = fault.mode;
        let (outcome, status) = asked(renewed(fault), 4.3 * HOUR, &[0.9 * HOUR, 1.8 * HOUR, 4.2 * HOUR]).await;
        assert_eq!(outcome.report.jobs_completed, 50, "{mode:?}: {}", outcome.summary());
        let lost = in_vain(&outcome);
        assert!((3..=6).contains(&lost.len()), "{mode:?}: {lost:?}");
        let image = |status: &Status| {
            let class = status.classes.iter().find(|(name, _)| name.as_str() == "default").expect("the class").1;
            (class.image.clone(), class.image_overdue.as_ref().map(|late| late.why.clone()))
        };
        let told: Vec<_> = status.iter().map(image).collect();
        assert_eq!((&told[0].0, &told[0].1), (&told[1].0, &None), "{mode:?}: it goes back to the one before");
        let why = told[1].1.clone().unwrap_or_default();
        assert!(why.contains("did not come online"), "{mode:?}: {told:?}");
        assert!(told[2].0 != told[0].0 && told[2].1.is_none(), "{mode:?}: it is tried again: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_remembered_over_a_restart_and_the_last_good_image_serves_at_once() {
    let lab = renewed(faulty(FaultMode::NeverOnline)).keeping(Keeping::All);
    let questions = lab.questions();
    let (mut is_killed, mut answer): (bool, Option<Answer>) = (false, None);
    let next = |world: &World| {
        let now = (world.clock().now() - epoch()).as_seconds_f64();
        if now >= 1.7 * HOUR && answer.is_none() {
            answer = Some(questions.ask());
        }
        if now >= 1.6 * HOUR && !std::mem::replace(&mut is_killed, true) {
            return Next::Kill;
        }
        if now >= 1.8 * HOUR { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(Duration::from_secs(24 * 3_600), Duration::from_secs(5), next).await;
    let lost = in_vain(&outcome);
    assert!((3..=6).contains(&lost.len()) && lost.iter().all(|at| *at < 1.6 * HOUR), "{lost:?}");
    let status = answer.expect("it was asked").await.expect("it is answered");
    let class = status.classes.iter().find(|(name, _)| name.as_str() == "default").expect("the class").1;
    let why = class.image_overdue.as_ref().map(|late| late.why.clone()).unwrap_or_default();
    assert!(why.contains("did not come online"), "{:?}", class.image);
}

#[tokio::test(start_paused = true)]
async fn a_refused_create_does_not_cost_the_image_that_stands_in_for_one_that_was_given_up() {
    let lab = renewed(faulty(FaultMode::NeverOnline));
    // Something that a sandbox needs is missing, after the class went back.
    let refused = Fault { status: Some(5), from_secs: 1.6 * HOUR, ..Fault::new(Operation::Create, FaultMode::Error) };
    lab.world.add_fault(refused).expect("a fault");
    let (outcome, status) = asked(lab, 2.0 * HOUR, &[0.9 * HOUR, 1.8 * HOUR]).await;
    let struck = outcome.times(|what| matches!(what, What::FaultStruck { operation: Operation::Create, .. }));
    assert_eq!(struck.len(), 1, "{struck:?}");
    let image = |status: &Status| status.classes.iter().find(|(name, _)| name.as_str() == "default")?.1.image.clone();
    let images: Vec<Option<String>> = status.iter().map(image).collect();
    assert!(images[0].is_some() && images[0] == images[1], "{images:?}");
    assert!(in_vain(&outcome).iter().all(|at| *at < struck[0]), "the new one is not tried early");
}

#[tokio::test(start_paused = true)]
async fn an_image_is_made_soon_after_github_tells_the_release_again() {
    let lab = Lab::new(Profile::calm(), scenario(&jobs(&[], &[5.0]), &json!({})), 1);
    let silent = Fault {
        times: Fault::UNLIMITED,
        until_secs: Some(1_500.0),
        ..Fault::new(Operation::Downloads, FaultMode::Error)
    };
    lab.world.add_fault(silent).expect("a fault");
    let outcome = lab.run(Duration::from_secs(6 * 3_600), is_done_and_clean).await;
    let made = outcome.times(|what| matches!(what, What::Call { operation: Operation::Image, .. }));
    // A build that fails is tried again after up to half an hour.
    assert!((1_500.0..1_600.0).contains(&made[0]), "{made:?}");
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_is_refused_again_is_not_put_down_to_the_image() {
    let refused = |times| {
        let lab = Lab::new(Profile::calm(), scenario(&jobs(&[], &[5.0]), &json!({})), 1);
        let fault = Fault { status: Some(3), times, ..Fault::new(Operation::Create, FaultMode::Error) };
        lab.world.add_fault(fault).expect("a fault");
        lab.run(Duration::from_secs(6 * 3_600), is_done_and_clean)
    };
    let (once, often) = (refused(1).await, refused(6).await);
    assert_eq!((once.report.jobs_completed, often.report.jobs_completed), (1, 1), "{}", often.summary());
    // Two layers, at the start and once more.
    assert_eq!((calls(&once, Operation::Image), calls(&often, Operation::Image)), (4, 4), "{}", often.summary());
}

#[tokio::test(start_paused = true)]
async fn a_build_whose_log_breaks_off_is_joined_again() {
    for name in ["image_log_cut", "image_log_half"] {
        let lab = Lab::new(Profile::calm(), scenario(&jobs(&[], &[5.0]), &json!({})), 1);
        lab.world.add_fault(name).expect("a named fault");
        let outcome = lab.run(Duration::from_secs(3_600), is_done_and_clean).await;
        assert_eq!(outcome.report.jobs_completed, 1, "{name}: {}", outcome.summary());
        assert_eq!(builds(&outcome).len(), 2, "{name}: each layer is built once");
    }
}
