//! Controls of what a need allows.

use serde_json::json;

use super::running;
use super::tale::{JOB, REPO, RUN, Tale, created, name, queued, registered};

#[test]
fn a_need_gets_one_runner_and_a_second_only_when_the_first_is_lost() {
    let first = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1));
    let second = |tale: Tale, secs| tale.started(secs, "sb-2", &name(0, 2)).violated(running());
    // Both rules see it: there is one need, and one job that may be believed queued.
    assert_eq!(second(first(), 10.0), ["one_runner_per_need", "runners_without_need"]);
    let ended = || first().removed(8.0, &name(0, 1)).ended(9.0, "sb-1", &name(0, 1));
    assert_eq!(second(ended(), 10.0), [""; 0]);
    // The job was taken, and not read since: still it needs no second runner.
    let taken = || first().online(7.0, "sb-1", &name(0, 1)).assigned(8.0, 0, &name(0, 1));
    assert_eq!(second(taken(), 9.0), ["one_runner_per_need"]);
}

#[test]
fn money_is_not_spent_on_a_job_that_nobody_is_given() {
    let attempt = |tale: Tale, number: u32, status: i32| {
        let (sandbox, at, name) = (format!("sb-{number}"), 400.0 * f64::from(number), name(0, number.into()));
        let tale = tale.jobs(at - 5.0).started(at, &sandbox, &name).online(at + 3.0, &sandbox, &name);
        let end = json!({ "event": "sandbox_ended", "sandbox": sandbox, "name": name, "status": status });
        tale.removed(at + 303.0, &name).then(at + 305.0, end)
    };
    let until = |last: u32, status: i32| {
        (1..=last).fold(Tale::new().queued(1.0, 0), |tale, number| attempt(tale, number, status)).violated(running())
    };
    assert_eq!(until(4, 2), [""; 0]);
    assert_eq!(until(5, 2), ["in_vain"]);
    assert_eq!(until(5, 3), [""; 0], "they were ended from outside");
}

#[test]
fn an_attempt_is_excused_where_its_mint_was_lost() {
    let need = || Tale::new().queued(1.0, 0);
    let second = |tale: Tale| tale.started(9.0, "sb-2", &name(0, 2)).violated(running());
    let mint =
        |status, more: &serde_json::Value| need().then(3.0, registered(&name(0, 1))).github(3.0, "mint", status, more);
    let target = json!({ "target": name(0, 1) });
    assert_eq!(second(mint(502, &target)), [""; 0]);
    assert_eq!(second(mint(201, &json!({ "target": name(0, 1), "delay_secs": 30.0 }))), [""; 0]);
    let slow = second(mint(201, &json!({ "target": name(0, 1), "delay_secs": 29.0 })));
    assert_eq!(slow, ["one_runner_per_need", "runners_without_need"]);
    let cut = json!({ "event": "fault_struck", "operation": "mint", "mode": "truncated" });
    let cut = need().then(3.0, registered(&name(0, 1))).then(3.0, cut).github(3.0, "mint", 201, &target);
    assert_eq!(second(cut), [""; 0]);
    // The network held answers back at that time, and no create followed.
    let note = |change| json!({ "event": "controller_changed", "change": change });
    let held_back = |until| need().then(2.0, note("cut_off")).then(until, note("connected")).minted(3.0, &name(0, 1));
    assert_eq!(second(held_back(2.5)), [""; 0]);
    let after = need().then(0.1, note("cut_off")).then(0.2, note("connected")).minted(3.0, &name(0, 1));
    assert_eq!(second(after), ["one_runner_per_need", "runners_without_need"]);
    // Carried out late, with nobody left who waits for the answer.
    assert_eq!(second(need().then(3.0, registered(&name(0, 1)))), [""; 0]);
}

