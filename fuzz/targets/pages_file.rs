//! The file of kept pages: any bytes, and any pages with the right checksum. What is believed once is written and read as
//! it is, whatever its rows say, and nobody else's pages are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandrunner::github::{PAGES_LONGEST, pages_kept_again};
use sha2::{Digest, Sha256};

const URL: &str = "https://api.github.com";
/// The corpus names its credential.
const TOKEN: &str = "ghp_fuzz";

fn check(text: &str) {
    let Ok((count, kept)) = pages_kept_again(text, URL, TOKEN) else { return };
    let Some(kept) = kept else {
        assert!(text.len() > PAGES_LONGEST / 16, "a short text became too long");
        return;
    };
    let (again, same) = pages_kept_again(&kept, URL, TOKEN).expect("it was just written");
    // Of two pages of one path the later one is believed.
    assert!(again <= count);
    assert_eq!(same.as_deref(), Some(&*kept));
    let (others, _) = pages_kept_again(&kept, URL, "ghp_other").expect("as before");
    assert_eq!(others, 0);
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check(text);
    let pages = text.trim();
    let sha256 = hex::encode(Sha256::new().chain_update(1_u64.to_be_bytes()).chain_update(pages).finalize());
    check(&format!(r#"{{"version":1,"sha256":"{sha256}","pages":{pages}}}"#));
});
