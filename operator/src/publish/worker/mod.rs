//! The outbox's documents: attested, encrypted and signed by the operator's key in its bunker, sent.
//!
//! Promise: a version's event is kept before it is sent for the first time, so after a restart the
//! same event goes out again, never a second one; of two versions the later one has the later
//! `created_at`. Once a relay took it, it is marked and the machine is told, in one write.
//!
//! Failure policy: [`PublishError`]; the row stays with the reason and is tried again, after one
//! second at first and every half minute at last. While one operator's bunker does not answer, its
//! other documents wait without asking it. Where it lies, somebody is told, once a day for a document.
//!
//! A change for all machines is ten thousand documents: the bunker has no more than a window of them,
//! others are kept and sent meanwhile, and what is written of them shares commits.

mod asked;
mod error;
mod heard;
mod job;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitspire_shared::document::watermark::next_time;
use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::rpc::{ConfigChanged, Push};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{Pool, PoolError};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nostr::{Event, JsonUtil as _};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use self::error::PublishError;
use self::job::{Job, job, make};
use super::{lies, wake};
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::ids::{DocumentId, OutboxId};
use crate::rpc::push;
use crate::signer::SignerError;
use crate::store::outbox::{self, Waiting};
use crate::store::{Kept, Read, StoreError, documents};

pub use self::asked::{outcome, republish};
pub use self::heard::heard;

/// Between two looks at what waits, where no bell rang.
const LOOK: Duration = Duration::from_secs(1);
/// Documents that are read from the outbox at once.
const PAGE: u32 = 64;
/// Documents under way at once, in whatever step.
const UNDER_WAY: usize = 48;
/// Documents that bunkers have at once.
pub const AT_BUNKERS: usize = 8;
/// Between two rings for documents that relays took: each wakes all who listen, who would be woken
/// hundreds of times a second.
const RING: Duration = Duration::from_millis(50);
/// The longest wait between two tries, in seconds.
const LONGEST_S: u64 = 30;

/// What takes events to relays.
pub(super) trait Carrier: Send + Sync + 'static {
    /// Takes it to as many as it can; those that have it now.
    fn carry<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Vec<String>, PoolError>>;

    /// Ends all connections.
    fn end(&self) -> BoxFuture<'_, ()>;
}

impl Carrier for Pool {
    fn carry<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Vec<String>, PoolError>> {
        Box::pin(self.publish(event))
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }
}

/// Sends documents.
pub(super) struct Publisher<C> {
    app: Arc<App>,
    relays: Arc<C>,
    at_bunkers: Semaphore,
}

/// What the attempts of one look tell each other.
#[derive(Default)]
struct Round {
    /// Operators whose bunker did not answer.
    resting: Mutex<BTreeSet<PubKey>>,
}

impl Round {
    fn resting(&self) -> MutexGuard<'_, BTreeSet<PubKey>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Carrier> Publisher<C> {
    pub(super) const fn new(app: Arc<App>, relays: Arc<C>) -> Self {
        Self { app, relays, at_bunkers: Semaphore::const_new(AT_BUNKERS) }
    }

