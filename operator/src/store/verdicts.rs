//! Verdicts: what the operator decided about sales that cannot end by themselves.
//!
//! Promise: one live verdict for each transaction of a machine, and one for the machine itself; what
//! was signed never changes.
//!
//! States: live -> used (the machine reports its nonce), moot (the machine reports that the
//! transaction ended without it) or lapsed (its time is over, or the machine has other keys).

use bitspire_shared::ids::{JournalSeq, Nonce, PubKey, TxnId};
use bitspire_shared::statement::{SignedStatement, VerdictKind};
use bitspire_shared::time::Unix;

use super::column::{Json, text_enum};
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{MachineId, VerdictId};

text_enum! {
    /// How far a verdict is.
    pub enum VerdictState {
        /// Pushed until the machine has used it.
        Live = "live",
        /// The machine has used it.
        Used = "used",
        /// Its transaction ended without it.
        Moot = "moot",
        /// Too old, or for keys that the machine does not have any more.
        Lapsed = "lapsed",
    }
}

record! {
    /// A verdict.
    pub struct Verdict in "verdicts", id: VerdictId {
        /// For which machine.
        pub machine_id: MachineId,
        /// Its key at that time.
        pub spire: PubKey,
        /// Its vault's key at that time.
        pub vault: PubKey,
        /// About which transaction; about the machine itself without one.
        pub txid: Option<TxnId>,
        /// The decision.
        pub verdict: VerdictKind,
        /// The amount that it names, in minor units.
        pub amount_minor: i64,
        /// The journal position of the report that it was decided on.
        pub journal_seq: JournalSeq,
        /// Makes it single use.
        pub nonce: Nonce,
        /// As the operator key signed it.
        pub statement: Json<SignedStatement>,
        /// Who decided.
        pub actor: String,
        /// When.
        pub created_at: Unix,
        /// Until when the machine takes it.
        pub not_after: Unix,
        /// How far it is.
        pub state: VerdictState,
        /// When it ended.
        pub ended_at: Option<Unix>,
    }
}

/// A verdict as it is kept.
pub type KeptVerdict = Kept<VerdictId, Verdict>;

/// Writes a verdict.
///
/// # Errors
/// [`StoreError`]: a constraint where another one about the same thing is live.
pub fn insert(tx: &Tx<'_>, verdict: &Verdict) -> Result<VerdictId, StoreError> {
    verdict.insert_into(tx)
}

/// The live verdicts of a machine, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn live(read: &Read<'_>, machine: MachineId) -> Result<Vec<KeptVerdict>, StoreError> {
    let sql = "SELECT * FROM verdicts WHERE machine_id = ?1 AND state = 'live' ORDER BY id";
    read.all(sql, &[&machine], Verdict::kept)
}

/// The newest `limit` verdicts of a machine.
///
/// # Errors
/// [`StoreError`].
pub fn newest(
    read: &Read<'_>,
    machine: MachineId,
    limit: u32,
) -> Result<Vec<KeptVerdict>, StoreError> {
    let sql = "SELECT * FROM verdicts WHERE machine_id = ?1 ORDER BY id DESC LIMIT ?2";
    read.all(sql, &[&machine, &limit], Verdict::kept)
}

/// Whether a verdict says that the customer of a transaction has everything.
///
/// # Errors
/// [`StoreError`].
pub fn settles(read: &Read<'_>, machine: MachineId, txid: TxnId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 AS found FROM verdicts
               WHERE machine_id = ?1 AND txid = ?2 AND verdict = 'settled' LIMIT 1";
    let found: Option<i64> = read.one(sql, &[&machine, &txid], |row| row.get("found"))?;
    Ok(found.is_some())
}

/// Every verdict about a transaction, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_txn(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Vec<KeptVerdict>, StoreError> {
    let sql = "SELECT * FROM verdicts WHERE machine_id = ?1 AND txid = ?2 ORDER BY id";
    read.all(sql, &[&machine, &txid], Verdict::kept)
}

/// Ends a live verdict.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not live.
pub fn end(tx: &Tx<'_>, id: VerdictId, to: VerdictState, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE verdicts SET state = ?2, ended_at = ?3 WHERE id = ?1 AND state = 'live'";
    tx.run_one("verdicts", sql, &[&id, &to, &now])
}
