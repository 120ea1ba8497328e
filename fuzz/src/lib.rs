//! What the fuzz targets share: requests and answers as text, so that the corpus can be read and written by hand.

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Splits `name: value` lines from the body after the first empty line; lines that are no header are left out.
#[must_use]
pub fn message(data: &[u8]) -> (HeaderMap, &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 2..]));
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in head.split(|byte| *byte == b'\n').filter_map(header).take(100) {
        headers.append(name, value);
    }
    (headers, body)
}

/// The time of every run.
#[must_use]
pub fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// Fails where a text of ours holds more than one line, or what could forge one.
///
/// # Panics
/// Where it does.
pub fn assert_one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "more than one line: {text:?}");
}
