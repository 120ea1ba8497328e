//! Takes out of a text what looks like a secret (pure): it comes from machines on which others run programs.

/// What stands in place of it.
const MASK: &str = "[redacted]";
/// How GitHub's tokens begin, wherever in a word.
const GITHUB_TOKENS: [&str; 6] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"];
/// How Modal's begin, at the beginning of a word or after a character that is neither letter nor digit: `task-…` is none.
const MODAL_TOKENS: [&str; 2] = ["ak-", "as-"];
/// So much of a token follows its beginning at least.
const TOKEN_REST_MIN: usize = 16;
/// A word of base64 that is as long is more than a name; a line of it has 64 or 76. Digests have no capitals.
const BASE64_MIN: usize = 64;
/// JSON in base64, as just-in-time configs and web tokens are, begins with this.
const JSON_BASE64: &str = "eyJ";
/// What is shorter holds nothing worth hiding.
const JSON_BASE64_MIN: usize = 20;
/// What is before and after the kind of a PEM block, and how its end begins.
const PEM: (&str, &str, &str) = ("-----BEGIN ", "-----", "-----END ");

/// The text without what looks like a token, a web token, a just-in-time config or a private key, and without control
/// characters, which would change the terminal of whoever reads it and could hide where a token begins.
pub(super) fn masked(text: &str) -> String {
    let text = without_controls(text);
    let mut masked = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = around_key(rest) {
        mask_words(before, &mut masked);
        masked.push_str(MASK);
        rest = after;
    }
    mask_words(rest, &mut masked);
    masked
}

/// The text without control characters and without the sequences that set colours.
fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            // Parameters, then one character that ends them.
            while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
            chars.next_if(|c| ('@'..='~').contains(c));
        } else if matches!(c, '\n' | '\t') || !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

/// What is before and after the first private key; what is cut off is all of the key.
fn around_key(text: &str) -> Option<(&str, &str)> {
    let (begin, close, end) = PEM;
    for (at, _) in text.match_indices(begin) {
        let rest = &text[at + begin.len()..];
        let line = rest.lines().next().unwrap_or_default();
        let kind = line.split(close).next().unwrap_or_default();
        if kind.contains("PRIVATE KEY") {
            let ending = rest.split_once(end).map_or("", |(_, ending)| ending);
            return Some((&text[..at], ending.split_once(close).map_or("", |(_, after)| after)));
        }
    }
    None
}

fn mask_words(text: &str, masked: &mut String) {
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        masked.push_str(if is_secret(word) { MASK } else { word });
        let next = tail.find(is_of_word).unwrap_or(tail.len());
        masked.push_str(&tail[..next]);
        rest = &tail[next..];
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-+/.=".contains(c)
}

fn is_secret(word: &str) -> bool {
    let is_long =
        |rest: &str| rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count() >= TOKEN_REST_MIN;
    let has_github_token = || {
        GITHUB_TOKENS.iter().any(|begin| word.match_indices(begin).any(|(at, _)| is_long(&word[at + begin.len()..])))
    };
    let is_boundary = |at: usize| at == 0 || !word.as_bytes()[at - 1].is_ascii_alphanumeric();
    let mut tails = (0..word.len()).filter(|at| is_boundary(*at)).map(|at| &word[at..]);
    let begins_secret = |tail: &str| {
        MODAL_TOKENS.iter().any(|begin| tail.strip_prefix(begin).is_some_and(is_long))
            || tail.starts_with(JSON_BASE64) && tail.len() >= JSON_BASE64_MIN
    };
    let is_base64 = |part: &str| {
        let has = |is: fn(&u8) -> bool| part.as_bytes().iter().any(is);
        part.len() >= BASE64_MIN
            && !part.contains('.')
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit)
    };
    // An assignment, as in `KEY=MIIE…`, is one word here.
    has_github_token() || tails.any(begins_secret) || word.split('=').any(is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_the_rest_stays() {
        let config = format!("eyJ{}==", "Ab3".repeat(40));
        let line = "Qm9".repeat(25) + "x";
        for (text, expected) in [
            (format!("config: {config}, end"), "config: [redacted], end".to_owned()),
            (format!("SANDRUNNER_JITCONFIG={config}"), "[redacted]".to_owned()),
            (format!("{line}\n{line}\n"), "[redacted]\n[redacted]\n".to_owned()),
            ("with ghp_0123456789abcdefABCD!".to_owned(), "with [redacted]!".to_owned()),
            ("as-0123456789abcdefABCDE".to_owned(), "[redacted]".to_owned()),
            (
                "https://ghp_0123456789abcdefABCD@github.com/acme/web/".to_owned(),
                "https:[redacted]@github.com/acme/web/".to_owned(),
            ),
            ("-ghp_0123456789abcdefABCD .ghs_0123456789abcdefABCD".to_owned(), "[redacted] [redacted]".to_owned()),
            ("xghp_0123456789abcdefABCD".to_owned(), "[redacted]".to_owned()),
            (format!("get /{config} by-ak-0123456789abcdefABCDE"), "get [redacted] [redacted]".to_owned()),
            ("\u{1b}[31mas-0123456789abcdefABCDE\u{1b}[0m".to_owned(), "[redacted]".to_owned()),
            (format!("{}\n", "Qm9y".repeat(15) + "1234"), "[redacted]\n".to_owned()),
        ] {
            assert_eq!(masked(&text), expected);
        }
        let digest = "0123456789abcdef".repeat(8);
        for plain in [
            "2026-11-22 10:00:00Z: Listening for Jobs\n",
            "as-is, ak-47 and ghp_short",
            "/opt/actions-runner/bin/Runner.Listener in /usr/share/a/very/long/path/of/lower/case/names/only/for/this",
            &digest,
            "√ Connected to GitHub\n\tindented\n",
        ] {
            assert_eq!(masked(plain), plain);
        }
        assert_eq!(masked("a\u{1b}[31mred\u{1b}[0;1m\u{7}\r\n\u{1b}"), "ared\n");
    }

    #[test]
    fn a_private_key_is_taken_out_up_to_its_end_or_that_of_the_text() {
        let key = |kind: &str| format!("-----BEGIN {kind}-----\nMIIE\nabc=\n-----END {kind}-----");
        let certificate = key("CERTIFICATE");
        for (text, expected) in [
            (format!("a {} b {} c", key("RSA PRIVATE KEY"), key("PRIVATE KEY")), "a [redacted] b [redacted] c"),
            (format!("{certificate}\n{}", key("OPENSSH PRIVATE KEY")), &*format!("{certificate}\n[redacted]")),
            ("a\n-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIV".to_owned(), "a\n[redacted]"),
            ("a\n-----BEGIN EC PRIVATE KEY".to_owned(), "a\n[redacted]"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY-----\\n\"".to_owned(),
                "[redacted]\\n\"",
            ),
        ] {
            assert_eq!(masked(&text), expected);
        }
    }
}
