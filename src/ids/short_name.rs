//! Short names that the operator gives, and that are part of every name of ours.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::InvalidId;

/// The longest short name, in bytes.
const SHORT_MAX: usize = 12;

fn is_short_name(text: &str) -> bool {
    (1..=SHORT_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        // Held in place, filled up with zeros, because names with two of them are compared by the thousands.
        #[derive(Clone)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The name as text.
            ///
            /// # Panics
            /// Never: the constructor admits only ASCII.
            pub fn as_str(&self) -> &str {
                let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(SHORT_MAX);
                std::str::from_utf8(&self.0[..end]).expect("the constructor admits only ASCII")
            }

            /// A number in the order of the texts.
            fn rank(&self) -> u128 {
                u128::from_be_bytes(self.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.rank() == other.rank()
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.rank().cmp(&other.rank())
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.rank().hash(state);
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if !is_short_name(text) {
                    return Err(InvalidId { value: text.to_owned(), expected: $expected });
                }
                let mut bytes = [0; 16];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

short_name! {
    /// The name of one installation of Sandrunner; part of every name it gives.
    Deployment, "a deployment name: 1 to 12 characters of a-z and 0-9"
}
short_name! {
    /// The name of one configured GitHub account; part of every name it gives.
    AccountName, "an account name: 1 to 12 characters of a-z and 0-9"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_ordered_like_their_texts() {
        let texts = ["0", "1a", "a", "a0", "aa", "aaaaaaaaaaaa", "b", "z9"];
        let names: Vec<AccountName> = texts.iter().map(|text| text.parse().unwrap()).collect();
        assert!(names.is_sorted() && names.iter().zip(texts).all(|(name, text)| name.as_str() == text));
        assert!("aaaaaaaaaaaaa".parse::<AccountName>().is_err() && "".parse::<Deployment>().is_err());
    }
}
