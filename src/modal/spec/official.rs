//! What is sent for a sandbox, held field by field against what Modal's official clients send for the same definition.
//!
//! The records are what `tests/conformance/creates.py` and `creates.mjs` sent, as `tests/conformance/run --record` saw
//! it on the wire; the definitions here are theirs.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use serde::Deserialize;

use super::tests::spec;
use super::*;

const PYTHON: &str = include_str!("../../../tests/data/modal-clients/python.json");
const JS: &str = include_str!("../../../tests/data/modal-clients/js.json");

/// Where a client sends something else for the same definition, and why ours stays as it is.
const DEVIATIONS: [(&str, &str, &str); 1] = [(
    "python",
    "definition.experimental_options_v2[enable_docker]",
    "Python writes `True` because that is how it prints a bool; ours is `true`, as the JavaScript and Go clients have it",
)];

#[derive(Deserialize)]
struct Record {
    client: String,
    creates: BTreeMap<String, Create>,
}

#[derive(Deserialize)]
struct Create {
    rpc: String,
    bytes: String,
}

impl Create {
    fn bytes(&self) -> Vec<u8> {
        hex::decode(&self.bytes).unwrap()
    }
}

fn records() -> [Record; 2] {
    [PYTHON, JS].map(|text| serde_json::from_str(text).unwrap())
}

/// What is in a field.
#[derive(Clone, Copy)]
enum Content {
    Value,
    Message(Fields),
    /// An entry of a map whose values are text.
    Entry,
}
use Content::{Entry, Message, Value};

/// The fields of a message by their numbers, from `modal-api.md` §17 rather than from `api.proto`, which is under test.
type Fields = &'static [(u64, &'static str, Content)];

const REQUEST: Fields = &[
    (1, "app_id", Value),
    (2, "definition", Message(SANDBOX)),
    (4, "tags", Message(&[(1, "tag_name", Value), (2, "tag_value", Value)])),
    (6, "secret_sources", Message(&[(1, "secret_id", Value), (2, "env", Message(&[(1, "contents", Entry)]))])),
];
const SANDBOX: Fields = &[
    (1, "entrypoint_args", Value),
    (3, "image_id", Value),
    (4, "secret_ids", Value),
    (5, "resources", Message(RESOURCES)),
    (7, "timeout_secs", Value),
    (8, "workdir", Value),
    (13, "volume_mounts", Message(MOUNT)),
    (17, "scheduler_placement", Message(&[(4, "regions", Value)])),
    (20, "open_ports", Message(&[(1, "ports", Value)])),
    (22, "network_access", Message(NETWORK)),
    (28, "runtime", Value),
    (30, "name", Value),
    (33, "idle_timeout_secs", Value),
    (41, "experimental_options_v2", Entry),
];
const RESOURCES: Fields = &[
    (2, "memory_mb", Value),
    (3, "milli_cpu", Value),
    (4, "gpu_config", Message(&[(1, "type", Value), (2, "count", Value), (4, "gpu_type", Value)])),
    (5, "memory_mb_max", Value),
    (7, "milli_cpu_max", Value),
];
const MOUNT: Fields = &[
    (1, "volume_id", Value),
    (2, "mount_path", Value),
    (3, "allow_background_commits", Value),
    (4, "read_only", Value),
    (5, "sub_path", Value),
];
const NETWORK: Fields =
    &[(1, "network_access_type", Value), (2, "allowed_cidrs", Value), (3, "allowed_domains", Value)];

/// A message as it is on the wire: what stands at each path. Fields that are not known here go by their numbers, and the
/// second and later ones of a repeated field by their places.
fn fields(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    read(bytes, REQUEST, "", &mut found);
    found
}

fn read(mut rest: &[u8], message: Fields, path: &str, found: &mut BTreeMap<String, String>) {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let number = key >> 3;
        let known = message.iter().find(|(known, ..)| *known == number);
        let name = known.map_or_else(|| format!("#{number}"), |(_, name, _)| (*name).to_owned());
        let content = known.map_or(Value, |(.., content)| *content);
        let count = counts.entry(number).or_default();
        let place = if *count == 0 || matches!(content, Entry) { String::new() } else { format!("[{count}]") };
        *count += 1;
        let path = format!("{path}{name}{place}");
        let value = match key & 7 {
            0 => varint(&mut rest).to_string(),
            1 => hex::encode(rest.split_off(..8).unwrap()),
            2 => {
                let length = usize::try_from(varint(&mut rest)).unwrap();
                let bytes = rest.split_off(..length).unwrap();
                match content {
                    Message(inner) if !bytes.is_empty() => {
                        read(bytes, inner, &format!("{path}."), found);
                        continue;
                    }
                    Message(_) => "{}".to_owned(),
                    Entry => {
                        let mut entry = BTreeMap::new();
                        read(bytes, &[(1, "key", Value), (2, "value", Value)], "", &mut entry);
                        let path = format!("{path}[{}]", entry["key"].trim_matches('"'));
                        assert_eq!(found.insert(path, entry["value"].clone()), None);
                        continue;
                    }
                    Value => format!("{:?}", String::from_utf8_lossy(bytes)),
                }
            }
            5 => hex::encode(rest.split_off(..4).unwrap()),
            other => panic!("{path} has the wire type {other}"),
        };
        assert_eq!(found.insert(path, value), None);
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    prost::encoding::decode_varint(rest).unwrap()
}

