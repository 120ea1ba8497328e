//! Modal's side of the World: the gRPC calls that Sandrunner and the official clients use.

mod about;
mod billing;
mod builds;
mod calls;
mod endpoint;
mod faults;
mod listing;
mod memory;
mod objects;
mod sandbox_calls;
mod workspace;

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::client::Caller;
use super::fault::FaultMode;
use super::history::{LimitKind, Operation, Service, What, fingerprint};
use super::world::{State, World};
use crate::modal::api;
use crate::modal::api::modal_client_server::ModalClientServer;
use about::{About, Subject};

pub use endpoint::ModalEndpoint;
pub(super) use listing::Bend;
pub(super) use memory::Answers;
pub(super) use objects::Objects;

use endpoint::Fate;

/// The largest message, as the official clients set it.
const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;

/// Modal's calls, each carried out on a World.
#[derive(Debug, Clone)]
pub(in crate::sim) struct ModalService {
    world: World,
}

/// Modal's side of a World.
pub(super) fn endpoint(world: World) -> ModalEndpoint {
    let server = ModalClientServer::new(ModalService { world })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    ModalEndpoint::new(server)
}

/// Whether a call needs the auth token beside the token pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auth {
    Pair,
    PairAndToken,
}

/// Which page of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    First,
    Later,
}

/// A call before it is carried out.
#[derive(Debug, Clone, Copy)]
struct Call {
    operation: Operation,
    auth: Auth,
    page: Page,
}

impl Call {
    fn plain(operation: Operation) -> Self {
        Self { operation, auth: Auth::Pair, page: Page::First }
    }

    fn of_v2(operation: Operation) -> Self {
        Self { auth: Auth::PairAndToken, ..Self::plain(operation) }
    }
}

/// How a call ends, how much longer than usual that takes, and what becomes of its answer.
struct Outcome<T> {
    result: Result<T, Status>,
    delay_secs: f64,
    limited: Option<LimitKind>,
    fate: Fate,
    warning: Option<&'static str>,
}

impl<T> Outcome<T> {
    fn of(result: Result<T, Status>) -> Self {
        Self { result, delay_secs: 0.0, limited: None, fate: Fate::default(), warning: None }
    }

    /// The answer, with marks for what becomes of it on its way.
    fn sent(self) -> Result<Response<T>, Status> {
        let mut answer = self.result.map(Response::new);
        let metadata = match &mut answer {
            Ok(response) => response.metadata_mut(),
            Err(status) => status.metadata_mut(),
        };
        self.fate.mark(metadata);
        if let Some(warning) = self.warning {
            endpoint::warn(metadata, warning);
        }
        answer
    }
}

impl ModalService {
    /// Carries out a call: credentials, faults, the call itself, its line in the history, its latency.
    async fn call<Q, A>(
        &self,
        call: Call,
        request: Request<Q>,
        carry_out: impl FnOnce(&mut State, Q) -> Result<A, Status> + Send + 'static,
    ) -> Result<Response<A>, Status>
    where
        Q: Subject + Send + 'static,
        A: Clone + Default + Send + 'static,
    {
        let latency = Duration::from_secs_f64(self.world.with(|state| state.profile.modal_latency_secs));
        let (metadata, extensions, message) = request.into_parts();
        let passage = Caller::of(&extensions).sends(&self.world, call.operation).await;
        self.world.clock().sleep(latency / 2).await;
        let about = message.about();
        let outcome =
            passage.with(|state| state.answer_modal((call, about), &metadata, move |state| carry_out(state, message)));
        passage.applied().await;
        self.world.clock().sleep(latency / 2 + Duration::from_secs_f64(outcome.delay_secs)).await;
        passage.replied().await;
        outcome.sent()
    }
}

