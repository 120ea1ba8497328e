//! Runs of forks and public repositories: not served by default, and refused where GitHub gives their jobs to a runner.

use std::time::Duration;

use sandrunner::config::OrganizationConfig;
use sandrunner::sim::{Cause, Profile, Scenario, What};
use serde_json::{Value, json};

use crate::lab::{Lab, Outcome};

const OWN_RUN: u64 = 6_000_000_000;
const FORK_RUN: u64 = 6_000_000_001;
const PUBLIC_RUN: u64 = 6_000_000_002;

/// Jobs of one label set: five of the repository's own, three of a fork of it and two of a public repository.
fn scenario() -> Scenario {
    // The strangers come first, so that they are the oldest when the first runner comes online.
    let job = |id: u64, run: u64, repo: &str| {
        json!({ "id": 5_000_000_000 + id, "run": run, "repo": repo, "labels": ["self-hosted", "modal"],
            "duration_secs": 60, "arrival_secs": if run == OWN_RUN { 30 + id } else { id } })
    };
    let own = (0..5).map(|id| job(id, OWN_RUN, "acme/web"));
    let fork = (10..13).map(|id| job(id, FORK_RUN, "acme/web"));
    let public = (20..22).map(|id| job(id, PUBLIC_RUN, "acme/open"));
    let jobs: Vec<Value> = own.chain(fork).chain(public).collect();
    let repos = json!([{ "name": "acme/web" }, { "name": "acme/open", "about": { "visibility": "public" } }]);
    let runs = json!([{ "id": FORK_RUN, "fork": true }]);
    serde_json::from_value(json!({ "repos": repos, "jobs": jobs, "runs": runs })).expect("a scenario")
}

fn ended(outcome: &Outcome, cause: Cause) -> Vec<u64> {
    let of_cause = |what: &What| {
        let What::JobCompleted { job, cause: ended, .. } = what else { return None };
        (*ended == cause).then_some(*job - 5_000_000_000)
    };
    let mut jobs: Vec<u64> = outcome.history.iter().filter_map(|event| of_cause(&event.what)).collect();
    jobs.sort_unstable();
    jobs
}

#[tokio::test(start_paused = true)]
async fn jobs_of_strangers_never_run_and_cost_the_others_nothing() {
    let mut refused = 0;
    for seed in 1..=3 {
        let lab = Lab::new(Profile::realistic(), scenario(), seed);
        let outcome = lab.run(Duration::from_secs(1800), |_| false).await;
        assert_eq!(ended(&outcome, Cause::Ran), [0, 1, 2, 3, 4], "seed {seed}: {}", outcome.summary());
        let strangers = ended(&outcome, Cause::Refused);
        assert!(strangers.iter().all(|job| (10..13).contains(job)), "seed {seed}: {strangers:?}");
        // Whom a runner refuses it cannot serve another: each costs one more.
        assert!(outcome.report.sandboxes_created <= 5 + strangers.len() + 1, "seed {seed}: {}", outcome.summary());
        assert_eq!((outcome.report.sandboxes_live_at_end, outcome.report.runners_left_at_end), (0, 0));
        refused += strangers.len();
    }
    assert!(refused > 0, "no seed made GitHub give a stranger's job to a runner");
}

#[tokio::test(start_paused = true)]
async fn a_class_may_admit_them() {
    let lab = Lab::new(Profile::realistic(), scenario(), 1).configure(|config| {
        (config.runner.allow_forks, config.runner.allow_public_repos) = (true, true);
    });
    let outcome = lab.run(Duration::from_secs(1800), |_| false).await;
    assert_eq!(ended(&outcome, Cause::Ran), [0, 1, 2, 3, 4, 10, 11, 12, 20, 21], "{}", outcome.summary());
    assert_eq!(ended(&outcome, Cause::Refused), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn runners_of_an_organization_run_jobs_of_the_repositories_that_patterns_mean() {
    let names = ["acme/team-web", "acme/team-api", "acme/tool"];
    let repos: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let jobs = names.iter().zip(0_u64..).map(|(repo, id)| {
        json!({ "id": 5_000_000_000 + id, "run": OWN_RUN + id, "repo": repo, "labels": ["self-hosted", "modal"],
            "duration_secs": 60, "arrival_secs": 30 })
    });
    let groups = json!([{ "id": 4, "name": "Modal", "repos": names }]);
    let scenario = json!({ "repos": repos, "jobs": jobs.collect::<Vec<Value>>(),
        "organizations": [{ "name": "acme", "groups": groups }] });
    let scenario = serde_json::from_value(scenario).expect("a scenario");
    let lab = Lab::new(Profile::realistic(), scenario, 1).configure(|config| {
        let github = &mut config.github[0];
        github.allowed_repos = ["acme/team-*", "acme/tool", "!acme/team-secret"].map(str::to_owned).to_vec();
        let group = Some("Modal".to_owned());
        github.organizations =
            vec![OrganizationConfig { name: "acme".to_owned(), runner_group: group, runner_group_id: None }];
    });
    let outcome = lab.run(Duration::from_secs(1800), |_| false).await;
    assert_eq!(ended(&outcome, Cause::Ran), [0, 1, 2], "{}", outcome.summary());
    assert_eq!(ended(&outcome, Cause::Refused), [0; 0]);
}
