//! Event ids that were handled already, in bounded memory.

use std::collections::{HashSet, VecDeque};

use crate::ids::EventId;

/// The last ids; the oldest makes room for the newest.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    capacity: usize,
    order: VecDeque<EventId>,
    ids: HashSet<EventId>,
}

impl Seen {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, order: VecDeque::new(), ids: HashSet::new() }
    }

    /// Notes an id; `false` where it was noted before.
    pub(super) fn insert(&mut self, id: EventId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        while self.order.len() > self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> EventId {
        EventId::from_bytes([n; 32])
    }

    /// Loss prevented: a memory that grows with every event until the process is killed.
    #[test]
    fn it_knows_the_last_ids_and_no_more() {
        let mut seen = Seen::new(2);
        assert!(seen.insert(id(1)) && seen.insert(id(2)));
        assert!(!seen.insert(id(1)) && !seen.insert(id(2)));
        assert!(seen.insert(id(3)));
        assert!(!seen.insert(id(2)) && !seen.insert(id(3)));
        assert_eq!((seen.order.len(), seen.ids.len()), (2, 2));
        assert!(seen.insert(id(1)));
    }
}
