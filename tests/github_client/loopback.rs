//! What only a real connection shows, and what the metrics show of all of it.

use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use sandrunner::budget::Purpose;
use sandrunner::clock::Clock;
use sandrunner::error::{CallFailure, ErrorClass};
use sandrunner::github::{GithubError, GithubSettings, connect};
use sandrunner::ids::RunId;
use sandrunner::state::Reading;
use serde_json::json;

use crate::script::{
    Asked, Github, TOKEN, all_runs, one_page, refuse, registry, repo, router, settings, unknown, versioned, with,
};

/// Serves the answers over loopback and returns a client for it, and the server's address.
async fn over_loopback(
    answer: impl Fn(&Asked) -> Response + Send + Sync + Clone + 'static,
) -> (Github, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let router = router(Arc::clone(&asked), move |asked| std::future::ready(answer(&asked)));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let clock = Clock::system();
    let (readers, writers) = connect(GithubSettings { api_url, ..settings() }, clock.clone()).unwrap();
    let gh = "gh1".parse().unwrap();
    let (reader, writer) = (readers.get(&gh), writers.get(&gh));
    (Github { reader, writer, clock, asked }, server)
}

/// `{"total_count": 1, "jobs": [{"id": 1, "run_id": 7, "status": "queued", "labels": ["modal"]}]}`, compressed.
const COMPRESSED: &str = "1f8b0800000000000203ab562ac92f49cc894fce2fcd2b51b25230d45150caca4f2a0632a3ab953253a04245\
                          a579f1608e3990535c9258520a52a154589a5a9a9aa20414cb494c4acd01eb52cacd4f49cc518aad8dad050048\
                          272d485d000000";

#[tokio::test]
async fn compressed_answers_are_asked_for_and_read() {
    let (github, _server) =
        over_loopback(|_| with(hex::decode(COMPRESSED).unwrap().into_response(), &[("content-encoding", "gzip")]))
            .await;
    let reading = github.reader.list_jobs(&repo(), RunId(7), Purpose::FirstJobs).await;
    let Reading::Known(Some(jobs)) = reading else { panic!("{reading:?}") };
    assert_eq!((jobs.len(), jobs[0].labels.to_string().as_str()), (1, "modal"));
    let asked = github.asked().remove(0);
    assert!(asked.headers["accept-encoding"].to_str().unwrap().contains("gzip"));
    assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}").as_str());
}

#[tokio::test]
async fn the_token_follows_no_redirect() {
    let (other, _other_server) = over_loopback(|_| one_page("runners", &json!([]))).await;
    // The other server's address is what its own client asks.
    other.reader.list_runners(&registry()).await;
    let location = format!("http://{}/", other.asked()[0].headers["host"].to_str().unwrap());
    let (github, _server) = over_loopback(move |_| {
        let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
        response.headers_mut().insert("location", location.parse().unwrap());
        response
    })
    .await;
    assert_eq!(unknown(github.reader.list_runners(&registry()).await).class, ErrorClass::Policy);
    assert_eq!(other.asked().len(), 1);
}

#[tokio::test]
async fn a_mint_whose_answer_is_cut_may_have_registered_a_runner() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}", listener.local_addr().unwrap());
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 4000\r\n\r\n{\"runner\": {\"id\": 23")
            .await
            .unwrap();
    });
    let (readers, writers) = connect(GithubSettings { api_url, ..settings() }, Clock::system()).unwrap();
    let gh = "gh1".parse().unwrap();
    let (reader, writer) = (readers.get(&gh), writers.get(&gh));
    let github = Github { reader, writer, clock: Clock::system(), asked: Arc::default() };
    let error = github.mint().await.unwrap_err();
    assert!(matches!(error, GithubError::NoAnswer { .. }), "{error:?}");
    assert!(error.class().may_have_taken_effect());
    // The listener is gone with its task: from here on nobody answers.
    while server.join_next().await.is_some() {}
    let refused = github.mint().await.unwrap_err();
    let told = CallFailure::from(refused).message;
    assert!(
        told.starts_with("cannot generate a JIT config for sr-main-gh1-7-1 in acme/web: no whole answer from GitHub: "),
        "{told}"
    );
    assert!(!told.contains(TOKEN), "{told}");
}

#[test]
fn every_request_is_counted_by_operation_and_result() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let github = Github::answering(versioned(Arc::default()));
            all_runs(&github).await;
            all_runs(&github).await;
            let broken = Github::answering(|_| refuse(409, "Already exists"));
            broken.mint().await.unwrap_err();
        });
    });
    let shown = page.render();
    for line in [
        r#"sandrunner_github_requests_total{credential="gh1",operation="list_runs",result="ok"} 3"#,
        r#"sandrunner_github_requests_total{credential="gh1",operation="list_runs",result="not_modified"} 3"#,
        r#"sandrunner_github_requests_total{credential="gh1",operation="generate_jit_config",result="conflict"} 1"#,
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
}
