//! Who says what when while the line is ours: one question at a time, each answer with data
//! confirmed, unless it is the validator's to confirm.

use super::moving::LOST_MS;
use super::*;
use crate::frame::ccnet::unit::{Command, UnitState};
use crate::frame::ccnet::{BILL_TO_BILL, Reply, Request, State as Common};

/// Between polls.
const POLL_MS: u64 = 100;
/// Between polls in trouble, and while nothing happens.
const SLOW_POLL_MS: u64 = 1_000;
/// An answer normally comes within 10 ms.
const RESPONSE_MS: u64 = 300;
/// As the specification has it, for RECYCLING CASSETTE STATUS and POWER RECOVERY, and some.
const CASSETTES_MS: u64 = 500;
const RECOVERY_MS: u64 = 2_500;
/// The line stays free for 20 ms after an ACK, which takes 6 ms itself at 9600 baud.
const FREE_MS: u64 = 30;
/// How often a setting or a question comes to nothing before that is a fault.
const TRIES: u8 = 3;
/// Before it is tried again then.
const AGAIN_MS: u64 = 5_000;
/// A setting or a question without an answer for so long has come to nothing.
const GIVE_UP_MS: u64 = 1_500;
/// Silence that is the validator's to report, where no note is on its way.
pub(super) const SILENT_MS: u64 = 6_000;

impl<A: Authority> CcnetB2b<A> {
    /// Sends what is due, and says when to come back.
    pub(super) fn pump(&mut self, now: Mono) -> Mono {
        if let Some((said, since)) = self.waiting {
            let timeout = since.after(said.patience());
            if now < timeout {
                return timeout;
            }
            self.waiting = None;
            self.unanswered(said, now);
        }
        let Some((said, due)) = self.next() else {
            // the work has ended; the validator says when
            return self.validator_wake.unwrap_or(now);
        };
        let due = due.max(self.free_at);
        if now < due {
            return due;
        }
        self.say(said, now);
        now.after(said.patience())
    }

    fn say(&mut self, said: Said, now: Mono) {
        // half duplex: whatever is half there is not the answer to this
        self.decoder.clear();
        let frame = match said {
            Said::Poll => Request::Poll.frame().with_address(BILL_TO_BILL),
            Said::Reset => Request::Reset.frame().with_address(BILL_TO_BILL),
            Said::Cassettes => Command::CassetteStatus.frame(),
            Said::Recovery => Command::PowerRecovery.frame(),
            Said::EmptyDispenser => Command::EmptyDispenser.frame(),
            Said::SetType { cassette, kind } => Command::SetCassetteType { cassette, kind }.frame(),
            Said::Order => self.order(),
        };
        frame.write_to(&mut self.out.write);
        if said == Said::Order
            && let Some(moving) = self.moving()
        {
            // from here on it may have been done, answer or not: it is never said again
            moving.ordered(now);
        }
        self.waiting = Some((said, now));
    }

    /// The order of what is under way.
    fn order(&self) -> Frame {
        match &self.work {
            Work::Empty(Unloading { cassette, notes, .. }) => {
                Command::Unload { cassette: *cassette, notes: *notes }.frame()
            }
            Work::Pay(payment) => Command::Dispense(&self.of_types(&payment.part)).frame(),
            _ => Request::Poll.frame().with_address(BILL_TO_BILL),
        }
    }

    pub(super) fn moving(&mut self) -> Option<&mut Moving> {
        match &mut self.work {
            Work::Pay(payment) => Some(&mut payment.moving),
            Work::Empty(unloading) => Some(&mut unloading.moving),
            Work::Follow(moving) => Some(moving),
            Work::Recover(recovering) => recovering.moving.as_mut(),
            Work::None | Work::SetUp(_) | Work::Count => None,
        }
    }

    fn next(&self) -> Option<(Said, Mono)> {
        let said = match &self.work {
            Work::None => return None,
            Work::Count => Said::Cassettes,
            Work::SetUp(typing) => typing.next(),
            Work::Recover(recovering) => recovering.next(),
            Work::Follow(Moving { reset: true, .. }) => Said::Reset,
            Work::Pay(Payment { moving, .. })
            | Work::Empty(Unloading { moving, .. })
            | Work::Follow(moving) => match moving.stage {
                Stage::Before | Stage::Presented | Stage::After => Said::Cassettes,
                Stage::Order => Said::Order,
                Stage::Watch => Said::Poll,
            },
        };
        Some((said, self.next_poll))
    }

    fn unanswered(&mut self, said: Said, now: Mono) {
        // an answer that is only late is not to be taken, and confirmed, as the next one's
        self.next_poll = now.after(POLL_MS);
        let silent = now.since(self.heard);
        match &mut self.work {
            // the validator tells that it is silent
            Work::Recover(_) if silent >= SILENT_MS => self.stop_recovering(now),
            Work::Follow(_) if silent >= SILENT_MS => self.end_following(now),
            Work::Recover(_) | Work::Follow(_) | Work::None => {}
            Work::Count | Work::SetUp(_) => {
                if silent >= GIVE_UP_MS {
                    self.refuse("does not answer", said, now);
                }
            }
            Work::Pay(Payment { moving, .. }) | Work::Empty(Unloading { moving, .. }) => {
                match moving.stage {
                    // nothing has been ordered
                    Stage::Before if silent >= SILENT_MS => {
                        self.not_begun(FaultKind::Silent, "it does not answer (3B)", now);
                    }
                    _ if silent >= LOST_MS => self.lose_sight("no answer for a minute", now),
                    _ => {}
                }
            }
        }
    }

