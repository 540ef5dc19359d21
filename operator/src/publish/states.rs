//! What machines say about their cassettes: subscribed, checked, decrypted, stored once.
//!
//! Promise: what is stored is by the machine that its `d` tag names, for its operator, signed by the
//! vault that was pinned. The subscription follows the list of paired machines, and there is none
//! where there are no machines. The first state after a pairing fills the cassettes' table.
//!
//! Failure policy: a bunker that does not answer, and a vault that is not pinned yet, are waited
//! for with backoff, for the newest event of each machine; what is refused for good is counted once
//! for each event.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitspire_shared::document::watermark::{Decision, decide};
use bitspire_shared::document::{
    CassettesState, Checked, DOCUMENT_KIND, DTag, DocumentError, DocumentKind, check_event,
};
use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::ids::{EventId, JournalSeq, PubKey};
use bitspire_shared::money::Currency;
use bitspire_shared::time::Unix;
use bitspire_shell::pool::Pool;
use nostr::{Alphabet, Event, Filter, Kind as EventKind, SingleLetterTag};
use serde_json::json;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use super::Authors;
use crate::app::{App, Ring};
use crate::fleet::machines::subject;
use crate::http::error::in_words;
use crate::ids::MachineId;
use crate::signer::SignerError;
use crate::store::cassettes::{self, Cassette, State};
use crate::store::{Json, Read, StoreError, Tx, log, machines, operators};

/// Between two looks at the list of machines, where no bell rang.
const FOLLOW: Duration = Duration::from_secs(2);
/// Between two looks at what waits.
const LOOK: Duration = Duration::from_secs(1);
/// The longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(30);
/// Stored states that a relay is asked for at once, if it gives so many. One for each machine is not
/// enough: each of them could have written under each of their names, and a relay leaves out the
/// oldest, which may be the true one. Where a relay gives fewer than that, there is room for one that
/// lies; see [`crate::relays::Limits::machines_in_one`].
const ANSWERS: usize = 5_000;
/// Events between the connections and whoever decrypts.
const PLACES: usize = 64;
/// Refused events that are remembered.
const REMEMBERED: usize = 1_024;

/// A paired machine, as its states are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    machine: MachineId,
    operator: PubKey,
    currency: Currency,
}

/// Paired machines by spire key.
type List = BTreeMap<PubKey, Watched>;
type Shared = Arc<Mutex<List>>;

