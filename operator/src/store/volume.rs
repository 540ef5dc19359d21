//! How much moves through a machine: what its caps are held against.
//!
//! Promise: everything that may still become a payment counts as one until it cannot.

use bitspire_shared::ids::TxnId;
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use super::{Read, StoreError};
use crate::ids::MachineId;

/// Sats of a machine's transactions since some moment, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Promised for notes, and reserved for notes that are being fed.
    pub cash_in: Sats,
    /// Invoiced, unless the invoice ended unpaid.
    pub cash_out: Sats,
}

/// What a machine has moved since `since`, but for the transaction `except`.
///
/// # Errors
/// [`StoreError`].
pub fn since(
    read: &Read<'_>,
    machine: MachineId,
    since: Unix,
    except: TxnId,
) -> Result<Volume, StoreError> {
    let sql = "SELECT
        (SELECT coalesce(sum(net_sats), 0) FROM withdraws WHERE machine_id = ?1
            AND purpose = 'cash_in' AND created_at >= ?2 AND txid <> ?3)
        + (SELECT coalesce(sum(reserved_sats), 0) FROM quotes WHERE machine_id = ?1
            AND reserved_sats > 0 AND reservation_ended_at IS NULL AND txid <> ?3) AS cash_in,
        (SELECT coalesce(sum(wire_sats), 0) FROM invoices WHERE machine_id = ?1
            AND state NOT IN ('expired', 'cancelled') AND created_at >= ?2
            AND txid <> ?3) AS cash_out";
    let found = read.one(sql, &[&machine, &since, &except], |row| {
        Ok(Volume { cash_in: row.get("cash_in")?, cash_out: row.get("cash_out")? })
    })?;
    Ok(found.unwrap_or_default())
}

/// Notes in the cashbox of a machine, by the ledger: all that was stacked and not taken out.
///
/// # Errors
/// [`StoreError`].
pub fn cashbox_notes(read: &Read<'_>, machine: MachineId) -> Result<u64, StoreError> {
    let prefix = format!("cashbox:{machine}:");
    // each account is one denomination in one currency; its newest day is its balance
    let sql = "SELECT coalesce(sum(notes), 0) AS notes FROM (
            SELECT max(day), balance / CAST(substr(account, length(?1) + 1) AS INTEGER) AS notes
            FROM ledger_sums WHERE account >= ?1 AND account < ?1 || ':' GROUP BY account, unit)";
    Ok(read.one(sql, &[&prefix], |row| row.get("notes"))?.unwrap_or(0))
}
