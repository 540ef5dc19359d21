//! What moved and where it belongs: invoice, wallet, dispense, parts, legs.

use std::collections::BTreeMap;

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::statement::{Statement, VerdictKind};
use bitspire_shared::time::Unix;

use super::Looked;
use crate::audit::proof::{LegPaid, Provided};
use crate::audit::report::{Check, Findings};
use crate::audit::{books, legs, providers, sale, signed};
use crate::distribute::providers::Portion;
use crate::distribute::{plan, rules};
use crate::ids::RuleSetId;
use crate::rpc::worth;
use crate::store::Kept;
use crate::store::legs::{LegKind, LegState};
use crate::store::payments::{Payment, PaymentState};
use crate::store::rules::KeptRules;
use crate::store::settlements::SettlementStatus;
use crate::wallet::bolt11::Head;

/// Holds the invoice of `payment` against what it has to pay.
fn pays(findings: &mut Findings, subject: &str, payment: &Payment, sats: Sats) {
    bolt11(findings, subject, &payment.bolt11, payment.payment_hash, sats);
    findings.same(Check::Wallet, subject, sats, payment.amount_sats);
}

fn bolt11(findings: &mut Findings, subject: &str, text: &str, hash: PaymentHash, sats: Sats) {
    let expected = format!("an invoice of {sats} sats with the hash {hash}");
    match Head::read(text) {
        Err(error) => findings.differ(Check::Wallet, subject, expected, error),
        Ok(head) if head.payment_hash == hash && head.amount == sats.to_msat().ok() => {}
        Ok(head) => {
            let found = format!("{:?} with the hash {}", head.amount, head.payment_hash);
            findings.differ(Check::Wallet, subject, expected, found);
        }
    }
}

pub(super) fn amounts(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let (proof, hash) = (looked.proof, looked.proof.settlement.payment_hash);
    if let (Some(invoice), Some(quote)) = (&proof.invoice, proof.quotes.first()) {
        bolt11(findings, "invoice", &invoice.bolt11, hash, quote.wire_sats);
        return format!(
            "invoice: signed by its payee, of {} sats as quoted, with the hash {hash}",
            quote.wire_sats
        );
    }
    let Some(promise) = &proof.withdraw else { return "invoice: none".into() };
    let withdraw = &promise.withdraw;
    let quote = |id| proof.quotes.iter().find(move |quote| quote.quote_id == id);
    let lots: Vec<_> =
        promise.lots.iter().filter_map(|lot| Some((quote(lot.quote_id)?, &lot.notes))).collect();
    findings.same(Check::Requests, "locks", promise.lots.len(), lots.len());
    match worth(lots) {
        Err(error) => {
            findings.differ(Check::Requests, "notes", "notes that are worth something", error)
        }
        Ok(worth) => {
            let found = (withdraw.principal_sats, withdraw.platform_fee_sats);
            let found = (found, withdraw.operator_fee_sats, withdraw.net_sats, withdraw.fiat_minor);
            let parts = worth.parts;
            let expected = (Some(parts.principal), Some(parts.platform_fee));
            let expected = (expected, Some(parts.operator_fee), worth.net, Some(worth.value));
            let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
            findings.same(Check::Requests, "worth of the notes", expected, found);
        }
    }
    findings.same(Check::Wallet, "hash of the payment", hash, promise.payment.payment_hash);
    pays(findings, "invoice", &promise.payment, withdraw.net_sats);
    let fiat = Fiat::new(withdraw.fiat_minor.unwrap_or_default(), proof.settlement.fiat_code);
    format!(
        "invoice: notes of {fiat} are worth {} sats at the locked rates; the customer's invoice is \
         of exactly that, with the hash {hash}",
        withdraw.net_sats
    )
}

pub(super) fn wallet(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let (proof, s) = (looked.proof, &looked.proof.settlement);
    let quoted = proof.quotes.first().map(|quote| quote.wire_sats).unwrap_or_default();
    let (way, fits) = match (s.direction, &proof.withdraw) {
        (Direction::CashIn, Some(promise)) => ("paid", promise.withdraw.net_sats == s.wire_sats),
        (_, _) if s.status == SettlementStatus::Under => ("received", s.wire_sats < quoted),
        (_, _) if s.status == SettlementStatus::Accepted => ("received", s.wire_sats >= quoted),
        _ => ("received", true),
    };
    if !fits {
        let expected = format!("what makes the payment {}: {quoted} sats", s.status);
        findings.differ(Check::Wallet, "wallet's record", expected, s.wire_sats);
    }
    if let Some(promise) = &proof.withdraw {
        let expected = PaymentState::Succeeded;
        findings.same(Check::Wallet, "attempt to pay", expected, promise.payment.state);
    }
    // what a wallet keeps beside a payment says what the service wrote; some keep nothing
    let (extra, stamp) = (looked.settlement.extra.as_str(), proof.invoice.as_ref());
    if let (false, Some(invoice)) = (extra == "null", stamp) {
        let (expected, found) = (signed::read(&invoice.stamp), signed::read(extra));
        findings.same(Check::Wallet, "stamp in the wallet's record", expected, found);
    }
    format!(
        "wallet: by the service's word {} {way} {} sats at {}: {}",
        s.wallet_id,
        s.wire_sats,
        s.settled_at.to_iso(),
        s.status
    )
}

