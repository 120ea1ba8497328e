//! The order of calls and their metadata, held against those of Modal's official clients in the same steps.
//!
//! The records are what `tests/conformance/client.py` and `client.mjs` did, as `tests/conformance/run --record` saw it
//! on the wire; ours is recorded in front of the simulated Modal. The create messages themselves are compared beside
//! `SandboxSpec`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::DateTime;
use sandrunner::clock::Clock;
use sandrunner::modal::{
    self, Generation, Gpu, ImageDefinition, ModalReader, ModalWriter, Mount, NameOf, RunnerContents, SandboxFate,
    SandboxSpec, Tools,
};
use sandrunner::sim::{Profile, Scenario, World};
use serde::Deserialize;
use tower::ServiceExt;

use super::{settings, spec};

const PYTHON: &str = include_str!("../data/modal-clients/python.json");
const JS: &str = include_str!("../data/modal-clients/js.json");

/// What every client does once, Python's before its first V2 call and the others' before any.
const AUTHENTICATE: &str = "AuthTokenGet";

const BOTH: &[&str] = &["python", "js"];

/// Where our calls or their metadata are not those of the clients, and why ours stay as they are.
const DEVIATIONS: [(&[&str], &str, &str); 21] = [
    (
        BOTH,
        "v1 create: theirs SecretGetOrCreate SandboxCreate SandboxGetTaskId, ours SecretGetOrCreate SandboxCreate",
        LISTED,
    ),
    (
        BOTH,
        "v1 successor: theirs SecretGetOrCreate SandboxCreate SandboxGetTaskId SandboxTerminate SandboxWait, \
         ours SecretGetOrCreate SandboxCreate SandboxTerminate SandboxWait",
        LISTED,
    ),
    (BOTH, "image by id: theirs ImageFromId, ours nothing", "one that exists is only built on, which finds it or not"),
    (BOTH, "v1 by name: theirs SandboxGetFromNameV2 SandboxGetFromName, ours SandboxGetFromName", ONE_LOOK),
    (
        BOTH,
        "v1 ended: theirs SandboxWait SandboxListV2 SandboxGetFromNameV2 SandboxGetFromName SandboxWait, \
         ours SandboxWait SandboxListV2 SandboxGetFromName SandboxWait",
        ONE_LOOK,
    ),
    (
        BOTH,
        "v2 ended: theirs SandboxWaitV2 SandboxListV2 SandboxGetFromNameV2 SandboxGetFromName SandboxWaitV2, \
         ours SandboxWaitV2 SandboxListV2 SandboxGetFromNameV2 SandboxWaitV2",
        ONE_LOOK,
    ),
    (BOTH, "v1 tags changed: theirs SandboxTagsGet SandboxListV2, ours nothing", FINAL_TAGS),
    (BOTH, "v1 tags set: theirs SandboxTagsSet, ours nothing", FINAL_TAGS),
    (BOTH, "v2 tags changed: theirs SandboxTagsGetV2 SandboxListV2, ours nothing", FINAL_TAGS),
    (BOTH, "v2 tags set: theirs SandboxTagsSetV2, ours nothing", FINAL_TAGS),
    (&["js"], "hello: theirs nothing, ours ClientHello", "JavaScript has no call for it; it tells Modal's warnings"),
    (&["js"], "secret stored: theirs nothing, ours SecretGetOrCreate", "JavaScript stores no Secret under a name"),
    (
        &["js"],
        "secret deleted: theirs nothing, ours SecretGetOrCreate SecretDelete SecretGetOrCreate",
        "its program has stored none that it could delete",
    ),
    (&["python"], "metadata: only theirs x-modal-node", OF_PYTHON),
    (&["python"], "metadata: only theirs x-modal-platform", OF_PYTHON),
    (&["python"], "metadata: only theirs x-modal-python-version", OF_PYTHON),
    (&["python"], "metadata: only theirs x-modal-timestamp", OF_PYTHON),
    (&["python"], "metadata: only theirs grpc-timeout", "deadlines are kept here; JavaScript sends none either"),
    (&["python"], "metadata: only ours x-modal-libmodal-version", "how clients other than Python's say who they are"),
    (
        &["python"],
        "metadata: only ours x-modal-auth-token",
        "Python's sends it with the V2 calls, JavaScript's with all",
    ),
    (&["js"], "metadata: only theirs accept-encoding", "its gRPC library's, and the same as none"),
];

const LISTED: &str = "whether it has a machine is seen in the listing; nobody here waits for one sandbox";
const ONE_LOOK: &str = "who looks for a name knows the generation";
const FINAL_TAGS: &str = "tags travel in the create, and nothing changes them";
const OF_PYTHON: &str = "of Python's client alone; what it says about the machine is nobody's business";

type Steps = BTreeMap<String, Vec<Call>>;

#[derive(Deserialize)]
struct Record {
    client: String,
    metadata_of_every_call: BTreeSet<String>,
    steps: Steps,
}

