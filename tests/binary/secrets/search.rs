//! Where secrets are looked for, and in which forms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use sandrunner::cli::demo;
use sandrunner::clock::Clock;
use sandrunner::modal::{self, ModalSettings};
use sandrunner::sim::APP_KEY;
use sha2::Sha256;

use crate::process::{Sandrunner, Simulation, http};

/// By the variables that set them; in small letters, so that they may be planted as names.
pub(super) const TOKENS: [(&str, &str); 5] = [
    ("GITHUB_TOKEN", "ghp_canary7rk2"),
    ("MODAL_TOKEN_ID", "ak-canary9xw4"),
    ("MODAL_TOKEN_SECRET", "as-canary5tz8"),
    ("WEBHOOK_SECRET", "wh-canary3qd6-webhook"),
    ("SANDRUNNER__HTTP__WEBHOOK_SECRET_PREVIOUS", "wh-canary1mb9-webhook"),
];
/// How every JIT config begins: with the name of the file that holds the credentials.
pub(super) const JIT_CONFIG: &str = "eyIuY3JlZGVudGlhbHMi";
/// How every auth token of Modal's begins: with the name of its algorithm.
const AUTH_TOKEN: &str = "eyJhbGciOiJIUzI1NiIs";

/// How every token that a GitHub App signs begins: with its kind and the name of its algorithm.
const APP_TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9";

/// How every token begins that the simulated Enterprise Server gives out for a download.
pub(super) const DOWNLOAD_TOKEN: &str = "simdownload-";

/// What was seen, by where.
pub(super) type Places = BTreeMap<&'static str, Vec<String>>;

/// A secret in the forms in which it may get somewhere.
fn forms(secret: &str) -> Vec<String> {
    // Base64 of a text that holds it somewhere: what does not depend on the bytes around it.
    let inside = |before: usize| {
        let bytes = [&vec![b'_'; before][..], secret.as_bytes()].concat();
        let from = (before * 8).div_ceil(6);
        BASE64_STANDARD.encode(&bytes)[from..bytes.len() * 8 / 6].to_owned()
    };
    let encoded = [hex::encode(secret), secret.replace('_', "%5F").replace('-', "%2D")];
    [secret.to_owned()].into_iter().chain((0..3).map(inside)).chain(encoded).collect()
}

/// Where which secret was found.
pub(super) fn found(places: &Places) -> Vec<(&'static str, &'static str)> {
    let mut secrets: Vec<(&'static str, Vec<String>)> =
        TOKENS.iter().map(|(name, value)| (*name, forms(value))).collect();
    secrets.extend(demo::CREDENTIALS.map(|secret| ("credential of the demo", forms(secret))));
    secrets.push(("download token", forms(DOWNLOAD_TOKEN)));
    secrets.push(("JIT config", vec![JIT_CONFIG.to_owned(), ".credentials_rsaparams".to_owned()]));
    secrets.push(("auth token", vec![AUTH_TOKEN.to_owned()]));
    secrets.push(("installation token", vec!["ghs_".to_owned()]));
    secrets.push(("the App's own token", vec![APP_TOKEN.to_owned()]));
    let key = APP_KEY.lines().nth(1).unwrap();
    secrets.push(("private key", vec![key.to_owned(), key[4..].to_owned()]));
    let mut found = BTreeSet::new();
    for (place, texts) in places {
        for (name, forms) in &secrets {
            if texts.iter().any(|text| forms.iter().any(|form| text.contains(form))) {
                found.insert((*place, *name));
            }
        }
    }
    found.into_iter().collect()
}

/// Names and tags of the living sandboxes, as Modal's simulator lists them.
pub(super) async fn in_sandboxes(simulation: &Simulation) -> Vec<String> {
    let settings = ModalSettings {
        server_url: simulation.modal().to_owned(),
        ..ModalSettings::new("ak-other".into(), "as-other".into(), "sandrunner")
    };
    let (reader, _) = modal::connect(settings, Clock::system()).unwrap();
    let app = reader.lookup_app().await.unwrap().unwrap();
    let listed = reader.list_sandboxes(&app, &BTreeMap::new()).await;
    let sandboxes = listed.seen().unwrap();
    assert!(!sandboxes.is_empty(), "there is no sandbox to look at");
    sandboxes.iter().map(|sandbox| format!("{sandbox:?}")).collect()
}

/// What a running daemon shows.
pub(super) async fn look(places: &mut Places, daemon: &Sandrunner, address: &str) {
    for (place, path) in [("metrics", "/metrics"), ("status", "/api/v1/status"), ("ready", "/readyz")] {
        let answer = http().get(format!("http://{address}{path}")).send().await.unwrap();
        places.insert(place, vec![answer.text().await.unwrap()]);
    }
    let arguments = fs::read(format!("/proc/{}/cmdline", daemon.id())).unwrap();
    assert!(arguments.starts_with(env!("CARGO_BIN_EXE_sandrunner").as_bytes()));
    places.insert("arguments", vec![String::from_utf8(arguments).unwrap()]);
}

/// GitHub's deliveries to a running daemon: signed with either secret, with another one, and by somebody who takes the
/// secret for the signature. Takes the answers.
pub(super) async fn deliver(places: &mut Places, address: &str) {
    let [.., (_, current), (_, previous)] = TOKENS;
    let body = r#"{"workflow_job":{"run_id":6000000000},"repository":{"full_name":"acme/web"}}"#;
    let signed = |secret: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
        hex::encode(mac.finalize().into_bytes())
    };
    let deliveries =
        [(signed(current), 202), (signed(previous), 202), (signed("other"), 401), (current.to_owned(), 401)];
    for (number, (signature, status)) in (0..).zip(deliveries) {
        let request = http()
            .post(format!("http://{address}/webhooks/github"))
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .header("x-github-event", "workflow_job")
            .header("x-github-delivery", format!("delivery-{number}"))
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "delivery {number}");
        places.entry("webhook").or_default().push(answer.text().await.unwrap());
    }
}

/// Ends the daemon and takes what it leaves: its output, and the files below `state`.
pub(super) async fn end(places: &mut Places, daemon: Sandrunner, state: &Path) {
    let ended = daemon.interrupted().await;
    assert!(ended.status.success(), "{ended:#?}");
    places.entry("output").or_default().extend([ended.stdout, ended.stderr]);
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                places.entry("state").or_default().push(fs::read_to_string(path).unwrap());
            }
        }
    }
}

#[test]
fn a_secret_is_found_in_every_form() {
    let (name, secret) = TOKENS[0];
    for before in ["", "a", "ab", "abc", "Bearer "] {
        let text = format!("{before}{secret}, and more");
        for said in
            [text.clone(), BASE64_STANDARD.encode(&text), hex::encode(&text), format!("x=ghp%5Fcanary7rk2{before}")]
        {
            assert_eq!(found(&Places::from([("log", vec![said.clone()])])), [("log", name)], "{said}");
        }
    }
    assert_eq!(found(&Places::from([("log", vec!["ghp_ canary7rk2".to_owned()])])), []);
}
