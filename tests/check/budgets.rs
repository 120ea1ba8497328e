//! Whether GitHub's limits admit the configured interval.

use std::time::Duration;

use sandrunner::check::{Check, Facts, Verdict};
use sandrunner::github::HourlyQuota;
use sandrunner::sim::Profile;
use sandrunner::state::Scope;
use serde_json::{Value, json};

use crate::setup::{Findings, Setup, is_well, says};

/// Judges as if an owner had so many repositories.
async fn of(repos: usize, configure: impl FnOnce(&mut sandrunner::config::Config)) -> Findings {
    let setup = Setup::plain().configure(|config| {
        config.github[0].allowed_repos = vec!["acme/*".to_owned()];
        configure(config);
    });
    let mut facts = setup.facts().await;
    let one = facts.repos.values().next().unwrap().clone();
    let scope = |n: usize| Scope { account: "gh".parse().unwrap(), repo: format!("acme/r{n}").parse().unwrap() };
    facts.repos = (0..repos).map(|n| (scope(n), one.clone())).collect();
    setup.judge(&facts)
}

#[tokio::test(start_paused = true)]
async fn an_interval_is_judged_by_the_points_that_lists_get() {
    // Of 900 points a minute half are for reading, and of that three quarters for lists: 5.625 a second.
    is_well(
        of(56, |_| {}).await.of(Check::ApiBudget, "gh"),
        "56 run lists, read every 10s; GitHub's limits admit every 10s",
    );
    let more = of(57, |_| {}).await;
    says(more.of(Check::ApiBudget, "gh"), Verdict::Warning, "57 run lists every 10s", "reconcile.interval to 11s");
    let slow = of(500, |config| config.reconcile.interval = Duration::from_secs(90)).await;
    is_well(slow.of(Check::ApiBudget, "gh"), "500 run lists");
    let few = of(57, |config| config.github[0].points_per_minute = 450).await;
    says(few.of(Check::ApiBudget, "gh"), Verdict::Warning, "57 run lists", "reconcile.interval to 21s");
}

#[tokio::test(start_paused = true)]
async fn more_lists_than_max_interval_admits_are_a_failure() {
    let many = of(1_000, |config| config.reconcile.max_interval = Duration::from_secs(300)).await;
    says(many.of(Check::ApiBudget, "gh"), Verdict::Failure, "within reconcile.max_interval, 5m", "at least 5m 56s");
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_small_or_used_by_others_is_told() {
    let setup = Setup::plain();
    let mut facts = setup.facts().await;
    let told = |facts: &mut Facts, limit, remaining| {
        let access = &mut facts.credentials.values_mut().next().unwrap().access;
        access.as_mut().unwrap().quota = Some(HourlyQuota { limit, remaining });
        setup.judge(facts).of(Check::ApiBudget, "gh").clone()
    };
    says(&told(&mut facts, 400, 400), Verdict::Failure, "grants 400 requests", "primary_reserve below 200");
    says(&told(&mut facts, 5_000, 499), Verdict::Warning, "499 of 5000", "who else uses");
    is_well(&told(&mut facts, 5_000, 500), "1 run lists");
}

#[tokio::test(start_paused = true)]
async fn a_large_organization_is_checked_within_githubs_limits() {
    let repos: Vec<Value> = (0..300).map(|n| json!({ "name": format!("acme/r{n:03}") })).collect();
    let setup = Setup::of(Profile::realistic(), &json!({ "repos": repos })).with_app();
    let before = setup.world.clock().now();
    let findings = setup.check().await;
    assert_eq!(findings.troubles(), [Check::ApiBudget], "{findings:#?}");
    assert_eq!(setup.world.report().github_rate_limited, 0);
    let took = setup.world.clock().now() - before;
    assert!(took < chrono::TimeDelta::minutes(4), "{took}");
}
