//! The text: what of the evidence is in it, and that no damage goes unnoticed.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::act::{Effect, Outcome};
use sandrunner::class::Machine;
use sandrunner::evidence::Evidence;
use sandrunner::evidence::kept::{LONGEST, Unusable, decode, encode};
use sandrunner::ids::{ClassName, Fingerprint, ImageId, JobId, Labels, RunId, RunnerId, SandboxId};
use sandrunner::state::{ImageState, Origin};
use serde_json::json;

use crate::situation::{Situation, name, now, scope};
use crate::{document, restarted, settings, told};

fn created(which: &str) -> Outcome {
    let origin = Origin {
        scope: scope("acme/web"),
        run: RunId(1),
        class: ClassName::new("default"),
        group: Labels::new(["modal"]).fingerprint(),
        machine: Machine::default(),
    };
    let effect = Effect::Created {
        name: name(which),
        origin,
        runner: RunnerId(5),
        sandbox: SandboxId::new("sb-1"),
        task: None,
        secret: None,
        image: ImageId::new("im-1"),
    };
    Outcome { action: "create", reason: "queued", effect, took: Duration::ZERO }
}

fn learn(situation: &mut Situation, outcomes: &[Outcome], at: DateTime<Utc>) {
    situation.evidence.learn(&situation.observed, &situation.policy, outcomes, at);
}

/// Jobs 7 to 9: one whose runner was made and took it, one that waits, one whose two runners served nothing.
fn learned() -> Evidence {
    let text = "job 7 acme/web queued; job 8 acme/web queued 40s; job 9 acme/web queued; fruitless 9 2 30s";
    let mut situation = Situation::parse(text);
    learn(&mut situation, &[created("7-1")], now() - TimeDelta::seconds(20));
    situation.observed = Situation::parse("sandbox 7-1 acme/web idle; job 7 acme/web in_progress runner=7-1").observed;
    let repo = situation.observed.repos.values_mut().next().unwrap();
    repo.runs.values_mut().for_each(|run| {
        run.jobs_read.succeeded(now() - TimeDelta::seconds(11));
        run.jobs.values_mut().for_each(|job| job.started_at = Some(now() - TimeDelta::seconds(12)));
    });
    learn(&mut situation, &[], now() - TimeDelta::seconds(10));
    situation.evidence
}

#[test]
fn ages_attempts_and_sightings_survive() {
    let before = learned();
    let after = restarted(&before);
    assert_eq!(after.jobs, before.jobs);
    assert_eq!(after.jobs[&JobId(8)].first_queued, now() - TimeDelta::seconds(40));
    assert_eq!((after.jobs[&JobId(9)].attempt, after.jobs[&JobId(9)].fruitless), (2, 2));
    let (was, is) = (&before.names[&name("7-1")], &after.names[&name("7-1")]);
    assert!(is.claim.is_some() && is.created_at.is_some() && is.origin.is_some());
    assert_eq!((is.claim, is.created_at), (was.claim, was.created_at));
    // For as long as it was in view; what passed since is the word of a clock that may have jumped.
    let in_view = was.registration_seen_at.zip(was.registered_at).map(|(last, first)| last - first);
    assert_eq!(is.registered_at.map(|at| now() - at), in_view);
    assert!(in_view.is_some());
    assert_eq!(is.origin, was.origin);
    assert_eq!((&after.parallel, &after.proven), (&before.parallel, &before.proven));
    assert!(!after.parallel.is_empty() && !after.proven.is_empty());
}

#[test]
fn when_a_class_last_started_survives() {
    let text = "sandbox 7-1 acme/web starting 60s; runner 7-1 acme/web online 30s; job 9 acme/web queued";
    let mut situation = Situation::parse(text);
    learn(&mut situation, &[], now());
    let after = restarted(&situation.evidence);
    assert_eq!(after.started_at, situation.evidence.started_at);
    assert_eq!(after.started_at[&ClassName::new("default")], now());
    assert_eq!(after.names[&name("7-1")].start_learned_at, Some(now()));
}

#[test]
fn what_brings_a_deletion_nearer_does_not_survive() {
    let text = "runner 7-1 acme/web offline 600s stale fenced=100s; sandbox 8-1 acme/web failed 600s";
    let mut before = Situation::parse(text).evidence;
    let known = before.names.get_mut(&name("7-1")).unwrap();
    (known.runner_id, known.terminated_at) = (Some(RunnerId(5)), Some(now()));
    assert!(known.stale.is_some() && known.fenced_at.is_some());
    assert!(before.names[&name("8-1")].has_failed_to_start());
    for known in restarted(&before).names.values() {
        assert_eq!((known.runner_id, known.stale, known.never_online, known.living), (None, None, None, None));
        assert_eq!((known.fenced_at, known.terminated_at), (None, None));
    }
}

#[test]
fn the_end_of_a_sandbox_is_counted_once_over_a_restart() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web ended=66 60s");
    learn(&mut situation, &[], now());
    assert_eq!(situation.evidence.jobs[&JobId(7)].fruitless, 1);
    situation.evidence = restarted(&situation.evidence);
    learn(&mut situation, &[], now());
    assert_eq!(situation.evidence.jobs[&JobId(7)].fruitless, 1);
}

