//! GitHub's side of the World: the REST endpoints that Sandrunner uses, over HTTP.
//!
//! What GitHub's own description does not state (ETags, limits, lags, refusals) follows what has been
//! measured on the real service.

mod answer;
mod app;
mod body;
mod faults;
mod read;
mod route;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State as Handle};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use super::app::{BAD_CREDENTIALS, Who};
use super::client::Caller;
use super::control;
use super::draws::{Purpose, Seed};
use super::fault::{FaultMode, Strike};
use super::history::{LimitKind, Service, What, fingerprint};
use super::jobs::{RepoKey, Time};
use super::limits::{GithubLimiter, LimitForm, Says, Verdict};
use super::world::{State, World};
use answer::{Answer, Sending, etag};
use body::Actions;
use route::Route;

pub(super) use body::repository_body;
pub(super) use read::KeptList;

/// The largest request body that is read.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The part of a latency that passes before GitHub counts the request; the same for reads and writes, so
/// that requests are counted in the order and at the distances in which they were sent.
const TRANSIT: Duration = Duration::from_millis(20);
/// After this GitHub gives up a request and answers 502.
const GATEWAY_TIMEOUT_SECS: f64 = 10.0;

/// How a classic personal token begins, and the scopes that each has here.
const CLASSIC_TOKEN: &str = "ghp_";
const CLASSIC_SCOPES: &str = "admin:org, repo";

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy)]
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn of(query: &BTreeMap<String, String>) -> Self {
        let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
        Self { number: number("page").unwrap_or(1).max(1), size: number("per_page").unwrap_or(30).clamp(1, 100) }
    }

    fn skipped(self) -> usize {
        (self.number - 1).saturating_mul(self.size)
    }

    /// What it shows of `all`, or what a fault makes of that.
    fn cut<T>(self, all: Vec<T>, strike: Option<Strike>, seed: Seed) -> Vec<T> {
        let (before, size) = (self.skipped(), self.size);
        let mode = strike.map(|strike| strike.mode);
        let (skipped, size) = match mode {
            Some(FaultMode::PageMissing) => (before, 0),
            Some(FaultMode::PageSkips) => (before + 1, size),
            Some(FaultMode::PageShowsTwice) => (before.saturating_sub(1), size),
            Some(FaultMode::PageRepeats) => (before.saturating_sub(size), size),
            Some(_) | None => (before, size),
        };
        let mut shown: Vec<T> = all.into_iter().skip(skipped).take(size).collect();
        if let Some(strike) = strike.filter(|strike| strike.mode == FaultMode::Flapping && !shown.is_empty()) {
            shown.remove(seed.stream(Purpose::FaultDraw, strike.number).index(shown.len()));
        }
        shown
    }
}

/// Who is asked, by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// github.com.
    Cloud,
    /// An Enterprise Server, which has no limits and takes runners of every version.
    Server,
}

impl Product {
    fn of(path: &str) -> Self {
        if path.starts_with("/api/v3/") { Self::Server } else { Self::Cloud }
    }
}

/// A request, taken apart.
#[derive(Clone)]
struct Asked {
    route: Route,
    query: BTreeMap<String, String>,
    token: Option<String>,
    /// Who it is from; told when it is answered.
    who: Who,
    product: Product,
    has_user_agent: bool,
    accept: String,
    if_none_match: Option<String>,
    /// Scheme, host and path, for links to other pages.
    url: String,
    body: Bytes,
}

impl Asked {
    fn is_write(&self) -> bool {
        matches!(self.route, Route::Mint(_) | Route::DeleteRunner(..))
    }

    /// What GitHub counts: 5 for a write, 1 for a read.
    fn points(&self) -> u32 {
        if self.is_write() || matches!(self.route, Route::InstallationToken(_)) { 5 } else { 1 }
    }

    fn page(&self) -> Page {
        Page::of(&self.query)
    }

    /// What it is about within its repository, for the history: an id, the name to register, a filter.
    fn target(&self) -> String {
        if let Some(id) = self.route.id() {
            return id.to_string();
        }
        match &self.route {
            Route::Mint(_) => write::name_asked(&self.body),
            Route::Runs(_) => self.query.get("status").cloned().unwrap_or_default(),
            Route::Run(..)
            | Route::Jobs(..)
            | Route::Job(..)
            | Route::Repo(_)
            | Route::ActionsPermissions(_)
            | Route::Runners(_)
            | Route::Runner(..)
            | Route::DeleteRunner(..)
            | Route::Downloads(_)
            | Route::Deprecation(..)
            | Route::Groups(_)
            | Route::GroupRepos(..)
            | Route::App
            | Route::Installations
            | Route::InstallationToken(_)
            | Route::InstallationRepos
            | Route::RateLimit
            | Route::Unknown => String::new(),
            Route::OrgRepos(owner) => owner.to_lowercase(),
        }
    }

