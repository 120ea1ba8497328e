//! Claim feedback and breakers: what waiting in vain and failed starts hold back, and for how long.

use crate::situation::{Situation, name, now, scope};
use chrono::TimeDelta;
use sandrunner::class::ImageSource;
use sandrunner::ids::{Labels, RunId};
use sandrunner::plan::{Action, Plan, plan};
use sandrunner::state::{JobStatus, Registry};

fn learn(situation: &mut Situation, after: i64) {
    situation.evidence.learn(&situation.observed, &situation.policy, &[], now() + TimeDelta::seconds(after));
}

/// What is there is replaced, what was learned stays.
fn becomes(situation: &mut Situation, text: &str) {
    situation.observed = Situation::parse(text).observed;
}

fn planned(situation: &Situation, after: i64) -> Plan {
    plan(&situation.observed, &situation.evidence, &situation.policy, now() + TimeDelta::seconds(after))
}

fn creates(plan: &Plan) -> Vec<u64> {
    let creates = plan.actions.iter().filter_map(|action| match action {
        Action::Create(create) => Some(create.name.job.0),
        Action::PrepareImage { .. }
        | Action::Deregister { .. }
        | Action::Terminate { .. }
        | Action::DeleteSecret { .. } => None,
    });
    creates.collect()
}

fn reasons(plan: &Plan) -> Vec<(u64, &'static str)> {
    let mut reasons: Vec<_> = plan.skips.iter().map(|skip| (skip.job.0, skip.reason.as_str())).collect();
    reasons.sort_unstable();
    reasons
}

/// Fresh readings of what is there, that began `after` seconds from now.
fn read(situation: &mut Situation, after: i64) {
    let at = now() + TimeDelta::seconds(after);
    situation.observed.fleet.read.succeeded(at);
    for run in situation.observed.repos.values_mut().flat_map(|repo| repo.runs.values_mut()) {
        run.jobs_read.succeeded(at);
    }
}

const IDLE: &str = "sandbox 6-1 acme/web idle 100s; job 7 acme/web queued 120s; job 8 acme/web queued 120s";

#[test]
fn jobs_that_were_queued_while_a_runner_waited_in_vain_share_one_probe() {
    let mut situation = Situation::parse(&format!("{IDLE}; job 9 acme/web queued 50s"));
    learn(&mut situation, 1);
    // The idle runner stands for the one job that came later.
    let plan = planned(&situation, 1);
    assert_eq!(reasons(&plan), [(7, "unproven"), (8, "unproven"), (9, "already_served")]);
    // Without it that job has a runner of its own at once, the others wait a minute for theirs.
    situation.observed.fleet.sandboxes.clear();
    assert_eq!(creates(&planned(&situation, 1)), [9]);
    assert_eq!(planned(&situation, 1).skips[0].again_at, now() + TimeDelta::seconds(61));
    read(&mut situation, 61);
    assert_eq!(creates(&planned(&situation, 61)), [7, 9], "one probe for both");
}

#[test]
fn a_reading_from_before_the_window_ended_proves_nothing() {
    let mut situation = Situation::parse(&format!("{IDLE}; old-jobs 20s"));
    learn(&mut situation, 1);
    assert_eq!(reasons(&planned(&situation, 1)), [(8, "already_served")]);
    assert_eq!(creates(&planned(&situation, 1)), [7]);
}

#[test]
fn a_claim_admits_one_more_at_once_and_not_all() {
    let mut situation = Situation::parse(IDLE);
    learn(&mut situation, 1);
    becomes(
        &mut situation,
        "sandbox 6-1 acme/web idle 100s; job 7 acme/web in_progress runner=6-1; job 8 acme/web queued 120s; \
         job 10 acme/web queued 120s",
    );
    read(&mut situation, 2);
    let unproven = situation.evidence.jobs[&sandrunner::ids::JobId(8)].waiting.clone();
    situation.evidence.jobs.get_mut(&sandrunner::ids::JobId(8)).unwrap().waiting = unproven.clone();
    learn(&mut situation, 3);
    situation.evidence.jobs.get_mut(&sandrunner::ids::JobId(10)).unwrap().waiting = unproven;
    let plan = planned(&situation, 3);
    assert_eq!(creates(&plan), [8]);
    assert_eq!(reasons(&plan), [(10, "unproven")]);
}

