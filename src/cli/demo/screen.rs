//! What the demo shows: a live table from the daemon's own status, and the summary from the World's history.

use std::time::Duration;

use comfy_table::Table;
use serde_json::Value;

use crate::cli::say;
use crate::sim::{Report, Servers, Summary, World};

/// The most rows of the table; the busiest are shown.
const ROWS: usize = 14;
/// The last actions that are shown.
const ACTIONS: usize = 6;
/// Without a terminal a line of progress is printed every so many looks.
const LOOKS_PER_LINE: u32 = 12;

/// Draws on a terminal, or prints a line now and then.
#[derive(Debug)]
pub(super) struct Screen {
    address: String,
    is_terminal: bool,
    http: reqwest::Client,
    looks: u32,
}

impl Screen {
    pub(super) fn new(address: &str, is_terminal: IsTerminal) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap_or_default();
        Self { address: address.to_owned(), is_terminal, http, looks: 0 }
    }

    pub(super) fn greet(&self, world: &World, servers: &Servers) {
        let scenario = world.scenario();
        show(&format!("{} jobs in {} repositories", scenario.jobs.len(), scenario.repos.len()));
        show(&format!("status:  http://{}/api/v1/status", self.address));
        show(&format!("metrics: http://{}/metrics", self.address));
        show(&format!("control: http://{}/_sim/state, /_sim/faults and so on", servers.github()));
        show("Ctrl-C ends it.");
    }

    /// Asks the daemon and draws.
    pub(super) async fn draw(&mut self, world: &World) {
        if !self.is_terminal {
            self.progress_line(world);
            return;
        }
        let Some(status) = self.status().await else { return };
        // To the top left, and clear what is below.
        let mut text = format!(
            "\u{1b}[H\u{1b}[2Jstatus http://{0}/api/v1/status   metrics http://{0}/metrics   Ctrl-C ends\n\n{1}\n{2}\n{3}\n\n",
            self.address,
            table(&status),
            github(&status),
            totals(&status["pickup_seconds"], &world.summary()),
        );
        let recent = status["recent"].as_array().map(Vec::as_slice).unwrap_or_default();
        for action in recent.iter().rev().take(ACTIONS) {
            text.push_str(action["text"].as_str().unwrap_or_default());
            text.push('\n');
        }
        show(&text);
    }

    async fn status(&self) -> Option<Value> {
        let url = format!("http://{}/api/v1/status", self.address);
        self.http.get(url).send().await.ok()?.json().await.ok()
    }

    fn progress_line(&mut self, world: &World) {
        if let Some(line) = self.line(world) {
            show(&line);
        }
    }

    /// A line on standard error, where standard output belongs to the answer.
    #[expect(clippy::print_stderr, reason = "progress for a person")]
    pub(super) fn progress(&mut self, world: &World) {
        if let Some(line) = self.line(world) {
            eprintln!("{line}");
        }
    }

    fn line(&mut self, world: &World) -> Option<String> {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS_PER_LINE) {
            return None;
        }
        let summary = world.summary();
        Some(format!(
            "{} jobs to come, {} queued, {} running, {} done; {} sandboxes",
            summary.jobs_to_come,
            summary.jobs_queued,
            summary.jobs_in_progress,
            summary.jobs_completed,
            summary.sandboxes_live
        ))
    }
}

/// Whether standard output is a terminal.
type IsTerminal = bool;

/// Shows a line. What cannot be shown stops no demo.
fn show(line: &str) {
    drop(say(line));
}

fn table(status: &Value) -> String {
    let number = |group: &Value, key: &str| group[key].as_u64().unwrap_or(0);
    let mut groups: Vec<&Value> = status["groups"].as_array().map(|groups| groups.iter().collect()).unwrap_or_default();
    let activity = |group: &Value| {
        number(group, "queued") + number(group, "starting") + number(group, "idle") + number(group, "claimed")
    };
    groups.sort_by_key(|group| std::cmp::Reverse((activity(group), number(group, "served"))));
    let mut table = Table::new();
    table.set_header(["repository", "class", "queued", "starting", "idle", "claimed", "done"]);
    for group in groups.iter().take(ROWS) {
        let text = |key: &str| group[key].as_str().unwrap_or_default().to_owned();
        let count = |key: &str| number(group, key).to_string();
        table.add_row([
            text("repo"),
            text("class"),
            count("queued"),
            count("starting"),
            count("idle"),
            count("claimed"),
            count("served"),
        ]);
    }
    let hidden = groups.len().saturating_sub(ROWS);
    let more = if hidden > 0 { format!("\nand {hidden} quieter ones") } else { String::new() };
    format!("{table}{more}")
}

