//! How calls of GitHub's go wrong.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::route::Route;
use super::{Asked, GATEWAY_TIMEOUT_SECS, read, write};
use crate::sim::app::Who;
use crate::sim::draws::Purpose;
use crate::sim::fault::{FaultMode, LATE_SECS, SLOW_SECS, Strike};
use crate::sim::history::LimitKind;
use crate::sim::limits::{LimitForm, Says};
use crate::sim::profile::Span;
use crate::sim::runners::RunnerKey;
use crate::sim::world::State;

/// For how long nothing is answered where the fault does not say.
const SILENT_SECS: f64 = 600.0;
/// How old a stale list is where the fault does not say.
const STALE_SECS: Span = Span::new(1.0, 120.0);
/// How long a limit without headers lasts where the fault does not say.
const BARE_LIMIT_SECS: f64 = 60.0;

impl State {
    /// Answers a call that is allowed, as it should be or as a fault wants it.
    pub(super) fn answer_or_fault(&mut self, asked: &Asked, token: &str) -> Answer {
        let repo = asked.route.subject();
        match self.strike_where(asked.route.operation(), &repo, |state, mode| state.can_strike(asked, mode)) {
            None => self.endpoint(asked, token, None),
            Some(strike) => self.struck(asked, token, strike),
        }
    }

