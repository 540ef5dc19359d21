//! One type per identifier, so that no bare string crosses a module.
//!
//! Promise: an identifier that exists is well-formed: fixed length, lower-case hex on the wire, a
//! public key that lies on the curve. Ids are made from random bytes that the caller brings.
//!
//! Failure policy: parsing says what was expected and how long the text was, never the text itself
//! (some of these are secrets).

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use nostr::nips::nip19::{FromBech32, ToBech32};
use nostr::secp256k1::XOnlyPublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use zeroize::Zeroize;

use crate::error::{Classified, Kind};
use crate::points;

/// Why a text is not the identifier that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Wrong length or a character outside `[0-9a-f]`.
    #[error("{what}: expected {expected} lower-case hex characters, got {got} characters")]
    Hex {
        /// Which identifier was being read.
        what: &'static str,
        /// Characters that it must have.
        expected: usize,
        /// Characters that came.
        got: usize,
    },
    /// 32 bytes that are no x-only public key (BIP-340).
    #[error("public key: expected a point on secp256k1, got 32 bytes that are none")]
    NotOnCurve,
    /// Neither hex nor npub.
    #[error("public key: expected 64 hex characters or an npub")]
    NotAKey,
    /// A bay number of zero, over 255, or not a plain decimal.
    #[error("bay: expected a whole number from 1 to 255 without leading zeros")]
    Bay,
}

impl Classified for IdError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Lower-case hex of `bytes`.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibble = |n: u8| DIGITS.get(usize::from(n & 15)).map_or('0', |d| char::from(*d));
    bytes.iter().flat_map(|b| [nibble(b >> 4), nibble(*b)]).collect()
}

/// Stands for what is no digit.
const NO_DIGIT: u8 = 16;

/// Exactly `N` bytes from lower-case hex.
///
/// # Errors
/// [`IdError::Hex`] for another length, an upper-case digit or anything that is no hex.
pub fn from_hex<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], IdError> {
    let wrong = || IdError::Hex { what, expected: N.saturating_mul(2), got: text.chars().count() };
    // no branch on a digit: each message has some two hundred of them, read before it is believed
    let digit = |c: u8| match (c.wrapping_sub(b'0'), c.wrapping_sub(b'a')) {
        (n @ 0..=9, _) => n,
        (_, n @ 0..=5) => n.saturating_add(10),
        _ => NO_DIGIT,
    };
    if text.len() != N.saturating_mul(2) {
        return Err(wrong());
    }
    let (mut bytes, mut all) = ([0u8; N], 0);
    for (slot, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return Err(wrong()) };
        let (high, low) = (digit(*high), digit(*low));
        all |= high | low;
        *slot = high << 4 | low;
    }
    if all >= NO_DIGIT {
        return Err(wrong());
    }
    Ok(bytes)
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(&self.to_text())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            #[doc = concat!("Makes a ", $what, " of its ", stringify!($len), " bytes.")]
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            fn to_text(self) -> String {
                to_hex(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                from_hex($what, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_text())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.to_text())
            }
        }

        serde_as_text!($name);
    };
}

hex_id!(
    /// One transaction of one machine, made by its vault: 128 random bits.
    TxnId, 16, "txid"
);
hex_id!(
    /// One RPC request; a retry carries the same id: 128 random bits.
    RequestId, 16, "request id"
);
hex_id!(
    /// One stored quote of the service.
    QuoteId, 16, "quote id"
);
hex_id!(
    /// One withdraw of the service, for ever the same for a (machine, txid).
    WithdrawId, 16, "withdraw id"
);
hex_id!(
    /// One open session of a machine.
    SessionId, 16, "session id"
);
hex_id!(
    /// One push from the service to a machine.
    PushId, 16, "push id"
);
hex_id!(
    /// One change of one bay in a cassette document; applied once.
    ChangeId, 16, "change id"
);
hex_id!(
    /// Makes a statement single use.
    Nonce, 16, "nonce"
);
hex_id!(
    /// SHA-256 of a Lightning preimage.
    PaymentHash, 32, "payment hash"
);
hex_id!(
    /// Id of a Nostr event (NIP-01).
    EventId, 32, "event id"
);
hex_id!(
    /// SHA-256 of a [`ClaimCode`]: all that the service knows of it.
    ClaimHash, 32, "claim hash"
);
hex_id!(
    /// Head of the machine's hash-chained journal.
    JournalHead, 32, "journal head"
);
hex_id!(
    /// SHA-256 of some content.
    Digest, 32, "digest"
);

/// Position in the machine's journal; the first entry is 1, 0 is "nothing yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct JournalSeq(pub u64);

/// A Nostr public key: 32 bytes that are known to lie on the curve.
///
/// `nostr::PublicKey::from_hex` does not check that; every key enters through here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PubKey(nostr::PublicKey);

impl PubKey {
    /// Checks a key of the `nostr` crate.
    ///
    /// # Errors
    /// [`IdError::NotOnCurve`].
    pub fn new(key: nostr::PublicKey) -> Result<Self, IdError> {
        points::of(&key).map(|_| Self(key))
    }

    /// The point on the curve.
    ///
    /// # Errors
    /// [`IdError::NotOnCurve`], which no key that is one gives.
    pub fn point(&self) -> Result<XOnlyPublicKey, IdError> {
        points::of(&self.0)
    }

