//! `sandrunner status`: what a person wants to know of the running daemon, on one screen.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::admin::AdminArguments;
use super::{Failure, say};
use crate::admin::Request;
use crate::explain::span;
use crate::pause::Pause;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Clears the screen, and begins at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Arguments of `status`.
#[expect(clippy::struct_excessive_bools, reason = "two flags that exclude each other")]
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print one JSON object: that of `/api/v1/status`.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Show it anew every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// What is shown of a status; the rest is in its JSON.
#[derive(Debug, Clone, Deserialize)]
struct Shown {
    version: String,
    now: DateTime<Utc>,
    coverage: Coverage,
    last_pass: Option<Pass>,
    pauses: Vec<Pause>,
    sandboxes: Sandboxes,
    classes: BTreeMap<String, Class>,
    skipped: BTreeMap<String, u32>,
    budgets: Vec<Budget>,
    modal: Modal,
    spend: Spend,
    pickup_seconds: Pickups,
}

#[derive(Debug, Clone, Deserialize)]
struct Coverage {
    modal_known_at: Option<DateTime<Utc>>,
    modal_failure: Option<String>,
    repositories: u32,
    repositories_known: u32,
    unreachable: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pass {
    at: DateTime<Utc>,
    seconds: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct Sandboxes {
    live: u32,
    limit: u32,
}

#[derive(Debug, Clone, Deserialize)]
struct Class {
    queued: u32,
    oldest_queued_seconds: Option<i64>,
    sandboxes: BTreeMap<String, u32>,
    limit: Option<u32>,
    breaker: Option<Breaker>,
}

#[derive(Debug, Clone, Deserialize)]
struct Breaker {
    reason: String,
    failures: u32,
    again_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Deserialize)]
struct Budget {
    credential: String,
    resource: String,
    limit: u32,
    remaining: u32,
    reset: DateTime<Utc>,
    held_until: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Modal {
    max_tasks: Option<u32>,
    tasks: Option<u32>,
    max_gpus: Option<u32>,
    gpus: Option<u32>,
    spend_limit_reached: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Spend {
    is_known: bool,
    today: f64,
    per_hour: f64,
    limit: Option<f64>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pickups {
    jobs: usize,
    p50: Option<f64>,
    p95: Option<f64>,
}

/// Asks the daemon, and prints what it says.
///
/// # Errors
/// [`Failure`] where there is no daemon.
pub async fn run(arguments: &StatusArguments) -> Result<ExitCode, Failure> {
    if arguments.json {
        let whole: Box<RawValue> = arguments.admin.ask(&Request::Status).await?;
        say(whole.get())?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let status: Shown = arguments.admin.ask(&Request::Status).await?;
        if !arguments.watch {
            say(&text(&status))?;
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!("{CLEAR}{}", text(&status)))?;
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn text(status: &Shown) -> String {
    let mut lines = vec![coverage(status)];
    lines.extend(status.pauses.iter().map(|Pause { held, since }| {
        format!("paused   {held} for {}: `{}` lets it go on", span(status.now - *since), held.resumed_by())
    }));
    let failures = status.coverage.unreachable.iter().take(3);
    lines.extend(failures.map(|(repo, why)| format!("no sight {repo}: {why}")));
    lines.push(String::new());
    lines.push(classes(status));
    lines.push(String::new());
    lines.extend(facts(status));
    lines.join("\n")
}

fn ago(time: TimeDelta) -> String {
    format!("{} ago", span(time))
}

fn coverage(status: &Shown) -> String {
    let Coverage { modal_known_at, modal_failure, repositories, repositories_known, unreachable } = &status.coverage;
    let modal = match (modal_known_at, modal_failure) {
        (Some(at), None) => format!("Modal read {}", ago(status.now - *at)),
        (Some(at), Some(why)) => format!("Modal read {}, since then: {why}", ago(status.now - *at)),
        (None, Some(why)) => format!("Modal cannot be read: {why}"),
        (None, None) => "Modal not read yet".to_owned(),
    };
    let lost = if unreachable.is_empty() { String::new() } else { format!(" ({} unreachable)", unreachable.len()) };
    let passed = status.last_pass.as_ref().map_or_else(
        || "no pass yet".to_owned(),
        |pass| format!("last pass {}, in {:.0} ms", ago(status.now - pass.at), pass.seconds * 1_000.0),
    );
    format!(
        "sandrunner {}: {repositories_known} of {repositories} repositories known{lost}, {modal}, {passed}",
        status.version
    )
}

/// The classes with anything to tell.
fn classes(status: &Shown) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["CLASS", "QUEUED", "OLDEST", "STARTING", "IDLE", "CLAIMED", "LIMIT", "BREAKER"]);
    let has_news =
        |class: &Class| class.queued > 0 || class.breaker.is_some() || class.sandboxes.values().any(|n| *n > 0);
    let (busy, quiet): (Vec<_>, Vec<_>) = status.classes.iter().partition(|(_, class)| has_news(class));
    for (name, class) in busy {
        let count = |states: &[&str]| states.iter().filter_map(|state| class.sandboxes.get(*state)).sum::<u32>();
        let live = class.sandboxes.values().sum::<u32>();
        let breaker = class.breaker.as_ref().map(|Breaker { reason, failures, again_at }| {
            format!("open after {failures}: {reason}, next try in {}", span(*again_at - status.now))
        });
        table.add_row([
            name.clone(),
            class.queued.to_string(),
            class.oldest_queued_seconds.map_or_else(|| "-".to_owned(), |secs| span(TimeDelta::seconds(secs))),
            count(&["creating", "unscheduled", "starting"]).to_string(),
            count(&["idle"]).to_string(),
            count(&["claimed"]).to_string(),
            class.limit.map_or_else(|| "-".to_owned(), |limit| format!("{live} of {limit}")),
            breaker.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let mut text = table.trim_fmt();
    if !quiet.is_empty() {
        let names: Vec<&str> = quiet.iter().map(|(name, _)| name.as_str()).collect();
        text = format!("{text}\nnothing queued or running: {}", names.join(", "));
    }
    text
}

fn facts(status: &Shown) -> Vec<String> {
    let Shown { now, sandboxes, skipped, budgets, modal, spend, pickup_seconds, .. } = status;
    let mut lines = vec![format!("limit    {} of {} sandboxes", sandboxes.live, sandboxes.limit)];
    if !skipped.is_empty() {
        let reasons: Vec<String> = skipped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.push(format!("waiting  {}", reasons.join(", ")));
    }
    lines.extend(budgets.iter().map(|budget| {
        let Budget { credential, resource, limit, remaining, reset, held_until } = budget;
        let held = held_until.map_or_else(String::new, |until| format!(", held for {}", span(until - *now)));
        format!(
            "GitHub   {credential} ({resource}): {remaining} of {limit} requests left, full in {}{held}",
            span(*reset - *now)
        )
    }));
    let of = |used: Option<u32>, most: Option<u32>| match (used, most) {
        (Some(used), Some(most)) => format!("{used} of {most}"),
        (Some(used), None) => used.to_string(),
        (None, _) => "?".to_owned(),
    };
    let spent = if modal.spend_limit_reached { ", its spend limit is reached" } else { "" };
    lines.push(format!(
        "Modal    {} containers, {} GPUs{spent}",
        of(modal.tasks, modal.max_tasks),
        of(modal.gpus, modal.max_gpus)
    ));
    let limit = spend.limit.map_or_else(String::new, |limit| format!(" of {limit:.2}"));
    let known = if spend.is_known { "" } else { " or more: what was spent before the start is not known yet" };
    lines.push(format!("spend    {:.2}{limit} USD today, {:.2} USD per hour{known}", spend.today, spend.per_hour));
    if let Pickups { jobs, p50: Some(p50), p95: Some(p95) } = pickup_seconds {
        lines.push(format!("pick-up  half within {p50:.0}s, 95% within {p95:.0}s, of the last {jobs} jobs"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_screen_tells_what_waits_and_why() {
        let status: Shown = serde_json::from_value(json!({
            "version": "1.0.0", "now": "2026-11-23T12:00:00Z",
            "coverage": { "modal_known_at": "2026-11-23T11:59:57Z", "modal_failure": null, "repositories": 3,
                "repositories_known": 2, "unreachable": { "acme/gone": "not found" } },
            "last_pass": { "at": "2026-11-23T11:59:58Z", "seconds": 0.0031 },
            "pauses": [{ "held": { "class": "gpu:t4" }, "since": "2026-11-23T10:30:00Z" }],
            "sandboxes": { "live": 5, "limit": 100 },
            "classes": {
                "default": { "queued": 3, "oldest_queued_seconds": 125, "limit": 10, "breaker": null,
                    "sandboxes": { "starting": 1, "claimed": 4 } },
                "gpu:t4": { "queued": 1, "oldest_queued_seconds": 7_300, "limit": null, "sandboxes": {},
                    "breaker": { "reason": "crashed", "failures": 3, "again_at": "2026-11-23T12:01:00Z" } },
                "gpu:l4": { "queued": 0, "oldest_queued_seconds": null, "limit": null, "breaker": null, "sandboxes": {} },
            },
            "skipped": { "at_limit": 2, "breaker": 1 },
            "budgets": [{ "credential": "gh", "resource": "core", "limit": 5000, "remaining": 4321,
                "reset": "2026-11-23T12:12:00Z", "held_until": null }],
            "modal": { "max_tasks": 100, "tasks": 6, "max_gpus": 10, "gpus": 0, "spend_limit_reached": false },
            "spend": { "is_known": true, "today": 1.234, "per_hour": 0.4, "limit": 50.0 },
            "pickup_seconds": { "jobs": 12, "p50": 21.4, "p95": 48.0 },
        }))
        .unwrap();
        let text = text(&status);
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "sandrunner 1.0.0: 2 of 3 repositories known (1 unreachable), Modal read 3s ago, last pass 2s ago, in 3 ms",
                "paused class gpu:t4 for 1h 30m: `sandrunner resume --class gpu:t4` lets it go on",
                "no sight acme/gone: not found",
                "",
                "CLASS QUEUED OLDEST STARTING IDLE CLAIMED LIMIT BREAKER",
                "default 3 2m 5s 1 0 4 5 of 10 -",
                "gpu:t4 1 2h 1m 0 0 0 - open after 3: crashed, next try in 1m 0s",
                "nothing queued or running: gpu:l4",
                "",
                "limit 5 of 100 sandboxes",
                "waiting 2 at_limit, 1 breaker",
                "GitHub gh (core): 4321 of 5000 requests left, full in 12m 0s",
                "Modal 6 of 100 containers, 0 of 10 GPUs",
                "spend 1.23 of 50.00 USD today, 0.40 USD per hour",
                "pick-up half within 21s, 95% within 48s, of the last 12 jobs",
            ]
        );
    }
}
