//! The calls about sandboxes: create, look up, end.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;

use super::throttled;
use crate::modal::api;
use crate::modal::api::network_access::NetworkAccessType;
use crate::modal::api::secret_source::Source;
use crate::sim::sandboxes::{End, Generation, NewSandbox, Sandbox, SandboxKey};
use crate::sim::world::State;

/// The longest life of a sandbox.
const MAX_TIMEOUT_SECS: u32 = 86_400;
/// The largest command line.
const MAX_ARGS_BYTES: usize = 65_536;
/// The longest name.
const MAX_NAME: usize = 64;

/// What both forms of a create come to.
struct Creation {
    app_id: String,
    definition: api::Sandbox,
    tags: Vec<api::SandboxTag>,
    environment: BTreeMap<String, String>,
    generation: Generation,
}

impl State {
    pub(super) fn create_v2(
        &mut self,
        asked: api::SandboxCreateV2Request,
    ) -> Result<api::SandboxCreateV2Response, Status> {
        let definition = asked.definition.ok_or_else(|| Status::invalid_argument("definition is missing"))?;
        if gpu_of(&definition).is_some() {
            return Err(Status::invalid_argument("GPUs are not supported by SandboxCreateV2"));
        }
        check_secret_ids(&definition, &asked.secret_sources)?;
        let mut environment = BTreeMap::new();
        for source in asked.secret_sources {
            match source.source {
                Some(Source::SecretId(id)) => environment.extend(self.secret_values(&id)?.clone()),
                Some(Source::Env(env)) => environment.extend(env.contents),
                None => return Err(Status::invalid_argument("a secret source is empty")),
            }
        }
        let (app_id, tags) = (asked.app_id, asked.tags);
        let key = self.create(Creation { app_id, definition, tags, environment, generation: Generation::V2 })?;
        let sandbox = self.sandbox(key);
        Ok(api::SandboxCreateV2Response {
            sandbox_id: sandbox.id.to_string(),
            task_id: sandbox.task_id.clone(),
            metadata: Some(metadata(sandbox)),
        })
    }

    pub(super) fn create_v1(&mut self, asked: api::SandboxCreateRequest) -> Result<api::SandboxCreateResponse, Status> {
        let definition = asked.definition.ok_or_else(|| Status::invalid_argument("definition is missing"))?;
        let mut environment = BTreeMap::new();
        for id in &definition.secret_ids {
            environment.extend(self.secret_values(id)?.clone());
        }
        let (app_id, tags) = (asked.app_id, asked.tags);
        let key = self.create(Creation { app_id, definition, tags, environment, generation: Generation::V1 })?;
        let sandbox = self.sandbox(key);
        Ok(api::SandboxCreateResponse { sandbox_id: sandbox.id.to_string(), metadata: Some(metadata(sandbox)) })
    }

    fn create(&mut self, creation: Creation) -> Result<SandboxKey, Status> {
        let Creation { app_id, definition, tags, environment, generation } = creation;
        let now = self.now;
        self.creates
            .admit(now, &self.profile)
            .map_err(|wait| throttled(wait.as_seconds_f64(), self.profile.modal_creates_per_second))?;
        self.check_definition(&app_id, &definition)?;
        if self.profile.modal_spend_limit_reached {
            // In which form Modal says it is not known (`modal-api.md` §4.3).
            return Err(Status::resource_exhausted("the workspace's spend limit is reached"));
        }
        if generation == Generation::V2 && !self.has_capacity(0) {
            // V1 would leave it queued. In which form V2 says it is not known (`modal-api.md` §19).
            return Err(Status::resource_exhausted("the workspace's limit of running containers is reached"));
        }
        let is_offline = definition.network_access.as_ref().is_some_and(is_offline);
        let name = definition.name.clone().unwrap_or_default();
        if !name.is_empty() && self.live_sandbox(&app_id, &name).is_some() {
            return Err(Status::already_exists(format!("Sandbox with name '{name}' already exists")));
        }
        let resources = definition.resources.clone().unwrap_or_default();
        Ok(self.create_sandbox(NewSandbox {
            app_id,
            name,
            tags: to_map(tags),
            generation,
            gpus: gpus_of(&definition),
            gpu: gpu_of(&definition).unwrap_or_default(),
            milli_cpu: resources.milli_cpu,
            memory_mb: resources.memory_mb,
            image_id: definition.image_id,
            regions: definition.scheduler_placement.map(|placement| placement.regions).unwrap_or_default(),
            timeout_secs: definition.timeout_secs,
            environment,
            is_offline,
        }))
    }

