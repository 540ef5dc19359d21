//! What is booked for what people did at a machine in service mode.
//!
//! Promise: the amounts are those of the machine's own journal at the event's place in it, so that
//! an entry is the same whatever was sold or booked before or after it. What was counted is booked
//! as counted, the difference to the machine's books as cash difference with the reason given.

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::ChangeId;
use bitspire_shared::money::{Currency, Denomination, MoneyError};
use bitspire_shared::rpc::{BayChange, DispenseOutcome, Piles, ServiceAction};

use super::account::{Account, Unit};
use super::cash::{Counted, Emptied, bay_counted, emptied, refilled, transit_counted, value};
use super::entry::{Entry, EntryKind, LedgerError, Lines};
use super::sale::moved;
use crate::ids::{MachineId, OperatorId};

/// An event and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct ServiceBooking<'a> {
    /// The machine.
    pub machine: MachineId,
    /// Whose it is.
    pub operator: OperatorId,
    /// The notes' currency.
    pub currency: Currency,
    /// The event.
    pub event: ChangeId,
    /// What was done.
    pub action: &'a ServiceAction,
    /// Whether nobody had put such notes into this bay before: then they come out of the
    /// operator's pocket, also where they were counted.
    pub first: bool,
}

/// The reference of an event's entries.
#[must_use]
pub fn service_reference(event: ChangeId) -> String {
    format!("service:{event}")
}

/// The entries of an event; none where nothing moved. `None` for a count of a bay about which the
/// machine's books could not tell: what it comes to is told by the ledger's own, once they are at
/// rest.
///
/// # Errors
/// [`LedgerError`].
pub fn served(booking: &ServiceBooking<'_>) -> Result<Option<Vec<Entry>>, LedgerError> {
    let ServiceBooking { machine, operator, currency, event, action, first } = *booking;
    let reference = service_reference(event);
    let entries = match action {
        ServiceAction::BayChanged { bay, denomination_minor: note, change, expected, .. } => {
            let (bay, note) = (*bay, *note);
            let refill = |count: i64| {
                some(refilled(machine, operator, &reference, bay, (note, count), currency))
            };
            let entry = match (change, *expected) {
                (BayChange::Delta(delta), _) => refill((*delta).into())?,
                (BayChange::Set(_), None) => return Ok(None),
                (BayChange::Set(counted), Some(expected)) if first => {
                    let more = i64::from(*counted).checked_sub(expected);
                    refill(more.ok_or(MoneyError::Overflow { what: "count" })?)?
                }
                (BayChange::Set(counted), Some(expected)) => {
                    let counts = Counted { expected, counted: *counted };
                    bay_counted(machine, &reference, bay, note, counts, currency)?
                }
            };
            entry.into_iter().collect()
        }
        ServiceAction::CashboxEmptied { notes, .. } => {
            box_emptied(booking, &reference, notes, Emptied::Cashbox)?
        }
        ServiceAction::RejectBinEmptied { notes, .. } => {
            box_emptied(booking, &reference, notes, Emptied::RejectBin)?
        }
        ServiceAction::TestDispense { outcome: DispenseOutcome::Uncertain, .. } => Vec::new(),
        ServiceAction::TestDispense { outcome, bays } => {
            let notes: BTreeMap<_, _> =
                bays.iter().map(|(bay, tested)| (*bay, tested.denomination_minor)).collect();
            let results: BayResults =
                bays.iter().map(|(bay, tested)| (*bay, tested.result)).collect();
            let mut lines = Lines::default();
            for (bay, moved) in moved(&results, *outcome, &notes)? {
                let taker = Account::Operator(operator);
                moved.carry(&mut lines, Unit::Fiat(currency), (machine, bay), taker, false)?;
            }
            some(lines.book(EntryKind::Tested, reference, None))?.into_iter().collect()
        }
    };
    let with_reason = |entry: Entry| match action.reason() {
        Some(reason) => entry.with_reason(reason),
        None => entry,
    };
    Ok(Some(entries.into_iter().map(with_reason).collect()))
}

/// Out of the box as the machine's books had it, then counted.
fn box_emptied(
    booking: &ServiceBooking<'_>,
    reference: &str,
    piles: &Piles,
    place: impl Fn(Denomination, i64) -> Emptied,
) -> Result<Vec<Entry>, LedgerError> {
    let ServiceBooking { machine, operator, currency, .. } = *booking;
    let places: Vec<_> = piles.iter().map(|(note, pile)| place(*note, pile.expected)).collect();
    let sum = |count: fn(&bitspire_shared::rpc::Pile) -> i64| {
        piles.iter().try_fold(0i64, |sum, (note, pile)| {
            let more = value(*note, count(pile))?;
            sum.checked_add(more).ok_or(MoneyError::Overflow { what: "notes" })
        })
    };
    let (expected, counted) = (sum(|pile| pile.expected)?, sum(|pile| pile.counted.into())?);
    let out = some(emptied(machine, reference, &places, currency))?;
    let transit = transit_counted(machine, operator, reference, expected, counted, currency);
    Ok(out.into_iter().chain(some(transit)?).collect())
}

/// An entry in which nothing moves is none.
fn some(entry: Result<Entry, LedgerError>) -> Result<Option<Entry>, LedgerError> {
    match entry {
        Err(LedgerError::Empty) => Ok(None),
        entry => entry.map(Some),
    }
}
