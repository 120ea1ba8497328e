//! Liveness: every job that should be served is served in time, and then there is silence.
//!
//! A job's clock runs from its being queued until a runner takes it, or it ends. It stands still
//!
//! - until the last fault, kill or clearing of faults, and for the time that recovery is given;
//! - while GitHub keeps the job from every runner;
//! - while a limit of the operator that concerns the job is reached, and half a minute longer, in which the
//!   freed room is noticed (an interval, the lag of Modal's list, a look-up);
//!
//! - while Modal has not placed a GPU sandbox of the job's label set on a machine, for as long as that may take;
//!
//! and it is given half a second for every registration that goes before, because GitHub lets no more than
//! two a second be made, and the time of three waves: a run of several jobs grows by waves, each of which is
//! claimed before the next is let start.
//!
//! Until the jobs of its run were first read as they are, it may have been out of sight for a time that the rules
//! state: the re-run of a run that newer ones may have pushed from the first page until the next sweep, any job for the
//! operator's longest interval where the quota does not allow to read every list each interval. What it waits after that
//! reading counts in full.
//!
//! Where runners waited in vain for it, or for others like it, a pause may follow before one more is made, which grows
//! with their number. GitHub does not tell when it gives such a job out after all: it is served when the pause is over.
//!
//! It is not enough that a runner takes it: a job that should be served is not refused by the hook of its runner.
//!
//! At the end nothing of ours is left, and for the quiet window before it nothing was changed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::book::{Attempt, Book, Mark};
use super::event::{Call, Change, Line, Operation, Time, What, code};
use super::{Found, Rules, needs};

/// How long freed room may go unnoticed.
const ROOM_NOTICED: TimeDelta = TimeDelta::seconds(30);
/// What a registration that goes before costs.
const PER_REGISTRATION: TimeDelta = TimeDelta::milliseconds(500);

/// Why a job of a stranger is not to be served.
const STRANGERS: [&str; 2] = ["fork", "public_repo"];
/// Why a job is held that is listed as queued and that nobody can serve.
const GHOSTS: [&str; 2] = ["ghost", "run_completed"];
/// So many runners wait for a job before it may be left alone for long.
const GHOST_AFTER: usize = 3;
/// A runner that waited for less has not waited in vain.
const IN_VAIN_LEAST: TimeDelta = TimeDelta::minutes(1);
const HOUR: TimeDelta = TimeDelta::hours(1);
const DAY: TimeDelta = TimeDelta::days(1);

/// Two answers that agree lie so far apart.
const DENIED_APART: TimeDelta = TimeDelta::seconds(60);

/// The clocks of the waiting jobs.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    waiting: BTreeMap<u64, Waiting>,
    /// Those that should be served and wait no more.
    taken: BTreeSet<u64>,
    /// Those of strangers, which no runner of ours may run; and those that one was given.
    strangers: BTreeSet<u64>,
    given: BTreeSet<u64>,
    seen_at: Option<Time>,
    disturbed_at: Option<Time>,
    full_at: Option<Time>,
    full_repo_at: BTreeMap<String, Time>,
    full_gpus_at: Option<Time>,
    /// The same for classes, of those without GPUs and of those with.
    full_class_at: [Option<Time>; 2],
    mutated: Option<(Mark, String)>,
    /// Modal Secrets that were made in this run.
    ever: BTreeSet<String>,
    /// Those of them that exist.
    secrets: BTreeMap<String, u64>,
    /// When Modal first and last answered that it does not know a Secret that was to be deleted.
    denied: BTreeMap<String, (Time, Time)>,
    /// When an App was stopped: no list shows the sandboxes that were created before.
    app_stopped_at: Option<Time>,
    /// When a controller was last killed, and when a list of sandboxes was last answered.
    killed_at: Option<Time>,
    listed_at: Option<Time>,
    /// The one that appeared on the line before.
    newest_secret: Option<String>,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
struct Waiting {
    since: Mark,
    repo: String,
    is_gpu: bool,
    run: String,
    waited: TimeDelta,
    /// What of that was before the jobs of its run were read.
    unread: TimeDelta,
    is_read: bool,
    is_rerun: bool,
    registrations_before: usize,
    /// Whether GitHub keeps it from every runner.
    is_held: bool,
    /// Whether it does so for good, as far as anybody can tell.
    is_ghost: bool,
}

