//! Brings a database to the schema of this program.
//!
//! Promise: migrations are numbered SQL files that never change once released; the database records
//! the SHA-256 of each one that it applied, and an upgrade is one transaction a migration. Forward
//! only. A table may be made anew while others refer to it: rows are held against what they refer to
//! before each commit, not one by one.
//!
//! Failure policy: a newer database, a changed migration or a record with gaps is a refused start
//! with a message that says what to do; nothing is written then.

use bitspire_shared::canonical::sha256;
use bitspire_shared::time::Unix;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::error::OpenError;

/// One numbered migration.
pub(super) struct Migration {
    /// The number, from 1, without gaps.
    pub(super) number: u32,
    /// What the file is called.
    pub(super) name: &'static str,
    /// Its text.
    pub(super) sql: &'static str,
}

macro_rules! migration {
    ($number:literal, $name:literal) => {
        Migration {
            number: $number,
            name: $name,
            sql: include_str!(concat!("migrations/", $name, ".sql")),
        }
    };
}

/// All of them, in order. Add at the end; never change one that a release contains.
pub(super) const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_fleet"),
    migration!(2, "0002_ledger"),
    migration!(3, "0003_trade"),
    migration!(4, "0004_publish"),
    migration!(5, "0005_tokens"),
    migration!(6, "0006_rpc"),
    migration!(7, "0007_loads"),
    migration!(8, "0008_verdicts"),
    migration!(9, "0009_service"),
    migration!(10, "0010_journal_heads"),
    migration!(11, "0011_suspect"),
    migration!(12, "0012_distribution"),
    migration!(13, "0013_rejected"),
    migration!(14, "0014_rollouts"),
    migration!(15, "0015_openings"),
    migration!(16, "0016_webhook"),
    migration!(17, "0017_canary"),
    migration!(18, "0018_event_ids"),
    migration!(19, "0019_webhook_state"),
    migration!(20, "0020_providers"),
    migration!(21, "0021_reads"),
    migration!(22, "0022_outbox_due"),
    migration!(23, "0023_sums"),
    migration!(24, "0024_recycled"),
    migration!(25, "0025_unrecorded"),
    migration!(26, "0026_rows"),
];

const RECORD: &str = "CREATE TABLE IF NOT EXISTS migrations (
    number INTEGER PRIMARY KEY CHECK (number > 0),
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    applied_at INTEGER NOT NULL
) STRICT";

/// Applies what `migrations` has beyond the database's version.
pub(super) fn migrate(
    conn: &mut Connection,
    migrations: &[Migration],
    now: Unix,
) -> Result<(), OpenError> {
    let version: u32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = migrations.last().map_or(0, |m| m.number);
    if version > known {
        return Err(OpenError::Newer { found: version, known });
    }
    conn.execute(RECORD, [])?;
    let recorded = recorded(conn)?;
    let applied = migrations.iter().take_while(|m| m.number <= version);
    if recorded.len() != applied.clone().count() {
        return Err(OpenError::MigrationRecord { version, recorded: recorded.len() });
    }
    for (migration, (number, hash)) in applied.zip(recorded) {
        let ours = sha256(migration.sql).to_string();
        if migration.number != number || ours != hash {
            return Err(OpenError::MigrationChanged { number, recorded: hash, ours });
        }
    }
    if version == known {
        return Ok(());
    }
    let enforced: bool = conn.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
    // without effect inside a transaction
    conn.pragma_update(None, "foreign_keys", false)?;
    let applied = apply(conn, migrations.iter().filter(|m| m.number > version), now);
    conn.pragma_update(None, "foreign_keys", enforced)?;
    applied
}

