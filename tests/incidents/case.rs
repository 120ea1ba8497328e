//! One incident as a run of the whole controller, and what the run has to show.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sandrunner::config::Config;
use sandrunner::sim::{
    Cause, Crash, Event, FaultMode, FaultRequest, Operation, Profile, RemovalReason, Scenario, What, World,
};
use serde_json::{Value, json};

use crate::checker::{Rules, check};
use crate::lab::{Keeping, Lab, Next, epoch};

pub(crate) const REPO: &str = "acme/web";
pub(crate) const RUN: u64 = 7_000_000_000;
pub(crate) const JOB: u64 = 5_000_000_000;
const LABELS: &[&str] = &["self-hosted", "modal"];

/// How often a run is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For how long nothing may be changed at the end.
const QUIET: TimeDelta = TimeDelta::minutes(4);

/// A job of ours that arrives after the controller has looked around.
pub(crate) fn job(number: u64, duration_secs: f64) -> Value {
    json!({ "id": JOB + number, "run": RUN, "repo": REPO, "labels": LABELS, "arrival_secs": 30,
        "duration_secs": duration_secs })
}

/// A value with some of its fields replaced.
pub(crate) fn with(mut value: Value, fields: &Value) -> Value {
    for (field, new) in fields.as_object().expect("fields") {
        value[field] = new.clone();
    }
    value
}

/// What is played, and how it is judged.
pub(crate) struct Case {
    profile: Profile,
    scenario: Value,
    /// When each fault is put in, in seconds from the start.
    faults: Vec<(f64, FaultRequest)>,
    configure: Box<dyn FnOnce(&mut Config)>,
    crash: Option<Crash>,
    kills_at: Vec<f64>,
    keeping: Keeping,
    at_least_secs: f64,
    limit: Duration,
    rules: Rules,
}

impl Case {
    /// Jobs in one repository of a calm World, in which only what is asked for goes wrong.
    #[expect(clippy::needless_pass_by_value, reason = "each caller makes the list for it")]
    pub(crate) fn of(jobs: Vec<Value>) -> Self {
        Self {
            profile: Profile::calm(),
            // The image is there when the jobs come.
            scenario: json!({ "repos": [{ "name": REPO }], "jobs": jobs, "profile": { "image_build_secs": 1 } }),
            faults: Vec::new(),
            configure: Box::new(|_| {}),
            crash: None,
            kills_at: Vec::new(),
            keeping: Keeping::Nothing,
            at_least_secs: 0.0,
            limit: Duration::from_secs(3 * 3_600),
            rules: Rules::default(),
        }
    }

    /// So many jobs of one run, each of which takes so long.
    pub(crate) fn run_of(jobs: u64, duration_secs: f64) -> Self {
        Self::of((0..jobs).map(|number| job(number, duration_secs)).collect())
    }

    /// Something that goes wrong from the start: the name of a fault, or a fault with its limits.
    pub(crate) fn fault(self, fault: Value) -> Self {
        self.fault_at(0.0, fault)
    }

    /// The same, put in later.
    pub(crate) fn fault_at(mut self, secs: f64, fault: Value) -> Self {
        self.faults.push((secs, serde_json::from_value(fault).expect("a fault")));
        self
    }

    /// How a service behaves for the whole time.
    pub(crate) fn knob(mut self, name: &str, value: Value) -> Self {
        self.scenario["profile"][name] = value;
        self
    }

    /// A part of the scenario besides its jobs.
    pub(crate) fn part(mut self, name: &str, value: Value) -> Self {
        self.scenario[name] = value;
        self
    }

    pub(crate) fn configure(self, change: impl FnOnce(&mut Config) + 'static) -> Self {
        Self { configure: Box::new(change), ..self }
    }

    /// The most sandboxes at a time.
    pub(crate) fn at_most(self, sandboxes: u32) -> Self {
        self.configure(move |config| config.limits.max_sandboxes = sandboxes)
    }

    /// The controller is killed at a call, and started again at once.
    pub(crate) fn crash(self, crash: Crash) -> Self {
        Self { crash: Some(crash), ..self }
    }

    /// The controller is killed at a time, and started again at once.
    pub(crate) fn kill_at(mut self, secs: f64) -> Self {
        self.kills_at.push(secs);
        self
    }

    /// What the controller learns is kept in a directory, over its lives.
    pub(crate) fn with_state_dir(self) -> Self {
        Self { keeping: Keeping::All, ..self }
    }

    /// The run goes on for so long, whatever is done earlier.
    pub(crate) fn lasts(self, secs: f64) -> Self {
        Self { at_least_secs: secs, limit: self.limit.max(Duration::from_secs_f64(secs + 3_600.0)), ..self }
    }

