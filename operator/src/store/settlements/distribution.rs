//! Where the distribution of a settlement stands, and who works on it.
//!
//! Promise: a settlement is taken by compare-and-set, with a token and a lease; only the holder of the
//! token ends the work.

use bitspire_shared::time::Unix;

use super::{Distribution, Settlement};
use crate::ids::{MachineId, OperatorId, SettlementId};
use crate::store::row::Kept;
use crate::store::{Read, StoreError, Tx};

/// At most `limit` settlements of an operator (`None`: of anybody) whose distribution stands at
/// `at`, which is no end, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn by_distribution(
    read: &Read<'_>,
    at: Distribution,
    operator: Option<OperatorId>,
    limit: u32,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    // the first condition is the index's own
    let sql = "SELECT * FROM settlements
               WHERE distribution IN ('pending', 'processing', 'held', 'errored')
                   AND distribution = ?1 AND (?2 IS NULL OR machine_id IN
                   (SELECT id FROM machines WHERE operator_id = ?2)) ORDER BY id LIMIT ?3";
    read.all(sql, &[&at, &operator, &limit], Settlement::kept)
}

/// Every cash_out of a machine that is held and whose notes nobody has reported, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn held_unreported(
    read: &Read<'_>,
    machine: MachineId,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    // the other indexes have all that the machine ever sold, or what is held of all machines
    let sql = "SELECT * FROM settlements INDEXED BY settlements_held
               WHERE machine_id = ?1 AND distribution = 'held' AND direction = 'cash_out'
                   AND reported_at IS NULL ORDER BY id";
    read.all(sql, &[&machine], Settlement::kept)
}

/// At most `limit` settlements that are held for `reason`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn held_for(
    read: &Read<'_>,
    reason: &str,
    limit: u32,
) -> Result<Vec<SettlementId>, StoreError> {
    // the first condition is the index's own
    let sql = "SELECT id FROM settlements
               WHERE distribution IN ('pending', 'processing', 'held', 'errored')
                   AND distribution = 'held' AND hold_reason = ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&reason, &limit], |row| row.get("id"))
}

/// Every settlement that is to be distributed or in work, with its machine, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn distributable(read: &Read<'_>) -> Result<Vec<(SettlementId, MachineId)>, StoreError> {
    let sql = "SELECT id, machine_id FROM settlements
               WHERE distribution IN ('pending', 'processing') ORDER BY id";
    read.all(sql, &[], |row| Ok((row.get("id")?, row.get("machine_id")?)))
}

/// Ends every lease: for the start of the one process that may have the database, when whoever took
/// them is dead.
///
/// # Errors
/// [`StoreError`].
pub fn end_leases(tx: &Tx<'_>) -> Result<(), StoreError> {
    let sql = "UPDATE settlements SET lease_until = 0
               WHERE distribution IN ('pending', 'processing') AND distribution = 'processing'";
    tx.run(sql, &[]).map(|_| ())
}

/// Takes a settlement to work on: pending, one's own already, or left by a worker whose lease has run
/// out. False where somebody else has it.
///
/// # Errors
/// [`StoreError`].
pub fn take(
    tx: &Tx<'_>,
    id: SettlementId,
    token: &str,
    lease_until: Unix,
    now: Unix,
) -> Result<bool, StoreError> {
    let sql = "UPDATE settlements SET distribution = 'processing', claim_token = ?2,
               lease_until = ?3
               WHERE id = ?1 AND (distribution = 'pending'
                   OR (distribution = 'processing' AND (claim_token = ?2 OR lease_until < ?4)))";
    Ok(tx.run(sql, &[&id, &token, &lease_until, &now])? == 1)
}

/// Ends the work of the worker with this token, at `to`; what is to be held goes to pending first.
///
/// # Errors
/// [`StoreError::NotOneRow`] where the token is not the holder's any more.
pub fn finish(
    tx: &Tx<'_>,
    id: SettlementId,
    token: &str,
    to: Distribution,
) -> Result<(), StoreError> {
    let sql = "UPDATE settlements SET distribution = ?3, claim_token = NULL, lease_until = NULL
               WHERE id = ?1 AND claim_token = ?2";
    tx.run_one("settlements", sql, &[&id, &token, &to])
}

/// Holds a settlement that nobody works on, until a report or a verdict.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is worked on or rests.
pub fn hold(tx: &Tx<'_>, id: SettlementId, reason: &str) -> Result<(), StoreError> {
    let sql = "UPDATE settlements SET distribution = 'held', hold_reason = ?2
               WHERE id = ?1 AND distribution IN ('pending', 'held', 'errored')";
    tx.run_one("settlements", sql, &[&id, &reason])
}

/// Lets a held or errored settlement be distributed (again).
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is neither.
pub fn release(tx: &Tx<'_>, id: SettlementId) -> Result<(), StoreError> {
    let sql = "UPDATE settlements SET distribution = 'pending', hold_reason = NULL
               WHERE id = ?1 AND distribution IN ('held', 'errored')";
    tx.run_one("settlements", sql, &[&id])
}

/// A settlement whose sats are not where they belong, for longer than is usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Which one.
    pub id: SettlementId,
    /// Whose machine.
    pub machine: MachineId,
    /// Where its distribution stands, and why.
    pub state: String,
}

/// Settlements from before `since`, or by a clock that was ahead of `now`, whose distribution has not
/// ended, and of which nobody was told in `scope` how they stand now; oldest first, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub fn overdue(
    read: &Read<'_>,
    (since, now): (Unix, Unix),
    scope: &str,
    limit: u32,
) -> Result<Vec<Overdue>, StoreError> {
    read.all(
        "SELECT id, machine_id, distribution || coalesce(': ' || hold_reason, '') AS state
         FROM settlements s
         WHERE distribution IN ('pending', 'processing', 'held', 'errored')
             AND (settled_at < ?1 OR settled_at > ?4)
             AND NOT EXISTS (SELECT 1 FROM used_nonces WHERE scope = ?2 AND nonce = s.id || ' '
                 || distribution || coalesce(': ' || hold_reason, ''))
         ORDER BY id LIMIT ?3",
        &[&since, &scope, &limit, &now],
        |row| {
            Ok(Overdue {
                id: row.get("id")?,
                machine: row.get("machine_id")?,
                state: row.get("state")?,
            })
        },
    )
}
