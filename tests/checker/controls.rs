//! Positive controls of the checker: for every invariant a history that must be reported, by its name and
//! nothing else, and one at the edge that must not.

#[path = "checker.rs"]
mod checker;
#[path = "controls_accounts.rs"]
mod controls_accounts;
#[path = "controls_destroy.rs"]
mod controls_destroy;
#[path = "controls_needs.rs"]
mod controls_needs;
mod tale;

use checker::{Limits, Rules, leaks};
use chrono::TimeDelta;
use serde_json::json;
use tale::{JOB, REPO, Tale, created, name, nothing, queued, registered};

/// Rules that do not judge the end, nor how long jobs wait.
fn running() -> Rules {
    Rules { quiet: None, serve_within: TimeDelta::days(1), ..Rules::default() }
}

/// The end of a tale in which everything is over, a quiet window later.
fn quiet(tale: Tale, secs: f64) -> Tale {
    tale.then(secs + 181.0, nothing())
}

fn limited(limits: Limits) -> Rules {
    Rules { limits, ..running() }
}

fn most(sandboxes: u32) -> Rules {
    limited(Limits { sandboxes: Some(sandboxes), ..Limits::default() })
}

#[test]
fn a_whole_run_is_no_violation() {
    let run = quiet(Tale::new().queued(1.0, 0).served(3.0, "sb-1", 0), 70.0);
    assert_eq!(run.violated(Rules::default()), [""; 0]);
}

/// Three jobs are queued and two runners started.
fn two_of_three() -> Tale {
    let three = Tale::new()
        .then(1.0, queued(0, &["self-hosted", "modal"]))
        .then(1.0, queued(1, &["self-hosted", "modal"]))
        .queued(1.0, 2);
    three.started(3.0, "sb-0", &name(0, 1)).started(4.0, "sb-1", &name(1, 1))
}

#[test]
fn limits_hold_for_what_lives_and_for_what_is_about_to() {
    assert_eq!(two_of_three().violated(most(2)), [""; 0]);
    assert_eq!(two_of_three().violated(most(1)), ["limits"]);
    // The third is registered: it counts before its sandbox exists.
    let about_to = two_of_three().minted(5.0, &name(2, 1));
    assert_eq!(about_to.violated(most(3)), [""; 0]);
    assert_eq!(about_to.violated(most(2)), ["limits"]);
    // It has room as soon as another one ended.
    let after = two_of_three().removed(6.0, &name(0, 1)).ended(6.0, "sb-0", &name(0, 1)).minted(6.5, &name(2, 1));
    assert_eq!(after.violated(most(2)), [""; 0]);
}

#[test]
fn limits_hold_for_each_repository_class_and_gpu() {
    let rules = |limits| two_of_three().violated(limited(limits));
    assert_eq!(rules(Limits { sandboxes_per_repo: Some(1), ..Limits::default() }), ["limits"]);
    assert_eq!(rules(Limits { sandboxes_per_repo: Some(2), ..Limits::default() }), [""; 0]);
    assert_eq!(rules(Limits { classes: [("default".to_owned(), 1)].into(), ..Limits::default() }), ["limits"]);
    assert_eq!(rules(Limits { classes: [("default".to_owned(), 2)].into(), ..Limits::default() }), [""; 0]);
    let gpus = two_of_three().minted(5.0, &name(2, 1)).then(5.4, created("sb-2", &name(2, 1), &json!({ "gpu": true })));
    let gpus = gpus.modal(5.4, "create", 0, &json!({ "target": name(2, 1) }));
    let most = |gpus| limited(Limits { gpus: Some(gpus), ..Limits::default() });
    assert_eq!(gpus.violated(most(1)), [""; 0]);
    assert_eq!(gpus.violated(most(0)), ["limits"]);
    let pair = created("sb-2", &name(2, 1), &json!({ "gpu": true, "gpus": 2 }));
    let pair = two_of_three().minted(5.0, &name(2, 1)).then(5.4, pair);
    let pair = pair.modal(5.4, "create", 0, &json!({ "target": name(2, 1) }));
    assert_eq!((pair.violated(most(2)), pair.violated(most(1))), (vec![], vec!["limits"]));
    let stated = two_of_three().then(5.0, json!({ "event": "limits_stated", "limits": { "sandboxes": 1 } }));
    assert_eq!(stated.violated(running()), [""; 0], "what was before a limit was stated is not judged by it");
}

