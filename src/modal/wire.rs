//! From Modal's messages to the crate's own types.
//!
//! Reads tolerantly: Modal promises no compatibility, so an unknown status is kept as such and a missing
//! part is a missing part, never a failure.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::api;
use crate::cost::Resources;
use crate::ids::{ImageId, SandboxId, TaskId};
use crate::state::{Quota, Sandbox, SandboxEnd, SandboxResult, Spend};

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
        finished_at: time(task.finished_at),
        resources: resources(info.resource_info, task.gpu_type),
        image: Some(info.image_id).filter(|id| !id.is_empty()).map(ImageId::new),
        task: Some(task.id).filter(|id| !id.is_empty()).map(TaskId::new),
        result,
    })
}

/// The resources of a sandbox. A GPU that was assigned may be another than the one that was asked for, at the same price
/// (Modal: an A100 may have 80 GB), so what was asked for counts.
fn resources(told: Option<api::ResourceInfo>, assigned: String) -> Resources {
    let told = told.unwrap_or_default();
    let value = |value: Option<api::resource_info::ResourceValue>| value.map(|it| it.value).filter(|it| *it > 0);
    Resources {
        milli_cpu: value(told.milli_cpu),
        memory_mib: value(told.memory_mb),
        machine: None,
        gpu: [told.gpu_type, assigned].into_iter().find(|gpu| !gpu.is_empty()),
    }
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

/// What an environment may use, and uses.
pub(super) fn quota(item: api::EnvironmentListItem) -> Quota {
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    Quota {
        environment: item.name,
        max_tasks: item.max_concurrent_tasks.map(count),
        tasks: count(item.current_concurrent_tasks),
        max_gpus: item.max_concurrent_gpus.map(count),
        gpus: count(item.current_concurrent_gpus),
        spend: if item.spend_limit_reached { Spend::LimitReached } else { Spend::Within },
    }
}

/// From when on there may be more output than an answer with so many entries gave.
pub(super) fn next_output(batches: &[api::TaskLogsBatch], entries: u32) -> Option<DateTime<Utc>> {
    let times = || batches.iter().flat_map(|batch| &batch.items).map(|item| item.timestamp);
    let is_full = times().count() >= usize::try_from(entries).unwrap_or(usize::MAX);
    let last = times().max_by(f64::total_cmp).filter(|_| is_full).and_then(time)?;
    Some(last + TimeDelta::microseconds(1))
}

/// The last part of what was printed before and then, in the order of its times: at most so many bytes, from the start of a
/// line where something had to be left out.
pub(super) fn output(before: String, batches: Vec<api::TaskLogsBatch>, bytes_max: usize) -> String {
    let mut items: Vec<api::TaskLogs> = batches.into_iter().flat_map(|batch| batch.items).collect();
    items.sort_by(|one, other| one.timestamp.total_cmp(&other.timestamp));
    let mut length = 0;
    let beyond = items.iter().rposition(|item| {
        length += item.data.len();
        length > bytes_max
    });
    let mut text = if beyond.is_some() { String::new() } else { before };
    text.extend(items.into_iter().skip(beyond.unwrap_or(0)).map(|item| item.data));
    let Some(beyond) = text.len().checked_sub(bytes_max).filter(|beyond| *beyond > 0) else { return text };
    let rest = text.as_bytes().get(beyond..).unwrap_or_default();
    let line = rest.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    // One line that is longer than all that is kept has only its end.
    let line = if line == rest.len() { 0 } else { line };
    String::from_utf8_lossy(&rest[line..]).into_owned()
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
    fn of_long_output_the_last_whole_lines_are_kept_in_the_order_of_their_times() {
        let item = |timestamp, data: &str| api::TaskLogs { data: data.to_owned(), timestamp, ..Default::default() };
        let batch = |items| api::TaskLogsBatch { items, ..Default::default() };
        let batches =
            vec![batch(vec![item(3.0, "three"), item(4.0, " and four\n")]), batch(vec![item(1.0, "one\ntwo\n")])];
        let first = |bytes| output(String::new(), batches.clone(), bytes);
        assert_eq!(first(100), "one\ntwo\nthree and four\n");
        assert_eq!(first(22), "two\nthree and four\n", "`one` is cut");
        assert_eq!(first(4), "our\n", "a line that is too long is cut");
        assert_eq!(output(String::new(), vec![batch(vec![item(1.0, "äää")])], 3), "\u{fffd}ä");
        let five = || vec![batch(vec![item(5.0, "five\n")])];
        assert_eq!(output(first(22), five(), 22), "three and four\nfive\n", "what was printed before is cut");
        assert_eq!(output(first(22), five(), 4), "ive\n");
        assert_eq!(next_output(&batches, 4), None, "that is all");
        assert_eq!(next_output(&batches, 3), DateTime::from_timestamp_micros(4_000_001));
    }

    #[test]
    fn a_quota_is_read_with_what_is_not_limited() {
        let item = api::EnvironmentListItem {
            name: "main".to_owned(),
            max_concurrent_gpus: Some(10),
            current_concurrent_tasks: 7,
            current_concurrent_gpus: -1,
            spend_limit_reached: true,
            ..Default::default()
        };
        let quota = quota(item);
        assert_eq!((quota.max_tasks, quota.tasks, quota.max_gpus, quota.gpus), (None, 7, Some(10), 0));
        assert_eq!(quota.spend, Spend::LimitReached);
    }

    #[test]
    fn resources_are_read_as_far_as_they_are_told() {
        use api::resource_info::ResourceValue;
        let value = |value| Some(ResourceValue { value, is_default: false });
        let told = api::ResourceInfo { memory_mb: value(8192), milli_cpu: value(0), gpu_type: "H100".to_owned() };
        let task = api::TaskInfo { gpu_type: "H200".to_owned(), finished_at: 2000.5, ..Default::default() };
        let read = sandbox(api::SandboxInfo { resource_info: Some(told), ..info(V1, task.clone()) }).unwrap();
        let machine =
            Resources { milli_cpu: None, memory_mib: Some(8192), gpu: Some("H100".to_owned()), machine: None };
        assert_eq!((read.resources, read.finished_at.unwrap().timestamp_millis()), (machine, 2_000_500));
        assert_eq!(sandbox(info(V1, task)).unwrap().resources.gpu.as_deref(), Some("H200"));
        assert_eq!(sandbox(info(V2, api::TaskInfo::default())).unwrap().resources, Resources::default());
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
