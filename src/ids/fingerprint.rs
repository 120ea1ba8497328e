//! Short numbers that stand for texts.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::InvalidId;

/// Sixteen hexadecimal digits that stand for a text or a set of texts, such as labels in tags and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Stands for one text.
    pub fn of(text: &str) -> Self {
        fingerprint(&[text])
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId { value: text.to_owned(), expected: "a fingerprint: 16 hexadecimal digits" };
        if text.len() != 16 {
            return Err(invalid());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| invalid())
    }
}

/// The first 64 bits of a SHA-256 over the parts, each closed by a zero byte.
pub(super) fn fingerprint(parts: &[&str]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    Fingerprint(u64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes")))
}
