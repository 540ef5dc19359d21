//! What must hold whenever the world rests, by everybody's own books: the machine's journal, the
//! operator's database, the Lightning node, the notes of the simulated devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::adversary::dispenses;
use crate::books::{Entry, Journal, Ledger, Paid, Settled, Withdraw, node_payments};
use crate::report::{Report, notes_balanced};
use crate::world::World;

/// A transaction by the machine's journal.
#[derive(Debug, Default)]
struct Sale {
    state: String,
    stage: String,
    /// Notes given, in minor units.
    given: i64,
    /// Notes in the cashbox, in minor units.
    stacked: i64,
    /// What was ordered, in minor units; cash_out only.
    promised: i64,
    doubt: bool,
    intents: i64,
}

fn sales(journal: &Journal) -> Result<BTreeMap<String, Sale>> {
    let mut sales = BTreeMap::<String, Sale>::new();
    for entry in journal.after(0)? {
        let Some(txid) = entry.txid.clone() else { continue };
        let sale = sales.entry(txid).or_default();
        moved(sale, &entry);
        let txn = entry.txn();
        if let Some(state) = entry.state() {
            sale.state = state.to_owned();
            sale.stage = txn["stage"].as_str().unwrap_or_default().to_owned();
            sale.intents += i64::from(entry.kind == "intent" && state == "dispense_committed");
            sale.promised = txn["state"]["cash_out"]["deal"]["fiat"]["minor"].as_i64().unwrap_or(0);
        }
    }
    Ok(sales)
}

fn moved(sale: &mut Sale, entry: &Entry) {
    for moved in entry.cash() {
        let value = |moved: &Value| moved["denomination"].as_i64().unwrap_or(0);
        let out = &moved["dispensed"];
        sale.given += value(out) * out["result"]["presented"].as_i64().unwrap_or(0);
        sale.stacked += value(&moved["stacked"]);
        sale.doubt |= !moved["doubt"].is_null() || !moved["stack_doubt"].is_null();
    }
}

/// Everything that does not hold, in words.
pub(super) fn wrong(world: &World, journal: &Journal) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let sales = sales(journal)?;
    notes(world, journal, &sales, &mut wrong)?;
    let ledger = Ledger::of(world.folder())?;
    let (owed, withdraws) = (ledger.owed()?, ledger.withdraws()?);
    let settled = ledger.settlements()?.into_iter().map(|s| (s.payment_hash.clone(), s));
    let settled: BTreeMap<_, _> = settled.collect();
    let paid = node_payments(world.folder())?;
    into_wallet(&paid, &settled, &sales, &owed, &mut wrong);
    out_of_wallet(&paid, &settled, &withdraws, &sales, &owed, &mut wrong);
    let mut units = BTreeMap::<String, i64>::new();
    for (_, unit, sum, _) in ledger.entries()? {
        *units.entry(unit).or_default() += sum;
    }
    if units.values().any(|sum| *sum != 0) {
        wrong.push("the ledger's debits are not its credits".to_owned());
    }
    for file in fs::read_dir(world.folder().join("logs"))? {
        let file = file?.path();
        let text = fs::read_to_string(&file)?;
        let panic = text.lines().find(|line| line.contains("panicked"));
        wrong.extend(panic.map(|line| format!("{}: {line}", file.display())));
    }
    Ok(wrong)
}

fn notes(
    world: &World,
    journal: &Journal,
    sales: &BTreeMap<String, Sale>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let intents: i64 = sales.values().map(|sale| sale.intents).sum();
    let done = dispenses(world)?;
    if done > intents {
        wrong.push(format!("{done} dispenses for {intents} intents"));
    }
    for (txid, Sale { given, promised, .. }) in sales {
        if given > promised {
            wrong.push(format!("{txid}: {given} given of {promised}"));
        }
    }
    let mut report = Report { figures: Value::Null, failed: Vec::new() };
    notes_balanced(world, &mut report, journal)?;
    let doubted = sales.values().any(|sale| sale.state == "uncertain" && sale.doubt);
    if doubted {
        // what is in doubt cannot be held against anything; a verdict ends it
        let books = journal.bays()?;
        let open = books.values().any(|bay| bay.doubts > 0);
        let open = open || journal.cashbox()?.values().any(|(_, doubts)| *doubts > 0);
        if !open {
            wrong.push("a transaction is uncertain and no note is in doubt".to_owned());
        }
        return Ok(());
    }
    wrong.extend(report.failed);
    Ok(())
}

