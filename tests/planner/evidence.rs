//! What the evidence learns from readings and outcomes.

use std::time::Duration;

use crate::situation::{Situation, name, now, scope};
use chrono::TimeDelta;
use sandrunner::act::{Effect, Outcome};
use sandrunner::class::{Gpu, Machine, User};
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::evidence::kept::{decode, encode};
use sandrunner::evidence::{Agreement, GivenUp};
use sandrunner::ids::{ClassName, Fingerprint, ImageId, JobId, Labels, RunId, RunnerId, SecretId};
use sandrunner::modal::Deletion;
use sandrunner::plan::{Action, DeregisterReason, SecretLook};
use sandrunner::runner::VersionNotice;
use sandrunner::state::{
    Connection, Ended, EndedSecret, ImageState, Origin, OurSandbox, ReadTimes, ReleaseView, SandboxEnd, SandboxResult,
};

fn learn(situation: &mut Situation, outcomes: &[Outcome], after: i64) {
    situation.evidence.learn(&situation.observed, &situation.policy, outcomes, now() + TimeDelta::seconds(after));
}

#[test]
fn a_reading_that_was_under_way_during_earlier_passes_is_learned() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web idle 60s; job 7 acme/web queued");
    learn(&mut situation, &[], 5);
    // It began before the pass above and arrived after it.
    situation.observed =
        Situation::parse("sandbox 7-1 acme/web idle 60s; job 7 acme/web in_progress runner=7-1").observed;
    let repo = situation.observed.repos.values_mut().next().unwrap();
    repo.runs.values_mut().next().unwrap().jobs_read.succeeded(now() + TimeDelta::seconds(4));
    learn(&mut situation, &[], 6);
    assert!(situation.evidence.names[&name("7-1")].claim.is_some());
}

#[test]
fn a_name_that_a_job_shows_is_used_up_even_after_a_restart() {
    // The runner made for job 7 took job 8 and is gone; no list but that of the jobs remembers its name.
    let mut situation = Situation::parse("job 7 acme/web queued; job 8 acme/web in_progress runner=7-1");
    learn(&mut situation, &[], 1);
    let plan = situation.plan().to_string();
    assert!(plan.contains("create sr-main-gh-7-2 for job 7"), "{plan}");
}

fn origin() -> Origin {
    Origin {
        scope: scope("acme/web"),
        run: RunId(1),
        class: ClassName::new("default"),
        group: Labels::new(["modal"]).fingerprint(),
        machine: Machine::default(),
    }
}

fn refused(job: u32, class: ErrorClass) -> Outcome {
    // Modal tells how long to wait where it is about the rate of creates.
    let retry_after = (class == ErrorClass::RateLimited).then_some(Duration::from_secs(1));
    let failure = CallFailure { class, message: "no".into(), retry_after };
    let effect =
        Effect::CreateFailed { name: name(&format!("{job}-1")), origin: origin(), runner: RunnerId(1), failure };
    Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }
}

/// The reasons of three sandboxes of a class that ended so before their runners came online, and how many failed starts that
/// makes.
fn ended(labels: &str, options: &str, status: SandboxEnd) -> (Vec<&'static str>, u32) {
    ended_with(labels, options, status, 0)
}

fn ended_with(labels: &str, options: &str, status: SandboxEnd, exit_code: i32) -> (Vec<&'static str>, u32) {
    let text =
        (1..=3).map(|n| format!("sandbox {n}-1 acme/web {options} labels={labels};")).collect::<Vec<_>>().concat();
    let mut situation = Situation::parse(&text);
    for (age, sandbox) in situation.observed.fleet.sandboxes.values_mut().enumerate() {
        let at = now() + TimeDelta::seconds(i64::try_from(age).unwrap());
        let result = SandboxResult { status, exit_code, message: String::new() };
        sandbox.ended = Some(Ended { at, result: Some(result) });
    }
    let learned = situation.evidence.learn(&situation.observed, &situation.policy, &[], now());
    let failed = situation.evidence.failed_starts.values().map(|breaker| breaker.failures).sum();
    (learned.ends.iter().map(|(_, _, reason)| *reason).collect(), failed)
}

#[test]
fn what_modal_takes_away_is_no_failure_of_the_class() {
    let gpu = "modal,gpu:t4";
    assert_eq!(ended(gpu, "starting 60s", SandboxEnd::Terminated), (vec!["preempted"; 3], 0));
    assert_eq!(ended(gpu, "starting 60s", SandboxEnd::InternalFailure), (vec!["internal_failure"; 3], 0));
    assert_eq!(ended(gpu, "starting 60s", SandboxEnd::InitFailure), (vec!["init_failure"; 3], 3));
    // The class has patience for two minutes; what ended sooner was placed after the last list.
    assert_eq!(ended(gpu, "unscheduled 121s", SandboxEnd::Terminated), (vec!["no_capacity"; 3], 0));
    assert_eq!(ended(gpu, "unscheduled 119s", SandboxEnd::Terminated), (vec!["preempted"; 3], 0));
    // Modal takes no other machines away.
    assert_eq!(ended("modal", "starting 60s", SandboxEnd::Terminated), (vec!["terminated"; 3], 0));
    assert_eq!(ended("modal", "starting 60s", SandboxEnd::InternalFailure), (vec!["internal_failure"; 3], 3));
}

#[test]
fn a_runner_that_does_not_come_online_in_time_counts_at_once_and_not_again_at_its_end() {
    let jobs = (1..=3).map(|id| format!("job {id} acme/web queued; sandbox {id}-1 acme/web failed 600s; "));
    let sandboxes = jobs.collect::<Vec<_>>().concat();
    let counted = |situation: &Situation| {
        let failed: u32 = situation.evidence.failed_starts.values().map(|breaker| breaker.failures).sum();
        let attempts: u32 = situation.evidence.jobs.values().map(|job| job.fruitless).sum();
        (failed, attempts)
    };
    let mut situation = Situation::parse(&sandboxes);
    assert_eq!(counted(&situation), (0, 0));
    for at in [0, 1] {
        learn(&mut situation, &[], at);
        assert_eq!(counted(&situation), (3, 3));
    }
    let breaker = situation.evidence.failed_starts.values().next().unwrap();
    assert_eq!((breaker.reason.as_str(), breaker.again_at()), ("not_online", Some(now() + TimeDelta::seconds(60))));
    // Nor at its end after a restart.
    let settings = Fingerprint::of("settings");
    let text = encode(&situation.evidence, settings).unwrap();
    situation.evidence = decode(text.as_bytes(), settings, now()).unwrap();
    for id in 1..=3 {
        situation.evidence.names.get_mut(&name(&format!("{id}-1"))).unwrap().terminated_at = Some(now());
    }
    end(&mut situation, SandboxEnd::Terminated, 0);
    assert_eq!(counted(&situation), (0, 3));
    let mut unplaced = Situation::parse(&sandboxes.replace("failed", "unplaced"));
    learn(&mut unplaced, &[], 0);
    assert_eq!(counted(&unplaced), (0, 0), "that is a shortage of machines");
}

