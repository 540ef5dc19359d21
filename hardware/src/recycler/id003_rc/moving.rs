//! Notes on their way out of a box: what the device says of them.

use super::*;

/// A note that nobody takes is called back after this.
const STAY_MS: u64 = 60_000;
/// How long a device may rest after PAY OUT before that counts as not taken.
const TAKEN_MS: u64 = 1_000;
/// Without an answer, or in a state that says nothing of the notes, for so long: nobody knows.
pub(super) const LOST_MS: u64 = 60_000;

/// How far a movement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The counts are read.
    Before,
    /// It is ordered.
    Order,
    /// The device is asked for its state until it rests.
    Watch,
    /// The recycler's trouble is asked for.
    Trouble,
    /// The counts are read again.
    After,
}

/// What became known of a movement.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub(super) stage: Stage,
    /// The counts before the order.
    pub(super) before: Option<[u16; BOXES]>,
    /// PAY VALIDs, each counted once.
    pub(super) paid: u16,
    /// The last state of a payout.
    pub(super) state: Option<PayState>,
    /// Nothing was said since it was seen.
    pub(super) current: bool,
    /// It was said to, and what it says since then counts.
    ordered_at: Mono,
    stays_since: Option<Mono>,
    /// The note at the bezel was called back.
    pub(super) called_back: bool,
    /// When the state last said something of the notes.
    pub(super) known_at: Mono,
    /// The device took a note back by itself, or by our word.
    pub(super) gave_back: bool,
    /// CLEAR has been said; if the trouble lasts, the validator's RESET is next.
    pub(super) cleared: bool,
    /// What stopped it.
    pub(super) fault: Option<DeviceFault>,
    /// Its last state, in words.
    pub(super) last_word: String,
}

impl Moving {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            stage: Stage::Before,
            before: None,
            paid: 0,
            state: None,
            current: false,
            ordered_at: now,
            stays_since: None,
            called_back: false,
            known_at: now,
            gave_back: false,
            cleared: false,
            fault: None,
            last_word: "nothing".to_owned(),
        }
    }

    /// One that is met running.
    pub(super) fn met(now: Mono) -> Self {
        Self { stage: Stage::Watch, ..Self::new(now) }
    }

    pub(super) fn ordered(&mut self, now: Mono) {
        self.stage = Stage::Watch;
        (self.ordered_at, self.known_at) = (now, now);
        self.current = false;
    }

    /// A state of the payout.
    pub(super) fn on_state(&mut self, state: PayState, now: Mono) {
        let news = self.state != Some(state);
        self.last_word = state.to_string();
        (self.state, self.current) = (Some(state), true);
        // a note that was called back and still waits is not known to go either way
        if !(state == PayState::PayStay && self.called_back) {
            self.known_at = now;
        }
        match state {
            PayState::PayStay => {
                self.stays_since.get_or_insert(now);
            }
            _ => self.stays_since = None,
        }
        if state == PayState::PayValid && news {
            self.paid = self.paid.saturating_add(1);
        }
        if state == PayState::Error && self.stage == Stage::Watch && self.fault.is_none() {
            self.stage = Stage::Trouble;
        }
        match state {
            PayState::ReturnToBox | PayState::ReturnPayOutNote(_) => self.gave_back = true,
            PayState::ReturnError => {
                self.gave_back = true;
                self.fail(FaultKind::Jam, state.to_string());
            }
            _ => {}
        }
    }

    /// Any other state: whether the movement is over.
    pub(super) fn on_other(&mut self, status: Status, now: Mono) {
        self.last_word = status.to_string();
        match status {
            // a moment after the order it may not have begun
            Status::Disabled | Status::Idling
                if self.state.is_some() || now.since(self.ordered_at) >= TAKEN_MS =>
            {
                self.stage = Stage::After;
            }
            Status::PowerUp
            | Status::PowerUpBillInAcceptor
            | Status::PowerUpBillInStacker
            | Status::Initializing => {
                self.fail(FaultKind::ServiceNeeded, format!("it has lost power: {status}"));
                self.stage = Stage::After;
            }
            _ => {}
        }
        self.state = None;
    }

    pub(super) fn fail(&mut self, kind: FaultKind, detail: String) {
        self.fault.get_or_insert(DeviceFault { kind, detail });
    }

    /// Whether the note at the bezel is to be called back now.
    pub(super) fn wants_back(&self, now: Mono) -> bool {
        let stays = self.stays_since.is_some_and(|since| now.since(since) >= STAY_MS);
        stays && !self.called_back
    }

    /// Whether a state says that it is said until it is acknowledged.
    pub(super) fn wants_ack(&self) -> bool {
        self.current && self.state.is_some_and(PayState::wants_ack)
    }
}
