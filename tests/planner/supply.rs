//! What counts as a runner that can take a job, and as room that is taken.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use sandrunner::class::{Risk, Risks};
use sandrunner::evidence::Claim;
use sandrunner::ids::{ClassName, JobId, RunId, RunnerId};
use sandrunner::plan::SandboxState;
use sandrunner::state::{Ended, SandboxEnd, SandboxResult};

use crate::situation::{Situation, name, now, scope};

/// The jobs that get a sandbox, in the order in which they do.
fn created(situation: &Situation) -> Vec<String> {
    let plan = situation.plan().to_string();
    let creates = plan.lines().filter_map(|line| line.strip_prefix("create sr-main-gh-"));
    creates.map(|rest| rest.split_once(' ').unwrap().0.to_owned()).collect()
}

fn creates(text: &str) -> Vec<String> {
    created(&Situation::parse(text))
}

/// With something else known of a name.
fn with(text: &str, about: &str, change: impl Fn(&mut sandrunner::evidence::NameEvidence)) -> Situation {
    let mut situation = Situation::parse(text);
    change(situation.evidence.names.get_mut(&name(about)).unwrap());
    situation
}

#[test]
fn a_job_whose_own_runner_waits_is_the_last_to_get_another() {
    let jobs = "job 5 acme/web queued; job 7 acme/web queued; job 9 acme/web queued";
    for own in ["creating 5-1 acme/web", "unsure 5-1 acme/web", "runner 5-1 acme/web offline 60s"] {
        assert_eq!(creates(&format!("{jobs}; {own}")), ["7-1", "9-1"], "{own}");
    }
    assert_eq!(creates(&format!("{jobs}; creating 7-1 acme/web")), ["5-1", "9-1"]);
    assert_eq!(creates(&format!("{jobs}; creating 9-1 acme/web")), ["5-1", "7-1"]);
    assert_eq!(creates(&format!("{jobs}; sandbox 7-1 acme/web idle 5s")), ["5-1", "9-1"]);
}

#[test]
fn a_runner_serves_runs_of_its_own_class_first() {
    let mut situation = Situation::parse(
        "job 7 acme/web queued; job 8 acme/web queued run=2; sandbox 6-1 acme/web idle 5s; sandbox 5-1 acme/web claimed 5s",
    );
    let mut open = situation.policy.classes.last().unwrap().clone();
    (open.name, open.admits) = (ClassName::new("open"), Risks::NONE.with(Risk::Fork));
    situation.observed.images.insert(open.name.clone(), situation.observed.images[&ClassName::new("default")].clone());
    situation.evidence.proven.insert(open.name.clone());
    situation.policy.classes.push(open.clone());
    let repo = situation.observed.repos.get_mut(&scope("acme/web")).unwrap();
    repo.runs.get_mut(&RunId(2)).unwrap().run.risks = open.admits;
    assert_eq!(created(&situation), ["8-1"]);
    situation.observed.fleet.sandboxes.get_mut(&name("6-1")).unwrap().origin.class = open.name;
    assert_eq!(created(&situation), ["7-1"]);
}

#[test]
fn repositories_of_an_organization_share_the_runners_of_one_label_set() {
    let text = "org acme; job 7 acme/api queued; job 8 acme/web queued; sandbox 6-1 acme/web idle 5s; \
                group acme/web";
    let mut situation = Situation::parse(text);
    let both = ["acme/api", "acme/web"].map(|repo| scope(repo).repo);
    let group = situation.registry("acme/web").group.as_mut().unwrap();
    group.admits = sandrunner::state::AdmittedRepos::Selected(both.into());
    assert_eq!(created(&situation), ["7-1"], "one is there for either");
}

#[test]
fn jobs_that_were_taken_since_account_for_runners_that_ended() {
    let ended = "job 7 acme/web queued; job 8 acme/web queued run=2; sandbox 6-1 acme/web ended=0 5s; old-jobs 20s";
    assert_eq!(creates(ended), ["7-1"], "one of them may be taken");
    assert_eq!(creates(&format!("{ended}; run 2 acme/web completed")), ["7-1"], "that one was");
    assert!(creates("job 7 acme/web queued; sandbox 6-1 acme/web ended=0 5s; old-jobs 20s").is_empty());
}

#[test]
fn every_queued_job_and_every_sandbox_is_counted_for_its_class() {
    let mut situation = Situation::parse(
        "job 7 acme/web queued; job 8 acme/web queued; job 9 acme/web queued labels=modal,gpu:t4; \
         sandbox 1-1 acme/web claimed 60s; sandbox 2-1 acme/web claimed 60s labels=modal,gpu:t4; \
         sandbox 3-1 acme/web claimed 60s",
    );
    situation.observed.fleet.sandboxes.get_mut(&name("3-1")).unwrap().origin.class = ClassName::new("old");
    let tally = situation.plan().tally;
    let queued = |class: &str| tally[&ClassName::new(class)].queued.values().sum::<u32>();
    assert_eq!((queued("default"), queued("gpu:t4")), (2, 1));
    let claimed = BTreeMap::from([(SandboxState::Claimed, 1)]);
    for class in ["default", "gpu:t4", "old"] {
        assert_eq!(tally[&ClassName::new(class)].sandboxes, claimed, "{class}");
    }
}

