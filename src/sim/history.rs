//! The append-only history of a World: every call and every change, with its time.
//!
//! It holds fingerprints of tokens and of JIT configs, never the secrets themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::client::CrashPhase;
use super::fault::FaultMode;
use super::jobs::Hold;
use super::profile::Profile;
use super::scenario::{Conclusion, SkipReason};

/// Which of the two services was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// GitHub's REST API.
    Github,
    /// Modal's gRPC API.
    Modal,
}

listed_enum! {
/// What was asked for; also the place at which a fault can be put.
///
/// The V1 and V2 forms of a Modal call are one operation. The order matters: GitHub's calls, then Modal's,
/// then what is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Any call of GitHub's; only for faults.
    Github,
    /// The run list of a repository.
    ListRuns,
    /// A run by its id.
    GetRun,
    /// The jobs of a run.
    ListJobs,
    /// A job by its id.
    GetJob,
    /// A repository.
    GetRepo,
    /// The installations of the App.
    ListInstallations,
    /// A token for an installation of the App.
    InstallationToken,
    /// The repositories of an installation.
    ListInstallationRepos,
    /// The repositories of an organization.
    ListOrgRepos,
    /// The runners of a repository.
    ListRunners,
    /// A runner by its id.
    GetRunner,
    /// `GET …/actions/runner-groups`.
    ListGroups,
    /// `GET …/actions/runner-groups/{id}/repositories`.
    ListGroupRepos,
    /// Deletes a runner's registration.
    DeleteRunner,
    /// Generates a JIT config.
    Mint,
    /// The runner's releases.
    Downloads,
    /// Until when a release of the runner is taken.
    Deprecation,
    /// The state of the rate limits.
    RateLimit,
    /// A path or method that GitHub does not have here.
    Unknown,
    /// Any call of Modal's; only for faults.
    Modal,
    /// `ClientHello`.
    Hello,
    /// `AuthTokenGet`.
    AuthToken,
    /// `AppGetOrCreate`.
    App,
    /// `EnvironmentGetOrCreate`.
    Environment,
    /// `ImageGetOrCreate`.
    Image,
    /// `ImageJoinStreaming`.
    ImageLog,
    /// `ImageFromId`.
    ImageFromId,
    /// `SecretGetOrCreate`.
    Secret,
    /// `SecretDelete`.
    SecretDelete,
    /// `VolumeGetOrCreate`.
    Volume,
    /// `SandboxCreate` and `SandboxCreateV2`.
    Create,
    /// `SandboxList` and `SandboxListV2`.
    ListSandboxes,
    /// `SandboxGetFromName` and `SandboxGetFromNameV2`.
    SandboxByName,
    /// `SandboxWait` and `SandboxWaitV2`.
    Wait,
    /// `SandboxTerminate` and `SandboxTerminateV2`.
    Terminate,
    /// `SandboxTagsSet` and `SandboxTagsSetV2`.
    SetTags,
    /// `SandboxTagsGet` and `SandboxTagsGetV2`.
    GetTags,
    /// `SandboxGetTaskId`.
    TaskId,
    /// The start of the runner in a sandbox; only for faults.
    Boot,
    /// The build of an image; only for faults.
    ImageBuild,
    /// A job is queued; only for faults.
    Queue,
    /// A runner connects to GitHub; only for faults.
    Connect,
    /// GitHub gives a job to a runner; only for faults.
    Assign,
}
}

impl Operation {
    /// Its name, as it stands in scenarios and in the history.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether it stands for every call of a service.
    pub fn is_group(self) -> bool {
        matches!(self, Self::Github | Self::Modal)
    }

    /// The service that is called; none for what is no call.
    pub fn service(self) -> Option<Service> {
        if self >= Self::Boot {
            None
        } else if self < Self::Modal {
            Some(Service::Github)
        } else {
            Some(Service::Modal)
        }
    }

    /// What stands for any call of the same service; none for what is no call.
    pub(super) fn group(self) -> Option<Self> {
        self.service().map(|service| match service {
            Service::Github => Self::Github,
            Service::Modal => Self::Modal,
        })
    }

    /// Whether it is a call by itself, rather than a group of calls or something that happens.
    pub fn is_call(self) -> bool {
        self.service().is_some() && !self.is_group()
    }

    /// Whether it is a call that changes something.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::DeleteRunner
                | Self::Mint
                | Self::App
                | Self::Image
                | Self::Secret
                | Self::SecretDelete
                | Self::Volume
                | Self::Create
                | Self::Terminate
                | Self::SetTags
        )
    }

    /// Whether it is a call that lists things.
    pub fn is_list(self) -> bool {
        matches!(self, Self::ListRuns | Self::ListJobs | Self::ListRunners | Self::ListSandboxes)
    }
}

