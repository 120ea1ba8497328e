//! The auth token that most calls carry besides the token pair: fetched once for all callers, renewed early.
//!
//! The token's signature is Modal's business; only its end (`exp`) is read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use tokio::task::JoinSet;
use tonic::metadata::{Ascii, MetadataValue};
use tracing::debug;

use super::api;
use super::attempts::{Attempts, Patience, RETRIES_MAX};
use super::error::{ModalError, Refusal, Replies};
use super::operation::Operation;
use super::transport::{Client, Transport};

/// The deadline of one attempt to get a token.
const PER_ATTEMPT: Duration = Duration::from_secs(5);

/// The deadline of all attempts to get a token.
const IN_ALL: Duration = Duration::from_secs(15);

/// The life time of a token that does not tell its end.
const DEFAULT_LIFETIME: TimeDelta = TimeDelta::minutes(20);

/// The longest life time that is believed: no token is used for longer without being renewed.
const LIFETIME_MAX: TimeDelta = TimeDelta::days(1);

/// The wait after a first failed renewal; doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);

/// The longest wait after a failed renewal.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The cache of the auth token; dropping it ends a renewal under way.
pub(super) struct AuthTokens {
    shared: Arc<Shared>,
    renewal: Mutex<JoinSet<()>>,
}

struct Shared {
    transport: Arc<Transport>,
    server_url: String,
    current: Mutex<Option<AuthToken>>,
    /// Held while a token is fetched, so that there is one fetch for all who need it.
    flight: tokio::sync::Mutex<Flight>,
}

/// What the last fetches left behind.
#[derive(Default)]
struct Flight {
    failures: u32,
    failed: Option<Failed>,
}

struct Failed {
    refusal: Refusal,
    again_at: DateTime<Utc>,
}

/// A token with its times.
#[derive(Clone)]
pub(super) struct AuthToken {
    pub(super) value: MetadataValue<Ascii>,
    renew_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl AuthTokens {
    pub(super) fn new(transport: Arc<Transport>, server_url: &str) -> Self {
        let shared = Shared {
            transport,
            server_url: server_url.to_owned(),
            current: Mutex::default(),
            flight: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared), renewal: Mutex::default() }
    }

    /// A token that has not ended. Fetches one where there is none; renews an ageing one in the background.
    pub(super) async fn token(&self) -> Result<AuthToken, ModalError> {
        let Some(token) = self.shared.valid() else {
            return Box::pin(self.shared.fetch_unless(Shared::valid)).await;
        };
        if token.renew_at <= self.shared.transport.clock.now() {
            self.renew_in_background();
        }
        Ok(token)
    }

    /// A token other than `refused`, which Modal did not accept.
    pub(super) async fn other_than(&self, refused: &AuthToken) -> Result<AuthToken, ModalError> {
        let is_other = |token: &AuthToken| token.value != refused.value;
        Box::pin(self.shared.fetch_unless(|shared| shared.valid().filter(is_other))).await
    }

    fn renew_in_background(&self) {
        let mut renewal = self.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        while renewal.try_join_next().is_some() {}
        if renewal.is_empty() {
            let shared = Arc::clone(&self.shared);
            renewal.spawn(async move { shared.renew().await });
        }
    }
}

