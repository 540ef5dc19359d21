//! What each state of the device means for the note in it.

use super::super::PowerUpBill;
use super::*;

impl<A: Authority> Ccnet<A> {
    /// What is known and wanted of notes.
    pub(super) fn known(&self) -> Known<'_> {
        let table = self.setup.table();
        Known { currency: self.settings.currency, wanted: &self.wanted, table }
    }

    /// The device shows a note that waits for a decision.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.seen, Some(State::Escrow(_) | State::Holding))
    }

    /// The table is there, or will not come: the credit must not wait for it.
    pub(super) fn credit_with_table(&mut self) {
        self.with_notes(Notes::credit_with_table);
    }

    pub(super) fn with_notes(&mut self, act: impl FnOnce(&mut Notes, &Known<'_>, &mut Voice)) {
        let mut notes = std::mem::take(&mut self.notes);
        let mut voice = std::mem::take(&mut self.voice);
        act(&mut notes, &self.known(), &mut voice);
        (self.notes, self.voice) = (notes, voice);
    }

    /// `gap`: the device was out of sight for so long that it may have given a note back.
    pub(super) fn follow_note(&mut self, state: State, changed: bool, gap: bool) {
        let pending = !self.recovered;
        self.with_notes(|notes, known, voice| match state {
            // what became of the note is still to be told
            State::Idling | State::Disabled if pending => {}
            State::PowerUp | State::PowerUpBillInStacker if pending => notes.doubt(),
            State::Idling | State::Disabled => {
                notes.tell_found(PowerUpBill::None, voice);
                notes.end_of_note(known, voice);
            }
            State::Accepting => notes.end_of_note(known, voice),
            State::Escrow(_) | State::Holding if !notes.found || gap => {
                notes.came_out_of_sight(known, voice);
            }
            State::Escrow(kind) => notes.on_escrow(Some(kind), known, voice),
            State::Holding if notes.has_none() => notes.leave(),
            State::Stacking | State::PowerUpBillInStacker => notes.may_be_stacked(voice),
            State::Stacked(kind) | State::Packed { kind, .. } => {
                notes.on_credit(Some(kind), known, voice);
            }
            State::Rejecting(reason) => notes.rejects(reason, changed, voice),
            State::Returning | State::Returned(_) | State::PowerUpBillInValidator => {
                notes.tell_found(PowerUpBill::InAcceptor, voice);
                notes.gives_back();
            }
            State::PowerUp => {
                notes.tell_found(PowerUpBill::None, voice);
                notes.doubt();
            }
            State::CassetteOut
            | State::ValidatorJammed
            | State::CassetteJammed
            | State::Cheated
            | State::Failure(_)
            | State::UnitFailure(_)
            | State::UnitJammed(_)
            | State::PowerUpBillInUnit(_)
            | State::Suspected(_)
            | State::Counterfeit(_) => notes.doubt(),
            State::Holding
            | State::Initialize
            | State::Busy(_)
            | State::CassetteFull
            | State::Pause => {}
        });
    }

    /// Whether what this state says may be forgotten by the device.
    pub(super) fn may_confirm(&self, state: State) -> bool {
        !matches!(state, State::Stacked(_) | State::Packed { .. }) || self.notes.acknowledged()
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