/// The paths at which two messages differ, with what ours and theirs have there.
fn differences(ours: &[u8], theirs: &[u8]) -> BTreeMap<String, String> {
    let (ours, theirs) = (fields(ours), fields(theirs));
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let show = |value: Option<&String>| value.map_or("nothing", String::as_str).to_owned();
    let differ = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
    differ
        .map(|path| (path.clone(), format!("ours {}, theirs {}", show(ours.get(path)), show(theirs.get(path)))))
        .collect()
}

fn encoded(spec: &SandboxSpec) -> (&'static str, Vec<u8>) {
    spec.check().unwrap();
    match spec.generation() {
        Generation::V1 => ("SandboxCreate", spec.v1().encode_to_vec()),
        Generation::V2 => ("SandboxCreateV2", spec.v2().encode_to_vec()),
    }
}

/// The ids that the records have in place of those that the simulator drew.
fn id(prefix: &str, label: &str) -> String {
    format!("{prefix}-{label:0>22}")
}

fn secrets(labels: &[&str]) -> Vec<SecretId> {
    labels.iter().map(|label| SecretId::new(id("st", label))).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The definitions of `creates.py`.
fn definitions() -> BTreeMap<&'static str, SandboxSpec> {
    let usual = SandboxSpec {
        app: AppId::new(id("ap", "app")),
        image: ImageId::new(id("im", "image")),
        tags: [("deployment", "main"), ("job", "7")].map(|(tag, value)| (tag.to_owned(), value.to_owned())).into(),
        env: vec![("GREETING".to_owned(), "hello".into())],
        ..spec()
    };
    let volume = |label: &str, path: &str, is_read_only| Mount {
        volume: VolumeId::new(id("vo", label)),
        path: path.to_owned(),
        is_read_only,
    };
    let volumes = vec![volume("cache", "/cache", false), volume("tools", "/opt/tools", true)];
    let network =
        |cidrs: &[&str], domains: &[&str]| SandboxNetwork::Only { cidrs: texts(cidrs), domains: texts(domains) };
    let (cidrs, domains) = (["140.82.112.0/20", "185.199.108.0/22"], ["github.com", "*.actions.githubusercontent.com"]);
    let gpu = |name: &str, count| Some(Gpu { name: name.to_owned(), count });
    let bare = SandboxSpec { env: Vec::new(), ..usual.clone() };
    let limits =
        SandboxSpec { cpu: 1.5, cpu_limit: Some(4.0), memory_mib: 2048, memory_limit_mib: Some(4096), ..usual.clone() };
    let everything = SandboxSpec {
        volumes: volumes.clone(),
        network: network(&cidrs, &domains),
        secret_ids: secrets(&["one", "two"]),
        regions: texts(&["us-east"]),
        workdir: Some("/srv/job".to_owned()),
        runtime: Some("vm".to_owned()),
        ..limits.clone()
    };
    let docker = BTreeMap::from([("enable_docker".to_owned(), "true".to_owned())]);
    let definitions = [
        ("plain", usual.clone()),
        ("no-environment", bare.clone()),
        ("longest", SandboxSpec { timeout: Duration::from_secs(86_400), ..usual.clone() }),
        ("fraction", SandboxSpec { cpu: 1.001, memory_mib: 1000, ..usual.clone() }),
        ("limits", limits),
        ("regions", SandboxSpec { regions: texts(&["us-east", "eu-west"]), ..usual.clone() }),
        ("volumes", SandboxSpec { volumes, ..usual.clone() }),
        ("cidrs", SandboxSpec { network: network(&cidrs, &[]), ..usual.clone() }),
        ("domains", SandboxSpec { network: network(&[], &domains), ..usual.clone() }),
        ("cidrs-and-domains", SandboxSpec { network: network(&cidrs, &domains), ..usual.clone() }),
        ("secrets", SandboxSpec { secret_ids: secrets(&["two", "one"]), ..usual.clone() }),
        ("secrets-alone", SandboxSpec { secret_ids: secrets(&["one"]), ..bare.clone() }),
        ("workdir", SandboxSpec { workdir: Some("/srv/job".to_owned()), ..usual.clone() }),
        ("docker", SandboxSpec { experimental: docker, ..usual.clone() }),
        ("gvisor", SandboxSpec { runtime: Some("gvisor".to_owned()), ..usual.clone() }),
        ("vm", SandboxSpec { runtime: Some("vm".to_owned()), ..usual }),
        ("gpu", SandboxSpec { gpu: gpu("A100-80GB", 1), secret_ids: secrets(&["one"]), ..bare.clone() }),
        ("gpus", SandboxSpec { gpu: gpu("h100", 2), secret_ids: secrets(&["two", "one"]), ..bare }),
        ("everything", everything.clone()),
        (
            "everything-gpu",
            SandboxSpec { gpu: gpu("T4", 1), env: Vec::new(), runtime: Some("gvisor".to_owned()), ..everything },
        ),
    ];
    definitions
        .into_iter()
        .map(|(name, spec)| (name, SandboxSpec { name: format!("creates-{name}"), ..spec }))
        .collect()
}

