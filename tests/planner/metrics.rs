//! What `/metrics` shows of situations.

use std::time::Duration;

use chrono::TimeDelta;
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};
use sandrunner::act::Effect;
use sandrunner::error::ErrorClass;
use sandrunner::evidence::{END_REASONS, end_reason};
use sandrunner::ids::ClassName;
use sandrunner::metrics::{GONE_AFTER, Meter, Seen, builder, describe};
use sandrunner::plan::{Action, SkipReason};
use sandrunner::runner::Exit;
use sandrunner::state::{SandboxEnd, SandboxResult};

use crate::situation::{Situation, now};

/// A recorder of its own, the meter that a daemon has, and the page.
struct Page {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    meter: Meter,
}

impl Page {
    fn new(gone_after: Duration) -> Self {
        let recorder = builder(gone_after).unwrap().build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, describe);
        Self { recorder, handle, meter: Meter::default() }
    }

    /// The page after a pass.
    fn after(&mut self, situation: &Situation) -> String {
        let Situation { observed, evidence, policy } = situation;
        let plan = situation.plan();
        let seen = Seen { observed, evidence, plan: &plan, policy, now: now() };
        ::metrics::with_local_recorder(&self.recorder, || self.meter.meter(&seen));
        self.handle.render()
    }
}

/// The value of a series, or none where the page has no such.
fn value<'a>(page: &'a str, series: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

fn check(situation: &str, expected: &[(&str, &str)]) {
    check_all(&Situation::parse(situation), expected);
}

fn check_all(situation: &Situation, expected: &[(&str, &str)]) {
    let page = Page::new(GONE_AFTER).after(situation);
    for (series, expected) in expected {
        assert_eq!(value(&page, &format!("sandrunner_{series}")), Some(*expected), "{series} in\n{page}");
    }
}

