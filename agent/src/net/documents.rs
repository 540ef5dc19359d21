//! Configuration documents in, the cassettes' state out.
//!
//! Promise: a document that reaches the vault is by the pinned operator, for this machine, with a
//! good signature, and was decrypted by the bunker. The vault orders and applies; here each event
//! is handed on once, and the newest of each name again to a vault that starts again. What the
//! vault publishes goes out until a relay has taken it.
//!
//! Failure policy: a bunker that does not answer is asked again with backoff, for as long as it
//! takes; what it refuses for good is counted once per event and left alone.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bitspire_shared::document::{DOCUMENT_KIND, DTag, DocumentKind, check_event};
use bitspire_shared::ids::EventId;
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{Pool, PoolError};
use nostr::{Alphabet, Event, Filter, Kind as EventKind, SingleLetterTag, TagKind};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Timing;
use super::session::may_change;
use super::signer::{Signer, SignerError};
use super::times::Times;
use crate::ipc::{NetPins, ToVault};

/// Event ids that are remembered as done.
const REMEMBERED: usize = 256;
/// Events that may wait for the bunker.
const WAITING: usize = 16;
/// The documents that a machine reads.
const READS: [DocumentKind; 2] = [DocumentKind::Cassettes, DocumentKind::Fees];

/// The subscription to one of this machine's documents. Each has its own: some relays look only at
/// the first `d` of a filter that names one author and one kind. No `since`: a relay keeps one event
/// for each of them, and that one is wanted however long the machine was off.
fn documents(pins: &NetPins, kind: DocumentKind) -> Filter {
    let d = SingleLetterTag::lowercase(Alphabet::D);
    Filter::new()
        .kind(EventKind::from(DOCUMENT_KIND))
        .author(pins.operator.nostr())
        .pubkey(pins.spire.nostr())
        .custom_tag(d, DTag { kind, spire: pins.spire }.to_string())
}

/// Reads documents.
pub(super) struct Reader {
    pub(super) pins: NetPins,
    pub(super) pool: Arc<Pool>,
    pub(super) signer: Signer,
    pub(super) events: mpsc::Receiver<Event>,
    /// What the service says to be published.
    pub(super) published: mpsc::Receiver<EventId>,
    /// Counts the vault's connections.
    pub(super) vault: watch::Receiver<u64>,
    pub(super) to_vault: mpsc::Sender<ToVault>,
    pub(super) times: Times,
    pub(super) timing: Timing,
    pub(super) memory: Memory,
}

/// What it remembers.
#[derive(Default)]
pub(super) struct Memory {
    done: HashSet<EventId>,
    order: VecDeque<EventId>,
    waiting: VecDeque<(Event, DTag)>,
    again: Option<(Instant, Duration)>,
    newest: BTreeMap<DTag, (Event, String)>,
    refused: u64,
    /// Said to be published and not seen, and until when they may come by themselves.
    missing: HashSet<EventId>,
    missing_until: Option<Instant>,
}