impl Serving {
    /// A runner of ours may be given any job of its labels, but runs none of a stranger.
    fn see_strangers(&mut self, line: &Line, rules: &Rules, found: &mut Found) {
        match &line.what {
            What::JobQueued { job, skip: Some(skip), .. } if STRANGERS.contains(&skip.as_str()) => {
                self.strangers.insert(*job);
            }
            What::JobAssigned { job, runner, .. }
                if self.strangers.contains(job) && rules.names.job_of(runner).is_some() =>
            {
                self.given.insert(*job);
            }
            What::JobCompleted { job, cause, .. } if self.given.remove(job) && cause == "ran" => {
                let text = format!("job {job} of a stranger ran on a runner of ours");
                found.add("stranger_ran", &[line.seq], line.at, text);
            }
            _ => {}
        }
    }

    /// Notes who can know of sandboxes whose App is gone, which no list shows any more.
    fn see_unlisted(&mut self, line: &Line, book: &Book) {
        match &line.what {
            What::FaultStruck { mode, .. } if mode == "app_stopped" => {
                self.app_stopped_at = Some(line.at);
                if self.killed_at > self.listed_at {
                    self.forget_unlisted(book);
                }
            }
            What::ControllerChanged { change: Change::Killed, .. } => {
                self.killed_at = Some(line.at);
                self.forget_unlisted(book);
            }
            What::Call(call) if call.operation == Operation::ListSandboxes && call.is_answered() => {
                self.listed_at = Some(line.at);
            }
            _ => {}
        }
    }

    /// Judges a line after the book has taken it.
    pub(crate) fn see(&mut self, line: &Line, book: &Book, rules: &Rules, found: &mut Found) {
        self.run_clocks(line.at, book, rules);
        self.see_strangers(line, rules, found);
        self.see_unlisted(line, book);
        let newest_secret = self.newest_secret.take();
        match &line.what {
            // Stored for a call that nobody waits for any more: its registration may be over by then, and with it
            // all that leads to the Secret. Its config is used, or opens nothing.
            What::FaultStruck { .. } | What::ClientKilled { .. } => self.newest_secret = newest_secret,
            What::Call(call) if call.operation == Operation::Secret => {}
            _ => {
                if let Some(late) = newest_secret {
                    self.secrets.remove(&late);
                }
            }
        }
        match &line.what {
            What::JobQueued { job, run, attempt, repo, labels, skip: None } => {
                let waiting = Waiting {
                    since: Mark { seq: line.seq, at: line.at },
                    repo: repo.clone(),
                    is_gpu: labels.iter().any(|label| label.starts_with("gpu:")),
                    run: run.to_string(),
                    waited: TimeDelta::zero(),
                    unread: TimeDelta::zero(),
                    is_read: false,
                    is_rerun: *attempt > 1,
                    registrations_before: book.attempts.len(),
                    is_held: false,
                    is_ghost: false,
                };
                self.waiting.insert(*job, waiting);
            }
            What::JobHeld { job, why } => {
                if let Some(waiting) = self.waiting.get_mut(job) {
                    waiting.is_held = why.is_some();
                    waiting.is_ghost = why.as_deref().is_some_and(|why| GHOSTS.contains(&why));
                }
            }
            What::JobAssigned { job, .. } | What::JobCompleted { job, .. } => {
                if let Some(waiting) = self.waiting.remove(job) {
                    judge((*job, &waiting), line.at, book, rules, found);
                    self.taken.insert(*job);
                }
                if let What::JobCompleted { cause, .. } = &line.what
                    && self.taken.remove(job)
                    && cause == "refused"
                {
                    let text = format!("job {job}, which should be served, was refused by its runner's hook");
                    found.add("refused", &[line.seq], line.at, text);
                }
            }
            What::SandboxCreated { .. } | What::SandboxEnded { .. } | What::LimitsStated { .. } => {
                self.note_limits(line.at, book);
            }
            What::SecretChanged { secret, exists } => self.note_secret((secret, *exists), line, found),
            What::Call(call) if call.operation == Operation::ListJobs => self.note_reading(call, book),
            What::Call(call) if call.operation.is_mutation() => {
                if call.operation == Operation::SecretDelete && call.status == code::NOT_FOUND {
                    self.denied.entry(call.target.clone()).or_insert((line.at, line.at)).1 = line.at;
                }
                self.mutated = Some((Mark { seq: line.seq, at: line.at }, format!("{:?}", call.operation)));
            }
            _ => {}
        }
    }

