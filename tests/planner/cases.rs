//! What the planner does in which situation.

use std::time::Duration;

use crate::situation::{Situation, name, now, scope};
use chrono::TimeDelta;
use sandrunner::act::{BuiltImage, Effect, NotMade, Outcome};
use sandrunner::class::ImageSource;
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::evidence::Failing;
use sandrunner::ids::{ClassName, ImageId};
use sandrunner::plan::{Action, SandboxState, machine_choice};
use sandrunner::runner::VersionNotice;
use sandrunner::state::{ImageState, Overdue, ReachesBack, Rebuilds, Registry, ReleaseView, Setbacks};

/// Compares the plan, line by line, with what is expected; lines are separated by semicolons.
fn check(situation: &str, expected: &str) {
    let plan = Situation::parse(situation).plan().to_string();
    let lines: Vec<&str> = plan.lines().collect();
    assert_eq!(lines.join("; "), expected, "in the situation: {situation}");
}

/// A job of a class with a GPU, for which Modal is short of machines since `ages`, in seconds, that sandboxes waited.
fn check_short(situation: &str, short: &[(&str, i64)], expected: &str) {
    let mut situation = Situation::parse(situation);
    let names = situation.evidence.names.clone();
    for (on, age) in short {
        // What a list showed when the first sandbox on it had waited for longer than two minutes.
        let late = format!("sandbox 9-9 acme/web unscheduled {}s labels=modal,gpu:t4 seen={age}s {on}", age + 130);
        let observed = Situation::parse(&late).observed;
        situation.evidence.learn(&observed, &situation.policy, &[], now() - TimeDelta::seconds(*age));
    }
    // What was in no view meanwhile is forgotten.
    situation.evidence.names = names;
    let plan = situation.plan().to_string();
    let lines: Vec<&str> = plan.lines().collect();
    assert_eq!(lines.join("; "), expected);
}

/// Which machine is told to be next, before and after a shortage of the first.
fn choices(situation: &str) -> [usize; 2] {
    let mut situation = Situation::parse(situation);
    let choice = |situation: &Situation| machine_choice(&situation.policy.classes[0], &situation.evidence, now());
    let before = choice(&situation);
    let late = "sandbox 9-9 acme/web unscheduled 130s labels=modal,gpu:t4";
    let observed = Situation::parse(late).observed;
    situation.evidence.learn(&observed, &situation.policy, &[], now());
    [before, choice(&situation)]
}

#[test]
fn where_modal_is_short_of_a_gpu_the_next_one_serves_and_the_first_is_tried_again_after_a_pause() {
    let job = "fallback a100,l4:2; job 7 acme/web queued labels=modal,gpu:t4";
    let create = |machine: &str| {
        format!("create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on {machine}")
    };
    check_short(job, &[], &create("T4"));
    check_short(job, &[("", 10)], &create("A100"));
    assert_eq!(choices(job), [0, 1]);
    check_short(job, &[("", 599)], &create("A100"));
    check_short(job, &[("", 600)], &create("T4"));
    check_short(job, &[("", 10), ("on=a100", 10)], &create("L4:2"));
    check_short(job, &[("on=a100", 10)], &create("T4"));
    // The second shortage in a row is believed for twice as long.
    check_short(job, &[("", 1_300), ("", 700)], &create("A100"));
    check_short(job, &[("", 1_900), ("", 1_200)], &create("T4"));
    // Of none there is enough: what was missing least often or longest ago is what is worth waiting for.
    check_short(job, &[("", 10), ("on=a100", 10), ("on=l4:2", 10)], &create("T4"));
    check_short(job, &[("", 10), ("on=a100", 10), ("on=l4:2", 20)], &create("L4:2"));
    check_short(job, &[("", 700), ("", 50), ("on=a100", 10), ("on=l4:2", 5)], &create("A100"));
}

#[test]
fn after_all_gpus_the_next_region_is_tried() {
    let job = "fallback a100; regions us-east,eu; job 7 acme/web queued labels=modal,gpu:t4";
    let create = |machine: &str| {
        format!("create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on {machine}")
    };
    check_short(job, &[("region=us-east", 10)], &create("A100 in us-east"));
    check_short(job, &[("region=us-east", 10), ("on=a100 region=us-east", 10)], &create("T4 in eu"));
    check_short(job, &[("region=eu", 10)], &create("T4 in us-east"));
}

#[test]
fn one_sandbox_at_a_time_tries_what_modal_was_short_of() {
    let jobs = "fallback a100; job 7 acme/web queued labels=modal,gpu:t4; job 8 acme/web queued labels=modal,gpu:t4";
    let create = |job: u64, machine: &str| {
        format!("create sr-main-gh-{job}-1 for job {job} of acme/web: class gpu:t4, labels gpu:t4,modal, on {machine}")
    };
    check_short(jobs, &[("", 700)], &format!("{}; {}", create(7, "T4"), create(8, "A100")));
    check_short(jobs, &[("", 10)], &format!("{}; {}", create(7, "A100"), create(8, "A100")));
    // One that is placed waits for nothing.
    let placed = format!("{jobs}; sandbox 6-1 acme/web claimed 60s labels=modal,gpu:t4");
    check_short(&placed, &[("", 700)], &format!("{}; {}", create(7, "T4"), create(8, "A100")));
    let served = "skip job 8 of acme/web: a runner that can take it starts or waits";
    for probe in ["sandbox 6-1 acme/web unscheduled 20s", "creating 6-1 acme/web", "unsure 6-1 acme/web"] {
        let probe = format!("{jobs}; {probe} labels=modal,gpu:t4");
        check_short(&probe, &[("", 700)], &format!("{}; {served}", create(7, "A100")));
    }
}

#[test]
fn a_sandbox_that_is_placed_ends_the_shortage_of_its_machine() {
    let mut situation = Situation::parse("fallback a100; job 7 acme/web queued labels=modal,gpu:t4");
    let late = "sandbox 9-9 acme/web unscheduled 130s labels=modal,gpu:t4";
    let mut learn = |text: &str| {
        let observed = Situation::parse(text).observed;
        situation.evidence.learn(&observed, &situation.policy, &[], now());
        situation.evidence.has_shortages()
    };
    assert!(!learn("sandbox 9-9 acme/web unscheduled 119s labels=modal,gpu:t4"), "it may still be placed in time");
    assert!(learn(late));
    assert!(learn("sandbox 9-8 acme/web starting 400s labels=modal,gpu:t4 placed=300s"), "that was before");
    assert!(learn("sandbox 9-8 acme/web starting 20s labels=modal,gpu:t4 on=a100 placed=-1s"), "that is another");
    assert!(!learn("sandbox 9-8 acme/web starting 20s labels=modal,gpu:t4 placed=-1s"));
}

