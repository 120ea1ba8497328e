//! Politeness: no request above a budget, none while a service asked to wait, no change repeated blindly.
//!
//! Budgets are computed anew from the calls: GitHub's requests per hour (refusals are free, and 304s where the services
//! say so; of a token's first hour somebody else may have used a part), points and writes in any 60 s, by token; Modal's
//! creates as a bucket. An answer that refuses for a limit, unless a fault made it up, says the same and is reported too.
//!
//! Where an answer told how long to wait, no call of that kind may come before: any of the token at GitHub,
//! creates at Modal. What was sent before that answer arrived is let pass. A secondary limit without a time
//! means a minute.
//!
//! A change of which the outcome is not known is not repeated: within one process no name is registered a
//! second time once it was answered with a config, "already exists", or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::TimeDelta;

use super::Found;
use super::book::Book;
use super::event::{Call, Caller, Change, Line, Operation, Service, Time, What, seconds};

/// GitHub's sliding windows.
const MINUTE: TimeDelta = TimeDelta::seconds(60);
/// GitHub's fixed window.
const HOUR: TimeDelta = TimeDelta::hours(1);
/// For so long after a limit that a fault made up, further refusals are its doing.
const MADE_UP_LASTS: TimeDelta = TimeDelta::minutes(10);
/// What a secondary limit without a time means.
const UNTOLD_SECS: f64 = 60.0;
/// From a caller's reading of an answer to its next call, beside the latency.
const REACTION_SECS: f64 = 0.1;

/// One token at GitHub.
#[derive(Debug, Default)]
struct Account {
    hour: Option<Time>,
    requests: u32,
    points: VecDeque<(Time, u32)>,
    writes: VecDeque<Time>,
}

/// A pause that was asked for.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// When whoever asked can have read the answer.
    from: Time,
    until: Time,
    seq: u64,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    accounts: BTreeMap<String, Account>,
    /// Until when a token is refused anything, whoever uses it.
    refused: BTreeMap<String, Time>,
    creates: Option<(f64, Time)>,
    holds: BTreeMap<(Kind, Caller, String), Hold>,
    /// Names that must not be registered again.
    settled: BTreeSet<(Caller, String, String)>,
}

/// What a hold concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Github,
    ModalCreates,
}

impl Budgets {
    /// Judges a line after the book has taken it.
    pub(crate) fn see(&mut self, line: &Line, book: &Book, found: &mut Found) {
        match &line.what {
            What::Call(call) => {
                self.held(line, call, found);
                let is_refused = self.refused.get(&call.token).is_some_and(|until| line.at < *until);
                match call.service {
                    // What is refused because of a pause is no news of a budget.
                    Service::Github if is_refused && call.limited.is_some() => {}
                    Service::Github => self.github(line, call, book, found),
                    Service::Modal if call.operation == Operation::Create => self.create(line, call, book, found),
                    Service::Modal => {}
                }
                self.hold(line, call, book);
                self.repeated(line, call, book, found);
            }
            // What one process was told the next one does not know.
            What::ControllerChanged { change: Change::Started, client } | What::ClientKilled { client } => {
                let dead = Caller::of(*client);
                let is_other = |caller: Caller| caller != dead;
                self.settled.retain(|(caller, ..)| is_other(*caller));
                self.holds.retain(|(_, caller, _), _| is_other(*caller));
            }
            _ => {}
        }
    }

    fn github(&mut self, line: &Line, call: &Call, book: &Book, found: &mut Found) {
        let profile = &book.profile;
        let account = self.accounts.entry(call.token.clone()).or_default();
        let mut over = |what: &str, count: u32, limit: u32| {
            if count > limit {
                found.add("budget", &[line.seq], line.at, format!("{count} {what}, GitHub allows {limit}"));
            }
        };
        if matches!(call.limited.as_deref(), Some("primary" | "secondary")) {
            over("requests, as GitHub counts,", 1, 0);
        }
        if call.limited.is_some() {
            return;
        }
        let is_unchanged = call.status == 304 && !profile.github_charges_unchanged;
        if !is_unchanged && call.operation != Operation::RateLimit && call.status != 401 {
            let mut hour = account.hour.unwrap_or_else(|| {
                account.requests = profile.github_used_before;
                line.at + seconds(profile.github_first_hour_secs) - HOUR
            });
            if line.at - hour >= HOUR {
                #[expect(clippy::cast_possible_truncation, reason = "hours of a run")]
                let passed = (line.at - hour).num_hours() as i32;
                hour += HOUR * passed;
                account.requests = 0;
            }
            account.hour = Some(hour);
            account.requests += 1;
            let quota = call.quota.unwrap_or(profile.github_requests_per_hour);
            over("requests in an hour", account.requests, quota);
        }
        account.points.push_back((line.at, call.points));
        account.points.retain(|(at, _)| line.at - *at < MINUTE);
        let points = account.points.iter().map(|(_, points)| points).sum();
        over("points in a minute", points, profile.github_points_per_minute);
        if call.points > 1 {
            account.writes.push_back(line.at);
            account.writes.retain(|at| line.at - *at < MINUTE);
            let writes = u32::try_from(account.writes.len()).unwrap_or(u32::MAX);
            over("writes in a minute", writes, profile.github_mutations_per_minute);
        }
    }

