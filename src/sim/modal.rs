//! Modal's side of the World: the gRPC calls that Sandrunner and the official clients use.

mod calls;
mod objects;
mod sandbox_calls;

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::client::Caller;
use super::draws::Purpose;
use super::fault::{FaultMode, LATE_SECS, SLOW_SECS, Strike};
use super::history::{LimitKind, Operation, Service, What, fingerprint};
use super::jobs::Time;
use super::world::{State, World};
use crate::modal::api;
use crate::modal::api::modal_client_server::ModalClientServer;

pub(super) use objects::Objects;

/// The largest message, as the official clients set it.
const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;
/// How long a throttled create is asked to wait where a fault does not say.
const THROTTLE_SECS: f64 = 1.5;

/// Modal's side of a World as a tower service.
#[derive(Debug, Clone)]
pub struct ModalService {
    world: World,
}

impl ModalService {
    pub(super) fn new(world: World) -> Self {
        Self { world }
    }

    pub(super) fn server(world: World) -> ModalClientServer<Self> {
        ModalClientServer::new(Self::new(world))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// Whether a call needs the auth token beside the token pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auth {
    Pair,
    PairAndToken,
}

/// A call before it is carried out.
#[derive(Debug, Clone, Copy)]
struct Call {
    operation: Operation,
    auth: Auth,
}

impl Call {
    fn plain(operation: Operation) -> Self {
        Self { operation, auth: Auth::Pair }
    }

    fn of_v2(operation: Operation) -> Self {
        Self { operation, auth: Auth::PairAndToken }
    }
}

/// How a call ends, and how much longer than usual that takes.
struct Outcome<T> {
    result: Result<T, Status>,
    delay_secs: f64,
    limited: Option<LimitKind>,
}

impl<T> Outcome<T> {
    fn of(result: Result<T, Status>) -> Self {
        Self { result, delay_secs: 0.0, limited: None }
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
        Q: Send + 'static,
        A: Default + Send,
    {
        let latency = Duration::from_secs_f64(self.world.with(|state| state.profile.modal_latency_secs));
        let (metadata, extensions, message) = request.into_parts();
        let passage = Caller::of(&extensions).sends(&self.world, call.operation).await;
        self.world.clock().sleep(latency / 2).await;
        let outcome = passage.with(|state| state.answer_modal(call, &metadata, move |state| carry_out(state, message)));
        passage.applied().await;
        self.world.clock().sleep(latency / 2 + Duration::from_secs_f64(outcome.delay_secs)).await;
        passage.replied().await;
        outcome.result.map(Response::new)
    }
}

impl State {
    fn answer_modal<A: Default>(
        &mut self,
        call: Call,
        metadata: &MetadataMap,
        carry_out: impl FnOnce(&mut Self) -> Result<A, Status> + Send + 'static,
    ) -> Outcome<A> {
        let token = header(metadata, "x-modal-token-id").unwrap_or_default();
        let mut outcome = match self.authenticated(call, metadata) {
            Err(refused) => Outcome::of(Err(refused)),
            Ok(()) => match self.strike(call.operation, "") {
                None => Outcome::of(carry_out(self)),
                Some(strike) => self.struck_modal(strike, carry_out),
            },
        };
        let code = outcome.result.as_ref().err().map_or(Code::Ok, Status::code);
        if code == Code::ResourceExhausted && outcome.limited.is_none() {
            outcome.limited = Some(LimitKind::Creates);
        }
        self.record(What::Call {
            service: Service::Modal,
            operation: call.operation,
            status: u16::try_from(i32::from(code)).unwrap_or_default(),
            points: 0,
            token: fingerprint(token).into(),
            limited: outcome.limited,
            subject: String::new(),
            client: self.caller,
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
        let is_valid =
            || header(metadata, "x-modal-auth-token").is_some_and(|token| objects::is_valid(token, self.now));
        if call.auth == Auth::PairAndToken && !is_valid() {
            return Err(Status::unauthenticated("missing or expired auth token: x-modal-auth-token"));
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other modes apply to no call of Modal's")]
    fn struck_modal<A: Default>(
        &mut self,
        strike: Strike,
        carry_out: impl FnOnce(&mut Self) -> Result<A, Status> + Send + 'static,
    ) -> Outcome<A> {
        let delayed = |result, delay_secs| Outcome { result, delay_secs, limited: None };
        match strike.mode {
            FaultMode::Error => Outcome::of(Err(simulated(strike))),
            FaultMode::AppliedLate => {
                self.postpone(strike.seconds_or(LATE_SECS), |state| {
                    let _nobody_waits = carry_out(state);
                });
                Outcome::of(Err(simulated(strike)))
            }
            FaultMode::ReplyLost => {
                // What it answers is exactly what gets lost.
                let _lost = carry_out(self);
                delayed(Err(Status::unavailable("simulated fault: the answer was lost")), strike.seconds_or(0.0))
            }
            FaultMode::Slow => delayed(carry_out(self), strike.seconds_or(SLOW_SECS)),
            FaultMode::RateLimited => {
                let status = throttled(strike.seconds_or(THROTTLE_SECS), self.profile.modal_creates_per_second);
                Outcome { limited: Some(LimitKind::Injected), ..Outcome::of(Err(status)) }
            }
            FaultMode::Unauthorized => Outcome::of(Err(Status::unauthenticated("simulated fault: token revoked"))),
            FaultMode::NotFound => Outcome::of(Err(Status::not_found("simulated fault: not found"))),
            FaultMode::Empty => Outcome::of(Ok(A::default())),
            _ => Outcome::of(carry_out(self)),
        }
    }

    /// The moment that a list shows, which lies a little back.
    fn modal_list_moment(&mut self) -> Time {
        self.answers += 1;
        let lag = self.seed.stream(Purpose::ModalLag, self.answers).lag(self.profile.modal_list_lag_secs);
        self.now - lag
    }
}

fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).and_then(|value| value.to_str().ok())
}

/// The status of a fault: `UNAVAILABLE` where it does not say.
fn simulated(strike: Strike) -> Status {
    let code = strike.status.map_or(Code::Unavailable, |code| Code::from_i32(i32::from(code)));
    Status::new(code, "simulated fault")
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

/// What the streaming call returns.
type LogStream = tokio_stream::Iter<std::vec::IntoIter<Result<api::ImageJoinStreamingResponse, Status>>>;
