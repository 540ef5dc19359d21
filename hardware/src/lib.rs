//! Real serial protocols of note validators, recyclers and dispensers, and simulators that speak
//! them byte for byte.
//!
//! Promise: engines are sans-IO (bytes, ticks and commands in; bytes, events and a wake-up time
//! out; no clock); a command that moves a note for good takes a proof that its intent is durable
//! ([`Authority`]), so that moving one without a record does not compile.
//!
//! Failure policy: unknown codes stay `Unknown {raw}` and mean "service needed", never "fine"; a
//! lost reply to a dispense is `Unknowable`, never a retry; nothing panics on bytes.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic
    )
)]

pub mod acceptor;
pub mod dispenser;
pub mod engine;
pub mod frame;
pub mod plan;
pub mod port;
pub mod printer;
pub mod probe;
pub mod recycler;
pub mod sim;
pub mod trace;

/// Who may prove that an intent is durable.
///
/// This crate makes no proof: the agent's journal owns the type and is its only maker. The proof
/// is taken by value, so it authorises one movement.
pub trait Authority: 'static {
    /// A `T` whose record has been flushed to disk.
    type Committed<T: Send + 'static>: AsRef<T> + Send + 'static;
}
