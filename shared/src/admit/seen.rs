//! Ids of events that were seen, for as long as those events could still be taken.
//!
//! Promise: an id gets in only when the caller knows that its author signed it, so that nobody can
//! burn a request with a forged copy; memory is bounded.
//!
//! Failure policy: when full, the id that would be forgotten first goes, and that is counted; the
//! table of request ids still keeps its effect from happening twice.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;

use crate::time::Unix;

/// A window of event ids.
#[derive(Clone, Debug)]
pub struct SeenIds {
    capacity: NonZeroUsize,
    until: HashMap<[u8; 32], Unix>,
    /// The same ids by their seconds.
    order: BTreeMap<Unix, Vec<[u8; 32]>>,
    evictions: u64,
}

impl SeenIds {
    /// An empty window for at most `capacity` ids.
    #[must_use]
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { capacity, until: HashMap::new(), order: BTreeMap::new(), evictions: 0 }
    }

    /// Whether `id` was recorded and is still remembered.
    #[must_use]
    pub fn contains(&self, id: &[u8; 32]) -> bool {
        self.until.contains_key(id)
    }

    /// Remembers the id of an event whose signature has verified, until `until` has passed, and
    /// forgets what has passed at `now`. `false`: it was there already.
    pub fn record(&mut self, id: [u8; 32], until: Unix, now: Unix) -> bool {
        let Entry::Vacant(vacant) = self.until.entry(id) else { return false };
        vacant.insert(until);
        // before it has its second: what goes is one of the others
        while self.order.first_key_value().is_some_and(|(until, _)| *until < now) {
            self.forget_first();
        }
        if self.until.len() > self.capacity.get() {
            self.forget_first();
            self.evictions = self.evictions.saturating_add(1);
        }
        self.order.entry(until).or_default().push(id);
        true
    }

    fn forget_first(&mut self) {
        let Some(mut first) = self.order.first_entry() else { return };
        if let Some(id) = first.get_mut().pop() {
            self.until.remove(&id);
        }
        if first.get().is_empty() {
            first.remove();
        }
    }

    /// Ids remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// Ids that had to go before their time: the window is too small.
    #[must_use]
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Loss prevented: a replay inside the window, or a window that eats all memory.
        #[test]
        fn remembers_for_its_time_and_no_more_than_it_may(
            capacity in 1usize..20,
            events in prop::collection::vec((any::<u8>(), 0u64..50, 0u64..5), 1..300),
        ) {
            let mut seen = SeenIds::new(NonZeroUsize::new(capacity).unwrap());
            let mut model: HashMap<[u8; 32], Unix> = HashMap::new();
            let mut now = Unix(0);
            for (n, life, gap) in events {
                now = now.after(gap);
                let (id, until) = ([n; 32], now.after(life));
                let had = seen.contains(&id);
                prop_assert_eq!(seen.record(id, until, now), !had);
                prop_assert!(seen.contains(&id));
                prop_assert!(seen.len() <= capacity);
                let ordered: usize = seen.order.values().map(Vec::len).sum();
                prop_assert_eq!(seen.until.len(), ordered);
                if !had {
                    model.insert(id, until);
                }
                model.retain(|_, until| *until >= now);
                if seen.evictions() == 0 {
                    prop_assert!(model.keys().all(|id| seen.contains(id)));
                }
            }
        }
    }

    /// Loss prevented: a full window that takes no new id lets everything be replayed.
    #[test]
    fn a_full_window_forgets_what_ends_first() {
        let mut seen = SeenIds::new(NonZeroUsize::new(2).unwrap());
        let now = Unix(100);
        assert!(seen.is_empty());
        assert!(seen.record([1; 32], Unix(300), now));
        assert!(seen.record([2; 32], Unix(200), now));
        assert!(seen.record([3; 32], Unix(250), now));
        assert_eq!((seen.contains(&[2; 32]), seen.evictions()), (false, 1));
        assert!(seen.contains(&[1; 32]) && seen.contains(&[3; 32]));
        assert!(!seen.record([1; 32], Unix(400), now));
        assert!(seen.record([4; 32], Unix(400), Unix(251)), "3 has passed");
        assert_eq!((seen.len(), seen.evictions()), (2, 1));
    }
}
