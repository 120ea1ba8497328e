//! Reads the file, lays the environment over it, and says clearly what is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{File, FileFormat};

use super::settings::{admin_socket_of, deployment_of, state_directory};
use super::{Config, Defined, Settings, environment};
use crate::ids::Deployment;

/// The environment variables that the configuration is read from, as data.
pub type Environment = BTreeMap<String, String>;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {} is wrong:\n{message}", .path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A variable of the environment does not fit.
    #[error("the environment does not fit the configuration: {0}")]
    Layered(String),
    /// A value is not allowed.
    #[error("`{key}` is {value}: {remedy}")]
    Value {
        /// The key.
        key: String,
        /// Its value, or that it is missing.
        value: String,
        /// What is allowed.
        remedy: String,
    },
    /// A file with a secret cannot be read.
    #[error("`{key}`: cannot read {}", .path.display())]
    SecretFile {
        /// The key that names the file.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Reads and checks everything, before anything is contacted.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Settings, ConfigError> {
    read(&text_of(path)?, path.unwrap_or(Path::new("(none)")), environment)
}

fn text_of(path: Option<&Path>) -> Result<String, ConfigError> {
    match path {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })
        }
        None => Ok(String::new()),
    }
}

/// Where an installation keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The directory; none where it keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Its name.
    pub deployment: Deployment,
}

/// Reads only where files are kept: who looks at them needs no credentials.
///
/// # Errors
/// [`ConfigError`] where the file cannot be read.
pub fn kept(path: Option<&Path>, environment: &Environment) -> Result<Kept, ConfigError> {
    kept_of(&parse(&text_of(path)?, path.unwrap_or(Path::new("(none)")), environment)?, environment)
}

/// Reads only where the daemon is reached: who asks it needs no credentials.
///
/// # Errors
/// [`ConfigError`] where the file cannot be read.
pub fn admin_socket(path: Option<&Path>, environment: &Environment) -> Result<Option<PathBuf>, ConfigError> {
    let config = parse(&text_of(path)?, path.unwrap_or(Path::new("(none)")), environment)?;
    Ok(admin_socket_of(config.admin_socket.as_deref(), environment))
}

/// Reads what images are defined, and where files are kept: who looks at them needs no credentials.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn defined(path: Option<&Path>, environment: &Environment) -> Result<(Defined, Kept), ConfigError> {
    let config = parse(&text_of(path)?, path.unwrap_or(Path::new("(none)")), environment)?;
    Ok((Defined::new(&config)?, kept_of(&config, environment)?))
}

fn kept_of(config: &Config, environment: &Environment) -> Result<Kept, ConfigError> {
    let deployment = deployment_of(&config.deployment)?;
    Ok(Kept { state_dir: state_directory(config.state_dir.as_deref(), environment), deployment })
}

/// Reads and checks everything of a text, called `path` in errors.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn read(text: &str, path: &Path, environment: &Environment) -> Result<Settings, ConfigError> {
    let config = parse(text, path, environment)?;
    Settings::new(&config, environment)
}

/// The file and the environment, layered.
pub(super) fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Config, ConfigError> {
    // The layering crate names no line; toml alone does, so it reads first.
    let _: Config = toml::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: told(&error, text) })?;
    let ours = environment.iter().filter(|(name, _)| name.starts_with("SANDRUNNER__"));
    let variables = config::Environment::with_prefix("SANDRUNNER")
        .prefix_separator("__")
        .separator("__")
        .ignore_empty(true)
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("runner.regions")
        .source(Some(ours.map(|(name, value)| (name.clone(), value.clone())).collect()));
    let mut config: Config = config::Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .add_source(variables)
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| ConfigError::Layered(error.to_string()))?;
    environment::apply_earlier_names(&mut config, environment)?;
    Ok(config)
}

/// What is wrong, with the line where it is wrong unless a secret may stand in it.
fn told(error: &toml::de::Error, text: &str) -> String {
    let whole = error.to_string();
    let is_secret = |text: &str| {
        ["token", "secret", "private_key", "private key"].iter().any(|word| text.to_lowercase().contains(word))
    };
    // A secret over several lines would be shown without its key.
    let has_long_strings = text.contains("\"\"\"") || text.contains("'''");
    if !is_secret(&whole) && !has_long_strings {
        return whole;
    }
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let line = before.matches('\n').count() + 1;
    format!("line {line}, column {column}: {} (the line is not shown: it may hold a secret)", error.message())
}
