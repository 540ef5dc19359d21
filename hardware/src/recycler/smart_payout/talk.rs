//! Who says what when: one command at a time, the next one chosen from what the device told last.

use super::line::TIMEOUT_MS;
use super::moving::{LOST_MS, TEST_AGAIN_MS};
use super::*;
use crate::frame::ssp::{Counted, How, Reply, Route, Status};

/// Between polls, and while nothing moves and nobody is there.
pub(super) const POLL_MS: u64 = 200;
/// Between HOLDs; each is good for five seconds at least.
const HOLD_MS: u64 = 1_000;
/// A note in escrow goes back after this, if nothing was decided and nobody asked to keep it.
const ESCROW_MS: u64 = 10_000;
/// How often a command is said; one that moves notes as often as the manual says.
const TRIES: u8 = 5;
const ORDER_TRIES: u8 = 20;
/// Silence that is told.
const SILENT_MS: u64 = 3_000;

/// Whether a device that answers so has not begun what it was told.
const fn is_refusal(status: Status) -> bool {
    matches!(
        status,
        Status::CannotProcess | Status::UnknownCommand | Status::Parameters | Status::OutOfRange
    )
}

impl<A: Authority> SmartPayout<A> {
    /// Sends what is due, and says when to come back.
    pub(super) fn pump(&mut self, now: Mono) -> Mono {
        if let Some(timeout) = self.line.waits_until() {
            if now < timeout {
                return timeout;
            }
            if !self.unanswered(now) {
                return now.after(TIMEOUT_MS);
            }
        }
        self.expire_escrow(now);
        self.set_up_done();
        let (request, due) = self.next(now);
        if now < due {
            return due;
        }
        self.say(request, now);
        now.after(TIMEOUT_MS)
    }

    fn say(&mut self, request: Request<'static>, now: Mono) {
        match request {
            Request::PollWithAck => {
                self.next_poll = now.after(POLL_MS);
                // from here on the note in escrow is accepted, answer or not
                if self.inlet.escrow.take().is_some() {
                    self.notes.said(Word::Stack, now);
                }
            }
            Request::Reject if self.inlet.escrow == Some(Escrow::Ours) => {
                self.notes.said(Word::Return, now);
            }
            Request::Hold => self.inlet.held_at = now,
            Request::PayoutByDenomination { how: How::Real, .. }
            | Request::FloatByDenomination { how: How::Real, .. }
            | Request::SmartEmpty => {
                if let Some(work) = &mut self.work {
                    // from here on it may be carried out, answer or not: no other frame says it
                    work.moving.ordered(now);
                }
            }
            Request::Halt => {
                if let Some(work) = &mut self.work {
                    work.moving.recalled(now);
                }
            }
            _ => {}
        }
        self.line.say(request, now, &mut self.out.write);
    }

    /// The time for an answer is over; whether something else can be said.
    fn unanswered(&mut self, now: Mono) -> bool {
        // right behind the exchange of keys it may only not understand us
        let unread = self.setup.step == Step::Protocol;
        let silent = !unread && now.since(self.heard) >= SILENT_MS;
        if silent {
            let why = "the device does not answer; check its power and its cable";
            self.voice.fail(FaultKind::Silent, why.to_owned());
            self.fault_at = now;
        }
        if now.since(self.heard) >= LOST_MS {
            self.lose_sight("no answer for a minute", now);
        }
        let Some((said, tries)) = self.line.said() else { return true };
        let most = match said {
            Request::PayoutByDenomination { how: How::Real, .. }
            | Request::FloatByDenomination { how: How::Real, .. }
            | Request::SmartEmpty => ORDER_TRIES,
            _ => TRIES,
        };
        if tries < most && self.setup.step != Step::Sync {
            self.line.say_again(now, &mut self.out.write);
            return false;
        }
        self.keys_fail(now);
        true
    }

    /// A note that nobody has decided about goes back.
    fn expire_escrow(&mut self, now: Mono) {
        let waits = self.inlet.escrow == Some(Escrow::Ours);
        if waits && now.since(self.inlet.escrow_since) >= ESCROW_MS && !self.notes.is_held(now) {
            self.notes.give_back_if_undecided();
        }
    }

    fn next(&mut self, now: Mono) -> (Request<'static>, Mono) {
        if let Some(question) = self.first_questions() {
            return (question, self.setup.not_before);
        }
        if let Some(escrow) = self.inlet.escrow {
            return self.decide(escrow, now);
        }
        if self.inlet.why_due {
            return (Request::LastReject, now);
        }
        if self.inlet.ack_due && !self.inlet.credit_open {
            return (Request::EventAck, now);
        }
        if self.reset_wanted && self.may_reset() {
            return (Request::Reset, now);
        }
        if let Some(request) = self.setting(now).or_else(|| self.wished_inlet(now)) {
            return (request, now);
        }
        if let Some(request) = self.order(now) {
            return (request, now);
        }
        let moves = self.work.as_ref().is_some_and(|work| work.moving.stage == Stage::Watch);
        if self.recount && !moves && self.setup.again_at <= now && self.inlet.calm {
            return (Request::AllLevels, now);
        }
        (Request::PollWithAck, self.next_poll)
    }

