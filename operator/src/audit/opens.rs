//! What opens the requests that machines wrote to the service.
//!
//! Promise: a request is read by the key of its conversation, which is derived once for an author; in a
//! proof, by the keys of the one message that are disclosed in it.
//!
//! Failure policy: what does not open is an error in words of NIP-44.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::{ConversationKey, MessageKeys, Nip44Error};
use nostr::SecretKey;

/// What opens a machine's request.
#[derive(Clone, Debug)]
pub(super) enum Opens {
    /// The secret half of the service key: every one of them.
    Service(Arc<Ciphers>),
    /// The keys of one message: the one that they are disclosed for.
    Message(MessageKeys),
}

impl Opens {
    pub(super) fn read(&self, author: &PubKey, content: &str) -> Result<String, Nip44Error> {
        match self {
            Self::Service(ciphers) => ciphers.with(author)?.decrypt(content),
            Self::Message(keys) => keys.decrypt(content),
        }
    }
}

/// Authors whose conversation keys are kept at a time.
const CIPHERS: usize = 4_096;

/// The service's conversations: a machine has written most of its requests with one key.
#[derive(Debug)]
pub(super) struct Ciphers {
    secret: SecretKey,
    kept: Mutex<HashMap<PubKey, ConversationKey>>,
}

impl Ciphers {
    pub(super) fn new(secret: SecretKey) -> Self {
        Self { secret, kept: Mutex::default() }
    }

    fn with(&self, author: &PubKey) -> Result<ConversationKey, Nip44Error> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = lock().get(author) {
            return Ok(key.clone());
        }
        let key = ConversationKey::derive(&self.secret, author)?;
        let mut kept = lock();
        if kept.len() >= CIPHERS {
            kept.clear();
        }
        kept.insert(*author, key.clone());
        Ok(key)
    }
}
