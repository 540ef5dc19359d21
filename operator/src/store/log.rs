//! What must be shown later: the audit log, refused requests, and what was used once.

use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::Json;
use super::row::{Kept, record};
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

record! {
    /// A request that the gate refused after its signature had verified, or a count of others.
    pub struct Rejected in "rejected_rpc" {
        /// When.
        pub at: Unix,
        /// The refusal's code.
        pub reason: String,
        /// The relay that it came from.
        pub relay: Option<String>,
        /// Who sent it, as hex.
        pub sender: Option<String>,
        /// Its event.
        pub event_id: Option<String>,
        /// At most 500 characters for the page.
        pub detail: String,
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
    read.all(
        "SELECT * FROM audit_log WHERE ?1 IS NULL OR subject = ?1 ORDER BY id DESC LIMIT ?2",
        &[&subject, &limit],
        Audit::kept,
    )
}

/// Keeps a refused request for the page; only the newest thousand stay.
///
/// # Errors
/// [`StoreError`].
pub fn reject(tx: &Tx<'_>, rejected: &Rejected) -> Result<(), StoreError> {
    rejected.insert_into(tx)
}

/// The newest `limit` refused requests.
///
/// # Errors
/// [`StoreError`].
pub fn rejected(read: &Read<'_>, limit: u32) -> Result<Vec<Rejected>, StoreError> {
    let sql = "SELECT * FROM rejected_rpc ORDER BY id DESC LIMIT ?1";
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

/// Forgets nonces whose carriers have expired.
///
/// # Errors
/// [`StoreError`].
pub fn forget_nonces(tx: &Tx<'_>, now: Unix) -> Result<u64, StoreError> {
    tx.run("DELETE FROM used_nonces WHERE expires_at < ?1", &[&now])
}
