//! What is known of Modal: the quota of the workspace, and the machines of classes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::class::RunnerClass;
use crate::evidence::Evidence;
use crate::observe::View;
use crate::plan::machine_choice;

/// What Modal's workspace may use, and uses, of whomever.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ModalStatus {
    /// The environment.
    pub environment: Option<String>,
    /// The most containers at a time, where there is a limit.
    pub max_tasks: Option<u32>,
    /// Those that run.
    pub tasks: Option<u32>,
    /// The most GPUs at a time, where there is a limit.
    pub max_gpus: Option<u32>,
    /// Those in use.
    pub gpus: Option<u32>,
    /// Whether the spend limit is reached, so that nothing is created.
    pub spend_limit_reached: bool,
    /// When that was read.
    pub known_at: Option<DateTime<Utc>>,
    /// Why it could not be read, the last time.
    pub problem: Option<String>,
}

pub(super) fn quota(view: &View, now: DateTime<Utc>) -> ModalStatus {
    let quota = &view.observed.quota;
    let known = quota.known.as_ref();
    ModalStatus {
        environment: known.map(|known| known.environment.clone()),
        max_tasks: known.and_then(|known| known.max_tasks),
        tasks: known.map(|known| known.tasks),
        max_gpus: known.and_then(|known| known.max_gpus),
        gpus: known.map(|known| known.gpus),
        spend_limit_reached: quota.is_spent(now),
        known_at: quota.read.known_at,
        problem: quota.read.failure.as_ref().map(|failure| failure.message.clone()),
    }
}

/// The machine that the next sandbox of a class is asked for on, and those that Modal is short of.
pub(super) fn machines(
    class: &RunnerClass,
    evidence: &Evidence,
    now: DateTime<Utc>,
) -> (Option<String>, BTreeMap<String, DateTime<Utc>>) {
    if class.gpu.is_none() {
        return (None, BTreeMap::new());
    }
    let machines = class.machines();
    let short_of = machines
        .iter()
        .filter_map(|machine| Some((machine.to_string(), evidence.shortage(&class.name, machine)?.again_at())));
    let short_of = short_of.collect();
    (machines.get(machine_choice(class, evidence, now)).map(ToString::to_string), short_of)
}
