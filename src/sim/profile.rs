//! How well or badly the simulated services behave: every knob in one place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::app::Grants;

/// A profile name or an override that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidProfile {
    /// No built-in profile has this name.
    #[error("`{0}` is no profile; use `calm` or `realistic`")]
    UnknownName(String),
    /// An override names a knob that does not exist.
    #[error("the profile has no knob `{0}`")]
    UnknownKnob(String),
    /// An override does not fit its knob.
    #[error("the profile's overrides cannot be used")]
    BadValue(#[source] serde_json::Error),
    /// A knob lies outside of what can be simulated.
    #[error("the profile's `{knob}` must be {expected}")]
    OutOfRange {
        /// The knob.
        knob: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
}

/// Seconds drawn evenly between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Span {
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Span {
    /// Both bounds, in seconds.
    pub const fn new(min: f64, max: f64) -> Self {
        Self { min, max }
    }

    fn is_valid(self) -> bool {
        self.min >= 0.0 && self.max >= self.min && self.max.is_finite()
    }
}

impl From<[f64; 2]> for Span {
    fn from([min, max]: [f64; 2]) -> Self {
        Self { min, max }
    }
}

impl From<Span> for [f64; 2] {
    fn from(span: Span) -> Self {
        [span.min, span.max]
    }
}

/// Seconds drawn from a lognormal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lognormal {
    /// Half of the draws are below.
    pub median_secs: f64,
    /// 95 % of the draws are below; the median itself makes the draw a constant.
    pub p95_secs: f64,
}

impl Lognormal {
    /// A distribution that always gives `secs`.
    pub const fn constant(secs: f64) -> Self {
        Self { median_secs: secs, p95_secs: secs }
    }

    fn is_valid(self) -> bool {
        self.median_secs > 0.0 && self.p95_secs >= self.median_secs && self.p95_secs.is_finite()
    }
}

/// Which of several matching jobs or runners is chosen first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    /// The oldest queued job goes to any of the runners that could take it (GitHub: "roughly oldest first").
    Random,
    /// The oldest queued job goes to the runner that came online first.
    OldestFirst,
}

