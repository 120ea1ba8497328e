//! What Modal keeps beside sandboxes: Apps, images, Secrets, Volumes, and the auth tokens it gives out.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Status;

use super::builds::{Failure, Image};
use crate::modal::api;
use crate::modal::api::ObjectCreationType;
use crate::sim::draws::{Purpose, seconds};
use crate::sim::history::{What, fingerprint};
use crate::sim::jobs::Time;
use crate::sim::sandboxes::{End, Generation, NewSandbox};
use crate::sim::scenario::{Scenario, ScenarioSecret};
use crate::sim::world::State;

/// The builder version of the one environment.
pub(super) const BUILDER_VERSION: &str = "2025.06";
/// A lifetime that ends after any World.
const FOR_EVER_SECS: u32 = 10 * 365 * 86_400;

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What is left of images that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImagesLeft {
    Nothing,
    Unbuilt,
}

/// A Secret.
#[derive(Debug)]
struct Secret {
    values: BTreeMap<String, String>,
    /// Whether somebody stored it before.
    is_given: bool,
}

impl Secret {
    fn made(values: HashMap<String, String>) -> Self {
        Self { values: values.into_iter().collect(), is_given: false }
    }
}

/// Everything that has an id but is no sandbox.
#[derive(Debug, Default)]
pub(in crate::sim) struct Objects {
    apps: BTreeMap<String, String>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) image_by_definition: BTreeMap<String, String>,
    secrets: BTreeMap<String, Secret>,
    secret_by_name: BTreeMap<String, String>,
    volumes: BTreeMap<String, String>,
    made: u64,
    /// Auth tokens of earlier numbers are refused.
    auth_number: u64,
    has_foreign: bool,
}

impl Objects {
    /// Nothing but what somebody made before: images and Secrets.
    pub(in crate::sim) fn given(scenario: &Scenario, now: Time) -> Self {
        let images = scenario.images.iter().map(|id| (id.clone(), Image::given(now))).collect();
        let id = |name: &str| format!("st-{name}");
        let secret = |ScenarioSecret { name, values }: &ScenarioSecret| {
            (id(name), Secret { values: values.clone(), is_given: true })
        };
        Self {
            images,
            secrets: scenario.secrets.iter().map(secret).collect(),
            secret_by_name: scenario.secrets.iter().map(|secret| (secret.name.clone(), id(&secret.name))).collect(),
            ..Self::default()
        }
    }

    /// The version of the runner that is in an image, as far as its definition tells.
    pub(in crate::sim) fn runner_in(&self, image: &str) -> Option<&str> {
        self.images.get(image)?.runner.as_deref()
    }
}

impl State {
    pub(super) fn new_object_id(&mut self, prefix: &str) -> String {
        self.objects.made += 1;
        // Sandboxes and mints draw their identities from small keys; these come from the other end.
        let mut draw = self.seed.stream(Purpose::Identity, !self.objects.made);
        format!("{prefix}-{}", draw.text(BASE62, 22))
    }

    pub(super) fn app(&mut self, name: &str, kind: i32) -> Result<String, Status> {
        if let Some(id) = self.objects.apps.get(name) {
            return Ok(id.clone());
        }
        if kind == i32::from(ObjectCreationType::Unspecified) {
            return Err(Status::not_found(format!("App '{name}' not found")));
        }
        let id = self.new_object_id("ap");
        self.objects.apps.insert(name.to_owned(), id.clone());
        if !std::mem::replace(&mut self.objects.has_foreign, true) {
            self.add_foreign_sandboxes(&id);
        }
        Ok(id)
    }

    /// Somebody stops all Apps: their sandboxes end, and they have to be created again, with new ids.
    pub(super) fn stop_apps(&mut self) {
        let apps: Vec<String> = std::mem::take(&mut self.objects.apps).into_values().collect();
        let ended: Vec<_> = self.live.iter().copied().filter(|key| apps.contains(&self.sandbox(*key).app_id)).collect();
        for key in ended {
            self.end_sandbox(key, End::terminated());
        }
    }

