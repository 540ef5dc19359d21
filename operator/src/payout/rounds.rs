//! Work that is taken up in rounds: side by side, each thing once at a time, with rests in between.
//!
//! Promise: no thing waits for another one's wallet, but things of one lane, which have something in
//! common, are in work one after the other. One that did not come to an end rests, twice as long each
//! time up to a bound, and is taken up again, after those that were never tried and those that rest
//! for longer: what never ends keeps no new one waiting. Nothing is kept here that the database does
//! not have: after a start everything is looked at.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

/// How often the database is looked into, and the first rest.
pub(crate) const ROUND: Duration = Duration::from_secs(5);

/// The longest rest between two tries; the first is [`ROUND`], each is twice the last.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// A thing's work, as it ends.
type Running<K, L, E> = BoxFuture<'static, (K, L, Result<(), E>)>;

/// Things in work, and those that rest.
pub(crate) struct Rounds<K, L, E> {
    at_once: usize,
    running: FuturesUnordered<Running<K, L, E>>,
    /// Lanes with a thing in work.
    busy: HashSet<L>,
    /// Since when each rests, and for how long.
    resting: HashMap<K, (Instant, Duration)>,
}

impl<K, L, E> Rounds<K, L, E>
where
    K: Copy + Eq + Hash + Send + 'static,
    L: Copy + Eq + Hash + Send + 'static,
    E: 'static,
{
    /// At most `at_once` things in work.
    pub(crate) fn new(at_once: usize) -> Self {
        let (busy, resting) = (HashSet::new(), HashMap::new());
        Self { at_once, running: FuturesUnordered::new(), busy, resting }
    }

    /// Things in work.
    #[cfg(test)]
    pub(crate) fn in_work(&self) -> usize {
        self.running.len()
    }

    /// Begins with each of `open`, a thing and its lane, that does not rest and whose lane is free;
    /// what is not open any more need not rest either.
    pub(crate) fn begin<F>(&mut self, open: &[(K, L)], drive: impl Fn(K) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let known: HashSet<K> = open.iter().map(|(id, _)| *id).collect();
        self.resting.retain(|id, _| known.contains(id));
        let moment = Instant::now();
        let rested = |id: &K| {
            let rest = self.resting.get(id);
            rest.is_none_or(|(since, rest)| moment.duration_since(*since) >= *rest)
        };
        let mut ready: Vec<_> = open.iter().filter(|(id, _)| rested(id)).copied().collect();
        // none before some: those that were never tried come first, in their order
        ready.sort_by_key(|(id, _)| self.resting.get(id).map(|(since, _)| *since));
        for (id, lane) in ready {
            if self.running.len() >= self.at_once {
                break;
            }
            if self.busy.insert(lane) {
                let driven = drive(id);
                self.running.push(Box::pin(async move { (id, lane, driven.await) }));
            }
        }
    }

    /// Waits for one thing to end or to rest; `None` where none is in work.
    pub(crate) async fn next_done(&mut self) -> Option<(K, Result<(), E>)> {
        let (id, lane, driven) = self.running.next().await?;
        self.busy.remove(&lane);
        let last = self.resting.get(&id).map(|(_, rest)| rest.saturating_mul(2));
        let rest = last.unwrap_or(ROUND).min(LONGEST_REST);
        self.resting.insert(id, (Instant::now(), rest));
        Some((id, driven))
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    /// Loss prevented: two things that must not be in work at once are.
    #[tokio::test]
    async fn a_lane_has_one_thing_in_work() {
        let mut rounds = Rounds::<u8, u8, ()>::new(8);
        let open = [(1, 7), (2, 7), (3, 8)];
        rounds.begin(&open, |_| ready(Ok(())));
        assert_eq!(rounds.in_work(), 2);
        while rounds.next_done().await.is_some() {}
        rounds.begin(&open, |_| ready(Ok(())));
        assert_eq!(rounds.next_done().await, Some((2, Ok(()))), "its lane is free again");
        assert_eq!(rounds.in_work(), 0, "the others rest");
    }

    /// Loss prevented: old things that never end take each place, and new ones never begin.
    #[tokio::test]
    async fn what_was_never_tried_comes_first_then_what_rests_longest() {
        let mut rounds = Rounds::<u8, u8, ()>::new(1);
        let now = Instant::now();
        for (id, ago) in [(1, 2 * ROUND), (2, 3 * ROUND)] {
            rounds.resting.insert(id, (now - ago, ROUND));
        }
        for next in [3, 2, 1] {
            rounds.begin(&[(1, 1), (2, 2), (3, 3)], |_| ready(Ok(())));
            assert_eq!(rounds.next_done().await, Some((next, Ok(()))));
        }
    }
}
