//! What is booked when people put notes into a machine, take them out and count them.
//!
//! Promise: what was counted is booked as counted; the difference to what the ledger expected goes
//! to the cash difference with the reason that was given, never into the sums of sales.

use std::fmt::Display;

use bitspire_shared::ids::{BayId, JournalSeq, PubKey};
use bitspire_shared::money::{Currency, Denomination, MoneyError};

use super::account::{Account, Unit};
use super::entry::{Entry, EntryKind, LedgerError, Lines};
use crate::ids::{MachineId, OperatorId};

/// `count` notes were put into a bay, out of the operator's pocket; below 0: taken out, into it.
///
/// # Errors
/// [`LedgerError`].
pub fn refilled(
    machine: MachineId,
    operator: OperatorId,
    change: impl Display,
    bay: BayId,
    (note, count): (Denomination, i64),
    currency: Currency,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    let (from, to) = (Account::Operator(operator), Account::Bay(machine, bay, note));
    lines.carry(Unit::Fiat(currency), value(note, count)?, from, to)?;
    lines.book(EntryKind::Refilled, change.to_string(), None)
}

/// What `count` notes are worth, in minor units.
pub(super) fn value(note: Denomination, count: i64) -> Result<i64, MoneyError> {
    let value = i64::from(note.minor()).checked_mul(count);
    value.ok_or(MoneyError::Overflow { what: "notes" })
}

/// A count of notes against what the ledger expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counted {
    /// Notes by the ledger; below 0 where more came out than it knew of.
    pub expected: i64,
    /// Notes by hand.
    pub counted: u32,
}

/// A bay was counted: from now on it holds what was counted. `None` where that was expected.
///
/// # Errors
/// [`LedgerError`].
pub fn bay_counted(
    machine: MachineId,
    change: impl Display,
    bay: BayId,
    note: Denomination,
    counts: Counted,
    currency: Currency,
) -> Result<Option<Entry>, LedgerError> {
    let expected = value(note, counts.expected)?;
    let found = note.times(counts.counted)?;
    let more = found.checked_sub(expected).ok_or(MoneyError::Overflow { what: "count" })?;
    let mut lines = Lines::default();
    let (from, to) = (Account::CashDifference(machine), Account::Bay(machine, bay, note));
    lines.carry(Unit::Fiat(currency), more, from, to)?;
    match lines.book(EntryKind::BayCounted, change.to_string(), None) {
        Err(LedgerError::Empty) => Ok(None),
        booked => booked.map(Some),
    }
}

/// Notes that customers fed and a machine's recycler has put into a bay, as its vault counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecycledCount {
    /// The machine.
    pub machine: MachineId,
    /// The vault that counts.
    pub vault: PubKey,
    /// Since which position of its journal.
    pub since: JournalSeq,
    /// The bay.
    pub bay: BayId,
    /// One note's value.
    pub note: Denomination,
    /// How many, since then.
    pub notes: u32,
}

impl RecycledCount {
    /// The reference of the entry with which it is booked up to where it stands.
    #[must_use]
    pub fn reference(&self) -> String {
        let Self { machine, vault, since, bay, note, notes } = self;
        format!("{machine}:{vault}:{}:{bay}:{}:{notes}", since.0, note.minor())
    }

    /// The count of such a reference.
    #[must_use]
    pub fn of(reference: &str) -> Option<Self> {
        let mut parts = reference.split(':');
        let mut part = || parts.next();
        let count = Self {
            machine: part()?.parse().ok()?,
            vault: part()?.parse().ok()?,
            since: JournalSeq(part()?.parse().ok()?),
            bay: part()?.parse().ok()?,
            note: Denomination::from_minor(part()?.parse().ok()?).ok()?,
            notes: part()?.parse().ok()?,
        };
        // the round trip refuses a second spelling
        (count.reference() == reference).then_some(count)
    }
}

