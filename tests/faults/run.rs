//! One virtual run, judged by the checker while it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rustc_hash::FxHasher;
use sandrunner::cost::Entry;
use sandrunner::ids::OurName;
use sandrunner::sim::{FaultMode, Mishap, Operation, What, World};
use sandrunner::state_dir::read_costs;
use tempfile::TempDir;

use crate::checker::{Checker, Clocks, Rules, Violation};
use crate::lab::{Keeping, Next, epoch};
use crate::nudge::Messenger;
use crate::setup::Setup;

/// How often the run is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From one sweep to the next where the quota is large, with the time that it takes.
pub(crate) const SWEPT: TimeDelta = TimeDelta::seconds(10 * 60 + 20);

/// By which part of a sandbox's cost its account may be wrong.
const COST_WITHIN: f64 = 1e-3;

/// A sandbox that lived no longer may be on no list, or be shown without a machine: lists are read every ten seconds, and lag.
const UNSEEN_LIFE: TimeDelta = TimeDelta::seconds(20);

/// How a run is judged and when it ends.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// How long after the last fault the clocks of waiting jobs begin to run.
    pub(crate) recover_within: TimeDelta,
    /// How long a job may wait then with nothing in its way.
    pub(crate) serve_within: TimeDelta,
    /// How long a re-run may go unread beside, which the pages that are read do not show.
    pub(crate) swept_within: TimeDelta,
    /// For how long nothing may happen at the end.
    pub(crate) quiet: TimeDelta,
    /// When the run is cut off. What is not done and clean by then never will be.
    pub(crate) limit: Duration,
    /// How long faults are put in: the run goes on at least until then.
    pub(crate) at_least: TimeDelta,
    /// Whether the history is kept as text.
    pub(crate) keep: Keep,
}

/// Whether the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    No,
    Yes,
}

/// A call of a run: which, how often before, and in which phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Called {
    pub(crate) operation: Operation,
    /// By which controller.
    pub(crate) client: u32,
    /// When, in seconds from the start.
    pub(crate) at: f64,
    /// How many changes of jobs, runners and sandboxes came before.
    pub(crate) phase: usize,
    /// Whether a fault struck it.
    pub(crate) is_struck: bool,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) violations: Vec<Violation>,
    /// How often each fault struck; `None` stands for a kill at a call.
    pub(crate) struck: BTreeMap<(Operation, Option<FaultMode>), u32>,
    /// How often each thing befell a machine.
    pub(crate) befallen: BTreeMap<Mishap, u32>,
    pub(crate) calls: Vec<Called>,
    /// When everything was done and clean, in seconds from the start.
    pub(crate) converged_at: Option<f64>,
    /// How long after the time of faults that was.
    pub(crate) settled_secs: Option<f64>,
    pub(crate) simulated_secs: f64,
    /// Of the history.
    pub(crate) hash: u64,
    pub(crate) history: String,
}

impl Run {
    /// Prints what it broke, at once: others go on for long.
    pub(crate) fn told(self, replay: &impl fmt::Display) -> Self {
        let lines = self.violations.iter().take(5).map(|violation| format!("\n    {violation}"));
        let lines: String = lines.collect();
        if !lines.is_empty() {
            println!("failed: cargo test --profile sim --test faults -- {replay}{lines}");
        }
        self
    }
}

/// Plays a run: `prepare` puts faults in, `meddle` may kill or end, asked whenever the run is looked at.
pub(crate) fn play(
    setup: &Setup,
    terms: &Terms,
    prepare: impl FnOnce(&World),
    meddle: impl FnMut(&World, f64) -> Next,
) -> Run {
    // One thread for what blocks, so that what is read from a state directory does not depend on chance.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).max_blocking_threads(1);
    if setup.keeping != Keeping::Nothing || setup.is_accounted {
        // For the signal that the state directory listens to; it costs a third of the speed.
        builder.enable_io();
    }
    let runtime = builder.build();
    runtime.expect("a runtime").block_on(drive(setup, terms, prepare, meddle))
}

