//! Limits: never more sandboxes than the operator allows, those about to be created included.
//!
//! They are judged whenever a mint or a create succeeds. What is counted is the truth, less what the process
//! that called could not know: a sandbox that another process asked for (its own life before a kill, or a
//! second controller), until a reading of Modal's list by the caller that is newer than the sandbox by the
//! list's lag. So two controllers may exceed a limit together by what one of them had under way, and one that
//! is alone by nothing. A call that is carried out after its caller gave up is not judged when that happens;
//! the caller has to count it as about to appear.

use super::book::{Attempt, Book, Done, Process, Sandbox};
use super::event::{Line, Operation, What};
use super::{Found, Rules, needs};

/// Modal's longest lifetime of a sandbox.
const LONGEST_LIFE_SECS: u32 = 86_400;

/// Judges a line after the book has taken it.
pub(crate) fn see(line: &Line, book: &Book, rules: &Rules, found: &mut Found) {
    if let What::SandboxCreated { timeout_secs, sandbox, config: Some(_), .. } = &line.what
        && *timeout_secs > LONGEST_LIFE_SECS
    {
        let text = format!("{sandbox} may live for {timeout_secs} s, longer than a day");
        found.add("lifetime", &[line.seq], line.at, text);
    }
    let judge = Judge { line, book, rules };
    match &book.done {
        Some((Done::Minted(index), process)) => judge.all(process, book.repo_of(&book.attempts[*index]), found),
        Some((Done::Created(index), process)) if book.sandboxes[*index].is_ours => {
            let newest = &book.sandboxes[*index];
            if let Some(repo) = repo_of(book, newest) {
                judge.all(process, repo, found);
            }
            judge.kind(process, newest, found);
        }
        Some((Done::Created(_) | Done::Terminated(_), _)) | None => {}
    }
}

struct Judge<'a> {
    line: &'a Line,
    book: &'a Book,
    rules: &'a Rules,
}

impl Judge<'_> {
    /// The limits of all and of a repository.
    fn all(&self, process: &Process, repo: &str, found: &mut Found) {
        let limits = &self.book.limits;
        let pending: Vec<&str> = self.pending(process).collect();
        let known = self.known(process).count();
        self.report("in all", limits.sandboxes, known + pending.len(), found);
        let alive = self.known(process).filter(|it| repo_of(self.book, it) == Some(repo)).count();
        let starting = pending.iter().filter(|it| **it == repo).count();
        self.report(&format!("of {repo}"), limits.sandboxes_per_repo, alive + starting, found);
    }

    /// The limits of a class and of GPUs.
    fn kind(&self, process: &Process, newest: &Sandbox, found: &mut Found) {
        let limits = &self.book.limits;
        if newest.is_gpu {
            let gpus = self.known(process).map(|it| it.gpus).sum();
            self.report("counted by their GPUs", limits.gpus, gpus, found);
        }
        let of_class = self.known(process).filter(|it| it.class == newest.class).count();
        let limit = limits.classes.get(&newest.class).copied();
        self.report(&format!("of class {}", newest.class), limit, of_class, found);
    }

    fn report(&self, what: &str, limit: Option<u32>, count: usize, found: &mut Found) {
        if let Some(limit) = limit.filter(|limit| count > *limit as usize) {
            let text = format!("{count} sandboxes {what} live or are about to, {limit} may");
            found.add("limits", &[self.line.seq], self.line.at, text);
        }
    }

    /// The living sandboxes that a process can know of.
    fn known(&self, process: &Process) -> impl Iterator<Item = &Sandbox> {
        let book = self.book;
        let list = (Operation::ListSandboxes, "", "");
        let read = book.readings.by(process.caller).last_true(list, book.now - book.settle());
        // What its life before a kill has read is forgotten.
        let read = read.filter(|read| book.born_at(process.caller).is_none_or(|born| *read >= born));
        let listed = read.map(|read| read - book.modal_lag());
        let is_known = move |sandbox: &&Sandbox| {
            let attempt = sandbox.attempt.map(|index| &book.attempts[index]);
            // A process counts what it asked for as about to appear, though not for ever, and each once: a second
            // sandbox comes of a call that was carried out after the first one had ended.
            let is_own = attempt.is_some_and(|attempt| {
                let is_first = attempt.sandbox.is_some_and(|index| book.sandboxes[index].id == sandbox.id);
                is_first && self.is_own(attempt, process) && sandbox.created.at - attempt.registered.at < needs::UNSURE
            });
            is_own || listed.is_some_and(|listed| listed >= sandbox.created.at)
        };
        book.live.iter().map(|index| &book.sandboxes[*index]).filter(is_known)
    }

    /// The repositories of its registrations that wait for their sandbox.
    fn pending<'a>(&'a self, process: &'a Process) -> impl Iterator<Item = &'a str> {
        let book = self.book;
        // Whatever is older is either created or excused.
        let recent = book.attempts.iter().rev().take_while(|attempt| book.now - attempt.registered.at < needs::UNSURE);
        let is_pending = move |attempt: &&Attempt| {
            attempt.sandbox.is_none()
                && attempt.removed.is_none()
                && self.is_own(attempt, process)
                && needs::excuse(attempt, book, self.rules).is_none()
        };
        recent.filter(is_pending).map(|attempt| book.repo_of(attempt))
    }

    /// Whether a process registered it. Where two run that cannot be told apart, only the newest is surely its.
    fn is_own(&self, attempt: &Attempt, process: &Process) -> bool {
        let is_newest = || self.book.attempts.last().is_some_and(|newest| newest.registered == attempt.registered);
        attempt.process.as_ref() == Some(process) && (!self.book.is_ambiguous(process) || is_newest())
    }
}

/// The repository that a sandbox serves.
fn repo_of<'a>(book: &'a Book, sandbox: &Sandbox) -> Option<&'a str> {
    sandbox.attempt.map(|index| book.repo_of(&book.attempts[index]))
}
