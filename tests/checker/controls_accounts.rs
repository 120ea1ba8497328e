//! Controls of what credentials, organizations and the reach of a reading change.

use chrono::TimeDelta;
use serde_json::json;

use super::checker::{Limits, Rules};
use super::tale::{JOB, REPO, RUN, Tale, name, nothing, queued};
use super::{limited, quiet, running};

/// The organization's other repository.
const OTHER: &str = "acme/api";
const LABELS: [&str; 2] = ["self-hosted", "modal"];

#[test]
fn each_credential_has_budgets_of_its_own() {
    let calls = |tokens: [&str; 2]| {
        let profile = json!({ "github_points_per_minute": 10, "github_requests_per_hour": 30 });
        (0..20).fold(Tale::with_profile(profile), |tale, index| {
            let token = json!({ "page": 1, "token": tokens[index % 2] });
            #[expect(clippy::cast_precision_loss, reason = "a few calls")]
            tale.github(index as f64, "list_runs", 200, &token)
        })
    };
    assert_eq!(calls(["installation-1", "installation-2"]).violated(running()), [""; 0]);
    assert_eq!(calls(["installation-1", "installation-1"]).violated(running()), ["budget"]);
    // A token costs points of the App's own.
    let token = |tale: Tale, at| tale.github(at, "installation_token", 201, &json!({ "token": "app", "points": 5 }));
    let profile = || Tale::with_profile(json!({ "github_points_per_minute": 10 }));
    assert_eq!(token(token(profile(), 1.0), 2.0).violated(running()), [""; 0]);
    assert_eq!(token(token(token(profile(), 1.0), 2.0), 3.0).violated(running()), ["budget"]);
}

#[test]
fn a_pause_binds_the_credential_that_was_asked_for_it() {
    let limited = json!({ "limited": "injected", "wait_secs": 30.0, "token": "installation-1" });
    let after = |token: &str| {
        let read = json!({ "page": 1, "token": token });
        Tale::new().github(10.0, "list_runs", 403, &limited).github(20.0, "list_runs", 200, &read).violated(running())
    };
    assert_eq!(after("installation-2"), [""; 0]);
    assert_eq!(after("installation-1"), ["held"]);
}

/// Two repositories, whose runners are registered in their organization; a job of each is queued and read.
fn organization() -> Tale {
    let began =
        json!({ "event": "began", "seed": 1, "repos": [REPO, OTHER], "organizations": ["acme"], "profile": {} });
    let other =
        json!({ "event": "job_queued", "job": JOB + 1, "run": RUN + 1, "attempt": 1, "repo": OTHER, "labels": LABELS });
    let read = json!({ "page": 1, "subject": OTHER, "target": (RUN + 1).to_string() });
    let tale = Tale::default().registering_in("acme").then(0.0, began).fleet(0.1).queued(1.0, 0).then(1.0, other);
    tale.github(2.0, "list_jobs", 200, &read)
}

#[test]
fn before_a_sandbox_of_an_organization_is_terminated_the_jobs_of_all_its_allowed_repositories_are_read() {
    let fenced = || {
        let strange = json!({ "event": "job_queued", "job": JOB + 9, "run": RUN + 9, "attempt": 1,
            "repo": "acme/closed", "labels": LABELS, "skip": "repo_not_allowed" });
        let started = organization().then(2.5, strange).started(10.0, "sb-1", &name(0, 1));
        let silent = (1..=7_u8).fold(started, |tale, minute| {
            let at = f64::from(minute) * 60.0;
            tale.runners(at).fleet(at).jobs(at)
        });
        silent.deleted(430.0, &name(0, 1)).jobs(440.0)
    };
    let other = |tale: Tale| {
        let jobs = json!({ "page": 1, "subject": OTHER, "target": (RUN + 1).to_string() });
        let runs = tale.github(440.0, "list_runs", 200, &json!({ "page": 1, "subject": OTHER }));
        runs.github(440.0, "list_jobs", 200, &jobs)
    };
    let terminated = |tale: Tale| tale.terminated(530.0, "sb-1", &name(0, 1), None).violated(running());
    assert_eq!(terminated(other(fenced())), [""; 0]);
    assert_eq!(terminated(fenced()), ["destroyed_unproven"]);
}

