//! A client of the simulated Modal.

use std::collections::HashMap;
use std::convert::Infallible;

use http::Request;
use sandrunner::sim::World;
use tonic::Status;
use tower::util::BoxCloneService;

use crate::api;
use crate::api::modal_client_client::ModalClientClient;

pub(crate) type InProcess = BoxCloneService<Request<tonic::body::Body>, http::Response<tonic::body::Body>, Infallible>;

/// Modal's side as a client without a socket, with what it has looked up.
pub(crate) struct Modal {
    pub(crate) client: ModalClientClient<InProcess>,
    pub(crate) auth_token: String,
    pub(crate) app_id: String,
    pub(crate) image_id: String,
}

pub(crate) fn signed<T>(message: T, auth_token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let headers = [
        ("x-modal-token-id", "ak-test"),
        ("x-modal-token-secret", "as-test"),
        ("x-modal-client-type", "9"),
        ("x-modal-client-version", "1.0.0"),
        ("x-modal-auth-token", auth_token),
    ];
    for (name, value) in headers {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

impl Modal {
    /// Looks up the App and builds the image, as a controller does at its start.
    pub(crate) async fn connect(world: &World) -> Self {
        let mut client = ModalClientClient::new(BoxCloneService::new(world.modal_service()));
        let token = client.auth_token_get(signed(api::AuthTokenGetRequest {}, "")).await.unwrap().into_inner().token;
        let app = api::AppGetOrCreateRequest {
            app_name: "sandrunner".to_owned(),
            object_creation_type: 1,
            ..api::AppGetOrCreateRequest::default()
        };
        let app_id = client.app_get_or_create(signed(app, &token)).await.unwrap().into_inner().app_id;
        let mut modal = Self { client, auth_token: token, app_id, image_id: String::new() };
        modal.image_id = modal.build_image("RUN true").await.unwrap();
        modal
    }

    pub(crate) async fn build_image(&mut self, command: &str) -> Result<String, String> {
        let request = api::ImageGetOrCreateRequest {
            image: Some(api::Image {
                dockerfile_commands: vec!["FROM ubuntu:24.04".to_owned(), command.to_owned()],
                ..api::Image::default()
            }),
            app_id: self.app_id.clone(),
            builder_version: "2025.06".to_owned(),
            ..api::ImageGetOrCreateRequest::default()
        };
        let created = self.client.image_get_or_create(self.signed(request)).await.unwrap().into_inner();
        let mut result = created.result;
        let mut last_entry_id = String::new();
        while result.is_none() {
            let join = api::ImageJoinStreamingRequest {
                image_id: created.image_id.clone(),
                timeout: 55.0,
                last_entry_id: last_entry_id.clone(),
                include_logs_for_finished: false,
            };
            let mut stream = self.client.image_join_streaming(self.signed(join)).await.unwrap().into_inner();
            while let Some(part) = stream.message().await.unwrap() {
                if !part.entry_id.is_empty() {
                    last_entry_id = part.entry_id;
                }
                result = part.result.or(result);
            }
        }
        let result = result.unwrap();
        if result.status == 1 { Ok(created.image_id) } else { Err(result.exception) }
    }

    pub(crate) fn signed<T>(&self, message: T) -> tonic::Request<T> {
        signed(message, &self.auth_token)
    }

    pub(crate) fn definition(&self, name: &str) -> api::Sandbox {
        api::Sandbox {
            entrypoint_args: vec!["bash".to_owned()],
            image_id: self.image_id.clone(),
            timeout_secs: 3_600,
            name: Some(name.to_owned()),
            ..api::Sandbox::default()
        }
    }

    pub(crate) async fn create(&mut self, name: &str, config: &str) -> Result<String, Status> {
        let environment = HashMap::from([
            ("SANDRUNNER_JITCONFIG".to_owned(), config.to_owned()),
            ("SANDRUNNER_REPOSITORIES".to_owned(), "acme/web".to_owned()),
        ]);
        let request = api::SandboxCreateV2Request {
            app_id: self.app_id.clone(),
            definition: Some(self.definition(name)),
            tags: vec![api::SandboxTag { tag_name: "deployment".to_owned(), tag_value: "main".to_owned() }],
            secret_sources: vec![api::SecretSource {
                source: Some(api::secret_source::Source::Env(api::StringMap { contents: environment })),
            }],
        };
        let created = self.client.sandbox_create_v2(self.signed(request)).await?;
        Ok(created.into_inner().sandbox_id)
    }

    pub(crate) async fn list(&mut self, before_timestamp: f64) -> Vec<api::SandboxInfo> {
        let request = api::SandboxListRequest {
            app_id: self.app_id.clone(),
            before_timestamp,
            ..api::SandboxListRequest::default()
        };
        self.client.sandbox_list_v2(self.signed(request)).await.unwrap().into_inner().sandboxes
    }

    /// Status and exit code; 0 and 0 while it lives.
    pub(crate) async fn wait(&mut self, sandbox_id: &str, timeout: f32) -> (i32, i32) {
        let request = api::SandboxWaitRequest { sandbox_id: sandbox_id.to_owned(), timeout };
        let waited = self.client.sandbox_wait_v2(self.signed(request)).await.unwrap().into_inner();
        let result = waited.result.unwrap();
        (result.status, result.exitcode)
    }

    pub(crate) async fn terminate(&mut self, sandbox_id: &str) {
        let request = api::SandboxTerminateRequest { sandbox_id: sandbox_id.to_owned() };
        self.client.sandbox_terminate_v2(self.signed(request)).await.unwrap();
    }
}
