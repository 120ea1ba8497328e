//! That runners can be registered and deleted is proved by one that does not stay, whatever goes wrong meanwhile.

use sandrunner::check::{Check, Verdict};
use sandrunner::sim::{FaultRequest, Operation, Profile, What};
use serde_json::{Value, json};

use crate::setup::{Setup, is_well, says};

/// A fault that strikes so many times.
fn times(name: &str, times: u32) -> FaultRequest {
    FaultRequest { times: Some(times), ..FaultRequest::from(name) }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_tried_until_it_is_done() {
    for fault in ["delete_reply_lost", "delete_reply_cut", "delete_applied_late"] {
        let setup = Setup::plain();
        setup.world.add_fault(times(fault, 2)).unwrap();
        let findings = setup.check().await;
        is_well(findings.of(Check::RegisterRunners, "acme/web"), "registered and deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_cannot_be_deleted_is_named() {
    let setup = Setup::plain();
    setup.world.add_fault(times("delete_422", 100)).unwrap();
    let findings = setup.look().await;
    let told = findings.of(Check::RegisterRunners, "acme/web");
    says(told, Verdict::Failure, "runner sr-main-gh-9", "the daemon of deployment `main`");
    assert!(told.text.contains("could not be deleted: GitHub says that it runs a job"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registration_whose_answer_is_lost_is_found_and_deleted() {
    for fault in ["mint_reply_lost", "mint_reply_cut", "jit_config_corrupt"] {
        let setup = Setup::plain();
        setup.world.add_fault(times(fault, 1)).unwrap();
        let findings = setup.check().await;
        is_well(findings.of(Check::RegisterRunners, "acme/web"), "registered and deleted");
        assert_eq!((setup.calls(Operation::Mint), setup.calls(Operation::DeleteRunner)), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_may_come_later_is_told_and_is_one_that_a_daemon_deletes() {
    let setup = Setup::plain();
    setup.world.add_fault(times("mint_applied_late", 1)).unwrap();
    let findings = setup.look().await;
    says(
        findings.of(Check::RegisterRunners, "acme/web"),
        Verdict::Failure,
        "may have been",
        "deletes it within minutes",
    );
    setup.world.advance(std::time::Duration::from_secs(60));
    let registered = setup.world.history(0).into_iter().find_map(|event| match event.what {
        What::RunnerRegistered { runner, labels, .. } => Some((runner, labels)),
        _ => None,
    });
    let (runner, labels) = registered.unwrap();
    assert!(runner.parse::<sandrunner::ids::OurName>().is_ok() && runner.len() <= 64, "{runner}");
    assert_eq!(labels, ["sandrunner-check"]);
}

#[tokio::test(start_paused = true)]
async fn of_many_repositories_of_one_credential_ten_are_proved() {
    let repos: Vec<Value> = (0..14).map(|n| json!({ "name": format!("acme/r{n:02}") })).collect();
    let setup = Setup::of(Profile::calm(), &json!({ "repos": repos }));
    let findings = setup.check().await;
    assert_eq!((findings.troubles(), setup.calls(Operation::Mint)), (vec![], 10));
    is_well(findings.of(Check::RegisterRunners, "acme/r00"), "registered and deleted");
    is_well(findings.of(Check::RegisterRunners, "acme/r13"), "proved elsewhere");

    let setup = Setup::of(Profile::calm(), &json!({ "repos": repos }));
    setup.world.add_fault(times("mint_403", 100)).unwrap();
    let findings = setup.check().await;
    says(findings.of(Check::RegisterRunners, "acme/r00"), Verdict::Failure, "403", "");
    says(findings.of(Check::RegisterRunners, "acme/r13"), Verdict::Skipped, "failed elsewhere", "");
}