/// A line for each organization with its runner group, for each of its problems, and for each installation of a GitHub
/// App that is suspended.
fn github(status: &Value) -> String {
    let entries = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let word = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    for organization in entries(&status["organizations"]) {
        let (name, wanted) = (word(&organization["organization"]), word(&organization["wanted_group"]));
        let admits = match organization["group"]["admits"].as_str() {
            Some(admits) => format!("admits {admits} repositories"),
            None if organization["known_at"].is_null() => "not read yet".to_owned(),
            None => "not there".to_owned(),
        };
        lines.push(format!("organization {name}, runner group {wanted}: {admits}"));
        lines.extend(entries(&organization["problems"]).iter().map(|problem| format!("  {}", word(problem))));
    }
    for account in entries(&status["accounts"]) {
        let all = entries(&account["installations"]);
        let suspended = all.iter().filter(|installation| installation["is_suspended"] == true);
        lines.extend(suspended.map(|one| format!("the GitHub App at {} is suspended", word(&one["owner"]))));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn totals(pickup: &Value, summary: &Summary) -> String {
    format!(
        "pick-up with boot: p50 {}, p95 {} ({} jobs)   jobs: {} to come, {} queued, {} running, {} done   sandboxes: {}",
        seconds(&pickup["p50"]),
        seconds(&pickup["p95"]),
        pickup["jobs"],
        summary.jobs_to_come,
        summary.jobs_queued,
        summary.jobs_in_progress,
        summary.jobs_completed,
        summary.sandboxes_live,
    )
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1} s"))
}

/// Prints what the run came to.
pub(super) fn summary(report: &Report, wall_seconds: f64) {
    let skipped: Vec<String> = report
        .jobs_skipped
        .iter()
        .map(|(reason, count)| {
            format!(
                "{count} {}",
                serde_json::to_value(reason).ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
            )
        })
        .collect();
    show(&format!(
        "\njobs: {} of {} done, skipped: {}",
        report.jobs_completed,
        report.jobs_expected,
        if skipped.is_empty() { "none".to_owned() } else { skipped.join(", ") }
    ));
    let pickup = report.pickup_seconds;
    show(&format!("pick-up without boot: p50 {:.1} s, p95 {:.1} s, max {:.1} s", pickup.p50, pickup.p95, pickup.max));
    show(&format!(
        "sandboxes: {} created, {} surplus, {} left; runners left: {}",
        report.sandboxes_created, report.surplus_runners, report.sandboxes_live_at_end, report.runners_left_at_end
    ));
    show(&format!(
        "GitHub: {} requests, {} of them not modified, peak {} points per minute; Modal: {} requests",
        report.github_requests, report.github_not_modified, report.github_points_per_minute_peak, report.modal_requests
    ));
    show(&format!("{:.0} s simulated in {wall_seconds:.0} s", report.virtual_seconds));
    if report.violations.is_empty() {
        show("every invariant held");
    }
    for violation in &report.violations {
        show(&format!("violated: {violation}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn organizations_are_shown_with_their_group_and_its_problems_and_suspensions_are_told() {
        let organization = |group: Value, known_at: Value, problems: Value| json!({ "organization": "acme", "wanted_group": "Modal", "group": group, "known_at": known_at, "problems": problems });
        let read = json!("2026-01-01T00:00:00Z");
        let status = json!({
            "organizations": [
                organization(json!({ "admits": "selected" }), read.clone(), json!(["it does not admit acme/web"])),
                organization(Value::Null, read, json!([])),
                organization(Value::Null, Value::Null, json!([])),
            ],
            "accounts": [{ "installations": [
                { "owner": "acme", "is_suspended": false }, { "owner": "beta", "is_suspended": true },
            ] }],
        });
        let told = "organization acme, runner group Modal: admits selected repositories\n  it does not admit acme/web\n\
                    organization acme, runner group Modal: not there\n\
                    organization acme, runner group Modal: not read yet\n\
                    the GitHub App at beta is suspended\n";
        assert_eq!(github(&status), told);
        assert_eq!(github(&json!({})), "");
    }
}
