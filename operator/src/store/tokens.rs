//! Tokens for the API: what programs show instead of signing each request.
//!
//! Promise: a token itself is never stored, only its SHA-256; a revoked or expired one is not
//! found.

use bitspire_shared::ids::Digest;
use bitspire_shared::time::Unix;

use super::operators::Role;
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{OperatorId, TokenId};

record! {
    /// A token.
    pub struct ApiToken in "api_tokens", id: TokenId {
        /// What it is for.
        pub name: String,
        /// SHA-256 of the token.
        pub hash: Digest,
        /// Whose machines it may touch; `None` for [`Role::Super`].
        pub operator_id: Option<OperatorId>,
        /// What it may do.
        pub role: Role,
        /// When it was made.
        pub created_at: Unix,
        /// Until when it holds.
        pub expires_at: Option<Unix>,
        /// Since when it does not hold any more.
        pub revoked_at: Option<Unix>,
    }
}

/// Adds a token.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: &Tx<'_>, token: &ApiToken) -> Result<TokenId, StoreError> {
    token.insert_into(tx)
}

/// The token with this hash, if it holds at `now`.
///
/// # Errors
/// [`StoreError`].
pub fn by_hash(
    read: &Read<'_>,
    hash: Digest,
    now: Unix,
) -> Result<Option<Kept<TokenId, ApiToken>>, StoreError> {
    read.one(
        "SELECT * FROM api_tokens WHERE hash = ?1 AND revoked_at IS NULL
            AND (expires_at IS NULL OR expires_at > ?2)",
        &[&hash, &now],
        ApiToken::kept,
    )
}

/// The tokens of one operator, or all.
///
/// # Errors
/// [`StoreError`].
pub fn list(
    read: &Read<'_>,
    operator: Option<OperatorId>,
) -> Result<Vec<Kept<TokenId, ApiToken>>, StoreError> {
    let sql = "SELECT * FROM api_tokens WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY id";
    read.all(sql, &[&operator], ApiToken::kept)
}

/// Ends a token.
///
/// # Errors
/// [`StoreError::NotOneRow`] where there is no such token, or it has ended already.
pub fn revoke(tx: &Tx<'_>, id: TokenId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE api_tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    tx.run_one("api_tokens", sql, &[&id, &now])
}