/// Every sat that came in is settled, owed or suspended; no note is out without one.
fn into_wallet(
    paid: &BTreeMap<String, Paid>,
    settled: &BTreeMap<String, Settled>,
    sales: &BTreeMap<String, Sale>,
    owed: &BTreeMap<String, i64>,
    wrong: &mut Vec<String>,
) {
    let mut paid_for = BTreeSet::new();
    for (hash, Paid { msat, .. }) in paid.iter().filter(|(_, paid)| paid.inbound) {
        let Some(settlement) = settled.get(hash) else {
            wrong.push(format!("{msat} msat paid in to {hash} are nowhere"));
            continue;
        };
        let Settled { txid, status, wire, owed: owes, distribution, .. } = settlement;
        let txid = txid.clone().unwrap_or_default();
        let place = format!("{txid}, {status}, {distribution}");
        if *wire != msat / 1_000 {
            wrong.push(format!("{place}: {wire} sats settled, {msat} msat paid"));
        }
        let Some(sale) = sales.get(&txid) else {
            wrong.push(format!("{place}: the machine knows no such transaction"));
            continue;
        };
        paid_for.insert(txid.clone());
        let claim = owed.get(&txid).copied().unwrap_or(0);
        let Sale { state, given, promised, .. } = sale;
        let place = format!("{place}: {state} by the machine, {given} of {promised} given");
        if claim != *owes {
            wrong.push(format!("{place}: {owes} sats owed, {claim} claimed"));
        }
        // rejected and held sats are suspended: a person looks
        let suspended = ["held", "rejected"].contains(&distribution.as_str());
        match status.as_str() {
            "accepted" if state == "settled" && (given != promised || suspended) => {
                wrong.push(format!("{place}: not all given, or not told"));
            }
            "accepted" if state == "settled" => {}
            "accepted" if state == "short_dispensed" && (*owes == 0 || suspended) => {
                wrong.push(format!("{place}: owes {owes}"));
            }
            "accepted" if !suspended && *given == 0 && owes != wire => {
                wrong.push(format!("{place}: {wire} sats paid, {owes} owed, for nothing"));
            }
            "late" | "under" if owes != wire || *given != 0 => {
                wrong.push(format!("{place}: {wire} sats paid, {owes} owed"));
            }
            _ => {}
        }
    }
    for (txid, sale) in sales.iter().filter(|(_, sale)| sale.given > 0) {
        if !paid_for.contains(txid) {
            wrong.push(format!("{txid}: {} given, nothing paid", sale.given));
        }
    }
}

/// Every sat that went out was promised for notes or a debt, once; every note is paid or owed.
fn out_of_wallet(
    paid: &BTreeMap<String, Paid>,
    settled: &BTreeMap<String, Settled>,
    withdraws: &BTreeMap<String, Withdraw>,
    sales: &BTreeMap<String, Sale>,
    owed: &BTreeMap<String, i64>,
    wrong: &mut Vec<String>,
) {
    let mut known = BTreeSet::new();
    for (id, withdraw) in withdraws {
        let Withdraw { txid, purpose, state, net, fiat, hashes } = withdraw;
        let place = format!("{txid}, withdraw {id} for {purpose}, {state}");
        known.extend(hashes.iter());
        if hashes.len() > 1 {
            wrong.push(format!("{place}: paid {} times", hashes.len()));
        }
        if hashes.is_empty() == (state == "paid") {
            wrong.push(format!("{place}: its payment says otherwise"));
        }
        for hash in hashes {
            let msat = paid.get(hash).filter(|paid| !paid.inbound).map(|paid| paid.msat);
            if msat != Some(net * 1_000) {
                wrong.push(format!("{place}: {msat:?} msat paid by the node for {net} sats"));
            }
            let booked = settled.get(hash).filter(|s| s.withdraw_id.as_ref() == Some(id));
            if purpose == "cash_in" && booked.is_none() {
                wrong.push(format!("{place}: paid and not settled"));
            }
        }
        let stacked = sales.get(txid).map(|sale| sale.stacked);
        if purpose == "cash_in" && stacked != Some(*fiat) {
            wrong.push(format!("{place}: for {fiat}, the machine stacked {stacked:?}"));
        }
    }
    let out = paid.iter().filter(|(_, paid)| !paid.inbound);
    for (hash, Paid { msat, .. }) in out.filter(|(hash, _)| !known.contains(hash)) {
        wrong.push(format!("{msat} msat went out to {hash}, which nobody has written down"));
    }
    for (txid, sale) in sales.iter().filter(|(_, sale)| sale.stacked > 0) {
        let Sale { state, stage, stacked, .. } = sale;
        let withdraw = withdraws.values().find(|w| w.txid == *txid && w.purpose == "cash_in");
        let place = format!("{txid}: {stacked} stacked, {state} by the machine");
        match (withdraw, state.as_str()) {
            (_, "uncertain") => {}
            // it is still asked for
            (None, "offered") => {}
            (None, _) => wrong.push(format!("{place}, no withdraw")),
            (Some(w), "redeemed") if w.state != "paid" => {
                wrong.push(format!("{place}, withdraw {}", w.state));
            }
            // until then the claim code brings the withdraw itself
            (Some(w), _) if w.state == "expired" && owed.get(txid) != Some(&w.net) => {
                wrong.push(format!("{place}, {} sats promised, {:?} owed", w.net, owed.get(txid)));
            }
            (Some(w), _) if w.state == "paid" && stage == "open" => {
                wrong.push(format!("{place}, paid while notes may still move"));
            }
            _ => {}
        }
    }
}