fn apply<'a>(
    conn: &mut Connection,
    migrations: impl Iterator<Item = &'a Migration>,
    now: Unix,
) -> Result<(), OpenError> {
    for migration in migrations {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(migration.sql)?;
        let astray: Option<String> = tx
            .query_row("SELECT \"table\" FROM pragma_foreign_key_check", [], |row| row.get(0))
            .optional()?;
        if let Some(table) = astray {
            return Err(OpenError::MigrationAstray { number: migration.number, table });
        }
        tx.execute(
            "INSERT INTO migrations (number, name, sha256, applied_at) VALUES (?1, ?2, ?3, ?4)",
            params![
                migration.number,
                migration.name,
                sha256(migration.sql).to_string(),
                i64::try_from(now.0).unwrap_or(i64::MAX)
            ],
        )?;
        tx.pragma_update(None, "user_version", migration.number)?;
        tx.commit()?;
    }
    Ok(())
}

fn recorded(conn: &Connection) -> Result<Vec<(u32, String)>, rusqlite::Error> {
    let mut statement = conn.prepare("SELECT number, sha256 FROM migrations ORDER BY number")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration { number: 1, name: "one", sql: "CREATE TABLE a (x INTEGER)" };
    const TWO: Migration = Migration { number: 2, name: "two", sql: "CREATE TABLE b (x INTEGER)" };
    const OTHER: Migration = Migration { number: 1, name: "one", sql: "CREATE TABLE a (y TEXT)" };
    const BROKEN: Migration =
        Migration { number: 2, name: "two", sql: "CREATE TABLE c (x INTEGER); CREATE nonsense" };

    fn tables(conn: &Connection) -> Vec<String> {
        let mut statement =
            conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Loss prevented: an old program writes rows into a schema that it does not understand.
    #[test]
    fn a_newer_database_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[ONE, TWO], Unix(1)).unwrap();
        let refused = migrate(&mut conn, &[ONE], Unix(2)).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found: 2, known: 1 }), "{refused}");
        assert!(refused.to_string().contains("install the newer program"), "{refused}");
        migrate(&mut conn, &[ONE, TWO], Unix(3)).unwrap();
    }

    /// Loss prevented: two programs with one version number and two ideas of the columns.
    #[test]
    fn a_changed_migration_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &[ONE], Unix(1)).unwrap();
        let refused = migrate(&mut conn, &[OTHER, TWO], Unix(2)).unwrap_err();
        assert!(matches!(refused, OpenError::MigrationChanged { number: 1, .. }), "{refused}");
        assert_eq!(tables(&conn), ["a", "migrations"], "nothing was applied");
        conn.execute("DELETE FROM migrations", []).unwrap();
        let refused = migrate(&mut conn, &[ONE], Unix(3)).unwrap_err();
        assert!(matches!(refused, OpenError::MigrationRecord { version: 1, recorded: 0 }));
    }

    /// Loss prevented: a migration that fails half-way leaves a schema that no version has.
    #[test]
    fn a_migration_applies_whole_or_not_at_all() {
        let mut conn = Connection::open_in_memory().unwrap();
        assert!(migrate(&mut conn, &[ONE, BROKEN], Unix(1)).is_err());
        assert_eq!(tables(&conn), ["a", "migrations"]);
        migrate(&mut conn, &[ONE, TWO], Unix(2)).unwrap();
        assert_eq!(tables(&conn), ["a", "b", "migrations"]);
    }

    /// Loss prevented: a migration left out of the list, or in the wrong place, is never applied.
    #[test]
    fn ours_are_numbered_without_gaps() {
        for (expected, migration) in (1u32..).zip(MIGRATIONS) {
            assert_eq!(migration.number, expected);
            assert!(migration.name.starts_with(&format!("{expected:04}_")), "{}", migration.name);
        }
    }

    /// Loss prevented: rules and legs that are lost, or free of their rules, when their tables are made
    /// anew for liquidity providers.
    #[test]
    fn rules_and_legs_outlive_their_new_tables() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        migrate(&mut conn, &MIGRATIONS[..19], Unix(1)).unwrap();
        let hash = "ab".repeat(32);
        conn.execute_batch(&format!(
            "INSERT INTO operators (id, name, created_at) VALUES (1, 'Test', 1);
             INSERT INTO machines (id, operator_id, name, place, currency, wallet_id, created_at)
             VALUES (1, 1, 'One', '', 'EUR', 'till', 1);
             INSERT INTO settlements (id, payment_hash, machine_id, wallet_id, direction, status,
                 wire_sats, extra, principal_sats, platform_fee_sats, operator_fee_sats, owed_sats,
                 short, settled_at, recorded_at, distribution)
             VALUES (1, '{hash}', 1, 'till', 'cash_out', 'accepted', 105, '{{}}', 100, 2, 3, 0, 0, 1,
                 1, 'processed');
             INSERT INTO rules (id, scope, operator_id, shares, signed, actor, created_at, in_force_at)
             VALUES (7, 'operator', 1, '[]', '{{}}', 'cli', 1, 2);
             INSERT INTO legs (id, settlement_id, position, round, idempotency_key, kind, amount_sats,
                 rule_id, destination, state, payment_hash, planned_at, ended_at)
             VALUES (9, 1, 1, 1, 'leg:1:1:1', 'operator_split', 3, 7, '{{}}', 'paid', '{hash}', 1, 2);"
        ))
        .unwrap();
        migrate(&mut conn, MIGRATIONS, Unix(2)).unwrap();
        let found: (i64, i64, String, Option<i64>) = conn
            .query_row(
                "SELECT l.id, r.id, l.state, l.lp_id FROM legs l JOIN rules r ON r.id = l.rule_id",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
            )
            .unwrap();
        assert_eq!(found, (9, 7, "paid".into(), None));
        for refused in [
            "UPDATE legs SET state = 'bound'",
            "DELETE FROM legs",
            "UPDATE rules SET shares = '[1]'",
            "INSERT INTO legs (settlement_id, position, round, idempotency_key, kind, amount_sats,
                 rule_id, destination, state, planned_at)
             VALUES (1, 2, 1, 'x', 'operator_split', 1, 7, '{}', 'planned', 1)",
        ] {
            assert!(conn.execute_batch(refused).is_err(), "{refused}");
        }
        // numbers are never used again
        let next = "INSERT INTO rules (scope, operator_id, shares, signed, actor, created_at,
                        in_force_at) VALUES ('operator', 1, '[]', '{}', 'cli', 1, 2)";
        conn.execute(next, []).unwrap();
        assert_eq!(conn.last_insert_rowid(), 8);
    }

    /// Loss prevented: a row whose machine or quote is gone, after its table was made anew.
    #[test]
    fn rows_that_refer_to_nothing_stop_a_migration() {
        const PARENT: Migration = Migration {
            number: 1,
            name: "one",
            sql: "CREATE TABLE a (x INTEGER PRIMARY KEY); INSERT INTO a VALUES (1);
                  CREATE TABLE b (x INTEGER REFERENCES a (x)); INSERT INTO b VALUES (1);",
        };
        const LOST: Migration = Migration {
            number: 2,
            name: "two",
            sql: "DROP TABLE a; CREATE TABLE a (x INTEGER PRIMARY KEY)",
        };
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        migrate(&mut conn, &[PARENT], Unix(1)).unwrap();
        let refused = migrate(&mut conn, &[PARENT, LOST], Unix(2)).unwrap_err();
        assert!(
            matches!(&refused, OpenError::MigrationAstray { number: 2, table } if table == "b")
        );
        let kept: i64 = conn.query_row("SELECT x FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 1);
        assert!(conn.execute("INSERT INTO b VALUES (2)", []).is_err(), "rows are checked again");
    }

    /// Every row of a table, as text, in the order of its columns.
    fn rows(conn: &Connection, table: &str) -> Vec<Vec<String>> {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            (0..columns).map(|n| Ok(format!("{:?}", row.get_ref(n)?))).collect()
        };
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// What watches over a table: its indexes and triggers, with their texts.
    fn guards(conn: &Connection, table: &str) -> Vec<(String, Option<String>)> {
        let sql = "SELECT name, sql FROM sqlite_schema
                   WHERE tbl_name = ?1 AND type <> 'table' AND sql IS NOT NULL ORDER BY 1";
        let mut statement = conn.prepare(sql).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        statement.query_map([table], row).unwrap().map(Result::unwrap).collect()
    }

    /// Loss prevented: a quote, an invoice, a withdraw or an answer that is lost, changed, or free of
    /// its rules, when their tables are made anew.
    #[test]
    fn sales_outlive_their_new_tables() {
        const ANEW: [&str; 4] = ["requests", "quotes", "invoices", "withdraws"];
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        migrate(&mut conn, &MIGRATIONS[..24], Unix(1)).unwrap();
        let [id, hash, sig] = [16, 32, 64].map(|bytes| "ab".repeat(bytes));
        let other = "cd".repeat(16);
        conn.execute_batch(&format!(
            "INSERT INTO operators (id, name, created_at) VALUES (1, 'Test', 1);
             INSERT INTO machines (id, operator_id, name, place, currency, wallet_id, created_at)
             VALUES (1, 1, 'One', '', 'EUR', 'till', 1);
             INSERT INTO requests (machine_id, request_id, rpc_name, body_sha256, event, received_at,
                 reply, replied_at)
             VALUES (1, '{id}', 'get_quote', '{hash}', '{{}}', 5, '{{}}', 6),
                 (1, '{other}', 'create_invoice', '{hash}', '{{}}', 4, NULL, NULL);
             INSERT INTO quotes VALUES ('{id}', 1, '{id}', '{id}', '{hash}', 'cash_out', 2000, 'EUR', 7,
                 '[]', 1, 2, '{hash}', 100, 5, 105, 60, '{sig}', 5, 65, 0, NULL);
             INSERT INTO invoices VALUES ('{id}', 1, '{id}', '{hash}', 'lnbc', 105, '{{}}', '{hash}',
                 '{{}}', 5, 65, 'settled');
             INSERT INTO withdraws VALUES ('{id}', 1, '{id}', 'cash_in', NULL, '{hash}', 95, 'paid', 5,
                 65, 2000, 'EUR', 100, 2, 3, 9, '{hash}', '{sig}', '{sig}', '{{}}');
             INSERT INTO withdraw_lots VALUES ('{id}', '{id}', '[]');"
        ))
        .unwrap();
        let seen = |conn: &Connection| ANEW.map(|table| (rows(conn, table), guards(conn, table)));
        let before = seen(&conn);
        migrate(&mut conn, MIGRATIONS, Unix(2)).unwrap();
        assert_eq!(seen(&conn), before);
        for refused in [
            "UPDATE requests SET body_sha256 = 'x' WHERE reply IS NOT NULL".to_owned(),
            "UPDATE quotes SET wire_sats = 1".to_owned(),
            "UPDATE invoices SET state = 'expired'".to_owned(),
            "UPDATE withdraws SET state = 'offered'".to_owned(),
            "DELETE FROM quotes".to_owned(),
            "DELETE FROM withdraws".to_owned(),
            "INSERT INTO requests SELECT * FROM requests".to_owned(),
            "INSERT INTO quotes SELECT * FROM quotes".to_owned(),
            "INSERT INTO invoices SELECT * FROM invoices".to_owned(),
            format!(
                "INSERT INTO invoices VALUES ('{other}', 1, '{other}', '{}', 'lnbc', 105, '{{}}',
                     '{hash}', '{{}}', 5, 65, 'open')",
                "cd".repeat(32)
            ),
        ] {
            assert!(conn.execute_batch(&refused).is_err(), "{refused}");
        }
    }
}
