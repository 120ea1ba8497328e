//! What a request is about, for the history.

use crate::modal::api;

/// What a request is about.
#[derive(Debug, Default)]
pub(super) struct About {
    /// The id, or the name that is asked for; empty where there is none.
    pub(super) target: String,
    /// The page, where a list is asked for: 1, or 2 for any later one.
    pub(super) page: Option<usize>,
}

impl About {
    fn target(target: &str) -> Self {
        Self { target: target.to_owned(), page: None }
    }
}

/// A request that can say what it is about.
pub(super) trait Subject {
    /// What the history tells of it.
    fn about(&self) -> About {
        About::default()
    }
}

impl Subject for () {}
impl Subject for api::AuthTokenGetRequest {}
impl Subject for api::AppGetOrCreateRequest {}
impl Subject for api::EnvironmentGetOrCreateRequest {}
impl Subject for api::ImageGetOrCreateRequest {}
impl Subject for api::VolumeGetOrCreateRequest {}
impl Subject for api::WorkspaceBillingRatesRequest {}
impl Subject for api::WorkspaceBillingReportRequest {}

impl Subject for api::AppFetchLogsRequest {
    fn about(&self) -> About {
        About::target(if self.sandbox_id.is_empty() { &self.task_id } else { &self.sandbox_id })
    }
}

impl Subject for api::SandboxListRequest {
    fn about(&self) -> About {
        About {
            target: if self.include_finished { "ended" } else { "" }.to_owned(),
            page: Some(if self.before_timestamp > 0.0 { 2 } else { 1 }),
        }
    }
}

impl Subject for api::SandboxCreateRequest {
    fn about(&self) -> About {
        About::target(self.definition.as_ref().and_then(|it| it.name.as_deref()).unwrap_or_default())
    }
}

impl Subject for api::SandboxCreateV2Request {
    fn about(&self) -> About {
        About::target(self.definition.as_ref().and_then(|it| it.name.as_deref()).unwrap_or_default())
    }
}

macro_rules! about_field {
    ($($request:ident.$field:ident,)*) => {
        $(impl Subject for api::$request {
            fn about(&self) -> About {
                About::target(&self.$field)
            }
        })*
    };
}

about_field! {
    ImageJoinStreamingRequest.image_id,
    ImageFromIdRequest.image_id,
    SecretGetOrCreateRequest.deployment_name,
    SecretDeleteRequest.secret_id,
    SandboxGetFromNameRequest.sandbox_name,
    SandboxWaitRequest.sandbox_id,
    SandboxTerminateRequest.sandbox_id,
    SandboxTagsSetRequest.sandbox_id,
    SandboxTagsGetRequest.sandbox_id,
    SandboxGetTaskIdRequest.sandbox_id,
}
