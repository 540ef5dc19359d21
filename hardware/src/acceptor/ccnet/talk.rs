//! Who says what when: one question at a time, the next one chosen from the device's last state;
//! each answer with data confirmed, denied, or left without a word.

use super::*;
use crate::frame::ccnet::unit::UnitState;

impl<A: Authority> Ccnet<A> {
    /// Sends what is due, and says when to come back.
    pub(super) fn pump(&mut self, now: Mono) -> Mono {
        if let Some(Waiting { ask, since, noise, denied }) = self.waiting {
            let timeout = since.after(RESPONSE_MS);
            if now < timeout {
                return timeout;
            }
            if noise && !denied && ask.is_question() {
                self.decoder.clear();
                self.write(Request::Nak);
                self.waiting = Some(Waiting { ask, since: now, noise: false, denied: true });
                return now.after(RESPONSE_MS);
            }
            self.unanswered(ask, now);
        }
        let (ask, due) = self.next(now);
        let due = due.max(self.free_at);
        if now < due {
            return due;
        }
        self.say(ask, now);
        now.after(RESPONSE_MS)
    }

    fn write(&mut self, request: Request<'_>) {
        request.frame().with_address(self.address).write_to(&mut self.voice.out.write);
    }

    fn say(&mut self, ask: Ask, now: Mono) {
        // half duplex: whatever is half there is not the answer to this
        self.decoder.clear();
        self.write(ask.request());
        // what was seen of a device that is silent now says nothing of its note
        let in_escrow = self.waits() && self.current;
        self.current &= ask.is_question();
        match ask {
            Ask::Stack => self.notes.said(Word::Stack, now),
            Ask::Return => self.notes.said(Word::Return, now),
            Ask::Hold => self.notes.said(Word::Hold, now),
            Ask::Reset if in_escrow => self.notes.said(Word::Reset, now),
            _ => {}
        }
        self.waiting = Some(Waiting { ask, since: now, noise: false, denied: false });
    }

    fn next(&self, now: Mono) -> (Ask, Mono) {
        let poll = (Ask::Poll, self.next_poll);
        if self.is_silent(now) {
            return (if self.reset_wanted { Ask::Reset } else { Ask::Poll }, self.next_poll);
        }
        let Some(state) = self.seen.filter(|_| self.current) else { return poll };
        let ask = match state {
            State::Stacked(_) | State::Packed { .. } => {
                self.notes.credit_needs_table().then_some(Ask::Table)
            }
            State::Escrow(_) | State::Holding => self.decide(now),
            State::PowerUp
            | State::PowerUpBillInValidator
            | State::PowerUpBillInStacker
            | State::PowerUpBillInUnit(_)
            | State::Idling
            | State::Disabled
                if self.setup.resetting(now) =>
            {
                None
            }
            State::PowerUp
            | State::PowerUpBillInValidator
            | State::PowerUpBillInStacker
            | State::PowerUpBillInUnit(_) => Some(self.setup.identity(now).unwrap_or(Ask::Reset)),
            State::Idling | State::Disabled if self.reset_wanted || self.setup.needs_reset() => {
                Some(Ask::Reset)
            }
            State::Idling | State::Disabled => {
                self.setup.identity(now).or_else(|| self.setting(now))
            }
            // in these a note is on its way, or what became of it is being told
            State::Accepting | State::Stacking | State::Returned(_) | State::Initialize => None,
            _ => self.reset_wanted.then_some(Ask::Reset),
        };
        ask.map_or(poll, |ask| (ask, now))
    }

    /// What the note in escrow is told.
    fn decide(&self, now: Mono) -> Option<Ask> {
        Some(match self.notes.decide(self.reset_wanted, now)? {
            Word::Stack => Ask::Stack,
            Word::Return => Ask::Return,
            Word::Hold => Ask::Hold,
            Word::Reset => Ask::Reset,
        })
    }

    fn is_silent(&self, now: Mono) -> bool {
        now.since(self.heard) >= SILENT_MS
    }

    fn unanswered(&mut self, ask: Ask, now: Mono) {
        self.waiting = None;
        self.current = false;
        self.settings_unanswered(ask, now);
        // an answer that is only late is not to be taken, and confirmed, as the next one's
        self.next_poll = now.after(POLL_MS);
        if self.is_silent(now) {
            self.next_poll = now.after(SILENT_POLL_MS);
            let detail = "no answer for 5 s: check cable and power".to_owned();
            self.voice.fail(FaultKind::Silent, detail);
        }
    }

    pub(super) fn on_frame(&mut self, frame: &Frame, now: Mono) {
        // other peripherals may share the bus
        if frame.address() != self.address || self.lent {
            return;
        }
        if let Some(Waiting { ask: Ask::Poll, since, .. }) = self.waiting
            && self.address == BILL_TO_BILL
            && UnitState::parse(frame.content()).is_some()
        {
            (self.heard, self.seen_at) = (now, now);
            (self.waiting, self.current) = (None, false);
            self.next_poll = since.after(POLL_MS);
            self.met = Some(*frame);
            return;
        }
        self.on_reply(&Reply::parse(frame), now);
    }