    /// Reads 64 lower-case hex characters or an npub (NIP-19), as people paste them.
    ///
    /// # Errors
    /// [`IdError::NotAKey`] or [`IdError::NotOnCurve`].
    pub fn from_hex_or_npub(text: &str) -> Result<Self, IdError> {
        if text.starts_with("npub1") {
            let key = nostr::PublicKey::from_bech32(text).map_err(|_| IdError::NotAKey)?;
            return Self::new(key);
        }
        text.parse().map_err(|e| match e {
            IdError::NotOnCurve => e,
            _ => IdError::NotAKey,
        })
    }

    /// The key as the `nostr` crate has it.
    #[must_use]
    pub const fn nostr(&self) -> nostr::PublicKey {
        self.0
    }

    /// The 32 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The NIP-19 spelling, for people.
    #[must_use]
    pub fn npub(&self) -> String {
        match self.0.to_bech32() {
            Ok(npub) => npub,
            Err(never) => match never {},
        }
    }

    fn to_text(self) -> String {
        to_hex(&self.to_bytes())
    }
}

impl FromStr for PubKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = from_hex::<32>("public key", text)?;
        Self::new(nostr::PublicKey::from_byte_array(bytes))
    }
}

impl fmt::Display for PubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for PubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PubKey({})", self.to_text())
    }
}

serde_as_text!(PubKey);

/// Number of a cassette bay, from 1; on the wire a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BayId(NonZeroU8);

impl BayId {
    /// The bay with this number, if it is not 0.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, from 1.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    fn to_text(self) -> String {
        self.0.to_string()
    }
}

impl FromStr for BayId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // one spelling a bay: "01" or "+1" would be a second key for the same cassette
        if text.starts_with(['0', '+']) {
            return Err(IdError::Bay);
        }
        text.parse().map(Self).map_err(|_| IdError::Bay)
    }
}

impl fmt::Display for BayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

serde_as_text!(BayId);

/// The customer's bearer right to whatever is owed on one transaction: 128 random bits that only
/// screen, receipt and invoice memo carry. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Zeroize)]
#[zeroize(drop)]
pub struct ClaimCode([u8; 16]);

impl ClaimCode {
    /// Makes a code of 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What the service may know of it: SHA-256 of the 16 bytes.
    #[must_use]
    pub fn hash(&self) -> ClaimHash {
        use sha2::Digest as _;
        ClaimHash::from_bytes(sha2::Sha256::digest(self.0).into())
    }

    /// The text for screen, receipt and memo: 32 hex characters. A secret: never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        to_hex(&self.0)
    }
}

impl FromStr for ClaimCode {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        from_hex("claim code", text).map(Self)
    }
}

impl fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimCode(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: two spellings of one id would be two rows, so two payments.
    #[test]
    fn only_lower_case_hex_of_the_right_length_is_an_id() {
        let text = "00112233445566778899aabbccddeeff";
        let id: TxnId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(
            "00112233445566778899AABBCCDDEEFF".parse::<TxnId>(),
            Err(IdError::Hex { what: "txid", expected: 32, got: 32 })
        );
        assert!("0011".parse::<TxnId>().is_err());
        assert!("é0112233445566778899aabbccddeef".parse::<TxnId>().is_err());
        for c in (0..=255).map(char::from) {
            let at = "0123456789abcdef".chars().position(|digit| digit == c);
            let expected = at.and_then(|n| u8::try_from(n).ok()).map(|n| [n << 4 | n]);
            assert_eq!(from_hex("byte", &format!("{c}{c}")).ok(), expected, "{c:?}");
            assert_eq!(from_hex::<1>("byte", &format!("0{c}")).is_ok(), at.is_some(), "{c:?}");
            assert_eq!(from_hex::<1>("byte", &format!("{c}0")).is_ok(), at.is_some(), "{c:?}");
        }
    }

    /// Loss prevented: a key off the curve in the roster makes every later signature check fail.
    #[test]
    fn a_key_off_the_curve_is_refused() {
        assert_eq!("f".repeat(64).parse::<PubKey>(), Err(IdError::NotOnCurve));
        let good = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let key: PubKey = good.parse().unwrap();
        assert_eq!(PubKey::from_hex_or_npub(&key.npub()), Ok(key));
        assert_eq!(PubKey::from_hex_or_npub("npub1nothing"), Err(IdError::NotAKey));
    }

    /// Loss prevented: "1" and "01" as two bays double the notes on paper.
    #[test]
    fn a_bay_has_one_spelling() {
        assert_eq!("1".parse::<BayId>().unwrap().get(), 1);
        for text in ["0", "01", "+1", "-1", "256", "1.0", "", " 1"] {
            assert_eq!(text.parse::<BayId>(), Err(IdError::Bay), "{text:?}");
        }
    }

    /// Loss prevented: a claim code in a log is money for whoever reads it.
    #[test]
    fn debug_of_a_claim_code_shows_nothing() {
        let code = ClaimCode::from_bytes([0xab; 16]);
        assert!(!format!("{code:?}").contains("ab"), "{code:?}");
        assert_eq!(code.expose().parse::<ClaimCode>().unwrap().hash(), code.hash());
    }
}
