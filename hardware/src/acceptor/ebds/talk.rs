//! Who says what when: one message at a time, under the toggle; what to say next is chosen from the
//! device's last state.

use super::note::Stage;
use super::*;
use crate::frame::ebds::{Omnibus, Reply, Request, bits};
use crate::frame::hex;

/// Answers under the wrong toggle, in a row, after which ours is the wrong one.
const ASTRAY: u8 = 4;
/// Answers that all differ, after which the last one counts: the unit does not repeat itself.
const DOUBTS: u8 = 4;
/// How often a question about notes is said in vain.
const MANY_TRIES: u8 = 12;
/// Any way in.
const ORIENTATION: u8 = 2;

/// A message that was said and is not done with.
pub(super) struct Waiting {
    ask: Ask,
    frame: Frame,
    since: Mono,
    /// When it is said again.
    again_at: Option<Mono>,
    /// An answer that is to be heard again.
    heard: Option<Frame>,
    /// An answer before that one, with a word that is said once.
    once: Option<Frame>,
    unanswered: u8,
    doubts: u8,
}

impl<A: Authority> Ebds<A> {
    /// Sends what is due, and says when to come back.
    pub(super) fn pump(&mut self, now: Mono) -> Mono {
        self.time_out(now);
        if self.reset_wanted && self.is_silent(now) {
            self.say(Ask::Reset, now);
        }
        if let Some(waiting) = &mut self.waiting {
            match waiting.again_at {
                Some(at) if now < at => return at,
                Some(_) => {
                    waiting.again_at = None;
                    waiting.since = now;
                    let frame = waiting.frame;
                    self.put(&frame);
                    return now.after(RESPONSE_MS);
                }
                None => return waiting.since.after(RESPONSE_MS),
            }
        }
        let (ask, due) = self.next(now);
        if now < due {
            return due;
        }
        self.say(ask, now);
        match self.waiting {
            Some(_) => now.after(RESPONSE_MS),
            None => self.next_poll,
        }
    }

    fn put(&mut self, frame: &Frame) {
        // half duplex: whatever is half there is not the answer to this
        self.decoder.clear();
        frame.write_to(&mut self.out.write);
    }

    fn say(&mut self, ask: Ask, now: Mono) {
        let own = self.wishes();
        let request = match ask {
            Ask::Poll | Ask::Again => Request::Omnibus(own),
            Ask::Stack => Request::Omnibus(Omnibus { stack: true, ..own }),
            Ask::Return => Request::Omnibus(Omnibus { give_back: true, ..own }),
            Ask::Reset => Request::SoftReset,
            Ask::Query(query) => Request::Query(query),
            Ask::Note(index) => Request::NoteSpecification(own, index),
            Ask::Inhibits(notes, long) => Request::NoteInhibits(own, notes, long),
            Ask::Table => Request::ValueTable(own),
        };
        let mut frame = request.frame(self.toggle);
        match ask {
            Ask::Reset => return self.reset(&frame, now),
            Ask::Again => frame = self.last.unwrap_or(frame),
            Ask::Stack | Ask::Return => self.count_try(now),
            _ => {}
        }
        self.put(&frame);
        self.waiting = Some(Waiting {
            ask,
            frame,
            since: now,
            again_at: None,
            heard: None,
            once: None,
            unanswered: 0,
            doubts: 0,
        });
    }

    /// The soft reset has no answer; what comes next may answer what was said before it.
    fn reset(&mut self, frame: &Frame, now: Mono) {
        self.put(frame);
        self.toggle = !self.toggle;
        self.waiting = None;
        (self.last, self.believed) = (None, None);
        self.fresh = true;
        self.current = false;
        self.reset_wanted = false;
        self.reset_at = Some(now);
        self.setup.on_reset();
        self.note_is_reset();
        self.heard = now.after(RESET_MS);
        self.next_poll = now.after(SILENT_POLL_MS);
    }

    /// The wishes that every poll carries.
    fn wishes(&self) -> Omnibus {
        Omnibus {
            notes: self.inlet(),
            orientation: ORIENTATION,
            escrow: true,
            policy: self.settings.policy,
            extended: self.setup.is_at_length(),
            ..Omnibus::default()
        }
    }

    /// A message that asks and does nothing, under this toggle: what may be said again.
    fn plain(&self, toggle: bool) -> Frame {
        Request::Omnibus(self.wishes()).frame(toggle)
    }

