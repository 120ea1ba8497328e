//! Controls of what may be deleted and terminated.

use serde_json::json;

use super::running;
use super::tale::{JOB, REPO, RUN, Tale, created, id, name, nothing};

/// A registration whose sandbox never came, with both lists read once a minute.
fn stale() -> Tale {
    let minted = Tale::new().queued(1.0, 0).minted(10.0, &name(0, 1));
    (1..=5_u8).fold(minted, |tale, minute| {
        let at = f64::from(minute) * 60.0;
        tale.runners(at).fleet(at)
    })
}

/// A sandbox whose runner never came online, with both lists read once a minute, and jobs too.
fn silent(minutes: u8) -> Tale {
    let started = Tale::new().queued(1.0, 0).started(10.0, "sb-1", &name(0, 1));
    (1..=minutes).fold(started, |tale, minute| {
        let at = f64::from(minute) * 60.0;
        tale.runners(at).fleet(at).jobs(at)
    })
}

#[test]
fn what_is_foreign_is_not_touched() {
    let delete = |runner: &str| {
        let asked = json!({ "event": "runner_delete_asked", "repo": "acme/web", "runner": runner, "deleted": true });
        Tale::new().then(1.0, asked).violated(running())
    };
    let ours = name(0, 1);
    assert_eq!(delete(&ours), [""; 0]);
    for foreign in ["build-box-1", "sr-other-gh-5000000000-1", "sr-main-gh2-5-1", "sr-main-gh-05-1", "sr-main-gh-5-0"] {
        assert_eq!(delete(foreign), ["foreign"], "{foreign}");
    }
    assert_eq!(delete(&format!("{ours}-x")), ["foreign"], "a prefix is not enough");
    let notebook = json!({ "event": "sandbox_created", "sandbox": "sb-9", "name": "notebook", "gpu": false,
        "config": null });
    let terminated = Tale::new().then(1.0, notebook).terminated(900.0, "sb-9", "notebook", None);
    assert_eq!(terminated.violated(running()), ["foreign"]);
}

#[test]
fn a_sandbox_with_a_job_is_never_terminated() {
    let working = || {
        let started = Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1));
        started.online(7.0, "sb-1", &name(0, 1)).assigned(8.0, 0, &name(0, 1))
    };
    let violated = working().terminated(9.0, "sb-1", &name(0, 1), Some(JOB)).violated(running());
    assert_eq!(violated.first(), Some(&"claimed_terminated"));
    // The job was given between the request and the end.
    let raced = silent(7).deleted(430.0, &name(0, 1)).jobs(440.0).terminated(530.0, "sb-1", &name(0, 1), None);
    let raced = raced.online(530.5, "sb-1", &name(0, 1)).assigned(530.6, 0, &name(0, 1));
    assert_eq!(raced.ended(531.0, "sb-1", &name(0, 1)).violated(running()), ["claimed_terminated"]);
}

#[test]
fn a_registration_is_deleted_after_five_minutes_and_two_readings_of_both_lists() {
    assert_eq!(stale().deleted(310.0, &name(0, 1)).violated(running()), [""; 0]);
    assert_eq!(stale().deleted(309.0, &name(0, 1)).violated(running()), ["destroyed_unproven"], "too early");
    let unread = || Tale::new().queued(1.0, 0).minted(10.0, &name(0, 1)).fleet(60.0).fleet(300.0);
    let once = unread().runners(250.0).runners(309.0).deleted(311.0, &name(0, 1));
    assert_eq!(once.violated(running()), ["destroyed_unproven"], "59 s apart");
    let twice = unread().runners(249.0).runners(309.0).deleted(311.0, &name(0, 1));
    assert_eq!(twice.violated(running()), [""; 0]);
    let before = unread().runners(5.0).runners(309.0).deleted(311.0, &name(0, 1));
    assert_eq!(before.violated(running()), ["destroyed_unproven"], "a reading from before the registration");
    let lists = Tale::new().queued(1.0, 0).minted(10.0, &name(0, 1)).runners(100.0).runners(300.0).fleet(300.0);
    assert_eq!(lists.deleted(311.0, &name(0, 1)).violated(running()), ["destroyed_unproven"], "one fleet");
    let apps = |status| {
        let apps = [60.0, 300.0].into_iter();
        let none = apps.fold(Tale::new().queued(1.0, 0).minted(10.0, &name(0, 1)), |tale, at| {
            tale.modal(at, "app", status, &json!({}))
        });
        none.runners(100.0).runners(300.0).deleted(311.0, &name(0, 1)).violated(running())
    };
    assert_eq!(apps(5), [""; 0], "without an App there are no sandboxes");
    assert_eq!(apps(14), ["destroyed_unproven"], "nothing is known of the App");
}

