//! The ledger's rows: written once, each with all its postings, never changed.
//!
//! Promise: the database itself refuses an entry that does not sum to zero in each unit, a posting
//! that is no line of an entry, and every change. Booking the same event again writes nothing.
//!
//! What an account holds is the sum of its postings. It is kept beside them for the end of each day in
//! which it moved, by the same statement that writes a posting, so that no balance is the slower the
//! longer the ledger is; the audit derives these sums again.

mod read;

use bitspire_shared::ids::TxnId;
use bitspire_shared::time::Unix;

use super::column::{Json, enum_column};
use super::row::{Recorded, Row};
use super::{Read, StoreError, Tx};
use crate::ids::{EntryId, MachineId};
use crate::ledger::{Account, Balances, Checker, Entry, EntryKind, Finding, Posting, Unit};

pub use read::{Written, around, beside_settled, of_payment, written};

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
    let inserted = tx.insert(
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
    );
    match inserted {
        // nearly always it is a new one
        Ok(id) => return Ok(Recorded::New(EntryId(id))),
        Err(error) if error.is_unique_on("ledger_entries.reference") => {}
        Err(error) => return Err(error),
    }
    match find(tx, entry.kind(), entry.reference())? {
        Some(booked) if booked.entry == *entry => Ok(Recorded::Known(booked.id)),
        _ => {
            let key = format!("{} {}", entry.kind().as_str(), entry.reference());
            Err(StoreError::Conflict { what: "ledger entry", key })
        }
    }
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

/// The entry with this number.
///
/// # Errors
/// [`StoreError`].
pub fn entry(read: &Read<'_>, id: EntryId) -> Result<Option<Booked>, StoreError> {
    read.one("SELECT * FROM ledger_entries WHERE id = ?1", &[&id], read_entry)
}

/// The number of the newest entry; 0 where there is none.
///
/// # Errors
/// [`StoreError`].
pub fn newest(read: &Read<'_>) -> Result<EntryId, StoreError> {
    let sql = "SELECT max(id) AS id FROM ledger_entries";
    Ok(read.one(sql, &[], |row| row.get("id"))?.flatten().unwrap_or(EntryId(0)))
}

/// At most `limit` entries after `after`, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn page(read: &Read<'_>, after: EntryId, limit: u32) -> Result<Vec<Booked>, StoreError> {
    let sql = "SELECT * FROM ledger_entries WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], read_entry)
}

/// The balance of an account in a unit.
///
/// # Errors
/// [`StoreError`].
pub fn balance(read: &Read<'_>, account: Account, unit: Unit) -> Result<i64, StoreError> {
    let sql = "SELECT balance FROM ledger_sums WHERE account = ?1 AND unit = ?2
               ORDER BY day DESC LIMIT 1";
    Ok(read.one(sql, &[&account, &unit], |row| row.get("balance"))?.unwrap_or(0))
}

/// The balance of a provider's account before the entry `entry` was written, by its postings.
///
/// # Errors
/// [`StoreError`].
pub fn balance_of_lp_before(
    read: &Read<'_>,
    (account, unit): (Account, Unit),
    entry: EntryId,
) -> Result<i64, StoreError> {
    // the first condition is the index's own
    let sql = "SELECT coalesce(sum(amount), 0) AS balance FROM ledger_postings
               WHERE account GLOB 'lp:*' AND account = ?1 AND unit = ?2 AND entry_id < ?3";
    Ok(read.one(sql, &[&account, &unit, &entry], |row| row.get("balance"))?.unwrap_or(0))
}

/// A posting of an account, with what it books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its entry.
    pub entry: EntryId,
    /// What that books.
    pub kind: EntryKind,
    /// Which one of that kind.
    pub reference: String,
    /// Signed: positive is a debit.
    pub amount: i64,
}

/// At most `limit` postings of a provider's account after the entry `after`, in order.
///
/// # Errors
/// [`StoreError`].
pub fn lines_of_lp(
    read: &Read<'_>,
    (account, unit): (Account, Unit),
    after: EntryId,
    limit: u32,
) -> Result<Vec<Line>, StoreError> {
    // the first condition is the index's own
    let sql = "SELECT entry_id, kind, reference, amount FROM ledger_postings
               JOIN ledger_entries ON id = entry_id WHERE account GLOB 'lp:*'
               AND account = ?1 AND unit = ?2 AND entry_id > ?3 ORDER BY entry_id LIMIT ?4";
    read.all(sql, &[&account, &unit, &after, &limit], |row| {
        Ok(Line {
            entry: row.get("entry_id")?,
            kind: row.get("kind")?,
            reference: row.get("reference")?,
            amount: row.get("amount")?,
        })
    })
}

/// Every balance of the accounts whose name begins with `prefix`, which ends with a colon, such as
/// `cashbox:3:`; of one unit each.
///
/// # Errors
/// [`StoreError`].
pub fn balances_of(read: &Read<'_>, prefix: &str) -> Result<Balances, StoreError> {
    // what follows the colon begins with a digit, and a colon comes after all of these
    // of the newest day: SQLite takes the other columns from the row that has the maximum
    let sql = "SELECT account, unit, max(day), balance AS amount FROM ledger_sums
               WHERE account >= ?1 AND account < ?1 || ':' GROUP BY account, unit";
    Ok(read.all(sql, &[&prefix], read_posting)?.iter().collect())
}