/// Which limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// GitHub's requests per hour.
    Primary,
    /// GitHub's points or writes per minute.
    Secondary,
    /// Modal's creations per second.
    Creates,
    /// Modal's running containers in the workspace.
    Capacity,
    /// None: a fault made it look so.
    Injected,
}

/// Why a job completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It ran to its end.
    Ran,
    /// It was cancelled before a runner took it.
    CancelledQueued,
    /// It was cancelled while it ran.
    CancelledRunning,
    /// Its runner vanished.
    RunnerLost,
    /// The hook of its runner refused it before its first step.
    Refused,
}

/// Why a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// Its one job is over.
    JobDone,
    /// GitHub removed it because it was idle.
    Idle,
    /// `DELETE runner`.
    Deleted,
    /// It was not used for a day.
    Expired,
    /// It vanished in the middle of its job.
    Lost,
    /// It was given a job and failed to take it.
    NotTaken,
}

/// The operator's limits, as whoever runs a controller states them; the World does not enforce them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedLimits {
    /// The most sandboxes at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<u32>,
    /// The most of one repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes_per_repo: Option<u32>,
    /// The most of a class, by the class's tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, u32>,
    /// The most GPUs at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// What happened to a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControllerChange {
    /// It was started.
    Started,
    /// It was told to stop.
    Stopped,
    /// It was killed in the middle of its work.
    Killed,
    /// What lies between it and the services holds calls or answers back; they may still arrive, or be lost.
    CutOff,
    /// Nothing between it and the services holds anything back any more.
    Connected,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the events from 0.
    pub seq: u64,
    /// When it happened, on the World's clock.
    pub at: DateTime<Utc>,
    /// What happened.
    pub what: What,
}

