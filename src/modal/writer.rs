//! The calls that create, terminate and delete.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tracing::info;

use super::api;
use super::call::{Call, Caller};
use super::error::ModalError;
use super::operation::Operation;
use super::reader::{ModalReader, NameOf};
use super::spec::{SandboxSpec, env_problem, exposed};
use super::transport::Client;
use super::wire::Generation;
use crate::error::ErrorClass;
use crate::ids::{AppId, SandboxId, SecretId, TaskId, VolumeId};

/// The deadline of a create, which places the sandbox on a machine before it is answered.
const CREATE_LIMIT: Duration = Duration::from_secs(120);

/// Changes things at Modal.
#[derive(Debug, Clone)]
pub struct ModalWriter {
    reader: ModalReader,
}

/// A sandbox that a create left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSandbox {
    /// Its id.
    pub id: SandboxId,
    /// The interface that made it.
    pub generation: Generation,
    /// What runs it, where the answer said so.
    pub task: Option<TaskId>,
    /// How it is known.
    pub origin: Origin,
}

/// What the deletion of a Secret found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It was there.
    Done,
    /// Modal knows no such Secret: it was deleted before, or Modal is wrong.
    NotThere,
}

/// How a created sandbox is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the create's answer.
    Answered,
    /// By its name and tags, after the answer of the attempt that made it was lost.
    Adopted,
}

impl ModalWriter {
    pub(super) fn new(reader: ModalReader) -> Self {
        Self { reader }
    }

    pub(super) fn caller(&self) -> &Caller {
        self.reader.caller()
    }

    /// Looks up the configured App and creates it where it is missing. Keep the id: it does not change.
    ///
    /// # Errors
    /// [`ModalError::Call`] with the reason.
    pub async fn ensure_app(&self) -> Result<AppId, ModalError> {
        self.reader.app(Operation::ENSURE_APP, api::ObjectCreationType::CreateIfMissing).await
    }

