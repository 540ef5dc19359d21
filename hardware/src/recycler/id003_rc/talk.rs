//! Who says what when while the line is ours: one question at a time.

use super::moving::{LOST_MS, Recall, Stage};
use super::*;
use crate::frame::id003::recycler::Condition;

/// Between polls.
const POLL_MS: u64 = 100;
/// Between polls in trouble.
const TROUBLE_POLL_MS: u64 = 1_000;
/// A reply normally comes within 50 ms.
const RESPONSE_MS: u64 = 300;
/// How often a setting or a question comes to nothing before that is a fault.
const TRIES: u8 = 3;
/// Before it is tried again then.
const AGAIN_MS: u64 = 5_000;
/// A setting or a question without an answer for so long has come to nothing.
const GIVE_UP_MS: u64 = 900;
/// Silence that is the validator's to report, where no note is on its way.
const SILENT_MS: u64 = 3_000;

impl<A: Authority> Id003Rc<A> {
    /// Sends what is due, and says when to come back.
    pub(super) fn pump(&mut self, now: Mono) -> Mono {
        if let Some((said, since)) = self.waiting {
            let timeout = since.after(RESPONSE_MS);
            if now < timeout {
                return timeout;
            }
            self.waiting = None;
            self.unanswered(said, now);
        }
        let Some((said, due)) = self.next(now) else {
            // the work has ended; the validator says when
            return self.validator_wake.unwrap_or(now);
        };
        if now < due {
            return due;
        }
        self.say(said, now);
        self.waiting.map_or(self.next_poll, |(_, since)| since.after(RESPONSE_MS))
    }

    fn say(&mut self, said: Said, now: Mono) {
        // half duplex: whatever is half there is not the answer to this
        self.decoder.clear();
        let frame = match said {
            Said::Status => Request::StatusRequest.frame(),
            Said::Ack => Request::Ack.frame(),
            Said::Reset => Request::Reset.frame(),
            Said::Extension(extension) => extension.frame(),
        };
        frame.write_to(&mut self.out.write);
        if let Some(moving) = self.moving() {
            match said {
                Said::Extension(Extension::PayOut { .. } | Extension::Collect { .. }) => {
                    // from here on it may have been done, answer or not: it is never said again
                    moving.ordered(now);
                }
                Said::Extension(Extension::EmergencyStop) => moving.recall = Recall::Said,
                Said::Ack => moving.confirmed(now),
                _ => {}
            }
            if said != Said::Status {
                moving.current = false;
            }
        }
        // ACK is the one that has no answer
        if said == Said::Ack {
            self.next_poll = now.after(POLL_MS);
        } else {
            self.waiting = Some((said, now));
        }
    }

    fn moving(&mut self) -> Option<&mut Moving> {
        match &mut self.work {
            Work::Pay(payment) => Some(&mut payment.moving),
            Work::Empty(_, moving) | Work::Follow(moving) => Some(moving),
            Work::None | Work::SetUp { .. } | Work::Count => None,
        }
    }

    fn next(&self, now: Mono) -> Option<(Said, Mono)> {
        let counts = (Said::Extension(Extension::Question(COUNTS)), self.next_poll);
        let poll = Some((Said::Status, self.next_poll));
        let (order, moving) = match &self.work {
            Work::None => return None,
            Work::Count => return Some(counts),
            Work::SetUp { step } => {
                let setting = self.setting(*step).map(|setting| (setting, self.next_poll));
                return Some(setting.unwrap_or(counts));
            }
            Work::Pay(payment) => {
                let Payment { bay, notes, moving, .. } = payment;
                (Some(Extension::PayOut { notes: *notes, from: bay.get() }), moving)
            }
            Work::Empty(wish, moving) => {
                (Some(Extension::Collect { notes: 0, from: wish.as_ref().bay.get() }), moving)
            }
            Work::Follow(moving) => (None, moving),
        };
        match moving.stage {
            Stage::Before | Stage::After => Some(counts),
            Stage::Order => order.map(|order| (Said::Extension(order), now)),
            Stage::Trouble => Some((Said::Extension(Extension::StatusRequest), self.next_poll)),
            Stage::Watch if moving.wants_ack() => Some((Said::Ack, now)),
            Stage::Watch if moving.wants_back(now) => {
                Some((Said::Extension(Extension::EmergencyStop), now))
            }
            Stage::Watch => poll,
        }
    }

