//! A GitHub App against the simulated GitHub: its tokens, their life, and what keeps it from having one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::IntoResponse;
use chrono::{DateTime, TimeDelta};
use sandrunner::budget::{BudgetLimits, Purpose};
use sandrunner::clock::Clock;
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::github::{
    AppKey, CredentialState, Deregistered, GithubAuth, GithubReader, GithubReaders, GithubSettings, GithubWriters,
    MintRequest, Paging, RunList, connect_with_service, keep_pages, page_changes,
};
use sandrunner::ids::{Labels, RepoName, RunId, RunnerId};
use sandrunner::sim::{APP_CLIENT_ID, APP_ID, APP_KEY, Fault, FaultMode, Operation, Profile, Scenario, What, World};
use sandrunner::state::Reading;
use serde_json::json;

use crate::script::{Asked, one_page, registry, router, run_row, settings, unknown, with};

const OTHER_KEY: &str = include_str!("../data/github-app/test-key.other.pem");

/// A World with repositories of two owners, and an App that is installed at both.
struct Simulated {
    world: World,
    clock: Clock,
    readers: GithubReaders,
    writers: GithubWriters,
}

fn auth(id: &str, key: &str) -> GithubAuth {
    GithubAuth::App { id: id.to_owned(), key: AppKey::read(key).unwrap() }
}

impl Simulated {
    fn start() -> Self {
        Self::with(auth(APP_ID, APP_KEY), TimeDelta::zero())
    }

    fn with(auth: GithubAuth, ahead: TimeDelta) -> Self {
        let scenario: Scenario =
            serde_json::from_value(json!({ "repos": [{ "name": "Acme/web" }, { "name": "beta/api" }] })).unwrap();
        let services = Clock::scaled(DateTime::from_timestamp(1_800_000_000, 0).unwrap(), 1.0);
        let world = World::new(Profile::calm(), scenario, 7, services.clone());
        let settings = GithubSettings {
            account: "gh".parse().unwrap(),
            api_url: "https://api.github.com".to_owned(),
            auth,
            limits: BudgetLimits { points_per_minute: 900.0, mutations_per_minute: 180.0, primary_reserve: 100 },
            max_in_flight: 8,
        };
        let clock = services.on_machine(ahead);
        let (readers, writers) = connect_with_service(world.github_service(), settings, clock.clone()).unwrap();
        Self { world, clock, readers, writers }
    }

    fn reader(&self, credential: &str) -> GithubReader {
        self.readers.get(&credential.parse().unwrap())
    }

    async fn runs(&self, credential: &str, repo: &str) -> Reading<RunList> {
        let repo: RepoName = repo.parse().unwrap();
        self.reader(credential).list_runs(&repo, Purpose::RunList, 15, |_| Paging::Continue).await
    }

    async fn serves(&self) -> bool {
        matches!(self.runs("gh/acme", "acme/web").await, Reading::Known(_))
    }

    /// Calls of an operation by their status.
    fn statuses(&self, wanted: Operation) -> Vec<u16> {
        let of = |what: &What| {
            let What::Call { operation, status, .. } = what else { return None };
            (*operation == wanted).then_some(*status)
        };
        self.world.history(0).iter().filter_map(|event| of(&event.what)).collect()
    }

    fn state(&self, credential: &str) -> CredentialState {
        self.reader(credential).state()
    }
}

