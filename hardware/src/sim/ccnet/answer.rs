//! What the device answers, and what becomes of an answer that is confirmed or not.

use super::*;
use crate::frame::ccnet::{Reply, Request};

impl CcnetSim {
    pub(super) fn on_frame(&mut self, frame: &Frame, now: Mono, out: &mut Vec<u8>) {
        if self.mishaps.is_deaf() {
            return;
        }
        if matches!(self.phase, Phase::Off(_)) || frame.address() != self.address {
            return;
        }
        let request = Request::parse(frame);
        match request {
            Request::Ack => return self.on_ack(now),
            Request::Nak => return self.on_nak(now, out),
            _ => {}
        }
        // a command in place of the ACK is as good as a NAK
        self.unconfirmed = None;
        if let Some(left) = self.denied_frames.checked_sub(1) {
            self.denied_frames = left;
            return self.send(&Reply::Nak.frame(), out);
        }
        match request {
            Request::Poll => self.on_poll(now, out),
            Request::GetStatus => self.tell_status(now, out),
            Request::Unit(command) => match self.on_command(command, now) {
                Some(frame) if frame.content() == [0x00] => self.send(&frame, out),
                Some(frame) => self.ask_for_ack(frame, None, now, out),
                None => self.send(&Reply::Illegal.frame(), out),
            },
            Request::Identification => {
                let [first, rest @ ..] = self.identity;
                let frame = Frame::new(self.address, first, &rest);
                self.tell(&Reply::parse(&frame), now, out);
            }
            Request::GetBillTable => self.tell_table(now, out),
            Request::Ack | Request::Nak => {}
            Request::Reset
            | Request::SetSecurity(_)
            | Request::Enable { .. }
            | Request::Stack
            | Request::Return
            | Request::Hold
            | Request::Unknown { .. } => {
                let taken = self.obey(request, now);
                self.send(&if taken { Reply::Ack } else { Reply::Illegal }.frame(), out);
            }
        }
    }

    fn on_poll(&mut self, now: Mono, out: &mut Vec<u8>) {
        let Some(state) = self.state() else { return };
        if let Some(left) = self.busy_polls.checked_sub(1) {
            self.busy_polls = left;
            return self.ask_for_ack(State::Busy(3).frame(), None, now, out);
        }
        match self.trouble {
            Some(Trouble { kind: path::TroubleKind::Code(code), .. }) => {
                self.ask_for_ack(Frame::new(self.address, code, &[]), None, now, out);
            }
            _ if self.moving_frame().is_some() => {
                if let Some(frame) = self.moving_frame() {
                    self.ask_for_ack(frame, None, now, out);
                }
            }
            _ => self.ask_for_ack(state.frame(), Some(state), now, out),
        }
    }

    /// An answer that strict firmware gives only while no note moves.
    fn tell(&mut self, reply: &Reply<'_>, now: Mono, out: &mut Vec<u8>) {
        if self.options.strict && self.moves() {
            self.send(&Reply::Illegal.frame(), out);
        } else {
            self.ask_for_ack(reply.frame(), None, now, out);
        }
    }

    fn tell_status(&mut self, now: Mono, out: &mut Vec<u8>) {
        let (bills, secure) = (self.enabled, self.secure);
        let reply = if self.unit.is_some() {
            Reply::UnitStatus { bills, secure, routed: Bills::NONE }
        } else {
            Reply::Status { bills, secure }
        };
        self.tell(&reply, now, out);
    }

    fn tell_table(&mut self, now: Mono, out: &mut Vec<u8>) {
        let row = |kind| {
            let slot = self.table.iter().find(|slot| slot.kind == kind);
            slot.map_or([0, b' ', b' ', b' ', 0], |slot| {
                let [a, b, c] = slot.country;
                [slot.digits, a, b, c, slot.exponent]
            })
        };
        let rows: Vec<u8> = (0..24).flat_map(row).collect();
        let (first, rest) = rows.split_first().unwrap_or((&0, &[]));
        let frame = Frame::new(self.address, *first, rest);
        self.tell(&Reply::parse(&frame), now, out);
    }

    const fn moves(&self) -> bool {
        !matches!(self.phase, Phase::PowerUp(_) | Phase::Idle)
    }