#[test]
fn a_limit_may_be_exceeded_by_what_another_process_had_under_way_and_by_no_more() {
    let restarted = || two_of_three().controller(4.6, "killed").controller(4.7, "started");
    let third = |tale: Tale, at| tale.started(at, "sb-2", &name(2, 1));
    // Nothing was listed since: the new process cannot know of the two, and has to look first.
    assert_eq!(third(restarted(), 8.0).violated(most(2)), ["blind"]);
    let read_before = two_of_three().fleet(4.55).controller(4.6, "killed").controller(4.7, "started").jobs(60.0);
    assert_eq!(third(read_before, 70.0).violated(most(2)), ["blind"], "what its life before has read is forgotten");
    // It was listed, so it knows; a kill may put off what follows by a minute.
    assert_eq!(third(restarted().fleet(5.0).jobs(60.0), 70.0).violated(most(2)), ["limits"]);
    // Another controller knows of them when it has read them.
    assert_eq!(third(two_of_three().by(2).jobs(5.0), 8.0).violated(most(2)), [""; 0]);
    assert_eq!(third(two_of_three().by(2).fleet(5.0).jobs(5.0), 8.0).violated(most(2)), ["limits"]);
    assert_eq!(
        third(two_of_three().fleet(5.0).by(2).jobs(5.0), 8.0).violated(most(2)),
        [""; 0],
        "what others read is not known"
    );
}

#[test]
fn no_sandbox_may_live_longer_than_a_day() {
    let long = |secs| {
        Tale::new()
            .queued(1.0, 0)
            .minted(3.0, &name(0, 1))
            .then(3.4, created("sb-1", &name(0, 1), &json!({ "timeout_secs": secs })))
    };
    assert_eq!(long(86_400).violated(running()), [""; 0]);
    assert_eq!(long(86_401).violated(running()), ["lifetime"]);
}

#[test]
fn a_config_is_used_once_at_once_and_under_one_name() {
    let used = || Tale::new().queued(1.0, 0).minted(3.0, &name(0, 1));
    assert_eq!(used().created(63.0, "sb-1", &name(0, 1)).violated(running()), [""; 0]);
    assert_eq!(used().created(63.1, "sb-1", &name(0, 1)).violated(running()), ["config_old"]);
    let ended = || used().created(3.4, "sb-1", &name(0, 1)).ended(9.0, "sb-1", &name(0, 1));
    assert_eq!(ended().created(10.0, "sb-2", &name(0, 1)).violated(running()), ["config_reused"]);
    // One that failed before it ran anything has not used it.
    let failed = json!({ "event": "sandbox_ended", "sandbox": "sb-1", "name": name(0, 1), "status": 5 });
    let failed = used().created(3.4, "sb-1", &name(0, 1)).then(3.6, failed);
    assert_eq!(failed.created(4.0, "sb-2", &name(0, 1)).violated(running()), [""; 0]);
    // A create whose answer was cut is sent again at once; its sandbox may have ended by then.
    let cut = json!({ "event": "fault_struck", "operation": "create", "mode": "truncated" });
    let again = |secs, came_online: bool| {
        let tale = used().then(3.4, cut.clone()).created(3.4, "sb-1", &name(0, 1));
        let tale = if came_online { tale.online(3.5, "sb-1", &name(0, 1)) } else { tale };
        tale.ended(3.6, "sb-1", &name(0, 1)).created(secs, "sb-2", &name(0, 1)).violated(running())
    };
    assert_eq!(again(4.4, false), [""; 0]);
    assert_eq!(again(4.5, false), ["config_reused"]);
    assert_eq!(again(4.4, true), ["config_reused"]);
    // Modal may have asked to wait in between.
    let asked_to_wait = |secs| {
        let limited = json!({ "limited": "injected", "wait_secs": 1.5, "target": name(0, 1) });
        let tale = used().then(3.4, cut.clone()).created(3.4, "sb-1", &name(0, 1)).modal(3.7, "create", 8, &limited);
        tale.ended(5.0, "sb-1", &name(0, 1)).created(secs, "sb-2", &name(0, 1)).violated(running())
    };
    assert_eq!(asked_to_wait(5.9), [""; 0]);
    assert_eq!(asked_to_wait(6.0), ["config_reused"]);
    let mut twice = used().created(3.4, "sb-1", &name(0, 1));
    twice.at(5.0, created("sb-2", &name(0, 1), &json!({ "config": "another" })));
    assert_eq!(twice.violated(running()), ["name_twice"]);
    let mut again = ended();
    again.at(10.0, created("sb-2", &name(0, 1), &json!({ "config": "another" })));
    assert_eq!(again.violated(running()), [""; 0]);
}

