//! The order of documents: which one counts when relays deliver any of them, in any order, again.
//!
//! Promise: one total order (`published_at`, then `created_at`, then the LOWER id wins, as NIP-01
//! keeps it) and one function. Whatever the order of delivery, the same document ends up applied,
//! and an applied version never goes back.
//!
//! Failure policy: a document from the future is not applied now and not forgotten: it advances
//! nothing, so it may be delivered again later.

use std::cmp::Reverse;

use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::ids::EventId;
use crate::time::Unix;

/// How far ahead of trusted time a document may be, in seconds.
pub const MAX_AHEAD_S: u64 = 600;
/// How far ahead of its own clock a publisher may go, in seconds; below what readers refuse.
pub const MAX_LEAD_S: u64 = 300;

/// A document's place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// When its author published this version.
    pub published_at: Unix,
    /// The event's own time.
    pub created_at: Unix,
    /// The event.
    pub id: EventId,
}

impl Mark {
    fn key(&self) -> (Unix, Unix, Reverse<EventId>) {
        (self.published_at, self.created_at, Reverse(self.id))
    }
}

impl PartialOrd for Mark {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The greater one counts.
impl Ord for Mark {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// What to do with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It counts from now on, once applied: keep its mark.
    Apply,
    /// It is the one that is applied.
    Replay,
    /// A later one is applied.
    Stale,
    /// More than [`MAX_AHEAD_S`] ahead of trusted time.
    TooFarAhead,
}

/// Decides about `new` after `last`, the mark of the last applied document of this address.
#[must_use]
pub fn decide(last: Option<&Mark>, new: &Mark, trusted_now: Unix) -> Decision {
    match last {
        Some(last) if last.id == new.id => return Decision::Replay,
        Some(last) if new < last => return Decision::Stale,
        _ => {}
    }
    let limit = trusted_now.after(MAX_AHEAD_S);
    if new.published_at > limit || new.created_at > limit {
        return Decision::TooFarAhead;
    }
    Decision::Apply
}

/// A publisher that has gone too far ahead of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("publish: the last document is {ahead} s ahead of the clock, try again in {wait} s")]
pub struct Ahead {
    /// Seconds that the next document would be ahead.
    pub ahead: u64,
    /// Seconds to wait.
    pub wait: u64,
}

impl Classified for Ahead {
    fn kind(&self) -> Kind {
        Kind::Transient
    }
}

/// The time to put on the next document of an address: later than the last one, so that of two in
/// one second the second counts.
///
/// # Errors
/// [`Ahead`] where that is more than [`MAX_LEAD_S`] ahead of `now`: readers and relays refuse what
/// is too far ahead.
pub fn next_time(now: Unix, last: Option<Unix>) -> Result<Unix, Ahead> {
    let next = last.map_or(now, |last| now.max(last.after(1)));
    let ahead = next.since(now);
    if ahead > MAX_LEAD_S {
        return Err(Ahead { ahead, wait: ahead.saturating_sub(MAX_LEAD_S) });
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Unix = Unix(10_000);

    fn mark(published_at: u64, created_at: u64, id: u8) -> Mark {
        Mark {
            published_at: Unix(published_at),
            created_at: Unix(created_at),
            id: EventId::from_bytes([id; 32]),
        }
    }

    /// The mark that is applied after these deliveries.
    fn deliver(deliveries: &[Mark]) -> Option<Mark> {
        deliveries.iter().fold(None, |last, new| match decide(last.as_ref(), new, NOW) {
            Decision::Apply => Some(*new),
            Decision::Replay | Decision::Stale | Decision::TooFarAhead => last,
        })
    }

    /// Loss prevented: an old fee or an old count applied again because a relay kept it.
    #[test]
    fn older_is_stale_and_the_same_is_a_replay() {
        let last = mark(100, 100, 5);
        let decide = |new: Mark| decide(Some(&last), &new, NOW);
        assert_eq!(decide(last), Decision::Replay);
        assert_eq!(decide(mark(99, 200, 1)), Decision::Stale);
        assert_eq!(decide(mark(100, 99, 1)), Decision::Stale);
        assert_eq!(decide(mark(100, 100, 6)), Decision::Stale, "the lower id wins");
        assert_eq!(decide(mark(100, 100, 4)), Decision::Apply);
        assert_eq!(decide(mark(100, 101, 9)), Decision::Apply);
        assert_eq!(decide(mark(101, 1, 9)), Decision::Apply);
    }

    /// Loss prevented: one document from the far future that no later one can ever replace.
    #[test]
    fn ten_minutes_ahead_is_the_limit() {
        let limit = NOW.0 + MAX_AHEAD_S;
        assert_eq!(decide(None, &mark(limit, limit, 1), NOW), Decision::Apply);
        assert_eq!(decide(None, &mark(limit + 1, 1, 1), NOW), Decision::TooFarAhead);
        assert_eq!(decide(None, &mark(1, limit + 1, 1), NOW), Decision::TooFarAhead);
    }

    /// Loss prevented: the second of two changes in one second lost to the first one's lower id.
    #[test]
    fn the_next_document_is_later_and_the_lead_is_capped() {
        assert_eq!(next_time(NOW, None), Ok(NOW));
        assert_eq!(next_time(NOW, Some(Unix(9_000))), Ok(NOW));
        assert_eq!(next_time(NOW, Some(NOW)), Ok(Unix(10_001)));
        assert_eq!(next_time(NOW, Some(Unix(10_299))), Ok(Unix(10_300)));
        let ahead = next_time(NOW, Some(Unix(10_309)));
        assert_eq!(ahead, Err(Ahead { ahead: 310, wait: 10 }));
    }

    prop_compose! {
        fn any_mark()(published in 9_990u64..10_620, created in 9_990u64..10_620, id in 0u8..40)
            -> Mark {
            mark(published, created, id)
        }
    }

    proptest! {
        /// Loss prevented: two machines, or one after a restart, that end with different fees.
        #[test]
        fn any_order_of_delivery_ends_the_same(
            marks in prop::collection::vec(any_mark(), 0..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            // an id names one event, so one mark
            let marks: std::collections::BTreeMap<_, _> =
                marks.into_iter().map(|mark| (mark.id, mark)).collect();
            let marks: Vec<_> = marks.into_values().collect();
            let first = deliver(&marks);
            let applicable = marks.iter().filter(|m| decide(None, m, NOW) == Decision::Apply);
            prop_assert_eq!(first, applicable.max().copied());
            let mut shuffled = marks.clone();
            for (at, index) in order.iter().enumerate() {
                if !marks.is_empty() {
                    let other = index.index(marks.len());
                    shuffled.swap(at % marks.len(), other);
                    shuffled.push(marks[other]);
                }
            }
            prop_assert_eq!(deliver(&shuffled), first);
        }

        /// Loss prevented: an applied version that goes back.
        #[test]
        fn the_applied_mark_only_rises(marks in prop::collection::vec(any_mark(), 0..30)) {
            let mut last: Option<Mark> = None;
            for new in &marks {
                if decide(last.as_ref(), new, NOW) == Decision::Apply {
                    prop_assert!(last.is_none_or(|last| last < *new));
                    last = Some(*new);
                }
            }
        }
    }
}
