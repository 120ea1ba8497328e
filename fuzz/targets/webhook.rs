//! Webhook requests, headers and body: nothing is accepted without a signature, whatever else is right.
#![no_main]

use hmac::{Hmac, Mac};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use sandrunner::http::webhook::{LONGEST_BODY, Nudge, Refused, Secrets, read};
use sandrunner_fuzz::{assert_one_line, message};
use sha2::Sha256;

const SIGNATURE: &str = "x-hub-signature-256";
const SECRET: &str = "It's a Secret to Everybody";
const PREVIOUS: &str = "the one before";

fn signature(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do").chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let mut given = headers.get_all(SIGNATURE).iter();
    let (Some(first), None) = (given.next(), given.next()) else { return false };
    [SECRET, PREVIOUS].iter().any(|secret| first.as_bytes().eq_ignore_ascii_case(signature(secret, body).as_bytes()))
}

fuzz_target!(|data: &[u8]| {
    let (mut headers, body) = message(data);
    let secrets = Secrets::new(SECRET.into(), Some(PREVIOUS.into()));
    let as_it_came = read(&secrets, &headers, body);
    if body.len() > LONGEST_BODY {
        assert_eq!(as_it_came, Err(Refused::TooLong));
        return;
    }
    assert_eq!(as_it_came != Err(Refused::Signature), is_signed(&headers, body));

    headers.insert(SIGNATURE, signature(SECRET, body).parse().expect("hexadecimal digits"));
    assert_eq!(read(&Secrets::new("another".into(), None), &headers, body), Err(Refused::Signature));
    match read(&secrets, &headers, body) {
        Ok(delivery) => {
            assert!((1..=64).contains(&delivery.id.len()));
            assert_one_line(&delivery.id);
            if let Nudge::Jobs(hint) = delivery.nudge {
                assert!(headers["x-github-event"].as_bytes().starts_with(b"workflow_"));
                assert_eq!(hint.repo.as_str().parse(), Ok(hint.repo.clone()));
            }
        }
        Err(refused) => assert!(refused != Refused::Signature && refused.status().is_client_error()),
    }
});
