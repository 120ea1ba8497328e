//! From Modal's messages to the crate's own types.
//!
//! Reads tolerantly: Modal promises no compatibility, so an unknown status is kept as such and a missing
//! part is a missing part, never a failure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::api;
use crate::ids::{ImageId, SandboxId};
use crate::state::{Sandbox, SandboxEnd, SandboxResult};

/// Which of Modal's two interfaces made a sandbox; every later call about it goes to the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// The older one, which alone has GPUs. Its sandboxes wait for a machine after the create.
    V1,
    /// The newer one. Its sandboxes have a machine when the create is answered.
    V2,
}

impl Generation {
    /// Reads it from the form of the id.
    pub fn of(id: &SandboxId) -> Self {
        if id.is_v1() { Self::V1 } else { Self::V2 }
    }
}

/// A listed sandbox; none where it has no id, by which alone it could be addressed.
pub(super) fn sandbox(info: api::SandboxInfo) -> Option<Sandbox> {
    if info.id.is_empty() {
        return None;
    }
    let id = SandboxId::new(info.id);
    let task = info.task_info.unwrap_or_default();
    let started_at = time(task.started_at);
    let result = task.result.as_ref().and_then(result).or_else(|| info.metadata?.result.as_ref().and_then(result));
    Some(Sandbox {
        is_scheduled: Generation::of(&id) == Generation::V2 || !task.id.is_empty() || started_at.is_some(),
        id,
        name: info.name,
        tags: tags(info.tags),
        created_at: time(info.created_at).unwrap_or_default(),
        started_at,
        image: Some(info.image_id).filter(|id| !id.is_empty()).map(ImageId::new),
        result,
    })
}

/// How a sandbox ended; none while it lives.
pub(super) fn result(result: &api::GenericResult) -> Option<SandboxResult> {
    let status = match result.status {
        0 => return None,
        1 => SandboxEnd::Success,
        2 => SandboxEnd::Failure,
        3 => SandboxEnd::Terminated,
        4 => SandboxEnd::Timeout,
        5 => SandboxEnd::InitFailure,
        6 => SandboxEnd::InternalFailure,
        7 => SandboxEnd::IdleTimeout,
        8..=10 => SandboxEnd::OutOfMemory,
        other => SandboxEnd::Other(other),
    };
    Some(SandboxResult { status, exit_code: result.exitcode, message: super::error::plain(&result.exception) })
}

/// The tags of a sandbox; of two with one name the last counts.
pub(super) fn tags(tags: Vec<api::SandboxTag>) -> BTreeMap<String, String> {
    tags.into_iter().map(|tag| (tag.tag_name, tag.tag_value)).collect()
}

/// The same the other way.
pub(super) fn wire_tags(tags: &BTreeMap<String, String>) -> Vec<api::SandboxTag> {
    let tag = |(name, value): (&String, &String)| api::SandboxTag { tag_name: name.clone(), tag_value: value.clone() };
    tags.iter().map(tag).collect()
}

/// Unix seconds as Modal counts them; 0 and what is no time stand for "not yet".
fn time(secs: f64) -> Option<DateTime<Utc>> {
    if !secs.is_finite() || secs <= 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a cast beyond the range saturates, and is then no time")]
    let micros = (secs * 1e6).round() as i64;
    DateTime::from_timestamp_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "sb-0123456789abcdefghijAB";
    const V2: &str = "sb-01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn info(id: &str, task: api::TaskInfo) -> api::SandboxInfo {
        api::SandboxInfo { id: id.to_owned(), created_at: 1000.5, task_info: Some(task), ..Default::default() }
    }

    fn ended(status: i32) -> api::GenericResult {
        api::GenericResult { status, exception: "line\nline".to_owned(), exitcode: 64 }
    }

    #[test]
    fn every_status_but_zero_is_an_end() {
        let status = |number| result(&ended(number)).map(|result| result.status);
        assert_eq!(status(0), None);
        assert_eq!(status(1), Some(SandboxEnd::Success));
        assert_eq!(status(3), Some(SandboxEnd::Terminated));
        assert_eq!(status(10), Some(SandboxEnd::OutOfMemory));
        assert_eq!(status(77), Some(SandboxEnd::Other(77)));
        assert_eq!(status(-1), Some(SandboxEnd::Other(-1)));
        let read = result(&ended(2)).unwrap();
        assert_eq!((read.exit_code, read.message.as_str()), (64, "line line"));
    }

    #[test]
    fn a_v1_sandbox_is_scheduled_once_it_has_a_task() {
        let queued = sandbox(info(V1, api::TaskInfo::default())).unwrap();
        assert!(!queued.is_scheduled && queued.started_at.is_none());
        let placed = sandbox(info(V1, api::TaskInfo { id: "ta-1".to_owned(), ..Default::default() })).unwrap();
        assert!(placed.is_scheduled && placed.started_at.is_none());
        let started = sandbox(info(V1, api::TaskInfo { started_at: 1001.25, ..Default::default() })).unwrap();
        assert!(started.is_scheduled);
        assert_eq!(started.started_at.unwrap().timestamp_millis(), 1_001_250);
        assert!(sandbox(info(V2, api::TaskInfo::default())).unwrap().is_scheduled);
    }

    #[test]
    fn the_result_is_found_in_either_place() {
        let in_task = info(V2, api::TaskInfo { result: Some(ended(4)), ..Default::default() });
        assert_eq!(sandbox(in_task).unwrap().result.unwrap().status, SandboxEnd::Timeout);
        let mut in_metadata = info(V2, api::TaskInfo { result: Some(ended(0)), ..Default::default() });
        in_metadata.metadata = Some(api::SandboxHandleMetadata { result: Some(ended(6)), ..Default::default() });
        assert_eq!(sandbox(in_metadata).unwrap().result.unwrap().status, SandboxEnd::InternalFailure);
    }

    #[test]
    fn odd_times_are_no_times() {
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(time(odd), None, "{odd}");
        }
        assert_eq!(time(1000.5).unwrap().timestamp_millis(), 1_000_500);
        assert!(sandbox(api::SandboxInfo::default()).is_none());
    }
}
