//! How long to rest before something that failed is tried again.
//!
//! Promise: the time doubles from [`FIRST`] to [`LONGEST`], and chance spreads it over most of
//! itself: ten thousand machines that lose one relay do not come back in one second. What held for
//! [`STABLE`] begins from the first rest again; what breaks at once does not.

use std::time::Duration;

/// The longest that the first rest takes.
pub(super) const FIRST: Duration = Duration::from_secs(2);
/// The longest rest of all.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lived so long was a good one: longer than a relay takes to turn somebody away,
/// shorter than a service takes that is started again a few times.
pub(super) const STABLE: Duration = Duration::from_secs(5);

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It failed, or broke after it had held for `lived`. How long to rest now; `chance` is a
    /// random number.
    pub(super) fn failed(&mut self, lived: Duration, chance: u16) -> Duration {
        if lived >= STABLE {
            self.failures = 0;
        }
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let whole = FIRST.saturating_mul(doubled).min(LONGEST);
        let least = whole / 8;
        least.saturating_add(whole.saturating_sub(least) * u32::from(chance) / u32::from(u16::MAX))
    }

    /// Failures since it last held.
    pub(super) const fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Loss prevented: a relay that starts again and is pushed over at once by all its machines; a
    /// machine that waits for minutes after a bad night.
    #[test]
    fn rests_double_up_to_half_a_minute_and_begin_again() {
        let mut backoff = Backoff::default();
        let mut rest = |lived: u64, chance| backoff.failed(Duration::from_secs(lived), chance);
        let longest: Vec<_> = (0..6).map(|_| rest(0, u16::MAX).as_secs()).collect();
        assert_eq!(longest, [2, 4, 8, 16, 30, 30]);
        assert_eq!(rest(4, u16::MAX), LONGEST, "it broke before it had proved itself");
        assert_eq!(rest(5, u16::MAX), FIRST);
        assert_eq!(rest(0, 0), Duration::from_millis(500), "an eighth of 4 s at least");
    }

    proptest! {
        /// Loss prevented: a loop without rest, or one that rests for ever.
        #[test]
        fn a_rest_is_bounded(failures in 0u32..1_000, chance: u16) {
            let rest = Backoff { failures }.failed(Duration::ZERO, chance);
            prop_assert!(rest >= FIRST / 8 && rest <= LONGEST);
        }

        /// Loss prevented: jitter that does not spread.
        #[test]
        fn more_chance_is_more_rest(failures in 0u32..9, one: u16, other: u16) {
            let rest = |chance| Backoff { failures }.failed(Duration::ZERO, chance);
            prop_assert_eq!(rest(one) <= rest(other), one <= other || rest(one) == rest(other));
        }
    }
}
