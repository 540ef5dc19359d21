//! Brings a journal's file to the schema of this program.
//!
//! Promise: migrations are numbered SQL files that never change once released; the file records the
//! SHA-256 of each one that it applied, and a step up is one transaction. Forward only. A file of
//! the program that kept no such record yet is taken over only if its tables are to the letter what
//! its migrations make.
//!
//! Failure policy: a newer file, a changed migration or a record with gaps is a refused start with a
//! message that says what to do; nothing is written then.

use bitspire_shared::canonical::sha256;
use bitspire_shared::time::Unix;
use rusqlite::{Connection, TransactionBehavior, params};

use super::error::JournalError;
use super::schema::{APPLICATION_ID, db};
use super::views::number;

/// One numbered migration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// The number, from 1, without gaps.
    pub(super) number: u32,
    /// Its text.
    pub(super) sql: &'static str,
}

/// All of them, in order. Add at the end; never change one that a release contains.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, sql: include_str!("schema_1.sql") },
    Migration { number: 2, sql: include_str!("schema_2.sql") },
    Migration { number: 3, sql: include_str!("schema_3.sql") },
    Migration { number: 4, sql: include_str!("schema_4.sql") },
];

const RECORD: &str = "CREATE TABLE migrations (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    applied_at INTEGER NOT NULL
) STRICT";

const MIGRATING: &str = "bringing the schema up to date";

/// The file's version; 0 before the first migration.
pub(super) fn version(conn: &Connection) -> Result<u32, JournalError> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(db("reading the version"))
}

/// Applies what `migrations` has beyond the file's version.
pub(super) fn migrate(
    conn: &mut Connection,
    migrations: &[Migration],
    now: Unix,
) -> Result<(), JournalError> {
    check(conn, migrations)?;
    let version = version(conn)?;
    let recorded = has_record(conn)?;
    if recorded && migrations.iter().all(|m| m.number <= version) {
        return Ok(());
    }
    let tx =
        conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(db(MIGRATING))?;
    if !recorded {
        tx.execute_batch(RECORD).map_err(db(MIGRATING))?;
        for migration in migrations.iter().filter(|m| m.number <= version) {
            record(&tx, migration, now)?;
        }
    }
    for migration in migrations.iter().filter(|m| m.number > version) {
        tx.execute_batch(migration.sql).map_err(db(MIGRATING))?;
        record(&tx, migration, now)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(db(MIGRATING))?;
        tx.pragma_update(None, "user_version", migration.number).map_err(db(MIGRATING))?;
    }
    tx.commit().map_err(db(MIGRATING))
}

/// Whether the file is one that `migrations` made, up to its version.
pub(super) fn check(conn: &Connection, migrations: &[Migration]) -> Result<(), JournalError> {
    let version = version(conn)?;
    let known = migrations.last().map_or(0, |m| m.number);
    if version > known {
        return Err(JournalError::NewerSchema { found: version, known });
    }
    let applied: Vec<_> = migrations.iter().filter(|m| m.number <= version).copied().collect();
    if !has_record(conn)? {
        return check_unrecorded(conn, &applied);
    }
    let recorded = recorded(conn)?;
    if recorded.len() != applied.len() {
        return Err(JournalError::MigrationRecord { version, recorded: recorded.len() });
    }
    for (migration, (number, hash)) in applied.iter().zip(recorded) {
        let ours = sha256(migration.sql).to_string();
        if migration.number != number || ours != hash {
            return Err(JournalError::MigrationChanged { number, recorded: hash, ours });
        }
    }
    Ok(())
}

/// An empty set of tables in memory as the file `like` has them: to make the views again.
pub(super) fn scratch(like: &Connection) -> Result<Connection, JournalError> {
    up_to(version(like)?)
}

/// The same with the newest tables.
pub(super) fn scratch_newest() -> Result<Connection, JournalError> {
    up_to(u32::MAX)
}

fn up_to(version: u32) -> Result<Connection, JournalError> {
    let conn = Connection::open_in_memory().map_err(db("opening in memory"))?;
    for migration in MIGRATIONS.iter().filter(|m| m.number <= version) {
        conn.execute_batch(migration.sql).map_err(db(MIGRATING))?;
    }
    Ok(conn)
}

/// Every table, index and trigger with its text, but for the record of migrations.
pub(super) fn shape(conn: &Connection) -> Result<Vec<(String, String, String)>, JournalError> {
    let reading = "reading the schema";
    let mut statement = conn
        .prepare(
            "SELECT type, name, coalesce(sql, '') FROM sqlite_schema
             WHERE tbl_name <> 'migrations' ORDER BY type, name",
        )
        .map_err(db(reading))?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(db(reading))?;
    rows.collect::<Result<_, _>>().map_err(db(reading))
}

