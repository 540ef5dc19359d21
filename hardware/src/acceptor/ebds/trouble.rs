//! Which words are faults, when they are over, and states that last too long.

use super::*;
use crate::frame::ebds::bits;

impl<A: Authority> Ebds<A> {
    /// Tells a fault, once for as long as it is the same.
    pub(super) fn fail(&mut self, kind: FaultKind, detail: String) {
        let fault = DeviceFault { kind, detail };
        if self.fault.as_ref() != Some(&fault) {
            self.fault = Some(fault.clone());
            self.tell(AcceptorEvent::Fault(fault));
        }
    }

    pub(super) fn judge(&mut self, status: Status, now: Mono) {
        let out = status.event & bits::CASSETTE == 0 && !is_starting(status);
        if out && !std::mem::replace(&mut self.cashbox_out, true) {
            self.tell(AcceptorEvent::CashboxRemoved(true));
        }
        let lasts = now.since(self.entered);
        if let Some(kind) = trouble(status, lasts, self.setup.is_closed()) {
            return self.fail(kind, lasting(status).to_string());
        }
        let waits = status.event & bits::PAUSED != 0 || self.holds_the_word();
        if waits || !(status.is(!(bits::STACKED | bits::RETURNED)) || self.idles(status)) {
            return;
        }
        if std::mem::replace(&mut self.cashbox_out, false) {
            self.tell(AcceptorEvent::CashboxRemoved(false));
        }
        // a fault that was told in this very step is not over yet
        let told_now = self.out.events.iter().any(Self::is_fault);
        if !told_now && !self.setup.failed() && self.fault.take().is_some() {
            self.tell(AcceptorEvent::Recovered);
            // the one who heard of the fault waits to hear that the device is well
            self.told_open = None;
        }
    }
}

/// Without what comes and goes beside a trouble: the same trouble is told once.
const fn lasting(status: Status) -> Status {
    Status {
        state: status.state & !(bits::STACKED | bits::RETURNED),
        event: status.event & !bits::REJECTED,
        exception: status.exception & (bits::FAILURE | bits::OPEN),
        misc: status.misc & !bits::DISABLED,
        ..status
    }
}

/// Not a word yet: all bytes are zero for a moment after the power came.
fn is_starting(status: Status) -> bool {
    status == Status::default()
}

/// The fault that a state is, if it has lasted for so many milliseconds; `closed` by the host.
pub(super) fn trouble(status: Status, lasts: u64, closed: bool) -> Option<FaultKind> {
    let event = |bit: u8| status.event & bit != 0;
    let (after, kind) = if is_starting(status) {
        (60_000, FaultKind::ServiceNeeded)
    } else if event(bits::CHEATED) {
        (0, FaultKind::Cheated)
    } else if event(bits::JAMMED) || status.misc & bits::STALLED != 0 {
        (0, FaultKind::Jam)
    } else if event(bits::STACKER_FULL) || !event(bits::CASSETTE) {
        (0, FaultKind::Cassette)
    } else if status.exception & (bits::FAILURE | bits::OPEN) != 0
        || event(bits::CALIBRATION)
        || status.misc & bits::FLASH != 0
    {
        (0, FaultKind::ServiceNeeded)
    } else if event(bits::PAUSED) {
        // the customer takes the second note out, or does not
        (10_000, FaultKind::Jam)
    } else if status.is(bits::RETURNING) {
        // waits for the customer's hand, or is stuck
        (60_000, FaultKind::Jam)
    } else if status.is(bits::ACCEPTING | bits::STACKING) {
        (30_000, FaultKind::Jam)
    } else if status.is(bits::ESCROWED) {
        // longer than any Hold
        (120_000, FaultKind::Jam)
    } else if status.state & !(bits::STACKED | bits::RETURNED) == 0 && !closed {
        // out of service, and nothing says why
        (5_000, FaultKind::ServiceNeeded)
    } else {
        return None;
    };
    (lasts >= after).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Status = Status {
        state: bits::IDLING,
        event: bits::CASSETTE,
        exception: 0,
        misc: 0,
        model: 0x54,
        revision: 1,
    };

    /// Loss prevented: a device that hangs between two states for ever, and nobody is told; one that
    /// is called well while a person must look.
    #[test]
    fn conditions_and_states_that_last_too_long_are_faults() {
        let state = |state| Status { state, ..WELL };
        assert_eq!(trouble(WELL, u64::MAX, false), None);
        assert_eq!(trouble(state(bits::STACKING), 29_999, false), None);
        assert_eq!(trouble(state(bits::STACKING), 30_000, false), Some(FaultKind::Jam));
        assert_eq!(trouble(state(bits::RETURNING), 60_000, false), Some(FaultKind::Jam));
        assert_eq!(trouble(state(0), 1_000, false), None);
        assert_eq!(trouble(state(0), 5_000, false), Some(FaultKind::ServiceNeeded));
        assert_eq!(trouble(state(0), 60_000, true), None, "closed, and says nothing");
        assert_eq!(trouble(Status::default(), 10_000, false), None, "no word yet");
        let event = |event| Status { event: event | bits::CASSETTE, ..WELL };
        assert_eq!(trouble(event(bits::CHEATED), 0, false), Some(FaultKind::Cheated));
        assert_eq!(trouble(event(bits::JAMMED), 0, false), Some(FaultKind::Jam));
        assert_eq!(trouble(event(bits::STACKER_FULL), 0, false), Some(FaultKind::Cassette));
        assert_eq!(trouble(event(bits::CALIBRATION), 0, false), Some(FaultKind::ServiceNeeded));
        assert_eq!(trouble(event(bits::PAUSED), 0, false), None);
        assert_eq!(trouble(event(bits::PAUSED), 10_000, false), Some(FaultKind::Jam));
        assert_eq!(trouble(Status { event: 0, ..WELL }, 0, false), Some(FaultKind::Cassette));
        let failure = Status { exception: bits::FAILURE, ..WELL };
        assert_eq!(trouble(failure, 0, false), Some(FaultKind::ServiceNeeded));
        let open = Status { exception: bits::OPEN, ..WELL };
        assert_eq!(trouble(open, 0, false), Some(FaultKind::ServiceNeeded));
        assert_eq!(trouble(Status { misc: bits::STALLED, ..WELL }, 0, false), Some(FaultKind::Jam));
    }
}
