//! Where a client gets its tokens from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret;

use super::app::App;
use super::etag::Credential;
use super::jwt::AppKey;
use super::token::{Advice, Token, Tokens};
use crate::budget::Purpose;
use crate::clock::Clock;
use crate::error::{CallFailure, ErrorClass};
use crate::retry;

/// Where the tokens of one client come from.
#[derive(Debug)]
pub(super) enum Source {
    /// There is one, and no other.
    Personal(Personal),
    /// The App signs its own.
    App(Signer),
    /// The App asks for those of its installation at an owner.
    Installation(Installation),
}

/// Whether a request that was refused for its token is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// With another token it may be answered.
    Once,
    /// There is no other token.
    No,
}

impl Source {
    /// What to send a request with.
    ///
    /// # Errors
    /// [`CallFailure`] where there is nothing; its class is never [`ErrorClass::NotFound`], which would speak of what
    /// was asked for.
    pub(super) async fn token(
        &self,
        purpose: Purpose,
        page: Option<&str>,
        clock: &Clock,
    ) -> Result<Arc<Token>, CallFailure> {
        match self {
            Self::Personal(personal) => personal.token(clock.now()),
            Self::App(signer) => signer.token(clock.now()),
            Self::Installation(installation) => installation.token(purpose, page, clock).await,
        }
    }

    /// Notes GitHub's time in an answer that came just now.
    pub(super) fn learn_date(&self, date: DateTime<Utc>, now: DateTime<Utc>) {
        if let Self::App(signer) = self {
            *signer.ahead.lock().unwrap_or_else(PoisonError::into_inner) = date - now;
        }
    }

    /// Notes when GitHub says that a personal token ends; how much is left, where that is little and was not told today.
    pub(super) fn learn_end(&self, ends: DateTime<Utc>, now: DateTime<Utc>) -> Option<TimeDelta> {
        match self {
            Self::Personal(personal) => {
                personal.life.lock().unwrap_or_else(PoisonError::into_inner).learn_end(ends, now)
            }
            // Those are renewed by themselves.
            Self::App(_) | Self::Installation(_) => None,
        }
    }

    /// Notes that GitHub refuses a token (401).
    pub(super) fn refused(&self, token: &Token, now: DateTime<Utc>) -> Again {
        match self {
            Self::Personal(personal) => personal.refused(now),
            Self::App(signer) => signer.refused(token, now),
            Self::Installation(installation) => {
                installation.lock().refused(token, now);
                Again::Once
            }
        }
    }

    /// Notes that GitHub takes a token.
    pub(super) fn accepted(&self) {
        if let Self::Personal(personal) = self {
            personal.refusals.lock().unwrap_or_else(PoisonError::into_inner).in_a_row = 0;
        }
    }

    /// What stands for its only token.
    pub(super) fn identity(&self) -> Option<Credential> {
        match self {
            Self::Personal(personal) => Some(personal.token.identity),
            Self::App(_) | Self::Installation(_) => None,
        }
    }

    /// When the token in use ends, where that is known.
    pub(super) fn token_ends(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Personal(personal) => personal.life.lock().unwrap_or_else(PoisonError::into_inner).ends,
            Self::App(_) => None,
            Self::Installation(installation) => installation.lock().ends(),
        }
    }

    /// Until when nothing is sent because no token is to be had.
    pub(super) fn stopped_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Personal(personal) => {
                let refusals = personal.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                refusals.until.filter(|until| *until > now)
            }
            Self::App(_) => None,
            Self::Installation(installation) => installation.lock().waits(now),
        }
    }
}

/// A personal token.
#[derive(Debug)]
pub(super) struct Personal {
    token: Arc<Token>,
    refusals: Mutex<Refusals>,
    life: Mutex<Life>,
}

/// How long a personal token can be used; nobody renews it but its owner.
#[derive(Debug, Default)]
struct Life {
    /// None where it has no end, or GitHub has not said.
    ends: Option<DateTime<Utc>>,
    told_at: Option<DateTime<Utc>>,
}

/// So long before a token's end it is told, as of a runner's version.
const TELL_BEFORE_END: TimeDelta = TimeDelta::days(10);
/// How often.
const TELL_AGAIN: TimeDelta = TimeDelta::days(1);

impl Life {
    fn learn_end(&mut self, ends: DateTime<Utc>, now: DateTime<Utc>) -> Option<TimeDelta> {
        self.ends = Some(ends);
        let is_told = self.told_at.is_some_and(|at| now - at < TELL_AGAIN);
        let left = Some(ends - now).filter(|left| *left < TELL_BEFORE_END && !is_told)?;
        self.told_at = Some(now);
        Some(left)
    }
}

#[derive(Debug, Default)]
struct Refusals {
    in_a_row: u32,
    until: Option<DateTime<Utc>>,
}

/// After so many refusals in a row a personal token is no longer tried at every request: GitHub answers who goes on
/// with refusing everything, right tokens included (GitHub docs: troubleshooting the REST API).
const REFUSALS_MAX: u32 = 3;

impl Personal {
    pub(super) fn new(token: Token) -> Self {
        Self { token: token.into(), refusals: Mutex::default(), life: Mutex::default() }
    }

