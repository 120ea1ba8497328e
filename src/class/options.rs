//! What the sandboxes of a class have beside a machine: limits, network, Volumes, Secrets, Docker (pure).

use std::fmt;
use std::net::IpAddr;

use crate::ids::{ClassName, Fingerprint, RepoName};

/// The API of github.com.
const GITHUB_API: &str = "https://api.github.com";
/// The longest name of a Volume (Modal's clients: 64 characters).
const VOLUME_NAME_MAX: usize = 64;

/// What GitHub's hosted services are reached by (GitHub docs: communicating with self-hosted runners, September 2026).
///
/// Whether a star of Modal's stands for one part of a name or for several is not known: both forms are listed.
pub const GITHUB_DOMAINS: [&str; 15] = [
    "github.com",
    "*.github.com",
    "api.github.com",
    "codeload.github.com",
    "*.pkg.github.com",
    "*.githubusercontent.com",
    "*.actions.githubusercontent.com",
    "pkg.actions.githubusercontent.com",
    "results-receiver.actions.githubusercontent.com",
    "objects.githubusercontent.com",
    "release-assets.githubusercontent.com",
    "pkg-containers.githubusercontent.com",
    "ghcr.io",
    "*.ghe.com",
    "*.blob.core.windows.net",
];

/// What the sandboxes of a class have beside a machine. The default is what Modal gives who asks for nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SandboxOptions {
    /// The most physical cores that it may use; none for Modal's soft limit, 16 above what it asked for.
    pub cpu_limit: Option<f64>,
    /// The memory in MiB above which it is killed; none for no limit.
    pub memory_limit_mib: Option<u32>,
    /// What the sandbox is; none for Modal's choice, gVisor.
    pub runtime: Option<Runtime>,
    /// Whether jobs can use Docker.
    pub docker: Option<Docker>,
    /// What it may connect to.
    pub network: Network,
    /// Volumes that outlive it.
    pub volumes: Vec<VolumeMount>,
    /// Names of Modal Secrets, whose values become variables of its environment.
    pub secrets: Vec<String>,
    /// As whom its jobs run.
    pub user: User,
}

/// As whom jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum User {
    /// As root, as sandboxes do.
    #[default]
    Root,
    /// As the user [`crate::runner::RUN_AS_USER`] of the image.
    Runner,
}

/// What a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// A container whose system calls are emulated.
    Gvisor,
    /// A virtual machine with a kernel of its own; a beta of Modal's, for workspaces that it admits.
    Vm,
}

impl Runtime {
    /// Modal's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gvisor => "gvisor",
            Self::Vm => "vm",
        }
    }
}

/// How jobs get Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Docker {
    /// Under gVisor: an experiment of Modal's, the host's network only, no `services:`.
    Gvisor,
    /// In a virtual machine: everything.
    Vm,
}

impl Docker {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gvisor => "gvisor",
            Self::Vm => "vm",
        }
    }
}

/// What a sandbox may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// Everything.
    #[default]
    Open,
    /// These alone.
    Only {
        /// Networks, such as `10.0.0.0/8`.
        cidrs: Vec<Cidr>,
        /// Names, on port 443 by TLS; `*.` stands for what is before it.
        domains: Vec<String>,
    },
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The first of them.
    pub address: IpAddr,
    /// How many bits they share.
    pub prefix: u8,
}

impl Cidr {
    /// Reads `address/bits`; a mere address is a network of one. None where bits beyond the prefix are set, too: it is not
    /// clear then what was meant.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &str| bits.bytes().all(|b| b.is_ascii_digit()) && !bits.is_empty();
        let prefix = match prefix {
            Some(prefix) if is_number(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits)?,
            Some(_) => return None,
            None => bits,
        };
        let rest = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let is_first = rest.checked_shl(u32::from(prefix)).unwrap_or(0) == 0;
        is_first.then_some(Self { address, prefix })
    }
}

