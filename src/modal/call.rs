//! One logical call: attempts, repetitions, and a second auth token where the first is refused.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::ModalSettings;
use super::attempts::{Attempts, Patience, RETRIES_MAX};
use super::auth::{AuthToken, AuthTokens};
use super::error::{ModalError, Refusal, Replies};
use super::operation::Operation;
use super::transport::{Client, ModalService, Transport};
use crate::clock::Clock;
use crate::error::ErrorClass;

/// The deadline of a call that neither schedules a sandbox nor is held by Modal.
pub(super) const PLAIN_LIMIT: Duration = Duration::from_secs(30);

/// What is asked of Modal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    /// What it is about: a name or an id.
    pub(super) subject: &'a str,
    /// The deadline of all attempts together.
    pub(super) limit: Duration,
}

impl<'a> Call<'a> {
    /// A call with the usual deadline.
    pub(super) fn plain(operation: Operation, subject: &'a str) -> Self {
        Self { operation, subject, limit: PLAIN_LIMIT }
    }

    pub(super) fn failed(&self, refusal: Refusal, replies: Replies) -> ModalError {
        ModalError::Call { operation: self.operation, subject: self.subject.to_owned(), refusal, replies }
    }

    pub(super) fn unreadable(&self, problem: &'static str) -> ModalError {
        ModalError::Unreadable { operation: self.operation, subject: self.subject.to_owned(), problem }
    }

    /// An id out of an answer, which may not be empty.
    pub(super) fn id<T>(&self, id: String, make: impl FnOnce(String) -> T) -> Result<T, ModalError> {
        if id.is_empty() { Err(self.unreadable("the answer holds no id")) } else { Ok(make(id)) }
    }
}

/// The connection that readers and writers share.
pub(super) struct Caller {
    pub(super) settings: ModalSettings,
    pub(super) transport: Arc<Transport>,
    auth: AuthTokens,
    /// No create before this time: Modal asked one of them to wait, and has one limit for all.
    creates_held: Mutex<Option<DateTime<Utc>>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Caller {
    pub(super) fn new(service: ModalService, settings: ModalSettings, clock: Clock) -> Result<Self, ModalError> {
        let transport = Arc::new(Transport::new(service, &settings, clock)?);
        let auth = AuthTokens::new(Arc::clone(&transport), &settings.server_url);
        Ok(Self { settings, transport, auth, creates_held: Mutex::default() })
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.transport.clock
    }

    /// Makes a call with all its repetitions.
    pub(super) async fn call<Q, R, F, Fut>(&self, call: Call<'_>, message: Q, send: F) -> Result<R, ModalError>
    where
        Q: Clone,
        F: Fn(Client, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let clock = self.clock();
        let mut session = Session::new(&self.auth).await?;
        let mut attempts = Attempts::new(self.patience(call.limit), clock.now());
        loop {
            if let Some(refusal) = self.held(call.operation, clock.now()) {
                match attempts.after(&refusal, clock.now()) {
                    Some(delay) => clock.sleep(delay).await,
                    None => return Err(call.failed(refusal, attempts.replies())),
                }
                continue;
            }
            let mut request = self.transport.request(message.clone());
            attempts.describe(request.metadata_mut(), clock.now());
            session.describe(request.metadata_mut());
            let limit = attempts.limit(clock.now());
            let refusal = match self.transport.attempt(call.operation, limit, request, &send).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => session.hide(refusal),
            };
            match session.renew(&refusal).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(_) if attempts.replies() == Replies::SomeLost => {
                    return Err(call.failed(refusal, attempts.replies()));
                }
                Err(error) => return Err(error),
            }
            self.hold(call.operation, &refusal, clock.now());
            match attempts.after(&refusal, clock.now()) {
                Some(delay) => clock.sleep(delay).await,
                None => return Err(call.failed(refusal, attempts.replies())),
            }
        }
    }

    /// Why a call may not be sent yet.
    fn held(&self, operation: Operation, now: DateTime<Utc>) -> Option<Refusal> {
        let until = self.creates_held.lock().expect("no holder of the time panics").filter(|_| operation.is_creating());
        let wait = (until? - now).to_std().ok().filter(|wait| !wait.is_zero())?;
        Some(Refusal::held(wait))
    }

    /// Remembers that creates are to wait.
    fn hold(&self, operation: Operation, refusal: &Refusal, now: DateTime<Utc>) {
        let is_limit = operation.is_creating() && refusal.class() == ErrorClass::RateLimited;
        let wait = refusal.retry_after().filter(|_| is_limit).and_then(|wait| TimeDelta::from_std(wait).ok());
        if let Some(until) = wait.and_then(|wait| now.checked_add_signed(wait)) {
            let mut held = self.creates_held.lock().expect("no holder of the time panics");
            *held = Some(held.map_or(until, |held| held.max(until)));
        }
    }

    /// Opens a stream, which Modal's clients do not repeat at this level.
    pub(super) async fn open<Q, R, F, Fut>(
        &self,
        call: Call<'_>,
        message: Q,
        send: F,
    ) -> Result<Streaming<R>, ModalError>
    where
        Q: Clone,
        F: Fn(Client, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<Streaming<R>>, Status>>,
    {
        let mut session = Session::new(&self.auth).await?;
        loop {
            let mut request = self.transport.request(message.clone());
            session.describe(request.metadata_mut());
            match self.transport.attempt(call.operation, call.limit, request, &send).await {
                Ok(stream) => return Ok(stream),
                Err(refusal) => {
                    if !session.renew(&refusal).await? {
                        return Err(call.failed(session.hide(refusal), Replies::All));
                    }
                }
            }
        }
    }

    fn patience(&self, limit: Duration) -> Patience {
        Patience {
            per_attempt: limit,
            in_all: limit,
            retries: RETRIES_MAX,
            throttle_wait: self.settings.max_throttle_wait,
        }
    }
}

/// The auth token of one call, which is replaced at most once.
struct Session<'a> {
    auth: &'a AuthTokens,
    token: AuthToken,
    is_renewed: bool,
}

impl<'a> Session<'a> {
    async fn new(auth: &'a AuthTokens) -> Result<Self, ModalError> {
        Ok(Self { auth, token: auth.token().await?, is_renewed: false })
    }

    fn describe(&self, metadata: &mut MetadataMap) {
        metadata.insert("x-modal-auth-token", self.token.value.clone());
    }

    /// The refusal without this call's token, should Modal have repeated it.
    fn hide(&self, refusal: Refusal) -> Refusal {
        match self.token.value.to_str() {
            Ok(token) => refusal.without(token),
            Err(_) => refusal,
        }
    }

    /// Gets another token where this one was refused; whether it did.
    async fn renew(&mut self, refusal: &Refusal) -> Result<bool, ModalError> {
        if self.is_renewed || refusal.class() != ErrorClass::Unauthorized {
            return Ok(false);
        }
        self.is_renewed = true;
        self.token = self.auth.other_than(&self.token).await?;
        Ok(true)
    }
}