    /// No image that was made here is there any more, and none is known by its definition: creates do not find theirs, or find it
    /// not built.
    pub(super) fn lose_images(&mut self, left: ImagesLeft) {
        match left {
            ImagesLeft::Nothing => self.objects.images.retain(|_, image| image.is_given()),
            ImagesLeft::Unbuilt => {
                let made = self.objects.images.values_mut().filter(|image| !image.is_given());
                made.for_each(|image| image.failure = Some(Failure::lost()));
            }
        }
        self.objects.image_by_definition.clear();
    }

    /// A new auth token: a JWT of which clients read `exp` only.
    pub(super) fn auth_token(&self) -> String {
        let life = seconds(self.profile.modal_auth_token_secs);
        auth_token(self.now + life, self.objects.auth_number)
    }

    /// Refuses all auth tokens that were given out so far.
    pub(super) fn expire_auth_tokens(&mut self) {
        self.objects.auth_number += 1;
    }

    /// Whether an auth token is one of this World's and can still be used.
    pub(super) fn is_auth_token(&self, token: &str) -> bool {
        is_valid(token, self.now, self.objects.auth_number)
    }

    /// Other people's sandboxes live in the App that is asked for first.
    fn add_foreign_sandboxes(&mut self, app_id: &str) {
        for foreign in self.scenario.foreign_sandboxes.clone() {
            self.create_sandbox(NewSandbox {
                app_id: app_id.to_owned(),
                name: foreign.name,
                tags: foreign.tags,
                generation: Generation::V2,
                image_id: String::new(),
                gpu: String::new(),
                gpus: 0,
                milli_cpu: 0,
                memory_mb: 0,
                regions: Vec::new(),
                timeout_secs: FOR_EVER_SECS,
                environment: BTreeMap::new(),
                is_offline: false,
            });
        }
    }

    pub(super) fn is_app(&self, id: &str) -> bool {
        self.objects.apps.values().any(|app| app == id)
    }

    pub(super) fn app_by_name(&self, name: &str) -> Option<&str> {
        self.objects.apps.get(name).map(String::as_str)
    }

    pub(super) fn secret(&mut self, asked: api::SecretGetOrCreateRequest) -> Result<String, Status> {
        let kind = ObjectCreationType::try_from(asked.object_creation_type).unwrap_or_default();
        let known = self.objects.secret_by_name.get(&asked.deployment_name).cloned();
        let is_named = !asked.deployment_name.is_empty();
        match (kind, known.filter(|_| is_named)) {
            (ObjectCreationType::Unspecified, None) => {
                return Err(Status::not_found(format!("Secret '{}' not found", asked.deployment_name)));
            }
            (ObjectCreationType::CreateFailIfExists, Some(_)) => {
                return Err(Status::already_exists(format!("Secret '{}' exists", asked.deployment_name)));
            }
            (ObjectCreationType::Unspecified | ObjectCreationType::CreateIfMissing, Some(id)) => {
                return self.secret_with_keys(id, &asked.required_keys);
            }
            (ObjectCreationType::CreateOverwriteIfExists, Some(id)) => {
                self.objects.secrets.insert(id.clone(), Secret::made(asked.env_dict));
                return Ok(id);
            }
            _ => {}
        }
        if kind == ObjectCreationType::AnonymousOwnedByApp && !self.is_app(&asked.app_id) {
            return Err(Status::invalid_argument("an unnamed Secret needs the id of its App"));
        }
        let id = self.new_object_id("st");
        self.objects.secrets.insert(id.clone(), Secret::made(asked.env_dict));
        self.record(What::SecretChanged { secret: id.clone(), exists: true });
        if is_named {
            self.objects.secret_by_name.insert(asked.deployment_name, id.clone());
        }
        Ok(id)
    }

    fn secret_with_keys(&self, id: String, keys: &[String]) -> Result<String, Status> {
        let values = self.objects.secrets.get(&id).map(|secret| &secret.values);
        match keys.iter().find(|key| values.is_none_or(|values| !values.contains_key(*key))) {
            Some(key) => Err(Status::failed_precondition(format!("the Secret has no key '{key}'"))),
            None => Ok(id),
        }
    }

