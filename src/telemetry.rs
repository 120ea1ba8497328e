//! Log lines: text for people or JSON for machines, to standard error, where systemd's journal takes them.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, registry, reload};

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

/// What is logged, checked.
#[derive(Debug)]
pub struct Filter(EnvFilter);

impl Filter {
    /// Reads `log.level`.
    ///
    /// # Errors
    /// [`InvalidFilter`] where it is no filter.
    pub fn parse(level: &str) -> Result<Self, InvalidFilter> {
        let filter = EnvFilter::try_new(format!("{QUIET},{level}"));
        filter.map(Self).map_err(|source| InvalidFilter { level: level.to_owned(), source })
    }
}

/// Changes what is logged by a process that logs.
#[derive(Debug)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Logs by another filter from here on.
    pub fn set(&self, filter: Filter) {
        // It fails where another logger was there before, as in tests, which then goes on.
        drop(self.0.reload(filter.0));
    }
}

/// Starts logging; its filter can be changed.
///
/// # Errors
/// [`InvalidFilter`] where `level` is no filter.
pub fn start(format: LogFormat, level: &str) -> Result<LogFilter, InvalidFilter> {
    let (filter, handle) = reload::Layer::new(Filter::parse(level)?.0);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        // A second start, as in tests, changes nothing.
        LogFormat::Text => registry().with(filter).with(lines.with_ansi(false)).try_init().unwrap_or_default(),
        LogFormat::Json => {
            registry().with(filter).with(lines.json().flatten_event(true)).try_init().unwrap_or_default();
        }
    }
    Ok(LogFilter(handle))
}
