//! How the notes of the simulated F53/F56 move.
//!
//! Promise: one note moves at a time, so a power cut finds the notes where they would be.

use super::super::bays::{Bays, Cassette};
use super::super::hands::Armed;
use super::control::Trap;
use crate::frame::f56::{BayCount, Counts, SLOTS, Setup, TwoDigits};

/// Codes that the driver cannot know: public lists name only the empty cassettes, so these are the
/// simulator's own.
pub(super) mod code {
    /// Cassette pulled; the high nibble of the address is the bay.
    pub(in crate::sim) const CASSETTE_MISSING: [u8; 2] = [0x5c, 0x01];
    /// A note stuck between cassette and exit.
    pub(in crate::sim) const JAM: [u8; 2] = [0x5a, 0x02];
    /// More rejects than allowed.
    pub(in crate::sim) const REJECT_LIMIT: [u8; 2] = [0x57, 0x03];
    /// Not initialised since power-up or since an error.
    pub(in crate::sim) const NOT_INITIALISED: [u8; 2] = [0x50, 0x04];
    /// A request that this unit does not know.
    pub(in crate::sim) const UNKNOWN_REQUEST: [u8; 2] = [0x51, 0x05];
}

/// How a motion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    Error { code: [u8; 2], address: [u8; 2] },
}

/// What one step of the mechanism came to.
pub(super) enum Step {
    /// The next step comes after this many milliseconds.
    More(u64),
    /// The motion is over.
    Done(Ended),
    /// The power fails in the middle of the note that has just been picked.
    PowerCut,
}

/// A dispense under way.
#[derive(Clone, Debug)]
pub(super) struct Run {
    counts: Counts,
    dispensed: [u32; SLOTS],
    rejected: [u32; SLOTS],
    failed_picks: u8,
    picked: u32,
}

impl Run {
    pub(super) const fn new(counts: Counts) -> Self {
        Self { counts, dispensed: [0; SLOTS], rejected: [0; SLOTS], failed_picks: 0, picked: 0 }
    }

    /// The counts as the reply says them.
    pub(super) fn report(&self) -> [BayCount; SLOTS] {
        let mut report = [BayCount::default(); SLOTS];
        let digits = |n: u32| TwoDigits::new(n.min(99)).unwrap_or_default();
        for ((slot, dispensed), rejected) in
            report.iter_mut().zip(self.dispensed).zip(self.rejected)
        {
            *slot = BayCount { dispensed: digits(dispensed), rejected: digits(rejected) };
        }
        report
    }
}

/// The note path.
#[derive(Debug)]
pub(super) struct Mechanism {
    pub(super) bays: Bays,
    setup: Option<Setup>,
    /// Milliseconds that one note takes.
    pub(super) note_ms: u64,
}

impl Mechanism {
    pub(super) fn new(cassettes: [Option<Cassette>; SLOTS], note_ms: u64) -> Self {
        Self { bays: Bays::new(cassettes), setup: None, note_ms }
    }

    pub(super) const fn ready(&self) -> bool {
        self.setup.is_some()
    }

    /// Forgets the set-up, as a power cut or an error does.
    pub(super) const fn unset(&mut self) {
        self.setup = None;
    }

    /// Purges the path to the reject bin and takes the set-up.
    pub(super) fn init(&mut self, setup: Setup) {
        self.bays.purge();
        self.setup = Some(setup);
    }

    /// The next note of `run`.
    pub(super) fn step(&mut self, run: &mut Run, armed: &mut Armed<Trap>) -> Step {
        let wanted = run.counts.notes.map(|n| u32::from(n.get()));
        let open = wanted.iter().zip(run.dispensed).position(|(wanted, out)| out < *wanted);
        let Some(at) = open else { return Step::Done(Ended::Well) };
        let number = u32::try_from(at).unwrap_or(0).saturating_add(1);
        let address = [0, u8::try_from(number).unwrap_or(0)];
        let failed = |code| Step::Done(Ended::Error { code, address });
        let (Some(dispensed), Some(rejected)) =
            (run.dispensed.get_mut(at), run.rejected.get_mut(at))
        else {
            return Step::Done(Ended::Well);
        };

        let next = run.picked.saturating_add(1);
        if armed.fires(Trap::Pull, number, next) {
            self.bays.pull(u8::try_from(number).unwrap_or(0));
        }
        let Some(cassette) = self.bays.cassette(at) else { return failed(code::CASSETTE_MISSING) };
        if !self.bays.pick(at) {
            run.failed_picks = run.failed_picks.saturating_add(1);
            let retries = run.counts.retries.get(at).copied().unwrap_or(0);
            if run.failed_picks <= retries {
                return Step::More(self.note_ms);
            }
            let high = u8::try_from(number).unwrap_or(0) << 4 | 1;
            return failed([high, 0x00]);
        }

        run.picked = next;
        run.failed_picks = 0;
        if armed.fires(Trap::PowerCut, number, next) {
            return Step::PowerCut;
        }
        if armed.fires(Trap::Jam, number, next) {
            return failed(code::JAM);
        }
        let setup = self.setup.as_ref().and_then(|setup| setup.slots.get(at));
        let fits = setup.is_some_and(|note| (note.max, note.min) == cassette.length);
        if !fits || armed.fires(Trap::Reject, number, next) {
            self.bays.reject(at);
            *rejected = rejected.saturating_add(1);
            let limit = run.counts.reject_limits.get(at).map_or(0, |n| u32::from(n.get()));
            if *rejected > limit {
                return failed(code::REJECT_LIMIT);
            }
        } else {
            self.bays.eject(at);
            *dispensed = dispensed.saturating_add(1);
        }
        if wanted == run.dispensed {
            return Step::Done(Ended::Well);
        }
        Step::More(self.note_ms)
    }
}
