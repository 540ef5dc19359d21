//! Encryption between two keys: NIP-44 version 2, as text on the wire.
//!
//! Promise: a [`ConversationKey`] encrypts with the nonce that it is given and decrypts only what
//! is version 2, of a legal length and unchanged on the way. Deriving one costs 30 times what using
//! it costs, so callers keep them; nothing is cached here. The `nostr` crate does the cipher; the
//! base64, the lengths and the version byte are checked here, since its byte functions take a
//! payload of any version.
//!
//! The key that rests in a [`ConversationKey`] is wiped when it is dropped. The `nostr` crate's own
//! key type is `Copy` and cannot be wiped: the copies that it makes on the stack while it encrypts
//! or decrypts stay there until something overwrites them.
//!
//! Failure policy: what does not decrypt is a [`Nip44Error`] that names the first thing that is
//! wrong and shows neither key nor text.

mod message;

use std::fmt;

use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::STANDARD;
use nostr::hashes::Hash as _;
use nostr::nips::nip44::{Error as NostrError, v2};
use nostr::secp256k1::rand::{Error as RandError, RngCore};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::{Classified, Kind};
use crate::ids::PubKey;

pub use message::MessageKeys;

/// The longest plaintext in bytes. NIP-44 allows 65 535; the padding that the `nostr` crate can
/// write ends at 65 408.
pub const MAX_PLAINTEXT: usize = 65_408;
/// Characters of the shortest payload: base64 of 1 + 32 + 34 + 32 bytes.
const MIN_PAYLOAD: usize = 132;
/// Characters of the longest payload: base64 of 1 + 32 + 65 538 + 32 bytes.
const MAX_PAYLOAD: usize = 87_472;
/// The version byte of NIP-44 v2.
const VERSION: u8 = 2;

/// Why a text is not encrypted, or a payload not decrypted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Nip44Error {
    /// Empty, or longer than the padding reaches.
    #[error("NIP-44: expected a plaintext of 1 to {MAX_PLAINTEXT} bytes, got {got}")]
    Plaintext {
        /// Bytes of the text.
        got: usize,
    },
    /// Too short or too long to be a payload.
    #[error("NIP-44: expected a payload of {MIN_PAYLOAD} to {MAX_PAYLOAD} characters, got {got}")]
    Length {
        /// Characters that came.
        got: usize,
    },
    /// Not base64 with padding (RFC 4648 section 4).
    #[error("NIP-44: expected a base64 payload")]
    Base64,
    /// Another version of NIP-44, or none.
    #[error("NIP-44: expected version 2, got {got}")]
    Version {
        /// The first byte of the payload.
        got: u8,
    },
    /// For or from another key, or changed on the way.
    #[error("NIP-44: the payload is not authentic for this pair of keys")]
    Mac,
    /// Authentic, but the length inside does not fit the padding.
    #[error("NIP-44: the padding does not fit the length that it names")]
    Padding,
    /// Authentic, but no text.
    #[error("NIP-44: expected UTF-8")]
    Utf8,
    /// The cipher did not do what was asked of it.
    #[error("NIP-44: {0}")]
    Cipher(String),
}

impl Classified for Nip44Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Plaintext { .. } => Kind::Misuse,
            _ => Kind::Permanent,
        }
    }
}

/// The key that two parties share; the same from either side.
#[derive(Clone)]
pub struct ConversationKey(Zeroizing<[u8; 32]>);

impl ConversationKey {
    /// Derives the key between our secret and the other side's public key.
    ///
    /// # Errors
    /// [`Nip44Error::Cipher`] where no shared point exists; with a checked [`PubKey`] one does.
    pub fn derive(secret: &nostr::SecretKey, peer: &PubKey) -> Result<Self, Nip44Error> {
        let key = v2::ConversationKey::derive(secret, &peer.nostr())
            .map_err(|e| Nip44Error::Cipher(e.to_string()))?;
        Ok(Self(Zeroizing::new(key.to_byte_array())))
    }

    /// Encrypts `plaintext` to the payload that goes into an event's content.
    ///
    /// `nonce` is 32 fresh random bytes: two texts under one nonce give each other away.
    ///
    /// # Errors
    /// [`Nip44Error::Plaintext`] for an empty or too long text.
    pub fn encrypt(&self, plaintext: &str, nonce: [u8; 32]) -> Result<String, Nip44Error> {
        let got = plaintext.len();
        if !(1..=MAX_PLAINTEXT).contains(&got) {
            return Err(Nip44Error::Plaintext { got });
        }
        let mut source = OneNonce(nonce);
        let payload = v2::encrypt_to_bytes_with_rng(&mut source, &self.key(), plaintext.as_bytes())
            .map_err(|e| Nip44Error::Cipher(e.to_string()))?;
        if payload.get(1..33) != Some(nonce.as_slice()) {
            return Err(Nip44Error::Cipher("the payload does not carry the nonce given".into()));
        }
        Ok(STANDARD.encode(payload))
    }