fn taken(job: u64, repo: &str, runner: &str) -> serde_json::Value {
    json!({ "event": "job_assigned", "job": JOB + job, "repo": repo, "runner": runner, "sandbox": null })
}

#[test]
fn the_runners_of_an_organization_serve_the_needs_of_all_its_repositories() {
    let two = || organization().started(3.0, "sb-0", &name(0, 1)).started(4.0, "sb-1", &name(1, 1));
    assert_eq!(two().violated(running()), [""; 0]);
    let one_each = limited(Limits { sandboxes_per_repo: Some(1), ..Limits::default() });
    assert_eq!(two().violated(one_each), [""; 0], "a limit is each repository's, not the organization's");
    let third = two().started(5.0, "sb-2", &name(0, 2));
    assert_eq!(third.violated(running()), ["one_runner_per_need", "runners_without_need"]);
    // Whichever job it takes, it serves a need of the group.
    let crossed = || two().online(8.0, "sb-0", &name(0, 1)).then(9.0, taken(1, OTHER, &name(0, 1)));
    assert_eq!(crossed().violated(running()), [""; 0]);
    assert_eq!(crossed().started(10.0, "sb-2", &name(0, 2)).violated(running()), ["one_runner_per_need"]);
    let elsewhere = organization().registering_in(REPO).started(3.0, "sb-0", &name(0, 1));
    let reported = ["labels", "one_runner_per_need", "runners_without_need"];
    assert_eq!(elsewhere.violated(running()), reported, "nobody needs it there");
}

#[test]
fn no_runner_of_ours_takes_a_job_of_a_repository_that_is_not_allowed() {
    let taken_of = |repo: &str, runner: &str| {
        let started = organization().started(3.0, "sb-0", &name(0, 1)).online(8.0, "sb-0", &name(0, 1));
        let strange = json!({ "event": "job_queued", "job": JOB + 9, "run": RUN + 9, "attempt": 1, "repo": repo,
            "labels": LABELS, "skip": "repo_not_allowed" });
        started.then(8.5, strange).then(9.0, taken(9, repo, runner)).violated(running())
    };
    assert_eq!(taken_of("acme/closed", &name(0, 1)), ["allow_list"]);
    assert_eq!(taken_of("acme/closed", "their-box"), [""; 0]);
    assert_eq!(taken_of(OTHER, &name(0, 1)), [""; 0]);
}

/// A job of an attempt, read at one second and served from another one on; its run is not the only one, and so many are
/// on a page.
fn read_and_served(page: usize, attempt: u32, read: f64, served: f64) -> Tale {
    let mut job = queued(0, &LABELS);
    job["attempt"] = json!(attempt);
    let newer = json!({ "event": "job_queued", "job": JOB + 9, "run": RUN + 9, "attempt": 1, "repo": REPO,
        "labels": ["ubuntu-latest"], "skip": "labels" });
    let tale = Tale::with_profile(json!({ "github_list_page": page })).then(0.5, newer).then(1.0, job);
    quiet(tale.jobs(read).served(served, "sb-1", 0), served + 70.0)
}

#[test]
fn a_re_run_behind_newer_runs_may_wait_for_the_next_sweep_and_no_longer() {
    let violated =
        |page, attempt, read, served| read_and_served(page, attempt, read, served).violated(Rules::default());
    // From the reading on it has four minutes, of which five seconds pass from the create on.
    assert_eq!(violated(1, 2, 600.0, 830.0), [""; 0]);
    assert_eq!(violated(1, 1, 600.0, 830.0), ["served_late"], "a new run is the first on the page");
    assert_eq!(violated(2, 2, 600.0, 830.0), ["served_late"], "it is on the page");
    assert_eq!(violated(1, 2, 600.0, 840.0), ["served_late"]);
    assert_eq!(violated(1, 2, 700.0, 840.0), ["served_late"], "a sweep comes every ten minutes");
    assert_eq!(violated(1, 2, 2.0, 240.0), ["served_late"], "it was read at once");
}

