//! The operator's settlements, debts, withdraws and ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use rusqlite::Connection;
use serde_json::Value;

use super::open;

/// A settlement of the operator's. Amounts that a refused one does not have are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The payment's hash, as hex.
    pub payment_hash: String,
    /// Its transaction; none where the payment is nobody's.
    pub txid: Option<String>,
    /// `cash_out` or `cash_in`.
    pub direction: String,
    /// `accepted` or why not.
    pub status: String,
    /// Whether its legs go out, went out, or wait for a person.
    pub distribution: String,
    /// The withdraw that it paid, for a cash-in.
    pub withdraw_id: Option<String>,
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

/// A withdraw of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdraw {
    /// Its transaction.
    pub txid: String,
    /// `cash_in`, or for what else is owed.
    pub purpose: String,
    /// How far it is.
    pub state: String,
    /// What it pays, in sats.
    pub net: i64,
    /// The notes that it is for, in minor units.
    pub fiat: i64,
    /// The hashes of its payments that succeeded.
    pub hashes: BTreeSet<String>,
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

    /// Every settlement, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn settlements(&self) -> Result<Vec<Settled>> {
        // the platform of these worlds has no wallet: a fee that waits for one is no doubt about
        // the sale
        let mut statement = self.0.prepare(
            "SELECT payment_hash, txid, direction, status,
                    CASE hold_reason WHEN 'no_super_wallet' THEN 'pending' ELSE distribution END,
                    withdraw_id, wire_sats,
                    coalesce(principal_sats, 0), coalesce(platform_fee_sats, 0),
                    coalesce(operator_fee_sats, 0), coalesce(owed_sats, 0),
                    coalesce(fiat_minor, 0), dispense_outcome
             FROM settlements ORDER BY id",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(Settled {
                payment_hash: row.get(0)?,
                txid: row.get(1)?,
                direction: row.get(2)?,
                status: row.get(3)?,
                distribution: row.get(4)?,
                withdraw_id: row.get(5)?,
                wire: row.get(6)?,
                principal: row.get(7)?,
                platform_fee: row.get(8)?,
                operator_fee: row.get(9)?,
                owed: row.get(10)?,
                fiat_minor: row.get(11)?,
                outcome: row.get(12)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// All that is owed on transactions, paid or not, in sats.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn owed(&self) -> Result<BTreeMap<String, i64>> {
        let mut rows = self.0.prepare(
            "SELECT claims.txid, sum(owed.sats) FROM owed JOIN claims ON claims.id = owed.claim_id
             GROUP BY claims.txid",
        )?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Every withdraw, by its id.
    ///
    /// # Errors
    /// When they cannot be read, or a payment is for none of them.
    pub fn withdraws(&self) -> Result<BTreeMap<String, Withdraw>> {
        let mut rows = self.0.prepare(
            "SELECT withdraw_id, txid, purpose, state, net_sats, coalesce(fiat_minor, 0)
             FROM withdraws",
        )?;
        let rows = rows.query_map([], |row| {
            let withdraw = Withdraw {
                txid: row.get(1)?,
                purpose: row.get(2)?,
                state: row.get(3)?,
                net: row.get(4)?,
                fiat: row.get(5)?,
                hashes: BTreeSet::new(),
            };
            Ok((row.get::<_, String>(0)?, withdraw))
        })?;
        let mut withdraws: BTreeMap<_, _> = rows.collect::<rusqlite::Result<_>>()?;
        let mut paid = self
            .0
            .prepare("SELECT subject_id, payment_hash FROM payments WHERE state = 'succeeded'")?;
        let paid = paid.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
        for row in paid {
            let (id, hash) = row?;
            let withdraw = withdraws.get_mut(&id).with_context(|| format!("no withdraw {id}"))?;
            withdraw.hashes.insert(hash);
        }
        Ok(withdraws)
    }

    /// The hashes of payments whose end the operator does not know.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open_payments(&self) -> Result<Vec<String>> {
        let mut rows = self
            .0
            .prepare("SELECT payment_hash FROM payments WHERE state IN ('pending', 'unknown')")?;
        Ok(rows.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
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
