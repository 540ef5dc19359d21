//! Proofs that the bunker refuses what has expired.
//!
//! Promise: at most one runs; what an attempt found is never changed, and the newest 400 stay.

use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::CanaryId;

/// Characters of the words in a row.
const BRIEF: usize = 500;

text_enum! {
    /// How an attempt stands.
    pub enum CanaryState {
        /// On its way.
        Running = "running",
        /// The expired grant was refused.
        Refused = "refused",
        /// The bunker signed for the expired grant.
        Signed = "signed",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

record! {
    /// An attempt.
    pub struct Canary in "canaries", id: CanaryId {
        /// When it began.
        pub started_at: Unix,
        /// When its grant ends; `None` before the grant has been used.
        pub ends_at: Option<Unix>,
        /// How it stands.
        pub state: CanaryState,
        /// What went wrong last, or the bunker's own words.
        pub detail: String,
        /// When it ended.
        pub ended_at: Option<Unix>,
    }
}

/// An attempt as it is kept.
pub type KeptCanary = Kept<CanaryId, Canary>;

/// Begins an attempt.
///
/// # Errors
/// [`StoreError`]; unique where one runs.
pub fn begin(tx: &Tx<'_>, now: Unix) -> Result<CanaryId, StoreError> {
    let (state, detail) = (CanaryState::Running, String::new());
    Canary { started_at: now, ends_at: None, state, detail, ended_at: None }.insert_into(tx)
}

/// Its grant was used, and ends then.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not on its way.
pub fn set_granted(tx: &Tx<'_>, id: CanaryId, ends_at: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE canaries SET ends_at = ?2, detail = '' WHERE id = ?1 AND state = 'running'
               AND ends_at IS NULL";
    tx.run_one("canaries", sql, &[&id, &ends_at])
}

/// What went wrong last.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not on its way.
pub fn set_trouble(tx: &Tx<'_>, id: CanaryId, words: &str) -> Result<(), StoreError> {
    let sql = "UPDATE canaries SET detail = ?2 WHERE id = ?1 AND state = 'running'";
    tx.run_one("canaries", sql, &[&id, &brief(words)])
}

/// Ends it.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not on its way.
pub fn end(
    tx: &Tx<'_>,
    id: CanaryId,
    state: CanaryState,
    words: &str,
    now: Unix,
) -> Result<(), StoreError> {
    let sql = "UPDATE canaries SET state = ?2, detail = ?3, ended_at = ?4
               WHERE id = ?1 AND state = 'running'";
    tx.run_one("canaries", sql, &[&id, &state, &brief(words), &now])
}

/// The newest `limit` attempts.
///
/// # Errors
/// [`StoreError`].
pub fn newest(read: &Read<'_>, limit: u32) -> Result<Vec<KeptCanary>, StoreError> {
    read.all("SELECT * FROM canaries ORDER BY id DESC LIMIT ?1", &[&limit], Canary::kept)
}

/// The newest one that found something out.
///
/// # Errors
/// [`StoreError`].
pub fn last_found(read: &Read<'_>) -> Result<Option<KeptCanary>, StoreError> {
    let sql = "SELECT * FROM canaries WHERE state IN ('refused', 'signed')
               ORDER BY id DESC LIMIT 1";
    read.one(sql, &[], Canary::kept)
}

/// The oldest one that is kept.
///
/// # Errors
/// [`StoreError`].
pub fn oldest(read: &Read<'_>) -> Result<Option<KeptCanary>, StoreError> {
    read.one("SELECT * FROM canaries ORDER BY id LIMIT 1", &[], Canary::kept)
}

fn brief(words: &str) -> String {
    words.chars().take(BRIEF).collect()
}
