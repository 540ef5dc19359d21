//! Rate limits: GCRA, the leaky bucket as one number.
//!
//! Promise: over any stretch of `t` at most `burst + rate * t` pass, and a sender that keeps the
//! rate is never refused, but for what it is charged beyond that; both hold exactly, for every rate,
//! because time is counted in 1/rate of a millisecond (with a burst of 1 to keep the rate means no
//! gap below it). Pure: the monotonic time is an argument. A [`Keyed`] limiter has bounded memory and
//! never forgets a key that is being refused.
//!
//! Failure policy: a refusal says after how many milliseconds the next one would pass. A full
//! [`Keyed`] limiter whose keys are all being refused refuses new keys.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};

use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::time::Mono;

/// One minute in milliseconds, and so the cost of one pass in units of 1/rate ms.
const MINUTE: u64 = 60_000;

/// The highest rate: with it the clock can run for 500 years. A higher one is cut to this.
const MAX_PER_MINUTE: u32 = 1_000_000;

/// Refused for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("too many: the next one passes in {retry_after_ms} ms")]
pub struct RateLimited {
    /// Milliseconds until the next one would pass; at least 1.
    pub retry_after_ms: u64,
}

impl Classified for RateLimited {
    fn kind(&self) -> Kind {
        Kind::Transient
    }
}

/// How many may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Units of 1/rate ms in a millisecond.
    rate: u64,
    /// How far ahead of now the theoretical arrival time may lie for one more to pass.
    ahead: u64,
}

impl Quota {
    /// `rate` a minute on average (at most a million), `burst` at once.
    #[must_use]
    pub const fn per_minute(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let rate = if rate.get() > MAX_PER_MINUTE { MAX_PER_MINUTE } else { rate.get() };
        let ahead = (burst.get() as u64).saturating_sub(1).saturating_mul(MINUTE);
        Self { rate: rate as u64, ahead }
    }

    /// Decides on one more at `now`, given the theoretical arrival time, and gives the new one.
    fn next(self, tat: u64, now: Mono) -> Result<u64, RateLimited> {
        let now = now.0.saturating_mul(self.rate);
        let wait = tat.saturating_sub(now).saturating_sub(self.ahead);
        if wait > 0 {
            return Err(RateLimited { retry_after_ms: wait.div_ceil(self.rate.max(1)) });
        }
        Ok(tat.max(now).saturating_add(MINUTE))
    }

