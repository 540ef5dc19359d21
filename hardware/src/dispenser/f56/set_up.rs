//! Setting up: status, reset with the notes of each cassette, status.
//!
//! Promise: the device is told only sizes that are known, and is not reset over notes at its exit.
//! Every set-up that was asked for ends in `Ready` or in a fault in words.

use std::collections::BTreeMap;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;

use super::line::{LineEvent, Nature};
use super::{F56, Job, Next, POLYMER, SetUpStep, fault_kind, slot};
use crate::Authority;
use crate::dispenser::{DispenserEvent, FaultKind};
use crate::frame::f56::{NoteSize, Request, SLOTS, Setup, note_size};

impl<A: Authority> F56<A> {
    pub(super) fn configure(&mut self, bays: &BTreeMap<BayId, Denomination>) {
        if let Some(detail) = self.state.unfit(bays.keys()) {
            return self.state.fault(FaultKind::ServiceNeeded, detail);
        }
        let mut slots = [NoteSize::UNUSED; SLOTS];
        for (bay, denomination) in bays {
            let Some(place) = slot(*bay).and_then(|slot| slots.get_mut(slot)) else { continue };
            match note_size(self.currency, *denomination) {
                Ok(size) => *place = size,
                Err(error) => {
                    return self
                        .state
                        .fault(FaultKind::ServiceNeeded, format!("bay {bay}: {error}"));
                }
            }
        }
        // one thickness for all, unused ones too, as field units are set up
        let thickness = slots.iter().map(|note| note.thickness).max().unwrap_or(0);
        let odr = if slots.iter().any(|note| note.polymer) { POLYMER } else { 0 };
        let slots = slots.map(|note| NoteSize { thickness, ..note });
        self.state.unset();
        self.next =
            Some(Next { bays: bays.keys().copied().collect(), setup: Setup { odr, slots } });
    }

    pub(super) fn on_set_up(&mut self, next: Next, step: SetUpStep, event: LineEvent, now: Mono) {
        let reply = match event {
            LineEvent::Reply(reply) => reply,
            LineEvent::Stray(_) => {
                self.job = Job::SetUp { next, step };
                return;
            }
            LineEvent::NotSent { why, .. } | LineEvent::Lost { why } => {
                return self.no_answer(format!("set-up: {why}"), true, now);
            }
        };
        match step {
            SetUpStep::Look | SetUpStep::WaitForExit { .. } => {
                self.on_status(&reply, now);
                if self.state.notes_at_exit {
                    // a reset with notes at the exit could pull them back, uncounted
                    if step == SetUpStep::Look {
                        let detail = "notes lie at the exit: the set-up waits until they are taken";
                        self.state.fault(FaultKind::ServiceNeeded, detail.to_owned());
                    }
                    if self.next.is_none() {
                        let step = SetUpStep::WaitForExit { looking: false };
                        self.job = Job::SetUp { next, step };
                    }
                    return;
                }
                if matches!(step, SetUpStep::WaitForExit { .. }) {
                    self.state.events.push(DispenserEvent::Recovered);
                }
                self.line.send(Request::Init(next.setup), Nature::Mechanical, now);
                self.job = Job::SetUp { next, step: SetUpStep::Init };
            }
            SetUpStep::Init => match reply.error() {
                Some(error) => {
                    let kind = fault_kind(&error);
                    self.state.fault(kind, format!("set-up refused: {error}"));
                    self.state.poll_later(now);
                }
                None => {
                    self.line.send(Request::Status, Nature::Query, now);
                    self.job = Job::SetUp { next, step: SetUpStep::Confirm };
                }
            },
            SetUpStep::Confirm => {
                if let Some(error) = reply.error() {
                    self.on_status(&reply, now);
                    let kind = fault_kind(&error);
                    return self.state.fault(kind, format!("not well after its set-up: {error}"));
                }
                self.state.set_up(&next.bays);
                self.on_status(&reply, now);
                self.state.ready();
            }
        }
    }
}
