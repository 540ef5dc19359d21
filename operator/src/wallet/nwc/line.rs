//! Requests and replies of NIP-47 over relays.
//!
//! Promise: each request is one event; its reply names it and is by the wallet's key. The wallet
//! says which encryption it knows; one that says nothing knows NIP-04 only, as the NIP has it.
//!
//! Failure policy: a request that no relay took is [`CallError::NotSent`]; one without a reply that
//! can be read, [`CallError::Lost`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitspire_shared::admit::{EventHead, Frame, MAX_FRAME};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::nip46::message::Plain;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use nostr::{Event, EventBuilder, EventId, Filter, Kind, Tag, TagKind, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, broadcast, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::Hint;
use super::uri::Uri;
use crate::signer::cipher::Encryption;

pub(super) const INFO: u16 = 13_194;
pub(super) const REQUEST: u16 = 23_194;
pub(super) const REPLY: u16 = 23_195;
/// In NIP-04 and in NIP-44.
pub(super) const NOTES: [u16; 2] = [23_196, 23_197];

/// How long a relay may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// Between two looks at whether one is.
const LOOK: Duration = Duration::from_millis(100);
/// How long a reply may take.
const REPLIES: Duration = Duration::from_secs(15);
/// The same for a payment.
const PAYING: Duration = Duration::from_secs(50);
/// Hints that wait for whoever is slow.
const HINTS: usize = 1_024;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// No relay took the request.
    NotSent(String),
    /// It was sent, and no reply that can be read came.
    Lost(String),
    /// The wallet's own error.
    Said {
        /// Its code.
        code: String,
        /// Its words.
        words: String,
    },
}

#[derive(Deserialize)]
struct Reply {
    result_type: String,
    error: Option<Said>,
    result: Option<Value>,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Note {
    notification: Named,
}

#[derive(Deserialize)]
struct Named {
    payment_hash: PaymentHash,
}

type Waiting = HashMap<EventId, oneshot::Sender<Option<Plain>>>;

/// The line to one wallet.
pub(super) struct Line {
    uri: Uri,
    clock: Clock,
    pool: OnceCell<(Pool, ConversationKey)>,
    encryption: watch::Sender<Option<Encryption>>,
    waiting: Mutex<Waiting>,
    pub(super) hints: broadcast::Sender<Hint>,
}

/// Forgets a request that nobody waits for any more.
struct Forget<'a>(&'a Line, EventId);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

fn not_sent(error: &dyn std::fmt::Display) -> CallError {
    CallError::NotSent(error.to_string())
}

impl Line {
    pub(super) fn new(uri: Uri, clock: Clock) -> Self {
        Self {
            uri,
            clock,
            pool: OnceCell::new(),
            encryption: watch::Sender::new(None),
            waiting: Mutex::default(),
            hints: broadcast::channel(HINTS).0,
        }
    }

    async fn open(&self) -> Result<&(Pool, ConversationKey), CallError> {
        let opened = self.pool.get_or_try_init(async || {
            let Uri { wallet, relays, keys } = &self.uri;
            let key =
                ConversationKey::derive(keys.secret_key(), wallet).map_err(|e| not_sent(&e))?;
            let author = wallet.to_string();
            let frames = Arc::new(move |text: &str| {
                text.len() <= MAX_FRAME
                    && match Frame::parse(text) {
                        Ok(Frame::Event(EventHead { pubkey, .. })) => pubkey == author,
                        Ok(Frame::Other) => true,
                        Err(_) => false,
                    }
            });
            let pool = Pool::connect(keys.clone(), relays, frames).await;
            let pool = pool.map_err(|e| not_sent(&e))?;
            let by_wallet = Filter::new().author(wallet.nostr());
            let info = by_wallet.clone().kind(Kind::from(INFO)).limit(1);
            pool.subscribe("wallet-info", info).await;
            let kinds = [REPLY].into_iter().chain(NOTES).map(Kind::from);
            let said = by_wallet.kinds(kinds).pubkey(keys.public_key()).limit(0);
            pool.subscribe("wallet", said).await;
            Ok((pool, key))
        });
        opened.await
    }

    /// Relays connected right now.
    pub(super) async fn connected(&self) -> usize {
        match self.pool.get() {
            Some((pool, _)) => pool.connected().await,
            None => 0,
        }
    }

