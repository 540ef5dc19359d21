//! Which states are faults, when they are over, and states that last too long.

use super::*;

impl<A: Authority> Id003<A> {
    pub(super) fn judge(&mut self, status: Status, now: Mono) {
        if status == Status::StackerOpen && !std::mem::replace(&mut self.cashbox_out, true) {
            self.voice.tell(AcceptorEvent::CashboxRemoved(true));
        }
        if let Some(kind) = trouble(status, now.since(self.entered)) {
            return self.voice.fail(kind, status.to_string());
        }
        let well = matches!(
            status,
            Status::Idling
                | Status::Disabled
                | Status::Accepting
                | Status::Escrow(_)
                | Status::Holding
                | Status::Stacking(_)
                | Status::VendValid(_)
                | Status::Stacked(_)
                | Status::Rejecting(_)
                | Status::Returning
        );
        if !well {
            return;
        }
        if std::mem::replace(&mut self.cashbox_out, false) {
            self.voice.tell(AcceptorEvent::CashboxRemoved(false));
        }
        if !self.setup.failed() && self.voice.recover() {
            // the one who heard of the fault waits to hear that the device is well
            self.told_open = None;
        }
    }
}

/// The fault that a state is, if it has lasted for so many milliseconds.
fn trouble(status: Status, lasts: u64) -> Option<FaultKind> {
    let (after, kind) = match status {
        Status::StackerFull | Status::StackerOpen => (0, FaultKind::Cassette),
        Status::JamInAcceptor | Status::JamInStacker => (0, FaultKind::Jam),
        Status::Cheated => (0, FaultKind::Cheated),
        Status::Failure(_) | Status::CommError => (0, FaultKind::ServiceNeeded),
        // the customer takes the second note out, or does not
        Status::Pause => (10_000, FaultKind::Jam),
        // waits for the customer's hand, or is stuck
        Status::Rejecting(_) | Status::Returning => (60_000, FaultKind::Jam),
        Status::Accepting | Status::Stacking(_) | Status::Stacked(_) => (30_000, FaultKind::Jam),
        Status::Initializing | Status::SignatureBusy | Status::SignatureEnd => {
            (60_000, FaultKind::ServiceNeeded)
        }
        Status::Idling
        | Status::Disabled
        | Status::Escrow(_)
        | Status::Holding
        | Status::VendValid(_)
        | Status::PowerUp
        | Status::PowerUpBillInAcceptor
        | Status::PowerUpBillInStacker => return None,
    };
    (lasts >= after).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::id003::{FailureCode, RejectReason};

    /// Loss prevented: a device that hangs between two states for ever, and nobody is told.
    #[test]
    fn states_that_last_too_long_are_faults() {
        assert_eq!(trouble(Status::Stacking(None), 29_999), None);
        assert_eq!(trouble(Status::Stacking(None), 30_000), Some(FaultKind::Jam));
        assert_eq!(trouble(Status::Rejecting(RejectReason::Length), 60_000), Some(FaultKind::Jam));
        assert_eq!(trouble(Status::Initializing, 60_000), Some(FaultKind::ServiceNeeded));
        assert_eq!(trouble(Status::Pause, 1_000), None);
        assert_eq!(trouble(Status::Idling, u64::MAX), None);
        let failure = Status::Failure(FailureCode::from_code(0xc1));
        assert_eq!(trouble(failure, 0), Some(FaultKind::ServiceNeeded));
    }
}
