//! Wire-level simulators with real counters and a real note path.
//!
//! Promise: a simulated device answers bytes with bytes as the real one does, keeps count of where
//! every simulated note is, and can be jammed, emptied, cut off and confused on command.

mod bays;
pub mod ccnet;
pub mod cli;
pub mod ebds;
pub mod escpos;
pub mod f56;
pub mod faulty;
mod hands;
pub mod host;
pub mod id003;
mod mishaps;
pub mod puloon;
pub mod replay;
pub mod smart_payout;

use std::collections::BTreeMap;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};
use thiserror::Error;

/// A control action that a simulator cannot carry out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SimError {
    /// No such action, or its arguments do not fit.
    #[error("expected one of: {expected}; got {got}")]
    Action {
        /// What it understands.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The device is in no state for it (a note inserted while the inlet is closed, say).
    #[error("not now: {0}")]
    State(String),
}

/// A key for a person at the terminal, and the action that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub key: char,
    /// What it does, in a few words.
    pub what: &'static str,
    /// The action, as JSON.
    pub action: &'static str,
}

impl Key {
    /// `key` does `what`, which is `action`.
    #[must_use]
    pub const fn new(key: char, what: &'static str, action: &'static str) -> Self {
        Self { key, what, action }
    }
}

/// What people do to a validator, by key.
const VALIDATOR_KEYS: &[Key] = &[
    Key::new('5', "insert a 5", r#"{"action":"insert","denomination":5}"#),
    Key::new('1', "insert a 10", r#"{"action":"insert","denomination":10}"#),
    Key::new('2', "insert a 20", r#"{"action":"insert","denomination":20}"#),
    Key::new('h', "insert a 100", r#"{"action":"insert","denomination":100}"#),
    Key::new('r', "the next note is refused", r#"{"action":"reject_next","reason":"76"}"#),
    Key::new('j', "a jam in the acceptor", r#"{"action":"jam","where":"acceptor"}"#),
    Key::new('k', "clear it (the host resets)", r#"{"action":"clear"}"#),
    Key::new('p', "take the cashbox out", r#"{"action":"stacker_out"}"#),
    Key::new('e', "empty it", r#"{"action":"collect"}"#),
    Key::new('i', "put it back", r#"{"action":"stacker_in"}"#),
    Key::new('x', "power off", r#"{"action":"power_off"}"#),
    Key::new('o', "power on", r#"{"action":"power_on"}"#),
];

/// One more note of this code.
fn count(tally: &mut BTreeMap<u8, u32>, code: u8) {
    let notes = tally.entry(code).or_default();
    *notes = notes.saturating_add(1);
}

/// Notes by their value in major units.
fn by_value(tally: &BTreeMap<u8, u32>, major: impl Fn(u8) -> Option<u32>) -> Value {
    let mut notes = BTreeMap::<String, u32>::new();
    for (code, count) in tally {
        let sum = notes.entry(major(*code).unwrap_or_default().to_string()).or_default();
        *sum = sum.saturating_add(*count);
    }
    json!(notes)
}

/// One simulated device, sans-IO like the engines.
pub trait SimDevice: Send + 'static {
    /// Bytes from the host; the device's bytes back (often none yet).
    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Vec<u8>;
    /// Time passes: motors turn, timeouts run out.
    fn on_tick(&mut self, now: Mono) -> Vec<u8>;
    /// When to call [`on_tick`](Self::on_tick) next.
    fn wake_at(&self) -> Option<Mono>;
    /// A person at the device, or the bench: `{"action": "insert", ...}`. The answer is JSON.
    ///
    /// # Errors
    /// [`SimError`].
    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError>;
    /// Where every note is, as JSON with integer counts.
    fn counters(&self) -> Value;
    /// Keys for a person at the terminal; other actions are typed as JSON. `c`, `q`, `?` and `{` are
    /// taken.
    fn keys(&self) -> &'static [Key] {
        &[]
    }
}

impl<D: SimDevice + ?Sized> SimDevice for Box<D> {
    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Vec<u8> {
        self.as_mut().on_bytes(bytes, now)
    }
    fn on_tick(&mut self, now: Mono) -> Vec<u8> {
        self.as_mut().on_tick(now)
    }
    fn wake_at(&self) -> Option<Mono> {
        self.as_ref().wake_at()
    }
    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        self.as_mut().control(action, now)
    }
    fn counters(&self) -> Value {
        self.as_ref().counters()
    }
    fn keys(&self) -> &'static [Key] {
        self.as_ref().keys()
    }
}

/// What every simulated validator is tested by.
#[cfg(test)]
mod testing {
    use std::collections::BTreeSet;

    use super::{Mono, SimDevice, SimError, Value};

    pub(super) fn every_key_is_an_action(mut sim: impl SimDevice) {
        assert!(!sim.keys().is_empty());
        let mut seen = BTreeSet::from(['c', 'q', '?', '{']);
        for key in sim.keys() {
            assert!(seen.insert(key.key), "{} twice", key.key);
            let action: Value = serde_json::from_str(key.action).unwrap();
            let refused = sim.control(&action, Mono(1_000));
            let unknown = matches!(refused, Err(SimError::Action { .. }));
            assert!(!unknown, "key {}: {refused:?}", key.key);
        }
    }

    /// Every note that was inserted, only 20s, is in one place.
    pub(super) fn notes_add_up(c: &Value) {
        let n = |name: &str| c[name].as_u64().unwrap();
        let boxed = |name: &str| c[name]["20"].as_u64().unwrap_or(0);
        let stacked = boxed("cashbox") + boxed("collected");
        let elsewhere = n("in_path") + n("returned") + n("rejected") + n("removed");
        assert_eq!(n("inserted"), elsewhere + stacked, "{c}");
        assert!(n("acknowledged") <= stacked, "{c}");
    }
}
