//! The metrics that Sandrunner exports: their names, help texts, and how they follow what was observed.
//!
//! Labels come from small closed sets, the allowed repositories and the classes; never an id or an error.

mod process;
mod trouble;
mod zero;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::act::Outcome;
use crate::cost::Usd;
use crate::evidence::{CrossClass, Evidence, Learned, Pickup};
use crate::http::endpoint::DELIVERIES;
use crate::ids::{ClassName, RepoName};
use crate::observe::View;
use crate::plan::{Plan, Policy, SandboxState, machine_choice};
use crate::state::{ImageState, Observed};

const QUEUED_JOBS: &str = "sandrunner_queued_jobs";
const OLDEST_QUEUED: &str = "sandrunner_oldest_queued_job_age_seconds";
const SKIPPED_JOBS: &str = "sandrunner_skipped_jobs";
const OLDEST_SKIPPED: &str = "sandrunner_oldest_skipped_job_age_seconds";
const SANDBOXES: &str = "sandrunner_sandboxes";
const SANDBOXES_LIMIT: &str = "sandrunner_sandboxes_limit";
const OVERDUE: &str = "sandrunner_overdue_sandboxes";
const BREAKER_OPEN: &str = "sandrunner_breaker_open";
const UNREADABLE: &str = "sandrunner_unreadable_sandboxes";
const FOREIGN_RUNNERS: &str = "sandrunner_foreign_runners";
const ACTIONS: &str = "sandrunner_actions_total";
const ACTION_SECONDS: &str = "sandrunner_action_duration_seconds";
const ENDS: &str = "sandrunner_sandbox_ends_total";
const PICKUP: &str = "sandrunner_job_pickup_seconds";
const CROSS_CLASS: &str = "sandrunner_cross_class_claims_total";
const RECONCILE: &str = "sandrunner_reconcile_total";
const RECONCILE_SECONDS: &str = "sandrunner_reconcile_duration_seconds";
const LAST_SUCCESS: &str = "sandrunner_last_success_timestamp_seconds";
const SNAPSHOT_AGE: &str = "sandrunner_snapshot_age_seconds";
const SNAPSHOT_COMPLETE: &str = "sandrunner_snapshot_complete_ratio";
const RATE_LIMIT: &str = "sandrunner_github_rate_limit";
const RATE_REMAINING: &str = "sandrunner_github_rate_limit_remaining";
const TOKEN_LEFT: &str = "sandrunner_github_token_left_seconds";
const POINTS_PEAK: &str = "sandrunner_github_points_per_minute_peak";
const GITHUB_REQUESTS: &str = "sandrunner_github_requests_total";
const MODAL_REQUESTS: &str = "sandrunner_modal_requests_total";
const STATE_SAVES: &str = "sandrunner_state_saves_total";
const RUNNER_VERSION_AGE: &str = "sandrunner_runner_version_age_seconds";
const RUNNER_VERSION_LEFT: &str = "sandrunner_runner_version_left_seconds";
const IMAGE_OVERDUE: &str = "sandrunner_image_overdue";
const IMAGE_ROLLBACKS: &str = "sandrunner_image_rollbacks_total";
const MACHINE_CHOICE: &str = "sandrunner_machine_choice";
const MODAL_TASKS: &str = "sandrunner_modal_tasks";
const MODAL_TASKS_LIMIT: &str = "sandrunner_modal_tasks_limit";
const MODAL_GPUS: &str = "sandrunner_modal_gpus";
const MODAL_GPUS_LIMIT: &str = "sandrunner_modal_gpus_limit";
const MODAL_SPEND_LIMIT: &str = "sandrunner_modal_spend_limit_reached";
const SPEND_TODAY: &str = "sandrunner_spend_dollars_today";
const SPEND_RATE: &str = "sandrunner_spend_rate_dollars_per_hour";
const SPEND_LIMIT: &str = "sandrunner_spend_limit_dollars";
const COST_FILE_ERRORS: &str = "sandrunner_cost_file_errors_total";
const BUILD_INFO: &str = "sandrunner_build_info";

/// Upper bounds of the latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0, 3600.0];
/// Upper bounds of the histogram of a pass, in seconds.
const PASS_BUCKETS: [f64; 8] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0];

/// A gauge that was not set for so long, in real time, is taken back: its class, repository or credential is gone. Those of
/// a daemon that works are set at least every five seconds; a clock that runs slower than real time, by the factor.
pub const GONE_AFTER: Duration = Duration::from_secs(120);

