//! How the notes of a simulated LCDM move.
//!
//! Promise: one note moves at a time, so a power cut finds the notes where they would be.

use super::super::bays::{Bays, Cassette, SLOTS};
use super::super::hands::Armed;
use super::Model;
use super::control::Trap;
use crate::frame::puloon::lcdm4000::length_units;
use crate::frame::puloon::{ErrorCode, lcdm1000, lcdm4000};

/// Tries to pick a note from a cassette.
const PICKS: u8 = 4;
/// Rejects in one command.
const REJECTS: u32 = 10;
/// Notes in one command, rejected ones among them.
const NOTES: u32 = 100;

/// Why a motion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// Cassette missing, by place from 0.
    Missing(usize),
    /// No note could be picked, likewise.
    Pick(usize),
    Jam,
    Rejects,
    TooMany,
    Miscount,
    /// Notes in the path or at the exit sensor before the start.
    NotClear,
    Parameter,
    UnknownCommand,
}

impl Trouble {
    pub(super) fn code(self, model: Model) -> ErrorCode {
        let upper = |at: usize, upper: u8, lower: u8| if at == 0 { upper } else { lower };
        let (big, small) = match self {
            Self::None => (0x00, 0x30),
            Self::Missing(at) => (0x24, upper(at, 0x45, 0x46)),
            Self::Pick(at) => {
                let big = match at {
                    0 => 0x50,
                    1 => 0x51,
                    2 => 0x52,
                    _ => 0x53,
                };
                (big, upper(at, 0x38, 0x40))
            }
            Self::Jam => (0x03, 0x36),
            Self::Rejects => (0x0d, 0x44),
            Self::TooMany => (0x0c, 0x34),
            Self::Miscount => (0x07, 0x3d),
            Self::NotClear => (0x0b, 0x35),
            Self::Parameter => (0x31, 0x3b),
            Self::UnknownCommand => (0x30, 0x37),
        };
        match model {
            Model::Lcdm4000 => lcdm4000::error(big),
            Model::Lcdm2000 | Model::Lcdm1000 => lcdm1000::error(small),
        }
    }
}

/// What one step of the mechanism came to.
pub(super) enum Step {
    /// The next step comes after this many milliseconds; whether something was rejected.
    More { ms: u64, rejected: bool },
    /// The motion is over.
    Done(Trouble),
    /// The power fails in the middle of the note that has just been picked.
    PowerCut,
}

/// A dispense under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) wanted: [u32; SLOTS],
    /// Whether the notes go to the reject tray.
    pub(super) test: bool,
    pub(super) checked: [u32; SLOTS],
    pub(super) exit: [u32; SLOTS],
    pub(super) rejected: [u32; SLOTS],
    failed_picks: u8,
    picked: u32,
}

impl Run {
    pub(super) fn new(wanted: [u8; SLOTS], test: bool) -> Self {
        Self { wanted: wanted.map(u32::from), test, ..Self::default() }
    }
}

/// The note path.
#[derive(Debug)]
pub(super) struct Mechanism {
    pub(super) bays: Bays,
    /// The lengths that notes are measured against, where the model knows lengths.
    pub(super) lengths: Option<[u8; SLOTS]>,
    /// Milliseconds that one note takes.
    pub(super) note_ms: u64,
    /// Notes fall into a tray, so that the exit sensor does not see them.
    pub(super) tray: bool,
}

fn units(cassette: Cassette) -> u8 {
    let (max, min) = cassette.length;
    length_units(max.midpoint(min))
}

impl Mechanism {
    pub(super) fn new(model: Model, cassettes: [Option<Cassette>; SLOTS], note_ms: u64) -> Self {
        // as it was calibrated when it was fitted
        let lengths =
            matches!(model, Model::Lcdm4000).then(|| cassettes.map(|c| c.map_or(0, units)));
        Self { bays: Bays::new(cassettes), lengths, note_ms, tray: false }
    }

    /// Whether the exit sensor sees notes.
    pub(super) fn at_exit(&self) -> bool {
        !self.tray && self.bays.notes_at_exit()
    }

    /// Why this command cannot be begun.
    pub(super) fn refusal(&self, model: Model, run: &Run) -> Trouble {
        let most = match model {
            Model::Lcdm4000 => NOTES,
            Model::Lcdm2000 | Model::Lcdm1000 => 60,
        };
        let all: u32 = run.wanted.iter().sum();
        if all == 0 || run.wanted.iter().any(|notes| *notes > most) {
            return Trouble::Parameter;
        }
        let mut asked = run.wanted.iter().zip(self.bays.present());
        if let Some(at) = asked.position(|(notes, present)| *notes > 0 && !present) {
            return Trouble::Missing(at);
        }
        if self.at_exit() || self.bays.in_path() != [0; SLOTS] {
            return Trouble::NotClear;
        }
        Trouble::None
    }

    /// The next note of `run`.
    pub(super) fn step(&mut self, run: &mut Run, armed: &mut Armed<Trap>) -> Step {
        let out = if run.test { run.rejected } else { run.exit };
        let Some(at) = run.wanted.iter().zip(out).position(|(wanted, out)| out < *wanted) else {
            return Step::Done(Trouble::None);
        };
        let number = u8::try_from(at).unwrap_or(0).saturating_add(1);
        let bay = u32::from(number);
        let (Some(checked), Some(exit), Some(rejected)) =
            (run.checked.get_mut(at), run.exit.get_mut(at), run.rejected.get_mut(at))
        else {
            return Step::Done(Trouble::None);
        };

        let next = run.picked.saturating_add(1);
        if next > NOTES {
            return Step::Done(Trouble::TooMany);
        }
        if armed.fires(Trap::Pull, bay, next) {
            self.bays.pull(number);
        }
        let cassette = self.bays.cassette(at);
        if !self.bays.pick(at) {
            run.failed_picks = run.failed_picks.saturating_add(1);
            if run.failed_picks < PICKS {
                return Step::More { ms: self.note_ms, rejected: false };
            }
            return Step::Done(Trouble::Pick(at));
        }
        run.picked = next;
        run.failed_picks = 0;
        if armed.fires(Trap::PowerCut, bay, next) {
            return Step::PowerCut;
        }
        *checked = checked.saturating_add(1);
        if armed.fires(Trap::Jam, bay, next) {
            return Step::Done(Trouble::Jam);
        }
        if armed.fires(Trap::Miscount, bay, next) {
            self.bays.eject(at);
            return Step::Done(Trouble::Miscount);
        }
        let double = armed.fires(Trap::Double, bay, next) && self.bays.pick(at);
        let length = self.lengths.and_then(|lengths| lengths.get(at).copied());
        let fits = length.is_none_or(|length| cassette.is_some_and(|c| units(c) == length));
        let bad = double || !fits || armed.fires(Trap::Reject, bay, next);
        if bad || run.test {
            self.bays.reject(at);
            if double {
                self.bays.reject(at);
            }
            *rejected = rejected.saturating_add(1);
            if !run.test && run.rejected.iter().sum::<u32>() > REJECTS {
                return Step::Done(Trouble::Rejects);
            }
        } else {
            self.bays.eject(at);
            *exit = exit.saturating_add(1);
        }
        if run.wanted == if run.test { run.rejected } else { run.exit } {
            return Step::Done(Trouble::None);
        }
        Step::More { ms: self.note_ms, rejected: bad }
    }
}