#[test]
fn a_runner_that_comes_late_has_not_failed() {
    let sandboxes = "job 1 acme/web queued; sandbox 1-1 acme/web failed 600s; sandbox 2-1 acme/web failed 600s";
    let mut situation = Situation::parse(sandboxes);
    learn(&mut situation, &[], 0);
    let fruitless = |situation: &Situation| situation.evidence.jobs[&JobId(1)].fruitless;
    assert_eq!((fruitless(&situation), situation.evidence.failed_starts.len()), (1, 1));
    situation.observed = Situation::parse(&format!("{sandboxes}; runner 1-1 acme/web online 5s")).observed;
    situation.registry("acme/web").runners_read.succeeded(now() + TimeDelta::seconds(10));
    learn(&mut situation, &[], 10);
    assert_eq!((fruitless(&situation), situation.evidence.failed_starts.len()), (0, 0));
    // How it ends then counts as ever.
    situation.observed.registries.clear();
    end(&mut situation, SandboxEnd::Failure, 68);
    assert_eq!(fruitless(&situation), 1);
}

#[test]
fn only_what_modal_still_shows_after_the_limit_is_overdue_and_is_counted_before_it_is_replaced() {
    let failed = "job 1 acme/web queued; sandbox 1-1 acme/web failed 600s";
    let counted = |change: &dyn Fn(&mut OurSandbox)| {
        let mut situation = Situation::parse(failed);
        change(situation.observed.fleet.sandboxes.values_mut().next().unwrap());
        learn(&mut situation, &[], 0);
        let plan = situation.plan();
        let creates = plan.actions.iter().filter(|action| matches!(action, Action::Create(_)));
        (situation.evidence.failed_starts.len(), creates.count())
    };
    let late = now() - TimeDelta::seconds(500);
    assert_eq!(counted(&|_| {}), (1, 1));
    assert_eq!(counted(&|it| it.started_at = None), (1, 1), "its image is loaded for too long");
    assert_eq!(counted(&|it| it.missing_since = Some(late)), (1, 1), "it lives, Modal says, and is not listed");
    assert_eq!(counted(&|it| it.seen_at = late), (0, 0), "it may have ended since");
    let mut unplaced = Situation::parse(failed);
    unplaced.evidence.names.get_mut(&name("1-1")).unwrap().given_up = Some(GivenUp::Unplaced);
    learn(&mut unplaced, &[], 0);
    assert!(unplaced.evidence.failed_starts.is_empty(), "it was placed too late");
    assert_eq!(unplaced.plan().actions.len(), 1, "its runner cannot register any more: {}", unplaced.plan());
    // Another process finds no more than that its runner does not come online.
    learn(&mut unplaced, &[deregistered_as("1-1", DeregisterReason::FailedStart)], 1);
    assert_eq!(unplaced.evidence.names[&name("1-1")].given_up, Some(GivenUp::Unplaced));
}

#[test]
fn what_is_counted_as_overdue_is_no_machine_lost_as_well() {
    let mut situation = Situation::parse("job 1 acme/web queued; sandbox 1-1 acme/web failed 600s");
    learn(&mut situation, &[], 0);
    end(&mut situation, SandboxEnd::InternalFailure, 0);
    let job = &situation.evidence.jobs[&JobId(1)];
    assert_eq!((job.fruitless, job.machines_lost), (1, 0));
}

#[test]
fn a_runner_of_another_registration_says_nothing_of_a_sandbox() {
    let mut situation = Situation::parse("job 1 acme/web queued; sandbox 1-1 acme/web failed 600s");
    situation.observed.fleet.sandboxes.values_mut().for_each(|sandbox| sandbox.runner = Some(RunnerId(7)));
    learn(&mut situation, &[], 0);
    end(&mut situation, SandboxEnd::Failure, 66);
    let ended = situation.observed.fleet.clone();
    // Another process uses the name again.
    situation.observed = Situation::parse("job 1 acme/web queued; runner 1-1 acme/web online 5s").observed;
    situation.observed.fleet = ended;
    situation.registry("acme/web").runners_read.succeeded(now() + TimeDelta::seconds(10));
    learn(&mut situation, &[], 10);
    let evidence = &situation.evidence;
    assert_eq!((evidence.jobs[&JobId(1)].fruitless, evidence.failed_starts.len()), (1, 1));
}

#[test]
fn the_end_of_another_registrations_sandbox_is_not_learned_again() {
    let mut situation = Situation::parse("job 1 acme/web queued; sandbox 1-1 acme/web starting 60s");
    situation.observed.fleet.sandboxes.values_mut().for_each(|sandbox| sandbox.runner = Some(RunnerId(7)));
    learn(&mut situation, &[], 0);
    assert_eq!(end(&mut situation, SandboxEnd::Failure, 66), ["registration_failed"]);
    // Another process uses the name again.
    let ended = situation.observed.fleet.clone();
    situation.observed = Situation::parse("job 1 acme/web queued; runner 1-1 acme/web offline 5s").observed;
    situation.observed.fleet = ended;
    situation.registry("acme/web").runners_read.succeeded(now() + TimeDelta::seconds(10));
    for after in [10, 11] {
        learn(&mut situation, &[], after);
        assert_eq!(situation.evidence.jobs[&JobId(1)].fruitless, 1);
    }
}

#[test]
fn a_sandbox_that_failed_before_a_list_showed_its_machine_had_one() {
    // 68: the runner crashed. An image with which that happens three times is held back where another one is known.
    for (state, status, held) in [
        ("starting", SandboxEnd::Failure, 1),
        ("unscheduled", SandboxEnd::Failure, 1),
        ("unscheduled", SandboxEnd::InternalFailure, 0),
    ] {
        let labels = "labels=modal,gpu:t4";
        let mut situation = Situation::parse(&format!(
            "sandbox 9-1 acme/web idle 60s {labels} image=im-1; runner 9-1 acme/web online 60s {labels}"
        ));
        let class = ClassName::new("gpu:t4");
        situation.observed.images.insert(class.clone(), ImageState::Ready(ImageId::new("im-1")));
        learn(&mut situation, &[], 0);
        let text = (1..=3).map(|n| format!("sandbox {n}-1 acme/web {state} 60s {labels} image=im-2;"));
        situation.observed = Situation::parse(&text.collect::<String>()).observed;
        situation.observed.images.insert(class, ImageState::Ready(ImageId::new("im-2")));
        let result = SandboxResult { status, exit_code: 68, message: String::new() };
        for sandbox in situation.observed.fleet.sandboxes.values_mut() {
            sandbox.ended = Some(Ended { at: now(), result: Some(result.clone()) });
        }
        let learned = situation.evidence.learn(&situation.observed, &situation.policy, &[], now());
        assert_eq!(learned.held_images.len(), held, "{state}, {status:?}");
    }
}

