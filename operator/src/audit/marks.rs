//! What was seen with the sales: which entries of the ledger they make, which payments are theirs.
//!
//! Promise: an entry of a sale that no sale made is found, without deriving each sale a second time for
//! its entry: the sales mark what follows from them, the look at all entries marks what should follow
//! from one, both in whatever order, and the rest is what is left. A bit for each entry. A payment that
//! was held against its settlement and its entry is not looked for again with its wallet: its hash is kept.
//!
//! Failure policy: what has no mark is looked at one by one, as is an entry whose number lies beyond all
//! that are marked: a mark too few costs time, not the truth.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bitspire_shared::ids::PaymentHash;

use crate::ids::EntryId;
use crate::ledger::EntryKind;

/// Whether an entry of this kind follows from a settlement and its reports.
pub(super) const fn of_a_sale(kind: EntryKind) -> bool {
    use EntryKind as E;
    matches!(kind, E::Settled | E::OwedWhole | E::Suspended | E::Dispensed | E::DoubtResolved)
}

/// Words of marks at most, 64 MB of each kind: a damaged database cannot fill the memory.
const MOST: usize = 1 << 23;

/// The marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    found: Vec<AtomicU64>,
    wanted: Vec<AtomicU64>,
    /// By wallet.
    pub(super) payments: BTreeMap<String, Payments>,
}

/// Payments of a wallet that were looked at with their settlements.
#[derive(Debug, Default)]
pub(super) struct Payments(Mutex<Taken>);

/// What was taken from the wallet's list with the sales.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) hashes: HashSet<PaymentHash>,
    /// The msat by which the wallet differs from the ledger for them.
    pub(super) apart: i128,
}

impl Payments {
    /// A payment was looked at; by how many msat it differs.
    pub(super) fn saw(&self, hash: PaymentHash, apart: i128) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.hashes.insert(hash) {
            taken.apart = taken.apart.saturating_add(apart);
        }
    }

    /// All of them.
    pub(super) fn take(&self) -> Taken {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Marks {
    /// For entries up to this one, and these wallets.
    pub(super) fn of<'a>(newest: EntryId, wallets: impl Iterator<Item = &'a String>) -> Self {
        let words = usize::try_from(newest.0 / 64).map_or(0, |last| last.min(MOST) + 1);
        let clear = || (0..words).map(|_| AtomicU64::new(0)).collect();
        let payments = wallets.map(|id| (id.clone(), Payments::default())).collect();
        Self { found: clear(), wanted: clear(), payments }
    }

    /// A sale makes this entry.
    pub(super) fn found(&self, entry: EntryId) {
        mark(&self.found, entry);
    }

    /// This entry should follow from a sale; false where it is beyond all marks.
    #[must_use]
    pub(super) fn wanted(&self, entry: EntryId) -> bool {
        mark(&self.wanted, entry)
    }

    /// Those that follow from none, oldest first.
    pub(super) fn missing(&self) -> impl Iterator<Item = EntryId> + use<> {
        let words = self.found.iter().zip(&self.wanted).enumerate();
        let missing: Vec<_> = words
            .flat_map(|(n, (found, wanted))| {
                let rest = wanted.load(Ordering::Relaxed) & !found.load(Ordering::Relaxed);
                let first = i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(64);
                let bits = (0..64_i64).filter(move |bit| rest >> bit & 1 == 1);
                bits.map(move |bit| EntryId(first.saturating_add(bit)))
            })
            .collect();
        missing.into_iter()
    }
}

fn mark(marks: &[AtomicU64], EntryId(id): EntryId) -> bool {
    let word = usize::try_from(id / 64).ok().and_then(|word| marks.get(word));
    word.is_some_and(|word| {
        word.fetch_or(1 << (id % 64), Ordering::Relaxed);
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: an entry that no sale made, and that is taken for another one's.
    #[test]
    fn what_is_wanted_and_not_found_is_missing() {
        let marks = Marks::of(EntryId(200), std::iter::empty());
        for id in [1, 63, 64, 65, 128, 200] {
            assert!(marks.wanted(EntryId(id)));
        }
        for id in [2, 63, 65, 128, 199] {
            marks.found(EntryId(id));
        }
        let missing: Vec<_> = marks.missing().collect();
        assert_eq!(missing, [EntryId(1), EntryId(64), EntryId(200)]);
        assert_eq!(Marks::default().missing().count(), 0);
        assert!(!marks.wanted(EntryId(i64::MAX)), "it is looked at at once");
        assert!(Marks::of(EntryId(i64::MAX), std::iter::empty()).found.len() <= MOST + 1);
    }

    /// Loss prevented: a payment whose difference counts twice, so that a wallet seems to hold more.
    #[test]
    fn a_payment_counts_once() {
        let (payments, hash) = (Payments::default(), PaymentHash::from_bytes([7; 32]));
        payments.saw(hash, 5);
        payments.saw(hash, 5);
        payments.saw(PaymentHash::from_bytes([8; 32]), -3);
        let taken = payments.take();
        assert_eq!((taken.hashes.len(), taken.apart), (2, 2));
    }
}
