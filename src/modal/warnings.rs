//! What Modal tells its clients in passing: each distinct text is logged once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::MetadataMap;
use tracing::warn;

use super::error::plain;
use crate::error::redact;

/// How many texts are remembered; more than that are not worth the log's space either.
const TEXTS_MAX: usize = 100;

/// The texts logged so far.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    texts: Mutex<BTreeSet<String>>,
    secrets: Arc<[SecretString]>,
}

impl Warnings {
    /// Has logged nothing, and never logs one of `secrets`.
    pub(super) fn new(secrets: Arc<[SecretString]>) -> Self {
        Self { texts: Mutex::default(), secrets }
    }

    /// Logs what the trailers of an answer hold: percent-encoded texts, repeated or joined by commas.
    pub(super) fn note_trailers(&self, trailers: &MetadataMap) {
        for value in trailers.get_all("x-modal-warning") {
            for text in value.as_encoded_bytes().split(|byte| *byte == b',') {
                self.note(&percent_decoded(text));
            }
        }
    }

    /// Logs a text unless it is known.
    pub(super) fn note(&self, text: &str) {
        let secrets = self.secrets.iter().map(ExposeSecret::expose_secret);
        let text = plain(&secrets.fold(text.to_owned(), |text, secret| redact(&text, secret)));
        if !text.is_empty() && self.is_new(&text) {
            warn!(warning = text, "Modal warns this client");
        }
    }

    fn is_new(&self, text: &str) -> bool {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.len() < TEXTS_MAX && texts.insert(text.to_owned())
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let mut decoded = [0];
        if first == b'%' && tail.get(..2).is_some_and(|digits| hex::decode_to_slice(digits, &mut decoded).is_ok()) {
            bytes.push(decoded[0]);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_new_once_however_it_arrives() {
        let warnings = Warnings::new([SecretString::from("as-0123456789")].into());
        let mut trailers = MetadataMap::new();
        trailers.append("x-modal-warning", "old%20client%2C%20sorry,quota".parse().unwrap());
        trailers.append("x-modal-warning", "quota".parse().unwrap());
        trailers.append("x-modal-warning", "as-0123456789%20is%20old".parse().unwrap());
        warnings.note_trailers(&trailers);
        let texts = warnings.texts.lock().unwrap().clone();
        assert_eq!(texts, BTreeSet::from(["old client, sorry", "quota", "[redacted] is old"].map(str::to_owned)));
        assert!(!warnings.is_new("quota"));
    }

    #[test]
    fn a_flood_of_texts_is_cut() {
        let warnings = Warnings::default();
        let new = (0..1000).filter(|n| warnings.is_new(&n.to_string())).count();
        assert_eq!(new, TEXTS_MAX);
    }

    #[test]
    fn broken_encodings_are_left_as_they_are() {
        for (text, expected) in
            [("100%", "100%"), ("%zz", "%zz"), ("%4", "%4"), ("%+1", "%+1"), ("%41", "A"), ("%E2%9C%93", "✓")]
        {
            assert_eq!(percent_decoded(text.as_bytes()), expected);
        }
    }
}