#[test]
fn a_start_fails_with_whatever_the_sandbox_ends_by_itself() {
    let failed = |status, code| ended_with("modal", "starting 60s", status, code).1;
    for code in [1, 66, 68, 126, 127, 137, 139] {
        assert_eq!(failed(SandboxEnd::Failure, code), 3, "exit code {code}");
    }
    // Served, unclaimed, version refused, policy refused, asked to end.
    for code in [0, 64, 65, 67, 69] {
        assert_eq!(failed(SandboxEnd::Failure, code), 0, "exit code {code}");
    }
    for status in [SandboxEnd::OutOfMemory, SandboxEnd::Timeout, SandboxEnd::IdleTimeout, SandboxEnd::Other(99)] {
        assert_eq!(failed(status, 0), 3, "{status:?}");
    }
    assert_eq!(ended_with("modal", "idle 60s", SandboxEnd::Failure, 127).1, 0, "its runner was online");
    assert_eq!(
        ended_with("modal,gpu:t4", "starting 60s", SandboxEnd::Other(99), 0).1,
        0,
        "it may have been taken away"
    );
}

/// A class whose runners came online with `im-1`, which now has `im-2`.
fn with_a_new_image() -> Situation {
    let mut situation = Situation::parse("sandbox 90-1 acme/web idle 5s image=im-1; runner 90-1 acme/web online 5s");
    let class = ClassName::new("default");
    situation.observed.runners_in_use.insert(class.clone(), "2.336.0".parse().unwrap());
    learn(&mut situation, &[], 0);
    situation.observed = Situation::parse("job 7 acme/web queued").observed;
    situation.observed.images.insert(class, ImageState::Ready(ImageId::new("im-2")));
    situation
}

/// Ends of sandboxes of an image whose runners did not come online, one in each pass; how many failed starts of the class
/// that makes, and which images are held back because of them.
fn ends_of(situation: &mut Situation, image: &str, names: std::ops::Range<u32>) -> (u32, Vec<ImageId>) {
    let mut held = Vec::new();
    for number in names {
        let ended = Situation::parse(&format!("sandbox {number}-1 acme/web ended=127 60s image={image}"));
        situation.observed.fleet.sandboxes = ended.observed.fleet.sandboxes;
        let at = now() + TimeDelta::seconds(i64::from(number));
        let learned = situation.evidence.learn(&situation.observed, &situation.policy, &[], at);
        held.extend(learned.held_images.into_iter().map(|(_, image)| image));
    }
    (situation.evidence.failed_starts.values().map(|breaker| breaker.failures).sum(), held)
}

#[test]
fn a_new_image_is_given_up_only_where_another_can_stand_in() {
    let given_up = (0, vec![ImageId::new("im-2")]);
    assert_eq!(ends_of(&mut with_a_new_image(), "im-2", 1..4), given_up);
    let class_fails = (3, Vec::new());
    let mut refused = with_a_new_image();
    let old = Situation::parse("sandbox 80-1 acme/web ended=65 60s image=im-1");
    refused.observed.fleet.sandboxes = old.observed.fleet.sandboxes;
    learn(&mut refused, &[], 0);
    assert_eq!(ends_of(&mut refused, "im-2", 1..4), class_fails, "GitHub refused its runner");
    let mut dated = with_a_new_image();
    let notice = VersionNotice { registers_until: None, runs_until: Some(now()) };
    let (old, new) = ("2.336.0".parse().unwrap(), "2.337.0".parse().unwrap());
    let view = ReleaseView { offered: Some(new), notices: [(old, notice)].into(), ..ReleaseView::default() };
    dated.observed.releases.insert("gh".parse().unwrap(), view);
    assert_eq!(ends_of(&mut dated, "im-2", 1..4), class_fails, "GitHub says that it refuses its runner");
    let mut set_anew = with_a_new_image();
    set_anew.policy.classes.last_mut().unwrap().options.user = User::Runner;
    assert_eq!(ends_of(&mut set_anew, "im-2", 1..4), class_fails, "it may lack that user");
    let mut moved = with_a_new_image();
    moved.policy.runner_dir = "/opt/runner".to_owned();
    assert_eq!(ends_of(&mut moved, "im-2", 1..4), class_fails, "its runner is elsewhere");
}

#[test]
fn sandboxes_of_an_image_that_was_given_up_count_nothing_for_the_class() {
    let mut situation = with_a_new_image();
    assert_eq!(ends_of(&mut situation, "im-2", 1..4).0, 0);
    situation.observed.images.insert(ClassName::new("default"), ImageState::Ready(ImageId::new("im-1")));
    assert_eq!(ends_of(&mut situation, "im-2", 4..20), (0, Vec::new()));
}

#[test]
fn where_the_image_before_does_not_start_either_the_new_one_is_tried_again_and_the_class_waits() {
    let mut situation = with_a_new_image();
    let class = ClassName::new("default");
    let is_held = |situation: &Situation| {
        situation.evidence.images.held_until(&class, &ImageId::new("im-2"), now() + TimeDelta::seconds(60)).is_some()
    };
    ends_of(&mut situation, "im-2", 1..4);
    assert!(is_held(&situation));
    situation.observed.images.insert(class.clone(), ImageState::Ready(ImageId::new("im-1")));
    assert_eq!(ends_of(&mut situation, "im-1", 4..6), (2, Vec::new()));
    assert!(is_held(&situation));
    assert_eq!(ends_of(&mut situation, "im-1", 6..7).0, 3);
    assert!(!is_held(&situation), "it is not to blame");
    // Nothing starts that anybody has yet: the breaker stays open whichever image is tried.
    situation.observed.images.insert(class.clone(), ImageState::Ready(ImageId::new("im-2")));
    let (failed, held) = ends_of(&mut situation, "im-2", 7..8);
    assert_eq!((failed, held), (3, vec![ImageId::new("im-2")]), "what was under way with the others counts with them");
}

#[test]
fn what_we_ended_ourselves_was_not_taken_away() {
    let mut situation = Situation::parse("sandbox 1-1 acme/web starting 600s labels=modal,gpu:t4 terminated=30s");
    let sandbox = situation.observed.fleet.sandboxes.values_mut().next().unwrap();
    let result = SandboxResult { status: SandboxEnd::Terminated, exit_code: 0, message: String::new() };
    sandbox.ended = Some(Ended { at: now(), result: Some(result) });
    let learned = situation.evidence.learn(&situation.observed, &situation.policy, &[], now());
    assert_eq!(learned.ends[0].2, "terminated");
    assert_eq!(situation.evidence.failed_starts.len(), 1);
}

/// Has every sandbox of a situation end so, and learns it.
fn end(situation: &mut Situation, status: SandboxEnd, exit_code: i32) -> Vec<&'static str> {
    for sandbox in situation.observed.fleet.sandboxes.values_mut() {
        let result = SandboxResult { status, exit_code, message: String::new() };
        sandbox.ended = Some(Ended { at: now(), result: Some(result) });
    }
    let learned = situation.evidence.learn(&situation.observed, &situation.policy, &[], now());
    learned.ends.iter().map(|(_, _, reason)| *reason).collect()
}

#[test]
fn only_what_ran_or_may_yet_have_started_is_taken_away() {
    let reason = |sandbox: &str| {
        let mut situation = Situation::parse(&format!("sandbox 1-1 acme/web {sandbox} labels=modal,gpu:t4"));
        end(&mut situation, SandboxEnd::Terminated, 0)
    };
    assert_eq!(reason("starting 180s"), ["preempted"]);
    assert_eq!(reason("starting 181s"), ["terminated"], "any controller would end it");
    assert_eq!(reason("idle 600s"), ["preempted"]);
    assert_eq!(reason("claimed 600s"), ["preempted"]);
    assert_eq!(reason("starting 180s fenced=30s"), ["terminated"], "the answer to the terminate was lost");
}

