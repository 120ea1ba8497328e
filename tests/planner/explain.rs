//! What is told of a job, for every reason why it gets nothing, and for all that may have become of it.

use std::collections::{BTreeSet, VecDeque};

use chrono::TimeDelta;
use sandrunner::class::{Machine, NoClass, Risk};
use sandrunner::evidence::JobEvidence;
use sandrunner::explain::{Asked, Explanation, Known, RecentEnd, explain};
use sandrunner::ids::{ClassName, JobId, RunId};
use sandrunner::pause::{Held, Pause};
use sandrunner::plan::{Limit, Plan, Skip, SkipReason};

use crate::situation::{Situation, name, now, scope};

fn usd(text: &str) -> sandrunner::cost::Usd {
    text.parse().unwrap()
}

/// Every reason, with a label for the golden text.
fn reasons() -> Vec<SkipReason> {
    let at = now() - TimeDelta::seconds(40);
    let class = || ClassName::new("gpu:t4");
    let limits = [
        Limit::Sandboxes(3),
        Limit::SandboxesPerRepo(2),
        Limit::Class(1),
        Limit::Gpus { limit: 4, waiting: 0 },
        Limit::ModalGpus { used: 8, most: 8 },
        Limit::Modal { sandboxes: 3, tasks: Some((100, 100)) },
        Limit::SpendPerDay(usd("10")),
        Limit::ClassSpendPerDay(usd("5")),
    ];
    let others = [
        SkipReason::NoClass(NoClass::NotOptedIn),
        SkipReason::NoClass(NoClass::Refused { class: class(), risk: Risk::Fork }),
        SkipReason::NoClass(NoClass::Refused { class: class(), risk: Risk::Public }),
        SkipReason::NoClass(NoClass::NoMatch { nearest: Some(class()), fails_on: "gpu:t4000".into() }),
        SkipReason::AlreadyServed,
        SkipReason::Unscheduled { machine: Machine::default(), since: at },
        SkipReason::SeenInProgress,
        SkipReason::Outdated,
        SkipReason::Paused(Pause { held: Held::Class(class()), since: at }),
        SkipReason::FleetUnknown("no answer within 20s".to_owned()),
        SkipReason::RunnerGroup("runner group `Modal` does not admit acme/web".into()),
        SkipReason::ImageBuilding,
        SkipReason::ImageFailed("no space left on device".into()),
        SkipReason::RunnerVersion { version: "2.300.0".parse().unwrap(), since: at },
        SkipReason::SpendUnknown("Modal's list of ended sandboxes is being read".to_owned()),
        SkipReason::FirstWave { wave: 3 },
        SkipReason::Unproven,
        SkipReason::GhostJob,
        SkipReason::Breaker { reason: "crashed".into(), failures: 4 },
        SkipReason::Fruitless { attempts: 3 },
        SkipReason::MachinesLost { machines: 10 },
        SkipReason::MintRefused("the token needs *Administration: write*".to_owned()),
        SkipReason::CreateRefused("no Volume `cache`".to_owned()),
        SkipReason::ModalSpendLimit,
        SkipReason::GithubBudget,
        SkipReason::ModalRate,
    ];
    others.into_iter().chain(limits.map(SkipReason::AtLimit)).collect()
}

/// What is told in a situation, by its own plan or by one that skips job 7 for a reason.
fn told(situation: &Situation, reason: Option<SkipReason>, asked: &str) -> Explanation {
    let plan = reason.map_or_else(
        || situation.plan(),
        |reason| {
            let skip = Skip {
                scope: scope("acme/web"),
                run: RunId(1),
                job: JobId(7),
                class: (!matches!(reason, SkipReason::NoClass(_))).then(|| ClassName::new("gpu:t4")),
                reason,
                again_at: now() + TimeDelta::seconds(10),
            };
            let waits_for_mints = [("gh".parse().unwrap(), 12)].into();
            Plan { skips: vec![skip], waits_for_mints, ..Plan::default() }
        },
    );
    let end = |minutes: i64, reason: &str| RecentEnd {
        at: now() - TimeDelta::minutes(minutes),
        runner: name(&format!("5-{minutes}")),
        class: ClassName::new("gpu:t4"),
        reason: reason.to_owned(),
        message: String::new(),
        printed: vec![format!("line of {minutes}")],
    };
    let ends: VecDeque<RecentEnd> =
        [(9, "crashed"), (8, "registration_failed"), (7, "unclaimed"), (6, "crashed"), (5, "out_of_memory")]
            .map(|(minutes, reason)| end(minutes, reason))
            .into();
    let Situation { observed, evidence, policy } = situation;
    let asked: Asked = asked.parse().unwrap();
    explain(&asked, &Known { observed, evidence, plan: &plan, policy, ends: &ends, now: now() })
}

const SITUATION: &str = "job 7 acme/web queued 125s run=1 labels=modal,gpu:t4; \
    sandbox 3-1 acme/web claimed 600s labels=modal,gpu:t4; sandbox 4-1 acme/web starting 20s labels=modal,gpu:t4; \
    sandbox 5-1 acme/api claimed 60s; creating 6-1 acme/web labels=modal,gpu:t4; spend 9.5";

#[test]
fn every_reason_is_told_in_plain_words() {
    let situation = Situation::parse(SITUATION);
    let reasons = reasons();
    let covered: BTreeSet<&str> = reasons.iter().map(SkipReason::as_str).collect();
    assert_eq!(covered, SkipReason::LABELS.into(), "each reason is in the golden text");
    let texts: Vec<String> =
        reasons.into_iter().map(|reason| told(&situation, Some(reason), "7").to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn what_became_of_a_job_is_told() {
    let mut situation = Situation::parse(
        "job 7 acme/web queued 125s run=1; job 8 acme/web completed 60s run=1; job 9 acme/web in_progress 60s run=1 runner=9-1; \
         sandbox 9-1 acme/web claimed 90s; fruitless 7 2 30s; job 10 acme/web waiting 5s run=2",
    );
    situation.evidence.jobs.entry(JobId(7)).and_modify(|job: &mut JobEvidence| job.machines_lost = 1);
    let run = told(&situation, None, "https://github.com/acme/web/actions/runs/1");
    let other = told(&situation, None, "10");
    insta::assert_snapshot!(format!("{run}\n{other}"));
}

#[test]
fn why_nothing_is_known_is_told() {
    let mut situation = Situation::parse("job 7 acme/web queued 5s run=1; fleet unknown");
    let note = |situation: &Situation, asked: &str| {
        let told = told(situation, None, asked);
        assert!(told.jobs.is_empty(), "{told}");
        told.notes.join("\n")
    };
    let url = |repo: &str, run: u64| format!("https://github.com/{repo}/actions/runs/{run}");
    assert!(note(&situation, "99").starts_with("no job and no run with the id 99 was read"));
    assert!(note(&situation, &url("acme/secret", 1)).starts_with("acme/secret is not among the repositories"));
    let view = situation.observed.repos.get_mut(&scope("acme/web")).unwrap();
    view.runs_read.succeeded(now() - TimeDelta::seconds(5));
    assert!(note(&situation, &url("acme/web", 99)).starts_with("it is not among what was read of acme/web, last 2024"));
    let told = told(&situation, None, "7");
    assert_eq!(told.jobs[0].state, "fleet_unknown");
    assert!(told.notes[0].starts_with("Modal's list was not read, the last time: "), "{told}");
}