#[test]
fn every_mint_is_followed_by_a_create_or_a_deregistration() {
    let minted = || Tale::new().queued(1.0, 0).minted(3.0, &name(0, 1));
    let bound = 15.0 * 60.0 + 3.0;
    assert_eq!(minted().removed(bound, &name(0, 1)).violated(running()), [""; 0]);
    assert_eq!(minted().removed(bound + 1.0, &name(0, 1)).violated(running()), ["mint_lost"]);
    let rules = || Rules { serve_within: TimeDelta::days(1), quiet: Some(TimeDelta::minutes(3)), ..Rules::default() };
    let end = minted().completed(9.0, 0, "cancelled_queued").then(bound + 1.0, nothing());
    assert_eq!(end.violated(rules()), ["mint_lost", "left_over"]);
    // A fault or a kill puts the bound off, a kill by the hour after which leftovers are looked for.
    let struck = minted().then(100.0, json!({ "event": "fault_struck", "operation": "mint", "mode": "error" }));
    assert_eq!(struck.removed(bound + 50.0, &name(0, 1)).violated(running()), [""; 0]);
    // And by the time that recovery is given, which without a disturbance is none.
    let recovering = || Rules { recover_within: TimeDelta::minutes(15), ..running() };
    let struck = || minted().then(100.0, json!({ "event": "fault_struck", "operation": "mint", "mode": "error" }));
    assert_eq!(struck().removed(100.0 + 1_800.0, &name(0, 1)).violated(recovering()), [""; 0]);
    assert_eq!(struck().removed(100.0 + 1_801.0, &name(0, 1)).violated(recovering()), ["mint_lost"]);
    assert_eq!(minted().removed(bound + 1.0, &name(0, 1)).violated(recovering()), ["mint_lost"]);
    // So does a limit that names no time: a minute, and twice as long each time that it is met again.
    let refused = |times: &[f64]| {
        times.iter().fold(minted(), |tale, at| tale.github(*at, "list_runs", 403, &json!({ "limited": "injected" })))
    };
    let removed = |times: &[f64], at| refused(times).removed(at, &name(0, 1)).violated(running());
    assert_eq!(removed(&[10.0, 10.2], 970.0), [""; 0]);
    assert_eq!(removed(&[10.0, 10.2], 971.0), ["mint_lost"]);
    assert_eq!(removed(&[10.0, 71.0, 192.0, 433.0], 433.0 + 480.0 + 900.0), [""; 0]);
    assert_eq!(removed(&[10.0, 71.0, 192.0, 433.0], 433.0 + 480.0 + 901.0), ["mint_lost"]);
    let killed = || minted().controller(5.0, "killed").controller(5.0, "started");
    assert_eq!(killed().removed(80.0 * 60.0, &name(0, 1)).violated(running()), [""; 0]);
    assert_eq!(killed().removed(81.0 * 60.0, &name(0, 1)).violated(running()), ["mint_lost"]);
}

