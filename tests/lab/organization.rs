//! Runners of an organization: registered in a runner group, they take jobs of every repository that it admits.

use std::time::Duration;

use sandrunner::config::OrganizationConfig;
use sandrunner::sim::{Cause, Operation, Profile, Scenario, Service, What};
use serde_json::{Value, json};

use crate::lab::{Lab, Outcome, is_done_and_clean};

const REPOS: [&str; 3] = ["acme/web", "acme/api", "acme/docs"];

/// Twenty jobs over three repositories, of two label sets; the group admits `repos`.
fn scenario(repos: &Value) -> Scenario {
    let job = |id: u64| {
        let labels =
            if id % 5 == 4 { json!(["self-hosted", "modal", "gpu:t4"]) } else { json!(["self-hosted", "modal"]) };
        json!({ "id": 5_000_000_000 + id, "run": 6_000_000_000 + id / 4, "repo": REPOS[usize::try_from(id / 4 % 3).expect("a small number")],
            "labels": labels, "duration_secs": 60, "arrival_secs": 10 + id * 3 })
    };
    let jobs: Vec<Value> = (0..20).map(job).collect();
    let names: Vec<Value> = REPOS.iter().map(|name| json!({ "name": name })).collect();
    let groups = json!([{ "id": 1, "name": "Default" }, { "id": 4, "name": "Modal", "repos": repos }]);
    serde_json::from_value(
        json!({ "repos": names, "jobs": jobs, "organizations": [{ "name": "Acme", "groups": groups }] }),
    )
    .expect("a scenario")
}

fn lab(scenario: Scenario, seed: u64) -> Lab {
    let organization =
        OrganizationConfig { name: "acme".into(), runner_group: Some("Modal".into()), runner_group_id: None };
    Lab::new(Profile::realistic(), scenario, seed).configure(|config| {
        config.github[0].organizations = vec![organization];
    })
}

fn calls(outcome: &Outcome, of: Operation) -> usize {
    outcome
        .times(|what| matches!(what, What::Call { service: Service::Github, operation, .. } if *operation == of))
        .len()
}

#[tokio::test(start_paused = true)]
async fn runners_of_an_organization_serve_all_its_allowed_repositories() {
    for seed in 1..=3 {
        let outcome = lab(scenario(&json!(REPOS)), seed).run(Duration::from_secs(7_200), is_done_and_clean).await;
        let report = &outcome.report;
        assert!(report.violations.is_empty(), "seed {seed}: {}", outcome.summary());
        assert_eq!((report.jobs_completed, report.jobs_expected), (20, 20), "seed {seed}: {}", outcome.summary());
        assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0));
        let is_elsewhere = |what: &What| matches!(what, What::RunnerRegistered { repo, .. } if **repo != *"acme");
        assert_eq!(outcome.times(is_elsewhere), [0.0; 0], "all runners are the organization's");
        assert_eq!(outcome.times(|what| matches!(what, What::JobCompleted { cause: Cause::Refused, .. })), [0.0; 0]);
        // One list of runners stands for three.
        let minutes = report.virtual_seconds / 60.0;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred calls")]
        let lists = calls(&outcome, Operation::ListRunners) as f64;
        assert!(lists <= minutes + 3.0, "{lists} in {minutes} min");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_does_not_suit_gets_no_runner_and_is_the_reason() {
    for (repos, reason) in [
        (json!(["acme/web", "acme/api", "acme/docs", "acme/open"]), "also admits acme/open, which allowed_repos lacks"),
        (Value::Null, "admits repositories of acme without naming them"),
        (json!(["acme/api"]), "does not admit acme/web"),
    ] {
        let mut scenario = scenario(&repos);
        scenario
            .repos
            .push(serde_json::from_value(json!({ "name": "acme/open", "allowed": false })).expect("a repository"));
        let lab = lab(scenario, 1);
        let questions = lab.questions();
        let (mut reasons, mut asked) = (Vec::new(), None);
        let next = |_: &sandrunner::sim::World| {
            let status = asked.replace(questions.ask()).and_then(
                |mut answer: tokio::sync::oneshot::Receiver<sandrunner::status::Status>| answer.try_recv().ok(),
            );
            reasons.extend(
                status.into_iter().flat_map(|status| status.jobs).map(|job| format!("{}: {}", job.reason, job.text)),
            );
            crate::lab::Next::GoOn
        };
        let outcome = lab.drive(Duration::from_secs(600), Duration::from_secs(10), next).await;
        assert!(reasons.iter().any(|text| text.starts_with("runner_group: ") && text.contains(reason)), "{reasons:#?}");
        let served = outcome.times(|what| matches!(what, What::RunnerRegistered { .. })).len();
        let is_partly_open = reason.starts_with("does not admit");
        assert_eq!(served > 0, is_partly_open, "{}", outcome.summary());
    }
}