pub(super) fn dispense(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let (proof, s) = (looked.proof, &looked.proof.settlement);
    if s.direction == Direction::CashIn {
        return "dispense: none, notes came in".into();
    }
    let mut told = Vec::new();
    for report in &proof.reports {
        signed::report(findings, &looked.keys, report);
        findings.same(Check::Dispense, "transaction of the report", s.txid, report.txid);
        let machine = (proof.machine.id, report.machine_id);
        findings.same(Check::Dispense, "machine of the report", machine.0, machine.1);
        let notes: Vec<_> = report
            .bays
            .0
            .iter()
            .map(|(bay, result)| {
                let note = proof.machine.bays.get(bay).map(|note| note.minor());
                let note = note.map(|minor| Fiat::new(i64::from(minor), s.fiat_code).to_string());
                let note = note.unwrap_or_else(|| "a note".into());
                format!("{} of {} times {note}", result.delivered(), result.requested)
            })
            .collect();
        let owed = Fiat::new(report.owed_minor, s.fiat_code);
        let outcome = format!("{:?}", report.outcome).to_lowercase();
        let seq = report.journal_seq.0;
        told.push(format!("{outcome} at {seq}: {}, {owed} short", notes.join(", ")));
    }
    if told.is_empty() {
        return "dispense: the machine has reported nothing yet".into();
    }
    format!("dispense: as the vault signed it: {}", told.join("; "))
}

/// Whether a verdict of the operator says that the customer has everything.
fn decided(looked: &Looked<'_>, findings: &mut Findings) -> bool {
    let (proof, mut decided) = (looked.proof, false);
    for signed in &proof.verdicts {
        let at = Unix(signed.event().created_at.as_secs());
        let said = proof.operator.map(|operator| signed.check(&operator, at));
        match said {
            Some(Ok(Statement::Verdict { txid, verdict, .. }))
                if txid == Some(proof.settlement.txid) =>
            {
                decided |= verdict == VerdictKind::Settled;
            }
            Some(Err(error)) => {
                let expected = "the operator's signature";
                findings.differ(Check::Dispense, "verdict", expected, error);
            }
            _ => {
                let expected = "a verdict of the operator about this sale";
                findings.differ(Check::Dispense, "verdict", expected, "another statement");
            }
        }
    }
    decided
}

pub(super) fn parts(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let (proof, s) = (looked.proof, &looked.proof.settlement);
    let decided = decided(looked, findings);
    let booked = BTreeMap::new();
    let follows = sale::follows(&sale::Sale {
        settlement: &looked.settlement,
        operator: proof.machine.operator_id,
        stray: false,
        quote: proof.quotes.first(),
        withdraw: proof.withdraw.as_ref().map(|promise| &promise.withdraw),
        reports: &proof.reports,
        booked: &booked,
        decided,
        bays: &proof.machine.bays,
    });
    match follows {
        Err(why) => findings.differ(Check::Ledger, "parts", "parts that can be derived", why),
        Ok(follows) => {
            books::parts(findings, &looked.settlement, &follows);
            for (report, why) in &follows.doubts {
                findings.differ(Check::Dispense, format!("report {report}"), "one that fits", why);
            }
            let (expected, found) = (follows.outcome, s.dispense_outcome);
            let words = |outcome: Option<DispenseOutcome>| format!("{outcome:?}");
            findings.same(Check::Dispense, "outcome", words(expected), words(found));
        }
    }
    format!(
        "parts: of {} sats, {} are principal, {} the platform's, {} the operator's, {} owed to the \
         customer; derived again from quote and reports",
        s.wire_sats, s.principal_sats, s.platform_fee_sats, s.operator_fee_sats, s.owed_sats
    )
}

