//! The configuration file: its keys, their units and defaults.
//!
//! [`load`] layers the file and the environment, [`Settings`] is what is checked and used. Unknown keys are
//! errors everywhere.

mod accounts;
mod classes;
mod cost;
mod environment;
mod images;
mod load;
mod modal;
mod options;
mod runner;
mod secret;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};

use crate::cost::{CPU_PRICE, GPU_PRICES, MEMORY_PRICE};

pub(crate) use accounts::api_of;
pub use environment::Unused;
pub use load::{ConfigError, Environment, Kept, admin_socket, defined, kept, load, read};
pub use runner::{RunnerReleaseChoice, RunnerSettings};
pub use settings::{Defined, LogFormat, Mode, Settings};

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `act` (default) or `observe`: plan and export everything, change nothing.
    pub mode: Mode,
    /// The name of this installation, `[a-z0-9]{1,12}` (default `main`); part of every name it gives.
    pub deployment: String,
    /// The label by which a job asks for a sandbox (default `modal`).
    pub required_label: String,
    /// Whether the classes `default` and `gpu:…` exist without being configured (default true).
    pub builtin_classes: bool,
    /// The GPUs that have such a class, as Modal names them, with `:count` for several (default T4, L4, A100, A100-80GB,
    /// H100).
    pub builtin_gpus: Vec<String>,
    /// The repositories whose jobs get them, of those that are allowed (default: all).
    pub builtin_gpu_repos: Vec<String>,
    /// Where what was learned is kept over a restart; empty for nowhere (default: systemd's `STATE_DIRECTORY`, else
    /// nowhere).
    pub state_dir: Option<PathBuf>,
    /// The unix socket by which commands reach the daemon; empty for none (default: `admin.sock` in systemd's
    /// `RUNTIME_DIRECTORY`, else none).
    pub admin_socket: Option<PathBuf>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// The daemon's own HTTP server.
    pub http: HttpConfig,
    /// The loop.
    pub reconcile: ReconcileConfig,
    /// How much may run.
    pub limits: LimitsConfig,
    /// What sandboxes cost.
    pub cost: CostConfig,
    /// What runs in every sandbox.
    pub runner: RunnerConfig,
    /// Modal.
    pub modal: ModalConfig,
    /// GitHub accounts.
    pub github: Vec<GithubConfig>,
    /// Images for classes to name.
    pub images: Vec<ImageConfig>,
    /// Runner classes, in the order in which they are tried.
    pub runner_classes: Vec<ClassConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Act,
            deployment: "main".into(),
            required_label: "modal".into(),
            builtin_classes: true,
            builtin_gpus: ["t4", "l4", "a100", "a100-80gb", "h100"].map(str::to_owned).into(),
            builtin_gpu_repos: Vec::new(),
            state_dir: None,
            admin_socket: None,
            log: LogConfig::default(),
            http: HttpConfig::default(),
            reconcile: ReconcileConfig::default(),
            limits: LimitsConfig::default(),
            cost: CostConfig::default(),
            runner: RunnerConfig::default(),
            modal: ModalConfig::default(),
            github: Vec::new(),
            images: Vec::new(),
            runner_classes: Vec::new(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` (default) or `json`.
    pub format: LogFormat,
    /// A filter such as `info` (default) or `sandrunner=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of `/metrics`, `/healthz`, `/readyz`, `/api/v1/status` (default `127.0.0.1:9464`).
    pub listen: String,
    /// What signs GitHub's webhooks; with it there is `/webhooks/github` too. Also `WEBHOOK_SECRET` or the systemd
    /// credential `webhook-secret` (default: none).
    #[serde(serialize_with = "redacted")]
    pub webhook_secret: Option<SecretString>,
    /// A file with it.
    pub webhook_secret_file: Option<PathBuf>,
    /// The secret before, while it is changed at GitHub; also the systemd credential `webhook-secret-previous`.
    #[serde(serialize_with = "redacted")]
    pub webhook_secret_previous: Option<SecretString>,
    /// A file with that one.
    pub webhook_secret_previous_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".into(),
            webhook_secret: None,
            webhook_secret_file: None,
            webhook_secret_previous: None,
            webhook_secret_previous_file: None,
        }
    }
}