    fn create(&mut self, line: &Line, call: &Call, book: &Book, found: &mut Found) {
        let (rate, burst) = (book.profile.modal_creates_per_second, f64::from(book.profile.modal_create_burst));
        let (tokens, at) = self.creates.unwrap_or((burst, line.at));
        let tokens = (tokens + (line.at - at).as_seconds_f64() * rate).min(burst);
        let is_refused = call.limited.is_some();
        // Rounding must not make a refusal.
        if call.limited.as_deref() == Some("creates") || (!is_refused && tokens < 1.0 - 1e-3) {
            let text = format!("a create above {rate} per second with {burst} at once");
            found.add("budget", &[line.seq], line.at, text);
        }
        self.creates = Some((if is_refused { tokens } else { tokens - 1.0 }, line.at));
    }

    fn hold(&mut self, line: &Line, call: &Call, book: &Book) {
        let kind = match (call.service, call.operation) {
            (Service::Github, _) if call.limited.is_some() => Kind::Github,
            (Service::Modal, Operation::Create) if call.limited.is_some() => Kind::ModalCreates,
            _ => return,
        };
        let untold = if kind == Kind::Github { UNTOLD_SECS } else { 0.0 };
        let until = line.at + seconds(call.wait_secs.unwrap_or(untold));
        let profile = &book.profile;
        let latency = profile.write_latency_secs.max(profile.read_latency_secs).max(profile.modal_latency_secs);
        let from = line.at + seconds(latency + call.delay_secs + REACTION_SECS);
        if kind == Kind::Github {
            // A limit that was made up may last longer than it says.
            let is_made_up = call.limited.as_deref() == Some("injected");
            let lasts = if is_made_up { until + MADE_UP_LASTS } else { until };
            let refused = self.refused.entry(call.token.clone()).or_insert(lasts);
            *refused = lasts.max(*refused);
        }
        let hold = Hold { from, until, seq: line.seq };
        let known = self.holds.entry((kind, call.caller(), call.token.clone())).or_insert(hold);
        if known.until < until {
            *known = hold;
        }
    }

    /// Reports a call that comes too early.
    fn held(&self, line: &Line, call: &Call, found: &mut Found) {
        let kind = match (call.service, call.operation) {
            (Service::Github, Operation::RateLimit) => return,
            (Service::Github, _) => Kind::Github,
            (Service::Modal, Operation::Create) => Kind::ModalCreates,
            (Service::Modal, _) => return,
        };
        let Some(hold) = self.holds.get(&(kind, call.caller(), call.token.clone())) else { return };
        // Times are told in whole seconds.
        if line.at > hold.from && line.at < hold.until - TimeDelta::seconds(1) {
            let text = format!("{:?} {} s before it was allowed", call.operation, (hold.until - line.at).num_seconds());
            found.add("held", &[hold.seq, line.seq], line.at, text);
        }
    }

    fn repeated(&mut self, line: &Line, call: &Call, book: &Book, found: &mut Found) {
        if call.operation != Operation::Mint || book.is_ambiguous(&book.process(call)) {
            return;
        }
        let key = (call.caller(), call.subject.clone(), call.target.clone());
        if self.settled.contains(&key) {
            let text = format!("{} is registered in {} a second time", call.target, call.subject);
            found.add("repeated", &[line.seq], line.at, text);
        }
        if call.is_answered() || call.is_in_doubt() || call.status == 409 {
            self.settled.insert(key);
        }
    }
}
