//! At most one live runner per need, beyond those that are provably lost.
//!
//! A *need* is one job that was queued; a *group* is a repository and a label set. Three rules hold at every
//! registration of a runner, which is the moment at which supply rises:
//!
//! 1. **In sum**: registrations of the group so far <= needs of the group so far + attempts that are *excused*
//!    or are over without having had a job of the group. No staleness is allowed here: whatever a controller
//!    last read, a second runner for one need is one too many unless the first is known to be lost.
//! 2. **At the moment**: runners of the group that could take a job now and are not excused <= jobs of the
//!    group that the controller may believe to be queued. A job may be believed queued if it was queued at
//!    some moment that its newest reading may show: not before the last true and complete reading of its
//!    run's jobs less the list's lag. A job of whose run no page was ever read cannot be believed in.
//!
//! 3. **In vain**: a job for which three runners of one process waited within an hour, online and with nothing to excuse
//!    them, gets a fourth and no fifth: whatever keeps it back, money does not help.
//!
//! An attempt is excused, for good, where its controller must or may count it as lost:
//!
//! - `mint`: its mint was not answered with a config (a 5xx, an answer that was cut, lost or later than any
//!   deadline, or carried out after the answer; or the network held calls and answers back at that time, and no
//!   create followed): nobody can use the registration.
//! - `secret`: the Secret for its config was refused, or not answered in time, and no create followed.
//! - `create`: the last create under its name was refused, and no sandbox came of any.
//! - `unsure`: no sandbox came of it within three minutes (a create in doubt, a kill between both calls).
//! - `late`: its runner was not online within the start limit after the sandbox's start, or Modal did not
//!   place the sandbox within the schedule limit, as far as its list can show.
//! - `gone`: Modal said that there is no such sandbox, and once more a minute later.
//!
//! - `hidden`: the process was never shown it online, and was shown it unconnected twice, a minute apart, the second
//!   time after the start limit: a fault, or the time before it came online.
//! - `doubled`: GitHub gave it a job that another runner had got before.
//!
//! A process that was started anew may know what the one before it kept of its readings, which need not be the last of
//! them: what those showed counts only from three minutes before the start.
//!
//! A list of jobs that is older than lists are known to be (a fault, a lag above 15 s) may show a job queued that
//! was taken: each such job is one more need, once.
//!
//! A process registers nothing before it has read which sandboxes there are.
//!
//! Jobs that ask for no class, or that strangers had a hand in, are no need of anybody's.
//!
//! Beside both, no runner of ours takes a job of a repository that is not allowed: one that is registered in an
//! organization takes those of every repository that its group admits.
//!
//! A controller that is not alone, or that was killed before, need not know what another process did a moment
//! ago: a registration of another process is not counted until the caller can have read it, in the list of
//! runners or, with its sandbox, in Modal's, or was answered 409 to its own mint under that name.

use chrono::TimeDelta;

use super::book::{Attempt, Book, Done, Job, Process};
use super::event::{Line, Operation, Time, What, code, seconds};
use super::readings::Reading;
use super::{Found, Rules};

/// How long a registration without a sandbox, or a create without an answer, counts as about to appear.
pub(crate) const UNSURE: TimeDelta = TimeDelta::minutes(3);
/// How far a controller has to reckon with lists to lag: GitHub's were seen to lag by ten seconds.
pub(crate) const LISTS_LAG: TimeDelta = TimeDelta::seconds(15);
/// Two answers that there is no such sandbox agree when they are so far apart.
const GONE_AGREED: TimeDelta = TimeDelta::seconds(60);
/// So long after its caller was killed a call may arrive.
const UNDER_WAY: TimeDelta = TimeDelta::seconds(1);
/// A runner that ends sooner has crashed.
const WAIT_LEAST: TimeDelta = TimeDelta::minutes(1);
/// Modal's number for the end of a sandbox whose entry point says that it has not served.
const FAILURE: i32 = 2;
/// What a process kept of its last readings is older than they are by as much at most: it saves every two minutes.
const KEPT_LATE: TimeDelta = TimeDelta::minutes(3);
/// So many runners may wait for a job in vain within an hour before it is left alone.
const IN_VAIN_MAX: usize = 3;
/// No client waits longer for the answer to a mint.
const MINT_PATIENCE_SECS: f64 = 30.0;
/// No client waits longer for the answer to the creation of a Secret.
const SECRET_PATIENCE_SECS: f64 = 29.0;