#[tokio::test(start_paused = true)]
async fn each_installation_has_a_client_with_a_token_and_a_quota_of_its_own() {
    for id in [APP_ID, APP_CLIENT_ID] {
        let github = Simulated::with(auth(id, APP_KEY), TimeDelta::zero());
        assert!(github.serves().await);
        assert!(matches!(github.runs("gh/beta", "beta/api").await, Reading::Known(_)));
        // Nothing of another owner is to be seen.
        let hidden = unknown(github.runs("gh/beta", "acme/web").await);
        assert_eq!(hidden.class, ErrorClass::NotFound);
        assert_eq!(github.statuses(Operation::ListInstallations), [200]);
        assert_eq!(github.statuses(Operation::InstallationToken), [201, 201]);
        let names: Vec<String> = github.readers.all().iter().map(|reader| reader.credential().to_string()).collect();
        assert_eq!(names, ["gh", "gh/acme", "gh/beta"]);
        let remaining = |credential: &str| {
            github.reader(credential).budget().lock().unwrap().primary().map(|quota| quota.remaining).min()
        };
        assert_eq!((remaining("gh/acme"), remaining("gh/beta")), (Some(4_999), Some(4_998)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_once_however_many_wait_for_it() {
    let github = Simulated::start();
    let reads = (0..50).map(|_| github.serves());
    assert!(futures::future::join_all(reads).await.iter().all(|served| *served));
    assert_eq!(github.statuses(Operation::InstallationToken), [201]);
    // Where none is to be had, all who wait are told so, and nobody asks again at once.
    let github = Simulated::start();
    github.world.add_fault(Fault { times: 9, ..Fault::new(Operation::InstallationToken, FaultMode::Error) }).unwrap();
    let reads = (0..50).map(|_| github.runs("gh/acme", "acme/web"));
    for reading in futures::future::join_all(reads).await {
        assert_eq!(unknown(reading).class, ErrorClass::Unsent);
    }
    assert_eq!(github.statuses(Operation::InstallationToken), [502]);
    assert!(github.state("gh/acme").held_until.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_before_its_hour_ends_and_nobody_sees_it() {
    let github = Simulated::start();
    for _ in 0..6 * 60 {
        assert!(github.serves().await);
        github.clock.sleep(Duration::from_secs(60)).await;
    }
    let asked = github.statuses(Operation::InstallationToken);
    assert!((7..=8).contains(&asked.len()) && asked.iter().all(|status| *status == 201), "{asked:?}");
    assert!(github.statuses(Operation::ListRuns).iter().all(|status| matches!(status, 200 | 304)));
    let full = github.statuses(Operation::ListRuns).iter().filter(|status| **status == 200).count();
    assert_eq!(full, asked.len(), "each token reads a page once in full");
    let ends = github.state("gh/acme").token_ends.unwrap();
    assert!(ends > github.clock.now() && ends <= github.clock.now() + TimeDelta::hours(1));
}

#[tokio::test(start_paused = true)]
async fn a_registration_waits_for_no_refresh() {
    let github = Simulated::start();
    assert!(github.serves().await);
    github.clock.sleep(Duration::from_secs(50 * 60)).await;
    github.world.add_fault(Fault::new(Operation::InstallationToken, FaultMode::Silent)).unwrap();
    let labels = Labels::new(["modal"]);
    let request = MintRequest { name: "sr-main-gh-7-1", runner_group_id: 1, labels: &labels, work_folder: "_work" };
    let writer = github.writers.get(&"gh/acme".parse().unwrap());
    let before = github.clock.now();
    // A reading refreshes the token at the same time, and waits in vain.
    let (read, minted) = futures::future::join(github.serves(), writer.generate_jit_config(&registry(), request)).await;
    assert!(read);
    let runner = minted.unwrap().runner_id;
    assert_eq!(writer.delete_runner(&registry(), runner).await.unwrap(), Deregistered::Gone);
    let minted_at = github
        .world
        .history(0)
        .iter()
        .find_map(|event| matches!(&event.what, What::Call { operation: Operation::Mint, .. }).then_some(event.at));
    assert!(minted_at.unwrap() - before < TimeDelta::seconds(1));
    assert_eq!(github.statuses(Operation::InstallationToken)[..1], [201]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_replaced_once() {
    let github = Simulated::start();
    assert!(github.serves().await);
    github.clock.sleep(Duration::from_secs(60)).await;
    github.world.revoke_app_tokens();
    assert!(github.serves().await);
    assert_eq!(github.statuses(Operation::ListRuns), [200, 401, 200]);
    // Many at once are refused, and share the next one.
    github.clock.sleep(Duration::from_secs(600)).await;
    github.world.revoke_app_tokens();
    let reads = (0..8).map(|_| github.serves());
    assert!(futures::future::join_all(reads).await.iter().all(|served| *served));
    assert_eq!(github.statuses(Operation::InstallationToken), [201, 201, 201]);
    // What is refused although it is new is not replaced again and again.
    github.clock.sleep(Duration::from_secs(600)).await;
    github.world.add_fault(Fault { times: 100, ..Fault::new(Operation::ListRuns, FaultMode::Unauthorized) }).unwrap();
    for _ in 0..20 {
        assert_eq!(unknown(github.runs("gh/acme", "acme/web").await).class, ErrorClass::Unauthorized);
    }
    assert_eq!(github.statuses(Operation::InstallationToken).len(), 4);
    assert_eq!(github.statuses(Operation::ListRuns).iter().filter(|status| **status == 401).count(), 1 + 8 + 2);
    let told = github.state("gh/acme");
    assert!(told.held_until.is_some() && told.last_failure.unwrap().1.contains("401"));
}

#[tokio::test(start_paused = true)]
async fn a_write_after_a_refused_token_happens_once() {
    let github = Simulated::start();
    assert!(github.serves().await);
    github.clock.sleep(Duration::from_secs(60)).await;
    github.world.revoke_app_tokens();
    let labels = Labels::new(["modal"]);
    let request = MintRequest { name: "sr-main-gh-7-1", runner_group_id: 1, labels: &labels, work_folder: "_work" };
    let writer = github.writers.get(&"gh/acme".parse().unwrap());
    writer.generate_jit_config(&registry(), request).await.unwrap();
    assert_eq!(github.statuses(Operation::Mint), [401, 201]);
}

#[tokio::test(start_paused = true)]
async fn a_mint_for_want_of_a_token_was_surely_not_sent() {
    let github = Simulated::start();
    let fault = Fault { times: 100, ..Fault::new(Operation::InstallationToken, FaultMode::Error) };
    github.world.add_fault(fault).unwrap();
    let labels = Labels::new(["modal"]);
    let request = MintRequest { name: "sr-main-gh-7-1", runner_group_id: 1, labels: &labels, work_folder: "_work" };
    let writer = github.writers.get(&"gh/acme".parse().unwrap());
    let failure = CallFailure::from(writer.generate_jit_config(&registry(), request).await.unwrap_err());
    assert_eq!(failure.class, ErrorClass::Unsent, "{failure}");
    assert!(!failure.class.may_have_taken_effect() && failure.class.may_pass());
    assert_eq!(github.statuses(Operation::Mint), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_or_removed_installation_says_so_and_comes_back() {
    for remove in [World::suspend_app, World::uninstall_app] {
        let github = Simulated::start();
        assert!(github.serves().await);
        remove(&github.world, "ACME");
        let failure = loop {
            if let Reading::Unknown(failure) = github.runs("gh/acme", "acme/web").await {
                break failure;
            }
            github.clock.sleep(Duration::from_secs(60)).await;
        };
        // Not that the repository is not found: a runner that is to be deleted would seem gone.
        assert!(matches!(failure.class, ErrorClass::Forbidden | ErrorClass::Unauthorized), "{failure}");
        let writer = github.writers.get(&"gh/acme".parse().unwrap());
        let deleted = writer.delete_runner(&registry(), RunnerId(1)).await;
        assert!(deleted.is_err(), "{deleted:?}");
        assert!(github.reader("gh/acme").run(&"acme/web".parse().unwrap(), RunId(1)).await.is_err());
        github.clock.sleep(Duration::from_secs(3_600)).await;
        let failure: CallFailure = unknown(github.runs("gh/acme", "acme/web").await);
        let is_told = failure.message.contains("suspended") || failure.message.contains("not installed at `acme`");
        assert!(is_told, "{failure}");
        assert!(matches!(github.runs("gh/beta", "beta/api").await, Reading::Known(_)), "the other one goes on");
        github.world.unsuspend_app("acme");
        github.world.reinstall_app("Acme");
        github.clock.sleep(Duration::from_secs(900)).await;
        assert!(github.serves().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_installed_anew_is_found_under_its_new_id() {
    let github = Simulated::start();
    assert!(github.serves().await);
    github.clock.sleep(Duration::from_secs(60)).await;
    github.world.reinstall_app("Acme");
    assert!(github.serves().await, "the old token is refused, the old installation is gone");
    assert_eq!(github.statuses(Operation::InstallationToken), [201, 404, 201]);
    assert_eq!(github.statuses(Operation::ListInstallations), [200, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_told_with_its_remedy() {
    for auth in [auth(APP_ID, OTHER_KEY), auth("4712", APP_KEY)] {
        let github = Simulated::with(auth, TimeDelta::zero());
        let failure = unknown(github.runs("gh/acme", "acme/web").await);
        assert_eq!(failure.class, ErrorClass::Unauthorized);
        let remedy = "check that `app_id` and the private key belong together, and that the key was not deleted";
        assert!(failure.message.contains(remedy), "{failure}");
    }
    let github = Simulated::start();
    assert!(github.serves().await);
    github.world.delete_app_key();
    github.clock.sleep(Duration::from_secs(55 * 60)).await;
    assert!(github.serves().await, "the token that is there serves to its end");
    github.clock.sleep(Duration::from_secs(10 * 60)).await;
    assert_eq!(unknown(github.runs("gh/acme", "acme/web").await).class, ErrorClass::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_clock_is_off_signs_by_githubs() {
    for ahead in [TimeDelta::hours(-5), TimeDelta::minutes(-12), TimeDelta::minutes(3), TimeDelta::days(2)] {
        let github = Simulated::with(auth(APP_ID, APP_KEY), ahead);
        assert!(github.serves().await, "{ahead}");
        github.clock.sleep(Duration::from_secs(55 * 60)).await;
        assert!(github.serves().await);
        github.clock.sleep(Duration::from_secs(30 * 60)).await;
        assert!(github.serves().await);
        assert!(github.statuses(Operation::ListRuns).iter().all(|status| matches!(status, 200 | 304)), "{ahead}");
        assert_eq!(github.statuses(Operation::InstallationToken), [201, 201]);
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_app_is_installed_can_be_listed() {
    let github = Simulated::start();
    github.world.suspend_app("beta");
    let installed = github.readers.installations().await.unwrap();
    let told: Vec<(&str, bool)> = installed.iter().map(|one| (&*one.owner, one.is_suspended)).collect();
    assert_eq!(told, [("acme", false), ("beta", true)]);
    assert_eq!(
        github
            .reader("gh")
            .list_jobs(&"acme/web".parse().unwrap(), RunId(1), Purpose::Jobs)
            .await
            .failure()
            .map(|f| f.class),
        Some(ErrorClass::Unauthorized)
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_of_installations_without_end_is_no_whole_list_and_serves_the_owners_that_it_shows() {
    let answer = |asked: Asked| {
        let page = || asked.target.rsplit_once("&page=").unwrap().1.to_owned();
        let response = match asked.target.split_once("api.github.com").unwrap().1 {
            path if path.starts_with("/app/installations?") => {
                let row = json!([{ "id": 7, "account": { "login": format!("owner{}", page()) } }]);
                with(Json(row).into_response(), &[("link", "<https://x/?page=2>; rel=\"next\"")])
            }
            path if path.starts_with("/app/installations/7/") => {
                Json(json!({ "token": "ghs_installation", "expires_at": "2027-01-15T09:00:00Z" })).into_response()
            }
            _ => one_page("workflow_runs", &json!([run_row(1)])),
        };
        std::future::ready(response)
    };
    let clock = Clock::scaled(DateTime::from_timestamp(1_800_000_000, 0).unwrap(), 1.0);
    let settings = GithubSettings { auth: auth(APP_ID, APP_KEY), ..settings() };
    let asked = Arc::default();
    let (readers, _) = connect_with_service(router(Arc::clone(&asked), answer), settings, clock).unwrap();
    let failure = readers.installations().await.unwrap_err();
    assert_eq!((failure.class(), asked.lock().unwrap().len()), (ErrorClass::Unreadable, 30));
    assert!(CallFailure::from(failure).message.contains("the list does not end"));
    let runs = async |owner: &str| {
        let reader = readers.get(&format!("gh1/{owner}").parse().unwrap());
        reader.list_runs(&format!("{owner}/web").parse().unwrap(), Purpose::RunList, 1, |_| Paging::Stop).await
    };
    assert!(matches!(runs("owner30").await, Reading::Known(_)));
    let unseen = unknown(runs("owner31").await);
    assert!(unseen.message.contains("the list does not end"), "it may be installed there: {unseen}");
}

#[tokio::test(start_paused = true)]
async fn pages_that_no_later_token_could_use_are_not_kept() {
    let github = Simulated::start();
    assert!(github.serves().await);
    let readers = github.readers.all();
    assert_eq!(page_changes(&readers), 0);
    let kept = keep_pages(&readers).unwrap();
    assert!(!kept.contains("acme"), "{kept}");
}