    /// The number of the page, where a list is asked for.
    fn listed_page(&self) -> Option<usize> {
        let is_list = matches!(self.route, Route::Runs(_) | Route::Jobs(..) | Route::Runners(_));
        is_list.then(|| self.page().number)
    }

    fn url_of_page(&self, number: usize) -> String {
        let others = self.query.iter().filter(|(key, _)| *key != "page");
        let mut url = format!("{}?", self.url);
        for (key, value) in others {
            url.extend([key, "=", value, "&"]);
        }
        url + &format!("page={number}")
    }
}

/// The routes of GitHub's side and of the control interface.
pub(super) fn router(world: World) -> Router {
    Router::new().merge(control::routes()).fallback(serve).with_state(world)
}

async fn serve(Handle(world): Handle<World>, request: Request) -> Response<Body> {
    let caller = Caller::of(request.extensions());
    let mut asked = match take_apart(request).await {
        Ok(asked) => asked,
        Err(status) => return plain(status),
    };
    let passage = caller.sends(&world, asked.route.operation()).await;
    world.clock().sleep(TRANSIT).await;
    let (response, wait) = passage.with(|state| state.answer_github(&mut asked));
    passage.applied().await;
    world.clock().sleep(wait).await;
    passage.replied().await;
    response
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A body that breaks at its first byte: a server closes the connection over it before anything is sent.
fn cut_connection() -> Response<Body> {
    let broken = io::Error::new(io::ErrorKind::ConnectionReset, "simulated fault: the connection was cut");
    Response::new(Body::from_stream(tokio_stream::once(Err::<Bytes, io::Error>(broken))))
}

async fn take_apart(request: Request) -> Result<Asked, StatusCode> {
    let (parts, body) = request.into_parts();
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let token = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        let is_known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
        (is_known && !token.trim().is_empty()).then(|| token.trim().to_owned())
    });
    let host = parts.uri.authority().map(ToString::to_string).or_else(|| text(header::HOST));
    let asked = Asked {
        route: Route::parse(&parts.method, parts.uri.path()),
        query: Query::try_from_uri(&parts.uri).map_err(|_| StatusCode::BAD_REQUEST)?.0,
        token,
        who: Who::Nobody(BAD_CREDENTIALS),
        product: Product::of(parts.uri.path()),
        has_user_agent: text(header::USER_AGENT).is_some(),
        accept: text(header::ACCEPT).unwrap_or_default(),
        if_none_match: text(header::IF_NONE_MATCH),
        url: format!("http://{}{}", host.unwrap_or_else(|| "api.github.com".to_owned()), parts.uri.path()),
        body: Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes(),
    };
    Ok(asked)
}