#[test]
fn skipped_jobs_are_told_by_class_and_reason_with_the_age_of_the_oldest() {
    check(
        "limit 0; job 7 acme/web queued 40s; job 8 acme/web queued 90s; job 9 acme/web queued 30s labels=modal,gpu:t4; \
         job 10 acme/web queued 50s labels=modal,none-has-this; job 11 acme/web queued 60s labels=ubuntu-latest",
        &[
            (r#"skipped_jobs{class="default",reason="at_limit"}"#, "2"),
            (r#"oldest_skipped_job_age_seconds{class="default",reason="at_limit"}"#, "90"),
            (r#"skipped_jobs{class="gpu:t4",reason="at_limit"}"#, "1"),
            (r#"oldest_skipped_job_age_seconds{class="gpu:t4",reason="at_limit"}"#, "30"),
            (r#"skipped_jobs{class="",reason="no_matching_class"}"#, "1"),
            (r#"skipped_jobs{class="",reason="not_opted_in"}"#, "1"),
            (r#"skipped_jobs{class="default",reason="breaker"}"#, "0"),
            (r#"oldest_skipped_job_age_seconds{class="default",reason="breaker"}"#, "0"),
        ],
    );
}

#[test]
fn limits_are_told_in_all_and_by_class() {
    let mut situation = Situation::parse("limit 5; sandbox 7-1 acme/web idle 60s");
    situation.policy.classes[0].max_sandboxes = Some(3);
    check_all(
        &situation,
        &[
            (r#"sandboxes_limit{class=""}"#, "5"),
            (r#"sandboxes_limit{class="gpu:t4"}"#, "3"),
            (r#"sandboxes_limit{class="default"}"#, "inf"),
            (r#"sandboxes{class="default",state="idle"}"#, "1"),
        ],
    );
}

#[test]
fn an_open_breaker_is_told_by_kind_and_class() {
    let closed = r#"breaker_open{kind="class",class="default"}"#;
    check("job 7 acme/web queued", &[(closed, "0"), (r#"breaker_open{kind="group",class=""}"#, "0")]);
    let mut situation = Situation::parse("");
    let mut open = |text: &str, after| {
        situation.observed.fleet = Situation::parse(text).observed.fleet;
        let now = now() + TimeDelta::seconds(after);
        situation.evidence.learn(&situation.observed, &situation.policy, &[], now);
    };
    for (job, after) in [(7, 0), (8, 200), (9, 400)] {
        open(&format!("sandbox {job}-1 acme/web ended=68 60s"), after);
    }
    check_all(&situation, &[(closed, "1"), (r#"breaker_open{kind="image",class="default"}"#, "0")]);
    check_all(&situation, &[(r#"breaker_open{kind="class",class="gpu:t4"}"#, "0")]);
}

#[test]
fn a_sandbox_is_overdue_a_quarter_of_an_hour_after_its_clocks() {
    // Placed within 2 min, started within 3, idle for 5.
    for (state, age, expected) in [
        ("idle", 24 * 60, "0"),
        ("idle", 26 * 60, "1"),
        ("starting", 19 * 60, "0"),
        ("starting", 21 * 60, "1"),
        ("claimed", 26 * 60, "0"),
        ("claimed", 3600 + 31 * 60, "1"),
        ("ended=0", 30 * 60, "0"),
    ] {
        let text = format!("job 7 acme/web in_progress runner=7-1; sandbox 7-1 acme/web {state} {age}s");
        let text = if state == "claimed" { text } else { text.replace("job 7 acme/web in_progress runner=7-1; ", "") };
        check(&text, &[(r#"overdue_sandboxes{class="default"}"#, expected)]);
    }
}

#[test]
fn what_can_happen_is_counted_as_nothing_before_it_does() {
    let page = Page::new(GONE_AFTER).after(&Situation::empty());
    for series in [
        r#"sandrunner_sandbox_ends_total{class="default",reason="crashed"}"#,
        r#"sandrunner_job_pickup_seconds_count{class="default",leg="total"}"#,
        r#"sandrunner_job_pickup_seconds_bucket{class="gpu:t4",leg="seen",le="60"}"#,
        r#"sandrunner_actions_total{action="create",reason="queued",result="forbidden"}"#,
        r#"sandrunner_actions_total{action="deregister",reason="stale",result="still_running"}"#,
        r#"sandrunner_action_duration_seconds_count{action="terminate"}"#,
        r#"sandrunner_reconcile_total{result="incomplete"}"#,
        r#"sandrunner_modal_requests_total{operation="SandboxCreateV2",result="unavailable"}"#,
        r#"sandrunner_image_rollbacks_total{class="default"}"#,
        "sandrunner_cross_class_claims_total",
    ] {
        assert_eq!(value(&page, series), Some("0"), "{series} in\n{page}");
    }
}

#[test]
fn every_label_that_can_be_given_is_among_those_that_show_zero() {
    let ends = [
        SandboxEnd::Success,
        SandboxEnd::Terminated,
        SandboxEnd::Timeout,
        SandboxEnd::InitFailure,
        SandboxEnd::InternalFailure,
        SandboxEnd::IdleTimeout,
        SandboxEnd::OutOfMemory,
        SandboxEnd::Other(99),
    ];
    let of_modal = ends.map(|status| end_reason(Some(&SandboxResult { status, exit_code: 0, message: String::new() })));
    let of_runners = [0, 64, 65, 66, 67, 68, 69, 1].map(|code| Exit::from_code(code).as_str());
    for reason in of_modal.iter().chain(&of_runners).chain(&[end_reason(None)]) {
        assert!(END_REASONS.contains(reason), "{reason}");
    }
    let classes: std::collections::BTreeSet<&str> = ErrorClass::ALL.map(ErrorClass::as_str).into();
    assert_eq!(classes.len(), ErrorClass::ALL.len());
    assert!(SkipReason::WITHOUT_CLASS.iter().all(|reason| SkipReason::LABELS.contains(reason)));
    assert!(Action::LABELS.iter().any(|(action, _)| !Effect::results_of(action).is_empty()));
}

#[test]
fn what_is_gone_is_taken_back_and_what_is_there_stays() {
    let mut page = Page::new(Duration::ZERO);
    let queued = r#"sandrunner_queued_jobs{class="default",repo="acme/web"}"#;
    let mut situation = Situation::parse("limit 0; job 7 acme/web queued; job 8 acme/api queued");
    assert_eq!(value(&page.after(&situation), queued), Some("1"));
    // Nothing is queued there any more, and then the repository is not allowed any more.
    situation.observed.repos = Situation::parse("job 7 acme/web completed; job 8 acme/api queued").observed.repos;
    assert_eq!(value(&page.after(&situation), queued), Some("0"));
    situation.observed.repos = Situation::parse("job 8 acme/api queued").observed.repos;
    let limit = r#"sandrunner_sandboxes_limit{class="gpu:t4"}"#;
    assert!(value(&page.after(&situation), limit).is_some());
    situation.policy.classes.retain(|class| class.name == ClassName::new("default"));
    // A series goes at the second look that finds it as it was.
    page.after(&situation);
    let shown = page.after(&situation);
    assert_eq!((value(&shown, queued), value(&shown, limit)), (None, None), "{shown}");
    let other = r#"sandrunner_queued_jobs{class="default",repo="acme/api"}"#;
    assert_eq!(value(&shown, other), Some("1"));
    assert!(value(&shown, r#"sandrunner_sandboxes_limit{class="default"}"#).is_some());
    assert!(shown.contains("sandrunner_build_info{"), "{shown}");
    // Counters stay: what happened has happened.
    assert!(value(&shown, r#"sandrunner_sandbox_ends_total{class="gpu:t4",reason="served"}"#).is_some());
}