/// All knobs of the simulated services. Times are in seconds of the World's clock.
///
/// A list answer is late by `max · u³` with `u` even in 0 to 1: half of the answers are at most an eighth
/// of the bound old, a few come near it. Each answer draws its own lag, so a later answer may show an
/// older state.
#[expect(clippy::struct_excessive_bools, reason = "knobs that have nothing to do with each other")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile's name, shown in reports.
    pub name: String,
    /// Which runner gets a job.
    pub assignment: Assignment,
    /// From a job and a runner being there to the assignment.
    pub assignment_secs: Span,
    /// From the end of the last job of a stage to the next stage's jobs being queued.
    pub needs_secs: Span,
    /// From a job with a GitHub-hosted label being queued to its start.
    pub hosted_start_secs: Span,
    /// The largest lag of a list answered by GitHub.
    pub github_list_lag_secs: f64,
    /// The largest lag of a run list with a `status` filter, which comes from a search index.
    pub filtered_list_lag_secs: f64,
    /// The part of the runs that a filtered list leaves out.
    pub filtered_list_omits: f64,
    /// The largest lag of a list answered by Modal.
    pub modal_list_lag_secs: f64,
    /// How late a runner is shown as busy.
    pub busy_lag_secs: Span,
    /// How often a listing shows a busy runner as idle in the middle of its job.
    pub busy_flip_chance: f64,
    /// From the registration of a runner to its first appearance in lists.
    pub runner_visible_secs: Span,
    /// From a runner's death to its being shown offline.
    pub offline_lag_secs: Span,
    /// From the end of a runner's registration to its disappearance from lists.
    pub linger_secs: Span,
    /// From the start of a sandbox to its runner being online.
    pub boot: Lognormal,
    /// From the creation of a GPU sandbox to its being scheduled.
    pub gpu_schedule: Lognormal,
    /// When GitHub removes an idle runner, counted from its coming online; absent means never.
    pub idle_removal_secs: Option<Span>,
    /// From the removal of a registration to the end of the idle listener.
    pub removed_exit_secs: Span,
    /// From the death of a sandbox to the failure of the job that ran in it.
    pub lost_job_secs: Span,
    /// From `SandboxTerminate` to the end of the sandbox.
    pub terminate_secs: Span,
    /// When GitHub removes a registration that was never used.
    pub unused_registration_secs: f64,
    /// The length of a step of a running job, whose listing changes with each step; absent means no steps.
    pub step_secs: Option<f64>,
    /// How long an image takes to build.
    pub image_build_secs: f64,
    /// How long GitHub takes to answer a read.
    pub read_latency_secs: f64,
    /// How long GitHub takes to answer a write.
    pub write_latency_secs: f64,
    /// How long Modal takes to answer.
    pub modal_latency_secs: f64,
    /// GitHub's primary limit: requests per token and hour.
    pub github_requests_per_hour: u32,
    /// What each repository beyond 20 adds to that for an installation of a GitHub App, up to 12,500.
    pub github_requests_per_repo: u32,
    /// How many requests somebody else has made with a token in the hour in which it is first used.
    pub github_used_before: u32,
    /// How much of that hour is left.
    pub github_first_hour_secs: f64,
    /// Whether an answer that nothing has changed (304) counts against the primary limit.
    pub github_charges_unchanged: bool,
    /// GitHub's secondary limit: points per token in any minute (a read costs 1, a write 5).
    pub github_points_per_minute: u32,
    /// GitHub's limit of writes per token in any minute.
    pub github_mutations_per_minute: u32,
    /// The most entries on a page of a list, whatever `per_page` asks for.
    pub github_list_page: u32,
    /// For how long a JIT config can be used after the mint.
    pub jit_config_secs: f64,
    /// The `retry-after` of a secondary limit.
    pub github_retry_after_secs: u32,
    /// For how long a token of an installation of a GitHub App can be used.
    pub installation_token_secs: f64,
    /// When personal tokens end, from the start; absent means never.
    pub personal_token_secs: Option<f64>,
    /// What personal tokens may do, as fine-grained ones are made; absent means everything.
    pub personal_token_permissions: Option<Grants>,
    /// Modal's limit of sandbox creations.
    pub modal_creates_per_second: f64,
    /// How many creations Modal takes at once.
    pub modal_create_burst: u32,
    /// How many sandboxes are on a page of Modal's list.
    pub modal_list_page: u32,
    /// Modal's limit of running containers in the workspace; absent means none. Sandboxes without a GPU are
    /// refused beyond it, those with one wait.
    pub modal_max_containers: Option<u32>,
    /// Modal's limit of GPUs in use in the workspace; absent means none.
    pub modal_max_gpus: Option<u32>,
    /// GPUs that Modal has none of, such as `H100`, or none in a region, such as `H100@us-east`.
    pub modal_gpus_sold_out: Vec<String>,
    /// Whether the spend limit of the workspace is reached: then Modal creates nothing.
    pub modal_spend_limit_reached: bool,
    /// What Modal takes, as a multiple of its price page.
    pub modal_price_factor: f64,
    /// How long an auth token of Modal's can be used.
    pub modal_auth_token_secs: f64,
    /// Whether Modal answers a repeated call as it answered the first one with the same idempotency key.
    pub modal_keeps_idempotency_keys: bool,
    /// The step in which Modal states when sandboxes were created: within one they have the same time, and lists
    /// lose some at the edges of pages. 0 means that no two have the same time.
    pub modal_created_at_step_secs: f64,
    /// The runner release that GitHub offers for download.
    pub runner_version: String,
}

impl Profile {
    /// No lag, fixed latencies, the runner that is longest online first: for tests of one thing at a time.
    pub fn calm() -> Self {
        Self {
            name: "calm".to_owned(),
            assignment: Assignment::OldestFirst,
            assignment_secs: Span::new(1.0, 1.0),
            needs_secs: Span::new(1.0, 1.0),
            hosted_start_secs: Span::new(3.0, 3.0),
            github_list_lag_secs: 0.0,
            filtered_list_lag_secs: 0.0,
            filtered_list_omits: 0.0,
            modal_list_lag_secs: 0.0,
            busy_lag_secs: Span::new(0.0, 0.0),
            busy_flip_chance: 0.0,
            runner_visible_secs: Span::new(0.0, 0.0),
            offline_lag_secs: Span::new(0.0, 0.0),
            linger_secs: Span::new(0.0, 0.0),
            boot: Lognormal::constant(3.0),
            gpu_schedule: Lognormal::constant(5.0),
            idle_removal_secs: None,
            removed_exit_secs: Span::new(1.0, 1.0),
            lost_job_secs: Span::new(600.0, 600.0),
            terminate_secs: Span::new(1.0, 1.0),
            step_secs: None,
            ..Self::realistic()
        }
    }

