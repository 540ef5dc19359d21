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

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::document::watermark::{Ahead, next_time};
use bitspire_shared::document::{self, Cassettes, DTag, DocumentError, attest};
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{ChangeId, EventId, Nonce, PubKey};
use bitspire_shared::rpc::{ConfigChanged, Push};
use bitspire_shared::statement::{SignedStatement, Statement};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{Pool, PoolError};
use bitspire_shell::secrets::{SecretError, random};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nostr::{Event, JsonUtil as _};
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior, timeout_at};
use zeroize::Zeroizing;

use super::status::{self, Asked, Publish, State};
use super::{cassettes, fees, lies, wake};
use crate::app::{App, Ring};
use crate::fleet::machines::{find, subject};
use crate::fleet::{FleetError, audit};
use crate::http::error::in_words;
use crate::ids::{DocumentId, MachineId, OperatorId, OutboxId};
use crate::rpc::push;
use crate::signer::{RemoteSigner, SignerError};
use crate::store::documents::{self, DocumentKind, KeptDocument};
use crate::store::machines::KeptMachine;
use crate::store::outbox::{self, Waiting};
use crate::store::{Kept, Read, StoreError, Tx, machines, operators};

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
/// How long a document that a relay took may be on its way to its machine before it is sent once
/// more, in seconds. A machine that refuses a document is sent it so often.
const ONCE_MORE_S: u64 = 300;
/// How long an operator's statement about a document holds: a year, in seconds.
const ATTEST_S: u64 = 365 * 86_400;
/// How long a write waits for its documents before it answers "queued".
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an explicit republish waits: longer than a bunker's answers may take.
const REPUBLISH_PATIENCE: Duration = Duration::from_secs(20);

