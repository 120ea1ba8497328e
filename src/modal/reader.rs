//! The calls that change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::api;
use super::call::{Call, Caller};
use super::error::ModalError;
use super::listing::{Listing, Wanted};
use super::operation::Operation;
use super::transport::Client;
use super::wire::{self, Generation};
use crate::error::ErrorClass;
use crate::ids::{AppId, ImageId, SandboxId, SecretId, TaskId};
use crate::mutant::{self, Mutant};
use crate::state::{Quota, Reading, Sandbox, SandboxResult};

/// The most pages of one listing. Modal does not tell its page size; with as few as 100 sandboxes each, these
/// hold five times the sandboxes that V2 is made for, and they end a server that never sends an empty page.
const PAGES_MAX: usize = 500;

/// How many entries of output are asked for at a time; Modal gives out 20,000. The end is wanted, and which of more entries
/// are given is not known: where these may be the first, the next are asked for, so many times.
const LOG_ENTRIES_MAX: u32 = 2_000;
const LOG_PAGES_MAX: usize = 10;
/// The longest answer with output, in bytes.
const LOG_ANSWER_BYTES_MAX: usize = 16 << 20;

/// What a held call may take beyond the time that Modal holds it.
const HOLD_MARGIN: Duration = Duration::from_secs(5);

/// Reads from Modal; cannot change anything there.
#[derive(Debug, Clone)]
pub struct ModalReader {
    caller: Arc<Caller>,
}

/// Which sandboxes a name may belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOf {
    /// Only one that lives.
    Live,
    /// One that lives or, failing that and in V2 alone, the youngest that ended.
    LiveOrEnded,
}

/// What became of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxFate {
    /// It lives, started or not.
    Running,
    /// It ended.
    Ended(SandboxResult),
    /// Modal does not know it (any more).
    Gone,
}

