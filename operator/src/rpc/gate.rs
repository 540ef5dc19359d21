//! The gate: which frames reach the check of a signature, and which events reach decryption.
//!
//! Promise: [`Gate::filter`] runs on each relay's own connection, on the text, with that relay's own
//! budget, of which each rostered key has a share (see [`RelayBudget`]); [`Gate::event`] runs once the
//! signature has verified, with the bucket of the machine, all its keys together. The roster in
//! memory follows the database. Relays do not wait for each other: what they share before the
//! signature is only read.
//!
//! Duplicates: the window of ids refuses them, also after a restart: an id is written in the
//! transaction of its request's effects, which costs no flush, and one without effects
//! (`get_payment`, a refusal) with the next housekeeping. What a kill forgets are thus the latter of
//! the last ten seconds, and these may be repeated without harm. Beside that a request with effects
//! is in the table of requests, where a repeat gets the reply of the first, and `get_quote` finds its
//! own quote by the request's id.
//!
//! Failure policy: everything that is not let in is counted; a roster that cannot be read lets
//! nobody in.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bitspire_shared::admit::{
    self, Frame, KindRule, Now, Passed, Refusal, Refused, RelayBudget, ReplyRule, Roster as _,
    Rules, SeenIds, Unrouted,
};
use bitspire_shared::ids::{EventId, PubKey, to_hex};
use bitspire_shared::rate::{Keyed, Quota};
use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::{FrameFilter, Keeps};
use nostr::Event;

use super::roster::Snapshot;
use super::tally::{About, Tally};
use crate::ids::MachineId;
use crate::store::log::Rejected;

/// Ids remembered: at 240 s of life that is 1092 requests a second, six a minute of each of ten
/// thousand machines. Full, it takes 30 MB.
pub(super) const SEEN: u32 = 262_144;
/// The same for what is counted in memory.
const WINDOW: usize = SEEN as usize;
/// Machines whose buckets are in memory.
const MACHINES: usize = 16_384;
/// Keys whose share of one relay is in memory: those of the machines and their sessions.
const SHARES: usize = 65_536;
/// What one relay may bring, a second, of frames beyond the shares of the keys that they name as
/// their authors: with 40 us an event a relay that forges them costs a hundredth of a core, and a tenth
/// of that where it is found out. A machine that keeps to its bucket needs nothing of it.
const RELAY_A_SECOND: u32 = 200;

/// What is counted for each machine.
struct Machines {
    requests: Keyed<MachineId>,
    /// How often each machine is told of refusals that are not answered each time.
    told: HashMap<Quota, Keyed<MachineId>>,
}

/// The gate.
pub struct Gate {
    clock: Clock,
    started: Instant,
    /// Of one machine, which is also the share of each of its keys at each relay.
    quota: Quota,
    roster: RwLock<Arc<Snapshot>>,
    seen: RwLock<SeenIds>,
    /// Ids in that window that are not on the disk yet.
    unkept: Mutex<Vec<(EventId, Unix)>>,
    machines: Mutex<Machines>,
    tally: Arc<Tally>,
}

/// The gate for the connection to one relay.
struct OneRelay {
    gate: Arc<Gate>,
    relay: String,
    budget: Mutex<RelayBudget>,
}

impl OneRelay {
    fn budget(&self) -> MutexGuard<'_, RelayBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeps for OneRelay {
    fn keeps(&self, text: &str) -> bool {
        self.gate.frame(&self.relay, text, &mut self.budget())
    }

    fn forged(&self, event: &Event) {
        let now = self.gate.now();
        self.budget().forged(event.pubkey.as_bytes(), now.mono);
        let refused = Refusal::BadSignature.before_signature();
        self.gate.tally.refused(refused, now.unix, now.mono, || About::of(&self.relay, event));
    }
}

/// What is to be done about a refused event.
#[derive(Debug)]
pub struct Turned {
    /// Why.
    pub refused: Refused,
    /// Whether its sender is told.
    pub(super) tell: bool,
    /// The row for the page, if it is written at once.
    pub(super) row: Option<Box<Rejected>>,
}

const fn room(n: usize) -> NonZeroUsize {
    match NonZeroUsize::new(n) {
        Some(n) => n,
        None => NonZeroUsize::MIN,
    }
}

/// Until when a request's event could be taken, by its clock.
pub(super) fn until(event: &Event) -> Unix {
    Unix(event.created_at.as_secs()).after(KindRule::RPC.max_skew_s.unwrap_or_default())
}

