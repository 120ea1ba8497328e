//! The truth, put together from the history: jobs, attempts to serve them, sandboxes, readings, controllers.
//!
//! Nothing is judged here.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono::TimeDelta;

use super::event::{Call, Caller, Change, Limits, Line, Operation, Profile, Service, Time, What, code, seconds};
use super::readings::Readings;
use super::{OurNames, Rules};

pub(crate) use super::entries::{Answer, Attempt, Done, Group, Job, Mark, Process, Sandbox, Stage};

/// Why a job is nobody's need: it asks for nothing that there is, or strangers had a hand in it.
const NO_NEEDS: [&str; 4] = ["no_opt_in_label", "unknown_label", "fork", "public_repo"];

/// The jobs and attempts of a group.
#[derive(Debug, Default)]
pub(crate) struct GroupBook {
    pub(crate) jobs: Vec<u64>,
    pub(crate) attempts: Vec<usize>,
}

/// Everything that a history has told so far.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) profile: Profile,
    /// Organizations in which runners are registered instead of in their repositories.
    organizations: Vec<String>,
    /// The allow-listed repositories, where the history names them.
    pub(crate) allowed: Option<Vec<String>>,
    pub(crate) limits: Limits,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) groups: BTreeMap<Group, GroupBook>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Whether lists of sandboxes show the same time for several now.
    has_ties: bool,
    /// Live sandboxes of ours.
    pub(crate) live: Vec<usize>,
    pub(crate) readings: Readings,
    /// What the call on this line brought about, and who called.
    pub(crate) done: Option<(Done, Process)>,
    /// The last moment at which something went wrong from outside: a fault, a kill.
    pub(crate) disturbed_at: Option<Time>,
    pub(crate) now: Time,
    /// How many controllers run at a time.
    pub(crate) controllers: usize,
    /// How long lists may go unread.
    pub(crate) unread_within: TimeDelta,
    /// How long recovery may take after the last disturbance.
    pub(crate) recover_within: TimeDelta,
    by_name: BTreeMap<(Rc<str>, Rc<str>), usize>,
    by_runner: BTreeMap<(Rc<str>, u64), usize>,
    by_config: BTreeMap<String, usize>,
    by_sandbox: BTreeMap<Rc<str>, usize>,
    /// When calls and answers were held back between controllers and services.
    cuts: Vec<(Time, Option<Time>)>,
    /// The faults since the last call; one of them may have struck the call that follows.
    strikes: Vec<(Operation, String)>,
    /// What happened since the last call, which the call that follows may have brought about.
    fresh: Vec<Done>,
    /// How often in a row GitHub refused a token and named no time, and until when the pause after that lasts.
    untold: BTreeMap<String, (u32, Time)>,
    /// How often each caller was started anew, and when it last was.
    lives: BTreeMap<Caller, (usize, Time)>,
    /// When a caller's process started that runs now; none where that is not known.
    started: BTreeMap<Caller, Time>,
    names: BTreeSet<Rc<str>>,
    ours: OurNames,
}

