//! What is asked for, how lists are read to their end, and what is taken from memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::response::IntoResponse;
use http::{Method, StatusCode};
use sandrunner::budget::Purpose;
use sandrunner::clock::Clock;
use sandrunner::error::ErrorClass;
use sandrunner::github::{GithubAuth, GithubSettings, Paging, RequestCounts, connect};
use sandrunner::ids::RunId;
use sandrunner::plan::RunnerGroupChoice;
use sandrunner::state::{AdmittedWorkflows, Connection, Reading, RunStatus, WorkflowRun};
use serde_json::{Value, json};

use crate::script::{
    Github, TOKEN, all_runs, job_row, one_page, page_of, refuse, registry, repo, run_row, settings, unknown, versioned,
    with,
};

#[tokio::test(start_paused = true)]
async fn every_request_carries_what_github_asks_for_exactly_once() {
    let settings = GithubSettings { auth: GithubAuth::Token(format!("{TOKEN}\n").into()), ..settings() };
    let github = Github::start(settings, |_| std::future::ready(one_page("workflow_runs", &json!([]))));
    all_runs(&github).await;
    let asked = github.asked().remove(0);
    assert_eq!(asked.method, Method::GET);
    assert_eq!(
        asked.target,
        "https://api.github.com/repos/acme/web/actions/runs?exclude_pull_requests=true&per_page=100&page=1"
    );
    let values =
        |name: &str| asked.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values("accept"), ["application/vnd.github+json"]);
    assert_eq!(values("x-github-api-version"), ["2022-11-28"]);
    assert_eq!(values("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(values("user-agent"), [concat!("sandrunner/", env!("CARGO_PKG_VERSION"))]);
    assert!(values("if-none-match").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_enterprise_server_is_reached_below_its_path() {
    let settings = GithubSettings { api_url: "https://ghe.acme.example/api/v3/".to_owned(), ..settings() };
    let github = Github::start(settings, |_| {
        std::future::ready(page_of("runners", 150, 1, |id| json!({"id": id, "name": "x"})))
    });
    github.reader.list_runners(&registry()).await;
    let targets: Vec<String> = github.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(targets[1], "https://ghe.acme.example/api/v3/repos/acme/web/actions/runners?per_page=100&page=2");
    assert!(github.asked().iter().all(|asked| asked.headers.contains_key("authorization")));
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_before_anything_is_sent() {
    let refused = |settings: GithubSettings| connect(settings, Clock::system()).unwrap_err().to_string();
    for token in ["", "  \n", "two words", "ghp_ü", "ghp_a\nb"] {
        let message = refused(GithubSettings { auth: GithubAuth::Token(token.into()), ..settings() });
        assert!(message.starts_with("`token` must be a GitHub token"), "{token:?}: {message}");
    }
    for url in ["", "github.com", "http://api.github.com", "https://me:pw@github.com"] {
        let message = refused(GithubSettings { api_url: url.to_owned(), ..settings() });
        assert!(message.starts_with("`api_url` must "), "{url}: {message}");
    }
    assert_eq!(refused(GithubSettings { max_in_flight: 0, ..settings() }), "`max_in_flight` must be at least 1");
}

#[tokio::test(start_paused = true)]
async fn lists_of_every_length_are_read_to_their_end() {
    for (total, pages) in [(0, 1), (1, 1), (100, 1), (101, 2), (250, 3)] {
        let github = Github::answering(move |asked| page_of("jobs", total, asked.page(), job_row));
        let reading = github.reader.list_jobs(&repo(), RunId(9), Purpose::FirstJobs).await;
        let Reading::Known(Some(jobs)) = reading else { panic!("{reading:?}") };
        assert_eq!(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
        let asked: Vec<String> = github.asked().into_iter().map(|asked| asked.target).collect();
        let path = "https://api.github.com/repos/acme/web/actions/runs/9/jobs?filter=latest&per_page=100&page=";
        assert_eq!(asked, (1..=pages).map(|page| format!("{path}{page}")).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_list_ends_where_enough_was_seen() {
    let github = Github::answering(|asked| page_of("workflow_runs", 1_000, asked.page(), run_row));
    let until = |last: u64| {
        move |page: &[WorkflowRun]| {
            if page.iter().any(|run| run.id.0 >= last) { Paging::Stop } else { Paging::Continue }
        }
    };
    let Reading::Known(list) = github.reader.list_runs(&repo(), Purpose::RunList, 15, until(250)).await else {
        panic!()
    };
    assert_eq!((list.runs.len(), list.reaches_end, list.is_unchanged), (300, false, false));
    let Reading::Known(list) = github.reader.list_runs(&repo(), Purpose::RunList, 2, until(u64::MAX)).await else {
        panic!()
    };
    assert_eq!((list.runs.len(), list.reaches_end), (200, false), "the cap of pages is no failure");
    let Reading::Known(list) = all_runs(&github).await else { panic!() };
    assert_eq!((list.runs.len(), list.reaches_end), (1_000, true));
}

#[tokio::test(start_paused = true)]
async fn a_row_pushed_onto_the_next_page_is_one_row() {
    // A run is created between the two requests: run 99 is the last of page 1 and the first of page 2.
    let github = Github::answering(|asked| match asked.page() {
        1 => page_of("workflow_runs", 150, 1, run_row),
        _ => one_page("workflow_runs", &(99..150).map(run_row).collect()),
    });
    let Reading::Known(list) = all_runs(&github).await else { panic!() };
    assert_eq!(list.runs.iter().map(|run| run.id.0).collect::<Vec<_>>(), (0..150).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_that_names_a_next_one_is_no_end() {
    let github = Github::answering(|asked| match asked.page() {
        1 => page_of("workflow_runs", 150, 1, run_row),
        _ => with(one_page("workflow_runs", &json!([])), &[("link", "<https://x/?page=3>; rel=\"next\"")]),
    });
    let Reading::Partial { seen, missing } = all_runs(&github).await else { panic!() };
    assert_eq!((seen.runs.len(), seen.reaches_end, github.asked().len()), (100, false, 2));
    assert_eq!(missing.class, ErrorClass::Unreadable);
    assert!(missing.message.contains("page 2 is empty, and is not the last"), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_a_page_failed_is_partial() {
    let github = Github::answering(|asked| match asked.page() {
        1 | 2 => page_of("jobs", 300, asked.page(), job_row),
        _ => refuse(404, "Not Found"),
    });
    let reading = github.reader.list_jobs(&repo(), RunId(9), Purpose::Jobs).await;
    let Reading::Partial { seen: Some(jobs), missing } = reading else { panic!("{reading:?}") };
    assert_eq!((jobs.len(), missing.class), (200, ErrorClass::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_cut_and_says_so() {
    let github =
        Github::answering(|asked| page_of("runners", 1_000_000, asked.page(), |id| json!({"id": id, "name": "x"})));
    let reading = github.reader.list_runners(&registry()).await;
    let Reading::Partial { seen, missing } = reading else { panic!("{reading:?}") };
    assert_eq!((seen.len(), missing.class), (3_000, ErrorClass::Invalid));
    assert_eq!(missing.message, "cannot list the runners of acme/web: the list goes on after 30 pages");
}

#[tokio::test(start_paused = true)]
async fn an_odd_row_makes_the_list_partial_at_every_reading() {
    let rows =
        json!([{ "id": 1, "name": "a", "status": "online", "busy": true }, { "id": "two" }, { "id": 3, "name": null }]);
    let github = Github::answering(move |asked| {
        if asked.known_version() == Some("W/\"1\"") {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        with(one_page("runners", &rows), &[("etag", "W/\"1\"")])
    });
    for _ in 0..2 {
        let reading = github.reader.list_runners(&registry()).await;
        let Reading::Partial { seen, missing } = reading else { panic!("{reading:?}") };
        assert_eq!((seen.len(), seen[0].connection, seen[0].is_busy), (1, Connection::Online, true));
        assert_eq!(missing.message, "cannot list the runners of acme/web in full: 2 rows cannot be read");
    }
    assert_eq!(github.reader.counts().not_modified, 1);
}

#[tokio::test(start_paused = true)]
async fn pages_that_did_not_change_are_taken_from_memory() {
    let version = Arc::new(AtomicUsize::new(0));
    let github = Github::answering(versioned(Arc::clone(&version)));
    let Reading::Known(first) = all_runs(&github).await else { panic!() };
    let Reading::Known(second) = all_runs(&github).await else { panic!() };
    assert_eq!((first.is_unchanged, second.is_unchanged), (false, true));
    assert_eq!(first.runs, second.runs);
    assert_eq!((second.runs.len(), second.reaches_end), (250, true), "a 304 without links keeps those it had");
    assert_eq!(github.reader.counts(), RequestCounts { requests: 6, not_modified: 3 });

    version.store(1, Ordering::Relaxed);
    let Reading::Known(third) = all_runs(&github).await else { panic!() };
    assert_eq!((third.runs.len(), third.is_unchanged), (250, false));
    assert_eq!(github.reader.counts(), RequestCounts { requests: 9, not_modified: 5 });
}

#[tokio::test(start_paused = true)]
async fn another_list_of_the_same_repository_is_not_taken_for_this_one() {
    let github = Github::answering(|asked| {
        assert_eq!(asked.known_version(), None, "{}", asked.target);
        with(one_page("workflow_runs", &json!([run_row(asked.target.len() as u64)])), &[("etag", "W/\"same\"")])
    });
    all_runs(&github).await;
    let queued = github.reader.list_runs_by_status(&repo(), &RunStatus::Queued).await;
    let waiting = github.reader.list_runs_by_status(&repo(), &RunStatus::Waiting).await;
    assert_ne!(queued.seen().unwrap().runs, waiting.seen().unwrap().runs);
    let other = github.reader.list_runs(&"acme/api2".parse().unwrap(), Purpose::RunList, 1, |_| Paging::Stop).await;
    assert!(other.seen().is_some());
    let odd = github.reader.list_runs_by_status(&repo(), &RunStatus::Other("paused".into())).await;
    assert_eq!((odd.seen().unwrap().runs.len(), github.asked().len()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_answer_to_nothing_known_is_no_empty_list() {
    let github = Github::answering(|_| StatusCode::NOT_MODIFIED.into_response());
    let failure = unknown(all_runs(&github).await);
    assert_eq!(failure.class, ErrorClass::Unreadable);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_lost_its_version_is_asked_for_in_full() {
    let first = Arc::new(AtomicUsize::new(0));
    let github = Github::answering(move |_| {
        let response = one_page("runners", &json!([]));
        if first.fetch_add(1, Ordering::Relaxed) == 0 { with(response, &[("etag", "W/\"1\"")]) } else { response }
    });
    for _ in 0..3 {
        github.reader.list_runners(&registry()).await;
    }
    let known: Vec<bool> = github.asked().iter().map(|asked| asked.known_version().is_some()).collect();
    assert_eq!(known, [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn the_workflows_that_a_runner_group_is_kept_to_are_read_where_github_states_them() {
    let ci = "acme/web/.github/workflows/ci.yml@refs/heads/main";
    for (restricted, selected, expected) in [
        (json!(true), json!([ci, "a form to come"]), Some(2)),
        (json!(true), json!([]), Some(0)),
        (json!(true), Value::Null, None),
        (json!(false), json!([ci]), None),
        (Value::Null, json!([ci]), None),
    ] {
        let group = json!({ "id": 4, "name": "Modal", "visibility": "all", "restricted_to_workflows": restricted,
            "selected_workflows": selected });
        let github = Github::answering(move |_| one_page("runner_groups", &json!([group])));
        let choice = RunnerGroupChoice::Id(4);
        let group = github.reader.runner_group(&"acme".parse().unwrap(), &choice).await.unwrap().unwrap();
        let read = match group.workflows {
            AdmittedWorkflows::All => None,
            AdmittedWorkflows::Selected(selected) => Some(selected.len()),
        };
        assert_eq!(read, expected, "{restricted} {selected}");
    }
}
