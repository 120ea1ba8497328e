//! Where exactly a pause, a grace or a limit ends.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

use sandrunner::evidence::{Claim, Phase};
use sandrunner::ids::{ClassName, JobId};
use sandrunner::plan::Action;
use sandrunner::state::JobStatus;

use crate::situation::{Situation, name, now, scope};

const CREATE_7: &str = "create sr-main-gh-7-1 for job 7 of acme/web: class default, labels modal";

fn told(situation: &Situation) -> String {
    situation.plan().to_string().trim_end().to_owned()
}

fn check(text: &str, expected: &str) {
    assert_eq!(told(&Situation::parse(text)), expected, "in the situation: {text}");
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// When the first job that gets nothing is looked at again.
fn again_at(situation: &Situation) -> DateTime<Utc> {
    situation.plan().skips[0].again_at
}

#[test]
fn a_list_of_sandboxes_serves_for_a_minute() {
    let mut situation = Situation::parse("job 7 acme/web queued");
    situation.observed.fleet.read.known_at = Some(now() - seconds(60));
    assert_eq!(told(&situation), CREATE_7);
    situation.observed.fleet.read.known_at = Some(now() - seconds(61));
    assert!(told(&situation).starts_with("skip job 7"), "{}", told(&situation));
}

#[test]
fn what_waits_says_when_it_is_looked_at_again() {
    let spent = Situation::parse("job 7 acme/web queued; spent 60s");
    assert_eq!(again_at(&spent), now() + seconds(70), "a minute after the next pass");
    let mut refused = Situation::parse("job 7 acme/web queued");
    refused.observed.runners_in_use.insert(ClassName::new("default"), "2.328.0".parse().unwrap());
    assert_eq!(again_at(&refused), now() + seconds(600));
}

#[test]
fn with_a_long_interval_what_was_read_is_believed_for_two_of_them() {
    let mut situation = Situation::parse("job 7 acme/web queued; unheard 250s");
    assert!(told(&situation).starts_with("skip job 7"), "{}", told(&situation));
    situation.policy.interval = Duration::from_secs(200);
    assert_eq!(told(&situation), CREATE_7);
}

#[test]
fn a_job_that_a_living_runner_took_is_believed_queued_again_after_ten_minutes() {
    let plan = |ago: &str| {
        let text = format!("sandbox 7-1 acme/web claimed 700s; job 8 acme/web queued advanced={ago}");
        let mut situation = Situation::parse(&text);
        situation.evidence.jobs.values_mut().for_each(|job| job.taken_by = Some(name("7-1")));
        told(&situation).starts_with("create sr-main-gh-8-1")
    };
    assert_eq!((plan("599s"), plan("600s")), (false, true));
}

#[test]
fn fruitless_attempts_pause_for_a_minute_unless_the_class_has_started_since() {
    let fruitless = |ago: u32| Situation::parse(&format!("job 7 acme/web queued 600s; fruitless 7 3 {ago}s"));
    assert!(told(&fruitless(59)).starts_with("skip job 7"));
    assert!(told(&fruitless(60)).starts_with("create sr-main-gh-7-4"));
    let started = |ago: i64| {
        let mut situation = fruitless(30);
        situation.evidence.jobs.get_mut(&JobId(7)).unwrap().came = Phase::Start;
        situation.evidence.started_at.insert(ClassName::new("default"), now() - seconds(ago));
        told(&situation).starts_with("create sr-main-gh-7-4")
    };
    assert_eq!((started(30), started(29)), (false, true));
}

#[test]
fn a_sandbox_that_was_asked_to_end_is_asked_again_by_a_list_a_minute_later() {
    let text = |terminated: u32| format!("sandbox 7-1 acme/web failed 400s fenced=200s terminated={terminated}s");
    check(&text(59), "");
    check(&text(60), "terminate sr-main-gh-7-1 (sb-7-1): failed_start");
}

#[test]
fn after_a_delete_only_a_list_that_began_late_enough_shows_a_registration_that_stayed() {
    check("runner 7-1 acme/web offline 400s stale fenced=89s", "");
    check("runner 7-1 acme/web offline 400s stale fenced=90s", "deregister sr-main-gh-7-1 in acme/web: stale");
}

#[test]
fn a_registration_whose_job_runs_is_kept() {
    let plan = |status: JobStatus| {
        let mut situation = Situation::parse("job 9 acme/web in_progress; runner 7-1 acme/web offline 400s stale");
        let claim = Claim { job: JobId(9), runner: None, at: now() };
        situation.evidence.names.get_mut(&name("7-1")).unwrap().claim = Some(claim);
        let runs = &mut situation.observed.repos.get_mut(&scope("acme/web")).unwrap().runs;
        for job in runs.values_mut().flat_map(|run| run.jobs.values_mut()) {
            job.status = status.clone();
        }
        told(&situation)
    };
    assert_eq!(plan(JobStatus::InProgress), "");
    assert_eq!(plan(JobStatus::Completed), "deregister sr-main-gh-7-1 in acme/web: stale");
}

#[test]
fn a_start_that_failed_is_fenced_only_by_a_list_of_runners_that_shows_it_away() {
    let failed = "sandbox 7-1 acme/web failed 400s";
    let fence = "deregister sr-main-gh-7-1 in acme/web: failed_start";
    check(&format!("{failed}; runner 7-1 acme/web offline 400s"), fence);
    check(&format!("{failed}; runner 7-1 acme/web online 400s"), "");
    check(&format!("{failed}; runner 7-1 acme/web busy 400s"), "");
    let mut unread = Situation::parse(&format!("{failed}; runner 7-1 acme/web offline 400s"));
    let failure = sandrunner::error::CallFailure {
        class: sandrunner::error::ErrorClass::Unavailable,
        message: "no answer".into(),
        retry_after: None,
    };
    unread.registry("acme/web").runners_read.failed(now(), failure);
    assert_eq!(told(&unread), "");
}

#[test]
fn a_secret_is_as_old_as_modals_clock_says() {
    let deleted = "delete the secret of sr-main-gh-7-1";
    check("sandbox 7-1 acme/web starting 100s secret", "");
    let mut situation = Situation::parse("sandbox 7-1 acme/web idle 40s secret");
    assert_eq!(told(&situation), "");
    situation.observed.skew = seconds(20);
    assert_eq!(told(&situation), deleted, "it was created twenty seconds before what Modal's clock shows");
    situation.observed.skew = seconds(-20);
    assert_eq!(told(&situation), "");
}

#[test]
fn every_action_has_the_labels_that_metrics_show() {
    let labels = |text: &str| {
        let actions = Situation::parse(text).plan().actions;
        actions.iter().map(Action::labels).collect::<Vec<_>>()
    };
    assert_eq!(labels("job 7 acme/web queued"), [("create", "queued")]);
    assert_eq!(labels("image absent; job 7 acme/web queued"), [("prepare_image", "queued")]);
    assert_eq!(labels("runner 7-1 acme/web offline 400s stale"), [("deregister", "stale")]);
    assert_eq!(labels("sandbox 7-1 acme/web failed 400s fenced=100s"), [("terminate", "failed_start")]);
    assert_eq!(labels("sandbox 7-1 acme/web idle 60s secret"), [("delete_secret", "read")]);
}
