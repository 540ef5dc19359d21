//! Looks at postings as they were written, trusting nothing about how they came to be.
//!
//! Promise: an entry that does not sum to zero, an account in a unit that it cannot have, and a
//! balance of a forbidden sign are found, each with the entry that broke it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

use bitspire_shared::time::Unix;
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

/// What each account held at the end of each day in which it moved, UTC; days count from 1970-01-01.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closings(BTreeMap<(Account, Unit), BTreeMap<u64, i128>>);

impl Closings {
    /// Adds one posting of an entry that was written at `at`.
    pub fn add(&mut self, at: Unix, posting: &Posting) {
        let days = self.0.entry((posting.account, posting.unit)).or_default();
        let moved = days.entry(at.0 / 86_400).or_default();
        *moved = moved.saturating_add(i128::from(posting.amount));
    }

    /// Every account, unit and day with the balance at its end, in this order.
    pub fn iter(&self) -> impl Iterator<Item = (Account, Unit, u64, i128)> + '_ {
        self.0.iter().flat_map(|((account, unit), days)| {
            days.iter().scan(0_i128, |balance, (day, moved)| {
                *balance = balance.saturating_add(*moved);
                Some((*account, *unit, *day, *balance))
            })
        })
    }
}

/// Looks at postings one by one, so that a long ledger needs little memory.
#[derive(Debug, Default)]
pub struct Checker {
    findings: Vec<Finding>,
    entry: Option<EntryId>,
    sums: BTreeMap<Unit, i128>,
    balances: Balances,
    wrong_since: BTreeMap<(Account, Unit), EntryId>,
}

impl Checker {
    /// The next posting, in the order in which they were written.
    pub fn take(&mut self, entry: EntryId, posting: &Posting) {
        if self.entry != Some(entry) {
            self.close();
            self.entry = Some(entry);
        }
        let Posting { account, unit, amount } = *posting;
        if !account.holds(unit) {
            self.findings.push(Finding::Unit { entry, account, unit });
        }
        let sum = self.sums.entry(unit).or_default();
        *sum = sum.saturating_add(i128::from(amount));
        let balance = self.balances.add(posting);
        match self.wrong_since.entry((account, unit)) {
            Slot::Vacant(slot) if !fits(account.sign(), balance) => {
                slot.insert(entry);
            }
            Slot::Occupied(slot) if fits(account.sign(), balance) => {
                slot.remove();
            }
            Slot::Vacant(_) | Slot::Occupied(_) => {}
        }
    }

    /// Ends the entry that was being looked at.
    fn close(&mut self) {
        let sums = std::mem::take(&mut self.sums);
        let Some(entry) = self.entry else { return };
        let unbalanced = sums.into_iter().filter(|(_, sum)| *sum != 0);
        self.findings.extend(unbalanced.map(|(unit, sum)| Finding::Unbalanced {
            entry,
            unit,
            sum,
        }));
    }

    /// Every finding, and the balances at the end.
    #[must_use]
    pub fn end(mut self) -> (Vec<Finding>, Balances) {
        self.close();
        let Self { mut findings, balances, wrong_since, .. } = self;
        findings.extend(wrong_since.into_iter().map(|((account, unit), since)| Finding::Sign {
            account,
            unit,
            balance: balances.of(account, unit),
            since,
        }));
        (findings, balances)
    }
}

/// Every finding in `postings`, given in the order in which they were written.
#[must_use]
pub fn check(postings: impl IntoIterator<Item = (EntryId, Posting)>) -> Vec<Finding> {
    let mut checker = Checker::default();
    for (entry, posting) in postings {
        checker.take(entry, &posting);
    }
    checker.end().0
}

const fn fits(sign: Sign, balance: i128) -> bool {
    match sign {
        Sign::Debit => balance >= 0,
        Sign::Credit => balance <= 0,
        Sign::Any => true,
    }
}
