//! The wait in the details of a gRPC status: whatever they hold, it is a time, and never too short.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sandrunner::modal::retry_after;

fuzz_target!(|details: &[u8]| {
    assert!(retry_after(details).is_none_or(|wait| wait >= Duration::from_millis(100)));
});
