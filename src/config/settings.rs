//! What the configuration means, checked: the policy of the planner and the settings of the clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::classes::Shared;
use super::environment::{Unused, unused};
use super::images::Images;
use super::load::{ConfigError, Environment};
use super::runner::{RunnerReleaseChoice, RunnerSettings};
use super::secret::webhook_secrets;
use super::value::{bad, check_label, duration, in_range, usd};
use super::{ClassConfig, Config, GithubConfig, LimitsConfig, ReconcileConfig, accounts, classes, cost, modal, runner};
use crate::budget::Capacity;
use crate::class::{ImageSource, RunnerClass};
use crate::github::GithubSettings;
use crate::http::webhook;
use crate::ids::{AccountName, ClassName, Deployment, Fingerprint};
use crate::modal::ModalSettings;
use crate::plan::{AccountPolicy, Credentials, Limits, Policy, Waves};
use crate::poll::{ListOrder, least_longest};

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
    /// Where commands reach the daemon.
    pub admin_socket: Option<PathBuf>,
    /// Every image that a class can have or has, each once.
    pub images: Vec<ImageSource>,
    /// The classes that nobody configured.
    pub builtin_classes: BTreeSet<ClassName>,
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
    /// Variables of the earlier project that do nothing.
    pub unused: Vec<Unused>,
}

/// The images of the configuration, and what they are for.
#[derive(Debug, Clone)]
pub struct Defined {
    /// Every image that a class can have or has, each once.
    pub images: Vec<ImageSource>,
    /// The classes, in the order in which they are tried.
    pub classes: Vec<RunnerClass>,
    /// What runs in the sandboxes.
    pub runner: RunnerSettings,
    builtin: BTreeSet<ClassName>,
    accounts: BTreeMap<AccountName, AccountPolicy>,
    required_label: String,
}

impl Defined {
    /// Checks what they are made of; no credentials are needed for that.
    ///
    /// # Errors
    /// [`ConfigError`] for the first value that is wrong.
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let required_label = config.required_label.to_lowercase();
        let builtin = if config.builtin_classes {
            classes::builtin_classes(&config.builtin_gpus, &config.builtin_gpu_repos)?
        } else {
            Vec::new()
        };
        let names = builtin.iter().map(|class| ClassName::new(class.name.as_str())).collect();
        let configured: Vec<ClassConfig> = config.runner_classes.iter().cloned().chain(builtin).collect();
        check_label("required_label", &required_label)?;
        let accounts = accounts::policies(&config.github)?;
        let runner = runner::settings(&config.runner, &accounts)?;
        let images = Images::new(&config.images, &config.runner)?;
        let shared =
            Shared { runner: &config.runner, images: &images, accounts: &accounts, required_label: &required_label };
        let classes = classes::classes(&configured, shared)?;
        Ok(Self { images: images.sources(&classes), classes, runner, builtin: names, accounts, required_label })
    }
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
            required_label: _, // these are looked at for what is defined
            builtin_classes: _,
            builtin_gpus: _,
            builtin_gpu_repos: _,
            runner: _,
            images: _,
            runner_classes: _,
            state_dir,
            admin_socket,
            log,
            http,
            reconcile,
            limits,
            cost,
            modal,
            github,
        } = config;
        let Defined { images, classes, runner, builtin, accounts, required_label } = Defined::new(config)?;
        let max_interval = max_interval(reconcile, github, &accounts)?;
        let policy = Policy {
            deployment: deployment_of(deployment)?,
            classes,
            accounts,
            required_label,
            limits: check_limits(limits)?,
            waves: waves(reconcile)?,
            claim_window: duration("reconcile.claim_window", reconcile.claim_window, 30, 3600)?,
            interval: interval(reconcile)?,
            max_interval,
            list_order: ListOrder::Index,
            follows_releases: runner.release == RunnerReleaseChoice::Auto,
            runner_dir: runner.dir.clone(),
            prices: cost::prices(cost)?,
        };
        classes::check_fit(&policy)?;
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
            admin_socket: admin_socket_of(admin_socket.as_deref(), environment),
            images,
            builtin_classes: builtin,
            policy,
            github: github
                .iter()
                .enumerate()
                .map(|(index, account)| accounts::settings(index, account, environment))
                .collect::<Result<_, _>>()?,
            modal: modal::settings(modal, environment)?,
            modal_creates: modal::creates(modal)?,
            runner,
            runs_pages_max: in_range("reconcile.runs_pages_max", reconcile.runs_pages_max, 1, 100)?,
            unused: unused(environment),
        })
    }

    /// Stands for what decides whether a runner starts: what was learned of that holds only as long as it is the same.
    pub fn runner_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&format!("{:?} {:?}", self.policy.classes, self.runner))
    }
}

/// The name of the installation.
pub(super) fn deployment_of(text: &str) -> Result<Deployment, ConfigError> {
    text.parse().map_err(|_| bad("deployment", format!("`{text}`"), "must be 1 to 12 characters of a-z and 0-9"))
}

/// The configured directory, else the first of those that systemd made for this service (systemd.exec:
/// `StateDirectory=`).
pub(super) fn state_directory(configured: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    let of_systemd = || environment.get("STATE_DIRECTORY")?.split(':').next().map(Path::new);
    let dir = configured.or_else(of_systemd)?;
    (!dir.as_os_str().is_empty()).then(|| dir.to_owned())
}

/// The configured socket, else the one in the first of the directories that systemd made for this service (systemd.exec:
/// `RuntimeDirectory=`).
pub(super) fn admin_socket_of(configured: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    let of_systemd = || Some(Path::new(environment.get("RUNTIME_DIRECTORY")?.split(':').next()?).join("admin.sock"));
    let socket = configured.map(Path::to_owned).or_else(of_systemd)?;
    (!socket.as_os_str().is_empty()).then_some(socket)
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
    let LimitsConfig { max_sandboxes, max_sandboxes_per_repo, max_gpus, spend_per_day } = limits;
    if let Some(limit) = max_sandboxes_per_repo {
        in_range("limits.max_sandboxes_per_repo", *limit, 1, 100_000)?;
    }
    Ok(Limits {
        sandboxes: in_range("limits.max_sandboxes", *max_sandboxes, 1, 100_000)?,
        sandboxes_per_repo: *max_sandboxes_per_repo,
        gpus: in_range("limits.max_gpus", *max_gpus, 0, 100_000)?,
        spend_per_day: spend_per_day.map(|most| usd("limits.spend_per_day", most)).transpose()?,
    })
}
