//! On which of its machines a sandbox of a class is asked for: the first that Modal is not known to be short of.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::supply::state_of;
use super::{Context, SandboxState};
use crate::class::{Machine, RunnerClass};
use crate::evidence::Evidence;
use crate::ids::ClassName;

/// Machines that sandboxes wait for, of classes that Modal was short of machines for.
#[derive(Debug, Default)]
pub(super) struct Machines {
    waited_for: BTreeSet<(ClassName, Machine)>,
}

impl Machines {
    /// What is waited for now; nothing is looked at where Modal was short of nothing.
    pub(super) fn new(context: &Context<'_>) -> Self {
        let Context { observed, evidence, policy, now, .. } = *context;
        if !evidence.has_shortages() {
            return Self::default();
        }
        let waits = observed.fleet.sandboxes.iter().filter(|(name, sandbox)| {
            let clocks = policy.class(&sandbox.origin.class).map(|class| &class.clocks);
            let state = || state_of(sandbox, evidence.names.get(*name), clocks, observed.skew, now);
            sandbox.ended.is_none() && state() == SandboxState::Unscheduled
        });
        let creating = observed.in_flight.values().chain(observed.fleet.unsure.values());
        let origins = waits.map(|(_, sandbox)| &sandbox.origin).chain(creating.map(|creating| &creating.origin));
        Self { waited_for: origins.map(|origin| (origin.class.clone(), origin.machine.clone())).collect() }
    }

    /// The machine for the next sandbox of a class.
    pub(super) fn choose(&self, class: &RunnerClass, context: &Context<'_>) -> Machine {
        let mut machines = class.machines();
        let is_tried = |machine: &Machine| self.waited_for.contains(&(class.name.clone(), machine.clone()));
        let choice = choice(class, &machines, (context.evidence, context.now), is_tried);
        machines.swap_remove(choice)
    }

    /// Notes that a sandbox is asked for on a machine.
    pub(super) fn take(&mut self, class: &RunnerClass, machine: &Machine, evidence: &Evidence) {
        if evidence.has_shortages() {
            self.waited_for.insert((class.name.clone(), machine.clone()));
        }
    }
}

/// Which of a class's machines the next of its sandboxes is asked for on, from 0 for its first choice.
pub fn machine_choice(class: &RunnerClass, evidence: &Evidence, now: DateTime<Utc>) -> usize {
    choice(class, &class.machines(), (evidence, now), |_| false)
}

/// The first machine that Modal was not short of lately; one that it was short of is tried again after a pause, by one
/// sandbox at a time. Where it is short of all, one that may be tried again first is what is worth waiting for: it was
/// missing least often, or longest ago. What it refused is not: that is no wait.
fn choice(
    class: &RunnerClass,
    machines: &[Machine],
    (evidence, now): (&Evidence, DateTime<Utc>),
    is_tried: impl Fn(&Machine) -> bool,
) -> usize {
    let will_do = |machine: &Machine| match evidence.shortage(&class.name, machine) {
        None => true,
        Some(shortage) => shortage.again_at() <= now && !is_tried(machine),
    };
    let wait = |at: &usize| evidence.shortage(&class.name, &machines[*at]).map(|it| (it.is_refusal, it.again_at()));
    machines.iter().position(will_do).or_else(|| (0..machines.len()).min_by_key(wait)).unwrap_or(0)
}
