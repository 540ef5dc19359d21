//! The two encryptions in which bunkers are administered: NIP-44, and NIP-04 for those that know no
//! other.
//!
//! Promise: which of the two a message is in is read from its form; NIP-04 has no authentication of
//! its own, so a message counts only inside of an event whose signature has verified.
//!
//! Failure policy: what does not decrypt is [`CipherError`], and no message.

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::nip46::message::Plain;
use bitspire_shell::secrets::{SecretError, random};
use nostr::Keys;
use nostr::nips::nip04;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a message is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// NIP-44, version 2.
    Nip44,
    /// NIP-04, as nsecbunkerd's first versions have it.
    Nip04,
}

/// Why a message cannot be encrypted or read.
#[derive(Debug, Error)]
pub enum CipherError {
    /// NIP-44.
    #[error(transparent)]
    Nip44(#[from] Nip44Error),
    /// NIP-04.
    #[error("NIP-04: {0}")]
    Nip04(nip04::Error),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] SecretError),
}

impl Classified for CipherError {
    fn kind(&self) -> Kind {
        match self {
            Self::Nip44(error) => error.kind(),
            Self::Random(error) => error.kind(),
            Self::Nip04(_) => Kind::Permanent,
        }
    }
}

impl Encryption {
    /// What a content is in: NIP-04 alone has an initialisation vector behind it.
    #[must_use]
    pub fn of(content: &str) -> Self {
        if content.contains("?iv=") { Self::Nip04 } else { Self::Nip44 }
    }

    /// Its name, as the configuration spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nip44 => "nip44",
            Self::Nip04 => "nip04",
        }
    }

    /// Encrypts; `conversation` is the NIP-44 key between `ours` and `peer`.
    ///
    /// # Errors
    /// [`CipherError`].
    pub fn seal(
        self,
        ours: &Keys,
        peer: PubKey,
        conversation: &ConversationKey,
        text: &Plain,
    ) -> Result<String, CipherError> {
        match self {
            Self::Nip44 => Ok(conversation.encrypt(text.expose(), random()?)?),
            Self::Nip04 => nip04::encrypt(ours.secret_key(), &peer.nostr(), text.expose())
                .map_err(CipherError::Nip04),
        }
    }

    /// Decrypts `content`, which is in this encryption.
    ///
    /// # Errors
    /// [`CipherError`].
    pub fn open(
        self,
        ours: &Keys,
        peer: PubKey,
        conversation: &ConversationKey,
        content: &str,
    ) -> Result<Plain, CipherError> {
        match self {
            Self::Nip44 => Ok(Plain::new(conversation.decrypt(content)?)),
            Self::Nip04 => nip04::decrypt(ours.secret_key(), &peer.nostr(), content)
                .map(Plain::new)
                .map_err(CipherError::Nip04),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a bunker of the older kind that nobody can read, or a text that is read in
    /// the wrong encryption.
    #[test]
    fn each_encryption_is_known_by_its_form() {
        let (one, two) = (Keys::generate(), Keys::generate());
        let public = |keys: &Keys| PubKey::new(keys.public_key()).unwrap();
        let here = ConversationKey::derive(one.secret_key(), &public(&two)).unwrap();
        let there = ConversationKey::derive(two.secret_key(), &public(&one)).unwrap();
        for encryption in [Encryption::Nip44, Encryption::Nip04] {
            let text = Plain::new("{\"id\":\"1\"}".into());
            let sealed = encryption.seal(&one, public(&two), &here, &text).unwrap();
            assert_eq!(Encryption::of(&sealed), encryption);
            let opened = encryption.open(&two, public(&one), &there, &sealed).unwrap();
            assert_eq!(opened, text);
            let stranger = Keys::generate();
            let other = ConversationKey::derive(stranger.secret_key(), &public(&one)).unwrap();
            let read = encryption.open(&stranger, public(&one), &other, &sealed);
            assert!(read.is_err() || read.unwrap() != text);
        }
    }
}
