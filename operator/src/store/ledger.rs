//! The ledger's rows: written once, each with all its postings, never changed.
//!
//! Promise: the database itself refuses an entry that does not sum to zero in each unit, a posting
//! that is no line of an entry, and every change. Booking the same event again writes nothing.

use bitspire_shared::ids::TxnId;
use bitspire_shared::time::Unix;

use super::column::{Json, enum_column};
use super::row::{Recorded, Row};
use super::{Read, StoreError, Tx};
use crate::ids::EntryId;
use crate::ledger::{Account, Balances, Entry, EntryKind, Finding, Posting, Unit, check};

enum_column!(EntryKind);

/// Entries that the check reads at a time.
const CHUNK: u32 = 1_000;

/// An entry with its place in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// Its number; entries are numbered in the order in which they were written.
    pub id: EntryId,
    /// When it was written.
    pub at: Unix,
    /// The entry.
    pub entry: Entry,
}

type Lines = Json<Vec<(String, String, i64)>>;

fn lines(entry: &Entry) -> Lines {
    let line = |p: &Posting| (p.account.to_string(), p.unit.to_string(), p.amount);
    Json(entry.postings().iter().map(line).collect())
}

/// Writes an entry, once for its kind and reference.
///
/// # Errors
/// [`StoreError::Conflict`] where that event is booked with other content; [`StoreError`].
pub fn append(tx: &Tx<'_>, entry: &Entry, at: Unix) -> Result<Recorded<EntryId>, StoreError> {
    if let Some(booked) = find(tx, entry.kind(), entry.reference())? {
        if booked.entry == *entry {
            return Ok(Recorded::Known(booked.id));
        }
        let key = format!("{} {}", entry.kind().as_str(), entry.reference());
        return Err(StoreError::Conflict { what: "ledger entry", key });
    }
    let id = tx.insert(
        "ledger_entries",
        &[
            ("at", &at),
            ("kind", &entry.kind()),
            ("reference", &entry.reference()),
            ("txid", &entry.txid()),
            ("corrects", &entry.corrects()),
            ("reason", &entry.reason()),
            ("lines", &lines(entry)),
        ],
    )?;
    Ok(Recorded::New(EntryId(id)))
}

fn read_entry(row: &Row<'_>) -> Result<Booked, StoreError> {
    let wrong = |expected| StoreError::Column { column: "ledger_entries.lines".into(), expected };
    let lines: Lines = row.get("lines")?;
    let mut postings = Vec::new();
    for (account, unit, amount) in lines.0 {
        let account: Account = account.parse().map_err(|_| wrong("an account"))?;
        let unit: Unit = unit.parse().map_err(|_| wrong("a unit"))?;
        postings.push(Posting { account, unit, amount });
    }
    let reference: String = row.get("reference")?;
    let mut entry = Entry::new(row.get("kind")?, reference, row.get("txid")?, postings)
        .map_err(|_| wrong("a balanced entry"))?;
    if let Some(reason) = row.get::<Option<String>>("reason")? {
        entry = entry.with_reason(reason);
    }
    if let Some(wrong) = row.get("corrects")? {
        entry = entry.correcting(wrong);
    }
    Ok(Booked { id: row.get("id")?, at: row.get("at")?, entry })
}

/// The entry that books this event.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    read: &Read<'_>,
    kind: EntryKind,
    reference: &str,
) -> Result<Option<Booked>, StoreError> {
    let sql = "SELECT * FROM ledger_entries WHERE kind = ?1 AND reference = ?2";
    read.one(sql, &[&kind, &reference], read_entry)
}

/// Every entry of a transaction, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_txid(read: &Read<'_>, txid: TxnId) -> Result<Vec<Booked>, StoreError> {
    read.all("SELECT * FROM ledger_entries WHERE txid = ?1 ORDER BY id", &[&txid], read_entry)
}

/// At most `limit` entries after `after`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn page(read: &Read<'_>, after: EntryId, limit: u32) -> Result<Vec<Booked>, StoreError> {
    let sql = "SELECT * FROM ledger_entries WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], read_entry)
}

/// The balance of an account in a unit, by its postings.
///
/// # Errors
/// [`StoreError`].
pub fn balance(read: &Read<'_>, account: Account, unit: Unit) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(sum(amount), 0) AS balance FROM ledger_postings
               WHERE account = ?1 AND unit = ?2";
    Ok(read.one(sql, &[&account, &unit], |row| row.get("balance"))?.unwrap_or(0))
}

/// Every balance, by the postings.
///
/// # Errors
/// [`StoreError`].
pub fn balances(read: &Read<'_>) -> Result<Balances, StoreError> {
    let sql = "SELECT account, unit, sum(amount) AS amount FROM ledger_postings
               GROUP BY account, unit";
    let sums = read.all(sql, &[], read_posting)?;
    Ok(sums.iter().collect())
}

fn read_posting(row: &Row<'_>) -> Result<Posting, StoreError> {
    let (account, unit, amount) = (row.get("account")?, row.get("unit")?, row.get("amount")?);
    Ok(Posting { account, unit, amount })
}

/// What cannot be true in the whole ledger, read from the postings alone.
///
/// # Errors
/// [`StoreError`].
pub fn findings(read: &Read<'_>) -> Result<Vec<Finding>, StoreError> {
    let mut postings = Vec::new();
    let mut after = EntryId(0);
    loop {
        let chunk = read.all(
            "SELECT entry_id, account, unit, amount FROM ledger_postings
             WHERE entry_id > ?1 AND entry_id <= ?1 + ?2 ORDER BY entry_id, line",
            &[&after, &CHUNK],
            |row| Ok((row.get("entry_id")?, read_posting(row)?)),
        )?;
        postings.extend(chunk);
        after = EntryId(after.0.saturating_add(i64::from(CHUNK)));
        let more = "SELECT EXISTS (SELECT 1 FROM ledger_entries WHERE id > ?1) AS more";
        if !read.one(more, &[&after], |row| row.get("more"))?.unwrap_or(false) {
            return Ok(check(postings));
        }
    }
}