    /// Notes that a Secret exists, or does no more; none goes that was there before.
    fn note_secret(&mut self, (secret, exists): (&str, bool), line: &Line, found: &mut Found) {
        if exists {
            self.ever.insert(secret.to_owned());
            self.secrets.insert(secret.to_owned(), line.seq);
            self.newest_secret = Some(secret.to_owned());
            return;
        }
        if !self.ever.contains(secret) {
            found.add("foreign", &[line.seq], line.at, format!("Secret {secret}, which nobody of ours made"));
        }
        self.secrets.remove(secret);
    }

    /// Notes which jobs a reading showed to whoever made it.
    fn note_reading(&mut self, call: &Call, book: &Book) {
        let list = (Operation::ListJobs, call.subject.as_str(), call.target.as_str());
        let read = book.readings.by(call.caller()).last_true(list, Time::MAX_UTC);
        let Some(shown) = read.map(|began| began - book.github_lag()) else { return };
        let of_run = |waiting: &&mut Waiting| waiting.repo == call.subject && waiting.run == call.target;
        for waiting in self.waiting.values_mut().filter(of_run) {
            waiting.is_read |= shown >= waiting.since.at;
        }
    }

    /// Whoever starts after an App is gone, or has not listed its sandboxes by then, has nothing that leads to their Secrets.
    fn forget_unlisted(&mut self, book: &Book) {
        let Some(stopped) = self.app_stopped_at else { return };
        for sandbox in book.sandboxes.iter().filter(|sandbox| sandbox.created.at <= stopped) {
            if let Some(secret) = &sandbox.secret {
                self.secrets.remove(secret);
            }
        }
    }

    fn run_clocks(&mut self, now: Time, book: &Book, rules: &Rules) {
        let before = self.seen_at.replace(now).unwrap_or(now);
        if self.disturbed_at != book.disturbed_at {
            // What was waited for until then, the disturbance may have made good or undone.
            self.disturbed_at = book.disturbed_at;
            for waiting in self.waiting.values_mut() {
                (waiting.waited, waiting.unread) = (TimeDelta::zero(), TimeDelta::zero());
            }
        }
        let calm = book.disturbed_at.map_or(before, |at| at + rules.recover_within);
        let from = before.max(calm);
        if now <= from {
            return;
        }
        for (job, waiting) in &mut self.waiting {
            let placed = placed_by(*job, book, rules).filter(|_| waiting.is_gpu);
            let from = placed.map_or(from, |placed| placed.max(from));
            let gpus = self.full_gpus_at.filter(|_| waiting.is_gpu);
            // Which class a job is of, the history does not say.
            let class = self.full_class_at[usize::from(waiting.is_gpu)];
            let full = [self.full_at, self.full_repo_at.get(&waiting.repo).copied(), gpus, class];
            let free = full.into_iter().flatten().map(|full| full + ROOM_NOTICED).max();
            let from = free.map_or(from, |free| free.max(from));
            if !waiting.is_held {
                let passed = (now - from).max(TimeDelta::zero());
                waiting.waited += passed;
                waiting.unread += if waiting.is_read { TimeDelta::zero() } else { passed };
            }
        }
    }

