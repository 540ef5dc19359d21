//! The door to customers' wallets: which frames reach the check of a signature, which events are read.
//!
//! Promise: nobody is known here, so everything is bounded at once. Before the signature, on each
//! relay's own connection and with that relay's own budget: size, kind, recipient, age, an id that was
//! seen, the budget. Once it has verified: a bucket for each author, of which a bounded number is
//! remembered. What machines need is not shared: they have other connections, another gate and other
//! places.
//!
//! An event that comes again (its relay, or its wallet, says it twice) gets the reply that it got the
//! first time, the same event, a few times at most; nothing in the copy is looked at but its id.
//!
//! Failure policy: everything that is not let in is counted and not answered, but for a verified
//! request beyond its author's rate: that one is told, within bounds.

use std::collections::{HashMap, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bitspire_shared::admit::{
    self, Frame, Now, Passed, Refusal, RelayBudget, Roster, Rules, SeenIds, Unrouted,
};
use bitspire_shared::ids::PubKey;
use bitspire_shared::rate::{Keyed, Limiter, Quota};
use bitspire_shared::time::Mono;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::FrameFilter;
use nostr::Event;
use tokio::sync::mpsc;

use crate::rpc::tally::Tally;

/// Signatures checked a minute for one relay, and at once.
const RELAY: Quota = quota(600, 100);
/// Requests of one author a minute, and at once.
const AUTHOR: Quota = quota(30, 10);
/// Authors that are told of their rate a minute, all together.
const TOLD: Quota = quota(60, 10);
/// Authors whose rate is remembered.
const AUTHORS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// Ids remembered for each relay: more than its budget lets pass in the twenty minutes of ages that are
/// taken.
const SEEN: usize = 12_288;
/// Replies kept for requests that come again.
pub(super) const REPLIES: usize = 1_024;
/// How often one is sent again.
const AGAIN: u8 = 8;

const fn quota(rate: u32, burst: u32) -> Quota {
    let one = NonZeroU32::MIN;
    Quota::per_minute(one.saturating_add(rate - 1), one.saturating_add(burst - 1))
}

/// Everybody who asks the service.
struct Anybody([u8; 32]);

impl Roster for Anybody {
    type Member = [u8; 32];

    fn reads_for(&self, key: &[u8; 32]) -> bool {
        self.0 == *key
    }

    fn member(&self, author: &[u8; 32]) -> Result<[u8; 32], Unrouted> {
        Ok(*author)
    }
}

/// The last replies, by the id of their request.
#[derive(Default)]
struct Replies {
    by_request: HashMap<[u8; 32], (Event, u8)>,
    order: VecDeque<[u8; 32]>,
}

/// The door.
pub(super) struct Door {
    clock: Clock,
    started: Instant,
    service: Anybody,
    seen: RwLock<SeenIds>,
    authors: Mutex<Keyed<[u8; 32]>>,
    told: Mutex<Limiter>,
    replies: Mutex<Replies>,
    /// Ids of requests that came again.
    again: mpsc::Sender<[u8; 32]>,
    tally: Arc<Tally>,
}

/// Why a verified event is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    /// Milliseconds until its author may try again, where it is to be told.
    pub(super) told_ms: Option<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    /// A door to `service` from so many relays; the ids of requests that come again go to `again`.
    pub(super) fn new(
        service: PubKey,
        relays: usize,
        clock: Clock,
        tally: Arc<Tally>,
        again: mpsc::Sender<[u8; 32]>,
    ) -> Self {
        let seen = NonZeroUsize::MIN.saturating_add(SEEN.saturating_mul(relays));
        Self {
            clock,
            started: Instant::now(),
            service: Anybody(service.to_bytes()),
            seen: RwLock::new(SeenIds::new(seen)),
            authors: Mutex::new(Keyed::new(AUTHOR, AUTHORS)),
            told: Mutex::new(Limiter::new(TOLD)),
            replies: Mutex::default(),
            again,
            tally,
        }
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { unix: self.clock.now(), mono: Mono(mono) }
    }

    /// The filter for the connection to one relay: whether a message is worth its signature check.
    pub(super) fn filter(self: &Arc<Self>) -> FrameFilter {
        let budget = Mutex::new(RelayBudget::of_strangers(RELAY));
        let door = self.clone();
        Arc::new(move |text: &str| door.frame(text, &mut locked(&budget)))
    }

    fn frame(&self, text: &str, budget: &mut RelayBudget) -> bool {
        let gate = admit::Gate { rules: &Rules::CLINK, roster: &self.service, now: self.now() };
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let passed = gate.before_signature(text, &seen, budget);
        drop(seen);
        let why = match passed {
            Ok(Passed::Event { .. } | Passed::Other) => return true,
            Err(refused) => refused.why,
        };
        self.tally.count(why.label());
        if why == Refusal::Duplicate
            && let Ok(Frame::Event(head)) = Frame::parse(text)
            && let Ok(head) = head.decode()
        {
            // full: it is asked again
            let _ = self.again.try_send(head.id);
        }
        false
    }

    /// Takes in an event whose signature has verified.
    ///
    /// # Errors
    /// [`Turned`].
    pub(super) fn event(&self, event: &Event) -> Result<(), Turned> {
        let now = self.now();
        let gate = admit::Gate { rules: &Rules::CLINK, roster: &self.service, now };
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let passed = gate.after_signature(event, &mut seen, &mut locked(&self.authors));
        drop(seen);
        let why = match passed {
            Ok(_) => return Ok(()),
            Err(refused) => refused.why,
        };
        self.tally.count(why.label());
        let told_ms = match why {
            Refusal::MachineBusy { retry_after_ms } => {
                locked(&self.told).take(now.mono).is_ok().then_some(retry_after_ms)
            }
            _ => None,
        };
        Err(Turned { told_ms })
    }

    /// Keeps the reply to a request.
    pub(super) fn keep(&self, request: &Event, reply: Event) {
        let mut replies = locked(&self.replies);
        let id = request.id.to_bytes();
        if replies.by_request.insert(id, (reply, AGAIN)).is_none() {
            replies.order.push_back(id);
        }
        if replies.order.len() > REPLIES
            && let Some(oldest) = replies.order.pop_front()
        {
            replies.by_request.remove(&oldest);
        }
    }

    /// The reply to a request that came again, unless it was sent often enough.
    pub(super) fn again(&self, id: &[u8; 32]) -> Option<Event> {
        let mut replies = locked(&self.replies);
        let (reply, left) = replies.by_request.get_mut(id)?;
        *left = left.checked_sub(1)?;
        Some(reply.clone())
    }
}
