//! What `[[runner_classes]]` means, and the classes that are built in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::images::Images;
use super::load::ConfigError;
use super::options::options;
use super::value::{bad, check_env_name, check_label, duration, in_range, usd};
use super::{ClassConfig, RunnerConfig};
use crate::class::{ClassClocks, Gpu, LabelPattern, MODAL_TIMEOUT_MAX, Risk, Risks, RunnerClass};
use crate::ids::{AccountName, ClassName, Labels, RepoName};
use crate::plan::{AccountPolicy, Policy};

/// Physical cores where a class says nothing.
pub(super) const DEFAULT_CPU: f64 = 2.0;
/// Memory in MiB where a class says nothing.
pub(super) const DEFAULT_MEMORY_MIB: u32 = 8192;

/// What all classes have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) runner: &'a RunnerConfig,
    pub(super) images: &'a Images,
    pub(super) accounts: &'a BTreeMap<AccountName, AccountPolicy>,
    pub(super) required_label: &'a str,
}

pub(super) fn classes(configured: &[ClassConfig], shared: Shared<'_>) -> Result<Vec<RunnerClass>, ConfigError> {
    let accounts = shared.accounts;
    let mut classes: Vec<RunnerClass> = Vec::new();
    let hosts = hosts(accounts);
    for (index, class) in configured.iter().enumerate() {
        classes.push(class_of(&format!("runner_classes[{index}]"), class, shared, &hosts)?);
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
    check_alike(&classes, accounts, shared.required_label)?;
    Ok(classes)
}

/// A machine that has more GPUs than there may be in all would never be asked for. With a limit of 0 none are wanted at all.
pub(super) fn check_fit(policy: &Policy) -> Result<(), ConfigError> {
    let max_gpus = policy.limits.gpus;
    for class in policy.classes.iter().filter(|_| max_gpus > 0) {
        if let Some(gpu) = class.gpu.iter().chain(&class.gpu_fallback).find(|gpu| gpu.count > max_gpus) {
            let key = format!("runner_classes `{}` gpu", class.name);
            let remedy = format!("limits.max_gpus is {max_gpus}: raise it, or ask for fewer at once");
            return Err(bad(key, format!("`{gpu}`"), remedy));
        }
    }
    Ok(())
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
pub(super) fn builtin_classes(gpus: &[String], gpu_repos: &[String]) -> Result<Vec<ClassConfig>, ConfigError> {
    let mut classes = Vec::new();
    for gpu in gpus {
        let Gpu { name, count } = parse_gpu("builtin_gpus", gpu)?;
        let several = if count > 1 { format!(":{count}") } else { String::new() };
        let label = format!("gpu:{}{several}", name.to_lowercase());
        if !is_class_name(&label) {
            let remedy = "no label can be made of it: give it a class of your own under [[runner_classes]]";
            return Err(bad("builtin_gpus", format!("`{gpu}`"), remedy));
        }
        classes.push(ClassConfig { repos: gpu_repos.to_vec(), ..builtin_class(&label, Some(gpu)) });
    }
    check_repos("builtin_gpu_repos", gpu_repos)?;
    classes.push(builtin_class("default", None));
    Ok(classes)
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
        gpu_fallback: Vec::new(),
        image: None,
        regions: None,
        region_fallback: Vec::new(),
        runtime: None,
        docker: None,
        network: None,
        volumes: None,
        env: BTreeMap::new(),
        secrets: Vec::new(),
        run_as_root: None,
        timeout: None,
        idle_timeout: None,
        start_timeout: None,
        schedule_timeout: None,
        max_sandboxes: None,
        spend_per_day: None,
        price: None,
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
    shared: Shared<'_>,
    hosts: &BTreeSet<String>,
) -> Result<RunnerClass, ConfigError> {
    let runner = shared.runner;
    let key_of = |field: &str| format!("{key}.{field}");
    if !is_class_name(&class.name) {
        let remedy = "must be 1 to 40 characters of a-z, 0-9, `:`, `.`, `_`, `-`";
        return Err(bad(key_of("name"), format!("`{}`", class.name), remedy));
    }
    for label in &class.labels {
        check_label(&key_of("labels"), label)?;
    }
    for pattern in &class.extra_label_patterns {
        check_label(&key_of("extra_label_patterns"), pattern)?;
    }
    let repos = check_repos(&key_of("repos"), &class.repos)?;
    for name in class.env.keys() {
        check_env_name(&key_of("env"), name, &runner.plain_env)?;
    }
    let mut env = runner.env.clone();
    env.extend(class.env.clone());
    let options = options(key, class, runner, hosts)?;
    let machines = machines(key, class, runner)?;
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
        image: shared.images.source(&key_of("image"), class.image.as_deref(), options.docker)?,
        env,
        options,
        clocks: clocks(key, class, machines.gpu.as_ref())?,
        gpu: machines.gpu,
        gpu_fallback: machines.gpu_fallback,
        regions: machines.regions,
        region_fallback: machines.region_fallback,
        max_sandboxes: class
            .max_sandboxes
            .map(|most| in_range(&key_of("max_sandboxes"), most, 1, 100_000))
            .transpose()?,
        spend_per_day: class.spend_per_day.map(|most| usd(&key_of("spend_per_day"), most)).transpose()?,
        price: class.price.map(|price| usd(&key_of("price"), price)).transpose()?,
    })
}

