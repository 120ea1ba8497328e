//! What `[[runner_classes]]` means, and the classes that are built in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::load::ConfigError;
use super::options::options;
use super::value::{bad, check_env_name, check_label, duration, in_range};
use super::{ClassConfig, RunnerConfig};
use crate::class::{ClassClocks, Docker, Gpu, ImageSource, LabelPattern, MODAL_TIMEOUT_MAX, Risk, Risks, RunnerClass};
use crate::ids::{AccountName, ClassName, Labels, RepoName};
use crate::plan::AccountPolicy;

/// Physical cores where a class says nothing.
pub(super) const DEFAULT_CPU: f64 = 2.0;
/// Memory in MiB where a class says nothing.
pub(super) const DEFAULT_MEMORY_MIB: u32 = 8192;
/// The GPU classes that exist without being configured.
const BUILTIN_GPUS: [&str; 5] = ["t4", "l4", "a100", "a100-80gb", "h100"];

pub(super) fn classes(
    configured: &[ClassConfig],
    runner: &RunnerConfig,
    accounts: &BTreeMap<AccountName, AccountPolicy>,
    required_label: &str,
) -> Result<Vec<RunnerClass>, ConfigError> {
    let mut classes: Vec<RunnerClass> = Vec::new();
    let hosts = hosts(accounts);
    for (index, class) in configured.iter().enumerate() {
        classes.push(class_of(&format!("runner_classes[{index}]"), class, runner, &hosts)?);
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
    check_alike(&classes, accounts, required_label)?;
    Ok(classes)
}

/// GitHub gives a runner any job of its labels that comes from where it is registered. So of classes that match the same job
/// one has to serve all that such jobs come from: a runner of the other would be given some, and its hook fails those.
fn check_alike(
    classes: &[RunnerClass],
    accounts: &BTreeMap<AccountName, AccountPolicy>,
    required_label: &str,
) -> Result<(), ConfigError> {
    let organizations: Vec<(&AccountPolicy, &str)> = accounts
        .values()
        .flat_map(|account| account.organizations.keys().map(move |org| (account, org.as_str())))
        .collect();
    for (index, later) in classes.iter().enumerate() {
        for first in classes[..index].iter().filter(|first| share_jobs(first, later, required_label)) {
            // Of two that serve a job, the one with more labels does.
            let (first, later) = if later.labels.len() > first.labels.len() { (later, first) } else { (first, later) };
            let serves = |class: &RunnerClass, repo: &RepoName| class.repos.is_empty() || class.repos.contains(repo);
            let meet = later.repos.is_empty() || later.repos.iter().any(|repo| serves(first, repo));
            let is_left = organizations.iter().any(|(account, org)| {
                let is_of_it = |repo: &&RepoName| repo.owner() == *org;
                let allowed =
                    if later.repos.is_empty() { account.repos.iter().collect() } else { Vec::from_iter(&later.repos) };
                let has_more = later.repos.is_empty() && account.patterns.of_owner(org).next().is_some();
                let is_left = allowed.into_iter().filter(is_of_it).any(|repo| !serves(first, repo));
                first.repos.iter().any(|repo| is_of_it(&repo)) && (is_left || has_more)
            });
            let differ = if meet && later.admits.contains(Risk::Fork) && !first.admits.contains(Risk::Fork) {
                "only the second has `allow_forks = true`"
            } else if is_left {
                "`repos` of the first lacks some of an organization, whose runners take jobs of all"
            } else {
                continue;
            };
            let alike = if first.labels == later.labels { "are the same" } else { "admit the same jobs" };
            let value = format!("those of `{}` and `{}` {alike}, and {differ}", first.name, later.name);
            return Err(bad("runner_classes.labels", value, "give one of them a label of its own"));
        }
    }
    Ok(())
}

/// Whether a job matches both, but for its repository: one with the labels of both does if any.
fn share_jobs(one: &RunnerClass, other: &RunnerClass, required_label: &str) -> bool {
    one.labels == other.labels
        || (other.labels.iter().all(|label| one.offers(label, required_label))
            && one.labels.iter().all(|label| other.offers(label, required_label)))
}

/// The classes that exist without being configured: one per GPU, and last the one for everything else.
pub(super) fn builtin_classes() -> Vec<ClassConfig> {
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
        cpu_limit: None,
        memory: None,
        memory_limit: None,
        gpu: gpu.map(str::to_owned),
        image: None,
        regions: None,
        runtime: None,
        docker: None,
        network: None,
        volumes: None,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        timeout: None,
        idle_timeout: None,
        start_timeout: None,
        schedule_timeout: None,
        max_sandboxes: None,
    }
}

/// The hosts of the accounts' APIs, with their ports where these are not those of HTTPS.
fn hosts(accounts: &BTreeMap<AccountName, AccountPolicy>) -> BTreeSet<String> {
    let host = |account: &AccountPolicy| {
        let address = account.host.parse::<http::Uri>().ok()?;
        let host = address.host()?;
        let port = address.port_u16().filter(|port| *port != 443);
        Some(port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    };
    accounts.values().filter_map(host).collect()
}

fn class_of(
    key: &str,
    class: &ClassConfig,
    runner: &RunnerConfig,
    hosts: &BTreeSet<String>,
) -> Result<RunnerClass, ConfigError> {
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
        check_env_name(&key_of("env"), name, &runner.plain_env)?;
    }
    let mut env = runner.env.clone();
    env.extend(class.env.clone());
    let options = options(key, class, runner, hosts)?;
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
        cpu: in_range(&key_of("cpu"), class.cpu.unwrap_or(DEFAULT_CPU), 0.125, 64.0)?,
        memory_mib: in_range(&key_of("memory"), class.memory.unwrap_or(DEFAULT_MEMORY_MIB), 128, 1_048_576)?,
        image: image_source(&key_of("image"), class.image.as_deref(), options.docker)?,
        regions: class.regions.clone().unwrap_or_else(|| runner.regions.clone()),
        env,
        options,
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

fn image_source(key: &str, image: Option<&str>, docker: Option<Docker>) -> Result<ImageSource, ConfigError> {
    let is_reference = |text: &str| {
        !text.is_empty()
            && text.len() <= 255
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
    };
    match image {
        None => Ok(ImageSource::Default { has_docker: docker.is_some() }),
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
