//! Payments that could not be recorded, until they are.
//!
//! Promise: one row for each, from before its wallet's cursor goes past it until it is on record.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Direction;
use bitspire_shared::time::Unix;

use super::column::Json;
use super::row::record;
use super::{Read, StoreError, Tx};
use crate::wallet::Payment;

record! {
    /// A payment that could not be recorded.
    pub struct Unrecorded in "unrecorded" {
        /// The wallet that told it.
        pub wallet_id: String,
        /// Hash of the payment.
        pub payment_hash: PaymentHash,
        /// The protocol's direction.
        pub direction: Direction,
        /// The payment, as its wallet told it.
        pub told: Json<Payment>,
        /// What was in the way when it was tried last.
        pub reason: String,
        /// When it was told first.
        pub first_at: Unix,
        /// When it was tried last.
        pub tried_at: Unix,
    }
}

/// Keeps a payment, or what is in its way now where it is kept already. True where it is new.
///
/// # Errors
/// [`StoreError`].
pub fn keep(tx: &Tx<'_>, new: &Unrecorded) -> Result<bool, StoreError> {
    if tried(tx, new)? {
        return Ok(false);
    }
    new.insert_into(tx).map(|()| true)
}

/// What is in the way of a payment now, and when it was tried. False where it is kept no longer.
///
/// # Errors
/// [`StoreError`].
pub fn tried(tx: &Tx<'_>, kept: &Unrecorded) -> Result<bool, StoreError> {
    let Unrecorded { wallet_id, payment_hash, direction, reason, tried_at, .. } = kept;
    let sql = "UPDATE unrecorded SET reason = ?4, tried_at = ?5
               WHERE wallet_id = ?1 AND payment_hash = ?2 AND direction = ?3";
    Ok(tx.run(sql, &[wallet_id, payment_hash, direction, reason, tried_at])? == 1)
}

/// At most `limit` payments of a wallet that were tried at another time than `now`, those that were
/// tried longest ago first.
///
/// # Errors
/// [`StoreError`].
pub fn to_try(
    read: &Read<'_>,
    wallet_id: &str,
    now: Unix,
    limit: u32,
) -> Result<Vec<Unrecorded>, StoreError> {
    let sql = "SELECT * FROM unrecorded WHERE wallet_id = ?1 AND tried_at <> ?2
               ORDER BY tried_at LIMIT ?3";
    read.all(sql, &[&wallet_id, &now, &limit], Unrecorded::from_row)
}

/// How many payments of a wallet there are.
///
/// # Errors
/// [`StoreError`].
pub fn count(read: &Read<'_>, wallet_id: &str) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) AS n FROM unrecorded WHERE wallet_id = ?1";
    Ok(read.one(sql, &[&wallet_id], |row| row.get("n"))?.unwrap_or(0))
}

/// A payment is on record, or was found to be none of our business. False where it is kept no longer.
///
/// # Errors
/// [`StoreError`].
pub fn done(tx: &Tx<'_>, kept: &Unrecorded) -> Result<bool, StoreError> {
    let sql = "DELETE FROM unrecorded
               WHERE wallet_id = ?1 AND payment_hash = ?2 AND direction = ?3";
    let Unrecorded { wallet_id, payment_hash, direction, .. } = kept;
    Ok(tx.run(sql, &[wallet_id, payment_hash, direction])? == 1)
}
