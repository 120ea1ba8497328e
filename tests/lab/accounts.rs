//! Accounts of every kind: a GitHub App whose tokens end every hour, tokens, an Enterprise Server; and repositories
//! that come, go and change while they are served.

use std::time::Duration;

use chrono::TimeDelta;
use sandrunner::config::GithubConfig;
use sandrunner::http::webhook::Hint;
use sandrunner::ids::RunId;
use sandrunner::sim::{Fault, FaultMode, Operation, Profile, RepoAbout, Scenario, ScenarioJob, Service, What, World};
use sandrunner::status::{CredentialKind, Status};
use serde_json::json;
use tokio::sync::oneshot;
use tracing::Level;

use crate::lab::{Lab, Next, Outcome, Questions, app_account, is_done_and_clean};
use crate::log::Log;

const HOUR: f64 = 3_600.0;

/// A job of a repository, the n-th of all.
fn job(n: u64, repo: &str, arrival_secs: f64) -> ScenarioJob {
    let (id, run) = (5_000_000_000 + n, 6_000_000_000 + n);
    let labels = ["self-hosted", "modal"];
    let job = json!({ "id": id, "run": run, "repo": repo, "labels": labels, "duration_secs": 60, "arrival_secs": arrival_secs });
    serde_json::from_value(job).expect("a job")
}

/// A job every ten minutes, of each repository in turn.
fn scenario(repos: &[&str], hours: u32) -> Scenario {
    let jobs = (0..u64::from(hours) * 6).map(|n| {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let arrival = n as f64 * 600.0;
        job(n, repos[usize::try_from(n).expect("few") % repos.len()], arrival)
    });
    let repos = repos.iter().map(|name| serde_json::from_value(json!({ "name": name })).expect("a repository"));
    Scenario { repos: repos.collect(), jobs: jobs.collect(), ..Scenario::default() }
}

fn with_app(profile: Profile, scenario: Scenario, allowed: &[&str]) -> Lab {
    Lab::new(profile, scenario, 3).configure(|config| config.github = vec![app_account("gh", allowed)])
}

/// GitHub's answers to an operation that have that status.
fn count(outcome: &Outcome, wanted: Operation, wanted_status: u16) -> usize {
    let is_it = |what: &What| matches!(what, What::Call { operation, status, .. } if (*operation, *status) == (wanted, wanted_status));
    outcome.times(is_it).len()
}

fn unauthorized(outcome: &Outcome) -> usize {
    let is_it = |what: &What| matches!(what, What::Call { service: Service::Github, status: 401, .. });
    outcome.times(is_it).len()
}