#[test]
fn an_attempt_is_excused_where_its_create_was_refused_or_stays_in_doubt() {
    let minted = || Tale::new().queued(1.0, 0).minted(3.0, &name(0, 1));
    let create = |status| minted().modal(3.4, "create", status, &json!({ "target": name(0, 1) }));
    let second = |tale: Tale, secs| tale.jobs(secs - 3.0).started(secs, "sb-2", &name(0, 2)).violated(running());
    let both = ["one_runner_per_need", "runners_without_need"];
    assert_eq!(second(create(3), 10.0), [""; 0], "an invalid argument creates nothing");
    assert_eq!(second(create(6), 10.0), [""; 0], "a name that is taken creates nothing");
    assert_eq!(second(create(14), 10.0), both, "one that is in doubt may have");
    assert_eq!(second(create(14), 182.0), both);
    assert_eq!(second(create(14), 183.0), [""; 0]);
}

#[test]
fn an_attempt_is_excused_where_it_starts_too_late() {
    let first = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1));
    let second = |tale: Tale, secs| tale.jobs(secs - 3.0).started(secs, "sb-2", &name(0, 2)).violated(running());
    let both = ["one_runner_per_need", "runners_without_need"];
    assert_eq!(second(first(), 183.0), both);
    assert_eq!(second(first(), 183.4), [""; 0]);
    // That it comes later does not take the excuse back.
    let came = first().online(190.0, "sb-1", &name(0, 1)).assigned(191.0, 0, &name(0, 1));
    assert_eq!(second(came, 192.0), [""; 0]);
    let gpu = || {
        let created = created("sb-1", &name(0, 1), &json!({ "gpu": true }));
        Tale::new().queued(1.0, 0).minted(3.0, &name(0, 1)).then(3.0, created)
    };
    let third = |secs| second(gpu().modal(3.0, "create", 0, &json!({ "target": name(0, 1) })), secs);
    assert_eq!(third(902.0), both, "one that waits for a machine has a quarter of an hour");
    assert_eq!(third(903.0), [""; 0]);
}

#[test]
fn an_attempt_is_excused_where_it_was_shown_unconnected_twice_a_minute_apart() {
    let first = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1)).online(5.0, "sb-1", &name(0, 1));
    let hidden = json!({ "event": "fault_struck", "operation": "list_runners", "mode": "online_hidden" });
    let shown = |tale: Tale, secs| tale.then(secs, hidden.clone()).runners(secs);
    let second = |tale: Tale| tale.jobs(190.0).started(191.0, "sb-2", &name(0, 2)).violated(running());
    let both = ["one_runner_per_need", "runners_without_need"];
    assert_eq!(second(shown(shown(first(), 127.4), 187.4)), [""; 0]);
    assert_eq!(second(shown(shown(first(), 127.5), 187.4)), both, "less than a minute apart");
    assert_eq!(second(shown(shown(first(), 120.0), 183.3)), both, "before the limit");
    assert_eq!(second(shown(first(), 187.4)), both, "once");
    assert_eq!(second(shown(shown(first(), 60.0).runners(100.0), 187.4)), both, "it was shown in between");
}

#[test]
fn an_attempt_is_excused_where_modal_says_that_it_is_gone() {
    let first = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1));
    let told = |tale: Tale, at| tale.modal(at, "wait", 5, &json!({ "target": "sb-1" }));
    let both = ["one_runner_per_need", "runners_without_need"];
    let once = told(first(), 20.0);
    assert_eq!(once.started(25.0, "sb-2", &name(0, 2)).violated(running()), both, "one answer proves nothing");
    let soon = told(told(first(), 20.0), 79.0);
    assert_eq!(soon.started(85.0, "sb-2", &name(0, 2)).violated(running()), both);
    let twice = told(told(first(), 20.0), 80.0);
    assert_eq!(twice.started(85.0, "sb-2", &name(0, 2)).violated(running()), [""; 0]);
}

#[test]
fn a_runner_that_took_another_groups_job_may_be_made_good() {
    let two = || {
        let small = Tale::new().then(1.0, queued(1, &["modal"])).queued(1.0, 0);
        small.started(3.0, "sb-1", &name(0, 1)).online(7.0, "sb-1", &name(0, 1))
    };
    let second = |tale: Tale| tale.started(30.0, "sb-2", &name(0, 2)).violated(running());
    assert_eq!(second(two().assigned(8.0, 1, &name(0, 1))), [""; 0]);
    assert_eq!(second(two().assigned(8.0, 0, &name(0, 1))), ["one_runner_per_need"]);
}

