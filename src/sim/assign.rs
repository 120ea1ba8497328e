//! Which runner gets which job.
//!
//! A queued job goes to any idle runner whose labels cover its own. Both sides ask: a job when it is queued, a
//! runner when it connects. What stands in the way of one of them (a hold, the run's `max-parallel`) asks once
//! more for it when it is gone.

use chrono::{DateTime, Utc};

use super::draws::{Purpose, seconds};
use super::engine::Due;
use super::fault::{FaultMode, Strike};
use super::history::{Operation, RemovalReason};
use super::jobs::{Hold, JobState, RepoKey, Taker, Time};
use super::profile::{Assignment, Span};
use super::runners::{Claim, RunnerKey};
use super::world::State;

/// How late a runner takes its job where the fault does not say.
const TAKEN_LATE_SECS: Span = Span::new(0.0, 60.0);
/// How late a runner is shown busy where the fault does not say.
const BUSY_LATE_SECS: Span = Span::new(0.0, 120.0);
/// How late a hook fires where the fault does not say.
const HOOK_LATE_SECS: Span = Span::new(0.0, 60.0);
/// The age of an idle runner at which it gets a job where the fault does not say: just below the idle limit.
const CHOSEN_AGE_SECS: f64 = 299.5;

/// What could become of a queued job and the runners that could take it.
struct Offer {
    job: u64,
    repo: RepoKey,
    /// Idle runners with all its labels, the one that came online first in front.
    able: Vec<RunnerKey>,
}

/// How an offer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// The job is out of the queue, or stays in it for a while.
    Settled,
    /// The runner cannot have it; another one may.
    Declined,
}

impl State {
    /// Looks for a runner for a queued job.
    pub(super) fn match_job(&mut self, id: u64) {
        while self.is_offered(id) {
            let Some(offer) = self.offer_of(id, None) else { return };
            if self.give(&offer) == Given::Settled {
                return;
            }
        }
    }

    /// Looks for a job for an idle runner: the oldest that its labels cover.
    pub(super) fn offer_runner(&mut self, key: RunnerKey) {
        if self.give_taken_job(key) {
            return;
        }
        while let Some(runner) = self.runner(key).filter(|runner| runner.is_idle(self.now)) {
            let fits = |id: &u64| runner.labels.covers(&self.jobs[id].labels) && self.is_offered(*id);
            let Some(job) = self.queued_for(key).into_iter().find(fits) else { return };
            let Some(offer) = self.offer_of(job, Some(key)) else { return };
            self.give(&offer);
        }
    }

    /// Lets a fault give a job to an idle runner that another runner has already; tells whether it did.
    fn give_taken_job(&mut self, key: RunnerKey) -> bool {
        let repo = std::sync::Arc::clone(&self.repo(key.repo).name);
        let can = |state: &Self, mode| mode == FaultMode::AssignedTwice && state.taken_job_for(key).is_some();
        let is_struck = self.strike_where(Operation::Assign, &repo, can).is_some();
        let job = self.taken_job_for(key).filter(|_| is_struck);
        job.inspect(|job| self.give_job_again(*job, key)).is_some()
    }

    /// A job that a living runner has and this idle one could have as well.
    fn taken_job_for(&self, key: RunnerKey) -> Option<u64> {
        let runner = self.runner(key).filter(|runner| runner.is_idle(self.now))?;
        let others = self.repo(key.repo).runners.values().filter_map(|other| Some((other.id, other.claim?.job)));
        let mut jobs = others.filter(|(id, _)| self.is_working(RunnerKey { repo: key.repo, id: *id }));
        let fits = |job: &u64| {
            let entry = &self.jobs[job];
            !entry.is_lost
                && runner.labels.covers(&entry.labels)
                && entry.second_taker.is_none()
                && self.runs_workflow_of(key, *job)
        };
        jobs.find(|(_, job)| fits(job)).map(|(_, job)| job)
    }

    /// Whether a job waits for a runner and nothing holds it back.
    fn is_offered(&self, id: u64) -> bool {
        let job = &self.jobs[&id];
        job.state() == Some(JobState::Queued) && job.hold.is_none() && self.has_room_in_run(id)
    }

