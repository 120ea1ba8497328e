//! Histories written by hand, event by event, for the checker's own tests.

#![expect(clippy::needless_pass_by_value, reason = "events are written where they are passed")]

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::checker::{Rules, check};

/// The repository in which everything happens.
pub(crate) const REPO: &str = "acme/web";
/// The first job; the others follow by one.
pub(crate) const JOB: u64 = 5_000_000_000;
/// The run that all jobs are of.
pub(crate) const RUN: u64 = 7_000_000_000;

/// A history that grows.
#[derive(Debug, Default)]
pub(crate) struct Tale {
    text: String,
    seq: u64,
    client: u32,
    /// Where runners are registered; absent for [`REPO`].
    registry: Option<&'static str>,
}

/// A moment of a tale, in seconds from its begin.
pub(crate) fn moment(secs: f64) -> DateTime<Utc> {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a short tale")]
    let millis = (secs * 1e3).round() as i64;
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::milliseconds(millis)
}

/// The name of ours for a job, counted from [`JOB`].
pub(crate) fn name(job: u64, attempt: u64) -> String {
    format!("sr-main-gh-{}-{attempt}", JOB + job)
}

/// The id of a registration, which its name determines here.
pub(crate) fn id(name: &str) -> u64 {
    let mut numbers = name.rsplit('-').map_while(|part| part.parse::<u64>().ok());
    numbers.next().unwrap_or_default() + 100 * numbers.next().unwrap_or_default()
}

impl Tale {
    /// Begins in a World without lag, in which [`REPO`] is allowed.
    pub(crate) fn new() -> Self {
        Self::with_profile(json!({}))
    }

    /// Begins in a World with these knobs.
    pub(crate) fn with_profile(profile: Value) -> Self {
        let mut tale = Self::default();
        tale.at(0.0, json!({ "event": "began", "seed": 1, "repos": [REPO], "profile": profile }));
        tale.fleet(0.1)
    }

    /// Adds an event.
    pub(crate) fn at(&mut self, secs: f64, what: Value) -> &mut Self {
        let line = json!({ "seq": self.seq, "at": moment(secs), "what": what });
        writeln!(self.text, "{line}").expect("a text takes everything");
        self.seq += 1;
        self
    }

    /// Adds an event to a tale that is passed on.
    #[must_use]
    pub(crate) fn then(mut self, secs: f64, what: Value) -> Self {
        self.at(secs, what);
        self
    }

    /// What follows is called by this process.
    #[must_use]
    pub(crate) fn by(self, client: u32) -> Self {
        Self { client, ..self }
    }

    /// What follows is registered in this repository or organization.
    #[must_use]
    pub(crate) fn registering_in(self, registry: &'static str) -> Self {
        Self { registry: Some(registry), ..self }
    }

