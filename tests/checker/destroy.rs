//! Nothing is destroyed that is foreign, that works, or whose uselessness was not read twice.
//!
//! - **Foreign**: only runners and sandboxes whose whole name is of the controller's form, and that were made
//!   with a config of ours.
//! - **Claimed**: no `SandboxTerminate` of a sandbox in which a job runs, and none by which a job dies that
//!   was given to it in between.
//! - **Views**: a registration is deleted, a sandbox terminated, only after five minutes and after two
//!   complete readings of each list that shows its uselessness, a minute apart. A list that a fault made to
//!   show too little counts as read, because its reader cannot know; one that failed, or of which a page is
//!   missing, does not. Two exceptions: a registration may be deleted at once where a create under its name
//!   was answered "already exists" (the config is used by nobody); a sandbox that Modal never placed on a
//!   machine may be terminated after the schedule limit.
//! - **Seen online**: a runner that a complete reading can only have shown as online, and whose sandbox lives,
//!   is left alone by both.
//! - **Fence**: `SandboxTerminate` comes 90 s after GitHub answered a `DELETE` of the registration with 204 or
//!   404, and after the repository's runs, and the jobs of every run with an open job, were read once more.

use chrono::TimeDelta;

use super::book::{Attempt, Book, Done, Job, Sandbox, Stage};
use super::event::{Call, Caller, Line, Operation, Time, What, code, seconds};
use super::readings::Reading;
use super::{Found, Rules, needs};

/// Nothing is destroyed before it was known for so long.
const GRACE: TimeDelta = TimeDelta::minutes(5);
/// Readings agree only if they lie so far apart.
const APART: TimeDelta = TimeDelta::seconds(60);
/// From the answer to a `DELETE` to the end of the sandbox.
const FENCE: TimeDelta = TimeDelta::seconds(90);

/// Judges a line after the book has taken it.
pub(crate) fn see(line: &Line, book: &Book, rules: &Rules, found: &mut Found) {
    match &line.what {
        What::RunnerDeleteAsked { repo, runner } if rules.names.job_of(runner).is_none() => {
            found.add("foreign", &[line.seq], line.at, format!("DELETE of runner {runner} of {repo}"));
        }
        What::Call(call) if call.operation == Operation::DeleteRunner => delete(line, call, book, found),
        What::Call(call) => {
            if let Some((Done::Terminated(index), _)) = book.done {
                terminate(line, (&book.sandboxes[index], call.caller()), book, rules, found);
            }
        }
        What::TerminateAsked { sandbox, name, job } => {
            if let Some(job) = job {
                let text = format!("SandboxTerminate of {sandbox} ({name}), which runs job {job}");
                found.add("claimed_terminated", &[line.seq], line.at, text);
            }
            if book.sandbox(sandbox).is_none_or(|sandbox| !sandbox.is_ours) {
                found.add("foreign", &[line.seq], line.at, format!("SandboxTerminate of {sandbox} ({name})"));
            }
        }
        What::SandboxEnded { sandbox, .. } => {
            if let Some(sandbox) = book.sandbox(sandbox) {
                ended(line, sandbox, book, found);
            }
        }
        What::SecretChanged { secret, exists: false } => secret_deleted(line, secret, book, found),
        _ => {}
    }
}

/// A job was given to a sandbox between the request to end it and its end.
fn ended(line: &Line, sandbox: &Sandbox, book: &Book, found: &mut Found) {
    let (Some(asked), Some(attempt)) = (sandbox.terminate_asked, sandbox.attempt) else { return };
    let Some((given, job)) = book.attempts[attempt].job else { return };
    if given >= asked.at && book.jobs.get(&job).is_some_and(|job| job.stage != Stage::Done) {
        let text = format!("{} ({}) was terminated and took job {job} with it", sandbox.id, sandbox.name);
        found.add("claimed_terminated", &[asked.seq, line.seq], line.at, text);
    }
}