/// GitHub confirmed that it sends no more work to the runner `7-1`.
fn deregistered(reason: DeregisterReason) -> Outcome {
    deregistered_as("7-1", reason)
}

fn deregistered_as(which: &str, reason: DeregisterReason) -> Outcome {
    let effect = Effect::Deregistered { name: name(which), runner: RunnerId(8), reason };
    Outcome { action: "deregister", reason: reason.as_str(), effect, took: Duration::ZERO }
}

#[test]
fn what_modal_refuses_is_not_waited_for_where_it_is_short_of_all() {
    let mut situation = Situation::parse("fallback a100; job 7 acme/web queued labels=modal,gpu:t4");
    for age in [700, 0] {
        let late = format!("sandbox 9-9 acme/web unscheduled {}s labels=modal,gpu:t4 seen={age}s", age + 130);
        let observed = Situation::parse(&late).observed;
        situation.evidence.learn(&observed, &situation.policy, &[], now() - TimeDelta::seconds(age));
    }
    let failure = CallFailure { class: ErrorClass::Forbidden, message: "no".into(), retry_after: None };
    let machine = Machine { gpu: Gpu::parse("a100"), regions: Vec::new() };
    let origin = Origin { class: ClassName::new("gpu:t4"), machine, ..origin() };
    let effect = Effect::CreateFailed { name: name("7-1"), origin, runner: RunnerId(1), failure };
    learn(&mut situation, &[Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }], 0);
    // The A100 may be tried again in ten minutes, the T4 that was missing twice in twenty.
    assert!(situation.plan().to_string().ends_with("on T4\n"), "{}", situation.plan());
}

const WAITS: &str =
    "job 7 acme/web queued labels=modal,gpu:t4; sandbox 7-1 acme/web unscheduled 600s labels=modal,gpu:t4 tagged";

#[test]
fn an_attempt_that_modal_never_placed_counts_unless_the_next_has_a_machine_that_modal_is_not_short_of() {
    let fruitless = |fallback: &str, short: &str| {
        let mut situation = Situation::parse(&format!("{fallback}{WAITS}; {short}"));
        learn(&mut situation, &[deregistered(DeregisterReason::NoCapacity)], 0);
        assert!(end(&mut situation, SandboxEnd::Terminated, 0).contains(&"no_capacity"));
        situation.evidence.jobs[&JobId(7)].fruitless
    };
    assert_eq!(fruitless("", ""), 1);
    assert_eq!(fruitless("fallback a100; ", ""), 0);
    let short = "sandbox 9-1 acme/web unscheduled 600s labels=modal,gpu:t4 on=a100";
    assert_eq!(fruitless("fallback a100; ", short), 1, "Modal is short of both");
}

#[test]
fn a_waiting_sandbox_that_somebody_else_ends_is_taken_for_a_machine_lost_and_counted() {
    let text = format!("fallback a100; {}", WAITS.replace("600s", "60s"));
    let mut situation = Situation::parse(&text);
    learn(&mut situation, &[], 0);
    assert_eq!(end(&mut situation, SandboxEnd::Terminated, 0), ["preempted"]);
    let job = &situation.evidence.jobs[&JobId(7)];
    assert_eq!((job.fruitless, job.machines_lost), (0, 1));
}

#[test]
fn a_sandbox_that_is_placed_once_it_is_given_up_tells_nothing() {
    for is_restarted in [false, true] {
        for (reason, expected, fruitless) in [
            (DeregisterReason::NoCapacity, "no_capacity", 0),
            (DeregisterReason::FailedStart, "registration_failed", 1),
        ] {
            let mut situation = Situation::parse(WAITS);
            learn(&mut situation, &[deregistered(reason)], 0);
            if is_restarted {
                let settings = Fingerprint::of("settings");
                let text = encode(&situation.evidence, settings).unwrap();
                situation.evidence = decode(text.as_bytes(), settings, now()).unwrap();
            }
            situation.observed.fleet.sandboxes.values_mut().for_each(|sandbox| sandbox.is_scheduled = true);
            assert_eq!(end(&mut situation, SandboxEnd::Failure, 66), [expected]);
            assert_eq!(situation.evidence.jobs[&JobId(7)].fruitless, fruitless);
            assert_eq!(situation.evidence.failed_starts.len(), usize::try_from(fruitless).unwrap());
        }
    }
}

#[test]
fn machines_that_are_taken_away_are_no_fruitless_attempts_and_bounded_all_the_same() {
    let mut situation = Situation::parse("job 7 acme/web queued labels=modal,gpu:t4");
    for attempt in 1..=10 {
        let plan = situation.plan().to_string();
        assert!(plan.starts_with(&format!("create sr-main-gh-7-{attempt} ")), "{plan}");
        let text = format!("sandbox 7-{attempt} acme/web idle 60s labels=modal,gpu:t4");
        let sandboxes = Situation::parse(&text);
        situation.observed.fleet.sandboxes = sandboxes.observed.fleet.sandboxes;
        situation.evidence.names = sandboxes.evidence.names;
        assert_eq!(end(&mut situation, SandboxEnd::Terminated, 0), ["preempted"]);
        assert_eq!(situation.evidence.jobs[&JobId(7)].fruitless, 0);
        // It is known since that the job is still queued.
        situation.observed.fleet.sandboxes.clear();
    }
    let plan = situation.plan().to_string();
    assert_eq!(
        plan.trim(),
        "skip job 7 of acme/web: 10 machines of Modal's failed or were taken away under runners for it"
    );
}

#[test]
fn a_machine_to_fall_back_to_that_modal_refuses_is_passed_over() {
    use ErrorClass::{Forbidden, Invalid, NotFound};

    let on = |gpu: &str| Machine { gpu: Gpu::parse(gpu), regions: Vec::new() };
    // After refusals of a machine so many seconds from now, and how often the job has failed to start by then.
    let after = |gpu: &str, class: ErrorClass, refusals: &[i64]| {
        let mut situation = Situation::parse("fallback a100,l4; job 7 acme/web queued labels=modal,gpu:t4");
        // Modal is short of the first choice.
        let late = "sandbox 9-9 acme/web unscheduled 130s labels=modal,gpu:t4";
        situation.evidence.learn(&Situation::parse(late).observed, &situation.policy, &[], now());
        let failure = CallFailure { class, message: "no".into(), retry_after: None };
        let origin = Origin { class: ClassName::new("gpu:t4"), machine: on(gpu), ..origin() };
        let effect = Effect::CreateFailed { name: name("7-1"), origin, runner: RunnerId(1), failure };
        for at in refusals {
            let effect = effect.clone();
            learn(&mut situation, &[Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }], *at);
        }
        let plan = situation.plan().to_string();
        let creates = if plan.ends_with("on L4\n") { "on L4" } else { "nothing" };
        assert!(creates == "on L4" || plan.contains("Modal creates no sandbox: no"), "{plan}");
        (creates, situation.evidence.jobs[&JobId(7)].fruitless)
    };
    assert_eq!(after("a100", Forbidden, &[0]), ("on L4", 0));
    // An image that is gone or not built is refused likewise: that is looked at first.
    for class in [Invalid, NotFound] {
        assert_eq!(after("a100", class, &[0]), ("nothing", 1), "{class:?}");
        assert_eq!(after("a100", class, &[-600, 0]), ("on L4", 1), "{class:?}");
        assert_eq!(after("a100", class, &[-1, 0]), ("nothing", 2), "{class:?}: both were under way");
    }
    // Of its first choice the class lives, or does not.
    for class in [Forbidden, Invalid, NotFound] {
        assert_eq!(after("t4", class, &[-600, 0]), ("nothing", 2), "{class:?}");
    }
}