    /// How long after the last fault the checker's clocks of waiting jobs begin to run.
    pub(crate) fn recovers_within(mut self, secs: i64) -> Self {
        self.rules.recover_within = TimeDelta::seconds(secs);
        self
    }

    /// Plays it until everything is done, nothing is left and nothing has been changed for minutes, and lets the
    /// checker judge it.
    pub(crate) async fn run(self) -> Story {
        let scenario: Scenario = serde_json::from_value(self.scenario).expect("a scenario");
        let foreign = (scenario.foreign_runners.len(), scenario.foreign_sandboxes.len());
        let lab = Lab::new(self.profile, scenario, 1).keeping(self.keeping).configure(self.configure);
        if let Some(crash) = self.crash {
            lab.world.crash_at(crash);
        }
        let (world, clock) = (lab.world.clone(), lab.clock.clone());
        let (mut faults, mut kills_at) = (self.faults, self.kills_at);
        let mut put_in = move |world: &World, now: f64| {
            faults.retain(|(at, fault)| {
                let is_due = *at <= now;
                if is_due {
                    world.add_fault(fault.clone()).expect("a fault that can happen");
                }
                !is_due
            });
        };
        put_in(&world, 0.0);
        let mut watch = Watch { read: 0, changed_at: epoch() };
        let looked = |world: &World| {
            let now = (clock.now() - epoch()).as_seconds_f64();
            put_in(world, now);
            if kills_at.first().is_some_and(|at| *at <= now) {
                kills_at.remove(0);
                return Next::Kill;
            }
            let changed_at = watch.changed_at(world);
            let summary = world.summary();
            let is_over = now >= self.at_least_secs
                && kills_at.is_empty()
                && (summary.expected_jobs_open, summary.runners, summary.sandboxes_live) == (0, foreign.0, foreign.1)
                && clock.now() - changed_at > QUIET;
            if is_over { Next::End } else { Next::GoOn }
        };
        let outcome = lab.drive(self.limit, LOOK_EVERY, looked).await;
        Story::of(outcome.history, self.rules)
    }
}

/// Whether a call may change something; what only looks an App or an image up comes at any time.
fn changes(operation: Operation) -> bool {
    operation.is_write() && !matches!(operation, Operation::App | Operation::Image | Operation::Volume)
}

/// Reads the history as it grows, for when something was last asked to be changed, or ended.
struct Watch {
    read: u64,
    changed_at: DateTime<Utc>,
}

impl Watch {
    fn changed_at(&mut self, world: &World) -> DateTime<Utc> {
        for event in world.history(self.read) {
            self.read += 1;
            let is_change = match &event.what {
                What::Call { operation, .. } => changes(*operation),
                What::SandboxEnded { .. } => true,
                _ => false,
            };
            if is_change {
                self.changed_at = event.at;
            }
        }
        self.changed_at
    }
}

/// A registration, a sandbox, or the end of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    /// In seconds from the start.
    pub(crate) at: f64,
    /// Of the runner and of its sandbox.
    pub(crate) name: String,
    /// The fingerprint of the JIT config; empty for the end of a sandbox.
    pub(crate) config: String,
}

/// What happened.
pub(crate) struct Story {
    events: Vec<Event>,
}

/// Modal's status of a sandbox that reached its timeout.
pub(crate) const TIMED_OUT: i32 = 4;