fn check(outcome: &Outcome) {
    let report = &outcome.report;
    assert!(report.violations.is_empty(), "{}", outcome.summary());
    assert!(report.jobs_expected > 0 && report.jobs_completed == report.jobs_expected, "{}", outcome.summary());
    assert_eq!((report.sandboxes_live_at_end, report.runners_left_at_end), (0, 0));
    assert_eq!((report.claimed_sandboxes_terminated, report.foreign_touched, report.github_rate_limited), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_app_with_two_installations_serves_for_hours_while_its_tokens_rotate() {
    let repos = ["acme/web", "acme/api", "beta/tool"];
    let lab = with_app(Profile::realistic(), scenario(&repos, 5), &["acme/*", "Beta/tool"]);
    let outcome = lab.run(Duration::from_secs(7 * 3_600), is_done_and_clean).await;
    check(&outcome);
    assert_eq!(unauthorized(&outcome), 0, "{}", outcome.summary());
    // About every 48 minutes, for each of both.
    let tokens = count(&outcome, Operation::InstallationToken, 201);
    assert!((12..=18).contains(&tokens), "{tokens}");
    assert!(count(&outcome, Operation::ListRuns, 304) > 5 * count(&outcome, Operation::ListRuns, 200));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_revoked_or_not_to_be_had_delay_and_lose_nothing() {
    let lab = with_app(Profile::realistic(), scenario(&["acme/web", "beta/tool"], 3), &["acme/web", "beta/*"]);
    for name in ["app_tokens_revoked", "app_token_failed", "app_token_lost", "app_token_slow"] {
        lab.world.add_fault(name).expect("a fault");
    }
    let outcome = lab.run(Duration::from_secs(5 * 3_600), is_done_and_clean).await;
    check(&outcome);
    let refused = unauthorized(&outcome);
    assert!((1..=40).contains(&refused), "only what was under way is refused: {refused}");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_installation_stops_its_owner_and_nobody_else() {
    let jobs = vec![job(1, "acme/web", 1_800.0), job(2, "beta/tool", 1_800.0)];
    let lab = with_app(Profile::calm(), Scenario { jobs, ..scenario(&["acme/web", "beta/tool"], 0) }, &["*"]);
    let questions = lab.questions();
    let mut asked = Asked::default();
    let outcome = lab
        .drive(Duration::from_secs(4 * 3_600), Duration::from_secs(60), |world| {
            let minute = minutes(world);
            match minute {
                20 => world.suspend_app("acme"),
                90 => asked.ask(&questions),
                100 => world.unsuspend_app("acme"),
                _ => {}
            }
            if is_over(world, minute) { Next::End } else { Next::GoOn }
        })
        .await;
    check(&outcome);
    let taken = outcome.times(|what| matches!(what, What::JobAssigned { .. }));
    assert!(taken[0] < 2_000.0 && taken[1] > 6_000.0, "{taken:?}");
    let status = asked.answer().await;
    let acme = status.credentials.iter().find(|one| one.credential.to_string() == "gh/acme").expect("a credential");
    assert_eq!(acme.is_suspended, Some(true));
    let account = &status.accounts[0];
    assert_eq!((account.credential, &account.problem), (CredentialKind::App, &None));
    assert!(account.installations_known_at.is_some(), "{account:?}");
    let installed: Vec<_> = account.installations.iter().map(|one| (&*one.owner, one.is_suspended)).collect();
    assert_eq!(installed, [("acme", true), ("beta", false)]);
    assert!(acme.last_failure.as_ref().is_some_and(|told| told.contains("suspended")), "{acme:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_a_token_and_an_enterprise_server_are_served_side_by_side() {
    let repos = ["acme/web", "beta/tool", "gamma/app"];
    let lab = Lab::new(Profile::realistic(), scenario(&repos, 3), 5).configure(|config| {
        let token = |name: &str, repo: &str| GithubConfig {
            name: name.to_owned(),
            token: Some("simulated".to_owned().into()),
            allowed_repos: vec![repo.to_owned()],
            ..GithubConfig::default()
        };
        let server = GithubConfig { host: Some("ghe.acme.example".to_owned()), ..token("ghe", "gamma/*") };
        config.github = vec![app_account("gh", &["acme/*"]), token("tok", "beta/tool"), server];
    });
    let outcome = lab.run(Duration::from_secs(5 * 3_600), is_done_and_clean).await;
    check(&outcome);
    assert_eq!(unauthorized(&outcome), 0);
    let names = outcome.history.iter().filter_map(|event| {
        let What::JobAssigned { runner, .. } = &event.what else { return None };
        runner.split('-').nth(2).map(str::to_owned)
    });
    let accounts: std::collections::BTreeSet<String> = names.collect();
    assert_eq!(accounts.into_iter().collect::<Vec<_>>(), ["gh", "ghe", "tok"]);
}

/// A question that was put to the controller while it ran.
#[derive(Default)]
struct Asked(Option<oneshot::Receiver<Status>>);

impl Asked {
    fn ask(&mut self, questions: &Questions) {
        self.0.get_or_insert_with(|| questions.ask());
    }

    async fn answer(self) -> Status {
        self.0.expect("it was asked").await.expect("it is answered")
    }
}

fn minutes(world: &World) -> i64 {
    (world.clock().now() - crate::lab::epoch()).num_minutes()
}

fn is_directory(what: &What) -> bool {
    matches!(what, What::Call { operation: Operation::ListInstallationRepos, .. })
}

/// Every job has ended and the story is over.
fn is_over(world: &World, minute: i64) -> bool {
    minute > 110 && world.summary().expected_jobs_open == 0 && world.summary().sandboxes_live == 0
}

#[tokio::test(start_paused = true)]
async fn repositories_come_and_go_and_change_while_the_others_are_served() {
    let repos = ["acme/web", "acme/old", "acme/gone", "acme/blinks", "acme/moves", "acme/secret"];
    let lab = with_app(Profile::calm(), scenario(&repos, 0), &["acme/*", "!acme/secret"]);
    let questions = lab.questions();
    let (mut before, mut after) = (Asked::default(), Asked::default());
    let mut lists_before = 0;
    let outcome = lab
        .drive(Duration::from_secs(6 * 3_600), Duration::from_secs(60), |world| {
            let minute = minutes(world);
            match minute {
                5 => {
                    world.set_repo("acme/new", RepoAbout::default());
                    world.set_repo("acme/old", RepoAbout { archived: true, ..RepoAbout::default() });
                    world.delete_repo("acme/gone");
                    world.rename_repo("acme/moves", "acme/moved");
                    world.delete_repo("acme/blinks");
                }
                80 => {
                    let jobs = [(1, "acme/new"), (2, "acme/moved"), (3, "acme/blinks"), (4, "acme/web")];
                    world.add_jobs(jobs.map(|(n, repo)| job(n, repo, 0.0)).to_vec()).expect("jobs");
                }
                60 => after.ask(&questions),
                _ => {}
            }
            // Between the list that lacks it and the one that would confirm that.
            let lists = world.history(0).iter().filter(|event| is_directory(&event.what)).count();
            if minute == 5 {
                lists_before = lists;
            } else if minute > 5 && lists == lists_before + 1 && before.0.is_none() {
                before.ask(&questions);
                world.restore_repo("acme/blinks");
            }
            let served =
                world.history(0).iter().filter(|event| matches!(event.what, What::JobCompleted { .. })).count();
            if minute > 100 && served == 4 { Next::End } else { Next::GoOn }
        })
        .await;
    let taken = outcome.times(|what| matches!(what, What::JobAssigned { .. }));
    assert!(taken.len() == 4 && taken.iter().all(|at| *at < 1.5 * HOUR), "{taken:?}");
    let status = after.answer().await;
    let told: Vec<String> = status.paused.iter().map(|(repo, why)| format!("{repo}: {why}")).collect();
    assert_eq!(
        told,
        ["acme/gone: it is no longer listed", "acme/moves: it is now called acme/moved", "acme/old: it is archived"]
    );
    assert_eq!(
        status.owners.iter().map(|owner| (owner.owner.as_str(), owner.served)).collect::<Vec<_>>(),
        [("gh/acme", 5)]
    );
    assert!(before.answer().await.coverage.repositories >= 5);
    let secret = outcome
        .history
        .iter()
        .filter(|event| matches!(&event.what, What::Call { subject, .. } if subject == "acme/secret"));
    assert_eq!(secret.count(), 0, "what is excluded is not read");
    // What is paused is hardly asked for.
    let asked = outcome.times(|what| matches!(what, What::Call { subject, .. } if subject == "acme/old"));
    let late = asked.iter().filter(|at| **at > 1.2 * HOUR).count();
    assert!(late < 10, "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_nudge_of_a_repository_that_is_meant_and_new_has_the_list_read() {
    let lab = with_app(Profile::calm(), scenario(&["acme/web"], 0), &["acme/*", "!acme/secret"]);
    let nudges = lab.nudges();
    let (mut is_told, mut lists_before) = (false, 0);
    let next = |world: &World| {
        let lists = || world.history(0).iter().filter(|event| is_directory(&event.what)).count();
        if minutes(world) == 10 && !is_told {
            is_told = true;
            for repo in ["acme/new", "acme/secret"] {
                world.set_repo(repo, RepoAbout::default());
            }
            world.add_jobs(vec![job(1, "acme/new", 0.0)]).expect("a job");
            lists_before = lists();
            // Whatever is told of what is not meant makes nothing be read.
            nudges.give(Hint { repo: "acme/secret".parse().expect("a name"), run: RunId(1) });
        }
        if minutes(world) == 15 {
            assert_eq!(lists(), lists_before);
            nudges.give(Hint { repo: "acme/new".parse().expect("a name"), run: RunId(6_000_000_001) });
        }
        let has_ended = world.history(0).iter().any(|event| matches!(event.what, What::JobCompleted { .. }));
        if has_ended && is_done_and_clean(world) { Next::End } else { Next::GoOn }
    };
    let outcome = lab.drive(Duration::from_secs(3_600), Duration::from_secs(60), next).await;
    let taken = outcome.times(|what| matches!(what, What::JobAssigned { .. }));
    assert!(taken.len() == 1 && taken[0] < 17.0 * 60.0, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_of_repositories_is_not_believed_for_an_hour() {
    let lab = with_app(Profile::calm(), scenario(&["acme/web"], 1), &["acme/*"]);
    let empty = Fault { times: 3, ..Fault::new(Operation::ListInstallationRepos, FaultMode::Empty) };
    lab.world.add_fault(empty).expect("a fault");
    let outcome = lab.run(Duration::from_secs(3 * 3_600), is_done_and_clean).await;
    check(&outcome);
    let taken = outcome.times(|what| matches!(what, What::JobAssigned { .. }));
    assert!(taken.first().is_some_and(|first| *first < 720.0), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_knows_the_sandboxes_of_repositories_that_no_list_has_shown_yet() {
    let jobs = vec![ScenarioJob { duration_secs: 1_200.0, ..job(1, "acme/web", 60.0) }, job(2, "acme/web", 900.0)];
    let lab = with_app(Profile::calm(), Scenario { jobs, ..scenario(&["acme/web"], 0) }, &["acme/*"]);
    let hidden = Fault { times: 40, after: 1, ..Fault::new(Operation::ListInstallationRepos, FaultMode::Error) };
    lab.world.add_fault(hidden).expect("a fault");
    let questions = lab.questions();
    let (mut killed, mut asked) = (false, Asked::default());
    let outcome = lab
        .drive(Duration::from_secs(3 * 3_600), Duration::from_secs(30), |world| match minutes(world) {
            5 if !killed => {
                killed = true;
                Next::Kill
            }
            7 => {
                asked.ask(&questions);
                Next::GoOn
            }
            minute if is_over(world, minute) => Next::End,
            _ => Next::GoOn,
        })
        .await;
    check(&outcome);
    let status = asked.answer().await;
    assert_eq!(status.coverage.repositories, 0, "its list could not be read");
    assert_eq!(status.groups.len(), 1, "its sandbox is known all the same");
}

#[tokio::test(start_paused = true)]
async fn a_users_repositories_cannot_be_listed_with_a_token_and_that_is_told() {
    let jobs = vec![job(1, "acme/web", 60.0), job(2, "me/mine", 60.0)];
    let scenario = Scenario { jobs, users: vec!["me".to_owned()], ..scenario(&["acme/web", "me/mine", "me/other"], 0) };
    let lab = Lab::new(Profile::calm(), scenario, 3).configure(|config| {
        config.github[0].allowed_repos = ["me/*", "me/mine", "acme/*"].map(str::to_owned).to_vec();
    });
    let questions = lab.questions();
    let mut asked = Asked::default();
    let outcome = lab
        .drive(Duration::from_secs(3_600), Duration::from_secs(30), |world| {
            if minutes(world) == 5 {
                asked.ask(&questions);
            }
            if minutes(world) > 15 { Next::End } else { Next::GoOn }
        })
        .await;
    assert_eq!(outcome.report.jobs_completed, 2, "{}", outcome.summary());
    let status = asked.answer().await;
    let problems: Vec<_> = status.owners.iter().map(|owner| (owner.owner.as_str(), owner.problem.is_some())).collect();
    assert_eq!(problems, [("gh/acme", false), ("gh/me", true)]);
    let account = &status.accounts[0];
    assert_eq!((account.credential, account.installations.len()), (CredentialKind::Token, 0));
    let told = status.owners[1].problem.as_ref().expect("a problem");
    assert!(told.contains("only an organization's repositories can be listed with a token"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn named_repositories_that_changed_are_told_one_by_one() {
    let repos = ["acme/web", "acme/old", "acme/gone", "acme/moves"];
    let jobs = vec![job(1, "acme/web", 4_000.0)];
    let lab = Lab::new(Profile::calm(), Scenario { jobs, ..scenario(&repos, 0) }, 3);
    let questions = lab.questions();
    let mut asked = Asked::default();
    let outcome = lab
        .drive(Duration::from_secs(2 * 3_600), Duration::from_secs(60), |world| {
            match minutes(world) {
                1 => world.set_repo("acme/old", RepoAbout { archived: true, ..RepoAbout::default() }),
                2 => {
                    world.delete_repo("acme/gone");
                    world.rename_repo("acme/moves", "acme/moved");
                }
                65 => asked.ask(&questions),
                _ => {}
            }
            if minutes(world) > 75 { Next::End } else { Next::GoOn }
        })
        .await;
    assert_eq!(outcome.report.jobs_completed, 1, "{}", outcome.summary());
    let told = asked.answer().await.paused;
    let why = |repo: &str| told[&repo.parse().expect("a repository")].as_str();
    assert_eq!(why("acme/old"), "it is archived");
    assert!(why("acme/gone").contains("404") && why("acme/moves").contains("renamed or moved"), "{told:?}");
    assert_eq!(told.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_personal_token_that_ends_is_told_once_a_day_and_then_refused() {
    const DAY: f64 = 86_400.0;
    let jobs = vec![job(1, "acme/web", 60.0)];
    let profile = Profile { personal_token_secs: Some(2.5 * DAY), ..Profile::calm() };
    let lab = Lab::new(profile, Scenario { jobs, ..scenario(&["acme/web"], 0) }, 3)
        .configure(|config| config.reconcile.interval = Duration::from_secs(600));
    let (questions, log) = (lab.questions(), Log::default());
    let _guard = log.begin(Level::WARN);
    let (mut early, mut late) = (Asked::default(), Asked::default());
    let outcome = lab
        .drive(Duration::from_secs(3 * 86_400), Duration::from_secs(1_200), |world| {
            match minutes(world) {
                60 => early.ask(&questions),
                4_000 => late.ask(&questions),
                _ => {}
            }
            Next::GoOn
        })
        .await;
    assert_eq!(outcome.report.jobs_completed, 1, "{}", outcome.summary());
    let ends = crate::lab::epoch() + TimeDelta::hours(60);
    let shown = early.answer().await.credentials[0].token_ends.expect("an end");
    assert!((shown - ends).abs() < TimeDelta::seconds(2), "GitHub's date has no parts of a second: {shown}");
    let told = log.lines("GitHub's token soon ends");
    assert_eq!(told.len(), 3, "{told:?}");
    for (line, days) in told.iter().zip([2, 1, 0]) {
        assert!(line.contains("credential=gh ") && line.contains(&format!("days_left={days}")), "{line}");
    }
    assert!(unauthorized(&outcome) > 0);
    let failure = late.answer().await.credentials[0].last_failure.clone().unwrap_or_default();
    assert!(failure.contains("401"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_pattern_that_grows_beyond_the_budget_is_told_once_and_shown() {
    let names: Vec<String> = (0..5).map(|n| format!("acme/repo-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let lab = Lab::new(Profile::calm(), scenario(&names, 0), 3).configure(|config| {
        config.github[0].allowed_repos = vec!["acme/*".to_owned()];
        // Eleven lists can be read within a minute.
        config.github[0].points_per_minute = 60;
        config.reconcile.max_interval = Duration::from_secs(60);
    });
    let (questions, log) = (lab.questions(), Log::default());
    let _guard = log.begin(Level::WARN);
    let (mut before, mut after) = (Asked::default(), Asked::default());
    lab.drive(Duration::from_secs(3 * 3_600), Duration::from_secs(60), |world| {
        match minutes(world) {
            30 => before.ask(&questions),
            40 => (5..15).for_each(|n| world.set_repo(&format!("acme/repo-{n}"), RepoAbout::default())),
            120 => after.ask(&questions),
            _ => {}
        }
        Next::GoOn
    })
    .await;
    let before = before.answer().await.credentials.remove(0);
    assert_eq!((before.repositories, before.interval_problem), (5, None));
    let after = after.answer().await.credentials.remove(0);
    let problem = "reconcile.max_interval = 1m is too short for 15 repositories: they can be read within 1m 20s.";
    assert_eq!(after.repositories, 15);
    assert!(after.interval_problem.as_ref().is_some_and(|told| told.starts_with(problem)), "{after:?}");
    let told = log.lines("reconcile.max_interval is too short");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("repositories=15 least_seconds=80 max_interval_seconds=60"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_enterprise_servers_runner_is_downloaded_with_the_token_that_it_gives_and_nobody_else_learns() {
    let jobs = vec![job(1, "acme/web", 60.0)];
    let lab = Lab::new(Profile::calm(), Scenario { jobs, ..scenario(&["acme/web"], 0) }, 3)
        .configure(|config| config.github[0].host = Some("ghe.acme.example".to_owned()));
    let log = Log::default();
    let _guard = log.begin(Level::TRACE);
    // The token goes to the builder alone: a definition that shows it is refused, and so is a download without it.
    let outcome = lab.run(Duration::from_secs(3_600), is_done_and_clean).await;
    check(&outcome);
    assert_eq!(outcome.report.secrets_left_at_end, 0, "{}", outcome.summary());
    assert_eq!(outcome.times(|what| matches!(what, What::SecretChanged { .. })).len(), 2);
    assert_eq!(
        log.lines("simdownload").len() + usize::from(format!("{:?}", outcome.history).contains("simdownload")),
        0
    );
    assert!(!log.lines("building the image's layer").is_empty(), "the log is looked at");
}