/// Installs the recorder for this process; its handle renders `/metrics`.
///
/// # Errors
/// [`BuildError`] where a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder(GONE_AFTER)?.install_recorder()?;
    describe();
    Ok(handle)
}

/// What a recorder is made with; gauges that were not set for `gone_after` are taken back.
///
/// # Errors
/// [`BuildError`] where buckets are missing, which they are not.
pub fn builder(gone_after: Duration) -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(gone_after))
        .set_buckets_for_metric(Matcher::Full(RECONCILE_SECONDS.to_owned()), &PASS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
}

/// Describes every metric to the recorder, and counts what did not happen yet as nothing, so that the first event is a
/// rise.
pub fn describe() {
    describe_gauge!(QUEUED_JOBS, "Queued jobs that a class serves, by repository");
    describe_gauge!(OLDEST_QUEUED, Unit::Seconds, "Age of the oldest queued job of a class, since it was first seen");
    trouble::describe();
    describe_gauge!(SANDBOXES, "Living sandboxes of ours, by class and state");
    describe_gauge!(
        SANDBOXES_LIMIT,
        "max_sandboxes of a class, and of all where the label is empty; +Inf where it is not set"
    );
    describe_gauge!(UNREADABLE, "Sandboxes with our tag that cannot be read; never touched");
    describe_gauge!(FOREIGN_RUNNERS, "Runners in the allowed repositories that are not ours; never touched");
    describe_counter!(ACTIONS, "Actions, by kind, reason and result");
    describe_histogram!(ACTION_SECONDS, Unit::Seconds, "Duration of actions, by kind");
    describe_counter!(ENDS, "Sandboxes that ended, by class and reason");
    describe_histogram!(
        PICKUP,
        Unit::Seconds,
        "Time from queued to started, in its legs: seen, created, online, started; and total"
    );
    describe_counter!(CROSS_CLASS, "Jobs taken by a runner that was made for another label set");
    describe_counter!(RECONCILE, "Passes, by result: complete or incomplete snapshot");
    describe_histogram!(RECONCILE_SECONDS, Unit::Seconds, "Duration of a pass");
    describe_gauge!(LAST_SUCCESS, Unit::Seconds, "Time of the last pass on a complete snapshot, in Unix seconds");
    describe_gauge!(SNAPSHOT_AGE, Unit::Seconds, "Age of the oldest reading that the plan rests on, by source");
    describe_gauge!(SNAPSHOT_COMPLETE, "Part of the repositories whose last reading is complete");
    describe_gauge!(RATE_LIMIT, "GitHub's primary limit, by credential and resource");
    describe_gauge!(RATE_REMAINING, "What is left of GitHub's primary limit, by credential and resource");
    describe_gauge!(
        TOKEN_LEFT,
        Unit::Seconds,
        "Until the token of a credential ends; +Inf where GitHub states no end. An installation's is renewed before"
    );
    describe_gauge!(POINTS_PEAK, "The most points of GitHub's secondary limit spent in one minute");
    describe_counter!(GITHUB_REQUESTS, "Requests to GitHub, by credential, operation and result");
    describe_counter!(MODAL_REQUESTS, "Calls to Modal, by operation and result");
    describe_counter!(DELIVERIES, "Deliveries of GitHub's webhooks, by what became of them");
    describe_counter!(STATE_SAVES, "Saves of what a restart can use, by result");
    describe_gauge!(
        RUNNER_VERSION_AGE,
        Unit::Seconds,
        "Since when GitHub offers a newer runner than is in the image of a class; 0 where it does not"
    );
    describe_gauge!(
        RUNNER_VERSION_LEFT,
        Unit::Seconds,
        "Until GitHub takes no more runners of the version in the image of a class; +Inf where it has set no date"
    );
    describe_gauge!(
        IMAGE_OVERDUE,
        "1 where a class has no image, or an earlier one, because the wanted one failed or is being made; else 0"
    );
    describe_counter!(IMAGE_ROLLBACKS, "New images that were given up because their first runners did not come online");
    describe_gauge!(MACHINE_CHOICE, "Which machine of a class with a GPU is in use: 0 is its first choice");
    describe_gauge!(MODAL_TASKS, "Containers that run in Modal's environment, of whomever");
    describe_gauge!(MODAL_TASKS_LIMIT, "The most that may; +Inf where Modal states no limit");
    describe_gauge!(MODAL_GPUS, "GPUs in use in Modal's environment, of whomever");
    describe_gauge!(MODAL_GPUS_LIMIT, "The most that may be; +Inf where Modal states no limit");
    describe_gauge!(MODAL_SPEND_LIMIT, "1 where Modal's spend limit is reached, so that nothing is created");
    describe_spend();
    describe_gauge!(BUILD_INFO, "Always 1; the version is a label");
    process::describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(LAST_SUCCESS).set(0.0);
    zero::process();
}