    fn check_definition(&self, app_id: &str, definition: &api::Sandbox) -> Result<(), Status> {
        if !self.is_app(app_id) {
            return Err(Status::not_found(format!("App '{app_id}' not found")));
        }
        let Some(image) = self.objects.images.get(&definition.image_id) else {
            return Err(Status::not_found(format!("Image '{}' not found", definition.image_id)));
        };
        if image.failure.is_some() || self.now < image.built_at {
            return Err(Status::failed_precondition("the image has not been built"));
        }
        if definition.timeout_secs == 0 || definition.timeout_secs > MAX_TIMEOUT_SECS {
            return Err(Status::invalid_argument("timeout_secs must be 1 to 86400"));
        }
        if definition.entrypoint_args.iter().map(String::len).sum::<usize>() > MAX_ARGS_BYTES {
            return Err(Status::invalid_argument("entrypoint_args exceed 65536 bytes"));
        }
        check_machine(definition)?;
        let missing = |mount: &&api::VolumeMount| !self.is_volume(&mount.volume_id);
        if let Some(mount) = definition.volume_mounts.iter().find(missing) {
            return Err(Status::not_found(format!("Volume '{}' not found", mount.volume_id)));
        }
        if definition.name.as_ref().is_some_and(|name| !is_name(name)) {
            return Err(Status::invalid_argument("name must be 1 to 64 letters, digits, `-`, `_` or `.`"));
        }
        Ok(())
    }

    pub(super) fn by_name(
        &self,
        asked: &api::SandboxGetFromNameRequest,
        generation: Generation,
    ) -> Result<api::SandboxGetFromNameResponse, Status> {
        let not_found = || Status::not_found(format!("Sandbox with name '{}' not found", asked.sandbox_name));
        let app_id = self.app_by_name(&asked.app_name).ok_or_else(not_found)?;
        let is_meant = |sandbox: &&Sandbox| {
            sandbox.app_id == app_id && sandbox.name == asked.sandbox_name && sandbox.generation == generation
        };
        let live = self.live_sandbox(app_id, &asked.sandbox_name).map(|key| self.sandbox(key)).filter(is_meant);
        let ended = || self.sandboxes.iter().rev().filter(|_| asked.include_terminated).find(is_meant);
        let sandbox = live.or_else(ended).ok_or_else(not_found)?;
        Ok(api::SandboxGetFromNameResponse { sandbox_id: sandbox.id.to_string(), metadata: Some(metadata(sandbox)) })
    }

    /// The sandbox of an id, which must be of the call's generation.
    pub(super) fn sandbox_of(&self, id: &str, generation: Generation) -> Result<SandboxKey, Status> {
        self.sandbox_by_id(id)
            .filter(|key| self.sandbox(*key).generation == generation)
            .ok_or_else(|| Status::not_found(format!("Sandbox '{id}' not found")))
    }

    pub(super) fn wait_response(&self, key: SandboxKey) -> api::SandboxWaitResponse {
        let sandbox = self.sandbox(key);
        api::SandboxWaitResponse { result: Some(result_of(sandbox)), metadata: Some(metadata(sandbox)) }
    }

    pub(super) fn terminate(&mut self, key: SandboxKey) -> api::SandboxTerminateResponse {
        api::SandboxTerminateResponse { existing_result: self.terminate_sandbox(key).map(to_result) }
    }

    pub(super) fn task_id(&self, key: SandboxKey) -> api::SandboxGetTaskIdResponse {
        let sandbox = self.sandbox(key);
        let task_id = sandbox.scheduled_at.map(|_| sandbox.task_id.clone());
        let task_result = sandbox.ended.map(|(_, end)| to_result(end));
        api::SandboxGetTaskIdResponse { task_id, task_result }
    }

    pub(super) fn set_tags(&mut self, key: SandboxKey, tags: Vec<api::SandboxTag>) {
        self.sandboxes[key.0].tags = to_map(tags);
    }

    pub(super) fn tags(&self, key: SandboxKey) -> api::SandboxTagsGetResponse {
        api::SandboxTagsGetResponse { tags: to_tags(&self.sandbox(key).tags) }
    }
}

