//! From a job's labels to the machine it gets (pure).

mod image;
mod machine;
mod options;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cost::Usd;
use crate::ids::{ClassName, Labels, RepoName};

pub use image::{ImageBase, ImageRecipe, ImageSource, RunnerIn};
pub use machine::{Gpu, Machine};
pub use options::{
    Cidr, Docker, GITHUB_DOMAINS, Network, Runtime, SandboxOptions, User, VolumeMount, domain_admits, needed_hosts,
};

/// Labels that every runner of ours has by its nature; a job may ask for them in any class.
const IMPLIED_LABELS: [&str; 3] = ["self-hosted", "linux", "x64"];

/// A pattern for labels that differ from run to run, such as `job-*`. The star stands for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelPattern(String);

impl LabelPattern {
    /// Folds the pattern to lower case.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_lowercase())
    }

    /// Whether it stands for any text.
    pub(crate) fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether a whole text is of it.
    pub(crate) fn matches(&self, label: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = label.strip_prefix(first) else { return false };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for LabelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the jobs of a run are not served unless a class says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Risk {
    /// Its commits come from another repository, or from one that is gone: strangers wrote what would run.
    Fork,
    /// Everybody can read its repository, and so propose to it, or GitHub does not say who can.
    Public,
}

impl Risk {
    fn bit(self) -> u8 {
        match self {
            Self::Fork => 1,
            Self::Public => 2,
        }
    }
}

/// Some of the [`Risk`]s: those of a run, or those that a class admits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Risks(u8);

impl Risks {
    /// No risk.
    pub const NONE: Self = Self(0);

    /// With one more.
    #[must_use]
    pub fn with(self, risk: Risk) -> Self {
        Self(self.0 | risk.bit())
    }

    /// Those that are there.
    pub fn of(risks: impl IntoIterator<Item = Option<Risk>>) -> Self {
        risks.into_iter().flatten().fold(Self::NONE, Self::with)
    }

    /// Whether it is one of them.
    pub fn contains(self, risk: Risk) -> bool {
        self.0 & risk.bit() != 0
    }

    /// The first that `admitted` lacks.
    pub fn beyond(self, admitted: Self) -> Option<Risk> {
        [Risk::Fork, Risk::Public].into_iter().find(|risk| self.contains(*risk) && !admitted.contains(*risk))
    }
}

/// A runner class: which jobs it serves, and on what.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerClass {
    /// Its name, a metric label.
    pub name: ClassName,
    /// A job must carry all of these.
    pub labels: Labels,
    /// Further labels that a job may carry.
    pub extra_label_patterns: Vec<LabelPattern>,
    /// The repositories it serves; empty for all that are allowed.
    pub repos: Vec<RepoName>,
    /// What it serves although strangers may have a hand in it.
    pub admits: Risks,
    /// Physical cores.
    pub cpu: f64,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The GPU, if any.
    pub gpu: Option<Gpu>,
    /// What GPUs will do where Modal is short of that one, the best first.
    pub gpu_fallback: Vec<Gpu>,
    /// Its image.
    pub image: ImageSource,
    /// Modal regions; empty for any.
    pub regions: Vec<String>,
    /// Regions that will do where Modal is short of all these GPUs in those, one after the other.
    pub region_fallback: Vec<String>,
    /// Further environment variables of the sandbox.
    pub env: BTreeMap<String, String>,
    /// What its sandboxes have beside a machine.
    pub options: SandboxOptions,
    /// The clocks of its sandboxes.
    pub clocks: ClassClocks,
    /// The most sandboxes of this class at a time.
    pub max_sandboxes: Option<u32>,
    /// US dollars a day, from midnight to midnight UTC.
    pub spend_per_day: Option<Usd>,
    /// What a sandbox costs per hour, whatever its resources cost.
    pub price: Option<Usd>,
}

/// How long the phases of a sandbox may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassClocks {
    /// The longest job (default 6 h).
    pub timeout: Duration,
    /// How long a runner waits for a job (default 5 min).
    pub idle_timeout: Duration,
    /// How long a started sandbox may take until its runner is online (default 3 min).
    pub start_timeout: Duration,
    /// How long Modal may take to place the sandbox (default 2 min, GPU 15 min).
    pub schedule_timeout: Duration,
}

