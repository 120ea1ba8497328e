//! What the client makes of a GitHub with named faults.

use std::time::Duration;

use sandrunner::budget::Purpose;
use sandrunner::error::ErrorClass;
use sandrunner::github::Paging;
use sandrunner::sim::{Fault, FaultMode, FaultRequest, Operation};
use sandrunner::state::{JobStatus, Reading};

use crate::script::unknown;
use crate::simulated::{RUN, Simulated, job, repo, scenario};

/// How reading the run list fails under a fault of every call.
async fn failure_of(fault: &str) -> (ErrorClass, Option<Duration>, String) {
    let github = Simulated::start(scenario([job(RUN, 1)]));
    github.world.add_fault(FaultRequest { rate: Some(1.0), ..FaultRequest::from(fault) }).unwrap();
    let failure = unknown(github.reader.list_runs(&repo(), Purpose::RunList, 1, |_| Paging::Stop).await);
    (failure.class, failure.retry_after, failure.message)
}

#[tokio::test(start_paused = true)]
async fn no_failure_is_an_empty_list_and_each_has_its_class() {
    for (fault, class) in [
        ("github_errors", ErrorClass::Unavailable),
        ("github_outage", ErrorClass::Unavailable),
        ("github_cut", ErrorClass::Unavailable),
        ("github_partition", ErrorClass::Unavailable),
        ("github_blackhole", ErrorClass::Unavailable),
        ("github_slow", ErrorClass::Unavailable),
        ("truncated_body", ErrorClass::Unreadable),
        ("malformed_body", ErrorClass::Unreadable),
        ("bare_304", ErrorClass::Unreadable),
        ("token_rejected", ErrorClass::Unauthorized),
        ("token_revoked", ErrorClass::Unauthorized),
        ("repo_not_found", ErrorClass::NotFound),
        ("repo_moved", ErrorClass::Policy),
        ("actions_disabled", ErrorClass::Policy),
    ] {
        let (seen, _, message) = failure_of(fault).await;
        assert_eq!(seen, class, "{fault}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_form_of_limit_is_known_as_one() {
    for (fault, wait) in [
        ("secondary_limit_403", Some(60)),
        ("secondary_limit_429", Some(60)),
        ("secondary_limit_bare", None),
        ("secondary_limit_bare_429", None),
        ("primary_limit_403", Some(600)),
        ("primary_limit_429", Some(600)),
        ("primary_limit_retry_after", Some(600)),
        ("primary_limit_retry_after_429", Some(600)),
        ("primary_limit_bare", None),
        ("primary_limit_bare_429", None),
    ] {
        let (class, told, message) = failure_of(fault).await;
        assert_eq!(class, ErrorClass::RateLimited, "{fault}: {message}");
        // What is stated as a time of the clock is stated to the second.
        let is_near = |secs: u64, told: Duration| told.abs_diff(Duration::from_secs(secs)) <= Duration::from_secs(2);
        assert!(wait.is_none_or(|secs| told.is_some_and(|told| is_near(secs, told))), "{fault}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mint_that_may_have_been_carried_out_says_so() {
    for mode in [FaultMode::CutAfter, FaultMode::ReplyLost, FaultMode::Malformed, FaultMode::ConfigCorrupt] {
        let github = Simulated::start(scenario([]));
        github.world.add_fault(Fault::new(Operation::Mint, mode)).unwrap();
        let error = github.mint("sr-main-gh1-1-1").await.unwrap_err();
        assert!(error.class().may_have_taken_effect(), "{mode:?}: {error}");
        assert_eq!(github.runners().await.len(), 1, "{mode:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_the_future_is_read_as_far_as_it_is_known() {
    let github = Simulated::start(scenario([job(RUN, 1), job(RUN, 2)]));
    github.world.add_fault(Fault::new(Operation::ListJobs, FaultMode::Unfamiliar)).unwrap();
    let jobs = github.jobs(RUN).await;
    assert!(matches!(jobs[0].status, JobStatus::Other(_)), "{:?}", jobs[0].status);
    assert_eq!(jobs[1].status, JobStatus::Queued);
}

#[tokio::test(start_paused = true)]
async fn a_list_with_a_page_that_fails_is_partial() {
    let github = Simulated::start(scenario((0..150).map(|n| job(RUN + n, n))));
    // GitHub's pages are small then, so that short lists have a second one.
    github.world.add_fault("page_error").unwrap();
    github.world.add_fault(Fault::new(Operation::ListRuns, FaultMode::PageError)).unwrap();
    let reading = github.reader.list_runs(&repo(), Purpose::RunList, 15, |_| Paging::Continue).await;
    let Reading::Partial { seen, missing } = reading else { panic!("{reading:?}") };
    assert_eq!((seen.runs.len(), seen.reaches_end, missing.class), (3, false, ErrorClass::Unavailable));
}
