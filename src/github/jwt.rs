//! The tokens by which a GitHub App proves that it is itself: signed with its private key, good for minutes (pure).

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

/// How long before its making a token says that it was made: GitHub refuses one from the future (GitHub docs:
/// generating a JSON web token for a GitHub App).
const BACKDATED: TimeDelta = TimeDelta::seconds(60);
/// How long after its making it ends; GitHub takes ten minutes at most.
const LIFETIME: TimeDelta = TimeDelta::minutes(9);

/// The private key of a GitHub App.
#[derive(Clone)]
pub struct AppKey(EncodingKey);

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppKey([redacted])")
    }
}

/// A text that is no private key of a GitHub App; nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an RSA private key in PEM form")]
pub struct InvalidKey;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
    exp: i64,
}

impl AppKey {
    /// Reads a key as GitHub gives it for download (PKCS#1), or in the other usual form (PKCS#8), and tries it.
    ///
    /// # Errors
    /// [`InvalidKey`] for everything else, such as a public key or one of another kind.
    pub fn read(pem: &str) -> Result<Self, InvalidKey> {
        let key = EncodingKey::from_rsa_pem(pem.trim().as_bytes()).map_err(|_| InvalidKey)?;
        let key = Self(key);
        key.sign("0", DateTime::UNIX_EPOCH)?;
        Ok(key)
    }

    /// Whether both sign alike: what one key signs is the same each time (RFC 8017: RSASSA-PKCS1-v1_5).
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let signed = |key: &Self| key.sign("0", DateTime::UNIX_EPOCH).map(|text| text.expose_secret().to_owned());
        signed(self).is_ok() && signed(self) == signed(other)
    }

    /// A token of the App with that id, made at `now` by GitHub's clock.
    ///
    /// # Errors
    /// [`InvalidKey`] where the key cannot sign.
    pub(super) fn sign(&self, app_id: &str, now: DateTime<Utc>) -> Result<SecretString, InvalidKey> {
        let (iat, exp) = ((now - BACKDATED).timestamp(), (now + LIFETIME).timestamp());
        let claims = Claims { iss: app_id, iat, exp };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.0).map_err(|_| InvalidKey)?;
        Ok(token.into())
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use secrecy::ExposeSecret;
    use serde::Deserialize;

    use super::*;

    const PKCS1: &str = include_str!("../../tests/data/github-app/test-key.pkcs1.pem");
    const PKCS8: &str = include_str!("../../tests/data/github-app/test-key.pkcs8.pem");
    const PUBLIC: &str = include_str!("../../tests/data/github-app/test-key.public.pem");

    #[derive(Debug, PartialEq, Deserialize)]
    struct Claimed {
        iss: String,
        iat: i64,
        exp: i64,
    }

    #[test]
    fn both_forms_of_a_key_sign_what_its_public_half_verifies() {
        for pem in [PKCS1, PKCS8, &format!("\n  {PKCS1}\n\n")] {
            let now = DateTime::from_timestamp(1_800_000_000, 500).unwrap();
            let token = AppKey::read(pem).unwrap().sign("Iv23liABC", now).unwrap();
            let mut validation = Validation::new(Algorithm::RS256);
            validation.validate_exp = false;
            let public = DecodingKey::from_rsa_pem(PUBLIC.as_bytes()).unwrap();
            let decoded = jsonwebtoken::decode::<Claimed>(token.expose_secret(), &public, &validation).unwrap();
            let claimed = Claimed { iss: "Iv23liABC".into(), iat: 1_799_999_940, exp: 1_800_000_540 };
            assert_eq!((decoded.claims, decoded.header.alg), (claimed, Algorithm::RS256));
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_and_not_repeated() {
        let cut = &PKCS1[..PKCS1.len() / 2];
        let broken = PKCS1.replacen("MII", "AII", 1);
        for odd in ["", "ghp_canary", PUBLIC, cut, &broken] {
            let refused = AppKey::read(odd).unwrap_err();
            assert_eq!(refused.to_string(), "is not an RSA private key in PEM form");
        }
        assert_eq!(format!("{:?}", AppKey::read(PKCS8).unwrap()), "AppKey([redacted])");
    }
}