/// Why a state is not stored.
#[derive(Debug, Error)]
enum StateError {
    #[error("expected the d tag of a paired machine's cassettes-state")]
    NotOurs,
    #[error("the operator's key cannot be used yet")]
    NoSigner,
    #[error("the machine's vault is not known yet")]
    NoVault,
    #[error("it is too far ahead of the clock")]
    Ahead,
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the text is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StateError {
    /// Whether it may be stored later.
    fn may_change(&self) -> bool {
        match self {
            Self::NotOurs | Self::Document(_) | Self::Json(_) => false,
            Self::NoSigner | Self::NoVault | Self::Ahead | Self::Store(_) => true,
            Self::Signer(error) => error.kind() != Kind::Permanent,
        }
    }
}

pub(super) fn start(
    app: &Arc<App>,
    pool: Arc<Pool>,
    authors: Authors,
    bell: broadcast::Receiver<Ring>,
) {
    let list = Shared::default();
    let (events, inbox) = mpsc::channel(PLACES);
    let (stop, reading) = (app.stop.clone(), pool.clone());
    app.tasks.spawn(async move {
        let read = async {
            while let Some(event) = reading.next().await {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = read => {}
        }
    });
    let reader = Reader { app: app.clone(), list: list.clone(), memory: Memory::default() };
    app.tasks.spawn(reader.run(inbox));
    let follower = Follower { app: app.clone(), pool, list, authors, asked: Vec::new() };
    app.tasks.spawn(follower.run(bell));
}

/// Keeps the subscriptions as the list of machines is.
struct Follower {
    app: Arc<App>,
    pool: Arc<Pool>,
    list: Shared,
    authors: Authors,
    /// Keys of machines and operators of each subscription.
    asked: Vec<Vec<(PubKey, PubKey)>>,
}

impl Follower {
    async fn run(mut self, mut bell: broadcast::Receiver<Ring>) {
        let stop = self.app.stop.clone();
        let mut tick = tokio::time::interval(FOLLOW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                ring = bell.recv() => match ring {
                    Ok(Ring::Roster) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Ok(_) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => {}
            }
            if let Err(error) = self.follow().await {
                tracing::warn!(event = "machines_not_read", error = in_words(&error));
            }
        }
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        let list = self.app.store.read(watched).await?;
        let keys: Vec<_> = list.iter().map(|(spire, of)| (*spire, of.operator)).collect();
        *self.authors.lock().unwrap_or_else(PoisonError::into_inner) =
            list.keys().map(ToString::to_string).collect();
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = list;
        // relays bound the length of a message, and how much they answer
        let in_one = self.app.relays.limits().machines_in_one();
        let chunks: Vec<_> = keys.chunks(in_one).map(<[_]>::to_vec).collect();
        for (number, chunk) in chunks.iter().enumerate() {
            if self.asked.get(number) != Some(chunk) {
                self.pool.subscribe(&name(number), filter(chunk)).await;
            }
        }
        for number in chunks.len()..self.asked.len() {
            self.pool.unsubscribe(&name(number)).await;
        }
        self.asked = chunks;
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("cassettes-{number}")
}

fn filter(machines: &[(PubKey, PubKey)]) -> Filter {
    let kind = DocumentKind::CassettesState;
    let readers: BTreeSet<_> = machines.iter().map(|(_, operator)| operator.nostr()).collect();
    Filter::new()
        .kind(EventKind::from(DOCUMENT_KIND))
        .authors(machines.iter().map(|(spire, _)| spire.nostr()))
        .pubkeys(readers)
        .custom_tags(
            SingleLetterTag::lowercase(Alphabet::D),
            machines.iter().map(|(spire, _)| DTag { kind, spire: *spire }.to_string()),
        )
        // unasked, some relays give fewer
        .limit(machines.len().saturating_mul(machines.len()).min(ANSWERS))
}

/// The machines that are paired, have a key, and an operator with one.
fn watched(read: &Read<'_>) -> Result<List, StoreError> {
    let operators: BTreeMap<_, _> = operators::list(read)?
        .into_iter()
        .filter_map(|operator| Some((operator.id, operator.pubkey?)))
        .collect();
    let paired = machines::roster(read)?.into_iter().filter(|m| m.revoked_at.is_none());
    let list = paired.filter_map(|machine| {
        let operator = *operators.get(&machine.operator_id)?;
        let currency = machine.currency;
        Some((machine.spire, Watched { machine: machine.id, operator, currency }))
    });
    Ok(list.collect())
}

struct Waits {
    event: Event,
    at: Instant,
    pause: Duration,
}

#[derive(Default)]
struct Memory {
    /// The newest event of each author that waits.
    waiting: BTreeMap<nostr::PublicKey, Waits>,
    refused: HashSet<EventId>,
    order: VecDeque<EventId>,
    count: u64,
}

/// Takes states in.
struct Reader {
    app: Arc<App>,
    list: Shared,
    memory: Memory,
}

impl Reader {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let stop = self.app.stop.clone();
        let work = async {
            let mut look = tokio::time::interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    event = inbox.recv() => match event {
                        Some(event) => self.take(event, LOOK).await,
                        None => return,
                    },
                    _ = look.tick() => self.again().await,
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Tries the events whose time has come.
    async fn again(&mut self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.memory.waiting.iter().filter(|(_, w)| w.at <= now).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(Waits { event, pause, .. }) = self.memory.waiting.remove(&key) {
                self.take(event, pause.saturating_mul(2).min(LONGEST)).await;
            }
        }
    }

    async fn take(&mut self, event: Event, pause: Duration) {
        let id = EventId::from_bytes(event.id.to_bytes());
        if self.memory.refused.contains(&id) {
            return;
        }
        match self.store(&event).await {
            Ok(()) => {
                let newest = |w: &Waits| w.event.created_at <= event.created_at;
                if self.memory.waiting.get(&event.pubkey).is_some_and(newest) {
                    self.memory.waiting.remove(&event.pubkey);
                }
            }
            Err(error) if error.may_change() => {
                tracing::info!(event = "state_waits", %id, reason = in_words(&error));
                let known = self.memory.waiting.get(&event.pubkey);
                if known.is_none_or(|known| known.event.created_at <= event.created_at) {
                    let waits = Waits { at: Instant::now() + pause, pause, event };
                    self.memory.waiting.insert(waits.event.pubkey, waits);
                }
            }
            Err(error) => self.refuse(id, &error),
        }
    }

    fn refuse(&mut self, id: EventId, error: &StateError) {
        let memory = &mut self.memory;
        memory.count = memory.count.saturating_add(1);
        let (reason, total) = (in_words(error), memory.count);
        tracing::warn!(event = "state_refused", %id, reason, total);
        if memory.refused.insert(id) {
            memory.order.push_back(id);
        }
        if memory.order.len() > REMEMBERED
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.refused.remove(&oldest);
        }
    }

    async fn store(&self, event: &Event) -> Result<(), StateError> {
        let now = self.app.clock.now();
        let d = event.tags.identifier().and_then(|d| d.parse::<DTag>().ok());
        let d = d.filter(|d| d.kind == DocumentKind::CassettesState).ok_or(StateError::NotOurs)?;
        let of = self.list.lock().unwrap_or_else(PoisonError::into_inner).get(&d.spire).copied();
        let of = of.ok_or(StateError::NotOurs)?;
        let checked = check_event(event, &d, &d.spire, &of.operator, now)?;
        let id = checked.id();
        let look = move |read: &Read<'_>| {
            let machine = machines::find(read, of.machine)?;
            let machine = machine.filter(|machine| machine.machine_npub == Some(d.spire));
            Ok::<_, StoreError>((cassettes::knows_state(read, id)?, machine))
        };
        let (known, machine) = self.app.store.read(look).await?;
        if known {
            return Ok(());
        }
        let signer = self.app.signer(of.operator).ok_or(StateError::NoSigner)?;
        let vault = machine.and_then(|machine| machine.row.vault_key).ok_or(StateError::NoVault)?;
        let text = signer.decrypt(d.spire, event.content.clone()).await?;
        CassettesState::check_vault(&text, &vault)?;
        let state = CassettesState::from_json(&text, of.currency)?;
        if ahead(&checked, &state, now) {
            return Err(StateError::Ahead);
        }
        let body = serde_json::from_str(&text)?;
        let kept = State {
            event_id: id,
            machine_id: of.machine,
            base_seq: state.base_seq.unwrap_or(JournalSeq(0)),
            body: Json(body),
            received_at: now,
        };
        Ok(self.app.store.write(move |tx| keep(tx, d.spire, &kept, &state, now)).await?)
    }
}

/// Which of two states is the later one, the machine's own journal says; but none is taken from the
/// far future.
fn ahead(checked: &Checked, state: &CassettesState, now: Unix) -> bool {
    decide(None, &checked.mark(state.published_at), now) == Decision::TooFarAhead
}

fn keep(
    tx: &Tx<'_>,
    spire: PubKey,
    kept: &State,
    state: &CassettesState,
    now: Unix,
) -> Result<(), StoreError> {
    let id = kept.machine_id;
    let paired = machines::find(tx, id)?
        .filter(|machine| machine.machine_npub == Some(spire) && machine.revoked_at.is_none())
        .and_then(|machine| machine.paired_at);
    // revoked, or paired anew with another key, since the event was checked
    let Some(paired_at) = paired else { return Ok(()) };
    let first = cassettes::last_state(tx, id, paired_at)?.is_none();
    if !cassettes::insert_state(tx, kept)? || !first {
        return Ok(());
    }
    // what an operator changed meanwhile stays: the machine has not applied it yet
    let open: BTreeSet<_> =
        cassettes::open_changes(tx, id)?.into_iter().map(|change| change.bay).collect();
    for known in cassettes::list(tx, id)? {
        if !open.contains(&known.bay) && !state.positions.contains_key(&known.bay) {
            cassettes::remove(tx, id, known.bay)?;
        }
    }
    for (bay, position) in state.positions.iter().filter(|(bay, _)| !open.contains(bay)) {
        let cassette = Cassette {
            machine_id: id,
            bay: *bay,
            denomination: position.denomination,
            count: position.count,
            updated_at: now,
        };
        cassettes::set(tx, &cassette)?;
    }
    let detail = json!({"event_id": kept.event_id, "bays": state.positions.len()});
    log::by_service(tx, "machine.cassettes_bootstrap", &subject(id), detail, now).map(|_| ())
}
