//! Books what people did at the machine in service mode, as its heartbeats tell it.
//!
//! Promise: each event is kept and booked once, under its id, whichever heartbeats bring it and in
//! whatever order. Its amounts are those of the machine's own journal at its place there, so that a
//! sale that is reported later, or that crosses it, changes nothing of it. Only a count of a bay in
//! doubt is booked as the difference of the two books, and only while they are at rest.
//!
//! Failure policy: an event that cannot be booked stays unbooked and is logged; an audit says so,
//! and the heartbeat counts all the same. Another event under a known id changes nothing.

use bitspire_shared::rpc::{BayChange, ServiceAction, ServiceEvent, StateReport};
use bitspire_shared::time::Unix;
use serde_json::Value;

use super::failure::Failure;
use super::loads::{at_rest, swapped};
use crate::ledger::{
    Account, Counted, Entry, ServiceBooking, Unit, bay_counted, served, service_reference,
};
use crate::store::ledger::Before;
use crate::store::machines::KeptMachine;
use crate::store::service::{self, Event, KeptEvent};
use crate::store::{Json, Tx, ledger};

/// Keeps the events that a heartbeat tells and that are not known; `body` is the heartbeat as it
/// was signed.
pub(super) fn keep(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
    body: &Value,
    now: Unix,
) -> Result<(), Failure> {
    for event in &report.service_events {
        let ServiceEvent { id, journal_seq, at, action } = event;
        if let Some(known) = service::find(tx, *id)? {
            let same = known.machine_id == machine.id && known.action.0 == *action;
            if !same {
                tracing::error!(event = "service_event_changed", machine = %machine.id, %id);
            }
            continue;
        }
        tracing::info!(event = "service", machine = %machine.id, %id, seq = journal_seq.0);
        let event = Event {
            event_id: *id,
            machine_id: machine.id,
            journal_seq: *journal_seq,
            at: *at,
            action: Json(action.clone()),
            report: Json(body.clone()),
            received_at: now,
            booked_at: None,
        };
        service::insert(tx, &event)?;
    }
    Ok(())
}

/// Books every event whose amounts the machine's own books tell; whether there was one to be booked.
pub(super) fn book(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
    now: Unix,
) -> Result<bool, Failure> {
    let unbooked = service::unbooked(tx, machine.id)?;
    for event in &unbooked {
        let booking = booking(tx, machine, event)?;
        match served(&booking) {
            Ok(None) => {}
            Ok(Some(entries)) => write(tx, machine, report, event, &entries, now)?,
            Err(error) => {
                tracing::error!(event = "service_not_booked", id = %event.event_id, %error);
            }
        }
    }
    Ok(!unbooked.is_empty())
}

/// Books the counts of bays in doubt: as what it takes for the ledger to have what the machine has
/// now. `report` is the newest, and everything else of it is booked.
pub(super) fn book_counts(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
    now: Unix,
) -> Result<(), Failure> {
    let mut counts = service::unbooked(tx, machine.id)?;
    let in_doubt = |event: &KeptEvent| {
        let ServiceAction::BayChanged { change, expected, .. } = &event.action.0 else {
            return false;
        };
        matches!((change, expected), (BayChange::Set(_), None))
    };
    counts.retain(in_doubt);
    if counts.is_empty() || !at_rest(tx, machine, report)? {
        return Ok(());
    }
    for event in counts {
        let Some((bay, held)) = event.bay().and_then(|bay| report.cassettes.get_key_value(&bay))
        else {
            continue;
        };
        let (currency, note) = (machine.currency, held.denomination_minor);
        let account = Account::Bay(machine.id, *bay, note);
        let value = ledger::balance(tx, account, Unit::Fiat(currency))?;
        let expected = value.checked_div(note.minor().into()).unwrap_or(0);
        let counts = Counted { expected, counted: held.count };
        let reference = service_reference(event.event_id);
        let entry = bay_counted(machine.id, reference, *bay, note, counts, currency)?;
        let reasoned = |entry: Entry| match event.action.0.reason() {
            Some(reason) => entry.with_reason(reason),
            None => entry,
        };
        let entries: Vec<_> = entry.into_iter().map(reasoned).collect();
        write(tx, machine, report, &event, &entries, now)?;
    }
    Ok(())
}

fn booking<'a>(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    event: &'a KeptEvent,
) -> Result<ServiceBooking<'a>, Failure> {
    let mut first = false;
    if let ServiceAction::BayChanged { bay, denomination_minor, expected, .. } = &event.action.0 {
        let account = Account::Bay(machine.id, *bay, *denomination_minor);
        // customers' notes that are told in the same heartbeat are booked by now: where the machine's
        // own books had none when the bay was filled, they came into it after that
        let before = match expected {
            Some(1..) => Before::All,
            Some(_) | None => Before::Fed(event.received_at),
        };
        first = !ledger::was_loaded(tx, account, before)?;
    }
    Ok(ServiceBooking {
        machine: machine.id,
        operator: machine.operator_id,
        currency: machine.currency,
        event: event.event_id,
        action: &event.action.0,
        first,
    })
}

/// Writes an event's entries. Notes of other values than a bay had when it was counted were taken
/// out with their cassette; until the books are at rest nobody can say how many.
fn write(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    report: &StateReport,
    event: &KeptEvent,
    entries: &[Entry],
    now: Unix,
) -> Result<(), Failure> {
    if let (Some(bay), ServiceAction::BayChanged { denomination_minor, reason, .. }) =
        (event.counted_bay(), &event.action.0)
    {
        let reference = service_reference(event.event_id);
        let gone = swapped(tx, machine, reference, bay, *denomination_minor)?;
        if let Some(gone) = gone {
            if !at_rest(tx, machine, report)? {
                return Ok(());
            }
            ledger::append(tx, &gone.with_reason(reason.as_str()), now)?;
        }
    }
    for entry in entries {
        ledger::append(tx, entry, now)?;
    }
    Ok(service::set_booked(tx, event.id, now)?)
}
