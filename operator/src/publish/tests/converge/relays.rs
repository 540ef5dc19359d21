//! Relays that lose, double, forget and lie, by chance that is the same for each seed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bitspire_shell::pool::PoolError;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use nostr::Event;

use crate::publish::worker::Carrier;

/// Chance that is the same for each seed (splitmix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Default)]
pub(super) struct Relay {
    pub(super) up: bool,
    /// By address, as a relay keeps them.
    pub(super) kept: BTreeMap<String, Event>,
}

/// What is between operator and machine.
pub(super) struct Between {
    pub(super) chance: Chance,
    pub(super) relays: [Relay; 2],
    /// Everything that ever came, for whoever says it again.
    pub(super) all: Vec<Event>,
    /// On the way to the machine.
    pub(super) under_way: Vec<Event>,
    /// Nothing goes wrong any more.
    pub(super) good: bool,
}

impl Between {
    pub(super) fn new(seed: u64) -> Self {
        let relays = [true, true].map(|up| Relay { up, ..Relay::default() });
        let (all, under_way) = (Vec::new(), Vec::new());
        Self { chance: Chance(seed), relays, all, under_way, good: false }
    }

    pub(super) fn wrong(&mut self, percent: u64) -> bool {
        !self.good && self.chance.percent(percent)
    }

    /// One event arrives at the relays; those that say OK.
    fn takes(&mut self, event: &Event) -> Vec<String> {
        let mut said = Vec::new();
        let address = event.tags.identifier().unwrap().to_owned();
        self.all.push(event.clone());
        for number in 0..self.relays.len() {
            if !self.relays[number].up || self.wrong(15) {
                continue;
            }
            // OK, and nothing is kept
            if !self.wrong(10) {
                let newer = |kept: &Event| kept.created_at > event.created_at;
                if !self.relays[number].kept.get(&address).is_some_and(newer) {
                    self.relays[number].kept.insert(address.clone(), event.clone());
                }
                if !self.wrong(40) {
                    self.under_way.push(event.clone());
                }
            }
            // kept, and the OK is lost
            if !self.wrong(10) {
                said.push(format!("relay {number}"));
            }
        }
        said
    }
}

/// The relays, for the worker.
pub(super) struct Shared(pub(super) Mutex<Between>);

impl Carrier for Shared {
    fn carry<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Vec<String>, PoolError>> {
        let taken = self.0.lock().unwrap().takes(event);
        let nobody = || Err(PoolError::NotTaken { reasons: "none".into() });
        std::future::ready(if taken.is_empty() { nobody() } else { Ok(taken) }).boxed()
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
