//! What a class gives its sandboxes beside a machine, from the configuration to the simulated Modal.

use std::time::Duration;

use sandrunner::sim::{Fault, FaultMode, Operation, Profile, Scenario, What, World};
use serde_json::{Value, json};

use crate::lab::{Lab, Next, Outcome, epoch, is_done_and_clean};

/// Two jobs, one of the class `own` with such options, one of the class that everybody has.
fn lab(options: &Value) -> Lab {
    let job = |id: u64, labels: &[&str]| json!({ "id": id, "run": id + 1_000, "repo": "acme/web", "labels": labels, "duration_secs": 60, "arrival_secs": 5 });
    let jobs = [job(1, &["self-hosted", "modal", "job-own"]), job(2, &["self-hosted", "modal"])];
    let scenario: Scenario =
        serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })).expect("a scenario");
    let mut class = json!({ "name": "own", "labels": ["job-own"] });
    class.as_object_mut().expect("a table").extend(options.as_object().expect("a table").clone());
    Lab::new(Profile::calm(), scenario, 1)
        .configure(|config| config.runner_classes = vec![serde_json::from_value(class).expect("a class")])
}

fn calls(outcome: &Outcome, wanted: Operation) -> usize {
    outcome.times(|what| matches!(what, What::Call { operation, .. } if *operation == wanted)).len()
}

#[tokio::test(start_paused = true)]
async fn a_class_with_every_option_is_served() {
    let options = json!({
        "cpu_limit": 4.0, "memory_limit": 16384, "docker": "gvisor",
        "network": { "domains": ["pypi.org"] },
        "volumes": [{ "name": "cache-{repo}" }, { "name": "models", "path": "/models", "read_only": true }],
    });
    let outcome = lab(&options).run(Duration::from_secs(3_600), is_done_and_clean).await;
    assert_eq!((outcome.report.jobs_completed, outcome.report.violations.len()), (2, 0), "{}", outcome.summary());
    assert_eq!(calls(&outcome, Operation::Volume), 2, "each is looked up once");
}

#[tokio::test(start_paused = true)]
async fn a_virtual_machine_is_served() {
    let outcome = lab(&json!({ "docker": "vm" })).run(Duration::from_secs(3_600), is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 2, "{}", outcome.summary());
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_not_there_stops_its_class_alone_and_says_what_to_do() {
    let lab = lab(&json!({ "secrets": ["npm"] }));
    let (questions, mut asked) = (lab.questions(), None);
    let next = |world: &World| {
        let seconds = (world.clock().now() - epoch()).num_seconds();
        if seconds >= 300 && asked.is_none() {
            asked = Some(questions.ask());
        }
        if seconds > 320 { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(Duration::from_secs(600), Duration::from_secs(5), next).await;
    assert_eq!(outcome.report.jobs_completed, 1, "{}", outcome.summary());
    assert_eq!(calls(&outcome, Operation::Mint), 1, "no runner is registered that cannot start");
    let status = asked.expect("it was asked").await.expect("it is answered");
    let [job] = &status.jobs[..] else { panic!("{:?}", status.jobs) };
    assert!(job.text.contains("there is no Modal Secret `npm`: make it in the workspace"), "{}", job.text);
    let looked = calls(&outcome, Operation::Secret);
    assert!((2..=12).contains(&looked), "it is looked up again after pauses that grow: {looked}");
}

#[tokio::test(start_paused = true)]
async fn what_a_sandbox_could_not_be_started_with_is_looked_up_again() {
    let lab = lab(&json!({ "volumes": [{ "name": "cache" }] }));
    let fault = Fault { times: 4, ..Fault::new(Operation::Boot, FaultMode::InitFailed) };
    lab.world.add_fault(fault).expect("a fault");
    let outcome = lab.run(Duration::from_secs(3_600), is_done_and_clean).await;
    assert_eq!(outcome.report.jobs_completed, 2, "{}", outcome.summary());
    let looked = calls(&outcome, Operation::Volume);
    assert!(looked >= 2, "its Volume may have been made anew: {looked}");
}