    /// The settings of the boxes, one after the other.
    fn setting(&self, step: usize) -> Option<Said> {
        let notes = self.settings.notes_per_box;
        let setting = match step {
            0 => Extension::SetCurrencies(self.masks()),
            1 => Extension::SetLimit { notes, of: 1 },
            2 => Extension::SetLimit { notes, of: 2 },
            _ => return None,
        };
        Some(Said::Extension(setting))
    }

    /// The bit of the note that each box keeps.
    fn masks(&self) -> [u16; BOXES] {
        let mut masks = [0; BOXES];
        for (bay, denomination) in &self.boxes {
            let code = self.validator.code_of(*denomination);
            let bit = code.and_then(|code| 1u16.checked_shl(u32::from(code.checked_sub(0x61)?)));
            if let (Some(mask), Some(bit)) = (at(*bay).and_then(|at| masks.get_mut(at)), bit) {
                *mask = bit;
            }
        }
        masks
    }

    /// A box whose note the device does not know, in words.
    pub(super) fn unknown_note(&self) -> Option<String> {
        let unknown =
            |(_, note): &(&BayId, &Denomination)| self.validator.code_of(**note).is_none();
        let (bay, note) = self.boxes.iter().find(unknown)?;
        Some(format!("box {bay}: the device knows no note of {} minor units", note.minor()))
    }

    fn unanswered(&mut self, said: Said, now: Mono) {
        self.next_poll = now;
        let silent = now.since(self.heard);
        let follows = matches!(self.work, Work::Follow(_));
        let Some(moving) = self.moving() else {
            if matches!(said, Said::Extension(_)) && silent >= GIVE_UP_MS {
                self.refuse(said, "does not answer", now);
            }
            return;
        };
        moving.current = false;
        match moving.stage {
            // the validator tells that it is silent
            _ if follows && silent >= SILENT_MS => {
                self.tell_followed();
                self.recount = true;
                self.end_work(now);
            }
            // nothing has been ordered
            Stage::Before if silent >= SILENT_MS => {
                self.not_begun(FaultKind::Silent, "it does not answer (A2)", now);
            }
            Stage::Trouble if silent >= SILENT_MS => {
                moving.explain(FaultKind::ServiceNeeded, "recycler error (4C)".to_owned());
            }
            _ if silent >= LOST_MS => self.lose_sight("no answer for a minute", now),
            _ => {}
        }
    }

    /// A setting or a question has come to nothing.
    fn refuse(&mut self, said: Said, how: &str, now: Mono) {
        let Said::Extension(asked) = said else { return };
        self.refused = self.refused.saturating_add(1);
        if self.refused >= TRIES {
            self.again_at = now.after(AGAIN_MS);
            if !std::mem::replace(&mut self.complained, true) {
                let detail = format!("the recycler {how}: {asked}");
                self.state.fault(FaultKind::ServiceNeeded, detail);
            }
        }
        self.end_work(now);
    }

    /// A frame of the device while the line is ours.
    pub(super) fn on_answer(&mut self, frame: &Frame, now: Mono) {
        let Some((said, since)) = self.waiting else { return };
        let reply = Reply::parse(frame);
        let extension = Extension::parse(frame);
        let fits = match (said, &reply, extension) {
            (Said::Status, ..) => {
                PayState::parse(frame).is_some()
                    || matches!(reply, Reply::Status(_) | Reply::Unknown { .. })
                        && extension.is_none()
            }
            (Said::Extension(Extension::Question(asked)), _, Some(answer)) => {
                asked == COUNTS && matches!(answer, Extension::Counts(_))
            }
            (Said::Extension(Extension::StatusRequest), _, Some(answer)) => {
                matches!(answer, Extension::Condition(_) | Extension::Other { .. })
            }
            // settings are echoed; whoever only acknowledges them has taken them too
            (Said::Extension(asked), _, Some(answer)) => asked == answer,
            (Said::Extension(_) | Said::Reset, Reply::InvalidCommand, None) => true,
            // that is no answer to a question
            (Said::Extension(Extension::Question(_) | Extension::StatusRequest), ..) => false,
            (Said::Extension(_) | Said::Reset, Reply::Ack, None) => true,
            _ => false,
        };
        if !fits {
            // the late answer to an earlier question
            return;
        }
        self.heard = now;
        self.waiting = None;
        self.next_poll = since.after(POLL_MS);
        match (said, extension) {
            (Said::Status, _) => self.on_state(frame, &reply, now),
            (_, Some(Extension::Counts(counts))) => self.on_counts(counts, now),
            (Said::Extension(Extension::StatusRequest), Some(Extension::Condition(condition))) => {
                self.on_condition(condition);
            }
            (Said::Extension(Extension::StatusRequest), Some(Extension::Other { code, .. })) => {
                self.on_condition(Condition::from_code(code))
            }
            (Said::Extension(asked), _) if reply == Reply::InvalidCommand => {
                self.on_refusal(asked, now);
            }
            (Said::Extension(asked), _) => {
                self.next_poll = now;
                let order = matches!(asked, Extension::PayOut { .. } | Extension::Collect { .. });
                if let Some(moving) = self.moving().filter(|_| order) {
                    moving.acked = true;
                }
                if let Work::SetUp { step } = &mut self.work
                    && matches!(asked, Extension::SetCurrencies(_) | Extension::SetLimit { .. })
                {
                    *step = step.saturating_add(1);
                }
            }
            _ => {}
        }
    }

