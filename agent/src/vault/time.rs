//! What time it is, by what the pinned service has signed.
//!
//! Promise: trusted time comes from signed events alone and never goes back, not over a restart
//! either; relays and the operating system do not move it. One event far ahead moves it only once
//! most of the last ones agree, so that one slip of the service's clock expires nothing.
//!
//! Whoever delays events makes time stand behind, never ahead: an event's `created_at` is not later
//! than its sender's clock was.

use std::collections::VecDeque;

use bitspire_shared::ids::EventId;
use bitspire_shared::time::{Mono, Unix};

/// Events that are looked at together.
const WINDOW: usize = 7;
/// A step that one event alone may make, in seconds.
const STEP_S: u64 = 300;

/// How far the system's clock may be off before the machine sells nothing, in seconds.
const WRONG_S: u64 = 600;

/// Trusted time.
#[derive(Clone, Debug)]
pub(super) struct TrustedTime {
    /// What was known at a moment: before anything was heard, the last time in the journal.
    base: (Unix, Mono),
    known: bool,
    heard: VecDeque<(EventId, Unix, Mono)>,
}

impl TrustedTime {
    /// Time that is not before `floor`, which the journal has.
    pub(super) const fn new(floor: Unix, now: Mono) -> Self {
        Self { base: (floor, now), known: false, heard: VecDeque::new() }
    }

    /// The best that is known; for the record.
    pub(super) fn now(&self, now: Mono) -> Unix {
        let (unix, at) = self.base;
        unix.after(now.since(at) / 1_000)
    }

    /// The time, once this run has heard it.
    pub(super) fn known(&self, now: Mono) -> Option<Unix> {
        self.known.then(|| self.now(now))
    }

    /// What is wrong with the system's clock, which says `wall`, in words. Nothing of ours depends on
    /// it but the way to the relays, which refuse whoever lives in another time; and a machine that
    /// does not know the day should not trade.
    pub(super) fn wrong(&self, wall: Unix, now: Mono) -> Option<String> {
        let own = self.now(now);
        let behind = own.since(wall);
        // without the service's word it can be known to be behind: the past has been written down
        let ahead = if self.known { wall.since(own) } else { 0 };
        match (behind > WRONG_S, ahead > WRONG_S) {
            (true, _) => Some(format!("it is {behind} s behind what the service has said")),
            (_, true) => Some(format!("it is {ahead} s ahead of what the service says")),
            _ => None,
        }
    }

    /// An event that the service signed at `created_at` came.
    pub(super) fn hear(&mut self, id: EventId, created_at: Unix, now: Mono) {
        if self.heard.iter().any(|(known, _, _)| *known == id) {
            return;
        }
        if self.heard.len() >= WINDOW {
            self.heard.pop_front();
        }
        self.heard.push_back((id, created_at, now));
        let own = self.now(now);
        let small = self.known && created_at.since(own) <= STEP_S;
        let new = if small { created_at } else { self.median(now) };
        self.known = true;
        if new > own {
            self.base = (new, now);
        }
    }

    /// The lower median of what the last events say about now.
    fn median(&self, now: Mono) -> Unix {
        let says = |(_, at, heard): &(EventId, Unix, Mono)| at.after(now.since(*heard) / 1_000);
        let mut all: Vec<Unix> = self.heard.iter().map(says).collect();
        all.sort_unstable();
        all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(self.base.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> EventId {
        EventId::from_bytes([n; 32])
    }

    /// Loss prevented: an expired statement that counts again after a restart.
    #[test]
    fn time_never_goes_back_and_runs_with_the_monotonic_clock() {
        let mut time = TrustedTime::new(Unix(1_000), Mono(0));
        assert_eq!((time.known(Mono(0)), time.now(Mono(5_000))), (None, Unix(1_005)));
        time.hear(id(1), Unix(5_000), Mono(5_000));
        assert_eq!(time.known(Mono(7_000)), Some(Unix(5_002)));
        time.hear(id(2), Unix(900), Mono(7_000));
        time.hear(id(3), Unix(900), Mono(8_000));
        assert_eq!(time.known(Mono(9_000)), Some(Unix(5_004)));
        time.hear(id(4), Unix(5_030), Mono(9_000));
        assert_eq!(time.now(Mono(9_000)), Unix(5_030), "small steps forward at once");
    }

    /// Loss prevented: a machine that lives in another year, and whose relays refuse it, looks as if
    /// only the network were down.
    #[test]
    fn a_wrong_system_clock_is_told_as_soon_as_it_can_be_known() {
        let year = 365 * 86_400;
        let now = Unix(1_800_000_000);
        let mut time = TrustedTime::new(now, Mono(0));
        assert_eq!(time.wrong(now, Mono(0)), None);
        assert!(time.wrong(Unix(now.0 - year), Mono(0)).unwrap().contains("behind"));
        assert_eq!(time.wrong(Unix(now.0 + year), Mono(0)), None, "it may have been off that long");
        time.hear(id(1), Unix(now.0 + year), Mono(0));
        assert!(time.wrong(now, Mono(0)).unwrap().contains("31536000 s behind"));
        assert_eq!(time.wrong(Unix(now.0 + year + WRONG_S), Mono(0)), None);
        assert!(time.wrong(Unix(now.0 + 2 * year), Mono(0)).unwrap().contains("ahead"));
    }

    /// Loss prevented: one slip of the service's clock makes every later document stale.
    #[test]
    fn one_event_far_ahead_moves_nothing_until_most_agree() {
        let mut time = TrustedTime::new(Unix(0), Mono(0));
        for n in 0..3 {
            time.hear(id(n), Unix(1_000), Mono(0));
        }
        time.hear(id(10), Unix(900_000), Mono(0));
        time.hear(id(10), Unix(900_000), Mono(0));
        time.hear(id(10), Unix(900_000), Mono(0));
        time.hear(id(10), Unix(900_000), Mono(0));
        assert_eq!(time.now(Mono(0)), Unix(1_000), "the same event again says nothing new");
        for n in 11..14 {
            time.hear(id(n), Unix(900_000), Mono(0));
        }
        assert_eq!(time.now(Mono(0)), Unix(900_000));
    }
}
