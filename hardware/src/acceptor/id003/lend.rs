//! How a recycler's engine shares line and inlet with the validator in it.

use super::super::EscrowedBill;
use super::*;
use crate::frame::id003::Frame;

impl<A: Authority> Id003<A> {
    /// A frame of the device, found by whoever shares the line.
    pub(crate) fn on_frame(&mut self, frame: &Frame, now: Mono) -> Output<AcceptorEvent> {
        if self.up && !self.lent {
            self.on_reply(&Reply::parse(frame), now);
        }
        self.finish(now)
    }

    /// Whether the answer that is waited for is a state.
    pub(crate) fn awaits_state(&self) -> bool {
        matches!(self.waiting, Some(Waiting { ask: Ask::Status, .. }))
    }

    /// Set up, well, without a note, with nothing asked and nothing to say: `Some(open)`.
    pub(crate) fn at_rest(&self) -> Option<bool> {
        let quiet = self.up && self.waiting.is_none() && self.current && !self.reset_wanted;
        let well = quiet && self.notes.has_none() && self.voice.fault.is_none();
        // what was told last is not so any more while the inlet is on its way
        let shows = |open| self.seen == Some(if open { Status::Idling } else { Status::Disabled });
        self.told_open.filter(|open| well && shows(*open))
    }

    /// A person asked for a reset; it is theirs who has the line.
    pub(crate) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset_wanted)
    }

    /// Keeps the inlet closed, whatever notes are wanted, until it is let go.
    pub(crate) fn shut(&mut self, shut: bool, now: Mono) -> Output<AcceptorEvent> {
        if self.shut != shut {
            self.shut = shut;
            self.setup.inlet_changed();
        }
        self.finish(now)
    }

    /// Gives the line away: nothing is said until it is given back.
    pub(crate) fn lend(&mut self) {
        self.lent = true;
        self.waiting = None;
    }

    /// Takes the line back: the device was in sight all the while.
    pub(crate) fn take_back(&mut self, now: Mono) -> Output<AcceptorEvent> {
        self.lent = false;
        self.current = false;
        (self.heard, self.seen_at, self.next_poll) = (now, now, now);
        self.finish(now)
    }

    /// The note that is stacked next goes to the cashbox even where a box could keep it.
    pub(crate) fn stack_away(
        &mut self,
        bill: A::Committed<EscrowedBill>,
        now: Mono,
    ) -> Output<AcceptorEvent> {
        if self.up && self.waits() && self.notes.stack(*bill.as_ref()) {
            self.away = true;
        }
        self.finish(now)
    }

    /// The escrow code of a note of our currency, once the device has told its table.
    pub(crate) fn code_of(&self, denomination: Denomination) -> Option<u8> {
        let notes = self.setup.table().unwrap_or_default();
        let ours = |(_, d, c): &&Coded| *d == denomination && *c == self.settings.currency;
        notes.iter().find(ours).map(|(code, ..)| *code)
    }
}
