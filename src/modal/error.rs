//! Why a call to Modal failed, and what that means for the next attempt.

use std::fmt;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use super::api;
use super::operation::Operation;
use crate::error::{CallFailure, ErrorChain, ErrorClass, redact};

/// The longest text of Modal's that an error repeats.
const MESSAGE_CHARS_MAX: usize = 500;

/// The shortest wait between two attempts, whatever Modal asks for (the official clients' floor).
const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);

/// Something asked of Modal did not work.
#[derive(Debug, thiserror::Error)]
pub enum ModalError {
    /// A setting of the connection cannot be used.
    #[error("Modal's setting `{name}` cannot be used: {problem}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What is wrong with it, without the value of a secret.
        problem: String,
    },
    /// A sandbox or an image is asked for that Modal would refuse.
    #[error("{subject}: {problem}")]
    Definition {
        /// What was asked for.
        subject: String,
        /// What is wrong with it, with the allowed values.
        problem: String,
    },
    /// A call failed.
    #[error("cannot {operation} {subject}")]
    Call {
        /// What the call was for.
        operation: Operation,
        /// What it was about.
        subject: String,
        /// Modal's answer, or why there was none.
        #[source]
        refusal: Refusal,
        /// What is known of all its attempts.
        replies: Replies,
    },
    /// An answer lacks what it must hold.
    #[error("cannot {operation} {subject}: {problem}")]
    Unreadable {
        /// What the call was for.
        operation: Operation,
        /// What it was about.
        subject: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
    /// An image could not be built.
    #[error("cannot build layer {layer} of the image: {reason}")]
    Build {
        /// The number of the layer, from 1.
        layer: usize,
        /// Why it ended.
        reason: String,
        /// Whether the definition is to blame.
        class: ErrorClass,
        /// The end of the builder's log; may hold several lines.
        log: String,
    },
}

impl ModalError {
    /// What the failure means for the next attempt.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Setting { .. } | Self::Definition { .. } => ErrorClass::Invalid,
            // Where an earlier attempt may have created something, "no" to a later one does not undo it.
            Self::Call { operation, replies: Replies::SomeLost, .. } if operation.is_creating() => {
                ErrorClass::Unavailable
            }
            // Whatever it was wanted for was not called, and nothing is said of that.
            Self::Call { operation: Operation::AUTHENTICATE, refusal, .. } => {
                let class = refusal.class().before_the_call();
                let is_of_token = matches!(class, ErrorClass::NotFound | ErrorClass::Conflict);
                if is_of_token { ErrorClass::Unsent } else { class }
            }
            Self::Call { refusal, .. } => refusal.class(),
            Self::Unreadable { .. } => ErrorClass::Unreadable,
            Self::Build { class, .. } => *class,
        }
    }

    /// How long Modal asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call { refusal, .. } => refusal.retry_after,
            Self::Setting { .. } | Self::Definition { .. } | Self::Unreadable { .. } | Self::Build { .. } => None,
        }
    }

    /// The end of the builder's log, where an image could not be built.
    pub fn build_log(&self) -> Option<&str> {
        match self {
            Self::Build { log, .. } => Some(log),
            Self::Setting { .. } | Self::Definition { .. } | Self::Call { .. } | Self::Unreadable { .. } => None,
        }
    }

    /// Whether a name was found taken, possibly by an attempt of the same call.
    pub(super) fn is_name_taken_after_lost_reply(&self) -> bool {
        matches!(self, Self::Call { refusal, replies: Replies::SomeLost, .. } if refusal.class() == ErrorClass::Conflict)
    }

    /// The same once it is known that no attempt of the call had an effect.
    pub(super) fn with_replies_accounted_for(mut self) -> Self {
        if let Self::Call { replies, .. } = &mut self {
            *replies = Replies::All;
        }
        self
    }

    /// The same without `secrets`, should Modal have repeated what it was sent.
    pub(super) fn without<'a>(mut self, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        if let Self::Call { refusal, .. } = &mut self {
            for secret in secrets {
                refusal.message = redact(&refusal.message, secret);
            }
        }
        self
    }
}

