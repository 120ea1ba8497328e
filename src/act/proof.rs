//! Registers a runner and deletes it at once: what proves that both are allowed.
//!
//! It has a name of ours, so that a daemon of the same deployment takes it for a leftover should it stay, and one label that
//! no job asks for. Nobody ever connects as it.

use std::time::Duration;

use crate::clock::Clock;
use crate::error::{ErrorChain, ErrorClass};
use crate::github::{Deregistered, GithubError, GithubReader, GithubWriter, MintRequest};
use crate::ids::{Deployment, JobId, Labels, OurName, RunnerId};
use crate::state::{Reading, Registry};

/// The only label of such a runner.
pub const PROOF_LABEL: &str = "sandrunner-check";

/// The job that stands in its name, and so many milliseconds: GitHub's numbers are eight digits shorter.
const NO_JOB: u64 = 9_000_000_000_000_000_000;

/// How often it is tried to delete the runner, and with what pause: nobody comes back for it.
const DELETES: u32 = 4;
const DELETE_AGAIN: Duration = Duration::from_secs(2);

/// Where it is proved, and with what.
#[derive(Debug, Clone)]
pub struct Proving {
    /// Where the runner is registered.
    pub registry: Registry,
    /// The runner group that it joins.
    pub runner_group_id: u64,
    /// Whose name it has.
    pub deployment: Deployment,
    /// Finds it again after an answer that was lost.
    pub reader: GithubReader,
    /// Registers and deletes it.
    pub writer: GithubWriter,
    /// Time.
    pub clock: Clock,
}

/// What came of it.
#[derive(Debug)]
pub enum Proof {
    /// It was registered and deleted.
    Done,
    /// It was not registered.
    NotRegistered(GithubError),
    /// It was registered, or may have been, and is still there or may be.
    NotDeleted {
        /// Its name.
        name: OurName,
        /// Why.
        why: String,
    },
}

/// Registers a runner and deletes it. Let it come to its end: a future that is dropped in the middle leaves the runner.
pub async fn prove(proving: Proving) -> Proof {
    let Proving { registry, runner_group_id, deployment, writer, clock, .. } = &proving;
    let millis = u64::try_from(clock.now().timestamp_millis()).unwrap_or_default();
    let name = OurName {
        job: JobId(NO_JOB.saturating_add(millis)),
        attempt: 1,
        deployment: deployment.clone(),
        account: registry.account().clone(),
    };
    let text = name.to_string();
    let labels = Labels::new([PROOF_LABEL]);
    let request = MintRequest { name: &text, runner_group_id: *runner_group_id, labels: &labels, work_folder: "_work" };
    let error = match writer.generate_jit_config(registry, request).await {
        // The JIT config is forgotten here.
        Ok(minted) => return proving.delete(name, minted.runner_id).await,
        Err(GithubError::OtherLabels { runner_id, .. }) => return proving.delete(name, runner_id).await,
        Err(error) => error,
    };
    if !error.class().may_have_taken_effect() {
        return Proof::NotRegistered(error);
    }
    match proving.find(&text).await {
        Ok(Some(runner)) => proving.delete(name, runner).await,
        Ok(None) => Proof::NotDeleted { name, why: format!("no list shows it so far ({})", ErrorChain(&error)) },
        Err(why) => Proof::NotDeleted { name, why },
    }
}

impl Proving {
    /// The runner of that name, after an answer that was lost. Lists lag, so it is asked for twice.
    async fn find(&self, name: &str) -> Result<Option<RunnerId>, String> {
        for _ in 0..2 {
            self.clock.sleep(DELETE_AGAIN).await;
            match self.reader.list_runners(&self.registry).await {
                Reading::Known(runners) => {
                    if let Some(runner) = runners.into_iter().find(|runner| runner.name == name) {
                        return Ok(Some(runner.id));
                    }
                }
                Reading::Partial { missing, .. } | Reading::Unknown(missing) => return Err(missing.to_string()),
            }
        }
        Ok(None)
    }

    async fn delete(&self, name: OurName, runner: RunnerId) -> Proof {
        let mut why = String::new();
        for _ in 0..DELETES {
            match self.writer.delete_runner(&self.registry, runner).await {
                Ok(Deregistered::Gone) => return Proof::Done,
                Ok(Deregistered::StillRunning) => "GitHub says that it runs a job".clone_into(&mut why),
                Err(error) => {
                    let is_final = matches!(error.class(), ErrorClass::Forbidden | ErrorClass::Unauthorized);
                    why = ErrorChain(&error).to_string();
                    if is_final {
                        break;
                    }
                }
            }
            self.clock.sleep(DELETE_AGAIN).await;
        }
        Proof::NotDeleted { name, why }
    }
}
