//! The hard breaker: so many notes in an hour and in a day, and no more.
//!
//! Promise: no more notes go out in any hour or day than the machine's own configuration says,
//! whoever asks for them and whatever is signed. At a limit, or where a sale would go beyond one, it
//! opens and stays open, over restarts too, until an operator's verdict closes it; at most twice in
//! a day.
//!
//! States: closed -> open -> closed (by verdict, counting from nothing).

use std::collections::VecDeque;

use bitspire_shared::ids::JournalSeq;
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

/// The breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    kept: Kept,
    given: VecDeque<(Unix, u32)>,
}

impl Breaker {
    /// A breaker that knows what was given before: times and notes, oldest first, of intents after
    /// [`Kept::since`].
    #[must_use]
    pub fn new(limits: Limits, kept: Kept, given: Vec<(Unix, u32)>) -> Self {
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

    fn within(&self, now: Unix, span_s: u64) -> u32 {
        let counts = self.given.iter().filter(|(at, _)| now.since(*at) < span_s);
        counts.fold(0u32, |sum, (_, notes)| sum.saturating_add(*notes))
    }

    /// Notes that may still go out now.
    #[must_use]
    pub fn allowance(&self, now: Unix) -> u32 {
        if self.kept.open {
            return 0;
        }
        let hour = self.limits.notes_per_hour.get().saturating_sub(self.within(now, HOUR_S));
        let day = self.limits.notes_per_day.get().saturating_sub(self.within(now, DAY_S));
        hour.min(day)
    }

    /// Counts `notes` that are about to go out; whether that opened it.
    pub fn give(&mut self, notes: u32, now: Unix) -> bool {
        self.given.retain(|(at, _)| now.since(*at) < DAY_S);
        self.given.push_back((now, notes));
        let reached = !self.kept.open && self.allowance(now) == 0;
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
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn breaker(hour: u32, day: u32) -> Breaker {
        let limit = |n| NonZeroU32::new(n).unwrap();
        let limits = Limits { notes_per_hour: limit(hour), notes_per_day: limit(day) };
        Breaker::new(limits, Kept::default(), Vec::new())
    }

    /// Loss prevented: a stolen service key empties the machine in an hour.
    #[test]
    fn it_opens_at_the_limit_and_stays_open() {
        let mut breaker = breaker(10, 15);
        assert!(!breaker.give(6, Unix(100)));
        assert_eq!(breaker.allowance(Unix(100)), 4);
        assert_eq!(breaker.allowance(Unix(100 + HOUR_S)), 9, "the day still counts");
        assert!(breaker.give(4, Unix(200)));
        assert_eq!(breaker.allowance(Unix(200 + 2 * DAY_S)), 0, "no time closes it");
        let again = Breaker::new(breaker.limits, breaker.kept().clone(), Vec::new());
        assert!(again.is_open(), "nor does a restart");
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
            asks in prop::collection::vec((0u64..4_000, 1u32..20), 0..60),
        ) {
            let mut breaker = breaker(40, 100);
            let (mut now, mut all) = (0u64, Vec::<(u64, u32)>::new());
            for (step, notes) in asks {
                now += step;
                if notes <= breaker.allowance(Unix(now)) {
                    breaker.give(notes, Unix(now));
                    all.push((now, notes));
                }
            }
            for (span, most) in [(HOUR_S, 40), (DAY_S, 100)] {
                for (from, _) in &all {
                    let sum: u32 =
                        all.iter().filter(|(at, _)| *at >= *from && *at < from + span).map(|(_, n)| n).sum();
                    prop_assert!(sum <= most, "{sum} within {span} s");
                }
            }
        }
    }
}