    /// Notes which limits are reached; between two notes nothing about that changes.
    fn note_limits(&mut self, now: Time, book: &Book) {
        let is_reached = |limit: Option<u32>, count: usize| limit.is_some_and(|limit| count >= limit as usize);
        let live = || book.live.iter().map(|index| &book.sandboxes[*index]);
        let far = now + TimeDelta::days(3_650);
        let note = |is_full: bool, at: &mut Option<Time>| {
            if is_full {
                *at = Some(far);
            } else if at.is_some_and(|at| at > now) {
                *at = Some(now);
            }
        };
        note(is_reached(book.limits.sandboxes, live().count()), &mut self.full_at);
        note(is_reached(book.limits.gpus, live().map(|it| it.gpus).sum()), &mut self.full_gpus_at);
        for is_gpu in [false, true] {
            let of_class = |class: &str| live().filter(|it| it.is_gpu == is_gpu && it.class == class).count();
            let is_full = book.limits.classes.iter().any(|(class, limit)| is_reached(Some(*limit), of_class(class)));
            note(is_full, &mut self.full_class_at[usize::from(is_gpu)]);
        }
        let repo = |it: &super::book::Sandbox| it.attempt.map(|index| book.repo_of(&book.attempts[index]).to_owned());
        let mut of_repo: BTreeMap<String, usize> = BTreeMap::new();
        for name in live().filter_map(repo) {
            *of_repo.entry(name).or_default() += 1;
        }
        for (name, at) in &mut self.full_repo_at {
            if !is_reached(book.limits.sandboxes_per_repo, of_repo.get(name).copied().unwrap_or_default()) {
                *at = (*at).min(now);
            }
        }
        of_repo.retain(|_, count| is_reached(book.limits.sandboxes_per_repo, *count));
        self.full_repo_at.extend(of_repo.into_keys().map(|name| (name, far)));
    }

    /// Judges at the end.
    pub(crate) fn at_end(&mut self, end: Time, book: &Book, rules: &Rules, found: &mut Found) {
        self.run_clocks(end, book, rules);
        for (job, waiting) in &self.waiting {
            judge((*job, waiting), end, book, rules, found);
        }
        let Some(quiet) = rules.quiet else { return };
        if let Some((mark, what)) = self.mutated.as_ref().filter(|(mark, _)| end - mark.at < quiet) {
            let text = format!("{what} {} s before the end", (end - mark.at).num_seconds());
            found.add("silence", &[mark.seq], mark.at, text);
        }
        for (job, waiting) in self.waiting.iter().filter(|(_, waiting)| !waiting.is_ghost) {
            found.add("unserved", &[waiting.since.seq], end, format!("job {job} of {} still waits", waiting.repo));
        }
        left_over(end, book, found);
        // Two answers a minute apart are believed.
        let is_denied =
            |secret: &str| self.denied.get(secret).is_some_and(|(first, last)| *last - *first >= DENIED_APART);
        for (secret, seq) in self.secrets.iter().filter(|(secret, _)| !is_denied(secret)) {
            found.add("left_over", &[*seq], end, format!("Secret {secret} exists"));
        }
    }
}

fn judge((job, waiting): (u64, &Waiting), now: Time, book: &Book, rules: &Rules, found: &mut Found) {
    let before = i32::try_from(book.attempts.len() - waiting.registrations_before).unwrap_or(i32::MAX);
    let is_behind = waiting.is_rerun && book.runs_of(&waiting.repo) > book.profile.github_list_page;
    let swept = if is_behind { rules.swept_within } else { TimeDelta::zero() };
    let unseen = waiting.unread.min(rules.unread_within.max(swept));
    let bound = rules.serve_within + PER_REGISTRATION * before + unseen;
    if waiting.waited <= bound {
        return;
    }
    let bound = bound + left_alone(job, waiting, now, book, rules) + of_others(job, book);
    if waiting.waited > bound {
        let text = format!(
            "job {job} of {} waited {} s with nothing in its way, {} may pass",
            waiting.repo,
            waiting.waited.num_seconds(),
            bound.num_seconds()
        );
        found.add("served_late", &[waiting.since.seq], now, text);
    }
}

/// When the last GPU sandbox has to be placed on a machine that was made for a job's label set and is not yet.
fn placed_by(job: u64, book: &Book, rules: &Rules) -> Option<Time> {
    let group = book.groups.get(&book.jobs.get(&job)?.group)?;
    let sandboxes = group.attempts.iter().filter_map(|index| book.attempts[*index].sandbox);
    let unplaced = sandboxes.map(|index| &book.sandboxes[index]).filter(|it| it.is_alive() && it.scheduled.is_none());
    unplaced.map(|it| it.created.at + rules.clocks.schedule).max()
}

