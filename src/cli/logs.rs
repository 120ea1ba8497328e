//! `sandrunner logs`: what sandboxes printed that ended without serving, as the daemon kept it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigArguments, Failure, say};
use crate::ids::JobId;
use crate::state_dir::{KeptLog, Which, kept_logs};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The state directory, in place of that of the configuration.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The name of a runner, or the id of the job that it was made for; without it all are listed.
    #[arg(value_name = "NAME|JOB-ID")]
    which: Option<String>,
}

/// Lists what is kept, or prints that of a name or job.
///
/// # Errors
/// [`Failure`] where the arguments or the configuration are wrong, nothing is kept, or nothing of what is asked for.
pub fn run(arguments: &LogsArguments) -> Result<ExitCode, Failure> {
    let which = match arguments.which.as_deref() {
        None => Which::All,
        Some(text) => which(text)?,
    };
    let dir = match &arguments.state_dir {
        Some(dir) => dir.clone(),
        None => arguments.config.kept().map_err(Failure::usage)?.state_dir.ok_or_else(|| {
            Failure::usage("nothing is kept without a state directory: set `state_dir`, or name it with --state-dir")
        })?,
    };
    let kept =
        kept_logs(&dir, &which).map_err(|error| Failure::work(format!("cannot read {}: {error}", dir.display())))?;
    match (&which, &kept[..]) {
        (Which::All, []) => {
            say(&format!("no sandbox that ended without serving has left anything in {}", dir.display()))?;
        }
        (Which::All, logs) => {
            for log in logs {
                say(&line(log))?;
            }
        }
        (Which::Name(_) | Which::Job(_), []) => {
            let asked = arguments.which.as_deref().unwrap_or_default();
            return Err(Failure::work(format!("nothing is kept of `{asked}`; `sandrunner logs` lists what is")));
        }
        (Which::Name(_) | Which::Job(_), logs) => {
            for log in logs {
                say(log.text.trim_end())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn which(text: &str) -> Result<Which, Failure> {
    match (text.parse::<u64>(), text.parse()) {
        (Ok(job), _) => Ok(Which::Job(JobId(job))),
        (_, Ok(name)) => Ok(Which::Name(name)),
        (Err(_), Err(error)) => Err(Failure::usage(format!("{error}, nor the id of a job"))),
    }
}

fn line(log: &KeptLog) -> String {
    format!("{}  {:20}  {}  {}", log.value("ended"), log.value("reason"), log.name, log.value("repository"))
}
