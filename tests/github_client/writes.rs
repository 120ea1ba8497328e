//! JIT configs, deregistration, and the runner's release.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{Method, StatusCode};
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::github::{Deregistered, GithubError};
use sandrunner::ids::RunnerId;
use sandrunner::runner::VersionNotice;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::script::{Github, refuse, registry};

fn config() -> String {
    BASE64_STANDARD.encode(r#"{".runner":"e30=",".credentials":"e30=",".credentials_rsaparams":"e30="}"#)
}

fn minted(labels: &Value, config: &str) -> Response {
    let labels: Vec<Value> = labels.as_array().unwrap().iter().map(|name| json!({ "name": name })).collect();
    let runner = json!({ "id": 23, "name": "sr-main-gh1-7-1", "os": "unknown", "status": "offline", "busy": false, "labels": labels });
    (StatusCode::CREATED, Json(json!({ "runner": runner, "encoded_jit_config": config }))).into_response()
}

#[tokio::test(start_paused = true)]
async fn a_jit_config_is_asked_for_and_returned() {
    let github = Github::answering(|_| minted(&json!(["job-7", "MODAL"]), &config()));
    let minted = github.mint().await.unwrap();
    assert_eq!((minted.runner_id, minted.config.expose_secret()), (RunnerId(23), config().as_str()));
    assert!(!format!("{minted:?}").contains(&config()), "a JIT config is a secret");
    let asked = github.asked().remove(0);
    assert_eq!(
        (asked.method, asked.target.as_str()),
        (Method::POST, "https://api.github.com/repos/acme/web/actions/runners/generate-jitconfig")
    );
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(
        body,
        json!({ "name": "sr-main-gh1-7-1", "runner_group_id": 1, "labels": ["job-7", "modal"], "work_folder": "_work" })
    );
}

#[tokio::test(start_paused = true)]
async fn a_runner_registered_with_other_labels_is_an_error_that_names_it() {
    let github = Github::answering(|_| minted(&json!(["modal", "self-hosted"]), &config()));
    let error = github.mint().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot generate a JIT config for sr-main-gh1-7-1 in acme/web: runner 23 was registered with the labels \
         [modal,self-hosted], not [job-7,modal]"
    );
    assert!(error.class().may_have_taken_effect());
}

