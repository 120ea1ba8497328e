//! The auth token: fetched once for all, renewed early, kept where it cannot be.

use std::time::Duration;

use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::sim::{Fault, FaultMode, Operation};
use tokio::task::JoinSet;
use tonic::Code;

use super::{Sim, is_about};

#[tokio::test(start_paused = true)]
async fn all_who_need_a_token_share_one_fetch() {
    let sim = Sim::new();
    sim.fault(Fault { seconds: Some(2.0), ..Fault::new(Operation::AuthToken, FaultMode::Slow) });
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let reader = sim.reader.clone();
        calls.spawn(async move { reader.hello().await });
    }
    let (ends, elapsed) = sim.timed(calls.join_all()).await;
    assert!(ends.iter().all(Result::is_ok));
    assert_eq!((sim.calls(Operation::AuthToken), sim.calls(Operation::Hello)), (1, 50));
    assert!(is_about(elapsed, 2.0), "{elapsed}");
}

#[tokio::test(start_paused = true)]
async fn all_who_waited_for_a_fetch_share_its_failure() {
    let sim = Sim::new();
    sim.fail(Operation::AuthToken, Code::Unavailable, 4);
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let reader = sim.reader.clone();
        calls.spawn(async move { reader.hello().await });
    }
    let ends = calls.join_all().await;
    assert!(ends.iter().all(|end| end.as_ref().is_err_and(|error| error.class() == ErrorClass::Unsent)));
    assert_eq!((sim.calls(Operation::AuthToken), sim.calls(Operation::Hello)), (4, 0));
    sim.clock.sleep(Duration::from_millis(500)).await;
    sim.reader.hello().await.expect("it is asked for again after a moment");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_the_second_half_of_its_life_without_a_wait() {
    let sim = Sim::new();
    sim.reader.hello().await.unwrap();
    sim.clock.sleep(Duration::from_secs(9 * 60)).await;
    sim.reader.hello().await.unwrap();
    assert_eq!(sim.calls(Operation::AuthToken), 1, "nine of twenty minutes are not half");

    sim.clock.sleep(Duration::from_secs(4 * 60)).await;
    sim.fault(Fault { seconds: Some(3.0), ..Fault::new(Operation::AuthToken, FaultMode::Slow) });
    let (end, elapsed) = sim.timed(sim.reader.hello()).await;
    end.unwrap();
    assert!(is_about(elapsed, 0.0), "the old token serves meanwhile: {elapsed}");
    sim.reader.hello().await.unwrap();
    sim.clock.sleep(Duration::from_secs(5)).await;
    assert_eq!(sim.calls(Operation::AuthToken), 2, "one renewal for both calls");

    // Past the end of the first token.
    sim.clock.sleep(Duration::from_secs(9 * 60)).await;
    sim.writer.ensure_app().await.unwrap();
    assert_eq!(sim.calls(Operation::AuthToken), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_old_token_and_backs_off() {
    let sim = Sim::new();
    sim.reader.hello().await.unwrap();
    sim.clock.sleep(Duration::from_secs(13 * 60)).await;
    sim.fail(Operation::AuthToken, Code::Unavailable, 2);
    for _ in 0..20 {
        sim.reader.hello().await.unwrap();
        sim.clock.sleep(Duration::from_millis(100)).await;
    }
    // At 0 s, again after 0.5 s, then after 1 s more.
    assert_eq!(sim.calls(Operation::AuthToken), 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once() {
    let (sim, spec) = Sim::prepared().await;
    let id = sim.writer.create_sandbox(&spec).await.unwrap().id;
    let before = sim.calls(Operation::AuthToken);
    sim.fault(Fault::new(Operation::Wait, FaultMode::Unauthorized));
    sim.reader.wait(&id, Duration::ZERO).await.unwrap();
    assert_eq!((sim.calls(Operation::Wait), sim.calls(Operation::AuthToken) - before), (2, 1));

    sim.fault(Fault { times: 2, ..Fault::new(Operation::Wait, FaultMode::Unauthorized) });
    let failure = CallFailure::from(sim.reader.wait(&id, Duration::ZERO).await.unwrap_err());
    assert_eq!(failure.class, ErrorClass::Unauthorized);
    assert!(failure.message.contains("check Modal's token id and token secret"), "{failure}");
    assert_eq!(sim.calls(Operation::Wait), 4);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_final() {
    for (code, class) in
        [(Code::Unauthenticated, ErrorClass::Unauthorized), (Code::PermissionDenied, ErrorClass::Forbidden)]
    {
        let sim = Sim::new();
        sim.fail(Operation::AuthToken, code, 1);
        for _ in 0..3 {
            let failure = CallFailure::from(sim.reader.hello().await.unwrap_err());
            assert_eq!(failure.class, class);
            assert!(!failure.message.contains("as-sim-secret"), "{failure}");
        }
        assert_eq!(sim.calls(Operation::AuthToken), 1, "not repeated at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_is_given_up() {
    let sim = Sim::new();
    let slow = Fault { times: 9, seconds: Some(60.0), ..Fault::new(Operation::AuthToken, FaultMode::Slow) };
    sim.fault(slow);
    let (end, elapsed) = sim.timed(sim.reader.hello()).await;
    assert_eq!(end.unwrap_err().class(), ErrorClass::Unsent);
    assert!(is_about(elapsed, 15.0), "5 s for an attempt, 15 s in all: {elapsed}");
}
