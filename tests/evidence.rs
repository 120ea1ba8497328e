//! What the evidence learns from readings and outcomes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "planner/situation.rs"]
mod situation;

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::act::{Effect, Outcome};
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::evidence::Agreement;
use sandrunner::ids::{Labels, RunId, RunnerId, SecretId};
use sandrunner::modal::Deletion;
use sandrunner::plan::{Action, SecretLook};
use sandrunner::state::{Connection, EndedSecret, Origin, ReadTimes};
use situation::{Situation, name, now, scope};

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
        class: sandrunner::ids::ClassName::new("default"),
        group: Labels::new(["modal"]).fingerprint(),
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
    let image = sandrunner::ids::ImageId::new("im-1");
    let effect = Effect::Created { name, origin, runner, sandbox, secret: None, image };
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
