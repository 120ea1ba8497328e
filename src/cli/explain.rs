//! `sandrunner explain`: what a job waits for. It asks the daemon; where there is none, it looks once itself.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::admin::AdminArguments;
use super::{Failure, say};
use crate::admin::{self, AdminError, Request};
use crate::clock::Clock;
use crate::config::{LogFormat, Settings};
use crate::controller::Dry;
use crate::daemon::{self, Clients};
use crate::explain::{Asked, Explanation, Known, explain};
use crate::telemetry;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// How long reading may take where no daemon answers.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The address of a job or a run on GitHub, or its id.
    #[arg(value_name = "JOB-URL|RUN-URL|ID")]
    asked: String,
}

/// Asks the daemon, or looks once.
///
/// # Errors
/// [`Failure`] where the arguments are wrong, or there is neither a daemon nor a configuration to look with.
pub async fn run(arguments: &ExplainArguments) -> Result<ExitCode, Failure> {
    let asked: Asked = arguments.asked.parse().map_err(Failure::usage)?;
    let path = arguments.admin.path()?;
    let explanation = match admin::ask(&path, &Request::Explain(arguments.asked.clone())).await {
        Ok(explanation) => explanation,
        Err(absent @ AdminError::Absent { .. }) => {
            // Whoever has no configuration wants to know about the daemon, not about that.
            let settings = arguments.admin.config.load().map_err(|_| Failure::work(absent))?;
            look(&asked, &settings, arguments.timeout).await?
        }
        Err(error @ (AdminError::Silent { .. } | AdminError::Refused(_) | AdminError::Unreadable(_))) => {
            return Err(Failure::work(error));
        }
    };
    if arguments.json {
        say(&serde_json::to_string_pretty(&explanation).map_err(Failure::work)?)?;
    } else {
        say(explanation.to_string().trim_end())?;
    }
    Ok(if explanation.jobs.is_empty() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

async fn look(asked: &Asked, settings: &Settings, limit: Duration) -> Result<Explanation, Failure> {
    telemetry::start(LogFormat::Text, "warn").map_err(Failure::usage)?;
    let clock = Clock::system();
    let clients = Clients::connect(settings, &clock).map_err(Failure::work)?;
    let Dry { plan, coverage, observed, evidence } = daemon::look(settings, clients, clock.clone(), limit).await;
    let (policy, ends, now) = (&settings.policy, &VecDeque::new(), clock.now());
    let known = Known { observed: &observed, evidence: &evidence, plan: &plan, policy, ends, now };
    let mut explanation = explain(asked, &known);
    explanation.notes.push(
        "no daemon answers: this is what one look shows, which knows nothing of what was tried before".to_owned(),
    );
    if let Some(failure) = &coverage.modal_failure {
        explanation.notes.push(format!("Modal could not be read: {failure}"));
    }
    Ok(explanation)
}