/// Whether every attempt of a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// Each was answered, so the call had the effect that the last answer tells.
    All,
    /// At least one was not, and may have had its effect.
    SomeLost,
}

impl From<ModalError> for CallFailure {
    fn from(error: ModalError) -> Self {
        Self { class: error.class(), message: ErrorChain(&error).to_string(), retry_after: error.retry_after() }
    }
}

/// The status by which a call failed, free of metadata and of control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    code: Code,
    message: String,
    remedy: &'static str,
    retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(code_name(self.code))?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}

impl Refusal {
    /// Takes what matters out of a status that `operation` was answered with.
    ///
    /// `secrets` are those that every call carries; they are not repeated even if Modal's text does.
    pub(super) fn new<'a>(operation: Operation, status: &Status, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let message = secrets.into_iter().fold(status.message().to_owned(), |text, secret| redact(&text, secret));
        Self {
            code: status.code(),
            message: plain(&message),
            remedy: remedy(operation, status.code()),
            retry_after: retry_after(status.details()),
        }
    }

    /// What a call is told that is not sent, because Modal asked another of its kind to wait.
    pub(super) fn held(wait: Duration) -> Self {
        Self {
            code: Code::ResourceExhausted,
            message: "Modal asked a call before this one to wait".to_owned(),
            remedy: "",
            retry_after: Some(wait),
        }
    }

    /// The same without a secret that one call carried.
    pub(super) fn without(self, secret: &str) -> Self {
        Self { message: redact(&self.message, secret), ..self }
    }

    /// What the status means for the next attempt.
    pub(super) fn class(&self) -> ErrorClass {
        match self.code {
            Code::Unauthenticated => ErrorClass::Unauthorized,
            Code::PermissionDenied => ErrorClass::Forbidden,
            Code::NotFound => ErrorClass::NotFound,
            Code::AlreadyExists => ErrorClass::Conflict,
            Code::ResourceExhausted => ErrorClass::RateLimited,
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented | Code::FailedPrecondition => {
                ErrorClass::Invalid
            }
            // `Unknown` is what tonic makes of most breaks of the transport. `Ok` cannot be an error's code.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => ErrorClass::Unavailable,
        }
    }

    /// Whether the official clients repeat a call that was answered so.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self.code,
            Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled | Code::Internal | Code::Unknown
        )
    }

    /// How long Modal asked to wait before the call is repeated.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// A status code in small letters, as a metric label and in messages.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

fn remedy(operation: Operation, code: Code) -> &'static str {
    if code == Code::Unauthenticated {
        "check Modal's token id and token secret"
    } else if code == Code::PermissionDenied && operation.is_creating() {
        "either Modal's token lacks access to this environment, or the workspace may not use what the class asks for, \
         such as its runtime, its GPU or its regions"
    } else if code == Code::PermissionDenied {
        "give Modal's token access to this environment"
    } else if code == Code::FailedPrecondition && operation.is_introduction() {
        "Modal refuses this client: set a newer Modal client version"
    } else {
        ""
    }
}

/// The wait that a status's details ask for (`RPCStatus` with an `RPCRetryPolicy`, whatever the code); at least 0.1 s.
pub fn retry_after(details: &[u8]) -> Option<Duration> {
    let status = api::RpcStatus::decode(details).ok()?;
    let policy = status.details.iter().find(|detail| detail.type_url.ends_with("/modal.client.RPCRetryPolicy"))?;
    let secs = api::RpcRetryPolicy::decode(&*policy.value).ok()?.retry_after_secs;
    // A number that is none asks for the shortest wait, one beyond all measure for the longest.
    Some(Duration::try_from_secs_f32(secs.max(0.0)).unwrap_or(Duration::MAX).max(RETRY_AFTER_MIN))
}