impl Cidr {
    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |own: u128, other: u128, bits: u32| {
            let rest = bits.saturating_sub(u32::from(self.prefix));
            own.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => shared(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => shared(own.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whether a domain of an allow list means a host.
pub fn domain_admits(domain: &str, host: &str) -> bool {
    match domain.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => domain == host,
    }
}

/// What a runner cannot do without of a GitHub whose API has that host.
pub fn needed_hosts(api: &str) -> Vec<&str> {
    if api == "api.github.com" { vec!["github.com", api, "broker.actions.githubusercontent.com"] } else { vec![api] }
}

/// A Volume of the class in its sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// The Volume's name, in which `{repo}`, `{owner}` and `{class}` stand for those of the sandbox. Repositories and owners
    /// of another GitHub than github.com are others, whatever their names.
    pub name: String,
    /// Where it is in the sandbox.
    pub path: String,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

impl VolumeMount {
    /// The name of the Volume for a sandbox of a GitHub whose API has that address. What would be too long, has characters
    /// that no name has, or may be put together in more than one way, is told apart by a fingerprint at its end.
    pub fn name_for(&self, api: &str, repo: &RepoName, class: &ClassName) -> String {
        let parts = [("{repo}", repo.as_tag()), ("{owner}", repo.owner().to_owned()), ("{class}", class.to_string())];
        let whole = parts.iter().fold(self.name.clone(), |name, (part, value)| name.replace(part, value));
        let used: Vec<&str> =
            parts.iter().filter(|(part, _)| self.name.contains(part)).map(|(_, value)| value.as_str()).collect();
        let is_elsewhere = api != GITHUB_API && (self.name.contains("{repo}") || self.name.contains("{owner}"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let plain: String = whole.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
        if plain == whole && plain.len() <= VOLUME_NAME_MAX && used.len() < 2 && !is_elsewhere {
            return plain;
        }
        let api = if is_elsewhere { api } else { "" };
        let fingerprint = Fingerprint::of(&[&[self.name.as_str(), api], &used[..]].concat().join("\n")).to_string();
        let kept: String = plain.chars().take(VOLUME_NAME_MAX - fingerprint.len() - 1).collect();
        format!("{kept}-{fingerprint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_whole_or_not_at_all() {
        let read = |text: &str| Cidr::parse(text).map(|cidr| cidr.to_string());
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32", "2001:db8::/32", "::/0", "::1/128"] {
            assert_eq!(read(text).as_deref(), Some(text));
        }
        assert_eq!(read("192.0.2.7").as_deref(), Some("192.0.2.7/32"));
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "2001:db8::1/32", "x/8"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it() {
        let holds = |network: &str, address: &str| Cidr::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(holds("140.82.112.0/20", "140.82.121.4") && holds("0.0.0.0/0", "203.0.113.9"));
        assert!(holds("192.0.2.7", "192.0.2.7") && holds("2001:db8::/32", "2001:db8:1::1") && holds("::/0", "::1"));
        assert!(!holds("140.82.112.0/20", "140.82.128.1") && !holds("192.0.2.7", "192.0.2.6"));
        assert!(!holds("0.0.0.0/0", "::1") && !holds("::/0", "192.0.2.7"));
    }

    #[test]
    fn a_star_stands_for_what_is_before_a_domain() {
        let admits = |domain, host| domain_admits(domain, host);
        assert!(admits("github.com", "github.com") && admits("*.github.com", "api.github.com"));
        assert!(!admits("*.github.com", "github.com") && !admits("*.github.com", "evilgithub.com"));
        assert!(!admits("github.com", "api.github.com"));
    }

    #[test]
    fn a_volume_has_a_name_of_its_own_for_each_repository() {
        let name = |template: &str, repo: &str| {
            let mount = VolumeMount { name: template.to_owned(), path: "/cache".to_owned(), is_read_only: false };
            mount.name_for(GITHUB_API, &repo.parse().unwrap(), &ClassName::new("gpu:t4"))
        };
        assert_eq!(name("cache", "acme/web"), "cache");
        assert_ne!(name("cache-{repo}", "acme/web"), name("cache-{repo}", "acme/api"));
        assert_eq!(name("cache-{owner}", "acme/web"), "cache-acme");
        let long = ["a".repeat(39), "b".repeat(100)].join("/");
        let other = format!("{}c", &long[..long.len() - 1]);
        assert!(name("cache-{repo}", &long).len() <= 64);
        assert_ne!(name("cache-{repo}", &long), name("cache-{repo}", &other));
        assert!(name("cache-{class}", "acme/web").starts_with("cache-gpu-t4-"));
        let of = |template: &str, api: &str, repo: &str, class: &str| {
            let mount = VolumeMount { name: template.to_owned(), path: "/cache".to_owned(), is_read_only: false };
            mount.name_for(api, &repo.parse().unwrap(), &ClassName::new(class))
        };
        let both = "{owner}-{class}";
        assert_ne!(of(both, GITHUB_API, "acme/web", "a-b"), of(both, GITHUB_API, "acme-a/web", "b"));
        let server = "https://ghe.example/api/v3";
        assert_ne!(of("{repo}", GITHUB_API, "acme/web", "a"), of("{repo}", server, "acme/web", "a"));
        assert_eq!(of("cache", GITHUB_API, "acme/web", "a"), of("cache", server, "acme/web", "a"));
    }
}