/// What the sandboxes of a class can be on.
struct Machines {
    gpu: Option<Gpu>,
    gpu_fallback: Vec<Gpu>,
    regions: Vec<String>,
    region_fallback: Vec<String>,
}

/// Reads the machines of the class that stands at `key`. Only a sandbox with a GPU waits for one, so only such a class can
/// go on to another.
fn machines(key: &str, class: &ClassConfig, runner: &RunnerConfig) -> Result<Machines, ConfigError> {
    let key_of = |field: &str| format!("{key}.{field}");
    let gpu = class.gpu.as_deref().map(|gpu| parse_gpu(&key_of("gpu"), gpu)).transpose()?;
    let mut gpu_fallback = Vec::new();
    for text in &class.gpu_fallback {
        let fallback = parse_gpu(&key_of("gpu_fallback"), text)?;
        if gpu.as_ref() == Some(&fallback) || gpu_fallback.contains(&fallback) {
            let remedy = "it is tried before: name each GPU once, the best one as `gpu`";
            return Err(bad(key_of("gpu_fallback"), format!("`{text}`"), remedy));
        }
        gpu_fallback.push(fallback);
    }
    let (regions_key, regions) = match &class.regions {
        Some(regions) => (key_of("regions"), regions),
        None => ("runner.regions".to_owned(), &runner.regions),
    };
    for (key, regions) in [(regions_key, regions), (key_of("region_fallback"), &class.region_fallback)] {
        check_regions(&key, regions)?;
    }
    for (field, is_set) in
        [("gpu_fallback", !gpu_fallback.is_empty()), ("region_fallback", !class.region_fallback.is_empty())]
    {
        if is_set && gpu.is_none() {
            let remedy = "only sandboxes with a GPU wait for a machine: set `gpu`, or leave it out";
            return Err(bad(key_of(field), "set", remedy));
        }
    }
    if !class.region_fallback.is_empty() && regions.is_empty() {
        let remedy = "the class runs anywhere already: set `regions`, or leave it out";
        return Err(bad(key_of("region_fallback"), "set", remedy));
    }
    let (regions, region_fallback) = (regions.clone(), class.region_fallback.clone());
    Ok(Machines { gpu, gpu_fallback, regions, region_fallback })
}

/// Regions are part of a tag; which ones there are is Modal's to know.
fn check_regions(key: &str, regions: &[String]) -> Result<(), ConfigError> {
    let is_region = |region: &String| {
        (1..=40).contains(&region.len())
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match regions.iter().find(|region| !is_region(region)) {
        Some(region) => Err(bad(key, format!("`{region}`"), "must be a region as Modal names it, such as us-east")),
        None => Ok(()),
    }
}

fn is_class_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":._-".contains(&b))
}

fn check_repos(key: &str, repos: &[String]) -> Result<Vec<RepoName>, ConfigError> {
    let check =
        |repo: &String| repo.parse().map_err(|_| bad(key, format!("`{repo}`"), "each entry must be \"owner/name\""));
    repos.iter().map(check).collect()
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

fn parse_gpu(key: &str, text: &str) -> Result<Gpu, ConfigError> {
    let remedy = "must be a GPU as Modal names it, such as A100 or H100:2";
    Gpu::parse(text).ok_or_else(|| bad(key, format!("`{text}`"), remedy))
}
