//! Where machines' journals stood, as their vaults have signed it.
//!
//! Promise: of each position of a vault's journal one head is kept, the first that was shown. So a
//! journal that was put in another's place shows at its first position that is known here, and an
//! export of it can be held against all of them.

use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey};
use bitspire_shared::time::Unix;

use super::column::ToColumn;
use super::row::record;
use super::{Read, StoreError, Tx};
use crate::ids::MachineId;

record! {
    /// A head.
    pub struct Head in "journal_heads" {
        /// The machine.
        pub machine_id: MachineId,
        /// The vault whose journal it is.
        pub vault_key: PubKey,
        /// The position.
        pub seq: JournalSeq,
        /// The hash of the entry there.
        pub head: JournalHead,
        /// When it was first shown.
        pub at: Unix,
    }
}

/// Keeps a head; the one that is known at its position where that is another.
///
/// # Errors
/// [`StoreError`].
pub fn saw(tx: &Tx<'_>, head: &Head) -> Result<Option<JournalHead>, StoreError> {
    // nearly always it is a new one
    match head.insert_into(tx) {
        Ok(()) => return Ok(None),
        Err(error) if error.is_unique_on("journal_heads") => {}
        Err(error) => return Err(error),
    }
    let sql = "SELECT head FROM journal_heads
               WHERE machine_id = ?1 AND vault_key = ?2 AND seq = ?3";
    let at: [&dyn ToColumn; 3] = [&head.machine_id, &head.vault_key, &head.seq];
    let known: Option<JournalHead> = tx.one(sql, &at, |row| row.get("head"))?;
    Ok(known.filter(|known| *known != head.head))
}

/// The heads of a vault's journal after a position, in order, at most `limit` of them.
///
/// # Errors
/// [`StoreError`].
pub fn page(
    read: &Read<'_>,
    machine: MachineId,
    vault: PubKey,
    after: JournalSeq,
    limit: u32,
) -> Result<Vec<Head>, StoreError> {
    let sql = "SELECT * FROM journal_heads
               WHERE machine_id = ?1 AND vault_key = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
    read.all(sql, &[&machine, &vault, &after, &limit], Head::from_row)
}