#[test]
fn gpus_are_counted_as_they_are_used_not_as_the_class_asks_for_them() {
    let at = "skip job 7 of acme/web: at limit: limits.max_gpus = 4";
    let job = "gpus 4; fallback l4:2; job 7 acme/web queued labels=modal,gpu:t4";
    let claimed = |on: &str| format!("{job}; sandbox 5-1 acme/web claimed 60s labels=modal,gpu:t4 {on}");
    let create = "create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on";
    check_short(&claimed("on=h100:4"), &[], at);
    check_short(&claimed("on=h100:3"), &[], &format!("{create} T4"));
    check_short(&claimed("on=h100:3"), &[("", 10)], at);
    check_short(&claimed("on=h100:2"), &[("", 10)], &format!("{create} L4:2"));
}

#[test]
fn gpus_that_cannot_be_told_exactly_are_counted() {
    let at = |limit: u32| format!("skip job 7 of acme/web: at limit: limits.max_gpus = {limit}");
    let job = |limit: u32| format!("gpus {limit}; job 7 acme/web queued labels=modal,gpu:t4");
    check(&format!("{}; unreadable sb-1 2", job(2)), &at(2));
    // A runner that no list of sandboxes shows, of a class that is gone.
    let mut situation = Situation::parse(&format!("{}; runner 6-1 acme/web busy 600s labels=modal,old", job(2)));
    let gone = Situation::parse("sandbox 6-1 acme/web claimed 600s labels=modal,gpu:t4 on=h100:2");
    let mut origin = gone.observed.fleet.sandboxes.into_values().next().unwrap().origin;
    origin.class = ClassName::new("old");
    situation.evidence.names.values_mut().for_each(|known| known.origin = Some(origin.clone()));
    assert_eq!(situation.plan().to_string().trim(), at(2));
}

#[test]
fn a_job_whose_sandbox_waits_for_a_machine_says_so_and_so_does_the_limit_that_is_reached_by_it() {
    let job = |id: u32| format!("job {id} acme/web queued labels=modal,gpu:t4");
    let waiting = format!("gpus 1; {}; sandbox 7-1 acme/web unscheduled 60s labels=modal,gpu:t4", job(7));
    let waits =
        "skip job 7 of acme/web: its sandbox waits for Modal to have a machine with T4, since 2024-10-03 23:59:00 UTC";
    check(&waiting, waits);
    let at = "skip job 8 of acme/web: at limit: limits.max_gpus = 1 (1 are of sandboxes that wait for a machine or are given up)";
    check(&format!("{waiting}; {}", job(8)), &format!("{waits}; {at}"));
    check(&format!("gpus 1; {}; sandbox 7-1 acme/web failed 60s labels=modal,gpu:t4 fenced=30s", job(8)), &at[..53]);
}

#[test]
fn a_sandbox_that_is_shut_out_is_no_supply_but_takes_room() {
    let sandbox = "sandbox 7-1 acme/web starting 20s labels=modal,gpu:t4";
    let job = "job 7 acme/web queued labels=modal,gpu:t4";
    check(&format!("{job}; {sandbox}"), "skip job 7 of acme/web: a runner that can take it starts or waits");
    let create = "create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on T4";
    check(&format!("{job}; {sandbox} fenced=30s"), create);
    check(&format!("gpus 1; {job}; {sandbox} fenced=30s"), "skip job 7 of acme/web: at limit: limits.max_gpus = 1");
}

#[test]
fn no_gpu_is_asked_for_beyond_the_workspaces_quota() {
    let job = "job 7 acme/web queued labels=modal,gpu:t4";
    let create = "create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on T4";
    let at = "skip job 7 of acme/web: at limit: Modal's GPU quota: its workspace uses 8 of 8 GPUs";
    check(&format!("{job}; gpu-quota 8 8 60s"), at);
    check(&format!("{job}; gpu-quota 7 8 60s"), create);
    check(&format!("{job}; gpu-quota 8 8 120s"), create);
    check("job 7 acme/web queued; gpu-quota 8 8 60s", CREATE_7);
}

#[test]
fn nothing_is_created_while_the_spend_limit_of_modal_is_reached_as_far_as_that_is_known() {
    let spent = "skip job 7 of acme/web: Modal starts nothing more: the spend limit of the workspace or its environment \
                 is reached; raise it in Modal's settings, or wait for the next billing cycle";
    check("job 7 acme/web queued; spent 60s", spent);
    check("job 7 acme/web queued; spent 1799s", spent);
    check("job 7 acme/web queued; spent 1800s", CREATE_7);
}

const CREATE_7: &str = "create sr-main-gh-7-1 for job 7 of acme/web: class default, labels modal";

#[test]
fn a_queued_job_gets_a_sandbox() {
    check("job 7 acme/web queued 40s", CREATE_7);
}

#[test]
fn a_runner_that_github_registers_nowhere_gets_no_sandbox_but_for_an_enterprise_server() {
    let mut situation = Situation::parse("job 7 acme/web queued");
    let plan = |version: &str, host: &str, situation: &mut Situation| {
        situation.observed.runners_in_use.insert(ClassName::new("default"), version.parse().unwrap());
        situation.policy.accounts.values_mut().for_each(|account| account.host = host.to_owned());
        situation.plan().to_string()
    };
    let github = "https://api.github.com";
    let refused = plan("2.328.0", github, &mut situation);
    assert!(refused.contains("skip job 7 of acme/web") && refused.contains("2.328.0"), "{refused}");
    assert_eq!(plan("2.329.0", github, &mut situation).trim(), CREATE_7);
    assert_eq!(plan("2.328.0", "https://ghe.example/api/v3", &mut situation).trim(), CREATE_7);
}

#[test]
fn nothing_queued_needs_nothing() {
    check("job 7 acme/web in_progress; job 8 acme/web completed; job 9 acme/web waiting; job 10 acme/web odd", "");
}

#[test]
fn a_starting_runner_of_the_group_is_enough_whichever_job_it_was_made_for() {
    let served = "skip job 7 of acme/web: a runner that can take it starts or waits";
    for supply in [
        "sandbox 6-1 acme/web starting 5s",
        "sandbox 7-1 acme/web idle 60s",
        "creating 7-1 acme/web",
        "unsure 7-1 acme/web",
    ] {
        check(&format!("job 7 acme/web queued; {supply}"), served);
    }
}

#[test]
fn runners_of_other_groups_are_no_supply() {
    check("job 7 acme/web queued; sandbox 6-1 acme/api idle 5s", CREATE_7);
    check("job 7 acme/web queued; sandbox 6-1 acme/web idle 5s labels=modal,job-1", CREATE_7);
}

