//! What a machine last said about itself: its devices, its counts, what a person should know.
//!
//! Promise: only what its vault signed since this pairing; counts are by the machine's own ledger.

use std::collections::BTreeMap;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination, Fiat};
use bitspire_shared::rpc::{Alert, Cashbox, Device, OpenTxn, RejectBin, StateReport, notes_value};
use bitspire_shared::time::Unix;
use serde::Serialize;

use crate::fleet::machines::last_report;
use crate::store::machines::KeptMachine;
use crate::store::{Read, StoreError};

/// Notes of one kind.
#[derive(Debug, Serialize)]
struct Pile {
    /// In whole units of the machine's currency.
    denomination: Option<u32>,
    denomination_minor: u32,
    count: u32,
}

impl Pile {
    fn new(note: Denomination, count: u32, currency: Currency) -> Self {
        Self { denomination: note.major(currency), denomination_minor: note.minor(), count }
    }
}

/// A bay.
#[derive(Debug, Serialize)]
pub(super) struct Bay {
    bay: BayId,
    #[serde(flatten)]
    pile: Pile,
    /// Notes of them and of those that were sold that customers had fed, where it recycles.
    #[serde(skip_serializing_if = "Option::is_none")]
    recycled: Option<u32>,
}

/// The bays of a report.
pub(super) fn bays(report: &StateReport, currency: Currency) -> Vec<Bay> {
    let bays = report.cassettes.iter();
    bays.map(|(bay, held)| {
        let pile = Pile::new(held.denomination_minor, held.count, currency);
        let fed = report.recycled.as_ref().and_then(|all| all.notes.get(bay));
        let recycled = fed.and_then(|notes| notes.get(&held.denomination_minor)).copied();
        Bay { bay: *bay, pile, recycled }
    })
    .collect()
}

/// The cashbox.
#[derive(Debug, Serialize)]
struct CashboxView {
    notes: Vec<Pile>,
    count: u64,
    capacity: u32,
    /// What the notes are worth; `None` beyond what can be said.
    value: Option<String>,
}

impl CashboxView {
    fn new(cashbox: &Cashbox, currency: Currency) -> Self {
        let notes = cashbox.notes.iter();
        let value = notes_value(&cashbox.notes).ok();
        Self {
            notes: notes.map(|(note, count)| Pile::new(*note, *count, currency)).collect(),
            count: cashbox.notes.values().map(|count| u64::from(*count)).sum(),
            capacity: cashbox.capacity,
            value: value.map(|minor| Fiat::new(minor, currency).to_string()),
        }
    }
}

/// The reject bin.
#[derive(Debug, Serialize)]
struct RejectBinView {
    notes: Vec<Pile>,
    count: u64,
}

impl RejectBinView {
    fn new(bin: &RejectBin, currency: Currency) -> Self {
        let notes = bin.notes.iter();
        Self {
            notes: notes.map(|(note, count)| Pile::new(*note, *count, currency)).collect(),
            count: bin.notes.values().map(|count| u64::from(*count)).sum(),
        }
    }
}

/// A heartbeat as the API shows it; the bays stand with the cassettes.
#[derive(Debug, Serialize)]
pub(super) struct Reported {
    at: Unix,
    versions: BTreeMap<String, String>,
    devices: BTreeMap<String, Device>,
    cashbox: Option<CashboxView>,
    reject_bin: Option<RejectBinView>,
    open_transactions: Vec<OpenTxn>,
    alerts: Vec<Alert>,
}

impl Reported {
    /// What a machine last said since it was paired.
    pub(super) fn find(read: &Read<'_>, machine: &KeptMachine) -> Result<Option<Self>, StoreError> {
        Ok(last_report(read, machine)?.map(|(at, report)| Self {
            at,
            cashbox: report.cashbox.map(|cashbox| CashboxView::new(&cashbox, machine.currency)),
            reject_bin: report.reject_bin.map(|bin| RejectBinView::new(&bin, machine.currency)),
            versions: report.versions,
            devices: report.devices,
            open_transactions: report.open_transactions,
            alerts: report.alerts,
        }))
    }
}
