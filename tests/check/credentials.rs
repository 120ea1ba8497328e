//! Tokens and Apps: whether GitHub takes them, and what they may do.

use chrono::TimeDelta;
use sandrunner::check::{Check, Failed, Verdict, Writes};
use sandrunner::config::{Mode, OrganizationConfig};
use sandrunner::error::ErrorClass;
use sandrunner::sim::{Access, InstallationChange, Operation, Permission, Profile};
use serde_json::json;

use crate::setup::{Setup, failed, is_well, says};

#[tokio::test(start_paused = true)]
async fn a_setup_that_suits_is_well_with_a_token_and_with_an_app() {
    for setup in [Setup::plain(), Setup::plain().with_app(), Setup::plain().with_token("github_pat_1")] {
        let findings = setup.check().await;
        assert_eq!(findings.troubles(), [], "{findings:#?}");
        assert_eq!(findings.worst(), Verdict::Ok);
        is_well(findings.of(Check::Repository, "acme/web"), "private");
        is_well(findings.of(Check::ReadRuns, "acme/web"), "can be read");
        is_well(findings.of(Check::ActionsEnabled, "acme/web"), "enabled");
        is_well(findings.of(Check::RegisterRunners, "acme/web"), "registered and deleted");
        assert_eq!((setup.calls(Operation::Mint), setup.calls(Operation::DeleteRunner)), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_one_failure_and_nothing_is_asked_with_it() {
    let setup = Setup::plain();
    setup.world.revoke_token("ghp_canary7rk2");
    let findings = setup.check().await;
    says(findings.of(Check::Credential, "gh"), Verdict::Failure, "401", "not expired and not revoked");
    says(findings.of(Check::Repository, "acme/web"), Verdict::Skipped, "credential", "");
    assert_eq!((findings.troubles(), setup.calls(Operation::GetRepo)), (vec![Check::Credential], 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_told_with_its_kind_and_its_end() {
    let ending = |days: f64| Profile { personal_token_secs: Some(days * 86_400.0), ..Profile::calm() };
    let repos = json!({ "repos": [{ "name": "acme/web" }] });
    let soon = Setup::of(ending(5.5), &repos).check().await;
    says(soon.of(Check::Credential, "gh"), Verdict::Warning, "(in 5 days)", "make another token");
    let later = Setup::of(ending(100.5), &repos).with_token("github_pat_x").check().await;
    is_well(later.of(Check::Credential, "gh"), "a fine-grained token, which ends on 2026-");
    is_well(Setup::plain().check().await.of(Check::Credential, "gh"), "a classic token, of which GitHub states no end");
}

#[tokio::test(start_paused = true)]
async fn the_scopes_of_a_classic_token_are_told_and_a_fine_grained_one_shows_by_calls_what_it_may() {
    is_well(Setup::plain().check().await.of(Check::Permissions, "gh"), "scopes: admin:org, repo");
    let grants = [(Permission::Actions, Access::Read), (Permission::Administration, Access::Read)];
    let profile = Profile { personal_token_permissions: Some(grants.into()), ..Profile::calm() };
    let setup = Setup::of(profile, &json!({ "repos": [{ "name": "acme/web" }] })).with_token("github_pat_x");
    let findings = setup.check().await;
    says(findings.of(Check::Permissions, "gh"), Verdict::Skipped, "register_runners", "");
    let refused = findings.of(Check::RegisterRunners, "acme/web");
    says(refused, Verdict::Failure, "not accessible by personal access token", "`administration=write`");
    assert_eq!(findings.troubles(), [Check::RegisterRunners]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_read_nothing_of_runners_registers_none() {
    let profile =
        Profile { personal_token_permissions: Some([(Permission::Actions, Access::Read)].into()), ..Profile::calm() };
    let setup = Setup::of(profile, &json!({ "repos": [{ "name": "acme/web" }] })).with_token("github_pat_x");
    let findings = setup.check().await;
    says(findings.of(Check::ActionsEnabled, "acme/web"), Verdict::Failure, "403", "`administration=read`");
    says(findings.of(Check::RegisterRunners, "acme/web"), Verdict::Failure, "403", "`administration=read`");
    is_well(findings.of(Check::ReadRuns, "acme/web"), "");
    assert_eq!(setup.calls(Operation::Mint), 0);
}

#[tokio::test(start_paused = true)]
async fn an_app_is_checked_at_each_owner_of_what_is_allowed() {
    let repos =
        json!([{ "name": "acme/web" }, { "name": "beta/tool" }, { "name": "gamma/lib" }, { "name": "delta/x" }]);
    let setup = Setup::of(Profile::calm(), &json!({ "repos": repos })).with_app();
    setup.world.suspend_app("beta");
    setup.world.uninstall_app("gamma");
    let withdrawn = [(Permission::Administration, Some(Access::Read))].into();
    setup
        .world
        .change_installation("delta", &InstallationChange { permissions: withdrawn, ..InstallationChange::default() })
        .unwrap();
    let findings = setup.check().await;
    is_well(findings.of(Check::Credential, "gh/acme"), "installed at acme");
    is_well(findings.of(Check::Permissions, "gh/acme"), "`administration: write`");
    says(findings.of(Check::Credential, "gh/beta"), Verdict::Failure, "suspended", "end the suspension");
    says(findings.of(Check::Credential, "gh/gamma"), Verdict::Failure, "not installed at gamma", "install it at gamma");
    let permissions = findings.of(Check::Permissions, "gh/delta");
    says(permissions, Verdict::Failure, "`administration: write`", "accept the new permissions");
    says(findings.of(Check::Repository, "beta/tool"), Verdict::Skipped, "", "");
    says(findings.of(Check::RegisterRunners, "delta/x"), Verdict::Failure, "403", "");
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_key_is_not_taken_is_one_failure() {
    let setup = Setup::plain().with_app();
    setup.world.delete_app_key();
    let findings = setup.check().await;
    says(findings.of(Check::Credential, "gh"), Verdict::Failure, "401", "`app_id` and the private key");
    assert_eq!(findings.troubles(), [Check::Credential]);
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_the_installation_was_not_given_is_hidden() {
    let installation = json!({ "owner": "acme", "repos": ["acme/web"] });
    let repos = json!([{ "name": "acme/web" }, { "name": "acme/api" }]);
    let setup = Setup::of(Profile::calm(), &json!({ "repos": repos, "installations": [installation] })).with_app();
    let findings = setup.check().await;
    is_well(findings.of(Check::Repository, "acme/web"), "private");
    says(findings.of(Check::Repository, "acme/api"), Verdict::Failure, "404", "check its name");
    assert_eq!(findings.troubles(), [Check::Repository]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_a_warning() {
    for (ahead, said) in [(TimeDelta::minutes(10), "ahead of GitHub's"), (TimeDelta::hours(-2), "behind GitHub's")] {
        let setup = Setup { ahead, ..Setup::plain() };
        let findings = setup.check().await;
        says(findings.of(Check::Clock, "gh"), Verdict::Warning, said, "timedatectl");
        assert_eq!(findings.troubles(), [Check::Clock]);
    }
    is_well(Setup::plain().check().await.of(Check::Clock, "gh"), "agrees");
}

#[tokio::test(start_paused = true)]
async fn a_github_that_does_not_answer_is_told_as_such() {
    let setup = Setup::plain();
    setup.world.add_fault("github_outage").unwrap();
    let findings = setup.check().await;
    says(findings.of(Check::Credential, "gh"), Verdict::Failure, "503", "status page");
    says(findings.of(Check::Clock, "gh"), Verdict::Skipped, "did not answer", "");
    is_well(findings.one(Check::ModalToken), "");
}

#[tokio::test(start_paused = true)]
async fn what_writes_nothing_says_what_it_did_not_prove() {
    let setup = Setup { writes: Writes::None, ..Setup::plain() };
    let findings = setup.check().await;
    says(findings.of(Check::RegisterRunners, "acme/web"), Verdict::Skipped, "nothing is to be written", "");
    assert_eq!((setup.calls(Operation::Mint), findings.worst()), (0, Verdict::Ok));
    let setup = Setup::plain().configure(|config| config.mode = Mode::Observe);
    says(setup.check().await.of(Check::RegisterRunners, "acme/web"), Verdict::Skipped, "nothing is to be written", "");
    assert_eq!(setup.calls(Operation::Mint), 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_an_organization_does_not_admit_is_told() {
    is_well(Setup::plain().check().await.of(Check::IpAllowList, "gh"), "no call was refused");
    // The simulated GitHub knows no such lists.
    let setup = Setup::plain();
    let mut facts = setup.facts().await;
    let said = "cannot list the workflow runs of acme/web: GitHub answered 403: your IP address is not permitted to access this resource";
    for repo in facts.repos.values_mut() {
        let remedy = Some("add this machine's address to the organization's IP allow list".to_owned());
        repo.runs = Err(Failed { remedy, ..failed(ErrorClass::Forbidden, said) });
    }
    let findings = setup.judge(&facts);
    says(findings.of(Check::IpAllowList, "gh"), Verdict::Failure, "not permitted", "IP allow list");
    says(findings.of(Check::ReadRuns, "acme/web"), Verdict::Failure, "not permitted", "IP allow list");
}

#[tokio::test(start_paused = true)]
async fn scopes_that_are_missing_are_named() {
    let setup = Setup::plain().configure(|config| {
        let organization =
            OrganizationConfig { name: "acme".into(), runner_group: Some("Modal".into()), runner_group_id: None };
        config.github[0].organizations.push(organization);
    });
    let mut facts = setup.facts().await;
    for (scopes, missing) in [("repo", "scope `admin:org`"), ("gist", "scope `repo` and `admin:org`")] {
        let access = facts.credentials.values_mut().next().unwrap();
        access.access.as_mut().unwrap().scopes = Some([scopes.to_owned()].into());
        says(setup.judge(&facts).of(Check::Permissions, "gh"), Verdict::Failure, missing, "token's settings");
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_of_an_installation_is_none_to_live_on() {
    let setup = Setup::plain();
    let facts = setup.facts().await;
    let findings = setup.with_token("ghs_x").judge(&facts);
    says(findings.of(Check::Credential, "gh"), Verdict::Warning, "lasts an hour", "app_id");
}

#[tokio::test(start_paused = true)]
async fn permissions_that_the_app_itself_does_not_ask_for_are_told_so() {
    let setup = Setup::plain().with_app();
    let mut facts = setup.facts().await;
    for account in facts.accounts.values_mut() {
        let (app, installed) = account.app.as_mut().unwrap().as_mut().unwrap();
        app.permissions.remove("administration");
        installed[0].permissions.remove("administration");
    }
    let findings = setup.judge(&facts);
    says(
        findings.of(Check::Permissions, "gh/acme"),
        Verdict::Failure,
        "`administration: write`",
        "to the permissions of the App",
    );
}
