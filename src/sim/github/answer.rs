//! An answer before it is dressed in headers.

use std::hash::Hasher;

use bytes::Bytes;
use rustc_hash::FxHasher;

use super::{Asked, body};
use crate::sim::app::BAD_CREDENTIALS;
use crate::sim::history::LimitKind;
use crate::sim::limits::{LimitForm, Says};

/// What reaches the client of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sending {
    /// All of it.
    #[default]
    Whole,
    /// Everything but the headers of the limits.
    WithoutLimits,
    /// Nothing: the connection is cut.
    Cut,
}

/// An answer before it is dressed in headers.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// 0 where there is none.
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// Its ETag, where it is known already.
    pub(super) etag: Option<String>,
    pub(super) link: Option<String>,
    /// Whether it has an ETag and may be answered with 304.
    pub(super) is_cacheable: bool,
    pub(super) limited: Option<LimitKind>,
    pub(super) retry_after: Option<u32>,
    /// How much longer than usual it takes, in seconds.
    pub(super) delay_secs: f64,
    pub(super) sending: Sending,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, body: body.into(), is_cacheable: true, ..Self::default() }
    }

    pub(super) fn error(status: u16, message: &str) -> Self {
        Self { status, body: body::error(status, message).into(), ..Self::default() }
    }

    pub(super) fn not_found() -> Self {
        Self::error(404, "Not Found")
    }

    pub(super) fn unauthorized() -> Self {
        Self::error(401, BAD_CREDENTIALS)
    }

    pub(super) fn not_modified() -> Self {
        Self { status: 304, ..Self::default() }
    }

    /// None at all.
    pub(super) fn cut(delay_secs: f64) -> Self {
        Self { delay_secs, sending: Sending::Cut, ..Self::default() }
    }

    /// One of GitHub's own limits.
    pub(super) fn limited(kind: LimitKind, retry_after: Option<u32>) -> Self {
        Self { limited: Some(kind), retry_after, ..Self::error(403, limit_text(kind)) }
    }

    /// A limit that a fault has made; `recorded` is what the history calls it.
    pub(super) fn limited_by_fault(form: LimitForm, wait: u32, recorded: LimitKind) -> Self {
        let is_primary = form.kind == LimitKind::Primary;
        let has_retry_after = match form.says {
            Says::Nothing => false,
            Says::When => !is_primary,
            Says::Both => true,
        };
        Self {
            limited: Some(recorded),
            retry_after: has_retry_after.then_some(wait),
            sending: if is_primary && form.says == Says::Nothing { Sending::WithoutLimits } else { Sending::Whole },
            ..Self::error(form.status, limit_text(form.kind))
        }
    }
}

fn limit_text(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Primary => "API rate limit exceeded for this token.",
        LimitKind::Secondary | LimitKind::Creates | LimitKind::Capacity | LimitKind::Injected => {
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        }
    }
}

/// A weak ETag over what GitHub was measured to use: `Accept`, `Authorization` and the body.
pub(super) fn etag(asked: &Asked, body: &[u8]) -> String {
    let mut hash = FxHasher::default();
    for part in [asked.accept.as_bytes(), asked.token.as_deref().unwrap_or_default().as_bytes(), body] {
        hash.write_usize(part.len());
        hash.write(part);
    }
    format!("W/\"{:016x}\"", hash.finish())
}
