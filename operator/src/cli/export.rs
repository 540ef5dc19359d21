//! `export ...`: the books for other programs, whole and not a page.
//!
//! Promise: every entry, settlement and balance is in the export once, with all its digits. In CSV a
//! text that a spreadsheet would run is quoted as text; in beancount and ledger-cli each transaction
//! sums to zero in each commodity, as it does here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use bitspire_shared::money::{Currency, Fiat};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::Client;
use super::{CliError, End};
use crate::http::books::{DAY_S, MAX_DAYS, date, day_of};

/// Rows that one question brings.
const PAGE: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum ExportWhat {
    /// Every entry of the ledger, in the order in which they were written
    Ledger {
        /// How it is written
        #[arg(long, value_enum, default_value = "csv")]
        format: Books,
        #[command(flatten)]
        to: Out,
    },
    /// Every settlement
    Settlements(Rows),
    /// What each account held at the end of each day (UTC)
    Balances {
        /// The first day, as 2026-01-31 [default: the first one with an entry]
        #[arg(long, value_name = "DAY")]
        from: Option<String>,
        /// The last day [default: today]
        #[arg(long, value_name = "DAY")]
        until: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// What is promised or owed to customers, with its age
    Liabilities(Rows),
}

/// How books are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Books {
    /// A line for each posting
    Csv,
    /// A JSON object a line
    Json,
    /// For beancount
    Beancount,
    /// For ledger-cli and hledger
    Ledger,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Table {
    /// A line for each
    Csv,
    /// A JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Rows {
    /// How they are written
    #[arg(long, value_enum, default_value = "csv")]
    format: Table,
    #[command(flatten)]
    to: Out,
}

#[derive(Debug, Args)]
pub(super) struct Out {
    /// Write it to this file, which must not be there [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Out {
    fn write(&self, text: &str) -> Result<(), CliError> {
        use std::io::Write as _;
        match &self.out {
            None => Ok(std::io::stdout().write_all(text.as_bytes())?),
            Some(path) => {
                let mut file =
                    std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
                file.write_all(text.as_bytes())?;
                Ok(file.sync_all()?)
            }
        }
    }
}

/// Exports.
pub(super) fn export(client: &Client, what: ExportWhat) -> Result<End, CliError> {
    match what {
        ExportWhat::Ledger { format, to } => {
            let all = pages(client, "/dca/ledger?after=")?;
            let text = match format {
                Books::Csv => csv(POSTINGS, &postings(&all)),
                Books::Json => lines(&all),
                Books::Beancount => books(&all, true),
                Books::Ledger => books(&all, false),
            };
            to.write(&text)?;
        }
        ExportWhat::Settlements(rows) => {
            let all = pages(client, "/dca/settlements/all?after=")?;
            rows.write(SETTLEMENTS, &all)?;
        }
        ExportWhat::Balances { from, until, rows } => {
            rows.write(BALANCES, &balances(client, from.as_deref(), until.as_deref())?)?;
        }
        ExportWhat::Liabilities(rows) => {
            let path = "/dca/liabilities";
            rows.write(LIABILITIES, &list(client.get(path)?.body, path)?)?;
        }
    }
    Ok(End::Done)
}

impl Rows {
    fn write(&self, columns: &[&str], rows: &[Value]) -> Result<(), CliError> {
        self.to.write(&match self.format {
            Table::Csv => csv(columns, rows),
            Table::Json => lines(rows),
        })
    }
}

fn list(body: Value, path: &str) -> Result<Vec<Value>, CliError> {
    match body {
        Value::Array(rows) => Ok(rows),
        _ => Err(CliError::Answer { path: path.to_owned() }),
    }
}

/// All rows, page by page; each page begins after the last row of the one before.
fn pages(client: &Client, path: &str) -> Result<Vec<Value>, CliError> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let asked = format!("{path}{after}&limit={PAGE}");
        let page = list(client.get(&asked)?.body, &asked)?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last["id"].as_i64().ok_or(CliError::Answer { path: asked })?;
        all.extend(page);
    }
}