/// `[reconcile]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReconcileConfig {
    /// How often each repository and Modal are looked at (default 10 s).
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// What no repository's run list may be older than where GitHub's limits do not allow to read all of them each
    /// interval (default 15 min).
    #[serde(with = "humantime_serde")]
    pub max_interval: Duration,
    /// The most runners of one run and label set before GitHub gave jobs to some (default 20).
    pub first_wave: u32,
    /// The same for classes with a GPU (default 4).
    pub first_wave_gpu: u32,
    /// How long a runner may wait for a job before the jobs that stay queued are no longer trusted (default 90 s).
    #[serde(with = "humantime_serde")]
    pub claim_window: Duration,
    /// The most pages of one run list that are read at a time, 100 runs each (default 15).
    pub runs_pages_max: u32,
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            max_interval: Duration::from_secs(15 * 60),
            first_wave: 20,
            first_wave_gpu: 4,
            claim_window: Duration::from_secs(90),
            runs_pages_max: 15,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// The most sandboxes at a time (default 100).
    pub max_sandboxes: u32,
    /// The most sandboxes of one repository at a time (default: no limit of its own).
    pub max_sandboxes_per_repo: Option<u32>,
    /// The most GPUs at a time (default 4).
    pub max_gpus: u32,
    /// US dollars from midnight to midnight UTC, after which nothing more is created (default: no limit).
    pub spend_per_day: Option<f64>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { max_sandboxes: 100, max_sandboxes_per_repo: None, max_gpus: 4, spend_per_day: None }
    }
}

/// `[cost]`: US dollars per hour, where Modal does not tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CostConfig {
    /// A physical core of a sandbox (default 0.141912, Modal's price page of autumn 2026).
    pub cpu: f64,
    /// A GiB of a sandbox's memory (default 0.024012, the same page).
    pub memory: f64,
    /// By what the price of a sandbox is multiplied whose class names regions (default 1).
    pub region_factor: f64,
    /// One GPU, by its name (defaults: the same page; those that are not named keep them).
    pub gpus: BTreeMap<String, f64>,
}

impl Default for CostConfig {
    fn default() -> Self {
        let gpus = GPU_PRICES.iter().map(|(name, price)| ((*name).to_owned(), *price));
        Self { cpu: CPU_PRICE, memory: MEMORY_PRICE, region_factor: 1.0, gpus: gpus.collect() }
    }
}

/// `[runner]`
#[expect(clippy::struct_excessive_bools, reason = "two keys that have nothing to do with each other")]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunnerConfig {
    /// The runner's release in the default image: `auto` (default: what GitHub asks for) or a version.
    pub version: String,
    /// The SHA-256 of a pinned release's archive for Linux x64.
    pub sha256: Option<String>,
    /// Where the runner is in every image (default `/opt/actions-runner`).
    pub dir: String,
    /// Regions of all classes that name none (default: any).
    pub regions: Vec<String>,
    /// Whether classes that do not say serve runs that come from forks (default false).
    pub allow_forks: bool,
    /// Whether classes that do not say serve public repositories (default false).
    pub allow_public_repos: bool,
    /// Environment variables of every sandbox.
    pub env: BTreeMap<String, String>,
    /// Names in any `env` that look like those of credentials and are none (default: none).
    pub plain_env: Vec<String>,
    /// What the sandboxes of classes that do not say may connect to (default: everything).
    pub network: NetworkConfig,
    /// Volumes of all classes that name none (default: none).
    pub volumes: Vec<VolumeConfig>,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            version: "auto".into(),
            sha256: None,
            dir: "/opt/actions-runner".into(),
            regions: Vec::new(),
            allow_forks: false,
            allow_public_repos: false,
            env: BTreeMap::new(),
            plain_env: Vec::new(),
            network: NetworkConfig::default(),
            volumes: Vec::new(),
        }
    }
}

/// What sandboxes may connect to: `"open"`, or a table of what alone they may.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be \"open\", or a table with `cidrs`, `domains` and `github`")]
pub enum NetworkConfig {
    /// `open`; `blocked` is refused, as a runner must reach GitHub.
    Word(String),
    /// An allow list.
    Only(NetworkLists),
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::Word("open".to_owned())
    }
}

/// What alone sandboxes may connect to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkLists {
    /// Networks, such as `10.0.0.0/8` (default: none).
    pub cidrs: Vec<String>,
    /// Names, such as `pypi.org` or `*.example.com`, by TLS on port 443 (default: none).
    pub domains: Vec<String>,
    /// Whether the names that a runner needs of GitHub's are allowed as well (default true).
    pub github: bool,
}

impl Default for NetworkLists {
    fn default() -> Self {
        Self { cidrs: Vec::new(), domains: Vec::new(), github: true }
    }
}

/// A Volume in the sandboxes of a class.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Its name, made where it is missing; `{repo}`, `{owner}` and `{class}` stand for those of the sandbox.
    pub name: String,
    /// Where it is (default `/cache`).
    #[serde(default = "default_volume_path")]
    pub path: String,
    /// Whether nothing can be written (default false).
    #[serde(default)]
    pub read_only: bool,
}

