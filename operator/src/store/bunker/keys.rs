//! Administrators, and the keys that the bunker holds.

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;

use super::super::row::{Kept, Row, record};
use super::{Read, StoreError, Tx};
use crate::ids::BunkerKeyId;

record! {
    /// A key. `Debug` shows the envelope, which is worthless without the machine secret.
    pub struct Key in "keys", id: BunkerKeyId {
        /// Grants hang on this name.
        pub name: String,
        /// Its public key.
        pub pubkey: PubKey,
        /// The envelope with the private key.
        pub sealed: String,
        /// When it came here.
        pub created_at: Unix,
    }
}

/// A key and how many hang on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The key.
    pub key: Kept<BunkerKeyId, Key>,
    /// Clients, revoked ones included.
    pub users: u64,
    /// Tokens that are not revoked.
    pub tokens: u64,
}

/// Stores a key.
///
/// # Errors
/// [`StoreError`]; unique on `name` and `pubkey`.
pub fn insert(tx: &Tx<'_>, key: &Key) -> Result<BunkerKeyId, StoreError> {
    key.insert_into(tx)
}

/// Replaces a key's envelope by one under another machine secret.
///
/// # Errors
/// [`StoreError`]; also where the secret is the same.
pub fn reseal(tx: &Tx<'_>, id: BunkerKeyId, sealed: &str) -> Result<(), StoreError> {
    tx.run_one("keys", "UPDATE keys SET sealed = ?2 WHERE id = ?1", &[&id, &sealed.to_owned()])
}

/// All keys.
///
/// # Errors
/// [`StoreError`].
pub fn all(read: &Read<'_>) -> Result<Vec<Kept<BunkerKeyId, Key>>, StoreError> {
    read.all("SELECT * FROM keys ORDER BY id", &[], Key::kept)
}

const COUNTED: &str = "SELECT *,
    (SELECT count(*) FROM grants WHERE key_id = keys.id) AS users,
    (SELECT count(*) FROM tokens WHERE key_id = keys.id AND revoked_at IS NULL) AS tokens
    FROM keys";

fn read_counted(row: &Row<'_>) -> Result<Counted, StoreError> {
    let key = Key::kept(row)?;
    Ok(Counted { key, users: row.get("users")?, tokens: row.get("tokens")? })
}

/// The key called `name`, and how many hang on it.
///
/// # Errors
/// [`StoreError`].
pub fn counted(read: &Read<'_>, name: &str) -> Result<Option<Counted>, StoreError> {
    read.one(&format!("{COUNTED} WHERE name = ?1"), &[&name], read_counted)
}

/// Up to `most` keys after the first `skip`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn page(read: &Read<'_>, skip: u32, most: u32) -> Result<Vec<Counted>, StoreError> {
    let sql = format!("{COUNTED} ORDER BY id LIMIT ?2 OFFSET ?1");
    read.all(&sql, &[&skip, &most], read_counted)
}

/// The key called `name`.
///
/// # Errors
/// [`StoreError`].
pub fn by_name(read: &Read<'_>, name: &str) -> Result<Option<Kept<BunkerKeyId, Key>>, StoreError> {
    read.one("SELECT * FROM keys WHERE name = ?1", &[&name], Key::kept)
}

/// The name of a key, for logs.
///
/// # Errors
/// [`StoreError`].
pub fn name_of(read: &Read<'_>, id: BunkerKeyId) -> Result<Option<String>, StoreError> {
    read.one("SELECT name FROM keys WHERE id = ?1", &[&id], |row| row.get("name"))
}

/// Whether this key is here, under any name.
///
/// # Errors
/// [`StoreError`].
pub fn is_held(read: &Read<'_>, pubkey: PubKey) -> Result<bool, StoreError> {
    let found = read.one("SELECT 1 FROM keys WHERE pubkey = ?1", &[&pubkey], |_| Ok(()))?;
    Ok(found.is_some())
}

/// Makes `admins` the administrators, if any are named; who they are now.
///
/// # Errors
/// [`StoreError`].
pub fn set_admins(tx: &Tx<'_>, admins: &[PubKey], now: Unix) -> Result<Vec<PubKey>, StoreError> {
    if !admins.is_empty() {
        tx.run("DELETE FROM admins", &[])?;
    }
    for admin in admins {
        let sql = "INSERT INTO admins (pubkey, added_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        tx.run(sql, &[admin, &now])?;
    }
    tx.all("SELECT pubkey FROM admins ORDER BY pubkey", &[], |row| row.get("pubkey"))
}
