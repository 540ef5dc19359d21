//! Canonical JSON and signed strings.
//!
//! Promise: one value has one text (RFC 8785 restricted to integers), so a signature made on one
//! side verifies on the other. Signatures over strings are BIP-340 over SHA-256 of the UTF-8 text.
//!
//! Failure policy: a float, or an integer beyond 2^53 - 1, is refused when writing and when
//! checking, never rounded.

use nostr::SECP256K1;
use nostr::secp256k1::Message;
use nostr::secp256k1::schnorr::Signature;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::ids::{Digest, PubKey, from_hex, to_hex};

/// The largest integer that every JSON reader keeps exact: 2^53 - 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why a value has no canonical form, or a signature does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CanonicalError {
    /// The value does not serialise at all.
    #[error("cannot be written as JSON: {0}")]
    Json(String),
    /// A number that is no integer within +-(2^53 - 1).
    #[error("expected integers within 2^53 - 1, got {0}")]
    Number(String),
    /// A key beyond ASCII: RFC 8785 sorts by UTF-16, we sort bytes; ours are all ASCII.
    #[error("expected ASCII keys, got {0:?}")]
    Key(String),
    /// The signature is not the named key's over this text.
    #[error("signature over {what} is not by {expected}")]
    BadSignature {
        /// What was signed.
        what: &'static str,
        /// Whose signature it should be.
        expected: PubKey,
    },
}

impl Classified for CanonicalError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// The canonical text of `value`: sorted keys, no white space, integers only.
///
/// # Errors
/// [`CanonicalError`] for floats, huge integers and keys beyond ASCII.
pub fn to_canonical<T: Serialize>(value: &T) -> Result<String, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|e| CanonicalError::Json(e.to_string()))?;
    canonical_text(&value)
}

/// [`to_canonical`] of what is JSON already: nothing is copied but into the text.
///
/// # Errors
/// As [`to_canonical`].
pub fn canonical_text(value: &Value) -> Result<String, CanonicalError> {
    check(value)?;
    // serde_json's map is sorted (no `preserve_order`), its writer escapes as RFC 8785 does
    serde_json::to_string(value).map_err(|e| CanonicalError::Json(e.to_string()))
}

fn check(value: &Value) -> Result<(), CanonicalError> {
    match value {
        Value::Number(n) => {
            let magnitude = n.as_u64().or_else(|| n.as_i64().map(i64::unsigned_abs));
            if magnitude.is_some_and(|m| m <= MAX_INTEGER) {
                return Ok(());
            }
            Err(CanonicalError::Number(n.to_string()))
        }
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            if key.is_ascii() { check(value) } else { Err(CanonicalError::Key(key.clone())) }
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// SHA-256 of a text.
#[must_use]
pub fn sha256(text: &str) -> Digest {
    Digest::from_bytes(Sha256::digest(text.as_bytes()).into())
}

/// A BIP-340 signature, 128 lower-case hex characters on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sig(Signature);

impl Sig {
    /// Signs SHA-256 of `text`.
    #[must_use]
    pub fn over(text: &str, keys: &nostr::Keys) -> Self {
        Self(keys.sign_schnorr(&digest_of(text)))
    }

    /// Checks that `key` signed SHA-256 of `text`.
    ///
    /// # Errors
    /// [`CanonicalError::BadSignature`], naming `what` was signed.
    pub fn verify(
        &self,
        what: &'static str,
        text: &str,
        key: &PubKey,
    ) -> Result<(), CanonicalError> {
        let wrong = CanonicalError::BadSignature { what, expected: *key };
        let point = key.point().map_err(|_| wrong.clone())?;
        SECP256K1.verify_schnorr(&self.0, &digest_of(text), &point).map_err(|_| wrong)
    }
}

impl Sig {
    /// The 64 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 64] {
        self.0.serialize()
    }

    /// A signature of its 64 bytes.
    ///
    /// # Errors
    /// [`IdError::Hex`](crate::ids::IdError::Hex) for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, crate::ids::IdError> {
        let got = bytes.len().saturating_mul(2);
        let wrong = crate::ids::IdError::Hex { what: "signature", expected: 128, got };
        Signature::from_slice(bytes).map(Self).map_err(|_| wrong)
    }

    /// That of an event.
    pub(crate) const fn of(event: &nostr::Event) -> Self {
        Self(event.sig)
    }

    pub(crate) const fn to_nostr(self) -> Signature {
        self.0
    }
}

fn digest_of(text: &str) -> Message {
    Message::from_digest(Sha256::digest(text.as_bytes()).into())
}

impl std::fmt::Debug for Sig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sig({})", to_hex(&self.0.serialize()))
    }
}

impl Serialize for Sig {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&to_hex(&self.0.serialize()))
    }
}

impl<'de> Deserialize<'de> for Sig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        let bytes = from_hex::<64>("signature", &text).map_err(de::Error::custom)?;
        Signature::from_slice(&bytes).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Loss prevented: two texts of one body make a good signature look forged.
    #[test]
    fn keys_are_sorted_and_nothing_is_added() {
        let value = json!({"b": [1, -2, null, true], "a": {"z": "\u{e9}\n\"", "y": 0}});
        let text = to_canonical(&value).unwrap();
        assert_eq!(text, "{\"a\":{\"y\":0,\"z\":\"\u{e9}\\n\\\"\"},\"b\":[1,-2,null,true]}");
        let again: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(to_canonical(&again).unwrap(), text);
    }

    /// Loss prevented: an amount beyond 2^53 that another reader rounds is another amount.
    #[test]
    fn floats_and_huge_integers_are_refused() {
        assert!(matches!(to_canonical(&json!({"a": 0.5})), Err(CanonicalError::Number(_))));
        assert!(matches!(to_canonical(&json!(MAX_INTEGER + 1)), Err(CanonicalError::Number(_))));
        assert!(to_canonical(&json!(MAX_INTEGER)).is_ok());
        assert!(matches!(to_canonical(&json!({"\u{e9}": 1})), Err(CanonicalError::Key(_))));
    }

    /// Loss prevented: a signature taken for another text or another key's.
    #[test]
    fn a_signature_holds_for_its_text_and_key_only() {
        let keys = nostr::Keys::parse(&"01".repeat(32)).unwrap();
        let other = nostr::Keys::parse(&"02".repeat(32)).unwrap();
        let key = PubKey::new(keys.public_key()).unwrap();
        let sig = Sig::over("bitspire-quote:v1:1", &keys);
        assert_eq!(sig.verify("quote", "bitspire-quote:v1:1", &key), Ok(()));
        assert!(sig.verify("quote", "bitspire-quote:v1:2", &key).is_err());
        let key = PubKey::new(other.public_key()).unwrap();
        assert!(sig.verify("quote", "bitspire-quote:v1:1", &key).is_err());
        let wire = serde_json::to_string(&sig).unwrap();
        assert_eq!(serde_json::from_str::<Sig>(&wire).unwrap(), sig);
    }
}
