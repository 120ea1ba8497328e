//! A careless proxy: it refuses every request, GitHub's and Modal's, with a text that repeats its credentials.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Response, header};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Serves until the set is dropped.
pub(super) async fn serve() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(refuse);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, tasks)
}

async fn refuse(headers: HeaderMap) -> Response<Body> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let echo = format!("echo of {}", text("authorization"));
    let answer = Response::builder();
    if text("content-type").starts_with("application/grpc") {
        let names = ["x-modal-token-id", "x-modal-token-secret", "x-modal-auth-token"];
        let echo = names.map(|name| format!("echo of {}", text(name))).join("; ");
        let answer = answer.header(header::CONTENT_TYPE, "application/grpc").header("grpc-status", "7");
        return answer.header("grpc-message", &echo).header("x-modal-warning", &echo).body(Body::empty()).unwrap();
    }
    let body = serde_json::json!({ "message": echo, "errors": [{ "message": echo }] }).to_string();
    let answer = answer.status(403).header("x-github-request-id", &echo);
    answer.header("x-accepted-github-permissions", &echo).body(Body::from(body)).unwrap()
}
