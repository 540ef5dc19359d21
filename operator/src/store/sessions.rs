//! Sessions of machines: which key may sign RPC for which machine, until when.

use bitspire_shared::ids::{EventId, JournalHead, JournalSeq, PubKey, SessionId};
use bitspire_shared::time::Unix;

use super::row::record;
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

/// The live sessions of all machines, or of one.
///
/// # Errors
/// [`StoreError`].
pub fn all_live(
    read: &Read<'_>,
    machine: Option<MachineId>,
    now: Unix,
) -> Result<Vec<Session>, StoreError> {
    read.all(
        "SELECT * FROM sessions WHERE closed_at IS NULL AND expires_at > ?2
            AND (?1 IS NULL OR machine_id = ?1) ORDER BY opened_at",
        &[&machine, &now],
        Session::from_row,
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
