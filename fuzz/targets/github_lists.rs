//! Lists of runs, jobs and runners: every row is read or counted, and none is taken for what it is not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandrunner::github::answers::{parse_job, read_jobs, read_runners, read_runs};
use sandrunner::state::JobStatus;
use serde_json::Value;

/// How many rows the list has, read by other means.
fn rows(body: &[u8]) -> Option<usize> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let lists = ["workflow_runs", "jobs", "runners"].map(|name| body.get(name).and_then(Value::as_array));
    match lists {
        [Some(rows), None, None] | [None, Some(rows), None] | [None, None, Some(rows)] => Some(rows.len()),
        _ => None,
    }
}

fuzz_target!(|body: &[u8]| {
    let rows = rows(body);
    let mut read = Vec::new();
    if let Ok((runs, unreadable)) = read_runs(body) {
        read.push(runs.len() + unreadable);
    }
    if let Ok((jobs, unreadable)) = read_jobs(body) {
        read.push(jobs.len() + unreadable);
        for job in &*jobs {
            assert!(job.status != JobStatus::Queued || job.runner_name.is_none());
            assert!(job.runner_name.as_ref().is_none_or(|name| !name.is_empty()));
        }
    }
    if let Ok((runners, unreadable)) = read_runners(body) {
        read.push(runners.len() + unreadable);
    }
    for count in read {
        assert!(rows.is_none_or(|rows| rows == count), "{count} of {rows:?} rows are accounted for");
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = parse_job(text);
    }
});