/// Closing balances, as many days at once as the service answers.
fn balances(
    client: &Client,
    from: Option<&str>,
    until: Option<&str>,
) -> Result<Vec<Value>, CliError> {
    let day = |text| day_of(text).map_err(CliError::Day);
    let from = match from {
        Some(text) => day(text)?,
        None => {
            let path = "/dca/ledger?after=0&limit=1";
            let first = list(client.get(path)?.body, path)?;
            let Some(first) = first.first() else { return Ok(Vec::new()) };
            let at = first["at"].as_u64();
            at.ok_or_else(|| CliError::Answer { path: path.to_owned() })? / DAY_S
        }
    };
    let until = until.map(day).transpose()?.unwrap_or(Clock::system().now().0 / DAY_S);
    let mut all = Vec::new();
    for (first, last) in spans(from, until) {
        let path = format!("/dca/balances?from={}&until={}", date(first), date(last));
        all.extend(list(client.get(&path)?.body, &path)?);
    }
    Ok(all)
}

/// The days from `from` to `until`, in parts of which each fits into one answer.
fn spans(from: u64, until: u64) -> impl Iterator<Item = (u64, u64)> {
    let step = usize::try_from(MAX_DAYS).unwrap_or(usize::MAX);
    let last = move |first: u64| first.saturating_add(MAX_DAYS.saturating_sub(1)).min(until);
    (from..=until).step_by(step).map(move |first| (first, last(first)))
}

const POSTINGS: &[&str] =
    &["id", "at", "time", "kind", "reference", "txid", "account", "unit", "amount", "reason"];
const SETTLEMENTS: &[&str] = &[
    "id",
    "settled_at",
    "machine_id",
    "wallet_id",
    "direction",
    "status",
    "payment_hash",
    "txid",
    "wire_sats",
    "principal_sats",
    "platform_fee_sats",
    "operator_fee_sats",
    "owed_sats",
    "exchange_rate",
    "fiat_minor",
    "fiat_code",
    "fees_event_id",
    "dispense_outcome",
    "distribution",
    "hold_reason",
    "reason",
];
const BALANCES: &[&str] = &["day", "account", "machine_id", "unit", "balance"];
const LIABILITIES: &[&str] = &["machine_id", "txid", "what", "sats", "since", "age_s", "state"];

/// A row for each posting of each entry.
fn postings(entries: &[Value]) -> Vec<Value> {
    let mut rows = Vec::new();
    for entry in entries {
        for line in entry["postings"].as_array().into_iter().flatten() {
            rows.push(json!({
                "id": entry["id"], "at": entry["at"], "time": time(&entry["at"]),
                "kind": entry["kind"], "reference": entry["reference"], "txid": entry["txid"],
                "reason": entry["reason"], "account": line["account"], "unit": line["unit"],
                "amount": line["amount"],
            }));
        }
    }
    rows
}

fn time(at: &Value) -> String {
    Unix(at.as_u64().unwrap_or_default()).to_iso()
}

/// RFC 4180; what a spreadsheet would take for a formula is text.
fn csv(columns: &[&str], rows: &[Value]) -> String {
    let mut text = columns.join(",") + "\r\n";
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|name| cell(&row[*name])).collect();
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => return other.to_string(),
    };
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Where an account of ours stands in a chart of accounts: parts begin with a capital.
fn account(name: &str) -> String {
    let mut parts = name.split(':');
    let (kind, rest) = (parts.next().unwrap_or_default(), parts.collect::<Vec<_>>());
    let place = match kind {
        "wallet" => "Assets:Wallet",
        "stray_wallet" => "Assets:StrayWallet",
        "deposits" => "Assets:Deposits",
        "bay" => "Assets:Bay",
        "reject_bin" => "Assets:RejectBin",
        "cashbox" => "Assets:Cashbox",
        "in_transit" => "Assets:InTransit",
        "super" => "Liabilities:Platform",
        "lp" => "Liabilities:Providers",
        "customer_liability" => "Liabilities:Customers",
        "owed" => "Liabilities:Owed",
        "suspense" => "Liabilities:Suspense",
        "operator" => "Equity:Operator",
        "exchange" => "Equity:Exchange",
        "routing_fees" => "Expenses:Routing",
        "cash_difference" => "Expenses:CashDifference",
        _ => "Equity:Unknown",
    };
    rest.iter().fold(place.to_owned(), |name, part| format!("{name}:{part}"))
}

/// An amount with its commodity: sats as they are, money in its major unit with all its places.
fn amount(line: &Value) -> String {
    let (unit, amount) = (line["unit"].as_str().unwrap_or_default(), &line["amount"]);
    match (unit.parse::<Currency>(), amount.as_i64()) {
        (Ok(currency), Some(minor)) => Fiat::new(minor, currency).to_string(),
        _ => format!("{amount} SATS"),
    }
}

