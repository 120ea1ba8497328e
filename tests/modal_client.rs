//! The Modal client against the simulated Modal, in process under tokio's paused clock; and against
//! addresses where nothing or nobody answers, over loopback.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "modal_client/auth.rs"]
mod auth;
#[path = "modal_client/billing.rs"]
mod billing;
#[path = "modal_client/failures.rs"]
mod failures;
#[path = "modal_client/images.rs"]
mod images;
#[path = "modal_client/official.rs"]
mod official;
#[path = "modal_client/sandboxes.rs"]
mod sandboxes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta};
use sandrunner::clock::Clock;
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::ids::{AppId, ImageId};
use sandrunner::modal::{self, ImageDefinition, ModalReader, ModalSettings, ModalWriter, SandboxNetwork, SandboxSpec};
use sandrunner::sim::{self, Fault, FaultMode, Operation, Profile, Scenario, What, World};
use sandrunner::state::Reading;
use tokio::net::TcpListener;

/// A calm World whose Modal answers at once, and a client of it.
struct Sim {
    world: World,
    clock: Clock,
    reader: ModalReader,
    writer: ModalWriter,
}

impl Sim {
    fn new() -> Self {
        Self::with(settings("http://modal.invalid".to_owned()))
    }

    fn with(settings: ModalSettings) -> Self {
        let clock = Clock::scaled(DateTime::from_timestamp(1_780_000_000, 0).unwrap(), 1.0);
        let profile = Profile { modal_latency_secs: 0.0, ..Profile::calm() };
        let world = World::new(profile, Scenario::default(), 7, clock.clone());
        let (reader, writer) = modal::connect_with_service(world.modal_service(), settings, clock.clone()).unwrap();
        Self { world, clock, reader, writer }
    }

    /// The same with an App and an image in it.
    async fn prepared() -> (Self, SandboxSpec) {
        let sim = Self::new();
        let app = sim.writer.ensure_app().await.unwrap();
        let definition = ImageDefinition::registry_layers("ubuntu:24.04").unwrap();
        let image = modal::build(&sim.writer, &app, &definition, |_| ()).await.unwrap();
        let spec = spec(app, image);
        (sim, spec)
    }

    fn fault(&self, fault: Fault) {
        self.world.add_fault(fault).unwrap();
    }

    /// Makes the next `times` calls fail with a gRPC code, without an effect.
    fn fail(&self, operation: Operation, code: tonic::Code, times: u32) {
        let status = u16::try_from(i32::from(code)).unwrap();
        self.fault(Fault { times, status: Some(status), ..Fault::new(operation, FaultMode::Error) });
    }

    /// How often an operation was called.
    fn calls(&self, of: Operation) -> usize {
        self.count(|what| matches!(what, What::Call { operation, .. } if *operation == of))
    }

    fn created(&self) -> usize {
        self.count(|what| matches!(what, What::SandboxCreated { .. }))
    }

    fn count(&self, is_meant: impl Fn(&What) -> bool) -> usize {
        self.world.history(0).iter().filter(|event| is_meant(&event.what)).count()
    }

    /// Runs `work` and tells how long it took on the World's clock.
    async fn timed<T>(&self, work: impl Future<Output = T>) -> (T, TimeDelta) {
        let began = self.clock.now();
        let result = work.await;
        (result, self.clock.now() - began)
    }
}

fn settings(server_url: String) -> ModalSettings {
    ModalSettings { server_url, ..ModalSettings::new("ak-sim".into(), "as-sim-secret".into(), "sandrunner") }
}

/// A sandbox that lives for an hour: without a JIT config no runner starts in it.
fn spec(app: AppId, image: ImageId) -> SandboxSpec {
    SandboxSpec {
        app,
        name: "sr-main-gh-7-1".to_owned(),
        image,
        entrypoint: vec!["/bin/bash".to_owned(), "-c".to_owned(), "true".to_owned()],
        env: vec![("TOKEN".to_owned(), "very-secret-value".into())],
        secret_ids: Vec::new(),
        tags: BTreeMap::from([("deployment".to_owned(), "main".to_owned()), ("job".to_owned(), "7".to_owned())]),
        cpu: 2.0,
        cpu_limit: None,
        memory_mib: 4096,
        memory_limit_mib: None,
        gpu: None,
        timeout: Duration::from_secs(3600),
        regions: Vec::new(),
        workdir: None,
        runtime: None,
        network: SandboxNetwork::Open,
        volumes: Vec::new(),
        experimental: BTreeMap::new(),
    }
}

