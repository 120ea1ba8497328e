//! What a sandbox shall be, checked and put into Modal's words: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::api;
use super::error::ModalError;
use super::wire::{self, Generation};
use crate::ids::{AppId, ImageId, SecretId, VolumeId};

/// The longest life that Modal gives a sandbox.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// The most bytes of an entry point.
const ENTRYPOINT_BYTES_MAX: usize = 65_536;

/// The most characters of a name.
const NAME_CHARS_MAX: usize = 64;

/// The most characters of a tag's name or value.
const TAG_CHARS_MAX: usize = 63;

/// A sandbox to be created.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// The App that it belongs to.
    pub app: AppId,
    /// Its name, unique among the live sandboxes of the App: what makes a repeated create collide.
    pub name: String,
    /// The image it starts from.
    pub image: ImageId,
    /// The program that it runs, with its arguments; everyone in the sandbox can read them.
    pub entrypoint: Vec<String>,
    /// Variables of its environment, which may be secrets. Must be empty with a GPU: see `secret`.
    pub env: Vec<(String, SecretString)>,
    /// Secrets whose values become variables of its environment, in this order and before `env`; the only way with a GPU.
    pub secret_ids: Vec<SecretId>,
    /// Its tags, set in the same call.
    pub tags: BTreeMap<String, String>,
    /// Physical cores.
    pub cpu: f64,
    /// The most physical cores; none for Modal's soft limit.
    pub cpu_limit: Option<f64>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The memory in MiB above which it is killed; none for no limit.
    pub memory_limit_mib: Option<u32>,
    /// Its GPU, if any.
    pub gpu: Option<Gpu>,
    /// The end of its life, in whole seconds up to a day.
    pub timeout: Duration,
    /// Where it may run; empty for anywhere.
    pub regions: Vec<String>,
    /// The directory that its program starts in; none for the image's.
    pub workdir: Option<String>,
    /// What it is, by Modal's word; none for Modal's choice.
    pub runtime: Option<String>,
    /// What it may connect to.
    pub network: SandboxNetwork,
    /// Its Volumes.
    pub volumes: Vec<Mount>,
    /// Options that Modal calls experimental.
    pub experimental: BTreeMap<String, String>,
}

/// What a sandbox may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SandboxNetwork {
    /// Everything.
    #[default]
    Open,
    /// These alone.
    Only {
        /// Networks.
        cidrs: Vec<String>,
        /// Names; `*.` stands for what is before one.
        domains: Vec<String>,
    },
}

/// A Volume in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The Volume.
    pub volume: VolumeId,
    /// Where it is.
    pub path: String,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

/// A GPU by Modal's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpu {
    /// Its name, such as `A100-80GB`; Modal knows upper case alone.
    pub name: String,
    /// How many.
    pub count: u32,
}

impl SandboxSpec {
    /// The interface that creates it: the older one for GPUs, which the newer one does not have.
    pub fn generation(&self) -> Generation {
        if self.gpu.is_some() { Generation::V1 } else { Generation::V2 }
    }

    /// Finds what Modal would refuse or, worse, silently take otherwise.
    ///
    /// # Errors
    /// [`ModalError::Definition`] with the value and the allowed range.
    pub(super) fn check(&self) -> Result<(), ModalError> {
        let problem = self.problem();
        problem.map_or(Ok(()), |problem| {
            Err(ModalError::Definition { subject: format!("sandbox {}", self.name), problem })
        })
    }

    fn problem(&self) -> Option<String> {
        let entrypoint_bytes: usize = self.entrypoint.iter().map(String::len).sum();
        if !is_plain(&self.name, NAME_CHARS_MAX) {
            return Some(format!("a name is 1 to {NAME_CHARS_MAX} characters of a-z, A-Z, 0-9, `-`, `_` and `.`"));
        }
        if let Some((tag, value)) = self.tags.iter().find(|(tag, value)| !is_tag(tag) || !is_tag(value)) {
            return Some(format!(
                "tag `{tag}` = `{value}`: names and values are 1 to {TAG_CHARS_MAX} characters of a-z, A-Z, 0-9, `-`, `_` and `.`"
            ));
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX || self.timeout.subsec_nanos() > 0 {
            let timeout = humantime::format_duration(self.timeout);
            return Some(format!("timeout {timeout} is not whole seconds from 1 to {}", TIMEOUT_MAX.as_secs()));
        }
        if self.entrypoint.is_empty() || entrypoint_bytes > ENTRYPOINT_BYTES_MAX {
            return Some(format!("an entry point has 1 to {ENTRYPOINT_BYTES_MAX} bytes, not {entrypoint_bytes}"));
        }
        if !(0.001..=4_000_000.0).contains(&self.cpu) || self.memory_mib == 0 {
            return Some(format!("{} cores and {} MiB are no machine", self.cpu, self.memory_mib));
        }
        if self.cpu_limit.is_some_and(|limit| limit < self.cpu)
            || self.memory_limit_mib.is_some_and(|limit| limit < self.memory_mib)
        {
            return Some("a limit lies below what is asked for".to_owned());
        }
        if let Some(problem) = env_problem(&self.env) {
            return Some(problem);
        }
        let is_twice = |(index, mount): &(usize, &Mount)| {
            self.volumes[..*index].iter().any(|other| other.volume == mount.volume || other.path == mount.path)
        };
        if let Some((_, mount)) = self.volumes.iter().enumerate().find(is_twice) {
            return Some(format!(
                "a sandbox has a Volume once, and not {} at {} beside another",
                mount.volume, mount.path
            ));
        }
        match &self.gpu {
            Some(gpu) if gpu.name.is_empty() || gpu.count == 0 => Some(format!("{} GPUs `{}`", gpu.count, gpu.name)),
            Some(_) if !self.env.is_empty() => {
                Some("a sandbox with a GPU takes its environment from a Secret alone".to_owned())
            }
            Some(_) | None => None,
        }
    }

    /// The values that may not be repeated in a message.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.env.iter().map(|(_, value)| value.expose_secret())
    }

