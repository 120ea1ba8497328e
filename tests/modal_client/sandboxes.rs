//! The life of sandboxes, as the client sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;

use sandrunner::error::ErrorClass;
use sandrunner::ids::{SandboxId, SecretId};
use sandrunner::modal::{
    CreatedSandbox, Deletion, Generation, Gpu, ModalSettings, NameOf, Origin, OutputOf, SandboxFate, SandboxSpec,
};
use sandrunner::sim::{Event, Fault, FaultMode, Operation, What};
use sandrunner::state::{Reading, SandboxEnd, Spend};
use tokio::task::JoinSet;
use tonic::Code;

use super::Sim;

/// Creates `count` sandboxes at once, with names and tags of their own.
async fn create_many(sim: &Sim, spec: &SandboxSpec, count: usize) {
    let mut creates = JoinSet::new();
    for n in 0..count {
        let mut spec = spec.clone();
        spec.name = format!("sr-main-gh-{n}-1");
        spec.tags.insert("job".to_owned(), n.to_string());
        let writer = sim.writer.clone();
        creates.spawn(async move { writer.create_sandbox(&spec).await.unwrap() });
    }
    assert_eq!(creates.join_all().await.len(), count);
    // Creates of one instant are stamped one after the other, a little into the future.
    sim.clock.sleep(Duration::from_secs(1)).await;
}

fn end(fate: SandboxFate) -> SandboxEnd {
    let SandboxFate::Ended(result) = fate else { panic!("it has ended") };
    result.status
}

fn deployment() -> BTreeMap<String, String> {
    BTreeMap::from([("deployment".to_owned(), "main".to_owned())])
}