    /// Sends an answer that the host is to confirm.
    fn ask_for_ack(&mut self, frame: Frame, state: Option<State>, now: Mono, out: &mut Vec<u8>) {
        let until = now.after(self.timing.confirm);
        let frame = frame.with_address(self.address);
        self.unconfirmed = Some(Unconfirmed { frame, state, until, said_again: false });
        self.send(&frame, out);
    }

    pub(super) fn send(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        let frame = frame.with_address(self.address);
        if !self.mishaps.say(out, |out| frame.write_to(out)) {
            self.power_off();
        }
    }

    fn on_nak(&mut self, now: Mono, out: &mut Vec<u8>) {
        let Some(mut last) = self.unconfirmed.take() else { return };
        last.until = now.after(self.timing.confirm);
        self.send(&last.frame, out);
        self.unconfirmed = Some(last);
    }

    /// An ACK that comes too late is none: what it was for is said again at the next poll.
    fn on_ack(&mut self, now: Mono) {
        let Some(last) = self.unconfirmed.take().filter(|last| now <= last.until) else { return };
        match (last.state, self.phase) {
            (Some(State::Stacked(_) | State::Packed { .. }), Phase::Stacked { .. }) => {
                self.tally.acknowledged = self.tally.acknowledged.saturating_add(1);
                self.misread_next = None;
                self.after_note();
            }
            (Some(State::Returned(_)), Phase::Returned { .. }) => self.after_note(),
            (Some(State::Cheated), Phase::Halted(inside)) if self.options.cheat_passes => {
                self.trouble = None;
                self.initialize(inside, now);
            }
            _ => self.out_acknowledged(&last.frame),
        }
    }

    pub(super) fn after_note(&mut self) {
        if self.options.closes_after_note {
            self.enabled = Bills::NONE;
        }
        self.phase = Phase::Idle;
    }

    pub(super) fn says_again_at(&self) -> Option<Mono> {
        let last = self.unconfirmed.as_ref().filter(|last| !last.said_again)?;
        self.options.says_again.then_some(last.until)
    }

    pub(super) fn say_again_when_due(&mut self, now: Mono, out: &mut Vec<u8>) {
        if self.says_again_at().is_some_and(|at| at <= now) {
            self.on_nak(now, out);
            if let Some(last) = &mut self.unconfirmed {
                last.said_again = true;
            }
        }
    }

    fn obey(&mut self, request: Request<'_>, now: Mono) -> bool {
        self.phase = match (request, self.phase) {
            (Request::Reset, _) => return self.reset(now),
            (Request::SetSecurity(bills), _) => {
                self.secure = bills;
                return true;
            }
            (Request::Enable { .. }, Phase::PowerUp(_) | Phase::Initializing { .. }) => {
                return false;
            }
            (Request::Enable { bills, escrow }, phase) => {
                if self.options.strict && phase != Phase::Idle {
                    return false;
                }
                (self.enabled, self.escrow) = (bills, escrow);
                self.unit_enabled();
                return true;
            }
            (Request::Stack, Phase::Escrow { kind, .. }) => {
                Phase::Stacking { kind, until: now.after(self.timing.stack) }
            }
            (Request::Return, Phase::Escrow { kind, .. }) => {
                Phase::Returning { kind, until: self.taken(now) }
            }
            (Request::Hold, Phase::Escrow { kind, .. }) => {
                Phase::Escrow { kind, until: now.after(ESCROW_MS), held: true }
            }
            _ => return false,
        };
        true
    }

    /// RESET during BILL STACKED forgets the credit: the note stays in the cassette.
    fn reset(&mut self, now: Mono) -> bool {
        self.stop_out();
        match self.phase {
            Phase::Open(_) => {}
            Phase::Stacked { .. } => self.initialize(None, now),
            _ => self.initialize(self.left_behind(), now),
        }
        true
    }

    pub(super) fn initialize(&mut self, inside: Option<Inside>, now: Mono) {
        (self.enabled, self.escrow) = (Bills::NONE, Bills::NONE);
        self.phase = Phase::Initializing { inside, until: now.after(self.timing.initialize) };
    }
}