    /// Decrypts a payload that the other side, or we, encrypted.
    ///
    /// # Errors
    /// The first [`Nip44Error`] that applies; nothing is allocated for a payload of illegal length.
    pub fn decrypt(&self, payload: &str) -> Result<String, Nip44Error> {
        let bytes = decoded(payload)?;
        let text = v2::decrypt_to_bytes(&self.key(), &bytes).map_err(|e| match e {
            NostrError::V2(v2::ErrorV2::InvalidHmac) => Nip44Error::Mac,
            NostrError::V2(v2::ErrorV2::InvalidPadding | v2::ErrorV2::MessageEmpty) => {
                Nip44Error::Padding
            }
            other => Nip44Error::Cipher(other.to_string()),
        })?;
        String::from_utf8(text).map_err(|_| Nip44Error::Utf8)
    }

    fn key(&self) -> v2::ConversationKey {
        v2::ConversationKey::new(*self.0)
    }
}

/// The bytes of a payload of legal length and version 2.
fn decoded(payload: &str) -> Result<Vec<u8>, Nip44Error> {
    let got = payload.len();
    if !(MIN_PAYLOAD..=MAX_PAYLOAD).contains(&got) {
        return Err(Nip44Error::Length { got });
    }
    let bytes = STANDARD.decode(payload).map_err(|_| Nip44Error::Base64)?;
    match bytes.first() {
        Some(&VERSION) => Ok(bytes),
        other => Err(Nip44Error::Version { got: other.copied().unwrap_or(0) }),
    }
}

impl fmt::Debug for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConversationKey(redacted)")
    }
}

/// The given nonce in the shape of the generator that the `nostr` crate asks for: it reads 32 bytes
/// once. [`ConversationKey::encrypt`] checks afterwards that they are the nonce used.
struct OneNonce([u8; 32]);