#[test]
fn readings_that_failed_or_lack_a_page_prove_nothing() {
    let base = || Tale::new().queued(1.0, 0).minted(10.0, &name(0, 1)).fleet(60.0).fleet(300.0).runners(100.0);
    let with = |status: u16, more: bool| {
        base().github(200.0, "list_runners", status, &json!({ "page": 1, "more": more })).deleted(311.0, &name(0, 1))
    };
    assert_eq!(with(200, false).violated(running()), [""; 0]);
    assert_eq!(with(304, false).violated(running()), [""; 0]);
    assert_eq!(with(502, false).violated(running()), ["destroyed_unproven"]);
    assert_eq!(with(200, true).violated(running()), ["destroyed_unproven"]);
    let late = base().github(200.0, "list_runners", 200, &json!({ "page": 1, "delay_secs": 20.0 }));
    assert_eq!(late.deleted(311.0, &name(0, 1)).violated(running()), ["destroyed_unproven"]);
    // An empty list that is a lie cannot be told from the truth.
    let lie = base().then(200.0, json!({ "event": "fault_struck", "operation": "list_runners", "mode": "empty" }));
    assert_eq!(lie.runners(200.0).deleted(311.0, &name(0, 1)).violated(running()), [""; 0]);
}

#[test]
fn a_registration_whose_name_is_taken_may_be_deleted_at_once() {
    let taken = |status| {
        let minted = Tale::new().queued(1.0, 0).minted(10.0, &name(0, 1));
        minted.modal(10.4, "create", status, &json!({ "target": name(0, 1) })).deleted(10.6, &name(0, 1))
    };
    assert_eq!(taken(6).violated(running()), [""; 0]);
    assert_eq!(taken(14).violated(running()), ["destroyed_unproven"]);
}

#[test]
fn a_runner_that_was_seen_online_is_left_alone() {
    let online = |at: f64| {
        let tale = silent(4).online(at, "sb-1", &name(0, 1)).runners(300.0).fleet(300.0).runners(350.0);
        tale.deleted(352.1, &name(0, 1))
    };
    assert_eq!(online(250.0).violated(running()), ["destroyed_unproven"]);
    assert_eq!(online(349.0).violated(running()), ["destroyed_unproven"]);
    assert_eq!(online(351.0).violated(running()), [""; 0], "no reading can have shown it");
    let lost = |at: f64| {
        let tale = silent(4).online(250.0, "sb-1", &name(0, 1)).runners(280.0).fleet(300.0).removed(at, &name(0, 1));
        tale.runners(340.0).github(352.0, "delete_runner", 404, &json!({ "target": id(&name(0, 1)).to_string() }))
    };
    assert_eq!(lost(281.0).violated(running()), ["destroyed_unproven"]);
    assert_eq!(lost(260.0).violated(running()), [""; 0], "GitHub had removed it before it could be seen");
    let dead =
        silent(4).online(250.0, "sb-1", &name(0, 1)).ended(270.0, "sb-1", &name(0, 1)).runners(300.0).fleet(300.0);
    assert_eq!(dead.deleted(352.0, &name(0, 1)).violated(running()), [""; 0], "its sandbox is dead");
}

#[test]
fn a_sandbox_is_terminated_only_behind_a_fence() {
    let fenced = || silent(6).deleted(370.0, &name(0, 1));
    let end = |tale: Tale, at: f64| tale.terminated(at, "sb-1", &name(0, 1), None).violated(running());
    assert_eq!(end(fenced().jobs(400.0), 460.0), [""; 0]);
    assert_eq!(end(fenced().jobs(400.0), 459.0), ["destroyed_unproven"], "it did not settle");
    assert_eq!(end(fenced(), 460.0), ["destroyed_unproven"], "no job was read since");
    assert_eq!(end(silent(7), 470.0), ["destroyed_unproven"], "there is no fence");
    let busy = silent(6).github(370.0, "delete_runner", 422, &json!({ "target": id(&name(0, 1)).to_string() }));
    assert_eq!(end(busy.jobs(400.0), 470.0), ["destroyed_unproven"], "GitHub said no");
    assert_eq!(end(Tale::new().queued(1.0, 0).started(10.0, "sb-1", &name(0, 1)), 200.0), ["destroyed_unproven"]);
}

#[test]
fn a_run_that_no_list_showed_need_not_be_read() {
    let violated = |omits: f64, statuses: &[&str], more: bool| {
        let profile = json!({ "filtered_list_omits": omits });
        let tale = Tale::with_profile(profile).queued(1.0, 0).started(10.0, "sb-1", &name(0, 1));
        let again = json!({ "event": "controller_changed", "client": 0, "change": "started" });
        let tale = tale.then(100.0, again);
        let tale = [200.0, 300.0].into_iter().fold(tale, |tale, at| tale.runners(at).fleet(at));
        let page = json!({ "page": 1, "more": more });
        let tale = tale.deleted(370.0, &name(0, 1)).github(400.0, "list_runs", 200, &page);
        let filtered =
            |tale: Tale, status: &&str| tale.github(401.0, "list_runs", 200, &json!({ "page": 1, "target": status }));
        statuses.iter().fold(tale, filtered).terminated(470.0, "sb-1", &name(0, 1), None).violated(running())
    };
    assert_eq!(violated(0.05, &["queued", "in_progress"], true), [""; 0]);
    assert_eq!(violated(0.0, &["queued", "in_progress"], true), ["destroyed_unproven"], "GitHub leaves out nothing");
    assert_eq!(violated(0.05, &["queued"], true), ["destroyed_unproven"]);
    assert_eq!(violated(0.05, &["queued", "in_progress"], false), ["destroyed_unproven"], "the whole list shows it");
}