    /// The request to the older interface.
    pub(super) fn v1(&self) -> api::SandboxCreateRequest {
        api::SandboxCreateRequest {
            app_id: self.app.to_string(),
            definition: Some(self.definition()),
            tags: wire::wire_tags(&self.tags),
        }
    }

    /// The request to the newer interface. It names stored Secrets twice, as the official clients do: the definition
    /// lists them, the sources say in which order their values and the plain ones apply.
    pub(super) fn v2(&self) -> api::SandboxCreateV2Request {
        let source = |source| api::SecretSource { source: Some(source) };
        let stored = self.secret_ids.iter().map(|id| source(api::secret_source::Source::SecretId(id.to_string())));
        let inline = (!self.env.is_empty()).then(|| {
            let contents = exposed(&self.env);
            source(api::secret_source::Source::Env(api::StringMap { contents }))
        });
        api::SandboxCreateV2Request {
            app_id: self.app.to_string(),
            definition: Some(self.definition()),
            tags: wire::wire_tags(&self.tags),
            secret_sources: stored.chain(inline).collect(),
        }
    }

    /// What both interfaces take. The idle timeout stays unset: it would end a runner in the middle of a job.
    fn definition(&self) -> api::Sandbox {
        let gpu = self.gpu.as_ref().map(|gpu| api::GpuConfig { count: gpu.count, gpu_type: gpu.name.to_uppercase() });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        let milli = |cores: f64| (cores * 1000.0) as u32;
        let mount = |mount: &Mount| api::VolumeMount {
            volume_id: mount.volume.to_string(),
            mount_path: mount.path.clone(),
            allow_background_commits: true,
            read_only: mount.is_read_only,
        };
        api::Sandbox {
            entrypoint_args: self.entrypoint.clone(),
            image_id: self.image.to_string(),
            secret_ids: self.secret_ids.iter().map(SecretId::to_string).collect(),
            resources: Some(api::Resources {
                memory_mb: self.memory_mib,
                milli_cpu: milli(self.cpu),
                gpu_config: Some(gpu.unwrap_or_default()),
                memory_mb_max: self.memory_limit_mib.unwrap_or_default(),
                milli_cpu_max: self.cpu_limit.map(milli).unwrap_or_default(),
            }),
            timeout_secs: u32::try_from(self.timeout.as_secs()).expect("the range is checked"),
            workdir: self.workdir.clone(),
            scheduler_placement: (!self.regions.is_empty())
                .then(|| api::SchedulerPlacement { regions: self.regions.clone() }),
            open_ports_oneof: Some(api::sandbox::OpenPortsOneof::OpenPorts(api::PortSpecs {})),
            network_access: Some(self.network.access()),
            volume_mounts: self.volumes.iter().map(mount).collect(),
            runtime: self.runtime.clone(),
            experimental_options_v2: self.experimental.clone().into_iter().collect(),
            name: Some(self.name.clone()),
            ..Default::default()
        }
    }
}

impl SandboxNetwork {
    fn access(&self) -> api::NetworkAccess {
        use api::network_access::NetworkAccessType;
        match self {
            Self::Open => {
                api::NetworkAccess { network_access_type: NetworkAccessType::Open.into(), ..Default::default() }
            }
            Self::Only { cidrs, domains } => api::NetworkAccess {
                network_access_type: NetworkAccessType::Allowlist.into(),
                allowed_cidrs: cidrs.clone(),
                allowed_domains: domains.clone(),
            },
        }
    }
}

