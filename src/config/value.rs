//! Checks of single values, which name the key, the value and the remedy.

use std::time::Duration;

use super::load::ConfigError;
use crate::cost::Usd;

pub(super) fn bad(key: impl Into<String>, value: impl std::fmt::Display, remedy: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), value: value.to_string(), remedy: remedy.into() }
}

pub(super) fn in_range<T: PartialOrd + Copy + std::fmt::Display>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if value < least || value > most {
        return Err(bad(key, value, format!("must be between {least} and {most}")));
    }
    Ok(value)
}

pub(super) fn usd(key: &str, value: f64) -> Result<Usd, ConfigError> {
    let is_one = value > 0.0 && value <= 1e6;
    let usd = Usd::try_from(value).ok().filter(|_| is_one);
    usd.ok_or_else(|| bad(key, value, "must be US dollars: above 0, at most 1000000"))
}

pub(super) fn duration(key: &str, value: Duration, least: u64, most: u64) -> Result<Duration, ConfigError> {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    if value < least || value > most {
        let text = |duration| humantime::format_duration(duration);
        return Err(bad(key, text(value), format!("must be between {} and {}", text(least), text(most))));
    }
    Ok(value)
}

pub(super) fn check_label(key: &str, label: &str) -> Result<(), ConfigError> {
    let is_label = !label.is_empty()
        && label.len() <= 256
        && !label.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',');
    if is_label {
        Ok(())
    } else {
        Err(bad(key, format!("`{label}`"), "a label has 1 to 256 characters, no space and no comma"))
    }
}

/// `plain` are names that the operator says hold no credential.
pub(super) fn check_env_name(key: &str, name: &str, plain: &[String]) -> Result<(), ConfigError> {
    let is_name =
        name.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()));
    if name.is_empty() || !is_name {
        return Err(bad(
            key,
            format!("`{name}`"),
            "a variable's name has letters, digits and `_`, and starts with no digit",
        ));
    }
    if name.starts_with("SANDRUNNER_") || name.starts_with("ACTIONS_RUNNER_") {
        return Err(bad(key, format!("`{name}`"), "this name is used by the supervisor or the runner"));
    }
    let upper = name.to_ascii_uppercase();
    let is_plain = plain.iter().any(|plain| plain == name);
    if !is_plain
        && ["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "PRIVATE_KEY", "API_KEY"]
            .iter()
            .any(|word| upper.contains(word))
    {
        return Err(bad(
            key,
            format!("`{name}`"),
            "looks like a credential, which every job could read; pass it to the job as a GitHub secret, or to all jobs of \
             a class as a Modal Secret (`secrets`); if it is none, name it in runner.plain_env",
        ));
    }
    Ok(())
}

pub(super) fn check_url(key: &str, url: &str) -> Result<String, ConfigError> {
    let parsed: Option<http::Uri> = url.parse().ok();
    let is_loopback = |host: &str| matches!(host, "127.0.0.1" | "localhost" | "[::1]");
    match parsed.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?))) {
        Some(("https", _)) => Ok(url.trim_end_matches('/').to_owned()),
        Some(("http", host)) if is_loopback(host) => Ok(url.trim_end_matches('/').to_owned()),
        Some(_) | None => {
            Err(bad(key, format!("`{url}`"), "must be an https:// address (http:// only for this machine)"))
        }
    }
}
