//! One request at a time: charged, bounded in time and size, counted, and its answer judged.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use http::header::{AUTHORIZATION, IF_NONE_MATCH};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use octocrab::Octocrab;
use secrecy::ExposeSecret;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::call::{Call, Operation};
use super::error::Refusal;
use super::etag::{Credential, PageCaches};
use super::rate::{self, Limit};
use super::source::{Again, Source};
use super::token::Token;
use super::{Answer, GithubError, GithubSettings};
use crate::budget::{Answered, Budget, Purpose};
use crate::clock::Clock;
use crate::error::{ErrorChain, ErrorClass};
use crate::ids::CredentialName;

/// The metric that counts requests; labels `credential`, `operation` and `result`.
const REQUESTS: &str = "sandrunner_github_requests_total";

/// Shows what every credential is used for as not asked yet, so that the first failure is a rise.
fn zero_requests(credential: &CredentialName) {
    for operation in Operation::USUAL {
        let failures = ErrorClass::ALL.map(ErrorClass::as_str);
        for result in ["ok", "not_modified"].into_iter().chain(failures) {
            let (credential, operation) = (credential.to_string(), operation.as_str());
            metrics::counter!(REQUESTS, "credential" => credential, "operation" => operation, "result" => result)
                .absolute(0);
        }
    }
}

/// The longest body that is read: fifty times a page of 100 runs, which is about 600 KB.
const LONGEST_BODY: usize = 32 * 1024 * 1024;

/// How many requests were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// All requests.
    pub requests: u64,
    /// Those answered `304 Not Modified`, which cost no primary quota.
    pub not_modified: u64,
}

/// What is asked of GitHub; paths are relative to the base and hold the whole query.
pub(super) enum Request<'a> {
    Get { path: &'a str, known: Option<&'a HeaderValue> },
    Post { path: &'a str, body: &'a serde_json::Value },
    Delete { path: &'a str },
}

/// How a credential fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialState {
    /// The last failure that says something of the credential or of GitHub, and when it happened.
    pub last_failure: Option<(DateTime<Utc>, String)>,
    /// Until when nothing is sent: GitHub limits the credential, or refuses it.
    pub held_until: Option<DateTime<Utc>>,
    /// When its token ends, where that is known; the next one of an installation is fetched before.
    pub token_ends: Option<DateTime<Utc>>,
}

/// The client of one credential, shared by reader and writer.
pub(super) struct Client {
    octocrab: Octocrab,
    source: Source,
    name: CredentialName,
    clock: Clock,
    budget: Arc<Mutex<Budget>>,
    in_flight: Semaphore,
    /// Fewer, so that a write never waits for slow readings alone.
    reads_in_flight: Semaphore,
    requests: AtomicU64,
    not_modified: AtomicU64,
    last_failure: Mutex<Option<(DateTime<Utc>, String)>>,
    pub(super) caches: Arc<PageCaches>,
}

/// One of so many requests under way is kept for writes.
const KEPT_FOR_WRITES: usize = 4;