fn delete(line: &Line, call: &Call, book: &Book, found: &mut Found) {
    let Some(attempt) = book.attempt_of(&call.subject, &call.target) else { return };
    let mut wrong = |why: String| {
        let text = format!("DELETE of runner {} of {}: {why}", attempt.name, attempt.group.0);
        found.add("destroyed_unproven", &[attempt.registered.seq, line.seq], line.at, text);
    };
    if attempt.creates.last().is_some_and(|create| create.call.status == code::ALREADY_EXISTS) {
        return;
    }
    if line.at - attempt.registered.at < GRACE {
        return wrong(format!("{} s after its registration", (line.at - attempt.registered.at).num_seconds()));
    }
    let caller = call.caller();
    if let Some(why) = unread(attempt, attempt.registered.at, caller, book) {
        return wrong(why);
    }
    let sandbox = attempt.sandbox.map(|index| &book.sandboxes[index]);
    if sandbox.is_some_and(Sandbox::is_alive) && was_seen_online(attempt, line.at, caller, book) {
        wrong("its sandbox lives, and it was seen online".to_owned());
    }
}

fn terminate(line: &Line, (sandbox, caller): (&Sandbox, Caller), book: &Book, rules: &Rules, found: &mut Found) {
    let mut wrong = |why: String| {
        let text = format!("SandboxTerminate of {} ({}): {why}", sandbox.id, sandbox.name);
        found.add("destroyed_unproven", &[sandbox.created.seq, line.seq], line.at, text);
    };
    let age = line.at - sandbox.created.at;
    if sandbox.scheduled.is_none_or(|at| at + book.modal_lag() + APART >= line.at) {
        // It was not placed, as far as a list can have shown.
        if age < rules.clocks.schedule {
            wrong(format!("not placed, and only {} s old", age.num_seconds()));
        }
        // It may have been placed since that list.
        let attempt = sandbox.attempt.map(|index| &book.attempts[index]);
        let is_fenced = |attempt: &Attempt| {
            let fence = attempt.deletes.iter().find(|delete| matches!(delete.call.status, 204 | 404));
            fence.is_some_and(|fence| line.at - fence.mark.at >= APART)
        };
        if sandbox.is_ours && attempt.is_some_and(|attempt| !is_fenced(attempt)) {
            wrong("not placed, and its registration was not deleted a minute before".to_owned());
        }
        return;
    }
    let Some(attempt) = sandbox.attempt.map(|index| &book.attempts[index]) else { return };
    if !sandbox.is_ours {
        return;
    }
    if age < GRACE {
        return wrong(format!("only {} s old", age.num_seconds()));
    }
    if let Some(why) = unread(attempt, sandbox.created.at, caller, book) {
        return wrong(why);
    }
    if was_seen_online(attempt, line.at, caller, book) {
        return wrong("its runner was seen online".to_owned());
    }
    let is_fence = |status: u16| matches!(status, 204 | 404);
    let Some(fence) = attempt.deletes.iter().find(|delete| is_fence(delete.call.status)) else {
        return wrong("GitHub never answered a DELETE of its registration".to_owned());
    };
    if line.at - fence.mark.at < FENCE {
        return wrong(format!("{} s after its registration was deleted", (line.at - fence.mark.at).num_seconds()));
    }
    if let Some(why) = jobs_unread(attempt, fence.mark.at, caller, book) {
        wrong(why);
    }
}

/// Which list was not read twice since then; none where each was.
fn unread(attempt: &Attempt, since: Time, caller: Caller, book: &Book) -> Option<String> {
    let known = book.readings.by(caller);
    let lists = [(Operation::ListRunners, &*attempt.group.0), (Operation::ListSandboxes, "")];
    let lacks = |list: &&(Operation, &str)| !known.agree((list.0, list.1, ""), since, book.now, APART);
    lists.iter().find(lacks).map(|(operation, _)| format!("no two complete {operation:?} a minute apart before"))
}

