//! What lies in a machine: bays, changes to them, and what the machine itself says.
//!
//! Promise: a change is written once under its id and never changes; it stays open until the
//! machine has acknowledged it. A state event is stored once.

use bitspire_shared::ids::{BayId, ChangeId, EventId, JournalSeq};
use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;
use serde::Deserialize as _;
use serde_json::Value;

use super::column::Json;
use super::row::record;
use super::{Read, StoreError, Tx};
use crate::ids::MachineId;

record! {
    /// A bay as the operator's side has it.
    pub struct Cassette in "cassettes" {
        /// The machine.
        pub machine_id: MachineId,
        /// The bay.
        pub bay: BayId,
        /// One note's value in minor units.
        pub denomination: Denomination,
        /// Notes.
        pub count: u32,
        /// Last change.
        pub updated_at: Unix,
    }
}

record! {
    /// A refill (`delta`) or a count (`set_count`).
    pub struct Change in "cassette_changes" {
        /// Applied once by the machine.
        pub change_id: ChangeId,
        /// The machine.
        pub machine_id: MachineId,
        /// The order of the machine's changes, from 1.
        pub number: u64,
        /// The bay.
        pub bay: BayId,
        /// Notes put in (or, below 0, taken out).
        pub delta: Option<i64>,
        /// Notes counted.
        pub set_count: Option<u32>,
        /// Why.
        pub reason: String,
        /// The machine's journal position that the person had seen.
        pub base_seq: JournalSeq,
        /// The key of whoever did it, or `cli`.
        pub actor: String,
        /// When.
        pub created_at: Unix,
        /// When the machine had applied it.
        pub acked_at: Option<Unix>,
        /// When it came into the ledger.
        pub booked_at: Option<Unix>,
    }
}

record! {
    /// What a machine published about its cassettes.
    pub struct State in "cassette_states" {
        /// The event.
        pub event_id: EventId,
        /// The machine.
        pub machine_id: MachineId,
        /// Its journal position.
        pub base_seq: JournalSeq,
        /// The plaintext.
        pub body: Json<Value>,
        /// When it came.
        pub received_at: Unix,
    }
}

record! {
    /// A machine's last heartbeat.
    pub struct Heartbeat in "machine_states" {
        /// The machine.
        pub machine_id: MachineId,
        /// Its journal position.
        pub journal_seq: JournalSeq,
        /// The report.
        pub body: Json<Value>,
        /// When it came.
        pub received_at: Unix,
    }
}

impl Heartbeat {
    /// What it says; `None` for one of a version that is not read any more.
    #[must_use]
    pub fn report(&self) -> Option<StateReport> {
        StateReport::deserialize(&self.body.0).ok()
    }
}

/// Every bay of a machine.
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>, machine: MachineId) -> Result<Vec<Cassette>, StoreError> {
    let sql = "SELECT * FROM cassettes WHERE machine_id = ?1 ORDER BY bay";
    read.all(sql, &[&machine], Cassette::from_row)
}

/// Writes what lies in a bay.
///
/// # Errors
/// [`StoreError`].
pub fn set(tx: &Tx<'_>, cassette: &Cassette) -> Result<(), StoreError> {
    let sql = "DELETE FROM cassettes WHERE machine_id = ?1 AND bay = ?2";
    tx.run(sql, &[&cassette.machine_id, &cassette.bay])?;
    cassette.insert_into(tx)
}

/// Forgets a bay that the machine does not have.
///
/// # Errors
/// [`StoreError::NotOneRow`] without it.
pub fn remove(tx: &Tx<'_>, machine: MachineId, bay: BayId) -> Result<(), StoreError> {
    let sql = "DELETE FROM cassettes WHERE machine_id = ?1 AND bay = ?2";
    tx.run_one("cassettes", sql, &[&machine, &bay])
}

/// The number of a machine's next change.
///
/// # Errors
/// [`StoreError`].
pub fn next_number(read: &Read<'_>, machine: MachineId) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(max(number), 0) + 1 AS next FROM cassette_changes
               WHERE machine_id = ?1";
    Ok(read.one(sql, &[&machine], |row| row.get("next"))?.unwrap_or(1))
}

/// Writes a change.
///
/// # Errors
/// [`StoreError`]; unique on `change_id`, a check where it is neither or both of delta and count.
pub fn insert_change(tx: &Tx<'_>, change: &Change) -> Result<(), StoreError> {
    change.insert_into(tx)
}

/// The changes that a machine has not acknowledged, in order: what its next document carries.
///
/// # Errors
/// [`StoreError`].
pub fn open_changes(read: &Read<'_>, machine: MachineId) -> Result<Vec<Change>, StoreError> {
    let sql = "SELECT * FROM cassette_changes WHERE machine_id = ?1 AND acked_at IS NULL
               ORDER BY number";
    read.all(sql, &[&machine], Change::from_row)
}

/// The position that the last count of a bay since `since` was made at.
///
/// # Errors
/// [`StoreError`].
pub fn last_count(
    read: &Read<'_>,
    machine: MachineId,
    bay: BayId,
    since: Unix,
) -> Result<Option<JournalSeq>, StoreError> {
    let sql = "SELECT max(base_seq) AS base FROM cassette_changes
               WHERE machine_id = ?1 AND bay = ?2 AND set_count IS NOT NULL AND created_at >= ?3";
    Ok(read.one(sql, &[&machine, &bay, &since], |row| row.get("base"))?.flatten())
}