fn describe_spend() {
    describe_gauge!(
        SPEND_TODAY,
        "US dollars since midnight UTC, by our own account, by repository and class; \"other\" where that is none of ours"
    );
    describe_gauge!(SPEND_RATE, "US dollars per hour of the sandboxes that run, by class");
    describe_gauge!(
        SPEND_LIMIT,
        "spend_per_day of a class, and of all where the label is empty; absent where it is not set"
    );
    describe_counter!(COST_FILE_ERRORS, "Writes of the cost files that failed; what they held is written later");
}

/// Counts a write of the cost files that failed.
pub fn cost_file_failed() {
    counter!(COST_FILE_ERRORS).increment(1);
}

/// How a save of the state file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Save {
    /// The file holds what is known.
    Ok,
    /// It does not.
    Failed,
}

impl Save {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

/// Counts a save.
pub fn saved(save: Save) {
    counter!(STATE_SAVES, "result" => save.as_str()).increment(1);
}

/// Counts that a class went back to its image before.
pub fn went_back(class: &ClassName) {
    counter!(IMAGE_ROLLBACKS, "class" => class.to_string()).increment(1);
}

/// Counts what happened in a pass.
pub fn count(outcomes: &[Outcome], learned: &Learned) {
    for outcome in outcomes {
        let (action, reason) = (outcome.action, outcome.reason);
        counter!(ACTIONS, "action" => action, "reason" => reason, "result" => outcome.effect.result()).increment(1);
        histogram!(ACTION_SECONDS, "action" => action).record(outcome.took.as_secs_f64());
    }
    for (_, class, reason) in &learned.ends {
        counter!(ENDS, "class" => class.to_string(), "reason" => *reason).increment(1);
    }
    for pickup in &learned.pickups {
        count_pickup(pickup);
    }
}

fn count_pickup(pickup: &Pickup) {
    if pickup.is_cross_class == CrossClass::Yes {
        counter!(CROSS_CLASS).increment(1);
    }
    let class = pickup.class.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let record = |leg: &'static str, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>| {
        if let Some((from, to)) = from.zip(to) {
            let seconds = (to - from).as_seconds_f64().max(0.0);
            histogram!(PICKUP, "class" => class.clone(), "leg" => leg).record(seconds);
        }
    };
    record("seen", pickup.queued_at, Some(pickup.seen_at));
    record("created", Some(pickup.seen_at), pickup.created_at);
    record("online", pickup.created_at, pickup.online_at);
    record("started", pickup.online_at.or(pickup.created_at), pickup.started_at);
    record("total", pickup.queued_at, pickup.started_at);
}

/// Asks the system about this process: for each page, so that it costs nothing where none is asked for.
pub fn meter_process() {
    process::meter();
}

/// What a pass saw and planned.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What was observed.
    pub observed: &'a Observed,
    /// What earlier passes taught.
    pub evidence: &'a Evidence,
    /// What was planned.
    pub plan: &'a Plan,
    /// The rules.
    pub policy: &'a Policy,
    /// When.
    pub now: DateTime<Utc>,
}

/// Sets the gauges. What is counted goes to zero once there is nothing of it; a series whose class or repository is gone
/// is not set any more, so that the recorder takes it back.
#[derive(Debug, Default)]
pub struct Meter {
    queued: BTreeSet<(ClassName, RepoName)>,
    /// Repositories and classes with a cost.
    paid: BTreeSet<(String, String)>,
    /// Classes whose counters were begun.
    begun: BTreeSet<ClassName>,
    /// When the first pass was.
    started: Option<DateTime<Utc>>,
}

impl Meter {
    /// Sets every gauge that follows from what was observed and planned.
    pub fn meter(&mut self, seen: &Seen<'_>) {
        let Seen { observed, plan, policy, now, .. } = *seen;
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        process::began(*self.started.get_or_insert(now));
        self.begun.retain(|class| policy.class(class).is_some());
        for class in &policy.classes {
            if self.begun.insert(class.name.clone()) {
                zero::class(&class.name);
            }
        }
        self.meter_queue(observed, plan, now);
        meter_classes(observed, plan, policy);
        trouble::meter(seen);
        gauge!(UNREADABLE).set(number(observed.fleet.unreadable.len()));
        gauge!(FOREIGN_RUNNERS).set(number(observed.registries.values().map(|view| view.foreign_runners).sum()));
        self.meter_spend(observed, policy);
    }

