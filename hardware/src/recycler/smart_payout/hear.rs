//! What a poll tells, event by event.

use super::setup::Step;
use super::talk::POLL_MS;
use super::*;
use crate::frame::ssp::{Detail, Event, EventCode, RejectReason, Reply};

/// A note of which nothing is told for so long has gone where nobody knows.
const QUIET_MS: u64 = 10_000;
/// Without a word of it for so long, a fault is over.
const WELL_MS: u64 = 2_000;

/// What one answer told beside its events.
#[derive(Default)]
struct Seen {
    note: bool,
    shut: bool,
    fault: bool,
    starting: bool,
}

impl<A: Authority> SmartPayout<A> {
    /// The answer to a poll that was not taken: nothing was told by it.
    pub(super) fn on_odd_poll(&mut self, reply: &Reply<'_>, now: Mono) {
        self.inlet.calm = false;
        self.voice.fail(FaultKind::ServiceNeeded, format!("a poll is refused: {reply}"));
        self.fault_at = now;
        self.next_poll = now.after(POLL_MS);
    }

    pub(super) fn on_poll(&mut self, reply: &Reply<'_>, now: Mono) {
        let mut seen = Seen::default();
        let mut known = std::mem::take(&mut self.inlet.pending);
        let mut pending = Vec::new();
        if let Some(work) = &mut self.work {
            work.moving.begin_poll();
        }
        let mut unread = false;
        for event in reply.events() {
            // whatever comes behind it in the answer is hidden by it
            unread |= matches!(event.code, EventCode::Unknown { .. }) && event.raw.len() > 1;
            let wants_ack = event.code.wants_ack();
            let again = known.iter().position(|raw| raw == event.raw).filter(|_| wants_ack);
            if wants_ack {
                pending.push(event.raw.to_vec());
            }
            match again {
                // said again, because nobody has acknowledged it
                Some(at) => drop(known.swap_remove(at)),
                None => self.on_event(&event, &mut seen, now),
            }
        }
        // an acknowledgement would clear what was not read, too
        self.inlet.ack_due = !pending.is_empty() && !unread;
        self.inlet.pending = pending;
        self.follow_inlet(&seen, now);
        self.follow_work(seen.starting, now);
    }

    fn on_event(&mut self, event: &Event<'_>, seen: &mut Seen, now: Mono) {
        use EventCode as C;
        let trouble = |this: &mut Self, seen: &mut Seen, kind| {
            seen.fault = true;
            this.fault_at = now;
            this.voice.fail(kind, event.to_string());
        };
        match (event.code, event.detail) {
            (C::Reset, _) => self.on_power_up(now),
            (C::Initialising, _) => seen.starting = true,
            (C::Disabled | C::ChannelsDisabled, _) => seen.shut = true,
            (C::Read, Detail::Channel(channel)) => {
                seen.note = true;
                self.on_read(channel, now);
            }
            (C::TicketRead, _) => {
                seen.note = true;
                self.inlet.escrow = Some(Escrow::Refused);
            }
            (C::Credit, Detail::Channel(channel)) => {
                seen.note = true;
                // one that was acknowledged is not said again: this is the next one
                if std::mem::take(&mut self.inlet.credit_acked) {
                    self.end_note();
                }
                self.on_credit(channel);
            }
            (C::ClearedIntoCashbox, Detail::Channel(channel)) => {
                self.on_credit(channel);
                (self.inlet.over, self.recount) = (true, true);
            }
            (C::ClearedFromFront, _) => {
                self.with_notes(|notes, _, voice| {
                    notes.tell_found(PowerUpBill::InAcceptor, voice);
                    notes.gives_back();
                });
                self.inlet.over = true;
            }
            (C::Rejecting, _) => {
                seen.note = true;
                if !self.notes.has_none() {
                    self.notes.gives_back();
                }
            }
            (C::Rejected, _) => (seen.note, self.inlet.why_due) = (true, true),
            (C::Stacking, _) if self.work.is_none() => {
                seen.note = true;
                self.with_notes(|notes, _, voice| notes.may_be_stacked(voice));
            }
            (C::Stacked | C::Stored, _) if self.work.is_none() => {
                (self.inlet.over, self.recount) = (true, true);
                self.with_notes(|notes, known, voice| {
                    // without its credit it is not known to be one
                    if notes.is_credited() {
                        notes.on_stacked(known, voice);
                    }
                });
            }
            (C::Stacking | C::Stacked | C::Stored, _) => {}
            (C::SafeJam | C::UnsafeJam, _) => {
                self.notes.doubt();
                trouble(self, seen, FaultKind::Jam);
            }
            (C::Fraud, _) => {
                self.notes.doubt();
                trouble(self, seen, FaultKind::Cheated);
            }
            (C::CashboxFull | C::DeviceFull, _) => trouble(self, seen, FaultKind::Cassette),
            (C::CashboxRemoved, _) => {
                trouble(self, seen, FaultKind::Cassette);
                if !std::mem::replace(&mut self.cashbox_out, true) {
                    self.voice.tell(AcceptorEvent::CashboxRemoved(true));
                }
            }
            (C::CashboxReplaced, _) => {
                if std::mem::take(&mut self.cashbox_out) {
                    self.voice.tell(AcceptorEvent::CashboxRemoved(false));
                }
            }
            (C::PathOpen | C::TicketStacked | C::Unknown { .. }, _) => {
                trouble(self, seen, FaultKind::ServiceNeeded);
            }
            (C::OutOfService, _) => self.trouble(FaultKind::ServiceNeeded, event.to_string()),
            _ => self.on_movement(event, now),
        }
    }

