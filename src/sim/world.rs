//! The World: one truth behind a lock, advanced by whoever looks at it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::app::SimulatedApp;
use super::client::Crash;
use super::draws::Seed;
use super::engine::{Due, Postponed};
use super::fault::{FaultRequest, Faults, InvalidFault, Knobs, Mishaps};
use super::github::KeptList;
use super::history::{ControllerChange, Event, History, StatedLimits, What};
use super::jobs::{Job, JobState, Repo, RepoKey, Run, Time};
use super::limits::{CreateLimiter, GithubLimiter};
use super::modal::{self, Answers, Bend, ModalEndpoint, Objects};
use super::profile::Profile;
use super::report::Report;
use super::runners::{Lifetime, RunnerKey};
use super::sandboxes::{Sandbox, SandboxKey};
use super::scenario::{Scenario, ScenarioError, ScenarioJob, ScenarioRun};
use crate::clock::Clock;
use crate::ids::Labels;

/// A simulated GitHub and a simulated Modal with one truth. A clone is a handle to the same World.
#[derive(Debug, Clone)]
pub struct World {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    clock: Clock,
}

/// The truth.
#[derive(Debug)]
pub(super) struct State {
    pub(super) profile: Profile,
    pub(super) scenario: Scenario,
    pub(super) seed: Seed,
    /// When the World began.
    pub(super) start: Time,
    /// The time up to which everything has happened.
    pub(super) now: Time,
    pub(super) due: BTreeMap<(Time, u64), Due>,
    pub(super) planned: u64,
    pub(super) postponed: BTreeMap<u64, Postponed>,
    pub(super) repos: Vec<Repo>,
    pub(super) repo_by_name: BTreeMap<Arc<str>, RepoKey>,
    /// Repositories by the names that they had before.
    pub(super) moved: BTreeMap<Arc<str>, RepoKey>,
    pub(super) app: SimulatedApp,
    /// Tokens that were given out for downloads from an Enterprise Server, and until when each can be used.
    pub(super) download_tokens: BTreeMap<String, Time>,
    pub(super) kept_lists: FxHashMap<u64, KeptList>,
    pub(super) runs: BTreeMap<u64, Run>,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) minted: u64,
    pub(super) credentials: BTreeMap<String, RunnerKey>,
    pub(super) sandboxes: Vec<Sandbox>,
    pub(super) sandbox_by_id: BTreeMap<Arc<str>, SandboxKey>,
    pub(super) live: BTreeSet<SandboxKey>,
    /// The live ones and those that ended a moment ago.
    pub(super) listed: BTreeSet<SandboxKey>,
    pub(super) objects: Objects,
    pub(super) modal_answers: Answers,
    /// How the list that is being answered goes wrong.
    pub(super) bend: Bend,
    pub(super) tokens: BTreeMap<Arc<str>, GithubLimiter>,
    /// Personal tokens that are refused, by their fingerprints, and from when on.
    pub(super) revoked: BTreeMap<Arc<str>, Time>,
    pub(super) creates: CreateLimiter,
    /// Counts answers, so that each draws its own lag.
    pub(super) answers: u64,
    /// The same of lists that show ended sandboxes as well.
    pub(super) ended_answers: u64,
    pub(super) faults: Faults,
    pub(super) mishaps: Mishaps,
    pub(super) knobs: Knobs,
    /// The process whose call is being answered; 0 where that is not known.
    pub(super) caller: u32,
    pub(super) crashes: Vec<Crash>,
    /// How many sandboxes the list holds that is being answered.
    pub(super) rows_listed: usize,
    history: History,
}

impl State {
    /// Writes a line of the history.
    pub(super) fn record(&mut self, what: What) {
        self.history.push(self.now, what);
    }
}

/// Counts of what is there now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Jobs that have not appeared yet, because it is not their time or a job before them has not ended.
    pub jobs_to_come: usize,
    /// Jobs that wait for an approval.
    pub jobs_waiting: usize,
    /// Jobs that are queued.
    pub jobs_queued: usize,
    /// Jobs that run.
    pub jobs_in_progress: usize,
    /// Jobs that have ended.
    pub jobs_completed: usize,
    /// Jobs that are expected to be served and have not ended.
    pub expected_jobs_open: usize,
    /// Registered runners, other people's included.
    pub runners: usize,
    /// Live sandboxes, other people's included.
    pub sandboxes_live: usize,
    /// Modal Secrets that exist.
    pub secrets: usize,
    /// Lines of the history.
    pub events: usize,
}