    fn registry(&self) -> &'static str {
        self.registry.unwrap_or(REPO)
    }

    /// A call of GitHub about [`REPO`], with further fields.
    #[must_use]
    pub(crate) fn github(self, secs: f64, operation: &str, status: u16, more: &Value) -> Self {
        let points = if ["mint", "delete_runner"].contains(&operation) { 5 } else { 1 };
        let client = self.client;
        let call = json!({ "event": "call", "service": "github", "operation": operation, "status": status,
            "points": points, "token": "t", "subject": REPO, "client": client });
        self.then(secs, merged(call, more))
    }

    /// A call of Modal, with further fields.
    #[must_use]
    pub(crate) fn modal(self, secs: f64, operation: &str, status: u16, more: &Value) -> Self {
        let client = self.client;
        let call = json!({ "event": "call", "service": "modal", "operation": operation, "status": status,
            "points": 0, "token": "m", "client": client });
        self.then(secs, merged(call, more))
    }

    /// A complete reading of the sandboxes.
    #[must_use]
    pub(crate) fn fleet(self, secs: f64) -> Self {
        self.modal(secs, "list_sandboxes", 0, &json!({ "page": 1 }))
    }

    /// A complete reading of the runners.
    #[must_use]
    pub(crate) fn runners(self, secs: f64) -> Self {
        let registry = self.registry();
        self.github(secs, "list_runners", 200, &json!({ "page": 1, "subject": registry }))
    }

    /// Complete readings of the runs and of the jobs.
    #[must_use]
    pub(crate) fn jobs(self, secs: f64) -> Self {
        self.github(secs, "list_runs", 200, &json!({ "page": 1 })).github(
            secs,
            "list_jobs",
            200,
            &json!({ "page": 1, "target": RUN.to_string() }),
        )
    }

    /// A job is queued that should be served, counted from [`JOB`], and read a second later.
    #[must_use]
    pub(crate) fn queued(self, secs: f64, job: u64) -> Self {
        self.then(secs, queued(job, &["self-hosted", "modal"])).jobs(secs + 1.0)
    }

    /// A runner is registered, and its config is answered.
    #[must_use]
    pub(crate) fn minted(self, secs: f64, name: &str) -> Self {
        let registry = self.registry();
        let registered = merged(registered(name), &json!({ "repo": registry }));
        self.then(secs, registered).github(secs, "mint", 201, &json!({ "target": name, "subject": registry }))
    }

    /// A sandbox is created for a registration, and answered.
    #[must_use]
    pub(crate) fn created(self, secs: f64, sandbox: &str, name: &str) -> Self {
        self.then(secs, created(sandbox, name, &json!({}))).modal(secs, "create", 0, &json!({ "target": name }))
    }

    /// A runner is registered and its sandbox created.
    #[must_use]
    pub(crate) fn started(self, secs: f64, sandbox: &str, name: &str) -> Self {
        self.minted(secs, name).created(secs + 0.4, sandbox, name)
    }

    /// A runner connects.
    #[must_use]
    pub(crate) fn online(self, secs: f64, sandbox: &str, name: &str) -> Self {
        let registry = self.registry();
        self.then(secs, json!({ "event": "runner_online", "repo": registry, "runner": name, "sandbox": sandbox }))
    }

    /// A runner takes a job.
    #[must_use]
    pub(crate) fn assigned(self, secs: f64, job: u64, name: &str) -> Self {
        self.then(
            secs,
            json!({ "event": "job_assigned", "job": JOB + job, "repo": REPO, "runner": name, "sandbox": null }),
        )
    }

    /// A job ends.
    #[must_use]
    pub(crate) fn completed(self, secs: f64, job: u64, cause: &str) -> Self {
        self.then(
            secs,
            json!({ "event": "job_completed", "job": JOB + job, "repo": REPO, "conclusion": "success", "cause": cause }),
        )
    }

    /// A registration ends.
    #[must_use]
    pub(crate) fn removed(self, secs: f64, name: &str) -> Self {
        let registry = self.registry();
        self.then(secs, json!({ "event": "runner_removed", "repo": registry, "runner": name, "reason": "deleted" }))
    }

    /// A sandbox ends.
    #[must_use]
    pub(crate) fn ended(self, secs: f64, sandbox: &str, name: &str) -> Self {
        self.then(
            secs,
            json!({ "event": "sandbox_ended", "sandbox": sandbox, "name": name, "status": 1, "exit_code": 0 }),
        )
    }

    /// A registration is asked to be deleted, and is.
    #[must_use]
    pub(crate) fn deleted(self, secs: f64, name: &str) -> Self {
        let registry = self.registry();
        self.then(secs, json!({ "event": "runner_delete_asked", "repo": registry, "runner": name, "deleted": true }))
            .removed(secs, name)
            .github(secs, "delete_runner", 204, &json!({ "target": id(name).to_string(), "subject": registry }))
    }

    /// A sandbox is asked to be terminated; `job` is what runs in it.
    #[must_use]
    pub(crate) fn terminated(self, secs: f64, sandbox: &str, name: &str, job: Option<u64>) -> Self {
        self.then(secs, json!({ "event": "terminate_asked", "sandbox": sandbox, "name": name, "job": job })).modal(
            secs,
            "terminate",
            0,
            &json!({ "target": sandbox }),
        )
    }

    /// The whole life of a job from its creation at `secs`: it runs from 5 s on for 60 s.
    #[must_use]
    pub(crate) fn served(self, secs: f64, sandbox: &str, job: u64) -> Self {
        let name = name(job, 1);
        self.started(secs, sandbox, &name)
            .online(secs + 4.0, sandbox, &name)
            .assigned(secs + 5.0, job, &name)
            .completed(secs + 65.0, job, "ran")
            .removed(secs + 65.0, &name)
            .ended(secs + 66.0, sandbox, &name)
    }

    /// A controller is started, stopped or killed.
    #[must_use]
    pub(crate) fn controller(self, secs: f64, change: &str) -> Self {
        let client = self.client;
        self.then(secs, json!({ "event": "controller_changed", "client": client, "change": change }))
    }

    /// The history as it would stand in a file.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The invariants that are violated, in order, each once in a row, by rules that judge the end.
    pub(crate) fn violated(&self, rules: Rules) -> Vec<&'static str> {
        let violations = check(&self.text, rules);
        let mut names: Vec<&'static str> = violations.iter().map(|violation| violation.invariant).collect();
        names.dedup();
        names
    }
}

/// The World goes on: something that is not judged.
pub(crate) fn nothing() -> Value {
    json!({ "event": "something_new", "with": ["any", "fields"] })
}

/// A job is queued.
pub(crate) fn queued(job: u64, labels: &[&str]) -> Value {
    json!({ "event": "job_queued", "job": JOB + job, "run": RUN, "attempt": 1, "repo": REPO, "labels": labels })
}

/// A runner is registered for plain jobs; its config is named like it.
pub(crate) fn registered(name: &str) -> Value {
    json!({ "event": "runner_registered", "repo": REPO, "runner_id": id(name), "runner": name,
        "labels": ["self-hosted", "modal"], "config": format!("config of {name}") })
}

/// A sandbox is created with the config that is named like it.
pub(crate) fn created(sandbox: &str, name: &str, more: &Value) -> Value {
    let created = json!({ "event": "sandbox_created", "sandbox": sandbox, "name": name, "gpu": false,
        "config": format!("config of {name}"), "tags": { "class": "default" }, "timeout_secs": 22_000 });
    merged(created, more)
}

fn merged(mut value: Value, more: &Value) -> Value {
    let fields = value.as_object_mut().expect("an object");
    for (key, field) in more.as_object().into_iter().flatten() {
        fields.insert(key.clone(), field.clone());
    }
    value
}