/// The last `more` notes of a count lie in the bay, and not in the cashbox.
///
/// # Errors
/// [`LedgerError`].
pub fn recycled(
    count: &RecycledCount,
    more: u32,
    currency: Currency,
) -> Result<Entry, LedgerError> {
    let RecycledCount { machine, bay, note, .. } = *count;
    let (from, to) = (Account::Cashbox(machine, note), Account::Bay(machine, bay, note));
    let mut lines = Lines::default();
    lines.carry_notes(Unit::Fiat(currency), (note, more), from, to)?;
    lines.book(EntryKind::Recycled, count.reference(), None)
}

/// Notes of one place, as the books have them, that were taken out of the machine; below 0 where
/// more had come out before than the books knew of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Emptied {
    /// Of the cashbox.
    Cashbox(Denomination, i64),
    /// Of the reject bin.
    RejectBin(Denomination, i64),
    /// Of a bay.
    Bay(BayId, Denomination, i64),
}

/// Notes were taken out; they are in transit until they are counted.
///
/// # Errors
/// [`LedgerError`].
pub fn emptied(
    machine: MachineId,
    change: impl Display,
    places: &[Emptied],
    currency: Currency,
) -> Result<Entry, LedgerError> {
    let (unit, to) = (Unit::Fiat(currency), Account::InTransit(machine));
    let mut lines = Lines::default();
    for place in places {
        let (from, minor) = match *place {
            Emptied::Cashbox(note, count) => (Account::Cashbox(machine, note), value(note, count)?),
            Emptied::RejectBin(note, count) => {
                (Account::RejectBin(machine, note), value(note, count)?)
            }
            Emptied::Bay(bay, note, count) => {
                (Account::Bay(machine, bay, note), value(note, count)?)
            }
        };
        lines.carry(unit, minor, from, to)?;
    }
    lines.book(EntryKind::Emptied, change.to_string(), None)
}

/// Notes in transit (`expected` minor units) were counted and are the operator's now.
///
/// # Errors
/// [`LedgerError`].
pub fn transit_counted(
    machine: MachineId,
    operator: OperatorId,
    change: impl Display,
    expected: i64,
    counted: i64,
    currency: Currency,
) -> Result<Entry, LedgerError> {
    let (unit, from) = (Unit::Fiat(currency), Account::InTransit(machine));
    let missing = expected.checked_sub(counted).ok_or(MoneyError::Overflow { what: "count" })?;
    let mut lines = Lines::default();
    lines.carry(unit, counted, from, Account::Operator(operator))?;
    lines.carry(unit, missing, from, Account::CashDifference(machine))?;
    lines.book(EntryKind::TransitCounted, change.to_string(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a count that is booked a second time under another spelling of its name, or
    /// from one machine's cashbox into another's bay.
    #[test]
    fn a_recycled_count_has_one_name_and_moves_within_its_machine() {
        let count = RecycledCount {
            machine: MachineId(3),
            vault: PubKey::new(nostr::Keys::generate().public_key()).unwrap(),
            since: JournalSeq(90),
            bay: BayId::new(2).unwrap(),
            note: Denomination::from_minor(2_000).unwrap(),
            notes: 12,
        };
        let name = count.reference();
        assert_eq!(RecycledCount::of(&name), Some(count));
        for wrong in [format!("0{name}"), format!("{name}:1"), name.replace(":12", ":012")] {
            assert_eq!(RecycledCount::of(&wrong), None, "{wrong}");
        }
        let currency = "EUR".parse().unwrap();
        let entry = recycled(&count, 5, currency).unwrap();
        let told = |line: &super::super::Posting| (line.account.to_string(), line.amount);
        let mut lines: Vec<_> = entry.postings().iter().map(told).collect();
        lines.sort();
        let expected =
            [("bay:3:2:2000".to_owned(), 10_000), ("cashbox:3:2000".to_owned(), -10_000)];
        assert_eq!(lines, expected);
        assert_eq!((entry.kind(), entry.reference()), (EntryKind::Recycled, name.as_str()));
    }
}