impl Reader {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.ask().await;
        let work = async {
            loop {
                let again = self.memory.again.map(|(at, _)| at);
                let missing = self.memory.missing_until();
                tokio::select! {
                    event = self.events.recv() => match event {
                        Some(event) => self.take(event).await,
                        None => return,
                    },
                    published = self.published.recv() => match published {
                        Some(id) => {
                            let wait = Duration::from_millis(self.timing.missing_ms);
                            self.memory.expect(id, Instant::now() + wait);
                        }
                        None => return,
                    },
                    changed = self.vault.changed() => match changed {
                        Ok(()) => self.tell_again().await,
                        Err(_) => return,
                    },
                    () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                        self.decrypt_waiting().await;
                    }
                    () = sleep_until(missing.unwrap_or_else(Instant::now)), if missing.is_some() => {
                        self.fetch_missing().await;
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Asks the relays for the documents; what they have comes, and what they get.
    async fn ask(&self) {
        for kind in READS {
            self.pool.subscribe(kind.prefix(), documents(&self.pins, kind)).await;
        }
    }

    /// Asks for what was published and has not come: it may have been dropped on its way, and a relay
    /// gives it once only to whoever waits.
    async fn fetch_missing(&mut self) {
        // what has come and stands in line is not missing
        for _ in 0..self.events.len() {
            if let Ok(event) = self.events.try_recv() {
                self.take(event).await;
            }
        }
        if let Some(id) = self.memory.overdue() {
            tracing::info!(event = "documents_fetched", missing = %id);
            self.ask().await;
        }
    }

    async fn take(&mut self, event: Event) {
        let id = EventId::from_bytes(event.id.to_bytes());
        if self.memory.knows(&id) {
            return;
        }
        let address = event.tags.find(TagKind::d()).and_then(|tag| tag.content()?.parse().ok());
        let Some(address) = address.filter(|d: &DTag| READS.contains(&d.kind)) else {
            return self.refuse(id, "expected the d tag of a document that machines read");
        };
        let NetPins { operator, spire, .. } = self.pins;
        let expected = DTag { kind: address.kind, spire };
        let now = self.times.unix();
        if let Err(error) = check_event(&event, &expected, &operator, &spire, now) {
            return self.refuse(id, &error.to_string());
        }
        if self.memory.waiting.len() >= WAITING {
            self.memory.waiting.pop_front();
        }
        self.memory.waiting.push_back((event, address));
        self.decrypt_waiting().await;
    }

    /// Hands the waiting ones to the bunker, as far as it answers.
    async fn decrypt_waiting(&mut self) {
        while let Some((event, address)) = self.memory.waiting.pop_front() {
            let id = EventId::from_bytes(event.id.to_bytes());
            match self.signer.decrypt(self.pins.operator, event.content.clone()).await {
                Ok(plaintext) => {
                    self.memory.again = None;
                    self.memory.note(id);
                    self.keep_newest(address, &event, &plaintext);
                    self.tell(event, plaintext).await;
                }
                Err(error) if may_change(&error) => {
                    let first = Duration::from_millis(self.timing.retry_ms);
                    let wait = self.memory.again.map_or(first, |(_, wait)| wait * 2);
                    let wait = wait.min(first * 30);
                    self.memory.again = Some((Instant::now() + wait, wait));
                    tracing::info!(event = "document_waits_for_the_bunker", %error);
                    self.memory.waiting.push_front((event, address));
                    return;
                }
                Err(error) => self.refuse(id, &error.to_string()),
            }
        }
        self.memory.again = None;
    }

    fn keep_newest(&mut self, address: DTag, event: &Event, plaintext: &str) {
        let newest = self.memory.newest.get(&address);
        if newest.is_none_or(|(known, _)| known.created_at <= event.created_at) {
            self.memory.newest.insert(address, (event.clone(), plaintext.to_owned()));
        }
    }

    async fn tell_again(&self) {
        for (event, plaintext) in self.memory.newest.values() {
            self.tell(event.clone(), plaintext.clone()).await;
        }
    }

    async fn tell(&self, event: Event, plaintext: String) {
        // without a receiver `net` is ending
        drop(self.to_vault.send(ToVault::Document { event: Box::new(event), plaintext }).await);
    }

    fn refuse(&mut self, id: EventId, why: &str) {
        self.memory.refused = self.memory.refused.saturating_add(1);
        tracing::warn!(event = "document_refused", id = %id, why, total = self.memory.refused);
        self.memory.note(id);
    }
}

impl Memory {
    fn knows(&self, id: &EventId) -> bool {
        let waits = |(event, _): &(Event, DTag)| event.id.as_bytes() == id.as_bytes();
        self.done.contains(id) || self.waiting.iter().any(waits)
    }

    /// It is done with.
    pub(super) fn note(&mut self, id: EventId) {
        if self.done.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }

    /// A document was published. It may still be under way: it is missing if it has not come by then, or
    /// by the end of a wait that goes on already.
    pub(super) fn expect(&mut self, id: EventId, until: Instant) {
        // beyond so many nothing is lost: asking for one asks for all
        if !self.knows(&id) && self.missing.len() < WAITING {
            self.missing.insert(id);
            self.missing_until.get_or_insert(until);
        }
    }

    pub(super) const fn missing_until(&self) -> Option<Instant> {
        self.missing_until
    }

    /// The wait is over: one that has not come, if any.
    pub(super) fn overdue(&mut self) -> Option<EventId> {
        self.missing_until = None;
        let missing = std::mem::take(&mut self.missing);
        missing.into_iter().find(|id| !self.knows(id))
    }
}

#[derive(Debug, Error)]
enum PublishError {
    #[error("the bunker did not sign it")]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Publishes the cassettes' state.
pub(super) struct Publisher {
    pub(super) pins: NetPins,
    pub(super) pool: Arc<Pool>,
    pub(super) signer: Signer,
    /// The newest state that the vault wants published.
    pub(super) wanted: watch::Receiver<Option<String>>,
    pub(super) to_vault: mpsc::Sender<ToVault>,
    pub(super) times: Times,
    pub(super) timing: Timing,
}

impl Publisher {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.work() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn work(&mut self) {
        let first = Duration::from_millis(self.timing.retry_ms);
        let mut last = Unix(0);
        let mut wait = first;
        while self.wanted.changed().await.is_ok() {
            // a newer state replaces one that no relay has taken
            loop {
                let Some(plaintext) = self.wanted.borrow_and_update().clone() else { break };
                let created_at = self.times.unix().max(last.after(1));
                match self.publish(plaintext, created_at).await {
                    Ok(event_id) => {
                        (last, wait) = (created_at, first);
                        // without a receiver `net` is ending
                        drop(self.to_vault.send(ToVault::StatePublished { event_id }).await);
                        break;
                    }
                    Err(error) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::info!(event = "state_not_published", %error, cause);
                        sleep(wait).await;
                        wait = (wait * 2).min(first * 30);
                    }
                }
            }
        }
    }

    async fn publish(&self, plaintext: String, created_at: Unix) -> Result<EventId, PublishError> {
        let NetPins { spire, operator, .. } = self.pins;
        let content = self.signer.encrypt(operator, plaintext).await?;
        let address = DTag { kind: DocumentKind::CassettesState, spire };
        let event = address.to_unsigned(&spire, &operator, content, created_at);
        let event = self.signer.sign(event).await?;
        self.pool.publish(&event).await?;
        Ok(EventId::from_bytes(event.id.to_bytes()))
    }
}
