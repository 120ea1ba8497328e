//! Processes that panic: nothing of what they hold is in what the panic prints.

use std::process::{Command, Stdio};

use sandrunner::clock::Clock;
use sandrunner::config::{Environment, read};
use sandrunner::daemon::Clients;
use sandrunner::github::answers::read_jit_config;
use secrecy::ExposeSecret;
use serde_json::json;
use tempfile::TempDir;

use super::search::{JIT_CONFIG, Places, TOKENS, found};
use super::world;
use crate::process::REPO;

/// What tells the process that panics to print a secret as well.
const PLANTED: &str = "SANDRUNNER_TEST_PLANTED";

/// Panics as `unwrap` does that does not like its value, with all that holds secrets. A process of its own runs it.
#[tokio::test]
#[ignore = "it panics: `a_process_that_panics_prints_no_secret` looks at what it prints"]
async fn panics() {
    let environment: Environment = TOKENS.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let text = format!("[[github]]\nallowed_repos = [\"{REPO}\"]\n");
    let settings = read(&text, "config.toml".as_ref(), &environment).unwrap();
    let clients = Clients::connect(&settings, &Clock::system()).unwrap();
    let config = "eyIuY3JlZGVudGlhbHMiOiJlMzA9IiwiLnJ1bm5lciI6ImUzMD0ifQ==";
    assert!(config.starts_with(JIT_CONFIG));
    let answer = json!({ "runner": { "id": 4711 }, "encoded_jit_config": config }).to_string();
    let minted = read_jit_config(answer.as_bytes()).unwrap();
    let planted = std::env::var(PLANTED).map(|_| format!("{} {}", minted.0.config.expose_secret(), TOKENS[3].1));
    panic!("{settings:?} {clients:?} {minted:?} {planted:?}");
}

/// What the process prints that runs [`panics`].
fn printed(variables: &[(&str, &str)]) -> String {
    let test = std::env::current_exe().unwrap();
    let output = Command::new(test)
        .args(["--exact", "secrets::panic::panics", "--ignored", "--nocapture"])
        .env("RUST_BACKTRACE", "full")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(101), "{output:?}");
    String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_process_that_panics_prints_no_secret() {
    let text = printed(&[]);
    for control in ["panicked at", REPO, "4711", "stack backtrace"] {
        assert!(text.contains(control), "without `{control}` this shows nothing: {text}");
    }
    assert_eq!(found(&Places::from([("panic", vec![text])])), []);
}

#[test]
fn a_secret_that_is_planted_in_a_panic_is_found() {
    let found = found(&Places::from([("panic", vec![printed(&[(PLANTED, "1")])])]));
    assert_eq!(found, [("panic", "JIT config"), ("panic", TOKENS[3].0)]);
}

/// As behind `head`, which ends after some lines.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_no_reason_to_panic() {
    let folder = TempDir::new().unwrap();
    let simulation = world(&folder).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandrunner"))
        .arg("plan")
        .env_clear()
        .envs(super::variables(&simulation, &[]))
        .env("RUST_BACKTRACE", "full")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !text.contains("panicked"), "{text}");
    assert_eq!(found(&Places::from([("panic", vec![text])])), []);
}
