//! What must be shown later: the audit log, refused requests, and what was used once.

use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::Json;
use super::row::{Kept, Row, record};
use super::{Read, StoreError, Tx};
use crate::ids::AuditId;

record! {
    /// One act of a person or of the service; never changed, never deleted.
    pub struct Audit in "audit_log", id: AuditId {
        /// When.
        pub at: Unix,
        /// The key of whoever acted, `cli` or `service`.
        pub actor: String,
        /// What was done, such as `machine.revoke`.
        pub action: String,
        /// To what, such as `machine:3`.
        pub subject: String,
        /// With which values; no secrets.
        pub detail: Json<Value>,
        /// The signed event, where the act asks for one.
        pub signed: Option<String>,
    }
}

/// Requests of one sender that the gate refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The refusal's name.
    pub reason: String,
    /// Who sent them, as hex; `None` where they were too many to be told apart.
    pub sender: Option<String>,
    /// Whether that sender had signed them; else it is who they claim to be from.
    pub verified: bool,
    /// How many.
    pub count: u64,
    /// When the first came.
    pub first_at: Unix,
    /// When the newest came.
    pub last_at: Unix,
    /// The relay that the newest came from.
    pub relay: Option<String>,
    /// The newest one's event.
    pub event_id: Option<String>,
    /// At most 500 characters for the page, about the newest.
    pub detail: String,
}

impl Rejected {
    fn from_row(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            reason: row.get("reason")?,
            sender: row.get("sender")?,
            verified: row.get("verified")?,
            count: row.get("count")?,
            first_at: row.get("first_at")?,
            last_at: row.get("last_at")?,
            relay: row.get("relay")?,
            event_id: row.get("event_id")?,
            detail: row.get("detail")?,
        })
    }
}

/// Appends to the audit log.
///
/// # Errors
/// [`StoreError`].
pub fn audit(tx: &Tx<'_>, entry: &Audit) -> Result<AuditId, StoreError> {
    entry.insert_into(tx)
}

/// Appends an act of the service itself.
///
/// # Errors
/// [`StoreError`].
pub fn by_service(
    tx: &Tx<'_>,
    action: &str,
    subject: &str,
    detail: Value,
    now: Unix,
) -> Result<AuditId, StoreError> {
    let (action, subject) = (action.to_owned(), subject.to_owned());
    let (actor, detail) = ("service".to_owned(), Json(detail));
    audit(tx, &Audit { at: now, actor, action, subject, detail, signed: None })
}

/// The newest `limit` entries, of one subject or of all.
///
/// # Errors
/// [`StoreError`].
pub fn audit_tail(
    read: &Read<'_>,
    subject: Option<&str>,
    limit: u32,
) -> Result<Vec<Kept<AuditId, Audit>>, StoreError> {
    let sql = match subject {
        Some(_) => "SELECT * FROM audit_log WHERE subject = ?1 ORDER BY id DESC LIMIT ?2",
        None => "SELECT * FROM audit_log WHERE ?1 IS NULL ORDER BY id DESC LIMIT ?2",
    };
    read.all(sql, &[&subject, &limit], Audit::kept)
}

/// Every entry about `action`, of one subject or of all, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_action(
    read: &Read<'_>,
    action: &str,
    subject: Option<&str>,
) -> Result<Vec<Kept<AuditId, Audit>>, StoreError> {
    let sql = match subject {
        Some(_) => "SELECT * FROM audit_log WHERE action = ?1 AND subject = ?2 ORDER BY id DESC",
        None => "SELECT * FROM audit_log WHERE action = ?1 AND ?2 IS NULL ORDER BY id DESC",
    };
    read.all(sql, &[&action, &subject], Audit::kept)
}

/// Adds refused requests to their row; of known senders, and of all others, the newest 500 rows stay.
///
/// # Errors
/// [`StoreError`].
pub fn reject(tx: &Tx<'_>, rejected: &Rejected) -> Result<(), StoreError> {
    let Rejected { reason, sender, verified, count, first_at, last_at, .. } = rejected;
    let Rejected { relay, event_id, detail, .. } = rejected;
    tx.run(
        "INSERT INTO rejected_rpc
             (reason, sender, verified, count, first_at, last_at, relay, event_id, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (reason, coalesce(sender, ''), verified) DO UPDATE SET
             count = count + excluded.count, first_at = min(first_at, excluded.first_at),
             last_at = max(last_at, excluded.last_at), relay = excluded.relay,
             event_id = excluded.event_id, detail = excluded.detail",
        &[reason, sender, verified, count, first_at, last_at, relay, event_id, detail],
    )?;
    Ok(())
}

/// At most `limit` rows of refused requests, those with the newest request first.
///
/// # Errors
/// [`StoreError`].
pub fn rejected(read: &Read<'_>, limit: u32) -> Result<Vec<Rejected>, StoreError> {
    let sql = "SELECT * FROM rejected_rpc ORDER BY last_at DESC, id DESC LIMIT ?1";
    read.all(sql, &[&limit], Rejected::from_row)
}

/// Uses a nonce of `scope` (a statement's author and type, or `http`): true the first time only.
/// It may be forgotten after `expires_at`, when what carries it is refused for its age.
///
/// # Errors
/// [`StoreError`].
pub fn use_nonce(
    tx: &Tx<'_>,
    scope: &str,
    nonce: &str,
    expires_at: Unix,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO used_nonces (scope, nonce, expires_at) VALUES (?1, ?2, ?3)
               ON CONFLICT DO NOTHING";
    Ok(tx.run(sql, &[&scope, &nonce, &expires_at])? == 1)
}

/// Forgets the nonces of `scope` that consist of `word`, a space and more, so that they count anew.
///
/// # Errors
/// [`StoreError`].
pub fn forget_of(tx: &Tx<'_>, scope: &str, word: &str) -> Result<u64, StoreError> {
    // what follows a space begins after it, and an exclamation mark comes next
    let sql = "DELETE FROM used_nonces WHERE scope = ?1 AND nonce >= ?2 || ' '
               AND nonce < ?2 || '!'";
    tx.run(sql, &[&scope, &word])
}

/// Forgets nonces whose carriers have expired.
///
/// # Errors
/// [`StoreError`].
pub fn forget_nonces(tx: &Tx<'_>, now: Unix) -> Result<u64, StoreError> {
    tx.run("DELETE FROM used_nonces WHERE expires_at < ?1", &[&now])
}
