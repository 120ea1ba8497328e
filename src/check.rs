//! Whether everything is as it must be for jobs to be served, and what to do where it is not: `sandrunner check`.
//!
//! [`gather`] asks GitHub and Modal and gives plain [`Facts`]; [`judge`] makes [`Finding`]s of these (pure). It needs no
//! daemon, and nothing that it does stays: no App, no Secret, no sandbox. The one thing that it writes is a runner that is
//! registered and at once deleted ([`crate::act::prove`]), because nothing else shows that this is allowed.

mod classes;
mod credentials;
mod facts;
mod gather;
mod modal;
mod network;
mod places;

use std::fmt;

use serde::Serialize;

use crate::config::{ConfigError, Settings};
use crate::error::ErrorChain;

pub use self::facts::{
    AccountFacts, CredentialFacts, Facts, Failed, GroupFacts, ModalFacts, ProofFacts, ReleaseFacts, RepoChecked, Told,
};
pub use self::gather::{Progress, Writes, gather};

/// How a check ended; the later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It could not be looked at, or there is nothing to look at.
    Skipped,
    /// All is well.
    Ok,
    /// It works, and may surprise.
    Warning,
    /// Some jobs will not be served, or not as they should be.
    Failure,
}

impl Verdict {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The configuration can be read, and all its values are allowed.
    Config,
    /// GitHub takes the credential.
    Credential,
    /// It has the permissions or scopes that are needed.
    Permissions,
    /// No organization shuts this machine out by its address.
    IpAllowList,
    /// This machine's clock is right.
    Clock,
    /// GitHub's limits admit the configured interval.
    ApiBudget,
    /// The patterns of `allowed_repos` mean something.
    RepoPatterns,
    /// A repository is there and can have jobs that are served.
    Repository,
    /// Its runs can be read.
    ReadRuns,
    /// Actions are enabled in it.
    ActionsEnabled,
    /// Runners can be registered and deleted.
    RegisterRunners,
    /// The runner group of an organization admits the repositories, and no others.
    RunnerGroup,
    /// GitHub takes the runner's release.
    RunnerVersion,
    /// Modal takes the token.
    ModalToken,
    /// The environment is there.
    ModalEnvironment,
    /// The App can be found, or will be made.
    ModalApp,
    /// The quota of Modal's environment has room for the limits.
    ModalQuota,
    /// The image of classes is there, or can be built.
    Image,
    /// The Secrets that classes and images name are there.
    Secrets,
    /// The GPUs are such as Modal has.
    Gpu,
    /// Virtual machines, which Modal gives to some.
    VmRuntime,
    /// Every class is reached by some label set.
    ClassReached,
    /// No runner takes the jobs of another class.
    ClassOverlap,
    /// Classes with GPUs have a limit of what they may cost.
    GpuSpend,
    /// Docker, with the network that it has.
    Docker,
    /// Runners reach GitHub through the network of their class.
    Network,
    /// The secret of the webhook.
    Webhook,
}

impl Check {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Credential => "credential",
            Self::Permissions => "permissions",
            Self::IpAllowList => "ip_allow_list",
            Self::Clock => "clock",
            Self::ApiBudget => "api_budget",
            Self::RepoPatterns => "repo_patterns",
            Self::Repository => "repository",
            Self::ReadRuns => "read_runs",
            Self::ActionsEnabled => "actions_enabled",
            Self::RegisterRunners => "register_runners",
            Self::RunnerGroup => "runner_group",
            Self::RunnerVersion => "runner_version",
            Self::ModalToken => "modal_token",
            Self::ModalEnvironment => "modal_environment",
            Self::ModalApp => "modal_app",
            Self::ModalQuota => "modal_quota",
            Self::Image => "image",
            Self::Secrets => "secrets",
            Self::Gpu => "gpu",
            Self::VmRuntime => "vm_runtime",
            Self::ClassReached => "class_reached",
            Self::ClassOverlap => "class_overlap",
            Self::GpuSpend => "gpu_spend",
            Self::Docker => "docker",
            Self::Network => "network",
            Self::Webhook => "webhook",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What was checked.
    pub name: Check,
    /// Of what: a repository, a class, a credential; none where there is but one.
    pub subject: Option<String>,
    /// How it ended.
    pub result: Verdict,
    /// What was found.
    pub text: String,
    /// What to do about it, in one sentence; always there for a warning and a failure.
    pub fix: Option<String>,
}

impl Finding {
    fn new(name: Check, result: Verdict, text: impl Into<String>) -> Self {
        Self { name, subject: None, result, text: text.into(), fix: None }
    }

    fn ok(name: Check, text: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, text)
    }

    fn skipped(name: Check, text: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, text)
    }

    fn warning(name: Check, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(name, Verdict::Warning, text) }
    }

    fn failure(name: Check, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..Self::new(name, Verdict::Failure, text) }
    }

    /// A failure for which a service gave the reason.
    fn failed(name: Check, failed: &Failed) -> Self {
        Self::failure(name, failed.said.clone(), failed.fix())
    }

    fn of(self, subject: impl fmt::Display) -> Self {
        Self { subject: Some(subject.to_string()), ..self }
    }
}

/// Judges everything that was found.
pub fn judge(settings: &Settings, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(Check::Config, "every value is allowed")];
    findings.extend(credentials::judge(settings, facts));
    findings.extend(places::judge(settings, facts));
    findings.extend(modal::judge(settings, &facts.modal));
    findings.extend(classes::judge(settings, facts));
    findings.extend(network::judge(settings, facts));
    findings.push(webhook(settings));
    findings
}

/// A configuration that cannot be used; nothing else is looked at then.
pub fn config_failure(error: &ConfigError) -> Finding {
    let (text, fix) = match error {
        ConfigError::Value { key, value, remedy } => (format!("`{key}` is {value}"), remedy.clone()),
        ConfigError::File { .. } => {
            (ErrorChain(error).to_string(), "name a file that can be read, by --config or SANDRUNNER_CONFIG".to_owned())
        }
        ConfigError::Syntax { .. } => (
            error.to_string().trim_end().to_owned(),
            "correct that line; config.toml.example shows every key".to_owned(),
        ),
        ConfigError::Layered(_) => {
            (error.to_string(), "correct that variable: SANDRUNNER__SECTION__KEY is the key of a section".to_owned())
        }
        ConfigError::SecretFile { .. } => {
            (ErrorChain(error).to_string(), "name a file that this user can read".to_owned())
        }
    };
    Finding::failure(Check::Config, text, fix)
}

fn webhook(settings: &Settings) -> Finding {
    match &settings.webhook {
        Some(_) => Finding::ok(Check::Webhook, "there is a secret, long enough, so deliveries are taken"),
        None => Finding::skipped(Check::Webhook, "there is no secret, so no delivery is taken: polling alone serves"),
    }
}

/// The worst of some results: that of the whole.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.result).max().unwrap_or(Verdict::Ok).max(Verdict::Ok)
}