async fn drive(
    setup: &Setup,
    terms: &Terms,
    prepare: impl FnOnce(&World),
    mut meddle: impl FnMut(&World, f64) -> Next,
) -> Run {
    let mut lab = setup.lab();
    let place = setup.is_accounted.then(|| TempDir::new().expect("a scratch directory"));
    if let Some(place) = &place {
        lab = lab.keeping_in(place.path());
    }
    prepare(&lab.world);
    let (world, clock) = (lab.world.clone(), lab.clock.clone());
    let messenger = Messenger::new(lab.nudges(), setup.lost_nudges, setup.seed);
    let mut watch = Watch::new(setup, terms, messenger);
    let mut kills_at = setup.kills_at.clone();
    let looked = |world: &World| {
        let now = (clock.now() - epoch()).as_seconds_f64();
        watch.read(world);
        if kills_at.first().is_some_and(|at| *at <= now) {
            kills_at.remove(0);
            return Next::Kill;
        }
        match meddle(world, now) {
            Next::GoOn if kills_at.is_empty() && watch.is_over(world, clock.now()) => Next::End,
            next @ (Next::GoOn | Next::Kill | Next::Jump(_) | Next::Suspend(_) | Next::End) => next,
        }
    };
    lab.drive(terms.limit, LOOK_EVERY, looked).await;
    watch.read(&world);
    let accounts = place.map(|place| accounts(place.path(), &watch.bills, clock.now()));
    let mut run = watch.finish(clock.now());
    run.violations.extend(accounts.into_iter().flatten());
    run
}

/// What Modal took for a sandbox that has ended.
#[derive(Debug, Clone, Copy)]
struct Bill {
    dollars: f64,
    lived: TimeDelta,
    /// Whether no list may show it.
    is_lost: bool,
}

/// Holds the cost files against what Modal took for each sandbox that has ended.
///
/// What an App held that was stopped is not judged: no list shows it. One that lived so shortly that no list showed it is accounted with the next that ends, which may not come. An estimate
/// may be too high: Modal had not said then that the sandbox never ran.
fn accounts(dir: &Path, bills: &BTreeMap<String, Bill>, now: DateTime<Utc>) -> Vec<Violation> {
    let costs = read_costs(dir, &"main".parse().expect("a name"), epoch()).expect("the directory of a run");
    let entries: BTreeMap<String, Entry> =
        costs.entries.into_iter().map(|entry| (entry.id.to_string(), entry)).collect();
    let wrong = bills.iter().filter_map(|(sandbox, Bill { dollars, lived, is_lost })| match entries.get(sandbox) {
        None if *lived <= UNSEEN_LIFE || *is_lost => None,
        None => Some(format!("{sandbox} took {dollars} USD and is not accounted")),
        Some(entry) if (entry.usd.dollars() - dollars).abs() <= dollars * COST_WITHIN => None,
        Some(entry) if entry.estimate && (entry.usd.dollars() > *dollars || *lived <= UNSEEN_LIFE) => None,
        Some(entry) => Some(format!("{sandbox} took {dollars} USD, and {entry:?} is accounted")),
    });
    let unknown = entries.keys().filter(|sandbox| !bills.contains_key(*sandbox));
    wrong
        .chain(unknown.map(|sandbox| format!("{sandbox} is accounted and has not ended")))
        .map(|text| Violation { invariant: "account", events: Vec::new(), at: now, text })
        .collect()
}

/// Reads the history as it grows.
struct Watch<'a> {
    terms: &'a Terms,
    checker: Checker,
    messenger: Messenger,
    hasher: FxHasher,
    read: u64,
    phase: usize,
    struck: BTreeMap<(Operation, Option<FaultMode>), u32>,
    befallen: BTreeMap<Mishap, u32>,
    calls: Vec<Called>,
    /// What a fault has just struck, whose call comes next.
    struck_last: Option<Operation>,
    /// When something was last changed, or went wrong.
    moved_at: DateTime<Utc>,
    converged_at: Option<DateTime<Utc>>,
    /// Somebody else's runners.
    foreign_runners: usize,
    /// Somebody else's sandboxes that live.
    foreign_sandboxes: BTreeSet<String>,
    /// When sandboxes were created.
    created: BTreeMap<String, DateTime<Utc>>,
    /// Those whose App was stopped.
    lost: BTreeSet<String>,
    /// What those of ours that have ended cost.
    bills: BTreeMap<String, Bill>,
    history: String,
}

impl<'a> Watch<'a> {
    fn new(setup: &Setup, terms: &'a Terms, messenger: Messenger) -> Self {
        let rules = Rules {
            recover_within: terms.recover_within,
            serve_within: terms.serve_within,
            unread_within: setup.unread_within(),
            swept_within: terms.swept_within,
            quiet: Some(terms.quiet),
            controllers: (setup.controllers + setup.joining) as usize,
            clocks: Clocks { schedule: setup.schedule_within, ..Rules::default().clocks },
            ..Rules::default()
        };
        Self {
            terms,
            checker: Checker::new(rules),
            messenger,
            hasher: FxHasher::default(),
            read: 0,
            phase: 0,
            struck: BTreeMap::new(),
            befallen: BTreeMap::new(),
            calls: Vec::new(),
            struck_last: None,
            moved_at: epoch(),
            converged_at: None,
            foreign_runners: setup.scenario.foreign_runners.len(),
            foreign_sandboxes: BTreeSet::new(),
            created: BTreeMap::new(),
            lost: BTreeSet::new(),
            bills: BTreeMap::new(),
            history: String::new(),
        }
    }