#[test]
fn a_job_is_believed_queued_only_as_long_as_its_last_reading_allows() {
    let lag = json!({ "github_list_lag_secs": 10.0 });
    let cancelled = || Tale::with_profile(lag.clone()).queued(1.0, 0).completed(20.0, 0, "cancelled_queued");
    let late = |tale: Tale, secs| tale.started(secs, "sb-1", &name(0, 1)).violated(running());
    // Nothing was read since: it may be believed in for ever.
    assert_eq!(late(cancelled(), 900.0), [""; 0]);
    // A reading may show what was ten seconds before.
    assert_eq!(late(cancelled().jobs(29.0), 40.0), [""; 0]);
    assert_eq!(late(cancelled().jobs(31.0), 40.0), ["runners_without_need"]);
    // What was answered a moment ago is not acted upon yet.
    assert_eq!(late(cancelled().jobs(39.0), 40.0), [""; 0]);
    // A reading that failed, or that a fault falsified, does not count.
    let read = |status| json!({ "page": 1, "target": RUN.to_string(), "status": status });
    assert_eq!(late(cancelled().github(31.0, "list_jobs", 502, &read(502)), 40.0), [""; 0]);
    let empty = cancelled().then(31.0, json!({ "event": "fault_struck", "operation": "list_jobs", "mode": "empty" }));
    assert_eq!(late(empty.github(31.0, "list_jobs", 200, &read(200)), 400.0), [""; 0]);
    // A run that was never read is not believed in at all.
    let unread = Tale::new().then(1.0, queued(0, &["self-hosted", "modal"]));
    assert_eq!(late(unread, 5.0), ["runners_without_need"]);
}

#[test]
fn what_a_process_kept_may_be_older_than_what_it_had_read() {
    let struck = json!({ "event": "fault_struck", "operation": "list_jobs", "mode": "wrong_not_modified" });
    let unchanged = json!({ "page": 1, "target": RUN.to_string() });
    let restarted = |at: f64| {
        let read = Tale::new().queued(1.0, 0).completed(20.0, 0, "cancelled_queued").jobs(31.0);
        let tale =
            read.controller(at, "killed").controller(at, "started").fleet(at + 1.0).then(at + 2.0, struck.clone());
        tale.github(at + 2.0, "list_jobs", 304, &unchanged)
    };
    let late = |tale: Tale, secs| tale.started(secs, "sb-1", &name(0, 1)).violated(running());
    assert_eq!(late(restarted(60.0), 300.0), [""; 0]);
    assert_eq!(late(restarted(212.0), 400.0), ["runners_without_need"], "that reading was kept");
    assert_eq!(late(restarted(60.0).jobs(100.0), 300.0), ["runners_without_need"], "it read anew");
}

#[test]
fn a_reading_of_several_pages_counts_when_its_last_page_was_answered() {
    let page = |page, more| json!({ "page": page, "more": more, "target": RUN.to_string() });
    let cancelled = Tale::new().queued(1.0, 0).completed(20.0, 0, "cancelled_queued");
    let first = cancelled.github(30.0, "list_jobs", 200, &page(1, true));
    let second = |tale: Tale| tale.started(60.0, "sb-1", &name(0, 1)).violated(running());
    let whole = second(first.github(31.0, "list_jobs", 200, &page(2, false)));
    assert_eq!(whole, ["runners_without_need"]);
    let half = Tale::new().queued(1.0, 0).completed(20.0, 0, "cancelled_queued");
    assert_eq!(second(half.github(30.0, "list_jobs", 200, &page(1, true))), [""; 0]);
}

