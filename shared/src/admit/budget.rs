//! What one relay may bring to the check of a signature.
//!
//! Promise: each rostered key has a share of its own, which a machine that behaves never meets; what
//! a key brings beyond it comes out of a rest that all keys of the relay use together. So whoever
//! forges events under other keys through a relay, however many, takes nothing from a machine on that
//! relay; whoever forges a machine's own key takes that key's share there, and nowhere else. Checked
//! are at most `keys * share + rest`; what turns out to be forged counts tenfold against both, so that
//! of a flood of it hardly more than a tenth of that is.
//!
//! Failure policy: a refusal says when the next one would pass.

use std::num::NonZeroUsize;

use crate::rate::{Keyed, Limiter, Quota, RateLimited};
use crate::time::Mono;

/// How many more each forged event counts as.
const FORGED: u32 = 9;

/// The budget of one relay.
#[derive(Clone, Debug)]
pub struct RelayBudget {
    shares: Option<Keyed<[u8; 32]>>,
    rest: Limiter,
}

impl RelayBudget {
    /// A full budget: `share` for each of at most `keys` authors at a time, `rest` for all together.
    #[must_use]
    pub const fn new(share: Quota, keys: NonZeroUsize, rest: Quota) -> Self {
        Self { shares: Some(Keyed::new(share, keys)), rest: Limiter::new(rest) }
    }

    /// A full budget of `rest` for authors whom nobody knows: a share for each would have no bound.
    #[must_use]
    pub const fn of_strangers(rest: Quota) -> Self {
        Self { shares: None, rest: Limiter::new(rest) }
    }

    /// Takes one event that says it is by `author`.
    ///
    /// # Errors
    /// [`RateLimited`], where share and rest are used up.
    pub fn take(&mut self, author: &[u8; 32], now: Mono) -> Result<(), RateLimited> {
        match &mut self.shares {
            Some(shares) => shares.take(author, now).or_else(|_| self.rest.take(now)),
            None => self.rest.take(now),
        }
    }

    /// An event that was taken was not signed by `author`. Strangers have no shares, and nobody is to
    /// empty what they all have together by a few forgeries.
    pub fn forged(&mut self, author: &[u8; 32], now: Mono) {
        if let Some(shares) = &mut self.shares {
            shares.charge(author, FORGED, now);
            self.rest.charge(FORGED, now);
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
        let checked = flood(&mut charged, true);
        assert!((33..500).contains(&checked), "{checked}");
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