    fn next(&self, now: Mono) -> (Ask, Mono) {
        if self.holds_the_word() && self.last.is_some() {
            return (Ask::Again, self.next_poll);
        }
        let poll = (Ask::Poll, self.next_poll);
        let Some(status) = self.seen.filter(|_| self.current) else { return poll };
        let ask = if status.is(bits::ESCROWED) {
            self.decide(now)
        } else if status.is(bits::ACCEPTING | bits::STACKING | bits::RETURNING) {
            // a note is on its way: let it arrive
            None
        } else if self.reset_wanted {
            Some(Ask::Reset)
        } else if self.idles(status) {
            self.setting(now)
        } else {
            None
        };
        ask.map_or(poll, |ask| (ask, now))
    }

    /// What the note in escrow is told.
    fn decide(&self, now: Mono) -> Option<Ask> {
        let bill = self.bill.as_ref().filter(|bill| bill.next_try <= now)?;
        match bill.stage {
            // only what this run has a proof for; under 1, so that the answer to it comes under 0
            Stage::StackSent if bill.escrowed.is_some() => {
                Some(if self.toggle { Ask::Stack } else { Ask::Poll })
            }
            Stage::Refused | Stage::Leaving => Some(Ask::Return),
            Stage::Undecided | Stage::StackSent | Stage::Credited { .. } => None,
        }
    }

    fn is_silent(&self, now: Mono) -> bool {
        now.since(self.heard) >= SILENT_MS
    }

    /// The line is gone: what was asked is asked again, what was done is asked after.
    pub(super) fn interrupted(&mut self) {
        let Some(mut waiting) = self.waiting.take() else { return };
        (waiting.heard, waiting.once) = (None, None);
        waiting.again_at = Some(Mono(0));
        waiting.frame = self.plain(waiting.frame.toggle());
        if waiting.ask != Ask::Again {
            waiting.ask = Ask::Poll;
        }
        self.waiting = Some(waiting);
    }

    fn time_out(&mut self, now: Mono) {
        let over = |waiting: &Waiting| {
            waiting.again_at.is_none() && now >= waiting.since.after(RESPONSE_MS)
        };
        let Some(mut waiting) = self.waiting.take_if(|waiting| over(waiting)) else { return };
        self.current = false;
        let silent = self.is_silent(now);
        waiting.again_at = Some(if silent { now.after(SILENT_POLL_MS) } else { now });
        waiting.unanswered = waiting.unanswered.saturating_add(1);
        let gives_up = match waiting.ask {
            Ask::Query(_) => waiting.unanswered >= TRIES,
            // a bad cable must not change what is known of the notes
            Ask::Note(_) | Ask::Inhibits(..) | Ask::Table => waiting.unanswered >= MANY_TRIES,
            Ask::Poll | Ask::Again | Ask::Stack | Ask::Return | Ask::Reset => false,
        };
        if gives_up {
            self.setting_refused(waiting.ask, now);
        }
        if gives_up || matches!(waiting.ask, Ask::Stack | Ask::Return) {
            waiting.frame = self.plain(waiting.frame.toggle());
            waiting.ask = Ask::Poll;
        }
        self.waiting = Some(waiting);
        if silent {
            self.fail(FaultKind::Silent, "no answer for 3 s: check cable and power".to_owned());
        }
    }

    pub(super) fn on_frame(&mut self, frame: &Frame, now: Mono) {
        self.heard = self.heard.max(now);
        let Some(mut waiting) = self.waiting.take() else { return };
        if frame.toggle() != waiting.frame.toggle() {
            self.astray = self.astray.saturating_add(1);
            if self.astray < ASTRAY {
                self.waiting = Some(waiting);
                return;
            }
            // the device goes by another toggle: from here on so do we
            self.toggle = frame.toggle();
            (self.last, self.believed) = (None, None);
            (self.fresh, self.current, self.astray) = (true, false, 0);
            self.next_poll = now;
            return;
        }
        self.astray = 0;
        let same = |other: Frame| other.kind() == frame.kind() && other.data() == frame.data();
        let known = self.believed.is_some_and(same) || waiting.heard.is_some_and(same);
        if !known && waiting.doubts < DOUBTS {
            if let Some(before) = waiting.heard.replace(*frame)
                && says_once(&before)
            {
                waiting.once = Some(before);
            }
            waiting.doubts = waiting.doubts.saturating_add(1);
            if matches!(waiting.ask, Ask::Stack | Ask::Return) {
                // its first hearing is what the device acts on
                waiting.frame = self.plain(frame.toggle());
            }
            waiting.again_at = Some(now);
            self.waiting = Some(waiting);
            return;
        }
        self.believe(&waiting, frame, now);
    }

