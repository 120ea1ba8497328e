//! GitHub's webhooks, the pure part: whether a delivery is GitHub's, and which run's jobs it speaks of.
//!
//! A webhook is only a nudge. Nothing of a body is looked at before its signature is verified, and all that is taken
//! from it is a repository and a run, which may be read sooner than they would be; what is decided is decided from
//! GitHub's answers. Whoever does not know the secret learns nothing but that he does not.

use hmac::{Hmac, Mac};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;

use crate::ids::{RepoName, RunId};

/// The longest body. A job's payload is about 30 KB; GitHub sends up to 25 MB for events that nobody needs here.
pub const LONGEST_BODY: usize = 1024 * 1024;

const SIGNATURE: &str = "x-hub-signature-256";
const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";
/// GitHub's are 36 characters long.
const LONGEST_DELIVERY: usize = 64;

/// What signs deliveries.
#[derive(Debug, Clone)]
pub struct Secrets {
    current: SecretString,
    /// What GitHub may still sign with while the secret is changed there.
    previous: Option<SecretString>,
}

/// A delivery that is GitHub's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `X-GitHub-Delivery`, the same when it is delivered again.
    pub id: String,
    /// What it says.
    pub nudge: Nudge,
}

/// What a delivery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nudge {
    /// The hook works.
    Ping,
    /// Something happened to the jobs of a run.
    Jobs(Hint),
    /// Something else happened.
    Other,
}

/// Where to look sooner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The repository, allowed or not.
    pub repo: RepoName,
    /// The run.
    pub run: RunId,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too long to be looked at.
    #[error("the body is longer than {LONGEST_BODY} bytes")]
    TooLong,
    /// It carries no signature made with a secret of ours.
    #[error("the signature is missing or wrong: set the same secret at GitHub and here")]
    Signature,
    /// It is signed and is no JSON.
    #[error("the content type is not application/json: choose it in the settings of the webhook")]
    ContentType,
    /// It is signed and lacks a header that GitHub sends.
    #[error("the header `{0}` is missing or malformed")]
    Header(&'static str),
    /// It is signed and its body is not what its event promises.
    #[error("the body is not that of its event")]
    Body,
}

impl Refused {
    /// The reason as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Signature => "signature",
            Self::ContentType => "content_type",
            Self::Header(_) => "header",
            Self::Body => "body",
        }
    }

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Signature => StatusCode::UNAUTHORIZED,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Header(_) | Self::Body => StatusCode::BAD_REQUEST,
        }
    }
}

impl Secrets {
    /// The secret, and the one before while it is changed.
    pub fn new(current: SecretString, previous: Option<SecretString>) -> Self {
        Self { current, previous }
    }

    /// Whether one of the secrets made this signature, found out in a time that tells nothing about either.
    fn have_signed(&self, body: &[u8], signature: &[u8]) -> bool {
        let is_by = |secret: &SecretString| {
            let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes());
            mac.is_ok_and(|mac| mac.chain_update(body).verify_slice(signature).is_ok())
        };
        let by_current = is_by(&self.current);
        let by_previous = self.previous.as_ref().is_some_and(is_by);
        by_current | by_previous
    }
}

/// Reads a request: first its signature over the raw body, then its headers, then its body.
///
/// # Errors
/// [`Refused`] for the first thing that is wrong.
pub fn read(secrets: &Secrets, headers: &HeaderMap, body: &[u8]) -> Result<Delivery, Refused> {
    if body.len() > LONGEST_BODY {
        return Err(Refused::TooLong);
    }
    let signature = only(headers, SIGNATURE).and_then(|text| hex::decode(text.strip_prefix("sha256=")?).ok());
    if !signature.is_some_and(|signature| secrets.have_signed(body, &signature)) {
        return Err(Refused::Signature);
    }
    if !only(headers, CONTENT_TYPE.as_str()).is_some_and(is_json) {
        return Err(Refused::ContentType);
    }
    let id = only(headers, DELIVERY).filter(|id| is_delivery(id)).ok_or(Refused::Header(DELIVERY))?;
    let event = only(headers, EVENT).ok_or(Refused::Header(EVENT))?;
    Ok(Delivery { id: id.to_owned(), nudge: nudge(event, body)? })
}

