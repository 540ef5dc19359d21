//! The bunker's keys, and its record of requests.

use std::path::Path;

use anyhow::Result;

use super::open;

/// The keys that the bunker of the world in `folder` holds: name, public key as hex, sealed.
///
/// # Errors
/// When they cannot be read.
pub fn sealed_keys(folder: &Path) -> Result<Vec<(String, String, String)>> {
    let bunker = open(&folder.join("bunker/bunker.db"))?;
    let mut statement = bunker.prepare("SELECT name, pubkey, sealed FROM keys")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many requests the bunker of the world in `folder` has recorded later than this second.
///
/// # Errors
/// When its record cannot be read.
pub fn bunker_requests_after(folder: &Path, unix: i64) -> Result<i64> {
    let bunker = open(&folder.join("bunker/bunker.db"))?;
    let sql = "SELECT count(*) FROM requests WHERE at > ?1";
    Ok(bunker.query_row(sql, [unix], |row| row.get(0))?)
}

/// How many requests for a signature or a cipher the bunker of the world in `folder` has recorded.
///
/// # Errors
/// When its record cannot be read.
pub fn bunker_requests(folder: &Path) -> Result<i64> {
    let bunker = open(&folder.join("bunker/bunker.db"))?;
    Ok(bunker.query_row("SELECT count(*) FROM requests", [], |row| row.get(0))?)
}