    fn believe(&mut self, waiting: &Waiting, frame: &Frame, now: Mono) {
        if waiting.ask != Ask::Again {
            self.toggle = !frame.toggle();
            self.last = Some(self.plain(frame.toggle()));
        }
        let reply = Reply::parse(frame);
        let since = waiting.since;
        self.next_poll = now;
        match (waiting.ask, reply) {
            (
                Ask::Query(_) | Ask::Note(_) | Ask::Inhibits(..) | Ask::Table,
                Reply::Unknown { .. },
            ) => {
                // an answer of a form that we do not know is none
                self.setting_refused(waiting.ask, now);
                self.current = false;
            }
            (_, Reply::Unknown { raw }) => {
                // without the toggle: the same words are one fault
                let words = format!("message of type {}: {}", raw.kind(), hex(raw.data()));
                self.on_unknown(&words, now);
                self.next_poll = since.after(POLL_MS);
            }
            (Ask::Query(query), Reply::Answer(text)) => {
                self.setup.answer(query, text);
                self.identify();
            }
            (Ask::Note(index), Reply::Note(status, note))
                if [0, index].contains(&note.index()) && self.idles(status) =>
            {
                self.setup.entry(index, &note);
                self.identify();
            }
            (Ask::Table, Reply::ValueTable(_, table)) => {
                self.setup.table(&table);
                self.identify();
            }
            (ask, reply) => {
                let Some(status) = reply.status() else {
                    // the answer to something else
                    self.current = false;
                    self.next_poll = since.after(POLL_MS);
                    return;
                };
                self.believed = Some(*frame);
                match ask {
                    Ask::Inhibits(notes, _) if status.exception & bits::INVALID == 0 => {
                        self.setup.inhibits_set(notes);
                    }
                    Ask::Query(_) | Ask::Note(_) | Ask::Table | Ask::Inhibits(..) => {
                        self.setting_refused(ask, now);
                    }
                    _ => {}
                }
                self.on_reply(&reply, status, waiting, now);
            }
        }
    }

    fn on_reply(&mut self, reply: &Reply<'_>, status: Status, waiting: &Waiting, now: Mono) {
        let note = |reply: &Reply<'_>| match reply {
            Reply::Note(_, note) => Some(*note),
            _ => None,
        };
        let old = std::mem::replace(&mut self.fresh, false);
        if old {
            self.on_old_word(status, note(reply), now);
            return;
        }
        // a unit that does not repeat itself has said it, and has no note any more
        let moves = bits::ACCEPTING | bits::ESCROWED | bits::STACKING | bits::RETURNING;
        if let Some(once) = waiting.once.filter(|_| !status.is(moves | bits::STACKED)) {
            let once = Reply::parse(&once);
            if let Some(status) = once.status().filter(|status| !status.is(moves)) {
                self.on_status(status, note(&once), now);
            }
        }
        if waiting.ask == Ask::Poll {
            self.setup.carried(inlet_of(&waiting.frame), now);
        }
        self.on_status(status, note(reply), now);
        // what the device was told may change what it says next
        self.current = !matches!(waiting.ask, Ask::Stack | Ask::Return);
        let stacks = self.bill.as_ref().is_some_and(|bill| bill.stage == Stage::StackSent);
        let pause = match status {
            _ if self.holds_the_word() => IDLE_POLL_MS,
            // the credit has become durable while it was asked: the device is let go at once
            _ if waiting.ask == Ask::Again => 0,
            _ if stacks && self.toggle => 0,
            _ if stacks && (status.is(bits::STACKING) || !self.current) => STACK_POLL_MS,
            status if self.idles(status) => IDLE_POLL_MS,
            _ => POLL_MS,
        };
        self.next_poll = waiting.since.after(pause);
    }
}

fn says_once(frame: &Frame) -> bool {
    let once = |status: Status| status.is(bits::STACKED | bits::RETURNED);
    Reply::parse(frame).status().is_some_and(once)
}

/// The notes that a poll has enabled.
fn inlet_of(frame: &Frame) -> u8 {
    match Request::parse(frame) {
        Request::Omnibus(own) => own.notes,
        _ => 0,
    }
}
