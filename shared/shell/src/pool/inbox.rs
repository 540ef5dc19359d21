//! What the reading task holds: notifications, and what it does again later.
//!
//! Promise: a thing that was put off is done once, however often a relay asks for it, and no relay
//! makes the list long. A subscription that does not hold is asked for after rests that grow. What was
//! lost is asked for when there is room for it: sooner it would be lost again, and would be all that
//! relays send.
//!
//! Failure policy: what finds the list full is not done again; the next connection asks anew.

use std::collections::HashMap;
use std::time::Duration;

use nostr_relay_pool::RelayPoolNotification;
use nostr_sdk::{Event, EventId, RelayUrl, SubscriptionId};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::intake::PLACES;
use super::line::chance;

/// Things put off at once, at most: far more subscriptions and unanswered events than there are.
pub(super) const MOST_DUE: usize = 1_024;

/// So many wait for the reader at most when what was lost is asked for anew: half of the places that
/// there are for events, and of those that the SDK has for notifications.
const ROOM: usize = PLACES / 2;

/// What is to be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// A subscription that a relay closed.
    Ask(RelayUrl, SubscriptionId),
    /// An event that a relay did not take from a stranger, or so soon.
    Send(RelayUrl, EventId),
}

/// What only the reading task touches.
pub(super) struct Inbox {
    pub(super) notifications: broadcast::Receiver<RelayPoolNotification>,
    pub(super) events: mpsc::Receiver<Event>,
    /// What is to be done again, and when.
    pub(super) due: Vec<(Instant, Again)>,
    /// Subscriptions that a relay closed or did not get, and when they were asked for last.
    pub(super) closed: HashMap<(RelayUrl, SubscriptionId), (Backoff, Instant)>,
    /// What was not read in time, and not asked for since.
    pub(super) lost: u64,
}

impl Inbox {
    pub(super) fn new(
        notifications: broadcast::Receiver<RelayPoolNotification>,
        events: mpsc::Receiver<Event>,
    ) -> Self {
        Self { notifications, events, due: Vec::new(), closed: HashMap::new(), lost: 0 }
    }

    /// So much was not read in time.
    pub(super) const fn lose(&mut self, lost: u64) {
        self.lost = self.lost.saturating_add(lost);
    }

    /// Whether the reader has caught up so far that what is asked for anew finds room. Until then
    /// something waits, and is read at once.
    pub(super) fn has_caught_up(&self) -> bool {
        self.events.len() <= ROOM && self.notifications.len() <= ROOM
    }

    /// The next thing that is due; it stays so until it is [`done`](Self::done).
    pub(super) fn next_due(&self) -> Option<Again> {
        self.due.iter().min_by_key(|(at, _)| *at).map(|(_, what)| what.clone())
    }

    /// Does `what` after `rest`: once, however often a relay asks for it, and no relay can make the
    /// list long.
    pub(super) fn later(&mut self, rest: Duration, what: Again) {
        if self.due.len() < MOST_DUE && self.due.iter().all(|(_, due)| *due != what) {
            self.due.push((Instant::now() + rest, what));
        }
    }

    pub(super) fn done(&mut self, what: &Again) {
        self.due.retain(|(_, due)| due != what);
    }

    /// How long to rest before a subscription that was closed, or not sent, is asked for again. One
    /// that held for a while begins with the first rest; that it was answered at all says nothing.
    pub(super) fn rest(&mut self, relay: &RelayUrl, id: &SubscriptionId) -> Duration {
        let place = (relay.clone(), id.clone());
        let (backoff, asked) =
            self.closed.entry(place).or_insert_with(|| (Backoff::default(), Instant::now()));
        backoff.failed(asked.elapsed(), chance())
    }

    /// A subscription is being asked for again.
    pub(super) fn asked(&mut self, relay: &RelayUrl, id: &SubscriptionId) {
        if let Some((_, at)) = self.closed.get_mut(&(relay.clone(), id.clone())) {
            *at = Instant::now();
        }
    }
}
