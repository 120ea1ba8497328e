//! Log lines: text for people or JSON for machines, to standard error, where systemd's journal takes them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::config::LogFormat;

/// Libraries that log what operators need not see.
const QUIET: &str = "tokio_cron_scheduler=warn,h2=warn,hyper=warn,tower=warn,octocrab=warn";

/// A log filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`log.level` is `{level}`: must be a level such as info, or a filter such as sandrunner=debug")]
pub struct InvalidFilter {
    level: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging.
///
/// # Errors
/// [`InvalidFilter`] where `level` is no filter.
pub fn start(format: LogFormat, level: &str) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"))
        .map_err(|source| InvalidFilter { level: level.to_owned(), source })?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        // A second start, as in tests, changes nothing.
        LogFormat::Text => registry().with(filter).with(lines.with_ansi(false)).try_init().unwrap_or_default(),
        LogFormat::Json => {
            registry().with(filter).with(lines.json().flatten_event(true)).try_init().unwrap_or_default();
        }
    }
    Ok(())
}
