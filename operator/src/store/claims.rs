//! What is owed to customers, and the claim under which they get it.
//!
//! Promise: one claim a transaction, found by the hash of its code; each debt is written once for
//! what made it and is paid by at most one withdraw.

use bitspire_shared::ids::{ClaimHash, TxnId, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, Recorded, Row, record};
use super::{Read, StoreError, Tx};
use crate::ids::{ClaimId, MachineId};

text_enum! {
    /// What made a debt.
    pub enum OwedReason {
        /// Paid too late.
        Late = "late",
        /// Paid too little.
        Under = "under",
        /// Paid beyond the invoice.
        Surplus = "surplus",
        /// Paid a second time.
        Twice = "twice",
        /// Notes that did not come out.
        Undispensed = "undispensed",
        /// A refused cash_out that was paid.
        Rejected = "rejected",
        /// Paid into another wallet; owed by verdict.
        Misrouted = "misrouted",
        /// A withdraw that ended unclaimed.
        Unclaimed = "unclaimed",
        /// A person's decision.
        Verdict = "verdict",
    }
}

record! {
    /// The right to what is owed on one transaction.
    pub struct Claim in "claims", id: ClaimId {
        /// Hash of the code that only the customer has.
        pub claim_hash: ClaimHash,
        /// The machine.
        pub machine_id: MachineId,
        /// Its transaction.
        pub txid: TxnId,
        /// When it was made.
        pub created_at: Unix,
    }
}

/// A debt to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOwed {
    /// Hash of the transaction's claim code, as quoted.
    pub claim_hash: ClaimHash,
    /// The machine.
    pub machine_id: MachineId,
    /// Its transaction.
    pub txid: TxnId,
    /// What made it.
    pub reason: OwedReason,
    /// Which payment, report or verdict made it; one debt each.
    pub source: String,
    /// How much.
    pub sats: Sats,
}

/// A debt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// What made it.
    pub reason: OwedReason,
    /// Which payment, report or verdict made it.
    pub source: String,
    /// How much.
    pub sats: Sats,
    /// When it was written.
    pub at: Unix,
    /// The withdraw that pays it.
    pub withdraw_id: Option<WithdrawId>,
}

/// The claim of a transaction, written where it has none yet.
///
/// # Errors
/// [`StoreError::Conflict`] where its claim has another hash.
pub fn open(
    tx: &Tx<'_>,
    claim_hash: ClaimHash,
    machine_id: MachineId,
    txid: TxnId,
    now: Unix,
) -> Result<ClaimId, StoreError> {
    match by_txn(tx, machine_id, txid)? {
        Some(claim) if claim.claim_hash == claim_hash => Ok(claim.id),
        Some(_) => Err(StoreError::Conflict { what: "claim of", key: txid.to_string() }),
        None => Claim { claim_hash, machine_id, txid, created_at: now }.insert_into(tx),
    }
}

/// Writes a debt, and its claim where the transaction has none yet.
///
/// # Errors
/// [`StoreError::Conflict`] for the same source with another amount, or a transaction whose claim
/// has another hash.
pub fn owe(tx: &Tx<'_>, new: &NewOwed, now: Unix) -> Result<Recorded<ClaimId>, StoreError> {
    let claim = open(tx, new.claim_hash, new.machine_id, new.txid, now)?;
    let known = tx.one(
        "SELECT sats, claim_id FROM owed WHERE reason = ?1 AND source = ?2",
        &[&new.reason, &new.source],
        |row| Ok((row.get::<Sats>("sats")?, row.get::<ClaimId>("claim_id")?)),
    )?;
    match known {
        Some(known) if known == (new.sats, claim) => return Ok(Recorded::Known(claim)),
        Some(_) => {
            let key = format!("{} {}", new.reason, new.source);
            return Err(StoreError::Conflict { what: "debt", key });
        }
        None => {}
    }
    tx.insert(
        "owed",
        &[
            ("claim_id", &claim),
            ("reason", &new.reason),
            ("source", &new.source),
            ("sats", &new.sats),
            ("at", &now),
        ],
    )?;
    Ok(Recorded::New(claim))
}

/// The claim of this code.
///
/// # Errors
/// [`StoreError`].
pub fn by_hash(
    read: &Read<'_>,
    hash: ClaimHash,
) -> Result<Option<Kept<ClaimId, Claim>>, StoreError> {
    read.one("SELECT * FROM claims WHERE claim_hash = ?1", &[&hash], Claim::kept)
}