impl Shared {
    fn valid(&self) -> Option<AuthToken> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|token| self.transport.clock.now() < token.expires_at)
    }

    /// Waits for the fetch under way; makes one where `found` still finds nothing after it.
    async fn fetch_unless(&self, found: impl Fn(&Self) -> Option<AuthToken>) -> Result<AuthToken, ModalError> {
        let mut flight = self.flight.lock().await;
        if let Some(token) = found(self) {
            return Ok(token);
        }
        // Those who waited for a fetch that failed share its failure.
        if let Some(failed) = flight.failed.as_ref().filter(|failed| self.transport.clock.now() < failed.again_at) {
            return Err(self.error(failed.refusal.clone()));
        }
        self.fetch(&mut flight, RETRIES_MAX).await.map_err(|refusal| self.error(refusal))
    }

    /// Replaces a token that is still valid. On failure the old one stays, and callers need not know.
    async fn renew(&self) {
        let mut flight = self.flight.lock().await;
        let now = self.transport.clock.now();
        let is_due = self.valid().is_none_or(|token| token.renew_at <= now);
        let is_waiting = flight.failed.as_ref().is_some_and(|failed| now < failed.again_at);
        if is_due
            && !is_waiting
            && let Err(refusal) = self.fetch(&mut flight, 0).await
        {
            debug!(error = %refusal, "cannot renew Modal's auth token yet");
        }
    }

    async fn fetch(&self, flight: &mut Flight, retries: u32) -> Result<AuthToken, Refusal> {
        let answer = self.call(retries).await;
        let now = self.transport.clock.now();
        match answer.and_then(|answer| self.read(&answer.token, now)) {
            Ok(token) => {
                *flight = Flight::default();
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
                Ok(token)
            }
            Err(refusal) => {
                let wait = (FIRST_BACKOFF * 2_u32.saturating_pow(flight.failures.min(10))).min(BACKOFF_MAX);
                flight.failures += 1;
                flight.failed = Some(Failed { refusal: refusal.clone(), again_at: now + wait });
                Err(refusal)
            }
        }
    }

    async fn call(&self, retries: u32) -> Result<api::AuthTokenGetResponse, Refusal> {
        let clock = &self.transport.clock;
        let patience = Patience { per_attempt: PER_ATTEMPT, in_all: IN_ALL, retries, throttle_wait: IN_ALL };
        let mut attempts = Attempts::new(patience, clock.now());
        loop {
            let mut request = self.transport.request(api::AuthTokenGetRequest {});
            attempts.describe(request.metadata_mut(), clock.now());
            let send = |mut client: Client, request| async move { client.auth_token_get(request).await };
            let limit = attempts.limit(clock.now());
            match self.transport.attempt(Operation::AUTHENTICATE, limit, request, send).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => match attempts.after(&refusal, clock.now()) {
                    Some(delay) => clock.sleep(delay).await,
                    None => return Err(refusal),
                },
            }
        }
    }

    fn read(&self, token: &str, now: DateTime<Utc>) -> Result<AuthToken, Refusal> {
        let mut value: MetadataValue<Ascii> = token.try_into().map_err(|_| {
            let status = tonic::Status::internal("the auth token is no ASCII text");
            self.transport.refusal(Operation::AUTHENTICATE, &status)
        })?;
        value.set_sensitive(true);
        let lifetime = lifetime(token, now + self.transport.clock.skew());
        let share = 0.55;
        let age = lifetime.to_std().unwrap_or_default().mul_f64(share);
        Ok(AuthToken { value, renew_at: now + age, expires_at: now + lifetime })
    }

    fn error(&self, refusal: Refusal) -> ModalError {
        ModalError::Call {
            operation: Operation::AUTHENTICATE,
            subject: format!("Modal at {}", self.server_url),
            refusal,
            replies: Replies::All,
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

/// How long a token may be used that is received when Modal's clock shows `now`.
fn lifetime(token: &str, now: DateTime<Utc>) -> TimeDelta {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let exp = claims.and_then(|json| serde_json::from_slice::<Claims>(&json).ok()).and_then(|claims| claims.exp);
    #[expect(clippy::cast_possible_truncation, reason = "a cast beyond the range saturates, and is then cut")]
    let end = exp.and_then(|exp| DateTime::from_timestamp_millis((exp * 1e3) as i64));
    // A token that ended before it arrived says that the clocks differ, not that it cannot be used.
    end.map(|end| end - now).filter(|left| *left > TimeDelta::zero()).unwrap_or(DEFAULT_LIFETIME).min(LIFETIME_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_life_time_is_read_without_the_signature() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        assert_eq!(lifetime(&jwt(r#"{"exp": 1000600, "iat": 1}"#), now), TimeDelta::minutes(10));
        assert_eq!(lifetime(&jwt(r#"{"exp": 1000000.5}"#), now), TimeDelta::milliseconds(500));
        assert_eq!(lifetime(&format!("{}==", jwt(r#"{"exp":1000600}"#)), now), TimeDelta::minutes(10));
    }

    #[test]
    fn a_token_without_a_usable_end_lives_twenty_minutes() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let odd =
            ["", "opaque", "a.b.c", &jwt("[]"), &jwt(r#"{"exp": "soon"}"#), &jwt("{}"), &jwt(r#"{"exp": 999999}"#)];
        for token in odd {
            assert_eq!(lifetime(token, now), DEFAULT_LIFETIME, "{token}");
        }
        assert_eq!(lifetime(&jwt(r#"{"exp": 1e300}"#), now), DEFAULT_LIFETIME);
        assert_eq!(lifetime(&jwt(r#"{"exp": 9999999999}"#), now), LIFETIME_MAX);
    }
}