    /// As badly behaved as the real services have been seen to be.
    pub fn realistic() -> Self {
        Self {
            name: "realistic".to_owned(),
            assignment: Assignment::Random,
            assignment_secs: Span::new(0.3, 2.0),
            needs_secs: Span::new(0.5, 3.0),
            hosted_start_secs: Span::new(2.0, 15.0),
            github_list_lag_secs: 10.0,
            filtered_list_lag_secs: 120.0,
            filtered_list_omits: 0.05,
            modal_list_lag_secs: 10.0,
            busy_lag_secs: Span::new(0.0, 60.0),
            busy_flip_chance: 0.02,
            runner_visible_secs: Span::new(0.0, 10.0),
            offline_lag_secs: Span::new(0.0, 60.0),
            linger_secs: Span::new(1.0, 10.0),
            boot: Lognormal { median_secs: 2.7, p95_secs: 11.8 },
            gpu_schedule: Lognormal { median_secs: 15.0, p95_secs: 60.0 },
            idle_removal_secs: Some(Span::new(120.0, 360.0)),
            removed_exit_secs: Span::new(1.0, 10.0),
            lost_job_secs: Span::new(600.0, 900.0),
            terminate_secs: Span::new(0.5, 5.0),
            unused_registration_secs: 86_400.0,
            step_secs: Some(15.0),
            image_build_secs: 45.0,
            read_latency_secs: 0.1,
            write_latency_secs: 0.25,
            modal_latency_secs: 0.15,
            github_requests_per_hour: 5_000,
            github_requests_per_repo: 50,
            github_used_before: 0,
            github_first_hour_secs: 3_600.0,
            github_charges_unchanged: false,
            github_points_per_minute: 900,
            github_mutations_per_minute: 180,
            github_list_page: 100,
            jit_config_secs: 3_600.0,
            github_retry_after_secs: 60,
            installation_token_secs: 3_600.0,
            personal_token_secs: None,
            personal_token_permissions: None,
            modal_creates_per_second: 5.0,
            modal_create_burst: 150,
            modal_list_page: 50,
            modal_max_containers: None,
            modal_max_gpus: None,
            modal_gpus_sold_out: Vec::new(),
            modal_spend_limit_reached: false,
            modal_price_factor: 1.0,
            modal_auth_token_secs: 1_200.0,
            modal_keeps_idempotency_keys: false,
            modal_created_at_step_secs: 0.0,
            runner_version: "2.336.0".to_owned(),
        }
    }

    /// A built-in profile by its name.
    ///
    /// # Errors
    /// [`InvalidProfile::UnknownName`] for any other name.
    pub fn named(name: &str) -> Result<Self, InvalidProfile> {
        match name {
            "calm" => Ok(Self::calm()),
            "realistic" => Ok(Self::realistic()),
            other => Err(InvalidProfile::UnknownName(other.to_owned())),
        }
    }

    /// This profile with some knobs replaced, as a scenario file states them.
    ///
    /// # Errors
    /// [`InvalidProfile`] for an unknown knob or a value that does not fit it.
    pub fn overridden(self, knobs: &BTreeMap<String, Value>) -> Result<Self, InvalidProfile> {
        let value = serde_json::to_value(&self).map_err(InvalidProfile::BadValue)?;
        let mut fields: Map<String, Value> = serde_json::from_value(value).map_err(InvalidProfile::BadValue)?;
        for (knob, wanted) in knobs {
            match fields.get_mut(knob) {
                Some(field) => *field = wanted.clone(),
                None => return Err(InvalidProfile::UnknownKnob(knob.clone())),
            }
        }
        let profile: Self = serde_json::from_value(Value::Object(fields)).map_err(InvalidProfile::BadValue)?;
        profile.checked()
    }

