//! JIT configs: used at most once, at once, and never lost.
//!
//! Every mint is followed by a create or by the end of the registration, within a bound: five minutes of
//! grace, two readings of the runners a minute apart, and as much again. Only where a process was killed (or
//! two run), the runners may be read an hour later: a repository in which nothing happens is looked at for
//! leftovers once an hour, or every six where a list that has not changed costs a request. Where the quota is small, it
//! is later by the operator's longest interval. Faults put the bound off until they are over, and for the time that recovery
//! is given: a list that was refused is paused for that long.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::Found;
use super::book::{Answer, Attempt, Book, Sandbox};
use super::event::{Line, Time, What, code, seconds};

/// Modal: the sandbox failed before its entry point ran. One whose create was not answered may have been sent again then.
const INIT_FAILURE: i32 = 5;
/// Modal's clients send a create once more within this time where its answer was lost, not counting the time that Modal asks
/// to wait; it finds the name free again where its sandbox ended meanwhile.
const SENT_AGAIN_WITHIN: TimeDelta = TimeDelta::seconds(1);
/// A config that is older when it is used was kept too long.
const AGE_MAX: TimeDelta = TimeDelta::seconds(60);
/// How long a registration may be left without a sandbox.
const LEFT_MAX: TimeDelta = TimeDelta::minutes(15);
/// How much longer where only the look for leftovers finds it; and where all lists cost.
const HOURLY: [TimeDelta; 2] = [TimeDelta::minutes(65), TimeDelta::minutes(365)];

/// What was used.
#[derive(Debug, Default)]
pub(crate) struct Jit {
    used: BTreeMap<String, (u64, String)>,
    live: BTreeMap<String, (u64, String)>,
    /// Sandboxes that ran nothing.
    unused: BTreeSet<String>,
}

impl Jit {
    /// Judges a line after the book has taken it.
    pub(crate) fn see(&mut self, line: &Line, book: &Book, found: &mut Found) {
        match &line.what {
            What::SandboxCreated { sandbox, name, config: Some(config), .. } => {
                let newest = book.sandboxes.last().and_then(|sandbox| sandbox.attempt);
                let newest = newest.map(|index| &book.attempts[index]);
                let is_late = || newest.is_some_and(|attempt| attempt.creates.iter().any(is_late));
                if let Some((seq, other)) = self.used.insert(config.clone(), (line.seq, sandbox.clone()))
                    && !is_late()
                    && !self.unused.contains(&other)
                    && !newest
                        .zip(book.sandbox(&other))
                        .is_some_and(|(attempt, other)| sent_again(attempt, other, line.at))
                {
                    let text = format!("{sandbox} and {other} were created with one config");
                    found.add("config_reused", &[seq, line.seq], line.at, text);
                }
                if let Some((seq, other)) = self.live.insert(name.clone(), (line.seq, sandbox.clone())) {
                    let text = format!("{sandbox} and {other} live under the name {name}");
                    found.add("name_twice", &[seq, line.seq], line.at, text);
                }
                if let Some(attempt) = newest {
                    age(line, attempt, found);
                }
            }
            What::RunnerRemoved { repo, runner } => {
                if let Some(attempt) = book.attempt_named(repo, runner).map(|index| &book.attempts[index]) {
                    left(attempt, line.at, book, found);
                }
            }
            What::SandboxEnded { sandbox, status } => {
                if *status == INIT_FAILURE {
                    self.unused.insert(sandbox.clone());
                }
                if let Some(ended) = book.sandbox(sandbox) {
                    self.live.retain(|_, (_, live)| live != &*ended.id);
                }
            }
            _ => {}
        }
    }
}

/// Whether a call is carried out after its answer; then Modal may use a config twice that was sent twice.
fn is_late(create: &Answer) -> bool {
    create.call.fault.as_deref() == Some("applied_late")
}

/// Whether a create whose answer was lost was sent again at once, and its first sandbox had ended without having been
/// online: the second comes too late for the config as well, or is the first to use it.
fn sent_again(attempt: &Attempt, first: &Sandbox, now: Time) -> bool {
    // An answer that cannot be read is lost as well.
    let is_lost =
        |create: &&Answer| create.call.is_in_doubt() || create.call.status == code::OK && !create.call.is_answered();
    let made = attempt.creates.iter().find(|create| create.mark.at >= first.created.at);
    let is_lost = made.is_some_and(|create| is_lost(&create));
    let since = attempt.creates.iter().filter(|create| create.mark.at >= first.created.at);
    let asked: f64 = since.filter_map(|create| create.call.wait_secs).sum();
    let within = SENT_AGAIN_WITHIN + seconds(asked);
    is_lost && attempt.online.is_none() && !first.is_alive() && now - first.created.at <= within
}

fn age(line: &Line, attempt: &Attempt, found: &mut Found) {
    // A create that a fault puts off is sent when it is asked for, not when it is carried out.
    let sent = attempt.creates.iter().find(|create| is_late(create)).map_or(line.at, |create| create.mark.at);
    if sent - attempt.registered.at > AGE_MAX {
        let text =
            format!("{} is used {} s after its mint", attempt.name, (sent - attempt.registered.at).num_seconds());
        found.add("config_old", &[attempt.registered.seq, line.seq], line.at, text);
    }
}

/// Judges at the end.
pub(crate) fn at_end(end: Time, book: &Book, found: &mut Found) {
    for attempt in book.attempts.iter().filter(|attempt| attempt.removed.is_none()) {
        left(attempt, end, book, found);
    }
}

/// How long a registration may be left that only the look for leftovers finds.
pub(crate) fn until_looked_for(book: &Book) -> TimeDelta {
    LEFT_MAX + book.unread_within + HOURLY[usize::from(book.profile.github_charges_unchanged)]
}

/// A registration that no sandbox used, until it was deleted, or until the end.
fn left(attempt: &Attempt, until: Time, book: &Book, found: &mut Found) {
    let is_orphan = book.controllers > 1 || book.has_died(attempt.process.as_ref());
    let bound = if is_orphan { until_looked_for(book) } else { LEFT_MAX + book.unread_within };
    let calm = book.disturbed_at.map(|at| at + book.recover_within);
    let since = calm.map_or(attempt.registered.at, |calm| calm.max(attempt.registered.at));
    if attempt.sandbox.is_none() && until - since > bound {
        let text = format!("runner {} of {} was neither used nor deleted in time", attempt.name, attempt.group.0);
        found.add("mint_lost", &[attempt.registered.seq], until, text);
    }
}
