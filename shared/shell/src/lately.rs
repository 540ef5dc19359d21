//! What came last, in bounded memory.
//!
//! Promise: the last `least` distinct things are remembered, and at most twice as many.

use std::collections::HashSet;
use std::hash::Hash;

/// The last things, in two halves: when the newer one is full, the older one is forgotten.
#[derive(Debug)]
pub struct Lately<T> {
    newer: HashSet<T>,
    older: HashSet<T>,
    least: usize,
}

impl<T: Eq + Hash> Lately<T> {
    /// Remembers `least` things at least.
    #[must_use]
    pub fn new(least: usize) -> Self {
        Self { newer: HashSet::new(), older: HashSet::new(), least }
    }

    /// Whether it came lately.
    #[must_use]
    pub fn contains(&self, thing: &T) -> bool {
        self.newer.contains(thing) || self.older.contains(thing)
    }

    /// Remembers it; whether it is new.
    pub fn insert(&mut self, thing: T) -> bool {
        if self.contains(&thing) {
            return false;
        }
        if self.newer.len() >= self.least {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(thing)
    }

    /// As if it had not come.
    pub fn forget(&mut self, thing: &T) {
        self.newer.remove(thing);
        self.older.remove(thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: the memory of a pool that runs for years; an id that is forgotten at once.
    #[test]
    fn the_last_ones_are_remembered() {
        const LEAST: usize = 1_000;
        let mut lately = Lately::new(LEAST);
        for n in 0..3 * LEAST {
            assert!(lately.insert(n));
            assert!(!lately.insert(n));
            assert!(lately.contains(&n.saturating_sub(LEAST - 1)));
            assert!(lately.newer.len() + lately.older.len() <= 2 * LEAST);
        }
        assert!(!lately.contains(&0));
        lately.forget(&(3 * LEAST - 1));
        assert!(!lately.contains(&(3 * LEAST - 1)));
    }
}
