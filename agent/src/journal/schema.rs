//! The journal's file: settings, tables, versions.
//!
//! Promise: `entries` only grows, by one position at a time, and nothing in it is ever changed: the
//! schema refuses it. Every other table is a view that can be made again from `entries`.
//!
//! Failure policy: a file of a newer version, or of another program, is refused as it is.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::JournalError;

/// `bSpV`: marks the file as a journal of a bitSpire vault.
const APPLICATION_ID: i64 = 0x6253_7056;

/// Each step brings the schema from its position to the next one. Never edit one: add one.
const MIGRATIONS: [&str; 1] = [include_str!("schema_1.sql")];

/// The tables that are views of `entries`, each with the column that orders it.
pub(super) const VIEWS: [(&str, &str); 10] = [
    ("txns", "txid"),
    ("intents", "seq"),
    ("nonces", "nonce"),
    ("requests", "request_id"),
    ("changes", "change_id"),
    ("settings", "key"),
    ("bays", "bay"),
    ("cashbox", "denomination"),
    ("reject_bin", "denomination"),
    ("emptied", "box"),
];

pub(super) fn db(doing: &'static str) -> impl Fn(rusqlite::Error) -> JournalError {
    move |source| JournalError::Database { doing, source }
}

/// Opens the file for the one writer.
pub(super) fn open_writer(path: &Path) -> Result<Connection, JournalError> {
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
    migrate(&mut conn)?;
    defend(&conn)?;
    Ok(conn)
}

/// Opens the file beside a running vault, to read.
pub(super) fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(db("opening to read"))?;
    conn.busy_timeout(Duration::from_secs(2)).map_err(db("opening to read"))?;
    check_owner(&conn)?;
    defend(&conn)?;
    Ok(conn)
}

/// An empty set of tables in memory, to make the views again.
pub(super) fn open_scratch() -> Result<Connection, JournalError> {
    let mut conn = Connection::open_in_memory().map_err(db("opening in memory"))?;
    migrate(&mut conn)?;
    Ok(conn)
}

fn defend(conn: &Connection) -> Result<(), JournalError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)
        .map(drop)
        .map_err(db("setting up the database"))
}

fn number(conn: &Connection, pragma: &str) -> Result<i64, JournalError> {
    conn.pragma_query_value(None, pragma, |row| row.get(0)).map_err(db("reading the version"))
}

fn check_owner(conn: &Connection) -> Result<(), JournalError> {
    let found = number(conn, "application_id")?;
    let version = number(conn, "user_version")?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(db("reading the version"))?;
    let fresh = found == 0 && version == 0 && tables == 0;
    if !fresh && found != APPLICATION_ID {
        return Err(JournalError::NotAJournal { found });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(JournalError::NewerSchema { found: version, known });
    }
    Ok(())
}

fn migrate(conn: &mut Connection) -> Result<(), JournalError> {
    let version = usize::try_from(number(conn, "user_version")?).unwrap_or(usize::MAX);
    let doing = "bringing the schema up to date";
    for (done, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let tx =
            conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(db(doing))?;
        tx.execute_batch(step).map_err(db(doing))?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(db(doing))?;
        let reached = i64::try_from(done.saturating_add(1)).unwrap_or(i64::MAX);
        tx.pragma_update(None, "user_version", reached).map_err(db(doing))?;
        tx.commit().map_err(db(doing))?;
    }
    Ok(())
}