/// What entries of a kind have moved into each bay of a machine.
///
/// # Errors
/// [`StoreError`].
pub fn moved_into(
    read: &Read<'_>,
    kind: EntryKind,
    machine: MachineId,
) -> Result<Balances, StoreError> {
    let prefix = format!("bay:{machine}:");
    // the first condition is the index's own
    let sql = "SELECT account, unit, sum(amount) AS amount FROM ledger_postings
               JOIN ledger_entries ON id = entry_id
               WHERE account GLOB 'bay:*' AND account >= ?1 AND account < ?1 || ':' AND kind = ?2
               GROUP BY account, unit";
    Ok(read.all(sql, &[&prefix, &kind], read_posting)?.iter().collect())
}

/// What is booked of a bay before a change of which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Whatever is booked.
    All,
    /// Not the notes of customers that were heard of with the change, at this time, or since.
    Fed(Unix),
    /// Nor what was done at the machine and was heard of with it, or since.
    Done(Unix),
}

/// Whether notes were put into a bay's account by a person or a customer, or counted there, before a
/// change.
///
/// # Errors
/// [`StoreError`].
pub fn was_loaded(read: &Read<'_>, account: Account, before: Before) -> Result<bool, StoreError> {
    let (fed, done) = match before {
        Before::All => (None, None),
        Before::Fed(at) => (Some(at), None),
        Before::Done(at) => (Some(at), Some(at)),
    };
    // the first condition is the index's own
    let sql = "SELECT EXISTS (SELECT 1 FROM ledger_postings JOIN ledger_entries AS entry
               ON entry.id = entry_id
               WHERE account GLOB 'bay:*' AND account = ?1
               AND (kind IN ('refilled', 'bay_counted')
                   OR (kind = 'recycled' AND (?2 IS NULL OR entry.at < ?2)))
               AND (?3 IS NULL OR (entry.at <= ?3 AND NOT EXISTS (SELECT 1 FROM service_events
                   WHERE event_id = substr(reference, 9) AND reference GLOB 'service:*'
                   AND received_at >= ?3)))) AS loaded";
    Ok(read.one(sql, &[&account, &fed, &done], |row| row.get("loaded"))?.unwrap_or(false))
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
    let mut checker = Checker::default();
    let mut after = EntryId(0);
    loop {
        let chunk = read.all(
            "SELECT entry_id, account, unit, amount FROM ledger_postings
             WHERE entry_id > ?1 AND entry_id <= ?1 + ?2 ORDER BY entry_id, line",
            &[&after, &CHUNK],
            |row| Ok((row.get("entry_id")?, read_posting(row)?)),
        )?;
        for (entry, posting) in chunk {
            checker.take(entry, &posting);
        }
        after = EntryId(after.0.saturating_add(i64::from(CHUNK)));
        let more = "SELECT EXISTS (SELECT 1 FROM ledger_entries WHERE id > ?1) AS more";
        if !read.one(more, &[&after], |row| row.get("more"))?.unwrap_or(false) {
            return Ok(checker.end().0);
        }
    }
}

/// Whether there is an entry of this number.
///
/// # Errors
/// [`StoreError`].
pub fn holds(read: &Read<'_>, id: EntryId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM ledger_entries WHERE id = ?1) AS known";
    Ok(read.one(sql, &[&id], |row| row.get("known"))?.unwrap_or(false))
}

/// What an account held at the end of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Days since 1970-01-01, UTC.
    pub day: u64,
    /// The account.
    pub account: Account,
    /// Of what.
    pub unit: Unit,
    /// The sum of its postings until then; positive is a debit.
    pub balance: i64,
}

fn read_closing(row: &Row<'_>) -> Result<Closing, StoreError> {
    let (account, unit) = (row.get("account")?, row.get("unit")?);
    Ok(Closing { day: row.get("day")?, account, unit, balance: row.get("balance")? })
}

/// What each account held at the end of each day of its movements, as it is kept.
///
/// # Errors
/// [`StoreError`].
pub fn kept_closings(read: &Read<'_>) -> Result<Vec<Closing>, StoreError> {
    read.all("SELECT * FROM ledger_sums ORDER BY account, unit, day", &[], read_closing)
}

/// What each account held at the end of the day `from`, and of each later one until `until` in which
/// it moved, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn closings(read: &Read<'_>, from: u64, until: u64) -> Result<Vec<Closing>, StoreError> {
    // from account to account by the key, past all days between them; a plus, or both columns of the
    // comparison are not found by it
    let sql = "WITH RECURSIVE held (account, unit) AS (
            SELECT * FROM (SELECT account, unit FROM ledger_sums WHERE account > ''
                ORDER BY account, unit LIMIT 1)
            UNION ALL SELECT
                (SELECT account FROM ledger_sums n
                    WHERE (n.account, n.unit) > (+held.account, +held.unit)
                    ORDER BY account, unit LIMIT 1),
                (SELECT unit FROM ledger_sums n
                    WHERE (n.account, n.unit) > (+held.account, +held.unit)
                    ORDER BY account, unit LIMIT 1)
            FROM held WHERE account IS NOT NULL)
        SELECT ?1 AS day, account, unit, (SELECT balance FROM ledger_sums s
            WHERE s.account = held.account AND s.unit = held.unit AND s.day <= ?1
            ORDER BY s.day DESC LIMIT 1) AS balance
        FROM held WHERE balance IS NOT NULL
        UNION ALL
        SELECT s.day, s.account, s.unit, s.balance FROM held
            JOIN ledger_sums s ON s.account = held.account AND s.unit = held.unit
                AND s.day > ?1 AND s.day <= ?2
        ORDER BY day";
    read.all(sql, &[&from, &until], read_closing)
}
