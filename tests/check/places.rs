//! Repositories, patterns, runner groups, and the runner's release.

use sandrunner::check::{Check, Facts, ReleaseFacts, Verdict};
use sandrunner::config::OrganizationConfig;
use sandrunner::error::ErrorClass;
use sandrunner::runner::VersionNotice;
use sandrunner::sim::{FaultMode, FaultRequest, Operation, Profile, RepoAbout, Visibility};
use serde_json::{Value, json};

use crate::setup::{Setup, failed, is_well, says};

#[tokio::test(start_paused = true)]
async fn repositories_that_cannot_be_served_are_told_one_by_one() {
    let names = ["acme/web", "acme/old", "acme/off", "acme/moved", "acme/gone", "acme/open"];
    let repos: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let setup = Setup::of(Profile::calm(), &json!({ "repos": repos }));
    setup.world.set_repo("acme/old", RepoAbout { archived: true, ..RepoAbout::default() });
    setup.world.set_repo("acme/off", RepoAbout { disabled: true, ..RepoAbout::default() });
    setup.world.set_repo("acme/open", RepoAbout { visibility: Visibility::Public, ..RepoAbout::default() });
    setup.world.rename_repo("acme/moved", "acme/elsewhere");
    setup.world.delete_repo("acme/gone");
    let findings = setup.check().await;
    let repository = |name| findings.of(Check::Repository, name);
    is_well(repository("acme/web"), "runs from forks are not served");
    says(repository("acme/old"), Verdict::Failure, "archived", "allowed_repos");
    says(repository("acme/off"), Verdict::Failure, "disabled", "allowed_repos");
    says(repository("acme/moved"), Verdict::Failure, "301", "change its name");
    says(repository("acme/gone"), Verdict::Failure, "404", "check its name");
    says(repository("acme/open"), Verdict::Warning, "public", "allow_public_repos");
    assert_eq!(setup.calls(Operation::Mint), 2, "where nothing can run nothing is registered");
}

#[tokio::test(start_paused = true)]
async fn a_public_repository_is_well_where_a_class_serves_it() {
    let setup = Setup::plain().configure(|config| {
        config.runner.allow_public_repos = true;
        config.runner.allow_forks = true;
    });
    setup.world.set_repo("acme/web", RepoAbout { visibility: Visibility::Public, ..RepoAbout::default() });
    is_well(setup.check().await.of(Check::Repository, "acme/web"), "public; runs from forks are served");
}

#[tokio::test(start_paused = true)]
async fn actions_that_are_disabled_are_seen_before_a_job_is() {
    let setup = Setup::plain();
    let disabled = |operation| FaultRequest {
        operation: Some(operation),
        mode: Some(FaultMode::ActionsDisabled),
        ..FaultRequest::default()
    };
    setup.world.add_fault(disabled(Operation::GetActionsPermissions)).unwrap();
    setup.world.add_fault(disabled(Operation::Mint)).unwrap();
    let findings = setup.check().await;
    says(findings.of(Check::ActionsEnabled, "acme/web"), Verdict::Failure, "disabled", "enable them");
    let refused = findings.of(Check::RegisterRunners, "acme/web");
    says(refused, Verdict::Failure, "runners are disabled", "enable Actions and self-hosted runners");
}

#[tokio::test(start_paused = true)]
async fn patterns_are_resolved_and_tell_where_they_mean_nothing() {
    let repos = json!({ "repos": [{ "name": "acme/web" }, { "name": "acme/web-api" }, { "name": "acme/x" }] });
    let allowing = |pattern: &'static str| {
        Setup::of(Profile::calm(), &repos).configure(|config| config.github[0].allowed_repos = vec![pattern.to_owned()])
    };
    for setup in [allowing("acme/web*"), allowing("acme/web*").with_app(), allowing("*/web*").with_app()] {
        let findings = setup.check().await;
        is_well(findings.of(Check::RepoPatterns, "gh/acme"), "2 repositories");
        is_well(findings.of(Check::RegisterRunners, "acme/web-api"), "registered and deleted");
        assert_eq!(findings.troubles(), []);
    }
    let findings = allowing("acme/nothing-*").check().await;
    says(findings.of(Check::RepoPatterns, "gh/acme"), Verdict::Warning, "no repository", "correct the pattern");
    let findings = allowing("nobody/*").check().await;
    says(findings.of(Check::RepoPatterns, "gh/nobody"), Verdict::Failure, "one by one", "check its name");
}