fn check_unrecorded(conn: &Connection, applied: &[Migration]) -> Result<(), JournalError> {
    let version = version(conn)?;
    // the first program that keeps the record came after version 1
    let old = version <= 1;
    let expected = scratch(conn)?;
    if applied.is_empty() || (old && shape(conn)? == shape(&expected)?) {
        return Ok(());
    }
    Err(JournalError::MigrationRecord { version, recorded: 0 })
}

fn record(tx: &Connection, migration: &Migration, now: Unix) -> Result<(), JournalError> {
    tx.execute(
        "INSERT INTO migrations VALUES (?1, ?2, ?3)",
        params![migration.number, sha256(migration.sql).to_string(), number(now.0)],
    )
    .map(drop)
    .map_err(db(MIGRATING))
}

fn has_record(conn: &Connection) -> Result<bool, JournalError> {
    has_table(conn, "migrations")
}

/// Whether the file has this table: one that nobody has brought up to date may lack it.
pub(super) fn has_table(conn: &Connection, name: &str) -> Result<bool, JournalError> {
    conn.prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")
        .and_then(|mut statement| statement.exists([name]))
        .map_err(db("reading the schema"))
}

fn recorded(conn: &Connection) -> Result<Vec<(u32, String)>, JournalError> {
    let reading = "reading the record of migrations";
    let mut statement = conn
        .prepare("SELECT number, sha256 FROM migrations ORDER BY number")
        .map_err(db(reading))?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(db(reading))?;
    rows.collect::<Result<_, _>>().map_err(db(reading))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration { number: 1, sql: "CREATE TABLE a (x INTEGER)" };
    const TWO: Migration = Migration { number: 2, sql: "CREATE TABLE b (x INTEGER)" };
    const OTHER: Migration = Migration { number: 1, sql: "CREATE TABLE a (y TEXT)" };
    const BROKEN: Migration =
        Migration { number: 2, sql: "CREATE TABLE c (x INTEGER); CREATE nonsense" };

    fn tables(conn: &Connection) -> Vec<String> {
        shape(conn).unwrap().into_iter().map(|(_, name, _)| name).collect()
    }

    /// Loss prevented: an old program writes entries into a schema that it does not understand.
    #[test]
    fn a_newer_journal_is_refused_with_what_to_do() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[ONE, TWO], Unix(1)).unwrap();
        let refused = migrate(&mut conn, &[ONE], Unix(2)).unwrap_err();
        assert!(matches!(refused, JournalError::NewerSchema { found: 2, known: 1 }), "{refused}");
        assert!(refused.to_string().contains("install the newer version"), "{refused}");
        migrate(&mut conn, &[ONE, TWO], Unix(3)).unwrap();
    }

    /// Loss prevented: two programs with one version number and two ideas of the columns.
    #[test]
    fn a_changed_step_of_the_schema_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[ONE], Unix(1)).unwrap();
        let refused = migrate(&mut conn, &[OTHER, TWO], Unix(2)).unwrap_err();
        assert!(matches!(refused, JournalError::MigrationChanged { number: 1, .. }), "{refused}");
        assert_eq!(tables(&conn), ["a"], "nothing was applied");
        conn.execute("DELETE FROM migrations", []).unwrap();
        let refused = migrate(&mut conn, &[ONE], Unix(3)).unwrap_err();
        assert!(matches!(refused, JournalError::MigrationRecord { version: 1, recorded: 0 }));
    }

    /// Loss prevented: a step that fails half-way leaves a schema that no version has.
    #[test]
    fn a_step_of_the_schema_is_taken_whole_or_not_at_all() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[ONE], Unix(1)).unwrap();
        assert!(migrate(&mut conn, &[ONE, BROKEN], Unix(1)).is_err());
        assert_eq!((tables(&conn), version(&conn).unwrap()), (vec!["a".to_owned()], 1));
        migrate(&mut conn, &[ONE, TWO], Unix(2)).unwrap();
        assert_eq!(tables(&conn), ["a", "b"]);
    }

    /// Loss prevented: a migration left out of the list, or in the wrong place, is never applied.
    #[test]
    fn ours_are_numbered_without_gaps() {
        let numbers: Vec<u32> = MIGRATIONS.iter().map(|m| m.number).collect();
        let expected: Vec<u32> = (1..).take(numbers.len()).collect();
        assert_eq!(numbers, expected);
    }
}
