//! The configuration: a file, and after a line `---` variables of the environment. What is wrong is named by its key,
//! and no token is repeated.
#![no_main]

use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sandrunner::config::{ConfigError, Environment, read};
use sandrunner::error::ErrorChain;
use sandrunner::plan::AccountPolicy;

/// Every token of the corpus begins so.
const CANARY: &str = "canary";

fn environment(text: &str) -> Environment {
    let tokens =
        [("GITHUB_TOKEN", "ghp_canary1"), ("MODAL_TOKEN_ID", "ak-canary2"), ("MODAL_TOKEN_SECRET", "as-canary3")];
    let given = text.lines().filter_map(|line| line.split_once('='));
    // Files stay out of it.
    let given =
        given.filter(|(name, _)| !name.to_ascii_uppercase().contains("_FILE") && *name != "CREDENTIALS_DIRECTORY");
    tokens.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Whether the canary stands only where a secret may stand: then nothing may repeat it.
fn hides_secrets(text: &str) -> bool {
    text.lines().filter(|line| line.contains(CANARY)).all(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        ["token", "token_id", "token_secret"].contains(&key) && line.matches(CANARY).count() == 1
    })
}

/// Whether it serves a repository that it names, or those of a pattern.
fn serves_some(account: &AccountPolicy) -> bool {
    let patterns = &account.patterns;
    !account.repos.is_empty() || !patterns.owners().is_empty() || patterns.is_for_all_owners()
}

fuzz_target!(|text: &str| {
    let (file, variables) = text.split_once("\n---\n").unwrap_or((text, ""));
    // Names of variables are told in lower case.
    if file.contains("_file") || variables.to_ascii_lowercase().contains(CANARY) {
        return;
    }
    let environment = environment(variables);
    match read(file, Path::new("config.toml"), &environment) {
        Ok(settings) => {
            assert!((Duration::from_secs(1)..=Duration::from_secs(600)).contains(&settings.policy.interval));
            assert!(!settings.policy.accounts.is_empty() && !settings.policy.classes.is_empty());
            assert!(settings.policy.accounts.values().all(serves_some));
            assert!(settings.policy.classes.iter().all(|class| class.clocks.sandbox_timeout().as_secs() <= 86_400));
            assert!(!hides_secrets(file) || !format!("{settings:?}").contains(CANARY));
        }
        Err(error) => {
            let said = ErrorChain(&error).to_string();
            if let ConfigError::Value { key, remedy, .. } = &error {
                assert!(!key.is_empty() && !remedy.is_empty() && said.contains(key), "{said}");
            }
            assert!(!hides_secrets(file) || !said.contains(CANARY), "{said}");
        }
    }
});
