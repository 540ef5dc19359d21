//! A wallet's own list against what is on record.
//!
//! Promise: each payment that the wallet says has moved is a settlement or a payout with its
//! amount, and the other way round; what the wallet holds is what it began with and what the ledger
//! says came and went. Parts of a sat, which the books round, are told apart and explained.
//!
//! What changed while the audit looked is left out: the next one sees it.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Direction, Msat, Sats};

use super::report::{Check, Findings};
use crate::store::payments::{Payment as Attempt, PaymentState};
use crate::store::settlements::{Settlement, SettlementStatus};
use crate::wallet::{Flow, PayState, Payment};

const CHECK: Check = Check::Wallet;

/// A wallet as it told itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Every payment in its list.
    pub(super) payments: BTreeMap<PaymentHash, Payment>,
    /// Those that changed while the audit looked.
    pub(super) moved: BTreeSet<PaymentHash>,
    /// What it holds.
    pub(super) balance: Msat,
    /// What it held before its first payment, where that is known.
    pub(super) opening: Option<Msat>,
}

impl Seen {
    /// The payment of a settlement, if it is the one that the wallet told and nothing changed since.
    pub(super) fn still(&self, hash: PaymentHash, flow: Flow) -> Option<&Payment> {
        let payment = self.payments.get(&hash).filter(|payment| payment.flow == flow);
        payment.filter(|_| !self.moved.contains(&hash))
    }
}

/// What is on record of one payment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) settlement: Option<&'a Settlement>,
    pub(super) attempt: Option<&'a Attempt>,
    /// Whether it pays an invoice that we made.
    pub(super) invoiced: bool,
    /// What the ledger has of it in the wallet of the machine, if it has anything.
    pub(super) booked: Option<i64>,
    /// Whether the operator moved it by hand, and the ledger says so.
    pub(super) by_hand: bool,
}

/// A magnitude of msat with its sign.
fn signed(msat: Msat, flow: Flow) -> i128 {
    match flow {
        Flow::Inbound => i128::from(msat.0),
        Flow::Outbound => 0_i128.saturating_sub(i128::from(msat.0)),
    }
}

fn told(payment: &Payment) -> String {
    let way = match payment.flow {
        Flow::Inbound => "in",
        Flow::Outbound => "out",
    };
    match payment.state {
        PayState::Pending => format!("pending {way}"),
        PayState::Failed => format!("failed {way}"),
        PayState::Succeeded { amount, fee, .. } => {
            format!("{} msat {way}, {} msat of fees", amount.0, fee.0)
        }
    }
}

/// One payment of a wallet's list. Returns the msat by which the wallet differs from the ledger for
/// this payment: parts of a sat, and what is under way.
pub(super) fn listed(
    findings: &mut Findings,
    wallet: &str,
    is_machines: bool,
    payment: &Payment,
    known: Known<'_>,
) -> i128 {
    findings.look(CHECK);
    // a million of them hold: words are made for what differs
    let subject = || format!("payment {} of wallet {wallet}", payment.payment_hash);
    let moved = match payment.state {
        PayState::Succeeded { amount, fee, .. } => match payment.flow {
            Flow::Inbound => signed(amount, Flow::Inbound),
            Flow::Outbound => {
                signed(amount, Flow::Outbound).saturating_add(signed(fee, Flow::Outbound))
            }
        },
        // a wallet sets aside what is on its way
        PayState::Pending if payment.flow == Flow::Outbound => {
            let sats = known.attempt.map_or(Sats::ZERO, |attempt| attempt.amount_sats);
            signed(sats.to_msat().unwrap_or_default(), Flow::Outbound)
        }
        PayState::Pending | PayState::Failed => 0,
    };
    match payment.flow {
        Flow::Inbound => inbound(findings, &subject, is_machines, payment, known),
        Flow::Outbound => outbound(findings, &subject, is_machines, payment, known),
    }
    if let (PayState::Succeeded { .. }, None, true) = (payment.state, known.booked, is_machines) {
        let waits = known.attempt.is_some_and(|attempt| attempt.state != PaymentState::Succeeded);
        let nothing = matches!(payment.state, PayState::Succeeded { amount: Msat(..1_000), .. });
        if !waits && !nothing && (known.settlement.is_some() || known.attempt.is_some()) {
            let expected = format!("in the ledger: {}", told(payment));
            findings.differ(CHECK, subject(), expected, "no entry");
        }
    }
    let booked = i128::from(known.booked.unwrap_or(0)).saturating_mul(1_000);
    moved.saturating_sub(booked)
}