impl Gate {
    /// A gate for the service's key that lets nobody in before the roster is known, and `quota` of
    /// requests of one machine.
    #[must_use]
    pub fn new(service: PubKey, clock: Clock, quota: Quota, tally: Arc<Tally>) -> Self {
        let nobody = Snapshot::nobody(service.to_bytes(), Unrouted::NoResolver);
        let requests = Keyed::new(quota, room(MACHINES));
        Self {
            clock,
            started: Instant::now(),
            quota,
            roster: RwLock::new(Arc::new(nobody)),
            seen: RwLock::new(SeenIds::new(room(WINDOW))),
            unkept: Mutex::default(),
            machines: Mutex::new(Machines { requests, told: HashMap::new() }),
            tally,
        }
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { unix: self.clock.now(), mono: Mono(mono) }
    }

    fn machines(&self) -> MutexGuard<'_, Machines> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was refused.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The roster as it is in memory.
    fn roster(&self) -> Arc<Snapshot> {
        self.roster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another roster in its place.
    pub fn set_roster(&self, roster: Snapshot) {
        *self.roster.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
    }

    /// The filter for the connection to one relay: whether a message is worth its signature check.
    #[must_use]
    pub fn filter(self: &Arc<Self>, relay: &str) -> FrameFilter {
        let rate = NonZeroU32::new(RELAY_A_SECOND.saturating_mul(60)).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(RELAY_A_SECOND).unwrap_or(NonZeroU32::MIN);
        let rest = Quota::per_minute(rate, burst);
        let budget = Mutex::new(RelayBudget::new(self.quota, room(SHARES), rest));
        Arc::new(OneRelay { gate: self.clone(), relay: relay.to_owned(), budget })
    }

    /// Stage 1.
    fn frame(&self, relay: &str, text: &str, budget: &mut RelayBudget) -> bool {
        let (roster, now) = (self.roster(), self.now());
        let gate = admit::Gate { rules: &Rules::RPC, roster: roster.as_ref(), now };
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let passed = gate.before_signature(text, &seen, budget);
        drop(seen);
        let refused = match passed {
            Ok(Passed::Event { .. } | Passed::Other) => return true,
            Err(refused) => refused,
        };
        let about = || {
            let head = match Frame::parse(text) {
                Ok(Frame::Event(head)) => head.decode().ok(),
                _ => None,
            };
            About {
                relay: Some(relay.to_owned()),
                sender: head.as_ref().map(|head| to_hex(&head.pubkey)),
                event_id: head.as_ref().map(|head| to_hex(&head.id)),
            }
        };
        self.tally.refused(refused, now.unix, now.mono, about);
        false
    }

    /// Stage 2, on an event whose signature has verified.
    ///
    /// # Errors
    /// [`Turned`].
    pub fn event(&self, relay: &str, event: &Event) -> Result<MachineId, Turned> {
        let (roster, now) = (self.roster(), self.now());
        let gate = admit::Gate { rules: &Rules::RPC, roster: roster.as_ref(), now };
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        let mut machines = self.machines();
        let passed = gate.after_signature(event, &mut seen, &mut machines.requests);
        drop((seen, machines));
        passed.map_err(|refused| {
            let member = roster.member(&event.pubkey.to_bytes()).ok();
            self.turn(relay, event, member, refused)
        })
    }

    /// Takes ids into the window that were seen before the start.
    pub(super) fn remember(&self, ids: &[(EventId, Unix)]) {
        let now = self.clock.now();
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        for (id, until) in ids {
            seen.record(*id.as_bytes(), *until, now);
        }
    }

    /// The id of this event is to be written with the next housekeeping.
    pub(super) fn keep_later(&self, event: &Event) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        // beyond what the window holds, the oldest are forgotten there too
        if unkept.len() < WINDOW {
            unkept.push((EventId::from_bytes(event.id.to_bytes()), until(event)));
        }
    }

    /// What is to be written now.
    pub(super) fn take_unkept(&self) -> Vec<(EventId, Unix)> {
        std::mem::take(&mut *self.unkept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A refusal after the signature, here or later: counted, and whether the sender is told.
    pub(super) fn turn(
        &self,
        relay: &str,
        event: &Event,
        machine: Option<MachineId>,
        refused: Refused,
    ) -> Turned {
        let now = self.now();
        let about = || About::of(relay, event);
        let row = self.tally.refused(refused, now.unix, now.mono, about).map(Box::new);
        let tell = match refused.reply() {
            ReplyRule::Never => false,
            ReplyRule::Always => true,
            ReplyRule::AtMost(quota) => machine.is_some_and(|machine| {
                let mut machines = self.machines();
                let told = machines.told.entry(quota);
                let told = told.or_insert_with(|| Keyed::new(quota, room(MACHINES)));
                told.take(&machine, now.mono).is_ok()
            }),
        };
        Turned { refused, tell, row }
    }

    /// The roster cannot be read: from now on nobody is let in.
    pub(super) fn close(&self, service: PubKey) {
        self.set_roster(Snapshot::nobody(service.to_bytes(), Unrouted::ResolverError));
    }
}