    fn on_reply(&mut self, reply: &Reply<'_>, now: Mono) {
        let Some(Waiting { ask, since, .. }) = self.waiting else {
            return self.on_late(reply, now);
        };
        if *reply == Reply::Nak {
            // our words do not get through; what it said before it says again when asked
            self.unanswered(ask, now);
            return self.leave_free(now);
        }
        self.heard = now;
        match (ask, reply) {
            (Ask::Poll, Reply::State(State::Busy(tenths))) => {
                self.waiting = None;
                self.on_busy(now);
                let wait = u64::from(*tenths).saturating_mul(100).clamp(POLL_MS, SILENT_POLL_MS);
                self.next_poll = since.after(wait);
                self.confirm(now);
            }
            (Ask::Poll, Reply::State(state)) => {
                self.waiting = None;
                self.on_state(*state, now);
                let idle = matches!(state, State::Idling | State::Disabled);
                self.next_poll = since.after(if idle { IDLE_POLL_MS } else { POLL_MS });
                if self.may_confirm(*state) {
                    self.confirm(now);
                }
            }
            (Ask::Poll, Reply::Unknown { raw }) => {
                self.waiting = None;
                self.on_unknown(raw, now);
                self.next_poll = since.after(POLL_MS);
            }
            // it cannot say now: whatever was asked is asked again
            (_, Reply::State(State::Busy(_))) => {
                self.unanswered(ask, now);
                self.confirm(now);
            }
            (Ask::Reset, Reply::Ack) => {
                self.answered(now);
                self.reset_wanted = false;
                self.setup.on_reset(now);
                self.recovered = self.address == VALIDATOR;
            }
            (Ask::Stack | Ask::Return | Ask::Hold, Reply::Ack) => self.answered(now),
            (Ask::Enable(bills), Reply::Ack) => {
                self.answered(now);
                self.setup.enabled(bills, now);
            }
            (Ask::Status, Reply::Status { bills, .. } | Reply::UnitStatus { bills, .. }) => {
                self.answered(now);
                self.setup.read_back(*bills);
                self.confirm(now);
            }
            (Ask::Identity, Reply::Identity(identity)) => {
                self.answered(now);
                self.setup.version(*identity);
                self.identify();
                self.confirm(now);
            }
            (Ask::Table, Reply::BillTable(table)) => {
                self.answered(now);
                self.setup.learn(*table);
                self.identify();
                self.credit_with_table();
                self.confirm(now);
            }
            (_, Reply::Illegal) => {
                self.answered(now);
                // not at once: a device that refuses would be asked as fast as the line goes
                self.next_poll = since.after(POLL_MS);
                self.current = false;
                self.settings_refused(ask, now);
            }
            _ => self.on_late(reply, now),
        }
        self.leave_free(now);
    }

    /// The late answer to an earlier question says how things were. A credit is still one: whatever
    /// was confirmed since may have made the device forget it.
    fn on_late(&mut self, reply: &Reply<'_>, now: Mono) {
        if let Reply::State(state @ (State::Stacked(_) | State::Packed { .. })) = reply {
            self.on_state(*state, now);
            self.current = false;
        }
    }

    fn answered(&mut self, now: Mono) {
        self.waiting = None;
        self.next_poll = now;
    }

    /// The device may forget what it has just said.
    fn confirm(&mut self, now: Mono) {
        self.write(Request::Ack);
        self.leave_free(now);
    }

    fn leave_free(&mut self, now: Mono) {
        self.free_at = now.after(FREE_MS);
    }

    /// It says nothing of its state, which is as it was.
    fn on_busy(&mut self, now: Mono) {
        let since = *self.busy_since.get_or_insert(now);
        self.seen_at = now;
        self.current = false;
        self.judge_busy(now.since(since));
    }

    fn on_state(&mut self, state: State, now: Mono) {
        self.busy_since = None;
        let changed = self.seen.map(|s| s.code_and_name()) != Some(state.code_and_name());
        if changed {
            self.entered = now;
            self.setup.state_changed();
        }
        let gap = now.since(self.seen_at) >= GAP_MS;
        self.follow_power(state, changed);
        self.follow_note(state, changed, gap);
        self.seen = Some(state);
        self.seen_at = now;
        self.current = true;
        self.judge(state, now);
        self.tell_inlet(state, now);
    }

    /// What a change of state means for settings and identity.
    fn follow_power(&mut self, state: State, changed: bool) {
        match state {
            State::PowerUp
            | State::PowerUpBillInValidator
            | State::PowerUpBillInStacker
            | State::PowerUpBillInUnit(_)
                if changed =>
            {
                self.setup = Setup::default();
                self.notes.found = false;
                self.recovered = self.address == VALIDATOR;
            }
            State::Initialize if changed => {
                self.setup.on_initialize();
                self.recovered = self.address == VALIDATOR;
            }
            State::Packed { to, .. } => self.packed_to = to,
            _ => {}
        }
        if !matches!(state, State::Idling | State::Disabled) {
            self.told_open = None;
        }
    }
}
