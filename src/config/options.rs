//! What the sandboxes of a class have beside a machine: limits, runtime, Docker, network, Volumes and Secrets.

use std::collections::BTreeSet;

use super::load::ConfigError;
use super::value::{bad, in_range};
use super::{ClassConfig, NetworkConfig, NetworkLists, RunnerConfig, VolumeConfig};
use crate::class::{
    Cidr, Docker, GITHUB_DOMAINS, Network, Runtime, SandboxOptions, User, VolumeMount, domain_admits, needed_hosts,
};

/// The longest name of a Secret or a Volume (Modal's clients: 64 characters).
const NAME_MAX: usize = 64;

/// Folders that nothing may be mounted at or in.
const SYSTEM_FOLDERS: [&str; 11] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/tmp", "/usr"];

/// Reads the options of the class that stands at `key`; `hosts` are the accounts' API hosts, which a runner must reach,
/// with their ports where these are not those of HTTPS.
pub(super) fn options(
    key: &str,
    class: &ClassConfig,
    runner: &RunnerConfig,
    hosts: &BTreeSet<String>,
) -> Result<SandboxOptions, ConfigError> {
    let key_of = |field: &str| format!("{key}.{field}");
    let (runtime, docker) = runtime_and_docker(key, class)?;
    let cpu = class.cpu.unwrap_or(super::classes::DEFAULT_CPU);
    let memory = class.memory.unwrap_or(super::classes::DEFAULT_MEMORY_MIB);
    let cpu_limit = class.cpu_limit.map(|most| in_range(&key_of("cpu_limit"), most, cpu, 128.0)).transpose()?;
    let memory_limit =
        class.memory_limit.map(|most| in_range(&key_of("memory_limit"), most, memory, 1_048_576)).transpose()?;
    if memory_limit.is_some() && runtime == Some(Runtime::Vm) {
        let remedy = "a virtual machine has the memory it asks for, no more and no less: set `memory` alone";
        return Err(bad(key_of("memory_limit"), "set", remedy));
    }
    let network = match &class.network {
        Some(network) => network_of(&key_of("network"), network, hosts)?,
        None => network_of("runner.network", &runner.network, hosts)?,
    };
    let volumes = match &class.volumes {
        Some(volumes) => volumes_of(&key_of("volumes"), volumes)?,
        None => volumes_of("runner.volumes", &runner.volumes)?,
    };
    if let Some(mount) = volumes.iter().find(|mount| overlaps(&mount.path, &runner.dir)) {
        let remedy = "it must not hide the runner, which is in `runner.dir`, nor lie in it";
        return Err(bad(key_of("volumes"), format!("`{}` at {}", mount.name, mount.path), remedy));
    }
    if class.allow_forks.unwrap_or(runner.allow_forks) {
        if !class.secrets.is_empty() {
            let remedy =
                "the class admits forks (`allow_forks`), whose jobs strangers write: they would read the values";
            return Err(bad(key_of("secrets"), "set", remedy));
        }
        if let Some(mount) = volumes.iter().find(|mount| !mount.is_read_only) {
            let remedy = "the class admits forks (`allow_forks`), whose jobs strangers write: set read_only = true";
            return Err(bad(key_of("volumes"), format!("`{}`, writable", mount.name), remedy));
        }
    }
    for name in &class.secrets {
        if !is_name(name) {
            let remedy = "name a Modal Secret: 1 to 64 characters of a-z, A-Z, 0-9, `-`, `_` and `.`";
            return Err(bad(key_of("secrets"), format!("`{name}`"), remedy));
        }
    }
    Ok(SandboxOptions {
        cpu_limit,
        memory_limit_mib: memory_limit,
        runtime,
        docker,
        network,
        volumes,
        secrets: class.secrets.clone(),
        user: if class.run_as_root.unwrap_or(true) { User::Root } else { User::Runner },
    })
}

fn runtime_and_docker(key: &str, class: &ClassConfig) -> Result<(Option<Runtime>, Option<Docker>), ConfigError> {
    let key_of = |field: &str| format!("{key}.{field}");
    let runtime = match class.runtime.as_deref() {
        None => None,
        Some("gvisor") => Some(Runtime::Gvisor),
        Some("vm") => Some(Runtime::Vm),
        Some(other) => return Err(bad(key_of("runtime"), format!("`{other}`"), "must be `gvisor` or `vm`")),
    };
    let docker = match class.docker.as_deref() {
        None => None,
        Some("gvisor") => Some(Docker::Gvisor),
        Some("vm") => Some(Docker::Vm),
        Some(other) => return Err(bad(key_of("docker"), format!("`{other}`"), "must be `gvisor` or `vm`")),
    };
    match (docker, runtime) {
        (Some(Docker::Vm), Some(Runtime::Gvisor)) => {
            return Err(bad(key_of("docker"), "`vm`", "Docker of this kind needs runtime = \"vm\", or none"));
        }
        (Some(Docker::Gvisor), Some(Runtime::Vm)) => {
            return Err(bad(key_of("docker"), "`gvisor`", "a virtual machine has Docker of its own: docker = \"vm\""));
        }
        _ => {}
    }
    let runtime = if docker == Some(Docker::Vm) { Some(Runtime::Vm) } else { runtime };
    if runtime == Some(Runtime::Vm) && class.gpu.is_some() {
        let field = if class.runtime.is_some() { "runtime" } else { "docker" };
        return Err(bad(key_of(field), "`vm`", "Modal's virtual machines have no GPU: leave out one of the two"));
    }
    Ok((runtime, docker))
}