/// How long what another controller registered for a job's label set counts as a runner that is about to come, though no
/// sandbox came of it: what became of the create is known to the other alone.
fn of_others(job: u64, book: &Book) -> TimeDelta {
    let group = book.jobs.get(&job).and_then(|known| book.groups.get(&known.group));
    let mut attempts = group.into_iter().flat_map(|group| &group.attempts).map(|index| &book.attempts[*index]);
    let is_unused = attempts.any(|attempt| attempt.sandbox.is_none());
    if book.controllers > 1 && is_unused { needs::UNSURE } else { TimeDelta::zero() }
}

/// How long a job may be left alone that runners waited for in vain.
///
/// Each that waits in vain makes the pause of its label set twice as long, from a minute to an hour, until a runner is
/// given a job again; what waits then is served as soon as any other. A job that the third one of its own waited for is
/// left alone for an hour, then for two, up to a day. What shows when a pause is over is read the less often the longer it
/// has been there.
fn left_alone(job: u64, waiting: &Waiting, now: Time, book: &Book, rules: &Rules) -> TimeDelta {
    let Some(group) = book.jobs.get(&job).and_then(|known| book.groups.get(&known.group)) else {
        return TimeDelta::zero();
    };
    let attempts = || group.attempts.iter().map(|index| &book.attempts[*index]);
    // A claim ends the pause: what waited through it has as long after that as every job.
    let since = now - rules.serve_within;
    let claimed = attempts().filter_map(|attempt| attempt.job).map(|(at, _)| at).filter(|at| *at < since).max();
    // When it stopped to wait, where that was long enough.
    let in_vain = |attempt: &Attempt| {
        let ended = attempt.sandbox.and_then(|index| book.sandboxes[index].ended).map(|end| end.at);
        let until = ended.into_iter().chain(attempt.job.map(|(at, _)| at)).fold(now, Time::min);
        let from = attempt.online?.max(waiting.since.at);
        (until - from >= IN_VAIN_LEAST).then_some(until)
    };
    let is_own = |attempt: &&Attempt| rules.names.job_of(&attempt.name) == Some(job);
    let own = attempts().filter(is_own).filter_map(in_vain).count();
    // What was let start before one of them had waited in vain is one failure with it.
    let mut failures: Vec<(Time, Time)> = attempts()
        .filter(|attempt| in_vain(attempt).is_some_and(|until| claimed.is_none_or(|claimed| until > claimed)))
        .filter_map(|attempt| Some((attempt.registered.at, attempt.online?.max(waiting.since.at) + IN_VAIN_LEAST)))
        .collect();
    failures.sort_unstable();
    let mut known_at: Option<Time> = None;
    let mut all = 0;
    for (began, told) in failures {
        if known_at.is_none_or(|known| began > known) {
            all += 1;
            known_at = Some(told);
        }
    }
    let pause =
        doubled(TimeDelta::minutes(1), all, HOUR).max(doubled(HOUR, (own + 1).saturating_sub(GHOST_AFTER), DAY));
    if pause.is_zero() { pause } else { pause + ((now - waiting.since.at) / 5).min(HOUR) }
}

/// The pause after so many failures in a row, which doubles; none after none.
fn doubled(first: TimeDelta, failures: usize, longest: TimeDelta) -> TimeDelta {
    let Some(doublings) = failures.checked_sub(1) else { return TimeDelta::zero() };
    (first * 2_i32.pow(u32::try_from(doublings).unwrap_or(u32::MAX).min(20))).min(longest)
}

fn left_over(end: Time, book: &Book, found: &mut Found) {
    for sandbox in book.live.iter().map(|index| &book.sandboxes[*index]) {
        let text = format!("sandbox {} ({}) is alive", sandbox.id, sandbox.name);
        found.add("left_over", &[sandbox.created.seq], end, text);
    }
    for attempt in book.attempts.iter().filter(|attempt| attempt.removed.is_none()) {
        let text = format!("runner {} of {} is registered", attempt.name, attempt.group.0);
        found.add("left_over", &[attempt.registered.seq], end, text);
    }
}
