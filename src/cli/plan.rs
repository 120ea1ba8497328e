//! `sandrunner plan`: looks once and prints what a pass would do. It is given no writer.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{ConfigArguments, Failure, say};
use crate::clock::Clock;
use crate::config::LogFormat;
use crate::controller::Dry;
use crate::daemon::{self, Clients};
use crate::status::Coverage;
use crate::telemetry;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// How long reading may take.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// The plan as a document.
#[derive(Debug, Serialize)]
struct Document {
    coverage: Coverage,
    actions: Vec<String>,
    skips: Vec<SkipDocument>,
}

#[derive(Debug, Serialize)]
struct SkipDocument {
    repo: String,
    run_id: u64,
    job_id: u64,
    class: Option<String>,
    reason: &'static str,
    text: String,
}

/// Reads everything once, plans, prints.
///
/// # Errors
/// [`Failure`] where the configuration is wrong; what cannot be read is part of the answer, and exit code 1.
pub async fn run(arguments: &PlanArguments) -> Result<ExitCode, Failure> {
    let settings = arguments.config.load().map_err(Failure::usage)?;
    telemetry::start(LogFormat::Text, "warn").map_err(Failure::usage)?;
    let clock = Clock::system();
    let clients = Clients::connect(&settings, &clock).map_err(Failure::work)?;
    let Dry { plan, coverage, .. } = daemon::look(&settings, clients, clock, arguments.timeout).await;
    let is_ready = coverage.is_ready() && coverage.unreachable.is_empty() && coverage.runs_unread == 0;
    let document = Document {
        actions: plan.actions.iter().map(ToString::to_string).collect(),
        skips: plan
            .skips
            .iter()
            .map(|skip| SkipDocument {
                repo: skip.scope.repo.to_string(),
                run_id: skip.run.0,
                job_id: skip.job.0,
                class: skip.class.as_ref().map(ToString::to_string),
                reason: skip.reason.as_str(),
                text: skip.reason.to_string(),
            })
            .collect(),
        coverage,
    };
    if arguments.json {
        say(&serde_json::to_string_pretty(&document).map_err(Failure::work)?)?;
    } else {
        print(&document)?;
    }
    Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print(document: &Document) -> Result<(), Failure> {
    let coverage = &document.coverage;
    if let Some(failure) = &coverage.modal_failure {
        say(&format!("Modal could not be read: {failure}"))?;
    }
    for (repo, failure) in &coverage.unreachable {
        say(&format!("{repo} could not be read: {failure}"))?;
    }
    if coverage.runs_unread > 0 {
        say(&format!("the jobs of {} active runs could not be read", coverage.runs_unread))?;
    }
    for action in &document.actions {
        say(&format!("would {action}"))?;
    }
    for skip in &document.skips {
        say(&format!("skip job {} of {}: {}", skip.job_id, skip.repo, skip.text))?;
    }
    let is_whole = coverage.is_ready() && coverage.unreachable.is_empty() && coverage.runs_unread == 0;
    if is_whole && document.actions.is_empty() && document.skips.is_empty() {
        say("nothing to do: no job is queued, and nothing is left over")?;
    }
    Ok(())
}