#[test]
fn another_process_may_double_what_it_cannot_have_read_and_no_more() {
    let first = || Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1));
    let second = |tale: Tale| {
        let mut violated = tale.jobs(60.0).started(70.0, "sb-2", &name(0, 2)).violated(running());
        // One that was started has to look first.
        violated.retain(|invariant| *invariant != "blind");
        violated
    };
    let both = ["one_runner_per_need", "runners_without_need"];
    assert_eq!(second(first()), both);
    assert_eq!(second(first().by(2)), [""; 0]);
    assert_eq!(second(first().by(2).runners(50.0)), both, "it is on the list of runners");
    assert_eq!(second(first().by(2).fleet(50.0)), both, "its sandbox is on the list of sandboxes");
    assert_eq!(second(first().runners(50.0).by(2)), [""; 0], "it was not the one that read it");
    let taken = json!({ "target": name(0, 1) });
    assert_eq!(second(first().by(2).github(4.0, "mint", 409, &taken)), both, "it was told that the name is taken");
    let restarted = |tale: Tale| tale.by(0).controller(40.0, "started");
    assert_eq!(second(restarted(first())), [""; 0]);
    assert_eq!(second(restarted(first().runners(30.0))), [""; 0], "what a process read died with it");
    assert_eq!(second(restarted(first()).runners(50.0)), both);
    let late = json!({ "event": "fault_struck", "operation": "mint", "mode": "visible_late" });
    let mint = json!({ "target": name(0, 1) });
    let hidden =
        Tale::new().queued(1.0, 0).then(3.0, registered(&name(0, 1))).then(3.0, late).github(3.0, "mint", 201, &mint);
    assert_eq!(second(hidden.by(2).runners(50.0)), [""; 0], "a fault kept it from the list");
}

#[test]
fn no_runner_is_registered_for_a_job_that_asks_for_nothing_there_is_or_is_a_strangers() {
    let started = |skip: Option<&str>| {
        let mut job = queued(0, &["self-hosted", "modal"]);
        job["skip"] = json!(skip);
        Tale::new().then(1.0, job).jobs(2.0).started(3.0, "sb-1", &name(0, 1)).violated(running())
    };
    assert_eq!(started(None), [""; 0]);
    for skip in ["no_opt_in_label", "unknown_label", "fork", "public_repo"] {
        assert_eq!(started(Some(skip)), ["one_runner_per_need", "runners_without_need"], "{skip}");
    }
    assert_eq!(started(Some("ghost_job")), [""; 0], "nobody can tell it from a job");
}

#[test]
fn a_runner_has_the_labels_of_its_job_in_a_repository_that_is_allowed() {
    let other = json!({ "event": "job_queued", "job": JOB, "run": RUN, "attempt": 1, "repo": REPO,
        "labels": ["self-hosted", "MODAL", "large"] });
    let larger = Tale::new().then(1.0, other).jobs(2.0).started(3.0, "sb-1", &name(0, 1));
    assert_eq!(larger.violated(running()), ["labels", "one_runner_per_need", "runners_without_need"]);
    let folded = json!({ "event": "job_queued", "job": JOB, "run": RUN, "attempt": 1, "repo": REPO,
        "labels": ["Modal", "self-hosted"] });
    let same = Tale::new().then(1.0, folded).jobs(2.0).started(3.0, "sb-1", &name(0, 1));
    assert_eq!(same.violated(running()), [""; 0]);
    let mut closed = Tale::default();
    closed.at(0.0, json!({ "event": "began", "seed": 1, "repos": ["acme/other"], "profile": {} }));
    let closed = closed.queued(1.0, 0).started(3.0, "sb-1", &name(0, 1));
    assert_eq!(closed.violated(running()), ["allow_list"]);
}

#[test]
fn a_sandbox_that_is_placed_when_its_time_is_up_is_given_up_by_a_list_that_lags() {
    let labels = json!({ "gpu": true });
    let second = |lag: f64, placed: f64| {
        let tale = Tale::with_profile(json!({ "modal_list_lag_secs": lag })).fleet(0.5).queued(1.0, 0);
        let first = tale.minted(3.0, &name(0, 1)).then(3.4, created("sb-1", &name(0, 1), &labels));
        let first = first.modal(3.4, "create", 0, &json!({ "target": name(0, 1) }));
        let placed = first.then(placed, json!({ "event": "sandbox_scheduled", "sandbox": "sb-1" })).jobs(904.0);
        placed.minted(905.0, &name(0, 2)).violated(running())
    };
    assert_eq!(second(10.0, 895.0), [""; 0]);
    assert_eq!(second(0.0, 895.0), ["one_runner_per_need", "runners_without_need"]);
    assert_eq!(second(10.0, 890.0), ["one_runner_per_need", "runners_without_need"]);
}