/// The Secrets that a definition of the newer interface lists are those of the sources, or none (`modal-api.md` §10.3).
fn check_secret_ids(definition: &api::Sandbox, sources: &[api::SecretSource]) -> Result<(), Status> {
    let stored = sources.iter().filter_map(|source| match &source.source {
        Some(Source::SecretId(id)) => Some(id),
        Some(Source::Env(_)) | None => None,
    });
    if definition.secret_ids.is_empty() || definition.secret_ids.iter().eq(stored) {
        return Ok(());
    }
    Err(Status::invalid_argument("definition.secret_ids are other Secrets than those of secret_sources"))
}

/// What Modal refuses of a definition, whatever exists (`modal-api.md` §9, §10.4, §10.6, §15.4).
fn check_machine(definition: &api::Sandbox) -> Result<(), Status> {
    let resources = definition.resources.clone().unwrap_or_default();
    let is_below = |limit: u32, asked: u32| limit > 0 && limit < asked;
    if is_below(resources.milli_cpu_max, resources.milli_cpu) || is_below(resources.memory_mb_max, resources.memory_mb)
    {
        return Err(Status::invalid_argument("a limit lies below the request"));
    }
    match definition.runtime.as_deref() {
        None | Some("gvisor") => {}
        Some("vm") if gpu_of(definition).is_none() => {}
        Some("vm") => return Err(Status::invalid_argument("the VM runtime has no GPUs")),
        Some(other) => return Err(Status::invalid_argument(format!("there is no runtime '{other}'"))),
    }
    let mut volumes = BTreeSet::new();
    if let Some(twice) = definition.volume_mounts.iter().find(|mount| !volumes.insert(&mount.volume_id)) {
        return Err(Status::invalid_argument(format!("Volume '{}' is mounted twice", twice.volume_id)));
    }
    let network = definition.network_access.clone().unwrap_or_default();
    let has_list = !network.allowed_cidrs.is_empty() || !network.allowed_domains.is_empty();
    if has_list && network.network_access_type != NetworkAccessType::Allowlist as i32 {
        return Err(Status::invalid_argument("an allow list needs network access of its kind"));
    }
    Ok(())
}

/// Whether no runner in it reaches GitHub. What is behind networks is not known here: they are taken for the right ones.
fn is_offline(network: &api::NetworkAccess) -> bool {
    if network.network_access_type == NetworkAccessType::Blocked as i32 {
        return true;
    }
    let is_listed = network.network_access_type == NetworkAccessType::Allowlist as i32;
    let admits = |domain: &String| matches!(domain.as_str(), "github.com" | "*.actions.githubusercontent.com");
    is_listed && network.allowed_cidrs.is_empty() && network.allowed_domains.iter().filter(|it| admits(it)).count() < 2
}

/// The GPU as text; none where no GPU is asked for.
fn gpu_of(definition: &api::Sandbox) -> Option<String> {
    let gpu = definition.resources.as_ref()?.gpu_config.as_ref()?;
    (gpu.count > 0 || !gpu.gpu_type.is_empty()).then(|| gpu.gpu_type.clone())
}

/// How many GPUs are asked for.
fn gpus_of(definition: &api::Sandbox) -> u32 {
    let gpu = definition.resources.as_ref().and_then(|resources| resources.gpu_config.as_ref());
    gpu.filter(|gpu| !gpu.gpu_type.is_empty()).map_or(0, |gpu| gpu.count.max(1))
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(super) fn to_map(tags: Vec<api::SandboxTag>) -> BTreeMap<String, String> {
    tags.into_iter().map(|tag| (tag.tag_name, tag.tag_value)).collect()
}

pub(super) fn to_tags(tags: &BTreeMap<String, String>) -> Vec<api::SandboxTag> {
    tags.iter().map(|(name, value)| api::SandboxTag { tag_name: name.clone(), tag_value: value.clone() }).collect()
}

pub(super) fn to_result(end: End) -> api::GenericResult {
    api::GenericResult { status: end.status.into(), exception: end.message.to_owned(), exitcode: end.exit_code }
}

/// The result; its status is 0 while the sandbox lives.
fn result_of(sandbox: &Sandbox) -> api::GenericResult {
    sandbox.ended.map(|(_, end)| to_result(end)).unwrap_or_default()
}

fn metadata(sandbox: &Sandbox) -> api::SandboxHandleMetadata {
    api::SandboxHandleMetadata { result: Some(result_of(sandbox)), app_id: sandbox.app_id.clone() }
}
