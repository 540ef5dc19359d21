//! Which states are faults, when they are over, and states that last too long.

use super::*;

impl<A: Authority> Ccnet<A> {
    /// So many milliseconds of BUSY.
    pub(super) fn judge_busy(&mut self, lasts: u64) {
        if lasts >= 60_000 {
            let detail = "busy for a minute (1B)".to_owned();
            self.voice.fail(FaultKind::ServiceNeeded, detail);
        }
    }

    pub(super) fn judge(&mut self, state: State, now: Mono) {
        if state == State::CassetteOut && !std::mem::replace(&mut self.cassette_out, true) {
            self.voice.tell(AcceptorEvent::CashboxRemoved(true));
        }
        if let Some(kind) = trouble(state, now.since(self.entered)) {
            return self.voice.fail(kind, state.to_string());
        }
        let well = matches!(
            state,
            State::Idling
                | State::Disabled
                | State::Accepting
                | State::Escrow(_)
                | State::Holding
                | State::Stacking
                | State::Stacked(_)
                | State::Packed { .. }
                | State::Rejecting(_)
                | State::Returning
                | State::Returned(_)
        );
        if !well {
            return;
        }
        if std::mem::replace(&mut self.cassette_out, false) {
            self.voice.tell(AcceptorEvent::CashboxRemoved(false));
        }
        if !self.setup.failed() && self.voice.recover() {
            // the one who heard of the fault waits to hear that the device is well
            self.told_open = None;
        }
    }
}

/// The fault that a state is, if it has lasted for so many milliseconds.
fn trouble(state: State, lasts: u64) -> Option<FaultKind> {
    let (after, kind) = match state {
        State::CassetteFull | State::CassetteOut => (0, FaultKind::Cassette),
        State::ValidatorJammed | State::CassetteJammed | State::UnitJammed(_) => {
            (0, FaultKind::Jam)
        }
        State::Cheated => (0, FaultKind::Cheated),
        // it may keep such a note: a person must look where it is
        State::Failure(_) | State::UnitFailure(_) | State::Suspected(_) | State::Counterfeit(_) => {
            (0, FaultKind::ServiceNeeded)
        }
        // the customer takes the second note out, or the device rejects both
        State::Pause => (15_000, FaultKind::Jam),
        // waits for the customer's hand, or is stuck
        State::Rejecting(_) | State::Returning => (60_000, FaultKind::Jam),
        // the result of STACK comes within 30 s
        State::Accepting | State::Stacking => (30_000, FaultKind::Jam),
        // a device that stays returned does not hear that it was heard
        State::Initialize | State::Returned(_) => (60_000, FaultKind::ServiceNeeded),
        State::Idling
        | State::Disabled
        | State::Escrow(_)
        | State::Holding
        | State::Stacked(_)
        | State::Packed { .. }
        | State::PowerUpBillInUnit(_)
        | State::Busy(_)
        | State::PowerUp
        | State::PowerUpBillInValidator
        | State::PowerUpBillInStacker => return None,
    };
    (lasts >= after).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ccnet::{FailureCode, RejectReason};

    /// Loss prevented: a device that hangs between two states for ever, and nobody is told.
    #[test]
    fn states_that_last_too_long_are_faults() {
        assert_eq!(trouble(State::Stacking, 29_999), None);
        assert_eq!(trouble(State::Stacking, 30_000), Some(FaultKind::Jam));
        assert_eq!(trouble(State::Rejecting(RejectReason::Length), 60_000), Some(FaultKind::Jam));
        assert_eq!(trouble(State::Initialize, 60_000), Some(FaultKind::ServiceNeeded));
        assert_eq!(trouble(State::Pause, 10_000), None);
        assert_eq!(trouble(State::Idling, u64::MAX), None);
        let failure = State::Failure(FailureCode::from_code(0x5d));
        assert_eq!(trouble(failure, 0), Some(FaultKind::ServiceNeeded));
    }
}
