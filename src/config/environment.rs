//! Environment names of others: those of the earlier Python project, so that its environment file works
//! unchanged, Modal's own, and `GITHUB_API_URL`.

use secrecy::SecretString;

use super::load::{ConfigError, Environment};
use super::value::bad;
use super::{Config, GithubConfig, NetworkConfig, NetworkLists, VolumeConfig};

/// A variable of the earlier project that is set and does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unused {
    /// Its name.
    pub name: &'static str,
    /// What does its work.
    pub replacement: &'static str,
}

/// Everything else that could be set there. Its numbers were constants of a program that webhooks drove.
const UNUSED: [Unused; 8] = [
    Unused { name: "TIMEOUT_SECONDS", replacement: "`timeout` of a runner class, 6h by default" },
    Unused { name: "RUNNER_ALLOW_RUNASROOT", replacement: "`run_as_root` of a runner class, true by default" },
    Unused { name: "HTTP_TIMEOUT_SECONDS", replacement: "nothing to set: every call has a deadline of its own" },
    Unused { name: "MAX_BODY_SIZE", replacement: "nothing to set: a delivery has 1 MiB at most" },
    Unused { name: "DELIVERY_CACHE_MAX_SIZE", replacement: "nothing to set: 10000 deliveries are remembered" },
    Unused {
        name: "JOB_DEDUP_WINDOW_SECONDS",
        replacement: "nothing to set: jobs and runners are counted anew at each pass",
    },
    Unused {
        name: "MAX_PROCESSED_CACHE_SIZE",
        replacement: "nothing to set: jobs and runners are counted anew at each pass",
    },
    Unused {
        name: "RUN_STALE_THRESHOLD_SECONDS",
        replacement: "nothing to set: a job that is given to nobody is a `ghost_job`",
    },
];

/// Those that are set and do nothing.
pub(super) fn unused(environment: &Environment) -> Vec<Unused> {
    UNUSED.into_iter().filter(|unused| environment.contains_key(unused.name)).collect()
}

/// Lays the earlier project's variables over `config`.
pub(super) fn apply_earlier_names(config: &mut Config, environment: &Environment) -> Result<(), ConfigError> {
    let value = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    if let Some(repos) = value("ALLOWED_REPOS") {
        let account = only_account(config, "ALLOWED_REPOS")?;
        account.allowed_repos = entries(repos);
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
        config.runner.regions = entries(region);
    }
    if let Some(cidrs) = value("ALLOWED_CIDRS") {
        config.runner.network = NetworkConfig::Only(NetworkLists { cidrs: entries(cidrs), ..NetworkLists::default() });
    }
    if let Some(block) = value("BLOCK_NETWORK").filter(|block| !["false", "0", "no"].contains(&&*block.to_lowercase()))
    {
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

/// The parts of a list, as the earlier project took it: with spaces and a last comma.
fn entries(list: &str) -> Vec<String> {
    list.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| ConfigError::Value {
        key: key.into(),
        value: format!("`{value}`"),
        remedy: "must be a whole number".into(),
    })
}
