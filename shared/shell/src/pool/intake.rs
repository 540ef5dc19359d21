//! Events on their way from the relays' connections to whoever reads the pool.
//!
//! Promise: an event is read once, on the task that reads its relay, after the caller's frame filter;
//! it comes through when its id and signature hold, and once however many relays carry it. The SDK
//! sees only what is no event: it would read each into a tree, and copy it for each of its listeners.
//!
//! Failure policy: an event that finds the queue full is lost and counted; a connection never waits
//! for the reader, since answers come through it, too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitspire_shared::admit::{Frame, MAX_FRAME, whole_event};
use nostr_sdk::{Event, EventId};
use tokio::sync::mpsc;

use super::FrameFilter;
use crate::checked;
use crate::lately::Lately;

/// Events that wait for the reader.
pub(super) const PLACES: usize = 4_096;
/// The longest message of a relay that is read, in bytes: twice what a relay is asked to carry, so that
/// what is refused is nobody's.
const MOST_BYTES: usize = 2 * MAX_FRAME;
/// Ids that are remembered at least; at most twice as many.
const REMEMBERED: usize = 16_384;

/// Where events come in.
pub(super) struct Intake {
    keep: FrameFilter,
    pub(super) events: mpsc::Sender<Event>,
    seen: Mutex<Lately<EventId>>,
    lost: AtomicU64,
}

impl Intake {
    /// With the frame filter, and where events come out.
    pub(super) fn new(keep: FrameFilter) -> (Self, mpsc::Receiver<Event>) {
        let (events, out) = mpsc::channel(PLACES);
        let (seen, lost) = (Mutex::new(Lately::new(REMEMBERED)), AtomicU64::new(0));
        (Self { keep, events, seen, lost }, out)
    }

    /// Takes in one message of a relay; whether the SDK is to see it.
    pub(super) fn passes(&self, text: &str) -> bool {
        if text.len() > MOST_BYTES || !self.keep.keeps(text) {
            return false;
        }
        let Some(event) = whole_event(text) else { return Frame::parse(text) == Ok(Frame::Other) };
        let (id, known) = (event.id, self.seen().contains(&event.id));
        if known || event.is_expired() {
            return false;
        }
        if !checked::holds(&event) {
            self.keep.forged(&event);
            return false;
        }
        // the id is remembered last: a forged copy must not shut the true one out
        if self.seen().insert(id) && self.events.try_send(event).is_err() {
            // where its relay keeps it, it is asked for once more
            self.seen().forget(&id);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    /// An event of our own does not come back.
    pub(super) fn sent(&self, id: EventId) {
        self.seen().insert(id);
    }

    /// How many were lost since it was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    fn seen(&self) -> MutexGuard<'_, Lately<EventId>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nostr::{EventBuilder, JsonUtil as _, Keys, Tag, Timestamp};

    use super::*;
    use crate::pool::Keeps;

    fn frame(event: &Event) -> String {
        format!("[\"EVENT\",\"all\",{}]", event.as_json())
    }

    fn note(text: &str) -> Event {
        EventBuilder::text_note(text).sign_with_keys(&Keys::generate()).unwrap()
    }

    /// Loss prevented: a forged or changed event that is believed; a forged copy that shuts the true
    /// event out; an event that takes effect twice since two relays carry it; an answer of a relay
    /// that is kept from the SDK; an event that the SDK reads otherwise than this service.
    #[test]
    fn what_holds_comes_through_once() {
        let (intake, mut out) = Intake::new(Arc::new(|text: &str| !text.contains("refused")));
        let good = note("good");
        let mut forged = good.clone();
        forged.sig = note("other").sig;
        let mut changed = note("changed");
        changed.content = "otherwise".into();
        let expired = EventBuilder::text_note("late")
            .tag(Tag::expiration(Timestamp::from(1)))
            .sign_with_keys(&Keys::generate())
            .unwrap();
        let own = note("own");
        intake.sent(own.id);
        for event in [&forged, &changed, &expired, &own, &note("refused"), &good, &good, &forged] {
            assert!(!intake.passes(&frame(event)));
        }
        assert_eq!(out.try_recv().ok(), Some(good));
        assert!(out.try_recv().is_err());
        let id = own.id;
        for other in [
            format!("[\"OK\",\"{id}\",true,\"\"]"),
            "[\"EOSE\",\"all\"]".to_owned(),
            "[\"CLOSED\",\"all\",\"error: no\"]".to_owned(),
        ] {
            assert!(intake.passes(&other), "{other}");
        }
        let shouted = frame(&note("shouted"));
        let shouted = shouted.replace(&shouted[22..86], &shouted[22..86].to_uppercase());
        for odd in
            ["[\"EVENT\",\"all\",{}]", "[\"\\u0045VENT\",\"all\",{}]", "{}", "no JSON", &shouted]
        {
            assert!(!intake.passes(odd), "{odd}");
        }
        assert!(out.try_recv().is_err());
        assert_eq!(intake.take_lost(), 0);
    }

    /// Loss prevented: a flood of forgeries costs as many checks as the keys that it forges may ask for.
    #[test]
    fn what_is_forged_is_told_of_its_relay() {
        struct Told(Mutex<Vec<Event>>);
        impl Keeps for Told {
            fn keeps(&self, _: &str) -> bool {
                true
            }
            fn forged(&self, event: &Event) {
                self.0.lock().unwrap().push(event.clone());
            }
        }
        let told = Arc::new(Told(Mutex::default()));
        let (intake, mut out) = Intake::new(told.clone());
        let (good, mut forged) = (note("good"), note("forged"));
        forged.sig = good.sig;
        for event in [&good, &forged, &good, &forged] {
            intake.passes(&frame(event));
        }
        assert_eq!(*told.0.lock().unwrap(), [forged.clone(), forged]);
        assert_eq!((out.try_recv().ok(), out.try_recv().ok()), (Some(good), None));
    }

    /// Loss prevented: a reader that stands still stops the answers of its relays, or fills the memory;
    /// a document that was lost so, and is taken for known when it comes again.
    #[test]
    fn what_nobody_reads_is_counted_and_may_come_again() {
        let (intake, mut out) = Intake::new(Arc::new(|_: &str| true));
        let event = note("one");
        for _ in 0..PLACES {
            intake.events.try_send(event.clone()).unwrap();
        }
        let late = note("late");
        intake.passes(&frame(&late));
        assert_eq!((intake.take_lost(), intake.take_lost()), (1, 0));
        while out.try_recv().is_ok() {}
        intake.passes(&frame(&late));
        assert_eq!(out.try_recv().ok(), Some(late));
    }
}
