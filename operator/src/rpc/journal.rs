//! Where a machine's journal stands.
//!
//! Promise: each position that a vault shows is kept with its head. A machine that shows another
//! head at a position which is known has two journals: it is disabled, with an audit row, and a
//! person looks where the two part.

use std::cmp::Ordering;

use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey};
use bitspire_shared::rpc::{ErrorCode, RpcError};
use bitspire_shared::time::Unix;
use serde_json::json;

use super::failure::refusal;
use crate::store::heads::{self, Head};
use crate::store::machines::{self, KeptMachine};
use crate::store::{StoreError, Tx, log};

/// What a vault shows.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub(super) vault: PubKey,
    pub(super) seq: JournalSeq,
    pub(super) head: JournalHead,
}

/// Keeps a position that came by itself: reports overtake each other, so it may be an older one.
/// Where it is beside what is known, the machine is disabled, and the refusal is the answer.
pub(super) fn shows(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    shown: Shown,
    now: Unix,
) -> Result<Option<RpcError>, StoreError> {
    let Shown { vault, seq, head } = shown;
    if seq == JournalSeq(0) {
        return Ok(None);
    }
    let at_last = machine.journal_head.filter(|_| seq == machine.journal_seq);
    let row = Head { machine_id: machine.id, vault_key: vault, seq, head, at: now };
    match heads::saw(tx, &row)?.or(at_last.filter(|known| *known != head)) {
        Some(known) => forked(tx, machine, (seq, Some(known)), shown, now).map(Some),
        None => Ok(None),
    }
}

/// Keeps the position of a session's start, which is the journal's newest: below the last one it is
/// an older journal.
pub(super) fn opens(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    shown: Shown,
    now: Unix,
) -> Result<Option<RpcError>, StoreError> {
    if shown.seq.cmp(&machine.journal_seq) == Ordering::Less {
        let last = (machine.journal_seq, machine.journal_head);
        return forked(tx, machine, last, shown, now).map(Some);
    }
    shows(tx, machine, shown, now)
}

fn forked(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    (seq, head): (JournalSeq, Option<JournalHead>),
    shown: Shown,
    now: Unix,
) -> Result<RpcError, StoreError> {
    let detail = json!({
        "last_seq": seq, "last_head": head, "shown_seq": shown.seq, "shown_head": shown.head,
    });
    log::by_service(tx, "machine.journal_fork", &format!("machine:{}", machine.id), detail, now)?;
    let reason = "its journal went back or was replaced: was the machine's disk restored?";
    machines::suspect(tx, machine.id, reason, now)?;
    tracing::error!(event = "rpc_journal_fork", machine = %machine.id, seq = shown.seq.0);
    let reason = "the journal went back or was replaced: the machine is disabled";
    Ok(refusal(ErrorCode::Disabled, reason))
}