/// Modal's text on one line and of bounded length.
pub(super) fn plain(text: &str) -> String {
    let line: String = text.chars().take(MESSAGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(type_url: &str, secs: f32) -> Vec<u8> {
        let policy = api::RpcRetryPolicy { retry_after_secs: secs }.encode_to_vec();
        let detail = prost_types::Any { type_url: type_url.to_owned(), value: policy };
        api::RpcStatus { code: 8, message: String::new(), details: vec![detail] }.encode_to_vec()
    }

    #[test]
    fn the_wait_is_read_from_the_retry_policy_alone() {
        let known = "type.modal.com/modal.client.RPCRetryPolicy";
        assert_eq!(retry_after(&detail(known, 1.5)), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after(&detail(known, 0.0)), Some(RETRY_AFTER_MIN));
        assert_eq!(retry_after(&detail(known, f32::NAN)), Some(RETRY_AFTER_MIN));
        assert_eq!(retry_after(&detail(known, f32::INFINITY)), Some(Duration::MAX));
        assert_eq!(retry_after(&detail("type.googleapis.com/google.rpc.RetryInfo", 1.5)), None);
        assert_eq!(retry_after(b"\xff\xff"), None);
        assert_eq!(retry_after(b""), None);
    }

    fn failed(operation: Operation, code: Code, replies: Replies) -> ModalError {
        let refusal = Refusal::new(operation, &Status::new(code, "no\u{7} as-0123456789\nat all"), ["as-0123456789"]);
        ModalError::Call { operation, subject: "sr-1".to_owned(), refusal, replies }
    }

    #[test]
    fn a_message_is_one_line_without_the_secret() {
        let failure = CallFailure::from(failed(Operation::CREATE_V2, Code::ResourceExhausted, Replies::All));
        assert_eq!(failure.message, "cannot create sandbox sr-1: resource_exhausted: no  [redacted] at all");
        assert_eq!(failure.class, ErrorClass::RateLimited);
        let error = failed(Operation::CREATE_V2, Code::InvalidArgument, Replies::All).without(["no", "  [redacted]"]);
        assert_eq!(ErrorChain(&error).to_string(), "cannot create sandbox sr-1: invalid_argument: no[redacted] at all");
    }

    #[test]
    fn a_lost_reply_makes_the_end_of_a_create_unknown_but_not_of_a_read() {
        let class = |operation, code| failed(operation, code, Replies::SomeLost).class();
        assert_eq!(class(Operation::CREATE_V2, Code::ResourceExhausted), ErrorClass::Unavailable);
        assert_eq!(class(Operation::WAIT_V2, Code::NotFound), ErrorClass::NotFound);
        assert_eq!(failed(Operation::CREATE_V1, Code::AlreadyExists, Replies::All).class(), ErrorClass::Conflict);
        assert!(class(Operation::CREATE_V1, Code::Unknown).may_have_taken_effect());
    }

    #[test]
    fn what_the_token_service_lacks_is_not_what_was_asked_for() {
        let class = |code| failed(Operation::AUTHENTICATE, code, Replies::All).class();
        for code in [Code::NotFound, Code::AlreadyExists, Code::Unavailable] {
            assert_eq!(class(code), ErrorClass::Unsent, "{code:?}");
        }
        assert_eq!(class(Code::Unauthenticated), ErrorClass::Unauthorized);
    }

    #[test]
    fn a_denied_create_is_not_put_down_to_the_token_alone() {
        let told = |operation| ErrorChain(&failed(operation, Code::PermissionDenied, Replies::All)).to_string();
        for create in [Operation::CREATE_V1, Operation::CREATE_V2] {
            assert!(told(create).contains("or the workspace may not use what the class asks for"), "{}", told(create));
        }
        assert!(told(Operation::LIST).ends_with("(give Modal's token access to this environment)"));
    }

    #[test]
    fn a_refused_client_is_told_what_to_change() {
        let hello = failed(Operation::HELLO, Code::FailedPrecondition, Replies::All);
        assert!(
            ErrorChain(&hello).to_string().ends_with("(Modal refuses this client: set a newer Modal client version)")
        );
        let create = failed(Operation::CREATE_V2, Code::FailedPrecondition, Replies::All);
        assert!(!ErrorChain(&create).to_string().contains("version"));
    }
}
