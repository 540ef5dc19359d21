//! `open_session`: another key speaks for the machine, for at most a day.
//!
//! Promise: a session exists only for a spire whose session and vault key agreed to it. The vault's
//! key is pinned at the first session after a pairing; another one is refused until the machine is
//! paired again. One live session a machine: a new one ends those before.
//!
//! Failure policy: a journal that went back, or that has another head at the position seen last,
//! was copied or replaced: the machine is disabled, with an audit row, and gets no session.

use std::sync::Arc;

use bitspire_shared::ids::{PubKey, SessionId};
use bitspire_shared::rpc::{ErrorCode, OpenSession, Reply, SessionError, SessionOpened};
use bitspire_shared::time::Unix;
use serde_json::json;

use super::desk::Call;
use super::failure::{Failure, ensure, refusal};
use super::journal::{self, Shown};
use super::roster::Route;
use super::{Rpc, random};
use crate::app::Ring;
use crate::store::machines::{self, Confirmation};
use crate::store::sessions::{self, Session};
use crate::store::{Json, Tx, log, requests};

/// Longer than two requests of one machine can overtake each other: their clocks hold for 120 s.
const RECENT_S: u64 = 600;

pub(super) async fn answer(
    rpc: &Arc<Rpc>,
    call: Call,
    body: OpenSession,
) -> Result<Reply, Failure> {
    let session_id = SessionId::from_bytes(random()?);
    let (desk, service) = (rpc.desk.clone(), rpc.service);
    let reply = rpc
        .app
        .store
        .write(move |tx| {
            desk.once::<OpenSession>(tx, &call, None, |route| {
                open(tx, &call, route, &body, service, session_id)
            })
        })
        .await?;
    // the machine uses the session as soon as it has the reply
    rpc.reload().await?;
    rpc.app.roster.refresh(&rpc.app).await?;
    rpc.app.ring(Ring::Roster);
    Ok(reply)
}

fn open(
    tx: &Tx<'_>,
    call: &Call,
    route: &Route,
    body: &OpenSession,
    service: PubKey,
    session_id: SessionId,
) -> Result<SessionOpened, Failure> {
    let machine = &route.machine;
    let nonce = body.check(&route.spire, &service, call.now).map_err(|error| {
        let code = match error {
            SessionError::Lifetime { .. } | SessionError::SharedKey => ErrorCode::Invalid,
            _ => ErrorCode::BadSignature,
        };
        refusal(code, error.to_string())
    })?;
    let subject = format!("machine:{}", machine.id);
    if let Some(pinned) = machine.vault_key.filter(|pinned| *pinned != body.vault_pubkey) {
        let detail = json!({"pinned": pinned, "shown": body.vault_pubkey});
        log::by_service(tx, "machine.other_vault", &subject, detail, call.now)?;
        let reason = "another vault than the pinned one: pair the machine again";
        return Err(refusal(ErrorCode::Invalid, reason).into());
    }
    // a relay may bring the older of two requests last; the machine is no fork of itself for that
    let created_at = Unix(call.event.created_at.as_secs());
    let newest =
        requests::newest_opening(tx, machine.id, Unix(call.now.0.saturating_sub(RECENT_S)))?;
    ensure(newest.is_none_or(|newest| newest < created_at), ErrorCode::Stale, || {
        "a newer open_session of this machine was answered".into()
    })?;
    let (vault, seq, head) = (body.vault_pubkey, body.journal_seq, body.journal_head);
    if let Some(fork) = journal::opens(tx, machine, Shown { vault, seq, head }, call.now)? {
        return Err(fork.into());
    }
    let used = log::use_nonce(tx, &subject, &nonce.to_string(), body.expires_at)?;
    if machine.vault_key.is_none() {
        let waits = machine.confirmation == Confirmation::AwaitingSession;
        ensure(waits, ErrorCode::Invalid, || "the machine is not paired".into())?;
        // a statement is used once; one for the vault that is pinned already changes nothing
        ensure(used, ErrorCode::Invalid, || "the vault's statement was used before".into())?;
        machines::pin_vault(tx, machine.id, body.vault_pubkey)?;
        let detail = json!({"vault": body.vault_pubkey});
        log::by_service(tx, "machine.vault_pinned", &subject, detail, call.now)?;
    }
    if body.journal_seq.0 > 0 {
        machines::saw_journal(tx, machine.id, body.journal_seq, body.journal_head, call.now)?;
    }
    let token_end = machine.bunker_token_expires_at.unwrap_or(body.expires_at);
    let expires_at = body.expires_at.min(token_end);
    sessions::close_all(tx, machine.id, call.now)?;
    sessions::insert(
        tx,
        &Session {
            session_id,
            machine_id: machine.id,
            session_pubkey: body.session_pubkey,
            vault_key: body.vault_pubkey,
            event_id: call.event_id(),
            journal_seq: body.journal_seq,
            journal_head: body.journal_head,
            opened_at: call.now,
            expires_at,
            closed_at: None,
            opening: Some(Json(serde_json::to_value(body)?)),
        },
    )
    .map_err(|error| match error.is_unique_on("session_pubkey") {
        true => refusal(ErrorCode::Invalid, "a session key is used once").into(),
        false => Failure::from(error),
    })?;
    Ok(SessionOpened { session_id, expires_at })
}
