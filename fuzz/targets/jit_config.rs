//! Answers of `generate-jitconfig`: what is wrong with one is told by its place, without a part of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandrunner::github::Malformed;
use sandrunner::github::answers::read_jit_config;
use secrecy::ExposeSecret;

fuzz_target!(|body: &[u8]| {
    match read_jit_config(body) {
        Ok((minted, _)) => {
            let config = minted.config.expose_secret();
            assert!(!config.is_empty() && config.is_ascii());
            assert!(config.len() < 8 || !format!("{minted:?}").contains(config));
        }
        Err(Malformed::Json { what, .. }) => assert!(["the answer", "the JIT config"].contains(&what)),
        Err(error) => assert!(matches!(error, Malformed::Base64 | Malformed::NoFiles), "{error}"),
    }
});