fn inbound(
    findings: &mut Findings,
    subject: &dyn Fn() -> String,
    is_machines: bool,
    payment: &Payment,
    known: Known<'_>,
) {
    match (payment.state, known.settlement) {
        (PayState::Succeeded { amount, .. }, Some(settlement)) => {
            let (wire, floor) = (settlement.wire_sats, amount.to_sats_floor());
            if settlement.direction != Direction::CashOut || wire != floor {
                let expected = format!("{wire} sats of {}", settlement.direction);
                findings.differ(CHECK, subject(), expected, told(payment));
            }
        }
        (PayState::Succeeded { .. }, None) if is_machines || known.invoiced => {
            let expected = format!("a settlement of {}", told(payment));
            findings.differ(CHECK, subject(), expected, "none");
        }
        (PayState::Pending | PayState::Failed, Some(settlement)) => {
            let expected = format!("{} sats, as settled", settlement.wire_sats);
            findings.differ(CHECK, subject(), expected, told(payment));
        }
        _ => {}
    }
}

fn outbound(
    findings: &mut Findings,
    subject: &dyn Fn() -> String,
    is_machines: bool,
    payment: &Payment,
    known: Known<'_>,
) {
    let refused = known.settlement.is_some_and(|s| s.status == SettlementStatus::Rejected);
    let Some(attempt) = known.attempt else {
        let moved = matches!(payment.state, PayState::Succeeded { .. });
        if is_machines && moved && !known.by_hand && !refused {
            let expected = format!("a payout of {}", told(payment));
            findings.differ(CHECK, subject(), expected, "none");
        }
        return;
    };
    match (payment.state, attempt.state) {
        (PayState::Succeeded { amount, fee, .. }, PaymentState::Succeeded) => {
            let routing = Sats(fee.0.div_ceil(1_000));
            let expected = (attempt.amount_sats.to_msat().ok(), attempt.fee_paid_sats);
            if expected != (Some(amount), Some(routing)) {
                let paid = attempt.fee_paid_sats.unwrap_or_default();
                let expected = format!("{} sats, {paid} sats of fees", attempt.amount_sats);
                findings.differ(CHECK, subject(), expected, told(payment));
            }
        }
        (_, PaymentState::Pending | PaymentState::Unknown) => {
            findings.wait(CHECK, subject(), "a payout whose end is not on record yet", None);
        }
        (PayState::Failed, PaymentState::Failed) => {}
        (_, state) => {
            let expected = format!("{state}, as recorded");
            findings.differ(CHECK, subject(), expected, told(payment));
        }
    }
}

/// A settlement or a payout on record that its wallet has to know. `seen` is `None` for a wallet
/// that is not configured.
pub(super) fn recorded(
    findings: &mut Findings,
    (wallet, hash): (&str, PaymentHash),
    flow: Flow,
    seen: Option<&Seen>,
) {
    findings.look(CHECK);
    let subject = || format!("payment {hash} of wallet {wallet}");
    let Some(seen) = seen else {
        return findings.differ(CHECK, subject(), "a wallet of the configuration", "none");
    };
    match seen.payments.get(&hash) {
        _ if seen.moved.contains(&hash) => {}
        Some(payment) if payment.flow == flow => {}
        Some(payment) => findings.differ(CHECK, subject(), format!("{flow:?}"), told(payment)),
        None => {
            let expected = "a payment that the wallet knows, as it is on record";
            findings.differ(CHECK, subject(), expected, "none in its list");
        }
    }
}

/// What a machine's wallet holds. `apart` is the msat by which it may differ from the ledger.
pub(super) fn balance(
    findings: &mut Findings,
    wallet: &str,
    seen: &Seen,
    ledger: i64,
    apart: i128,
) {
    let subject = format!("balance of wallet {wallet}");
    if !seen.moved.is_empty() {
        return findings.wait(CHECK, subject, "it moved while the audit looked", None);
    }
    let Some(opening) = seen.opening else {
        let reason = "what it held before its first payment is not known";
        return findings.wait(CHECK, subject, reason, None);
    };
    let booked = i128::from(ledger).saturating_mul(1_000);
    let expected = i128::from(opening.0).saturating_add(booked).saturating_add(apart);
    let words = |msat: i128| format!("{msat} msat");
    findings.same(CHECK, subject, words(expected), words(i128::from(seen.balance.0)));
}
