//! What the configuration means, checked: the policy of the planner and the settings of the clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::load::{ConfigError, Environment};
use super::{
    ClassConfig, Config, GithubConfig, HttpConfig, LimitsConfig, ModalConfig, ReconcileConfig, RunnerConfig, accounts,
};
use crate::budget::Capacity;
use crate::class::{ClassClocks, Gpu, ImageSource, LabelPattern, MODAL_TIMEOUT_MAX, Risk, Risks, RunnerClass};
use crate::github::GithubSettings;
use crate::http::webhook;
use crate::ids::{AccountName, ClassName, Fingerprint, Labels};
use crate::modal::ModalSettings;
use crate::plan::{AccountPolicy, Credentials, Limits, Policy, Waves};
use crate::poll::{ListOrder, least_longest};
use crate::runner::RunnerVersion;

/// Whether the controller may change anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It acts.
    #[default]
    Act,
    /// It plans and exports everything and is given no writer.
    Observe,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether anything may be changed.
    pub mode: Mode,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The log filter.
    pub log_level: String,
    /// The HTTP server's address.
    pub listen: SocketAddr,
    /// What signs GitHub's deliveries; none where there are none.
    pub webhook: Option<webhook::Secrets>,
    /// Where what was learned is kept over a restart.
    pub state_dir: Option<PathBuf>,
    /// The rules of the planner.
    pub policy: Policy,
    /// One client each.
    pub github: Vec<GithubSettings>,
    /// Modal's client.
    pub modal: ModalSettings,
    /// Creates per second, and at once.
    pub modal_creates: (f64, u32),
    /// What runs in the sandboxes.
    pub runner: RunnerSettings,
    /// The most pages of one run list.
    pub runs_pages_max: u32,
}

/// What runs in the sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerSettings {
    /// The release of the default image.
    pub release: RunnerReleaseChoice,
    /// Where the runner is in every image.
    pub dir: String,
}

/// Which release of the runner the default image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerReleaseChoice {
    /// What GitHub asks for at the time of the build.
    Auto,
    /// A version; the checksum comes from GitHub where it still offers that version.
    Pinned {
        /// The version.
        version: RunnerVersion,
        /// The archive's SHA-256, in hexadecimal digits.
        sha256: Option<String>,
    },
}