#[test]
fn as_many_probes_are_made_as_jobs_were_taken_in_the_last_minute_and_ran_at_the_same_time() {
    let queued = "job 11 acme/web queued 120s; job 12 acme/web queued 120s; job 13 acme/web queued 120s; \
                  job 14 acme/web queued 120s";
    let mut situation = Situation::parse(&format!("sandbox 6-1 acme/web idle 100s; {queued}"));
    learn(&mut situation, 1);
    let unproven = situation.evidence.jobs[&sandrunner::ids::JobId(11)].waiting.clone();
    assert!(unproven.unproven_since.is_some());
    becomes(
        &mut situation,
        &format!(
            "sandbox 1-1 acme/web claimed 90s; sandbox 2-1 acme/web claimed 90s; sandbox 3-1 acme/web claimed 90s; {queued}; \
             job 1 acme/web in_progress runner=1-1; job 2 acme/web in_progress runner=2-1; \
             job 3 acme/web in_progress runner=3-1"
        ),
    );
    let started = now() - TimeDelta::seconds(5);
    let runs = situation.observed.repos.values_mut().flat_map(|repo| repo.runs.values_mut());
    runs.flat_map(|run| run.jobs.values_mut()).for_each(|job| job.started_at = Some(started));
    read(&mut situation, 2);
    learn(&mut situation, 3);
    for job in 11..=14 {
        situation.evidence.jobs.get_mut(&sandrunner::ids::JobId(job)).unwrap().waiting = unproven.clone();
    }
    assert_eq!(creates(&planned(&situation, 3)), [11, 12, 13]);
    read(&mut situation, 64);
    assert_eq!(creates(&planned(&situation, 64)), [11], "a minute without a claim");
}

#[test]
fn nobody_is_thought_to_wait_in_vain_before_the_jobs_were_read_that_it_may_have_taken() {
    let mut situation = Situation::parse(
        "sandbox 6-1 acme/web idle 100s; job 7 acme/web queued 120s run=1; job 8 acme/web queued 120s run=2",
    );
    let other = situation.observed.repos.values_mut().next().unwrap().runs.get_mut(&RunId(2)).unwrap();
    other.jobs_read.succeeded(now() - TimeDelta::seconds(50));
    learn(&mut situation, 1);
    assert!(reasons(&planned(&situation, 1)).iter().all(|(_, reason)| *reason != "unproven"));
    read(&mut situation, 2);
    learn(&mut situation, 3);
    assert!(reasons(&planned(&situation, 3)).iter().any(|(_, reason)| *reason == "unproven"));
}

#[test]
fn a_ghost_that_was_read_long_ago_does_not_make_a_dead_sandbox_count() {
    let mut situation = Situation::parse(
        "job 7 acme/web queued 200s run=1; job 8 acme/web queued 90000s run=2; sandbox 7-1 acme/web ended=68 60s",
    );
    situation.evidence.jobs.get_mut(&sandrunner::ids::JobId(8)).unwrap().waiting.unclaimed = 3;
    let ghost = situation.observed.repos.values_mut().next().unwrap().runs.get_mut(&RunId(2)).unwrap();
    ghost.jobs_read.succeeded(now() - TimeDelta::seconds(1_200));
    learn(&mut situation, 1);
    let plan = planned(&situation, 1);
    assert_eq!((creates(&plan), reasons(&plan)), (vec![7], vec![(8, "ghost_job")]));
}

#[test]
fn a_pause_after_failed_starts_is_over_once_a_runner_of_the_class_starts() {
    let mut situation = Situation::parse("job 7 acme/web queued; fruitless 7 5 30s");
    let class = sandrunner::ids::ClassName::new("default");
    situation.evidence.started_at.insert(class.clone(), now() - TimeDelta::seconds(10));
    assert_eq!(reasons(&planned(&situation, 1)), [(7, "fruitless")], "its runners came online");
    situation.evidence.jobs.get_mut(&sandrunner::ids::JobId(7)).unwrap().came = sandrunner::evidence::Phase::Start;
    assert_eq!(creates(&planned(&situation, 1)), [7]);
    situation.evidence.started_at.insert(class, now() - TimeDelta::seconds(31));
    assert_eq!(reasons(&planned(&situation, 1)), [(7, "fruitless")]);
}

