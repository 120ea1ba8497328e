//! What survives a restart: the text, the lies it may tell, and the directory it stands in.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod directory;
#[path = "../planner/generate.rs"]
mod generate;
mod lies;
#[path = "../planner/situation.rs"]
mod situation;
mod text;

use sandrunner::evidence::Evidence;
use sandrunner::evidence::kept::{decode, encode};
use sandrunner::ids::Fingerprint;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use situation::now;

/// Stands for what the operator set.
fn settings() -> Fingerprint {
    Fingerprint::of("settings")
}

/// A text of version 1 with the right checksum, whatever it says.
fn document(evidence: &Value) -> Vec<u8> {
    let evidence = evidence.to_string();
    let sha256 = hex::encode(Sha256::new().chain_update(1_u64.to_be_bytes()).chain_update(&evidence).finalize());
    // Put together as text, because a `Value` would sort the members of `evidence` anew.
    format!(r#"{{"version":1,"sha256":"{sha256}","evidence":{evidence}}}"#).into_bytes()
}

/// What a process believes that starts `now()` with the same settings.
fn restarted(evidence: &Evidence) -> Evidence {
    decode(encode(evidence, settings()).unwrap().as_bytes(), settings(), now()).unwrap()
}

/// What it believes of a text that says this.
fn told(mut evidence: Value) -> Evidence {
    evidence["settings"] = json!(settings().to_string());
    decode(&document(&evidence), settings(), now()).unwrap()
}
