//! `report_state`: the heartbeat.
//!
//! Promise: only what the pinned vault signed counts, and the newest by the machine's own journal
//! stays. What the machine applies is told to the documents and cassette changes that it names, and
//! booked, and so are the notes that it recycles and what people did at the machine: see
//! [`super::loads`], [`super::recycled`], [`super::at_machine`].

use std::sync::Arc;

use bitspire_shared::ids::PubKey;
use bitspire_shared::rpc::{Ack, Reply, StateReport, VaultSigned};
use bitspire_shared::time::Unix;
use serde_json::Value;

use super::Rpc;
use super::at_machine;
use super::desk::{Call, not_by_vault, vault};
use super::failure::Failure;
use super::journal::{self, Shown};
use super::loads;
use super::recycled;
use crate::fleet::verdict;
use crate::publish;
use crate::store::cassettes::{self, Heartbeat};
use crate::store::{Json, Tx, machines, quotes};

pub(super) async fn answer(
    rpc: &Arc<Rpc>,
    call: Call,
    body: VaultSigned<StateReport>,
) -> Result<Reply, Failure> {
    let desk = rpc.desk.clone();
    let id = call.request_id;
    let fork = rpc
        .app
        .store
        .write(move |tx| {
            let route = desk.route(tx, &call)?;
            call.keep(tx)?;
            let vault = vault(&route)?;
            let (report, json) = body.into_checked(&vault).map_err(|e| not_by_vault(&e))?;
            let (seq, head) = (report.journal_seq, report.journal_head);
            let shown = Shown { vault, seq, head };
            // what disables the machine must stay written
            if let Some(fork) = journal::shows(tx, &route.machine, shown, call.now)? {
                return Ok(Some(fork));
            }
            keep(tx, &call, (&route.machine, vault), &report, json).map(|()| None)
        })
        .await?;
    if let Some(fork) = fork {
        rpc.app.roster.refresh(&rpc.app).await?;
        return Err(fork.into());
    }
    Ok(Reply::ok::<VaultSigned<StateReport>>(id, &Ack {})?)
}

fn keep(
    tx: &Tx<'_>,
    call: &Call,
    (machine, vault): (&machines::KeptMachine, PubKey),
    report: &StateReport,
    body: Value,
) -> Result<(), Failure> {
    let applied = report.applied_documents.values().copied().collect();
    publish::heard(tx, machine.id, &applied, &report.applied_changes, call.now)?;
    // reports may overtake each other on the way; only a new session shows where the journal stands
    if report.journal_seq > machine.journal_seq {
        machines::saw_journal(tx, machine.id, report.journal_seq, report.journal_head, call.now)?;
    } else {
        machines::saw(tx, machine.id, call.now)?;
    }
    verdict::heard(tx, machine, report, call.now)?;
    recycled::book(tx, machine, vault, report, call.now)?;
    at_machine::keep(tx, machine, report, &body, call.now)?;
    let unbooked = at_machine::book(tx, machine, report, call.now)?;
    let last = cassettes::last_heard(tx, machine.id)?;
    // a lock that ended before the machine wrote this, of a transaction that it no longer has open:
    // nothing was stacked under it that is not claimed
    let written_at = Unix(call.event.created_at.as_secs());
    for lock in quotes::expired_locks(tx, machine.id, written_at)? {
        if report.open_transactions.iter().all(|open| open.txid != lock.txid) {
            quotes::release(tx, lock.quote_id, call.now)?;
        }
    }
    let newer =
        |(seq, received_at)| seq <= report.journal_seq || machine.paired_at > Some(received_at);
    if last.is_none_or(newer) {
        let (machine_id, journal_seq) = (machine.id, report.journal_seq);
        let body = Json(body);
        let heartbeat = Heartbeat { machine_id, journal_seq, body, received_at: call.now };
        cassettes::set_heartbeat(tx, &heartbeat)?;
        loads::book(tx, machine, report, call.now)?;
        if unbooked {
            at_machine::book_counts(tx, machine, report, call.now)?;
        }
    }
    Ok(())
}