impl World {
    /// Makes a World at the clock's time. The scenario's own knobs and faults are applied to `profile`.
    ///
    /// # Errors
    /// [`ScenarioError`] where the scenario, its knobs or its faults cannot be.
    pub fn try_new(profile: Profile, scenario: Scenario, seed: u64, clock: Clock) -> Result<Self, ScenarioError> {
        scenario.check()?;
        let profile = profile.overridden(&scenario.profile)?;
        let now = clock.now();
        let mut state = State {
            seed: Seed::new(seed),
            start: now,
            now,
            due: BTreeMap::new(),
            planned: 0,
            postponed: BTreeMap::new(),
            repos: Vec::new(),
            repo_by_name: BTreeMap::new(),
            moved: BTreeMap::new(),
            app: SimulatedApp::default(),
            download_tokens: BTreeMap::new(),
            kept_lists: FxHashMap::default(),
            runs: BTreeMap::new(),
            jobs: BTreeMap::new(),
            minted: 0,
            credentials: BTreeMap::new(),
            sandboxes: Vec::new(),
            sandbox_by_id: BTreeMap::new(),
            live: BTreeSet::new(),
            listed: BTreeSet::new(),
            objects: Objects::given(&scenario, now),
            modal_answers: Answers::default(),
            bend: Bend::default(),
            tokens: BTreeMap::new(),
            revoked: BTreeMap::new(),
            creates: CreateLimiter::new(now, &profile),
            answers: 0,
            ended_answers: 0,
            caller: 0,
            crashes: Vec::new(),
            rows_listed: 0,
            faults: Faults::default(),
            mishaps: Mishaps::default(),
            knobs: Knobs::new(profile.clone()),
            history: History::default(),
            profile,
            scenario: Scenario::default(),
        };
        state.begin(seed, &scenario);
        state.populate(scenario)?;
        Ok(Self { shared: Arc::new(Shared { state: Mutex::new(state), clock }) })
    }

    /// [`World::try_new`] for a scenario that has been checked.
    ///
    /// # Panics
    /// Where the scenario cannot be.
    pub fn new(profile: Profile, scenario: Scenario, seed: u64, clock: Clock) -> Self {
        Self::try_new(profile, scenario, seed, clock).expect("the scenario has been checked")
    }

