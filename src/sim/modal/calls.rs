//! The service itself: each RPC with its operation and what it needs.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::listing::Listed;
use super::objects::BUILDER_VERSION;
use super::{BillStream, Call, LogStream, ModalService, Page};
use crate::modal::api;
use crate::modal::api::modal_client_server::ModalClient;
use crate::sim::draws::seconds;
use crate::sim::history::Operation;
use crate::sim::jobs::Time;
use crate::sim::sandboxes::Generation;
use crate::sim::world::State;

/// How long a long poll sleeps at most before it looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The name of the one environment.
pub(super) const ENVIRONMENT: &str = "main";
/// The entry at which the first part of a build log ends.
const FIRST_PART: &str = "1-0";

impl ModalService {
    /// Holds a long poll until `is_over` or `timeout_secs` have passed.
    async fn hold(&self, timeout_secs: f32, is_over: impl Fn(&State) -> bool) {
        let clock = self.world.clock();
        let secs = if timeout_secs.is_finite() { f64::from(timeout_secs).clamp(0.0, 3_600.0) } else { 0.0 };
        let until = clock.now() + seconds(secs);
        loop {
            let (over, next) = self.world.with(|state| (is_over(state), state.next_due()));
            let now = clock.now();
            if over || now >= until {
                return;
            }
            let left = (until - now).to_std().unwrap_or_default();
            let event = next.and_then(|at: Time| (at - now).to_std().ok()).unwrap_or(LOOK_AGAIN);
            clock.sleep(event.clamp(Duration::from_millis(10), LOOK_AGAIN).min(left)).await;
        }
    }

    async fn wait(
        &self,
        call: Call,
        request: Request<api::SandboxWaitRequest>,
        generation: Generation,
    ) -> Result<Response<api::SandboxWaitResponse>, Status> {
        let (id, timeout) = (request.get_ref().sandbox_id.clone(), request.get_ref().timeout);
        self.hold(timeout, |state| {
            state.sandbox_of(&id, generation).map_or(true, |key| !state.sandbox(key).is_alive())
        })
        .await;
        self.call(call, request, move |state, asked| {
            state.sandbox_of(&asked.sandbox_id, generation).map(|key| state.wait_response(key))
        })
        .await
    }
}

fn page_of(request: &Request<api::SandboxListRequest>) -> Page {
    if request.get_ref().before_timestamp > 0.0 { Page::Later } else { Page::First }
}

/// The build log: one line and an early end first, the rest and the result when it is reopened. The last line follows the
/// result, as the official client expects of Modal.
fn log(state: &State, asked: &api::ImageJoinStreamingRequest) -> Result<Vec<api::ImageJoinStreamingResponse>, Status> {
    let Some(image) = state.objects.images.get(&asked.image_id) else {
        return Err(Status::not_found(format!("Image '{}' not found", asked.image_id)));
    };
    let line = |data: String| api::TaskLogs {
        data,
        timestamp: crate::sim::draws::epoch_seconds(state.now),
        file_descriptor: api::FileDescriptor::Stdout.into(),
    };
    let result = image.result(state.now);
    if asked.last_entry_id.is_empty() && (result.is_none() || asked.include_logs_for_finished) {
        return Ok(vec![api::ImageJoinStreamingResponse {
            task_logs: vec![line(format!("=> {} steps\n", image.commands.len()))],
            entry_id: FIRST_PART.to_owned(),
            ..api::ImageJoinStreamingResponse::default()
        }]);
    }
    let Some(result) = result else { return Ok(Vec::new()) };
    let mut lines: Vec<api::TaskLogs> = image.log().into_iter().map(line).collect();
    let last = lines.pop();
    let logs = |task_logs, entry_id: &str| api::ImageJoinStreamingResponse {
        task_logs,
        entry_id: entry_id.to_owned(),
        ..api::ImageJoinStreamingResponse::default()
    };
    let result = api::ImageJoinStreamingResponse { result: Some(result), ..Default::default() };
    let end = api::ImageJoinStreamingResponse { eof: true, ..Default::default() };
    Ok(vec![logs(lines, "2-0"), result, logs(last.into_iter().collect(), "3-0"), end])
}

#[tonic::async_trait]
impl ModalClient for ModalService {
    type ImageJoinStreamingStream = LogStream;
    type WorkspaceBillingReportStream = BillStream;

    async fn client_hello(&self, request: Request<()>) -> Result<Response<api::ClientHelloResponse>, Status> {
        self.call(Call::plain(Operation::Hello), request, |_, ()| {
            Ok(api::ClientHelloResponse {
                image_builder_version: BUILDER_VERSION.to_owned(),
                ..api::ClientHelloResponse::default()
            })
        })
        .await
    }

    async fn auth_token_get(
        &self,
        request: Request<api::AuthTokenGetRequest>,
    ) -> Result<Response<api::AuthTokenGetResponse>, Status> {
        self.call(Call::plain(Operation::AuthToken), request, |state, _| {
            Ok(api::AuthTokenGetResponse { token: state.auth_token() })
        })
        .await
    }