    fn meter_spend(&mut self, observed: &Observed, policy: &Policy) {
        /// The label of what belongs to no repository or class of ours any more.
        const OTHER: &str = "other";
        let spend = &observed.spend;
        let repos: BTreeSet<&str> = observed.repos.keys().map(|scope| scope.repo.as_str()).collect();
        let is_there = |(repo, class): &&(String, String)| {
            (repo == OTHER || repos.contains(repo.as_str()))
                && (class == OTHER || policy.classes.iter().any(|known| known.name.as_str() == class))
        };
        let known = self.paid.iter().filter(is_there);
        let mut paid: BTreeMap<(String, String), f64> = known.map(|labels| (labels.clone(), 0.0)).collect();
        for (payer, usd) in &spend.by_payer {
            let repo = if repos.contains(payer.repo.as_str()) { payer.repo.as_str() } else { OTHER };
            let class = if policy.class(&payer.class).is_some() { payer.class.as_str() } else { OTHER };
            *paid.entry((repo.to_owned(), class.to_owned())).or_default() += usd.dollars();
        }
        for ((repo, class), dollars) in &paid {
            gauge!(SPEND_TODAY, "repo" => repo.clone(), "class" => class.clone()).set(*dollars);
        }
        self.paid = paid.into_keys().collect();
        for class in &policy.classes {
            let rate = spend.rate.get(&class.name).map_or(0.0, |rate| rate.dollars());
            gauge!(SPEND_RATE, "class" => class.name.to_string()).set(rate);
            if let Some(limit) = class.spend_per_day {
                gauge!(SPEND_LIMIT, "class" => class.name.to_string()).set(limit.dollars());
            }
        }
        let limit = policy.limits.spend_per_day.map_or(f64::INFINITY, Usd::dollars);
        gauge!(SPEND_LIMIT, "class" => "").set(limit);
    }

    fn meter_queue(&mut self, observed: &Observed, plan: &Plan, now: DateTime<Utc>) {
        let repos: BTreeSet<&RepoName> = observed.repos.keys().map(|scope| &scope.repo).collect();
        self.queued.retain(|(class, repo)| self.begun.contains(class) && repos.contains(repo));
        for class in &self.begun {
            let since = plan.tally.get(class).and_then(|tally| tally.oldest_queued);
            let age = since.map_or(0.0, |since| (now - since).as_seconds_f64());
            gauge!(OLDEST_QUEUED, "class" => class.to_string()).set(age);
        }
        let queued = plan.tally.iter().flat_map(|(class, tally)| tally.queued.keys().map(move |repo| (class, repo)));
        self.queued.extend(queued.map(|(class, repo)| (class.clone(), repo.clone())));
        for (class, repo) in &self.queued {
            let count = plan.tally.get(class).and_then(|tally| tally.queued.get(repo)).copied().unwrap_or(0);
            gauge!(QUEUED_JOBS, "class" => class.to_string(), "repo" => repo.to_string()).set(f64::from(count));
        }
    }
}

fn meter_classes(observed: &Observed, plan: &Plan, policy: &Policy) {
    let limit = |limit: Option<u32>| limit.map_or(f64::INFINITY, f64::from);
    gauge!(SANDBOXES_LIMIT, "class" => "").set(f64::from(policy.limits.sandboxes));
    for class in &policy.classes {
        gauge!(SANDBOXES_LIMIT, "class" => class.name.to_string()).set(limit(class.max_sandboxes));
        let is_failed = matches!(observed.images.get(&class.name), Some(ImageState::Failed { .. }));
        let is_overdue = is_failed || observed.overdue.contains_key(&class.name);
        gauge!(IMAGE_OVERDUE, "class" => class.name.to_string()).set(f64::from(u8::from(is_overdue)));
    }
    // Sandboxes of a class that the configuration has no more live on.
    let classes: BTreeSet<&ClassName> =
        policy.classes.iter().map(|class| &class.name).chain(plan.tally.keys()).collect();
    for class in classes {
        for state in SandboxState::ALL {
            let count = plan.tally.get(class).and_then(|tally| tally.sandboxes.get(&state)).copied().unwrap_or(0);
            gauge!(SANDBOXES, "class" => class.to_string(), "state" => state.as_str()).set(f64::from(count));
        }
    }
}

/// Tells how old the readings are, and how the credentials stand.
pub fn meter_readers(view: &View, now: DateTime<Utc>) {
    meter_snapshot(view, now);
    meter_credentials(view, now);
}

