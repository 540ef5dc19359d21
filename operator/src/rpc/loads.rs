//! Books what people put into the bays, or counted there, once the machine has applied it.
//!
//! Promise: each change comes into the ledger once, under its id. A refill is booked as it was
//! typed. A count is booked as what it takes for the ledger to have what the machine has now, and
//! only while nothing of this pairing lies between the two: no sale is open, none is paid and not
//! reported, no report is ahead of this heartbeat. Until then the change stays unbooked, and an audit says so.
//!
//! The first notes of a bay come out of the operator's pocket; later a count that differs goes to
//! the cash difference with its reason. Notes of another value than the machine now has in the bay
//! were taken out with their cassette: they are in transit until somebody counts them.
//!
//! Failure policy: a bay that the heartbeat does not tell is left for a later one.

use std::fmt::Display;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Denomination, Direction};
use bitspire_shared::rpc::{BayCount, StateReport};
use bitspire_shared::time::Unix;

use super::failure::Failure;
use crate::ledger::{
    Account, Counted, Emptied, Entry, LedgerError, Unit, bay_counted, emptied, refilled,
};
use crate::store::cassettes::{self, Change};
use crate::store::ledger::Before;
use crate::store::machines::KeptMachine;
use crate::store::{Tx, ledger, settlements};

/// Books what `report`, the newest of the machine, has applied.
pub(super) fn book(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
    now: Unix,
) -> Result<(), Failure> {
    let mut applied = cassettes::unbooked(tx, machine.id)?;
    applied.retain(|change| change.acked_at.is_some());
    if applied.is_empty() {
        return Ok(());
    }
    let books = Books { tx, machine, now };
    // refills first: what a count comes to is told by what the machine has after all of them
    let (counts, refills): (Vec<_>, Vec<_>) =
        applied.into_iter().partition(|change| change.set_count.is_some());
    let counts: Result<Vec<_>, Failure> =
        counts.into_iter().map(|change| Ok((books.is_first(&change, report)?, change))).collect();
    let counts = counts?;
    for change in refills {
        if let (Some(held), Some(delta)) = (report.cassettes.get(&change.bay), change.delta) {
            books.write(&change, books.refill(&change, held.denomination_minor, delta)?)?;
        }
    }
    if counts.is_empty() || !at_rest(tx, machine, report)? {
        return Ok(());
    }
    for (first, change) in counts {
        if let Some(held) = report.cassettes.get(&change.bay) {
            let note = held.denomination_minor;
            if let Some(gone) = swapped(tx, machine, change.change_id, change.bay, note)? {
                ledger::append(tx, &gone.with_reason(&*change.reason), now)?;
            }
            books.write(&change, books.count(&change, *held, first)?)?;
        }
    }
    Ok(())
}

/// Whether the machine's counts and the ledger's are about the same sales.
pub(super) fn at_rest(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
) -> Result<bool, Failure> {
    let selling = |open: &bitspire_shared::rpc::OpenTxn| open.direction == Direction::CashOut;
    let since = machine.paired_at.unwrap_or(Unix(0));
    Ok(!report.open_transactions.iter().any(selling)
        && !settlements::unreported(tx, machine.id, since)?
        && settlements::newest_position(tx, machine.id, since)? <= report.journal_seq)
}

/// Notes of other values than `note`, which the bay has now, were taken out of it.
pub(super) fn swapped(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    reference: impl Display,
    bay: BayId,
    note: Denomination,
) -> Result<Option<Entry>, Failure> {
    let prefix = format!("bay:{}:{bay}:", machine.id);
    let mut places = Vec::new();
    for (account, _, value) in ledger::balances_of(tx, &prefix)?.iter() {
        let Account::Bay(_, bay, other) = account else { continue };
        let count = value.checked_div(other.minor().into()).unwrap_or(0);
        if let (true, Ok(count @ 1..)) = (other != note, i64::try_from(count)) {
            places.push(Emptied::Bay(bay, other, count));
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    Ok(Some(emptied(machine.id, reference, &places, machine.currency)?))
}

struct Books<'a> {
    tx: &'a Tx<'a>,
    machine: &'a KeptMachine,
    now: Unix,
}

impl Books<'_> {
    fn refill(
        &self,
        change: &Change,
        note: Denomination,
        count: i64,
    ) -> Result<Option<Entry>, LedgerError> {
        let (id, operator, currency) =
            (self.machine.id, self.machine.operator_id, self.machine.currency);
        match refilled(id, operator, change.change_id, change.bay, (note, count), currency) {
            Err(LedgerError::Empty) => Ok(None),
            entry => entry.map(Some),
        }
    }

    /// Whether nobody had put such notes into this bay before the machine applied this. What was done
    /// at the machine since, and the notes that it has kept since, may be in the books already: they
    /// wait for no sale.
    fn is_first(&self, change: &Change, report: &StateReport) -> Result<bool, Failure> {
        let Some(held) = report.cassettes.get(&change.bay) else { return Ok(false) };
        let account = Account::Bay(self.machine.id, change.bay, held.denomination_minor);
        let before = change.acked_at.map_or(Before::All, Before::Done);
        Ok(!ledger::was_loaded(self.tx, account, before)?)
    }

    fn count(
        &self,
        change: &Change,
        held: BayCount,
        first: bool,
    ) -> Result<Option<Entry>, Failure> {
        let (id, currency, note) =
            (self.machine.id, self.machine.currency, held.denomination_minor);
        let account = Account::Bay(id, change.bay, note);
        let value = ledger::balance(self.tx, account, Unit::Fiat(currency))?;
        let expected = value.checked_div(note.minor().into()).unwrap_or(0);
        if first {
            let more = i64::from(held.count).saturating_sub(expected);
            return Ok(self.refill(change, note, more)?);
        }
        let counts = Counted { expected, counted: held.count };
        Ok(bay_counted(id, change.change_id, change.bay, note, counts, currency)?)
    }

    fn write(&self, change: &Change, entry: Option<Entry>) -> Result<(), Failure> {
        if let Some(entry) = entry {
            let entry = match change.reason.as_str() {
                "" => entry,
                reason => entry.with_reason(reason),
            };
            ledger::append(self.tx, &entry, self.now)?;
        }
        Ok(cassettes::set_booked(self.tx, change.change_id, self.now)?)
    }
}