#[test]
fn the_end_of_a_job_makes_the_next_probe_due() {
    let mut situation = Situation::parse(&format!("{IDLE}; job 5 acme/web in_progress runner=5-1"));
    learn(&mut situation, 1);
    situation.observed.fleet.sandboxes.clear();
    let group = situation.evidence.groups.values_mut().next().unwrap();
    group.claimed_at = None;
    assert_eq!(creates(&planned(&situation, 2)), [0; 0]);
    let run = situation.observed.repos.values_mut().next().unwrap().runs.get_mut(&RunId(1)).unwrap();
    run.jobs.values_mut().find(|job| job.id.0 == 5).unwrap().status = JobStatus::Completed;
    read(&mut situation, 2);
    learn(&mut situation, 3);
    let group = situation.evidence.groups.values_mut().next().unwrap();
    group.claimed_at = None;
    assert_eq!(creates(&planned(&situation, 3)), [7]);
}

#[test]
fn a_job_for_which_three_runners_waited_in_vain_is_a_ghost_until_its_run_changes() {
    let mut situation = Situation::parse("job 7 acme/web queued 900s");
    for attempt in 1..=3 {
        becomes(&mut situation, &format!("job 7 acme/web queued 900s; sandbox 7-{attempt} acme/web ended=64 0s"));
        learn(&mut situation, attempt);
    }
    becomes(&mut situation, "job 7 acme/web queued 900s");
    read(&mut situation, 4);
    learn(&mut situation, 4);
    let plan = planned(&situation, 3_000);
    assert_eq!(reasons(&plan), [(7, "ghost_job")]);
    assert_eq!(plan.skips[0].again_at, now() + TimeDelta::seconds(4) + TimeDelta::hours(1));
    let run = situation.observed.repos.get_mut(&scope("acme/web")).unwrap().runs.get_mut(&RunId(1)).unwrap();
    run.run.updated_at = Some(now());
    read(&mut situation, 3_000);
    learn(&mut situation, 3_001);
    assert_eq!(creates(&planned(&situation, 3_001)), [7]);
}

#[test]
fn a_ghost_gets_one_more_runner_after_pauses_that_double() {
    let mut situation = Situation::parse("job 7 acme/web queued 900s");
    let mut attempt = 0;
    let mut in_vain = |situation: &mut Situation, at: i64| {
        attempt += 1;
        becomes(situation, &format!("job 7 acme/web queued 900s; sandbox 7-{attempt} acme/web ended=64 0s"));
        learn(situation, at);
        becomes(situation, "job 7 acme/web queued 900s");
        read(situation, at + 1);
        learn(situation, at + 1);
    };
    for at in [1, 3, 5] {
        in_vain(&mut situation, at);
    }
    let mut at = 5;
    for hours in [1, 2, 4, 8, 16, 24, 24] {
        let due = at + hours * 3_600;
        for (at, expected) in [(due - 1, vec![]), (due, vec![7])] {
            read(&mut situation, at);
            learn(&mut situation, at);
            assert_eq!(creates(&planned(&situation, at)), expected, "after {hours} h");
        }
        in_vain(&mut situation, due + 60);
        at = due + 60;
    }
}

fn queued(count: u64) -> String {
    let jobs: Vec<String> = (101..=100 + count).map(|id| format!("; job {id} acme/web queued")).collect();
    jobs.concat()
}

#[test]
fn a_refused_runner_version_stops_its_image_but_for_one_probe_at_a_time() {
    let mut situation = Situation::parse(&format!("sandbox 7-1 acme/web ended=65 5s{}", queued(20)));
    learn(&mut situation, 0);
    let plan = planned(&situation, 1);
    assert!(creates(&plan).is_empty() && plan.skips.len() == 20);
    assert_eq!(plan.skips[0].reason.as_str(), "breaker");
    assert!(plan.skips[0].reason.to_string().contains("version_refused"), "{}", plan.skips[0].reason);
    read(&mut situation, 60);
    assert_eq!(creates(&planned(&situation, 60)), [101]);
    becomes(&mut situation, &format!("creating 101-1 acme/web{}", queued(20)));
    read(&mut situation, 61);
    assert!(creates(&planned(&situation, 61)).is_empty());
}

