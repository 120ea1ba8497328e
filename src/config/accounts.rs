//! What `[[github]]` means: hosts, credentials, and what each account serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use secrecy::ExposeSecret;

use super::load::{ConfigError, Environment};
use super::secret::{secret, secret_text};
use super::value::{bad, check_url, in_range};
use super::{GithubConfig, OrganizationConfig};
use crate::allow::RepoPatterns;
use crate::budget::BudgetLimits;
use crate::github::{AppKey, GithubAuth, GithubSettings};
use crate::ids::{AccountName, OrgName, RepoName};
use crate::plan::{AccountPolicy, Credentials, RunnerGroupChoice};

/// What each account serves.
pub(super) fn policies(github: &[GithubConfig]) -> Result<BTreeMap<AccountName, AccountPolicy>, ConfigError> {
    if github.is_empty() {
        return Err(bad("github", "missing", "add a [[github]] table with `allowed_repos`"));
    }
    let mut accounts = BTreeMap::new();
    let mut seen: BTreeSet<(String, RepoName)> = BTreeSet::new();
    for (index, account) in github.iter().enumerate() {
        let key = |field: &str| format!("github[{index}].{field}");
        let name: AccountName = account.name.parse().map_err(|_| {
            bad(key("name"), format!("`{}`", account.name), "must be 1 to 12 characters of a-z and 0-9")
        })?;
        let policy = policy(index, account)?;
        for repo in &policy.repos {
            if !seen.insert((policy.host.clone(), repo.clone())) {
                return Err(bad(key("allowed_repos"), format!("`{repo}` twice"), "name each repository once"));
            }
        }
        if accounts.insert(name.clone(), policy).is_some() {
            return Err(bad(key("name"), format!("`{name}` twice"), "give each account its own name"));
        }
    }
    Ok(accounts)
}

fn policy(index: usize, account: &GithubConfig) -> Result<AccountPolicy, ConfigError> {
    let key = format!("github[{index}].allowed_repos");
    let credentials = if account.app_id.is_some() { Credentials::PerOwner } else { Credentials::One };
    let (repos, patterns) = allow_list(&key, &account.allowed_repos)?;
    if credentials == Credentials::One && patterns.is_for_all_owners() {
        let remedy = "a token cannot tell what it sees: name owners, as in \"owner/*\", or use a GitHub App";
        return Err(bad(key, "a pattern for every owner", remedy));
    }
    let host = api_url(index, account)?;
    let runner_group_id = account.runner_group_id;
    let serves = |org: &OrgName| {
        repos.iter().any(|repo| repo.owner() == org.as_str())
            || patterns.is_for_all_owners()
            || patterns.owners().iter().any(|owner| ***owner == *org.as_str())
    };
    let organizations = organizations(index, account, serves)?;
    Ok(AccountPolicy { order: index, host, repos, patterns, runner_group_id, organizations, credentials })
}

/// The organizations with runners of their own, each with the runner group to join.
fn organizations(
    index: usize,
    account: &GithubConfig,
    serves: impl Fn(&OrgName) -> bool,
) -> Result<BTreeMap<OrgName, RunnerGroupChoice>, ConfigError> {
    let mut organizations = BTreeMap::new();
    for (at, organization) in account.organizations.iter().enumerate() {
        let key = |field: &str| format!("github[{index}].organizations[{at}].{field}");
        let OrganizationConfig { name, runner_group, runner_group_id } = organization;
        let org: OrgName =
            name.parse().map_err(|_| bad(key("name"), format!("`{name}`"), "must be the login of an organization"))?;
        if !serves(&org) {
            return Err(bad(key("name"), format!("`{name}`"), "no allowed repository belongs to it: remove it"));
        }
        let group = match (runner_group, runner_group_id) {
            (Some(group), None) if !group.trim().is_empty() => RunnerGroupChoice::Name(group.clone()),
            (None, Some(id)) => RunnerGroupChoice::Id(*id),
            (Some(_), Some(_)) => return Err(bad(key("runner_group"), "given by name and by id", "give one of them")),
            (Some(_) | None, None) => {
                let remedy = "name a runner group that admits the allowed repositories and no other";
                return Err(bad(key("runner_group"), "missing", remedy));
            }
        };
        if organizations.insert(org, group).is_some() {
            return Err(bad(key("name"), format!("`{name}` twice"), "name each organization once"));
        }
    }
    Ok(organizations)
}

/// The repositories that are named, and the patterns for others.
fn allow_list(key: &str, entries: &[String]) -> Result<(BTreeSet<RepoName>, RepoPatterns), ConfigError> {
    let remedy =
        "each entry must be \"owner/name\", \"owner/*\", \"owner/prefix-*\", \"*\", or such with `!` before it";
    let (mut repos, mut patterns) = (BTreeSet::new(), RepoPatterns::default());
    for entry in entries.iter().map(|entry| entry.trim()) {
        let odd = |_| bad(key, format!("`{entry}`"), remedy);
        if let Some(excluded) = entry.strip_prefix('!') {
            patterns.excluded.push(excluded.parse().map_err(odd)?);
        } else if entry.contains('*') {
            patterns.served.push(entry.parse().map_err(odd)?);
        } else if !repos.insert(entry.parse().map_err(odd)?) {
            return Err(bad(key, format!("`{}` twice", entry.to_lowercase()), "name each repository once"));
        }
    }
    if repos.is_empty() && patterns.served.is_empty() {
        return Err(bad(key, "empty", "list the repositories to serve, as \"owner/name\" or \"owner/*\""));
    }
    if let Some(repo) = repos.iter().find(|repo| patterns.excluded.iter().any(|pattern| pattern.matches(repo))) {
        return Err(bad(key, format!("`{repo}`"), "it is named and excluded: remove one of both"));
    }
    Ok((repos, patterns))
}