    /// The theoretical arrival time after so many more, for which there may be no room.
    fn charged(self, tat: u64, more: u32, now: Mono) -> u64 {
        let now = now.0.saturating_mul(self.rate);
        tat.max(now).saturating_add(MINUTE.saturating_mul(u64::from(more)))
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limiter {
    quota: Quota,
    /// Theoretical arrival time: when the bucket would be full again. 0: it is full.
    tat: u64,
}

impl Limiter {
    /// A full bucket.
    #[must_use]
    pub const fn new(quota: Quota) -> Self {
        Self { quota, tat: 0 }
    }

    /// Takes one at `now`.
    ///
    /// # Errors
    /// [`RateLimited`]; a refusal costs the sender nothing.
    pub fn take(&mut self, now: Mono) -> Result<(), RateLimited> {
        self.tat = self.quota.next(self.tat, now)?;
        Ok(())
    }

    /// What has passed counts as so many more: the next ones wait for them, too.
    pub fn charge(&mut self, more: u32, now: Mono) {
        self.tat = self.quota.charged(self.tat, more, now);
    }
}

/// A bucket for each key, at most `capacity` of them in memory.
///
/// A bucket that is full again says no more than one that was never used, so when a new key needs
/// room, the key whose bucket is the fullest is forgotten: mostly one that is full anyway. If even
/// that key is being refused, so are all others, none is forgotten, and the new key is refused
/// until one of them is not. Each step costs O(log n).
#[derive(Clone, Debug)]
pub struct Keyed<K> {
    quota: Quota,
    capacity: NonZeroUsize,
    tats: BTreeMap<K, u64>,
    by_tat: BTreeSet<(u64, K)>,
}

impl<K: Ord + Clone> Keyed<K> {
    /// No key used anything yet.
    #[must_use]
    pub const fn new(quota: Quota, capacity: NonZeroUsize) -> Self {
        Self { quota, capacity, tats: BTreeMap::new(), by_tat: BTreeSet::new() }
    }

    /// Takes one from the bucket of `key` at `now`.
    ///
    /// # Errors
    /// [`RateLimited`].
    pub fn take(&mut self, key: &K, now: Mono) -> Result<(), RateLimited> {
        let known = self.tats.get(key).copied();
        let next = self.quota.next(known.unwrap_or(0), now)?;
        match known {
            Some(tat) => {
                self.by_tat.remove(&(tat, key.clone()));
            }
            None => self.make_room(now)?,
        }
        self.by_tat.insert((next, key.clone()));
        self.tats.insert(key.clone(), next);
        Ok(())
    }

    /// What has passed for `key` counts as so many more: the next ones wait for them, too. A key that is
    /// not in memory has nothing to be charged.
    pub fn charge(&mut self, key: &K, more: u32, now: Mono) {
        let Some(tat) = self.tats.get_mut(key) else { return };
        let next = self.quota.charged(*tat, more, now);
        self.by_tat.remove(&(*tat, key.clone()));
        self.by_tat.insert((next, key.clone()));
        *tat = next;
    }

    fn make_room(&mut self, now: Mono) -> Result<(), RateLimited> {
        if self.tats.len() < self.capacity.get() {
            return Ok(());
        }
        if let Some((tat, _)) = self.by_tat.first() {
            self.quota.next(*tat, now)?;
        }
        if let Some((_, fullest)) = self.by_tat.pop_first() {
            self.tats.remove(&fullest);
        }
        Ok(())
    }

    /// Keys in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tats.len()
    }

    /// Whether no key is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tats.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(rate: u32, burst: u32) -> Quota {
        Quota::per_minute(NonZeroU32::new(rate).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    fn keyed(rate: u32, burst: u32, capacity: usize) -> Keyed<u8> {
        Keyed::new(quota(rate, burst), NonZeroUsize::new(capacity).unwrap())
    }

    /// Loss prevented: a limit that is off by one refuses a machine that behaves.
    #[test]
    fn thirty_a_minute_with_a_burst_of_twenty() {
        let mut bucket = Limiter::new(quota(30, 20));
        let start = Mono(1_000_000);
        for _ in 0..20 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(RateLimited { retry_after_ms: 2_000 }));
        assert_eq!(bucket.take(start.after(1_999)), Err(RateLimited { retry_after_ms: 1 }));
        assert_eq!(bucket.take(start.after(2_000)), Ok(()));
        assert!(bucket.take(start.after(2_000)).is_err());
    }

    /// Loss prevented: a clock that steps back, or one near its end, stops or opens the limiter.
    #[test]
    fn odd_clocks_do_no_harm() {
        let mut bucket = Limiter::new(quota(60, 1));
        assert_eq!(bucket.take(Mono(10_000)), Ok(()));
        assert_eq!(bucket.take(Mono(9_000)), Err(RateLimited { retry_after_ms: 2_000 }));
        let mut fast = Limiter::new(quota(u32::MAX, 1));
        let years_500 = Mono(500 * 365 * 86_400 * 1_000);
        assert_eq!(fast.take(years_500), Ok(()));
        assert!(fast.take(years_500).is_err(), "still limits, at a million a minute");
        assert_eq!(fast.take(years_500.after(1)), Ok(()));
    }

    /// Loss prevented: a sender that is being refused becomes new by a flood of other keys.
    #[test]
    fn a_full_table_of_refused_keys_refuses_newcomers() {
        let mut table = keyed(60, 1, 2);
        assert_eq!(table.take(&1, Mono(0)), Ok(()));
        assert_eq!(table.take(&2, Mono(400)), Ok(()));
        assert_eq!(table.take(&3, Mono(500)), Err(RateLimited { retry_after_ms: 500 }));
        assert_eq!(table.take(&3, Mono(1_000)), Ok(()), "1 is full again and is forgotten");
        assert_eq!(table.take(&2, Mono(1_000)), Err(RateLimited { retry_after_ms: 400 }));
        assert_eq!(table.len(), 2);
    }

    /// Loss prevented: what is charged is forgotten, or shuts a sender out for longer than it cost.
    #[test]
    fn what_is_charged_is_waited_for() {
        let (mut bucket, mut table) = (Limiter::new(quota(30, 20)), keyed(30, 20, 2));
        assert_eq!((bucket.take(Mono(0)), table.take(&1, Mono(0))), (Ok(()), Ok(())));
        bucket.charge(29, Mono(0));
        table.charge(&1, 29, Mono(0));
        let wait = Err(RateLimited { retry_after_ms: 22_000 });
        assert_eq!((bucket.take(Mono(0)), table.take(&1, Mono(0))), (wait, wait));
        let then = Mono(22_000);
        assert_eq!((bucket.take(then), table.take(&1, then)), (Ok(()), Ok(())));
        table.charge(&2, 1_000, then);
        assert_eq!((table.take(&2, then), table.len(), table.by_tat.len()), (Ok(()), 2, 2));
    }

    proptest! {
        /// Loss prevented: a limit that lets more through than it says.
        #[test]
        fn no_window_passes_more_than_burst_and_rate(
            rate in 1u32..5_000, burst in 1u32..50,
            gaps in prop::collection::vec(0u64..3_000, 1..300),
        ) {
            let mut bucket = Limiter::new(quota(rate, burst));
            let mut now = Mono(7);
            let mut passed = Vec::new();
            for gap in gaps {
                now = now.after(gap);
                if bucket.take(now).is_ok() {
                    passed.push(now);
                }
            }
            for (i, from) in passed.iter().enumerate() {
                for (j, to) in passed.iter().enumerate().skip(i) {
                    let most = u64::from(burst) + to.since(*from) * u64::from(rate) / MINUTE;
                    prop_assert!((j - i + 1) as u64 <= most);
                }
            }
        }

        /// Loss prevented: a machine at exactly its rate is refused after a while.
        #[test]
        fn exactly_the_rate_is_never_refused(
            rate in 1u32..5_000, burst in 2u32..50, start in 0u64..1_000_000,
        ) {
            let (mut average, mut strict) =
                (Limiter::new(quota(rate, burst)), Limiter::new(quota(rate, 1)));
            let rate = u64::from(rate);
            for n in 0..1_000u64 {
                // on the millisecond of n / rate, so that some gaps are a millisecond short
                let now = Mono(start + n * MINUTE / rate);
                prop_assert_eq!(average.take(now), Ok(()), "{}", n);
                // a burst of 1 forgives no short gap
                let now = Mono(start + n * MINUTE.div_ceil(rate));
                prop_assert_eq!(strict.take(now), Ok(()), "{}", n);
            }
        }

        /// Loss prevented: a wait that is too short makes the sender be refused again, one that is
        /// too long keeps a customer standing.
        #[test]
        fn the_wait_is_exact(
            rate in 1u32..5_000, burst in 1u32..20, gaps in prop::collection::vec(0u64..500, 1..100),
        ) {
            let mut bucket = Limiter::new(quota(rate, burst));
            let mut now = Mono(0);
            for gap in gaps {
                now = now.after(gap);
                if let Err(RateLimited { retry_after_ms }) = bucket.take(now) {
                    prop_assert!(bucket.take(now.after(retry_after_ms - 1)).is_err());
                    now = now.after(retry_after_ms);
                    prop_assert_eq!(bucket.take(now), Ok(()));
                }
            }
        }

        /// Loss prevented: a bounded table that treats a key otherwise than a bucket of its own.
        #[test]
        fn with_room_each_key_has_its_own_bucket(
            takes in prop::collection::vec((0u8..6, 0u64..2_000), 1..200),
        ) {
            let mut table = keyed(30, 3, 6);
            let mut alone = [Limiter::new(quota(30, 3)); 6];
            let mut now = Mono(0);
            for (key, gap) in takes {
                now = now.after(gap);
                prop_assert_eq!(table.take(&key, now), alone[usize::from(key)].take(now));
            }
        }

        /// Loss prevented: a refused key passes sooner because others were busy; memory that grows.
        #[test]
        fn a_refused_key_stays_refused_for_its_wait(
            takes in prop::collection::vec((any::<u8>(), 0u64..300), 1..400), capacity in 1usize..8,
        ) {
            let mut table = keyed(60, 2, capacity);
            let mut until: BTreeMap<u8, Mono> = BTreeMap::new();
            let mut now = Mono(0);
            for (key, gap) in takes {
                let key = key % 12;
                now = now.after(gap);
                let known = table.tats.contains_key(&key);
                match table.take(&key, now) {
                    Ok(()) => prop_assert!(until.get(&key).is_none_or(|until| now >= *until)),
                    Err(RateLimited { retry_after_ms }) if known => {
                        until.insert(key, now.after(retry_after_ms));
                    }
                    Err(_) => (),
                }
                prop_assert!(table.len() <= capacity);
                prop_assert_eq!(table.len(), table.by_tat.len());
            }
        }
    }
}
