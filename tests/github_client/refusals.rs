//! Refusals, limits, deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sandrunner::budget::{BudgetLimits, Purpose};
use sandrunner::error::ErrorClass;
use sandrunner::github::{GithubError, GithubSettings, RequestCounts};
use sandrunner::ids::RunId;
use sandrunner::state::{Reading, RunStatus};
use serde_json::json;

use crate::script::{Github, all_runs, one_page, refuse, registry, repo, settings, status, unknown, with};

#[tokio::test(start_paused = true)]
async fn a_secondary_limit_holds_the_credential_without_another_request() {
    let github =
        Github::answering(|_| with(refuse(403, "You have exceeded a secondary rate limit."), &[("retry-after", "30")]));
    let failure = unknown(all_runs(&github).await);
    assert_eq!((failure.class, failure.retry_after), (ErrorClass::RateLimited, Some(Duration::from_secs(30))));
    let held = github.mint().await.unwrap_err();
    assert!(matches!(held, GithubError::Held { .. }), "{held}");
    assert_eq!((held.class(), held.class().may_have_taken_effect()), (ErrorClass::RateLimited, false));
    assert!(held.retry_after().unwrap() <= Duration::from_secs(30));
    assert_eq!(github.asked().len(), 1);

    github.clock.sleep(Duration::from_secs(30)).await;
    unknown(all_runs(&github).await);
    assert_eq!(github.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_primary_limit_holds_until_githubs_own_clock_says_so() {
    // GitHub's clock is a day off ours; its window ends in 600 s.
    let github = Github::answering(|_| {
        let headers = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-resource", "core"),
            ("x-ratelimit-reset", "1000600"),
            ("date", "Mon, 12 Jan 1970 13:46:40 GMT"),
        ];
        with(refuse(403, "API rate limit exceeded for user ID 1."), &headers)
    });
    let failure = unknown(all_runs(&github).await);
    assert_eq!((failure.class, failure.retry_after), (ErrorClass::RateLimited, Some(Duration::from_secs(600))));
    let budget = github.reader.budget();
    let held = budget.lock().unwrap().held_until(github.clock.now()).unwrap() - github.clock.now();
    assert!((600..=602).contains(&held.num_seconds()), "{held}");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_turn_comes_after_the_limit_is_not_sent() {
    let settings = GithubSettings { max_in_flight: 1, ..settings() };
    let github = Github::start(settings, |_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        refuse(429, "Too many requests")
    });
    let (first, second) = futures::future::join(all_runs(&github), github.mint()).await;
    assert_eq!(unknown(first).class, ErrorClass::RateLimited);
    assert!(matches!(second.unwrap_err(), GithubError::Held { .. }));
    assert_eq!(github.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_quota_of_every_answer_reaches_the_budget() {
    for code in [200, 404, 422, 502] {
        let github = Github::answering(move |_| {
            let headers = [
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-remaining", "17"),
                ("x-ratelimit-resource", "core"),
                ("x-ratelimit-reset", "1000060"),
                ("date", "Mon, 12 Jan 1970 13:46:40 GMT"),
            ];
            with(status(code).into_response(), &headers)
        });
        all_runs(&github).await;
        let budget = github.reader.budget();
        let stated: Vec<_> = budget.lock().unwrap().primary().cloned().collect();
        assert_eq!((stated.len(), stated[0].remaining), (1, 17), "after {code}");
        assert_eq!((stated[0].reset - github.clock.now()).num_seconds(), 60);
        assert!(!budget.lock().unwrap().admits(Purpose::RunList, github.clock.now()), "17 are within the reserve");
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_say_what_is_wrong_and_what_to_do() {
    let check = async |response: fn() -> Response, class, message: &str| {
        let github = Github::answering(move |_| with(response(), &[("x-github-request-id", "C0:FF:EE")]));
        let failure = unknown(github.reader.list_runners(&registry()).await);
        assert_eq!((failure.class, failure.message.as_str()), (class, message));
    };
    check(
        || refuse(401, "Bad credentials"),
        ErrorClass::Unauthorized,
        "cannot list the runners of acme/web: GitHub answered 401: Bad credentials (request C0:FF:EE); \
         check that the token is whole, not expired and not revoked",
    )
    .await;
    check(
        || {
            with(
                refuse(403, "Resource not accessible by integration"),
                &[("x-accepted-github-permissions", "administration=read")],
            )
        },
        ErrorClass::Forbidden,
        "cannot list the runners of acme/web: GitHub answered 403: Resource not accessible by integration \
         (request C0:FF:EE); the token needs the permission `administration=read`",
    )
    .await;
    check(
        || with(StatusCode::MOVED_PERMANENTLY.into_response(), &[("location", "https://elsewhere.example/")]),
        ErrorClass::Policy,
        "cannot list the runners of acme/web: GitHub answered 301: Moved Permanently (request C0:FF:EE); \
         the repository was renamed or moved: change its name in the configuration",
    )
    .await;
    check(
        || (StatusCode::BAD_GATEWAY, axum::response::Html("<html><title>Unicorn!</title></html>")).into_response(),
        ErrorClass::Unavailable,
        "cannot list the runners of acme/web: GitHub answered 502: Bad Gateway, in a body that is not GitHub's \
         (request C0:FF:EE)",
    )
    .await;
    check(
        || "<html>".into_response(),
        ErrorClass::Unreadable,
        "cannot list the runners of acme/web: the answer cannot be read (request C0:FF:EE): \
         the list is not of the promised form (line 1, column 1)",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_found_is_told_from_what_is_empty() {
    let github = Github::answering(|_| refuse(404, "Not Found"));
    assert_eq!(github.reader.list_jobs(&repo(), RunId(9), Purpose::Jobs).await, Reading::Known(None));
    assert_eq!(github.reader.run(&repo(), RunId(9)).await.unwrap(), None);
    assert_eq!(unknown(all_runs(&github).await).class, ErrorClass::NotFound);
    assert_eq!(unknown(github.reader.list_runners(&registry()).await).class, ErrorClass::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_read_by_its_id() {
    let github = Github::answering(|_| {
        Json(json!({ "id": 30_433_642_000_u64, "status": "waiting", "run_attempt": 3 })).into_response()
    });
    let run = github.reader.run(&repo(), RunId(30_433_642_000)).await.unwrap().unwrap();
    assert_eq!((run.id, run.status, run.attempt), (RunId(30_433_642_000), RunStatus::Waiting, 3));
    let failing = Github::answering(|_| refuse(500, "Server Error"));
    assert_eq!(failing.reader.run(&repo(), RunId(1)).await.unwrap_err().class(), ErrorClass::Unavailable);
    assert_eq!(failing.asked().len(), 1, "nothing is repeated");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_did_not_change_is_taken_from_memory_and_has_its_share_of_what_is_read_again() {
    let limits = BudgetLimits { points_per_minute: 60.0, mutations_per_minute: 60.0, primary_reserve: 100 };
    let github = Github::start(GithubSettings { limits, ..settings() }, |asked| {
        let answer = match asked.known_version() {
            Some(_) => StatusCode::NOT_MODIFIED.into_response(),
            None => Json(json!({ "id": 9, "status": "waiting", "run_attempt": 3 })).into_response(),
        };
        std::future::ready(with(answer, &[("etag", "W/\"1\"")]))
    });
    let refreshes = || github.reader.budget().lock().unwrap().refreshes_due(github.clock.now());
    let before = refreshes();
    let mut read = Vec::new();
    for _ in 0..4 {
        read.push(github.reader.run(&repo(), RunId(9)).await.unwrap().unwrap());
    }
    assert!(read.iter().all(|run| *run == read[0] && run.status == RunStatus::Waiting), "{read:?}");
    assert_eq!(github.reader.counts(), RequestCounts { requests: 4, not_modified: 3 });
    assert_eq!((before, refreshes()), (6, 2), "a fifth of one reading every two seconds, saved for a minute");
}

#[tokio::test(start_paused = true)]
async fn a_silent_github_is_given_up() {
    let github = Github::start(settings(), |_| std::future::pending());
    let start = github.clock.now();
    let failure = unknown(all_runs(&github).await);
    assert_eq!((failure.class, (github.clock.now() - start).num_seconds()), (ErrorClass::Unavailable, 20));
    assert_eq!(failure.message, "cannot list the workflow runs of acme/web: no answer within 20s");
    let start = github.clock.now();
    let lost = github.mint().await.unwrap_err();
    assert_eq!((github.clock.now() - start).num_seconds(), 30);
    assert!(lost.class().may_have_taken_effect());
    assert_eq!(github.asked().len(), 2, "nothing is repeated");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_measure_is_not_read() {
    let github = Github::answering(|_| vec![b' '; 33 * 1024 * 1024].into_response());
    let failure = unknown(all_runs(&github).await);
    assert_eq!(failure.class, ErrorClass::Unavailable);
    assert!(failure.message.contains("length limit exceeded"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_under_way_than_allowed() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let peak = Arc::new(AtomicUsize::new(0));
    let (now, most) = (Arc::clone(&under_way), Arc::clone(&peak));
    let settings = GithubSettings { max_in_flight: 3, ..settings() };
    let github = Github::start(settings, move |_| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            one_page("workflow_runs", &json!([]))
        }
    });
    futures::future::join_all((0..20).map(|_| all_runs(&github))).await;
    assert_eq!((peak.load(Ordering::SeqCst), github.asked().len()), (2, 20), "one is kept for writes");
    let reads = futures::future::join_all((0..20).map(|_| all_runs(&github)));
    let mints = futures::future::join_all((0..3).map(|_| github.mint()));
    futures::future::join(reads, mints).await;
    assert_eq!((peak.load(Ordering::SeqCst), github.asked().len()), (3, 43));
}

#[tokio::test(start_paused = true)]
async fn a_mint_waits_for_no_reading() {
    let github = Github::start(settings(), |asked| async move {
        if asked.method == http::Method::GET {
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        refuse(500, "Server Error")
    });
    let start = github.clock.now();
    let reads = futures::future::join_all((0..40).map(|_| all_runs(&github)));
    let mint = async {
        github.mint().await.unwrap_err();
        github.clock.now() - start
    };
    let (_, took) = futures::future::join(reads, mint).await;
    assert!(took.num_seconds() < 5, "{took}");
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_their_points() {
    let limits = BudgetLimits { points_per_minute: 60.0, mutations_per_minute: 60.0, primary_reserve: 0 };
    let github = Github::start(GithubSettings { limits, ..settings() }, |_| {
        std::future::ready(one_page("workflow_runs", &json!([])))
    });
    let start = github.clock.now();
    for _ in 0..30 {
        all_runs(&github).await;
    }
    let took = (github.clock.now() - start).num_seconds();
    assert!((29..=31).contains(&took), "30 points at 60 a minute took {took} s");
}