    fn read(&mut self, world: &World) {
        for event in world.history(self.read) {
            self.read += 1;
            let line = serde_json::to_string(&event).expect("events hold nothing that JSON cannot");
            self.hasher.write(line.as_bytes());
            self.checker.take(&line);
            self.messenger.tell(&event.what, event.at);
            if self.terms.keep == Keep::Yes {
                self.history.push_str(&line);
                self.history.push('\n');
            }
            self.note(event.at, &event.what);
        }
        self.messenger.deliver(world.clock().now());
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most events do not matter here")]
    fn note(&mut self, at: DateTime<Utc>, what: &What) {
        match what {
            What::Call { operation, client, .. } => {
                let secs = (at - epoch()).as_seconds_f64();
                let is_struck = self.struck_last.take_if(|struck| struck == operation).is_some();
                self.calls.push(Called {
                    operation: *operation,
                    client: *client,
                    at: secs,
                    phase: self.phase,
                    is_struck,
                });
                // What only looks an App or an image up may come at any time; what is said of a build comes of one.
                let is_lookup = matches!(operation, Operation::App | Operation::Image | Operation::Volume);
                let is_change = (operation.is_write() && !is_lookup) || *operation == Operation::ImageLog;
                if is_change {
                    self.moved_at = at;
                }
            }
            What::FaultStruck { operation, mode, .. } => {
                if *mode == FaultMode::AppStopped {
                    // No list shows what was in it, to whoever starts later.
                    for bill in self.bills.values_mut() {
                        bill.is_lost = true;
                    }
                    self.lost.extend(self.created.keys().cloned());
                }
                *self.struck.entry((*operation, Some(*mode))).or_default() += 1;
                self.struck_last = Some(*operation);
                self.moved_at = at;
            }
            What::ClientKilled { operation, .. } => {
                *self.struck.entry((*operation, None)).or_default() += 1;
                self.moved_at = at;
            }
            What::MachineStruck { mishap, .. } => {
                *self.befallen.entry(*mishap).or_default() += 1;
                self.moved_at = at;
            }
            What::FaultsCleared | What::KnobsChanged { .. } | What::ControllerChanged { .. } => self.moved_at = at,
            What::JobQueued { .. }
            | What::JobAssigned { .. }
            | What::JobCompleted { .. }
            | What::RunnerRegistered { .. }
            | What::RunnerOnline { .. }
            | What::RunnerRemoved { .. } => self.phase += 1,
            What::SandboxCreated { sandbox, config, name, .. } => {
                self.phase += 1;
                self.created.insert(sandbox.to_string(), at);
                if config.is_none() && name.parse::<OurName>().is_err() {
                    self.foreign_sandboxes.insert(sandbox.to_string());
                }
            }
            What::SandboxEnded { sandbox, name, dollars, .. } => {
                self.phase += 1;
                self.foreign_sandboxes.remove(&**sandbox);
                let created = self.created.remove(&**sandbox);
                if let Some(created) = created.filter(|_| name.parse::<OurName>().is_ok()) {
                    let is_lost = self.lost.contains(&**sandbox);
                    self.bills.insert(sandbox.to_string(), Bill { dollars: *dollars, lived: at - created, is_lost });
                }
            }
            _ => {}
        }
    }

    /// Whether everything is done, and nothing has moved for the quiet window.
    fn is_over(&mut self, world: &World, now: DateTime<Utc>) -> bool {
        let summary = world.summary();
        let is_clean = summary.expected_jobs_open == 0
            && summary.runners <= self.foreign_runners
            && summary.sandboxes_live <= self.foreign_sandboxes.len();
        if !is_clean {
            self.converged_at = None;
            return false;
        }
        let converged_at = *self.converged_at.get_or_insert(now);
        now - epoch() >= self.terms.at_least && now - converged_at.max(self.moved_at) > self.terms.quiet
    }

    fn finish(self, now: DateTime<Utc>) -> Run {
        let calm_at = epoch() + self.terms.at_least;
        let mut violations = self.checker.finish(Some(now));
        if self.converged_at.is_none() {
            let text = format!("not everything is done and clean after {} s", (now - epoch()).num_seconds());
            violations.push(Violation { invariant: "no_end", events: Vec::new(), at: now, text });
        }
        Run {
            violations,
            struck: self.struck,
            befallen: self.befallen,
            calls: self.calls,
            converged_at: self.converged_at.map(|at| (at - epoch()).as_seconds_f64()),
            settled_secs: self.converged_at.map(|at| (at - calm_at).as_seconds_f64().max(0.0)),
            simulated_secs: (now - epoch()).as_seconds_f64(),
            hash: self.hasher.finish(),
            history: self.history,
        }
    }
}
