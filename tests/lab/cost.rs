//! What the controller says that sandboxes cost, beside the simulated Modal's own account; and what a limit to it does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::cost::Entry;
use sandrunner::sim::{Fault, FaultMode, Operation, Profile, Scenario, What, World};
use sandrunner::state_dir::read_costs;
use serde_json::json;
use tempfile::TempDir;

use crate::lab::{Lab, Next, Outcome, epoch, is_done_and_clean};

const HOURS_12: Duration = Duration::from_secs(12 * 3600);

/// Goes on until all is done and what ended last can be accounted.
fn until_accounted() -> impl FnMut(&World) -> Next {
    let mut done_at: Option<DateTime<Utc>> = None;
    move |world| {
        let now = world.clock().now();
        if done_at.is_none() && is_done_and_clean(world) {
            done_at = Some(now);
        }
        if done_at.is_some_and(|at| now - at > TimeDelta::minutes(3)) { Next::End } else { Next::GoOn }
    }
}

fn kept(dir: &Path) -> Vec<Entry> {
    read_costs(dir, &"main".parse().expect("a name"), epoch()).expect("a directory").entries
}

/// US dollars by repository and class.
type Sums = BTreeMap<(String, String), f64>;

/// Compares the cost files with the history: every sandbox, its amount, and whose it was.
fn check(outcome: &Outcome, dir: &Path, least: usize) {
    let entries: BTreeMap<String, Entry> = kept(dir).into_iter().map(|entry| (entry.id.to_string(), entry)).collect();
    let (mut tags, mut seen) = (BTreeMap::new(), 0);
    let (mut theirs, mut ours) = (Sums::new(), Sums::new());
    for event in &outcome.history {
        match &event.what {
            What::SandboxCreated { sandbox, tags: with, .. } => drop(tags.insert(Arc::clone(sandbox), with.clone())),
            What::SandboxEnded { sandbox, name, dollars, .. } if name.starts_with("sr-") => {
                seen += 1;
                let tags = &tags[sandbox];
                let entry = entries.get(&**sandbox).unwrap_or_else(|| panic!("{sandbox} is not accounted"));
                assert!((entry.usd.dollars() - dollars).abs() <= dollars * 1e-3, "{entry:?}: {dollars}");
                assert!(!entry.estimate, "{entry:?}");
                assert_eq!(entry.workflow.as_ref(), tags.get("workflow"), "{entry:?}");
                *theirs.entry((tags["repo"].replacen('.', "/", 1), tags["class"].replace("..", ":"))).or_default() +=
                    dollars;
                *ours.entry((entry.repo.clone(), entry.class.to_string())).or_default() += entry.usd.dollars();
            }
            _ => {}
        }
    }
    assert!(seen >= least && seen == entries.len(), "{seen} ended, {} are accounted", entries.len());
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    let (all, accounted) = (theirs.values().sum::<f64>(), ours.values().sum::<f64>());
    assert!(all > 0.1 && (all - accounted).abs() <= all * 1e-3, "Modal: {all}, we: {accounted}");
}

/// A thousand jobs, some on GPUs, at a Modal that takes a third more than its price page says.
fn thousand(dir: &TempDir) -> Lab {
    let profile = Profile { modal_price_factor: 1.3, ..Profile::realistic() };
    Lab::new(profile, Scenario::generate(1_000, 20, 1), 1).keeping_in(dir.path())
}

