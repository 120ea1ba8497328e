//! The command line. Exit codes: 0 as asked, 1 failed, 2 wrong configuration or arguments; `check` has its own.

pub mod admin;
pub mod check;
pub mod cost;
#[cfg(feature = "sim")]
pub mod demo;
pub mod explain;
pub mod hold;
pub mod image;
pub mod init;
pub mod logs;
pub mod plan;
pub mod run;
#[cfg(feature = "sim")]
pub mod simulate;
pub mod status;

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "sim")]
use self::simulate::SimulateError;
use crate::config::{ConfigError, Defined, Environment, Kept, Settings};
use crate::error::ErrorChain;

/// Runs GitHub Actions jobs in Modal sandboxes.
#[derive(Debug, Parser)]
#[command(name = "sandrunner", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration by asking, or print the manifest of a GitHub App.
    Init(init::InitArguments),
    /// Run the daemon.
    Run(run::RunArguments),
    /// Print what one pass would do, and change nothing.
    Plan(plan::PlanArguments),
    /// Check configuration, credentials, permissions, runner groups, Modal and classes, each with what to do about it.
    Check(check::CheckArguments),
    /// Show how the running daemon fares: jobs that wait, sandboxes, limits, budgets.
    Status(status::StatusArguments),
    /// Tell what a job waits for, since when, what was tried and what happens next.
    Explain(explain::ExplainArguments),
    /// Have the running daemon create nothing more: at all, of a class, or for a repository. What runs goes on.
    Pause(hold::HoldArguments),
    /// Have it create again: everything, or what was paused by itself.
    Resume(hold::HoldArguments),
    /// Pause everything, and wait until no sandbox is left.
    Drain(hold::DrainArguments),
    /// Build, list and show the images of the configuration.
    Image(image::ImageArguments),
    /// Show what sandboxes printed that ended without serving, as far as it was kept.
    Logs(logs::LogsArguments),
    /// Print what sandboxes have cost, from the files of the state directory.
    Cost(cost::CostArguments),
    /// Run the controller against simulated services, with a workload.
    #[cfg(feature = "sim")]
    Demo(demo::DemoArguments),
    /// Run the simulated GitHub and Modal alone, until stopped.
    #[cfg(feature = "sim")]
    Simulate(simulate::SimulateArgs),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The configuration file.
    #[arg(long, env = "SANDRUNNER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArguments {
    /// Reads the file and the environment.
    fn load(&self) -> Result<Settings, ConfigError> {
        crate::config::load(self.config.as_deref(), &environment())
    }

    /// Reads only where the daemon is reached.
    fn admin_socket(&self) -> Result<Option<PathBuf>, ConfigError> {
        crate::config::admin_socket(self.config.as_deref(), &environment())
    }

    /// Reads only where files are kept.
    fn kept(&self) -> Result<Kept, ConfigError> {
        crate::config::kept(self.config.as_deref(), &environment())
    }

    /// Reads only what images are defined, and where files are kept.
    fn defined(&self) -> Result<(Defined, Kept), ConfigError> {
        crate::config::defined(self.config.as_deref(), &environment())
    }
}

/// A variable that is no text cannot be one of ours.
fn environment() -> Environment {
    let variables = std::env::vars_os();
    variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Why a command failed, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// The reason.
    pub cause: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// Failed at work.
    fn work(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { code: 1, cause: cause.into() }
    }

    /// The configuration or the arguments are wrong.
    fn usage(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { code: 2, cause: cause.into() }
    }
}

/// Carries out a command.
///
/// # Errors
/// [`Failure`] with its exit code.
pub async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Run(arguments) => Box::pin(run::run(arguments)).await,
        Command::Plan(arguments) => plan::run(&arguments).await,
        Command::Check(arguments) => check::run(&arguments).await,
        Command::Status(arguments) => status::run(&arguments).await,
        Command::Explain(arguments) => explain::run(&arguments).await,
        Command::Pause(arguments) => hold::pause(arguments).await,
        Command::Resume(arguments) => hold::resume(arguments).await,
        Command::Drain(arguments) => hold::drain(arguments).await,
        Command::Image(arguments) => image::run(arguments).await,
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Cost(arguments) => cost::run(arguments).await,
        #[cfg(feature = "sim")]
        Command::Demo(arguments) => demo::run(arguments).await,
        #[cfg(feature = "sim")]
        Command::Simulate(arguments) => {
            simulate::run(arguments, stopped(), std::io::stdout()).await.map_err(|error| match error {
                SimulateError::Profile(_) | SimulateError::Scenario(_) => Failure::usage(error),
                SimulateError::Serve { .. } | SimulateError::History { .. } | SimulateError::Output(_) => {
                    Failure::work(error)
                }
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints an error with its causes for a person.
#[expect(clippy::print_stderr, reason = "the command line speaks to a person here")]
pub fn complain(error: &(dyn Error + 'static)) {
    eprintln!("sandrunner: {}", ErrorChain(error));
}

/// Prints a line of a command's answer. Where nobody reads any more, as behind `head`, there is nobody to tell.
///
/// # Errors
/// [`Failure`] where it cannot be written for another reason.
fn say(line: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::work(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Completes at Ctrl-C or SIGTERM. From this call on, not only from the first poll on, neither ends the process.
fn stopped() -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    async move {
        let received = signals.into_iter().flatten().map(|mut signal| Box::pin(async move { signal.recv().await }));
        let received: Vec<_> = received.collect();
        if received.is_empty() {
            // None can be listened to: they end the process as they do by themselves.
            std::future::pending::<()>().await;
        }
        futures::future::select_all(received).await;
    }
}
