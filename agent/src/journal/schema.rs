//! The journal's file: settings, tables, versions.
//!
//! Promise: `entries` only grows, by one position at a time, and nothing in it is ever changed: the
//! schema refuses it. Every other table is a view that can be made again from `entries`.
//!
//! Failure policy: a file of a newer version, or of another program, is refused as it is.

use std::path::Path;
use std::time::Duration;

use bitspire_shared::time::Unix;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::JournalError;
use super::migrate::{MIGRATIONS, check, migrate, version};

/// `bSpV`: marks the file as a journal of a bitSpire vault.
pub(super) const APPLICATION_ID: i64 = 0x6253_7056;

/// The tables that are views of `entries`, each with the column that orders it.
pub(super) const VIEWS: [(&str, &str); 14] = [
    ("txns", "txid"),
    ("intents", "seq"),
    ("nonces", "nonce"),
    ("requests", "request_id"),
    ("changes", "change_id"),
    ("settings", "key"),
    ("bays", "bay"),
    ("cashbox", "denomination"),
    ("reject_bin", "denomination"),
    ("unsorted", "denomination"),
    ("recycled", "bay, denomination"),
    ("emptied", "box"),
    ("archive", "id"),
    ("gone", "txid"),
];

pub(super) fn db(doing: &'static str) -> impl Fn(rusqlite::Error) -> JournalError {
    move |source| JournalError::Database { doing, source }
}

/// Opens the file for the one writer.
pub(super) fn open_writer(path: &Path, now: Unix) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(db("opening"))?;
    conn.busy_timeout(Duration::from_secs(2)).map_err(db("opening"))?;
    check_owner(&conn)?;
    let set = |name: &str, value: &str| {
        conn.pragma_update(None, name, value).map_err(db("setting up the database"))
    };
    set("journal_mode", "WAL")?;
    set("synchronous", "FULL")?;
    set("trusted_schema", "OFF")?;
    set("cell_size_check", "ON")?;
    // a checkpoint's own errors must be seen, so it is made by us: see Journal::checkpoint
    set("wal_autocheckpoint", "0")?;
    // REPLACE must meet the triggers that guard the entries
    set("recursive_triggers", "ON")?;
    migrate(&mut conn, MIGRATIONS, now)?;
    defend(&conn)?;
    // after a failed flush the system may hold pages for good that the disk never got: what the log
    // holds is written and flushed once more before anything is built on it
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(db("flushing what the last run left"))?;
    Ok(conn)
}

/// Opens the file to read: beside a running vault, of a stopped machine, or a copy.
pub(super) fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|conn| {
        conn.busy_timeout(Duration::from_secs(2))?;
        // the first look at a file with a log makes the log's index, where the folder allows it
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(conn)
    });
    let conn = match opened {
        Err(error) if cannot_write_beside(&error) && !has_log(path) => {
            // nobody writes a file without a log beside it that nobody could make: as it stands
            let uri = format!("file:{}?immutable=1", escaped(path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        opened => opened,
    };
    let conn = conn.map_err(db("opening to read"))?;
    check_owner(&conn)?;
    check(&conn, MIGRATIONS)?;
    defend(&conn)?;
    Ok(conn)
}

fn cannot_write_beside(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly))
}

/// Whether entries may lie in a write-ahead log beside the file.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// A path within an SQLite URI.
fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

fn defend(conn: &Connection) -> Result<(), JournalError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)
        .map(drop)
        .map_err(db("setting up the database"))
}

fn check_owner(conn: &Connection) -> Result<(), JournalError> {
    let reading = "reading the version";
    let found: i64 =
        conn.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(db(reading))?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(db(reading))?;
    let fresh = found == 0 && tables == 0 && version(conn)? == 0;
    if !fresh && found != APPLICATION_ID {
        return Err(JournalError::NotAJournal { found });
    }
    Ok(())
}
