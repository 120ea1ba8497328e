//! Environment names of others: those of the earlier Python project, so that its environment file works
//! unchanged, Modal's own, and `GITHUB_API_URL`.

use secrecy::SecretString;

use super::load::{ConfigError, Environment};
use super::value::bad;
use super::{Config, GithubConfig, NetworkConfig, NetworkLists, VolumeConfig};

/// Lays the earlier project's variables over `config`.
pub(super) fn apply_earlier_names(config: &mut Config, environment: &Environment) -> Result<(), ConfigError> {
    let value = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    if let Some(repos) = value("ALLOWED_REPOS") {
        let account = only_account(config, "ALLOWED_REPOS")?;
        account.allowed_repos = repos.split(',').map(|repo| repo.trim().to_owned()).collect();
    }
    apply_github_credentials(config, environment)?;
    if let Some(url) = value("GITHUB_API_URL") {
        only_account(config, "GITHUB_API_URL")?.api_url = Some(url.to_owned());
    }
    if let Some(host) = value("GITHUB_ENTERPRISE_DOMAIN") {
        only_account(config, "GITHUB_ENTERPRISE_DOMAIN")?.host = Some(host.to_owned());
    }
    if let Some(secret) = value("WEBHOOK_SECRET").filter(|_| config.http.webhook_secret_file.is_none()) {
        config.http.webhook_secret.get_or_insert_with(|| SecretString::from(secret.to_owned()));
    }
    if let Some(url) = value("MODAL_SERVER_URL") {
        url.clone_into(&mut config.modal.server_url);
    }
    if let Some(name) = value("MODAL_ENVIRONMENT") {
        name.clone_into(&mut config.modal.environment);
    }
    if let Some(group) = value("RUNNER_GROUP_ID") {
        only_account(config, "RUNNER_GROUP_ID")?.runner_group_id = number("RUNNER_GROUP_ID", group)?;
    }
    if let Some(limit) = value("MAX_CONCURRENT_PER_REPO") {
        config.limits.max_sandboxes_per_repo = Some(number("MAX_CONCURRENT_PER_REPO", limit)?);
    }
    if let Some(version) = value("RUNNER_VERSION") {
        version.clone_into(&mut config.runner.version);
    }
    if let Some(region) = value("MODAL_REGION") {
        config.runner.regions = region.split(',').map(|region| region.trim().to_owned()).collect();
    }
    if let Some(cidrs) = value("ALLOWED_CIDRS") {
        let cidrs = cidrs.split(',').map(|cidr| cidr.trim().to_owned()).collect();
        config.runner.network = NetworkConfig::Only(NetworkLists { cidrs, ..NetworkLists::default() });
    }
    if let Some(block) = value("BLOCK_NETWORK").filter(|block| !["false", "0", "no"].contains(block)) {
        let remedy = "a runner must reach GitHub: remove it, and set runner.network = { domains = [] }, which allows nothing \
                      but GitHub";
        return Err(bad("BLOCK_NETWORK", format!("`{block}`"), remedy));
    }
    if let Some(name) = value("CACHE_VOLUME_NAME") {
        config.runner.volumes =
            vec![VolumeConfig { name: name.to_owned(), path: "/cache".to_owned(), read_only: false }];
    }
    if let Some(json) = value("SANDBOX_EXTRA_ENV") {
        let extra = serde_json::from_str(json).map_err(|error| ConfigError::Value {
            key: "SANDBOX_EXTRA_ENV".into(),
            value: "unreadable".into(),
            remedy: format!("must be a JSON object of texts ({error})"),
        })?;
        config.runner.env = extra;
    }
    Ok(())
}

/// Lays tokens, ids and keys over the accounts; those with credentials of their own keep them.
fn apply_github_credentials(config: &mut Config, environment: &Environment) -> Result<(), ConfigError> {
    let value = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    if let Some(id) = value("GITHUB_APP_ID") {
        only_account(config, "GITHUB_APP_ID")?.app_id = Some(id.to_owned());
    }
    for account in &mut config.github {
        let secret = |name| value(name).map(|value| SecretString::from(value.to_owned()));
        if account.app_id.is_none() && account.token.is_none() && account.token_file.is_none() {
            account.token = secret("GITHUB_TOKEN");
        }
        if account.app_id.is_some() && account.private_key.is_none() && account.private_key_file.is_none() {
            account.private_key = secret("GITHUB_APP_KEY");
        }
    }
    Ok(())
}

/// The account that a variable without a name of an account means.
fn only_account<'a>(config: &'a mut Config, name: &str) -> Result<&'a mut GithubConfig, ConfigError> {
    if config.github.is_empty() {
        config.github.push(GithubConfig::default());
    }
    let count = config.github.len();
    match config.github.as_mut_slice() {
        [account] => Ok(account),
        _ => Err(ConfigError::Value {
            key: name.into(),
            value: "set".into(),
            remedy: format!("there are {count} [[github]] accounts; set it in the file for each instead"),
        }),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::Value {
        key: key.into(),
        value: format!("`{value}`"),
        remedy: "must be a whole number".into(),
    })
}
