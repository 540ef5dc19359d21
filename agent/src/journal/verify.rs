//! Whether the journal holds: on opening its end and its open transactions, on demand all of it.

use std::io::BufRead;
use std::path::Path;

use bitspire_shared::ids::{Digest, JournalHead, JournalSeq};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;

use super::Head;
use super::archive::End;
use super::entry::{Body, StoredEntry};
use super::error::JournalError;
use super::read::{self, broken, entries, parse, stored_txns};
use super::reader::Reader;
use super::schema::{VIEWS, db};
use super::views::sql;
use super::walk::Walk;
use super::{lines, migrate};

/// Entries at the end of the chain that are checked on opening.
const TAIL: u64 = 64;

/// What a full check found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The end of the chain.
    pub head: Head,
    /// Transactions that are not closed.
    pub open: usize,
}

/// Checks the whole journal at `path`: see [`Reader::verify`].
///
/// # Errors
/// As for [`Reader::verify`].
pub fn verify_file(path: &Path) -> Result<Verified, JournalError> {
    Reader::open(path).map_err(|e| damaged(e, JournalSeq(0)))?.verify()
}

/// Checks an export, as [`Reader::export`] writes it: every link of the chain up to the end that its
/// first line names, and the journal's rules. It needs nothing but the lines. `entry` gets each of
/// them as soon as it holds.
///
/// # Errors
/// [`JournalError::Broken`] with the entry at which it shows.
pub fn verify_export(
    mut lines: impl BufRead,
    mut entry: impl FnMut(&StoredEntry),
) -> Result<Verified, JournalError> {
    let mut text = String::new();
    let mut next = |after: JournalSeq| {
        text.clear();
        let read = lines.read_line(&mut text);
        let unreadable = |e| broken(JournalSeq(after.0.saturating_add(1)), format!("no line: {e}"));
        read.map_err(unreadable).map(|length| (length > 0).then(|| text.clone()))
    };
    let first = next(JournalSeq(0))?.unwrap_or_default();
    let head = lines::read_first(&first)?;
    let mut walk = Walk::from_nothing()?;
    while let Some(text) = next(walk.head().seq)? {
        let next = StoredEntry::from_line(&text, walk.head().seq)?;
        walk.take(&next)?;
        entry(&next);
    }
    walk.ends_at(head)?;
    let open = walk.open_txns()?.len();
    Ok(Verified { head, open })
}

/// As [`Reader::verify`] says, on an open file.
pub(super) fn verify_all(reader: &Reader, conn: &Connection) -> Result<Verified, JournalError> {
    let mut walk = Walk::from_nothing()?;
    let result = check_all(reader, conn, &mut walk);
    result.map_err(|e| damaged(e, walk.head().seq))
}

fn check_all(
    reader: &Reader,
    conn: &Connection,
    walk: &mut Walk,
) -> Result<Verified, JournalError> {
    // an index that is not what its table says gives wrong answers: not only a quick check
    let check: String = conn
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(db("checking the file"))?;
    if check != "ok" {
        return Err(broken(JournalSeq(0), format!("the file is damaged: {check}")));
    }
    let (found, expected) = (migrate::shape(conn)?, migrate::shape(&migrate::scratch(conn)?)?);
    let other = found.iter().find(|thing| !expected.contains(thing));
    if let Some((kind, name, _)) =
        other.or_else(|| expected.iter().find(|thing| !found.contains(thing)))
    {
        let what = format!("the file's {kind} {name} is not what this version makes");
        return Err(broken(JournalSeq(0), what));
    }
    let (head, epoch) = read::head(conn)?;
    // the first entry stays in the journal, whatever moves to the archive
    let genesis = entries(conn, "WHERE e.seq = 1", [])?.pop();
    reader.each(JournalSeq(1), JournalSeq(u64::MAX), |entry| {
        if entry.seq == JournalSeq(1) && genesis.as_ref() != Some(&entry) {
            return Err(broken(entry.seq, "the archive's first entry is not the journal's"));
        }
        walk.take(&entry)
    })?;
    let first = End::of(conn)?.upto.0.saturating_add(1);
    let left: i64 = conn
        .query_row(
            "SELECT count(*) FROM entries WHERE seq > 1 AND seq < ?1",
            [sql(JournalSeq(first))],
            |row| row.get(0),
        )
        .map_err(db("checking the file"))?;
    if left != 0 {
        return Err(broken(JournalSeq(first), "entries that lie in the archive are still here"));
    }
    walk.ends_at(head)?;
    if walk.epoch() != epoch {
        let what = format!("the head says run {epoch}, the entries {}", walk.epoch());
        return Err(broken(head.seq, what));
    }
    for (table, key) in VIEWS {
        if !migrate::has_table(conn, table)? {
            continue;
        }
        let columns = columns(conn, table)?;
        if dump(conn, table, key, &columns)? != dump(walk.views(), table, key, &columns)? {
            return Err(broken(head.seq, format!("the view {table} is not what the entries say")));
        }
    }
    let open = stored_txns(conn, "WHERE stage < 2", [])?.len();
    Ok(Verified { head, open })
}

/// What SQLite says of a damaged file, as what it means.
pub(super) fn damaged(error: JournalError, at: JournalSeq) -> JournalError {
    use rusqlite::Error as E;
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let JournalError::Database { source, .. } = &error else { return error };
    let code = source.sqlite_error_code();
    let means = matches!(code, Some(DatabaseCorrupt | NotADatabase))
        || matches!(
            source,
            E::FromSqlConversionFailure(..)
                | E::IntegralValueOutOfRange(..)
                | E::InvalidColumnType(..)
                | E::Utf8Error(..)
                | E::QueryReturnedNoRows
        );
    if means { broken(at, format!("the file is damaged: {source}")) } else { error }
}

