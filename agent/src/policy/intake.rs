//! What came in within a day.
//!
//! Promise: no more than the configuration's limit is taken in any 24 hours. A note counts from the
//! moment it is told to stack, whatever becomes of it.

use std::collections::VecDeque;

use bitspire_shared::time::Unix;

use super::breaker::DAY_S;

/// The notes of the last day in minor units, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Intake(VecDeque<(Unix, i64)>);

impl Intake {
    /// What came in before, oldest first.
    #[must_use]
    pub fn new(before: Vec<(Unix, i64)>) -> Self {
        Self(before.into())
    }

    /// A note of `minor` units is told to stack.
    pub fn take(&mut self, minor: i64, now: Unix) {
        self.0.retain(|(at, _)| now.since(*at) < DAY_S);
        self.0.push_back((now, minor));
    }

    /// What may still come in of `most` a day, in minor units.
    #[must_use]
    pub fn left(&self, most: i64, now: Unix) -> i64 {
        let recent = self.0.iter().filter(|(at, _)| now.since(*at) < DAY_S);
        let taken = recent.fold(0i64, |sum, (_, minor)| sum.saturating_add(*minor));
        most.saturating_sub(taken).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a limit for a day that a restart, or midnight, begins anew.
    #[test]
    fn a_note_counts_for_a_whole_day() {
        let mut intake = Intake::new(vec![(Unix(100), 2_000)]);
        assert_eq!(intake.left(5_000, Unix(100)), 3_000);
        intake.take(1_000, Unix(200));
        assert_eq!(intake.left(5_000, Unix(99 + DAY_S)), 2_000);
        assert_eq!(intake.left(5_000, Unix(100 + DAY_S)), 4_000);
        assert_eq!(intake.left(500, Unix(200)), 0);
    }
}
