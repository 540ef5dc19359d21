//! Reads where sats and notes are: wallets, bays, cashboxes.

use std::collections::BTreeSet;

use bitspire_shared::ids::{BayId, PaymentHash};
use bitspire_shared::time::Unix;

use super::books;
use super::cash::{self, Notes};
use super::gather::{Gather, PAGE};
use super::marks::Payments;
use super::report::Check;
use super::wallet::{self, Known, Seen};
use crate::ids::MachineId;
use crate::ledger::{Account, Entry, EntryKind, Unit, refilled};
use crate::store::settlements::Settlement;
use crate::store::{
    Read, StoreError, cassettes, invoices, ledger, machines, payments, service, settlements,
};
use crate::wallet::{Flow, PayState, Payment};

/// Whether a payment moved before its wallet was a machine's.
fn is_earlier(payment: &Payment, since: Unix) -> bool {
    matches!(payment.state, PayState::Succeeded { at, .. } if at < since)
}

/// What the ledger has of a payment in its machine's wallet.
fn booked(entries: &[Entry], machine: MachineId, flow: Flow) -> Option<i64> {
    use EntryKind as E;
    let of_flow = |entry: &&Entry| match entry.kind() {
        E::Suspended | E::WalletMoved => true,
        E::Settled | E::OwedWhole | E::StrayRecovered => flow == Flow::Inbound,
        E::WithdrawPaid | E::ClaimPaid | E::LegPaid => flow == Flow::Outbound,
        _ => false,
    };
    let lines = entries.iter().filter(of_flow).flat_map(Entry::postings);
    let own = lines.filter(|line| line.account == Account::Wallet(machine));
    own.fold(None, |sum, line| Some(sum.unwrap_or(0_i64).saturating_add(line.amount)))
}