    /// What the note in escrow is told: nothing but HOLD goes out until it is decided.
    fn decide(&self, escrow: Escrow, now: Mono) -> (Request<'static>, Mono) {
        let word = match escrow {
            Escrow::Ours => self.notes.decide(self.reset_wanted, now),
            Escrow::Refused => Some(Word::Return),
        };
        match word {
            Some(Word::Stack) => {
                let away = self.inlet.away.map(|note| self.money(note.minor()));
                match away.filter(|note| self.setup.route(note.value) != Some(Route::Cashbox)) {
                    Some(note) => (Request::SetRoute { route: Route::Cashbox, note }, now),
                    None => (Request::PollWithAck, now),
                }
            }
            Some(Word::Return | Word::Reset) => (Request::Reject, self.inlet.reject_at),
            // accepted three times, and still there
            None if !self.notes.is_undecided() => (Request::Reject, self.inlet.reject_at),
            Some(Word::Hold) | None => (Request::Hold, self.inlet.held_at.after(HOLD_MS)),
        }
    }

    /// RESET waits for a note on its way, for its acknowledgement, and for notes on their way out.
    fn may_reset(&self) -> bool {
        let moves = self.work.as_ref().is_some_and(|work| {
            matches!(work.moving.stage, Stage::Watch | Stage::After) && !self.in_trouble
        });
        let stuck = self.voice.fault.is_some();
        let credit = self.inlet.credit_open || self.inlet.ack_due;
        !credit && !moves && (self.notes.has_none() || stuck)
    }

    /// What a movement of ours says next.
    fn order(&self, now: Mono) -> Option<Request<'static>> {
        let work = self.work.as_ref()?;
        let moving = &work.moving;
        match moving.stage {
            Stage::Before | Stage::After => (moving.again_at <= now).then_some(Request::AllLevels),
            Stage::Test => (moving.again_at <= now).then(|| self.movement(How::Test)).flatten(),
            Stage::Order => self.movement(How::Real),
            Stage::Watch => moving.wants_back(now).then_some(Request::Halt),
        }
    }

    /// The command of the movement; nothing, where there is nothing to be tested.
    fn movement(&self, how: How) -> Option<Request<'static>> {
        let work = self.work.as_ref()?;
        let note = |bay: &BayId| self.bays.get(bay).map(|note| self.money(note.minor()));
        match &work.what {
            What::Pay(plan) => {
                let notes = plan.as_ref().notes.iter().filter_map(|(bay, notes)| {
                    // at most 20, as the plan was checked
                    Some((u16::try_from(*notes).ok().filter(|n| *n > 0)?, note(bay)?))
                });
                Some(Request::PayoutByDenomination { notes: Counted::new(notes), how })
            }
            What::Empty(wish) => {
                let gone = note(&wish.as_ref().bay)?.value;
                let levels = work.moving.before.as_ref()?;
                let mut stay =
                    levels.iter().filter(|(value, notes)| **value != gone && **notes > 0);
                if stay.clone().next().is_none() {
                    return (how == How::Real).then_some(Request::SmartEmpty);
                }
                let stay = stay.by_ref().map(|(value, notes)| (*notes, self.money(*value)));
                let all = stay.chain([(0, self.money(gone))]);
                Some(Request::FloatByDenomination { notes: Counted::new(all), how })
            }
            What::Follow => None,
        }
    }

    /// The answer to what was said.
    pub(super) fn on_answer(&mut self, said: Request<'static>, reply: &Reply<'_>, now: Mono) {
        if self.setup.step != Step::Run {
            return self.on_first_answer(reply, now);
        }
        match said {
            Request::PollWithAck if reply.is_ok() => self.on_poll(reply, now),
            Request::PollWithAck => self.on_odd_poll(reply, now),
            Request::EventAck => {
                // refused where there is nothing left to acknowledge
                self.inlet.ack_due = false;
                self.inlet.credit_acked |= self.notes.acknowledged();
            }
            // F5 where no note is there; after anything else a poll could still accept it
            Request::Reject if reply.is_ok() || reply.status == Status::CannotProcess => {
                self.inlet.escrow = None;
            }
            Request::Reject => self.inlet.reject_at = now.after(HOLD_MS),
            // no note waits there any more; whatever does, goes back
            Request::Hold if !reply.is_ok() => self.inlet.escrow = Some(Escrow::Refused),
            Request::LastReject => self.on_reject_reason(reply),
            Request::Reset if reply.is_ok() => self.on_reset_taken(now),
            Request::Reset => {
                self.reset_wanted = false;
                self.voice.say_fault_again();
            }
            Request::AllLevels => self.on_levels_answer(reply, now),
            Request::PayoutByDenomination { how, .. }
            | Request::FloatByDenomination { how, .. } => self.on_order_answer(how, reply, now),
            Request::SmartEmpty => self.on_order_answer(How::Real, reply, now),
            Request::SetInhibits { .. }
            | Request::SetRoute { .. }
            | Request::EnablePayout { .. }
            | Request::Enable
            | Request::Disable => self.on_setting(said, reply, now),
            _ => {}
        }
    }

    fn on_order_answer(&mut self, how: How, reply: &Reply<'_>, now: Mono) {
        let Some(work) = &mut self.work else { return };
        let moving = &mut work.moving;
        match (how, reply.is_ok()) {
            (How::Test, true) => moving.stage = Stage::Order,
            (How::Real, true) => moving.acked = true,
            // a note is just being inserted: nothing was ordered
            (How::Test, false) if reply.rest == [3] && now.since(moving.begun_at) < REST_MS => {
                moving.again_at = now.after(TEST_AGAIN_MS);
            }
            // events, or levels after a time of quiet, tell whether it was taken: as without an answer
            (How::Real, false) if !is_refusal(reply.status) => {
                moving.fail(FaultKind::ServiceNeeded, reply.refusal());
            }
            // it was not taken, so nothing has moved by it
            (_, false) => {
                let why = format!("the recycler refuses: {}", reply.refusal());
                self.not_begun(FaultKind::ServiceNeeded, &why);
            }
        }
    }
}