    async fn app_get_or_create(
        &self,
        request: Request<api::AppGetOrCreateRequest>,
    ) -> Result<Response<api::AppGetOrCreateResponse>, Status> {
        self.call(Call::plain(Operation::App), request, |state, asked| {
            let app_id = state.app(&asked.app_name, asked.object_creation_type)?;
            Ok(api::AppGetOrCreateResponse { app_id })
        })
        .await
    }

    async fn environment_get_or_create(
        &self,
        request: Request<api::EnvironmentGetOrCreateRequest>,
    ) -> Result<Response<api::EnvironmentGetOrCreateResponse>, Status> {
        self.call(Call::plain(Operation::Environment), request, |_, asked| {
            let name = if asked.deployment_name.is_empty() { ENVIRONMENT.to_owned() } else { asked.deployment_name };
            let settings = api::EnvironmentSettings { image_builder_version: BUILDER_VERSION.to_owned() };
            Ok(api::EnvironmentGetOrCreateResponse {
                environment_id: format!("en-{name}"),
                metadata: Some(api::EnvironmentMetadata { name, settings: Some(settings) }),
            })
        })
        .await
    }

    async fn environment_list(&self, request: Request<()>) -> Result<Response<api::EnvironmentListResponse>, Status> {
        self.call(Call::plain(Operation::Environments), request, |state, ()| Ok(state.environments())).await
    }

    async fn image_get_or_create(
        &self,
        request: Request<api::ImageGetOrCreateRequest>,
    ) -> Result<Response<api::ImageGetOrCreateResponse>, Status> {
        self.call(Call::plain(Operation::Image), request, |state, asked| {
            let (image_id, result) = state.image(&asked)?;
            Ok(api::ImageGetOrCreateResponse { image_id, result })
        })
        .await
    }