#[test]
fn no_budget_is_exceeded_and_no_limit_hit() {
    let calls = |status: u16, count: u32, apart: f64| {
        let profile = json!({ "github_points_per_minute": 10, "github_requests_per_hour": 30 });
        (0..count).fold(Tale::with_profile(profile), |tale, index| {
            tale.github(f64::from(index) * apart, "list_runs", status, &json!({ "page": 1 }))
        })
    };
    assert_eq!(calls(200, 10, 1.0).violated(running()), [""; 0]);
    assert_eq!(calls(200, 11, 1.0).violated(running()), ["budget"], "points of a minute");
    assert_eq!(calls(200, 30, 6.0).violated(running()), [""; 0]);
    assert_eq!(calls(200, 31, 6.0).violated(running()), ["budget"], "requests of an hour");
    assert_eq!(calls(304, 31, 6.0).violated(running()), [""; 0], "a 304 costs none");
    let profile = json!({ "github_requests_per_hour": 30 });
    let grown = (0..31).fold(Tale::with_profile(profile), |tale, index| {
        tale.github(f64::from(index) * 6.0, "list_runs", 200, &json!({ "page": 1, "quota": 31 }))
    });
    assert_eq!(grown.violated(running()), [""; 0], "the quota of an installation grows");
    let writes = |count: u32| {
        let profile = json!({ "github_mutations_per_minute": 2 });
        (0..count).fold(Tale::with_profile(profile), |tale, index| {
            tale.github(f64::from(index), "delete_runner", 404, &json!({ "target": "9" }))
        })
    };
    assert_eq!(writes(2).violated(running()), [""; 0]);
    assert_eq!(writes(3).violated(running()), ["budget"]);
    let refused = |limited: &str| Tale::new().github(1.0, "list_runs", 403, &json!({ "limited": limited }));
    assert_eq!(refused("secondary").violated(running()), ["budget"]);
    assert_eq!(refused("injected").violated(running()), [""; 0]);
}

#[test]
fn modals_creates_keep_their_rate() {
    let creates = |count: u32, apart: f64| {
        let profile = json!({ "modal_creates_per_second": 2.0, "modal_create_burst": 3 });
        (0..count).fold(Tale::with_profile(profile), |tale, index| {
            tale.modal(1.0 + f64::from(index) * apart, "create", 9, &json!({ "target": "x" }))
        })
    };
    assert_eq!(creates(10, 0.5).violated(running()), [""; 0]);
    assert_eq!(creates(3, 0.0).violated(running()), [""; 0]);
    assert_eq!(creates(4, 0.0).violated(running()), ["budget"]);
    let refused = Tale::new().modal(1.0, "create", 8, &json!({ "limited": "creates", "wait_secs": 1.5 }));
    assert_eq!(refused.violated(running()), ["budget"]);
}

#[test]
fn a_pause_that_a_service_asks_for_is_kept() {
    let limited = json!({ "limited": "injected", "wait_secs": 30.0 });
    let held = |at| Tale::new().github(10.0, "list_runs", 403, &limited).jobs(at);
    assert_eq!(held(10.3).violated(running()), [""; 0], "it was sent before the answer arrived");
    assert_eq!(held(39.5).violated(running()), [""; 0]);
    assert_eq!(held(38.0).violated(running()), ["held"]);
    let untold = |at| Tale::new().github(10.0, "list_runs", 429, &json!({ "limited": "injected" })).jobs(at);
    assert_eq!(untold(69.5).violated(running()), [""; 0]);
    assert_eq!(untold(68.0).violated(running()), ["held"], "without a time it means a minute");
    let throttled = json!({ "limited": "injected", "wait_secs": 20.0, "target": "x" });
    let create = |at| {
        Tale::new().modal(10.0, "create", 8, &throttled).modal(at, "create", 9, &json!({ "target": "y" })).fleet(at)
    };
    assert_eq!(create(29.5).violated(running()), [""; 0]);
    assert_eq!(create(25.0).violated(running()), ["held"]);
}

#[test]
fn a_change_of_unknown_outcome_is_not_repeated() {
    let mint = |status: u16| {
        let target = json!({ "target": name(0, 1) });
        Tale::new()
            .queued(1.0, 0)
            .github(3.0, "mint", status, &target)
            .controller(4.0, "stopped")
            .github(5.0, "mint", 409, &target)
    };
    assert_eq!(mint(502).violated(running()), ["repeated"]);
    assert_eq!(mint(409).violated(running()), ["repeated"]);
    assert_eq!(mint(403).violated(running()), [""; 0], "a refusal is an outcome");
    let target = json!({ "target": name(0, 1) });
    let restarted = Tale::new().github(3.0, "mint", 502, &target).controller(4.0, "started");
    assert_eq!(restarted.github(5.0, "mint", 409, &target).violated(running()), [""; 0]);
    // Of two that can be told apart each is judged; of two that cannot, nobody knows which it was.
    let by = |first: u32, second: u32| {
        let pair = Rules { controllers: 2, ..running() };
        Tale::new()
            .by(first)
            .github(3.0, "mint", 502, &target)
            .by(second)
            .github(5.0, "mint", 409, &target)
            .violated(pair)
    };
    assert_eq!(by(1, 1), ["repeated"]);
    assert_eq!(by(1, 2), [""; 0]);
    assert_eq!(by(0, 0), [""; 0]);
}

