//! Answers that refuse: what is told of them is one bounded line, and no wait is longer than GitHub's longest window.
#![no_main]

use bytes::Bytes;
use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use sandrunner::error::ErrorClass;
use sandrunner::github::answers::read_refusal;
use sandrunner::github::{Call, Operation};
use sandrunner_fuzz::{assert_one_line, message, now};

const TOKEN: &str = "ghp_canary1";

fuzz_target!(|data: &[u8]| {
    let (headers, body) = message(data);
    let status = headers.get("status").and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    let status = status.unwrap_or(StatusCode::FORBIDDEN);
    let call = Call::new(Operation::ListJobs, "run 7 of acme/web");
    let refusal = read_refusal(&call, &TOKEN.into(), (status, headers, Bytes::copy_from_slice(body)), now());
    let text = refusal.to_string();
    assert!(!text.contains(TOKEN), "{text}");
    assert_one_line(&text);
    assert!(text.chars().count() < 1_500, "{} characters", text.len());
    assert!(refusal.retry_after.is_none_or(|wait| wait.as_secs() <= 3_600));
    let may_limit = matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS);
    assert!(may_limit || refusal.class != ErrorClass::RateLimited);
    assert!(!status.is_server_error() || refusal.class == ErrorClass::Unavailable);
});
