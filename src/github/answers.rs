//! Reads GitHub's answers, whatever stands in them (pure): what the client uses, without a client.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};

use super::call::Call;
use super::error::{Malformed, Refusal};
use super::{Answer, wire};
use crate::state::{Runner, WorkflowJob, WorkflowRun};

pub use super::pages::names_next;
pub use super::rate::{quota, retry_after};
pub use super::wire::parse_job;
pub use super::writer::read_jit_config;

/// The rows of one page of a list, and how many of its rows cannot be read.
pub type Rows<T> = (Arc<[T]>, usize);

/// Reads a page of `GET …/actions/runs`.
///
/// # Errors
/// [`Malformed`] where it is no such list at all.
pub fn read_runs(body: &[u8]) -> Result<Rows<WorkflowRun>, Malformed> {
    wire::read_list(body, "workflow runs")
}

/// Reads a page of `GET …/actions/runs/{id}/jobs`.
///
/// # Errors
/// [`Malformed`] where it is no such list at all.
pub fn read_jobs(body: &[u8]) -> Result<Rows<WorkflowJob>, Malformed> {
    wire::read_list(body, "workflow jobs")
}

/// Reads a page of `GET …/actions/runners`.
///
/// # Errors
/// [`Malformed`] where it is no such list at all.
pub fn read_runners(body: &[u8]) -> Result<Rows<Runner>, Malformed> {
    wire::read_list(body, "runners")
}

/// Reads an answer to `call` that is no success; it does not repeat `token`.
pub fn read_refusal(
    call: &Call,
    token: &SecretString,
    (status, headers, body): (StatusCode, HeaderMap, Bytes),
    now: DateTime<Utc>,
) -> Refusal {
    Refusal::read(call, &Answer::new(status, headers, body, token), token.expose_secret(), now).0
}
