//! A GitHub whose answers are scripted, and a client that talks to it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use bytes::Bytes;
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use sandrunner::budget::{BudgetLimits, Purpose};
use sandrunner::clock::Clock;
use sandrunner::error::CallFailure;
use sandrunner::github::{
    GithubAuth, GithubError, GithubReader, GithubSettings, GithubWriter, MintRequest, Minted, Paging, RunList,
    connect_with_service,
};
use sandrunner::ids::{Labels, RepoName};
use sandrunner::state::{Reading, Registry, Scope};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "github_pat_secret0123456789";

/// What the client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The page number of a list request.
    pub(crate) fn page(&self) -> u64 {
        self.target.rsplit_once("&page=").expect("every list names its page").1.parse().unwrap()
    }

    pub(crate) fn known_version(&self) -> Option<&str> {
        self.headers.get("if-none-match").map(|etag| etag.to_str().unwrap())
    }
}

/// A scripted GitHub with a client that talks to it.
pub(crate) struct Github {
    pub(crate) reader: GithubReader,
    pub(crate) writer: GithubWriter,
    pub(crate) clock: Clock,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Github {
    pub(crate) fn answering(answer: impl Fn(&Asked) -> Response + Send + Sync + Clone + 'static) -> Self {
        Self::start(settings(), move |asked| std::future::ready(answer(&asked)))
    }

    pub(crate) fn start<F>(
        settings: GithubSettings,
        answer: impl Fn(Asked) -> F + Send + Sync + Clone + 'static,
    ) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let router = router(Arc::clone(&asked), answer);
        let clock = Clock::scaled(DateTime::from_timestamp(1_800_000_000, 0).unwrap(), 1.0);
        let (readers, writers) = connect_with_service(router, settings, clock.clone()).unwrap();
        let gh = "gh1".parse().unwrap();
        let (reader, writer) = (readers.get(&gh), writers.get(&gh));
        Self { reader, writer, clock, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) async fn mint(&self) -> Result<Minted, GithubError> {
        let labels = Labels::new(["modal", "job-7"]);
        let request =
            MintRequest { name: "sr-main-gh1-7-1", runner_group_id: 1, labels: &labels, work_folder: "_work" };
        self.writer.generate_jit_config(&registry(), request).await
    }
}

pub(crate) fn router<F>(
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: impl Fn(Asked) -> F + Send + Sync + Clone + 'static,
) -> Router
where
    F: Future<Output = Response> + Send + 'static,
{
    Router::new().fallback(move |request: http::Request<Body>| {
        let (asked, answer) = (Arc::clone(&asked), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let one = Asked { method: parts.method, target: parts.uri.to_string(), headers: parts.headers, body };
            asked.lock().unwrap().push(one.clone());
            answer(one).await
        }
    })
}

pub(crate) fn settings() -> GithubSettings {
    GithubSettings {
        account: "gh1".parse().unwrap(),
        api_url: "https://api.github.com".to_owned(),
        auth: GithubAuth::Token(TOKEN.into()),
        limits: BudgetLimits { points_per_minute: 9_000.0, mutations_per_minute: 900.0, primary_reserve: 100 },
        max_in_flight: 8,
    }
}

pub(crate) fn repo() -> RepoName {
    "acme/web".parse().unwrap()
}

/// Where its runners are registered.
pub(crate) fn registry() -> Registry {
    Registry::Repo(Scope { account: "gh".parse().unwrap(), repo: repo() })
}

pub(crate) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap()
}

pub(crate) fn refuse(code: u16, message: &str) -> Response {
    (status(code), Json(json!({ "message": message, "documentation_url": "https://docs.github.com" }))).into_response()
}

pub(crate) fn with(mut response: Response, headers: &[(&'static str, &'static str)]) -> Response {
    response.headers_mut().extend(
        headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))),
    );
    response
}

/// The page of a list of `total` rows, as GitHub cuts it.
pub(crate) fn page_of(member: &str, total: u64, page: u64, row: impl Fn(u64) -> Value) -> Response {
    let rows: Vec<Value> = (0..total).skip(usize::try_from((page - 1) * 100).unwrap()).take(100).map(row).collect();
    let mut body = json!({ "total_count": total });
    body[member] = rows.into();
    let response = Json(body).into_response();
    if page * 100 < total {
        with(response, &[("link", r#"<https://elsewhere.example/steal?page=2>; rel="next", <https://x>; rel="last""#)])
    } else {
        response
    }
}

pub(crate) fn run_row(id: u64) -> Value {
    json!({ "id": id, "status": "completed", "run_attempt": 1 })
}

pub(crate) fn job_row(id: u64) -> Value {
    json!({ "id": id, "run_id": 9, "status": "queued", "labels": ["modal"] })
}

pub(crate) fn one_page(member: &'static str, rows: &Value) -> Response {
    let mut body = json!({ "total_count": 1 });
    body[member] = rows.clone();
    Json(body).into_response()
}

pub(crate) async fn all_runs(github: &Github) -> Reading<RunList> {
    github.reader.list_runs(&repo(), Purpose::RunList, 15, |_| Paging::Continue).await
}

pub(crate) fn unknown<T: std::fmt::Debug>(reading: Reading<T>) -> CallFailure {
    let Reading::Unknown(failure) = reading else { panic!("{reading:?} must be unknown") };
    failure
}

/// A run list of 250 whose pages answer to their own versions; page 2 changes with `version`.
pub(crate) fn versioned(version: Arc<AtomicUsize>) -> impl Fn(&Asked) -> Response + Send + Sync + Clone + 'static {
    move |asked| {
        let page = asked.page();
        let etag = format!("W/\"{page}-{}\"", if page == 2 { version.load(Ordering::Relaxed) } else { 0 });
        let mut response = if asked.known_version() == Some(&etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            page_of("workflow_runs", 250, page, run_row)
        };
        response.headers_mut().insert("etag", etag.parse().unwrap());
        response
    }
}