#[test]
fn claimed_failed_and_ended_runners_are_no_supply() {
    check("job 7 acme/web queued; sandbox 6-1 acme/web claimed 60s", CREATE_7);
    check("job 7 acme/web queued; sandbox 6-1 acme/web ended=64 5s", CREATE_7);
    let plan = Situation::parse("job 7 acme/web queued; sandbox 6-1 acme/web failed 200s").plan().to_string();
    assert_eq!(plan.trim(), CREATE_7);
}

#[test]
fn a_busy_runner_stays_supply_until_a_newer_job_reading_shows_its_job_gone() {
    let served = "skip job 7 of acme/web: a runner that can take it starts or waits";
    check("job 7 acme/web queued; sandbox 7-1 acme/web busy 60s; old-jobs 20s", served);
}

#[test]
fn a_runner_that_served_and_ended_stays_supply_until_a_newer_job_reading() {
    let served = "skip job 7 of acme/web: a runner that can take it starts or waits";
    check("job 7 acme/web queued; sandbox 7-1 acme/web ended=0 5s; old-jobs 20s", served);
    check("job 7 acme/web queued; sandbox 6-1 acme/web ended=0 60s", CREATE_7);
}

#[test]
fn a_sandbox_that_was_killed_may_have_had_a_job_and_one_that_says_why_it_ended_had_none() {
    let served = "skip job 7 of acme/web: a runner that can take it starts or waits";
    for killed in [137, 68, 67] {
        check(&format!("job 7 acme/web queued; sandbox 6-1 acme/web ended={killed} 5s; old-jobs 20s"), served);
        check(&format!("job 7 acme/web queued; sandbox 6-1 acme/web ended={killed} 60s"), CREATE_7);
    }
    for jobless in [64, 65, 66, 69] {
        check(&format!("job 7 acme/web queued; sandbox 6-1 acme/web ended={jobless} 5s; old-jobs 20s"), CREATE_7);
    }
}

#[test]
fn after_a_pause_github_is_heard_before_a_runner_is_made() {
    let skipped = "skip job 7 of acme/web: GitHub was not heard for minutes; whether it is still queued is asked first";
    check("job 7 acme/web queued; unheard 170s", CREATE_7);
    check("job 7 acme/web queued; unheard 180s", skipped);
    // No reading failed: it was merely not its turn.
    check("job 7 acme/web queued; old-jobs 400s", CREATE_7);
    // Pages that were read count for what they show.
    let pages = "job 7 acme/web queued; job 8 acme/web queued; old-jobs 400s; partly-read 7 10s";
    check(pages, &format!("{CREATE_7}; {}", skipped.replace("job 7", "job 8")));
}

#[test]
fn a_job_seen_in_progress_a_moment_ago_is_not_believed_to_be_queued() {
    check("job 7 acme/web queued advanced=5s", "skip job 7 of acme/web: it was seen in progress a moment ago");
    check("job 7 acme/web queued advanced=90s", CREATE_7);
    // Time alone is no second opinion.
    let skip = "skip job 7 of acme/web: it was seen in progress a moment ago";
    check("job 7 acme/web queued advanced=90s; old-jobs 80s", skip);
    check("job 7 acme/web queued advanced=90s; old-jobs 30s", CREATE_7);
}

#[test]
fn a_queued_job_of_a_completed_run_is_no_demand() {
    check("job 7 acme/web queued; run 1 acme/web completed", "");
}

#[test]
fn jobs_of_others_are_left_alone() {
    check(
        "job 7 acme/web queued labels=ubuntu-latest; job 8 acme/web queued labels=modal,macos",
        "skip job 7 of acme/web: it does not carry the opt-in label; \
         skip job 8 of acme/web: no class serves it: the nearest, `default`, fails on `macos`",
    );
}

#[test]
fn the_next_attempt_takes_the_next_name() {
    check(
        "job 7 acme/web queued 60s; fruitless 7 1 10s",
        "create sr-main-gh-7-2 for job 7 of acme/web: class default, labels modal",
    );
}

#[test]
fn after_three_fruitless_attempts_further_ones_wait() {
    check(
        "job 7 acme/web queued 600s; fruitless 7 3 10s",
        "skip job 7 of acme/web: 3 runners for it ended without serving a job",
    );
    check(
        "job 7 acme/web queued 600s; fruitless 7 3 70s",
        "create sr-main-gh-7-4 for job 7 of acme/web: class default, labels modal",
    );
}

#[test]
fn what_may_be_spent_in_a_day_holds_and_says_so() {
    let at = |what: &str| {
        format!(
            "skip job 7 of acme/web: at limit: {what} USD are spent; running jobs finish, and midnight UTC resets it"
        )
    };
    check("spend 10 limit=10; job 7 acme/web queued", &at("limits.spend_per_day = 10.00"));
    check("spend 9.99 limit=10; job 7 acme/web queued", CREATE_7);
    let of_class = at("spend_per_day = 9.50").replace("USD", "USD of its class");
    check("spend 10 of=default limit=9.5; job 7 acme/web queued", &of_class);
    let gpu = "create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on T4";
    check("spend 10 of=default limit=9.5; job 7 acme/web queued labels=modal,gpu:t4", gpu);
    // What runs is left alone.
    check("spend 10 limit=10; sandbox 6-1 acme/web claimed 60s; job 6 acme/web in_progress runner=6-1", "");
    let plan = Situation::parse("spend 10 limit=10; job 7 acme/web queued").plan();
    assert_eq!(plan.skips[0].again_at, now() + TimeDelta::hours(6), "at midnight");
    assert_eq!(plan.skips[0].reason.as_str(), "at_limit");
}

#[test]
fn an_unknown_spend_is_not_nothing_where_there_is_a_limit() {
    let why = "skip job 7 of acme/web: there is a spend_per_day, and what is spent is not known: Modal's list of ended \
               sandboxes is being read";
    check("spend 0 unknown limit=10; job 7 acme/web queued", why);
    check("spend 0 unknown of=default limit=10; job 7 acme/web queued", why);
    check("spend 0 unknown of=gpu:t4 limit=10; job 7 acme/web queued", CREATE_7);
    check("spend 0 unknown; job 7 acme/web queued", CREATE_7);
}

