//! `POST /webhooks/github`: takes deliveries, answers at once, and passes on where to look sooner.
//!
//! It is there only where a secret is configured. How much is read, for how long and of how many at a time is
//! bounded before anything is verified; what was verified is remembered, so that a delivery counts once.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use metrics::counter;
use tokio::sync::{Semaphore, mpsc};

use super::webhook::{self, Hint, LONGEST_BODY, Nudge, Refused, Secrets};

/// The metric that counts deliveries; label `result`.
pub(crate) const DELIVERIES: &str = "sandrunner_webhook_deliveries_total";

/// What becomes of deliveries, for metrics that show zero.
const RESULTS: [&str; 12] = [
    "nudged",
    "ping",
    "other",
    "again",
    "overloaded",
    "signature",
    "too_long",
    "slow",
    "cut_off",
    "content_type",
    "header",
    "body",
];

/// Deliveries that are remembered (0.2 MB): a redelivery of an older one only makes a reading come sooner.
const REMEMBERED: usize = 10_000;
/// How long a body may take to arrive. GitHub waits ten seconds for the whole answer.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Long bodies read at a time; together they are at most so many times [`LONGEST_BODY`].
const BODIES: usize = 16;
/// A body that is no longer needs no room among them, so that long ones that never end keep none of GitHub's out. The
/// number of connections bounds how many there are.
const SHORT_BODY: u64 = 64 * 1024;

/// Where deliveries go.
#[derive(Debug)]
pub struct Endpoint {
    secrets: Secrets,
    nudges: mpsc::Sender<Hint>,
    bodies: Semaphore,
    known: Mutex<Deliveries>,
}

/// Why a delivery of GitHub's came to nothing, or that it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It made a reading due.
    Nudged,
    /// It was GitHub's first one, or of an event that tells nothing.
    Noted,
    /// It came before.
    Again,
    /// There are more than can be looked at; GitHub shows it as failed, and nothing is lost but time.
    Full,
}

impl Endpoint {
    /// Passes what it takes on to `nudges`.
    pub fn new(secrets: Secrets, nudges: mpsc::Sender<Hint>) -> Self {
        for result in RESULTS {
            counter!(DELIVERIES, "result" => result).absolute(0);
        }
        Self { secrets, nudges, bodies: Semaphore::new(BODIES), known: Mutex::default() }
    }

    /// The endpoint as a router of its own.
    pub(super) fn router(self) -> Router {
        Router::new().route("/webhooks/github", post(deliver)).with_state(Arc::new(self))
    }

    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<webhook::Delivery, Response> {
        // A forged request need not be read to be refused where it does not even look signed.
        if !webhook::looks_signed(headers) {
            return Err(refuse(Refused::Signature));
        }
        let is_short = body.size_hint().upper().is_some_and(|length| length <= SHORT_BODY);
        let _permit = if is_short { None } else { Some(self.bodies.try_acquire().map_err(|_| overloaded())?) };
        let body = match tokio::time::timeout(READ_LIMIT, Limited::new(body, LONGEST_BODY).collect()).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(refuse(Refused::TooLong)),
            Ok(Err(_)) => return Err(told(StatusCode::BAD_REQUEST, "cut_off", "the body was cut off")),
            Err(_) => return Err(told(StatusCode::REQUEST_TIMEOUT, "slow", "the body did not arrive in time")),
        };
        self.verify(headers, &body).map_err(refuse)
    }

    fn verify(&self, headers: &HeaderMap, body: &Bytes) -> Result<webhook::Delivery, Refused> {
        webhook::read(&self.secrets, headers, body)
    }

    fn take(&self, delivery: webhook::Delivery) -> Taken {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&delivery.id) {
            return Taken::Again;
        }
        let taken = match delivery.nudge {
            Nudge::Jobs(hint) => match self.nudges.try_send(hint) {
                Ok(()) => Taken::Nudged,
                Err(_) => return Taken::Full,
            },
            Nudge::Ping | Nudge::Other => Taken::Noted,
        };
        known.remember(&delivery.id);
        taken
    }
}

async fn deliver(State(endpoint): State<Arc<Endpoint>>, headers: HeaderMap, body: Body) -> Response {
    let delivery = match endpoint.read(&headers, body).await {
        Ok(delivery) => delivery,
        Err(response) => return response,
    };
    let is_ping = delivery.nudge == Nudge::Ping;
    match endpoint.take(delivery) {
        Taken::Nudged => told(StatusCode::ACCEPTED, "nudged", "the run is looked at"),
        Taken::Noted if is_ping => told(StatusCode::OK, "ping", "the webhook works"),
        Taken::Noted => told(StatusCode::ACCEPTED, "other", "nothing to do for this event"),
        Taken::Again => told(StatusCode::ACCEPTED, "again", "this delivery came before"),
        Taken::Full => overloaded(),
    }
}

fn refuse(refused: Refused) -> Response {
    told(refused.status(), refused.as_str(), &refused.to_string())
}

