//! Notes on their way out of a cassette: what the unit says of them.

use super::*;
use crate::frame::ccnet::State as Common;
use crate::frame::ccnet::unit::UnitState;

/// Notes at the exit for so long are nobody's to wait for; the longest time after which a unit
/// draws them back by itself is 60 s.
const WAITS_MS: u64 = 120_000;
/// Notes that move for so long do not move: 200 of them take three minutes.
const GOES_ON_MS: u64 = 600_000;
/// How long a device may rest after an order without an answer before that counts as not taken.
const TAKEN_MS: u64 = 5_000;
/// Without an answer, or in a state that says nothing of the notes, for so long: nobody knows.
pub(super) const LOST_MS: u64 = 60_000;

/// How far a movement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The cassettes are counted.
    Before,
    /// It is ordered.
    Order,
    /// The device is asked for its state until it rests.
    Watch,
    /// Notes lie at the exit and nobody takes them: the cassettes are counted.
    Presented,
    /// The cassettes are counted again.
    After,
}

/// What became known of a movement.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    pub(super) stage: Stage,
    /// The cassettes before the order.
    pub(super) before: Option<Held>,
    ordered_at: Mono,
    /// The device has acknowledged the order, so it rests only before or after it.
    pub(super) acked: bool,
    /// A state of the movement was seen since the order.
    seen: bool,
    /// Notes have been waiting at the exit since then.
    waits_since: Option<Mono>,
    /// Notes have been at the exit.
    pub(super) waited: bool,
    /// A person has asked for a reset of a unit that does not end by itself.
    pub(super) reset: bool,
    /// It has said DISPENSED; with counts, as many of each type.
    pub(super) dispensed: Option<BTreeMap<u8, u32>>,
    /// It has said UNLOADED, and of how many notes, where it says that.
    pub(super) unloaded: Option<Option<u8>>,
    /// Notes at the exit were drawn back.
    pub(super) gave_back: bool,
    /// So many notes were told as presented.
    pub(super) presented: Option<u32>,
    /// When the state last said something of the notes.
    pub(super) known_at: Mono,
    /// It has moved notes, or may have, and nobody was told its outcome.
    pub(super) untold: bool,
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
            ordered_at: now,
            acked: false,
            seen: false,
            waits_since: None,
            waited: false,
            reset: false,
            dispensed: None,
            unloaded: None,
            gave_back: false,
            presented: None,
            known_at: now,
            untold: false,
            fault: None,
            last_word: "nothing".to_owned(),
        }
    }

    /// One that is met running.
    pub(super) fn met(now: Mono) -> Self {
        Self { stage: Stage::Watch, untold: true, ..Self::new(now) }
    }

    /// What is left of one whose outcome nobody knows.
    pub(super) fn unknown(self) -> Self {
        Self { untold: true, ..self }
    }

    /// What is left of one of which so many notes were told as presented.
    pub(super) fn presented(self, notes: u32) -> Self {
        Self { presented: Some(notes), untold: false, ..self }
    }

    pub(super) fn ordered(&mut self, now: Mono) {
        self.stage = Stage::Watch;
        (self.ordered_at, self.known_at) = (now, now);
    }

    /// A state of the movement.
    pub(super) fn on_unit(&mut self, state: UnitState<'_>, now: Mono) {
        self.last_word = state.to_string();
        (self.seen, self.known_at) = (true, now);
        match state {
            UnitState::Dispensing(Some(1)) => {
                self.waits_since.get_or_insert(now);
                self.waited = true;
            }
            UnitState::Dispensed(notes) => {
                let mut counts = BTreeMap::new();
                for [kind, count] in notes {
                    let sum: &mut u32 = counts.entry(*kind).or_default();
                    *sum = sum.saturating_add(u32::from(*count));
                }
                self.dispensed = Some(counts);
            }
            UnitState::Unloaded(notes) => self.unloaded = Some(notes),
            UnitState::InvalidNumber => self.fail(FaultKind::Cassette, state.to_string()),
            _ => {}
        }
        if !matches!(state, UnitState::Dispensing(Some(1))) {
            self.waits_since = None;
        }
    }

    /// Any other state: whether the movement is over.
    pub(super) fn on_common(&mut self, state: Common, now: Mono) {
        self.last_word = state.to_string();
        let stopped = |kind| Some((kind, state.to_string()));
        let fault = match state {
            // a moment after the order it may not have begun; where it has acknowledged it, it will
            Common::Disabled | Common::Idling => {
                let missed = !self.acked && now.since(self.ordered_at) >= TAKEN_MS;
                if self.seen || missed {
                    self.stage = Stage::After;
                }
                None
            }
            Common::ValidatorJammed | Common::CassetteJammed | Common::UnitJammed(_) => {
                stopped(FaultKind::Jam)
            }
            Common::CassetteFull | Common::CassetteOut => stopped(FaultKind::Cassette),
            Common::UnitFailure(code) => {
                // what nobody took is in the machine, as much as was not taken
                self.gave_back |= self.waits_since.is_some() && code.code() == 0xca;
                stopped(FaultKind::ServiceNeeded)
            }
            Common::Cheated => stopped(FaultKind::Cheated),
            _ => None,
        };
        if let Some((kind, detail)) = fault {
            self.fail(kind, detail);
            self.stage = Stage::After;
        }
    }

    pub(super) fn fail(&mut self, kind: FaultKind, detail: String) {
        self.fault.get_or_insert(DeviceFault { kind, detail });
    }

    /// Whether notes have been waiting at the exit for too long.
    pub(super) fn waits_in_vain(&self, now: Mono) -> bool {
        self.waits_since.is_some_and(|since| now.since(since) >= WAITS_MS)
    }

    /// Whether it goes on for longer than so many notes take.
    pub(super) fn goes_on(&self, now: Mono) -> bool {
        self.waits_since.is_none() && now.since(self.ordered_at) >= GOES_ON_MS
    }

    /// Whether all notes that were told as presented were taken, by the device's word.
    pub(super) fn all_taken(&self) -> bool {
        let well = self.fault.is_none() && !self.gave_back;
        let counts = self.dispensed.as_ref().filter(|_| well);
        counts.is_some_and(|counts| counts.is_empty() || self.presented == Some(self.taken()))
    }

    /// Notes that were taken, by the device's word.
    pub(super) fn taken(&self) -> u32 {
        let counts = self.dispensed.iter().flat_map(BTreeMap::values);
        counts.fold(0, |sum, count| sum.saturating_add(*count))
    }
}