#[test]
fn every_job_is_served_in_time() {
    let late = |secs| quiet(Tale::new().queued(1.0, 0).served(secs, "sb-1", 0), secs + 70.0);
    // It takes five seconds from the create to the assignment, and one registration goes before.
    assert_eq!(late(236.0).violated(Rules::default()), [""; 0]);
    assert_eq!(late(238.0).violated(Rules::default()), ["served_late"]);
    // The clock stands still until the last fault.
    let struck = Tale::new().queued(1.0, 0).then(200.0, json!({ "event": "faults_cleared" }));
    assert_eq!(quiet(struck.served(430.0, "sb-1", 0), 500.0).violated(Rules::default()), [""; 0]);
    // It stands still while a service asks to wait.
    let limit = json!({ "limited": "injected", "wait_secs": 3_000.0 });
    let told = |at| {
        quiet(
            Tale::new().queued(1.0, 0).github(5.0, "mint", 403, &limit).jobs(3_010.0).served(at, "sb-1", 0),
            at + 70.0,
        )
    };
    assert_eq!(told(3_240.0).violated(Rules::default()), [""; 0]);
    assert_eq!(told(3_242.0).violated(Rules::default()), ["served_late"]);
    let unserved = Tale::new().queued(1.0, 0).then(200.0, nothing());
    assert_eq!(unserved.violated(Rules::default()), ["unserved"]);
    assert_eq!(unserved.violated(running()), [""; 0], "the run is not over");
    let skipped = json!({ "event": "job_queued", "job": JOB, "run": 1, "attempt": 1, "repo": REPO, "labels": ["x"],
        "skip": "no_opt_in_label" });
    assert_eq!(Tale::new().then(1.0, skipped).then(900.0, nothing()).violated(Rules::default()), [""; 0]);
}

/// A job is queued that GitHub gives to nobody.
fn held(why: &str) -> Tale {
    let held = json!({ "event": "job_held", "job": JOB, "why": why });
    Tale::new().then(1.0, queued(0, &["self-hosted", "modal"])).then(1.0, held).jobs(2.0)
}

/// A runner waits in vain for five minutes, and is gone.
fn in_vain(tale: Tale, secs: f64, attempt: u64) -> Tale {
    let (runner, sandbox) = (name(0, attempt), format!("sb-{attempt}"));
    let gave_up = json!({ "event": "sandbox_ended", "sandbox": sandbox, "name": runner, "status": 2, "exit_code": 64 });
    tale.jobs(secs)
        .started(secs, &sandbox, &runner)
        .online(secs + 4.0, &sandbox, &runner)
        .then(secs + 304.0, gave_up)
        .removed(secs + 306.0, &runner)
}

/// So many runners waited in vain for a ghost, which is none any more at 1,201 s, and is served later.
fn released(runners: u16, served: f64) -> Vec<&'static str> {
    let waited = (0..runners)
        .fold(held("ghost"), |tale, index| in_vain(tale, 3.0 + 400.0 * f64::from(index), u64::from(index) + 1));
    let released = waited.then(1_201.0, json!({ "event": "job_held", "job": JOB, "why": null }));
    let last = name(0, 9);
    let late = released
        .jobs(served - 1.0)
        .started(served, "sb-9", &last)
        .online(served + 4.0, "sb-9", &last)
        .assigned(served + 5.0, 0, &last)
        .completed(served + 65.0, 0, "ran")
        .removed(served + 65.0, &last)
        .ended(served + 66.0, "sb-9", &last);
    quiet(late, served + 70.0).violated(Rules::default())
}