impl State {
    fn answer_github(&mut self, asked: &mut Asked) -> (Response<Body>, Duration) {
        let operation = asked.route.operation();
        asked.who = asked.token.as_deref().map_or(Who::Nobody(BAD_CREDENTIALS), |token| self.who(token));
        let asked = &*asked;
        let token = match asked.who {
            Who::App => "app".to_owned(),
            Who::Installation(id) => Self::account_of(id),
            Who::Nobody(_) | Who::Person => asked.token.as_deref().map(fingerprint).unwrap_or_default(),
        };
        let mut answer = self.checked_answer(asked, &token);
        let known = answer.etag.take();
        let etag = answer.is_cacheable.then(|| known.unwrap_or_else(|| etag(asked, &answer.body)));
        let is_unchanged = etag.is_some() && etag == asked.if_none_match;
        let status = if is_unchanged { 304 } else { answer.status };
        let is_free = (status == 304 && !self.profile.github_charges_unchanged)
            || answer.limited.is_some()
            || matches!(asked.route, Route::RateLimit);
        if let Some(limiter) = self.tokens.get_mut(token.as_str()).filter(|_| !is_free) {
            limiter.charge();
        }
        let wait_secs = self.told_wait(&token, &answer);
        let quota = self.tokens.get(token.as_str()).map(|limiter| limiter.limit(&self.profile));
        self.record(What::Call {
            service: Service::Github,
            operation,
            status,
            points: if answer.limited.is_some() { 0 } else { asked.points() },
            token: token.as_str().into(),
            limited: answer.limited,
            subject: asked.route.subject(),
            client: self.caller,
            target: asked.target(),
            wait_secs,
            delay_secs: answer.delay_secs,
            page: asked.listed_page(),
            more: answer.link.as_deref().is_some_and(|link| link.contains("rel=\"next\"")),
            quota: quota.filter(|quota| *quota > self.profile.github_requests_per_hour),
        });
        let latency = if asked.is_write() { self.profile.write_latency_secs } else { self.profile.read_latency_secs };
        let wait = Duration::from_secs_f64(latency + answer.delay_secs).saturating_sub(TRANSIT);
        // A connection that is cut is open no longer, and no request is worked at for longer than this.
        let is_answered = answer.limited.is_none() && answer.sending != Sending::Cut;
        if let Some(limiter) = self.tokens.get_mut(token.as_str()).filter(|_| is_answered) {
            limiter.is_answered_at(self.now + wait.min(Duration::from_secs_f64(GATEWAY_TIMEOUT_SECS)));
        }
        if answer.sending == Sending::Cut {
            return (cut_connection(), wait);
        }
        let body = if is_unchanged { Bytes::new() } else { answer.body };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut headers = self.headers(&token, etag, answer.link, answer.retry_after);
        if answer.sending == Sending::WithoutLimits || asked.product == Product::Server {
            headers.retain(|(name, _)| !name.starts_with("x-ratelimit"));
        }
        if asked.product == Product::Server {
            headers.push(("x-github-enterprise-version", "3.19.0".to_owned()));
        }
        if let Some(end) = self.personal_token_end().filter(|_| asked.who == Who::Person) {
            headers.push(("github-authentication-token-expiration", end.format("%Y-%m-%d %H:%M:%S UTC").to_string()));
        }
        if asked.who == Who::Person && asked.token.as_deref().is_some_and(|token| token.starts_with(CLASSIC_TOKEN)) {
            headers.push(("x-oauth-scopes", CLASSIC_SCOPES.to_owned()));
        }
        headers.extend(asked.route.needs().map(|need| ("x-accepted-github-permissions", need.to_string())));
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        (response, wait)
    }

    /// How long a refusal for a limit says to wait, by its headers.
    fn told_wait(&mut self, token: &str, answer: &Answer) -> Option<f64> {
        if answer.limited.is_none() || answer.sending != Sending::Whole {
            return None;
        }
        if let Some(secs) = answer.retry_after {
            return Some(f64::from(secs));
        }
        let quota = self.tokens.get_mut(token)?.quota(self.now, &self.profile);
        (quota.remaining() == 0).then(|| (quota.reset - self.now).as_seconds_f64())
    }

