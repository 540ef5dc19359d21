//! What a device said last: kept at its fault, for evidence, and told to whoever asks.
//!
//! Promise: each fault leaves a file with the device's last frames (see [`crate::faults`]) before
//! anything follows from it. Whoever asks by the command line gets the newest frames of each device,
//! as many as a message holds.
//!
//! Failure policy: a trace that cannot be written is said in the log; it holds nothing up.

use bitspire_hardware::acceptor::AcceptorEvent;
use bitspire_hardware::dispenser::{DispenseOutcome, DispenserEvent};

use super::Event;
use super::core::Vault;
use crate::faults::{self, Fault};
use crate::ipc::{DeviceFrames, MAX_FRAME};

/// Bytes of frames that one of three devices may tell: in JSON they are a little longer.
const TOLD: usize = MAX_FRAME / 6;

impl Vault {
    /// What went over each line last.
    pub(super) fn device_frames(&self) -> Vec<DeviceFrames> {
        let acceptor = self.acceptor.as_ref().map(|taker| (self.taker_name(), taker.frames()));
        // the two sides of a recycler have one line
        let apart = self.dispenser.as_ref().filter(|_| self.config.recycler.is_none());
        let dispenser = apart.map(|giver| (self.giver_name(), giver.frames()));
        let printer = self.press.as_ref().map(|press| ("printer", press.frames()));
        let all = [acceptor, dispenser, printer].into_iter().flatten();
        all.map(|(device, frames)| DeviceFrames {
            device: device.to_owned(),
            frames: newest(frames, TOLD),
        })
        .collect()
    }

    /// What the device that takes notes is called.
    const fn taker_name(&self) -> &'static str {
        if self.config.recycler.is_some() { "recycler" } else { "acceptor" }
    }

    /// What the device that gives notes is called.
    const fn giver_name(&self) -> &'static str {
        if self.config.recycler.is_some() { "recycler" } else { "dispenser" }
    }

    /// Keeps the frames before this event, if it is a fault.
    pub(super) fn keep_frames(&self, event: &Event) {
        let (device, fault, txid, frames) = match event {
            Event::Acceptor(AcceptorEvent::Fault(fault)) => {
                let Some(taker) = &self.acceptor else { return };
                (self.taker_name(), fault.detail.clone(), self.feeding, taker.frames())
            }
            Event::Dispenser(event) => {
                let (Some(giver), Some(fault)) = (&self.dispenser, fault_of(event)) else { return };
                let txid = self.dispensing.map(|(txid, _)| txid);
                (self.giver_name(), fault, txid, giver.frames())
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

/// The last of them that have room together, still oldest first.
fn newest(mut frames: Vec<String>, room: usize) -> Vec<String> {
    let lengths = frames.iter().rev().scan(0usize, |sum, frame| {
        *sum = sum.saturating_add(frame.len());
        Some(*sum)
    });
    let kept = lengths.take_while(|sum| *sum <= room).count();
    frames.split_off(frames.len().saturating_sub(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a device that floods its line, and of which nothing can be asked any more.
    #[test]
    fn the_newest_frames_are_told() {
        let frames: Vec<String> = (0..10).map(|n| format!("{n:010}")).collect();
        assert_eq!(newest(frames.clone(), 35), frames[7..]);
        assert_eq!(newest(frames.clone(), 1_000), frames);
        assert_eq!(newest(frames, 5), Vec::<String>::new());
    }
}
