//! Tokens, and the grants that they turn into.

use bitspire_shared::ids::{Digest, PubKey};
use bitspire_shared::time::Unix;

use super::super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{BunkerKeyId, BunkerTokenId, GrantId, PolicyId};

record! {
    /// A one-shot right to become a client of a key.
    pub struct Token in "tokens", id: BunkerTokenId {
        /// The key.
        pub key_id: BunkerKeyId,
        /// What its client may do.
        pub policy_id: PolicyId,
        /// Whom it was made for.
        pub client_name: String,
        /// SHA-256 of the secret's text.
        pub hash: Digest,
        /// When it was made.
        pub created_at: Unix,
        /// The last second at which it, and the grant made of it, hold.
        pub expires_at: Option<Unix>,
        /// When it was used.
        pub redeemed_at: Option<Unix>,
        /// Who used it.
        pub redeemed_by: Option<PubKey>,
        /// When it was made useless.
        pub revoked_at: Option<Unix>,
    }
}

record! {
    /// What one client may do with one key.
    pub struct Grant in "grants", id: GrantId {
        /// The key.
        pub key_id: BunkerKeyId,
        /// What the client may do.
        pub policy_id: PolicyId,
        /// The token that it was made of.
        pub token_id: BunkerTokenId,
        /// The client.
        pub client: PubKey,
        /// When the token was redeemed.
        pub created_at: Unix,
        /// The last second at which it holds.
        pub expires_at: Option<Unix>,
        /// When something was allowed last.
        pub last_used_at: Option<Unix>,
        /// When it was revoked.
        pub revoked_at: Option<Unix>,
    }
}

/// A grant and the name that its token was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The grant.
    pub grant: Kept<GrantId, Grant>,
    /// Its client's name.
    pub client_name: String,
}

/// Stores a token.
///
/// # Errors
/// [`StoreError`].
pub fn insert_token(tx: &Tx<'_>, token: &Token) -> Result<BunkerTokenId, StoreError> {
    token.insert_into(tx)
}

/// One token.
///
/// # Errors
/// [`StoreError`].
pub fn token(
    read: &Read<'_>,
    id: BunkerTokenId,
) -> Result<Option<Kept<BunkerTokenId, Token>>, StoreError> {
    read.one("SELECT * FROM tokens WHERE id = ?1", &[&id], Token::kept)
}

/// The token of this key whose secret has this hash, unless it was revoked.
///
/// # Errors
/// [`StoreError`].
pub fn by_hash(
    read: &Read<'_>,
    key: BunkerKeyId,
    hash: Digest,
) -> Result<Option<Kept<BunkerTokenId, Token>>, StoreError> {
    let sql = "SELECT * FROM tokens WHERE hash = ?1 AND key_id = ?2 AND revoked_at IS NULL";
    read.one(sql, &[&hash, &key], Token::kept)
}

/// The tokens of a key that are not revoked, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn tokens_of(
    read: &Read<'_>,
    key: BunkerKeyId,
) -> Result<Vec<Kept<BunkerTokenId, Token>>, StoreError> {
    let sql = "SELECT * FROM tokens WHERE key_id = ?1 AND revoked_at IS NULL ORDER BY id";
    read.all(sql, &[&key], Token::kept)
}

/// Marks a token as used.
///
/// # Errors
/// [`StoreError`]: not one row where it was used or revoked before.
pub fn redeem(tx: &Tx<'_>, id: BunkerTokenId, client: PubKey, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE tokens SET redeemed_at = ?3, redeemed_by = ?2
               WHERE id = ?1 AND redeemed_at IS NULL AND revoked_at IS NULL";
    tx.run_one("tokens", sql, &[&id, &client, &now])
}

/// Makes a token useless, and with it the grant that was made of it.
///
/// # Errors
/// [`StoreError`].
pub fn revoke_token(tx: &Tx<'_>, id: BunkerTokenId, now: Unix) -> Result<(), StoreError> {
    tx.run("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL", &[&id, &now])?;
    let sql = "UPDATE grants SET revoked_at = ?2 WHERE token_id = ?1 AND revoked_at IS NULL";
    tx.run(sql, &[&id, &now])?;
    Ok(())
}

/// Stores a grant.
///
/// # Errors
/// [`StoreError`]; unique on `client` where it has one for this key.
pub fn insert_grant(tx: &Tx<'_>, grant: &Grant) -> Result<GrantId, StoreError> {
    grant.insert_into(tx)
}

/// The grant of a client for a key.
///
/// # Errors
/// [`StoreError`].
pub fn grant(
    read: &Read<'_>,
    key: BunkerKeyId,
    client: PubKey,
) -> Result<Option<Kept<GrantId, Grant>>, StoreError> {
    let sql = "SELECT * FROM grants WHERE key_id = ?1 AND client = ?2";
    read.one(sql, &[&key, &client], Grant::kept)
}

/// The client of a grant, for logs.
///
/// # Errors
/// [`StoreError`].
pub fn client_of(read: &Read<'_>, id: GrantId) -> Result<Option<PubKey>, StoreError> {
    read.one("SELECT client FROM grants WHERE id = ?1", &[&id], |row| row.get("client"))
}

/// The grants of a key, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn grants_of(read: &Read<'_>, key: BunkerKeyId) -> Result<Vec<Named>, StoreError> {
    read.all(
        "SELECT grants.*, tokens.client_name FROM grants JOIN tokens ON tokens.id = token_id
         WHERE grants.key_id = ?1 ORDER BY grants.id",
        &[&key],
        |row| Ok(Named { grant: Grant::kept(row)?, client_name: row.get("client_name")? }),
    )
}

/// Every client of every key, revoked ones included: (key, client, its policy's name).
///
/// # Errors
/// [`StoreError`].
pub fn known_clients(read: &Read<'_>) -> Result<Vec<(PubKey, PubKey, String)>, StoreError> {
    read.all(
        "SELECT keys.pubkey, grants.client, policies.name FROM grants
         JOIN keys ON keys.id = key_id JOIN policies ON policies.id = policy_id",
        &[],
        |row| Ok((row.get("pubkey")?, row.get("client")?, row.get("name")?)),
    )
}

/// Notes that a grant was used.
///
/// # Errors
/// [`StoreError`].
pub fn touch(tx: &Tx<'_>, id: GrantId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE grants SET last_used_at = ?2 WHERE id = ?1";
    tx.run_one("grants", sql, &[&id, &now])
}

/// Lets a client that is not revoked go on until `until`; what it has is never shortened. False where
/// there is no such client.
///
/// # Errors
/// [`StoreError`].
pub fn extend_grant(tx: &Tx<'_>, id: GrantId, until: Unix) -> Result<bool, StoreError> {
    let sql = "UPDATE grants SET expires_at = max(expires_at, ?2)
               WHERE id = ?1 AND revoked_at IS NULL";
    Ok(tx.run(sql, &[&id, &until])? == 1)
}

/// Cuts a client off for good. False where there is no such grant.
///
/// # Errors
/// [`StoreError`].
pub fn revoke_grant(tx: &Tx<'_>, id: GrantId, now: Unix) -> Result<bool, StoreError> {
    let sql = "UPDATE grants SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
    Ok(tx.run(sql, &[&id, &now])? == 1)
}