/// What is checked before the vault trades: the file is this machine's, the chain's last entries
/// lead to the head, and each open transaction's entries and state hold.
pub(super) fn verify_open_part(
    conn: &Connection,
    binding: Digest,
    head: Head,
    marked: Option<Head>,
) -> Result<(), JournalError> {
    check_genesis(conn, binding)?;
    if let Some(marked) = marked {
        check_marked(conn, head, marked)?;
    }
    let from = JournalSeq(head.seq.0.saturating_sub(TAIL).max(1));
    let tail = entries(conn, "WHERE e.seq >= ?1 ORDER BY e.seq", [sql(from)])?;
    let first = tail.first().ok_or_else(|| broken(head.seq, "there are no entries"))?;
    let mut last = Head { seq: JournalSeq(first.seq.0.saturating_sub(1)), hash: first.prev };
    for entry in &tail {
        check_link(entry, last)?;
        last = Head { seq: entry.seq, hash: entry.hash };
    }
    if last != head {
        let what = format!("the head says {}, the entries end at {}", head.seq.0, last.seq.0);
        return Err(broken(last.seq, what));
    }
    for txn in stored_txns(conn, "WHERE stage < 2", [])? {
        let mut state = None;
        let of_txn = "WHERE e.txid = ?1 ORDER BY e.seq";
        for entry in entries(conn, of_txn, [txn.txid.to_string()])? {
            check_hash(&entry)?;
            check_successor(conn, &entry)?;
            if let Some(said) = parse(&entry)?.txn() {
                state = Some((entry.seq, said.name.clone(), said.stage, said.state.clone()));
            }
        }
        if state != Some((txn.seq, txn.name, txn.stage, txn.state)) {
            let what = format!("transaction {} is not what its entries say", txn.txid);
            return Err(broken(txn.seq, what));
        }
    }
    Ok(())
}

/// The last intent that was flushed must be in the journal: what forgets it may repeat it.
fn check_marked(conn: &Connection, head: Head, marked: Head) -> Result<(), JournalError> {
    if marked.seq > head.seq {
        let what = format!("it has lost entries: intent {} was on the disk", marked.seq.0);
        return Err(broken(head.seq, what));
    }
    let found = entries(conn, "WHERE e.seq = ?1", [sql(marked.seq)])?.pop();
    if found.is_some_and(|entry| entry.hash != marked.hash) {
        return Err(broken(marked.seq, "another intent was on the disk here"));
    }
    Ok(())
}

fn check_genesis(conn: &Connection, expected: Digest) -> Result<(), JournalError> {
    let first = entries(conn, "WHERE e.seq = 1", [])?.pop();
    let first = first.ok_or_else(|| broken(JournalSeq(1), "the first entry is missing"))?;
    check_link(&first, Head { seq: JournalSeq(0), hash: JournalHead::from_bytes([0; 32]) })?;
    match parse(&first)? {
        Body::Genesis { binding } if binding == expected => Ok(()),
        Body::Genesis { binding } => Err(JournalError::OtherMachine { expected, got: binding }),
        other => Err(broken(first.seq, format!("expected genesis, got {}", other.kind()))),
    }
}

fn check_hash(entry: &StoredEntry) -> Result<(), JournalError> {
    if entry.computed_hash() == entry.hash {
        return Ok(());
    }
    Err(broken(entry.seq, "its content does not have its hash"))
}

pub(super) fn check_link(entry: &StoredEntry, before: Head) -> Result<(), JournalError> {
    if entry.seq.0 != before.seq.0.saturating_add(1) {
        let what = format!("expected entry {} here", before.seq.0.saturating_add(1));
        return Err(broken(entry.seq, what));
    }
    if entry.prev != before.hash {
        return Err(broken(entry.seq, "it does not follow the entry before it"));
    }
    check_hash(entry)
}

/// The entry after this one must name its hash; an entry changed together with its hash shows so.
fn check_successor(conn: &Connection, entry: &StoredEntry) -> Result<(), JournalError> {
    let next = JournalSeq(entry.seq.0.saturating_add(1));
    let next = entries(conn, "WHERE e.seq = ?1", [sql(next)])?.pop();
    if next.is_none_or(|next| next.prev == entry.hash) {
        return Ok(());
    }
    Err(broken(entry.seq, "the entry after it names another hash"))
}

const COMPARING: &str = "comparing the views";

/// The columns that the file has: one that nobody has brought up to date may lack some.
fn columns(conn: &Connection, table: &str) -> Result<String, JournalError> {
    let statement = conn.prepare(&format!("SELECT * FROM {table}")).map_err(db(COMPARING))?;
    Ok(statement.column_names().collect::<Vec<_>>().join(", "))
}

fn dump(
    conn: &Connection,
    table: &str,
    key: &str,
    columns: &str,
) -> Result<Vec<Vec<Cell>>, JournalError> {
    let doing = COMPARING;
    let sentence = format!("SELECT {columns} FROM {table} ORDER BY {key}");
    let mut statement = conn.prepare(&sentence).map_err(db(doing))?;
    let count = statement.column_count();
    let rows = statement
        .query_map([], |row| (0..count).map(|column| row.get(column)).collect())
        .map_err(db(doing))?;
    rows.collect::<Result<_, _>>().map_err(db(doing))
}
