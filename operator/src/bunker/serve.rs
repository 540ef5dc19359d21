//! From a relay's message to a reply.
//!
//! Promise: one task reads, a bounded number work, all are owned here and end with `stop`. The
//! subscriptions follow the keys: a new one is asked for before its maker is told of it.

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::admit::Head;
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::nip46::KIND;
use bitspire_shared::nip46::message::Plain;
use bitspire_shared::nip46::server::{Incoming, Reply};
use bitspire_shell::pool::Pool;
use nostr::{Event, Filter, Kind as EventKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::BunkerError;
use super::admin;
use super::answer::{carry_out, letter};
use super::core::Core;
use super::decide::{Ask, Decision, decide, note_outcome};
use super::held::HeldKey;
use super::limits::{Asker, bump};
use super::replies::Begin;
use crate::signer::ADMIN_KIND;
use crate::signer::cipher::Encryption;
use crate::store::StoreError;
use crate::store::bunker::RequestOutcome;

/// Events read ahead; beyond it the relays' connections wait.
const QUEUE: usize = 256;
/// Requests worked on at once.
const WORKERS: usize = 64;
/// How long work in progress may go on after the stop.
const GRACE: Duration = Duration::from_secs(5);
/// Time between two looks for what can be forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Name of the subscription of a shard of keys.
pub(super) fn subscription(shard: i64) -> String {
    format!("keys-{shard}")
}

/// Requests to these keys from now on: none of these kinds is stored, and where one is, it is old.
pub(super) fn filter(kinds: &[u16], keys: &[PubKey]) -> Filter {
    Filter::new()
        .kinds(kinds.iter().copied().map(EventKind::from))
        .pubkeys(keys.iter().map(PubKey::nostr))
        .limit(0)
}

/// Serves until `stop` is cancelled or the database fails for good.
pub(super) async fn run(
    core: &Arc<Core>,
    relays: &[String],
    stop: &CancellationToken,
) -> Result<(), BunkerError> {
    let wanted = Arc::clone(core);
    let frames = Arc::new(move |text: &str| wanted.wants(text));
    let pool = Arc::new(Pool::connect(core.transport.clone(), relays, frames).await?);
    pool.subscribe("admin", filter(&[KIND, ADMIN_KIND], &[core.id])).await;
    let shards = core.held().shards();
    tracing::info!(
        event = "bunker_started", id = %core.id,
        keys = shards.values().map(Vec::len).sum::<usize>()
    );
    for (shard, keys) in shards {
        pool.subscribe(&subscription(shard), filter(&[KIND], &keys)).await;
    }
    let (queue, mut events) = mpsc::channel(QUEUE);
    let mut reading = JoinSet::new();
    let source = Arc::clone(&pool);
    // in a task of its own: reading must not be cut off half-way by what happens beside it
    reading.spawn(async move {
        while let Some(event) = source.next().await {
            if queue.send(event).await.is_err() {
                break;
            }
        }
    });
    let served = work(core, &pool, &mut events, stop).await;
    drop(events);
    pool.close().await;
    reading.shutdown().await;
    served
}

async fn work(
    core: &Arc<Core>,
    pool: &Arc<Pool>,
    events: &mut mpsc::Receiver<Event>,
    stop: &CancellationToken,
) -> Result<(), BunkerError> {
    let mut working = JoinSet::new();
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv(), if working.len() < WORKERS => {
                let Some(event) = event else { break };
                working.spawn(handle(Arc::clone(core), Arc::clone(pool), event));
            }
            Some(_) = working.join_next(), if !working.is_empty() => core.db.health()?,
            _ = housekeeping.tick() => {
                core.forget_old();
                core.db.health()?;
            }
        }
    }
    let finish = async { while working.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        working.shutdown().await;
    }
    Ok(())
}