/// The claim of this transaction.
///
/// # Errors
/// [`StoreError`].
pub fn by_txn(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Option<Kept<ClaimId, Claim>>, StoreError> {
    let sql = "SELECT * FROM claims WHERE machine_id = ?1 AND txid = ?2";
    read.one(sql, &[&machine, &txid], Claim::kept)
}

/// Every debt of a claim, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn debts(read: &Read<'_>, claim: ClaimId) -> Result<Vec<Owed>, StoreError> {
    read.all("SELECT * FROM owed WHERE claim_id = ?1 ORDER BY id", &[&claim], read_owed)
}

fn read_owed(row: &Row<'_>) -> Result<Owed, StoreError> {
    Ok(Owed {
        reason: row.get("reason")?,
        source: row.get("source")?,
        sats: row.get("sats")?,
        at: row.get("at")?,
        withdraw_id: row.get("withdraw_id")?,
    })
}

/// The debts that this withdraw pays, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn paid_by(read: &Read<'_>, withdraw: WithdrawId) -> Result<Vec<Owed>, StoreError> {
    // every payout of a debt is of one claim
    let sql = "SELECT owed.* FROM withdraws JOIN owed ON owed.claim_id = withdraws.claim_id
               AND owed.withdraw_id = withdraws.withdraw_id
               WHERE withdraws.withdraw_id = ?1 ORDER BY owed.id";
    read.all(sql, &[&withdraw], read_owed)
}

/// At most `limit` debts after the one numbered `after`, oldest first, each with its claim: for the
/// auditor.
///
/// # Errors
/// [`StoreError`].
pub fn page(
    read: &Read<'_>,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Claim, Owed)>, StoreError> {
    let sql = "SELECT owed.id AS owed_id, owed.*, claims.claim_hash, claims.machine_id,
                   claims.txid, claims.created_at
               FROM owed JOIN claims ON claims.id = owed.claim_id
               WHERE owed.id > ?1 ORDER BY owed.id LIMIT ?2";
    read.all(sql, &[&after, &limit], |row| {
        Ok((row.get("owed_id")?, Claim::from_row(row)?, read_owed(row)?))
    })
}

/// Every debt that no withdraw pays yet, with its claim.
///
/// # Errors
/// [`StoreError`].
pub fn open_debts(read: &Read<'_>) -> Result<Vec<(Claim, Owed)>, StoreError> {
    let sql = "SELECT owed.*, claims.claim_hash, claims.machine_id, claims.txid, claims.created_at
               FROM owed INDEXED BY owed_open JOIN claims ON claims.id = owed.claim_id
               WHERE owed.withdraw_id IS NULL ORDER BY owed.claim_id";
    read.all(sql, &[], |row| Ok((Claim::from_row(row)?, read_owed(row)?)))
}

/// What of a claim no withdraw pays yet.
///
/// # Errors
/// [`StoreError`].
pub fn open_sats(read: &Read<'_>, claim: ClaimId) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(sats), 0) AS sats FROM owed
               WHERE claim_id = ?1 AND withdraw_id IS NULL";
    Ok(read.one(sql, &[&claim], |row| row.get("sats"))?.unwrap_or_default())
}

/// Lets a withdraw pay every open debt of a claim; the sum, which is what the withdraw must promise.
///
/// # Errors
/// [`StoreError`].
pub(super) fn assign(
    tx: &Tx<'_>,
    claim: ClaimId,
    withdraw: WithdrawId,
) -> Result<Sats, StoreError> {
    let sats = open_sats(tx, claim)?;
    let sql = "UPDATE owed SET withdraw_id = ?2 WHERE claim_id = ?1 AND withdraw_id IS NULL";
    tx.run(sql, &[&claim, &withdraw])?;
    Ok(sats)
}

/// What is owed to the customers of a machine and not paid by any withdraw.
///
/// # Errors
/// [`StoreError`].
pub fn unassigned(read: &Read<'_>, machine: MachineId) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(sats), 0) AS sats FROM owed JOIN claims ON claims.id = claim_id
               WHERE withdraw_id IS NULL AND machine_id = ?1";
    Ok(read.one(sql, &[&machine], |row| row.get("sats"))?.unwrap_or_default())
}

/// The debt that this payment, report, withdraw or verdict made.
///
/// # Errors
/// [`StoreError`].
pub fn by_source(
    read: &Read<'_>,
    reason: OwedReason,
    source: &str,
) -> Result<Option<Owed>, StoreError> {
    let sql = "SELECT * FROM owed WHERE reason = ?1 AND source = ?2";
    read.one(sql, &[&reason, &source], read_owed)
}