/// Whether there is a signature of the right form, before anything is read.
pub(super) fn looks_signed(headers: &HeaderMap) -> bool {
    let digits = only(headers, SIGNATURE).and_then(|text| text.strip_prefix("sha256="));
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The value of a header that stands there once; twice it could mean two things to two readers.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn is_delivery(id: &str) -> bool {
    (1..=LONGEST_DELIVERY).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// What is read of a body; old payloads lack much of the rest.
#[derive(Deserialize)]
struct Payload {
    repository: Repository,
    workflow_job: Option<Job>,
    workflow_run: Option<Run>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Job {
    run_id: u64,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
}

fn nudge(event: &str, body: &[u8]) -> Result<Nudge, Refused> {
    let run_of: fn(Payload) -> Option<u64> = match event {
        "ping" => return Ok(Nudge::Ping),
        "workflow_job" => |payload| payload.workflow_job.map(|job| job.run_id),
        "workflow_run" => |payload| payload.workflow_run.map(|run| run.id),
        _ => return Ok(Nudge::Other),
    };
    let payload: Payload = serde_json::from_slice(body).map_err(|_| Refused::Body)?;
    let repo = payload.repository.full_name.parse().map_err(|_| Refused::Body)?;
    let run = RunId(run_of(payload).ok_or(Refused::Body)?);
    Ok(Nudge::Jobs(Hint { repo, run }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: &str = "It's a Secret to Everybody";
    const PREVIOUS: &str = "the one before";
    const JOB: &str =
        r#"{"action":"queued","workflow_job":{"id":1,"run_id":77},"repository":{"full_name":"Acme/Web"}}"#;

    fn secrets() -> Secrets {
        Secrets::new(CURRENT.into(), Some(PREVIOUS.into()))
    }

    fn signature(secret: &str, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    }

    fn headers(event: &str, signature: &str) -> HeaderMap {
        let pairs = [
            (SIGNATURE, signature),
            (EVENT, event),
            (DELIVERY, "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("content-type", "application/json"),
        ];
        pairs.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn signed(event: &str, body: &str) -> Result<Nudge, Refused> {
        let headers = headers(event, &signature(CURRENT, body.as_bytes()));
        read(&secrets(), &headers, body.as_bytes()).map(|delivery| delivery.nudge)
    }

    #[test]
    fn the_example_of_githubs_documentation_is_accepted() {
        let stated = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let read = |signature: &str, body: &[u8]| read(&secrets(), &headers("ping", signature), body);
        let delivery = read(stated, b"Hello, World!").unwrap();
        assert_eq!((delivery.id.as_str(), delivery.nudge), ("72d3162e-cc78-11e3-81ab-4c9367dc0958", Nudge::Ping));
        assert_eq!(read(stated, b"Hello, World?"), Err(Refused::Signature));
    }

    #[test]
    fn both_secrets_count_while_one_replaces_the_other() {
        let by = |secrets: &Secrets, secret| {
            read(secrets, &headers("workflow_job", &signature(secret, JOB.as_bytes())), JOB.as_bytes()).is_ok()
        };
        assert_eq!([CURRENT, PREVIOUS, "neither", ""].map(|secret| by(&secrets(), secret)), [true, true, false, false]);
        let alone = Secrets::new(CURRENT.into(), None);
        assert_eq!([CURRENT, PREVIOUS].map(|secret| by(&alone, secret)), [true, false]);
    }

    #[test]
    fn without_a_right_signature_nothing_else_is_said() {
        let right = signature(CURRENT, JOB.as_bytes());
        let cut = &right[..right.len() - 2];
        let longer = format!("{right}00");
        for wrong in ["", "sha256=", "sha1=00", cut, &longer, &right[7..], "sha256=zz"] {
            let mut headers = headers("workflow_job", wrong);
            assert_eq!(read(&secrets(), &headers, JOB.as_bytes()), Err(Refused::Signature), "{wrong}");
            headers.remove(CONTENT_TYPE);
            headers.remove(DELIVERY);
            assert_eq!(read(&secrets(), &headers, b"no JSON"), Err(Refused::Signature), "{wrong}");
        }
        let mut twice = headers("workflow_job", &right);
        twice.append(SIGNATURE, right.parse().unwrap());
        assert_eq!(read(&secrets(), &twice, JOB.as_bytes()), Err(Refused::Signature));
    }

    #[test]
    fn a_signed_request_is_told_what_is_wrong_with_it() {
        let without = |name: &str, value: Option<&str>| {
            let mut headers = headers("workflow_job", &signature(CURRENT, JOB.as_bytes()));
            headers.remove(name);
            if let Some(value) = value {
                headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            read(&secrets(), &headers, JOB.as_bytes()).map(|delivery| delivery.id)
        };
        assert_eq!(without("content-type", Some("application/x-www-form-urlencoded")), Err(Refused::ContentType));
        assert_eq!(without("content-type", None), Err(Refused::ContentType));
        assert!(without("content-type", Some("Application/JSON; charset=utf-8")).is_ok());
        assert_eq!(without(DELIVERY, None), Err(Refused::Header(DELIVERY)));
        assert_eq!(without(DELIVERY, Some("a\tb")), Err(Refused::Header(DELIVERY)));
        assert_eq!(without(DELIVERY, Some(&"a".repeat(65))), Err(Refused::Header(DELIVERY)));
        assert_eq!(without(EVENT, None), Err(Refused::Header(EVENT)));
    }

    #[test]
    fn a_job_or_a_run_names_what_to_read_and_nothing_else_does() {
        let hint = Nudge::Jobs(Hint { repo: "acme/web".parse().unwrap(), run: RunId(77) });
        assert_eq!(signed("workflow_job", JOB), Ok(hint.clone()));
        let run = r#"{"workflow_run":{"id":77},"repository":{"full_name":"acme/web"}}"#;
        assert_eq!(signed("workflow_run", run), Ok(hint));
        assert_eq!((signed("push", "no JSON"), signed("", JOB)), (Ok(Nudge::Other), Ok(Nudge::Other)));
        for odd in [
            "no JSON",
            "{}",
            run,
            r#"{"workflow_job":{"run_id":-1},"repository":{"full_name":"acme/web"}}"#,
            r#"{"workflow_job":{"run_id":1},"repository":{"full_name":"acme/../web"}}"#,
        ] {
            assert_eq!(signed("workflow_job", odd), Err(Refused::Body), "{odd}");
        }
    }

    #[test]
    fn a_long_body_is_refused_unread() {
        let body = " ".repeat(LONGEST_BODY + 1);
        assert_eq!(signed("ping", &body), Err(Refused::TooLong));
        assert_eq!(signed("ping", &body[1..]), Ok(Nudge::Ping));
    }
}
