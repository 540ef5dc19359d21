//! What left the machines' wallets for whoever earned it.
//!
//! Promise: the legs of a settlement are derived again from its parts and the rule sets that were in
//! force when they were planned, and held against the rows; a rule set, against the owner's
//! signature; a leg, against its payment and its entry. A settlement is processed when each of its
//! legs has ended, and not before. What is not distributed yet is told as waiting, with its reason.

use bitspire_shared::ids::PubKey;
use bitspire_shared::money::Sats;

use super::gather::{Gather, PAGE};
use super::report::{Check, Findings};
use crate::distribute::{pay::earner, plan, rules as signed};
use crate::ids::{LegId, LpId, RuleSetId, SettlementId};
use crate::ledger::{leg_by_hand, leg_paid};
use crate::store::legs::{KeptLeg, Leg, LegKind, LegState, NewLeg};
use crate::store::payments::{Payment, PaymentState, Subject};
use crate::store::rules::{Destination, KeptRules};
use crate::store::settlements::{Distribution, Settlement};
use crate::store::{Kept, StoreError, legs, lps, operators, payments, rules, settlements};

const CHECK: Check = Check::Distribution;

/// A leg as it is told: part, amount, rule set, destination.
fn words(
    kind: LegKind,
    lp: Option<LpId>,
    amount: Sats,
    to: Option<(RuleSetId, &Destination)>,
) -> String {
    let kind = lp.map_or(kind.to_string(), |lp| format!("{kind} of provider {lp}"));
    match to {
        Some((rule, to)) => format!("{kind} {amount} to {to} by rules {rule}"),
        None => format!("{kind} {amount}, waiting"),
    }
}

/// The legs of `subject` against those that follow from its parts and rules.
pub(super) fn derived<'a>(
    findings: &mut Findings,
    subject: &str,
    expected: &[NewLeg],
    rows: impl Iterator<Item = (LegId, &'a Leg)>,
) {
    let told = |leg: &NewLeg| {
        words(leg.kind, leg.lp, leg.amount, leg.to.as_ref().map(|(id, to)| (*id, to)))
    };
    let expected: Vec<_> = expected.iter().map(told).collect();
    let mut planned = 0_usize;
    for (id, leg) in rows {
        planned = planned.saturating_add(usize::from(leg.round == 1));
        let place = usize::try_from(leg.position.saturating_sub(1)).unwrap_or(usize::MAX);
        let wanted = expected.get(place).map_or("no such leg", String::as_str);
        let to = leg.rule_id.zip(leg.destination.as_ref()).map(|(id, to)| (id, &to.0));
        let found = words(leg.kind, leg.lp_id, leg.amount_sats, to);
        let subject = format!("leg {id} of {subject}");
        findings.same(CHECK, subject, wanted.to_owned(), found);
    }
    findings.same(CHECK, format!("legs of {subject}"), expected.len(), planned);
}