impl Record {
    fn read(text: &str) -> Self {
        let mut record: Self = serde_json::from_str(text).unwrap();
        for call in record.steps.values_mut().flatten() {
            call.metadata.extend(record.metadata_of_every_call.iter().cloned());
        }
        record
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Call {
    rpc: String,
    metadata: BTreeSet<String>,
}

/// What was heard on the wire since it was last asked.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<Call>>>);

impl Tape {
    fn note(&self, request: &http::Request<tonic::body::Body>) {
        let rpc = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let is_of_http = |name: &&str| ["te", "content-type", "user-agent"].contains(name);
        let metadata = request.headers().keys().map(http::HeaderName::as_str).filter(|name| !is_of_http(name));
        self.0.lock().unwrap().push(Call { rpc, metadata: metadata.map(str::to_owned).collect() });
    }

    /// As in the records, calls that follow each other and are alike are one.
    fn take(&self) -> Vec<Call> {
        let mut calls = std::mem::take(&mut *self.0.lock().unwrap());
        calls.dedup();
        calls
    }
}

/// The same steps as those of the programs in `tests/conformance`.
struct Conversation {
    tape: Tape,
    reader: ModalReader,
    writer: ModalWriter,
    steps: Steps,
}

impl Conversation {
    fn new() -> Self {
        let clock = Clock::scaled(DateTime::from_timestamp(1_780_000_000, 0).unwrap(), 1.0);
        let world = World::new(Profile::calm(), Scenario::default(), 7, clock);
        let tape = Tape::default();
        let recorder = tape.clone();
        let service = world.modal_service().map_request(move |request| {
            recorder.note(&request);
            request
        });
        let settings = settings("http://modal.invalid".to_owned());
        let (reader, writer) = modal::connect_with_service(service, settings, world.clock().clone()).unwrap();
        Self { tape, reader, writer, steps: BTreeMap::new() }
    }

    /// Keeps what was heard as the calls of a step.
    fn step(&mut self, name: &str) {
        let calls = self.tape.take();
        assert!(self.steps.insert(name.to_owned(), calls).is_none(), "{name} has been there");
    }

    async fn prepare(&mut self) -> SandboxSpec {
        self.reader.hello().await.unwrap();
        self.step("hello");
        let app = self.writer.ensure_app().await.unwrap();
        self.step("app");
        self.reader.lookup_app().await.unwrap();
        self.step("app again");
        let runner = RunnerContents {
            version: "2.330.0",
            sha256: &"0".repeat(64),
            download_url: "https://github.com/actions/runner/releases/download/v2.330.0/runner.tar.gz",
            dir: "/opt/actions-runner",
            token: None,
        };
        let layers = |tools| ImageDefinition::default_layers(&runner, tools).unwrap();
        // The first layer is known already, as it is where the records were made.
        modal::build(&self.writer, &app, &layers(Tools::Usual), |_| ()).await.unwrap();
        self.tape.take();
        let image = modal::build(&self.writer, &app, &layers(Tools::WithDocker), |_| ()).await.unwrap();
        self.step("image");
        self.step("image by id");
        let volume = self.writer.ensure_volume("conformance-cache").await.unwrap();
        self.step("volume");
        self.writer.store_secret("conformance", &[("FROM_SECRET".to_owned(), "hello".into())]).await.unwrap();
        self.step("secret stored");
        let secret = self.writer.find_secret("conformance").await.unwrap();
        self.step("secret by name");
        self.writer.find_secret("none").await.unwrap_err();
        self.step("secret unknown");
        let mount = Mount { volume, path: "/cache".to_owned(), is_read_only: false };
        SandboxSpec { volumes: vec![mount], secret_ids: vec![secret], ..spec(app, image) }
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<modal::CreatedSandbox, modal::ModalError> {
        match spec.generation() {
            Generation::V2 => self.writer.create_sandbox(spec).await,
            Generation::V1 => {
                let config = self.writer.store_secret(&spec.name, &spec.env).await.unwrap();
                let secret_ids = spec.secret_ids.iter().cloned().chain([config]).collect();
                self.writer.create_sandbox(&SandboxSpec { env: Vec::new(), secret_ids, ..spec.clone() }).await
            }
        }
    }

    async fn converse(&mut self, spec: &SandboxSpec) {
        let generation = spec.generation();
        let of = |step: &str| format!("{}{step}", if generation == Generation::V1 { "v1 " } else { "v2 " });
        let id = self.create(spec).await.unwrap().id;
        self.step(&of("create"));
        self.reader.list_sandboxes(&spec.app, &spec.tags).await;
        self.step(&of("list"));
        self.reader.tags(&id).await.unwrap();
        self.step(&of("tags get"));
        assert_eq!(self.reader.wait(&id, Duration::ZERO).await.unwrap(), SandboxFate::Running);
        self.step(&of("poll"));
        assert!(self.reader.find_by_name(&spec.name, generation, NameOf::Live).await.unwrap().is_some());
        self.step(&of("by name"));
        self.reader.wait(&id, Duration::ZERO).await.unwrap();
        self.step(&of("by id"));
        self.create(spec).await.unwrap_err();
        self.step(&of("name taken"));
        self.writer.terminate(&id).await.unwrap();
        self.step(&of("terminate"));
        self.wait_for_the_end_of(&id).await;
        self.step(&of("wait"));
        self.reader.wait(&id, Duration::ZERO).await.unwrap();
        self.reader.list_sandboxes(&spec.app, &spec.tags).await;
        assert_eq!(self.reader.find_by_name(&spec.name, generation, NameOf::Live).await.unwrap(), None);
        self.reader.wait(&id, Duration::ZERO).await.unwrap();
        self.step(&of("ended"));
        let successor = self.create(spec).await.unwrap().id;
        self.writer.terminate(&successor).await.unwrap();
        self.wait_for_the_end_of(&successor).await;
        self.step(&of("successor"));
    }

    async fn wait_for_the_end_of(&self, id: &sandrunner::ids::SandboxId) {
        let fate = self.reader.wait(id, Duration::from_secs(10)).await.unwrap();
        assert!(matches!(fate, SandboxFate::Ended(_)), "{fate:?}");
    }

    async fn whole() -> Steps {
        let mut talk = Self::new();
        let spec = talk.prepare().await;
        talk.converse(&spec).await;
        let gpu = Some(Gpu { name: "A100".to_owned(), count: 1 });
        talk.converse(&SandboxSpec { gpu, name: format!("{}-gpu", spec.name), ..spec }).await;
        talk.writer.delete_secret_named("conformance").await.unwrap();
        talk.writer.find_secret("conformance").await.unwrap_err();
        talk.step("secret deleted");
        talk.steps
    }
}

/// The methods of a step in their order, without the one that clients call once, each at another time.
fn methods(calls: &[Call]) -> String {
    let methods: Vec<&str> = calls.iter().map(|call| call.rpc.as_str()).filter(|rpc| *rpc != AUTHENTICATE).collect();
    if methods.is_empty() { "nothing".to_owned() } else { methods.join(" ") }
}

/// The names of the metadata that calls of each method carried.
fn metadata(steps: &Steps) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in steps.values().flatten() {
        found.entry(&call.rpc).or_default().extend(call.metadata.iter().map(String::as_str));
    }
    found
}

fn differences(ours: &Steps, theirs: &Steps) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let [ours, theirs] = [ours, theirs].map(|steps| methods(steps.get(name).map_or(&[], Vec::as_slice)));
        if ours != theirs {
            found.insert(format!("{name}: theirs {theirs}, ours {ours}"));
        }
    }
    let theirs = metadata(theirs);
    for (rpc, ours) in metadata(ours) {
        let Some(theirs) = theirs.get(rpc) else { continue };
        found.extend(theirs.difference(&ours).map(|name| format!("metadata: only theirs {name}")));
        found.extend(ours.difference(theirs).map(|name| format!("metadata: only ours {name}")));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn calls_and_metadata_are_those_of_the_official_clients() {
    let ours = Conversation::whole().await;
    for theirs in [PYTHON, JS].map(Record::read) {
        let listed = DEVIATIONS.iter().filter(|(clients, ..)| clients.contains(&theirs.client.as_str()));
        let listed: BTreeSet<String> = listed.map(|(_, difference, _)| (*difference).to_owned()).collect();
        let found = differences(&ours, &theirs.steps);
        let new: Vec<_> = found.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&found).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "{}: not listed: {new:#?}; listed and not so: {gone:#?}",
            theirs.client
        );
    }
}