    /// The idle runners for a job; only `asking` where that is the one that asks.
    fn offer_of(&self, job: u64, asking: Option<RunnerKey>) -> Option<Offer> {
        let entry = &self.jobs[&job];
        let repo = entry.repo;
        if let Some(key) = asking {
            return Some(Offer { job, repo, able: vec![key] });
        }
        let is_able = |key: &RunnerKey| {
            let runner = &self.repo(key.repo).runners[&key.id];
            runner.is_idle(self.now)
                && runner.labels.covers(&entry.labels)
                && self.is_in_reach(*key, repo)
                && self.runs_workflow_of(*key, job)
        };
        let runners_at =
            |place: RepoKey| self.repo(place).runners.keys().map(move |id| RunnerKey { repo: place, id: *id });
        let mut able: Vec<RunnerKey> = self.registries_of(repo).flat_map(runners_at).filter(is_able).collect();
        able.sort_by_key(|key| (self.repo(key.repo).runners[&key.id].online_at(), key.id));
        (!able.is_empty()).then_some(Offer { job, repo, able })
    }

    fn give(&mut self, offer: &Offer) -> Given {
        let chosen = match self.profile.assignment {
            _ if offer.able.len() == 1 => 0,
            Assignment::Random => self.seed.stream(Purpose::Assignment, !offer.job).index(offer.able.len()),
            Assignment::OldestFirst => 0,
        };
        let runner = offer.able[chosen];
        let repo = std::sync::Arc::clone(&self.repo(offer.repo).name);
        let can = |state: &Self, mode| state.can_strike_offer(offer, runner, mode);
        match self.strike_where(Operation::Assign, &repo, can) {
            None => self.give_job(offer.job, runner, None),
            Some(strike) => return self.give_wrongly(offer, runner, strike),
        }
        Given::Settled
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes do not depend on the offer")]
    fn can_strike_offer(&self, offer: &Offer, runner: RunnerKey, mode: FaultMode) -> bool {
        match mode {
            FaultMode::AssignedTwice => offer.able.len() > 1,
            FaultMode::TakenByLarger => self.larger_runner(offer).is_some(),
            FaultMode::HeldBack => self.running_in_run(offer.job) > 0,
            FaultMode::AssignedAtAge => self.runner(runner).is_some_and(|runner| !runner.is_aged()),
            _ => true,
        }
    }

    fn larger_runner(&self, offer: &Offer) -> Option<RunnerKey> {
        let wanted = &self.jobs[&offer.job].labels;
        let is_larger = |key: &RunnerKey| self.runner(*key).is_some_and(|runner| runner.labels != *wanted);
        offer.able.iter().copied().find(is_larger)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes do not apply to an assignment")]
    fn give_wrongly(&mut self, offer: &Offer, runner: RunnerKey, strike: Strike) -> Given {
        let job = offer.job;
        match strike.mode {
            FaultMode::Withheld => {
                let until = strike.seconds.map(|secs| self.now + seconds(secs)).or(strike.until);
                self.withhold(runner, until.unwrap_or(DateTime::<Utc>::MAX_UTC));
                return Given::Declined;
            }
            FaultMode::AssignedAtAge => {
                let online_at = self.runner(runner).and_then(super::runners::Runner::online_at).unwrap_or(self.now);
                self.mark_aged(runner);
                self.withhold(runner, online_at + seconds(strike.seconds_or(CHOSEN_AGE_SECS)));
                return Given::Declined;
            }
            FaultMode::AcquisitionLost => {
                self.remove_runner(runner, RemovalReason::NotTaken);
                return Given::Declined;
            }
            FaultMode::TakenLate => {
                let until = self.now + self.fault_span(strike, TAKEN_LATE_SECS);
                self.hold_job(job, Hold::Promised, None);
                // Due before the runner is offered to others.
                self.schedule(until, Due::JobTaken(job, runner));
                self.withhold(runner, until);
            }
            FaultMode::HeldBack => self.hold_job(job, Hold::RunBusy, strike.until),
            FaultMode::TakenByForeign => self.take_by_foreign(job),
            FaultMode::TakenByLarger => {
                let larger = self.larger_runner(offer).unwrap_or(runner);
                self.give_job(job, larger, None);
            }
            FaultMode::AssignedTwice => {
                self.give_job(job, runner, None);
                if let Some(second) = offer.able.iter().find(|key| **key != runner) {
                    self.give_job_again(job, *second);
                }
            }
            FaultMode::BusyLate => {
                let late = self.fault_span(strike, BUSY_LATE_SECS);
                self.give_job(job, runner, Some(self.now + late));
            }
            FaultMode::HookLate => {
                let late = self.fault_span(strike, HOOK_LATE_SECS);
                self.job_mut(job).hook_late = late;
                self.give_job(job, runner, None);
            }
            _ => self.give_job(job, runner, None),
        }
        Given::Settled
    }

    fn give_job(&mut self, job: u64, key: RunnerKey, busy_from: Option<Time>) {
        self.claim(key, job, busy_from);
        let runner = self.runner(key).expect("the caller has just seen it idle");
        let taker = Taker { runner_id: runner.id, runner_name: runner.name.clone(), key: Some(key) };
        self.start_job(job, taker);
    }

    /// GitHub gives a running job to one more runner.
    fn give_job_again(&mut self, job: u64, key: RunnerKey) {
        self.claim(key, job, None);
        let name = self.runner(key).map(|runner| runner.name.clone()).unwrap_or_default();
        self.record_assignment(job, name, Some(key));
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.second_taker = Some(key);
        }
    }

    fn claim(&mut self, key: RunnerKey, job: u64, busy_from: Option<Time>) {
        let usual = self.now + self.runner_draw(key, 3).span(self.profile.busy_lag_secs);
        if let Some(runner) = self.runner_mut(key) {
            runner.claim = Some(Claim { job, busy_from: busy_from.unwrap_or(usual) });
        }
        self.dies_working(key);
    }

    /// A promised job is taken, if its runner is still there; else it is offered anew.
    pub(super) fn take_promised(&mut self, job: u64, key: RunnerKey) {
        let is_there = self.runner(key).is_some_and(|runner| runner.is_idle(self.now));
        if self.jobs[&job].hold.is_none_or(|hold| hold.why != Hold::Promised) {
            return;
        }
        self.drop_hold(job);
        if self.jobs[&job].state() == Some(JobState::Queued) {
            if is_there { self.give_job(job, key, None) } else { self.match_job(job) }
        }
    }

    /// A runner that nobody here knows takes a queued job.
    pub(super) fn take_by_foreign(&mut self, job: u64) {
        if self.jobs[&job].state() == Some(JobState::Queued) {
            let runner_id = FOREIGN_RUNNER_ID + job % 1_000;
            self.start_job(job, Taker { runner_id, runner_name: format!("elsewhere-{job}"), key: None });
        }
    }

    /// Lets a runner get no job until then.
    fn withhold(&mut self, key: RunnerKey, until: Time) {
        if let Some(runner) = self.runner_mut(key) {
            runner.withheld_until = Some(until);
        }
        if until < DateTime::<Utc>::MAX_UTC {
            self.schedule(until, Due::RunnerOffered(key));
        }
    }

    /// Nothing is held back by a fault any more.
    pub(super) fn release_all(&mut self) {
        let now = self.now;
        let mut idle = Vec::new();
        for (repo, entry) in self.repos.iter_mut().enumerate() {
            let withheld = entry.runners.values_mut().filter(|runner| runner.withheld_until.is_some_and(|at| at > now));
            for runner in withheld {
                runner.withheld_until = None;
                idle.push(RunnerKey { repo: RepoKey(repo), id: runner.id });
            }
        }
        for runner in idle {
            self.schedule(now, Due::RunnerOffered(runner));
        }
        self.release_holds();
    }
}

/// Ids of runners that a fault invents start here, apart from those of others.
const FOREIGN_RUNNER_ID: u64 = 2_000_000_000;
