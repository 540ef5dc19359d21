//! What the bunker's tasks share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use bitspire_shared::admit::{EventHead, Frame, Head, MAX_FRAME};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::nip46::KIND;
use bitspire_shared::nip46::server::Server;
use bitspire_shared::sealed::MachineSecret;
use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::clock::Clock;
use nostr::Keys;
use zeroize::Zeroizing;

use super::held::Held;
use super::limits::{Counts, Limits, bump};
use super::replies::Replies;
use crate::ids::BunkerTokenId;
use crate::signer::ADMIN_KIND;
use crate::store::Store;

/// Conversation keys that are kept; beyond it all are forgotten and derived anew.
const CONVERSATIONS: usize = 4_096;
/// How long a token's text is shown to administrators, in seconds: a pairing reads it at once.
pub(super) const TOKEN_SHOWN_S: u64 = 900;

/// The bunker's state.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) db: Store,
    pub(super) secret: MachineSecret,
    pub(super) transport: Keys,
    pub(super) id: PubKey,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) counts: Counts,
    pub(super) replies: Replies,
    held: RwLock<Held>,
    server: Mutex<Server>,
    conversations: Mutex<HashMap<(PubKey, PubKey), ConversationKey>>,
    shown: Mutex<HashMap<BunkerTokenId, (Zeroizing<String>, Unix)>>,
    started: Instant,
}

impl Core {
    pub(super) fn new(
        db: Store,
        secret: MachineSecret,
        transport: Keys,
        id: PubKey,
        held: Held,
        clock: Clock,
    ) -> Self {
        Self {
            db,
            secret,
            transport,
            id,
            clock,
            limits: Limits::new(),
            counts: Counts::default(),
            replies: Replies::default(),
            held: RwLock::new(held),
            server: Mutex::default(),
            conversations: Mutex::default(),
            shown: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the start.
    pub(super) fn mono(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a relay's message is worth a signature check.
    pub(super) fn wants(&self, text: &str) -> bool {
        if text.len() > MAX_FRAME {
            bump(&self.counts.unreadable);
            return false;
        }
        match Frame::parse(text).map(|frame| match frame {
            Frame::Event(head) => Some(EventHead::decode(&head)),
            Frame::Other => None,
        }) {
            Ok(None) => true,
            Ok(Some(Ok(head))) => self.wants_event(&head),
            Ok(Some(Err(_))) | Err(_) => {
                bump(&self.counts.unreadable);
                false
            }
        }
    }

    fn wants_event(&self, head: &Head) -> bool {
        let Some(to) = head.recipient else {
            bump(&self.counts.not_for_us);
            return false;
        };
        let held = self.held();
        if to == self.id.to_bytes() {
            let wanted = matches!(head.kind, KIND | ADMIN_KIND) && held.is_admin(&head.pubkey);
            if !wanted {
                bump(&self.counts.not_for_us);
                self.log_refused("expected a request of an administrator");
            }
            return wanted;
        }
        if head.kind != KIND || !held.holds(&to) {
            bump(&self.counts.not_for_us);
            return false;
        }
        // a client that is known has a bucket of its own, once its signature has verified
        if held.asker(&to, &head.pubkey).is_some() || self.limits.stranger(&to, self.mono()) {
            return true;
        }
        bump(&self.counts.limited);
        self.log_refused("too many strangers ask one key");
        false
    }

    /// A line that strangers can cause.
    pub(super) fn log_refused(&self, reason: &str) {
        if self.limits.log(self.mono()) {
            tracing::warn!(event = "bunker_message_refused", reason);
        }
    }

    /// The key between one of our keys and another one.
    pub(super) fn conversation(
        &self,
        ours: &Keys,
        own: PubKey,
        peer: PubKey,
    ) -> Result<ConversationKey, Nip44Error> {
        let lock = || self.conversations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = lock().get(&(own, peer)) {
            return Ok(key.clone());
        }
        let key = ConversationKey::derive(ours.secret_key(), &peer)?;
        let mut kept = lock();
        if kept.len() >= CONVERSATIONS {
            kept.clear();
        }
        kept.insert((own, peer), key.clone());
        Ok(key)
    }

    fn shown(&self) -> MutexGuard<'_, HashMap<BunkerTokenId, (Zeroizing<String>, Unix)>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the text of a new token for a while.
    pub(super) fn show_token(&self, id: BunkerTokenId, text: Zeroizing<String>, now: Unix) {
        self.shown().insert(id, (text, now.after(TOKEN_SHOWN_S)));
    }

    /// The text of a token, while it is kept.
    pub(super) fn token_text(&self, id: BunkerTokenId, now: Unix) -> Option<Zeroizing<String>> {
        let shown = self.shown();
        shown.get(&id).filter(|(_, until)| now <= *until).map(|(text, _)| text.clone())
    }

    /// Forgets the text of a token that was used or revoked.
    pub(super) fn hide_token(&self, id: BunkerTokenId) {
        self.shown().remove(&id);
    }

    /// Forgets texts whose time is over.
    pub(super) fn forget_old(&self) {
        let now = self.clock.now();
        self.shown().retain(|_, (_, until)| now <= *until);
        self.replies.forget(self.mono());
    }
}