/// Judges a line after the book has taken it.
pub(crate) fn see(line: &Line, book: &Book, rules: &Rules, found: &mut Found) {
    if let What::JobAssigned { job, runner, repo } = &line.what
        && rules.names.job_of(runner).is_some()
        && !book.is_allowed(repo)
    {
        let text = format!("{runner} took job {job} of {repo}, which is not allowed");
        found.add("allow_list", &[line.seq], line.at, text);
    }
    let Some((Done::Minted(index), process)) = &book.done else { return };
    let attempt = &book.attempts[*index];
    let Some(job) = rules.names.job_of(&attempt.name) else { return };
    let named = book.jobs.get(&job).filter(|job| job.group == attempt.group);
    if named.is_none() {
        let text = format!("{} has the labels [{}], which are not those of job {job}", attempt.name, attempt.group.1);
        found.add("labels", &[line.seq], line.at, text);
    }
    if !book.is_allowed(&attempt.group.0) {
        let text = format!("{} is registered in {}, which is not allowed", attempt.name, attempt.group.0);
        found.add("allow_list", &[line.seq], line.at, text);
    }
    if is_blind(process, book) {
        let text =
            format!("{} is registered by a process that has not read yet which sandboxes there are", attempt.name);
        found.add("blind", &[line.seq], line.at, text);
    }
    let tally = Tally::new(attempt, process, book, rules);
    let place = format!("{} [{}]", attempt.group.0, attempt.group.1);
    if tally.registered > tally.needs + tally.spent {
        let text = format!(
            "{} registrations for {} needs and {} lost attempts in {place}",
            tally.registered, tally.needs, tally.spent
        );
        found.add("one_runner_per_need", &[line.seq], line.at, text);
    }
    if tally.in_vain > IN_VAIN_MAX {
        let text =
            format!("{} runners waited for job {job} in vain within an hour, and it gets another", tally.in_vain);
        found.add("in_vain", &[line.seq], line.at, text);
    }
    if tally.supply > tally.believed {
        let text = format!(
            "{} runners could take a job of {place}, of which at most {} can be believed queued",
            tally.supply, tally.believed
        );
        found.add("runners_without_need", &[line.seq], line.at, text);
    }
}

/// Whether a process, of which it is known when it started, has not read a whole list of sandboxes since: it cannot know
/// what another, or its own life before, has made, and so not what its limits leave.
///
/// What a process that was killed had under way may arrive when the next one has just started.
fn is_blind(process: &Process, book: &Book) -> bool {
    let Some(started) = book.started_at(process.caller) else { return false };
    let lists = book.readings.by(process.caller).of((Operation::ListSandboxes, "", ""));
    book.now - started >= UNDER_WAY && !lists.iter().any(|reading| reading.began >= started)
}

/// The counts of a group.
#[derive(Debug, Default)]
struct Tally {
    /// Registrations that the process can know of.
    registered: usize,
    /// Jobs that were queued.
    needs: usize,
    /// Attempts that are excused, or over without a job of the group.
    spent: usize,
    /// Runners that could take a job now.
    supply: usize,
    /// Jobs that may be believed queued.
    believed: usize,
    /// Runners of the same job that were online in the last hour, with nothing that excuses them, and got no job.
    in_vain: usize,
}

