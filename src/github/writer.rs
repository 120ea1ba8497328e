//! The two calls that change something: a JIT config is generated, a runner is deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::GithubError;
use super::call::{Call, Operation};
use super::client::{Client, Request};
use super::error::Malformed;
use super::pages::unreadable;
use super::reader::runners_path;
use super::wire::JitConfigBody;
use crate::budget::{Budget, Purpose};
use crate::error::ErrorClass;
use crate::ids::{CredentialName, Labels, RunnerId};
use crate::state::Registry;

/// What a runner is registered as.
#[derive(Debug, Clone, Copy)]
pub struct MintRequest<'a> {
    /// Its name, which must never have been used before.
    pub name: &'a str,
    /// Its runner group; 1 in a repository.
    pub runner_group_id: u64,
    /// Exactly its labels, 1 to 100: GitHub adds none.
    pub labels: &'a Labels,
    /// Its work folder, relative to the runner's.
    pub work_folder: &'a str,
}

/// A runner that was registered, with what it needs to connect.
#[derive(Debug)]
pub struct Minted {
    /// The registration.
    pub runner_id: RunnerId,
    /// Its JIT config: a secret until it is used.
    pub config: SecretString,
}

/// What deleting a runner showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deregistered {
    /// It is not registered: GitHub gives it no more work.
    Gone,
    /// It runs a job and stays registered.
    StillRunning,
}

/// Registers and deletes runners with one credential; clones share everything, also with the reader.
#[derive(Clone)]
pub struct GithubWriter {
    client: Arc<Client>,
}

impl std::fmt::Debug for GithubWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GithubWriter").field("credential", self.credential()).finish_non_exhaustive()
    }
}

impl GithubWriter {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// The name of the credential that is used.
    pub fn credential(&self) -> &CredentialName {
        self.client.name()
    }

    /// The accounts of the credential, by which to decide what may be asked next.
    pub fn budget(&self) -> Arc<Mutex<Budget>> {
        self.client.budget()
    }

    /// Registers a runner and returns its JIT config, whose form was checked.
    ///
    /// # Errors
    /// [`GithubError`]; where its class [`ErrorClass::may_have_taken_effect`], a runner of that name may be
    /// registered although its config is lost. [`ErrorClass::Conflict`] says that the name is taken.
    pub async fn generate_jit_config(
        &self,
        registry: &Registry,
        request: MintRequest<'_>,
    ) -> Result<Minted, GithubError> {
        let MintRequest { name, runner_group_id, labels, work_folder } = request;
        let call = Call::at(registry, Operation::GenerateJitConfig, format!("{name} in {registry}"));
        let path = format!("{}/generate-jitconfig", runners_path(registry));
        let body = serde_json::json!({
            "name": name,
            "runner_group_id": runner_group_id,
            "labels": labels,
            "work_folder": work_folder,
        });
        let answer = self.client.send(&call, Purpose::Mint, Request::Post { path: &path, body: &body }).await?;
        let (minted, actual) =
            read_jit_config(&answer.body).map_err(|malformed| unreadable(&call, &answer, malformed))?;
        if actual != *labels {
            return Err(GithubError::OtherLabels { call, runner_id: minted.runner_id, wanted: labels.clone(), actual });
        }
        Ok(minted)
    }

    /// Deletes a runner's registration, unless it runs a job.
    ///
    /// # Errors
    /// [`GithubError`]; the runner may be registered or not.
    pub async fn delete_runner(&self, registry: &Registry, runner: RunnerId) -> Result<Deregistered, GithubError> {
        let call = Call::at(registry, Operation::DeleteRunner, format!("runner {runner} of {registry}"));
        let path = format!("{}/{runner}", runners_path(registry));
        match self.client.send(&call, Purpose::Deregister, Request::Delete { path: &path }).await {
            Ok(_) => Ok(Deregistered::Gone),
            Err(error) if error.class() == ErrorClass::NotFound => Ok(Deregistered::Gone),
            Err(error) if is_running(&error) => Ok(Deregistered::StillRunning),
            Err(error) => Err(error),
        }
    }
}

/// `422 Bad request - Runner "…" is still running a job`, told from other 422s by its words.
fn is_running(error: &GithubError) -> bool {
    let GithubError::Refused { refusal, .. } = error else { return false };
    refusal.status == 422 && refusal.message.contains("still running a job")
}

/// Reads the answer of `generate-jitconfig`: the runner with its config, and its labels.
///
/// The config is checked to be base64 of a JSON object, file names to contents: corrupted ones have been handed out.
///
/// # Errors
/// [`Malformed`], which repeats nothing of it.
pub fn read_jit_config(body: &[u8]) -> Result<(Minted, Labels), Malformed> {
    let JitConfigBody { runner, encoded_jit_config: config } =
        serde_json::from_slice(body).map_err(|error| Malformed::json("the answer", &error))?;
    let decoded = BASE64_STANDARD.decode(config.expose_secret()).map_err(|_| Malformed::Base64)?;
    let files: BTreeMap<String, String> =
        serde_json::from_slice(&decoded).map_err(|error| Malformed::json("the JIT config", &error))?;
    if files.is_empty() {
        return Err(Malformed::NoFiles);
    }
    Ok((Minted { runner_id: RunnerId(runner.id), config }, runner.labels()))
}
