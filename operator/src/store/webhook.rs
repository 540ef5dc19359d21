//! What another program is told of alerts, settlements and claims: the outbox of the webhook.
//!
//! Promise: an event is written in the transaction that writes what it tells, by the database itself,
//! so that no way to write that can leave it out; nothing is written while nobody is told. Of each
//! machine's events only the first that is open is ever due: the next one waits for its end.
//!
//! States: open -> sent, or given up after many tries.

use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::{Json, text_enum};
use super::row::Row;
use super::{Read, StoreError, Tx};
use crate::ids::{MachineId, WebhookEventId};

text_enum! {
    /// What an event is about.
    pub enum EventKind {
        /// Something that a person should know.
        Alert = "alert",
        /// A payment, and how its notes came out.
        Settlement = "settlement",
        /// Sats that a customer was promised or is owed, and what became of them.
        Claim = "claim",
    }
}

/// An event. What may change of it is its end, and its tries until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number, which rises.
    pub id: WebhookEventId,
    /// The machine that it is about.
    pub machine_id: Option<MachineId>,
    /// What it is about.
    pub kind: EventKind,
    /// What is told.
    pub event: Json<Value>,
    /// How often it was tried.
    pub tries: u32,
    /// From when on it may be tried again.
    pub due_at: Unix,
    /// Why the last try failed.
    pub detail: Option<String>,
}

impl Event {
    fn from_row(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get("id")?,
            machine_id: row.get("machine_id")?,
            kind: row.get("kind")?,
            event: row.get("event")?,
            tries: row.get("tries")?,
            due_at: row.get("due_at")?,
            detail: row.get("detail")?,
        })
    }
}

/// From now on events are written; `None`: no more, and what is open waits.
///
/// # Errors
/// [`StoreError`].
pub fn tell(tx: &Tx<'_>, since: Option<Unix>) -> Result<(), StoreError> {
    let sql =
        "UPDATE webhook SET since = CASE WHEN ?1 IS NULL THEN NULL ELSE coalesce(since, ?1) END";
    tx.run(sql, &[&since]).map(|_| ())
}

/// The first open event of each machine that may be tried now, oldest first, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub fn due(read: &Read<'_>, now: Unix, limit: u32) -> Result<Vec<Event>, StoreError> {
    let sql = "SELECT * FROM webhook_events WHERE id IN (SELECT min(id) FROM webhook_events
                   WHERE sent_at IS NULL AND given_up_at IS NULL GROUP BY machine_id)
               AND due_at <= ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&now, &limit], Event::from_row)
}

/// How many are open, and the oldest of them.
///
/// # Errors
/// [`StoreError`].
pub fn open(read: &Read<'_>) -> Result<(u64, Option<Event>), StoreError> {
    let open = "FROM webhook_events WHERE sent_at IS NULL AND given_up_at IS NULL";
    let count = read.one(&format!("SELECT count(*) AS n {open}"), &[], |row| row.get("n"))?;
    let oldest = read.one(&format!("SELECT * {open} ORDER BY id LIMIT 1"), &[], Event::from_row)?;
    Ok((count.unwrap_or_default(), oldest))
}

/// It was taken.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it has ended.
pub fn sent(tx: &Tx<'_>, id: WebhookEventId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE webhook_events SET sent_at = ?2, tries = tries + 1, detail = NULL
               WHERE id = ?1 AND sent_at IS NULL AND given_up_at IS NULL";
    tx.run_one("webhook_events", sql, &[&id, &now])
}

/// It was not taken; it is due again at `due_at`.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it has ended.
pub fn failed(
    tx: &Tx<'_>,
    id: WebhookEventId,
    detail: &str,
    due_at: Unix,
) -> Result<(), StoreError> {
    let sql = "UPDATE webhook_events SET tries = tries + 1, detail = ?2, due_at = ?3
               WHERE id = ?1 AND sent_at IS NULL AND given_up_at IS NULL";
    tx.run_one("webhook_events", sql, &[&id, &detail, &due_at])
}

/// Nobody tries it any more.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it has ended.
pub fn give_up(tx: &Tx<'_>, id: WebhookEventId, detail: &str, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE webhook_events SET tries = tries + 1, detail = ?2, given_up_at = ?3
               WHERE id = ?1 AND sent_at IS NULL AND given_up_at IS NULL";
    tx.run_one("webhook_events", sql, &[&id, &detail, &now])
}

/// Forgets what ended before `before`.
///
/// # Errors
/// [`StoreError`].
pub fn forget(tx: &Tx<'_>, before: Unix) -> Result<u64, StoreError> {
    let sql = "DELETE FROM webhook_events WHERE (sent_at IS NOT NULL OR given_up_at IS NOT NULL)
               AND coalesce(sent_at, given_up_at) < ?1";
    tx.run(sql, &[&before])
}