impl Tally {
    /// Counts the group of an attempt as the process that made it can know it.
    fn new(newest: &Attempt, process: &Process, book: &Book, rules: &Rules) -> Self {
        let group = &book.groups[&newest.group];
        let mut tally = Self { needs: group.jobs.len(), ..Self::default() };
        let reader = Reader::new(newest, process, book);
        for index in &group.attempts {
            let attempt = &book.attempts[*index];
            if !reader.can_know(attempt) {
                continue;
            }
            tally.registered += 1;
            let is_lost = excuse(attempt, book, rules).is_some() || reader.is_hidden(attempt, rules);
            let is_over = is_over(attempt, book);
            let has_served = attempt.job.is_some_and(|(_, job)| {
                group.jobs.contains(&job) && book.jobs.get(&job).is_some_and(|job| job.taker == Some(*index))
            });
            let is_in_vain = !has_served && (attempt.job.is_some() || is_over);
            tally.spent += usize::from(is_lost || is_in_vain);
            tally.supply += usize::from(attempt.job.is_none() && !is_over && !is_lost);
            let is_of_job = rules.names.job_of(&attempt.name) == rules.names.job_of(&newest.name);
            let sandbox = attempt.sandbox.map(|index| &book.sandboxes[index]);
            // One that did not give up by itself would perhaps have got its job.
            let given_up = sandbox.filter(|sandbox| sandbox.end_status == FAILURE).and_then(|sandbox| sandbox.ended);
            let waited = attempt.online.zip(given_up).map(|(online, end)| end.at - online);
            let has_waited = attempt.job.is_none() && !is_lost && waited >= Some(WAIT_LEAST);
            let is_own = attempt.process.as_ref() == Some(process);
            let is_late = newest.registered.at - attempt.registered.at <= TimeDelta::hours(1);
            tally.in_vain += usize::from(is_of_job && has_waited && is_own && is_late);
        }
        tally.needs += group.jobs.iter().filter(|job| reader.may_come_back(&book.jobs[job])).count();
        tally.believed = group.jobs.iter().filter(|job| reader.may_believe(&book.jobs[job])).count();
        tally
    }
}

/// What a process can know of a repository.
struct Reader<'a> {
    process: &'a Process,
    book: &'a Book,
    /// What was registered before is on its list of runners.
    runners: Option<Time>,
    /// What was created before is on its list of sandboxes.
    sandboxes: Option<Time>,
    newest: &'a Attempt,
}

impl<'a> Reader<'a> {
    fn new(newest: &'a Attempt, process: &'a Process, book: &'a Book) -> Self {
        let known = book.readings.by(process.caller);
        let by = book.now - book.settle();
        let born = book.born_at(process.caller);
        let own = |read: &Time| born.is_none_or(|born| *read >= born);
        let visible = seconds(book.profile.runner_visible_secs[1]);
        let runners = known.last_true((Operation::ListRunners, &newest.group.0, ""), by).filter(own);
        let sandboxes = known.last_true((Operation::ListSandboxes, "", ""), by).filter(own);
        Self {
            process,
            book,
            runners: runners.map(|read| read - book.github_lag() - visible),
            sandboxes: sandboxes.map(|read| read - book.modal_lag()),
            newest,
        }
    }

    fn can_know(&self, attempt: &Attempt) -> bool {
        let is_newest = attempt.registered == self.newest.registered;
        let is_own = attempt.process.as_ref() == Some(self.process) && !self.book.is_ambiguous(self.process);
        let created = attempt.sandbox.map(|index| self.book.sandboxes[index].created.at);
        let is_told = attempt.taken_told.contains(self.process) && !self.book.is_ambiguous(self.process);
        is_newest
            || is_own
            || is_told
            || self.runners.is_some_and(|listed| attempt.registered.at <= listed && is_shown_in_time(attempt))
            || self.sandboxes.zip(created).is_some_and(|(listed, created)| created <= listed)
    }

    /// Whether all that it read shows a runner unconnected that is online.
    fn is_hidden(&self, attempt: &Attempt, rules: &Rules) -> bool {
        let (book, caller) = (self.book, self.process.caller);
        let sandbox = attempt.sandbox.map(|index| &book.sandboxes[index]);
        let Some((online, started)) = attempt.online.zip(sandbox.and_then(|sandbox| sandbox.scheduled)) else {
            return false;
        };
        let born = book.born_at(caller).unwrap_or(started);
        let list = (Operation::ListRunners, &*attempt.group.0, "");
        let known = book.readings.by(caller);
        let mut own = known.of(list).iter().filter(|reading| reading.began >= started.max(born)).peekable();
        let first = own.peek().map(|reading| reading.began);
        let shows = |reading: &&Reading| reading.is_true && reading.began - book.github_lag() >= online;
        let newest = known.of(list).last().map(|reading| reading.began);
        let agree = |(first, last): (Time, Time)| last - first >= GONE_AGREED && last - started >= rules.clocks.start;
        !own.any(|reading| shows(&reading)) && first.zip(newest).is_some_and(agree)
    }