#[test]
fn a_sandbox_that_waits_for_the_workspaces_quota_tells_of_no_shortage() {
    let late = "fallback a100; sandbox 7-1 acme/web unscheduled 130s labels=modal,gpu:t4";
    let is_short = |quota: &str| {
        let mut situation = Situation::parse(&format!("{late}; {quota}"));
        learn(&mut situation, &[], 0);
        situation.evidence.has_shortages()
    };
    assert!(is_short(""));
    assert!(!is_short("gpu-quota 8 8 60s"));
    assert!(is_short("gpu-quota 7 8 60s"), "there is room");
    assert!(is_short("gpu-quota 8 8 120s"), "it was read too long ago");
}

#[test]
fn creates_refused_together_are_one_failure_in_a_row() {
    let mut situation = Situation::parse("job 7 acme/web queued");
    let outcomes: Vec<Outcome> = (1..=20).map(|job| refused(job, ErrorClass::RateLimited)).collect();
    learn(&mut situation, &outcomes, 1);
    assert_eq!(situation.evidence.create_failures.values().next().unwrap().failures, 1);
    learn(&mut situation, &[refused(21, ErrorClass::RateLimited)], 60);
    assert_eq!(situation.evidence.create_failures.values().next().unwrap().failures, 2);
}

/// Refused because there is no more room: Modal does not tell for how long.
fn without_room(job: u32) -> Outcome {
    let mut outcome = refused(job, ErrorClass::RateLimited);
    if let Effect::CreateFailed { failure, .. } = &mut outcome.effect {
        failure.retry_after = None;
    }
    outcome
}

#[test]
fn creates_are_held_to_what_modal_had_room_for_and_one_more_is_tried_after_a_pause() {
    let three = "sandbox 1-1 acme/web idle 9s; sandbox 2-1 acme/web idle 9s; sandbox 3-1 acme/web idle 9s";
    let mut situation = Situation::parse(three);
    let refusals: Vec<Outcome> = (11..=30).map(without_room).collect();
    learn(&mut situation, &refusals, 1);
    let admits = |situation: &Situation, after: i64| {
        situation.evidence.ceiling().map(|ceiling| ceiling.admits(now() + TimeDelta::seconds(after)))
    };
    assert!(situation.evidence.create_failures.is_empty(), "an end makes room at once");
    assert_eq!([5, 6].map(|after| admits(&situation, after)), [Some(3), Some(4)]);
    learn(&mut situation, &[without_room(31)], 6);
    assert_eq!([15, 16].map(|after| admits(&situation, after)), [Some(3), Some(4)], "the pause grows");
    // A fourth fits: more are tried at once.
    situation.observed = Situation::parse(&format!("{three}; sandbox 4-1 acme/web starting 1s")).observed;
    learn(&mut situation, &[], 17);
    assert_eq!(admits(&situation, 17), Some(6));
    learn(&mut situation, &[], 1_900);
    assert_eq!(admits(&situation, 1_900), None, "it is too old to say anything");
}

#[test]
fn where_modal_has_no_room_only_what_needs_a_gpu_is_created() {
    let mut refused = Situation::parse("sandbox 1-1 acme/web claimed 9s; sandbox 2-1 acme/web claimed 9s");
    learn(&mut refused, &[without_room(11)], 1);
    let plan = |text: &str| {
        let mut situation = refused.clone();
        let Situation { observed, evidence, .. } = Situation::parse(text);
        situation.observed = observed;
        (situation.evidence.names, situation.evidence.jobs) = (evidence.names, evidence.jobs);
        situation.plan().to_string()
    };
    let one = "sandbox 1-1 acme/web claimed 9s; job 7 acme/web queued";
    let create = "create sr-main-gh-7-1 for job 7 of acme/web: class";
    assert!(plan(one).starts_with(create), "{}", plan(one));
    for more in ["2-1", "2-1 acme/web claimed 9s; sandbox 3-1"] {
        let plan = plan(&format!("sandbox {more} acme/web claimed 9s; {one}"));
        assert!(plan.contains("Modal has room for 2 sandboxes"), "{plan}");
        assert!(!plan.contains("create"), "{plan}");
    }
    let gpu = plan(&format!("sandbox 2-1 acme/web claimed 9s; {one} labels=modal,gpu:t4"));
    assert!(gpu.starts_with(create), "{gpu}");
}

#[test]
fn where_sandboxes_end_more_room_is_believed_only_if_one_list_shows_more() {
    let ended = "sandbox 9-1 acme/web ended=0 10s;";
    let three = "sandbox 1-1 acme/web idle 9s; sandbox 2-1 acme/web idle 9s; sandbox 3-1 acme/web idle 9s;";
    let four = format!("{three} sandbox 4-1 acme/web idle 9s;");
    let mut situation = Situation::parse(three);
    let mut learns = |text: &str, list: i64, outcomes: &[Outcome], after: i64| {
        situation.observed = Situation::parse(text).observed;
        situation.observed.fleet.read.succeeded(now() + TimeDelta::seconds(list));
        learn(&mut situation, outcomes, after);
        situation.evidence.ceiling().map(|ceiling| ceiling.admits(now() + TimeDelta::seconds(after)))
    };
    assert_eq!(learns(three, 0, &[without_room(11)], 0), Some(3));
    // One of the three may have ended since the list, and the fourth come in its place.
    assert_eq!(learns(&format!("{ended} {four}"), -1, &[], 5), Some(4));
    assert_eq!(learns(&format!("{ended} {four}"), -1, &[without_room(12)], 5), Some(3));
    assert_eq!(learns(&format!("{ended} {four}"), 0, &[], 20), Some(6), "one list shows all four");
    assert_eq!(learns(three, 0, &[without_room(13)], 20), Some(3), "others need room, too");
    assert_eq!(learns(&four, -1, &[], 25), Some(4), "none ends");
}

#[test]
fn a_refused_create_counts_as_an_attempt_unless_it_only_came_too_early() {
    let mut situation = Situation::parse("job 7 acme/web queued; job 8 acme/web queued");
    learn(&mut situation, &[refused(7, ErrorClass::Invalid), refused(8, ErrorClass::RateLimited)], 1);
    let fruitless: Vec<u32> = situation.evidence.jobs.values().map(|job| job.fruitless).collect();
    assert_eq!(fruitless, [1, 0]);
}

