//! The hard breaker: so many notes and sats in an hour and in a day, and no more.
//!
//! Promise: no more notes go out, and no more sats are promised for notes that come in, in any hour
//! or day than the machine's own configuration says, whoever asks for them and whatever is signed.
//! At a limit, or where a sale would go beyond one, it opens and stays open, over restarts too,
//! until an operator's verdict closes it; at most twice in a day.
//!
//! States: closed -> open -> closed (by verdict, counting from nothing).

use std::collections::VecDeque;

use bitspire_shared::ids::JournalSeq;
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Breaker as Limits;

const HOUR_S: u64 = 3_600;
/// How far back notes are counted, in seconds.
pub const DAY_S: u64 = 86_400;
/// Closings in any day.
const CLOSINGS: usize = 2;

/// What outlives the process; the notes themselves stand in the journal as intents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Whether nothing goes out.
    pub open: bool,
    /// Intents up to this entry do not count: a person has looked.
    pub since: JournalSeq,
    /// When it was closed, in the last day.
    pub closed_at: Vec<Unix>,
}

/// Why a verdict does not close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CloseError {
    /// It is closed.
    #[error("the breaker is not open")]
    NotOpen,
    /// It was closed too often.
    #[error("the breaker was closed {CLOSINGS} times within a day: somebody must go there")]
    TooOften,
}

/// What one intent lets out of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outflow {
    /// Notes that a dispenser is told to give.
    Notes(u32),
    /// What a note that is told to stack is worth at its rate.
    Sats(Sats),
}

impl Outflow {
    const fn notes(self) -> u64 {
        match self {
            Self::Notes(notes) => notes as u64,
            Self::Sats(_) => 0,
        }
    }

    const fn sats(self) -> u64 {
        match self {
            Self::Notes(_) => 0,
            Self::Sats(sats) => sats.0,
        }
    }
}

/// The breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    kept: Kept,
    given: VecDeque<(Unix, Outflow)>,
}

impl Breaker {
    /// A breaker that knows what was given before: oldest first, of intents after
    /// [`Kept::since`].
    #[must_use]
    pub fn new(limits: Limits, kept: Kept, given: Vec<(Unix, Outflow)>) -> Self {
        Self { limits, kept, given: given.into() }
    }