    pub(super) async fn run(self, mut bell: broadcast::Receiver<Ring>) {
        let stop = self.app.stop.clone();
        let work = async {
            let mut look = tokio::time::interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    ring = bell.recv() => match ring {
                        // one look answers all that has rung
                        Ok(Ring::Outbox) | Err(broadcast::error::RecvError::Lagged(_)) => {
                            bell = bell.resubscribe();
                        }
                        Ok(_) => continue,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    _ = look.tick() => {}
                }
                if let Err(error) = self.look().await {
                    tracing::warn!(event = "outbox_not_read", error = in_words(&error));
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        self.relays.end().await;
    }

    /// Tries what is due now: one page after the other, the next one as soon as there is room for it.
    /// Where one operator's bunker rests, its documents are put off, and those of others behind them
    /// are reached.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let (now, round) = (self.app.clock.now(), Round::default());
        let pages = stream::try_unfold(outbox::START, |after| {
            let due = move |read: &Read<'_>| outbox::due_documents(read, now, after, PAGE);
            let due = self.app.store.read(due);
            async move {
                let page = due.await?;
                let last = page.last().map(|waiting| (waiting.not_before, waiting.id));
                let page = page.into_iter().map(Ok::<_, StoreError>);
                Ok::<_, StoreError>(last.map(|last| (stream::iter(page), last)))
            }
        });
        let tries = pages.try_flatten().map(async |due| self.attempt(due?, &round).await);
        let mut tries = pin!(tries.buffer_unordered(UNDER_WAY));
        let mut told: Option<Instant> = None;
        loop {
            let tried = match told {
                Some(first) => timeout_at(first + RING, tries.next()).await,
                None => Ok(tries.next().await),
            };
            let ended = match tried {
                Ok(Some(tried)) => {
                    self.app.attempts.send_modify(|ended| *ended = ended.wrapping_add(1));
                    if tried? {
                        told.get_or_insert_with(Instant::now);
                    }
                    false
                }
                Ok(None) => true,
                Err(_) => false,
            };
            if told.is_some_and(|first| ended || first.elapsed() >= RING) {
                told = None;
                wake(&self.app);
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Whether a relay took it and its machine is to be told.
    async fn attempt(
        &self,
        waiting: Kept<OutboxId, Waiting>,
        round: &Round,
    ) -> Result<bool, StoreError> {
        let Some(document) = waiting.document_id else { return Ok(false) };
        let error = match self.publish(document, round).await {
            Ok(told) => return Ok(told),
            Err(error) => error,
        };
        let reason = in_words(&error);
        tracing::info!(
            event = "document_not_published", machine = %waiting.machine_id, attempt =
            waiting.attempts, reason
        );
        let wait = 1u64.checked_shl(waiting.attempts).unwrap_or(LONGEST_S).min(LONGEST_S);
        let (id, machine, now) = (waiting.id, waiting.machine_id, self.app.clock.now());
        let lie = match &error {
            PublishError::Signer(error) if error.is_lie() => Some(error.code()),
            _ => None,
        };
        let kept = self.app.store.write(move |tx| {
            // it may have been superseded meanwhile, and is done then
            let waits = outbox::of_document(tx, document)?.is_some_and(|row| row.done_at.is_none());
            if !waits {
                return Ok(());
            }
            outbox::failed(tx, id, &reason, now.after(wait))?;
            match lie {
                Some(code) => lies::tell(tx, machine, document, (code, &reason), now),
                None => Ok(()),
            }
        });
        kept.await.map(|()| false)
    }

    /// Brings one document to a relay; whether its machine is to be told. One that was superseded
    /// needs nothing any more.
    async fn publish(&self, id: DocumentId, round: &Round) -> Result<bool, PublishError> {
        let Some((job, event, fresh)) = self.event(id, round).await? else { return Ok(false) };
        if fresh && !self.keep(id, &event).await? {
            return Ok(false);
        }
        let relays = self.relays.carry(&event).await?;
        let event_id = EventId::from_bytes(event.id.to_bytes());
        let d = job.address().to_string();
        let (machine, now) = (job.machine.id, self.app.clock.now());
        tracing::info!(event = "document_published", %machine, d, id = %event_id, ?relays);
        let told = self.app.store.write(move |tx| {
            documents::set_relay_acked(tx, id, now)?;
            let waited = outbox::document_done(tx, id, now)?;
            if waited {
                let changed = Push::ConfigChanged(ConfigChanged { d, event_id });
                push::queue(tx, machine, &changed, now)?;
            }
            Ok(waited)
        });
        let told: Result<bool, StoreError> = told.await;
        Ok(told?)
    }

    /// The document's event, and whether it was signed now and has to be kept; `None` where it was
    /// superseded.
    async fn event(
        &self,
        id: DocumentId,
        round: &Round,
    ) -> Result<Option<(Job, Event, bool)>, PublishError> {
        let read = async || self.app.store.read(move |read| job(read, id)).await;
        let Some(mut job) = read().await? else { return Ok(None) };
        if job.document.event.is_none() {
            // read again in its turn: what a document is made of must not grow old while it waits
            let Ok(_turn) = self.at_bunkers.acquire().await else { return Ok(None) };
            let Some(now) = read().await? else { return Ok(None) };
            job = now;
            if job.document.event.is_none() {
                let event = self.sign(&job, round).await?;
                return Ok(Some((job, event, true)));
            }
        }
        let kept = job.document.event.as_deref().unwrap_or_default();
        let event = Event::from_json(kept);
        let event = event.map_err(|error| PublishError::Event(error.to_string()))?;
        let d = event.tags.identifier().map(str::to_owned);
        if event.pubkey != job.operator.nostr() || d != Some(job.address().to_string()) {
            return Err(PublishError::OtherKeys);
        }
        Ok(Some((job, event, false)))
    }

    /// The document's event, signed now.
    async fn sign(&self, job: &Job, round: &Round) -> Result<Event, PublishError> {
        let operator = job.operator;
        let Some(signer) = self.app.signer(operator) else {
            round.resting().insert(operator);
            return Err(PublishError::NoSigner);
        };
        if round.resting().contains(&operator) {
            return Err(PublishError::SignerRests);
        }
        let now = self.app.clock.now();
        let created_at = next_time(now, job.last)?;
        let made = make(&*signer, job, created_at, now).await;
        if let Err(PublishError::Signer(
            SignerError::NoReply { .. } | SignerError::NotSent { .. },
        )) = made
        {
            round.resting().insert(operator);
        }
        made
    }

    /// Keeps a document's event; false where it was superseded meanwhile.
    async fn keep(&self, id: DocumentId, event: &Event) -> Result<bool, StoreError> {
        let (event_id, text) = (EventId::from_bytes(event.id.to_bytes()), event.as_json());
        let (created_at, now) = (Unix(event.created_at.as_secs()), self.app.clock.now());
        let kept = self
            .app
            .store
            .write(move |tx| documents::set_signed(tx, id, (event_id, &text), created_at, now));
        kept.await
    }
}
