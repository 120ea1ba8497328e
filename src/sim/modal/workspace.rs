//! What Modal tells of its workspace: the quota, and what sandboxes printed.

use chrono::DateTime;
use tonic::Status;

use super::calls::ENVIRONMENT;
use crate::modal::api;
use crate::sim::draws::epoch_seconds;
use crate::sim::jobs::Time;
use crate::sim::sandboxes::{Generation, Sandbox};
use crate::sim::world::State;

/// The most entries of an answer (the official clients ask for no more).
const ENTRIES_MAX: u32 = 20_000;

impl State {
    /// The environments of the workspace: there is one.
    pub(super) fn environments(&self) -> api::EnvironmentListResponse {
        let limit = |limit: Option<u32>| limit.and_then(|limit| i32::try_from(limit).ok());
        let (containers, gpus) = self.in_use();
        let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        api::EnvironmentListResponse {
            items: vec![api::EnvironmentListItem {
                name: ENVIRONMENT.to_owned(),
                default: true,
                environment_id: format!("en-{ENVIRONMENT}"),
                max_concurrent_tasks: limit(self.profile.modal_max_containers),
                max_concurrent_gpus: limit(self.profile.modal_max_gpus),
                current_concurrent_tasks: number(containers),
                current_concurrent_gpus: number(gpus),
                spend_limit_reached: self.profile.modal_spend_limit_reached,
            }],
        }
    }

    /// What a sandbox printed within a time: one of the older interface by its id, a newer one by its task.
    pub(super) fn output(&self, asked: &api::AppFetchLogsRequest) -> Result<api::AppFetchLogsResponse, Status> {
        if !self.is_app(&asked.app_id) {
            return Err(Status::not_found(format!("App '{}' not found", asked.app_id)));
        }
        if asked.limit > ENTRIES_MAX {
            return Err(Status::invalid_argument("limit must be at most 20000"));
        }
        let is_meant = |sandbox: &&Sandbox| {
            let is_asked = match sandbox.generation {
                Generation::V1 => *sandbox.id == *asked.sandbox_id,
                Generation::V2 => sandbox.task_id == asked.task_id,
            };
            is_asked && sandbox.app_id == asked.app_id
        };
        let Some(sandbox) = self.sandboxes.iter().rev().find(is_meant) else {
            return Ok(api::AppFetchLogsResponse::default());
        };
        let time = |stamp: &Option<prost_types::Timestamp>| {
            let stamp = stamp.as_ref()?;
            DateTime::from_timestamp(stamp.seconds, u32::try_from(stamp.nanos).ok()?)
        };
        let (since, until) = (time(&asked.since), time(&asked.until));
        let is_within = |at: Time| since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until);
        let items = sandbox.output.iter().filter(|(at, _)| is_within(*at)).map(|(at, text)| api::TaskLogs {
            data: text.clone(),
            timestamp: epoch_seconds(*at),
            file_descriptor: api::FileDescriptor::Stdout.into(),
        });
        let items: Vec<api::TaskLogs> = items.take(usize::try_from(asked.limit).unwrap_or(usize::MAX)).collect();
        let batch = api::TaskLogsBatch {
            task_id: sandbox.task_id.clone(),
            items,
            eof: !sandbox.is_alive(),
            sandbox_id: sandbox.id.to_string(),
            ..api::TaskLogsBatch::default()
        };
        Ok(api::AppFetchLogsResponse { batches: vec![batch] })
    }
}
