//! Notes on their way out of a box: what the device says of them.

use super::*;

/// A note that nobody takes is called back after this.
const STAY_MS: u64 = 60_000;
/// How long a device may rest after an order without an answer before that counts as not taken.
const TAKEN_MS: u64 = 5_000;
/// Out of sight for so long behind an ACK, the device may have given the next note; assumed, since no
/// document says it: on its way to the bezel none takes less.
const NEXT_NOTE_MS: u64 = 1_000;
/// Without an answer, or in a state that says nothing of the notes, for so long: nobody knows.
pub(super) const LOST_MS: u64 = 60_000;

/// Whether the note at the bezel was called back (4D).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    No,
    /// It was said; the device may have taken it or not.
    Said,
    /// The device does not do it for this note (4B).
    Refused,
    /// The device has said that the note came back (26).
    Done,
}

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
    /// PAY VALIDs seen again that long after their ACK: the same notes, or next ones whose way out
    /// nobody saw. The counts tell.
    pub(super) perhaps: u16,
    /// The last PAY VALID was acknowledged then.
    confirmed_at: Option<Mono>,
    /// The last state of a payout.
    pub(super) state: Option<PayState>,
    /// Nothing was said since it was seen.
    pub(super) current: bool,
    /// It was said to, and what it says since then counts.
    ordered_at: Mono,
    /// The device has acknowledged the order, so it rests only before or after it.
    pub(super) acked: bool,
    /// A state of the movement was seen since the order.
    seen: bool,
    stays_since: Option<Mono>,
    pub(super) recall: Recall,
    /// When the state last said something of the notes.
    pub(super) known_at: Mono,
    /// The device took a note back (26), by itself or by our word.
    pub(super) gave_back: bool,
    /// The recycler's trouble (4C) was asked for.
    explained: bool,
    /// It has moved notes, or may have, and nobody was told its outcome.
    pub(super) untold: bool,
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
            perhaps: 0,
            confirmed_at: None,
            state: None,
            current: false,
            ordered_at: now,
            stays_since: None,
            acked: false,
            seen: false,
            recall: Recall::No,
            known_at: now,
            gave_back: false,
            explained: false,
            untold: false,
            cleared: false,
            fault: None,
            last_word: "nothing".to_owned(),
        }
    }

    /// One that is met running.
    pub(super) fn met(now: Mono) -> Self {
        Self { stage: Stage::Watch, untold: true, ..Self::new(now) }
    }

    /// What is left of one whose outcome was told: the device's trouble.
    pub(super) fn settled(self, now: Mono) -> Self {
        let Self { state, explained, cleared, fault, last_word, .. } = self;
        let met = Self { untold: false, ..Self::met(now) };
        Self { state, explained, cleared, fault, last_word, ..met }
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
        (self.state, self.current, self.seen) = (Some(state), true, true);
        self.untold |= news && state.wants_ack();
        if state == PayState::PayStay {
            self.stays_since.get_or_insert(now);
        } else {
            self.stays_since = None;
            // the note that it was refused for waits no more
            if self.recall == Recall::Refused {
                self.recall = Recall::No;
            }
        }
        // a note that was called back and still waits is not known to go either way
        if state != PayState::PayStay || self.recall == Recall::No {
            self.known_at = now;
        }
        match state {
            PayState::PayValid if news => self.paid = self.paid.saturating_add(1),
            PayState::PayValid => {
                let gap = |at: Mono| now.since(at) >= NEXT_NOTE_MS;
                if self.confirmed_at.take().is_some_and(gap) {
                    self.perhaps = self.perhaps.saturating_add(1);
                }
            }
            PayState::Error if self.stage == Stage::Watch && !self.explained => {
                self.stage = Stage::Trouble;
            }
            // 25 is not one: the box counts that note again
            PayState::ReturnPayOutNote(_) => {
                self.gave_back = true;
                if self.recall == Recall::Said {
                    self.recall = Recall::Done;
                }
            }
            // the note is on its way back and will not come there
            PayState::ReturnError => self.fail(FaultKind::Jam, state.to_string()),
            _ => {}
        }
    }

    /// What the device said was acknowledged.
    pub(super) fn confirmed(&mut self, now: Mono) {
        self.confirmed_at = (self.state == Some(PayState::PayValid)).then_some(now);
    }

    /// What the trouble (4C) is, as far as the device tells.
    pub(super) fn explain(&mut self, kind: FaultKind, detail: String) {
        self.explained = true;
        self.fail(kind, detail);
        self.stage = Stage::After;
    }

    /// Any other state: whether the movement is over.
    pub(super) fn on_other(&mut self, status: Status, now: Mono) {
        self.last_word = status.to_string();
        match status {
            // a moment after the order it may not have begun; where it has acknowledged it, it will
            Status::Disabled | Status::Idling
                if self.seen || !self.acked && now.since(self.ordered_at) >= TAKEN_MS =>
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
        stays && self.recall == Recall::No
    }

    /// Whether a state says that it is said until it is acknowledged.
    pub(super) fn wants_ack(&self) -> bool {
        self.current && self.state.is_some_and(PayState::wants_ack)
    }
}
