//! Pushes: what the service tells a machine unasked.
//!
//! Promise: a push is queued in the transaction of what it tells and sent when that is durable, also
//! after a restart, to the machine's newest session or else to its spire key. `payment_settled`
//! gets its leave to dispense when it is sent, never when it is queued: a revoke in between leaves
//! none.
//!
//! `config_changed` follows its document, where the machine has not said that it applied it.
//!
//! One machine's pushes are sent one after the other, several machines' at once. What customers wait
//! for goes before what tells machines of a new configuration, of which ten thousand may wait.
//!
//! Failure policy: a push is a hint. One that no relay took is tried again until it is of no use;
//! the machine asks by itself besides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::ids::{EventId, PaymentHash, PushId, TxnId};
use bitspire_shared::rpc::{ConfigChanged, Push};
use bitspire_shared::settlement::Settled;
use bitspire_shared::time::Unix;
use bitspire_shell::crash;
use futures_util::{TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::MissedTickBehavior;

use super::failure::Failure;
use super::{Rpc, random};
use crate::app::Ring;
use crate::ids::{MachineId, OutboxId};
use crate::settle;
use crate::store::outbox::{self, NewPush, PUSH_USE_S, Waiting};
use crate::store::{Kept, StoreError, Tx, documents, machines, sessions};

/// Between two looks at what waits, where no bell rang.
const LOOK: Duration = Duration::from_secs(5);
/// Pushes that are read at once.
const BATCH: u32 = 64;
/// Machines that are told at once.
const AT_ONCE: usize = 8;
/// Seconds until a push that no relay took is tried again.
const RETRY_S: u64 = 5;
/// Seconds that a machine has to say that it applied a document before it is told of it: its relays
/// bring it the document itself, which is told of where one of them did not.
pub(crate) const HINT_S: u64 = 20;
/// The name of the push whose leave is added when it is sent.
const PAYMENT_SETTLED: &str = "payment_settled";

const fn name(push: &Push) -> &'static str {
    match push {
        Push::PaymentSettled(_) => PAYMENT_SETTLED,
        Push::WithdrawClaimed(_) => "withdraw_claimed",
        Push::WithdrawPaid(_) => "withdraw_paid",
        Push::ConfigChanged(_) => "config_changed",
        Push::Verdict(_) => "verdict",
    }
}

/// Queues a push for a machine, in the transaction of what it tells. Any [`Ring`] after the commit
/// sends it at once; `config_changed` is sent [`HINT_S`] later, where it is still of use. Without random bytes for its id there is none: it is a hint.
///
/// # Errors
/// [`StoreError`].
pub fn queue(tx: &Tx<'_>, machine: MachineId, push: &Push, now: Unix) -> Result<(), StoreError> {
    // `{push, body}` is how a push travels
    let body = serde_json::to_value(push).ok().and_then(|wire| wire.get("body").cloned());
    let (Some(body), Ok(push_id)) = (body, random().map(PushId::from_bytes)) else {
        tracing::error!(event = "push_not_queued", machine = %machine, push = name(push));
        return Ok(());
    };
    let expires_at = now.after(PUSH_USE_S);
    let not_before = match push {
        Push::ConfigChanged(_) => now.after(HINT_S),
        _ => now,
    };
    let push = name(push);
    let new = NewPush { machine_id: machine, push, push_id, body, expires_at, not_before };
    outbox::push(tx, &new, now).map(|_| ())
}

/// A `payment_settled` as it is queued: without its leave.
pub(crate) fn settled(
    machine: MachineId,
    txid: TxnId,
    push_id: PushId,
    settled: &Settled,
    now: Unix,
) -> NewPush {
    let body = json!({"txid": txid, "payment_hash": settled.payment_hash});
    let expires_at = now.after(PUSH_USE_S);
    let (push, not_before) = (PAYMENT_SETTLED, now);
    NewPush { machine_id: machine, push, push_id, body, expires_at, not_before }
}

/// Sends what waits until the daemon stops.
pub(super) async fn deliver(rpc: Arc<Rpc>, mut bell: broadcast::Receiver<Ring>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = rpc.app.stop.cancelled() => return,
            ring = bell.recv() => {
                if matches!(ring, Err(RecvError::Closed)) {
                    return;
                }
                // one look answers all that has rung
                bell = bell.resubscribe();
            }
            _ = look.tick() => {}
        }
        if let Err(error) = rpc.send_waiting().await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(event = "rpc_pushes_not_sent", error);
        }
    }
}

