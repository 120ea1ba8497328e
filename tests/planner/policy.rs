//! What the policy says of repositories, credentials and money.

use std::collections::BTreeSet;

use sandrunner::ids::ClassName;
use sandrunner::plan::{Credentials, RunnerGroupChoice};
use sandrunner::state::Scope;

use crate::situation::{Situation, scope};

fn at(account: &str, repo: &str) -> Scope {
    Scope { account: account.parse().unwrap(), repo: repo.parse().unwrap() }
}

#[test]
fn an_account_has_one_credential_or_one_for_each_owner() {
    let mut policy = Situation::empty().policy;
    let installations = policy.accounts.values().next().unwrap().clone();
    policy.accounts.insert("app".parse().unwrap(), installations);
    policy.accounts.get_mut(&"app".parse().unwrap()).unwrap().credentials = Credentials::PerOwner;
    for (one, other, expected) in [
        (at("gh", "acme/web"), at("gh", "beta/tool"), true),
        (at("app", "acme/web"), at("app", "acme/api"), true),
        (at("app", "acme/web"), at("app", "beta/tool"), false),
        (at("gh", "acme/web"), at("app", "acme/web"), false),
        (at("app", "acme/web"), at("gh", "acme/web"), false),
    ] {
        assert_eq!(policy.share_credential(&one, &other), expected, "{one:?} {other:?}");
        assert_eq!(policy.credential(&one) == policy.credential(&other), expected, "{one:?} {other:?}");
    }
}

#[test]
fn repositories_are_served_that_are_named_or_meant() {
    let mut situation = Situation::parse("job 7 acme/web queued");
    let policy = &mut situation.policy;
    policy.accounts.values_mut().next().unwrap().repos = ["acme/web", "acme/api"].map(|repo| scope(repo).repo).into();
    let named: BTreeSet<Scope> = policy.scopes().collect();
    assert_eq!(named, [scope("acme/api"), scope("acme/web")].into());
    let account = policy.accounts.values().next().unwrap();
    assert!(account.serves(&scope("acme/web").repo) && !account.serves(&scope("acme/other").repo));
}

#[test]
fn money_has_a_limit_where_all_or_a_class_has_one() {
    let mut policy = Situation::empty().policy;
    assert!(!policy.limits_spend());
    policy.classes[0].spend_per_day = Some("5".parse().unwrap());
    assert!(policy.limits_spend());
    policy.classes[0].spend_per_day = None;
    policy.limits.spend_per_day = Some("5".parse().unwrap());
    assert!(policy.limits_spend());
    assert!(policy.class(&ClassName::new("default")).is_some() && policy.has_gpus());
}

#[test]
fn a_runner_group_is_told_as_it_is_named() {
    let told = |choice: RunnerGroupChoice| choice.to_string();
    assert_eq!(told(RunnerGroupChoice::Name("Modal".to_owned())), "`Modal`");
    assert_eq!(told(RunnerGroupChoice::Id(4)), "4");
}