#[tokio::test(start_paused = true)]
async fn what_a_thousand_jobs_cost_is_what_modal_takes() {
    let dir = TempDir::new().expect("a scratch directory");
    let outcome = thousand(&dir).drive(HOURS_12, Duration::from_secs(1), until_accounted()).await;
    check(&outcome, dir.path(), 900);
    let has_gpu = kept(dir.path()).iter().any(|entry| entry.gpu.is_some() && !entry.usd.is_zero());
    assert!(has_gpu, "some ran on GPUs");
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_accounts_nothing_twice_and_loses_nothing() {
    let dir = TempDir::new().expect("a scratch directory");
    let mut over = until_accounted();
    let mut kills = [10, 25, 26].map(TimeDelta::minutes).into_iter().peekable();
    let next = |world: &World| match kills.next_if(|at| world.clock().now() - epoch() > *at) {
        Some(_) => Next::Kill,
        None => over(world),
    };
    let outcome = thousand(&dir).drive(HOURS_12, Duration::from_secs(1), next).await;
    check(&outcome, dir.path(), 900);
    let lines = fs::read_dir(dir.path()).expect("it is there").filter_map(Result::ok).map(|file| file.path());
    let cost = lines.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let lines: usize = cost.map(|path| fs::read_to_string(path).expect("text").lines().count()).sum();
    assert_eq!(lines, kept(dir.path()).len(), "each has one line");
}

#[tokio::test(start_paused = true)]
async fn a_cost_file_that_is_gone_is_made_anew_from_what_modal_knows() {
    let dir = TempDir::new().expect("a scratch directory");
    let (mut over, mut lost) = (until_accounted(), 0);
    let next = |world: &World| {
        if lost == 0 && world.clock().now() - epoch() > TimeDelta::minutes(25) {
            lost = kept(dir.path()).len();
            for file in fs::read_dir(dir.path()).expect("it is there") {
                fs::remove_file(file.expect("a file").path()).expect("it can be deleted");
            }
            return Next::Kill;
        }
        over(world)
    };
    let outcome = thousand(&dir).drive(HOURS_12, Duration::from_secs(1), next).await;
    assert!(lost > 50, "only {lost} were lost");
    check(&outcome, dir.path(), 900);
}

#[tokio::test(start_paused = true)]
async fn lists_that_lack_something_lose_nothing_also_where_the_cost_file_is_gone() {
    for mode in [FaultMode::PageMissing, FaultMode::Flapping] {
        let dir = TempDir::new().expect("a scratch directory");
        let profile = Profile { modal_list_page: 30, ..Profile::realistic() };
        let lab = Lab::new(profile, Scenario::generate(300, 5, 1), 1).keeping_in(dir.path());
        lab.world
            .add_fault(Fault { rate: 0.2, times: Fault::UNLIMITED, ..Fault::new(Operation::ListSandboxes, mode) })
            .expect("a fault");
        let (mut over, mut is_lost) = (until_accounted(), false);
        let next = |world: &World| {
            if !is_lost && world.clock().now() - epoch() > TimeDelta::minutes(25) {
                is_lost = true;
                fs::remove_dir_all(dir.path()).expect("it can be deleted");
                return Next::Kill;
            }
            over(world)
        };
        let outcome = lab.drive(HOURS_12, Duration::from_secs(1), next).await;
        check(&outcome, dir.path(), 250);
    }
}

/// Jobs of half an hour, one every ten minutes: each costs about a quarter of a dollar.
fn steady(jobs: u64) -> Scenario {
    let job = |id: u64| json!({ "id": id, "run": id + 1_000, "repo": "acme/web", "labels": ["self-hosted", "modal"], "duration_secs": 1800, "arrival_secs": id * 600 });
    let jobs: Vec<_> = (1..=jobs).map(job).collect();
    serde_json::from_value(json!({ "repos": [{ "name": "acme/web" }], "jobs": jobs })).expect("a scenario")
}

#[tokio::test(start_paused = true)]
async fn a_day_s_limit_stops_creates_until_midnight_and_running_jobs_finish() {
    let lab = Lab::new(Profile::calm(), steady(12), 1).configure(|config| config.limits.spend_per_day = Some(1.0));
    let (questions, mut asked) = (lab.questions(), None);
    let mut over = until_accounted();
    let next = |world: &World| {
        if asked.is_none() && world.clock().now() - epoch() > TimeDelta::hours(4) {
            asked = Some(questions.ask());
        }
        over(world)
    };
    let outcome = lab.drive(Duration::from_secs(3 * 86_400), Duration::from_secs(5), next).await;
    assert_eq!(outcome.report.jobs_completed, 12, "{}", outcome.summary());
    let created = outcome.times(|what| matches!(what, What::SandboxCreated { name, .. } if name.starts_with("sr-")));
    let per_day =
        [0.0, 1.0, 2.0].map(|day| created.iter().filter(|at| (day..day + 1.0).contains(&(**at / 86_400.0))).count());
    // Two run when the dollar is spent: about 1.3 jobs' worth is still to come of them.
    assert!((4..=6).contains(&per_day[0]) && per_day[1] > 0, "{created:?}");
    assert_eq!(per_day.iter().sum::<usize>(), 12, "one for each job");
    let status = asked.expect("it was asked").await.expect("it is answered");
    let job = status.jobs.first().expect("jobs wait");
    assert!(job.text.contains("limits.spend_per_day = 1.00 USD are spent"), "{}", job.text);
    assert_eq!((job.again_at, status.spend.resets_at), (epoch() + TimeDelta::days(1), epoch() + TimeDelta::days(1)));
    assert!(
        status.spend.is_known && status.spend.limit == Some(1.0) && status.spend.today >= 1.0,
        "{:?}",
        status.spend
    );
    assert!(
        status.spend.today < 1.6 && status.spend.per_hour.abs() < 1e-9 && status.spend.rates_of_table.is_some(),
        "{:?}",
        status.spend
    );
}

#[tokio::test(start_paused = true)]
async fn where_modal_tells_no_rates_the_table_counts() {
    let dir = TempDir::new().expect("a scratch directory");
    let lab = Lab::new(Profile::calm(), steady(2), 1).keeping_in(dir.path());
    let refused = Fault { times: 99, status: Some(7), ..Fault::new(Operation::Rates, FaultMode::Error) };
    lab.world.add_fault(refused).expect("a fault");
    let outcome = lab.drive(HOURS_12, Duration::from_secs(5), until_accounted()).await;
    check(&outcome, dir.path(), 2);
}
