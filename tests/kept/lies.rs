//! Whatever the text says, with the right checksum: it destroys nothing and holds nothing up for ever.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use sandrunner::evidence::Evidence;
use sandrunner::ids::{JobId, OurName, RunnerId};
use sandrunner::plan::{Action, DeregisterReason, Plan, SkipReason, TerminateReason, plan};
use sandrunner::state::{Connection, Runner};
use serde_json::{Value, json};

use crate::generate::{self, Size};
use crate::situation::{Situation, name, now};
use crate::{decode, encode, restarted, settings, told};

/// A time that suits whoever lies.
fn time(random: &mut fastrand::Rng) -> Value {
    let at = match random.u8(0..8) {
        0 => return Value::Null,
        1 => DateTime::UNIX_EPOCH,
        2 => now() - TimeDelta::days(1),
        3 => now() - TimeDelta::seconds(random.i64(0..400)),
        4 => now(),
        5 => now() + TimeDelta::seconds(random.i64(0..400)),
        6 => now() + TimeDelta::days(3_650),
        // The year 1.
        _ => DateTime::UNIX_EPOCH - TimeDelta::seconds(62_135_596_800),
    };
    json!(at)
}

fn some_time(random: &mut fastrand::Rng) -> Value {
    let time = time(random);
    if time.is_null() { json!(now() - TimeDelta::days(1)) } else { time }
}

fn count(random: &mut fastrand::Rng) -> u32 {
    [0, 1, 3, 7, u32::MAX][random.usize(0..5)]
}

/// Everything that may be said of a name, also what is never kept.
fn lie_about(name: &OurName, situation: &Situation, random: &mut fastrand::Rng) -> Value {
    let origin = situation.observed.fleet.sandboxes.get(name).map(|sandbox| json!(sandbox.origin));
    let agreement = json!({ "first": now() - TimeDelta::days(1), "last": now() });
    let claim = json!({ "job": name.job, "at": some_time(random) });
    let maybe = |random: &mut fastrand::Rng, value: Value| if random.bool() { value } else { Value::Null };
    json!({
        "origin": maybe(random, origin.unwrap_or(Value::Null)),
        "runner_id": 4_711,
        "registered_at": time(random),
        "registration_seen_at": time(random),
        "created_at": time(random),
        "online_at": if random.u8(0..4) == 0 { time(random) } else { Value::Null },
        "busy_at": if random.u8(0..4) == 0 { time(random) } else { Value::Null },
        "claim": if random.u8(0..4) == 0 { claim } else { Value::Null },
        "stale": agreement,
        "never_online": agreement,
        "living": agreement,
        "fenced_at": some_time(random),
        "terminated_at": maybe(random, json!(now())),
        "secret": if random.bool() { "MayExist" } else { "Deleted" },
        "ended_at": if random.bool() { some_time(random) } else { Value::Null },
        "seen_at": time(random),
    })
}

/// A text full of lies about everything that is there, and about some things that are not.
fn lies(situation: &Situation, seed: u64) -> Value {
    let mut random = fastrand::Rng::with_seed(seed);
    let listed = situation.observed.registries.values().flat_map(|view| view.runners.keys());
    let mut names: BTreeSet<OurName> = situation.observed.fleet.sandboxes.keys().chain(listed).cloned().collect();
    names.extend((1..20).map(|job| name(&format!("{job}-{}", random.u32(1..3)))));
    let about: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.to_string(), lie_about(name, situation, &mut random))).collect();
    let jobs: serde_json::Map<String, Value> = (1..150_u64)
        .map(|id| {
            let lie = json!({
                "first_queued": some_time(&mut random), "advanced_at": time(&mut random), "attempt": count(&mut random),
                "fruitless": count(&mut random), "fruitless_at": time(&mut random), "seen_at": some_time(&mut random),
            });
            (id.to_string(), lie)
        })
        .collect();
    json!({ "jobs": jobs, "names": about, "proven": ["default"] })
}

/// What a plan ends, apart from what Modal never placed on a machine: that is proven by Modal's list alone.
fn destroyed(plan: &Plan) -> Vec<&Action> {
    let is_destruction = |action: &&Action| match action {
        Action::Deregister { reason, .. } => *reason != DeregisterReason::NoCapacity,
        Action::Terminate { reason, .. } => *reason != TerminateReason::NoCapacity,
        Action::Create(_) | Action::PrepareImage { .. } | Action::DeleteSecret { .. } => false,
    };
    plan.actions.iter().filter(is_destruction).collect()
}

fn situations() -> impl Strategy<Value = (Situation, u64)> {
    (0_u64..60, 0_u64..60, 1_u64..5, any::<u64>())
        .prop_map(|(jobs, sandboxes, repos, seed)| (generate::situation(Size { jobs, sandboxes, repos }, seed), seed))
}

/// Everything was read again `after` the time of the situation.
fn read_again(situation: &mut Situation, after: TimeDelta) {
    let at = now() + after;
    situation.observed.fleet.read.succeeded(at);
    for repo in situation.observed.repos.values_mut() {
        repo.runs_read.succeeded(at);
        repo.runs.values_mut().for_each(|run| run.jobs_read.succeeded(at));
    }
    situation.observed.registries.values_mut().for_each(|view| view.runners_read.succeeded(at));
}

fn plan_at(situation: &Situation, after: TimeDelta) -> Plan {
    plan(&situation.observed, &situation.evidence, &situation.policy, now() + after)
}

fn learn_at(situation: &mut Situation, after: TimeDelta) {
    read_again(situation, after);
    situation.evidence.learn(&situation.observed, &situation.policy, &[], now() + after);
}