    /// A setting or a question has come to nothing.
    pub(super) fn refuse(&mut self, how: &str, said: Said, now: Mono) {
        self.refused = self.refused.saturating_add(1);
        if self.refused >= TRIES {
            self.again_at = now.after(AGAIN_MS);
            if !std::mem::replace(&mut self.complained, true) {
                let asked = match said {
                    Said::SetType { .. } => "SET CASSETTE TYPE (40)",
                    Said::Recovery => "POWER RECOVERY (66)",
                    _ => "RECYCLING CASSETTE STATUS (3B)",
                };
                let detail = format!("the unit {how}: {asked}");
                self.state.fault(FaultKind::ServiceNeeded, detail);
            }
        }
        self.end_work(now);
    }

    /// A frame of the device while the line is ours.
    pub(super) fn on_answer(&mut self, frame: &Frame, now: Mono) {
        if frame.address() != BILL_TO_BILL {
            return;
        }
        let Some((said, since)) = self.waiting else { return self.on_late(frame, now) };
        let content = frame.content();
        let reply = Reply::parse(frame);
        let busy = matches!(reply, Reply::State(Common::Busy(_)));
        let asks = !matches!(said, Said::Poll | Said::Order);
        if reply == Reply::Nak && said != Said::Order || busy && asks {
            // our words do not get through, or it has no answer to them
            if busy {
                self.confirm(now);
            }
            self.waiting = None;
            self.unanswered(said, now);
            self.next_poll = now.after(POLL_MS);
            return;
        }
        let fits = busy
            || match said {
                Said::Poll => !matches!(reply, Reply::Ack | Reply::Illegal | Reply::Cassettes(_)),
                Said::Cassettes => matches!(reply, Reply::Cassettes(_) | Reply::Illegal),
                // its one byte is the answer that there is nothing
                Said::Recovery => recovery::answers(content),
                Said::Reset | Said::EmptyDispenser | Said::SetType { .. } => {
                    matches!(reply, Reply::Ack | Reply::Illegal)
                }
                Said::Order => matches!(reply, Reply::Ack | Reply::Illegal | Reply::Nak),
            };
        if !fits {
            return self.on_late(frame, now);
        }
        self.heard = now;
        self.waiting = None;
        self.next_poll = since.after(POLL_MS);
        match (said, reply) {
            (Said::Poll, _) => self.on_poll(frame, now),
            (_, Reply::State(Common::Busy(_))) => {
                self.confirm(now);
                // an order that it cannot answer it may carry out later
                if let Some(moving) = self.moving().filter(|_| said == Said::Order) {
                    moving.acked = true;
                }
            }
            (Said::Cassettes, Reply::Cassettes(cassettes)) => {
                self.confirm(now);
                self.on_cassettes(cassettes, now);
            }
            (Said::Recovery, _) => self.on_recovery(content, now),
            (_, Reply::Ack) => self.on_taken(said, now),
            _ => self.on_refusal(said, now),
        }
    }

    /// The late answer to an earlier question; the order may have been that. The end of a movement
    /// is still one: whatever was confirmed since may have made the unit forget it.
    fn on_late(&mut self, frame: &Frame, now: Mono) {
        let ordered = |moving: &&mut Moving| !matches!(moving.stage, Stage::Before | Stage::Order);
        let Some(moving) = self.moving().filter(ordered) else { return };
        moving.acked |= Reply::parse(frame) == Reply::Ack;
        if let Some(
            end @ (UnitState::Dispensed(_) | UnitState::Unloaded(_) | UnitState::InvalidNumber),
        ) = UnitState::parse(frame.content())
        {
            moving.on_unit(end, now);
        }
        // late, but not silent
        self.heard = now;
    }

    /// A command was acknowledged.
    fn on_taken(&mut self, said: Said, now: Mono) {
        match (&mut self.work, said) {
            (Work::SetUp(typing), Said::SetType { .. }) => typing.taken(now),
            (Work::Recover(recovering), Said::EmptyDispenser) => recovering.emptying(now),
            _ => match (said, self.moving()) {
                (Said::Order, Some(moving)) => moving.acked = true,
                (Said::Reset, Some(moving)) => moving.reset = false,
                _ => {}
            },
        }
        self.leave_free(now);
    }