/// What is wrong with variables of an environment, without their values.
pub(super) fn env_problem(env: &[(String, SecretString)]) -> Option<String> {
    let is_variable = |name: &str| {
        !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let odd = env.iter().find(|(name, _)| !is_variable(name));
    odd.map(|(name, _)| format!("`{name}` is no name of a variable: letters, digits and `_`, not first a digit"))
}

/// Variables as Modal takes them.
pub(super) fn exposed(env: &[(String, SecretString)]) -> std::collections::HashMap<String, String> {
    env.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
}

fn is_tag(text: &str) -> bool {
    is_plain(text, TAG_CHARS_MAX)
}

fn is_plain(text: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod official;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn spec() -> SandboxSpec {
        SandboxSpec {
            app: AppId::new("ap-1"),
            name: "sr-main-gh-7-1".to_owned(),
            image: ImageId::new("im-1"),
            entrypoint: vec!["/bin/bash".to_owned(), "-c".to_owned(), "true".to_owned()],
            env: vec![("RUNNER_JITCONFIG".to_owned(), "very-secret-config".into())],
            secret_ids: Vec::new(),
            tags: BTreeMap::from([("repo".to_owned(), "acme.web".to_owned())]),
            cpu: 2.0,
            cpu_limit: None,
            memory_mib: 4096,
            memory_limit_mib: None,
            gpu: None,
            timeout: Duration::from_secs(3600),
            regions: Vec::new(),
            workdir: None,
            runtime: None,
            network: SandboxNetwork::Open,
            volumes: Vec::new(),
            experimental: BTreeMap::new(),
        }
    }

    fn gpu_spec() -> SandboxSpec {
        let gpu = Some(Gpu { name: "a100-80gb".to_owned(), count: 2 });
        SandboxSpec { gpu, env: Vec::new(), secret_ids: vec![SecretId::new("st-0"), SecretId::new("st-1")], ..spec() }
    }

    #[test]
    fn a_spec_never_prints_its_secrets() {
        assert!(!format!("{:?}", spec()).contains("very-secret-config"));
    }

    #[test]
    fn a_plain_sandbox_carries_its_environment_in_the_create() {
        let request = spec().v2();
        let definition = request.definition.unwrap();
        assert_eq!(definition.timeout_secs, 3600);
        assert_eq!(definition.idle_timeout_secs, None);
        assert_eq!(definition.network_access.unwrap().network_access_type, 1);
        assert!(definition.open_ports_oneof.is_some() && definition.scheduler_placement.is_none());
        let resources = definition.resources.unwrap();
        assert_eq!((resources.milli_cpu, resources.memory_mb), (2000, 4096));
        assert_eq!(resources.gpu_config, Some(api::GpuConfig::default()));
        let [api::SecretSource { source: Some(api::secret_source::Source::Env(env)) }] = &request.secret_sources[..]
        else {
            panic!("one inline source is expected")
        };
        assert_eq!(env.contents["RUNNER_JITCONFIG"], "very-secret-config");
    }

    #[test]
    fn a_gpu_sandbox_takes_a_secret_and_the_older_interface() {
        let spec = gpu_spec();
        spec.check().unwrap();
        assert_eq!(spec.generation(), Generation::V1);
        let definition = spec.v1().definition.unwrap();
        assert_eq!(definition.secret_ids, ["st-0", "st-1"]);
        let gpu = definition.resources.unwrap().gpu_config.unwrap();
        assert_eq!((gpu.gpu_type.as_str(), gpu.count), ("A100-80GB", 2));
    }

    #[test]
    fn what_modal_would_refuse_is_named() {
        spec().check().unwrap();
        let cases = [
            (SandboxSpec { name: "a/b".to_owned(), ..spec() }, "a name is 1 to 64"),
            (SandboxSpec { tags: BTreeMap::from([("repo".to_owned(), "a/b".to_owned())]), ..spec() }, "`repo` = `a/b`"),
            (SandboxSpec { timeout: Duration::from_secs(86_401), ..spec() }, "timeout 1day 1s"),
            (SandboxSpec { timeout: Duration::from_millis(1500), ..spec() }, "timeout 1s 500ms"),
            (SandboxSpec { timeout: Duration::ZERO, ..spec() }, "timeout 0s"),
            (SandboxSpec { entrypoint: vec!["x".repeat(65_537)], ..spec() }, "not 65537"),
            (SandboxSpec { cpu: f64::NAN, ..spec() }, "NaN cores"),
            (SandboxSpec { env: vec![("1A".to_owned(), "v".into())], ..spec() }, "`1A`"),
            (SandboxSpec { env: spec().env, ..gpu_spec() }, "from a Secret alone"),
        ];
        for (spec, expected) in cases {
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("very-secret-config"));
        }
    }
}
