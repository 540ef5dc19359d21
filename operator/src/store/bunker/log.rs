//! What was asked of the bunker, by clients and by administrators, and what came of it.

use bitspire_shared::ids::{Digest, EventId, PubKey};
use bitspire_shared::time::Unix;

use super::super::column::text_enum;
use super::super::row::record;
use super::{Read, StoreError, Tx};
use crate::ids::{BunkerKeyId, GrantId, RuleId};

text_enum! {
    /// What came of a request that a grant covers.
    pub enum RequestOutcome {
        /// It was allowed, and counted, before it was carried out.
        Allowed = "allowed",
        /// It could not be carried out after all.
        Failed = "failed",
    }
}

text_enum! {
    /// What came of an administrator's request.
    pub enum AdminOutcome {
        /// Carried out.
        Done = "done",
        /// Not possible; nothing was changed.
        Refused = "refused",
    }
}

record! {
    /// A request of a client.
    pub struct Request in "requests" {
        /// When.
        pub at: Unix,
        /// Which key was asked.
        pub key_id: BunkerKeyId,
        /// By which right.
        pub grant_id: GrantId,
        /// The method.
        pub method: String,
        /// The event's kind, for `sign_event`.
        pub kind: Option<u16>,
        /// SHA-256 of the decrypted request, its id included.
        pub digest: Digest,
        /// The rule that was counted.
        pub rule_id: Option<RuleId>,
        /// What came of it.
        pub outcome: RequestOutcome,
        /// Why it failed.
        pub detail: String,
    }
}

record! {
    /// A request that was refused.
    pub struct Refused in "refused" {
        /// When.
        pub at: Unix,
        /// Which key was asked.
        pub key_id: BunkerKeyId,
        /// Who asked.
        pub client: PubKey,
        /// The method.
        pub method: String,
        /// The event's kind, for `sign_event`.
        pub kind: Option<u16>,
        /// Why not, as the client was told.
        pub detail: String,
    }
}

record! {
    /// A request of an administrator.
    pub struct AdminEntry in "admin_log" {
        /// When.
        pub at: Unix,
        /// Who asked.
        pub admin: PubKey,
        /// The event that asked.
        pub event_id: EventId,
        /// The method.
        pub method: String,
        /// Key, policy, token or user; no secrets.
        pub subject: String,
        /// What came of it.
        pub outcome: AdminOutcome,
        /// Why it was refused.
        pub detail: String,
    }
}

/// Notes a request that a grant covers.
///
/// # Errors
/// [`StoreError`]; unique where the same request was allowed before.
pub fn note(tx: &Tx<'_>, request: &Request) -> Result<(), StoreError> {
    request.insert_into(tx)
}

/// The same request, if it was allowed before.
///
/// # Errors
/// [`StoreError`].
pub fn allowed(
    read: &Read<'_>,
    grant: GrantId,
    digest: Digest,
) -> Result<Option<Request>, StoreError> {
    let sql = "SELECT * FROM requests WHERE grant_id = ?1 AND digest = ?2 AND outcome = 'allowed'";
    read.one(sql, &[&grant, &digest], Request::from_row)
}

/// The newest `limit` requests that a grant covered.
///
/// # Errors
/// [`StoreError`].
pub fn requests(read: &Read<'_>, limit: u32) -> Result<Vec<Request>, StoreError> {
    read.all("SELECT * FROM requests ORDER BY id DESC LIMIT ?1", &[&limit], Request::from_row)
}

/// Notes a refusal; only the newest ten thousand stay.
///
/// # Errors
/// [`StoreError`].
pub fn refuse(tx: &Tx<'_>, refused: &Refused) -> Result<(), StoreError> {
    refused.insert_into(tx)
}

/// The newest `limit` refusals.
///
/// # Errors
/// [`StoreError`].
pub fn refused(read: &Read<'_>, limit: u32) -> Result<Vec<Refused>, StoreError> {
    read.all("SELECT * FROM refused ORDER BY id DESC LIMIT ?1", &[&limit], Refused::from_row)
}

/// Whether this administrator's event was not seen before.
///
/// # Errors
/// [`StoreError`].
pub fn is_new(read: &Read<'_>, event: EventId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM admin_log WHERE event_id = ?1";
    Ok(read.one(sql, &[&event], |_| Ok(()))?.is_none())
}

/// Notes an administrator's request.
///
/// # Errors
/// [`StoreError`]; unique on `event_id`.
pub fn admin_entry(tx: &Tx<'_>, entry: &AdminEntry) -> Result<(), StoreError> {
    entry.insert_into(tx)
}

/// The newest `limit` requests of administrators.
///
/// # Errors
/// [`StoreError`].
pub fn admin_entries(read: &Read<'_>, limit: u32) -> Result<Vec<AdminEntry>, StoreError> {
    read.all("SELECT * FROM admin_log ORDER BY id DESC LIMIT ?1", &[&limit], AdminEntry::from_row)
}
