//! The state file: any bytes, and any content with the right checksum. What is believed once is written and read as it
//! is, and no time in it is later than now.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandrunner::evidence::Evidence;
use sandrunner::evidence::kept::{decode, encode};
use sandrunner::ids::Fingerprint;
use sandrunner_fuzz::now;
use sha2::{Digest, Sha256};

fn check(believed: &Evidence, settings: Fingerprint) {
    let text = encode(believed, settings).expect("it was read from less");
    let again = decode(text.as_bytes(), settings, now()).expect("it was just written");
    assert_eq!(encode(&again, settings).expect("as before"), text);
    for job in believed.jobs.values() {
        assert!(job.first_queued <= now() && job.advanced_at.is_none_or(|at| at <= now()));
        assert!(job.fruitless_at.is_none_or(|at| at <= now()) && job.attempt < u32::MAX && job.fruitless < u32::MAX);
    }
    for name in believed.names.values() {
        let times =
            [name.registered_at, name.created_at, name.online_at, name.busy_at, name.claim.map(|claim| claim.at)];
        assert!(times.into_iter().flatten().all(|at| at <= now()));
        assert!(name.stale.is_none() && name.never_online.is_none() && name.fenced_at.is_none());
        assert!(name.runner_id.is_none() && name.terminated_at.is_none());
    }
    assert!(believed.mint_failures.is_empty() && believed.create_failures.is_empty());
}

fuzz_target!(|data: &[u8]| {
    let settings = Fingerprint::of("settings");
    if let Ok(believed) = decode(data, settings, now()) {
        check(&believed, settings);
    }
    if let Ok(evidence) = std::str::from_utf8(data) {
        let sha256 =
            hex::encode(Sha256::new().chain_update(1_u64.to_be_bytes()).chain_update(evidence.trim()).finalize());
        let text = format!(r#"{{"version":1,"sha256":"{sha256}","evidence":{evidence}}}"#);
        if let Ok(believed) = decode(text.as_bytes(), settings, now()) {
            check(&believed, settings);
        }
    }
});