    fn token(&self, now: DateTime<Utc>) -> Result<Arc<Token>, CallFailure> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refusals.until.filter(|until| *until > now) {
            None => Ok(Arc::clone(&self.token)),
            Some(until) => Err(waiting(
                CallFailure {
                    class: ErrorClass::Unauthorized,
                    message: "GitHub refuses the token (401): check that it is whole, not expired and not revoked"
                        .to_owned(),
                    retry_after: None,
                },
                until,
                now,
            )),
        }
    }

    fn refused(&self, now: DateTime<Utc>) -> Again {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        // Requests that were under way together are refused together.
        if refusals.until.is_none_or(|until| until <= now) {
            refusals.in_a_row = refusals.in_a_row.saturating_add(1);
            if let Some(steps) = refusals.in_a_row.checked_sub(REFUSALS_MAX - 1).filter(|steps| *steps > 0) {
                let pause = TimeDelta::from_std(retry::delay(retry::REFUSED, steps)).unwrap_or(TimeDelta::MAX);
                refusals.until = Some(now + pause);
            }
        }
        Again::No
    }
}

/// Makes the tokens of an App itself, which say when they were made by GitHub's clock.
#[derive(Debug)]
pub(super) struct Signer {
    app_id: String,
    key: AppKey,
    api_url: String,
    /// How far GitHub's clock is ahead of ours, by its last answer.
    ahead: Mutex<TimeDelta>,
}

/// GitHub takes a token from a clock that is off by less than this.
const TOLERANCE: TimeDelta = TimeDelta::seconds(30);

impl Signer {
    pub(super) fn new(app_id: String, key: AppKey, api_url: String) -> Self {
        Self { app_id, key, api_url, ahead: Mutex::default() }
    }

    fn token(&self, now: DateTime<Utc>) -> Result<Arc<Token>, CallFailure> {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = self.key.sign(&self.app_id, now + ahead).ok();
        let token = signed.and_then(|text| Token::new(&self.api_url, text.expose_secret(), now + ahead, None));
        token.map(Arc::new).ok_or_else(|| CallFailure {
            class: ErrorClass::Invalid,
            message: "the private key of the GitHub App cannot sign".to_owned(),
            retry_after: None,
        })
    }

    /// A token by a wrong clock is made once more by GitHub's.
    fn refused(&self, token: &Token, now: DateTime<Utc>) -> Again {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if (now + ahead - token.begins).abs() > TOLERANCE { Again::Once } else { Again::No }
    }
}

/// The tokens of an App's installation at one owner.
#[derive(Debug)]
pub(super) struct Installation {
    app: Arc<App>,
    owner: Arc<str>,
    tokens: Mutex<Tokens>,
    /// Whoever holds it asks for a token; all others take what that came to.
    turn: tokio::sync::Mutex<()>,
}

impl Installation {
    pub(super) fn new(app: Arc<App>, owner: Arc<str>) -> Self {
        Self { app, owner, tokens: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        // Whoever panicked left whole tokens.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn token(&self, purpose: Purpose, page: Option<&str>, clock: &Clock) -> Result<Arc<Token>, CallFailure> {
        let advice = self.lock().advice(page, clock.now());
        match advice {
            Advice::Use(token) => Ok(token),
            Advice::UseAndRefresh(token) => {
                // A write never waits for a token that it does not need.
                if !purpose.is_mutation()
                    && let Ok(_turn) = self.turn.try_lock()
                {
                    self.refresh(clock).await;
                }
                Ok(token)
            }
            Advice::Wait(until, failure) => Err(waiting(failure, until, clock.now())),
            Advice::Fetch => {
                let _turn = self.turn.lock().await;
                let advice = self.lock().advice(page, clock.now());
                match advice {
                    Advice::Use(token) | Advice::UseAndRefresh(token) => Ok(token),
                    Advice::Wait(until, failure) => Err(waiting(failure, until, clock.now())),
                    Advice::Fetch => self.fetch(clock).await,
                }
            }
        }
    }

    /// Fetches the next token while the old one serves, unless somebody just did.
    async fn refresh(&self, clock: &Clock) {
        let is_due = matches!(self.lock().advice(None, clock.now()), Advice::UseAndRefresh(_));
        if is_due {
            // A failure is told by the fetch, and tried again later.
            let _ = self.fetch(clock).await;
        }
    }

    async fn fetch(&self, clock: &Clock) -> Result<Arc<Token>, CallFailure> {
        match self.app.token_of(&self.owner).await {
            Ok(token) => {
                let token = Arc::new(token);
                self.lock().fetched(Arc::clone(&token));
                tracing::debug!(owner = %self.owner, "GitHub gave out a token");
                Ok(token)
            }
            Err(failure) => {
                tracing::warn!(owner = %self.owner, error = %failure, "no token for this installation of the App");
                self.lock().failed(failure.clone(), clock.now());
                Err(failure)
            }
        }
    }
}

/// A failure that lasts until then.
fn waiting(failure: CallFailure, until: DateTime<Utc>, now: DateTime<Utc>) -> CallFailure {
    CallFailure { retry_after: (until - now).to_std().ok(), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_personal_token_is_told_once_a_day_from_ten_days_before_on() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let mut life = Life::default();
        let told: Vec<i64> = (0..14 * 24).filter(|hour| life.learn_end(at(13 * 24), at(*hour)).is_some()).collect();
        assert_eq!(told, (0..11).map(|day| 3 * 24 + 1 + day * 24).collect::<Vec<_>>());
        assert_eq!(life.ends, Some(at(13 * 24)));
    }
}