#[tokio::test(start_paused = true)]
async fn every_v2_call_carries_the_auth_token_and_it_is_fetched_once() {
    let ours = Conversation::whole().await;
    for steps in [PYTHON, JS].map(|text| Record::read(text).steps).iter().chain([&ours]) {
        let calls = || steps.values().flatten();
        assert_eq!(calls().filter(|call| call.rpc == AUTHENTICATE).count(), 1);
        let lack = calls().filter(|call| call.rpc.ends_with("V2") && !call.metadata.contains("x-modal-auth-token"));
        assert_eq!(lack.collect::<Vec<_>>(), Vec::<&Call>::new());
    }
    assert_eq!(ours["hello"][0].rpc, AUTHENTICATE, "before the first call, as JavaScript does");
    assert!(!ours["hello"][0].metadata.contains("x-modal-auth-token"));
}

#[test]
fn a_call_more_and_a_name_less_are_differences() {
    let call = |rpc: &str, names: &[&str]| Call {
        rpc: rpc.to_owned(),
        metadata: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let theirs = Steps::from([("list".to_owned(), vec![call("SandboxListV2", &["a", "b"])])]);
    let ours = Steps::from([("list".to_owned(), vec![call("SandboxListV2", &["a", "c"]), call("ClientHello", &[])])]);
    let found: Vec<String> = differences(&ours, &theirs).into_iter().collect();
    assert_eq!(
        found,
        [
            "list: theirs SandboxListV2, ours SandboxListV2 ClientHello",
            "metadata: only ours c",
            "metadata: only theirs b",
        ]
    );
}