impl Rpc {
    /// Sends every push that is due; the ones that fail wait.
    async fn send_waiting(&self) -> Result<(), Failure> {
        while !self.app.stop.is_cancelled() {
            let now = self.app.clock.now();
            let due = self.app.store.read(move |read| outbox::due_pushes(read, now, BATCH));
            let mut lanes: BTreeMap<MachineId, Vec<_>> = BTreeMap::new();
            for waiting in due.await.map_err(Failure::Store)? {
                lanes.entry(waiting.machine_id).or_default().push(waiting);
            }
            if lanes.is_empty() {
                break;
            }
            let lanes = stream::iter(lanes.into_values().map(Ok));
            lanes.try_for_each_concurrent(AT_ONCE, async |lane| self.send_lane(lane).await).await?;
        }
        Ok(())
    }

    /// Sends what waits for one machine.
    async fn send_lane(&self, lane: Vec<Kept<OutboxId, Waiting>>) -> Result<(), Failure> {
        for waiting in lane {
            let id = waiting.id;
            let sent = self.send(&waiting).await;
            let now = self.app.clock.now();
            self.app
                .store
                .write(move |tx| match sent {
                    Ok(true) => outbox::done(tx, id, now),
                    Ok(false) => {
                        outbox::failed(tx, id, "no relay is connected", now.after(RETRY_S))
                    }
                    Err(failure) => {
                        outbox::failed(tx, id, &failure.to_string(), now.after(RETRY_S))
                    }
                })
                .await
                .map_err(Failure::Store)?;
        }
        Ok(())
    }

    /// Whether it is done: handed to a relay, or of no use any more.
    async fn send(&self, waiting: &Kept<OutboxId, Waiting>) -> Result<bool, Failure> {
        let (machine, now) = (waiting.machine_id, self.app.clock.now());
        let (Some(name), Some(push_id), Some(body)) =
            (&waiting.push, waiting.push_id, &waiting.body)
        else {
            return Ok(true);
        };
        let Some(push) = self.complete(name, body.0.clone()).await? else { return Ok(true) };
        if let Push::ConfigChanged(ConfigChanged { event_id, .. }) = push
            && self.needs_no_word(event_id, waiting.created_at).await?
        {
            return Ok(true);
        }
        let reader = self.app.store.read(move |read| {
            let session = sessions::listening(read, machine, now)?;
            let spire = machines::find(read, machine)?.and_then(|m| m.machine_npub);
            Ok::<_, StoreError>(session.or(spire))
        });
        let Some(reader) = reader.await? else { return Ok(true) };
        crash::point("outbox.before_send", name);
        let sent = self.line.push(reader, push_id, push).await?;
        crash::point("outbox.after_send", name);
        Ok(sent > 0)
    }

    /// Whether the machine has said since `told` that it applied the document, or a later one has taken
    /// its place. What it said before is no answer: a document is sent once more where a machine may
    /// have lost it.
    async fn needs_no_word(&self, event: EventId, told: Unix) -> Result<bool, StoreError> {
        let document = self.app.store.read(move |read| documents::by_event(read, event)).await?;
        Ok(document.is_some_and(|Kept { row, .. }| {
            row.superseded_at.is_some() || row.applied_at.is_some_and(|applied| applied >= told)
        }))
    }

    /// The push as it travels; `None` where there is nothing to be told any more.
    async fn complete(&self, name: &str, mut body: Value) -> Result<Option<Push>, Failure> {
        if name == PAYMENT_SETTLED {
            let hash: PaymentHash =
                serde_json::from_value(body.get("payment_hash").cloned().unwrap_or_default())?;
            let Some(leave) = settle::authorise(&self.app, hash).await? else { return Ok(None) };
            body = json!({
                "txid": leave.txid, "payment_hash": hash, "wire_sats": leave.wire_sats,
                "authorisation": leave.authorisation,
            });
        }
        Ok(Some(serde_json::from_value(json!({"push": name, "body": body}))?))
    }
}