impl Book {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            profile: Profile::default(),
            organizations: Vec::new(),
            allowed: None,
            limits: rules.limits.clone(),
            jobs: BTreeMap::new(),
            groups: BTreeMap::new(),
            attempts: Vec::new(),
            sandboxes: Vec::new(),
            has_ties: false,
            live: Vec::new(),
            readings: Readings::default(),
            done: None,
            disturbed_at: None,
            now: Time::UNIX_EPOCH,
            controllers: rules.controllers,
            unread_within: rules.unread_within,
            recover_within: rules.recover_within,
            by_name: BTreeMap::new(),
            by_runner: BTreeMap::new(),
            by_config: BTreeMap::new(),
            by_sandbox: BTreeMap::new(),
            cuts: Vec::new(),
            strikes: Vec::new(),
            fresh: Vec::new(),
            untold: BTreeMap::new(),
            lives: BTreeMap::new(),
            started: BTreeMap::new(),
            names: BTreeSet::new(),
            ours: rules.names.clone(),
        }
    }

    /// Takes a line; a call gets the fault that struck it.
    pub(crate) fn take(&mut self, line: &mut Line) {
        let mark = Mark { seq: line.seq, at: line.at };
        self.now = line.at;
        self.done = None;
        match &mut line.what {
            What::Began { repos, organizations, profile } => {
                self.profile = profile.clone();
                self.allowed = Some(repos.iter().chain(&*organizations).cloned().collect());
                self.organizations.clone_from(organizations);
            }
            What::LimitsStated { limits } => {
                // What the checker itself was told wins.
                let mut stated = limits.clone();
                stated.override_with(self.limits.clone());
                self.limits = stated;
            }
            What::ControllerChanged { client, change } => match change {
                Change::Started => {
                    self.born(*client, mark.at);
                    self.started.insert(Caller::of(*client), mark.at);
                }
                Change::Killed => {
                    self.disturb(mark.at);
                    self.started.remove(&Caller::of(*client));
                }
                Change::CutOff => {
                    self.disturb(mark.at);
                    self.cuts.push((mark.at, None));
                }
                Change::Connected => {
                    self.disturb(mark.at);
                    self.cuts.iter_mut().for_each(|(_, until)| *until = until.or(Some(mark.at)));
                }
                Change::Stopped => {}
            },
            What::ClientKilled { client } => {
                self.disturb(mark.at);
                self.born(*client, mark.at);
            }
            What::FaultStruck { operation, mode } => {
                self.disturb(mark.at);
                self.strikes.push((*operation, mode.clone()));
            }
            What::FaultsCleared => self.disturb(mark.at),
            What::KnobsChanged { knobs } => {
                self.disturb(mark.at);
                self.take_knobs(knobs);
            }
            What::Call(call) => self.take_call(mark, call),
            What::JobQueued { .. } | What::JobHeld { .. } | What::JobAssigned { .. } | What::JobCompleted { .. } => {
                self.take_job(mark, &line.what);
            }
            What::RunnerRegistered { .. } | What::RunnerOnline { .. } | What::RunnerRemoved { .. } => {
                self.take_runner(mark, &line.what);
            }
            What::SandboxCreated { .. }
            | What::SandboxScheduled { .. }
            | What::TerminateAsked { .. }
            | What::SandboxEnded { .. } => self.take_sandbox(mark, &line.what),
            What::RunnerDeleteAsked { .. } | What::SecretChanged { .. } | What::Other => {}
        }
    }

    fn disturb(&mut self, until: Time) {
        self.disturbed_at = Some(self.disturbed_at.map_or(until, |at| at.max(until)));
    }

    /// A caller was started anew, or died: whatever calls in its name from now on is another process.
    fn born(&mut self, client: u32, at: Time) {
        let life = self.lives.entry(Caller::of(client)).or_insert((0, at));
        *life = (life.0 + 1, at);
    }

    /// The process that calls now.
    pub(crate) fn process(&self, call: &Call) -> Process {
        let caller = call.caller();
        Process { caller, life: self.lives.get(&caller).map_or(0, |(life, _)| *life) }
    }

    /// Whether a process is surely dead.
    pub(crate) fn has_died(&self, process: Option<&Process>) -> bool {
        process.is_none_or(|process| self.lives.get(&process.caller).is_some_and(|(life, _)| *life > process.life))
    }

    /// When the process of a caller was started, where another one was before.
    pub(crate) fn born_at(&self, caller: Caller) -> Option<Time> {
        self.lives.get(&caller).map(|(_, at)| *at)
    }

    /// When the process of a caller started, if it is known to run.
    pub(crate) fn started_at(&self, caller: Caller) -> Option<Time> {
        self.started.get(&caller).copied()
    }

    /// The lags that faults have put in; a knob keeps its widest value, because what is known from before
    /// it was put back may still be old.
    fn take_knobs(&mut self, knobs: &BTreeMap<String, serde_json::Value>) {
        let widest = |knob: &str, field: &mut f64| {
            if let Some(value) = knobs.get(knob).and_then(serde_json::Value::as_f64) {
                *field = field.max(value);
            }
        };
        self.has_ties = knobs.get("modal_created_at_step_secs").and_then(serde_json::Value::as_f64) > Some(0.0);
        widest("github_list_lag_secs", &mut self.profile.github_list_lag_secs);
        widest("modal_list_lag_secs", &mut self.profile.modal_list_lag_secs);
        let late = knobs.get("runner_visible_secs").and_then(|span| span.get(1)?.as_f64());
        self.profile.runner_visible_secs[1] = self.profile.runner_visible_secs[1].max(late.unwrap_or_default());
    }

    /// Whoever is asked to wait does nothing until then. Whoever GitHub refuses without a time waits a minute, and twice as
    /// long each time that it is refused again, up to a quarter of an hour (GitHub docs: rate limits).
    fn take_pause(&mut self, at: Time, call: &Call) {
        let is_limited = call.limited.is_some();
        if let Some(wait) = call.wait_secs.filter(|_| is_limited) {
            self.disturb(at + seconds(wait));
            return;
        }
        if call.service != Service::Github {
            return;
        }
        let (in_a_row, until) = self.untold.entry(call.token.clone()).or_insert((0, at));
        // What is refused together is one refusal.
        if at >= *until {
            *in_a_row = if is_limited { *in_a_row + 1 } else { 0 };
            let pause = TimeDelta::minutes(1) * (1 << in_a_row.saturating_sub(1).min(4));
            *until = if is_limited { at + pause.min(TimeDelta::minutes(15)) } else { at };
        }
        let until = *until;
        if is_limited {
            self.disturb(until);
        }
    }

    fn take_call(&mut self, mark: Mark, call: &mut Call) {
        let strikes = std::mem::take(&mut self.strikes);
        let own = strikes.into_iter().rev().find(|(operation, _)| *operation == call.operation);
        call.fault = own.map(|(_, mode)| mode);
        let has_edges = call.more || call.page.is_some_and(|page| page > 1);
        if self.has_ties && has_edges && call.operation == Operation::ListSandboxes {
            // The edges of pages lose what has the same time as the last entry, and nobody can know it.
            call.fault = Some("page_edge_ties".to_owned());
        }
        self.readings.take(mark, call);
        self.take_pause(mark.at, call);
        let answer = Answer { mark, call: Rc::new(call.clone()) };
        let fresh = std::mem::take(&mut self.fresh);
        let done = fresh.into_iter().rev().find(|done| self.is_brought_about(*done, call));
        self.done = done.map(|done| (done, self.process(call)));
        match call.operation {
            Operation::Mint => {
                if let Some((Done::Minted(index), process)) = &self.done {
                    let attempt = &mut self.attempts[*index];
                    attempt.mint = Some(answer);
                    attempt.process = Some(*process);
                } else if call.status == code::CONFLICT && call.fault.is_none() {
                    let process = self.process(call);
                    if let Some(index) = self.attempt_named(&call.subject, &call.target) {
                        self.attempts[index].taken_told.push(process);
                    }
                }
            }
            Operation::DeleteRunner => {
                let id = call.target.parse().unwrap_or_default();
                let key = (Rc::from(call.subject.as_str()), id);
                if let Some(index) = self.by_runner.get(&key) {
                    self.attempts[*index].deletes.push(answer);
                }
            }
            Operation::Secret => {
                // It is called after the registration whose config it holds: name and id.
                let name = call.target.rsplit_once('-').map(|(name, _)| name);
                let tried = self.attempts.iter_mut().rev().find(|attempt| Some(&*attempt.name) == name);
                if let Some(attempt) = tried {
                    attempt.secrets.push(answer);
                }
            }
            Operation::Create => {
                let name: Rc<str> = call.target.as_str().into();
                let tried = self.attempts.iter_mut().rev().find(|attempt| attempt.name == name);
                if let Some(attempt) = tried {
                    attempt.creates.push(answer);
                }
            }
            Operation::Wait if call.status == code::NOT_FOUND => {
                let sandbox = self.by_sandbox.get(call.target.as_str());
                if let Some(attempt) = sandbox.and_then(|index| self.sandboxes[*index].attempt) {
                    let told = &mut self.attempts[attempt].gone_told;
                    told.get_or_insert((mark.at, mark.at)).1 = mark.at;
                }
            }
            _ => {}
        }
    }

    fn is_brought_about(&self, done: Done, call: &Call) -> bool {
        match (done, call.operation) {
            (Done::Minted(index), Operation::Mint) => *self.attempts[index].name == *call.target,
            (Done::Created(index), Operation::Create) => *self.sandboxes[index].name == *call.target,
            (Done::Terminated(index), Operation::Terminate) => *self.sandboxes[index].id == *call.target,
            _ => false,
        }
    }

    /// Where the runners of a repository are registered.
    fn registry(&mut self, repo: &str) -> Rc<str> {
        let owner = repo.split_once('/').map(|(owner, _)| owner);
        let organization = self.organizations.iter().find(|name| Some(name.as_str()) == owner).cloned();
        self.shared(organization.as_deref().unwrap_or(repo))
    }

    /// Whether a repository, or an organization, is meant to have runners of ours, as far as the history says.
    pub(crate) fn is_allowed(&self, place: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|known| known == place))
    }

    /// How many runs of a repository had a job.
    pub(crate) fn runs_of(&self, repo: &str) -> usize {
        let of_repo = self.jobs.values().filter(|job| *job.repo == *repo);
        of_repo.map(|job| job.run).collect::<BTreeSet<u64>>().len()
    }

    /// The repository that an attempt was made for.
    pub(crate) fn repo_of<'a>(&'a self, attempt: &'a Attempt) -> &'a str {
        let job = self.ours.job_of(&attempt.name).and_then(|job| self.jobs.get(&job));
        job.map_or(&*attempt.group.0, |job| &*job.repo)
    }

    fn take_job(&mut self, mark: Mark, what: &What) {
        match what {
            What::JobQueued { job, run, repo, labels, skip, .. } => {
                let group = (self.registry(repo), self.shared(&label_set(labels)));
                if skip.as_deref().is_none_or(|skip| !NO_NEEDS.contains(&skip)) {
                    self.groups.entry(group.clone()).or_default().jobs.push(*job);
                }
                let repo = self.shared(repo);
                let seen = Job { repo, group, run: *run, queued: mark, left: None, stage: Stage::Open, taker: None };
                self.jobs.insert(*job, seen);
            }
            What::JobHeld { job, why } => {
                if let Some(job) = self.jobs.get_mut(job).filter(|job| job.stage != Stage::Done) {
                    let is_left = why.as_deref() == Some("run_completed");
                    job.stage = if is_left { Stage::LeftBehind } else { Stage::Open };
                }
            }
            What::JobAssigned { job, runner, repo } => {
                let registry = self.registry(repo);
                let taker = self.attempt_named(&registry, runner);
                if let Some(job) = self.jobs.get_mut(job) {
                    job.left = Some(mark.at);
                    job.taker = job.taker.or(taker);
                }
                if let Some(index) = taker {
                    self.attempts[index].job = Some((mark.at, *job));
                }
            }
            What::JobCompleted { job, .. } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.left.get_or_insert(mark.at);
                    job.stage = Stage::Done;
                }
            }
            _ => {}
        }
    }

    fn take_runner(&mut self, mark: Mark, what: &What) {
        match what {
            What::RunnerRegistered { repo, runner_id, runner, labels, config } => {
                let (repo, name) = (self.shared(repo), self.shared(runner));
                let group = (Rc::clone(&repo), self.shared(&label_set(labels)));
                let index = self.attempts.len();
                self.groups.entry(group.clone()).or_default().attempts.push(index);
                self.by_name.insert((Rc::clone(&repo), Rc::clone(&name)), index);
                self.by_runner.insert((repo, *runner_id), index);
                self.by_config.insert(config.clone(), index);
                self.fresh.push(Done::Minted(index));
                self.attempts.push(Attempt {
                    group,
                    name,
                    registered: mark,
                    process: None,
                    mint: None,
                    secrets: Vec::new(),
                    creates: Vec::new(),
                    deletes: Vec::new(),
                    sandbox: None,
                    online: None,
                    job: None,
                    removed: None,
                    gone_told: None,
                    taken_told: Vec::new(),
                });
            }
            What::RunnerOnline { repo, runner } => {
                if let Some(index) = self.attempt_named(repo, runner) {
                    self.attempts[index].online = Some(mark.at);
                }
            }
            What::RunnerRemoved { repo, runner, .. } => {
                if let Some(index) = self.attempt_named(repo, runner) {
                    self.attempts[index].removed = Some(mark.at);
                }
            }
            _ => {}
        }
    }

    fn take_sandbox(&mut self, mark: Mark, what: &What) {
        match what {
            What::SandboxCreated { sandbox, name, gpu, gpus, config, tags, .. } => {
                let index = self.sandboxes.len();
                let attempt = config.as_ref().and_then(|config| self.by_config.get(config).copied());
                let id = self.shared(sandbox);
                if let Some(attempt) = attempt {
                    self.attempts[attempt].sandbox.get_or_insert(index);
                }
                let is_ours = config.is_some() && self.ours.job_of(name).is_some();
                if is_ours {
                    self.live.push(index);
                }
                self.by_sandbox.insert(Rc::clone(&id), index);
                self.fresh.push(Done::Created(index));
                self.sandboxes.push(Sandbox {
                    id,
                    name: self.names.get(name.as_str()).map_or_else(|| name.as_str().into(), Rc::clone),
                    is_ours,
                    is_gpu: *gpu,
                    gpus: usize::try_from(*gpus).expect("a few").max(usize::from(*gpu)),
                    class: tags.get("class").cloned().unwrap_or_default(),
                    secret: tags.get("secret").cloned(),
                    created: mark,
                    scheduled: (!gpu).then_some(mark.at),
                    ended: None,
                    end_status: 0,
                    terminate_asked: None,
                    attempt,
                });
            }
            What::SandboxScheduled { sandbox } => {
                if let Some(sandbox) = self.sandbox_mut(sandbox) {
                    sandbox.scheduled = Some(mark.at);
                }
            }
            What::TerminateAsked { sandbox, .. } => {
                if let Some(index) = self.by_sandbox.get(sandbox.as_str()) {
                    self.sandboxes[*index].terminate_asked.get_or_insert(mark);
                    self.fresh.push(Done::Terminated(*index));
                }
            }
            What::SandboxEnded { sandbox, status } => {
                let index = self.by_sandbox.get(sandbox.as_str()).copied();
                if let Some(index) = index {
                    let sandbox = &mut self.sandboxes[index];
                    (sandbox.ended, sandbox.end_status) = (Some(mark), *status);
                    self.live.retain(|live| *live != index);
                }
            }
            _ => {}
        }
    }

    /// The sandbox of an id.
    pub(crate) fn sandbox(&self, id: &str) -> Option<&Sandbox> {
        self.by_sandbox.get(id).map(|index| &self.sandboxes[*index])
    }

    fn sandbox_mut(&mut self, id: &str) -> Option<&mut Sandbox> {
        self.by_sandbox.get(id).map(|index| &mut self.sandboxes[*index])
    }

    /// The newest registration of a name.
    pub(crate) fn attempt_named(&self, repo: &str, runner: &str) -> Option<usize> {
        let key = (self.names.get(repo)?, self.names.get(runner)?);
        self.by_name.get(&(Rc::clone(key.0), Rc::clone(key.1))).copied()
    }

    /// The registration of an id.
    pub(crate) fn attempt_of(&self, repo: &str, runner_id: &str) -> Option<&Attempt> {
        let key = (Rc::clone(self.names.get(repo)?), runner_id.parse().ok()?);
        self.by_runner.get(&key).map(|index| &self.attempts[*index])
    }

    /// Whether calls of several processes look alike.
    pub(crate) fn is_ambiguous(&self, process: &Process) -> bool {
        self.controllers > 1 && process.caller == Caller::Unknown
    }

    /// Whether the answer to a call at that time may have been held back until nobody waited for it: an answer that
    /// was under way when the cut began, or one to a call that arrived a little after its end.
    pub(crate) fn is_cut(&self, at: Time) -> bool {
        let (before, after) = (TimeDelta::seconds(5), TimeDelta::seconds(2));
        self.cuts.iter().any(|(from, until)| at >= *from - before && until.is_none_or(|until| at <= until + after))
    }

    /// How long what was decided may take until it shows in the history.
    ///
    /// Usually an answer is known and acted upon within a second; where a fault has just struck, calls before
    /// the one that shows may be repeated, held or slow, each up to its deadline of 30 s.
    pub(crate) fn settle(&self) -> TimeDelta {
        let is_disturbed = self.disturbed_at.is_some_and(|at| self.now - at < TimeDelta::seconds(90));
        if is_disturbed { TimeDelta::seconds(62) } else { TimeDelta::seconds(2) }
    }

    /// How old what a list of GitHub's shows may be.
    pub(crate) fn github_lag(&self) -> TimeDelta {
        seconds(self.profile.github_list_lag_secs)
    }

    /// How old what a list of Modal's shows may be.
    pub(crate) fn modal_lag(&self) -> TimeDelta {
        seconds(self.profile.modal_list_lag_secs)
    }

    /// One copy of each text.
    fn shared(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.names.get(text) {
            return Rc::clone(known);
        }
        let text: Rc<str> = text.into();
        self.names.insert(Rc::clone(&text));
        text
    }
}

/// A label set as one text: folded, sorted, each label once.
fn label_set(labels: &[String]) -> String {
    let mut folded: Vec<String> = labels.iter().map(|label| label.to_lowercase()).collect();
    folded.sort_unstable();
    folded.dedup();
    folded.join(",")
}