    /// What to encrypt in, once a relay is there; the wallet's own word comes right after it.
    async fn ready(&self) -> Encryption {
        while self.connected().await == 0 {
            tokio::time::sleep(LOOK).await;
        }
        let mut known = self.encryption.subscribe();
        match timeout(CONNECT / 2, known.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => known.unwrap_or(Encryption::Nip44),
            // a relay that keeps no info event: what every newer wallet knows, until it says so
            _ => {
                self.encryption.send_modify(|known| *known = known.or(Some(Encryption::Nip44)));
                Encryption::Nip44
            }
        }
    }

    /// Asks once.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let (pool, key) = self.open().await?;
        let encryption = timeout(CONNECT, self.ready()).await;
        let encryption =
            encryption.map_err(|_| CallError::NotSent("no relay is connected".into()))?;
        let text = Plain::new(json!({"method": method, "params": params}).to_string());
        let Uri { wallet, keys, .. } = &self.uri;
        let content = encryption.seal(keys, *wallet, key, &text).map_err(|e| not_sent(&e))?;
        let mut event = EventBuilder::new(Kind::from(REQUEST), content)
            .tag(Tag::public_key(wallet.nostr()))
            .custom_created_at(Timestamp::from(self.clock.now().0));
        if encryption == Encryption::Nip44 {
            event = event.tag(Tag::custom(TagKind::custom("encryption"), ["nip44_v2"]));
        }
        let event = event.sign_with_keys(keys).map_err(|e| not_sent(&e))?;
        let (told, reply) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(event.id, told);
        let _forget = Forget(self, event.id);
        if pool.send(&event).await == 0 {
            return Err(CallError::NotSent("no relay is connected".into()));
        }
        let patience = if method == "pay_invoice" { PAYING } else { REPLIES };
        let lost = |words: &str| CallError::Lost(format!("{method}: {words}"));
        let reply = timeout(patience, reply).await.map_err(|_| lost("no reply in time"))?;
        let Ok(Some(text)) = reply else { return Err(lost("the reply cannot be decrypted")) };
        let reply: Reply =
            serde_json::from_str(text.expose()).map_err(|_| lost("the reply cannot be read"))?;
        if reply.result_type != method {
            return Err(lost("the reply is to another method"));
        }
        match (reply.error, reply.result) {
            (Some(Said { code, message }), _) => {
                let words = message.chars().filter(|c| !c.is_control()).take(200).collect();
                Err(CallError::Said { code, words })
            }
            (None, Some(result)) => Ok(result),
            (None, None) => Err(lost("the reply has neither result nor error")),
        }
    }

    /// Reads what the wallet says, until `stop`.
    pub(super) async fn listen(&self, stop: CancellationToken) {
        let (pool, key) = loop {
            match self.open().await {
                Ok(opened) => break opened,
                Err(error) => {
                    tracing::error!(event = "wallet_line", ?error);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(CONNECT) => {}
                    }
                }
            }
        };
        self.tell(Hint::Missed);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = pool.next() => match event {
                    Some(event) => self.take(&event, key),
                    None => break,
                },
            }
        }
        pool.close().await;
    }

    fn tell(&self, hint: Hint) {
        // nobody watching is no failure: hints are only hints
        let _ = self.hints.send(hint);
    }

    fn take(&self, event: &Event, key: &ConversationKey) {
        if event.pubkey != self.uri.wallet.nostr() {
            return;
        }
        if event.kind == Kind::from(INFO) {
            let tag = event.tags.find(TagKind::custom("encryption"));
            let knows = tag.and_then(|tag| tag.content()).unwrap_or("nip04");
            let knows = match knows.split([' ', ',']).any(|one| one == "nip44_v2") {
                true => Encryption::Nip44,
                false => Encryption::Nip04,
            };
            self.encryption.send_replace(Some(knows));
            return;
        }
        let encryption = Encryption::of(&event.content);
        let text = encryption.open(&self.uri.keys, self.uri.wallet, key, &event.content).ok();
        if event.kind == Kind::from(REPLY) {
            let Some(asked) = event.tags.event_ids().next() else { return };
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(asker) = waiting.remove(asked) {
                // whoever asked may have stopped waiting
                let _ = asker.send(text);
            }
        } else if let Some(text) = text
            && let Ok(note) = serde_json::from_str::<Note>(text.expose())
        {
            self.tell(Hint::Payment(note.notification.payment_hash));
        }
    }
}