/// Whether a reading of the caller's can only have shown the runner as online.
fn was_seen_online(attempt: &Attempt, now: Time, caller: Caller, book: &Book) -> bool {
    if !needs::is_shown_in_time(attempt) {
        return false;
    }
    let Some(online) = attempt.online else { return false };
    let visible = attempt.registered.at + seconds(book.profile.runner_visible_secs[1]);
    let since = online.max(visible) + book.github_lag();
    // What one process saw the next one need not have seen.
    let since = book.born_at(caller).map_or(since, |at| since.max(at));
    let until = attempt.removed.unwrap_or(now);
    let list = (Operation::ListRunners, &*attempt.group.0, "");
    let shows = |reading: &Reading| {
        reading.is_true && reading.began >= since && reading.began < until && reading.ended <= now - book.settle()
    };
    book.readings.by(caller).of(list).iter().any(shows)
}

/// What of the repository's jobs was not read since; none where all was.
fn jobs_unread(attempt: &Attempt, since: Time, caller: Caller, book: &Book) -> Option<String> {
    let registry = &*attempt.group.0;
    // Lists lag: one that began right after the fence may show the time before it.
    let since = since + book.github_lag().min(needs::LISTS_LAG);
    let known = book.readings.by(caller);
    let is_read = |list: (Operation, &str, &str)| known.of(list).iter().any(|reading| reading.began >= since);
    // The first page: further ones hold older runs, and the jobs of every open run are looked for below.
    // An organization's runners take no jobs of repositories that are not allowed.
    let is_of_registry = |job: &&Job| *job.group.0 == *registry && book.is_allowed(&job.repo);
    let of_registry = book.jobs.values().filter(is_of_registry);
    let mut repos: Vec<&str> = of_registry.clone().map(|job| &*job.repo).collect();
    repos.push(book.repo_of(attempt));
    let is_unlisted = |repo: &&&str| known.begun((Operation::ListRuns, **repo, "")).is_none_or(|at| at < since);
    if let Some(repo) = repos.iter().find(is_unlisted) {
        return Some(format!("the runs of {repo} were not read since its registration was deleted"));
    }
    // A run that became visible a moment ago is not expected to be known.
    let known_before = book.now - book.github_lag() - TimeDelta::seconds(30);
    let mut open = of_registry.filter(|job| job.stage == Stage::Open && !is_left_out(job, since, caller, book));
    open.find(|job| job.queued.at < known_before && !is_read((Operation::ListJobs, &job.repo, &job.run.to_string())))
        .map(|job| format!("the jobs of run {} were not read since its registration was deleted", job.run))
}

/// Whether a process may not have been shown a job's run at all: it is older than the process and than the pages of the whole
/// list that are read, and the lists by status leave runs out. Both were read since, and the process has never asked for its jobs.
fn is_left_out(job: &Job, since: Time, caller: Caller, book: &Book) -> bool {
    let known = book.readings.by(caller);
    let started = book.started_at(caller);
    let has = |target: &str, from: Option<Time>| {
        let readings = known.of((Operation::ListRuns, &job.repo, target));
        readings.iter().any(|reading| from.is_none_or(|from| reading.began >= from))
    };
    let asked = known.begun((Operation::ListJobs, &job.repo, &job.run.to_string()));
    book.profile.filtered_list_omits > 0.0
        && started.is_some_and(|started| job.queued.at < started)
        && asked.is_none_or(|asked| started.is_some_and(|started| asked < started))
        && !has("", started)
        && ["queued", "in_progress"].into_iter().all(|status| has(status, Some(since)))
}

/// A Secret is needed until the runner in its sandbox has read it.
fn secret_deleted(line: &Line, secret: &str, book: &Book, found: &mut Found) {
    let Some(sandbox) = book.sandboxes.iter().rev().find(|it| it.secret.as_deref() == Some(secret)) else { return };
    let is_online = sandbox.attempt.is_some_and(|index| book.attempts[index].online.is_some());
    if sandbox.is_alive() && !is_online {
        let text = format!("the Secret of {} ({}), whose runner has not read it", sandbox.id, sandbox.name);
        found.add("destroyed_unproven", &[sandbox.created.seq, line.seq], line.at, text);
    }
}
