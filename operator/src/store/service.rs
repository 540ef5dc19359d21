//! What people did at machines in service mode.
//!
//! Promise: an event is written once under its id, with the signed heartbeat that told it, and
//! booked once; nothing else of it ever changes.

use bitspire_shared::ids::{BayId, ChangeId, JournalSeq};
use bitspire_shared::rpc::{BayChange, ServiceAction};
use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::Json;
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{MachineId, ServiceEventId};

record! {
    /// An event.
    pub struct Event in "service_events", id: ServiceEventId {
        /// Its id, by the machine.
        pub event_id: ChangeId,
        /// The machine.
        pub machine_id: MachineId,
        /// Its place in the machine's journal.
        pub journal_seq: JournalSeq,
        /// When, by the machine's trusted time.
        pub at: Unix,
        /// What was done.
        pub action: Json<ServiceAction>,
        /// The heartbeat that told it first, as the vault signed it.
        pub report: Json<Value>,
        /// When that came.
        pub received_at: Unix,
        /// When it came into the ledger.
        pub booked_at: Option<Unix>,
    }
}

/// An event as it is kept.
pub type KeptEvent = Kept<ServiceEventId, Event>;

impl Event {
    /// The bay that it changed or counted.
    #[must_use]
    pub const fn bay(&self) -> Option<BayId> {
        match &self.action.0 {
            ServiceAction::BayChanged { bay, .. } => Some(*bay),
            _ => None,
        }
    }

    /// The bay that it counted.
    #[must_use]
    pub const fn counted_bay(&self) -> Option<BayId> {
        match &self.action.0 {
            ServiceAction::BayChanged { bay, change: BayChange::Set(_), .. } => Some(*bay),
            _ => None,
        }
    }
}

/// Writes an event.
///
/// # Errors
/// [`StoreError`]; unique on `event_id`.
pub fn insert(tx: &Tx<'_>, event: &Event) -> Result<ServiceEventId, StoreError> {
    event.insert_into(tx)
}

/// The event with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, event: ChangeId) -> Result<Option<KeptEvent>, StoreError> {
    read.one("SELECT * FROM service_events WHERE event_id = ?1", &[&event], Event::kept)
}

/// The events that the ledger does not have yet, in the machine's own order.
///
/// # Errors
/// [`StoreError`].
pub fn unbooked(read: &Read<'_>, machine: MachineId) -> Result<Vec<KeptEvent>, StoreError> {
    let sql = "SELECT * FROM service_events WHERE machine_id = ?1 AND booked_at IS NULL
               ORDER BY journal_seq, id";
    read.all(sql, &[&machine], Event::kept)
}

/// An event is in the ledger.
///
/// # Errors
/// [`StoreError::NotOneRow`] without it; a rule where it was booked before.
pub fn set_booked(tx: &Tx<'_>, id: ServiceEventId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE service_events SET booked_at = ?2 WHERE id = ?1";
    tx.run_one("service_events", sql, &[&id, &now])
}

/// The place in the machine's journal of the last count of a bay there.
///
/// # Errors
/// [`StoreError`].
pub fn last_count(
    read: &Read<'_>,
    machine: MachineId,
    bay: BayId,
) -> Result<Option<JournalSeq>, StoreError> {
    let sql = "SELECT * FROM service_events WHERE machine_id = ?1
               AND CAST(json_extract(action, '$.bay_changed.bay') AS INTEGER) = ?2
               AND json_extract(action, '$.bay_changed.change.set') IS NOT NULL
               ORDER BY journal_seq DESC LIMIT 1";
    let last = read.one(sql, &[&machine, &bay], Event::kept)?;
    Ok(last.map(|event| event.journal_seq))
}

/// The newest `limit` events of a machine.
///
/// # Errors
/// [`StoreError`].
pub fn newest(
    read: &Read<'_>,
    machine: MachineId,
    limit: u32,
) -> Result<Vec<KeptEvent>, StoreError> {
    let sql = "SELECT * FROM service_events WHERE machine_id = ?1 ORDER BY id DESC LIMIT ?2";
    read.all(sql, &[&machine, &limit], Event::kept)
}

/// At most `limit` events of a machine after the one numbered `after`, oldest first: for the
/// auditor.
///
/// # Errors
/// [`StoreError`].
pub fn page(
    read: &Read<'_>,
    machine: MachineId,
    after: ServiceEventId,
    limit: u32,
) -> Result<Vec<KeptEvent>, StoreError> {
    let sql = "SELECT * FROM service_events WHERE machine_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
    read.all(sql, &[&machine, &after, &limit], Event::kept)
}
