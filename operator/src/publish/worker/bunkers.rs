//! Whose bunker is asked now: a window for those that answer, a few places for those that did not.
//!
//! Promise: a bunker that does not answer takes no place from another's documents any more once that
//! is known, however long it stays away: it is asked for one document at a time, in places of its
//! kind, after rests that grow, until it answers. A rest keeps no document back that an operator asks
//! for.
//!
//! Failure policy: none; nothing is kept over a restart, which takes each bunker for one that answers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Documents that bunkers have at once.
pub const AT_BUNKERS: usize = 8;
/// Documents that bunkers have at once which did not answer when they were asked last.
const AT_SILENT: usize = 8;
/// The longest rest of a bunker that does not answer, in seconds.
const LONGEST_S: u64 = 30;

/// Who may ask bunkers, and which of these do not answer.
pub(super) struct Bunkers {
    answering: Semaphore,
    others: Semaphore,
    silent: Mutex<BTreeMap<PubKey, Silence>>,
}

/// A bunker that did not answer.
struct Silence {
    /// How long it rests, in seconds.
    rest_s: u64,
    until: Unix,
    /// A document is there.
    asked: bool,
}

impl Silence {
    /// Whether it is left alone now. A clock that was set back makes no rest longer.
    fn rests(&self, now: Unix) -> bool {
        self.asked || (now < self.until && self.until <= now.after(self.rest_s))
    }
}

impl Bunkers {
    pub(super) const fn new() -> Self {
        Self {
            answering: Semaphore::const_new(AT_BUNKERS),
            others: Semaphore::const_new(AT_SILENT),
            silent: Mutex::new(BTreeMap::new()),
        }
    }

    /// Leave to ask the bunker of this operator for one document, as soon as there is room at those
    /// that answer; `None` while it rests. With `hurried` no rest counts.
    pub(super) async fn turn(
        &self,
        operator: PubKey,
        hurried: bool,
        clock: &Clock,
    ) -> Option<Turn<'_>> {
        if !self.is_silent(operator) {
            let place = self.answering.acquire().await.ok()?;
            // this may have come out while it waited
            if !self.is_silent(operator) {
                return Some(Turn { bunkers: self, operator, first: false, _place: place });
            }
        }
        if hurried {
            let place = self.others.acquire().await.ok()?;
            return Some(Turn { bunkers: self, operator, first: false, _place: place });
        }
        let place = self.others.try_acquire().ok()?;
        let first = match self.silent().get_mut(&operator) {
            Some(silence) if silence.rests(clock.now()) => return None,
            Some(silence) => {
                silence.asked = true;
                true
            }
            // it has answered meanwhile
            None => false,
        };
        Some(Turn { bunkers: self, operator, first, _place: place })
    }

    fn is_silent(&self, operator: PubKey) -> bool {
        self.silent().contains_key(&operator)
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<PubKey, Silence>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to ask one bunker for one document.
pub(super) struct Turn<'a> {
    bunkers: &'a Bunkers,
    operator: PubKey,
    /// After a rest: the others wait for what comes of it.
    first: bool,
    _place: SemaphorePermit<'a>,
}

impl Turn<'_> {
    /// The bunker has answered, whatever it said.
    pub(super) fn answered(self) {
        self.bunkers.silent().remove(&self.operator);
    }

    /// The bunker has not answered.
    pub(super) fn unanswered(self, now: Unix) {
        let mut silent = self.bunkers.silent();
        let new = Silence { rest_s: 1, until: now, asked: false };
        let silence = silent.entry(self.operator).or_insert(new);
        if self.first {
            silence.rest_s = silence.rest_s.saturating_mul(2).min(LONGEST_S);
        }
        silence.until = now.after(silence.rest_s);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.first
            && let Some(silence) = self.bunkers.silent().get_mut(&self.operator)
        {
            silence.asked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt as _;

    use super::*;
    use crate::testing::key;

    fn clock() -> (Arc<AtomicU64>, Clock) {
        let now = Arc::new(AtomicU64::new(1_000));
        let told = now.clone();
        (now, Clock::new(move || Unix(told.load(Ordering::SeqCst))))
    }

    /// Loss prevented: operators' fees that come minutes late because the bunkers of others are away,
    /// and are asked again and again for each of their documents; or a bunker that came back and is
    /// never asked again.
    #[test]
    fn bunkers_that_do_not_answer_take_no_place_from_others() {
        let (time, clock) = clock();
        let bunkers = Bunkers::new();
        let away: Vec<_> = (0..3 * AT_SILENT).map(|_| key()).collect();
        for operator in &away {
            let asks = bunkers.turn(*operator, false, &clock).now_or_never();
            asks.flatten().unwrap().unanswered(clock.now());
        }
        let turn = |operator, hurried| bunkers.turn(operator, hurried, &clock).now_or_never();
        // two documents of each
        let asks = || -> Vec<_> {
            away.iter().chain(&away).filter_map(|operator| turn(*operator, false)?).collect()
        };
        assert!(asks().is_empty(), "they rest");
        time.fetch_add(1, Ordering::SeqCst);
        let asked = asks();
        assert_eq!(asked.len(), AT_SILENT);
        let well = key();
        let window: Vec<_> = (0..AT_BUNKERS).map(|_| turn(well, false)).collect();
        assert!(window.iter().all(|turn| matches!(turn, Some(Some(_)))), "all their places");
        assert!(turn(well, false).is_none(), "and no more");
        drop(window);

        // each rest is longer, up to half a minute, whatever is done to the clock
        let [first, ..] = away[..] else { panic!() };
        drop(asked);
        for rest in [2, 4, 8, 16, 30, 30] {
            let asks = turn(first, false).flatten().unwrap();
            assert!(matches!(turn(first, false), Some(None)), "one at a time");
            asks.unanswered(clock.now());
            time.fetch_add(rest - 1, Ordering::SeqCst);
            assert!(matches!(turn(first, false), Some(None)), "{rest} s");
            assert!(matches!(turn(first, true), Some(Some(_))), "but for whom an operator waits");
            time.fetch_add(1, Ordering::SeqCst);
        }
        turn(first, false).flatten().unwrap().unanswered(clock.now());
        time.fetch_sub(900, Ordering::SeqCst);
        turn(first, false).flatten().unwrap().answered();
        let window: Vec<_> = (0..AT_BUNKERS).map(|_| turn(first, false)).collect();
        assert!(window.iter().all(|turn| matches!(turn, Some(Some(_)))), "as before");
    }
}
