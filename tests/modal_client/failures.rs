//! Calls that go wrong: what is repeated, what is final, and what a lost answer means.

use std::time::Duration;

use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::ids::SandboxId;
use sandrunner::modal::{Generation, Gpu, ModalSettings, NameOf, Origin, SandboxFate, SandboxSpec};
use sandrunner::sim::{Fault, FaultMode, Operation};
use tokio::task::JoinSet;
use tonic::Code;

use super::{Sim, is_about};

fn lost_reply(operation: Operation) -> Fault {
    Fault::new(operation, FaultMode::ReplyLost)
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_repeated_three_times_within_a_second() {
    let (sim, spec) = Sim::prepared().await;
    let id = sim.writer.create_sandbox(&spec).await.unwrap().id;
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Internal, Code::Unknown] {
        sim.fail(Operation::Wait, code, 3);
        let (fate, elapsed) = sim.timed(sim.reader.wait(&id, Duration::ZERO)).await;
        assert_eq!(fate.unwrap(), SandboxFate::Running, "{code:?}");
        assert!(is_about(elapsed, 0.7), "{code:?}: {elapsed}");
    }
    let before = sim.calls(Operation::Wait);
    sim.fail(Operation::Wait, Code::Unavailable, 4);
    let error = sim.reader.wait(&id, Duration::ZERO).await.unwrap_err();
    assert_eq!((error.class(), sim.calls(Operation::Wait) - before), (ErrorClass::Unavailable, 4));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_final_and_has_its_class() {
    let (sim, spec) = Sim::prepared().await;
    let cases = [
        (Code::PermissionDenied, ErrorClass::Forbidden),
        (Code::InvalidArgument, ErrorClass::Invalid),
        (Code::FailedPrecondition, ErrorClass::Invalid),
        (Code::Unimplemented, ErrorClass::Invalid),
        (Code::ResourceExhausted, ErrorClass::RateLimited),
        (Code::NotFound, ErrorClass::NotFound),
        (Code::Aborted, ErrorClass::Unavailable),
    ];
    for (code, class) in cases {
        let before = sim.calls(Operation::Create);
        sim.fail(Operation::Create, code, 1);
        let failure = CallFailure::from(sim.writer.create_sandbox(&spec).await.unwrap_err());
        assert_eq!((failure.class, failure.retry_after), (class, None), "{code:?}");
        assert!(failure.message.starts_with("cannot create sandbox sr-main-gh-7-1: "), "{failure}");
        assert_eq!(sim.calls(Operation::Create) - before, 1, "{code:?}");
    }
    assert_eq!(sim.created(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_is_told_what_to_change() {
    let sim = Sim::new();
    sim.fail(Operation::Hello, Code::FailedPrecondition, 1);
    let failure = CallFailure::from(sim.reader.hello().await.unwrap_err());
    assert!(failure.message.contains("set a newer Modal client version"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_taken_name_is_a_conflict() {
    let (sim, spec) = Sim::prepared().await;
    let first = sim.writer.create_sandbox(&spec).await.unwrap();
    let error = sim.writer.create_sandbox(&spec).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert_eq!((sim.created(), sim.calls(Operation::SandboxByName)), (1, 0));
    assert_eq!(sim.reader.wait(&first.id, Duration::ZERO).await.unwrap(), SandboxFate::Running);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_whose_answer_was_lost_is_adopted() {
    let (sim, plain) = Sim::prepared().await;
    let secret = sim.writer.store_secret("spare", &plain.env).await.unwrap();
    let gpu = SandboxSpec {
        name: "sr-main-gh-8-1".to_owned(),
        gpu: Some(Gpu { name: "T4".to_owned(), count: 1 }),
        env: Vec::new(),
        secret_ids: vec![secret],
        ..plain.clone()
    };
    for (spec, generation) in [(plain, Generation::V2), (gpu, Generation::V1)] {
        let before = sim.created();
        sim.fault(lost_reply(Operation::Create));
        let created = sim.writer.create_sandbox(&spec).await.unwrap();
        assert_eq!((created.generation, created.origin), (generation, Origin::Adopted));
        assert_eq!(sim.created() - before, 1);
        let found = sim.reader.find_by_name(&spec.name, generation, NameOf::Live).await.unwrap();
        assert_eq!(found, Some(created.id));
    }
}

#[tokio::test(start_paused = true)]
async fn anothers_sandbox_is_not_adopted() {
    let (sim, spec) = Sim::prepared().await;
    let mut other = spec.clone();
    other.tags.insert("deployment".to_owned(), "other".to_owned());
    sim.writer.create_sandbox(&other).await.unwrap();
    // The first attempt fails without an effect, which its sender cannot know.
    sim.fail(Operation::Create, Code::Unavailable, 1);
    let error = sim.writer.create_sandbox(&spec).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Conflict);
    assert_eq!(sim.created(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_may_have_had_its_effect_says_so() {
    let (sim, spec) = Sim::prepared().await;
    sim.fault(lost_reply(Operation::Create));
    sim.fail(Operation::Create, Code::Unavailable, 3);
    let error = sim.writer.create_sandbox(&spec).await.unwrap_err();
    assert!(error.class().may_have_taken_effect());
    assert_eq!(sim.created(), 1);

    let spec = SandboxSpec { name: "sr-main-gh-8-1".to_owned(), ..spec };
    sim.fault(lost_reply(Operation::Create));
    sim.fail(Operation::Create, Code::ResourceExhausted, 1);
    let error = sim.writer.create_sandbox(&spec).await.unwrap_err();
    assert!(error.class().may_have_taken_effect(), "the limit applies to the second attempt: {error}");
    assert_eq!(sim.created(), 2);

    let spec = SandboxSpec { name: "sr-main-gh-9-1".to_owned(), ..spec };
    sim.fault(lost_reply(Operation::Create));
    sim.fail(Operation::SandboxByName, Code::Unavailable, 4);
    let error = sim.writer.create_sandbox(&spec).await.unwrap_err();
    assert!(error.class().may_have_taken_effect(), "the look-up failed: {error}");
    assert!(sim.reader.find_by_name(&spec.name, Generation::V2, NameOf::Live).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_termination_whose_answer_was_lost_is_repeated() {
    let (sim, spec) = Sim::prepared().await;
    let id = sim.writer.create_sandbox(&spec).await.unwrap().id;
    sim.fault(lost_reply(Operation::Terminate));
    sim.writer.terminate(&id).await.unwrap();
    assert_eq!(sim.calls(Operation::Terminate), 2);
}

#[tokio::test(start_paused = true)]
async fn modal_is_waited_for_as_long_as_it_asks() {
    let (sim, spec) = Sim::prepared().await;
    let throttled = Fault { times: 5, seconds: Some(1.5), ..Fault::new(Operation::Create, FaultMode::RateLimited) };
    sim.fault(throttled);
    let (created, elapsed) = sim.timed(sim.writer.create_sandbox(&spec)).await;
    created.unwrap();
    assert!(is_about(elapsed, 7.5), "{elapsed}");
}

#[tokio::test(start_paused = true)]
async fn creates_wait_while_modal_has_asked_one_of_them_to_wait() {
    let (sim, spec) = Sim::prepared().await;
    sim.fault(Fault { seconds: Some(2.0), ..Fault::new(Operation::Create, FaultMode::RateLimited) });
    let other = SandboxSpec { name: "sr-main-gh-8-1".to_owned(), ..spec.clone() };
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sim.writer.create_sandbox(&other).await
    };
    let (one, other) = futures::future::join(sim.timed(sim.writer.create_sandbox(&spec)), sim.timed(late)).await;
    assert!(is_about(one.1, 2.0) && is_about(other.1, 2.0), "{} and {}", one.1, other.1);
    one.0.unwrap();
    other.0.unwrap();
    assert_eq!(sim.calls(Operation::Create), 3, "one was refused, and no other was sent before it was time");
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_limit_is_reported() {
    let (sim, spec) = Sim::prepared().await;
    sim.fault(Fault { seconds: Some(60.0), ..Fault::new(Operation::Create, FaultMode::RateLimited) });
    let (error, elapsed) = sim.timed(sim.writer.create_sandbox(&spec)).await;
    let failure = CallFailure::from(error.unwrap_err());
    assert_eq!(failure.class, ErrorClass::RateLimited);
    assert_eq!(failure.retry_after, Some(Duration::from_secs(60)));
    assert!(is_about(elapsed, 0.0), "{elapsed}");

    let settings = super::settings("http://modal.invalid".to_owned());
    let sim = Sim::with(ModalSettings { max_throttle_wait: Duration::ZERO, ..settings });
    sim.fault(Fault::new(Operation::Hello, FaultMode::RateLimited));
    let error = sim.reader.hello().await.unwrap_err();
    assert_eq!((error.class(), error.retry_after()), (ErrorClass::RateLimited, Some(Duration::from_millis(1500))));
}

#[tokio::test(start_paused = true)]
async fn a_burst_beyond_modals_rate_is_served_in_the_end() {
    let (sim, spec) = Sim::prepared().await;
    let mut creates = JoinSet::new();
    for n in 0..180 {
        let writer = sim.writer.clone();
        let spec = SandboxSpec { name: format!("sr-main-gh-{n}-1"), ..spec.clone() };
        creates.spawn(async move { writer.create_sandbox(&spec).await });
    }
    let (ends, elapsed) = sim.timed(creates.join_all()).await;
    assert!(ends.iter().all(Result::is_ok), "{:?}", ends.iter().find(|end| end.is_err()));
    assert_eq!(sim.created(), 180);
    assert!((5.5..20.0).contains(&elapsed.as_seconds_f64()), "30 beyond the burst at 5 per second: {elapsed}");
}

#[tokio::test(start_paused = true)]
async fn every_call_has_its_deadline() {
    let (sim, spec) = Sim::prepared().await;
    let slow = |operation, secs| Fault { seconds: Some(secs), ..Fault::new(operation, FaultMode::Slow) };
    sim.fault(slow(Operation::GetTags, 31.0));
    let id = SandboxId::new("sb-01ARZ3NDEKTSV4RRFFQ69G5FAV");
    let (error, elapsed) = sim.timed(sim.reader.tags(&id)).await;
    let failure = CallFailure::from(error.unwrap_err());
    assert_eq!(failure.class, ErrorClass::Unavailable);
    assert!(failure.message.ends_with("no answer within 30s"), "{failure}");
    assert!(is_about(elapsed, 30.0), "{elapsed}");
    assert_eq!(sim.calls(Operation::GetTags), 1, "what took too long once is not asked for again");

    sim.fault(slow(Operation::Create, 119.0));
    sim.writer.create_sandbox(&spec).await.expect("a create may take two minutes");
    let spec = SandboxSpec { name: "sr-main-gh-8-1".to_owned(), ..spec };
    sim.fault(slow(Operation::Create, 121.0));
    let (error, elapsed) = sim.timed(sim.writer.create_sandbox(&spec)).await;
    assert!(error.unwrap_err().class().may_have_taken_effect());
    assert!(is_about(elapsed, 120.0), "{elapsed}");
    assert_eq!(sim.created(), 2);

    let held = sim.reader.find_by_name(&spec.name, Generation::V2, NameOf::Live).await.unwrap().unwrap();
    sim.fault(slow(Operation::Wait, 60.0));
    let (error, elapsed) = sim.timed(sim.reader.wait(&held, Duration::from_secs(10))).await;
    assert_eq!(error.unwrap_err().class(), ErrorClass::Unavailable);
    assert!(is_about(elapsed, 15.0), "{elapsed}");
}