async fn handle(core: Arc<Core>, pool: Arc<Pool>, event: Event) {
    // relays may hand over what no subscription asked for, and the filter reads only the head
    let Ok(head) = Head::of(&event) else { return };
    let Ok(from) = PubKey::new(event.pubkey) else { return };
    let Some(to) = head.recipient else { return };
    if to == core.id.to_bytes() {
        admin::handle(&core, &pool, &event, from, head.created_at).await;
        return;
    }
    let known = core.held().asker(&to, &head.pubkey);
    let Some(held) = core.held().key(&to) else { return };
    if !core.limits.client(known.unwrap_or(Asker::Machine), &head.pubkey, core.mono()) {
        bump(&core.counts.limited);
        core.log_refused("a client asks too often");
        return;
    }
    let Some((ask, text)) = read(&core, &held, &event, from) else {
        bump(&core.counts.unreadable);
        return;
    };
    let asked = (held.pubkey, from, ask.digest);
    let Begin::Ours(before) = core.replies.begin(&asked, core.mono()) else {
        bump(&core.counts.repeated);
        return;
    };
    drop(text);
    let encryption = Encryption::of(&event.content);
    let reply = reply(&core, &held, &ask, before).await;
    if reply.is_none() {
        bump(&core.counts.failed);
    }
    core.replies.finish(&asked, reply.clone(), core.mono());
    if let Some(reply) = reply {
        send(&core, &pool, &held, (from, encryption), &reply).await;
    }
}

/// The request in an event, or nothing where it is none or came before.
fn read(core: &Core, held: &HeldKey, event: &Event, from: PubKey) -> Option<(Ask, Plain)> {
    let key = core.conversation(&held.keys, held.pubkey, from).ok()?;
    let encryption = Encryption::of(&event.content);
    let text = encryption.open(&held.keys, from, &key, &event.content).ok()?;
    let id = EventId::from_bytes(event.id.to_bytes());
    let incoming = core.server().receive(id, from, &held.pubkey, text.expose()).ok()?;
    let digest = sha256(text.expose());
    Some((Ask { key: held.id, digest, incoming: Arc::new(incoming) }, text))
}

/// What the client is told; nothing where that could not be written down first.
async fn reply(core: &Core, held: &HeldKey, ask: &Ask, before: Option<Plain>) -> Option<Plain> {
    let (now, job) = (core.clock.now(), ask.clone());
    let decided: Result<_, StoreError> = core.db.write(move |tx| decide(tx, &job, now)).await;
    let incoming: &Incoming = &ask.incoming;
    let respond = |reply: Reply| Some(incoming.respond(reply).to_json());
    let (grant, repeated) = match decided {
        Ok(Decision::Denied(why)) => {
            bump(&core.counts.refused);
            core.log_refused(&why);
            return respond(Reply::Error(why));
        }
        Ok(Decision::Admitted(grant, token, asker)) => {
            core.hide_token(token);
            core.held_mut().add_client(held.pubkey, incoming.client, asker);
            tracing::info!(event = "bunker_client_connected", key = %held.pubkey, client = %incoming.client);
            (grant, false)
        }
        Ok(Decision::Allowed(grant)) => (grant, false),
        Ok(Decision::Repeated(grant)) => (grant, true),
        Err(error) => {
            tracing::error!(event = "bunker_request_not_stored", %error, "no reply is sent");
            return None;
        }
    };
    if repeated {
        bump(&core.counts.repeated);
        if before.is_some() {
            return before;
        }
    }
    match carry_out(core, held, &incoming.call) {
        Ok(reply) => {
            bump(&core.counts.answered);
            respond(reply)
        }
        Err(error) => {
            bump(&core.counts.refused);
            let (job, why) = (ask.clone(), error.to_string());
            let noted: Result<(), StoreError> = core
                .db
                .write(move |tx| {
                    note_outcome(tx, &job, grant, None, RequestOutcome::Failed, &why, now)
                })
                .await;
            if let Err(error) = noted {
                tracing::error!(event = "bunker_outcome_not_stored", %error);
            }
            respond(Reply::Error(error.to_string()))
        }
    }
}

async fn send(
    core: &Core,
    pool: &Pool,
    held: &HeldKey,
    (to, encryption): (PubKey, Encryption),
    text: &Plain,
) {
    match letter(core, (&held.keys, held.pubkey), to, KIND, encryption, text) {
        Ok(event) => {
            if pool.send(&event).await == 0 {
                tracing::info!(event = "bunker_reply_not_sent", client = %to, "no relay is connected");
            }
        }
        Err(error) => tracing::error!(event = "bunker_reply_not_made", client = %to, %error),
    }
}
