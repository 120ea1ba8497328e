//! Gauges of what keeps jobs waiting, and of what should not be there any more.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use metrics::{Unit, describe_gauge, gauge};

use super::{BREAKER_OPEN, OLDEST_SKIPPED, OVERDUE, SKIPPED_JOBS, Seen, number};
use crate::class::ClassClocks;
use crate::evidence::Breaker;
use crate::plan::{SandboxState, SkipReason, state_of};
use crate::state::ImageState;

/// How much longer than its class's clocks allow a sandbox may be there before it counts as overdue: what did not start is
/// deregistered, settles for 90 s, and is terminated after readings agree for up to five minutes.
const GRACE: Duration = Duration::from_secs(15 * 60);

pub(super) fn describe() {
    describe_gauge!(
        SKIPPED_JOBS,
        "Queued jobs that get no new sandbox in the last pass, by class, which is empty where none serves them, and reason"
    );
    describe_gauge!(OLDEST_SKIPPED, Unit::Seconds, "Age of the oldest of these, since it was first seen queued");
    describe_gauge!(
        OVERDUE,
        "Living sandboxes that should have ended: a quarter of an hour later than the clocks of their class allow"
    );
    describe_gauge!(
        BREAKER_OPEN,
        "1 where a breaker keeps creates back: kind class (starts fail) and image (its runner is refused), by class; kind \
         group counts label sets whose runners waited in vain"
    );
}

/// Sets them.
pub(super) fn meter(seen: &Seen<'_>) {
    meter_skips(seen);
    meter_breakers(seen);
    meter_overdue(seen);
}

/// How many jobs, and the age of the oldest.
#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    jobs: usize,
    age: f64,
}

/// Why jobs of a class are skipped.
fn reasons() -> impl Iterator<Item = &'static str> {
    SkipReason::LABELS.into_iter().filter(|reason| !SkipReason::WITHOUT_CLASS.contains(reason))
}

fn meter_skips(seen: &Seen<'_>) {
    let Seen { evidence, plan, policy, now, .. } = *seen;
    let classes = policy.classes.iter().map(|class| class.name.as_str());
    let of_classes = classes.flat_map(|class| reasons().map(move |reason| (class, reason)));
    let of_none = SkipReason::WITHOUT_CLASS.map(|reason| ("", reason));
    let mut waiting: BTreeMap<(&str, &str), Waiting> =
        of_classes.chain(of_none).map(|labels| (labels, Waiting::default())).collect();
    for skip in &plan.skips {
        let class = skip.class.as_ref().map_or("", |class| class.as_str());
        let waiting = waiting.entry((class, skip.reason.as_str())).or_default();
        let since = evidence.jobs.get(&skip.job).map_or(now, |job| job.first_queued);
        waiting.jobs += 1;
        waiting.age = waiting.age.max((now - since).as_seconds_f64());
    }
    for ((class, reason), Waiting { jobs, age }) in waiting {
        gauge!(SKIPPED_JOBS, "class" => class.to_owned(), "reason" => reason).set(number(jobs));
        gauge!(OLDEST_SKIPPED, "class" => class.to_owned(), "reason" => reason).set(age);
    }
}

fn meter_breakers(seen: &Seen<'_>) {
    let Seen { observed, evidence, policy, .. } = *seen;
    let is_open = |breaker: &&Breaker| breaker.again_at().is_some();
    for class in &policy.classes {
        let image = observed.images.get(&class.name).and_then(ImageState::id);
        let of_image = image.and_then(|image| evidence.refused_images.get(image));
        for (kind, breaker) in [("class", evidence.failed_starts.get(&class.name)), ("image", of_image)] {
            let open = breaker.filter(is_open).iter().count();
            gauge!(BREAKER_OPEN, "kind" => kind, "class" => class.name.to_string()).set(number(open));
        }
    }
    let groups = evidence.groups.values().filter_map(|group| group.breaker.as_ref()).filter(is_open).count();
    gauge!(BREAKER_OPEN, "kind" => "group", "class" => "").set(number(groups));
}

fn meter_overdue(seen: &Seen<'_>) {
    let Seen { observed, evidence, policy, now, .. } = *seen;
    let mut overdue: BTreeMap<&str, usize> = policy.classes.iter().map(|class| (class.name.as_str(), 0)).collect();
    for (name, sandbox) in observed.fleet.sandboxes.iter().filter(|(_, sandbox)| sandbox.ended.is_none()) {
        let clocks = policy.class(&sandbox.origin.class).map(|class| &class.clocks);
        let state = state_of(sandbox, evidence.names.get(name), clocks, observed.skew, now);
        let age = now - sandbox.created(observed.skew);
        if clocks.is_some_and(|clocks| age > longest(state, clocks)) {
            *overdue.entry(sandbox.origin.class.as_str()).or_default() += 1;
        }
    }
    for (class, count) in overdue {
        gauge!(OVERDUE, "class" => class.to_owned()).set(number(count));
    }
}

/// How old a sandbox may be in a state, by the clocks of its class.
fn longest(state: SandboxState, clocks: &ClassClocks) -> TimeDelta {
    let ClassClocks { timeout: _, idle_timeout, start_timeout, schedule_timeout } = *clocks;
    let longest = match state {
        SandboxState::Creating
        | SandboxState::Unscheduled
        | SandboxState::Starting
        | SandboxState::Failed
        | SandboxState::Ending => schedule_timeout + start_timeout,
        SandboxState::Idle => schedule_timeout + start_timeout + idle_timeout,
        SandboxState::Claimed => clocks.sandbox_timeout(),
    };
    TimeDelta::from_std(longest + GRACE).unwrap_or(TimeDelta::MAX)
}
