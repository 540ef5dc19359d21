//! Invoices: one for a quote, one for a transaction.
//!
//! States: open -> settled, late or under (paid; final), expired or cancelled (unpaid; a payment in
//! flight may still make them late).

use bitspire_shared::ids::{EventId, PaymentHash, QuoteId, TxnId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use super::column::{JsonText, text_enum};
use super::row::{Row, legible, record};
use super::{Around, Read, StoreError, Tx};
use crate::ids::MachineId;

text_enum! {
    /// Where an invoice stands.
    pub enum InvoiceState {
        /// Not paid, may still be.
        Open = "open",
        /// Paid in time, in full.
        Settled = "settled",
        /// Paid too late.
        Late = "late",
        /// Paid too little.
        Under = "under",
        /// Its time is over, unpaid.
        Expired = "expired",
        /// Withdrawn, unpaid.
        Cancelled = "cancelled",
    }
}

record! {
    /// An invoice.
    pub struct Invoice in "invoices" {
        /// The quote.
        pub quote_id: QuoteId,
        /// The machine.
        pub machine_id: MachineId,
        /// Its transaction.
        pub txid: TxnId,
        /// What identifies the payment.
        pub payment_hash: PaymentHash,
        /// The BOLT11 text.
        pub bolt11: String,
        /// Its exact amount.
        pub wire_sats: Sats,
        /// What was written beside it.
        pub stamp: JsonText,
        /// The request's event.
        pub request_event_id: EventId,
        /// That event as JSON, whole.
        pub request_event: String,
        /// When it was made.
        pub created_at: Unix,
        /// When it expires.
        pub expires_at: Unix,
        /// Where it stands.
        pub state: InvoiceState,
    }
}

/// Writes an invoice.
///
/// # Errors
/// [`StoreError`]; unique on `invoices.quote_id`, or on `invoices.machine_id` and `invoices.txid`,
/// where there is one already.
pub fn insert(tx: &Tx<'_>, invoice: &Invoice) -> Result<(), StoreError> {
    invoice.insert_into(tx)
}

/// The invoice of this payment hash.
///
/// # Errors
/// [`StoreError`].
pub fn by_hash(read: &Read<'_>, hash: PaymentHash) -> Result<Option<Invoice>, StoreError> {
    read.one("SELECT * FROM invoices WHERE payment_hash = ?1", &[&hash], Invoice::from_row)
}

/// The invoice of a payment, and those that were written around it, where they read.
///
/// # Errors
/// [`StoreError`].
pub fn around(
    read: &Read<'_>,
    hash: PaymentHash,
    around: Around,
) -> Result<Vec<Invoice>, StoreError> {
    let sql = "SELECT near.* FROM invoices AS named JOIN invoices AS near
                   ON near.rowid BETWEEN named.rowid - ?2 AND named.rowid + ?3
               WHERE named.payment_hash = ?1";
    let near = read
        .all(sql, &[&hash, &around.before, &around.after], |row| legible(Invoice::from_row(row)))?;
    Ok(near.into_iter().flatten().collect())
}

/// Whether we made an invoice of this payment hash.
///
/// # Errors
/// [`StoreError`].
pub fn knows(read: &Read<'_>, hash: PaymentHash) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM invoices WHERE payment_hash = ?1) AS known";
    Ok(read.one(sql, &[&hash], |row| row.get("known"))?.unwrap_or(false))
}

/// The invoice of this quote.
///
/// # Errors
/// [`StoreError`].
pub fn by_quote(read: &Read<'_>, quote: QuoteId) -> Result<Option<Invoice>, StoreError> {
    read.one("SELECT * FROM invoices WHERE quote_id = ?1", &[&quote], Invoice::from_row)
}

/// The invoice of this transaction.
///
/// # Errors
/// [`StoreError`].
pub fn by_txn(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Option<Invoice>, StoreError> {
    let sql = "SELECT * FROM invoices WHERE machine_id = ?1 AND txid = ?2";
    read.one(sql, &[&machine, &txid], Invoice::from_row)
}

/// At most `limit` open invoices of a machine of which it is not known yet that this wallet was paid,
/// the first to expire first: payment and end of each.
///
/// # Errors
/// [`StoreError`].
pub fn to_look_up(
    read: &Read<'_>,
    machine: MachineId,
    wallet_id: &str,
    limit: u32,
) -> Result<Vec<(PaymentHash, Unix)>, StoreError> {
    let sql = "SELECT payment_hash, expires_at FROM invoices WHERE state = 'open'
               AND machine_id = ?1 AND NOT EXISTS (SELECT 1 FROM unrecorded
                   WHERE unrecorded.wallet_id = ?2 AND unrecorded.direction = 'cash_out'
                       AND unrecorded.payment_hash = invoices.payment_hash)
               ORDER BY expires_at LIMIT ?3";
    let one = |row: &Row<'_>| Ok((row.get("payment_hash")?, row.get("expires_at")?));
    read.all(sql, &[&machine, &wallet_id, &limit], one)
}

/// At most `limit` open invoices of a machine, the first to expire first: payment and end of each.
///
/// # Errors
/// [`StoreError`].
pub fn open(
    read: &Read<'_>,
    machine: MachineId,
    limit: u32,
) -> Result<Vec<(PaymentHash, Unix)>, StoreError> {
    let sql = "SELECT payment_hash, expires_at FROM invoices WHERE state = 'open'
               AND machine_id = ?1 ORDER BY expires_at LIMIT ?2";
    read.all(sql, &[&machine, &limit], |row| Ok((row.get("payment_hash")?, row.get("expires_at")?)))
}

/// Moves an invoice on.
///
/// # Errors
/// [`StoreError::NotOneRow`] where there is none; a rule where it is paid already.
pub fn set_state(tx: &Tx<'_>, hash: PaymentHash, state: InvoiceState) -> Result<(), StoreError> {
    let sql = "UPDATE invoices SET state = ?2 WHERE payment_hash = ?1";
    tx.run_one("invoices", sql, &[&hash, &state])
}