/// What providers got, derived again from what they could spend, with where their legs went.
fn portions(looked: &Looked<'_>, findings: &mut Findings) -> Vec<Portion> {
    let (proof, s) = (looked.proof, &looked.proof.settlement);
    if proof.providers.is_empty() {
        return Vec::new();
    }
    match proof.quotes.first().filter(|_| s.direction == Direction::CashOut) {
        Some(quote) => {
            let terms = (s.principal_sats, quote.rate_nano, s.fiat_code);
            let each = proof.providers.iter().map(|one| (one.may_minor, (one.sats, one.minor)));
            providers::derived(findings, "the settlement", terms, &each.collect::<Vec<_>>());
        }
        None => findings.differ(Check::Distribution, "providers", "of a cash-out only", "another"),
    }
    let portion = |one: &Provided| {
        let (lp, sats) = (one.lp_id, one.sats);
        let own = proof.rules.iter().find(|set| {
            let of = |one: &LegPaid| one.leg.lp_id == Some(lp) && one.leg.rule_id == Some(set.id);
            set.rules.lp_id == Some(lp) && proof.legs.iter().any(of)
        });
        let to = own.and_then(|set| Some((set.id, set.rules.shares.0.first()?.to.clone())));
        Portion { lp, sats, to }
    };
    proof.providers.iter().map(portion).collect()
}

pub(super) fn distribution(looked: &Looked<'_>, findings: &mut Findings) -> String {
    let (proof, s) = (looked.proof, &looked.proof.settlement);
    for set in &proof.rules {
        let author = if set.rules.operator_id.is_none() { proof.platform } else { proof.operator };
        let authors: Vec<_> = author.into_iter().collect();
        if let Err(why) = rules::holds(&set.rules, &authors) {
            let subject = format!("rules {}", set.id);
            findings.differ(Check::Distribution, subject, "as the owner's key signed them", why);
        }
    }
    let state = match &s.hold_reason {
        Some(why) => format!("{}, {why}", s.distribution),
        None => s.distribution.to_string(),
    };
    if proof.legs.is_empty() {
        return format!("legs: none yet or none due ({state})");
    }
    let kept = |id: Option<RuleSetId>| -> Option<KeptRules> {
        let set = proof.rules.iter().find(|set| Some(set.id) == id)?;
        Some(Kept { id: set.id, row: set.rules.clone() })
    };
    let platform = proof.legs.iter().find(|one| one.leg.kind == LegKind::SuperFee);
    let platform = kept(platform.and_then(|one| one.leg.rule_id));
    let own = kept(proof.own_rules);
    let shares = (plan::shares(platform.as_ref()), plan::shares(own.as_ref()));
    let portions = portions(looked, findings);
    match looked.settlement.parts().map(|parts| plan::legs(parts, shares.0, shares.1, &portions)) {
        Some(Ok(expected)) => {
            let rows = proof.legs.iter().map(|one| (one.id, &one.leg));
            legs::derived(findings, "the settlement", &expected, rows);
        }
        _ => findings.differ(Check::Distribution, "legs", "parts to distribute", "none"),
    }
    let mut told = Vec::new();
    for one in &proof.legs {
        let (leg, subject) = (&one.leg, format!("leg {}", one.id));
        let of = (leg.settlement_id, s.id);
        findings.same(Check::Distribution, &subject, of.1, of.0);
        if let Some(payment) = &one.payment {
            pays(findings, &subject, payment, leg.amount_sats);
            let bound = Some(payment.payment_hash);
            let same = leg.payment_hash == bound;
            if !same {
                let expected = "the hash that was bound to it";
                findings.differ(Check::Distribution, &subject, expected, payment.payment_hash);
            }
        }
        let state = one.payment.as_ref().map(|payment| payment.state);
        let due = match leg.state {
            LegState::Paid => Some(PaymentState::Succeeded),
            LegState::Failed => Some(PaymentState::Failed),
            _ => state.filter(|state| *state != PaymentState::Succeeded),
        };
        let (due, state) = (format!("{due:?}"), format!("{state:?}"));
        findings.same(Check::Distribution, format!("payment of {subject}"), due, state);
        let to = leg.destination.as_ref().map_or("nobody yet".into(), |to| to.0.to_string());
        let hash = leg.payment_hash.map(|hash| format!(" by payment {hash}")).unwrap_or_default();
        told.push(format!("{} {} sats to {to}, {}{hash}", leg.kind, leg.amount_sats, leg.state));
    }
    format!(
        "legs: by rules as their owners signed them ({state}): {}; that a leg was paid is the \
         service's word, its preimage in the receiver's wallet the proof",
        told.join("; ")
    )
}
