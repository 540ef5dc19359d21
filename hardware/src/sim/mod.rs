//! Wire-level simulators with real counters and a real note path.
//!
//! Promise: a simulated device answers bytes with bytes as the real one does, keeps count of where
//! every simulated note is, and can be jammed, emptied, cut off and confused on command.

pub mod cli;
pub mod escpos;
pub mod f56;
pub mod faulty;
pub mod host;
pub mod id003;

use bitspire_shared::time::Mono;
use serde_json::Value;
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
