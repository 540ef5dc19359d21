//! Ids of requests' events that were taken, for as long as those events could still be taken.
//!
//! Promise: an id that was written with the effects of its request is there after any restart; the
//! table holds no more than the window in memory does.

use bitspire_shared::ids::EventId;
use bitspire_shared::time::Unix;

use super::{Read, StoreError, Tx};

/// Writes an id that counts until `until`.
///
/// # Errors
/// [`StoreError`].
pub fn keep(tx: &Tx<'_>, id: EventId, until: Unix) -> Result<(), StoreError> {
    let sql = "INSERT INTO event_ids (until, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    tx.run(sql, &[&until, &id]).map(|_| ())
}

/// The newest `limit` ids that still count, each with its end.
///
/// # Errors
/// [`StoreError`].
pub fn live(read: &Read<'_>, now: Unix, limit: u32) -> Result<Vec<(EventId, Unix)>, StoreError> {
    let sql = "SELECT * FROM event_ids WHERE until >= ?1 ORDER BY until DESC LIMIT ?2";
    read.all(sql, &[&now, &limit], |row| Ok((row.get("id")?, row.get("until")?)))
}

/// Forgets ids that count no more, and all but the newest `limit`.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: &Tx<'_>, now: Unix, limit: u32) -> Result<(), StoreError> {
    tx.run("DELETE FROM event_ids WHERE until < ?1", &[&now])?;
    let sql = "DELETE FROM event_ids WHERE (until, id) IN
               (SELECT until, id FROM event_ids ORDER BY until DESC, id DESC LIMIT -1 OFFSET ?1)";
    tx.run(sql, &[&limit]).map(|_| ())
}
