//! `sandrunner init`: writes a configuration by asking, and the secrets beside it. It contacts nobody, replaces no file
//! and shows no secret.

mod answers;
mod dialogue;
mod file;
mod manifest;
mod store;

use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use self::answers::{Answers, GithubFlags, MachineFlags, ModalFlags, secrets_of};
use self::dialogue::{Dialogue, Respondent};
use self::store::Store;
use super::{Failure, complain, environment, say};
use crate::config::ConfigError;

/// Where the systemd unit has its configuration.
const CONFIG_OF_UNIT: &str = "/etc/sandrunner/config.toml";

/// Arguments of `init`. What they leave open is asked for where standard input is a terminal.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// The configuration file to write. One that exists is left as it is.
    #[arg(long, env = "SANDRUNNER_CONFIG", value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
    /// Print the manifest of a GitHub App with the permissions that are needed, and where it goes; write nothing.
    #[arg(long)]
    app_manifest: bool,
    /// Where secrets are kept. Default: `credstore` for /etc/sandrunner/config.toml, else `files`.
    #[arg(long, value_enum)]
    secrets: Option<Keeping>,
    /// The folder of the secrets, in place of /etc/credstore, or of `secrets` beside the configuration.
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    #[command(flatten)]
    github: GithubFlags,
    #[command(flatten)]
    modal: ModalFlags,
    #[command(flatten)]
    machines: MachineFlags,
}

/// Where secrets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keeping {
    /// In files of mode 0600, which the configuration names.
    Files,
    /// Where the systemd unit takes them from, for root alone.
    Credstore,
    /// Nowhere: the environment has them when the daemon starts.
    Environment,
}

/// Why no configuration was written.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{} exists, and is left as it is: give another --config, or move it away", .0.display())]
    Exists(PathBuf),
    #[error("{} exists and holds another secret: remove it first if it is to be replaced", .0.display())]
    OtherSecret(PathBuf),
    #[error("{flag} is missing ({what}), and nobody can be asked: standard input is no terminal")]
    Missing { flag: &'static str, what: &'static str },
    #[error("the answers ended before the questions")]
    NoAnswer,
    #[error("cannot ask")]
    Ask(#[source] std::io::Error),
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("nothing was written: with these answers the configuration would be refused")]
    Refused(#[source] ConfigError),
}

impl InitError {
    /// What the arguments or answers are to blame for is told from what failed at work.
    fn failure(self) -> Failure {
        match self {
            Self::Exists(_)
            | Self::OtherSecret(_)
            | Self::Missing { .. }
            | Self::NoAnswer
            | Self::Read { .. }
            | Self::Refused(_) => Failure::usage(self),
            Self::Ask(_) | Self::Write { .. } => Failure::work(self),
        }
    }
}

/// Asks, checks, and writes; or prints the manifest of a GitHub App.
///
/// # Errors
/// [`Failure`] where an answer is missing or wrong, something exists already, or it cannot be written.
pub fn run(arguments: &InitArguments) -> Result<ExitCode, Failure> {
    if arguments.app_manifest {
        say(&manifest::text(&arguments.github))?;
        explain(&manifest::explanation(&arguments.github));
        return Ok(ExitCode::SUCCESS);
    }
    let mut respondent = if std::io::stdin().is_terminal() {
        explain("Nothing is contacted, and nothing is written before the last question. Ctrl-C ends this.\n");
        Respondent::Person(Dialogue::at_terminal())
    } else {
        Respondent::Nobody
    };
    let done = write(arguments, &mut respondent).map_err(InitError::failure)?;
    for line in done {
        say(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was done and what is left to do, line by line.
fn write(arguments: &InitArguments, respondent: &mut Respondent<'_>) -> Result<Vec<String>, InitError> {
    let InitArguments { config, app_manifest: _, secrets: _, secrets_dir: _, github, modal, machines } = arguments;
    if config.symlink_metadata().is_ok() {
        return Err(InitError::Exists(config.clone()));
    }
    let answers = Answers::ask(github, modal, machines, respondent)?;
    let store = arguments.store()?;
    let secrets = secrets_of(&answers, (github, modal), &environment(), respondent)?;
    let text = file::text(&answers, &store);
    file::check(&text, &secrets).map_err(InitError::Refused)?;
    let mut lines = store.keep(&secrets)?;
    store::create(config, &text, 0o644).map_err(|source| {
        if source.kind() == ErrorKind::AlreadyExists {
            return InitError::Exists(config.clone());
        }
        InitError::Write { path: config.clone(), source }
    })?;
    lines.insert(0, format!("wrote {}, which holds no secret", config.display()));
    lines.extend(next_steps(config));
    Ok(lines)
}

impl InitArguments {
    fn store(&self) -> Result<Store, InitError> {
        let is_of_unit = self.config == Path::new(CONFIG_OF_UNIT);
        let usual = if is_of_unit { Keeping::Credstore } else { Keeping::Files };
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|source| InitError::Read { path: path.to_owned(), source });
        let dir = self.secrets_dir.as_deref().map(absolute).transpose()?;
        Ok(match self.secrets.unwrap_or(usual) {
            Keeping::Files => {
                let beside = absolute(&self.config)?.with_file_name("secrets");
                Store::Files(dir.unwrap_or(beside))
            }
            Keeping::Credstore => Store::Credstore(dir.unwrap_or_else(|| PathBuf::from("/etc/credstore"))),
            Keeping::Environment => Store::Environment,
        })
    }
}

fn next_steps(config: &Path) -> Vec<String> {
    if config == Path::new(CONFIG_OF_UNIT) {
        return vec![
            "then look whether all of it suits: sandrunner check, as docs/setup.md tells".to_owned(),
            "and: systemctl enable --now sandrunner".to_owned(),
        ];
    }
    let file = config.display();
    vec![
        format!("then look whether all of it suits: sandrunner check --config {file}"),
        format!("and what would be done: sandrunner plan --config {file}"),
        format!("and run it: sandrunner run --config {file}"),
    ]
}

/// Tells a person what is no part of the answer.
fn explain(text: &str) {
    dialogue::tell(text).unwrap_or_else(|error| complain(&error));
}