#[test]
fn a_ghost_is_excused_while_it_is_one_and_until_it_is_to_be_looked_at_again() {
    assert_eq!(held("ghost").then(9_000.0, nothing()).violated(Rules::default()), [""; 0]);
    assert_eq!(held("run_completed").then(9_000.0, nothing()).violated(Rules::default()), [""; 0]);
    assert_eq!(held("run_busy").then(200.0, nothing()).violated(Rules::default()), ["unserved"]);
    let free = held("ghost").then(100.0, json!({ "event": "job_held", "job": JOB, "why": null }));
    assert_eq!(free.then(200.0, nothing()).violated(Rules::default()), ["unserved"]);
    // Nobody waited in vain: it is served like any other. Five seconds pass until it is taken, and half a second for
    // every registration.
    assert_eq!(released(0, 1_201.0 + 235.0), [""; 0]);
    assert_eq!(released(0, 1_201.0 + 237.0), ["served_late"]);
    // After two the next may follow in two minutes, and its run is read after a fifth of the time: 360 s with what every
    // job may wait, and a quarter of the 1,560 s until then.
    assert_eq!(released(2, 1_560.0 + 385.0), [""; 0]);
    assert_eq!(released(2, 1_560.0 + 400.0), ["served_late"]);
    // After three it is left alone for an hour: a quarter of 5,040 s.
    assert_eq!(released(3, 5_040.0 + 1_250.0), [""; 0]);
    assert_eq!(released(3, 5_040.0 + 1_270.0), ["served_late"]);
}

#[test]
fn runners_of_one_wave_that_wait_in_vain_are_one_failure() {
    let served_after = |secs: f64| {
        let seven = (1..7).fold(held("ghost"), |tale, job| tale.queued(1.0, job)).jobs(2.5);
        let of = |job: u8| (name(u64::from(job), 1), format!("sb-{job}"), f64::from(job));
        let started = (0..7_u8).fold(seven, |tale, job| {
            let (runner, sandbox, at) = of(job);
            tale.started(3.0 + at, &sandbox, &runner)
        });
        let online = (0..7_u8).fold(started, |tale, job| {
            let (runner, sandbox, at) = of(job);
            tale.online(13.0 + at, &sandbox, &runner)
        });
        let waited = (0..7_u8).fold(online, |tale, job| {
            let (runner, sandbox, at) = of(job);
            let gave_up =
                json!({ "event": "sandbox_ended", "sandbox": sandbox, "name": runner, "status": 2, "exit_code": 64 });
            tale.then(313.0 + at, gave_up).removed(313.5 + at, &runner)
        });
        let gone = (1..7).fold(waited, |tale, job| tale.completed(323.0, job, "cancelled_queued"));
        let released = gone.then(1_201.0, json!({ "event": "job_held", "job": JOB, "why": null }));
        let (at, last) = (1_201.0 + secs, name(0, 2));
        let late = released.jobs(at - 1.0).started(at, "sb-9", &last).online(at + 4.0, "sb-9", &last);
        let done = late.assigned(at + 5.0, 0, &last).completed(at + 65.0, 0, "ran").removed(at + 65.0, &last);
        quiet(done.ended(at + 66.0, "sb-9", &last), at + 70.0).violated(Rules::default())
    };
    // Five minutes with the pause of a minute, and a fifth of the time since it was queued.
    assert_eq!(served_after(640.0), [""; 0]);
    assert_eq!(served_after(760.0), ["served_late"]);
}

