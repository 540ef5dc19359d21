//! The simulated Lightning node's own books.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A payment that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    /// Whether it came in.
    pub inbound: bool,
    /// What moved, without the routing fee, in msat.
    pub msat: i64,
}

fn books(folder: &Path) -> Result<Value> {
    let path = folder.join("operator/simulated-node.json");
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

fn number(record: &Value, name: &str) -> Result<i64> {
    let number = record["payment"]["state"][name].as_i64();
    number.with_context(|| format!("no {name}: {record}"))
}

/// What moved at the wallets of the node in `folder`, a world's, by payment hash.
///
/// # Errors
/// When the node's books cannot be read.
pub fn node_payments(folder: &Path) -> Result<BTreeMap<String, Paid>> {
    let books = books(folder)?;
    let records = books["records"].as_object().context("a node without records")?;
    let mut paid = BTreeMap::new();
    for record in records.values().filter(|r| r["payment"]["state"]["state"] == "succeeded") {
        let payment = &record["payment"];
        let hash = payment["payment_hash"].as_str().context("no hash")?.to_owned();
        let (inbound, msat) = (payment["flow"] == "inbound", number(record, "amount")?);
        paid.insert(hash, Paid { inbound, msat });
    }
    Ok(paid)
}

/// What a wallet of the node in `folder`, a world's, can spend, in msat.
///
/// # Errors
/// When the node's books cannot be read, or a payment is under way.
pub fn node_balance(folder: &Path, wallet: &str) -> Result<i64> {
    let books = books(folder)?;
    let mut balance = books["funded"][wallet].as_i64().context("the wallet was never funded")?;
    let records = books["records"].as_object().context("a node without records")?;
    for record in records.values().filter(|record| record["wallet"] == wallet) {
        let payment = &record["payment"];
        match (payment["flow"].as_str(), payment["state"]["state"].as_str()) {
            (Some("inbound"), Some("succeeded")) => balance += number(record, "amount")?,
            (Some("outbound"), Some("succeeded")) => {
                balance -= number(record, "amount")? + number(record, "fee")?;
            }
            (Some("inbound"), Some("pending")) => {}
            _ => bail!("expected a payment that has ended, got {record}"),
        }
    }
    Ok(balance)
}
