//! The outbox's documents: attested, encrypted and signed by the operator's key in its bunker, sent.
//!
//! Promise: a version's event is kept before it is sent for the first time, so after a restart the
//! same event goes out again, never a second one; of two versions the later one has the later
//! `created_at`. Once a relay took it, it is marked and the machine is told, in one write.
//!
//! Failure policy: [`PublishError`]; the row stays with the reason and is tried again, after one
//! second at first and every half minute at last. Where an operator's bunker does not answer, its
//! documents wait, and nobody else's ([`bunkers`]). Where it lies, somebody is told, once a day for a
//! document.
//!
//! A change for all machines is ten thousand documents: the bunker has no more than a window of them,
//! others are kept and sent meanwhile, and what is written of them shares commits.

mod asked;
mod bunkers;
mod due;
mod error;
mod heard;
mod job;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::document::watermark::next_time;
use bitspire_shared::ids::EventId;
use bitspire_shared::rpc::{ConfigChanged, Push};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{Pool, PoolError};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use nostr::{Event, JsonUtil as _};
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use self::bunkers::{Bunkers, Turn};
use self::due::Due;
use self::error::PublishError;
use self::job::{Job, job, make};
use super::{lies, wake};
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::ids::{DocumentId, OutboxId};
use crate::rpc::push;
use crate::signer::SignerError;
use crate::store::outbox::{self, Waiting};
use crate::store::{Kept, StoreError, documents};

pub use self::asked::{outcome, republish};
pub use self::bunkers::AT_BUNKERS;
pub use self::heard::heard;

/// Between two looks at what waits, where no bell rang.
const LOOK: Duration = Duration::from_secs(1);
/// Documents under way at once, in whatever step.
const UNDER_WAY: usize = 48;
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
    bunkers: Bunkers,
}

impl<C: Carrier> Publisher<C> {
    pub(super) const fn new(app: Arc<App>, relays: Arc<C>) -> Self {
        Self { app, relays, bunkers: Bunkers::new() }
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

    /// Tries what is due, and what becomes so meanwhile, until nothing is under way: whoever waits for
    /// one bunker or relay keeps nothing from being begun.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let (mut due, mut anew) = (Due::new(), Instant::now() + LOOK);
        let mut tries = FuturesUnordered::new();
        let mut told: Option<Instant> = None;
        loop {
            while tries.len() < UNDER_WAY
                && let Some(waiting) = due.next(&self.app).await?
            {
                tries.push(async { (waiting.id, self.attempt(waiting).await) });
            }
            let until = told.map_or(anew, |first| anew.min(first + RING));
            let ended = match timeout_at(until, tries.next()).await {
                Ok(Some((id, tried))) => {
                    due.ended(id);
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
            if Instant::now() >= anew {
                anew = Instant::now() + LOOK;
                due.anew();
            }
        }
    }

    /// Whether a relay took it and its machine is to be told.
    async fn attempt(&self, waiting: Kept<OutboxId, Waiting>) -> Result<bool, StoreError> {
        let Some(document) = waiting.document_id else { return Ok(false) };
        let (began, hurried) = (waiting.not_before, waiting.is_hurried());
        let error = match self.publish(document, hurried).await {
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
            // superseded meanwhile, it is done. Hurried meanwhile, it is due: what came of an attempt
            // from before is no answer to whoever asked for it
            let stands = |row: &Waiting| row.done_at.is_none() && row.not_before == began;
            if !outbox::of_document(tx, document)?.is_some_and(|row| stands(&row)) {
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
    async fn publish(&self, id: DocumentId, hurried: bool) -> Result<bool, PublishError> {
        let Some((job, event, fresh)) = self.event(id, hurried).await? else { return Ok(false) };
        if fresh && !self.keep(id, &event).await? {
            return Ok(false);
        }
        let began = self.app.clock.now();
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
                // what the machine says from here on may be its answer
                push::queue(tx, machine, &changed, began)?;
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
        hurried: bool,
    ) -> Result<Option<(Job, Event, bool)>, PublishError> {
        let read = async || self.app.store.read(move |read| job(read, id)).await;
        let Some(mut job) = read().await? else { return Ok(None) };
        if job.document.event.is_none() {
            self.app.signer(job.operator).ok_or(PublishError::NoSigner)?;
            let turn = self.bunkers.turn(job.operator, hurried, &self.app.clock).await;
            let turn = turn.ok_or(PublishError::SignerRests)?;
            // read again in its turn: what a document is made of must not grow old while it waits
            let Some(now) = read().await? else { return Ok(None) };
            job = now;
            if job.document.event.is_none() {
                let event = self.sign(&job, turn).await?;
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
    async fn sign(&self, job: &Job, turn: Turn<'_>) -> Result<Event, PublishError> {
        let signer = self.app.signer(job.operator).ok_or(PublishError::NoSigner)?;
        let now = self.app.clock.now();
        let created_at = next_time(now, job.last)?;
        let made = make(&*signer, job, created_at, now).await;
        match &made {
            Err(PublishError::Signer(
                SignerError::NoReply { .. } | SignerError::NotSent { .. },
            )) => turn.unanswered(self.app.clock.now()),
            Ok(_) | Err(PublishError::Signer(_)) => turn.answered(),
            // it was not asked
            Err(_) => {}
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
