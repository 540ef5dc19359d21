//! What one relay may bring to the check of a signature.
//!
//! Promise: each rostered key has a share of its own, which a machine that behaves never meets; what
//! a key brings beyond it comes out of a rest that all keys of the relay use together. So whoever
//! forges events under other keys through a relay, however many, takes nothing from a machine on that
//! relay; whoever forges a machine's own key takes that key's share there, and nowhere else. Checked
//! are at most `keys * share + rest`. What turns out to be forged counts more against the one of both
//! that paid: twice against a share, so that a machine is heard beside forged copies of its requests as
//! long as twice these and they together keep to its rate; tenfold against the rest, which only those
//! need who are beyond their share.
//!
//! Failure policy: a refusal says when the next one would pass.

use std::num::NonZeroUsize;

use crate::rate::{Keyed, Limiter, Quota, RateLimited};
use crate::time::Mono;

/// How many more each forged event counts as, against a share and against the rest.
const FORGED_OF_SHARE: u32 = 1;
const FORGED_OF_REST: u32 = 9;

/// The budget of one relay.
#[derive(Clone, Debug)]
pub struct RelayBudget {
    shares: Option<Keyed<[u8; 32]>>,
    rest: Limiter,
    /// Whether the rest paid for the last event.
    from_rest: bool,
}

impl RelayBudget {
    /// A full budget: `share` for each of at most `keys` authors at a time, `rest` for all together.
    #[must_use]
    pub const fn new(share: Quota, keys: NonZeroUsize, rest: Quota) -> Self {
        Self { shares: Some(Keyed::new(share, keys)), rest: Limiter::new(rest), from_rest: false }
    }

    /// A full budget of `rest` for authors whom nobody knows: a share for each would have no bound.
    #[must_use]
    pub const fn of_strangers(rest: Quota) -> Self {
        Self { shares: None, rest: Limiter::new(rest), from_rest: false }
    }

    /// Takes one event that says it is by `author`.
    ///
    /// # Errors
    /// [`RateLimited`], where share and rest are used up.
    pub fn take(&mut self, author: &[u8; 32], now: Mono) -> Result<(), RateLimited> {
        let shared = self.shares.as_mut().map(|shares| shares.take(author, now));
        self.from_rest = !matches!(shared, Some(Ok(())));
        if self.from_rest { self.rest.take(now) } else { Ok(()) }
    }

    /// The event that was taken last was not signed by `author`. Strangers have no shares, and nobody is
    /// to empty what they all have together by a few forgeries.
    pub fn forged(&mut self, author: &[u8; 32], now: Mono) {
        match &mut self.shares {
            Some(_) if self.from_rest => self.rest.charge(FORGED_OF_REST, now),
            Some(shares) => shares.charge(author, FORGED_OF_SHARE, now),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Loss prevented: a machine that nobody hears, because somebody forges events of the others
    /// through its relay; or signatures checked for a forger without end.
    #[test]
    fn who_forges_other_keys_takes_nothing_from_a_machine() {
        let a_minute = |rate, burst| {
            let n = |n| NonZeroU32::new(n).unwrap();
            Quota::per_minute(n(rate), n(burst))
        };
        let room = NonZeroUsize::new(64).unwrap();
        let mut budget = RelayBudget::new(a_minute(60, 2), room, a_minute(600, 10));
        let mut charged = budget.clone();
        let flood = |budget: &mut RelayBudget, found_out: bool| {
            let mut checked = 0;
            for second in 0..60u64 {
                let now = Mono(second * 1_000);
                for n in 0..330u32 {
                    let forged = [u8::try_from(n % 33).unwrap() + 1; 32];
                    if budget.take(&forged, now).is_ok() {
                        checked += 1;
                        if found_out {
                            budget.forged(&forged, now);
                        }
                    }
                }
                assert_eq!(budget.take(&[0; 32], now), Ok(()), "the machine, at second {second}");
            }
            checked
        };
        // 33 forged keys: their shares and the rest, each with its burst
        assert_eq!(flood(&mut budget, false), 33 * (2 + 59) + (10 + 590));
        // a share's burst of 2 is one forgery and its surcharge, then one each two seconds
        let checked = flood(&mut charged, true);
        assert!((33 * 30..33 * 31 + 100).contains(&checked), "{checked}");
        // whatever was charged, it is over soon
        let after = Mono(62_000);
        for key in 0..33 {
            assert_eq!(charged.take(&[key; 32], after), Ok(()));
            assert!(!charged.from_rest, "{key}");
        }
        assert_eq!(charged.rest.take(after), Ok(()));
    }

    /// Loss prevented: a machine whose requests nobody hears, since each comes after a forged copy.
    #[test]
    fn a_machine_is_heard_behind_forged_copies_of_its_requests() {
        let n = |n| NonZeroU32::new(n).unwrap();
        let (share, rest) = (Quota::per_minute(n(30), n(20)), Quota::per_minute(n(600), n(10)));
        let mut budget = RelayBudget::new(share, NonZeroUsize::new(128).unwrap(), rest);
        for turn in 0..300u64 {
            // ten requests a minute of each of a hundred machines
            let now = Mono(turn * 6_000);
            for machine in 0..100 {
                assert_eq!(budget.take(&[machine; 32], now), Ok(()), "the copy");
                budget.forged(&[machine; 32], now);
                assert_eq!(budget.take(&[machine; 32], now), Ok(()), "machine {machine}");
                assert!(!budget.from_rest, "its own share is enough");
            }
        }
    }

    /// Loss prevented: a stranger whom nobody hears, since somebody forged a few events of strangers.
    #[test]
    fn forgeries_are_not_charged_to_strangers() {
        let n = |n| NonZeroU32::new(n).unwrap();
        let mut budget = RelayBudget::of_strangers(Quota::per_minute(n(60), n(3)));
        for author in [[1; 32], [2; 32]] {
            assert_eq!(budget.take(&author, Mono(0)), Ok(()));
            budget.forged(&author, Mono(0));
        }
        assert_eq!(budget.take(&[3; 32], Mono(0)), Ok(()));
    }
}
