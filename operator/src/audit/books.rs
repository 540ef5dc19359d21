//! Entries of the ledger against what they have to be.
//!
//! Promise: an entry holds if it balances, if its postings are its lines, if what it books is on
//! record, and if it is what follows from that record. An entry that is missing, one that differs
//! and one that nothing made are three differences.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bitspire_shared::split::Parts;

use super::report::{Check, Findings};
use super::sale::{Debt, Follows};
use crate::ids::EntryId;
use crate::ledger::{Account, Balances, Closings, Entry, EntryKind, Finding};
use crate::store::claims::Owed;
use crate::store::ledger::{Closing, Written};
use crate::store::settlements::Settlement;

/// An entry on one line.
pub(super) fn in_words(entry: &Entry) -> String {
    let mut words = String::new();
    for (n, line) in entry.postings().iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // writing to a string does not fail
        let _ = write!(words, "{comma}{} {:+} {}", line.account, line.amount, line.unit);
    }
    words
}

/// How an entry is called.
pub(super) fn name(kind: EntryKind, reference: &str) -> String {
    format!("entry {} {reference}", kind.as_str())
}

/// The entry that has to be there against the one that is.
pub(super) fn entry(findings: &mut Findings, expected: &Entry, found: Option<&Entry>) {
    findings.look(Check::Ledger);
    let subject = || name(expected.kind(), expected.reference());
    match found {
        None => findings.differ(Check::Ledger, subject(), in_words(expected), "no such entry"),
        Some(found)
            if found.postings() == expected.postings() && found.txid() == expected.txid() => {}
        Some(found) => {
            findings.differ(Check::Ledger, subject(), in_words(expected), in_words(found));
        }
    }
}

/// An entry as it is written: it reads, and its postings are its lines.
pub(super) fn written(findings: &mut Findings, written: &Written) {
    findings.look(Check::Ledger);
    let subject = || format!("entry {}", written.id);
    match &written.booked {
        Err(error) => findings.differ(Check::Ledger, subject(), "a balanced entry", error),
        Ok(booked) if booked.entry.postings() == written.postings => {}
        Ok(booked) => {
            let mut found = String::new();
            for line in &written.postings {
                let _ = write!(found, "{} {:+} {}; ", line.account, line.amount, line.unit);
            }
            let subject = format!("postings of {}", subject());
            findings.differ(Check::Ledger, subject, in_words(&booked.entry), found);
        }
    }
}

/// An entry of which nothing on record is the reason.
pub(super) fn beside(findings: &mut Findings, id: EntryId, entry: &Entry) {
    let subject = format!("entry {id}");
    let what = name(entry.kind(), entry.reference());
    let expected = "a settlement, payout, report or load that makes it";
    findings.differ(Check::Ledger, subject, expected, format!("none for {what}"));
}

/// What cannot be true of the postings as a whole. Notes of machines that are `loading` or selling
/// are told as waiting: the ledger may have what came out before what was put in.
pub(super) fn sums(
    findings: &mut Findings,
    found: &[Finding],
    loading: impl Fn(crate::ids::MachineId) -> bool,
) {
    for finding in found {
        let subject = match finding {
            Finding::Unbalanced { entry, .. } | Finding::Unit { entry, .. } => {
                format!("entry {entry}")
            }
            Finding::Sign {
                account:
                    Account::Bay(machine, ..)
                    | Account::Cashbox(machine, _)
                    | Account::RejectBin(machine, _),
                ..
            } if loading(*machine) => {
                findings.wait(Check::Ledger, finding, "what was put in is not booked yet", None);
                continue;
            }
            // the ledger does not have what a wallet held at first; its own balance is compared
            Finding::Sign { account: Account::Wallet(_), .. } => continue,
            Finding::Sign { account, .. } => account.to_string(),
        };
        findings.differ(Check::Ledger, subject, "a ledger that can be true", finding);
    }
}

/// Balances by the entries' lines against those by their postings.
pub(super) fn balances(findings: &mut Findings, lines: &Balances, posted: &Balances) {
    let mut accounts: Vec<_> = lines.iter().chain(posted.iter()).map(|(a, u, _)| (a, u)).collect();
    accounts.sort_unstable();
    accounts.dedup();
    for (account, unit) in accounts {
        let subject = format!("balance of {account} in {unit}");
        findings.same(Check::Ledger, subject, lines.of(account, unit), posted.of(account, unit));
    }
}

/// What each account held at the end of each day by the entries' lines, against what is kept and shown.
pub(super) fn closings(findings: &mut Findings, lines: &Closings, kept: &[Closing]) {
    let mut days: BTreeMap<_, (Option<i128>, Option<i128>)> = BTreeMap::new();
    for (account, unit, day, balance) in lines.iter() {
        days.entry((account, unit, day)).or_default().0 = Some(balance);
    }
    for one in kept {
        let day = days.entry((one.account, one.unit, one.day)).or_default();
        day.1 = Some(i128::from(one.balance));
    }
    let words = |balance: Option<i128>| balance.map_or("none".into(), |sum| sum.to_string());
    for ((account, unit, day), (lines, kept)) in days {
        let subject = format!("kept balance of {account} in {unit} at the end of day {day}");
        findings.same(Check::Ledger, subject, words(lines), words(kept));
    }
}

fn parts_in_words(parts: Option<Parts>) -> String {
    let Some(Parts { principal, platform_fee, operator_fee, owed }) = parts else {
        return "no parts".into();
    };
    format!("principal {principal}, platform {platform_fee}, operator {operator_fee}, owed {owed}")
}

/// Where the sats of a settlement belong, by its row.
pub(super) fn parts(findings: &mut Findings, settlement: &Settlement, follows: &Follows) {
    findings.look(Check::Ledger);
    let found = settlement.parts();
    if follows.parts != found {
        let subject = format!("settlement {}", settlement.payment_hash);
        let (expected, found) = (parts_in_words(follows.parts), parts_in_words(found));
        findings.differ(Check::Ledger, subject, expected, found);
    }
}

/// A debt that has to be there against the one that is.
pub(super) fn debt(findings: &mut Findings, expected: &Debt, found: Option<&Owed>) {
    let subject = format!("debt {} {}", expected.reason, expected.source);
    let found = found.map_or("no such debt".into(), |debt| format!("{} sats", debt.sats));
    findings.same(Check::Dispense, subject, format!("{} sats", expected.sats), found);
}