fn overloaded() -> Response {
    told(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many deliveries at a time")
}

fn told(status: StatusCode, result: &'static str, text: &str) -> Response {
    counter!(DELIVERIES, "result" => result).increment(1);
    (status, format!("{text}\n")).into_response()
}

/// The deliveries that were taken, the newest ones.
#[derive(Debug, Default)]
struct Deliveries {
    hasher: RandomState,
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl Deliveries {
    fn contains(&self, id: &str) -> bool {
        self.known.contains(&self.hasher.hash_one(id))
    }

    fn remember(&mut self, id: &str) {
        let id = self.hasher.hash_one(id);
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use hmac::{Hmac, Mac};
    use sha2::Sha256;
    use tower::ServiceExt;

    use super::*;

    const SECRET: &str = "It's a Secret to Everybody";
    const JOB: &str = r#"{"workflow_job":{"run_id":77},"repository":{"full_name":"acme/web"}}"#;

    struct Hook {
        router: Router,
        heard: mpsc::Receiver<Hint>,
    }

    impl Hook {
        fn new(room: usize) -> Self {
            let (nudges, heard) = mpsc::channel(room);
            Self { router: Endpoint::new(Secrets::new(SECRET.into(), None), nudges).router(), heard }
        }

        async fn post(&self, delivery: &str, event: &str, signed_with: &str, body: impl Into<Body>) -> StatusCode {
            let mac = Hmac::<Sha256>::new_from_slice(signed_with.as_bytes()).unwrap().chain_update(JOB);
            let request = Request::post("/webhooks/github")
                .header("x-hub-signature-256", format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
                .header("x-github-event", event)
                .header("x-github-delivery", delivery)
                .header("content-type", "application/json")
                .body(body.into())
                .unwrap();
            self.router.clone().oneshot(request).await.unwrap().status()
        }

        fn nudges(&mut self) -> usize {
            std::iter::from_fn(|| self.heard.try_recv().ok()).count()
        }
    }

    #[tokio::test]
    async fn a_delivery_nudges_once_however_often_it_comes() {
        let mut hook = Hook::new(8);
        for _ in 0..3 {
            assert_eq!(hook.post("a", "workflow_job", SECRET, JOB).await, 202);
        }
        assert_eq!(hook.nudges(), 1);
        assert_eq!(hook.post("b", "workflow_job", SECRET, JOB).await, 202);
        assert_eq!(hook.nudges(), 1);
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_a_forged_delivery_does_nothing() {
        let mut hook = Hook::new(8);
        assert_eq!(hook.post("a", "ping", SECRET, JOB).await, 200);
        assert_eq!(hook.post("b", "workflow_job", "another", JOB).await, 401);
        assert_eq!(hook.post("b", "push", SECRET, JOB).await, 202);
        assert_eq!(hook.nudges(), 0);
    }

    #[tokio::test]
    async fn a_delivery_that_could_not_be_taken_may_come_again() {
        let mut hook = Hook::new(1);
        assert_eq!(hook.post("a", "workflow_job", SECRET, JOB).await, 202);
        assert_eq!(hook.post("b", "workflow_job", SECRET, JOB).await, 503);
        assert_eq!(hook.nudges(), 1);
        assert_eq!(hook.post("b", "workflow_job", SECRET, JOB).await, 202);
        assert_eq!(hook.nudges(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_long_or_never_ends_is_given_up() {
        let hook = Hook::new(1);
        let long = vec![b' '; LONGEST_BODY + 1];
        assert_eq!(hook.post("a", "ping", SECRET, long).await, 413);
        let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(hook.post("a", "ping", SECRET, Body::from_stream(endless)).await, 408);
        let cut = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
        assert_eq!(hook.post("a", "ping", SECRET, Body::from_stream(cut)).await, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_bodies_than_there_is_room_for_are_read_at_a_time() {
        let hook = Hook::new(1);
        let endless = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let posts = (0..BODIES + 3).map(|_| hook.post("a", "ping", SECRET, endless()));
        let statuses = futures::future::join_all(posts).await;
        let refused = statuses.iter().filter(|status| **status == StatusCode::SERVICE_UNAVAILABLE).count();
        assert_eq!((refused, statuses.len()), (3, BODIES + 3));
        let long = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(JOB))]);
        assert_eq!(hook.post("a", "ping", SECRET, Body::from_stream(long)).await, 200, "they make room again");
    }

    #[tokio::test(start_paused = true)]
    async fn long_bodies_that_never_end_keep_no_short_one_out() {
        let hook = Hook::new(1);
        let endless = || Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let long = futures::future::join_all((0..=BODIES).map(|_| hook.post("a", "ping", SECRET, endless())));
        let (long, short) = tokio::join!(long, hook.post("b", "ping", SECRET, JOB));
        assert_eq!(
            (long[0], long[BODIES], short),
            (StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Deliveries::default();
        for id in 0..REMEMBERED + 5 {
            known.remember(&id.to_string());
            known.remember(&id.to_string());
        }
        assert_eq!((known.order.len(), known.known.len()), (REMEMBERED, REMEMBERED));
        assert!(!known.contains("4") && known.contains("5"));
    }
}
