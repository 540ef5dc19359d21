//! Cashbox and reject bin, emptied and counted.
//!
//! Promise: what was counted stands beside what the books expected, and a difference has its reason;
//! a sale whose notes are in doubt is decided first. A recycler puts what it draws back into its
//! cashbox: one count there is booked as what was fed and what came back.
//!
//! Failure policy: as of service mode: what cannot be booked changes nothing.

use std::collections::BTreeMap;

use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::{Pile, Piles, ServiceAction};

use super::VaultError;
use super::boxes::missed_in_cashbox;
use super::core::Vault;
use super::service::{Done, WHY};
use crate::journal::{CashMove, Heap, Stage};
use crate::txn::{Txn, cash_out};

impl Vault {
    /// Books an emptied cashbox.
    pub(super) fn empty_cashbox(
        &mut self,
        counted: BTreeMap<Denomination, u32>,
        reason: String,
    ) -> Result<Done, VaultError> {
        if self.acceptor.is_none() {
            return Ok(Err("this machine takes no notes".to_owned()));
        }
        let open = |txn: &&Txn| matches!(txn, Txn::CashIn(_)) && txn.stage() == Stage::Open;
        if let Some(txn) = self.txns.values().find(open) {
            return Ok(Err(in_doubt(txn)));
        }
        let holdings = self.journal.holdings();
        if self.config.recycler.is_none() {
            let notes = piles(&holdings.cashbox, &counted);
            if let Some(why) = unexplained(&notes, &reason) {
                return Ok(Err(why));
            }
            let action = ServiceAction::CashboxEmptied { notes, reason };
            return self.book(vec![action], vec![CashMove::CashboxEmptied { counted }]);
        }
        // a recycler puts what it draws back there, too: one box, two heaps of the books
        if let Some(txn) = self.txns.values().find(|txn| dispenses(txn)) {
            return Ok(Err(in_doubt(txn)));
        }
        // what its device has yet to tell of, and is not there, lies in the box that keeps it
        let mut cash = missed_in_cashbox(holdings, &counted);
        let at = self.next_entry();
        let holdings =
            cash.iter().try_fold(holdings.clone(), |held, found| held.after(found, at, at));
        let holdings = match holdings {
            Ok(holdings) => holdings,
            Err(why) => return Ok(Err(why.to_string())),
        };
        let (fed, back) = apart(&holdings.cashbox, &holdings.reject_bin, &counted);
        let (notes, binned) = (piles(&holdings.cashbox, &fed), piles(&holdings.reject_bin, &back));
        let why = unexplained(&notes, &reason).or_else(|| unexplained(&binned, &reason));
        if let Some(why) = why {
            return Ok(Err(why));
        }
        let mut actions = vec![ServiceAction::CashboxEmptied { notes, reason: reason.clone() }];
        cash.push(CashMove::CashboxEmptied { counted: fed });
        if !binned.is_empty() {
            actions.push(ServiceAction::RejectBinEmptied { notes: binned, reason });
            cash.push(CashMove::RejectBinEmptied { counted: back });
        }
        self.book(actions, cash)
    }

    /// Books an emptied reject bin.
    pub(super) fn empty_reject_bin(
        &mut self,
        counted: BTreeMap<Denomination, u32>,
        reason: String,
    ) -> Result<Done, VaultError> {
        if self.dispenser.is_none() {
            return Ok(Err("this machine gives no notes".to_owned()));
        }
        if self.config.recycler.is_some() {
            return Ok(Err("this machine has none: what came back lies in the cashbox".to_owned()));
        }
        if let Some(txn) = self.txns.values().find(|txn| dispenses(txn)) {
            return Ok(Err(in_doubt(txn)));
        }
        let notes = piles(&self.journal.holdings().reject_bin, &counted);
        if let Some(why) = unexplained(&notes, &reason) {
            return Ok(Err(why));
        }
        let action = ServiceAction::RejectBinEmptied { notes, reason };
        self.book(vec![action], vec![CashMove::RejectBinEmptied { counted }])
    }
}

fn in_doubt(txn: &Txn) -> String {
    format!("the notes of sale {} are in doubt: the operator decides about it first", txn.txid())
}

/// Each value that the books or the hand has.
fn piles(books: &BTreeMap<Denomination, Heap>, counted: &BTreeMap<Denomination, u32>) -> Piles {
    let mut piles = Piles::new();
    for (note, heap) in books {
        piles.entry(*note).or_default().expected = heap.count;
    }
    for (note, count) in counted {
        piles.entry(*note).or_default().counted = *count;
    }
    piles.retain(|_, pile| *pile != Pile::default());
    piles
}

/// What was counted in one box, as the two heaps that the books have of it: first what was fed, then
/// what came back, and whatever is too much to the fed.
fn apart(
    fed: &BTreeMap<Denomination, Heap>,
    back: &BTreeMap<Denomination, Heap>,
    counted: &BTreeMap<Denomination, u32>,
) -> (BTreeMap<Denomination, u32>, BTreeMap<Denomination, u32>) {
    let (mut first, mut second) = (counted.clone(), BTreeMap::new());
    let books = |heaps: &BTreeMap<Denomination, Heap>, note: &Denomination| {
        let count = heaps.get(note).map_or(0, |heap| heap.count.max(0));
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    for (note, count) in &mut first {
        let came_back = count.saturating_sub(books(fed, note)).min(books(back, note));
        *count = count.saturating_sub(came_back);
        if came_back > 0 {
            second.insert(*note, came_back);
        }
    }
    (first, second)
}

/// Why a count is not taken: it differs, and nobody says why.
fn unexplained(piles: &Piles, reason: &str) -> Option<String> {
    let differs = |pile: &Pile| pile.expected != i64::from(pile.counted);
    (reason.is_empty() && piles.values().any(differs)).then(|| WHY.to_owned())
}

/// Whether notes of it are on their way out, or nobody knows where.
fn dispenses(txn: &Txn) -> bool {
    use cash_out::State;
    match txn {
        Txn::CashOut(sale) => matches!(
            sale.state(),
            State::DispenseCommitted { .. } | State::Dispensing { .. } | State::Uncertain { .. }
        ),
        Txn::CashIn(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: notes that a recycler drew back, shown as a difference at each emptying.
    #[test]
    fn one_count_is_booked_as_what_was_fed_and_what_came_back() {
        let note = |major: u32| Denomination::from_minor(major * 100).unwrap();
        let heaps = |heaps: &[(u32, i64)]| -> BTreeMap<_, _> {
            let heap = |count| Heap { count, doubts: 0 };
            heaps.iter().map(|(major, count)| (note(*major), heap(*count))).collect()
        };
        let fed = heaps(&[(10, 5), (20, 3), (50, -1)]);
        let back = heaps(&[(20, 2), (50, 1)]);
        let split = |counts: [(u32, u32); 3]| {
            let counted = counts.map(|(major, count)| (note(major), count)).into();
            let (first, second) = apart(&fed, &back, &counted);
            let of = |heap: BTreeMap<_, _>| {
                counts.map(|(major, _)| heap.get(&note(major)).copied().unwrap_or(0))
            };
            (of(first), of(second))
        };
        assert_eq!(split([(10, 5), (20, 5), (50, 0)]), ([5, 3, 0], [0, 2, 0]), "all is there");
        assert_eq!(split([(10, 4), (20, 4), (50, 1)]), ([4, 3, 0], [0, 1, 1]), "one is missing");
        assert_eq!(split([(10, 7), (20, 9), (50, 0)]), ([7, 7, 0], [0, 2, 0]), "too many");
    }
}
