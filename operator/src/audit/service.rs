//! What people did at machines, derived again from the heartbeats that told it.
//!
//! Promise: an event counts only as a vault of its machine signed it; its entries are those that
//! follow from it. One that is not booked is told: as waiting where a sale in doubt is the cause.

use bitspire_shared::rpc::{ServiceAction, ServiceEvent, StateReport, VaultSigned};

use super::books;
use super::gather::{Gather, PAGE};
use super::report::Check;
use super::signed::{Keys, by_vault};
use crate::ids::{MachineId, ServiceEventId};
use crate::ledger::{Entry, EntryKind, ServiceBooking, served, service_reference};
use crate::store::StoreError;
use crate::store::service::{self, KeptEvent};

impl Gather<'_> {
    pub(super) fn service(&mut self) -> Result<(), StoreError> {
        let machines: Vec<MachineId> = self.machines.keys().copied().collect();
        for id in machines {
            let mut after = ServiceEventId(0);
            loop {
                let page = service::page(self.read, id, after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.id;
                for event in &page {
                    self.event(event)?;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &KeptEvent) -> Result<(), StoreError> {
        let Some(machine) = self.machines.get(&event.machine_id) else { return Ok(()) };
        let subject = format!("service event {} of machine {}", event.event_id, event.machine_id);
        self.findings.look(Check::Requests);
        if !told(&machine.keys, event) {
            let expected = "a heartbeat with it and the vault_sig of the machine's vault";
            self.findings.differ(Check::Requests, &subject, expected, "none that holds");
        }
        let reference = service_reference(event.event_id);
        let first = self.rows.entry(EntryKind::Refilled, &reference)?;
        let booking = ServiceBooking {
            machine: event.machine_id,
            operator: machine.row.operator_id,
            currency: machine.row.currency,
            event: event.event_id,
            action: &event.action.0,
            first: first.is_some(),
        };
        let follows = served(&booking);
        match (follows, event.booked_at) {
            (Ok(Some(entries)), Some(_)) => {
                for expected in &entries {
                    let found = self.rows.entry(expected.kind(), expected.reference())?;
                    books::entry(&mut self.findings, expected, found.as_ref());
                }
            }
            // what such a count comes to is held by the comparison with the machine
            (Ok(None), Some(_)) => {}
            (Ok(_), None) if matches!(event.action.0, ServiceAction::BayChanged { .. }) => {
                let why = "it is booked when no sale is under way or in doubt";
                self.findings.wait(Check::Cash, subject, why, Some(event.received_at));
            }
            (Ok(_), None) => self.findings.differ(Check::Cash, subject, "its entries", "none"),
            (Err(error), _) => {
                self.findings.differ(Check::Cash, subject, "amounts that can be booked", error);
            }
        }
        Ok(())
    }

    /// Whether an event on record makes this entry.
    pub(super) fn by_service(&self, event: &str, entry: &Entry) -> Result<bool, StoreError> {
        let Ok(id) = event.parse() else { return Ok(false) };
        let Some(event) = service::find(self.read, id)? else { return Ok(false) };
        let kinds: &[EntryKind] = match &event.action.0 {
            ServiceAction::BayChanged { .. } => {
                &[EntryKind::Refilled, EntryKind::BayCounted, EntryKind::Emptied]
            }
            ServiceAction::CashboxEmptied { .. } | ServiceAction::RejectBinEmptied { .. } => {
                &[EntryKind::Emptied, EntryKind::TransitCounted]
            }
            ServiceAction::TestDispense { .. } => &[EntryKind::Tested],
        };
        Ok(event.booked_at.is_some() && kinds.contains(&entry.kind()))
    }
}

/// Whether a vault of the machine signed the heartbeat, and the event stands in it as it was kept.
fn told(keys: &Keys, event: &KeptEvent) -> bool {
    let signed = serde_json::from_value::<VaultSigned<StateReport>>(event.report.0.clone());
    let Ok(signed) = signed else { return false };
    let same = |one: &ServiceEvent| {
        one.id == event.event_id
            && one.journal_seq == event.journal_seq
            && one.at == event.at
            && one.action == event.action.0
    };
    by_vault(keys, &signed).is_some_and(|report| report.service_events.iter().any(same))
}
