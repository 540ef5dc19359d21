//! Sessions of machines: which key may sign RPC for which machine, until when.

use bitspire_shared::ids::{EventId, JournalHead, JournalSeq, PubKey, SessionId};
use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::Json;
use super::row::{Row, record};
use super::{Read, StoreError, Tx};
use crate::ids::MachineId;

record! {
    /// A session.
    pub struct Session in "sessions" {
        /// Its id.
        pub session_id: SessionId,
        /// Whose it is.
        pub machine_id: MachineId,
        /// The key that signs for the machine.
        pub session_pubkey: PubKey,
        /// The vault that it was opened with.
        pub vault_key: PubKey,
        /// The event that asked for it.
        pub event_id: EventId,
        /// The journal position shown at the start.
        pub journal_seq: JournalSeq,
        /// The journal's head at that position.
        pub journal_head: JournalHead,
        /// Start.
        pub opened_at: Unix,
        /// End, at most 24 hours later.
        pub expires_at: Unix,
        /// Closed before its end.
        pub closed_at: Option<Unix>,
        /// The body that asked for it: both proofs, and the machine's statement that names the vault.
        pub opening: Option<Json<Value>>,
    }
}

/// Opens a session.
///
/// # Errors
/// [`StoreError`]; unique on `session_pubkey` where the key was used before.
pub fn insert(tx: &Tx<'_>, session: &Session) -> Result<(), StoreError> {
    session.insert_into(tx)
}

/// The live session of this key.
///
/// # Errors
/// [`StoreError`].
pub fn live(read: &Read<'_>, key: PubKey, now: Unix) -> Result<Option<Session>, StoreError> {
    read.one(
        "SELECT * FROM sessions
         WHERE session_pubkey = ?1 AND closed_at IS NULL AND expires_at > ?2",
        &[&key, &now],
        Session::from_row,
    )
}

/// The session of this key, whether it lives or not.
///
/// # Errors
/// [`StoreError`].
pub fn by_key(read: &Read<'_>, key: PubKey) -> Result<Option<Session>, StoreError> {
    read.one("SELECT * FROM sessions WHERE session_pubkey = ?1", &[&key], Session::from_row)
}

/// The vaults that a machine's sessions were opened with.
///
/// # Errors
/// [`StoreError`].
pub fn vaults(read: &Read<'_>, machine: MachineId) -> Result<Vec<PubKey>, StoreError> {
    let sql = "SELECT DISTINCT vault_key FROM sessions WHERE machine_id = ?1";
    read.all(sql, &[&machine], |row| row.get("vault_key"))
}

/// The vault that spoke for a machine at a time: its newest session's of then.
///
/// # Errors
/// [`StoreError`].
pub fn vault_at(
    read: &Read<'_>,
    machine: MachineId,
    at: Unix,
) -> Result<Option<PubKey>, StoreError> {
    let sql = "SELECT vault_key FROM sessions WHERE machine_id = ?1 AND opened_at <= ?2
               ORDER BY opened_at DESC, journal_seq DESC LIMIT 1";
    read.one(sql, &[&machine, &at], |row| row.get("vault_key"))
}

/// The live sessions of all machines, of each what a roster needs: its machine, key and end.
///
/// # Errors
/// [`StoreError`].
pub fn all_live(read: &Read<'_>, now: Unix) -> Result<Vec<(MachineId, PubKey, Unix)>, StoreError> {
    read.all(
        "SELECT machine_id, session_pubkey, expires_at FROM sessions
         WHERE closed_at IS NULL AND expires_at > ?1 ORDER BY opened_at",
        &[&now],
        |row| Ok((row.get("machine_id")?, row.get("session_pubkey")?, row.get("expires_at")?)),
    )
}

/// Closes every open session of a machine.
///
/// # Errors
/// [`StoreError`].
pub fn close_all(tx: &Tx<'_>, machine: MachineId, now: Unix) -> Result<(), StoreError> {
    tx.run(
        "UPDATE sessions SET closed_at = ?2 WHERE machine_id = ?1 AND closed_at IS NULL",
        &[&machine, &now],
    )?;
    Ok(())
}

/// A session that speaks for its machine: of the present pairing, not ended, and not closed unless
/// by the machine's revoke, since a revoked machine may still state evidence.
const SPEAKING: &str = "FROM sessions s JOIN machines m ON m.id = s.machine_id
    WHERE s.expires_at > ?1 AND s.opened_at >= m.paired_at
        AND (s.closed_at IS NULL OR s.closed_at >= m.revoked_at)";

/// Every session key that speaks for a machine, revoked machines' included.
///
/// # Errors
/// [`StoreError`].
pub fn speaking(read: &Read<'_>, now: Unix) -> Result<Vec<(PubKey, MachineId)>, StoreError> {
    let sql = format!("SELECT s.session_pubkey, s.machine_id {SPEAKING}");
    read.all(&sql, &[&now], |row: &Row<'_>| {
        Ok((row.get("session_pubkey")?, row.get("machine_id")?))
    })
}

/// The machine that a session key speaks for, a revoked one included.
///
/// # Errors
/// [`StoreError`].
pub fn machine_of(
    read: &Read<'_>,
    key: PubKey,
    now: Unix,
) -> Result<Option<MachineId>, StoreError> {
    let sql = format!("SELECT s.machine_id {SPEAKING} AND s.session_pubkey = ?2");
    read.one(&sql, &[&now, &key], |row| row.get("machine_id"))
}

/// The key that a machine is told things under: its newest live session's, else none.
///
/// # Errors
/// [`StoreError`].
pub fn listening(
    read: &Read<'_>,
    machine: MachineId,
    now: Unix,
) -> Result<Option<PubKey>, StoreError> {
    let sql = "SELECT s.session_pubkey FROM sessions s JOIN machines m ON m.id = s.machine_id
               WHERE s.machine_id = ?1 AND s.expires_at > ?2 AND s.closed_at IS NULL
                   AND s.opened_at >= m.paired_at
               ORDER BY s.opened_at DESC LIMIT 1";
    read.one(sql, &[&machine, &now], |row| row.get("session_pubkey"))
}