/// A machine has applied a change; the first time counts. False for a change that is not its own.
///
/// # Errors
/// [`StoreError`].
pub fn ack_change(
    tx: &Tx<'_>,
    machine: MachineId,
    change: ChangeId,
    now: Unix,
) -> Result<bool, StoreError> {
    let sql = "UPDATE cassette_changes SET acked_at = coalesce(acked_at, ?3)
               WHERE machine_id = ?1 AND change_id = ?2";
    Ok(tx.run(sql, &[&machine, &change, &now])? == 1)
}

/// The changes that the ledger does not have yet, in order, whether the machine has applied them or
/// not.
///
/// # Errors
/// [`StoreError`].
pub fn unbooked(read: &Read<'_>, machine: MachineId) -> Result<Vec<Change>, StoreError> {
    let sql = "SELECT * FROM cassette_changes WHERE machine_id = ?1 AND booked_at IS NULL
               ORDER BY number";
    read.all(sql, &[&machine], Change::from_row)
}

/// A change is in the ledger.
///
/// # Errors
/// [`StoreError::NotOneRow`] without it; a rule where it was booked at another time.
pub fn set_booked(tx: &Tx<'_>, change: ChangeId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE cassette_changes SET booked_at = ?2 WHERE change_id = ?1";
    tx.run_one("cassette_changes", sql, &[&change, &now])
}

/// At most `limit` changes of a machine after number `after`, in order: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn change_page(
    read: &Read<'_>,
    machine: MachineId,
    after: u64,
    limit: u32,
) -> Result<Vec<Change>, StoreError> {
    let sql = "SELECT * FROM cassette_changes WHERE machine_id = ?1 AND number > ?2
               ORDER BY number LIMIT ?3";
    read.all(sql, &[&machine, &after, &limit], Change::from_row)
}

/// The change with this id.
///
/// # Errors
/// [`StoreError`].
pub fn change(read: &Read<'_>, id: ChangeId) -> Result<Option<Change>, StoreError> {
    read.one("SELECT * FROM cassette_changes WHERE change_id = ?1", &[&id], Change::from_row)
}

/// Stores a state event. False where it was stored before.
///
/// # Errors
/// [`StoreError`].
pub fn insert_state(tx: &Tx<'_>, state: &State) -> Result<bool, StoreError> {
    if knows_state(tx, state.event_id)? {
        return Ok(false);
    }
    state.insert_into(tx).map(|()| true)
}

/// Whether a state event was stored.
///
/// # Errors
/// [`StoreError`].
pub fn knows_state(read: &Read<'_>, event: EventId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM cassette_states WHERE event_id = ?1) AS known";
    Ok(read.one(sql, &[&event], |row| row.get("known"))?.unwrap_or(false))
}

/// The machine's last state by its own journal, of those that came since `since`: a new pairing may
/// be another machine's, whose journal begins again.
///
/// # Errors
/// [`StoreError`].
pub fn last_state(
    read: &Read<'_>,
    machine: MachineId,
    since: Unix,
) -> Result<Option<State>, StoreError> {
    let sql = "SELECT * FROM cassette_states WHERE machine_id = ?1 AND received_at >= ?2
               ORDER BY base_seq DESC, received_at DESC LIMIT 1";
    read.one(sql, &[&machine, &since], State::from_row)
}

/// Stores a heartbeat in the place of the one before.
///
/// # Errors
/// [`StoreError`].
pub fn set_heartbeat(tx: &Tx<'_>, heartbeat: &Heartbeat) -> Result<(), StoreError> {
    let sql = "UPDATE machine_states SET journal_seq = ?2, body = ?3, received_at = ?4
               WHERE machine_id = ?1";
    let Heartbeat { machine_id, journal_seq, body, received_at } = heartbeat;
    match tx.run(sql, &[machine_id, journal_seq, body, received_at])? {
        0 => heartbeat.insert_into(tx),
        _ => Ok(()),
    }
}

/// The position that the machine's last heartbeat was made at, and when it came.
///
/// # Errors
/// [`StoreError`].
pub fn last_heard(
    read: &Read<'_>,
    machine: MachineId,
) -> Result<Option<(JournalSeq, Unix)>, StoreError> {
    let sql = "SELECT journal_seq, received_at FROM machine_states WHERE machine_id = ?1";
    read.one(sql, &[&machine], |row| Ok((row.get("journal_seq")?, row.get("received_at")?)))
}

/// How many machines report each alert, in their last heartbeats since they were paired.
///
/// # Errors
/// [`StoreError`].
pub fn alerts(read: &Read<'_>) -> Result<Vec<(String, u64)>, StoreError> {
    let sql = "SELECT json_extract(alert.value, '$.code') AS code, count(*) AS count
                 FROM machine_states s
                 JOIN machines m ON m.id = s.machine_id AND s.received_at >= m.paired_at
                 JOIN json_each(s.body, '$.alerts') alert
                GROUP BY code ORDER BY code";
    read.all(sql, &[], |row| Ok((row.get("code")?, row.get("count")?)))
}

/// The machine's last heartbeat.
///
/// # Errors
/// [`StoreError`].
pub fn heartbeat(read: &Read<'_>, machine: MachineId) -> Result<Option<Heartbeat>, StoreError> {
    let sql = "SELECT * FROM machine_states WHERE machine_id = ?1";
    read.one(sql, &[&machine], Heartbeat::from_row)
}