    /// Stores values as the Secret of a name, for a sandbox of the older interface.
    ///
    /// Modal keeps them until the Secret is deleted. Under one name there is one Secret, however often an answer is
    /// lost, and whoever knows the name can delete it.
    ///
    /// # Errors
    /// [`ModalError`] without the values.
    pub async fn store_secret(&self, name: &str, env: &[(String, SecretString)]) -> Result<SecretId, ModalError> {
        if let Some(problem) = env_problem(env) {
            return Err(ModalError::Definition { subject: "a Secret".to_owned(), problem });
        }
        let call = Call::plain(Operation::STORE_SECRET, name);
        let message = api::SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.caller().settings.environment.clone(),
            object_creation_type: api::ObjectCreationType::CreateOverwriteIfExists.into(),
            env_dict: exposed(env),
            ..Default::default()
        };
        let send = |mut client: Client, request| async move { client.secret_get_or_create(request).await };
        let answer = self.caller().call(call, message, send).await;
        let answer = answer.map_err(|error| error.without(env.iter().map(|(_, value)| value.expose_secret())))?;
        call.id(answer.secret_id, SecretId::new)
    }

    /// Looks up a Secret that somebody stored under a name.
    ///
    /// # Errors
    /// [`ModalError::Call`], of class [`ErrorClass::NotFound`] where there is none of that name.
    pub async fn find_secret(&self, name: &str) -> Result<SecretId, ModalError> {
        self.find_secret_with(name, &[]).await
    }

    /// Looks up a Secret that somebody stored under a name, with the names of values that must be in it.
    ///
    /// # Errors
    /// [`ModalError::Call`], of class [`ErrorClass::NotFound`] where there is none of that name; which one it is where a
    /// value is missing is not known (modal-api.md §8).
    pub async fn find_secret_with(&self, name: &str, keys: &[&str]) -> Result<SecretId, ModalError> {
        self.reader.find_secret_with(name, keys).await
    }

    /// Looks up the Volume of a name and creates it where it is missing.
    ///
    /// # Errors
    /// [`ModalError::Call`] with the reason.
    pub async fn ensure_volume(&self, name: &str) -> Result<VolumeId, ModalError> {
        let call = Call::plain(Operation::ENSURE_VOLUME, name);
        let message = api::VolumeGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.caller().settings.environment.clone(),
            object_creation_type: api::ObjectCreationType::CreateIfMissing.into(),
            ..Default::default()
        };
        let send = |mut client: Client, request| async move { client.volume_get_or_create(request).await };
        call.id(self.caller().call(call, message, send).await?.volume_id, VolumeId::new)
    }

    /// Deletes the Secret of a name, where there is one.
    ///
    /// # Errors
    /// [`ModalError::Call`] with the reason.
    pub async fn delete_secret_named(&self, name: &str) -> Result<Deletion, ModalError> {
        match self.find_secret(name).await {
            Ok(found) => match self.delete_secret(&found).await? {
                Deletion::Done => Ok(Deletion::Done),
                Deletion::NotThere => {
                    let call = Call::plain(Operation::FIND_SECRET, name);
                    Err(call.unreadable("Modal finds it by its name, and does not know its id"))
                }
            },
            Err(error) => deletion::<()>(Err(error)),
        }
    }

    /// Deletes a Secret, where it is there.
    ///
    /// # Errors
    /// [`ModalError::Call`] with the reason.
    pub async fn delete_secret(&self, secret: &SecretId) -> Result<Deletion, ModalError> {
        let call = Call::plain(Operation::DELETE_SECRET, secret.as_str());
        let message = api::SecretDeleteRequest { secret_id: secret.to_string() };
        let send = |mut client: Client, request| async move { client.secret_delete(request).await };
        deletion(self.caller().call(call, message, send).await)
    }

    /// Creates a sandbox, in the older interface if it has a GPU.
    ///
    /// All attempts of one call carry the same name, so at most one sandbox lives. Where the answer of an
    /// attempt was lost and a later one finds the name taken, the sandbox of that name is adopted if it
    /// carries the tags asked for. Where no attempt was lost, the name is another's.
    ///
    /// # Errors
    /// [`ModalError`], of class [`ErrorClass::Conflict`] where the name is another's, and of class
    /// [`ErrorClass::Unavailable`] where a sandbox may have been created all the same.
    pub async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<CreatedSandbox, ModalError> {
        spec.check()?;
        match self.send_create(spec).await.map_err(|error| error.without(spec.secrets())) {
            Err(error) if error.is_name_taken_after_lost_reply() => Box::pin(self.adopt(spec, error)).await,
            answer => answer,
        }
    }

    async fn send_create(&self, spec: &SandboxSpec) -> Result<CreatedSandbox, ModalError> {
        let generation = spec.generation();
        let operation = match generation {
            Generation::V1 => Operation::CREATE_V1,
            Generation::V2 => Operation::CREATE_V2,
        };
        let call = Call { operation, subject: &spec.name, limit: CREATE_LIMIT };
        let (id, task) = match generation {
            Generation::V1 => {
                let send = |mut client: Client, request| async move { client.sandbox_create(request).await };
                (self.caller().call(call, spec.v1(), send).await?.sandbox_id, String::new())
            }
            Generation::V2 => {
                let send = |mut client: Client, request| async move { client.sandbox_create_v2(request).await };
                let answer = self.caller().call(call, spec.v2(), send).await?;
                (answer.sandbox_id, answer.task_id)
            }
        };
        let task = Some(task).filter(|id| !id.is_empty()).map(TaskId::new);
        Ok(CreatedSandbox { id: call.id(id, SandboxId::new)?, generation, task, origin: Origin::Answered })
    }

    /// Finds the sandbox that an attempt of this call made; `taken` is what a later attempt was answered.
    async fn adopt(&self, spec: &SandboxSpec, taken: ModalError) -> Result<CreatedSandbox, ModalError> {
        let generation = spec.generation();
        let found = self.reader.find_by_name(&spec.name, generation, NameOf::LiveOrEnded).await;
        let Ok(Some(id)) = found else {
            // Made by whomever, and not to be seen: the next listing will tell.
            return Err(taken);
        };
        let Ok(tags) = self.reader.tags(&id).await else {
            return Err(taken);
        };
        if spec.tags.iter().any(|(tag, value)| tags.get(tag) != Some(value)) {
            return Err(taken.with_replies_accounted_for());
        }
        info!(name = spec.name, sandbox_id = %id, "adopted the sandbox whose create lost its answer");
        Ok(CreatedSandbox { id, generation, task: None, origin: Origin::Adopted })
    }

    /// Looks for a living sandbox of that name, as [`ModalReader::find_living`] does.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell. That there is none is no error.
    pub async fn find_living(&self, name: &str) -> Result<Option<SandboxId>, ModalError> {
        self.reader.find_living(name).await
    }

    /// Asks Modal to end a sandbox; one that ended or is not there is done. Its end comes some time later.
    ///
    /// # Errors
    /// [`ModalError::Call`] with the reason.
    pub async fn terminate(&self, sandbox: &SandboxId) -> Result<(), ModalError> {
        let generation = Generation::of(sandbox);
        let operation = match generation {
            Generation::V1 => Operation::TERMINATE_V1,
            Generation::V2 => Operation::TERMINATE_V2,
        };
        let message = api::SandboxTerminateRequest { sandbox_id: sandbox.to_string() };
        let send = move |mut client: Client, request| async move {
            match generation {
                Generation::V1 => client.sandbox_terminate(request).await,
                Generation::V2 => client.sandbox_terminate_v2(request).await,
            }
        };
        deletion(self.caller().call(Call::plain(operation, sandbox.as_str()), message, send).await).map(drop)
    }
}

fn deletion<T>(answer: Result<T, ModalError>) -> Result<Deletion, ModalError> {
    match answer {
        Ok(_) => Ok(Deletion::Done),
        Err(error) if error.class() == ErrorClass::NotFound => Ok(Deletion::NotThere),
        Err(error) => Err(error),
    }
}