    /// The device has been without power.
    fn on_power_up(&mut self, now: Mono) {
        self.notes.found = false;
        self.notes.doubt();
        // the time without power is no time in which it could have told anything
        (self.inlet.calm, self.inlet.busy_at) = (false, now);
        self.levels = None;
        self.recount = true;
        // a payout that was stuck has started anew, too
        self.end_trouble();
        if let Some(work) = &mut self.work {
            work.moving.power_lost(now);
        }
    }

    fn on_read(&mut self, channel: u8, now: Mono) {
        // what was acknowledged is of the note before, wherever that went
        if self.inlet.over || self.inlet.credit_acked {
            self.end_note();
        }
        if channel == 0 {
            return;
        }
        if self.inlet.credit_open || self.work.is_some() {
            self.inlet.escrow = Some(Escrow::Refused);
            return;
        }
        let gap = self.inlet.out_of_sight;
        self.with_notes(|notes, known, voice| {
            if gap || !notes.found {
                notes.came_out_of_sight(known, voice);
            } else {
                notes.on_escrow(Some(channel), known, voice);
            }
        });
        self.inlet.escrow = Some(Escrow::Ours);
        (self.inlet.escrow_since, self.inlet.held_at) = (now, Mono(0));
    }

    fn on_credit(&mut self, channel: u8) {
        let code = (channel > 0).then_some(channel);
        self.with_notes(|notes, known, voice| notes.on_credit(code, known, voice));
        self.inlet.credit_open = !self.notes.acknowledged();
        self.recount = true;
    }

    pub(super) fn on_reject_reason(&mut self, reply: &Reply<'_>) {
        self.inlet.why_due = false;
        let reason = match (reply.is_ok(), reply.rest.first()) {
            (true, Some(code)) => RejectReason::from_code(*code).to_string(),
            _ => format!("it does not tell why: {reply}"),
        };
        self.with_notes(|notes, _, voice| {
            notes.tell_found(PowerUpBill::None, voice);
            notes.rejects(reason, true, voice);
        });
        self.inlet.over = true;
    }

    pub(super) fn end_note(&mut self) {
        self.inlet.over = false;
        self.inlet.credit_acked = false;
        self.inlet.away = None;
        self.told_open = None;
        self.with_notes(|notes, known, voice| notes.end_of_note(known, voice));
    }

    /// What became of the note, and whether the inlet is open.
    fn follow_inlet(&mut self, seen: &Seen, now: Mono) {
        if seen.note || seen.starting {
            (self.inlet.busy_at, self.told_open) = (now, None);
        }
        let untold = !self.inlet.pending.is_empty();
        if seen.note || self.inlet.why_due || self.inlet.credit_open || untold {
            self.inlet.calm = false;
            return;
        }
        let quiet = now.since(self.inlet.busy_at) >= QUIET_MS;
        if !self.notes.has_none() && (self.inlet.over || quiet) && !seen.starting {
            self.end_note();
        }
        if seen.starting {
            return;
        }
        self.with_notes(|notes, _, voice| notes.tell_found(PowerUpBill::None, voice));
        self.inlet.over &= !self.notes.has_none();
        self.inlet.calm = self.notes.has_none();
        if !self.inlet.calm {
            return;
        }
        self.inlet.out_of_sight = false;
        if now.since(self.fault_at) >= WELL_MS && self.voice.recover() {
            self.told_open = None;
        }
        self.tell_inlet(seen, now);
    }

    fn tell_inlet(&mut self, seen: &Seen, now: Mono) {
        let open = !self.wanted.is_empty();
        // it shuts itself after a payout, and after a start
        if open && seen.shut && self.setup.enabled == Some(true) && self.setup.enable_at <= now {
            self.setup.enabled = None;
        }
        let as_told = self.setup.enabled == Some(open) && seen.shut != open;
        let well = self.voice.fault.is_none() && !seen.fault && self.setup.step == Step::Run;
        if as_told && well && self.told_open != Some(open) {
            self.told_open = Some(open);
            self.voice.tell(if open { AcceptorEvent::Accepting } else { AcceptorEvent::Closed });
        }
    }

    /// The payout's own trouble, told once.
    pub(super) fn trouble(&mut self, kind: FaultKind, detail: String) {
        self.setup.payout_on = false;
        if !std::mem::replace(&mut self.in_trouble, true) {
            self.state.bays = None;
            self.state.fault(kind, detail);
        }
    }

    /// The payout is well again.
    pub(super) fn end_trouble(&mut self) {
        if std::mem::take(&mut self.in_trouble) {
            self.state.events.push(DispenserEvent::Recovered);
            self.set_up_wanted = !self.bays.is_empty();
        }
    }

    /// Notes move out of the store, whoever has ordered it.
    fn on_movement(&mut self, event: &Event<'_>, now: Mono) {
        let country = self.country();
        let moving = match &mut self.work {
            Some(work) if work.moving.is_ordered() => &mut work.moving,
            // nothing of ours was ordered: another movement is met, and ours is not begun
            Some(_) => {
                self.not_begun(FaultKind::ServiceNeeded, "notes are moving already");
                return self.on_movement(event, now);
            }
            None => {
                let moving = Moving::met(now);
                &mut self.work.insert(Work { what: What::Follow, moving }).moving
            }
        };
        moving.on_event(event, country, now);
    }
}
