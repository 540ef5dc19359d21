//! Where the notes of the simulated F53/F56 are, and how they move.
//!
//! Promise: no note is made or lost: for each bay, what was loaded is at every moment in the
//! cassette, in the path, at the exit, taken, in the reject bin or collected from it. One note moves
//! at a time, so a power cut finds the notes where they would be.

use serde_json::{Value, json};

use super::control::{Armed, Trap};
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

/// What lies in a cassette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cassette {
    /// Face value in whole units, for people and for adding up; the device does not know it.
    pub denomination: u32,
    /// Longest and shortest length that fits these notes; another set-up rejects them all.
    pub length: (u8, u8),
    /// Notes.
    pub notes: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bay {
    cassette: Option<Cassette>,
    /// The cassette that was pulled, with its notes.
    pulled: Option<Cassette>,
    loaded: u32,
    path: u32,
    exit: u32,
    taken: u32,
    rejected: u32,
    collected: u32,
}

impl Bay {
    /// Whether there was a cassette to pull.
    const fn pull(&mut self) -> bool {
        let Some(cassette) = self.cassette.take() else { return false };
        self.pulled = Some(cassette);
        true
    }
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
    bays: [Bay; SLOTS],
    setup: Option<Setup>,
    /// Milliseconds that one note takes.
    pub(super) note_ms: u64,
}

impl Mechanism {
    pub(super) fn new(cassettes: [Option<Cassette>; SLOTS], note_ms: u64) -> Self {
        let bays = cassettes.map(|cassette| Bay {
            cassette,
            loaded: cassette.map_or(0, |c| c.notes),
            ..Bay::default()
        });
        Self { bays, setup: None, note_ms }
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
        for bay in &mut self.bays {
            bay.rejected = bay.rejected.saturating_add(std::mem::take(&mut bay.path));
        }
        self.setup = Some(setup);
    }

    pub(super) fn notes_at_exit(&self) -> bool {
        self.bays.iter().any(|bay| bay.exit > 0)
    }

    pub(super) fn cassettes(&self) -> [bool; SLOTS] {
        self.bays.map(|bay| bay.cassette.is_some())
    }

    /// The next note of `run`.
    pub(super) fn step(&mut self, run: &mut Run, armed: &mut Armed) -> Step {
        let wanted = run.counts.notes.map(|n| u32::from(n.get()));
        let open = wanted.iter().zip(run.dispensed).position(|(wanted, out)| out < *wanted);
        let Some(at) = open else { return Step::Done(Ended::Well) };
        let number = u32::try_from(at).unwrap_or(0).saturating_add(1);
        let address = [0, u8::try_from(number).unwrap_or(0)];
        let failed = |code| Step::Done(Ended::Error { code, address });
        let (Some(bay), Some(dispensed), Some(rejected)) =
            (self.bays.get_mut(at), run.dispensed.get_mut(at), run.rejected.get_mut(at))
        else {
            return Step::Done(Ended::Well);
        };

        let next = run.picked.saturating_add(1);
        if armed.fires(Trap::Pull, number, next) {
            bay.pull();
        }
        let Some(cassette) = &mut bay.cassette else { return failed(code::CASSETTE_MISSING) };
        if cassette.notes == 0 {
            run.failed_picks = run.failed_picks.saturating_add(1);
            let retries = run.counts.retries.get(at).copied().unwrap_or(0);
            if run.failed_picks <= retries {
                return Step::More(self.note_ms);
            }
            let high = u8::try_from(number).unwrap_or(0) << 4 | 1;
            return failed([high, 0x00]);
        }

        cassette.notes = cassette.notes.saturating_sub(1);
        bay.path = bay.path.saturating_add(1);
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
        bay.path = bay.path.saturating_sub(1);
        if !fits || armed.fires(Trap::Reject, number, next) {
            bay.rejected = bay.rejected.saturating_add(1);
            *rejected = rejected.saturating_add(1);
            let limit = run.counts.reject_limits.get(at).map_or(0, |n| u32::from(n.get()));
            if *rejected > limit {
                return failed(code::REJECT_LIMIT);
            }
        } else {
            bay.exit = bay.exit.saturating_add(1);
            *dispensed = dispensed.saturating_add(1);
        }
        if wanted == run.dispensed {
            return Step::Done(Ended::Well);
        }
        Step::More(self.note_ms)
    }

    // ---- hands ----

    /// The customer takes what lies at the exit; how many notes that was.
    pub(super) fn take(&mut self) -> u32 {
        let mut all = 0u32;
        for bay in &mut self.bays {
            let notes = std::mem::take(&mut bay.exit);
            bay.taken = bay.taken.saturating_add(notes);
            all = all.saturating_add(notes);
        }
        all
    }

    /// Notes into the cassette of `bay`; `false` where there is no such bay or no cassette.
    pub(super) fn refill(&mut self, bay: u8, notes: u32) -> bool {
        let Some(bay) = self.bay(bay) else { return false };
        let Some(cassette) = &mut bay.cassette else { return false };
        let Some(sum) = cassette.notes.checked_add(notes) else { return false };
        cassette.notes = sum;
        bay.loaded = bay.loaded.saturating_add(notes);
        true
    }

    /// Takes the cassette of `bay` out; `false` where there is none.
    pub(super) fn pull(&mut self, bay: u8) -> bool {
        self.bay(bay).is_some_and(Bay::pull)
    }

    /// Puts the pulled cassette of `bay` back; `false` where none was pulled.
    pub(super) fn insert(&mut self, bay: u8) -> bool {
        let Some(bay) = self.bay(bay) else { return false };
        if bay.pulled.is_none() {
            return false;
        }
        bay.cassette = bay.pulled.take();
        true
    }

    /// Empties the reject bin; how many notes that was.
    pub(super) fn collect_rejects(&mut self) -> u32 {
        let mut all = 0u32;
        for bay in &mut self.bays {
            let notes = std::mem::take(&mut bay.rejected);
            bay.collected = bay.collected.saturating_add(notes);
            all = all.saturating_add(notes);
        }
        all
    }

    fn bay(&mut self, number: u8) -> Option<&mut Bay> {
        self.bays.get_mut(usize::from(number).checked_sub(1)?)
    }

    pub(super) fn counters(&self) -> Value {
        let bays =
            self.bays.iter().zip(1u32..).filter(|(bay, _)| {
                bay.loaded > 0 || bay.cassette.is_some() || bay.pulled.is_some()
            });
        let bays: Vec<_> = bays
            .map(|(bay, number)| {
                let held = bay.cassette.or(bay.pulled);
                json!({
                    "bay": number,
                    "denomination": held.map(|c| c.denomination),
                    "present": bay.cassette.is_some(),
                    "loaded": bay.loaded,
                    "cassette": held.map_or(0, |c| c.notes),
                    "path": bay.path,
                    "exit": bay.exit,
                    "taken": bay.taken,
                    "rejected": bay.rejected,
                    "collected": bay.collected,
                })
            })
            .collect();
        json!({ "bays": bays, "ready": self.ready(), "notes_at_exit": self.notes_at_exit() })
    }
}
