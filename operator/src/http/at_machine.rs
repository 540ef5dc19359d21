//! What people did at a machine in service mode, and what counting has found, in the API.
//!
//! Promise: amounts and counts are those that the machine's vault signed; what is missing and what
//! is in transit are balances of the ledger.

use axum::extract::State;
use axum::{Extension, Json};
use bitspire_shared::ids::{ChangeId, JournalSeq};
use bitspire_shared::money::{Denomination, Fiat};
use bitspire_shared::rpc::{BayChange, Piles, ServiceAction};
use bitspire_shared::time::Unix;
use serde::Serialize;

use super::auth::Caller;
use super::error::ApiError;
use super::{Api, Id};
use crate::fleet::FleetError;
use crate::fleet::machines::find;
use crate::ids::{MachineId, OperatorId};
use crate::ledger::{Account, Unit};
use crate::store::machines::KeptMachine;
use crate::store::service::{self, KeptEvent};
use crate::store::{Read, ledger};

/// Events that are shown.
const SHOWN: u32 = 50;

/// What was counted against what the machine's books expected, in minor units.
#[derive(Clone, Copy)]
struct Count {
    expected: i64,
    counted: i64,
}

impl Count {
    fn of(action: &ServiceAction) -> Option<Self> {
        match action {
            ServiceAction::BayChanged {
                denomination_minor,
                change: BayChange::Set(counted),
                expected: Some(expected),
                ..
            } => {
                let note = *denomination_minor;
                Some(Self { expected: worth(note, *expected)?, counted: worth(note, *counted)? })
            }
            ServiceAction::CashboxEmptied { notes, .. }
            | ServiceAction::RejectBinEmptied { notes, .. } => Self::of_piles(notes),
            ServiceAction::BayChanged { .. } | ServiceAction::TestDispense { .. } => None,
        }
    }

    fn of_piles(piles: &Piles) -> Option<Self> {
        let nothing = Self { expected: 0, counted: 0 };
        piles.iter().try_fold(nothing, |sum, (note, pile)| {
            Some(Self {
                expected: sum.expected.checked_add(worth(*note, pile.expected)?)?,
                counted: sum.counted.checked_add(worth(*note, pile.counted)?)?,
            })
        })
    }
}

fn worth(note: Denomination, count: impl Into<i64>) -> Option<i64> {
    i64::from(note.minor()).checked_mul(count.into())
}

/// An event as the API shows it.
#[derive(Debug, Serialize)]
struct Shown {
    id: ChangeId,
    journal_seq: JournalSeq,
    at: Unix,
    received_at: Unix,
    booked_at: Option<Unix>,
    action: ServiceAction,
    /// What the machine's books expected, where something was counted.
    expected: Option<String>,
    counted: Option<String>,
    /// Counted less expected: below 0 is missing.
    difference_minor: Option<i64>,
    difference: Option<String>,
}

impl Shown {
    fn new(kept: &KeptEvent, machine: &KeptMachine) -> Self {
        let fiat = |minor| Fiat::new(minor, machine.currency).to_string();
        let count = Count::of(&kept.action.0);
        let more = count.and_then(|count| count.counted.checked_sub(count.expected));
        Self {
            id: kept.event_id,
            journal_seq: kept.journal_seq,
            at: kept.at,
            received_at: kept.received_at,
            booked_at: kept.booked_at,
            action: kept.action.0.clone(),
            expected: count.map(|count| fiat(count.expected)),
            counted: count.map(|count| fiat(count.counted)),
            difference_minor: more,
            difference: more.map(fiat),
        }
    }
}

/// Everything that was done at a machine, newest first.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    /// What all counting has found: below 0 is missing.
    cash_difference_minor: i64,
    cash_difference: String,
    /// Taken out and not counted yet.
    in_transit_minor: i64,
    in_transit: String,
    events: Vec<Shown>,
}

fn listed(
    read: &Read<'_>,
    id: MachineId,
    operator: Option<OperatorId>,
) -> Result<Listed, FleetError> {
    let machine = find(read, id, operator)?;
    let unit = Unit::Fiat(machine.currency);
    let missing = ledger::balance(read, Account::CashDifference(id), unit)?;
    let in_transit_minor = ledger::balance(read, Account::InTransit(id), unit)?;
    let cash_difference_minor = missing.saturating_neg();
    let fiat = |minor| Fiat::new(minor, machine.currency).to_string();
    let events = service::newest(read, id, SHOWN)?;
    Ok(Listed {
        cash_difference_minor,
        cash_difference: fiat(cash_difference_minor),
        in_transit_minor,
        in_transit: fiat(in_transit_minor),
        events: events.iter().map(|kept| Shown::new(kept, &machine)).collect(),
    })
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<Listed>, ApiError> {
    Ok(Json(api.app.store.read(move |read| listed(read, id, caller.operator)).await?))
}