    /// Whether it may believe that a job is queued.
    fn may_believe(&self, job: &Job) -> bool {
        let book = self.book;
        let run = job.run.to_string();
        let list = (Operation::ListJobs, &*job.repo, run.as_str());
        let known = book.readings.by(self.process.caller);
        let is_read = known.begun(list).is_some();
        let (by, born) = (book.now - book.settle(), book.born_at(self.process.caller));
        let own = known.last_true(list, by).filter(|read| born.is_none_or(|born| *read >= born));
        let since = own.or_else(|| known.last_true(list, born.map_or(by, |born| by.min(born - KEPT_LATE))));
        is_read && job.left.is_none_or(|left| since.is_none_or(|read| left >= read - book.github_lag()))
    }

    /// Whether a job that was taken may have been shown queued again, by a list older than lists are known to be.
    fn may_come_back(&self, job: &Job) -> bool {
        let book = self.book;
        let run = job.run.to_string();
        let known = book.readings.by(self.process.caller);
        let is_odd = |reading: &Reading, left: Time| {
            reading.began >= left + LISTS_LAG && (!reading.is_true || reading.began - book.github_lag() <= left)
        };
        job.left.is_some_and(|left| {
            known.of((Operation::ListJobs, &job.repo, &run)).iter().any(|reading| is_odd(reading, left))
        })
    }
}

/// Whether no fault keeps a registration from the list of runners.
pub(crate) fn is_shown_in_time(attempt: &Attempt) -> bool {
    attempt.mint.as_ref().is_none_or(|mint| mint.call.fault.as_deref() != Some("visible_late"))
}

/// Whether an attempt can take no job any more.
fn is_over(attempt: &Attempt, book: &Book) -> bool {
    let ended = attempt.sandbox.is_some_and(|index| !book.sandboxes[index].is_alive());
    ended || attempt.removed.is_some()
}

/// Why an attempt counts as lost, if it does.
pub(crate) fn excuse(attempt: &Attempt, book: &Book, rules: &Rules) -> Option<&'static str> {
    let now = book.now;
    let is_held_back = attempt.creates.is_empty() && book.is_cut(attempt.registered.at);
    if is_mint_lost(attempt, now) || is_held_back {
        return Some("mint");
    }
    if attempt.gone_told.is_some_and(|(first, last)| last - first >= GONE_AGREED) {
        return Some("gone");
    }
    let Some(sandbox) = attempt.sandbox.map(|index| &book.sandboxes[index]) else {
        let refused = attempt.creates.last().is_some_and(|last| {
            !last.call.is_answered() && !last.call.is_in_doubt() && last.call.status != code::ALREADY_EXISTS
        });
        let is_without_secret = attempt.creates.is_empty()
            && attempt
                .secrets
                .iter()
                .any(|secret| !secret.call.is_answered() || secret.call.delay_secs >= SECRET_PATIENCE_SECS);
        let is_taken = attempt.creates.last().is_some_and(|last| last.call.status == code::ALREADY_EXISTS);
        return if is_without_secret {
            Some("secret")
        } else if refused || is_taken {
            Some("create")
        } else {
            (now - attempt.registered.at >= UNSURE).then_some("unsure")
        };
    };
    if sandbox.created.at - attempt.registered.at >= UNSURE {
        return Some("unsure");
    }
    let Some(scheduled) = sandbox.scheduled else {
        return (now - sandbox.created.at >= rules.clocks.schedule).then_some("late");
    };
    // Modal's list shows it without a machine for as long as it lags.
    let limit = sandbox.created.at + rules.clocks.schedule;
    if now >= limit && scheduled + book.modal_lag() >= limit {
        return Some("late");
    }
    // A limit counts from the start, which lies a little after the placement.
    let until = attempt.online.or(sandbox.ended.map(|end| end.at)).unwrap_or(now);
    (until - scheduled >= rules.clocks.start).then_some("late")
}

/// Whether nobody holds the config of a registration.
fn is_mint_lost(attempt: &Attempt, now: Time) -> bool {
    match &attempt.mint {
        Some(mint) => !mint.call.is_answered() || mint.call.delay_secs >= MINT_PATIENCE_SECS,
        // The answer is on the line after the registration.
        None => now > attempt.registered.at,
    }
}