#[test]
fn states_have_the_names_that_metrics_show() {
    let names = SandboxState::ALL.map(SandboxState::as_str);
    assert_eq!(names, ["creating", "unscheduled", "starting", "idle", "claimed", "failed", "ending"]);
}

#[test]
fn a_registration_whose_sandbox_is_there_or_under_way_is_no_second_runner() {
    let jobs = "job 7 acme/web queued; job 8 acme/web queued";
    for own in ["sandbox 6-1 acme/web idle 5s", "creating 6-1 acme/web", "unsure 6-1 acme/web"] {
        let text = format!("{jobs}; {own}; runner 6-1 acme/web offline 10s");
        let unknown = with(&text, "6-1", |known| known.origin = None);
        assert_eq!(created(&unknown).len(), 1, "{own}");
    }
}

#[test]
fn a_runner_that_is_online_takes_no_more_room_where_its_sandbox_is_under_way() {
    for own in ["creating", "unsure"] {
        let text = format!(
            "limit 2; {own} 6-1 acme/web labels=modal,gpu:t4; runner 6-1 acme/web online 600s labels=modal,gpu:t4; \
             job 7 acme/web queued"
        );
        assert_eq!(creates(&text), ["7-1"], "{own}");
    }
}

#[test]
fn a_sandbox_that_ended_after_the_last_reading_may_have_had_a_job_unless_that_is_known() {
    let ended = |code: u8| format!("job 7 acme/web queued; sandbox 6-1 acme/web ended={code} 5s; old-jobs 20s");
    let claim = Claim { job: JobId(9), runner: None, at: now() };
    assert_eq!(created(&with(&ended(0), "6-1", |known| known.claim = Some(claim))), ["7-1"], "it had that one");
    assert!(created(&with(&ended(64), "6-1", |known| known.busy_at = Some(now()))).is_empty());
    assert!(created(&with(&ended(64), "6-1", |known| known.kept_at = Some(now()))).is_empty());
    assert_eq!(creates(&ended(64)), ["7-1"]);
}

#[test]
fn what_used_the_name_before_may_have_had_a_job_of_its_own() {
    let replaced = |runner: u64| {
        let claim = Claim { job: JobId(9), runner: None, at: now() };
        let text = "job 7 acme/web queued; sandbox 6-1 acme/web claimed 5s tagged; old-jobs 20s";
        let mut situation = with(text, "6-1", |known| known.claim = Some(claim));
        let mut before = situation.observed.fleet.sandboxes[&name("6-1")].clone();
        before.runner = Some(RunnerId(runner));
        let result = SandboxResult { status: SandboxEnd::Failure, exit_code: 137, message: String::new() };
        before.ended = Some(Ended { at: now() - TimeDelta::seconds(5), result: Some(result) });
        situation.observed.fleet.replaced.insert(name("6-1"), before);
        created(&situation)
    };
    assert_eq!(replaced(8), ["7-1"], "what is known is of that registration: its job is");
    assert!(replaced(3).is_empty());
}

#[test]
fn a_busy_runner_is_supply_until_a_reading_that_began_late_enough() {
    let text = "job 7 acme/web queued; sandbox 6-1 acme/web busy 60s";
    let seen_busy =
        |ago: i64| created(&with(text, "6-1", |known| known.busy_at = Some(now() - TimeDelta::seconds(ago))));
    assert!(seen_busy(5).is_empty() && seen_busy(14).is_empty());
    assert_eq!((seen_busy(15), seen_busy(60)), (vec!["7-1".to_owned()], vec!["7-1".to_owned()]));
    // Of one whose job is known nothing has to be read.
    let claim = Claim { job: JobId(9), runner: None, at: now() };
    let known = with(text, "6-1", |known| known.claim = Some(claim));
    assert_eq!(created(&known), ["7-1"]);
}

#[test]
fn runners_of_a_run_count_for_its_wave_with_and_without_a_job() {
    let after = |text: &str| {
        let mut situation = Situation::parse(text);
        situation.policy.waves.first = 1;
        situation.plan().skips.iter().map(|skip| skip.reason.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(after("job 7 acme/web queued; sandbox 6-1 acme/web claimed 60s"), ["first_wave"]);
    assert_eq!(after("job 7 acme/web queued; sandbox 6-1 acme/web claimed 60s run=2"), [""; 0]);
    let idle = "job 7 acme/web queued; job 8 acme/web queued; sandbox 6-1 acme/web idle 60s";
    assert_eq!(after(idle), ["already_served", "first_wave"]);
}

#[test]
fn what_modal_did_not_place_in_time_is_given_up_only_after_that_time() {
    assert_eq!(Situation::parse("sandbox 7-1 acme/web unscheduled 120s").plan().to_string(), "");
    let late = Situation::parse("sandbox 7-1 acme/web unscheduled 121s").plan().to_string();
    assert_eq!(late, "terminate sr-main-gh-7-1 (sb-7-1): no_capacity\n");
}
