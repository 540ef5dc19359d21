//! Attempts to pair a machine: one row each, written before the bunker is asked for anything.
//!
//! States: started -> key_created -> policy_ready -> token_created -> token_read -> switched ->
//! old_revoked, or failed from any of them. The machine's own row changes at `switched` only. One
//! open attempt a machine.

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;

use super::column::{Json, text_enum};
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{MachineId, PairingId};

text_enum! {
    /// How far an attempt has come.
    pub enum PairingStep {
        /// Only the row exists.
        Started = "started",
        /// The bunker has the key.
        KeyCreated = "key_created",
        /// The policy is there with all rules.
        PolicyReady = "policy_ready",
        /// The bunker was told to make a token.
        TokenCreated = "token_created",
        /// The token was read back; the seed can be shown.
        TokenRead = "token_read",
        /// The machine's row names the new key.
        Switched = "switched",
        /// The old key's users and tokens are revoked: done.
        OldRevoked = "old_revoked",
        /// Given up, with an error.
        Failed = "failed",
    }
}

record! {
    /// An attempt.
    pub struct Pairing in "pairing_attempts", id: PairingId {
        /// The machine.
        pub machine_id: MachineId,
        /// Which attempt of that machine, from 1.
        pub number: u64,
        /// The key's name in the bunker, fresh for each attempt.
        pub key_name: String,
        /// The key of whoever asked for it, or `cli`.
        pub requested_by: String,
        /// Relays for the seed.
        pub relays: Json<Vec<String>>,
        /// How long the bunker's token is good for.
        pub duration_hours: u64,
        /// How far it has come.
        pub step: PairingStep,
        /// The spire key that the bunker holds.
        pub spire_key: Option<PubKey>,
        /// The bunker's policy.
        pub policy_id: Option<i64>,
        /// The bunker's token (never the token's secret).
        pub token_id: Option<i64>,
        /// End of the token.
        pub token_expires_at: Option<Unix>,
        /// Why it failed.
        pub error: Option<String>,
        /// Start.
        pub started_at: Unix,
        /// Last step.
        pub updated_at: Unix,
    }
}

/// What a bunker's call has brought, beside the step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The spire key.
    pub spire_key: Option<PubKey>,
    /// The policy.
    pub policy_id: Option<i64>,
    /// The token.
    pub token_id: Option<i64>,
    /// End of the token.
    pub token_expires_at: Option<Unix>,
}

/// The number of a machine's next attempt.
///
/// # Errors
/// [`StoreError`].
pub fn next_number(read: &Read<'_>, machine: MachineId) -> Result<u64, StoreError> {
    let sql = "SELECT coalesce(max(number), 0) + 1 AS next FROM pairing_attempts
               WHERE machine_id = ?1";
    Ok(read.one(sql, &[&machine], |row| row.get("next"))?.unwrap_or(1))
}

/// Starts an attempt.
///
/// # Errors
/// [`StoreError`]; unique on `pairing_attempts.machine_id` while another attempt is open.
pub fn insert(tx: &Tx<'_>, pairing: &Pairing) -> Result<PairingId, StoreError> {
    pairing.insert_into(tx)
}

/// The attempt with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    read: &Read<'_>,
    id: PairingId,
) -> Result<Option<Kept<PairingId, Pairing>>, StoreError> {
    read.one("SELECT * FROM pairing_attempts WHERE id = ?1", &[&id], Pairing::kept)
}

/// A machine's attempts before number `before`, the newest first.
///
/// # Errors
/// [`StoreError`].
pub fn earlier(
    read: &Read<'_>,
    machine: MachineId,
    before: u64,
) -> Result<Vec<Kept<PairingId, Pairing>>, StoreError> {
    let sql = "SELECT * FROM pairing_attempts WHERE machine_id = ?1 AND number < ?2
               ORDER BY number DESC";
    read.all(sql, &[&machine, &before], Pairing::kept)
}

/// Attempts that have not ended, of all machines: what a start has to look at.
///
/// # Errors
/// [`StoreError`].
pub fn open(read: &Read<'_>) -> Result<Vec<Kept<PairingId, Pairing>>, StoreError> {
    read.all(
        "SELECT * FROM pairing_attempts WHERE step NOT IN ('old_revoked', 'failed') ORDER BY id",
        &[],
        Pairing::kept,
    )
}

/// Records a step; what `progress` does not say stays.
///
/// # Errors
/// [`StoreError::NotOneRow`] where the attempt has ended.
pub fn advance(
    tx: &Tx<'_>,
    id: PairingId,
    step: PairingStep,
    progress: &Progress,
    now: Unix,
) -> Result<(), StoreError> {
    tx.run_one(
        "pairing_attempts",
        "UPDATE pairing_attempts SET step = ?2, spire_key = coalesce(?3, spire_key),
            policy_id = coalesce(?4, policy_id), token_id = coalesce(?5, token_id),
            token_expires_at = coalesce(?6, token_expires_at), updated_at = ?7
         WHERE id = ?1 AND step NOT IN ('old_revoked', 'failed')",
        &[
            &id,
            &step,
            &progress.spire_key,
            &progress.policy_id,
            &progress.token_id,
            &progress.token_expires_at,
            &now,
        ],
    )
}

/// Gives an attempt up.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it has ended.
pub fn fail(tx: &Tx<'_>, id: PairingId, error: &str, now: Unix) -> Result<(), StoreError> {
    tx.run_one(
        "pairing_attempts",
        "UPDATE pairing_attempts SET step = 'failed', error = ?2, updated_at = ?3
         WHERE id = ?1 AND step NOT IN ('old_revoked', 'failed')",
        &[&id, &error, &now],
    )
}