    fn on_refusal(&mut self, said: Said, now: Mono) {
        self.leave_free(now);
        match (said, &mut self.work) {
            // it was not taken, so nothing has moved by it
            (Said::Order, _) => {
                if let Some(moving) = self.moving() {
                    let detail = "the unit refuses the order (30)".to_owned();
                    moving.fail(FaultKind::ServiceNeeded, detail);
                    moving.stage = Stage::After;
                }
            }
            (Said::EmptyDispenser | Said::Recovery, Work::Recover(_)) => {
                self.recovery_refused(said, now);
            }
            (
                Said::Cassettes,
                Work::Pay(Payment { moving, .. }) | Work::Empty(Unloading { moving, .. }),
            ) => {
                if moving.stage == Stage::Before {
                    self.not_begun(FaultKind::ServiceNeeded, "it does not tell its cassettes", now);
                } else {
                    self.lose_sight("it does not tell its cassettes (3B)", now);
                }
            }
            (Said::Reset, _) => {
                if let Some(moving) = self.moving() {
                    moving.reset = false;
                }
            }
            (_, Work::SetUp(_) | Work::Count) => self.refuse("refuses (30)", said, now),
            _ => {}
        }
    }

    fn on_poll(&mut self, frame: &Frame, now: Mono) {
        let content = frame.content();
        // by the question: DISPENSED with four types looks like the answer to GET STATUS
        if let Some(state) = UnitState::parse(content) {
            self.confirm(now);
            return self.on_unit(state, now);
        }
        match Reply::parse(frame) {
            Reply::State(state) => {
                // what became of a note that comes in is the validator's to confirm
                if !matches!(
                    state,
                    Common::Packed { .. } | Common::Returned(_) | Common::Stacked(_)
                ) {
                    self.confirm(now);
                }
                self.on_common(state, now);
            }
            _ => {
                if let Some(moving) = self.moving() {
                    moving.last_word = format!("unknown state {frame}");
                }
                match self.work {
                    Work::Follow(_) => self.end_following(now),
                    Work::Recover(_) => self.stop_recovering(now),
                    Work::SetUp(_) => self.end_work(now),
                    _ => self.judge_sight(now),
                }
            }
        }
    }

    fn on_unit(&mut self, state: UnitState<'_>, now: Mono) {
        if let Work::SetUp(typing) = &mut self.work {
            if !typing.on_unit(now) {
                // whoever meets it follows it
                self.end_work(now);
            }
            return;
        }
        let Some(moving) = self.moving() else { return };
        moving.on_unit(state, now);
        let (in_vain, goes_on) = (moving.waits_in_vain(now), moving.goes_on(now));
        if goes_on && matches!(self.work, Work::Pay(_) | Work::Empty(_)) {
            return self.lose_sight("it does not come to an end", now);
        }
        if (in_vain || goes_on)
            && matches!(self.work, Work::Follow(_) | Work::Recover(_))
            && self.validator.take_reset()
            && let Some(moving) = self.moving()
        {
            moving.reset = true;
        }
        if goes_on {
            self.next_poll = now.after(SLOW_POLL_MS);
            self.trouble("the unit does not come to an end: look at it, then reset it");
        }
        if in_vain {
            self.next_poll = now.after(SLOW_POLL_MS);
            self.waits_in_vain();
        }
    }

    fn on_common(&mut self, state: Common, now: Mono) {
        let lost_power = matches!(
            state,
            Common::PowerUp
                | Common::PowerUpBillInValidator
                | Common::PowerUpBillInStacker
                | Common::PowerUpBillInUnit(_)
                | Common::Initialize
        );
        match &mut self.work {
            Work::Follow(moving) => {
                moving.on_common(state, now);
                // whatever it is, it is the validator's: a credit, its own fault, a reset
                self.end_following(now);
            }
            Work::Recover(_) => self.on_state_in_recovery(state, lost_power, now),
            Work::SetUp(typing) => {
                if !typing.on_common(state, now) {
                    // the validator's
                    self.end_work(now);
                }
            }
            Work::Pay(_) | Work::Empty(_) if lost_power => {
                self.lose_sight(&format!("it has lost power: {state}"), now);
                self.end_following(now);
            }
            Work::Pay(Payment { moving, .. }) | Work::Empty(Unloading { moving, .. }) => {
                moving.on_common(state, now);
                self.judge_sight(now);
            }
            Work::None | Work::Count => {}
        }
    }

    /// A state that says nothing of the notes must not last.
    fn judge_sight(&mut self, now: Mono) {
        let (Work::Pay(Payment { moving, .. }) | Work::Empty(Unloading { moving, .. })) =
            &self.work
        else {
            return;
        };
        if moving.stage == Stage::Watch && now.since(moving.known_at) >= LOST_MS {
            self.lose_sight("a state that says nothing of the notes", now);
        }
    }

    /// The device may forget what it has just said.
    pub(super) fn confirm(&mut self, now: Mono) {
        let ack = Request::Ack.frame().with_address(BILL_TO_BILL);
        ack.write_to(&mut self.out.write);
        self.leave_free(now);
    }

    pub(super) fn leave_free(&mut self, now: Mono) {
        self.free_at = now.after(FREE_MS);
    }
}

impl Said {
    const fn patience(self) -> u64 {
        match self {
            Self::Cassettes => CASSETTES_MS,
            Self::Recovery => RECOVERY_MS,
            _ => RESPONSE_MS,
        }
    }
}