#[test]
fn where_there_is_a_limit_nothing_runs_whose_price_is_not_known() {
    let why = |gpu: &str| {
        format!(
            "skip job 7 of acme/web: there is a spend_per_day, and what is spent is not known: no price for GPU {gpu}: set \
             cost.gpus.{gpu}, or `price` of class `gpu:t4`"
        )
    };
    let job = "job 7 acme/web queued labels=modal,gpu:t4";
    let mut situation = Situation::parse(&format!("spend 0 limit=10; {job}"));
    assert_eq!(situation.plan().actions.len(), 1);
    situation.observed.spend.prices.remove(&ClassName::new("gpu:t4"));
    assert_eq!(situation.plan().to_string().trim_end(), why("T4"));
    situation.policy.limits.spend_per_day = None;
    assert_eq!(situation.plan().actions.len(), 1, "without a limit");
    situation.policy.classes[0].spend_per_day = Some("5".parse().unwrap());
    assert_eq!(situation.plan().to_string().trim_end(), why("T4"));
    // The price of the machine that it would be on counts.
    let job = format!("fallback x1; spend 0 limit=10; {job}");
    check_short(&job, &[], "create sr-main-gh-7-1 for job 7 of acme/web: class gpu:t4, labels gpu:t4,modal, on T4");
    check_short(&job, &[("", 10)], &why("X1"));
}

#[test]
fn a_create_carries_its_workflow_and_its_price() {
    let mut situation = Situation::parse("job 7 acme/web queued workflow=.github/workflows/ci,1.yml");
    let machine = situation.policy.class(&ClassName::new("default")).unwrap().machines().remove(0);
    let prices = [(machine, "0.5".parse().unwrap())].into();
    situation.observed.spend.prices.insert(ClassName::new("default"), prices);
    let create = |situation: &Situation| match situation.plan().actions.into_iter().next() {
        Some(Action::Create(create)) => (create.workflow, create.price.map(|price| price.to_string())),
        other => panic!("{other:?}"),
    };
    assert_eq!(create(&situation), (Some("ci_1.yml".to_owned()), Some("0.50".to_owned())));
    assert_eq!(create(&Situation::parse("job 7 acme/web queued")), (None, None));
}

#[test]
fn limits_hold_and_say_so() {
    let at = |what: &str| format!("skip job 7 of acme/web: at limit: {what}");
    check("limit 1; sandbox 6-1 acme/web claimed 60s; job 7 acme/web queued", &at("limits.max_sandboxes = 1"));
    check(
        "limit repo 1; sandbox 6-1 acme/web claimed 60s; job 7 acme/web queued",
        &at("limits.max_sandboxes_per_repo = 1"),
    );
    check("gpus 0; job 7 acme/web queued labels=modal,gpu:t4", &at("limits.max_gpus = 0"));
    let two_gpus = ["6-1", "5-1"].map(|name| format!("sandbox {name} acme/web claimed 60s labels=modal,gpu:t4"));
    check(&format!("gpus 1; {}; job 7 acme/web queued", two_gpus.join("; ")), CREATE_7);
}

#[test]
fn a_class_has_no_more_sandboxes_than_it_may() {
    let plan = |limit: u32, text: &str| {
        let mut situation = Situation::parse(text);
        situation.policy.classes.last_mut().unwrap().max_sandboxes = Some(limit);
        situation.plan().to_string().trim_end().to_owned()
    };
    let one_lives = "sandbox 6-1 acme/web claimed 60s; job 7 acme/web queued";
    assert!(plan(1, one_lives).ends_with("at limit: max_sandboxes = 1 of its class"), "{}", plan(1, one_lives));
    assert_eq!(plan(2, one_lives), CREATE_7);
    let two = plan(1, "job 7 acme/web queued; job 8 acme/web queued");
    assert!(two.starts_with(CREATE_7) && two.contains("skip job 8"), "{two}");
    let of_another = "sandbox 6-1 acme/web claimed 60s labels=modal,gpu:t4; job 7 acme/web queued";
    assert_eq!(plan(1, of_another), CREATE_7);
}

#[test]
fn a_runner_joins_the_group_that_its_account_or_its_organization_names() {
    let group = |situation: &Situation| match situation.plan().actions.into_iter().next() {
        Some(Action::Create(create)) => create.runner_group_id,
        other => panic!("{other:?}"),
    };
    let mut situation = Situation::parse("job 7 acme/web queued");
    assert_eq!(group(&situation), 1);
    situation.policy.accounts.values_mut().for_each(|account| account.runner_group_id = 7);
    assert_eq!(group(&situation), 7);
    assert_eq!(group(&Situation::parse("org acme; job 7 acme/web queued; group acme/web")), 4);
}

#[test]
fn a_runner_that_is_online_takes_room_where_no_list_shows_its_sandbox() {
    let at = |what: &str| format!("skip job 7 of acme/web: at limit: {what}");
    let limits = [("limit 1", "limits.max_sandboxes = 1"), ("limit repo 1", "limits.max_sandboxes_per_repo = 1")];
    for (limit, what) in limits {
        check(&format!("{limit}; runner 6-1 acme/web busy 600s; job 7 acme/web queued"), &at(what));
        check(&format!("{limit}; runner 6-1 acme/web online 600s; job 7 acme/web queued"), &at(what));
        check(
            &format!("{limit}; runner 6-1 acme/web offline 600s; job 7 acme/web queued"),
            "create sr-main-gh-7-1 for job 7 of acme/web: class default, labels modal",
        );
    }
    check(
        "gpus 1; runner 6-1 acme/web busy 600s labels=modal,gpu:t4; job 7 acme/web queued labels=modal,gpu:t4",
        &at("limits.max_gpus = 1"),
    );
    // Its sandbox was listed, and ended: a list of runners that is no newer says nothing.
    let ended = |secs: i64| {
        let mut situation = Situation::parse("limit 1; runner 6-1 acme/web busy 600s; job 7 acme/web queued");
        let known = situation.evidence.names.values_mut().next().unwrap();
        known.ended_at = Some(now() - TimeDelta::seconds(secs));
        situation.plan().to_string().trim_end().to_owned()
    };
    assert_eq!(ended(0), CREATE_7);
    assert_eq!(ended(60), at("limits.max_sandboxes = 1"));
}

#[test]
fn a_sandbox_that_ends_still_counts_as_capacity() {
    check(
        "limit 1; sandbox 6-1 acme/web failed 400s fenced=100s; job 7 acme/web queued",
        "terminate sr-main-gh-6-1 (sb-6-1): failed_start; skip job 7 of acme/web: at limit: limits.max_sandboxes = 1",
    );
}

#[test]
fn a_full_repo_does_not_starve_the_next_one() {
    let jobs: Vec<String> = (1..=50).map(|id| format!("job {id} acme/big queued 500s")).collect();
    let plan = Situation::parse(&format!("{}; job 99 acme/small queued 1s; mints 2", jobs.join("; "))).plan();
    let created: Vec<u64> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Create(create) => Some(create.name.job.0),
            Action::PrepareImage { .. }
            | Action::Deregister { .. }
            | Action::Terminate { .. }
            | Action::DeleteSecret { .. } => None,
        })
        .collect();
    assert_eq!(created, [1, 99], "the oldest first, then the repository that has least");
}

