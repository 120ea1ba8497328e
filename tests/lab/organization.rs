//! Runners of an organization: registered in a runner group, they take jobs of every repository that it admits.

use std::collections::BTreeSet;
use std::time::Duration;

use sandrunner::config::{GithubConfig, OrganizationConfig};
use sandrunner::ids::JobId;
use sandrunner::sim::{Cause, GroupChange, Operation, Profile, Scenario, Service, What, World};
use sandrunner::status::{OrganizationStatus, Status};
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use crate::lab::{Lab, Next, Outcome, app_account, epoch, is_done_and_clean};

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

/// What the status told while a lab ran.
struct Told {
    outcome: Outcome,
    /// Why jobs got nothing, over all the time.
    reasons: BTreeSet<(JobId, String)>,
    /// What it told last of the organization while jobs got nothing.
    organization: OrganizationStatus,
}

async fn with_reasons(lab: Lab, limit: Duration) -> Told {
    let questions = lab.questions();
    let (mut reasons, mut organization, mut asked) = (BTreeSet::new(), None, None);
    let next = |_: &World| {
        let status = asked.replace(questions.ask()).and_then(|mut answer: Receiver<Status>| answer.try_recv().ok());
        if let Some(Status { jobs, mut organizations, .. }) = status.filter(|status| !status.jobs.is_empty()) {
            reasons.extend(jobs.into_iter().map(|job| (job.job_id, format!("{}: {}", job.reason, job.text))));
            organization = Some(organizations.remove(0));
        }
        Next::GoOn
    };
    let outcome = lab.drive(limit, Duration::from_secs(10), next).await;
    Told { outcome, reasons, organization: organization.expect("a status with jobs that got nothing") }
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
        let Told { outcome, reasons, organization } = with_reasons(lab(scenario, 1), Duration::from_secs(600)).await;
        let is_it = |(_, text): &(JobId, String)| text.starts_with("runner_group: ") && text.contains(reason);
        assert!(reasons.iter().any(is_it), "{reasons:#?}");
        assert!(organization.problems.iter().any(|problem| problem.contains(reason)), "{organization:?}");
        assert_eq!((organization.organization.as_str(), organization.wanted_group.as_str()), ("acme", "Modal"));
        assert!(organization.known_at.is_some() && organization.known_at == organization.tried_at, "{organization:?}");
        let group = organization.group.expect("its runner group");
        let named = repos.as_array().map_or(0, Vec::len);
        let admits = if repos.is_null() { "all" } else { "selected" };
        assert_eq!((group.id, group.admits, group.repositories.len(), group.allows_public), (4, admits, named, false));
        assert_eq!(group.workflows, None, "it is kept to none");
        let served = outcome.times(|what| matches!(what, What::RunnerRegistered { .. })).len();
        let is_partly_open = reason.starts_with("does not admit");
        assert_eq!(served > 0, is_partly_open, "{}", outcome.summary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_also_admits_public_repositories_gets_runners_only_of_classes_that_do() {
    for allow_public_repos in [false, true] {
        let mut scenario = scenario(&json!(REPOS));
        scenario.organizations[0].groups[1].public_repos = true;
        let lab = lab(scenario, 1).configure(|config| config.runner.allow_public_repos = allow_public_repos);
        if allow_public_repos {
            let outcome = lab.run(Duration::from_secs(7_200), is_done_and_clean).await;
            assert_eq!(outcome.report.jobs_completed, 20, "{}", outcome.summary());
            continue;
        }
        let Told { outcome, reasons, organization } = with_reasons(lab, Duration::from_secs(600)).await;
        let reason = "runner group `Modal` also admits public repositories";
        assert!(reasons.iter().any(|(_, text)| text.contains(reason)), "{reasons:#?}");
        assert!(organization.problems.iter().any(|problem| problem.contains(reason)), "{organization:?}");
        assert_eq!(outcome.times(|what| matches!(what, What::RunnerRegistered { .. })), [0.0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_without_any_right_to_administer_repositories_serves_an_organization() {
    let mut scenario = scenario(&json!(REPOS));
    let granted = json!([{ "owner": "acme",
        "permissions": { "actions": "read", "organization_self_hosted_runners": "write" } }]);
    scenario.installations = serde_json::from_value(granted).expect("an installation");
    let lab = lab(scenario, 1).configure(|config| {
        let organizations = std::mem::take(&mut config.github[0].organizations);
        config.github = vec![GithubConfig { organizations, ..app_account("gh", &REPOS) }];
    });
    let outcome = lab.run(Duration::from_secs(7_200), is_done_and_clean).await;
    let report = &outcome.report;
    assert!(report.violations.is_empty(), "{}", outcome.summary());
    assert_eq!((report.jobs_completed, report.jobs_expected), (20, 20), "{}", outcome.summary());
    let is_refused = |what: &What| matches!(what, What::Call { service: Service::Github, status: 403, .. });
    assert_eq!(outcome.times(is_refused), [0.0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_kept_to_workflows_serves_these_and_is_the_reason_for_the_others() {
    let mut scenario = scenario(&json!(REPOS));
    let deploy = |repo: &str, branch: &str| format!("{repo}/.github/workflows/deploy.yml@{branch}");
    scenario.organizations[0].groups[1].workflows =
        Some(vec![deploy("acme/web", "refs/heads/main"), deploy("acme/docs", "dev")]);
    // Runs 0 and 3 are of acme/web, 1 and 4 of acme/api, 2 of acme/docs; each has four jobs.
    let runs = json!([
        { "id": 6_000_000_000_u64, "workflow": ".github/workflows/deploy.yml@main" },
        { "id": 6_000_000_002_u64, "workflow": ".github/workflows/deploy.yml" },
        { "id": 6_000_000_003_u64, "workflow": ".github/workflows/deploy.yml" },
    ]);
    scenario.runs = serde_json::from_value(runs).expect("runs");
    let Told { outcome, reasons, organization } = with_reasons(lab(scenario, 1), Duration::from_secs(3_600)).await;
    assert_eq!(outcome.report.jobs_completed, 8, "{}", outcome.summary());
    let run_of = |job: u64| (job - 5_000_000_000) / 4;
    let refused: BTreeSet<u64> = reasons
        .iter()
        .filter(|(_, text)| {
            text.starts_with("runner_group: ") && text.contains("does not run .github/workflows/ci.yml")
        })
        .map(|(job, _)| run_of(job.0))
        .collect();
    assert_eq!(refused, BTreeSet::from([1, 4]), "{reasons:#?}");
    let remedy = "add acme/api/.github/workflows/ci.yml@main to them";
    assert!(reasons.iter().any(|(_, text)| text.contains(remedy)), "{reasons:#?}");
    assert!(organization.problems.iter().any(|problem| problem.contains(remedy)), "{organization:?}");
    let kept_to = organization.group.and_then(|group| group.workflows).expect("the workflows of its group");
    assert_eq!(kept_to, [deploy("acme/web", "refs/heads/main"), deploy("acme/docs", "dev")]);
    let made_for = |wanted: u64| {
        let is_it = |what: &What| match what {
            What::RunnerRegistered { runner, .. } => {
                runner.split('-').nth(3).and_then(|job| job.parse().ok()).map(run_of) == Some(wanted)
            }
            _ => false,
        };
        outcome.times(is_it).len()
    };
    assert_eq!((made_for(1), made_for(4)), (0, 0), "nothing is made for what the group refuses");
    // GitHub does not show the branch of run 2, and gives its four jobs to nobody: about three runners show that of each.
    assert!((1..=16).contains(&made_for(2)), "{}", made_for(2));
}

/// One short job every minute.
fn job_each_minute(minutes: u64, repo: impl Fn(u64) -> &'static str) -> Vec<Value> {
    let job = |minute: u64| {
        json!({ "id": 5_000_000_000 + minute, "run": 6_000_000_000 + minute, "repo": repo(minute),
            "labels": ["self-hosted", "modal"], "duration_secs": 30, "arrival_secs": 60 * minute + 5 })
    };
    (0..minutes).map(job).collect()
}

#[tokio::test(start_paused = true)]
async fn a_group_that_admits_a_stranger_later_gets_no_runner_from_the_next_look_on() {
    let mut scenario = scenario(&json!(REPOS));
    scenario
        .repos
        .push(serde_json::from_value(json!({ "name": "acme/open", "allowed": false })).expect("a repository"));
    scenario.jobs = serde_json::from_value(job_each_minute(100, |_| "acme/web").into()).expect("jobs");
    let mut is_changed = false;
    let next = |world: &World| {
        if !is_changed && (world.clock().now() - epoch()).num_minutes() >= 10 {
            is_changed = true;
            let repos = REPOS.iter().chain(&["acme/open"]).map(|name| (*name).to_owned()).collect();
            let change = GroupChange { repos: Some(repos), ..GroupChange::default() };
            world.change_group("acme", 4, &change).expect("a group");
        }
        Next::GoOn
    };
    let outcome = lab(scenario, 1).drive(Duration::from_secs(100 * 60), Duration::from_secs(10), next).await;
    let minted = outcome.times(|what| matches!(what, What::RunnerRegistered { .. }));
    let between = |from: f64, to: f64| minted.iter().filter(|at| (from * 60.0..to * 60.0).contains(*at)).count();
    assert!(between(0.0, 50.0) >= 45, "{}", outcome.summary());
    assert_eq!(between(70.0, 100.0), 0, "{minted:?}");
}

#[tokio::test(start_paused = true)]
async fn an_organization_and_repositories_by_themselves_are_served_with_one_configuration() {
    let mut scenario = scenario(&json!(REPOS));
    scenario.repos.push(serde_json::from_value(json!({ "name": "beta/tool" })).expect("a repository"));
    let repo = |minute: u64| if minute.is_multiple_of(2) { "beta/tool" } else { "acme/api" };
    scenario.jobs = serde_json::from_value(job_each_minute(10, repo).into()).expect("jobs");
    let outcome = lab(scenario, 1).run(Duration::from_secs(7_200), is_done_and_clean).await;
    assert!(outcome.report.violations.is_empty(), "{}", outcome.summary());
    assert_eq!(outcome.report.jobs_completed, 10, "{}", outcome.summary());
    let at = |place: &str| {
        let is_it = |what: &What| matches!(what, What::RunnerRegistered { repo, .. } if **repo == *place);
        outcome.times(is_it).len()
    };
    assert_eq!((at("acme"), at("beta/tool")), (5, 5), "{}", outcome.summary());
}