/// The right to have one request under way.
struct Permit<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_reads: Option<SemaphorePermit<'a>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(
        octocrab: Octocrab,
        source: Source,
        name: CredentialName,
        settings: &GithubSettings,
        clock: Clock,
    ) -> Self {
        zero_requests(&name);
        Self {
            octocrab,
            source,
            name,
            clock,
            budget: Arc::new(Mutex::new(Budget::new(settings.limits.clone()))),
            in_flight: Semaphore::new(settings.max_in_flight),
            reads_in_flight: Semaphore::new(
                (settings.max_in_flight - settings.max_in_flight.div_ceil(KEPT_FOR_WRITES)).max(1),
            ),
            requests: AtomicU64::new(0),
            not_modified: AtomicU64::new(0),
            last_failure: Mutex::default(),
            caches: Arc::default(),
        }
    }

    pub(super) fn name(&self) -> &CredentialName {
        &self.name
    }

    /// What stands for its token, where that stays the same.
    pub(super) fn identity(&self) -> Option<Credential> {
        self.source.identity()
    }

    /// How far GitHub's time is ahead of ours, as far as answers have told.
    pub(super) fn skew(&self) -> TimeDelta {
        self.clock.skew()
    }

    pub(super) fn budget(&self) -> Arc<Mutex<Budget>> {
        Arc::clone(&self.budget)
    }

    pub(super) fn counts(&self) -> RequestCounts {
        RequestCounts {
            requests: self.requests.load(Ordering::Relaxed),
            not_modified: self.not_modified.load(Ordering::Relaxed),
        }
    }

    pub(super) fn state(&self) -> CredentialState {
        let now = self.clock.now();
        let limited = self.lock_budget().held_until(now);
        CredentialState {
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            held_until: limited.max(self.source.stopped_until(now)),
            token_ends: self.source.token_ends(),
        }
    }

    /// Sends one request, once, or once more where its token is refused and there is another.
    ///
    /// # Errors
    /// [`GithubError`] for every answer but a success or `304`.
    pub(super) async fn send(
        &self,
        call: &Call,
        purpose: Purpose,
        request: Request<'_>,
    ) -> Result<Answer, GithubError> {
        let mut token = self.token(call, purpose, None).await?;
        self.send_with(&mut token, call, purpose, request).await
    }

    /// What to send a request with; `page` is the path of a page that may be known from an earlier token.
    pub(super) async fn token(
        &self,
        call: &Call,
        purpose: Purpose,
        page: Option<&str>,
    ) -> Result<Arc<Token>, GithubError> {
        self.source.token(purpose, page, &self.clock).await.map_err(|source| {
            let error = GithubError::NoToken { call: call.clone(), source };
            self.note_failure(&error);
            error
        })
    }

    /// [`Client::send`] with a token, in whose place stands afterwards the one that was sent at last.
    pub(super) async fn send_with(
        &self,
        token: &mut Arc<Token>,
        call: &Call,
        purpose: Purpose,
        request: Request<'_>,
    ) -> Result<Answer, GithubError> {
        let result = self.send_once(token, call, purpose, &request).await;
        if !result.as_ref().is_err_and(GithubError::refuses_token) {
            return result;
        }
        if self.source.refused(token, self.clock.now()) == Again::No {
            return result;
        }
        // A request that is refused for its token has had no effect.
        *token = self.token(call, purpose, None).await?;
        let result = self.send_once(token, call, purpose, &request).await;
        if result.as_ref().is_err_and(GithubError::refuses_token) {
            self.source.refused(token, self.clock.now());
        }
        result
    }

    async fn send_once(
        &self,
        token: &Token,
        call: &Call,
        purpose: Purpose,
        request: &Request<'_>,
    ) -> Result<Answer, GithubError> {
        let _permit = self.admit(call, purpose).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sent = self.clock.now();
        let exchange = self.exchange(token, call, request);
        let result = match self.clock.deadline(call.operation.deadline(), exchange).await {
            Ok(Ok(answer)) => {
                self.learn_date(&answer, sent);
                self.learn_end(&answer);
                self.judge(call, purpose, answer, token)
            }
            Ok(Err(error)) => Err(error),
            Err(source) => Err(GithubError::TimedOut { call: call.clone(), source }),
        };
        self.record(call, &result, sent);
        result
    }

    /// Charges the request and waits for its turn. A pause that GitHub imposed is not waited for: by its
    /// end the reason for the request may be gone.
    async fn admit(&self, call: &Call, purpose: Purpose) -> Result<Permit<'_>, GithubError> {
        let start = {
            let mut budget = self.lock_budget();
            self.refuse_while_held(&budget, call)?;
            budget.reserve(purpose, self.clock.now())
        };
        self.clock.sleep_until(start).await;
        let of_reads = if purpose.is_mutation() {
            None
        } else {
            Some(self.reads_in_flight.acquire().await.expect("the semaphore is never closed"))
        };
        let of_all = self.in_flight.acquire().await.expect("the semaphore is never closed");
        // Another request may have met the limit in the meantime.
        self.refuse_while_held(&self.lock_budget(), call)?;
        Ok(Permit { _of_all: of_all, _of_reads: of_reads })
    }

    fn refuse_while_held(&self, budget: &Budget, call: &Call) -> Result<(), GithubError> {
        let now = self.clock.now();
        budget.held_until(now).map_or(Ok(()), |until| {
            Err(GithubError::Held { call: call.clone(), wait: (until - now).to_std().unwrap_or_default() })
        })
    }

    fn lock_budget(&self) -> MutexGuard<'_, Budget> {
        // Its accounts are plain numbers: whoever panicked left nothing half done that matters.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, token: &Token, call: &Call, request: &Request<'_>) -> Result<Answer, GithubError> {
        let no_answer = |source| GithubError::NoAnswer { call: call.clone(), source };
        let builder = http::Request::builder().header(AUTHORIZATION, token.header());
        let built = match *request {
            Request::Get { path, known } => {
                let builder = builder.method(Method::GET).uri(path);
                let builder = known.into_iter().fold(builder, |builder, etag| builder.header(IF_NONE_MATCH, etag));
                self.octocrab.build_request(builder, None::<&()>)
            }
            Request::Post { path, body } => {
                self.octocrab.build_request(builder.method(Method::POST).uri(path), Some(body))
            }
            Request::Delete { path } => {
                self.octocrab.build_request(builder.method(Method::DELETE).uri(path), None::<&()>)
            }
        };
        let sent = match built {
            Ok(request) => self.octocrab.execute(request).await,
            Err(error) => Err(error),
        };
        let (parts, body) = sent.map_err(|error| no_answer(error.into()))?.into_parts();
        let body = Limited::new(body, LONGEST_BODY).collect().await.map_err(no_answer)?.to_bytes();
        Ok(Answer::new(parts.status, parts.headers, body, token.secret()))
    }

    /// Whatever else the answer says, its date tells how far our clock is off.
    fn learn_date(&self, answer: &Answer, sent: DateTime<Utc>) {
        let Some(date) = rate::date(&answer.headers) else { return };
        self.source.learn_date(date, self.clock.now());
        if let Some(skew) = self.clock.learn_date(date, sent) {
            tracing::warn!(behind_seconds = skew.num_seconds(), "this machine's clock differs from GitHub's");
        }
    }

    fn learn_end(&self, answer: &Answer) {
        let now = self.clock.now();
        let Some(ends_at) = rate::token_end(&answer.headers, now) else { return };
        if let Some(left) = self.source.learn_end(ends_at, now) {
            tracing::warn!(
                credential = %self.name, %ends_at, days_left = left.num_days(),
                "GitHub's token soon ends: make another one and set it"
            );
        }
    }

    /// Corrects the budget by the answer, and makes an error of a refusal.
    fn judge(&self, call: &Call, purpose: Purpose, answer: Answer, token: &Token) -> Result<Answer, GithubError> {
        let now = self.clock.now();
        let is_unchanged = answer.status == StatusCode::NOT_MODIFIED;
        let answered = Answered { purpose, is_unchanged, quota: rate::quota(&answer.headers, now) };
        if answer.status.is_success() || is_unchanged {
            self.lock_budget().answered(answered, now);
            self.source.accepted();
            return Ok(answer);
        }
        let (refusal, limit) = Refusal::read(call, &answer, token.secret().expose_secret(), now);
        let mut budget = self.lock_budget();
        match limit {
            Some(Limit::Secondary(retry_after)) => budget.limited_secondary(retry_after, now),
            Some(Limit::Primary(wait)) => {
                budget.limited_primary(now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::zero()));
            }
            None => budget.answered(answered, now),
        }
        Err(GithubError::Refused { call: call.clone(), refusal: Box::new(refusal) })
    }

    /// Remembers what went wrong with the credential, or with the way to GitHub; not what is wrong with a repository.
    fn note_failure(&self, error: &GithubError) {
        match error.class() {
            ErrorClass::Unauthorized
            | ErrorClass::Forbidden
            | ErrorClass::RateLimited
            | ErrorClass::Unavailable
            | ErrorClass::Unreadable
            | ErrorClass::Unsent => {
                let told = (self.clock.now(), ErrorChain(error).to_string());
                *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            }
            ErrorClass::Policy | ErrorClass::NotFound | ErrorClass::Conflict | ErrorClass::Invalid => {}
        }
    }

    fn record(&self, call: &Call, result: &Result<Answer, GithubError>, sent: DateTime<Utc>) {
        let operation = call.operation.as_str();
        let result = match result {
            Ok(answer) if answer.status == StatusCode::NOT_MODIFIED => {
                self.not_modified.fetch_add(1, Ordering::Relaxed);
                "not_modified"
            }
            Ok(_) => "ok",
            Err(error) => {
                self.note_failure(error);
                error.class().as_str()
            }
        };
        let elapsed_seconds = (self.clock.now() - sent).as_seconds_f64();
        let subject = &call.subject;
        tracing::trace!(credential = %self.name, operation, subject, result, elapsed_seconds, "asked GitHub");
        let name = self.name.to_string();
        metrics::counter!(REQUESTS, "credential" => name, "operation" => operation, "result" => result).increment(1);
    }
}
