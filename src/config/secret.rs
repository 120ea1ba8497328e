//! Secrets: from the configuration, a file, a variable or a systemd credential.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::HttpConfig;
use super::load::{ConfigError, Environment};
use super::value::bad;
use crate::http::webhook;

/// Shorter secrets of a webhook could be found by trying: whoever knows one makes us read at will.
const WEBHOOK_SECRET_MIN: usize = 16;

/// The secrets of the webhook, where there is one.
pub(super) fn webhook_secrets(
    http: &HttpConfig,
    environment: &Environment,
) -> Result<Option<webhook::Secrets>, ConfigError> {
    let find = |key, given: &Option<SecretString>, file: &Option<PathBuf>, credential| {
        let secret = secret_if_any(key, given.as_ref(), file.as_deref(), credential, environment)?;
        let is_one_line = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        match &secret {
            Some(secret) if !is_one_line(secret.expose_secret()) => {
                Err(bad(key, "not shown", "must be one line of visible characters"))
            }
            Some(secret) if secret.expose_secret().chars().count() < WEBHOOK_SECRET_MIN => {
                let remedy =
                    format!("must have {WEBHOOK_SECRET_MIN} characters or more: `openssl rand -hex 32` makes one");
                Err(bad(key, "not shown", remedy))
            }
            Some(_) | None => Ok(secret),
        }
    };
    let previous = find(
        "http.webhook_secret_previous",
        &http.webhook_secret_previous,
        &http.webhook_secret_previous_file,
        "webhook-secret-previous",
    )?;
    match find("http.webhook_secret", &http.webhook_secret, &http.webhook_secret_file, "webhook-secret")? {
        Some(current) => Ok(Some(webhook::Secrets::new(current, previous))),
        None if previous.is_some() => {
            Err(bad("http.webhook_secret", "missing", "set it beside webhook_secret_previous, which it replaces"))
        }
        None => Ok(None),
    }
}

/// A secret of one line, trimmed and never empty.
pub(super) fn secret(
    key: &str,
    given: Option<&SecretString>,
    file: Option<&Path>,
    credential: &str,
    environment: &Environment,
) -> Result<SecretString, ConfigError> {
    let text = secret_text(key, given, file, credential, environment)?;
    // Header values take visible ASCII only.
    if text.expose_secret().is_empty() || !text.expose_secret().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad(key, "not shown", "must be one line of visible ASCII characters"));
    }
    Ok(text)
}

/// A secret that has to be there; trimmed.
pub(super) fn secret_text(
    key: &str,
    given: Option<&SecretString>,
    file: Option<&Path>,
    credential: &str,
    environment: &Environment,
) -> Result<SecretString, ConfigError> {
    secret_if_any(key, given, file, credential, environment)?.ok_or_else(|| {
        let variable = credential.replace('-', "_").to_uppercase();
        let remedy = format!("set it, {key}_file, {variable}, or the systemd credential `{credential}`");
        bad(key, "missing", remedy)
    })
}

/// A secret from the configuration, a file, or a systemd credential; trimmed.
fn secret_if_any(
    key: &str,
    given: Option<&SecretString>,
    file: Option<&Path>,
    credential: &str,
    environment: &Environment,
) -> Result<Option<SecretString>, ConfigError> {
    let from_systemd = || {
        let dir = environment.get("CREDENTIALS_DIRECTORY")?;
        Some(PathBuf::from(dir).join(credential)).filter(|path| path.exists())
    };
    let text = match (given, file.map(Path::to_owned).or_else(from_systemd)) {
        (Some(given), _) => given.expose_secret().trim().to_owned(),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|source| ConfigError::SecretFile { key: key.to_owned(), path, source })?;
            text.trim().to_owned()
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(SecretString::from(text)))
}
