//! Setting up: status, reset and lengths where the model knows them, purge, status.
//!
//! Promise: an LCDM-4000 is told only lengths that are known, and no device is purged over notes at
//! its exit. Every set-up that was asked for ends in `Ready` or in a fault in words.

use std::collections::BTreeMap;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;

use super::line::{LineEvent, Nature};
use super::model::Answer;
use super::{Job, Model, Next, Puloon, SLOTS, SetUpStep, fault_kind, is_down};
use crate::Authority;
use crate::dispenser::state::slot;
use crate::dispenser::{DispenserEvent, FaultKind};
use crate::frame::f56::note_size;
use crate::frame::hex;
use crate::frame::puloon::Frame;
use crate::frame::puloon::lcdm4000::{Request, length_units};

/// How long a second reply to a reset may take after the first: units answer not at all, once, or
/// before and after their motors have started again.
const RESTART_MS: u64 = 2_500;

impl<A: Authority> Puloon<A> {
    pub(super) fn configure(&mut self, bays: &BTreeMap<BayId, Denomination>) {
        if let Some(detail) = self.state.unfit(bays.keys()) {
            return self.state.fault(FaultKind::ServiceNeeded, detail);
        }
        let mut lengths = [0; SLOTS];
        for (bay, denomination) in bays.iter().filter(|_| self.settings.model == Model::Lcdm4000) {
            let Some(place) = slot(*bay).and_then(|slot| lengths.get_mut(slot)) else { continue };
            match note_size(self.settings.currency, *denomination) {
                Ok(size) => *place = length_units(size.max.midpoint(size.min)),
                Err(error) => {
                    let detail = format!("bay {bay}: {error}");
                    return self.state.fault(FaultKind::ServiceNeeded, detail);
                }
            }
        }
        self.state.unset();
        self.next = Some(Next { bays: bays.keys().copied().collect(), lengths });
    }

    pub(super) fn on_set_up(&mut self, next: Next, step: SetUpStep, event: LineEvent, now: Mono) {
        let frame = match event {
            LineEvent::Reply(frame) => frame,
            LineEvent::Stray(frame) => {
                self.job = Job::SetUp { next, step };
                if step == SetUpStep::Restart && frame.command() == Request::Reset.frame().command()
                {
                    self.restarted(now);
                }
                return;
            }
            LineEvent::Refused => {
                self.job = Job::SetUp { next, step };
                return;
            }
            // it may start again without a word
            LineEvent::Lost { .. } if step == SetUpStep::Reset => {
                self.job = Job::SetUp { next, step: SetUpStep::Restart };
                return self.restarted(now);
            }
            LineEvent::NotSent { why, .. } | LineEvent::Lost { why } => {
                return self.no_answer(format!("set-up: {why}"), true, now);
            }
        };
        let answer = Answer::read(&frame);
        match step {
            SetUpStep::Look | SetUpStep::WaitForExit { .. } => {
                self.on_status(answer, now);
                if self.state.notes_at_exit {
                    // a purge with notes at the exit could push them out, uncounted
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
                match self.settings.model {
                    Model::Lcdm4000 => {
                        let reset = Request::Reset.frame();
                        self.ask(next, SetUpStep::Reset, reset, Nature::Reset, now);
                    }
                    Model::Lcdm2000 | Model::Lcdm1000 => self.purge(next, now),
                }
            }
            SetUpStep::Reset => {
                self.state.poll_at = now.after(RESTART_MS);
                self.job = Job::SetUp { next, step: SetUpStep::Restart };
            }
            SetUpStep::Serial => {
                if let Answer::Serial(serial) = answer {
                    self.serial = serial;
                }
                let lengths = Request::SetLengths(next.lengths).frame();
                self.ask(next, SetUpStep::Lengths, lengths, Nature::Query, now);
            }
            SetUpStep::Lengths => match answer {
                Answer::Done { error } if error.is_ok() => self.purge(next, now),
                Answer::Done { error } => self.refused(&format!("lengths refused: {error}"), now),
                _ => self.refused(&strange("lengths", &frame), now),
            },
            SetUpStep::Purge => self.on_purge(next, answer, &frame, now),
            SetUpStep::Confirm => {
                if let Answer::Status { error, .. } = answer
                    && is_down(error)
                {
                    self.on_status(answer, now);
                    let detail = format!("not well after its set-up: {error}");
                    return self.state.fault(fault_kind(error), detail);
                }
                if !matches!(answer, Answer::Status { .. }) {
                    return self.refused(&strange("status", &frame), now);
                }
                self.state.set_up(&next.bays);
                self.on_status(answer, now);
                self.state.ready();
            }
            // a reply only while it waits, which is no exchange
            SetUpStep::Restart => self.job = Job::SetUp { next, step },
        }
    }

    /// It has started again, as far as it says.
    pub(super) fn restarted(&mut self, now: Mono) {
        if let Job::SetUp { next, .. } = std::mem::replace(&mut self.job, Job::None) {
            self.ask(next, SetUpStep::Serial, Request::Serial.frame(), Nature::Query, now);
        }
    }

    fn on_purge(&mut self, next: Next, answer: Answer, frame: &Frame, now: Mono) {
        let (error, out) = match answer {
            Answer::Counted(counted) => {
                (counted.error, counted.bays.iter().map(|bay| bay.exit).sum::<u32>())
            }
            Answer::Done { error } => (error, 0),
            _ => return self.refused(&strange("purge", frame), now),
        };
        if out > 0 {
            let detail = format!(
                "the purge pushed {out} notes out of the exit that no dispense counted: count the \
                 bays"
            );
            self.refused(&detail, now);
        } else if is_down(error) {
            self.state.fault(fault_kind(error), format!("purge: {error}"));
            self.state.poll_later(now);
        } else {
            self.ask(next, SetUpStep::Confirm, self.settings.status(), Nature::Query, now);
        }
    }

    fn purge(&mut self, next: Next, now: Mono) {
        self.ask(next, SetUpStep::Purge, self.settings.purge(), Nature::Mechanical, now);
    }

    fn ask(&mut self, next: Next, step: SetUpStep, frame: Frame, nature: Nature, now: Mono) {
        self.line.send(frame, nature, now);
        self.job = Job::SetUp { next, step };
    }

    fn refused(&mut self, detail: &str, now: Mono) {
        self.state.fault(FaultKind::ServiceNeeded, detail.to_owned());
        self.state.poll_later(now);
    }
}

fn strange(what: &str, frame: &Frame) -> String {
    let (command, data) = (frame.command(), hex(frame.data()));
    format!("{what}: expected an answer of this model, got command {command:02X} ({data})")
}