#[test]
fn only_runners_of_an_image_speak_for_it() {
    let of_former = "sandbox 7-1 acme/web ended=65 5s image=im-former";
    let mut situation = Situation::parse(&format!("{of_former}{}", queued(5)));
    learn(&mut situation, 0);
    assert_eq!(creates(&planned(&situation, 1)).len(), 5, "the image was made anew since");
    let mut situation = Situation::parse(&format!("sandbox 7-1 acme/web ended=65 5s{}", queued(5)));
    learn(&mut situation, 0);
    // Nor those that had started before it was refused: they may have been online by then.
    for (at, id, options, created) in [(2, 9, "-1s image=im-former", 0), (3, 10, "5s", 0), (4, 11, "-1s", 5)] {
        let online = format!("sandbox {id}-1 acme/api starting {options}; runner {id}-1 acme/api online{}", queued(5));
        becomes(&mut situation, &online);
        read(&mut situation, at);
        situation.registry("acme/api").runners_read.succeeded(now() + TimeDelta::seconds(at));
        learn(&mut situation, at);
        assert_eq!(creates(&planned(&situation, at)).len(), created, "{options}");
    }
}

#[test]
fn three_starts_that_never_registered_open_the_class_and_one_online_runner_closes_it() {
    let ended = |count: u64| {
        let sandboxes: Vec<String> = (1..=count).map(|id| format!("sandbox {id}-1 acme/web ended=66 5s; ")).collect();
        sandboxes.concat()
    };
    for (failed, created) in [(2, 5), (3, 0)] {
        let mut situation = Situation::parse(&format!("{}{}", ended(failed), queued(5).trim_start_matches("; ")));
        learn(&mut situation, 0);
        assert_eq!(creates(&planned(&situation, 1)).len(), created, "after {failed} failed starts");
    }
    let mut situation = Situation::parse(&format!("{}{}", ended(3), queued(5).trim_start_matches("; ")));
    learn(&mut situation, 0);
    becomes(&mut situation, &format!("sandbox 9-1 acme/api starting 5s; runner 9-1 acme/api online 5s{}", queued(5)));
    learn(&mut situation, 2);
    assert_eq!(creates(&planned(&situation, 2)).len(), 5);
}

#[test]
fn an_image_of_a_registry_is_made_anew_where_its_runners_are_refused_and_not_where_they_fail() {
    for (exit, expected) in [(65, true), (66, false)] {
        let sandboxes: Vec<String> = (1..=3).map(|id| format!("sandbox {id}-1 acme/web ended={exit} 5s; ")).collect();
        let mut situation = Situation::parse(&format!("{}{}", sandboxes.concat(), queued(1).trim_start_matches("; ")));
        situation.policy.classes.last_mut().unwrap().image = ImageSource::Registry("acme/runner:1".to_owned());
        learn(&mut situation, 0);
        let plan = planned(&situation, 1);
        assert_eq!(plan.skips[0].reason.as_str(), "breaker");
        let is_made_anew = plan.actions.iter().any(|action| matches!(action, Action::PrepareImage { .. }));
        assert_eq!(is_made_anew, expected, "after exit {exit}: {plan}");
    }
}