#[test]
fn what_the_budgets_do_not_admit_waits_with_its_reason() {
    check("mints 0; job 7 acme/web queued", "skip job 7 of acme/web: the GitHub budget admits no registration yet");
    check("creates 0; job 7 acme/web queued", "skip job 7 of acme/web: Modal's rate of creates admits none yet");
    let two = "job 7 acme/web queued 50s; job 8 acme/web queued 40s";
    let second = |why: &str| format!("{CREATE_7}; skip job 8 of acme/web: {why}");
    check(&format!("mints 1; {two}"), &second("the GitHub budget admits no registration yet"));
    check(&format!("creates 1; {two}"), &second("Modal's rate of creates admits none yet"));
    let waiting = |text: &str| Situation::parse(text).plan().waits_for_mints.into_values().collect::<Vec<_>>();
    assert_eq!(waiting(&format!("mints 0; {two}")), [2], "how many have to be admitted before anything else is asked");
    assert!(waiting(&format!("creates 0; {two}")).is_empty());
}

#[test]
fn nothing_is_created_by_a_list_of_sandboxes_that_is_too_old() {
    let plan = |age: TimeDelta| {
        let mut situation = Situation::parse("job 7 acme/web queued");
        situation.observed.fleet.read.known_at = Some(now() - age);
        situation.plan().to_string().trim_end().to_owned()
    };
    assert_eq!(plan(TimeDelta::seconds(10)), CREATE_7);
    let old = plan(TimeDelta::hours(1));
    assert!(old.starts_with("skip job 7 of acme/web: the list of sandboxes is not known"), "{old}");
}

#[test]
fn the_first_wave_of_an_image_that_never_served_is_three() {
    let jobs: Vec<String> = (1..=5).map(|id| format!("job {id} acme/web queued")).collect();
    let plan = Situation::parse(&format!("unproven; {}", jobs.join("; "))).plan();
    assert_eq!((plan.actions.len(), plan.skips.len()), (3, 2));
    assert_eq!(
        plan.skips[0].reason.to_string(),
        "3 runners of its run, or of an image that never served, are there, and GitHub has not yet given jobs to so \
         many at once"
    );
    // Whatever run they are of: the image may not start at all.
    let runs: Vec<String> = (1..=5).map(|id| format!("job {id} acme/web queued run={id}")).collect();
    assert_eq!(Situation::parse(&format!("unproven; {}", runs.join("; "))).plan().actions.len(), 3);
    let others: Vec<String> = (6..=8).map(|id| format!("job {id} acme/api queued run={id}")).collect();
    let both = format!("unproven; {}; {}", runs.join("; "), others.join("; "));
    assert_eq!(Situation::parse(&both).plan().actions.len(), 3, "of one class");
    let starting = "sandbox 9-1 acme/docs starting 5s labels=modal";
    assert_eq!(Situation::parse(&format!("{starting}; {both}")).plan().actions.len(), 2);
    // One has come online: each group gets its three, and the rest once one of them has taken a job.
    let online = "sandbox 9-1 acme/docs idle 5s labels=modal";
    assert_eq!(Situation::parse(&format!("{online}; {both}")).plan().actions.len(), 6);
    assert_eq!(Situation::parse(&both.replace("unproven; ", "")).plan().actions.len(), 8);
}

#[test]
fn a_living_claimed_sandbox_proves_its_image_after_a_restart() {
    let jobs: Vec<String> = (1..=25).map(|id| format!("job {id} acme/web queued")).collect();
    let plan = Situation::parse(&format!("unproven; sandbox 99-1 acme/api claimed 60s; {}", jobs.join("; "))).plan();
    assert_eq!(plan.actions.len(), 20, "the first wave of a proven image");
}

#[test]
fn without_a_list_of_sandboxes_nothing_is_created_or_ended() {
    check(
        "fleet unknown; job 7 acme/web queued",
        "skip job 7 of acme/web: the list of sandboxes is not known: no answer",
    );
}

#[test]
fn the_image_is_prepared_before_the_first_sandbox() {
    check(
        "image absent; job 7 acme/web queued",
        "prepare the image of class default; skip job 7 of acme/web: the image of its class is being made",
    );
    check("image building; job 7 acme/web queued", "skip job 7 of acme/web: the image of its class is being made");
}

#[test]
fn an_image_that_failed_is_made_again_after_a_pause_that_grows() {
    let failed = "skip job 7 of acme/web: the image of its class could not be made: no space";
    check("image failed 1 10s; job 7 acme/web queued", failed);
    let again = "prepare the image of class default; skip job 7 of acme/web: the image of its class is being made";
    check("image failed 1 40s; job 7 acme/web queued", again);
    check("image failed 3 40s; job 7 acme/web queued", failed);
}

#[test]
fn sandboxes_of_ours_that_cannot_be_read_take_room() {
    check(
        "limit 1; unreadable sb-1; job 7 acme/web queued",
        "skip job 7 of acme/web: at limit: limits.max_sandboxes = 1",
    );
}

#[test]
fn a_registration_of_unknown_making_counts_for_its_job_for_three_minutes() {
    let served = "skip job 7 of acme/web: a runner that can take it starts or waits";
    check("job 7 acme/web queued; runner 7-1 acme/web offline 60s", served);
    check("job 7 acme/web queued; runner 7-1 acme/web online 60s", served);
    check("job 7 acme/web queued; runner 7-1 acme/web offline 200s", CREATE_7);
    // Its own job was taken by another one: it can take any other of the same labels.
    let taken = "runner 6-1 acme/web offline 60s";
    check(&format!("job 7 acme/web queued; {taken}"), served);
    check(&format!("job 7 acme/web queued; {taken}").replace("60s", "200s"), CREATE_7);
    check(&format!("job 7 acme/web queued; {taken} labels=modal,gpu:t4"), CREATE_7);
}

#[test]
fn a_stale_registration_is_deleted_after_grace_and_agreement() {
    check("runner 7-1 acme/web offline 400s stale", "deregister sr-main-gh-7-1 in acme/web: stale");
    check("runner 7-1 acme/web offline 200s stale", "");
    check("runner 7-1 acme/web offline 400s stale fenced=30s", "");
    check("runner 7-1 acme/web offline 400s", "");
    check("runner 7-1 acme/web offline 400s stale kept=60s", "");
    check("runner 7-1 acme/web offline 400s stale kept=310s", "deregister sr-main-gh-7-1 in acme/web: stale");
    check("runner 7-1 acme/web online 400s stale", "");
    check("runner 7-1 acme/web busy 400s stale", "");
    check("runner 7-1 acme/web offline 400s stale; creating 7-1 acme/web", "");
    check("runner 7-1 acme/web offline 400s stale; unsure 7-1 acme/web", "");
    check("runner 7-1 acme/web offline 400s stale; sandbox 7-1 acme/web starting 60s", "");
    check(
        "sandbox 7-1 acme/web ended=64 60s; runner 7-1 acme/web offline 400s stale",
        "deregister sr-main-gh-7-1 in acme/web: stale",
    );
}