impl RngCore for OneNonce {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for (slot, byte) in dest.iter_mut().zip(self.0) {
            *slot = byte;
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), RandError> {
        self.fill_bytes(dest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nostr::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::from_hex;

    /// `(sec1, sec2, nonce, plaintext, payload)` of the NIP's own vectors.
    const VECTORS: [[&str; 5]; 3] = [
        [
            "0000000000000000000000000000000000000000000000000000000000000001",
            "0000000000000000000000000000000000000000000000000000000000000002",
            "0000000000000000000000000000000000000000000000000000000000000001",
            "a",
            "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABee0G5VSK0/9YypIObAtDKfYEAjD35uVkHyB0F4DwrcNa\
             CXlCWZKaArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb",
        ],
        [
            "0000000000000000000000000000000000000000000000000000000000000002",
            "0000000000000000000000000000000000000000000000000000000000000001",
            "f00000000000000000000000000000f00000000000000000000000000000000f",
            "\u{1f355}\u{1fac3}",
            "AvAAAAAAAAAAAAAAAAAAAPAAAAAAAAAAAAAAAAAAAAAPSKSK6is9ngkX2+cSq85Th16oRTISAOfhStnixqZziKMD\
             vB0QQzgFZdjLTPicCJaV8nDITO+QfaQ61+KbWQIOO2Yj",
        ],
        [
            "8f40e50a84a7462e2b8d24c28898ef1f23359fff50d8c509e6fb7ce06e142f9c",
            "b9b0a1e9cc20100c5faa3bbe2777303d25950616c4c6a3fa2e3e046f936ec2ba",
            "b20989adc3ddc41cd2c435952c0d59a91315d8c5218d5040573fc3749543acaf",
            "ability\u{1f91d}\u{7684} \u{23a}\u{23e}",
            "ArIJia3D3cQc0sQ1lSwNWakTFdjFIY1QQFc/w3SVQ6yvbG2S0x4Yu86QGwPTy7mP3961I1XqB6SFFTzqDZZavhxo\
             WMj7mEVGMQIsh2RLWI5EYQaQDIePSnXPlzf7CIt+voTD",
        ],
    ];

    fn pair(sec1: &str, sec2: &str) -> (ConversationKey, ConversationKey) {
        let keys = |hex: &str| nostr::Keys::new(SecretKey::from_hex(hex).unwrap());
        let (ours, theirs) = (keys(sec1), keys(sec2));
        let public = |keys: &nostr::Keys| PubKey::new(keys.public_key()).unwrap();
        (
            ConversationKey::derive(ours.secret_key(), &public(&theirs)).unwrap(),
            ConversationKey::derive(theirs.secret_key(), &public(&ours)).unwrap(),
        )
    }

    fn one_pair() -> (ConversationKey, ConversationKey) {
        pair(VECTORS[2][0], VECTORS[2][1])
    }

    /// Changes the bytes of a payload below its base64.
    fn edited(payload: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = STANDARD.decode(payload).unwrap();
        edit(&mut bytes);
        STANDARD.encode(bytes)
    }

    /// Loss prevented: a dialect of NIP-44 that no other signer or machine can read.
    #[test]
    fn the_vectors_of_the_nip_hold() {
        for [sec1, sec2, nonce, plaintext, payload] in VECTORS {
            let (ours, theirs) = pair(sec1, sec2);
            let nonce = from_hex::<32>("nonce", nonce).unwrap();
            assert_eq!(ours.encrypt(plaintext, nonce).as_deref(), Ok(payload));
            assert_eq!(theirs.decrypt(payload).as_deref(), Ok(plaintext));
        }
    }

    /// Loss prevented: a payload of another version read by the rules of this one.
    #[test]
    fn another_version_is_refused() {
        let (ours, theirs) = one_pair();
        let payload = ours.encrypt("text", [7; 32]).unwrap();
        let other = edited(&payload, |bytes| bytes[0] = 9);
        assert_eq!(theirs.decrypt(&other), Err(Nip44Error::Version { got: 9 }));
        assert_eq!(theirs.decrypt(&payload).as_deref(), Ok("text"));
    }

    /// Loss prevented: a document or amount changed on its way, taken for the sender's.
    #[test]
    fn a_changed_payload_or_another_key_is_refused() {
        let (ours, theirs) = one_pair();
        let payload = ours.encrypt("text", [7; 32]).unwrap();
        for at in [1, 33, 60, 98] {
            let changed = edited(&payload, |bytes| bytes[at] ^= 1);
            assert_eq!(theirs.decrypt(&changed), Err(Nip44Error::Mac), "byte {at}");
        }
        let (stranger, _) = pair(VECTORS[2][0], VECTORS[0][0]);
        assert_eq!(stranger.decrypt(&payload), Err(Nip44Error::Mac));
    }

    /// Loss prevented: memory and time spent on what can be no payload, or a text cut silently.
    #[test]
    fn lengths_are_checked_on_both_ways() {
        let (ours, theirs) = one_pair();
        assert_eq!(ours.encrypt("", [7; 32]), Err(Nip44Error::Plaintext { got: 0 }));
        let longest = "x".repeat(MAX_PLAINTEXT);
        let payload = ours.encrypt(&longest, [7; 32]).unwrap();
        assert_eq!(payload.len(), MAX_PAYLOAD);
        assert_eq!(theirs.decrypt(&payload), Ok(longest.clone()));
        let got = MAX_PLAINTEXT + 1;
        assert_eq!(ours.encrypt(&(longest + "x"), [7; 32]), Err(Nip44Error::Plaintext { got }));
        let got = MAX_PAYLOAD + 4;
        assert_eq!(theirs.decrypt(&(payload + "AAAA")), Err(Nip44Error::Length { got }));
        assert_eq!(theirs.decrypt("AgAA"), Err(Nip44Error::Length { got: 4 }));
        let url_safe = "_".repeat(MIN_PAYLOAD);
        assert_eq!(theirs.decrypt(&url_safe), Err(Nip44Error::Base64));
    }

    /// Loss prevented: a conversation key in a log opens every message between two parties.
    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", one_pair().0), "ConversationKey(redacted)");
    }

    proptest! {
        /// Loss prevented: a text of some length that arrives as another one or not at all.
        #[test]
        fn what_is_encrypted_decrypts_to_the_same(
            text in "\\PC{1,300}", nonce in any::<[u8; 32]>(),
        ) {
            let (ours, theirs) = one_pair();
            let payload = ours.encrypt(&text, nonce).unwrap();
            prop_assert_eq!(theirs.decrypt(&payload), Ok(text.clone()));
            prop_assert_eq!(ours.decrypt(&payload), Ok(text));
        }

        /// Loss prevented: a crash on what anybody may send.
        #[test]
        fn hostile_payloads_are_refused_without_panic(text in "[A-Za-z0-9+/=]{0,400}") {
            prop_assert!(one_pair().0.decrypt(&text).is_err());
        }
    }
}