#[test]
fn a_create_equals_that_of_the_official_clients_field_by_field() {
    let definitions = definitions();
    let mut met = BTreeSet::new();
    let mut unexpected = Vec::new();
    for record in records() {
        let names: Vec<&str> = record.creates.keys().map(String::as_str).collect();
        assert_eq!(names, definitions.keys().copied().collect::<Vec<_>>(), "definitions of {}", record.client);
        for (name, theirs) in &record.creates {
            let (rpc, ours) = encoded(&definitions[name.as_str()]);
            assert_eq!(rpc, theirs.rpc, "{name} of {}", record.client);
            for (path, difference) in differences(&ours, &theirs.bytes()) {
                match DEVIATIONS.iter().position(|(client, at, _)| *client == record.client && *at == path) {
                    Some(deviation) => drop(met.insert(deviation)),
                    None => unexpected.push(format!("{} {name}: {path}: {difference}", record.client)),
                }
            }
        }
    }
    assert!(unexpected.is_empty(), "not what the official clients send:\n{}", unexpected.join("\n"));
    assert_eq!(met.len(), DEVIATIONS.len(), "a deviation is listed that there is not");
}

#[test]
fn api_proto_has_every_field_that_the_official_clients_fill() {
    for record in records() {
        for (name, theirs) in &record.creates {
            let bytes = theirs.bytes();
            let read = match theirs.rpc.as_str() {
                "SandboxCreate" => api::SandboxCreateRequest::decode(&*bytes).unwrap().encode_to_vec(),
                "SandboxCreateV2" => api::SandboxCreateV2Request::decode(&*bytes).unwrap().encode_to_vec(),
                other => panic!("{other} is no create"),
            };
            let lost = differences(&read, &bytes);
            assert_eq!(lost, BTreeMap::new(), "{name} of {}: list here what is left out, and why", record.client);
        }
    }
}

#[test]
fn a_difference_is_found_in_every_form() {
    let definitions = definitions();
    let ours = encoded(&definitions["everything"]).1;
    assert_eq!(differences(&ours, &ours), BTreeMap::new());
    let found = |change: fn(&mut SandboxSpec)| {
        let mut other = definitions["everything"].clone();
        change(&mut other);
        differences(&ours, &encoded(&other).1)
            .into_iter()
            .map(|(path, what)| format!("{path}: {what}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(|it| it.cpu = 1.0), ["definition.resources.milli_cpu: ours 1500, theirs 1000"]);
    assert_eq!(found(|it| it.workdir = None), [r#"definition.workdir: ours "/srv/job", theirs nothing"#]);
    assert_eq!(
        found(|it| it.volumes[1].is_read_only = false),
        ["definition.volume_mounts[1].read_only: ours 1, theirs nothing"]
    );
    assert_eq!(
        found(|it| it.env[0].1 = "bye".into()),
        [r#"secret_sources[2].env.contents[GREETING]: ours "hello", theirs "bye""#]
    );
    let mut unknown = ours.clone();
    prost::encoding::uint32::encode(99, &7, &mut unknown);
    let found: Vec<String> = differences(&ours, &unknown).into_keys().collect();
    assert_eq!(found, ["#99"]);
}