fn default_volume_path() -> String {
    "/cache".to_owned()
}

/// `[modal]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModalConfig {
    /// Address of Modal's gRPC service (default `https://api.modal.com`).
    pub server_url: String,
    /// The id of the token (`ak-…`); also `MODAL_TOKEN_ID` or the systemd credential `modal-token-id`.
    #[serde(serialize_with = "redacted")]
    pub token_id: Option<SecretString>,
    /// The token's secret (`as-…`); also `MODAL_TOKEN_SECRET` or the systemd credential `modal-token-secret`.
    #[serde(serialize_with = "redacted")]
    pub token_secret: Option<SecretString>,
    /// A file with the token's id.
    pub token_id_file: Option<PathBuf>,
    /// A file with the token's secret.
    pub token_secret_file: Option<PathBuf>,
    /// The App that holds our sandboxes (default `sandrunner`).
    pub app: String,
    /// The environment of the App (default: the token's own).
    pub environment: String,
    /// Creates per second (default 5).
    pub creates_per_second: f64,
    /// Creates at once after a pause (default 150).
    pub create_burst: u32,
    /// How long one call may wait because Modal asks it to (default 30 s).
    #[serde(with = "humantime_serde")]
    pub max_throttle_wait: Duration,
    /// The number of the client type that we present (default 9).
    pub client_type: u32,
    /// The client version that we present (default `1.0.0`).
    pub client_version: String,
    /// The image builder's version (default: the environment's).
    pub image_builder_version: Option<String>,
}

impl Default for ModalConfig {
    fn default() -> Self {
        Self {
            server_url: "https://api.modal.com".into(),
            token_id: None,
            token_secret: None,
            token_id_file: None,
            token_secret_file: None,
            app: "sandrunner".into(),
            environment: String::new(),
            creates_per_second: 5.0,
            create_burst: 150,
            max_throttle_wait: Duration::from_secs(30),
            client_type: 9,
            client_version: "1.0.0".into(),
            image_builder_version: None,
        }
    }
}

/// `[[github]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GithubConfig {
    /// The account's name in our names, `[a-z0-9]{1,12}` (default `gh`).
    pub name: String,
    /// The host: `github.com` (default), `SUBDOMAIN.ghe.com`, or that of an Enterprise Server; also
    /// `GITHUB_ENTERPRISE_DOMAIN`.
    pub host: Option<String>,
    /// Address of the REST API, where it does not follow from the host.
    pub api_url: Option<String>,
    /// A personal access token; also `GITHUB_TOKEN` or the systemd credential `github-token`.
    #[serde(serialize_with = "redacted")]
    pub token: Option<SecretString>,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// The id or client id of a GitHub App, instead of a token; also `GITHUB_APP_ID`.
    pub app_id: Option<String>,
    /// The App's private key, a PEM text; also `GITHUB_APP_KEY` or the systemd credential `github-app-key`.
    #[serde(serialize_with = "redacted")]
    pub private_key: Option<SecretString>,
    /// A file with the private key.
    pub private_key_file: Option<PathBuf>,
    /// The repositories whose jobs are served, `owner/name`.
    pub allowed_repos: Vec<String>,
    /// The runner group of new runners of repositories; 1 is the default group (default 1).
    pub runner_group_id: u64,
    /// Organizations in which runners are registered for all their allowed repositories (default: none; runners are
    /// registered in each repository).
    pub organizations: Vec<OrganizationConfig>,
    /// Points per minute of GitHub's secondary limit (default 900).
    pub points_per_minute: u32,
    /// Writes per minute (default 90).
    pub mutations_per_minute: u32,
    /// Requests of the hourly quota that are kept for writes (default 500).
    pub primary_reserve: u32,
    /// Requests at a time (default 8).
    pub max_in_flight: u32,
}

impl Default for GithubConfig {
    fn default() -> Self {
        Self {
            name: "gh".into(),
            host: None,
            api_url: None,
            token: None,
            token_file: None,
            app_id: None,
            private_key: None,
            private_key_file: None,
            allowed_repos: Vec::new(),
            runner_group_id: 1,
            organizations: Vec::new(),
            points_per_minute: 900,
            mutations_per_minute: 90,
            primary_reserve: 500,
            max_in_flight: 8,
        }
    }
}

/// `[[github.organizations]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationConfig {
    /// Its login.
    pub name: String,
    /// The name of the runner group that new runners join; it admits no repository that is not allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_group: Option<String>,
    /// Its id, in place of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_group_id: Option<u64>,
}