/// Entries for beancount (`opens`: accounts are opened first), or for ledger-cli.
fn books(entries: &[Value], opens: bool) -> String {
    let mut text = String::new();
    if opens {
        text.push_str("option \"title\" \"bitSpire\"\n\n");
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for entry in entries {
            for line in entry["postings"].as_array().into_iter().flatten() {
                let name = account(line["account"].as_str().unwrap_or_default());
                seen.entry(name).or_insert_with(|| day(&entry["at"]));
            }
        }
        for (name, day) in seen {
            let _ = writeln!(text, "{day} open {name}");
        }
        text.push('\n');
    }
    for entry in entries {
        let plain = |value: &Value| -> String {
            let text = value.as_str().unwrap_or_default();
            text.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect()
        };
        let (kind, reference) = (plain(&entry["kind"]), plain(&entry["reference"]));
        let _ = match opens {
            true => writeln!(text, "{} * \"{kind}\" \"{reference}\"", day(&entry["at"])),
            false => writeln!(text, "{} * {kind} {reference}", day(&entry["at"])),
        };
        let mark = if opens { "entry: " } else { "; entry: " };
        let _ = match opens {
            true => writeln!(text, "  {mark}\"{}\"", entry["id"]),
            false => writeln!(text, "    {mark}{}", entry["id"]),
        };
        for line in entry["postings"].as_array().into_iter().flatten() {
            let name = account(line["account"].as_str().unwrap_or_default());
            let _ = writeln!(text, "    {name}  {}", amount(line));
        }
        text.push('\n');
    }
    text
}

fn day(at: &Value) -> String {
    time(at).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Value> {
        vec![json!({
            "id": 7, "at": 1_800_000_000, "kind": "dispensed", "reference": "3:ab:9", "txid": "ab",
            "reason": null, "postings": [
                {"account": "bay:3:1:2000", "unit": "EUR", "amount": -4_000},
                {"account": "exchange:3", "unit": "EUR", "amount": 4_000},
                {"account": "owed:3", "unit": "sats", "amount": -21_000},
                {"account": "exchange:3", "unit": "sats", "amount": 21_000},
            ],
        })]
    }

    /// Loss prevented: books that another program reads otherwise than they are here.
    #[test]
    fn books_are_written_as_other_programs_read_them() {
        let told = books(&entries(), true);
        for line in [
            "2027-01-15 open Assets:Bay:3:1:2000\n",
            "2027-01-15 * \"dispensed\" \"3:ab:9\"\n  entry: \"7\"\n",
            "    Assets:Bay:3:1:2000  -40.00 EUR\n",
            "    Liabilities:Owed:3  -21000 SATS\n",
            "    Equity:Exchange:3  21000 SATS\n",
        ] {
            assert!(told.contains(line), "{line}: {told}");
        }
        let told = books(&entries(), false);
        assert!(told.starts_with("2027-01-15 * dispensed 3:ab:9\n    ; entry: 7\n"), "{told}");
        assert!(!told.contains("open"), "{told}");
    }

    /// Loss prevented: days that an export leaves out or has twice, or more than the service answers.
    #[test]
    fn days_are_asked_for_once_and_in_parts() {
        for (from, until) in [(5, 5), (5, 35), (5, 36), (5, 700), (6, 5)] {
            let mut next = from;
            for (first, last) in spans(from, until) {
                assert_eq!(first, next);
                assert!(last >= first && last - first < MAX_DAYS, "{first} to {last}");
                next = last + 1;
            }
            assert_eq!(next, (until + 1).max(from));
        }
    }

    /// Loss prevented: a machine's name that a spreadsheet runs; an amount with a comma in two cells.
    #[test]
    fn cells_are_text_and_numbers() {
        let rows = [json!({"a": "=cmd()", "b": -5, "c": "x,\"y\"", "d": null})];
        assert_eq!(csv(&["a", "b", "c", "d"], &rows), "a,b,c,d\r\n'=cmd(),-5,\"x,\"\"y\"\"\",\r\n");
        let all = postings(&entries());
        assert_eq!(all.len(), 4);
        assert_eq!(all[0]["time"], "2027-01-15T08:00:00Z");
    }
}