#[tokio::test(start_paused = true)]
async fn a_config_that_no_runner_could_read_is_not_returned() {
    let not_json = BASE64_STANDARD.encode("not JSON");
    for odd in ["", "abc123", "e30", "e30=", not_json.as_str(), &config()[1..]] {
        let odd = odd.to_owned();
        let github = Github::answering({
            let odd = odd.clone();
            move |_| minted(&json!(["job-7", "modal"]), &odd)
        });
        let error = github.mint().await.unwrap_err();
        assert!(matches!(error, GithubError::Unreadable { .. }), "{odd:?}: {error}");
        assert!(error.class().may_have_taken_effect());
    }
    // A body of another form may hold the secret anywhere: nothing of it may be told.
    let secret = "c2VjcmV0c2VjcmV0";
    for body in [
        json!({ "runner": secret }),
        json!(secret),
        json!({ "runner": { "id": secret }, "encoded_jit_config": secret }),
    ] {
        let github = Github::answering(move |_| (StatusCode::CREATED, Json(body.clone())).into_response());
        let error = github.mint().await.unwrap_err();
        let told = format!("{error:?} {error} ");
        let told = told + &CallFailure::from(error).message;
        assert!(!told.contains(secret) && told.contains("Unreadable"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn mints_that_fail_say_whether_a_runner_may_be_there() {
    for (code, message, class, may_be_there) in [
        (409, "Already exists - A runner with the name *** already exists.", ErrorClass::Conflict, false),
        (422, "Invalid property /labels: 1 item required; only 0 were supplied.", ErrorClass::Invalid, false),
        (404, "Not Found", ErrorClass::NotFound, false),
        (403, "Repository level self-hosted runners are disabled on this repository", ErrorClass::Policy, false),
        (500, "Server Error", ErrorClass::Unavailable, true),
    ] {
        let github = Github::answering(move |_| refuse(code, message));
        let error = github.mint().await.unwrap_err();
        assert_eq!((error.class(), error.class().may_have_taken_effect()), (class, may_be_there), "{error}");
        assert!(error.to_string().contains(message));
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_a_runner_tells_gone_from_running() {
    for (code, message, expected) in [
        (204, "", Ok(Deregistered::Gone)),
        (404, "Not Found", Ok(Deregistered::Gone)),
        (422, "Bad request - Runner \"sr-main-gh1-7-1\" is still running a job\"", Ok(Deregistered::StillRunning)),
        (422, "Validation Failed", Err(ErrorClass::Invalid)),
        (500, "Server Error", Err(ErrorClass::Unavailable)),
        (403, "Resource not accessible by integration", Err(ErrorClass::Forbidden)),
        (410, "This version of the API is gone", Err(ErrorClass::Invalid)),
    ] {
        let github =
            Github::answering(
                move |_| {
                    if code == 204 { StatusCode::NO_CONTENT.into_response() } else { refuse(code, message) }
                },
            );
        let outcome = github.writer.delete_runner(&registry(), RunnerId(23)).await;
        assert_eq!(outcome.map_err(|error| error.class()), expected, "{code} {message}");
        let asked = github.asked().remove(0);
        assert_eq!(
            (asked.method, asked.target.as_str()),
            (Method::DELETE, "https://api.github.com/repos/acme/web/actions/runners/23")
        );
    }
}

fn download(version: &str, url: &str, sum: &Value) -> Value {
    json!({
        "os": "linux", "architecture": "x64", "filename": format!("actions-runner-linux-x64-{version}.tar.gz"),
        "download_url": url, "sha256_checksum": sum,
    })
}

#[tokio::test(start_paused = true)]
async fn the_release_for_linux_on_x64_is_found() {
    let sum = "0123456789abcdef".repeat(4);
    let url = "https://github.com/actions/runner/releases/download/v2.330.0/actions-runner-linux-x64-2.330.0.tar.gz";
    let entries = json!([{ "os": "win", "architecture": "x64" }, { "os": "linux", "architecture": "arm64" }, download("2.330.0", url, &json!(sum))]);
    let github = Github::answering(move |_| Json(entries.clone()).into_response());
    let release = github.reader.runner_release(&registry()).await.unwrap();
    assert_eq!(release.version.to_string(), "2.330.0");
    assert_eq!((release.download_url.as_str(), release.sha256), (url, Some(sum)));
    assert!(release.download_token.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_download_is_read_and_never_shown() {
    let of = async |token: Value| {
        let mut entry = download("2.330.0", "https://ghe.acme.example/r.tar.gz", &Value::Null);
        entry["temp_download_token"] = token;
        let github = Github::answering(move |_| Json(json!([entry])).into_response());
        github.reader.runner_release(&registry()).await
    };
    let release = of(json!("canary-token.0123")).await.unwrap();
    assert!(!format!("{release:?}").contains("canary"));
    assert_eq!(release.download_token.unwrap().expose_secret(), "canary-token.0123");
    assert!(of(json!("")).await.unwrap().download_token.is_none());
    for odd in [json!("canary\nX: y"), json!(["canary"])] {
        let told = of(odd).await.unwrap_err().to_string();
        assert!(!told.contains("canary"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn until_when_a_version_is_taken_is_read_and_silence_is_no_date() {
    let version = "2.330.0".parse().unwrap();
    let at = |text: &str| Some(text.parse().unwrap());
    let none = VersionNotice::default();
    for (status, body, expected) in [
        (
            200,
            json!({ "runner_version": "2.330.0", "registration_deprecates_at": "2026-12-01T00:00:00Z",
                "runtime_deprecates_at": "2026-12-24T00:00:00Z" }),
            VersionNotice { registers_until: at("2026-12-01T00:00:00Z"), runs_until: at("2026-12-24T00:00:00Z") },
        ),
        (200, json!({ "runner_version": "2.330.0", "runtime_deprecates_at": null }), none),
        (200, json!({ "runtime_deprecates_at": "some day", "new": [1] }), none),
        (404, json!({ "message": "Not Found" }), none),
    ] {
        let answer = body.clone();
        let github =
            Github::answering(move |_| (StatusCode::from_u16(status).unwrap(), Json(answer.clone())).into_response());
        assert_eq!(github.reader.runner_notice(&registry(), version).await.unwrap(), expected, "{status} {body}");
        let path = "https://api.github.com/repos/acme/web/actions/runners/deprecations/2.330.0";
        assert_eq!(github.asked().remove(0).target, path);
    }
    let github = Github::answering(|_| (StatusCode::OK, "[]").into_response());
    let error = github.reader.runner_notice(&registry(), version).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unreadable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_could_smuggle_in_a_command_is_refused() {
    let url = "https://github.com/r.tar.gz";
    for odd in [
        download("2.330.0;x", url, &Value::Null),
        download("2.330", url, &Value::Null),
        download("2.330.0", "https://x/`id`", &Value::Null),
        download("2.330.0", "http://github.com/r.tar.gz", &Value::Null),
        download("2.330.0", url, &json!("0123")),
    ] {
        let github = Github::answering(move |_| Json(json!([odd])).into_response());
        let error = github.reader.runner_release(&registry()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unreadable, "{error}");
    }
}