#[test]
fn what_stays_in_view_is_not_forgotten() {
    let mut situation = Situation::parse("job 7 acme/web queued; fruitless 7 3 10s");
    learn(&mut situation, &[], 1);
    learn(&mut situation, &[], 7_200);
    assert_eq!(situation.evidence.jobs.values().next().unwrap().fruitless, 3);
    situation.observed.repos.clear();
    learn(&mut situation, &[], 14_400);
    assert!(situation.evidence.jobs.is_empty());
}

#[test]
fn a_runner_of_somebody_elses_with_the_highest_number_does_no_harm() {
    let text =
        "runner 7-4294967295 acme/web offline; sandbox 7-4294967295 acme/web ended=64 600s; job 7 acme/web queued";
    let mut situation = Situation::parse(text);
    for _ in 0..3 {
        learn(&mut situation, &[], 600);
        let _ = situation.plan();
    }
    assert_eq!(situation.evidence.jobs.values().map(|job| job.attempt).max(), Some(u32::MAX));
}

#[test]
fn two_readings_of_both_lists_agree_however_far_apart_the_lists_are_read() {
    let mut situation = Situation::parse("runner 7-1 acme/web offline 10s");
    situation.evidence.names.clear();
    let mut read = |runners: i64, fleet: i64| {
        let at = |seconds| now() + TimeDelta::seconds(seconds);
        situation.registry("acme/web").runners_read.succeeded(at(runners));
        situation.observed.fleet.read.succeeded(at(fleet));
        learn(&mut situation, &[], runners + 1);
        situation.evidence.names[&name("7-1")].stale.map(|agreement| agreement.is_firm())
    };
    // It was not known yet when Modal was read, which may have its sandbox by now.
    assert_eq!(read(10, 0), None);
    assert_eq!(read(110, 15), Some(false));
    assert_eq!(read(210, 15), Some(false), "one reading of Modal's list is one reading");
    assert_eq!(read(310, 169), Some(false), "59 s after the later one of the first two");
    assert_eq!(read(410, 170), Some(true));
}

#[test]
fn readings_agree_a_minute_after_the_answer_to_the_first() {
    let mut situation = Situation::parse("runner 7-1 acme/web offline; sandbox 7-1 acme/web starting 20s");
    situation.evidence.names.clear();
    let mut read = |began: i64, answered: i64| {
        let at = |seconds| now() + TimeDelta::seconds(seconds);
        situation.registry("acme/web").runners_read.answered(ReadTimes { began: at(began), answered: at(answered) });
        learn(&mut situation, &[], answered);
        situation.evidence.names[&name("7-1")].never_online.map(|agreement| agreement.is_firm())
    };
    assert_eq!(read(10, 25), Some(false));
    assert_eq!(read(84, 84), Some(false), "59 s after the answer");
    assert_eq!(read(85, 85), Some(true));
}

#[test]
fn a_registration_of_ours_is_as_old_as_its_making() {
    let registered_at = |outcome: Outcome| {
        let mut situation = Situation::parse("job 7 acme/web queued");
        learn(&mut situation, &[outcome], 1);
        situation.evidence.names[&name("7-1")].registered_at
    };
    let failed = refused(7, ErrorClass::Unavailable);
    let Effect::CreateFailed { name, origin, runner, failure } = failed.effect.clone() else { unreachable!() };
    let effect = Effect::MaybeCreated { name, origin, runner, failure };
    assert_eq!(registered_at(failed.clone()), Some(now() + TimeDelta::seconds(1)));
    assert_eq!(registered_at(Outcome { effect, ..failed }), Some(now() + TimeDelta::seconds(1)));
}

#[test]
fn what_a_create_left_is_not_forgotten_before_a_list_that_would_show_it() {
    let at = |seconds| now() + TimeDelta::seconds(seconds);
    let mut situation = Situation::parse("job 7 acme/web queued");
    situation.evidence.started(&name("7-1"), &origin(), now());
    learn(&mut situation, &[refused(7, ErrorClass::Invalid)], 1);
    learn(&mut situation, &[], 7_200);
    assert!(situation.evidence.names.contains_key(&name("7-1")));
    situation.registry("acme/web").runners_read.succeeded(at(7_300));
    learn(&mut situation, &[], 7_301);
    assert!(!situation.evidence.names.contains_key(&name("7-1")));
    let mut situation = Situation::parse("runner 7-1 acme/web offline");
    learn(&mut situation, &[], 1);
    let known = situation.evidence.names[&name("7-1")].registered_at;
    learn(&mut situation, &[], 7_200);
    assert_eq!(situation.evidence.names[&name("7-1")].registered_at, known, "the last list shows it");
}

/// A controller that had lost what it knew used the name `7-1` again, for a registration with the id 9.
fn created_again() -> Outcome {
    let Effect::CreateFailed { name, origin, .. } = refused(7, ErrorClass::Invalid).effect else { unreachable!() };
    let (runner, sandbox) = (RunnerId(9), sandrunner::ids::SandboxId::new("sb-new"));
    let image = ImageId::new("im-1");
    let effect = Effect::Created { name, origin, runner, sandbox, task: None, secret: None, image };
    Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }
}

#[test]
fn a_job_of_an_earlier_registration_of_the_name_is_no_claim() {
    let mut before = Situation::parse("job 7 acme/web queued; job 8 acme/web in_progress runner=7-1");
    let mut job = |runner: u64| {
        let run = before.observed.repos.values_mut().next().unwrap().runs.values_mut().next().unwrap();
        run.jobs.values_mut().find(|job| job.runner_name.is_some()).unwrap().runner_id = Some(RunnerId(runner));
        before.clone()
    };
    let claim = |situation: &Situation| situation.evidence.names[&name("7-1")].claim.map(|claim| claim.job.0);
    for (runner, expected) in [(5, None), (9, Some(8))] {
        // Whether the jobs are read after the create was answered, or before.
        let mut after = job(runner);
        learn(&mut after, &[created_again()], 1);
        assert_eq!(claim(&after), expected, "runner {runner}");
        let mut before = job(runner);
        learn(&mut before, &[], 1);
        assert_eq!(claim(&before), Some(8), "runner {runner}");
        learn(&mut before, &[created_again()], 2);
        assert_eq!(claim(&before), expected, "runner {runner}");
    }
}

#[test]
fn another_registration_of_a_name_is_known_for_as_long_as_it_is_there() {
    let mut situation = Situation::parse("runner 7-1 acme/web online");
    situation.evidence.names.clear();
    let mut read = |id: u64, after: i64| {
        let registry = situation.registry("acme/web");
        registry.runners.values_mut().next().unwrap().id = RunnerId(id);
        registry.runners_read.succeeded(now() + TimeDelta::seconds(after));
        learn(&mut situation, &[], after);
        situation.evidence.names[&name("7-1")].registered_at.map(|at| (at - now()).num_seconds())
    };
    assert_eq!(read(4, 10), Some(10));
    assert_eq!(read(4, 70), Some(10));
    assert_eq!(read(8, 130), Some(130));
}

