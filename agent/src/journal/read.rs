//! What the vault asks its journal.

use bitspire_shared::ids::{ChangeId, JournalHead, JournalSeq, Nonce, RequestId, TxnId};
use bitspire_shared::time::Unix;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;

use super::entry::{Body, RequestEntry, Stage, StoredEntry};
use super::error::JournalError;
use super::schema::db;
use super::views::{is_gone, position, sql};
use super::{Head, Journal};

const READING: &str = "reading";

/// A transaction as the journal last saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTxn {
    /// Which transaction.
    pub txid: TxnId,
    /// The name of its state.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// Its last entry.
    pub seq: JournalSeq,
    /// The entry at which it came into this state: a verdict must have seen it.
    pub since: JournalSeq,
    /// Its whole state.
    pub state: Value,
    /// Its intent without a result.
    pub intent: Option<OpenIntent>,
}

/// An intent without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Its number within the transaction.
    pub no: u32,
    /// `dispense` or `stack`.
    pub what: String,
    /// Its entry.
    pub seq: JournalSeq,
}

impl Journal {
    /// All transactions that are not closed, in no particular order.
    ///
    /// # Errors
    /// [`JournalError`] where the file cannot be read or does not hold what it must.
    pub fn open_txns(&self) -> Result<Vec<StoredTxn>, JournalError> {
        stored_txns(&self.conn, "WHERE stage < 2", [])
    }

    /// One transaction, open or not.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn txn(&self, txid: TxnId) -> Result<Option<StoredTxn>, JournalError> {
        Ok(stored_txns(&self.conn, "WHERE txid = ?1", [txid.to_string()])?.pop())
    }

    /// Whether no note may move for this transaction any more. A transaction that the journal does
    /// not know has not ended; nothing moves for it either, since `commit` wants its entry first.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn has_ended(&self, txid: TxnId) -> Result<bool, JournalError> {
        match self.txn(txid)? {
            Some(txn) => Ok(txn.stage != Stage::Open),
            None => is_gone(&self.conn, txid),
        }
    }

    /// Whether a verdict with this nonce was used.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn nonce_used(&self, nonce: &Nonce) -> Result<bool, JournalError> {
        self.exists("SELECT 1 FROM nonces WHERE nonce = ?1", &nonce.to_string())
    }

    /// The nonces that were used last, the newest first.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn last_nonces(&self, limit: u32) -> Result<Vec<Nonce>, JournalError> {
        let sentence = "SELECT nonce, seq FROM nonces ORDER BY seq DESC LIMIT ?1";
        let mut statement = self.conn.prepare_cached(sentence).map_err(db(READING))?;
        let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
        let rows = statement.query_map([limit], row).map_err(db(READING))?;
        let read = |row: rusqlite::Result<(String, i64)>| {
            let (nonce, seq) = row.map_err(db(READING))?;
            let bad = |e| broken(position(seq), format!("expected a nonce, got {e}"));
            nonce.parse().map_err(bad)
        };
        rows.map(read).collect()
    }

    /// Whether a cassette change was applied.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn change_applied(&self, change: &ChangeId) -> Result<bool, JournalError> {
        self.exists("SELECT 1 FROM changes WHERE change_id = ?1", &change.to_string())
    }

    /// The request with this id, if it was about to be sent before: send it again as it is.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn request(&self, id: &RequestId) -> Result<Option<RequestEntry>, JournalError> {
        let entry = one(
            &self.conn,
            "JOIN requests r ON r.seq = e.seq WHERE r.request_id = ?1",
            [id.to_string()],
        )?;
        let Some(entry) = entry else { return Ok(None) };
        match parse(&entry)? {
            Body::Request(request) => Ok(Some(request)),
            other => Err(broken(entry.seq, format!("expected a request, got {}", other.kind()))),
        }
    }

    /// The last value of a setting.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn setting(&self, key: &str) -> Result<Option<Value>, JournalError> {
        let row: Option<(String, i64)> = self
            .conn
            .prepare_cached("SELECT value, seq FROM settings WHERE key = ?1")
            .and_then(|mut s| s.query_row([key], |r| Ok((r.get(0)?, r.get(1)?))).optional())
            .map_err(db(READING))?;
        row.map(|(value, seq)| json(position(seq), &value)).transpose()
    }

    /// Up to `limit` entries from position `from` on, in order: evidence, and the tail for a
    /// report.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn entries(&self, from: JournalSeq, limit: u32) -> Result<Vec<StoredEntry>, JournalError> {
        entries(&self.conn, "WHERE e.seq >= ?1 ORDER BY e.seq LIMIT ?2", params![sql(from), limit])
    }

    /// All entries of one transaction, in order.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn entries_of(&self, txid: TxnId) -> Result<Vec<StoredEntry>, JournalError> {
        entries(&self.conn, "WHERE e.txid = ?1 ORDER BY e.seq", [txid.to_string()])
    }

    fn exists(&self, sentence: &str, key: &str) -> Result<bool, JournalError> {
        self.conn.prepare_cached(sentence).and_then(|mut s| s.exists([key])).map_err(db(READING))
    }
}