#[test]
fn a_failed_start_is_fenced_settled_and_only_then_terminated() {
    let failed = "sandbox 7-1 acme/web failed 400s";
    check(
        &format!("{failed}; runner 7-1 acme/web offline 400s"),
        "deregister sr-main-gh-7-1 in acme/web: failed_start",
    );
    check(failed, "");
    // The sandbox itself says which registration it was made with.
    check(&format!("{failed} tagged"), "deregister sr-main-gh-7-1 in acme/web: failed_start");
    check(&format!("{failed} tagged kept=60s"), "");
    check(&format!("{failed} tagged kept=310s"), "deregister sr-main-gh-7-1 in acme/web: failed_start");
    check(&format!("{failed} fenced=30s"), "");
    check(&format!("{failed} fenced=100s"), "terminate sr-main-gh-7-1 (sb-7-1): failed_start");
    // A run of which nothing is known any more may have given it a job.
    let mut swept = Situation::parse(&format!("{failed} fenced=100s"));
    let ends = |situation: &Situation| situation.plan().to_string().contains("terminate");
    let repo = swept.observed.repos.get_mut(&scope("acme/web")).unwrap();
    repo.reaches_back = ReachesBack::NotEnough;
    repo.swept.succeeded(now() - TimeDelta::seconds(80));
    assert!(!ends(&swept), "an old run that was re-run may have its job");
    swept.observed.repos.get_mut(&scope("acme/web")).unwrap().swept_rare.succeeded(now() - TimeDelta::seconds(80));
    assert!(ends(&swept));
    let mut unlisted = Situation::parse(&format!("{failed} fenced=100s"));
    unlisted.observed.repos.values_mut().for_each(|repo| repo.deep_read_at = None);
    assert_eq!(unlisted.plan().to_string(), "");
    check("sandbox 7-1 acme/web failed 250s fenced=100s", "");
    check(&format!("{failed} fenced=100s; job 9 acme/web in_progress runner=7-1"), "");
    check(&format!("{failed} fenced=100s; job 9 acme/web in_progress; old-jobs 200s"), "");
    // Lists lag: one that began just after the fence may show the time before it; nor is one believed that failed since.
    check(&format!("{failed} fenced=100s; job 9 acme/web in_progress; old-jobs 86s"), "");
    check(
        &format!("{failed} fenced=100s; job 9 acme/web in_progress; old-jobs 85s"),
        "terminate sr-main-gh-7-1 (sb-7-1): failed_start",
    );
    check(&format!("{failed} fenced=100s; job 9 acme/web in_progress; unheard 50s"), "");
    check(
        &format!("{failed} fenced=100s; runners unknown acme/web"),
        "terminate sr-main-gh-7-1 (sb-7-1): failed_start",
    );
    // A list shows whether it has ended.
    check(&format!("{failed} fenced=200s terminated=30s"), "");
    check(&format!("{failed} fenced=200s terminated=90s"), "terminate sr-main-gh-7-1 (sb-7-1): failed_start");
    check(&format!("{failed} fenced=200s terminated=90s seen=50s"), "");
}

#[test]
fn a_runner_once_seen_online_is_never_terminated() {
    check("sandbox 7-1 acme/web idle 4000s; runner 7-1 acme/web offline 4000s", "");
    check("sandbox 7-1 acme/web claimed 90000s", "");
    check("sandbox 7-1 acme/web busy 90000s", "");
}

#[test]
fn a_sandbox_that_modal_never_placed_is_given_up() {
    check("sandbox 7-1 acme/web unscheduled 60s", "");
    check("sandbox 7-1 acme/web unscheduled 130s seen=60s", "");
    // It may have been placed since that list: its runner is fenced first, and a later list has the word.
    check("sandbox 7-1 acme/web unscheduled 400s tagged", "");
    check("sandbox 7-1 acme/web unplaced 299s tagged", "");
    let tagged = "sandbox 7-1 acme/web unplaced 400s tagged";
    check(tagged, "deregister sr-main-gh-7-1 in acme/web: no_capacity");
    check(&format!("{tagged} fenced=59s"), "");
    check(&format!("{tagged} fenced=80s seen=21s"), "");
    check(&format!("{tagged} fenced=80s seen=20s"), "terminate sr-main-gh-7-1 (sb-7-1): no_capacity");
    check(&format!("{tagged} kept=20s"), "");
    // Where it is registered was not read yet, so that it cannot be fenced.
    let mut unread = Situation::parse(tagged);
    unread.observed.repos.clear();
    assert_eq!(unread.plan().to_string(), "");
    // Nobody knows of a registration to fence.
    check("sandbox 7-1 acme/web unscheduled 130s", "terminate sr-main-gh-7-1 (sb-7-1): no_capacity");
}

#[test]
fn what_waited_for_a_machine_starts_when_it_is_placed() {
    let job = "job 9 acme/web queued";
    let create = "create sr-main-gh-9-1 for job 9 of acme/web: class default, labels modal";
    check(&format!("sandbox 7-1 acme/web failed 600s; {job}"), create);
    let waits = "skip job 9 of acme/web: a runner that can take it starts or waits";
    check(&format!("sandbox 7-1 acme/web failed 600s placed=10s; {job}"), waits);
}

#[test]
fn a_secret_is_deleted_once_it_was_read() {
    check("sandbox 7-1 acme/web starting 20s secret", "");
    check("sandbox 7-1 acme/web idle 60s secret", "delete the secret of sr-main-gh-7-1");
    check("sandbox 7-1 acme/web ended=66 60s secret", "delete the secret of sr-main-gh-7-1");
    // A request to store it may be under way still.
    check("sandbox 7-1 acme/web idle 59s secret", "");
    check("sandbox 7-1 acme/web ended=66 59s secret", "");
    // One answer that Modal does not know the sandbox proves nothing.
    check("sandbox 7-1 acme/web gone 20s secret", "");
    check("sandbox 7-1 acme/web gone 300s secret", "delete the secret of sr-main-gh-7-1");
}