fn created(plan: &Plan) -> BTreeSet<JobId> {
    let creates = plan.actions.iter().filter_map(|action| match action {
        Action::Create(create) => Some(create.name.job),
        Action::PrepareImage { .. }
        | Action::Deregister { .. }
        | Action::Terminate { .. }
        | Action::DeleteSecret { .. } => None,
    });
    creates.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_lie_destroys_anything_before_two_readings_agree((mut situation, seed) in situations()) {
        situation.evidence = told(lies(&situation, seed));
        let at_once = plan_at(&situation, TimeDelta::zero());
        prop_assert_eq!(destroyed(&at_once), Vec::<&Action>::new());
        for after in [1, 30, 60] {
            learn_at(&mut situation, TimeDelta::seconds(after));
            let plan = plan_at(&situation, TimeDelta::seconds(after));
            prop_assert_eq!(destroyed(&plan), Vec::<&Action>::new(), "after {} s", after);
        }
    }

    #[test]
    fn no_lie_holds_a_job_up_for_longer_than_a_probe((mut situation, seed) in situations()) {
        situation.observed.fleet.sandboxes.clear();
        situation.observed.registries.values_mut().for_each(|view| view.runners.clear());
        (situation.policy.limits, situation.policy.waves.first) = (Situation::empty().policy.limits, 10_000);
        situation.policy.waves.first_gpu = 10_000;
        let proven = Situation::empty().evidence.proven;
        let later = TimeDelta::minutes(61);
        read_again(&mut situation, later);
        situation.evidence = Evidence::default();
        situation.evidence.proven.clone_from(&proven);
        let honest = created(&plan_at(&situation, later));
        situation.evidence = told(lies(&situation, seed));
        situation.evidence.proven = proven;
        let plan = plan_at(&situation, later);
        prop_assert_eq!(created(&plan), honest);
    }

    #[test]
    fn what_was_believed_once_is_kept_as_it_is((situation, seed) in situations()) {
        let believed = told(lies(&situation, seed));
        let text = encode(&believed, settings()).unwrap();
        prop_assert_eq!(encode(&restarted(&believed), settings()).unwrap(), text);
    }
}

#[test]
fn the_same_evidence_does_destroy_where_it_was_not_kept() {
    let (mut deregistered, mut terminated) = (0, 0);
    for seed in 0..50 {
        let situation = generate::situation(Size { jobs: 0, sandboxes: 60, repos: 2 }, seed);
        for action in destroyed(&situation.plan()) {
            if matches!(action, Action::Deregister { .. }) {
                deregistered += 1;
            } else {
                terminated += 1;
            }
        }
    }
    assert!(deregistered > 10 && terminated > 0, "{deregistered} and {terminated}: the property above shows nothing");
}

#[test]
fn of_the_grace_only_the_time_since_the_first_sighting_is_carried_over() {
    let mut situation = Situation::parse("runner 7-1 acme/web offline 400s stale");
    assert_eq!(destroyed(&situation.plan()).len(), 1);
    let mut fresh = situation.clone();
    situation.evidence = restarted(&situation.evidence);
    fresh.evidence = Evidence::default();
    let count = |situation: &mut Situation, after: i64| {
        learn_at(situation, TimeDelta::seconds(after));
        destroyed(&plan_at(situation, TimeDelta::seconds(after))).len()
    };
    // Two readings of this process, a minute apart, then also five minutes where nothing was kept.
    assert_eq!([1, 40, 62].map(|after| count(&mut situation, after)), [0, 0, 1]);
    assert_eq!([1, 40, 62, 200, 302].map(|after| count(&mut fresh, after)), [0, 0, 0, 0, 1]);
}

#[test]
fn a_clock_that_jumps_over_a_restart_makes_no_registration_older() {
    let mut situation = Situation::parse("runner 7-1 acme/web offline 0s");
    learn_at(&mut situation, TimeDelta::seconds(100));
    let text = encode(&situation.evidence, settings()).unwrap();
    for jump in [TimeDelta::days(-1), TimeDelta::zero(), TimeDelta::hours(1), TimeDelta::days(1)] {
        let began = now() + TimeDelta::seconds(100) + jump;
        let after = decode(text.as_bytes(), settings(), began).unwrap();
        let known = &after.names[&name("7-1")];
        assert_eq!(known.registered_at.map(|at| began - at), Some(TimeDelta::seconds(100)), "after {jump}");
    }
}

#[test]
fn a_create_whose_answer_was_not_seen_counts_for_its_time_after_a_restart() {
    let mut situation = Situation::parse("job 7 acme/web queued");
    let Action::Create(create) = situation.plan().actions[0].clone() else { panic!("{:?}", situation.plan()) };
    situation.evidence.started(&create.name, &create.origin, now());
    situation.evidence = restarted(&situation.evidence);
    // Its registration was made, its sandbox may be under way.
    let taken = create.name.to_string();
    let runner = Runner {
        id: RunnerId(5),
        name: taken,
        connection: Connection::Offline,
        is_busy: false,
        labels: None,
        version: None,
    };
    situation.registry("acme/web").runners.insert(create.name.clone(), runner);
    learn_at(&mut situation, TimeDelta::seconds(1));
    let soon = plan_at(&situation, TimeDelta::seconds(1));
    assert_eq!(soon.skips.first().map(|skip| &skip.reason), Some(&SkipReason::AlreadyServed), "{soon:?}");
    learn_at(&mut situation, TimeDelta::seconds(182));
    let later = plan_at(&situation, TimeDelta::seconds(182));
    let [Action::Create(again)] = &later.actions[..] else { panic!("{later:?}") };
    assert_eq!(again.name, name("7-2"), "the name that may be taken is not used again");
}