/// Why a document is not with a relay yet.
#[derive(Debug, Error)]
enum PublishError {
    #[error("the machine has no key yet: it is published when the machine is paired")]
    Unpaired,
    #[error("the machine is revoked: it is published when the machine is paired again")]
    Revoked,
    #[error("the operator has no key yet; make one with `operator init`")]
    NoIdentity,
    #[error("the operator's key cannot be used: its bunker has not been reached since the start")]
    NoSigner,
    #[error("it was signed for other keys than today's: publish it again")]
    OtherKeys,
    #[error("the bunker did not answer for another document of this operator just now")]
    SignerRests,
    #[error(transparent)]
    Ahead(#[from] Ahead),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Relay(#[from] PoolError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the operator's statement")]
    Statement(#[from] CanonicalError),
    #[error("no random bytes")]
    Random(#[from] SecretError),
    #[error("the kept event cannot be read: {0}")]
    Event(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classified for PublishError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unpaired | Self::Revoked | Self::NoIdentity | Self::OtherKeys => Kind::Permanent,
            Self::NoSigner | Self::SignerRests => Kind::Transient,
            Self::Ahead(error) => error.kind(),
            Self::Signer(error) => error.kind(),
            Self::Relay(error) => error.kind(),
            Self::Document(error) => error.kind(),
            Self::Statement(error) => error.kind(),
            Self::Random(error) => error.kind(),
            Self::Event(_) => Kind::Permanent,
            Self::Store(error) => error.kind(),
        }
    }
}

/// What a document needs to be made into an event.
struct Job {
    document: KeptDocument,
    machine: KeptMachine,
    spire: PubKey,
    operator: PubKey,
    /// `created_at` of the last event of this kind.
    last: Option<Unix>,
}

impl Job {
    fn address(&self) -> DTag {
        let kind = match self.document.kind {
            DocumentKind::Fees => document::DocumentKind::Fees,
            DocumentKind::Cassettes => document::DocumentKind::Cassettes,
        };
        DTag { kind, spire: self.spire }
    }

    /// The plaintext, with the operator's statement or without.
    fn plaintext(&self, attest: Option<SignedStatement>) -> Result<String, DocumentError> {
        let document = &self.document;
        match document.fees() {
            // from the columns: a stored JSON fraction has passed through a binary float
            Some(set) => {
                let mut fees = fees::document(set, document.published_at)?;
                fees.attest = attest;
                fees.to_json()
            }
            None => {
                let currency = self.machine.currency;
                let text = document.body.0.to_string();
                let mut cassettes = Cassettes::from_json(&text, currency)?;
                cassettes.attest = attest;
                cassettes.to_json(currency)
            }
        }
    }
}

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

/// What is known of a document that waits; `None` where it is superseded.
fn job(read: &Read<'_>, id: DocumentId) -> Result<Option<Job>, PublishError> {
    let Some(document) = documents::find(read, id)?.filter(|d| d.superseded_at.is_none()) else {
        return Ok(None);
    };
    let Some(machine) = machines::find(read, document.machine_id)? else { return Ok(None) };
    if machine.revoked_at.is_some() {
        return Err(PublishError::Revoked);
    }
    let spire = machine.machine_npub.ok_or(PublishError::Unpaired)?;
    let operator = operators::find(read, machine.operator_id)?.and_then(|operator| operator.pubkey);
    let operator = operator.ok_or(PublishError::NoIdentity)?;
    let last = documents::last_created_at(read, machine.id, document.kind)?;
    Ok(Some(Job { document, machine, spire, operator, last }))
}

/// The attested, encrypted and signed event.
async fn make(
    signer: &dyn RemoteSigner,
    job: &Job,
    created_at: Unix,
    now: Unix,
) -> Result<Event, PublishError> {
    let statement = Statement::Document {
        spire: job.spire,
        sha256: attest::digest(&job.plaintext(None)?)?,
        nonce: Nonce::from_bytes(random()?),
        not_after: now.after(ATTEST_S),
    };
    let statement = signer.sign(statement.to_unsigned(&job.operator, now)?).await?;
    let plaintext = job.plaintext(Some(SignedStatement::new(statement)))?;
    let content = signer.encrypt(job.spire, Zeroizing::new(plaintext)).await?;
    let event = job.address().to_unsigned(&job.operator, &job.spire, content, created_at);
    Ok(signer.sign(event).await?)
}

/// What a machine says that it applies: its lights, its changes; and where that is not what is
/// wanted, although a relay took it long ago, the relays have forgotten it, or gave it to nobody: it
/// is sent once more.
///
/// # Errors
/// [`StoreError`].
pub fn heard(
    tx: &Tx<'_>,
    machine: MachineId,
    applied: &BTreeSet<EventId>,
    changes: &BTreeSet<ChangeId>,
    now: Unix,
) -> Result<(), StoreError> {
    for event in applied {
        documents::set_applied(tx, machine, *event, now)?;
    }
    for change in changes {
        crate::store::cassettes::ack_change(tx, machine, *change, now)?;
    }
    for (wanted, event) in documents::wanted_signed(tx, machine)? {
        if !applied.contains(&event) {
            outbox::once_more(tx, wanted, now, Unix(now.0.saturating_sub(ONCE_MORE_S)))?;
        }
    }
    Ok(())
}

/// What came of documents, as soon as it is known of all; at the latest after `patience`. Each look
/// goes only as far as the first that is under way: ten thousand of them are not read again for each
/// that ends.
async fn await_all(app: &App, asked: &[Asked], patience: Duration) -> Result<Publish, StoreError> {
    let mut ended = app.attempts.subscribe();
    let end = Instant::now() + patience;
    let mut open = asked;
    loop {
        ended.borrow_and_update();
        let wanted = open.to_vec();
        let known = app.store.read(move |read| {
            let outcomes = wanted.iter().map(|asked| status::outcome(read, *asked).transpose());
            outcomes.map_while(|outcome| outcome).collect::<Result<Vec<_>, StoreError>>()
        });
        let known = known.await?;
        if let Some(failed) = known.iter().find(|outcome| outcome.state == State::Queued) {
            return Ok(failed.clone());
        }
        open = open.get(known.len()..).unwrap_or_default();
        if open.is_empty() {
            return Ok(Publish::published());
        }
        if timeout_at(end, ended.changed()).await.is_err() {
            return Ok(Publish::queued("it is being published; no relay has taken it yet"));
        }
    }
}

/// What came of documents that a write has just wanted.
///
/// # Errors
/// [`StoreError`].
pub async fn outcome(app: &App, documents: &[DocumentId]) -> Result<Publish, StoreError> {
    let asked: Vec<_> =
        documents.iter().map(|document| Asked { document: *document, attempts: 0 }).collect();
    await_all(app, &asked, PATIENCE).await
}

/// Publishes a machine's documents once more, now.
///
/// # Errors
/// [`FleetError::Unpublishable`] for a machine or an operator without a key,
/// [`FleetError::NotPublished`] where no relay took them: they stay in the outbox.
pub async fn republish(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
) -> Result<status::Documents, FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let asked = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        let missing = |why| Err(FleetError::Unpublishable { machine: id, why });
        if machine.machine_npub.is_none() || machine.revoked_at.is_some() {
            return missing("it is not paired: pair it first");
        }
        if operators::find(tx, machine.operator_id)?.is_none_or(|o| o.pubkey.is_none()) {
            return missing("its operator has no key: make one with `operator init`");
        }
        let mut asked = vec![again(tx, &machine, DocumentKind::Fees, now)?];
        if documents::wanted(tx, id, DocumentKind::Cassettes)?.is_some() {
            asked.push(again(tx, &machine, DocumentKind::Cassettes, now)?);
        }
        audit(tx, now, &actor, "machine.republish", &subject(id), serde_json::Value::Null)?;
        Ok(asked)
    });
    let asked: Result<Vec<Asked>, FleetError> = asked.await;
    let asked = asked?;
    wake(app);
    let came = await_all(app, &asked, REPUBLISH_PATIENCE).await?;
    if came.state == State::Queued {
        return Err(FleetError::NotPublished(came.reason.unwrap_or_default()));
    }
    Ok(app.store.read(move |read| status::of_machine(read, id)).await?)
}

/// Makes the wanted version due now; one that a relay has is wanted anew.
fn again(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    kind: DocumentKind,
    now: Unix,
) -> Result<Asked, FleetError> {
    let waits = documents::wanted(tx, machine.id, kind)?.filter(|d| d.relay_acked_at.is_none());
    let place = match &waits {
        Some(document) => outbox::of_document(tx, document.id)?,
        None => None,
    };
    if let (Some(document), Some(place)) = (waits, place) {
        outbox::hurry(tx, document.id, now)?;
        return Ok(Asked { document: document.id, attempts: place.attempts });
    }
    let document = match kind {
        DocumentKind::Fees => fees::want(tx, machine, now)?,
        DocumentKind::Cassettes => cassettes::want(tx, machine, now)?,
    };
    Ok(Asked { document, attempts: 0 })
}
