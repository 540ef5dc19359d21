//! What the device's words mean for the note, in the order in which they must be taken.

use super::super::PowerUpBill;
use super::trouble::trouble;
use super::*;
use crate::frame::ebds::{NoteReport, bits};

/// A note on its way.
const MOVES: u8 = bits::ACCEPTING | bits::ESCROWED | bits::STACKING | bits::RETURNING;
/// Conditions of D1 that last.
const CONDITIONS: u8 = !bits::REJECTED;

impl<A: Authority> Ebds<A> {
    /// The first answer to a host that does not know the toggle: perhaps an old one, given again.
    /// What is said once is as true as it was; the rest is asked anew.
    pub(super) fn on_old_word(&mut self, status: Status, report: Option<NoteReport>, now: Mono) {
        self.current = false;
        self.seen_at = now;
        let said = self.said(status, report);
        if status.is(bits::STACKED) && said != Said::Nothing && !status.is(bits::RETURNED) {
            self.on_stacked(said);
        } else if status.is(bits::RETURNED) && !status.is(bits::STACKED) {
            self.on_returned();
        }
    }

    pub(super) fn on_status(&mut self, status: Status, report: Option<NoteReport>, now: Mono) {
        let once = bits::STACKED | bits::RETURNED;
        if status.state & once == once {
            return self.on_unknown(&status.to_string(), now);
        }
        let lasting = |status: Status| (status.state & !once, status.event & CONDITIONS);
        if self.seen.map(lasting) != Some(lasting(status)) {
            self.entered = now;
            self.setup.state_changed();
        }
        let gap = now.since(self.seen_at) >= SILENT_MS;
        self.follow_power(status);
        self.follow_note(status, report, gap, now);
        self.seen = Some(status);
        self.seen_at = now;
        self.current = true;
        self.judge(status, now);
        self.tell_inlet(status, now);
    }

    /// What the return of the power means for settings and identity.
    fn follow_power(&mut self, status: Status) {
        let powering = status.exception & bits::POWER_UP != 0;
        let own = self.reset_at.take().is_some();
        if powering && !std::mem::replace(&mut self.powering, powering) {
            self.power_went();
            self.told_open = None;
            if own {
                self.setup.on_reset();
            } else {
                self.setup = Setup::default();
                self.found = false;
            }
        }
        self.powering = powering;
    }

    /// `gap`: the device was out of sight for so long that it may have given a note back.
    fn follow_note(&mut self, status: Status, report: Option<NoteReport>, gap: bool, now: Mono) {
        let said = self.said(status, report);
        if !self.idles(status) {
            self.told_open = None;
        }
        if status.is(bits::STACKED) {
            self.on_stacked(said);
        }
        if self.holds_the_word() && !status.is(MOVES) {
            return;
        }
        if status.is(bits::RETURNED) {
            self.on_returned();
        }
        let before = self.seen.is_some_and(|seen| seen.event & bits::REJECTED != 0);
        if status.event & bits::REJECTED != 0 && !before && self.bill.is_none() {
            let reason = format!("refused by the device: {status}");
            self.tell(AcceptorEvent::Rejected { reason });
        }
        if !status.is(bits::ESCROWED) {
            self.weighed = None;
        }
        if status.is(bits::STACKING) {
            self.tell_found(PowerUpBill::InStacker);
            self.may_be_stacked();
        } else if status.is(bits::ESCROWED) {
            if !self.found {
                self.tell_found(PowerUpBill::InAcceptor);
                self.leave();
            } else if gap {
                self.came_out_of_sight();
            } else {
                self.on_escrow(status, report, now);
            }
        } else if status.is(bits::RETURNING) {
            self.tell_found(PowerUpBill::InAcceptor);
            self.gives_back();
        } else if status.is(bits::ACCEPTING) {
            self.end_of_note();
        } else if self.idles(status) {
            self.tell_found(PowerUpBill::None);
            self.end_of_note();
        }
        if stops(status) {
            self.doubt();
        }
    }

    /// No note is on its way, and the device is well. With its inlet closed, a unit may show no
    /// state at all.
    pub(super) fn idles(&self, status: Status) -> bool {
        let closed = status.state & !(bits::STACKED | bits::RETURNED) == 0
            && self.setup.is_closed()
            && status != Status::default()
            && status.exception & bits::POWER_UP == 0
            && trouble(status, 0, true).is_none();
        !status.is(MOVES) && (status.is(bits::IDLING) || closed)
    }

    /// Words that we do not know.
    pub(super) fn on_unknown(&mut self, words: &str, now: Mono) {
        self.seen = None;
        self.seen_at = now;
        self.current = false;
        self.told_open = None;
        self.doubt();
        self.fail(FaultKind::ServiceNeeded, format!("unknown words: {words}"));
    }
}

/// A condition in which somebody may move a note by hand.
fn stops(status: Status) -> bool {
    status.event & (bits::CHEATED | bits::JAMMED) != 0
        || status.event & bits::CASSETTE == 0
        || status.exception & (bits::FAILURE | bits::OPEN) != 0
        || status.misc & bits::STALLED != 0
}
