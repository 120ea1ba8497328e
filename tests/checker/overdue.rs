//! Leftovers go in time: what never came online is not kept until Modal's or GitHub's own clocks end it.
//!
//! A sandbox counts from its class's clocks on, a registration from the end of its sandbox (`mint_lost` tells of one that
//! never had any); both from the last fault and the time that recovery is given, whichever is later. What ended before that
//! is not judged. Where the quota does not allow to read every list each interval, leftovers are looked for seldom, and only
//! what is left at the end counts.

use chrono::TimeDelta;

use super::book::{Book, Sandbox};
use super::event::Time;
use super::{Found, Rules, jit};

/// How long a sandbox may live on: it is deregistered, settles for 90 s, and two lists of GitHub's and one of Modal's are
/// read that agree.
const SANDBOX: TimeDelta = TimeDelta::minutes(10);
/// Judges at the end.
pub(crate) fn at_end(end: Time, book: &Book, rules: &Rules, found: &mut Found) {
    if !rules.unread_within.is_zero() {
        return;
    }
    let calm = book.disturbed_at.map(|at| at + rules.recover_within);
    let mut judge = |what: String, seq: u64, due: Time, (until, bound): (Option<Time>, TimeDelta)| {
        let (from, until) = (calm.map_or(due, |calm| calm.max(due)), until.unwrap_or(end));
        if until - from > bound {
            let text = format!("{what} for {} s, {} may pass", (until - from).num_seconds(), bound.num_seconds());
            found.add("kept_late", &[seq], until, text);
        }
    };
    for sandbox in book.sandboxes.iter().filter(|sandbox| sandbox.is_ours && !has_served(sandbox, book)) {
        let due = sandbox.created.at + rules.clocks.schedule + rules.clocks.start;
        let what = format!("sandbox {} ({}), whose runner never came, is kept", sandbox.id, sandbox.name);
        judge(what, sandbox.created.seq, due, (sandbox.ended.map(|mark| mark.at), SANDBOX));
    }
    for attempt in book.attempts.iter().filter(|attempt| attempt.online.is_none()) {
        let Some(ended) = attempt.sandbox.and_then(|index| book.sandboxes[index].ended) else { continue };
        let what =
            format!("runner {} of {}, whose sandbox ended before it came, is kept", attempt.name, attempt.group.0);
        judge(what, attempt.registered.seq, ended.at, (attempt.removed, jit::until_looked_for(book)));
    }
}

/// Whether its runner came online, which then ends it.
fn has_served(sandbox: &Sandbox, book: &Book) -> bool {
    sandbox.attempt.is_some_and(|index| book.attempts[index].online.is_some())
}