#[test]
fn what_was_refused_is_tried_again_when_its_pause_is_over() {
    let failing = |seconds: i64| Failing {
        failures: 1,
        failure: CallFailure { class: ErrorClass::Forbidden, message: "no".into(), retry_after: None },
        again_at: now() + TimeDelta::seconds(seconds),
    };
    for (pause, refused) in [(1, true), (0, false), (-1, false)] {
        let mut mint = Situation::parse("job 7 acme/web queued");
        let mut create = mint.clone();
        mint.evidence.mint_failures.insert((Registry::Repo(scope("acme/web")), None), failing(pause));
        create.evidence.create_failures.insert(ClassName::new("default"), failing(pause));
        for (situation, reason) in [(mint, "mint_refused"), (create, "create_refused")] {
            let plan = situation.plan();
            let reasons: Vec<_> = plan.skips.iter().map(|skip| skip.reason.as_str()).collect();
            let expected = if refused { vec![reason] } else { Vec::new() };
            assert_eq!((reasons, plan.actions.len()), (expected, usize::from(!refused)), "{reason} for {pause} s");
        }
    }
}

#[test]
fn the_grace_of_a_failed_start_is_five_minutes() {
    let fenced = "deregister sr-main-gh-7-1 in acme/web: failed_start";
    for (age, expected) in [(299, ""), (300, fenced)] {
        check(&format!("sandbox 7-1 acme/web failed {age}s; runner 7-1 acme/web offline 400s"), expected);
    }
}

#[test]
fn sandboxes_are_counted_by_class_and_state() {
    let plan = Situation::parse(
        "sandbox 1-1 acme/web idle 60s; sandbox 2-1 acme/web idle 60s; sandbox 3-1 acme/web claimed 60s; \
         creating 4-1 acme/web",
    )
    .plan();
    let states: Vec<_> = plan.tally.iter().map(|(class, tally)| (class.as_str(), tally.sandboxes.clone())).collect();
    let expected = [(SandboxState::Creating, 1), (SandboxState::Idle, 2), (SandboxState::Claimed, 1)];
    assert_eq!(states, [("default", expected.into())]);
}

#[test]
fn jobs_of_workflows_that_a_runner_group_is_not_kept_to_get_nothing_and_those_of_others_do() {
    let group = "group acme/web workflows=acme/web/.github/workflows/deploy.yml@refs/heads/main";
    let with = |job: &str| format!("org acme; job 7 acme/web queued {job}; {group}");
    let refused = |file: &str, whole: &str| {
        format!(
            "skip job 7 of acme/web: runner group `Modal` is kept to selected workflows and does not run {file}: add {whole} to them, or let it run all"
        )
    };
    for (file, whole) in [
        (".github/workflows/ci.yml", "acme/web/.github/workflows/ci.yml@<branch>"),
        (".github/workflows/deploy.yml@dev", "acme/web/.github/workflows/deploy.yml@dev"),
    ] {
        check(&with(&format!("workflow={file}")), &refused(file, whole));
    }
    // What is not certain is tried.
    for job in [
        "workflow=.github/workflows/deploy.yml@main",
        "workflow=.github/workflows/deploy.yml",
        "workflow=.github/workflows/ci.yml calls",
        "",
    ] {
        check(&with(job), CREATE_7);
    }
    check("org acme; job 7 acme/web queued workflow=.github/workflows/ci.yml; group acme/web", CREATE_7);
}

#[test]
fn a_refused_workflow_neither_uses_up_the_runners_of_others_nor_waits_for_them() {
    check(
        "org acme; job 7 acme/web queued run=1 workflow=.github/workflows/ci.yml@main; \
         job 8 acme/web queued run=2 workflow=.github/workflows/deploy.yml@main; sandbox 8-1 acme/web idle 5s run=2; \
         group acme/web workflows=acme/web/.github/workflows/deploy.yml@main",
        "skip job 7 of acme/web: runner group `Modal` is kept to selected workflows and does not run \
         .github/workflows/ci.yml@main: add acme/web/.github/workflows/ci.yml@main to them, or let it run all; \
         skip job 8 of acme/web: a runner that can take it starts or waits",
    );
}

/// A job whose class has an image of a registry, with a runner that GitHub refuses.
fn refused(reference: &str) -> Situation {
    let mut situation = Situation::parse("job 7 acme/web queued 40s");
    let class = situation.policy.classes.last_mut().unwrap();
    class.image = ImageSource::Registry(reference.to_owned());
    let (old, account) = ("2.330.0".parse().unwrap(), "gh".parse().unwrap());
    let notice = VersionNotice { registers_until: None, runs_until: Some(now() - TimeDelta::hours(1)) };
    let view = ReleaseView { offered: None, notices: [(old, notice)].into(), ..ReleaseView::default() };
    situation.observed.runners_in_use.insert(class.name.clone(), old);
    situation.observed.releases.insert(account, view);
    situation
}

const ANEW: &str = "prepare the image of class default anew, in place of im-1";

#[test]
fn an_image_of_a_registry_whose_runner_is_refused_is_made_anew_ever_more_seldom() {
    let is_made_anew = |situation: &Situation| {
        let plan = situation.plan().to_string();
        assert!(plan.contains("GitHub takes no runners of version 2.330.0") && !plan.contains("create"), "{plan}");
        plan.contains(ANEW)
    };
    let mut situation = refused("acme/runner:1");
    let source = ImageSource::Registry("acme/runner:1".to_owned());
    assert!(is_made_anew(&situation));
    let mut rebuilds = None;
    for minutes in [10, 20] {
        for (age, expected) in [(minutes - 1, false), (minutes, true)] {
            let began = Rebuilds::next(rebuilds, now() - TimeDelta::minutes(age));
            situation.observed.rebuilds.insert(source.clone(), began);
            assert_eq!(is_made_anew(&situation), expected, "{age} min after number {minutes}/10");
        }
        rebuilds = situation.observed.rebuilds.get(&source).copied();
    }
    assert!(!is_made_anew(&refused(&format!("acme/runner@sha256:{}", "0".repeat(64)))), "that cannot change");
    let mut nobody_waits = refused("acme/runner:1");
    nobody_waits.observed.repos.clear();
    assert_eq!(nobody_waits.plan().to_string(), "");
}