/// Modal's longest life of a sandbox (source: Modal's documentation, 24 h).
pub const MODAL_TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

impl ClassClocks {
    /// Modal's `timeout_secs`: all phases one after the other, and five minutes.
    pub fn sandbox_timeout(&self) -> Duration {
        let all = self.timeout + self.schedule_timeout + self.start_timeout + self.idle_timeout;
        (all + Duration::from_secs(300)).min(MODAL_TIMEOUT_MAX)
    }
}

impl RunnerClass {
    /// The machines that its sandboxes can be on, the first choice first: every GPU in its own regions, then every GPU in
    /// the next region.
    pub fn machines(&self) -> Vec<Machine> {
        let elsewhere = self.region_fallback.iter().map(|region| vec![region.clone()]);
        let places = std::iter::once(self.regions.clone()).chain(elsewhere);
        let machines = places.flat_map(|regions| {
            let gpus = std::iter::once(self.gpu.clone()).chain(self.gpu_fallback.iter().cloned().map(Some));
            gpus.map(move |gpu| Machine { gpu, regions: regions.clone() })
        });
        machines.collect()
    }

    /// Whether a job of it may carry a label.
    pub(crate) fn offers(&self, label: &str, required_label: &str) -> bool {
        label == required_label
            || IMPLIED_LABELS.contains(&label)
            || self.labels.contains(label)
            || self.extra_label_patterns.iter().any(|pattern| pattern.matches(label))
    }
}

/// Why no class serves a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoClass {
    /// The job does not carry the opt-in label: it is somebody else's.
    NotOptedIn,
    /// A class matches, and does not serve runs of this kind.
    Refused {
        /// The class.
        class: ClassName,
        /// Why not.
        risk: Risk,
    },
    /// It carries the opt-in label, and something that no class offers.
    NoMatch {
        /// The class that came nearest, where there is one.
        nearest: Option<ClassName>,
        /// The label, or the repository, in which it fails.
        fails_on: Arc<str>,
    },
}

impl fmt::Display for NoClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOptedIn => f.write_str("it does not carry the opt-in label"),
            Self::Refused { class, risk: Risk::Fork } => {
                write!(f, "its run comes from a fork, and class `{class}` has no `allow_forks = true`")
            }
            Self::Refused { class, risk: Risk::Public } => write!(
                f,
                "its repository is not known to be private, and class `{class}` has no `allow_public_repos = true`"
            ),
            Self::NoMatch { nearest: Some(class), fails_on } => {
                write!(f, "no class serves it: the nearest, `{class}`, fails on `{fails_on}`")
            }
            Self::NoMatch { nearest: None, fails_on } => write!(f, "no class is configured (`{fails_on}`)"),
        }
    }
}

/// Finds the class of a job: of all that match the one with most labels, then the first in order.
///
/// # Errors
/// [`NoClass`] with the class that matches and does not serve such a run, or with the nearest one and the label that
/// fails.
pub fn resolve<'a>(
    classes: &'a [RunnerClass],
    required_label: &str,
    (labels, risks): (&Labels, Risks),
    repo: &RepoName,
) -> Result<&'a RunnerClass, NoClass> {
    if !labels.contains(required_label) {
        return Err(NoClass::NotOptedIn);
    }
    let mut best: Option<&RunnerClass> = None;
    let mut refused: Option<(&RunnerClass, Risk)> = None;
    let mut nearest: Option<(usize, &RunnerClass, String)> = None;
    for class in classes {
        match first_failure(class, required_label, labels, repo) {
            None => match risks.beyond(class.admits) {
                None if best.is_none_or(|best| class.labels.len() > best.labels.len()) => best = Some(class),
                Some(risk) if refused.is_none_or(|(other, _)| class.labels.len() > other.labels.len()) => {
                    refused = Some((class, risk));
                }
                None | Some(_) => {}
            },
            Some((failures, fails_on)) => {
                if nearest.as_ref().is_none_or(|(fewest, ..)| failures < *fewest) {
                    nearest = Some((failures, class, fails_on));
                }
            }
        }
    }
    best.ok_or_else(|| match (refused, nearest) {
        (Some((class, risk)), _) => NoClass::Refused { class: class.name.clone(), risk },
        (None, Some((_, class, fails_on))) => {
            NoClass::NoMatch { nearest: Some(class.name.clone()), fails_on: fails_on.into() }
        }
        (None, None) => NoClass::NoMatch { nearest: None, fails_on: labels.to_string().into() },
    })
}