#[test]
fn a_word_of_github_s_that_is_not_known_proves_neither_that_a_runner_works_nor_that_it_does_not() {
    let mut situation = Situation::parse("runner 7-1 acme/web offline; sandbox 7-1 acme/web starting 20s");
    situation.evidence.names.clear();
    let mut read = |connection: Connection, after: i64| {
        let registry = situation.registry("acme/web");
        registry.runners.values_mut().next().unwrap().connection = connection;
        registry.runners_read.succeeded(now() + TimeDelta::seconds(after));
        learn(&mut situation, &[], after);
        let known = &situation.evidence.names[&name("7-1")];
        (known.online_at.is_some(), known.never_online.is_some_and(|agreement| agreement.is_firm()))
    };
    assert_eq!(read(Connection::Offline, 10), (false, false));
    assert_eq!(read(Connection::Unknown, 40), (false, false));
    assert_eq!(read(Connection::Offline, 80), (false, false), "the readings do not agree");
    assert_eq!(read(Connection::Offline, 140), (false, true));
    assert_eq!(read(Connection::Online, 150), (true, false));
}

#[test]
fn secrets_that_ended_sandboxes_left_are_deleted_each_by_its_own_id() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web idle 90s secret");
    let left = |age: i64| EndedSecret { name: name("7-1"), created_at: now() - TimeDelta::seconds(age) };
    // The name was used before, and the sandbox of then left its Secret; one may still be stored.
    let ended = [("st-0", 300), ("st-1", 90), ("st-2", 59)];
    situation.observed.fleet.ended_secrets =
        ended.into_iter().map(|(id, age)| (SecretId::new(id), left(age))).collect();
    let deletes = |situation: &Situation| {
        let ids = situation.plan().actions.into_iter().filter_map(|action| match action {
            Action::DeleteSecret { secret, .. } => Some(secret.to_string()),
            Action::Create(_) | Action::PrepareImage { .. } | Action::Deregister { .. } | Action::Terminate { .. } => {
                None
            }
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(deletes(&situation), ["st-0", "st-1"]);
    let effect = |id: &str, found| {
        let effect = Effect::SecretDeleted { name: name("7-1"), secret: SecretId::new(id), found };
        Outcome { action: "delete_secret", reason: "read", effect, took: Duration::ZERO }
    };
    learn(&mut situation, &[effect("st-0", Deletion::Done), effect("st-1", Deletion::NotThere)], 0);
    assert_eq!(deletes(&situation), [""; 0], "one that is not found is looked for once more, later");
    learn(&mut situation, &[], 120);
    let later = sandrunner::plan::plan(
        &situation.observed,
        &situation.evidence,
        &situation.policy,
        now() + TimeDelta::seconds(60),
    );
    assert_eq!(later.actions.len(), 2, "{later}");
}

#[test]
fn a_sandbox_says_with_which_registration_it_was_made() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web failed 400s tagged fenced=200s");
    let known = situation.evidence.names.get_mut(&name("7-1")).unwrap();
    known.runner_id = Some(RunnerId(3));
    learn(&mut situation, &[], 1);
    // What was proven is of the registration before: the sandbox's is 8.
    let known = &situation.evidence.names[&name("7-1")];
    assert_eq!((known.runner_id, known.fenced_at), (Some(RunnerId(8)), None));
    // A list from before the name was used again changes nothing.
    let mut listed = Situation::parse("sandbox 7-1 acme/web starting 20s tagged; runner 7-1 acme/web busy");
    listed.evidence = situation.evidence.clone();
    listed.registry("acme/web").runners_read.succeeded(now() + TimeDelta::seconds(2));
    learn(&mut listed, &[], 3);
    let known = &listed.evidence.names[&name("7-1")];
    assert_eq!((known.runner_id, known.busy_at), (Some(RunnerId(8)), None));
}

#[test]
fn a_registration_is_kept_until_modal_said_twice_that_it_knows_no_secret_of_it() {
    let mut situation =
        Situation::parse("runner 7-1 acme/web offline 400s stale; runner 8-1 acme/web offline 400s stale");
    // One of a class without a GPU never had a Secret.
    let Effect::Created { origin, .. } = created_again().effect else { unreachable!() };
    situation.evidence.names.get_mut(&name("8-1")).unwrap().origin = Some(origin);
    let looks = |situation: &Situation, after: i64| {
        let now = now() + TimeDelta::seconds(after);
        let plan = sandrunner::plan::plan(&situation.observed, &situation.evidence, &situation.policy, now);
        let looks = plan.actions.into_iter().filter_map(|action| match action {
            Action::Deregister { name, secret, .. } => Some((name.job.0, secret)),
            Action::Create(_)
            | Action::PrepareImage { .. }
            | Action::DeleteSecret { .. }
            | Action::Terminate { .. } => None,
        });
        looks.collect::<Vec<_>>()
    };
    assert_eq!(looks(&situation, 0), [(7, SecretLook::First), (8, SecretLook::None)]);
    let effect = Effect::SecretDenied { name: name("7-1"), runner: RunnerId(1) };
    learn(&mut situation, &[Outcome { action: "deregister", reason: "stale", effect, took: Duration::ZERO }], 1);
    assert_eq!(looks(&situation, 60), [(8, SecretLook::None)]);
    assert_eq!(looks(&situation, 61), [(7, SecretLook::Again), (8, SecretLook::None)]);
}

#[test]
fn a_job_whose_runner_of_ours_lives_or_has_served_is_not_queued_again() {
    let plan = |sandbox: &str, advanced: &str| {
        let text = format!("sandbox 7-1 acme/web {sandbox} 300s; job 8 acme/web queued advanced={advanced}");
        let mut situation = Situation::parse(&text);
        situation.evidence.jobs.values_mut().for_each(|job| job.taken_by = Some(name("7-1")));
        situation.plan().to_string()
    };
    assert!(!plan("claimed", "100s").contains("create"), "{}", plan("claimed", "100s"));
    assert!(plan("claimed", "601s").contains("create sr-main-gh-8-1"), "{}", plan("claimed", "601s"));
    assert!(!plan("ended=0", "100s").contains("create"), "{}", plan("ended=0", "100s"));
    assert!(plan("ended=0", "601s").contains("create sr-main-gh-8-1"), "{}", plan("ended=0", "601s"));
    assert!(plan("ended=66", "100s").contains("create sr-main-gh-8-1"), "{}", plan("ended=66", "100s"));
}

#[test]
fn a_sandbox_may_have_served_although_another_one_has_its_name_now() {
    let creates = |jobs: &str, before: &str, sandbox: &str| {
        let with = |sandbox: &str| Situation::parse(&format!("{jobs}; sandbox 7-1 acme/web {sandbox}"));
        let mut situation = with(sandbox);
        situation.observed.fleet.replaced = with(before).observed.fleet.sandboxes;
        situation.plan().to_string().matches("create ").count()
    };
    let one = "job 7 acme/web queued; old-jobs 41s";
    let two = "job 7 acme/web queued; job 8 acme/web queued; old-jobs 41s";
    assert_eq!(creates(one, "ended=0 20s", "ended=66 1s"), 0);
    assert_eq!(creates(one, "ended=64 20s", "ended=66 1s"), 1, "it surely had none");
    assert_eq!(creates("job 7 acme/web queued; old-jobs 1s", "ended=0 20s", "ended=66 1s"), 1, "read since");
    assert_eq!(creates(two, "ended=0 20s", "starting 1s"), 1, "a name is one runner");
}

#[test]
fn one_reading_does_not_prove_that_a_runner_failed_to_start() {
    let plan = |apart: i64| {
        let mut situation = Situation::parse("job 7 acme/web queued; sandbox 7-1 acme/web failed 240s");
        let last = now();
        let readings = Agreement { first: last - TimeDelta::seconds(apart), last };
        situation.evidence.names.get_mut(&name("7-1")).unwrap().never_online = Some(readings);
        situation.plan().to_string()
    };
    assert!(!plan(59).contains("create"), "{}", plan(59));
    assert!(plan(60).contains("create"), "{}", plan(60));
}

#[test]
fn one_list_of_sandboxes_does_not_prove_that_a_runner_failed_to_start() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web starting 400s; runner 7-1 acme/web offline 400s");
    let mut is_deleted = |fleet: Option<i64>, after: i64| {
        if let Some(at) = fleet.map(|at| now() + TimeDelta::seconds(at)) {
            situation.observed.fleet.read.succeeded(at);
            situation.observed.fleet.sandboxes.values_mut().for_each(|sandbox| sandbox.seen_at = at);
        }
        let at = now() + TimeDelta::seconds(after);
        situation.registry("acme/web").runners_read.succeeded(at);
        learn(&mut situation, &[], after);
        let plan = sandrunner::plan::plan(&situation.observed, &situation.evidence, &situation.policy, at);
        plan.to_string().contains("deregister")
    };
    assert!(!is_deleted(None, 1));
    assert!(!is_deleted(None, 61), "the sandboxes were listed once");
    assert!(!is_deleted(Some(58), 62), "59 s apart");
    assert!(is_deleted(Some(61), 63));
}