#[test]
fn a_gpu_that_modal_has_none_of_is_waited_for_as_long_as_that_may_take() {
    let served = |secs: f64, placed: Option<f64>| {
        let labels = ["self-hosted", "modal", "gpu:t4"];
        let minted = |tale: Tale, secs, attempt: u64| {
            let (runner, sandbox) = (name(0, attempt), format!("sb-{attempt}"));
            let mut registered = registered(&runner);
            registered["labels"] = json!(labels);
            tale.then(secs, registered)
                .github(secs, "mint", 201, &json!({ "target": runner }))
                .then(secs + 0.4, created(&sandbox, &runner, &json!({ "gpu": true })))
                .modal(secs + 0.4, "create", 0, &json!({ "target": runner }))
        };
        let first = minted(Tale::new().then(1.0, queued(0, &labels)).jobs(2.0), 3.0, 1);
        let placed = placed
            .into_iter()
            .fold(first, |tale, at| tale.then(at, json!({ "event": "sandbox_scheduled", "sandbox": "sb-1" })));
        let second = minted(placed.jobs(secs - 1.0), secs, 2);
        let over = second
            .then(secs + 1.0, json!({ "event": "sandbox_scheduled", "sandbox": "sb-2" }))
            .assigned(secs + 5.0, 0, &name(0, 2))
            .deleted(secs + 6.0, &name(0, 1))
            .ended(secs + 6.0, "sb-1", &name(0, 1))
            .completed(secs + 65.0, 0, "ran")
            .removed(secs + 65.0, &name(0, 2))
            .ended(secs + 66.0, "sb-2", &name(0, 2));
        let mut violated = quiet(over, secs + 70.0).violated(Rules::default());
        violated.retain(|invariant| *invariant == "served_late");
        violated
    };
    // A quarter of an hour from its creation.
    assert_eq!(served(903.4 + 230.0, None), [""; 0]);
    assert_eq!(served(903.4 + 240.0, None), ["served_late"]);
    assert_eq!(served(903.4, Some(100.0)), ["served_late"], "it was placed");
}

#[test]
fn a_job_need_not_be_served_while_a_limit_is_reached() {
    let waits = |second: f64| {
        let tale = Tale::new().then(1.0, queued(1, &["self-hosted", "modal"])).queued(1.0, 0);
        let first = tale.started(3.0, "sb-0", &name(0, 1)).assigned(8.0, 0, &name(0, 1));
        let over = first.completed(1_000.0, 0, "ran").removed(1_000.0, &name(0, 1)).ended(1_000.0, "sb-0", &name(0, 1));
        quiet(over.served(second, "sb-1", 1), second + 70.0)
    };
    let limits = || Limits { sandboxes: Some(1), ..Limits::default() };
    let rules = || Rules { limits: limits(), ..Rules::default() };
    assert_eq!(waits(1_255.0).violated(rules()), [""; 0]);
    assert_eq!(waits(1_270.0).violated(rules()), ["served_late"]);
    assert_eq!(waits(1_100.0).violated(Rules::default()), ["served_late"], "without a limit");
    let of_class = |class: &str| Limits { classes: [(class.to_owned(), 1)].into(), ..Limits::default() };
    let rules = |class| Rules { limits: of_class(class), ..Rules::default() };
    assert_eq!(waits(1_255.0).violated(rules("default")), [""; 0]);
    assert_eq!(waits(1_270.0).violated(rules("default")), ["served_late"]);
    assert_eq!(waits(1_100.0).violated(rules("large")), ["served_late"], "another class has room");
}

#[test]
fn nothing_is_left_and_nothing_changes_at_the_end() {
    let done = || Tale::new().queued(1.0, 0).served(3.0, "sb-1", 0);
    let alive = quiet(Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1)).assigned(8.0, 0, &name(0, 1)), 9.0);
    assert_eq!(alive.violated(Rules::default()), ["left_over"]);
    let noisy = |secs| quiet(done().modal(secs, "secret_delete", 5, &json!({ "target": "st-1" })), 90.0);
    assert_eq!(noisy(91.0).violated(Rules::default()), [""; 0]);
    assert_eq!(noisy(92.0).violated(Rules::default()), ["silence"]);
    let late = |tale: Tale| tale.then(70.0, json!({ "event": "secret_changed", "secret": "st-1", "exists": true }));
    let secret = |tale: Tale| late(tale).modal(70.0, "secret", 0, &json!({ "target": format!("{}-1", name(0, 1)) }));
    assert_eq!(quiet(secret(done()), 70.0).violated(Rules::default()), ["left_over"]);
    let denied = |denials: [f64; 2]| {
        let told = |tale: Tale, at| tale.modal(at, "secret_delete", 5, &json!({ "target": "st-1" }));
        quiet(denials.into_iter().fold(secret(done()), told), 400.0).violated(Rules::default())
    };
    assert_eq!(denied([80.0, 139.0]), ["left_over"], "59 s apart");
    assert_eq!(denied([80.0, 140.0]), [""; 0], "Modal said twice that there is none");
    // One that appears when nobody waits for it any more is not known to be there.
    assert_eq!(quiet(late(done()).then(71.0, nothing()), 71.0).violated(Rules::default()), [""; 0]);
    let deleted = |secret: &str| json!({ "event": "secret_changed", "secret": secret, "exists": false });
    assert_eq!(quiet(secret(done()).then(71.0, deleted("st-1")), 71.0).violated(Rules::default()), [""; 0]);
    assert_eq!(done().then(71.0, deleted("st-2")).violated(running()), ["foreign"], "it was there before");
    let building = |secs| quiet(done().modal(secs, "image_log", 0, &json!({ "target": "im-1" })), 90.0);
    assert_eq!(building(91.0).violated(Rules::default()), [""; 0]);
    assert_eq!(building(92.0).violated(Rules::default()), ["silence"]);
    // One whose creation was not answered is found by its name.
    let unanswered = done().then(60.0, json!({ "event": "fault_struck", "operation": "secret", "mode": "reply_lost" }));
    assert_eq!(quiet(secret(unanswered), 70.0).violated(Rules::default()), ["left_over"]);
}