/// The settings of an account's clients.
pub(super) fn settings(
    index: usize,
    account: &GithubConfig,
    environment: &Environment,
) -> Result<GithubSettings, ConfigError> {
    let key = |field: &str| format!("github[{index}].{field}");
    let rate = |field: &str, value, least| in_range(&key(field), value, least, 100_000);
    Ok(GithubSettings {
        account: account.name.parse().expect("the accounts were checked before"),
        api_url: api_url(index, account)?,
        auth: auth(index, account, environment)?,
        limits: BudgetLimits {
            points_per_minute: f64::from(rate("points_per_minute", account.points_per_minute, 60)?),
            mutations_per_minute: f64::from(rate("mutations_per_minute", account.mutations_per_minute, 1)?),
            primary_reserve: rate("primary_reserve", account.primary_reserve, 0)?,
        },
        max_in_flight: in_range(&key("max_in_flight"), account.max_in_flight, 1, 90)? as usize,
    })
}

/// Where the REST API of a host is (GitHub docs: about data residency; Enterprise Server: about the REST API).
fn api_url(index: usize, account: &GithubConfig) -> Result<String, ConfigError> {
    let key = |field: &str| format!("github[{index}].{field}");
    let host = match (&account.host, &account.api_url) {
        (Some(_), Some(url)) => {
            let remedy = "it follows from `host`: remove one of both";
            return Err(bad(key("api_url"), format!("`{url}`"), remedy));
        }
        (None, Some(url)) => return check_url(&key("api_url"), url),
        (Some(host), None) => host.trim().to_lowercase(),
        (None, None) => "github.com".to_owned(),
    };
    let is_host = host.contains('.') && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
    if !is_host || host.starts_with("api.") {
        let remedy =
            "must be the name by which people reach it, such as github.example.com; for anything else set `api_url`";
        return Err(bad(key("host"), format!("`{host}`"), remedy));
    }
    check_url(&key("host"), &api_of(&host))
}

/// The REST API of the host by which people reach a GitHub.
pub(crate) fn api_of(host: &str) -> String {
    match host {
        "github.com" => "https://api.github.com".to_owned(),
        _ if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        _ => format!("https://{host}/api/v3"),
    }
}

/// The account's token or App: exactly one of both.
fn auth(index: usize, account: &GithubConfig, environment: &Environment) -> Result<GithubAuth, ConfigError> {
    let key = |field: &str| format!("github[{index}].{field}");
    let has_token = account.token.is_some() || account.token_file.is_some();
    let has_key = account.private_key.is_some() || account.private_key_file.is_some();
    match &account.app_id {
        Some(id) if has_token => {
            Err(bad(key("app_id"), format!("`{id}`"), "an account has a token or a GitHub App: remove one of both"))
        }
        Some(id) => Ok(GithubAuth::App { id: app_id(&key("app_id"), id)?, key: app_key(index, account, environment)? }),
        None if has_key => {
            let remedy = "a private key belongs to a GitHub App: set its id, which its settings page shows";
            Err(bad(key("app_id"), "missing", remedy))
        }
        None => {
            let credential = credential("github-token", account, environment);
            let given = (account.token.as_ref(), account.token_file.as_deref());
            Ok(GithubAuth::Token(secret(&key("token"), given.0, given.1, &credential, environment)?))
        }
    }
}

fn app_id(key: &str, id: &str) -> Result<String, ConfigError> {
    let is_id = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    if is_id {
        Ok(id.to_owned())
    } else {
        Err(bad(key, format!("`{id}`"), "must be the App's id or client id, such as \"123456\" or \"Iv23li…\""))
    }
}

fn app_key(index: usize, account: &GithubConfig, environment: &Environment) -> Result<AppKey, ConfigError> {
    let key = format!("github[{index}].private_key");
    let credential = credential("github-app-key", account, environment);
    let (given, file) = (account.private_key.as_ref(), account.private_key_file.as_deref());
    let text = secret_text(&key, given, file, &credential, environment)?;
    let remedy = "must be the App's private key as GitHub gives it for download: a PEM text that begins with \
                  -----BEGIN RSA PRIVATE KEY----- (or PKCS#8: -----BEGIN PRIVATE KEY-----)";
    // In an environment file a line break may have to be written as two characters.
    let text = text.expose_secret().replace("\\n", "\n");
    AppKey::read(&text).map_err(|_| bad(key, "not shown", remedy))
}

/// The name of a systemd credential: that of the account where there is one, else the one for all accounts.
fn credential(plain: &str, account: &GithubConfig, environment: &Environment) -> String {
    let own = format!("{plain}-{}", account.name);
    let is_there = |dir: &String| Path::new(dir).join(&own).exists();
    if environment.get("CREDENTIALS_DIRECTORY").is_some_and(is_there) { own } else { plain.to_owned() }
}