#[test]
fn jobs_that_were_not_read_for_long_are_read_before_anything_is_created_for_them() {
    let plan = |age: &str| Situation::parse(&format!("job 7 acme/web queued; old-jobs {age}")).plan().to_string();
    assert!(plan("719s").contains("create sr-main-gh-7-1"), "{}", plan("719s"));
    assert!(!plan("720s").contains("create"), "{}", plan("720s"));
}

#[test]
fn a_registration_whose_mint_was_not_answered_may_be_another_s_while_another_is_about() {
    let mut situation = Situation::parse("job 7 acme/web queued; runner 7-1 acme/web offline 10s");
    let Effect::Created { origin, .. } = created_again().effect else { unreachable!() };
    let known = situation.evidence.names.entry(name("7-1")).or_default();
    known.registered_at = Some(now() - TimeDelta::seconds(10));
    (known.origin, known.is_mint_unanswered) = (Some(origin.clone()), true);
    assert!(situation.plan().to_string().contains("create"), "alone, it is ours, and lost");
    let effect = Effect::NameTaken { name: name("9-1"), origin };
    learn(&mut situation, &[Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }], 0);
    assert!(!situation.plan().to_string().contains("create"), "{}", situation.plan());
}

#[test]
fn a_registration_of_a_name_that_was_refused_to_us_is_another_s() {
    let creates = |effect: Effect| {
        let mut situation = Situation::parse("job 7 acme/web queued; runner 7-1 acme/web offline");
        situation.evidence.started(&name("7-1"), &origin(), now());
        learn(&mut situation, &[Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }], 1);
        // The pause after the failure is over.
        situation.evidence.mint_failures.clear();
        situation.evidence.create_failures.clear();
        situation.plan().to_string().contains("create sr-main-gh-7-2")
    };
    let failure = |class| CallFailure { class, message: "no".into(), retry_after: None };
    let mint = |class| Effect::MintFailed { name: name("7-1"), origin: origin(), failure: failure(class) };
    for class in [ErrorClass::Unauthorized, ErrorClass::NotFound, ErrorClass::RateLimited, ErrorClass::Unsent] {
        assert!(!creates(mint(class)), "{class:?}");
        let effect = Effect::NotPrepared { name: name("7-1"), origin: origin(), failure: failure(class) };
        assert!(!creates(effect), "{class:?}");
    }
    assert!(creates(mint(ErrorClass::Unavailable)), "alone, it is ours, and lost");
}

#[test]
fn a_name_that_is_used_again_shows_that_there_is_another_process() {
    let creates = |beside: &str, known: u64| {
        let mut situation = Situation::parse(&format!("job 7 acme/web queued; runner 7-1 acme/web offline; {beside}"));
        let before = situation.evidence.names.get_mut(&name("6-1")).unwrap();
        (before.runner_id, before.registered_as) = (Some(RunnerId(known)), Some(RunnerId(known)));
        situation.evidence.started(&name("7-1"), &origin(), now());
        let failure = CallFailure { class: ErrorClass::Unavailable, message: "no".into(), retry_after: None };
        let effect = Effect::MintFailed { name: name("7-1"), origin: origin(), failure };
        learn(&mut situation, &[Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }], 1);
        situation.evidence.mint_failures.clear();
        situation.plan().to_string().contains("create sr-main-gh-7-2")
    };
    for (beside, registration) in [("sandbox 6-1 acme/web claimed 60s tagged", 8), ("runner 6-1 acme/web busy 600s", 1)]
    {
        assert!(creates(beside, registration), "{beside}");
        assert!(!creates(beside, 3), "{beside}: what was left of 7-1 may be another's as well");
    }
}

#[test]
fn a_registration_whose_sandbox_lives_is_kept_until_readings_agree_anew() {
    let mut situation = Situation::parse("runner 7-1 acme/web offline 400s stale");
    assert_eq!(situation.plan().to_string(), "deregister sr-main-gh-7-1 in acme/web: stale\n");
    let effect = Effect::StillLives { name: name("7-1"), runner: RunnerId(1) };
    learn(&mut situation, &[Outcome { action: "deregister", reason: "stale", effect, took: Duration::ZERO }], 1);
    assert_eq!(situation.plan().to_string(), "");
}

#[test]
fn one_list_that_lacks_a_registration_of_another_s_does_not_make_it_gone() {
    let mut situation = Situation::parse("job 7 acme/web queued; runner 7-1 acme/web offline 10s");
    assert!(!situation.plan().to_string().contains("create"), "{}", situation.plan());
    let view = situation.registry("acme/web");
    let (name, runner) = view.runners.pop_first().unwrap();
    view.missing.insert(name.clone(), (runner, now()));
    assert!(!situation.plan().to_string().contains("create"), "{}", situation.plan());
    // One that we deleted is gone.
    situation.evidence.names.get_mut(&name).unwrap().fenced_at = Some(now());
    assert!(situation.plan().to_string().contains("create"), "{}", situation.plan());
    situation.evidence.names.get_mut(&name).unwrap().fenced_at = None;
    situation.registry("acme/web").missing.clear();
    assert!(situation.plan().to_string().contains("create"), "{}", situation.plan());
}
