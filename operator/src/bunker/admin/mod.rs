//! Administration over Nostr: kind 24134 (24133 is taken too), NIP-44, or NIP-04 for clients that
//! know no other, to the transport key. A reply is in the kind and encryption of its request.
//!
//! Promise: only a key in the list of administrators gets anything, a reply included; a request is
//! carried out once, also if a relay brings it again after a restart; what it changed is on the disk
//! before its reply. A key is never overwritten, and never given out. A token's text is shown to
//! administrators from memory alone: until it is used, revoked, 15 minutes old, or the process ends.
//!
//! Beyond what nsecbunkerd has: `get_keys [skip, name?]` comes in pages, since a message holds 64 kB;
//! `revoke_token`, `add_policy_rule`, `end_policy` and `cap_policy_rule`, which change a policy that is
//! there, `extend_user`, which gives a client more time, `describe`, and `get_audit [limit]`, which
//! reads what was asked.
//!
//! Failure policy: a request that cannot be carried out changes nothing and its error says why. A
//! database that fails means silence: whether it happened has to be looked up.

mod execute;
mod list;
mod read;

use std::sync::Arc;

use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::nip46::KIND;
use bitspire_shared::nip46::message::{Request, Response};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::Pool;
use nostr::Event;

use self::execute::{After, Outcome, prepare};
use self::read::Call;
use super::answer::letter;
use super::core::Core;
use super::decide::brief;
use super::held::HeldKey;
use super::limits::bump;
use super::serve::{filter, subscription};
use crate::signer::cipher::Encryption;
use crate::store::StoreError;
use crate::store::bunker as rows;

/// How far a request's time may be off, in seconds: beyond it, it may be one that a relay kept.
const SKEW_S: u64 = 120;

/// Takes an event to the transport key, whose signature has verified.
pub(super) async fn handle(
    core: &Arc<Core>,
    pool: &Pool,
    event: &Event,
    from: PubKey,
    created_at: Unix,
) {
    if !core.held().is_admin(&from.to_bytes()) {
        bump(&core.counts.not_for_us);
        return;
    }
    let encryption = Encryption::of(&event.content);
    let read = || {
        let key = core.conversation(&core.transport, core.id, from).ok()?;
        let text = encryption.open(&core.transport, from, &key, &event.content).ok()?;
        Request::parse(text.expose()).ok()
    };
    let request = read();
    let Some(request) = request else {
        bump(&core.counts.unreadable);
        return;
    };
    let Some(response) = respond(core, pool, event, from, created_at, &request).await else {
        return;
    };
    let write = |response: &Response| {
        let (kind, text) = (event.kind.as_u16(), response.to_json());
        let ours = (&core.transport, core.id);
        letter(core, ours, from, kind, encryption, &text)
    };
    let long = |_| write(&Response::error(request.id, "the answer is too long to be sent".into()));
    match write(&response).or_else(long) {
        Ok(letter) => {
            if pool.send(&letter).await == 0 {
                tracing::info!(event = "bunker_admin_reply_not_sent", "no relay is connected");
            }
        }
        Err(error) => tracing::error!(event = "bunker_admin_reply_not_made", %error),
    }
}

async fn respond(
    core: &Arc<Core>,
    pool: &Pool,
    event: &Event,
    from: PubKey,
    created_at: Unix,
    request: &Request,
) -> Option<Response> {
    let (id, now) = (request.id.clone(), core.clock.now());
    let refuse = |why: String| {
        bump(&core.counts.admin_refused);
        tracing::warn!(event = "bunker_admin_refused", method = request.method, why);
        Some(Response::error(request.id.clone(), why))
    };
    let off = now.distance(created_at);
    if off > SKEW_S {
        return refuse(format!(
            "stale: expected a request of the last {SKEW_S} s, this one's clock is {off} s off"
        ));
    }
    let call = match Call::read(request) {
        Ok(Call::Ping) => return Some(Response::result(id, "ok".into())),
        Ok(call) => call,
        Err(why) => return refuse(why),
    };
    let prepared = match prepare(core, call) {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::error!(event = "bunker_admin_failed", method = request.method, %error);
            return refuse(error.to_string());
        }
    };
    let entry = rows::AdminEntry {
        at: now,
        admin: from,
        event_id: EventId::from_bytes(event.id.to_bytes()),
        method: brief(&request.method),
        subject: brief(&prepared.subject()),
        outcome: rows::AdminOutcome::Done,
        detail: String::new(),
    };
    let shared = Arc::clone(core);
    let done: Result<Option<Outcome>, StoreError> = core
        .db
        .write(move |tx| {
            if !rows::is_new(tx, entry.event_id)? {
                return Ok(None);
            }
            let outcome = prepared.execute(&shared, tx, now)?;
            let entry = match &outcome {
                Ok(_) => entry,
                Err(why) => {
                    let (outcome, detail) = (rows::AdminOutcome::Refused, brief(why));
                    rows::AdminEntry { outcome, detail, ..entry }
                }
            };
            rows::admin_entry(tx, &entry)?;
            Ok(Some(outcome))
        })
        .await;
    match done {
        // a copy by another way: the first one has the reply
        Ok(None) => None,
        Ok(Some(Err(why))) => refuse(why),
        Ok(Some(Ok((result, after)))) => {
            bump(&core.counts.admin_done);
            take_effect(core, pool, after, now).await;
            Some(Response::result(id, result))
        }
        Err(error) => {
            bump(&core.counts.failed);
            tracing::error!(event = "bunker_admin_not_stored", method = request.method, %error);
            None
        }
    }
}

/// What follows from what is on the disk now.
async fn take_effect(core: &Core, pool: &Pool, after: After, now: Unix) {
    match after {
        After::Nothing => {}
        After::Key(key) => {
            let key: HeldKey = *key;
            tracing::info!(event = "bunker_key_created", key = %key.pubkey);
            let (shard, mut shards) = {
                let mut held = core.held_mut();
                (held.add_key(key), held.shards())
            };
            // asked for before the reply tells anybody of the key
            let keys = shards.remove(&shard).unwrap_or_default();
            pool.subscribe(&subscription(shard), filter(&[KIND], &keys)).await;
        }
        After::Token(id, text) => core.show_token(id, text, now),
        After::TokenGone(id) => core.hide_token(id),
    }
}
