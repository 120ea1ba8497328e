//! Releases of the runner: images follow them, and a version that GitHub refuses costs nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use sandrunner::sim::{Operation, Profile, Scenario, ScenarioImage, What, World};
use sandrunner::status::Status;
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use crate::lab::{Lab, Next, Outcome, epoch, is_done_and_clean};

type Answer = Receiver<Status>;

const HOUR: f64 = 3_600.0;
const HOURS_8: Duration = Duration::from_secs(8 * 3_600);
/// What an image holds that was made from the start on.
const FIRST: &str = "2.336.0";

/// A job of a minute at each of some times, with releases of the runner.
fn scenario(arrivals: impl Iterator<Item = f64>, releases: &Value) -> Scenario {
    let job = |(index, at): (u64, f64)| {
        json!({ "id": 5_000_000_000 + index, "run": 6_000_000_000 + index, "repo": "acme/web",
            "labels": ["self-hosted", "modal"], "duration_secs": 60, "arrival_secs": at })
    };
    let jobs: Vec<Value> = (0_u64..).zip(arrivals).map(job).collect();
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs, "runner_releases": releases }))
        .expect("a scenario")
}

#[tokio::test(start_paused = true)]
async fn the_image_follows_a_release_before_the_version_in_it_is_refused_and_no_job_waits_for_it() {
    let releases = json!([{ "version": FIRST, "refused_secs": 3.0 * HOUR },
        { "version": "2.337.0", "offered_secs": HOUR }]);
    let arrivals = (0..30_u32).map(|index| f64::from(index) * 600.0);
    let lab = Lab::new(Profile::realistic(), scenario(arrivals, &releases), 1);
    let outcome = lab.run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 30, "{}", outcome.summary());
    let refused = outcome.times(|what| matches!(what, What::SandboxEnded { exit_code: 65, .. }));
    assert_eq!(refused, Vec::<f64>::new(), "a runner of the old version was started when GitHub took it no more");
    // The first job waits for the first image, and for nothing else.
    let pickup = outcome.report.pickup_seconds;
    assert!(pickup.p95 < 45.0, "{pickup:?}");
    let built = outcome.times(|what| matches!(what, What::Call { operation: Operation::Image, .. }));
    let again: Vec<f64> = built.into_iter().filter(|at| *at > HOUR).collect();
    assert!(!again.is_empty() && again.iter().all(|at| *at < 2.5 * HOUR), "images were asked for at {again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pinned_version_gets_no_sandbox_from_the_day_on_that_github_refuses_it() {
    let releases = json!([{ "version": FIRST, "refused_secs": 1_800 }, { "version": "2.337.0" }]);
    let scenario = scenario([30.0, 2_400.0].into_iter(), &releases);
    let lab = Lab::new(Profile::realistic(), scenario, 1).configure(|config| {
        config.runner.version = FIRST.to_owned();
        config.runner.sha256 = Some("0123456789abcdef".repeat(4));
    });
    let (questions, clock) = (lab.questions(), lab.clock.clone());
    let (mut reasons, mut asked) = (BTreeSet::new(), None);
    let next = |_: &World| {
        let status = asked.replace(questions.ask()).and_then(|mut answer: Answer| answer.try_recv().ok());
        reasons.extend(
            status.into_iter().flat_map(|status| status.jobs).map(|job| format!("{}: {}", job.reason, job.text)),
        );
        if (clock.now() - epoch()).as_seconds_f64() > 2.0 * HOUR { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(HOURS_8, Duration::from_secs(10), next).await;
    assert_eq!(outcome.report.jobs_completed, 1, "{}", outcome.summary());
    let created = outcome.times(|what| matches!(what, What::SandboxCreated { .. }));
    assert!(created.len() == 1 && created[0] < 1_800.0, "{created:?}");
    let told = "runner_version: GitHub takes no runners of version 2.336.0 since";
    assert!(reasons.iter().any(|reason| reason.starts_with(told)), "{reasons:?}");
}

/// The same jobs for a class of its own, whose image is behind a tag of a registry: with the first runner, and from some
/// time on with the second.
fn behind_a_tag(mut scenario: Scenario, moves_secs: f64) -> Lab {
    scenario.jobs.iter_mut().for_each(|job| job.labels.push("job-own".to_owned()));
    let image =
        |runner: &str, from_secs| ScenarioImage { reference: TAG.to_owned(), runner: runner.to_owned(), from_secs };
    scenario.registry_images = vec![image(FIRST, 0.0), image("2.337.0", moves_secs)];
    Lab::new(Profile::realistic(), scenario, 1).configure(|config| {
        let class = json!({ "name": "own", "labels": ["job-own"], "image": TAG });
        config.runner_classes = vec![serde_json::from_value(class).expect("a class")];
    })
}

const TAG: &str = "ghcr.io/acme/runner:1";

fn refused_runners(outcome: &Outcome) -> Vec<f64> {
    outcome.times(|what| matches!(what, What::SandboxEnded { exit_code: 65, .. }))
}

#[tokio::test(start_paused = true)]
async fn a_newer_runner_behind_the_same_tag_is_found_without_a_restart() {
    // GitHub tells the date, and the tag moves an hour and a half later.
    let releases = json!([{ "version": FIRST, "refused_secs": HOUR }, { "version": "2.337.0" }]);
    let arrivals = [30.0, 0.8 * HOUR, 1.5 * HOUR, 1.5 * HOUR, 1.6 * HOUR];
    let mut scenario = scenario(arrivals.into_iter(), &releases);
    // Its runner, which is of the old image, is listed with its version all the while.
    scenario.jobs[1].duration_secs = 6.0 * HOUR;
    let outcome = behind_a_tag(scenario, 2.5 * HOUR).run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 5, "{}", outcome.summary());
    let refused = refused_runners(&outcome);
    assert!((1..=12).contains(&refused.len()) && refused[0] > 1.5 * HOUR, "{refused:?}");
    let built = outcome.times(|what| matches!(what, What::Call { operation: Operation::Image, .. }));
    assert!(built.len() <= 8, "images were asked for at {built:?}");
    let pickup = outcome.report.pickup_seconds;
    assert!(pickup.max < 3.0 * HOUR, "{pickup:?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_where_only_the_runners_own_end_tells_that_its_version_is_refused() {
    let releases = json!([{ "version": FIRST, "refused_secs": 0 }, { "version": "2.337.0" }]);
    let lab = behind_a_tag(scenario([30.0, 60.0].into_iter(), &releases), HOUR);
    let outcome = lab.run(HOURS_8, is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 2, "{}", outcome.summary());
    let refused = refused_runners(&outcome);
    assert!((1..=12).contains(&refused.len()), "{refused:?}");
}