#[test]
fn a_runner_that_stays_online_says_nothing_of_those_that_start_later() {
    for exit in [65, 66] {
        let ended: Vec<String> = (1..=3).map(|id| format!("; sandbox {id}-1 acme/web ended={exit} 5s")).collect();
        let online = "sandbox 9-1 acme/api starting 5s; runner 9-1 acme/api online 5s";
        let mut situation = Situation::parse(online);
        learn(&mut situation, 0);
        for at in [5, 10] {
            becomes(&mut situation, &format!("{online}{}{}", ended.concat(), queued(5)));
            read(&mut situation, at);
            situation.registry("acme/api").runners_read.succeeded(now() + TimeDelta::seconds(at));
            learn(&mut situation, at);
            assert!(creates(&planned(&situation, at)).is_empty(), "exit {exit}, after {at} s");
        }
        // Nor that it is given a job.
        let busy = "sandbox 9-1 acme/api starting 5s; job 9 acme/api in_progress runner=9-1";
        becomes(&mut situation, &format!("{busy}{}{}", ended.concat(), queued(5)));
        read(&mut situation, 15);
        learn(&mut situation, 15);
        assert!(creates(&planned(&situation, 15)).is_empty(), "exit {exit}, with a job");
        let another = online.replace("9-1", "10-1").replace("starting 5s", "starting -18s");
        becomes(&mut situation, &format!("{another}{}{}", ended.concat(), queued(5)));
        read(&mut situation, 20);
        situation.registry("acme/api").runners_read.succeeded(now() + TimeDelta::seconds(20));
        learn(&mut situation, 20);
        assert_eq!(creates(&planned(&situation, 20)).len(), 5, "exit {exit}");
    }
}

#[test]
fn a_runner_that_is_online_before_its_sandbox_is_listed_closes_the_breaker_when_it_is() {
    for exit in [65, 66] {
        let ended: Vec<String> = (1..=3).map(|id| format!("sandbox {id}-1 acme/web ended={exit} 5s; ")).collect();
        let mut situation = Situation::parse(&format!("{}{}", ended.concat(), &queued(5)[2..]));
        learn(&mut situation, 0);
        let runner = "runner 9-1 acme/api online";
        let lists = [("creating 9-1 acme/api", 0), ("sandbox 9-1 acme/api starting -3s", 5)];
        for (at, (sandbox, created)) in [5, 10].into_iter().zip(lists) {
            becomes(&mut situation, &format!("{sandbox}; {runner}{}", queued(5)));
            read(&mut situation, at);
            situation.registry("acme/api").runners_read.succeeded(now() + TimeDelta::seconds(at));
            learn(&mut situation, at);
            assert_eq!(creates(&planned(&situation, at)).len(), created, "exit {exit}, after {at} s");
        }
    }
}

#[test]
fn what_failed_together_counts_once_whatever_the_difference_of_the_clocks() {
    for (exit, opens_with) in [(65, 1), (66, 3)] {
        for hours in [-1, 0, 1] {
            let all = |count: u64| {
                let sandboxes = (1..=count).map(|id| format!("sandbox {id}-1 acme/web ended={exit} 60s; "));
                let mut observed =
                    Situation::parse(&format!("{}{}", sandboxes.collect::<String>(), &queued(1)[2..])).observed;
                observed.skew = TimeDelta::hours(hours);
                for sandbox in observed.fleet.sandboxes.values_mut() {
                    sandbox.created_at += observed.skew;
                    sandbox.started_at = sandbox.started_at.map(|at| at + observed.skew);
                }
                observed
            };
            let mut situation = Situation::parse("job 101 acme/web queued");
            for (at, count) in [(0, opens_with), (5, opens_with + 4)] {
                situation.observed = all(count);
                learn(&mut situation, at);
            }
            let evidence = &situation.evidence;
            let breakers: Vec<u32> = match exit {
                65 => evidence.refused_images.values().map(|breaker| breaker.failures).collect(),
                _ => evidence.failed_starts.values().map(|breaker| breaker.failures).collect(),
            };
            assert_eq!(breakers, [u32::try_from(opens_with).unwrap()], "exit {exit}, clocks {hours} h apart");
        }
    }
}

#[test]
fn no_breaker_blocks_a_group_that_had_a_claim_lately() {
    let jobs = queued(5);
    let ended = "sandbox 1-1 acme/web ended=66 5s; sandbox 2-1 acme/web ended=66 5s; sandbox 3-1 acme/web ended=66 5s";
    let mut situation = Situation::parse(&format!("{ended}{jobs}"));
    learn(&mut situation, 0);
    becomes(&mut situation, &format!("sandbox 8-1 acme/web starting 5s; job 8 acme/web in_progress runner=8-1{jobs}"));
    situation.evidence.names.entry(name("8-1")).or_default().origin = None;
    read(&mut situation, 1);
    learn(&mut situation, 1);
    assert_eq!(creates(&planned(&situation, 2)).len(), 5);
}