#[test]
fn other_settings_give_a_job_and_an_image_a_new_chance() {
    let text = encode(&learned(), settings()).unwrap();
    let after = decode(text.as_bytes(), Fingerprint::of("other settings"), now()).unwrap();
    let job = &after.jobs[&JobId(9)];
    assert_eq!((job.attempt, job.fruitless, job.fruitless_at), (2, 0, None));
    assert!(after.proven.is_empty() && !after.parallel.is_empty());
}

#[test]
fn images_that_brought_runners_online_survive_whatever_the_settings_are() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web idle 5s image=im-1; runner 7-1 acme/web online 5s");
    learn(&mut situation, &[], now());
    let class = ClassName::new("default");
    let text = encode(&situation.evidence, settings()).unwrap();
    let after = decode(text.as_bytes(), Fingerprint::of("other settings"), now()).unwrap();
    assert_eq!(after.images.good(&class).unwrap().image, ImageId::new("im-1"));
    assert!(after.images.is_on_trial(&class, &ImageId::new("im-2")));
}

#[test]
fn what_kept_the_runners_of_an_image_may_be_mended_where_the_settings_are_others() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web idle 5s image=im-1; runner 7-1 acme/web online 5s");
    learn(&mut situation, &[], now());
    let class = ClassName::new("default");
    let ended = "sandbox 1-1 acme/web ended=66 5s image=im-2; sandbox 2-1 acme/web ended=66 5s image=im-2; \
                 sandbox 3-1 acme/web ended=66 5s image=im-2";
    situation.observed = Situation::parse(ended).observed;
    situation.observed.images.insert(class.clone(), ImageState::Ready(ImageId::new("im-2")));
    learn(&mut situation, &[], now());
    let text = encode(&situation.evidence, settings()).unwrap();
    let is_held = |settings| {
        let after = decode(text.as_bytes(), settings, now()).unwrap();
        after.images.held_until(&class, &ImageId::new("im-2"), now()).is_some()
    };
    assert_eq!((is_held(settings()), is_held(Fingerprint::of("other settings"))), (true, false));
}

#[test]
fn a_wave_that_grew_is_not_forgotten_before_the_runs_are_read() {
    let mut situation = Situation::parse("job 8 acme/web queued");
    situation.evidence = restarted(&learned());
    let mut read = situation.observed.clone();
    let repo = situation.observed.repos.values_mut().next().unwrap();
    repo.runs.clear();
    repo.runs_read = sandrunner::state::ReadState::default();
    learn(&mut situation, &[], now() + TimeDelta::seconds(90));
    assert_eq!(situation.evidence.parallel.values().sum::<u32>(), 1, "nothing was read yet");
    read.repos.values_mut().for_each(|repo| repo.runs.clear());
    situation.observed = read;
    learn(&mut situation, &[], now() + TimeDelta::seconds(200));
    assert!(situation.evidence.parallel.is_empty(), "the run was read and is gone");
}

#[test]
fn every_damage_is_noticed() {
    let text = encode(&learned(), settings()).unwrap().into_bytes();
    for index in 0..text.len() {
        for bit in 0..8 {
            let mut damaged = text.clone();
            damaged[index] ^= 1 << bit;
            let read = decode(&damaged, settings(), now());
            assert!(read.is_err(), "bit {bit} of byte {index}: {}", String::from_utf8_lossy(&damaged));
        }
        assert!(decode(&text[..index], settings(), now()).is_err(), "cut at {index}");
    }
}

#[test]
fn what_cannot_be_used_is_told_apart() {
    let read = |text: &[u8]| decode(text, settings(), now()).unwrap_err();
    assert_eq!(read(b""), Unusable::Empty);
    assert_eq!(read(&vec![b' '; LONGEST + 1]), Unusable::TooLong);
    assert_eq!(read(br#"{"version":1}"#), Unusable::Malformed { line: 1, column: 13 });
    assert_eq!(read(br#"{"version":1,"sha256":"","evidence":{}}"#), Unusable::Checksum);
    // A newer form may lack all that this one has.
    let newer = read(br#"{"version":2,"blake3":"","rows":[]}"#);
    assert_eq!((newer, newer.is_worthless()), (Unusable::Newer { version: 2 }, false));
    assert!([Unusable::Empty, Unusable::TooLong, Unusable::Checksum].into_iter().all(Unusable::is_worthless));
    assert!(read(b"\xff\xfe").is_worthless());
}

#[test]
fn fields_may_be_added_and_missing() {
    let evidence = told(json!({ "weather": "fine" }));
    assert!(evidence.jobs.is_empty() && evidence.names.is_empty());
    let job = json!({ "first_queued": now(), "attempt": 1, "fruitless": 0, "seen_at": now(), "mood": "bad" });
    let text = document(&json!({ "jobs": { "7": job }, "names": { "sr-main-gh-7-1": {} } }));
    let evidence = decode(&text, settings(), now()).unwrap();
    assert_eq!((evidence.jobs[&JobId(7)].attempt, evidence.names.len()), (1, 1));
}
