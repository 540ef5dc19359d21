//! Who says what when: one question at a time, the next one chosen from the device's last state.

use super::*;

impl<A: Authority> Id003<A> {
    /// Sends what is due, and says when to come back.
    pub(super) fn pump(&mut self, now: Mono) -> Mono {
        if let Some(Waiting { ask, since }) = self.waiting {
            let timeout = since.after(RESPONSE_MS);
            if now < timeout {
                return timeout;
            }
            self.unanswered(ask, now);
        }
        let (ask, due) = self.next(now);
        if now < due {
            return due;
        }
        self.say(ask, now);
        match self.waiting {
            Some(Waiting { since, .. }) => since.after(RESPONSE_MS),
            None => self.next_poll,
        }
    }

    fn say(&mut self, ask: Ask, now: Mono) {
        // half duplex: whatever is half there is not the answer to this
        self.decoder.clear();
        ask.request().frame().write_to(&mut self.voice.out.write);
        // what was seen of a device that is silent now says nothing of its note
        let in_escrow = self.waits() && self.current;
        match ask {
            Ask::Status | Ask::Version | Ask::Currencies => {}
            _ => self.current = false,
        }
        match ask {
            Ask::Stack | Ask::StackAway => self.notes.said(Word::Stack, now),
            Ask::Return => self.notes.said(Word::Return, now),
            Ask::Hold => self.notes.said(Word::Hold, now),
            Ask::Reset if in_escrow => self.notes.said(Word::Reset, now),
            Ask::Ack if matches!(self.seen, Some(Status::PowerUp)) => self.power_up_acked = true,
            _ => {}
        }
        // ACK is the one that has no answer
        if ask == Ask::Ack {
            self.next_poll = now.after(POLL_MS);
        } else {
            self.waiting = Some(Waiting { ask, since: now });
        }
    }

    fn next(&self, now: Mono) -> (Ask, Mono) {
        let poll = (Ask::Status, self.next_poll);
        if self.is_silent(now) {
            // after a minute without ACK the device answers nothing but RESET; once the credit is
            // durable nothing is lost by that. In any other silence it could lose a VEND VALID
            let only_reset_helps = self.notes.acknowledged();
            let ask = if self.reset_wanted || only_reset_helps { Ask::Reset } else { poll.0 };
            return (ask, poll.1);
        }
        let Some(status) = self.seen.filter(|_| self.current) else { return poll };
        let ask = match status {
            Status::VendValid(_) if self.notes.acknowledged() => Some(Ask::Ack),
            Status::VendValid(_) => self.notes.credit_needs_table().then_some(Ask::Currencies),
            Status::Escrow(_) | Status::Holding => self.decide(now),
            Status::PowerUp
            | Status::PowerUpBillInAcceptor
            | Status::PowerUpBillInStacker
            | Status::Idling
            | Status::Disabled
                if self.setup.resetting(now) =>
            {
                None
            }
            Status::PowerUp if !self.power_up_acked => Some(Ask::Ack),
            Status::PowerUp | Status::PowerUpBillInAcceptor | Status::PowerUpBillInStacker => {
                Some(self.setup.identity(now).unwrap_or(Ask::Reset))
            }
            Status::Initializing => self.setup.identity(now).or_else(|| self.setting(now)),
            Status::Idling | Status::Disabled if self.reset_wanted || self.setup.needs_reset() => {
                Some(Ask::Reset)
            }
            Status::Idling | Status::Disabled => {
                self.setup.identity(now).or_else(|| self.setting(now))
            }
            // in these a note is on its way: let it arrive
            Status::Accepting | Status::Stacking(_) | Status::Stacked(_) => None,
            _ => self.reset_wanted.then_some(Ask::Reset),
        };
        ask.map_or(poll, |ask| (ask, now))
    }

    /// What the note in escrow is told.
    fn decide(&self, now: Mono) -> Option<Ask> {
        Some(match self.notes.decide(self.reset_wanted, now)? {
            Word::Stack if self.away => Ask::StackAway,
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
        self.next_poll = now;
        if self.is_silent(now) {
            self.next_poll = now.after(SILENT_POLL_MS);
            self.voice
                .fail(FaultKind::Silent, "no answer for 3 s: check cable and power".to_owned());
        }
    }

    pub(super) fn on_reply(&mut self, reply: &Reply<'_>, now: Mono) {
        self.heard = now;
        if *reply == Reply::Enq {
            self.next_poll = now;
        }
        let Some(Waiting { ask, since }) = self.waiting else { return };
        match (ask, reply) {
            (Ask::Status, Reply::Status(status)) => {
                self.waiting = None;
                self.on_status(*status, now);
                let idle = matches!(status, Status::Idling | Status::Disabled);
                self.next_poll = since.after(if idle { IDLE_POLL_MS } else { POLL_MS });
            }
            (Ask::Status, Reply::Unknown { raw }) => {
                self.waiting = None;
                self.on_unknown(raw, now);
                self.next_poll = since.after(POLL_MS);
            }
            (Ask::Reset | Ask::Stack | Ask::StackAway | Ask::Return | Ask::Hold, Reply::Ack) => {
                self.answered(now);
                if ask == Ask::Reset {
                    self.reset_wanted = false;
                    self.setup.on_reset(now);
                }
            }
            (Ask::Set(asked), Reply::Echo(echo)) if asked == *echo => {
                self.answered(now);
                self.setup.applied(asked, now);
            }
            (Ask::Version, Reply::Version(text)) => {
                self.answered(now);
                self.setup.version(text);
                self.identify();
            }
            (Ask::Currencies, Reply::CurrencyAssign(table)) => {
                self.answered(now);
                self.setup.learn(*table);
                self.identify();
                self.credit_with_table();
            }
            (_, Reply::InvalidCommand) => {
                self.answered(now);
                // not at once: a device that refuses would be asked as fast as the line goes
                self.next_poll = since.after(POLL_MS);
                self.current = false;
                self.settings_refused(ask, now);
            }
            // the late answer to an earlier question
            _ => {}
        }
    }

    fn answered(&mut self, now: Mono) {
        self.waiting = None;
        self.next_poll = now;
    }

    fn on_status(&mut self, status: Status, now: Mono) {
        let changed = self.seen.map(|s| s.code_and_name()) != Some(status.code_and_name());
        if changed {
            self.entered = now;
            self.setup.state_changed();
        }
        let gap = now.since(self.seen_at) >= SILENT_MS;
        self.follow_power(status, changed);
        self.follow_note(status, changed, gap);
        self.seen = Some(status);
        self.seen_at = now;
        self.current = true;
        self.judge(status, now);
        self.tell_inlet(status, now);
    }

    /// What a change of state means for settings and identity.
    fn follow_power(&mut self, status: Status, changed: bool) {
        match status {
            Status::PowerUp | Status::PowerUpBillInAcceptor | Status::PowerUpBillInStacker
                if changed =>
            {
                self.setup = Setup::default();
                self.notes.found = false;
                self.power_up_acked = false;
            }
            Status::Initializing if changed => self.setup.on_initialize(),
            _ => {}
        }
        if !matches!(status, Status::Idling | Status::Disabled) {
            self.told_open = None;
        }
    }
}
