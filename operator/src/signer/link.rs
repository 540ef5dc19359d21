//! One key's end of a conversation with one other key over relays.
//!
//! Promise: what comes out is by the other key, addressed to ours, verified and decrypted;
//! everything else is dropped before its signature is checked where its head gives it away.
//!
//! Failure policy: what cannot be read is dropped; sending says to how many relays.

use std::sync::Arc;

use bitspire_shared::admit::{EventHead, Frame, MAX_FRAME};
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::nip01;
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::nip46::message::Plain;
use bitspire_shared::time::Unix;
use bitspire_shell::checked;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::{Pool, PoolError};
use bitspire_shell::secrets::{SecretError, random};
use nostr::{Event, Filter, Keys, Kind as EventKind, Tag, Timestamp, UnsignedEvent};
use thiserror::Error;

use super::cipher::{CipherError, Encryption};

/// Why a conversation cannot begin, or a message not be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// A relay's address is wrong.
    #[error("the bunker's relays cannot be used")]
    Relays(#[from] PoolError),
    /// No key can be agreed on.
    #[error("the message to the bunker cannot be encrypted")]
    Key(#[from] Nip44Error),
    /// The message cannot be encrypted.
    #[error("the message to the bunker cannot be encrypted")]
    Encrypt(#[from] CipherError),
    /// No random bytes.
    #[error("the message to the bunker cannot be made")]
    Random(#[from] SecretError),
}

impl Classified for LinkError {
    fn kind(&self) -> Kind {
        match self {
            Self::Relays(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::Encrypt(error) => error.kind(),
            Self::Random(error) => error.kind(),
        }
    }
}

/// The conversation.
pub(super) struct Link {
    pool: Pool,
    keys: Keys,
    peer: PubKey,
    conversation: ConversationKey,
    clock: Clock,
}

impl Link {
    /// Connects as `keys`, also to the relays (NIP-42), and listens for `kinds` by `peer`.
    pub(super) async fn open(
        keys: Keys,
        peer: PubKey,
        relays: &[String],
        kinds: &[u16],
        clock: Clock,
    ) -> Result<Self, LinkError> {
        let conversation = ConversationKey::derive(keys.secret_key(), &peer)?;
        let author = peer.to_string();
        let frames = Arc::new(move |text: &str| {
            text.len() <= MAX_FRAME
                && match Frame::parse(text) {
                    Ok(Frame::Event(EventHead { pubkey, .. })) => pubkey == author,
                    Ok(Frame::Other) => true,
                    Err(_) => false,
                }
        });
        let pool = Pool::connect(keys.clone(), relays, frames).await?;
        let filter = Filter::new()
            .kinds(kinds.iter().copied().map(EventKind::from))
            .author(peer.nostr())
            .pubkey(keys.public_key())
            .limit(0);
        pool.subscribe("bunker", filter).await;
        Ok(Self { pool, keys, peer, conversation, clock })
    }

    /// The next message of the other side; `None` after [`close`](Self::close). From one task.
    pub(super) async fn next(&self) -> Option<(EventId, Plain)> {
        loop {
            let event = self.pool.next().await?;
            if event.pubkey != self.peer.nostr() {
                continue;
            }
            let encryption = Encryption::of(&event.content);
            let text = encryption.open(&self.keys, self.peer, &self.conversation, &event.content);
            if let Ok(text) = text {
                return Some((EventId::from_bytes(event.id.to_bytes()), text));
            }
        }
    }

    /// Sends `text` in a fresh event; to how many relays.
    pub(super) async fn send(
        &self,
        kind: u16,
        encryption: Encryption,
        text: &Plain,
    ) -> Result<usize, LinkError> {
        let content = encryption.seal(&self.keys, self.peer, &self.conversation, text)?;
        let event = letter(&self.keys, self.peer, kind, self.clock.now(), content);
        Ok(self.pool.send(&event).await)
    }

    /// Relays connected right now.
    pub(super) async fn connected(&self) -> usize {
        self.pool.connected().await
    }

    /// Ends the conversation.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A signed event for one reader.
pub(crate) fn letter(keys: &Keys, to: PubKey, kind: u16, at: Unix, content: String) -> Event {
    let event = nip01::signed(
        UnsignedEvent {
            id: None,
            pubkey: keys.public_key(),
            created_at: Timestamp::from(at.0),
            kind: EventKind::from(kind),
            tags: [Tag::public_key(to.nostr())].into_iter().collect(),
            content,
        },
        keys,
    );
    checked::is_known(&event);
    event
}

/// A fresh id for a request: 128 random bits as hex.
pub(super) fn fresh_id() -> Result<String, SecretError> {
    Ok(bitspire_shared::ids::to_hex(&random::<16>()?))
}