#[test]
fn a_sandbox_that_was_never_placed_may_be_terminated_after_its_limit() {
    let waiting = |fenced: Option<f64>, at: f64| {
        let created = created("sb-1", &name(0, 1), &json!({ "gpu": true }));
        let tale = Tale::new().queued(1.0, 0).minted(9.6, &name(0, 1)).then(10.0, created);
        let read = [400.0, 500.0].into_iter().fold(tale, |tale, at| tale.runners(at).fleet(at));
        let fenced = fenced.into_iter().fold(read, |tale, at| tale.deleted(at, &name(0, 1)));
        fenced.terminated(at, "sb-1", &name(0, 1), None).violated(running())
    };
    assert_eq!(waiting(Some(850.0), 910.0), [""; 0]);
    assert_eq!(waiting(Some(840.0), 909.0), ["destroyed_unproven"]);
    assert_eq!(waiting(Some(851.0), 910.0), ["destroyed_unproven"], "it may have been placed a moment ago");
    assert_eq!(waiting(None, 910.0), ["destroyed_unproven"]);
}

#[test]
fn a_secret_is_kept_until_the_runner_has_read_it() {
    let tags = json!({ "gpu": true, "tags": { "class": "gpu..t4", "secret": "st-1" } });
    let with_secret = || {
        let made = json!({ "event": "secret_changed", "secret": "st-1", "exists": true });
        let tale = Tale::new().queued(1.0, 0).minted(3.0, &name(0, 1)).then(3.2, made);
        let tale = tale.then(3.4, created("sb-1", &name(0, 1), &tags));
        tale.then(3.5, json!({ "event": "sandbox_scheduled", "sandbox": "sb-1" }))
    };
    let deleted = |tale: Tale| {
        tale.then(30.0, json!({ "event": "secret_changed", "secret": "st-1", "exists": false })).violated(running())
    };
    assert_eq!(deleted(with_secret()), ["destroyed_unproven"]);
    assert_eq!(deleted(with_secret().online(20.0, "sb-1", &name(0, 1))), [""; 0]);
    assert_eq!(deleted(with_secret().ended(20.0, "sb-1", &name(0, 1))), [""; 0]);
}

#[test]
fn the_jobs_that_a_run_completed_without_need_not_be_read() {
    let ended = |whys: &[Option<&str>]| {
        let labels = ["self-hosted", "modal"];
        let other = json!({ "event": "job_queued", "job": JOB + 1, "run": RUN + 1, "attempt": 1, "repo": REPO,
            "labels": labels });
        let held = whys.iter().fold(silent(6).then(361.0, other), |tale, why| {
            tale.then(361.0, json!({ "event": "job_held", "job": JOB + 1, "repo": REPO, "why": why }))
        });
        held.deleted(370.0, &name(0, 1)).jobs(400.0).terminated(460.0, "sb-1", &name(0, 1), None).violated(running())
    };
    assert_eq!(ended(&[Some("run_completed")]), [""; 0]);
    assert_eq!(ended(&[]), ["destroyed_unproven"]);
    assert_eq!(ended(&[Some("ghost")]), ["destroyed_unproven"], "its run is listed as active");
    assert_eq!(ended(&[Some("run_completed"), None]), ["destroyed_unproven"], "it may be given to a runner again");
}

#[test]
fn what_never_came_online_is_not_kept() {
    let is_late = |tale: Tale| tale.violated(running()).contains(&"kept_late");
    let runner = name(0, 1);
    let started = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &runner).removed(300.0, &runner);
    // A quarter of an hour to be placed, three minutes to start, and ten to be terminated.
    let due = 3.4 + 28.0 * 60.0;
    assert!(!is_late(started().ended(due - 1.0, "sb-1", &runner)));
    assert!(is_late(started().ended(due + 1.0, "sb-1", &runner)));
    assert!(is_late(started().then(due + 1.0, nothing())), "it lives still");
    let struck = json!({ "event": "fault_struck", "operation": "list_sandboxes", "mode": "empty" });
    assert!(!is_late(started().then(due, struck).ended(due + 599.0, "sb-1", &runner)), "a fault was in the way");
    let served = Tale::new().queued(1.0, 0).started(3.0, "sb-1", &runner).online(7.0, "sb-1", &runner);
    assert!(!is_late(served.then(due + 4_000.0, nothing())), "its runner ends it");
}

#[test]
fn a_registration_that_nobody_runs_is_not_kept() {
    let is_late = |tale: Tale| tale.violated(running()).contains(&"kept_late");
    let runner = name(0, 1);
    let ended = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &runner).ended(600.0, "sb-1", &runner);
    let due = 600.0 + 80.0 * 60.0;
    assert!(!is_late(ended().removed(due - 1.0, &runner)), "from the end of its sandbox on");
    assert!(is_late(ended().removed(due + 1.0, &runner)));
    assert!(is_late(ended().then(due + 1.0, nothing())), "it is registered still");
}