#[tokio::test(start_paused = true)]
async fn a_listing_goes_on_to_the_empty_page() {
    let (sim, spec) = Sim::prepared().await;
    create_many(&sim, &spec, 120).await;
    let Reading::Known(all) = sim.reader.list_sandboxes(&spec.app, &deployment()).await else {
        panic!("nothing went wrong")
    };
    let names: BTreeSet<_> = all.iter().map(|sandbox| sandbox.name.clone()).collect();
    assert_eq!((all.len(), names.len()), (120, 120));
    assert_eq!(sim.calls(Operation::ListSandboxes), 4, "three pages of 50 and an empty one");
    assert!(all.iter().all(|sandbox| sandbox.tags["deployment"] == "main" && sandbox.result.is_none()));

    let one = BTreeMap::from([("job".to_owned(), "17".to_owned())]);
    let listed = sim.reader.list_sandboxes(&spec.app, &one).await;
    assert_eq!(listed.seen().unwrap().len(), 1);
    let none = BTreeMap::from([("job".to_owned(), "no".to_owned())]);
    assert_eq!(sim.reader.list_sandboxes(&spec.app, &none).await, Reading::Known(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_leaves_what_was_seen_before_it() {
    let (sim, spec) = Sim::prepared().await;
    create_many(&sim, &spec, 60).await;
    sim.fault(Fault { after: 1, times: 4, ..Fault::new(Operation::ListSandboxes, FaultMode::Error) });
    let Reading::Partial { seen, missing } = sim.reader.list_sandboxes(&spec.app, &deployment()).await else {
        panic!("the second page is missing")
    };
    assert_eq!((seen.len(), missing.class), (50, ErrorClass::Unavailable));
    sim.fail(Operation::ListSandboxes, Code::PermissionDenied, 1);
    let Reading::Unknown(failure) = sim.reader.list_sandboxes(&spec.app, &deployment()).await else {
        panic!("nothing was read")
    };
    assert_eq!(failure.class, ErrorClass::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_is_created_placed_and_seen_to_its_end() {
    let (sim, spec) = Sim::prepared().await;
    let created = sim.writer.create_sandbox(&spec).await.unwrap();
    assert_eq!((created.generation, created.origin), (Generation::V2, Origin::Answered));
    assert!(!created.id.is_v1());
    let Reading::Known(listed) = sim.reader.list_sandboxes(&spec.app, &deployment()).await else {
        panic!("nothing went wrong")
    };
    assert_eq!((&listed[0].id, listed[0].is_scheduled), (&created.id, true));
    assert_eq!(listed[0].tags, spec.tags);
    assert_eq!(sim.reader.tags(&created.id).await.unwrap(), spec.tags);

    let (fate, held) = sim.timed(sim.reader.wait(&created.id, Duration::from_secs(10))).await;
    assert_eq!(fate.unwrap(), SandboxFate::Running);
    assert!(super::is_about(held, 10.0), "{held}");
    sim.clock.sleep(spec.timeout).await;
    let fate = sim.reader.wait(&created.id, Duration::from_secs(10)).await;
    assert_eq!(end(fate.unwrap()), SandboxEnd::Timeout);
    assert_eq!(sim.reader.list_sandboxes(&spec.app, &deployment()).await, Reading::Known(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_gpu_sandbox_waits_for_a_machine_with_its_secret() {
    let (sim, spec) = Sim::prepared().await;
    let secret = sim.writer.store_secret(&spec.name, &spec.env).await.unwrap();
    let gpu = Some(Gpu { name: "a100".to_owned(), count: 1 });
    let spec = SandboxSpec { gpu, env: Vec::new(), secret_ids: vec![secret.clone()], ..spec };
    let created = sim.writer.create_sandbox(&spec).await.unwrap();
    assert_eq!(created.generation, Generation::V1);
    assert!(created.id.is_v1());
    let is_scheduled = || async {
        let listed = sim.reader.list_sandboxes(&spec.app, &deployment()).await;
        listed.seen().unwrap()[0].is_scheduled
    };
    assert!(!is_scheduled().await);
    sim.clock.sleep(Duration::from_secs(6)).await;
    assert!(is_scheduled().await);
    assert_eq!(sim.reader.tags(&created.id).await.unwrap(), spec.tags);
    let found = sim.reader.find_by_name(&spec.name, Generation::V1, NameOf::Live).await.unwrap();
    assert_eq!(found.as_ref(), Some(&created.id));
    assert_eq!(sim.reader.find_by_name(&spec.name, Generation::V2, NameOf::Live).await.unwrap(), None);

    assert_eq!(sim.writer.delete_secret(&secret).await.unwrap(), Deletion::Done);
    assert_eq!(sim.writer.delete_secret(&secret).await.unwrap(), Deletion::NotThere);
    let error = sim.writer.create_sandbox(&SandboxSpec { name: "sr-main-gh-8-1".to_owned(), ..spec }).await;
    assert_eq!(error.unwrap_err().class(), ErrorClass::NotFound, "its Secret is gone");
}

#[tokio::test(start_paused = true)]
async fn output_is_asked_for_by_task_and_for_the_older_interface_by_sandbox() {
    let (sim, spec) = Sim::prepared().await;
    let newer = sim.writer.create_sandbox(&spec).await.unwrap();
    let secret = sim.writer.store_secret(&spec.name, &spec.env).await.unwrap();
    let gpu = Some(Gpu { name: "t4".to_owned(), count: 1 });
    let name = "sr-main-gh-8-1".to_owned();
    let older = SandboxSpec { name, gpu, env: Vec::new(), secret_ids: vec![secret], ..spec.clone() };
    let older = sim.writer.create_sandbox(&older).await.unwrap();
    let task = newer.task.clone().expect("a newer sandbox has a machine when the create is answered");
    assert_eq!(older.task, None);
    let listed = sim.reader.list_sandboxes(&spec.app, &deployment()).await;
    assert!(listed.seen().unwrap().iter().any(|sandbox| sandbox.task.as_ref() == Some(&task)));
    let of = |sandbox: &CreatedSandbox, task| OutputOf {
        sandbox: sandbox.id.clone(),
        task,
        since: sim.clock.now() - TimeDelta::minutes(1),
        until: sim.clock.now(),
    };
    for of in [of(&newer, Some(task.clone())), of(&older, None), of(&newer, None)] {
        assert_eq!(sim.reader.output(&spec.app, &of, 100).await.unwrap(), "", "no runner is in it that could print");
    }
    let target = |event: Event| {
        let What::Call { operation: Operation::Logs, target, .. } = event.what else { return None };
        Some(target)
    };
    let asked: Vec<String> = sim.world.history(0).into_iter().filter_map(target).collect();
    assert_eq!(asked, [task.to_string(), older.id.to_string()], "nothing leads to that of the third");
}

#[tokio::test(start_paused = true)]
async fn the_quota_is_that_of_the_environment_of_our_app() {
    let sim = Sim::new();
    let quota = sim.reader.quota().await.unwrap();
    assert_eq!(
        (quota.environment.as_str(), quota.max_tasks, quota.tasks, quota.spend),
        ("main", None, 0, Spend::Within)
    );
    sim.world.add_fault("modal_spend_limit").unwrap();
    sim.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(sim.reader.quota().await.unwrap().spend, Spend::LimitReached);
    let settings =
        ModalSettings { environment: "other".to_owned(), ..super::settings("http://modal.invalid".to_owned()) };
    let error = Sim::with(settings).reader.quota().await.unwrap_err().to_string();
    assert_eq!(error, "cannot read the quota of environment other: the list of environments lacks it");
}

#[tokio::test(start_paused = true)]
async fn a_termination_is_asked_for_and_comes_later() {
    let (sim, spec) = Sim::prepared().await;
    let id = sim.writer.create_sandbox(&spec).await.unwrap().id;
    sim.writer.terminate(&id).await.unwrap();
    assert_eq!(sim.reader.wait(&id, Duration::ZERO).await.unwrap(), SandboxFate::Running);
    let (fate, held) = sim.timed(sim.reader.wait(&id, Duration::from_secs(10))).await;
    assert_eq!(end(fate.unwrap()), SandboxEnd::Terminated);
    assert!(held.as_seconds_f64() < 2.0, "{held}");
    sim.writer.terminate(&id).await.expect("a sandbox that ended is done");
    assert_eq!(sim.reader.find_by_name(&spec.name, Generation::V2, NameOf::Live).await.unwrap(), None);
    let ended = sim.reader.find_by_name(&spec.name, Generation::V2, NameOf::LiveOrEnded).await.unwrap();
    assert_eq!(ended, Some(id));
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_modal_does_not_know_is_gone() {
    let (sim, _) = Sim::prepared().await;
    for id in ["sb-01ARZ3NDEKTSV4RRFFQ69G5FAV", "sb-0123456789abcdefghijAB"] {
        let id = SandboxId::new(id);
        assert_eq!(sim.reader.wait(&id, Duration::ZERO).await.unwrap(), SandboxFate::Gone);
        sim.writer.terminate(&id).await.expect("a sandbox that is gone is done");
        assert_eq!(sim.reader.tags(&id).await.unwrap_err().class(), ErrorClass::NotFound);
    }
    assert_eq!(sim.writer.delete_secret(&SecretId::new("st-none")).await.unwrap(), Deletion::NotThere);
}

#[tokio::test(start_paused = true)]
async fn the_app_is_created_by_the_writer_alone() {
    let sim = Sim::new();
    sim.reader.hello().await.unwrap();
    assert_eq!(sim.reader.lookup_app().await.unwrap(), None);
    let app = sim.writer.ensure_app().await.unwrap();
    assert_eq!(sim.writer.ensure_app().await.unwrap(), app);
    assert_eq!(sim.reader.lookup_app().await.unwrap(), Some(app));
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_modal_would_refuse_is_not_sent() {
    let (sim, spec) = Sim::prepared().await;
    let spec = SandboxSpec { timeout: Duration::from_secs(86_401), ..spec };
    let error = sim.writer.create_sandbox(&spec).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert_eq!(sim.calls(Operation::Create), 0);
}