/// An organization with a runner group for new runners.
fn organization(group: &Value) -> Setup {
    let repos = json!([{ "name": "acme/web" }, { "name": "acme/api" }, { "name": "acme/secret", "allowed": false }]);
    let organization = json!({ "name": "acme", "groups": [{ "id": 1, "name": "Default" }, group] });
    let setup = Setup::of(Profile::calm(), &json!({ "repos": repos, "organizations": [organization] }));
    setup.configure(|config| {
        let runner_group = Some("Modal".to_owned());
        config.github[0].allowed_repos = vec!["acme/web".to_owned(), "acme/api".to_owned()];
        config.github[0].organizations =
            vec![OrganizationConfig { name: "acme".to_owned(), runner_group, runner_group_id: None }];
    })
}

#[tokio::test(start_paused = true)]
async fn a_runner_group_has_to_admit_what_is_allowed_and_nothing_else() {
    let group = |more: Value| {
        let mut group = json!({ "id": 4, "name": "Modal", "repos": ["acme/web", "acme/api"] });
        group.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        organization(&group)
    };
    for setup in [group(json!({})), group(json!({})).configure(|config| config.github[0].runner_group_id = 1)] {
        let findings = setup.check().await;
        is_well(findings.of(Check::RunnerGroup, "acme"), "admits what is allowed");
        is_well(findings.of(Check::RegisterRunners, "organization acme"), "registered and deleted");
        assert_eq!((findings.troubles(), setup.calls(Operation::Mint)), (vec![], 1));
    }
    let told = async |setup: Setup| setup.check().await.of(Check::RunnerGroup, "acme").clone();
    let select = "select the repositories of allowed_repos";
    let wide = told(group(json!({ "repos": ["acme/web", "acme/api", "acme/secret"] }))).await;
    says(&wide, Verdict::Failure, "also admits acme/secret", select);
    let narrow = told(group(json!({ "repos": ["acme/web"] }))).await;
    says(&narrow, Verdict::Failure, "does not admit acme/api", select);
    let all = told(group(json!({ "visibility": "all", "repos": null }))).await;
    says(&all, Verdict::Failure, "without naming them", select);
    let public = told(group(json!({ "public_repos": true }))).await;
    says(&public, Verdict::Failure, "also admits public repositories", select);
    let workflows = told(group(json!({ "workflows": ["acme/web/.github/workflows/ci.yml@main"] }))).await;
    says(&workflows, Verdict::Warning, "acme/web/.github/workflows/ci.yml@main", "all workflows");
    let none = group(json!({})).configure(|config| {
        config.github[0].organizations[0].runner_group = Some("Other".to_owned());
    });
    let findings = none.check().await;
    says(findings.of(Check::RunnerGroup, "acme"), Verdict::Failure, "no runner group `Other`", "runner_group");
    let not_tried = findings.of(Check::RegisterRunners, "organization acme");
    says(not_tried, Verdict::Skipped, "without the runner group", "");
}

#[tokio::test(start_paused = true)]
async fn the_runners_release_is_judged_by_what_github_says_of_it() {
    is_well(Setup::plain().check().await.one(Check::RunnerVersion), "2.336.0, which GitHub offers");
    let pinned = |version: &str, sum: Option<&str>| {
        let (version, sha256) = (version.to_owned(), sum.map(str::to_owned));
        Setup::plain().configure(|config| (config.runner.version, config.runner.sha256) = (version, sha256))
    };
    let sum = "0".repeat(64);
    let sum = Some(sum.as_str());
    is_well(pinned("2.336.0", None).check().await.one(Check::RunnerVersion), "2.336.0 is pinned");
    let without_sum = pinned("2.330.0", None).check().await;
    says(without_sum.one(Check::RunnerVersion), Verdict::Failure, "without its checksum", "runner.sha256");
    let setup = pinned("2.330.0", sum);
    says(setup.check().await.one(Check::RunnerVersion), Verdict::Warning, "about 30 days", "\"auto\"");

    let mut facts = setup.facts().await;
    let told = |facts: &Facts| setup.judge(facts).one(Check::RunnerVersion).clone();
    let release = |facts: &mut Facts, days: Option<i64>| {
        let ends = days.map(|days| facts.now + chrono::TimeDelta::days(days));
        let notice = VersionNotice { registers_until: None, runs_until: ends };
        let release = ReleaseFacts { offered: "2.336.0".parse().unwrap(), notice: Some(Ok(notice)) };
        facts.releases.values_mut().for_each(|told| *told = Ok(release.clone()));
    };
    release(&mut facts, Some(-1));
    says(&told(&facts), Verdict::Failure, "takes 2.330.0 no more", "\"auto\"");
    release(&mut facts, Some(5));
    says(&told(&facts), Verdict::Warning, "takes 2.330.0 until", "\"auto\"");
    release(&mut facts, Some(20));
    is_well(&told(&facts), "takes until");
    facts.releases.values_mut().for_each(|told| *told = Err(failed(ErrorClass::Unavailable, "no answer")));
    says(&told(&facts), Verdict::Failure, "no answer", "status page");
}
