//! Books the notes that a machine's recycler keeps in its bays, as its heartbeats tell it.
//!
//! Promise: what a cash_in brings is booked into the cashbox; a note that the machine says lies in a
//! bay moves there, once, whichever heartbeats bring its count and in whatever order: a count only
//! grows, and what it has grown by is booked.
//!
//! Failure policy: a count that went back is an older heartbeat, and changes nothing; an audit holds
//! the newest one against the ledger.

use bitspire_shared::ids::PubKey;
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;

use super::failure::Failure;
use crate::ledger::{self, RecycledCount};
use crate::store::machines::KeptMachine;
use crate::store::{Tx, ledger as books, recycled};

/// Books what the machine with this vault has counted since it was told last.
pub(super) fn book(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    vault: PubKey,
    report: &StateReport,
    now: Unix,
) -> Result<(), Failure> {
    let Some(told) = &report.recycled else { return Ok(()) };
    let currency = machine.currency;
    let bays = told.notes.iter();
    let all = bays.flat_map(|(bay, notes)| notes.iter().map(|(note, count)| (*bay, *note, *count)));
    for (bay, note, notes) in all {
        let (machine, since) = (machine.id, told.since);
        let count = RecycledCount { machine, vault, since, bay, note, notes };
        let booked = recycled::booked(tx, &count)?;
        let Some(more @ 1..) = notes.checked_sub(booked) else { continue };
        let entry = ledger::recycled(&count, more, currency)?;
        books::append(tx, &entry, now)?;
        recycled::set_booked(tx, &count)?;
    }
    Ok(())
}
