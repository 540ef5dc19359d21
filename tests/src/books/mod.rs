//! What the parts have written down, read beside them from their own files: the machine's journal,
//! the operator's settlements and ledger, the bunker's record of requests.
//!
//! Promise: nothing is written, and nothing of the code that wrote it takes part in reading it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

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

fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .with_context(|| format!("{}: cannot be read", path.display()))
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

/// A settlement of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its transaction.
    pub txid: String,
    /// `cash_out` or `cash_in`.
    pub direction: String,
    /// `accepted` or why not.
    pub status: String,
    /// What moved on Lightning.
    pub wire: i64,
    /// At market rate, before fees.
    pub principal: i64,
    /// The platform's fee.
    pub platform_fee: i64,
    /// The operator's fee.
    pub operator_fee: i64,
    /// What is owed to the customer.
    pub owed: i64,
    /// The notes in minor units.
    pub fiat_minor: i64,
    /// The machine's report of a cash-out: `full`, `partial`...
    pub outcome: Option<String>,
}

/// The operator's database.
#[derive(Debug)]
pub struct Ledger(Connection);

impl Ledger {
    /// Opens the database of the operator in `folder`, a world's.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(folder: &Path) -> Result<Self> {
        Ok(Self(open(&folder.join("operator/operator.db"))?))
    }

    /// Every settlement, oldest first. One without amounts, as a refused one is, is an error.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn settlements(&self) -> Result<Vec<Settled>> {
        let mut statement = self.0.prepare(
            "SELECT txid, direction, status, wire_sats, principal_sats, platform_fee_sats,
                    operator_fee_sats, owed_sats, fiat_minor, dispense_outcome
             FROM settlements ORDER BY id",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Settled {
                txid: row.get(0)?,
                direction: row.get(1)?,
                status: row.get(2)?,
                wire: row.get(3)?,
                principal: row.get(4)?,
                platform_fee: row.get(5)?,
                operator_fee: row.get(6)?,
                owed: row.get(7)?,
                fiat_minor: row.get(8)?,
                outcome: row.get(9)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// What the postings of each entry come to in each unit, and how many there are.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn entries(&self) -> Result<Vec<(i64, String, i64, i64)>> {
        let mut statement = self.0.prepare(
            "SELECT entry_id, unit, sum(amount), count(*) FROM ledger_postings
             GROUP BY entry_id, unit ORDER BY entry_id, unit",
        )?;
        let row =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        Ok(statement.query_map([], row)?.collect::<rusqlite::Result<_>>()?)
    }

    /// The balances of all accounts whose names begin like this, in one unit.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn balance(&self, account: &str, unit: &str) -> Result<i64> {
        let sql = "SELECT coalesce(sum(amount), 0) FROM ledger_postings
                   WHERE substr(account, 1, length(?1)) = ?1 AND unit = ?2";
        Ok(self.0.query_row(sql, [account, unit], |row| row.get(0))?)
    }

    /// The notes that a machine reported as presented for a transaction, by bay.
    ///
    /// # Errors
    /// When there is no report, or not one.
    pub fn reported(&self, txid: &str) -> Result<Value> {
        let sql = "SELECT bays FROM dispense_reports WHERE txid = ?1";
        let bays: String = self.0.query_row(sql, [txid], |row| row.get(0))?;
        Ok(serde_json::from_str(&bays)?)
    }

    /// The keys of all sessions there were, as hex.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn sessions(&self) -> Result<Vec<String>> {
        let mut statement = self.0.prepare("SELECT session_pubkey FROM sessions")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }
}

/// What a wallet of the simulated node in `folder`, a world's, can spend, in msat.
///
/// # Errors
/// When the node's books cannot be read, or a payment is under way.
pub fn node_balance(folder: &Path, wallet: &str) -> Result<i64> {
    let path = folder.join("operator/simulated-node.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    let books: Value = serde_json::from_str(&text)?;
    let mut balance = books["funded"][wallet].as_i64().context("the wallet was never funded")?;
    let records = books["records"].as_object().context("no records")?;
    for record in records.values().filter(|record| record["wallet"] == wallet) {
        let (payment, state) = (&record["payment"], &record["payment"]["state"]);
        let amount =
            |name: &str| state[name].as_i64().with_context(|| format!("no {name}: {record}"));
        match (payment["flow"].as_str(), state["state"].as_str()) {
            (Some("inbound"), Some("succeeded")) => balance += amount("amount")?,
            (Some("outbound"), Some("succeeded")) => balance -= amount("amount")? + amount("fee")?,
            (Some("inbound"), Some("pending")) => {}
            _ => bail!("expected a payment that has ended, got {record}"),
        }
    }
    Ok(balance)
}

/// The keys that the bunker of the world in `folder` holds: name, public key as hex, sealed.
///
/// # Errors
/// When they cannot be read.
pub fn sealed_keys(folder: &Path) -> Result<Vec<(String, String, String)>> {
    let bunker = open(&folder.join("bunker/bunker.db"))?;
    let mut statement = bunker.prepare("SELECT name, pubkey, sealed FROM keys")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many requests the bunker of the world in `folder` has recorded later than this second.
///
/// # Errors
/// When its record cannot be read.
pub fn bunker_requests_after(folder: &Path, unix: i64) -> Result<i64> {
    let bunker = open(&folder.join("bunker/bunker.db"))?;
    let sql = "SELECT count(*) FROM requests WHERE at > ?1";
    Ok(bunker.query_row(sql, [unix], |row| row.get(0))?)
}

/// How many requests for a signature or a cipher the bunker of the world in `folder` has recorded.
///
/// # Errors
/// When its record cannot be read.
pub fn bunker_requests(folder: &Path) -> Result<i64> {
    let bunker = open(&folder.join("bunker/bunker.db"))?;
    Ok(bunker.query_row("SELECT count(*) FROM requests", [], |row| row.get(0))?)
}
