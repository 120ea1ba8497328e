//! One request at a time: charged, bounded in time and size, counted, and its answer judged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use octocrab::Octocrab;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::call::Call;
use super::error::Refusal;
use super::etag::{Credential, PageCaches};
use super::rate::{self, Limit};
use super::{Answer, Checked, GithubError, GithubSettings};
use crate::budget::{Answered, Budget, Purpose};
use crate::clock::Clock;
use crate::ids::AccountName;

/// The metric that counts requests; labels `account`, `operation` and `result`.
const REQUESTS: &str = "sandrunner_github_requests_total";

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

/// The client of one credential, shared by reader and writer.
pub(super) struct Client {
    octocrab: Octocrab,
    /// To take it out of answers that repeat it.
    token: SecretString,
    account: AccountName,
    clock: Clock,
    budget: Arc<Mutex<Budget>>,
    in_flight: Semaphore,
    requests: AtomicU64,
    not_modified: AtomicU64,
    pub(super) credential: Credential,
    pub(super) caches: PageCaches,
}

impl Client {
    pub(super) fn new(octocrab: Octocrab, checked: Checked, settings: GithubSettings, clock: Clock) -> Self {
        let GithubSettings { account, api_url: _, token: _, limits, max_in_flight } = settings;
        let Checked { base: _, token, credential } = checked;
        Self {
            octocrab,
            token,
            account,
            clock,
            budget: Arc::new(Mutex::new(Budget::new(limits))),
            in_flight: Semaphore::new(max_in_flight),
            requests: AtomicU64::new(0),
            not_modified: AtomicU64::new(0),
            credential,
            caches: PageCaches::default(),
        }
    }

    pub(super) fn account(&self) -> &AccountName {
        &self.account
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

    /// Sends one request, once. Every answer but a success or `304` is an error.
    pub(super) async fn send(
        &self,
        call: &Call,
        purpose: Purpose,
        request: Request<'_>,
    ) -> Result<Answer, GithubError> {
        let _permit = self.admit(call, purpose).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let sent = self.clock.now();
        let result = match self.clock.deadline(call.operation.deadline(), self.exchange(call, request)).await {
            Ok(Ok(answer)) => {
                self.learn_date(&answer, sent);
                self.judge(call, purpose, answer)
            }
            Ok(Err(error)) => Err(error),
            Err(source) => Err(GithubError::TimedOut { call: call.clone(), source }),
        };
        self.record(call, &result);
        result
    }

    /// Charges the request and waits for its turn. A pause that GitHub imposed is not waited for: by its
    /// end the reason for the request may be gone.
    async fn admit(&self, call: &Call, purpose: Purpose) -> Result<SemaphorePermit<'_>, GithubError> {
        let start = {
            let mut budget = self.lock_budget();
            self.refuse_while_held(&budget, call)?;
            budget.reserve(purpose, self.clock.now())
        };
        self.clock.sleep_until(start).await;
        let permit = self.in_flight.acquire().await.expect("the semaphore is never closed");
        // Another request may have met the limit in the meantime.
        self.refuse_while_held(&self.lock_budget(), call)?;
        Ok(permit)
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

    async fn exchange(&self, call: &Call, request: Request<'_>) -> Result<Answer, GithubError> {
        let no_answer = |source| GithubError::NoAnswer { call: call.clone(), source };
        let sent = match request {
            Request::Get { path, known } => {
                let headers = known.map(|etag| HeaderMap::from_iter([(IF_NONE_MATCH, etag.clone())]));
                self.octocrab._get_with_headers(path, headers).await
            }
            Request::Post { path, body } => self.octocrab._post(path, Some(body)).await,
            Request::Delete { path } => self.octocrab._delete(path, None::<&()>).await,
        };
        let (parts, body) = sent.map_err(|error| no_answer(error.into()))?.into_parts();
        let body = Limited::new(body, LONGEST_BODY).collect().await.map_err(no_answer)?.to_bytes();
        Ok(Answer::new(parts.status, parts.headers, body, &self.token))
    }

    /// Whatever else the answer says, its date tells how far our clock is off.
    fn learn_date(&self, answer: &Answer, sent: DateTime<Utc>) {
        if let Some(skew) = rate::date(&answer.headers).and_then(|date| self.clock.learn_date(date, sent)) {
            tracing::warn!(behind_seconds = skew.num_seconds(), "this machine's clock differs from GitHub's");
        }
    }

    /// Corrects the budget by the answer, and makes an error of a refusal.
    fn judge(&self, call: &Call, purpose: Purpose, answer: Answer) -> Result<Answer, GithubError> {
        let now = self.clock.now();
        let is_unchanged = answer.status == StatusCode::NOT_MODIFIED;
        let answered = Answered { purpose, is_unchanged, quota: rate::quota(&answer.headers, now) };
        if answer.status.is_success() || is_unchanged {
            self.lock_budget().answered(answered);
            return Ok(answer);
        }
        let (refusal, limit) = Refusal::read(call, &answer, self.token.expose_secret(), now);
        let mut budget = self.lock_budget();
        match limit {
            Some(Limit::Secondary(retry_after)) => budget.limited_secondary(retry_after, now),
            Some(Limit::Primary(wait)) => {
                budget.limited_primary(now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::zero()));
            }
            None => budget.answered(answered),
        }
        Err(GithubError::Refused { call: call.clone(), refusal: Box::new(refusal) })
    }

    fn record(&self, call: &Call, result: &Result<Answer, GithubError>) {
        let operation = call.operation.as_str();
        let result = match result {
            Ok(answer) if answer.status == StatusCode::NOT_MODIFIED => {
                self.not_modified.fetch_add(1, Ordering::Relaxed);
                "not_modified"
            }
            Ok(_) => "ok",
            Err(error) => error.class().as_str(),
        };
        tracing::trace!(account = %self.account, operation, subject = call.subject, result, "asked GitHub");
        metrics::counter!(REQUESTS, "account" => self.account.to_string(), "operation" => operation, "result" => result)
            .increment(1);
    }
}
