//! Cassettes, path, exit and reject bin of a simulated dispenser.
//!
//! Promise: no note is made or lost: for each bay, what was loaded is at every moment in the
//! cassette, in the path, at the exit, taken, in the reject bin or collected from it.

use serde_json::{Value, json};

/// Most cassettes of a simulated dispenser.
pub(super) const SLOTS: usize = 4;

/// What lies in a cassette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cassette {
    /// Face value in whole units, for people and for adding up; the device does not know it.
    pub denomination: u32,
    /// Longest and shortest length that fits these notes, in mm; another set-up rejects them all.
    pub length: (u8, u8),
    /// Notes.
    pub notes: u32,
}

impl Cassette {
    /// 100 notes of USD 20 in bay 1, 100 of USD 50 in bay 2.
    pub(super) const fn usual() -> [Option<Self>; SLOTS] {
        let (length, notes) = ((0xa6, 0x92), 100);
        let twenties = Self { denomination: 20, length, notes };
        [Some(twenties), Some(Self { denomination: 50, ..twenties }), None, None]
    }
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

/// The bays of a device; `at` is a bay's number less one.
#[derive(Clone, Debug)]
pub(super) struct Bays([Bay; SLOTS]);

impl Bays {
    pub(super) fn new(cassettes: [Option<Cassette>; SLOTS]) -> Self {
        Self(cassettes.map(|cassette| Bay {
            cassette,
            loaded: cassette.map_or(0, |c| c.notes),
            ..Bay::default()
        }))
    }

    /// Which bays have a cassette.
    pub(super) fn present(&self) -> [bool; SLOTS] {
        self.0.map(|bay| bay.cassette.is_some())
    }

    /// The cassette of a bay.
    pub(super) fn cassette(&self, at: usize) -> Option<Cassette> {
        self.0.get(at).and_then(|bay| bay.cassette)
    }

    pub(super) fn notes_at_exit(&self) -> bool {
        self.0.iter().any(|bay| bay.exit > 0)
    }

    /// Notes in the path, a bay each.
    pub(super) fn in_path(&self) -> [u32; SLOTS] {
        self.0.map(|bay| bay.path)
    }

    // ---- what the device does ----

    /// A note out of the cassette into the path; `false` where there is none.
    pub(super) fn pick(&mut self, at: usize) -> bool {
        let Some(bay) = self.0.get_mut(at) else { return false };
        let Some(cassette) = bay.cassette.as_mut().filter(|c| c.notes > 0) else { return false };
        cassette.notes = cassette.notes.saturating_sub(1);
        bay.path = bay.path.saturating_add(1);
        true
    }

    /// A note of the bay out of the path to the exit.
    pub(super) fn eject(&mut self, at: usize) {
        if let Some(bay) = self.0.get_mut(at).filter(|bay| bay.path > 0) {
            bay.path = bay.path.saturating_sub(1);
            bay.exit = bay.exit.saturating_add(1);
        }
    }

    /// A note of the bay out of the path into the reject bin.
    pub(super) fn reject(&mut self, at: usize) {
        if let Some(bay) = self.0.get_mut(at).filter(|bay| bay.path > 0) {
            bay.path = bay.path.saturating_sub(1);
            bay.rejected = bay.rejected.saturating_add(1);
        }
    }

    /// Everything in the path into the reject bin.
    pub(super) fn purge(&mut self) {
        for bay in &mut self.0 {
            bay.rejected = bay.rejected.saturating_add(std::mem::take(&mut bay.path));
        }
    }

    // ---- hands ----

    /// The customer takes what lies at the exit; how many notes that was.
    pub(super) fn take(&mut self) -> u32 {
        let mut all = 0u32;
        for bay in &mut self.0 {
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
        let Some(bay) = self.bay(bay) else { return false };
        let Some(cassette) = bay.cassette.take() else { return false };
        bay.pulled = Some(cassette);
        true
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
        for bay in &mut self.0 {
            let notes = std::mem::take(&mut bay.rejected);
            bay.collected = bay.collected.saturating_add(notes);
            all = all.saturating_add(notes);
        }
        all
    }

    fn bay(&mut self, number: u8) -> Option<&mut Bay> {
        self.0.get_mut(usize::from(number).checked_sub(1)?)
    }

    /// Where every note is: `bays` and `notes_at_exit`.
    pub(super) fn counters(&self) -> Value {
        let bays =
            self.0.iter().zip(1u32..).filter(|(bay, _)| {
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
        json!({ "bays": bays, "notes_at_exit": self.notes_at_exit() })
    }
}