    /// Whether a mode would make a difference to this very call.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes do not depend on the call")]
    fn can_strike(&self, asked: &Asked, mode: FaultMode) -> bool {
        match mode {
            FaultMode::WrongNotModified => asked.if_none_match.is_some(),
            FaultMode::BareNotModified => asked.if_none_match.is_none(),
            FaultMode::PageMissing
            | FaultMode::PageError
            | FaultMode::PageSkips
            | FaultMode::PageShowsTwice
            | FaultMode::PageRepeats => asked.page().number > 1,
            FaultMode::Flapping => self.shows_entries(asked),
            FaultMode::BusyHidden | FaultMode::OnlineHidden => self.repo_of(asked).is_some_and(|repo| {
                let mut views = self.repo(repo).runners.values().filter_map(|runner| runner.at(self.now));
                views.any(|view| if mode == FaultMode::BusyHidden { view.is_busy } else { view.is_online() })
            }),
            FaultMode::DeletedWhileBusy => match (&asked.route, self.repo_of(asked)) {
                (Route::DeleteRunner(_, id), Some(repo)) => self.is_working(RunnerKey { repo, id: *id }),
                _ => false,
            },
            _ => true,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes change an answer from within")]
    fn struck(&mut self, asked: &Asked, token: &str, strike: Strike) -> Answer {
        match strike.mode {
            FaultMode::Error | FaultMode::PageError => server_error(strike),
            FaultMode::ReplyLost => {
                self.endpoint(asked, token, None);
                let delay_secs = strike.seconds_or(GATEWAY_TIMEOUT_SECS);
                Answer { delay_secs, ..server_error(strike) }
            }
            FaultMode::AppliedLate => {
                let (late, token) = (asked.clone(), token.to_owned());
                self.postpone(strike.seconds_or(LATE_SECS), move |state| {
                    state.endpoint(&late, &token, None);
                });
                server_error(strike)
            }
            FaultMode::Slow => {
                let answer = self.endpoint(asked, token, None);
                Answer { delay_secs: strike.seconds_or(SLOW_SECS), ..answer }
            }
            FaultMode::Cut => Answer::cut(strike.seconds_or(0.0)),
            FaultMode::Silent => Answer::cut(strike.seconds_or(SILENT_SECS)),
            FaultMode::CutAfter => {
                self.endpoint(asked, token, None);
                Answer::cut(strike.seconds_or(0.0))
            }
            FaultMode::RateLimited => self.limit_by_fault(token, strike, LimitKind::Secondary, Says::When),
            FaultMode::RateLimitedBare => self.limit_by_fault(token, strike, LimitKind::Secondary, Says::Nothing),
            FaultMode::PrimaryLimited => self.limit_by_fault(token, strike, LimitKind::Primary, Says::When),
            FaultMode::PrimaryLimitedTwice => self.limit_by_fault(token, strike, LimitKind::Primary, Says::Both),
            FaultMode::PrimaryLimitedBare => self.limit_by_fault(token, strike, LimitKind::Primary, Says::Nothing),
            FaultMode::Unauthorized => Answer::unauthorized(),
            FaultMode::TokensExpired => {
                self.end_tokens(None, 0.0);
                match asked.who {
                    Who::Installation(_) => Answer::unauthorized(),
                    Who::Nobody(_) | Who::Person | Who::App => self.endpoint(asked, token, None),
                }
            }
            FaultMode::NotFound => Answer::not_found(),
            FaultMode::Refused => write::refused(asked, strike.status),
            FaultMode::ActionsDisabled => write::disabled(asked),
            FaultMode::WrongNotModified | FaultMode::BareNotModified => Answer::not_modified(),
            FaultMode::Empty => Answer::ok(read::empty_list(&asked.route)),
            FaultMode::Truncated | FaultMode::Malformed | FaultMode::Unfamiliar => {
                let answer = self.endpoint(asked, token, None);
                spoilt(answer, strike)
            }
            _ => self.endpoint(asked, token, Some(strike)),
        }
    }

    fn limit_by_fault(&mut self, token: &str, strike: Strike, kind: LimitKind, says: Says) -> Answer {
        let form = LimitForm { status: strike.status.unwrap_or(403), kind, says };
        let secs = match (kind, says) {
            (_, Says::Nothing) => Some(strike.seconds_or(BARE_LIMIT_SECS)),
            (LimitKind::Primary, Says::When | Says::Both) => strike.seconds,
            (_, Says::When | Says::Both) => Some(strike.seconds_or(f64::from(self.profile.github_retry_after_secs))),
        };
        let now = self.now;
        let wait = self.tokens.get_mut(token).map_or(0, |limiter| limiter.hold_by_fault(secs, form, now));
        Answer::limited_by_fault(form, wait, LimitKind::Injected)
    }

    /// How much a list lags that a fault makes old; none where it does not.
    pub(super) fn staleness(&self, strike: Option<Strike>) -> Option<chrono::TimeDelta> {
        let strike = strike.filter(|strike| strike.mode == FaultMode::Stale)?;
        Some(self.fault_span(strike, STALE_SECS))
    }

    /// The fault's duration, or one drawn for this very strike.
    pub(in crate::sim) fn fault_span(&self, strike: Strike, default: Span) -> chrono::TimeDelta {
        match strike.seconds {
            Some(secs) => crate::sim::draws::seconds(secs),
            None => self.seed.stream(Purpose::FaultDraw, strike.number).span(default),
        }
    }
}

fn server_error(strike: Strike) -> Answer {
    Answer::error(strike.status.unwrap_or(502), "Server Error")
}

/// An answer whose body is not what was promised; one without a body, or a refusal, stays as it is.
fn spoilt(answer: Answer, strike: Strike) -> Answer {
    if answer.status >= 300 || answer.body.is_empty() {
        return answer;
    }
    let mut body = answer.body;
    if strike.mode == FaultMode::Unfamiliar {
        let unfamiliar = serde_json::from_slice(&body).map(|value| unfamiliar(value).to_string().into());
        return Answer { body: unfamiliar.unwrap_or(body), ..answer };
    }
    if strike.mode == FaultMode::Truncated {
        body.truncate(body.len() / 2);
    } else {
        body = Bytes::from_static(b"<!DOCTYPE html><title>Unicorn!</title><p>This page is taking too long to load.");
    }
    Answer { body, is_cacheable: false, ..answer }
}

/// Adds what a client cannot know, and takes away what it cannot rely on: new fields everywhere, null where GitHub's
/// description allows it, and an entry of each list in a state that has never been.
fn unfamiliar(mut answer: Value) -> Value {
    for entry in entries(&mut answer) {
        for field in ["head_branch", "head_commit", "version", "runner_group_id", "runner_group_name"] {
            if let Some(value) = entry.get_mut(field) {
                *value = Value::Null;
            }
        }
        add_news(entry);
    }
    if let Some(first) = entries(&mut answer).first_mut().filter(|entry| entry.contains_key("status")) {
        first.insert("status".to_owned(), "hibernating".into());
    }
    if let Value::Object(fields) = &mut answer {
        add_news(fields);
    }
    answer
}

fn add_news(fields: &mut Map<String, Value>) {
    fields.insert("x_novelty".to_owned(), json!({ "nested": [null, 18_446_744_073_709_551_615_u64, { "a": "b" }] }));
    fields.insert("x_nothing".to_owned(), Value::Null);
}

/// The objects of a list; for anything else none.
fn entries(answer: &mut Value) -> Vec<&mut Map<String, Value>> {
    let list = match answer {
        Value::Array(list) => Some(list),
        Value::Object(fields) => fields.values_mut().find_map(Value::as_array_mut),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    list.into_iter().flatten().filter_map(Value::as_object_mut).collect()
}