fn network_of(key: &str, network: &NetworkConfig, hosts: &BTreeSet<String>) -> Result<Network, ConfigError> {
    let lists = match network {
        NetworkConfig::Word(word) if word == "open" => return Ok(Network::Open),
        NetworkConfig::Word(word) if word == "blocked" => {
            let remedy = "a runner must reach GitHub: use { domains = [] }, which allows nothing but GitHub";
            return Err(bad(key, "`blocked`", remedy));
        }
        NetworkConfig::Word(word) => {
            let remedy = "must be \"open\", or a table with `cidrs`, `domains` and `github`";
            return Err(bad(key, format!("`{word}`"), remedy));
        }
        NetworkConfig::Only(lists) => lists,
    };
    let NetworkLists { cidrs, domains, github } = lists;
    let cidrs = cidrs.iter().map(|text| {
        let remedy = "must be a network such as 10.0.0.0/8, with no bits set after its prefix";
        Cidr::parse(text.trim()).ok_or_else(|| bad(format!("{key}.cidrs"), format!("`{text}`"), remedy))
    });
    let cidrs: Vec<Cidr> = cidrs.collect::<Result<_, _>>()?;
    let mut allowed: Vec<String> = Vec::new();
    for text in domains {
        let domain = text.trim().to_ascii_lowercase();
        if !is_domain(&domain) {
            let remedy = "must be a name such as pypi.org or *.example.com, without scheme, port and path";
            return Err(bad(format!("{key}.domains"), format!("`{text}`"), remedy));
        }
        allowed.push(domain);
    }
    if *github {
        allowed.extend(GITHUB_DOMAINS.iter().map(|domain| (*domain).to_owned()));
        allowed.extend(hosts.iter().flat_map(|host| domains_of(host)));
    } else if cidrs.is_empty() {
        let is_out = |host: &&str| !allowed.iter().any(|domain| domain_admits(domain, host));
        let missing: Vec<&str> = hosts.iter().flat_map(|host| needed_hosts(name_of(host))).filter(is_out).collect();
        if !missing.is_empty() {
            let remedy = format!("a runner must reach GitHub: allow {} too, or leave `github` out", missing.join(", "));
            return Err(bad(format!("{key}.domains"), "all of them", remedy));
        }
    }
    let is_elsewhere = |host: &&String| host.contains(':');
    if let Some(host) = hosts.iter().find(is_elsewhere).filter(|_| cidrs.is_empty()) {
        let remedy =
            "it has a port of its own, and Modal's lists of domains open port 443 alone: allow its network by `cidrs`";
        return Err(bad(format!("{key}.domains"), format!("without {host}"), remedy));
    }
    let mut seen = BTreeSet::new();
    allowed.retain(|domain| seen.insert(domain.clone()));
    Ok(Network::Only { cidrs, domains: allowed })
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// The names of a GitHub whose API has that host: those of its own, and beside it.
fn domains_of(host: &str) -> [String; 3] {
    let host = name_of(host);
    let base = host.strip_prefix("api.").unwrap_or(host);
    [host.to_owned(), base.to_owned(), format!("*.{base}")]
}

fn volumes_of(key: &str, volumes: &[VolumeConfig]) -> Result<Vec<VolumeMount>, ConfigError> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for VolumeConfig { name, path, read_only } in volumes {
        let plain = ["{repo}", "{owner}", "{class}"].iter().fold(name.clone(), |name, part| name.replace(part, "x"));
        if !is_name(&plain) {
            let remedy = "a name has 1 to 64 characters of a-z, A-Z, 0-9, `-`, `_` and `.`, and may hold {repo}, {owner} \
                          and {class}";
            return Err(bad(format!("{key}.name"), format!("`{name}`"), remedy));
        }
        let path = path.trim_end_matches('/');
        let is_path = path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|part| {
                !part.is_empty() && part != "." && part != ".." && part.chars().all(|c| c.is_ascii_graphic())
            })
        });
        if !is_path {
            let remedy = "must be a folder of its own, such as /cache";
            return Err(bad(format!("{key}.path"), format!("`{path}`"), remedy));
        }
        if SYSTEM_FOLDERS.iter().any(|folder| path == *folder || path.starts_with(&format!("{folder}/"))) {
            let remedy = "the system of a sandbox is there: choose a folder of its own, such as /cache";
            return Err(bad(format!("{key}.path"), format!("`{path}`"), remedy));
        }
        if let Some(other) = mounts.iter().find(|other| other.name == *name || overlaps(&other.path, path)) {
            let remedy = format!(
                "it stands beside `{}` at {}; a sandbox has a Volume once, and none in another",
                other.name, other.path
            );
            return Err(bad(key, format!("`{name}` at {path}"), remedy));
        }
        mounts.push(VolumeMount { name: name.clone(), path: path.to_owned(), is_read_only: *read_only });
    }
    Ok(mounts)
}

/// Whether one folder is the other, or lies in it.
fn overlaps(one: &str, other: &str) -> bool {
    let lies_in = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    one == other || lies_in(one, other) || lies_in(other, one)
}

pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_domain(domain: &str) -> bool {
    let labels = domain.strip_prefix("*.").unwrap_or(domain);
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_address = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    domain.len() <= 253 && labels.contains('.') && labels.split('.').all(is_label) && !is_address
}
