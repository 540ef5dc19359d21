//! What customers were promised: notes for a payment, sats for notes, and what is owed.
//!
//! Promise: a sale whose notes nobody has reported, and a report that needs a person, are told; the
//! first as waiting, the second as a difference, since notes moved that no entry has.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Direction, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::time::Unix;

use super::report::{Check, Findings};
use super::sale::{Debt, Follows};
use crate::ledger::Account;
use crate::store::claims::{Claim, Owed};
use crate::store::payments::{Payment, PaymentState};
use crate::store::settlements::{Report, Settlement, SettlementStatus};
use crate::store::withdraws::{Withdraw, WithdrawState};

/// How long after its payment a sale may go without a report before it is told.
const REPORT_S: u64 = 900;

/// What came out of the dispenser for a paid cash_out.
pub(super) fn dispense(
    findings: &mut Findings,
    settlement: &Settlement,
    follows: &Follows,
    now: Unix,
) {
    let sold = (SettlementStatus::Accepted, Direction::CashOut);
    if (settlement.status, settlement.direction) != sold {
        return;
    }
    findings.look(Check::Dispense);
    let subject = || format!("settlement {}", settlement.payment_hash);
    for (report, why) in &follows.doubts {
        let expected = format!("report {report}: notes out and notes owed as promised");
        findings.differ(Check::Dispense, subject(), expected, why);
    }
    let words = |outcome: Option<DispenseOutcome>| match outcome {
        None => "not reported".to_owned(),
        Some(outcome) => format!("{outcome:?}").to_lowercase(),
    };
    let (expected, found) = (follows.outcome, settlement.dispense_outcome);
    if expected != found {
        findings.differ(Check::Dispense, subject(), words(expected), words(found));
    }
    let paid = Some(settlement.settled_at);
    match follows.outcome {
        Some(DispenseOutcome::Uncertain) => {
            let reason = "nobody knows where its notes are: a person decides";
            findings.wait(Check::Dispense, subject(), reason, settlement.reported_at);
        }
        None if follows.doubts.is_empty() && now.since(settlement.settled_at) > REPORT_S => {
            let reason = "paid, and not reported by its machine";
            findings.wait(Check::Dispense, subject(), reason, paid);
        }
        _ => {}
    }
}

/// A report has to be about a payment on record.
pub(super) fn report(findings: &mut Findings, report: &Report, settlement: Option<&Settlement>) {
    findings.look(Check::Dispense);
    let of = |s: &Settlement| {
        s.machine_id == report.machine_id
            && s.txid == Some(report.txid)
            && s.status == SettlementStatus::Accepted
    };
    if !settlement.is_some_and(of) {
        let subject = format!("report {} at {}", report.txid, report.journal_seq.0);
        let expected = format!("payment {}, accepted for this sale", report.payment_hash);
        findings.differ(Check::Dispense, subject, expected, "none: notes without a payment");
    }
}

/// A debt against what made it. `expected` is what its payment, report or withdraw makes; a verdict
/// makes debts by itself.
pub(super) fn debt(
    findings: &mut Findings,
    (claim, owed): (&Claim, &Owed),
    expected: Option<&Debt>,
) {
    findings.look(Check::Liabilities);
    let subject = format!("debt {} {}", owed.reason, owed.source);
    match expected {
        Some(debt) if debt.sats == owed.sats => {}
        Some(debt) => {
            let (expected, found) = (format!("{} sats", debt.sats), format!("{} sats", owed.sats));
            findings.differ(Check::Liabilities, &subject, expected, found);
        }
        None => {
            let found = format!("{} sats", owed.sats);
            findings.differ(Check::Liabilities, &subject, "something that makes it", found);
        }
    }
    if owed.withdraw_id.is_none() {
        let reason = format!("{} sats owed to the customer of {}", owed.sats, claim.txid);
        findings.wait(Check::Liabilities, subject, reason, Some(owed.at));
    }
}

/// A withdraw against what it pays, and its end. `settled` is how many settlements of its notes
/// are on record, where one has to be.
pub(super) fn withdraw(
    findings: &mut Findings,
    withdraw: &Withdraw,
    pays: Option<Sats>,
    paid: &[Payment],
    settled: Option<usize>,
) {
    findings.look(Check::Liabilities);
    let subject = format!("withdraw {}", withdraw.withdraw_id);
    if let Some(pays) = pays.filter(|pays| *pays != withdraw.net_sats) {
        let (expected, found) =
            (format!("{pays} sats of debts"), format!("{} sats", withdraw.net_sats));
        findings.differ(Check::Liabilities, &subject, expected, found);
    }
    let times = paid.iter().filter(|attempt| attempt.state == PaymentState::Succeeded).count();
    let due = usize::from(withdraw.state == WithdrawState::Paid);
    if times != due {
        let (expected, found) = (format!("{due} payments"), format!("{times}"));
        findings.differ(Check::Liabilities, &subject, expected, found);
    }
    if matches!(withdraw.state, WithdrawState::Offered | WithdrawState::Bound) {
        let reason = format!("{} sats promised, {}", withdraw.net_sats, withdraw.state);
        findings.wait(Check::Liabilities, &subject, reason, Some(withdraw.created_at));
    }
    if let Some(settled) = settled.filter(|settled| *settled != 1) {
        let expected = "one settlement that distributes its fee";
        findings.differ(Check::Ledger, subject, expected, settled);
    }
}

/// What is promised or owed to a machine's customers, by the rows and by the ledger.
pub(super) fn sum(findings: &mut Findings, account: Account, rows: Sats, ledger: i64) {
    let rows = i64::try_from(rows.0).map_or(i64::MIN, |sats| 0_i64.saturating_sub(sats));
    findings.same(Check::Liabilities, account, format!("{rows} sats"), format!("{ledger} sats"));
}

/// A payout that is not final.
pub(super) fn payout(findings: &mut Findings, hash: PaymentHash, payment: &Payment) {
    if matches!(payment.state, PaymentState::Pending | PaymentState::Unknown) {
        let (subject, since) = (format!("payout {hash}"), Some(payment.started_at));
        findings.wait(Check::Wallet, subject, "its wallet has not said how it ended", since);
    }
}