/// Records a pass.
pub fn passed(view: &View, took_seconds: f64, now: DateTime<Utc>) {
    histogram!(RECONCILE_SECONDS).record(took_seconds);
    let is_complete = view.observed.fleet.read.failure.is_none()
        && view.observed.fleet.read.known_at.is_some()
        && view
            .observed
            .served()
            .all(|(_, repo)| repo.runs_read.failure.is_none() && repo.runs_read.known_at.is_some());
    let result = if is_complete { "complete" } else { "incomplete" };
    counter!(RECONCILE, "result" => result).increment(1);
    if is_complete {
        gauge!(LAST_SUCCESS).set((now - DateTime::UNIX_EPOCH).as_seconds_f64());
    } else {
        // As it was, so that it stays.
        gauge!(LAST_SUCCESS).increment(0.0);
    }
}

/// Tells how Modal's quota stands, and on which machines sandboxes are asked for.
pub fn meter_modal(observed: &Observed, evidence: &Evidence, policy: &Policy, now: DateTime<Utc>) {
    for class in policy.classes.iter().filter(|class| class.gpu.is_some()) {
        let choice = machine_choice(class, evidence, now);
        gauge!(MACHINE_CHOICE, "class" => class.name.to_string()).set(number(choice));
    }
    let limit = |limit: Option<u32>| limit.map_or(f64::INFINITY, f64::from);
    if let Some(quota) = &observed.quota.known {
        gauge!(MODAL_TASKS).set(f64::from(quota.tasks));
        gauge!(MODAL_TASKS_LIMIT).set(limit(quota.max_tasks));
        gauge!(MODAL_GPUS).set(f64::from(quota.gpus));
        gauge!(MODAL_GPUS_LIMIT).set(limit(quota.max_gpus));
    }
    gauge!(MODAL_SPEND_LIMIT).set(if observed.quota.is_spent(now) { 1.0 } else { 0.0 });
}

/// Tells how old the runners in the images are.
pub fn meter_runners(observed: &Observed, evidence: &Evidence, now: DateTime<Utc>) {
    for (class, version) in &observed.runners_in_use {
        let newer_since = evidence.newer_since.get(version).map_or(0.0, |since| (now - *since).as_seconds_f64());
        let left = observed.ends_at(class).map_or(f64::INFINITY, |ends_at| (ends_at - now).as_seconds_f64());
        gauge!(RUNNER_VERSION_AGE, "class" => class.to_string()).set(newer_since);
        gauge!(RUNNER_VERSION_LEFT, "class" => class.to_string()).set(left);
    }
}

fn meter_snapshot(view: &View, now: DateTime<Utc>) {
    let age = |at: Option<DateTime<Utc>>| at.map_or(f64::INFINITY, |at| (now - at).as_seconds_f64().max(0.0));
    gauge!(SNAPSHOT_AGE, "source" => "modal").set(age(view.observed.fleet.read.known_at));
    let repos: Vec<_> = view.observed.served().map(|(_, repo)| &repo.runs_read).collect();
    let oldest = repos.iter().map(|read| age(read.known_at)).fold(0.0, f64::max);
    gauge!(SNAPSHOT_AGE, "source" => "github").set(oldest);
    let complete = repos.iter().filter(|read| read.known_at.is_some() && read.failure.is_none()).count();
    gauge!(SNAPSHOT_COMPLETE).set(number(complete) / number(repos.len().max(1)));
}

fn meter_credentials(view: &View, now: DateTime<Utc>) {
    let mut peak: f64 = 0.0;
    for reader in view.readers().all_github() {
        let left = reader.state().token_ends.map_or(f64::INFINITY, |ends| (ends - now).as_seconds_f64());
        gauge!(TOKEN_LEFT, "credential" => reader.credential().to_string()).set(left);
        let budget = reader.budget();
        let budget = budget.lock().expect("no holder of the budget panics");
        peak = peak.max(budget.peak_points_per_minute());
        for quota in budget.primary() {
            let labels = [("credential", reader.credential().to_string()), ("resource", quota.resource.clone())];
            gauge!(RATE_LIMIT, &labels).set(f64::from(quota.limit));
            let remaining = if budget.is_used_up(now) { 0 } else { quota.remaining };
            gauge!(RATE_REMAINING, &labels).set(f64::from(remaining));
        }
    }
    gauge!(POINTS_PEAK).set(peak);
}

#[expect(clippy::cast_precision_loss, reason = "counts of things far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
