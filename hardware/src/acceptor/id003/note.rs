//! What each state of the device means for the note in it.

use super::super::PowerUpBill;
use super::*;
use crate::frame::id003::Frame;

impl<A: Authority> Id003<A> {
    /// What is known and wanted of notes.
    pub(super) fn known(&self) -> Known<'_> {
        let table = self.setup.table();
        Known { currency: self.settings.currency, wanted: &self.wanted, table }
    }

    /// The device shows a note that waits for a decision.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.seen, Some(Status::Escrow(_) | Status::Holding))
    }

    /// The table is there, or will not come: the credit must not wait for it.
    pub(super) fn credit_with_table(&mut self) {
        self.with_notes(Notes::credit_with_table);
    }

    fn with_notes<T>(&mut self, act: impl FnOnce(&mut Notes, &Known<'_>, &mut Voice) -> T) -> T {
        let mut notes = std::mem::take(&mut self.notes);
        let mut voice = std::mem::take(&mut self.voice);
        let done = act(&mut notes, &self.known(), &mut voice);
        (self.notes, self.voice) = (notes, voice);
        done
    }

    /// `gap`: the device was out of sight for so long that it may have given a note back.
    pub(super) fn follow_note(&mut self, status: Status, changed: bool, gap: bool) {
        self.with_notes(|notes, known, voice| match status {
            Status::Idling | Status::Disabled => {
                notes.tell_found(PowerUpBill::None, voice);
                notes.end_of_note(known, voice);
            }
            Status::Accepting => notes.end_of_note(known, voice),
            Status::Escrow(_) | Status::Holding if !notes.found || gap => {
                notes.came_out_of_sight(known, voice);
            }
            Status::Escrow(Held::Note(code)) => notes.on_escrow(Some(code), known, voice),
            Status::Escrow(Held::Ticket) => notes.on_escrow(None, known, voice),
            Status::Holding if notes.has_none() => notes.leave(),
            Status::Stacking(_) | Status::PowerUpBillInStacker => notes.may_be_stacked(voice),
            Status::VendValid(code) => notes.on_credit(code, known, voice),
            Status::Stacked(_) => notes.on_stacked(known, voice),
            Status::Rejecting(reason) => notes.rejects(reason, changed, voice),
            Status::Returning | Status::PowerUpBillInAcceptor => {
                notes.tell_found(PowerUpBill::InAcceptor, voice);
                notes.gives_back();
            }
            Status::PowerUp => {
                notes.tell_found(PowerUpBill::None, voice);
                notes.doubt();
            }
            Status::StackerOpen
            | Status::JamInAcceptor
            | Status::JamInStacker
            | Status::Cheated
            | Status::Failure(_) => notes.doubt(),
            Status::Holding
            | Status::Initializing
            | Status::SignatureBusy
            | Status::SignatureEnd
            | Status::StackerFull
            | Status::Pause
            | Status::CommError => {}
        });
    }

    /// A state that we do not know.
    pub(super) fn on_unknown(&mut self, raw: &Frame, now: Mono) {
        self.seen = None;
        self.seen_at = now;
        self.current = false;
        self.told_open = None;
        self.notes.doubt();
        self.voice.fail(FaultKind::ServiceNeeded, format!("unknown state {raw}"));
    }
}
