//! Whether a note may come in.
//!
//! Promise: a note is told to stack only within the limits per note, per session and per day, with
//! room in the cashbox and a service in reach, and for no more sats than the breaker allows.
//!
//! Failure policy: a note that may not come in is given back.

use std::collections::BTreeSet;

use bitspire_hardware::acceptor::{AcceptorCommand, EscrowedBill};
use bitspire_shared::money::{Denomination, Fiat, Sats};

use super::VaultError;
use super::core::Vault;
use crate::policy::breaker::Outflow;
use crate::txn::{Record, Txn};

impl Vault {
    /// The most that a new cash-in may take.
    pub(super) fn cash_in_limit(&self) -> Option<Fiat> {
        let policy = &self.config.policy;
        let most = policy.max_cash_in?;
        let day = policy.max_cash_in_per_day?;
        let left = self.intake.left(day.minor, self.now().unix);
        Some(Fiat { minor: most.minor.min(left), ..most })
    }

    /// The notes that a cash-in takes.
    pub(super) fn takes(&self) -> BTreeSet<Denomination> {
        let most = self.cash_in_limit().map_or(0, |fiat| fiat.minor);
        let most = self.config.policy.max_note.map_or(0, |fiat| fiat.minor).min(most);
        let fits = |note: &&Denomination| i64::from(note.minor()) <= most;
        let notes = self.acceptor.iter().flat_map(|taker| taker.notes.iter());
        notes.filter(fits).copied().collect()
    }

    /// Whether another note fits.
    pub(super) fn has_room(&self) -> bool {
        let holdings = self.journal.holdings();
        // what a recycler draws back it puts there, too
        let back = holdings.reject_bin.values().filter(|_| self.config.recycler.is_some());
        let notes = holdings.cashbox.values().chain(back);
        let notes = notes.fold(0i64, |sum, heap| {
            sum.saturating_add(heap.count.max(0)).saturating_add(heap.doubts.max(0))
        });
        notes < i64::from(self.config.policy.cashbox_capacity_notes.get())
    }

    /// Whether this note, in escrow, may be taken. One beyond the breaker opens it.
    pub(super) fn may_take(&mut self, bill: &EscrowedBill) -> Result<bool, VaultError> {
        if !self.may_take_notes() {
            return Ok(false);
        }
        let worth = self.feeding.and_then(|txid| worth(self.txns.get(&txid)?, bill.denomination));
        let beyond = worth.is_some_and(|sats| sats > self.breaker.allowance_sats(self.now().unix));
        if beyond && self.breaker.trip() {
            self.breaker_opened()?;
        }
        Ok(!beyond)
    }

    fn may_take_notes(&self) -> bool {
        let in_place = self.acceptor.as_ref().is_some_and(|taker| !taker.cashbox_out);
        let on_screen = self.feeding.is_some() && self.feeding == self.on_screen;
        let time = self.time.known(self.mono()).is_some();
        let service = self.service_in_reach();
        let closed =
            self.breaker.is_open() || self.inspection.broken().is_some() || self.disk.is_low();
        in_place && on_screen && time && service && !closed && self.has_room()
    }

    /// Commits a note and gives the proof away; `false` where the step is undone.
    pub(super) fn stack(
        &mut self,
        record: Record,
        no: u32,
        bill: EscrowedBill,
        effect: &'static str,
    ) -> Result<bool, VaultError> {
        let at = self.now().unix;
        let proof = match self.journal.commit(at, record.to_entry()?, no, bill) {
            Ok(proof) => proof,
            Err(error) => {
                self.record_refused(&record, error)?;
                self.tell_acceptor(AcceptorCommand::Return);
                return Ok(false);
            }
        };
        // counted by the intent, as after a restart
        self.intake.take(bill.denomination.minor().into(), at);
        let worth = worth(&record.txn, bill.denomination);
        let opened = worth.is_some_and(|sats| self.breaker.give(Outflow::Sats(sats), at));
        self.recorded(record, effect)?;
        self.tell_acceptor(AcceptorCommand::Stack(proof));
        if opened {
            self.breaker_opened()?;
        }
        Ok(true)
    }
}

fn worth(txn: &Txn, note: Denomination) -> Option<Sats> {
    match txn {
        Txn::CashIn(session) => session.market_worth(note),
        Txn::CashOut(_) => None,
    }
}
