//! Where machines' journals stood, as their vaults have signed it.
//!
//! Promise: of each position of a vault's journal one head is kept, the first that was shown. So a
//! journal that was put in another's place shows at its first position that is known here, and an
//! export of it can be held against all of them.

use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey};
use bitspire_shared::time::Unix;

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
    let sql = "INSERT INTO journal_heads (machine_id, vault_key, seq, head, at)
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let Head { machine_id, vault_key, seq, head: shown, at } = head;
    if tx.run(sql, &[machine_id, vault_key, seq, shown, at])? == 1 {
        return Ok(None);
    }
    let sql =
        "SELECT head FROM journal_heads WHERE machine_id = ?1 AND vault_key = ?2 AND seq = ?3";
    let known: Option<JournalHead> =
        tx.one(sql, &[machine_id, vault_key, seq], |row| row.get("head"))?;
    Ok(known.filter(|known| known != shown))
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