    /// What must be kept.
    #[must_use]
    pub const fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Whether nothing goes out.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.kept.open
    }

    /// What is left of `per_hour` and `per_day`.
    fn left(&self, now: Unix, (per_hour, per_day): (u64, u64), of: fn(Outflow) -> u64) -> u64 {
        if self.kept.open {
            return 0;
        }
        let within = |span_s| {
            let counts = self.given.iter().filter(|(at, _)| now.since(*at) < span_s);
            counts.fold(0u64, |sum, (_, outflow)| sum.saturating_add(of(*outflow)))
        };
        let hour = per_hour.saturating_sub(within(HOUR_S));
        hour.min(per_day.saturating_sub(within(DAY_S)))
    }

    /// Notes that may still go out now.
    #[must_use]
    pub fn allowance(&self, now: Unix) -> u32 {
        let Limits { notes_per_hour, notes_per_day, .. } = self.limits;
        let limits = (notes_per_hour.get().into(), notes_per_day.get().into());
        u32::try_from(self.left(now, limits, Outflow::notes)).unwrap_or(u32::MAX)
    }

    /// Sats that may still be promised for notes now.
    #[must_use]
    pub fn allowance_sats(&self, now: Unix) -> Sats {
        let Limits { sats_per_hour, sats_per_day, .. } = self.limits;
        Sats(self.left(now, (sats_per_hour.get(), sats_per_day.get()), Outflow::sats))
    }

    /// Counts what is about to go out; whether that opened it.
    pub fn give(&mut self, outflow: Outflow, now: Unix) -> bool {
        self.given.retain(|(at, _)| now.since(*at) < DAY_S);
        self.given.push_back((now, outflow));
        let nothing_left = self.allowance(now) == 0 || self.allowance_sats(now) == Sats(0);
        let reached = !self.kept.open && nothing_left;
        self.kept.open |= reached;
        reached
    }

    /// More was wanted than may go out; whether that opened it.
    pub fn trip(&mut self) -> bool {
        !std::mem::replace(&mut self.kept.open, true)
    }

    /// An operator's verdict closes it; `head` is where the journal stands.
    ///
    /// # Errors
    /// [`CloseError`]: it stays as it is.
    pub fn close(&mut self, head: JournalSeq, now: Unix) -> Result<(), CloseError> {
        if !self.kept.open {
            return Err(CloseError::NotOpen);
        }
        self.kept.closed_at.retain(|at| now.since(*at) < DAY_S);
        if self.kept.closed_at.len() >= CLOSINGS {
            return Err(CloseError::TooOften);
        }
        self.kept.closed_at.push(now);
        self.kept.open = false;
        self.kept.since = head;
        self.given.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use proptest::prelude::*;

    use super::*;

    /// The same limits for notes and for thousands of sats.
    fn breaker(hour: u32, day: u32) -> Breaker {
        let notes = |n| NonZeroU32::new(n).unwrap();
        let sats = |n| NonZeroU64::new(u64::from(n) * 1_000).unwrap();
        let limits = Limits {
            notes_per_hour: notes(hour),
            notes_per_day: notes(day),
            sats_per_hour: sats(hour),
            sats_per_day: sats(day),
        };
        Breaker::new(limits, Kept::default(), Vec::new())
    }

    const fn notes(count: u32) -> Outflow {
        Outflow::Notes(count)
    }

    /// Loss prevented: a stolen service key empties the machine in an hour.
    #[test]
    fn it_opens_at_the_limit_and_stays_open() {
        let mut breaker = breaker(10, 15);
        assert!(!breaker.give(notes(6), Unix(100)));
        assert_eq!(breaker.allowance(Unix(100)), 4);
        assert_eq!(breaker.allowance(Unix(100 + HOUR_S)), 9, "the day still counts");
        assert!(breaker.give(notes(4), Unix(200)));
        assert_eq!(breaker.allowance(Unix(200 + 2 * DAY_S)), 0, "no time closes it");
        let again = Breaker::new(breaker.limits, breaker.kept().clone(), Vec::new());
        assert!(again.is_open(), "nor does a restart");
    }

    /// Loss prevented: a validator that is fooled turns paper into sats for a whole day.
    #[test]
    fn sats_for_notes_have_their_own_limits() {
        let mut breaker = breaker(10, 15);
        let sats = |sats| Outflow::Sats(Sats(sats));
        assert!(!breaker.give(sats(9_999), Unix(0)));
        assert_eq!((breaker.allowance(Unix(0)), breaker.allowance_sats(Unix(0))), (10, Sats(1)));
        assert_eq!(breaker.allowance_sats(Unix(HOUR_S)), Sats(5_001), "the day still counts");
        assert!(breaker.give(sats(1), Unix(0)));
        assert_eq!((breaker.allowance(Unix(0)), breaker.allowance_sats(Unix(0))), (0, Sats(0)));
    }

    /// Loss prevented: a stolen operator key that closes the breaker again and again.
    #[test]
    fn verdicts_close_it_twice_a_day() {
        let mut breaker = breaker(10, 100);
        assert_eq!(breaker.close(JournalSeq(1), Unix(1)), Err(CloseError::NotOpen));
        for n in 0..2 {
            assert!(breaker.trip());
            assert_eq!(breaker.close(JournalSeq(n), Unix(n)), Ok(()));
            assert_eq!(breaker.allowance(Unix(n)), 10);
        }
        breaker.trip();
        assert_eq!(breaker.close(JournalSeq(9), Unix(DAY_S - 1)), Err(CloseError::TooOften));
        assert!(breaker.is_open());
        assert_eq!(breaker.close(JournalSeq(9), Unix(DAY_S + 1)), Ok(()));
    }

    proptest! {
        /// Loss prevented: a window in which more goes out than the configuration says.
        #[test]
        fn no_window_gives_more_than_its_limit(
            asks in prop::collection::vec((0u64..4_000, 1u32..20, any::<bool>()), 0..60),
        ) {
            let mut breaker = breaker(40, 100);
            let (mut now, mut all) = (0u64, Vec::<(u64, Outflow)>::new());
            for (step, count, cash_out) in asks {
                now += step;
                let allowed = match cash_out {
                    true => count <= breaker.allowance(Unix(now)),
                    false => Sats(u64::from(count) * 1_000) <= breaker.allowance_sats(Unix(now)),
                };
                if allowed {
                    let sats = Outflow::Sats(Sats(u64::from(count) * 1_000));
                    let outflow = if cash_out { Outflow::Notes(count) } else { sats };
                    breaker.give(outflow, Unix(now));
                    all.push((now, outflow));
                }
            }
            for (span, most) in [(HOUR_S, 40), (DAY_S, 100)] {
                for (from, _) in &all {
                    let within = || all.iter().filter(|(at, _)| *at >= *from && *at < from + span);
                    let notes: u64 = within().map(|(_, outflow)| outflow.notes()).sum();
                    let sats: u64 = within().map(|(_, outflow)| outflow.sats()).sum();
                    prop_assert!(notes <= most, "{notes} notes within {span} s");
                    prop_assert!(sats <= most * 1_000, "{sats} sats within {span} s");
                }
            }
        }
    }
}