    fn checked(self) -> Result<Self, InvalidProfile> {
        let out = |knob, expected| Err(InvalidProfile::OutOfRange { knob, expected });
        let spans = [
            ("assignment_secs", self.assignment_secs),
            ("needs_secs", self.needs_secs),
            ("hosted_start_secs", self.hosted_start_secs),
            ("busy_lag_secs", self.busy_lag_secs),
            ("runner_visible_secs", self.runner_visible_secs),
            ("offline_lag_secs", self.offline_lag_secs),
            ("linger_secs", self.linger_secs),
            ("removed_exit_secs", self.removed_exit_secs),
            ("lost_job_secs", self.lost_job_secs),
            ("terminate_secs", self.terminate_secs),
            ("idle_removal_secs", self.idle_removal_secs.unwrap_or(Span::new(0.0, 0.0))),
        ];
        if let Some((knob, _)) = spans.iter().find(|(_, span)| !span.is_valid()) {
            return out(knob, "two numbers, the smaller one first, neither negative");
        }
        if !self.boot.is_valid() || !self.gpu_schedule.is_valid() {
            return out("boot and gpu_schedule", "a median above 0 and a p95 not below it");
        }
        let lags = [
            ("github_list_lag_secs", self.github_list_lag_secs),
            ("filtered_list_lag_secs", self.filtered_list_lag_secs),
            ("modal_list_lag_secs", self.modal_list_lag_secs),
            ("unused_registration_secs", self.unused_registration_secs),
            ("jit_config_secs", self.jit_config_secs),
            ("image_build_secs", self.image_build_secs),
            ("read_latency_secs", self.read_latency_secs),
            ("write_latency_secs", self.write_latency_secs),
            ("modal_latency_secs", self.modal_latency_secs),
            ("modal_auth_token_secs", self.modal_auth_token_secs),
            ("installation_token_secs", self.installation_token_secs),
            ("personal_token_secs", self.personal_token_secs.unwrap_or(0.0)),
            ("modal_created_at_step_secs", self.modal_created_at_step_secs),
        ];
        if let Some((knob, _)) = lags.iter().find(|(_, secs)| !secs.is_finite() || *secs < 0.0) {
            return out(knob, "a number of seconds that is not negative");
        }
        if !self.modal_price_factor.is_finite() || self.modal_price_factor < 0.0 {
            return out("modal_price_factor", "a number that is not negative");
        }
        if !(0.0..=3_600.0).contains(&self.github_first_hour_secs) {
            return out("github_first_hour_secs", "from 0 to 3600");
        }
        if self.github_list_page == 0 {
            return out("github_list_page", "above 0");
        }
        if self.modal_list_page == 0 || self.step_secs.is_some_and(|secs| secs <= 0.0) {
            return out("modal_list_page and step_secs", "above 0");
        }
        if self.modal_creates_per_second <= 0.0 || self.modal_create_burst == 0 {
            return out("modal_creates_per_second and modal_create_burst", "above 0");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn knobs(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_scenario_may_replace_single_knobs() {
        let profile = Profile::realistic()
            .overridden(&knobs(json!({ "busy_lag_secs": [1, 2], "idle_removal_secs": null, "boot": {"median_secs": 1, "p95_secs": 1} })))
            .unwrap();
        assert_eq!(profile.busy_lag_secs, Span::new(1.0, 2.0));
        assert_eq!(profile.idle_removal_secs, None);
        assert_eq!(profile.filtered_list_lag_secs.to_bits(), 120.0_f64.to_bits());
    }

    #[test]
    fn unknown_knobs_and_bad_values_are_refused_by_name() {
        let refused = |value| Profile::calm().overridden(&knobs(value)).unwrap_err().to_string();
        assert_eq!(refused(json!({ "busy_lag": 1 })), "the profile has no knob `busy_lag`");
        assert!(refused(json!({ "busy_lag_secs": [5, 2] })).contains("`busy_lag_secs`"));
        assert!(refused(json!({ "modal_list_page": 0 })).contains("modal_list_page"));
        assert!(refused(json!({ "read_latency_secs": -1 })).contains("read_latency_secs"));
        assert!(Profile::named("wild").unwrap_err().to_string().contains("`wild`"));
    }
}
