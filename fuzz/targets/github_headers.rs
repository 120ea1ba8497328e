//! What GitHub's headers say: the next page (`Link`), the quota, and how long to wait.
//!
//! The address in a `Link` is never used, so there is nothing of it to be wrong; only that there is a next page is.
#![no_main]

use chrono::TimeDelta;
use libfuzzer_sys::fuzz_target;
use sandrunner::github::answers::{names_next, quota, retry_after};
use sandrunner_fuzz::{message, now};

fuzz_target!(|data: &[u8]| {
    let (headers, _) = message(data);
    let hour = TimeDelta::hours(1);
    assert!(retry_after(&headers).is_none_or(|wait| wait.as_secs() <= 3_600));
    if let Some(quota) = quota(&headers, now()) {
        let wait = quota.reset - now();
        assert!((TimeDelta::zero()..=hour).contains(&wait), "{wait}");
    }
    let link = headers.get("link").and_then(|link| link.to_str().ok());
    match names_next(&headers) {
        Some(true) => assert!(link.is_some_and(|link| link.contains("rel=\"next\""))),
        Some(false) => assert!(link.is_some()),
        None => assert!(link.is_none()),
    }
});