#[test]
fn nothing_leads_to_a_secret_whose_app_and_whose_creator_are_gone() {
    let runner = name(0, 1);
    let appears = json!({ "event": "secret_changed", "secret": "st-1", "exists": true });
    let made = created("sb-1", &runner, &json!({ "tags": { "class": "default", "secret": "st-1" } }));
    let served = || {
        let stored = Tale::new().queued(1.0, 0).minted(3.0, &runner).then(3.1, appears.clone());
        stored
            .modal(3.1, "secret", 0, &json!({ "target": format!("{runner}-1") }))
            .then(3.4, made.clone())
            .modal(3.4, "create", 0, &json!({ "target": runner }))
            .online(7.0, "sb-1", &runner)
            .assigned(8.0, 0, &runner)
            .completed(68.0, 0, "ran")
            .removed(68.0, &runner)
            .ended(69.0, "sb-1", &runner)
    };
    let stopped = json!({ "event": "fault_struck", "operation": "list_sandboxes", "mode": "app_stopped" });
    let killed = |tale: Tale| tale.controller(80.0, "killed").controller(80.0, "started");
    let left = |tale: Tale| quiet(tale, 80.0).violated(Rules::default());
    assert_eq!(left(served()), ["left_over"]);
    assert_eq!(left(killed(served())), ["left_over"]);
    assert_eq!(left(served().then(70.0, stopped.clone())), ["left_over"]);
    assert_eq!(left(killed(served().then(70.0, stopped.clone()))), [""; 0]);
    // Whoever started before the App was gone has seen it if it listed the sandboxes.
    let listed = |tale: Tale| tale.modal(81.0, "list_sandboxes", 0, &json!({ "page": 1 }));
    assert_eq!(left(killed(served()).then(82.0, stopped.clone())), [""; 0]);
    assert_eq!(left(listed(killed(served())).then(82.0, stopped)), ["left_over"]);
}

#[test]
fn a_secret_is_found_wherever_it_stands() {
    let canary = "ghp_canary_of_the_test";
    let planted = Tale::new().then(1.0, json!({ "event": "something_new", "note": format!("token {canary}!") }));
    let rules = || Rules { canaries: vec![canary.to_owned()], ..running() };
    assert_eq!(planted.violated(rules()), ["secret"]);
    assert_eq!(Tale::new().violated(rules()), [""; 0]);
    let violations = checker::check(planted.text(), rules());
    assert!(!violations[0].to_string().contains(canary), "a report does not repeat what leaked");
    assert_eq!(leaks(&["a clean log", &format!("Bearer {canary}")], &["other", canary]), [(1, 1)]);
}

#[test]
fn what_cannot_be_read_is_reported_except_the_line_that_a_kill_cut() {
    let text = format!("{}not json\n", Tale::new().text());
    assert_eq!(checker::check(&text, running())[0].invariant, "unreadable");
    let cut = format!("{}{{\"seq\":9,\"at\":\"20", Tale::new().text());
    assert_eq!(checker::check(&cut, running()), []);
}
