//! Looks at postings as they were written, trusting nothing about how they came to be.
//!
//! Promise: an entry that does not sum to zero, an account in a unit that it cannot have, and a
//! balance of a forbidden sign are found, each with the entry that broke it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use thiserror::Error;

use super::account::{Account, Sign, Unit};
use super::entry::Posting;
use crate::ids::EntryId;

/// What cannot be true.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// An entry that makes or destroys money.
    #[error("entry {entry} sums to {sum} {unit}, expected 0")]
    Unbalanced {
        /// The entry.
        entry: EntryId,
        /// The unit.
        unit: Unit,
        /// Its sum.
        sum: i128,
    },
    /// A unit that the account does not have.
    #[error("entry {entry}: {account} cannot hold {unit}")]
    Unit {
        /// The entry.
        entry: EntryId,
        /// The account.
        account: Account,
        /// The unit.
        unit: Unit,
    },
    /// A balance that cannot be: fewer notes than none, a debt that owes us.
    #[error("{account} stands at {balance} {unit} since entry {since}")]
    Sign {
        /// The account.
        account: Account,
        /// The unit.
        unit: Unit,
        /// Its balance at the end.
        balance: i128,
        /// The entry since which the sign has been wrong.
        since: EntryId,
    },
}

/// Balances: sums of postings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balances(BTreeMap<(Account, Unit), i128>);

impl Balances {
    /// Adds one posting; the balance after it.
    pub fn add(&mut self, posting: &Posting) -> i128 {
        let balance = self.0.entry((posting.account, posting.unit)).or_default();
        *balance = balance.saturating_add(i128::from(posting.amount));
        *balance
    }

    /// The balance of an account in a unit; 0 without postings.
    #[must_use]
    pub fn of(&self, account: Account, unit: Unit) -> i128 {
        self.0.get(&(account, unit)).copied().unwrap_or(0)
    }

    /// Every account and unit with its balance.
    pub fn iter(&self) -> impl Iterator<Item = (Account, Unit, i128)> + '_ {
        self.0.iter().map(|((account, unit), balance)| (*account, *unit, *balance))
    }
}

impl<'a> FromIterator<&'a Posting> for Balances {
    fn from_iter<I: IntoIterator<Item = &'a Posting>>(postings: I) -> Self {
        let mut balances = Self::default();
        for posting in postings {
            balances.add(posting);
        }
        balances
    }
}

/// Every finding in `postings`, given in the order in which they were written.
#[must_use]
pub fn check(postings: impl IntoIterator<Item = (EntryId, Posting)>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sums: BTreeMap<(EntryId, Unit), i128> = BTreeMap::new();
    let mut balances = Balances::default();
    let mut wrong_since: BTreeMap<(Account, Unit), EntryId> = BTreeMap::new();
    for (entry, posting) in postings {
        let Posting { account, unit, amount } = posting;
        if !account.holds(unit) {
            findings.push(Finding::Unit { entry, account, unit });
        }
        let sum = sums.entry((entry, unit)).or_default();
        *sum = sum.saturating_add(i128::from(amount));
        let balance = balances.add(&posting);
        match wrong_since.entry((account, unit)) {
            Slot::Vacant(slot) if !fits(account.sign(), balance) => {
                slot.insert(entry);
            }
            Slot::Occupied(slot) if fits(account.sign(), balance) => {
                slot.remove();
            }
            Slot::Vacant(_) | Slot::Occupied(_) => {}
        }
    }
    let unbalanced = sums.into_iter().filter(|(_, sum)| *sum != 0);
    findings.extend(unbalanced.map(|((entry, unit), sum)| Finding::Unbalanced {
        entry,
        unit,
        sum,
    }));
    findings.extend(wrong_since.into_iter().map(|((account, unit), since)| Finding::Sign {
        account,
        unit,
        balance: balances.of(account, unit),
        since,
    }));
    findings
}

const fn fits(sign: Sign, balance: i128) -> bool {
    match sign {
        Sign::Debit => balance >= 0,
        Sign::Credit => balance <= 0,
        Sign::Any => true,
    }
}
