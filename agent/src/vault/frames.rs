//! What a device said before its fault, kept for evidence.
//!
//! Promise: each fault leaves a file with the device's last frames (see [`crate::faults`]) before
//! anything follows from it.
//!
//! Failure policy: a trace that cannot be written is said in the log; it holds nothing up.

use bitspire_hardware::acceptor::AcceptorEvent;
use bitspire_hardware::dispenser::{DispenseOutcome, DispenserEvent};

use super::Event;
use super::core::Vault;
use crate::faults::{self, Fault};

impl Vault {
    /// Keeps the frames before this event, if it is a fault.
    pub(super) fn keep_frames(&self, event: &Event) {
        let (device, fault, txid, frames) = match event {
            Event::Acceptor(AcceptorEvent::Fault(fault)) => {
                let Some(taker) = &self.acceptor else { return };
                ("acceptor", fault.detail.clone(), self.feeding, taker.frames())
            }
            Event::Dispenser(event) => {
                let (Some(giver), Some(fault)) = (&self.dispenser, fault_of(event)) else { return };
                let txid = self.dispensing.map(|(txid, _)| txid);
                ("dispenser", fault, txid, giver.frames())
            }
            _ => return,
        };
        if frames.is_empty() {
            return;
        }
        let (device, seq, at) = (device.to_owned(), self.journal.head().seq, self.now().unix);
        let fault = Fault { device, seq, at, txid, fault, frames };
        if let Err(error) = faults::write(&self.config.faults(), &fault) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(event = "frames_not_kept", %error, cause);
        }
    }
}

fn fault_of(event: &DispenserEvent) -> Option<String> {
    match event {
        DispenserEvent::Fault(fault)
        | DispenserEvent::Dispensed(
            DispenseOutcome::Final { fault: Some(fault), .. } | DispenseOutcome::NotStarted(fault),
        ) => Some(fault.detail.clone()),
        DispenserEvent::Dispensed(DispenseOutcome::Unknowable { last_seen }) => {
            Some(last_seen.clone())
        }
        DispenserEvent::Ready { .. }
        | DispenserEvent::Dispensed(DispenseOutcome::Final { fault: None, .. })
        | DispenserEvent::Taken
        | DispenserEvent::Recovered => None,
    }
}
