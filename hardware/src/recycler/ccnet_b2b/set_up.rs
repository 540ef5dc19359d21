//! Which notes each cassette keeps.
//!
//! A cassette gets another type only while it is empty: with notes in it the unit would move them
//! to the drop cassette. One that nobody configured keeps none, so that what is counted is what is
//! offered.

use super::*;
use crate::frame::ccnet::State as Common;
use crate::frame::ccnet::unit::{ESCROW_CASSETTE, UNASSIGNED};

/// How often one type is set.
const TRIES: u8 = 3;
/// How long the unit may rest after SET CASSETTE TYPE before it is looked at.
const SET_MS: u64 = 1_000;
/// How long it may take.
const SETS_MS: u64 = 60_000;

/// How far it is.
pub(super) struct Typing {
    step: Step,
    tries: u8,
}

#[derive(Clone, Copy)]
enum Step {
    /// The cassettes are looked at.
    Look,
    /// This type is to be set.
    Set { cassette: u8, kind: u8 },
    /// It was taken then; `seen`: the unit was at it.
    Watch { since: Mono, seen: bool },
}

impl Typing {
    pub(super) const fn new() -> Self {
        Self { step: Step::Look, tries: 0 }
    }

    pub(super) const fn next(&self) -> Said {
        match self.step {
            Step::Look => Said::Cassettes,
            Step::Set { cassette, kind } => Said::SetType { cassette, kind },
            Step::Watch { .. } => Said::Poll,
        }
    }

    /// SET CASSETTE TYPE was taken.
    pub(super) const fn taken(&mut self, now: Mono) {
        self.step = Step::Watch { since: now, seen: false };
    }

    /// The unit is at it; `false` if it takes too long.
    pub(super) fn on_unit(&mut self, now: Mono) -> bool {
        let Step::Watch { since, seen } = &mut self.step else { return true };
        *seen = true;
        now.since(*since) < SETS_MS
    }

    /// Another state; `false` if it is the validator's.
    pub(super) fn on_common(&mut self, state: Common, now: Mono) -> bool {
        let Step::Watch { since, seen } = self.step else { return true };
        if state != Common::Disabled || now.since(since) >= SETS_MS {
            return false;
        }
        if seen || now.since(since) >= SET_MS {
            self.step = Step::Look;
        }
        true
    }
}

/// What is to be done about the cassettes.
enum Verdict {
    /// They are as wanted.
    Fit,
    /// This one is empty and wants another type.
    Set { cassette: u8, kind: u8 },
    /// In words.
    Unfit(String),
}

impl<A: Authority> CcnetB2b<A> {
    /// The cassettes have been looked at for a set-up.
    pub(super) fn on_typed(&mut self, now: Mono) {
        let verdict = self.judge_types();
        let Work::SetUp(typing) = &mut self.work else { return };
        match verdict {
            Verdict::Set { cassette, kind } if typing.tries < TRIES.saturating_mul(CASSETTES) => {
                typing.tries = typing.tries.saturating_add(1);
                typing.step = Step::Set { cassette, kind };
            }
            Verdict::Set { cassette, .. } => {
                let why = format!("cassette {cassette} does not take its type (40)");
                self.set_up_failed(why, now);
            }
            Verdict::Unfit(why) => self.set_up_failed(why, now),
            Verdict::Fit => {
                self.set_up_wanted = false;
                let bays = self.boxes.keys().copied().collect();
                self.state.set_up(&bays);
                self.mark_bays();
                self.state.ready();
                self.end_work(now);
            }
        }
    }

    /// It is not tried again before somebody configures it, or it starts again.
    fn set_up_failed(&mut self, why: String, now: Mono) {
        self.set_up_wanted = false;
        self.state.fault(FaultKind::ServiceNeeded, why);
        self.end_work(now);
    }

    fn judge_types(&self) -> Verdict {
        for (bay, note) in &self.boxes {
            if self.validator.kind_of(*note).is_none() {
                let minor = note.minor();
                return Verdict::Unfit(format!(
                    "cassette {bay}: the unit knows no note of {minor} minor units"
                ));
            }
        }
        for (number, cassette) in self.held.iter().flatten().filter(|(_, c)| c.present) {
            let kind = self.wanted_kind(*number);
            // what lies in escrow is nobody's to move, and no bay of ours
            if cassette.kind == kind || cassette.kind == ESCROW_CASSETTE && kind == UNASSIGNED {
                continue;
            }
            if cassette.notes > 0 {
                return Verdict::Unfit(format!(
                    "cassette {number} holds {} notes of type {} and is to keep {}: configure it \
                     for the notes that it holds, and empty it, or take them out",
                    cassette.notes,
                    cassette.kind,
                    if kind == UNASSIGNED { "none".to_owned() } else { format!("type {kind}") },
                ));
            }
            return Verdict::Set { cassette: *number, kind };
        }
        Verdict::Fit
    }

    /// The type that a cassette is to have.
    fn wanted_kind(&self, cassette: u8) -> u8 {
        let note = BayId::new(cassette).and_then(|bay| self.boxes.get(&bay));
        note.and_then(|note| self.validator.kind_of(*note)).unwrap_or(UNASSIGNED)
    }

    /// How each configured bay looks.
    pub(super) fn mark_bays(&mut self) {
        let Some(held) = &self.held else { return };
        for (bay, state) in self.state.bays.iter_mut().flatten() {
            *state = match held.get(&bay.get()).filter(|cassette| cassette.present) {
                None => BayState::Missing,
                Some(Cassette { notes: 0, .. }) => BayState::Empty,
                Some(_) => BayState::Present,
            };
        }
    }
}