impl Gather<'_> {
    /// The legs of a settlement against those that follow from it.
    pub(super) fn distribution(
        &mut self,
        kept: &Kept<SettlementId, Settlement>,
    ) -> Result<(), StoreError> {
        let settlement = &kept.row;
        let hash = settlement.payment_hash;
        let subject = || format!("settlement {hash}");
        let rows = legs::of_settlement(self.read, kept.id)?;
        self.findings.look(CHECK);
        match settlement.distribution {
            Distribution::Rejected => {}
            Distribution::Processed => {
                let open = |leg: &KeptLeg| {
                    matches!(leg.state, LegState::Planned | LegState::Bound | LegState::Failed)
                };
                let latest = match rows.is_empty() {
                    true => Vec::new(),
                    false => legs::latest(self.read, kept.id)?,
                };
                if let Some(leg) = latest.iter().find(|leg| open(leg)) {
                    let found = format!("leg {} is {}", leg.id, leg.state);
                    self.findings.differ(CHECK, subject(), "every leg ended", found);
                }
            }
            state => {
                let why = settlement.hold_reason.as_deref().unwrap_or("its legs have not ended");
                // most of them are more than are listed: words are made for those only
                self.findings.wait(
                    CHECK,
                    format_args!("settlement {hash}"),
                    format_args!("not distributed, {state}: {why}"),
                    Some(settlement.settled_at),
                );
            }
        }
        let Some(parts) = settlement.parts() else { return Ok(()) };
        let Some(first) = rows.first() else {
            if !lps::shares_of(self.read, kept.id)?.is_empty() {
                self.findings.differ(CHECK, subject(), "legs of what its providers got", "none");
            }
            // the platform's fee has a leg whether or not it has a wallet
            let ended = settlement.distribution == Distribution::Processed;
            if ended && parts.platform_fee > Sats::ZERO {
                let expected = format!("a leg of {} sats", parts.platform_fee);
                self.findings.differ(CHECK, subject(), expected, "none");
            }
            return Ok(());
        };
        let subject = subject();
        let Some(machine) = self.machines.get(&settlement.machine_id) else { return Ok(()) };
        // the platform's may have come later, where there was none
        let platform = rows.iter().find(|leg| leg.kind == LegKind::SuperFee);
        let platform = match platform.and_then(|leg| leg.rule_id) {
            Some(id) => rules::find(self.read, id)?,
            None => None,
        };
        let (operator, at) = (machine.row.operator_id, first.planned_at);
        let own = rules::of_operator(self.read, operator, settlement.machine_id, at)?;
        let shares = (plan::shares(platform.as_ref()), plan::shares(own.as_ref()));
        let portions = self.portions(kept, &subject)?;
        let expected = match plan::legs(parts, shares.0, shares.1, &portions) {
            Ok(legs) => legs,
            Err(error) => {
                self.findings.differ(CHECK, subject, "parts that can be distributed", error);
                return Ok(());
            }
        };
        derived(&mut self.findings, &subject, &expected, rows.iter().map(|leg| (leg.id, &leg.row)));
        Ok(())
    }

    /// Each rule set against its signature; each leg against its payment and its entry.
    pub(super) fn legs(&mut self) -> Result<(), StoreError> {
        let operators = operators::list(self.read)?;
        let first: Vec<PubKey> = operators.first().and_then(|one| one.pubkey).into_iter().collect();
        for kept in rules::list(self.read, None)? {
            let own = operators.iter().filter(|one| Some(one.id) == kept.operator_id);
            let own: Vec<PubKey> = own.filter_map(|one| one.pubkey).collect();
            let authors = if kept.operator_id.is_none() { &first } else { &own };
            self.rule_set(&kept, authors);
        }
        let mut after = LegId(0);
        loop {
            let page = legs::page(self.read, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for leg in &page {
                self.leg(leg)?;
            }
        }
    }

    fn rule_set(&mut self, kept: &KeptRules, authors: &[PubKey]) {
        self.findings.look(CHECK);
        if let Err(why) = signed::holds(&kept.row, authors) {
            let subject = format!("rules {}", kept.id);
            self.findings.differ(CHECK, subject, "rules as the owner's key signed them", why);
        }
    }

    pub(super) fn leg(&mut self, leg: &KeptLeg) -> Result<(), StoreError> {
        let subject = format!("leg {}", leg.id);
        let all = payments::of_subject(self.read, Subject::Leg(leg.id))?;
        let expected = match leg.state {
            LegState::Planned | LegState::Void | LegState::ByHand | LegState::Kept => None,
            LegState::Bound => Some("one that is open"),
            LegState::Paid => Some("one that succeeded"),
            LegState::Failed => Some("one that failed"),
        };
        let states = all.iter().map(|one| match one.state {
            PaymentState::Pending | PaymentState::Unknown => "one that is open",
            PaymentState::Succeeded => "one that succeeded",
            PaymentState::Failed => "one that failed",
        });
        let found: Vec<_> = states.collect();
        let expected: Vec<_> = expected.into_iter().collect();
        let (expected, told) = (expected.join(", "), found.join(", "));
        self.findings.same(CHECK, format!("payments of {subject}"), expected, told);
        if let Some(payment) = all.first() {
            let (expected, found) = (leg.amount_sats, payment.amount_sats);
            self.findings.same(CHECK, format!("payment of {subject}"), expected, found);
            let same = Some(payment.payment_hash) == leg.payment_hash;
            if !same {
                self.findings.differ(CHECK, &subject, "the hash that was bound", "another one");
            }
        }
        if leg.kind == LegKind::OperatorSplit {
            return Ok(());
        }
        let Some(settlement) = settlements::find(self.read, leg.settlement_id)? else {
            return Ok(());
        };
        let Some(machine) = self.machines.get(&settlement.machine_id) else { return Ok(()) };
        let operator = machine.row.operator_id;
        let whose = earner(leg, operator);
        if leg.state == LegState::ByHand
            && let Ok(entry) =
                leg_by_hand(whose, operator, leg.id, settlement.txid, leg.amount_sats)
        {
            self.has(&entry)?;
        }
        self.unshared(&settlement, leg.id, leg)
    }

    /// The entry of a leg's payment that succeeded.
    pub(super) fn leg_payment(&mut self, payment: &Payment) -> Result<(), StoreError> {
        let hash = payment.payment_hash;
        let leg = match payment.subject_id.parse() {
            Ok(id) => legs::find(self.read, id)?,
            Err(_) => None,
        };
        let settlement = match &leg {
            Some(leg) => settlements::find(self.read, leg.settlement_id)?,
            None => None,
        };
        let (Some(leg), Some(settlement)) = (leg, settlement) else {
            let subject = format!("payout {hash}");
            self.findings.differ(CHECK, subject, "the leg that it pays", "none");
            return Ok(());
        };
        let Some(machine) = self.machines.get(&settlement.machine_id) else { return Ok(()) };
        let earner = earner(&leg, machine.row.operator_id);
        let routing = payment.fee_paid_sats.unwrap_or_default();
        let (id, txid) = (settlement.machine_id, settlement.txid);
        if let Ok(entry) = leg_paid(id, earner, hash, txid, leg.amount_sats, routing) {
            self.has(&entry)?;
        }
        Ok(())
    }
}