/// `[[images]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// What classes call it: `[a-z0-9._-]{1,40}`.
    pub name: String,
    /// A registry reference or `im-…` (default: what is below the runner in the image that Sandrunner defines).
    pub base: Option<String>,
    /// The name of a Modal Secret with `REGISTRY_USERNAME` and `REGISTRY_PASSWORD`, for a base in a private registry
    /// (default: none).
    pub registry_secret: Option<String>,
    /// Packages that `apt-get` installs (default: none).
    #[serde(default)]
    pub apt: Vec<String>,
    /// Environment variables of the commands in `run` and of the sandbox (default: none).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Commands for `/bin/sh`, in their order (default: none).
    #[serde(default)]
    pub run: Vec<String>,
    /// Whether GitHub's runner is added as the last layer (default true).
    #[serde(default = "added")]
    pub runner: bool,
}

fn added() -> bool {
    true
}

/// `[[runner_classes]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// Its name, a metric label: `[a-z0-9:._-]{1,40}`.
    pub name: String,
    /// Labels that a job must carry (default: none).
    #[serde(default)]
    pub labels: Vec<String>,
    /// Further labels that a job may carry; `*` stands for any text (default: none).
    #[serde(default)]
    pub extra_label_patterns: Vec<String>,
    /// The repositories it serves, of those that are allowed (default: all).
    #[serde(default)]
    pub repos: Vec<String>,
    /// Whether it serves runs that come from forks (default: `runner.allow_forks`).
    pub allow_forks: Option<bool>,
    /// Whether it serves public repositories (default: `runner.allow_public_repos`).
    pub allow_public_repos: Option<bool>,
    /// Physical cores, two vCPUs each (default 2).
    pub cpu: Option<f64>,
    /// The most physical cores that it may use (default: Modal's soft limit, 16 more than `cpu`).
    pub cpu_limit: Option<f64>,
    /// Memory in MiB (default 8192).
    pub memory: Option<u32>,
    /// The memory in MiB above which a sandbox is killed (default: none).
    pub memory_limit: Option<u32>,
    /// A GPU as Modal names it, with `:count` for several (default: none).
    pub gpu: Option<String>,
    /// GPUs that will do where Modal places none with `gpu` within `schedule_timeout`, the best first (default: none).
    #[serde(default)]
    pub gpu_fallback: Vec<String>,
    /// The name of one of the `[[images]]`, a registry reference or `im-…` (default: the image that Sandrunner defines).
    pub image: Option<String>,
    /// Modal regions (default: `runner.regions`).
    pub regions: Option<Vec<String>>,
    /// Regions that will do where Modal has none of these GPUs in `regions`, one after the other (default: none).
    #[serde(default)]
    pub region_fallback: Vec<String>,
    /// `gvisor` or `vm` (default: Modal's choice, gVisor).
    pub runtime: Option<String>,
    /// How jobs get Docker: `gvisor` or `vm` (default: they do not).
    pub docker: Option<String>,
    /// What its sandboxes may connect to (default: `runner.network`).
    pub network: Option<NetworkConfig>,
    /// Volumes in its sandboxes (default: `runner.volumes`).
    pub volumes: Option<Vec<VolumeConfig>>,
    /// Environment variables, added to `runner.env`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of Modal Secrets, whose values become variables of every job's environment (default: none).
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Whether jobs run as root, else as the user `runner` of the image (default true).
    pub run_as_root: Option<bool>,
    /// The longest job (default 6 h).
    #[serde(default, with = "humantime_serde")]
    pub timeout: Option<Duration>,
    /// How long a runner waits for a job (default 5 min).
    #[serde(default, with = "humantime_serde")]
    pub idle_timeout: Option<Duration>,
    /// How long a sandbox may take until its runner is online (default 3 min).
    #[serde(default, with = "humantime_serde")]
    pub start_timeout: Option<Duration>,
    /// How long Modal may take to place the sandbox (default 2 min, with a GPU 15 min).
    #[serde(default, with = "humantime_serde")]
    pub schedule_timeout: Option<Duration>,
    /// The most sandboxes of this class at a time (default: no limit of its own).
    pub max_sandboxes: Option<u32>,
    /// US dollars from midnight to midnight UTC, after which none of it is created (default: no limit of its own).
    pub spend_per_day: Option<f64>,
    /// US dollars per hour of one of its sandboxes (default: what its resources cost).
    pub price: Option<f64>,
}

/// Secrets may be read into the configuration and never come out of it.
#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn redacted<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_str("[redacted]"),
        None => serializer.serialize_none(),
    }
}
