//! Opens the database: lock, connection, settings.
//!
//! Promise: a connection that this module returns has WAL with `synchronous=FULL`, foreign keys,
//! DEFENSIVE mode and triggers that also see a REPLACE. One process at a time: an advisory lock on
//! `<database>.lock` is held as long as the writer lives.
//!
//! Failure policy: a setting that SQLite does not confirm is a refused start.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;

/// `PRAGMA application_id` of our databases: "bSPo".
const APPLICATION_ID: i64 = 0x6253_506f;
/// How long a statement waits for another program (a backup tool, a shell) that holds a lock.
const BUSY: Duration = Duration::from_secs(5);
/// Pages that the writer keeps in memory, in KiB: a batch of settlements touches some hundred, by keys
/// that are in no order, and those above them are the same each time.
const WRITER_CACHE_KIB: &str = "-32768";
/// Prepared statements kept by each connection; the daemon has about this many texts.
const STATEMENTS: usize = 256;

/// The right to write this database, held by one process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// `path` with `ending` appended to its file name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Takes the lock beside the database.
pub(super) fn lock(database: &Path) -> Result<Lock, OpenError> {
    let path = beside(database, ".lock");
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut file = private(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // who holds it is only for the message
            let _ = (&file).take(32).read_to_string(&mut holder);
            return Err(OpenError::Locked { path, holder: holder.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    writeln!(file, "pid {}", std::process::id()).map_err(io)?;
    Ok(Lock { _file: file })
}

/// Opens or creates a file that only our own user can read; SQLite gives its WAL the same mode.
fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Opens the one connection that writes; creates the file where there is none.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    private(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    let id: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let empty: bool =
        conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))?;
    if empty && id == 0 {
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    } else if id != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), got: id });
    }
    set_text(&conn, "journal_mode", "WAL", "wal")?;
    common(&conn)?;
    set(&conn, "synchronous", "FULL", 2)?;
    set(&conn, "cache_size", WRITER_CACHE_KIB, -32_768)?;
    // checkpoints cost a flush of the whole file: the writer makes them when it is idle
    set(&conn, "wal_autocheckpoint", "0", 0)?;
    set(&conn, "journal_size_limit", "67108864", 67_108_864)?;
    Ok(conn)
}

/// What a job may have to undo stays in memory; a batch of jobs would write it to a file, page by page.
/// Not while a schema is brought forward, which may sort whole tables.
pub(super) fn undo_in_memory(conn: &Connection) -> Result<(), OpenError> {
    set(conn, "temp_store", "MEMORY", 2)
}

/// Opens a connection that can only read.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    common(&conn)?;
    set(&conn, "query_only", "ON", 1)?;
    Ok(conn)
}

fn common(conn: &Connection) -> Result<(), OpenError> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    config(conn, DbConfig::SQLITE_DBCONFIG_DEFENSIVE, "defensive", true)?;
    config(conn, DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, "trusted_schema", false)?;
    config(conn, DbConfig::SQLITE_DBCONFIG_DQS_DML, "dqs_dml", false)?;
    config(conn, DbConfig::SQLITE_DBCONFIG_DQS_DDL, "dqs_ddl", false)?;
    // else a statement that a partial index could serve is prepared anew for each value that is bound
    config(conn, DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, "enable_qpsg", true)?;
    set(conn, "foreign_keys", "ON", 1)?;
    // without it INSERT OR REPLACE removes a row of an append-only table unseen by its trigger
    set(conn, "recursive_triggers", "ON", 1)?;
    set(conn, "cell_size_check", "ON", 1)?;
    Ok(())
}

fn config(
    conn: &Connection,
    which: DbConfig,
    setting: &'static str,
    on: bool,
) -> Result<(), OpenError> {
    if conn.set_db_config(which, on)? == on {
        return Ok(());
    }
    let expected = if on { "on" } else { "off" };
    Err(OpenError::Setting { setting, expected, got: "the opposite".into() })
}

fn set(
    conn: &Connection,
    setting: &'static str,
    value: &'static str,
    expected: i64,
) -> Result<(), OpenError> {
    apply(conn, setting, value)?;
    let got: i64 = conn.query_row(&format!("PRAGMA {setting}"), [], |row| row.get(0))?;
    if got == expected {
        return Ok(());
    }
    Err(OpenError::Setting { setting, expected: value, got: got.to_string() })
}

fn set_text(
    conn: &Connection,
    setting: &'static str,
    value: &'static str,
    expected: &'static str,
) -> Result<(), OpenError> {
    apply(conn, setting, value)?;
    let got: String = conn.query_row(&format!("PRAGMA {setting}"), [], |row| row.get(0))?;
    if got == expected { Ok(()) } else { Err(OpenError::Setting { setting, expected, got }) }
}

/// Runs `PRAGMA setting = value`, whether or not it answers with a row.
fn apply(conn: &Connection, setting: &str, value: &str) -> Result<(), OpenError> {
    let mut statement = conn.prepare(&format!("PRAGMA {setting} = {value}"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
