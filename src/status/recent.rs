//! What the last actions rest on, in words.

use chrono::{DateTime, SecondsFormat, Utc};

use super::RecentAction;
use crate::act::{Effect, Outcome};
use crate::evidence::Evidence;
use crate::ids::OurName;

impl RecentAction {
    /// What an action came to, and what was known when that was heard.
    pub(crate) fn new(outcome: &Outcome, evidence: &Evidence, now: DateTime<Utc>) -> Self {
        let name = name_of(&outcome.effect);
        Self { at: now, text: outcome.to_string(), evidence: told(outcome, name, evidence) }
    }
}

fn told(outcome: &Outcome, name: Option<&OurName>, evidence: &Evidence) -> String {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let known = name.and_then(|name| evidence.names.get(name));
    let made = known.and_then(|known| known.created_at.or(known.registered_at));
    let since = made.map_or_else(String::new, |at| format!(" since it was made, {}", time(at)));
    match (outcome.action, outcome.reason) {
        ("create", _) => {
            let queued = name.and_then(|name| Some((name.job, evidence.jobs.get(&name.job)?.first_queued)));
            queued.map_or_else(
                || "a queued job without a runner".to_owned(),
                |(job, since)| {
                    format!("job {job} is queued since {}, with no runner that starts or waits", time(since))
                },
            )
        }
        ("prepare_image", _) => "jobs of its class wait for it, or it is to be made anew".to_owned(),
        ("delete_secret", _) => "its runner is online, or its sandbox ended: nobody reads it again".to_owned(),
        (_, "stale") => "it is offline, and two readings of Modal and GitHub agree that it has no sandbox".to_owned(),
        ("terminate", "failed_start") => {
            format!("its runner was never seen online{since}; GitHub has no registration of it, and no job names it")
        }
        (_, "failed_start") => format!("its runner was never seen online{since}"),
        (_, "no_capacity") => format!("Modal placed it on no machine{since}"),
        (_, reason) => reason.to_owned(),
    }
}

/// The name that an action was about.
fn name_of(effect: &Effect) -> Option<&OurName> {
    match effect {
        Effect::Created { name, .. }
        | Effect::NotPrepared { name, .. }
        | Effect::MintFailed { name, .. }
        | Effect::NameTaken { name, .. }
        | Effect::CreateFailed { name, .. }
        | Effect::MaybeCreated { name, .. }
        | Effect::Deregistered { name, .. }
        | Effect::SecretDenied { name, .. }
        | Effect::StillRunning { name, .. }
        | Effect::StillLives { name, .. }
        | Effect::Terminated { name }
        | Effect::SecretDeleted { name, .. } => Some(name),
        Effect::Image { .. } | Effect::Failed { .. } => None,
    }
}