    async fn image_join_streaming(
        &self,
        request: Request<api::ImageJoinStreamingRequest>,
    ) -> Result<Response<LogStream>, Status> {
        let asked = request.get_ref().clone();
        if !asked.last_entry_id.is_empty() {
            let is_built = |state: &State| {
                state.objects.images.get(&asked.image_id).is_none_or(|image| image.result(state.now).is_some())
            };
            self.hold(asked.timeout, is_built).await;
        }
        let answered = self.call(Call::plain(Operation::ImageLog), request, |state, asked| log(state, &asked)).await?;
        let parts: Vec<Result<_, Status>> = answered.into_inner().into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn image_from_id(
        &self,
        request: Request<api::ImageFromIdRequest>,
    ) -> Result<Response<api::ImageFromIdResponse>, Status> {
        self.call(Call::plain(Operation::ImageFromId), request, |state, asked| {
            if state.objects.images.contains_key(&asked.image_id) {
                return Ok(api::ImageFromIdResponse { image_id: asked.image_id });
            }
            Err(Status::not_found(format!("Image '{}' not found", asked.image_id)))
        })
        .await
    }

    async fn secret_get_or_create(
        &self,
        request: Request<api::SecretGetOrCreateRequest>,
    ) -> Result<Response<api::SecretGetOrCreateResponse>, Status> {
        self.call(Call::plain(Operation::Secret), request, |state, asked| {
            Ok(api::SecretGetOrCreateResponse { secret_id: state.secret(asked)? })
        })
        .await
    }

    async fn secret_delete(&self, request: Request<api::SecretDeleteRequest>) -> Result<Response<()>, Status> {
        self.call(Call::plain(Operation::SecretDelete), request, |state, asked| state.delete_secret(&asked.secret_id))
            .await
    }

    async fn volume_get_or_create(
        &self,
        request: Request<api::VolumeGetOrCreateRequest>,
    ) -> Result<Response<api::VolumeGetOrCreateResponse>, Status> {
        self.call(Call::plain(Operation::Volume), request, |state, asked| {
            let volume_id = state.volume(&asked.deployment_name, asked.object_creation_type)?;
            Ok(api::VolumeGetOrCreateResponse { volume_id })
        })
        .await
    }

    async fn sandbox_create_v2(
        &self,
        request: Request<api::SandboxCreateV2Request>,
    ) -> Result<Response<api::SandboxCreateV2Response>, Status> {
        self.call(Call::of_v2(Operation::Create), request, State::create_v2).await
    }

    async fn sandbox_create(
        &self,
        request: Request<api::SandboxCreateRequest>,
    ) -> Result<Response<api::SandboxCreateResponse>, Status> {
        self.call(Call::plain(Operation::Create), request, State::create_v1).await
    }

    async fn sandbox_list_v2(
        &self,
        request: Request<api::SandboxListRequest>,
    ) -> Result<Response<api::SandboxListResponse>, Status> {
        let call = Call { page: page_of(&request), ..Call::of_v2(Operation::ListSandboxes) };
        self.call(call, request, |state, asked| Ok(state.list(&asked, Listed::Both))).await
    }

    async fn sandbox_list(
        &self,
        request: Request<api::SandboxListRequest>,
    ) -> Result<Response<api::SandboxListResponse>, Status> {
        let call = Call { page: page_of(&request), ..Call::plain(Operation::ListSandboxes) };
        self.call(call, request, |state, asked| Ok(state.list(&asked, Listed::V1Only))).await
    }

    async fn sandbox_get_from_name_v2(
        &self,
        request: Request<api::SandboxGetFromNameRequest>,
    ) -> Result<Response<api::SandboxGetFromNameResponse>, Status> {
        let call = Call::of_v2(Operation::SandboxByName);
        self.call(call, request, |state, asked| state.by_name(&asked, Generation::V2)).await
    }

    async fn sandbox_get_from_name(
        &self,
        request: Request<api::SandboxGetFromNameRequest>,
    ) -> Result<Response<api::SandboxGetFromNameResponse>, Status> {
        let call = Call::plain(Operation::SandboxByName);
        self.call(call, request, |state, asked| state.by_name(&asked, Generation::V1)).await
    }

    async fn sandbox_wait_v2(
        &self,
        request: Request<api::SandboxWaitRequest>,
    ) -> Result<Response<api::SandboxWaitResponse>, Status> {
        self.wait(Call::of_v2(Operation::Wait), request, Generation::V2).await
    }

    async fn sandbox_wait(
        &self,
        request: Request<api::SandboxWaitRequest>,
    ) -> Result<Response<api::SandboxWaitResponse>, Status> {
        self.wait(Call::plain(Operation::Wait), request, Generation::V1).await
    }

    async fn sandbox_terminate_v2(
        &self,
        request: Request<api::SandboxTerminateRequest>,
    ) -> Result<Response<api::SandboxTerminateResponse>, Status> {
        self.call(Call::of_v2(Operation::Terminate), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V2).map(|key| state.terminate(key))
        })
        .await
    }

    async fn sandbox_terminate(
        &self,
        request: Request<api::SandboxTerminateRequest>,
    ) -> Result<Response<api::SandboxTerminateResponse>, Status> {
        self.call(Call::plain(Operation::Terminate), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V1).map(|key| state.terminate(key))
        })
        .await
    }

    async fn sandbox_tags_set_v2(&self, request: Request<api::SandboxTagsSetRequest>) -> Result<Response<()>, Status> {
        self.call(Call::of_v2(Operation::SetTags), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V2).map(|key| state.set_tags(key, asked.tags))
        })
        .await
    }

    async fn sandbox_tags_set(&self, request: Request<api::SandboxTagsSetRequest>) -> Result<Response<()>, Status> {
        self.call(Call::plain(Operation::SetTags), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V1).map(|key| state.set_tags(key, asked.tags))
        })
        .await
    }

    async fn sandbox_tags_get_v2(
        &self,
        request: Request<api::SandboxTagsGetRequest>,
    ) -> Result<Response<api::SandboxTagsGetResponse>, Status> {
        self.call(Call::of_v2(Operation::GetTags), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V2).map(|key| state.tags(key))
        })
        .await
    }

    async fn sandbox_tags_get(
        &self,
        request: Request<api::SandboxTagsGetRequest>,
    ) -> Result<Response<api::SandboxTagsGetResponse>, Status> {
        self.call(Call::plain(Operation::GetTags), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V1).map(|key| state.tags(key))
        })
        .await
    }

    async fn workspace_billing_rates(
        &self,
        request: Request<api::WorkspaceBillingRatesRequest>,
    ) -> Result<Response<api::WorkspaceBillingRatesResponse>, Status> {
        self.call(Call::plain(Operation::Rates), request, |state, _| Ok(state.rates())).await
    }

    async fn workspace_billing_report(
        &self,
        request: Request<api::WorkspaceBillingReportRequest>,
    ) -> Result<Response<BillStream>, Status> {
        let answered = self.call(Call::plain(Operation::Bill), request, |state, asked| state.bill(&asked)).await?;
        let items: Vec<Result<_, Status>> = answered.into_inner().into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(items)))
    }

    async fn sandbox_get_task_id(
        &self,
        request: Request<api::SandboxGetTaskIdRequest>,
    ) -> Result<Response<api::SandboxGetTaskIdResponse>, Status> {
        self.call(Call::plain(Operation::TaskId), request, |state, asked| {
            state.sandbox_of(&asked.sandbox_id, Generation::V1).map(|key| state.task_id(key))
        })
        .await
    }

    async fn app_fetch_logs(
        &self,
        request: Request<api::AppFetchLogsRequest>,
    ) -> Result<Response<api::AppFetchLogsResponse>, Status> {
        self.call(Call::plain(Operation::Logs), request, |state, asked| state.output(&asked)).await
    }
}