impl ModalReader {
    pub(super) fn new(caller: Arc<Caller>) -> Self {
        Self { caller }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Checks that Modal can be reached and accepts this client, and logs its warnings.
    ///
    /// # Errors
    /// [`ModalError::Call`] with the reason, and the remedy for a client that is refused.
    pub async fn hello(&self) -> Result<(), ModalError> {
        let call = Call::plain(Operation::HELLO, "Modal");
        let send = |mut client: Client, request| async move { client.client_hello(request).await };
        let hello = self.caller.call(call, (), send).await?;
        self.caller.transport.warnings.note(&hello.warning);
        for warning in hello.server_warnings {
            self.caller.transport.warnings.note(&warning.message);
        }
        Ok(())
    }

    /// Looks up the configured App without creating it.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not answer with yes or no.
    pub async fn lookup_app(&self) -> Result<Option<AppId>, ModalError> {
        let creation = api::ObjectCreationType::Unspecified;
        found(self.app(Operation::LOOK_UP_APP, creation).await)
    }

    pub(super) async fn app(
        &self,
        operation: Operation,
        creation: api::ObjectCreationType,
    ) -> Result<AppId, ModalError> {
        let settings = &self.caller.settings;
        let call = Call::plain(operation, &settings.app_name);
        let message = api::AppGetOrCreateRequest {
            app_name: settings.app_name.clone(),
            environment_name: settings.environment.clone(),
            object_creation_type: creation.into(),
        };
        let send = |mut client: Client, request| async move { client.app_get_or_create(request).await };
        let app = self.caller.call(call, message, send).await?;
        call.id(app.app_id, AppId::new)
    }

    /// Lists the live sandboxes of an App that carry all of `tags`, of both generations, in order of id.
    ///
    /// The list may lag behind a create or an end by seconds; confirm a missing entry with [`Self::wait`].
    pub async fn list_sandboxes(&self, app: &AppId, tags: &BTreeMap<String, String>) -> Reading<Vec<Sandbox>> {
        self.list(app, tags, &Wanted::Live).await
    }

    /// Lists the sandboxes of an App that carry all of `tags` and were created after `since`, the ended ones too.
    ///
    /// How long Modal lists ended sandboxes is not known.
    pub async fn list_ended_sandboxes(
        &self,
        app: &AppId,
        tags: &BTreeMap<String, String>,
        since: DateTime<Utc>,
    ) -> Reading<Vec<Sandbox>> {
        self.list(app, tags, &Wanted::CreatedAfter(since)).await
    }

    async fn list(&self, app: &AppId, tags: &BTreeMap<String, String>, wanted: &Wanted) -> Reading<Vec<Sandbox>> {
        let mut listing = Listing::default();
        let end = self.read_pages(app, tags, wanted, &mut listing).await;
        let is_empty = listing.pages() == 0;
        let seen = listing.into_sandboxes(wanted);
        match end {
            Ok(()) => Reading::Known(seen),
            Err(error) if is_empty => Reading::Unknown(error.into()),
            Err(_) if mutant::is(Mutant::PartialIsFull) => Reading::Known(seen),
            Err(error) => Reading::Partial { seen, missing: error.into() },
        }
    }

    async fn read_pages(
        &self,
        app: &AppId,
        tags: &BTreeMap<String, String>,
        wanted: &Wanted,
        listing: &mut Listing,
    ) -> Result<(), ModalError> {
        let call = Call::plain(Operation::LIST, app.as_str());
        let send = |mut client: Client, request| async move { client.sandbox_list_v2(request).await };
        while listing.pages() < PAGES_MAX {
            let message = api::SandboxListRequest {
                app_id: app.as_str().to_owned(),
                before_timestamp: listing.before(),
                environment_name: String::new(),
                include_finished: matches!(wanted, Wanted::CreatedAfter(_)),
                tags: wire::wire_tags(tags),
            };
            let page = self.caller.call(call, message, send).await?;
            if page.sandboxes.is_empty() {
                return if listing.has_unreadable() { Err(call.unreadable("an entry has no id")) } else { Ok(()) };
            }
            listing.add(page.sandboxes).map_err(|problem| call.unreadable(problem))?;
            if listing.reaches_back_to(wanted) || mutant::is(Mutant::FirstFleetPageOnly) {
                return Ok(());
            }
        }
        Err(call.unreadable("the listing has more pages than are read"))
    }

    /// Asks for a sandbox's result, for which Modal may hold the call for up to `hold`; zero for its state now.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell. That it does not know the sandbox is no error.
    pub async fn wait(&self, sandbox: &SandboxId, hold: Duration) -> Result<SandboxFate, ModalError> {
        let generation = Generation::of(sandbox);
        let operation = match generation {
            Generation::V1 => Operation::WAIT_V1,
            Generation::V2 => Operation::WAIT_V2,
        };
        let limit = if hold.is_zero() { super::call::PLAIN_LIMIT } else { hold + HOLD_MARGIN };
        let call = Call { operation, subject: sandbox.as_str(), limit };
        let message = api::SandboxWaitRequest { sandbox_id: sandbox.as_str().to_owned(), timeout: hold.as_secs_f32() };
        let send = move |mut client: Client, request| async move {
            match generation {
                Generation::V1 => client.sandbox_wait(request).await,
                Generation::V2 => client.sandbox_wait_v2(request).await,
            }
        };
        let Some(answer) = found(self.caller.call(call, message, send).await)? else {
            return Ok(SandboxFate::Gone);
        };
        let result = answer.result.as_ref().and_then(wire::result);
        let result = result.or_else(|| answer.metadata?.result.as_ref().and_then(wire::result));
        Ok(result.map_or(SandboxFate::Running, SandboxFate::Ended))
    }

    /// Looks up a sandbox of the configured App by its name.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell. That there is none is no error.
    pub async fn find_by_name(
        &self,
        name: &str,
        generation: Generation,
        whose: NameOf,
    ) -> Result<Option<SandboxId>, ModalError> {
        let operation = match generation {
            Generation::V1 => Operation::FIND_V1,
            Generation::V2 => Operation::FIND_V2,
        };
        let call = Call::plain(operation, name);
        let settings = &self.caller.settings;
        let message = api::SandboxGetFromNameRequest {
            sandbox_name: name.to_owned(),
            environment_name: settings.environment.clone(),
            app_name: settings.app_name.clone(),
            include_terminated: whose == NameOf::LiveOrEnded,
        };
        let send = move |mut client: Client, request| async move {
            match generation {
                Generation::V1 => client.sandbox_get_from_name(request).await,
                Generation::V2 => client.sandbox_get_from_name_v2(request).await,
            }
        };
        let answer = found(self.caller.call(call, message, send).await)?;
        answer.map(|answer| call.id(answer.sandbox_id, SandboxId::new)).transpose()
    }

    /// Looks for a living sandbox of that name in both generations. One that ended may be of an earlier use of the name.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell. That there is none is no error.
    pub async fn find_living(&self, name: &str) -> Result<Option<SandboxId>, ModalError> {
        for generation in [Generation::V2, Generation::V1] {
            if let Some(id) = self.find_by_name(name, generation, NameOf::Live).await? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Reads the tags of a sandbox.
    ///
    /// # Errors
    /// [`ModalError::Call`], of class [`ErrorClass::NotFound`] where Modal does not know the sandbox.
    pub async fn tags(&self, sandbox: &SandboxId) -> Result<BTreeMap<String, String>, ModalError> {
        let generation = Generation::of(sandbox);
        let operation = match generation {
            Generation::V1 => Operation::TAGS_V1,
            Generation::V2 => Operation::TAGS_V2,
        };
        let message = api::SandboxTagsGetRequest { sandbox_id: sandbox.as_str().to_owned() };
        let send = move |mut client: Client, request| async move {
            match generation {
                Generation::V1 => client.sandbox_tags_get(request).await,
                Generation::V2 => client.sandbox_tags_get_v2(request).await,
            }
        };
        let answer = self.caller.call(Call::plain(operation, sandbox.as_str()), message, send).await?;
        Ok(wire::tags(answer.tags))
    }
}

/// A sandbox whose output is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOf {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What ran it: Modal finds the output of a newer sandbox by that alone.
    pub task: Option<TaskId>,
    /// From when on, by Modal's clock.
    pub since: DateTime<Utc>,
    /// Until when, by Modal's clock.
    pub until: DateTime<Utc>,
}

impl ModalReader {
    /// Reads what each environment of the workspace may use, and uses; with the one that is ours, if it is there.
    ///
    /// # Errors
    /// [`ModalError`] where Modal does not tell.
    pub async fn environments(&self) -> Result<(Vec<Quota>, Option<Quota>), ModalError> {
        let call = Call::plain(Operation::READ_ENVIRONMENTS, "the workspace");
        let send = |mut client: Client, request| async move { client.environment_list(request).await };
        let items = self.caller.call(call, (), send).await?.items;
        let ours = items.iter().find(|item| self.is_ours(item)).cloned().map(wire::quota);
        Ok((items.into_iter().map(wire::quota).collect(), ours))
    }

    fn is_ours(&self, item: &api::EnvironmentListItem) -> bool {
        let wanted = &self.caller.settings.environment;
        if wanted.is_empty() { item.default } else { item.name == *wanted }
    }

    /// Whether there is an image of that id.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not answer with yes or no.
    pub async fn has_image(&self, image: &ImageId) -> Result<bool, ModalError> {
        let call = Call::plain(Operation::FIND_IMAGE, image.as_str());
        let message = api::ImageFromIdRequest { image_id: image.to_string() };
        let send = |mut client: Client, request| async move { client.image_from_id(request).await };
        Ok(found(self.caller.call(call, message, send).await)?.is_some())
    }

    /// Looks up a Secret that somebody stored under a name, with the names of values that must be in it.
    ///
    /// # Errors
    /// [`ModalError::Call`], of class [`ErrorClass::NotFound`] where there is none of that name; which one it is where a
    /// value is missing is not known (modal-api.md §8).
    pub async fn find_secret_with(&self, name: &str, keys: &[&str]) -> Result<SecretId, ModalError> {
        let call = Call::plain(Operation::FIND_SECRET, name);
        let message = api::SecretGetOrCreateRequest {
            deployment_name: name.to_owned(),
            environment_name: self.caller.settings.environment.clone(),
            required_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..Default::default()
        };
        let send = |mut client: Client, request| async move { client.secret_get_or_create(request).await };
        call.id(self.caller.call(call, message, send).await?.secret_id, SecretId::new)
    }

    /// Reads what the environment of our App may use, and uses.
    ///
    /// # Errors
    /// [`ModalError`] where Modal does not tell, or not of that environment.
    pub async fn quota(&self) -> Result<Quota, ModalError> {
        let wanted = &self.caller.settings.environment;
        let call = Call::plain(Operation::READ_QUOTA, wanted);
        let send = |mut client: Client, request| async move { client.environment_list(request).await };
        let answer = self.caller.call(call, (), send).await?;
        let item = answer.items.into_iter().find(|item| self.is_ours(item));
        item.map(wire::quota).ok_or_else(|| call.unreadable("the list of environments lacks it"))
    }

    /// Fetches the end of what a sandbox printed, at most so many bytes of it; nothing where nothing leads to it.
    ///
    /// How soon after its end all of it is there, and for how long, depends on Modal and the workspace's plan.
    ///
    /// # Errors
    /// [`ModalError::Call`] where Modal does not tell.
    pub async fn output(&self, app: &AppId, of: &OutputOf, bytes_max: usize) -> Result<String, ModalError> {
        let (sandbox_id, task_id) = match (Generation::of(&of.sandbox), &of.task) {
            (Generation::V1, _) => (of.sandbox.to_string(), String::new()),
            (Generation::V2, Some(task)) => (String::new(), task.to_string()),
            (Generation::V2, None) => return Ok(String::new()),
        };
        let send = |client: Client, request| async move {
            client.max_decoding_message_size(LOG_ANSWER_BYTES_MAX).app_fetch_logs(request).await
        };
        let call = Call::plain(Operation::FETCH_LOGS, of.sandbox.as_str());
        let (mut text, mut since) = (String::new(), of.since);
        for _ in 0..LOG_PAGES_MAX {
            let message = api::AppFetchLogsRequest {
                app_id: app.to_string(),
                since: Some(timestamp(since)),
                until: Some(timestamp(of.until)),
                limit: LOG_ENTRIES_MAX,
                source: api::FileDescriptor::Unspecified.into(),
                task_id: task_id.clone(),
                sandbox_id: sandbox_id.clone(),
            };
            let batches = self.caller.call(call, message, send).await?.batches;
            let next = wire::next_output(&batches, LOG_ENTRIES_MAX).filter(|next| *next > since);
            text = wire::output(text, batches, bytes_max);
            let Some(next) = next else { break };
            since = next;
        }
        Ok(text)
    }
}

fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0);
    prost_types::Timestamp { seconds: at.timestamp(), nanos }
}

/// Tells "there is none" from a failure.
fn found<T>(answer: Result<T, ModalError>) -> Result<Option<T>, ModalError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.class() == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
