//! Reads what goes to customers: withdraws, attempts to pay them, debts; and what made an entry.

use bitspire_shared::batch::Signed;
use bitspire_shared::ids::{ChangeId, PaymentHash, TxnId, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::split::Parts;

use super::gather::{Gather, PAGE, spoke};
use super::report::Check;
use super::sale::Debt;
use super::{books, promises, signed};
use crate::ids::{EntryId, MachineId, PaymentId};
use crate::ledger::{
    Customer, Entry, EntryKind, StackBooking, liability_to_owed, paid_out, stacked,
};
use crate::rpc::worth;
use crate::store::claims::{Claim, Owed, OwedReason};
use crate::store::legs::LegState;
use crate::store::payments::{Payment, PaymentState, Subject, SubjectKind};
use crate::store::settlements::SettlementStatus;
use crate::store::withdraws::{Lot, Purpose, Withdraw, WithdrawState};
use crate::store::{
    StoreError, cassettes, claims, ledger, legs, payments, quotes, settlements, withdraws,
};
use crate::wallet::Flow;

impl Gather<'_> {
    pub(super) fn withdraws(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = withdraws::page(self.read, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.withdraw_id);
            for withdraw in &page {
                self.withdraw(withdraw)?;
            }
        }
    }

    fn withdraw(&mut self, withdraw: &Withdraw) -> Result<(), StoreError> {
        let id = withdraw.withdraw_id;
        let kept = payments::of_subject(self.read, Subject::Withdraw(id))?;
        let attempts: Vec<Payment> = kept.into_iter().map(|kept| kept.row).collect();
        let (pays, settled) = match withdraw.purpose {
            Purpose::Owed => {
                let debts = claims::paid_by(self.read, id)?;
                (Sats::sum(debts.iter().map(|debt| debt.sats)).ok(), None)
            }
            Purpose::CashIn => {
                self.stack(withdraw)?;
                (None, self.settled(withdraw, &attempts)?)
            }
        };
        promises::withdraw(&mut self.findings, withdraw, pays, &attempts, settled);
        Ok(())
    }

    /// The settlements of a cash_in's notes, once its customer was paid.
    fn settled(
        &self,
        withdraw: &Withdraw,
        attempts: &[Payment],
    ) -> Result<Option<usize>, StoreError> {
        let id = withdraw.withdraw_id;
        let mut paid: Vec<Payment> = attempts.to_vec();
        if withdraw.state == WithdrawState::Expired {
            let debt = claims::by_source(self.read, OwedReason::Unclaimed, &id.to_string())?;
            if let Some(payer) = debt.and_then(|debt| debt.withdraw_id) {
                let more = payments::of_subject(self.read, Subject::Withdraw(payer))?;
                paid.extend(more.into_iter().map(|kept| kept.row));
            }
        }
        let paid = paid.iter().find(|attempt| attempt.state == PaymentState::Succeeded);
        // what moved while the audit looked is settled by the next look at the wallet's list
        let due = paid.is_some_and(|attempt| {
            let seen = self.given.wallets.get(&attempt.wallet_id);
            seen.is_some_and(|seen| !seen.moved.contains(&attempt.payment_hash))
        });
        if !due {
            return Ok(None);
        }
        let mut all = settlements::of_withdraw(self.read, withdraw.machine_id, withdraw.txid, id)?;
        all.retain(|settlement| settlement.status == SettlementStatus::Accepted);
        Ok(Some(all.len()))
    }

    /// The entries of a cash_in, made again from its notes and their locks.
    fn stack(&mut self, withdraw: &Withdraw) -> Result<(), StoreError> {
        let Some(machine) = self.machines.get(&withdraw.machine_id) else { return Ok(()) };
        let (operator, currency) = (machine.row.operator_id, machine.row.currency);
        let lots = withdraws::lots(self.read, withdraw.withdraw_id)?;
        self.locks(withdraw, &lots)?;
        let mut locked = Vec::new();
        for lot in &lots {
            if let Some(quote) = quotes::find(self.read, lot.quote_id)? {
                locked.push((quote, &lot.notes));
            }
        }
        let worth = worth(locked.iter().map(|(quote, notes)| (quote, *notes)));
        let entry = worth.map_err(|e| e.to_string()).and_then(|worth| {
            let booking = StackBooking {
                machine: withdraw.machine_id,
                operator,
                txid: withdraw.txid,
                withdraw: withdraw.withdraw_id,
                currency,
                notes: &worth.notes,
                net: worth.net,
                parts: worth.parts,
            };
            stacked(&booking).map_err(|e| e.to_string()).map(|entry| (entry, worth))
        });
        let subject = format!("withdraw {}", withdraw.withdraw_id);
        match entry {
            Ok((entry, worth)) => {
                let Parts { principal, platform_fee, operator_fee, .. } = worth.parts;
                let words = |net: Sats, minor: i64, parts: [Sats; 3]| {
                    let [principal, platform, operator] = parts;
                    format!("{net} sats for {minor}: {principal} - {platform} - {operator}")
                };
                let parts = [principal, platform_fee, operator_fee];
                let expected = words(worth.net, worth.value, parts);
                let kept = [
                    withdraw.principal_sats.unwrap_or_default(),
                    withdraw.platform_fee_sats.unwrap_or_default(),
                    withdraw.operator_fee_sats.unwrap_or_default(),
                ];
                let minor = withdraw.fiat_minor.unwrap_or_default();
                let found = words(withdraw.net_sats, minor, kept);
                self.findings.same(Check::Ledger, subject, expected, found);
                self.has(&entry)?;
            }
            Err(why) => {
                self.findings.differ(Check::Ledger, subject, "notes under their locks", why);
            }
        }
        if withdraw.state == WithdrawState::Expired {
            let (machine, id, txid) = (withdraw.machine_id, withdraw.withdraw_id, withdraw.txid);
            if let Ok(entry) = liability_to_owed(machine, id, txid, withdraw.net_sats) {
                self.has(&entry)?;
            }
        }
        Ok(())
    }

    /// The entry has to be there.
    pub(super) fn has(&mut self, expected: &Entry) -> Result<(), StoreError> {
        let found = self.rows.entry(expected.kind(), expected.reference())?;
        books::entry(&mut self.findings, expected, found.as_ref());
        Ok(())
    }

    /// The signatures of a cash_in's claim and of its locks.
    fn locks(&mut self, withdraw: &Withdraw, lots: &[Lot]) -> Result<(), StoreError> {
        let id = withdraw.machine_id;
        let Some(machine) = self.machines.get(&id) else { return Ok(()) };
        let read = self.read;
        let speaks = |key| spoke(read, id, key);
        signed::withdraw(&mut self.findings, &machine.keys, (withdraw, lots), &speaks);
        for lot in lots {
            let Some(quote) = quotes::find(self.read, lot.quote_id)? else { continue };
            let document = self.rows.document(quote.fees_event_id)?;
            let (findings, at_once) = (&mut self.findings, &mut |one: Signed| one.holds());
            signed::by_service(findings, &machine.keys, &quote, None, at_once);
            signed::quote(findings, &quote, &document, machine.operator);
        }
        Ok(())
    }

    pub(super) fn payouts(&mut self) -> Result<(), StoreError> {
        let mut after = PaymentId(0);
        loop {
            let page = payments::page(self.read, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for payment in &page {
                self.payout(payment)?;
            }
        }
    }

    pub(super) fn payout(&mut self, payment: &Payment) -> Result<(), StoreError> {
        let hash = payment.payment_hash;
        promises::payout(&mut self.findings, hash, payment);
        if payment.state != PaymentState::Succeeded {
            return Ok(());
        }
        self.in_wallet(&payment.wallet_id, hash, Flow::Outbound);
        if payment.subject == SubjectKind::Leg {
            return self.leg_payment(payment);
        }
        let id: Option<WithdrawId> = payment.subject_id.parse().ok();
        let withdraw = match id {
            Some(id) => withdraws::find(self.read, id)?,
            None => None,
        };
        let Some(withdraw) = withdraw else {
            let subject = format!("payout {hash}");
            self.findings.differ(Check::Ledger, subject, "the withdraw that it pays", "none");
            return Ok(());
        };
        let customer = match withdraw.purpose {
            Purpose::CashIn => Customer::Withdraw,
            Purpose::Owed => Customer::Claim,
        };
        let routing = payment.fee_paid_sats.unwrap_or_default();
        let (machine, txid, wire) = (withdraw.machine_id, withdraw.txid, payment.amount_sats);
        if let Ok(entry) = paid_out(machine, customer, hash, txid, wire, routing) {
            self.has(&entry)?;
        }
        Ok(())
    }

    pub(super) fn debts(&mut self) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let page = claims::page(self.read, after, PAGE)?;
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            for (_, claim, owed) in &page {
                self.debt(claim, owed)?;
            }
        }
    }

    fn debt(&mut self, claim: &Claim, owed: &Owed) -> Result<(), StoreError> {
        let settlement = match owed.reason {
            OwedReason::Undispensed => {
                let mut all = settlements::of_txn(self.read, claim.machine_id, claim.txid)?;
                all.retain(|settlement| settlement.status == SettlementStatus::Accepted);
                all.pop()
            }
            _ => match owed.source.parse::<PaymentHash>() {
                Ok(hash) => settlements::by_hash(self.read, hash)?,
                Err(_) => None,
            },
        };
        let expected = match (owed.reason, settlement) {
            // a person's word, kept in the log
            (OwedReason::Verdict | OwedReason::Misrouted | OwedReason::Twice, _) => {
                let (reason, source, sats) = (owed.reason, owed.source.clone(), owed.sats);
                Some(Debt { reason, source, sats })
            }
            (OwedReason::Unclaimed, _) => match owed.source.parse() {
                Ok(id) => withdraws::find(self.read, id)?
                    .filter(|withdraw| withdraw.state == WithdrawState::Expired)
                    .map(|withdraw| Debt {
                        reason: owed.reason,
                        source: owed.source.clone(),
                        sats: withdraw.net_sats,
                    }),
                Err(_) => None,
            },
            (_, Some(settlement)) => {
                let quote = self.rows.quote(&settlement)?;
                let follows = self.follows(&settlement, quote.as_deref())?.unwrap_or_default();
                let same = |debt: &Debt| debt.reason == owed.reason && debt.source == owed.source;
                follows.debts.into_iter().find(same)
            }
            (_, None) => None,
        };
        promises::debt(&mut self.findings, (claim, owed), expected.as_ref());
        Ok(())
    }

    /// Whether something on record makes this entry. What it has to say is held where that is
    /// looked at.
    pub(super) fn has_reason(&self, entry: &Entry) -> Result<bool, StoreError> {
        let (read, reference) = (self.read, entry.reference());
        let hash = || reference.parse::<PaymentHash>().ok();
        if let Some(event) = reference.strip_prefix("service:") {
            return self.by_service(event, entry);
        }
        Ok(match entry.kind() {
            EntryKind::Settled | EntryKind::OwedWhole | EntryKind::Suspended => match hash() {
                Some(hash) => match settlements::by_hash(read, hash)? {
                    Some(settlement) => {
                        let quote = self.rows.quote(&settlement)?;
                        let follows = self.follows(&settlement, quote.as_deref())?;
                        follows
                            .unwrap_or_default()
                            .entries
                            .iter()
                            .any(|one| one.kind() == entry.kind())
                    }
                    None => false,
                },
                None => settlements::knows_repeat(read, reference)?,
            },
            EntryKind::SuspenseResolved => match hash() {
                Some(hash) => settlements::by_hash(read, hash)?.is_some(),
                None => false,
            },
            EntryKind::Dispensed | EntryKind::DoubtResolved => match report(reference) {
                Some((machine, txid, seq)) => {
                    let reports = settlements::reports(read, machine, txid)?;
                    reports.iter().any(|report| report.journal_seq.0 == seq)
                }
                None => false,
            },
            EntryKind::Stacked | EntryKind::LiabilityToOwed => match reference.parse() {
                Ok(id) => withdraws::find(read, id)?.is_some_and(|withdraw| {
                    let expired = withdraw.state == WithdrawState::Expired;
                    withdraw.purpose == Purpose::CashIn
                        && (entry.kind() == EntryKind::Stacked || expired)
                }),
                Err(_) => false,
            },
            EntryKind::LpDeposit
            | EntryKind::LpReturn
            | EntryKind::LpShare
            | EntryKind::LpShareVoid => self.by_provider(entry.kind(), reference)?,
            EntryKind::LegByHand => match reference.parse() {
                Ok(id) => legs::find(read, id)?.is_some_and(|leg| leg.state == LegState::ByHand),
                Err(_) => false,
            },
            EntryKind::WithdrawPaid | EntryKind::ClaimPaid | EntryKind::LegPaid => match hash() {
                Some(hash) => payments::by_hash(read, hash)?
                    .is_some_and(|payment| payment.state == PaymentState::Succeeded),
                None => false,
            },
            EntryKind::Refilled | EntryKind::BayCounted => match reference.parse::<ChangeId>() {
                Ok(id) => cassettes::change(read, id)?.is_some_and(|c| c.booked_at.is_some()),
                Err(_) => false,
            },
            EntryKind::Reversed => match (reference.parse::<EntryId>(), entry.corrects()) {
                (Ok(id), corrects) => corrects == Some(id) && ledger::holds(read, id)?,
                (Err(_), _) => false,
            },
            EntryKind::Recycled => self.by_recycler(entry)?,
            EntryKind::Tested => false,
            // what a person did by hand: the wallet's list and the counts say whether it holds
            EntryKind::StrayRecovered
            | EntryKind::WalletMoved
            | EntryKind::Emptied
            | EntryKind::TransitCounted => true,
        })
    }
}

/// Machine, transaction and journal position of a report's reference.
fn report(reference: &str) -> Option<(MachineId, TxnId, u64)> {
    let mut parts = reference.split(':');
    let report =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(report)
}
