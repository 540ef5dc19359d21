//! How many notes the ledger has moved from a machine's cashbox into its bays.
//!
//! Promise: one row for each count that a machine's vault tells; it only grows, and with it the ledger.

use super::row::Row;
use super::{Read, StoreError, Tx};
use crate::ids::MachineId;
use crate::ledger::RecycledCount;

fn read_count(row: &Row<'_>) -> Result<RecycledCount, StoreError> {
    Ok(RecycledCount {
        machine: row.get("machine_id")?,
        vault: row.get("vault")?,
        since: row.get("since")?,
        bay: row.get("bay")?,
        note: row.get("denomination")?,
        notes: row.get("notes")?,
    })
}

/// Every count of a machine, as far as it is booked.
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>, machine: MachineId) -> Result<Vec<RecycledCount>, StoreError> {
    let sql = "SELECT * FROM recycled WHERE machine_id = ?1
               ORDER BY vault, since, bay, denomination";
    read.all(sql, &[&machine], read_count)
}

/// Notes of the same count that are booked.
///
/// # Errors
/// [`StoreError`].
pub fn booked(read: &Read<'_>, count: &RecycledCount) -> Result<u32, StoreError> {
    let RecycledCount { machine, vault, since, bay, note, .. } = count;
    let sql = "SELECT notes FROM recycled WHERE machine_id = ?1 AND vault = ?2 AND since = ?3
               AND bay = ?4 AND denomination = ?5";
    let notes =
        read.one(sql, &[machine, vault, since, bay, note], |row| row.get::<u32>("notes"))?;
    Ok(notes.unwrap_or(0))
}

/// The ledger has a count so far.
///
/// # Errors
/// [`StoreError`]; a rule where it does not grow.
pub fn set_booked(tx: &Tx<'_>, count: &RecycledCount) -> Result<(), StoreError> {
    let RecycledCount { machine, vault, since, bay, note, notes } = count;
    let sql = "INSERT INTO recycled (machine_id, vault, since, bay, denomination, notes)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (machine_id, vault, since, bay, denomination)
               DO UPDATE SET notes = excluded.notes";
    tx.run_one("recycled", sql, &[machine, vault, since, bay, note, notes])
}
