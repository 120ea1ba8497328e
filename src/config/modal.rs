//! What `[modal]` means.

use secrecy::SecretString;

use super::ModalConfig;
use super::load::{ConfigError, Environment};
use super::secret::secret;
use super::value::{bad, check_url, duration, in_range};
use crate::modal::ModalSettings;

pub(super) fn settings(modal: &ModalConfig, environment: &Environment) -> Result<ModalSettings, ConfigError> {
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !is_name(&modal.app) {
        return Err(bad(
            "modal.app",
            format!("`{}`", modal.app),
            "must be 1 to 64 characters of a-z, A-Z, 0-9, `-`, `_`, `.`",
        ));
    }
    let from = |variable: &str, given: &Option<SecretString>| {
        given.clone().or_else(|| {
            environment.get(variable).filter(|value| !value.trim().is_empty()).map(|value| value.clone().into())
        })
    };
    let token_id = from("MODAL_TOKEN_ID", &modal.token_id);
    let token_secret = from("MODAL_TOKEN_SECRET", &modal.token_secret);
    Ok(ModalSettings {
        server_url: check_url("modal.server_url", &modal.server_url)?,
        token_id: secret(
            "modal.token_id",
            token_id.as_ref(),
            modal.token_id_file.as_deref(),
            "modal-token-id",
            environment,
        )?,
        token_secret: secret(
            "modal.token_secret",
            token_secret.as_ref(),
            modal.token_secret_file.as_deref(),
            "modal-token-secret",
            environment,
        )?,
        app_name: modal.app.clone(),
        environment: modal.environment.clone(),
        client_type: modal.client_type,
        client_version: modal.client_version.clone(),
        image_builder_version: modal.image_builder_version.clone(),
        max_throttle_wait: duration("modal.max_throttle_wait", modal.max_throttle_wait, 0, 600)?,
    })
}

/// Creates per second, and at once.
pub(super) fn creates(modal: &ModalConfig) -> Result<(f64, u32), ConfigError> {
    let rate = in_range("modal.creates_per_second", modal.creates_per_second, 0.1, 1_000.0)?;
    Ok((rate, in_range("modal.create_burst", modal.create_burst, 1, 10_000)?))
}