#[test]
fn a_claim_from_before_a_refused_version_says_nothing_of_it() {
    let jobs = queued(5);
    let claimed = "sandbox 8-1 acme/web starting 5s; job 8 acme/web in_progress runner=8-1";
    let mut situation = Situation::parse(&format!("{claimed}{jobs}"));
    situation.evidence.names.entry(name("8-1")).or_default().origin = None;
    learn(&mut situation, 0);
    for (exit, created) in [(65, 0), (66, 5)] {
        let mut situation = situation.clone();
        let failed: Vec<String> = (1..=3).map(|id| format!("; sandbox {id}-1 acme/web ended={exit} 5s")).collect();
        becomes(&mut situation, &format!("{claimed}{}{jobs}", failed.concat()));
        read(&mut situation, 30);
        learn(&mut situation, 30);
        assert_eq!(creates(&planned(&situation, 31)).len(), created, "after exit {exit}");
    }
}

/// Jobs 1 to `count` ran for a minute each, so far apart; then the wave that 30 more jobs get.
fn wave_after(count: i64, apart_secs: i64) -> usize {
    let jobs: Vec<String> = (1..=count).map(|id| format!("job {id} acme/web completed runner={id}-1; ")).collect();
    let mut situation = Situation::parse(&format!("{}{}", jobs.concat(), queued(30).trim_start_matches("; ")));
    situation.policy.waves.first = 1;
    let run = situation.observed.repos.values_mut().next().unwrap().runs.get_mut(&RunId(1)).unwrap();
    for job in run.jobs.values_mut().filter(|job| job.status == JobStatus::Completed) {
        let began = i64::try_from(job.id.0).unwrap() * apart_secs;
        job.started_at = Some(now() + TimeDelta::seconds(began));
        job.completed_at = Some(now() + TimeDelta::seconds(began + 60));
    }
    learn(&mut situation, 0);
    creates(&planned(&situation, 1)).len()
}

#[test]
fn while_runners_wait_in_vain_new_jobs_get_few_runners() {
    let news: Vec<String> = (20..40).map(|id| format!("; job {id} acme/web queued")).collect();
    let waves = |claimed_ago: Option<i64>, is_in_vain: bool| {
        let idle = if is_in_vain { IDLE } else { "job 8 acme/web completed" };
        let mut situation = Situation::parse(&format!("{idle}{}", news.concat()));
        learn(&mut situation, 1);
        let labels = Labels::new(["modal"]).fingerprint();
        let group = situation.evidence.groups.entry((Registry::Repo(scope("acme/web")), labels)).or_default();
        assert_eq!(group.breaker.is_some(), is_in_vain);
        group.claimed_at = claimed_ago.map(|ago| now() - TimeDelta::seconds(ago));
        situation.observed.fleet.sandboxes.clear();
        creates(&planned(&situation, 1)).len()
    };
    assert_eq!(waves(None, true), 3);
    assert_eq!(waves(None, false), 20);
    assert_eq!(waves(Some(900), false), 20);
    assert!(waves(Some(10), true) > 3, "it had a claim lately");
}

#[test]
fn a_wave_is_what_was_run_at_the_same_time_and_more() {
    let wave = |first: u32, parallel: u32| {
        let mut situation = Situation::parse(queued(60).trim_start_matches("; "));
        situation.policy.waves.first = first;
        let labels = Labels::new(["modal"]).fingerprint();
        situation.evidence.parallel.insert((scope("acme/web"), labels, RunId(1)), parallel);
        creates(&planned(&situation, 0)).len()
    };
    assert_eq!((wave(20, 2), wave(1, 3), wave(1, 4), wave(4, 4)), (22, 6, 12, 12));
}

#[test]
fn a_wave_grows_with_what_github_runs_at_the_same_time() {
    assert_eq!(wave_after(0, 60), 1);
    assert_eq!(wave_after(1, 60), 2);
    assert_eq!(wave_after(8, 60), 2, "one after the other is no more than one");
    assert_eq!(wave_after(8, 0), 24);
}
