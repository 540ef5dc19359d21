//! What the tests of every recycler's engine share: a proof that proves nothing, notes and bays, and a
//! line on which each byte takes a millisecond.

use std::collections::VecDeque;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;
use serde_json::Value;

use crate::Authority;
use crate::dispenser::DispenseOutcome;

pub(super) enum ByTest {}

pub(super) struct Proof<T>(pub(super) T);

impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl Authority for ByTest {
    type Committed<T: Send + 'static> = Proof<T>;
}

pub(super) fn currency() -> Currency {
    "EUR".parse().unwrap()
}

pub(super) fn bay(number: u8) -> BayId {
    BayId::new(number).unwrap()
}

pub(super) fn note(major: u32) -> Denomination {
    Denomination::from_major(major, currency()).unwrap()
}

/// Notes of all values.
pub(super) fn sum(notes: &Value) -> u64 {
    notes.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
}

pub(super) const fn is_final(outcome: &DispenseOutcome) -> bool {
    matches!(outcome, DispenseOutcome::Final { .. })
}

/// The next byte that has come to the end of the line.
pub(super) fn arrived(line: &mut VecDeque<(Mono, u8)>, now: Mono) -> Option<u8> {
    let (at, _) = line.front()?;
    if *at <= now { line.pop_front().map(|(_, byte)| byte) } else { None }
}

pub(super) fn queue(line: &mut VecDeque<(Mono, u8)>, now: Mono, bytes: &[u8]) {
    for byte in bytes {
        let free = line.back().map_or(now, |(at, _)| now.max(*at));
        line.push_back((free.after(1), *byte));
    }
}