pub(super) fn broken(at: JournalSeq, what: impl Into<String>) -> JournalError {
    JournalError::Broken { at, what: what.into() }
}

fn json(at: JournalSeq, text: &str) -> Result<Value, JournalError> {
    serde_json::from_str(text).map_err(|e| broken(at, format!("expected JSON, got {e}")))
}

pub(super) fn parse(entry: &StoredEntry) -> Result<Body, JournalError> {
    let body: Body = serde_json::from_str(&entry.body)
        .map_err(|e| broken(entry.seq, format!("expected an entry of this version, got {e}")))?;
    if body.kind() == entry.kind && body.txid() == entry.txid {
        return Ok(body);
    }
    Err(broken(entry.seq, "the kind or transaction beside the body is not the body's"))
}

/// The end of the chain and the epoch, as the head row has them.
pub(super) fn head(conn: &Connection) -> Result<(Head, u64), JournalError> {
    conn.query_row("SELECT seq, hash, epoch FROM head WHERE id = 1", [], |row| {
        let hash: [u8; 32] = row.get(1)?;
        let head = Head { seq: position(row.get(0)?), hash: JournalHead::from_bytes(hash) };
        Ok((head, position(row.get(2)?).0))
    })
    .map_err(db("reading the head"))
}

pub(super) fn stored_txns(
    conn: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<StoredTxn>, JournalError> {
    let sentence = format!(
        "SELECT t.txid, t.name, t.stage, t.seq, t.since, t.state, i.no, i.what, i.seq
         FROM (SELECT * FROM txns {which}) t
         LEFT JOIN intents i ON i.txid = t.txid AND i.resolved IS NULL"
    );
    let mut statement = conn.prepare_cached(&sentence).map_err(db(READING))?;
    let mut rows = statement.query(values).map_err(db(READING))?;
    let mut txns = Vec::new();
    while let Some(row) = rows.next().map_err(db(READING))? {
        txns.push(stored_txn(row)?);
    }
    Ok(txns)
}

fn stored_txn(row: &Row<'_>) -> Result<StoredTxn, JournalError> {
    let number = |column| row.get::<_, i64>(column).map_err(db(READING));
    let text = |column| row.get::<_, String>(column).map_err(db(READING));
    let seq = position(number(3)?);
    let txid = text(0)?.parse().map_err(|e| broken(seq, format!("transaction: {e}")))?;
    let stage = Stage::from_number(number(2)?).ok_or_else(|| broken(seq, "unknown stage"))?;
    let no: Option<u32> = row.get(6).map_err(db(READING))?;
    let intent = match no {
        Some(no) => Some(OpenIntent { no, what: text(7)?, seq: position(number(8)?) }),
        None => None,
    };
    let since = position(number(4)?);
    Ok(StoredTxn { txid, name: text(1)?, stage, seq, since, state: json(seq, &text(5)?)?, intent })
}

fn one(
    conn: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Option<StoredEntry>, JournalError> {
    Ok(entries(conn, which, values)?.pop())
}

pub(super) fn entries(
    conn: &Connection,
    which: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<StoredEntry>, JournalError> {
    let mut all = Vec::new();
    each_entry(conn, which, values, |entry| {
        all.push(entry);
        Ok(())
    })?;
    Ok(all)
}

/// Calls `with` for each entry that `which` selects.
pub(super) fn each_entry(
    conn: &Connection,
    which: &str,
    values: impl rusqlite::Params,
    mut with: impl FnMut(StoredEntry) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    let sentence = format!(
        "SELECT e.seq, e.at, e.txid, e.kind, e.body, e.prev, e.hash FROM entries e {which}"
    );
    let mut statement = conn.prepare_cached(&sentence).map_err(db(READING))?;
    let mut rows = statement.query(values).map_err(db(READING))?;
    while let Some(row) = rows.next().map_err(db(READING))? {
        with(stored_entry(row)?)?;
    }
    Ok(())
}

fn stored_entry(row: &Row<'_>) -> Result<StoredEntry, JournalError> {
    let hash = |column| row.get::<_, [u8; 32]>(column).map(JournalHead::from_bytes);
    let read = || -> rusqlite::Result<_> {
        let txid: Option<String> = row.get(2)?;
        Ok((position(row.get(0)?), row.get(1)?, txid, row.get(3)?, row.get(4)?, hash(5)?, hash(6)?))
    };
    let (seq, at, txid, kind, body, prev, hash) = read().map_err(db(READING))?;
    let txid = txid
        .map(|txid| txid.parse::<TxnId>())
        .transpose()
        .map_err(|e| broken(seq, format!("transaction: {e}")))?;
    Ok(StoredEntry { seq, at: Unix(position(at).0), txid, kind, body, prev, hash })
}