impl State {
    fn answer_modal<A: Clone + Default + Send + 'static>(
        &mut self,
        (call, about): (Call, About),
        metadata: &MetadataMap,
        carry_out: impl FnOnce(&mut Self) -> Result<A, Status> + Send + 'static,
    ) -> Outcome<A> {
        self.rows_listed = 0;
        let token = header(metadata, "x-modal-token-id").unwrap_or_default();
        let key = header(metadata, "x-idempotency-key").map(|key| (call.operation, key.to_owned()));
        let carry_out = move |state: &mut Self| state.carry_out_once(key, carry_out);
        let mut outcome = match self.authenticated(call, metadata) {
            Err(refused) => Outcome::of(Err(refused)),
            Ok(()) => match self.strike_where(call.operation, "", |state, mode| state.can_strike_modal(call, mode)) {
                None => Outcome::of(carry_out(self)),
                Some(strike) if strike.mode == FaultMode::TokensExpired => {
                    self.expire_auth_tokens();
                    Outcome::of(self.authenticated(call, metadata).and_then(|()| carry_out(self)))
                }
                Some(strike) => self.struck_modal(strike, carry_out),
            },
        };
        let code = outcome.result.as_ref().err().map_or(Code::Ok, Status::code);
        outcome.limited = outcome.limited.or_else(|| limit_of(outcome.result.as_ref().err()?));
        self.record(What::Call {
            service: Service::Modal,
            operation: call.operation,
            status: u16::try_from(i32::from(code)).unwrap_or_default(),
            points: 0,
            token: fingerprint(token).into(),
            limited: outcome.limited,
            subject: String::new(),
            client: self.caller,
            target: about.target,
            wait_secs: outcome.result.as_ref().err().and_then(wait_asked),
            delay_secs: outcome.delay_secs,
            page: about.page,
            more: code == Code::Ok && self.rows_listed > 0,
            quota: None,
        });
        outcome
    }

    fn authenticated(&self, call: Call, metadata: &MetadataMap) -> Result<(), Status> {
        let is_given = |name| header(metadata, name).is_some_and(|value| !value.is_empty());
        if !is_given("x-modal-token-id") || !is_given("x-modal-token-secret") {
            return Err(Status::unauthenticated("missing token: set x-modal-token-id and x-modal-token-secret"));
        }
        if !is_given("x-modal-client-type") || !is_given("x-modal-client-version") {
            return Err(Status::failed_precondition("Old client: x-modal-client-type or -version is missing"));
        }
        let is_valid = || header(metadata, "x-modal-auth-token").is_some_and(|token| self.is_auth_token(token));
        if call.auth == Auth::PairAndToken && !is_valid() {
            return Err(Status::unauthenticated("missing or expired auth token: x-modal-auth-token"));
        }
        Ok(())
    }
}

/// The limit that a refusal speaks of: only the rate says how long to wait.
fn limit_of(status: &Status) -> Option<LimitKind> {
    let kind = if status.details().is_empty() { LimitKind::Capacity } else { LimitKind::Creates };
    (status.code() == Code::ResourceExhausted).then_some(kind)
}

fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).and_then(|value| value.to_str().ok())
}

/// `RESOURCE_EXHAUSTED` with the time to wait in its details, as the official clients read it.
fn throttled(secs: f64, per_second: f64) -> Status {
    use prost::Message as _;

    let message = format!("Sandbox creation rate limit ({per_second}/s) exceeded");
    #[expect(clippy::cast_possible_truncation, reason = "the wire has a float")]
    let policy = api::RpcRetryPolicy { retry_after_secs: secs as f32 };
    let detail = prost_types::Any {
        type_url: "type.modal.com/modal.client.RPCRetryPolicy".to_owned(),
        value: policy.encode_to_vec(),
    };
    let status =
        api::RpcStatus { code: Code::ResourceExhausted.into(), message: message.clone(), details: vec![detail] };
    Status::with_details(Code::ResourceExhausted, message, status.encode_to_vec().into())
}

/// How long a status asks to wait.
fn wait_asked(status: &Status) -> Option<f64> {
    use prost::Message as _;

    let details = api::RpcStatus::decode(status.details()).ok()?.details;
    let policy = details.iter().find(|detail| detail.type_url.ends_with("RPCRetryPolicy"))?;
    let policy = api::RpcRetryPolicy::decode(policy.value.as_slice()).ok()?;
    Some(f64::from(policy.retry_after_secs))
}

/// What the streaming calls return.
type Stream<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;
type LogStream = Stream<api::ImageJoinStreamingResponse>;
type BillStream = Stream<api::WorkspaceBillingReportItem>;