/// Within the few milliseconds by which a timer is late.
fn is_about(elapsed: TimeDelta, expected: f64) -> bool {
    (elapsed.as_seconds_f64() - expected).abs() < 0.05
}

#[tokio::test]
async fn a_connection_that_is_reset_is_made_again_and_a_lost_create_adopted() {
    let world = World::new(Profile::calm(), Scenario::default(), 7, fast_clock());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let servers = sim::serve(world.clone(), any, any).await.unwrap();
    let (reader, writer) =
        modal::connect(settings(format!("http://{}", servers.modal())), world.clock().clone()).unwrap();
    world.add_fault(Fault::new(Operation::Hello, FaultMode::Cut)).unwrap();
    reader.hello().await.unwrap();
    let app = writer.ensure_app().await.unwrap();
    let definition = ImageDefinition::registry_layers("ubuntu:24.04").unwrap();
    let spec = spec(app.clone(), modal::build(&writer, &app, &definition, |_| ()).await.unwrap());
    world.add_fault(Fault::new(Operation::Create, FaultMode::CutAfter)).unwrap();
    assert_eq!(writer.create_sandbox(&spec).await.unwrap().origin, modal::Origin::Adopted);
    world.add_fault(Fault { times: 4, ..Fault::new(Operation::App, FaultMode::Cut) }).unwrap();
    assert_eq!(reader.lookup_app().await.unwrap_err().class(), ErrorClass::Unavailable);
    assert_eq!(reader.lookup_app().await.unwrap(), Some(app));
    servers.shutdown().await.unwrap();
}

#[tokio::test]
async fn over_a_socket_everything_is_the_same() {
    let world = World::new(Profile::calm(), Scenario::default(), 7, fast_clock());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let servers = sim::serve(world.clone(), any, any).await.unwrap();
    let settings = settings(format!("http://{}", servers.modal()));
    let (reader, writer) = modal::connect(settings, world.clock().clone()).unwrap();
    reader.hello().await.unwrap();
    let app = writer.ensure_app().await.unwrap();
    let definition = ImageDefinition::registry_layers("ubuntu:24.04").unwrap();
    let image = modal::build(&writer, &app, &definition, |_| ()).await.unwrap();
    let spec = spec(app, image);
    let id = writer.create_sandbox(&spec).await.unwrap().id;
    let Reading::Known(listed) = reader.list_sandboxes(&spec.app, &spec.tags).await else {
        panic!("nothing went wrong")
    };
    assert_eq!(listed.iter().map(|sandbox| &sandbox.id).collect::<Vec<_>>(), [&id]);
    writer.terminate(&id).await.unwrap();
    servers.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_an_outage_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (reader, _) = modal::connect(settings(url.clone()), Clock::system()).unwrap();
    let failure = CallFailure::from(reader.hello().await.unwrap_err());
    assert_eq!(failure.class, ErrorClass::Unsent);
    assert!(failure.message.starts_with(&format!("cannot authenticate with Modal at {url}: ")), "{failure}");
    assert!(!failure.message.contains("as-sim-secret"), "{failure}");
}

/// A fast clock shortens the deadlines of sockets to no less than 5 s of real time, which is one attempt.
fn fast_clock() -> Clock {
    Clock::scaled(DateTime::UNIX_EPOCH, 60.0)
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
async fn a_server_that_never_speaks_fails_the_call_within_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (reader, _) = modal::connect(settings(url), fast_clock()).unwrap();
    let began = Instant::now();
    let failure = CallFailure::from(reader.hello().await.unwrap_err());
    assert_eq!(failure.class, ErrorClass::Unsent, "{failure}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_tls_handshake_that_stalls_does_not_block_the_next_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let clock = fast_clock();
    let (reader, _) = modal::connect(settings(url), clock.clone()).unwrap();
    for _ in 0..2 {
        let failure = CallFailure::from(reader.hello().await.unwrap_err());
        assert_eq!(failure.class, ErrorClass::Unsent, "{failure}");
        // The longest wait after a failed authentication, during which calls fail without being sent.
        clock.sleep(Duration::from_secs(60)).await;
    }
    let mut connections = 0;
    while let Ok(accepted) = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await {
        accepted.unwrap();
        connections += 1;
    }
    assert!(connections >= 2, "the second call waited for the first one's handshake");
}