/// What can happen. Repositories are written in lower case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named like what they hold; the variants say when")]
pub enum What {
    /// The World began. `repos` are the allow-listed ones.
    Began {
        /// What all chance comes from.
        seed: u64,
        /// The repositories that are to be served.
        repos: Vec<Arc<str>>,
        /// Organizations in which runners are registered, instead of their repositories.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        organizations: Vec<Arc<str>>,
        /// How the services behave.
        profile: Box<Profile>,
    },
    /// The limits that the run is judged by from now on.
    LimitsStated { limits: StatedLimits },
    /// A controller was started, stopped or killed by whoever runs it.
    ControllerChanged {
        #[serde(skip_serializing_if = "is_unknown", default)]
        client: u32,
        change: ControllerChange,
    },
    /// A service was called. `status` is GitHub's HTTP status, 0 where it answers nothing, or Modal's gRPC code;
    /// `client` is the number of the process that called, where it has one, `subject` the repository, `target`
    /// what the call is about within it: an id, or the name that is asked for. `wait_secs` is how long the answer
    /// asks to wait, `delay_secs` by how much it is late. A list has the number of its page, and `more` where a
    /// further page follows. `quota` is the token's quota of an hour where it is more than the profile's.
    Call {
        service: Service,
        operation: Operation,
        status: u16,
        points: u32,
        token: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        limited: Option<LimitKind>,
        #[serde(skip_serializing_if = "String::is_empty", default)]
        subject: String,
        #[serde(skip_serializing_if = "is_unknown", default)]
        client: u32,
        #[serde(skip_serializing_if = "String::is_empty", default)]
        target: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        wait_secs: Option<f64>,
        #[serde(skip_serializing_if = "is_none_at_all", default)]
        delay_secs: f64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        page: Option<usize>,
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        more: bool,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        quota: Option<u32>,
    },
    /// A job became demand; `skip` says why it is not expected to be served, where it is not.
    JobQueued {
        job: u64,
        run: u64,
        attempt: u32,
        repo: Arc<str>,
        labels: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        skip: Option<SkipReason>,
    },
    /// Something keeps a queued job from every runner, or with `why` absent no longer does.
    JobHeld {
        job: u64,
        repo: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        why: Option<Hold>,
    },
    /// A runner took a job; `sandbox` is absent for a runner that none of the sandboxes holds.
    JobAssigned { job: u64, repo: Arc<str>, runner: String, sandbox: Option<Arc<str>> },
    /// A job ended.
    JobCompleted { job: u64, repo: Arc<str>, conclusion: Conclusion, cause: Cause },
    /// A JIT config was minted; `config` is its fingerprint.
    RunnerRegistered { repo: Arc<str>, runner_id: u64, runner: String, labels: Vec<String>, config: String },
    /// A runner connected.
    RunnerOnline { repo: Arc<str>, runner: String, sandbox: Option<Arc<str>> },
    /// `DELETE runner` was asked for; `deleted` tells whether it was carried out.
    RunnerDeleteAsked { repo: Arc<str>, runner: String, deleted: bool },
    /// A registration ended.
    RunnerRemoved { repo: Arc<str>, runner: String, reason: RemovalReason },
    /// A Secret was created or deleted in Modal.
    SecretChanged { secret: String, exists: bool },
    /// A sandbox was created; `config` is the fingerprint of the JIT config in its environment.
    SandboxCreated {
        sandbox: Arc<str>,
        name: String,
        gpu: bool,
        config: Option<String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        tags: BTreeMap<String, String>,
        #[serde(default)]
        timeout_secs: u32,
    },
    /// A GPU sandbox was placed on a machine.
    SandboxScheduled { sandbox: Arc<str> },
    /// `SandboxTerminate` was asked for, of a sandbox that was alive; `job` is what ran in it.
    TerminateAsked { sandbox: Arc<str>, name: String, job: Option<u64> },
    /// A sandbox ended with Modal's `status` and an exit code.
    SandboxEnded { sandbox: Arc<str>, name: String, status: i32, exit_code: i32 },
    /// A process was killed at a call of its own.
    ClientKilled { client: u32, operation: Operation, phase: CrashPhase },
    /// A fault was put in; `fault` is its name in the catalogue.
    FaultAdded {
        operation: Operation,
        mode: FaultMode,
        #[serde(skip_serializing_if = "str::is_empty", default)]
        fault: Arc<str>,
    },
    /// A fault took effect at this operation; `subject` is the repository it concerns.
    FaultStruck {
        operation: Operation,
        mode: FaultMode,
        #[serde(skip_serializing_if = "str::is_empty", default)]
        fault: Arc<str>,
        #[serde(skip_serializing_if = "str::is_empty", default)]
        subject: Arc<str>,
    },
    /// Faults changed how the services behave; `knobs` are those that differ from the profile since then.
    KnobsChanged { knobs: BTreeMap<String, Value> },
    /// All faults were taken out.
    FaultsCleared,
    /// Somebody has changed something at GitHub that no call of a controller's does: `setting` of `subject` is `value`.
    SettingChanged { subject: Arc<str>, setting: String, value: Value },
    /// The clock was moved forward from outside.
    ClockAdvanced { seconds: f64 },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unknown(client: &u32) -> bool {
    *client == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_at_all(secs: &f64) -> bool {
    *secs == 0.0
}

/// All events so far, and where they are written to as they happen.
#[derive(Default)]
pub(super) struct History {
    events: Vec<Event>,
    writer: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl History {
    pub(super) fn push(&mut self, at: DateTime<Utc>, what: What) {
        let event = Event { seq: self.events.len() as u64, at, what };
        if let Some(writer) = &mut self.writer
            && let Err(error) = write_line(writer, &event)
        {
            // The World goes on: what is written down is for people, or judged by its absence.
            tracing::error!(%error, "the history is written no further");
            self.writer = None;
        }
        self.events.push(event);
    }

    /// The events from number `since` on.
    pub(super) fn since(&self, since: u64) -> &[Event] {
        let from = usize::try_from(since).unwrap_or(usize::MAX).min(self.events.len());
        &self.events[from..]
    }

    /// Writes all events so far, and each further one as it happens.
    pub(super) fn write_to(&mut self, mut writer: Box<dyn Write + Send>) -> std::io::Result<()> {
        for event in &self.events {
            write_line(&mut writer, event)?;
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// One event as a line, flushed, so that whoever is killed loses at most the line that is being written.
fn write_line(writer: &mut impl Write, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    writer.write_all(&line)?;
    writer.flush()
}

/// Sixteen hexadecimal digits that stand for a secret.
pub(super) fn fingerprint(secret: &str) -> String {
    hex::encode(&Sha256::digest(secret.as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_and_survive_json() {
        let mut history = History::default();
        let at = DateTime::UNIX_EPOCH;
        history.push(at, What::ClockAdvanced { seconds: 1.5 });
        history.push(at, What::SandboxScheduled { sandbox: "sb-1".into() });
        assert_eq!(history.since(1)[0].seq, 1);
        assert!(history.since(9).is_empty());
        let line = serde_json::to_string(&history.since(1)[0]).unwrap();
        assert!(line.contains(r#""event":"sandbox_scheduled""#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), history.since(1)[0]);
    }

    /// Shares what is written to it.
    #[derive(Clone, Default)]
    struct Paper(Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_history_is_written_from_its_begin_and_as_it_grows() {
        let (mut history, paper, at) = (History::default(), Paper::default(), DateTime::UNIX_EPOCH);
        history.push(at, What::ClockAdvanced { seconds: 1.0 });
        history.write_to(Box::new(paper.clone())).unwrap();
        history.push(at, What::ClockAdvanced { seconds: 2.0 });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, history.since(0));
    }

    #[test]
    fn a_fingerprint_hides_the_secret() {
        let print = fingerprint("ghp_secret");
        assert_eq!(print.len(), 16);
        assert!(!print.contains("secret"));
    }
}
