//! The keys of one message, which open it and no other one of its conversation.
//!
//! Promise: whoever is given [`MessageKeys`] reads one payload, and learns nothing of the key between
//! the two parties (NIP-44, "Encryption" and "Decryption": the message keys are HKDF-expand of that
//! key and the payload's nonce). They are what a party discloses to show somebody else what a signed
//! event says: the event's signature commits its author to the payload, the payload's HMAC to the
//! keys.
//!
//! Failure policy: as of the conversation: [`Nip44Error`].

use std::fmt;

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hkdf::hmac::{Hmac, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{ConversationKey, Nip44Error, decoded};
use crate::ids::{from_hex, to_hex};

/// Bytes of the keys: 32 for ChaCha20, 12 for its nonce, 32 for HMAC-SHA256.
const LENGTH: usize = 76;

/// The keys of one message, wiped when dropped. 152 hex characters as text.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageKeys(Zeroizing<[u8; LENGTH]>);

impl ConversationKey {
    /// The keys of the message in `payload`.
    ///
    /// # Errors
    /// [`Nip44Error`] where it is no payload, or does not decrypt.
    pub fn message_keys(&self, payload: &str) -> Result<MessageKeys, Nip44Error> {
        let bytes = decoded(payload)?;
        let nonce = bytes.get(1..33).ok_or(Nip44Error::Mac)?;
        let cipher = |error: &dyn fmt::Display| Nip44Error::Cipher(error.to_string());
        let expand = Hkdf::<Sha256>::from_prk(self.0.as_slice()).map_err(|e| cipher(&e))?;
        let mut keys = Zeroizing::new([0; LENGTH]);
        expand.expand(nonce, keys.as_mut_slice()).map_err(|e| cipher(&e))?;
        let keys = MessageKeys(keys);
        keys.decrypt(payload)?;
        Ok(keys)
    }
}

impl MessageKeys {
    /// Decrypts the one payload that these are the keys of.
    ///
    /// # Errors
    /// The first [`Nip44Error`] that applies.
    pub fn decrypt(&self, payload: &str) -> Result<String, Nip44Error> {
        let bytes = decoded(payload)?;
        let body = bytes.get(1..).unwrap_or_default();
        let (nonce, rest) = body.split_first_chunk::<32>().ok_or(Nip44Error::Mac)?;
        let (sealed, mac) = rest.split_last_chunk::<32>().ok_or(Nip44Error::Mac)?;
        let cipher = |error: &dyn fmt::Display| Nip44Error::Cipher(error.to_string());
        let (stream, auth) = self.0.split_at(44);
        let (key, iv) = stream.split_at(32);
        let mut hmac = <Hmac<Sha256> as Mac>::new_from_slice(auth).map_err(|e| cipher(&e))?;
        hmac.update(nonce);
        hmac.update(sealed);
        hmac.verify_slice(mac).map_err(|_| Nip44Error::Mac)?;
        let mut stream = ChaCha20::new_from_slices(key, iv).map_err(|e| cipher(&e))?;
        let mut padded = sealed.to_vec();
        stream.try_apply_keystream(&mut padded).map_err(|e| cipher(&e))?;
        let (length, padded) = padded.split_first_chunk::<2>().ok_or(Nip44Error::Padding)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let text = padded.get(..length).filter(|text| !text.is_empty());
        let text = text.ok_or(Nip44Error::Padding)?;
        if padded_length(length) != Some(padded.len()) {
            return Err(Nip44Error::Padding);
        }
        String::from_utf8(text.to_vec()).map_err(|_| Nip44Error::Utf8)
    }
}

/// Bytes that a text of `length` bytes, at least 1, has with its padding.
fn padded_length(length: usize) -> Option<usize> {
    if length <= 32 {
        return Some(32);
    }
    let power = length.checked_next_power_of_two()?;
    let chunk = if power <= 256 { 32 } else { power.checked_div(8)? };
    length.checked_next_multiple_of(chunk)
}

impl fmt::Debug for MessageKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKeys(redacted)")
    }
}

impl Serialize for MessageKeys {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(self.0.as_slice()))
    }
}

impl<'de> Deserialize<'de> for MessageKeys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let bytes = from_hex("message keys", &text).map_err(de::Error::custom)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use nostr::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::test_keys::key;

    fn conversation() -> ConversationKey {
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        ConversationKey::derive(&secret, &key(1)).unwrap()
    }

    /// Loss prevented: whoever is shown one request reads all others of that machine, LNURLs of
    /// customers among them.
    #[test]
    fn the_keys_of_one_message_open_no_other() {
        let conversation = conversation();
        let one = conversation.encrypt("first", [1; 32]).unwrap();
        let other = conversation.encrypt("second", [2; 32]).unwrap();
        let keys = conversation.message_keys(&one).unwrap();
        assert_eq!(keys.decrypt(&one).unwrap(), "first");
        assert_eq!(keys.decrypt(&other), Err(Nip44Error::Mac));
        assert_eq!(format!("{keys:?}"), "MessageKeys(redacted)");
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(text.len(), 2 + 2 * LENGTH);
        assert_eq!(serde_json::from_str::<MessageKeys>(&text).unwrap(), keys);
        assert!(serde_json::from_str::<MessageKeys>("\"00\"").is_err());
    }

    proptest! {
        /// Loss prevented: a request that its reader cannot show to anybody, or one that reads
        /// otherwise to whoever it is shown.
        #[test]
        fn what_is_shown_is_what_was_said(text in ".{1,700}", nonce: [u8; 32]) {
            let conversation = conversation();
            let payload = conversation.encrypt(&text, nonce).unwrap();
            let keys = conversation.message_keys(&payload).unwrap();
            prop_assert_eq!(keys.decrypt(&payload).unwrap(), text);
        }
    }
}