pub(super) fn bad(key: impl Into<String>, value: impl std::fmt::Display, remedy: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), value: value.to_string(), remedy: remedy.into() }
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError`] for the first value that is wrong.
    pub fn new(config: &Config, environment: &Environment) -> Result<Self, ConfigError> {
        // Every key is named, so that a new one cannot be forgotten.
        let Config {
            mode,
            deployment,
            required_label,
            builtin_classes: builtin,
            state_dir,
            log,
            http,
            reconcile,
            limits,
            runner,
            modal,
            github,
            runner_classes,
        } = config;
        let required_label = required_label.to_lowercase();
        let builtin = if *builtin { builtin_classes() } else { Vec::new() };
        let configured: Vec<ClassConfig> = runner_classes.iter().cloned().chain(builtin).collect();
        check_label("required_label", &required_label)?;
        let accounts = accounts::policies(github)?;
        let runner_settings = runner_settings(runner, &accounts)?;
        let max_interval = max_interval(reconcile, github, &accounts)?;
        let policy = Policy {
            deployment: deployment.parse().map_err(|_| {
                bad("deployment", format!("`{deployment}`"), "must be 1 to 12 characters of a-z and 0-9")
            })?,
            classes: classes(&configured, runner, &accounts)?,
            accounts,
            required_label,
            limits: check_limits(limits)?,
            waves: waves(reconcile)?,
            claim_window: duration("reconcile.claim_window", reconcile.claim_window, 30, 3600)?,
            interval: interval(reconcile)?,
            max_interval,
            list_order: ListOrder::Index,
            follows_releases: runner_settings.release == RunnerReleaseChoice::Auto,
        };
        Ok(Self {
            mode: *mode,
            log_format: log.format,
            log_level: log.level.clone(),
            listen: http.listen.parse().map_err(|_| {
                bad(
                    "http.listen",
                    format!("`{}`", http.listen),
                    "must be an address with a port, such as 127.0.0.1:9464",
                )
            })?,
            webhook: webhook_secrets(http, environment)?,
            state_dir: state_directory(state_dir.as_deref(), environment),
            policy,
            github: github
                .iter()
                .enumerate()
                .map(|(index, account)| accounts::settings(index, account, environment))
                .collect::<Result<_, _>>()?,
            modal: modal_settings(modal, environment)?,
            modal_creates: modal_creates(modal)?,
            runner: runner_settings,
            runs_pages_max: in_range("reconcile.runs_pages_max", reconcile.runs_pages_max, 1, 100)?,
        })
    }

    /// Stands for what decides whether a runner starts: what was learned of that holds only as long as it is the same.
    pub fn runner_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&format!("{:?} {:?}", self.policy.classes, self.runner))
    }
}

/// The configured directory, else the first of those that systemd made for this service (systemd.exec:
/// `StateDirectory=`).
fn state_directory(configured: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    let of_systemd = || environment.get("STATE_DIRECTORY")?.split(':').next().map(Path::new);
    let dir = configured.or_else(of_systemd)?;
    (!dir.as_os_str().is_empty()).then(|| dir.to_owned())
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

fn duration(key: &str, value: Duration, least: u64, most: u64) -> Result<Duration, ConfigError> {
    let (least, most) = (Duration::from_secs(least), Duration::from_secs(most));
    if value < least || value > most {
        let text = |duration| humantime::format_duration(duration);
        return Err(bad(key, text(value), format!("must be between {} and {}", text(least), text(most))));
    }
    Ok(value)
}

fn interval(reconcile: &ReconcileConfig) -> Result<Duration, ConfigError> {
    duration("reconcile.interval", reconcile.interval, 1, 600)
}

/// What is too old must leave the index rule at least half of the readings.
fn max_interval(
    reconcile: &ReconcileConfig,
    github: &[GithubConfig],
    accounts: &BTreeMap<AccountName, AccountPolicy>,
) -> Result<Duration, ConfigError> {
    let key = "reconcile.max_interval";
    interval(reconcile)?;
    let longest = duration(key, reconcile.max_interval, 10, 86_400)?;
    let text = |duration| humantime::format_duration(duration);
    if longest < reconcile.interval {
        let remedy = format!("must not be below reconcile.interval, which is {}", text(reconcile.interval));
        return Err(bad(key, text(longest), remedy));
    }
    for account in accounts.values() {
        let points = github.get(account.order).map_or(0, |configured| configured.points_per_minute);
        let repos = most_of_a_credential(account);
        let least = least_longest(repos, Capacity::of_points(f64::from(points))).to_std().unwrap_or_default();
        if longest < least {
            let remedy = format!(
                "must be at least {}: within less, GitHub's limits do not allow to read the run lists of {repos} repositories",
                text(least)
            );
            return Err(bad(key, text(longest), remedy));
        }
    }
    Ok(longest)
}

/// The most named repositories that one credential of an account reads.
fn most_of_a_credential(account: &AccountPolicy) -> usize {
    match account.credentials {
        Credentials::One => account.repos.len(),
        Credentials::PerOwner => {
            let mut owned: BTreeMap<&str, usize> = BTreeMap::new();
            for repo in &account.repos {
                *owned.entry(repo.owner()).or_default() += 1;
            }
            owned.into_values().max().unwrap_or(0)
        }
    }
}

fn waves(reconcile: &ReconcileConfig) -> Result<Waves, ConfigError> {
    Ok(Waves {
        first: in_range("reconcile.first_wave", reconcile.first_wave, 1, 10_000)?,
        first_gpu: in_range("reconcile.first_wave_gpu", reconcile.first_wave_gpu, 1, 10_000)?,
    })
}

fn check_limits(limits: &LimitsConfig) -> Result<Limits, ConfigError> {
    let LimitsConfig { max_sandboxes, max_sandboxes_per_repo, max_gpus } = limits;
    if let Some(limit) = max_sandboxes_per_repo {
        in_range("limits.max_sandboxes_per_repo", *limit, 1, 100_000)?;
    }
    Ok(Limits {
        sandboxes: in_range("limits.max_sandboxes", *max_sandboxes, 1, 100_000)?,
        sandboxes_per_repo: *max_sandboxes_per_repo,
        gpus: in_range("limits.max_gpus", *max_gpus, 0, 100_000)?,
    })
}

/// The GPU classes that exist without being configured.
const BUILTIN_GPUS: [&str; 5] = ["t4", "l4", "a100", "a100-80gb", "h100"];

fn classes(
    configured: &[ClassConfig],
    runner: &RunnerConfig,
    accounts: &BTreeMap<AccountName, AccountPolicy>,
) -> Result<Vec<RunnerClass>, ConfigError> {
    let mut classes: Vec<RunnerClass> = Vec::new();
    for (index, class) in configured.iter().enumerate() {
        classes.push(class_of(&format!("runner_classes[{index}]"), class, runner)?);
    }
    if classes.is_empty() {
        return Err(bad("runner_classes", "empty", "add a [[runner_classes]] table, or set builtin_classes = true"));
    }
    let mut names = BTreeSet::new();
    for class in &classes {
        if !names.insert(class.name.clone()) {
            let remedy =
                "give each class its own name; `default` and `gpu:…` are built in unless builtin_classes = false";
            return Err(bad("runner_classes.name", format!("`{}` twice", class.name), remedy));
        }
        for repo in &class.repos {
            if !accounts.values().any(|account| account.serves(repo)) {
                let key = format!("runner_classes `{}` repos", class.name);
                return Err(bad(key, format!("`{repo}`"), "add it to allowed_repos of a [[github]] account"));
            }
        }
    }
    Ok(classes)
}

/// The classes that exist without being configured: one per GPU, and last the one for everything else.
fn builtin_classes() -> Vec<ClassConfig> {
    let gpus = BUILTIN_GPUS.iter().map(|gpu| builtin_class(&format!("gpu:{gpu}"), Some(gpu)));
    gpus.chain([builtin_class("default", None)]).collect()
}

fn builtin_class(name: &str, gpu: Option<&str>) -> ClassConfig {
    ClassConfig {
        name: name.to_owned(),
        labels: gpu.map(|_| name.to_owned()).into_iter().collect(),
        extra_label_patterns: vec!["job-*".to_owned()],
        repos: Vec::new(),
        allow_forks: None,
        allow_public_repos: None,
        cpu: None,
        memory: None,
        gpu: gpu.map(str::to_owned),
        image: None,
        regions: None,
        env: BTreeMap::new(),
        timeout: None,
        idle_timeout: None,
        start_timeout: None,
        schedule_timeout: None,
        max_sandboxes: None,
    }
}

fn class_of(key: &str, class: &ClassConfig, runner: &RunnerConfig) -> Result<RunnerClass, ConfigError> {
    let key_of = |field: &str| format!("{key}.{field}");
    let is_name = |name: &str| {
        (1..=40).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":._-".contains(&b))
    };
    if !is_name(&class.name) {
        let remedy = "must be 1 to 40 characters of a-z, 0-9, `:`, `.`, `_`, `-`";
        return Err(bad(key_of("name"), format!("`{}`", class.name), remedy));
    }
    for label in &class.labels {
        check_label(&key_of("labels"), label)?;
    }
    for pattern in &class.extra_label_patterns {
        check_label(&key_of("extra_label_patterns"), pattern)?;
    }
    let mut repos = Vec::new();
    for repo in &class.repos {
        repos.push(
            repo.parse().map_err(|_| bad(key_of("repos"), format!("`{repo}`"), "each entry must be \"owner/name\""))?,
        );
    }
    for name in class.env.keys() {
        check_env_name(&key_of("env"), name)?;
    }
    let mut env = runner.env.clone();
    env.extend(class.env.clone());
    let gpu = class.gpu.as_deref().map(|gpu| parse_gpu(&key_of("gpu"), gpu)).transpose()?;
    Ok(RunnerClass {
        name: ClassName::new(class.name.as_str()),
        labels: Labels::new(&class.labels),
        extra_label_patterns: class.extra_label_patterns.iter().map(|pattern| LabelPattern::new(pattern)).collect(),
        repos,
        admits: Risks::of([
            class.allow_forks.unwrap_or(runner.allow_forks).then_some(Risk::Fork),
            class.allow_public_repos.unwrap_or(runner.allow_public_repos).then_some(Risk::Public),
        ]),
        cpu: in_range(&key_of("cpu"), class.cpu.unwrap_or(2.0), 0.125, 64.0)?,
        memory_mib: in_range(&key_of("memory"), class.memory.unwrap_or(8192), 128, 1_048_576)?,
        image: image_source(&key_of("image"), class.image.as_deref())?,
        regions: class.regions.clone().unwrap_or_else(|| runner.regions.clone()),
        env,
        clocks: clocks(key, class, gpu.as_ref())?,
        gpu,
        max_sandboxes: class
            .max_sandboxes
            .map(|most| in_range(&key_of("max_sandboxes"), most, 1, 100_000))
            .transpose()?,
    })
}

fn clocks(key: &str, class: &ClassConfig, gpu: Option<&Gpu>) -> Result<ClassClocks, ConfigError> {
    let checked = |field: &str, value: Option<Duration>, default: u64, least: u64, most: u64| {
        duration(&format!("{key}.{field}"), value.unwrap_or(Duration::from_secs(default)), least, most)
    };
    let clocks = ClassClocks {
        timeout: checked("timeout", class.timeout, 6 * 3600, 60, MODAL_TIMEOUT_MAX.as_secs())?,
        idle_timeout: checked("idle_timeout", class.idle_timeout, 300, 60, 3600)?,
        start_timeout: checked("start_timeout", class.start_timeout, 180, 30, 3600)?,
        schedule_timeout: checked(
            "schedule_timeout",
            class.schedule_timeout,
            if gpu.is_some() { 900 } else { 120 },
            30,
            7200,
        )?,
    };
    let others = clocks.idle_timeout + clocks.start_timeout + clocks.schedule_timeout + Duration::from_secs(300);
    let longest = MODAL_TIMEOUT_MAX.saturating_sub(others);
    if clocks.timeout > longest {
        let text = |duration| humantime::format_duration(duration);
        let remedy = format!(
            "with its other clocks a job may last at most {}, because Modal ends sandboxes after 24h",
            text(longest)
        );
        return Err(bad(format!("{key}.timeout"), text(clocks.timeout), remedy));
    }
    Ok(clocks)
}

fn image_source(key: &str, image: Option<&str>) -> Result<ImageSource, ConfigError> {
    let is_reference = |text: &str| {
        !text.is_empty()
            && text.len() <= 255
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
    };
    match image {
        None => Ok(ImageSource::Default),
        Some(image) if !is_reference(image) => {
            Err(bad(key, format!("`{image}`"), "must be a registry reference such as ghcr.io/acme/runner:1, or im-…"))
        }
        Some(image) if image.starts_with("im-") => Ok(ImageSource::Existing(image.to_owned())),
        Some(image) => Ok(ImageSource::Registry(image.to_owned())),
    }
}

fn parse_gpu(key: &str, text: &str) -> Result<Gpu, ConfigError> {
    let remedy = "must be a GPU as Modal names it, such as A100 or H100:2";
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-!+".contains(&b));
    match count.parse() {
        Ok(count @ 1..=8) if is_name => Ok(Gpu { name: name.to_uppercase(), count }),
        Ok(_) | Err(_) => Err(bad(key, format!("`{text}`"), remedy)),
    }
}

fn check_label(key: &str, label: &str) -> Result<(), ConfigError> {
    let is_label = !label.is_empty()
        && label.len() <= 256
        && !label.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',');
    if is_label {
        Ok(())
    } else {
        Err(bad(key, format!("`{label}`"), "a label has 1 to 256 characters, no space and no comma"))
    }
}

fn check_env_name(key: &str, name: &str) -> Result<(), ConfigError> {
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
    if ["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "PRIVATE_KEY", "API_KEY"].iter().any(|word| upper.contains(word)) {
        return Err(bad(
            key,
            format!("`{name}`"),
            "looks like a credential, which every job could read; pass it to the job as a GitHub secret",
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

fn modal_settings(modal: &ModalConfig, environment: &Environment) -> Result<ModalSettings, ConfigError> {
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

fn modal_creates(modal: &ModalConfig) -> Result<(f64, u32), ConfigError> {
    let rate = in_range("modal.creates_per_second", modal.creates_per_second, 0.1, 1_000.0)?;
    Ok((rate, in_range("modal.create_burst", modal.create_burst, 1, 10_000)?))
}

fn runner_settings(
    runner: &RunnerConfig,
    accounts: &BTreeMap<AccountName, AccountPolicy>,
) -> Result<RunnerSettings, ConfigError> {
    let is_sha = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    for name in runner.env.keys() {
        check_env_name("runner.env", name)?;
    }
    if let Some(sha) = runner.sha256.as_deref().filter(|sha| !is_sha(sha)) {
        return Err(bad("runner.sha256", format!("`{sha}`"), "must be 64 hexadecimal digits"));
    }
    let release = match (runner.version.as_str(), &runner.sha256) {
        ("auto", None) => RunnerReleaseChoice::Auto,
        ("auto", Some(_)) => {
            return Err(bad("runner.sha256", "set", "belongs to a pinned runner.version; remove it for `auto`"));
        }
        (version, sha256) => {
            let remedy = "must be `auto` or a version such as 2.336.0";
            let parsed = version.parse().map_err(|_| bad("runner.version", format!("`{version}`"), remedy))?;
            check_floor(parsed, accounts)?;
            RunnerReleaseChoice::Pinned { version: parsed, sha256: sha256.as_ref().map(|sha| sha.to_lowercase()) }
        }
    };
    let is_dir = runner.dir.starts_with('/')
        && runner.dir.len() > 1
        && runner.dir.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
    if !is_dir {
        return Err(bad(
            "runner.dir",
            format!("`{}`", runner.dir),
            "must be an absolute path of letters, digits, `/`, `.`, `_`, `-`",
        ));
    }
    Ok(RunnerSettings { release, dir: runner.dir.clone() })
}

/// An Enterprise Server takes older runners; everybody else's GitHub registers none.
fn check_floor(version: RunnerVersion, accounts: &BTreeMap<AccountName, AccountPolicy>) -> Result<(), ConfigError> {
    let is_of_github = |host: &str| host == "https://api.github.com" || host.ends_with(".ghe.com");
    if version >= RunnerVersion::FLOOR || !accounts.values().any(|account| is_of_github(&account.host)) {
        return Ok(());
    }
    let remedy = format!("GitHub registers no runner older than {}: set a newer one, or `auto`", RunnerVersion::FLOOR);
    Err(bad("runner.version", format!("`{version}`"), remedy))
}

/// The secrets of the webhook, where there is one.
fn webhook_secrets(http: &HttpConfig, environment: &Environment) -> Result<Option<webhook::Secrets>, ConfigError> {
    let find = |key, given: &Option<SecretString>, file: &Option<PathBuf>, credential| {
        let secret = secret_if_any(key, given.as_ref(), file.as_deref(), credential, environment)?;
        let is_one_line = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        match &secret {
            Some(secret) if !is_one_line(secret.expose_secret()) => {
                Err(bad(key, "not shown", "must be one line of visible characters"))
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
