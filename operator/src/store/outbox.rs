//! What waits to be sent: written with what causes it, sent until it is done.
//!
//! Promise: nothing that was recorded is forgotten by a crash before it was sent. Sending is
//! at-least-once; a document is taken once by its event, a push is a hint.

use bitspire_shared::ids::PushId;
use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::{Json, text_enum};
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{DocumentId, MachineId, OutboxId};

/// Seconds for which a push is of use at most; longer than a customer waits.
pub const PUSH_USE_S: u64 = 600;

text_enum! {
    /// What is to be sent.
    pub enum Topic {
        /// A configuration document.
        Document = "document",
        /// A push to a machine.
        Push = "push",
    }
}

record! {
    /// Something that waits.
    pub struct Waiting in "outbox", id: OutboxId {
        /// What it is.
        pub topic: Topic,
        /// For which machine.
        pub machine_id: MachineId,
        /// The document.
        pub document_id: Option<DocumentId>,
        /// The push's name.
        pub push: Option<String>,
        /// The push's id.
        pub push_id: Option<PushId>,
        /// The push's body.
        pub body: Option<Json<Value>>,
        /// When it was written.
        pub created_at: Unix,
        /// From when on it is of no use.
        pub expires_at: Option<Unix>,
        /// When to try (again).
        pub not_before: Unix,
        /// How often it was tried.
        pub attempts: u32,
        /// Why the last attempt failed.
        pub last_error: Option<String>,
        /// When it was sent, or of no use any more.
        pub done_at: Option<Unix>,
    }
}

/// When to try what is hurried: no clock says so.
const AT_ONCE: Unix = Unix(0);

impl Waiting {
    /// Whether an operator has asked for it since it was tried last: see [`hurry`].
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.not_before == AT_ONCE
    }
}

/// How much of one topic waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The topic.
    pub topic: Topic,
    /// How many.
    pub waiting: u64,
    /// Since when the oldest has waited.
    pub oldest: Option<Unix>,
}

/// A push to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPush {
    /// For which machine.
    pub machine_id: MachineId,
    /// Its name.
    pub push: &'static str,
    /// Its id.
    pub push_id: PushId,
    /// Its body.
    pub body: Value,
    /// From when on it is of no use; [`PUSH_USE_S`] after it is queued at the latest.
    pub expires_at: Unix,
    /// It is not sent before.
    pub not_before: Unix,
}

/// Queues a push.
///
/// # Errors
/// [`StoreError`].
pub fn push(tx: &Tx<'_>, new: &NewPush, now: Unix) -> Result<OutboxId, StoreError> {
    Waiting {
        topic: Topic::Push,
        machine_id: new.machine_id,
        document_id: None,
        push: Some(new.push.to_owned()),
        push_id: Some(new.push_id),
        body: Some(Json(new.body.clone())),
        created_at: now,
        expires_at: Some(new.expires_at.min(now.after(PUSH_USE_S))),
        not_before: new.not_before,
        attempts: 0,
        last_error: None,
        done_at: None,
    }
    .insert_into(tx)
}

/// Queues a document.
///
/// # Errors
/// [`StoreError`].
pub(super) fn document(
    tx: &Tx<'_>,
    machine: MachineId,
    document: DocumentId,
    now: Unix,
) -> Result<OutboxId, StoreError> {
    Waiting {
        topic: Topic::Document,
        machine_id: machine,
        document_id: Some(document),
        push: None,
        push_id: None,
        body: None,
        created_at: now,
        expires_at: None,
        not_before: now,
        attempts: 0,
        last_error: None,
        done_at: None,
    }
    .insert_into(tx)
}

/// What waits, by topic.
///
/// # Errors
/// [`StoreError`].
pub fn depth(read: &Read<'_>) -> Result<Vec<Depth>, StoreError> {
    // the topic stands in the text, or no index of what waits is used
    let documents = "SELECT count(*) AS waiting, min(created_at) AS oldest
                     FROM outbox INDEXED BY outbox_documents
                     WHERE done_at IS NULL AND topic = 'document'";
    let pushes = "SELECT count(*) AS waiting, min(created_at) AS oldest
                  FROM outbox INDEXED BY outbox_pushes
                  WHERE done_at IS NULL AND topic = 'push'";
    let of = |(topic, sql): (Topic, &str)| {
        let depth = read.one(sql, &[], |row| {
            Ok(Depth { topic, waiting: row.get("waiting")?, oldest: row.get("oldest")? })
        })?;
        Ok(depth.unwrap_or(Depth { topic, waiting: 0, oldest: None }))
    };
    [(Topic::Document, documents), (Topic::Push, pushes)].into_iter().map(of).collect()
}

