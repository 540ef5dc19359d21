//! An operator's key in this service: a transition for whoever brings a key along.
//!
//! Promise: the same as of a key in a bunker, but that whoever has this service has the key.

use bitspire_shared::ids::{IdError, PubKey};
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shell::secrets::random;
use nostr::{Event, Keys, UnsignedEvent};
use zeroize::Zeroizing;

use super::{RemoteSigner, SignerError, SignerResult};

/// The key in memory.
pub struct LocalSigner {
    keys: Keys,
    key: PubKey,
}

impl LocalSigner {
    /// Signs with `keys`.
    ///
    /// # Errors
    /// [`IdError`]: it is no key.
    pub fn new(keys: Keys) -> Result<Self, IdError> {
        let key = PubKey::new(keys.public_key())?;
        Ok(Self { keys, key })
    }

    fn conversation(&self, peer: &PubKey) -> Result<ConversationKey, Nip44Error> {
        ConversationKey::derive(self.keys.secret_key(), peer)
    }
}

fn refused(method: &'static str, reason: &dyn std::fmt::Display) -> SignerError {
    SignerError::Refused { method, reason: reason.to_string() }
}

impl RemoteSigner for LocalSigner {
    fn key(&self) -> PubKey {
        self.key
    }

    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event> {
        let signed = event.sign_with_keys(&self.keys);
        Box::pin(async move { signed.map_err(|error| refused("sign_event", &error)) })
    }

    fn encrypt(&self, peer: PubKey, plaintext: Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(async move {
            let failed = |error: &dyn std::fmt::Display| refused("nip44_encrypt", error);
            let nonce = random().map_err(|error| failed(&error))?;
            let key = self.conversation(&peer).map_err(|error| failed(&error))?;
            key.encrypt(&plaintext, nonce).map_err(|error| failed(&error))
        })
    }

    fn decrypt(&self, peer: PubKey, payload: String) -> SignerResult<'_, Zeroizing<String>> {
        Box::pin(async move {
            let text = self.conversation(&peer).and_then(|key| key.decrypt(&payload));
            text.map(Zeroizing::new).map_err(|error| refused("nip44_decrypt", &error))
        })
    }
}
