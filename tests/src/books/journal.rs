//! The machine's journal, with the archive beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use super::open;

/// An entry of the machine's journal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub seq: i64,
    /// Its transaction.
    pub txid: Option<String>,
    /// What it is.
    pub kind: String,
    /// What it says.
    pub body: Value,
}

impl Line {
    fn read(text: &str) -> Result<Self> {
        let line: Value = serde_json::from_str(text)?;
        let word = |name: &str| line[name].as_str().map(ToOwned::to_owned);
        Ok(Self {
            seq: line["seq"].as_i64().context("a line of the archive without a position")?,
            txid: word("txid"),
            kind: word("kind").context("a line of the archive without a kind")?,
            body: word("body").context("a line of the archive without a body")?,
        })
    }

    fn entry(self) -> Result<Entry> {
        let Self { seq, txid, kind, body } = self;
        Ok(Entry { seq, txid, kind, body: serde_json::from_str(&body)? })
    }
}

impl Entry {
    /// The state that it brought the transaction into.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.txn()["name"].as_str()
    }

    /// The notes that it moved.
    #[must_use]
    pub fn cash(&self) -> &[Value] {
        let moves = if self.kind == "cash" { &self.body["cash"] } else { &self.txn()["cash"] };
        moves.as_array().map_or(&[], Vec::as_slice)
    }

    /// The transaction as it stood then.
    #[must_use]
    pub fn txn(&self) -> &Value {
        if self.kind == "intent" { &self.body["intent"]["txn"] } else { &self.body["txn"] }
    }
}

/// A bay by the journal's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bay {
    /// The value of its notes, in minor units.
    pub denomination: i64,
    /// Notes that should lie in it.
    pub on_hand: i64,
    /// Notes that went to the exit.
    pub presented: i64,
    /// Answers of the device about it that are missing.
    pub doubts: i64,
}

/// An entry as a line of the archive.
struct Line {
    seq: i64,
    txid: Option<String>,
    kind: String,
    body: String,
}

/// The machine's journal.
#[derive(Debug)]
pub struct Journal {
    conn: Connection,
    archive: PathBuf,
}

impl Journal {
    /// Opens the journal of the machine in `folder`, a world's.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(folder: &Path) -> Result<Self> {
        Self::in_data(&folder.join("machine"))
    }

    /// Opens the journal of the machine with this data folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn in_data(data: &Path) -> Result<Self> {
        let conn = open(&data.join("vault/journal.db"))?;
        Ok(Self { conn, archive: data.join("vault/journal.db.archive.jsonl") })
    }

    /// The position of its last entry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn seq(&self) -> Result<i64> {
        Ok(self
            .conn
            .query_row("SELECT coalesce(max(seq), 0) FROM entries", [], |row| row.get(0))?)
    }

    /// The entries after a position, in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn after(&self, seq: i64) -> Result<Vec<Entry>> {
        // one moment of a file that a running vault goes on writing
        let moment = self.conn.unchecked_transaction()?;
        let end = moment
            .query_row("SELECT upto, bytes FROM archive", [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (upto, bytes): (i64, i64) = end.optional()?.unwrap_or((0, 0));
        let mut all = match seq < upto {
            true => self.archived(seq, bytes.try_into()?)?,
            false => Vec::new(),
        };
        let mut statement = moment
            .prepare("SELECT seq, txid, kind, body FROM entries WHERE seq > ?1 ORDER BY seq")?;
        let rows = statement.query_map([seq.max(upto)], |row| {
            Ok(Line { seq: row.get(0)?, txid: row.get(1)?, kind: row.get(2)?, body: row.get(3)? })
        })?;
        for line in rows {
            all.push(line?.entry()?);
        }
        Ok(all)
    }

    /// The entries after a position in the archive's first so many bytes: what lies beyond is of a
    /// move that was cut off, and in the journal.
    fn archived(&self, seq: i64, bytes: u64) -> Result<Vec<Entry>> {
        let lines = File::open(&self.archive)
            .with_context(|| format!("{}: cannot be read", self.archive.display()))?;
        let mut all = Vec::new();
        for line in BufReader::new(lines.take(bytes)).lines() {
            let line = Line::read(&line?)?;
            if line.seq > seq {
                all.push(line.entry()?);
            }
        }
        Ok(all)
    }

    /// The bays by its view.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bays(&self) -> Result<BTreeMap<u8, Bay>> {
        let mut statement = self.conn.prepare(
            "SELECT bay, denomination, loaded + recycled_in - presented - rejected - stray,
                    presented, doubts FROM bays",
        )?;
        let rows = statement.query_map([], |row| {
            let (denomination, on_hand) = (row.get(1)?, row.get(2)?);
            let bay = Bay { denomination, on_hand, presented: row.get(3)?, doubts: row.get(4)? };
            Ok((row.get(0)?, bay))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Notes in the cashbox by its view: how many of each value in minor units, and in doubt.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cashbox(&self) -> Result<BTreeMap<i64, (i64, i64)>> {
        let mut statement = self.conn.prepare("SELECT denomination, count, doubts FROM cashbox")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
