//! How a Bill-to-Bill unit's engine shares line and inlet with the validator in it.

use super::super::{EscrowedBill, PowerUpBill};
use super::*;

impl<A: Authority> Ccnet<A> {
    /// The unit was met in a state that is not the validator's.
    pub(crate) const fn take_met(&mut self) -> Option<Frame> {
        self.met.take()
    }

    /// Set up, well, without a note, with nothing asked and nothing to say: `Some(open)`.
    pub(crate) fn at_rest(&self) -> Option<bool> {
        let quiet = self.is_quiet() && self.recovered && self.notes.has_none();
        // what was told last is not so any more while the inlet is on its way
        let shows = |open| self.seen == Some(if open { State::Idling } else { State::Disabled });
        self.told_open.filter(|open| quiet && self.voice.fault.is_none() && shows(*open))
    }

    fn is_quiet(&self) -> bool {
        self.up && self.waiting.is_none() && self.current && !self.reset_wanted
    }

    /// The unit has been initialised, and is to be asked what it was at before.
    pub(crate) fn awaits_recovery(&self, now: Mono) -> bool {
        let ready = !self.setup.needs_reset()
            && !self.setup.resetting(now)
            && self.setup.identity(now).is_none();
        ready && !self.recovered && self.is_quiet() && self.seen == Some(State::Disabled)
    }

    /// A note that was under way as the power went has been stacked, by the unit's answer.
    pub(crate) fn credit_found(&mut self, kind: u8, to: u8, now: Mono) -> Output<AcceptorEvent> {
        self.packed_to = to;
        self.with_notes(|notes, known, voice| notes.on_credit(Some(kind), known, voice));
        self.credit_with_table();
        self.finish(now)
    }

    /// The credit that was found has been made durable.
    pub(crate) fn credit_is_kept(&self) -> bool {
        self.notes.acknowledged()
    }

    /// There is another one.
    pub(crate) fn next_credit(&mut self) {
        self.with_notes(Notes::end_of_note);
    }

    /// The unit has told what it was at. The last credit that was found stays in mind until its next
    /// state: it may be said by BILL STACKED, too.
    pub(crate) fn recover(&mut self, now: Mono) -> Output<AcceptorEvent> {
        self.recovered = true;
        self.with_notes(|notes, _, voice| notes.tell_found(PowerUpBill::None, voice));
        self.finish(now)
    }

    /// A person asked for a reset; it is theirs who has the line.
    pub(crate) const fn take_reset(&mut self) -> bool {
        std::mem::replace(&mut self.reset_wanted, false)
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

    /// Stacks the note in escrow, whose proof the unit's engine keeps; `false` if it is not there.
    pub(crate) fn stack(&mut self, bill: EscrowedBill) -> bool {
        self.up && self.waits() && self.notes.stack(bill)
    }

    /// Where the last note went: 0 is the drop cassette.
    pub(crate) const fn packed_to(&self) -> u8 {
        self.packed_to
    }

    /// The bill type of a note of our currency, once the device has told its table.
    pub(crate) fn kind_of(&self, denomination: Denomination) -> Option<u8> {
        let notes = self.setup.table().unwrap_or_default();
        let ours = |(_, d, c): &&Coded| *d == denomination && *c == self.settings.currency;
        notes.iter().find(ours).map(|(kind, ..)| *kind)
    }
}