    /// Looks at the state as of now: everything that is due has happened.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(self.shared.clock.now());
        look(&mut state)
    }

    /// The World's clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// How its services behave.
    pub fn profile(&self) -> Profile {
        self.with(|state| state.profile.clone())
    }

    /// What happens in it by itself, jobs added later included.
    pub fn scenario(&self) -> Scenario {
        self.with(|state| state.scenario.clone())
    }

    /// The history from event number `since` on.
    pub fn history(&self, since: u64) -> Vec<Event> {
        self.with(|state| state.history.since(since).to_vec())
    }

    /// Writes the history down: all events so far, and each further one as it happens.
    ///
    /// # Errors
    /// Where the events so far cannot be written.
    pub fn write_history(&self, writer: impl Write + Send + 'static) -> io::Result<()> {
        self.with(|state| state.history.write_to(Box::new(writer)))
    }

    /// Notes the limits that the run is to be judged by; nothing here enforces them.
    pub fn state_limits(&self, limits: StatedLimits) {
        self.with(|state| state.record(What::LimitsStated { limits }));
    }

    /// Notes what happened to the controller that calls as the process `client`; 0 where it has no number.
    pub fn note_controller(&self, client: u32, change: ControllerChange) {
        self.with(|state| state.record(What::ControllerChanged { client, change }));
    }

    /// What the history tells so far.
    pub fn report(&self) -> Report {
        self.with(|state| {
            let mut report = Report::from_history(state.history.since(0), &state.scenario);
            report.profile.clone_from(&state.profile.name);
            report
        })
    }

    /// GitHub's side, to be called without a socket.
    pub fn github_service(&self) -> axum::Router {
        super::github::router(self.clone())
    }

    /// Modal's side as a tower service, to be called without a socket.
    pub fn modal_service(&self) -> ModalEndpoint {
        modal::endpoint(self.clone())
    }

    /// Counts of what is there now.
    pub fn summary(&self) -> Summary {
        self.with(|state| state.summary())
    }

    /// Adds jobs whose arrivals count from now.
    ///
    /// # Errors
    /// [`ScenarioError`] for a job that cannot be or whose id is taken; nothing is added then.
    pub fn add_jobs(&self, jobs: Vec<ScenarioJob>) -> Result<(), ScenarioError> {
        self.add_runs(Vec::new(), jobs)
    }

    /// The same with runs of which there is more to say; they must be new.
    ///
    /// # Errors
    /// [`ScenarioError`] for a run or job that cannot be or whose id is taken; nothing is added then.
    pub fn add_runs(&self, runs: Vec<ScenarioRun>, jobs: Vec<ScenarioJob>) -> Result<(), ScenarioError> {
        self.with(|state| {
            let added = Scenario { jobs, runs, ..Scenario::default() };
            added.check()?;
            if let Some(taken) = added.runs.iter().find(|run| state.runs.contains_key(&run.id)) {
                return Err(ScenarioError::Run { run: taken.id, reason: "its id is taken" });
            }
            if let Some(taken) = added.jobs.iter().find(|job| state.jobs.contains_key(&job.id)) {
                return Err(ScenarioError::Job { job: taken.id, reason: "its id is taken" });
            }
            let now = state.now;
            state.add_runs(&added);
            state.add_jobs(&added.jobs, now);
            state.scenario.runs.extend(added.runs);
            state.scenario.jobs.extend(added.jobs);
            state.advance(now);
            Ok(())
        })
    }

    /// Puts a fault in, in full or by its name.
    ///
    /// # Errors
    /// [`InvalidFault`] where it could never happen.
    pub fn add_fault(&self, fault: impl Into<FaultRequest>) -> Result<(), InvalidFault> {
        let request = fault.into();
        self.with(|state| state.put_in(&request))
    }

    /// Takes all faults out: nothing new goes wrong. What a fault has already brought about takes its course,
    /// so that a call that was put off is still carried out.
    pub fn clear_faults(&self) {
        self.with(State::clear_faults);
    }

    /// Makes GitHub refuse a token from now on.
    pub fn revoke_token(&self, token: &str) {
        self.revoke_token_in(token, 0.0);
    }

    /// Makes GitHub refuse a token after `secs`.
    pub fn revoke_token_in(&self, token: &str, secs: f64) {
        self.with(|state| state.revoke(token, secs));
    }

    /// Moves the clock forward and lets happen what becomes due.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
        self.with(|state| state.record(What::ClockAdvanced { seconds: by.as_secs_f64() }));
    }
}

impl State {
    fn begin(&mut self, seed: u64, scenario: &Scenario) {
        let repos = scenario.allowed_repos().iter().map(|repo| repo.to_string().into()).collect();
        let profile = Box::new(self.profile.clone());
        let organizations = scenario.organizations.iter().map(|org| org.name.to_lowercase().into()).collect();
        self.record(What::Began { seed, repos, organizations, profile });
    }

    fn populate(&mut self, scenario: Scenario) -> Result<(), InvalidFault> {
        for repo in &scenario.repos {
            let key = self.repo_key(&repo.name);
            self.set_about(key, repo.about.clone());
        }
        for organization in &scenario.organizations {
            self.add_organization(organization);
        }
        let now = self.now;
        self.add_runs(&scenario);
        self.add_jobs(&scenario.jobs, now);
        for foreign in &scenario.foreign_runners {
            let repo = self.repo_key(&foreign.repo);
            let key = self.register(repo, &foreign.name, Labels::new(&foreign.labels), Lifetime::Permanent);
            if foreign.online {
                self.connect(key, None);
            }
        }
        for fault in &scenario.faults {
            self.put_in(fault)?;
        }
        self.install_app(&scenario.installations);
        self.scenario = scenario;
        self.know_first_release();
        Ok(())
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary {
            sandboxes_live: self.live.len(),
            events: self.history.since(0).len(),
            secrets: self.secrets_left(),
            runners: self
                .repos
                .iter()
                .flat_map(|repo| repo.runners.values())
                .filter(|runner| runner.is_registered())
                .count(),
            ..Summary::default()
        };
        let expected = self.scenario.expected_jobs();
        for (id, job) in &self.jobs {
            let is_open = !matches!(job.state(), Some(JobState::Completed(_)));
            summary.expected_jobs_open += usize::from(is_open && expected.contains(id));
            *match job.state() {
                None => &mut summary.jobs_to_come,
                Some(JobState::Waiting) => &mut summary.jobs_waiting,
                Some(JobState::Queued) => &mut summary.jobs_queued,
                Some(JobState::InProgress) => &mut summary.jobs_in_progress,
                Some(JobState::Completed(_)) => &mut summary.jobs_completed,
            } += 1;
        }
        summary
    }
}
