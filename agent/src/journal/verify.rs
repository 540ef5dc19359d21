//! Whether the journal holds: on opening its end and its open transactions, on demand all of it.

use std::path::Path;

use bitspire_shared::ids::{Digest, JournalHead, JournalSeq};
use rusqlite::Connection;
use rusqlite::types::Value as Cell;

use super::Head;
use super::entry::{Body, StoredEntry};
use super::error::JournalError;
use super::holdings::Holdings;
use super::read::{self, broken, each_entry, entries, parse, stored_txns};
use super::schema::{self, VIEWS, db};
use super::views::{self, sql};

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

/// Checks the whole journal at `path`, beside a running vault if there is one: the file, every
/// link of the chain, and every view against one made again from the entries. The time this takes
/// grows with the journal.
///
/// # Errors
/// [`JournalError::Broken`] with the entry at which it shows; other [`JournalError`]s where the
/// file cannot be read.
pub fn verify_file(path: &Path) -> Result<Verified, JournalError> {
    let mut conn = schema::open_reader(path)?;
    // one moment of a file that a running vault goes on writing
    let conn = conn.transaction().map_err(db("reading"))?;
    let check: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(db("checking the file"))?;
    if check != "ok" {
        return Err(broken(JournalSeq(0), format!("the file is damaged: {check}")));
    }
    let (head, _) = read::head(&conn)?;
    let scratch = schema::open_scratch()?;
    let mut last = Head { seq: JournalSeq(0), hash: JournalHead::from_bytes([0; 32]) };
    let mut held = Holdings::default();
    each_entry(&conn, "ORDER BY e.seq", [], |entry| {
        check_link(&entry, last)?;
        let body = parse(&entry)?;
        held = views::project(&scratch, entry.seq, &body, &held).map_err(|e| match e {
            JournalError::Refused(rule) => broken(entry.seq, format!("breaks a rule: {rule}")),
            other => other,
        })?;
        last = Head { seq: entry.seq, hash: entry.hash };
        Ok(())
    })?;
    if last != head {
        let what = format!("the head says {}, the entries end at {}", head.seq.0, last.seq.0);
        return Err(broken(last.seq, what));
    }
    for (table, key) in VIEWS {
        if dump(&conn, table, key)? != dump(&scratch, table, key)? {
            return Err(broken(last.seq, format!("the view {table} is not what the entries say")));
        }
    }
    let open = stored_txns(&conn, "WHERE stage < 2", [])?.len();
    Ok(Verified { head, open })
}

/// What is checked before the vault trades: the file is this machine's, the chain's last entries
/// lead to the head, and each open transaction's entries and state hold.
pub(super) fn verify_open_part(
    conn: &Connection,
    binding: Digest,
    head: Head,
) -> Result<(), JournalError> {
    check_genesis(conn, binding)?;
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

fn check_link(entry: &StoredEntry, before: Head) -> Result<(), JournalError> {
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

fn dump(conn: &Connection, table: &str, key: &str) -> Result<Vec<Vec<Cell>>, JournalError> {
    let doing = "comparing the views";
    let sentence = format!("SELECT * FROM {table} ORDER BY {key}");
    let mut statement = conn.prepare(&sentence).map_err(db(doing))?;
    let columns = statement.column_count();
    let rows = statement
        .query_map([], |row| (0..columns).map(|column| row.get(column)).collect())
        .map_err(db(doing))?;
    rows.collect::<Result<_, _>>().map_err(db(doing))
}