/// How many labels keep a job out of a class, and the first of them.
fn first_failure(class: &RunnerClass, required: &str, labels: &Labels, repo: &RepoName) -> Option<(usize, String)> {
    let missing = class.labels.iter().filter(|label| !labels.contains(label));
    let foreign = labels.iter().filter(|label| !class.offers(label, required));
    let failures: Vec<&str> = foreign.chain(missing).collect();
    if let Some(first) = failures.first() {
        return Some((failures.len(), (*first).to_owned()));
    }
    let is_served = class.repos.is_empty() || class.repos.contains(repo);
    if is_served { None } else { Some((1, repo.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, labels: &[&str], patterns: &[&str]) -> RunnerClass {
        RunnerClass {
            name: ClassName::new(name),
            labels: Labels::new(labels),
            extra_label_patterns: patterns.iter().map(|pattern| LabelPattern::new(pattern)).collect(),
            repos: Vec::new(),
            admits: Risks::NONE,
            cpu: 2.0,
            memory_mib: 4096,
            gpu: None,
            gpu_fallback: Vec::new(),
            image: ImageSource::Default { has_docker: false },
            regions: Vec::new(),
            region_fallback: Vec::new(),
            env: BTreeMap::new(),
            options: SandboxOptions::default(),
            clocks: ClassClocks {
                timeout: Duration::from_secs(6 * 3600),
                idle_timeout: Duration::from_secs(300),
                start_timeout: Duration::from_secs(180),
                schedule_timeout: Duration::from_secs(120),
            },
            max_sandboxes: None,
            spend_per_day: None,
            price: None,
        }
    }

    fn check(labels: &[&str], expected: &str) {
        let classes =
            [class("big", &["big"], &[]), class("big-gpu", &["big", "gpu:t4"], &[]), class("default", &[], &["job-*"])];
        let repo: RepoName = "acme/web".parse().unwrap();
        let found = match resolve(&classes, "modal", (&Labels::new(labels), Risks::NONE), &repo) {
            Ok(class) => class.name.to_string(),
            Err(reason) => reason.to_string(),
        };
        assert_eq!(found, expected, "{labels:?}");
    }

    #[test]
    fn labels_choose_the_class_with_most_of_them() {
        check(&["modal"], "default");
        check(&["Modal", "Self-Hosted", "Linux", "X64"], "default");
        check(&["modal", "job-17-3"], "default");
        check(&["modal", "big"], "big");
        check(&["modal", "gpu:t4", "big"], "big-gpu");
    }

    #[test]
    fn of_classes_that_match_the_one_with_most_labels_serves_or_refuses_and_then_the_first() {
        let repo: RepoName = "acme/web".parse().unwrap();
        let labels = Labels::new(["modal", "big"]);
        let (big, any) = (class("big", &["big"], &[]), class("any", &[], &["*"]));
        let again = RunnerClass { name: ClassName::new("again"), ..big.clone() };
        let found = |classes: &[&RunnerClass], risks: Risks| {
            let classes: Vec<RunnerClass> = classes.iter().copied().cloned().collect();
            match resolve(&classes, "modal", (&labels, risks), &repo) {
                Ok(class) => class.name.to_string(),
                Err(NoClass::Refused { class, .. }) => class.to_string(),
                Err(other) => other.to_string(),
            }
        };
        for risks in [Risks::NONE, Risks::NONE.with(Risk::Fork)] {
            for order in [[&big, &any, &again], [&any, &big, &again]] {
                assert_eq!(found(&order, risks), "big");
            }
            assert_eq!(found(&[&again, &any, &big], risks), "again");
        }
    }

    #[test]
    fn a_job_without_a_class_is_told_the_nearest_and_what_fails() {
        check(&["self-hosted"], "it does not carry the opt-in label");
        check(&["modal", "big", "macos"], "no class serves it: the nearest, `big`, fails on `macos`");
        check(&["modal", "gpu:t4"], "no class serves it: the nearest, `big-gpu`, fails on `big`");
        check(&["modal", "big", "job-1"], "no class serves it: the nearest, `big`, fails on `job-1`");
    }

    #[test]
    fn a_class_may_be_kept_to_some_repositories() {
        let mut only = class("only", &[], &[]);
        only.repos = vec!["acme/api".parse().unwrap()];
        let repo: RepoName = "acme/web".parse().unwrap();
        let labels = Labels::new(["modal"]);
        let refused = resolve(std::slice::from_ref(&only), "modal", (&labels, Risks::NONE), &repo).unwrap_err();
        assert_eq!(refused.to_string(), "no class serves it: the nearest, `only`, fails on `acme/web`");
    }

    #[test]
    fn strangers_are_served_only_by_a_class_that_says_so() {
        let mut forks = class("forks", &[], &[]);
        forks.admits = Risks::NONE.with(Risk::Fork);
        let classes = [class("big", &["big"], &[]), class("default", &[], &[]), forks];
        let found = |labels: &[&str], risks: Risks| {
            let repo: RepoName = "acme/web".parse().unwrap();
            match resolve(&classes, "modal", (&Labels::new(labels), risks), &repo) {
                Ok(class) => class.name.to_string(),
                Err(reason) => reason.to_string(),
            }
        };
        let (fork, public) = (Risks::NONE.with(Risk::Fork), Risks::NONE.with(Risk::Public));
        assert_eq!(fork.with(Risk::Fork), fork, "it cannot be there twice");
        assert_eq!(found(&["modal"], Risks::NONE), "default");
        assert_eq!(found(&["modal"], fork), "forks");
        assert_eq!(
            found(&["modal", "big"], fork),
            "its run comes from a fork, and class `big` has no `allow_forks = true`"
        );
        let unknown =
            "its repository is not known to be private, and class `default` has no `allow_public_repos = true`";
        assert_eq!(found(&["modal"], public), unknown);
        assert!(found(&["modal"], public.with(Risk::Fork)).contains("class `default`"));
        assert!(found(&["modal", "macos"], fork).contains("fails on `macos`"), "it would not be served anyway");
    }

    #[test]
    fn every_gpu_is_tried_in_a_region_before_the_next_region() {
        let gpu = |name: &str| Gpu::parse(name).unwrap();
        let picky = RunnerClass {
            gpu: Some(gpu("h100")),
            gpu_fallback: vec![gpu("a100-80gb"), gpu("l40s:2")],
            regions: vec!["us-east".to_owned(), "us-west".to_owned()],
            region_fallback: vec!["us".to_owned(), "eu".to_owned()],
            ..class("big-gpu", &[], &[])
        };
        let shown: Vec<String> = picky.machines().iter().map(Machine::to_string).collect();
        let places = ["us-east or us-west", "us", "eu"];
        let gpus = ["H100", "A100-80GB", "L40S:2"];
        let expected: Vec<String> =
            places.iter().flat_map(|place| gpus.map(|gpu| format!("{gpu} in {place}"))).collect();
        assert_eq!(shown, expected);
        assert_eq!(class("plain", &[], &[]).machines(), [Machine::default()]);
    }

    #[test]
    fn patterns_match_whole_labels() {
        for (pattern, label, expected) in [
            ("job-*", "job-1", true),
            ("job-*", "myjob-1", false),
            ("*-x-*", "a-x-b", true),
            ("*-x-*", "a-b", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("a*b*b", "ab", false),
        ] {
            assert_eq!(LabelPattern::new(pattern).matches(label), expected, "{pattern} on {label}");
        }
    }

    #[test]
    fn modal_ends_a_sandbox_only_after_all_its_phases() {
        let clocks = class("default", &[], &[]).clocks;
        assert_eq!(clocks.sandbox_timeout().as_secs(), 6 * 3600 + 300 + 180 + 120 + 300);
        let long = ClassClocks { timeout: MODAL_TIMEOUT_MAX, ..clocks };
        assert_eq!(long.sandbox_timeout(), MODAL_TIMEOUT_MAX);
    }
}
