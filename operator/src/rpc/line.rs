//! The line to the machines: encrypts, signs and sends what the service says.
//!
//! Promise: each message is encrypted for its one reader under a fresh nonce and signed by the
//! service key; it goes to every connected relay and is kept by none (ephemeral kind). Conversation
//! keys are derived once for each rostered key and dropped when the key leaves the roster.
//!
//! Failure policy: a message that reaches no relay is lost here; whoever waits for it asks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{EventId, IdError, PubKey, PushId};
use bitspire_shared::nip01;
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::rpc::{Push, Reply, ServiceMessage, push_event, reply_event};
use bitspire_shell::checked;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use nostr::{Event, Keys, UnsignedEvent};
use thiserror::Error;

/// Conversation keys in memory at most.
const KEYS: usize = 32_768;

/// Why a message was not read or not written.
#[derive(Debug, Error)]
pub enum LineError {
    /// The other side's key is none.
    #[error("the sender's key is no public key")]
    Key(#[from] IdError),
    /// It does not decrypt, or cannot be encrypted.
    #[error("encryption failed")]
    Cipher(#[from] Nip44Error),
    /// It cannot be written.
    #[error("the message has no canonical form")]
    Text(#[from] CanonicalError),
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Classified for LineError {
    fn kind(&self) -> Kind {
        match self {
            Self::Key(e) => e.kind(),
            Self::Cipher(e) => e.kind(),
            Self::Text(e) => e.kind(),
            Self::Random(_) => Kind::Transient,
        }
    }
}

/// `N` fresh random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], LineError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(LineError::Random)?;
    Ok(bytes)
}

/// Somebody who is spoken to: derived and checked once, not for each message.
struct Peer {
    key: PubKey,
    cipher: ConversationKey,
}

/// The line.
pub(super) struct Line {
    service: Keys,
    service_key: PubKey,
    clock: Clock,
    pools: Vec<Arc<Pool>>,
    peers: Mutex<HashMap<[u8; 32], Arc<Peer>>>,
}

impl Line {
    pub(super) fn new(
        service: Keys,
        service_key: PubKey,
        clock: Clock,
        pools: Vec<Arc<Pool>>,
    ) -> Self {
        Self { service, service_key, clock, pools, peers: Mutex::default() }
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the conversation keys with whom `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&[u8; 32]) -> bool) {
        self.peers().retain(|key, _| keep(key));
    }

    fn peer(&self, key: nostr::PublicKey) -> Result<Arc<Peer>, LineError> {
        let bytes = key.to_bytes();
        if let Some(known) = self.peers().get(&bytes) {
            return Ok(known.clone());
        }
        let key = PubKey::new(key)?;
        let cipher = ConversationKey::derive(self.service.secret_key(), &key)?;
        let peer = Arc::new(Peer { key, cipher });
        let mut peers = self.peers();
        if peers.len() < KEYS {
            peers.insert(bytes, peer.clone());
        }
        Ok(peer)
    }

    /// Whose key signed a request.
    pub(super) fn sender(&self, event: &Event) -> Result<PubKey, LineError> {
        Ok(self.peer(event.pubkey)?.key)
    }

    /// Decrypts a request.
    pub(super) fn open(&self, event: &Event) -> Result<String, LineError> {
        Ok(self.peer(event.pubkey)?.cipher.decrypt(&event.content)?)
    }

    /// Answers a request; how many relays the answer was handed to.
    pub(super) async fn reply(&self, request: &Event, reply: Reply) -> Result<usize, LineError> {
        let reader = self.peer(request.pubkey)?;
        let id = EventId::from_bytes(request.id.to_bytes());
        let content = seal(&reader, &ServiceMessage::Reply(reply))?;
        let now = self.clock.now();
        self.send(reply_event(&self.service_key, &reader.key, &id, now, content)).await
    }

    /// Tells a machine something; how many relays it was handed to.
    pub(super) async fn push(
        &self,
        reader: PubKey,
        push_id: PushId,
        push: Push,
    ) -> Result<usize, LineError> {
        let peer = self.peer(reader.nostr())?;
        let content = seal(&peer, &ServiceMessage::Push { push_id, push })?;
        self.send(push_event(&self.service_key, &reader, self.clock.now(), content)).await
    }

    async fn send(&self, event: UnsignedEvent) -> Result<usize, LineError> {
        let event = nip01::signed(event, &self.service);
        checked::is_known(&event);
        let mut handed: usize = 0;
        for pool in &self.pools {
            handed = handed.saturating_add(pool.send(&event).await);
        }
        Ok(handed)
    }
}

fn seal(reader: &Peer, message: &ServiceMessage) -> Result<String, LineError> {
    Ok(reader.cipher.encrypt(&message.to_plaintext()?, random()?)?)
}
