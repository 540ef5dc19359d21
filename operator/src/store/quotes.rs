//! Quotes: a row before it is a reply, and what of the wallet is reserved for them.

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{ClaimHash, EventId, QuoteId, RequestId, TxnId};
use bitspire_shared::money::{Currency, Direction, FeePpm, Rate, Sats};
use bitspire_shared::time::Unix;

use super::column::JsonText;
use super::row::{legible, record};
use super::{Around, Read, StoreError, Tx};
use crate::ids::MachineId;

record! {
    /// A quote; nothing of it ever changes but the end of its reservation.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Quote in "quotes" {
        /// Its id.
        pub quote_id: QuoteId,
        /// For which machine.
        pub machine_id: MachineId,
        /// The request that it answers.
        pub request_id: RequestId,
        /// The machine's transaction.
        pub txid: TxnId,
        /// Hash of the customer's claim code.
        pub claim_hash: ClaimHash,
        /// Direction of the cash.
        pub direction: Direction,
        /// The amount in minor units; for cash_in the most under this lock.
        pub fiat_minor: i64,
        /// Its currency.
        pub fiat_code: Currency,
        /// The rate.
        pub rate_nano: Rate,
        /// Where the rate came from, and how old it was.
        pub sources: JsonText,
        /// The platform's fee.
        pub platform_fee_ppm: FeePpm,
        /// The operator's fee.
        pub operator_fee_ppm: FeePpm,
        /// The fee document in force.
        pub fees_event_id: EventId,
        /// Sats at market rate, before fees.
        pub principal_sats: Sats,
        /// Commission.
        pub fee_sats: Sats,
        /// What moves on Lightning.
        pub wire_sats: Sats,
        /// Seconds for which it holds.
        pub ttl_s: u32,
        /// The service's signature.
        pub quote_sig: Sig,
        /// When it was made.
        pub created_at: Unix,
        /// When it ends.
        pub expires_at: Unix,
        /// cash_in: sats of the wallet that nobody else is promised; 0 for cash_out.
        pub reserved_sats: Sats,
        /// When they were set free: used, given up or expired.
        pub reservation_ended_at: Option<Unix>,
    }
}

/// Writes a quote.
///
/// # Errors
/// [`StoreError`]; a check where the amounts do not sum.
pub fn insert(tx: &Tx<'_>, quote: &Quote) -> Result<(), StoreError> {
    quote.insert_into(tx)
}

/// The quote with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: QuoteId) -> Result<Option<Quote>, StoreError> {
    read.one("SELECT * FROM quotes WHERE quote_id = ?1", &[&id], Quote::from_row)
}

/// The quote with this id, and those that were written around it, where they read.
///
/// # Errors
/// [`StoreError`].
pub fn around(read: &Read<'_>, id: QuoteId, around: Around) -> Result<Vec<Quote>, StoreError> {
    let sql = "SELECT near.* FROM quotes AS named JOIN quotes AS near
                   ON near.rowid BETWEEN named.rowid - ?2 AND named.rowid + ?3
               WHERE named.quote_id = ?1";
    let near =
        read.all(sql, &[&id, &around.before, &around.after], |row| legible(Quote::from_row(row)))?;
    Ok(near.into_iter().flatten().collect())
}

/// The quote that answered this request.
///
/// # Errors
/// [`StoreError`].
pub fn by_request(
    read: &Read<'_>,
    machine: MachineId,
    request: RequestId,
) -> Result<Option<Quote>, StoreError> {
    let sql = "SELECT * FROM quotes WHERE machine_id = ?1 AND request_id = ?2";
    read.one(sql, &[&machine, &request], Quote::from_row)
}

/// Whether another transaction, of any machine, was quoted with this claim.
///
/// # Errors
/// [`StoreError`].
pub fn claim_is_anothers(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
    claim: ClaimHash,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM quotes WHERE claim_hash = ?3
                   AND (machine_id <> ?1 OR txid <> ?2)) AS used";
    Ok(read.one(sql, &[&machine, &txid, &claim], |row| row.get("used"))?.unwrap_or(false))
}

/// Every quote of a transaction, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_txn(read: &Read<'_>, machine: MachineId, txid: TxnId) -> Result<Vec<Quote>, StoreError> {
    let sql = "SELECT * FROM quotes WHERE machine_id = ?1 AND txid = ?2 ORDER BY created_at";
    read.all(sql, &[&machine, &txid], Quote::from_row)
}

/// Sats of a machine's wallet that quotes have reserved.
///
/// # Errors
/// [`StoreError`].
pub fn reserved(read: &Read<'_>, machine: MachineId) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(reserved_sats), 0) AS sats FROM quotes
               WHERE machine_id = ?1 AND reserved_sats > 0 AND reservation_ended_at IS NULL";
    Ok(read.one(sql, &[&machine], |row| row.get("sats"))?.unwrap_or_default())
}

/// Ends the reservation of a quote; nothing where it has none, or it has ended.
///
/// # Errors
/// [`StoreError`].
pub fn release(tx: &Tx<'_>, id: QuoteId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE quotes SET reservation_ended_at = ?2
               WHERE quote_id = ?1 AND reserved_sats > 0 AND reservation_ended_at IS NULL";
    tx.run(sql, &[&id, &now])?;
    Ok(())
}

/// Quotes of a machine that expired before `before` and still reserve sats.
///
/// # Errors
/// [`StoreError`].
pub fn expired_locks(
    read: &Read<'_>,
    machine: MachineId,
    before: Unix,
) -> Result<Vec<Quote>, StoreError> {
    let sql = "SELECT * FROM quotes WHERE machine_id = ?1 AND reserved_sats > 0
               AND reservation_ended_at IS NULL AND expires_at < ?2";
    read.all(sql, &[&machine, &before], Quote::from_row)
}

/// Ends the reservations of quotes that expired before `before`. The caller leaves the time in
/// which a machine may still claim notes that it stacked. The number ended.
///
/// # Errors
/// [`StoreError`].
pub fn release_expired(tx: &Tx<'_>, before: Unix, now: Unix) -> Result<u64, StoreError> {
    let sql = "UPDATE quotes SET reservation_ended_at = ?2 WHERE reserved_sats > 0
               AND reservation_ended_at IS NULL AND expires_at < ?1";
    tx.run(sql, &[&before, &now])
}