    fn headers(
        &mut self,
        token: &str,
        etag: Option<String>,
        link: Option<String>,
        retry_after: Option<u32>,
    ) -> Vec<(&'static str, String)> {
        self.answers += 1;
        let mut headers = vec![
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("date", self.now.format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
            ("x-github-request-id", format!("SIM:{:X}", self.answers)),
            ("x-github-media-type", "github.v3; format=json".to_owned()),
        ];
        if let Some(etag) = etag {
            headers.push(("etag", etag));
            headers.push(("cache-control", "private, max-age=60, s-maxage=60".to_owned()));
        }
        headers.extend(link.map(|link| ("link", link)));
        headers.extend(retry_after.map(|secs| ("retry-after", secs.to_string())));
        let now = self.now;
        if let Some(limiter) = self.tokens.get_mut(token) {
            let quota = limiter.quota(now, &self.profile);
            headers.push(("x-ratelimit-limit", quota.limit.to_string()));
            headers.push(("x-ratelimit-remaining", quota.remaining().to_string()));
            headers.push(("x-ratelimit-used", quota.used.to_string()));
            headers.push(("x-ratelimit-reset", quota.reset.timestamp().to_string()));
            headers.push(("x-ratelimit-resource", "core".to_owned()));
        }
        headers
    }

    /// Credentials, limits and faults come before the endpoint.
    fn checked_answer(&mut self, asked: &Asked, token: &str) -> Answer {
        if !asked.has_user_agent {
            return Answer::error(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.",
            );
        }
        if asked.token.is_none() || self.revoked.get(token).is_some_and(|from| *from <= self.now) {
            return Answer::unauthorized();
        }
        if let Who::Nobody(why) = asked.who {
            return Answer::error(401, why);
        }
        if asked.product == Product::Server {
            return self.answer_or_fault(asked, token);
        }
        let now = self.now;
        let limiter = self.tokens.entry(token.into()).or_insert_with(|| GithubLimiter::new(now, &self.profile));
        match limiter.admit(asked.points(), now, &self.profile) {
            Verdict::Allowed => {}
            // The state of the limits can be asked for even then.
            Verdict::Primary | Verdict::Injected { form: LimitForm { kind: LimitKind::Primary, .. }, .. }
                if matches!(asked.route, Route::RateLimit) => {}
            Verdict::Primary => return Answer::limited(LimitKind::Primary, None),
            Verdict::Secondary { retry_after } => return Answer::limited(LimitKind::Secondary, Some(retry_after)),
            Verdict::Injected { form, wait, is_under_way } => {
                // Where nobody said how long it lasts, asking again later is how to find out.
                let recorded = if is_under_way || form.says == Says::Nothing { LimitKind::Injected } else { form.kind };
                return Answer::limited_by_fault(form, wait, recorded);
            }
        }
        self.answer_or_fault(asked, token)
    }

    /// The repository that is asked about; none where there is none.
    fn repo_of(&self, asked: &Asked) -> Option<RepoKey> {
        let found = self.repo_by_name.get(asked.route.subject().as_str()).copied();
        found.filter(|key| !self.repo(*key).is_deleted && !self.is_hidden(*key, asked))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other routes name a repository")]
    fn endpoint(&mut self, asked: &Asked, token: &str, strike: Option<Strike>) -> Answer {
        if let Some(refusal) = self.refuses(asked) {
            return refusal;
        }
        match &asked.route {
            Route::RateLimit => return self.rate_limit(token),
            Route::App => return self.app_answer(),
            Route::Installations => return self.list_installations(asked, strike),
            Route::InstallationToken(id) => return self.installation_token(*id),
            Route::InstallationRepos => return self.list_installation_repos(asked, strike),
            Route::OrgRepos(owner) => return self.list_org_repos(owner, asked, strike),
            _ => {}
        }
        let Some(repo) = self.repo_of(asked) else {
            let has_moved = self.moved.contains_key(asked.route.subject().as_str());
            return if has_moved { Answer::error(301, "Moved Permanently") } else { Answer::not_found() };
        };
        if let Some(refusal) = self.lacks_permission(repo, asked) {
            return refusal;
        }
        match &asked.route {
            Route::Runs(_) => self.list_runs(repo, asked, strike),
            Route::Run(_, run) => self.get_run(repo, *run),
            Route::Jobs(_, run) => self.list_jobs(repo, *run, asked, strike),
            Route::Job(_, job) => self.get_job(repo, *job),
            Route::Repo(_) => self.get_repo(repo),
            Route::ActionsPermissions(_) => Answer::ok(body::actions_permissions(Actions::Enabled)),
            Route::Runners(_) => self.list_runners(repo, asked, strike),
            Route::Runner(_, runner) => self.get_runner(repo, *runner),
            Route::DeleteRunner(_, runner) => self.delete_runner_answer(repo, *runner, strike),
            Route::Mint(_) => self.mint_answer(repo, asked, strike),
            Route::Downloads(_) => self.downloads_answer(asked),
            Route::Deprecation(_, version) if asked.product == Product::Cloud => self.deprecation_answer(version),
            Route::Groups(_) => self.list_groups(repo, asked, strike),
            Route::GroupRepos(_, group) => self.list_group_repos(repo, (*group, asked), strike),
            Route::App
            | Route::Installations
            | Route::InstallationToken(_)
            | Route::InstallationRepos
            | Route::OrgRepos(_)
            | Route::RateLimit
            | Route::Deprecation(..)
            | Route::Unknown => Answer::not_found(),
        }
    }

    /// The moment that a list shows, which lies a little back.
    fn list_moment(&mut self, max_lag_secs: f64, strike: Option<Strike>) -> Time {
        self.answers += 1;
        let lag = || self.seed.stream(Purpose::GithubLag, self.answers).lag(max_lag_secs);
        self.now - self.staleness(strike).unwrap_or_else(lag)
    }
}
