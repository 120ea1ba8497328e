//! Tokens: what a request is signed with, and when another one is needed (pure).

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderValue;
use secrecy::SecretString;

use super::etag::Credential;
use crate::error::{CallFailure, ErrorClass};
use crate::retry;

/// A token that a request can be sent with.
pub(super) struct Token {
    secret: SecretString,
    header: HeaderValue,
    /// What stands for it among cached pages.
    pub(super) identity: Credential,
    /// From when on it is of use, by our clock.
    pub(super) begins: DateTime<Utc>,
    /// When it ends, by our clock; none where nobody said.
    pub(super) ends: Option<DateTime<Utc>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("begins", &self.begins).field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Token {
    /// None where the text has a character that no header may have; GitHub's tokens are of any length.
    pub(super) fn new(api_url: &str, text: &str, begins: DateTime<Utc>, ends: Option<DateTime<Utc>>) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {text}")).ok()?;
        header.set_sensitive(true);
        Some(Self { secret: text.into(), header, identity: Credential::new(api_url, text), begins, ends })
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// The token itself, to take it out of texts of others that repeat it.
    pub(super) fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// Whether a request that is sent now will find it valid.
    fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.ends.is_none_or(|ends| now + MARGIN < ends)
    }
}

/// A token is not used in its last minute: the request may be long under way.
const MARGIN: TimeDelta = TimeDelta::seconds(60);
/// The part of a token's life after which the next one is fetched: 48 minutes of an hour.
const REFRESH_AFTER: f64 = 0.8;
/// Pages that were read with the token before go over to the next one within this time: its `ETags` are others, so
/// each is read in full once, and not all at the same moment. It is all that is left of the token before, less
/// [`MARGIN`]: so the first and the last reading are ten minutes apart, although the first comes a little late.
const HAND_OVER: TimeDelta = TimeDelta::minutes(11);
/// A token that is refused sooner than this after it was given out is not replaced at once: there is something else.
const TOO_SOON: TimeDelta = TimeDelta::minutes(1);

/// The tokens of an installation: the newest, the one before while it lasts, and how often none could be had.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    newest: Option<Arc<Token>>,
    before: Option<Arc<Token>>,
    failures: u32,
    failed: Option<(DateTime<Utc>, CallFailure)>,
}

/// What to do for a token.
#[derive(Debug)]
pub(super) enum Advice {
    /// Take this one.
    Use(Arc<Token>),
    /// Take this one, and have somebody fetch the next.
    UseAndRefresh(Arc<Token>),
    /// Fetch one first.
    Fetch,
    /// None can be had before that time.
    Wait(DateTime<Utc>, CallFailure),
}

impl Tokens {
    /// What to do now; `page` spreads the pages of lists over the time in which two tokens are valid.
    pub(super) fn advice(&self, page: Option<&str>, now: DateTime<Utc>) -> Advice {
        let waits = self.failed.as_ref().filter(|(again_at, _)| *again_at > now);
        let valid = |token: &&Arc<Token>| token.is_valid(now);
        let Some(newest) = self.newest.as_ref().filter(valid) else {
            return match waits {
                Some((again_at, failure)) => Advice::Wait(*again_at, failure.clone()),
                None => Advice::Fetch,
            };
        };
        if waits.is_none() && is_ageing(newest, now) {
            return Advice::UseAndRefresh(Arc::clone(newest));
        }
        let before = self
            .before
            .as_ref()
            .filter(valid)
            .filter(|_| page.is_some_and(|page| now < newest.begins + HAND_OVER * turn(page) / (TURNS - 1)));
        Advice::Use(Arc::clone(before.unwrap_or(newest)))
    }

    /// Takes a token that was just given out.
    pub(super) fn fetched(&mut self, token: Arc<Token>) {
        self.before = self.newest.replace(token);
        (self.failures, self.failed) = (0, None);
    }

    /// Notes that none could be had.
    pub(super) fn failed(&mut self, failure: CallFailure, now: DateTime<Utc>) {
        self.failures = self.failures.saturating_add(1);
        let pause = TimeDelta::from_std(retry::read_again(&failure, self.failures)).unwrap_or(TimeDelta::MAX);
        self.failed = Some((now + pause, failure));
    }

    /// Forgets a token that GitHub refuses.
    pub(super) fn refused(&mut self, token: &Token, now: DateTime<Utc>) {
        let is_it = |held: &Arc<Token>| held.identity == token.identity;
        if self.before.as_ref().is_some_and(is_it) {
            self.before = None;
        }
        if self.newest.as_ref().is_some_and(is_it) {
            (self.newest, self.before) = (None, None);
            if now - token.begins < TOO_SOON {
                let message = "GitHub refuses a token that it has just given out (401)".to_owned();
                self.failed(CallFailure { class: ErrorClass::Unauthorized, message, retry_after: None }, now);
            }
        }
    }

    /// When the newest token ends.
    pub(super) fn ends(&self) -> Option<DateTime<Utc>> {
        self.newest.as_ref()?.ends
    }

