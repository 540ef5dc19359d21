//! Work that is taken up in rounds: side by side, each thing once at a time, with rests in between.
//!
//! Promise: no thing waits for another one's wallet; one that did not come to an end rests, twice as
//! long each time up to a bound, and is taken up again. Nothing is kept here that the database does
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

/// Things in work, and those that rest.
pub(crate) struct Rounds<K, E> {
    at_once: usize,
    running: FuturesUnordered<BoxFuture<'static, (K, Result<(), E>)>>,
    busy: HashSet<K>,
    /// Until when each rests, and for how long.
    resting: HashMap<K, (Instant, Duration)>,
}

impl<K: Copy + Eq + Hash + Send + 'static, E: 'static> Rounds<K, E> {
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

    /// Begins with each of `open` that is not in work and does not rest; what is not open any more
    /// need not rest either.
    pub(crate) fn begin<F>(&mut self, open: &[K], drive: impl Fn(K) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.resting.retain(|id, _| open.contains(id));
        let moment = Instant::now();
        for id in open.iter().copied() {
            let rests = self.resting.get(&id).is_some_and(|(until, _)| *until > moment);
            if rests || self.running.len() >= self.at_once || !self.busy.insert(id) {
                continue;
            }
            let driven = drive(id);
            self.running.push(Box::pin(async move { (id, driven.await) }));
        }
    }

    /// Waits for one thing to end or to rest; `None` where none is in work.
    pub(crate) async fn next_done(&mut self) -> Option<(K, Result<(), E>)> {
        let (id, driven) = self.running.next().await?;
        self.busy.remove(&id);
        let last = self.resting.get(&id).map(|(_, rest)| rest.saturating_mul(2));
        let rest = last.unwrap_or(ROUND).min(LONGEST_REST);
        self.resting.insert(id, (Instant::now() + rest, rest));
        Some((id, driven))
    }
}