impl Story {
    /// The checker must have nothing to say.
    fn of(events: Vec<Event>, rules: Rules) -> Self {
        let lines: Vec<String> =
            events.iter().map(|event| serde_json::to_string(event).expect("events are JSON") + "\n").collect();
        if let Some(path) = std::env::var_os("INCIDENT_HISTORY") {
            std::fs::write(path, lines.concat()).expect("the history can be written");
        }
        let story = Self { events };
        let violations: Vec<String> = check(&lines.concat(), rules).iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "{violations:#?}\n{}", story.told());
        story
    }

    pub(crate) fn all<'a, T>(&'a self, mut of: impl FnMut(f64, &'a What) -> Option<T>) -> Vec<T> {
        let at = |event: &Event| (event.at - epoch()).as_seconds_f64();
        self.events.iter().filter_map(|event| of(at(event), &event.what)).collect()
    }

    /// When each call was answered, with its status and what it was about.
    pub(crate) fn calls(&self, of: Operation) -> Vec<(f64, u16, &str)> {
        self.all(|at, what| match what {
            What::Call { operation, status, target, .. } if *operation == of => Some((at, *status, target.as_str())),
            _ => None,
        })
    }

    /// When faults of a mode took effect.
    pub(crate) fn struck(&self, wanted: FaultMode) -> Vec<f64> {
        self.all(|at, what| matches!(what, What::FaultStruck { mode, .. } if *mode == wanted).then_some(at))
    }

    /// When the controller was killed at a call.
    pub(crate) fn killed(&self) -> Vec<f64> {
        self.all(|at, what| matches!(what, What::ClientKilled { .. }).then_some(at))
    }

    /// Registrations.
    pub(crate) fn mints(&self) -> Vec<Mark> {
        self.all(|at, what| match what {
            What::RunnerRegistered { runner, config, .. } => {
                Some(Mark { at, name: runner.clone(), config: config.clone() })
            }
            _ => None,
        })
    }

    /// Sandboxes.
    pub(crate) fn creates(&self) -> Vec<Mark> {
        self.all(|at, what| match what {
            What::SandboxCreated { name, config, .. } => {
                Some(Mark { at, name: name.clone(), config: config.clone().unwrap_or_default() })
            }
            _ => None,
        })
    }

    /// Ends of sandboxes of a name, each with Modal's status and the exit code.
    pub(crate) fn ended(&self, wanted: &str) -> Vec<(f64, i32, i32)> {
        self.all(|at, what| match what {
            What::SandboxEnded { name, status, exit_code, .. } if name == wanted => Some((at, *status, *exit_code)),
            _ => None,
        })
    }

    /// When a runner connected.
    pub(crate) fn online(&self, wanted: &str) -> f64 {
        let online =
            self.all(|at, what| matches!(what, What::RunnerOnline { runner, .. } if runner == wanted).then_some(at));
        *online.first().unwrap_or_else(|| panic!("{wanted} never came online\n{}", self.told()))
    }

    /// When the registration of a name ended, and why.
    pub(crate) fn removed(&self, wanted: &str) -> Option<(f64, RemovalReason)> {
        let removed = self.all(|at, what| match what {
            What::RunnerRemoved { runner, reason, .. } if runner == wanted => Some((at, *reason)),
            _ => None,
        });
        removed.first().copied()
    }

    /// `DELETE runner`: whether each was carried out.
    pub(crate) fn deletes(&self) -> Vec<(f64, &str, bool)> {
        self.all(|at, what| match what {
            What::RunnerDeleteAsked { runner, deleted, .. } => Some((at, runner.as_str(), *deleted)),
            _ => None,
        })
    }

    /// `SandboxTerminate` of sandboxes that lived.
    pub(crate) fn terminations(&self) -> Vec<(f64, &str)> {
        self.all(|at, what| match what {
            What::TerminateAsked { name, .. } => Some((at, name.as_str())),
            _ => None,
        })
    }

    /// When a job was queued.
    pub(crate) fn queued(&self, number: u64) -> f64 {
        let queued =
            self.all(|at, what| matches!(what, What::JobQueued { job, .. } if *job == JOB + number).then_some(at));
        *queued.first().unwrap_or_else(|| panic!("job {number} was never queued"))
    }

    /// When runners got a job, and which.
    pub(crate) fn taken(&self, number: u64) -> Vec<(f64, &str)> {
        self.all(|at, what| match what {
            What::JobAssigned { job, runner, .. } if *job == JOB + number => Some((at, runner.as_str())),
            _ => None,
        })
    }

    /// How a job ended.
    pub(crate) fn cause(&self, number: u64) -> Option<Cause> {
        let ends = self.all(|_, what| match what {
            What::JobCompleted { job, cause, .. } if *job == JOB + number => Some(*cause),
            _ => None,
        });
        ends.first().copied()
    }

    /// A job ran to its end, and waited for a runner at most so long.
    pub(crate) fn served_within(&self, number: u64, secs: f64) {
        let waited = self.taken(number).first().map(|(at, _)| at - self.queued(number));
        assert!(waited.is_some_and(|waited| waited <= secs), "job {number} waited {waited:?} s\n{}", self.told());
        assert_eq!(self.cause(number), Some(Cause::Ran), "job {number}\n{}", self.told());
    }

    /// Nothing was ended by the controller, neither a registration nor a sandbox.
    pub(crate) fn nothing_ended(&self) {
        let calls = (self.calls(Operation::DeleteRunner), self.calls(Operation::Terminate));
        assert_eq!(calls, (Vec::new(), Vec::new()), "{}", self.told());
    }

    /// The run as lines, without its readings.
    pub(crate) fn told(&self) -> String {
        let is_reading = |what: &What| {
            matches!(what, What::Call { operation, .. } if !changes(*operation)) || matches!(what, What::Began { .. })
        };
        let lines = self.all(|at, what| {
            (!is_reading(what)).then(|| format!("{at:9.2} {}", serde_json::to_string(what).expect("JSON")))
        });
        lines.join("\n")
    }
}