#[test]
fn a_run_may_go_unread_for_the_longest_interval_where_the_quota_is_small() {
    let rules = || Rules { unread_within: TimeDelta::minutes(15), ..Rules::default() };
    assert_eq!(read_and_served(100, 1, 900.0, 1_130.0).violated(rules()), [""; 0]);
    assert_eq!(read_and_served(100, 1, 900.0, 1_140.0).violated(rules()), ["served_late"]);
    assert_eq!(read_and_served(100, 1, 1_000.0, 1_140.0).violated(rules()), ["served_late"]);
    let unread = Tale::new().then(1.0, queued(0, &LABELS)).then(1_142.0, nothing());
    assert_eq!(unread.violated(rules()), ["served_late", "unserved"]);
}

#[test]
fn a_job_that_should_be_served_is_not_refused_by_its_runner() {
    let ended = |cause: &str| {
        let taken = Tale::new().queued(1.0, 0).started(3.0, "sb-1", &name(0, 1)).assigned(8.0, 0, &name(0, 1));
        taken.completed(10.0, 0, cause).removed(10.0, &name(0, 1)).violated(running())
    };
    assert_eq!(ended("ran"), [""; 0]);
    assert_eq!(ended("refused"), ["refused"]);
    let mut strange = queued(0, &LABELS);
    strange["skip"] = json!("fork");
    assert_eq!(Tale::new().then(1.0, strange).completed(10.0, 0, "refused").violated(running()), [""; 0]);
}

#[test]
fn no_job_of_a_stranger_runs_on_a_runner_of_ours() {
    let taken = |skip: &str, runner: &str, cause: &str| {
        let mut strange = queued(1, &LABELS);
        strange["skip"] = json!(skip);
        let tale = Tale::new().queued(1.0, 0).then(1.0, strange).started(3.0, "sb-1", &name(0, 1));
        tale.assigned(8.0, 1, runner).completed(10.0, 1, cause).violated(running())
    };
    for skip in ["fork", "public_repo"] {
        assert_eq!(taken(skip, &name(0, 1), "ran"), ["stranger_ran"]);
        assert_eq!(taken(skip, &name(0, 1), "refused"), [""; 0], "its runner refused it");
        assert_eq!(taken(skip, "theirs", "ran"), [""; 0], "on a runner of another's");
    }
}

#[test]
fn what_somebody_else_used_of_the_hour_counts_and_ends_with_it() {
    let calls = |count: u32, apart: f64, status: u16, charged: bool| {
        let profile = json!({ "github_requests_per_hour": 30, "github_used_before": 20, "github_first_hour_secs": 600.0,
            "github_charges_unchanged": charged });
        (0..count).fold(Tale::with_profile(profile), |tale, index| {
            tale.github(f64::from(index) * apart, "list_runs", status, &json!({ "page": 1 }))
        })
    };
    assert_eq!(calls(10, 10.0, 200, false).violated(running()), [""; 0]);
    assert_eq!(calls(11, 10.0, 200, false).violated(running()), ["budget"]);
    assert_eq!(calls(11, 10.0, 304, false).violated(running()), [""; 0]);
    assert_eq!(calls(11, 10.0, 304, true).violated(running()), ["budget"], "where a 304 costs a request");
    assert_eq!(calls(30, 75.0, 200, false).violated(running()), [""; 0], "eight of them in the first hour");
}

#[test]
fn a_registration_is_left_longer_where_lists_are_read_seldom() {
    let left = |charged: bool, secs: f64| {
        let profile = json!({ "github_charges_unchanged": charged });
        let minted = Tale::with_profile(profile).queued(1.0, 0).minted(3.0, &name(0, 1));
        let killed = minted.controller(5.0, "killed").controller(5.0, "started");
        killed.removed(secs, &name(0, 1)).violated(running())
    };
    assert_eq!(left(false, 81.0 * 60.0), ["mint_lost"]);
    assert_eq!(left(true, 380.0 * 60.0), [""; 0], "leftovers are looked for every six hours");
    assert_eq!(left(true, 381.0 * 60.0), ["mint_lost"]);
    let rules = || Rules { unread_within: TimeDelta::minutes(15), ..running() };
    let slow = |secs| Tale::new().queued(1.0, 0).minted(3.0, &name(0, 1)).removed(secs, &name(0, 1)).violated(rules());
    assert_eq!(slow(30.0 * 60.0), [""; 0]);
    assert_eq!(slow(31.0 * 60.0), ["mint_lost"]);
}