impl Gather<'_> {
    pub(super) fn in_wallet(&mut self, wallet: &str, hash: PaymentHash, flow: Flow) {
        if !self.given.silent.contains_key(wallet) {
            let seen = self.given.wallets.get(wallet);
            wallet::recorded(&mut self.findings, (wallet, hash), flow, seen);
        }
    }

    /// Wallets that did not answer.
    pub(super) fn silent(&mut self) -> Result<(), StoreError> {
        for (id, why) in &self.given.silent {
            let subject = format!("wallet {id}");
            self.findings.differ(Check::Wallet, subject, "its list and its balance", why);
        }
        Ok(())
    }

    /// The payment of a sale with its entry, where it is as nearly all of them are: paid into the wallet of
    /// its machine and settled. Any other one is looked at with its wallet.
    pub(super) fn paid(
        &mut self,
        settlement: &Settlement,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        let (id, hash) = (&settlement.wallet_id, settlement.payment_hash);
        let (given, marks) = (self.given, self.marks);
        let Some(payments) = marks.payments.get(id) else { return Ok(()) };
        let seen = given.wallets.get(id).and_then(|seen| seen.still(hash, Flow::Inbound));
        let Some(payment) = seen else { return Ok(()) };
        let owner = self.machines.get(&settlement.machine_id);
        if owner.is_none_or(|machine| machine.row.wallet_id != *id) {
            return Ok(());
        }
        let mut entries = ledger::beside_settled(self.read, hash)?;
        entries.push(entry.clone());
        let known = Known {
            settlement: Some(settlement),
            booked: booked(&entries, settlement.machine_id, Flow::Inbound),
            by_hand: entries.iter().any(|entry| entry.kind() == EntryKind::WalletMoved),
            ..Known::default()
        };
        let apart = wallet::listed(&mut self.findings, id, true, payment, known);
        payments.saw(hash, apart);
        Ok(())
    }

    /// What was not looked at with its settlement of the wallet `id`, and what it holds. All sales were
    /// seen before.
    pub(super) fn wallet(&mut self, id: &str, seen: &Seen) -> Result<(), StoreError> {
        let machine = machines::by_wallet(self.read, id)?;
        let owner = machine.as_ref().map(|machine| machine.id);
        let settled = self.marks.payments.get(id).map(Payments::take).unwrap_or_default();
        let mut apart = settled.apart;
        let left = seen.payments.values().filter(|payment| {
            let hash = &payment.payment_hash;
            !seen.moved.contains(hash) && !settled.hashes.contains(hash)
        });
        let mut payments: Vec<_> = left.collect();
        // their rows lie in this order
        payments.sort_by_key(|payment| match payment.state {
            PayState::Succeeded { at, .. } => Some(at),
            PayState::Pending | PayState::Failed => None,
        });
        for payment in payments {
            let (hash, flow) = (payment.payment_hash, payment.flow);
            let settlement = settlements::by_hash(self.read, hash)?;
            let settlement = settlement.filter(|kept| kept.wallet_id == id);
            let attempt = match flow {
                Flow::Inbound => None,
                Flow::Outbound => payments::by_hash(self.read, hash)?,
            };
            let attempt = attempt.filter(|kept| kept.wallet_id == id);
            let entries = ledger::of_payment(self.read, hash)?;
            let known = Known {
                settlement: settlement.as_ref().map(|kept| &kept.row),
                attempt: attempt.as_ref().map(|kept| &kept.row),
                // of a payment that is settled nobody asks
                invoiced: settlement.is_none() && invoices::knows(self.read, hash)?,
                booked: owner.and_then(|machine| booked(&entries, machine, flow)),
                by_hand: entries.iter().any(|entry| entry.kind() == EntryKind::WalletMoved),
            };
            let recorded = known.settlement.is_some() || known.attempt.is_some() || known.invoiced;
            let counts = machine
                .as_ref()
                .is_some_and(|machine| recorded || !is_earlier(payment, machine.created_at));
            let off = wallet::listed(&mut self.findings, id, counts, payment, known);
            apart = apart.saturating_add(off);
        }
        if let Some(machine) = owner {
            let ledger = ledger::balance(self.read, Account::Wallet(machine), Unit::Sats)?;
            wallet::balance(&mut self.findings, id, seen, ledger, apart);
        }
        Ok(())
    }

    pub(super) fn cash(&mut self) -> Result<(), StoreError> {
        for (id, machine) in self.machines {
            let since = machine.row.paired_at.unwrap_or(Unix(0));
            let bays = ledger::balances_of(self.read, &format!("bay:{id}:"))?;
            let boxed = ledger::balances_of(self.read, &format!("cashbox:{id}:"))?;
            let bins = ledger::balances_of(self.read, &format!("reject_bin:{id}:"))?;
            let held = bays.iter().chain(boxed.iter()).chain(bins.iter());
            let held: Vec<_> = held.map(|(account, _, value)| (account, value)).collect();
            let at_machine = service::unbooked(self.read, *id)?;
            let at_machine = at_machine.iter().filter_map(|event| event.bay()).collect();
            let unbooked = cassettes::unbooked(self.read, *id)?;
            let said = machine.heartbeat.as_ref().filter(|(_, at)| *at >= since);
            let notes = Notes {
                machine: *id,
                ledger: &held,
                said: said.map(|(report, at)| (report, *at)),
                unbooked: &unbooked,
                unbooked_at_machine: &at_machine,
                unreported: settlements::unreported(self.read, *id, since)?,
                reported: settlements::newest_position(self.read, *id, since)?,
                in_doubt: &in_doubt(self.read, *id)?,
            };
            cash::notes(&mut self.findings, &notes);
        }
        Ok(())
    }

    /// Refills; what a count comes to is held by the comparison with the machine.
    pub(super) fn loads(&mut self) -> Result<(), StoreError> {
        for (id, machine) in self.machines {
            let mut after = 0;
            loop {
                let page = cassettes::change_page(self.read, *id, after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.number;
                for change in page.iter().filter(|change| change.booked_at.is_some()) {
                    let Some(delta) = change.delta.filter(|delta| *delta != 0) else { continue };
                    let (kind, change_id) = (EntryKind::Refilled, change.change_id);
                    let found = self.rows.entry(kind, &change_id.to_string())?;
                    let note = found.iter().flat_map(Entry::postings).find_map(|line| {
                        matches!(line.account, Account::Bay(..)).then_some(line.account)
                    });
                    let note = match note {
                        Some(Account::Bay(_, bay, note)) if bay == change.bay => Some(note),
                        _ => machine.bays.get(&change.bay).copied(),
                    };
                    let (operator, currency) = (machine.row.operator_id, machine.row.currency);
                    let expected = note.map(|note| {
                        refilled(*id, operator, change_id, change.bay, (note, delta), currency)
                    });
                    if let Some(Ok(expected)) = expected {
                        books::entry(&mut self.findings, &expected, found.as_ref());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The bays that a dispense of unknown end took from, since their last count.
fn in_doubt(read: &Read<'_>, machine: MachineId) -> Result<BTreeSet<BayId>, StoreError> {
    let mut doubt = BTreeSet::new();
    for report in settlements::uncertain(read, machine)? {
        for (bay, result) in &report.bays.0 {
            let counted = cassettes::last_count(read, machine, *bay, Unix(0))?
                .max(service::last_count(read, machine, *bay)?);
            if result.requested > 0 && counted.is_none_or(|at| at < report.journal_seq) {
                doubt.insert(*bay);
            }
        }
    }
    Ok(doubt)
}