/// At most `limit` pushes that should be sent now, in the order in which they became due; those that
/// say that a configuration changed (`config_changed`) only where there are no others: they may be as
/// many as there are machines, and no customer waits for them.
///
/// # Errors
/// [`StoreError`].
pub fn due_pushes(
    read: &Read<'_>,
    now: Unix,
    limit: u32,
) -> Result<Vec<Kept<OutboxId, Waiting>>, StoreError> {
    // what was tried last so long ago has expired: it is kept for a day, and not looked over
    let sql = "SELECT * FROM outbox WHERE done_at IS NULL AND topic = 'push'
                   AND (push = 'config_changed') = ?1 AND not_before > ?4 AND not_before <= ?2
                   AND expires_at > ?2
               ORDER BY not_before, id LIMIT ?3";
    let of_use = Unix(now.0.saturating_sub(PUSH_USE_S));
    let due = read.all(sql, &[&false, &now, &limit, &of_use], Waiting::kept)?;
    if !due.is_empty() {
        return Ok(due);
    }
    read.all(sql, &[&true, &now, &limit, &of_use], Waiting::kept)
}

/// Where a page of due things ends.
pub type Position = (Unix, OutboxId);
/// Before all of them.
pub const START: Position = (Unix(0), OutboxId(0));

/// At most `limit` documents that should be sent now, in the order in which they became due,
/// beginning after `after`.
///
/// # Errors
/// [`StoreError`].
pub fn due_documents(
    read: &Read<'_>,
    now: Unix,
    after: Position,
    limit: u32,
) -> Result<Vec<Kept<OutboxId, Waiting>>, StoreError> {
    let sql = "SELECT * FROM outbox WHERE done_at IS NULL AND topic = 'document'
                   AND not_before <= ?1 AND (not_before, id) > (?2, ?3)
               ORDER BY not_before, id LIMIT ?4";
    read.all(sql, &[&now, &after.0, &after.1, &limit], Waiting::kept)
}

/// The place of a document, whether it waits or is done.
///
/// # Errors
/// [`StoreError`].
pub fn of_document(
    read: &Read<'_>,
    document: DocumentId,
) -> Result<Option<Kept<OutboxId, Waiting>>, StoreError> {
    read.one("SELECT * FROM outbox WHERE document_id = ?1", &[&document], Waiting::kept)
}

/// It was sent.
///
/// # Errors
/// [`StoreError::NotOneRow`] without it.
pub fn done(tx: &Tx<'_>, id: OutboxId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE outbox SET done_at = ?2, attempts = attempts + 1, last_error = NULL
               WHERE id = ?1 AND done_at IS NULL";
    tx.run_one("outbox", sql, &[&id, &now])
}

/// A document was sent. False where it does not wait.
///
/// # Errors
/// [`StoreError`].
pub fn document_done(tx: &Tx<'_>, document: DocumentId, now: Unix) -> Result<bool, StoreError> {
    let sql = "UPDATE outbox SET done_at = ?2, attempts = attempts + 1, last_error = NULL
               WHERE document_id = ?1 AND done_at IS NULL";
    Ok(tx.run(sql, &[&document, &now])? == 1)
}

/// An attempt failed; the next one is not before `not_before`.
///
/// # Errors
/// [`StoreError::NotOneRow`] without it, or where it is done.
pub fn failed(tx: &Tx<'_>, id: OutboxId, error: &str, not_before: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE outbox SET attempts = attempts + 1, last_error = ?2, not_before = ?3
               WHERE id = ?1 AND done_at IS NULL";
    tx.run_one("outbox", sql, &[&id, &error, &not_before])
}

/// A document that was sent at or before `before` waits again. False where it was sent since, or
/// waits.
///
/// # Errors
/// [`StoreError`].
pub fn once_more(
    tx: &Tx<'_>,
    document: DocumentId,
    now: Unix,
    before: Unix,
) -> Result<bool, StoreError> {
    let sql = "UPDATE outbox SET done_at = NULL, attempts = 0, not_before = ?2
               WHERE document_id = ?1 AND done_at <= ?3";
    Ok(tx.run(sql, &[&document, &now, &before])? == 1)
}

/// Makes a document due at once, before all others: an operator waits for it.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it does not wait.
pub fn hurry(tx: &Tx<'_>, document: DocumentId) -> Result<(), StoreError> {
    let sql = "UPDATE outbox SET not_before = ?2 WHERE document_id = ?1 AND done_at IS NULL";
    tx.run_one("outbox", sql, &[&document, &AT_ONCE])
}

/// Forgets pushes that have been of no use since `before`, sent or not. The number forgotten.
///
/// # Errors
/// [`StoreError`].
pub fn prune(tx: &Tx<'_>, before: Unix) -> Result<u64, StoreError> {
    tx.run("DELETE FROM outbox WHERE topic = 'push' AND expires_at < ?1", &[&before])
}
