//! Carries out what was allowed: the only place where a held key signs or decrypts.

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::Nip44Error;
use bitspire_shared::nip46::message::Plain;
use bitspire_shared::nip46::server::{Call, Reply};
use bitspire_shell::secrets::{SecretError, random};
use nostr::{Event, Keys};
use thiserror::Error;

use super::core::Core;
use super::held::HeldKey;
use crate::signer::cipher::{CipherError, Encryption};
use crate::signer::link;

/// Why it could not be carried out.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    #[error(transparent)]
    Nip44(#[from] Nip44Error),
    #[error(transparent)]
    Cipher(#[from] CipherError),
    #[error("the event cannot be signed: {0}")]
    Sign(String),
    #[error("this bunker does not speak NIP-04: use nip44_encrypt and nip44_decrypt")]
    Nip04,
    #[error("{0}")]
    NotACall(String),
    #[error("the bunker has no random bytes")]
    Random(#[from] SecretError),
}

impl Classified for AnswerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Nip44(error) => error.kind(),
            Self::Cipher(error) => error.kind(),
            Self::Random(error) => error.kind(),
            Self::Sign(_) | Self::Nip04 | Self::NotACall(_) => Kind::Permanent,
        }
    }
}

/// Carries out a call that was allowed.
pub(super) fn carry_out(core: &Core, held: &HeldKey, call: &Call) -> Result<Reply, AnswerError> {
    Ok(match call {
        Call::Connect { .. } | Call::Logout => Reply::Ack,
        Call::Ping => Reply::Pong,
        Call::GetPublicKey => Reply::PublicKey(held.pubkey),
        Call::SwitchRelays => Reply::Null,
        Call::SignEvent(event) => {
            let signed = (**event).clone().sign_with_keys(&held.keys);
            Reply::Signed(Box::new(signed.map_err(|e| AnswerError::Sign(e.to_string()))?))
        }
        Call::Nip44Encrypt { peer, plaintext } => {
            let key = core.conversation(&held.keys, held.pubkey, *peer)?;
            Reply::Text(Plain::new(key.encrypt(plaintext.expose(), random()?)?))
        }
        Call::Nip44Decrypt { peer, payload } => {
            let key = core.conversation(&held.keys, held.pubkey, *peer)?;
            Reply::Text(Plain::new(key.decrypt(payload)?))
        }
        // no policy can name them
        Call::Nip04Encrypt { .. } | Call::Nip04Decrypt { .. } => return Err(AnswerError::Nip04),
        Call::Unknown { method } => return Err(AnswerError::NotACall(format!("unknown {method}"))),
        Call::Invalid { expected, .. } => {
            return Err(AnswerError::NotACall(format!("expected {expected}")));
        }
    })
}

/// The event that carries `text` from one of our keys to `to`.
pub(super) fn letter(
    core: &Core,
    (from, own): (&Keys, PubKey),
    to: PubKey,
    kind: u16,
    encryption: Encryption,
    text: &Plain,
) -> Result<Event, AnswerError> {
    let conversation = core.conversation(from, own, to)?;
    let content = encryption.seal(from, to, &conversation, text)?;
    Ok(link::letter(from, to, kind, core.clock.now(), content))
}