    /// Until when none is asked for, and why.
    pub(super) fn waits(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.failed.as_ref().map(|(again_at, _)| *again_at).filter(|again_at| *again_at > now)
    }
}

/// Whether most of its life is over.
fn is_ageing(token: &Token, now: DateTime<Utc>) -> bool {
    token.ends.is_some_and(|ends| {
        let life = (ends - token.begins).as_seconds_f64();
        (now - token.begins).as_seconds_f64() >= life * REFRESH_AFTER
    })
}

/// In how many turns pages go over, the first at once and the last at the end.
const TURNS: i32 = 64;

/// The turn of a page, counted from 0: as even over paths that differ in a digit as over others.
fn turn(page: &str) -> i32 {
    let mut hash = DefaultHasher::new();
    page.hash(&mut hash);
    i32::try_from(hash.finish() % u64::from(TURNS.unsigned_abs())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    /// A token of an hour from that minute on.
    fn token(begins: i64) -> Arc<Token> {
        let text = format!("ghs_{begins}");
        Token::new("https://api.github.com", &text, at(begins), Some(at(begins + 60))).unwrap().into()
    }

    fn failure(class: ErrorClass) -> CallFailure {
        CallFailure { class, message: "no".into(), retry_after: None }
    }

    fn used(tokens: &Tokens, page: Option<&str>, minute: i64) -> Option<i64> {
        match tokens.advice(page, at(minute)) {
            Advice::Use(token) | Advice::UseAndRefresh(token) => Some((token.begins - at(0)).num_minutes()),
            Advice::Fetch | Advice::Wait(..) => None,
        }
    }

    #[test]
    fn a_token_is_refreshed_ahead_and_never_used_in_its_last_minute() {
        let mut tokens = Tokens::default();
        assert!(matches!(tokens.advice(None, at(0)), Advice::Fetch));
        tokens.fetched(token(0));
        assert!(matches!(tokens.advice(None, at(47)), Advice::Use(_)));
        assert!(matches!(tokens.advice(None, at(48)), Advice::UseAndRefresh(_)));
        assert!(matches!(tokens.advice(None, at(58)), Advice::UseAndRefresh(_)));
        assert!(matches!(tokens.advice(None, at(59)), Advice::Fetch));
        // What cannot be had now is not asked for at every request; the old one still serves.
        tokens.failed(failure(ErrorClass::Unavailable), at(50));
        assert!(matches!(tokens.advice(None, at(50)), Advice::Use(_)));
        assert!(matches!(tokens.advice(None, at(51)), Advice::UseAndRefresh(_)));
    }

    #[test]
    fn pages_go_over_to_the_next_token_one_after_the_other_and_requests_at_once() {
        let mut tokens = Tokens::default();
        tokens.fetched(token(0));
        tokens.fetched(token(48));
        assert_eq!(used(&tokens, None, 48), Some(48));
        let pages: Vec<String> = (0..200).map(|n| format!("/repos/acme/web-{n}/actions/runs?page=1")).collect();
        let with_new = |minute| pages.iter().filter(|page| used(&tokens, Some(page), minute) == Some(48)).count();
        let counts: Vec<usize> = (48..=59).map(with_new).collect();
        assert!(counts.is_sorted() && counts[0] > 0 && counts[10] < pages.len(), "{counts:?}");
        // An eleventh of them is 18.
        assert!(counts.windows(2).all(|minute| (6..=36).contains(&(minute[1] - minute[0]))), "{counts:?}");
        assert_eq!(counts[11], pages.len());
        tokens.refused(&token(0), at(49));
        assert!(pages.iter().all(|page| used(&tokens, Some(page), 49) == Some(48)));
    }

    #[test]
    fn a_refused_token_is_replaced_once_and_then_waited_for() {
        let mut tokens = Tokens::default();
        tokens.fetched(token(0));
        tokens.refused(&token(5), at(10));
        assert!(matches!(tokens.advice(None, at(10)), Advice::Use(_)), "another token is no news of this one");
        tokens.refused(&token(0), at(10));
        assert!(matches!(tokens.advice(None, at(10)), Advice::Fetch));
        tokens.fetched(token(10));
        tokens.refused(&token(10), at(10));
        let Advice::Wait(until, failure) = tokens.advice(None, at(10)) else { panic!("it must wait") };
        assert_eq!((until, failure.class), (at(11), ErrorClass::Unauthorized));
        assert!(matches!(tokens.advice(None, at(11)), Advice::Fetch));
    }

    #[test]
    fn every_visible_text_is_a_token_and_none_is_shown() {
        let long = format!("ghs_{}", "x".repeat(2_000));
        let new = |text: &str| Token::new("https://api.github.com", text, at(0), None);
        assert_eq!(new(&long).unwrap().header().len(), "Bearer ".len() + long.len());
        assert!(new("").is_none() && new("gh p").is_none() && new("ghp_\u{e9}").is_none());
        let token = new(" ghp_canary0123\n").unwrap();
        assert!(token.header().is_sensitive());
        assert!(!format!("{token:?} {:?}", token.header()).contains("canary"));
        assert!(!format!("{:?}", token.secret()).contains("canary"));
    }
}