    fn on_refusal(&mut self, asked: Extension<'static>, now: Mono) {
        match asked {
            // it was not taken, so nothing has moved by it
            Extension::PayOut { .. } | Extension::Collect { .. } => {
                let detail = format!("the recycler refuses: {asked} (4B)");
                if let Some(moving) = self.moving() {
                    moving.fail(FaultKind::ServiceNeeded, detail);
                    moving.stage = Stage::After;
                }
            }
            Extension::StatusRequest => {
                if let Some(moving) = self.moving() {
                    moving.explain(FaultKind::ServiceNeeded, "recycler error (4C)".to_owned());
                }
            }
            Extension::EmergencyStop => {
                if let Some(moving) = self.moving() {
                    moving.recall = Recall::Refused;
                }
            }
            Extension::Clear => {}
            // a unit without limits of its own keeps as many as fit
            Extension::SetLimit { .. } => {
                if let Work::SetUp { step } = &mut self.work {
                    *step = step.saturating_add(1);
                }
            }
            _ if matches!(self.work, Work::SetUp { .. } | Work::Count) => {
                self.refuse(Said::Extension(asked), "refuses (4B)", now);
            }
            _ => self.lose_sight("it does not tell its counts (A2)", now),
        }
    }

    fn on_condition(&mut self, condition: Condition) {
        let Some(moving) = self.moving() else { return };
        let kind = match condition {
            Condition::Jam | Condition::PayOutNote => FaultKind::Jam,
            Condition::BoxOpen | Condition::Empty | Condition::Full => FaultKind::Cassette,
            _ => FaultKind::ServiceNeeded,
        };
        moving.explain(kind, format!("recycler error (4C): {condition}"));
    }

    fn on_state(&mut self, frame: &Frame, reply: &Reply<'_>, now: Mono) {
        let follows = matches!(self.work, Work::Follow(_));
        let Some(moving) = self.moving() else { return };
        let known_at = moving.known_at;
        let of_notes = PayState::parse(frame);
        match (of_notes, reply) {
            (Some(state), _) => moving.on_state(state, now),
            (None, Reply::Status(status)) => moving.on_other(*status, now),
            (None, _) => moving.last_word = format!("unknown state {frame}"),
        }
        let error = moving.state == Some(PayState::Error);
        let over = moving.stage == Stage::After;
        // whatever it is, it is the validator's: a credit, its own fault, a reset
        if follows && of_notes.is_none() {
            return self.end_following(now);
        }
        if now.since(known_at) >= LOST_MS && !over {
            return self.lose_sight("a state that says nothing of the notes", now);
        }
        if follows && error {
            self.next_poll = now.after(TROUBLE_POLL_MS);
            if self.validator.take_reset() {
                self.clear_trouble(now);
            }
        }
    }

    /// A person has asked for a reset: first the extension's own way, then the validator's.
    fn clear_trouble(&mut self, now: Mono) {
        let Some(moving) = self.moving() else { return };
        let again = std::mem::replace(&mut moving.cleared, true);
        self.say(if again { Said::Reset } else { Said::Extension(Extension::Clear) }, now);
        self.next_poll = now.after(TROUBLE_POLL_MS);
    }
}
