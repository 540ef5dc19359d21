//! The machine's journal.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use rusqlite::Connection;
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

/// The machine's journal.
#[derive(Debug)]
pub struct Journal(Connection);

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
        Ok(Self(open(&data.join("vault/journal.db"))?))
    }

    /// The position of its last entry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn seq(&self) -> Result<i64> {
        Ok(self.0.query_row("SELECT coalesce(max(seq), 0) FROM entries", [], |row| row.get(0))?)
    }

    /// The entries after a position, in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn after(&self, seq: i64) -> Result<Vec<Entry>> {
        let mut statement = self
            .0
            .prepare("SELECT seq, txid, kind, body FROM entries WHERE seq > ?1 ORDER BY seq")?;
        let rows = statement.query_map([seq], |row| {
            let body: String = row.get(3)?;
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, body))
        })?;
        let entry = |row: rusqlite::Result<(i64, Option<String>, String, String)>| {
            let (seq, txid, kind, body) = row?;
            Ok(Entry { seq, txid, kind, body: serde_json::from_str(&body)? })
        };
        rows.map(entry).collect()
    }

    /// The bays by its view.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bays(&self) -> Result<BTreeMap<u8, Bay>> {
        let mut statement = self.0.prepare(
            "SELECT bay, denomination, loaded - presented - rejected - stray, presented,
                    doubts FROM bays",
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
        let mut statement = self.0.prepare("SELECT denomination, count, doubts FROM cashbox")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
