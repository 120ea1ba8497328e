//! Processes that call a World without a socket, or over one of their own: told apart, and killed between any two steps of a call.
//!
//! A [`Client`] is one process. Its calls carry its number, so that faults can concern it alone and the history
//! tells who called. Where a [`Crash`] is due, the process is dead from that step on: the call and all its further
//! ones are never answered nor applied, and whoever runs it learns of it by [`Client::died`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use http::{Extensions, Request, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tower::{Service, ServiceExt};

use super::fault::Mishap;
use super::history::{Operation, What};
use super::world::{State, World};

listed_enum! {
    /// The step of a call at which a process is killed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum CrashPhase {
        /// It is not sent.
        BeforeSend,
        /// It is applied, and nobody is there to take the answer.
        AfterApplied,
        /// Its answer has come, and nothing was done with it that another call would show.
        AfterReply,
    }
}

/// A process is killed at one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// The process.
    pub client: u32,
    /// The call, or any call of a service; absent means any call.
    pub operation: Option<Operation>,
    /// Which of those calls, from 1, counted from when this is put in.
    pub nth: u32,
    /// The step.
    pub phase: CrashPhase,
}

/// A process that calls the World in process. A clone is the same process.
#[derive(Debug, Clone)]
pub struct Client {
    world: World,
    caller: Caller,
}

impl World {
    /// A process with the number `client`, which must not be 0. The same number again is its next life.
    ///
    /// # Panics
    /// For the number 0, which stands for whoever has none.
    pub fn client(&self, client: u32) -> Client {
        assert!(client > 0, "0 stands for calls of no known process");
        Client { world: self.clone(), caller: Caller { number: client, life: Arc::default() } }
    }

    /// Kills a process at one of its calls to come.
    pub fn crash_at(&self, crash: Crash) {
        self.with(|state| state.crashes.push(crash));
    }

    /// How many crashes have not happened yet.
    pub fn crashes_left(&self) -> usize {
        self.with(|state| state.crashes.len())
    }
}

impl Client {
    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// GitHub's side as this process reaches it.
    pub fn github_service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + use<> {
        let caller = self.caller.clone();
        self.world.github_service().map_request(move |request| caller.calls(request))
    }

    /// Modal's side as this process reaches it.
    pub fn modal_service(
        &self,
    ) -> impl Service<
        Request<tonic::body::Body>,
        Response = Response<tonic::body::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + use<> {
        let caller = self.caller.clone();
        self.world.modal_service().map_request(move |request| caller.calls(request))
    }

    /// Waits until the process is killed.
    pub async fn died(&self) {
        if !self.caller.life.is_over.load(Ordering::Relaxed) {
            self.caller.life.ended.notified().await;
        }
    }
}

/// Who makes a call; by default nobody that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    pub(super) number: u32,
    life: Arc<Life>,
}

#[derive(Debug, Default)]
struct Life {
    is_over: AtomicBool,
    ended: Notify,
}

impl Caller {
    /// Whoever a request says it comes from.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Makes a call one of its own.
    pub(super) fn calls<B>(&self, mut request: Request<B>) -> Request<B> {
        request.extensions_mut().insert(self.clone());
        request
    }

    /// A call sets out. Never returns where its process is dead or dies of it.
    pub(super) async fn sends(self, world: &World, operation: Operation) -> Passage {
        let crash = world.with(|state| state.crash(&self, operation));
        let passage = Passage { caller: self, world: world.clone(), operation, crash };
        passage.reaches(CrashPhase::BeforeSend).await;
        passage
    }
}

/// A call on its way.
#[derive(Debug)]
pub(super) struct Passage {
    caller: Caller,
    world: World,
    operation: Operation,
    crash: Option<CrashPhase>,
}

impl Passage {
    /// Looks at the state on the caller's behalf.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.world.with(|state| {
            state.caller = self.caller.number;
            let seen = look(state);
            state.caller = 0;
            seen
        })
    }

    /// It was applied. Never returns where its process is dead or dies now.
    pub(super) async fn applied(&self) {
        self.reaches(CrashPhase::AfterApplied).await;
    }

    /// Its answer arrives. Never returns where its process is dead; where it dies now, the answer still arrives.
    pub(super) async fn replied(&self) {
        if self.crash == Some(CrashPhase::AfterReply) && !self.is_dead() {
            return self.kill(CrashPhase::AfterReply);
        }
        self.reaches(CrashPhase::AfterReply).await;
    }

    async fn reaches(&self, phase: CrashPhase) {
        if self.crash == Some(phase) && !self.is_dead() {
            self.kill(phase);
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    fn is_dead(&self) -> bool {
        self.caller.life.is_over.load(Ordering::Relaxed)
    }

    fn kill(&self, phase: CrashPhase) {
        let (client, operation) = (self.caller.number, self.operation);
        self.world.with(|state| state.record(What::ClientKilled { client, operation, phase }));
        self.caller.life.is_over.store(true, Ordering::Relaxed);
        self.caller.life.ended.notify_one();
    }
}

impl State {
    /// Counts a call of a process and tells at which step of it the process dies.
    fn crash(&mut self, caller: &Caller, operation: Operation) -> Option<CrashPhase> {
        let client = caller.number;
        let crash = if client > 0 { self.crash_at(client, operation) } else { None };
        if crash.is_some() || caller.life.is_over.load(Ordering::Relaxed) {
            return crash;
        }
        // One without a number is killed by whoever runs it, a moment later.
        let is_killed = self.befall(client, operation).is_some_and(|mishap| mishap != Mishap::SecondController);
        (is_killed && client > 0).then_some(CrashPhase::BeforeSend)
    }

    fn crash_at(&mut self, client: u32, operation: Operation) -> Option<CrashPhase> {
        let is_meant = |crash: &Crash| {
            let wanted = crash.operation;
            crash.client == client && (wanted.is_none() || wanted == Some(operation) || wanted == operation.group())
        };
        let mut due = None;
        for (index, crash) in self.crashes.iter_mut().enumerate().filter(|(_, crash)| is_meant(crash)) {
            crash.nth = crash.nth.saturating_sub(1);
            if crash.nth == 0 && due.is_none() {
                due = Some(index);
            }
        }
        due.map(|index| self.crashes.remove(index).phase)
    }
}