#[test]
fn an_image_that_was_made_anew_gets_one_runner_at_once_and_the_others_once_that_is_online() {
    let mut situation = Situation::parse("job 7 acme/web queued 40s; job 8 acme/web queued 40s");
    let (class, name) = (ClassName::new("default"), name("7-1"));
    situation.policy.classes.last_mut().unwrap().image = ImageSource::Registry("acme/runner:1".to_owned());
    let image = BuiltImage { image: ImageId::new("im-2"), runner: None, made_of: None };
    situation.observed.images.insert(class.clone(), ImageState::Ready(image.image.clone()));
    let source = situation.policy.class(&class).unwrap().image.clone();
    let effect = Effect::Image { source, result: Ok(image), replaces: Some(ImageId::new("im-1")) };
    let outcome = Outcome { action: "prepare_image", reason: "queued", effect, took: Duration::ZERO };
    situation.evidence.learn(&situation.observed, &situation.policy, &[outcome], now());
    let creates = |situation: &Situation| situation.plan().to_string().matches("create sr-").count();
    assert_eq!(creates(&situation), 1);
    let mut after = Situation::parse("sandbox 7-1 acme/web idle 5s; runner 7-1 acme/web online 5s");
    after.observed.fleet.sandboxes.get_mut(&name).unwrap().image = Some(ImageId::new("im-2"));
    let later = now() + TimeDelta::seconds(1);
    after.registry("acme/web").runners_read.succeeded(later);
    situation.evidence.learn(&after.observed, &situation.policy, &[], later);
    assert_eq!(creates(&situation), 2);
}

/// Two images that Sandrunner puts the runner into, both with an old one.
fn with_old_runners() -> Situation {
    let mut situation = Situation::parse("job 7 acme/web completed");
    for (class, has_docker) in situation.policy.classes.iter_mut().zip([true, false]) {
        class.image = ImageSource::Default { has_docker };
        situation.observed.runners_in_use.insert(class.name.clone(), "2.330.0".parse().unwrap());
    }
    let view = ReleaseView { offered: Some("2.336.0".parse().unwrap()), ..ReleaseView::default() };
    situation.observed.releases.insert("gh".parse().unwrap(), view);
    situation
}

#[test]
fn each_image_is_renewed_by_its_own_clock() {
    let prepared = |situation: &Situation| situation.plan().to_string().trim_end().to_owned();
    let mut situation = with_old_runners();
    let both = "prepare the image of class gpu:t4\nprepare the image of class default";
    assert_eq!(prepared(&situation), both);
    let minutes_ago = |minutes| now() - TimeDelta::minutes(minutes);
    situation.observed.renewed_at.insert(ImageSource::Default { has_docker: true }, minutes_ago(5));
    assert_eq!(prepared(&situation), "prepare the image of class default");
    situation.observed.renewed_at.insert(ImageSource::Default { has_docker: false }, minutes_ago(59));
    assert_eq!(prepared(&situation), "");
    situation.observed.renewed_at.insert(ImageSource::Default { has_docker: false }, minutes_ago(60));
    assert_eq!(prepared(&situation), "prepare the image of class default");
}

#[test]
fn only_an_image_with_an_older_runner_that_serves_is_renewed() {
    let renewed = |change: &dyn Fn(&mut Situation)| {
        let mut situation = with_old_runners();
        change(&mut situation);
        situation.plan().to_string().contains("prepare the image of class default")
    };
    let default = ClassName::new("default");
    assert!(renewed(&|_| {}));
    assert!(!renewed(&|it| {
        it.observed.runners_in_use.insert(default.clone(), "2.336.0".parse().unwrap());
    }));
    assert!(!renewed(&|it| {
        it.observed.images.insert(default.clone(), ImageState::Building { failures: Setbacks::default() });
    }));
    assert!(!renewed(&|it| {
        it.policy.classes.last_mut().unwrap().image = ImageSource::Registry("acme/runner:1".to_owned());
    }));
}

#[test]
fn an_image_of_a_registry_is_not_made_anew_for_jobs_of_another_class() {
    let mut situation = Situation::parse("gpus 0; job 7 acme/web queued; job 8 acme/web queued labels=modal,gpu:t4");
    let gpu = situation.policy.classes.first_mut().unwrap();
    gpu.image = ImageSource::Registry("acme/runner:1".to_owned());
    situation.observed.runners_in_use.insert(ClassName::new("default"), "2.328.0".parse().unwrap());
    let plan = situation.plan().to_string();
    assert!(plan.contains("2.328.0") && plan.contains("max_gpus") && !plan.contains("prepare"), "{plan}");
}

#[test]
fn an_image_that_is_wanted_and_not_in_use_is_asked_for_again_when_its_time_has_come() {
    let mut situation = Situation::parse("job 7 acme/web completed");
    let late = |seconds| Overdue {
        why: "no".into(),
        failures: Setbacks::default(),
        again_at: now() + TimeDelta::seconds(seconds),
        held: None,
    };
    let class = ClassName::new("default");
    for (seconds, expected) in [(1, ""), (0, "prepare the image of class default")] {
        situation.observed.overdue.insert(class.clone(), late(seconds));
        assert_eq!(situation.plan().to_string().trim_end(), expected, "in {seconds} s");
    }
    // One that was held back and brought a runner online since is wanted at once.
    let held = Overdue { held: Some(ImageId::new("im-2")), ..late(60) };
    situation.observed.overdue.insert(class, held);
    assert_eq!(situation.plan().to_string(), "prepare the image of class default\n");
}

#[test]
fn what_passes_by_itself_makes_no_pause_longer_after_a_build_that_failed() {
    let failure = |class| NotMade::from(CallFailure { class, message: "no".into(), retry_after: None });
    let (passing, lasting) = (failure(ErrorClass::Unavailable), failure(ErrorClass::Invalid));
    let mut failures = Setbacks::default();
    let mut pause = |failure: &NotMade| {
        let (after, again_at) = failure.after(failures, now());
        failures = after;
        (again_at - now()).num_seconds()
    };
    assert_eq!([(); 7].map(|()| pause(&passing)), [2, 4, 8, 16, 32, 60, 60]);
    assert_eq!([(); 3].map(|()| pause(&lasting)), [30, 60, 120]);
    assert_eq!((pause(&passing), pause(&lasting)), (60, 240));
}

#[test]
fn a_new_image_gets_three_runners_until_one_of_them_is_online() {
    let mut situation = Situation::parse("sandbox 7-1 acme/web idle 5s image=im-1; runner 7-1 acme/web online 5s");
    let class = ClassName::new("default");
    situation.evidence.learn(&situation.observed, &situation.policy, &[], now());
    assert!(!situation.evidence.images.is_on_trial(&class, &ImageId::new("im-1")));
    let creates = |situation: &Situation, image: &str| {
        let text = (20..40).map(|job| format!("job {job} acme/web queued 40s;")).collect::<Vec<_>>().concat();
        let mut after = Situation::parse(&text);
        after.evidence.images = situation.evidence.images.clone();
        after.observed.images.insert(ClassName::new("default"), ImageState::Ready(ImageId::new(image)));
        after.plan().to_string().matches("create sr-").count()
    };
    assert_eq!((creates(&situation, "im-1"), creates(&situation, "im-2")), (20, 3));
}