    pub(super) fn delete_secret(&mut self, id: &str) -> Result<(), Status> {
        self.objects.secret_by_name.retain(|_, secret| secret != id);
        if self.objects.secrets.remove(id).is_none() {
            return Err(Status::not_found(format!("Secret '{id}' not found")));
        }
        self.record(What::SecretChanged { secret: id.to_owned(), exists: false });
        Ok(())
    }

    /// The values of a Secret.
    pub(super) fn secret_values(&self, id: &str) -> Result<&BTreeMap<String, String>, Status> {
        let secret = self.objects.secrets.get(id);
        secret.map(|secret| &secret.values).ok_or_else(|| Status::not_found(format!("Secret '{id}' not found")))
    }

    pub(super) fn volume(&mut self, name: &str, kind: i32) -> Result<String, Status> {
        if let Some(id) = self.objects.volumes.get(name).filter(|_| !name.is_empty()) {
            return Ok(id.clone());
        }
        if kind == i32::from(ObjectCreationType::Unspecified) {
            return Err(Status::not_found(format!("Volume '{name}' not found")));
        }
        let id = self.new_object_id("vo");
        self.objects.volumes.insert(name.to_owned(), id.clone());
        Ok(id)
    }

    /// Whether a Volume exists.
    pub(super) fn is_volume(&self, id: &str) -> bool {
        self.objects.volumes.values().any(|volume| volume == id)
    }

    /// Secrets that were made here and exist; none should be left over.
    pub(in crate::sim) fn secrets_left(&self) -> usize {
        self.objects.secrets.values().filter(|secret| !secret.is_given).count()
    }
}

/// Definitions are known by their content. A message's maps have no order, so they are sorted here.
pub(super) fn definition_key(definition: &api::Image, builder_version: &str) -> String {
    let arguments: BTreeMap<_, _> = definition.build_args.iter().collect();
    let rest = api::Image { build_args: HashMap::default(), ..definition.clone() };
    fingerprint(&format!("{builder_version}\0{}\0{arguments:?}", hex::encode(rest.encode_to_vec())))
}

fn auth_token(expiry: Time, number: u64) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "exp": expiry.timestamp(), "number": number });
    let signed = format!("{}.{}", part(json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let signature = signature(&signed);
    format!("{signed}.{signature}")
}

fn signature(signed: &str) -> String {
    URL_SAFE_NO_PAD.encode(fingerprint(&format!("simulated signature of {signed}")))
}

/// Whether a token was made by [`auth_token`] with this number and has not expired.
fn is_valid(token: &str, now: Time, number: u64) -> bool {
    let Some((signed, mark)) = token.rsplit_once('.').filter(|(signed, mark)| signature(signed) == *mark) else {
        return false;
    };
    let payload = signed.split_once('.').and_then(|(_, payload)| URL_SAFE_NO_PAD.decode(payload).ok());
    let claims: Value = payload.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let is_alive = claims["exp"].as_i64().is_some_and(|expiry| now.timestamp() < expiry);
    !mark.is_empty() && is_alive && claims["number"] == json!(number)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn an_auth_token_expires_and_cannot_be_made_up() {
        let now = Time::UNIX_EPOCH;
        let expiry = now + TimeDelta::minutes(20);
        let token = auth_token(expiry, 3);
        assert_eq!(token.split('.').count(), 3);
        assert!(is_valid(&token, now, 3));
        assert!(!is_valid(&token, expiry, 3) && !is_valid(&token, now, 4));
        assert!(!is_valid("a.b.c", now, 3));
        assert!(!is_valid(&format!("{token}x"), now, 3));
    }

    #[test]
    fn the_same_definition_has_the_same_key_whatever_the_order_of_its_maps() {
        let args = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let image = |pairs| api::Image {
            dockerfile_commands: vec!["FROM ubuntu:24.04".to_owned()],
            build_args: args(pairs),
            ..api::Image::default()
        };
        let one = definition_key(&image(&[("a", "1"), ("b", "2")]), "2025.06");
        assert_eq!(one, definition_key(&image(&[("b", "2"), ("a", "1")]), "2025.06"));
        assert_ne!(one, definition_key(&image(&[("a", "1")]), "2025.06"));
        assert_ne!(one, definition_key(&image(&[("a", "1"), ("b", "2")]), "2026.10"));
    }
}
